"""Small made-up examples behind the diagrams of the overview. Nothing here is measured, and no network runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.ndimage import zoom
from scipy.spatial import cKDTree
from skimage.measure import block_reduce

from mitolib.figures.whitening import CONCEPTS, OTHER


def fibres(size_px: int, *, rng: Generator, dark: float = 0.25) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A drawing of packed fibres: (H, W) grey 0-255, (H, W) where a border is, (H, W) where a dark fibre is.

    dark: share of dark fibres. Cells of a jittered grid; far simpler than `mitolib.phantom.draw`.
    """
    pitch = size_px / 6
    centres_yx = np.stack(np.meshgrid(np.arange(-1, 8), np.arange(-1, 8), indexing="ij"), axis=-1).reshape(-1, 2)
    centres_yx = (centres_yx + rng.uniform(-0.3, 0.3, centres_yx.shape) + 0.5) * pitch
    is_dark = rng.uniform(size=len(centres_yx)) < dark
    grey = np.where(is_dark, rng.uniform(40, 70, len(centres_yx)), rng.uniform(150, 230, len(centres_yx)))
    distances, nearest = cKDTree(centres_yx).query(np.moveaxis(np.indices((size_px, size_px)), 0, -1), k=2)
    border_yx = distances[..., 1] - distances[..., 0] < 0.08 * pitch
    return np.where(border_yx, 15, grey[nearest[..., 0]]), border_yx, is_dark[nearest[..., 0]] & ~border_yx


@dataclass(frozen=True)
class GradCAM:
    """Every step of Grad-CAM on a drawing with three made-up maps of a last convolution."""

    picture_yx: np.ndarray  # (input_px, input_px), 0-255
    names: tuple[str, ...]  # what each map responds to
    maps_kyx: np.ndarray  # (K, map_px, map_px), >= 0
    gradients_kyx: np.ndarray  # (K, map_px, map_px): of the score of "patient" with respect to the maps
    weights: np.ndarray  # (K,): mean gradient of each map
    sum_yx: np.ndarray  # (map_px, map_px): weighted sum of the maps
    positive_yx: np.ndarray  # (map_px, map_px): its positive part
    heat_yx: np.ndarray  # (input_px, input_px): the same, enlarged


def gradcam(*, input_px: int, map_px: int, rng: Generator) -> GradCAM:
    """Grad-CAM (Selvaraju 2020, equations 1 and 2) on made-up maps: dark fibres speak for "patient", bright against."""
    picture_yx, border_yx, dark_yx = fibres(input_px, rng=rng)
    bright_yx = ~(border_yx | dark_yx)
    cell = input_px // map_px
    maps_kyx = np.stack([block_reduce(where.astype(float), cell, np.mean) for where in (dark_yx, border_yx, bright_yx)])
    gradients_kyx = np.array([0.6, 0.05, -0.3])[:, None, None] + rng.normal(0, 0.15, maps_kyx.shape)
    weights = gradients_kyx.mean(axis=(1, 2))
    sum_yx = np.tensordot(weights, maps_kyx, axes=1)
    positive_yx = np.maximum(sum_yx, 0)
    heat_yx = np.maximum(zoom(positive_yx, cell, order=1, grid_mode=True, mode="nearest"), 0)
    names = ("dark fibres", "borders", "bright fibres")
    return GradCAM(picture_yx, names, maps_kyx, gradients_kyx, weights, sum_yx, positive_yx, heat_yx)


def latent_points(n: int = 400, *, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) points as before normalisation, correlated and off centre, and (n,) the group of each.

    Three Gaussian clouds: a fifth of the points in each of CONCEPTS, the rest OTHER.
    """
    group = rng.choice([*CONCEPTS, OTHER], size=n, p=[0.2, 0.2, 0.6])
    means = {CONCEPTS[0]: (2.2, 0.8), CONCEPTS[1]: (-0.9, 1.9), OTHER: (-0.4, -0.9)}
    points = np.stack([means[name] for name in group]) + rng.normal(0, 0.75, (n, 2))
    turn = np.radians(25)
    turning = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mixing = np.array([[1.5, 0.7], [0.7, 0.9]]) @ turning  # two neurons that both listen to both directions
    return points @ mixing.T + np.array([6.0, 4.0]), group


def standardise(points: np.ndarray) -> np.ndarray:
    """(N, 2) with mean 0 and variance 1 along each axis: what batch normalisation does."""
    return (points - points.mean(axis=0)) / points.std(axis=0)


def whiten(points: np.ndarray) -> np.ndarray:
    """(N, 2) with mean 0 and covariance 1, turned as little as possible (ZCA)."""
    centred = points - points.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(points))
    return centred @ (vectors / np.sqrt(values)) @ vectors.T


def rotate(whitened: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(N, 2) turned (or mirrored) so that the mean of concept j lies along axis j as nearly as the right angle allows.

    The orthogonal matrix that maximises the sum over j of (mean of concept j) . (axis j), as in Chen 2020; one singular
    value decomposition. If the two concepts share all points between them, their means are opposite once whitened, and
    neither can reach its axis: hence OTHER.
    """
    means = np.stack([whitened[group == name].mean(axis=0) for name in CONCEPTS])
    left, _, right = np.linalg.svd(means)
    return whitened @ (left @ right).T
