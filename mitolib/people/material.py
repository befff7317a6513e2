"""Patches and people that are evaluated, with their twins and splits, and what frozen networks see in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mitolib import bank, cohort, networks, patches
from mitolib.cohort import Section
from mitolib.metrics import class_index
from mitolib.own_data import FIBRES, Data, LeftOut
from mitolib.people import morphometry, pictures, protocols
from mitolib.people.models import Draw
from mitolib.people.morphometry import OUTLINED, Fibres
from mitolib.people.pictures import TwinPictures
from mitolib.people.protocols import NO_OVERLAP, SEEN
from mitolib.people.twins import tested_with_twins, with_twins
from mitolib.settings import Profile
from mitolib.study import LEAST_CHANNELS, Experiment
from mitolib.weights import Weights

# Of a row: which pixels it holds, whose they are, and what they deserve to be called.
MEANING = ["section", "subject", "twin", "y", "x", "size", "label", "taught"]


@dataclass(frozen=True)
class Patches:
    """The patches of one experiment, below them those of their twins, and the splits that they allow.

    rows: a row each, see `twins.with_twins`. sections: by kind of twin, "" for the sections themselves. folds: by
    split, of the patches themselves, 'train', 'test' or '' for each. refused: by split, why these patches cannot be
    dealt out so.
    """

    experiment: Experiment
    rows: pd.DataFrame
    sections: Mapping[str, Sequence[Section]]
    folds: Mapping[str, list[pd.Series]]
    refused: Mapping[str, str]

    @cached_property
    def pixels_nhwc(self) -> dict[str, np.ndarray]:
        """By kind of twin, (n, 224, 224, C) uint8. Read when first asked for: of ten proteins they are a gigabyte."""
        proteins, stride_px = self.experiment.proteins, self.experiment.stride_px
        return {
            kind: patches.load(of_kind, self.sections[kind], proteins, stride_px=stride_px)
            for kind, of_kind in self.rows.groupby("twin", sort=False)
        }

    @cached_property
    def pictures(self) -> dict[str, str]:
        """By kind of twin, the digest of its pictures, see `cohort.digest`."""
        return {kind: cohort.digest(of_kind, list(self.experiment.proteins)) for kind, of_kind in self.sections.items()}

    def depends(self, *, twins: bool) -> dict[str, Any]:
        """What tells these patches from others, as plain values: pictures, experiment, and how they are cut.

        twins: those of twins too.
        """
        kinds = list(self.sections) if twins else [""]
        rows = self.rows.loc[self.rows["twin"].isin(kinds), MEANING]
        cut = hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()
        pictures = {kind or "themselves": self.pictures[kind] for kind in kinds}
        return {"pictures": pictures, "patches": cut, "experiment": vars(self.experiment)}

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

    @cached_property
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
        shown = [split for split in (SEEN, NO_OVERLAP) if split in self.folds]
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
        return [kind for kind in self["exp1"].sections if kind]

    @property
    def proteins(self) -> list[str]:
        """All that are read, each once."""
        shown = [protein for part in self.experiments.values() for protein in part.experiment.proteins]
        return list(dict.fromkeys([*shown, *(OUTLINED if self.data.has(FIBRES) else ())]))

    @cached_property
    def fibres(self) -> Fibres:
        """See `morphometry.fibres_of`. Outlined when first asked for: of whole sections that takes minutes."""
        return morphometry.fibres_of(self.data, self.people)

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

    def twin_pictures(self, compared: pd.DataFrame | None) -> TwinPictures:
        """Of the pictures of the twins. compared: as `phantom.compare_twins` gives it; None without twins."""
        return TwinPictures(compared)

    def grey_levels(self, proteins: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """See `pictures.grey_levels`; empty where there are no twins. Proteins that were not read are left out."""
        sections = self["exp1"].sections
        shown = [protein for protein in proteins if protein in self.proteins]
        return pictures.grey_levels(sections, shown) if self.twin_kinds else {}

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
    return Patches(experiment, rows, sections, *protocols.available(table, experiment.name))


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training patches are varied: `views` copies of each, 0 for a new one each time, zoomed within `zoom`."""

    views: int
    zoom: tuple[float, float]
    seed: int


