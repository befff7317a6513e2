"""What is computed of a network, and kept: each public function here is the fit of a unit (`mitolib.units`).

Maps of all pixels are not kept, only what was measured of them, the few that a figure shows, and what `cells` leaves of
them, by which maps are compared. Each unit starts from a seed, whatever was computed before it, and needs no other one:
units can be computed in any order, on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from skimage.measure import block_reduce

from mitolib import patches, units
from mitolib.saliency import randomisation
from mitolib.saliency.baselines import without_network
from mitolib.saliency.budget import Budget
from mitolib.saliency.localisation import score
from mitolib.saliency.maps import unit
from mitolib.saliency.methods import Method, RelevanceMaps, whole_head
from mitolib.saliency.network import PATIENT, Network
from mitolib.saliency.perturbation import REMOVAL, fibres_to_restore, mean_over_fibres, remove, restore
from mitolib.saliency.truth import HeldOutPatches
from mitolib.settings import LABELS

# Of all units here. Raise it when one would come out otherwise: by a method of METHODS, a score of maps, how a patch is
# altered or its twin is shown, which patches are examples, or what is drawn at random and in which order.
PROTOCOL = 3
CHAPTER = "gradcam"
CELLS = 14  # a side, in which maps are compared: that of Grad-CAM of VGG16
SHOWN, SHOWN_PX = 6, 112  # patches in a gallery, and the greatest side of a map that is kept to be shown
SHADES = 255  # of such a map


def cells(maps_nhw: np.ndarray) -> np.ndarray:
    """(N, h, w) float16, at most about 14 x 14: means of blocks, each map divided by its greatest value.

    Without this a map of pixels and one of cells would be compared at different scales, and SSIM of fine grain says
    little of the places that a reader sees. A map of zeros stays one.
    """
    side_px = max(1, maps_nhw.shape[1] // CELLS)
    coarse_nhw = block_reduce(np.asarray(maps_nhw, np.float64), (1, side_px, side_px), np.mean)
    top = coarse_nhw.max(axis=(1, 2), keepdims=True)
    return (coarse_nhw / np.where(top > 0, top, 1)).astype(np.float16)


def examples(explained: Network, *, seed: int) -> units.Result:
    """One test patch of each class that was recognised and one that was not, where they occur.

    rows: labels in the patch table; maps: (N, classes, h, w) float32, raw.
    """
    keras.utils.set_random_seed(seed)
    mixed = explained.trained.calls.sample(frac=1, random_state=seed)
    rows = mixed.groupby(["label", "predicted"]).head(1).sort_values(["label", "predicted"]).index
    batch_nhwc = patches.as_input(explained.trained.task.patches_nhwc[rows])
    maps = [explained.camera(batch_nhwc, i) for i in range(len(LABELS))]
    return {"rows": rows.to_numpy(), "maps": np.stack(maps, axis=1)}


def of_method(
    explained: Network, held_out: HeldOutPatches, method: str, compute: Method, *, budget: Budget, seed: int
) -> units.Result:
    """As `_asked`, and maps: `cells` of all patches; different: (N, measures) float32, of different patches' maps.

    shown: (patches, h, w) uint8, each map stretched to its own range. Of relevance propagation also score: (N,)
    float32; layers: names, from the top down; left: (layers, N) float32, relevance below each layer by the score.
    """
    keras.utils.set_random_seed(seed)
    explain, batch_nhwc = explained.explainer(compute, samples=budget.samples), patches.as_input(held_out.patches_nhwc)
    handed_down: units.Result = {}
    if isinstance(explain, RelevanceMaps):
        found = explain.propagation(batch_nhwc, PATIENT)
        layers = list(found.account.index.unique("layer"))
        left = found.account["below"].unstack("patch").loc[layers].to_numpy() / found.score
        handed_down = {"score": found.score, "layers": layers, "left": left.astype(np.float32)}
        maps_nhw = found.maps.clip(min=0)
    else:
        maps_nhw = explain(batch_nhwc, PATIENT)
    side_px = max(1, maps_nhw.shape[1] // SHOWN_PX)
    shown_nhw = unit(block_reduce(maps_nhw[:SHOWN], (1, side_px, side_px), np.mean))
    return _asked(explained, held_out, {method: maps_nhw}, budget, seed) | {
        "maps": cells(maps_nhw),
        "different": randomisation.different_patches(maps_nhw).to_numpy(np.float32),
        "shown": np.rint(SHADES * shown_nhw).astype(np.uint8),
        **handed_down,
    }


def of_control(
    explained: Network, held_out: HeldOutPatches, method: str, compute: Method, *, budget: Budget, seed: int
) -> units.Result:
    """maps: `cells` of all patches; with truth localisation: (1, N, scores) float32."""
    maps_nhw = _maps(explained, held_out, compute, budget=budget, seed=seed)
    return {"methods": [method], "maps": cells(maps_nhw)} | _localisation(held_out, {method: maps_nhw})


def redrawn(
    explained: Network, held_out: HeldOutPatches, compute: Method, *, budget: Budget, seed: int
) -> units.Result:
    """maps: `cells` of all patches, by the network with all its weights drawn anew from `seed`."""
    keras.utils.set_random_seed(seed)
    weights = keras.models.clone_model(explained.model).get_weights()
    return {"maps": cells(_maps(explained, held_out, compute, budget=budget, seed=seed, weights=weights))}


def falling(
    explained: Network,
    held_out: HeldOutPatches,
    compute: Method,
    *,
    budget: Budget,
    every: bool = True,
    seed: int,
) -> units.Result:
    """Maps of the first patches with stage after stage drawn anew from `seed`, see `randomisation.falling`.

    stages: names, whole_head: one of them; similarity: (stages, N, measures) float32; classes: (N, measures) float32.
    """
    keras.utils.set_random_seed(seed)
    names, similarity, classes = randomisation.falling(
        explained, held_out.first(budget.cascaded), compute, samples=budget.samples, every=every
    )
    alike = {"similarity": similarity.astype(np.float32), "classes": classes.astype(np.float32)}
    return {"stages": names, "whole_head": whole_head(explained.model), **alike}


def yardsticks(explained: Network, held_out: HeldOutPatches, *, budget: Budget, seed: int) -> units.Result:
    """As `_asked`, of the maps without a network; and removal at random.

    at_random: (resolutions, altered, scores) float32, by maps of random numbers of as many px as at_random_px says,
    since blobs and scattered pixels do not take away the same.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    baselines = without_network(held_out.patches_nhwc, held_out.ndufb8_vdac1, rng=rng)
    result = _asked(explained, held_out, baselines, budget, seed)
    altered = held_out.first(budget.altered)
    layer_px = explained.model.get_layer(explained.layer).output.shape[1]
    resolutions = list(dict.fromkeys([layer_px, held_out.patches_nhwc.shape[1]]))
    at_random = {size_px: rng.random((len(altered), size_px, size_px)) for size_px in resolutions}
    return result | {"at_random_px": resolutions, "at_random": _removal(explained, altered, at_random, budget, seed)}


