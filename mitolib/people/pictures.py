"""Whether the pictures of twins pass for those of people: what was compared, told by kind of twin and protein."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mitolib.cohort import Section
from mitolib.own_data import LeftOut
from mitolib.progress import track

MEASURES = {"level": "{:.0f}", "saturated": "{:.1%}", "black": "{:.1%}"}
ALTERED = {"cured": "patient", "afflicted": "control"}  # kind of twin -> whose it is
GREYS = 256


@dataclass(frozen=True)
class TwinPictures:
    """Pictures of twins beside those of people. compared: as `phantom.compare_twins` gives it; None without twins."""

    compared: pd.DataFrame | None

    def table(self) -> pd.DataFrame | LeftOut:
        """A row for each kind of twin and protein: the range of people and of twins, how many twins lie within."""
        if self.compared is None:
            return LeftOut("these data have no twins.")
        of_people = self.compared[self.compared["twin"] == ""].groupby("protein", sort=False)
        rows = {}
        for (kind, protein), twins in self._of_twins():
            people = of_people.get_group(protein)
            row = {}
            for measure, form in MEASURES.items():
                row[f"{measure}, people"] = _ends(people[measure], form)
                row[f"{measure}, twins"] = _ends(twins[measure], form)
            rows[kind, protein] = row | {"within": f"{twins['within'].sum()} of {len(twins)}"}
        return pd.DataFrame(rows).T.rename_axis(["twin", "protein"])

    def outside(self) -> str:
        """Markdown: which pictures of twins lie outside the range of people, in which measure."""
        if self.compared is None:
            return ""
        lines = []
        for (kind, protein), twins in self._of_twins():
            for measure, form in MEASURES.items():
                rows = twins[~twins[f"{measure}_within"]]
                if len(rows):
                    named = (f"{row['section']} ({form.format(row[measure])})" for _, row in rows.iterrows())
                    lines.append(f"- {kind}, {protein}, {measure}: {', '.join(named)}")
        heading = "Outside the range of people:" if lines else "No picture of a twin lies outside the range of people."
        return "\n".join([heading, "", *lines])

    def record(self) -> dict[str, Any]:
        """For a results file: by kind of twin, pictures and how many lie within, by measure and in all three."""
        if self.compared is None:
            return {}
        columns = [f"{measure}_within" for measure in MEASURES] + ["within"]
        of_twins = self.compared[self.compared["twin"] != ""]
        return {
            kind: {"pictures": len(rows)} | {column: int(rows[column].sum()) for column in columns}
            for kind, rows in of_twins.groupby("twin", sort=False)
        }

    def _of_twins(self) -> list[tuple[tuple[str, str], pd.DataFrame]]:
        of_twins = self.compared[self.compared["twin"] != ""]
        return list(of_twins.groupby(["twin", "protein"], sort=False))


def _ends(values: pd.Series, form: str) -> str:
    return f"{form.format(values.min())} to {form.format(values.max())}"


def grey_levels(sections: Mapping[str, Sequence[Section]], proteins: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Protein -> controls, patients, and kinds of twins -> (256,) share of the pixels at each grey, mean over sections.

    sections: by kind of twin, "" for the people themselves.
    """
    groups = {f"{label}s": [s for s in sections[""] if s.label == label] for label in ("control", "patient")}
    groups |= {kind: [s for s in sections[kind] if s.label == ALTERED[kind]] for kind in sections if kind}
    found: dict[str, dict[str, np.ndarray]] = {}
    for protein in track(proteins, "grey levels", len(proteins)):
        for group, members in groups.items():
            shares = [np.bincount(s.image_yx(protein).ravel(), minlength=GREYS) for s in members]
            found.setdefault(protein, {})[group] = np.mean([share / share.sum() for share in shares], axis=0)
    return found
