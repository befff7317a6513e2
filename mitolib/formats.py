"""Image files of the instrument and of common software -> named channels with raw counts.

- TIFF of one page, PNG, JPEG: the channel is named by the file, as MCD Viewer, mitocyto and this package write them
  (`160Gd_NDUFB8.ome.tiff`).
- TIFF of several pages or a CYX stack: named by PageName tags (MCD Viewer), OME-XML or ImageJ labels, else by the
  order of `panel.csv` (steinbock).
- .mcd and .txt of the instrument: by their own tables, through readimc; each acquisition of an .mcd is a section.

`channels` reads headers (of a .txt all of it, since its size stands nowhere); pixels are read channel by channel, by
`Channel.raw_yx`. Whatever is wrong with a file ends in a CohortError. Nothing in a file is executed, and no file is
opened because another names it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import tifffile
from PIL import Image
from readimc import MCDFile, TXTFile

SUFFIXES = (".tif", ".tiff", ".mcd", ".txt", ".png", ".jpg", ".jpeg")  # in order of preference
PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")  # of these, what any viewer opens
MAX_PX = 64_000_000  # of one channel: 8,000 x 8,000 um, more than a slide's largest ablation in a day
MAX_CHANNELS = 256
PAGE_NAME = 285  # TIFF tag
TEXT_START = "Start_push\t"

ELEMENTS = "Ag|Ar|Au|Ba|Bi|Ca|Cd|Ce|Cs|Dy|Er|Eu|Gd|Ho|I|In|Ir|La|Lu|Nd|Pb|Pd|Pr|Pt|Rh|Sm|Sn|Tb|Te|Tm|Xe|Y|Yb"
METAL = re.compile(rf"(\d{{2,3}})({ELEMENTS})|({ELEMENTS})(\d{{2,3}})")


class CohortError(ValueError):
    """A data folder that cannot be read as a cohort; the message names file, finding, want and remedy."""


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
        with _named(self.path, "cannot be decoded", "Copy the file again from its source."):
            raw_yx = _READERS[self.path.suffix.lower()](self)
        if raw_yx.shape != (self.height_px, self.width_px):
            raise CohortError(
                f"{self.path}: decodes to shape {raw_yx.shape}, its header said {(self.height_px, self.width_px)}. "
                "Copy the file again from its source."
            )
        if raw_yx.dtype.kind not in "uif" or raw_yx.dtype.itemsize > 8:
            raise CohortError(
                f"{self.path}: holds {raw_yx.dtype}, wanted counts as integers or floating-point numbers. "
                "Export the picture itself, not a mask of it."
            )
        if raw_yx.dtype == np.uint8:
            return raw_yx
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            counts_yx = raw_yx.astype(np.float32, copy=False)
        if not np.isfinite(counts_yx).all():
            n = int((~np.isfinite(counts_yx)).sum())
            raise CohortError(
                f"{self.path}: {n} pixels of {self.label or 'it'} are not finite numbers. "
                "Export it again; a count that was not measured is 0."
            )
        if counts_yx.size and counts_yx.min() < 0:
            raise CohortError(
                f"{self.path}: {self.label or 'it'} has counts down to {counts_yx.min():g}, wanted none below 0. "
                "Export raw counts, without background subtracted or compensation, or clip them at 0."
            )
        return counts_yx


@contextmanager
def _named(path: Path, finding: str, remedy: str) -> Iterator[None]:
    """Whatever a library raises about a file, as one CohortError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except CohortError:
        raise
    except MemoryError as error:
        raise CohortError(f"{path}: {finding}, it needs more memory than there is. Cut it into sections.") from error
    except Exception as error:
        reason = " ".join(str(error).replace(str(path), path.name).split())[:300] or type(error).__name__
        raise CohortError(f"{path}: {finding} ({reason}). {remedy}") from error


def metal(text: str) -> str | None:
    """ "Gd160" or "160Gd" as "160Gd"; None for what is no isotope."""
    match = METAL.fullmatch(text.strip())
    if not match:
        return None
    mass, element, element_first, mass_second = match.groups()
    return f"{mass or mass_second}{element or element_first}"


