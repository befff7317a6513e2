from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitolib import cohort, patches, phantom
from mitolib.people import protocols
from mitolib.settings import PROFILES


@pytest.mark.parametrize(("experiment", "stride_px"), [("exp1", 224), ("exp2", 256)])
def test_the_quick_profile_is_large_enough_for_every_split(experiment, stride_px):
    sections = []
    for section in cohort.published_sections():
        width, height = phantom.section_size(section.width_px, section.height_px, PROFILES["quick"].scale)
        sections.append(replace(section, width_px=width, height_px=height))
    _, refused = protocols.available(patches.grid(sections, stride_px=stride_px), experiment)
    assert refused == {}, "pages show a score for each split, and the book does not render without one"


def people(control: int, patient: int, each: int = 3) -> pd.DataFrame:
    """`each` patches of every subject, and one more of the first; subjects mixed and the index no range."""
    names = [f"C{i}" for i in range(control)] + [f"P{i}" for i in range(patient)]
    table = pd.DataFrame({"subject": [*names * each, names[0]]}, index=np.arange(len(names) * each + 1)[::-1] + 7)
    return table.assign(label=np.where(table["subject"].str[0] == "C", "control", "patient"))


@st.composite
def cut_sections(draw) -> pd.DataFrame:
    """Patches of a few sections in any order, two of each subject; the first of each class is long enough to share."""
    size_px, stride_px = draw(st.integers(2, 8)), draw(st.integers(1, 9))
    enough_px = size_px + (2 * -(-size_px // stride_px) + 1) * stride_px
    sections = []
    for label in ("control", "patient"):
        sides = [(draw(st.integers(size_px, 20)), enough_px)]
        sides += draw(st.lists(st.tuples(*[st.integers(size_px, 30)] * 2), max_size=3))
        sections += [
            cohort.Section(f"{label} {i}", f"{label} of {i // 2}", label, *draw(st.permutations(side)), {})
            for i, side in enumerate(sides)
        ]
    table = patches.grid(sections, size_px=size_px, stride_px=stride_px)
    return table.sample(frac=1, random_state=draw(st.integers(0, 99)))


def painted(table: pd.DataFrame, rows: pd.Series) -> dict[str, np.ndarray]:
    """Section -> which of its pixels lie in one of these patches."""
    pixels = {section: np.zeros((50, 50), bool) for section in table["section"].unique()}
    for patch in table[rows].itertuples():
        pixels[patch.section][patch.y : patch.y + patch.size, patch.x : patch.x + patch.size] = True
    return pixels


def share_painted(table: pd.DataFrame, pixels: dict[str, np.ndarray]) -> pd.Series:
    """For each patch, how much of it is painted."""
    at = zip(table["section"], table["y"], table["x"], table["size"], strict=True)
    return pd.Series([pixels[section][y : y + n, x : x + n].mean() for section, y, x, n in at], table.index, float)


@settings(max_examples=60)
@given(cut_sections(), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.2]))
def test_training_and_test_patches_have_the_subjects_in_common_and_no_pixel(table, seed, fraction):
    split = protocols.no_overlap(table, seed=seed, fraction=fraction)
    assert split.index.equals(table.index) and split.name == "split"
    test, train, left = (split == part for part in ("test", "train", ""))
    assert (test | train | left).all()
    trained, tested = painted(table, train), painted(table, test)
    assert not any((trained[section] & tested[section]).any() for section in trained)
    assert (share_painted(table, tested)[left] > 0).all(), "nothing is left out without need"
    assert (protocols.shared_pixels(table, split) == 0).all()
    assert set(table["section"][test]) <= set(table["section"][train])
    for part in (train, test):
        assert set(table["label"][part]) == {"control", "patient"}


@settings(max_examples=60)
@given(cut_sections(), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.2]))
def test_the_test_set_is_a_strip_at_one_end_of_the_longer_side(table, seed, fraction):
    split = protocols.no_overlap(table, seed=seed, fraction=fraction)
    for _, rows in table.groupby("section"):
        own = split[rows.index]
        if not (own == "test").any():
            assert (own == "train").all()
            continue
        along = rows["y" if rows["y"].max() >= rows["x"].max() else "x"]
        parts = own.groupby(along).agg(set)
        assert all(len(part) == 1 for part in parts), "rows of patches stay whole"
        order = [part for (part,) in parts]
        order = order if order[0] == "test" else order[::-1]
        n = order.count("test")
        assert n == max(1, round(fraction * len(order))) and order[:n] == ["test"] * n and order[-1] == "train"


