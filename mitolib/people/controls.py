"""Two controls that expose a leak: labels dealt out anew among the people, and whether features name the person."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from pandas.io.formats.style import Styler

from mitolib import bank, splits, units
from mitolib.own_data import LeftOut
from mitolib.people import metrics, protocols
from mitolib.people.evaluation import (
    CHAPTER,
    SEEN,
    UNPUBLISHED,
    Asked,
    answer,
    as_arrays,
    ask,
    described,
    folds_digest,
)
from mitolib.people.material import Features, Patches
from mitolib.people.models import Logistic
from mitolib.people.on_features import head_trial, logistic_kept
from mitolib.progress import track
from mitolib.settings import LABELS
from mitolib.units import Units

PROTOCOL = (
    1  # of draws and probe, with the regression in `models`; raise it when the same unit would come out otherwise
)
ON_FEATURES = "VGG16 features, logistic"
DEALT_ANEW = "dealt anew"  # in the name of a unit


@dataclass(frozen=True)
class Draw:
    """Labels dealt out anew: (N,) class indices; the patches themselves with these labels; their folds by split."""

    labels: np.ndarray
    rows: pd.DataFrame
    folds: Mapping[str, Sequence[pd.Series]]


@dataclass(frozen=True, eq=False)
class AskedShuffled:
    """What was asked for: `fits` has a unit for each split, of all draws; `head` is of the first draw, or empty."""

    draws: Sequence[Draw]
    fits: Mapping[str, Units]
    head: Asked
    rng: Generator  # of the bootstrap: the one that dealt

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of the units."""
        return [unit for fits in self.fits.values() for unit in fits.record] + self.head.units


@dataclass(frozen=True)
class ShuffledLabels:
    """entries: `metrics.summary` of each model, split and draw of labels, with "model", "split" and "draw"."""

    entries: list[dict[str, Any]]

    def table(self) -> pd.DataFrame:
        """Mean, least and greatest of the draws, by model and split."""
        by_model = pd.DataFrame(self.entries).groupby(["model", "split"], sort=False)
        columns = {"draws": by_model.size()}
        for score, title in metrics.DRAWN.items():
            over_draws = by_model[score].agg(["mean", "min", "max"])
            columns[title] = over_draws.apply(lambda row: "{:.2f} ({:.2f} to {:.2f})".format(*row), axis=1)
        return pd.DataFrame(columns)


def ask_shuffled(features: Features, *, draws: int, steps: int, batch_size: int, seed: int) -> AskedShuffled:
    """Train and test on labels dealt out anew among the people, `draws` times, under every split that they allow.

    features: of one protein. A logistic regression on them each time, one unit for all draws of a split, and in the
    first draw a `Head` on the published split, of `steps` batches.
    """
    rng = np.random.default_rng(seed)
    part = features.patches
    dealt = [splits.shuffle_by_subject(part.truth, part.rows["subject"], rng=rng) for _ in range(draws)]
    drawn = [_draw(part, labels) for labels in dealt]
    fits = {split: _on_features(features, drawn, split, seed) for split in part.folds}
    first = drawn[0]
    trials = {}
    if SEEN in first.folds:
        budget = {"steps": steps, "batch_size": batch_size, "seed": seed}
        folds = {SEEN: first.folds[SEEN]}
        trials[features.head_name] = head_trial(
            features, first.labels, first.rows, folds, **budget, twins=False, classes=DEALT_ANEW, draw=0
        )
    return AskedShuffled(drawn, {split: unit for split, unit in fits.items() if unit is not None}, ask(trials), rng)


def _draw(part: Patches, labels: np.ndarray) -> Draw:
    rows = part.themselves.assign(label=np.array(LABELS)[labels[: len(part.themselves)]])
    available, _ = protocols.available(rows, part.experiment.name)
    return Draw(labels, rows, {split: available[split] for split in part.folds if split in available})


