"""Two controls that expose a leak: labels dealt out anew among the people, and whether features name the person."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import bank, splits, units
from mitolib.metrics import Estimate, interval, over_draws
from mitolib.own_data import LeftOut
from mitolib.people import metrics, protocols
from mitolib.people.evaluation import (
    CHAPTER,
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
from mitolib.people.on_features import HeadBudget, head_trial, logistic_kept
from mitolib.people.protocols import NO_OVERLAP, SEEN
from mitolib.progress import track
from mitolib.settings import LABELS
from mitolib.units import Units

PROTOCOL = (
    2  # of draws and probe, with the regression in `models`; raise it when the same unit would come out otherwise
)
ON_FEATURES, HEAD = "VGG16 features, logistic", "VGG16 head"
DEALT_ANEW = "dealt anew"  # in the name of a unit


@dataclass(frozen=True)
class Draw:
    """Labels dealt out anew, for one split.

    labels: (N,) class indices. rows: the patches themselves with these labels. folds: of the split. agreement: of these
    labels with the true ones, the mean over the true classes, on the patches that the folds test.
    """

    labels: np.ndarray
    rows: pd.DataFrame
    folds: Sequence[pd.Series]
    agreement: float


@dataclass(frozen=True, eq=False)
class AskedShuffled:
    """What was asked for.

    draws: by split. fits: by split, a unit of all draws. heads: of the first draws of the published split. refused: by
    split, why labels cannot be dealt out for it.
    """

    draws: Mapping[str, Sequence[Draw]]
    fits: Mapping[str, Units]
    heads: Asked
    refused: Mapping[str, str]
    rng: Generator  # of the bootstrap

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of the units."""
        return [unit for fits in self.fits.values() for unit in fits.record] + self.heads.units


@dataclass(frozen=True)
class ShuffledLabels:
    """entries: `metrics.summary` of each model, split and draw of labels, with "model", "split", "draw", "agreement".

    refused: by split, why labels cannot be dealt out for it.
    """

    entries: list[dict[str, Any]]
    refused: Mapping[str, str]

    def table(self) -> pd.DataFrame | LeftOut:
        """By model and split, mean, least and greatest of the draws; agreement of the labels with the true ones too."""
        if not self.entries:
            return LeftOut(" ".join(dict.fromkeys(self.refused.values())))
        by_model = pd.DataFrame(self.entries).groupby(["model", "split"], sort=False)
        columns = {"draws": by_model.size()}
        for score, title in ({"agreement": "agreement with the true labels"} | metrics.DRAWN).items():
            over_draws = by_model[score].agg(["mean", "min", "max"])
            columns[title] = over_draws.apply(lambda row: "{:.2f} ({:.2f} to {:.2f})".format(*row), axis=1)
        return pd.DataFrame(columns)

    def refusals(self) -> str:
        """Markdown: for which splits labels cannot be dealt out, and why; "" where for all."""
        return "\n".join(f"- {split}: {why}" for split, why in self.refused.items())

    def means(self) -> dict[str, dict[str, dict[str, Estimate]]]:
        """Model -> split -> balanced accuracy and agreement over the draws, for pages and claims."""
        found: dict[str, dict[str, dict[str, Estimate]]] = {}
        if self.entries:
            for (model, split), of in pd.DataFrame(self.entries).groupby(["model", "split"], sort=False):
                found.setdefault(metrics.key(model), {})[split] = {
                    score: over_draws(of[score]) for score in ("balanced_accuracy", "agreement")
                }
        return found


def ask_shuffled(features: Features, *, draws: int, head_draws: int, budget: HeadBudget) -> AskedShuffled:
    """Train and test on labels dealt out anew among the people, `draws` times, under every split of the patches.

    features: of one protein. A logistic regression on them each time, one unit for all draws of a split, and in the
    first `head_draws` of the published split a `Head`, with the first seed of its budget. Labels are dealt out for each
    split by itself: what may not agree with the truth is what its folds test (`splits.permuted_labels`).
    """
    seed = budget.seeds[0]
    dealt, refused = {}, {}
    for split in features.patches.folds:
        try:
            dealt[split] = deal(features.patches, split, n=draws, seed=seed)
        except ValueError as error:
            refused[split] = str(error)
    trials = {
        f"draw {number}": head_trial(
            features,
            draw.labels,
            draw.rows,
            {SEEN: draw.folds},
            budget=replace(budget, seeds=[seed]),
            twins=False,
            classes=DEALT_ANEW,
            draw=number,
        )
        for number, draw in enumerate(dealt.get(SEEN, [])[:head_draws])
    }
    fits = {split: _on_features(features, of_split, split, draws, seed) for split, of_split in dealt.items()}
    return AskedShuffled(dealt, fits, ask(trials), refused, np.random.default_rng(seed))


def deal(part: Patches, split: str, *, n: int, seed: int) -> list[Draw]:
    """At most `n` draws of labels for a split. Raises ValueError where none can be had.

    The classes of the patches decide in some splits who is tested, so that each draw has folds of its own. A draw is
    kept where its agreement is about chance on the patches that these test.
    """
    rows = part.themselves
    truth, subjects = part.truth[: len(rows)], rows["subject"].to_numpy()
    tested = _tested(part.folds[split])
    taught = (part.folds[split][0] == "train").to_numpy() if len(part.folds[split]) == 1 else None
    labels = splits.permuted_labels(
        truth, subjects, n=splits.MOST_DEALS, rng=np.random.default_rng(seed), taught=taught, scored=tested
    )
    draws: list[Draw] = []
    for of_draw in labels:
        relabelled = rows.assign(label=np.array(LABELS)[of_draw])
        try:
            folds = protocols.SPLITS[split](relabelled, part.experiment.name)
        except ValueError:  # with these labels a set lacks a class
            continue
        agreement = _agreement(of_draw, truth, _tested(folds))
        if splits.AGREEMENT[0] <= agreement <= splits.AGREEMENT[1]:
            draws.append(Draw(_of_all(of_draw, part), relabelled, folds, agreement))
        if len(draws) == n:
            break
    if not draws:
        raise ValueError("no labels dealt out anew allow this split and agree with the true ones by chance alone.")
    return draws


