"""Labels dealt out anew, and whether features name the person."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from mitolib import cohort, patches
from mitolib.people import controls, protocols
from mitolib.people.material import Patches
from mitolib.people.twins import with_twins
from mitolib.study import EXP1


def test_a_probe_names_subjects_that_differ_and_chance_is_the_commonest_in_the_test_set(rng):
    subjects = np.repeat(list("ABC"), [30, 20, 10])
    features = np.eye(3)[np.repeat([0, 1, 2], [30, 20, 10])] + 0.05 * rng.standard_normal((60, 3))
    split = pd.Series(np.where(np.arange(60) % 5 == 0, "test", "train"))
    split[0] = ""
    found = controls.named(features, subjects, split)
    assert found["right"].tolist() == [1] * 11 and found["chance"] == pytest.approx(5 / 11)
    assert found["subjects"] == subjects[(split == "test").to_numpy()].tolist()
    swapped = np.where((split == "test").to_numpy()[:, None], features[:, [1, 0, 2]], features)
    assert controls.named(swapped, subjects, split)["right"].mean() == pytest.approx(2 / 11)
    noise = controls.named(rng.standard_normal((60, 3)), subjects, split)
    assert noise["right"].mean() < 0.8 and noise["chance"] == found["chance"]


def test_the_table_of_shuffled_labels_has_the_mean_and_the_ends_of_the_draws():
    scores = {"agreement": 0.5, "auc_subject": 0.5}
    entries = [
        {"model": "VGG16 head", "split": "published", "draw": draw, "balanced_accuracy": score} | scores
        for draw, score in enumerate([0.25, 0.75, 0.8])
    ]
    found = controls.ShuffledLabels(entries, {"no-overlap": "Too few."})
    (row,) = found.table().to_dict("records")
    assert row["draws"] == 3 and row["balanced accuracy of patches"] == "0.60 (0.25 to 0.80)"
    assert row["agreement with the true labels"] == "0.50 (0.50 to 0.50)" and "Too few." in found.refusals()
    assert found.means()["VGG16-head"]["published"]["balanced_accuracy"].value == pytest.approx(0.6)
    assert "Too few." in str(controls.ShuffledLabels([], {"no-overlap": "Too few."}).table())


def test_a_probe_of_nothing_says_why():
    assert "Left out" in controls.SubjectProbe({}).table()._repr_markdown_()


def cohort_of_patches() -> Patches:
    """The published cohort's grid, whose people have from a few to many patches."""
    table = patches.grid(cohort.published_sections(), stride_px=EXP1.stride_px)
    return Patches(EXP1, with_twins(table, []), {"": ()}, *protocols.available(table, "exp1"))


@pytest.mark.parametrize("split", [protocols.SEEN, protocols.NO_OVERLAP, protocols.UNSEEN])
def test_labels_dealt_out_anew_agree_with_the_truth_by_chance_on_the_patches_that_are_tested(split):
    part = cohort_of_patches()
    draws = controls.deal(part, split, n=5, seed=127)
    assert len(draws) == 5 and len({draw.labels.tobytes() for draw in draws}) == 5
    for draw in draws:
        tested = np.any([fold == "test" for fold in draw.folds], axis=0)
        agreement = balanced_accuracy_score(part.truth[tested], draw.labels[tested])
        assert draw.agreement == pytest.approx(agreement) and 0.45 <= agreement <= 0.55
        assert pd.Series(draw.labels).groupby(part.rows["subject"]).nunique().max() == 1, "a label is a person's"
        assert (draw.rows["label"] == np.array(["control", "patient"])[draw.labels]).all()


def test_labels_that_cannot_be_dealt_out_are_refused_with_the_reason():
    table = pd.DataFrame({"section": list("AABCC"), "subject": list("AABCC"), "y": 0, "x": range(5), "size": 512})
    table = table.assign(label=["control"] * 2 + ["patient"] * 3)
    part = Patches(
        EXP1, with_twins(table, []), {"": ()}, {"whole": [pd.Series(["test", "train", "test", "test", "train"])]}, {}
    )
    with pytest.raises(ValueError, match=r"0.45 and 0.55.*Add subjects"):
        controls.deal(part, "whole", n=2, seed=0)
