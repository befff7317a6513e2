"""Out-of-fold predictions of any model under any split, and what they say of patches and people.

A model that reads a network's features is asked once under each split, all folds together: its answers are a unit
(`mitolib.units`), a few kilobytes in place of features that are gigabytes. Of a head, which trains for minutes, each
fold and seed is a unit. `ask` asks for all of them, `evaluate` reads them. Models that read pixels or fibres answer in
seconds, and are asked anew each time.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import bank, units
from mitolib.metrics import Estimate, class_index, holm
from mitolib.own_data import LeftOut
from mitolib.people import metrics, protocols
from mitolib.people.models import Model
from mitolib.people.morphometry import Fibres
from mitolib.people.persons import Persons
from mitolib.people.protocols import ALL_PAIRS, NO_OVERLAP, SEEN, UNSEEN
from mitolib.progress import track
from mitolib.units import Units

CHAPTER = "patient_level"
PROTOCOL = 2  # of `models`, `answer` and `comparison.by_pictures`; raise it when the same unit would come out otherwise

COMPARED = ((SEEN, UNSEEN), (SEEN, NO_OVERLAP), (NO_OVERLAP, UNSEEN))  # splits of which differences are taken

MAJORITY = "majority"  # a model that has no opinion on a picture
UNPUBLISHED = LeftOut("these patches cannot be dealt out as in the paper.")


@dataclass(frozen=True)
class Kept:
    """The answers of a model are kept, one unit for each split.

    name: of the units, beside split, seed and fold; what a sweep would vary stands here. depends: all that the answers
    depend on beside the rows and the folds. prepare: makes what the model reads.
    """

    name: Mapping[str, Any]
    depends: Mapping[str, Any]
    prepare: Callable[[], object]


@dataclass(frozen=True)
class Trial:
    """A model, and the rows and folds that it is tried on.

    make: gives the model; called when its answers are computed, and not where they are kept; with `seed=` where there
    are seeds. rows: patches or people, with columns subject and label, indexed 0 to N - 1; with a column twin where
    there are twins. folds: by split, 'train' and 'test' for each row. kept: None for a model that is asked anew each
    time. seeds: with which it is trained, each fold and seed a unit; none for a model that has no chance in it.
    """

    make: Callable[..., Model]
    rows: pd.DataFrame
    folds: Mapping[str, Sequence[pd.Series]]
    kept: Kept | None = None
    seeds: Sequence[int] = ()


def unseen_trial(make: Callable[[], Model], rows: pd.DataFrame, kept: Kept | None = None) -> Trial:
    """A trial on people not seen, in few folds and in all pairs.

    Twins are not tested, and train only where a model (`Augmented`) adds them.
    """
    themselves = rows[rows["twin"] == ""] if "twin" in rows else rows
    dealt = {
        UNSEEN: protocols.paired_folds(themselves),
        ALL_PAIRS: protocols.leave_one_control_one_patient_out(themselves),
    }
    folds = {name: [fold.reindex(rows.index, fill_value="") for fold in of_split] for name, of_split in dealt.items()}
    return Trial(make, rows, folds, kept)


@dataclass(frozen=True, eq=False)
class Asked:
    """Trials by name of the model, and, of those that are kept, the units by model and split."""

    trials: Mapping[str, Trial]
    fits: Mapping[str, Mapping[str, Units]]

    def answers(self, name: str, split: str) -> pd.DataFrame:
        """Of one model under one split, see `out_of_fold`; with a column seed where it was trained with several."""
        trial = self.trials[name]
        if trial.kept is None:
            return out_of_fold(trial.make(), trial.rows, trial.folds[split], label=f"{name}, {split}")
        fits = self.fits[name][split]
        if not trial.seeds:
            return described(pd.DataFrame(fits[0]), trial.rows)
        trainings = product(trial.seeds, range(len(trial.folds[split])))
        answers = [pd.DataFrame(fit).assign(seed=seed) for fit, (seed, _) in zip(fits, trainings, strict=True)]
        return described(pd.concat(answers, ignore_index=True), trial.rows)

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of the units."""
        return [unit for by_split in self.fits.values() for fits in by_split.values() for unit in fits.record]


def ask(trials: Mapping[str, Trial]) -> Asked:
    """Ask for the units of all trials, and compute those that are missing. trials: by name of the model."""
    fits = {
        name: {split: _units(trial, split, f"{name}, {split}") for split in trial.folds}
        for name, trial in trials.items()
        if trial.kept
    }
    return Asked(trials, fits)


