"""TIFF by tifffile: plain, OME, ImageJ, MCD Viewer, steinbock.

tifffile's own readers of sets of files stay switched off: they would open what the metadata of a file name.
"""

from __future__ import annotations

import logging
import math
import re
import struct
from pathlib import Path

import numpy as np
import tifffile

from mitolib.images import lzw, ome
from mitolib.images.channel import MAX_CHANNELS, MAX_PX, Channel, Contents, Unfit, check_size
from mitolib.images.names import ALIASES, isotope, plain, protein

MAX_BLOCK_BYTES = 8 * MAX_PX  # of what a TIFF must decode at once: a tile, or a stack that is one page
PAGE_NAME, ORIENTATION, PHOTOMETRIC, EXTRA_SAMPLES = 285, 274, 262, 338  # tags
GREYS = {tifffile.PHOTOMETRIC[name] for name in ("MINISBLACK", "MINISWHITE", "PALETTE")}
UPRIGHT = (0, 1)  # 0: unknown, as some programs write it
AS_32_BIT = "Save it as 32 bit (ImageJ: Image, Type, 32-bit)."

# Of these the decoded size is known beforehand, and they keep counts: a few hundred bytes of JPEG or JPEG 2000 in a
# TIFF can decode to gigabytes, whatever the TIFF's own header says.
COMPRESSIONS = {
    tifffile.COMPRESSION[n] for n in ("NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "ZSTD", "LZMA")
}

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says of a broken file, the refusal says too


def contents(path: Path) -> Contents:
    """The channels of a TIFF in its own order; pages are told from their headers, pixels are not read."""
    with _opened(path) as tiff:
        series, (n, height_px, width_px) = _stack(tiff)
        check_size(height_px, width_px, n, series.dtype)
        size = path.stat().st_size
        for page in tiff.pages:
            _check_page(page, size)
        _check_chain(tiff)
        if len(tiff.pages) != n:  # the stack is one page
            n_bytes = n * height_px * width_px * series.dtype.itemsize
            if series.dataoffset is None and n_bytes > MAX_BLOCK_BYTES:
                raise Unfit(f"{n_bytes:,d} bytes in one compressed page", "Save it with one page for each protein.")
            if series.dataoffset is not None and series.dataoffset + n_bytes > size:
                raise ValueError(f"truncated: {size} bytes where its header promises {series.dataoffset + n_bytes}")
        description = ome.read(tiff.pages[0].description, path.name, n)
        if description:
            ome.agree(description, height_px, width_px, series.dtype, one_page_each=len(tiff.pages) == n)
        named_by = _names(tiff, n, description)
        calibration = _imagej_calibration(tiff.pages[0].description, series.dtype)
    labels, described = _labels(path, n, named_by)
    planes = description.planes if description else range(n)
    return Contents(
        tuple(
            Channel(
                path,
                label,
                isotope(label),
                height_px,
                width_px,
                index,
                page,
                described=described,
                calibration=calibration,
                reader=_pixels,
            )
            for index, (label, page) in enumerate(zip(labels, planes, strict=True))
        )
    )


def _opened(path: Path) -> tifffile.TiffFile:
    return tifffile.TiffFile(path, is_ome=False, is_mmstack=False, is_ndtiff=False)


def _stack(tiff: tifffile.TiffFile) -> tuple[tifffile.TiffPageSeries, tuple[int, ...]]:
    """The one picture or stack of a file, and its shape as CYX. ValueError if there is none or more than one."""
    if len(tiff.pages) > MAX_CHANNELS:
        raise Unfit(f"{len(tiff.pages)} pages, wanted at most {MAX_CHANNELS}", "Keep one page for each protein.")
    if len(tiff.series) != 1:
        shapes = ", ".join(str(series.shape) for series in tiff.series[:4])
        raise Unfit(f"pages of different kinds, of shapes {shapes}", "Save it as one greyscale stack.")
    series = tiff.series[0]
    axes, shape = series.axes, series.shape
    if "S" in axes and axes.index("S") > axes.index("Y"):
        raise Unfit(f"a colour picture of shape {shape}", "Export one greyscale page for each protein.")
    long = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis in "YX" or n != 1]
    if [axis for axis, _ in long[-2:]] != ["Y", "X"] or len(long) > 3:
        raise Unfit(f"axes {axes} of shape {shape}", "Export one greyscale page for each protein.")
    return series, ((1,) if len(long) == 2 else ()) + tuple(n for _, n in long)


