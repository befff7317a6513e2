"""Training a network on batches of row numbers: budgets, steps, and what a trained network makes of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from mitolib.settings import WhiteningBudget
from mitolib.whitening import resnet
from mitolib.whitening.passes import kept_generators

BATCH = 64  # in evaluation
OPTIMIZERS = {
    "SGD": partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4),  # of the article
    "AdamW": torch.optim.AdamW,  # learns sooner from random weights
}

Inputs = Callable[[np.ndarray], Tensor]  # row numbers -> a batch for the model


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How a network is trained, for how long, and how often its axes are turned meanwhile."""

    steps: int
    batch_size: int
    learning_rate: float
    optimizer: str = "SGD"  # or another of OPTIMIZERS
    equal_parts: bool = False  # batches with as many of each class, where there are many more of one
    half_size: int = 0  # steps at the beginning that see pictures of half the side, at a quarter of the cost
    precision: str = "float32"  # or "bfloat16"
    every: int = 5  # steps between two rounds; the article turns every 20, of many more steps
    concept_batch: int = 32  # pictures of a concept in a round, fewer where a concept has fewer


def budgets(
    profile: WhiteningBudget, *, whole_steps: int | None = None, tail_steps: int | None = None
) -> tuple[Budget, Budget]:
    """Of a whole network, and of a last block. Numbers of steps that are None are the profile's."""
    whole_steps = whole_steps or profile.whole_steps
    whole = Budget(
        steps=whole_steps,
        batch_size=32,
        learning_rate=0.002,
        optimizer="AdamW",
        equal_parts=True,
        half_size=round(0.9 * whole_steps),
        precision=precision(),
    )
    tail = Budget(steps=tail_steps or profile.steps, batch_size=32, learning_rate=0.01, equal_parts=True)
    return whole, tail


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
        model.train()
        optimizer.zero_grad()
        batch = inputs(batch_rows)
        if step <= budget.half_size:
            batch = functional.avg_pool2d(batch, 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=budget.precision == "bfloat16"):
            logits = model(batch)
        loss = functional.cross_entropy(logits.float(), truth[batch_rows])
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if turn and step % budget.every == 0 and step <= 0.9 * budget.steps:
            turn()
    model.eval()
    return pd.Series(losses, index=range(1, len(losses) + 1), name="loss")
