"""Forward passes through a PyTorch model that leave it as it was, and what a batch of pictures is.

A batch is a tensor of floats (N, C, H, W), or the tuple or list (pictures, labels, ...) that a loader makes of them.
Pictures that a function takes lie on the device of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import chain

import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, str)  # attributes of a module that a pass may change, such as its mode or a counter


def first_of(batches: Iterable[Tensor]) -> tuple[Tensor, Iterator[Tensor]]:
    """Pictures of the first batch, and all batches."""
    iterator = iter(batches)
    for batch in iterator:
        return pictures_of(batch), chain([batch], iterator)
    raise ValueError(
        "no batch came; wanted one at least. A generator gives its batches only once: pass a list or a loader."
    )


def pictures_of(batch: object) -> Tensor:
    """(N, C, H, W), taken out of (pictures, labels, ...) if need be."""
    wanted = "wanted a tensor of floats (N, C, H, W), or a tuple or list that begins with one: (pictures, labels)."
    pictures, *others = batch if isinstance(batch, (tuple, list)) and batch else [batch]
    if not isinstance(pictures, Tensor):
        inside = "" if pictures is batch else f" that begins with {type(pictures).__name__}"
        raise TypeError(
            f"a batch is {type(batch).__name__}{inside}; {wanted} Take the pictures out: batch['image'] of a dict, "
            "torch.from_numpy of an array."
        )
    if pictures.ndim != 4:
        raise ValueError(
            f"a batch of pictures has the shape {tuple(pictures.shape)}; {wanted} Pass one batch as [pictures], and "
            "single pictures as torch.stack(pictures)."
        )
    if any(isinstance(part, Tensor) and part.shape == pictures.shape for part in others):
        raise ValueError(
            f"a batch holds several tensors of shape {tuple(pictures.shape)}; {wanted} Say which are the pictures: "
            "pass them alone, or all of them as torch.cat(batch)."
        )
    if not pictures.is_floating_point():
        raise TypeError(
            f"a batch of pictures is {pictures.dtype}; {wanted} Convert it as for training: pictures.float() / 255."
        )
    return pictures


class Reached(BaseException):
    """Ends a forward pass, raised by a hook that has caught what it was there for.

    No Exception: a model that handles those itself would go on.
    """


def caught_in(model: nn.Module, module: nn.Module, pictures: Tensor, *, reads: bool = False) -> Tensor:
    """What a module of the model gives, or reads, in a forward pass in evaluation that ends there."""
    caught: list[Tensor] = []

    def catch(_: nn.Module, inputs: tuple[Tensor, ...], named: Mapping[str, Tensor], *outputs: Tensor) -> None:
        caught.append(next(chain(outputs, inputs, named.values())).detach())
        raise Reached

    register = module.register_forward_pre_hook if reads else module.register_forward_hook
    hook = register(catch, with_kwargs=True)
    try:
        with evaluation(model), suppress(Reached):
            model(pictures)
    finally:
        hook.remove()
    if not caught:
        raise ValueError(
            f"no forward pass in evaluation reaches {name_of(model, module)}; wanted a layer that the model uses then. "
            "Put the whitening in another place."
        )
    return caught[0]


def outputs_of(model: nn.Module, pictures: Tensor) -> list[Tensor]:
    """All tensors of floats that a model gives in evaluation, in double precision.

    What it draws is the same in every call, and torch's generators stay where they are.
    """

    def tensors(output: object) -> Iterator[Tensor]:
        if isinstance(output, Tensor):
            yield output
        elif isinstance(output, (tuple, list, Mapping)):
            for part in output.values() if isinstance(output, Mapping) else output:
                yield from tensors(part)

    with evaluation(model), kept_generators():
        torch.default_generator.manual_seed(0)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)
        return [tensor.double() for tensor in tensors(model(pictures)) if tensor.is_floating_point()]


def change_between(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """The largest difference of two results of `outputs_of`, relative to the largest value; NaN if none is finite."""
    least = torch.finfo(torch.float64).tiny  # of results that are zero in both
    changes = [
        (former - latter).abs().max() / former.abs().max().clamp_min(least)
        for former, latter in zip(before, after, strict=True)
    ]
    return float(torch.stack(changes).max()) if changes else float("nan")


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """The model in evaluation, without gradients; afterwards each module is in the mode it was in."""
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, was_training in training.items():
            module.training = was_training


def kept_generators() -> AbstractContextManager[None]:
    """Whatever is drawn inside, torch's generators are afterwards where they were."""
    return torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else [])


@contextmanager
def undone_if_it_fails(model: nn.Module, *written: nn.Parameter) -> Iterator[None]:
    """Whatever ends the block early, the model is as it was before. written: parameters that the block may change."""
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    plain = [{name: value for name, value in vars(module).items() if isinstance(value, PLAIN)} for module in modules]
    parts = [(dict(module._modules), dict(module._buffers)) for module in modules]
    values = [(tensor, tensor.detach().clone()) for tensor in chain(model.buffers(), written)]
    on_cpu, on_gpus = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    except BaseException:
        for module, attributes, (children, buffers) in zip(modules, plain, parts, strict=True):
            vars(module).update(attributes)
            for now, then in ((module._modules, children), (module._buffers, buffers)):
                now.clear()
                now.update(then)
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
        torch.set_rng_state(on_cpu)
        torch.cuda.set_rng_state_all(on_gpus)
        raise


def named(model: nn.Module) -> dict[str, nn.Module]:
    """Every name of every module: one that stands in two places has two."""
    return dict(model.named_modules(remove_duplicate=False))


def name_of(model: nn.Module, module: nn.Module) -> str:
    return next(name for name, candidate in model.named_modules() if candidate is module) or type(model).__name__
