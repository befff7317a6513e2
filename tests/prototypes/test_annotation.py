from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from mitolib import patches
from mitolib.cohort import Section
from mitolib.prototypes import annotation
from mitolib.prototypes.annotation import Annotation, MaskError, drawn_subjects, from_folder, irrelevant, turned

SECTIONS = [Section(name, name, label, 60, 80, {}) for name, label in (("C01", "control"), ("P01", "patient"))]


def labels(shape=(60, 80), dtype=np.uint16) -> np.ndarray:
    image = np.zeros(shape, dtype)
    image[10:40, 20:50] = 3
    return image


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "masks").mkdir()
    return tmp_path / "masks"


def test_a_mask_is_turned_as_the_bank_turns_the_picture(rng):
    """The mask is painted as a second channel: one turns with the picture, the other by itself."""
    mask = np.zeros((3, 64, 64), np.uint8)
    mask[0, 10:30, 20:50], mask[1, 5:60, 30:34], mask[2, 20:40, 20:40] = 255, 255, 255
    augment = partial(patches.augment, zoom=(0.8, 1.2))
    painted = np.stack([rng.integers(0, 256, mask.shape, dtype=np.uint8), mask], axis=-1)
    with_picture = augment(painted, rng=np.random.default_rng([127, 0, 0]))[..., 1] >= 128
    alone = turned(mask, augment, rng=np.random.default_rng([127, 0, 0])) == 255
    assert (with_picture == alone).mean() >= 0.99


def test_the_share_of_a_cell_that_is_irrelevant():
    window = np.zeros((1, 8, 8), np.uint8)
    window[0, :4, :4] = 255
    window[0, :2, 4:] = 255
    assert irrelevant(window, 2).tolist() == [[0, 0.5, 1, 1]]


def test_a_patch_without_annotation_costs_nothing():
    own, others = Annotation(np.ones((3, 4)), np.array([True, False, True])).of(np.array([0, 1]))
    assert own.tolist() == [[1] * 4, [0] * 4] and others.tolist() == [1, 0]


def test_masks_of_another_count_or_outside_zero_to_one_are_refused():
    with pytest.raises(ValueError, match="for 2 patches"):
        Annotation(np.ones((3, 4)), np.ones(2, bool))
    for value in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match="wanted shares"):
            Annotation(np.full((2, 4), value), np.ones(2, bool))


def test_people_are_annotated_as_a_whole_and_more_of_them_at_a_larger_share():
    table = pd.DataFrame({"subject": list("ABCDEFGHIJ"), "label": ["control"] * 5 + ["patient"] * 5})
    assert drawn_subjects(table, 0, seed=1) == [] and len(drawn_subjects(table, 1, seed=1)) == 10
    fewer, more = (set(drawn_subjects(table, share, seed=1)) for share in (0.2, 0.6))
    assert len(fewer) == 2 and fewer < more


TABLE = pd.DataFrame(
    {"section": ["P01", "P01", "C01"], "subject": ["P01", "P01", "C01"], "label": ["patient", "patient", "control"]}
).assign(y=[0, 28, 0], x=[20, 48, 0], size=32)


def qupath_pyramid(folder) -> None:
    """`writeImage(labelServer, "P01.ome.tif")`: tiles, Zlib, a second level at half the size in a SubIFD, OME-XML."""
    options = {"tile": (32, 32), "compression": "zlib", "photometric": "minisblack"}
    with tifffile.TiffWriter(folder / "P01.ome.tif", bigtiff=True, ome=True) as file:
        file.write(labels(dtype=np.uint8), subifds=1, metadata={"axes": "YX", "Channel": {"Name": "Labels"}}, **options)
        file.write(labels(dtype=np.uint8)[::2, ::2], subfiletype=1, **options)


def qupath_png(folder) -> None:
    """The script of its manual: `name + "-labels.png"`, colours by a table, white for the background."""
    image = Image.fromarray(labels(dtype=np.uint8), mode="P")
    image.putpalette([255, 255, 255, 0, 0, 0, 0, 128, 0, 200, 0, 0])
    image.save(folder / "P01-labels.png")


def napari_layer(folder) -> None:
    """Save Selected Layer: labels of fewer than four bytes become uint32, compressed, without ImageJ's tags."""
    tifffile.imwrite(folder / "P01.tif", labels(dtype=np.uint32), compression="zlib", compressionargs={"level": 1})


def napari_plane(folder) -> None:
    """The labels of one plane of a stack keep its axis."""
    tifffile.imwrite(folder / "P01.tif", labels(dtype=np.int32)[None], metadata={"axes": "ZYX"})


def fiji_16_bit(folder) -> None:
    """File > Save As > Tiff: big-endian, ImageJ's description; Labkit and StarDist make 16 bit."""
    tifffile.imwrite(folder / "P01.tif", labels(), imagej=True, byteorder=">", metadata={"axes": "YX"})


