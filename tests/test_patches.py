from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitolib import cohort, figures, patches
from mitolib.cohort import CohortError, Section
from mitolib.study import EXP1, EXP2


@pytest.mark.parametrize(("stride_px", "control", "patient"), [(224, 276, 938), (256, 228, 721)])
def test_the_published_section_sizes_give_the_published_patch_counts(stride_px, control, patient):
    table = patches.grid(cohort.published_sections(), stride_px=stride_px)
    assert table["label"].value_counts().to_dict() == {"patient": patient, "control": control}


def test_patches_are_counted_for_each_experiment_and_cohort():
    counted = figures.cohort.patch_counts({"published sizes": cohort.published_sections()}, [EXP1, EXP2])
    assert counted["exp1", "published sizes"].to_dict() == {"control": 276, "patient": 938}
    assert counted["exp2", "published sizes"].to_dict() == {"control": 228, "patient": 721}


@given(st.integers(64, 400), st.integers(64, 400), st.integers(8, 64), st.integers(1, 80))
def test_the_grid_stays_inside_and_leaves_no_room_for_another_patch(height_px, width_px, size_px, stride_px):
    section = Section("S", "S", "control", height_px, width_px, {})
    table = patches.grid([section], size_px=size_px, stride_px=stride_px)
    assert table["y"].max() + size_px <= height_px < table["y"].max() + size_px + stride_px
    assert table["x"].max() + size_px <= width_px < table["x"].max() + size_px + stride_px
    assert not table.duplicated(["y", "x"]).any()


def test_a_section_smaller_than_a_patch_is_refused_with_its_file(make_cohort):
    sections = cohort.read_cohort(make_cohort(shape=(600, 500)), ["SDHA"])
    with pytest.raises(CohortError, match=r"SDHA.tif.* 600 x 500 px .*512 px"):
        patches.grid(sections, stride_px=224)


def test_patchify_cuts_what_the_table_says(rng):
    image_yxc = rng.integers(0, 256, (130, 150, 3), dtype=np.uint8)
    section = Section("S", "S", "control", 130, 150, {})
    table = patches.grid([section], size_px=64, stride_px=20).sample(frac=1, random_state=0)  # in any order
    cut_nhwc = patches.cut(image_yxc, table, stride_px=20)
    for patch_yxc, row in zip(cut_nhwc, table.itertuples(), strict=True):
        np.testing.assert_array_equal(patch_yxc, image_yxc[row.y : row.y + 64, row.x : row.x + 64])


def test_load_gives_each_row_its_own_pixels_whatever_the_order(make_cohort):
    sections = cohort.read_cohort(make_cohort(), ["SDHA", "COX4"])
    table = patches.grid(sections, stride_px=64)
    straight = patches.load(table, sections, ["SDHA", "COX4"], stride_px=64, input_px=32)
    order = np.random.default_rng(1).permutation(len(table))
    shuffled = patches.load(table.iloc[order], sections, ["SDHA", "COX4"], stride_px=64, input_px=32)
    np.testing.assert_array_equal(straight[order], shuffled)
    row = table.iloc[5]
    image_yxc = sections[0].stack_yxc(["SDHA", "COX4"])[row.y : row.y + 512, row.x : row.x + 512]
    np.testing.assert_array_equal(straight[5], patches.resize(image_yxc, 32))


def test_tissue_is_the_share_of_a_patch_that_is_not_dark(make_cohort, monkeypatch):
    sections = cohort.read_cohort(make_cohort({"Control": ["C"]}, shape=(512, 1024)), ["SDHA"])
    half_yx = np.zeros((512, 1024), np.uint8)
    half_yx[:, 256:] = 200
    monkeypatch.setattr(Section, "image_yx", lambda self, protein: half_yx)
    table = patches.grid(sections, stride_px=256)
    assert patches.tissue(table, sections, "SDHA").tolist() == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("channels", [3, 10])
def test_augmentation_keeps_shape_type_and_the_agreement_of_channels(rng, channels):
    one = rng.integers(0, 256, (2, 48, 48, 1), dtype=np.uint8)
    turned_nhwc = patches.augment(np.repeat(one, channels, axis=-1), zoom=(0.8, 1.2), rng=rng)
    assert turned_nhwc.shape == (2, 48, 48, channels) and turned_nhwc.dtype == np.uint8
    assert (turned_nhwc == turned_nhwc[..., :1]).all(), "every channel is turned alike"
    assert (turned_nhwc[..., :1] != one).any()


def test_augmentation_repeats_with_its_seed_and_differs_without(rng):
    patches_nhwc = rng.integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    first, again, other = (
        patches.augment(patches_nhwc, zoom=(0.8, 1.2), rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).any()


def test_augmentation_turns_about_the_centre_and_zooms_by_what_it_is_told(rng):
    dot = np.zeros((1, 65, 65, 1), np.uint8)
    dot[0, 28:37, 28:37] = 255  # 9 x 9 px in the middle
    for zoom, area in ((1.0, 81), (0.5, 324)):  # half the source width is shown: everything twice as large
        turned = patches.augment(dot, zoom=(zoom, zoom), rng=rng)[0, ..., 0] / 255
        assert turned.sum() == pytest.approx(area, rel=0.05)
        assert np.average(np.indices(turned.shape)[0], weights=turned) == pytest.approx(32, abs=0.1)


def test_input_is_rescaled_and_one_channel_becomes_three():
    x = patches.as_input(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    assert x.dtype == np.float32 and x.shape == (2, 1, 1, 3) and x.min() == 0 and x.max() == 1
    assert patches.as_input(np.zeros((1, 2, 2, 10), np.uint8)).shape[-1] == 10


def test_neighbours_share_what_their_strides_imply():
    assert patches.shared_pixels(size_px=512, stride_px=224) == 0.5625
    assert patches.shared_pixels(size_px=512, stride_px=256) == 0.5
    assert patches.shared_pixels(size_px=512, stride_px=600) == 0


def test_patches_are_mapped_to_a_file_that_leaves_nothing_behind(make_cohort, monkeypatch, tmp_path):
    monkeypatch.setattr(patches, "CACHE", tmp_path / "cache")
    sections = cohort.read_cohort(make_cohort({"Control": ["C01"]}), ["SDHA"])
    table = patches.grid(sections, stride_px=64)
    pixels = patches.load(table, sections, ["SDHA"], stride_px=64, input_px=32)
    assert isinstance(pixels, np.memmap) and pixels.any()
    assert list((tmp_path / "cache").iterdir()) == []


def test_patches_that_do_not_fit_on_the_disk_are_an_error_before_they_are_cut(make_cohort, monkeypatch):
    sections = cohort.read_cohort(make_cohort({"Control": ["C01"]}), ["SDHA"])
    table = patches.grid(sections, stride_px=64)
    monkeypatch.setattr(patches.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match=r"patches need 0\.00 GB, 0\.00 GB are free"):
        patches.load(table, sections, ["SDHA"], stride_px=64)
