from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from toy_arms import BUDGET, EVERY, LABELS, MAPS, toy_features

from mitolib.claims import Answer, conclusions
from mitolib.metrics import Estimate
from mitolib.whitening import alignment, detection, fitting, measures, real_concepts, training, trials, vgg16
from mitolib.whitening.detection import Detected

pytestmark = [
    pytest.mark.filterwarnings("ignore:the whitened means"),
    pytest.mark.usefixtures("one_torch_thread", "small_vgg16"),
]
SHORT = replace(BUDGET, steps=5, every=2)
SUBJECTS = np.array([f"S{i % 8}" for i in EVERY])
PARTS = {
    "fold 1 of 2": {"train": EVERY[:50], "validation": EVERY[50:65], "test": EVERY[65:]},
    "fold 2 of 2": {"train": EVERY[30:], "validation": EVERY[15:30], "test": EVERY[:15]},
}


def measured() -> pd.DataFrame:
    """Two concepts: how much of channels 1 and 2 a map has."""
    means = MAPS.mean((2, 3)).numpy()
    return pd.DataFrame({"bright": means[:, 1], "coarse": means[:, 2]})


@pytest.fixture(scope="module")
def folds():
    return real_concepts.annotate_folds(measured(), PARTS)


FEATURES = {kind: toy_features(kind) for kind in ("SDHA", "composite")}


@pytest.fixture(scope="module")
def tried(folds, small_vgg16):
    return real_concepts.train_axes(folds, FEATURES, seeds=range(2), budget=SHORT)


@pytest.fixture(scope="module")
def aucs(tried):
    ranks = real_concepts.concept_ranks(tried, SUBJECTS)
    return real_concepts.detector_aucs(ranks, rng=np.random.default_rng(0))


def test_each_fold_annotates_by_its_own_training_patches(folds):
    first, second = folds
    assert [fold.name for fold in folds] == list(PARTS)
    assert not first.annotation.equals(second.annotation)
    for fold in folds:
        assert all(set(rows) <= set(fold.rows["train"]) for rows in fold.concepts.values())
        for name, places in fold.tested().items():
            assert (fold.annotation[name].iloc[fold.rows["test"][places]] == 1).all()


def test_the_counts_are_of_the_first_fold_with_concepts(folds):
    without = real_concepts.annotate_folds(measured() * 0, PARTS)[:1]
    counts = real_concepts.concept_counts([*without, *folds])
    assert counts["training patches for its axis"].tolist() == [len(rows) for rows in folds[0].concepts.values()]
    assert counts.loc["bright", "with it, of all patches"] == (folds[0].annotation["bright"] == 1).sum()


def test_what_keeps_axes_from_being_tried_is_said(folds):
    assert "2 people" in str(real_concepts.why_left_out([], people=2))
    without = real_concepts.annotate_folds(measured() * 0, PARTS)
    assert "no concept" in str(real_concepts.why_left_out(without, people=3))
    assert real_concepts.why_left_out(folds, people=3) is None


def test_both_arms_are_trained_for_each_fold_picture_and_seed(tried):
    assert [(trial.fold.name, trial.picture) for trial in tried] == [
        (name, picture) for name in PARTS for picture in ("SDHA", "composite")
    ]
    assert all(trial.seeds == (0, 1) and len(trial.fits) == 2 for trial in tried)
    assert real_concepts.train_axes([], {}, seeds=[0], budget=SHORT) == []
    used = real_concepts.used_units(tried, None)
    assert len({unit["key"] for unit in used}) == 8
    name = {"network": "VGG16", "picture": "SDHA", "split": "fold 1 of 2", "arm": "D2", "seed": 1}
    assert used[1]["unit"] == name


def by_hand(fold, arm):
    """Of seed 1, on the toys."""
    rows, features = fold.rows["train"], FEATURES["SDHA"]
    lacking = {name: rows[fold.annotation[name].iloc[rows] == 0] for name in fold.concepts}
    tail = vgg16.tail("light", 2, seed=1)
    given = {"without": lacking, "budget": SHORT, "rng": np.random.default_rng(1), "label": ""}
    if arm == "D2":
        given["statistics"] = features.statistics(rows)
    return training.train(training.ON_VGG16[arm], tail, features.maps, LABELS, rows, fold.concepts, **given)


