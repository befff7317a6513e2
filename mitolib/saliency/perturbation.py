"""Does the network react to what a map marks? Cells are removed, and single fibres are cured.

A correlation that is undefined (too few fibres, an empty map) is NaN: it is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve
from scipy.stats import spearmanr
from skimage.measure import block_reduce
from skimage.transform import resize

from mitolib.saliency.maps import area_inside, enlarge
from mitolib.saliency.methods import Evidence
from mitolib.saliency.truth import HeldOutPatches

CELL = 4  # px of the 224: patches are altered in cells, one solves for 56 x 56 unknowns instead of 224 x 224
NOISE = 0.01  # of the range 0-255, on imputed pixels, as in ROAD
LEAST_FIBRES = 4  # fewer give no ranking
REMOVAL = ["deletion", "insertion"]  # columns of `remove`
NO_TWIN = "Left out: these data have no cured twin."


@dataclass(frozen=True)
class RestoredPatch:
    """One patch, and what each of its deficient fibres is worth to a network."""

    patch_yx: np.ndarray  # (H, W) 0-255, NDUFB8
    fibres_yx: np.ndarray  # (size, size) fibre numbers at the resolution of the section
    effects: pd.DataFrame  # fibre, effect, and relevance: the mean of the Grad-CAM map over the fibre


@dataclass(frozen=True)
class Perturbation:
    """What happened to the networks' answers when patches were altered where maps say."""

    removal: Mapping[str, Mapping[str, pd.DataFrame]]  # model -> method -> deletion and insertion, minus a random map's
    effects: Mapping[str, pd.DataFrame]  # model -> of `restore`, and relevance: Grad-CAM's mean; empty without twins
    ranks: Mapping[str, Mapping[str, pd.Series]]  # model -> method -> see `causal_rank`; empty without twins

    @property
    def restoration_sentence(self) -> str:
        """How many fibres were restored for each network, or why none."""
        counts = [f"{len(effects)} for {model}" for model, effects in self.effects.items()]
        return f"Fibres restored: {', '.join(counts)}." if counts else NO_TWIN

    def restored_patch(self, model: str, held_out: HeldOutPatches) -> RestoredPatch:
        """The patch of which most fibres were restored, the first of several, with Grad-CAM of the network."""
        effects = self.effects[model]
        i = int(effects["patch"].mode().min())
        return RestoredPatch(
            held_out.ndufb8_vdac1[i, ..., 0], held_out.fibres_nyx[i], effects[effects["patch"] == i].assign(patch=0)
        )


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
        rows.append(i[unknown])
        columns.append(number[ny, nx][unknown])
        entries.append(np.full(unknown.sum(), -weight))
        right[i[~unknown]] += weight * coarse_yxc[ny, nx][~unknown]
    diagonal = np.arange(len(y))
    places = np.concatenate([*rows, diagonal]), np.concatenate([*columns, diagonal])
    matrix = coo_array((np.concatenate([*entries, total]), places))
    return spsolve(matrix.tocsc(), right).reshape(right.shape)


def remove(
    evidence: Evidence, patches_nhwc: np.ndarray, maps_nhw: np.ndarray, *, shares: Sequence[float], rng: Generator
) -> pd.DataFrame:
    """Columns deletion and insertion, one row per patch: log odds of "patient", mean over `shares` of the cells.

    Not p(patient), which stays at 0 or 1 where the network is sure, whatever is taken away.

    deletion: with that share of the cells imputed, highest first; low means that the map names what counts.
    insertion: with nothing but that share left; high means the same (Petsiuk et al. 2018, arXiv:1806.07421).
    """
    rows = []
    for patch_yxc, map_yx in zip(patches_nhwc, maps_nhw, strict=True):
        cells_yx = enlarge(map_yx[None], patch_yxc.shape[0] // CELL)[0]
        order = np.lexsort((rng.random(cells_yx.size), -cells_yx.ravel()))  # ties in random order
        rank = np.empty(cells_yx.size, int)
        rank[order] = np.arange(cells_yx.size)
        rank_yx = rank.reshape(cells_yx.shape)
        deleted = [rank_yx < share * cells_yx.size for share in shares]
        not_inserted = [rank_yx >= share * cells_yx.size for share in shares]
        altered = np.stack([impute(patch_yxc, missing_yx, rng=rng) for missing_yx in deleted + not_inserted])
        found = evidence(altered)
        rows.append((found[: len(shares)].mean(), found[len(shares) :].mean()))
    return pd.DataFrame(rows, columns=REMOVAL)


def restore(
    evidence: Evidence,
    patches_nhwc: np.ndarray,
    twins_nhwc: np.ndarray,
    fibres_nyx: np.ndarray,
    deficient: Sequence[np.ndarray],
    *,
    most: int,
) -> pd.DataFrame:
    """What each deficient fibre does to the network: columns patch, fibre, effect, one row per fibre.

    One fibre at a time gets the pixels of the cured twin, the `most` largest of a patch. twins_nhwc: in the stretch of
    the patches. effect is by how much the log odds of "patient" fall: within a patch it ranks fibres as the fall of
    p(patient) does, without rounding at 0 and 1.
    """
    rows = []
    for i, (patch_yxc, twin_yxc) in enumerate(zip(patches_nhwc, twins_nhwc, strict=True)):
        numbers = deficient[i][:most]
        if len(numbers):
            inside_nyx = np.stack([area_inside(fibres_nyx[i] == number, patch_yxc.shape[0]) for number in numbers])
            difference_yxc = twin_yxc.astype(float) - patch_yxc
            cured_nhwc = np.rint(patch_yxc + inside_nyx[..., None] * difference_yxc).astype(np.uint8)
            before, *after = evidence(np.concatenate([patch_yxc[None], cured_nhwc]))
            rows += [(i, number, before - cured) for number, cured in zip(numbers, after, strict=True)]
    return pd.DataFrame(rows, columns=["patch", "fibre", "effect"])


def fibres_to_restore(deficient: Sequence[np.ndarray], *, most: int) -> pd.DataFrame:
    """Columns patch and fibre, one row for each fibre that `restore` restores, in its order."""
    rows = [(i, number) for i, numbers in enumerate(deficient) for number in numbers[:most]]
    return pd.DataFrame(rows, columns=["patch", "fibre"])


def mean_over_fibres(maps_nhw: np.ndarray, fibres_nyx: np.ndarray, fibres: pd.DataFrame) -> np.ndarray:
    """(len(fibres),) mean of the map over each fibre of `fibres_to_restore`, at the resolution of the section."""
    large = {i: enlarge(maps_nhw[[i]], fibres_nyx.shape[1])[0] for i in fibres["patch"].unique()}
    return np.array([large[row.patch][fibres_nyx[row.patch] == row.fibre].mean() for row in fibres.itertuples()])


def causal_rank(effects: pd.DataFrame, n: int) -> np.ndarray:
    """(n,) Spearman correlation, patch by patch, of the fibres' relevance in the map with their effect.

    effects: columns patch, effect and relevance. NaN with fewer than four fibres, and where relevance or effect is the
    same for all.
    """
    rho = np.full(n, np.nan)
    for i, group in effects.groupby("patch"):
        if len(group) >= LEAST_FIBRES and group["relevance"].nunique() > 1 and group["effect"].nunique() > 1:
            rho[i] = spearmanr(group["relevance"], group["effect"]).statistic
    return rho
