"""cohort.csv and classes.csv of a data folder: whose each section is, which class, and which are left out.

`cohort.csv` has the columns `section, subject, label`, further ones as one likes, and two with a meaning: `use` (0
leaves the section out) and `class` (a laboratory's own name of the class, as its folders are called). `classes.csv`
says the same of folders alone: `class, label`. Names are matched by `identity`: case, Unicode form, spaces, hyphens
and leading zeros do not count.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mitolib.images.channel import CohortError
from mitolib.images.names import identity, slide
from mitolib.images.tables import read_table
from mitolib.settings import LABELS

CLASSES = {"control": "control", "controls": "control", "patient": "patient", "patients": "patient"}
USED = dict.fromkeys(("1", "1.0", "1,0", "true", "yes", "y", ""), True) | dict.fromkeys(
    ("0", "0.0", "0,0", "false", "no", "n"), False
)
COLUMNS = ("section", "subject", "label")
SUFFIX = re.compile(r"(\.ome)?\.(tiff?|mcd|txt|png|jpe?g)$", re.IGNORECASE)  # with which a file's name is copied


@dataclass(frozen=True)
class Row:
    """What is declared of one section."""

    section: str
    subject: str
    label: str
    use: bool
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Declared:
    """The rows of a cohort.csv; `path` None where there is none."""

    path: Path | None = None
    rows: tuple[Row, ...] = ()
    classes: Mapping[str, str] = field(default_factory=dict)  # of its column `class`

    def __bool__(self) -> bool:
        return self.path is not None

    def row(self, section: str, there: Collection[str] = ()) -> Row | None:
        """The row of a section or slide: of that very name, or of one that differs in spelling alone.

        there: names of all files and folders. What is called exactly as one of them, is the row of that one: "P1" says
        nothing of P01 where both are there.
        """
        if exact := [row for row in self.rows if row.section == section]:
            return exact[0]
        others = [row for row in self.rows if row.section not in there]
        for same in (identity, lambda name: identity(SUFFIX.sub("", name))):
            if alike := [row for row in others if same(row.section) == identity(section)]:
                return alike[0]
        return None


def read_classes(path: Path | None) -> dict[str, str]:
    """Identity of a laboratory's class name -> "control" or "patient", the usual names among them."""
    if path is None:
        return dict(CLASSES)
    table = read_table(path)
    if missing := {"class", "label"} - set(table.columns):
        raise CohortError(
            f"{path}: no column {', '.join(sorted(missing))}; found {', '.join(table.columns)}. Add the column: class "
            "is the folder's name, label is control or patient."
        )
    return dict(CLASSES) | _classes(path, table)


def _classes(path: Path, table: pd.DataFrame) -> dict[str, str]:
    classes: dict[str, str] = {}
    for name, label in zip(table["class"], table["label"], strict=True):
        if not name:
            continue
        if (known := CLASSES.get(identity(label))) is None:
            raise CohortError(f"{path}: label {label or 'empty'}; wanted {' or '.join(LABELS)}. Correct the column.")
        if classes.setdefault(identity(name), known) != known:
            raise CohortError(f"{path}: class {name} is control and patient. Keep one label for each class.")
        if CLASSES.get(identity(name), known) != known:
            raise CohortError(f"{path}: class {name} is labelled {known}. Correct the label, or rename the class.")
    return classes


