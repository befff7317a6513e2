from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitolib import cohort, paper, patches, phantom, splits
from mitolib.settings import PROFILES


@pytest.mark.parametrize(("experiment", "stride_px"), [("exp1", 224), ("exp2", 256)])
def test_the_published_split_is_reproduced_to_the_patch(experiment, stride_px):
    table = patches.grid(cohort.published_sections(), stride_px=stride_px)
    table["split"] = splits.published(table, experiment)
    assert splits.counts(table) == paper.SPLITS[experiment]


@pytest.mark.parametrize(("experiment", "stride_px"), [("exp1", 224), ("exp2", 256)])
def test_every_subject_is_in_every_set_and_that_is_the_trouble(experiment, stride_px):
    table = patches.grid(cohort.published_sections(), stride_px=stride_px)
    table["split"] = splits.published(table, experiment)
    assert table.groupby("split")["subject"].nunique().to_dict() == {"train": 14, "validation": 14, "test": 14}


@pytest.mark.parametrize(("experiment", "stride_px"), [("exp1", 224), ("exp2", 256)])
def test_the_quick_profile_is_large_enough_for_every_split(experiment, stride_px):
    sections = []
    for section in cohort.published_sections():
        width, height = phantom.section_size(section.width_px, section.height_px, PROFILES["quick"].scale)
        sections.append(replace(section, width_px=width, height_px=height))
    _, refused = splits.available(patches.grid(sections, stride_px=stride_px), experiment)
    assert refused == {}, "pages show a score for each split, and the book does not render without one"


def labels(control: int, patient: int) -> pd.DataFrame:
    return pd.DataFrame({"label": ["control"] * control + ["patient"] * patient})


def test_each_patch_is_in_one_set_and_the_split_repeats():
    table = labels(40, 60)
    first = splits.published(table, "exp1")
    assert first.equals(splits.published(table, "exp1"))
    assert first.value_counts().to_dict() == {"train": 81, "validation": 9, "test": 10}


def test_a_split_that_would_leave_a_class_out_of_a_set_is_refused():
    with pytest.raises(ValueError, match=r"the (test|validation|train) set of exp1 .* none of class control"):
        splits.published(labels(3, 60), "exp1")


def test_too_few_patches_of_a_class_are_refused_with_their_number():
    with pytest.raises(ValueError, match="2 patches of class control, wanted at least 3"):
        splits.published(labels(2, 60), "exp2")


def test_an_unknown_experiment_lists_the_known_ones():
    with pytest.raises(ValueError, match="exp1, exp2"):
        splits.published(labels(20, 20), "exp3")


def people(control: int, patient: int, each: int = 3) -> pd.DataFrame:
    """`each` patches of every subject, and one more of the first; subjects mixed and the index no range."""
    names = [f"C{i}" for i in range(control)] + [f"P{i}" for i in range(patient)]
    table = pd.DataFrame({"subject": [*names * each, names[0]]}, index=np.arange(len(names) * each + 1)[::-1] + 7)
    return table.assign(label=np.where(table["subject"].str[0] == "C", "control", "patient"))


@given(control=st.integers(3, 7), patient=st.integers(3, 12), n_folds=st.integers(3, 7), seed=st.integers(0, 2**32 - 1))
def test_every_subject_is_in_one_set_of_each_fold_and_tested_once(control, patient, n_folds, seed):
    n_folds, table = min(n_folds, control, patient), people(control, patient)
    tested, validated = [], []
    for fold in range(n_folds):
        split = splits.by_subject(table, n_folds=n_folds, fold=fold, seed=seed)
        assert split.index.equals(table.index) and split.name == "split"
        by_subject = split.groupby(table["subject"])
        assert (by_subject.nunique() == 1).all()
        for _, labels in table.groupby(split)["label"]:
            assert set(labels) == {"control", "patient"}
        assert set(split) == set(splits.SETS)
        tested += table["subject"][split == "test"].unique().tolist()
        validated += table["subject"][split == "validation"].unique().tolist()
    assert sorted(tested) == sorted(validated) == sorted(table["subject"].unique())


