"""The published splits: patches are dealt out after cutting, whoever they belong to.

The paper states 80:10:10. Its tables say otherwise: Table 1 is two successive random splits of 10 %,
which with seed 127 give each class count exactly; Table 2 is two successive stratified splits of 20 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from mitolib.settings import LABELS

SETS = ("train", "validation", "test")


@dataclass(frozen=True)
class Protocol:
    """First `fraction` of all patches for the test set, then the same of the rest for validation."""

    fraction: float
    stratified: bool
    seed: int = 127


PUBLISHED = {"exp1": Protocol(0.1, stratified=False), "exp2": Protocol(0.2, stratified=True)}


def published(table: pd.DataFrame, experiment: str) -> pd.Series:
    """'train', 'validation' or 'test' for each row of a patch table (controls first), as in Tables 1 and 2.

    Raises ValueError if a class is absent from one of the three sets: no metric would be defined.
    """
    if experiment not in PUBLISHED:
        raise ValueError(f"experiment={experiment!r} is not one of {', '.join(PUBLISHED)}.")
    protocol = PUBLISHED[experiment]
    labels = table["label"].to_numpy()
    short = [name for name in LABELS if (labels == name).sum() < len(SETS)]
    if short:
        raise ValueError(
            f"{(labels == short[0]).sum()} patches of class {short[0]}, wanted at least {len(SETS)} to share out "
            f"among {', '.join(SETS)}. Add sections of that class, or use a smaller stride."
        )

    def deal(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stratify = labels[rows] if protocol.stratified else None
        return train_test_split(rows, test_size=protocol.fraction, random_state=protocol.seed, stratify=stratify)

    rest, test = deal(np.arange(len(table)))
    train, validation = deal(rest)
    split = pd.Series("train", index=table.index, name="split")
    split.iloc[validation], split.iloc[test] = "validation", "test"
    for name, rows in zip(SETS, (train, validation, test), strict=True):
        if empty := [label for label in LABELS if label not in labels[rows]]:
            raise ValueError(
                f"the {name} set of {experiment} has {len(rows)} patches and none of class {empty[0]}. "
                f"{len(table)} patches are too few for this split: add sections of that class, or use a smaller stride."
            )
    return split


def by_subject(table: pd.DataFrame, *, n_folds: int, fold: int, seed: int) -> pd.Series:
    """'train', 'validation' or 'test' for each row of a patch table, all patches of a subject alike.

    The subjects of each class are dealt out to `n_folds` folds in random order (`seed`). Fold `fold` is tested, the
    next one validates, the others train. Raises ValueError for fewer than three folds, or than subjects of a class.
    """
    people = table.drop_duplicates("subject").set_index("subject")["label"]
    least = people.value_counts().reindex(LABELS, fill_value=0)
    if not 3 <= n_folds <= least.min():
        raise ValueError(
            f"{n_folds} folds for {', '.join(f'{n} {label}s' for label, n in least.items())}; wanted 3 at least (to "
            "test, validate and train) and a subject of each class in each. Add subjects, or change n_folds."
        )
    rng = np.random.default_rng(seed)
    folds = pd.concat(
        [
            pd.Series(np.arange(n) % n_folds, rng.permutation(people.index[people == label]))
            for label, n in least.items()
        ]
    )
    sets = {fold % n_folds: "test", (fold + 1) % n_folds: "validation"}
    return table["subject"].map(folds).map(lambda own: sets.get(own, "train")).rename("split")


def counts(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """{'train': {'control': 212, 'patient': 770}, ...}: patches per set and class, from columns split and label."""
    crossed = pd.crosstab(table["split"], table["label"]).reindex(index=SETS, columns=LABELS, fill_value=0)
    return {name: {label: int(row[label]) for label in LABELS} for name, row in crossed.iterrows()}
