from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mitolib.cohort import CohortError, Section
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
    shown = concepts.annotate(pd.DataFrame({"a": np.arange(10.0)}), np.arange(10))["a"]
    assert shown[:5].tolist() == [0] * 5 and shown[5:8].isna().all() and shown[8:].tolist() == [1, 1]


def test_what_is_present_or_not_needs_no_middle():
    few = pd.DataFrame({"a": [0.0] * 9 + [1]})
    assert concepts.annotate(few, np.arange(10))["a"].tolist() == [0] * 9 + [1]


def test_of_a_concept_that_all_patches_hold_alike_none_stands_out():
    assert concepts.annotate(pd.DataFrame({"a": [0.3] * 6}), np.arange(6))["a"].tolist() == [0] * 6


def test_an_undefined_measure_is_neither_shown_nor_absent():
    measures = pd.DataFrame({"a": [0.0, 1, 2, 3, np.nan], "b": np.nan})
    shown = concepts.annotate(measures, np.arange(5))
    assert np.isnan(shown["a"][4]) and shown["a"].notna().sum() > 2 and shown["b"].isna().all()


@given(st.lists(st.floats(-9, 9), min_size=12, max_size=12), st.floats(-99, 99))
def test_a_patch_outside_training_decides_about_itself_only(values, other):
    before, training = pd.DataFrame({"a": values}), np.arange(8)
    after = before.copy()
    after.loc[10, "a"] = other
    first, second = (concepts.annotate(measures, training).drop(index=10) for measures in (before, after))
    pd.testing.assert_frame_equal(first, second)


def test_a_patch_of_training_decides_about_others_too():
    before, after = pd.DataFrame({"a": np.arange(10.0)}), pd.DataFrame({"a": [*np.arange(9.0), -1]})
    first, second = (concepts.annotate(measures, np.arange(10))[:9] for measures in (before, after))
    assert not first.equals(second)


def test_the_rarest_concept_chooses_first_and_the_order_of_the_table_stays():
    shown = pd.DataFrame({"often": [1] * 6 + [0] * 2, "rare": [1, 1] + [0] * 6}, dtype=float)
    rows = concepts.rows_for_axes(shown, np.arange(8), least=2)
    assert {name: own.tolist() for name, own in rows.items()} == {"often": [2, 3, 4, 5], "rare": [0, 1]}
    assert list(rows) == ["often", "rare"]


def test_data_may_leave_no_concept():
    shown = pd.DataFrame({"large": [1.0, 0, 0], "all": [1.0] * 3})
    assert concepts.rows_for_axes(shown, np.arange(3), least=2) == {}


def test_two_concepts_leave_patches_that_show_neither():
    rows = {"F": np.array([0, 1]), "M": np.array([2, 3, 4]), "tissue": np.array([5])}
    assert list(concepts.first_two(rows, np.arange(7))) == ["F", "M"]
    assert list(concepts.first_two(rows, np.arange(5))) == ["F", "tissue"], "F and M are all patches"
    assert concepts.first_two({"F": rows["F"]}, np.arange(7)) == concepts.first_two({}, np.arange(7)) == {}


def test_concepts_left_with_few_patches_or_that_no_patch_lacks_are_left_out():
    columns = {"rare": [1, 1, 0, 0, 0, 0], "robbed": [1, 1, 1, 0, 0, 0], "all": [1] * 6, "lone": [0] * 5 + [1]}
    shown = pd.DataFrame(columns, dtype=float)
    assert list(concepts.rows_for_axes(shown, np.arange(6), least=2)) == ["rare"]
    assert list(concepts.rows_for_axes(shown, np.arange(6), least=1)) == ["rare", "robbed", "lone"]


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=3, max_size=3), min_size=1, max_size=20))
def test_each_row_serves_one_concept_that_it_shows(table):
    sure = [[1.0, 0.0, 0.0]] * 4 + [[0.0] * 3] * 4
    shown = pd.DataFrame(sure + table, columns=list("abc"))
    rows = np.arange(len(shown))[::-2]  # not all, and not in order
    chosen = concepts.rows_for_axes(shown, rows, least=2)
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
    with pytest.raises(CohortError, match=r"mine: no such folder.*mine/<concept>/<picture>\.tif"):
        concepts.read_folders(tmp_path / "mine", 4)
    picture(tmp_path / "loose.tif", 1)
    with pytest.raises(CohortError, match=r"holds no folder.*/<concept>/<picture>\.tif"):
        concepts.read_folders(tmp_path, 4)


def test_a_concept_without_pictures_and_a_broken_picture_are_named_with_the_remedy(tmp_path):
    picture(tmp_path / "large" / "a.tif", 1)
    (tmp_path / "small").mkdir()
    with pytest.raises(CohortError, match=r"small: no picture .*Add one of \.tif, .*remove it"):
        concepts.read_folders(tmp_path, 4)
    (tmp_path / "small" / "b.tif").write_text("not a picture")
    with pytest.raises(CohortError, match=r"small.b\.tif: cannot be decoded .*8-bit"):
        concepts.read_folders(tmp_path, 4)


def test_what_most_patches_have_is_shown_by_those_that_have_it():
    measures = pd.DataFrame({"common": [1.0] * 7 + [0.0] * 3, "rare": [1.0] * 1 + [0.0] * 9, "all": [1.0] * 10})
    shown = concepts.annotate(measures, np.arange(10))
    assert shown["common"].tolist() == [1] * 7 + [0] * 3
    assert shown["rare"].tolist() == [1] + [0] * 9
    assert not (shown["all"] == 1).any(), "what all have tells nobody from anybody"


def test_a_picture_of_16_bits_is_refused_instead_of_clipped(tmp_path):
    (tmp_path / "fat").mkdir()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "fat" / "a.tif")
    with pytest.raises(CohortError, match=r"a\.tif.*more than 8 bits.*8-bit"):
        concepts.read_folders(tmp_path, 4)
