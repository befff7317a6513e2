"""What the paper's experiment trains on a trunk, as units: the arms, a layer at each depth, a layer for two concepts.

Each unit keeps what a page shows of it: answers, scores on the axes, what the layer is like. No unit keeps the weights
of an arm, which no page needs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mitolib import metrics, units
from mitolib.settings import LABELS
from mitolib.units import Units
from mitolib.whitening import alignment, detection, measures
from mitolib.whitening.fitting import Budget, batches, p_patient, pictures
from mitolib.whitening.training import ARMS, placed, train
from mitolib.whitening.trunks import CHAPTER, Trunk, of_budget, of_concepts

# Of training an arm or placing a layer, and of what is measured of them; raise it when the same unit would come out
# otherwise: when `training`, `alignment`, the layer or a measure kept here changes what it computes.
PROTOCOL = 1
PLACES = tuple(f"layer{i}.1.bn1" for i in range(1, 5))  # of a layer, early to late in the network
OPPOSITES = {"E2": "two axes", "E": "one signed axis", "A": "the public code"}  # arms whose geometry is shown
PAIR_ARM = "E2"  # of the layer for two concepts
N_POSITIONS = 150  # of each group of positions


def by_class(labels: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """class -> those of the rows that are of it."""
    return {name: rows[labels[rows] == i] for i, name in enumerate(LABELS)}


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One arm with one seed: a unit, read when it is asked for something."""

    trunk: Trunk
    fits: Units
    place: int  # among the units

    @property
    def kept(self) -> dict[str, Any]:
        """Everything in the unit, see `_fit_arm`."""
        return self.fits[self.place]

    @property
    def called_patient(self) -> np.ndarray:
        """(N,) bool, of the test patches: those with a probability above one half."""
        return self.kept["p_patient"] > 0.5

    @cached_property
    def scores(self) -> dict[str, Any]:
        """`metrics.scores` of the test patches."""
        labels = self.trunk.pictures.labels[self.trunk.rows["test"]]
        return metrics.scores(labels, self.called_patient.astype(int))

    @property
    def report(self) -> dict[str, Any]:
        """`measures.report` of the test patches; None for what is not defined."""
        return self.kept["report"]

    @property
    def geometry(self) -> dict[str, float]:
        """`measures.geometry` of the two classes among the training patches, of the arms of OPPOSITES."""
        return {name: math.nan if value is None else value for name, value in self.kept["geometry"].items()}

    @property
    def class_cosines(self) -> pd.DataFrame:
        """Cosine between the mean vectors of the two classes' test patches, over all units of the arm's norm layer."""
        return pd.DataFrame(self.kept["class_cosines"], index=LABELS, columns=LABELS)

    @property
    def axis_scores_nk(self) -> np.ndarray:
        """(N, k) float32: the score of each test patch on each axis."""
        return self.kept["axis_scores"]

    @property
    def unit(self) -> dict[str, Any]:
        """What the results file says of it."""
        return self.fits.record[self.place]


def train_arms(
    trunk: Trunk,
    concepts: Mapping[str, np.ndarray],
    *,
    names: Iterable[str] = tuple(ARMS),
    seeds: Sequence[int],
    budget: Budget,
) -> dict[str, dict[int, Evaluated]]:
    """arm -> seed -> the last block of the trunk, trained on its training patches and tried on its test patches.

    concepts: class -> rows that turn its axis. names: of arms. Raises what `training.train` and `units.each` raise.
    """
    trained = {}
    for name in names:
        fits = units.each(
            lambda arm, seed, **_: _fit_arm(trunk, concepts, arm=arm, seed=seed, budget=budget),
            [{**trunk.name, "arm": name, "place": ARMS[name].place, "seed": seed} for seed in seeds],
            made_by=sys.modules[__name__],
            chapter=CHAPTER,
            depends=_depends(trunk, concepts, budget) | {"arm": ARMS[name].depends},
        )
        trained[name] = {seed: Evaluated(trunk, fits, place) for place, seed in enumerate(seeds)}
    return trained


