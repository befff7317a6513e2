"""Who is trained on, and who is tested: the published splits, and those that ask about a person not seen before.

In the published splits patches are dealt out after cutting, whoever they belong to. The paper states 80:10:10. Its
tables say otherwise: Table 1 is two successive random splits of 10 %, which with seed 127 give each class count
exactly; Table 2 is two successive stratified splits of 20 %.

A split is a column beside a patch table: 'train', 'validation', 'test', or '' for a patch that is left out. In splits
by subject all sections of a subject are always on the same side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib.settings import LABELS

SETS = ("train", "validation", "test")
AGREEMENT = 0.45, 0.55  # of labels dealt out anew with the true ones, balanced: about chance
MOST_DEALS = 10_000  # of labels; where there are more, so many are drawn


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
    protocol = protocol_of(experiment)
    labels = table["label"].to_numpy()
    short = [name for name in LABELS if (labels == name).sum() < len(SETS)]
    if short:
        raise ValueError(
            f"{(labels == short[0]).sum()} patches of class {short[0]}, wanted at least {len(SETS)} to share out "
            f"among {', '.join(SETS)}. Add sections of that class, or use a smaller stride."
        )

    from sklearn.model_selection import train_test_split  # a second, which a check of a folder need not wait for

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


def protocol_of(experiment: str) -> Protocol:
    if experiment not in PUBLISHED:
        raise ValueError(f"experiment={experiment!r} is not one of {', '.join(PUBLISHED)}.")
    return PUBLISHED[experiment]


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
    return table["subject"].map(folds).map(lambda of_subject: sets.get(of_subject, "train")).rename("split")


def by_person(table: pd.DataFrame, *, seed: int = 127) -> pd.Series:
    """'train', 'validation' or 'test' for each row of a patch table; who is tested has no patch in the two others.

    A fifth of the people of each class are tested and as many validate, one at least. Where a class has two people
    only, one is tested, and a fifth of the patches of those who train validate. Raises ValueError with fewer than two
    people of a class, or too few patches for that.
    """
    people = table.drop_duplicates("subject").set_index("subject")["label"]
    two_of_each(table)
    sets: dict[str, str] = {}
    few_people = people.value_counts().min() < 3
    rng = np.random.default_rng(seed)
    for label in LABELS:
        mixed = rng.permutation(people.index[people == label])
        n = max(1, round(len(mixed) / 5))
        sets |= dict.fromkeys(mixed[:n], "test")
        sets |= dict.fromkeys(mixed[n : n if few_people else 2 * n], "validation")
    split = table["subject"].map(sets).fillna("train").rename("split")
    for label in LABELS if few_people else ():
        rows = table.index[(split == "train") & (table["label"] == label)]
        if len(rows) < 2:
            raise ValueError(
                f"{len(rows)} patch of the {label}s to train and to validate on; wanted two at least. Take smaller "
                "patches or a smaller stride (-p patch_px, -p stride_px), or add people."
            )
        split[rng.choice(rows, max(1, round(len(rows) / 5)), replace=False)] = "validation"
    return split


def described(table: pd.DataFrame) -> str:
    """Markdown: how many people are in each set of a split, and so what a score on its test set can say.

    table: with columns split, subject and label.
    """
    whose = {part: table[table["split"] == part].drop_duplicates("subject") for part in SETS}
    in_each = "; ".join(f"{part} {counted(whose[part]['label'])}" for part in SETS)
    text = f"People whose patches are in each set: {in_each}. "
    people = {part: set(rows["subject"]) for part, rows in whose.items()}
    if people["test"] & people["train"]:
        return text + (
            "Patches were dealt out, not people, so the same people are in training and test set, and so are patches "
            "that overlap. A score says how well a patch is recognised whose neighbours were seen, not how well a new "
            "person is diagnosed."
        )
    if people["validation"] & people["train"]:
        text += "The people who validate also train, since there are too few for three sets. "
    return (
        text + "Nobody who is tested was trained on: a score says how well patches of these new people are recognised."
    )


def plural(n: int) -> str:
    return "" if n == 1 else "s"


def counted(labels: Iterable[str]) -> str:
    """ "1 control and 3 patients", of the label of each person."""
    labels = list(labels)
    return " and ".join(f"{labels.count(label)} {label}{plural(labels.count(label))}" for label in LABELS)


def two_of_each(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The controls and the patients, if there is one of each to be tested and one to train on."""
    controls, patients = (table["subject"][table["label"] == label].unique() for label in LABELS)
    if min(len(controls), len(patients)) < 2:
        raise ValueError(
            f"{len(controls)} control{plural(len(controls))} and {len(patients)} patient{plural(len(patients))}; "
            "wanted two of each at least, one to be tested and one to train on. Add people."
        )
    return controls, patients


