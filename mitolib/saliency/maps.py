"""Maps and masks at other resolutions and ranges.

Maps are (N, h, w), not negative, of any resolution; masks are at the resolution of the section until they are shrunk.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from skimage.transform import resize


def enlarge(maps_nhw: np.ndarray, size_px: int) -> np.ndarray:
    """(N, size_px, size_px), bilinear between the centres of the cells, never outside the range of the map."""
    return np.stack(
        [resize(map_yx, (size_px, size_px), order=1, mode="edge", anti_aliasing=False) for map_yx in maps_nhw]
    )


def unit(maps_nhw: np.ndarray) -> np.ndarray:
    """Each map stretched to 0-1, for display and for SSIM only; a constant map becomes 0."""
    low = np.min(maps_nhw, axis=(1, 2), keepdims=True)
    high = np.max(maps_nhw, axis=(1, 2), keepdims=True)
    return (maps_nhw - low) / np.where(high > low, high - low, 1)


def shrink(masks_nyx: np.ndarray, size_px: int) -> np.ndarray:
    """(N, size_px, size_px) bool: where at least half of the area is inside."""
    return np.stack([area_inside(mask_yx, size_px) >= 0.5 for mask_yx in masks_nyx])


def area_inside(mask_yx: np.ndarray, size_px: int) -> np.ndarray:
    """(size_px, size_px) 0-1: share of the area inside a mask, with the very kernel that resizes patches."""
    picture = Image.fromarray(mask_yx.astype(np.float32))
    return np.asarray(picture.resize((size_px, size_px), Image.Resampling.BILINEAR))