def _check_page(page: tifffile.TiffPage | tifffile.TiffFrame, size: int) -> None:
    """ValueError or Unfit for a page of a file of `size` bytes that is not all there, or whose numbers are no greys."""
    if page.compression not in COMPRESSIONS:
        kind = getattr(page.compression, "name", page.compression)
        raise Unfit(f"compression {kind}, wanted one that keeps counts", "Save it with LZW, deflate or none.")
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and page.keyframe.tags.valueof(PHOTOMETRIC) is not None:
        raise Unfit("its greys are inverted, 0 is white", "Export it with 0 as black.")
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and not _is_grey_ramp(page.keyframe.colormap):
        raise Unfit(
            "its numbers stand for colours of a palette", "Give it a grey palette (ImageJ: Lookup Tables, Grays). Save."
        )
    if page.photometric not in GREYS:
        kind = getattr(page.photometric, "name", page.photometric)
        raise Unfit(f"a colour picture, or none ({kind})", "Export one greyscale page for each protein.")
    if {1, 2} & set(np.atleast_1d(page.keyframe.tags.valueof(EXTRA_SAMPLES, default=0)).tolist()):
        raise Unfit("one of its planes is transparency", "Export it without transparency.")
    if (turned := page.keyframe.tags.valueof(ORIENTATION, default=1)) not in UPRIGHT:
        raise Unfit(f"its header says that it lies turned or mirrored (Orientation {turned})", "Save it upright.")
    if math.prod(page.chunks) * page.dtype.itemsize > MAX_BLOCK_BYTES:
        raise Unfit(f"tiles of shape {page.chunks}", "Save it with smaller tiles, or with none.")
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not parts or not all(offset and n for offset, n in parts):
        raise ValueError("truncated: parts of its picture were never written")
    if (end := max(offset + n for offset, n in parts)) > size:
        raise ValueError(f"truncated: {size} bytes where its header promises {end}")


def _is_grey_ramp(colormap: np.ndarray | None) -> bool:
    """Whether a palette (3, n) shows each number as a grey in proportion to it, from black to white."""
    if colormap is None:
        return False
    ramp = np.linspace(0, np.iinfo(colormap.dtype).max, colormap.shape[1])
    return bool((abs(colormap - ramp) <= np.iinfo(colormap.dtype).max / 128).all())


