from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.testing import assert_allclose

from mitolib import splits
from mitolib.metrics import Estimate
from mitolib.saliency import faithfulness as f

MASK = np.array([[True, True, False, False]] * 2 + [[False] * 4] * 2)  # 4 of 16 cells


def one(map_yx: np.ndarray, mask_yx: np.ndarray = MASK) -> dict[str, float]:
    return f.localise(np.array(map_yx, float)[None], mask_yx[None], size_px=len(mask_yx)).iloc[0].to_dict()


def test_a_perfect_map_has_the_best_score_everywhere():
    assert one(MASK) == {"pointing": 1, "mass_over_area": 4, "rank": 1, "auprc": 1, "top5": 1}


def test_scores_are_those_computed_by_hand():
    # Inside are 7, 6, 5 and 0, a mass of 18 of 36 on a quarter of the area; 3 of the 4 highest.
    map_yx = [[7, 6, 8, 4], [5, 0, 3, 2], [1, 0, 0, 0], [0, 0, 0, 0]]
    scores = one(map_yx)
    assert (scores["pointing"], scores["rank"], scores["top5"]) == (0, 0.75, 0)
    assert_allclose(scores["mass_over_area"], 18 / 36 / 0.25)
    # Recall rises by a quarter at ranks 2, 3 and 4 with precision 1/2, 2/3, 3/4, and last among the zeros: 4 of 16.
    assert_allclose(scores["auprc"], (1 / 2 + 2 / 3 + 3 / 4 + 4 / 16) / 4)


def test_a_constant_map_scores_what_chance_does_and_a_map_of_zeros_has_no_mass():
    constant = one(np.ones((4, 4)))
    assert_allclose(list(constant.values()), [0.25, 1, 0.25, 0.25, 0.25])
    empty = one(np.zeros((4, 4)))
    assert np.isnan(empty.pop("mass_over_area"))
    assert_allclose(list(empty.values()), 0.25)


@pytest.mark.parametrize("fill", [False, True])
def test_a_mask_without_inside_or_outside_leaves_every_score_undefined(fill):
    assert all(np.isnan(score) for score in one(np.arange(16).reshape(4, 4), np.full((4, 4), fill)).values())


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_maps_with_values_that_are_no_evidence_are_refused(value):
    with pytest.raises(ValueError, match="below 0 or not finite"):
        one(np.where(MASK, 1, value))


def test_ties_at_the_threshold_count_as_expected():
    map_yx = np.array([[3, 2], [2, 1]])
    assert f.top_share(map_yx, np.array([[True, True], [False, False]]), 2) == pytest.approx((1 + 0.5) / 2)


def test_a_coarse_map_is_scored_at_the_resolution_of_the_mask():
    scores = f.localise(np.array([[[1.0, 0], [0, 0]]]), np.kron(MASK, np.ones((2, 2), bool))[None], size_px=8)
    assert scores["pointing"][0] == 1 and scores["rank"][0] > 0.8


def test_maps_are_enlarged_within_their_range_and_stretched_without_dividing_by_zero():
    maps = np.array([[[0.0, 4], [2, 2]], [[3, 3], [3, 3]]])
    large = f.enlarge(maps, 8)
    assert large.shape == (2, 8, 8) and large.min() == 0 and large.max() == 4 and (large[1] == 3).all()
    assert f.unit(maps).tolist() == [[[0, 1], [0.5, 0.5]], [[0, 0], [0, 0]]]


def test_a_map_is_like_itself_and_unlike_its_negative_and_an_empty_map_is_like_nothing(rng):
    maps = rng.random((3, 14, 14))
    others = np.stack([maps[0] * 7, 1 - maps[1], np.zeros((14, 14))])
    found = f.similarity(maps, others)
    assert_allclose(found.iloc[0], 1)
    assert_allclose(found["spearman"][1], -1) and found["ssim"][1] < 0
    assert found.iloc[2].isna().all()


def test_maps_of_different_patches_need_two(rng):
    maps = rng.random((3, 14, 14))
    pd.testing.assert_frame_equal(f.different_patches(maps), f.similarity(maps, maps[[2, 0, 1]]))
    assert f.different_patches(maps[:1]).isna().all(axis=None), "not one, as of a map and itself"


