"""panel.csv of a data folder: which channel is which protein, where the names in the files do not say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from mitolib.images.channel import Channel, CohortError
from mitolib.images.names import metal, plain, protein
from mitolib.images.tables import read_table


@dataclass(frozen=True)
class Panel:
    """A panel.csv, as steinbock has it (channel, name, keep) or ImcSegmentationPipeline (Metal Tag, Target, full)."""

    path: Path
    rows: tuple[tuple[str, str, bool], ...]  # isotope or label in the file, name, kept

    COLUMNS: ClassVar = (("channel", "metal tag"), ("name", "target"), ("keep", "full"))
    # "1.0": what software makes of a column with a gap; "1,0" with decimal commas.
    KEPT: ClassVar = dict.fromkeys(("1", "1.0", "1,0", "true", "yes", ""), True) | dict.fromkeys(
        ("0", "0.0", "0,0", "false", "no"), False
    )

    @classmethod
    def read(cls, path: Path) -> Panel:
        """A panel.csv. CohortError if it is no such table, or names a channel twice."""
        table = read_table(path)
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
        names = [metal(c) or plain(c) for c, _, _ in rows if c]
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
            if (channel.metal and metal(name) == channel.metal) or (name and plain(name) == plain(label)):
                return protein(target or label) if kept else None
        return protein(label)
