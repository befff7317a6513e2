"""How the chapter starts: its patches, splits, masks and tree, from a data folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mitolib import cohort, patches
from mitolib.own_data import Data, LeftOut
from mitolib.prototypes import annotation, taxonomy
from mitolib.prototypes.annotation import Masks
from mitolib.prototypes.asking import UNSEEN
from mitolib.prototypes.budget import Budget
from mitolib.prototypes.fits import Study, masks_digest
from mitolib.prototypes.maps import POOLED, Features
from mitolib.prototypes.network import ROOT
from mitolib.prototypes.tree_fits import TreeStudy
from mitolib.weights import Weights

BY_PERSON = "by person"  # the split of data of one's own


def splits_of(
    data: Data, table: pd.DataFrame, allowed: Mapping[str, Sequence[pd.Series]], budget: Budget
) -> dict[str, list[pd.Series]]:
    """Split -> folds: published on the phantom, else by person; and of `allowed` no-overlap and people not seen.

    allowed: see `people.prepare`. Of pairs of people not seen at most as many as the budget has.
    """
    name = "published" if data.is_phantom else BY_PERSON
    found = {name: [table["split"].reset_index(drop=True)]}
    for split in ("no-overlap", UNSEEN):
        if split in allowed:
            found[split] = [fold.iloc[: len(table)].reset_index(drop=True) for fold in allowed[split]]
    if UNSEEN in found and budget.folds is not None:
        found[UNSEEN] = _spread(found[UNSEEN], budget.folds)
    return found


def _spread(folds: Sequence[pd.Series], n: int) -> list[pd.Series]:
    """n of the folds at even distances: neighbours share a control."""
    places = np.linspace(0, len(folds) - 1, min(n, len(folds))).round().astype(int)
    return [folds[place] for place in dict.fromkeys(places)]


def studies(
    data: Data,
    weights: Weights,
    allowed: Mapping[str, Mapping[str, Sequence[pd.Series]]],
    *,
    budget: Budget,
    seed: int,
    masks: Path | None = None,
) -> dict[str, Study]:
    """By name of the experiment, what its networks are trained on.

    allowed: experiment -> split -> folds, see `splits_of`. Of several proteins the maps have 7 x 7 places. masks: a
    reader's folder; None is the truth, if there is any. Raises MaskError for masks that cannot be used.
    """
    found = {}
    drawn = annotation.from_folder(masks, data.sections) if masks else annotation.from_truth(data.root)
    depends = {} if drawn is None else {"masks": masks_digest(masks or data.root / "truth")}
    for experiment in filter(None, (data.one, data.several)):
        table = data.table(experiment)
        pixels_nhwc = patches.load(table, data.sections, experiment.proteins, stride_px=experiment.stride_px)
        side = budget.side if experiment is data.one else POOLED
        features = Features(experiment, table, pixels_nhwc, data.digest(experiment.proteins), weights, seed, side)
        folds = splits_of(data, table, allowed[experiment.name], budget)
        found[experiment.name] = Study(features, folds, next(iter(folds)), data.sections, drawn, budget, seed, depends)
    return found


def tree_of(data: Data, study: Study, columns: Sequence[str]) -> TreeStudy | LeftOut:
    """The tree of the declared columns on the patches of a study; why there is none where it has one node or none."""
    people = taxonomy.with_groups(cohort.table(data.sections))
    there = [name for name in columns if name in people]
    if len(there) < 2:
        return LeftOut(
            f"a tree takes two columns, coarse to fine; wanted {', '.join(columns)}, found {', '.join(people)}. Add "
            "the columns to cohort.csv, or name others with -p tree."
        )
    whole = taxonomy.tree_of(people, there)
    if len(whole.children) < 2:
        return LeftOut("all people of a class have one value in the columns of the tree, so that it has one node.")
    trained = set(study.table["subject"].to_numpy()[study.rows(study.shown, 0)[0]])
    if ROOT not in whole.among(sorted(trained)).children:
        return LeftOut("the people who train are all of one class.")
    coarse = taxonomy.tree_of(people, there[:2])
    return TreeStudy(replace(study, folds={study.shown: study.folds[study.shown]}), whole, coarse)


def counted(table: pd.DataFrame, folds: Mapping[str, Sequence[pd.Series]]) -> pd.DataFrame:
    """Folds of each split, and mean number of training and test patches of a fold."""
    rows = {
        split: {"folds": len(of_split)}
        | {
            f"{part} patches of a fold": np.mean([(fold == part).sum() for fold in of_split])
            for part in ("train", "test")
        }
        for split, of_split in folds.items()
    }
    return pd.DataFrame(rows).T


def masked_sentence(masks: Masks | None, table: pd.DataFrame) -> str:
    """How many sections of each class are annotated, or that there are no masks."""
    if masks is None:
        return str(LeftOut("these data come without truth, and no folder of masks was given (-p masks)."))
    first = table.drop_duplicates("section")
    there = first["section"].map(lambda section: masks.read(section) is not None)
    counts = [f"{there[first['label'] == label].sum()} of {n} sections of {label}s" for label, n in _counts(first)]
    return f"Annotated are {' and '.join(counts)}."


def _counts(first: pd.DataFrame) -> list[tuple[str, int]]:
    return sorted(first["label"].value_counts().items())
