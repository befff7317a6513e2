"""A head that takes milliseconds, and new people who are drawn without a picture."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import keras
import pytest
from drawn_people import ToyReader, toy_draw, toy_people

from mitolib import networks, units
from mitolib.people import arms, models, outside


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


@pytest.fixture
def toy(tmp_path, monkeypatch) -> SimpleNamespace:
    """Two controls and two patients of an outside test, a draw of four and four, and their reader."""
    monkeypatch.setenv("MITOLIB_UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(units, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(units, "_n_asked", 0)
    monkeypatch.delenv("MITOLIB_SHARE", raising=False)
    monkeypatch.setattr(outside, "FOLDER", tmp_path / "outside")
    monkeypatch.setattr(outside.cohort, "read_cohort", lambda folder: [SimpleNamespace(section=folder.name)])
    reader = ToyReader()
    readers = dict.fromkeys(("one", "several", "ratios", "fibres"), reader)
    test = arms.OutsideTest.of(toy_people(3, 7), readers, toy_draw, recipe=1)
    return SimpleNamespace(reader=reader, readers=readers, test=test, draw=toy_people(4, 8))
