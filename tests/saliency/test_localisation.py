from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mitolib.saliency import localisation

MASK = np.array([[True, True, False, False]] * 2 + [[False] * 4] * 2)  # 4 of 16 cells


def scored(map_yx: np.ndarray, mask_yx: np.ndarray = MASK) -> dict[str, float]:
    return localisation.score(np.array(map_yx, float)[None], mask_yx[None], size_px=len(mask_yx)).iloc[0].to_dict()


def test_a_perfect_map_has_the_best_score_everywhere():
    assert scored(MASK) == {"pointing": 1, "mass_over_area": 4, "rank": 1, "auprc": 1, "top5": 1}


def test_scores_are_those_computed_by_hand():
    # Inside are 7, 6, 5 and 0, a mass of 18 of 36 on a quarter of the area; 3 of the 4 highest.
    map_yx = [[7, 6, 8, 4], [5, 0, 3, 2], [1, 0, 0, 0], [0, 0, 0, 0]]
    scores = scored(map_yx)
    assert (scores["pointing"], scores["rank"], scores["top5"]) == (0, 0.75, 0)
    assert_allclose(scores["mass_over_area"], 18 / 36 / 0.25)
    # Recall rises by a quarter at ranks 2, 3 and 4 with precision 1/2, 2/3, 3/4, and last among the zeros: 4 of 16.
    assert_allclose(scores["auprc"], (1 / 2 + 2 / 3 + 3 / 4 + 4 / 16) / 4)


def test_a_constant_map_scores_what_chance_does_and_a_map_of_zeros_has_no_mass():
    constant = scored(np.ones((4, 4)))
    assert_allclose(list(constant.values()), [0.25, 1, 0.25, 0.25, 0.25])
    empty = scored(np.zeros((4, 4)))
    assert np.isnan(empty.pop("mass_over_area"))
    assert_allclose(list(empty.values()), 0.25)


@pytest.mark.parametrize("fill", [False, True])
def test_a_mask_without_inside_or_outside_leaves_every_score_undefined(fill):
    assert all(np.isnan(score) for score in scored(np.arange(16).reshape(4, 4), np.full((4, 4), fill)).values())


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_maps_with_values_that_are_no_evidence_are_refused(value):
    with pytest.raises(ValueError, match="below 0 or not finite"):
        scored(np.where(MASK, 1, value))


def test_ties_at_the_threshold_count_as_expected():
    map_yx = np.array([[3, 2], [2, 1]])
    assert localisation.top_share(map_yx, np.array([[True, True], [False, False]]), 2) == pytest.approx((1 + 0.5) / 2)


def test_a_coarse_map_is_scored_at_the_resolution_of_the_mask():
    scores = localisation.score(np.array([[[1.0, 0], [0, 0]]]), np.kron(MASK, np.ones((2, 2), bool))[None], size_px=8)
    assert scores["pointing"][0] == 1 and scores["rank"][0] > 0.8


def test_strata_are_of_the_share_that_is_deficient_and_of_the_size_of_its_fibres():
    masks = np.zeros((4, 10, 10), bool)
    masks[0, 0], masks[1, :3], masks[2, :9] = True, True, True
    deficient = [np.array([1]), np.array([1, 2, 3]), np.array([1]), np.array([])]
    scores = {"B": np.array([1.0, 2, 3, np.nan]), "A": np.array([4.0, np.nan, 5, np.nan])}
    table = localisation.by_stratum(scores, dict.fromkeys(scores, masks), dict.fromkeys(scores, deficient))
    by_score = table.set_index("score").sort_index()
    assert list(by_score.index) == [1, 2, 3, 4, 5], "without the undefined ones"
    assert by_score["by share"].tolist() == ["under 15 %", "15 to 40 %", "over 40 %", "under 15 %", "over 40 %"]
    assert by_score["by size"].tolist() == ["smaller half"] * 2 + ["larger half", "smaller half", "larger half"]
    assert list(table["model"].cat.categories) == ["B", "A"]
