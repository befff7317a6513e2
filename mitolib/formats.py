"""Image files of the instrument and of common software -> named channels with raw counts.

- TIFF of one page, PNG, JPEG: the channel is named by the file, as MCD Viewer, mitocyto and this package write them
  (`160Gd_NDUFB8.ome.tiff`).
- TIFF of several pages or a CYX stack: named by PageName tags (MCD Viewer), OME-XML or ImageJ labels, else by the
  order of `panel.csv` (steinbock).
- .mcd and .txt of the instrument: by their own tables, through readimc; each acquisition of an .mcd is a section.

`channels` reads headers (of a .txt all of it, since its size stands nowhere); pixels are read channel by channel, by
`Channel.raw_yx`. Whatever is wrong with a file ends in a CohortError. Nothing in a file is executed, no file is opened
because another names it, and none takes more memory than a picture of MAX_PX: what a header claims is checked first.

What no check can see: a .txt cut off behind a whole row of pixels, and a .jpg that ends early in good form.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import tifffile
from PIL import Image
from readimc import MCDFile, TXTFile
from readimc.data import Acquisition

SUFFIXES = (".tif", ".tiff", ".mcd", ".txt", ".png", ".jpg", ".jpeg")  # in order of preference
PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")  # of these, what any viewer opens
MAX_PX = 64_000_000  # of one channel: 8,000 x 8,000 um, more than a slide's largest ablation in a day
MAX_CHANNELS = 256
MAX_BLOCK_BYTES = 8 * MAX_PX  # of what a TIFF must decode at once: a tile, or a stack that is one page
PAGE_NAME = 285  # TIFF tag
TEXT_START = b"Start_push\t"

# Of these the decoded size is known beforehand, and they keep counts: a few hundred bytes of JPEG or JPEG 2000 in a
# TIFF can decode to gigabytes, whatever the TIFF's own header says.
COMPRESSIONS = {
    tifffile.COMPRESSION[n] for n in ("NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "ZSTD", "LZMA")
}

MASSES = {  # lowest and highest of each element met in mass cytometry: "Cd163" is a macrophage, no cadmium
    **{"ArAr": (80, 80), "Y": (89, 89), "Zr": (90, 96), "Ru": (96, 104), "Rh": (103, 103), "Pd": (102, 110)},
    **{"Ag": (107, 109), "Cd": (106, 116), "In": (113, 115), "Sn": (112, 124), "Sb": (121, 123), "Te": (120, 130)},
    **{"I": (127, 127), "Xe": (124, 136), "Cs": (133, 133), "Ba": (130, 138), "La": (138, 139), "Ce": (136, 142)},
    **{"Pr": (141, 141), "Nd": (142, 150), "Sm": (144, 154), "Eu": (151, 153), "Gd": (152, 160), "Tb": (159, 159)},
    **{"Dy": (156, 164), "Ho": (165, 165), "Er": (162, 170), "Tm": (169, 169), "Yb": (168, 176), "Lu": (175, 176)},
    **{"Os": (184, 192), "Ir": (191, 193), "Pt": (190, 198), "Au": (197, 197), "Pb": (204, 208), "Bi": (209, 209)},
}
METAL = re.compile(r"(\d{2,3})([A-Za-z]+)|([A-Za-z]+?)(\d{2,3})(?:Di)?")  # "Di": so in the header of a .txt


class CohortError(ValueError):
    """A data folder that cannot be read as a cohort; the message names file, finding, want and remedy."""


class _Unfit(ValueError):
    """Finding and remedy of a file that is whole, and of no use here: to copy it again would not help."""


@dataclass(frozen=True)
class Channel:
    """One channel of one file: what it is called there, its size, and how to reach its pixels."""

    path: Path
    label: str | None  # as in the file, or the file's name; None in a stack whose pages have no names
    metal: str | None  # "160Gd", where the file says so
    height_px: int
    width_px: int
    index: int = 0  # among the channels of its file or acquisition
    acquisition: int | None = None  # of an .mcd, counted as in the file

    def raw_yx(self) -> np.ndarray:
        """(height_px, width_px), uint8 if the file holds bytes, else float32 counts.

        Raises CohortError for a picture that cannot be decoded, is in colour, has another size than its header
        said, or holds values that are no counts.
        """
        with named(self.path, "cannot be decoded", "Copy the file again from its source."):
            raw_yx = _READERS[self.path.suffix.lower()](self)
        if raw_yx.shape != (self.height_px, self.width_px):
            raise CohortError(
                f"{self.path}: decodes to shape {raw_yx.shape}, its header said {(self.height_px, self.width_px)}. "
                "Copy the file again from its source."
            )
        if raw_yx.dtype == np.uint8:
            return raw_yx
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            counts_yx = raw_yx.astype(np.float32, copy=False)
        lowest, highest = counts_yx.min(), counts_yx.max()  # NaN if there is one
        if not np.isfinite((lowest, highest)).all():
            n = int((~np.isfinite(counts_yx)).sum())
            raise CohortError(
                f"{self.path}: {n} pixels of {self.label or 'it'} are not finite numbers. "
                "Export it again; a count that was not measured is 0."
            )
        if lowest < 0:
            raise CohortError(
                f"{self.path}: {self.label or 'it'} has counts down to {lowest:g}, wanted none below 0. "
                "Export raw counts, without background subtracted or compensation, or clip them at 0."
            )
        return counts_yx


@contextmanager
def named(path: Path, finding: str, remedy: str) -> Iterator[None]:
    """Whatever a library raises about a file, as one CohortError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("error", pd.errors.ParserWarning)  # cells left out
            yield
    except CohortError:
        raise
    except _Unfit as unfit:
        raise CohortError(f"{path}: {finding} ({unfit.args[0]}). {unfit.args[1]}") from unfit
    except MemoryError as error:
        raise CohortError(f"{path}: {finding}, it needs more memory than there is. Cut it into sections.") from error
    except Exception as error:
        reason = " ".join(str(error).replace(str(path), path.name).split())[:300] or type(error).__name__
        raise CohortError(f"{path}: {finding} ({reason}). {remedy}") from error


