"""Where the sections of a data folder lie, and which tables speak for them; what lies there else is named or may lie.

Below the root lie class folders, or the sections themselves where cohort.csv gives the label of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mitolib.images import names
from mitolib.images.channel import CohortError
from mitolib.images.declared import Declared, read_classes, read_declared
from mitolib.images.formats import BESIDE_FOLDERS, FOLDERS_OF_A_FORMAT, OF_A_SYSTEM, is_picture, may_lie_about, not_read
from mitolib.images.panel import Panel
from mitolib.images.tables import NAMES, find_table

STEINBOCK_IMAGES = "img"
STEINBOCK_FOLDERS = {"raw", "intensities", "regionprops", "neighbors", "export", "img"}


@dataclass
class Findings:
    """What is wrong with a folder and what is left out, kept so that the pass goes on behind each finding."""

    problems: list[CohortError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self, message: str) -> None:
        self.problems.append(CohortError(message))

    def note(self, message: str) -> None:
        if message not in self.notes:
            self.notes.append(message)

    def attempt(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """The step's result, or None with the reason among the problems."""
        try:
            return step(*arguments)
        except CohortError as problem:
            self.problems.append(problem)
        except OSError as error:
            where = error.filename or next((a for a in arguments if isinstance(a, Path)), "")
            self.report(f"{where}: cannot be read ({error.strerror}). Allow reading it, or move it away.")


class Layout:
    """The tables of a data folder, and the paths of its sections."""

    def __init__(self, root: Path, findings: Findings) -> None:
        self.root, self.findings = root, findings
        self.declared, self.panel, self.classes = Declared(), None, read_classes(None)
        self.own_classes: dict[str, str] = {}  # a class folder's name -> label, where it is no usual one

    # Tables

    def read_tables(self) -> None:
        tables = {name: self.findings.attempt(self._table, name) for name in NAMES}
        self.classes = self.findings.attempt(read_classes, tables["classes.csv"]) or self.classes
        declared = self.findings.attempt(read_declared, tables["cohort.csv"], self.classes)
        self.declared = declared or Declared()
        self.classes |= self.declared.classes
        self.panel = self.findings.attempt(Panel.read, tables["panel.csv"]) if tables["panel.csv"] else None

    def _table(self, name: str) -> Path | None:
        path, alike = find_table(self.root, name)
        for other in alike:
            if path:
                self.findings.note(f"{other.name}: is not read, {path.name} is")
            else:
                self.findings.report(
                    f"{other}: looks like {name} and is not read. Save it as {name}, comma-separated text, or move it "
                    "away."
                )
        return self.inside(path) if path else None

    def _look_for_tables(self, folder: Path) -> None:
        """A table in a folder of sections speaks for nothing, whatever its writer believes."""
        for name in NAMES:
            path, alike = find_table(folder, name)
            for other in filter(None, (path, *alike)):
                self.findings.report(f"{other}: is not read there. Move it into {self.root} as {name}, or elsewhere.")

    # Sections

    def sections(self) -> list[tuple[str | None, Path]]:
        """Folders and files that are sections, with the label that their class folder gives them."""
        here = self.visible(self.root)
        classes = {p: self.classes[key] for p in here if p.is_dir() and (key := names.identity(p.name)) in self.classes}
        if self.declared and not classes:
            return [(None, path) for path in self._without_classes(here)]
        paths: list[tuple[str | None, Path]] = []
        for path in here:
            if path in classes:
                if names.identity(path.name) not in read_classes(None):
                    self.own_classes[path.name] = classes[path]
                self.findings.attempt(self._look_for_tables, path)
                self.findings.attempt(self._note_beside, path)
                paths += [(classes[path], p) for p in self.findings.attempt(self.visible, path) or ()]
            elif not path.is_dir():
                self.findings.report(
                    f"{path}: lies beside the class folders. Move it into Control/ or Patient/, or out of {self.root}."
                )
            elif within := self.findings.attempt(self._class_folders, path):
                self.findings.report(f"{path}: holds {' and '.join(within)}. Give that folder, or move these up.")
            else:
                self.findings.report(
                    f"{path}: not a class folder. Rename it to Control or Patient, add a classes.csv (columns class "
                    "and label) or a cohort.csv that says which of the two it is, or move it away."
                )
        return paths

    def _class_folders(self, folder: Path) -> list[str]:
        """The class folders that lie one level too deep."""
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and names.identity(p.name) in self.classes)

    def _without_classes(self, here: list[Path]) -> list[Path]:
        images = next((path for path in here if path.is_dir() and path.name.casefold() == STEINBOCK_IMAGES), None)
        if images is None:
            return here
        for path in here:
            if path != images and (not path.is_dir() or path.name not in STEINBOCK_FOLDERS):
                self.findings.note(f"{path.name}: is not read, since pictures lie in {images.name}/")
        self.findings.attempt(self._look_for_tables, images)
        return self.visible(images)

    def _note_beside(self, folder: Path) -> None:
        """Folders of a class that are called as what lies beside sections, and hold pictures."""
        for path in sorted(folder.iterdir()):
            name = path.name.casefold()
            is_beside = path.is_dir() and name in BESIDE_FOLDERS - OF_A_SYSTEM
            if is_beside and any(is_picture(p) or p.is_dir() for p in path.iterdir() if not may_lie_about(p)):
                self.findings.note(f"{folder.name}/{path.name}: is not read, by its name it holds no section")

    # What lies in a folder

    def visible(self, folder: Path, others: list[Path] | None = None) -> list[Path]:
        """Folders and pictures in a folder, by name. What is neither, and does not usually lie about, is a problem.

        others: takes these instead, where they need not be one.
        """
        visible = []
        for path in sorted(folder.iterdir()):
            if may_lie_about(path) or not self.findings.attempt(self.inside, path):
                continue
            is_folder = path.is_dir() and path.suffix.casefold() not in FOLDERS_OF_A_FORMAT
            if is_folder or (is_picture(path) and not path.is_dir()):
                visible.append(path)
            elif others is not None:
                others.append(path)
            else:
                self.findings.problems.append(not_read(path))
        return visible

    def inside(self, path: Path) -> Path:
        """The path itself. CohortError for a link that leads out of the data folder, or nowhere, and an odd name."""
        if not path.name.isprintable():  # a line break, or bytes that are no text: no table could show it
            raise CohortError(f"{str(path)!r}: a name with characters that cannot be printed. Rename it.")
        if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(self.root.resolve())):
            raise CohortError(
                f"{path}: a link that leads out of the data folder, or nowhere. Put the file itself there."
            )
        return path
