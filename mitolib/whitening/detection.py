"""How well a score tells the patches that show a concept from those that do not, and what groups of patches share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest, rankdata
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mitolib import linear
from mitolib.metrics import LEAST_SUBJECTS, Estimate


def detectors(
    units_nc: np.ndarray, shown: np.ndarray, train: np.ndarray, validation: np.ndarray
) -> dict[str, np.ndarray]:
    """Rivals of a concept's axis, from the mean of each unit over a map: name -> (N,) score, high where it is shown.

    units_nc: (N, C). shown: (N,) 1, 0 or NaN. "best unit": the one of the C, and its sign, with the greatest AUC on the
    validation rows. "LDA" and "probe" (logistic regression): linear, fitted on the training rows.
    Raises ValueError if the training rows do not hold both kinds.
    """
    known = train[np.isfinite(shown[train])]
    if len(np.unique(shown[known])) < 2:
        raise ValueError(f"{len(known)} training patches, all with or all without the concept; wanted both.")
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")  # fewer patches than units
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    rivals = {"LDA": lda, "probe": probe}
    fitted = {name: linear.fitted(model, units_nc[known], shown[known]) for name, model in rivals.items()}
    strength = aucs(units_nc[validation], shown[validation]) - 0.5
    best = int(np.nanargmax(np.abs(strength))) if np.isfinite(strength).any() else 0
    sign = -1 if strength[best] < 0 else 1
    return {"best unit": sign * units_nc[:, best]} | {
        name: model.decision_function(units_nc) for name, model in fitted.items()
    }


def aucs(scores_nc: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(C,) area under the ROC curve of each column, over the rows where `shown` is 1 or 0; NaN unless there are both.

    From the ranks (Mann and Whitney 1947), for all columns at once.
    """
    known = np.isfinite(shown)
    ranks, showing = rankdata(scores_nc[known], axis=0), shown[known] == 1
    n, n_not = showing.sum(), (~showing).sum()
    if not n or not n_not:
        return np.full(scores_nc.shape[1], np.nan)
    return (ranks[showing].sum(axis=0) - n * (n + 1) / 2) / (n * n_not)


def auc(score: np.ndarray, shown: np.ndarray) -> float:
    """`aucs` of one score, (N,)."""
    return float(aucs(score[:, None], shown)[0])


