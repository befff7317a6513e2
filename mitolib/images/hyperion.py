"""Hyperion's own formats, .mcd and .txt: tables by readimc, which takes places on trust, pixels by `raster`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from readimc import MCDFile, TXTFile
from readimc.data import Acquisition
from readimc.mcd_parser import MCDParser

from mitolib.images.channel import Channel, Contents, Unfit, check_size
from mitolib.images.names import metal
from mitolib.images.text import TEXT_START, first_lines, what_was_changed

VALUE = np.dtype("<f4")  # of an .mcd
SIZES, PLACES = ("MaxX", "MaxY", "ValueBytes"), ("DataStartOffset", "DataEndOffset")  # what an acquisition says


def raster(x: np.ndarray, y: np.ndarray, values: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
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


@contextmanager
def _opened(file: MCDFile | TXTFile) -> Iterator[MCDFile | TXTFile]:
    """The file, closed in the end even if opening it failed halfway, where readimc's own `with` leaves it open."""
    with closing(file):
        file.open()
        yield file


def _acquisitions(path: Path) -> tuple[list[Acquisition], list[str], int]:
    """The acquisitions that belong to a slide, which are those that readimc gives, what is said of the others, and how
    many the tables list."""
    with closing(MCDFile(path)) as mcd:
        try:
            mcd.open()
            slides, odd = mcd.slides, []
        except (KeyError, ValueError):  # readimc takes it for granted that each says where its pixels lie
            sound, odd = _without_places(mcd.schema_xml)
            slides = MCDParser(sound).parse_slides()
        acquisitions = [acquisition for slide in slides for acquisition in slide.acquisitions]
        n = len(list(_elements(ElementTree.fromstring(mcd.schema_xml), "Acquisition")))
        if n and not acquisitions:
            raise ValueError(odd[0] if odd else f"its tables list {n} acquisitions, of which 0 belong to a slide")
        if homeless := n - len(acquisitions) - len(odd):
            odd.append(f"{homeless} acquisitions belong to no slide")
        return acquisitions, odd, n


def _without_places(schema_xml: str) -> tuple[str, list[str]]:
    """The tables of an .mcd without the acquisitions that do not say where their pixels lie, and what they lack."""
    root, odd = ElementTree.fromstring(schema_xml), []
    for acquisition in list(_elements(root, "Acquisition")):
        entries = {child.tag.rsplit("}", 1)[-1]: child.text or "" for child in acquisition}
        if absent := [name for name in PLACES if not entries.get(name, "").strip().lstrip("-").isdecimal()]:
            odd.append(f"acquisition {entries.get('ID', 'without a number')} has no {', '.join(absent)}")
            root.remove(acquisition)
    return ElementTree.tostring(root, "unicode"), odd


def _elements(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in root if child.tag.rsplit("}", 1)[-1] == name)


def mcd_contents(path: Path) -> Contents:
    """The channels of every whole acquisition. One that holds nothing, or was broken off, costs itself alone."""
    acquisitions, left_out, n = _acquisitions(path)
    size, channels = path.stat().st_size, []
    refused: list[ValueError] = []
    for acquisition in acquisitions:
        try:
            channels += _acquisition_channels(path, acquisition, size)
        except ValueError as reason:
            refused.append(reason)
            left_out.append(str(reason.args[0]))
    if refused and not channels:
        raise refused[0]
    return Contents(tuple(channels), tuple(left_out), n)


def _acquisition_channels(path: Path, acquisition: Acquisition, size: int) -> list[Channel]:
    """ValueError or Unfit for an acquisition that is not all there."""
    what = f"acquisition {acquisition.id}"
    if absent := [name for name in (*SIZES, *PLACES) if not acquisition.metadata.get(name, "").isdecimal()]:
        raise ValueError(f"{what} has no {', '.join(absent)}")
    width_px, height_px, value_bytes, start, end = (int(acquisition.metadata[name]) for name in (*SIZES, *PLACES))
    if start == end or not (width_px and height_px):
        raise Unfit(f"{what} of {height_px} x {width_px} px was never acquired", "Export another acquisition.")
    try:
        check_size(height_px, width_px, acquisition.num_channels)
    except Unfit as unfit:
        raise Unfit(f"{what}: {unfit.args[0]}", unfit.args[1]) from unfit
    if value_bytes != VALUE.itemsize:
        raise ValueError(f"{what} has values of {value_bytes} bytes, wanted {VALUE.itemsize}")
    row_bytes = (acquisition.num_channels + 3) * value_bytes
    if end > size:
        raise ValueError(f"truncated: {what} ends at byte {end} of {size}")
    if (end - start) != height_px * width_px * row_bytes:
        raise Unfit(
            f"{what} holds {(end - start) / row_bytes:g} of its {height_px * width_px} pixels: it was broken off",
            "Export what is there as TIFF, or remove it.",
        )
    labels = zip(acquisition.channel_labels, acquisition.channel_names, strict=True)
    return [
        Channel(
            path, label or name, metal(name), height_px, width_px, i, acquisition=acquisition.id, reader=_mcd_pixels
        )
        for i, (label, name) in enumerate(labels)
    ]


