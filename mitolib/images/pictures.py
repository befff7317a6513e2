"""PNG and JPEG, by Pillow."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from mitolib.images.channel import Channel, Contents, Unfit, check_size

ORIENTATION = 274  # EXIF tag
PNG_START = b"\x89PNG\r\n\x1a\n"
UPRIGHT = (0, 1)  # 0: unknown, as some programs write it
ONE_GREY = "Export one greyscale picture for each protein."


def contents(path: Path) -> Contents:
    """The one channel of a picture, named by its file."""
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        check_size(image.height, image.width)
        if image.mode == "1":
            raise Unfit("it holds black and white, wanted counts", "Export the picture, not a mask.")
        if image.mode not in ("L", "I", "F", "P", "PA", "LA", "RGB", "RGBA") and not image.mode.startswith("I;16"):
            raise Unfit(f"a colour picture ({image.mode})", ONE_GREY)
        if (n := getattr(image, "n_frames", 1)) > 1:
            raise Unfit(f"it holds {n} pictures", "Export each as a file of its own.")
        _check_depth(path, image)
        _check_upright(image)
        is_lossy = image.format != "PNG"
        return Contents((Channel(path, path.stem, None, image.height, image.width, is_lossy=is_lossy, reader=_pixels),))


def _check_depth(path: Path, image: Image.Image) -> None:
    """Unfit for a PNG of 16 bits with colour or transparency, of which Pillow gives the upper half of each number."""
    with path.open("rb") as file:
        start = file.read(26)
    if start.startswith(PNG_START) and start[24] == 16 and not (image.mode == "I" or image.mode.startswith("I;16")):
        raise Unfit("16 bits with colour or transparency", ONE_GREY)


def _check_upright(image: Image.Image) -> None:
    """Unfit for a picture that a viewer would turn; its EXIF or XMP says so."""
    exif = Image.Exif()  # not image.getexif(), which decodes a PNG to look behind its pixels
    exif.load(image.info.get("exif"))
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    said = re.search(rb"tiff:Orientation(?:=\"|>)([0-9])", xmp if isinstance(xmp, bytes) else xmp.encode())
    turned = exif.get(ORIENTATION, int(said[1]) if said else 1)
    if turned not in UPRIGHT:
        raise Unfit(f"its header says that it lies turned or mirrored (Orientation {turned})", "Save it upright.")


def _pixels(channel: Channel) -> np.ndarray:
    with Image.open(channel.path, formats=("PNG", "JPEG")) as image:
        image.load()
        _check_upright(image)  # of a PNG that says it behind its pixels
        if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
            return np.asarray(image)
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
            raise Unfit("parts of it are transparent", "Export it without transparency.")
        colours = image if image.mode in ("RGB", "RGBA") else image.convert("RGB")
        grey, *others = (np.asarray(colours.getchannel(colour)) for colour in "RGB")
        if any((other != grey).any() for other in others):
            raise Unfit("a colour picture", ONE_GREY)
        return grey