def read_declared(path: Path | None, classes: Mapping[str, str]) -> Declared:
    """A cohort.csv. CohortError for the first thing that is wrong with the table as a whole."""
    if path is None:
        return Declared()
    table = read_table(path)
    if missing := [name for name in COLUMNS if name not in table]:
        raise CohortError(f"{path}: no column {', '.join(missing)}; found {', '.join(table.columns)}. Add the column.")
    use = table["use"].str.casefold() if "use" in table else pd.Series("1", table.index)
    if unknown := sorted(set(use) - set(USED)):
        raise CohortError(f"{path}: use is {', '.join(unknown)} in a row. Write 1 to use a section, 0 to leave it out.")
    in_use = use.map(USED)
    if empty := [name for name in ("section", "subject") if (table[name][in_use | (name == "section")] == "").any()]:
        raise CohortError(f"{path}: a row without {' and '.join(empty)}. Fill it in or remove the row.")
    if repeated := sorted(set(table["section"][table["section"].duplicated()])):
        raise CohortError(f"{path}: section {', '.join(repeated)} stands twice. Keep one row for each section.")
    own_classes = _classes(path, table[in_use.astype(bool)]) if "class" in table else {}
    labels = table["label"].map(lambda label: (classes | own_classes).get(identity(label)))
    if unknown := sorted(set(table["label"][in_use & labels.isna()])):
        raise CohortError(
            f"{path}: label {', '.join(name or 'empty' for name in unknown)}; wanted {' or '.join(LABELS)}. Correct "
            "the column, or say in classes.csv, columns class and label, which of the two each class is."
        )
    subjects = table["subject"][in_use.astype(bool)]
    both = labels[subjects.index].groupby(subjects.map(identity)).nunique()
    if two := sorted(set(subjects[subjects.map(identity).isin(both.index[both > 1])])):
        raise CohortError(f"{path}: subject {', '.join(two)} is control and patient. Correct subject or label.")
    further = [name for name in table.columns if name not in (*COLUMNS, "use")]
    return Declared(
        path,
        tuple(
            Row(row["section"], row["subject"], label, used, {name: row[name] for name in further})
            for (_, row), label, used in zip(table.iterrows(), labels, in_use, strict=True)
        ),
        own_classes,
    )


def same_person_twice(subjects: Iterable[str]) -> list[str]:
    """A finding for each set of names that differ in spelling alone: they would be trained and tested as two people."""
    by_identity: dict[str, list[str]] = {}
    for subject in dict.fromkeys(subjects):
        by_identity.setdefault(identity(subject), []).append(subject)
    return [
        f"subjects {' and '.join(names)} differ in spelling alone. Write one of the names in all rows of cohort.csv; "
        "give two people names that differ in more."
        for names in by_identity.values()
        if len(names) > 1
    ]


def regions_as_people(subjects: Iterable[str]) -> list[str]:
    """A finding for each set of undeclared names that look like regions of one slide: "P01_1" and "P01_2"."""
    by_slide: dict[str, list[str]] = {}
    for subject in dict.fromkeys(subjects):
        by_slide.setdefault(identity(slide(subject) or subject), []).append(subject)
    return [
        f"sections {', '.join(names)} look like regions of one person, and without cohort.csv they count as "
        f"{len(names)} people. Write a cohort.csv with the columns section, subject, label that says whose each is."
        for names in by_slide.values()
        if len(names) > 1 and any(slide(name) for name in names)
    ]


def perhaps_regions(subjects: Iterable[str]) -> list[str]:
    """A note on undeclared names of one class such as Anna_1, Anna_2 and Bo_1, which may be regions of two people.

    Where all have one word before the number, as Patient_1 and Patient_2, it is no person's.
    """
    by_word: dict[str, list[str]] = {}
    for subject in dict.fromkeys(subjects):
        if match := re.fullmatch(r"(?![ivxIVX]+[^a-z])([^\W\d_]{2,}?)[\s_.-]+\d{1,2}", subject):
            by_word.setdefault(identity(match[1]), []).append(subject)
    return [
        f"{', '.join(names)} are taken for {len(names)} people; where they are sections of one, say so in cohort.csv"
        for names in by_word.values()
        if len(names) > 1 and len(by_word) > 1
    ]


def without_region(name: str) -> str:
    """A section's name without the number that an acquisition of an .mcd gets: "P02_001" -> "P02"."""
    return re.sub(r"_\d{3,}$", "", name)