def restoration(explained: Network, held_out: HeldOutPatches, *, budget: Budget, seed: int) -> units.Result:
    """What each restored fibre is worth: arrays patch, fibre and effect, as of `restore`. It takes twins."""
    keras.utils.set_random_seed(seed)
    altered = held_out.first(budget.altered)
    effects = restore(
        explained.log_odds,
        altered.patches_nhwc,
        altered.twins_nhwc,
        altered.fibres_nyx,
        altered.deficient,
        most=budget.fibres,
    )
    kinds = {"patch": np.int32, "fibre": np.int32, "effect": np.float32}
    return {name: effects[name].to_numpy().astype(kind) for name, kind in kinds.items()}


def _maps(
    explained: Network,
    held_out: HeldOutPatches,
    compute: Method,
    *,
    budget: Budget,
    seed: int,
    weights: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """(N, h, w) maps for "patient", by the network, or with other weights in its place."""
    keras.utils.set_random_seed(seed)  # SmoothGrad draws its noise from numpy's own
    explain = explained.explainer(compute, samples=budget.samples, weights=weights)
    return explain(patches.as_input(held_out.patches_nhwc), PATIENT)


def _asked(
    explained: Network, held_out: HeldOutPatches, maps: Mapping[str, np.ndarray], budget: Budget, seed: int
) -> dict[str, Any]:
    """What any map is asked. methods: names; map_px: side of their maps; and arrays with a row for each method:

    localisation (methods, N, scores), with truth; removal (methods, altered, scores); relevance (methods, fibres), the
    mean over each fibre that is restored, where there are twins. All float32.
    """
    altered = held_out.first(budget.altered)
    result = {
        "methods": list(maps),
        "map_px": [stack.shape[1] for stack in maps.values()],
        "removal": _removal(explained, altered, maps, budget, seed),
    }
    if altered.twins_nhwc is not None:
        fibres = fibres_to_restore(altered.deficient, most=budget.fibres)
        relevance = [mean_over_fibres(stack, altered.fibres_nyx, fibres) for stack in maps.values()]
        result["relevance"] = np.stack(relevance).astype(np.float32)
    return result | _localisation(held_out, maps)


def _localisation(held_out: HeldOutPatches, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The map of random numbers is scored as a constant one, which scores what chance does: drawn once, whether its
    greatest value lies inside would itself be chance."""
    if not held_out.has_truth:
        return {}
    stacks = [np.ones_like(stack) if name == "random" else stack for name, stack in maps.items()]
    return {"localisation": np.stack([score(stack, held_out.masks_nyx).to_numpy(np.float32) for stack in stacks])}


def _removal(
    explained: Network, altered: HeldOutPatches, maps: Mapping[Any, np.ndarray], budget: Budget, seed: int
) -> np.ndarray:
    """(maps, altered, scores) float32. Each map meets the same noise."""
    taken = partial(remove, explained.log_odds, altered.patches_nhwc, shares=budget.shares)
    removed = [taken(stack[: len(altered)], rng=np.random.default_rng([seed, 1])) for stack in maps.values()]
    return np.stack([table[REMOVAL].to_numpy(np.float32) for table in removed])
