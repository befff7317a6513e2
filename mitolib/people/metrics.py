"""What can be said of people: it rests on subjects, not on patches, and there are few.

Counts of subjects have exact intervals, means a bootstrap over whole subjects, and an AUC a permutation test that goes
through all labellings. Where every draw of a bootstrap gives the same, as for a perfect AUC, it says nothing: there is
no interval then, and the exact ones of the test and of the subjects called rightly remain.

Predictions of a model trained with several seeds have a column seed: scores are means over the seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.stats import binomtest, bootstrap, permutation_test, rankdata

from mitolib.metrics import COLLAPSED, Estimate, holm
from mitolib.settings import LABELS

LABELLINGS = 10_000  # gone through one by one, or drawn
SIGNS = 20_000  # the same of the signs of differences: 2^14 are 16,384
MEANS = ("patch_accuracy", "balanced_accuracy", "auc_subject")  # of a `summary`
DRAWN = {"balanced_accuracy": "balanced accuracy of patches", "auc_subject": "AUC over people"}  # what figures show


def key(model: str) -> str:
    """The name of a model without comma or space, so that a page can name it."""
    return model.replace(",", "").replace(" ", "-")


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
    of 90 % is at most ten points wide in all, from its lower end to its upper.
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
    """The least number of people, in tens, for which the exact interval of a share has at most this total width."""
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
    et al. (2010). predictions: as in `by_subject`, with a column fold. Of several seeds: the mean of their matrices.
    """
    if "seed" in predictions and predictions["seed"].nunique() > 1:
        return np.mean([pairs(of_seed) for _, of_seed in predictions.groupby("seed")], axis=0)
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

    predictions: columns fold, row (of the patch table), subject, truth (0 or 1) and p, and seed where there are several
    trainings. A patch or subject that several folds tested counts once, with the mean over its folds.

    {"patch_accuracy", "balanced_accuracy", "auc_subject", "subjects_right", "n_subjects", "p_permutation", "ci",
    "seeds", "trainings", "collapsed"}. `ci` has 95 % intervals: of the first three from a bootstrap over subjects
    within each class, with few controls a coarse one, or None where every draw gives the same; of the share of subjects
    called rightly, by the majority over its patches, folds and seeds, from `exact_interval`. The p is that of the
    subjects' mean scores over all folds, also where `auc_subject` compares scores within folds. `seeds`: the first
    three by seed, {} for one.
    trainings: of a model with seeds, one for each seed and fold, else 0; collapsed: those that give nearly all of their
    patches (`metrics.COLLAPSED` of the core) one answer.
    """
    scored = _Scored.of(predictions)
    people = scored.people
    bootstrapped = scored.means(_drawn(scored.classes, rng, draws))
    n_right = int(((people["votes"] > 0.5) == (people["truth"] == 1)).sum())
    by_seed = predictions.groupby("seed") if "seed" in predictions else ()
    of_seeds = {str(seed): _observed(_Scored.of(of_seed)) for seed, of_seed in by_seed}
    return (
        _observed(scored)
        | {
            "subjects_right": n_right,
            "n_subjects": len(people),
            "p_permutation": permutation_p(people["score"].to_numpy(), people["truth"].to_numpy()),
            "ci": dict(zip(MEANS, map(percentiles, bootstrapped), strict=True))
            | {"subjects_right": list(exact_interval(n_right, len(people)))},
            "seeds": of_seeds if len(of_seeds) > 1 else {},
        }
        | _collapsed(predictions)
    )


def _collapsed(predictions: pd.DataFrame) -> dict[str, int]:
    if "seed" not in predictions:
        return {"trainings": 0, "collapsed": 0}
    called = (predictions["p"] > 0.5).groupby([predictions["seed"], predictions["fold"]]).mean()
    return {"trainings": len(called), "collapsed": int((np.maximum(called, 1 - called) > COLLAPSED).sum())}


def difference(one: pd.DataFrame, other: pd.DataFrame, *, rng: Generator, draws: int = 1000) -> dict[str, Any]:
    """By how much the first predictions score higher than the other, on the people whom both tested.

    one, other: as in `summary`, of two splits or of two models. Of each of the MEANS {"value", "ci", "n"}: the
    interval from a bootstrap that draws people within each class, the same people for both; n people. p_sign_flip: the
    two-sided p of a permutation test of the difference in accuracy, each person's patches in one number and both
    classes with the same weight, over all ways to exchange one and other within people, if these are at most 20,000.
    Empty where no person of a class was tested by both.
    """
    both = set(one["subject"]) & set(other["subject"])
    first, second = (_Scored.of(predictions[predictions["subject"].isin(both)]) for predictions in (one, other))
    if not all(map(len, first.classes)):
        return {}
    drawn = _drawn(first.classes, rng, draws)
    apart = first.means(drawn) - second.means(drawn)
    observed, of_other = _observed(first), _observed(second)
    values = {
        name: {"value": observed[name] - of_other[name], "ci": percentiles(of_draws), "n": len(both)}
        for name, of_draws in zip(MEANS, apart, strict=True)
    }
    return values | {"p_sign_flip": _sign_flip_p(first, second)}


def _sign_flip_p(first: _Scored, second: _Scored) -> float:
    weights = np.concatenate([np.full(len(rows), 0.5 / len(rows)) for rows in first.classes])
    in_order = np.concatenate(first.classes)
    accuracies = [scored.right[in_order, 0] / scored.right[in_order, 1] for scored in (first, second)]
    if np.array_equal(*accuracies):
        return 1.0
    test = permutation_test(
        accuracies,
        lambda one, other, axis: ((one - other) * weights).sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=SIGNS,
        rng=0,
    )
    return float(test.pvalue)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Spearman's of (N,) values of N people: {"rank_correlation": {"value", "ci", "n"}, "p"}.

    ci: a bootstrap over people, percentiles. p: two-sided, of 9,999 random pairings, always the same. All but n are
    None where it is not defined: fewer than four people, or values that are all alike.
    """
    n = len(one)
    if n < 4 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return {"rank_correlation": {"value": None, "ci": None, "n": n}, "p": None}
    drawn = bootstrap((one, other), _spearman, vectorized=True, paired=True, method="percentile", rng=0)
    interval = drawn.confidence_interval
    # In a permutation only the pairing changes, so that ranks are taken once.
    test = permutation_test(
        (rankdata(one), rankdata(other)), _spearman, permutation_type="pairings", vectorized=True, rng=0
    )
    ends = [float(interval.low), float(interval.high)]
    ci = ends if np.isfinite(ends).all() else None
    correlation = {"value": float(_spearman(one, other)), "ci": ci, "n": n}
    return {"rank_correlation": correlation, "p": float(test.pvalue)}