def test_a_unit_keeps_what_the_two_trained_arms_give(tried, folds):
    kept, fold = tried[0].kept(1), folds[0]
    plain, whitened = (by_hand(fold, arm) for arm in ("none", "D2"))
    see = FEATURES["SDHA"].maps
    train_rows, validation, test = fold.rows.values()
    for place, one in enumerate((plain, whitened)):
        np.testing.assert_array_equal(kept["p_patient"][place], fitting.p_patient(one.model, see, test))
        contrast = detection.contrast(measures.units(one, see, test), fold.tested())
        np.testing.assert_array_equal(kept["contrast"][place], contrast)
    axes_nk = alignment.concept_scores(whitened.model, fitting.batches(see, EVERY))
    plain_nc, rng = measures.units(plain, see, EVERY), np.random.default_rng(1)
    for axis, name in enumerate(fold.concepts):
        rivals = detection.detectors(plain_nc, fold.annotation[name].to_numpy(), train_rows, validation)
        assert kept["detectors"] == ["axis", *rivals]
        for ranks, score in zip(kept["ranks"][axis], (axes_nk[:, axis], *rivals.values()), strict=True):
            assert_allclose(ranks, detection.rank_among(score[test], score[train_rows]), atol=5e-4)
        given = {"repeats": trials.REPEATS, "rng": rng}
        assert kept["importance"][name] == measures.importance(whitened, see, LABELS, test, axis, **given)


def test_a_trial_is_found_again_and_told_apart_by_its_concepts(tried, folds, monkeypatch):
    monkeypatch.setattr(trials, "_fit", None)
    (again, *_) = real_concepts.train_axes(folds[:1], FEATURES, seeds=[1], budget=SHORT)
    assert again.fits.record == tried[0].fits.record[1:]
    other = real_concepts.annotate_folds(measured()[::-1].reset_index(drop=True), PARTS)
    with pytest.raises(TypeError, match="not callable"):
        real_concepts.train_axes(other[:1], FEATURES, seeds=[1], budget=SHORT)


def test_a_trial_comes_out_as_it_did_when_its_protocol_was_declared(tried):
    """Where it does not, the method has changed: raise `trials.PROTOCOL`, and pin what comes out now.

    Tolerance: 5e-3 of a probability, 2e-3 of a cosine, 2e-2 of an importance, one place among the training patches of a
    rank.
    """
    assert trials.PROTOCOL == 2
    kept = tried[0].kept(0)
    assert_allclose(kept["p_patient"][:, 0], [0.9521, 0.6044], atol=5e-3)
    assert_allclose(kept["ranks"][0, :, 0], [0.32, 0.56, 0.46, 0.44], atol=2e-2)
    assert_allclose(kept["contrast"][1], [[0.8905, 0.8905], [0.8905, 1.0]], atol=2e-3)
    assert_allclose([found["value"] for found in kept["importance"].values()], [0.9594, 0.9585], atol=2e-2)


def test_every_detector_is_tried_on_the_test_patches_of_all_folds(tried, folds):
    ranks = real_concepts.concept_ranks(tried, SUBJECTS)
    assert set(ranks["detector"]) == {"axis", "best unit", "LDA", "probe"}
    assert (ranks["subject"] == SUBJECTS[ranks["row"]]).all() and ranks["rank"].between(0, 1).all()
    by_name = {fold.name: fold for fold in folds}
    for (name, concept), group in ranks.groupby(["fold", "concept"]):
        tested = by_name[name].rows["test"]
        known = by_name[name].annotation[concept].iloc[tested].notna()
        assert set(group["row"]) == set(tested[known])
    assert real_concepts.concept_ranks([], SUBJECTS).empty


def test_areas_come_by_picture_concept_and_detector(aucs):
    assert list(aucs) == ["SDHA", "composite"] and set(aucs["SDHA"]) == {"bright", "coarse"}
    table = real_concepts.auc_table(aucs)
    assert table.loc[("SDHA", "bright"), "axis"] == str(aucs["SDHA"]["bright"]["axis"])
    mean = real_concepts.mean_aucs(aucs)["SDHA"]["best_unit"]
    assert mean == pytest.approx(np.mean([found["best unit"].value for found in aucs["SDHA"].values()]))
    assert real_concepts.detector_aucs(pd.DataFrame(), rng=np.random.default_rng(0)) == {}


def test_whether_any_axis_has_a_defined_area_is_asked():
    undefined = dict.fromkeys(("axis", "best unit", "LDA", "probe"), Detected(None))
    found = {"SDHA": {"bright": undefined | {"axis": Detected(0.9)}}, "composite": {"bright": undefined}}
    assert real_concepts.has_defined_axis(found)
    assert not real_concepts.has_defined_axis({"composite": found["composite"]})


