"""Training a network on batches of row numbers: budgets, steps, and what a trained network makes of each row."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional

from mitolib import settings, splits
from mitolib.progress import track
from mitolib.whitening import resnet
from mitolib.whitening.budget import WhiteningBudget
from mitolib.whitening.passes import kept_generators

BATCH = 64  # in evaluation
OPTIMIZERS = {
    "SGD": partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4),  # of the article
    "AdamW": torch.optim.AdamW,  # learns sooner from random weights
}

Inputs = Callable[[np.ndarray], Tensor]  # row numbers -> a batch for the model


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How the layers of an arm are trained, for how long, and how often its axes are turned meanwhile."""

    steps: int
    batch_size: int
    learning_rate: float
    optimizer: str = "SGD"  # or another of OPTIMIZERS
    equal_parts: bool = False  # batches with as many of each class, where there are many more of one
    every: int = 5  # steps between two rounds; the article turns every 20, of many more steps
    concept_batch: int = 32  # pictures of a concept in a round, fewer where a concept has fewer


@dataclass(frozen=True, kw_only=True)
class UntilFlat:
    """How a whole network is trained until its validation loss is flat, in two stages.

    First on pictures of half the side, at a quarter of the cost, then on whole ones. Both stages end when `patience`
    looks in a row, `every` steps apart, have found no lower validation loss, or after their number of steps; the
    weights of the lowest loss are kept.
    """

    half_steps: int  # at most
    whole_steps: int  # at most
    every: int
    patience: int
    batch_size: int = 32
    half_rate: float = 1e-3  # of learning, with AdamW, which learns sooner from random weights than the article's SGD
    whole_rate: float = 2e-4
    precision: str = "float32"  # or "bfloat16"


def budgets(
    profile: WhiteningBudget,
    *,
    steps: int | None = None,
    trunk_steps: int | None = None,
    tail_steps: int | None = None,
) -> tuple[Budget, UntilFlat, Budget]:
    """Of a layer and its classifier on VGG16, of a whole ResNet-18, and of its last block.

    Numbers of steps that are None are the profile's; trunk_steps: of each of the two stages, at most.
    """
    steps, tail_steps = steps or profile.steps, tail_steps or profile.tail_steps
    arms = {"batch_size": 32, "learning_rate": 0.01, "equal_parts": True}
    on_features = Budget(steps=steps, optimizer="AdamW", every=_every(steps), **arms)
    whole = UntilFlat(
        half_steps=trunk_steps or profile.trunk_steps[0],
        whole_steps=trunk_steps or profile.trunk_steps[1],
        every=profile.looks[0],
        patience=profile.looks[1],
        precision=precision(),
    )
    return on_features, whole, Budget(steps=tail_steps, every=_every(tail_steps), **arms)


