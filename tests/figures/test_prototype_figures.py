from __future__ import annotations

import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mitolib import claims, own_data
from mitolib.figures import pages, prototypes
from mitolib.metrics import Estimate


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


def test_relevance_and_the_box_are_drawn_at_the_size_of_the_patch():
    _, axes = plt.subplots(1, 3, squeeze=False)
    patch = SimpleNamespace(shown=shown(), similarity=np.eye(7), box=(0.0, 0.5, 0.25, 1.0), relevance=np.eye(32))
    prototypes.looked_at([patch], highest=9.21, axes=axes)
    box = axes[0, 1].patches[0]
    assert box.get_bbox().bounds == (16, 0, 48, 32), "a quarter, half and whole of 64 px"
    assert axes[0, 2].images[0].get_extent() == [0, 64, 64, 0]


def test_panels_share_their_rows_and_stay_empty_where_a_map_has_no_score():
    _, axes = plt.subplots(1, 2)
    scores = {"finds": {"PRP": Estimate(0.2, (0.1, 0.4)), "Sobel": Estimate(0.1)}, "ranks": {"Sobel": Estimate(0.3)}}
    prototypes.panels(scores, {"finds": 0.0}, axes=axes)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["PRP", "Sobel"]
    assert axes[1].lines[-1].get_ydata() == [1] and len(axes[1].lines) == 2
    _, empty = plt.subplots(1, 1, squeeze=False)
    prototypes.panels({"no held-out patches of patients": {}}, {}, axes=empty[0])
    assert not empty[0, 0].axison


def test_the_contact_sheet_has_a_picture_for_each_prototype_and_no_frame_beyond():
    _, axes = plt.subplots(prototypes.sheet_rows(6), 5)
    prototypes.contact_sheet([shown(f"{i}") for i in range(6)], axes=axes)
    assert [ax.axison for ax in axes.ravel()] == [True] * 6 + [False] * 4


def test_the_table_of_prototypes_is_a_whole_table_without_scripts_without_scripts_and_asks_nothing_of_the_network():
    row = {"prototype": 0, "child": "patient", "subject": "P<1>", "section": "P01", "weights": {"patient": 2.5}}
    row |= {
        "fibre": None,
        "deficient_in_cell": 0.25,
        "deficient_in_field": None,
        "purity": None,
        "share_top": 0.1,
        "purity_at_random": None,
    }
    html = prototypes.prototype_table([row, row], [shown(), shown()])
    assert html.count("<tr>") == 3 and html.count("<th ") == 1 + len(prototypes.COLUMNS)
    assert "P&lt;1&gt; (P01)" in html and '<td data-sort="2.5">2.50</td>' in html and '<td data-sort="">-</td>' in html
    assert not re.search(r"https?:|<script", html) and html.count('src="data:image/webp') == 2


def test_of_many_conclusions_those_that_stay_open_are_in_a_closed_box():
    answers = {str(i): claims.Answer(claims.OPEN if i % 2 else claims.HOLDS, f"Sentence {i}.") for i in range(14)}
    shown, box = pages.conclusions(answers).split(":::{admonition} Questions that stay open: 7")
    assert "1. Sentence 0." in shown and "7. Sentence 12." in shown and "7. Sentence 13." in box
    assert ":::" not in pages.conclusions(dict(list(answers.items())[:12]))


def test_tables_that_few_need_are_folded_and_a_pipe_does_not_end_a_cell():
    assert "| y | - |" in pages.folded("More", pd.DataFrame({"x": [np.nan]}, index=["y"]))
    table = pd.DataFrame({"a|b": [0.126, 2.0]}, index=pd.Index(["x", "y|z"], name="row"))
    text = pages.folded("More", table, table)
    assert text.startswith(":::{admonition} More\n:class: tip, dropdown\n\n| row |") and text.endswith("\n:::")
    assert pages.folded("More", own_data.LeftOut("no table")) == "Left out: no table"
    styled = pages.folded("More", table.style.format("{:.1f}"), own_data.LeftOut("no table"))
    assert "<td" in styled and ">0.1<" in styled and "no table" in styled and "\n\n<" not in styled[60:]
    assert text.count("| x | 0.13 |") == 2 and r"| y\|z | 2.00 |" in text and text.count("\n\n| row") == 2
