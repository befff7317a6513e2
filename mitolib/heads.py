"""Fit a head on features, with the paper's optimiser, loss and early stopping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from mitolib import backend, stacked
from mitolib.progress import track
from mitolib.settings import LABELS, Profile

Histories = list[pd.DataFrame]


def one_hot(labels: np.ndarray) -> np.ndarray:
    """(N,) class indices -> (N, 2) float32."""
    return np.eye(len(LABELS), dtype=np.float32)[labels]


def fit(
    head: keras.Model,
    train: Callable[[int, np.ndarray], np.ndarray],
    train_labels: np.ndarray,
    validation_nhwc: np.ndarray,
    validation_labels: np.ndarray,
    *,
    profile: Profile,
    rng: np.random.Generator,
    label: str,
) -> pd.DataFrame:
    """Train `head` in place and return its history: one row per epoch, from 1.

    Columns accuracy, loss, val_accuracy, val_loss. train: (epoch, row numbers) -> features. Every epoch shows every
    patch once, in a new order. Adam, categorical cross-entropy; training stops when the validation accuracy has not
    improved for `profile.patience` epochs, and the weights of the best epoch are put back (the paper does not say which
    it kept). Labels are (N,) class indices.
    Raises MemoryError, with the parameter to change, where a batch does not fit into the device's memory.

    The loop is written out since Keras' `fit` left one of two cores idle in some epochs and not in others: a step took
    26 or 34 ms, and of a wider head 41 or 68. On PyTorch a head of Dense alone goes the way of `mitolib.stacked`.
    """
    if stacked.suits(head):
        data = train, train_labels, validation_nhwc, validation_labels
        return fit_several([head], *data, profile=profile, rngs=[rng], label=label)[0]
    optimizer = backend.FusedAdam(profile.learning_rate)
    head.compile(optimizer=optimizer, loss=backend.cross_entropy(), metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=profile.patience, restore_best_weights=True
    )
    callbacks = keras.callbacks.CallbackList([stop], model=head)
    validation = backend.tensor(validation_nhwc), backend.tensor(one_hot(validation_labels))
    truth, step = one_hot(train_labels), backend.step(head)
    n, history = len(train_labels), []
    head.stop_training = False
    callbacks.on_train_begin()
    try:
        for epoch in track(range(profile.epochs), label, profile.epochs):
            order = rng.permutation(n)
            batches = [order[start : start + profile.batch_size] for start in range(0, n, profile.batch_size)]
            by_batch = []
            for rows in batches:
                by_batch.append(step(backend.tensor(train(epoch, rows)), backend.tensor(truth[rows])))
            validated = head.test_on_batch(*validation, return_dict=True)
            # Keras forgets its metrics at every such call: what it returned is of that batch alone.
            table = backend.numbers(by_batch)
            means = np.average(table, axis=0, weights=[len(rows) for rows in batches])
            scores = dict(zip(table, means, strict=True))
            scores |= {f"val_{name}": value for name, value in validated.items()}
            history.append(scores)
            callbacks.on_epoch_end(epoch, scores)
            if head.stop_training:
                break
    except backend.OUT_OF_MEMORY as error:
        raise _too_large(label, profile) from error
    callbacks.on_train_end()  # puts the best weights back
    table = pd.DataFrame(history)[["accuracy", "loss", "val_accuracy", "val_loss"]].astype(float)
    return table.set_index(pd.RangeIndex(1, len(table) + 1, name="epoch"))


def fit_several(models: Sequence[keras.Model], *data: Any, profile: Profile, label: str, **given: Any) -> Histories:
    """Several heads trained as one where `stacked.suits` them: see `stacked.fit`. Raises MemoryError as `fit` does."""
    try:
        return stacked.fit(models, *data, profile=profile, label=label, **given)
    except backend.OUT_OF_MEMORY as error:
        raise _too_large(label, profile) from error


def _too_large(label: str, profile: Profile) -> MemoryError:
    return MemoryError(
        f"{label}: batches of {profile.batch_size} do not fit into the memory of the device. Give it less with "
        f"`-p batch_size {max(1, profile.batch_size // 2)}`, or end other programs on it."
    )


def p_patient(head: keras.Model, features_nhwc: np.ndarray) -> np.ndarray:
    """(N,) float32: the probability of "patient" for each row of features."""
    return head.predict_on_batch(features_nhwc.astype(np.float32))[:, LABELS.index("patient")]
