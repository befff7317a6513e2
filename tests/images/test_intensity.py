from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mitolib.images.intensity import ARCSINH_WHITE, INTENSITIES, STRETCHED, to_8_bit, without_hot_pixels

SIDES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6)
COUNTS = st.one_of(
    hnp.arrays(np.float32, SIDES, elements=st.floats(0, 2.0**120, width=32)),
    hnp.arrays(np.float32, SIDES, elements=st.floats(0, 100, width=32)),
    hnp.arrays(np.float32, SIDES, elements=st.sampled_from([0.0, 0.0, 1.0, 7.0])),  # a sparse channel
    hnp.arrays(np.uint8, SIDES),
)


def quantile(values: list[float], percent: float) -> float:
    """Between the two values in order that lie on either side of it, in proportion."""
    values, place = sorted(values), percent / 100 * (len(values) - 1)
    below, above = values[math.floor(place)], values[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))


def by_hand(raw_yx: np.ndarray, intensity: str) -> np.ndarray:
    """The four conversions, pixel by pixel in double precision, before rounding."""
    values = [float(value) for value in raw_yx.ravel()]
    low, high = {
        "percentiles": (quantile(values, 5), quantile(values, 95)),
        "top-percentile": (0, quantile(values, 99)),
        "arcsinh": (0, math.asinh(1000)),
        "none": (0, 255),
    }[intensity]
    shown = [math.asinh(value) for value in values] if intensity == "arcsinh" else values
    grey = [min(max((value - low) / (high - low) * 255, 0), 255) for value in shown]
    return np.reshape(grey, raw_yx.shape)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("intensity", INTENSITIES)
def test_each_conversion_is_its_formula(rng, intensity, dtype):
    raw_yx = rng.gamma(1, 60, (30, 41)).clip(0, 255).astype(dtype)
    shown_yx = to_8_bit(raw_yx, intensity)
    assert shown_yx.dtype == np.uint8
    # Single precision may round the other way where a grey falls between two.
    np.testing.assert_allclose(shown_yx, by_hand(raw_yx, intensity), atol=0.501)


@pytest.mark.parametrize(
    ("intensity", "counts", "greys"),
    [
        ("none", [0, 1, 1.4, 254.6, 255, 256, 1e6], [0, 1, 1, 255, 255, 255, 255]),
        ("arcsinh", [0, 1, 10, 100, 1000, 1e6], [0, 30, 101, 178, 255, 255]),
    ],
)
def test_a_fixed_conversion_gives_known_greys(intensity, counts, greys):
    np.testing.assert_array_equal(to_8_bit(np.array([counts], np.float32), intensity), [greys])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("intensity", [None, *INTENSITIES])
@given(raw_yx=COUNTS)
def test_a_conversion_is_monotone_fills_only_8_bits_and_leaves_the_counts_alone(intensity, raw_yx):
    before = raw_yx.copy()
    shown_yx = to_8_bit(raw_yx, intensity)
    np.testing.assert_array_equal(raw_yx, before)
    assert shown_yx.shape == raw_yx.shape and shown_yx.dtype == np.uint8
    order = np.argsort(raw_yx, axis=None, kind="stable")
    assert (np.diff(shown_yx.ravel()[order].astype(int)) >= 0).all()


@given(raw_yx=hnp.arrays(np.uint8, SIDES))
def test_a_picture_of_8_bits_is_shown_as_it_is_by_default(raw_yx):
    np.testing.assert_array_equal(to_8_bit(raw_yx), raw_yx)


@given(raw_yx=hnp.arrays(np.float32, SIDES, elements=st.integers(0, 5000)))
def test_counts_are_shown_from_percentile_to_percentile_by_default(raw_yx):
    np.testing.assert_array_equal(to_8_bit(raw_yx), to_8_bit(raw_yx, "percentiles"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [0, 3, 1000, 70_000])
def test_a_constant_picture_is_black_or_white_and_never_an_error(count):
    raw_yx = np.full((4, 5), count, np.float32)
    grey = {name: int(np.unique(to_8_bit(raw_yx, name)).item()) for name in INTENSITIES}
    assert grey["percentiles"] == 0
    assert grey["top-percentile"] == (255 if count else 0)
    assert grey["none"] == min(count, 255)
    assert grey["arcsinh"] == min(round(255 * math.asinh(count) / math.asinh(ARCSINH_WHITE)), 255)


@pytest.mark.parametrize("intensity", INTENSITIES)
def test_the_level_of_a_section_is_lost_in_the_stretched_conversions_and_only_there(rng, intensity):
    dim_yx = rng.gamma(2, 20, (40, 40)).astype(np.float32)
    dim, bright = (to_8_bit(factor * dim_yx, intensity).mean() for factor in (1, 4))
    assert (abs(bright - dim) < 1) == (intensity in STRETCHED)


def test_an_unknown_conversion_is_refused_by_name():
    with pytest.raises(ValueError, match="intensity='log' is not one of percentiles"):
        to_8_bit(np.zeros((2, 2), np.float32), "log")


def hot_by_loop(raw_yx: np.ndarray, excess: float) -> np.ndarray:
    """steinbock's definition, one pixel at a time over its neighbours (there are fewer than 8 at an edge)."""
    cleaned_yx = raw_yx.copy()
    for y, x in np.ndindex(raw_yx.shape):
        around = [
            raw_yx[v, u]
            for v in range(max(y - 1, 0), min(y + 2, raw_yx.shape[0]))
            for u in range(max(x - 1, 0), min(x + 2, raw_yx.shape[1]))
            if (v, u) != (y, x)
        ]
        if float(raw_yx[y, x]) - float(max(around)) > excess:
            cleaned_yx[y, x] = max(around)
    return cleaned_yx


@given(
    raw_yx=st.one_of(
        hnp.arrays(np.float32, SIDES, elements=st.integers(0, 200)),
        hnp.arrays(np.uint8, SIDES),
        hnp.arrays(np.uint16, SIDES),
    ),
    excess=st.sampled_from([0, 1, 50, 199]),
)
def test_hot_pixels_are_those_of_a_loop_over_the_neighbours(raw_yx, excess):
    cleaned_yx = without_hot_pixels(raw_yx, excess)
    assert cleaned_yx.dtype == raw_yx.dtype
    np.testing.assert_array_equal(cleaned_yx, hot_by_loop(raw_yx, excess))


def test_a_hot_pixel_takes_the_greatest_of_its_neighbours():
    raw_yx = np.array([[1, 2, 3], [4, 90, 5], [6, 7, 8]], np.uint8)
    assert without_hot_pixels(raw_yx, 50)[1, 1] == 8
    assert without_hot_pixels(raw_yx, 82)[1, 1] == 90  # not more than