def test_folds_by_subject_repeat_with_their_seed_and_change_with_another():
    table = people(6, 9)
    one, again, other = (splits.by_subject(table, n_folds=3, fold=1, seed=seed) for seed in (0, 0, 1))
    assert one.equals(again) and not one.equals(other)


def test_the_published_split_tests_subjects_that_it_has_trained_with_and_that_by_subject_does_not():
    table = people(4, 6, each=20)
    shared = {}
    for name, split in {
        "published": splits.published(table, "exp2"),
        "by subject": splits.by_subject(table, n_folds=3, fold=0, seed=0),
    }.items():
        shared[name] = set(table["subject"][split == "test"]) & set(table["subject"][split == "train"])
    assert shared["published"] and not shared["by subject"]


@pytest.mark.parametrize(("control", "patient", "n_folds"), [(4, 9, 5), (9, 4, 5), (9, 9, 2), (0, 9, 3), (9, 0, 3)])
def test_too_few_subjects_or_folds_are_refused_with_their_numbers(control, patient, n_folds):
    match = f"{n_folds} folds for {control} controls, {patient} patients; wanted 3 at least .* or change n_folds"
    with pytest.raises(ValueError, match=match):
        splits.by_subject(people(control, patient), n_folds=n_folds, fold=0, seed=0)


# ---- no pixel on both sides


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
    split = splits.no_overlap(table, seed=seed, fraction=fraction)
    assert split.index.equals(table.index) and split.name == "split"
    test, train, left = (split == part for part in ("test", "train", ""))
    assert (test | train | left).all()
    trained, tested = painted(table, train), painted(table, test)
    assert not any((trained[section] & tested[section]).any() for section in trained)
    assert (share_painted(table, tested)[left] > 0).all(), "nothing is left out without need"
    assert (splits.shared_pixels(table, split) == 0).all()
    assert set(table["section"][test]) <= set(table["section"][train])
    for part in (train, test):
        assert set(table["label"][part]) == {"control", "patient"}


@settings(max_examples=60)
@given(cut_sections(), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.2]))
def test_the_test_set_is_a_strip_at_one_end_of_the_longer_side(table, seed, fraction):
    split = splits.no_overlap(table, seed=seed, fraction=fraction)
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
    ends = [tuple(np.flatnonzero(splits.no_overlap(table, seed=seed) == "test")) for seed in range(20)]
    assert set(ends) == {(i, i + 1, j, j + 1) for i in (0, 18) for j in (20, 38)}
    assert ends == [tuple(np.flatnonzero(splits.no_overlap(table, seed=seed) == "test")) for seed in range(20)]


def test_a_section_without_room_for_both_trains_as_a_whole():
    short = strip("short", "patient", 2)
    table = pd.concat([strip("C", "control", 20), strip("P", "patient", 20), short], ignore_index=True)
    split = splits.no_overlap(table)
    assert (split[table["section"] == "short"] == "train").all() and split.tolist().count("test") == 4


@pytest.mark.parametrize(("step_px", "kept"), [(5, ["test", "", "train"]), (4, ["train"] * 3)])
def test_patches_that_just_touch_share_no_pixel(step_px, kept):
    table = pd.concat([strip("C", "control", 3, step_px), strip("P", "patient", 20), strip("D", "control", 20)])
    assert splits.no_overlap(table.reset_index(drop=True))[:3].tolist() in (kept, kept[::-1])


@pytest.mark.parametrize(
    ("n_control", "n_patient", "missing"),
    [(2, 20, "control section is long enough for a test"), (20, 0, "patient section is long enough for a train")],
)
def test_sections_too_short_to_share_out_are_refused_with_the_remedy(n_control, n_patient, missing):
    table = pd.concat([strip("C", "control", n_control), strip("P", "patient", n_patient)], ignore_index=True)
    with pytest.raises(ValueError, match=f"no {missing} set that shares no pixel .* patches smaller than 10 px"):
        splits.no_overlap(table)


