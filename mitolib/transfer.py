"""Transfer learning in one call: a patch table and its pixels -> frozen features -> trained heads -> their scores.

    task = transfer.Task.of(used, used.one)
    vgg16 = transfer.train("VGG16", task, profile=run)

A `Frozen` network computes, once for all trainings, what does not change in training. Each training of a head on it is
a unit (`mitolib.units`): one network, one seed, one budget. Units that are kept need no features, and no network either
until one is asked for a picture.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd

from mitolib import backend, bank, heads, metrics, networks, patches, stacked, units, weights
from mitolib.settings import Profile
from mitolib.study import Experiment
from mitolib.units import Units
from mitolib.weights import Weights

if TYPE_CHECKING:
    from mitolib.own_data import Data

PROTOCOL = 1  # of a head's training; raise it when the same unit would come out otherwise
GRID = ["section", "y", "x", "label", "split"]  # of a patch table: what a training depends on
BUDGET = ("epochs", "patience", "batch_size", "views", "learning_rate", "zoom", "seed")  # the same, of a profile


@dataclass(frozen=True, eq=False)  # arrays have no single answer to whether they are equal
class Task:
    """Patches, their classes and their split: what a network is trained on, and where it is tested."""

    table: pd.DataFrame  # one row per patch, numbered from 0; columns section, subject, y, x, label, split
    patches_nhwc: np.ndarray  # (N, 224, 224, C) uint8, in the order of the table
    experiment: Experiment
    data_sha256: str  # of the pictures that the patches are cut from, see `cohort.digest`

    @classmethod
    def of(cls, data: Data, experiment: Experiment) -> Task:
        """All patches of an experiment, in memory. data: see `own_data.read`; raises what `patches.load` raises."""
        table = data.table(experiment)
        patches_nhwc = patches.load(table, data.sections, experiment.proteins, stride_px=experiment.stride_px)
        return cls(table, patches_nhwc, experiment, data.digest(experiment.proteins))

    @cached_property
    def classes(self) -> np.ndarray:
        """(N,) class indices."""
        return metrics.class_index(self.table["label"])

    def rows(self, part: str) -> np.ndarray:
        """Row numbers of the patches of a set: train, validation or test."""
        return np.flatnonzero(self.table["split"] == part)

    @cached_property
    def depends(self) -> dict[str, Any]:
        """What tells this task from another, as plain values: pictures, experiment, and how patches are dealt out."""
        dealt = hashlib.sha256(self.table[GRID].to_csv(index=False).encode()).hexdigest()
        return {"pictures": self.data_sha256, "patches": dealt, "experiment": vars(self.experiment)}

    def baseline(self, part: str) -> float:
        """Accuracy of always giving the answer that is most common in a set."""
        return metrics.majority_baseline(self.classes[self.rows(part)])


class Frozen:
    """A network whose layers up to a cut stay as they are, and what these layers make of a task's patches.

    cut: the last layer of the backbone; None takes the whole pre-trained network. What is above the cut is built anew
    for each training. Features are computed when first asked for: by what the profile says of `zoom` and `views`, with
    its `seed` for augmentation. Raises what `weights.resolve`, `networks.divide` and `bank.Bank` raise.
    """

    def __init__(self, network: str, task: Task, *, profile: Profile, cut: str | None = None) -> None:
        self.network, self.task, self.profile, self.cut = network, task, profile, cut
        self.weights = weights.resolve(network)

    @cached_property
    def backbone(self) -> keras.Model:
        """The layers up to the cut."""
        return networks.divide(self.build(self.profile.seed), self.cut)[0]

    @property
    def depends(self) -> dict[str, Any]:
        """All that a training on it depends on beside the name of its unit."""
        budget = {name: getattr(self.profile, name) for name in BUDGET}
        return self.task.depends | budget | {"cut": self.cut, "weights": self.weights.sha256}

    def prepare(self) -> None:
        """Compute all features: before hours of training, a disk without room for them is known."""
        _ = self.train, self.validation_nhwc, self.test_nhwc

    def build(self, seed: int, frozen_to: str | None = None) -> keras.Model:
        """The whole network with an untrained head. Without ImageNet weights all of it follows from the seed."""
        n_channels = self.task.patches_nhwc.shape[-1]
        keras.utils.set_random_seed(seed)
        return networks.build(
            self.network,
            n_channels=3 if n_channels == 1 else n_channels,  # a single channel is copied to three
            arrays=self.weights.arrays,
            frozen_to=frozen_to,
        )

    @cached_property
    def train(self) -> bank.Source:
        """Features of the augmented training patches, by epoch and position among them."""
        return bank.source(
            self.backbone,
            self.task.patches_nhwc,
            rows=self.task.rows("train"),
            augment=partial(patches.augment, zoom=self.profile.zoom),
            prepare=patches.as_input,
            views=self.profile.views,
            seed=self.profile.seed,
            label=f"{self.network}, training features",
        )

    @cached_property
    def validation_nhwc(self) -> np.ndarray:
        """(N, h, w, c) float16."""
        return self._plain("validation")

    @cached_property
    def test_nhwc(self) -> np.ndarray:
        """(N, h, w, c) float16."""
        return self._plain("test")

    def _plain(self, part: str) -> np.ndarray:
        label = f"{self.network}, {part} features"
        rows = self.task.rows(part)
        return bank.Bank(self.backbone, self.task.patches_nhwc, rows=rows, prepare=patches.as_input, label=label).all()


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """One training and its test. A patch is called a patient's above a probability of one half."""

    frozen: Frozen
    fits: Units
    place: int  # among the units
    frozen_to: str | None = None  # the last layer that was not trained; None: all that is pre-trained

    @property
    def network(self) -> str:
        """The name of the network."""
        return self.frozen.network

    @property
    def task(self) -> Task:
        """What it was trained on, and where it is tested."""
        return self.frozen.task

    @property
    def key(self) -> str:
        """Of its unit."""
        return self.fits.keys[self.place]

    @property
    def p_patient(self) -> np.ndarray:
        """(N,) float32 of the test patches."""
        return self.fits[self.place]["p_patient"]

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch, as `heads.fit` gives it."""
        return pd.DataFrame(self.fits[self.place]["history"]).rename(lambda epoch: epoch + 1).rename_axis("epoch")

    @cached_property
    def model(self) -> keras.Model:
        """The whole network with its trained weights; its upper layers are those of `head`."""
        return self._halves[0]

    @cached_property
    def head(self) -> keras.Model:
        """The layers above the cut, trained."""
        return self._halves[1]

    @cached_property
    def _halves(self) -> tuple[keras.Model, keras.Model]:
        model = self.frozen.build(self.frozen.profile.seed, self.frozen_to)
        _, head = networks.divide(model, self.frozen.cut)
        head.set_weights(self.fits.weights(self.place))
        return model, head

    @cached_property
    def scores(self) -> dict[str, Any]:
        """`metrics.scores` of the test patches, and `auc`, which asks for no threshold."""
        truth = self.task.classes[self.task.rows("test")]
        return metrics.scores(truth, (self.p_patient > 0.5).astype(int)) | {"auc": metrics.auc(truth, self.p_patient)}

    @property
    def calls(self) -> pd.DataFrame:
        """The rows of the test patches with the columns p_patient and predicted."""
        called = {"p_patient": self.p_patient, "predicted": np.where(self.p_patient > 0.5, "patient", "control")}
        return self.task.table.iloc[self.task.rows("test")].assign(**called)

    @property
    def generalisation_gap(self) -> float:
        """Training minus validation accuracy, in the mean of the last ten epochs."""
        last = self.history.tail(10)
        return float((last["accuracy"] - last["val_accuracy"]).mean())

    @property
    def most_common_call(self) -> float:
        """Share of the test patches that are given the more common of its two answers: 1 where it has one answer."""
        patients = (self.p_patient > 0.5).mean()
        return float(max(patients, 1 - patients))

    @property
    def n_trained(self) -> int:
        """Parameters that were trained."""
        return self.fits[self.place]["n_trained"]

    @property
    def record(self) -> dict[str, Any]:
        """Scores, epochs and history for a results file."""
        return self.scores | {"epochs": len(self.history), "history": self.history.to_dict("list")}


def train_heads(frozen: Frozen, names: Sequence[Mapping[str, Any]], *, chapter: str) -> list[TrainedHead]:
    """Trainings with the budget of the frozen network's profile, and their tests: a unit of the chapter for each name.

    names: `seed`, of the head's first weights, the order of the patches and the dropout; if some of what is above the
    cut is to stay as it is, `frozen_to`: the last layer that is not trained; if it is not the profile's,
    `learning_rate`. Raises what `heads.fit` and `units.each` raise.
    """
    fits = units.each(
        lambda network, **name: _fit(frozen, **name),
        [{"network": frozen.network, **name} for name in names],
        made_by=sys.modules[__name__],
        chapter=chapter,
        depends=frozen.depends,
        prepare=frozen.prepare,
        precision=bank.precision,
        together=partial(_fit_together, frozen) if _are_stacked(names) else None,
    )
    return [TrainedHead(frozen, fits, place, name.get("frozen_to")) for place, name in enumerate(names)]


def _are_stacked(names: Sequence[Mapping[str, Any]]) -> bool:
    """Whether heads of these names differ by their seed alone, on PyTorch and a GPU, for which one is too small."""
    return backend.NAME == "torch" and backend.gpu() is not None and all(name.keys() == {"seed"} for name in names)


def _fit_together(frozen: Frozen, names: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`_fit` of each seed, at once where the heads are such as `stacked.suits`."""
    seeds = [name["seed"] for name in names]
    trained = [networks.divide(frozen.build(seed), frozen.cut)[1] for seed in seeds]
    if not all(map(stacked.suits, trained)):
        return [_fit(frozen, seed=seed) for seed in seeds]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    label = f"{frozen.network}, seeds {', '.join(map(str, seeds))}"
    histories = heads.fit_several(trained, *_data(frozen), profile=frozen.profile, rngs=rngs, label=label)
    return [_result(frozen, head, history) for head, history in zip(trained, histories, strict=True)]


