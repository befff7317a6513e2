from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from toy_arms import BUDGET, CLASSES, EVERY, FEW, LABELS, ROWS, see, toy_trunk, trained

from mitolib.cohort import Section
from mitolib.whitening import alignment, arms, detection, experiment, fitting, measures, training

pytestmark = [
    pytest.mark.filterwarnings("ignore:the whitened means"),
    pytest.mark.filterwarnings("ignore:after step .* newton-reference"),
    pytest.mark.usefixtures("one_torch_thread"),
]
TEST = EVERY[60:]
SHORT = replace(BUDGET, steps=5, every=2)


TRUNK = toy_trunk({"train": ROWS, "validation": EVERY[:0], "test": TEST})


@pytest.fixture(scope="module")
def evaluated():
    return experiment.train_arms(TRUNK, CLASSES, seeds=range(7, 9), budget=SHORT)


def test_each_class_of_the_test_set_is_dealt_out_in_halves():
    rows = np.array([1, 3, 5, 2, 4, 7])  # four patients, two controls
    halves = experiment.concept_sets(LABELS, rows, seed=0)
    sizes = {part: {label: len(own) for label, own in sets.items()} for part, sets in halves.items()}
    assert sizes == {"concept train": {"control": 1, "patient": 2}, "concept test": {"control": 1, "patient": 2}}
    dealt = np.concatenate([own for sets in halves.values() for own in sets.values()])
    assert sorted(dealt) == sorted(rows)
    assert all((LABELS[own] == (label == "patient")).all() for sets in halves.values() for label, own in sets.items())


def test_every_arm_is_trained_and_scored_with_every_seed(evaluated):
    assert list(evaluated) == list(training.ARMS)
    assert all(list(by_seed) == [7, 8] for by_seed in evaluated.values())
    public = evaluated["A"][7]
    assert public.scores["confusion"] and public.report["amplification"] > 0
    entries = experiment.model_entries(evaluated, seed=7)
    assert entries["ResNet18+CW"]["accuracy"] == entries["A"]["seeds"][7]["accuracy"] == public.scores["accuracy"]
    assert entries["ResNet18"]["mean_abs_correlation"] == evaluated["BatchNorm"][7].report["mean_abs_correlation"]
    assert experiment.reported(evaluated, seed=7).keys() == set(measures.REPORTED)


@pytest.mark.parametrize("name", ["BatchNorm", "E2"])
def test_a_unit_keeps_what_the_trained_arm_gives(evaluated, name):
    kept = evaluated[name][8]
    one = trained(name, budget=SHORT, seed=8)
    p_patient = fitting.p_patient(one.model, see, TEST)
    np.testing.assert_array_equal(kept.kept["p_patient"], p_patient)
    assert kept.scores["accuracy"] == ((p_patient > 0.5) == LABELS[TEST]).mean()
    assert kept.kept["loss"] == one.loss.to_list()
    report = measures.report(one, see, LABELS, TEST) | {"seconds": kept.report["seconds"]}
    assert kept.report == report and kept.report["seconds"] > 0
    units_nc = measures.units(one, see, TEST)
    means = pd.DataFrame([units_nc[LABELS[TEST] == i].mean(axis=0) for i in (0, 1)], index=["control", "patient"])
    pd.testing.assert_frame_equal(kept.class_cosines, detection.cosines(means))
    if name == "E2":
        np.testing.assert_array_equal(kept.axis_scores_nk, alignment.concept_scores(one.model, [see(TEST)]))
        assert kept.geometry == measures.geometry(one, see, CLASSES, ROWS)
        assert kept.kept["alignment"] == [turn.alignment for turn in one.rounds]


