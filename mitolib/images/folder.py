"""One pass over a data folder: which sections it holds, whose they are, and all that is wrong with the rest.

A data folder holds a folder for each class, `Control` and `Patient` (or as `classes.csv` calls them), and in it one
entry for each section: a folder with one image per protein (`Control/C01/SDHA.tif`), or one file with all channels
(`Control/C01.ome.tiff`, `.txt`, `.mcd`). Without class folders, `cohort.csv` gives the label of each section, and the
entries lie in the folder itself or, as steinbock has it, in `img`.

A *problem* keeps a run from starting and says what helps. A *note* names what is left out, and why, where leaving it
out harms nothing else. Nothing that may be a section is passed over without one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mitolib.images import names
from mitolib.images.candidate import Candidate, Naming
from mitolib.images.channel import Channel, CohortError, Contents
from mitolib.images.declared import Row, perhaps_regions, regions_as_people, same_person_twice, without_region
from mitolib.images.formats import contents, not_read, stem
from mitolib.images.layout import Findings, Layout
from mitolib.settings import LABELS, PROTEINS

UNDECLARED = "Add its row, with its subject, or a row in which the column use is 0, which leaves it out."
LEAVE_OUT = "leave it out (move it away, or set the column use to 0 in its row of a cohort.csv of all sections)"
SIDE_PX, LEAST_PATCH_PX = (
    32,
    64,
)  # a patch size that is proposed is a multiple of the first, and no less than the second


@dataclass(frozen=True)
class Entry:
    """One section, as its files and tables have it; `channels` by protein."""

    section: str
    subject: str
    label: str
    height_px: int
    width_px: int
    channels: Mapping[str, Channel]
    metadata: Mapping[str, str]


@dataclass
class Reading:
    """What a pass has found."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[CohortError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    proteins: tuple[str, ...] = ()  # that were asked for, or that there are
    classes: dict[str, str] = field(
        default_factory=dict
    )  # a class folder's own name -> label, where it is no usual one


def read_folder(root: Path, proteins: Sequence[str] | None, *, patch_px: int = 0) -> Reading:
    """All sections with these proteins; None takes those that there are.

    patch_px: a section smaller than that is a problem, a region of a slide that has larger ones a note.
    """
    return _Reader(root, proteins, patch_px).read()