def _check_chain(tiff: tifffile.TiffFile) -> None:
    """ValueError if the last page that could be read names a further one: tifffile goes on without those cut off."""
    layout, file = tiff.tiff, tiff.filehandle
    file.seek(tiff.pages[-1].offset)
    (n_tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(n_tags * layout.tagsize, 1)
    if struct.unpack(layout.offsetformat, file.read(layout.offsetsize)) != (0,):
        raise ValueError(f"truncated: there were more than its {len(tiff.pages)} pages")


def _names(tiff: tifffile.TiffFile, n: int, description: ome.Description | None) -> dict[str, list[str]]:
    """Who names the channels, and how: each list in the order of the channels.

    MCD Viewer's ".ome.tiff" counts its channels as times and names them by page.
    """
    page_names = [page.tags.valueof(PAGE_NAME) for page in tiff.pages]
    named_by = {
        "its page names": page_names if all(isinstance(name, str) and name.strip() for name in page_names) else [],
        "its OME-XML": description.names if description else [],
        "its ImageJ labels": [_slice_label(label) for label in (tiff.imagej_metadata or {}).get("Labels") or []],
    }
    named_by = {source: names for source, names in named_by.items() if len(names) == n and all(names)}
    if description and description.depth > 1 and "its page names" not in named_by:
        raise Unfit(
            f"its OME-XML describes {description.depth} planes in Z or time",
            "Export one plane for each protein, as channels.",
        )
    if description and "its page names" in named_by and n > 1:  # names follow the pages, channels the description
        named_by["its page names"] = [page_names[page] for page in description.planes]
    return named_by


def _slice_label(label: str) -> str:
    """ImageJ's label of a slice without what it adds: "c:1/3 - SDHA", "SDHA.tif", and lines about the file."""
    first = label.strip().partition("\n")[0]
    first = re.sub(r"^(?:[czt]:\d+/\d+[\s;]*)+-\s*", "", first)
    return re.sub(r"\.(?:tiff?|png|jpe?g)$", "", first, flags=re.IGNORECASE)


def _labels(path: Path, n: int, named_by: dict[str, list[str]]) -> tuple[list[str | None], str | None]:
    """The label of each channel, and for a single one what it is called inside. Unfit where two sources disagree."""
    (first, names), *others = named_by.items() or [("", [])]
    for source, other in others:
        if (place := _disagreement(names, other)) is not None:
            raise Unfit(
                f"{first} call a channel {names[place]}, which {source} call {other[place]}",
                "Save it again with one name for each channel.",
            )
    if n == 1:
        stem = re.sub(r"\.ome$", "", path.stem, flags=re.IGNORECASE)
        inside = [name for (name,) in named_by.values()]
        return [stem], next((name for name in inside if plain(protein(name)) in ALIASES), inside[0] if inside else None)
    return names or [None] * n, None


def _disagreement(names: list[str], other: list[str]) -> int | None:
    """The first channel that two sources call otherwise: by two known proteins, or by a name that the other source has
    for another channel."""
    inner, outer = ([plain(protein(name)) for name in source] for source in (names, other))
    for place, (here, there) in enumerate(zip(inner, outer, strict=True)):
        if here != there and ({here, there} <= ALIASES.keys() or here in outer or there in inner):
            return place
    return None


def _imagej_calibration(description: str, dtype: np.dtype) -> tuple[float, float]:
    """Offset and factor of ImageJ's straight line, value = c0 + c1 * stored number; (0, 1) where there is none."""
    if not description.startswith("ImageJ="):
        return 0.0, 1.0
    entries = dict(re.findall(r"^(cf|c\d)=(.*?)\s*$", description, re.MULTILINE))
    if entries == {"cf": "20"}:  # ImageJ's number for none
        return 0.0, 1.0
    if entries.get("cf", "0") != "0" or entries.keys() - {"cf", "c0", "c1"}:
        raise Unfit(
            f"ImageJ calibrated it by its function {entries.get('cf', 'number unknown')}, which is no straight line",
            AS_32_BIT,
        )
    try:
        line = float(entries.get("c0", 0)), float(entries.get("c1", 1))
    except ValueError as error:
        raise Unfit(f"ImageJ's calibration of it is {entries}", AS_32_BIT) from error
    if line != (0, 1) and dtype.kind == "f":  # ImageJ itself leaves those as they are
        raise Unfit(
            "ImageJ calibrated it, which says nothing of numbers with fractions",
            "Remove the calibration (ImageJ: Analyze, Calibrate, Function None), and save it.",
        )
    return line


def _pixels(channel: Channel) -> np.ndarray:
    with _opened(channel.path) as tiff:
        series, (n, height_px, width_px) = _stack(tiff)
        if len(tiff.pages) == n and tiff.pages[channel.page].ndim == 2:
            _check_streams(tiff, tiff.pages[channel.page])
            return tiff.pages[channel.page].asarray()
        for page in tiff.pages:
            _check_streams(tiff, page)
        if series.dataoffset is not None:  # a whole stack behind one header: map it, read one plane
            stack = tiff.filehandle.memmap_array(
                tiff.byteorder + series.dtype.char, (n, height_px, width_px), series.dataoffset
            )
            return np.array(stack[channel.page])
        return series.asarray().reshape(n, height_px, width_px)[channel.page]


def _check_streams(tiff: tifffile.TiffFile, page: tifffile.TiffPage | tifffile.TiffFrame) -> None:
    """ValueError or Unfit for a page whose LZW streams imagecodecs cannot be given."""
    if page.compression != tifffile.COMPRESSION.LZW:
        return
    for stream, _ in tiff.filehandle.read_segments(page.dataoffsets, page.databytecounts):
        if page.keyframe.fillorder == tifffile.FILLORDER.LSB2MSB:
            stream = np.packbits(np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")).tobytes()
        lzw.check(stream)
