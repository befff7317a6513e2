"""From the level of a protein in each fibre to the counts of a pixel.

rate = level x rim x texture + background. The rim is brighter, since mitochondria gather below the membrane; the
texture is shared by all proteins, since they sit in the same mitochondria; over a fibre the rate averages to its level.
Counts are Poisson with a rate that flickers by `FLICKER` from pixel to pixel, hence negative binomial. The constants
were set so that the measures of `mitolib.phantom.realism` agree with the one real image at hand.

Counts are read from a table of quantiles at one uniform number per pixel and protein. A picture drawn again with
other levels therefore changes only where the rate does, and rises where it rises.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.random import Generator
from scipy import ndimage as ndi
from scipy import stats

from mitolib.phantom import exact
from mitolib.phantom.geometry import Geometry, smooth_noise

FLICKER = 0.33  # coefficient of variation of the rate from pixel to pixel, beyond Poisson
TEXTURE = 0.19  # standard deviation of log rate within a fibre, at 1 to 3 px
MOTTLE, SHADE = 0.10, 0.10  # the same at 6 px and at 30 px
STREAKS = 0.25  # fall of log rate in a dark streak, per unit of a fibre's liability to them
RIM_GAIN, RIM_PX = 1.1, 13.0  # brightness at the border over the core, and its decay into the fibre
CLUMP_GAIN, CLUMP_PX = 0.4, 3.0  # the same for clumps of mitochondria right below the membrane
EXCESS_GAIN = 4.0  # of SDHA in excess, in the clumps; reached when the level is far above normal
OUTSIDE, STROMA = 0.002, 0.04  # background off the tissue and between fibres, as share of the median normal level
MEMBRANE_PX = 1.5
MEMBRANE_FLOOR = 0.02  # dystrophin within a fibre, as share of its membrane
GREATEST_RATE = 200.0  # above the stretch limit of every image, so that the cut is never seen
ROWS_PER_ROOT = 25  # of the quantile table, per unit of sqrt(rate): rounding stays within 4 % of the counts' sd
UNIFORMS = 1 << 16


class Stain:
    """The pixel model of one section; its fields are float32 of the section's shape.

    stream: purpose -> random generator, a fresh one at each call, so that every protein has noise of its own
    whatever was drawn before. area_px: (N,) pixels of each fibre.
    """

    def __init__(self, geometry: Geometry, stream: Callable[[str], Generator]) -> None:
        self.stream, self.cell = stream, geometry.cell
        self.depth = np.clip(geometry.depth_px, -30, None)  # far outside nothing is visible, and exp stays finite
        self.inside = self.depth > 0
        self.area_px = np.bincount(self.cell[self.inside], minlength=int(self.cell.max()) + 1)[1:]
        rng, shape, n = stream("texture"), self.cell.shape, len(self.area_px) + 1

        log_rate = TEXTURE * _oblong_noise(shape, (0.8, 1.2), rng) + MOTTLE * smooth_noise(shape, 6, rng)
        log_rate += SHADE * smooth_noise(shape, 30, rng)
        within = np.maximum(self.depth, 0)
        # Dark streaks along some fibres' cores, where the plane of section cuts the myofibrils obliquely.
        streaks = np.maximum(_oblong_noise(shape, (1.5, 7.0), rng), 0)
        streaked = STREAKS * np.maximum(exact.normal(rng, n) - np.float32(0.5), 0)
        log_rate -= streaked[self.cell] * streaks * (1 - exact.exp(-within / 10))

        crust = np.maximum(1 + smooth_noise(shape, 8, rng), 0) * exact.exp(-within / np.float32(CLUMP_PX))
        rim_gain = RIM_GAIN * exact.exp(0.4 * exact.normal(rng, n))
        rim = exact.exp(-within / np.float32(RIM_PX)) + CLUMP_GAIN * crust
        self.modulation = exact.exp(log_rate) * (1 + rim_gain[self.cell] * rim)
        self.modulation /= 1 + exact.exp(-(self.depth + 0.4) / np.float32(0.45))  # an edge about 1 px soft
        self.crust = crust * self.modulation
        self.plain = self._per_fibre(self.modulation)

        near = ndi.uniform_filter(self.inside.astype(np.float32), 41)
        stroma = STROMA * exact.exp(0.5 * smooth_noise(shape, 20, rng)) * np.minimum(1.5 * near, 1)
        self.background = OUTSIDE + stroma * (self.depth < 0)

    def counts(
        self, protein: str, level: np.ndarray, uncured: np.ndarray, healthy: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Counts (H, W) uint8 of one protein, and the mean rate (N,) of each fibre, background apart.

        level: of each fibre, as painted inside it; uncured: as its soft edge outside the label is painted, in both
        twins; healthy: what it would be without the deficiency, which says how much of its SDHA is excess.
        """
        if protein == "Dystrophin":
            field = MEMBRANE_FLOOR + exact.exp(-np.square((self.depth + 0.3) / np.float32(MEMBRANE_PX)))
            rate, mean = self._spread(level) * field, level * self._per_fibre(field)
        else:
            field, mean = self.modulation, level
            if protein == "SDHA":
                excess = np.clip(exact.log(level / healthy), 0, 1.5)
                field = field + self._spread(EXCESS_GAIN * excess / (1 + excess)) * self.crust
            inside = self._spread(level / self._per_fibre(field)) * field
            rate = np.where(self.inside, inside, self._spread(uncured / self.plain) * self.modulation)
        if len(healthy):
            rate += np.float32(np.median(healthy)) * self.background
        row = (np.sqrt(np.minimum(rate, GREATEST_RATE)) * ROWS_PER_ROOT).round().astype(np.uint16)
        uniform = self.stream(f"noise {protein}").integers(0, UNIFORMS, row.shape, dtype=np.uint16)
        return quantiles()[row, uniform], mean

    def _per_fibre(self, field: np.ndarray) -> np.ndarray:
        """Mean of a field over each fibre, (N,)."""
        total = np.bincount(self.cell[self.inside], field[self.inside], minlength=len(self.area_px) + 1)
        return total[1:] / np.maximum(self.area_px, 1)

    def _spread(self, value: np.ndarray) -> np.ndarray:
        """A value per fibre (N,) as a field, 0 where no fibre is near."""
        return np.append(0, value).astype(np.float32)[self.cell]


def _oblong_noise(shape: tuple[int, int], sigma: tuple[float, float], rng: Generator) -> np.ndarray:
    """Gaussian random field of mean 0 and variance 1, float32: white noise blurred by sigma (y, x) px."""
    field = exact.smooth(exact.normal(rng, shape), sigma, "reflect")
    return (field / exact.deviation_after(sigma)).astype(np.float32)


@cache
def quantiles() -> np.ndarray:
    """(rows, 65536) uint8: count at each uniform number, for rates (row / ROWS_PER_ROOT) ** 2."""
    rates = (np.arange(int(np.sqrt(GREATEST_RATE) * ROWS_PER_ROOT) + 2) / ROWS_PER_ROOT) ** 2
    table = np.zeros((len(rates), UNIFORMS), np.uint8)
    shape = 1 / FLICKER**2
    for row, rate in enumerate(rates[1:], start=1):
        below = stats.nbinom.cdf(np.arange(255), shape, shape / (shape + rate))
        edges = np.concatenate([[0], np.round(below * UNIFORMS).astype(int), [UNIFORMS]])
        table[row] = np.repeat(np.arange(256, dtype=np.uint8), np.diff(edges))
    return table
