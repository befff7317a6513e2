from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mitolib.metrics import Estimate
from mitolib.saliency import statistics


def test_an_interval_over_draws_is_students_and_counts_what_is_left_out():
    values = [0.4, 0.5, 0.7, 0.6, np.nan]
    found = statistics.over_draws(values)
    half = stats.t.ppf(0.975, 3) * np.std(values[:4], ddof=1) / 2
    assert found.value == pytest.approx(0.55) and (found.n, found.left_out) == (4, 1)
    assert found.ci == pytest.approx((0.55 - half, 0.55 + half))


def test_too_few_draws_or_equal_ones_are_no_interval():
    assert statistics.over_draws([0.4, 0.6]).ci is None
    assert statistics.over_draws([0.5, 0.5, 0.5]) == Estimate(0.5, None, 3, 0), "never 0.50 (0.50 to 0.50)"
    assert statistics.over_draws([np.nan]) == Estimate(None, None, 0, 1)


def test_the_sign_test_is_exact_over_people_and_not_over_patches(rng):
    subjects = np.repeat(list("ABCDEF"), 5)
    values = np.linspace(1, 2, 30)
    assert statistics.sign_flips(values, subjects, rng=rng) == pytest.approx(2 / 2**6), "all six alike in sign"
    values[:10] = np.nan
    assert statistics.sign_flips(values, subjects, rng=rng) == pytest.approx(2 / 2**4), "of those that have a value"
    assert statistics.sign_flips(values, np.repeat(list("AB"), 15), rng=rng) is None


def test_people_without_a_preferred_sign_are_no_finding(rng):
    assert statistics.sign_flips(np.array([1.0, -1, 1, -1]), list("ABCD"), rng=rng) == 1


def test_holms_correction_is_that_of_the_textbook():
    p_values = pd.Series({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert statistics.holm(p_values).to_dict() == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert statistics.holm(pd.Series({"a": 0.6, "b": 0.7})).max() == 1
