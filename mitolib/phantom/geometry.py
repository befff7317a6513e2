"""Muscle in cross-section as geometry: tissue outline, packed fibres, gaps, fascicles; no proteins here.

A section is tiled by an anisotropic power diagram: fibre i owns the pixels x where
`(x - c_i)' M_i (x - c_i) - w_i` is least. Its metric M_i makes the fibre oblong along a slowly turning
direction, its weight w_i sets its size (Aurenhammer 1987, doi:10.1137/0216006). Cells whose centre lies
outside the tissue, and a few inside, are drawn as neighbours and then left empty: that gives whole,
rounded fibres along an irregular tissue edge instead of fibres cut by a line.

Lengths are pixels (about 1 um), points are (y, x), fields are float32. All arithmetic is that of `exact`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from mitolib.phantom import exact

CORNER_PX = 3.6  # how far a corner retreats from the point where three fibres would meet
FREE_CORNER_PX = 9.0  # the same where a neighbour is missing
GAP = 0.033  # half of the median gap between two fibres of one fascicle, in mean radii of a fibre
CLEFT_PX = 1.6  # half of what perimysium adds between two fascicles, median
FASCICLE_FIBRES = 45  # fibres of one fascicle, mean
EDGE = 1.4  # no fibre reaches farther from its centre, in radii of its ellipse; matters where neighbours are missing
PACKED = 0.83  # share of intact tissue that fibres cover, about
TEAR_CELLS = 4.0  # size of a tear, in radii of a fibre
VOIDS = 0.012  # share of cells that hold a vessel or fat instead of a fibre
SMALLEST_PX = 300  # area below which a remnant is no fibre; mitocyto's own limit is 500
REACH = 2.3  # radius of a cell's window, in radii of its ellipse
ROUNDS = 30  # of relaxation; cell areas then follow their targets to a few per cent


@dataclass(frozen=True)
class Cells:
    """Cells of the power diagram. centre_yx (N, 2); radius_px, weight (N,); metric (N, 3) as yy, yx, xx."""

    centre_yx: np.ndarray
    radius_px: np.ndarray
    weight: np.ndarray
    metric: np.ndarray


@dataclass(frozen=True)
class Geometry:
    """Fibres of one section, as maps of shape (height, width).

    cell: uint16, the fibre nearest to each pixel, numbered from 1; 0 = no fibre near.
    depth_px: float32, distance to that fibre's border, positive inside: a fibre is `cell` where depth_px > 0.
    """

    cell: np.ndarray
    depth_px: np.ndarray

    @property
    def label(self) -> np.ndarray:
        """uint16 (height, width): fibre number, 0 = no fibre."""
        return np.where(self.depth_px > 0, self.cell, 0).astype(np.uint16)


def upsample(coarse_yx: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear interpolation of a coarse float field onto `shape`, corner to corner; float32."""
    field = coarse_yx.astype(np.float32)
    for axis, length in enumerate(shape):
        at = np.linspace(0, field.shape[axis] - 1, length, dtype=np.float32)
        low = np.minimum(at.astype(np.intp), max(field.shape[axis] - 2, 0))
        part = at - low
        part = part[:, None] if axis == 0 else part[None, :]
        high = np.minimum(low + 1, field.shape[axis] - 1)
        field = np.take(field, low, axis) * (1 - part) + np.take(field, high, axis) * part
    return field


def smooth_noise(shape: tuple[int, int], length_px: float, rng: Generator) -> np.ndarray:
    """Gaussian random field of correlation length `length_px`, float32, standardised over its coarse points."""
    step = max(1.0, length_px / 3)
    coarse = [int(np.ceil(side / step)) + 2 for side in shape]
    field = exact.smooth(exact.normal(rng, coarse), length_px / step / 1.5, "wrap")
    return upsample(exact.standardised(field), shape)