def metal(text: str) -> str | None:
    """ "Gd160", "Gd160Di" or "160Gd" as "160Gd"; None for what is no isotope."""
    match = METAL.fullmatch(text.strip())
    if not match:
        return None
    mass, element = match[1] or match[4], match[2] or match[3]
    lowest, highest = MASSES.get(element, (1, 0))
    return f"{mass}{element}" if lowest <= int(mass) <= highest else None


def is_picture(path: Path) -> bool:
    """Whether a file is a picture, good or bad: `channels` says what is wrong with it. A .txt is none if it is a note.

    What is empty, broken off in the first word, or no text at all, is no note: it may have been a section.
    """
    if path.suffix.lower() != ".txt":
        return path.suffix.lower() in SUFFIXES
    if not path.is_file():  # a pipe would be waited for
        return True
    try:
        with path.open("rb") as file:
            start = file.readline(100_000)
    except OSError:
        return True
    return b"\t" in start or b"\0" in start or TEXT_START.startswith(start)


def stem(path: Path) -> str:
    """A file's name without `.tif`, and without the `.ome` before it."""
    return re.sub(r"\.ome$", "", path.stem, flags=re.I)


def channels(path: Path) -> tuple[Channel, ...]:
    """The channels of a file in its own order; those of an .mcd with the number of their acquisition.

    Raises CohortError for a file that is empty, truncated, of another kind than its name says, or too large.
    """
    with named(path, "cannot be read", "Copy the file again from its source."):
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        found = _HEADERS[path.suffix.lower()](path)
        if not found:
            raise ValueError("it holds no picture")
        return tuple(found)


def _check(height_px: int, width_px: int, n_channels: int = 1, dtype: np.dtype | None = None) -> None:
    if not (height_px > 0 and width_px > 0):
        raise ValueError(f"a picture of {height_px} x {width_px} px (height x width)")
    if height_px * width_px > MAX_PX:
        raise _Unfit(f"{height_px} x {width_px} px (height x width), more than {MAX_PX:,d} px", "Cut it into sections.")
    if not 0 < n_channels <= MAX_CHANNELS:
        raise _Unfit(
            f"{n_channels} channels, wanted 1 to {MAX_CHANNELS}", "Export only the proteins that were stained."
        )
    if dtype is not None and (dtype.kind not in "uif" or dtype.itemsize > 8):
        raise _Unfit(
            f"it holds {dtype}, wanted counts as integers or floating-point numbers", "Export the picture, not a mask."
        )


