from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from PIL import Image
from sklearn.metrics import roc_auc_score

from mitolib.cohort import CohortError, Section
from mitolib.metrics import Estimate
from mitolib.whitening import concepts

# ---- how much of each concept


def patch_table(*rows: tuple[str, str, int]) -> pd.DataFrame:
    """Patches of 10 px at the top of a section: section (its own subject), label, x."""
    table = pd.DataFrame(rows, columns=["section", "label", "x"])
    return table.assign(subject=table["section"], y=0, size=10, tissue=np.linspace(1, 0.25, len(table)))


@pytest.fixture
def phantom(tmp_path):
    """Control C: 20 fibres in the first patch, one of them rich in SDHA. Patient P: four and one. Truth only."""
    control = [("C", 5.0, 5.0, 50, "none", 4.0 if i == 0 else 1.0, 1.0) for i in range(20)]
    patient = [
        ("P", 1.0, 1.0, 100, "CI", 1.05, 1.0),
        ("P", 2.0, 9.0, 200, "CIV", 2.4, 2.0),
        ("P", 9.0, 2.0, 600, "CI+CIV", 3.0, 3.0),
        ("P", 9.0, 9.9, 1200, "none", 2.4, 2.0),
        ("P", 5.0, 10.5, 900, "CI", 0.5, 1.0),
        ("P", 11.0, 5.0, 9, "CI", 9.0, 9.0),  # below all patches
    ]
    columns = ["section", "y", "x", "area_px", "deficiency", "SDHA", "VDAC1"]
    (tmp_path / "truth").mkdir()
    pd.DataFrame(control + patient, columns=columns).to_csv(tmp_path / "truth/fibres.csv", index=False)
    return tmp_path


FOUR = patch_table(("C", "control", 0), ("C", "control", 10), ("P", "patient", 0), ("P", "patient", 10))
TWO = [Section("C", "C", "control", 10, 20, {}), Section("P", "P", "patient", 10, 20, {})]


def test_a_patch_holds_the_fibres_whose_centres_lie_in_it(phantom):
    found = concepts.measure(phantom, FOUR, TWO)
    assert found.loc[2, ["complex I deficient", "complex IV deficient"]].tolist() == [2 / 4, 2 / 4]
    assert found.loc[3, ["complex I deficient", "complex IV deficient"]].tolist() == [1, 0]
    assert found["large fibres"].tolist()[2:] == [(200 + 600) / 2, 900], "the median"
    assert found["much VDAC1"].tolist()[2:] == [2, 1]
    assert found.loc[0, ["complex I deficient", "large fibres", "much VDAC1"]].tolist() == [0, 50, 1]


def test_sdha_counts_as_raised_above_nearly_all_of_the_controls_fibres(phantom):
    found = concepts.measure(phantom, FOUR, TWO)["SDHA raised"]
    # Between the 19th and the 20th of the controls' ratios, 1 and 4, the quantile lies at 1.07: 1.2 is above it, 1.05
    # and 1 are not, though the greatest of the controls is above all.
    assert found.tolist()[2:] == [2 / 4, 0] and found[0] == 1 / 20


def test_the_level_that_counts_as_raised_is_that_of_the_controls_alone(phantom):
    swapped = FOUR.assign(label=["patient"] * 2 + ["control"] * 2)
    found = concepts.measure(phantom, swapped, TWO)["SDHA raised"]
    assert found[0] == 1 / 20 and found[2] == 0, "the patient's own fibres set the level"


def test_a_patch_without_a_fibre_has_no_measure_of_fibres_but_one_of_tissue(phantom):
    found = concepts.measure(phantom, FOUR, TWO).loc[1]
    assert found.drop("sparse tissue").isna().all() and len(found) == 6
    assert found["sparse tissue"] == pytest.approx(1 - FOUR["tissue"][1])