def _every(steps: int) -> int:
    """Steps between two rounds: so many that there is one in the shortest training."""
    return max(1, min(Budget.every, steps // 2))


@cache
def precision() -> str:
    """ "bfloat16" where this processor trains a convolution at least 1.3 times as fast in it, else "float32".

    Measured once per process, in a fraction of a second, by the rule of `settings.faster_in_bfloat16`.
    """
    maps_nchw = torch.ones(8, 128, 28, 28).to(memory_format=torch.channels_last)
    with kept_generators():  # what was seeded before stays as it was
        layer = nn.Conv2d(128, 128, 3, padding=1).to(memory_format=torch.channels_last)

    def step(*, in_bfloat16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            maps = layer(maps_nchw)
        maps.float().mean().backward()

    passes = {"float32": partial(step, in_bfloat16=False), "bfloat16": partial(step, in_bfloat16=True)}
    return "bfloat16" if settings.faster_in_bfloat16(passes) else "float32"


def pictures(patches_nhwc: np.ndarray, augment: Callable[[np.ndarray], np.ndarray] | None = None) -> Inputs:
    """Batches of pictures, augmented anew at each call if asked for. patches_nhwc: uint8, 1 or 3 channels."""

    def inputs(rows: np.ndarray) -> Tensor:
        batch_nhwc = np.asarray(patches_nhwc[rows])
        return resnet.as_input(augment(batch_nhwc) if augment else batch_nhwc)

    return inputs


def batches(inputs: Inputs, rows: np.ndarray, size: int = BATCH) -> Iterator[Tensor]:
    """The rows in order, `size` at a time."""
    return (inputs(rows[i : i + size]) for i in range(0, len(rows), size))


def outputs(model: nn.Module, inputs: Inputs, rows: np.ndarray, label: str = "") -> Tensor:
    """What the model, in evaluation, makes of each row, concatenated."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch) for batch in track(batches(inputs, rows), label, -(-len(rows) // BATCH))])


def p_patient(model: nn.Module, inputs: Inputs, rows: np.ndarray) -> np.ndarray:
    """(len(rows),) probability of the last class."""
    return outputs(model, inputs, rows).softmax(1)[:, -1].numpy()


def shuffled(rows: np.ndarray, size: int, steps: int, *, rng: Generator) -> Iterator[np.ndarray]:
    """`steps` batches of `size` rows, no row twice before all have been dealt out; a short last batch is left out.

    Fewer rows than `size` make one batch.
    """
    size = min(size, len(rows))
    per_epoch = len(rows) // size
    for step in range(steps):
        if step % per_epoch == 0:
            order = rng.permutation(rows)
        yield order[step % per_epoch * size :][:size]


def fit(
    model: nn.Module,
    inputs: Inputs,
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    budget: Budget,
    rng: Generator,
    label: str,
    turn: Callable[[], None] | None = None,
) -> pd.Series:
    """Train in place and return the loss of every step, from 1: cross-entropy, one-cycle rate.

    labels: (N,) class indices, of which `rows` are used. turn: called after every `budget.every` steps but not in the
    last tenth, so that the network settles behind the last turn.
    """
    truth = torch.from_numpy(labels)
    optimizer = OPTIMIZERS[budget.optimizer](model.parameters(), lr=budget.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, budget.learning_rate, total_steps=budget.steps, cycle_momentum=False
    )
    if budget.equal_parts:
        dealt = splits.equal_parts(labels, rows, budget.batch_size, budget.steps, rng=rng)
    else:
        dealt = shuffled(rows, budget.batch_size, budget.steps, rng=rng)
    losses = []
    for step, batch_rows in enumerate(track(dealt, label, budget.steps), start=1):
        losses.append(_step(model, inputs(batch_rows), truth[batch_rows], optimizer))
        schedule.step()
        if turn and step % budget.every == 0 and step <= 0.9 * budget.steps:
            turn()
    model.eval()
    return pd.Series(losses, index=range(1, len(losses) + 1), name="loss")


def _step(
    model: nn.Module, batch: Tensor, truth: Tensor, optimizer: torch.optim.Optimizer, *, precision: str = "float32"
) -> float:
    """One step of training; its loss."""
    model.train()
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        logits = model(batch)
    loss = functional.cross_entropy(logits.float(), truth)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def fit_until_flat(
    model: nn.Module,
    augmented: Inputs,
    plain: Inputs,
    labels: np.ndarray,
    rows: Mapping[str, np.ndarray],
    *,
    budget: UntilFlat,
    rng: Generator,
    label: str,
) -> pd.DataFrame:
    """Train in place in two stages; a row for each look: half_size, step (of its stage), loss, validation_loss.

    Batches of `augmented` rows["train"] hold as many of each class, and the validation loss is the mean of both
    classes' cross-entropies over rows["validation"], `plain`. loss: mean over the steps since the last look.
    Raises ValueError without validation patches of each class.
    """
    if missing := set(labels[rows["train"]]) - set(labels[rows["validation"]]):
        raise ValueError(
            f"no validation patch of class {min(missing)}; wanted some of each class, since training ends when their "
            "loss is flat. Add people, or use a smaller stride."
        )
    looks = []
    for half, rate, steps in (
        (True, budget.half_rate, budget.half_steps),
        (False, budget.whole_rate, budget.whole_steps),
    ):
        sizes = (partial(_of_half_size, augmented), partial(_of_half_size, plain)) if half else (augmented, plain)
        stage = _until_flat(model, *sizes, labels, rows, rate, steps, budget=budget, rng=rng, label=label)
        looks.append(stage.assign(half_size=half))
    model.eval()
    return pd.concat(looks, ignore_index=True)[["half_size", "step", "loss", "validation_loss"]]


def _of_half_size(inputs: Inputs, rows: np.ndarray) -> Tensor:
    return functional.avg_pool2d(inputs(rows), 2)


def _until_flat(
    model: nn.Module,
    augmented: Inputs,
    plain: Inputs,
    labels: np.ndarray,
    rows: Mapping[str, np.ndarray],
    rate: float,
    steps: int,
    *,
    budget: UntilFlat,
    rng: Generator,
    label: str,
) -> pd.DataFrame:
    """One stage; the model has the weights of its lowest validation loss."""
    truth, optimizer = torch.from_numpy(labels), OPTIMIZERS["AdamW"](model.parameters(), lr=rate)
    dealt = splits.equal_parts(labels, rows["train"], budget.batch_size, steps, rng=rng)
    looks, losses, lowest, best, since = [], [], np.inf, model.state_dict(), 0
    for step, batch_rows in enumerate(track(dealt, label, steps), start=1):
        losses.append(_step(model, augmented(batch_rows), truth[batch_rows], optimizer, precision=budget.precision))
        if step % budget.every and step < steps:
            continue
        validation = balanced_loss(model, plain, labels, rows["validation"])
        looks.append((step, float(np.mean(losses)), validation))
        losses, since = [], since + 1
        if validation < lowest:
            lowest, best, since = validation, copy.deepcopy(model.state_dict()), 0
        if since >= budget.patience:
            break
    model.load_state_dict(best)
    return pd.DataFrame(looks, columns=["step", "loss", "validation_loss"])


def balanced_loss(model: nn.Module, inputs: Inputs, labels: np.ndarray, rows: np.ndarray) -> float:
    """Cross-entropy in evaluation: the mean over the classes of its mean over their rows."""
    losses = functional.cross_entropy(outputs(model, inputs, rows), torch.from_numpy(labels[rows]), reduction="none")
    return float(np.mean([losses[labels[rows] == label].mean() for label in np.unique(labels[rows])]))
