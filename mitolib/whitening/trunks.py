"""Whole networks, each trained once and kept as a unit: everything up to the last block serves all arms as it is.

    shown = trunks.Pictures("SDHA", ("SDHA",), table, patches_nhwc, experiment, data_sha256)
    recipe = trunks.Recipe(weights.resolve("ResNet18"), budget, zoom)
    trunk = trunks.train_trunk(shown, rows, split="published", recipe=recipe, seed=127)
    trunk.history, trunk.network.maps(rows["test"])

The weights of a trunk and its maps of all patches stay on this machine. A process that has to train an arm where they
are not, because another share owes the trunk or because only its result was published, trains the trunk once more:
that takes no longer than to wait for the other share.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from mitolib import metrics, patches, units
from mitolib.study import Experiment
from mitolib.units import Units, digest
from mitolib.weights import Weights
from mitolib.whitening import resnet
from mitolib.whitening.fitting import BATCH, Budget, UntilFlat, batches, fit_until_flat, outputs, pictures
from mitolib.whitening.passes import kept_generators

PROTOCOL = 2  # of the training of a whole network; raise it when the same unit would come out otherwise
CHAPTER = "concept_whitening"  # whose units trunks are, whichever chapter asks: others read the same ones
GRID = ["section", "y", "x", "label"]  # of a patch table: what a training depends on


@dataclass(frozen=True)
class Network:
    """A ResNet-18 trained on pictures, cut below its last block, with the maps of all patches at the cut."""

    whole: resnet.ResNet18
    maps_nchw: Tensor

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
    rows: Mapping[str, np.ndarray],
    *,
    arrays: tuple[np.ndarray, ...] | None,
    augment: Callable[..., np.ndarray],
    budget: UntilFlat,
    seed: int,
    label: str,
) -> tuple[Network, pd.DataFrame]:
    """Train all layers on rows["train"] until the loss of rows["validation"] is flat; then compute the output of
    `layer4.0` for every patch, not augmented. Beside the network its history, see `fitting.fit_until_flat`.

    In between the batch norms take their statistics from training patches as they are, which augmented ones differ
    from. arrays: `weights.resolve("ResNet18").arrays`. augment: (patches, rng=) -> patches.
    """
    torch.manual_seed(seed)
    order, turns = np.random.default_rng(seed).spawn(2)
    whole = resnet.build(n_classes(labels), arrays=arrays)
    augmented, plain = pictures(patches_nhwc, lambda batch_nhwc: augment(batch_nhwc, rng=turns)), pictures(patches_nhwc)
    history = fit_until_flat(
        whole, augmented, plain, labels, rows, budget=budget, rng=order, label=f"{label}, training"
    )
    update_bn(batches(plain, order.permutation(rows["train"])[: 4 * BATCH]), whole)
    return Network(whole, _maps(whole, patches_nhwc, f"{label}, maps")), history


def n_classes(labels: np.ndarray) -> int:
    """Of class indices (N,)."""
    return int(labels.max()) + 1


def _maps(whole: resnet.ResNet18, patches_nhwc: np.ndarray, label: str) -> Tensor:
    return outputs(resnet.divide(whole)[0], pictures(patches_nhwc), np.arange(len(patches_nhwc)), label)


def of_concepts(concepts: Mapping[str, np.ndarray]) -> dict[str, str]:
    """concept, in the order of the axes -> digest of the rows that show it."""
    return {name: digest(rows) for name, rows in concepts.items()}


def of_budget(budget: Budget | UntilFlat) -> dict[str, Any]:
    """A budget as plain values, without its precision, which is written down in a unit and not part of its key."""
    return {name: value for name, value in vars(budget).items() if name != "precision"}


@dataclass(frozen=True, eq=False)  # arrays have no single answer to whether they are equal
class Pictures:
    """All patches, in one kind of picture."""

    kind: str  # the protein, or "composite"
    proteins: tuple[str, ...]  # one, or those of the colours
    table: pd.DataFrame  # one row per patch, with section, y, x and label
    patches_nhwc: np.ndarray  # (N, 224, 224, 1 or 3) uint8, in the order of the table
    experiment: Experiment  # the size of a patch and the stride
    data_sha256: str  # of the sections' pictures in these proteins, see `cohort.digest`

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) class indices."""
        return metrics.class_index(self.table["label"])

    @cached_property
    def depends(self) -> dict[str, Any]:
        """What tells these pictures from others, as plain values."""
        return {
            "pictures": self.data_sha256,
            "proteins": list(self.proteins),
            "patches": hashlib.sha256(self.table[GRID].to_csv(index=False).encode()).hexdigest(),
            "patch_px": self.experiment.patch_px,
            "stride_px": self.experiment.stride_px,
        }


