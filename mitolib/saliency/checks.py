"""What every explanation of a network asks of its input, and how it reads pictures: in batches."""

from __future__ import annotations

import keras
import numpy as np

from mitolib.settings import LABELS

BATCH = 8  # patches at a time: all of VGG16's maps are kept for the way back, 0.1 GB for each patch


def in_batches(array: np.ndarray, size: int = BATCH) -> list[np.ndarray]:
    """The array in pieces of at most `size` rows, in order."""
    return [array[start : start + size] for start in range(0, len(array), size)]


def check_weights(model: keras.Model) -> None:
    """Raise FloatingPointError that names the layers whose weights are not finite: ReLU can hide them from a map."""
    finite = {layer.name: all(np.isfinite(array).all() for array in layer.get_weights()) for layer in model.layers}
    if bad := [name for name, is_finite in finite.items() if not is_finite]:
        raise FloatingPointError(
            f"{model.name}: weights of {', '.join(bad)} are not finite. Train it again, with a smaller learning rate."
        )


def check_patches(patches_nhwc: np.ndarray, input_shape: tuple[int | None, ...]) -> None:
    """ValueError for pictures of another shape than (N, H, W, C) of the input; FloatingPointError if not finite."""
    sides = zip(np.shape(patches_nhwc)[1:], input_shape[1:], strict=False)
    if np.ndim(patches_nhwc) != 4 or any(wanted not in (side, None) for side, wanted in sides):
        wanted = ", ".join(map(str, input_shape[1:]))
        raise ValueError(
            f"patches of shape {np.shape(patches_nhwc)}, wanted (N, {wanted}). "
            "Prepare them as for training (patches.as_input), with the proteins this model was trained on."
        )
    if not np.isfinite(patches_nhwc).all():
        raise FloatingPointError("patches hold values that are not finite. Check the pictures they were cut from.")


def check_some(patches_nhwc: np.ndarray) -> None:
    """ValueError for a batch of 0 pictures."""
    if len(patches_nhwc) == 0:
        raise ValueError("0 patches, wanted at least 1. Choose other subjects, or a smaller stride between patches.")


def check_class(class_index: int, n_classes: int) -> None:
    """ValueError for a class that the network does not have."""
    if not 0 <= class_index < n_classes:
        names = f": {', '.join(LABELS)}" if n_classes == len(LABELS) else ", the outputs of this network"
        raise ValueError(f"class_index={class_index} is not in 0 to {n_classes - 1}{names}.")


def finite(maps: np.ndarray, name: str) -> np.ndarray:
    """The maps themselves; FloatingPointError with the method's name where one is not finite."""
    if not np.isfinite(maps).all():
        raise FloatingPointError(
            f"{name}: a map is not finite, though weights and patches are: the score overflows. Train again."
        )
    return maps