def is_picture(path: Path) -> bool:
    """Whether a file is a picture. A .txt is one if its first line is a table's header: a note is none."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    if path.suffix.lower() != ".txt":
        return True
    try:
        with path.open("rb") as file:
            return b"\t" in file.readline(100_000)
    except OSError:
        return True  # `channels` says what is wrong with it


def stem(path: Path) -> str:
    """A file's name without `.tif`, and without the `.ome` before it."""
    return re.sub(r"\.ome$", "", path.stem, flags=re.I)


def channels(path: Path) -> tuple[Channel, ...]:
    """The channels of a file in its own order; those of an .mcd with the number of their acquisition.

    Raises CohortError for a file that is empty, truncated, of another kind than its name says, or too large.
    """
    with _named(path, "cannot be read", "Copy the file again from its source."):
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        found = _HEADERS[path.suffix.lower()](path)
        if not found:
            raise ValueError("it holds no picture")
        return tuple(found)


def _checked(height_px: int, width_px: int, n_channels: int = 1) -> None:
    if not (height_px > 0 and width_px > 0):
        raise ValueError(f"a picture of {height_px} x {width_px} px (height x width)")
    if height_px * width_px > MAX_PX:
        raise ValueError(
            f"{height_px} x {width_px} px (height x width), more than {MAX_PX:,d} px: cut it into sections"
        )
    if n_channels > MAX_CHANNELS:
        raise ValueError(f"{n_channels} channels, wanted at most {MAX_CHANNELS}")


# TIFF, by tifffile. `is_ome=False`: its OME reader would open further files that the XML of this one names.


def _open_tiff(path: Path) -> tifffile.TiffFile:
    return tifffile.TiffFile(path, is_ome=False, is_mmstack=False)


def _stack(tiff: tifffile.TiffFile) -> tuple[tifffile.TiffPageSeries, tuple[int, ...]]:
    """The one picture or stack of a file, and its shape as CYX. ValueError if there is none or more than one."""
    if len(tiff.pages) > MAX_CHANNELS:
        raise ValueError(f"{len(tiff.pages)} pages, wanted at most {MAX_CHANNELS}")
    if len(tiff.series) != 1:
        shapes = ", ".join(str(series.shape) for series in tiff.series[:4])
        raise ValueError(f"pages of different kinds, of shapes {shapes}: wanted one greyscale stack")
    series = tiff.series[0]
    axes, shape = series.axes, series.shape
    if "S" in axes and axes.index("S") > axes.index("Y"):
        raise ValueError(f"a colour picture of shape {shape}: wanted one greyscale page for each protein")
    long = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis in "YX" or n != 1]
    if [axis for axis, _ in long[-2:]] != ["Y", "X"] or len(long) > 3:
        raise ValueError(f"axes {axes} of shape {shape}: wanted one greyscale page for each channel")
    return series, ((1,) if len(long) == 2 else ()) + tuple(n for _, n in long)


def _tiff_channels(path: Path) -> list[Channel]:
    with _open_tiff(path) as tiff:
        size = path.stat().st_size
        for page in tiff.pages:
            ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if ends and max(ends) > size:
                raise ValueError(f"truncated: {size} bytes where its header promises {max(ends)}")
        _, (n, height_px, width_px) = _stack(tiff)
        _checked(height_px, width_px, n)
        labels = [stem(path)] if n == 1 else _page_names(tiff, n) or _ome_names(tiff, n) or _imagej_names(tiff, n)
    return [_named_channel(path, label, height_px, width_px, index) for index, label in enumerate(labels or [None] * n)]


def _named_channel(path: Path, label: str | None, height_px: int, width_px: int, index: int) -> Channel:
    words = re.split(r"[\s_()\[\]-]+", label or "")
    return Channel(path, label, next(filter(None, map(metal, words)), None), height_px, width_px, index)


def _page_names(tiff: tifffile.TiffFile, n: int) -> list[str] | None:
    """MCD Viewer's ".ome.tiff" counts its channels as times and names them by page."""
    names = [page.tags.valueof(PAGE_NAME) for page in tiff.pages]
    return names if len(names) == n and all(isinstance(name, str) and name.strip() for name in names) else None


def _ome_names(tiff: tifffile.TiffFile, n: int) -> list[str] | None:
    text = tiff.pages[0].description
    if "<OME" not in text[:2000]:
        return None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("its OME-XML declares entities, which OME does not: wanted plain OME-XML")
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


