"""Class activation mapping (CAM; Zhou et al. 2016, arXiv:1512.04150), on the only kind of network that it fits.

Its head is the mean of each channel over the places, then one Dense with softmax. The paper's head is none, so CAM
explains another network than the other methods: show what that one is worth beside its maps. Nothing below the Dense is
trained here, and the mean over places of a banked map is a vector: the head is a logistic regression, without epochs
and without a seed.
"""

from __future__ import annotations

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from mitolib.saliency.logits import head_of, inputs_of, operation_of
from mitolib.saliency.methods import check_patches, check_weights, in_batches


def folded(pipeline: Pipeline) -> tuple[np.ndarray, float]:
    """Weights (F,) and bias of "patient" on raw features, of a logistic regression behind a standardisation."""
    scaler, regression = (step for _, step in pipeline.steps)
    if not (isinstance(scaler, StandardScaler) and isinstance(regression, LogisticRegression)):
        found = ", ".join(type(step).__name__ for _, step in pipeline.steps)
        raise ValueError(f"a pipeline of {found}; wanted a StandardScaler and a LogisticRegression.")
    weights = regression.coef_[0] / scaler.scale_
    return weights, float(regression.intercept_[0] - weights @ scaler.mean_)


def averaging_network(backbone: keras.Model, weights: np.ndarray, bias: float) -> keras.Model:
    """A backbone with maps (N, h, w, F), the mean over their places, and Dense(2) with softmax.

    Its log odds of "patient" are `weights` times the means, plus `bias`, divided evenly among the two classes. Flat, so
    that other methods explain it too.
    """
    means = keras.layers.GlobalAveragePooling2D(name="mean_over_places")(backbone.output)
    dense = keras.layers.Dense(2, activation="softmax", name="classes")
    model = keras.Model(backbone.input, dense(means), name=f"{backbone.name}-GAP")
    half = np.asarray(weights, np.float32) / 2
    dense.set_weights([np.stack([-half, half], axis=1), np.array([-bias / 2, bias / 2], np.float32)])
    return model


def class_activation(model: keras.Model, patches_nhwc: np.ndarray, class_index: int) -> np.ndarray:
    """(N, h, w) signed: the channels of the last map, weighed as the class weighs their means.

    patches_nhwc: network input (N, H, W, C). The mean over the places plus the class's bias is its score. The positive
    part is h w times Grad-CAM at that map. ValueError for a network whose head is another one.
    """
    head = head_of(model)
    check_weights(model)
    pool = operation_of(head.reads)
    if head.dense is None or not isinstance(pool, keras.layers.GlobalAveragePooling2D):
        raise ValueError(
            f"{model.name} has {pool.name} ({type(pool).__name__}) before its scores; wanted GlobalAveragePooling2D, "
            "and one Dense behind it, which CAM explains. Ask for Grad-CAM, or build an `averaging_network`."
        )
    check_patches(patches_nhwc, model.input_shape, class_index, max(2, head.n_outputs))
    below = keras.Model(model.inputs[0], inputs_of(head.reads)[0])
    weights = np.asarray(head.dense.kernel)
    of_class = weights[:, class_index] if head.n_outputs > 1 else (2 * class_index - 1) * weights[:, 0]
    maps = [np.asarray(below(batch, training=False), np.float32) @ of_class for batch in in_batches(patches_nhwc)]
    return np.concatenate(maps)


def cam(model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, layer: str, samples: int) -> np.ndarray:
    """(N, h, w), as METHODS has it: the positive part of `class_activation`."""
    return class_activation(model, patches_nhwc, class_index).clip(min=0)
