"""Fine annotation: which places of a patch a reader, or the phantom's truth, calls irrelevant.

From the phantom: its deficient fibres. From a folder of one's own: `masks/<section>.tif` or `.png`, of the section's
size, 0 where nothing is marked and 1 or more where something is; a label image of QuPath, napari or Fiji is one, also
under the names that QuPath gives it, `<section>.ome.tif` and `<section>-labels.png`. A file says that the section was
annotated, also an empty one of a control; no file, that it was not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch
from PIL import Image
from torch import Tensor

from mitolib import cohort
from mitolib.cohort import Section
from mitolib.patches import resize

LEAST_AREA_PX = 400  # of a deficient fibre inside a patch, as in the chapter on maps
OTHERS = 1.0  # all that a prototype of another class finds is irrelevant, as in the public code
CELL_PX = 16  # of a mask, that are counted for a place of a map
ENDINGS = (".tif", ".tiff", ".png")
ADDED = re.compile(r"(-labels)?(\.ome)?$")  # to the name of a section, by QuPath
OUTLINES = {  # what holds outlines, no pixels -> how its program makes a label image of it
    ".geojson": "In QuPath, write a LabeledImageServer with writeImage",
    ".zip": "In Fiji, open the section and these ROIs, and make a label image of them (ROI Map of the BIOP plugins)",
    ".roi": "In Fiji, open the section and this ROI, and use Edit > Selection > Create Mask",
    ".csv": "In napari, convert the shapes layer to labels and save that layer",
}


class MaskError(ValueError):
    """A mask that cannot be used; the message says which file, what was found, what is wanted and what helps."""


@dataclass(frozen=True)
class Annotation:
    """Of N patches. irrelevant: (N, S) 0 to 1, for prototypes of the own class; annotated: (N,) bool.

    A patch without annotation costs nothing. others: what counts as irrelevant for prototypes of other classes in an
    annotated patch: 1 as in the code of IAIA-BL, all of it; 0 asks nothing of them.
    Raises ValueError for values outside 0 to 1, and where the two have another length.
    """

    irrelevant: np.ndarray
    annotated: np.ndarray
    others: float = OTHERS

    def __post_init__(self) -> None:
        if self.irrelevant.ndim != 2 or len(self.irrelevant) != len(self.annotated):
            raise ValueError(
                f"masks of shape {self.irrelevant.shape} for {len(self.annotated)} patches; wanted (patches, places). "
                "Make them from the same patch table."
            )
        low, high = (float(end) for end in (self.irrelevant.min(initial=0), self.irrelevant.max(initial=0)))
        if not (low >= 0 and high <= 1):
            raise ValueError(f"masks from {low:g} to {high:g}; wanted shares from 0 (relevant) to 1 (irrelevant).")

    def of(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """(len(rows), S) for prototypes of the own class and (len(rows),) for those of others; 0 without annotation."""
        there = self.annotated[rows].astype(np.float32)
        own = self.irrelevant[rows].astype(np.float32) * there[:, None]
        return torch.from_numpy(own), torch.from_numpy(self.others * there)

    def among(self, subjects: Sequence[str], chosen: Sequence[str]) -> Annotation:
        """The same with those patches alone that are of the chosen subjects. subjects: (N,)."""
        return Annotation(self.irrelevant, self.annotated & np.isin(np.asarray(subjects), chosen), self.others)


def drawn_subjects(table: pd.DataFrame, share: float, *, seed: int) -> list[str]:
    """Of each class so many subjects, in an order that `seed` draws, as come nearest to `share`; one at least, if any.

    table: training patches, with subject and label.
    """
    rng, found = np.random.default_rng(seed), []
    for _, subjects in table.drop_duplicates("subject").groupby("label")["subject"]:
        n = round(share * len(subjects))
        found += list(rng.permutation(subjects.to_numpy())[: max(n, 1) if share > 0 else 0])
    return sorted(found)


@dataclass(frozen=True, eq=False)
class Masks:
    """Pixels of sections that are relevant, and which sections were annotated.

    read: section -> (H, W) bool of what is relevant for its own class, or None for a section without annotation.
    fibres: the same of all fibres, which for a control is what is relevant; None where no fibre is known.
    """

    read: Callable[[str], np.ndarray | None]
    fibres: Callable[[str], np.ndarray | None] = field(default=lambda section: None)

    def windows(self, table: pd.DataFrame, size_px: int = 224) -> tuple[np.ndarray, np.ndarray]:
        """(N, size_px, size_px) uint8, 255 where a patch is relevant, and (N,) bool, which patches are annotated.

        A patient's patch in which less than a seventh of a fibre is marked has nothing to point at: all of it counts as
        relevant, and prototypes of the own class cost nothing there. In a control, whose fibres are all healthy, any
        fibre is relevant; where no fibre is known, a control is not annotated.
        """
        windows = np.full((len(table), size_px, size_px), 255, np.uint8)
        annotated = np.zeros(len(table), bool)
        places = {section: np.flatnonzero(table["section"] == section) for section in table["section"].unique()}
        for section, here in places.items():
            is_control = table["label"].iloc[here[0]] == "control"
            mask_yx = self.fibres(section) if is_control else self.read(section)
            if mask_yx is None or (is_control and self.read(section) is None):
                continue
            annotated[here] = True
            for i in here:
                patch = table.iloc[i]
                window = mask_yx[patch["y"] : patch["y"] + patch["size"], patch["x"] : patch["x"] + patch["size"]]
                if is_control or window.sum() >= LEAST_AREA_PX:
                    windows[i] = resize(np.uint8(255 * window)[..., None], size_px)[..., 0]
        return windows, annotated

    def annotation(self, table: pd.DataFrame, side: int, *, others: float = OTHERS) -> Annotation:
        """Of the patches of a table, at maps of side x side places."""
        windows, annotated = self.windows(table, side * CELL_PX)
        return Annotation(irrelevant(windows, side), annotated, others)


def irrelevant(windows_nyx: np.ndarray, side: int) -> np.ndarray:
    """(N, side * side) share of each cell that is not relevant. windows_nyx: (N, H, H) uint8, 255 where it is."""
    n, height, _ = windows_nyx.shape
    cells = windows_nyx.reshape(n, side, height // side, side, height // side)
    return (1 - cells.mean(axis=(2, 4), dtype=np.float32) / 255).reshape(n, -1).clip(0, 1)


def turned(windows_nyx: np.ndarray, augment: Callable[..., np.ndarray], *, rng: np.random.Generator) -> np.ndarray:
    """The windows as the bank's own augmentation turns the patches with the same generator: uint8, 0 or 255.

    augment: as given to `bank.Bank`; it draws for each patch, whatever its channels, so that the same call with
    default_rng([seed, view, first row of the chunk]) turns masks and pictures alike.
    """
    return np.where(augment(windows_nyx[..., None], rng=rng)[..., 0] >= 128, 255, 0).astype(np.uint8)


def from_truth(root: Path) -> Masks | None:
    """The deficient fibres of a phantom; None for data without truth."""
    if cohort.read_fibres(root) is None:
        return None

    def deficient(section: str) -> np.ndarray:
        fibres_yx, classes = cohort.read_truth(root, section)
        return np.isin(fibres_yx, classes.index[classes != "none"])

    return Masks(deficient, lambda section: cohort.read_truth(root, section)[0] > 0)


def from_folder(folder: Path, sections: Sequence[Section]) -> Masks:
    """Masks that a reader has drawn, a label image for each annotated section, named like the section.

    For a control the file marks its fibres; one that marks nothing leaves the control without annotation.
    Raises MaskError for files that fit no section or not its size, that are no label images, that mark nothing in a
    patient, and where there are masks of controls alone.
    """
    by_name = {section.section: section for section in sections}
    paths: dict[str, Path] = {}
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in files:
        if path.suffix.lower() not in ENDINGS:
            continue
        section = path.stem if path.stem in by_name else ADDED.sub("", path.stem)
        if section not in by_name:
            raise MaskError(
                f"{path}: there is no section {section}; found {', '.join(by_name)}. Name each mask like its section."
            )
        if section in paths:
            raise MaskError(f"{path}: a second mask of {section}, beside {paths[section].name}. Remove one of them.")
        paths[section] = path
    if not paths and (outlines := [path for path in files if path.suffix.lower() in OUTLINES]):
        remedy = OUTLINES[outlines[0].suffix.lower()]
        raise MaskError(f"{outlines[0]}: holds outlines; wanted a label image, .tif or .png. {remedy}.")
    if not paths:
        raise MaskError(f"{folder}: no masks (.tif or .png) in it. Give the folder of label images, one per section.")
    if all(by_name[section].label == "control" for section in paths):
        raise MaskError(f"{folder}: masks of controls alone. Annotate at least one patient, or train without masks.")
    masks = {section: _checked(path, by_name[section]) for section, path in paths.items()}
    controls = {name for name, section in by_name.items() if section.label == "control"}
    fibres: Mapping[str, np.ndarray] = {name: mask for name, mask in masks.items() if name in controls and mask.any()}
    return Masks(masks.get, fibres.get)


def _checked(path: Path, section: Section) -> np.ndarray:
    """(H, W) bool of a label image."""
    try:  # of a pyramid the full size; of colours by a table, as Fiji's LUTs, the numbers
        labels = np.asarray(Image.open(path)) if path.suffix.lower() == ".png" else tifffile.imread(path)
    except (OSError, ValueError) as error:
        raise MaskError(f"{path}: cannot be read ({error}). Export the label image again.") from error
    labels = np.squeeze(labels)  # napari and Fiji may write axes of length 1
    if labels.ndim == 3 and labels.shape[-1] in (3, 4):
        raise MaskError(
            f"{path}: an RGB picture of {labels.dtype}; wanted a label image of two axes. Export the labels, not a "
            "rendered overlay or a screenshot."
        )
    if labels.ndim != 2:
        raise MaskError(
            f"{path}: {labels.ndim} axes, {' x '.join(map(str, labels.shape))}; wanted two, height and width. Export "
            "one plane with all labels (QuPath: multichannelOutput(false))."
        )
    if labels.dtype.kind not in "bui":
        raise MaskError(
            f"{path}: numbers of {labels.dtype}; wanted whole ones. Convert to 16 bit (Fiji: Image > Type > 16-bit)."
        )
    wanted = section.height_px, section.width_px
    if labels.shape != wanted:
        transposed = " Transposed it would fit: swap x and y." if labels.shape[::-1] == wanted else ""
        raise MaskError(
            f"{path}: {labels.shape[0]} x {labels.shape[1]} px (height x width), and the section has {wanted[0]} x "
            f"{wanted[1]}.{transposed} Export the mask at full size, without a crop or downsampling."
        )
    if section.label == "patient" and not (labels > 0).any():
        raise MaskError(
            f"{path}: nothing is marked in a patient. Mark what is relevant, or remove the file: no file means that "
            "the section was not annotated."
        )
    return labels > 0