def draw_tissue(
    outline: Sequence[str], shape: tuple[int, int], step_px: int, pad_px: int, rng: Generator
) -> np.ndarray:
    """Tissue mask of a section on a grid of `step_px`, with a margin of `pad_px` that repeats its border.

    outline: rows of '#' (tissue) and '.', stretched over `shape`. Returns bool; its element (0, 0) is the
    point (-pad_px, -pad_px) of the section.
    """
    cells = np.array([[character == "#" for character in row] for row in outline], dtype=float)
    inner = [int(np.ceil(side / step_px)) for side in shape]
    smooth = upsample(exact.smooth(cells, 0.6, "nearest"), (inner[0], inner[1]))
    cell_px = max(shape[0] / cells.shape[0], shape[1] / cells.shape[1])
    ragged = smooth_noise((inner[0], inner[1]), max(1.5 * cell_px / step_px, 3.0), rng)
    pad = int(np.ceil(pad_px / step_px))
    return np.pad(smooth + 0.12 * ragged > 0.5, pad, mode="edge")


def _sweep(cells: Cells, shape: tuple[int, int], warp_yx: np.ndarray | None, nearest: int) -> tuple[np.ndarray, ...]:
    """The `nearest` cells of each pixel: values (nearest, H, W) float32 and indices + 1 uint16, 0 = none."""
    value = np.full((nearest, *shape), np.inf, np.float32)
    index = np.zeros((nearest, *shape), np.uint16)
    yy, yx, xx = cells.metric.T
    determinant = yy * xx - yx**2
    half_y = REACH * cells.radius_px * np.sqrt(xx / determinant)
    half_x = REACH * cells.radius_px * np.sqrt(yy / determinant)
    low = np.floor(cells.centre_yx - np.stack([half_y, half_x], 1)).astype(int)
    high = np.ceil(cells.centre_yx + np.stack([half_y, half_x], 1)).astype(int) + 1
    low, high = np.maximum(low, 0), np.minimum(high, shape)
    for i in np.flatnonzero((low < high).all(axis=1)):
        window = (slice(low[i, 0], high[i, 0]), slice(low[i, 1], high[i, 1]))
        dy = np.arange(low[i, 0], high[i, 0], dtype=np.float32)[:, None] - np.float32(cells.centre_yx[i, 0])
        dx = np.arange(low[i, 1], high[i, 1], dtype=np.float32)[None, :] - np.float32(cells.centre_yx[i, 1])
        if warp_yx is not None:
            dy = dy + warp_yx[0][window]
            dx = dx + warp_yx[1][window]
        new = np.float32(yy[i]) * dy * dy - np.float32(cells.weight[i])
        new = new + (np.float32(2 * yx[i]) * dy + np.float32(xx[i]) * dx) * dx
        name = np.uint16(i + 1)
        for rank in range(nearest):  # insert into the sorted list of the `nearest` least values
            old, old_name = value[rank][window], index[rank][window]
            closer = new < old
            if rank + 1 == nearest:
                np.copyto(old, new, where=closer)
                np.copyto(old_name, name, where=closer)
            else:
                pushed, pushed_name = np.where(closer, old, new), np.where(closer, old_name, name)
                np.copyto(old, new, where=closer)
                np.copyto(old_name, name, where=closer)
                new, name = pushed, pushed_name
    return value, index


