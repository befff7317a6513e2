"""Bad and odd data folders: each is read to the pixels that were written, or refused in one sentence that helps.

Reading means `read_cohort` and the stack of every section. Nothing else than a CohortError may come out, and no
section may be left out without a word.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mitolib import cohort
from mitolib.images import CohortError, formats
from mitolib.settings import ROOT

ASKED = ("SDHA", "COX4")
HEIGHT, WIDTH = 6, 7
VERBS = "Add|Allow|Copy|Correct|Cut|Export|Fill|Give|Keep|Leave|Move|Put|Remove|Rename|Save|Unpack|Write"


def greys(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def write_section(folder: Path) -> None:
    folder.mkdir(parents=True)
    for seed, protein in enumerate(ASKED):
        tifffile.imwrite(folder / f"{protein}.tif", greys(seed))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two good sections in a folder with nothing beside it."""
    folder = tmp_path / "outside" / "root"
    write_section(folder / "Control" / "C01")
    write_section(folder / "Patient" / "P01")
    return folder


def read(folder: Path, asked: tuple[str, ...] = ASKED) -> dict[str, np.ndarray]:
    """The counts of every section as they are: see `mitolib.images.intensity` for "none"."""
    sections = cohort.read_cohort(folder, asked, intensity="none")
    return {section.section: section.stack_yxc(asked) for section in sections}


def assert_healthy(stack_yxc: np.ndarray) -> None:
    for seed, image_yx in enumerate(np.moveaxis(stack_yxc, -1, 0)):
        np.testing.assert_array_equal(image_yx, greys(seed))


def assert_helpful(problem: CohortError, name: str, finding: str) -> None:
    """The message names the file, says what was found, and ends in what to do."""
    message = str(problem)
    assert name in message and re.search(finding, message), message
    assert re.search(rf"[.;] (?:{VERBS})\b[^\n]*\.$", message), message


# Files made by hand, where no writer would write them.


def raw_tiff(
    width: int, height: int, data: bytes = b"", tags: dict[int, int | list[int]] | None = None, bits: int = 8
) -> bytes:
    """A little-endian TIFF of one strip, by default; `tags` changes or adds to its header; -1 is where the data are."""
    known = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: -1, 277: 1, 278: height, 279: len(data)}
    entries = {tag: [value] if isinstance(value, int) else value for tag, value in (known | (tags or {})).items()}
    at = 8 + 2 + 12 * len(entries) + 4
    start = at + sum(4 * len(values) for values in entries.values() if len(values) > 1)
    fields, lists = b"", b""
    for tag, values in sorted(entries.items()):
        packed = b"".join(struct.pack("<I", start if value == -1 else value) for value in values)
        fields += struct.pack("<HHI", tag, 4, len(values))
        fields += packed if len(values) == 1 else struct.pack("<I", at + len(lists))
        lists += packed if len(values) > 1 else b""
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + fields + bytes(4) + lists + data


def tiff(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def picture(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def raw_png(
    width: int, height: int, pixels: bytes, colour: int = 0, before: tuple[bytes, bytes] | None = None
) -> bytes:
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))]
    chunks += [before] if before else []
    chunks += [(b"IDAT", pixels), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def jpeg(side: int, claimed: int | None = None) -> bytes:
    """A grey JPEG whose header may claim another side than it has."""
    raw = bytearray(picture(Image.fromarray(np.zeros((side, side), np.uint8)), "JPEG"))
    at = raw.index(b"\xff\xc0") + 5  # start of frame: length, precision, height, width
    raw[at : at + 4] = struct.pack(">HH", claimed or side, claimed or side)
    return bytes(raw)


HEADER = ["Start_push", "End_push", "Pushes_duration", "X", "Y", "Z", "153Eu_SDHA(Eu153Di)", "168Er_COX4(Er168Di)"]


def hyperion(rows: list[list[object]] | None = None, header: list[str] = HEADER, end: str = "\n") -> bytes:
    """A text export: by default of the two healthy pictures."""
    if rows is None:
        places = itertools.product(range(HEIGHT), range(WIDTH))
        rows = [[0, 1, 1, x, y, 0, greys(0)[y, x], greys(1)[y, x]] for y, x in places]
    return "".join("\t".join(map(str, row)) + end for row in [header, *rows]).encode()


def changed(row: int, column: int, value: object) -> bytes:
    rows = [line.split("\t") for line in hyperion().decode().splitlines()[1:]]
    rows[row][column] = value
    return hyperion(rows)


def mcd(tables: Callable[[str], str] = lambda text: text) -> bytes:
    """The smallest .mcd that readimc opens, with one acquisition of the two healthy pictures."""
    y, x = (places.ravel() for places in np.mgrid[:HEIGHT, :WIDTH])
    values = np.stack([x, y, 0 * x, greys(0).ravel(), greys(1).ravel()], axis=-1).astype("<f4").tobytes()

    def element(name: str, **children: object) -> str:
        return f"<{name}>" + "".join(f"<{k}>{v}</{k}>" for k, v in children.items()) + f"</{name}>"

    channels = [("X", "X"), ("Y", "Y"), ("Z", "Z"), ("Eu(153)", "153Eu_SDHA"), ("Er(168)", "168Er_COX4")]
    text = "".join(
        [
            '<MCDSchema xmlns="http://www.fluidigm.com/IMC/MCDSchema_V2_0.xsd">',
            element("Slide", ID=0),
            element("Panorama", ID=1, SlideID=0, Type="Default"),
            element("AcquisitionROI", ID=1, PanoramaID=1),
            element(
                "Acquisition",
                **{"ID": 1, "AcquisitionROIID": 1, "MaxX": WIDTH, "MaxY": HEIGHT, "ValueBytes": 4},
                **{"DataStartOffset": 16, "DataEndOffset": 16 + len(values)},
            ),
            *(
                element("AcquisitionChannel", AcquisitionID=1, OrderNumber=i, ChannelName=name, ChannelLabel=label)
                for i, (name, label) in enumerate(channels)
            ),
            "</MCDSchema>",
        ]
    )
    return bytes(16) + values + tables(text).encode("utf-16-le")


def ome(description: str, n: int = 2) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for seed in range(n):
            writer.write(greys(seed), description=description if seed == 0 else None, metadata=None)
    return buffer.getvalue()


def different_sizes() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(greys(0), metadata=None)
        writer.write(greys(1)[:3], metadata=None)
    return buffer.getvalue()


CHANNELS = '<Channel Name="SDHA"/><Channel Name="COX4"/>'
ENTITIES = '<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in itertools.pairwise("abcdefghij")
)
FOREIGN = (  # files of a set, as OME-TIFF may name them
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    f'DimensionOrder="XYCZT" Type="uint8" SizeX="{WIDTH}" SizeY="{HEIGHT}" SizeC="2" SizeZ="1" SizeT="1">{CHANNELS}'
    '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="../../../secret.tif">urn:uuid:1</UUID></TiffData>'
    '<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="/etc/passwd">urn:uuid:2</UUID></TiffData>'
    "</Pixels></Image></OME>"
)


