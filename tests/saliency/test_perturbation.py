from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from mitolib.saliency import perturbation


def test_a_hole_in_a_plane_is_filled_by_the_plane_and_the_rest_is_untouched(rng):
    y, x = np.mgrid[:64, :64]
    patch = np.stack([2 * x + 40, 3 * y], axis=-1).astype(np.uint8)
    missing = np.zeros((16, 16), bool)
    missing[5:10, 6:9] = True
    filled = perturbation.impute(patch, missing, rng=rng)
    inside = np.kron(missing, np.ones((4, 4), bool))
    assert (filled[~inside] == patch[~inside]).all()
    assert np.abs(filled[inside].astype(int) - patch[inside]).max() < 6 * 255 * perturbation.NOISE + 2
    assert (filled[inside] != patch[inside]).any()


def test_all_may_be_missing_and_nothing(rng):
    patch = np.full((16, 16, 1), 90, np.uint8)
    assert (perturbation.impute(patch, np.zeros((4, 4), bool), rng=rng) == patch).all()
    gone = perturbation.impute(patch, np.ones((4, 4), bool), rng=rng)
    assert abs(gone.mean() - 90) < 3 and gone.std() > 0


def bright_in_the_corner(patches_nhwc: np.ndarray) -> np.ndarray:
    """A network that looks at the upper left quarter only."""
    n = patches_nhwc.shape[1] // 2
    return patches_nhwc[:, :n, :n].mean(axis=(1, 2, 3)) / 10 - 6


def test_removing_what_the_network_looks_at_makes_it_miss_it_and_inserting_it_is_enough(rng):
    patch = np.zeros((1, 64, 64, 1), np.uint8)
    patch[:, :24, :24] = 255
    faithful, wrong = np.zeros((1, 8, 8)), np.zeros((1, 8, 8))
    faithful[:, :4, :4], wrong[:, 4:, 4:] = 1, 1
    good = perturbation.remove(bright_in_the_corner, patch, faithful, shares=[0.3], rng=rng).iloc[0]
    bad = perturbation.remove(bright_in_the_corner, patch, wrong, shares=[0.3], rng=rng).iloc[0]
    assert good["deletion"] < -2 < 2 < bad["deletion"]
    assert good["insertion"] > 2 > -2 > bad["insertion"]


def test_removal_is_read_in_log_odds_which_still_tell_where_probabilities_are_all_one(rng):
    patch = np.zeros((1, 64, 64, 1), np.uint8)
    patch[:, :24, :24] = 255
    faithful = np.zeros((1, 8, 8))
    faithful[:, :4, :4] = 1
    rows = [
        perturbation.remove(lambda x, n=n: bright_in_the_corner(x) + n, patch, faithful, shares=[0.3], rng=rng).iloc[0]
        for n in (0, 500)
    ]
    assert abs(rows[1]["deletion"] - rows[0]["deletion"] - 500) < 1


@pytest.fixture
def fibres():
    """Four fibres in quarters of a patch of 64 px, shown to the network at 32 px; the first is most unlike its twin."""
    labels = np.kron(np.array([[1, 2], [3, 4]], np.uint16), np.ones((32, 32), np.uint16))[None]
    twin = np.full((1, 32, 32, 1), 100, np.uint8)
    patch = twin.copy()
    patch[0, :16, :16], patch[0, :16, 16:], patch[0, 16:, :16] = 220, 180, 140
    return patch, twin, labels, [np.array([1, 2, 3, 4])]


def test_each_fibre_is_restored_alone_and_its_effect_is_the_fall(fibres):
    effects = perturbation.restore(lambda patches: patches.mean(axis=(1, 2, 3), dtype=float), *fibres, most=9)
    assert effects["fibre"].tolist() == [1, 2, 3, 4]
    assert_allclose(effects["effect"], [30, 20, 10, 0], atol=1.5)
    assert len(perturbation.restore(lambda patches: np.zeros(len(patches)), *fibres, most=2)) == 2
    patch, twin, labels, _ = fibres
    assert perturbation.restore(bright_in_the_corner, patch, twin, labels, [np.array([], int)], most=3).empty


def test_a_map_that_ranks_fibres_as_they_act_correlates_with_one_and_its_reverse_with_minus_one(fibres):
    *_, labels, _ = fibres
    effects = pd.DataFrame({"patch": 0, "fibre": [1, 2, 3, 4], "effect": [30, 20, 10, 0]})

    def rank(maps_nhw: np.ndarray, effects: pd.DataFrame = effects) -> np.ndarray:
        relevance = perturbation.mean_over_fibres(maps_nhw, labels, effects)
        return perturbation.causal_rank(effects.assign(relevance=relevance), 1)

    maps = np.array([[[4.0, 3], [2, 1]]])
    assert_allclose(rank(maps), 1)
    assert_allclose(rank(5 - maps), -1)
    assert np.isnan(rank(maps, effects[:3])), "three fibres are no ranking"
    assert np.isnan(rank(np.ones((1, 2, 2)))), "nor is a constant map"
