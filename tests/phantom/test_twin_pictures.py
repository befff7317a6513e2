"""Twins beside people: grey levels, and whether they are within the people's range."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from mitolib import cohort, phantom


@pytest.fixture
def sections(make_cohort):
    """C01: half black; P01: a tenth saturated, the rest grey 100; in both proteins."""
    root = make_cohort({"Control": ["C01"], "Patient": ["P01"]}, ("SDHA", "NDUFB8"), (600, 600))
    for folder, fill in (("Control/C01", (0, 200, 0.5)), ("Patient/P01", (255, 100, 0.1))):
        for protein in ("SDHA", "NDUFB8"):
            tifffile.imwrite(root / folder / f"{protein}.tif", painted(*fill))
    return cohort.read_cohort(root, ("SDHA", "NDUFB8"))


def painted(grey: int, elsewhere: int, share: float) -> np.ndarray:
    image_yx = np.full((600, 600), elsewhere, np.uint8)
    image_yx[: round(600 * share)] = grey
    return image_yx


def repainted(sections, folder, fills):
    """The same sections with other pictures: protein -> fill."""
    for protein, fill in fills.items():
        for section in sections:
            path = folder / section.label.title() / section.section / f"{protein}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, painted(*fill))
    return cohort.read_cohort(folder, tuple(fills))


def test_level_saturated_and_black_are_those_of_the_picture(sections):
    table = phantom.compare_twins(sections, {}).set_index(["section", "protein"])
    assert table.loc[("C01", "SDHA"), ["level", "saturated", "black"]].tolist() == pytest.approx([100, 0, 0.5])
    assert table.loc[("P01", "NDUFB8"), ["level", "saturated", "black"]].tolist() == pytest.approx([115.5, 0.1, 0])
    assert (table["twin"] == "").all() and table["within"].all(), "they are the range"


def test_a_twin_is_within_the_range_of_its_protein_or_not(sections, tmp_path):
    fills = {"SDHA": (255, 100, 0.05), "NDUFB8": (255, 100, 0.4)}
    table = phantom.compare_twins(sections, {"cured": repainted(sections, tmp_path / "cured", fills)})
    twins = table[table["twin"] == "cured"].set_index("protein")
    assert twins["section"].tolist() == ["P01", "P01"], "a control is not cured"
    assert twins.loc["SDHA", "within"] and twins.loc["SDHA", "saturated"] == pytest.approx(0.05)
    verdicts = ["level_within", "saturated_within", "black_within", "within"]
    assert twins.loc["NDUFB8", verdicts].tolist() == [False, False, True, False]


def test_of_afflicted_twins_the_controls_are_compared(sections, tmp_path):
    twins = {"afflicted": repainted(sections, tmp_path / "afflicted", {"SDHA": (0, 200, 0.5)})}
    table = phantom.compare_twins(sections, twins)
    assert table[table["twin"] == "afflicted"]["section"].tolist() == ["C01"] and table["within"].all()


def test_an_unknown_kind_and_no_people_are_refused(sections):
    with pytest.raises(ValueError, match=r"found the kinds .'older'"):
        phantom.compare_twins(sections, {"older": sections})
    with pytest.raises(ValueError, match="found none"):
        phantom.compare_twins((), {})
