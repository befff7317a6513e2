from __future__ import annotations

import numpy as np
import pytest

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
