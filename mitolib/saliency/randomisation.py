"""Do maps follow the network? They must change when its weights, or the labels it was taught, are random.

Measures of Adebayo et al. 2018, arXiv:1810.03292. Intervals resample subjects, not patches: patches of one subject are
no independent witnesses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from mitolib import patches
from mitolib.saliency.maps import unit
from mitolib.saliency.methods import Method, cascade, whole_head
from mitolib.saliency.network import CONTROL, PATIENT, Network
from mitolib.saliency.truth import HeldOutPatches

ALIKE = ["ssim", "spearman"]  # columns of `similarity`


def similarity(a_nhw: np.ndarray, b_nhw: np.ndarray) -> pd.DataFrame:
    """How alike the i-th maps of two stacks are: columns ssim (of the stretched maps) and spearman, one row per map.

    NaN where one of the two is constant: an empty map is like nothing. SSIM of Wang et al. 2004,
    doi:10.1109/TIP.2003.819861, in windows of 7 cells.
    """
    rows = []
    for a_yx, b_yx, a_unit_yx, b_unit_yx in zip(a_nhw, b_nhw, unit(a_nhw), unit(b_nhw), strict=True):
        if np.ptp(a_yx) == 0 or np.ptp(b_yx) == 0:
            rows.append((np.nan, np.nan))
        else:
            ssim = structural_similarity(a_unit_yx, b_unit_yx, data_range=1.0)
            rows.append((ssim, spearmanr(a_yx.ravel(), b_yx.ravel()).statistic))
    return pd.DataFrame(rows, columns=ALIKE)


def different_patches(maps_nhw: np.ndarray) -> pd.DataFrame:
    """`similarity` of each map to that of the next patch, what any two maps have in common; NaN for a single map."""
    alike = similarity(maps_nhw, np.roll(maps_nhw, 1, axis=0))
    return alike if len(maps_nhw) > 1 else alike.mask(alike.notna())


def mean_by_patch(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean of what is defined, patch by patch, over tables of one shape, a row per patch; NaN where nothing is."""
    return pd.concat(tables, keys=range(len(tables))).groupby(level=1).mean()


@dataclass(frozen=True)
class Randomisation:
    """How alike maps are to those of networks that know nothing, and to each other. A table has a row per patch."""

    by_seed: pd.DataFrame  # index seed, stage; columns ssim and spearman: Grad-CAM of VGG16, means over the patches
    alike: Mapping[str, Mapping[str, pd.DataFrame]]  # model -> method -> to a network drawn anew, mean over the seeds
    others: Mapping[str, Mapping[str, pd.DataFrame]]  # model -> method -> similarity of different patches' maps
    permuted: Mapping[str, pd.DataFrame]  # network taught permuted labels -> Grad-CAM against that of the true ones

    @property
    def cascade(self) -> pd.DataFrame:
        """Index stage, from the top down; columns ssim and spearman: means over the seeds."""
        return self.by_seed.groupby(level="stage", sort=False).mean()

    @property
    def different(self) -> pd.Series:
        """ssim and spearman of Grad-CAM of VGG16 of different patches, means."""
        return self.others["VGG16"]["Grad-CAM"].mean()

    @property
    def record(self) -> dict[str, object]:
        """The `randomisation` entry of the record."""
        return {
            "cascade": self.cascade.T.to_dict(),
            "seeds": int(self.by_seed.index.get_level_values("seed").nunique()),
            "different_patches": self.different.to_dict(),
        }


def falling(
    network: Network, held_out: HeldOutPatches, method: Method, *, samples: int, every: bool = True
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Stages drawn anew from the top down, and how alike maps of their own resolution are, see `methods.cascade`.

    (stages, N, measures) to the trained map; and (N, measures) under the whole head drawn anew, of the map for
    "control" to that for "patient". With two classes that were taught these speak of the classes, not of the method:
    the gradients of both are nearly the same but for their sign.
    """
    batch_nhwc = patches.as_input(held_out.patches_nhwc)
    maps: dict[str, np.ndarray] = {}
    for stage, weights in cascade(network.model, every=every):
        explain = network.explainer(method, samples=samples, weights=weights)
        maps[stage] = explain(batch_nhwc, PATIENT)
        if stage == whole_head(network.model):
            classes = similarity(explain(batch_nhwc, CONTROL), maps[stage])[ALIKE].to_numpy()
    alike = [similarity(maps["trained"], maps_nhw)[ALIKE].to_numpy() for maps_nhw in maps.values()]
    return list(maps), np.stack(alike), classes
