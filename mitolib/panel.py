"""Which protein a channel shows: the spellings of the field, and panel.csv of a data folder."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from mitolib import formats
from mitolib.formats import Channel, CohortError
from mitolib.settings import PROTEINS

# Spellings met in the Newcastle group's public code and tables (Warren et al. 2020), lower case, letters and digits.
ALIASES = {protein.lower(): protein for protein in PROTEINS} | {
    "tomm22": "TOM22",
    "tomm20": "TOM22",  # the pilot panel stained TOMM20; both are outer-membrane mass markers
    "ndufa13": "GRIM19",
    "vdac": "VDAC1",
    "cox44l2": "COX4",  # COX4+4L2
    "dys": "Dystrophin",
}


def protein(label: str) -> str:
    """The protein a channel's label names, in the paper's spelling where it is one of the ten.

    "153Eu_153Eu SDHA", "NDUFB8(Gd160)" and "mt-co1" are understood: isotopes, case and punctuation do not count.
    """
    without_isotopes = re.sub(r"[A-Za-z0-9]+", lambda word: "" if formats.metal(word[0]) else word[0], label)
    name = " ".join(re.split(r"[\s_()\[\]]+", without_isotopes)).strip(" -") or label.strip()
    return ALIASES.get(plain(name), name)


def plain(text: str) -> str:
    """Letters and digits only, of any alphabet, lower case: what two spellings of one name have in common."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


@dataclass(frozen=True)
class Panel:
    """A panel.csv, as steinbock has it (channel, name, keep) or ImcSegmentationPipeline (Metal Tag, Target, full)."""

    path: Path
    rows: tuple[tuple[str, str, bool], ...]  # isotope or label in the file, name, kept

    COLUMNS: ClassVar = (("channel", "metal tag"), ("name", "target"), ("keep", "full"))
    # "1.0": what software makes of a column with a gap.
    KEPT: ClassVar = dict.fromkeys(("1", "1.0", "true", ""), True) | dict.fromkeys(("0", "0.0", "false"), False)

    @classmethod
    def read(cls, path: Path) -> Panel:
        """A panel.csv. CohortError if it is no such table, or names a channel twice."""
        table = read_table(path)
        table.columns = table.columns.str.lower()
        channel, name, keep = (next((n for n in names if n in table), None) for names in cls.COLUMNS)
        if not (channel and name):
            raise CohortError(
                f"{path}: columns {', '.join(table.columns)}; wanted channel (isotope, or the name in the file) and "
                "name (the protein). Rename or add them."
            )
        kept = table[keep].str.lower() if keep else pd.Series("1", table.index)
        if unknown := sorted(set(kept) - set(cls.KEPT)):
            raise CohortError(f"{path}: {keep} is {', '.join(unknown)} in a row. Write 1 to keep it or 0 to drop it.")
        rows = list(zip(table[channel], table[name], map(cls.KEPT.get, kept), strict=True))
        names = [formats.metal(c) or plain(c) for c, _, _ in rows if c]
        if twice := sorted({c for c in names if names.count(c) > 1}):
            raise CohortError(f"{path}: channel {', '.join(twice)} stands twice. Keep one row for each channel.")
        return cls(path, tuple(rows))

    def protein(self, channel: Channel, n_channels: int) -> str | None:
        """What a channel is taken for: by isotope or label, or by place in a stack without names; None if dropped.

        n_channels: of its file. CohortError for a stack without names that has another number of channels.
        """
        label = channel.label
        if label is None:
            kept = [row for row in self.rows if row[2]]
            if len(kept) != n_channels:
                raise CohortError(
                    f"{channel.path}: {n_channels} channels without names, but {self.path.name} keeps {len(kept)}. "
                    "Keep one row for each channel of the file, in its order."
                )
            return protein(kept[channel.index][1] or kept[channel.index][0])
        for name, target, kept in self.rows:
            if (channel.metal and formats.metal(name) == channel.metal) or (name and plain(name) == plain(label)):
                return protein(target or label) if kept else None
        return protein(label)


def read_table(path: Path) -> pd.DataFrame:
    """A comma-separated table as text without spaces around it, nothing guessed. CohortError if it is none."""
    with formats.named(path, "cannot be read as a table", "Save it as comma-separated text, in UTF-8."):
        # index_col: a row with one cell too many would else shift all the others.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
        if len(table.columns) == 1 and (found := next((c for c in ";\t" if c in table.columns[0]), None)):
            raise ValueError(f"its cells are separated by {'semicolons' if found == ';' else 'tabs'}")
        table = table.fillna("")  # rows that end early
        table.columns = table.columns.str.strip()
        return table.apply(lambda column: column.str.strip())
