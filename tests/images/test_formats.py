from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from mitolib import cohort
from mitolib.images import CohortError, formats, hyperion, names
from mitolib.images.tiff import PAGE_NAME
from mitolib.settings import mirrored

NAMES = ["SDHA", "NDUFB8", "Dystrophin"]
ISOTOPES = ["153Eu", "160Gd", "176Yb"]
LABELS = [f"{metal}_{name}" for metal, name in zip(ISOTOPES, NAMES, strict=True)]


def counts_cyx(dtype, shape=(3, 6, 7)) -> np.ndarray:
    """Whole counts of every size that dtype and float32 both hold."""
    top = min(np.iinfo(dtype).max if np.dtype(dtype).kind in "ui" else 2000, 2**24)
    return np.random.default_rng(0).integers(0, top + 1, shape).astype(dtype)


def same_pixels(path, expected_cyx) -> None:
    """`raw_yx` of every channel: bytes stay bytes, all else becomes float32, no value changes."""
    found = formats.channels(path)
    assert len(found) == len(expected_cyx)
    for channel, expected_yx in zip(found, expected_cyx, strict=True):
        raw_yx = channel.raw_yx()
        assert raw_yx.dtype == (np.uint8 if expected_cyx.dtype == np.uint8 else np.float32)
        assert raw_yx.shape == (channel.height_px, channel.width_px)
        np.testing.assert_array_equal(raw_yx, expected_yx)


DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3])
def test_every_kind_of_number_is_read_from_a_tiff(tmp_path, dtype, n):
    image_cyx = counts_cyx(dtype, (n, 6, 7))
    tifffile.imwrite(tmp_path / "SDHA.tif", image_cyx if n > 1 else image_cyx[0], photometric="minisblack")
    same_pixels(tmp_path / "SDHA.tif", image_cyx)


LAYOUTS = {
    "tiled": {"tile": (16, 16)},
    "strips": {"rowsperstrip": 2},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "big-endian BigTIFF, tiled, deflate": {
        **{"byteorder": ">", "bigtiff": True, "tile": (16, 16), "compression": "zlib"}
    },
    "planar": {"planarconfig": "separate"},
    "planar, compressed": {"planarconfig": "separate", "compression": "zlib"},
    **{name: {"compression": name} for name in ("lzw", "zlib", "zstd", "packbits", "lzma")},
    **{f"{name} with predictor": {"compression": name, "predictor": True} for name in ("lzw", "zlib", "zstd")},
}


@pytest.mark.parametrize("dtype", ["u1", ">u2", "f4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_tiff_is_read_to_the_same_pixels(tmp_path, layout, dtype):
    image_cyx = counts_cyx(dtype, (3, 33, 40))
    tifffile.imwrite(tmp_path / "a.tif", image_cyx, photometric="minisblack", **LAYOUTS[layout])
    same_pixels(tmp_path / "a.tif", image_cyx)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (3, 1, 1), (3, 1, 7), (3, 6, 1), (1, 6, 7)])
def test_a_narrow_picture_keeps_its_height_and_width(tmp_path, shape):
    image = counts_cyx("u2", shape)
    image_cyx = image.reshape(-1, *shape[-2:])
    write_one_page_each(tmp_path / "a.tif", image_cyx, None)
    same_pixels(tmp_path / "a.tif", image_cyx)
    write_steinbock(tmp_path / "b.tiff", image_cyx, None)
    same_pixels(tmp_path / "b.tiff", image_cyx.astype("f4"))


def write_ome(path, image_cyx, names):
    tifffile.imwrite(
        path, image_cyx, ome=True, photometric="minisblack", metadata=dict(axes="CYX", Channel={"Name": names})
    )


def write_imagej(path, image_cyx, names):
    tifffile.imwrite(path, image_cyx, imagej=True, metadata={"axes": "CYX", "Labels": names})