def equal_parts(labels: np.ndarray, rows: np.ndarray, size: int, steps: int, *, rng: Generator) -> np.ndarray:
    """(steps, size) of `rows`: batches with as many of each class, none of a class twice before all had their turn.

    labels: (N,) class indices. Raises ValueError for a size that the classes of `rows` cannot share equally.
    """
    classes = np.unique(labels[rows])
    if size % len(classes):
        raise ValueError(f"batches of {size}; wanted a multiple of the {len(classes)} classes.")
    each, columns = size // len(classes), []
    for of_class in (rows[labels[rows] == label] for label in classes):
        order = np.concatenate([rng.permutation(of_class) for _ in range(-(-steps * each // len(of_class)))])
        columns.append(np.resize(order, (steps, each)))
    return np.hstack(columns)


def permuted_labels(
    labels: np.ndarray,
    subjects: Sequence[str],
    *,
    n: int,
    rng: Generator,
    taught: np.ndarray | None = None,
    scored: np.ndarray | None = None,
) -> np.ndarray:
    """(at most n, N) class indices: the subjects' labels dealt out anew, in draws that say nothing of the true ones.

    As many subjects have each label as before. A draw counts if its balanced agreement with the truth lies within
    AGREEMENT: a model of the disease is then right by it about as often as by chance, whereas to recognise subjects
    still pays. No draw comes twice; where there are fewer than n, all are given.
    taught: rows among whose subjects both labels have to occur. scored: rows on which the agreement is taken, those
    that will be tested, with both classes among them. Left out, both are all rows. Raises ValueError, with the nearest
    agreement, if no draw counts.
    """
    by_subject = pd.Series(labels, index=subjects).groupby(level=0).first()
    truth, names = by_subject.to_numpy(), np.asarray(subjects)
    if len(set(truth)) < 2:
        raise ValueError(f"all {len(truth)} subjects have one label; wanted both. Add subjects of the other class.")
    deals, classes = _deals(truth, rng), [truth == label for label in range(len(LABELS))]
    of_scored = pd.Series(names if scored is None else names[scored]).value_counts()
    n_scored = of_scored.reindex(by_subject.index, fill_value=0).to_numpy()
    agreement = np.mean([(deals == truth)[:, own] @ n_scored[own] / n_scored[own].sum() for own in classes], 0)
    among = deals if taught is None else deals[:, by_subject.index.isin(names[taught])]
    has_both = among.min(axis=1) < among.max(axis=1)
    low, high = AGREEMENT
    counts = np.flatnonzero(has_both & (agreement >= low) & (agreement <= high))
    if not len(counts):
        nearest = min(agreement[has_both], key=lambda found: abs(found - 0.5), default=None)
        raise ValueError(
            f"the labels of {len(truth)} subjects cannot be dealt out anew so that their balanced agreement with the "
            f"true ones lies within {low} and {high}"
            f"{'' if nearest is None else f': the nearest has {nearest:.2f}'}. Add subjects."
        )
    return deals[rng.permutation(counts)[:n]][:, by_subject.index.get_indexer(names)]


def _deals(truth: np.ndarray, rng: Generator) -> np.ndarray:
    """(n, subjects): all ways to deal the same labels out, or, where these are too many, as many drawn at random."""
    n_patients = int(truth.sum())
    if comb(len(truth), n_patients) > MOST_DEALS:
        return np.unique([rng.permutation(truth) for _ in range(MOST_DEALS)], axis=0)
    deals = np.zeros((comb(len(truth), n_patients), len(truth)), int)
    np.put_along_axis(deals, np.array(list(combinations(range(len(truth)), n_patients))), 1, axis=1)
    return deals


def counts(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """{'train': {'control': 212, 'patient': 770}, ...}: patches per set and class, from columns split and label."""
    crossed = pd.crosstab(table["split"], table["label"]).reindex(index=SETS, columns=LABELS, fill_value=0)
    return {name: {label: int(row[label]) for label in LABELS} for name, row in crossed.iterrows()}
