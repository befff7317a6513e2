"""Concept whitening in a model: put the layer in, find it again, calibrate it.

Pictures are torch tensors (N, 3, H, W), maps (N, C, H, W); k is the number of concepts, d = C the number of channels.
A batch may also be the tuple or list (pictures, labels, ...) that a loader gives.

Whatever ends one of these functions early, an interrupt too, leaves the model as it was: modules, parameters, buffers
and training flags; and so torch's generators.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mitolib.whitening.layer import ConceptWhitening, samples_of
from mitolib.whitening.passes import (
    caught_in,
    change_between,
    first_of,
    named,
    outputs_of,
    pictures_of,
    undone_if_it_fails,
)


def replace_norm(
    model: nn.Module, name: str, n_concepts: int, batches: Iterable[Tensor] | None, **settings: object
) -> ConceptWhitening:
    """Put a ConceptWhitening in the place of the BatchNorm2d `name` ("layer4.1.bn1"), in `model` itself.

    batches: pictures for `calibrate`; None leaves mean 0 and covariance I, as the public code does, and the network
    then has to learn again. settings: of ConceptWhitening. With `affine`, gain and shift are taken over.
    Raises ValueError for a name that is no BatchNorm2d, and lists those that are; for a norm with hooks or a forward of
    its own, and for one that is used more than once or never; and what `calibrate` raises.
    """
    norms = {key: module for key, module in named(model).items() if key and isinstance(module, nn.BatchNorm2d)}
    norm, known = norms.get(name), ", ".join(norms) or "none"
    if norm is None:
        raise ValueError(f"{name!r} is no BatchNorm2d of {type(model).__name__}; these are: {known}.")
    if more := more_than(norm, nn.BatchNorm2d):
        raise ValueError(f"{name} {more}")
    if len(places := [key for key, module in norms.items() if module is norm]) > 1:
        raise ValueError(f"{' and '.join(places)} are one layer; wanted one place. Give each its own (copy.deepcopy).")
    layer = ConceptWhitening(norm.num_features, n_concepts, **settings).train(norm.training)
    if layer.weight is not None and norm.weight is not None:
        for new, former in ((layer.weight, norm.weight), (layer.bias, norm.bias)):
            new.requires_grad_(former.requires_grad).data.copy_(former)
    if tensors := [tensor for tensor in chain(norm.parameters(), norm.buffers()) if tensor.is_floating_point()]:
        layer.to(tensors[0].device, tensors[0].dtype)
    with undone_if_it_fails(model):
        if batches is not None:
            first, batches = first_of(batches)
            _check_used_once(model, norm, name, first[:2])
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
    Raises ValueError for another head, for an unknown stage, and where the logits would change, since something else
    than averaging follows; and what `calibrate` raises.
    """
    head = getattr(model, "fc", None)
    if not is_plain_linear(head) or head.bias is None:
        raise ValueError(
            f"model.fc is {type(head).__name__}, maybe without a bias or with weight_norm; wanted a plain Linear layer "
            "with a bias, to absorb the whitening. Give the model one of that name; its bias may be zeros."
        )
    if stage not in (stages := [name for name, _ in model.named_modules() if name]):
        raise ValueError(f"stage {stage!r} is none of {type(model).__name__}; these are: {', '.join(stages)}.")
    with undone_if_it_fails(model, head.weight, head.bias):
        first, batches = first_of(batches)
        n_channels = caught_in(model, model.get_submodule(stage), first[:2]).shape[1]
        if n_channels != head.in_features:
            raise ValueError(
                f"{stage} gives {n_channels} channels, model.fc reads {head.in_features} features; wanted one number, "
                "as averaging leaves it. Name the last stage (stage=...), or take the place of a norm: replace_norm."
            )
        before = outputs_of(model, first[:8])
        layer = ConceptWhitening(n_channels, n_concepts, affine=False, **settings)
        layer.to(head.weight.device).train(model.training)
        model.get_submodule(stage).add_module("whitening", layer)  # `append` numbers it, maybe as a block of a slice
        calibrate(model, batches)
        matrix, offset = layer.matrix()
        with torch.no_grad():
            weight = torch.linalg.solve(matrix, head.weight.double(), left=False)
            head.bias -= (weight @ offset).to(head.bias.dtype)
            head.weight.copy_(weight)
        change = change_between(before, outputs_of(model, first[:8]))
        if not change <= tolerance(head.weight, 1e-3):
            raise ValueError(
                f"a layer after {stage} changes what the model gives, by {change:.1g} of the largest value; wanted the "
                "same, as where only averaging and model.fc follow. Put it elsewhere: replace_norm."
            )
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


