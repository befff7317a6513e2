"""Features of a frozen backbone, computed once and read in every epoch.

A frozen backbone gives the same features for the same picture, so they are computed for a fixed number
of augmented `views` of each training patch, and each epoch reads the next view. With `views=0` every
epoch draws a new augmentation and recomputes its features: the paper's loop, through the same door.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from mitolib.progress import track

BATCH = 16

Source = Callable[[int, np.ndarray], np.ndarray]  # (epoch, row numbers) -> features (N, H, W, C)
Prepare = Callable[[np.ndarray], np.ndarray]  # patches uint8 (N, H, W, C) -> network input


def _compiled(backbone: keras.Model) -> Prepare:
    """The forward pass for batches of any length: one graph, where `predict_on_batch` makes one per length."""
    signature = [tf.TensorSpec(backbone.input_shape, tf.float32)]
    forward = tf.function(partial(backbone, training=False), input_signature=signature)
    return lambda batch_nhwc: forward(batch_nhwc).numpy()


def extract(backbone: keras.Model, patches_nhwc: np.ndarray, prepare: Prepare, *, label: str) -> np.ndarray:
    """(N, 7, 7, C) float16: the backbone's last map for each patch.

    float16 halves the memory; its relative rounding error of 0.05 % is far below that of the features.
    Raises FloatingPointError if a feature does not fit, rather than train on infinities.
    """
    features_nhwc = np.empty((len(patches_nhwc), *backbone.output_shape[1:]), np.float16)
    forward = _compiled(backbone)
    for start in track(range(0, len(patches_nhwc), BATCH), label, -(-len(patches_nhwc) // BATCH)):
        rows = slice(start, start + BATCH)
        features_nhwc[rows] = forward(prepare(patches_nhwc[rows]))
    if not np.isfinite(features_nhwc).all():
        raise FloatingPointError(
            f"{label}: features beyond the range of float16. Are the weights those of a trained net?"
        )
    return features_nhwc


def source(
    backbone: keras.Model,
    patches_nhwc: np.ndarray,
    *,
    augment: Prepare,
    prepare: Prepare,
    views: int,
    label: str,
) -> Source:
    """Features of augmented training patches, by epoch and row number.

    With `views` > 0 the features of that many augmented copies are computed now, and epoch e reads copy
    `e % views`. With 0 each call augments and recomputes.
    """
    if views == 0:
        forward = _compiled(backbone)
        return lambda epoch, rows: forward(prepare(augment(patches_nhwc[rows])))
    bank = [extract(backbone, augment(patches_nhwc), prepare, label=f"{label}, view {i + 1}") for i in range(views)]
    return lambda epoch, rows: bank[epoch % views][rows]