def test_the_gap_between_axis_and_best_unit_is_that_of_their_areas(tried, aucs):
    ranks = real_concepts.concept_ranks(tried, SUBJECTS)
    gaps = real_concepts.axis_against_best_unit(ranks, seed=0)
    assert list(gaps) == ["SDHA", "composite"] and [entry["concept"] for entry in gaps["SDHA"]] == ["bright", "coarse"]
    for entry in gaps["SDHA"]:
        found = aucs["SDHA"][entry["concept"]]
        assert entry["gap"].value == pytest.approx(found["axis"].value - found["best unit"].value)
        assert entry["gap"].ci[0] <= entry["gap"].value <= entry["gap"].ci[1]
    assert real_concepts.gap_table(gaps).loc["bright", "SDHA"] == str(gaps["SDHA"][0]["gap"])
    assert real_concepts.axis_against_best_unit(pd.DataFrame(), seed=0) == {}


BETTER, WORSE, ALIKE = Estimate(0.2, (0.1, 0.3)), Estimate(-0.2, (-0.3, -0.1)), Estimate(0.0, (-0.1, 0.1))


def answered(record: dict) -> dict[str, Answer]:
    return conclusions(real_concepts.claims(record), {"chapter": "real_concepts"} | record)


@pytest.mark.parametrize(
    ("gaps", "verdict", "counted"),
    [
        ([BETTER, ALIKE], "holds", "for 1 of 2 concepts, below for 0"),
        ([WORSE, WORSE], "does not hold", "for 0 of 2 concepts, below for 2"),
        ([BETTER, WORSE], "open", "for 1 of 2 concepts, below for 1"),
        ([ALIKE, ALIKE], "open", "for 0 of 2 concepts, below for 0"),
    ],
)
def test_what_is_concluded_of_axes_follows_from_the_intervals_of_all_concepts(gaps, verdict, counted):
    entries = [{"concept": f"c {i}", "gap": gap} for i, gap in enumerate(gaps)]
    cost = {"SDHA, none": {"less_without": None}, "SDHA, E2, x": {"less_without": {"value": -0.1, "ci": [-0.2, -0.05]}}}
    answers = answered({"axis_less_best_unit": {"SDHA": entries}, "cost": cost})
    said = answers["axis-finds-more-than-best-unit-SDHA"]
    assert said.verdict == verdict and counted in said.sentence
    assert answers["axes-cost-SDHA"].verdict == "holds" and "-0.10" in answers["axes-cost-SDHA"].sentence
    assert answered({}) == {}


def test_importance_is_the_mean_over_folds(tried):
    importance = real_concepts.importances(tried, seed=0)
    assert importance.index.names == ["concept", "input"] and len(importance) == 4
    values = [trial.kept(0)["importance"]["bright"]["value"] for trial in tried if trial.picture == "SDHA"]
    assert len(values) == 2 and importance.loc[("bright", "SDHA"), "value"] == pytest.approx(np.mean(values))
    assert real_concepts.importances([], seed=0).empty


def test_the_cost_is_over_all_folds_and_seeds(tried):
    costs = real_concepts.costs(tried, LABELS, SUBJECTS, rng=np.random.default_rng(0))
    assert list(costs) == ["SDHA", "composite"] and list(costs["SDHA"]) == [
        "without the layer",
        "E2, against the others",
    ]
    plain = costs["SDHA"]["without the layer"]
    assert plain.less_without is None and plain.majority_baseline == pytest.approx(15 / 30)
    whitened = costs["SDHA"]["E2, against the others"]
    gap = whitened.balanced_accuracy.value - plain.balanced_accuracy.value
    assert whitened.less_without.value == pytest.approx(gap)
    assert plain.accuracy.n == 2 * (15 + 15) and 0 <= plain.shared_direction <= 1 and plain.sd_over_seeds is not None
    table = real_concepts.cost_table(costs)
    assert table.loc[("SDHA", "without the layer"), "accuracy"] == str(plain.accuracy)
    assert next(iter(real_concepts.cost_entries(costs))) == "SDHA, without the layer"
    assert real_concepts.cost_table({}).empty


def test_the_entries_hold_the_area_of_each_detector_and_the_importance(tried, aucs):
    importance = real_concepts.importances(tried, seed=0)
    entry = real_concepts.concept_entries(aucs, importance)["composite"]["coarse"]
    assert entry["auc_best_unit"] is aucs["composite"]["coarse"]["best unit"]
    assert entry["importance"]["value"] == importance.loc[("coarse", "composite"), "value"]