def pack_cells(
    tissue: np.ndarray,
    step_px: int,
    *,
    log_mean: float,
    log_sd: float,
    aspect: float,
    turn: float,
    rng: Generator,
) -> Cells:
    """Fill a tissue mask with cells of log-normal areas (px) by weighted Lloyd relaxation.

    tissue: bool (h, w) on a grid of step_px. aspect: long over short axis of a cell. turn: radians by which
    the direction of the fibres wanders about the horizontal. Centres are in pixels of the mask's own origin.
    """
    mean = float(exact.exp(log_mean + log_sd**2 / 2))
    reach = np.sqrt(mean) * 1.6
    domain = ndi.distance_transform_edt(~tissue) * step_px < reach  # a belt of empty neighbours around the tissue
    room = domain.sum() * step_px**2
    area = exact.exp(log_mean + log_sd * exact.normal(rng, max(4, round(room / mean)))).astype(float)
    area *= room / math.fsum(area)
    spots = np.argwhere(domain)
    chosen = rng.choice(len(spots), len(area), replace=len(spots) < len(area))
    centre = spots[chosen] + rng.uniform(0, 1, (len(area), 2))
    direction = turn * smooth_noise((domain.shape[0], domain.shape[1]), 12 * np.sqrt(mean) / step_px, rng)
    spin = 0.22 * exact.normal(rng, len(area)).astype(float)
    stretch = aspect * exact.exp(0.12 * exact.normal(rng, len(area))).astype(float)
    radius = np.sqrt(area / np.pi) / step_px
    weight = radius**2
    for _ in range(ROUNDS):
        inside = np.clip(centre.round().astype(int), 0, np.array(domain.shape) - 1)
        angle = direction[inside[:, 0], inside[:, 1]] + spin
        sine, cosine = exact.sine(angle), exact.cosine(angle)
        metric = np.stack(
            [
                sine**2 / stretch + cosine**2 * stretch,
                sine * cosine * (1 / stretch - stretch),
                cosine**2 / stretch + sine**2 * stretch,
            ],
            axis=1,
        )
        cells = Cells(centre, radius, weight, metric)
        owner = np.where(domain, _sweep(cells, (domain.shape[0], domain.shape[1]), None, 1)[1][0], 0).ravel()
        size = np.bincount(owner, minlength=len(area) + 1)[1:]
        y, x = np.divmod(np.arange(owner.size), domain.shape[1])
        middle = np.stack([np.bincount(owner, at, minlength=len(area) + 1)[1:] for at in (y, x)], axis=1)
        alive = size > 0
        centre[alive] = middle[alive] / size[alive, None]
        weight = weight + 0.5 * (radius**2 - size / np.pi)
    return Cells((centre + 0.5) * step_px - 0.5, radius * step_px, weight * step_px**2, metric)


def _border_distance(cells: Cells, value: np.ndarray, index: np.ndarray, other: int, points: tuple) -> np.ndarray:
    """Pixels between a point and the border of its own cell with the `other`-nearest cell."""
    nearest, far = index[0].astype(np.intp) - 1, index[other].astype(np.intp) - 1
    slope_y = slope_x = 0.0
    for sign, cell in ((1, far), (-1, nearest)):
        dy = points[0] - cells.centre_yx[:, 0].astype(np.float32)[cell]
        dx = points[1] - cells.centre_yx[:, 1].astype(np.float32)[cell]
        yy, yx, xx = (column.astype(np.float32)[cell] for column in cells.metric.T)
        slope_y = slope_y + sign * (yy * dy + yx * dx)
        slope_x = slope_x + sign * (yx * dy + xx * dx)
    steepness = 2 * np.sqrt(slope_y**2 + slope_x**2) + 1e-3
    return np.where(far < 0, np.float32(1e3), (np.minimum(value[other], 1e9) - value[0]) / steepness)


