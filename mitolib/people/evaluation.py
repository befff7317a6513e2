"""Out-of-fold predictions of any model under any split, folds side by side on all cores.

A model here is a callable `(train, test) -> p`: it is trained on the patches `train` and answers the probability of
"patient" for the patches `test`, both row numbers of the patch table. Whatever it fits, scaling included, it fits on
`train`. Nothing is chosen on a validation set: every model has one setting and one length of training in every split,
so that a difference between two splits is the split's. Both classes weigh the same in what is fitted, however many
patches each has: with three of one to one of the other, a short training may end at one answer for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import joblib
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mitolib import heads, linear, networks, splits
from mitolib.progress import track
from mitolib.settings import LABELS

Model = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (train rows, test rows) -> p of "patient"


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

    def fit(self, train: np.ndarray) -> object:
        """The fitted scikit-learn pipeline."""
        line = LogisticRegression(C=self.penalty, class_weight="balanced", max_iter=2000)
        return linear.fitted(make_pipeline(StandardScaler(), line), self.features[train], self.labels[train])


@dataclass(frozen=True)
class Head:
    """The paper's head on the features of a frozen backbone, with the paper's optimiser and loss.

    maps_nhwc: (N, 7, 7, C), of plain patches. It is trained for `steps` batches, whatever the number of patches, each
    batch with as many patches of one class as of the other. The learning rate falls in a straight line to zero.
    """

    maps_nhwc: np.ndarray
    labels: np.ndarray  # (N,) class indices
    steps: int
    batch_size: int = 4
    learning_rate: float = 2e-3
    seed: int = 0

    def __call__(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        head = self.fit(train)
        parts = [test[i : i + 256] for i in range(0, len(test), 256)]
        return np.concatenate([heads.p_patient(head, self.maps_nhwc[few]) for few in parts])

    def fit(self, train: np.ndarray) -> keras.Model:
        """The trained head; the next head of the same kind is trained in the same model, so copy what is to last."""
        head, start = _fresh(self.maps_nhwc.shape[1:], self.learning_rate, self.steps, self.seed)
        for variable, value in zip(_state(head), start, strict=True):
            variable.assign(value)
        for few in self.batches(train):
            head.train_on_batch(self.maps_nhwc[few].astype(np.float32), heads.one_hot(self.labels[few]))
        return head

    def batches(self, train: np.ndarray) -> np.ndarray:
        """(steps, batch_size) rows of `train`, see `splits.equal_parts`."""
        rng = np.random.default_rng(self.seed)
        return splits.equal_parts(self.labels, train, self.batch_size, self.steps, rng=rng)


@lru_cache(maxsize=1)  # a head of the next kind takes its place: with its moments it is as large as the data
def _fresh(shape: tuple[int, ...], learning_rate: float, steps: int, seed: int) -> tuple[keras.Model, list[tf.Tensor]]:
    """A head, compiled once for all folds of a process, and the state from which each of them starts."""
    keras.utils.set_random_seed(seed)
    head = networks.head(shape)
    falling = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, end_learning_rate=0.0)
    head.compile(optimizer=heads.FusedAdam(falling), loss="categorical_crossentropy")
    head.optimizer.build(head.trainable_variables)
    return head, [tf.identity(variable.value) for variable in _state(head)]


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


def out_of_fold(
    model: Model,
    table: pd.DataFrame,
    truth: np.ndarray,
    folds: Sequence[pd.Series],
    *,
    workers: int = 1,
    label: str = "",
) -> pd.DataFrame:
    """Train and test in every fold: columns fold, row, p, subject and truth, one row for each tested patch of a fold.

    table: (N rows) with a column subject, indexed 0 to N - 1. truth: (N,) class indices that the answers are held
    against. folds: 'train' and 'test' for each row of the table. workers: processes of one thread each that share the
    folds, -1 for one per core; worth it where a fold takes seconds.
    """
    jobs = [tuple(np.flatnonzero(split == part) for part in ("train", "test")) for split in folds]
    if workers == 1:
        answers = (model(*job) for job in jobs)
    else:
        pool = joblib.Parallel(n_jobs=workers, return_as="generator")
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            answers = pool(joblib.delayed(_alone)(model, *job) for job in jobs)
    parts = [
        pd.DataFrame({"fold": fold, "row": test, "p": p})
        for fold, ((_, test), p) in enumerate(zip(jobs, track(answers, label, len(jobs)), strict=True))
    ]
    told = pd.concat(parts, ignore_index=True)
    return told.assign(subject=table["subject"].to_numpy()[told["row"]], truth=truth[told["row"]])


def _alone(model: Model, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """In a process of its own: one thread for TensorFlow, which does not read what keeps other libraries to one."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # set by an earlier fold of this process
        pass
    return model(train, test)