def write_mcd_viewer(path, image_cyx, names):
    """Names in PageName, and OME-XML in which the channels are times, as imctools #93 reports it."""
    n, height_px, width_px = image_cyx.shape
    xml = (
        f'<OME><Image><Pixels SizeX="{width_px}" SizeY="{height_px}" SizeC="1" SizeZ="1" SizeT="{n}" '
        'DimensionOrder="XYZCT" Type="float"><Channel SamplesPerPixel="1"/></Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(path) as tiff:
        for image_yx, name in zip(image_cyx, names, strict=True):
            page_name = (PAGE_NAME, "s", 0, name, True)
            tiff.write(image_yx, description=xml, metadata=None, extratags=[page_name], photometric="minisblack")
            xml = None


def write_one_page_each(path, image_cyx, names):
    """As single files, which is how most people have them."""
    with tifffile.TiffWriter(path) as tiff:
        for image_yx in image_cyx:
            tiff.write(image_yx, metadata=None, photometric="minisblack")


def write_steinbock(path, image_cyx, names):
    """steinbock.io.write_image: TZCYXS."""
    data = image_cyx.astype(np.float32)[np.newaxis, np.newaxis, :, :, :, np.newaxis]
    tifffile.imwrite(path, data=data, imagej=data.dtype in (np.uint8, np.uint16, np.float32))


def write_txt(path, image_cyx, names):
    """The layout that readimc's TXTFile wants, and the instrument's software writes."""
    _, height_px, width_px = image_cyx.shape
    y, x = (places.ravel() for places in np.mgrid[:height_px, :width_px])
    pushes = {"Start_push": 3 * x, "End_push": 3 * x + 2, "Pushes_duration": 3}
    table = pd.DataFrame({**pushes, "X": x, "Y": y, "Z": np.arange(x.size)})
    for name, image_yx in zip(names, image_cyx, strict=True):
        mass, element = name.split("_")[0][:3], name.split("_")[0][3:]
        table[f"{name}({element}{mass}Di)"] = image_yx.ravel()
    table.to_csv(path, sep="\t", index=False, float_format="%.3f")


STACKS = {  # name: (writer, file, whether it keeps the channels' names)
    "OME-TIFF": (write_ome, "a.ome.tiff", True),
    "ImageJ": (write_imagej, "a.tif", True),
    "MCD Viewer": (write_mcd_viewer, "a.ome.tiff", True),
    "Hyperion text": (write_txt, "a.txt", True),
    "pages": (write_one_page_each, "a.tif", False),
    "steinbock": (write_steinbock, "a.tiff", False),
}


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_of_every_writer_is_read_with_its_names_and_isotopes(tmp_path, stack, dtype):
    write, file_name, named = STACKS[stack]
    image_cyx = counts_cyx(dtype)
    write(tmp_path / file_name, image_cyx, LABELS)
    same_pixels(tmp_path / file_name, image_cyx.astype("f4") if stack in ("steinbock", "Hyperion text") else image_cyx)
    found = formats.channels(tmp_path / file_name)
    assert [channel.label for channel in found] == (LABELS if named else [None] * 3)
    assert [channel.metal for channel in found] == (ISOTOPES if named else [None] * 3)


@pytest.mark.parametrize("stack", STACKS)
def test_a_cohort_of_every_kind_of_stack_is_read_with_the_papers_names(tmp_path, stack):
    write, file_name, named = STACKS[stack]
    image_cyx = counts_cyx("u2")
    (tmp_path / "Patient").mkdir()
    write(tmp_path / "Patient" / file_name, image_cyx, LABELS)
    if not named:
        (tmp_path / "panel.csv").write_text("channel,name\n" + "\n".join(label.replace("_", ",") for label in LABELS))
    (section,) = cohort.read_cohort(tmp_path, ["NDUFB8", "SDHA"])
    assert section.section == "a"
    np.testing.assert_array_equal(section.raw_yx("NDUFB8"), image_cyx[1])
    np.testing.assert_array_equal(section.raw_yx("SDHA"), image_cyx[0])


def test_windows_line_ends_change_nothing_in_a_text_file(tmp_path):
    write_txt(tmp_path / "a.txt", counts_cyx("u2"), LABELS)
    text = (tmp_path / "a.txt").read_bytes()
    (tmp_path / "a.txt").write_bytes(text.replace(b"\n", b"\r\n"))
    same_pixels(tmp_path / "a.txt", counts_cyx("u2").astype("f4"))


def test_a_text_file_is_placed_by_its_coordinates_not_by_the_order_of_its_lines(tmp_path):
    write_txt(tmp_path / "a.txt", counts_cyx("u2"), LABELS)
    header, *lines = (tmp_path / "a.txt").read_text().splitlines()
    (tmp_path / "a.txt").write_text("\n".join([header, *reversed(lines), ""]))
    same_pixels(tmp_path / "a.txt", counts_cyx("u2").astype("f4"))


PICTURES = {  # name: (mode, dtype, file)
    "8-bit PNG": ("L", "u1", "SDHA.png"),
    "16-bit PNG": ("I;16", "u2", "SDHA.png"),
    "grey in a colour PNG": ("RGB", "u1", "SDHA.png"),
    "grey with transparency": ("RGBA", "u1", "SDHA.png"),
    "grey in a palette": ("P", "u1", "SDHA.PNG"),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_a_png_keeps_its_greys(tmp_path, picture):
    mode, dtype, file_name = PICTURES[picture]
    image_yx = counts_cyx(dtype, (6, 7))
    image = Image.fromarray(image_yx)
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / file_name)
    same_pixels(tmp_path / file_name, image_yx[None].astype(dtype))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_a_grey_jpeg_is_read_as_any_viewer_shows_it(tmp_path, mode, suffix):
    image = Image.fromarray(counts_cyx("u1", (16, 16)))
    image.convert(mode).save(tmp_path / f"SDHA{suffix}")
    shown_yx = np.asarray(Image.open(tmp_path / f"SDHA{suffix}").convert("L"))
    same_pixels(tmp_path / f"SDHA{suffix}", shown_yx[None])


@pytest.mark.parametrize(
    ("file_name", "label", "metal"),
    [
        ("160Gd_NDUFB8.ome.tiff", "160Gd_NDUFB8", "160Gd"),
        ("160Gd_NDUFB8.OME.TIF", "160Gd_NDUFB8", "160Gd"),
        ("153Eu_153Eu SDHA.tif", "153Eu_153Eu SDHA", "153Eu"),
        ("NDUFB8(Gd160).tiff", "NDUFB8(Gd160)", "160Gd"),
        ("NDUFB8(Gd160Di).tiff", "NDUFB8(Gd160Di)", "160Gd"),
        ("Gd160-NDUFB8.tif", "Gd160-NDUFB8", "160Gd"),
        ("COX4+4L2.tif", "COX4+4L2", None),
        ("Cd163.tif", "Cd163", None),
    ],
)
def test_one_page_is_named_by_its_file(tmp_path, file_name, label, metal):
    tifffile.imwrite(tmp_path / file_name, counts_cyx("u1", (6, 7)))
    (channel,) = formats.channels(tmp_path / file_name)
    assert (channel.label, channel.metal) == (label, metal)


METALS = {
    **{
        "Gd160": "160Gd",
        "160Gd": "160Gd",
        "Sm147Di": "147Sm",
        "ArAr80": "80ArAr",
        "80ArAr": "80ArAr",
        "Ir191": "191Ir",
    },
    **dict.fromkeys(["Cd163", "Cd45", "CD112", "Y1", "In35", "gd160", "Gd", "160", "Xx150", "Gd999", ""]),
}


@pytest.mark.parametrize("text", METALS)
def test_an_isotope_is_an_element_with_one_of_its_masses(text):
    assert names.metal(text) == METALS[text]


def test_a_label_of_imagej_or_ome_that_does_not_count_the_channels_is_not_believed(tmp_path):
    write_ome(tmp_path / "a.tif", counts_cyx("u1"), LABELS)
    raw = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(raw.replace(b' Name="153Eu', b' Neam="153Eu', 1))
    assert [channel.label for channel in formats.channels(tmp_path / "a.tif")] == [None] * 3


def test_pixels_read_are_the_callers_own(tmp_path):
    write_txt(tmp_path / "a.txt", counts_cyx("u2"), LABELS)
    channel = formats.channels(tmp_path / "a.txt")[0]
    channel.raw_yx()[:] = 0
    np.testing.assert_array_equal(channel.raw_yx(), counts_cyx("u2")[0])


@pytest.mark.parametrize(
    ("file_name", "text", "is_picture"),
    [
        ("a.tif", "", True),
        ("a.MCD", "", True),
        ("notes.txt", "Scanned on Monday.\n", False),
        ("a.txt", "Start_push\tEnd_push\n", True),
        ("a.txt", "Start_pu", True),
        ("a.txt", "", True),
        ("a.txt", "\0\0\0", True),
        ("a.csv", "", False),
        ("Thumbs.db", "", False),
    ],
)
def test_a_text_file_is_a_picture_unless_it_is_a_note(tmp_path, file_name, text, is_picture):
    (tmp_path / file_name).write_text(text)
    assert formats.is_picture(tmp_path / file_name) == is_picture


# The real acquisition of 60 x 60 px, in three formats.

FILES = ("mockData1.mcd", "mockData1_ROI_001_1.txt", "mockData1_s0_a1_ac.ome.tiff")
TARGETS = ["Laminin", "H3K27Ac", "Cytokeratin 5", "YBX1", "Ag107"]  # as its panel.csv has them


@pytest.fixture
def real():
    mirrored_mcd = mirrored(FILES[0])
    if mirrored_mcd is None:
        pytest.skip(f"{FILES[0]} is not below MITOLIB_MIRROR; get it from github.com/BodenmillerGroup/TestData")
    return mirrored_mcd.parent


def real_cohort(tmp_path, real, file_name):
    (tmp_path / "Control").mkdir()
    (tmp_path / "Control" / file_name).write_bytes((real / file_name).read_bytes())
    (tmp_path / "panel.csv").write_bytes((real / "panel.csv").read_bytes())
    return cohort.read_cohort(tmp_path, TARGETS)


def test_a_real_acquisition_reads_the_same_through_all_three_formats(tmp_path, real):
    mcd, txt, ome = (real_cohort(tmp_path / name, real, name) for name in FILES if not (tmp_path / name).mkdir())
    assert [(s.section, s.height_px, s.width_px) for s in mcd] == [
        ("mockData1_001", 60, 60),
        ("mockData1_002", 51, 64),
        ("mockData1_003", 43, 50),
    ]
    assert [s.section for s in (*txt, *ome)] == ["mockData1_ROI_001_1", "mockData1_s0_a1_ac"]
    for target in TARGETS:
        counts_yx = mcd[0].raw_yx(target)
        assert counts_yx.max() > 0
        np.testing.assert_array_equal(ome[0].raw_yx(target), counts_yx)
        np.testing.assert_allclose(txt[0].raw_yx(target), counts_yx, atol=6e-4)  # three decimals
        np.testing.assert_array_equal(ome[0].image_yx(target), mcd[0].image_yx(target))
    with tifffile.TiffFile(real / FILES[2]) as tiff:  # not by way of this package
        np.testing.assert_array_equal(mcd[0].raw_yx("Laminin"), tiff.pages[2].asarray())


def test_a_file_and_its_export_side_by_side_are_not_two_sections(tmp_path, real):
    real_cohort(tmp_path, real, FILES[0])
    with pytest.raises(CohortError, match=r"ROI_001_1\.txt: .*exported from mockData1\.mcd"):
        (tmp_path / "Control" / FILES[1]).write_bytes((real / FILES[1]).read_bytes())
        cohort.read_cohort(tmp_path, TARGETS)


def spoilt_mcd(tmp_path, real, change):
    path = tmp_path / "a.mcd"
    path.write_bytes(change((real / FILES[0]).read_bytes()))
    return path


def in_tables(old, new):
    """One change in the tables of an .mcd, which are UTF-16, without moving a byte behind it."""
    assert len(old) == len(new)
    return lambda raw: raw.replace(old.encode("utf-16-le"), new.encode("utf-16-le"), 1)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda raw: raw[: len(raw) // 2], "start of XML document"),
        (lambda raw: raw[: raw.rindex("</MCDSchema>".encode("utf-16-le"))], "end of XML document"),
    ],
)
def test_a_spoilt_mcd_is_refused_before_a_pixel_is_read(tmp_path, real, change, finding):
    path = spoilt_mcd(tmp_path, real, change)
    with pytest.raises(CohortError, match=rf"a\.mcd: cannot be read .*{finding}"):
        formats.channels(path)


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("<MaxX>60<", "<MaxX>99<", "acquisition 1 holds 3600 of its 5940 pixels: it was broken off"),
        ("<MaxX>60<", "<MaxX>-1<", "acquisition 1 has no MaxX"),
        ("<ValueBytes>4<", "<ValueBytes>8<", "acquisition 1 has values of 8 bytes"),
        ("<AcquisitionROIID>1<", "<AcquisitionROIID>7<", "1 acquisitions belong to no slide"),
    ],
)
def test_a_spoilt_acquisition_is_left_out_and_named_and_the_others_are_read(tmp_path, real, old, new, finding):
    found = formats.contents(spoilt_mcd(tmp_path, real, in_tables(old, new)))
    assert any(finding in reason for reason in found.left_out), found.left_out
    assert {channel.acquisition for channel in found.channels} == {2, 3} and found.n_acquisitions == 3