def strip(section: str, label: str, n: int, step_px: int = 5) -> pd.DataFrame:
    """A section that is one row of `n` patches of 10 px."""
    table = pd.DataFrame({"section": section, "subject": section, "label": label, "y": 0}, index=range(n))
    return table.assign(x=np.arange(n) * step_px, size=10)


def test_the_end_that_tests_repeats_with_its_seed_and_is_either_over_seeds():
    table = pd.concat([strip("C", "control", 20), strip("P", "patient", 20)], ignore_index=True)
    ends = [tuple(np.flatnonzero(protocols.no_overlap(table, seed=seed) == "test")) for seed in range(20)]
    assert set(ends) == {(i, i + 1, j, j + 1) for i in (0, 18) for j in (20, 38)}
    assert ends == [tuple(np.flatnonzero(protocols.no_overlap(table, seed=seed) == "test")) for seed in range(20)]


def test_a_section_without_room_for_both_trains_as_a_whole():
    short = strip("short", "patient", 2)
    table = pd.concat([strip("C", "control", 20), strip("P", "patient", 20), short], ignore_index=True)
    split = protocols.no_overlap(table)
    assert (split[table["section"] == "short"] == "train").all() and split.tolist().count("test") == 4


@pytest.mark.parametrize(("step_px", "kept"), [(5, ["test", "", "train"]), (4, ["train"] * 3)])
def test_patches_that_just_touch_share_no_pixel(step_px, kept):
    table = pd.concat([strip("C", "control", 3, step_px), strip("P", "patient", 20), strip("D", "control", 20)])
    assert protocols.no_overlap(table.reset_index(drop=True))[:3].tolist() in (kept, kept[::-1])


@pytest.mark.parametrize(
    ("n_control", "n_patient", "missing"),
    [(2, 20, "control section .*for a test"), (20, 0, "patient section .*for a train")],
)
def test_sections_too_short_to_share_out_are_refused_with_the_remedy(n_control, n_patient, missing):
    table = pd.concat([strip("C", "control", n_control), strip("P", "patient", n_patient)], ignore_index=True)
    with pytest.raises(ValueError, match=f"no {missing} set .*patches smaller than 10 px"):
        protocols.no_overlap(table)


def toy(*patches: tuple[int, int, str], size_px: int = 4) -> tuple[pd.DataFrame, pd.Series]:
    """Patches of one section, by y, x and set."""
    table = pd.DataFrame(patches, columns=["y", "x", "split"]).assign(section="S", size=size_px)
    return table, table["split"]


def test_the_shared_part_of_two_patches_is_their_rectangle_in_common():
    table, split = toy((0, 0, "train"), (1, 2, "test"))
    assert protocols.shared_pixels(table, split).to_dict() == {1: 3 * 2 / 16}


def test_pixels_under_two_training_patches_count_once_and_those_of_other_sets_and_sections_do_not():
    table, split = toy((0, 0, "train"), (0, 0, "train"), (0, 2, "test"), (0, 3, "test"), (0, 2, ""), (0, 2, "train"))
    table.loc[5, "section"] = "another"
    assert protocols.shared_pixels(table, split).to_dict() == {2: 1 / 2, 3: 1 / 4}
    assert protocols.shared_pixels(table, split.replace("train", "validation")).to_dict() == {2: 0, 3: 0}


def test_without_a_test_patch_nothing_is_shared():
    assert protocols.shared_pixels(*toy((0, 0, "train"))).empty


@settings(max_examples=60)
@given(cut_sections(), st.integers(0, 2**32 - 1))
def test_shared_pixels_are_those_that_both_sets_cover(table, seed):
    drawn = np.random.default_rng(seed).choice(["train", "test", "validation", ""], len(table))
    split = pd.Series(drawn, table.index)
    found, wanted = protocols.shared_pixels(table, split), share_painted(table, painted(table, split == "train"))
    assert sorted(found.index) == sorted(table.index[split == "test"])
    np.testing.assert_allclose(found, wanted[found.index])


def test_the_map_of_a_section_has_a_bit_for_each_set_and_cells_as_large_as_can_be():
    covered, cell_px = protocols.coverage(*toy((0, 0, "train"), (2, 2, "test"), (4, 0, "")))
    assert cell_px == 2
    assert covered.tolist() == [[1, 1, 0], [1, 3, 2], [0, 2, 2], [0, 0, 0]]


