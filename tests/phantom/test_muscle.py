"""The phantom beside real muscle: what is at hand is shown, what is not is left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from mitolib import cohort, downloads, phantom

PROTEINS = ("COX4",)


@pytest.fixture
def at_hand(monkeypatch, tmp_path):
    """Public files that a reader has: name -> path; none at first."""
    paths = {}
    monkeypatch.setattr(downloads, "local", paths.get)
    return paths


@pytest.fixture
def sections(make_cohort):
    root = make_cohort({"Control": ["C01"], "Patient": ["P04", "P09"]}, PROTEINS, (620, 640))
    return cohort.read_cohort(root, PROTEINS)


def mask(height: int = 600, width: int = 900) -> np.ndarray:
    """Two fibres side by side."""
    label_yx = np.zeros((height, width), np.uint16)
    label_yx[10:500, 10:300], label_yx[10:500, 700:880] = 1, 2
    return label_yx


def test_the_window_is_of_p04_and_the_real_one_is_added_where_it_is_at_hand(sections, at_hand, tmp_path, monkeypatch):
    windows = phantom.cox4_windows(sections)
    p04 = next(section for section in sections if section.section == "P04")
    assert list(windows) == ["this cohort, COX4"]
    np.testing.assert_array_equal(windows["this cohort, COX4"], p04.image_yx("COX4")[54:566, 64:576])
    Image.fromarray(np.full((1500, 1600), 7, np.uint8)).save(tmp_path / "real.png")
    at_hand["COX4 picture"] = tmp_path / "real.png"
    assert phantom.cox4_windows(sections)["real section, COX4"].shape == (512, 512)
    monkeypatch.setenv("MITOLIB_PUBLISH", "1")
    assert list(phantom.cox4_windows(sections)) == ["this cohort, COX4"], "its licence is not that of the book"


def test_data_that_are_no_phantom_are_not_compared_with_muscle(at_hand):
    assert phantom.cox4_windows(()) == {}
    assert phantom.compare_with_muscle((), None).empty


def test_how_far_the_phantom_agrees_is_said_from_the_table():
    table = pd.DataFrame({"ratio": [1.1, 0.5, None], "within_20_percent": [True, False, True]}, index=[0, 0, 1])
    assert "Of 3 measures 2 lie within 20 %" in phantom.muscle.agreement(table)
    assert phantom.muscle.agreement(table).endswith("0.50.") and phantom.muscle.agreement(table[:0]) == ""


def test_without_a_mask_the_picture_alone_is_compared(sections, monkeypatch):
    from mitolib.phantom import realism

    monkeypatch.setattr(realism, "measure_image", lambda image_yx: realism.read_reference()["image"])
    monkeypatch.setattr(realism, "measure_mask", lambda label_yx: realism.read_reference()["mask"])
    alone = phantom.compare_with_muscle(sections, None)
    both = phantom.compare_with_muscle(sections, (mask(), pd.Series(dtype=str)))
    assert set(alone["of"]) == {"image"} and set(both["of"]) == {"image", "mask"}
    assert (both["ratio"].dropna() == 1).all(), "the reference measured against itself"


def test_fibres_are_counted_in_the_mask_and_in_each_patch(at_hand, tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", mask())
    at_hand["P03 mask"] = tmp_path / "mask.tif"
    assert list(phantom.fibre_masks((mask(), pd.Series(dtype=str)))) == ["this cohort, P03", "real section"]
    counted = phantom.fibres_per_patch(phantom.fibre_masks(None)).to_dict()["real section"]
    assert counted == {
        "height, px": 600,
        "width, px": 900,
        "patches, step 224 px": 2,
        "patches, step 256 px": 2,
        "fibres": 2,
        "fibres touched by a patch, median": 1.5,  # the first patch shows one, the second both
    }


def test_without_any_mask_there_is_no_column(at_hand):
    assert phantom.fibres_per_patch(phantom.fibre_masks(None)).empty