def test_without_its_two_proteins_the_marker_alone_is_left_out(rng):
    patches = rng.integers(0, 255, (2, 32, 32, 1), np.uint8)
    both = rng.integers(0, 255, (2, 32, 32, 2), np.uint8)
    maps = f.without_network(patches, both, rng=np.random.default_rng(0))
    assert list(maps) == list(f.BASELINES)
    fewer = f.without_network(patches, None, rng=np.random.default_rng(0))
    assert maps.keys() - fewer.keys() == {"marker"}
    assert all((fewer[name] == maps[name]).all() for name in fewer)


def test_every_baseline_is_a_map_of_each_patch_that_knows_what_it_should(rng):
    patches = np.zeros((2, 32, 32, 1), np.uint8)
    patches[:, :, 16:] = 200
    ratio = np.zeros((2, 32, 32, 2), np.uint8)
    ratio[..., 1], ratio[:, :16, :, 0] = 200, 200  # VDAC1 everywhere, NDUFB8 above only
    maps = {name: draw(patches, ratio, rng) for name, draw in f.BASELINES.items()}
    assert all(stack.shape == (2, 32, 32) and stack.min() >= 0 for stack in maps.values())
    assert set(np.argwhere(maps["Sobel"][0] > 1e-6)[:, 1]) == {15, 16}, "the edge only"
    assert maps["intensity"][0, 0].tolist() == [0] * 16 + [200 / 255] * 16
    assert maps["centre"][0].max() == maps["centre"][0, 15:17, 15:17].max() > 4 * maps["centre"][0, 0, 0]
    assert maps["marker"][0, 24:].min() > maps["marker"][0, :8].max()
    assert len(np.unique(maps["random"])) == maps["random"].size


# ---- truth


@pytest.fixture
def cohort_with_truth(tmp_path):
    """Section S: fibre 1 healthy, 2 and 3 deficient, 4 deficient but hardly in any patch; T: all healthy."""
    (tmp_path / "truth").mkdir()
    labels = np.zeros((64, 64), np.uint16)
    labels[:30, :30], labels[:30, 34:], labels[34:, :25], labels[60:, 60:] = 1, 2, 3, 4
    tifffile.imwrite(tmp_path / "truth" / "S.tif", labels)
    tifffile.imwrite(tmp_path / "truth" / "T.tif", labels)
    rows = [("S", 1, "none"), ("S", 2, "CI"), ("S", 3, "CIV"), ("S", 4, "CI"), *(("T", i, "none") for i in range(1, 5))]
    pd.DataFrame(rows, columns=["section", "fibre", "deficiency"]).to_csv(tmp_path / "truth/fibres.csv", index=False)
    return tmp_path


TABLE = pd.DataFrame({"section": ["S", "T"], "subject": ["S", "T"], "y": 0, "x": 0, "size": 64})


def test_deficient_fibres_of_a_patch_largest_first_without_slivers(cohort_with_truth):
    labels, deficient = f.truth_windows(cohort_with_truth, TABLE)
    assert [fibres.tolist() for fibres in deficient] == [[2, 3], []]
    masks = f.masks(labels, deficient)
    assert masks[0].sum() == 30 * 30 + 30 * 25 and not masks[1].any()


def test_a_patch_sees_its_own_window_of_the_section(cohort_with_truth):
    labels, deficient = f.truth_windows(cohort_with_truth, TABLE[:1].assign(x=30, size=34))
    assert deficient[0].tolist() == [2] and labels[0, 0, 3] == 0 and labels[0, 0, 4] == 2


def test_data_without_truth_leave_every_score_undefined_and_every_section_in(tmp_path):
    labels, deficient = f.truth_windows(tmp_path, TABLE)
    masks = f.masks(labels, deficient)
    assert f.localise(np.ones((2, 4, 4)), masks, size_px=64).isna().all(axis=None)
    assert f.mosaic(tmp_path, ["S", "T"]) == ["S", "T"]


def test_mosaic_sections_have_some_deficient_fibres_but_not_all(cohort_with_truth):
    assert f.mosaic(cohort_with_truth, ["S", "T"]) == ["S"]


def test_patches_are_taken_from_each_subject_in_turn():
    table = pd.DataFrame({"subject": list("AAAAAAB")})
    assert set(f.spread(table, 2, seed=0)["subject"]) == {"A", "B"}
    assert len(f.spread(table, 99, seed=0)) == 7


