from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mitolib import metrics

TRUTH = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
CALLS = np.array([0, 0, 1, 1, 1, 1, 1, 1, 0, 0])  # 2 of 3 controls, 5 of 7 patients right


def test_scores_agree_with_equations_1_to_4_by_hand():
    scores = metrics.scores(TRUTH, CALLS)
    precision = (2 / 4 + 5 / 6) / 2
    recall = (2 / 3 + 5 / 7) / 2
    f1 = (2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3) + 2 * (5 / 6) * (5 / 7) / (5 / 6 + 5 / 7)) / 2
    assert scores["accuracy"] == pytest.approx(0.7)
    assert scores["precision"] == pytest.approx(precision)
    assert scores["recall"] == scores["balanced_accuracy"] == pytest.approx(recall)
    assert scores["f1"] == pytest.approx(f1)
    assert scores["confusion"] == [[2, 1], [2, 5]], "rows are the truth, control first"


def test_always_answering_patient_scores_the_baseline_and_half_the_balanced_accuracy():
    scores = metrics.scores(TRUTH, np.ones(10, int))
    assert scores["accuracy"] == scores["majority_baseline"] == 0.7
    assert scores["balanced_accuracy"] == 0.5


@pytest.mark.parametrize(("truth", "calls"), [([], []), ([1, 1], [1, 0]), ([0, 1], [0])])
def test_scores_that_are_not_defined_are_refused(truth, calls):
    with pytest.raises(ValueError, match="wanted as many of each"):
        metrics.scores(np.array(truth, int), np.array(calls, int))


def test_class_indices_follow_the_order_of_the_labels():
    assert metrics.class_index(["patient", "control"]).tolist() == [1, 0]


def test_an_interval_resamples_subjects_and_counts_what_is_left_out(rng):
    values, subjects = np.array([0, 0, 0, 1, 1, 2, np.nan]), list("AAABBCC")
    found = metrics.interval(values, subjects, rng=rng)
    assert found.value == pytest.approx(4 / 6) and (found.n, found.left_out) == (6, 1)
    assert found.ci == (0, 2), "with three subjects, all draws of one of them lie within the 95 %"


def test_an_interval_wants_three_subjects_with_a_defined_value(rng):
    values, subjects = np.array([0, 0, 1, 1, 2]), np.array(list("AABBC"))
    assert metrics.interval(values, subjects, rng=rng).ci is not None
    assert metrics.interval(values[:4], subjects[:4], rng=rng).ci is None
    assert metrics.interval(np.where(subjects == "C", np.nan, values), subjects, rng=rng).ci is None
    assert metrics.interval(np.array([np.nan]), ["A"], rng=rng) == metrics.Estimate(None, None, 0, 1)


def test_patches_of_one_subject_that_agree_make_the_interval_no_narrower(rng):
    single = metrics.interval(np.arange(9), np.arange(9), rng=np.random.default_rng(0))
    copied = metrics.interval(np.repeat(np.arange(9), 50), np.repeat(np.arange(9), 50), rng=np.random.default_rng(0))
    assert copied.ci == pytest.approx(single.ci)
    alone = metrics.interval(np.repeat(np.arange(9), 50), np.arange(450), rng=rng)
    assert np.ptp(alone.ci) < np.ptp(single.ci) / 2, "as if each patch were of a subject of its own"


def test_an_estimate_is_written_with_its_interval():
    assert str(metrics.Estimate(1.2, (0.9, 1.516))) == "1.20 (0.90 to 1.52)"
    assert str(metrics.Estimate(1.2)) == "1.20"
    assert str(metrics.Estimate(None)) == "no defined value"


def test_one_further_training_lies_in_its_interval_as_often_as_it_says(rng):
    """The claim itself: of many sets of six, the interval of the first five holds the sixth in 95 % of cases."""
    drawn = rng.normal(0.6, 0.05, (4000, 6))
    inside = 0
    for *seen, further in drawn:
        low, high = metrics.further_training(seen).ci
        inside += low <= further <= high
    assert inside / len(drawn) == pytest.approx(0.95, abs=0.012)
    assert metrics.further_training([0.7]) == metrics.Estimate(0.7, None, 1)
    assert metrics.further_training([0.5, 1.0]).ci[1] > 1 == metrics.further_training([0.5, 1.0], within=(0, 1)).ci[1]


def test_the_auc_is_the_share_of_pairs_in_which_the_patient_has_more():
    truth, p = np.array([0, 0, 1, 1]), np.array([0.6, 0.8, 0.7, 0.9])
    assert metrics.auc(truth, p) == 0.75, "at a threshold of one half all four are called patients"


def test_an_interval_over_draws_is_students_and_counts_what_is_left_out():
    values = [0.4, 0.5, 0.7, 0.6, np.nan]
    found = metrics.over_draws(values)
    half = stats.t.ppf(0.975, 3) * np.std(values[:4], ddof=1) / 2
    assert found.value == pytest.approx(0.55) and (found.n, found.left_out) == (4, 1)
    assert found.ci == pytest.approx((0.55 - half, 0.55 + half))


def test_too_few_draws_or_equal_ones_are_no_interval():
    assert metrics.over_draws([0.4, 0.6]).ci is None
    assert metrics.over_draws([0.5, 0.5, 0.5]) == metrics.Estimate(0.5, None, 3, 0), "never 0.50 (0.50 to 0.50)"
    assert metrics.over_draws([np.nan]) == metrics.Estimate(None, None, 0, 1)


def test_holm_is_that_of_its_paper():
    assert metrics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert metrics.holm([0.5, 0.6]) == [1, 1] and metrics.holm([]) == []
