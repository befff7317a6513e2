"""What a file stores is not always what it means: each file is read to the values that it defines, or refused.

Each table holds what people hand over; the values wanted are worked out here, from what was written.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import sections
import tifffile
from PIL import Image
from sections import counts, greys, ome_xml, plane, write

from mitolib.cohort import survey
from mitolib.images import CohortError
from mitolib.images.formats import channels

COUNTS = counts(1)
BYTES = greys(1)


def values(path) -> dict[str | None, np.ndarray]:
    """Label -> values of every channel of a file."""
    return {channel.label: channel.raw_yx() for channel in channels(path)}


def imagej(path, stored: np.ndarray, *entries: str) -> None:
    write(path, stored, description="\n".join(["ImageJ=1.54f", "min=0.0", "max=255.0", *entries, ""]), byteorder=">")


# ImageJ's calibration: what is stored, what the description says, what the values are

IMAGEJ = {
    "signed 16 bit": ((COUNTS + 32768).astype(">u2"), ("cf=0", "c0=-32768.0", "c1=1.0", "vunit=Gray Value"), COUNTS),
    "signed 16 bit, written by an old version": ((COUNTS + 32768).astype(">u2"), ("c0=-32768", "c1=1"), COUNTS),
    "8 bit with an offset": (BYTES, ("cf=0", "c0=100.0", "c1=1.0"), BYTES + 100.0),
    "8 bit with a factor": (BYTES, ("cf=0", "c0=0.0", "c1=2.5"), BYTES * 2.5),
    "16 bit with a fraction": ((COUNTS * 100).astype(">u2"), ("c0=0", "c1=0.01", "vunit=counts"), COUNTS),
    "a falling line": (BYTES, ("cf=0", "c0=255.0", "c1=-1.0"), 255.0 - BYTES),
    "without a calibration": (COUNTS.astype(">u2"), (), COUNTS),
    "calibrated by none": (COUNTS.astype(">u2"), ("cf=20",), COUNTS),
    "only the unit": (BYTES, ("vunit=Gray Value",), BYTES),
}


@pytest.mark.parametrize("case", IMAGEJ)
def test_a_calibration_of_imagej_is_applied(tmp_path, case):
    stored, entries, wanted = IMAGEJ[case]
    imagej(tmp_path / "SDHA.tif", stored, *entries)
    (found,) = values(tmp_path / "SDHA.tif").values()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


NOT_CALIBRATED = {
    "a polynomial": (BYTES, ("cf=1", "c0=0.0", "c1=1.0", "c2=0.001"), "function 1,"),
    "a gamma curve": (BYTES, ("cf=7", "c0=1", "c1=2", "c2=3", "c3=4"), "function 7"),
    "optical density": (BYTES, ("cf=21",), "function 21"),
    "a line of words": (BYTES, ("cf=0", "c0=zero", "c1=one"), "calibration of it is .*zero"),
    "negative values": (np.full_like(BYTES, 7), ("cf=0", "c0=-100.0", "c1=1.0"), "counts down to -93"),
    "not a number": (BYTES, ("c0=NaN", "c1=1"), "not finite"),
    "of fractions": (COUNTS, ("cf=0", "c0=-32768.0", "c1=1.0"), "numbers with fractions.*Remove"),
}


@pytest.mark.parametrize("case", NOT_CALIBRATED)
def test_a_calibration_that_cannot_be_applied_is_refused(tmp_path, case):
    stored, entries, finding = NOT_CALIBRATED[case]
    imagej(tmp_path / "SDHA.tif", stored, *entries)
    with pytest.raises(CohortError, match=rf"SDHA\.tif: .*{finding}"):
        values(tmp_path / "SDHA.tif")


OFFSET = {  # nothing in the file says it
    "microscope": (COUNTS + 32768).astype("u2"),
    "of counts with some below 0": (COUNTS - 15 + 32768).astype("u2"),
    "saved as 32 bit": COUNTS + 32768,
    "as whole numbers": (COUNTS + 32768).astype("i4"),
    "with a dead pixel": np.where(np.arange(COUNTS.size).reshape(COUNTS.shape) == 5, 1, COUNTS + 32768).astype("u2"),
    "bright": (COUNTS * 150 + 32768).astype("u2"),
}


@pytest.mark.parametrize("case", OFFSET)
def test_an_offset_of_which_nothing_is_said_is_refused_and_its_remedy_helps(tmp_path, case):
    write(tmp_path / "SDHA.tif", OFFSET[case])
    with pytest.raises(CohortError, match=r"SDHA\.tif: .*32768 was added.*Subtract 32768"):
        values(tmp_path / "SDHA.tif")
    write(tmp_path / "SDHA.tif", np.clip(OFFSET[case].astype(float) - 32768, 0, None).astype("u2"))
    assert values(tmp_path / "SDHA.tif")["SDHA"].max() < 32768


@pytest.mark.parametrize(
    "stored",
    [
        np.random.default_rng(0).integers(0, 65536, (40, 50)).astype("u2"),
        np.random.default_rng(0).integers(20_000, 65536, (40, 50)).astype("u2"),
        np.where(greys(3) > 30, 65535, 40).astype("u2"),
        (counts(3) * 4000).astype("f4"),
    ],
    ids=["whole range", "bright", "saturated", "large"],
)
def test_bright_pictures_are_taken_for_what_they_are(tmp_path, stored):
    write(tmp_path / "SDHA.tif", stored)
    np.testing.assert_array_equal(values(tmp_path / "SDHA.tif")["SDHA"], stored)


# Colours, palettes, planes of another use, turned pictures

RAMP = (np.arange(256) * 257).astype("u2")
THREE = np.stack([BYTES, greys(2), greys(3)])


def in_palette(*red_green_blue: np.ndarray) -> dict[str, object]:
    return {"data": BYTES, "photometric": "palette", "colormap": np.stack(red_green_blue).astype("u2")}


TIFFS = {
    "a green palette": (in_palette(0 * RAMP, RAMP, 0 * RAMP), "palette.*Give it a grey palette"),
    "a yellow palette": (in_palette(RAMP, RAMP, 0 * RAMP), "palette"),
    "an inverted palette": (in_palette(*[RAMP[::-1]] * 3), "palette"),
    "a palette of contrast": (in_palette(*[np.minimum(RAMP, 6000) * 10] * 3), "palette"),
    "a palette of labels": (in_palette(*[np.random.default_rng(0).permutation(RAMP)] * 3), "palette"),
    "0 is white": ({"data": BYTES, "photometric": "miniswhite"}, "0 is white.*0 as black"),
    "planes of colour": ({"data": THREE, "photometric": "rgb", "planarconfig": "separate"}, "a colour picture"),
    "pixels of colour": ({"data": np.moveaxis(THREE, 0, -1), "photometric": "rgb"}, "a colour picture"),
    "inks": ({"data": np.dstack([*THREE, BYTES]), "photometric": "separated"}, "a colour picture"),
    "planes of ink": ({"data": np.stack([*THREE, BYTES]), "photometric": "separated", "planarconfig": 2}, "a colour"),
    "grey and transparency": ({"data": np.dstack([BYTES, BYTES]), "extrasamples": ["unassalpha"]}, "a colour picture"),
    "planes of grey and transparency": (
        {"data": np.stack([BYTES, BYTES]), "planarconfig": "separate", "extrasamples": ["unassalpha"]},
        "transparency.*Export it without",
    ),
    "the logarithm of light": ({"data": BYTES, "photometric": 32844}, "none .LOGL"),
    "a mask": ({"data": BYTES, "photometric": "mask"}, "none .MASK"),
    "mirrored": ({"data": BYTES, "extratags": [(274, "H", 1, 2, True)]}, r"turned or mirrored .Orientation 2.*Save it"),
    "upside down": ({"data": BYTES, "extratags": [(274, "H", 1, 3, True)]}, "Orientation 3"),
    "on its side": ({"data": BYTES, "extratags": [(274, "H", 1, 6, True)]}, "Orientation 6"),
}


@pytest.mark.parametrize("case", TIFFS)
def test_a_tiff_whose_numbers_are_no_greys_is_refused(tmp_path, case):
    options, finding = TIFFS[case]
    tifffile.imwrite(tmp_path / "SDHA.tif", **({"photometric": "minisblack", "metadata": None} | options))
    with pytest.raises(CohortError, match=rf"SDHA\.tif: .*{finding}"):
        values(tmp_path / "SDHA.tif")


GREY_TIFFS = {
    "a grey palette": {"photometric": "palette", "colormap": np.stack([RAMP] * 3)},
    "ImageJ's grey palette": {"photometric": "palette", "colormap": np.stack([(RAMP // 257 * 256)] * 3)},
    "upright": {"extratags": [(274, "H", 1, 1, True)]},
    "no word on what is up": {"extratags": [(274, "H", 1, 0, True)]},
    "tiles": {"tile": (16, 16)},
}


@pytest.mark.parametrize("case", GREY_TIFFS)
def test_a_grey_tiff_is_read_as_it_is(tmp_path, case):
    tifffile.imwrite(
        tmp_path / "SDHA.tif", BYTES, **({"photometric": "minisblack", "metadata": None} | GREY_TIFFS[case])
    )
    np.testing.assert_array_equal(values(tmp_path / "SDHA.tif")["SDHA"], BYTES)


def png(depth: int, colour: int, rows: bytes, *after: tuple[bytes, bytes]) -> bytes:
    """A PNG of the tests' size from its rows; `after` are chunks behind the pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 50, 40, depth, colour, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [*chunks, *after, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def rows(image: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in image)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def palette(image: np.ndarray, colours: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image).convert("P")
    picture.putdata(image.ravel().tolist())
    picture.putpalette(colours.astype("u1").ravel().tolist())
    return picture


