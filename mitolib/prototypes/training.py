"""Training of a prototype network: epochs, push, exact last layer, in turns; the same schedule in every fold.

Nothing is chosen on validation or test patches, and the last epoch counts. It ends with a push and a solution, so that
the prototypes that are shown are those that decide.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mitolib import splits
from mitolib.prototypes import costs
from mitolib.prototypes.annotation import Annotation
from mitolib.prototypes.last_layer import class_weights, solve
from mitolib.prototypes.maps import BATCH, Maps
from mitolib.prototypes.network import (
    ROOT,
    Architecture,
    NotFinite,
    PrototypeNetwork,
    mean_of_greatest,
    start_weights,
)
from mitolib.prototypes.push import Pushed, push

LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-3  # of Adam; the decay is that of the add-on

Targets = Mapping[str, np.ndarray]  # node -> (patches,) number of the child, below 0 for a patch not below the node


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a network is trained, and on what cost."""

    cycles: int = 3  # of epochs, push, and solution of the last layer
    epochs: int = 10  # in each
    batch_size: int = 64
    learning_rate: float = LEARNING_RATE
    weights: costs.Weights = costs.PROTOPNET
    quota: bool = False  # see `push`


@dataclass(frozen=True)
class Trained:
    """A network, and what the last push did to it.

    before: as it was before its last push. free: pushed the last time without regard to places that are taken.
    loss: mean of each epoch.
    """

    network: PrototypeNetwork
    pushed: Pushed
    before: PrototypeNetwork
    free: PrototypeNetwork
    pushed_freely: Pushed
    loss: Sequence[float]


class Diverged(NotFinite):
    """A loss that is not finite. last_good: the network as it was after the last epoch that was."""

    def __init__(self, message: str, last_good: PrototypeNetwork) -> None:
        super().__init__(message)
        self.last_good = last_good


def train(
    maps: Maps,
    rows: np.ndarray,
    targets: Targets,
    tree: Mapping[str, Sequence[str]],
    *,
    architecture: Architecture,
    schedule: Schedule,
    seed: int,
    annotation: Annotation | None = None,
    shown: np.ndarray | None = None,
) -> Trained:
    """Train a network on the patches `rows` of the maps.

    tree: node -> children, {"root": classes} for ProtoPNet. annotation: of all patches of the maps, for the cost of
    IAIA-BL at the root; None trains without. shown: those rows that prototypes are pushed onto, and the last layer is
    solved on; None takes all, and where some are turned views, these are the others. Raises ValueError for a child that
    no training patch belongs to, NotFinite for maps and Diverged for a loss that are not finite.
    """
    for node, children in tree.items():
        if missing := [child for i, child in enumerate(children) if not (targets[node][rows] == i).any()]:
            raise ValueError(
                f"{missing[0]!r} of node {node!r} has no training patches; wanted one at least. Choose a split in "
                "which it trains, or leave it out of the tree."
            )
    rng = np.random.default_rng(seed)
    shown = rows if shown is None else shown
    network = PrototypeNetwork(
        maps.n_channels,
        tree,
        architecture,
        scale=maps.mean(rows),
        generator=torch.Generator().manual_seed(seed),
    )
    optimizer = torch.optim.Adam(
        [
            {"params": network.add_on.parameters(), "weight_decay": WEIGHT_DECAY},
            {"params": [node.prototypes for node in network.nodes.values()]},
        ],
        lr=schedule.learning_rate,
    )
    loss: list[float] = []
    for cycle in range(schedule.cycles):
        for _ in range(schedule.epochs):
            loss.append(_epoch(network, optimizer, maps, rows, targets, schedule, annotation, rng, len(loss)))
        is_last = cycle == schedule.cycles - 1
        before = copy.deepcopy(network).eval() if is_last else None
        pushed = push(network, maps, shown, targets, quota=schedule.quota)
        solve_last_layers(network, maps, shown, targets, schedule.weights)
    free = copy.deepcopy(before)
    pushed_freely = push(free, maps, shown, targets, distinct=False)
    solve_last_layers(free, maps, shown, targets, schedule.weights)
    return Trained(network.eval(), pushed, before, free, pushed_freely, loss)