def layer_input(model: nn.Module, batch: Tensor) -> Tensor:
    """The map (N, C, H, W) that reaches the whitening layer, the model being in evaluation; nothing is changed.

    The forward pass ends there: a round of rotations is little else than such passes.
    Raises TypeError or ValueError for what is no batch, ValueError for a layer that no forward pass reaches.
    """
    layer = layer_of(model)
    with undone_if_it_fails(model):
        maps = caught_in(model, layer, pictures_of(batch), reads=True)
        layer.check(maps)
    return maps


def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the layer's mean and covariance to those of these pictures, the rest of the model in evaluation.

    The running statistics lag behind training by some 1 / momentum = 20 steps: calibrate with the training set before
    the first `align` and before every evaluation. Raises ValueError for no batch and for no more positions than
    channels, FloatingPointError for NaN; and what `layer_input` raises.
    """
    layer = layer_of(model)
    n, total, product = 0, 0.0, 0.0
    with undone_if_it_fails(model):
        for batch in first_of(batches)[1]:
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
            raise FloatingPointError(
                "NaN or infinity in the maps to calibrate with. Look at the pictures and the weights."
            )
        layer.set_statistics(mean, covariance.to(layer.running_mean.dtype))


def tolerance(weight: Tensor, least: float) -> float:
    """Of a change that should be none: 8 roundings where those of the weights are coarser than `least`."""
    return max(least, 8 * torch.finfo(weight.dtype).eps)


def is_plain_linear(head: object) -> bool:
    """Whether it is a linear layer whose weights are its own, not computed by weight_norm or the like."""
    return isinstance(head, nn.Linear) and "weight" in head._parameters


def more_than(module: nn.Module, plain: type[nn.Module]) -> str:
    """What a module does beside what `plain` does, with the remedy; "" for nothing."""
    if parametrize.is_parametrized(module):
        names = ", ".join(module.parametrizations)
        return (
            f"computes its {names} anew in each pass; wanted parameters that stay. Bake it in before: "
            "torch.nn.utils.parametrize.remove_parametrizations."
        )
    if hooks := [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]:
        names = ", ".join(getattr(hook, "__name__", type(hook).__name__) for hook in hooks)
        return (
            f"has hooks ({names}), which would be lost; wanted none. Take them off before: the handle's remove(), "
            "torch.nn.utils.remove_weight_norm, remove_spectral_norm."
        )
    overridden = [
        name for name in ("forward", "_conv_forward") if getattr(type(module), name, 0) is not getattr(plain, name, 0)
    ]
    if overridden or "forward" in vars(module):
        return (
            f"is a {type(module).__name__} with a forward of its own; wanted a plain {plain.__name__}. Put one with "
            "the same parameters in its place, and what it does beyond that behind it."
        )
    return ""


def _check_used_once(model: nn.Module, norm: nn.Module, name: str, pictures: Tensor) -> None:
    calls: list[nn.Module] = []
    hook = norm.register_forward_pre_hook(lambda module, _: calls.append(module))
    try:
        outputs_of(model, pictures)
    finally:
        hook.remove()
    if len(calls) != 1:
        raise ValueError(
            f"{name} is used {len(calls)} times in a forward pass in evaluation; wanted once, since its maps have one "
            "covariance. Name another norm layer, or give each use a layer of its own (copy.deepcopy)."
        )
