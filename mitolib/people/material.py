"""Patches and people that are evaluated, with their twins and splits, and what frozen networks see in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mitolib import bank, networks, patches
from mitolib.cohort import Section
from mitolib.metrics import class_index
from mitolib.own_data import FIBRES, Data, LeftOut
from mitolib.people import protocols
from mitolib.people.morphometry import OUTLINED
from mitolib.people.twins import tested_with_twins, with_twins
from mitolib.study import LEAST_CHANNELS, Experiment
from mitolib.weights import Weights


@dataclass(frozen=True)
class Patches:
    """The patches of one experiment, below them those of their twins, and the splits that they allow.

    rows: a row each, see `twins.with_twins`. pixels_nhwc: by kind of twin, "" for the patches themselves, (n, 224, 224,
    C) uint8. folds: by split, of the patches themselves, 'train', 'test' or '' for each. refused: by split, why these
    patches cannot be dealt out so.
    """

    experiment: Experiment
    rows: pd.DataFrame
    pixels_nhwc: Mapping[str, np.ndarray]
    folds: Mapping[str, list[pd.Series]]
    refused: Mapping[str, str]

    @property
    def themselves(self) -> pd.DataFrame:
        """The rows without those of twins."""
        return self.rows[self.rows["twin"] == ""]

    @property
    def truth(self) -> np.ndarray:
        """(N,) class index of the person."""
        return class_index(self.rows["label"])

    @property
    def taught(self) -> np.ndarray:
        """(N,) class index that the pixels deserve: a cured patient's is that of a control."""
        return self.rows["taught"].to_numpy()

    @property
    def brightness(self) -> np.ndarray:
        """(N, C) mean grey of each patch."""
        return np.concatenate([pixels.mean(axis=(1, 2)) for pixels in self.pixels_nhwc.values()])

    def folds_with_twins(self) -> dict[str, list[pd.Series]]:
        """The folds for all rows: a test patch is tested with its twin, and no twin trains."""
        return {
            split: [tested_with_twins(column, self.rows) for column in columns] for split, columns in self.folds.items()
        }

    def coverage(self, section: str) -> dict[str, tuple[np.ndarray, int]]:
        """What lies under the patches of a section, see `protocols.coverage`, by those of two splits that there are."""
        rows = self.themselves
        rows = rows[rows["section"] == section]
        shown = [split for split in ("published", "no-overlap") if split in self.folds]
        return {split: protocols.coverage(rows, self.folds[split][0]) for split in shown}


@dataclass(frozen=True)
class Material:
    """What the chapter works on: its data, and the patches of each experiment by name.

    donors: of a phantom, control -> the patient whose deficiency it has in its afflicted twin.
    """

    data: Data
    experiments: Mapping[str, Patches]
    donors: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, experiment: str) -> Patches:
        return self.experiments[experiment]

    @property
    def people(self) -> pd.DataFrame:
        """A row each: subject and label."""
        people = self["exp1"].themselves.drop_duplicates("subject")[["subject", "label"]]
        return people.reset_index(drop=True)

    @property
    def twin_kinds(self) -> list[str]:
        """The twins that there are: none on data of one's own."""
        return [kind for kind in self["exp1"].pixels_nhwc if kind]

    @property
    def proteins(self) -> list[str]:
        """All that are read, each once."""
        shown = [protein for part in self.experiments.values() for protein in part.experiment.proteins]
        return list(dict.fromkeys([*shown, *(OUTLINED if self.data.has(FIBRES) else ())]))

    def counts(self) -> pd.DataFrame:
        """Patches of each experiment, and of their twins."""
        named = {"": "patches", "cured": "of cured twins", "afflicted": "of afflicted twins"}
        counted = {name: part.rows["twin"].value_counts(sort=False) for name, part in self.experiments.items()}
        return pd.DataFrame(counted).T.rename(columns=named).rename_axis(index="experiment", columns=None)

    def twins(self) -> pd.DataFrame | LeftOut:
        """Which patient's deficiency each control is given in its afflicted twin."""
        if not self.twin_kinds:
            return LeftOut("these data have no twins.")
        return pd.Series(self.donors, name="is given what this has").to_frame()

    def splits(self) -> Styler:
        """A row for each experiment and split: folds, and mean number of training and test patches of a fold."""
        named = {"train": "training patches of a fold", "test": "test patches of a fold"}
        rows = {
            (name, split): {"folds": len(columns)}
            | pd.concat(columns).value_counts().div(len(columns)).rename(named).to_dict()
            for name, part in self.experiments.items()
            for split, columns in part.folds.items()
        }
        table = pd.DataFrame(rows).T[["folds", *named.values()]]
        return table.rename_axis(["experiment", "split"]).style.format(precision=0)

    def refusals(self) -> str:
        """Markdown: which splits these data do not allow, and why; "" if they allow all."""
        lines = [f"- {split}: {why}" for part in self.experiments.values() for split, why in part.refused.items()]
        return "\n".join(dict.fromkeys(lines))