def test_leaving_one_subject_out_tests_each_subject_once_alone_and_in_order():
    table = people(4, 10)
    folds = protocols.leave_one_subject_out(table)
    tested = [table["subject"][split == "test"].unique().tolist() for split in folds]
    assert tested == [[subject] for subject in table["subject"].unique()]
    for split in folds:
        assert split.index.equals(table.index) and split.name == "split" and set(split) == {"train", "test"}
        assert (split.groupby(table["subject"]).nunique() == 1).all()


def test_every_control_is_tested_beside_every_patient_once():
    table = people(4, 10)
    folds = protocols.leave_one_control_one_patient_out(table)
    pairs = [tuple(sorted(table["subject"][split == "test"].unique())) for split in folds]
    assert len(pairs) == len(set(pairs)) == 40 and all(pair[0][0] == "C" and pair[1][0] == "P" for pair in pairs)
    for split in folds:
        assert split.index.equals(table.index) and split.name == "split" and set(split) == {"train", "test"}
        assert (split.groupby(table["subject"]).nunique() == 1).all()
        trained = table[split == "train"].drop_duplicates("subject")["label"]
        assert trained.value_counts().to_dict() == {"control": 3, "patient": 9}


@pytest.mark.parametrize("split", [protocols.leave_one_subject_out, protocols.leave_one_control_one_patient_out])
def test_two_sections_of_a_subject_stay_together(split):
    table = pd.concat([strip(f"{name}{i}", "?", 3).assign(subject=name) for i in (1, 2) for name in "CDPQ"])
    table = table.assign(label=table["subject"].map(dict(zip("CDPQ", ["control"] * 2 + ["patient"] * 2, strict=True))))
    table = table.reset_index(drop=True)
    for fold in split(table):
        assert (fold.groupby(table["subject"]).nunique() == 1).all()
        assert (fold == "test").sum() == 6 * table["subject"][fold == "test"].nunique()


@pytest.mark.parametrize(("control", "patient"), [(1, 5), (5, 1), (0, 5)])
@pytest.mark.parametrize(
    "split",
    [protocols.leave_one_subject_out, protocols.leave_one_control_one_patient_out, protocols.paired_folds],
)
def test_nobody_is_left_out_when_nobody_of_the_class_remains(split, control, patient):
    with pytest.raises(ValueError, match=rf"{control} controls? and {patient} patients?;.* two "):
        split(people(control, patient))


@pytest.mark.parametrize(("control", "patient"), [(4, 10), (3, 3), (5, 2)])
def test_in_paired_folds_everybody_is_tested_the_smaller_class_in_turns(control, patient):
    table = people(control, patient)
    folds = protocols.paired_folds(table)
    tested = [table[["subject", "label"]][fold == "test"].drop_duplicates() for fold in folds]
    assert len(folds) == max(control, patient) and all(
        sorted(pair["label"]) == ["control", "patient"] for pair in tested
    )
    times = pd.concat(tested).groupby("label")["subject"].value_counts()
    assert len(times) == control + patient, "everybody"
    for label, n in (("control", control), ("patient", patient)):
        assert set(times[label]) <= {len(folds) // n, -(-len(folds) // n)}
    again, other = protocols.paired_folds(table), protocols.paired_folds(table, seed=1)
    assert all(one.equals(two) for one, two in zip(folds, again, strict=True))
    assert not all(one.equals(two) for one, two in zip(folds, other, strict=True))


def test_the_published_cohort_allows_every_split():
    folds, refused = protocols.available(patches.grid(cohort.published_sections(), stride_px=224), "exp1")
    assert {name: len(own) for name, own in folds.items()} == {
        "published": 1,
        "no-overlap": 1,
        "leave-one-subject-out": 14,
        "paired-folds": 10,
        "leave-one-control-one-patient-out": 40,
    }
    assert not refused and list(folds) == list(protocols.SPLITS)


def test_a_split_that_cannot_be_had_is_told_with_its_reason_and_stops_no_other():
    long = [strip(name, "patient", 20) for name in "PQ"]
    table = pd.concat([strip("C", "control", 1), strip("D", "control", 1), *long]).reset_index(drop=True)
    folds, refused = protocols.available(table, "exp1")
    assert {name: len(own) for name, own in folds.items()} == {
        "leave-one-subject-out": 4,
        "paired-folds": 2,
        "leave-one-control-one-patient-out": 4,
    }
    assert set(refused) == set(protocols.SPLITS) - set(folds)
    assert "2 patches of class control" in refused["published"]
    assert "no control section is long enough" in refused["no-overlap"]


def test_an_unknown_experiment_is_an_error_and_no_split_that_cannot_be_had():
    with pytest.raises(ValueError, match="'exp3' is not one of exp1, exp2"):
        protocols.available(strip("C", "control", 9), "exp3")
