"""Concept whitening in a model: put the layer in, calibrate it, turn its axes onto concepts, read them, fold it away.

Pictures are torch tensors (N, 3, H, W), maps (N, C, H, W); k is the number of concepts, d = C the number of channels.
A batch may also be the tuple or list (pictures, labels, ...) that a loader gives.

Whatever ends one of these functions early, an interrupt too, leaves the model as it was: modules, parameters, buffers
and training flags; and so torch's generators.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from mitolib.whitening.layer import ConceptWhitening, orthogonality_error, samples_of
from mitolib.whitening.passes import (
    caught_in,
    change_between,
    first_of,
    kept_generators,
    name_of,
    named,
    outputs_of,
    pictures_of,
    undone_if_it_fails,
)

OPPOSITE = -0.9  # cosine of two concept means below which orthogonal axes cannot serve both
SIDES_PX = (32, 64, 28, 96, 128, 224, 256, 299)  # of pictures that networks are made for, the small ones first


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

    batches: pictures for `calibrate`; None leaves mean 0 and covariance I, as the public code does, and the network
    then has to learn again. settings: of ConceptWhitening. With `affine`, gain and shift are taken over.
    Raises ValueError for a name that is no BatchNorm2d, and lists those that are; for a norm with hooks or a forward of
    its own, and for one that is used more than once or never; and what `calibrate` raises.
    """
    norms = {key: module for key, module in named(model).items() if key and isinstance(module, nn.BatchNorm2d)}
    norm, known = norms.get(name), ", ".join(norms) or "none"
    if norm is None:
        raise ValueError(f"{name!r} is no BatchNorm2d of {type(model).__name__}; these are: {known}.")
    if more := _more_than(norm, nn.BatchNorm2d):
        raise ValueError(f"{name} {more}")
    if len(places := [key for key, module in norms.items() if module is norm]) > 1:
        raise ValueError(f"{' and '.join(places)} are one layer; wanted one place. Give each its own (copy.deepcopy).")
    layer = ConceptWhitening(norm.num_features, n_concepts, **settings).train(norm.training)
    if layer.weight is not None and norm.weight is not None:
        for own, former in ((layer.weight, norm.weight), (layer.bias, norm.bias)):
            own.requires_grad_(former.requires_grad).data.copy_(former)
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
    if not _plain(head) or head.bias is None:
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
        if not change <= _tolerance(head.weight, 1e-3):
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
    Raises ValueError for another number of batches than concepts or an empty one, FloatingPointError for NaN in one;
    and what `layer_input` raises.
    """
    layer = layer_of(model)
    if head is not None and not _plain(head):
        raise ValueError(
            f"head is {type(head).__name__}, maybe with weight_norm; wanted a plain Linear layer. Pass that of "
            "insert_before_head, or none: the layers behind the axes then learn to follow."
        )
    with undone_if_it_fails(model, *([] if head is None else [head.weight])):
        shown = [pictures_of(batch) for batch in concept_batches]
        others = None if against is None else [pictures_of(batch) for batch in against]
        for batches in (shown, others):
            if batches is not None and [len(batch) > 0 for batch in batches] != [True] * layer.n_concepts:
                raise ValueError(
                    f"batches of {', '.join(str(len(batch)) for batch in batches) or 'no'} pictures for "
                    f"{layer.n_concepts} concepts; wanted one batch for each concept, with a picture at least. "
                    "Give each concept pictures, in the order of the axes."
                )
        means, ascents = [], []
        for concept, batch in enumerate(shown):
            maps = layer_input(model, batch)
            means.append(layer.whiten(maps).mean((0, 2, 3)))
            ascents.append(layer.derivative(maps, concept))
            if others is not None:
                ascents[-1] -= layer.derivative(layer_input(model, others[concept]), concept)
            if not ascents[-1].isfinite().all():
                raise FloatingPointError(
                    f"NaN or infinity in the batch of concept {concept} after step {int(layer.num_batches_tracked)}; "
                    "no axis was turned. Look at its pictures, and at the loss; a smaller learning rate may help."
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
    """(N, k) float32: the score of every picture on every concept's axis; nothing is changed.

    Raises ValueError for no batch; and what `layer_input` raises.
    """
    layer = layer_of(model)
    with undone_if_it_fails(model):
        scores = [layer.scores(layer_input(model, batch)).float() for batch in first_of(batches)[1]]
    return torch.cat(scores).cpu().numpy()


def draw(concepts: Mapping[str, Sequence[int]], n: int, *, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """For one round, n distinct rows of each concept's pictures, in the order of the concepts.

    concepts: name -> row numbers of its pictures. Raises ValueError for a concept with fewer than n pictures, or
    none, and for a picture in two concepts: it would pull two orthogonal axes towards itself.
    """
    owner: dict[int, str] = {}
    for name, rows in concepts.items():
        if len(rows) < n or n < 1:
            raise ValueError(
                f"concept {name!r} has {len(rows)} pictures, a batch takes {n}; wanted that many at least, and one. "
                "Give it more pictures, take smaller batches, or leave it out."
            )
        if twice := [row for row in rows if owner.setdefault(row, name) != name]:
            raise ValueError(
                f"{len(twice)} pictures are in two concepts, picture {twice[0]} in {owner[twice[0]]!r} and {name!r}. "
                "Keep each in one of them, or leave it out."
            )
    return {name: rng.choice(np.asarray(rows), n, replace=False) for name, rows in concepts.items()}


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
    if not change <= _tolerance(folded.get_submodule(conv_name).weight, 1e-4):
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
        if more := _more_than(module, plain):
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


def _tolerance(weight: Tensor, least: float) -> float:
    """Of a change that should be none: 8 roundings where those of the weights are coarser than `least`."""
    return max(least, 8 * torch.finfo(weight.dtype).eps)


def _plain(head: object) -> bool:
    """Whether it is a linear layer whose weights are its own, not computed by weight_norm or the like."""
    return isinstance(head, nn.Linear) and "weight" in head._parameters


def _more_than(module: nn.Module, plain: type[nn.Module]) -> str:
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
    own = [
        name for name in ("forward", "_conv_forward") if getattr(type(module), name, 0) is not getattr(plain, name, 0)
    ]
    if own or "forward" in vars(module):
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
