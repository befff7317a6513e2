"""Small tables that people write by hand or in a spreadsheet: cohort.csv, panel.csv, classes.csv."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from mitolib.images.channel import CohortError, named
from mitolib.images.names import identity

NAMES = ("cohort.csv", "panel.csv", "classes.csv")
SEPARATORS = ",;\t"
# Suffixes under which somebody may have saved one of them and believe that it is read.
SAVED_AS = {".csv", ".tsv", ".txt", ".xlsx", ".xls", ".xlsm", ".ods", ".json", ".numbers"}
UNSEEN = dict.fromkeys(map(ord, "\ufeff\u200b\u200e\u200f"))  # what comes along with a copied cell


def find_table(folder: Path, name: str) -> tuple[Path | None, list[Path]]:
    """The file `name` in a folder, whatever its capitals, and files that look like it and are not read.

    name: "cohort.csv". Look-alikes: "cohort (1).csv", "Cohort.xlsx", "cohort.csv.txt", "cohorts.csv". Raises
    CohortError for two files whose names differ in case alone.
    """
    exact, alike = [], []
    for path in sorted(folder.iterdir()):
        if path.name.casefold() == name:
            exact.append(path)
        elif not path.name.startswith((".", "~$")) and _looks_like(path, name.partition(".")[0]):
            alike.append(path)
    if len(exact) > 1:
        raise CohortError(
            f"{folder}: {' and '.join(path.name for path in exact)} differ in capitals alone. Keep one of them."
        )
    return (exact[0] if exact else None), alike


def _looks_like(path: Path, stem: str) -> bool:
    suffixes = {suffix.casefold() for suffix in path.suffixes}
    first_word = identity(path.name).split("|")[0]
    return bool(suffixes & SAVED_AS) and first_word in (stem, f"{stem}s", stem.removesuffix("es")) and path.is_file()


def read_table(path: Path) -> pd.DataFrame:
    """A table as text without spaces around it, nothing guessed, column names in lower case.

    Comma, semicolon or tab between the cells, a line `sep=;` before them, a byte-order mark, Latin-1 in place of
    UTF-8, and what a spreadsheet leaves beside and below the cells that were filled in, are understood. CohortError for
    what is no table, for two columns of one name, and for a row with more cells than there are columns.
    """
    with named(path, "cannot be read as a table", "Save it as comma-separated text, in UTF-8."):
        rows = _rows(_decoded(path.read_bytes()))
    filled = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    if not filled:
        raise CohortError(f"{path}: cannot be read as a table (it is empty). Save it again, or move it away.")
    header = [cell.casefold() for cell in filled[0][1]]
    if twice := sorted({cell for cell in header if cell and header.count(cell) > 1}):
        raise CohortError(f"{path}: column {', '.join(twice)} stands twice. Keep one of each name.")
    for number, row in filled[1:]:
        if any(row[len(header) :]):
            raise CohortError(
                f"{path}: cannot be read as a table (row {number} has {len(row)} cells, the header {len(header)}). "
                "Remove what is too much, or put quotes around a cell that holds the separator."
            )
    cells = [(row + [""] * len(header))[: len(header)] for _, row in filled[1:]]
    table = pd.DataFrame(cells, columns=[name or f"column {i}" for i, name in enumerate(header, start=1)], dtype=str)
    return table.drop(columns=[c for c, name in zip(table, header, strict=True) if not name and (table[c] == "").all()])


def _rows(text: str) -> list[list[str]]:
    """The cells of each row. The separator is the one of which the header has most, outside quotes."""
    declared = text.partition("\n")[0].strip(' \t"').casefold()
    if declared.startswith("sep=") and len(declared) == 5:
        separator, text = declared[-1], "\n" + text.partition("\n")[2]  # so that rows keep their numbers
    elif declared in ("sep=", "sep=\\t"):  # a tab, stripped or spelled
        separator, text = "\t", "\n" + text.partition("\n")[2]
    else:
        header = next((line for line in text.splitlines() if line.strip(f"{SEPARATORS} ")), "")
        separator = max(SEPARATORS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))
    # Spaces before a quote would else make it part of the cell.
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    return [[cell.strip() for cell in row] for row in reader]


def _decoded(content: bytes) -> str:
    """UTF-8 with or without its mark, else the Latin-1 of Windows. ValueError for UTF-16 and for what is no text."""
    if b"\0" in content:
        raise ValueError("it is saved as UTF-16, or is no text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252")
    return text.translate(UNSEEN).replace("\r\n", "\n").replace("\r", "\n")
