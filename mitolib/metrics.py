"""The paper's metrics, equations (1)-(4), computed as they are defined, and the baseline they need.

Equation (1) is printed with FP twice and FN left out of the denominator; accuracy here is
(TP + TN) / all. Precision, recall and F1 are macro averages: the mean of the two classes' values,
since the paper's tables do not single out a positive class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.random import Generator
from scipy.stats import t, ttest_1samp

from mitolib.settings import LABELS

SCORES = ("accuracy", "precision", "recall", "f1", "balanced_accuracy")  # of `scores`, each from 0 to 1
RANGES = dict.fromkeys([*SCORES, "auc"], (0, 1)) | {"generalisation_gap": (-1, 1)}  # of what differs between seeds
COLLAPSED = 0.95  # a network that gives more of its patches one answer has collapsed
LEAST_SUBJECTS = 3  # fewer give no interval


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval. As text: `1.20 (0.90 to 1.52)`, fit for a sentence."""

    value: float | None  # None where nothing is defined
    ci: tuple[float, float] | None = None  # None where there can be none, as below three subjects
    n: int | None = None  # defined values that it rests on
    left_out: int | None = None  # values that were not defined

    def __str__(self) -> str:
        if self.value is None:
            return "no defined value"
        ends = f" ({self.ci[0]:.2f} to {self.ci[1]:.2f})" if self.ci else ""
        return f"{self.value:.2f}{ends}"


def class_index(labels: Sequence[str]) -> np.ndarray:
    """(N,) int: 0 for control, 1 for patient."""
    return np.array([LABELS.index(label) for label in labels])


def scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float | list[list[int]]]:
    """The `models` entry of a results file, from (N,) class indices; a class never predicted has precision 0.

    `confusion` rows are the truth, in the order control, patient. Raises ValueError on an empty or
    mismatched pair, or when a class is absent from the truth (balanced accuracy is then undefined).
    """
    classes = range(len(LABELS))
    if len(truth) != len(predicted) or set(truth) != set(classes):
        raise ValueError(
            f"{len(truth)} truths of classes {sorted(set(truth))} and {len(predicted)} predictions; "
            f"wanted as many of each, with every class of {', '.join(LABELS)} among the truths."
        )
    from sklearn.metrics import (  # a second, which a page that only shows estimates need not wait for
        accuracy_score,
        balanced_accuracy_score,
        confusion_matrix,
        precision_recall_fscore_support,
    )

    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, labels=list(classes), average="macro", zero_division=0
    )
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "balanced_accuracy": float(balanced_accuracy_score(truth, predicted)),
        "majority_baseline": majority_baseline(truth),
        "confusion": confusion_matrix(truth, predicted, labels=list(classes)).tolist(),
    }


def auc(truth: np.ndarray, p_patient: np.ndarray) -> float:
    """Area under the ROC curve: how often a patient's patch has the greater probability. (N,) class indices, (N,)."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, p_patient))


def further_training(values: Sequence[float], *, within: tuple[float, float] = (-inf, inf)) -> Estimate:
    """Mean of a score over trainings alike but for the seed, and the 95 % prediction interval of one more of them.

    By Student's t. within: the least and the most that it can be. No interval for one training.
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, None, n)
    half_width = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) * np.sqrt(1 + 1 / n))
    least, most = within
    return Estimate(mean, (max(least, mean - half_width), min(most, mean + half_width)), n)


def over_draws(values: Sequence[float]) -> Estimate:
    """Mean over independent draws with its 95 % interval by Student's t; what is not defined is left out and counted.

    No interval below three draws, nor where all are alike.
    """
    values = np.asarray(values, float)
    drawn = values[np.isfinite(values)]
    if not len(drawn):
        return Estimate(None, None, 0, len(values))
    ci = None
    if len(drawn) >= LEAST_SUBJECTS and np.ptp(drawn) > 0:
        ci = tuple(float(end) for end in ttest_1samp(drawn, 0).confidence_interval())
    return Estimate(float(drawn.mean()), ci, len(drawn), len(values) - len(drawn))


def holm(p_values: Sequence[float]) -> list[float]:
    """The same p-values corrected for their number by the step-down method of Holm (1979)."""
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(order), 0, -1))
    return stepped.clip(max=1)[np.argsort(order)].tolist()


def majority_baseline(truth: np.ndarray) -> float:
    """Accuracy of always answering the class that is most common among these truths."""
    return float(np.bincount(truth).max() / len(truth))


def interval(values: np.ndarray, subjects: Sequence[str], *, rng: Generator, draws: int = 1000) -> Estimate:
    """Mean of the defined values, and its 95 % bootstrap interval over subjects.

    Each draw takes whole subjects, with replacement. None where nothing is defined; no interval below 3 subjects.
    """
    values, subjects = np.asarray(values, float), np.asarray(subjects)
    defined = np.isfinite(values)
    n, left_out = int(defined.sum()), int((~defined).sum())
    groups = [values[defined & (subjects == subject)] for subject in np.unique(subjects[defined])]
    if not groups:
        return Estimate(None, None, n, left_out)
    ci = None
    if len(groups) >= LEAST_SUBJECTS:
        sums, sizes = np.array([group.sum() for group in groups]), np.array([len(group) for group in groups])
        drawn = rng.integers(len(groups), size=(draws, len(groups)))
        ci = tuple(np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [2.5, 97.5]).tolist())
    return Estimate(float(values[defined].mean()), ci, n, left_out)
