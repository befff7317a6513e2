"""Counts -> the 8 bits that the networks are shown; hot pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ARCSINH_WHITE = 1000  # counts shown as 255: fixed, so that one grey is one count in every section
STRETCHED = ("percentiles", "top-percentile")  # each picture to its own range: the level between subjects goes


def _stretched(raw_yx: np.ndarray, low: float, high: float) -> np.ndarray:
    """A new array. Where `high` is `low`, what lies above is white: a sparse channel has 0 for both."""
    greys_yx = raw_yx - np.float32(low)
    with np.errstate(over="ignore"):  # infinitely white
        greys_yx *= np.float32(255 / max(high - low, 1e-30))
    return greys_yx


def _percentiles(raw_yx: np.ndarray) -> np.ndarray:
    return _stretched(raw_yx, *np.percentile(raw_yx, (5, 95)))


def _top_percentile(raw_yx: np.ndarray) -> np.ndarray:
    return _stretched(raw_yx, 0, np.percentile(raw_yx, 99))


INTENSITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "percentiles": _percentiles,
    "top-percentile": _top_percentile,
    "arcsinh": lambda raw_yx: _stretched(np.arcsinh(raw_yx), 0, np.arcsinh(ARCSINH_WHITE)),
    "none": lambda raw_yx: _stretched(raw_yx, 0, 255),
}


def to_8_bit(raw_yx: np.ndarray, intensity: str | None = None) -> np.ndarray:
    """(H, W) uint8, the pseudo-image that the networks are shown.

    "percentiles": from the 5th to the 95th percentile of the picture, as mitocyto and so the paper has it (default for
    counts). "top-percentile": from 0 to the 99th. "arcsinh": of counts, cofactor 1, 1,000 counts being white. "none":
    one grey level a count, 255 and more being white (default for pictures that have 8 bits already). The first two
    stretch each picture on its own: brightness can then not be compared between sections.
    """
    intensity = intensity or ("none" if raw_yx.dtype == np.uint8 else "percentiles")
    if intensity not in INTENSITIES:
        raise ValueError(f"intensity={intensity!r} is not one of {', '.join(INTENSITIES)}.")
    if intensity == "none" and raw_yx.dtype == np.uint8:
        return raw_yx
    greys_yx = INTENSITIES[intensity](raw_yx.astype(np.float32, copy=False))
    # In place: a section may have 64 million pixels.
    return np.clip(np.rint(greys_yx, out=greys_yx), 0, 255, out=greys_yx).astype(np.uint8)


def without_hot_pixels(raw_yx: np.ndarray, excess: float) -> np.ndarray:
    """A pixel more than `excess` counts above the greatest of its 8 neighbours takes their value, as in steinbock."""
    from scipy import ndimage as ndi  # a quarter of a second, which a check need not wait for

    around = np.ones((3, 3), bool)
    around[1, 1] = False
    highest_yx = ndi.maximum_filter(raw_yx, footprint=around, mode="mirror")
    # The difference as floating point: unsigned bytes would wrap below 0.
    return np.where(raw_yx.astype(np.float32) - highest_yx > excess, highest_yx, raw_yx)