GREY = Image.fromarray(BYTES)
WIDE = (np.arange(2000).reshape(40, 50) * 20).astype(">u2")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
EXIF_6 = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
PICTURES = {
    "a coloured palette": ("SDHA.png", saved(palette(BYTES, np.eye(3)[[0, 1, 2]] * 200), "PNG"), "a colour picture"),
    "16 bits and transparency": ("SDHA.png", png(16, 4, rows(np.dstack([WIDE, WIDE]))), "16 bits with colour or tr"),
    "16 bits in three colours": ("SDHA.png", png(16, 2, rows(np.dstack([WIDE] * 3))), "16 bits with colour"),
    "several pictures": (
        "SDHA.png",
        saved(GREY, "PNG", save_all=True, append_images=[Image.fromarray(greys(5))]),
        "holds 2 pictures.*Export each",
    ),
    "parts are transparent": (
        "SDHA.png",
        saved(Image.fromarray(np.dstack([BYTES, BYTES]), "LA"), "PNG"),
        "transparent",
    ),
    "turned": ("SDHA.png", saved(GREY, "PNG", exif=with_exif(6)), "Orientation 6"),
    "turned, said behind the pixels": ("SDHA.png", png(8, 0, rows(BYTES), (b"eXIf", EXIF_6)), "Orientation 6"),
    "a mirrored JPEG": ("SDHA.jpg", saved(GREY, "JPEG", exif=with_exif(2)), "Orientation 2"),
    "a JPEG on its side": ("SDHA.jpeg", saved(GREY, "JPEG", exif=with_exif(8)), "Orientation 8"),
    "a JPEG turned by its XMP": ("SDHA.jpg", saved(GREY, "JPEG", xmp=XMP), "Orientation 6"),
    "a JPEG of inks": ("SDHA.jpg", saved(GREY.convert("CMYK"), "JPEG"), "a colour picture .CMYK"),
    "black and white": ("SDHA.png", saved(GREY.convert("1"), "PNG"), "black and white"),
}


