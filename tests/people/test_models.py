"""From the majority to the paper's head: what a model may know, and what it learns."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest

from mitolib.people import models

TRAIN, TEST = np.arange(0, 40, 2), np.arange(1, 40, 2)


def planted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features of 40 patches, (40, 1, 1, 3), and labels that they tell."""
    labels = np.arange(40) // 2 % 2
    return labels[:, None, None, None] + 0.3 * rng.standard_normal((40, 1, 1, 3)), labels


def head(features: np.ndarray, labels: np.ndarray, **changed: object) -> models.Head:
    return models.Head(features, labels, **{"steps": 60, "batch_size": 4, "learning_rate": 0.1} | changed)


MODELS = {
    "majority": lambda features, labels: models.Majority(labels),
    "logistic": lambda features, labels: models.Logistic(features.reshape(len(features), -1), labels),
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
    p, other = (MODELS[name](features, answers)(TRAIN[:19], TEST) for answers in (labels, 1 - labels))
    assert np.abs(p - other).max() > 0.1


@pytest.mark.parametrize("name", ["logistic", "head"])
def test_a_planted_difference_is_learned(name, rng, light_head):
    features, labels = planted(rng)
    p = MODELS[name](features, labels)(TRAIN, TEST)
    assert ((p > 0.5) == (labels[TEST] == 1)).mean() > 0.9


def test_the_majority_is_that_of_the_training_patches():
    model = models.Majority(np.array([0, 0, 1, 1, 1]))
    assert model(np.array([0, 1, 2]), np.array([3, 4])).tolist() == [0, 0]
    assert model(np.array([0, 2, 3]), np.array([1])).tolist() == [1]


def test_features_are_standardised_by_the_training_patches_and_their_unit_does_not_matter(rng):
    features, labels = planted(rng)
    features = features.reshape(40, 3)
    scaler = models.Logistic(features, labels).fit(TRAIN)[0]
    np.testing.assert_allclose(scaler.mean_, features[TRAIN].mean(axis=0))
    p = models.Logistic(features, labels)(TRAIN, TEST)
    scaled = models.Logistic(5 + features * [1, 100, 0.01], labels)(TRAIN, TEST)
    np.testing.assert_allclose(scaled, p, atol=1e-3)


def test_a_smaller_c_draws_the_answers_together(rng):
    features, labels = planted(rng)
    far, near = (models.Logistic(features.reshape(40, 3), labels, c)(TRAIN, TEST).std() for c in (1, 0.001))
    assert near < far / 2


def test_a_head_repeats_with_its_seed_and_changes_with_seed_and_steps(rng):
    features, labels = planted(rng)
    one, again, other, longer = (
        head(features, labels, learning_rate=5e-4, **{"steps": 2} | changed)(TRAIN, TEST)
        for changed in ({}, {}, {"seed": 1}, {"steps": 3})
    )
    models._fresh.cache_clear()  # as in another process
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
        keras.Model,
        "train_on_batch",
        lambda self, x, y, **options: batches.append((x, y)) or original(self, x, y, **options),
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
    with pytest.raises(ValueError, match=r"batches of 3; .*2 classes"):
        head(features, labels, batch_size=3)(TRAIN, TEST)


def test_the_learning_rate_of_a_head_falls_to_zero(rng, light_head):
    features, labels = planted(rng)
    head(features, labels, steps=4, learning_rate=0.2)(TRAIN, TEST)
    fresh, _ = models._fresh(features.shape[1:], 0.2, 4, 0)
    rates = [float(fresh.optimizer._learning_rate(step)) for step in range(5)]
    assert int(fresh.optimizer.iterations) == 4, "the optimiser that was trained"
    assert rates == pytest.approx([0.2, 0.15, 0.1, 0.05, 0])


def test_a_class_weighs_the_same_however_many_patches_it_has(rng):
    """A feature that tells nothing: the answers lie about one half, not at the share of the commoner class."""
    features, labels = rng.standard_normal((400, 1)), np.repeat([0, 1, 1, 1], 100)
    p = models.Logistic(features, labels)(np.arange(400), np.arange(400))
    assert abs(p.mean() - 0.5) < 0.02


def test_more_test_patches_than_a_part_are_answered_in_order(rng, light_head):
    features, labels = planted(rng)
    many = rng.choice(TEST, 600)
    p = head(features, labels)(TRAIN, many)
    once = dict(zip(TEST, head(features, labels)(TRAIN, TEST), strict=True))
    np.testing.assert_allclose(p, [once[row] for row in many], atol=1e-6)


def test_an_augmented_model_trains_on_the_twins_of_its_training_patches_and_no_others():
    asked = []

    def model(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        asked.append((train.tolist(), test.tolist()))
        return test / 100

    origin = np.array([0, 1, 2, 3, 4, 2, 3, 4, 0, 1])  # rows 5 to 9 are twins
    p = models.Augmented(model, origin)(np.array([0, 2]), np.array([1, 3]))
    assert asked == [([0, 2, 5, 8], [1, 3])] and p.tolist() == [0.01, 0.03], "patch 4 is left out, with its twin"


def test_a_head_trains_on_augmented_copies_in_turn_and_is_tested_on_plain_patches(rng, light_head):
    features, labels = planted(rng)
    asked = []

    def augmented(rows: np.ndarray, before: np.ndarray) -> np.ndarray:
        asked.append((rows, before))
        return features[rows]

    plain, varied = head(features, labels, steps=15), head(features, labels, steps=15, augmented=augmented)
    np.testing.assert_allclose(varied(TRAIN, TEST), plain(TRAIN, TEST), atol=1e-6)
    rows, before = (np.concatenate(part) for part in zip(*asked, strict=True))
    for row in TRAIN:
        assert before[rows == row].tolist() == list(range((rows == row).sum())), "copy after copy"


def test_how_often_a_row_was_drawn_before_is_counted_through_all_batches():
    assert models.drawn_before(np.array([[3, 5], [5, 3], [7, 5]])).tolist() == [[0, 0], [1, 1], [0, 2]]


def shifted_people(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """A score that ranks people well, but whose line lies at 2.5; three people of each class, ten patches each."""
    subjects = np.repeat(list("ABCDEF"), 10)
    truth = (subjects > "C").astype(int)
    table = pd.DataFrame({"subject": subjects, "label": np.where(truth, "patient", "control")})
    return 2 + truth + 0.2 * rng.standard_normal(60), truth, table


def test_a_threshold_from_training_people_mends_answers_that_are_ordered_but_shifted(rng):
    score, truth, table = shifted_people(rng)

    def model(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-score[test]))

    train, test = (np.flatnonzero(np.isin(table["subject"], names)) for names in (list("ABDE"), list("CF")))
    p = models.Thresholded(model, table)(train, test)
    assert ((model(train, test) > 0.5) == truth[test]).mean() == 0.5, "one answer for all"
    assert ((p > 0.5) == truth[test]).mean() > 0.9
    assert np.array_equal(np.argsort(p), np.argsort(model(train, test))), "the order stays"


def test_who_is_tested_has_no_say_in_the_threshold_and_two_people_choose_none(rng):
    _, _, table = shifted_people(rng)
    asked = []

    def model(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        asked.append((set(train), set(test)))
        return np.full(len(test), 0.3)

    train, test = (np.flatnonzero(np.isin(table["subject"], names)) for names in (list("ABDE"), list("CF")))
    models.Thresholded(model, table)(train, test)
    assert [bool(tested & set(test)) for _, tested in asked] == [True, False, False]
    assert not any(trained & (set(test) | tested) for trained, tested in asked[1:])
    pair = np.flatnonzero(np.isin(table["subject"], list("AD")))
    assert models.Thresholded(model, table).line(pair) == 0.5
