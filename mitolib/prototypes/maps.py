"""Maps of patches at the last convolution of VGG16, as prototype networks read them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mitolib import patches
from mitolib.own_data import LeftOut
from mitolib.prototypes.network import NotFinite, PrototypeNetwork
from mitolib.prototypes.relevance import Propagation, Walk
from mitolib.study import LEAST_CHANNELS, Experiment
from mitolib.weights import Weights

POOLED = 7  # places along a side, behind the last pooling
LAYERS = {14: "block5_conv3", POOLED: "block5_pool"}  # places along a side -> the layer of VGG16 whose map has them
RECEPTIVE_FIELD = 196  # of a place of the first, in px of the 224 that VGG16 is shown
BATCH = 64


@dataclass(frozen=True, eq=False)  # arrays have no single answer to whether they are equal
class Maps:
    """Maps of patches, and where their places lie.

    table: a row for each patch: section, subject, label, y, x (upper left corner, px), size. values: (N, S, C) float16
    or float32, the S places row by row of a square map.
    """

    table: pd.DataFrame
    values: np.ndarray

    def __post_init__(self) -> None:
        n_patches, n_places = self.values.shape[:2]
        if self.values.ndim != 3 or self.side**2 != n_places or n_patches != len(self.table):
            raise ValueError(
                f"maps of shape {self.values.shape} for a table of {len(self.table)} patches; wanted (patches, places, "
                "channels), the places of a square map. Read the bank that was made of this table."
            )

    @property
    def n_places(self) -> int:
        """Places of a map."""
        return self.values.shape[1]

    @property
    def n_channels(self) -> int:
        """Channels of a map."""
        return self.values.shape[2]

    @property
    def side(self) -> int:
        """Places along a side."""
        return round(self.values.shape[1] ** 0.5)

    def batch(self, rows: Sequence[int]) -> Tensor:
        """(len(rows), S, C) float32. Raises NotFinite, with the patch, for a value that is no finite number."""
        values = torch.from_numpy(self.values[np.asarray(rows)]).float()
        if not torch.isfinite(values.sum()):  # in one pass: a number that is not finite leaves no finite sum
            bad = int(np.asarray(rows)[int((~torch.isfinite(values)).flatten(1).any(1).nonzero()[0])])
            raise NotFinite(
                f"{self.named(bad)}: its map holds values that are not finite, when a batch is read. Remove its bank "
                "(make clean-cache) and compute it again."
            )
        return values

    def latent(self, network: PrototypeNetwork, rows: np.ndarray) -> np.ndarray:
        """(len(rows), S, D) float32: the latent vectors of these patches. Raises NotFinite, with the patch."""
        found = []
        with torch.no_grad():
            for start in range(0, len(rows), BATCH):
                latent = network.latent(self.batch(rows[start : start + BATCH]))
                if not torch.isfinite(latent).all():
                    bad = int((~torch.isfinite(latent)).flatten(1).any(1).nonzero()[0])
                    raise NotFinite(
                        f"{self.named(int(rows[start + bad]))}: its latent vectors are not finite; weights of the "
                        "add-on are not. Train with a smaller learning rate."
                    )
                found.append(latent.numpy())
        return np.concatenate(found) if found else np.zeros((0, self.n_places, network.architecture.depth), np.float32)

    def mean(self, rows: np.ndarray) -> float:
        """Mean of all values of these patches; 1 where it is 0, so that one can divide by it."""
        sums = [
            float(self.batch(rows[start : start + BATCH]).double().mean(dim=(1, 2)).sum())
            for start in range(0, len(rows), BATCH)
        ]
        return sum(sums) / len(rows) or 1.0

    def centres_px(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), S, 2) y and x of the centre of each place, in px of its section."""
        of_rows = self.table.iloc[rows]
        offsets = (np.arange(self.side) + 0.5) / self.side
        within = np.stack(np.meshgrid(offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 2)  # (S, 2), 0 to 1
        corners, sizes = of_rows[["y", "x"]].to_numpy(float), of_rows["size"].to_numpy(float)
        return corners[:, None] + within * sizes[:, None, None]

    def named(self, row: int) -> str:
        """A patch in words."""
        patch = self.table.iloc[row]
        return f"patch {row} (section {patch['section']}, y {patch['y']}, x {patch['x']})"

    def pooled_by_two(self) -> Maps:
        """The maps behind VGG16's last pooling: the maximum of each 2 x 2 places."""
        n, _, c = self.values.shape
        half = self.side // 2
        blocks = self.values.reshape(n, half, 2, half, 2, c)
        return Maps(self.table, blocks.max(axis=(2, 4)).reshape(n, half * half, c))


@dataclass(frozen=True, eq=False)
class Features:
    """The frozen VGG16 below a prototype network, of one experiment. Nothing is computed before it is asked for.

    table: a row for each patch, with section, subject, label, y, x and size. pixels_nhwc: (N, 224, 224, channels)
    uint8. sha256: of the pictures. seed: of the weights, where there are none from ImageNet. side: places along a side
    of the finest maps that are asked for, a key of LAYERS; other chapters keep those of the last pooling too.
    """

    experiment: Experiment
    table: pd.DataFrame
    pixels_nhwc: np.ndarray
    sha256: str
    weights: Weights
    seed: int
    side: int

    @property
    def depends(self) -> dict[str, Any]:
        """What tells these maps from others, as plain values."""
        cut = self.table[["section", "subject", "label", "y", "x", "size"]].to_csv(index=False)
        weights = {"weights": self.weights.sha256} if self.weights.sha256 else {"seed": self.seed}
        return {
            "pictures": self.sha256,
            "patches": hashlib.sha256(cut.encode()).hexdigest(),
            "experiment": vars(self.experiment),
        } | weights

    @cached_property
    def whole(self) -> Any:
        """The Keras model, with an untrained head above the layer of these maps."""
        return self._build(self.weights.arrays, self.seed)

    def _build(self, arrays: Sequence[np.ndarray] | None, seed: int) -> Any:
        import keras

        from mitolib import networks

        keras.utils.set_random_seed(seed)
        n_channels = max(LEAST_CHANNELS, len(self.experiment.proteins))
        return networks.build("VGG16", n_channels=n_channels, arrays=arrays)

    @property
    def layer(self) -> str:
        """Name of the layer whose maps these are."""
        return LAYERS[self.side]

    @cached_property
    def backbone(self) -> Any:
        """The Keras model up to the layer."""
        from mitolib import networks

        return networks.divide(self.whole, self.layer)[0]

    @cached_property
    def maps(self) -> Maps:
        """(N, side * side, 512) of all patches, from a bank on disk."""
        from mitolib import bank

        label = f"VGG16, {self.layer}, {self.experiment.name}"
        kept = bank.Bank(self.backbone, self.pixels_nhwc, prepare=patches.as_input, label=label).all()
        return Maps(self.table, kept.reshape(len(kept), -1, kept.shape[-1]))

    @cached_property
    def pooled(self) -> Maps:
        """(N, 49, 512): behind the last pooling."""
        return self.maps if self.side == POOLED else self.maps.pooled_by_two()

    def at(self, side: int) -> Maps:
        """The maps with this many places along a side: 7, or that of `maps`. Raises ValueError for another."""
        by_side = {POOLED: lambda: self.pooled, self.side: lambda: self.maps}
        if side not in by_side:
            raise ValueError(f"maps of side {side}; there are those of {', '.join(map(str, by_side))}.")
        return by_side[side]()

    def of_pictures(self, patches_nhwc: np.ndarray, side: int) -> Maps:
        """Maps of other pictures, not kept: (N, 224, 224, channels) uint8. The table has no sections."""
        from mitolib import bank

        forward = bank.compiled(self.backbone)
        starts = range(0, len(patches_nhwc), bank.BATCH)
        parts = [forward(patches.as_input(patches_nhwc[i : i + bank.BATCH])).astype(np.float16) for i in starts]
        values = np.concatenate(parts)
        table = pd.DataFrame({"section": "", "subject": "", "y": 0, "x": 0, "size": 0}, index=range(len(values)))
        maps = Maps(table, values.reshape(len(values), -1, values.shape[-1]))
        return maps if side == maps.side else maps.pooled_by_two()

    def walk(self, propagation: Propagation | LeftOut) -> Walk | None:
        """The way of relevance from the layer down to the pixels, made once: to trace it takes seconds."""
        if isinstance(propagation, LeftOut):
            return None
        if "_walk" not in self.__dict__ or self._walk[0] is not propagation:
            self.__dict__["_walk"] = propagation, propagation(self.whole, self.layer)
        return self._walk[1]

    @contextmanager
    def drawn_anew(self, seed: int) -> Iterator[None]:
        """Meanwhile all weights of the network are random ones, drawn from `seed`; maps in memory or on disk stay."""
        trained = self.whole.get_weights()
        self.whole.set_weights(self._build(None, seed).get_weights())
        try:
            yield
        finally:
            self.whole.set_weights(trained)

    def prepare(self) -> None:
        """Compute all maps, before a fit needs some."""
        _ = self.maps

    def release(self) -> None:
        """Let go of network and maps, hundreds of megabytes; they are read again when they are asked for."""
        for name in ("whole", "backbone", "maps", "pooled", "_walk"):
            self.__dict__.pop(name, None)
