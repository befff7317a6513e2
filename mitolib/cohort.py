"""Sections of a cohort on disk, and the one reader of their images.

How a data folder is laid out, is said in `mitolib.images.folder`; what kinds of file there are, in
`mitolib.images.formats`. `cohort.csv` declares `section, subject, label` and any metadata column; a subject is declared
there, since one person may have two sections. Without it every section is its own subject, and the regions of one slide
are one. `panel.csv` says which channel is which protein, where the names in the files do not.
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

from mitolib.images import Channel, CohortError, read_folder, to_8_bit
from mitolib.settings import CALIBRATION, LABELS, PROTEINS


@dataclass(frozen=True)
class Section:
    """One tissue section: who it is of, its size, and where each protein's picture lies."""

    section: str
    subject: str
    label: str  # one of settings.LABELS
    height_px: int
    width_px: int
    channels: Mapping[str, Channel] = field(repr=False)  # by protein
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)  # further columns of cohort.csv
    intensity: str | None = field(default=None, repr=False)  # see `mitolib.images.intensity`

    def raw_yx(self, protein: str) -> np.ndarray:
        """(height_px, width_px) of one protein: uint8 as in the file, or float32 counts; CohortError without one."""
        if protein not in self.channels:
            raise CohortError(
                f"section {self.section}: no image of {protein}; found {', '.join(self.channels) or 'none'}. "
                "Add the missing file or ask for other proteins."
            )
        return self.channels[protein].raw_yx()

    def image_yx(self, protein: str) -> np.ndarray:
        """(height_px, width_px) uint8 of one protein, see `images.intensity`. CohortError if it cannot be decoded."""
        return to_8_bit(self.raw_yx(protein), self.intensity)

    def stack_yxc(self, proteins: Sequence[str] = PROTEINS) -> np.ndarray:
        """(height_px, width_px, len(proteins)) uint8, channels in the order asked for."""
        return np.concatenate([self.image_yx(protein)[..., None] for protein in proteins], axis=-1)


@dataclass(frozen=True)
class Survey:
    """What a data folder holds: its sections, all that is wrong with it, and what is left out."""

    sections: tuple[Section, ...]
    problems: list[CohortError]
    notes: tuple[str, ...]
    proteins: tuple[str, ...]  # that every section has
    classes: Mapping[str, str]  # class folders with other names than Control and Patient -> label


def read_cohort(
    root: str | Path, proteins: Sequence[str] | None = PROTEINS, *, intensity: str | None = None, patch_px: int = 0
) -> tuple[Section, ...]:
    """Every section below `root`, controls first, then by name; headers are read, pixels are not.

    proteins: None takes those that there are. intensity: how counts become 8 bits, see `mitolib.images.intensity`.
    patch_px: what a section must hold at least. Raises CohortError for the first thing that is wrong with the folder
    or a file in it; `python -m mitolib check` lists them all.
    """
    return whole(survey(root, proteins, intensity=intensity, patch_px=patch_px)).sections


def whole(survey: Survey) -> Survey:
    """The survey itself. CohortError, its first problem, if it has one."""
    if survey.problems:
        if len(survey.problems) > 1:
            survey.problems[0].add_note(f"{len(survey.problems) - 1} more: `python -m mitolib check` lists them.")
        raise survey.problems[0]
    return survey


def survey(
    root: str | Path, proteins: Sequence[str] | None = PROTEINS, *, intensity: str | None = None, patch_px: int = 0
) -> Survey:
    """The sections that can be read, and everything that is wrong with the others; raises nothing about data."""
    reading = read_folder(Path(root), proteins, patch_px=patch_px)
    sections = [
        Section(e.section, e.subject, e.label, e.height_px, e.width_px, e.channels, e.metadata, intensity)
        for e in reading.entries
    ]
    sections.sort(key=lambda s: (LABELS.index(s.label), s.section))
    return Survey(tuple(sections), reading.problems, tuple(reading.notes), reading.proteins, reading.classes)


def table(sections: Iterable[Section]) -> pd.DataFrame:
    """One row per section: section, subject, label, width_px, height_px and the metadata columns."""
    columns = ("section", "subject", "label", "width_px", "height_px")
    known = [(s, {name: getattr(s, name) for name in columns}) for s in sections]
    return pd.DataFrame([row | dict(s.metadata) | row for s, row in known])  # a column `width_px` changes no width


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
            with section.channels[protein].path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