# A section P02 whose COX4.tif is good and whose other file is this one: (name, content, what is found).
COUNTS = greys(0).astype(np.float32)
IN_FOLDER = {
    "zero bytes": ("SDHA.tif", b"", "empty"),
    "zero bytes, PNG": ("SDHA.png", b"", "empty"),
    "zero bytes, text": ("a.txt", b"", "empty"),
    "zero bytes, .mcd": ("a.mcd", b"", "empty"),
    "truncated TIFF": ("SDHA.tif", tiff(greys(0))[:-9], "truncated"),
    "truncated compressed TIFF": ("SDHA.tif", tiff(greys(0), compression="zlib")[:-9], "truncated"),
    "truncated PNG": ("SDHA.png", picture(Image.fromarray(greys(0)), "PNG")[:-30], "cannot be decoded"),
    "truncated JPEG": ("SDHA.jpg", jpeg(64)[:-200], "cannot be (read|decoded)"),
    "a header alone": ("SDHA.tif", raw_tiff(WIDTH, HEIGHT), "truncated"),
    "strips never written": ("SDHA.tif", raw_tiff(WIDTH, HEIGHT, tags={279: 0}), "never written"),
    "TIFF that is PNG": ("SDHA.tif", picture(Image.fromarray(greys(0)), "PNG"), "not a TIFF"),
    "PNG that is TIFF": ("SDHA.png", tiff(greys(0)), "cannot identify"),
    "pickle named .tif": ("SDHA.tif", pickle.dumps(greys(0)), "not a TIFF"),
    "pickle named .txt": ("a.txt", pickle.dumps(greys(0)), "no Hyperion text file"),
    "HTML named .tif": ("SDHA.tif", b"<!DOCTYPE html><title>404 Not Found</title>", "not a TIFF"),
    "HTML named .jpg": ("SDHA.jpg", b"<!DOCTYPE html><title>404 Not Found</title>", "cannot identify"),
    "LFS pointer named .tif": ("SDHA.tif", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not a TIFF"),
    "text named .mcd": ("a.mcd", hyperion(), "MCDSchema"),
    ".mcd named .txt": ("a.txt", mcd(), "no Hyperion text file"),
    "0 x 0": ("SDHA.tif", raw_tiff(0, 0), "a picture of 0 x 0 px|no picture|cannot be read"),
    "no width": ("SDHA.tif", raw_tiff(0, HEIGHT, b"1"), "cannot be read"),
    "1 pixel beside a picture": ("SDHA.tif", tiff(greys(0)[:1, :1]), "1 x 1 px, but|6 x 7 px, but"),
    "NaN": ("SDHA.tif", tiff(np.where(COUNTS > 99, np.nan, COUNTS)), r"\d+ pixels of SDHA are not finite"),
    "infinite": ("SDHA.tif", tiff(np.where(COUNTS > 99, np.inf, COUNTS)), "not finite"),
    "too great for single precision": ("SDHA.tif", tiff(COUNTS * 1e300), "not finite"),
    "negative": ("SDHA.tif", tiff(COUNTS - 500), "SDHA has counts down to -"),
    "negative integers": ("SDHA.tif", tiff(COUNTS.astype(np.int16) - 500), "counts down to -"),
    "complex": ("SDHA.tif", tiff(COUNTS.astype(np.complex64)), "it holds complex64"),
    "boolean": ("SDHA.tif", tiff(greys(0) > 99), "it holds bool"),
    "black and white PNG": ("SDHA.png", picture(Image.fromarray(greys(0) > 99), "PNG"), "black and white"),
    "colour TIFF": ("SDHA.tif", tiff(np.stack([greys(0)] * 3, -1), photometric="rgb"), "a colour picture"),
    "colour JPEG": ("SDHA.jpg", picture(Image.new("RGB", (WIDTH, HEIGHT), (200, 30, 9)), "JPEG"), "a colour picture"),
    "colour PNG": ("SDHA.png", picture(Image.new("RGB", (WIDTH, HEIGHT), (200, 30, 9)), "PNG"), "a colour picture"),
    "greys inverted": ("SDHA.tif", tiff(greys(0), photometric="miniswhite"), "inverted"),
    "JPEG in a TIFF": ("SDHA.tif", tiff(greys(0), compression="jpeg"), "compression JPEG"),
    "pages of different size": ("SDHA.tif", different_sizes(), "pages of different kinds"),
    "300 pages": ("SDHA.tif", tiff(np.zeros((300, HEIGHT, WIDTH), np.uint8), photometric="minisblack"), "300 pages"),
    "volume in time": (
        "SDHA.tif",
        tiff(np.zeros((2, 2, HEIGHT, WIDTH), np.uint8), imagej=True),
        "axes TZYX|axes .* of",
    ),
    "OME with an entity bomb": ("a.ome.tif", ome(f"<!DOCTYPE OME [{ENTITIES}]><OME>&j;</OME>"), "declares entities"),
    "OME with an outer entity": (
        "a.ome.tif",
        ome(f'<!DOCTYPE OME [<!ENTITY x SYSTEM "file:///etc/passwd">]><OME>{CHANNELS}&x;</OME>'),
        "declares entities",
    ),
    "a set of OME files": ("a.ome.tif", ome(FOREIGN), r"its planes lie in .*secret\.tif"),
    "OME cut short": ("a.ome.tif", ome(f"<OME><Image>{CHANNELS}"), "cannot be read"),
    "stack without names or panel": ("a.tif", ome("", 2), "2 channels without names. Add a panel.csv"),
    "text without a coordinate": ("a.txt", hyperion(header=[*HEADER[:4], *HEADER[5:]]), "XYZ channels not found"),
    "text without its places": ("a.txt", hyperion().replace(b"Pushes_duration", b"Duration"), "push columns"),
    "text with words for numbers": ("a.txt", changed(3, 6, "many"), "many"),
    "text with a gap": ("a.txt", changed(3, 6, ""), "not finite"),
    "text with a missing pixel": ("a.txt", hyperion([[0, 1, 1, 3, 3, 0, 1, 1]]), "1 pixels, wanted 4 x 4"),
    "text with a pixel twice": ("a.txt", changed(3, 3, 2), "1 pixels are missing, .*twice"),
    "text with a place below 0": ("a.txt", changed(0, 3, -1), "1 pixels lie outside"),
    "text with no place": ("a.txt", changed(0, 3, ""), "not the places of pixels|lie outside"),
    "text with a header only": ("a.txt", hyperion([]), "not the places of pixels"),
    "text with a cell too many": ("a.txt", hyperion().replace(b"\n0\t", b"\n0\t0\t"), "cannot be read"),
    "text broken off in a line": ("a.txt", hyperion()[:-8], "last line has no end"),
    "text broken off in a number": ("a.txt", hyperion([[0, 1, 1, 0, 0, 0, 1, 1234]])[:-3], "last line"),
    "text of 300 channels": ("a.txt", hyperion(header=HEADER + ["A(Eu153Di)"] * 300), "302 channels"),
    "text in UTF-16": ("a.txt", hyperion().decode().encode("utf-16"), "UTF-16"),
    ".mcd cut short": ("a.mcd", mcd()[:-20], "end of XML document"),
    ".mcd without tables": ("a.mcd", mcd()[:400], "start of XML document"),
    ".mcd broken off": ("a.mcd", mcd(lambda text: text.replace("<MaxY>6<", "<MaxY>8<")), "broken off"),
    ".mcd of another place": ("a.mcd", mcd(lambda text: text.replace("Offset>16<", "Offset>20<")), "broken off"),
    ".mcd of no region": (
        "a.mcd",
        mcd(lambda text: text.replace("ROIID>1<", "ROIID>5<")),
        "1 acquisitions, of which 0",
    ),
    ".mcd without sizes": ("a.mcd", mcd(lambda text: re.sub("<MaxX>.*?</MaxX>", "", text)), "no MaxX"),
}


BOMBS = {  # a few kilobytes that claim gigabytes
    "TIFF": ("SDHA.tif", raw_tiff(100_000, 100_000), "more than 64,000,000 px"),
    "compressed TIFF": (
        "SDHA.tif",
        raw_tiff(60_000, 60_000, zlib.compress(bytes(9)), {259: 8}),
        "more than 64,000,000",
    ),
    "wide TIFF": ("SDHA.tif", raw_tiff(100_000, 1_000), "more than 64,000,000 px"),
    "tiles of a TIFF": (
        "SDHA.tif",
        raw_tiff(16, 16, zlib.compress(bytes(9)), {259: 8, 322: 65_520, 323: 65_520, 324: -1, 325: 17}),
        "tiles of shape",
    ),
    "JPEG in a TIFF": (
        "SDHA.tif",
        raw_tiff(16, 16, jpeg(16, claimed=65_000), {259: 7}),
        "compression JPEG",
    ),
    "channels of a TIFF": (
        "SDHA.tif",
        tiff(
            np.broadcast_to(np.uint8(0), (200, 1800, 1800)),
            **{"planarconfig": "separate", "photometric": "minisblack", "compression": "zlib", "metadata": None},
        ),
        "in one compressed page",
    ),
    "PNG": ("SDHA.png", raw_png(60_000, 60_000, zlib.compress(bytes(9))), "more than 64,000,000|exceeds limit"),
    "text in a PNG": (
        "SDHA.png",
        raw_png(WIDTH, HEIGHT, b"", before=(b"zTXt", b"a\0\0" + zlib.compress(bytes(300_000_000), 1))),
        "cannot be",
    ),
    "JPEG": ("SDHA.jpg", jpeg(16, claimed=65_000), "more than 64,000,000|exceeds limit"),
    "text": ("a.txt", hyperion([[0, 1, 1, 1e9, 1e9, 0, 1, 1]]), "more than 64,000,000 px"),
    "text below the limit": ("a.txt", hyperion([[0, 1, 1, 7_999, 7_999, 0, 1, 1]]), "1 pixels, wanted 8000 x 8000"),
    ".mcd": ("a.mcd", mcd(lambda text: text.replace("<MaxX>7<", "<MaxX>99999999<")), "more than 64,000,000 px"),
}


@pytest.mark.parametrize("case", [*IN_FOLDER, *(f"bomb: {name}" for name in BOMBS)])
def test_a_bad_file_is_refused_by_name_and_the_other_sections_are_read(root, case):
    name, content, finding = (IN_FOLDER | {f"bomb: {bomb}": BOMBS[bomb] for bomb in BOMBS})[case]
    write_section(root / "Patient" / "P02")
    (root / "Patient" / "P02" / "SDHA.tif").unlink()
    if name.startswith("a."):
        (root / "Patient" / "P02" / "COX4.tif").unlink()
    (root / "Patient" / "P02" / name).write_bytes(content)
    with pytest.raises(CohortError) as caught:
        read(root)
    assert_helpful(caught.value, name, finding)
    found = cohort.survey(root, ASKED, intensity="none")
    sections, problems = found.sections, found.problems
    found = {section.section: section for section in sections}
    for good in ("C01", "P01"):
        assert_healthy(found[good].stack_yxc(ASKED))
    # What only its pixels show is wrong, is a section until they are read; all else is reported.
    assert set(found) - {"C01", "P01"} == (set() if problems else {"P02"})
    assert len(problems) <= 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_bomb_takes_no_memory(tmp_path):
    """Nor does a small file that claims as much as is allowed, and holds it."""
    rows = zlib.compress(bytes(8 * 8_000 * 100))  # 80 strips, all of them these
    strips = {259: 8, 278: 100, 339: 3, 273: [-1] * 80, 279: [len(rows)] * 80}
    doubles = raw_tiff(8_000, 8_000, rows, strips, bits=64)
    colour = raw_png(7_990, 7_990, zlib.compress(bytes(7_990 * (1 + 3 * 7_990)), 1), colour=2)
    # What decodes to grey where nothing is: a JPEG may end early.
    (tmp_path / "JPEG.jpg").write_bytes(jpeg(16, claimed=7_990))
    for name, content in {"64 million doubles.tif": doubles, "64 million colours.png": colour}.items():
        (tmp_path / name).write_bytes(content)
    for bomb, (name, content, _) in BOMBS.items():
        (tmp_path / f"bomb {bomb}{Path(name).suffix}").write_bytes(content)
    script = (
        "import json, sys, pathlib\n"
        "from mitolib.images import CohortError, formats, intensity\n"
        "def peak():\n"  # not ru_maxrss, which a child inherits from the process that tests
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        "    return int(status.split('VmHWM:')[1].split()[0])\n"
        "found = {}\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        grey = intensity.to_8_bit(formats.channels(path)[-1].raw_yx(), 'percentiles')\n"
        "        found[path.name] = [grey.shape, peak()]\n"
        "    except CohortError:\n"
        "        found[path.name] = ['refused', peak()]\n"
        "print(json.dumps(found))\n"
    )
    run = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    read_whole = {
        "64 million doubles.tif": [8_000, 8_000],
        "64 million colours.png": [7_990, 7_990],
        "JPEG.jpg": [7_990, 7_990],
    }
    assert {name: ended for name, (ended, _) in found.items() if ended != "refused"} == read_whole
    assert max(kilobytes for _, kilobytes in found.values()) * 1024 < 1e9, found


# Files that are odd, and good. (name, content): alone in the folder of a section, asked for SDHA.
EXACT = {
    "1 pixel": ("SDHA.tif", tiff(greys(0)[:1, :1]), greys(0)[:1, :1]),
    "100,000 px wide": ("SDHA.tif", tiff(np.full((2, 100_000), 7, np.uint8)), np.full((2, 100_000), 7, np.uint8)),
    "tiled": ("SDHA.tif", tiff(greys(0), tile=(16, 16)), greys(0)),
    "big-endian": ("SDHA.tif", tiff(greys(0), byteorder=">"), greys(0)),
    "LZW": ("SDHA.tif", tiff(greys(0), compression="lzw"), greys(0)),
    "BigTIFF": ("SDHA.tif", tiff(greys(0), bigtiff=True), greys(0)),
    "capital suffix": ("SDHA.TIFF", tiff(greys(0)), greys(0)),
    "PNG named .jpg": ("SDHA.jpg", picture(Image.fromarray(greys(0)), "PNG"), greys(0)),
    "grey JPEG of 3 channels": (
        "SDHA.jpg",
        picture(Image.new("RGB", (9, 8), (5, 5, 5)), "JPEG"),
        np.full((8, 9), 5, "u1"),
    ),
    "OME with namespaces": (
        "a.tif",
        ome(f'<ome:OME xmlns:ome="x">{CHANNELS.replace("<", "<ome:")}</ome:OME>'),
        greys(0),
    ),
    "text": ("a.txt", hyperion(), greys(0)),
    "text with Windows line ends": ("a.txt", hyperion(end="\r\n"), greys(0)),
    ".mcd": ("a.mcd", mcd(), greys(0)),
    "spaces": ("153Eu_153Eu SDHA.ome.tiff", tiff(greys(0)), greys(0)),
}


@pytest.mark.parametrize("case", EXACT)
def test_an_odd_file_is_read_to_the_pixels_that_were_written(root, case, monkeypatch):
    name, content, expected_yx = EXACT[case]
    (root.parent.parent / "secret.tif").write_bytes(tiff(255 - greys(0)))  # what a set of OME files would name
    folder = root / "Patient" / "P02"
    folder.mkdir()
    (folder / name).write_bytes(content)
    opened = []
    monkeypatch.setattr(tifffile, "TiffFile", lambda *a, f=tifffile.TiffFile, **k: opened.append(a[0]) or f(*a, **k))
    section = next(s for s in cohort.read_cohort(root, ["SDHA"]) if s.section == "P02")
    np.testing.assert_array_equal(section.raw_yx("SDHA"), expected_yx)
    assert section.stack_yxc(["SDHA"]).shape == (*expected_yx.shape, 1)
    assert {path.suffix for path in opened} <= {".tif", ".tiff", ".TIFF"}
    assert root.parent.parent / "secret.tif" not in opened


# Folders. A bad one: what is done to the root, the file that the message names, what is found.


def declare(root: Path, *rows: str, header: str = "section,subject,label") -> None:
    (root / "cohort.csv").write_text("\n".join([header, *rows]) + "\n")


BOTH = ("C01,C01,control", "P01,P01,patient")


def link_out(root: Path) -> None:
    write_section(root.parent / "elsewhere")
    (root / "Patient" / "P02").symlink_to(root.parent / "elsewhere")


def link_a_file_out(root: Path) -> None:
    write_section(root / "Patient" / "P02")
    (root / "Patient" / "P02" / "SDHA.tif").rename(root.parent / "SDHA.tif")
    (root / "Patient" / "P02" / "SDHA.tif").symlink_to(root.parent / "SDHA.tif")


def link_a_table_out(root: Path) -> None:
    (root.parent / "cohort.csv").write_text("section,subject,label\n")
    (root / "cohort.csv").symlink_to(root.parent / "cohort.csv")


def link_in_a_ring(root: Path) -> None:
    (root / "Patient" / "one").symlink_to("other")
    (root / "Patient" / "other").symlink_to("one")


def nest(root: Path) -> None:
    write_section(root / "Patient" / "P02" / "images")


def two_files(root: Path) -> None:
    tifffile.imwrite(root / "Patient" / "P01" / "153Eu_SDHA.tif", greys(0))


def two_suffixes(root: Path) -> None:
    tifffile.imwrite(root / "Patient" / "P01" / "SDHA.tiff", greys(0))


def nameless(root: Path) -> None:
    (root / "Patient" / "P02.tiff").write_bytes(ome("", 2))
    (root / "panel.csv").write_text("channel,name\n153Eu,SDHA\n168Er,COX4\n176Yb,Dystrophin\n")


def mcd_beside_text(root: Path) -> None:
    (root / "Patient" / "P02.mcd").write_bytes(mcd())
    (root / "Patient" / "P02_ROI_001_1.txt").write_bytes(hyperion())


def zip_section(root: Path) -> None:
    with zipfile.ZipFile(root / "Patient" / "P02.zip", "w") as archive:
        archive.writestr("P02/SDHA.tif", tiff(greys(0)))


def tar_class(root: Path) -> None:
    with tarfile.open(root / "Patient.tar.gz", "w:gz") as archive:
        archive.add(root / "Patient")


def pipe(root: Path) -> None:
    os.mkfifo(root / "Patient" / "P02.txt")


def undecodable(root: Path) -> None:
    os.mkdir(os.fsencode(root / "Patient") + b"/\xff\xfe")


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "link out of the root": (link_out, "P02", "a link that leads out"),
    "link of one file out": (link_a_file_out, "SDHA.tif", "a link that leads out"),
    "link of cohort.csv out": (link_a_table_out, "cohort.csv", "a link that leads out"),
    "link to nowhere": (lambda r: (r / "Patient" / "P02").symlink_to("nowhere"), "P02", "a link that leads"),
    "links in a ring": (link_in_a_ring, "one", "a link that leads"),
    "empty section": (lambda r: (r / "Patient" / "P02").mkdir(), "P02", "no image of SDHA, COX4"),
    "nested section": (nest, "P02", "no image of SDHA, COX4; .*no protein"),
    "two files of one protein": (two_files, "153Eu_SDHA.tif", "both taken for SDHA"),
    "two suffixes of one protein": (two_suffixes, "SDHA.tiff", "both taken for SDHA"),
    "protein missing": (lambda r: (r / "Patient" / "P01" / "SDHA.tif").unlink(), "P01", "no image of SDHA; found COX4"),
    "panel of another count": (nameless, "P02.tiff", "2 channels .*panel.csv keeps 3"),
    "an export beside its .mcd": (mcd_beside_text, "P02_ROI_001_1.txt", "seems exported from P02.mcd"),
    "zipped section": (zip_section, "P02.zip", ".zip files are not read"),
    "packed class": (tar_class, "Patient.tar.gz", ".gz files are not read"),
    "another microscope's file": (lambda r: (r / "Patient" / "P02.czi").touch(), "P02.czi", ".czi files are not read"),
    "a pipe": (pipe, "P02.txt", "empty"),
    "empty text as a section": (lambda r: (r / "Patient" / "P02.txt").touch(), "P02.txt", "empty"),
    "a stray picture": (lambda r: (r / "SDHA.tif").touch(), "SDHA.tif", "lies beside the class folders"),
    "a third class": (lambda r: write_section(r / "Carrier" / "X"), "Carrier", "not a class folder"),
    "a section beside the classes": (lambda r: write_section(r / "P02"), "P02", "not a class folder"),
    "one name twice": (lambda r: write_section(r / "Control" / "P01"), "root", "section P01 is there twice"),
    "folder and file of one name": (
        lambda r: (r / "Patient" / "P01.mcd").write_bytes(mcd()),
        "root",
        "section P01 is there twice",
    ),
    "a name with a line break": (lambda r: write_section(r / "Patient" / "P\n02"), r"P\n02", "cannot be printed"),
    "a name of no text": (undecodable, "Patient", "cannot be printed"),
    "undeclared section": (lambda r: declare(r, BOTH[0]), "P01", "section P01 is not in cohort.csv"),
    "declared and absent": (lambda r: declare(r, *BOTH, "P02,P02,patient"), "cohort.csv", "section P02 has no folder"),
    "declared under a path": (lambda r: declare(r, *BOTH, "../root/Patient/P01,P,patient"), "cohort.csv", "no folder"),
    "subject in both classes": (
        lambda r: declare(r, "C01,S,control", "P01,S,patient"),
        "cohort.csv",
        "S is control and",
    ),
    "subject in both classes but for a space": (
        lambda r: declare(r, "C01,S,control", "P01,S ,patient"),
        "cohort.csv",
        "S is control and patient",
    ),
    "no subject": (lambda r: declare(r, BOTH[0], "P01,,patient"), "cohort.csv", "a row without subject"),
    "a row that ends early": (lambda r: declare(r, BOTH[0], "P01"), "cohort.csv", "a row without subject"),
    "a row that goes on": (
        lambda r: declare(r, *(f"{row},more" for row in BOTH)),
        "cohort.csv",
        "cannot be read as a table",
    ),
    "no label": (lambda r: declare(r, BOTH[0], "P01,P01,"), "cohort.csv", "label .*wanted control or patient"),
    "another class": (lambda r: declare(r, BOTH[0], "P01,P01,carrier"), "cohort.csv", "label carrier"),
    "the other class": (lambda r: declare(r, BOTH[0], "P01,P01,control"), "P01", "lies in the patient folder"),
    "a row twice": (lambda r: declare(r, *BOTH, BOTH[1]), "cohort.csv", "section P01 stands twice"),
    "semicolons and a row missing": (
        lambda r: declare(r, "C01;C01;control", header="section;subject;label"),
        "P01",
        "section P01 is not in cohort.csv",
    ),
    "no column": (lambda r: declare(r, "C01,control", header="section,label"), "cohort.csv", "no column subject"),
    "UTF-16": (
        lambda r: (r / "cohort.csv").write_text("section,subject,label\n", "utf-16"),
        "cohort.csv",
        "as a table",
    ),
    "empty table": (lambda r: (r / "cohort.csv").touch(), "cohort.csv", "cannot be read as a table"),
    "header alone": (lambda r: declare(r), "C01", "section C01 is not in cohort.csv"),
    "table of bytes": (lambda r: (r / "cohort.csv").write_bytes(bytes(range(256))), "cohort.csv", "cohort.csv: "),
    "table that is a folder": (lambda r: (r / "cohort.csv").mkdir(), "cohort.csv", "cannot be read as a table"),
    "panel of bytes": (lambda r: (r / "panel.csv").write_bytes(bytes(range(256))), "panel.csv", "panel.csv: "),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_bad_folder_is_refused_by_name_and_what_is_good_in_it_is_read(root, case):
    spoil, name, finding = BAD_FOLDERS[case]
    spoil(root)
    with pytest.raises(CohortError) as caught:
        read(root)
    assert_helpful(caught.value, name, finding)
    found = cohort.survey(root, ASKED, intensity="none")
    sections, problems = found.sections, found.problems
    assert problems
    for section in sections:
        assert_healthy(section.stack_yxc(ASKED))
    # In every case a section of the two is good, unless a table that speaks for all of them is not.
    assert sections or name == "C01"


BAD_ROOTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda r: None, "no such folder"),
    "a file": (lambda r: r.write_bytes(tiff(greys(0))), "is a file"),
    "an archive": (lambda r: zipfile.ZipFile(r, "w").close(), "is a file"),
    "empty": (lambda r: r.mkdir(), "holds no section"),
    "of empty classes": (lambda r: (r / "Control").mkdir(parents=True), "holds no section"),
    "a single section": (lambda r: write_section(r), "lies beside the class folders"),
    "of sections without a table": (lambda r: write_section(r / "P01"), "not a class folder"),
    "a ring": (lambda r: r.symlink_to(r), "no such folder"),
}


