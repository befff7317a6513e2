from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mitolib import plots


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_the_confusion_matrix_shows_each_count_where_it_belongs():
    ax = plots.confusion([[3, 1], [0, 9]], ax=plt.subplots()[1])
    assert texts(ax) == ["3", "1", "0", "9"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("truth", "predicted")


def test_the_curves_are_the_history():
    history = pd.DataFrame(
        {"accuracy": [0.5, 0.7], "loss": [1, 0.5], "val_accuracy": [0.4, 0.6], "val_loss": [1.1, 0.7]}, index=[1, 2]
    )
    axes = plots.curves(history, axes=plt.subplots(1, 2)[1], baseline=0.73)
    lines = {line.get_label(): list(line.get_ydata()) for line in axes[0].lines}
    assert lines["training"] == [0.5, 0.7] and lines["validation"] == [0.4, 0.6]
    assert lines["majority class"] == [0.73, 0.73]


def test_wrong_calls_are_named_wrong():
    rows = pd.DataFrame(
        {
            "subject": ["C01", "P01"],
            "label": ["control", "patient"],
            "p_patient": [0.9, 0.8],
            "predicted": ["patient", "patient"],
        }
    )
    axes = plots.predictions(np.zeros((2, 4, 4)), rows, axes=plt.subplots(1, 2)[1])
    assert texts(axes[0]) == ["p(patient) 0.90: WRONG"] and texts(axes[1]) == ["p(patient) 0.80: right"]


def test_frozen_layers_are_drawn_by_stage_and_trained_ones_singly():
    summary = pd.DataFrame(
        {
            "layer": ["block1_conv1", "block1_conv2", "dense_8", "dense_4"],
            "output": ["4 x 4", "2 x 2", "8", "4"],
            "parameters": [10, 20, 30, 40],
            "trained": [False, False, True, True],
        }
    )
    ax = plots.layers(summary, ax=plt.subplots()[1])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["block1", "dense_8", "dense_4"]
    assert [bar.get_width() for bar in ax.patches[:3]] == [30, 30, 40]


def test_fibres_take_the_colour_of_their_class_and_data_without_truth_say_so():
    labels_yx = np.array([[0, 1], [2, 2]], np.uint16)
    ax = plots.deficiency((labels_yx, pd.Series(["none", "CI"], index=[1, 2])), ax=plt.subplots()[1])
    assert ax.images[0].get_array().tolist() == [[0, 1], [2, 2]]
    assert texts(ax) == ["CI 50%"], "the share of fibres, not of pixels"
    assert texts(plots.deficiency(None, ax=plt.subplots()[1])) == ["these data come without ground truth"]


def test_axes_left_over_in_a_gallery_are_blank():
    axes = plots.gallery({"one": np.zeros((2, 2))}, axes=plt.subplots(1, 2)[1])
    assert axes[0].get_title() == "one" and not axes[1].axison


def test_every_patch_of_the_grid_is_outlined():
    rows = pd.DataFrame({"x": [0, 1, 2], "y": [0, 0, 0], "size": [2, 2, 2]})
    ax = plots.patch_grid(np.zeros((2, 4)), rows, ax=plt.subplots()[1])
    assert [(p.get_x(), p.get_width()) for p in ax.patches] == [(0, 2), (1, 2), (2, 2)]
