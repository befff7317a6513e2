"""What is read of a section: maps of a frozen network, patches of protein ratios, and fibres one by one.

A network of the paper sees each protein stretched by its own percentiles, which removes its level, and its first
convolution can only add proteins up, so that no ratio survives. A laboratory calls a fibre deficient by a ratio. The
**ratio picture** therefore has three channels: log NDUFB8 over VDAC1, log MTCO1 over VDAC1, each from counts and on one
scale for everybody, and dystrophin, which shows where fibres are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import pandas as pd
from skimage.filters import gaussian
from skimage.measure import block_reduce

from mitolib import bank, cohort, networks, patches
from mitolib.cohort import Section
from mitolib.people import morphometry
from mitolib.people.morphometry import MASS, OUTLINED, SHRINK, SUBUNITS
from mitolib.study import Experiment
from mitolib.weights import Weights

BLUR_PX = 1.5  # of the ratio picture, at half size: single pixels hold a count or none
LEAST_COUNT = 0.05  # added to both sides of a ratio; glass has then a log ratio of 0
LOG_RATIO = (-3.0, 2.0)  # that become grey 0 and 255, for everybody; deficient fibres lie near -2.5, normal near 1
CROP_PX = 32  # side of a fibre's crop at half size, the least that VGG16 takes; a median fibre is 24 px wide there
CROP_LAYER = "block3_pool"  # of VGG16: the crop is 4 x 4 there
NO_TRUTH = -1
FIBRE_COLUMNS = (MASS, *SUBUNITS)  # of "grey" and "counts"


class Reader(Protocol):
    """Reads sections. depends: all but the section that what it reads depends on, as plain values."""

    @property
    def depends(self) -> list[Any]:
        """Without the precision, in which two machines may differ: units are found again on either."""

    def read(self, root: Path, section: Section) -> dict[str, np.ndarray]:
        """Arrays by name, all with one row for each patch or fibre. root: the data folder of the section."""


def key(reader: Reader) -> str:
    """16 hexadecimal digits: the folder in which what is read is kept. It differs by precision."""
    return hashlib.sha256(json.dumps([reader.depends, bank.precision()], default=list).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class MapReader:
    """Patches through frozen layers: {"maps": (n, h, w, c) float16}. weights: digest of the layers'."""

    experiment: Experiment
    backbone: keras.Model
    weights: str

    @property
    def depends(self) -> list[Any]:
        """See `Reader`."""
        return [vars(self.experiment), self.weights, self.backbone.output_shape[1:]]

    @cached_property
    def _forward(self) -> bank.Prepare:
        return bank.compiled(self.backbone)

    def read(self, root: Path, section: Section) -> dict[str, np.ndarray]:
        """See `Reader`. Raises CohortError for a section smaller than a patch."""
        experiment = self.experiment
        grid = patches.grid([section], size_px=experiment.patch_px, stride_px=experiment.stride_px)
        pixels_nhwc = patches.load(grid, [section], experiment.proteins, stride_px=experiment.stride_px)
        return {"maps": bank.passed(self._forward, pixels_nhwc, patches.as_input, section.section)}