@dataclass(frozen=True)
class Recipe:
    """How a whole network is trained, whichever patches and whichever seed."""

    weights: Weights  # that it starts from, of ResNet18
    budget: UntilFlat
    zoom: tuple[float, float]  # of augmentation, see `patches.augment`

    @property
    def depends(self) -> dict[str, Any]:
        """The same as plain values."""
        return {"weights": self.weights.sha256, "zoom": list(self.zoom), "budget": of_budget(self.budget)}


@dataclass(frozen=True, eq=False)
class Trunk:
    """The whole network of one split, one kind of picture and one seed."""

    pictures: Pictures
    rows: Mapping[str, np.ndarray]  # set -> rows; it was trained on "train", until the loss of "validation" was flat
    name: Mapping[str, Any]  # of its unit, and the beginning of the name of each fit that reads it
    fits: Units  # this one

    @property
    def depends(self) -> dict[str, Any]:
        """What every fit depends on that reads it."""
        return {"trunk": self.fits.keys[0]} | {part: digest(rows) for part, rows in self.rows.items()}

    @property
    def history(self) -> pd.DataFrame:
        """A row for each look at the validation loss, see `fitting.fit_until_flat`."""
        return pd.DataFrame(self.fits[0]["history"])

    @property
    def network(self) -> Network:
        """With its weights and the maps of all patches, for a fit; a page has no need of it."""
        return _network(self)

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of it."""
        return self.fits.record


@lru_cache(maxsize=1)  # arms of one trunk follow each other; its maps are some hundred megabytes
def _network(trunk: Trunk) -> Network:
    *state, maps_nhwc = map(torch.from_numpy, trunk.fits.weights(0))
    with kept_generators():  # random weights, which those of the unit replace
        whole = resnet.build(n_classes(trunk.pictures.labels), arrays=None)
    whole.load_state_dict(dict(zip(whole.state_dict(), state, strict=True)))
    return Network(whole.eval(), maps_nhwc.permute(0, 3, 1, 2))


def train_trunk(shown: Pictures, rows: Mapping[str, np.ndarray], *, split: str, recipe: Recipe, seed: int) -> Trunk:
    """A unit: the network trained on rows["train"], with its history.

    rows: set -> row numbers. split: what the sets are called in the name of the unit. Raises what `units.each` raises.
    """
    name = {"network": "ResNet18", "picture": shown.kind, "split": split, "trunk_seed": seed}
    fits = units.each(
        lambda **_: _fit(shown, rows, recipe, seed=seed, label=f"ResNet-18, {shown.kind}, {split}"),
        [name],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=shown.depends | recipe.depends | {part: digest(rows[part]) for part in ("train", "validation")},
        precision=lambda: recipe.budget.precision,
    )
    return Trunk(shown, rows, name, fits)


def _fit(shown: Pictures, rows: Mapping[str, np.ndarray], recipe: Recipe, *, seed: int, label: str) -> dict[str, Any]:
    """history; weights: the state of the network in its own order, then the maps of all patches."""
    network, history = train_network(
        shown.patches_nhwc,
        shown.labels,
        rows,
        arrays=recipe.weights.arrays,
        augment=partial(patches.augment, zoom=recipe.zoom),
        budget=recipe.budget,
        seed=seed,
        label=label,
    )
    # Channels last, as the network makes them: in another order in memory sums differ in their last bits.
    state = [*network.whole.state_dict().values(), network.maps_nchw.permute(0, 2, 3, 1)]
    return {"history": history.to_dict("list"), "weights": [tensor.numpy() for tensor in state]}