PEOPLE = {  # subject: class, genotype, ward
    "C1": ("control", "healthy", "east"),
    "C2": ("control", "healthy", "west"),
    "C3": ("control", "healthy", "west"),
    "P1": ("patient", "m.3243A>G", "east"),
    "P2": ("patient", "m.3243A>G", "east"),
    "P3": ("patient", "m.3243A>G", "north"),
    "P4": ("patient", "deletion", "north"),
    "P5": ("patient", "deletion", "south"),
}
SECTIONS = [
    Section(name, name, label, 10, 10, {}, {"genotype": genotype, "ward": ward})
    for name, (label, genotype, ward) in PEOPLE.items()
]


def people_table() -> pd.DataFrame:
    return patch_table(*((name, label, 0) for name, (label, *_) in PEOPLE.items()))


def test_what_three_subjects_share_is_a_concept_unless_it_is_a_class_or_too_rare(tmp_path):
    found = concepts.measure(tmp_path, people_table(), SECTIONS)
    assert list(found) == ["sparse tissue", "genotype m.3243A>G", "ward east"]
    assert found["genotype m.3243A>G"].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert found["ward east"].tolist() == [1, 0, 0, 1, 1, 0, 0, 0]


def test_two_sections_of_a_subject_do_not_count_twice(tmp_path):
    again = Section("P5 again", "P5", "patient", 10, 10, {}, {"genotype": "deletion", "ward": "south"})
    found = concepts.measure(tmp_path, people_table(), [*SECTIONS, again])
    assert "genotype deletion" not in found
    third = Section("P6", "P6", "patient", 10, 10, {}, {"genotype": "deletion", "ward": "south"})
    assert "genotype deletion" in concepts.measure(tmp_path, people_table(), [*SECTIONS, third])


def test_data_without_truth_and_metadata_have_the_tissue_only(tmp_path):
    bare = [Section(name, name, label, 10, 10, {}) for name, (label, *_) in PEOPLE.items()]
    assert list(concepts.measure(tmp_path, people_table(), bare)) == ["sparse tissue"]


# ---- which patches show it


def test_the_fifth_with_the_most_shows_a_concept_and_the_half_with_the_least_does_not():
    shown = concepts.show(pd.DataFrame({"a": np.arange(10.0)}), np.arange(10))["a"]
    assert shown[:5].tolist() == [0] * 5 and shown[5:8].isna().all() and shown[8:].tolist() == [1, 1]


def test_what_is_present_or_not_needs_no_middle():
    few = pd.DataFrame({"a": [0.0] * 9 + [1]})
    assert concepts.show(few, np.arange(10))["a"].tolist() == [0] * 9 + [1]


def test_of_a_concept_that_all_patches_hold_alike_none_stands_out():
    assert concepts.show(pd.DataFrame({"a": [0.3] * 6}), np.arange(6))["a"].tolist() == [0] * 6


def test_an_undefined_measure_is_neither_shown_nor_absent():
    measures = pd.DataFrame({"a": [0.0, 1, 2, 3, np.nan], "b": np.nan})
    shown = concepts.show(measures, np.arange(5))
    assert np.isnan(shown["a"][4]) and shown["a"].notna().sum() > 2 and shown["b"].isna().all()


@given(st.lists(st.floats(-9, 9), min_size=12, max_size=12), st.floats(-99, 99))
def test_a_patch_outside_training_decides_about_itself_only(values, other):
    before, training = pd.DataFrame({"a": values}), np.arange(8)
    after = before.copy()
    after.loc[10, "a"] = other
    first, second = (concepts.show(measures, training).drop(index=10) for measures in (before, after))
    pd.testing.assert_frame_equal(first, second)


def test_a_patch_of_training_decides_about_others_too():
    before, after = pd.DataFrame({"a": np.arange(10.0)}), pd.DataFrame({"a": [*np.arange(9.0), -1]})
    first, second = (concepts.show(measures, np.arange(10))[:9] for measures in (before, after))
    assert not first.equals(second)


