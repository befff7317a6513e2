"""Transfer learning in one call: a patch table and its pixels -> frozen features -> trained heads -> their scores.

    task = transfer.Task(table, patches_nhwc)
    vgg16 = transfer.train("VGG16", task, profile=run)
    vgg16.first.scores, vgg16.record(results, "exp1")

`train` is made of two steps that can be taken alone. A `Frozen` network computes, once for all trainings, what does not
change in training; `train_head` is one training: one network, one seed, one budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from mitolib import bank, heads, metrics, networks, patches, splits, weights
from mitolib.settings import Profile
from mitolib.study import Experiment
from mitolib.weights import Weights


@dataclass(frozen=True, eq=False)  # arrays have no single answer to whether they are equal
class Task:
    """Patches, their classes and their split: what a network is trained on, and where it is tested."""

    table: pd.DataFrame  # one row per patch, numbered from 0; columns subject, label, split
    patches_nhwc: np.ndarray  # (N, 224, 224, C) uint8, in the order of the table

    @cached_property
    def classes(self) -> np.ndarray:
        """(N,) class indices."""
        return metrics.class_index(self.table["label"])

    def rows(self, part: str) -> np.ndarray:
        """Row numbers of the patches of a set: train, validation or test."""
        return np.flatnonzero(self.table["split"] == part)

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
        self.backbone, _ = networks.divide(self.build(profile.seed), cut)

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

    network: str
    task: Task
    model: keras.Model  # the whole network; its upper layers are those of `head`
    head: keras.Model
    p_patient: np.ndarray  # (N,) of the test patches
    history: pd.DataFrame | None  # as `heads.fit` gives it; None where the head was read

    @cached_property
    def scores(self) -> dict[str, Any]:
        """`metrics.scores` of the test patches."""
        return metrics.scores(self.task.classes[self.task.rows("test")], (self.p_patient > 0.5).astype(int))

    @property
    def calls(self) -> pd.DataFrame:
        """The rows of the test patches with the columns p_patient and predicted."""
        predicted = np.where(self.p_patient > 0.5, "patient", "control")
        return self.task.table.iloc[self.task.rows("test")].assign(p_patient=self.p_patient, predicted=predicted)

    @property
    def n_trained(self) -> int:
        """Parameters that were trained."""
        return networks.parameter_counts(self.head)["trainable"]

    @property
    def record(self) -> dict[str, Any]:
        """Scores, epochs and history for a results file."""
        return self.scores | heads.as_record(self.history)

    @property
    def finding(self) -> str:
        """One or two sentences of Markdown."""
        text = (
            "**{network}** is right on {accuracy:.1%} of the test patches (balanced accuracy {balanced_accuracy:.1%}); "
            "always giving the more common answer is right on {majority_baseline:.1%}."
        ).format(network=self.network, **self.scores)
        return text if self.history is None else f"{text} Training ran for {len(self.history)} epochs."


def train_head(frozen: Frozen, *, seed: int, frozen_to: str | None = None) -> TrainedHead:
    """One training with the budget of the frozen network's profile, and its test.

    seed: of the head's first weights, the order of the patches and the dropout. frozen_to: the last layer that is not
    trained, at or above the cut; None freezes all that is pre-trained. Raises what `heads.fit` raises.
    """
    task, model = frozen.task, frozen.build(seed, frozen_to)
    _, head = networks.divide(model, frozen.cut)
    test_nhwc = frozen.test_nhwc  # before hours of training: a disk without room for them is known now
    history = heads.fit(
        head,
        frozen.train,
        task.classes[task.rows("train")],
        frozen.validation_nhwc,
        task.classes[task.rows("validation")],
        profile=frozen.profile,
        rng=np.random.default_rng(seed),
        label=f"{frozen.network}, seed {seed}" + (f", frozen to {frozen_to}" if frozen_to else ""),
    )
    return TrainedHead(frozen.network, task, model, head, heads.p_patient(head, test_nhwc), history)


def saved_head(frozen: Frozen, results: Path, experiment: Experiment, *, data_sha256: str) -> TrainedHead | None:
    """The head that an experiment's chapter saved, on this network, and its test; None where it saved no such head.

    results: folder of its results file, which must name the same experiment, split, pictures (data_sha256) and
    parameters of the profile, see `heads.saved`. Raises what `heads.load` raises.
    """
    saved = heads.saved(
        results,
        experiment.name,
        frozen.network,
        parameters=frozen.profile.parameters,
        data_sha256=data_sha256,
        experiment=vars(experiment),
        split=splits.counts(frozen.task.table),
    )
    if saved is None:
        return None
    model = frozen.build(frozen.profile.seed)
    _, head = networks.divide(model, frozen.cut)
    head.set_weights(heads.load(saved["path"], saved["sha256"]).get_weights())
    return TrainedHead(frozen.network, frozen.task, model, head, heads.p_patient(head, frozen.test_nhwc), None)


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """The same training with one seed or several."""

    network: str
    weights: Weights  # of its frozen layers
    by_seed: Mapping[int, TrainedHead]

    @property
    def first(self) -> TrainedHead:
        """Of the profile's seed: the one that figures, predictions and later chapters show."""
        return next(iter(self.by_seed.values()))

    @property
    def seeds(self) -> pd.DataFrame:
        """Test scores and epochs, one row per seed."""
        scores = pd.DataFrame({seed: trained.scores for seed, trained in self.by_seed.items()}).T
        scores = scores.drop(columns=["confusion", "majority_baseline"])
        return scores.assign(epochs=[len(trained.history) for trained in self.by_seed.values()]).astype(float)

    def record(self, results: Path, chapter: str) -> dict[str, Any]:
        """The `models` entry of a results file: the first training, whose head is saved beside, and scores by seed."""
        head = heads.save(self.first.head, results / f"{chapter}-{self.network}.keras")
        return self.first.record | {"seeds": self.seeds.T.to_dict(), "head": head}


def train(network: str, task: Task, *, profile: Profile, n_seeds: int | None = None) -> TrainedNetwork:
    """A head on a frozen network, trained and tested with `n_seeds` seeds from the profile's on; None: its `n_seeds`.

    Only chance in training differs between them: features are computed once.
    """
    frozen = Frozen(network, task, profile=profile)
    seeds = range(profile.seed, profile.seed + (n_seeds or profile.n_seeds))
    return TrainedNetwork(network, frozen.weights, {seed: train_head(frozen, seed=seed) for seed in seeds})
