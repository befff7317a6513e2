"""Whether to believe a saliency map: measures against the phantom's truth, against the network, and against no network.

Maps are (N, h, w), not negative, of any resolution; masks and fibre numbers are at the resolution of the section.
A score that is undefined (an empty map, a patch without a deficient fibre) is NaN: it is left out and counted.
Intervals resample subjects, not patches: patches of one subject are no independent witnesses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve
from scipy.special import expit
from scipy.stats import spearmanr
from skimage.filters import sobel
from skimage.measure import block_reduce
from skimage.metrics import structural_similarity
from skimage.transform import resize
from sklearn.metrics import average_precision_score

from mitolib.cohort import read_truth
from mitolib.metrics import Estimate, interval

MOSAIC = (0.05, 0.95)  # share of deficient fibres between which a section has something to point at
TOP = 0.05  # of the pixels; IAIA-BL's activation precision
CELL = 4  # px of the 224: patches are altered in cells, one solves for 56 x 56 unknowns instead of 224 x 224
NOISE = 0.01  # of the range 0-255, on imputed pixels, as in ROAD
LEAST_AREA_PX = 400  # of a fibre inside the patch, at the section's resolution: a seventh of the median fibre
LEAST_FIBRES = 4  # fewer give no ranking
SHARES = (0, 0.15, 0.4, 1)  # of a patch that is deficient: ends of the bands of `by_stratum`
LOCALISATION = ("pointing", "mass_over_area", "rank", "auprc", "top5")

Evidence = Callable[[np.ndarray], np.ndarray]  # patches uint8 (N, H, W, C) -> (N,) log odds of "patient"


# ---- maps


def enlarge(maps_nhw: np.ndarray, size_px: int) -> np.ndarray:
    """(N, size_px, size_px), bilinear between the centres of the cells, never outside the range of the map."""
    return np.stack([resize(one, (size_px, size_px), order=1, mode="edge", anti_aliasing=False) for one in maps_nhw])


def unit(maps_nhw: np.ndarray) -> np.ndarray:
    """Each map stretched to 0-1, for display and for SSIM only; a constant map becomes 0."""
    low, high = (f(maps_nhw, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return (maps_nhw - low) / np.where(high > low, high - low, 1)


def similarity(a_nhw: np.ndarray, b_nhw: np.ndarray) -> pd.DataFrame:
    """How alike the i-th maps of two stacks are: columns ssim (of the stretched maps) and spearman, one row per map.

    NaN where one of the two is constant: an empty map is like nothing. Measures of Adebayo et al. 2018,
    arXiv:1810.03292; SSIM of Wang et al. 2004, doi:10.1109/TIP.2003.819861, in windows of 7 cells.
    """
    rows = []
    for a, b, a01, b01 in zip(a_nhw, b_nhw, unit(a_nhw), unit(b_nhw), strict=True):
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            rows.append((np.nan, np.nan))
        else:
            ssim = structural_similarity(a01, b01, data_range=1.0)
            rows.append((ssim, spearmanr(a.ravel(), b.ravel()).statistic))
    return pd.DataFrame(rows, columns=["ssim", "spearman"])


def different_patches(maps_nhw: np.ndarray) -> pd.DataFrame:
    """`similarity` of each map to that of the next patch, what any two maps have in common; NaN for a single map."""
    found = similarity(maps_nhw, np.roll(maps_nhw, 1, axis=0))
    return found if len(maps_nhw) > 1 else found.mask(found.notna())


# ---- maps that know no network


def _grey(patches_nhwc: np.ndarray) -> np.ndarray:
    """(N, H, W) 0-1: mean of the channels."""
    return patches_nhwc.mean(axis=-1) / 255


def _random(patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray, rng: Generator) -> np.ndarray:
    return rng.random(patches_nhwc.shape[:3])


def _centre(patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray, rng: Generator) -> np.ndarray:
    n, height, width = patches_nhwc.shape[:3]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.broadcast_to(np.exp(-2 * (y**2 + x**2)), (n, height, width))


def _sobel(patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray, rng: Generator) -> np.ndarray:
    return np.stack([sobel(grey_yx) for grey_yx in _grey(patches_nhwc)])


def _intensity(patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray, rng: Generator) -> np.ndarray:
    return _grey(patches_nhwc)


def _marker(patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray, rng: Generator) -> np.ndarray:
    """Share of VDAC1 in VDAC1 + NDUFB8, smoothed over a third of a fibre, 0 where neither is seen."""
    ndufb8, vdac1 = (gaussian_filter(ndufb8_vdac1[..., i] / 255, (0, 3, 3)) for i in (0, 1))
    return vdac1 / (vdac1 + ndufb8 + 0.05)


# name -> (patches uint8 (N, H, W, C), NDUFB8 and VDAC1 of them uint8 (N, H, W, 2), rng) -> maps (N, H, W)
BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, Generator], np.ndarray]] = {
    "random": _random,
    "centre": _centre,
    "Sobel": _sobel,
    "intensity": _intensity,
    "marker": _marker,
}


def without_network(
    patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray | None, *, rng: Generator
) -> dict[str, np.ndarray]:
    """The map of each of BASELINES, (N, H, W); without NDUFB8 and VDAC1 there is none of the marker."""
    names = [name for name in BASELINES if name != "marker" or ndufb8_vdac1 is not None]
    return {name: BASELINES[name](patches_nhwc, ndufb8_vdac1, rng) for name in names}


# ---- truth


def truth_windows(root: str | Path, table: pd.DataFrame) -> tuple[np.ndarray, list[np.ndarray]]:
    """Fibre numbers (N, size, size) uint16 of each patch, and the numbers of its deficient fibres, largest first.

    A fibre counts as inside a patch if at least 400 px of it are. Data without truth give zeros and empty lists:
    every score against truth is then undefined, left out and counted.
    """
    size = int(table["size"].iloc[0])
    labels_nyx, deficient = np.zeros((len(table), size, size), np.uint16), []
    for i, row in enumerate(table.itertuples()):
        fibres: np.ndarray = np.array([], int)
        if truth := read_truth(root, row.section):
            section_yx, classes = truth
            labels_nyx[i] = section_yx[row.y : row.y + size, row.x : row.x + size]
            area = np.bincount(labels_nyx[i].ravel(), minlength=section_yx.max() + 1)
            sick = classes.index[classes != "none"].to_numpy()
            sick = sick[area[sick] >= LEAST_AREA_PX]
            fibres = sick[np.argsort(-area[sick], kind="stable")]
        deficient.append(fibres)
    return labels_nyx, deficient


def mosaic(root: str | Path, sections: Sequence[str]) -> list[str]:
    """Those sections of which 5 to 95 % of the fibres are deficient; all of them where the data come without truth."""
    found = []
    for section in sections:
        truth = read_truth(root, section)
        if truth is None or MOSAIC[0] <= (truth[1] != "none").mean() <= MOSAIC[1]:
            found.append(section)
    return found


def masks(labels_nyx: np.ndarray, deficient: Sequence[np.ndarray]) -> np.ndarray:
    """(N, H, W) bool: the pixels of the deficient fibres of each patch."""
    return np.stack([np.isin(one, fibres) for one, fibres in zip(labels_nyx, deficient, strict=True)])


def spread(table: pd.DataFrame, n: int, *, seed: int) -> pd.DataFrame:
    """At most n rows, in random order, taken in turn from each subject so that none outweighs the others."""
    shuffled = table.sample(frac=1, random_state=seed)
    turn = shuffled.groupby("subject").cumcount()
    return shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")[:n]]


# ---- do maps find the deficient fibres?


def localise(maps_nhw: np.ndarray, masks_nyx: np.ndarray, size_px: int = 224) -> pd.DataFrame:
    """One row per patch and a column for each of LOCALISATION, at size_px x size_px.

    pointing: is the greatest value inside the mask (Zhang et al. 2018, doi:10.1007/s11263-017-1059-x)?
    mass_over_area: share of the map's mass inside, divided by the mask's share of the area; by chance 1.
    rank: share inside among the K highest pixels, K the mask's size (both: Arras et al. 2022,
    doi:10.1016/j.inffus.2021.11.008). auprc: average precision. top5: share inside among the highest 5 %.
    Ties are broken at random, in expectation, so that a constant map scores what chance does; a map of
    zeros has no mass, and a mask that is empty or full has no inside or outside: NaN.
    """
    maps_nhw = np.asarray(maps_nhw, float)
    if not np.isfinite(maps_nhw).all() or (maps_nhw < 0).any():
        raise ValueError("a map has values below 0 or not finite; wanted evidence for a class, as METHODS give it.")
    rows = [
        _localise(one, mask) for one, mask in zip(enlarge(maps_nhw, size_px), shrink(masks_nyx, size_px), strict=True)
    ]
    return pd.DataFrame(rows, columns=list(LOCALISATION))


def shrink(masks_nyx: np.ndarray, size_px: int) -> np.ndarray:
    """(N, size_px, size_px) bool: where at least half of the area is inside."""
    return np.stack([_soft(mask, size_px) >= 0.5 for mask in masks_nyx])


def _soft(mask_yx: np.ndarray, size_px: int) -> np.ndarray:
    """(size_px, size_px) 0-1: share of the area inside, with the very kernel that resizes patches."""
    picture = Image.fromarray(mask_yx.astype(np.float32))
    return np.asarray(picture.resize((size_px, size_px), Image.Resampling.BILINEAR))


def _localise(map_yx: np.ndarray, mask_yx: np.ndarray) -> tuple[float, ...]:
    if not mask_yx.any() or mask_yx.all():
        return (np.nan,) * len(LOCALISATION)
    total = map_yx.sum()
    mass = map_yx[mask_yx].sum() / total / mask_yx.mean() if total > 0 else np.nan
    return (
        top_share(map_yx, mask_yx, 1),
        mass,
        top_share(map_yx, mask_yx, int(mask_yx.sum())),
        float(average_precision_score(mask_yx.ravel(), map_yx.ravel())),
        top_share(map_yx, mask_yx, max(1, round(TOP * mask_yx.size))),
    )


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
    for model, score in scores.items():
        part = pd.DataFrame({"model": model, "score": score})
        part["share"] = masks[model].mean(axis=(1, 2))
        part["size"] = masks[model].sum(axis=(1, 2))
        part["size"] /= [max(len(fibres), 1) for fibres in deficient[model]]
        parts.append(part)
    found = pd.concat(parts, ignore_index=True).dropna().sort_values("size")
    found["model"] = pd.Categorical(found["model"], list(scores))  # one order of colours
    found["by share"] = pd.cut(found["share"], SHARES, labels=["under 15 %", "15 to 40 %", "over 40 %"])
    found["by size"] = np.where(found["size"] > found["size"].median(), "larger half", "smaller half")
    return found


def top_share(map_yx: np.ndarray, mask_yx: np.ndarray, k: int) -> float:
    """Share of the k highest pixels that lie inside the mask; of tied pixels at the threshold, the expected share."""
    threshold = np.partition(map_yx, -k, axis=None)[-k]
    above, tied = map_yx > threshold, map_yx == threshold
    return float((mask_yx[above].sum() + (k - above.sum()) * mask_yx[tied].mean()) / k)


# ---- does the network react?


def impute(patch_yxc: np.ndarray, missing_yx: np.ndarray, *, rng: Generator) -> np.ndarray:
    """The patch, uint8, with the cells of `missing_yx` (H / 4, W / 4, bool) filled from around them.

    As ROAD does (Rong et al. 2022, arXiv:2202.00449): each missing cell is the weighted mean of its neighbours, the
    four beside it twice as heavy as the four across, plus a little noise. No black squares, which a network has
    never seen. ROAD solves for pixels, here one solves for cells of 4 x 4. If all is missing, noise around the mean.
    """
    coarse_yxc = block_reduce(patch_yxc.astype(float), (CELL, CELL, 1), np.mean)
    known = ~missing_yx
    if not known.any():
        coarse_yxc[:] = coarse_yxc.mean(axis=(0, 1))
    elif missing_yx.any():
        coarse_yxc[missing_yx] = _harmonic(coarse_yxc, missing_yx)
    filled = resize(coarse_yxc, patch_yxc.shape, order=1, mode="edge", anti_aliasing=False)
    filled += rng.normal(0, 255 * NOISE, filled.shape)
    inside = np.kron(missing_yx, np.ones((CELL, CELL), bool))[..., None]
    return np.where(inside, filled.clip(0, 255), patch_yxc).astype(np.uint8)


def _harmonic(coarse_yxc: np.ndarray, missing_yx: np.ndarray) -> np.ndarray:
    """(n missing, C) values that are the weighted means of their neighbours."""
    height, width = missing_yx.shape
    number = np.full(missing_yx.shape, -1)
    number[missing_yx] = np.arange(missing_yx.sum())
    y, x = np.nonzero(missing_yx)
    rows, columns, entries = [], [], []
    right, total = np.zeros((len(y), coarse_yxc.shape[-1])), np.zeros(len(y))
    for dy, dx in [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]:
        weight = 1 / 6 if 0 in (dy, dx) else 1 / 12
        ny, nx = y + dy, x + dx
        i = np.flatnonzero((ny >= 0) & (ny < height) & (nx >= 0) & (nx < width))
        ny, nx = ny[i], nx[i]
        total[i] += weight
        unknown = missing_yx[ny, nx]
        (
            rows.append(i[unknown]),
            columns.append(number[ny, nx][unknown]),
            entries.append(np.full(unknown.sum(), -weight)),
        )
        right[i[~unknown]] += weight * coarse_yxc[ny, nx][~unknown]
    every = np.arange(len(y))
    rows, columns, entries = (
        np.concatenate([*parts, last]) for parts, last in ((rows, every), (columns, every), (entries, total))
    )
    return spsolve(coo_array((entries, (rows, columns))).tocsc(), right).reshape(right.shape)


def remove(
    evidence: Evidence, patches_nhwc: np.ndarray, maps_nhw: np.ndarray, *, shares: Sequence[float], rng: Generator
) -> pd.DataFrame:
    """Columns deletion and insertion, one row per patch: p(patient), mean over `shares` of the cells.

    deletion: with that share of the cells imputed, highest first; low means that the map names what counts.
    insertion: with nothing but that share left; high means the same (Petsiuk et al. 2018, arXiv:1806.07421).
    """
    rows = []
    for patch, one in zip(patches_nhwc, maps_nhw, strict=True):
        cells = enlarge(one[None], patch.shape[0] // CELL)[0]
        order = np.lexsort((rng.random(cells.size), -cells.ravel()))  # ties in random order
        rank = np.empty(cells.size, int)
        rank[order] = np.arange(cells.size)
        rank = rank.reshape(cells.shape)
        missing = [rank < share * cells.size for share in shares] + [rank >= share * cells.size for share in shares]
        p = expit(evidence(np.stack([impute(patch, gone, rng=rng) for gone in missing])))
        rows.append((p[: len(shares)].mean(), p[len(shares) :].mean()))
    return pd.DataFrame(rows, columns=["deletion", "insertion"])


def restore(
    evidence: Evidence,
    patches_nhwc: np.ndarray,
    twins_nhwc: np.ndarray,
    labels_nyx: np.ndarray,
    deficient: Sequence[np.ndarray],
    *,
    most: int,
) -> pd.DataFrame:
    """What each deficient fibre does to the network: columns patch, fibre, effect, one row per fibre.

    One fibre at a time gets the pixels of the cured twin, the `most` largest of a patch. effect is by how much the log
    odds of "patient" fall: within a patch it ranks fibres as the fall of p(patient) does, without rounding at 0 and 1.
    """
    rows = []
    for i, (patch, twin) in enumerate(zip(patches_nhwc, twins_nhwc, strict=True)):
        fibres = deficient[i][:most]
        if len(fibres):
            soft = np.stack([_soft(labels_nyx[i] == fibre, patch.shape[0]) for fibre in fibres])[..., None]
            cured = np.rint(patch + soft * (twin.astype(float) - patch)).astype(np.uint8)
            before, *after = evidence(np.concatenate([patch[None], cured]))
            rows += [(i, fibre, before - one) for fibre, one in zip(fibres, after, strict=True)]
    return pd.DataFrame(rows, columns=["patch", "fibre", "effect"])


def relevance(maps_nhw: np.ndarray, labels_nyx: np.ndarray, fibres: pd.DataFrame) -> np.ndarray:
    """(len(fibres),) mean of the map over each fibre of `restore`'s table, at the resolution of the section."""
    large = {i: enlarge(maps_nhw[[i]], labels_nyx.shape[1])[0] for i in fibres["patch"].unique()}
    return np.array([large[row.patch][labels_nyx[row.patch] == row.fibre].mean() for row in fibres.itertuples()])


