"""Concept whitening in a model: put the layer in, calibrate it, turn its axes onto concepts, read them, fold it away.

Pictures are torch tensors (N, 3, H, W), maps (N, C, H, W); k is the number of concepts, d = C the number of channels.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mitolib.whitening import ConceptWhitening, orthogonality_error, samples_of

OPPOSITE = -0.9  # cosine of two concept means below which orthogonal axes cannot serve both


@dataclass(frozen=True)
class Round:
    """What one call of `align` found and did."""

    alignment: float  # of the axes with the directions collected so far; 1 is the best an orthogonal set can do
    gram: np.ndarray  # (k, k) cosines between the concepts' whitened means
    line_search_failures: int
    orthogonality_error: float  # largest entry of R R^T - I, in absolute value


def replace_norm(
    model: nn.Module, name: str, n_concepts: int, batches: Iterable[Tensor] | None, **settings: object
) -> ConceptWhitening:
    """Put a ConceptWhitening in the place of the BatchNorm2d `name` ("layer4.1.bn1"), in `model` itself.

    batches: (N, 3, H, W) pictures for `calibrate`; None leaves mean 0 and covariance I, as the public code does, and
    the network then has to learn again. settings: of ConceptWhitening. With `affine`, gain and shift are taken over.
    Raises ValueError for a name that is no BatchNorm2d, and lists those that are.
    """
    modules = dict(model.named_modules())
    norm = modules.get(name)
    if not isinstance(norm, nn.BatchNorm2d):
        known = ", ".join(key for key, module in modules.items() if isinstance(module, nn.BatchNorm2d))
        raise ValueError(f"{name!r} is no BatchNorm2d of {type(model).__name__}; these are: {known or 'none'}.")
    layer = ConceptWhitening(norm.num_features, n_concepts, **settings).train(norm.training)
    if layer.weight is not None and norm.weight is not None:
        layer.weight.data.copy_(norm.weight)
        layer.bias.data.copy_(norm.bias)
    if tensors := [*norm.parameters(), *norm.buffers()]:
        layer.to(tensors[0].device)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
    if batches is not None:
        calibrate(model, batches)
    return layer


def insert_before_head(
    model: nn.Module, n_concepts: int, batches: Iterable[Tensor], *, stage: str = "layer4", **settings: object
) -> ConceptWhitening:
    """Append a calibrated ConceptWhitening to the last stage of a model, and let `model.fc` absorb it: the logits stay.

    The one place where a layer can be put in without a change, since only averaging and a linear layer follow. `align`
    with `head=model.fc` keeps the logits too. stage: the Sequential that the pooling reads, "last" in the tail of
    `resnet.divide`. settings: of ConceptWhitening, but for `affine`.
    """
    layer = ConceptWhitening(model.fc.in_features, n_concepts, affine=False, **settings)
    layer.to(model.fc.weight.device).train(model.training)
    model.get_submodule(stage).add_module("whitening", layer)  # `append` numbers it, maybe as a block of a slice
    calibrate(model, batches)
    matrix, offset = layer.matrix()
    with torch.no_grad():
        weight = torch.linalg.solve(matrix, model.fc.weight.double(), left=False)
        model.fc.bias -= (weight @ offset).to(model.fc.bias.dtype)
        model.fc.weight.copy_(weight)
    return layer


def layer_of(model: nn.Module) -> ConceptWhitening:
    """The one ConceptWhitening in a model; ValueError for none or several."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, ConceptWhitening)}
    if len(layers) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(layers)} whitening layers ({', '.join(layers) or 'none'}); wanted one. "
            "Put it in with replace_norm."
        )
    return next(iter(layers.values()))


class Reached(Exception):
    """Ends a forward pass, raised by a hook that has caught what it was there for."""


def layer_input(model: nn.Module, batch: Tensor) -> Tensor:
    """The map (N, C, H, W) that reaches the whitening layer, the model being in evaluation; nothing is changed.

    The forward pass ends there: a round of rotations is little else than such passes.
    """
    caught: list[Tensor] = []
    training = {module: module.training for module in model.modules()}

    def catch(_: nn.Module, inputs: tuple[Tensor]) -> None:
        caught.append(inputs[0].detach())
        raise Reached

    hook = layer_of(model).register_forward_pre_hook(catch)
    model.eval()
    try:
        with torch.no_grad(), suppress(Reached):
            model(batch)
    finally:
        hook.remove()
        for module, was_training in training.items():
            module.training = was_training
    return caught[0]