def _units(trial: Trial, split: str, label: str) -> Units:
    """One of all folds, or, of a model that is trained with seeds, one of each seed and fold."""
    folds = trial.folds[split]

    def fit_all(**name: Any) -> dict[str, np.ndarray]:
        return as_arrays(answer(trial.make(), folds, label=label))

    def fit_one(seed: int, fold: int, **name: Any) -> dict[str, np.ndarray]:
        return as_arrays(answer(trial.make(seed=seed), [folds[fold]]).assign(fold=fold))

    name = {**trial.kept.name, "split": split}
    trainings = [{"seed": seed, "fold": fold} for seed, fold in product(trial.seeds, range(len(folds)))]
    return units.each(
        fit_one if trainings else fit_all,
        [name | training for training in trainings] or [name],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends={**trial.kept.depends, "folds": folds_digest(trial.rows, folds)},
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

    entries: `metrics.summary` of every model under every split, with "model" and "split", and p_holm, see
    `metrics.corrected`. predictions: model -> split -> `out_of_fold`. remark: a sentence about what was evaluated, or
    why nothing was.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    predictions: Mapping[str, Mapping[str, pd.DataFrame]] = field(default_factory=dict)
    remark: str = ""

    def __add__(self, other: Evaluation) -> Evaluation:
        """Of both, which have no model in common."""
        entries = metrics.corrected([*self.entries, *other.entries])
        return Evaluation(entries, {**self.predictions, **other.predictions})

    def table(self) -> pd.DataFrame | LeftOut:
        """Every score with its interval, for reading, by model and split."""
        return metrics.summary_table(self.entries) if self.entries else LeftOut("there is no such model.")

    def estimates(self) -> dict[str, dict[str, dict[str, Estimate]]]:
        """Title of a score -> split -> model -> its value and interval, for a figure."""
        return {title: metrics.by_split(self.entries, score) for score, title in metrics.DRAWN.items()}

    def by_model(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Model -> split -> entry, the models without comma or space, so that a page can name them."""
        entries: dict[str, dict[str, dict[str, Any]]] = {}
        for entry in self.entries:
            entries.setdefault(metrics.key(entry["model"]), {})[entry["split"]] = entry
        return entries

    def collapsed(self) -> dict[str, dict[str, int]]:
        """Of each model with seeds, over all its splits: trainings, and those of them that collapsed to one answer."""
        found: dict[str, dict[str, int]] = {}
        for entry in self.entries:
            if entry["trainings"]:
                sums = found.setdefault(entry["model"], {"collapsed": 0, "trainings": 0})
                for count in sums:
                    sums[count] += entry[count]
        return found

    def themselves(self, model: str, split: str) -> pd.DataFrame:
        """The predictions of the people without those of their twins."""
        predictions = self.predictions[model][split]
        return predictions[predictions["twin"] == ""]

    def between_splits(self, *, rng: Generator) -> Differences:
        """Of every model but the majority, for each two splits of COMPARED that it was tried under."""
        found = [
            {"model": model, "of": one, "minus": other}
            | metrics.difference(self.themselves(model, one), self.themselves(model, other), rng=rng)
            for model, by_split in self.predictions.items()
            for one, other in COMPARED
            if model != MAJORITY and {one, other} <= by_split.keys()
        ]
        return Differences.of(found)

    def between_models(self, pairs: Sequence[tuple[str, str]], *, rng: Generator) -> Differences:
        """Of two models each, on people not seen."""
        found = [
            {"of": one, "minus": other}
            | metrics.difference(self.themselves(one, UNSEEN), self.themselves(other, UNSEEN), rng=rng)
            for one, other in pairs
        ]
        return Differences.of(found)

    def persons(self, fibres: Fibres) -> Persons:
        """What models say of each person not seen, beside the share of deficient fibres."""
        models = [model for model, by_split in self.predictions.items() if model != MAJORITY and UNSEEN in by_split]
        return Persons.of({model: self.themselves(model, UNSEEN) for model in models}, fibres)


@dataclass(frozen=True)
class Differences:
    """Paired differences: `metrics.difference` of each, with what was compared, and p_holm among those together."""

    entries: list[dict[str, Any]]

    @classmethod
    def of(cls, found: Sequence[Mapping[str, Any]]) -> Differences:
        """With the correction; what could not be compared is left out."""
        entries = [dict(entry) for entry in found if "p_sign_flip" in entry]
        for entry, p in zip(entries, holm([entry["p_sign_flip"] for entry in entries]), strict=True):
            entry["p_holm"] = p
        return cls(entries)

    def table(self) -> pd.DataFrame | LeftOut:
        """For reading."""
        if not self.entries:
            return LeftOut("there are no two to compare.")
        named = [name for name in ("model", "of", "minus") if name in self.entries[0]]
        rows = [
            {name: entry[name] for name in named}
            | {title: str(Estimate(**entry[score])) for score, title in metrics.DRAWN.items()}
            | {"people": entry["balanced_accuracy"]["n"], "p (Holm)": f"{entry['p_holm']:.3f}"}
            for entry in self.entries
        ]
        return pd.DataFrame(rows).set_index(named)

    def by_name(self) -> dict[str, dict[str, Any]]:
        """Of splits: model -> "published-minus-paired-folds" -> entry; of models: one -> other -> entry."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.entries:
            outer, inner = (
                (entry["model"], f"{entry['of']}-minus-{entry['minus']}")
                if "model" in entry
                else (entry["of"], metrics.key(entry["minus"]))
            )
            found.setdefault(metrics.key(outer), {})[inner] = entry
        return found


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
    return Evaluation(metrics.corrected(entries), predictions, remark)


def out_of_fold(model: Model, rows: pd.DataFrame, folds: Sequence[pd.Series], *, label: str = "") -> pd.DataFrame:
    """Train and test in every fold, see `answer`, and hold the answers against the rows, see `described`."""
    return described(answer(model, folds, label=label), rows)


def answer(model: Model, folds: Sequence[pd.Series], *, label: str = "") -> pd.DataFrame:
    """Train and test in every fold: columns fold, row and p, one row for each tested row of a fold.

    folds: 'train' and 'test' for each row.
    """
    parts = []
    for fold, split in enumerate(track(folds, label, len(folds))):
        train, test = (np.flatnonzero(split == part) for part in ("train", "test"))
        parts.append(pd.DataFrame({"fold": fold, "row": test, "p": model(train, test)}))
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