def test_the_rarest_concept_chooses_first_and_the_order_of_the_table_stays():
    shown = pd.DataFrame({"often": [1] * 6 + [0] * 2, "rare": [1, 1] + [0] * 6}, dtype=float)
    rows = concepts.rows_of(shown, np.arange(8), least=2)
    assert {name: own.tolist() for name, own in rows.items()} == {"often": [2, 3, 4, 5], "rare": [0, 1]}
    assert list(rows) == ["often", "rare"]


def test_data_may_leave_no_concept():
    shown = pd.DataFrame({"large": [1.0, 0, 0], "all": [1.0] * 3})
    assert concepts.rows_of(shown, np.arange(3), least=2) == {}


def test_two_concepts_leave_patches_that_show_neither():
    rows = {"F": np.array([0, 1]), "M": np.array([2, 3, 4]), "tissue": np.array([5])}
    assert list(concepts.first_two(rows, np.arange(7))) == ["F", "M"]
    assert list(concepts.first_two(rows, np.arange(5))) == ["F", "tissue"], "F and M are all patches"
    assert concepts.first_two({"F": rows["F"]}, np.arange(7)) == concepts.first_two({}, np.arange(7)) == {}


def test_concepts_left_with_few_patches_or_that_no_patch_lacks_are_left_out():
    columns = {"rare": [1, 1, 0, 0, 0, 0], "robbed": [1, 1, 1, 0, 0, 0], "all": [1] * 6, "lone": [0] * 5 + [1]}
    shown = pd.DataFrame(columns, dtype=float)
    assert list(concepts.rows_of(shown, np.arange(6), least=2)) == ["rare"]
    assert list(concepts.rows_of(shown, np.arange(6), least=1)) == ["rare", "robbed", "lone"]


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=3, max_size=3), min_size=1, max_size=20))
def test_each_row_serves_one_concept_that_it_shows(table):
    sure = [[1.0, 0.0, 0.0]] * 4 + [[0.0] * 3] * 4
    shown = pd.DataFrame(sure + table, columns=list("abc"))
    rows = np.arange(len(shown))[::-2]  # not all, and not in order
    chosen = concepts.rows_of(shown, rows, least=2)
    served = [row for own in chosen.values() for row in own]
    assert len(served) == len(set(served)) and set(served) <= set(rows)
    assert all(len(own) >= 2 and (shown[name][own] == 1).all() for name, own in chosen.items())
    assert list(chosen) == [name for name in shown if name in chosen]


# ---- pictures that a reader brings


def picture(path, grey: int, size: tuple[int, int] = (12, 8), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, grey if mode == "L" else (grey,) * 3).save(path)


def test_folders_of_pictures_are_read_by_name_in_grey_at_the_size_asked_for(tmp_path):
    picture(tmp_path / "small" / "one.TIF", 7)
    picture(tmp_path / "large" / "b.tif", 20)
    picture(tmp_path / "large" / "a.jpeg", 100, size=(30, 40), mode="RGB")
    (tmp_path / "large" / "notes.txt").write_text("no picture")
    (tmp_path / "large" / ".hidden.tif").write_text("nor this")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.txt").write_text("no folder")
    found = concepts.read_folders(tmp_path, 4)
    assert list(found) == ["large", "small"]
    assert found["large"].shape == (2, 4, 4, 1) and found["large"].dtype == np.uint8
    assert found["large"][:, 0, 0, 0].tolist() == [100, 20] and (found["small"] == 7).all()


def test_folders_and_pictures_come_in_the_order_of_their_names(tmp_path):
    for name in "cfaebd":
        picture(tmp_path / name / "a.tif", 1)
        picture(tmp_path / "g" / f"{name}.tif", ord(name))
    found = concepts.read_folders(tmp_path, 4)
    assert list(found) == list("abcdefg") and found["g"][:, 0, 0, 0].tolist() == [ord(name) for name in "abcdef"]