def test_arms_are_found_again_without_their_trunk_and_told_apart_by_what_they_depend_on(evaluated, monkeypatch):
    monkeypatch.setattr(arms, "_fit_arm", None)
    given = {"names": ["A"], "seeds": [7], "budget": SHORT}
    again = experiment.train_arms(TRUNK, CLASSES, **given)["A"][7]
    assert again.scores == evaluated["A"][7].scores and again.unit == evaluated["A"][7].unit
    fewer = {name: rows[1:] for name, rows in CLASSES.items()}
    for trunk, concepts, more in (
        (TRUNK, fewer, {}),
        (TRUNK, CLASSES, {"budget": replace(SHORT, steps=6)}),
        (toy_trunk(TRUNK.rows, split="fold 1 of 4"), CLASSES, {}),
    ):
        with pytest.raises(TypeError, match="not callable"):
            experiment.train_arms(trunk, concepts, **given | more)
    other_precision = replace(SHORT, precision="bfloat16")
    assert experiment.train_arms(TRUNK, CLASSES, **given | {"budget": other_precision})["A"][7].unit == again.unit


def test_the_arms_come_out_as_they_did_when_their_protocol_was_declared(evaluated):
    """Where they do not, the method has changed: raise `arms.PROTOCOL`, and pin what comes out now.

    Tolerance: 2e-3 of a probability, a loss or a score, ten times what two processors differ by here.
    """
    assert arms.PROTOCOL == 1
    plain, public, exact = (evaluated[name][7].kept for name in ("BatchNorm", "A", "E2"))
    assert_allclose(plain["p_patient"][:3], [0.5319, 0.6905, 0.4853], atol=2e-3)
    assert_allclose(public["p_patient"][:3], [0.5324, 0.6971, 0.5083], atol=2e-3)
    assert_allclose(exact["axis_scores"][:2], [[0.6844, -0.7528], [-0.4786, 0.4669]], atol=2e-3)
    assert_allclose(exact["loss"][-2:], [0.5703, 0.5048], atol=2e-3)
    assert_allclose(
        [exact["report"]["mean_abs_correlation"], exact["geometry"]["reached"]], [0.0384, 0.6121], atol=2e-3
    )


def test_the_ladder_is_the_mean_over_seeds_and_says_what_each_arm_is(evaluated):
    by_seed = experiment.ladder(evaluated)
    assert by_seed.shape == (2 * len(training.ARMS), len(experiment.LADDER))
    means = experiment.ladder_means(by_seed)
    wanted = np.mean([one.scores["balanced_accuracy"] for one in evaluated["C"].values()])
    assert means.loc["C", "balanced"] == pytest.approx(wanted) and means.loc["C", "what"] == training.ARMS["C"].what
    values = experiment.seed_values(by_seed, "accuracy")
    assert len(values) == len(by_seed) and values["arm"].nunique() == len(training.ARMS)


def test_the_papers_scores_stand_above_ours_on_its_own_cohort_only(evaluated):
    both = experiment.paper_comparison(evaluated, seed=7, published=True)
    ours = experiment.paper_comparison(evaluated, seed=7, published=False)
    assert ("ResNet18+CW", "paper") in both.index and set(ours.index.get_level_values("source")) == {"this run"}
    assert ours.loc[("ResNet18", "this run"), "accuracy"] == evaluated["BatchNorm"][7].scores["accuracy"]


def test_the_patches_of_an_axis_are_those_with_its_highest_scores():
    rows = np.array([10, 11, 12, 13])
    scores = np.array([[0.0, 5], [3, 1], [2, 9], [1, 0]])
    best = experiment.best_patches(scores, rows)
    assert_array_equal(best["control"], [11, 12])
    assert_array_equal(best["patient"], [12, 10])
    table = pd.DataFrame({"label": ["control", "patient"] * 10, "subject": ["C1", "P1"] * 10})
    counts = experiment.best_counts(table, best)
    assert counts.loc["control"].tolist() == [2, 1, 2] and counts.loc["patient"].tolist() == [2, 0, 1]


def test_scores_keep_their_axis_and_their_class():
    table = experiment.axis_score_table(np.array([[1.0, 2], [3, 4]]), ["patient", "control"])
    rows = set(table[["label", "axis", "score"]].itertuples(index=False, name=None))
    assert rows == {("patient", "control", 1), ("patient", "patient", 2), ("control", "control", 3)} | {
        ("control", "patient", 4)
    }


