"""Do maps find the deficient fibres? Scores of maps against the truth of the phantom.

A score that is undefined (an empty map, a patch without a deficient fibre) is NaN: it is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from mitolib.saliency.maps import enlarge, shrink
from mitolib.saliency.network import Network, by_patch
from mitolib.saliency.truth import HeldOutPatches

TOP = 0.05  # of the pixels; IAIA-BL's activation precision
SHARES = (0, 0.15, 0.4, 1)  # of a patch that is deficient: ends of the bands of `by_stratum`
SCORES = ("pointing", "mass_over_area", "rank", "auprc", "top5")


@dataclass(frozen=True)
class Localisation:
    """How well the maps of every network find the deficient fibres."""

    scores: pd.DataFrame  # index model, method, patch; a column for each of SCORES, none without truth
    strata: pd.DataFrame | None  # AUPRC of Grad-CAM less chance, see `by_stratum`; None without truth

    @property
    def left_out(self) -> str:
        """Why there are no scores; "" where there are."""
        return "Left out: these data come without truth." if self.strata is None else ""

    @property
    def strata_record(self) -> dict[str, dict[str, dict[str, float]]] | None:
        """The `strata` entry of the record: share or size -> model -> stratum -> mean score."""
        if self.strata is None:
            return None
        record = {}
        for by in ("share", "size"):
            mean = self.strata.groupby(["model", f"by {by}"], observed=True)["score"].mean()
            record[by] = mean.unstack(0).to_dict()
        return record


def localise(
    tables: Mapping[str, Mapping[str, pd.DataFrame]],
    networks: Mapping[str, Network],
    tested: Mapping[str, HeldOutPatches],
) -> Localisation:
    """Bring together how well the maps of all networks and methods find the deficient fibres.

    tables: model -> method -> what `score` gives, or on data without truth a table without columns. networks: those
    whose Grad-CAM is shown by stratum. tested: by the name of the experiment.
    """
    scores = by_patch(tables)
    if scores.columns.empty:
        return Localisation(scores, None)
    held_out = {name: tested[network.experiment.name] for name, network in networks.items()}
    strata = by_stratum(
        {name: (tables[name]["Grad-CAM"] - tables[name]["random"])["auprc"].to_numpy() for name in held_out},
        {name: patches.masks_nyx for name, patches in held_out.items()},
        {name: patches.deficient for name, patches in held_out.items()},
    )
    return Localisation(scores, strata)


def score(maps_nhw: np.ndarray, masks_nyx: np.ndarray, size_px: int = 224) -> pd.DataFrame:
    """One row per patch and a column for each of SCORES, at size_px x size_px.

    pointing: is the greatest value inside the mask (Zhang et al. 2018, doi:10.1007/s11263-017-1059-x)?
    mass_over_area: share of the map's mass inside, divided by the mask's share of the area; by chance 1.
    rank: share inside among the K highest pixels, K the mask's size (both: Arras et al. 2022,
    doi:10.1016/j.inffus.2021.11.008). auprc: average precision. top5: share inside among the highest 5 %.
    Ties are broken at random, in expectation, so that a constant map scores what chance does; a map of
    zeros has no mass, and a mask that is empty or full has no inside or outside: NaN.
    Raises ValueError for maps with values below 0 or not finite.
    """
    maps_nhw = np.asarray(maps_nhw, float)
    if not np.isfinite(maps_nhw).all() or (maps_nhw < 0).any():
        raise ValueError("a map has values below 0 or not finite; wanted evidence for a class, as METHODS give it.")
    pairs = zip(enlarge(maps_nhw, size_px), shrink(masks_nyx, size_px), strict=True)
    return pd.DataFrame([_score(map_yx, mask_yx) for map_yx, mask_yx in pairs], columns=list(SCORES))


def _score(map_yx: np.ndarray, mask_yx: np.ndarray) -> tuple[float, ...]:
    if not mask_yx.any() or mask_yx.all():
        return (np.nan,) * len(SCORES)
    total = map_yx.sum()
    mass = map_yx[mask_yx].sum() / total / mask_yx.mean() if total > 0 else np.nan
    return (
        top_share(map_yx, mask_yx, 1),
        mass,
        top_share(map_yx, mask_yx, int(mask_yx.sum())),
        float(average_precision_score(mask_yx.ravel(), map_yx.ravel())),
        top_share(map_yx, mask_yx, max(1, round(TOP * mask_yx.size))),
    )


def top_share(map_yx: np.ndarray, mask_yx: np.ndarray, n: int) -> float:
    """Share of the n highest pixels that lie inside the mask; of tied pixels at the threshold, the expected share."""
    threshold = np.partition(map_yx, -n, axis=None)[-n]
    above, tied = map_yx > threshold, map_yx == threshold
    return float((mask_yx[above].sum() + (n - above.sum()) * mask_yx[tied].mean()) / n)


def by_stratum(
    scores: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    deficient: Mapping[str, Sequence[np.ndarray]],
) -> pd.DataFrame:
    """A row for each patch of each model whose score is defined: model, score, "by share" and "by size".

    By the share of the patch that its mask covers, in three bands, and by the mean size of its deficient fibres, in
    halves over all models' patches. Of each model: scores (N,), masks (N, H, W), and `deficient` as of `truth_windows`.
    """
    parts = []
    for model, values in scores.items():
        part = pd.DataFrame({"model": model, "score": values})
        part["share"] = masks[model].mean(axis=(1, 2))
        part["size"] = masks[model].sum(axis=(1, 2))
        part["size"] /= [max(len(fibres), 1) for fibres in deficient[model]]
        parts.append(part)
    table = pd.concat(parts, ignore_index=True).dropna().sort_values("size")
    table["model"] = pd.Categorical(table["model"], list(scores))  # one order of colours
    table["by share"] = pd.cut(table["share"], SHARES, labels=["under 15 %", "15 to 40 %", "over 40 %"])
    table["by size"] = np.where(table["size"] > table["size"].median(), "larger half", "smaller half")
    return table
