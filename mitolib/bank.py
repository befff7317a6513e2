"""Features of a frozen backbone: computed once, kept on disk, read in every epoch.

A frozen backbone gives the same features for the same picture, so they are computed for a fixed number of
augmented `views` of each training patch, and each epoch reads the next view. With `views=0` every call draws a
new augmentation and recomputes: the paper's loop, through the same door.

A bank lies in `data/cache/features/<key>/`, in chunks that are whole or absent, so that a run that was killed
goes on where it was. The key is a digest of everything that the features depend on: pixels, what preparation and
augmentation make of a probe picture, seed, architecture, weights, precision and library versions. A changed input
therefore never meets an old feature. `make clean-cache` removes all banks.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import keras
import numpy as np

from mitolib import backend, files
from mitolib.progress import say, track
from mitolib.settings import DATA, faster_in_bfloat16

FOLDER = DATA / "cache" / "features"
CHUNK = 64  # patches per file: 3 MB of VGG16's last map, half a minute of work to lose
BATCH = 16
PICTURE = 64 * 2**20  # bytes that a picture takes on its way through VGG16, with what its convolutions need

Augment = Callable[..., np.ndarray]  # (patches uint8 (N, H, W, C), rng=Generator) -> the same, turned
Prepare = Callable[[np.ndarray], np.ndarray]  # patches uint8 (N, H, W, C) -> network input
Source = Callable[[int, np.ndarray], np.ndarray]  # (epoch, positions among the rows) -> features (N, h, w, c)


class BankError(OSError):
    """A bank that cannot be written; the message says where, how much it needs and what to do."""


@cache
def precision() -> str:
    """ "bfloat16" where this device convolves enough faster in it, else "float32".

    Measured once per process, in a fraction of a second, by the rule of `settings.faster_in_bfloat16`.
    """
    policies = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
    passes = {dtype: _convolution(policy) for dtype, policy in policies.items()}
    return "bfloat16" if faster_in_bfloat16(passes, on_gpu=backend.gpu() is not None) else "float32"


def _convolution(policy: str) -> Callable[[], np.ndarray]:
    """A pass like those of VGG16's third block; a number goes to the device and four come back, not whole maps."""
    # Nothing is drawn: what was seeded before stays as it was.
    layer = keras.layers.Conv2D(256, 3, dtype=policy, kernel_initializer="ones")

    def largest(value: backend.Tensor) -> backend.Tensor:
        return keras.ops.max(layer(keras.ops.broadcast_to(value, (4, 56, 56, 256))), axis=(1, 2, 3))

    return partial(backend.compiled(largest, (1, 1, 1, 1)), np.ones((1, 1, 1, 1), np.float32))


def compiled(backbone: keras.Model) -> Prepare:
    """The forward pass in `precision()`, for batches of any length: float32 (N, H, W, C) -> float32 (N, h, w, c).

    One graph, where Keras' `predict_on_batch` makes one for every length. In bfloat16 the weights are those of now.
    """
    computing, forward = _graph(backbone, precision())
    if computing is not backbone:
        computing.set_weights(backbone.get_weights())
    return forward


@lru_cache(maxsize=1)  # the sets of a task go through one network in turn; to trace ResNet-50 takes a second
def _graph(backbone: keras.Model, dtype: str) -> tuple[keras.Model, Prepare]:
    """The model that computes in this precision, and its forward pass, compiled when first called."""
    computing = in_bfloat16(backbone) if dtype == "bfloat16" else backbone
    return computing, backend.compiled(partial(computing, training=False), backbone.input_shape)


def in_bfloat16(backbone: keras.Model) -> keras.Model:
    """A network of the same layers that keeps its weights, which are its own, in float32 and computes in bfloat16."""
    return keras.models.clone_model(
        backbone, clone_function=lambda layer: type(layer).from_config(layer.get_config() | {"dtype": "mixed_bfloat16"})
    )


