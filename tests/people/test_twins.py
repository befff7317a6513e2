"""Twins: where they stand, where they are tested, and what models say of them."""

from __future__ import annotations

from unittest.mock import ANY

import numpy as np
import pandas as pd
import pytest

from mitolib.people import twins
from mitolib.people.evaluation import Evaluation, out_of_fold
from mitolib.people.protocols import SEEN, UNSEEN


def patch_table() -> pd.DataFrame:
    """Two patches of a control and three of two patients; the index no range."""
    return pd.DataFrame(
        {"subject": list("CCPPQ"), "label": ["control"] * 2 + ["patient"] * 3, "x": range(5)}, index=[7, 3, 9, 1, 4]
    )


def test_every_patch_has_one_twin_and_knows_what_its_pixels_deserve():
    twinned = twins.with_twins(patch_table())
    assert twinned.index.tolist() == list(range(10))
    assert twinned["twin"].tolist() == [""] * 5 + ["cured"] * 3 + ["afflicted"] * 2
    assert twinned["origin"].tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 0, 1]
    assert twinned["taught"].tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 1, 1]
    kept = ["subject", "label", "x"]
    assert (twinned[kept].to_numpy() == patch_table()[kept].to_numpy()[twinned["origin"]]).all()


@pytest.mark.parametrize(("kinds", "origins"), [(["cured"], [2, 3, 4]), (["afflicted"], [0, 1]), ([], [])])
def test_a_twin_that_was_not_drawn_has_no_row(kinds, origins):
    twinned = twins.with_twins(patch_table(), kinds)
    assert twinned["origin"].tolist() == [*range(5), *origins] and set(twinned["twin"][5:]) == set(kinds)


def test_twins_are_tested_with_their_patches_and_never_train():
    split = pd.Series(["train", "test", "test", "validation", ""], patch_table().index)
    twinned = twins.with_twins(patch_table())
    found = twins.tested_with_twins(split, twinned)
    assert found.index.equals(twinned.index) and found.name == "split"
    assert found.tolist() == [*split, "test", "", "", "", "test"]


def test_the_effect_of_twins_is_the_mean_answer_before_and_after_for_each_subject():
    twinned = twins.with_twins(patch_table())
    p = dict(zip(range(10), [0.1, 0.2, 0.9, 0.8, 0.6, 0.3, 0.1, 0.5, 0.7, 0.8], strict=True))
    rows = [0, 1, 8, 9, 2, 3, 5, 6, 4, 7]
    answers = pd.DataFrame({"row": rows, "subject": twinned["subject"][rows], "twin": twinned["twin"][rows], "fold": 0})
    answers["p"], answers["truth"] = answers["row"].map(p), (answers["subject"] != "C").astype(int)
    again = answers.assign(p=answers["p"] + 0.1, fold=1)
    found = twins.effect_of_twins(pd.concat([answers, again], ignore_index=True))
    assert found.index.tolist() == ["C", "P", "Q"] and found["label"].tolist() == ["control", "patient", "patient"]
    assert found["before"].tolist() == pytest.approx([0.2, 0.9, 0.65])
    assert found["after"].tolist() == pytest.approx([0.8, 0.25, 0.55])


def test_controls_stand_first_in_the_effect_of_twins_whatever_their_name():
    table = pd.DataFrame({"subject": ["Z", "A"], "label": ["control", "patient"]})
    twinned = twins.with_twins(table)
    split = twins.tested_with_twins(pd.Series(["test", "test"]), twinned)
    answers = out_of_fold(lambda train, test: test / 100, twinned, [split])
    found = twins.effect_of_twins(answers)
    assert found.index.tolist() == ["Z", "A"] and set(found) == {"label", "before", "after"}
    assert found["before"].tolist() == [0, 0.01] and found["after"].tolist() == [0.03, 0.02]