def _raster(x: np.ndarray, y: np.ndarray, values: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """(C, height_px, width_px) float32 from (N,) places and (N, C) values. ValueError unless each is there once."""
    if len(x) != height_px * width_px:
        raise ValueError(f"{len(x)} pixels, wanted {height_px} x {width_px} (height x width): it was broken off")
    inside = (x >= 0) & (x < width_px) & (y >= 0) & (y < height_px)  # False for NaN
    if not inside.all():
        raise ValueError(f"{int((~inside).sum())} pixels lie outside {height_px} x {width_px} px (height x width)")
    places = y.astype(np.int64) * width_px + x.astype(np.int64)
    there = np.zeros(height_px * width_px, bool)
    there[places] = True
    if not there.all():
        raise ValueError(f"{int((~there).sum())} pixels are missing, and as many are there twice")
    image_cyx = np.empty((values.shape[1], height_px * width_px), np.float32)
    image_cyx[:, places] = values.T
    return image_cyx.reshape(-1, height_px, width_px)


# TIFF, by tifffile, without its readers of sets of files: they would open what the metadata of this file name.


def _open_tiff(path: Path) -> tifffile.TiffFile:
    return tifffile.TiffFile(path, is_ome=False, is_mmstack=False, is_ndtiff=False)


def _stack(tiff: tifffile.TiffFile) -> tuple[tifffile.TiffPageSeries, tuple[int, ...]]:
    """The one picture or stack of a file, and its shape as CYX. ValueError if there is none or more than one."""
    if len(tiff.pages) > MAX_CHANNELS:
        raise _Unfit(f"{len(tiff.pages)} pages, wanted at most {MAX_CHANNELS}", "Keep one page for each protein.")
    if len(tiff.series) != 1:
        shapes = ", ".join(str(series.shape) for series in tiff.series[:4])
        raise _Unfit(f"pages of different kinds, of shapes {shapes}", "Save it as one greyscale stack.")
    series = tiff.series[0]
    axes, shape = series.axes, series.shape
    if "S" in axes and axes.index("S") > axes.index("Y"):
        raise _Unfit(f"a colour picture of shape {shape}", "Export one greyscale page for each protein.")
    long = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis in "YX" or n != 1]
    if [axis for axis, _ in long[-2:]] != ["Y", "X"] or len(long) > 3:
        raise _Unfit(f"axes {axes} of shape {shape}", "Export one greyscale page for each protein.")
    return series, ((1,) if len(long) == 2 else ()) + tuple(n for _, n in long)


def _check_page(page: tifffile.TiffPage | tifffile.TiffFrame, size: int) -> None:
    """ValueError for a page of a file of `size` bytes that is not all there, or cannot be decoded in bounded memory."""
    if page.compression not in COMPRESSIONS:
        kind = getattr(page.compression, "name", page.compression)
        raise _Unfit(f"compression {kind}, wanted one that keeps counts", "Save it with LZW, deflate or none.")
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        raise _Unfit("its greys are inverted, 0 is white", "Export it with 0 as black.")
    if math.prod(page.chunks) * page.dtype.itemsize > MAX_BLOCK_BYTES:
        raise _Unfit(f"tiles of shape {page.chunks}", "Save it with smaller tiles, or with none.")
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not parts or not all(offset and n for offset, n in parts):
        raise ValueError("truncated: parts of its picture were never written")
    if (end := max(offset + n for offset, n in parts)) > size:
        raise ValueError(f"truncated: {size} bytes where its header promises {end}")


