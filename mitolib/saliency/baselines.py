"""Maps that know no network: what a map has to beat before it says anything about one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter
from skimage.filters import sobel


def _grey(patches_nhwc: np.ndarray) -> np.ndarray:
    """(N, H, W) 0-1: mean of the channels."""
    return patches_nhwc.mean(axis=-1) / 255


def _random(patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray, rng: Generator) -> np.ndarray:
    return rng.random(patches_nhwc.shape[:3])


def _centre(patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray, rng: Generator) -> np.ndarray:
    n, height, width = patches_nhwc.shape[:3]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.broadcast_to(np.exp(-2 * (y**2 + x**2)), (n, height, width))


def _sobel(patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray, rng: Generator) -> np.ndarray:
    return np.stack([sobel(grey_yx) for grey_yx in _grey(patches_nhwc)])


def _intensity(patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray, rng: Generator) -> np.ndarray:
    return _grey(patches_nhwc)


def _marker(patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray, rng: Generator) -> np.ndarray:
    """Share of VDAC1 in VDAC1 + NDUFB8, smoothed over a third of a fibre, 0 where neither is seen."""
    ndufb8, vdac1 = (gaussian_filter(ndufb8_vdac1[..., i] / 255, (0, 3, 3)) for i in (0, 1))
    return vdac1 / (vdac1 + ndufb8 + 0.05)


# name -> (patches uint8 (N, H, W, C), NDUFB8 and VDAC1 of them uint8 (N, H, W, 2), rng) -> maps (N, H, W)
BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, Generator], np.ndarray]] = {
    "random": _random,
    "centre": _centre,
    "Sobel": _sobel,
    "intensity": _intensity,
    "marker": _marker,
}


def without_network(
    patches_nhwc: np.ndarray, ndufb8_vdac1: np.ndarray | None, *, rng: Generator
) -> dict[str, np.ndarray]:
    """The map of each of BASELINES, (N, H, W).

    patches_nhwc: uint8 (N, H, W, C). ndufb8_vdac1: uint8 (N, H, W, 2); with None there is no map of the marker.
    """
    names = [name for name in BASELINES if name != "marker" or ndufb8_vdac1 is not None]
    return {name: BASELINES[name](patches_nhwc, ndufb8_vdac1, rng) for name in names}