def causal_rank(maps_nhw: np.ndarray, labels_nyx: np.ndarray, fibres: pd.DataFrame) -> np.ndarray:
    """(N,) Spearman correlation, patch by patch, of the fibres' relevance in the map with their effect.

    NaN with fewer than four fibres, and where map or effect is the same for all.
    """
    rho = np.full(len(maps_nhw), np.nan)
    shown = fibres.assign(relevance=relevance(maps_nhw, labels_nyx, fibres))
    for i, group in shown.groupby("patch"):
        if len(group) >= LEAST_FIBRES and group["relevance"].nunique() > 1 and group["effect"].nunique() > 1:
            rho[i] = spearmanr(group["relevance"], group["effect"]).statistic
    return rho


# ---- numbers for the record


def summarise(scores: pd.DataFrame, *, rng: Generator) -> dict[str, dict[str, dict[str, dict]]]:
    """The `methods` entry of the record: model -> method -> score -> `metrics.interval`.

    scores: indexed by model, method, patch; a column `subject`, every other column a score.
    """
    names = [name for name in scores.columns if name != "subject"]
    summary: dict = {}
    for (model, method), group in scores.groupby(level=["model", "method"], sort=False):
        entry = {name: interval(group[name], group["subject"], rng=rng) for name in names}
        summary.setdefault(model, {})[method] = entry
    return summary


