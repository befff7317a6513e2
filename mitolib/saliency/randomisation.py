"""Do maps follow the network? They must change when its weights, or the labels it was taught, are random.

Measures of Adebayo et al. 2018, arXiv:1810.03292. Intervals resample subjects, not patches: patches of one subject are
no independent witnesses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from mitolib import patches
from mitolib.metrics import Estimate, interval
from mitolib.saliency.maps import unit
from mitolib.saliency.methods import cascade
from mitolib.saliency.network import PATIENT, Maps, Network
from mitolib.saliency.truth import HeldOutPatches
from mitolib.settings import SaliencyBudget


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


def randomise(
    networks: Mapping[str, Network],
    maps: Maps,
    tested: Mapping[str, HeldOutPatches],
    methods: Mapping[str, Callable[..., np.ndarray]],
    *,
    budget: SaliencyBudget,
    seed: int,
    rng: Generator,
) -> Randomisation:
    """Hold the maps against those of random weights, stage by stage and all at once, and of random labels.

    tested: by the name of the experiment. seed: of the weights drawn anew. budget: how many patches have their maps
    computed again, and by how many samples.
    """
    falling = _cascade(networks["VGG16"], tested["exp1"], seed)
    alike: dict[str, dict[str, pd.DataFrame]] = {}
    others: dict[str, dict[str, pd.DataFrame]] = {}
    for name, network in networks.items():
        if network.is_control:
            continue
        keras.utils.set_random_seed(seed)
        untrained = keras.models.clone_model(network.model)
        batch_nhwc = patches.as_input(tested[network.experiment.name].patches_nhwc[: budget.altered])
        alike[name], others[name] = {}, {}
        for method, compute in methods.items():
            stack = maps[name][method]
            random = compute(untrained, batch_nhwc, PATIENT, layer=network.layer, samples=budget.samples)
            alike[name][method] = similarity(stack[: budget.altered], random)
            others[name][method] = different_patches(stack)
    labels = {}
    if "VGG16-shuffled" in networks:
        by_labels = similarity(maps["VGG16"]["Grad-CAM"], maps["VGG16-shuffled"]["Grad-CAM"])
        labels = {measure: interval(by_labels[measure], tested["exp1"].subjects, rng=rng) for measure in by_labels}
    different = different_patches(maps["VGG16"]["Grad-CAM"]).mean()
    return Randomisation(falling, different, alike, others, labels)


def _cascade(network: Network, held_out: HeldOutPatches, seed: int) -> pd.DataFrame:
    """Index stage, from the top down; columns ssim and spearman: means over the patches."""
    keras.utils.set_random_seed(seed)
    stages = dict(cascade(network.model, network.layer, patches.as_input(held_out.patches_nhwc), PATIENT))
    return pd.DataFrame({stage: similarity(stages["trained"], stack).mean() for stage, stack in stages.items()}).T