@pytest.mark.parametrize("case", BAD_ROOTS)
def test_a_root_that_holds_no_cohort_is_refused(tmp_path, case):
    make, finding = BAD_ROOTS[case]
    make(tmp_path / "root")
    with pytest.raises(CohortError) as caught:
        read(tmp_path / "root")
    assert_helpful(caught.value, "root", finding)
    assert cohort.survey(tmp_path / "root", ASKED).sections == ()


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_root_that_no_disk_could_hold_is_refused(name):
    with pytest.raises(CohortError) as caught:
        read(Path("/") / name)
    assert re.search(rf"\. (?:{VERBS})\b", str(caught.value))


@pytest.mark.parametrize("which", ["", "Patient", "Patient/P01"])
def test_a_folder_that_may_not_be_read_is_named(root, monkeypatch, which):
    iterdir = Path.iterdir

    def refuse(path: Path):
        if path == root / which:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)  # and not by chmod, which does not stop root
    with pytest.raises(CohortError) as caught:
        read(root)
    assert_helpful(caught.value, which or "root", r"cannot be read \(Permission denied\)")
    assert [s.section for s in cohort.survey(root, ASKED, intensity="none").sections] == (["C01"] if which else [])


def beside(root: Path) -> None:
    for name in ("README.txt", "README.md", "Thumbs.db", ".DS_Store", "._SDHA.tif", "SDHA_mask.csv"):
        for folder in (root, root / "Patient", root / "Patient" / "P01"):
            (folder / name).write_text("Scanned on Monday.\n")


