"""The patch grid as a table, the pixels behind it, and augmentation.

Libraries of image processing are imported where they are used: the grid alone, which a check of a folder draws, waits
for none of them.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mitolib.cohort import CohortError, Section
from mitolib.progress import track
from mitolib.settings import DATA

CACHE = DATA / "cache"
TISSUE_CELL_PX = 16  # fine enough for a cleft, coarse enough to smooth shot noise


def grid(sections: Sequence[Section], *, size_px: int = 512, stride_px: int) -> pd.DataFrame:
    """One row per patch: section, subject, label, y, x, size; y and x are the upper left corner in px.

    Along an axis of L px the grid has `(L - size_px) // stride_px + 1` patches, which is what patchify
    cuts; a remainder at the lower and right edge is left out. Raises CohortError for a section smaller
    than one patch.
    """
    rows = []
    for section in sections:
        if min(section.height_px, section.width_px) < size_px:
            files = ", ".join(dict.fromkeys(str(channel.path) for channel in section.channels.values()))
            raise CohortError(
                f"{files}: section {section.section} is "
                f"{section.height_px} x {section.width_px} px (height x width), wanted at least one patch of "
                f"{size_px} px. Leave the section out, or take smaller patches: -p patch_px."
            )
        rows += [
            (section.section, section.subject, section.label, y, x, size_px)
            for y in range(0, section.height_px - size_px + 1, stride_px)
            for x in range(0, section.width_px - size_px + 1, stride_px)
        ]
    return pd.DataFrame(rows, columns=["section", "subject", "label", "y", "x", "size"])


def tissue(table: pd.DataFrame, sections: Sequence[Section], protein: str) -> pd.Series:
    """Share of each patch that is tissue, 0 to 1, in the table's row order.

    A cell of 16 x 16 px is tissue where its mean lies above Otsu's threshold of the section's cells.
    """
    from skimage.filters import threshold_otsu
    from skimage.measure import block_reduce

    shares = pd.Series(0.0, index=table.index, name="tissue")
    for section in track(sections, "tissue", len(sections)):
        cells_yx = block_reduce(section.image_yx(protein), TISSUE_CELL_PX, np.mean)
        is_tissue_yx = cells_yx > threshold_otsu(cells_yx)
        for row in table[table["section"] == section.section].itertuples():
            y, x, n = row.y // TISSUE_CELL_PX, row.x // TISSUE_CELL_PX, row.size // TISSUE_CELL_PX
            shares[row.Index] = is_tissue_yx[y : y + n, x : x + n].mean()
    return shares


def cut(image_yxc: np.ndarray, rows: pd.DataFrame, *, stride_px: int) -> np.ndarray:
    """(N, size, size, C) uint8: the patches of one section's picture, by patchify, in the order of `rows`."""
    from patchify import patchify

    size_px = int(rows["size"].iloc[0])
    windows = patchify(image_yxc, (size_px, size_px, image_yxc.shape[-1]), step=stride_px)  # a view, (Y, X, 1, s, s, C)
    return windows[rows["y"].to_numpy() // stride_px, rows["x"].to_numpy() // stride_px, 0]


def resize(patch_yxc: np.ndarray, size_px: int) -> np.ndarray:
    """(size_px, size_px, C) uint8, bilinear over the whole source area, so that fine texture does not alias."""
    from PIL import Image

    channels = np.moveaxis(patch_yxc, -1, 0)
    resized = [Image.fromarray(channel).resize((size_px, size_px), Image.Resampling.BILINEAR) for channel in channels]
    return np.stack([np.asarray(channel) for channel in resized], axis=-1)


def load(
    table: pd.DataFrame, sections: Sequence[Section], proteins: Sequence[str], *, stride_px: int, input_px: int = 224
) -> np.ndarray:
    """(len(table), input_px, input_px, len(proteins)) uint8: the network's input, one section at a time.

    The array is mapped to a nameless file that goes when the array goes, and only one full-size picture is in memory
    at any time: memory does not grow with the cohort. Raises OSError if the disk has no room.
    """
    patches_nhwc = _mapped((len(table), input_px, input_px, len(proteins)))
    for section in track(sections, "patches", len(sections)):
        here = np.flatnonzero(table["section"] == section.section)
        for channel, protein in enumerate(proteins if here.size else ()):
            cut_nhwc = cut(section.stack_yxc([protein]), table.iloc[here], stride_px=stride_px)
            for i, patch_yxc in zip(here, cut_nhwc, strict=True):
                patches_nhwc[i, ..., channel] = resize(patch_yxc, input_px)[..., 0]
    return patches_nhwc


def _mapped(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros, uint8, in a nameless file in data/cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    size, free = int(np.prod(shape)), shutil.disk_usage(CACHE).free
    if size > free:  # a mapped file that outgrows the disk would end the process without a word
        raise OSError(
            errno.ENOSPC, f"patches need {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. Free the disk", str(CACHE)
        )
    with tempfile.TemporaryFile(dir=CACHE) as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def augment(patches_nhwc: np.ndarray, *, zoom: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """A randomly turned, flipped and zoomed copy of each patch: same shape, uint8, any number of channels.

    Rotation uniform in 0-180 degrees, horizontal and vertical flip each with probability 1/2, zoom uniform
    in `zoom` along each axis (below 1 enlarges). Pixels from outside repeat the nearest edge: all as in
    Keras' ImageDataGenerator, which the paper names, where zoom_range=0.2 means (0.8, 1.2).
    """
    from scipy.ndimage import affine_transform

    turned_nhwc = np.empty_like(patches_nhwc)
    for patch_yxc, turned_yxc in zip(patches_nhwc, turned_nhwc, strict=True):
        angle = rng.uniform(0, np.pi)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = rotation @ np.diag(rng.uniform(*zoom, size=2) * rng.choice([-1.0, 1.0], size=2))
        centre = (np.array(patch_yxc.shape[:2]) - 1) / 2
        for c in range(patch_yxc.shape[-1]):
            affine_transform(
                patch_yxc[..., c], matrix, centre - matrix @ centre, output=turned_yxc[..., c], order=1, mode="nearest"
            )
    return turned_nhwc


def as_input(patches_nhwc: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [0, 1]; one channel is copied to the three that ImageNet backbones expect."""
    scaled_nhwc = patches_nhwc.astype(np.float32) / 255
    return np.repeat(scaled_nhwc, 3, axis=-1) if scaled_nhwc.shape[-1] == 1 else scaled_nhwc


def shared_pixels(*, size_px: int, stride_px: int) -> float:
    """Share of its pixels that a patch has in common with the next one on the grid, along one axis."""
    return max(0, size_px - stride_px) / size_px
