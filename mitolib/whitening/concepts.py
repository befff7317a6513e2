"""Concepts of patches: how much of each a patch holds, which patches show it, and how well a score tells them apart.

A concept is something that a person can point at: deficient fibres, large fibres, little tissue. On the phantom most
follow from the truth, on any data some follow from `cohort.csv` and from the pictures, and a reader can bring folders
of pictures that show a concept. A table of concepts has one row per patch, in the order of the patch table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import rankdata
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mitolib import linear
from mitolib.cohort import Section, read_fibres
from mitolib.images import PICTURES, CohortError
from mitolib.metrics import LEAST_SUBJECTS, Estimate

MOST, LEAST = 0.8, 0.5  # quantiles of the training patches: a concept is present from the first, absent to the second
RAISED = 0.95  # quantile of the controls' fibres above which a fibre's SDHA for its VDAC1 counts as raised
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
    found = pd.DataFrame(index=table.index)
    fibres = read_fibres(root)
    if fibres is not None:
        found = pd.concat([found, _of_fibres(fibres, table)], axis=1)
    found["sparse tissue"] = 1 - table["tissue"]
    return pd.concat([found, _of_subjects(sections, table)], axis=1)


def _of_fibres(fibres: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    control = fibres["section"].isin(table["section"][table["label"] == "control"])
    excess = np.log(fibres["SDHA"] / fibres["VDAC1"])
    told = {name: fibres["deficiency"].isin(classes) for name, classes in COMPLEXES.items()}
    told["SDHA raised"] = excess > excess[control].quantile(RAISED)
    fibres = fibres.assign(**told)
    rows = []
    for patch in table.itertuples():
        y, x = fibres["y"] - patch.y, fibres["x"] - patch.x
        inside = (
            (fibres["section"] == patch.section) & y.between(0, patch.size, "left") & x.between(0, patch.size, "left")
        )
        here = fibres[inside]
        shares = here[list(told)].mean().to_dict()
        rows.append(shares | {"much VDAC1": here["VDAC1"].mean(), "large fibres": here["area_px"].median()})
    return pd.DataFrame(rows, index=table.index)


def _of_subjects(sections: Sequence[Section], table: pd.DataFrame) -> pd.DataFrame:
    """A column of 1 and 0 for each value of a metadata column that enough subjects share."""
    people = pd.DataFrame([{"subject": s.subject, "label": s.label} | dict(s.metadata) for s in sections])
    people = people.drop_duplicates("subject").set_index("subject")
    found = {}
    for column in people.columns.drop("label"):
        for value, group in people.groupby(column):
            has_it = people[column] == value
            is_a_class = any(has_it.equals(people["label"] == label) for label in people["label"].unique())
            if value and len(group) >= LEAST_SHARING and not is_a_class:
                found[f"{column} {value}"] = table["subject"].map(has_it).astype(float)
    return pd.DataFrame(found, index=table.index)


def show(measures: pd.DataFrame, training: np.ndarray) -> pd.DataFrame:
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


def rows_of(shown: pd.DataFrame, rows: np.ndarray, *, least: int) -> dict[str, np.ndarray]:
    """concept -> the row numbers, out of `rows`, of the patches to align its axis with.

    No patch serves two concepts, since it would pull two orthogonal axes: the concept that fewest patches show
    chooses first. Concepts left with fewer than `least` patches, or without a patch that lacks them, are left out; of
    data without truth and metadata that may be all of them.
    """
    here = shown.iloc[rows]
    taken = np.zeros(len(rows), bool)
    chosen = {}
    for name in (here == 1).sum().sort_values(kind="stable").index:
        own = (here[name] == 1).to_numpy() & ~taken
        if own.sum() >= least and (here[name] == 0).any():
            chosen[name] = rows[own]
            taken |= own
    return {name: chosen[name] for name in shown.columns if name in chosen}


def first_two(concepts: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """The first two of `rows_of` that are not all of `rows` together, which would make them opposites; else nothing."""
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


# How well a score tells the patches that show a concept.


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
    both = {"LDA": lda, "probe": probe}
    fitted = {name: linear.fitted(model, units_nc[known], shown[known]) for name, model in both.items()}
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


def ranked(score: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(N,) the share of the reference scores that lie below each score: makes networks of several folds comparable."""
    return np.searchsorted(np.sort(reference), score) / len(reference)


def tested(scores: Mapping[str, np.ndarray], shown: np.ndarray, train: np.ndarray, test: np.ndarray) -> pd.DataFrame:
    """One row per detector and test patch that shows the concept or does not: detector, row, shown, rank.

    scores: detector -> (N,) score of all patches. rank: among the training patches, so that folds can be pooled.
    """
    known = test[np.isfinite(shown[test])]
    return pd.concat(
        pd.DataFrame(
            {"detector": name, "row": known, "shown": shown[known], "rank": ranked(score[known], score[train])}
        )
        for name, score in scores.items()
    )


@dataclass(frozen=True)
class Detected(Estimate):
    """AUC of the mean over seeds, and of each seed alone; None where it is not defined."""

    by_seed: Sequence[float | None] = ()


def summarise(ranks: pd.DataFrame, *, rng: np.random.Generator) -> dict[str, dict[str, Detected]]:
    """concept -> detector -> AUC of the mean rank over seeds, and of each seed.

    ranks: columns concept, detector, seed, row, subject, shown, rank, as of `tested`.
    """
    found: dict[str, dict[str, Detected]] = {}
    for (concept, detector), group in ranks.groupby(["concept", "detector"], sort=False):
        patches = group.groupby("row").agg({"rank": "mean", "shown": "first", "subject": "first"})
        estimate = auc_interval(patches["rank"].to_numpy(), patches["shown"].to_numpy(), patches["subject"], rng=rng)
        by_seed = [auc(one["rank"].to_numpy(), one["shown"].to_numpy()) for _, one in group.groupby("seed")]
        defined = [one if np.isfinite(one) else None for one in by_seed]
        found.setdefault(concept, {})[detector] = Detected(estimate.value, estimate.ci, by_seed=defined)
    return found


def auc_interval(
    score: np.ndarray, shown: np.ndarray, subjects: Sequence[str], *, rng: np.random.Generator, draws: int = 500
) -> Estimate:
    """AUC and its 95 % bootstrap interval over subjects, drawn whole; None where undefined.

    Draws in which all patches show the concept, or none does, are drawn again, up to five times as often. Below three
    subjects there is no interval.
    """
    value = auc(score, shown)
    names, owner = np.unique(np.asarray(subjects), return_inverse=True)
    if not np.isfinite(value):
        return Estimate(None)
    if len(names) < LEAST_SUBJECTS:
        return Estimate(value)
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
        return Estimate(value)
    drawn = ((times[both] @ pairs) * times[both]).sum(1) / n_pairs[both]
    return Estimate(value, tuple(np.percentile(drawn, [2.5, 97.5]).tolist()))


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
    own = np.sqrt(np.outer(np.diag(d), np.diag(d)))
    pairs = ~np.eye(len(d), dtype=bool) & np.isfinite(d)
    return float((d / own)[pairs].mean()) if pairs.any() else np.nan
