from __future__ import annotations

import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np

from mitolib.figures import prototypes


def shown(title: str = "P01") -> SimpleNamespace:
    deficient = np.zeros((64, 64), bool)
    deficient[10:30, 10:30] = True
    picture = np.full((64, 64), 90, np.uint8)
    return SimpleNamespace(
        picture_yx=picture, deficient_yx=deficient, place_yx=(20.0, 30.0), squares_px=(4.0, 14.0, 56.0), title=title
    )


def test_a_place_has_three_squares_around_it():
    _, ax = plt.subplots()
    prototypes.place(shown(), ax=ax)
    assert [patch.get_width() for patch in ax.patches] == [4, 14, 56]
    assert all(
        (patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2) == (30, 20)
        for patch in ax.patches
    )


def test_similarity_maps_share_one_scale():
    _, axes = plt.subplots(2, 3)
    prototypes.explained([(shown(), shown())] * 2, np.ones((2, 7, 7)), highest=9.21, axes=axes)
    assert all(row[1].images[0].get_clim() == (0, 9.21) for row in axes)


def test_the_contact_sheet_is_a_whole_table_without_scripts_and_asks_nothing_of_the_network():
    row = {"prototype": 0, "child": "patient", "subject": "P<1>", "section": "P01", "weights": {"patient": 2.5}}
    row |= {
        "fibre": None,
        "deficient_in_cell": 0.25,
        "deficient_in_field": None,
        "purity": None,
        "share_top": 0.1,
        "purity_at_random": None,
    }
    html = prototypes.contact_sheet([row, row], [shown(), shown()])
    assert html.count("<tr>") == 3 and html.count("<th ") == 1 + len(prototypes.COLUMNS)
    assert "P&lt;1&gt;" in html and '<td data-sort="2.5">2.50</td>' in html and '<td data-sort="">-</td>' in html
    assert not re.search(r"https?:|<script", html) and html.count('src="data:image/webp') == 2
