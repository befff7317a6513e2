"""What the chapter trains, as units: the arms on the features of VGG16 and on whole ResNet-18s; layers that it draws.

Each unit keeps what a page shows of it: answers, also with axes taken out, scores on the axes, what the layer is like.
No unit keeps the weights of an arm, which no page needs. Concepts are training patches, never tested ones.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator

from mitolib import units
from mitolib.settings import LABELS
from mitolib.units import Units, digest
from mitolib.whitening import alignment, measures, vgg16
from mitolib.whitening.fitting import Budget, Inputs, batches, outputs, pictures
from mitolib.whitening.passes import kept_generators
from mitolib.whitening.training import ARMS, ON_VGG16, OPEN, Trained, norm_of, placed, train
from mitolib.whitening.trunks import CHAPTER, Pictures, Trunk, of_budget, of_concepts
from mitolib.whitening.vgg16 import Features

# Of training an arm or placing a layer, and of what is measured of them; raise it when the same unit would come out
# otherwise: when `training`, `alignment`, the layer, `vgg16` or a measure kept here changes what it computes.
PROTOCOL = 2
PLACES = tuple(f"layer{i}.1.bn1" for i in range(1, 5))  # of a layer, early to late in a ResNet-18
OPPOSITES = {"E2": "two axes", "E": "one signed axis", "A": "the public code"}  # arms whose geometry is shown
PAIR_ARM = "E2"  # of the layer for two concepts
N_POSITIONS = 150  # of each group of positions
PUBLISHED = "published"  # name of the split

Rows = Mapping[str, np.ndarray]  # "train" and "test" -> row numbers of patches


def by_class(labels: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """class -> those of the rows that are of it."""
    return {name: rows[labels[rows] == i] for i, name in enumerate(LABELS)}


def refuse_tested(concepts: Mapping[str, np.ndarray], tested: np.ndarray) -> None:
    """Raise ValueError for a concept that shows tested patches: axes turned by them would know the answer."""
    for name, rows in concepts.items():
        if len(both := np.intersect1d(rows, tested)):
            raise ValueError(
                f"concept {name!r} is shown by {len(both)} patches that are tested, the first in row {both[0]}; wanted "
                "training patches only. Take concepts from the training set."
            )


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One arm with one seed: a unit, read when it is asked for something.

    tested: rows of the patch table, fold after fold; a patch that several folds tested counts once, with its mean.
    """

    pictures: Pictures
    tested: np.ndarray
    fits: Units
    place: int  # among the units

    @property
    def kept(self) -> dict[str, Any]:
        """Everything in the unit, see `_measured`."""
        return self.fits[self.place]

    @property
    def rows(self) -> np.ndarray:
        """(N,) the tested patches, each once, in the order of the patch table."""
        return np.unique(self.tested)

    @property
    def labels(self) -> np.ndarray:
        """(N,) class indices of the tested patches."""
        return self.pictures.labels[self.rows]

    @property
    def subjects(self) -> np.ndarray:
        """(N,) whose patches they are."""
        return self.pictures.table["subject"].to_numpy()[self.rows]

    def of_patches(self, name: str) -> np.ndarray:
        """An array of the unit whose last axis, or whose first of `axis_scores`, is the tested patches: (..., N)."""
        values = np.atleast_2d(self.kept[name].T if name == "axis_scores" else self.kept[name]).astype(float)
        _, place, count = np.unique(self.tested, return_inverse=True, return_counts=True)
        sums = np.stack([np.bincount(place, of_row) for of_row in values])
        return sums / count if self.kept[name].ndim > 1 else sums[0] / count

    @property
    def called_patient(self) -> np.ndarray:
        """(N,) bool, of the tested patches: those with a probability above one half."""
        return self.of_patches("log_odds") > 0

    @property
    def reports(self) -> list[dict[str, Any]]:
        """`measures.report` of the tested patches of each fold; None for what is not defined."""
        return self.kept["reports"]

    @property
    def geometry(self) -> dict[str, float]:
        """`measures.geometry` of the two classes among the training patches of the first fold, of arms of OPPOSITES."""
        found = self.kept["geometries"][0]
        return {name: math.nan if value is None else value for name, value in found.items()}

    @property
    def unit(self) -> dict[str, Any]:
        """What the results file says of it."""
        return self.fits.record[self.place]


Arms = dict[str, dict[int, Evaluated]]  # arm -> seed -> what came of it


