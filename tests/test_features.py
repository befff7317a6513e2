from __future__ import annotations

import keras
import numpy as np
import pytest

from mitolib import features


@pytest.fixture
def backbone() -> keras.Model:
    """Halves its input, so that a feature tells which picture it came from."""
    x = keras.Input((4, 4, 1))
    return keras.Model(x, keras.layers.Rescaling(0.5)(x))


@pytest.fixture
def numbered() -> np.ndarray:
    """(40, 4, 4, 1) uint8: picture i is full of i."""
    return np.repeat(np.arange(40, dtype=np.uint8), 16).reshape(40, 4, 4, 1)


def as_float(patches_nhwc: np.ndarray) -> np.ndarray:
    return patches_nhwc.astype(np.float32)


def test_features_keep_the_order_of_the_patches_across_batches(backbone, numbered):
    extracted = features.extract(backbone, numbered, as_float, label="test")
    assert extracted.dtype == np.float16
    np.testing.assert_array_equal(extracted[:, 0, 0, 0], np.arange(40) / 2)


def count_up():
    """An augmentation that adds 1 at its first call, 2 at its second, ..."""
    calls = iter(range(1, 100))
    return lambda patches_nhwc: patches_nhwc + np.uint8(next(calls))


def test_each_epoch_reads_the_next_view_and_begins_again(backbone, numbered):
    source = features.source(backbone, numbered, augment=count_up(), prepare=as_float, views=3, label="test")
    rows = np.array([7, 2])
    values = [source(epoch, rows)[:, 0, 0, 0].tolist() for epoch in range(4)]
    assert values == [[4, 1.5], [4.5, 2], [5, 2.5], [4, 1.5]]


def test_without_views_every_call_augments_anew(backbone, numbered):
    source = features.source(backbone, numbered, augment=count_up(), prepare=as_float, views=0, label="test")
    rows = np.array([7])
    assert [float(source(0, rows)[0, 0, 0, 0]) for _ in range(3)] == [4, 4.5, 5]


def test_features_that_do_not_fit_are_an_error(backbone, numbered):
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match="test: features beyond"):
        features.extract(backbone, numbered, lambda p: as_float(p) * 1e6, label="test")
