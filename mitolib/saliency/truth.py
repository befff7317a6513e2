"""Where the deficient fibres of a patch are, and the held-out patches on which maps are tested."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mitolib import own_data, patches, units
from mitolib.cohort import Section, digest, read_truth
from mitolib.networks import INPUT_PX
from mitolib.saliency.maps import enlarge, shrink, unit
from mitolib.study import Experiment
from mitolib.transfer import Task

MOSAIC = (0.05, 0.95)  # share of deficient fibres between which a section has something to point at
LEAST_AREA_PX = 400  # of a fibre inside the patch, at the section's resolution: a seventh of the median fibre
MARKER_PROTEINS = ("NDUFB8", "VDAC1")


def truth_windows(root: str | Path, table: pd.DataFrame) -> tuple[np.ndarray, list[np.ndarray]]:
    """Fibre numbers (N, size, size) uint16 of each patch, and the numbers of its deficient fibres, largest first.

    A fibre counts as inside a patch if at least 400 px of it are. Data without truth give zeros and empty lists:
    every score against truth is then undefined, left out and counted.
    """
    size_px = int(table["size"].iloc[0])
    fibres_nyx, deficient = np.zeros((len(table), size_px, size_px), np.uint16), []
    for i, row in enumerate(table.itertuples()):
        numbers: np.ndarray = np.array([], int)
        if truth := read_truth(root, row.section):
            section_yx, classes = truth
            fibres_nyx[i] = section_yx[row.y : row.y + size_px, row.x : row.x + size_px]
            area_px = np.bincount(fibres_nyx[i].ravel(), minlength=section_yx.max() + 1)
            numbers = classes.index[classes != "none"].to_numpy()
            numbers = numbers[area_px[numbers] >= LEAST_AREA_PX]
            numbers = numbers[np.argsort(-area_px[numbers], kind="stable")]
        deficient.append(numbers)
    return fibres_nyx, deficient


def masks(fibres_nyx: np.ndarray, deficient: Sequence[np.ndarray]) -> np.ndarray:
    """(N, H, W) bool: the pixels of the deficient fibres of each patch, of what `truth_windows` gives."""
    return np.stack([np.isin(fibres_yx, numbers) for fibres_yx, numbers in zip(fibres_nyx, deficient, strict=True)])


def outlines(root: str | Path, table: pd.DataFrame, size_px: int = INPUT_PX) -> np.ndarray:
    """(N, size_px, size_px) bool: the deficient fibres of each patch, for a picture of that side; without truth none.

    root: the data folder. table: rows of a patch table.
    """
    return shrink(masks(*truth_windows(root, table)), size_px)


def mosaic(root: str | Path, sections: Sequence[str]) -> list[str]:
    """Those sections of which 5 to 95 % of the fibres are deficient; all of them where the data come without truth."""
    names = []
    for section in sections:
        truth = read_truth(root, section)
        if truth is None or MOSAIC[0] <= (truth[1] != "none").mean() <= MOSAIC[1]:
            names.append(section)
    return names


def spread(table: pd.DataFrame, n: int | None, *, seed: int) -> pd.DataFrame:
    """At most n rows, None for all, in random order, in turn from each subject so that none outweighs the others."""
    shuffled = table.sample(frac=1, random_state=seed)
    turn = shuffled.groupby("subject").cumcount()
    return shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")[:n]]


@dataclass(frozen=True)
class Gallery:
    """What a gallery of maps shows: a row for each method, a column for each patch."""

    patches_nyx: np.ndarray  # (N, H, W) 0-255, the first protein
    maps: Mapping[str, np.ndarray]  # method -> (N, H, W), each map stretched to 0-1
    masks_nyx: np.ndarray  # (N, H, W) bool


@dataclass(frozen=True)
class HeldOutPatches:
    """N held-out patches of patients, on which the maps of one experiment's networks are tested."""

    rows: pd.DataFrame  # of the patch table
    patches_nhwc: np.ndarray  # (N, H, W, C) uint8: what the networks are shown
    ndufb8_vdac1: np.ndarray | None  # (N, H, W, 2) uint8; None where the two proteins are not there
    twins_nhwc: (
        np.ndarray | None
    )  # (N, H, W, C) uint8: every deficient fibre cured, else equal; None but on the phantom
    fibres_nyx: np.ndarray  # (N, size, size) uint16: fibre numbers at the resolution of the section, 0 for none
    deficient: list[np.ndarray]  # of each patch: numbers of its deficient fibres, largest first
    has_truth: bool
    depends: Mapping[str, Any] = field(default_factory=dict)  # what tells them from others, as plain values

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def masks_nyx(self) -> np.ndarray:
        """(N, size, size) bool: the deficient fibres, at the resolution of the section."""
        return masks(self.fibres_nyx, self.deficient)

    @property
    def subjects(self) -> pd.Series:
        """(N,) whose patch it is."""
        return self.rows["subject"]

    def first(self, n: int) -> HeldOutPatches:
        """The first n of them."""
        return replace(
            self,
            rows=self.rows[:n],
            patches_nhwc=self.patches_nhwc[:n],
            ndufb8_vdac1=None if self.ndufb8_vdac1 is None else self.ndufb8_vdac1[:n],
            twins_nhwc=None if self.twins_nhwc is None else self.twins_nhwc[:n],
            fibres_nyx=self.fibres_nyx[:n],
            deficient=self.deficient[:n],
        )

    def gallery(self, maps: Mapping[str, np.ndarray], n: int = 3) -> Gallery:
        """The maps of one network on the first n patches, ready to be drawn; the map of random numbers is left out.

        maps: method -> (N, h, w), raw, of any resolution.
        """
        side_px = self.patches_nhwc.shape[1]
        return Gallery(
            patches_nyx=self.patches_nhwc[:n, ..., 0],
            maps={method: enlarge(unit(stack[:n]), side_px) for method, stack in maps.items() if method != "random"},
            masks_nyx=shrink(self.masks_nyx[:n], side_px),
        )