# ---- how much of a test patch was trained on


def toy(*patches: tuple[int, int, str], size_px: int = 4) -> tuple[pd.DataFrame, pd.Series]:
    """Patches of one section, by y, x and set."""
    table = pd.DataFrame(patches, columns=["y", "x", "split"]).assign(section="S", size=size_px)
    return table, table["split"]


def test_the_shared_part_of_two_patches_is_their_rectangle_in_common():
    table, split = toy((0, 0, "train"), (1, 2, "test"))
    assert splits.shared_pixels(table, split).to_dict() == {1: 3 * 2 / 16}


def test_pixels_under_two_training_patches_count_once_and_those_of_other_sets_and_sections_do_not():
    table, split = toy((0, 0, "train"), (0, 0, "train"), (0, 2, "test"), (0, 3, "test"), (0, 2, ""), (0, 2, "train"))
    table.loc[5, "section"] = "another"
    assert splits.shared_pixels(table, split).to_dict() == {2: 1 / 2, 3: 1 / 4}
    assert splits.shared_pixels(table, split.replace("train", "validation")).to_dict() == {2: 0, 3: 0}


def test_without_a_test_patch_nothing_is_shared():
    assert splits.shared_pixels(*toy((0, 0, "train"))).empty


@settings(max_examples=60)
@given(cut_sections(), st.integers(0, 2**32 - 1))
def test_shared_pixels_are_those_that_both_sets_cover(table, seed):
    drawn = np.random.default_rng(seed).choice(["train", "test", "validation", ""], len(table))
    split = pd.Series(drawn, table.index)
    found, wanted = splits.shared_pixels(table, split), share_painted(table, painted(table, split == "train"))
    assert sorted(found.index) == sorted(table.index[split == "test"])
    np.testing.assert_allclose(found, wanted[found.index])


def test_the_map_of_a_section_has_a_bit_for_each_set_and_cells_as_large_as_can_be():
    covered, cell_px = splits.coverage(*toy((0, 0, "train"), (2, 2, "test"), (4, 0, "")))
    assert cell_px == 2
    assert covered.tolist() == [[1, 1, 0], [1, 3, 2], [0, 2, 2], [0, 0, 0]]


# ---- people not seen before


def test_leaving_one_subject_out_tests_each_subject_once_alone_and_in_order():
    table = people(4, 10)
    folds = splits.leave_one_subject_out(table)
    tested = [table["subject"][split == "test"].unique().tolist() for split in folds]
    assert tested == [[subject] for subject in table["subject"].unique()]
    for split in folds:
        assert split.index.equals(table.index) and split.name == "split" and set(split) == {"train", "test"}
        assert (split.groupby(table["subject"]).nunique() == 1).all()


def test_every_control_is_tested_beside_every_patient_once():
    table = people(4, 10)
    folds = splits.leave_one_control_one_patient_out(table)
    pairs = [tuple(sorted(table["subject"][split == "test"].unique())) for split in folds]
    assert len(pairs) == len(set(pairs)) == 40 and all(pair[0][0] == "C" and pair[1][0] == "P" for pair in pairs)
    for split in folds:
        assert split.index.equals(table.index) and split.name == "split" and set(split) == {"train", "test"}
        assert (split.groupby(table["subject"]).nunique() == 1).all()
        trained = table[split == "train"].drop_duplicates("subject")["label"]
        assert trained.value_counts().to_dict() == {"control": 3, "patient": 9}


@pytest.mark.parametrize("split", [splits.leave_one_subject_out, splits.leave_one_control_one_patient_out])
def test_two_sections_of_a_subject_stay_together(split):
    table = pd.concat([strip(f"{name}{i}", "?", 3).assign(subject=name) for i in (1, 2) for name in "CDPQ"])
    table = table.assign(label=table["subject"].map(dict(zip("CDPQ", ["control"] * 2 + ["patient"] * 2, strict=True))))
    table = table.reset_index(drop=True)
    for fold in split(table):
        assert (fold.groupby(table["subject"]).nunique() == 1).all()
        assert (fold == "test").sum() == 6 * table["subject"][fold == "test"].nunique()


