"""What can be said of people: it rests on subjects, not on patches, and there are few.

Counts of subjects have exact intervals, means a bootstrap over whole subjects, and an AUC a permutation test that goes
through all labellings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.stats import binomtest, permutation_test, rankdata

from mitolib.metrics import Estimate
from mitolib.settings import LABELS

LABELLINGS = 10_000  # gone through one by one, or drawn
MEANS = ("patch_accuracy", "balanced_accuracy", "auc_subject")  # of a `summary`
DRAWN = {"balanced_accuracy": "balanced accuracy of patches", "auc_subject": "AUC over people"}  # what figures show


def exact_interval(n_right: int, n: int) -> tuple[float, float]:
    """95 % interval of Clopper and Pearson (1934) for a share of which `n_right` of `n` were seen."""
    interval = binomtest(n_right, n).proportion_ci(confidence_level=0.95, method="exact")
    return float(interval.low), float(interval.high)


def exact_intervals(shares: Iterable[float], sizes: Iterable[int]) -> pd.DataFrame:
    """`exact_interval` where a share of `n` was seen, rounded to whole subjects: columns share, n, low and high."""
    rows = [(share, n, *exact_interval(round(share * n), n)) for share, n in product(shares, sizes)]
    return pd.DataFrame(rows, columns=["share", "n", "low", "high"])


@dataclass(frozen=True)
class Precision:
    """What so few people can show.

    without_error: the exact interval where all of a group are called rightly, a row for each class and one for all.
    by_size: `exact_intervals` of three shares. controls_needed: people, in tens, from which on the interval of a share
    of 90 % is at most 10 points wide.
    """

    without_error: pd.DataFrame
    by_size: pd.DataFrame
    controls_needed: int


def precision(people: pd.DataFrame) -> Precision:
    """See `Precision`. people: a row each, with a column label."""
    groups = people["label"].value_counts().rename(lambda label: f"{label}s").to_dict() | {"people": len(people)}
    texts = {f"{n} of {n} {group}": "{:.1%} to {:.1%}".format(*exact_interval(n, n)) for group, n in groups.items()}
    return Precision(
        pd.Series(texts, name="95 % interval of the share called rightly").to_frame(),
        exact_intervals((0.7, 0.9, 1.0), (10, 20, 30, 40, 50, 70, 100, 150, 200)),
        people_needed(0.9, width=0.1),
    )


def people_needed(share: float, *, width: float) -> int:
    """The least number of people, in tens, for which the exact interval of a share is at most `width` wide."""
    for n in count(10, 10):
        low, high = exact_interval(round(share * n), n)
        if high - low <= width:
            return n
    raise AssertionError("an interval narrows without end")


def by_subject(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per subject, controls first: truth (0 or 1), score, votes, n.

    predictions: one row for each tested patch of each fold, with columns subject, truth and p (of "patient").
    score: mean p. votes: share of its patches called "patient". n: patches times folds.
    """
    voted = predictions.assign(vote=predictions["p"] > 0.5)
    people = voted.groupby("subject").agg(
        truth=("truth", "first"), score=("p", "mean"), votes=("vote", "mean"), n=("p", "size")
    )
    return people.sort_values("truth", kind="stable")


def pairs(predictions: pd.DataFrame) -> np.ndarray:
    """(controls, patients): 1 where the patient has the greater mean p, 0 where the control has, 1/2 for a tie.

    Where a pair was tested together, alone, by a fold of its own, its scores in that fold are compared; else the scores
    over all folds. The mean of the matrix is the AUC over subjects, in the first case the leave-pair-out AUC of Airola
    et al. (2010). predictions: as in `by_subject`, with a column fold.
    """
    people = by_subject(predictions)
    controls, patients = (people.index[people["truth"] == i] for i in range(len(LABELS)))
    fold_scores = predictions.pivot_table(index="fold", columns="subject", values="p", aggfunc="mean")
    tested_together = {frozenset(row.dropna().index): row for _, row in fold_scores.iterrows()}
    matrix = np.empty((len(controls), len(patients)))
    for i, control in enumerate(controls):
        for j, patient in enumerate(patients):
            scores = tested_together.get(frozenset([control, patient]), people["score"])
            matrix[i, j] = (np.sign(scores[patient] - scores[control]) + 1) / 2
    return matrix


def permutation_p(scores: np.ndarray, truth: np.ndarray) -> float:
    """One-sided p of the AUC of (N,) scores of subjects: the share of all labellings whose AUC is at least as great.

    Up to 10,000 choices of as many patients as there are, all are gone through: C(14, 4) = 1,001 for 4 controls and 10
    patients, of which the true one is one. Above that, 10,000 are drawn, always the same, and the true one is added.
    """
    ranks = rankdata(scores)
    controls, patients = ranks[truth == 0], ranks[truth == 1]
    # A class of one, which SciPy refuses: each subject in turn takes its place.
    if len(patients) == 1:
        return float((ranks >= patients).mean())
    if len(controls) == 1:
        return float((ranks <= controls).mean())
    # The AUC rises with the ranks of the patients.
    test = permutation_test(
        (patients, controls),
        lambda patients, controls, axis: patients.sum(axis=axis),
        vectorized=True,
        alternative="greater",
        n_resamples=LABELLINGS,
        rng=0,
    )
    return float(test.pvalue)