def _epoch(
    network: PrototypeNetwork,
    optimizer: torch.optim.Optimizer,
    maps: Maps,
    rows: np.ndarray,
    targets: Targets,
    schedule: Schedule,
    annotation: Annotation | None,
    rng: np.random.Generator,
    epoch: int,
) -> float:
    """One pass over about as many patches as there are; its mean loss."""
    network.train()
    last_good = copy.deepcopy(network.state_dict())
    root = next(iter(network.tree))
    weights = {node: _node_weights(targets[node][rows], len(children)) for node, children in network.tree.items()}
    n_classes = len(network.tree[root])
    size = max(1, schedule.batch_size // n_classes) * n_classes
    steps = -(-len(rows) // size)
    total = 0.0
    for step, batch in enumerate(splits.equal_parts(targets[root], rows, size, steps, rng=rng)):
        labels = {node: torch.from_numpy(targets[node][batch]) for node in network.tree}
        masks = annotation.of(batch) if annotation is not None else None
        value = cost(network, maps.batch(batch), labels, schedule.weights, class_weights=weights, masks=masks)
        if not torch.isfinite(value):
            network.load_state_dict(last_good)
            raise Diverged(
                f"the loss is {float(value.detach())} in step {step} of epoch {epoch}; wanted a finite number. "
                f"The network as it was before this epoch is kept in `last_good`. Train with a learning rate below "
                f"{schedule.learning_rate:g}.",
                network.eval(),
            )
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        total += float(value.detach())
    return total / steps


def _node_weights(of_node: np.ndarray, n_children: int) -> Tensor:
    """(children,) of the cross entropy of a node: every child weighs the same."""
    below = of_node[of_node >= 0]
    of_patches = class_weights(below, n_children)
    return torch.tensor([of_patches[below == child].mean() for child in range(n_children)], dtype=torch.float32)


def cost(
    network: PrototypeNetwork,
    batch: Tensor,
    labels: Mapping[str, Tensor],
    weights: costs.Weights,
    *,
    class_weights: Mapping[str, Tensor] | None = None,
    masks: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The cost of a batch: of each node over the patches below it, in proportion to their number.

    labels: node -> (N,) child, below 0 for a patch that is not below the node. Batches are drawn with equal parts of
    the root's children, so that its cross entropy is not weighted. masks: what `Annotation.of` gives, for the root.
    """
    latent, k = network.latent(batch), network.architecture.k
    total = latent.new_zeros(())
    for name, of_node in labels.items():
        is_root = name == next(iter(network.tree))
        below = of_node >= 0
        if not below.any():
            continue
        node, own = network.node(name), of_node[below]
        distances = network.distances(latent[below], name)
        similarities = network.similarities(distances)
        activations = mean_of_greatest(similarities, k)
        of_classes = class_weights[name] if class_weights and not is_root else None
        value = weights.cross_entropy * costs.classification(node.scores(activations), own, of_classes)
        value = value + weights.cluster * costs.cluster_cost(distances, own, node.owners, k)
        value = value - weights.separation * costs.separation_cost(distances, own, node.owners, k)
        if masks is not None and is_root:
            irrelevant, others = (mask[below] for mask in masks)
            value = value + weights.fine * costs.fine_annotation(similarities, own, node.owners, irrelevant, others)
        total = total + value * (below.sum() / len(of_node))
    return total


def solve_last_layers(
    network: PrototypeNetwork, maps: Maps, rows: np.ndarray, targets: Targets, weights: costs.Weights
) -> None:
    """Put the weights of least cost into every node, in place."""
    network.eval()
    by_node = activations(network, maps, rows)
    for name, children in network.tree.items():
        node, of_node = network.node(name), targets[name][rows]
        below = of_node >= 0
        start = start_weights(node.owners, len(children)).numpy()
        owners = node.owners.numpy()
        solved = solve(by_node[name][below], of_node[below], owners, start, l1=weights.l1, pull=weights.pull)
        node.weights.copy_(torch.from_numpy(solved.astype(np.float32)))


def activations(network: PrototypeNetwork, maps: Maps, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Node -> (len(rows), P) activations of its prototypes on these patches."""
    network.eval()
    parts: dict[str, list[np.ndarray]] = {node: [] for node in network.tree}
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            latent = network.latent(maps.batch(rows[start : start + BATCH]))
            for node, found in parts.items():
                found.append(network.activations(latent, node).numpy())
    return {node: np.concatenate(found) for node, found in parts.items()}


def scores(network: PrototypeNetwork, by_node: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Node -> (N, children) scores before the softmax, from what `activations` gives."""
    return {node: found @ network.node(node).weights.numpy().T for node, found in by_node.items()}


def flat_targets(labels: np.ndarray) -> dict[str, np.ndarray]:
    """The targets of a network with one node. labels: (N,) class indices."""
    return {ROOT: np.asarray(labels)}