@pytest.mark.parametrize("case", PICTURES)
def test_a_png_or_jpeg_whose_numbers_are_not_the_values_is_refused(tmp_path, case):
    name, content, finding = PICTURES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CohortError, match=rf"SDHA\.\w+: .*{finding}"):
        values(tmp_path / name)


GREY_PICTURES = {
    "16 bits": (png(16, 0, rows(WIDE)), WIDE),
    "a grey palette": (saved(palette(BYTES, np.stack([np.arange(256)] * 3, -1)), "PNG"), BYTES),
    "a palette that inverts": (saved(palette(BYTES, np.stack([np.arange(255, -1, -1)] * 3, -1)), "PNG"), 255 - BYTES),
    "grey, all of it opaque": (saved(Image.merge("LA", (GREY, Image.new("L", GREY.size, 255))), "PNG"), BYTES),
    "three equal colours": (saved(Image.merge("RGB", [GREY] * 3), "PNG"), BYTES),
    "upright": (saved(GREY, "PNG", exif=with_exif(1)), BYTES),
}


@pytest.mark.parametrize("case", GREY_PICTURES)
def test_a_grey_png_is_read_as_any_viewer_shows_it(tmp_path, case):
    content, wanted = GREY_PICTURES[case]
    (tmp_path / "SDHA.png").write_bytes(content)
    np.testing.assert_array_equal(values(tmp_path / "SDHA.png")["SDHA"], wanted)


