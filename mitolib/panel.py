"""Which protein a channel shows: the spellings of the field, and panel.csv of a data folder."""

from __future__ import annotations

import re
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
    words = [word for word in re.split(r"[\s_()\[\]]+", label) if word and not formats.metal(word)]
    name = " ".join(words) or label.strip()
    return ALIASES.get(plain(name), name)


def plain(text: str) -> str:
    """Letters and digits only, lower case: what two spellings of one name have in common."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


@dataclass(frozen=True)
class Panel:
    """A panel.csv, as steinbock has it (channel, name, keep) or ImcSegmentationPipeline (Metal Tag, Target, full)."""

    path: Path
    rows: tuple[tuple[str, str, bool], ...]  # isotope or label in the file, name, kept

    COLUMNS: ClassVar = (("channel", "metal tag"), ("name", "target"), ("keep", "full"))

    @classmethod
    def read(cls, path: Path) -> Panel:
        """A panel.csv. CohortError if it is no such table, or names a channel twice."""
        table = read_table(path)
        table.columns = table.columns.str.strip().str.lower()
        channel, name, keep = (next((n for n in names if n in table), None) for names in cls.COLUMNS)
        if not (channel and name):
            raise CohortError(
                f"{path}: columns {', '.join(table.columns)}; wanted channel (isotope, or the name in the file) and "
                "name (the protein). Rename or add them."
            )
        kept = table[keep].str.strip() != "0" if keep else pd.Series(True, table.index)
        rows = [(c.strip(), n.strip(), bool(k)) for c, n, k in zip(table[channel], table[name], kept, strict=True)]
        names = [plain(c) for c, _, _ in rows if c]
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
            if (channel.metal and formats.metal(name) == channel.metal) or plain(name) == plain(label):
                return protein(target or label) if kept else None
        return protein(label)


def read_table(path: Path) -> pd.DataFrame:
    """A comma-separated table as text, nothing guessed. CohortError if it is none."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CohortError(f"{path}: cannot be read as a table ({reason}). Save it as comma-separated text.") from error
