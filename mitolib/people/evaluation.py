"""Out-of-fold predictions of any model under any split, and what they say of patches and people.

A model that reads a network's features is asked once under each split, all folds together: its answers are a unit
(`mitolib.units`), a few kilobytes in place of features that are gigabytes. `ask` asks for all of them, `evaluate`
reads them. Models that read pixels or fibres answer in seconds, and are asked anew each time.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.random import Generator

from mitolib import bank, units
from mitolib.metrics import Estimate, class_index
from mitolib.own_data import LeftOut
from mitolib.people import metrics, protocols
from mitolib.people.models import Head, Model
from mitolib.progress import track
from mitolib.units import Units

CHAPTER = "patient_level"
PROTOCOL = 1  # of `models`, `answer` and `comparison.by_pictures`; raise it when the same unit would come out otherwise

SEEN, UNSEEN = "published", "leave-one-control-one-patient-out"  # splits: are the people tested also trained on?

UNPUBLISHED = LeftOut("these patches cannot be dealt out as in the paper.")


@dataclass(frozen=True)
class Kept:
    """The answers of a model are kept, one unit for each split.

    name: of the units, beside the split; what a sweep would vary stands here. depends: all that the answers depend on
    beside the rows and the folds. prepare: makes what the model reads.
    """

    name: Mapping[str, Any]
    depends: Mapping[str, Any]
    prepare: Callable[[], object]


@dataclass(frozen=True)
class Trial:
    """A model, and the rows and folds that it is tried on.

    make: gives the model; called when its answers are computed, and not where they are kept. rows: patches or people,
    with columns subject and label, indexed 0 to N - 1; with a column twin where there are twins. folds: by split,
    'train' and 'test' for each row. kept: None for a model that is asked anew each time.
    """

    make: Callable[[], Model]
    rows: pd.DataFrame
    folds: Mapping[str, Sequence[pd.Series]]
    kept: Kept | None = None


def unseen_trial(make: Callable[[], Model], rows: pd.DataFrame, kept: Kept | None = None) -> Trial:
    """A trial on people not seen. Twins are not tested, and train only where a model (`Augmented`) adds them."""
    themselves = rows[rows["twin"] == ""] if "twin" in rows else rows
    folds = protocols.leave_one_control_one_patient_out(themselves)
    return Trial(make, rows, {UNSEEN: [fold.reindex(rows.index, fill_value="") for fold in folds]}, kept)


@dataclass(frozen=True, eq=False)
class Asked:
    """Trials by name of the model, and, of those that are kept, the units by model and split."""

    trials: Mapping[str, Trial]
    fits: Mapping[str, Mapping[str, Units]]

    def answers(self, name: str, split: str) -> pd.DataFrame:
        """Of one model under one split, see `out_of_fold`."""
        trial = self.trials[name]
        if trial.kept is None:
            return out_of_fold(trial.make(), trial.rows, trial.folds[split], label=f"{name}, {split}")
        return described(pd.DataFrame(self.fits[name][split][0]), trial.rows)

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of the units."""
        return [unit for by_split in self.fits.values() for fits in by_split.values() for unit in fits.record]


def ask(trials: Mapping[str, Trial], *, workers: int = 1) -> Asked:
    """Ask for the units of all trials, and compute those that are missing.

    trials: by name of the model. workers: processes that share the folds of a `Head`, whose answers are the same
    whatever their number; the folds of other models take less time than a process takes to start.
    """
    fits = {
        name: {split: _unit(trial, split, workers, f"{name}, {split}") for split in trial.folds}
        for name, trial in trials.items()
        if trial.kept
    }
    return Asked(trials, fits)


def _unit(trial: Trial, split: str, workers: int, label: str) -> Units:
    def fit(**name: Any) -> dict[str, np.ndarray]:
        model = trial.make()
        processes = workers if isinstance(model, Head) else 1
        return as_arrays(answer(model, trial.folds[split], workers=processes, label=label))

    return units.each(
        fit,
        [{**trial.kept.name, "split": split}],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends={**trial.kept.depends, "folds": folds_digest(trial.rows, trial.folds[split])},
        prepare=trial.kept.prepare,
        precision=bank.precision,
    )


def folds_digest(rows: pd.DataFrame, folds: Sequence[pd.Series]) -> str:
    """SHA-256 of who is trained on and who is tested in each fold, and of their classes."""
    dealt = rows[["subject", "label"]].assign(**{f"fold {i}": fold for i, fold in enumerate(folds)})
    return hashlib.sha256(dealt.to_csv().encode()).hexdigest()


