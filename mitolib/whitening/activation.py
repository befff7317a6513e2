"""How strongly a map stands for a concept: one number from the values of an axis at all positions.

Activation of an axis: a weighted sum of its values over the positions of one map. The weights depend on the values
only by which positions win, so they are the derivative as well. Each function: (N, k, H, W) -> weights of that shape.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def _mean(values: Tensor) -> Tensor:
    return torch.full_like(values, 1 / values[0, 0].numel())


def _max(values: Tensor) -> Tensor:
    winners = (values == values.amax((2, 3), keepdim=True)).to(values.dtype)
    return winners / winners.sum((2, 3), keepdim=True)


def _pos_mean(values: Tensor) -> Tensor:
    positive = (values > 0).to(values.dtype)
    return positive / (positive.sum((2, 3), keepdim=True) + 1e-4)


def _pool_max(values: Tensor) -> Tensor:
    if min(values.shape[2:]) < 3:
        raise ValueError(
            f"pool_max over a map of {values.shape[2]} x {values.shape[3]} positions; wanted 3 x 3 or more. "
            'Take larger pictures, an earlier layer, or activation="max".'
        )
    winners = functional.max_pool2d(values, 3, return_indices=True)[1].flatten(2)
    weights = torch.zeros_like(values).flatten(2)
    return weights.scatter_(2, winners, 1 / winners.shape[2]).view_as(values)


ACTIVATIONS = {"mean": _mean, "max": _max, "pos_mean": _pos_mean, "pool_max": _pool_max}
