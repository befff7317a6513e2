"""Fit a head on features, with the paper's optimiser, loss and early stopping."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from mitolib.progress import track
from mitolib.settings import LABELS, Profile


class FusedAdam(keras.optimizers.Adam):
    """Keras' Adam with its update in TensorFlow's one-pass kernel.

    Keras writes the update as a dozen array operations, each a walk through memory over all parameters and
    their two moments; at batch 2 that walk, not the matrix products, bounds a training step. The formula is the
    same, and so are the numbers up to rounding. It reads private attributes of Keras' Adam, which is why pyproject.toml
    lets no other version of Keras in.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """One step of one variable, in place; called by Keras."""
        i = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[i].value.handle,
            v=self._velocities[i].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=tf.cast(self.beta_1, variable.dtype),
            beta2=tf.cast(self.beta_2, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )


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
    26 or 34 ms, and of a wider head 41 or 68.
    """
    head.compile(optimizer=FusedAdam(profile.learning_rate), loss="categorical_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=profile.patience, restore_best_weights=True
    )
    callbacks = keras.callbacks.CallbackList([stop], model=head)
    validation = validation_nhwc.astype(np.float32), one_hot(validation_labels)
    n, history = len(train_labels), []
    head.stop_training = False
    callbacks.on_train_begin()
    try:
        for epoch in track(range(profile.epochs), label, profile.epochs):
            order = rng.permutation(n)
            batches = [order[start : start + profile.batch_size] for start in range(0, n, profile.batch_size)]
            by_batch = []
            for rows in batches:
                batch_nhwc = train(epoch, rows).astype(np.float32)
                by_batch.append(head.train_on_batch(batch_nhwc, one_hot(train_labels[rows]), return_dict=True))
            validated = head.test_on_batch(*validation, return_dict=True)
            # Keras forgets its metrics at every such call: what it returned is of that batch alone.
            means = np.average(pd.DataFrame(by_batch), axis=0, weights=[len(rows) for rows in batches])
            scores = dict(zip(by_batch[0], means, strict=True))
            scores |= {f"val_{name}": value for name, value in validated.items()}
            history.append(scores)
            callbacks.on_epoch_end(epoch, scores)
            if head.stop_training:
                break
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(
            f"{label}: batches of {profile.batch_size} do not fit into the memory of the device. Give it less with "
            f"`-p batch_size {max(1, profile.batch_size // 2)}`, or end other programs on it."
        ) from error
    callbacks.on_train_end()  # puts the best weights back
    table = pd.DataFrame(history)[["accuracy", "loss", "val_accuracy", "val_loss"]].astype(float)
    return table.set_index(pd.RangeIndex(1, len(table) + 1, name="epoch"))


def p_patient(head: keras.Model, features_nhwc: np.ndarray) -> np.ndarray:
    """(N,) float32: the probability of "patient" for each row of features."""
    return head.predict_on_batch(features_nhwc.astype(np.float32))[:, LABELS.index("patient")]