def test_the_results_hold_all_that_claims_read_and_nothing_without_concepts(tried, aucs):
    ranks = real_concepts.concept_ranks(tried, SUBJECTS)
    gaps = real_concepts.axis_against_best_unit(ranks, seed=0)
    costs = real_concepts.costs(tried, LABELS, SUBJECTS, rng=np.random.default_rng(0))
    found = real_concepts.entries(aucs, real_concepts.importances(tried, seed=0), costs, gaps)
    assert len(real_concepts.claims(found)) == len(answered(found)) == 4, "two of each kind of picture"
    assert real_concepts.entries({}, pd.DataFrame(), {}, {}) == {} and real_concepts.claims({}) == []


def test_the_contrast_is_of_the_last_picture_in_the_first_fold(tried):
    contrasts = real_concepts.concept_contrasts(tried, seed=1)
    trial = tried[1]
    assert (trial.fold.name, trial.picture) == ("fold 1 of 2", "composite")
    shown = contrasts["E2, against the others"]
    np.testing.assert_array_equal(shown, trial.kept(1)["contrast"][1])
    assert list(shown) == list(shown.index) == list(trial.fold.concepts)
    assert real_concepts.concept_contrasts([], seed=0) == {}


def test_own_concepts_are_turned_to_with_two_thirds_and_tested_with_the_rest(monkeypatch):
    calls = {}
    train = trials.train

    def spy(*given, **more):
        calls.update(turning=given[5], without=more["without"])
        return train(*given, **more)

    def areas(trained, inputs, kept_back, others):
        calls.update(kept_back=kept_back, maps=inputs(np.array([84, 80])))
        return dict.fromkeys(kept_back, 0.5)

    monkeypatch.setattr(trials, "train", spy)
    monkeypatch.setattr(measures, "axis_aucs", areas)
    monkeypatch.setattr(vgg16.Features, "maps_of", lambda _, pictures: MAPS[pictures[:, 0, 0, 0].astype(int)])
    numbers = {"torn": np.arange(5), "dark": np.arange(5, 9)}
    pictures = {name: np.tile(of[:, None, None, None], (1, 4, 4, 1)).astype(np.uint8) for name, of in numbers.items()}
    rows = {"train": EVERY[10:60], "test": EVERY[60:]}
    axes = real_concepts.train_own_axes(FEATURES["SDHA"], rows, pictures, seed=0, budget=SHORT)
    aucs = real_concepts.own_axis_aucs(axes)
    turning = {name: own.tolist() for name, own in calls["turning"].items()}
    assert turning == {"torn": [80, 81, 82, 83], "dark": [85, 86, 87]}
    assert {name: own.tolist() for name, own in calls["kept_back"].items()} == {"torn": [84], "dark": [88]}
    assert_allclose(calls["maps"], MAPS[[4, 0]])
    assert all(set(others) == set(rows["train"]) for others in calls["without"].values())
    table = real_concepts.own_table(pictures, aucs)
    assert table["pictures"].tolist() == [5, 4] and "no folder" in str(real_concepts.own_table({}, {}))
    assert real_concepts.read_own(None) == {} and real_concepts.own_axis_aucs(None) == {}
    assert real_concepts.used_units([], axes)[0]["unit"]["split"] == "own concepts"


def test_axes_of_a_readers_concepts_come_out_as_they_did_when_their_protocol_was_declared(monkeypatch):
    """Where they do not, the method has changed: raise `trials.PROTOCOL`, and pin what comes out now.

    Tolerance: two pairs of a picture and a test patch, of forty.
    """
    assert trials.PROTOCOL == 2
    shift = {0: -2.0, 1: 2.0}
    monkeypatch.setattr(
        vgg16.Features,
        "maps_of",
        lambda _, pictures: MAPS[:6] + shift[int(pictures[0, 0, 0, 0])] * torch.eye(6)[1][:, None, None],
    )
    own = {name: np.full((6, 4, 4, 1), i, np.uint8) for i, name in enumerate(("dark", "bright"))}
    rows = {"train": EVERY[10:60], "test": EVERY[60:]}
    (found,) = real_concepts.train_own_axes(FEATURES["composite"], rows, own, seed=0, budget=SHORT)
    assert found["aucs"] == pytest.approx({"dark": 0.975, "bright": 1.0}, abs=0.06)
