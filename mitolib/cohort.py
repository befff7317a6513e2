"""Sections of a cohort on disk, and the one reader of their images.

A data root holds one folder per class, in it one folder per section, in it one image per protein
(`Control/C01/SDHA.tif`; with both formats present the lossless TIFF wins over the JPEG). An optional
`cohort.csv` declares `section, subject, label` and any metadata column; a subject is declared there,
never guessed, since one person may have two sections. Without it every section is its own subject.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from mitolib.settings import CALIBRATION, LABELS, PROTEINS

CLASS_FOLDERS = {"control": "control", "controls": "control", "patient": "patient", "patients": "patient"}
NOT_CLASSES = {"truth"}  # what the phantom writes beside the two classes
SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg")  # in order of preference

# Spellings met in the Newcastle group's public code and tables (Warren et al. 2020), lower case.
ALIASES = {protein.lower(): protein for protein in PROTEINS} | {
    "tomm22": "TOM22",
    "tomm20": "TOM22",  # the pilot panel stained TOMM20; both are outer-membrane mass markers
    "ndufa13": "GRIM19",
    "vdac": "VDAC1",
    "cox4+4l2": "COX4",
    "mt-co1": "MTCO1",
    "uqcrc2": "UQCRC2",
    "dys": "Dystrophin",
}


class CohortError(ValueError):
    """A data folder that cannot be read as a cohort; the message names file, finding, want and remedy."""


@dataclass(frozen=True)
class Section:
    """One tissue section: who it is of, its size, and where each protein's picture lies."""

    section: str
    subject: str
    label: str  # one of settings.LABELS
    height_px: int
    width_px: int
    files: Mapping[str, Path] = field(repr=False)  # protein -> file
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)  # further columns of cohort.csv

    def image_yx(self, protein: str) -> np.ndarray:
        """(height_px, width_px) uint8, one protein. CohortError if the file cannot be decoded."""
        if protein not in self.files:
            raise CohortError(
                f"section {self.section}: no image of {protein}; found {', '.join(self.files) or 'none'}. "
                "Add the missing file or ask for other proteins."
            )
        path = self.files[protein]
        try:
            image_yx = _decode(path)
        except Exception as error:
            raise CohortError(f"{path}: cannot be decoded ({error}). Copy the file again from its source.") from error
        if image_yx.shape != (self.height_px, self.width_px) or image_yx.dtype != np.uint8:
            raise CohortError(
                f"{path}: decodes to {image_yx.dtype} of shape {image_yx.shape}, wanted uint8 of "
                f"{(self.height_px, self.width_px)}. Export it as one 8-bit greyscale page."
            )
        return image_yx

    def stack_yxc(self, proteins: Sequence[str] = PROTEINS) -> np.ndarray:
        """(height_px, width_px, len(proteins)) uint8, channels in the order asked for."""
        return np.concatenate([self.image_yx(protein)[..., None] for protein in proteins], axis=-1)


def _decode(path: Path) -> np.ndarray:
    """By Pillow for both formats: it reads LZW, which tifffile does with a further package only."""
    with Image.open(path) as image:
        return np.asarray(image if path.suffix.lower() in (".tif", ".tiff") else image.convert("L"))


def _shape(path: Path) -> tuple[int, int]:
    """(height, width) from the header, and a first look whether the file is whole."""
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages[0]
                end = max(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
                if end > path.stat().st_size:
                    raise ValueError(f"truncated: {path.stat().st_size} bytes where its header promises {end}")
                if len(tiff.pages) != 1 or page.ndim != 2:
                    raise ValueError(f"{len(tiff.pages)} pages of shape {page.shape}, wanted one greyscale page")
                return page.shape
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:
        raise CohortError(f"{path}: cannot be read ({error}). Copy the file again from its source.") from error


def _protein_files(folder: Path) -> dict[str, Path]:
    """Protein -> preferred file, in the order of PROTEINS."""
    images = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    found: dict[str, Path] = {}
    for path in sorted(images, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path.name)):
        if protein := ALIASES.get(path.stem.lower()):
            found.setdefault(protein, path)
    return {protein: found[protein] for protein in PROTEINS if protein in found}


def _declared(root: Path) -> pd.DataFrame | None:
    """cohort.csv, indexed by section, or None where there is none."""
    path = root / "cohort.csv"
    if not path.exists():
        return None
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except Exception as error:
        raise CohortError(f"{path}: cannot be read as a table ({error}). Save it as comma-separated text.") from error
    if missing := {"section", "subject", "label"} - set(table.columns):
        raise CohortError(
            f"{path}: no column {', '.join(sorted(missing))}; found {', '.join(table.columns)}. Add the column."
        )
    if repeated := sorted(table["section"][table["section"].duplicated()]):
        raise CohortError(f"{path}: section {', '.join(repeated)} stands twice. Keep one row for each section.")
    if unknown := sorted(set(table["label"].str.lower()) - set(LABELS)):
        raise CohortError(f"{path}: label {', '.join(unknown)}; wanted {' or '.join(LABELS)}. Correct the column.")
    return table.set_index("section")