@pytest.mark.parametrize(("control", "patient"), [(1, 5), (5, 1), (0, 5)])
@pytest.mark.parametrize("split", [splits.leave_one_subject_out, splits.leave_one_control_one_patient_out])
def test_nobody_is_left_out_when_nobody_of_the_class_remains(split, control, patient):
    with pytest.raises(ValueError, match=rf"{control} controls? and {patient} patients?; wanted two of each"):
        split(people(control, patient))


def test_the_published_cohort_allows_every_split():
    folds, refused = splits.available(patches.grid(cohort.published_sections(), stride_px=224), "exp1")
    assert {name: len(own) for name, own in folds.items()} == {
        "published": 1,
        "no-overlap": 1,
        "leave-one-subject-out": 14,
        "leave-one-control-one-patient-out": 40,
    }
    assert not refused and list(folds) == list(splits.SPLITS)


def test_a_split_that_cannot_be_had_is_told_with_its_reason_and_stops_no_other():
    long = [strip(name, "patient", 20) for name in "PQ"]
    table = pd.concat([strip("C", "control", 1), strip("D", "control", 1), *long]).reset_index(drop=True)
    folds, refused = splits.available(table, "exp1")
    assert {name: len(own) for name, own in folds.items()} == {
        "leave-one-subject-out": 4,
        "leave-one-control-one-patient-out": 4,
    }
    assert set(refused) == set(splits.SPLITS) - set(folds)
    assert "2 patches of class control" in refused["published"]
    assert "no control section is long enough" in refused["no-overlap"]


def test_an_unknown_experiment_is_an_error_and_no_split_that_cannot_be_had():
    with pytest.raises(ValueError, match="'exp3' is not one of exp1, exp2"):
        splits.available(strip("C", "control", 9), "exp3")


@pytest.mark.parametrize(("control", "patient"), [(2, 2), (2, 9), (3, 3), (4, 10), (11, 3), (20, 20)])
@pytest.mark.parametrize("seed", [127, 3])
def test_who_is_tested_by_person_was_never_trained_on(control, patient, seed):
    table = people(control, patient)
    table = pd.concat([table] * 5, ignore_index=True).assign(x=range(5 * len(table)))
    split = splits.by_person(table, seed=seed)
    assert (split == splits.by_person(table, seed=seed)).all() and set(split) == set(splits.SETS)
    of = {part: set(table["subject"][split == part]) for part in splits.SETS}
    assert not of["test"] & (of["train"] | of["validation"])
    few = min(control, patient) < 3
    assert bool(of["validation"] & of["train"]) == few
    for part in splits.SETS:
        assert set(table["label"][split == part]) == {"control", "patient"}
    for label, n in (("control", control), ("patient", patient)):
        tested = table["subject"][(split == "test") & (table["label"] == label)].nunique()
        assert tested == max(1, round(n / 5))
    told = splits.described(table.assign(split=split))
    assert told.endswith("how well patches of these new people are recognised.")
    assert ("The people who validate also train" in told) == few
    assert f"test {max(1, round(control / 5))} control" in told


def test_by_person_there_have_to_be_two_people_of_each_class_and_patches_to_share_out():
    for control, patient, words in ((1, 4, "1 control and 4 patients"), (3, 1, "3 controls and 1 patient;")):
        with pytest.raises(ValueError, match=f"{words}.*wanted two of each"):
            splits.by_person(people(control, patient))
    with pytest.raises(ValueError, match=r"1 patch of the controls to train and to validate on; .*-p stride_px"):
        splits.by_person(people(2, 2).drop_duplicates("subject"))


def test_a_split_that_deals_out_patches_is_described_as_one():
    table = people(3, 3)
    table = pd.concat([table] * 9, ignore_index=True)
    told = splits.described(table.assign(split=(["train", "validation", "test"] * len(table))[: len(table)]))
    assert "the same people are in training and test set" in told


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