# OME-XML: which page is which channel

NAMES = ("SDHA", "COX4", "VDAC1")
IMAGES = [counts(seed, level) for seed, level in ((1, 10), (2, 50), (3, 200))]
ORDERS = {  # the pages of SDHA, COX4, VDAC1
    "no word": (ome_xml(NAMES), (0, 1, 2)),
    "one block": (ome_xml(NAMES, "<TiffData/>"), (0, 1, 2)),
    "one block, counted": (ome_xml(NAMES, '<TiffData IFD="0" PlaneCount="3"/>'), (0, 1, 2)),
    "plane by plane": (ome_xml(NAMES, plane(0, 0) + plane(1, 1) + plane(2, 2)), (0, 1, 2)),
    "backwards": (ome_xml(NAMES, plane(0, 2) + plane(1, 1) + plane(2, 0)), (2, 1, 0)),
    "turned by one": (ome_xml(NAMES, plane(2, 0) + plane(0, 1) + plane(1, 2)), (2, 0, 1)),
    "elements in another order": (ome_xml(NAMES, plane(2, 2) + plane(0, 0) + plane(1, 1)), (0, 1, 2)),
    "two blocks": (
        ome_xml(NAMES, '<TiffData FirstC="1" IFD="0" PlaneCount="2"/><TiffData FirstC="0" IFD="2"/>'),
        (2, 0, 1),
    ),
    "planes of Z first": (ome_xml(NAMES, plane(1, 0) + plane(0, 1) + plane(2, 2), order="XYZCT"), (1, 0, 2)),
    "times first": (ome_xml(NAMES, plane(1, 0) + plane(0, 1) + plane(2, 2), order="XYTCZ"), (1, 0, 2)),
    "renamed since": (ome_xml(NAMES, "".join(plane(i, i, file_name="raw_001.ome.tif") for i in range(3))), (0, 1, 2)),
    "without a number of channels": (
        ome_xml(NAMES, plane(0, 2) + plane(1, 1) + plane(2, 0)).replace(' SizeC="3"', ""),
        (2, 1, 0),
    ),
}


@pytest.mark.parametrize("case", ORDERS)
def test_planes_are_named_as_ome_says(tmp_path, case):
    xml, order = ORDERS[case]
    sections.pages(tmp_path / "a.ome.tiff", IMAGES, xml)
    found = values(tmp_path / "a.ome.tiff")
    assert list(found) == list(NAMES)
    for name, page in zip(NAMES, order, strict=True):
        np.testing.assert_array_equal(found[name], IMAGES[page])
    # Whatever tifffile itself understands, it understands in the same way.
    if case not in ("renamed since", "without a number of channels", "no word"):
        with tifffile.TiffFile(tmp_path / "a.ome.tiff") as tiff:
            np.testing.assert_array_equal(tiff.asarray(), [found[name] for name in NAMES])