def _tested(folds: Sequence[pd.Series]) -> np.ndarray:
    return np.any([fold == "test" for fold in folds], axis=0)


def _agreement(labels: np.ndarray, truth: np.ndarray, tested: np.ndarray) -> float:
    """Mean over the true classes of the share of tested patches whose label is the true one."""
    return float(np.mean([(labels == truth)[tested & (truth == label)].mean() for label in range(len(LABELS))]))


def _of_all(labels: np.ndarray, part: Patches) -> np.ndarray:
    """The labels for all rows, those of twins among them."""
    return labels[part.rows["origin"]]


def _on_features(features: Features, draws: Sequence[Draw], split: str, asked: int, seed: int) -> Units:
    """The unit of all draws of a split."""
    kept = logistic_kept(features, twins=False, classes=DEALT_ANEW, draws=asked, seed=seed)

    def fit(**name: Any) -> dict[str, np.ndarray]:
        answers = [
            answer(Logistic(features.pooled, draw.labels), draw.folds).assign(draw=number)
            for number, draw in enumerate(track(draws, f"{DEALT_ANEW}, {split}", len(draws)))
        ]
        return as_arrays(pd.concat(answers, ignore_index=True))

    dealt = {str(number): folds_digest(draw.rows, draw.folds) for number, draw in enumerate(draws)}
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
    tried: list[tuple[str, str, int, pd.DataFrame]] = []
    for split, draws in asked.draws.items():
        answers = dict(list(pd.DataFrame(asked.fits[split][0]).groupby("draw")))
        for number, draw in enumerate(draws):
            of_draw = described(answers[number].drop(columns="draw"), draw.rows)
            tried.append((ON_FEATURES, split, number, of_draw))
    for number, name in enumerate(asked.heads.trials):
        tried.append((HEAD, SEEN, number, asked.heads.answers(name, SEEN)))
    entries = []
    for model, split, number, of_draw in tried:
        scores = metrics.summary(of_draw, rng=rng, draws=2)
        agreement = asked.draws[split][number].agreement
        entries.append({"model": model, "split": split, "draw": number, "agreement": agreement} | scores)
    return ShuffledLabels(entries, asked.refused)


@dataclass(frozen=True)
class SubjectProbe:
    """entries: "network, split" -> how often a probe names the person, see `named`."""

    entries: dict[str, dict[str, Any]]

    def table(self) -> pd.DataFrame | LeftOut:
        """Named rightly with its interval over people, and what guessing would name at most."""
        if not self.entries:
            return UNPUBLISHED
        rows = {
            name: {
                "named rightly": str(Estimate(**entry["accuracy"])),
                "guessing, at most": f"{entry['chance']:.2f}",
            }
            for name, entry in self.entries.items()
        }
        return pd.DataFrame(rows).T


def ask_probes(features: Mapping[str, Features]) -> dict[str, Units]:
    """Do the features name the person? A unit for each network and split that tests people who are trained on."""
    return {
        f"{name}, {split}": _probe(of_network, split)
        for name, of_network in features.items()
        for split in (SEEN, NO_OVERLAP)
        if split in of_network.patches.folds
    }


def _probe(features: Features, split: str) -> Units:
    part = features.patches
    (fold,) = part.folds[split]
    kept = logistic_kept(features, twins=False, classes="the person")

    def fit(**name: Any) -> dict[str, Any]:
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
    """How often the person was named, of each network and split.

    Interval: a bootstrap over people, always the same; where everybody is named on every patch, or nobody on any, the
    exact one of the share of people.
    """
    entries = {}
    for name, fits in asked.items():
        right, chance, subjects = (fits[0][part] for part in ("right", "chance", "subjects"))
        accuracy = interval(right, subjects, rng=np.random.default_rng(0))
        ci = list(accuracy.ci) if accuracy.ci and accuracy.ci[0] < accuracy.ci[1] else None
        if accuracy.value in (0, 1):
            n_people = len(set(subjects))
            ci = list(metrics.exact_interval(int(accuracy.value * n_people), n_people))
        entries[name] = {"accuracy": {"value": accuracy.value, "ci": ci, "n": len(right)}, "chance": chance}
    return SubjectProbe(entries)


def named(features: np.ndarray, subjects: np.ndarray, split: pd.Series) -> dict[str, Any]:
    """Whether a linear probe names the subject of each test patch: right (n,) uint8, subjects (n names) and chance.

    chance: the commonest subject's share of the test patches. features: (N, F); subjects: (N,) names; split: 'train'
    and 'test' for each row.
    """
    train, test = (np.flatnonzero(split == part) for part in ("train", "test"))
    probe = Logistic(features, subjects).fit(train)
    return {
        "right": (probe.predict(features[test]) == subjects[test]).astype(np.uint8),
        "subjects": subjects[test].tolist(),
        "chance": float(pd.Series(subjects[test]).value_counts(normalize=True).iloc[0]),
    }
