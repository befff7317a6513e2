"""Whether the pictures of twins pass for pictures of people: their grey levels beside those of everyone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mitolib.cohort import Section

ALTERED = {"cured": "patient", "afflicted": "control"}  # kind of twin -> whose sections it alters
MEASURES = ("level", "saturated", "black")


def compare_twins(sections: Sequence[Section], twins: Mapping[str, Sequence[Section]]) -> pd.DataFrame:
    """A row for each section and protein: the people, and below them their twins, cured patients or afflicted controls.

    sections: of the phantom itself. twins: by kind, "cured" or "afflicted", the sections of the twins; every protein of
    theirs must be among the phantom's. Columns: section, label, twin ("" for the people themselves), protein; level,
    the mean grey (0-255); saturated and black, the shares of pixels at 255 and at 0; and for each of the three whether
    it lies between the least and the greatest value of controls and patients alike in this protein: level_within,
    saturated_within, black_within, and within, all three. Of the people themselves they are True.

    Raises ValueError for a kind of twin that there is not, and without sections.
    """
    if unknown := set(twins) - set(ALTERED):
        raise ValueError(f"twins: found the kinds {sorted(unknown)}, wanted some of {list(ALTERED)}.")
    if not sections:
        raise ValueError("sections: found none, wanted those of the phantom. Read them with cohort.read_cohort.")
    of_people = pd.DataFrame(_rows(sections, ""))
    altered = [
        row
        for kind, of_kind in twins.items()
        for row in _rows([section for section in of_kind if section.label == ALTERED[kind]], kind)
    ]
    table = pd.concat([of_people, pd.DataFrame(altered)], ignore_index=True)
    by_protein = of_people.groupby("protein")[list(MEASURES)]
    least, greatest = (ends.loc[table["protein"]].to_numpy() for ends in (by_protein.min(), by_protein.max()))
    within = (least <= table[list(MEASURES)]) & (table[list(MEASURES)] <= greatest)
    return table.join(within.add_suffix("_within")).assign(within=within.all(axis=1))


def _rows(sections: Sequence[Section], kind: str) -> list[dict[str, str | float]]:
    rows = []
    for section in sections:
        for protein in section.channels:
            image_yx = section.image_yx(protein)
            share = np.bincount(image_yx.ravel(), minlength=256) / image_yx.size  # of the pixels at each grey
            rows.append(
                {
                    "section": section.section,
                    "label": section.label,
                    "twin": kind,
                    "protein": protein,
                    "level": float(share @ np.arange(256)),
                    "saturated": float(share[255]),
                    "black": float(share[0]),
                }
            )
    return rows