TWO_PICTURES = ome_xml(NAMES, more='<Image ID="Image:1"><Pixels ID="Pixels:1" SizeC="1"/></Image>')
CONTRADICTED = {
    "a depth": (ome_xml(("SDHA",), sizes={"Z": 3}), "3 planes in Z or time.*Export one plane"),
    "times": (ome_xml(("SDHA",), sizes={"T": 3}), "3 planes in Z or time"),
    "a depth and an order": (ome_xml(("SDHA",), plane(0, z=2) + plane(1, z=1) + plane(2), sizes={"Z": 3}), "3 planes"),
    "more channels than pages": (ome_xml((*NAMES, "OSCP")), "describes 4 planes, the file has 3"),
    "fewer channels than pages": (ome_xml(NAMES[:2]), "describes 2 planes, the file has 3"),
    "a depth that is not there": (ome_xml(NAMES, sizes={"Z": 2}), "describes 6 planes, the file has 3"),
    "several pictures": (TWO_PICTURES, "describes 2 pictures.*Save each"),
    "files of a set": (
        ome_xml(NAMES, "".join(plane(0, i, file_name=f"c{i}.ome.tif") for i in range(3))),
        r"planes lie in c0\.ome\.tif, c1\.ome\.tif",
    ),
    "a page for two channels": (ome_xml(NAMES, plane(0, 0) + plane(0, 1) + plane(1, 2)), "wanted each once"),
    "a channel without a page": (ome_xml(NAMES, plane(0, 0) + plane(1, 1)), "pages 0, 1, None; wanted each once"),
    "a page beyond the last": (ome_xml(NAMES, plane(0, 0) + plane(1, 1) + plane(7, 2)), "wanted each once"),
    "another width": (ome_xml(NAMES, shape=(40, 51)), r"says 40 x 51 px .*its header 40 x 50"),
    "height for width": (ome_xml(NAMES, shape=(50, 40)), "says 50 x 40 px"),
    "signed for unsigned": (ome_xml(NAMES, kind="int16"), "says int16, its header uint16"),
    "fewer bits": (ome_xml(NAMES, kind="uint8"), "says uint8, its header uint16"),
}


@pytest.mark.parametrize("case", CONTRADICTED)
def test_a_file_that_contradicts_its_own_description_is_refused(tmp_path, case):
    xml, finding = CONTRADICTED[case]
    sections.pages(tmp_path / "a.ome.tiff", [image.astype("u2") for image in IMAGES], xml)
    with pytest.raises(CohortError, match=rf"a\.ome\.tiff: cannot be read .*{finding}"):
        values(tmp_path / "a.ome.tiff")


def test_a_stack_on_one_page_is_not_put_into_another_order(tmp_path):
    xml = ome_xml(NAMES, plane(0, 2) + plane(1, 1) + plane(2, 0), kind="uint16")
    write(tmp_path / "a.ome.tif", np.stack(IMAGES).astype("u2"), description=xml, planarconfig="separate")
    with pytest.raises(CohortError, match="another order of pages, and it has one page"):
        values(tmp_path / "a.ome.tif")


# Names: of the file, of its pages, in its OME-XML, of ImageJ

ALIKE = {
    "pages and OME": (("153Eu_SDHA", "168Er_COX4"), ome_xml(("SDHA", "Cox4")), ("153Eu_SDHA", "168Er_COX4")),
    "pages, and OME counts times": (NAMES[:2], ome_xml((None,), sizes={"T": 2}), NAMES[:2]),
    "pages, and OME with other words": (NAMES[:2], ome_xml(("channel 1", "channel 2")), NAMES[:2]),
    "OME alone": ((), ome_xml(("CD3", "CD8")), ("CD3", "CD8")),
    "pages in the order that OME gives": (("COX4", "SDHA"), ome_xml(NAMES[:2], plane(0, 1) + plane(1, 0)), NAMES[:2]),
}


@pytest.mark.parametrize("case", ALIKE)
def test_names_from_two_sources_agree(tmp_path, case):
    names, xml, wanted = ALIKE[case]
    sections.pages(tmp_path / "a.ome.tiff", IMAGES[:2], xml, names)
    assert list(values(tmp_path / "a.ome.tiff")) == list(wanted)


