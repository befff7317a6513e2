"""A frozen ImageNet backbone, its first convolution widened for ten channels, and the paper's head.

The model is flat: every layer of backbone and head is a layer of the model, so that Grad-CAM and the
like find layers by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from mitolib.settings import LABELS

INPUT_PX = 224
BACKBONES = {  # name -> (Keras' builder, its last layer: the 7 x 7 map that the head reads)
    "VGG16": (keras.applications.VGG16, "block5_pool"),
    "ResNet50": (keras.applications.ResNet50, "conv5_block3_out"),
}


def build(
    name: str, *, n_channels: int = 3, arrays: Sequence[np.ndarray] | None, frozen_to: str | None = None
) -> keras.Model:
    """(N, 224, 224, n_channels) in [0, 1] -> (N, 2) probabilities of control and patient.

    name: a key of BACKBONES. arrays: ImageNet weights for three channels in the order of `get_weights()`
    (`weights.resolve(name).arrays`), or None for random ones. frozen_to: the last layer of the backbone that is
    frozen, batch normalisation included; None freezes all of it. The head is the paper's: Dense 2048, 1024, 512, 256
    on each position of the 7 x 7 map, Dropout 0.5, Flatten, Dense 128, Dense 2. On a frozen VGG16 that makes
    20,125,634 parameters, of which 5,410,946 are trained.
    Raises ValueError for a name or a layer that does not exist, and lists those that do.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone {name!r} is not one of {', '.join(BACKBONES)}.")
    builder, last_layer = BACKBONES[name]
    backbone = builder(include_top=False, weights=None, input_shape=(INPUT_PX, INPUT_PX, n_channels))
    if arrays is not None:
        kernel_hwio, *rest = arrays  # the first convolution comes first in both backbones
        backbone.set_weights([inflate(kernel_hwio, n_channels), *rest])
    for layer in backbone.layers[: _position(backbone, frozen_to or last_layer) + 1]:
        layer.trainable = False
    return keras.Model(backbone.input, _head(backbone.get_layer(last_layer).output), name=name)


def inflate(kernel_hwio: np.ndarray, n_channels: int) -> np.ndarray:
    """(H, W, 3, O) -> (H, W, n_channels, O): channels 0-2 keep the RGB kernels, every other gets their mean."""
    if kernel_hwio.shape[2] != 3 or n_channels < 3:
        raise ValueError(
            f"kernel of {kernel_hwio.shape[2]} input channels to {n_channels}; wanted 3 to 3 or more. "
            "A single channel is copied to three instead (patches.as_input)."
        )
    mean = kernel_hwio.mean(axis=2, keepdims=True)
    return np.concatenate([kernel_hwio, np.repeat(mean, n_channels - 3, axis=2)], axis=2)


def head(shape: tuple[int, int, int]) -> keras.Model:
    """The paper's head alone, untrained: features (N, h, w, C) -> (N, 2) probabilities of control and patient."""
    features = keras.Input(shape)
    return keras.Model(features, _head(features), name="head")


def _head(x: keras.KerasTensor) -> keras.KerasTensor:
    for units in (2048, 1024, 512, 256):
        x = keras.layers.Dense(units, activation="relu", name=f"dense_{units}")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(128, activation="relu", name="dense_128")(x)
    return keras.layers.Dense(len(LABELS), activation="softmax", name="probabilities")(x)


def divide(model: keras.Model, at: str | None = None) -> tuple[keras.Model, keras.Model]:
    """(backbone, head) of a model of `build`, sharing its layers: head(backbone(x)) is model(x).

    at: the layer whose output the backbone gives; None takes the last frozen one, since what is computed up to
    there never changes in training and so can be computed once. Raises ValueError for a layer that does not exist,
    and for one beside which a shortcut passes, since the layers above it need more than its output.
    """
    if at is None:
        at = [layer.name for layer in model.layers if not layer.trainable][-1]
    cut = model.layers[_position(model, at)]
    above = model.layers[_position(model, at) + 1 :]
    inner = {id(cut.output), *(id(layer.output) for layer in above)}
    if shortcuts := [layer.name for layer in above for x in _inputs(layer) if id(x) not in inner]:
        raise ValueError(f"{model.name} cannot be divided at {at!r}: {shortcuts[0]} also reads a layer below it.")
    return keras.Model(model.input, cut.output, name="backbone"), keras.Model(cut.output, model.output, name="head")


def _inputs(layer: keras.Layer) -> list[keras.KerasTensor]:
    return layer.input if isinstance(layer.input, list) else [layer.input]


def _position(model: keras.Model, name: str) -> int:
    """Where a layer stands in `model.layers`."""
    names = [layer.name for layer in model.layers]
    if name not in names:
        raise ValueError(f"{model.name} has no layer {name!r}; it has {', '.join(names)}.")
    return names.index(name)


def parameter_counts(model: keras.Model) -> dict[str, int]:
    """{'total': ..., 'trainable': ...}."""
    count = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return {"total": model.count_params(), "trainable": count}