def read_cohort(root: str | Path, proteins: Sequence[str] = PROTEINS) -> tuple[Section, ...]:
    """Every section below `root`, controls first, then by name; headers are read, pixels are not.

    Raises CohortError for a missing folder, a class folder other than Control or Patient, a section
    without one of `proteins`, pictures of one section that differ in shape, an unreadable or truncated
    file, and a cohort.csv that does not fit the folders.
    """
    root = Path(root)
    if not root.is_dir():
        raise CohortError(
            f"{root}: no such folder. Give the folder that holds Control/ and Patient/, "
            "or leave `data` out to use the phantom."
        )
    declared = _declared(root)
    folders = [p for p in sorted(root.iterdir()) if p.is_dir() and p.name[0] not in "._" and p.name not in NOT_CLASSES]
    if unknown := [p.name for p in folders if p.name.lower() not in CLASS_FOLDERS]:
        raise CohortError(
            f"{root / unknown[0]}: not a class folder. Wanted Control/ and Patient/; rename or move it away."
        )
    sections = [
        _read_section(folder, CLASS_FOLDERS[class_folder.name.lower()], proteins, declared)
        for class_folder in folders
        for folder in sorted(class_folder.iterdir())
        if folder.is_dir() and folder.name[0] not in "._"
    ]
    if not sections:
        raise CohortError(f"{root}: holds no section. Wanted Control/<section>/<protein>.tif and Patient/<section>/….")
    names = [section.section for section in sections]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise CohortError(
            f"{root}: section {', '.join(repeated)} stands in both classes. Give each section its own name."
        )
    if declared is not None and (absent := sorted(set(declared.index) - set(names))):
        raise CohortError(
            f"{root / 'cohort.csv'}: section {', '.join(absent)} has no folder. Add it or remove the row."
        )
    return tuple(sorted(sections, key=lambda s: (LABELS.index(s.label), s.section)))


def _read_section(folder: Path, label: str, proteins: Sequence[str], declared: pd.DataFrame | None) -> Section:
    files = _protein_files(folder)
    if missing := [protein for protein in proteins if protein not in files]:
        raise CohortError(
            f"{folder}: no image of {', '.join(missing)}; found {', '.join(files) or 'no protein image'}. "
            f"Wanted one of {', '.join(SUFFIXES)} per protein: add the file or ask for other proteins."
        )
    shapes = {protein: _shape(files[protein]) for protein in proteins}
    height_px, width_px = first = shapes[proteins[0]]
    for protein, shape in shapes.items():
        if shape != first:
            raise CohortError(
                f"{files[protein]}: {shape[0]} x {shape[1]} px, but {files[proteins[0]].name} of the same section is "
                f"{first[0]} x {first[1]} px (height x width). Export all proteins of a section from one acquisition."
            )
    subject, metadata = folder.name, {}
    if declared is not None:
        if folder.name not in declared.index:
            raise CohortError(f"{folder}: section {folder.name} is not in cohort.csv. Add its row, with its subject.")
        row = declared.loc[folder.name]
        if row["label"].lower() != label:
            raise CohortError(
                f"{folder}: lies in the {label} folder, but cohort.csv says {row['label']}. Move it or correct the row."
            )
        subject, metadata = row["subject"], row.drop(["subject", "label"]).to_dict()
    return Section(folder.name, subject, label, height_px, width_px, files, metadata)


def table(sections: Iterable[Section]) -> pd.DataFrame:
    """One row per section: section, subject, label, width_px, height_px and the metadata columns."""
    columns = ("section", "subject", "label", "width_px", "height_px")
    return pd.DataFrame([{name: getattr(s, name) for name in columns} | dict(s.metadata) for s in sections])


def published_sections(calibration: Path = CALIBRATION) -> tuple[Section, ...]:
    """The published cohort as sizes without pictures, controls first; the paper's patch counts follow from it."""
    subjects = json.loads(calibration.read_text())["subjects"]
    return tuple(Section(s["subject"], s["subject"], s["label"], s["height"], s["width"], {}) for s in subjects)


def read_truth(root: str | Path, section: str) -> tuple[np.ndarray, pd.Series] | None:
    """Ground truth of a phantom's section, or None where the data come without.

    The (H, W) uint16 fibre labels, 0 for no fibre, and the deficiency class by fibre number.
    """
    fibres = read_fibres(root)
    if fibres is None:
        return None
    classes = fibres[fibres["section"] == section].set_index("fibre")["deficiency"]
    return tifffile.imread(Path(root) / "truth" / f"{section}.tif"), classes


def read_fibres(root: str | Path) -> pd.DataFrame | None:
    """Every fibre of a phantom's sections: section, fibre, y, x (centre, px), area_px, deficiency, protein levels.

    None where the data come without truth.
    """
    path = Path(root) / "truth" / "fibres.csv"
    return pd.read_csv(path, keep_default_na=False) if path.exists() else None


def digest(sections: Iterable[Section], proteins: Sequence[str] = PROTEINS) -> str:
    """SHA-256 over names and bytes of the pictures a run reads, so that a result can be tied to its data."""
    total = hashlib.sha256()
    for section in sections:
        for protein in proteins:
            total.update(f"{section.label}/{section.section}/{protein}\0".encode())
            with section.files[protein].open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