def tasks(data: own_data.Data, experiments: Sequence[Experiment | None]) -> dict[str, Task]:
    """name -> patches, split and pixels of each experiment; None, of data without it, is passed over."""
    return {experiment.name: Task.of(data, experiment) for experiment in experiments if experiment}


def held_out_patches(
    data: own_data.Data,
    experiment: Experiment,
    table: pd.DataFrame,
    patches_nhwc: np.ndarray,
    *,
    n: int | None,
    seed: int,
    twins: Sequence[Section] = (),
) -> HeldOutPatches:
    """At most n test patches of patients, None for all, the subjects in turn; of mosaic sections alone with truth.

    table: all patches of the experiment, indexed from 0, with the column split. patches_nhwc: their pixels, uint8.
    twins: the same sections with every deficient fibre cured, in the stretch of the sick ones: a fibre is pasted from
    one into the other, and the pixels around it must be the same (`phantom.cured_twins`).
    """
    patients = [section.section for section in data.sections if section.label == "patient"]
    tested = table[(table["split"] == "test") & table["section"].isin(mosaic(data.root, patients))]
    rows = spread(tested, n, seed=seed)
    fibres_nyx, deficient = truth_windows(data.root, rows)
    truth = [np.asarray(array, np.int64) for array in (*fibres_nyx, *deficient)]

    def load(sections: Sequence[Section], proteins: Sequence[str]) -> np.ndarray:
        return patches.load(rows, sections, proteins, stride_px=experiment.stride_px)

    return HeldOutPatches(
        rows=rows,
        patches_nhwc=patches_nhwc[rows.index],
        ndufb8_vdac1=load(data.sections, MARKER_PROTEINS) if data.has(own_data.MARKER) else None,
        twins_nhwc=load(twins, experiment.proteins) if twins else None,
        fibres_nyx=fibres_nyx,
        deficient=deficient,
        has_truth=data.has_truth,
        depends={
            "explained": hashlib.sha256(rows[["section", "y", "x", "size"]].to_csv(index=False).encode()).hexdigest(),
            "truth": units.digest(*truth) if data.has_truth else None,
            "marker": data.digest(MARKER_PROTEINS) if data.has(own_data.MARKER) else None,
            "twins": digest(twins, experiment.proteins) if twins else None,
        },
    )