# Hyperion's own formats, by readimc.


def _mcd_channels(path: Path) -> list[Channel]:
    found = []
    with MCDFile(path) as mcd:
        for acquisition in (a for slide in mcd.slides for a in slide.acquisitions):
            what = f"acquisition {acquisition.id}"
            height_px, width_px = acquisition.height_px, acquisition.width_px
            _checked(height_px, width_px, acquisition.num_channels)
            numbers = (int(acquisition.metadata[f"Data{end}Offset"]) for end in ("Start", "End"))
            start, end = numbers
            row_bytes = (acquisition.num_channels + 3) * int(acquisition.metadata["ValueBytes"])
            if end > path.stat().st_size:
                raise ValueError(f"truncated: {what} ends at byte {end} of {path.stat().st_size}")
            if (end - start) != height_px * width_px * row_bytes:
                raise ValueError(
                    f"{what} holds {(end - start) / row_bytes:g} of its {height_px * width_px} pixels: it was broken "
                    "off; export what is there as TIFF, or remove it"
                )
            for index, (label, name) in enumerate(
                zip(acquisition.channel_labels, acquisition.channel_names, strict=True)
            ):
                found.append(
                    Channel(path, label or name, metal(name), height_px, width_px, index, acquisition=acquisition.id)
                )
    return found


def _mcd_pixels(channel: Channel) -> np.ndarray:
    with MCDFile(channel.path) as mcd:
        acquisition = next(a for s in mcd.slides for a in s.acquisitions if a.id == channel.acquisition)
        return mcd.read_acquisition(acquisition, channels=[channel.index])[0]


def _txt_channels(path: Path) -> list[Channel]:
    with path.open("rb") as file:
        if not file.readline(100_000).startswith(TEXT_START.encode()):
            raise ValueError(f"its first line does not begin with {TEXT_START.strip()}: not a Hyperion text file")
    with TXTFile(path) as text:
        names = list(zip(text.channel_labels, text.channel_names, strict=True))
    image_cyx = _text(path, path.stat().st_mtime_ns)
    _, height_px, width_px = image_cyx.shape
    return [
        Channel(path, label or name, metal(name), height_px, width_px, index)
        for index, (label, name) in enumerate(names)
    ]


@lru_cache(maxsize=1)
def _text(path: Path, mtime_ns: int) -> np.ndarray:
    """The whole acquisition, (C, H, W) float32: a text file has to be read through for any one channel of it."""
    places = pd.read_table(path, usecols=["X", "Y"], dtype=np.float32)
    if not len(places) or not np.isfinite(places.to_numpy()).all() or places.min().min() < 0:
        raise ValueError("its columns X and Y are not the places of pixels")
    _checked(int(places["Y"].max()) + 1, int(places["X"].max()) + 1)
    with TXTFile(path) as text:
        return text.read_acquisition()


def _txt_pixels(channel: Channel) -> np.ndarray:
    return _text(channel.path, channel.path.stat().st_mtime_ns)[channel.index].copy()


# Other pictures, by Pillow.


def _picture_channels(path: Path) -> list[Channel]:
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        _checked(image.height, image.width)
        return [_named_channel(path, stem(path), image.height, image.width, 0)]


def _picture_pixels(channel: Channel) -> np.ndarray:
    with Image.open(channel.path, formats=("PNG", "JPEG")) as image:
        if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
            return np.asarray(image)
        colours = np.asarray(image.convert("RGB")).astype(np.int16)
        if np.ptp(colours, axis=-1).max() > 0:
            raise ValueError("a colour picture: wanted one greyscale picture for each protein")
        return colours[..., 0].astype(np.uint8)


_HEADERS = dict.fromkeys(SUFFIXES, _tiff_channels) | {".mcd": _mcd_channels, ".txt": _txt_channels}
_READERS = dict.fromkeys(SUFFIXES, _tiff_pixels) | {".mcd": _mcd_pixels, ".txt": _txt_pixels}
_HEADERS |= dict.fromkeys((".png", ".jpg", ".jpeg"), _picture_channels)
_READERS |= dict.fromkeys((".png", ".jpg", ".jpeg"), _picture_pixels)