def train_on_vgg16(
    features: Features,
    folds: Mapping[str, Rows],
    *,
    split: str,
    names: Iterable[str] = tuple(ON_VGG16),
    seeds: Sequence[int],
    budget: Budget,
    controls: int,
    head: str = "light",
) -> Arms:
    """Arms of ON_VGG16, each trained and tested in every fold: a unit for each arm and seed. Nothing without folds.

    folds: name -> rows. The concepts are the two classes, of the fold's training patches as they are. split: what the
    folds are called together. head: a key of `vgg16.HEADS`. controls: see `measured`. Raises what `training.train` and
    `units.each` raise.
    """
    if not folds:
        return {}
    labels, trained = features.pictures.labels, {}
    concepts = {name: by_class(labels, rows["train"]) for name, rows in folds.items()}
    tested = np.concatenate([rows["test"] for rows in folds.values()])
    depends = features.depends | {
        "budget": of_budget(budget),
        "controls": controls,
        "folds": [
            {part: digest(rows[part]) for part in ("train", "test")} | of_concepts(concepts[name])
            for name, rows in folds.items()
        ],
    }

    def fit(arm: str, seed: int, **_: object) -> dict[str, Any]:
        found = [
            _fit_on_vgg16(
                features, rows, concepts[name], arm, head, seed, budget, controls, label=f"{name}, {arm}, {seed}"
            )
            for name, rows in folds.items()
        ]
        return _joined(found)

    for arm in names:
        fits = units.each(
            fit,
            [
                {"network": "VGG16", "picture": features.pictures.kind, "split": split, "head": head, "arm": arm}
                | {"seed": seed}
                for seed in seeds
            ],
            made_by=sys.modules[__name__],
            chapter=CHAPTER,
            depends=depends | {"arm": ON_VGG16[arm].depends},
            prepare=features.prepare,
            precision=precision_of_features,
        )
        trained[arm] = {seed: Evaluated(features.pictures, tested, fits, place) for place, seed in enumerate(seeds)}
    return trained


def precision_of_features() -> str:
    """Of the arithmetic below the cut."""
    from mitolib import bank  # TensorFlow, which kept units do not need

    return bank.precision()


def _fit_on_vgg16(
    features: Features,
    rows: Rows,
    concepts: Mapping[str, np.ndarray],
    arm: str,
    head: str,
    seed: int,
    budget: Budget,
    controls: int,
    *,
    label: str,
) -> dict[str, Any]:
    with kept_generators():
        torch.manual_seed(seed)  # of dropout
        trained = train(
            ON_VGG16[arm],
            vgg16.tail(head, len(LABELS), seed=seed),
            features.maps,
            features.labels,
            rows["train"],
            concepts,
            learnt=features.training_rows(rows["train"]),
            statistics=features.statistics(rows["train"]) if ON_VGG16[arm].place == OPEN else None,
            budget=budget,
            rng=np.random.default_rng(seed),
            label=label,
        )
    return measured(trained, features.maps, features.labels, rows, concepts, arm, controls, seed)


def train_arms(
    trunk: Trunk,
    *,
    names: Iterable[str] = tuple(ARMS),
    seeds: Sequence[int],
    budget: Budget,
    controls: int,
) -> Arms:
    """The last block of a ResNet-18, trained as each arm on its training patches and tried on its test patches.

    The concepts are the two classes, of the training patches. controls: see `measured`. Raises what `training.train`
    and `units.each` raise.
    """
    labels, trained = trunk.pictures.labels, {}
    concepts = by_class(labels, trunk.rows["train"])
    depends = _depends(trunk, concepts, budget) | {"controls": controls}

    def fit(arm: str, seed: int, **_: object) -> dict[str, Any]:
        network = trunk.network
        of_arm = train(
            ARMS[arm],
            network.tail,
            network.maps,
            labels,
            trunk.rows["train"],
            concepts,
            budget=budget,
            rng=np.random.default_rng(seed),
            label=f"{trunk.name['split']}, {arm}, seed {seed}",
        )
        return _joined([measured(of_arm, network.maps, labels, trunk.rows, concepts, arm, controls, seed)])

    for name in names:
        fits = units.each(
            fit,
            [{**trunk.name, "arm": name, "place": ARMS[name].place, "seed": seed} for seed in seeds],
            made_by=sys.modules[__name__],
            chapter=CHAPTER,
            depends=depends | {"arm": ARMS[name].depends},
        )
        tested = trunk.rows["test"]
        trained[name] = {seed: Evaluated(trunk.pictures, tested, fits, place) for place, seed in enumerate(seeds)}
    return trained


def measured(
    trained: Trained,
    inputs: Inputs,
    labels: np.ndarray,
    rows: Rows,
    concepts: Mapping[str, np.ndarray],
    arm: str,
    controls: int,
    seed: int,
) -> dict[str, Any]:
    """What a unit keeps of one training, of its N test patches; an arm without a whitening layer has no axes.

    log_odds (N,) of "patient", as it is; and (controls, N) with axes permuted among the patches, drawn `controls`
    times: the k axes of the concepts, `permuted_axes`; k others, `permuted_others`; all others, `axes_alone`.
    axis_scores (N, k). All are float16. report; geometry of the training patches, for arms of OPPOSITES; loss, the mean
    over the first and over the last tenth of the steps; alignment in the last round. Raises ValueError for a concept
    that shows tested patches.
    """
    refuse_tested(concepts, rows["test"])
    tested = rows["test"]
    kept: dict[str, Any] = {
        "report": finite(measures.report(trained, inputs, labels, tested)),
        "geometry": finite(measures.geometry(trained, inputs, concepts, rows["train"])) if arm in OPPOSITES else None,
        "loss": _ends(trained.loss.to_numpy()),
        "alignment": trained.rounds[-1].alignment if trained.rounds else None,
    }
    layer = norm_of(trained.model)
    if not (n_axes := getattr(layer, "n_concepts", 0)):
        logits = outputs(trained.model, inputs, tested)
        return kept | {"log_odds": _half((logits[:, 1] - logits[:, 0]).numpy())}
    rng = np.random.default_rng(seed)
    drawn = permutations(n_axes, layer.n_channels, len(tested), controls, rng=rng)
    for name, permuted in drawn.items():
        kept[name] = _half(measures.answers_permuted(trained, inputs, tested, permuted))
    return kept | {
        "log_odds": kept["log_odds"][0],
        "axis_scores": _half(alignment.concept_scores(trained.model, batches(inputs, tested))),
    }