def fiji_lut(folder) -> None:
    """8 bit with a LUT such as glasbey: the file has a colour map, and its pixels are the numbers of the labels."""
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(folder / "P01.tif", labels(dtype=np.uint8), colormap=colours, byteorder=">")


def fiji_mask(folder) -> None:
    """Edit > Selection > Create Mask, with an inverting LUT: 255 inside, and white is 0."""
    inside = np.where(labels() > 0, 255, 0).astype(np.uint8)
    tifffile.imwrite(folder / "P01.tif", inside, photometric="miniswhite", byteorder=">")


PROGRAMS = [qupath_pyramid, qupath_png, napari_layer, napari_plane, fiji_16_bit, fiji_lut, fiji_mask]


@pytest.mark.parametrize("write", PROGRAMS, ids=lambda write: write.__name__)
def test_label_images_as_three_programs_write_them_are_read(folder, write):
    write(folder)
    masks = from_folder(folder, SECTIONS)
    assert np.array_equal(masks.read("P01"), labels() > 0)
    windows, annotated = masks.windows(TABLE, 32)
    assert annotated.tolist() == [True, True, False], "a control without a file is not annotated"
    assert windows[0, 20, 10] == 255 and windows[0, 5, 10] == 0
    assert windows[1].min() == 255, "where next to nothing is marked all counts as relevant"


def test_a_png_and_an_empty_control_are_read(folder):
    Image.fromarray(labels(dtype=np.uint8)).save(folder / "P01.png")
    tifffile.imwrite(folder / "C01.tif", np.zeros((60, 80), np.uint8))
    masks = from_folder(folder, SECTIONS)
    assert masks.read("P01").sum() == 900 and masks.windows(TABLE, 32)[1].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("name", "image", "says"),
    [
        ("P01", labels((60, 79)), "60 x 79 px"),
        ("P01", labels((80, 60)), "Transposed it would fit"),
        ("P01", labels(dtype=np.float32), "float32; wanted whole ones"),
        ("P01", np.zeros((2, 60, 80), np.uint8), "3 axes, 2 x 60 x 80"),
        ("P01", -labels(dtype=np.int32), "nothing is marked in a patient"),
        ("P01", np.zeros((60, 80, 3), np.uint8), "an RGB picture"),
        ("P01", np.zeros((60, 80), np.uint8), "nothing is marked in a patient"),
        ("P09", labels(), "there is no section P09"),
        ("C01", labels(), "masks of controls alone"),
    ],
)
def test_masks_that_cannot_be_used_are_refused_with_the_reason(folder, name, image, says):
    tifffile.imwrite(folder / f"{name}.tif", image)
    with pytest.raises(MaskError, match=says):
        from_folder(folder, SECTIONS)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("P01.geojson", "In QuPath"), ("RoiSet.zip", "In Fiji"), ("P01.roi", "Create Mask"), ("P01.csv", "In napari")],
)
def test_outlines_are_refused_with_the_way_to_a_label_image(folder, name, remedy):
    (folder / name).write_bytes(b"{}")
    with pytest.raises(MaskError, match=f"holds outlines.*{remedy}"):
        from_folder(folder, SECTIONS)


def test_two_masks_of_a_section_and_a_file_that_is_no_picture_are_refused(folder):
    qupath_pyramid(folder)
    napari_layer(folder)
    with pytest.raises(MaskError, match="a second mask of P01"):
        from_folder(folder, SECTIONS)
    (folder / "P01.ome.tif").unlink()
    (folder / "P01.tif").write_bytes(b"no picture")
    with pytest.raises(MaskError, match="cannot be read"):
        from_folder(folder, SECTIONS)


def test_a_folder_without_masks_is_refused(folder):
    with pytest.raises(MaskError, match="no masks"):
        from_folder(folder, SECTIONS)


def test_masks_of_the_truth_mark_deficient_fibres_and_of_controls_any(tmp_path):
    (tmp_path / "truth").mkdir()
    fibres = np.zeros((60, 80), np.uint16)
    fibres[:30, :40], fibres[:30, 40:] = 1, 2
    for section in ("P01", "C01"):
        tifffile.imwrite(tmp_path / "truth" / f"{section}.tif", fibres)
    rows = [("P01", 1, "CI"), ("P01", 2, "none"), ("C01", 1, "none"), ("C01", 2, "none")]
    pd.DataFrame(rows, columns=["section", "fibre", "deficiency"]).to_csv(tmp_path / "truth/fibres.csv", index=False)
    windows, annotated = annotation.from_truth(tmp_path).windows(TABLE.assign(y=0, x=[8, 48, 40]), 32)
    assert annotated.all()
    assert (windows[0] == 255).mean() == pytest.approx(30 / 32, abs=0.01), "all but the last rows are deficient"
    assert windows[1].min() == 255, "a patient's patch without a deficient fibre has nothing to point at"
    assert windows[2, 0, 0] == 255 and windows[2, 31, 0] == 0, "in a control gaps are irrelevant"
    assert annotation.from_truth(tmp_path / "nowhere") is None
