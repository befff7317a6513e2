"""Models that learn from people by the label of the person alone: a person is a bag of patches or of fibres.

A learner is fitted to bags and labels and then says of any bag how probably it is a patient's. Mosaic disease is in a
few fibres: what is averaged over a section hides it, so a bag is also told by its most abnormal rows (top-k pooling:
multiple-instance learning), or by the quantiles of its rows. The line between the classes comes from training people:
they are left out in turn, and a logistic regression turns the evidence of those left out into a probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mitolib import heads, linear
from mitolib.people.models import Head
from mitolib.people.morphometry import DeficientShare
from mitolib.people.readers import FIBRE_COLUMNS

Bags = Sequence[np.ndarray]  # of each person (n, F) rows, or (n, h, w, c) maps
FOLDS = 5  # of training people who are left out in turn for the line
QUANTILES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)


class LearnerError(ValueError):
    """Bags that nothing can be learnt from; the message says what was found and what helps."""


@dataclass(frozen=True)
class Fitted:
    """p: bags -> (N,) probability of "patient". rows: a bag -> (n,) how much each row speaks for "patient"; or None."""

    p: Callable[[Bags], np.ndarray]
    rows: Callable[[np.ndarray], np.ndarray] | None = None


class Learner(Protocol):
    """Learns from the bags of people and their labels. Its fields are plain values: a unit depends on them."""

    def fit(self, bags: Bags, labels: np.ndarray) -> Fitted:
        """labels: (N,) class indices of people."""


def refuse(bags: Bags, labels: np.ndarray) -> None:
    """Raise LearnerError below two people of each class, or where somebody has no row."""
    if empty := [str(place + 1) for place, bag in enumerate(bags) if not len(bag)]:
        raise LearnerError(
            f"of {len(bags)} people no patch or fibre was read of number {', '.join(empty)}; wanted one at least. Look "
            "at their pictures, or draw larger sections."
        )
    controls, patients = np.bincount(labels, minlength=2)[:2]
    if min(controls, patients) < 2:
        raise LearnerError(
            f"{controls} controls and {patients} patients to train on; wanted two of each at least, of whom some are "
            "left out for the line between the classes. Add people."
        )


class _Evidence(Protocol):
    """What a learner with a line makes of bags before the line is drawn."""

    def evidence(self, bags: Bags) -> np.ndarray:
        """(N,), greater for patients."""


@dataclass(frozen=True)
class TopRows:
    """Logistic regression on rows, each taught the label of its person; a bag is told by the mean of its highest rows.

    top: the share of a bag's rows that is averaged, 1 for all. rounds: how often patients' rows are chosen anew: from
    the second on only the highest of each patient are taught to be a patient's, since the others may be healthy; all
    of a control's are a control's. penalty: C of scikit-learn.
    """

    top: float = 1.0
    rounds: int = 1
    penalty: float = 0.1

    def fit(self, bags: Bags, labels: np.ndarray) -> Fitted:
        """See `Learner`. Raises LearnerError below two people of each class."""
        refuse(bags, labels)
        fitted = _Rows(self._pipeline(bags, labels), self.top)
        line = _line(lambda some, of_some: _Rows(self._pipeline(some, of_some), self.top), bags, labels)
        return Fitted(lambda asked: line(fitted.evidence(asked)), fitted.rows)

    def _pipeline(self, bags: Bags, labels: np.ndarray) -> Pipeline:
        chosen = list(bags)
        for _ in range(self.rounds):
            rows = np.concatenate(chosen).astype(np.float32)
            taught = np.repeat(labels, [len(bag) for bag in chosen])
            pipeline = _logistic(self.penalty, rows, taught)
            odds = [pipeline.decision_function(bag.astype(np.float32)) for bag in bags]
            chosen = [
                bag[np.argsort(-of_bag, kind="stable")[: _n_top(bag, self.top)]] if label else bag
                for bag, of_bag, label in zip(bags, odds, labels, strict=True)
            ]
        return pipeline


@dataclass(frozen=True)
class _Rows:
    pipeline: Pipeline
    top: float

    def rows(self, bag: np.ndarray) -> np.ndarray:
        return self.pipeline.decision_function(bag.astype(np.float32))

    def evidence(self, bags: Bags) -> np.ndarray:
        return np.array([np.sort(self.rows(bag))[-_n_top(bag, self.top) :].mean() for bag in bags])


@dataclass(frozen=True)
class Quantiles:
    """Logistic regression on the QUANTILES of each column of a bag. penalty: C of scikit-learn."""

    penalty: float = 0.1

    def fit(self, bags: Bags, labels: np.ndarray) -> Fitted:
        """See `Learner`. Raises LearnerError below two people of each class."""
        refuse(bags, labels)

        def fitted(some: Bags, of_some: np.ndarray) -> _Quantiles:
            return _Quantiles(_logistic(self.penalty, _quantiles(some), of_some))

        model, line = fitted(bags, labels), _line(fitted, bags, labels)
        return Fitted(lambda asked: line(model.evidence(asked)))


@dataclass(frozen=True)
class _Quantiles:
    pipeline: Pipeline

    def evidence(self, bags: Bags) -> np.ndarray:
        return self.pipeline.decision_function(_quantiles(bags))


def _quantiles(bags: Bags) -> np.ndarray:
    """(N, len(QUANTILES) * F)."""
    return np.array([np.quantile(bag.astype(float), QUANTILES, axis=0).ravel() for bag in bags])


def _logistic(penalty: float, rows: np.ndarray, taught: np.ndarray) -> Pipeline:
    """Both classes weigh the same."""
    regression = LogisticRegression(C=penalty, class_weight="balanced", max_iter=500, tol=1e-3)
    return linear.fitted(make_pipeline(StandardScaler(), regression), rows, taught)


def _n_top(bag: np.ndarray, top: float) -> int:
    return max(1, ceil(top * len(bag)))


def _line(
    fit: Callable[[Bags, np.ndarray], _Evidence], bags: Bags, labels: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Evidence -> probability, by training people who were left out in turn (Platt 1999)."""
    evidence = np.empty(len(labels))
    folds = StratifiedKFold(min(FOLDS, np.bincount(labels).min()), shuffle=True, random_state=0)
    for train, left_out in folds.split(labels, labels):
        model = fit([bags[place] for place in train], labels[train])
        evidence[left_out] = model.evidence([bags[place] for place in left_out])
    scale = evidence.std() or 1.0
    line = linear.fitted(LogisticRegression(class_weight="balanced"), evidence[:, None] / scale, labels)
    slope, level = float(line.coef_[0, 0]) / scale, float(line.intercept_[0])
    if slope <= 0:  # people left out were told worse than by chance: no line can be drawn, the fit's own is kept
        return expit
    return lambda asked: expit(slope * asked + level)


