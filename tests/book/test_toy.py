"""The made-up examples show what the overview says they show, whatever the seed."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from mitolib.figures.whitening import angle

over_seeds = pytest.mark.parametrize("seed", [0, 1, 2, 127])


@pytest.fixture
def cloud(seed) -> tuple[np.ndarray, np.ndarray]:
    return toy.latent_points(rng=np.random.default_rng(seed))


def covariance(points: np.ndarray) -> np.ndarray:
    return np.cov(points.T, bias=True)


@over_seeds
def test_whitened_points_have_mean_zero_and_covariance_one(cloud):
    whitened = toy.whiten(cloud[0])
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(covariance(whitened), np.eye(2), atol=1e-12)


@over_seeds
def test_standardised_points_keep_their_correlation(cloud):
    standardised = toy.standardise(cloud[0])
    np.testing.assert_allclose(np.diag(covariance(standardised)), 1)
    assert (
        covariance(standardised)[0, 1] == pytest.approx(np.corrcoef(cloud[0].T)[0, 1])
        and abs(covariance(standardised)[0, 1]) > 0.5
    )


def test_whitening_turns_as_little_as_possible():
    points = np.random.default_rng(0).normal(size=(50, 2)) * [3, 1]
    points = toy.whiten(points) * [3, 1]  # axes uncorrelated to begin with
    np.testing.assert_allclose(toy.whiten(points), points / [3, 1], atol=1e-12)


@over_seeds
def test_rotation_keeps_points_white_and_lays_each_concept_along_its_axis(cloud):
    points, group = cloud
    whitened = toy.whiten(points)
    rotated = toy.rotate(whitened, group)
    np.testing.assert_allclose(covariance(rotated), np.eye(2), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(rotated, axis=1), np.linalg.norm(whitened, axis=1))
    for axis, name in enumerate(toy.CONCEPTS):
        mean = rotated[group == name].mean(axis=0)
        assert mean[axis] / np.linalg.norm(mean) > 0.95
        assert mean[axis] > whitened[group == name].mean(axis=0)[axis]


@over_seeds
def test_rotation_is_the_best_of_all(cloud):
    points, group = cloud
    whitened = toy.whiten(points)

    def aligned(points: np.ndarray) -> float:
        return sum(points[group == name].mean(axis=0)[j] for j, name in enumerate(toy.CONCEPTS))

    best = aligned(toy.rotate(whitened, group))
    for turn in np.linspace(0, 2 * np.pi, 73):
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        assert aligned(whitened @ matrix) <= best + 1e-12
        assert aligned(whitened @ (matrix * [1, -1])) <= best + 1e-12


@over_seeds
def test_concepts_come_near_a_right_angle_only_once_whitened(cloud):
    points, group = cloud
    raw, standardised, whitened = (
        angle(stage, group) for stage in (points, toy.standardise(points), toy.whiten(points))
    )
    assert raw < 15 and 75 < whitened < 110 and abs(whitened - 90) < abs(standardised - 90) < abs(raw - 90)


@over_seeds
def test_two_concepts_that_share_all_points_end_up_opposite(cloud):
    points, group = cloud
    two = group != toy.OTHER
    assert angle(toy.whiten(points[two]), group[two]) == pytest.approx(180, abs=1e-3)


@over_seeds
def test_gradcam_of_the_drawing_follows_its_equations_and_finds_the_dark_fibres(seed):
    example = toy.gradcam(input_px=224, map_px=14, rng=np.random.default_rng(seed))
    by_hand = sum(g.mean() * m for g, m in zip(example.gradients_kyx, example.maps_kyx, strict=True))
    np.testing.assert_allclose(example.sum_yx, by_hand)
    np.testing.assert_allclose(example.positive_yx, np.where(by_hand > 0, by_hand, 0), rtol=0, atol=1e-14)
    assert example.heat_yx.shape == example.picture_yx.shape == (224, 224) and example.heat_yx.min() >= 0
    assert example.weights[0] > 0 > example.weights[2]
    hot = example.heat_yx > 0.5 * example.heat_yx.max()
    assert hot.any() and example.picture_yx[hot].mean() < 0.7 * example.picture_yx[~hot].mean()


def test_the_drawing_of_fibres_has_borders_dark_and_bright_fibres():
    picture_yx, border_yx, dark_yx = toy.fibres(112, rng=np.random.default_rng(0))
    assert picture_yx.shape == (112, 112) and not (border_yx & dark_yx).any()
    assert picture_yx[border_yx].max() < picture_yx[dark_yx].min()
    assert picture_yx[dark_yx].max() < picture_yx[~(dark_yx | border_yx)].min()
