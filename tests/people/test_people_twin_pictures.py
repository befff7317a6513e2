"""Pictures of twins beside those of people, and their grey levels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mitolib import cohort
from mitolib.people import pictures


def compared() -> pd.DataFrame:
    """Two people and a cured twin in two proteins; in NDUFB8 the twin is brighter than anybody."""
    rows = [
        ("C", "control", "", "SDHA", 100.0, 0.05, 0.02),
        ("P", "patient", "", "SDHA", 120.0, 0.07, 0.04),
        ("P", "patient", "cured", "SDHA", 110.0, 0.06, 0.03),
        ("C", "control", "", "NDUFB8", 90.0, 0.05, 0.02),
        ("P", "patient", "", "NDUFB8", 60.0, 0.06, 0.04),
        ("P", "patient", "cured", "NDUFB8", 150.0, 0.47, 0.03),
    ]
    table = pd.DataFrame(rows, columns=["section", "label", "twin", "protein", "level", "saturated", "black"])
    bright = (table["twin"] == "cured") & (table["protein"] == "NDUFB8")
    within = {"level_within": ~bright, "saturated_within": ~bright, "black_within": True, "within": ~bright}
    return table.assign(**within)


def test_what_lies_outside_the_range_of_people_is_named_with_its_number():
    found = pictures.TwinPictures(compared())
    assert found.table()["within"].to_dict() == {("cured", "SDHA"): "1 of 1", ("cured", "NDUFB8"): "0 of 1"}
    assert found.table().loc[("cured", "NDUFB8"), "level, people"] == "60 to 90"
    text = found.outside()
    assert "cured, NDUFB8, saturated: P (47.0%)" in text and "SDHA" not in text and "black" not in text
    assert found.record() == {
        "cured": {"pictures": 2, "level_within": 1, "saturated_within": 1, "black_within": 2, "within": 1}
    }


def test_where_all_lie_within_or_there_are_no_twins_the_page_says_so():
    inside = compared().query("protein == 'SDHA'")
    assert pictures.TwinPictures(inside).outside().startswith("No picture")
    nothing = pictures.TwinPictures(None)
    assert "Left out" in str(nothing.table()) and nothing.outside() == "" and nothing.record() == {}


def test_grey_levels_are_shares_of_pixels_and_a_twin_is_of_the_class_that_it_alters(make_cohort):
    people = cohort.read_cohort(make_cohort(proteins=("SDHA",), shape=(60, 70)), ["SDHA"])
    black = [replace(section, channels=people[0].channels) for section in people]
    found = pictures.grey_levels({"": people, "cured": black}, ["SDHA"])["SDHA"]
    assert list(found) == ["controls", "patients", "cured"]
    assert all(shares.shape == (256,) and shares.sum() == pytest.approx(1) for shares in found.values())
    np.testing.assert_allclose(found["cured"], found["controls"], err_msg="pictures of the control stand for all")
    own = [np.bincount(s.image_yx("SDHA").ravel(), minlength=256) / 4200 for s in people if s.label == "patient"]
    np.testing.assert_allclose(found["patients"], np.mean(own, axis=0))
