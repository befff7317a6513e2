"""Figures of several panels of the honest evaluation, and the sentence where the data do not allow one."""

from __future__ import annotations

from types import SimpleNamespace

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


def test_a_curve_has_a_panel_for_each_head_a_line_for_each_split_and_the_budget():
    by_steps = {10: Estimate(0.5, (0.4, 0.6)), 100: Estimate(0.7)}
    estimates = {head: {"published": by_steps, "paired-folds": by_steps} for head in ("A", "B")}
    names = {"published": "seen", "paired-folds": "held out"}
    fig = figures.people.curves(estimates, steps=50, names=names, fig=plt.figure())
    assert [ax.get_title() for ax in fig.axes] == ["A", "B"]
    lines = {line.get_label(): line for line in fig.axes[1].lines}
    assert list(lines["seen"].get_xdata()) == [10, 100] and list(lines["held out"].get_ydata()) == [0.5, 0.7]
    assert any(list(line.get_xdata()) == [50, 50] for line in fig.axes[0].lines)


def test_grey_levels_are_drawn_as_shares_up_to_each():
    groups = {group: np.full(256, 1 / 256) for group in ("controls", "patients", "cured", "afflicted")}
    fig = figures.people.grey_levels({"SDHA": groups, "NDUFB8": groups}, fig=plt.figure())
    assert [ax.get_title() for ax in fig.axes] == ["SDHA", "NDUFB8"] and len(fig.axes[0].lines) == 4
    assert fig.axes[0].lines[0].get_ydata()[-1] == pytest.approx(1)


def test_every_patient_s_point_has_a_name():
    patients = pd.DataFrame({"share": [0.02, 0.5], "fall": [0.0, 0.4]}, index=["P03", "P01"])
    fig = figures.people.fall_by_share({"A": patients, "B": patients}, fig=plt.figure())
    assert [[text.get_text() for text in ax.texts] for ax in fig.axes] == [["P03", "P01"]] * 2
    assert list(fig.axes[0].lines[0].get_xdata()) == [2, 50]


@pytest.mark.parametrize(
    "drawn",
    [
        lambda fig: figures.people.shared({}, ax=fig.subplots()),
        lambda fig: figures.people.coverage(np.zeros((9, 9)), {}, fig=fig),
        lambda fig: figures.people.twin_panels({}, {"published": "seen"}, fig=fig),
        lambda fig: figures.people.grey_levels({}, fig=fig),
        lambda fig: figures.people.fall_by_share({}, fig=fig),
    ],
)
def test_where_there_is_nothing_to_draw_a_sentence_says_why(drawn):
    fig = plt.figure()
    drawn(fig)
    (ax,) = fig.axes
    assert ax.texts[0].get_text().startswith("Left out: ") and not ax.axison


def test_three_places_and_their_majorities_stand_on_one_axis():
    scores = {"published": {"VGG16": Estimate(0.95)}, "new people": {"VGG16": Estimate(0.6, (0.5, 0.7))}}
    ax = figures.people.on_one_scale(scores, {"published": 0.73, "new people": 0.5}, ax=plt.figure().subplots())
    dotted = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert dotted == [0.73, 0.5] and [label.get_text() for label in ax.get_yticklabels()] == ["VGG16"]


def test_calibration_has_a_panel_for_each_model_and_blank_ones_beside():
    bins = [{"p": 0.1, "patients": 0.0, "n": 4}, {"p": 0.9, "patients": 1.0, "n": 4}]
    fig = figures.people.calibration({f"model {i}": bins for i in range(6)}, fig=plt.figure())
    assert len(fig.axes) == 8 and sum(ax.axison for ax in fig.axes) == 6


@pytest.mark.parametrize(("least", "scale"), [(0.01, "log"), (None, "linear")])
def test_a_score_against_the_number_of_people_has_a_line_for_each_model(least, scale):
    by_size = {4: Estimate(0.5, (0.4, 0.6)), 8: Estimate(0.0), 16: Estimate(None)}
    groups = {"as published": {"A": by_size, "B": by_size}, "fibres": {"C": by_size}}
    fig = figures.people.by_cohort_size(groups, ylabel="error", least=least, level=0.8, fig=plt.figure())
    first, second = (ax for ax in fig.axes if ax.axison)
    assert [ax.get_title() for ax in fig.axes] == list(groups) and first.get_yscale() == scale
    assert [text.get_text() for text in second.get_legend().get_texts()] == ["C"]
    drawn = first.lines[0]
    assert list(drawn.get_xdata()) == [4, 8] and min(drawn.get_ydata()) == (least or 0)


def test_pictures_of_both_groups_are_windows_of_a_control_and_a_patient():
    def section(name: str):
        grey = np.full((500, 600), 7, np.uint8)
        return SimpleNamespace(subject=name, height_px=500, width_px=600, image_yx=lambda protein: grey)

    groups = {
        "of the fourteen": [section("C01"), section("C02"), section("P01")],
        "new": [section("1C"), section("1P")],
    }
    pictures = figures.people.side_by_side(groups, ("SDHA", "VDAC1"))
    assert list(pictures)[:3] == [
        "of the fourteen: C01, SDHA",
        "of the fourteen: C01, VDAC1",
        "of the fourteen: P01, SDHA",
    ]
    assert len(pictures) == 8 and {picture.shape for picture in pictures.values()} == {(384, 384)}