def prepare(data: Data, twins: Mapping[str, Sequence[Section]], *, donors: Mapping[str, str] | None = None) -> Material:
    """Cut the patches of the data's experiments and of their twins, and deal them out under every split.

    twins: by kind, cured or afflicted, the sections of the twins; empty for data that have none. donors: see
    `Material`.
    """
    chosen = [data.one, data.several] if data.several else [data.one]
    sections = {"": data.sections, **twins}
    return Material(data, {experiment.name: _patches(experiment, sections) for experiment in chosen}, donors or {})


def _patches(experiment: Experiment, sections: Mapping[str, Sequence[Section]]) -> Patches:
    table = patches.grid(sections[""], size_px=experiment.patch_px, stride_px=experiment.stride_px)
    rows = with_twins(table, [kind for kind in sections if kind])
    pixels_nhwc = {
        kind: patches.load(of_kind, sections[kind], experiment.proteins, stride_px=experiment.stride_px)
        for kind, of_kind in rows.groupby("twin", sort=False)
    }
    return Patches(experiment, rows, pixels_nhwc, *protocols.available(table, experiment.name))


@dataclass(frozen=True)
class Features:
    """What a frozen network makes of patches and of their twins.

    maps_nhwc: (N, 7, 7, F) float16 and pooled: (N, F) float32, its mean over the patch, both in the order of
    `patches.rows`.
    """

    network: str
    patches: Patches
    maps_nhwc: np.ndarray
    pooled: np.ndarray

    @property
    def name(self) -> str:
        """ "VGG16" or "VGG16, ten"."""
        return _network_name(self.network, self.patches.experiment)

    @property
    def head_name(self) -> str:
        """ "VGG16 head" or "VGG16 head, ten proteins"."""
        several = _several(self.patches.experiment)
        return f"{self.network} head" + (f", {several} proteins" if several else "")


def _several(experiment: Experiment) -> str:
    """ "ten", "4", ...: how many proteins a network is shown; "" for one."""
    n = len(experiment.proteins)
    if n == 1:
        return ""
    return "ten" if n == 10 else str(n)


def _network_name(network: str, experiment: Experiment) -> str:
    several = _several(experiment)
    return f"{network}, {several}" if several else network


def features(material: Material, weights: Mapping[str, Weights], *, seed: int) -> dict[str, Features]:
    """By name: VGG16 on one protein, VGG16 on several where they are there, ResNet-50 on one.

    weights: of VGG16 and ResNet50, as `weights.resolve` gives them. seed: of a network without ImageNet weights.
    """
    shown = [("VGG16", part) for part in material.experiments.values()] + [("ResNet50", material["exp1"])]
    computed = [_features(network, part, weights[network], seed) for network, part in shown]
    return {of_network.name: of_network for of_network in computed}


def _features(network: str, part: Patches, weights: Weights, seed: int) -> Features:
    name = _network_name(network, part.experiment)
    n_channels = max(LEAST_CHANNELS, len(part.experiment.proteins))
    keras.utils.set_random_seed(seed)
    backbone, _ = networks.divide(networks.build(network, n_channels=n_channels, arrays=weights.arrays))
    maps = [
        bank.Bank(backbone, pixels, prepare=patches.as_input, label=f"{name} {kind}".strip()).all()
        for kind, pixels in part.pixels_nhwc.items()
    ]
    maps_nhwc = np.concatenate(maps)
    return Features(network, part, maps_nhwc, maps_nhwc.astype(np.float32).mean(axis=(1, 2)))