def test_ways_are_of_the_first_patches_of_each_class_in_the_order_of_the_layers():
    ranks = pd.DataFrame(
        [(layer, sample, sample, -sample) for layer in ("layer2", "layer1") for sample in range(6)],
        columns=["layer", "sample", "control", "patient"],
    )
    ways = experiment.first_of_each_class(ranks, ["patient", "control"] * 3, n=2)
    assert ways["sample"].tolist() == [1, 1, 3, 3, 0, 0, 2, 2] and ways["layer"].tolist() == ["layer1", "layer2"] * 4
    assert ways["label"].tolist() == ["control"] * 4 + ["patient"] * 4


def test_without_two_concepts_a_page_says_so_and_nothing_is_trained(tmp_path):
    table = pd.DataFrame({"subject": ["A", "B"], "section": ["A", "B"], "label": ["control", "patient"]})
    table = table.loc[np.repeat([0, 1], 10)].reset_index(drop=True).assign(tissue=np.linspace(0, 1, 20))
    sections = [Section(name, name, label, 9, 9, {}) for name, label in (("A", "control"), ("B", "patient"))]
    pair = experiment.concept_pair(tmp_path, table, sections, np.arange(20))
    assert not pair.rows and pair.there == ("sparse tissue",)
    assert pair._repr_markdown_().startswith("Left out") and "sparse tissue" in pair._repr_markdown_()
    of_pair = experiment.train_pair(TRUNK, pair.rows, seed=0, budget=SHORT)
    assert len(of_pair) == 0 and experiment.pair_positions(of_pair) == {}


def test_two_concepts_are_named_and_their_positions_drawn():
    pair = experiment.ConceptPair(FEW, tuple(FEW))
    assert pair._repr_markdown_() == "concept 1: *large*; concept 2: *pale*"
    found = experiment.pair_positions(experiment.train_pair(TRUNK, pair.rows, seed=0, budget=SHORT))
    assert set(found["group"]) == {"concept 1", "concept 2", "other pictures"} and len(found["raw"]) == 450


def test_a_layer_for_two_concepts_comes_out_as_it_did_when_its_protocol_was_declared():
    """Where it does not, the method has changed: raise `arms.PROTOCOL`, and pin what comes out now.

    Tolerance: 1e-2 of a whitened value, ten times what two processors differ by here.
    """
    assert arms.PROTOCOL == 1
    found = experiment.pair_positions(experiment.train_pair(TRUNK, FEW, seed=0, budget=SHORT))
    assert_allclose(found["rotated"][:2], [[0.0055, -0.9401], [0.0229, 0.4285]], atol=1e-2)


def test_the_geometry_is_of_the_arms_that_are_named(evaluated):
    geometry = experiment.geometries(evaluated, seed=7)
    assert list(geometry) == list(experiment.OPPOSITES) and geometry["E2"]["cosine"] == pytest.approx(-1, abs=1e-2)
    table = experiment.geometry_table(geometry)
    assert table.loc["two axes", "cosine of the classes"] == geometry["E2"]["cosine"]


FOLDS = {
    "fold 1 of 2": {"train": EVERY[20:], "validation": EVERY[:0], "test": EVERY[:20]},
    "fold 2 of 2": {"train": EVERY[:60], "validation": EVERY[:0], "test": EVERY[60:]},
}
SUBJECTS = np.array([f"S{i // 10}" for i in range(len(EVERY))])


@pytest.fixture(scope="module")
def held_out():
    folds = [toy_trunk(rows, split=name) for name, rows in FOLDS.items()]
    return experiment.held_out_scores(experiment.train_held_out(folds, seed=0, budget=SHORT), SUBJECTS, seed=0)


