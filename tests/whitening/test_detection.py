from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score

from mitolib.metrics import Estimate
from mitolib.whitening import detection

# ---- who can tell


TRAIN, VALIDATION, TEST = np.arange(60), np.arange(60, 120), np.arange(120, 180)


def alternating(n: int = 180) -> np.ndarray:
    return np.arange(n) % 2.0


def test_the_unit_that_knows_the_concept_is_found_with_its_sign(rng):
    shown, units = alternating(), rng.standard_normal((180, 5))
    units[:, 3] -= 4 * shown
    shown[::10] = np.nan
    scores = detection.detectors(units, shown, TRAIN, VALIDATION)
    assert list(scores) == ["best unit", "LDA", "probe"]
    assert (scores["best unit"] == -units[:, 3]).all()
    assert all(score.shape == (180,) and detection.auc(score[TEST], shown[TEST]) > 0.95 for score in scores.values())


def test_the_unit_is_chosen_on_the_validation_rows_and_no_others(rng):
    shown, units = alternating(), rng.standard_normal((180, 4))
    units[VALIDATION, 1] += 9 * shown[VALIDATION]
    elsewhere = np.concatenate([TRAIN, TEST])
    units[elsewhere, 2] += 9 * shown[elsewhere]
    assert (detection.detectors(units, shown, TRAIN, VALIDATION)["best unit"] == units[:, 1]).all()
    assert (detection.detectors(units, shown, TRAIN, TEST)["best unit"] == units[:, 2]).all()


def test_a_direction_across_many_units_is_found_by_the_linear_rivals_and_by_no_single_unit(rng):
    shown = alternating()
    units = rng.standard_normal((180, 9)) + 1.2 * shown[:, None]
    scores = detection.detectors(units, shown, TRAIN, VALIDATION)
    aucs = {name: detection.auc(score[TEST], shown[TEST]) for name, score in scores.items()}
    assert aucs["LDA"] > 0.95 and aucs["probe"] > 0.95 and aucs["best unit"] < 0.9


def test_what_the_test_patches_show_changes_no_detector(rng):
    shown, units = alternating(), rng.standard_normal((180, 4))
    other = shown.copy()
    other[TEST] = 1 - other[TEST]
    first, second = (detection.detectors(units, one, TRAIN, VALIDATION) for one in (shown, other))
    assert all((first[name] == second[name]).all() for name in first)


def test_without_both_kinds_to_choose_by_the_first_unit_stands_in(rng):
    shown, units = alternating(), rng.standard_normal((180, 3))
    shown[VALIDATION] = 0
    assert (detection.detectors(units, shown, TRAIN, VALIDATION)["best unit"] == units[:, 0]).all()


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_training_patches_of_one_kind_are_refused(rng, value):
    shown = alternating()
    shown[TRAIN] = value
    n = 0 if np.isnan(value) else 60
    with pytest.raises(ValueError, match=f"{n} training patches, all with or all without"):
        detection.detectors(rng.standard_normal((180, 3)), shown, TRAIN, VALIDATION)


@given(n=st.integers(2, 40), levels=st.integers(1, 50), seed=st.integers(0, 99))
def test_areas_of_all_columns_at_once_are_those_of_each_also_with_ties(n, levels, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(n, 3)) / levels
    shown = rng.permutation(np.r_[0, 1, rng.integers(2, size=n - 2)])
    wanted = [roc_auc_score(shown, score) for score in scores.T]
    assert_allclose(detection.aucs(scores, shown), wanted, rtol=1e-12)


def test_the_area_under_the_curve_is_over_the_known_patches_and_needs_both_kinds():
    score, shown = np.array([0.1, 0.4, 0.35, 0.8, 9]), np.array([0, 0, 1, 1, np.nan])
    assert detection.auc(score, shown) == 0.75
    assert np.isnan(detection.auc(score[:2], shown[:2])) and np.isnan(detection.auc(score[4:], shown[4:]))


def test_a_rank_is_the_share_of_the_reference_below():
    assert detection.rank_among(np.array([0, 1.5, 3, 9]), np.array([4.0, 2, 1, 3])).tolist() == [0, 0.25, 0.5, 1]


def test_ranks_make_folds_of_different_scale_comparable():
    shown, small = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    large = 100 * small + 50
    both = np.tile(shown, 2)
    assert detection.auc(np.concatenate([small, large]), both) < 0.8
    ranks = np.concatenate([detection.rank_among(scores, scores) for scores in (small, large)])
    assert detection.auc(ranks, both) == 1


def test_a_row_comes_of_each_test_patch_of_known_kind_and_each_detector():
    shown, test = np.array([np.nan, 0, 1, 0, 1, np.nan]), np.array([3, 4, 5])
    ranks = {"axis": np.array([0, 2 / 3, 1]), "unit": np.array([1.0, 1, 1])}
    table = detection.ranks_of_tested(ranks, shown, test)
    assert list(table) == ["detector", "row", "shown", "rank"]
    axis = table[table["detector"] == "axis"]
    assert axis["row"].tolist() == [3, 4] and axis["shown"].tolist() == [0, 1]
    assert_allclose(axis["rank"], [0, 2 / 3])
    assert (table["rank"][table["detector"] == "unit"] == 1).all()


