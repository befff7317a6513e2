"""Out-of-fold predictions of any model under any split, and what they say of patches and people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.random import Generator

from mitolib.metrics import Estimate, class_index
from mitolib.own_data import LeftOut
from mitolib.people import metrics, protocols
from mitolib.people.models import Head, Model
from mitolib.progress import track

SEEN, UNSEEN = "published", "leave-one-control-one-patient-out"  # splits: are the people tested also trained on?

UNPUBLISHED = LeftOut("these patches cannot be dealt out as in the paper.")


@dataclass(frozen=True)
class Trial:
    """A model, and the rows and folds that it is tried on.

    rows: patches or people, with columns subject and label, indexed 0 to N - 1; with a column twin where there are
    twins. folds: by split, 'train' and 'test' for each row.
    """

    model: Model
    rows: pd.DataFrame
    folds: Mapping[str, Sequence[pd.Series]]


def unseen_trial(model: Model, rows: pd.DataFrame) -> Trial:
    """A trial on people not seen. Twins are not tested, and train only where a model (`Augmented`) adds them."""
    themselves = rows[rows["twin"] == ""] if "twin" in rows else rows
    folds = protocols.leave_one_control_one_patient_out(themselves)
    return Trial(model, rows, {UNSEEN: [fold.reindex(rows.index, fill_value="") for fold in folds]})


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


def run_trials(trials: Mapping[str, Trial], *, rng: Generator, workers: int = 1, remark: str = "") -> Evaluation:
    """Every model under every split of its trial.

    trials: by name of the model. rng: of the bootstrap. workers: processes that share the folds of a `Head`; the folds
    of other models take less time than a process takes to start.
    """
    entries: list[dict[str, Any]] = []
    predictions: dict[str, dict[str, pd.DataFrame]] = {}
    for name, trial in trials.items():
        predictions[name] = {}
        for split, folds in trial.folds.items():
            processes = workers if isinstance(trial.model, Head) else 1
            answers = out_of_fold(trial.model, trial.rows, folds, workers=processes, label=f"{name}, {split}")
            scores = metrics.summary(answers[answers["twin"] == ""], rng=rng)
            entries.append({"model": name, "split": split} | scores)
            predictions[name][split] = answers
    return Evaluation(entries, predictions, remark)


def out_of_fold(
    model: Model, rows: pd.DataFrame, folds: Sequence[pd.Series], *, workers: int = 1, label: str = ""
) -> pd.DataFrame:
    """Train and test in every fold: columns fold, row, p, subject, truth and twin, one row for each tested row of a
    fold.

    rows: (N rows) with columns subject and label, against which the answers are held, indexed 0 to N - 1; without a
    column twin, "" is taken for it. folds: 'train' and 'test' for each row. workers: processes of one thread each that
    share the folds, -1 for one per core; worth it where a fold takes seconds.
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
    predictions = pd.concat(parts, ignore_index=True)
    tested = rows.iloc[predictions["row"]]
    return predictions.assign(
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