def mask(root: Path) -> None:
    tifffile.imwrite(root / "Patient" / "P01" / "SDHA_mask.tif", np.zeros((HEIGHT, WIDTH), bool)[:, :-1].astype("u2"))
    write_section(root / "Patient" / "P01" / "masks")


def mac(root: Path) -> None:
    write_section(root / "__MACOSX" / "C01")
    write_section(root / "Patient" / "__MACOSX")


def link_inside(root: Path) -> None:
    (root / "store").mkdir()
    (root / "Patient" / "P01").rename(root / "truth")  # the one folder that may lie beside the classes
    (root / "store").rmdir()
    (root / "Patient" / "P01").symlink_to(root / "truth")


def both_formats(root: Path) -> None:
    (root / "Patient" / "P01" / "a.txt").write_bytes(hyperion())
    Image.fromarray(255 - greys(0)).save(root / "Patient" / "P01" / "SDHA.png")


def traversal(root: Path) -> None:
    (root / "panel.csv").write_text("channel,name\n../../secret,../../etc/passwd\n/etc/passwd,COX9\n")
    declare(root, "C01,../../C01,control,../..", "P01,/P01,patient,~", header="section,subject,label,note")


GOOD_FOLDERS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "other files beside": (beside, []),
    "masks": (mask, []),
    "what a Mac packs": (mac, []),
    "a hidden section": (lambda r: write_section(r / "Patient" / ".P02"), []),
    "a link inside": (link_inside, []),
    "both formats": (both_formats, []),
    "paths in the tables": (traversal, []),
    "a section as .mcd": (lambda r: (r / "Patient" / "P02.mcd").write_bytes(mcd()), ["P02"]),
    "a section as text": (lambda r: (r / "Patient" / "P02.txt").write_bytes(hyperion()), ["P02"]),
    "a label with other case": (lambda r: declare(r, "C01,C01, Control", "P01,P01,PATIENT"), []),
    "a panel with semicolons": (lambda r: (r / "panel.csv").write_text("channel;name\nA;B\n"), []),
    "a table with spaces": (lambda r: declare(r, "C01 , C01,control", " P01,P01,patient"), []),
    "a table with a byte order mark": (lambda r: declare(r, *BOTH, header="\ufeffsection,subject,label"), []),
    "classes in lower case": (lambda r: (r / "Patient").rename(r / "patients"), []),
    **{
        f"a name: {name[:12]!r}": (lambda r, name=name: write_section(r / "Patient" / name), [name])
        for name in (
            "P 02",
            "Müller",
            "患者",
            "🧬",
            "P.02.v2",
            "P02.tif",
            "_P02",
            "-rf",
            "n" * 255,
            "P02;x,y",
            "%s{}",
            "~",
        )
    },
}


