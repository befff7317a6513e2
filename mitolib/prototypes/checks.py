"""Do maps of a prototype network follow its weights, does it weigh fibres as they do, and where does relevance lie?

Each public function without an underscore that gives a `Result` is the fit of a unit (`mitolib.units`), as in `fits`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from skimage.measure import block_reduce
from skimage.transform import resize

from mitolib.prototypes import evidence
from mitolib.prototypes.fits import TREE, Study, Tools
from mitolib.prototypes.maps import RECEPTIVE_FIELD, Maps
from mitolib.prototypes.network import PrototypeNetwork
from mitolib.prototypes.relevance import Walk
from mitolib.units import Result

PROTOCOL = 1  # of all units here; raise it when one would come out otherwise
METHODS = ("prototypes", "best prototype", "PRP", "Grad-CAM")  # maps of the network itself; PRP where it is propagated
HEAD, ALL = "head", "all weights"  # what is drawn anew
SHADES = 255  # of a map that is kept
SHOWN = 1  # patches in the figure
INPUT_PX = 224
HALF_PX = 110 * INPUT_PX / 512  # side of the square that holds about half of a prototype's relevance, px of the input
SQUARES = ("cell", "half", "field", "box")  # columns of `shares_in_squares`
BOX_PERCENTILE = 95  # of the enlarged map: what ProtoPNet draws its box around


def trained_maps(study: Study, tools: Tools, held_out: Any, *, seed: int) -> Result:
    """Maps for "patient" of the shown network on held-out patches, and what single fibres are worth to it.

    held_out: see `saliency.held_out_patches`. "map of <method>": of METHODS, (N, h, w) uint8, coarse, each of its own
    greatest value. With PRP, inside, area: (N, SQUARES) share of its relevance in each square, and of the patch.
    own_rank, other_rank: (N,) rank correlation of PRP, pooled to the places of the map, with the similarity map of its
    own prototype, and with that of the prototype that adds second most; NaN where one of them is constant. Of the first
    patches shown_relevance (n, h, w) uint8, shown_similarity (n, side, side), shown_box (n, 4), see `_box`, and
    shown_prototypes. Where there are twins: patch, fibre and effect of each fibre cured, and relevance: (METHODS,
    fibres), the mean of each map over it.
    """
    maps, found = study.train_shown(seed)
    network, rows = found.network, held_out.rows.index.to_numpy()
    walk = study.features.walk(tools.propagation)
    stacks, similar = _maps_of(network, maps, rows, held_out.patches_nhwc, walk)
    loudest = evidence.loudest(network, similar)
    result: dict[str, Any] = _shades(stacks, tools)
    if "PRP" in stacks:
        result |= shares_in_squares(stacks["PRP"], similar, loudest)
        result |= _ranks(network, stacks["PRP"], similar)
        result |= _shown(stacks["PRP"][:SHOWN], similar[np.arange(len(similar)), :, loudest][:SHOWN])
        result["shown_prototypes"] = loudest[:SHOWN].astype(np.int16)
    if held_out.twins_nhwc is not None:
        altered = held_out.first(study.budget.restored)
        effects = tools.restore(
            evidence.log_odds(network, study.features, maps.side),
            altered.patches_nhwc,
            altered.twins_nhwc,
            altered.fibres_nyx,
            altered.deficient,
            most=study.budget.fibres,
        )
        relevance = [tools.over_fibres(stack[: len(altered)], altered.fibres_nyx, effects) for stack in stacks.values()]
        result["relevance"] = np.stack(relevance).astype(np.float32)
        kinds = {"patch": np.int32, "fibre": np.int32, "effect": np.float32}
        result |= {name: effects[name].to_numpy().astype(kind) for name, kind in kinds.items()}
    return result


def redrawn_maps(study: Study, tools: Tools, held_out: Any, *, drawn: str, seed: int) -> Result:
    """ "map of <method>" as of `trained_maps`, of a network that nobody trained.

    drawn: HEAD, add-on and prototypes alone, above the same backbone; or ALL, the backbone too. What weights are
    divided by, the mean of the maps, is no weight: it is that of the maps at hand.
    """
    features, side, pictures_nhwc = study.features, study.budget.side, held_out.patches_nhwc
    walk = features.walk(tools.propagation)
    generator = torch.Generator().manual_seed(seed)
    with features.drawn_anew(seed) if drawn == ALL else nullcontext():
        maps = features.of_pictures(pictures_nhwc, side)
        rows = np.arange(len(pictures_nhwc))
        scale = maps.mean(rows)
        network = PrototypeNetwork(maps.n_channels, TREE, study.architecture(), scale=scale, generator=generator)
        return _shades(_maps_of(network.eval(), maps, rows, pictures_nhwc, walk)[0], tools)


def _maps_of(
    network: PrototypeNetwork, maps: Maps, rows: np.ndarray, pictures_nhwc: np.ndarray, walk: Walk | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """METHODS -> (N, h, w), and (N, S, P) similarities."""
    similar = evidence.similarity_maps(network, maps, rows)
    stacks = evidence.of_prototypes(network, similar)
    if walk is not None:
        stacks["PRP"], _ = evidence.relevance_maps(network, maps, rows, similar, pictures_nhwc, walk)
    stacks["Grad-CAM"] = evidence.grad_cam(network, maps, rows)
    return {method: stacks[method] for method in METHODS if method in stacks}, similar


def _shades(stacks: dict[str, np.ndarray], tools: Tools) -> dict[str, np.ndarray]:
    """ "map of <method>": (N, h, w) uint8 of maps made coarse, each divided by its greatest value."""
    coarse = {method: tools.cells(stack).astype(np.float32) for method, stack in stacks.items()}
    return {f"map of {method}": np.rint(SHADES * maps_nhw).astype(np.uint8) for method, maps_nhw in coarse.items()}


def shares_in_squares(relevance_nhw: np.ndarray, similar: np.ndarray, prototypes: np.ndarray) -> dict[str, np.ndarray]:
    """inside and area: (N, SQUARES) float32, share of the relevance in each square, and of the patch that it covers.

    cell, half and field are squares around the winning place, cut off at the patch's edge; box is the one that
    ProtoPNet draws, around all that lies above the 95th percentile of the enlarged similarity map. relevance_nhw:
    (N, h, w), not negative. similar: (N, S, P). prototypes: (N,) whose relevance it is. A pixel that lies in a square
    in part counts by that part.
    """
    side = round(similar.shape[1] ** 0.5)
    inside, area = np.empty((2, len(relevance_nhw), len(SQUARES)), np.float32)
    for n, (relevance_yx, of_patch, j) in enumerate(zip(relevance_nhw, similar, prototypes, strict=True)):
        map_yx = of_patch[:, j].reshape(side, side)
        y, x = (np.array(divmod(int(map_yx.argmax()), side)) + 0.5) / side
        sides = 1 / side, HALF_PX / INPUT_PX, RECEPTIVE_FIELD / INPUT_PX
        windows = [(y - length / 2, y + length / 2, x - length / 2, x + length / 2) for length in sides]
        windows.append(_box(map_yx))
        total = float(relevance_yx.sum())
        for i, (top, bottom, left, right) in enumerate(windows):
            weights = _covered(top, bottom, relevance_yx.shape[0]), _covered(left, right, relevance_yx.shape[1])
            inside[n, i] = weights[0] @ relevance_yx @ weights[1] / total if total > 0 else np.nan
            area[n, i] = weights[0].mean() * weights[1].mean()
    return {"inside": inside, "area": area}


def _covered(start: float, end: float, n: int) -> np.ndarray:
    """(n,) share of each of n pixels, along an axis of length 1, that lies between start and end."""
    edges = np.arange(n + 1) / n
    return n * (np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)).clip(min=0)


def _box(map_yx: np.ndarray) -> tuple[float, float, float, float]:
    """top, bottom, left and right, from 0 to 1, of the box that ProtoPNet would draw."""
    large = resize(map_yx.astype(float), (INPUT_PX, INPUT_PX), order=3, mode="edge", anti_aliasing=False)
    ys, xs = np.nonzero(large >= np.percentile(large, BOX_PERCENTILE))
    return ys.min() / INPUT_PX, (ys.max() + 1) / INPUT_PX, xs.min() / INPUT_PX, (xs.max() + 1) / INPUT_PX


def _shown(relevance_nhw: np.ndarray, similar_ns: np.ndarray) -> dict[str, np.ndarray]:
    """What a figure shows of the first patches; relevance at half the side of the input, of its greatest value."""
    side = round(similar_ns.shape[1] ** 0.5)
    maps_nhw = similar_ns.reshape(-1, side, side)
    step = max(1, relevance_nhw.shape[1] // (INPUT_PX // 2))
    coarse = block_reduce(relevance_nhw, (1, step, step), np.mean)
    top = np.maximum(coarse.max(axis=(1, 2), keepdims=True), 1e-12)
    return {
        "shown_relevance": np.rint(SHADES * coarse / top).astype(np.uint8),
        "shown_similarity": maps_nhw.astype(np.float16),
        "shown_box": np.array([_box(map_yx) for map_yx in maps_nhw], np.float32),
    }


def _ranks(network: PrototypeNetwork, relevance_nhw: np.ndarray, similar: np.ndarray) -> dict[str, np.ndarray]:
    side, lead = round(similar.shape[1] ** 0.5), evidence.lead(network)
    step = relevance_nhw.shape[1] // side
    found = np.full((len(relevance_nhw), 2), np.nan, np.float32)
    activations = similar.max(axis=1) * lead
    order = np.argsort(-activations, axis=1, kind="stable")
    for n, relevance_yx in enumerate(relevance_nhw):
        pooled = block_reduce(relevance_yx, (step, step), np.mean).ravel()
        for i, j in enumerate(order[n, :2]):
            if np.ptp(pooled) > 0 and np.ptp(similar[n, :, j]) > 0:
                found[n, i] = spearmanr(pooled, similar[n, :, j]).statistic
    return {"own_rank": found[:, 0], "other_rank": found[:, 1]}
