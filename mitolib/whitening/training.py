"""A network with and without concept whitening, trained alike: the arms of a comparison.

Each arm treats one norm layer in one way and is the same in everything else. The arms form a ladder from what the
public code of Chen, Bei and Rudin 2020 computes to what its formulas say and beyond. An arm is a tail, trained on maps
computed once: of VGG16 (`vgg16.tail`), or the last block of a ResNet-18 (`resnet.divide`).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from torch import Tensor, nn

from mitolib import splits
from mitolib.own_data import LeftOut
from mitolib.whitening import alignment, surgery
from mitolib.whitening.fitting import BATCH, Budget, Inputs, batches, budgets, fit, pictures
from mitolib.whitening.layer import REFERENCE as PUBLIC_CODE
from mitolib.whitening.layer import ConceptWhitening
from mitolib.whitening.passes import caught_in
from mitolib.whitening.sentences import too_few_people
from mitolib.whitening.trunks import Pictures, Recipe, train_trunk
from mitolib.whitening.vgg16 import Features

__all__ = [
    "ARMS",
    "Arm",
    "Budget",
    "Features",
    "Pictures",
    "Recipe",
    "Trained",
    "batches",
    "budgets",
    "pair_folds",
    "people_folds",
    "pictures",
    "placed",
    "tested_people",
    "train",
    "train_trunk",
]

# In a tail: in the last block of a ResNet-18, whose shortcut passes by; with ReLU behind all of `last`, or, of VGG16,
# behind its last convolution, where nothing passes by; and before averaging and a linear layer.
PLACE, OPEN, BEFORE_HEAD = "last.1.bn1", "last.norm", "before the head"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to treat the norm layer, and to turn its axes."""

    what: str  # in a word, for a table
    place: str | None = PLACE  # None: no whitening layer
    bare: bool = False  # no batch norm at OPEN either
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
    "G": Arm(what="E2, no shortcut passes", place=OPEN, settings={"activation": "mean"}),
}
WITHOUT = "none"  # the arm without any layer
ON_VGG16 = {  # the same behind the last convolution of VGG16, which has no norm layer and no shortcut of its own
    WITHOUT: Arm(what="without the layer", place=None, bare=True),
    **{
        name: replace(arm, place=OPEN if arm.place == PLACE else arm.place) for name, arm in ARMS.items() if name != "G"
    },
}
ON_VGG16["F"] = replace(ON_VGG16["F"], bare=True)


def norm_of(model: nn.Module) -> nn.Module:
    """The layer that the arms differ in: the whitening layer, or what stands in its place."""
    layers = [module for module in model.modules() if isinstance(module, ConceptWhitening)]
    return layers[0] if layers else model.get_submodule(OPEN if hasattr(model.last, "norm") else PLACE)


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
    learnt: np.ndarray | None = None,
    statistics: tuple[Tensor, Tensor] | None = None,
    budget: Budget,
    rng: Generator,
    label: str,
) -> Trained:
    """Train a copy of `tail` as one arm. concepts: name -> row numbers of the patches that show it.

    without: name -> rows of patches that do not, for an arm that turns its axes against them; left out, the other
    concepts' patches. The axes are in the order of the concepts; a signed arm has one, for the last.
    learnt: the rows that batches are drawn from, such as augmented copies; left out, `rows`. statistics: mean and
    covariance of what reaches a layer at OPEN, where nothing below it is trained; left out, they are computed from
    `rows` before and after training and before each turn.
    """
    start = time.monotonic()
    model = copy.deepcopy(tail)
    names = list(concepts)[-1:] if arm.signed else list(concepts)
    if without is None:
        without = {name: np.concatenate([concepts[c] for c in concepts if c != name] or [rows]) for name in names}
    if arm.place == OPEN and not hasattr(model.last, "norm"):
        n_channels = caught_in(model, model.last, inputs(rows[:1])).shape[1]
        model.last.add_module("norm", nn.BatchNorm2d(n_channels))
        model.last.add_module("relu", nn.ReLU())  # or the classifier could undo every turn
    if arm.bare:
        model.last.norm = nn.Identity()
    known = statistics if arm.place == OPEN and arm.calibrated else None
    if arm.place is not None:
        calibration = batches(inputs, rows) if arm.calibrated and known is None else None
        if arm.place == BEFORE_HEAD:
            layer = surgery.insert_before_head(model, len(names), calibration, stage="last", **arm.settings)
        else:
            layer = surgery.replace_norm(model, arm.place, len(names), calibration, **arm.settings)
    if known is not None:
        layer.set_statistics(*known)
    size = min([budget.concept_batch, *(len(concepts[name]) for name in names)]) or 1  # `draw` names an empty concept
    opposed = min([size, *(len(without[name]) for name in names)])
    rounds = []

    def turn() -> None:
        if known is not None:
            layer.set_statistics(*known)
        elif arm.calibrated:  # the running statistics lag behind training, and the axes are turned by them
            surgery.calibrate(model, batches(inputs, rng.permutation(rows)[: 4 * BATCH]))
        shown = alignment.draw({name: concepts[name] for name in names}, size, rng=rng)
        against = [inputs(rng.choice(without[name], opposed, replace=False)) for name in names] if arm.against else None
        head = model.fc if arm.place == BEFORE_HEAD else None
        rounds.append(alignment.align(model, [inputs(batch_rows) for batch_rows in shown.values()], against, head=head))

    turning = turn if arm.place is not None and arm.turned else None
    learnt = rows if learnt is None else learnt
    loss = fit(model, inputs, labels, learnt, budget=budget, rng=rng, label=label, turn=turning)
    if known is not None:
        layer.set_statistics(*known)
    elif arm.place is not None and arm.calibrated:
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


def pair_folds(table: pd.DataFrame, *, n_folds: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """fold, such as "fold 1 of 10" -> set -> row numbers: in each, one control and one patient are tested.

    All others train; nobody validates. There are as many folds as people of the larger class, so that everybody is
    tested, the people of the smaller class several times; of these the first n_folds are given. table: one row per
    patch, with subject and label. Raises ValueError with fewer than two people of a class.
    """
    controls, patients = map(np.random.default_rng(seed).permutation, splits.two_of_each(table))
    there, subjects = max(len(controls), len(patients)), table["subject"].to_numpy()
    folds = {}
    for fold in range(min(n_folds, there)):
        tested = np.isin(subjects, [controls[fold % len(controls)], patients[fold % len(patients)]])
        folds[f"fold {fold + 1} of {there}"] = {"train": np.flatnonzero(~tested), "test": np.flatnonzero(tested)}
    return folds


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