class _Reader:
    def __init__(self, root: Path, proteins: Sequence[str] | None, patch_px: int) -> None:
        self.root, self.asked, self.patch_px = root, proteins, patch_px
        self.findings = Findings()
        self.layout = Layout(root, self.findings)
        self.entries: list[Entry] = []
        self.proteins: tuple[str, ...] = ()
        self.there: set[str] = set()  # names of all files and folders that may be sections
        self.claims: dict[str, set[str]] = {}  # a row of cohort.csv -> the sections that it speaks for
        self.unread: set[str] = set()  # names of sections whose files could not be read

    def read(self) -> Reading:
        if self.findings.attempt(self._is_folder):
            self._read()
        findings = self.findings
        return Reading(self.entries, findings.problems, findings.notes, self.proteins, self.layout.own_classes)

    def _read(self) -> None:
        attempt = self.findings.attempt
        self.layout.read_tables()
        paths = attempt(self.layout.sections) or []
        if not paths and not self.findings.problems:
            self.findings.report(
                f"{self.root}: holds no section. Put them there as Control/<section>/<protein>.tif and "
                "Patient/<section>/<protein>.tif."
            )
        self.there = {_name(path) for _, path in paths}
        self._report_exports([path for _, path in paths])
        candidates = [candidate for label, path in paths for candidate in attempt(self._candidates, label, path) or ()]
        self.naming = Naming(self.layout.panel)
        self.proteins = self.naming.of_any(candidates) if self.asked is None else tuple(self.asked)
        self.of_all = self.naming.of_all(candidates)
        if candidates and not self.proteins:
            self._report_no_protein(candidates)
        for candidate in candidates if self.proteins else ():
            if not self._is_of_another_panel(candidate, candidates) and (entry := attempt(self._entry, candidate)):
                self.entries.append(entry)
        self._report_small()
        self._report_names([candidate.name for candidate in candidates])

    def _is_folder(self) -> bool:
        if not self.root.is_dir():
            finding = "is a file, not a folder" if self.root.exists() else "no such folder"
            remedy = "Give the folder that holds Control/ and Patient/, or leave `data` out to use the phantom."
            raise CohortError(f"{self.root}: {finding}. {remedy}")
        return True

    def _report_exports(self, paths: list[Path]) -> None:
        """An .mcd and what was exported from it, side by side, are one acquisition: as two sections it would be shown
        to a network twice. cohort.csv settles it, since there every section must be declared."""
        for path in paths if not self.layout.declared else ():
            for other in (p for p in paths if path.suffix.lower() == ".mcd" and p.parent == path.parent):
                if other.suffix.lower() != ".mcd" and other.name.startswith(f"{path.stem}_"):
                    self.findings.report(f"{other}: seems exported from {path.name} beside it. Move one of them away.")

    # What a section's files hold

    def _row(self, name: str) -> Row | None:
        row = self.layout.declared.row(name, self.there)
        if row:
            self.claims.setdefault(row.section, set()).add(name)
        return row

    def _candidates(self, label: str | None, path: Path) -> list[Candidate]:
        """A folder is one section, a file too, but an .mcd one for each of its acquisitions."""
        name = _name(path)
        row = self._row(name)
        if (
            row
            and not row.use
            and not any(r.use and without_region(r.section) == name for r in self.layout.declared.rows)
        ):
            self.findings.note(f"{name}: left out, as cohort.csv has it")
            return []
        try:
            return [self._of_folder(label, path)] if path.is_dir() else self._of_file(label, path)
        except CohortError:
            self.unread.add(name)
            raise

    def _of_file(self, label: str | None, path: Path) -> list[Candidate]:
        held, name = contents(path), stem(path)
        for reason in held.left_out:
            self.findings.note(f"{path.name}: {reason}, and is left out")
        if held.n_acquisitions == 1:
            numbered = f"{name}_{held.channels[0].acquisition or 1:03d}"  # as steinbock names it
            if self.layout.declared and not self._row(name) and self._row(numbered):
                name = numbered
            return [Candidate(path, name, label, self._named_inside(held.channels))]
        regions = {f"{name}_{c.acquisition:03d}": c for c in held.channels}
        in_use = []
        for region in self._large_enough(regions):
            row = self._row(region) or self._row(name)
            if row and not row.use:
                self.findings.note(f"{region}: left out, as cohort.csv has it")
            else:
                channels = tuple(c for c in held.channels if c.acquisition == regions[region].acquisition)
                in_use.append(Candidate(path, region, label, channels, of_slide=name))
        return in_use

    def _large_enough(self, regions: Mapping[str, Channel]) -> list[str]:
        """The regions of a slide without its trial shots, as most slides have one; all, where none is larger."""
        whole = [region for region, c in regions.items() if min(c.height_px, c.width_px) >= self.patch_px]
        for region, first in regions.items() if whole else ():
            if region not in whole:
                self._row(region)
                self.findings.note(
                    f"{region}: {first.height_px} x {first.width_px} px, smaller than a patch of {self.patch_px} px, "
                    "and is left out"
                )
        return whole or list(regions)

    def _named_inside(self, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        """The one channel of a file that is named as its section: its protein is what the file calls it inside."""
        if len(channels) == 1 and (inside := channels[0].described):
            known = {names.plain(protein) for protein in (*(self.asked or ()), *PROTEINS)}
            own = names.plain(names.protein(channels[0].label or ""))
            if names.plain(names.protein(inside)) in known and own not in known:
                return (replace(channels[0], label=inside, described=None),)
        return channels

    def _of_folder(self, label: str | None, path: Path) -> Candidate:
        held: list[Contents] = []
        unread: dict[Path, CohortError] = {}
        others: list[Path] = []
        inside = self.layout.visible(path, others)
        for file in (p for p in inside if not p.is_dir()):
            try:
                read = contents(file)
            except CohortError as problem:
                unread[file] = problem
                continue
            first = {f"{path.name}_{c.acquisition or 1:03d}": c for c in read.channels}
            if len(self._large_enough(first)) > 1:
                raise CohortError(
                    f"{file}: several acquisitions in the folder of one section. Put the file where {path.name} lies: "
                    "each acquisition becomes a section."
                )
            for reason in read.left_out:
                self.findings.note(f"{path.name}/{file.name}: {reason}, and is left out")
            kept = {first[region].acquisition for region in self._large_enough(first)}
            held.append(replace(read, channels=tuple(c for c in read.channels if c.acquisition in kept)))
        folders = [p for p in inside if p.is_dir()]
        if folders and not held and not unread:
            raise CohortError(
                f"{path}: no image of {', '.join(self.asked or ('any protein',))}; found no protein image, but folders "
                f"({', '.join(p.name for p in folders[:4])}). Move the pictures, or these folders, one level up."
            )
        for folder in folders:
            self.findings.note(f"{path.name}/{folder.name}: is not read, a section's pictures lie side by side")
        channels = tuple(channel for read in held for channel in read.channels)
        return Candidate(path, path.name, label, channels, unread=unread, others=tuple(others))

    # Which channel is which protein

    def _report_no_protein(self, candidates: Sequence[Candidate]) -> None:
        reasons = [problem for candidate in candidates for problem in candidate.unread.values()]
        reasons += [not_read(path) for candidate in candidates for path in candidate.others]
        reasons += [problem for c in candidates if (problem := self.naming.by_protein(c, ())[1])]
        self.findings.problems += reasons
        examples = dict.fromkeys(label for candidate in candidates for label in self.naming.labels(candidate)[:3])
        if examples or not reasons:
            found = ", ".join(list(examples)[:8]) or "no name of any"
            self.findings.report(
                f"{self.root}: no protein that all sections have; found {found}. Rename files or channels by their "
                "proteins, alike in all sections, or add a panel.csv, columns channel and name."
            )

    def _is_of_another_panel(self, candidate: Candidate, candidates: Sequence[Candidate]) -> bool:
        """Whether a region of a slide was stained or measured for something else, while others of it are whole."""
        others = [other for other in candidates if other.path == candidate.path and other is not candidate]
        if candidate.of_slide is None or not self.naming.has_none(candidate, self.proteins):
            return False
        if not any(self.naming.has_all(other, self.proteins) for other in others):
            return False
        held = ", ".join(self.naming.labels(candidate)) or "no named channel"
        self.findings.note(f"{candidate.name}: holds {held} and nothing that is read, and is left out")
        return True

    def _entry(self, candidate: Candidate) -> Entry:
        subject, label, metadata = self._who(candidate)
        named, unnamed = self.naming.by_protein(candidate, self.proteins)
        missing = [protein for protein in self.proteins if protein not in named]
        self._weigh_unread(candidate, unnamed, is_whole=not missing)
        if missing:
            raise CohortError(self._what_is_missing(candidate, missing))
        sizes = {(c.height_px, c.width_px) for c in named.values()}
        if len(sizes) > 1:
            first, *others = named.values()
            odd = next(c for c in others if (c.height_px, c.width_px) != (first.height_px, first.width_px))
            raise CohortError(
                f"{odd.path}: {odd.height_px} x {odd.width_px} px, but {first.path.name} of the same section is "
                f"{first.height_px} x {first.width_px} px (height x width). Export all proteins of a section from one "
                "acquisition."
            )
        ((height_px, width_px),) = sizes
        return Entry(candidate.name, subject, label, height_px, width_px, named, metadata)

    def _what_is_missing(self, candidate: Candidate, missing: Sequence[str]) -> str:
        labels = dict.fromkeys(c.label or "a channel without a name" for c in candidate.channels)
        where = f" in {candidate.name}" if candidate.of_slide else ""
        all_have = f" (all sections have {', '.join(self.of_all)})" if self.of_all else ""
        found = ", ".join(labels) or "no protein image"
        return (
            f"{candidate.path}: no image of {', '.join(missing)}; found {found}{where}. "
            "Add the file, or a row of panel.csv that says which channel it is; ask for other proteins"
            f"{all_have}: --proteins of check, -p protein or -p proteins of a chapter; or {LEAVE_OUT}."
        )

    def _weigh_unread(self, candidate: Candidate, unnamed: CohortError | None, *, is_whole: bool) -> None:
        """A file that cannot be read stops its section only if it may be, or hold, a picture that was asked for."""
        for path in candidate.others:
            if is_whole:
                self.findings.note(
                    f"{candidate.name}/{path.name}: is not read; no protein that is read is missing without it"
                )
            else:
                self.findings.problems.append(not_read(path))
        problems = []
        for path, problem in candidate.unread.items():
            if is_whole and names.protein(stem(path)) not in self.proteins:
                reason = " ".join(str(problem.__cause__.args[0] if problem.__cause__ else problem).split())
                self.findings.note(
                    f"{candidate.name}/{path.name}: is left out ({reason}); no protein that is read is missing without "
                    "it. Leave it, or move it away"
                )
            else:
                problems.append(problem)
        if unnamed and is_whole:
            self.findings.note(f"{candidate.name}: {str(unnamed).partition('. ')[0]}; they are left out")
        elif unnamed:
            problems.append(unnamed)
        if problems:
            self.findings.problems += problems[1:]
            raise problems[0]

    # Whose it is

    def _who(self, candidate: Candidate) -> tuple[str, str, Mapping[str, str]]:
        """Subject, label and metadata."""
        if not self.layout.declared:
            return candidate.of_slide or candidate.name, candidate.label, {}
        row = self._row(candidate.name) or (self._row(candidate.of_slide) if candidate.of_slide else None)
        if row is None:
            raise CohortError(f"{candidate.path}: section {candidate.name} is not in cohort.csv. {UNDECLARED}")
        if candidate.label not in (None, row.label):
            raise CohortError(
                f"{candidate.path}: lies in the {candidate.label} folder, but cohort.csv says {row.label}. Move it or "
                "correct the row."
            )
        return row.subject, row.label, row.metadata

    def _report_small(self) -> None:
        small = [e for e in self.entries if min(e.height_px, e.width_px) < self.patch_px]
        fits = [min(e.height_px, e.width_px) // SIDE_PX * SIDE_PX for e in small]
        # One size for all that a smaller patch can save: what helps one of them only would leave the others too small.
        proposed = min((px for px in fits if px >= LEAST_PATCH_PX), default=0)
        for entry, fits_px in zip(small, fits, strict=True):
            path = next(iter(entry.channels.values())).path
            self.findings.report(
                f"{path}: section {entry.section} is {entry.height_px} x {entry.width_px} px (height x width), wanted "
                f"at least one patch of {self.patch_px} px. {LEAVE_OUT.capitalize()}"
                + (
                    f", or take smaller patches: -p patch_px {proposed} of a chapter."
                    if fits_px >= proposed > 0
                    else "."
                )
            )
        left_out = {id(entry) for entry in small}
        self.entries = [entry for entry in self.entries if id(entry) not in left_out]

    def _report_names(self, candidates: Sequence[str]) -> None:
        report = self.findings.report
        for name in sorted({name for name in candidates if candidates.count(name) > 1}):
            report(f"{self.root}: section {name} is there twice. Give each section its own name.")
        for finding in same_person_twice(entry.subject for entry in self.entries):
            report(f"{self.root}: {finding}")
        if not self.layout.declared:
            self._report_undeclared()
            return
        path = self.layout.declared.path
        for section, claimed in self.claims.items():
            if len(claimed) > 1:
                report(
                    f"{path}: the row of section {section} would be that of {' and '.join(sorted(claimed))}, which "
                    "differ in spelling alone. Give each a row with its very name."
                )
        unread = {names.identity(name) for name in self.unread}
        for row in self.layout.declared.rows:
            of_slide = names.identity(without_region(row.section))  # an acquisition of a file that could not be opened
            if row.use and row.section not in self.claims and of_slide not in unread:
                report(f"{path}: section {row.section} has no folder or file. Add it or remove the row.")

    def _report_undeclared(self) -> None:
        """What a cohort.csv would settle, and there is none."""
        for finding in regions_as_people(entry.subject for entry in self.entries):
            self.findings.report(f"{self.root}: {finding}")
        for label in LABELS:
            for note in perhaps_regions(entry.subject for entry in self.entries if entry.label == label):
                self.findings.note(note)
        slides: dict[str, list[str]] = {}
        for entry in self.entries:
            if without_region(entry.section) == entry.subject != entry.section:
                slides.setdefault(entry.subject, []).append(entry.section)
        for subject, sections in slides.items():
            if len(sections) > 1:
                self.findings.note(f"{', '.join(sections)}: regions of one slide, taken for one person, {subject}")


def _name(path: Path) -> str:
    """What a section is called that lies there."""
    return path.name if path.is_dir() else stem(path)
