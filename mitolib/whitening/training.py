"""ResNet-18 with and without concept whitening, trained alike: the arms of a comparison.

Each arm treats the first norm layer of the last block in one way and is the same in everything else. The arms form a
ladder from what the public code of Chen, Bei and Rudin 2020 computes to what its formulas say and beyond. An arm is a
tail (`resnet.divide`), trained on maps computed once; the whole network below it is trained by the same `fitting.fit`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from mitolib import splits
from mitolib.own_data import LeftOut
from mitolib.whitening import alignment, resnet, surgery
from mitolib.whitening.fitting import BATCH, Budget, Inputs, batches, budgets, fit, outputs, pictures
from mitolib.whitening.layer import REFERENCE as PUBLIC_CODE
from mitolib.whitening.sentences import too_few_people

__all__ = [
    "ARMS",
    "Arm",
    "Budget",
    "Network",
    "Trained",
    "batches",
    "budgets",
    "extend",
    "people_folds",
    "pictures",
    "placed",
    "tested_people",
    "train",
    "train_network",
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
    """A trained arm: the model in evaluation, what each round found, and seconds of training."""

    model: nn.Module
    rounds: tuple[alignment.Round, ...]
    seconds: float


@dataclass(frozen=True)
class Network:
    """A ResNet-18 trained on pictures, cut below its last block, with the maps of all patches at the cut."""

    whole: resnet.ResNet18
    maps_nchw: Tensor
    loss: pd.Series  # by step

    @property
    def tail(self) -> nn.Sequential:
        """The last block and the classifier."""
        return resnet.divide(self.whole)[1]

    def maps(self, rows: np.ndarray) -> Tensor:
        """What the tail reads of these patches."""
        return self.maps_nchw[rows]


def train_network(
    patches_nhwc: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    arrays: tuple[np.ndarray, ...] | None,
    augment: Callable[..., np.ndarray],
    budget: Budget,
    seed: int,
    label: str,
) -> Network:
    """Train all layers on the patches `rows`, then compute the output of `layer4.0` for every patch, not augmented.

    In between the batch norms take their statistics from training patches as they are, which augmented ones differ
    from. arrays: `weights.resolve("ResNet18").arrays`. augment: (patches, rng=) -> patches.
    """
    torch.manual_seed(seed)
    order, turns = np.random.default_rng(seed).spawn(2)
    whole = resnet.build(int(labels.max()) + 1, arrays=arrays)
    augmented = pictures(patches_nhwc, lambda batch_nhwc: augment(batch_nhwc, rng=turns))
    loss = fit(whole, augmented, labels, rows, budget=budget, rng=order, label=f"{label}, training")
    update_bn(batches(pictures(patches_nhwc), order.permutation(rows)[: 4 * BATCH]), whole)
    return Network(whole, _maps(whole, patches_nhwc, f"{label}, maps"), loss)


def _maps(whole: resnet.ResNet18, patches_nhwc: np.ndarray, label: str) -> Tensor:
    return outputs(resnet.divide(whole)[0], pictures(patches_nhwc), np.arange(len(patches_nhwc)), label)


def extend(known: Network, more: Mapping[str, np.ndarray]) -> tuple[Network, dict[str, np.ndarray]]:
    """The network with the maps of further pictures behind those it has, and their rows. more: name -> (N, H, W, 1)."""
    maps, rows, end = [known.maps_nchw], {}, len(known.maps_nchw)
    for name, patches_nhwc in more.items():
        maps.append(_maps(known.whole, patches_nhwc, name))
        rows[name] = np.arange(end, end := end + len(patches_nhwc))
    return replace(known, maps_nchw=torch.cat(maps)), rows


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
    fit(model, inputs, labels, rows, budget=budget, rng=rng, label=label, turn=turning)
    if arm.place is not None and arm.calibrated:
        surgery.calibrate(model, batches(inputs, rows))
    return Trained(model.eval(), tuple(rounds), time.monotonic() - start)


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


def people_folds(table: pd.DataFrame, *, n_folds: int, n_computed: int, seed: int) -> list[dict[str, np.ndarray]]:
    """For each fold that is computed, set -> row numbers of its patches; all patches of a person are in one set.

    table: one row per patch, with subject and label. n_folds: that the people of each class are dealt out to; the
    first n_computed of them are tested in turn. Raises what `splits.by_subject` raises.
    """
    folds = []
    for fold in range(min(n_folds, n_computed)):
        split = splits.by_subject(table, n_folds=n_folds, fold=fold, seed=seed)
        folds.append({part: np.flatnonzero(split == part) for part in splits.SETS})
    return folds


def tested_people(
    table: pd.DataFrame, folds: Sequence[Mapping[str, np.ndarray]], *, people: int
) -> pd.DataFrame | LeftOut:
    """Who is tested in each fold, a row for each; or why there is none. people: in the smaller class."""
    if not folds:
        return too_few_people(people)
    subjects = table["subject"].to_numpy()
    tested = {f"fold {i}": ", ".join(sorted(set(subjects[fold["test"]]))) for i, fold in enumerate(folds, start=1)}
    return pd.Series(tested, name="tested subjects", dtype=object).to_frame()
