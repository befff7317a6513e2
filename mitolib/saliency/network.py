"""A network that is explained: what it is shown, what it was taught, and its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import bank, heads, networks, patches, splits
from mitolib.cohort import Section, digest
from mitolib.metrics import class_index
from mitolib.saliency.maps import enlarge
from mitolib.saliency.methods import LAYERS, Evidence, GradCAM, log_odds
from mitolib.saliency.truth import outlines
from mitolib.settings import LABELS, Profile
from mitolib.study import Experiment

PATIENT = LABELS.index("patient")
LEAST_PEOPLE = 3  # to train on shuffled labels: those of two can only stay or be turned round

Maps = Mapping[str, Mapping[str, np.ndarray]]  # model -> method -> (N, h, w), raw, for "patient"


def by_patch(tables: Mapping[str, Mapping[str, pd.DataFrame | pd.Series]]) -> pd.DataFrame | pd.Series:
    """model -> method -> one row per patch, as one table with the index model, method, patch."""
    parts = {(model, method): table for model, by_method in tables.items() for method, table in by_method.items()}
    return pd.concat(parts, names=["model", "method", "patch"])


@dataclass(frozen=True)
class Examples:
    """Test patches with the maps of both classes, ready to be drawn."""

    patches_nyx: np.ndarray  # (N, H, W) 0-255, the first protein
    maps: Mapping[str, np.ndarray]  # class -> (N, H, W), raw
    masks_nyx: np.ndarray  # (N, H, W) bool: deficient fibres, where they are known
    rows: pd.DataFrame  # subject, label, p_patient, predicted


@dataclass(frozen=True, eq=False)
class Network:
    """A network, the pictures that it is shown, and the labels that it was taught."""

    name: str  # on the page
    experiment: Experiment
    architecture: str  # a key of LAYERS
    model: keras.Model
    labels: np.ndarray  # (N,) class indices of all patches of the experiment, as it was taught
    is_control: bool = False  # taught shuffled labels, and explained by Grad-CAM alone

    @property
    def layer(self) -> str:
        """The layer that is explained."""
        return LAYERS[self.architecture]

    @cached_property
    def camera(self) -> GradCAM:
        """Grad-CAM of it, compiled once."""
        return GradCAM(self.model, self.layer)

    @cached_property
    def log_odds(self) -> Evidence:
        """Patches uint8 (N, H, W, C) -> (N,) log odds of "patient"."""
        return log_odds(self.model, patches.as_input)

    @cached_property
    def _halves(self) -> tuple[keras.Model, keras.Model]:
        return networks.divide(self.model)

    @property
    def head(self) -> keras.Model:
        """The trainable layers, shared with the model: new weights of one are new weights of the other."""
        return self._halves[1]

    def saved_head(
        self, folder: Path, run: Profile, sections: Sequence[Section], table: pd.DataFrame
    ) -> dict[str, str | Path] | None:
        """`path` and `sha256` of the head that its experiment trained under the same conditions; None if it did not.

        folder: of the results. sections, table: of the cohort, and the patches of the experiment with the column split.
        """
        if self.is_control:
            return None
        return heads.saved(
            folder,
            self.experiment.name,
            self.architecture,
            parameters=run.parameters,
            data_sha256=digest(sections, self.experiment.proteins),
            experiment=vars(self.experiment),
            split=splits.counts(table),
        )

    def taught(self, table: pd.DataFrame) -> pd.Series:
        """The label that it was taught of each subject. table: the patches of its experiment."""
        labels = pd.Series(np.array(LABELS)[self.labels], table["subject"].to_numpy(), name=self.name)
        return labels.groupby(level=0).first().rename_axis("subject")

    def training_features(
        self, table: pd.DataFrame, patches_nhwc: np.ndarray, *, zoom: tuple[float, float], views: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, h, w, c) of `views` augmented copies of each training patch, and their class indices (n,).

        table: the patches of the experiment, with the column split. patches_nhwc: their pixels, uint8.
        """
        train = np.flatnonzero(table["split"] == "train")
        source = bank.source(
            self._halves[0],
            patches_nhwc,
            rows=train,
            augment=partial(patches.augment, zoom=zoom),
            prepare=patches.as_input,
            views=views,
            seed=seed,
            label=f"{self.name}, features",
        )
        features_nhwc = np.concatenate([source(view, np.arange(len(train))) for view in range(views)])
        return features_nhwc, np.tile(self.labels[train], views)

    def test_calls(self, table: pd.DataFrame, patches_nhwc: np.ndarray) -> pd.DataFrame:
        """The rows of the test patches with p_patient, predicted, and right: by the labels that it was taught."""
        test = np.flatnonzero(table["split"] == "test")
        features = bank.Bank(
            self._halves[0], patches_nhwc, rows=test, prepare=patches.as_input, label=f"{self.name}, features"
        )
        p_patient = heads.p_patient(self.head, features.all())
        says_patient = p_patient > 0.5
        return table.iloc[test].assign(
            p_patient=p_patient,
            predicted=np.array(LABELS)[says_patient.astype(int)],
            right=says_patient == self.labels[test],
        )

    def class_maps(self, patches_nhwc: np.ndarray, size_px: int = networks.INPUT_PX) -> dict[str, np.ndarray]:
        """Grad-CAM for each class, (N, size_px, size_px), raw, of patches uint8 (N, H, W, C)."""
        features_nhwc = self.camera.features(patches.as_input(patches_nhwc))
        return {label: enlarge(self.camera.from_features(features_nhwc, i), size_px) for i, label in enumerate(LABELS)}

    def examples(self, calls: pd.DataFrame, patches_nhwc: np.ndarray, root: str | Path, *, seed: int) -> Examples:
        """One test patch of each class that was recognised and one that was not, where they occur.

        calls: what `test_calls` gives. patches_nhwc: pixels of all patches of the experiment. root: the data folder.
        """
        mixed = calls.sample(frac=1, random_state=seed)
        rows = mixed.groupby(["label", "predicted"]).head(1).sort_values(["label", "predicted"])
        shown_nhwc = patches_nhwc[rows.index]
        return Examples(shown_nhwc[..., 0], self.class_maps(shown_nhwc), outlines(root, rows), rows)


