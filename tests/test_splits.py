from __future__ import annotations

import pandas as pd
import pytest

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
    with pytest.raises(ValueError, match=r"the (test|validation|train) set of exp1 .* none of class control"):
        splits.published(labels(3, 60), "exp1")


def test_too_few_patches_of_a_class_are_refused_with_their_number():
    with pytest.raises(ValueError, match="2 patches of class control, wanted at least 3"):
        splits.published(labels(2, 60), "exp2")


def test_an_unknown_experiment_lists_the_known_ones():
    with pytest.raises(ValueError, match="exp1, exp2"):
        splits.published(labels(20, 20), "exp3")
