from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile

from mitolib import own_data, patches
from mitolib.saliency import localisation, truth


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
    labels, deficient = truth.truth_windows(cohort_with_truth, TABLE)
    assert [fibres.tolist() for fibres in deficient] == [[2, 3], []]
    masks = truth.masks(labels, deficient)
    assert masks[0].sum() == 30 * 30 + 30 * 25 and not masks[1].any()


def test_a_patch_sees_its_own_window_of_the_section(cohort_with_truth):
    labels, deficient = truth.truth_windows(cohort_with_truth, TABLE[:1].assign(x=30, size=34))
    assert deficient[0].tolist() == [2] and labels[0, 0, 3] == 0 and labels[0, 0, 4] == 2


def test_data_without_truth_leave_every_score_undefined_and_every_section_in(tmp_path):
    labels, deficient = truth.truth_windows(tmp_path, TABLE)
    masks = truth.masks(labels, deficient)
    assert localisation.score(np.ones((2, 4, 4)), masks, size_px=64).isna().all(axis=None)
    assert truth.mosaic(tmp_path, ["S", "T"]) == ["S", "T"]


def test_mosaic_sections_have_some_deficient_fibres_but_not_all(cohort_with_truth):
    assert truth.mosaic(cohort_with_truth, ["S", "T"]) == ["S"]


def test_patches_are_taken_from_each_subject_in_turn():
    table = pd.DataFrame({"subject": list("AAAAAAB")})
    assert set(truth.spread(table, 2, seed=0)["subject"]) == {"A", "B"}
    assert len(truth.spread(table, 99, seed=0)) == 7


def test_held_out_patches_are_the_test_patches_of_patients_with_all_that_is_known_of_them(make_cohort):
    root = make_cohort({"Control": ["A", "B"], "Patient": ["C", "D"]}, ("SDHA", "NDUFB8", "VDAC1"), (96, 160))
    data = own_data.read("gradcam", root, own=True, patch_px=96, stride_px=64)
    table = data.table(data.one)
    pixels = patches.load(table, data.sections, data.one.proteins, stride_px=64)
    held_out = truth.held_out_patches(data, data.one, table, pixels, n=9, seed=0)
    assert len(held_out) == 2 and set(held_out.rows["label"]) == {"patient"} and set(held_out.rows["split"]) == {"test"}
    assert (held_out.patches_nhwc == pixels[held_out.rows.index]).all()
    assert held_out.ndufb8_vdac1.shape == (2, 224, 224, 2)
    assert held_out.twins_nhwc is None and not held_out.has_truth and not held_out.masks_nyx.any()
