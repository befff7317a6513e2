"""Sections of a cohort on disk, and the one reader of their images.

A data root holds a folder for each class, `Control` and `Patient`, and in it one entry for each section: a folder with
one image per protein (`Control/C01/SDHA.tif`), or one file with all channels (`Control/C01.ome.tiff`, `.txt`, `.mcd`).
Without class folders, `cohort.csv` gives the label of each section, and the entries lie in the root or, as steinbock
has it, in `img`. What kinds of file there are, is said in `mitolib.formats`.

`cohort.csv` declares `section, subject, label` and any metadata column; a subject is declared there, never guessed,
since one person may have two sections. Without it every section is its own subject. `panel.csv` says which channel is
which protein, where the names in the files do not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile

from mitolib import formats, panel
from mitolib.formats import SUFFIXES, Channel, CohortError
from mitolib.intensity import to_8_bit
from mitolib.panel import Panel, plain, read_table
from mitolib.settings import CALIBRATION, LABELS, PROTEINS

CLASS_FOLDERS = {"control": "control", "controls": "control", "patient": "patient", "patients": "patient"}
NOT_CLASSES = {"truth"}  # what the phantom writes beside the two classes
STEINBOCK_IMAGES = "img"
# What may hold a section that is not read here: to pass over it would make the cohort smaller without a word.
NOT_READ = {
    *(".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".bmp", ".gif", ".npy", ".npz", ".h5", ".zarr"),
    *(".qptiff", ".czi", ".nd2", ".lif", ".svs"),
}


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
    intensity: str | None = field(default=None, repr=False)  # see `mitolib.intensity`

    def raw_yx(self, protein: str) -> np.ndarray:
        """(height_px, width_px) of one protein: uint8 as in the file, or float32 counts; CohortError without one."""
        if protein not in self.channels:
            raise CohortError(
                f"section {self.section}: no image of {protein}; found {', '.join(self.channels) or 'none'}. "
                "Add the missing file or ask for other proteins."
            )
        return self.channels[protein].raw_yx()

    def image_yx(self, protein: str) -> np.ndarray:
        """(height_px, width_px) uint8, one protein, by `mitolib.intensity`. CohortError if it cannot be decoded."""
        return to_8_bit(self.raw_yx(protein), self.intensity)

    def stack_yxc(self, proteins: Sequence[str] = PROTEINS) -> np.ndarray:
        """(height_px, width_px, len(proteins)) uint8, channels in the order asked for."""
        return np.concatenate([self.image_yx(protein)[..., None] for protein in proteins], axis=-1)


def read_cohort(
    root: str | Path, proteins: Sequence[str] = PROTEINS, *, intensity: str | None = None
) -> tuple[Section, ...]:
    """Every section below `root`, controls first, then by name; headers are read, pixels are not.

    `intensity` is how counts become 8 bits, see `mitolib.intensity`. Raises CohortError for the first thing that is
    wrong with the folder or a file in it; `python -m mitolib check` lists them all.
    """
    sections, problems = survey(root, proteins, intensity=intensity)
    if problems:
        if len(problems) > 1:
            problems[0].add_note(f"{len(problems) - 1} more: `python -m mitolib check` lists them.")
        raise problems[0]
    return sections


def survey(
    root: str | Path, proteins: Sequence[str] = PROTEINS, *, intensity: str | None = None
) -> tuple[tuple[Section, ...], list[CohortError]]:
    """The sections that can be read, and everything that is wrong with the others; raises nothing about data."""
    reader = _Reader(Path(root), tuple(proteins), intensity)
    sections = reader.sections()
    return tuple(sorted(sections, key=lambda s: (LABELS.index(s.label), s.section))), reader.problems


class _Reader:
    """One pass over a data root. What is wrong is kept in `problems`, so that the pass goes on behind it."""

    def __init__(self, root: Path, proteins: tuple[str, ...], intensity: str | None) -> None:
        self.root, self.proteins, self.intensity = root, proteins, intensity
        self.problems: list[CohortError] = []

    def sections(self) -> list[Section]:
        if not self._try(self._is_folder):
            return []
        self.declared: pd.DataFrame | None = self._try(self._read_declared)
        self.panel: Panel | None = self._try(self._read_panel)
        entries = self._try(self._entries) or []
        if not entries and not self.problems:
            self._report(
                f"{self.root}: holds no section. Put them there as Control/<section>/<protein>.tif and "
                "Patient/<section>/<protein>.tif."
            )
        self._report_exports([path for _, path in entries])
        sections, unread = [], []
        for label, path in entries:
            members = self._try(self._members, path)
            unread += [path.name, formats.stem(path)] if members is None else []
            for name, channels in (members or {}).items():
                section = self._try(self._section, path, name, label, channels)
                sections += [section] if section else []
                unread += [] if section else [name]
        names = [section.section for section in sections]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._report(f"{self.root}: section {name} is there twice. Give each section its own name.")
        for name in [] if self.declared is None else sorted({*self.declared.index} - {*names, *unread}):
            if re.sub(r"_\d{3,}$", "", name) not in unread:  # an acquisition of a file that could not be opened
                self._report(
                    f"{self.root / 'cohort.csv'}: section {name} has no folder or file. Add it or remove the row."
                )
        return sections

    def _report_exports(self, paths: list[Path]) -> None:
        """An .mcd and what was exported from it, side by side, are one acquisition: as two sections it would be shown
        to a network twice. cohort.csv settles it, since there every section must be declared."""
        for path in paths if self.declared is None else ():
            for other in (p for p in paths if path.suffix.lower() == ".mcd" and p.parent == path.parent):
                if other.suffix.lower() != ".mcd" and other.name.startswith(f"{path.stem}_"):
                    self._report(f"{other}: seems exported from {path.name} beside it. Move one of the two away.")

    def _is_folder(self) -> bool:
        if not self.root.is_dir():
            finding = "is a file, not a folder" if self.root.exists() else "no such folder"
            remedy = "Give the folder that holds Control/ and Patient/, or leave `data` out to use the phantom."
            raise CohortError(f"{self.root}: {finding}. {remedy}")
        return True

    def _report(self, message: str) -> None:
        self.problems.append(CohortError(message))

    def _try(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """The step's result, or None with the reason in `problems`."""
        try:
            return step(*arguments)
        except CohortError as problem:
            self.problems.append(problem)
        except OSError as error:
            where = error.filename or next((a for a in arguments if isinstance(a, Path)), self.root)
            self._report(f"{where}: cannot be read ({error.strerror}). Allow reading it, or move it away.")

    def _inside(self, path: Path) -> Path:
        """The path itself. CohortError if it is a link that leads out of the data root, or nowhere, or is not read."""
        if path.suffix.lower() in NOT_READ:
            raise CohortError(
                f"{path}: {path.suffix} files are not read. Unpack it or export it as TIFF, or move it away."
            )
        if not path.name.isprintable():  # a line break, or bytes that are no text: no table could show it
            raise CohortError(f"{str(path)!r}: a name with characters that cannot be printed. Rename it.")
        if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(self.root.resolve())):
            raise CohortError(
                f"{path}: a link that leads out of the data folder, or nowhere. Put the file itself there."
            )
        return path

    def _visible(self, folder: Path) -> list[Path]:
        """What lies in a folder, by name, without hidden files and what is not `_inside`."""
        paths = [path for path in sorted(folder.iterdir()) if path.name[0] != "." and path.name != "__MACOSX"]
        return [path for path in paths if self._try(self._inside, path)]

    def _read_declared(self) -> pd.DataFrame | None:
        """cohort.csv, indexed by section, or None where there is none."""
        path = self._inside(self.root / "cohort.csv")
        if not path.exists():
            return None
        table = read_table(path)
        if missing := {"section", "subject", "label"} - set(table.columns):
            raise CohortError(
                f"{path}: no column {', '.join(sorted(missing))}; found {', '.join(table.columns)}. Add the column."
            )
        if empty := [name for name in ("section", "subject") if (table[name].str.strip() == "").any()]:
            raise CohortError(f"{path}: a row without {' and '.join(empty)}. Fill it in or remove the row.")
        if repeated := sorted(table["section"][table["section"].duplicated()]):
            raise CohortError(f"{path}: section {', '.join(repeated)} stands twice. Keep one row for each section.")
        table["label"] = table["label"].str.strip().str.lower()
        if unknown := sorted(set(table["label"]) - set(LABELS)):
            raise CohortError(f"{path}: label {', '.join(unknown)}; wanted {' or '.join(LABELS)}. Correct the column.")
        labels = table.groupby("subject")["label"].nunique()
        if two := sorted(labels.index[labels > 1]):
            raise CohortError(f"{path}: subject {', '.join(two)} is control and patient. Correct subject or label.")
        return table.set_index("section")

    def _read_panel(self) -> Panel | None:
        """panel.csv, or None where there is none."""
        path = self._inside(self.root / "panel.csv")
        return Panel.read(path) if path.exists() else None

    def _entries(self) -> list[tuple[str | None, Path]]:
        """Folders and files that are sections, with the label that their class folder gives them."""
        here = self._visible(self.root)
        classes = [path for path in here if path.is_dir() and path.name.lower() in CLASS_FOLDERS]
        if self.declared is not None and not classes:
            place = next((path for path in here if path.is_dir() and path.name == STEINBOCK_IMAGES), self.root)
            return [(None, path) for path in self._visible(place) if path.is_dir() or formats.is_picture(path)]
        entries = []
        for path in here:
            if path in classes:
                found = [p for p in self._try(self._visible, path) or () if p.is_dir() or formats.is_picture(p)]
                entries += [(CLASS_FOLDERS[path.name.lower()], p) for p in found]
            elif path.is_dir() and path.name not in NOT_CLASSES:
                self._report(
                    f"{path}: not a class folder. Rename it to Control or Patient, add a cohort.csv that gives the "
                    "label of each section, or move it away."
                )
            elif not path.is_dir() and formats.is_picture(path):
                self._report(f"{path}: lies beside the class folders. Move it into Control/ or Patient/.")
        return entries

    def _members(self, path: Path) -> dict[str, list[Channel]] | None:
        """Section -> channels, or None with the reasons in `problems`.

        A folder is one section, a file too, but an .mcd one for each of its acquisitions.
        """
        if not path.is_dir():
            found = formats.channels(path)
            numbers = dict.fromkeys(channel.acquisition for channel in found)
            if len(numbers) == 1:
                return {formats.stem(path): list(found)}
            return {  # named as steinbock names them
                f"{formats.stem(path)}_{number:03d}": [c for c in found if c.acquisition == number]
                for number in numbers
            }
        before = len(self.problems)  # with a file unread, nothing can be said of what is missing
        files = [p for p in self._visible(path) if not p.is_dir() and formats.is_picture(p)]
        found = [channel for p in files for channel in self._try(formats.channels, p) or ()]
        for file in files:
            if len({channel.acquisition for channel in found if channel.path == file}) > 1:
                raise CohortError(
                    f"{file}: several acquisitions in the folder of one section. Put the file where {path.name} lies: "
                    "each acquisition becomes a section."
                )
        return {path.name: found} if len(self.problems) == before else None

    def _section(self, path: Path, name: str, label: str | None, channels: list[Channel]) -> Section | None:
        subject, label, metadata = self._who(path, name, label)
        named = self._by_protein(path, channels)
        if missing := [protein for protein in self.proteins if protein not in named]:
            labels = dict.fromkeys(c.label or "a channel without a name" for c in channels)
            raise CohortError(
                f"{path}: no image of {', '.join(missing)}; found {', '.join(labels) or 'no protein image'}. Add the "
                "file, or a row of panel.csv that says which channel it is, or ask for other proteins."
            )
        first = named[self.proteins[0]]
        shape = height_px, width_px = first.height_px, first.width_px
        for channel in (odd := [c for c in named.values() if (c.height_px, c.width_px) != shape]):
            self._report(
                f"{channel.path}: {channel.height_px} x {channel.width_px} px, but {first.path.name} of the same "
                f"section is {height_px} x {width_px} px (height x width). Export all proteins of a section from one "
                "acquisition."
            )
        return None if odd else Section(name, subject, label, height_px, width_px, named, metadata, self.intensity)

    def _who(self, path: Path, section: str, label: str | None) -> tuple[str, str, dict[str, object]]:
        """Subject, label and metadata."""
        if self.declared is None:
            return section, label, {}
        if section not in self.declared.index:
            raise CohortError(f"{path}: section {section} is not in cohort.csv. Add its row, with its subject.")
        row = self.declared.loc[section]
        if label not in (None, row["label"]):
            raise CohortError(
                f"{path}: lies in the {label} folder, but cohort.csv says {row['label']}. Move it or correct the row."
            )
        return row["subject"], row["label"], row.drop(["subject", "label"]).to_dict()

    def _by_protein(self, path: Path, channels: list[Channel]) -> dict[str, Channel]:
        """Protein -> channel, of those asked for; of copies in two formats the one that SUFFIXES names first."""
        wanted = {plain(protein): protein for protein in self.proteins}
        chosen: dict[str, Channel] = {}
        for channel in sorted(channels, key=lambda c: SUFFIXES.index(c.path.suffix.lower())):
            n_channels = sum(other.path == channel.path for other in channels)
            if self.panel is not None:
                taken_for = self.panel.protein(channel, n_channels)
            elif channel.label is not None:
                taken_for = panel.protein(channel.label)
            else:
                raise CohortError(
                    f"{channel.path}: {n_channels} channels without names. Add a panel.csv to the data folder, one row "
                    "for each channel in the order of the file."
                )
            if taken_for is None or (key := plain(taken_for)) not in wanted:
                continue
            other = chosen.setdefault(wanted[key], channel)
            if other is not channel and _kind(other) == _kind(channel):
                raise CohortError(
                    f"{path}: {_place(other)} and {_place(channel)} are both taken for {wanted[key]}. Remove one, or "
                    "set keep to 0 in its row of panel.csv."
                )
        return {protein: chosen[protein] for protein in self.proteins if protein in chosen}


def _kind(channel: Channel) -> str:
    """.tif and .tiff are one kind: a copy in the other is no second choice."""
    return channel.path.suffix.lower().replace("tiff", "tif").replace("jpeg", "jpg")


def _place(channel: Channel) -> str:
    label = channel.label if channel.label != formats.stem(channel.path) else None
    metal = channel.metal if channel.metal != formats.metal(label or "") else None
    inside = ", ".join(filter(None, (label, metal)))
    return f"{channel.path.name} ({inside})" if inside else channel.path.name


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
