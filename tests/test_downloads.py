"""Public files: found here or refused with a reason; the network is never waited for."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from dataclasses import replace

import pytest

from mitolib import downloads
from mitolib.downloads import FILES, DownloadError, OutOfReach
from mitolib.settings import ROOT

CONTENT = b"a public file"


@pytest.fixture
def known(monkeypatch, tmp_path):
    """A registry with one small file of known digest; cache and mirror are empty folders of their own."""
    monkeypatch.setattr(downloads, "CACHE", tmp_path / "cache")
    monkeypatch.delenv("MITOLIB_MIRROR", raising=False)
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"

    def at(address: str = "http://127.0.0.1:9/file.bin", known_hash: str | None = digest) -> None:
        file = replace(FILES["P03 mask"], file_name="file.bin", address=address, known_hash=known_hash)
        monkeypatch.setitem(FILES, "small", file)

    at()
    return at


@pytest.fixture
def address():
    """Of a server on this machine that sends CONTENT, or for /slow/ nothing at all."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if "slow" in self.path:
                time.sleep(3)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_mirror_comes_first_then_the_cache_and_a_notebook_asks_no_network(known, monkeypatch, tmp_path):
    assert downloads.local("small") is None
    for folder in ("cache", "mirror"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file.bin").write_bytes(CONTENT)
    assert downloads.local("small") == tmp_path / "cache" / "file.bin"
    monkeypatch.setenv("MITOLIB_MIRROR", str(tmp_path / "mirror"))
    assert downloads.fetch("small").path == downloads.local("small") == tmp_path / "mirror" / "file.bin"
    assert downloads.fetch("small").source == "mirror"


def test_another_file_of_the_same_name_is_an_error(known, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file.bin").write_bytes(b"something else")
    with pytest.raises(DownloadError, match=r"file\.bin: .* sha256 .* wanted .*Delete it"):
        downloads.local("small")


def test_a_file_is_brought_from_its_address_once_and_kept(known, address, tmp_path):
    known(f"{address}/file.bin")
    assert downloads.fetch("small").path.read_bytes() == CONTENT
    known("http://127.0.0.1:9/file.bin")
    assert downloads.fetch("small") == downloads.Found(tmp_path / "cache" / "file.bin", "cache, from official address")


def test_the_beginning_of_a_digest_is_enough(known, address):
    known(f"{address}/file.bin", f"sha256:{hashlib.sha256(CONTENT).hexdigest()[:8]}")
    assert downloads.fetch("small").path.read_bytes() == CONTENT


def test_what_an_address_sends_is_checked_and_not_kept_if_it_is_another_file(known, address, tmp_path):
    known(f"{address}/file.bin", "sha256:" + "0" * 64)
    with pytest.raises(DownloadError, match=rf"{address}/file\.bin: .* wanted 0000"):
        downloads.fetch("small")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("path", [None, "/slow/file.bin"])
def test_an_address_out_of_reach_is_said_within_the_timeout(known, address, monkeypatch, path):
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.5)
    known(address + path if path else "http://127.0.0.1:9/file.bin")
    start = time.monotonic()
    with pytest.raises(OutOfReach, match=r"out of reach \(\w+\)\. Download it by hand"):
        downloads.fetch("small")
    assert time.monotonic() - start < 2.5, "the server answers after 3 s"


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if file.known_hash is None])
def test_a_file_whose_digest_nobody_states_is_left_to_the_reader(name, monkeypatch):
    monkeypatch.delenv("MITOLIB_MIRROR", raising=False)
    with pytest.raises(OutOfReach, match=r"by hand only"):
        downloads.fetch(name)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DownloadError, match=r"nonsense: .*NCL-SM, P03 mask"):
        downloads.fetch("nonsense")


def test_the_readme_of_the_data_names_every_file_its_address_and_licence():
    text = (ROOT / "data" / "README.md").read_text()
    for name, file in FILES.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert file.address in row and file.licence in row, name


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if file.known_hash])
def test_what_a_mirror_holds_is_what_the_registry_says(name):
    if downloads.local(name) is None:  # raises if it is another file
        pytest.skip("not on this machine")
