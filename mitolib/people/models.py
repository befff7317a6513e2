"""The models of the honest evaluation, from the majority to the paper's head.

A model here is a callable `(train, test) -> p`: it is trained on the patches `train` and answers the probability of
"patient" for the patches `test`, both row numbers of the patch table. Whatever it fits, scaling included, it fits on
`train`. Nothing is chosen on a validation set: every model has one setting and one length of training in every split,
so that a difference between two splits is the split's. Both classes weigh the same in what is fitted, however many
patches each has: with three of one to one of the other, a short training may end at one answer for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import keras
import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mitolib import backend, heads, linear, networks, splits
from mitolib.people import protocols
from mitolib.settings import LABELS

Model = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (train rows, test rows) -> p of "patient"
Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (rows, how often each was drawn before) -> (n, 7, 7, C)
ANSWERED_AT_ONCE = 256  # patches


@dataclass(frozen=True)
class Majority:
    """Always the class that is more common among the training patches."""

    labels: np.ndarray  # (N,) class indices

    def __call__(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return np.full(len(test), float(np.bincount(self.labels[train]).argmax()))


@dataclass(frozen=True)
class Logistic:
    """Logistic regression on standardised features, penalised, each class with the same weight."""

    features: np.ndarray  # (N, F)
    labels: np.ndarray  # (N,) classes
    penalty: float = 0.1  # C of scikit-learn

    def __call__(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return self.fit(train).predict_proba(self.features[test])[:, -1]

    def fit(self, train: np.ndarray) -> Pipeline:
        """The fitted scikit-learn pipeline."""
        regression = LogisticRegression(C=self.penalty, class_weight="balanced", max_iter=2000)
        pipeline = make_pipeline(StandardScaler(), regression)
        return linear.fitted(pipeline, self.features[train], self.labels[train])


@dataclass(frozen=True)
class Head:
    """The paper's head on the features of a frozen backbone, with the paper's optimiser and loss.

    maps_nhwc: (N, 7, 7, C), of plain patches, on which it is tested. augmented: gives what it is trained on; None: the
    plain patches. It is trained for `steps` batches, whatever the number of patches, each batch with as many patches of
    one class as of the other. The learning rate falls in a straight line to zero.
    """

    maps_nhwc: np.ndarray
    labels: np.ndarray  # (N,) class indices
    steps: int
    batch_size: int = 4
    learning_rate: float = 2e-3
    seed: int = 0
    augmented: Draw | None = None

    def __call__(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        head = self.fit(train)
        parts = [test[start : start + ANSWERED_AT_ONCE] for start in range(0, len(test), ANSWERED_AT_ONCE)]
        return np.concatenate([heads.p_patient(head, self.maps_nhwc[part]) for part in parts])

    def fit(self, train: np.ndarray) -> keras.Model:
        """The trained head; the next head of the same kind is trained in the same model, so copy what is to last."""
        head, start = _fresh(self.maps_nhwc.shape[1:], self.learning_rate, self.steps, self.seed)
        for variable, value in zip(_state(head), start, strict=True):
            variable.assign(value)
        backend.seed_dropout(self.seed)
        batches, step = self.batches(train), backend.step(head)
        for rows, before in zip(batches, drawn_before(batches), strict=True):
            batch_nhwc = self.augmented(rows, before) if self.augmented else self.maps_nhwc[rows]
            step(backend.tensor(batch_nhwc), backend.tensor(heads.one_hot(self.labels[rows])))
        return head

    def batches(self, train: np.ndarray) -> np.ndarray:
        """(steps, batch_size) rows of `train`, see `splits.equal_parts`."""
        rng = np.random.default_rng(self.seed)
        return splits.equal_parts(self.labels, train, self.batch_size, self.steps, rng=rng)


def drawn_before(batches: np.ndarray) -> np.ndarray:
    """(steps, size): how often the row at each place was in the batches before, 0 at its first."""
    in_order = pd.Series(batches.ravel())
    return in_order.groupby(in_order).cumcount().to_numpy().reshape(batches.shape)


@lru_cache(maxsize=1)  # a head of the next kind takes its place: with its moments it is as large as the data
def _fresh(
    shape: tuple[int, ...], learning_rate: float, steps: int, seed: int
) -> tuple[keras.Model, list[backend.Tensor]]:
    """A head, compiled once for all folds of a process, and the state from which each of them starts."""
    keras.utils.set_random_seed(seed)
    head = networks.head(shape)
    falling = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, end_learning_rate=0.0)
    head.compile(optimizer=backend.FusedAdam(falling), loss=backend.cross_entropy())
    head.optimizer.build(head.trainable_variables)
    return head, [keras.ops.copy(variable.value) for variable in _state(head)]


def _state(head: keras.Model) -> list[keras.Variable]:
    """Weights, the state of dropout, and the optimiser's moments and count of steps."""
    return [*head.variables, *head.optimizer.variables]


@dataclass(frozen=True)
class Augmented:
    """A model that also trains on twins: further rows, with labels of their own, of the patches it trains on."""

    model: Model
    origin: np.ndarray  # (N,) the row of which each row is a twin, or itself

    def __call__(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return self.model(np.flatnonzero(np.isin(self.origin, train)), test)


@dataclass(frozen=True)
class Thresholded:
    """A model whose line between the classes is drawn among the people it trains on, not at a probability of one half.

    Within the training rows people are left out in pairs (`protocols.paired_folds`), and the line is put where the
    balanced accuracy of the patches left out is highest; nobody who is tested has a say. What it answers is moved, in
    log-odds, so that the line lies at one half: the order of answers within a fold stays.
    """

    model: Model
    rows: pd.DataFrame  # (N rows) subject and label

    def __call__(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        # Without rounding to 0 and 1, whose log-odds are infinite.
        limit = np.finfo(np.float32).eps
        return expit(logit(self.model(train, test).clip(limit, 1 - limit)) - logit(self.line(train)))

    def line(self, train: np.ndarray) -> float:
        """Above which probability a patch is called a patient's; one half where too few people train to ask them."""
        table = self.rows.iloc[train].reset_index(drop=True)
        try:
            folds = protocols.paired_folds(table)
        except ValueError:
            return 0.5
        p, truth = [], []
        for fold in folds:
            inner, left_out = (np.flatnonzero(fold == part) for part in ("train", "test"))
            p.append(self.model(train[inner], train[left_out]))
            truth.append(table["label"].to_numpy()[left_out] == LABELS[1])
        false, true, lines = roc_curve(np.concatenate(truth), np.concatenate(p), drop_intermediate=False)
        best = int(np.argmax(true - false))
        # Half-way to the next lower answer: the line lies between answers, not on one.
        lower = lines[best + 1] if best + 1 < len(lines) else 0.0
        limit = np.finfo(np.float32).eps
        return float(np.clip((min(lines[best], 1.0) + lower) / 2, limit, 1 - limit))