@pytest.mark.parametrize(
    ("reader", "file_name", "content"),
    [
        (hyperion.TXTFile, "a.txt", b"Start_push\tEnd_push\tPushes_duration\tX\tY\tarea\n0\t1\t1\t0\t0\t0\n"),
        (hyperion.MCDFile, "a.mcd", b"no tables"),
    ],
)
def test_a_file_refused_while_it_is_opened_is_closed(tmp_path, monkeypatch, reader, file_name, content):
    closed = []
    monkeypatch.setattr(reader, "close", lambda self: closed.append(self._fh) or self._fh.close())
    (tmp_path / file_name).write_bytes(content)
    with pytest.raises(CohortError, match=rf"{file_name}: cannot be read"):
        formats.channels(tmp_path / file_name)
    assert len(closed) == 1 and closed[0].closed


@pytest.mark.parametrize("place", [-1.0, 59.0, 60.0, np.nan, 1e30])
def test_a_pixel_of_an_mcd_that_lies_elsewhere_is_refused(tmp_path, real, place):
    def change(raw):
        start = hyperion._acquisitions(real / FILES[0])[0][0].metadata["DataStartOffset"]
        return raw[: int(start)] + np.float32(place).tobytes() + raw[int(start) + 4 :]

    channel = formats.channels(spoilt_mcd(tmp_path, real, change))[0]
    with pytest.raises(CohortError, match=r"a\.mcd: .*pixels (lie outside|are missing)"):
        channel.raw_yx()
