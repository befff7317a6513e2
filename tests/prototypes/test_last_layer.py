from __future__ import annotations

import numpy as np
import pytest

from mitolib.prototypes.last_layer import class_weights, cost_of, smooth_cost, solve

OWNERS = np.array([0, 0, 1, 1])
START = np.where(np.arange(2)[:, None] == OWNERS, 1.0, -0.5)


@pytest.fixture
def activations(rng) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([0, 1], [10, 30])
    return rng.uniform(0, 3, (40, 4)) + 2.0 * (labels[:, None] == OWNERS), labels


def test_a_strong_penalty_leaves_no_weight_to_other_classes(activations):
    weights = solve(*activations, OWNERS, START, l1=1.0, pull=1e-4)
    assert (weights[np.arange(2)[:, None] != OWNERS] == 0).all()


def test_solving_twice_costs_the_same(activations):
    settings = {"l1": 1e-4, "pull": 1e-4}
    once = solve(*activations, OWNERS, START, **settings)
    again = solve(*activations, OWNERS, START.copy(), **settings)
    costs = [cost_of(w, *activations, OWNERS, START, **settings) for w in (once, again)]
    assert costs[0] == pytest.approx(costs[1], abs=1e-6) and costs[0] < cost_of(
        START, *activations, OWNERS, START, **settings
    )


@pytest.mark.parametrize("l1", [1e-4, 0.02])
def test_no_direction_leads_down_from_the_solution(activations, l1):
    weights = solve(*activations, OWNERS, START, l1=l1, pull=1e-4)
    gradient = smooth_cost(weights, *activations, START, 1e-4)[1]
    is_other = np.arange(2)[:, None] != OWNERS
    assert np.abs(gradient[~is_other]).max() < 1e-3
    at_zero = is_other & (weights == 0)
    assert (np.abs(gradient[at_zero]) <= l1 + 1e-3).all()
    away = is_other & (weights != 0)
    assert np.abs(gradient + l1 * np.sign(weights))[away].max(initial=0) < 1e-3


def test_the_gradient_is_that_of_finite_differences(activations, rng):
    weights, step = rng.normal(size=(2, 4)), 1e-6
    gradient = smooth_cost(weights, *activations, START, 0.1)[1]
    for place in np.ndindex(2, 4):
        moved = weights.copy()
        moved[place] += step
        slope = (
            smooth_cost(moved, *activations, START, 0.1)[0] - smooth_cost(weights, *activations, START, 0.1)[0]
        ) / step
        assert slope == pytest.approx(gradient[place], abs=1e-4)


def test_classes_weigh_the_same_however_many_patches_they_have():
    labels = np.array([0, 1, 1, 1])
    of_patches = class_weights(labels, 2)
    assert of_patches[labels == 0].sum() == pytest.approx(
        of_patches[labels == 1].sum()
    ) and of_patches.mean() == pytest.approx(1)


def test_activations_that_are_not_finite_have_no_solution(activations):
    found, labels = activations
    found[3, 1] = np.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        solve(found, labels, OWNERS, START, l1=0, pull=0)