def build_networks(
    experiments: Mapping[str, Experiment],
    tables: Mapping[str, pd.DataFrame],
    weights: Mapping[str, Sequence[np.ndarray] | None],
    *,
    seed: int,
    rng: Generator,
) -> dict[str, Network]:
    """The networks of the chapter by name, with ImageNet backbones and untrained heads.

    Two of one protein; one of several where experiments has "exp2"; and one to be taught labels that `rng` deals out
    anew among the subjects, where three people or more train. tables: the patches of each experiment, with the column
    split. weights: of each architecture, as `networks.build` takes them. seed: of every head.
    """

    def build(name: str, experiment: str, architecture: str, labels: np.ndarray, is_control: bool = False) -> Network:
        shown = experiments[experiment]
        keras.utils.set_random_seed(seed)
        model = networks.build(architecture, n_channels=max(3, len(shown.proteins)), arrays=weights[architecture])
        return Network(name, shown, architecture, model, labels, is_control)

    labels = {name: class_index(table["label"]) for name, table in tables.items()}
    explained = [build("VGG16", "exp1", "VGG16", labels["exp1"]), build("ResNet50", "exp1", "ResNet50", labels["exp1"])]
    if "exp2" in experiments:
        explained.append(build("VGG16-ten", "exp2", "VGG16", labels["exp2"]))
    subjects, train = tables["exp1"]["subject"], np.flatnonzero(tables["exp1"]["split"] == "train")
    if subjects[train].nunique() >= LEAST_PEOPLE:
        shuffled = splits.shuffle_by_subject(labels["exp1"], subjects, rng=rng, taught=train)
        explained.append(build("VGG16-shuffled", "exp1", "VGG16", shuffled, is_control=True))
    return {network.name: network for network in explained}