@pytest.mark.parametrize("case", GOOD_FOLDERS)
def test_an_odd_folder_is_read_whole(root, case):
    make, more = GOOD_FOLDERS[case]
    make(root)
    stacks = read(root)
    assert set(stacks) == {"C01", "P01", *more}
    for stack_yxc in stacks.values():
        assert_healthy(stack_yxc)
    assert len(cohort.digest(cohort.read_cohort(root, ASKED), ASKED)) == 64  # a name is bytes there


def test_steinbocks_folder_is_read_by_its_tables(tmp_path):
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "C01.tiff").write_bytes(ome("", 2))
    (tmp_path / "masks").mkdir()
    (tmp_path / "panel.csv").write_text("channel,name,keep\nEu153,SDHA,1\nY89,CD3,0\nEr168,COX4,1\n")
    declare(tmp_path, "C01,C01,control")
    assert_healthy(read(tmp_path)["C01"])


def test_a_column_of_the_users_changes_no_size(root):
    declare(root, "C01,C01,control,9", "P01,P01,patient,9", header="section,subject,label,width_px")
    table = cohort.table(cohort.read_cohort(root, ASKED))
    assert table["width_px"].tolist() == [WIDTH, WIDTH] and list(table)[:5] == [
        *("section", "subject", "label", "width_px", "height_px")
    ]


