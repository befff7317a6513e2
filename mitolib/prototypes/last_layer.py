"""The last layer, solved exactly: the activations of the training patches are few numbers, and the cost is convex."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax


def class_weights(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(N,) weights of patches, mean 1, with which every class that occurs weighs the same."""
    counts = np.bincount(labels, minlength=n_classes)
    return (len(labels) / ((counts > 0).sum() * np.maximum(counts, 1)))[labels]


def smooth_cost(
    weights: np.ndarray, activations: np.ndarray, labels: np.ndarray, start: np.ndarray, pull: float
) -> tuple[float, np.ndarray]:
    """Class-weighted cross entropy plus `pull` times the squared distance from `start`, and its gradient.

    weights, start: (K, P); activations: (N, P); labels: (N,).
    """
    scores, of_patch = activations @ weights.T, class_weights(labels, len(weights))
    n = len(labels)
    away = weights - start
    cost = -(of_patch * log_softmax(scores, axis=1)[np.arange(n), labels]).mean() + pull * (away**2).sum()
    error = softmax(scores, axis=1)
    error[np.arange(n), labels] -= 1
    return float(cost), (of_patch[:, None] * error).T @ activations / n + 2 * pull * away


def solve(
    activations: np.ndarray, labels: np.ndarray, owners: np.ndarray, start: np.ndarray, *, l1: float, pull: float
) -> np.ndarray:
    """(K, P) the weights of least cost: `smooth_cost` plus l1 times the absolute weights to classes that do not own.

    activations: (N, P) of the training patches; labels: (N,); owners: (P,) class of each prototype; start: (K, P).
    The weights to other classes are the difference of two parts that are not negative, so that the cost is smooth and
    weights can be exactly 0. Raises FloatingPointError for activations that are not finite.
    """
    if not np.isfinite(activations).all():
        raise FloatingPointError("an activation is not finite, so the last layer has no solution. Train more slowly.")
    activations, start = activations.astype(float), start.astype(float)
    is_own = np.arange(len(start))[:, None] == owners
    n_own = int(is_own.sum())

    def assembled(parameters: np.ndarray) -> np.ndarray:
        weights = np.empty_like(start)
        weights[is_own] = parameters[:n_own]
        above, below = np.split(parameters[n_own:], 2)
        weights[~is_own] = above - below
        return weights

    def cost(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = smooth_cost(assembled(parameters), activations, labels, start, pull)
        other = gradient[~is_own]
        penalty = l1 * parameters[n_own:].sum()
        return value + penalty, np.concatenate([gradient[is_own], other + l1, l1 - other])

    others = start[~is_own]
    first = np.concatenate([start[is_own], others.clip(min=0), (-others).clip(min=0)])
    bounds = [(None, None)] * n_own + [(0, None)] * (2 * len(others))
    options = {"maxiter": 5000, "maxfun": 20_000, "ftol": 1e-14, "gtol": 1e-8, "maxcor": 30}
    found = minimize(cost, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return assembled(found.x)


def cost_of(
    weights: np.ndarray,
    activations: np.ndarray,
    labels: np.ndarray,
    owners: np.ndarray,
    start: np.ndarray,
    *,
    l1: float,
    pull: float,
) -> float:
    """What `solve` makes least."""
    is_other = np.arange(len(start))[:, None] != owners
    return smooth_cost(weights, activations, labels, start, pull)[0] + l1 * float(np.abs(weights[is_other]).sum())
