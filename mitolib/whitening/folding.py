"""A model without its whitening layer: for inference, the convolution before it computes what the layer did."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from operator import attrgetter

import torch
from torch import Tensor, fx, nn

from mitolib.whitening.layer import ConceptWhitening
from mitolib.whitening.passes import change_between, kept_generators, name_of, named, outputs_of, pictures_of
from mitolib.whitening.surgery import layer_of, more_than, tolerance

SIDES_PX = (32, 64, 28, 96, 128, 224, 256, 299)  # of pictures that networks are made for, the small ones first


def fold(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """A copy of the model for inference, in evaluation, its whitening layer folded into the convolution before it.

    Which one that is, `torch.fx` tells from what the forward pass computes. Its kernel takes the layer in where nothing
    else happens to its output: a whitening mixes all channels, so a grouped convolution cannot. The copy is compared
    with the model, to 1e-4 of the largest output (in half precision, 8 roundings), on `example`, a batch of pictures;
    without it, on noise of a size that the model takes.
    Raises ValueError, and changes nothing, where the layer cannot be folded, and says what stands in the way.
    """
    layer_of(model)
    with kept_generators():
        try:
            whole, traced = (copy.deepcopy(model).eval() for _ in range(2))  # a forward pass may leave traces behind
            graph = _Tracer().trace(traced)
        except Exception as error:
            raise ValueError(
                f"{type(model).__name__} cannot be traced ({type(error).__name__}: {error}); wanted a model that can "
                "be copied, with a forward pass that is the same for all pictures: model.module of one in a wrapper. "
                "Leave this model unfolded."
            ) from error
        name, conv_name = _foldable(traced, graph)
        folded = copy.deepcopy(whole)
        _absorb(folded.get_submodule(conv_name), layer_of(folded))
        for place, module in named(folded).items():
            if isinstance(module, ConceptWhitening):
                parent, _, child = place.rpartition(".")
                setattr(folded.get_submodule(parent), child, nn.Identity().eval())
        pictures = _noise(whole, graph) if example is None else pictures_of(example)
        change = change_between(outputs_of(whole, pictures), outputs_of(folded, pictures))
    if not change <= tolerance(folded.get_submodule(conv_name).weight, 1e-4):
        raise ValueError(
            f"with {name} folded into {conv_name} the outputs change by {change:.1g} of the largest; wanted the same "
            "outputs, finite ones. Leave this model unfolded."
        )
    return folded


class _Tracer(fx.Tracer):
    """Takes the whitening layer and every convolution for one step, however they compute."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (ConceptWhitening, nn.Conv2d)) or super().is_leaf_module(m, module_qualified_name)


def _foldable(model: nn.Module, graph: fx.Graph) -> tuple[str, str]:
    """Names of the whitening layer and of the convolution that may take it in; ValueError if none may."""
    modules, layer = named(model), layer_of(model)
    steps = {node: modules[node.target] for node in graph.nodes if node.op == "call_module"}
    here = [node for node, module in steps.items() if module is layer]
    name = name_of(model, layer)
    if len(here) != 1:
        raise ValueError(
            f"{name} is used {len(here)} times in a forward pass; wanted once, and not inside of a wrapper. "
            "Leave this model unfolded."
        )
    before = next(iter(here[0].all_input_nodes), None)
    conv = steps.get(before)
    if not isinstance(conv, nn.Conv2d):
        raise ValueError(
            f"{name} follows {_step(before, steps)}; wanted a Conv2d of {layer.n_channels} channels right before it. "
            "Leave this model unfolded."
        )
    others = [node for node in before.users if node is not here[0]]
    others += [node for node, module in steps.items() if module is conv and node is not before]
    shared = {node: attrgetter(node.target)(model) for node in graph.nodes if node.op == "get_attr"}
    others += [user for node, tensor in shared.items() if tensor is conv.weight for user in node.users]
    if others:
        raise ValueError(
            f"{before.target} serves not only {name}, but also {', '.join(_step(node, steps) for node in others)}; "
            "wanted a convolution that is computed for it alone. Leave this model unfolded."
        )
    if conv.groups > 1:
        raise ValueError(
            f"{before.target} is a convolution in {conv.groups} groups; wanted one group, since the whitening mixes "
            "all channels (a dense kernel with zeros between groups would do). Leave this model unfolded."
        )
    for place, module, plain in ((before.target, conv, nn.Conv2d), (name, layer, ConceptWhitening)):
        if more := more_than(module, plain):
            raise ValueError(f"{place} {more} Leave this model unfolded.")
    return name, before.target


def _absorb(conv: nn.Conv2d, layer: ConceptWhitening) -> None:
    """Let a convolution compute what the layer made of its output."""
    matrix, offset = layer.matrix()
    kernel, trained = conv.weight.detach(), conv.weight.requires_grad
    if conv.bias is not None:
        offset = offset + matrix @ conv.bias.detach().double()
    mixed = (matrix @ kernel.double().flatten(1)).view_as(kernel)
    conv.weight = nn.Parameter(torch.empty_like(kernel).copy_(mixed), trained)
    conv.bias = nn.Parameter(offset.to(kernel.dtype), trained)


def _step(node: fx.Node | None, steps: Mapping[fx.Node, nn.Module]) -> str:
    """What a node of the graph computes, in words."""
    if node is None or node.op in ("get_attr", "placeholder"):
        return "the input of the model" if node is not None and node.op == "placeholder" else "a constant"
    if node in steps:
        return f"{type(steps[node]).__name__} {node.target!r}"
    return "the result" if node.op == "output" else f"the function {getattr(node.target, '__name__', node.target)}"


def _noise(model: nn.Module, graph: fx.Graph) -> Tensor:
    """Two pictures (2, C, side, side) of noise, with which the model runs."""
    modules = [model.get_submodule(node.target) for node in graph.nodes if node.op == "call_module"]
    first = next(module for module in modules if isinstance(module, nn.Conv2d))
    generator = torch.Generator().manual_seed(0)
    for side in SIDES_PX:
        pictures = torch.randn(2, first.in_channels, side, side, generator=generator).to(first.weight)
        with suppress(Exception):  # of any kind, where the size does not fit
            outputs_of(model, pictures)
            return pictures
    raise ValueError(
        f"{type(model).__name__} takes no noise of {first.in_channels} channels and {', '.join(map(str, SIDES_PX))} "
        "px; wanted pictures to compare outputs with. Pass a batch of them: fold(model, example=pictures)."
    )
