"""What can be said of people: it rests on subjects, not on patches, and there are few.

Counts of subjects have exact intervals, means a bootstrap over whole subjects, and an AUC a permutation test that goes
through all labellings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from math import comb

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.stats import beta, rankdata

from mitolib.metrics import Estimate
from mitolib.settings import LABELS

LABELLINGS = 10_000  # gone through one by one, or drawn
MEANS = ("patch_accuracy", "balanced_accuracy", "auc_subject")  # of a `summary`


def exact_interval(right: int, n: int) -> tuple[float, float]:
    """95 % interval of Clopper and Pearson (1934) for a share of which `right` of `n` were seen."""
    low = beta.ppf(0.025, right, n - right + 1) if right > 0 else 0
    high = beta.ppf(0.975, right + 1, n - right) if right < n else 1
    return float(low), float(high)


def exact_intervals(shares: Iterable[float], sizes: Iterable[int]) -> pd.DataFrame:
    """`exact_interval` where a share of `n` was seen, rounded to whole subjects: columns share, n, low and high."""
    cases = [(share, n, *exact_interval(round(share * n), n)) for share, n in product(shares, sizes)]
    return pd.DataFrame(cases, columns=["share", "n", "low", "high"])


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
    names = [people.index[people["truth"] == i] for i in range(len(LABELS))]
    own = predictions.pivot_table(index="fold", columns="subject", values="p", aggfunc="mean")
    together = {frozenset(row.dropna().index): row for _, row in own.iterrows()}
    matrix = np.empty([len(few) for few in names])
    for i, control in enumerate(names[0]):
        for j, patient in enumerate(names[1]):
            scores = together.get(frozenset([control, patient]), people["score"])
            matrix[i, j] = (np.sign(scores[patient] - scores[control]) + 1) / 2
    return matrix


def permutation_p(scores: np.ndarray, truth: np.ndarray) -> float:
    """One-sided p of the AUC of (N,) scores of subjects: the share of all labellings whose AUC is at least as great.

    Up to 10,000 choices of as many patients as there are, all are gone through: C(14, 4) = 1,001 for 4 controls and 10
    patients, of which the true one is one. Above that, 10,000 are drawn, always the same, and the true one is added.
    """
    ranks = rankdata(scores)
    few = int(min(np.bincount(truth)))
    rarer = truth == (1 if (truth == 1).sum() == few else 0)
    own = ranks[rarer].sum()
    if comb(len(ranks), few) <= LABELLINGS:
        sums = ranks[list(combinations(range(len(ranks)), few))].sum(axis=1)
    else:
        drawn = np.random.default_rng(0).permuted(np.tile(ranks, (LABELLINGS, 1)), axis=1)
        sums = np.append(drawn[:, :few].sum(axis=1), own)
    # The AUC rises with the ranks of the patients and falls with those of the controls.
    return float((sums >= own).mean() if truth[rarer][0] else (sums <= own).mean())


def summary(predictions: pd.DataFrame, *, rng: Generator, draws: int = 1000) -> dict[str, object]:
    """What a model is worth on the patches and on the people that its folds tested.

    predictions: columns fold, row (of the patch table), subject, truth (0 or 1) and p. A patch or subject that
    several folds tested counts once, with the mean over its folds.

    {"patch_accuracy", "balanced_accuracy", "auc_subject", "subjects_right", "n_subjects", "p_permutation", "ci"}. `ci`
    has 95 % intervals: of the first three from a bootstrap over subjects within each class, with few controls a
    coarse one; of the share of subjects called rightly from `exact_interval`. The p is that of the subjects' mean
    scores over all folds, also where `auc_subject` compares scores within folds.
    """
    right = (predictions["p"] > 0.5) == (predictions["truth"] == 1)
    patch = (
        predictions.assign(right=right)
        .groupby("row")
        .agg(right=("right", "mean"), subject=("subject", "first"), truth=("truth", "first"))
    )
    people = by_subject(predictions)
    sums = patch.groupby("subject")["right"].agg(["sum", "size"]).loc[people.index].to_numpy()
    classes = [np.flatnonzero(people["truth"] == i) for i in range(len(LABELS))]
    matrix = pairs(predictions)

    def of(chosen: Sequence[np.ndarray]) -> np.ndarray:
        """(3, n) accuracy, balanced accuracy and AUC of n draws of subjects, (n, m) numbers of them in each class."""
        totals = np.array([sums[own[few]].sum(axis=1) for own, few in zip(classes, chosen, strict=True)])
        accuracy = totals[..., 0].sum(axis=0) / totals[..., 1].sum(axis=0)
        controls, patients = chosen
        auc = matrix[controls[:, :, None], patients[:, None]].mean(axis=(1, 2))
        return np.array([accuracy, (totals[..., 0] / totals[..., 1]).mean(axis=0), auc])

    drawn = [[rng.integers(len(own), size=len(own)) for own in classes] for _ in range(draws)]
    drawn = of([np.array(few) for few in zip(*drawn, strict=True)])
    limits = np.percentile(drawn, [2.5, 97.5], axis=1).T.tolist()
    itself = of([np.arange(len(own))[None] for own in classes])[:, 0].tolist()
    n_right = int(((people["votes"] > 0.5) == (people["truth"] == 1)).sum())
    return dict(zip(MEANS, itself, strict=True)) | {
        "subjects_right": n_right,
        "n_subjects": len(people),
        "p_permutation": permutation_p(people["score"].to_numpy(), people["truth"].to_numpy()),
        "ci": dict(zip(MEANS, limits, strict=True)) | {"subjects_right": list(exact_interval(n_right, len(people)))},
    }


def worded(entries: Sequence[Mapping]) -> pd.DataFrame:
    """What `summary` gave, for reading, indexed by "model" and "split": every score with its interval on one line."""
    rows = {}
    for entry in entries:
        ci = entry["ci"]
        row = {name.replace("_", " "): str(Estimate(entry[name], ci[name])) for name in MEANS}
        low, high = ci["subjects_right"]
        row["people called rightly"] = f"{entry['subjects_right']} of {entry['n_subjects']} ({low:.0%} to {high:.0%})"
        row["p"] = f"{entry['p_permutation']:.3f}"
        kept = {name: text.replace(" to ", "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}") for name, text in row.items()}
        rows[entry["model"], entry["split"]] = kept
    return pd.DataFrame(rows).T.rename_axis(["model", "split"])


def by_split(entries: Sequence[Mapping], name: str) -> dict[str, dict[str, Estimate]]:
    """Split -> model -> one score of what `summary` gave, with "model" and "split" added."""
    found: dict[str, dict[str, Estimate]] = {}
    for entry in entries:
        found.setdefault(entry["split"], {})[entry["model"]] = Estimate(entry[name], entry["ci"][name])
    return found
