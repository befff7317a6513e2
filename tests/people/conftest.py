"""A head that takes milliseconds."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import pytest

from mitolib import networks
from mitolib.people import models


@pytest.fixture
def light_head(monkeypatch) -> Iterator[None]:
    """Softmax regression in place of the paper's head, to save time."""

    def light(shape: tuple[int, ...]) -> keras.Model:
        x = keras.Input(shape)
        return keras.Model(x, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x)))

    monkeypatch.setattr(networks, "head", light)
    models._fresh.cache_clear()
    yield
    models._fresh.cache_clear()
