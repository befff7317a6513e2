"""Several heads of one shape trained as one, where Keras runs on PyTorch.

A head at batch 2 is so small that a GPU waits for the next operation longer than it computes. So each operation serves
all heads at once; they share nothing but features. Each has its own first weights, order of patches, dropout and early
stopping, and comes out within rounding as if it had been trained alone, which goes the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import pandas as pd

from mitolib import backend
from mitolib.backend import Tensor, torch
from mitolib.progress import track
from mitolib.settings import Profile

LAYERS = (keras.layers.InputLayer, keras.layers.Dense, keras.layers.Dropout, keras.layers.Flatten)
Features = Callable[[int, np.ndarray], np.ndarray]  # (epoch, row numbers) -> features of these rows


def suits(head: keras.Model) -> bool:
    """Whether it is a chain of Dense, Dropout and Flatten, all of it trained, that ends in a softmax; on PyTorch."""
    rectified = [each for each in head.layers if isinstance(each, keras.layers.Dense)]
    activations = [each.activation is keras.activations.relu for each in rectified[:-1]]
    return (
        backend.NAME == "torch"
        and all(type(layer) in LAYERS and layer.trainable for layer in head.layers)
        and all(activations)
        and head.layers[-1] is rectified[-1]
        and rectified[-1].activation is keras.activations.softmax
    )


def fit(
    heads: Sequence[keras.Model],
    train: Features,
    train_labels: np.ndarray,
    validation_nhwc: np.ndarray,
    validation_labels: np.ndarray,
    *,
    profile: Profile,
    rngs: Sequence[np.random.Generator],
    label: str,
) -> list[pd.DataFrame]:
    """Train the heads in place, as `heads.fit` trains one, and return the history of each. One rng for each head."""
    stack, n = Stack(heads, profile.learning_rate, rngs), len(train_labels)
    features = _near(train, n)
    truth, unseen = (backend.tensor(each, "int64") for each in (train_labels, validation_labels))
    validation = backend.tensor(validation_nhwc)[None].expand(len(heads), *[-1] * validation_nhwc.ndim)
    best = [(-math.inf, 0)] * len(heads)  # validation accuracy, and its epoch
    kept, histories = [[]] * len(heads), [[] for _ in heads]
    for epoch in track(range(profile.epochs), label, profile.epochs):
        orders = np.stack([rng.permutation(n) for rng in rngs])
        starts = range(0, n, profile.batch_size)
        seen = []
        for start in starts:  # nothing here waits for the device
            rows = orders[:, start : start + profile.batch_size]
            seen.append(stack.step(features(epoch, rows), truth[backend.tensor(rows, "int64")]))
        sizes = np.minimum(profile.batch_size, n - np.array(starts))
        means = np.average(torch.stack(seen).cpu().numpy(), axis=0, weights=sizes)
        with torch.no_grad():
            validated = _scores(stack.forward(validation), unseen.expand(len(heads), -1)).cpu().numpy()
        for place, row in enumerate(np.concatenate([means, validated]).T.astype(float)):
            if _has_stopped(histories[place], best[place][1], profile):
                continue  # trained along, unseen
            histories[place].append(row)
            if row[2] > best[place][0]:
                best[place], kept[place] = (row[2], epoch), stack.weights(place)
        if all(_has_stopped(history, at, profile) for history, (_, at) in zip(histories, best, strict=True)):
            break
    for head, arrays in zip(heads, kept, strict=True):
        head.set_weights(arrays)
    columns = ["accuracy", "loss", "val_accuracy", "val_loss"]
    return [
        pd.DataFrame(rows, columns=columns, index=pd.RangeIndex(1, len(rows) + 1, name="epoch")) for rows in histories
    ]


def _has_stopped(history: Sequence[np.ndarray], best: int, profile: Profile) -> bool:
    return len(history) - 1 - best >= profile.patience


def _near(train: Features, n: int) -> Callable[[int, np.ndarray], Tensor]:
    """The source by epoch and rows (heads, batch), from the device's memory where all its views leave half of it."""
    views, free = getattr(train, "views", 0), backend.free_bytes()
    if free is None or not views or 2 * views * n * train(0, np.arange(1)).nbytes > free:
        return lambda epoch, rows: backend.tensor(train(epoch, rows.ravel())).unflatten(0, rows.shape)
    kept: dict[int, Tensor] = {}

    def on_device(epoch: int, rows: np.ndarray) -> Tensor:
        view = epoch % views
        if view not in kept:
            kept[view] = backend.tensor(train(view, np.arange(n)), "float16")
        return kept[view][backend.tensor(rows, "int64")].float()

    return on_device


def _scores(logits: Tensor, truth: Tensor) -> Tensor:
    """(2, heads): accuracy, and mean cross-entropy, of logits (heads, N, classes) and classes (heads, N)."""
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none")
    right = (logits.argmax(-1) == truth).float()
    return torch.stack([right.mean(1), losses.unflatten(0, truth.shape).mean(1)])


class Stack:
    """Weights of the heads, (heads, inputs, outputs) of each Dense, and one optimiser for all of them."""

    def __init__(self, heads: Sequence[keras.Model], rate: float, rngs: Sequence[np.random.Generator]) -> None:
        self.layers, self.n = heads[0].layers, len(heads)
        self.parameters = [
            torch.stack([value.detach().clone() for value in values]).requires_grad_()
            for values in zip(
                *([variable.value for variable in head.trainable_variables] for head in heads), strict=True
            )
        ]
        device = self.parameters[0].device
        # Spawned: the orders of the patches stay those of `heads.fit` with the same rng.
        seeds = [int(rng.spawn(1)[0].integers(2**31)) for rng in rngs]
        self.chance = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.adam, self.n_steps = torch.optim.Adam(self.parameters, lr=rate, fused=True), 0

    def forward(self, x: Tensor, *, drops: bool = False) -> Tensor:
        """(heads, N, ...) features -> (heads, N, classes) scores before the softmax."""
        parameters = iter(self.parameters)
        for layer in self.layers:
            if isinstance(layer, keras.layers.Dense):
                kernel, bias = next(parameters), next(parameters)
                shape = x.shape[:-1]
                x = torch.baddbmm(bias[:, None], x.reshape(self.n, -1, x.shape[-1]), kernel).reshape(*shape, -1)
                x = x if layer is self.layers[-1] else x.relu()
            elif isinstance(layer, keras.layers.Flatten):
                x = x.flatten(2)
            elif isinstance(layer, keras.layers.Dropout) and drops and layer.rate:
                drawn = [torch.rand(x.shape[1:], generator=chance, device=x.device) for chance in self.chance]
                x = x * (torch.stack(drawn) >= layer.rate) / (1 - layer.rate)
        return x

    def step(self, x: Tensor, truth: Tensor) -> Tensor:
        """One step of every head; `_scores` before it. Adam as Keras writes it: epsilon beside the raw moment."""
        self.n_steps += 1
        for group in self.adam.param_groups:
            group["eps"] = 1e-7 / math.sqrt(1 - group["betas"][1] ** self.n_steps)
        scores = _scores(self.forward(x, drops=True), truth)
        self.adam.zero_grad()
        scores[1].sum().backward()
        self.adam.step()
        return scores.detach()

    def weights(self, place: int) -> list[np.ndarray]:
        """Of one head, in the order of Keras."""
        return [parameter[place].detach().cpu().numpy().copy() for parameter in self.parameters]
