"""Ways to split that ask what the published one does not: about pixels, and people, that were not trained on.

A fold is a column beside a patch table, as in `mitolib.splits`: 'train', 'test', or '' for a patch that is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import gcd

import numpy as np
import pandas as pd

from mitolib import splits
from mitolib.settings import LABELS

SEEN, NO_OVERLAP = "published", "no-overlap"  # splits that test people who are trained on
UNSEEN, ALL_PAIRS = "paired-folds", "leave-one-control-one-patient-out"  # and of nobody


def no_overlap(table: pd.DataFrame, *, seed: int = 127, fraction: float = 0.1) -> pd.Series:
    """'train', 'test' or '' for each row of a patch table: the same subjects in both, and no pixel in both.

    In each section a strip of whole rows of patches across its longer side, at the end that `seed` draws, is the test
    set: at least one row, about `fraction` of all. The patches that overlap with it are left out, the others train.
    A section too short for that trains as a whole. Raises ValueError if a class is absent from one of the sets.
    """
    rng = np.random.default_rng(seed)
    split = pd.Series("train", index=table.index, name="split")
    for _, rows in table.groupby("section", sort=False):
        long = max("yx", key=lambda axis: rows[axis].max())
        at = rows[long] if rng.random() < 0.5 else rows[long].max() - rows[long]  # distance from the end that tests
        places = np.sort(at.unique())
        edge = places[max(1, round(fraction * len(places))) - 1] + rows["size"].iloc[0]  # where the strip's pixels end
        if edge <= places[-1]:
            split[rows.index[at < edge]] = ""
            split[rows.index[at <= edge - rows["size"].iloc[0]]] = "test"
    for part in ("train", "test"):
        if missing := [label for label in LABELS if label not in set(table["label"][split == part])]:
            raise ValueError(
                f"no {missing[0]} section is long enough for a {part} set that shares no pixel with the other. "
                f"Use larger sections, or patches smaller than {table['size'].iloc[0]} px."
            )
    return split


def leave_one_subject_out(table: pd.DataFrame) -> list[pd.Series]:
    """One fold for each subject, in order: its patches are tested, all others train.

    Raises ValueError with fewer than two subjects of a class.
    """
    splits.two_of_each(table)
    return [_left_out(table, [subject]) for subject in table["subject"].unique()]


def leave_one_control_one_patient_out(table: pd.DataFrame) -> list[pd.Series]:
    """One fold for each pair of a control and a patient: both are tested, all others train.

    Every fold trains on as many controls and patients as every other, so scores of different folds can be compared; in
    leave-one-out they cannot (Austin, Pe'er and Korem 2025). Raises ValueError with fewer than two of a class.
    """
    return [_left_out(table, pair) for pair in product(*splits.two_of_each(table))]


def paired_folds(table: pd.DataFrame, *, seed: int = 127) -> list[pd.Series]:
    """As many folds as the larger class has subjects: one control and one patient are tested, all others train.

    Everybody is tested, the larger class once, the smaller in turns, in an order that `seed` draws: ten folds for the
    paper's four controls and ten patients. Of all pairs (`leave_one_control_one_patient_out`) these are few enough
    for models that take minutes. Raises ValueError with fewer than two of a class.
    """
    controls, patients = splits.two_of_each(table)
    rng = np.random.default_rng(seed)
    n_folds = max(len(controls), len(patients))
    dealt = (np.resize(rng.permutation(subjects), n_folds) for subjects in (controls, patients))
    return [_left_out(table, list(pair)) for pair in zip(*dealt, strict=True)]


def _left_out(table: pd.DataFrame, subjects: list[str]) -> pd.Series:
    return table["subject"].isin(subjects).map({True: "test", False: "train"}).rename("split")


SPLITS: dict[str, Callable[[pd.DataFrame, str], list[pd.Series]]] = {  # name -> folds of a table of an experiment
    SEEN: lambda table, experiment: [splits.published(table, experiment)],
    NO_OVERLAP: lambda table, experiment: [no_overlap(table)],
    "leave-one-subject-out": lambda table, experiment: leave_one_subject_out(table),
    UNSEEN: lambda table, experiment: paired_folds(table),
    ALL_PAIRS: lambda table, experiment: leave_one_control_one_patient_out(table),
}


def available(table: pd.DataFrame, experiment: str) -> tuple[dict[str, list[pd.Series]], dict[str, str]]:
    """The folds of every split that this table allows, by name, and why the others cannot be had.

    Raises ValueError for an unknown experiment.
    """
    splits.protocol_of(experiment)
    folds, refused = {}, {}
    for name, make in SPLITS.items():
        try:
            folds[name] = make(table, experiment)
        except ValueError as error:
            refused[name] = str(error)
    return folds, refused


def coverage(rows: pd.DataFrame, split: pd.Series) -> tuple[np.ndarray, int]:
    """What lies under the patches of one section: bit 1 under a training patch, bit 2 under a test patch.

    Returns the (H, W) map, in cells as large as the patches' coordinates allow without rounding, and a cell's px.
    """
    cell_px = gcd(*rows["y"], *rows["x"], *rows["size"])
    cells = rows[["y", "x", "size"]] // cell_px
    covered = np.zeros(tuple(cells[["y", "x"]].max() + cells["size"].max()), np.uint8)
    for bit, part in ((1, "train"), (2, "test")):
        for patch in cells[split[rows.index] == part].itertuples():
            covered[patch.y : patch.y + patch.size, patch.x : patch.x + patch.size] |= bit
    return covered, cell_px


def shared_pixels(table: pd.DataFrame, split: pd.Series) -> pd.Series:
    """For each test patch, the share of its pixels, 0 to 1, that lie in a training patch too. Indexed by its row."""
    found = {}
    for _, rows in table.groupby("section"):
        covered, cell_px = coverage(rows, split)
        for patch in rows[split[rows.index] == "test"].itertuples():
            y, x, n = patch.y // cell_px, patch.x // cell_px, patch.size // cell_px
            found[patch.Index] = (covered[y : y + n, x : x + n] & 1).mean()
    return pd.Series(found, name="shared", dtype=float).sort_index()
