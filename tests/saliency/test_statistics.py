from __future__ import annotations

import numpy as np
import pytest

from mitolib.saliency import statistics


def test_the_sign_test_is_exact_over_people_and_not_over_patches(rng):
    subjects = np.repeat(list("ABCDEF"), 5)
    values = np.linspace(1, 2, 30)
    assert statistics.sign_flips(values, subjects, rng=rng) == pytest.approx(2 / 2**6), "all six alike in sign"
    values[:10] = np.nan
    assert statistics.sign_flips(values, subjects, rng=rng) == pytest.approx(2 / 2**4), "of those that have a value"
    assert statistics.sign_flips(values, np.repeat(list("AB"), 15), rng=rng) is None


def test_people_without_a_preferred_sign_are_no_finding(rng):
    assert statistics.sign_flips(np.array([1.0, -1, 1, -1]), list("ABCD"), rng=rng) == 1