def _on_features(features: Features, draws: Sequence[Draw], split: str, seed: int) -> Units | None:
    """The unit of all draws that allow a split, or None where none does."""
    allowing = {number: draw for number, draw in enumerate(draws) if split in draw.folds}
    if not allowing:
        return None
    kept = logistic_kept(features, twins=False, classes=DEALT_ANEW, draws=len(draws), seed=seed)

    def fit(**name: Any) -> dict[str, np.ndarray]:
        answers = [
            answer(Logistic(features.pooled, draw.labels), draw.folds[split]).assign(draw=number)
            for number, draw in track(allowing.items(), f"{DEALT_ANEW}, {split}", len(allowing))
        ]
        return as_arrays(pd.concat(answers, ignore_index=True))

    dealt = {str(number): folds_digest(draw.rows, draw.folds[split]) for number, draw in allowing.items()}
    return units.each(
        fit,
        [{**kept.name, "split": split}],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends={**kept.depends, "folds": dealt},
        prepare=kept.prepare,
        precision=bank.precision,
    )


def shuffled_labels(asked: AskedShuffled) -> ShuffledLabels:
    """The scores of each draw, in the order of the draws."""
    rng = deepcopy(asked.rng)  # asked again it says the same
    answers = {split: dict(list(pd.DataFrame(fits[0]).groupby("draw"))) for split, fits in asked.fits.items()}
    entries = []
    for number, draw in enumerate(asked.draws):
        tried = {
            (ON_FEATURES, split): described(answers[split][number].drop(columns="draw"), draw.rows)
            for split in draw.folds
        }
        if number == 0:
            tried |= {(name, SEEN): asked.head.answers(name, SEEN) for name in asked.head.trials}
        for (name, split), of_draw in tried.items():
            scores = metrics.summary(of_draw, rng=rng, draws=2)
            entries.append({"model": name, "split": split, "draw": number} | scores)
    return ShuffledLabels(entries)


@dataclass(frozen=True)
class SubjectProbe:
    """entries: "network, split" -> how often a probe names the person, see `named`."""

    entries: dict[str, dict[str, float]]

    def table(self) -> Styler | LeftOut:
        """The entries in percent."""
        return pd.DataFrame(self.entries).T.style.format("{:.1%}") if self.entries else UNPUBLISHED


def ask_probes(features: Mapping[str, Features]) -> dict[str, Units]:
    """Do the features name the person? A unit for each network and split that tests people who are trained on."""
    return {
        f"{name}, {split}": _probe(of_network, split)
        for name, of_network in features.items()
        for split in (SEEN, "no-overlap")
        if split in of_network.patches.folds
    }


def _probe(features: Features, split: str) -> Units:
    part = features.patches
    (fold,) = part.folds[split]
    kept = logistic_kept(features, twins=False, classes="the person")

    def fit(**name: Any) -> dict[str, float]:
        return named(features.pooled, part.rows["subject"].to_numpy(), fold)

    return units.each(
        fit,
        [{**kept.name, "split": split}],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends={**kept.depends, "folds": folds_digest(part.themselves, [fold])},
        prepare=kept.prepare,
        precision=bank.precision,
    )


def subject_probe(asked: Mapping[str, Units]) -> SubjectProbe:
    """How often the person was named, of each network and split."""
    return SubjectProbe({name: fits[0] for name, fits in asked.items()})


def named(features: np.ndarray, subjects: np.ndarray, split: pd.Series) -> dict[str, float]:
    """{"accuracy", "chance"}: how often a linear probe names the subject of a test patch, and the commonest subject's
    share of the test patches. features: (N, F); subjects: (N,) names; split: 'train' and 'test' for each row."""
    train, test = (np.flatnonzero(split == part) for part in ("train", "test"))
    probe = Logistic(features, subjects).fit(train)
    return {
        "accuracy": float((probe.predict(features[test]) == subjects[test]).mean()),
        "chance": float(pd.Series(subjects[test]).value_counts(normalize=True).iloc[0]),
    }
