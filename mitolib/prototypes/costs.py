"""What a prototype network is trained to do: the costs of ProtoPNet, IAIA-BL and HPnet, means over a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mitolib.prototypes.network import mean_of_least

INPUT_PX = 224  # side of the picture at which IAIA-BL takes its norm


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the costs. L1 and the pull towards the first weights act where the last layer is solved."""

    cross_entropy: float = 1.0
    cluster: float = 0.8
    separation: float = 0.08
    fine: float = 0.085  # 0.001 of a sum over batches of 85 in IAIA-BL, here of a mean
    l1: float = 1e-4
    pull: float = 1e-4


PROTOPNET = Weights()
HPNET = Weights(cross_entropy=20.0, cluster=0.001, separation=0.06, l1=0.01)


def cluster_cost(distances: Tensor, labels: Tensor, owners: Tensor, k: int = 1) -> Tensor:
    """Mean over patches of the least distance to a prototype of the own class. Training lowers it.

    distances: (N, S, P) squared; labels: (N,); owners: (P,). With k > 1 a distance is the mean of the k least. A masked
    minimum, which has a gradient however far the prototypes are.
    """
    is_own = labels[:, None] == owners
    return _least(distances, is_own, k).mean()


def separation_cost(distances: Tensor, labels: Tensor, owners: Tensor, k: int = 1) -> Tensor:
    """Mean over patches of the least distance to a prototype of another class. Training raises it: it is subtracted."""
    is_other = labels[:, None] != owners
    return _least(distances, is_other, k).mean()


def hpnet_separation_cost(distances: Tensor, labels: Tensor, owners: Tensor, depth: int, k: int = 1) -> Tensor:
    """The depth D of the latent map less `separation_cost`, as HPnet writes it: it is added, and moves the same way."""
    return depth - separation_cost(distances, labels, owners, k)


def _least(distances: Tensor, wanted: Tensor, k: int) -> Tensor:
    """(N,) the least of the distances to the wanted prototypes (N, P)."""
    return mean_of_least(distances, k).masked_fill(~wanted, torch.inf).min(dim=1).values


def fine_annotation(similarities: Tensor, labels: Tensor, owners: Tensor, irrelevant: Tensor, others: Tensor) -> Tensor:
    """Cost of similarity where an annotation says that there is nothing to see (Barnett et al. 2021, arXiv:2103.12308).

    The mean over patches of the sum over prototypes of ||m S||, the Euclidean norm over the places. m is `irrelevant`
    (N, S), from 0 to 1, for prototypes of the own class, and `others` (N,) everywhere for those of other classes; a
    patch without annotation has 0 in both. similarities: (N, S, P). The norm is that of a map of 224 px: 224 / h times
    as large as that of h x h places.
    """
    n_places = similarities.shape[1]
    if irrelevant.shape != similarities.shape[:2]:
        raise ValueError(
            f"masks of shape {tuple(irrelevant.shape)} for maps of {tuple(similarities.shape[:2])} patches and places; "
            "wanted the same. Make the masks from the same patch table and the same side of the map."
        )
    is_own = (labels[:, None] == owners)[:, None, :]
    mask = torch.where(is_own, irrelevant[:, :, None], others[:, None, None])
    norms = torch.linalg.vector_norm(mask * similarities, dim=1)
    return INPUT_PX / n_places**0.5 * norms.sum(dim=1).mean()


def classification(scores: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross entropy, mean over patches."""
    return functional.cross_entropy(scores, labels, weight=class_weights)
