from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from toy_arms import BUDGET, EVERY, LABELS, MAPS, see, toy_network

from mitolib.whitening import detection, measures, real_concepts
from mitolib.whitening.detection import Detected

pytestmark = [
    pytest.mark.filterwarnings("ignore:the whitened means"),
    pytest.mark.usefixtures("one_torch_thread"),
]
SHORT = replace(BUDGET, steps=5, every=2)
SUBJECTS = np.array([f"S{i % 8}" for i in EVERY])
PARTS = ({"train": EVERY[:50], "validation": EVERY[50:65], "test": EVERY[65:]},)
PARTS += ({"train": EVERY[30:], "validation": EVERY[15:30], "test": EVERY[:15]},)


def measured() -> pd.DataFrame:
    """Two concepts: how much of channels 1 and 2 a map has."""
    means = MAPS.mean((2, 3)).numpy()
    return pd.DataFrame({"bright": means[:, 1], "coarse": means[:, 2]})


@pytest.fixture(scope="module")
def folds():
    return real_concepts.annotate_folds(measured(), PARTS)


@pytest.fixture(scope="module")
def trials(folds):
    by_fold = [{"SDHA": toy_network(), "composite": toy_network()} for _ in folds]
    return real_concepts.train_axes(folds, by_fold, LABELS, budget=SHORT, seeds=range(2))


@pytest.fixture(scope="module")
def aucs(trials):
    ranks = real_concepts.concept_ranks(trials, SUBJECTS)
    return real_concepts.detector_aucs(ranks, rng=np.random.default_rng(0))


def test_each_fold_annotates_by_its_own_training_patches(folds):
    first, second = folds
    assert [fold.number for fold in folds] == [0, 1]
    assert not first.annotation.equals(second.annotation)
    for fold in folds:
        assert all(set(rows) <= set(fold.rows["train"]) for rows in fold.concepts.values())
        for name, places in fold.tested().items():
            assert (fold.annotation[name].iloc[fold.rows["test"][places]] == 1).all()


def test_the_counts_are_of_the_first_fold_with_concepts(folds):
    without = real_concepts.annotate_folds(measured() * 0, PARTS[:1])
    counts = real_concepts.concept_counts([*without, *folds])
    assert counts["training patches for its axis"].tolist() == [len(rows) for rows in folds[0].concepts.values()]
    assert counts.loc["bright", "with it, of all patches"] == (folds[0].annotation["bright"] == 1).sum()


def test_what_keeps_axes_from_being_tried_is_said(folds):
    assert "2 people" in str(real_concepts.why_left_out([], people=2))
    without = real_concepts.annotate_folds(measured() * 0, PARTS)
    assert "no concept" in str(real_concepts.why_left_out(without, people=3))
    assert real_concepts.why_left_out(folds, people=3) is None


def test_both_arms_are_trained_for_each_fold_picture_and_seed(trials):
    assert [(trial.fold.number, trial.picture) for trial in trials] == [
        (number, picture) for number in (0, 1) for picture in ("SDHA", "composite")
    ]
    assert all(list(trial.arms) == ["BatchNorm", "D2"] for trial in trials)
    assert all(list(by_seed) == [0, 1] for trial in trials for by_seed in trial.arms.values())
    assert real_concepts.train_axes([], [], LABELS, budget=SHORT, seeds=[0]) == []


def test_every_detector_is_tried_on_the_test_patches_of_all_folds(trials, folds):
    ranks = real_concepts.concept_ranks(trials, SUBJECTS)
    assert set(ranks["detector"]) == {"axis", "best unit", "LDA", "probe"}
    assert (ranks["subject"] == SUBJECTS[ranks["row"]]).all() and ranks["rank"].between(0, 1).all()
    for (number, concept), group in ranks.groupby(["fold", "concept"]):
        known = folds[number].annotation[concept].iloc[folds[number].rows["test"]].notna()
        assert set(group["row"]) == set(folds[number].rows["test"][known])
    assert real_concepts.concept_ranks([], SUBJECTS).empty


def test_areas_come_by_picture_concept_and_detector(aucs):
    assert list(aucs) == ["SDHA", "composite"] and set(aucs["SDHA"]) == {"bright", "coarse"}
    table = real_concepts.auc_table(aucs)
    assert table.loc[("SDHA", "bright"), "axis"] == str(aucs["SDHA"]["bright"]["axis"])
    mean = real_concepts.mean_aucs(aucs)["SDHA"]["best_unit"]
    assert mean == pytest.approx(np.mean([found["best unit"].value for found in aucs["SDHA"].values()]))
    assert real_concepts.detector_aucs(pd.DataFrame(), rng=np.random.default_rng(0)) == {}