def test_shuffled_labels_stay_whole_within_a_subject_and_keep_their_number(rng):
    labels, subjects = np.array([0, 0, 1, 1, 1, 0]), list("AABBCD")
    for _ in range(20):
        shuffled = splits.shuffle_by_subject(labels, subjects, rng=rng)
        by_subject = pd.Series(shuffled, subjects).groupby(level=0)
        assert (by_subject.nunique() == 1).all() and sorted(by_subject.first()) == [0, 0, 1, 1]
        assert (shuffled != labels).any()
        assert (shuffled == labels).any(), "turned round they would tell the classes apart as before"
    with pytest.raises(ValueError, match="all 2 subjects have one label"):
        splits.shuffle_by_subject(np.array([1, 1]), ["A", "B"], rng=rng)
    with pytest.raises(ValueError, match="labels of 2 subjects can only stay or be turned round"):
        splits.shuffle_by_subject(np.array([0, 1]), ["A", "B"], rng=rng)


def test_those_who_are_taught_get_both_labels_neither_the_true_ones_nor_those_turned_round(rng):
    labels, subjects, taught = np.array([0, 0, 0, 1, 1, 1, 1]), np.array(list("ABCDEFG")), np.array([0, 1, 3])
    for _ in range(50):
        own = splits.shuffle_by_subject(labels, subjects, rng=rng, taught=taught)[taught]
        assert set(own) == {0, 1} and 0 < (own != labels[taught]).sum() < 3
    with pytest.raises(ValueError, match="2 subjects"):
        splits.shuffle_by_subject(labels, subjects, rng=rng, taught=np.array([0, 6]))


def test_strata_are_of_the_share_that_is_deficient_and_of_the_size_of_its_fibres():
    masks = np.zeros((4, 10, 10), bool)
    masks[0, 0], masks[1, :3], masks[2, :9] = True, True, True
    deficient = [np.array([1]), np.array([1, 2, 3]), np.array([1]), np.array([])]
    scores = {"B": np.array([1.0, 2, 3, np.nan]), "A": np.array([4.0, np.nan, 5, np.nan])}
    found = f.by_stratum(scores, dict.fromkeys(scores, masks), dict.fromkeys(scores, deficient))
    by_score = found.set_index("score").sort_index()
    assert list(by_score.index) == [1, 2, 3, 4, 5], "without the undefined ones"
    assert by_score["by share"].tolist() == ["under 15 %", "15 to 40 %", "over 40 %", "under 15 %", "over 40 %"]
    assert by_score["by size"].tolist() == ["smaller half"] * 2 + ["larger half", "smaller half", "larger half"]
    assert list(found["model"].cat.categories) == ["B", "A"]


# ---- the network


def test_a_hole_in_a_plane_is_filled_by_the_plane_and_the_rest_is_untouched(rng):
    y, x = np.mgrid[:64, :64]
    patch = np.stack([2 * x + 40, 3 * y], axis=-1).astype(np.uint8)
    missing = np.zeros((16, 16), bool)
    missing[5:10, 6:9] = True
    filled = f.impute(patch, missing, rng=rng)
    inside = np.kron(missing, np.ones((4, 4), bool))
    assert (filled[~inside] == patch[~inside]).all()
    assert np.abs(filled[inside].astype(int) - patch[inside]).max() < 6 * 255 * f.NOISE + 2
    assert (filled[inside] != patch[inside]).any()


def test_all_may_be_missing_and_nothing(rng):
    patch = np.full((16, 16, 1), 90, np.uint8)
    assert (f.impute(patch, np.zeros((4, 4), bool), rng=rng) == patch).all()
    gone = f.impute(patch, np.ones((4, 4), bool), rng=rng)
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
    good, bad = (
        f.remove(bright_in_the_corner, patch, maps, shares=[0.3], rng=rng).iloc[0] for maps in (faithful, wrong)
    )
    assert good["deletion"] < 0.1 < 0.9 < bad["deletion"]
    assert good["insertion"] > 0.9 > 0.1 > bad["insertion"]


@pytest.fixture
def fibres():
    """Four fibres in quarters of a patch of 64 px, shown to the network at 32 px; the first is most unlike its twin."""
    labels = np.kron(np.array([[1, 2], [3, 4]], np.uint16), np.ones((32, 32), np.uint16))[None]
    twin = np.full((1, 32, 32, 1), 100, np.uint8)
    patch = twin.copy()
    patch[0, :16, :16], patch[0, :16, 16:], patch[0, 16:, :16] = 220, 180, 140
    return patch, twin, labels, [np.array([1, 2, 3, 4])]


