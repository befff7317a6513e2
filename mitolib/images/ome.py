"""OME-XML in a TIFF: what the channels are called, and which page holds which of them.

After https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html. Nothing that it names is opened.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from xml.etree import ElementTree

import numpy as np

from mitolib.images.channel import Unfit

TYPES = {"int8": "i1", "int16": "i2", "int32": "i4", "uint8": "u1", "uint16": "u2", "uint32": "u4"}


@dataclass(frozen=True)
class Description:
    """What the one Pixels element of a file says of it."""

    names: list[str | None]  # of the channels, empty where there are none
    planes: list[int]  # the page of each channel, or of each plane where these count as times
    depth: int  # planes in Z or time for each channel; 1 where nothing is said
    width_px: int | None
    height_px: int | None
    type: str | None  # as OME spells it


def read(text: str, file_name: str, n: int) -> Description | None:
    """The description of a file of `n` planes; None for text that is no OME-XML, or describes no pixels or channels.

    Raises Unfit for entities, several pictures, planes in other files, or another number of planes than there are.
    """
    if not re.search(r"<(\w+:)?OME\b", text[:2000]):
        return None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise Unfit("its OME-XML declares entities, which OME does not", "Save it as a plain TIFF.")
    root = ElementTree.fromstring(text.encode())
    pictures = list(_all(root, "Pixels"))
    if len(pictures) > 1:
        return _one_plane_each(pictures, n)
    pixels = pictures[0] if pictures else root
    channels = list(_all(pixels, "Channel"))
    sizes = {axis: _whole(pixels, f"Size{axis}") for axis in "CZTYX"}
    counts = {axis: sizes[axis] or 1 for axis in "ZT"}
    counts["C"] = sizes["C"] or max(1, n // (counts["Z"] * counts["T"]))
    if sizes["C"] and n != (described := math.prod(counts.values())):
        raise Unfit(
            f"its OME-XML describes {described} planes, the file has {n}",
            "Export it again, or save it as a plain TIFF.",
        )
    return Description(
        names=[channel.get("Name") or channel.get("Fluor") for channel in channels],
        planes=_planes(pixels, counts, file_name, n),
        depth=counts["Z"] * counts["T"],
        width_px=sizes["X"],
        height_px=sizes["Y"],
        type=pixels.get("Type"),
    )


def _one_plane_each(pictures: list[ElementTree.Element], n: int) -> Description:
    """Of pictures of one plane, as software writes them that saves page by page: as many channels of one picture.

    Raises Unfit for pictures of several planes, of different sizes or types, or not one for each page.
    """
    alike = {tuple(pixels.get(key) for key in ("SizeX", "SizeY", "Type")) for pixels in pictures}
    counts = {_whole(pixels, f"Size{axis}") or 1 for pixels in pictures for axis in "CZT"}
    blocks = [next(_all(pixels, "TiffData"), None) for pixels in pictures]
    planes = [number if block is None else _whole(block, "IFD") or 0 for number, block in enumerate(blocks)]
    if len(alike) > 1 or counts != {1} or sorted(planes) != list(range(n)):
        raise Unfit(
            f"its OME-XML describes {len(pictures)} pictures", "Save each as a file of its own, or as a plain TIFF."
        )
    channels = [next(_all(pixels, "Channel"), None) for pixels in pictures]
    return Description(
        names=[None if channel is None else channel.get("Name") or channel.get("Fluor") for channel in channels],
        planes=planes,
        depth=1,
        width_px=_whole(pictures[0], "SizeX"),
        height_px=_whole(pictures[0], "SizeY"),
        type=pictures[0].get("Type"),
    )


def agree(description: Description, height_px: int, width_px: int, dtype: np.dtype, *, one_page_each: bool) -> None:
    """Unfit where the description and the TIFF's own header disagree: nobody can know which of the two is right."""
    described = description.height_px, description.width_px
    if None not in described and described != (height_px, width_px):
        raise Unfit(
            f"its OME-XML says {described[0]} x {described[1]} px (height x width), its header "
            f"{height_px} x {width_px}",
            "Export it again.",
        )
    wanted = TYPES.get(description.type)
    if wanted and dtype.kind in "iu" and np.dtype(wanted) != dtype.newbyteorder("="):
        raise Unfit(f"its OME-XML says {description.type}, its header {dtype.name}", "Export it again.")
    if not one_page_each and description.planes != sorted(description.planes):
        raise Unfit("its OME-XML names another order of pages, and it has one page", "Save one page for each protein.")


def _planes(pixels: ElementTree.Element, counts: dict[str, int], file_name: str, n: int) -> list[int]:
    """The page of each plane, channels first, by the TiffData elements; without any, in the order of the file."""
    axes = [axis for axis in pixels.get("DimensionOrder", "XYCZT")[::-1] if axis in counts]  # the slowest first
    places = [dict(zip(axes, place, strict=True)) for place in product(*(range(counts[axis]) for axis in axes))]
    rank = {tuple(place[axis] for axis in "CZT"): i for i, place in enumerate(places)}
    blocks = list(_all(pixels, "TiffData"))
    files = {uuid.get("FileName") or file_name for block in blocks for uuid in _all(block, "UUID")}
    if len(files) > 1:  # one other name is that of this file before it was renamed
        raise Unfit(f"its OME-XML says that its planes lie in {', '.join(sorted(files))}", "Save it as one file.")
    pages: dict[int, int] = {} if blocks else dict(enumerate(range(n)))
    for block in blocks:
        first = rank.get(tuple(_whole(block, f"First{axis}") or 0 for axis in "CZT"))
        ifd, count = _whole(block, "IFD"), _whole(block, "PlaneCount")
        count = count if count is not None else (1 if ifd is not None else n)
        for step in range(min(count, n) if first is not None else 0):
            pages[first + step] = (ifd or 0) + step
    wanted = [rank[place] for place in sorted(rank, key=lambda place: (place[1:], place[0]))]
    planes = [pages.get(place) for place in wanted]
    if sorted(page for page in planes if page is not None) != list(range(n)):
        raise Unfit(
            f"its OME-XML puts its {n} planes on pages {', '.join(str(page) for page in planes)}; wanted each once",
            "Export it again, or save it as a plain TIFF.",
        )
    return planes


def _all(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Elements of that name, whatever their namespace."""
    return (child for child in element.iter() if isinstance(child.tag, str) and child.tag.rsplit("}", 1)[-1] == name)


def _whole(element: ElementTree.Element, name: str) -> int | None:
    text = element.get(name, "")
    return int(text) if text.isdecimal() else None
