"""The chapter's units and what its page makes of them, on the toys of `toy_arms`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from toy_arms import BUDGET, CLASSES, EVERY, FEW, LABELS, ROWS, see, toy_features, toy_trunk, trained

from mitolib.claims import conclusions
from mitolib.cohort import Section
from mitolib.whitening import BUDGETS, alignment, arms, experiment, fitting, measures, over_people, training

pytestmark = [
    pytest.mark.filterwarnings("ignore:the whitened means"),
    pytest.mark.filterwarnings("ignore:after step .* newton-reference"),
    pytest.mark.usefixtures("one_torch_thread", "small_vgg16"),
]
TEST = EVERY[60:]
SHORT = replace(BUDGET, steps=5, every=2)
TRUNK = toy_trunk({"train": ROWS, "validation": EVERY[:0], "test": TEST})
FOLDS = {
    "fold 1 of 2": {"train": EVERY[20:], "test": EVERY[:20]},
    "fold 2 of 2": {"train": EVERY[:50], "test": np.concatenate([EVERY[60:], EVERY[10:20]])},
}
FOLDS["fold 2 of 2"]["train"] = np.setdiff1d(EVERY, FOLDS["fold 2 of 2"]["test"])


def on_vgg16(folds=None, *, features=None, **more):
    given = {"split": "published", "names": ["none", "E2"], "seeds": [7], "budget": SHORT, "controls": 3} | more
    folds = {"published": {"train": ROWS, "test": TEST}} if folds is None else folds
    return experiment.train_on_vgg16(features or toy_features(), folds, **given)


@pytest.fixture(scope="module")
def published():
    return on_vgg16(names=training.ON_VGG16, seeds=[7, 8])


@pytest.fixture(scope="module")
def of_trunk():
    return experiment.train_arms(TRUNK, seeds=[7], budget=SHORT, controls=3)


# ---- units


def test_every_arm_is_trained_and_tried_with_every_seed(published, of_trunk):
    assert list(published) == list(training.ON_VGG16) and list(of_trunk) == list(training.ARMS)
    assert all(list(by_seed) == [7, 8] for by_seed in published.values())
    assert published["A"][7].reports[0]["amplification"] > 0 and of_trunk["A"][7].reports[0]["amplification"] > 0


def test_a_unit_keeps_what_the_trained_arm_gives(of_trunk):
    kept, one = of_trunk["E2"][7], trained("E2", budget=SHORT, seed=7)
    logits = fitting.outputs(one.model, see, TEST).numpy()
    assert_allclose(kept.of_patches("log_odds"), logits[:, 1] - logits[:, 0], atol=2e-3)
    assert_array_equal(kept.called_patient, logits[:, 1] > logits[:, 0])
    assert_allclose(
        kept.of_patches("axis_scores").T, alignment.concept_scores(one.model, [see(TEST)]), rtol=1e-3, atol=1e-3
    )
    assert kept.geometry == measures.geometry(one, see, CLASSES, ROWS)
    report = measures.report(one, see, LABELS, TEST) | {"seconds": kept.reports[0]["seconds"]}
    assert kept.reports == [report]
    assert kept.kept["alignments"] == [one.rounds[-1].alignment]
    assert kept.kept["losses"] == [[one.loss.iloc[0], one.loss.iloc[-1]]]
    drawn = arms.permutations(2, 6, len(TEST), 3, rng=np.random.default_rng(7))
    for name in ("permuted_axes", "permuted_others", "axes_alone"):
        answers = measures.answers_permuted(one, see, TEST, drawn[name])
        assert_allclose(kept.of_patches(name), answers, atol=2e-3)


def test_permuted_are_the_axes_of_concepts_as_many_others_and_all_others():
    drawn = arms.permutations(2, 12, 9, 5, rng=np.random.default_rng(0))
    ((nothing, as_they_are),) = drawn.pop("log_odds")
    assert len(nothing) == 0 and as_they_are.tolist() == list(range(9))
    assert all(sorted(order) == list(range(9)) for pairs in drawn.values() for _, order in pairs)
    assert [axes.tolist() for axes, _ in drawn["permuted_axes"]] == [[0, 1]] * 5
    assert [axes.tolist() for axes, _ in drawn["axes_alone"]] == [list(range(2, 12))] * 5
    chosen = [set(axes) for axes, _ in drawn["permuted_others"]]
    assert all(len(axes) == 2 and axes <= set(range(2, 12)) for axes in chosen) and len(set(map(tuple, chosen))) > 1
    few = arms.permutations(3, 4, 9, 1, rng=np.random.default_rng(0))
    assert few["permuted_others"][0][0].tolist() == [3]


def test_a_concept_shown_by_a_tested_patch_is_refused():
    leaky = {"control": CLASSES["control"], "patient": np.append(CLASSES["patient"], 61)}
    with pytest.raises(ValueError, match=r"'patient'.*1 patches that are tested.*row 61"):
        arms.refuse_tested(leaky, TEST)
    with pytest.raises(ValueError, match="tested"):
        experiment.train_pair(toy_features(), {"train": ROWS, "test": TEST}, leaky, seed=0, budget=SHORT)
    with pytest.raises(ValueError, match="tested"):
        arms.measured(trained("E2", leaky), see, LABELS, TRUNK.rows, leaky, "E2", 1, 0)


def test_the_concepts_of_every_arm_are_training_patches(monkeypatch):
    seen = []

    def train(arm, tail, inputs, labels, rows, concepts, **more):
        seen.append((rows, concepts))
        raise InterruptedError

    monkeypatch.setattr(arms, "train", train)
    for fit in (
        lambda: on_vgg16(FOLDS, seeds=[99]),
        lambda: experiment.train_arms(TRUNK, seeds=[99], budget=SHORT, controls=1),
    ):
        with pytest.raises(InterruptedError):
            fit()
    assert len(seen) == 2
    for rows, concepts in seen:
        assert list(concepts) == ["control", "patient"]
        assert sorted(np.concatenate(list(concepts.values()))) == sorted(rows)


def test_answers_of_several_folds_are_put_together_and_a_patch_of_two_folds_counts_once():
    (evaluated,) = on_vgg16(FOLDS, split="people not seen")["E2"].values()
    assert evaluated.kept["log_odds"].shape == (50,) and evaluated.kept["axis_scores"].shape == (50, 2)
    assert evaluated.rows.tolist() == [*range(20), *range(60, 80)]
    kept, folded = evaluated.kept["log_odds"].astype(float), evaluated.of_patches("log_odds")
    assert_allclose(folded[:10], kept[:10])
    assert_allclose(folded[10:20], (kept[10:20] + kept[40:]) / 2)
    assert evaluated.of_patches("permuted_others").shape == (3, 40) and len(evaluated.reports) == 2
    assert_array_equal(evaluated.labels, LABELS[evaluated.rows])


def test_arms_are_found_again_and_told_apart_by_what_they_depend_on(published, of_trunk, monkeypatch):
    monkeypatch.setattr(arms, "train", None)
    assert on_vgg16()["E2"][7].unit == published["E2"][7].unit
    again = experiment.train_arms(TRUNK, names=["A"], seeds=[7], budget=SHORT, controls=3)["A"][7]
    assert again.unit == of_trunk["A"][7].unit
    for more in (
        {"folds": {"published": {"train": ROWS[1:], "test": TEST}}},
        {"folds": {"published": {"train": ROWS, "test": TEST[1:]}}},
        {"features": toy_features("others")},
        {"features": toy_features(views=2)},
        {"budget": replace(SHORT, steps=6)},
        {"controls": 4},
        {"head": "paper"},
        {"seeds": [9]},
    ):
        with pytest.raises(TypeError, match="not callable"):
            on_vgg16(**more)
    for trunk, more in (
        (toy_trunk(TRUNK.rows, split="fold 1 of 4"), {}),
        (TRUNK, {"budget": replace(SHORT, steps=6)}),
        (TRUNK, {"controls": 4}),
    ):
        with pytest.raises(TypeError, match="not callable"):
            experiment.train_arms(trunk, **{"names": ["A"], "seeds": [7], "budget": SHORT, "controls": 3} | more)


def test_augmented_copies_are_trained_on_and_the_patches_themselves_turn_the_axes(monkeypatch):
    drawn, turned = [], []
    features = toy_features(views=2)
    monkeypatch.setattr(arms, "measured", lambda *_: {"report": {}, "geometry": None, "loss": [], "alignment": None})
    real = arms.train

    def train(arm, tail, inputs, labels, rows, concepts, *, learnt, **more):
        drawn.append(learnt)
        turned.append(np.concatenate(list(concepts.values())))
        return real(arm, tail, inputs, labels, rows, concepts, learnt=learnt, **more)

    monkeypatch.setattr(arms, "train", train)
    on_vgg16(features=features, names=["E2"], seeds=[5])
    assert sorted(drawn[0]) == sorted([*(ROWS + 80), *(ROWS + 160)]) and set(turned[0]) == set(ROWS)
    assert_array_equal(features.labels[drawn[0]], np.tile(LABELS[ROWS], 2))


def test_the_arms_come_out_as_they_did_when_their_protocol_was_declared(published, of_trunk):
    """Where they do not, the method has changed: raise `arms.PROTOCOL`, and pin what comes out now.

    Tolerance: 2e-2 of log-odds or a score, ten times what two processors differ by here.
    """
    assert arms.PROTOCOL == 2
    on_features = {name: published[name][7].kept for name in ("none", "A", "E2", "D2")}
    on_resnet18 = {name: of_trunk[name][7].kept for name in ("BatchNorm", "A", "E2", "G")}
    pinned = {"atol": 2e-2}
    log_odds = [kept["log_odds"][:3] for kept in on_features.values()]
    assert_allclose(log_odds[0], [1.1445, 3.0449, 1.0537], **pinned)
    assert_allclose(log_odds[1], [1.5205, 1.4600, 1.8467], **pinned)
    assert_allclose(log_odds[2], [2.2832, 0.4265, 1.5156], **pinned)
    assert_allclose(log_odds[3], [1.9668, 0.6548, 1.6884], **pinned)
    assert_allclose(on_features["E2"]["permuted_axes"][0, :3], [1.1943, 1.4297, 1.6641], **pinned)
    log_odds = [kept["log_odds"][:3] for kept in on_resnet18.values()]
    assert_allclose(log_odds[0], [0.1276, 0.8027, -0.0588], **pinned)
    assert_allclose(log_odds[1], [0.1299, 0.8335, 0.0332], **pinned)
    assert_allclose(log_odds[2], [0.1699, 0.8149, 0.0710], **pinned)
    assert_allclose(log_odds[3], [0.1688, 0.3257, 0.0457], **pinned)
    assert_allclose(on_resnet18["E2"]["axis_scores"][:2], [[0.6846, -0.7529], [-0.4785, 0.4673]], **pinned)


def test_a_layer_for_two_concepts_comes_out_as_it_did_when_its_protocol_was_declared():
    """Where it does not, the method has changed: raise `arms.PROTOCOL`, and pin what comes out now.

    Tolerance: 1e-2 of a whitened value, ten times what two processors differ by here.
    """
    assert arms.PROTOCOL == 2
    rows = {"train": ROWS, "test": TEST}
    found = experiment.pair_positions(experiment.train_pair(toy_features(), rows, FEW, seed=0, budget=SHORT))
    assert set(found["group"]) == {"concept 1", "concept 2", "other pictures"} and len(found["raw"]) == 450
    assert_allclose(found["rotated"][:2], [[-0.0448, 0.2579], [0.9477, 1.2313]], atol=1e-2)


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


# ---- what a page makes of them


def test_each_arm_is_compared_with_no_layer_with_the_same_seeds(published):
    entries = experiment.compared(published, seed=0)
    assert entries["none"]["less_without"] is None and entries["none"]["importance"] is None
    assert entries["BatchNorm"]["importance"] is None and set(entries["E2"]["seeds"]) == {7, 8}
    found = [entries[name]["balanced_accuracy"].value for name in ("E2", "none")]
    assert entries["E2"]["less_without"].value == pytest.approx(found[0] - found[1])
    first = {name: {7: by_seed[7]} for name, by_seed in published.items()}
    one = experiment.compared({"none": published["none"], "C": first["C"]}, seed=0)["C"]
    wanted = over_people.difference(first["C"], first["none"], rng=np.random.default_rng(0))
    assert one["less_without"].value == pytest.approx(wanted.value) and one["sd_over_seeds"] is None
    assert entries["C"]["layer"]["auc"] == pytest.approx(
        np.mean([of.reports[0]["auc"] for of in published["C"].values()])
    )


def test_tables_have_a_row_for_each_arm_and_split(published, of_trunk):
    entries = experiment.compared(published, seed=0)
    assert len(experiment.score_table({"published": entries, "unseen": {}})) == len(published)
    whitened = [name for name, arm in training.ON_VGG16.items() if arm.place]
    assert len(experiment.importance_table({"published": entries})) == len(whitened)
    assert list(experiment.shifts(entries)) == ["axes of the concepts", "as many other axes"]
    assert experiment.by_split({"published": entries})["published"]["E2: C, mean of the map"].value is not None
    assert experiment.ladder_table(entries).loc["A", "what"] == "the public code"
    of_resnet = compared_trunks(of_trunk)
    assert of_resnet["BatchNorm"]["less_without"] is None and of_resnet["G"]["importance"]


def test_the_arms_of_several_trunks_are_put_together(of_trunk):
    other = {name: {8: by_seed[7]} for name, by_seed in of_trunk.items()}
    together = experiment.by_trunks([of_trunk, other])
    assert list(together) == list(of_trunk) and all(list(by_seed) == [7, 8] for by_seed in together.values())


def compared_trunks(of_trunk):
    return experiment.compared(of_trunk, seed=0, against="BatchNorm", arms=training.ARMS)


def test_the_results_hold_all_that_claims_read(published, of_trunk):
    paper_head = on_vgg16(names=["none", "A", "E2"], head="paper")
    for unseen in (on_vgg16(FOLDS, split="people not seen", names=experiment.MAIN), {}):
        found = experiment.results(published, unseen, paper_head, [of_trunk], seed=7)
        answers = conclusions(experiment.claims(found), found | {"chapter": "concept_whitening"})
        assert len(answers) == len(experiment.claims(found)) and all(answer.sentence for answer in answers.values())
    assert list(found["geometry"]) == list(arms.OPPOSITES)
    assert found["geometry"]["E2"]["cosine"] == pytest.approx(-1, abs=1e-2)
    table = experiment.geometry_table(found["geometry"])
    assert table.loc["two axes", "cosine of the classes"] == found["geometry"]["E2"]["cosine"]
    shift = found["differences"]["resnet18"]["G_less_E2_shift"].value
    shifts = [found["resnet18"][arm]["importance"]["shift"].value for arm in ("G", "E2")]
    assert shift == pytest.approx(shifts[0] - shifts[1])
    assert found["mean_abs_correlation"] == of_trunk["A"][7].reports[0]["mean_abs_correlation"]
    assert set(measures.REPORTED) <= set(found)


def test_the_budget_says_how_each_network_was_trained():
    profile = BUDGETS["paper"]
    found = experiment.budgets(profile, *fitting.budgets(profile), seeds=5, folds=10)
    assert found["VGG16"]["steps"] == profile.steps and found["VGG16"]["seeds"] == 5
    assert found["ResNet18"]["patience"] == profile.looks[1] and found["ResNet18"]["seeds"] == profile.trunks


def test_the_papers_scores_stand_above_ours_on_its_own_cohort_only(of_trunk):
    entries = compared_trunks(of_trunk)
    both = experiment.paper_comparison(entries, published=True)
    ours = experiment.paper_comparison(entries, published=False)
    assert ("ResNet18+CW", "paper") in both.index and set(ours.index.get_level_values("source")) == {"this run"}
    models = experiment.model_entries(entries)
    assert ours.loc[("ResNet18", "this run"), "accuracy"] == models["BatchNorm"]["seeds"][7]["accuracy"]
    assert models["ResNet18+CW"]["accuracy"] == models["A"]["accuracy"]


def test_the_patches_of_an_axis_are_those_of_tissue_with_its_highest_scores(published):
    evaluated = published["E2"][7]
    scores = evaluated.of_patches("axis_scores")
    best = experiment.best_patches(evaluated)
    assert best["patient"][0] == TEST[scores[1].argmax()] and len(best["control"]) == 10
    glass = pd.DataFrame({"tissue": np.where(best["patient"][0] == EVERY, 0.4, 0.5)}, index=EVERY)
    table = evaluated.pictures.table
    evaluated.pictures.table = table.join(glass)
    again = experiment.best_patches(evaluated)
    evaluated.pictures.table = table
    assert again["patient"][0] == best["patient"][1]
    counts = experiment.best_counts(
        pd.DataFrame({"label": ["control", "patient"] * 40, "subject": ["C", "P"] * 40}), best
    )
    assert counts.loc["control", "of its class"] == (LABELS[best["control"]] == 0).sum()


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
    of_pair = experiment.train_pair(toy_features(), {"train": ROWS, "test": TEST}, pair.rows, seed=0, budget=SHORT)
    assert len(of_pair) == 0 and experiment.pair_positions(of_pair) == {}
    assert experiment.ConceptPair(FEW, tuple(FEW))._repr_markdown_() == "concept 1: *large*; concept 2: *pale*"


def test_ranks_by_layer_are_of_the_test_patches_on_the_axes_of_both_classes():
    scores = np.array([[3.0, 1], [1, 2], [2, 3]])
    ranks = experiment.ranks_by_layer([{"scores": scores}] * len(arms.PLACES))
    assert ranks["layer"].tolist() == np.repeat(arms.PLACES, 3).tolist()
    assert ranks["sample"].tolist() == [0, 1, 2] * len(arms.PLACES)
    assert_allclose(ranks["control"][:3], np.array([3, 1, 2]) / 3 * 100)


SUBJECTS = np.array([f"S{i // 10}" for i in range(len(EVERY))])


def test_in_each_pair_fold_one_of_each_class_is_tested_and_everybody_is():
    people = pd.DataFrame({"subject": [f"C{i}" for i in range(3)] + [f"P{i}" for i in range(5)]})
    table = people.loc[np.repeat(people.index, 4)].reset_index(drop=True)
    table["label"] = np.where(table["subject"].str.startswith("C"), "control", "patient")
    folds = training.pair_folds(table, n_folds=99, seed=0)
    assert list(folds) == [f"fold {i} of 5" for i in range(1, 6)]
    tested = [sorted(set(table["subject"].iloc[rows["test"]])) for rows in folds.values()]
    assert all([subject[0] for subject in pair] == ["C", "P"] for pair in tested)
    assert {subject for pair in tested for subject in pair} == set(people["subject"])
    for rows in folds.values():
        assert sorted([*rows["train"], *rows["test"]]) == list(range(32))
        assert not set(table["subject"].iloc[rows["train"]]) & set(table["subject"].iloc[rows["test"]])
    assert list(training.pair_folds(table, n_folds=2, seed=0)) == ["fold 1 of 5", "fold 2 of 5"]


def test_people_are_dealt_out_to_folds_of_which_some_are_computed():
    table = pd.DataFrame({"subject": SUBJECTS, "label": np.repeat(["control", "patient"], 40)})
    folds = training.people_folds(table, n_folds=4, n_computed=2, seed=0)
    assert list(folds) == ["fold 1 of 4", "fold 2 of 4"]
    assert training.people_folds(table, n_folds=4, n_computed=0, seed=0) == {}
    for fold in folds.values():
        assert sorted(np.concatenate(list(fold.values()))) == EVERY.tolist()
        people = [set(SUBJECTS[rows]) for rows in fold.values()]
        assert not set.intersection(people[0], people[1]) and not set.intersection(people[0], people[2])
    tested = training.tested_people(pd.DataFrame({"subject": SUBJECTS}), {"a": {"test": EVERY[:20]}}, people=4)
    assert tested["tested subjects"].tolist() == ["S0, S1"]
    assert "2 people" in str(training.tested_people(table, {}, people=2))
    assert "too few patches" in str(training.tested_people(table, {}, people=3))


def test_the_record_names_every_unit_of_a_page(published):
    pair = experiment.train_pair(toy_features(), {"train": ROWS, "test": TEST}, {}, seed=0, budget=SHORT)
    used = experiment.used_units([TRUNK], [published], [pair])
    assert len(used) == 2 * len(training.ON_VGG16)
    wanted = {"network": "VGG16", "picture": "toys", "split": "published", "head": "light", "arm": "none", "seed": 7}
    assert used[0]["unit"] == wanted
