"""A network that is explained: what it is shown, what it was taught, and its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import pandas as pd

from mitolib import networks, patches, transfer
from mitolib.saliency.logits import anew
from mitolib.saliency.maps import enlarge
from mitolib.saliency.methods import LAYERS, Evidence, Explain, GradCAM, Method, log_odds
from mitolib.settings import LABELS
from mitolib.study import Experiment
from mitolib.weights import Weights

CONTROL, PATIENT = LABELS.index("control"), LABELS.index("patient")
UNTRAINED, PERMUTED = "an untrained backbone", "permuted labels"


def by_patch(tables: Mapping[str, Mapping[str, pd.DataFrame | pd.Series]]) -> pd.DataFrame | pd.Series:
    """model -> method -> one row per patch, as one table with the index model, method, patch."""
    parts = {(model, method): table for model, by_method in tables.items() for method, table in by_method.items()}
    return pd.concat(parts, names=["model", "method", "patch"])


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network that is explained. Its weights are read when a map is first asked for, not before."""

    name: str  # on the page
    trained: transfer.TrainedHead  # of its task: the pictures that it is shown, and the labels that it was taught
    control: str = ""  # why it is one, UNTRAINED or PERMUTED, and explained by Grad-CAM alone
    _explainers: dict[tuple[Method, int], Explain] = field(default_factory=dict, init=False, repr=False)

    @property
    def architecture(self) -> str:
        """A key of LAYERS."""
        return self.trained.network

    @property
    def layer(self) -> str:
        """The layer that is explained."""
        return LAYERS[self.architecture]

    @property
    def experiment(self) -> Experiment:
        """Its proteins and its grid of patches."""
        return self.trained.task.experiment

    @property
    def model(self) -> keras.Model:
        """The whole network with its trained weights."""
        return self.trained.model

    @property
    def weights(self) -> Weights:
        """Of its frozen layers."""
        return self.trained.frozen.weights

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of its training."""
        return self.trained.fits.record

    @cached_property
    def camera(self) -> GradCAM:
        """Grad-CAM of it, compiled once."""
        return GradCAM(self.model, self.layer)

    @cached_property
    def _copy(self) -> keras.Model:
        """Of the model, whose weights may be others for a while."""
        return keras.models.clone_model(self.model, clone_function=anew)

    def explainer(self, method: Method, *, samples: int, weights: Sequence[np.ndarray] | None = None) -> Explain:
        """What gives maps by a method, built once; to be used before the next is asked for.

        weights: others that the network has meanwhile, such as of `methods.cascade`; None: its own.
        """
        key = method, samples
        if key not in self._explainers:
            self._explainers[key] = method.explainer(self._copy, layer=self.layer, samples=samples)
        self._copy.set_weights(self.model.get_weights() if weights is None else weights)
        return self._explainers[key]

    @cached_property
    def log_odds(self) -> Evidence:
        """Patches uint8 (N, H, W, C) -> (N,) log odds of "patient"."""
        return log_odds(self.model, patches.as_input)

    @property
    def taught(self) -> pd.Series:
        """The label that it was taught of each subject."""
        return self.trained.task.table.groupby("subject")["label"].first().rename(self.name)

    def class_maps(self, patches_nhwc: np.ndarray, size_px: int = networks.INPUT_PX) -> dict[str, np.ndarray]:
        """Grad-CAM for each class, (N, size_px, size_px), raw, of patches uint8 (N, H, W, C)."""
        features_nhwc = self.camera.features(patches.as_input(patches_nhwc))
        return {label: enlarge(self.camera.from_features(features_nhwc, i), size_px) for i, label in enumerate(LABELS)}
