"""All maps of all networks, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
from numpy.random import Generator

from mitolib import patches
from mitolib.saliency.baselines import without_network
from mitolib.saliency.network import PATIENT, Network
from mitolib.saliency.truth import HeldOutPatches


def explain(
    networks: Mapping[str, Network],
    tested: Mapping[str, HeldOutPatches],
    methods: Mapping[str, Callable[..., np.ndarray]],
    *,
    samples: int,
    seed: int,
    rng: Generator,
) -> dict[str, dict[str, np.ndarray]]:
    """model -> method -> maps (N, h, w) for "patient", raw, then those of the baselines on the same patches.

    tested: by the name of the experiment. methods: of METHODS; a control gets Grad-CAM alone. samples: noise draws of
    SmoothGrad, channels of Score-CAM.
    """
    keras.utils.set_random_seed(seed)  # SmoothGrad draws its noise from numpy's own
    maps = {}
    for name, network in networks.items():
        held_out = tested[network.experiment.name]
        batch_nhwc = patches.as_input(held_out.patches_nhwc)
        maps[name] = {"Grad-CAM": network.camera(batch_nhwc, PATIENT)}
        for method, compute in methods.items():
            if method != "Grad-CAM" and not network.is_control:
                maps[name][method] = compute(network.model, batch_nhwc, PATIENT, layer=network.layer, samples=samples)
        maps[name] |= without_network(held_out.patches_nhwc, held_out.ndufb8_vdac1, rng=rng)
    return maps
