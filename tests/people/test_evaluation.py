from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pandas as pd
import pytest

from mitolib import networks, splits
from mitolib.people import evaluation

CONTROLS, PATIENTS = [f"C{i}" for i in range(4)], [f"P{i}" for i in range(10)]


def people(each: int = 20) -> tuple[pd.DataFrame, np.ndarray]:
    """`each` patches of each of 14 subjects, and their class indices."""
    table = pd.DataFrame({"subject": np.repeat(CONTROLS + PATIENTS, each)})
    truth = (table["subject"].str[0] == "P").to_numpy(int)
    return table.assign(label=np.array(["control", "patient"])[truth]), truth


def recording(log: list[tuple[list[int], list[int]]]) -> evaluation.Model:
    """A model that notes what it was given; its p is a hundredth of the row."""

    def model(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        log.append((train.tolist(), test.tolist()))
        return test / 100

    return model


# ---- folds


def test_every_tested_patch_of_every_fold_is_answered_in_order():
    table, truth = pd.DataFrame({"subject": list("ABCD")}), np.array([0, 1, 0, 1])
    folds = [pd.Series(fold) for fold in (["test", "train", "validation", "test"], ["train", "test", "", "train"])]
    log = []
    told = evaluation.out_of_fold(recording(log), table, truth, folds)
    assert log == [([1], [0, 3]), ([0, 3], [1])], "what is neither train nor test is not touched"
    assert set(told) == {"fold", "row", "subject", "truth", "p"}
    wanted = [[0, 0, "A", 0, 0.0], [0, 3, "D", 1, 0.03], [1, 1, "B", 1, 0.01]]
    assert told[["fold", "row", "subject", "truth", "p"]].to_numpy().tolist() == wanted


def test_two_processes_answer_as_one(rng):
    table, truth = people(each=3)
    model = evaluation.Logistic(rng.standard_normal((len(table), 4)), truth)
    folds = splits.leave_one_subject_out(table)[::3]
    one, two = (evaluation.out_of_fold(model, table, truth, folds, workers=workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(one, two)


def auc_of_pairs(told: pd.DataFrame) -> float:
    """Share of the folds, each of a control and a patient, in which the patient has the greater mean p."""
    means = told.groupby(["fold", "truth"])["p"].mean().unstack()
    return (means[1] > means[0]).mean()


def test_subjects_without_a_disease_are_told_apart_by_the_published_split_and_not_by_pairs():
    table, truth = people()
    accuracies, aucs = [], []
    for draw in range(8):
        rng = np.random.default_rng(draw)
        own = rng.standard_normal((14, 50)).repeat(20, axis=0)
        model = evaluation.Logistic(own + 0.1 * rng.standard_normal(own.shape), truth)
        told = evaluation.out_of_fold(model, table, truth, [splits.published(table, "exp2")])
        accuracies.append(((told["p"] > 0.5) == (told["truth"] == 1)).mean())
        pairs = splits.leave_one_control_one_patient_out(table)
        aucs.append(auc_of_pairs(evaluation.out_of_fold(model, table, truth, pairs)))
    assert min(accuracies) > 0.95 and abs(np.mean(aucs) - 0.5) < 0.2


def test_a_disease_is_found_by_both_splits(rng):
    table, truth = people()
    model = evaluation.Logistic(2 * truth[:, None] + rng.standard_normal((len(table), 20)), truth)
    told = evaluation.out_of_fold(model, table, truth, [splits.published(table, "exp2")])
    assert ((told["p"] > 0.5) == (told["truth"] == 1)).mean() > 0.95
    pairs = splits.leave_one_control_one_patient_out(table)
    assert auc_of_pairs(evaluation.out_of_fold(model, table, truth, pairs)) == 1


# ---- models

TRAIN, TEST = np.arange(0, 40, 2), np.arange(1, 40, 2)


def planted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features of 40 patches, (40, 1, 1, 3), and labels that they tell."""
    labels = np.arange(40) // 2 % 2
    return labels[:, None, None, None] + 0.3 * rng.standard_normal((40, 1, 1, 3)), labels


@pytest.fixture
def light_head(monkeypatch) -> Iterator[None]:
    """Softmax regression in place of the paper's head, to save time."""

    def light(shape: tuple[int, ...]) -> keras.Model:
        x = keras.Input(shape)
        return keras.Model(x, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x)))

    monkeypatch.setattr(networks, "head", light)
    evaluation._fresh.cache_clear()
    yield
    evaluation._fresh.cache_clear()


def head(features: np.ndarray, labels: np.ndarray, **changed: object) -> evaluation.Head:
    return evaluation.Head(features, labels, **{"steps": 60, "batch_size": 4, "learning_rate": 0.1} | changed)


MODELS = {
    "majority": lambda features, labels: evaluation.Majority(labels),
    "logistic": lambda features, labels: evaluation.Logistic(features.reshape(len(features), -1), labels),
    "head": head,
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_true_of_the_test_patches_changes_no_answer(name, rng, light_head):
    features, labels = planted(rng)
    other_labels, other_features = labels.copy(), features.copy()
    other_labels[TEST] = 1 - labels[TEST]
    other_features[TEST[1:]] *= 1000
    p = MODELS[name](features, labels)(TRAIN, TEST)
    assert p.shape == (20,) and ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(MODELS[name](features, other_labels)(TRAIN, TEST), p, atol=1e-6)
    np.testing.assert_allclose(MODELS[name](other_features, labels)(TRAIN, TEST)[0], p[0], atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_true_of_the_training_patches_changes_the_answers(name, rng, light_head):
    features, labels = planted(rng)
    p, other = (MODELS[name](features, told)(TRAIN[:19], TEST) for told in (labels, 1 - labels))
    assert np.abs(p - other).max() > 0.1


@pytest.mark.parametrize("name", ["logistic", "head"])
def test_a_planted_difference_is_learned(name, rng, light_head):
    features, labels = planted(rng)
    p = MODELS[name](features, labels)(TRAIN, TEST)
    assert ((p > 0.5) == (labels[TEST] == 1)).mean() > 0.9


def test_the_majority_is_that_of_the_training_patches():
    model = evaluation.Majority(np.array([0, 0, 1, 1, 1]))
    assert model(np.array([0, 1, 2]), np.array([3, 4])).tolist() == [0, 0]
    assert model(np.array([0, 2, 3]), np.array([1])).tolist() == [1]


def test_features_are_standardised_by_the_training_patches_and_their_unit_does_not_matter(rng):
    features, labels = planted(rng)
    features = features.reshape(40, 3)
    scaler = evaluation.Logistic(features, labels).fit(TRAIN)[0]
    np.testing.assert_allclose(scaler.mean_, features[TRAIN].mean(axis=0))
    p = evaluation.Logistic(features, labels)(TRAIN, TEST)
    scaled = evaluation.Logistic(5 + features * [1, 100, 0.01], labels)(TRAIN, TEST)
    np.testing.assert_allclose(scaled, p, atol=1e-3)


def test_a_smaller_c_draws_the_answers_together(rng):
    features, labels = planted(rng)
    far, near = (evaluation.Logistic(features.reshape(40, 3), labels, c)(TRAIN, TEST).std() for c in (1, 0.001))
    assert near < far / 2


def test_a_head_repeats_with_its_seed_and_changes_with_seed_and_steps(rng):
    features, labels = planted(rng)
    one, again, other, longer = (
        head(features, labels, learning_rate=5e-4, **{"steps": 2} | changed)(TRAIN, TEST)
        for changed in ({}, {}, {"seed": 1}, {"steps": 3})
    )
    evaluation._fresh.cache_clear()  # as in another process
    anew = head(features, labels, learning_rate=5e-4, steps=2)(TRAIN, TEST)
    np.testing.assert_allclose([again, anew], [one, one], atol=1e-6)
    assert np.abs(one - other).max() > 1e-4 and np.abs(one - longer).max() > 1e-4
    assert one.shape == (20,) and ((one >= 0) & (one <= 1)).all()


@pytest.mark.parametrize(("n_train", "steps", "batch_size"), [(20, 15, 4), (3, 2, 8), (20, 1, 4), (13, 9, 2)])
def test_a_head_sees_the_patches_of_a_class_equally_often_and_both_classes_in_every_batch(
    n_train, steps, batch_size, rng, light_head, monkeypatch
):
    batches = []
    original = keras.Model.train_on_batch
    monkeypatch.setattr(
        keras.Model, "train_on_batch", lambda self, x, y: batches.append((x, y)) or original(self, x, y)
    )
    features, labels = planted(rng)
    features[:, 0, 0, 0] = np.arange(40)
    train = TRAIN[:n_train]
    p = head(features, labels, steps=steps, batch_size=batch_size, learning_rate=1e-3)(train, TEST)
    assert np.isfinite(p).all() and len(batches) == steps
    seen = np.array([x[:, 0, 0, 0] for x, _ in batches]).astype(int)
    assert (np.array([y for _, y in batches]) == np.eye(2)[labels[seen]]).all()
    assert (labels[seen].sum(axis=1) == batch_size / 2).all()
    times = np.bincount(seen.ravel(), minlength=40)
    assert times[train].sum() == steps * batch_size
    assert all(np.ptp(times[train[labels[train] == label]]) <= 1 for label in (0, 1))


def test_a_head_trained_on_one_class_and_one_whose_classes_cannot_share_a_batch(rng, light_head):
    features, labels = planted(rng)
    sick = TRAIN[labels[TRAIN] == 1]
    assert set(head(features, labels, steps=3).batches(sick).ravel()) <= set(sick)
    with pytest.raises(ValueError, match="batches of 3; wanted a multiple of the 2 classes"):
        head(features, labels, batch_size=3)(TRAIN, TEST)


def test_the_learning_rate_of_a_head_falls_to_zero(rng, light_head):
    features, labels = planted(rng)
    few = head(features, labels, steps=4, learning_rate=0.2)
    few(TRAIN, TEST)
    fresh, _ = evaluation._fresh(features.shape[1:], 0.2, 4, 0)
    rates = [float(fresh.optimizer._learning_rate(step)) for step in range(5)]
    assert int(fresh.optimizer.iterations) == 4, "the optimiser that was trained"
    assert rates == pytest.approx([0.2, 0.15, 0.1, 0.05, 0])


def test_a_class_weighs_the_same_however_many_patches_it_has(rng):
    """A feature that tells nothing: the answers lie about one half, not at the share of the commoner class."""
    features, labels = rng.standard_normal((400, 1)), np.repeat([0, 1, 1, 1], 100)
    p = evaluation.Logistic(features, labels)(np.arange(400), np.arange(400))
    assert abs(p.mean() - 0.5) < 0.02


def test_more_test_patches_than_a_part_are_answered_in_order(rng, light_head):
    features, labels = planted(rng)
    many = rng.choice(TEST, 600)
    p = head(features, labels)(TRAIN, many)
    few = dict(zip(TEST, head(features, labels)(TRAIN, TEST), strict=True))
    np.testing.assert_allclose(p, [few[row] for row in many], atol=1e-6)


# ---- twins


def patch_table() -> pd.DataFrame:
    """Two patches of a control and three of two patients; the index no range."""
    return pd.DataFrame(
        {"subject": list("CCPPQ"), "label": ["control"] * 2 + ["patient"] * 3, "x": range(5)}, index=[7, 3, 9, 1, 4]
    )


def test_every_patch_has_one_twin_and_knows_what_its_pixels_deserve():
    twinned = evaluation.with_twins(patch_table())
    assert twinned.index.tolist() == list(range(10))
    assert twinned["twin"].tolist() == [""] * 5 + ["cured"] * 3 + ["afflicted"] * 2
    assert twinned["origin"].tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 0, 1]
    assert twinned["taught"].tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 1, 1]
    kept = ["subject", "label", "x"]
    assert (twinned[kept].to_numpy() == patch_table()[kept].to_numpy()[twinned["origin"]]).all()


@pytest.mark.parametrize(("kinds", "twins"), [(["cured"], [2, 3, 4]), (["afflicted"], [0, 1]), ([], [])])
def test_a_twin_that_was_not_drawn_has_no_row(kinds, twins):
    twinned = evaluation.with_twins(patch_table(), kinds)
    assert twinned["origin"].tolist() == [*range(5), *twins] and set(twinned["twin"][5:]) == set(kinds)


def test_twins_are_tested_with_their_patches_and_never_train():
    split = pd.Series(["train", "test", "test", "validation", ""], patch_table().index)
    twinned = evaluation.with_twins(patch_table())
    found = evaluation.tested_with_twins(split, twinned)
    assert found.index.equals(twinned.index) and found.name == "split"
    assert found.tolist() == [*split, "test", "", "", "", "test"]


def test_an_augmented_model_trains_on_the_twins_of_its_training_patches_and_no_others():
    twinned, log = evaluation.with_twins(patch_table()), []
    model = evaluation.Augmented(recording(log), twinned["origin"].to_numpy())
    p = model(np.array([0, 2]), np.array([1, 3]))
    assert log == [([0, 2, 5, 8], [1, 3])] and p.tolist() == [0.01, 0.03], "patch 4 is left out, with its twin"


def test_the_effect_of_twins_is_the_mean_answer_before_and_after_for_each_subject():
    twinned = evaluation.with_twins(patch_table())
    p = dict(zip(range(10), [0.1, 0.2, 0.9, 0.8, 0.6, 0.3, 0.1, 0.5, 0.7, 0.8], strict=True))
    rows = [0, 1, 8, 9, 2, 3, 5, 6, 4, 7]
    told = pd.DataFrame({"row": rows, "subject": twinned["subject"].to_numpy()[rows], "fold": 0})
    told["p"], told["truth"] = told["row"].map(p), (told["subject"] != "C").astype(int)
    again = told.assign(p=told["p"] + 0.1, fold=1)
    found = evaluation.effect_of_twins(pd.concat([told, again], ignore_index=True), twinned)
    assert found.index.tolist() == ["C", "P", "Q"] and found["label"].tolist() == ["control", "patient", "patient"]
    assert found["before"].tolist() == pytest.approx([0.2, 0.9, 0.65])
    assert found["after"].tolist() == pytest.approx([0.8, 0.25, 0.55])


def test_controls_stand_first_in_the_effect_of_twins_whatever_their_name():
    table = pd.DataFrame({"subject": ["Z", "A"], "label": ["control", "patient"]})
    twinned = evaluation.with_twins(table)
    split = evaluation.tested_with_twins(pd.Series(["test", "test"]), twinned)
    told = evaluation.out_of_fold(recording([]), twinned, twinned["label"].eq("patient").to_numpy(int), [split])
    found = evaluation.effect_of_twins(told, twinned)
    assert found.index.tolist() == ["Z", "A"] and set(found) == {"label", "before", "after"}
    assert found["before"].tolist() == [0, 0.01] and found["after"].tolist() == [0.03, 0.02]


def effects(*rows: tuple[str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["label", "before", "after"])


def test_what_the_disease_carries_is_the_fall_by_the_cure_over_the_distance_of_the_classes():
    controls = [("control", 0.1, 0.9), ("control", 0.3, 0.4), ("control", 0.6, 0.8)]
    patients = [("patient", 0.9, 0.3), ("patient", 0.8, 0.6), ("patient", 0.7, 0.5), ("patient", 0.4, 0.2)]
    found = evaluation.carried(effects(*controls, *patients))
    assert {name: found.pop(name) for name in ("fall", "share", "rise")} == {
        "fall": pytest.approx(1.2 / 4),
        "share": pytest.approx(0.3 / (0.7 - 1 / 3)),
        "rise": pytest.approx(1.1 / 3),
    }
    assert found == {"turned": 2, "called": 3, "afflicted_turned": 1, "afflicted_called": 2}


@pytest.mark.parametrize(("apart", "share"), [(0.04, None), (-0.3, None), (0.5, pytest.approx(0.2))])
def test_classes_that_are_not_told_apart_have_no_share_to_carry(apart, share):
    assert evaluation.carried(effects(("control", 0.4, 0.4), ("patient", 0.4 + apart, 0.3 + apart)))["share"] == share


# ---- who is it


def test_a_probe_names_subjects_that_differ_and_chance_is_the_commonest_in_the_test_set(rng):
    subjects = np.repeat(list("ABC"), [30, 20, 10])
    features = np.eye(3)[np.repeat([0, 1, 2], [30, 20, 10])] + 0.05 * rng.standard_normal((60, 3))
    split = pd.Series(np.where(np.arange(60) % 5 == 0, "test", "train"))
    split[0] = ""
    found = evaluation.subject_probe(features, subjects, split)
    assert found == {"accuracy": 1.0, "chance": pytest.approx(5 / 11)}
    swapped = np.where((split == "test").to_numpy()[:, None], features[:, [1, 0, 2]], features)
    assert evaluation.subject_probe(swapped, subjects, split)["accuracy"] == pytest.approx(2 / 11)
    noise = evaluation.subject_probe(rng.standard_normal((60, 3)), subjects, split)
    assert noise["accuracy"] < 0.8 and noise["chance"] == found["chance"]


def test_a_leak_is_counted_in_patches_pixels_and_people():
    table = pd.DataFrame({"subject": list("AABBC")})
    split = pd.Series(["train", "test", "test", "validation", "test"])
    found = evaluation.leak(table, split, pd.Series([1.0, 0.5, 0.0], index=[1, 2, 4]))
    assert found == {
        "share_of_patches": pytest.approx(2 / 3),
        "mean_shared_fraction": 0.5,
        "wholly_seen": pytest.approx(1 / 3),
        "subjects_seen": pytest.approx(1 / 3),
    }


def test_features_are_centred_and_scaled_within_their_group_and_a_lone_row_is_zero(rng):
    features = rng.normal(5, 3, (9, 2))
    sections, twins = pd.Series(list("AAAABBBBC")), pd.Series([""] * 8 + ["cured"])
    found = evaluation.centred(features, [sections, twins])
    for group in (slice(0, 4), slice(4, 8)):
        np.testing.assert_allclose(found[group].mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(found[group].std(axis=0, ddof=1), 1, rtol=1e-5)
    assert (found[8] == 0).all()