def test_a_picture_keeps_its_orientation(tmp_path):
    (tmp_path / "top").mkdir()
    grey_yx = np.repeat(np.array([200, 200, 10, 10], np.uint8)[:, None], 4, axis=1)
    Image.fromarray(grey_yx).save(tmp_path / "top" / "a.tif")
    grey = concepts.read_folders(tmp_path, 4)["top"][0, ..., 0]
    assert (grey[0] == 200).all() and (grey[3] == 10).all()


def test_a_missing_folder_of_concepts_and_one_without_any_say_what_is_wanted(tmp_path):
    with pytest.raises(CohortError, match=r"mine: no such folder\. Wanted mine/<concept>/<picture>\.tif.*leave"):
        concepts.read_folders(tmp_path / "mine", 4)
    picture(tmp_path / "loose.tif", 1)
    with pytest.raises(CohortError, match=r"holds no folder\. Wanted .*/<concept>/<picture>\.tif"):
        concepts.read_folders(tmp_path, 4)


def test_a_concept_without_pictures_and_a_broken_picture_are_named_with_the_remedy(tmp_path):
    picture(tmp_path / "large" / "a.tif", 1)
    (tmp_path / "small").mkdir()
    with pytest.raises(CohortError, match=r"small: no picture of this concept\. Add one of \.tif, .*, or remove it"):
        concepts.read_folders(tmp_path, 4)
    (tmp_path / "small" / "b.tif").write_text("not a picture")
    with pytest.raises(CohortError, match=r"small.b\.tif: cannot be decoded .*Save it as an 8-bit picture again"):
        concepts.read_folders(tmp_path, 4)


# ---- who can tell


TRAIN, VALIDATION, TEST = np.arange(60), np.arange(60, 120), np.arange(120, 180)


def alternating(n: int = 180) -> np.ndarray:
    return np.arange(n) % 2.0


def test_the_unit_that_knows_the_concept_is_found_with_its_sign(rng):
    shown, units = alternating(), rng.standard_normal((180, 5))
    units[:, 3] -= 4 * shown
    shown[::10] = np.nan
    scores = concepts.detectors(units, shown, TRAIN, VALIDATION)
    assert list(scores) == ["best unit", "LDA", "probe"]
    assert (scores["best unit"] == -units[:, 3]).all()
    assert all(score.shape == (180,) and concepts.auc(score[TEST], shown[TEST]) > 0.95 for score in scores.values())


def test_the_unit_is_chosen_on_the_validation_rows_and_no_others(rng):
    shown, units = alternating(), rng.standard_normal((180, 4))
    units[VALIDATION, 1] += 9 * shown[VALIDATION]
    elsewhere = np.concatenate([TRAIN, TEST])
    units[elsewhere, 2] += 9 * shown[elsewhere]
    assert (concepts.detectors(units, shown, TRAIN, VALIDATION)["best unit"] == units[:, 1]).all()
    assert (concepts.detectors(units, shown, TRAIN, TEST)["best unit"] == units[:, 2]).all()


def test_a_direction_across_many_units_is_found_by_the_linear_rivals_and_by_no_single_unit(rng):
    shown = alternating()
    units = rng.standard_normal((180, 9)) + 1.2 * shown[:, None]
    scores = concepts.detectors(units, shown, TRAIN, VALIDATION)
    aucs = {name: concepts.auc(score[TEST], shown[TEST]) for name, score in scores.items()}
    assert aucs["LDA"] > 0.95 and aucs["probe"] > 0.95 and aucs["best unit"] < 0.9


def test_what_the_test_patches_show_changes_no_detector(rng):
    shown, units = alternating(), rng.standard_normal((180, 4))
    other = shown.copy()
    other[TEST] = 1 - other[TEST]
    first, second = (concepts.detectors(units, one, TRAIN, VALIDATION) for one in (shown, other))
    assert all((first[name] == second[name]).all() for name in first)