def permutations(
    n_axes: int, n_channels: int, n: int, controls: int, *, rng: Generator
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Axes and the order of n patches: none; and `controls` times those of concepts, as many others, and all others.

    Where fewer others are there than concepts, all of them.
    """
    axes, others = np.arange(n_axes), np.arange(n_axes, n_channels)
    size = min(n_axes, len(others))
    drawn = {"log_odds": [(axes[:0], np.arange(n))], "permuted_axes": [], "permuted_others": [], "axes_alone": []}
    for _ in range(controls):
        drawn["permuted_axes"].append((axes, rng.permutation(n)))
        drawn["permuted_others"].append((rng.choice(others, size, replace=False), rng.permutation(n)))
        drawn["axes_alone"].append((others, rng.permutation(n)))
    return drawn


def _ends(loss: np.ndarray) -> list[float]:
    tenth = max(1, len(loss) // 10)
    return [float(loss[:tenth].mean()), float(loss[-tenth:].mean())]


def _half(values: np.ndarray) -> np.ndarray:
    """float16, which keeps log-odds and scores to a thousandth; what is beyond its range at its end."""
    end = np.finfo(np.float16).max
    return np.clip(values, -end, end).astype(np.float16)


def _joined(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several folds: arrays one behind the other along their patches, the rest as lists."""
    joined: dict[str, Any] = {"reports": [], "geometries": [], "losses": [], "alignments": []}
    for fold in folds:
        for kind, name in zip(joined, ("report", "geometry", "loss", "alignment"), strict=True):
            joined[kind].append(fold[name])
    arrays = [name for name, value in folds[0].items() if isinstance(value, np.ndarray)]
    along = {"axis_scores": 0}  # where the patches are; elsewhere the last axis
    return joined | {name: np.concatenate([fold[name] for fold in folds], axis=along.get(name, -1)) for name in arrays}


def place_layers(trunk: Trunk, *, seed: int, budget: Budget) -> Units:
    """For each of PLACES a layer in the trained network, turned to the classes of its training patches, not trained.

    scores: (N, 2) float32, of each test patch on the axes of both classes. Raises what `units.each` raises.
    """
    classes = by_class(trunk.pictures.labels, trunk.rows["train"])
    refuse_tested(classes, trunk.rows["test"])
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


def train_pair(
    features: Features, rows: Rows, concepts: Mapping[str, np.ndarray], *, seed: int, budget: Budget
) -> Units:
    """A layer on the features of VGG16 that is trained with two concepts, and `measures.positions` behind it.

    concepts: name -> training patches that show it; no unit without. Raises what `training.train` and `units.each`
    raise.
    """
    refuse_tested(concepts, rows["test"])

    def fit(seed: int, **_: object) -> dict[str, Any]:
        trained = train(
            ON_VGG16[PAIR_ARM],
            vgg16.tail("light", len(LABELS), seed=seed),
            features.maps,
            features.labels,
            rows["train"],
            concepts,
            learnt=features.training_rows(rows["train"]),
            statistics=features.statistics(rows["train"]),
            budget=budget,
            rng=np.random.default_rng(seed),
            label="two concepts",
        )
        drawn = np.random.default_rng(seed)
        return measures.positions(trained, features.maps, concepts, rows["train"], n=N_POSITIONS, rng=drawn)

    name = {"network": "VGG16", "picture": features.pictures.kind, "split": PUBLISHED, "arm": PAIR_ARM}
    return units.each(
        fit,
        [name | {"concepts": "two", "seed": seed}] if concepts else [],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=features.depends
        | {"train": digest(rows["train"]), "concepts": of_concepts(concepts), "budget": of_budget(budget)}
        | {"arm": ON_VGG16[PAIR_ARM].depends, "positions": N_POSITIONS},
        prepare=features.prepare,
        precision=precision_of_features,
    )


def _depends(trunk: Trunk, concepts: Mapping[str, np.ndarray], budget: Budget) -> dict[str, Any]:
    return trunk.depends | {"concepts": of_concepts(concepts), "budget": of_budget(budget)}


def finite(values: Mapping[str, float | int | None]) -> dict[str, float | int | None]:
    """The same with None for what is not finite, which a unit does not keep."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
