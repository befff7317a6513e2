from __future__ import annotations

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from mitolib import cohort
from mitolib.figures import viewers

ROWS = pd.DataFrame(
    {
        "subject": ["C01", "P<1>"],
        "label": ["control", "patient"],
        "p_patient": [0.9, 0.8],
        "predicted": ["patient", "patient"],
    }
)


def pixels(image) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))))


@pytest.fixture
def stacks(rng):
    patches = rng.integers(0, 256, (2, 32, 32), dtype=np.uint8)
    maps = {"control": np.zeros((2, 32, 32)), "patient": np.zeros((2, 32, 32))}
    maps["patient"][0, :16] = 3.0
    masks = np.zeros((2, 32, 32), bool)
    masks[1, 8:24, 8:24] = True
    return patches, maps, masks


def test_each_patch_has_its_layers_with_words_and_size(stacks):
    soup = BeautifulSoup(viewers.overlays(*stacks, ROWS), "html.parser")
    cases = soup.select(".mito-case")
    assert [case.p.text for case in cases] == [
        "C01, a control: p(patient) 0.90, wrong",
        "P<1>, a patient: p(patient) 0.80, right",
    ]
    names = [[layer["data-name"] for layer in case.select("[data-name]")] for case in cases]
    assert names[0] == ["patch", "map for patient", "deficient fibres (none here)"]
    assert names[1] == ["patch", "map for patient (empty)", "deficient fibres"]
    for image in soup.find_all("img"):
        assert image["alt"] and image["width"] == image["height"] == "32"
        assert pixels(image).shape[:2] == (32, 32)


def test_data_without_truth_have_no_layer_of_truth(stacks):
    patches, maps, _ = stacks
    soup = BeautifulSoup(viewers.overlays(patches, maps, None, ROWS), "html.parser")
    assert {layer["data-name"].split()[0] for layer in soup.select("[data-name]")} == {"patch", "map"}


def test_where_a_map_is_zero_the_tissue_stays_as_it_is(stacks):
    patches, maps, _ = stacks
    over = viewers.heat(patches[0], maps["patient"][0] / 3)
    assert (over[16:] == patches[0, 16:, :, None]).all()
    assert len(np.unique(over[:16].reshape(-1, 3).argmax(axis=1))) < 3 and (over[:16, :, 0] >= over[:16, :, 2]).all()


def test_the_line_runs_around_the_mask_and_nowhere_else(stacks):
    patches, _, masks = stacks
    pink = (viewers.outlined(patches[1], masks[1]) == viewers.OUTLINE).all(axis=-1)
    assert pink[8, 8:24].all() and pink[23, 8:24].all()
    assert not pink[12:20, 12:20].any() and not pink[:6].any()
    assert not (viewers.outlined(patches[0], masks[0]) == viewers.OUTLINE).all(axis=-1).any()


def test_a_mix_has_each_protein_in_its_colour(rng):
    image = rng.integers(0, 256, (8, 9, 4), dtype=np.uint8)
    mixed = viewers.mix(image, ["A", "B", "C", "D"], ["D", "A", "B"])
    assert (mixed == image[..., [3, 0, 1]]).all()
    with pytest.raises(ValueError, match=r"A, X, B: .* A, B, C, D"):
        viewers.mix(image, ["A", "B", "C", "D"], ["A", "X", "B"])


def test_the_mixer_holds_every_protein_and_the_first_mix(rng):
    image = rng.integers(0, 256, (8, 9, 4), dtype=np.uint8)
    soup = BeautifulSoup(viewers.mixer(image, list("ABCD"), start="DAB", name="P01"), "html.parser")
    assert [one["data-name"] for one in soup.select(".mito-channels [data-name]")] == list("ABCD")
    assert soup.select_one(".mito-mixed img")["alt"] == "D red, A green, B blue, in P01"
    assert soup.div["data-start"] == "D A B"


def test_fewer_than_three_proteins_are_not_mixed_and_the_page_says_so():
    two = np.zeros((8, 8, 2), np.uint8)
    assert "three proteins" in viewers.mixer(two, ["A", "B"], start=["A", "B"], name="x")
    ax = viewers.still(two, ["A", "B"], start=["A", "B"], name="x", ax=plt.subplots()[1])
    assert "three proteins" in ax.texts[0].get_text() and not ax.images


def test_a_still_picture_names_its_three_proteins(rng):
    picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    ax = viewers.still(picture, ["A", "B", "C"], start=["C", "A", "B"], name="P01", ax=plt.subplots()[1])
    assert "P01" in ax.get_title() and "C, A, B" in ax.get_title()
    np.testing.assert_array_equal(ax.images[0].get_array(), picture[..., [2, 0, 1]])


def test_the_mixture_begins_with_the_proteins_that_tell_fibres_apart_where_they_are():
    assert viewers.first_mixture(["Dystrophin", "VDAC1", "A", "NDUFB8"]) == viewers.MIXTURE
    assert viewers.first_mixture(["VDAC1", "A", "B", "C"]) == ("VDAC1", "A", "B")


@pytest.mark.parametrize(("height", "width"), [(10, 20), (4, 6), (5, 3)])
def test_a_window_lies_in_the_middle_and_inside(height, width):
    rows, columns = viewers.middle(height, width, 4)
    size = min(height, width, 4)
    assert rows.stop - rows.start == columns.stop - columns.start == size
    assert abs(rows.start - (height - rows.stop)) <= 1 and abs(columns.start - (width - columns.stop)) <= 1


def test_of_the_truth_a_window_keeps_the_fibres_that_are_in_it():
    labels_yx = np.array([[1, 1, 2], [0, 3, 3], [0, 3, 3]])
    classes = pd.Series(["none", "CI", "CIV"], [1, 2, 3])
    cut, kept = viewers.within((labels_yx, classes), (slice(1, 3), slice(1, 3)))
    assert (cut == 3).all() and kept.to_dict() == {3: "CIV"}
    assert viewers.within(None, (slice(0, 1), slice(0, 1))) is None


def test_a_picture_of_a_window_has_a_channel_for_each_protein(make_cohort):
    root = make_cohort({"Patient": ["P01"]}, ("A", "B"), (40, 50))
    (section,) = cohort.read_cohort(root, ["A", "B"])
    window = viewers.middle(section.height_px, section.width_px, 32)
    assert viewers.picture(section, ["B", "A"], window, 16).shape == (16, 16, 2)
    whole = viewers.picture(section, ["B", "A"], window, 512)
    np.testing.assert_array_equal(whole, section.stack_yxc(["B", "A"])[window])
    assert viewers.picture(section, [], window, 16).shape == (16, 16, 0)
