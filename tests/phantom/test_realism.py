from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mitolib import settings
from mitolib.phantom import realism
from mitolib.phantom.draw import make_phantom


def blocks(gap_px: int, height: int = 40, width: int = 40) -> np.ndarray:
    """3 x 3 rectangular fibres in a mask, `gap_px` apart."""
    label = np.zeros((3 * (height + gap_px) + 60, 3 * (width + gap_px) + 60), np.uint16)
    for i in range(9):
        y, x = 30 + (i // 3) * (height + gap_px), 30 + (i % 3) * (width + gap_px)
        label[y : y + height, x : x + width] = i + 1
    return label


def test_a_mask_of_squares_has_the_area_gap_and_cover_one_counts_by_hand():
    label = blocks(gap_px=4)
    found = realism.measure_mask(label)
    assert {found[f"area_px_{q}"] for q in (5, 25, 50, 75, 95)} == {1600}
    assert found["cover"] == pytest.approx(9 * 1600 / label.size)
    assert found["elongation"] == 1
    assert found["gap_px"] == pytest.approx(4, abs=0.2)
    assert found["wide_gaps"] < 0.15  # only where four corners meet, and beyond


@pytest.mark.parametrize("gap_px", [0, 1, 3, 10])
def test_the_gap_is_the_number_of_pixels_between_two_fibres(gap_px):
    label = np.ones((50, 40 + gap_px), np.int64)
    label[:, 20 + gap_px :] = 2
    label[:, 20 : 20 + gap_px] = 0
    found = realism.measure_mask(label)
    assert found["gap_px"] == gap_px and found["wide_gaps"] == (gap_px > 8)


def test_elongation_does_not_depend_on_the_direction():
    label = blocks(gap_px=4, height=30, width=60)
    assert realism.measure_mask(label)["elongation"] == realism.measure_mask(label.T.copy())["elongation"] == 2


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((5, 5), np.uint8), "no fibre"),
        (np.ones((5, 5)), "integer"),
        (np.ones((5, 5, 3), np.uint8), "2-dimensional"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        realism.measure_mask(mask)


def picture(rng: np.random.Generator, rim: float = 1.0) -> np.ndarray:
    """3 x 3 fibres of 80 px with Poisson noise; the outer 6 px of each are `rim` times brighter."""
    label = blocks(gap_px=8, height=80, width=80)
    core = np.all([np.roll(label, s, a) == label for s in (-6, 6) for a in (0, 1)], axis=0)
    rate = np.where(label > 0, np.where(core, 100, 100 * rim), 2)
    return np.clip(rng.poisson(rate), 0, 255).astype(np.uint8)


def test_segmentation_finds_each_fibre_once(rng):
    label = realism.segment(picture(rng))
    assert label.max() == 9
    truth = blocks(gap_px=8, height=80, width=80)
    assert all(len(np.unique(label[truth == i][label[truth == i] > 0])) == 1 for i in range(1, 10))


def test_noise_and_rim_of_a_picture_are_measured(rng):
    flat, rimmed = realism.measure_image(picture(rng)), realism.measure_image(picture(rng, rim=1.6))
    assert flat["area_px_50"] == pytest.approx(6400, rel=0.1)
    assert flat["fibre_cv"] == pytest.approx(0.1, abs=0.02)  # Poisson at 100 counts
    assert flat["rim"] == pytest.approx(1, abs=0.05)
    assert rimmed["rim"] == pytest.approx(1.6, abs=0.15)
    assert abs(flat["correlation_px"]) < 0.1 < rimmed["correlation_px"]


def test_an_empty_picture_is_refused():
    with pytest.raises(ValueError, match="no fibre"):
        realism.measure_image(np.zeros((300, 300), np.uint8))


def test_the_grey_histogram_does_not_depend_on_the_number_of_levels(rng):
    grey = np.clip(rng.normal(120, 40, 200_000), 0, 255)
    few, many = (np.round(np.round(grey / 255 * n) * 255 / n).astype(np.uint8)[None] for n in (27, 34))
    coarse, fine = realism.grey_histogram(few), realism.grey_histogram(many)
    assert coarse.sum() == pytest.approx(1) and coarse.shape == (16,)
    assert 0.5 * np.abs(coarse - fine).sum() < 0.03


def test_a_wave_shows_in_its_own_band_with_its_amplitude():
    wave = 100 + 40 * np.sin(2 * np.pi * 0.09 * np.arange(512))
    found = realism.spectrum(np.tile(wave.round().astype(np.uint8), (512, 1)))
    assert found.argmax() == 4  # 0.09 cycles per px lies between 1/16 and 1/9.5
    assert found[4] == pytest.approx(40 / np.sqrt(2), rel=0.05)
    assert np.delete(found, 4).max() < 2


def test_a_picture_too_small_for_a_tile_has_no_spectrum():
    assert np.isnan(realism.spectrum(np.ones((100, 100), np.uint8))).all()


def test_comparison_says_what_is_within_20_percent():
    real = {"a": 10.0, "b": 10.0, "grey_histogram": [0.5, 0.5], "spectrum": [1.0, 2.0]}
    phantom = {"a": 11.9, "b": 12.5, "grey_histogram": [0.6, 0.4], "spectrum": [1.1, 3.0]}
    table = realism.compare(real, phantom).set_index("measure")
    assert table["within_20_percent"].to_dict() == {
        "a": True,
        "b": False,
        "grey levels to move": True,
        "spectrum 1": True,
        "spectrum 2": False,
    }
    assert table.loc["b", "ratio"] == 1.25
    assert table.loc["grey levels to move", "phantom"] == pytest.approx(0.1)


def test_results_of_different_functions_are_not_compared():
    with pytest.raises(ValueError, match="gap_px"):
        realism.compare({"area": 1.0, "gap_px": 2.0}, {"area": 1.0})


def test_the_reference_names_its_sources_and_holds_no_pixels():
    reference = json.loads(realism.REFERENCE.read_text())
    for kind, about in realism.FILES.items():
        assert reference[kind]["file"] == about["file"] and len(reference[kind]["sha256"]) == 64
        assert "github.com" in reference[kind]["origin"]
        assert max(np.size(value) for value in reference[kind]["measures"].values()) <= 16
    assert realism.read_reference()["mask"]["area_px_50"] == 1875


def test_a_missing_reference_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json"):
        realism.read_reference(tmp_path / "none.json")


def test_missing_real_files_are_named_with_their_origin(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mitocyto_COX4\.png: not found.*github"):
        realism.measure_files(tmp_path)


def test_the_reference_can_be_measured_again():
    mirror = os.environ.get("MITOLIB_MIRROR")
    found = [path.parent for path in Path(mirror).rglob(realism.FILES["image"]["file"])] if mirror else []
    if not found or not (found[0] / realism.FILES["mask"]["file"]).exists():
        pytest.skip("the two real files are not below MITOLIB_MIRROR")
    again, kept = realism.measure_files(found[0]), json.loads(realism.REFERENCE.read_text())
    for kind in realism.FILES:
        assert again[kind]["sha256"] == kept[kind]["sha256"]
        for name, value in kept[kind]["measures"].items():
            np.testing.assert_allclose(again[kind]["measures"][name], value, rtol=1e-3, err_msg=name)


def test_the_phantom_of_p03_is_packed_like_the_real_p03(tmp_path):
    cohort = json.loads(settings.CALIBRATION.read_text())
    cohort["subjects"] = [subject for subject in cohort["subjects"] if subject["subject"] == "P03"]
    (tmp_path / "cohort.json").write_text(json.dumps(cohort))
    root = make_phantom(tmp_path / "phantom", scale=0.4, calibration=tmp_path / "cohort.json")
    found = realism.measure_mask(tifffile.imread(root / "truth" / "P03.tif"))
    table = realism.compare(realism.read_reference()["mask"], found).set_index("measure")
    close = ["area_px_25", "area_px_50", "area_px_75", "elongation", "gap_px"]  # tails and tears need a larger section
    assert table.loc[close, "within_20_percent"].all(), table
