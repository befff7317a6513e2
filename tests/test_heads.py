from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from mitolib import backend, heads, settings

PROFILE = replace(settings.PROFILES["smoke"], epochs=12, patience=3, batch_size=4, learning_rate=0.05)


def small_head() -> keras.Model:
    keras.utils.set_random_seed(1)
    x = keras.Input((2,))
    return keras.Model(x, keras.layers.Dense(2, activation="softmax")(x))


def separable(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, 2, n)
    return (rng.normal(size=(n, 2)) * 0.1 + np.eye(2)[labels]).astype(np.float32), labels


def fit(head, x, y, vx, vy, profile=PROFILE):
    rng = np.random.default_rng(0)
    return heads.fit(head, lambda _, rows: x[rows], y, vx, vy, profile=profile, rng=rng, label="test")


def test_a_head_learns_what_can_be_learnt_and_its_history_has_a_row_per_epoch(rng):
    (x, y), (vx, vy) = separable(64, rng), separable(32, rng)
    history = fit(small_head(), x, y, vx, vy, replace(PROFILE, patience=12))
    assert list(history.columns) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert history.index.tolist() == list(range(1, 13))
    assert history["val_accuracy"].iloc[-1] == 1 and history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_training_stops_after_the_patience_and_puts_the_best_weights_back(rng):
    (x, y), (vx, vy) = separable(64, rng), separable(32, rng)
    head = small_head()
    history = fit(head, x, 1 - y, vx, vy)  # wrong labels: validation gets worse with every epoch
    best = history["val_accuracy"].idxmax()
    assert len(history) == best + PROFILE.patience < PROFILE.epochs
    assert (head.predict(vx, verbose=0).argmax(axis=1) == vy).mean() == history["val_accuracy"].max()


def test_a_full_device_memory_names_the_parameter_to_change(rng):
    def full(epoch: int, rows: np.ndarray) -> np.ndarray:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with pytest.raises(MemoryError, match=r"test: batches of 4 .*-p batch_size 2"):
        heads.fit(small_head(), full, np.zeros(8, int), *separable(4, rng), profile=PROFILE, rng=rng, label="test")


def test_the_same_seed_gives_the_same_history(rng):
    (x, y), (vx, vy) = separable(64, rng), separable(32, rng)
    assert fit(small_head(), x, y, vx, vy).equals(fit(small_head(), x, y, vx, vy))


def test_an_epoch_shows_every_patch_once_and_asks_for_the_features_of_its_epoch(rng):
    asked: list[tuple[int, list[int]]] = []
    (x, y), validation = separable(10, rng), separable(4, rng)

    def source(epoch: int, rows: np.ndarray) -> np.ndarray:
        asked.append((epoch, rows.tolist()))
        return x[rows]

    twice = replace(PROFILE, epochs=2)
    heads.fit(small_head(), source, y, *validation, profile=twice, rng=rng, label="test")
    orders = [[row for e, rows in asked if e == epoch for row in rows] for epoch in (0, 1)]
    for seen in orders:
        assert sorted(seen) == list(range(10)) != seen
    assert orders[0] != orders[1] and [len(rows) for _, rows in asked] == [4, 4, 2] * 2


def test_the_history_holds_what_keras_fit_writes_down_for_whole_epochs(rng):
    (x, y), (vx, vy) = separable(10, rng), separable(8, rng)
    y[:3] = 1 - y[:3]  # wrong labels, so that no epoch is all right, and the last batch of two is not like the rest
    history = fit(small_head(), x, y, vx, vy, replace(PROFILE, patience=12))

    draw, theirs, head = np.random.default_rng(0), [], small_head()
    head.compile(backend.FusedAdam(PROFILE.learning_rate), "categorical_crossentropy", metrics=["accuracy"])
    for _ in range(12):
        order = draw.permutation(10)
        unseen = vx, heads.one_hot(vy)
        epoch = head.fit(
            x[order], heads.one_hot(y[order]), batch_size=4, shuffle=False, validation_data=unseen, verbose=0
        )
        theirs.append({name: values[0] for name, values in epoch.history.items()})
    pd.testing.assert_frame_equal(
        history.reset_index(drop=True), pd.DataFrame(theirs)[list(history)], rtol=1e-4, atol=1e-5
    )
    assert not set(history["accuracy"]) <= {0, 0.5, 1}, "no accuracy of a batch of two"


def test_the_fused_optimizer_is_keras_adam(rng):
    (x, y) = separable(64, rng)
    trained = []
    for optimizer in (keras.optimizers.Adam(0.01), backend.FusedAdam(0.01)):
        head = small_head()
        head.compile(optimizer, "categorical_crossentropy")
        head.fit(x, heads.one_hot(y), batch_size=4, epochs=5, shuffle=False, verbose=0)
        trained.append(head.get_weights())
    for ours, theirs in zip(*trained, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert np.abs(trained[0][0] - small_head().get_weights()[0]).max() > 0.1, "something was learnt at all"
