"""A small cohort in every format that the reader takes, and a folder of it that is broken.

Three sections of the phantom play the part of a laboratory's. Each writer makes a data folder as `cohort.read_cohort`
takes it, except `.mcd`, which only the instrument writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from mitolib.cohort import read_cohort
from mitolib.images import to_8_bit
from mitolib.images.tiff import PAGE_NAME

PEOPLE = {"C01": "control", "P03": "patient", "P08": "patient"}
ISOTOPES = {"SDHA": "153Eu", "NDUFB8": "160Gd", "VDAC1": "166Er"}
PROTEINS = tuple(ISOTOPES)
COUNTS_PER_GREY = {"control": 0.2, "patient": 0.4}  # so that a difference of level is there to be kept or lost
WINDOW_PX = 600


@dataclass(frozen=True)
class Example:
    """One section of an example cohort."""

    name: str
    label: str
    counts_cyx: np.ndarray  # (3, 600, 600) float32, channels as PROTEINS

    @property
    def class_folder(self) -> str:
        return self.label.capitalize()


def draw_examples(phantom: Path, *, rng: np.random.Generator) -> tuple[Example, ...]:
    """A control and two patients: a window of each, its greys taken for mean counts, with twice the level in patients.

    phantom: the folder of one. Raises CohortError if it cannot be read.
    """
    examples = []
    for section in read_cohort(phantom, PROTEINS):
        if section.section in PEOPLE:
            grey_cyx = np.stack([section.image_yx(protein)[:WINDOW_PX, :WINDOW_PX] for protein in PROTEINS])
            counts_cyx = rng.poisson(COUNTS_PER_GREY[section.label] * grey_cyx).astype(np.float32)
            examples.append(Example(section.section, section.label, counts_cyx))
    return tuple(examples)


def write_examples(kind: str, examples: Sequence[Example]) -> str:
    """Write a data folder of this kind (a key of WRITERS) under its name in the working folder, and list its files.

    Raises ValueError for another kind, FileExistsError if the folder is there.
    """
    if kind not in WRITERS:
        raise ValueError(f"no example of kind {kind!r}; known are {', '.join(WRITERS)}.")
    root = Path(kind)
    root.mkdir()
    WRITERS[kind](root, examples)
    return list_files(root)


def list_files(root: Path) -> str:
    """The files below a folder, one a line."""
    return "\n".join(path.as_posix() for path in sorted(root.rglob("*")) if path.is_file())


def _write_paper(root: Path, examples: Sequence[Example]) -> None:
    """A folder for each section, in it an 8-bit picture for each protein."""
    for example in examples:
        folder = root / example.class_folder / example.name
        folder.mkdir(parents=True)
        for protein, counts_yx in zip(PROTEINS, example.counts_cyx, strict=True):
            tifffile.imwrite(folder / f"{protein}.tif", to_8_bit(counts_yx), compression="lzw")


def _write_channels(root: Path, examples: Sequence[Example]) -> None:
    """The same with counts, in files that are named by isotope and protein."""
    for example in examples:
        folder = root / example.class_folder / example.name
        folder.mkdir(parents=True)
        for (protein, isotope), counts_yx in zip(ISOTOPES.items(), example.counts_cyx, strict=True):
            tifffile.imwrite(folder / f"{isotope}_{isotope} {protein}.tiff", counts_yx)


def _labels() -> list[str]:
    return [f"{isotope}_{protein}" for protein, isotope in ISOTOPES.items()]


def _write_ome_tiff(root: Path, examples: Sequence[Example]) -> None:
    """A stack for each section, with the names of its channels in OME-XML."""
    metadata = {"axes": "CYX", "Channel": {"Name": _labels()}}
    for path, example in _in_class_folders(root, examples, ".ome.tiff"):
        tifffile.imwrite(path, example.counts_cyx, metadata=metadata)


def _write_mcd_viewer(root: Path, examples: Sequence[Example]) -> None:
    """A stack for each section, with the name of each channel in a tag of its page."""
    for path, example in _in_class_folders(root, examples, ".ome.tiff"):
        with tifffile.TiffWriter(path) as tiff:
            for label, counts_yx in zip(_labels(), example.counts_cyx, strict=True):
                tiff.write(counts_yx, metadata=None, extratags=[(PAGE_NAME, "s", 0, label, True)])


def _write_text(root: Path, examples: Sequence[Example]) -> None:
    """A table for each section, a row for each pixel, in the layout of the instrument's export."""
    isotopes = [f"{protein}({isotope[3:]}{isotope[:3]}Di)" for protein, isotope in ISOTOPES.items()]
    for path, example in _in_class_folders(root, examples, ".txt"):
        y, x = np.indices(example.counts_cyx.shape[1:]).reshape(2, -1)
        pushes = np.zeros((3, x.size))
        columns = np.vstack([pushes, x, y, np.arange(x.size), example.counts_cyx.reshape(len(PROTEINS), -1)])
        header = ["Start_push", "End_push", "Pushes_duration", "X", "Y", "Z", *isotopes]
        rows = zip(*map(_in_words, columns), strict=True)
        path.write_text("\n".join(["\t".join(header), *map("\t".join, rows), ""]))


