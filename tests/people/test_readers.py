"""What is read of a section: ratios from counts, fibres outlined without truth."""

from __future__ import annotations

import json
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from mitolib import cohort, phantom
from mitolib.people import readers
from mitolib.people.readers import CROP_PX, FibreReader, RatioReader, Readers, ratio_picture
from mitolib.study import EXP1, EXP2
from mitolib.weights import Weights


def backbone(px: int) -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = [keras.Input((px, px, 3)), keras.layers.AveragePooling2D(px // 4), keras.layers.Conv2D(5, 1)]
    return keras.Sequential(layers)


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """Folder and section of a new patient, of whose fibres many are deficient."""
    root = tmp_path_factory.mktemp("people")
    people = phantom.draw_people(0, 12, seed=3, side_px=512)
    mosaics = [s for s in people["subjects"] if "none" in s["classes"]]
    mosaic = min(mosaics, key=lambda s: abs(s["classes"]["none"]["fraction"] - 0.5))
    (folder,) = phantom.make_people(root, {**people, "subjects": [mosaic]})
    return folder, cohort.read_cohort(folder)[0]


@pytest.fixture(scope="module")
def fibres(patient):
    return FibreReader(backbone(CROP_PX), "digest").read(*patient)


def test_deficient_fibres_are_dark_in_a_ratio_and_are_outlined_without_their_truth(patient, fibres):
    assert {len(array) for array in fibres.values()} == {len(fibres["centre"])}
    known = fibres["deficient"] >= 0
    assert known.mean() > 0.9 and 0.1 < fibres["deficient"][known].mean() < 1
    log_ratio = np.log(fibres["counts"][:, 1:] / fibres["counts"][:, :1]).min(axis=1)
    deficient = fibres["deficient"] == 1
    assert np.median(log_ratio[deficient]) < np.median(log_ratio[known & ~deficient]) - 0.7
    assert fibres["crops"].shape[1] == 5 and fibres["crops"].dtype == np.float16


def test_counts_are_the_greys_in_the_stretch_of_the_pictures(patient, fibres):
    stretch = pd.read_csv(patient[0] / "truth" / "stretch.csv").set_index("protein")
    expected = stretch.loc["VDAC1", "low"] + fibres["grey"][:, 0] / 255 * np.subtract(
        *stretch.loc["VDAC1", ["high", "low"]]
    )
    np.testing.assert_allclose(fibres["counts"][:, 0], expected, rtol=1e-5)


def test_a_ratio_picture_has_one_scale_for_everybody(patient, tmp_path):
    """The grey of a picture that is stretched otherwise is another, its counts and ratios are the same."""
    root, section = patient
    picture_yxc = ratio_picture(root, section)
    assert picture_yxc.shape == (256, 256, 3) and picture_yxc.dtype == np.uint8
    (tmp_path / "truth").mkdir()
    limits = pd.read_csv(root / "truth" / "stretch.csv")
    limits[["low", "high"]] = limits[["low", "high"]] * 3
    limits.to_csv(tmp_path / "truth" / "stretch.csv", index=False)
    tripled = ratio_picture(tmp_path, section)
    inside = picture_yxc[..., 2] > np.quantile(picture_yxc[..., 2], 0.7)
    assert np.abs(tripled[inside][:, 0].astype(int) - picture_yxc[inside][:, 0]).mean() < 12


def test_without_a_stretch_the_ratio_of_the_greys_is_taken(patient, tmp_path):
    picture_yxc = ratio_picture(tmp_path, patient[1])
    assert picture_yxc[..., 0].std() > 0


def test_patches_of_the_ratio_picture_lie_on_the_grid_of_the_section(patient):
    reader = RatioReader(backbone(224), "digest", patch_px=256, stride_px=128)
    assert reader.read(*patient)["pooled"].shape == (9, 5)
    assert readers.key(reader) != readers.key(replace(reader, stride_px=64))


def test_another_precision_is_another_reading_and_the_same_unit(monkeypatch):
    reader = RatioReader(backbone(224), "digest", patch_px=256, stride_px=128)
    keys = []
    for precision in ("float32", "bfloat16"):
        monkeypatch.setattr(readers.bank, "precision", lambda precision=precision: precision)
        keys.append((readers.key(reader), json.dumps(reader.depends)))
    assert keys[0][0] != keys[1][0] and keys[0][1] == keys[1][1]


def test_a_fibre_s_crop_holds_nothing_of_its_neighbours(patient):
    picture_yxc = np.full((64, 64, 3), 200, np.uint8)
    label_yx = np.zeros((64, 64), np.int32)
    label_yx[10:20, 10:20], label_yx[10:20, 21:30] = 4, 7
    crops_nhwc = readers._crops(picture_yxc, label_yx, np.array([[29.0, 29.0], [29.0, 50.0]]))
    assert (crops_nhwc == 200).sum(axis=(1, 2, 3)).tolist() == [300, 270]
    assert set(np.unique(crops_nhwc)) == {128, 200}


def test_readers_are_made_when_they_are_asked_for_and_cut_crops_with_the_layers_of_the_whole(monkeypatch):
    made = Readers(EXP1, EXP2, Weights("VGG16", "random", None, None, None), seed=1)
    assert list(made) == ["one", "several", "ratios", "fibres"] and not made._made
    whole = made._backbone(3)
    monkeypatch.setattr(Readers, "_backbone", lambda self, n_channels: whole)
    assert made["fibres"] is made["fibres"] and list(made._made) == ["fibres"]
    assert made["fibres"].backbone.output_shape == (None, 4, 4, 256)
    for layer in ("block1_conv1", "block3_conv3"):
        np.testing.assert_array_equal(
            made["fibres"].backbone.get_layer(layer).get_weights()[0], whole.get_layer(layer).get_weights()[0]
        )
    assert list(Readers(EXP1, None, made.vgg16, seed=1)) == ["one", "ratios", "fibres"]
