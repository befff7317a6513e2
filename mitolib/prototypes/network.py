"""Prototype networks on maps of a frozen backbone: ProtoPNet, its top-k form of IAIA-BL, and the tree of HPnet.

A map is (N, S, C): S places of C channels, what a convolution gives without its two axes. A 1 x 1 convolution is then a
linear layer. An add-on turns each place into a latent vector; each node of a tree compares it with prototypes of its
own and decides between its children. ProtoPNet (Chen et al. 2019, arXiv:1806.10574) is the tree with one node, HPnet
(Hase et al. 2019, arXiv:1906.10651) the one with several. Nothing is copied from the authors' code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mitolib import files

EPSILON = 1e-4  # of a similarity: it is finite where a place is the prototype itself
GREATEST = float(np.log(1 / EPSILON))  # of `log_ratio`: 9.21, where the distance is 0
WRONG_CLASS = -0.5  # weight at the start of a prototype to another class than its own
ROOT = "root"


class NotFinite(FloatingPointError):
    """A map, a latent vector or a loss that is no finite number; the message says of which patch and in which step."""


def squared_distances(latent: Tensor, prototypes: Tensor, *, exact: bool) -> Tensor:
    """(N, S, P) squared Euclidean distances of latent vectors (N, S, D) and prototypes (P, D), at least 0.

    exact: from the differences, so that a place has distance 0 from itself; otherwise from `z.z - 2 z.p + p.p`, which
    is one matrix product, errs by rounding, and does for training.
    """
    if exact:
        return torch.cdist(latent, prototypes, compute_mode="donot_use_mm_for_euclid_dist").square()
    squares = latent.square().sum(-1, keepdim=True) + prototypes.square().sum(-1)
    return (squares - 2 * latent @ prototypes.T).clamp(min=0)


def log_ratio(distances: Tensor) -> Tensor:
    """log((d + 1) / (d + eps)) of squared distances d: the similarity of ProtoPNet, 9.21 at 0, always above 0."""
    return torch.log((distances + 1) / (distances + EPSILON))


def log_inverse(distances: Tensor) -> Tensor:
    """log(1 + 1 / (d + eps)) of squared distances d: the similarity of HPnet."""
    return torch.log1p(1 / (distances + EPSILON))


SIMILARITIES = {"ProtoPNet": log_ratio, "HPnet": log_inverse}


def mean_of_greatest(values: Tensor, k: int) -> Tensor:
    """(N, P) mean over the k places with the greatest values (N, S, P); with k = 1 the maximum."""
    return values.max(dim=1).values if k == 1 else values.topk(k, dim=1).values.mean(dim=1)


def mean_of_least(values: Tensor, k: int) -> Tensor:
    """(N, P) mean over the k places with the least values (N, S, P); with k = 1 the minimum."""
    return -mean_of_greatest(-values, k)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a prototype network is made of."""

    depth: int = 128  # D, channels of the latent map
    per_child: int = 5  # prototypes of each class, or of each child of a node
    k: int = 1  # places whose similarity is averaged: 1 is ProtoPNet; IAIA-BL takes 9 of 196
    similarity: str = "ProtoPNet"  # a key of SIMILARITIES

    def __post_init__(self) -> None:
        for name in ("depth", "per_child", "k"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted 1 or more.")
        if self.similarity not in SIMILARITIES:
            raise ValueError(f"similarity {self.similarity!r} is not one of {', '.join(SIMILARITIES)}.")


class Node(nn.Module):
    """Prototypes of the children of one node, and the weights that turn similarities into scores of the children.

    owners: (P,) the child, by number, that each prototype belongs to. prototypes: (P, D). weights: (children, P), no
    bias; at the start 1 to the own child and -0.5 to the others.
    """

    def __init__(self, children: Sequence[str], architecture: Architecture, generator: torch.Generator) -> None:
        super().__init__()
        self.children_names = tuple(children)
        owners = torch.arange(len(children)).repeat_interleave(architecture.per_child)
        self.register_buffer("owners", owners)
        self.prototypes = nn.Parameter(torch.rand(len(owners), architecture.depth, generator=generator))
        self.register_buffer("weights", start_weights(owners, len(children)))

    def scores(self, activations: Tensor) -> Tensor:
        """(N, children) scores before the softmax, from (N, P) activations."""
        return activations @ self.weights.T


def start_weights(owners: Tensor, n_children: int) -> Tensor:
    """(n_children, P): 1 to the child that owns the prototype, -0.5 to the others."""
    is_own = owners == torch.arange(n_children)[:, None]
    return torch.where(is_own, 1.0, WRONG_CLASS)


class PrototypeNetwork(nn.Module):
    """Maps (N, S, C) of a frozen backbone -> scores of the children of every node.

    tree: node -> names of its children; the first node is the root. A child that is itself a node leads on. With one
    node this is ProtoPNet, whose children are the classes. scale: the maps are divided by it first; their mean over the
    training patches, without which the sigmoid starts flat and nothing is learnt for ten epochs.
    generator: of all weights that are drawn.
    """

    def __init__(
        self,
        n_channels: int,
        tree: Mapping[str, Sequence[str]],
        architecture: Architecture,
        *,
        scale: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_channels, self.architecture = n_channels, architecture
        self.tree = {node: tuple(children) for node, children in tree.items()}
        self.register_buffer("scale", torch.tensor(float(scale)))
        depth = architecture.depth
        self.add_on = nn.Sequential(nn.Linear(n_channels, depth), nn.ReLU(), nn.Linear(depth, depth), nn.Sigmoid())
        for layer in (self.add_on[0], self.add_on[2]):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        self.nodes = nn.ModuleDict(
            {str(i): Node(children, architecture, generator) for i, children in enumerate(self.tree.values())}
        )

    def node(self, name: str = ROOT) -> Node:
        """The node of this name."""
        return self.nodes[str(list(self.tree).index(name))]

    def latent(self, maps: Tensor) -> Tensor:
        """(N, S, D) in (0, 1). maps: (N, S, C). Raises ValueError for more places than the map has to average over."""
        if maps.ndim != 3 or maps.shape[2] != self.n_channels:
            raise ValueError(
                f"maps of shape {tuple(maps.shape)}; wanted (patches, places, {self.n_channels}), as of the backbone "
                "that this network was trained on. Use the bank of the same proteins and layer."
            )
        if self.architecture.k > maps.shape[1]:
            raise ValueError(
                f"k is {self.architecture.k}, and a map has {maps.shape[1]} places; wanted at most as many."
            )
        first, *others = self.add_on
        # The weights are scaled, not the maps: of these there are hundreds of times as many numbers.
        hidden = functional.linear(maps, first.weight / self.scale, first.bias)
        for layer in others:
            hidden = layer(hidden)
        return hidden

    def distances(self, latent: Tensor, node: str = ROOT) -> Tensor:
        """(N, S, P) squared distances to the prototypes of a node; exact outside training."""
        return squared_distances(latent, self.node(node).prototypes, exact=not self.training)

    def similarities(self, distances: Tensor) -> Tensor:
        """The same shape: by the formula of the architecture."""
        return SIMILARITIES[self.architecture.similarity](distances)

    def activations(self, latent: Tensor, node: str = ROOT) -> Tensor:
        """(N, P): of each prototype of a node, the mean similarity of its k most similar places."""
        return mean_of_greatest(self.similarities(self.distances(latent, node)), self.architecture.k)

    def forward(self, maps: Tensor) -> dict[str, Tensor]:
        """Node -> (N, children) scores before the softmax."""
        latent = self.latent(maps)
        return {node: self.node(node).scores(self.activations(latent, node)) for node in self.tree}


def leaf_probabilities(scores: Mapping[str, Tensor], tree: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Leaf -> (N,) the product of the conditional probabilities on the path to it; over all leaves they sum to 1.

    scores: node -> (N, children). The first node of the tree is the root; children are told by name, never by place.
    """
    leaves: dict[str, Tensor] = {}

    def descend(node: str, reached: Tensor | float) -> None:
        conditional = functional.softmax(scores[node], dim=1)
        for place, child in enumerate(tree[node]):
            probability = reached * conditional[:, place]
            if child in tree:
                descend(child, probability)
            else:
                leaves[child] = probability

    descend(next(iter(tree)), 1.0)
    return leaves


def save(network: PrototypeNetwork, path: Path, *, backbone: str) -> None:
    """Write a network as named arrays, the same network as the same bytes.

    backbone: digest of what its maps come from: weights, layer and proteins.
    """
    about = {
        "n_channels": network.n_channels,
        "tree": {node: list(children) for node, children in network.tree.items()},
        "architecture": vars(network.architecture),
        "backbone": backbone,
    }
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    with files.whole(path) as aside, aside.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(about, sort_keys=True)), **arrays)


def load(path: Path, *, backbone: str) -> PrototypeNetwork:
    """The network in a file of `save`. Raises ValueError if its maps came from another backbone."""
    with np.load(path, allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "about"}
    if about["backbone"] != backbone:
        raise ValueError(
            f"{path}: was trained on the maps of a backbone with digest {about['backbone'][:12]}, and this one has "
            f"{backbone[:12]}. Use the same weights, layer and proteins, or train it anew."
        )
    network = PrototypeNetwork(
        about["n_channels"], about["tree"], Architecture(**about["architecture"]), generator=torch.Generator()
    )
    network.load_state_dict(state)
    return network.eval()
