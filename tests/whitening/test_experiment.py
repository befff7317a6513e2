from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from toy_arms import BUDGET, CLASSES, EVERY, FEW, LABELS, ROWS, toy_network

from mitolib.cohort import Section
from mitolib.whitening import experiment, measures, training

pytestmark = [
    pytest.mark.filterwarnings("ignore:the whitened means"),
    pytest.mark.filterwarnings("ignore:after step .* newton-reference"),
    pytest.mark.usefixtures("one_torch_thread"),
]
TEST = EVERY[60:]
SHORT = replace(BUDGET, steps=5, every=2)


@pytest.fixture(scope="module")
def network():
    return toy_network()


@pytest.fixture(scope="module")
def trained(network):
    return experiment.train_arms(network, LABELS, ROWS, CLASSES, budget=SHORT, seeds=range(7, 9))


@pytest.fixture(scope="module")
def evaluated(network, trained):
    return experiment.evaluate_arms(trained, network, LABELS, TEST)


def test_each_class_of_the_test_set_is_dealt_out_in_halves():
    rows = np.array([1, 3, 5, 2, 4, 7])  # four patients, two controls
    halves = experiment.concept_sets(LABELS, rows, seed=0)
    sizes = {part: {label: len(own) for label, own in sets.items()} for part, sets in halves.items()}
    assert sizes == {"concept train": {"control": 1, "patient": 2}, "concept test": {"control": 1, "patient": 2}}
    dealt = np.concatenate([own for sets in halves.values() for own in sets.values()])
    assert sorted(dealt) == sorted(rows)
    assert all((LABELS[own] == (label == "patient")).all() for sets in halves.values() for label, own in sets.items())


def test_every_arm_is_trained_and_scored_with_every_seed(trained, evaluated):
    assert list(trained) == list(evaluated) == list(training.ARMS)
    assert all(list(by_seed) == [7, 8] for by_seed in evaluated.values())
    public = evaluated["A"][7]
    assert public.scores["confusion"] and public.report["amplification"] > 0
    entries = experiment.model_entries(evaluated, seed=7)
    assert entries["ResNet18+CW"]["accuracy"] == entries["A"]["seeds"][7]["accuracy"] == public.scores["accuracy"]
    assert entries["ResNet18"]["mean_abs_correlation"] == evaluated["BatchNorm"][7].report["mean_abs_correlation"]
    assert experiment.reported(evaluated, seed=7).keys() == set(measures.REPORTED)


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


def test_the_classes_cosine_is_that_of_their_mean_units(network, trained):
    cosines = experiment.class_cosines(trained["BatchNorm"][7], network, LABELS, TEST)
    units = measures.units(trained["BatchNorm"][7], network.maps, TEST)
    first, second = (units[LABELS[TEST] == i].mean(axis=0) for i in (0, 1))
    wanted = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert cosines.loc["control", "patient"] == pytest.approx(wanted, rel=1e-5)


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
    given = {"budget": SHORT, "seed": 0, "rng": np.random.default_rng(0)}
    assert experiment.pair_positions(pair, None, LABELS, ROWS, **given) == {}


def test_two_concepts_are_named_and_their_positions_drawn(network):
    pair = experiment.ConceptPair(FEW, tuple(FEW))
    assert pair._repr_markdown_() == "concept 1: *large*; concept 2: *pale*"
    given = {"budget": SHORT, "seed": 0, "rng": np.random.default_rng(0)}
    found = experiment.pair_positions(pair, network, LABELS, ROWS, **given)
    assert set(found["group"]) == {"concept 1", "concept 2", "other pictures"} and len(found["raw"]) == 450


def test_the_geometry_is_of_the_arms_that_are_named(network, trained):
    geometry = experiment.geometries(trained, network, LABELS, ROWS, seed=7)
    assert list(geometry) == list(experiment.OPPOSITES) and geometry["E2"]["cosine"] == pytest.approx(-1, abs=1e-2)
    table = experiment.geometry_table(geometry)
    assert table.loc["two axes", "cosine of the classes"] == geometry["E2"]["cosine"]