def one_score(methods: Mapping[str, Mapping[str, Mapping[str, Estimate]]], name: str) -> dict[str, dict[str, Estimate]]:
    """model -> method -> the score `name` of what `summarise` gave."""
    return {
        model: {method: scores[name] for method, scores in by_method.items()} for model, by_method in methods.items()
    }


def verdicts(methods: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> pd.DataFrame:
    """One row per model and method, the answer to four questions: yes, no, or "open" where the interval spans both.

    A question whose score nothing has, as on data without truth, has no column.

    follows the weights: no more alike to the map of the randomised network than maps of different patches are.
    finds deficient fibres: mass inside over area above 1 and above what the map of random numbers reached in this
    very sample, and above Sobel and intensity. network reacts: p(patient) falls further than under removal at random.
    ranks fibres: correlation with the causal ranking above 0. The random map is the yardstick and gets no verdict.
    """
    rows = {}
    for model, by_method in methods.items():
        for method, scores in by_method.items():
            if method == "random":
                continue
            alike, others = scores["randomisation_ssim"].value, scores["different_patches_ssim"].value
            answers = {
                "follows the weights": "-" if alike is None or others is None else "yes" if alike <= others else "no"
            }
            if "mass_over_area" in scores:
                answers["finds deficient fibres"] = _finds(method, by_method)
            answers["network reacts"] = _above(scores["deletion_minus_random"], 0, sign=-1)
            if "causal_rank_correlation" in scores:
                answers["ranks fibres as they act"] = _above(scores["causal_rank_correlation"], 0)
            rows[model, method] = answers
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["model", "method"])


def _finds(method: str, by_method: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Whether a map finds deficient fibres, and not only what edges or brightness find."""
    own = by_method[method]["mass_over_area"]
    random = by_method.get("random", {}).get("mass_over_area", Estimate(None))
    answer = _above(own, max([1, *(random.ci or [])]))
    rivals = [by_method[name]["mass_over_area"].value for name in ("Sobel", "intensity") if name in by_method]
    beaten = answer == "yes" and any(rival is not None and rival >= own.value for rival in rivals)
    return "no more than an edge or brightness map" if beaten and method not in BASELINES else answer


def _above(score: Estimate, level: float, sign: int = 1) -> str:
    if score.value is None:
        return "-"
    if score.ci is None:
        return "open"
    low, high = sorted(sign * (end - level) for end in score.ci)
    return "yes" if low > 0 else "no" if high <= 0 else "open"
