"""Figures of several panels of the honest evaluation, and the sentence where the data do not allow one."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mitolib import figures
from mitolib.metrics import Estimate

EFFECTS = pd.DataFrame({"label": ["control", "patient"], "before": [0.1, 0.9], "after": [0.7, 0.2]})


def test_a_section_is_shown_under_each_split_with_one_key():
    by_split = {split: (np.array([[0, 1], [2, 3]], np.uint8), 50) for split in ("published", "no-overlap")}
    fig = figures.people.coverage(np.zeros((120, 130), np.uint8), by_split, fig=plt.figure(), name="P01")
    assert [ax.get_title() for ax in fig.axes] == ["P01, published", "P01, no-overlap"] and len(fig.legends) == 1


def test_every_score_has_a_panel_with_the_models_and_one_key_of_the_splits():
    by_split = {split: {"A": Estimate(0.7, (0.6, 0.8)), "B": Estimate(0.5)} for split in ("published", "pairs")}
    fig = figures.people.scores_by_split({"accuracy": by_split, "AUC": by_split}, fig=plt.figure())
    assert [ax.get_xlabel() for ax in fig.axes] == ["accuracy", "AUC"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["published", "pairs"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["A", "B"]


def test_twins_have_a_column_for_each_model_and_a_row_for_each_split():
    effects = {"A": {"published": EFFECTS, "pairs": EFFECTS}, "B": {"published": EFFECTS}}
    fig = figures.people.twin_panels(effects, {"published": "seen", "pairs": "not seen"}, fig=plt.figure())
    drawn = [len([line for line in ax.lines if line.get_marker() == "o"]) for ax in fig.axes]
    assert drawn == [2, 2, 2, 0]
    assert [ax.get_title() for ax in fig.axes[:2]] == ["A", "B"]
    assert [fig.axes[row].get_ylabel() for row in (0, 2)] == ["p(patient), seen", "p(patient), not seen"]


@pytest.mark.parametrize(
    "drawn",
    [
        lambda fig: figures.people.shared({}, ax=fig.subplots()),
        lambda fig: figures.people.coverage(np.zeros((9, 9)), {}, fig=fig),
        lambda fig: figures.people.twin_panels({}, {"published": "seen"}, fig=fig),
    ],
)
def test_where_there_is_nothing_to_draw_a_sentence_says_why(drawn):
    fig = plt.figure()
    drawn(fig)
    (ax,) = fig.axes
    assert ax.texts[0].get_text().startswith("Left out: ") and not ax.axison
