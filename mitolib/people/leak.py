"""How much the test patches of the published split have in common with its training patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mitolib.own_data import LeftOut
from mitolib.people import protocols
from mitolib.people.evaluation import SEEN, UNPUBLISHED
from mitolib.people.material import Material

SPELT = {"exp1": "experiment 1", "exp2": "experiment 2"}


@dataclass(frozen=True)
class Leakage:
    """By experiment, as far as it has the published split.

    entries: see `in_common`. shares: of each test patch, the share of its pixels that training has seen.
    """

    entries: Mapping[str, dict[str, float]]
    shares: Mapping[str, pd.Series]

    def table(self) -> Styler | LeftOut:
        """The entries in percent, a row for each experiment."""
        if not self.entries:
            return UNPUBLISHED
        return pd.DataFrame(self.entries).T.rename(columns=lambda name: name.replace("_", " ")).style.format("{:.1%}")

    def by_patch(self) -> dict[str, pd.Series]:
        """The shares by name of the experiment, for a figure."""
        return {SPELT[experiment]: shares for experiment, shares in self.shares.items()}


def leakage(material: Material) -> Leakage:
    """Leakage of the published split in each experiment."""
    entries, shares = {}, {}
    for name, part in material.experiments.items():
        for split in part.folds.get(SEEN, []):
            shares[name] = protocols.shared_pixels(part.themselves, split)
            entries[name] = in_common(part.themselves, split, shares[name])
    return Leakage(entries, shares)


def in_common(table: pd.DataFrame, split: pd.Series, shared: pd.Series) -> dict[str, float]:
    """What the test patches of a split have in common with its training patches, as shares from 0 to 1.

    shared: `protocols.shared_pixels` of the two. share_of_patches: of the test patches, those that share a pixel with a
    training patch. mean_shared_fraction: of a test patch's pixels, on average. wholly_seen: of the test patches, those
    of which every pixel is shared. subjects_seen: of the people tested, those who have training patches.
    """
    trained = set(table["subject"][split == "train"])
    tested = table["subject"][split == "test"].unique()
    return {
        "share_of_patches": float((shared > 0).mean()),
        "mean_shared_fraction": float(shared.mean()),
        "wholly_seen": float((shared == 1).mean()),
        "subjects_seen": float(np.mean([subject in trained for subject in tested])),
    }
