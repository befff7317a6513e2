from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

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
    with pytest.raises(ValueError, match="cannot mix A, X, B: wanted three of A, B, C, D"):
        viewers.mix(image, ["A", "B", "C", "D"], ["A", "X", "B"])


def test_the_mixer_holds_every_protein_and_the_first_mix(rng):
    image = rng.integers(0, 256, (8, 9, 4), dtype=np.uint8)
    soup = BeautifulSoup(viewers.mixer(image, list("ABCD"), start="DAB", name="P01"), "html.parser")
    assert [one["data-name"] for one in soup.select(".mito-channels [data-name]")] == list("ABCD")
    assert soup.select_one(".mito-mixed img")["alt"] == "D red, A green, B blue, in P01"
    assert soup.div["data-start"] == "D A B"