@dataclass(frozen=True)
class PapersHead:
    """The paper's head on maps of patches, see `models.Head`; a person is told by the mean over patches, at one half.

    It has no line of its own: that would take a training for each person left out.
    """

    steps: int
    batch_size: int
    learning_rate: float
    seed: int

    def fit(self, bags: Bags, labels: np.ndarray) -> Fitted:
        """See `Learner`; it holds until the next head is fitted. Raises LearnerError below two people of each class."""
        refuse(bags, labels)
        taught = np.repeat(labels, [len(bag) for bag in bags])
        settings = {"batch_size": self.batch_size, "learning_rate": self.learning_rate, "seed": self.seed}
        head = Head(np.concatenate(bags), taught, steps=self.steps, **settings).fit(np.arange(len(taught)))
        return Fitted(lambda asked: np.array([heads.p_patient(head, maps_nhwc).mean() for maps_nhwc in asked]))


@dataclass(frozen=True)
class FibreBaseline:
    """The laboratory's rule, see `morphometry.DeficientShare`, on bags of fibres with the columns FIBRE_COLUMNS."""

    def fit(self, bags: Bags, labels: np.ndarray) -> Fitted:
        """See `Learner`. Raises LearnerError below two people of each class."""
        refuse(bags, labels)

        def p(asked: Bags) -> np.ndarray:
            everybody = [*bags, *asked]
            subjects = np.array([f"{place:05}" for place in range(len(everybody))])
            fibres = pd.DataFrame(np.concatenate(everybody), columns=list(FIBRE_COLUMNS))
            fibres["subject"] = np.repeat(subjects, [len(bag) for bag in everybody])
            known = np.concatenate([labels, np.zeros(len(asked), int)])  # of those asked no label is read
            rule = DeficientShare(fibres, subjects, known)
            return rule(np.arange(len(bags)), np.arange(len(bags), len(everybody)))

        return Fitted(p)


def mean_of_maps(maps_nhwc: np.ndarray) -> np.ndarray:
    """(n, h, w, c) -> (n, c) float32."""
    return maps_nhwc.astype(np.float32).mean(axis=(1, 2))


def ratios(levels: np.ndarray) -> np.ndarray:
    """(n, 3) levels of FIBRE_COLUMNS -> (n, 4): log ratio of each subunit to the mass marker, the lower, log mass."""
    mass, *subunits = np.log(np.maximum(levels, 0.01)).T
    log_ratios = np.stack(subunits, axis=-1) - mass[:, None]
    return np.column_stack([log_ratios, log_ratios.min(axis=1), mass])