def _in_words(column: np.ndarray) -> np.ndarray:
    """Each number with three decimals. Few values come often: pandas writes every one anew, five times as long."""
    values, places = np.unique(column, return_inverse=True)
    return np.array([f"{value:.3f}" for value in values], dtype=object)[places]


def _in_class_folders(root: Path, examples: Sequence[Example], suffix: str) -> list[tuple[Path, Example]]:
    paths = [root / example.class_folder / f"{example.name}{suffix}" for example in examples]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    return list(zip(paths, examples, strict=True))


def _write_steinbock(root: Path, examples: Sequence[Example]) -> None:
    """Stacks without names of channels, which panel.csv gives; cohort.csv says who they are of."""
    (root / "img").mkdir()
    for example in examples:
        stack_tzcyxs = example.counts_cyx[np.newaxis, np.newaxis, :, :, :, np.newaxis]
        tifffile.imwrite(root / "img" / f"{example.name}.tiff", stack_tzcyxs, imagej=True)
    panel = pd.DataFrame({"channel": ISOTOPES.values(), "name": PROTEINS, "keep": 1})
    panel.to_csv(root / "panel.csv", index=False)
    people = pd.DataFrame([(example.name, example.name, example.label) for example in examples])
    people.to_csv(root / "cohort.csv", header=["section", "subject", "label"], index=False)


WRITERS: dict[str, Callable[[Path, Sequence[Example]], None]] = {
    "paper": _write_paper,
    "channels": _write_channels,
    "ome-tiff": _write_ome_tiff,
    "mcd-viewer": _write_mcd_viewer,
    "text": _write_text,
    "steinbock": _write_steinbock,
}
WITH_COUNTS = tuple(kind for kind in WRITERS if kind != "paper")  # whose 8 bits are no counts


def read_back(examples: Sequence[Example]) -> dict[str, dict[str, int | float]]:
    """Of each kind of folder with counts: its sections, and the greatest difference from the counts that were written.

    Raises CohortError for a folder that `write_examples` has not made here.
    """
    differences = {}
    for kind in WITH_COUNTS:
        sections = {section.section: section for section in read_cohort(kind, PROTEINS)}
        greatest = max(
            np.abs(sections[example.name].raw_yx(protein) - counts_yx).max()
            for example in examples
            for protein, counts_yx in zip(PROTEINS, example.counts_cyx, strict=True)
        )
        differences[kind] = {"sections": len(sections), "greatest difference": float(greatest)}
    return differences


def damage(steinbock: Path, examples: Sequence[Example]) -> None:
    """Three faults in a steinbock folder: a file cut short, a section that cohort.csv does not know, and a stack in
    which a channel lacks its name."""
    counts_cyx = {example.name: example.counts_cyx for example in examples}
    cut_short = steinbock / "img" / "P08.tiff"
    cut_short.write_bytes(cut_short.read_bytes()[:100_000])
    tifffile.imwrite(steinbock / "img" / "P99.tiff", counts_cyx["P03"], imagej=True)
    tifffile.imwrite(steinbock / "img" / "C01.tiff", counts_cyx["C01"][:2], imagej=True)


def mean_grey(examples: Sequence[Example], ways: Sequence[str]) -> pd.DataFrame:
    """Mean grey level of the first protein, 0 to 255: a row for each section, a column for each way to 8 bits."""
    means = {way: [to_8_bit(example.counts_cyx[0], way).mean() for example in examples] for way in ways}
    return pd.DataFrame(means, index=[example.name for example in examples])


def as_8_bit(examples: Sequence[Example], ways: Sequence[str], *, size_px: int = 256) -> dict[str, np.ndarray]:
    """Title -> (size_px, size_px) uint8: the first protein of a section in each way to 8 bits."""
    return {
        f"{example.name}, {way}": to_8_bit(example.counts_cyx[0, :size_px, :size_px], way)
        for example in examples
        for way in ways
    }
