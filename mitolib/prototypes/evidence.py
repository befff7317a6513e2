"""Where a prototype network looks: maps of evidence for "patient", and what a picture is worth to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from mitolib import patches
from mitolib.prototypes.annotation import Masks
from mitolib.prototypes.maps import BATCH, Features, Maps
from mitolib.prototypes.network import ROOT, PrototypeNetwork
from mitolib.prototypes.relevance import Walk, relevance

PATIENT = 1  # class index
Score = Callable[[np.ndarray, np.ndarray], pd.DataFrame]  # maps (N, h, w), masks (N, H, W) -> a row for each patch


def similarity_maps(network: PrototypeNetwork, maps: Maps, rows: np.ndarray, node: str = ROOT) -> np.ndarray:
    """(len(rows), S, P) similarity of every place to every prototype of a node."""
    network.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            latent = network.latent(maps.batch(rows[start : start + BATCH]))
            parts.append(network.similarities(network.distances(latent, node)).numpy())
    return np.concatenate(parts)


def lead(network: PrototypeNetwork) -> np.ndarray:
    """(P,) by how much more a prototype adds to "patient" than to "control"."""
    weights = network.node().weights.numpy()
    return weights[PATIENT] - weights[1 - PATIENT]


def loudest(network: PrototypeNetwork, similar: np.ndarray) -> np.ndarray:
    """(N,) number of the prototype that adds most to "patient". similar: (N, S, P)."""
    activations = np.sort(similar, axis=1)[:, -network.architecture.k :].mean(axis=1)
    return (activations * lead(network)).argmax(axis=1)


def of_prototypes(network: PrototypeNetwork, similar: np.ndarray) -> dict[str, np.ndarray]:
    """Maps (N, side, side) for "patient": all prototypes that speak for it, and the one that speaks loudest.

    similar: (N, S, P). Similarity is never 0, and a floor dilutes what is summed over an area: each map's least value
    is taken away.
    """
    side = round(similar.shape[1] ** 0.5)
    found = {
        "prototypes": (similar * lead(network).clip(min=0)).sum(-1),
        "best prototype": similar[np.arange(len(similar)), :, loudest(network, similar)],
    }
    return {name: _floored(of_patches).reshape(-1, side, side) for name, of_patches in found.items()}


def _floored(maps_ns: np.ndarray) -> np.ndarray:
    return maps_ns - maps_ns.min(axis=1, keepdims=True)


def grad_cam(network: PrototypeNetwork, maps: Maps, rows: np.ndarray) -> np.ndarray:
    """(len(rows), side, side) Grad-CAM of the scores for "patient" less "control", at the backbone's map."""
    found = []
    for start in range(0, len(rows), BATCH):
        batch = maps.batch(rows[start : start + BATCH]).requires_grad_()
        scores = network(batch)[ROOT]
        gradient = torch.autograd.grad((scores[:, PATIENT] - scores[:, 1 - PATIENT]).sum(), batch)[0]
        weighed = (gradient.mean(dim=1, keepdim=True) * batch).sum(-1)
        found.append(weighed.detach().clamp(min=0).numpy())
    return np.concatenate(found).reshape(-1, maps.side, maps.side)


def relevance_maps(
    network: PrototypeNetwork,
    maps: Maps,
    rows: np.ndarray,
    similar: np.ndarray,
    pictures_nhwc: np.ndarray,
    walk: Walk,
) -> tuple[np.ndarray, np.ndarray]:
    """(N, h, w) relevance of the prototype that speaks loudest for "patient", and (N,) the share of it that arrived.

    At the pixels of the pictures; walk: the way there, down the backbone. pictures_nhwc: (len(rows), 224, 224,
    channels) uint8, those whose maps these rows are.
    """
    found, arrived = [], []
    for n, (row, prototype) in enumerate(zip(rows, loudest(network, similar), strict=True)):
        at_map = relevance(network, maps.batch([row]), int(prototype))
        picture = patches.as_input(pictures_nhwc[[n]])
        signed = walk(picture, at_map.reshape(1, maps.side, maps.side, -1)).pixels_nhwc[0].sum(axis=-1)
        found.append(signed.clip(min=0))
        arrived.append(signed.sum() / at_map.sum())
    return np.stack(found), np.array(arrived)


def activation_precision(similar: np.ndarray, masks_nyx: np.ndarray, top_share: Callable[..., Any]) -> np.ndarray:
    """(N, P) share of the highest 5 % of each similarity map that lies inside the mask; NaN where the mask is empty.

    similar: (N, S, P); masks_nyx: (N, H, H) bool. top_share: (maps (N, h, w), masks) -> scores with a column top5, ties
    in expectation, which is the activation precision of IAIA-BL.
    """
    n, n_places, n_prototypes = similar.shape
    side = round(n_places**0.5)
    found = np.full((n, n_prototypes), np.nan)
    for j in range(n_prototypes):
        found[:, j] = top_share(similar[..., j].reshape(n, side, side), masks_nyx)["top5"]
    return found


def masks_of(masks: Masks | None, table: pd.DataFrame, rows: np.ndarray, size_px: int = 224) -> np.ndarray:
    """(len(rows), size_px, size_px) bool: what is annotated in these patches of patients; nothing without masks.

    A patch with nothing to point at, and one that nobody annotated, has an empty mask: it is left out of scores.
    """
    if masks is None:
        return np.zeros((len(rows), size_px, size_px), bool)
    windows, annotated = masks.windows(table.iloc[rows].reset_index(drop=True), size_px)
    marked = (windows >= 128) & annotated[:, None, None]
    marked[windows.min(axis=(1, 2)) == 255] = False
    return marked


def log_odds(network: PrototypeNetwork, features: Features, side: int) -> Callable[[np.ndarray], np.ndarray]:
    """Pictures (N, 224, 224, C) uint8 -> (N,) log odds of "patient", through the backbone."""

    def evidence(patches_nhwc: np.ndarray) -> np.ndarray:
        maps = features.of_pictures(patches_nhwc, side)
        with torch.no_grad():
            scores = network(maps.batch(range(len(patches_nhwc))))[ROOT].numpy()
        return scores[:, PATIENT] - scores[:, 1 - PATIENT]

    return evidence