def with_twins(table: pd.DataFrame, kinds: Sequence[str] = ("cured", "afflicted")) -> pd.DataFrame:
    """A table of patches or people and, below it, a row for each one's twin: a patient's cured, a control's afflicted.

    Columns twin ("", "cured", "afflicted"), origin (row of the patch itself) and taught (class index that its pixels
    deserve: 0 for a cured patient, 1 for an afflicted control). Indexed from 0. kinds: the twins that there are.
    """
    own = table.reset_index(drop=True)
    own = own.assign(twin="", origin=own.index, taught=own["label"].map(LABELS.index))
    more = {
        "cured": own[own["taught"] == 1].assign(twin="cured", taught=0),
        "afflicted": own[own["taught"] == 0].assign(twin="afflicted", taught=1),
    }
    return pd.concat([own, *(more[kind] for kind in kinds)], ignore_index=True)


def tested_with_twins(split: pd.Series, twinned: pd.DataFrame) -> pd.Series:
    """A split of the patch table for the rows of `with_twins`: the twins of test patches are tested, none trains."""
    own = split.to_numpy()[twinned["origin"]]
    return pd.Series(np.where((twinned["twin"] == "") | (own == "test"), own, ""), twinned.index, name="split")


def effect_of_twins(told: pd.DataFrame, twinned: pd.DataFrame) -> pd.DataFrame:
    """One row per tested subject: label, before (mean p of its patches) and after (of their twins), over all folds."""
    twin = twinned["twin"].to_numpy()[told["row"]]
    when = pd.Series(np.where(twin == "", "before", "after"), told.index, name="when")
    means = told.groupby(["subject", when])["p"].mean().unstack()
    means = means[["before", "after"]]
    means.insert(0, "label", [LABELS[i] for i in told.groupby("subject")["truth"].first()[means.index]])
    return means.sort_values("label", kind="stable").rename_axis(columns=None)


def carried(effects: pd.DataFrame) -> dict[str, float | int | None]:
    """What the disease contributes to a model's answers, from `effect_of_twins`.

    fall: by how much the cure lowers the mean p of the patients. share: the fall over the distance between patients and
    controls before it, 1 if all that tells them apart is the disease, None if they are less than 0.05 apart. turned of
    called: patients called so that the cure turns into controls. rise, afflicted_turned, afflicted_called: the reverse.
    """
    sick, well = (effects[effects["label"] == label] for label in reversed(LABELS))
    apart = float(sick["before"].mean() - well["before"].mean())
    fall = float((sick["before"] - sick["after"]).mean())
    called, spared = sick[sick["before"] > 0.5], well[well["before"] <= 0.5]
    return {
        "fall": fall,
        "share": fall / apart if apart >= 0.05 else None,
        "turned": int((called["after"] <= 0.5).sum()),
        "called": len(called),
        "rise": float((well["after"] - well["before"]).mean()),
        "afflicted_turned": int((spared["after"] > 0.5).sum()),
        "afflicted_called": len(spared),
    }


def subject_probe(features: np.ndarray, subjects: np.ndarray, split: pd.Series) -> dict[str, float]:
    """{"accuracy", "chance"}: how often a linear probe names the subject of a test patch, and the commonest subject's
    share of the test patches. features: (N, F); subjects: (N,) names; split: 'train' and 'test' for each row."""
    train, test = (np.flatnonzero(split == part) for part in ("train", "test"))
    probe = Logistic(features, subjects).fit(train)
    return {
        "accuracy": float((probe.predict(features[test]) == subjects[test]).mean()),
        "chance": float(pd.Series(subjects[test]).value_counts(normalize=True).iloc[0]),
    }


def leak(table: pd.DataFrame, split: pd.Series, shared: pd.Series) -> dict[str, float]:
    """What the test patches of a split have in common with its training patches, as shares from 0 to 1.

    shared: `splits.shared_pixels` of the two. share_of_patches: of the test patches, those that share a pixel with a
    training patch. mean_shared_fraction: of a test patch's pixels, on average. wholly_seen: of the test patches, those
    of which every pixel is shared. subjects_seen: of the people tested, those who have training patches.
    """
    trained = set(table["subject"][split == "train"])
    tested = table["subject"][split == "test"].unique()
    return {
        "share_of_patches": float((shared > 0).mean()),
        "mean_shared_fraction": float(shared.mean()),
        "wholly_seen": float((shared == 1).mean()),
        "subjects_seen": float(np.mean([subject in trained for subject in tested])),
    }


def centred(features: np.ndarray, groups: Sequence[pd.Series]) -> np.ndarray:
    """(N, F): each row minus the mean of its group, over the group's standard deviation; 0 in a group of one row.

    groups: columns of length N that together name a row's group.
    """
    by_group = pd.DataFrame(features).groupby(list(groups))
    spread = by_group.transform("std").fillna(0) + 1e-6
    return ((features - by_group.transform("mean")) / spread).to_numpy()