def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the layer's mean and covariance to those of these pictures, the rest of the model in evaluation.

    The running statistics lag behind training by some 1 / momentum = 20 steps: calibrate with the training set before
    the first `align` and before every evaluation. Raises ValueError for no more positions than channels.
    """
    layer = layer_of(model)
    n, total, product = 0, 0.0, 0.0
    for batch in batches:
        samples = samples_of(layer_input(model, batch)).double()
        n, total, product = n + samples.shape[1], total + samples.sum(1), product + samples @ samples.T
    if n <= layer.n_channels:
        raise ValueError(
            f"{n} positions to calibrate {layer.n_channels} channels; wanted more positions than channels. "
            "Give more pictures."
        )
    mean = total / n
    covariance = product / n - torch.outer(mean, mean)
    if not covariance.isfinite().all():
        raise FloatingPointError("NaN or infinity in the maps to calibrate with. Look at the pictures and the weights.")
    layer.set_statistics(mean, covariance.to(layer.running_mean.dtype))


def align(
    model: nn.Module,
    concept_batches: Sequence[Tensor],
    against: Sequence[Tensor] | None = None,
    *,
    head: nn.Linear | None = None,
) -> Round:
    """One round: turn the axes towards one batch of pictures (N, 3, H, W) per concept.

    The model is in evaluation meanwhile, so no running statistic sees a concept picture. against: for each concept a
    batch on which its axis should score low (the other class, or pictures of everything); without it, the article's
    objective. head: the linear layer of `insert_before_head`, turned along so that the logits stay.
    Warns where two concepts' means are nearly opposite: of orthogonal axes at most one can follow (for two classes that
    are all the data, p0 m0 + p1 m1 = 0). Then align one signed axis, or whiten with wider data.
    Raises ValueError for another number of batches than concepts or an empty one, FloatingPointError for NaN in one.
    """
    layer = layer_of(model)
    for batches in (concept_batches, against):
        if batches is not None and [len(batch) > 0 for batch in batches] != [True] * layer.n_concepts:
            raise ValueError(
                f"batches of {', '.join(str(len(batch)) for batch in batches) or 'no'} pictures for "
                f"{layer.n_concepts} concepts; wanted one batch for each concept, with a picture at least."
            )
    means, ascents = [], []
    for concept, batch in enumerate(concept_batches):
        maps = layer_input(model, batch)
        means.append(layer.whiten(maps).mean((0, 2, 3)))
        ascents.append(layer.derivative(maps, concept))
        if against is not None:
            ascents[-1] -= layer.derivative(layer_input(model, against[concept]), concept)
        if not ascents[-1].isfinite().all():
            raise FloatingPointError(
                f"NaN or infinity in the batch of concept {concept} after step {int(layer.num_batches_tracked)}; no "
                "axis was turned. Look at its pictures, and at the loss; a smaller learning rate may help."
            )
    for concept, ascent in enumerate(ascents):
        layer.collect(concept, ascent)
    gram = _cosines(torch.stack(means))
    _warn_of_opposites(gram)
    before = layer.rotation.clone()
    failures = layer.update_rotation()
    if head is not None:
        with torch.no_grad():
            head.weight.copy_(head.weight.double() @ before @ layer.rotation.T)
    return Round(_alignment(layer), gram, failures, orthogonality_error(layer.rotation))


def concept_scores(model: nn.Module, batches: Iterable[Tensor]) -> np.ndarray:
    """(N, k) float32: the score of every picture on every concept's axis; nothing is changed."""
    layer = layer_of(model)
    return torch.cat([layer.scores(layer_input(model, batch)).float() for batch in batches]).cpu().numpy()


def fold(model: nn.Module) -> nn.Module:
    """A copy of the model for inference, in evaluation, its whitening layer folded into the convolution before it.

    Raises ValueError where the layer does not directly follow a Conv2d of as many channels.
    """
    folded = copy.deepcopy(model).eval()
    layer = layer_of(folded)
    name = next(name for name, module in folded.named_modules() if module is layer)
    parent = folded.get_submodule(name.rpartition(".")[0])
    siblings = list(parent.children())
    previous = siblings[siblings.index(layer) - 1] if siblings[0] is not layer else None
    if not isinstance(previous, nn.Conv2d) or previous.out_channels != layer.n_channels:
        raise ValueError(
            f"{name} follows {type(previous).__name__}; wanted a Conv2d of {layer.n_channels} channels right before "
            "it. Leave this model unfolded."
        )
    matrix, offset = layer.matrix()
    kernel = previous.weight.detach()
    if previous.bias is not None:
        offset = offset + matrix @ previous.bias.detach().double()
    previous.weight = nn.Parameter((matrix @ kernel.double().flatten(1)).view_as(kernel).to(kernel.dtype))
    previous.bias = nn.Parameter(offset.to(kernel.dtype))
    setattr(parent, name.rpartition(".")[2], nn.Identity())
    return folded


def _alignment(layer: ConceptWhitening) -> float:
    best = float(torch.linalg.svdvals(layer.gradient).sum())
    return -float((layer.gradient * layer.rotation[: layer.n_concepts]).sum()) / best if best else 0.0


def _cosines(rows: Tensor) -> np.ndarray:
    unit = functional.normalize(rows.double(), dim=1)
    return (unit @ unit.T).cpu().numpy()


def _warn_of_opposites(gram: np.ndarray) -> None:
    first, second = np.unravel_index(gram.argmin(), gram.shape)
    if gram[first, second] < OPPOSITE:
        warnings.warn(
            f"the whitened means of concepts {first} and {second} have cosine {gram[first, second]:.2f}: nearly "
            "opposite, so no two orthogonal axes follow both. Align one signed axis, or whiten with wider data.",
            RuntimeWarning,
            stacklevel=3,
        )
