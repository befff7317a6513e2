"""Do maps follow the network? They must change when its weights, or the labels it was taught, are random.

Measures of Adebayo et al. 2018, arXiv:1810.03292. Intervals resample subjects, not patches: patches of one subject are
no independent witnesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from mitolib import patches
from mitolib.metrics import Estimate
from mitolib.saliency.maps import unit
from mitolib.saliency.methods import cascade
from mitolib.saliency.network import PATIENT, Network
from mitolib.saliency.truth import HeldOutPatches


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
    return pd.DataFrame(rows, columns=["ssim", "spearman"])


def different_patches(maps_nhw: np.ndarray) -> pd.DataFrame:
    """`similarity` of each map to that of the next patch, what any two maps have in common; NaN for a single map."""
    alike = similarity(maps_nhw, np.roll(maps_nhw, 1, axis=0))
    return alike if len(maps_nhw) > 1 else alike.mask(alike.notna())


@dataclass(frozen=True)
class Randomisation:
    """How alike maps are to those of networks that know nothing, and to each other."""

    cascade: pd.DataFrame  # index stage, columns ssim and spearman: Grad-CAM of VGG16, means over the patches
    different: pd.Series  # ssim and spearman of its maps of different patches, means
    alike: Mapping[str, Mapping[str, pd.DataFrame]]  # model -> method -> similarity to a network drawn anew
    others: Mapping[str, Mapping[str, pd.DataFrame]]  # model -> method -> similarity of different patches' maps
    labels: Mapping[str, Estimate]  # ssim and spearman, true labels against shuffled; empty without that network

    @property
    def labels_sentence(self) -> str:
        """What the network of shuffled labels says, or why there is nothing to say."""
        if not self.labels:
            return "Left out: there is no network of shuffled labels."
        return (
            f"Taught true or shuffled labels, Grad-CAM maps are alike with SSIM {self.labels['ssim']} and rank "
            f"correlation {self.labels['spearman']}."
        )

    @property
    def record(self) -> dict[str, object]:
        """The `randomisation` entry of the record."""
        return {
            "cascade": self.cascade.T.to_dict(),
            "different_patches": self.different.to_dict(),
            "shuffled_labels": dict(self.labels),
        }


def stages(network: Network, held_out: HeldOutPatches) -> pd.DataFrame:
    """Index stage, from the top down, drawn anew; columns ssim and spearman: means over the patches."""
    maps = dict(cascade(network.model, network.layer, patches.as_input(held_out.patches_nhwc), PATIENT))
    return pd.DataFrame({stage: similarity(maps["trained"], stack).mean() for stage, stack in maps.items()}).T
