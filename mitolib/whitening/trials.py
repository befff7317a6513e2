"""Axes of real concepts as units: two arms on VGG16 for one fold and one kind of picture, tried on its test patches.

The two arms, without the layer and whitened, are one unit, since the rivals of an axis read the network without it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from mitolib import units
from mitolib.settings import LABELS
from mitolib.units import Units, digest
from mitolib.whitening import alignment, detection, measures, vgg16
from mitolib.whitening.arms import finite, precision_of_features, refuse_tested
from mitolib.whitening.fitting import Budget, Inputs, batches, p_patient
from mitolib.whitening.training import ON_VGG16, WITHOUT, Trained, train
from mitolib.whitening.trunks import of_budget, of_concepts
from mitolib.whitening.vgg16 import Features

# Of training both arms and of what is measured of them; raise it when the same unit would come out otherwise: when
# `training`, `alignment`, the layer, `detection` or a measure kept here changes what it computes.
PROTOCOL = 2
CHAPTER = "real_concepts"
PLAIN, WHITENED = WITHOUT, "D2"  # arms of ON_VGG16
PAIR = (PLAIN, WHITENED)
REPEATS = 10  # deals of an axis among the test patches, for its importance


@dataclass(frozen=True)
class FoldConcepts:
    """What the patches of one fold show."""

    name: str  # of the fold
    rows: Mapping[str, np.ndarray]  # set -> rows
    annotation: pd.DataFrame  # of `concepts.annotate`, by the fold's training patches
    concepts: Mapping[str, np.ndarray]  # concept -> training patches for its axis; empty if there is none

    def tested(self) -> dict[str, np.ndarray]:
        """concept -> positions among the test patches of those that show it."""
        of_tested = self.annotation.iloc[self.rows["test"]]
        return {name: np.flatnonzero(of_tested[name] == 1) for name in self.concepts}


@dataclass(frozen=True, eq=False)
class Trial:
    """Both arms for one fold and one kind of picture: a unit for each seed, read when it is used."""

    fold: FoldConcepts
    features: Features
    seeds: Sequence[int]
    fits: Units

    @property
    def picture(self) -> str:
        """The kind of picture."""
        return self.features.pictures.kind

    def kept(self, seed: int) -> dict[str, Any]:
        """Everything in the unit of a seed, see `_fit`."""
        return self.fits[list(self.seeds).index(seed)]


def train_axes(
    folds: Sequence[FoldConcepts],
    features: Mapping[str, Features],
    *,
    seeds: Sequence[int],
    budget: Budget,
) -> list[Trial]:
    """Both arms for every fold that has concepts and every kind of picture.

    features: picture -> its features. Each axis is turned towards the training patches that show its concept and away
    from those that lack it. Raises what `training.train` and `units.each` raise.
    """
    with_concepts = [fold for fold in folds if fold.concepts]
    return [_trial(fold, of_kind, seeds, budget) for fold in with_concepts for of_kind in features.values()]


def _trial(fold: FoldConcepts, features: Features, seeds: Sequence[int], budget: Budget) -> Trial:
    depends = features.depends | {
        "rows": {part: digest(rows) for part, rows in fold.rows.items()},
        "concepts": of_concepts(fold.concepts),
        "annotation": digest(fold.annotation[list(fold.concepts)].to_numpy(float)),
        "arms": {arm: ON_VGG16[arm].depends for arm in PAIR},
        "budget": of_budget(budget),
        "repeats": REPEATS,
    }
    fits = units.each(
        lambda seed, **_: _fit(fold, features, seed=seed, budget=budget),
        [_name(features, fold.name) | {"seed": seed} for seed in seeds],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=depends,
        prepare=features.prepare,
        precision=precision_of_features,
    )
    return Trial(fold, features, tuple(seeds), fits)


def _name(features: Features, split: str) -> dict[str, Any]:
    return {"network": "VGG16", "picture": features.pictures.kind, "split": split, "arm": WHITENED}


def _train(
    arm: str,
    features: Features,
    inputs: Inputs,
    rows: np.ndarray,
    concepts: Mapping[str, np.ndarray],
    without: Mapping[str, np.ndarray],
    *,
    seed: int,
    budget: Budget,
    label: str,
) -> Trained:
    """An arm on the training patches `rows`. inputs: the maps of all patches, maybe of further pictures too."""
    return train(
        ON_VGG16[arm],
        vgg16.tail("light", len(LABELS), seed=seed),
        inputs,
        features.labels,
        rows,
        concepts,
        without=without,
        learnt=features.training_rows(rows),
        statistics=features.statistics(rows) if arm == WHITENED else None,
        budget=budget,
        rng=np.random.default_rng(seed),
        label=label,
    )


def _fit(fold: FoldConcepts, features: Features, *, seed: int, budget: Budget) -> dict[str, Any]:
    """Of the N test patches, for the arms of PAIR in turn and for k concepts.

    p_patient (2, N) float32; ranks (k, detectors, N) float16: of each patch among the training patches, by the score of
    each of `detectors`; contrast (2, k, k), see `detection.contrast`; report and shared_direction, by arm; importance,
    by concept; alignment by round.
    """
    labels, maps = features.pictures.labels, features.maps
    every = np.arange(len(labels))
    train_rows, validation, test = (fold.rows[part] for part in ("train", "validation", "test"))
    refuse_tested(fold.concepts, test)
    lacking = {name: train_rows[fold.annotation[name].iloc[train_rows] == 0] for name in fold.concepts}
    trained = {
        arm: _train(
            arm,
            features,
            maps,
            train_rows,
            fold.concepts,
            lacking,
            seed=seed,
            budget=budget,
            label=f"{fold.name}, {features.pictures.kind}, {arm}, seed {seed}",
        )
        for arm in PAIR
    }
    plain_nc = measures.units(trained[PLAIN], maps, every)
    axes_nk = alignment.concept_scores(trained[WHITENED].model, batches(maps, every))
    ranks, importance, drawn = [], {}, np.random.default_rng(seed)
    for axis, concept in enumerate(fold.concepts):
        shown = fold.annotation[concept].to_numpy()
        scores = {"axis": axes_nk[:, axis]} | detection.detectors(plain_nc, shown, train_rows, validation)
        ranks.append([detection.rank_among(score[test], score[train_rows]) for score in scores.values()])
        found = measures.importance(trained[WHITENED], maps, labels, test, axis, repeats=REPEATS, rng=drawn)
        importance[concept] = finite(found)
    tested_nc = {arm: measures.units(one, maps, test) for arm, one in trained.items()}
    return {
        "p_patient": np.stack([p_patient(one.model, maps, test) for one in trained.values()]),
        "detectors": list(scores),
        "ranks": np.array(ranks, np.float16),
        "contrast": np.stack([detection.contrast(tested_nc[arm], fold.tested()).to_numpy() for arm in PAIR]),
        "report": {arm: finite(measures.report(one, maps, labels, test)) for arm, one in trained.items()},
        "shared_direction": finite({arm: detection.separability(tested_nc[arm], fold.tested()) for arm in PAIR}),
        "importance": importance,
        "alignment": [turn.alignment for turn in trained[WHITENED].rounds],
    }


def train_own_axes(
    features: Features, rows: Mapping[str, np.ndarray], pictures: Mapping[str, np.ndarray], *, seed: int, budget: Budget
) -> Units:
    """A unit: axes turned towards concepts that a reader brings, and away from the training patches.

    aucs: concept -> AUC of its axis, for the third of its pictures that was kept back against the test patches.
    pictures: concept -> (N, 224, 224, 1) uint8. Raises what `training.train` and `units.each` raise.
    """
    depends = features.depends | {
        "rows": {part: digest(rows[part]) for part in ("train", "test")},
        "concepts": of_concepts(pictures),
        "arms": {WHITENED: ON_VGG16[WHITENED].depends},
        "budget": of_budget(budget),
    }
    return units.each(
        lambda seed, **_: {"aucs": _own_axis_aucs(features, rows, pictures, seed=seed, budget=budget)},
        [_name(features, "own concepts") | {"seed": seed}],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=depends,
        prepare=features.prepare,
        precision=precision_of_features,
    )


def _own_axis_aucs(
    features: Features, rows: Mapping[str, np.ndarray], pictures: Mapping[str, np.ndarray], *, seed: int, budget: Budget
) -> dict[str, float]:
    inputs, own_rows = _with_more(features, pictures)
    n_turning = {name: (2 * len(of_concept) + 2) // 3 for name, of_concept in own_rows.items()}
    turning = {name: of_concept[: n_turning[name]] for name, of_concept in own_rows.items()}
    kept_back = {name: of_concept[n_turning[name] :] for name, of_concept in own_rows.items()}
    trained = _train(
        WHITENED,
        features,
        inputs,
        rows["train"],
        turning,
        dict.fromkeys(pictures, rows["train"]),
        seed=seed,
        budget=budget,
        label="your own concepts",
    )
    return measures.axis_aucs(trained, inputs, kept_back, rows["test"])


def _with_more(features: Features, pictures: Mapping[str, np.ndarray]) -> tuple[Inputs, dict[str, np.ndarray]]:
    """The maps of further pictures behind those of the patches, and their rows. No batch may hold both."""
    more, end = torch.cat([features.maps_of(of_concept) for of_concept in pictures.values()]), len(features.labels)
    first, rows = end, {}
    for name, of_concept in pictures.items():
        rows[name] = np.arange(end, end := end + len(of_concept))
    return lambda chosen: more[chosen - first] if chosen[0] >= first else features.maps(chosen), rows