# Any bytes, and any spoilt file of each format.

WRITTEN = {
    "a.tif": tiff(greys(0)),
    "deflate.tif": tiff(greys(0), compression="zlib"),
    "lzw.tif": tiff(greys(0), compression="lzw", predictor=True),
    "tiles.tif": tiff(greys(0), tile=(16, 16), byteorder=">"),
    "imagej.tif": tiff(np.stack([greys(0), greys(1)]), imagej=True, metadata={"axes": "CYX", "Labels": list(ASKED)}),
    "ome.ome.tif": tiff(np.stack([greys(0), greys(1)]), ome=True, photometric="minisblack"),
    "planar.tif": tiff(np.stack([greys(0), greys(1)]), planarconfig="separate", photometric="minisblack"),
    "a.png": picture(Image.fromarray(greys(0)), "PNG"),
    "a.jpg": picture(Image.fromarray(greys(0)), "JPEG"),
    "a.txt": hyperion(),
    "a.mcd": mcd(),
}
NUMBERS = itertools.count()


def pixels(folder: Path, name: str, content: bytes) -> list[np.ndarray] | None:
    """Every channel of a file with this content, or None where it is refused as it should be."""
    path = folder / f"{next(NUMBERS)}-{name}"
    path.write_bytes(content)
    try:
        return [channel.raw_yx() for channel in formats.channels(path)]
    except CohortError as problem:
        assert_helpful(problem, path.name, ": ")
        return None
    finally:
        path.unlink()


many = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.txt", "a.mcd"])
@many
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused(tmp_path, name, content):
    assert pixels(tmp_path, name, content) is None
    assert pixels(tmp_path, name, WRITTEN[name][:8] + content) is None


@pytest.mark.parametrize("name", WRITTEN)
@many
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused_or_read_to_the_same_pixels(tmp_path, name, part):
    whole, cut = (pixels(tmp_path, name, WRITTEN[name][:n]) for n in (None, int(part * len(WRITTEN[name]))))
    assert whole
    # A cut behind the last pixel, in what only a viewer reads, does no harm; nor can a text tell that it had more rows.
    if cut is not None:
        height_px, width_px = cut[0].shape
        assert (height_px, width_px) == whole[0].shape or name == "a.txt"
        assert all((a == b[:height_px, :width_px]).all() for a, b in zip(cut, whole, strict=True))


@pytest.mark.parametrize("name", WRITTEN)
@many
@given(data=st.data())
def test_a_file_with_a_byte_changed_is_refused_or_read(tmp_path, name, data):
    content = bytearray(WRITTEN[name])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    found = pixels(tmp_path, name, bytes(content))
    assert found is None or all(image_yx.ndim == 2 and np.isfinite(image_yx).all() for image_yx in found)
