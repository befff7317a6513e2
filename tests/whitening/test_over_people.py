"""Estimates over people, and whether answers run through axes, on answers that are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, log_loss

from mitolib.whitening import over_people

LABELS = np.repeat([0, 1], [30, 60])
SUBJECTS = np.array([f"C{i // 10}" for i in range(30)] + [f"P{i // 10}" for i in range(60)])
SIGNS = 2 * LABELS - 1


def evaluated(**answers: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(
        labels=LABELS,
        subjects=SUBJECTS,
        of_patches=lambda name: answers[name],
        called_patient=answers["log_odds"] > 0,
    )


@pytest.fixture
def two_seeds(rng):
    return {seed: evaluated(log_odds=SIGNS * rng.normal(0.5, 1, 90)) for seed in (1, 2)}


def test_balanced_accuracy_is_the_mean_over_seeds_and_its_interval_over_people(two_seeds):
    found = over_people.scores(two_seeds, rng=np.random.default_rng(0))
    by_seed = [balanced_accuracy_score(LABELS, one.called_patient) for one in two_seeds.values()]
    estimate = found["balanced_accuracy"]
    assert estimate.value == pytest.approx(np.mean(by_seed)) and found["sd_over_seeds"] == pytest.approx(
        np.std(by_seed, ddof=1)
    )
    assert estimate.ci[0] < estimate.value < estimate.ci[1] and found["majority_baseline"] == pytest.approx(2 / 3)
    assert [of["balanced_accuracy"] for of in found["seeds"].values()] == pytest.approx(by_seed)
    assert over_people.scores({1: two_seeds[1]}, rng=np.random.default_rng(0))["sd_over_seeds"] is None


def test_the_interval_is_wide_where_people_differ_and_narrow_where_patches_do(rng):
    by_person = np.isin(SUBJECTS, ["C0", "P0", "P1", "P2"]).astype(float)
    by_patch = rng.permuted(np.tile([0.0, 1.0], (9, 5)), axis=1).ravel()
    wide, narrow = (
        over_people.balanced(values, LABELS, SUBJECTS, rng=np.random.default_rng(0)) for values in (by_person, by_patch)
    )
    assert wide.value == pytest.approx((1 / 3 + 1 / 2) / 2) and narrow.value == pytest.approx(0.5)
    assert np.ptp(wide.ci) > 0.4 and narrow.ci is None, "half of every person's patches: no draw differs"


def test_a_perfect_score_has_the_exact_interval_of_its_people_and_no_difference_has_none():
    perfect = over_people.balanced(np.ones(90), LABELS, SUBJECTS, rng=np.random.default_rng(0))
    low = binomtest(9, 9).proportion_ci(method="exact").low
    assert perfect.value == 1 and perfect.ci == pytest.approx((low, 1))
    none = over_people.balanced(np.zeros(90), LABELS, SUBJECTS, rng=np.random.default_rng(0))
    assert none.value == 0 and none.ci is None
    two = np.isin(SUBJECTS, ["C0", "P0"])
    few = over_people.balanced(np.ones(two.sum()), LABELS[two], SUBJECTS[two], rng=np.random.default_rng(0))
    assert few.value == 1 and few.ci is None


def test_a_difference_is_paired_by_patch(two_seeds, rng):
    better = {seed: evaluated(log_odds=one.of_patches("log_odds") + 0.4 * SIGNS) for seed, one in two_seeds.items()}
    gap = over_people.difference(better, two_seeds, rng=np.random.default_rng(0))
    values = [over_people.scores(one, rng=rng)["balanced_accuracy"].value for one in (better, two_seeds)]
    assert gap.value == pytest.approx(values[0] - values[1])
    unpaired = over_people.scores(better, rng=np.random.default_rng(0))["balanced_accuracy"]
    assert gap.ci[0] > 0 and np.ptp(gap.ci) < np.ptp(unpaired.ci) * 1.5


def test_importance_is_what_permuting_the_axes_does_beyond_what_permuting_others_does(rng):
    answer = 2.0 * SIGNS + rng.normal(0, 0.1, 90)
    nothing = np.stack([answer, answer])
    through = evaluated(log_odds=answer, permuted_axes=0 * nothing, permuted_others=nothing, axes_alone=nothing)
    found = over_people.importance({1: through}, rng=np.random.default_rng(0))
    assert found["rise_others"].value == 0 and found["fall_others"].value == 0 and found["shift_others"].value == 0
    p = 1 / (1 + np.exp(-answer))
    weights = np.where(LABELS == 1, 1 / 60, 1 / 30)
    assert found["rise"].value == pytest.approx(np.log(2) - log_loss(LABELS, p, sample_weight=weights), abs=1e-6)
    of_class = [np.abs(answer[label == LABELS]).mean() for label in (0, 1)]
    assert found["shift"].value == pytest.approx(np.mean(of_class) / answer.std())
    assert found["shift_more"].ci[0] > 0 and found["rise_more"].ci[0] > 0
    assert found["alone"].value == 1 and found["fall"].value == 1
    mixed = np.stack([0 * answer, answer])
    beside = evaluated(log_odds=answer, permuted_axes=nothing, permuted_others=mixed, axes_alone=-nothing)
    found = over_people.importance({1: beside}, rng=np.random.default_rng(0))
    assert found["rise"].value == 0 and found["shift_more"].ci[1] < 0 and found["alone"].value == 0
    assert found["fall_others"].value == 0.5, "the mean over draws"
    gap = over_people.difference_of_shifts({1: through}, {1: beside}, rng=np.random.default_rng(0))
    assert gap.ci[0] > 0


def test_a_network_with_one_answer_for_all_patches_is_moved_by_nothing():
    still = evaluated(log_odds=np.ones(90), permuted_axes=np.ones((2, 90)))
    assert (over_people.shift({1: still}, "permuted_axes") == 0).all()