def test_the_summary_is_of_the_mean_rank_over_seeds_and_of_each_seed(rng):
    ranks = {1: [0.4, 0.5, 0.4, 0.5], 2: [0.1, 0.2, 0.8, 0.9]}
    table = pd.concat(
        pd.DataFrame({"seed": seed, "row": range(4), "subject": list("ABCD"), "shown": [0.0, 0, 1, 1], "rank": rank})
        for seed, rank in ranks.items()
    )
    table = pd.concat(
        [
            table.assign(concept="large", detector="axis"),
            table.assign(concept="none", detector="axis", shown=0.0),
            table.assign(concept="none", detector="unit", shown=1.0),
        ]
    )
    found = detection.aucs_by_concept(table, rng=rng)
    assert {concept: list(by_detector) for concept, by_detector in found.items()} == {
        "large": ["axis"],
        "none": ["axis", "unit"],
    }
    assert found["large"]["axis"] == detection.Detected(1, detection.perfect(4), by_seed=[0.5, 1])
    assert found["none"]["axis"] == detection.Detected(None, by_seed=[None, None])


def test_a_perfect_score_has_the_exact_interval_of_its_people_and_an_undefined_one_none(rng):
    score, shown, subjects = np.array([1, 2, 3, 4]), np.array([0.0, 0, 1, 1]), list("ABCD")
    assert detection.auc_interval(score, shown, subjects, rng=rng, draws=50) == Estimate(1, detection.perfect(4))
    assert detection.perfect(4) == (pytest.approx(0.025**0.25), 1), "Clopper and Pearson, all of four"
    undefined = detection.auc_interval(score, np.ones(4), subjects, rng=rng)
    assert undefined == Estimate(None)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_holds_the_value_and_is_wider_where_patches_come_from_few_subjects(seed):
    rng = np.random.default_rng(seed)
    shown = alternating(120)
    subjects = np.arange(120) // 12
    score = shown + rng.standard_normal(120) + 1.5 * rng.standard_normal(10)[subjects] * (2 * shown - 1)
    whole = detection.auc_interval(score, shown, subjects, rng=rng, draws=100)
    single = detection.auc_interval(score, shown, np.arange(120), rng=rng, draws=100)
    assert whole.value == single.value == pytest.approx(detection.auc(score, shown))
    for found in (whole, single):
        assert found.ci[0] < found.value < found.ci[1]
    assert np.ptp(whole.ci) > np.ptp(single.ci)


def test_draws_of_one_kind_are_drawn_again(rng):
    found = detection.auc_interval(np.array([1, 2, 3]), np.array([0.0, 1, 1]), ["A", "B", "C"], rng=rng, draws=50)
    assert found == Estimate(1, detection.perfect(3)), "a third of all draws hold one kind only"


def test_two_subjects_give_no_interval(rng):
    found = detection.auc_interval(np.array([1, 2]), np.array([0.0, 1]), ["A", "B"], rng=rng)
    assert found == Estimate(1)


def test_a_difference_of_areas_is_paired_over_people(rng):
    shown, subjects = alternating(120), np.arange(120) // 12
    less = shown + rng.standard_normal(120) + 2 * rng.standard_normal(10)[subjects] * (2 * shown - 1)
    of = less + 0.5 * shown
    gap = detection.auc_difference(of, less, shown, subjects, seed=0)
    assert gap.value == pytest.approx(detection.auc(of, shown) - detection.auc(less, shown))
    alone = detection.auc_interval(of, shown, subjects, rng=np.random.default_rng(0))
    assert 0 < gap.ci[0] <= gap.value <= gap.ci[1] and np.ptp(gap.ci) < np.ptp(alone.ci)
    assert detection.auc_difference(of, of, shown, subjects, seed=0) == Estimate(0.0)
    assert detection.auc_difference(of, less, np.ones(120), subjects, seed=0) == Estimate(None)


# ---- how far groups share directions


def test_cosines_do_not_depend_on_length():
    table = detection.cosines(pd.DataFrame([[1, 0], [0, 2], [-3, 0], [1, 1]], index=list("abcd")))
    assert list(table) == list(table.index) == list("abcd")
    assert_allclose(table.loc["a"], [1, 0, -1, np.sqrt(0.5)], atol=1e-12)


GROUPS = {"one": np.array([0, 1]), "other": np.array([2, 3])}


@pytest.mark.parametrize(
    ("other", "between", "shared"), [([[0, 1], [0, 5]], 0, 0), ([[1, 0], [4, 0]], 1, 1), ([[-1, 0], [-2, 0]], -1, 1)]
)
def test_groups_share_no_direction_all_or_its_opposite_whose_sign_only_the_contrast_keeps(other, between, shared):
    units = np.array([[1, 0], [3, 0], *other], float)
    d = detection.contrast(units, GROUPS)
    assert_allclose(d, [[1, between], [between, 1]], atol=1e-12)
    assert list(d) == list(d.index) == ["one", "other"]
    assert detection.separability(units, GROUPS) == pytest.approx(shared)


def test_a_group_without_rows_has_no_contrast_and_is_left_out_of_the_separability():
    units = np.array([[1.0, 0], [3, 0], [1, 1], [2, 2]])
    groups = GROUPS | {"empty": np.array([], int)}
    d = detection.contrast(units, groups)
    assert d["empty"].isna().all() and d.loc["empty"].isna().all()
    assert detection.separability(units, groups) == pytest.approx(np.sqrt(0.5))
    assert detection.separability(units, GROUPS) == pytest.approx(np.sqrt(0.5))
    assert np.isnan(detection.separability(units, {"one": GROUPS["one"]})), "one group has nothing to share with"


@given(st.integers(0, 2**32 - 1))
def test_separability_lies_between_none_and_all(seed):
    rng = np.random.default_rng(seed)
    units = rng.standard_normal((9, 4)) + rng.standard_normal(4)
    groups = {"a": np.arange(3), "b": np.arange(3, 6), "c": np.arange(6, 9)}
    assert 0 <= detection.separability(units, groups) <= 1 + 1e-9
