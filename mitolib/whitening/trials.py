"""Axes of real concepts as units: two arms on the trunk of one fold and one kind of picture, tried on its test patches.

The two arms, batch norm and a whitened one, are one unit, since the rivals of an axis read the network with batch norm.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mitolib import units
from mitolib.units import Units, digest
from mitolib.whitening import alignment, detection, measures
from mitolib.whitening.arms import finite
from mitolib.whitening.fitting import Budget, batches, p_patient
from mitolib.whitening.training import ARMS, train
from mitolib.whitening.trunks import Trunk, extend, of_budget, of_concepts

# Of training both arms and of what is measured of them; raise it when the same unit would come out otherwise: when
# `training`, `alignment`, the layer, `detection` or a measure kept here changes what it computes.
PROTOCOL = 1
CHAPTER = "real_concepts"
PLAIN, WHITENED = "BatchNorm", "D2"  # arms
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
    """Both arms on the trunk of one fold and one kind of picture: a unit for each seed, read when it is used."""

    fold: FoldConcepts
    trunk: Trunk
    seeds: Sequence[int]
    fits: Units

    @property
    def picture(self) -> str:
        """The kind of picture."""
        return self.trunk.pictures.kind

    def kept(self, seed: int) -> dict[str, Any]:
        """Everything in the unit of a seed, see `_fit`."""
        return self.fits[list(self.seeds).index(seed)]


def train_axes(
    folds: Sequence[FoldConcepts],
    trunks: Mapping[str, Mapping[str, Trunk]],
    *,
    seeds: Sequence[int],
    budget: Budget,
) -> list[Trial]:
    """Both arms on the trunk of every fold that has concepts and of every kind of picture.

    trunks: fold -> picture -> trunk. Each axis is turned towards the training patches that show its concept and away
    from those that lack it. Raises what `training.train` and `units.each` raise.
    """
    return [
        _trial(fold, trunk, seeds, budget) for fold in folds if fold.concepts for trunk in trunks[fold.name].values()
    ]


def _trial(fold: FoldConcepts, trunk: Trunk, seeds: Sequence[int], budget: Budget) -> Trial:
    depends = trunk.depends | {
        "concepts": of_concepts(fold.concepts),
        "annotation": digest(fold.annotation[list(fold.concepts)].to_numpy(float)),
        "arms": {arm: ARMS[arm].depends for arm in PAIR},
        "budget": of_budget(budget),
        "repeats": REPEATS,
    }
    fits = units.each(
        lambda seed, **_: _fit(fold, trunk, seed=seed, budget=budget),
        [{**trunk.name, "arm": WHITENED, "place": ARMS[WHITENED].place, "seed": seed} for seed in seeds],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=depends,
    )
    return Trial(fold, trunk, tuple(seeds), fits)


def _fit(fold: FoldConcepts, trunk: Trunk, *, seed: int, budget: Budget) -> dict[str, Any]:
    """Of the N test patches, for the arms of PAIR in turn and for k concepts.

    p_patient (2, N) float32; ranks (k, detectors, N): of each patch among the training patches, by the score of each
    of `detectors`; contrast (2, k, k), see `detection.contrast`; report and shared_direction, by arm; importance, by
    concept; loss by step, by arm, and alignment by round.
    """
    network, labels = trunk.network, trunk.pictures.labels
    every = np.arange(len(labels))
    train_rows, validation, test = (fold.rows[part] for part in ("train", "validation", "test"))
    lacking = {name: train_rows[fold.annotation[name].iloc[train_rows] == 0] for name in fold.concepts}
    trained = {
        arm: train(
            ARMS[arm],
            network.tail,
            network.maps,
            labels,
            train_rows,
            fold.concepts,
            without=lacking,
            budget=budget,
            rng=np.random.default_rng(seed),
            label=f"{fold.name}, {trunk.pictures.kind}, {arm}, seed {seed}",
        )
        for arm in PAIR
    }
    plain_nc = measures.units(trained[PLAIN], network.maps, every)
    axes_nk = alignment.concept_scores(trained[WHITENED].model, batches(network.maps, every))
    ranks, importance, drawn = [], {}, np.random.default_rng(seed)
    for axis, concept in enumerate(fold.concepts):
        shown = fold.annotation[concept].to_numpy()
        scores = {"axis": axes_nk[:, axis]} | detection.detectors(plain_nc, shown, train_rows, validation)
        ranks.append([detection.rank_among(score[test], score[train_rows]) for score in scores.values()])
        found = measures.importance(trained[WHITENED], network.maps, labels, test, axis, repeats=REPEATS, rng=drawn)
        importance[concept] = finite(found)
    tested_nc = {arm: measures.units(one, network.maps, test) for arm, one in trained.items()}
    return {
        "p_patient": np.stack([p_patient(one.model, network.maps, test) for one in trained.values()]),
        "detectors": list(scores),
        "ranks": np.array(ranks),
        "contrast": np.stack([detection.contrast(tested_nc[arm], fold.tested()).to_numpy() for arm in PAIR]),
        "report": {arm: finite(measures.report(one, network.maps, labels, test)) for arm, one in trained.items()},
        "shared_direction": finite({arm: detection.separability(tested_nc[arm], fold.tested()) for arm in PAIR}),
        "importance": importance,
        "loss": {arm: one.loss.to_list() for arm, one in trained.items()},
        "alignment": [turn.alignment for turn in trained[WHITENED].rounds],
    }


def train_own_axes(trunk: Trunk, pictures: Mapping[str, np.ndarray], *, seed: int, budget: Budget) -> Units:
    """A unit: axes of a trunk turned towards concepts that a reader brings, and away from its training patches.

    aucs: concept -> AUC of its axis, for the third of its pictures that was kept back against the test patches.
    pictures: concept -> (N, 224, 224, 1) uint8. Raises what `training.train` and `units.each` raise.
    """
    name = {**trunk.name, "arm": WHITENED, "place": ARMS[WHITENED].place, "concepts": "own", "seed": seed}
    depends = trunk.depends | {
        "concepts": of_concepts(pictures),
        "arms": {WHITENED: ARMS[WHITENED].depends},
        "budget": of_budget(budget),
    }
    return units.each(
        lambda seed, **_: {"aucs": _own_axis_aucs(trunk, pictures, seed=seed, budget=budget)},
        [name],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=depends,
    )


def _own_axis_aucs(trunk: Trunk, pictures: Mapping[str, np.ndarray], *, seed: int, budget: Budget) -> dict[str, float]:
    extended, own_rows = extend(trunk.network, pictures)
    n_turning = {name: (2 * len(of_concept) + 2) // 3 for name, of_concept in own_rows.items()}
    turning = {name: of_concept[: n_turning[name]] for name, of_concept in own_rows.items()}
    kept_back = {name: of_concept[n_turning[name] :] for name, of_concept in own_rows.items()}
    trained = train(
        ARMS[WHITENED],
        extended.tail,
        extended.maps,
        trunk.pictures.labels,
        trunk.rows["train"],
        turning,
        without=dict.fromkeys(pictures, trunk.rows["train"]),
        budget=budget,
        rng=np.random.default_rng(seed),
        label="your own concepts",
    )
    return measures.axis_aucs(trained, extended.maps, kept_back, trunk.rows["test"])