def _spearman(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
    """Along an axis; 0 for a draw of one person alone, whose ranks are all alike."""
    ranks = [rankdata(values, axis=axis) for values in (one, other)]
    first, second = (of - of.mean(axis=axis, keepdims=True) for of in ranks)
    scale = np.sqrt((first**2).sum(axis=axis) * (second**2).sum(axis=axis))
    return (first * second).sum(axis=axis) / np.where(scale == 0, 1, scale)


def percentiles(of_draws: np.ndarray) -> list[float] | None:
    """The 95 % interval of the draws of a bootstrap; None where they are all alike."""
    low, high = np.percentile(of_draws, [2.5, 97.5]).tolist()
    return [low, high] if high > low else None


@dataclass(frozen=True, eq=False)
class _Scored:
    """Predictions, person by person. people: `by_subject`. right: (subjects, 2), see `_patches_right`. auc: `pairs`."""

    people: pd.DataFrame
    right: np.ndarray
    auc: np.ndarray

    @classmethod
    def of(cls, predictions: pd.DataFrame) -> _Scored:
        # By name within a class: two sets of predictions of the same people have them in the same order.
        people = by_subject(predictions.sort_values("subject", kind="stable"))
        return cls(people, _patches_right(predictions).loc[people.index].to_numpy(), pairs(predictions))

    @property
    def classes(self) -> list[np.ndarray]:
        """Of each class, the numbers of its subjects."""
        return [np.flatnonzero(self.people["truth"] == i) for i in range(len(LABELS))]

    def means(self, members: Sequence[np.ndarray]) -> np.ndarray:
        return _means([self.right[rows] for rows in self.classes], self.auc, members)


def _drawn(classes: Sequence[np.ndarray], rng: Generator, draws: int) -> list[np.ndarray]:
    """Of each class, (draws, n) numbers of its subjects, drawn with replacement."""
    drawn = [[rng.integers(len(members), size=len(members)) for members in classes] for _ in range(draws)]
    return [np.array(of_class) for of_class in zip(*drawn, strict=True)]


def _observed(scored: _Scored) -> dict[str, float]:
    everybody = [np.arange(len(members))[None] for members in scored.classes]
    return dict(zip(MEANS, scored.means(everybody)[:, 0].tolist(), strict=True))


def _patches_right(predictions: pd.DataFrame) -> pd.DataFrame:
    """By subject: sum, over its patches, of the share of folds and seeds that were right; size, its patches."""
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
    """What `summary` gave, for reading, indexed by "model" and "split": every score with its interval on one line.

    A score without an interval is one that every draw of the bootstrap repeats. p (Holm): of the area under the curve,
    corrected for the number of models under this split.
    """
    rows = {}
    for entry in entries:
        intervals = entry["ci"]
        texts = {name.replace("_", " "): str(Estimate(entry[name], intervals[name])) for name in MEANS}
        share = "({:.0%} to {:.0%})".format(*intervals["subjects_right"])
        texts["people called rightly"] = f"{entry['subjects_right']} of {entry['n_subjects']} {share}"
        texts["p (Holm)"] = f"{entry['p_holm']:.3f}"
        rows[entry["model"], entry["split"]] = {name: _unbroken(text) for name, text in texts.items()}
    return pd.DataFrame(rows).T.rename_axis(["model", "split"])


def corrected(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same entries with p_holm: p_permutation corrected for the number of entries under the same split."""
    entries = [dict(entry) for entry in entries]
    for split in {entry["split"] for entry in entries}:
        under_split = [entry for entry in entries if entry["split"] == split]
        for entry, p in zip(under_split, holm([entry["p_permutation"] for entry in under_split]), strict=True):
            entry["p_holm"] = p
    return entries


def _unbroken(interval: str) -> str:
    """An interval that a narrow column breaks neither before nor behind its "to"."""
    return interval.replace(" to ", "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}")


def by_split(entries: Iterable[Mapping[str, Any]], score: str) -> dict[str, dict[str, Estimate]]:
    """Split -> model -> one score of what `summary` gave, with "model" and "split" added."""
    estimates: dict[str, dict[str, Estimate]] = {}
    for entry in entries:
        estimates.setdefault(entry["split"], {})[entry["model"]] = Estimate(entry[score], entry["ci"][score])
    return estimates
