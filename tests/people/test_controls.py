"""Labels dealt out anew, and whether features name the person."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mitolib.people import controls


def test_a_probe_names_subjects_that_differ_and_chance_is_the_commonest_in_the_test_set(rng):
    subjects = np.repeat(list("ABC"), [30, 20, 10])
    features = np.eye(3)[np.repeat([0, 1, 2], [30, 20, 10])] + 0.05 * rng.standard_normal((60, 3))
    split = pd.Series(np.where(np.arange(60) % 5 == 0, "test", "train"))
    split[0] = ""
    found = controls.named(features, subjects, split)
    assert found == {"accuracy": 1.0, "chance": pytest.approx(5 / 11)}
    swapped = np.where((split == "test").to_numpy()[:, None], features[:, [1, 0, 2]], features)
    assert controls.named(swapped, subjects, split)["accuracy"] == pytest.approx(2 / 11)
    noise = controls.named(rng.standard_normal((60, 3)), subjects, split)
    assert noise["accuracy"] < 0.8 and noise["chance"] == found["chance"]


def test_the_table_of_shuffled_labels_has_the_mean_and_the_ends_of_the_draws():
    entries = [
        {"model": "VGG16 head", "split": "published", "draw": draw, "balanced_accuracy": score, "auc_subject": 0.5}
        for draw, score in enumerate([0.25, 0.75, 0.8])
    ]
    (row,) = controls.ShuffledLabels(entries).table().to_dict("records")
    assert row["draws"] == 3 and row["balanced accuracy of patches"] == "0.60 (0.25 to 0.80)"


def test_a_probe_of_nothing_says_why():
    assert "Left out" in controls.SubjectProbe({}).table()._repr_markdown_()