def at_once() -> int:
    """Pictures in a pass: BATCH, or as many up to a chunk as half the memory holds that a GPU says is free."""
    free = backend.free_bytes()
    return BATCH if free is None else int(np.clip(free // (2 * PICTURE), 1, CHUNK))


def passed(forward: Prepare, pixels_nhwc: np.ndarray, prepare: Prepare, label: str) -> np.ndarray:
    """(N, h, w, c) float16 of (N, H, W, C) pixels, in batches. FloatingPointError for a feature that does not fit."""
    size = at_once()
    parts = [forward(prepare(pixels_nhwc[start : start + size])) for start in range(0, len(pixels_nhwc), size)]
    features = np.concatenate(parts).astype(np.float16)
    if not np.isfinite(features).all():
        raise FloatingPointError(f"{label}: features beyond the range of float16. Are the weights a trained net's?")
    return features


class Bank:
    """Features on disk of the patches `rows`: `views` augmented copies of each, or one plain copy without `augment`.

    patches_nhwc: (N, H, W, C) uint8, in memory or memory-mapped; only `rows` of it (index array; None: all) are read,
    a chunk at a time. The bank numbers its patches 0, 1, ... in the order of `rows`. Reading gives float16: it halves
    disk and memory, and its relative rounding error of 0.05 % is far below the spread of the features.
    Raises BankError if the disk is too small, FloatingPointError if a feature does not fit into float16.
    """

    def __init__(
        self,
        backbone: keras.Model,
        patches_nhwc: np.ndarray,
        *,
        rows: np.ndarray | None = None,
        prepare: Prepare,
        augment: Augment | None = None,
        views: int = 1,
        seed: int = 0,
        label: str,
    ) -> None:
        rows = np.arange(len(patches_nhwc)) if rows is None else rows
        self.n, self.shape = len(rows), backbone.output_shape[1:]
        self.folder = FOLDER / _key(backbone, patches_nhwc, rows, prepare, augment, seed)
        self.starts = range(0, self.n, CHUNK)
        wanted = [(view, start) for view in range(views) for start in self.starts]
        missing = [chunk for chunk in wanted if not self._path(*chunk).exists()]
        if missing:
            self._make_room(len(missing), label)
            forward = compiled(backbone)
            for view, start in track(missing, label, len(missing)):
                pixels = np.asarray(patches_nhwc[rows[start : start + CHUNK]])
                if augment:  # a stream of its own for each chunk: resuming changes nothing
                    pixels = augment(pixels, rng=np.random.default_rng([seed, view, start]))
                try:
                    self._write(view, start, passed(forward, pixels, prepare, label), label)
                except backend.OUT_OF_MEMORY as error:
                    raise MemoryError(
                        f"{label}: {at_once()} patches do not fit into the device's memory. End other programs on it, "
                        "or run on the processor: set the environment variable CUDA_VISIBLE_DEVICES to -1."
                    ) from error
        self.maps = {chunk: np.load(self._path(*chunk), mmap_mode="r") for chunk in wanted}

    def read(self, rows: np.ndarray, view: int = 0) -> np.ndarray:
        """(len(rows), h, w, c) float16, in the order of `rows`."""
        return np.stack([self.maps[view, row - row % CHUNK][row % CHUNK] for row in rows])

    def all(self) -> np.ndarray:
        """(N, h, w, c) float16 of the first view."""
        return np.concatenate([self.maps[0, start] for start in self.starts])

    def _path(self, view: int, start: int) -> Path:
        return self.folder / f"view{view:03d}-{start:08d}.npy"

    def _make_room(self, n_chunks: int, label: str) -> None:
        size = n_chunks * min(CHUNK, self.n) * int(np.prod(self.shape)) * 2
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BankError(f"{self.folder}: cannot be made ({error.strerror}). Make data/cache writable.") from error
        free = shutil.disk_usage(self.folder).free
        say(f"  {label}: writing {size / 1e9:.2f} GB, {free / 1e9:.0f} GB are free")
        if size > free:
            raise BankError(
                f"{self.folder}: {label} needs {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. "
                "Run `make clean-cache`, ask for fewer views, or use views=0, which keeps nothing."
            )

    def _write(self, view: int, start: int, features: np.ndarray, label: str) -> None:
        path = self._path(view, start)
        try:
            with files.whole(path) as aside:
                np.save(aside, features)
        except OSError as error:
            raise BankError(f"{path}: cannot be written ({error.strerror}). Free the disk and run again.") from error


def source(
    backbone: keras.Model,
    patches_nhwc: np.ndarray,
    *,
    rows: np.ndarray | None = None,
    augment: Augment,
    prepare: Prepare,
    views: int,
    seed: int,
    label: str,
) -> Source:
    """Features of the augmented training patches `rows` (index array; None: all), by epoch and position in `rows`.

    With `views` > 0 from a bank, epoch e reading view `e % views`. With 0 each call augments and recomputes.
    """
    rows = np.arange(len(patches_nhwc)) if rows is None else rows
    if views == 0:
        forward, rng = compiled(backbone), np.random.default_rng(seed)

        def computed(epoch: int, positions: np.ndarray) -> np.ndarray:
            return forward(prepare(augment(np.asarray(patches_nhwc[rows[positions]]), rng=rng)))

        return computed
    bank = Bank(
        backbone, patches_nhwc, rows=rows, prepare=prepare, augment=augment, views=views, seed=seed, label=label
    )
    return Banked(bank, views)


@dataclass(frozen=True)
class Banked:
    """A source that reads a bank, whose views may be kept elsewhere."""

    bank: Bank
    views: int

    def __call__(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        return self.bank.read(positions, epoch % self.views)


def _key(
    backbone: keras.Model,
    patches_nhwc: np.ndarray,
    rows: np.ndarray,
    prepare: Prepare,
    augment: Augment | None,
    seed: int,
) -> str:
    """Digest of all that the features depend on."""
    total = hashlib.sha256(f"{keras.__version__} {backend.VERSION} {precision()} {CHUNK}".encode())
    for layer in backbone.layers:  # without its name, which Keras counts up within a process
        total.update(repr((type(layer).__name__, layer.get_config() | {"name": ""})).encode())
    for array in backbone.get_weights():
        total.update(np.ascontiguousarray(array).tobytes())
    total.update(repr((len(rows), patches_nhwc.shape[1:], str(patches_nhwc.dtype))).encode())
    for start in range(0, len(rows), CHUNK):
        total.update(patches_nhwc[rows[start : start + CHUNK]].tobytes())
    # What they make of a probe tells one preparation, or one augmentation and range of it, from another.
    probe = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), dtype=np.uint8)
    total.update(prepare(probe).tobytes())
    if augment:
        total.update(augment(probe, rng=np.random.default_rng(seed)).tobytes())
        total.update(str(seed).encode())
    return total.hexdigest()[:32]
