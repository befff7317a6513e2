"""Relevance through a prototype: where in its map a patch is like it (after PRP, Gautam et al. 2021, arXiv:2108.12204).

The activation of a prototype is shared out among the channels of the winning place, the more the better a channel
agrees; then down the add-on by the alpha1-beta0 rule without biases. What arrives at the backbone's map can be carried
on to the pixels by layer-wise relevance propagation, which another wing has and a chapter passes in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mitolib.prototypes.network import ROOT, PrototypeNetwork

AGREEMENT = 1e-12  # added to a channel's squared distance


class Walk(Protocol):
    """Relevance from a layer of a network down to the pixels, see `saliency.relevance.RelevanceBelow`."""

    def __call__(self, patches_nhwc: np.ndarray, relevance: np.ndarray) -> Any:
        """Something with pixels_nhwc, (N, H, W, C); relevance: (N, h, w, c) of what the layer gives."""


Propagation = Callable[[Any, str], Walk]  # a Keras model and the name of a layer -> the walk down from it


def shared_out(latent: Tensor, prototype: Tensor, activation: Tensor) -> Tensor:
    """(D,) the activation in proportion to 1 / ((z - p)^2 + 1e-12): channels that agree get it; uniform at z = p."""
    agreement = 1 / ((latent - prototype).square() + AGREEMENT)
    return activation * agreement / agreement.sum()


def through_linear(layer: nn.Linear, reads: Tensor, relevance: Tensor) -> Tensor:
    """(..., inputs): alpha1-beta0 without bias; reads: what the layer was given, not negative.

    An output without a positive contribution shares its relevance out evenly, so that none is lost.
    """
    parts = reads[..., None, :] * layer.weight.clamp(min=0)  # (..., outputs, inputs)
    total = parts.sum(-1, keepdim=True)
    even = torch.full_like(parts, 1 / parts.shape[-1])
    return (
        torch.where(total > 0, parts / total.where(total > 0, torch.ones_like(total)), even)
        .mul(relevance[..., None])
        .sum(-2)
    )


def relevance(network: PrototypeNetwork, maps: Tensor, prototype: int, node: str = ROOT) -> np.ndarray:
    """(N, S, C) relevance at the backbone's map of one prototype's activation; it sums to the activation.

    maps: (N, S, C), not negative. With k > 1 each of the k winning places carries its share of the mean.
    """
    network.eval()
    k = network.architecture.k
    with torch.no_grad():
        latent = network.latent(maps)
        similar = network.similarities(network.distances(latent, node))[..., prototype]  # (N, S)
        vector = network.node(node).prototypes[prototype]
        hidden = torch.relu(network.add_on[0](maps / network.scale))
        found = torch.zeros_like(maps)
        for n in range(len(maps)):
            for s in similar[n].topk(k).indices:
                of_channels = shared_out(latent[n, s], vector, similar[n, s] / k)
                below = through_linear(network.add_on[2], hidden[n, s], of_channels)
                found[n, s] = through_linear(network.add_on[0], maps[n, s] / network.scale, below)
    return found.numpy()