@dataclass(frozen=True, eq=False)  # arrays have no single answer to whether they are equal
class Features:
    """What a frozen network makes of patches and of their twins, in the order of `patches.rows`.

    Nothing is computed until it is asked for: where all that read them are kept (`mitolib.units`), nobody asks.
    """

    network: str
    patches: Patches
    weights: str  # digest of the network's, or how they were drawn
    compute: Callable[[], np.ndarray] = field(repr=False)  # gives maps_nhwc
    augmentation: Augmentation
    vary: Callable[[], Draw] = field(repr=False)  # gives `augmented`
    is_untrained: bool = False  # no ImageNet weights: a control

    @cached_property
    def maps_nhwc(self) -> np.ndarray:
        """(N, 7, 7, F) float16."""
        return self.compute()

    @cached_property
    def augmented(self) -> Draw:
        """Maps of augmented patches by row, twins excluded: a row's n-th copy when it was drawn n times before."""
        return self.vary()

    @cached_property
    def pooled(self) -> np.ndarray:
        """(N, F) float32, the mean over each patch."""
        return self.maps_nhwc.astype(np.float32).mean(axis=(1, 2))

    def prepare(self) -> None:
        """Compute them, or read them from their bank, ahead of those that need them."""
        _ = self.maps_nhwc

    def prepare_augmented(self) -> None:
        """The same, and their augmented copies."""
        _ = self.maps_nhwc, self.augmented

    def depends(self, *, twins: bool) -> dict[str, Any]:
        """What tells them from others, as plain values. twins: those of twins too."""
        return self.patches.depends(twins=twins) | {"network": self.network, "weights": self.weights}

    @property
    def proteins(self) -> str:
        """ "SDHA" or "ten": what the network is shown, in the name of a unit."""
        return _several(self.patches.experiment) or self.patches.experiment.proteins[0]

    @property
    def name(self) -> str:
        """ "VGG16" or "VGG16, ten"."""
        return _network_name(self.network, self.patches.experiment)

    @property
    def head_name(self) -> str:
        """ "VGG16 head" or "VGG16 head, ten proteins"; of an untrained network it says so."""
        several = _several(self.patches.experiment)
        untrained = ", untrained backbone" if self.is_untrained else ""
        return f"{self.network} head" + (f", {several} proteins" if several else "") + untrained


def _several(experiment: Experiment) -> str:
    """ "ten", "4", ...: how many proteins a network is shown; "" for one."""
    n = len(experiment.proteins)
    if n == 1:
        return ""
    return "ten" if n == 10 else str(n)


def _network_name(network: str, experiment: Experiment) -> str:
    several = _several(experiment)
    return f"{network}, {several}" if several else network


def features(material: Material, weights: Mapping[str, Weights], *, profile: Profile) -> dict[str, Features]:
    """By name: VGG16 on one protein, VGG16 on several where they are there, ResNet-50 on one, where it has weights.

    weights: of VGG16, and of ResNet50 if it is wanted, as `weights.resolve` gives them. profile: how patches are
    augmented; its seed is that of the augmentation, and of a network without ImageNet weights.
    """
    augmentation = Augmentation(views=profile.views, zoom=profile.zoom, seed=profile.seed)
    shown = [("VGG16", part) for part in material.experiments.values()] + [("ResNet50", material["exp1"])]
    of_networks = []
    for network, part in ((network, part) for network, part in shown if network in weights):
        of_network = weights[network]
        backbone = partial(_backbone, network, part, of_network, profile.seed)
        name = _network_name(network, part.experiment)
        of_networks.append(
            Features(
                network,
                part,
                of_network.sha256 or f"random, seed {profile.seed}",
                partial(_maps, backbone, part, name),
                augmentation,
                partial(_augmented, backbone, part, name, augmentation),
                is_untrained=of_network.source == "random",
            )
        )
    return {of_network.name: of_network for of_network in of_networks}


def _backbone(network: str, part: Patches, weights: Weights, seed: int) -> keras.Model:
    n_channels = max(LEAST_CHANNELS, len(part.experiment.proteins))
    keras.utils.set_random_seed(seed)
    return networks.divide(networks.build(network, n_channels=n_channels, arrays=weights.arrays))[0]


def _maps(backbone: Callable[[], keras.Model], part: Patches, name: str) -> np.ndarray:
    """(N, 7, 7, F) float16, through the bank."""
    network = backbone()
    maps = [
        bank.Bank(network, pixels, prepare=patches.as_input, label=f"{name} {kind}".strip()).all()
        for kind, pixels in part.pixels_nhwc.items()
    ]
    return np.concatenate(maps)


def _augmented(backbone: Callable[[], keras.Model], part: Patches, name: str, augmentation: Augmentation) -> Draw:
    """Of all patches but twins, through two banks: those that train in the published split, and the others.

    The first is the bank of the experiments' own chapters, so that their features are not computed twice.
    """
    network, pixels_nhwc = backbone(), part.pixels_nhwc[""]
    trains = np.zeros(len(pixels_nhwc), bool)
    for published in part.folds.get(SEEN, []):
        trains = (published == "train").to_numpy()
    banks = [
        bank.source(
            network,
            pixels_nhwc,
            rows=rows,
            augment=partial(patches.augment, zoom=augmentation.zoom),
            prepare=patches.as_input,
            views=augmentation.views,
            seed=augmentation.seed,
            label=f"{name}, augmented",
        )
        for rows in (np.flatnonzero(trains), np.flatnonzero(~trains))
        if len(rows)
    ]
    which = (~trains if trains.any() else trains).astype(int)  # of the banks each row is in
    position = np.where(trains, trains.cumsum(), (~trains).cumsum()) - 1  # and where in it

    def draw(rows: np.ndarray, before: np.ndarray) -> np.ndarray:
        maps_nhwc = None
        for number, time in sorted(set(zip(which[rows].tolist(), before.tolist(), strict=True))):
            chosen = (which[rows] == number) & (before == time)
            drawn = banks[number](time, position[rows[chosen]])
            if maps_nhwc is None:
                maps_nhwc = np.empty((len(rows), *drawn.shape[1:]), drawn.dtype)
            maps_nhwc[chosen] = drawn
        return maps_nhwc

    return draw
