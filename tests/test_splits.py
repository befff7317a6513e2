from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from mitolib import cohort, paper, patches, splits


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


def labels(control: int, patient: int) -> pd.DataFrame:
    return pd.DataFrame({"label": ["control"] * control + ["patient"] * patient})


def test_each_patch_is_in_one_set_and_the_split_repeats():
    table = labels(40, 60)
    first = splits.published(table, "exp1")
    assert first.equals(splits.published(table, "exp1"))
    assert first.value_counts().to_dict() == {"train": 81, "validation": 9, "test": 10}


def test_a_split_that_would_leave_a_class_out_of_a_set_is_refused():
    with pytest.raises(ValueError, match=r"(test|validation|train) set of exp1 .*none .*control"):
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
    match = f"{n_folds} folds for {control} controls, {patient} patients; wanted 3 .*n_folds"
    with pytest.raises(ValueError, match=match):
        splits.by_subject(people(control, patient), n_folds=n_folds, fold=0, seed=0)


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
    with pytest.raises(ValueError, match=r"1 patch of the controls .*-p stride_px"):
        splits.by_person(people(2, 2).drop_duplicates("subject"))


def test_a_split_that_deals_out_patches_is_described_as_one():
    table = people(3, 3)
    table = pd.concat([table] * 9, ignore_index=True)
    told = splits.described(table.assign(split=(["train", "validation", "test"] * len(table))[: len(table)]))
    assert "same people are in training and test" in told


COHORT = [f"C{i}" for i in range(4)] + [f"P{i}" for i in range(10)]
COHORT_TRUTH = np.array([0] * 4 + [1] * 10)


def test_permuted_labels_agree_with_the_truth_by_chance_as_the_test_patches_weigh_it(rng):
    n_patches = rng.integers(3, 30, len(COHORT))
    subjects, truth = np.repeat(COHORT, n_patches), np.repeat(COHORT_TRUTH, n_patches)
    scored = rng.permutation(len(truth))[:90]
    draws = splits.permuted_labels(truth, subjects, n=20, rng=rng, scored=scored)
    assert draws.shape == (20, len(truth)) and len(np.unique(draws, axis=0)) == 20
    for dealt in draws:
        assert 0.45 <= balanced_accuracy_score(truth[scored], dealt[scored]) <= 0.55
        by_subject = pd.Series(dealt, subjects).groupby(level=0)
        assert (by_subject.nunique() == 1).all() and by_subject.first().sum() == 10


def test_labels_of_which_most_people_keep_the_true_one_are_not_drawn(rng):
    """Ten of fourteen kept theirs in a draw that was once called shuffled: what learnt the disease was right by it."""
    kept = COHORT_TRUTH.copy()
    kept[[0, 1, 4, 5]] = 1, 1, 0, 0
    assert (kept == COHORT_TRUTH).sum() == 10 and balanced_accuracy_score(COHORT_TRUTH, kept) > 0.55
    every = splits.permuted_labels(COHORT_TRUTH, COHORT, n=2000, rng=rng)
    assert len(every) == 4 * 120, "one of four controls and seven of ten patients keep theirs, in every way there is"
    assert not (every == kept).all(axis=1).any()
    assert not (every == COHORT_TRUTH).all(axis=1).any() and not (every == 1 - COHORT_TRUTH).all(axis=1).any()


def test_those_who_are_taught_permuted_labels_get_both(rng):
    subjects, truth = np.array(list("ABCDEFGH")), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    taught = np.array([0, 1, 4])
    draws = splits.permuted_labels(truth, subjects, n=100, rng=rng, taught=taught)
    assert len(draws) < 100, "there are no more of them"
    assert all(set(dealt[taught]) == {0, 1} for dealt in draws)


def test_a_large_cohort_is_drawn_from_and_not_gone_through(rng):
    truth = np.array([0] * 30 + [1] * 40)
    draws = splits.permuted_labels(truth, [f"{i}" for i in range(70)], n=5, rng=rng)
    assert all(0.45 <= balanced_accuracy_score(truth, dealt) <= 0.55 for dealt in draws)


def test_labels_that_cannot_be_permuted_are_refused_with_the_nearest_there_is(rng):
    with pytest.raises(ValueError, match="all 2 subjects have one label"):
        splits.permuted_labels(np.array([1, 1]), ["A", "B"], n=1, rng=rng)
    with pytest.raises(ValueError, match=r"labels of 3 subjects .* the nearest has 0\.25\. Add subjects"):
        splits.permuted_labels(np.array([0, 1, 1]), ["A", "B", "C"], n=1, rng=rng)