def effects(*rows: tuple[str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["label", "before", "after"])


def test_what_the_disease_contributes_is_the_fall_by_the_cure_over_the_distance_of_the_classes():
    controls = [("control", 0.1, 0.9), ("control", 0.3, 0.4), ("control", 0.6, 0.8)]
    patients = [("patient", 0.9, 0.3), ("patient", 0.8, 0.6), ("patient", 0.7, 0.5), ("patient", 0.4, 0.2)]
    found = twins.disease_contribution(effects(*controls, *patients))
    assert {name: found.pop(name) for name in ("fall", "share", "rise")} == {
        "fall": {"value": pytest.approx(1.2 / 4), "ci": ANY, "n": 4},
        "share": pytest.approx(0.3 / (0.7 - 1 / 3)),
        "rise": pytest.approx(1.1 / 3),
    }
    low, high = twins.disease_contribution(effects(*controls, *patients))["fall"]["ci"]
    assert 0 < low < 0.3 < high
    assert found == {"turned": 2, "called": 3, "afflicted_turned": 1, "afflicted_called": 2}


@pytest.mark.parametrize(("apart", "share"), [(0.04, None), (-0.3, None), (0.5, pytest.approx(0.2))])
def test_classes_that_no_model_tells_apart_have_no_share(apart, share):
    found = twins.disease_contribution(effects(("control", 0.4, 0.4), ("patient", 0.4 + apart, 0.3 + apart)))
    assert found["share"] == share


def evaluation_of(models: list[str], split_names: list[str]) -> Evaluation:
    """Everybody is right before the change and wrong after it; the patient of P stays a patient."""
    twinned = twins.with_twins(patch_table())
    split = twins.tested_with_twins(pd.Series("test", range(5)), twinned)
    p = np.where((twinned["taught"] == 1) | (twinned["subject"] == "P"), 0.75, 0.25)
    answers = out_of_fold(lambda train, test: p[test], twinned, [split])
    return Evaluation([], {model: dict.fromkeys(split_names, answers) for model in models})


def test_the_effects_are_of_all_models_but_the_majority_on_people_seen_and_not_seen():
    result = evaluation_of(["majority", "VGG16 head", "mean SDHA"], [SEEN, "no-overlap", UNSEEN])
    effects_of_twins = twins.twin_effects(result)
    contributions = effects_of_twins.contributions()
    assert list(contributions) == ["VGG16 head", "mean SDHA"]
    assert all(list(by_split) == [SEEN, UNSEEN] for by_split in contributions.values())
    assert contributions["VGG16 head"][SEEN] == {
        **{
            "fall": {"value": pytest.approx(0.25), "ci": None, "n": 2},
            "share": pytest.approx(0.5),
            "turned": 1,
            "called": 2,
        },
        **{"rise": pytest.approx(0.5), "afflicted_turned": 1, "afflicted_called": 1},
    }
    person = effects_of_twins.people()["mean SDHA"][UNSEEN]["Q"]
    assert person == {"label": "patient", "before": 0.75, "after": 0.25}
    assert effects_of_twins.table().data.index.tolist()[0] == ("VGG16 head", SEEN)


def test_data_without_twins_have_no_effects_and_say_so():
    answers = evaluation_of(["VGG16 head"], [SEEN]).predictions["VGG16 head"][SEEN]
    themselves = answers[answers["twin"] == ""]
    effects_of_twins = twins.twin_effects(Evaluation([], {"VGG16 head": {SEEN: themselves}}))
    assert effects_of_twins.contributions() == effects_of_twins.people() == {}
    assert "Left out" in effects_of_twins.table()._repr_markdown_()


def test_the_fall_of_each_patient_not_seen_stands_beside_the_share_of_deficient_fibres():
    effects_of_twins = twins.twin_effects(evaluation_of(["VGG16 head"], [SEEN, UNSEEN]))
    found = effects_of_twins.by_share(pd.Series({"P": 0.1, "Q": 0.6, "C": 0.0}))
    assert found["VGG16 head"].to_dict("index") == {"P": {"share": 0.1, "fall": 0}, "Q": {"share": 0.6, "fall": 0.5}}
    assert effects_of_twins.correlations(pd.Series({"P": 0.1, "Q": 0.6}))["VGG16-head"]["p"] is None, "two patients"
    assert effects_of_twins.by_share(pd.Series(dtype=float)) == {}
    assert "Left out" in effects_of_twins.correlation_table(pd.Series(dtype=float))._repr_markdown_()
