"""The methods that are tf-keras-vis's, for Keras on TensorFlow alone: the library calls TensorFlow itself.

It needs a flat model with the layer named: on a nested model some of its methods give wrong maps without a word.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from tf_keras_vis import ModelVisualization
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.layercam import Layercam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils.scores import CategoricalScore

from mitolib.backend import tf
from mitolib.saliency.checks import BATCH, check_class, check_patches, check_weights, finite, in_batches
from mitolib.saliency.logits import head_of, map_of, passed, with_logits

# Each network gets a camera of its own, compiled once; TensorFlow takes that for a mistake and says so on the page.
tf.get_logger().setLevel(logging.ERROR)


def _grad_cam_pp(
    model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, layer: str, samples: int
) -> np.ndarray:
    """Chattopadhay et al. 2018, arXiv:1710.11063. It takes exp(score); shifted to 0, no score overflows."""

    def shifted(outputs: tf.Tensor) -> tf.Tensor:
        score = outputs[:, class_index]
        return score - tf.stop_gradient(score)

    return _by_gradient(GradcamPlusPlus, model, patches_nhwc, class_index, shifted, layer=layer)


def _layer_cam(
    model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, layer: str, samples: int
) -> np.ndarray:
    """Jiang et al. 2021, doi:10.1109/TIP.2021.3089943."""
    return _by_gradient(Layercam, model, patches_nhwc, class_index, layer=layer)


def _score_cam(
    model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, layer: str, samples: int
) -> np.ndarray:
    """Wang et al. 2020, arXiv:1910.01279, over the `samples` channels that vary most (Faster Score-CAM).

    One patch at a time, so that each has channels of its own. The library weighs channels by the softmax of the scores,
    so a score s that goes through a sigmoid is given as (-s / 2, s / 2), of which that is the softmax.
    """
    options, head = _cam(model, layer) | {"max_N": samples, "batch": 1}, head_of(model)
    if head.n_outputs > 1 and head.activation != "sigmoid":
        return _by_library(Scorecam, model, patches_nhwc, class_index, **options)

    def halves(scores: keras.KerasTensor) -> keras.KerasTensor:
        half = scores[:, class_index : class_index + 1] / 2
        return keras.ops.concatenate([-half, half], axis=1)

    return _by_library(Scorecam, model, patches_nhwc, class_index, CategoricalScore(1), change=halves, **options)


def _saliency(
    model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, layer: str, samples: int
) -> np.ndarray:
    """Simonyan et al. 2013, arXiv:1312.6034: greatest absolute gradient over the channels, at input resolution."""
    return _by_library(Saliency, model, patches_nhwc, class_index, normalize_map=False)


def _smooth_grad(
    model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, layer: str, samples: int
) -> np.ndarray:
    """Smilkov et al. 2017, arXiv:1706.03825: mean of `samples` saliency maps under noise of 20 % of the range."""
    return _by_library(Saliency, model, patches_nhwc, class_index, normalize_map=False, smooth_samples=samples)


def _cam(model: keras.Model, layer: str) -> dict[str, Any]:
    """Options that all CAM methods of tf-keras-vis share: the layer as named, its own resolution, raw values."""
    head_of(model)  # names what is wrong with the model, before the layer is looked for in it
    map_of(model, layer)
    return {
        "penultimate_layer": layer,
        "seek_penultimate_conv_layer": False,
        "expand_cam": False,
        "normalize_cam": False,
    }


def _by_gradient(
    method: type[ModelVisualization],
    model: keras.Model,
    patches_nhwc: np.ndarray,
    class_index: int,
    score: Callable | None = None,
    *,
    layer: str,
) -> np.ndarray:
    """A CAM method of tf-keras-vis that reads the gradient at the layer.

    The library would follow it down to the pictures, four times the work, and drop all of that. So it gets the network
    above the layer, with features for pictures, unless a shortcut passes the layer.
    """
    options, cut = _cam(model, layer), map_of(model, layer)
    if passed(cut, head_of(model).reads):
        return _by_library(method, model, patches_nhwc, class_index, score, **options)
    options["penultimate_layer"] = 0  # the features are the input
    return _by_library(method, model, patches_nhwc, class_index, score, cut=cut, **options)


def _by_library(
    method: type[ModelVisualization],
    model: keras.Model,
    patches_nhwc: np.ndarray,
    class_index: int,
    score: Callable | None = None,
    batch: int = BATCH,
    change: Callable[[keras.KerasTensor], keras.KerasTensor] = lambda scores: scores,
    cut: keras.KerasTensor | None = None,
    **options: Any,
) -> np.ndarray:
    """Maps of one of the library's methods. change: of the scores. cut: the map of the model that it starts from."""
    logits = with_logits(model)
    check_weights(model)
    check_patches(patches_nhwc, logits.input_shape)
    check_class(class_index, logits.output_shape[-1])
    start = logits.input if cut is None else cut
    explain = method(keras.Model([start], change(logits.output)))  # a list, as tf-keras-vis calls it with one
    below = None if cut is None else keras.Model(logits.input, cut)
    score = score or CategoricalScore(class_index)
    parts = []
    with contextlib.redirect_stdout(io.StringIO()):  # Score-CAM lets Keras draw a progress bar for every patch
        for part in in_batches(patches_nhwc, batch):
            seen = part if below is None else below(part, training=False)
            parts.append(np.asarray(explain(score, seen, **options)))
    return finite(np.concatenate(parts), method.__name__)


METHODS: Mapping[str, Callable[..., np.ndarray]] = MappingProxyType(
    {
        "Grad-CAM++": _grad_cam_pp,
        "Layer-CAM": _layer_cam,
        "Score-CAM": _score_cam,
        "saliency": _saliency,
        "SmoothGrad": _smooth_grad,
    }
)