FOLDS = [
    {"train": EVERY[20:], "validation": EVERY[:0], "test": EVERY[:20]},
    {"train": EVERY[:60], "validation": EVERY[:0], "test": EVERY[60:]},
]
SUBJECTS = np.array([f"S{i // 10}" for i in range(len(EVERY))])


def test_the_test_patches_of_all_folds_are_scored_together_over_their_subjects(network):
    scores = experiment.held_out_scores([network] * 2, FOLDS, LABELS, SUBJECTS, budget=SHORT, seed=0)
    assert list(scores) == list(experiment.HELD_OUT)
    for of_arm in scores.values():
        assert sum(map(sum, of_arm["confusion"])) == 40 and of_arm["over_subjects"].n == 40
        assert of_arm["over_subjects"].value == pytest.approx(of_arm["accuracy"])
    table = experiment.held_out_table(scores, people=4)
    assert table.loc["batch norm", "accuracy over subjects"] == str(scores["BatchNorm"]["over_subjects"])


def test_too_few_people_are_said_in_the_place_of_their_scores():
    scores = experiment.held_out_scores([], [], LABELS, SUBJECTS, budget=SHORT, seed=0)
    assert scores == {} and "2 people" in str(experiment.held_out_table(scores, people=2))
    table = pd.DataFrame({"subject": SUBJECTS})
    assert "2 people" in str(training.tested_people(table, [], people=2))
    assert training.tested_people(table, FOLDS, people=4)["tested subjects"].tolist() == ["S0, S1", "S6, S7"]


def test_people_are_dealt_out_to_folds_of_which_some_are_computed():
    table = pd.DataFrame({"subject": SUBJECTS, "label": np.repeat(["control", "patient"], 40)})
    folds = training.people_folds(table, n_folds=4, n_computed=2, seed=0)
    assert len(folds) == 2 and training.people_folds(table, n_folds=4, n_computed=0, seed=0) == []
    for fold in folds:
        assert sorted(np.concatenate(list(fold.values()))) == EVERY.tolist()
        people = [set(SUBJECTS[rows]) for rows in fold.values()]
        assert not set.intersection(people[0], people[1]) and not set.intersection(people[0], people[2])


def test_the_findings_give_the_numbers_and_leave_out_what_was_left_out(network, trained, evaluated):
    geometry = experiment.geometries(trained, network, LABELS, ROWS, seed=7)
    text = experiment.findings(evaluated, geometry, {}, seed=7)
    assert f"{evaluated['A'][7].scores['accuracy']:.1%}" in text and f"{geometry['E2']['cosine']:.2f}" in text
    scores = experiment.held_out_scores([network] * 2, FOLDS, LABELS, SUBJECTS, budget=SHORT, seed=0)
    longer = experiment.findings(evaluated, geometry, scores, seed=7)
    assert longer.startswith(text) and str(scores["A"]["over_subjects"]) in longer


def test_ranks_by_layer_are_of_the_test_patches_on_the_axes_of_both_classes(monkeypatch, network):
    scores = {"early": np.array([[3.0, 1], [1, 2], [2, 3]]), "late": np.array([[1.0, 1], [2, 2], [3, 3]])}
    monkeypatch.setattr(experiment, "placed", lambda whole, place, *given, **more: place)
    monkeypatch.setattr(experiment.alignment, "concept_scores", lambda model, batches: scores[model])
    network.whole = None
    rows = {"train": ROWS, "test": EVERY[:3]}
    rngs = {place: np.random.default_rng(0) for place in scores}
    ranks = experiment.ranks_by_layer(network, network.maps, LABELS, rows, budget=SHORT, rngs=rngs)
    assert ranks["layer"].tolist() == ["early"] * 3 + ["late"] * 3 and ranks["sample"].tolist() == [0, 1, 2] * 2
    assert_allclose(ranks["control"], np.array([3, 1, 2, 1, 2, 3]) / 3 * 100)
