"""What a viewer shows of a network: its maps for both classes, and the deficient fibres."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pandas as pd

from mitolib import patches
from mitolib.saliency.faithfulness import enlarge, masks, shrink, truth_windows
from mitolib.saliency.methods import LAYERS, GradCAM
from mitolib.settings import LABELS


def class_maps(model: keras.Model, network: str, patches_nhwc: np.ndarray, size_px: int) -> dict[str, np.ndarray]:
    """Grad-CAM for each class, (N, size_px, size_px), raw, of patches uint8 (N, H, W, C). network: a key of LAYERS."""
    camera, batch_nhwc = GradCAM(model, LAYERS[network]), patches.as_input(patches_nhwc)
    return {label: enlarge(camera(batch_nhwc, i), size_px) for i, label in enumerate(LABELS)}


def outlines(root: str | Path, table: pd.DataFrame, size_px: int) -> np.ndarray:
    """(N, size_px, size_px) bool: the deficient fibres of each patch, for a picture of that side; without truth none.

    root: the data folder. table: rows of a patch table.
    """
    return shrink(masks(*truth_windows(root, table)), size_px)