def test_without_both_kinds_to_choose_by_the_first_unit_stands_in(rng):
    shown, units = alternating(), rng.standard_normal((180, 3))
    shown[VALIDATION] = 0
    assert (concepts.detectors(units, shown, TRAIN, VALIDATION)["best unit"] == units[:, 0]).all()


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_training_patches_of_one_kind_are_refused(rng, value):
    shown = alternating()
    shown[TRAIN] = value
    n = 0 if np.isnan(value) else 60
    with pytest.raises(ValueError, match=f"{n} training patches, all with or all without the concept; wanted both"):
        concepts.detectors(rng.standard_normal((180, 3)), shown, TRAIN, VALIDATION)


@given(n=st.integers(2, 40), levels=st.integers(1, 50), seed=st.integers(0, 99))
def test_areas_of_all_columns_at_once_are_those_of_each_also_with_ties(n, levels, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(n, 3)) / levels
    shown = rng.permutation(np.r_[0, 1, rng.integers(2, size=n - 2)])
    wanted = [roc_auc_score(shown, score) for score in scores.T]
    assert_allclose(concepts.aucs(scores, shown), wanted, rtol=1e-12)


def test_the_area_under_the_curve_is_over_the_known_patches_and_needs_both_kinds():
    score, shown = np.array([0.1, 0.4, 0.35, 0.8, 9]), np.array([0, 0, 1, 1, np.nan])
    assert concepts.auc(score, shown) == 0.75
    assert np.isnan(concepts.auc(score[:2], shown[:2])) and np.isnan(concepts.auc(score[4:], shown[4:]))


def test_a_rank_is_the_share_of_the_reference_below():
    assert concepts.ranked(np.array([0, 1.5, 3, 9]), np.array([4.0, 2, 1, 3])).tolist() == [0, 0.25, 0.5, 1]


def test_ranks_make_folds_of_different_scale_comparable():
    shown, small = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    large = 100 * small + 50
    both = np.tile(shown, 2)
    assert concepts.auc(np.concatenate([small, large]), both) < 0.8
    ranks = np.concatenate([concepts.ranked(scores, scores) for scores in (small, large)])
    assert concepts.auc(ranks, both) == 1


def test_the_test_patches_of_known_kind_are_ranked_among_the_training_patches():
    shown, train, test = np.array([np.nan, 0, 1, 0, 1, np.nan]), np.array([0, 1, 2]), np.array([3, 4, 5])
    scores = {"axis": np.array([1.0, 2, 3, 0, 2.5, 9]), "unit": np.array([1.0, 2, 3, 9, 9, 9])}
    table = concepts.tested(scores, shown, train, test)
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
    found = concepts.summarise(table, rng=rng)
    assert {concept: list(by_detector) for concept, by_detector in found.items()} == {
        "large": ["axis"],
        "none": ["axis", "unit"],
    }
    assert found["large"]["axis"] == concepts.Detected(1, (1, 1), by_seed=[0.5, 1])
    assert found["none"]["axis"] == concepts.Detected(None, by_seed=[None, None])


def test_a_perfect_score_is_perfect_in_every_draw_and_an_undefined_one_in_none(rng):
    score, shown, subjects = np.array([1, 2, 3, 4]), np.array([0.0, 0, 1, 1]), list("ABCD")
    assert concepts.auc_interval(score, shown, subjects, rng=rng, draws=50) == Estimate(1, (1, 1))
    undefined = concepts.auc_interval(score, np.ones(4), subjects, rng=rng)
    assert undefined == Estimate(None)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_holds_the_value_and_is_wider_where_patches_come_from_few_subjects(seed):
    rng = np.random.default_rng(seed)
    shown = alternating(120)
    subjects = np.arange(120) // 12
    score = shown + rng.standard_normal(120) + 1.5 * rng.standard_normal(10)[subjects] * (2 * shown - 1)
    whole = concepts.auc_interval(score, shown, subjects, rng=rng, draws=100)
    single = concepts.auc_interval(score, shown, np.arange(120), rng=rng, draws=100)
    assert whole.value == single.value == pytest.approx(concepts.auc(score, shown))
    for found in (whole, single):
        assert found.ci[0] < found.value < found.ci[1]
    assert np.ptp(whole.ci) > np.ptp(single.ci)