OTHERWISE = {
    "two proteins": (("SDHA", "COX4"), ome_xml(("SDHA", "VDAC1")), "channel COX4, .*OME-XML .*VDAC1"),
    "swapped": (("SDHA", "COX4"), ome_xml(("COX4", "SDHA")), "channel SDHA, .*OME-XML .*COX4"),
    "swapped, none of the ten": (
        ("CD3", "CD8"),
        ome_xml(("CD8", "CD3")),
        "channel CD3, .*OME-XML .*CD8",
    ),
    "other spellings, swapped": (("TOMM20", "mt-co1"), ome_xml(("MTCO1", "TOM22")), "call a channel TOMM20"),
    "turned by one": (("CD3", "CD8", "CD4"), ome_xml(("CD4", "CD3", "CD8")), "call a channel CD3"),
    "the order that OME gives, forgotten": (NAMES[:2], ome_xml(NAMES[:2], plane(0, 1) + plane(1, 0)), "call a channel"),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_names_from_two_sources_that_disagree_are_refused(tmp_path, case):
    names, xml, finding = OTHERWISE[case]
    sections.pages(tmp_path / "a.ome.tiff", IMAGES[: len(names)], xml, names)
    with pytest.raises(CohortError, match=rf"a\.ome\.tiff: .*{finding}.*one name"):
        values(tmp_path / "a.ome.tiff")


IMAGEJ_LABELS = {
    "names": ["SDHA", "COX4"],
    "files of a sequence": ["SDHA.tif", "COX4.tif"],
    "as Bio-Formats opens them": ["c:1/2 - SDHA", "c:2/2 - COX4"],
    "with what ImageJ knows of the file": ["153Eu_SDHA\nwidth: 50", "168Er_COX4\nwidth: 50"],
    "lower case": ["sdha", "cox4"],
}


@pytest.mark.parametrize("case", IMAGEJ_LABELS)
def test_labels_of_imagej_name_its_slices(tmp_path, case):
    (tmp_path / "Control").mkdir()
    options = {"imagej": True, "metadata": {"axes": "CYX", "Labels": IMAGEJ_LABELS[case]}}
    tifffile.imwrite(tmp_path / "Control" / "a.tif", np.stack(IMAGES[:2]), **options)
    found = survey(tmp_path, ["COX4", "SDHA"])
    assert not found.problems
    np.testing.assert_array_equal(found.sections[0].raw_yx("COX4"), IMAGES[1])


INSIDE = {  # the file SDHA.tif (or 153Eu_SDHA.tif), and what it says of itself
    "another protein, by OME": ("SDHA.tif", ome_xml(("COX4",)), ()),
    "another protein, by its page": ("SDHA.tif", None, ("168Er_COX4",)),
    "another spelling of another protein": ("SDHA.tif", ome_xml(("mt-CO1",)), ()),
    "another isotope": ("153Eu_SDHA.tif", None, ("176Yb_Desmin",)),
    "its page, where OME has other words": ("SDHA.tif", ome_xml(("Channel 0",)), ("COX4",)),
    "OME, where its page has other words": ("SDHA.tif", ome_xml(("COX4",)), ("page 1",)),
}


@pytest.mark.parametrize("case", INSIDE)
def test_a_file_that_calls_itself_another_protein_is_refused_until_it_is_renamed(tmp_path, case):
    name, xml, names = INSIDE[case]
    root = sections.cohort(tmp_path)
    (root / "Patient/P01/SDHA.tif").unlink()
    sections.pages(root / "Patient/P01" / name, [COUNTS], xml, names)
    found = sections.check(root, ["SDHA"])
    assert found.has(name, "its own description says", "Rename"), found.problems
    sections.pages(root / "Patient/P01" / name, [COUNTS], ome_xml(("SDHA",)), ("SDHA",))  # exported again
    assert sections.check(root, ["SDHA"]).is_clean


@pytest.mark.parametrize("xml", [None, ome_xml(("SDHA",)), ome_xml(("Image 1",)), ome_xml((None,)), ome_xml(("CD3",))])
def test_what_a_single_picture_calls_itself_harms_nothing_where_it_contradicts_nothing(tmp_path, xml):
    root = sections.cohort(tmp_path)
    sections.pages(root / "Patient/P01/SDHA.tif", [COUNTS], xml)
    assert sections.check(root, ["SDHA"]).is_clean
    # A file that is a section by itself has no other name for its protein.
    sections.pages(root / "Patient/P03.ome.tif", [counts(33)], ome_xml(("SDHA",)))
    assert sections.check(root, ["SDHA"]).is_clean


# What real programs write


def as_xtiff(names) -> str:
    """imctools and steinbock export OME-TIFF by xtiff."""
    channels = "".join(
        f'<Channel ID="Channel:0:{i}" SamplesPerPixel="1" Name="{name}" Fluor="Eu{151 + i}" />'
        for i, name in enumerate(names)
    )
    return (
        "<?xml version='1.0' encoding='utf-8'?>\n"
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" Creator="IMC Segmentation Pipeline">'
        '<Image ID="Image:0" Name="a.ome.tiff"><Pixels ID="Pixels:0" Type="float" SizeX="50" SizeY="40" SizeC="3" '
        'SizeZ="1" SizeT="1" DimensionOrder="XYCZT" Interleaved="true" BigEndian="false">'
        f"{channels}<TiffData /></Pixels></Image><StructuredAnnotations><XMLAnnotation ID='Annotation:0'><Value>"
        "<OriginalMetadata><Key>MCD-XML</Key><Value>&lt;MCDSchema&gt;</Value></OriginalMetadata></Value>"
        "</XMLAnnotation></StructuredAnnotations></OME>"
    )


def as_mcd_viewer(names) -> str:
    return ome_xml((None,), sizes={"T": len(names)}, order="XYZCT")


def as_bio_formats(names) -> str:
    planes = "".join(plane(i, i, file_name="Slide 1 (ROI_001).ome.tif") for i in range(len(names)))
    comment = "<!-- Warning: this comment is an OME-XML metadata block, which contains crucial parameters. -->"
    return ome_xml(names, planes).replace('<?xml version="1.0"?>', f'<?xml version="1.0" encoding="UTF-8"?>{comment}')


WRITERS = {
    "imctools and steinbock, OME": (lambda p: sections.pages(p, IMAGES, as_xtiff(NAMES)), "a.ome.tiff"),
    "MCD Viewer": (lambda p: sections.pages(p, IMAGES, as_mcd_viewer(NAMES), NAMES), "a.ome.tiff"),
    "MCD Viewer without OME": (lambda p: sections.pages(p, IMAGES, None, NAMES), "a.tiff"),
    "Bio-Formats and QuPath": (lambda p: sections.pages(p, IMAGES, as_bio_formats(NAMES)), "a.ome.tif"),
    "tifffile": (
        lambda p: tifffile.imwrite(p, np.stack(IMAGES), metadata={"axes": "CYX", "Channel": {"Name": list(NAMES)}}),
        "a.ome.tif",
    ),
    "the instrument, .mcd": (lambda p: sections.mcd(p, sections.Region(np.stack(IMAGES), NAMES)), "a.mcd"),
    "the instrument, .txt": (lambda p: sections.text_export(p, np.stack(IMAGES), NAMES), "a.txt"),
}


@pytest.mark.parametrize("case", WRITERS)
def test_what_the_fields_programs_write_is_read_with_its_names(tmp_path, case):
    write_file, name = WRITERS[case]
    (tmp_path / "Control").mkdir()
    write_file(tmp_path / "Control" / name)
    found = survey(tmp_path, list(NAMES))
    assert not found.problems
    for protein, image_yx in zip(NAMES, IMAGES, strict=True):
        np.testing.assert_array_equal(found.sections[0].raw_yx(protein), image_yx)


def test_steinbocks_folder_of_pictures_is_read_by_its_panel(tmp_path):
    for name in ("C01_001", "P01_001"):
        data = np.stack(IMAGES)[np.newaxis, np.newaxis, :, :, :, np.newaxis]
        (tmp_path / "img").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "img" / f"{name}.tiff", data, imagej=True)
    (tmp_path / "img/images.csv").write_text("image,width_px,height_px\n")
    (tmp_path / "panel.csv").write_text("channel,name,keep\nEu151,SDHA,1\nY89,,0\nEu152,COX4,1\nEu153,VDAC1,1\n")
    (tmp_path / "masks").mkdir()
    sections.declare(tmp_path, "C01_001,C01,control", "P01_001,P01,patient")
    found = survey(tmp_path, list(NAMES))
    assert not found.problems and not found.notes
    np.testing.assert_array_equal(found.sections[1].raw_yx("VDAC1"), IMAGES[2])