def grow(
    cells: Cells, tissue: np.ndarray, step_px: int, pad_px: int, shape: tuple[int, int], *, fill: float, rng: Generator
) -> Geometry:
    """Turn cells into fibres at full resolution: wavy borders, round corners, gaps, clefts between fascicles.

    tissue, step_px, pad_px: as for `draw_tissue`. fill: share of the tissue that fibres should cover; what intact
    muscle has in excess of it is left out as tears.
    """
    centre = cells.centre_yx - pad_px
    radius_px = math.fsum(cells.radius_px) / len(cells.radius_px)
    at = np.clip((cells.centre_yx / step_px).round().astype(int), 0, np.array(tissue.shape) - 1)
    torn = smooth_noise((tissue.shape[0], tissue.shape[1]), TEAR_CELLS * radius_px / step_px, rng)
    frayed = ndi.distance_transform_edt(tissue) * step_px / (5 * radius_px)
    torn += np.minimum(frayed, 2)  # fibres are lost at edges first
    torn = torn[at[:, 0], at[:, 1]]
    inside = tissue[at[:, 0], at[:, 1]]
    missing = float(np.clip(1 - fill / PACKED, 0, 0.9))
    empty = ~inside | (rng.random(len(centre)) < VOIDS) | (torn < np.quantile(torn[inside], missing))
    hubs = centre[rng.choice(len(centre), max(1, len(centre) // FASCICLE_FIBRES), replace=False)]
    fascicle = cKDTree(hubs).query(centre)[1]
    placed = Cells(centre, cells.radius_px, cells.weight, cells.metric)

    warp_yx = np.stack([2.2 * smooth_noise(shape, 45, rng) + 1.2 * smooth_noise(shape, 10, rng) for _ in range(2)])
    value, index = _sweep(placed, shape, warp_yx, 3)
    roughness = 0.75 * smooth_noise(shape, 12, rng) + 0.25 * smooth_noise(shape, 120, rng)
    gap = np.float32(GAP * radius_px) * exact.exp(roughness)
    cleft = CLEFT_PX * exact.exp(1.1 * smooth_noise(shape, 160, rng))
    depth = np.full(shape, -1e3, np.float32)
    hollow = np.append(True, empty)  # by name of a cell, 0 = none
    bundle = np.append(-1, fascicle)
    radius, weight = (np.append(0, field).astype(np.float32) for field in (placed.radius_px, placed.weight))
    for top in range(0, shape[0], 256):  # strips keep the temporaries small
        rows = slice(top, top + 256)
        nearest, second, third = index[:, rows]
        y = np.arange(shape[0], dtype=np.float32)[rows, None] + warp_yx[0, rows]
        x = np.arange(shape[1], dtype=np.float32)[None, :] + warp_yx[1, rows]
        to_second = _border_distance(placed, value[:, rows], index[:, rows], 1, (y, x))
        to_third = _border_distance(placed, value[:, rows], index[:, rows], 2, (y, x))
        # A corner is rounder where no fibre presses against it; softplus makes the two borders one smooth curve.
        bend = np.where(hollow[second] | hollow[third], FREE_CORNER_PX, CORNER_PX).astype(np.float32)
        strip = to_second - bend * exact.softplus(np.maximum(to_third - to_second, 0) / bend) - gap[rows]
        for near, distance in ((second, to_second), (third, to_third)):
            parted = bundle[near] != bundle[nearest]
            strip = np.where(parted, np.minimum(strip, distance - gap[rows] - cleft[rows]), strip)
        radial = np.sqrt(np.maximum(value[0, rows] + weight[nearest], 0))
        strip = np.minimum(strip, EDGE * radius[nearest] - radial)
        depth[rows] = np.where(nearest > 0, strip, -1e3)
    return _tidy(index[0], depth, empty)


def _tidy(cell: np.ndarray, depth_px: np.ndarray, empty: np.ndarray) -> Geometry:
    """Drop empty cells, splinters and remnants; number the fibres that are left from 1, top to bottom."""
    keep = np.concatenate([[False], ~empty])
    depth_px = np.where(keep[cell], depth_px, np.float32(-1e3))
    piece, pieces = ndi.label(depth_px > 0)
    small = np.bincount(piece.ravel(), minlength=pieces + 1) < SMALLEST_PX / 2
    small[0] = False
    depth_px[small[piece]] = -1e3
    size = np.bincount(cell[depth_px > 0], minlength=len(keep))
    keep = size >= SMALLEST_PX
    number = np.zeros(len(keep), np.uint16)
    first = np.unique(np.where(keep[cell] & (depth_px > 0), cell, 0), return_index=True)
    order = first[0][np.argsort(first[1], kind="stable")]
    order = order[order > 0]
    number[order] = np.arange(1, len(order) + 1)
    renamed = number[cell]
    return Geometry(renamed, np.where(renamed > 0, depth_px, np.float32(-1e3)))