def _check_chain(tiff: tifffile.TiffFile) -> None:
    """ValueError if the last page that could be read names a further one: tifffile goes on without those cut off."""
    layout, file = tiff.tiff, tiff.filehandle
    file.seek(tiff.pages[-1].offset)
    (n_tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(n_tags * layout.tagsize, 1)
    if struct.unpack(layout.offsetformat, file.read(layout.offsetsize)) != (0,):
        raise ValueError(f"truncated: there were more than its {len(tiff.pages)} pages")


def _tiff_channels(path: Path) -> list[Channel]:
    with _open_tiff(path) as tiff:
        series, (n, height_px, width_px) = _stack(tiff)
        _check(height_px, width_px, n, series.dtype)
        size = path.stat().st_size
        for page in tiff.pages:
            _check_page(page, size)
        _check_chain(tiff)
        if len(tiff.pages) != n:  # the stack is one page
            n_bytes = n * height_px * width_px * series.dtype.itemsize
            if series.dataoffset is None and n_bytes > MAX_BLOCK_BYTES:
                raise _Unfit(f"{n_bytes:,d} bytes in one compressed page", "Save it with one page for each protein.")
            if series.dataoffset is not None and series.dataoffset + n_bytes > size:
                raise ValueError(f"truncated: {size} bytes where its header promises {series.dataoffset + n_bytes}")
        labels = [stem(path)] if n == 1 else _page_names(tiff, n) or _ome_names(tiff, n) or _imagej_names(tiff, n)
    return [_named_channel(path, label, height_px, width_px, index) for index, label in enumerate(labels or [None] * n)]


def _named_channel(path: Path, label: str | None, height_px: int, width_px: int, index: int) -> Channel:
    words = re.findall(r"[A-Za-z0-9]+", label or "")
    return Channel(path, label, next(filter(None, map(metal, words)), None), height_px, width_px, index)


def _page_names(tiff: tifffile.TiffFile, n: int) -> list[str] | None:
    """MCD Viewer's ".ome.tiff" counts its channels as times and names them by page."""
    names = [page.tags.valueof(PAGE_NAME) for page in tiff.pages]
    return names if len(names) == n and all(isinstance(name, str) and name.strip() for name in names) else None


def _ome_names(tiff: tifffile.TiffFile, n: int) -> list[str] | None:
    text = tiff.pages[0].description
    if not re.search(r"<(\w+:)?OME\b", text[:2000]):
        return None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise _Unfit("its OME-XML declares entities, which OME does not", "Save it as a plain TIFF.")
    found = [e for e in ElementTree.fromstring(text.encode()).iter() if e.tag.rsplit("}", 1)[-1] == "Channel"]
    names = [e.get("Name") or e.get("Fluor") for e in found]
    return names if len(names) == n and all(names) else None


def _imagej_names(tiff: tifffile.TiffFile, n: int) -> list[str] | None:
    names = (tiff.imagej_metadata or {}).get("Labels") or []
    return list(names) if len(names) == n and all(names) else None


def _tiff_pixels(channel: Channel) -> np.ndarray:
    with _open_tiff(channel.path) as tiff:
        series, (n, height_px, width_px) = _stack(tiff)
        if len(tiff.pages) == n and tiff.pages[channel.index].ndim == 2:
            return tiff.pages[channel.index].asarray()
        if series.dataoffset is not None:  # a whole stack behind one header: map it, read one plane
            stack = tiff.filehandle.memmap_array(
                tiff.byteorder + series.dtype.char, (n, height_px, width_px), series.dataoffset
            )
            return np.array(stack[channel.index])
        return series.asarray().reshape(n, height_px, width_px)[channel.index]


# Hyperion's own formats: their tables by readimc, which takes places on trust, the pixels by `_raster`.

VALUE = np.dtype("<f4")  # of an .mcd


@contextmanager
def _opened(file: MCDFile | TXTFile) -> Iterator[MCDFile | TXTFile]:
    """The file, closed in the end even if opening it failed halfway, where readimc's own `with` leaves it open."""
    with closing(file):
        file.open()
        yield file


def _acquisitions(path: Path) -> list[Acquisition]:
    with _opened(MCDFile(path)) as mcd:
        found = [acquisition for slide in mcd.slides for acquisition in slide.acquisitions]
        if (n := mcd.schema_xml.count("<Acquisition>")) != len(found):  # readimc leaves out what belongs to no region
            raise ValueError(f"its tables list {n} acquisitions, of which {len(found)} belong to a slide")
        return found


def _mcd_channels(path: Path) -> list[Channel]:
    found, size = [], path.stat().st_size
    for acquisition in _acquisitions(path):
        what = f"acquisition {acquisition.id}"
        needed = ("MaxX", "MaxY", "ValueBytes", "DataStartOffset", "DataEndOffset")
        if absent := [name for name in needed if not acquisition.metadata.get(name, "").isdecimal()]:
            raise ValueError(f"{what} has no {', '.join(absent)}")
        width_px, height_px, value_bytes, start, end = (int(acquisition.metadata[name]) for name in needed)
        _check(height_px, width_px, acquisition.num_channels)
        if value_bytes != VALUE.itemsize:
            raise ValueError(f"{what} has values of {value_bytes} bytes, wanted {VALUE.itemsize}")
        row_bytes = (acquisition.num_channels + 3) * value_bytes
        if end > size:
            raise ValueError(f"truncated: {what} ends at byte {end} of {size}")
        if (end - start) != height_px * width_px * row_bytes:
            raise _Unfit(
                f"{what} holds {(end - start) / row_bytes:g} of its {height_px * width_px} pixels: it was broken off",
                "Export what is there as TIFF, or remove it.",
            )
        for index, (label, name) in enumerate(zip(acquisition.channel_labels, acquisition.channel_names, strict=True)):
            found.append(
                Channel(path, label or name, metal(name), height_px, width_px, index, acquisition=acquisition.id)
            )
    return found


def _mcd_pixels(channel: Channel) -> np.ndarray:
    acquisition = next(a for a in _acquisitions(channel.path) if a.id == channel.acquisition)
    shape = channel.height_px * channel.width_px, 3 + acquisition.num_channels  # X, Y, Z, then the channels
    table = np.memmap(channel.path, VALUE, "r", int(acquisition.metadata["DataStartOffset"]), shape)
    values = table[:, 3 + channel.index, None]
    return _raster(table[:, 0], table[:, 1], values, channel.height_px, channel.width_px)[0]


def _txt_channels(path: Path) -> list[Channel]:
    with path.open("rb") as file:
        if not file.readline(100_000).startswith(TEXT_START):
            raise ValueError(f"its first line does not begin with {TEXT_START.decode().strip()}: no Hyperion text file")
        file.seek(-1, 2)
        if file.read() != b"\n":
            raise ValueError("truncated: its last line has no end")
    with _opened(TXTFile(path)) as text:
        names = list(zip(text.channel_labels, text.channel_names, strict=True))
    _check(1, 1, len(names))
    _, height_px, width_px = _text(path, path.stat().st_mtime_ns).shape
    return [
        Channel(path, label or name, metal(name), height_px, width_px, index)
        for index, (label, name) in enumerate(names)
    ]


@lru_cache(maxsize=1)
def _text(path: Path, mtime_ns: int) -> np.ndarray:
    """The whole acquisition, (C, H, W) float32: a text file has to be read through for any one channel of it."""
    table = pd.read_table(path, dtype=np.float32, index_col=False)
    x, y = table["X"].to_numpy(), table["Y"].to_numpy()
    if not len(table) or not np.isfinite([x.max(), y.max()]).all():
        raise ValueError("its columns X and Y are not the places of pixels")
    height_px, width_px = int(y.max()) + 1, int(x.max()) + 1
    _check(height_px, width_px)
    return _raster(x, y, table.to_numpy()[:, 6:], height_px, width_px)


def _txt_pixels(channel: Channel) -> np.ndarray:
    return _text(channel.path, channel.path.stat().st_mtime_ns)[channel.index].copy()


# Other pictures, by Pillow.


def _picture_channels(path: Path) -> list[Channel]:
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        _check(image.height, image.width)
        if image.mode == "1":
            raise _Unfit("it holds black and white, wanted counts", "Export the picture, not a mask.")
        return [_named_channel(path, stem(path), image.height, image.width, 0)]


def _picture_pixels(channel: Channel) -> np.ndarray:
    with Image.open(channel.path, formats=("PNG", "JPEG")) as image:
        if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
            return np.asarray(image)
        colours = image if image.mode in ("RGB", "RGBA") else image.convert("RGB")
        grey, *others = (np.asarray(colours.getchannel(colour)) for colour in "RGB")
        if any((other != grey).any() for other in others):
            raise _Unfit("a colour picture", "Export one greyscale picture for each protein.")
        return grey


_HEADERS = dict.fromkeys(SUFFIXES, _tiff_channels) | {".mcd": _mcd_channels, ".txt": _txt_channels}
_READERS = dict.fromkeys(SUFFIXES, _tiff_pixels) | {".mcd": _mcd_pixels, ".txt": _txt_pixels}
_HEADERS |= dict.fromkeys((".png", ".jpg", ".jpeg"), _picture_channels)
_READERS |= dict.fromkeys((".png", ".jpg", ".jpeg"), _picture_pixels)