@dataclass(frozen=True, eq=False)
class RatioReader:
    """Patches of the ratio picture through frozen layers: {"pooled": (n, c) float16}, the mean over each patch."""

    backbone: keras.Model
    weights: str
    patch_px: int
    stride_px: int

    @property
    def depends(self) -> list[Any]:
        """See `Reader`."""
        picture = [BLUR_PX, LEAST_COUNT, LOG_RATIO, SHRINK]
        return ["ratios", picture, self.patch_px, self.stride_px, self.weights]

    @cached_property
    def _forward(self) -> bank.Prepare:
        return bank.compiled(self.backbone)

    def read(self, root: Path, section: Section) -> dict[str, np.ndarray]:
        """See `Reader`. Raises CohortError for a section smaller than a patch."""
        grid = patches.grid([section], size_px=self.patch_px, stride_px=self.stride_px)
        at_half = grid.assign(y=grid["y"] // SHRINK, x=grid["x"] // SHRINK, size=self.patch_px // SHRINK)
        cut_nhwc = patches.cut(ratio_picture(root, section), at_half, stride_px=self.stride_px // SHRINK)
        pixels_nhwc = np.stack([patches.resize(patch, networks.INPUT_PX) for patch in cut_nhwc])
        maps_nhwc = bank.passed(self._forward, pixels_nhwc, patches.as_input, section.section)
        return {"pooled": maps_nhwc.astype(np.float32).mean(axis=(1, 2)).astype(np.float16)}


@dataclass(frozen=True, eq=False)
class FibreReader:
    """Fibres outlined on dystrophin, one row each.

    "centre": (n, 2) y and x in px. "grey", "counts": (n, 3) float32 means of FIBRE_COLUMNS. "crops": (n, c) float16,
    what frozen layers make of the fibre's ratio picture with all around it taken away, mean over the crop. "deficient":
    (n,) int8, by the phantom's truth the class of the pixels that the outline holds most of, 1 or 0; NO_TRUTH where
    there is none. It trains nothing: maps of attention are held against it.
    """

    backbone: keras.Model  # (N, CROP_PX, CROP_PX, 3) in [0, 1]
    weights: str

    @property
    def depends(self) -> list[Any]:
        """See `Reader`."""
        picture = [BLUR_PX, LEAST_COUNT, LOG_RATIO, SHRINK, CROP_PX, CROP_LAYER]
        return ["fibres", picture, self.weights]

    @cached_property
    def _forward(self) -> bank.Prepare:
        return bank.compiled(self.backbone)

    def read(self, root: Path, section: Section) -> dict[str, np.ndarray]:
        """See `Reader`."""
        label_yx, fibres = morphometry.outlined(section)
        centre = fibres[["y", "x"]].to_numpy()
        crops_nhwc = _crops(ratio_picture(root, section), label_yx, centre)
        maps_nhwc = bank.passed(self._forward, crops_nhwc, patches.as_input, section.section)
        return {
            "centre": centre.astype(np.float32),
            "grey": fibres[list(FIBRE_COLUMNS)].to_numpy(np.float32),
            "counts": _in_counts(root, fibres)[list(FIBRE_COLUMNS)].to_numpy(np.float32),
            "crops": maps_nhwc.astype(np.float32).mean(axis=(1, 2)).astype(np.float16),
            "deficient": _deficient(root, section, label_yx),
        }


@dataclass(frozen=True)
class Readers:
    """The readers of the chapter by name, each made when it is asked for. one, several: the two experiments."""

    one: Experiment
    several: Experiment | None
    vgg16: Weights
    seed: int  # of a network without ImageNet weights
    _made: dict[str, Reader] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        """ "one", "several" where there are several proteins, "ratios" and "fibres"."""
        return iter(["one", *(["several"] if self.several else []), "ratios", "fibres"])

    def __getitem__(self, name: str) -> Reader:
        if name not in self._made:
            self._made[name] = {"ratios": self._ratios, "fibres": self._fibres}.get(name, lambda: self._maps(name))()
        return self._made[name]

    @property
    def digest(self) -> str:
        """Of the weights, or how they were drawn."""
        return self.vgg16.sha256 or f"random, seed {self.seed}"

    def _maps(self, name: str) -> MapReader:
        experiment = self.one if name == "one" else self.several
        return MapReader(experiment, self._backbone(max(3, len(experiment.proteins))), self.digest)

    def _ratios(self) -> RatioReader:
        stride_px = self.one.patch_px // (2 * SHRINK) * SHRINK  # half a patch, in whole pixels of the shrunk picture
        return RatioReader(self._backbone(3), self.digest, self.one.patch_px, stride_px)

    def _fibres(self) -> FibreReader:
        whole = self._backbone(3)
        lower = keras.Model(whole.input, whole.get_layer(CROP_LAYER).output)
        keras.utils.set_random_seed(self.seed)
        small = keras.applications.VGG16(include_top=False, weights=None, input_shape=(CROP_PX, CROP_PX, 3))
        small = keras.Model(small.input, small.get_layer(CROP_LAYER).output, name="crops")
        small.set_weights(lower.get_weights())
        return FibreReader(small, self.digest)

    def _backbone(self, n_channels: int) -> keras.Model:
        keras.utils.set_random_seed(self.seed)
        return networks.divide(networks.build("VGG16", n_channels=n_channels, arrays=self.vgg16.arrays))[0]


def ratio_picture(root: Path, section: Section) -> np.ndarray:
    """(H/2, W/2, 3) uint8: log NDUFB8 / VDAC1 and log MTCO1 / VDAC1 from LOG_RATIO to 0 to 255, and dystrophin's grey.

    Pictures without known counts give the ratio of their grey levels.
    """
    low, high = LOG_RATIO
    smooth = {
        protein: gaussian(_shrunk(_counts_yx(root, section, protein)), BLUR_PX, preserve_range=True)
        for protein in (MASS, *SUBUNITS)
    }
    channels = []
    for protein in SUBUNITS:
        log_ratio_yx = np.log((smooth[protein] + LEAST_COUNT) / (smooth[MASS] + LEAST_COUNT))
        channels.append(255 * (log_ratio_yx - low) / (high - low))
    channels.append(_shrunk(section.image_yx(OUTLINED[0])))
    return np.stack(channels, axis=-1).round().clip(0, 255).astype(np.uint8)


def _shrunk(image_yx: np.ndarray) -> np.ndarray:
    return block_reduce(image_yx, SHRINK, np.mean).astype(np.float32)


def _counts_yx(root: Path, section: Section, protein: str) -> np.ndarray:
    """(H, W) counts: as the file has them, or by the stretch that a phantom keeps; grey levels where neither is."""
    raw_yx = section.raw_yx(protein)
    limits = _stretch(root)
    if limits is None or raw_yx.dtype != np.uint8:
        return raw_yx.astype(np.float32)
    low, high = limits.loc[(section.section, protein), ["low", "high"]]
    return low + raw_yx.astype(np.float32) / 255 * (high - low)


def _in_counts(root: Path, fibres: pd.DataFrame) -> pd.DataFrame:
    limits = _stretch(root)
    return fibres if limits is None else morphometry.as_counts(fibres, limits.reset_index())


def _stretch(root: Path) -> pd.DataFrame | None:
    """What a phantom's pictures were stretched by, indexed by section and protein."""
    path = root / "truth" / "stretch.csv"
    return pd.read_csv(path, index_col=["section", "protein"]) if path.exists() else None


def _crops(picture_yxc: np.ndarray, label_yx: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(n, CROP_PX, CROP_PX, 3) uint8 about the centre of each fibre; mid-grey where the fibre is not.

    label_yx: (H, W), numbered as in the rows of `centre` (n, 2), which is in px of the section.
    """
    half = CROP_PX // 2
    picture_yxc = np.pad(picture_yxc, ((half, half), (half, half), (0, 0)))
    label_yx = np.pad(label_yx, half)
    crops_nhwc = np.full((len(centre), CROP_PX, CROP_PX, 3), 128, np.uint8)
    numbers = np.unique(label_yx[label_yx > 0])
    for number, (y, x), crop_yxc in zip(numbers, (centre / SHRINK).astype(int), crops_nhwc, strict=True):
        window = np.s_[y : y + CROP_PX, x : x + CROP_PX]
        inside_yx = label_yx[window] == number
        crop_yxc[inside_yx] = picture_yxc[window][inside_yx]
    return crops_nhwc


def _deficient(root: Path, section: Section, label_yx: np.ndarray) -> np.ndarray:
    """(n,) int8, see `FibreReader`."""
    outlines = np.unique(label_yx[label_yx > 0])
    truth = cohort.read_truth(root, section.section)
    if truth is None:
        return np.full(len(outlines), NO_TRUTH, np.int8)
    true_yx, classes = truth
    true_yx = true_yx[::SHRINK, ::SHRINK][: label_yx.shape[0], : label_yx.shape[1]]
    pairs = pd.DataFrame({"outline": label_yx.ravel(), "fibre": true_yx.ravel()}).query("outline > 0 and fibre > 0")
    pairs["deficient"] = pairs["fibre"].map(classes != "none")
    most = pairs.groupby("outline")["deficient"].mean() > 0.5
    return most.reindex(outlines).map({True: 1, False: 0}).fillna(NO_TRUTH).to_numpy(np.int8)