def test_the_test_patches_of_all_folds_are_scored_together_over_their_subjects(held_out):
    assert list(held_out) == list(experiment.HELD_OUT)
    for of_arm in held_out.values():
        assert sum(map(sum, of_arm["confusion"])) == 40 and of_arm["over_subjects"].n == 40
        assert of_arm["over_subjects"].value == pytest.approx(of_arm["accuracy"])
    table = experiment.held_out_table(held_out, people=4)
    assert table.loc["batch norm", "accuracy over subjects"] == str(held_out["BatchNorm"]["over_subjects"])


def test_too_few_people_are_said_in_the_place_of_their_scores():
    scores = experiment.held_out_scores(experiment.train_held_out([], seed=0, budget=SHORT), SUBJECTS, seed=0)
    assert scores == {} and "2 people" in str(experiment.held_out_table(scores, people=2))
    table = pd.DataFrame({"subject": SUBJECTS})
    assert "2 people" in str(training.tested_people(table, {}, people=2))
    tested = training.tested_people(table, FOLDS, people=4)["tested subjects"]
    assert tested.to_dict() == {"fold 1 of 2": "S0, S1", "fold 2 of 2": "S6, S7"}


def test_people_are_dealt_out_to_folds_of_which_some_are_computed():
    table = pd.DataFrame({"subject": SUBJECTS, "label": np.repeat(["control", "patient"], 40)})
    folds = training.people_folds(table, n_folds=4, n_computed=2, seed=0)
    assert list(folds) == ["fold 1 of 4", "fold 2 of 4"]
    assert training.people_folds(table, n_folds=4, n_computed=0, seed=0) == {}
    for fold in folds.values():
        assert sorted(np.concatenate(list(fold.values()))) == EVERY.tolist()
        people = [set(SUBJECTS[rows]) for rows in fold.values()]
        assert not set.intersection(people[0], people[1]) and not set.intersection(people[0], people[2])


def test_the_findings_give_the_numbers_and_leave_out_what_was_left_out(evaluated, held_out):
    geometry = experiment.geometries(evaluated, seed=7)
    text = experiment.findings(evaluated, geometry, {}, seed=7)
    assert f"{evaluated['A'][7].scores['accuracy']:.1%}" in text and f"{geometry['E2']['cosine']:.2f}" in text
    longer = experiment.findings(evaluated, geometry, held_out, seed=7)
    assert longer.startswith(text) and str(held_out["A"]["over_subjects"]) in longer


def test_ranks_by_layer_are_of_the_test_patches_on_the_axes_of_both_classes():
    scores = np.array([[3.0, 1], [1, 2], [2, 3]])
    ranks = experiment.ranks_by_layer([{"scores": scores}] * len(experiment.PLACES))
    assert ranks["layer"].tolist() == np.repeat(experiment.PLACES, 3).tolist()
    assert ranks["sample"].tolist() == [0, 1, 2] * len(experiment.PLACES)
    assert_allclose(ranks["control"][:3], np.array([3, 1, 2]) / 3 * 100)


def test_a_layer_is_placed_at_each_depth_of_the_network_that_was_trained(monkeypatch):
    turned = []

    def scores(model, batches):
        return np.full((len(TEST), 2), len(turned), np.float32)

    def placed(whole, place, inputs, rows, concepts, **more):
        turned.append((place, rows.tolist(), sorted(concepts), more["n_rounds"]))

    monkeypatch.setattr(TRUNK.network, "whole", None, raising=False)
    monkeypatch.setattr(arms, "placed", placed)
    monkeypatch.setattr(arms.alignment, "concept_scores", scores)
    found = experiment.place_layers(TRUNK, seed=0, budget=SHORT)
    assert turned == [(place, ROWS.tolist(), ["control", "patient"], 4) for place in experiment.PLACES]
    assert [of_place["scores"][0, 0] for of_place in found] == [1, 2, 3, 4]


def test_the_record_names_every_unit_of_a_page(evaluated):
    used = experiment.used_units([TRUNK], [evaluated], [experiment.train_pair(TRUNK, {}, seed=0, budget=SHORT)])
    assert len(used) == 2 * len(training.ARMS)
    assert used[0]["unit"] == TRUNK.name | {"arm": "BatchNorm", "place": None, "seed": 7}
