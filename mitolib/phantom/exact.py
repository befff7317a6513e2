"""Arithmetic that gives the same bits on every processor.

IEEE 754 fixes sums, products, quotients and square roots to the last bit, whole numbers and comparisons are exact. The
exponential function is not fixed: numpy and the C library choose its code by the processor, and the last bit differs.
The phantom is therefore drawn with the exact operations alone, and with tables. The entries of a table are rounded to a
grid, 10^7 times or more coarser than a last bit, and a test shows that no entry lies so near to the middle between two
points of its grid that the error of any C library could push it across. Arguments are rounded too, to whole steps.

Sums are exact where their order is not fixed: over whole numbers, by `math.fsum`, or of terms with so few binary digits
that a double holds every partial sum. No product is left to BLAS, which orders sums by the processor as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.random import Generator
from scipy import ndimage as ndi
from scipy import special

LEAST, MOST = -20, 16  # between which `exp` tells arguments apart
STEPS = 8192  # of the argument of `exp`, per unit: the result is right to 0.006 %
COARSE_STEPS = 1024  # of the arguments of `softplus`, `sine` and `cosine`, per unit
UNIFORMS = 1 << 16
GRID = 1 << 16  # points per unit on which normal numbers and weights lie
BLOCK = 1 << 17  # numbers looked up at once: they stay in the processor's cache


@cache
def exp_table() -> np.ndarray:
    """exp at every whole step from LEAST to MOST, float32."""
    return np.exp(np.arange(LEAST * STEPS, MOST * STEPS + 1) / STEPS).astype(np.float32)


@cache
def softplus_table() -> np.ndarray:
    """log(1 + exp(-t)) at every coarse step of t from 0 to 16, float32 on the grid."""
    return on_grid(np.log1p(np.exp(-np.arange(16 * COARSE_STEPS) / COARSE_STEPS))).astype(np.float32)


@cache
def sine_table() -> np.ndarray:
    """sin at every coarse step from -8 to 8 radians, on the grid."""
    return on_grid(np.sin(np.arange(-8 * COARSE_STEPS, 8 * COARSE_STEPS + 1) / COARSE_STEPS))


@cache
def normal_table() -> np.ndarray:
    """65,536 quantiles of the standard normal distribution, the middles of equal shares; float32 on the grid."""
    return on_grid(special.ndtri((np.arange(UNIFORMS) + 0.5) / UNIFORMS)).astype(np.float32)


def on_grid(values: np.ndarray) -> np.ndarray:
    """The nearest multiples of 1 / GRID."""
    return np.rint(np.asarray(values, float) * GRID) / GRID


def exp(x: np.ndarray | float) -> np.ndarray:
    """exp of x, float32, x rounded to 1/8192; of arguments outside -20 to 16 that of the nearer end."""
    return _look_up(exp_table(), np.asarray(x), STEPS, LEAST * STEPS)


def log(x: np.ndarray | float) -> np.ndarray:
    """log of x, a whole number of steps of 1/8192 between -20 and 16: the inverse of `exp`."""
    return np.searchsorted(exp_table(), np.asarray(x, np.float32)) / STEPS + LEAST


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(-x)) of x >= 0, float32, to 0.0005; of more than 16 that of 16, which is nothing."""
    return _look_up(softplus_table(), x, COARSE_STEPS, 0)


def sine(angle: np.ndarray) -> np.ndarray:
    """sin of angles between -8 and 8 radians, to 0.0005."""
    return _look_up(sine_table(), angle, COARSE_STEPS, -8 * COARSE_STEPS)


def cosine(angle: np.ndarray) -> np.ndarray:
    """cos of angles between -6 and 6 radians, to 0.0005."""
    return sine(angle + math.pi / 2)


def _look_up(table: np.ndarray, x: np.ndarray, steps: int, first: int) -> np.ndarray:
    """The entries of a table at x; its first one stands for the argument first / steps."""
    found = np.empty(x.shape, table.dtype)
    flat, into = np.ascontiguousarray(x).reshape(-1), found.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        block = slice(start, start + BLOCK)
        step = np.rint(flat[block] * flat.dtype.type(steps)).astype(np.intp) - first
        np.take(table, step, mode="clip", out=into[block])
    return found


def normal(rng: Generator, shape: int | Sequence[int]) -> np.ndarray:
    """Numbers of the standard normal distribution, float32 on the grid, none beyond 4.2.

    numpy's own use exp and log1p now and then, and take another number of draws where these differ in the last bit.
    """
    return normal_table()[rng.integers(0, UNIFORMS, shape, dtype=np.uint16)]


def smooth(field_yx: np.ndarray, sigma: float | tuple[float, float], mode: str) -> np.ndarray:
    """Gaussian filter, float64; `sigma` in px, for both axes or for each, `mode` as in scipy.ndimage.

    field_yx: multiples of 1/65536 below 8, as `normal` gives them. The weights are such multiples as well, so that the
    sums of both passes fit a double without rounding: no order and no fused operation can change them.
    """
    for axis, width in enumerate(np.broadcast_to(sigma, 2)):
        field_yx = ndi.correlate1d(field_yx, _weights(float(width)), axis=axis, mode=mode, output=np.float64)
    return field_yx


def _weights(sigma: float) -> np.ndarray:
    reach = int(4 * sigma + 0.5)
    weight = np.array([math.exp(-0.5 * (step / sigma) ** 2) for step in range(-reach, reach + 1)])
    return on_grid(weight / math.fsum(weight))


def deviation_after(sigma: tuple[float, float]) -> float:
    """Standard deviation of standard normal numbers, each of its own, after `smooth`."""
    return math.sqrt(math.prod(math.fsum(_weights(width) ** 2) for width in sigma))


def standardised(values: np.ndarray) -> np.ndarray:
    """The values minus their mean, over their standard deviation; 0 where all are alike. float64.

    Both are taken of the values rounded to 1/65536, which must be below 8 and fewer than ten million.
    """
    whole = np.rint(values * GRID).astype(np.int64)
    n, total = max(whole.size, 1), int(whole.sum())
    variance = n * int((whole * whole).sum()) - total * total  # of Python's whole numbers, which have no bounds
    return (values - total / n / GRID) / max(math.sqrt(variance) / n / GRID, 1 / GRID)


def root(covariance: Sequence[Sequence[float]]) -> np.ndarray:
    """L, lower triangular, with L L' the covariance (Cholesky); no variance where rounding left less than none."""
    matrix = [[float(entry) for entry in row] for row in covariance]
    lower = np.zeros((len(matrix), len(matrix)))
    for i, row in enumerate(matrix):
        for j in range(i + 1):
            rest = row[j] - math.fsum(lower[i, k] * lower[j, k] for k in range(j))
            if i == j:
                lower[i, i] = math.sqrt(max(rest, 0.0))
            elif lower[j, j] > 0:
                lower[i, j] = rest / lower[j, j]
    return lower


def correlated(deviate_np: np.ndarray, covariance: Sequence[Sequence[float]]) -> np.ndarray:
    """(N, P) numbers with that covariance (P, P), from independent standard normal ones (N, P)."""
    lower, found = root(covariance), np.zeros(deviate_np.shape)
    for j in range(lower.shape[1]):  # one column after the other, not by BLAS
        found += deviate_np[:, [j]] * lower[:, j]
    return found