def test_the_findings_count_what_is_found_and_leave_out_pictures_without_a_defined_axis():
    defined = {
        name: Detected(value) for name, value in {"axis": 0.9, "best unit": 0.6, "LDA": 0.5, "probe": 0.8}.items()
    }
    undefined = dict.fromkeys(defined, Detected(None))
    found = {"SDHA": {"bright": defined, "coarse": undefined}, "composite": {"bright": undefined}}
    text = real_concepts.findings(found)
    assert text.count("\n") == 0 and "SDHA" in text and "0.90" in text and "1 of 2 concepts" in text
    assert real_concepts.has_defined_axis(found)
    assert not real_concepts.has_defined_axis({"composite": found["composite"]}) and real_concepts.findings({}) == ""


def test_importance_is_the_mean_over_folds(trials):
    rng, again = (np.random.default_rng(0) for _ in range(2))
    importance = real_concepts.importances(trials, LABELS, seed=0, rng=rng)
    assert importance.index.names == ["concept", "input"] and len(importance) == 4
    values = []
    for trial in trials:
        for axis, concept in enumerate(trial.fold.concepts):
            given = {"repeats": real_concepts.REPEATS, "rng": again}
            found = measures.importance(trial.arms["D2"][0], see, LABELS, trial.fold.rows["test"], axis, **given)
            values += [found["value"]] if (concept, trial.picture) == ("bright", "SDHA") else []
    assert importance.loc[("bright", "SDHA"), "value"] == pytest.approx(np.mean(values))
    assert real_concepts.importances([], LABELS, seed=0, rng=rng).empty


def test_the_cost_is_over_all_folds_and_seeds(trials):
    costs = real_concepts.costs(trials, LABELS, SUBJECTS, rng=np.random.default_rng(0))
    assert list(costs) == ["SDHA", "composite"] and list(costs["SDHA"]) == ["batch norm", "E2, against the others"]
    plain = costs["SDHA"]["batch norm"]
    assert plain.accuracy.n == 2 * (15 + 15) and 0 <= plain.shared_direction <= 1 and plain.sd_over_seeds is not None
    table = real_concepts.cost_table(costs)
    assert table.loc[("SDHA", "batch norm"), "accuracy"] == str(plain.accuracy)
    assert next(iter(real_concepts.cost_entries(costs))) == "SDHA, batch norm"
    assert real_concepts.cost_table({}).empty


def test_the_entries_hold_the_area_of_each_detector_and_the_importance(trials, aucs):
    importance = real_concepts.importances(trials, LABELS, seed=0, rng=np.random.default_rng(0))
    entry = real_concepts.concept_entries(aucs, importance)["composite"]["coarse"]
    assert entry["auc_best_unit"] is aucs["composite"]["coarse"]["best unit"]
    assert entry["importance"]["value"] == importance.loc[("coarse", "composite"), "value"]


def test_the_contrast_is_of_the_last_picture_in_the_first_fold(trials):
    contrasts = real_concepts.concept_contrasts(trials, seed=1)
    trial = trials[1]
    assert (trial.fold.number, trial.picture) == (0, "composite")
    units = measures.units(trial.arms["D2"][1], see, trial.fold.rows["test"])
    pd.testing.assert_frame_equal(contrasts["E2, against the others"], detection.contrast(units, trial.fold.tested()))
    assert real_concepts.concept_contrasts([], seed=0) == {}


def test_own_concepts_are_turned_to_with_two_thirds_and_tested_with_the_rest(monkeypatch):
    network, calls = toy_network(), {}
    own_rows = {"torn": np.arange(5), "dark": np.arange(5, 9)}
    monkeypatch.setattr(real_concepts, "extend", lambda known, pictures: (known, own_rows))
    train = real_concepts.train

    def spy(*given, **more):
        calls.update(turning=given[5], without=more["without"])
        return train(*given, **more)

    def areas(trained, inputs, kept_back, others):
        calls.update(kept_back=kept_back)
        return dict.fromkeys(kept_back, 0.5)

    monkeypatch.setattr(real_concepts, "train", spy)
    monkeypatch.setattr(measures, "axis_aucs", areas)
    pictures = {name: np.zeros((len(rows), 4, 4, 1), np.uint8) for name, rows in own_rows.items()}
    rows = {"train": EVERY[10:60], "test": EVERY[60:]}
    aucs = real_concepts.own_axis_aucs(network, pictures, LABELS, rows, budget=SHORT, seed=0)
    assert {name: own.tolist() for name, own in calls["turning"].items()} == {"torn": [0, 1, 2, 3], "dark": [5, 6, 7]}
    assert {name: own.tolist() for name, own in calls["kept_back"].items()} == {"torn": [4], "dark": [8]}
    assert all(set(others) == set(rows["train"]) for others in calls["without"].values())
    table = real_concepts.own_table(pictures, aucs)
    assert table["pictures"].tolist() == [5, 4] and "no folder" in str(real_concepts.own_table({}, {}))
    assert real_concepts.read_own(None) == {}