def test_each_fibre_is_restored_alone_and_its_effect_is_the_fall(fibres):
    effects = f.restore(lambda patches: patches.mean(axis=(1, 2, 3), dtype=float), *fibres, most=9)
    assert effects["fibre"].tolist() == [1, 2, 3, 4]
    assert_allclose(effects["effect"], [30, 20, 10, 0], atol=1.5)
    assert len(f.restore(lambda patches: np.zeros(len(patches)), *fibres, most=2)) == 2
    patch, twin, labels, _ = fibres
    assert f.restore(bright_in_the_corner, patch, twin, labels, [np.array([], int)], most=3).empty


def test_a_map_that_ranks_fibres_as_they_act_correlates_with_one_and_its_reverse_with_minus_one(fibres):
    *_, labels, _ = fibres
    effects = pd.DataFrame({"patch": 0, "fibre": [1, 2, 3, 4], "effect": [30, 20, 10, 0]})
    maps = np.array([[[4.0, 3], [2, 1]]])
    assert_allclose(f.causal_rank(maps, labels, effects), 1)
    assert_allclose(f.causal_rank(5 - maps, labels, effects), -1)
    assert np.isnan(f.causal_rank(maps, labels, effects[:3])), "three fibres are no ranking"
    assert np.isnan(f.causal_rank(np.ones((1, 2, 2)), labels, effects)), "nor is a constant map"


# ---- the record


def test_the_summary_has_every_score_of_every_model_and_method_as_json(rng):
    index = pd.MultiIndex.from_product([["VGG16"], ["Sobel", "saliency"], [0, 1]], names=["model", "method", "patch"])
    scores = pd.DataFrame({"auprc": [1.0, 0, 1, 1], "rank": np.nan, "subject": list("ABAB")}, index=index)
    summary = f.summarise(scores, rng=rng)
    assert summary["VGG16"]["Sobel"]["auprc"].value == 0.5 and summary["VGG16"]["saliency"]["auprc"].value == 1
    assert summary["VGG16"]["Sobel"]["rank"] == Estimate(None, None, 0, 2)


def score(value: float | None, *ci: float) -> dict:
    return Estimate(value, ci or None)


def test_verdicts_follow_the_intervals_and_a_map_must_beat_edges():
    empty = {"randomisation_ssim": score(None), "different_patches_ssim": score(None)}
    empty |= {"deletion_minus_random": score(0, -1, 1), "causal_rank_correlation": score(0.3)}
    sees = {"randomisation_ssim": score(0.1), "different_patches_ssim": score(0.2)}
    sees |= {"deletion_minus_random": score(-0.2, -0.3, -0.1), "causal_rank_correlation": score(0.5, 0.4, 0.6)}
    by_method = {
        "Sobel": empty | {"mass_over_area": score(1.3, 1.2, 1.4)},
        "good": sees | {"mass_over_area": score(2, 1.5, 3)},
        "edgy": sees | {"mass_over_area": score(1.2, 1.1, 1.3), "randomisation_ssim": score(0.9)},
        "blind": sees | {"mass_over_area": score(0.8, 0.7, 0.9), "deletion_minus_random": score(0.1, 0.0, 0.2)},
    }
    found = f.verdicts({"VGG16": by_method}).loc["VGG16"]
    assert found.loc["good"].tolist() == ["yes"] * 4
    assert found.loc["edgy"].tolist() == ["no", "no more than an edge or brightness map", "yes", "yes"]
    assert found.loc["blind"].tolist() == ["yes", "no", "no", "yes"]
    assert found.loc["Sobel"].tolist() == ["-", "yes", "open", "open"]
    lucky = {"random": empty | {"mass_over_area": score(1.2, 1.0, 1.3)}}
    found = f.verdicts({"VGG16": by_method | lucky}).loc["VGG16"]
    assert found.loc["Sobel", "finds deficient fibres"] == "open", "random numbers did as well in this sample"
    assert "random" not in found.index


def test_without_truth_the_questions_about_it_are_not_asked():
    scores = {"randomisation_ssim": score(0.1), "different_patches_ssim": score(0.2)}
    scores |= {"deletion_minus_random": score(-0.2, -0.3, -0.1)}
    found = f.verdicts({"VGG16": {"Grad-CAM": scores, "random": scores}})
    assert found.loc["VGG16"].to_dict("index") == {"Grad-CAM": {"follows the weights": "yes", "network reacts": "yes"}}


def test_one_score_is_taken_out_of_all():
    methods = {"VGG16": {"Sobel": {"auprc": score(1), "rank": score(2)}}, "ResNet50": {"Sobel": {"auprc": score(3)}}}
    assert f.one_score(methods, "auprc") == {"VGG16": {"Sobel": score(1)}, "ResNet50": {"Sobel": score(3)}}
