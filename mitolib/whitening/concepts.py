"""Concepts of patches: how much of each a patch holds, and which patches show it.

A concept is something that a person can point at: deficient fibres, large fibres, little tissue. On the phantom most
follow from the truth, on any data some follow from `cohort.csv` and from the pictures, and a reader can bring folders
of pictures that show a concept. A table of concepts has one row per patch, in the order of the patch table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mitolib.cohort import Section, read_fibres
from mitolib.images import PICTURES, CohortError

MOST, LEAST = 0.8, 0.5  # quantiles of the training patches: a concept is present from the first, absent to the second
RAISED = 0.95  # quantile of the controls' fibres above which a fibre's SDHA for its VDAC1 counts as raised
LEAST_PATCHES = 4  # training patches that show a concept, for it to have an axis
LEAST_SHARING = 3  # subjects who share a value of a metadata column, for it to be a concept
COMPLEXES = {"complex I deficient": ("CI", "CI+CIV"), "complex IV deficient": ("CIV", "CI+CIV")}


def measure(root: str | Path, table: pd.DataFrame, sections: Sequence[Section]) -> pd.DataFrame:
    """How much of each concept every patch holds, a column per concept; NaN in a patch without a whole fibre.

    table: as of `patches.grid`, with a column `tissue` (`patches.tissue`). From the truth, where there is one: the
    share of the patch's fibres that are deficient in complex I and in complex IV (by label), and in which SDHA is
    raised (log of SDHA over VDAC1 above the 95 % quantile of the controls' fibres); the mean level of VDAC1, the mass
    marker; the median area of the fibres. Of any data: the share that is no tissue, and 1 or 0 for each value of a
    metadata column that three subjects share, unless it is the same as a class. A fibre belongs where its centre lies.
    """
    fibres = read_fibres(root)
    from_fibres = pd.DataFrame(index=table.index) if fibres is None else _of_fibres(fibres, table)
    sparse = (1 - table["tissue"]).rename("sparse tissue")
    return pd.concat([from_fibres, sparse, _of_subjects(sections, table)], axis=1)


def _of_fibres(fibres: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    control = fibres["section"].isin(table["section"][table["label"] == "control"])
    excess = np.log(fibres["SDHA"] / fibres["VDAC1"])
    altered = {name: fibres["deficiency"].isin(classes) for name, classes in COMPLEXES.items()}
    altered["SDHA raised"] = excess > excess[control].quantile(RAISED)
    fibres = fibres.assign(**altered)
    rows = []
    for patch in table.itertuples():
        y, x = fibres["y"] - patch.y, fibres["x"] - patch.x
        inside = (
            (fibres["section"] == patch.section) & y.between(0, patch.size, "left") & x.between(0, patch.size, "left")
        )
        in_patch = fibres[inside]
        shares = in_patch[list(altered)].mean().to_dict()
        rows.append(shares | {"much VDAC1": in_patch["VDAC1"].mean(), "large fibres": in_patch["area_px"].median()})
    return pd.DataFrame(rows, index=table.index)


def _of_subjects(sections: Sequence[Section], table: pd.DataFrame) -> pd.DataFrame:
    """A column of 1 and 0 for each value of a metadata column that enough subjects share."""
    people = pd.DataFrame([{"subject": s.subject, "label": s.label} | dict(s.metadata) for s in sections])
    people = people.drop_duplicates("subject").set_index("subject")
    measures = {}
    for column in people.columns.drop("label"):
        for value, group in people.groupby(column):
            has_it = people[column] == value
            is_a_class = any(has_it.equals(people["label"] == label) for label in people["label"].unique())
            if value and len(group) >= LEAST_SHARING and not is_a_class:
                measures[f"{column} {value}"] = table["subject"].map(has_it).astype(float)
    return pd.DataFrame(measures, index=table.index)


def annotate(measures: pd.DataFrame, training: np.ndarray) -> pd.DataFrame:
    """1 where a patch shows a concept, 0 where it does not, NaN where it is neither: (patches, concepts).

    The rule, with quantiles of the training patches (row numbers `training`) and nothing else: the fifth with the most
    of it shows it, the half with the least does not, and what lies between is left out. Where the two quantiles are
    equal, as of a value that a patch has or has not, the patches above them show it, or, if there are none, they do.
    """
    reference = measures.iloc[training]
    high, low = reference.quantile(MOST), reference.quantile(LEAST)
    on_top = (high == low) & (high == reference.max()) & (high > reference.min())
    lacks = (measures < low) | ((measures == low) & ~on_top)
    shows = (measures >= high) & ((measures > low) | on_top)
    return pd.DataFrame(np.nan, index=measures.index, columns=measures.columns).mask(lacks, 0.0).mask(shows, 1.0)


def rows_for_axes(annotation: pd.DataFrame, rows: np.ndarray, *, least: int = LEAST_PATCHES) -> dict[str, np.ndarray]:
    """concept -> the row numbers, out of `rows`, of the patches to align its axis with.

    annotation: as of `annotate`. No patch serves two concepts, since it would pull two orthogonal axes: the concept
    that fewest patches show chooses first. Concepts left with fewer than `least` patches, or without a patch that lacks
    them, are left out; of data without truth and metadata that may be all of them.
    """
    of_rows = annotation.iloc[rows]
    taken = np.zeros(len(rows), bool)
    chosen = {}
    for name in (of_rows == 1).sum().sort_values(kind="stable").index:
        shows = (of_rows[name] == 1).to_numpy() & ~taken
        if shows.sum() >= least and (of_rows[name] == 0).any():
            chosen[name] = rows[shows]
            taken |= shows
    return {name: chosen[name] for name in annotation.columns if name in chosen}


def first_two(concepts: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """The first two of `rows_for_axes` that are not all of `rows` together, which would make them opposites.

    Empty where there are no two such concepts.
    """
    for pair in combinations(concepts, 2):
        if len(np.setdiff1d(rows, np.concatenate([concepts[name] for name in pair]))):
            return {name: concepts[name] for name in pair}
    return {}


def read_folders(root: str | Path, size_px: int) -> dict[str, np.ndarray]:
    """concept -> (N, size_px, size_px, 1) uint8, from `<root>/<concept>/*.tif` (or .tiff, .png, .jpg, .jpeg), by name.

    Raises CohortError for a missing folder, one without concepts, a concept without pictures, and a picture that
    cannot be decoded.
    """
    root = Path(root)
    wanted = f"Wanted {root.name}/<concept>/<picture>{PICTURES[0]}, one folder for each concept"
    if not root.is_dir():
        raise CohortError(f"{root}: no such folder. {wanted}; or leave `concepts` out.")
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] not in "._"]
    if not folders:
        raise CohortError(f"{root}: holds no folder. {wanted}.")
    return {folder.name: _read_folder(folder, size_px) for folder in folders}


def _read_folder(folder: Path, size_px: int) -> np.ndarray:
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES and path.name[0] != "."]
    if not paths:
        raise CohortError(f"{folder}: no picture of this concept. Add one of {', '.join(PICTURES)}, or remove it.")
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.mode[0] in "IF":
                    raise ValueError(f"more than 8 bits, mode {image.mode}")
                grey = image.convert("L").resize((size_px, size_px), Image.Resampling.BILINEAR)
        except Exception as error:
            raise CohortError(f"{path}: cannot be decoded ({error}). Save it as an 8-bit picture again.") from error
        pictures.append(np.asarray(grey)[..., None])
    return np.stack(pictures)