def summary(predictions: pd.DataFrame, *, rng: Generator, draws: int = 1000) -> dict[str, Any]:
    """What a model is worth on the patches and on the people that its folds tested.

    predictions: columns fold, row (of the patch table), subject, truth (0 or 1) and p. A patch or subject that
    several folds tested counts once, with the mean over its folds.

    {"patch_accuracy", "balanced_accuracy", "auc_subject", "subjects_right", "n_subjects", "p_permutation", "ci"}. `ci`
    has 95 % intervals: of the first three from a bootstrap over subjects within each class, with few controls a
    coarse one; of the share of subjects called rightly from `exact_interval`. The p is that of the subjects' mean
    scores over all folds, also where `auc_subject` compares scores within folds.
    """
    people = by_subject(predictions)
    classes = [np.flatnonzero(people["truth"] == i) for i in range(len(LABELS))]
    drawn = [[rng.integers(len(members), size=len(members)) for members in classes] for _ in range(draws)]
    patches_right, auc_matrix = _patches_right(predictions).loc[people.index], pairs(predictions)

    def means(members: Sequence[np.ndarray]) -> np.ndarray:
        return _means([patches_right.to_numpy()[rows] for rows in classes], auc_matrix, members)

    bootstrapped = means([np.array(of_class) for of_class in zip(*drawn, strict=True)])
    limits = np.percentile(bootstrapped, [2.5, 97.5], axis=1).T.tolist()
    observed = means([np.arange(len(members))[None] for members in classes])[:, 0].tolist()
    n_right = int(((people["votes"] > 0.5) == (people["truth"] == 1)).sum())
    return dict(zip(MEANS, observed, strict=True)) | {
        "subjects_right": n_right,
        "n_subjects": len(people),
        "p_permutation": permutation_p(people["score"].to_numpy(), people["truth"].to_numpy()),
        "ci": dict(zip(MEANS, limits, strict=True)) | {"subjects_right": list(exact_interval(n_right, len(people)))},
    }


def _patches_right(predictions: pd.DataFrame) -> pd.DataFrame:
    """By subject: sum, over its patches, of the share of folds that called a patch rightly; size, its patches."""
    right = (predictions["p"] > 0.5) == (predictions["truth"] == 1)
    patches = predictions.assign(right=right).groupby("row").agg(right=("right", "mean"), subject=("subject", "first"))
    return patches.groupby("subject")["right"].agg(["sum", "size"])


def _means(patches_right: Sequence[np.ndarray], auc_matrix: np.ndarray, members: Sequence[np.ndarray]) -> np.ndarray:
    """(3, n): the MEANS of n draws of subjects.

    patches_right: of each class, (subjects, 2) sums and sizes. auc_matrix: see `pairs`. members: of each class, (n, m)
    numbers of its subjects.
    """
    totals = np.array([by_class[rows].sum(axis=1) for by_class, rows in zip(patches_right, members, strict=True)])
    accuracy = totals[..., 0].sum(axis=0) / totals[..., 1].sum(axis=0)
    balanced = (totals[..., 0] / totals[..., 1]).mean(axis=0)
    controls, patients = members
    auc = auc_matrix[controls[:, :, None], patients[:, None]].mean(axis=(1, 2))
    return np.array([accuracy, balanced, auc])


def summary_table(entries: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """What `summary` gave, for reading, indexed by "model" and "split": every score with its interval on one line."""
    rows = {}
    for entry in entries:
        intervals = entry["ci"]
        texts = {name.replace("_", " "): str(Estimate(entry[name], intervals[name])) for name in MEANS}
        share = "({:.0%} to {:.0%})".format(*intervals["subjects_right"])
        texts["people called rightly"] = f"{entry['subjects_right']} of {entry['n_subjects']} {share}"
        texts["p"] = f"{entry['p_permutation']:.3f}"
        rows[entry["model"], entry["split"]] = {name: _unbroken(text) for name, text in texts.items()}
    return pd.DataFrame(rows).T.rename_axis(["model", "split"])


def _unbroken(interval: str) -> str:
    """An interval that a narrow column breaks neither before nor behind its "to"."""
    return interval.replace(" to ", "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}")


def by_split(entries: Iterable[Mapping[str, Any]], score: str) -> dict[str, dict[str, Estimate]]:
    """Split -> model -> one score of what `summary` gave, with "model" and "split" added."""
    estimates: dict[str, dict[str, Estimate]] = {}
    for entry in entries:
        estimates.setdefault(entry["split"], {})[entry["model"]] = Estimate(entry[score], entry["ci"][score])
    return estimates