def test_draws_of_one_kind_are_drawn_again(rng):
    found = concepts.auc_interval(np.array([1, 2, 3]), np.array([0.0, 1, 1]), ["A", "B", "C"], rng=rng, draws=50)
    assert found == Estimate(1, (1, 1)), "a third of all draws hold one kind only"


def test_two_subjects_give_no_interval(rng):
    found = concepts.auc_interval(np.array([1, 2]), np.array([0.0, 1]), ["A", "B"], rng=rng)
    assert found == Estimate(1)


def test_what_most_patches_have_is_shown_by_those_that_have_it():
    measures = pd.DataFrame({"common": [1.0] * 7 + [0.0] * 3, "rare": [1.0] * 1 + [0.0] * 9, "all": [1.0] * 10})
    shown = concepts.show(measures, np.arange(10))
    assert shown["common"].tolist() == [1] * 7 + [0] * 3
    assert shown["rare"].tolist() == [1] + [0] * 9
    assert not (shown["all"] == 1).any(), "what all have tells nobody from anybody"


def test_a_picture_of_16_bits_is_refused_instead_of_clipped(tmp_path):
    (tmp_path / "fat").mkdir()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "fat" / "a.tif")
    with pytest.raises(CohortError, match=r"a\.tif.*more than 8 bits.*8-bit"):
        concepts.read_folders(tmp_path, 4)


# ---- how far groups share directions


def test_cosines_do_not_depend_on_length():
    table = concepts.cosines(pd.DataFrame([[1, 0], [0, 2], [-3, 0], [1, 1]], index=list("abcd")))
    assert list(table) == list(table.index) == list("abcd")
    assert_allclose(table.loc["a"], [1, 0, -1, np.sqrt(0.5)], atol=1e-12)


GROUPS = {"one": np.array([0, 1]), "other": np.array([2, 3])}


@pytest.mark.parametrize(
    ("other", "between", "shared"), [([[0, 1], [0, 5]], 0, 0), ([[1, 0], [4, 0]], 1, 1), ([[-1, 0], [-2, 0]], -1, 1)]
)
def test_groups_share_no_direction_all_or_its_opposite_whose_sign_only_the_contrast_keeps(other, between, shared):
    units = np.array([[1, 0], [3, 0], *other], float)
    d = concepts.contrast(units, GROUPS)
    assert_allclose(d, [[1, between], [between, 1]], atol=1e-12)
    assert list(d) == list(d.index) == ["one", "other"]
    assert concepts.separability(units, GROUPS) == pytest.approx(shared)


def test_a_group_without_rows_has_no_contrast_and_is_left_out_of_the_separability():
    units = np.array([[1.0, 0], [3, 0], [1, 1], [2, 2]])
    groups = GROUPS | {"empty": np.array([], int)}
    d = concepts.contrast(units, groups)
    assert d["empty"].isna().all() and d.loc["empty"].isna().all()
    assert concepts.separability(units, groups) == pytest.approx(np.sqrt(0.5))
    assert concepts.separability(units, GROUPS) == pytest.approx(np.sqrt(0.5))
    assert np.isnan(concepts.separability(units, {"one": GROUPS["one"]})), "one group has nothing to share with"


@given(st.integers(0, 2**32 - 1))
def test_separability_lies_between_none_and_all(seed):
    rng = np.random.default_rng(seed)
    units = rng.standard_normal((9, 4)) + rng.standard_normal(4)
    groups = {"a": np.arange(3), "b": np.arange(3, 6), "c": np.arange(6, 9)}
    assert 0 <= concepts.separability(units, groups) <= 1 + 1e-9