def as_arrays(answers: pd.DataFrame) -> dict[str, np.ndarray]:
    """The columns of answers for a unit: whole numbers in four bytes, probabilities to the last bit."""
    return {
        name: column.to_numpy(np.int32 if column.dtype.kind == "i" else column.dtype)
        for name, column in answers.items()
    }


@dataclass(frozen=True)
class Evaluation:
    """What models answered, and what that is worth.

    entries: `metrics.summary` of every model under every split, with "model" and "split". predictions: model -> split
    -> `out_of_fold`. remark: a sentence about what was evaluated, or why nothing was.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    predictions: Mapping[str, Mapping[str, pd.DataFrame]] = field(default_factory=dict)
    remark: str = ""

    def __add__(self, other: Evaluation) -> Evaluation:
        """Of both, which have no model in common."""
        return Evaluation([*self.entries, *other.entries], {**self.predictions, **other.predictions})

    def table(self) -> pd.DataFrame:
        """Every score with its interval, for reading, by model and split."""
        return metrics.summary_table(self.entries)

    def estimates(self) -> dict[str, dict[str, dict[str, Estimate]]]:
        """Title of a score -> split -> model -> its value and interval, for a figure."""
        return {title: metrics.by_split(self.entries, score) for score, title in metrics.DRAWN.items()}

    def by_model(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Model -> split -> entry, the models without comma or space, so that a page can name them."""
        entries: dict[str, dict[str, dict[str, Any]]] = {}
        for entry in self.entries:
            key = entry["model"].replace(",", "").replace(" ", "-")
            entries.setdefault(key, {})[entry["split"]] = entry
        return entries


def evaluate(asked: Asked, *, rng: Generator, remark: str = "") -> Evaluation:
    """Every model under every split of its trial. Twins are answered, and do not count. rng: of the bootstrap."""
    entries: list[dict[str, Any]] = []
    predictions: dict[str, dict[str, pd.DataFrame]] = {}
    for name, trial in asked.trials.items():
        predictions[name] = {}
        for split in trial.folds:
            answers = asked.answers(name, split)
            scores = metrics.summary(answers[answers["twin"] == ""], rng=rng)
            entries.append({"model": name, "split": split} | scores)
            predictions[name][split] = answers
    return Evaluation(entries, predictions, remark)


def out_of_fold(
    model: Model, rows: pd.DataFrame, folds: Sequence[pd.Series], *, workers: int = 1, label: str = ""
) -> pd.DataFrame:
    """Train and test in every fold, see `answer`, and hold the answers against the rows, see `described`."""
    return described(answer(model, folds, workers=workers, label=label), rows)


def answer(model: Model, folds: Sequence[pd.Series], *, workers: int = 1, label: str = "") -> pd.DataFrame:
    """Train and test in every fold: columns fold, row and p, one row for each tested row of a fold.

    folds: 'train' and 'test' for each row. workers: processes of one thread each that share the folds, -1 for one per
    core; worth it where a fold takes seconds.
    """
    jobs = [tuple(np.flatnonzero(split == part) for part in ("train", "test")) for split in folds]
    if workers == 1:
        answers = (model(*job) for job in jobs)
    else:
        pool = joblib.Parallel(n_jobs=workers, return_as="generator")
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            answers = pool(joblib.delayed(_on_one_thread)(model, *job) for job in jobs)
    parts = [
        pd.DataFrame({"fold": fold, "row": test, "p": p})
        for fold, ((_, test), p) in enumerate(zip(jobs, track(answers, label, len(jobs)), strict=True))
    ]
    return pd.concat(parts, ignore_index=True)


def described(answers: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The answers with columns subject, truth and twin of the rows that were tested.

    rows: (N rows) with columns subject and label, against which the answers are held, indexed 0 to N - 1; without a
    column twin, "" is taken for it.
    """
    tested = rows.iloc[answers["row"]]
    return answers.assign(
        subject=tested["subject"].to_numpy(),
        truth=class_index(tested["label"]),
        twin=tested["twin"].to_numpy() if "twin" in tested else "",
    )


def _on_one_thread(model: Model, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """In a process of its own: one thread for TensorFlow, which does not read what keeps other libraries to one."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # set by an earlier fold of this process
        pass
    return model(train, test)