def _data(frozen: Frozen) -> tuple[bank.Source, np.ndarray, np.ndarray, np.ndarray]:
    """What `heads.fit` trains on, and validates by."""
    train, validation = (frozen.task.classes[frozen.task.rows(part)] for part in ("train", "validation"))
    return frozen.train, train, frozen.validation_nhwc, validation


def _fit(
    frozen: Frozen, *, seed: int, frozen_to: str | None = None, learning_rate: float | None = None
) -> dict[str, Any]:
    """A unit: see `_result`."""
    rate = frozen.profile.learning_rate if learning_rate is None else learning_rate
    profile = replace(frozen.profile, learning_rate=rate)
    _, head = networks.divide(frozen.build(seed, frozen_to), frozen.cut)
    history = heads.fit(
        head,
        *_data(frozen),
        profile=profile,
        rng=np.random.default_rng(seed),
        label=f"{frozen.network}, seed {seed}, rate {rate:g}" + (f", frozen to {frozen_to}" if frozen_to else ""),
    )
    return _result(frozen, head, history)


def _result(frozen: Frozen, head: keras.Model, history: pd.DataFrame) -> dict[str, Any]:
    """Of a unit: p_patient (N,) float32 of the test patches, history, number of trained parameters, and weights."""
    return {
        "p_patient": heads.p_patient(head, frozen.test_nhwc),
        "history": history.to_dict("list"),
        "n_trained": networks.parameter_counts(head)["trainable"],
        "weights": head.get_weights(),
    }


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """The same training with one seed or several. What is not asked of a training is not read of it."""

    frozen: Frozen
    by_seed: Mapping[int, TrainedHead]

    @property
    def network(self) -> str:
        """The name of the network."""
        return self.frozen.network

    @property
    def weights(self) -> Weights:
        """Of its frozen layers."""
        return self.frozen.weights

    @property
    def is_control(self) -> bool:
        """Whether its frozen layers are random, an untrained backbone."""
        return self.weights.source == "random"

    @property
    def first(self) -> TrainedHead:
        """Of the profile's seed."""
        return next(iter(self.by_seed.values()))

    @property
    def best(self) -> TrainedHead:
        """What is shown and explained: the best on validation patches, of equals the first."""
        return max(self.by_seed.values(), key=lambda trained: trained.history["val_accuracy"].max())

    @cached_property
    def untrained(self) -> keras.Model:
        """The whole network before training, for its layers and the number of its parameters."""
        return self.frozen.build(self.frozen.profile.seed)

    @property
    def seeds(self) -> pd.DataFrame:
        """Test scores, epochs, generalisation gap and share of the more common call, one row per seed."""
        scores = pd.DataFrame({seed: trained.scores for seed, trained in self.by_seed.items()}).T
        of_training = {
            "epochs": [len(trained.history) for trained in self.by_seed.values()],
            "generalisation_gap": [trained.generalisation_gap for trained in self.by_seed.values()],
            "most_common_call": [trained.most_common_call for trained in self.by_seed.values()],
        }
        return scores.drop(columns=["confusion", "majority_baseline"]).assign(**of_training).astype(float)

    @property
    def record(self) -> dict[str, Any]:
        """The `models` entry of a results file: the first training, what the seeds gave, where one more would lie."""
        spread = self.seeds
        further = {name: metrics.further_training(spread[name], within=part) for name, part in metrics.RANGES.items()}
        return self.first.record | {
            "seeds": spread.T.to_dict(),
            "further_training": further,
            "n_collapsed": int((spread["most_common_call"] > metrics.COLLAPSED).sum()),
            "val_accuracy": {seed: trained.history["val_accuracy"].tolist() for seed, trained in self.by_seed.items()},
            "shown_seed": next(seed for seed, trained in self.by_seed.items() if trained is self.best),
        }

    @property
    def budget(self) -> dict[str, Any]:
        """The `budget` entry of a results file: what the profile allowed, and how many epochs were run."""
        allowed = {name: getattr(self.frozen.profile, name) for name in BUDGET[:4]}
        return allowed | {"seeds": len(self.by_seed), "epochs run": [len(one.history) for one in self.by_seed.values()]}

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of its units."""
        return self.first.fits.record


def train(network: str, task: Task, *, profile: Profile, n_seeds: int | None = None) -> TrainedNetwork:
    """A head on a frozen network, trained and tested with `n_seeds` seeds from the profile's on; None: its `n_seeds`.

    Only chance in training differs between them: features are computed once. The units are those of the experiment's
    chapter, whichever chapter asks.
    """
    frozen = Frozen(network, task, profile=profile)
    seeds = range(profile.seed, profile.seed + (n_seeds or profile.n_seeds))
    trained = train_heads(frozen, [{"seed": seed} for seed in seeds], chapter=task.experiment.name)
    return TrainedNetwork(frozen, dict(zip(seeds, trained, strict=True)))