def rank_among(score: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(N,) the share of the reference scores that lie below each score: makes networks of several folds comparable."""
    return np.searchsorted(np.sort(reference), score) / len(reference)


def ranks_of_tested(ranks: Mapping[str, np.ndarray], shown: np.ndarray, test: np.ndarray) -> pd.DataFrame:
    """One row per detector and test patch that shows the concept or does not: detector, row, shown, rank.

    ranks: detector -> (len(test),) of the test patches, among the training patches, so that folds can be pooled; see
    `rank_among`. shown: (N,) of all patches, 1, 0 or NaN.
    """
    known = np.isfinite(shown[test])
    rows = test[known]
    return pd.concat(
        pd.DataFrame({"detector": name, "row": rows, "shown": shown[rows], "rank": rank[known]})
        for name, rank in ranks.items()
    )


@dataclass(frozen=True)
class Detected(Estimate):
    """AUC of the mean over seeds, and of each seed alone; None where it is not defined."""

    by_seed: Sequence[float | None] = ()


def aucs_by_concept(ranks: pd.DataFrame, *, rng: np.random.Generator) -> dict[str, dict[str, Detected]]:
    """concept -> detector -> AUC of the mean rank over seeds, and of each seed.

    ranks: columns concept, detector, seed, row, subject, shown, rank, as of `ranks_of_tested`.
    """
    detected: dict[str, dict[str, Detected]] = {}
    for (concept, detector), group in ranks.groupby(["concept", "detector"], sort=False):
        patches = group.groupby("row").agg({"rank": "mean", "shown": "first", "subject": "first"})
        estimate = auc_interval(patches["rank"].to_numpy(), patches["shown"].to_numpy(), patches["subject"], rng=rng)
        seeds = (of_seed for _, of_seed in group.groupby("seed"))
        areas = [auc(of_seed["rank"].to_numpy(), of_seed["shown"].to_numpy()) for of_seed in seeds]
        defined = [area if np.isfinite(area) else None for area in areas]
        detected.setdefault(concept, {})[detector] = Detected(estimate.value, estimate.ci, by_seed=defined)
    return detected


def auc_interval(
    score: np.ndarray, shown: np.ndarray, subjects: Sequence[str], *, rng: np.random.Generator, draws: int = 500
) -> Estimate:
    """AUC and its 95 % bootstrap interval over subjects, drawn whole; None where undefined.

    Draws in which all patches show the concept, or none does, are drawn again, up to five times as often. Below three
    subjects there is no interval; where every pair is ordered rightly it is that of `perfect`.
    """
    value, drawn = _drawn_aucs(score, shown, subjects, rng=rng, draws=draws)
    limits = perfect(len(np.unique(subjects))) if value == 1 and len(drawn) else _limits(drawn)
    return Estimate(value if np.isfinite(value) else None, limits)


def auc_difference(
    of: np.ndarray, less: np.ndarray, shown: np.ndarray, subjects: Sequence[str], *, seed: int, draws: int = 500
) -> Estimate:
    """AUC of one score less that of another, (N,) of the same patches: both on the same draws, see `auc_interval`."""
    (value_of, drawn_of), (value_less, drawn_less) = (
        _drawn_aucs(score, shown, subjects, rng=np.random.default_rng(seed), draws=draws) for score in (of, less)
    )
    gap = value_of - value_less
    return Estimate(gap if np.isfinite(gap) else None, _limits(drawn_of - drawn_less))


def perfect(n: int) -> tuple[float, float]:
    """Exact 95 % interval (Clopper and Pearson 1934) where all n people are right, in whose draws nothing differs."""
    interval = binomtest(n, n).proportion_ci(confidence_level=0.95, method="exact")
    return float(interval.low), float(interval.high)


def _limits(drawn: np.ndarray) -> tuple[float, float] | None:
    """95 % of the draws; None where there are none, or where they do not differ."""
    return tuple(np.percentile(drawn, [2.5, 97.5]).tolist()) if len(drawn) and np.ptp(drawn) else None


def _drawn_aucs(
    score: np.ndarray, shown: np.ndarray, subjects: Sequence[str], *, rng: np.random.Generator, draws: int
) -> tuple[float, np.ndarray]:
    """The AUC, and those of draws of subjects; none where there can be no interval."""
    value = auc(score, shown)
    names, owner = np.unique(np.asarray(subjects), return_inverse=True)
    if not np.isfinite(value) or len(names) < LEAST_SUBJECTS:
        return value, np.array([])
    # AUC is the share of pairs, one patch of each kind, that the score orders rightly: counted by pair of subjects
    # once, a draw of subjects only weighs them.
    with_it, without = (np.flatnonzero(shown == kind) for kind in (1, 0))
    right = (np.sign(score[with_it][:, None] - score[without]) + 1) / 2
    of = np.eye(len(names))[owner]
    pairs, sizes_with, sizes_without = of[with_it].T @ right @ of[without], of[with_it].sum(0), of[without].sum(0)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=5 * draws)
    n_pairs = (times @ sizes_with) * (times @ sizes_without)
    both = np.flatnonzero(n_pairs)[:draws]
    if len(both) < draws:
        return value, np.array([])
    return value, ((times[both] @ pairs) * times[both]).sum(1) / n_pairs[both]


def cosines(vectors: pd.DataFrame) -> pd.DataFrame:
    """Cosine between each two rows, a square table under their names."""
    unit = vectors.to_numpy() / np.linalg.norm(vectors.to_numpy(), axis=1, keepdims=True)
    return pd.DataFrame(unit @ unit.T, index=vectors.index, columns=vectors.index)


def contrast(units_nc: np.ndarray, groups: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """d_ij: the mean cosine between patches of each two groups. units_nc: (N, C); groups: name -> row numbers."""
    cosine = cosines(pd.DataFrame(units_nc)).to_numpy()
    means = [
        [cosine[np.ix_(a, b)].mean() if len(a) and len(b) else np.nan for b in groups.values()] for a in groups.values()
    ]
    return pd.DataFrame(means, index=list(groups), columns=list(groups))


def separability(units_nc: np.ndarray, groups: Mapping[str, np.ndarray]) -> float:
    """Mean over pairs of groups of `|d_ij| / sqrt(|d_ii d_jj|)` (Chen 2020): 0 if they share no direction, 1 if all.

    The sign of d_ij is lost, see `contrast`; a group without rows is left out.
    """
    d = contrast(units_nc, groups).abs().to_numpy()
    within = np.sqrt(np.outer(np.diag(d), np.diag(d)))
    pairs = ~np.eye(len(d), dtype=bool) & np.isfinite(d)
    return float((d / within)[pairs].mean()) if pairs.any() else np.nan