def _mcd_pixels(channel: Channel) -> np.ndarray:
    acquisition = next(a for a in _acquisitions(channel.path)[0] if a.id == channel.acquisition)
    shape = channel.height_px * channel.width_px, 3 + acquisition.num_channels  # X, Y, Z, then the channels
    table = np.memmap(channel.path, VALUE, "r", int(acquisition.metadata["DataStartOffset"]), shape)
    values = table[:, 3 + channel.index, None]
    return raster(table[:, 0], table[:, 1], values, channel.height_px, channel.width_px)[0]


def text_contents(path: Path) -> Contents:
    """The channels of a text export; all of it is read, since its size stands nowhere in it."""
    lines = first_lines(path)
    if not lines[0].startswith(TEXT_START):
        if changed := what_was_changed(lines):
            raise Unfit(changed, "Export it again from the instrument's software, or copy the file exported first.")
        raise ValueError(f"its first line does not begin with {TEXT_START.decode().strip()}: no Hyperion text file")
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read() != b"\n":
            raise ValueError("truncated: its last line has no end")
    with _opened(TXTFile(path)) as text:
        names = list(zip(text.channel_labels, text.channel_names, strict=True))
    check_size(1, 1, len(names))
    height_px, width_px = _text_size(path, path.stat().st_mtime_ns)
    return Contents(
        tuple(
            Channel(path, label or name, metal(name), height_px, width_px, index, reader=_text_pixels)
            for index, (label, name) in enumerate(names)
        )
    )


@lru_cache(maxsize=1024)
def _text_size(path: Path, mtime_ns: int) -> tuple[int, int]:
    """Height and width; kept, since a folder is read for its headers more than once."""
    return _text(path, mtime_ns).shape[1:]


@lru_cache(maxsize=1)
def _text(path: Path, mtime_ns: int) -> np.ndarray:
    """The whole acquisition, (C, H, W) float32: a text file has to be read through for any one channel of it."""
    table = _decimal_commas(path) if _has_commas(path) else pd.read_table(path, dtype=np.float32, index_col=False)
    x, y = table["X"].to_numpy(), table["Y"].to_numpy()
    if not len(table) or not np.isfinite([x.max(), y.max()]).all():
        raise ValueError("its columns X and Y are not the places of pixels")
    height_px, width_px = int(y.max()) + 1, int(x.max()) + 1
    check_size(height_px, width_px)
    return raster(x, y, table.to_numpy()[:, 6:], height_px, width_px)


def _has_commas(path: Path) -> bool:
    with path.open("rb") as file:
        file.readline()
        return any(b"," in part for part in iter(lambda: file.read(1 << 20), b""))


def _decimal_commas(path: Path) -> pd.DataFrame:
    """A table in which some program wrote 8,302 for 8.302. Unfit where 8,302 may as well be 8302."""
    table = pd.read_table(path, dtype=str, index_col=False)
    numbers = {}
    for name, column in table.items():
        has_comma = column.str.contains(",", regex=False, na=False)
        n_commas = int(has_comma.sum())
        if n_commas and (n_commas < len(column) or column.str.contains(".", regex=False).any()):
            raise Unfit(
                f"in its column {name}, {n_commas} of {len(column)} numbers have a comma, as in "
                f"{column[has_comma].iloc[0]!r}: of decimals or of thousands",
                "Export it again, with decimal points.",
            )
        numbers[name] = column.str.replace(",", ".", regex=False).astype(np.float32)
    return pd.DataFrame(numbers)


def _text_pixels(channel: Channel) -> np.ndarray:
    return _text(channel.path, channel.path.stat().st_mtime_ns)[channel.index].copy()
