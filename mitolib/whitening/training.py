"""ResNet-18 with and without concept whitening, trained alike: the arms of a comparison.

Each arm treats the first norm layer of the last block in one way and is the same in everything else. The arms form a
ladder from what the public code of Chen, Bei and Rudin 2020 computes to what its formulas say and beyond. An arm is a
tail (`resnet.divide`), trained on maps computed once; the whole network below it is trained by the same `fitting.fit`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from torch import nn

from mitolib import splits
from mitolib.own_data import LeftOut
from mitolib.whitening import alignment, surgery
from mitolib.whitening.fitting import BATCH, Budget, Inputs, batches, budgets, fit, pictures
from mitolib.whitening.layer import REFERENCE as PUBLIC_CODE
from mitolib.whitening.sentences import too_few_people
from mitolib.whitening.trunks import Pictures, Recipe, train_trunk

__all__ = [
    "ARMS",
    "Arm",
    "Budget",
    "Pictures",
    "Recipe",
    "Trained",
    "batches",
    "budgets",
    "people_folds",
    "pictures",
    "placed",
    "tested_people",
    "train",
    "train_trunk",
]

PLACE, BEFORE_HEAD = "last.1.bn1", "before the head"  # in a tail; the first is layer4.1.bn1 of the whole network


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to treat the norm layer, and to turn its axes."""

    what: str  # in a word, for a table
    place: str | None = PLACE  # None: batch norm stays
    settings: Mapping[str, object] = field(default_factory=dict)  # of whitening.ConceptWhitening
    calibrated: bool = True  # starts, and ends, with the mean and covariance of all training maps
    turned: bool = True
    against: bool = False  # each axis also away from patches without its concept
    signed: bool = False  # one axis, for the last concept; the first lies at its other end

    @property
    def depends(self) -> dict[str, Any]:
        """What a training as this arm depends on, as plain values: all but the word for it."""
        return {name: value for name, value in vars(self).items() if name != "what"}


EXACT = PUBLIC_CODE | {"official_mask": False}
POOLED = {"activation": "pool_max"}
ARMS = {
    "BatchNorm": Arm(what="batch norm", place=None),
    "ZCA": Arm(what="whitened, not turned", settings=POOLED, turned=False),
    "A": Arm(what="the public code", settings=PUBLIC_CODE, calibrated=False),
    "B": Arm(what="A, exact gradient", settings=EXACT, calibrated=False),
    "C": Arm(what="B, stable numerics", settings=POOLED),
    "D": Arm(what="C, against the others", settings=POOLED, against=True),
    "E": Arm(what="C, one signed axis", settings=POOLED, signed=True),
    "E2": Arm(what="C, mean of the map", settings={"activation": "mean"}),
    "D2": Arm(what="E2, against the others", settings={"activation": "mean"}, against=True),
    "F": Arm(what="E2, before the head", place=BEFORE_HEAD, settings={"activation": "mean"}),
}


@dataclass(frozen=True)
class Trained:
    """A trained arm: the model in evaluation, what each step and each round found, and seconds of training."""

    model: nn.Module
    loss: pd.Series  # by step
    rounds: tuple[alignment.Round, ...]
    seconds: float


def train(
    arm: Arm,
    tail: nn.Module,
    inputs: Inputs,
    labels: np.ndarray,
    rows: np.ndarray,
    concepts: Mapping[str, np.ndarray],
    *,
    without: Mapping[str, np.ndarray] | None = None,
    budget: Budget,
    rng: Generator,
    label: str,
) -> Trained:
    """Train a copy of `tail` as one arm. concepts: name -> row numbers of the patches that show it.

    without: name -> rows of patches that do not, for an arm that turns its axes against them; left out, the other
    concepts' patches. The axes are in the order of the concepts; a signed arm has one, for the last.
    """
    start = time.monotonic()
    model = copy.deepcopy(tail)
    names = list(concepts)[-1:] if arm.signed else list(concepts)
    if without is None:
        without = {name: np.concatenate([concepts[c] for c in concepts if c != name] or [rows]) for name in names}
    if arm.place is not None:
        calibration = batches(inputs, rows) if arm.calibrated else None
        if arm.place == BEFORE_HEAD:
            surgery.insert_before_head(model, len(names), calibration, stage="last", **arm.settings)
        else:
            surgery.replace_norm(model, arm.place, len(names), calibration, **arm.settings)
    size = min([budget.concept_batch, *(len(concepts[name]) for name in names)]) or 1  # `draw` names an empty concept
    opposed = min([size, *(len(without[name]) for name in names)])
    rounds = []

    def turn() -> None:
        if arm.calibrated:  # the running statistics lag behind training, and the axes are turned by them
            surgery.calibrate(model, batches(inputs, rng.permutation(rows)[: 4 * BATCH]))
        shown = alignment.draw({name: concepts[name] for name in names}, size, rng=rng)
        against = [inputs(rng.choice(without[name], opposed, replace=False)) for name in names] if arm.against else None
        head = model.fc if arm.place == BEFORE_HEAD else None
        rounds.append(alignment.align(model, [inputs(batch_rows) for batch_rows in shown.values()], against, head=head))

    turning = turn if arm.place is not None and arm.turned else None
    loss = fit(model, inputs, labels, rows, budget=budget, rng=rng, label=label, turn=turning)
    if arm.place is not None and arm.calibrated:
        surgery.calibrate(model, batches(inputs, rows))
    return Trained(model.eval(), loss, tuple(rounds), time.monotonic() - start)


def placed(
    whole: nn.Module,
    place: str,
    inputs: Inputs,
    rows: np.ndarray,
    concepts: Mapping[str, np.ndarray],
    *,
    budget: Budget,
    n_rounds: int,
    rng: Generator,
) -> nn.Module:
    """A copy of a trained network with a layer at `place`, calibrated and turned on the patches `rows`, not trained."""
    model = copy.deepcopy(whole)
    surgery.replace_norm(model, place, len(concepts), batches(inputs, rng.permutation(rows)[: 2 * BATCH]))
    smallest = min(len(concept_rows) for concept_rows in concepts.values())
    size = min(budget.concept_batch, smallest) or 1  # `draw` names an empty concept
    for _ in range(n_rounds):
        shown = alignment.draw(concepts, size, rng=rng)
        alignment.align(model, [inputs(batch_rows) for batch_rows in shown.values()])
    return model.eval()


def people_folds(table: pd.DataFrame, *, n_folds: int, n_computed: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """fold, such as "fold 1 of 4" -> set -> row numbers of its patches; all patches of a person are in one set.

    table: one row per patch, with subject and label. n_folds: that the people of each class are dealt out to; the
    first n_computed of them are tested in turn. Raises what `splits.by_subject` raises.
    """
    folds = {}
    for fold in range(min(n_folds, n_computed)):
        split = splits.by_subject(table, n_folds=n_folds, fold=fold, seed=seed)
        rows = {part: np.flatnonzero(split == part) for part in splits.SETS}
        folds[f"fold {fold + 1} of {n_folds}"] = rows
    return folds


def tested_people(
    table: pd.DataFrame, folds: Mapping[str, Mapping[str, np.ndarray]], *, people: int
) -> pd.DataFrame | LeftOut:
    """Who is tested in each fold, a row for each; or why there is none. people: in the smaller class."""
    if not folds:
        return too_few_people(people)
    subjects = table["subject"].to_numpy()
    tested = {name: ", ".join(sorted(set(subjects[rows["test"]]))) for name, rows in folds.items()}
    return pd.Series(tested, name="tested subjects", dtype=object).to_frame()