def _fit_arm(
    trunk: Trunk, concepts: Mapping[str, np.ndarray], *, arm: str, seed: int, budget: Budget
) -> dict[str, Any]:
    """p_patient (N,) and axis_scores (N, k) float32, class_cosines (2, 2), report: of the test patches; geometry: of
    the training patches, for arms of OPPOSITES; loss by step and alignment by round."""
    network, labels = trunk.network, trunk.pictures.labels
    train_rows, test = trunk.rows["train"], trunk.rows["test"]
    trained = train(
        ARMS[arm],
        network.tail,
        network.maps,
        labels,
        train_rows,
        concepts,
        budget=budget,
        rng=np.random.default_rng(seed),
        label=f"{trunk.name['split']}, {arm}, seed {seed}",
    )
    units_nc = measures.units(trained, network.maps, test)
    means = {name: units_nc[labels[test] == i].mean(axis=0) for i, name in enumerate(LABELS)}
    kept = {
        "p_patient": p_patient(trained.model, network.maps, test),
        "class_cosines": detection.cosines(pd.DataFrame(means).T).to_numpy(),
        "report": finite(measures.report(trained, network.maps, labels, test)),
        "loss": trained.loss.to_list(),
        "alignment": [turn.alignment for turn in trained.rounds],
    }
    if ARMS[arm].place is not None:
        kept["axis_scores"] = alignment.concept_scores(trained.model, batches(network.maps, test))
    if arm in OPPOSITES:
        classes = by_class(labels, train_rows)
        kept["geometry"] = finite(measures.geometry(trained, network.maps, classes, train_rows))
    return kept


def place_layers(trunk: Trunk, *, seed: int, budget: Budget) -> Units:
    """For each of PLACES a layer in the trained network, turned to the classes of its training patches, not trained.

    scores: (N, 2) float32, of each test patch on the axes of both classes. Raises what `units.each` raises.
    """
    classes = by_class(trunk.pictures.labels, trunk.rows["train"])
    inputs = pictures(trunk.pictures.patches_nhwc)

    def fit(place: str, seed: int, **_: object) -> dict[str, Any]:
        model = placed(
            trunk.network.whole,
            place,
            inputs,
            trunk.rows["train"],
            classes,
            budget=budget,
            n_rounds=len(PLACES),
            rng=np.random.default_rng(seed),
        )
        return {"scores": alignment.concept_scores(model, batches(inputs, trunk.rows["test"]))}

    return units.each(
        fit,
        [{**trunk.name, "place": place, "seed": seed} for place in PLACES],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=_depends(trunk, classes, budget) | {"rounds": len(PLACES)},
    )


def train_pair(trunk: Trunk, concepts: Mapping[str, np.ndarray], *, seed: int, budget: Budget) -> Units:
    """A layer that is trained with two concepts, and `measures.positions` behind it; no unit without concepts.

    concepts: name -> training patches that show it. Raises what `training.train` and `units.each` raise.
    """

    def fit(seed: int, **_: object) -> dict[str, Any]:
        network, rows = trunk.network, trunk.rows["train"]
        trained = train(
            ARMS[PAIR_ARM],
            network.tail,
            network.maps,
            trunk.pictures.labels,
            rows,
            concepts,
            budget=budget,
            rng=np.random.default_rng(seed),
            label="two concepts",
        )
        drawn = np.random.default_rng(seed)
        return measures.positions(trained, network.maps, concepts, rows, n=N_POSITIONS, rng=drawn)

    name = {**trunk.name, "arm": PAIR_ARM, "place": ARMS[PAIR_ARM].place, "concepts": "two", "seed": seed}
    return units.each(
        fit,
        [name] if concepts else [],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=_depends(trunk, concepts, budget) | {"arm": ARMS[PAIR_ARM].depends, "positions": N_POSITIONS},
    )


def _depends(trunk: Trunk, concepts: Mapping[str, np.ndarray], budget: Budget) -> dict[str, Any]:
    return trunk.depends | {"concepts": of_concepts(concepts), "budget": of_budget(budget)}


def finite(values: Mapping[str, float | int | None]) -> dict[str, float | int | None]:
    """The same with None for what is not finite, which a unit does not keep."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
