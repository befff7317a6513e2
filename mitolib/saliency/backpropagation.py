"""Guided backpropagation and deconvolution: the gradient of a score with another signal below each ReLU.

With z what a ReLU reads and r the signal from above it, the signal below is r 1[z > 0] for the gradient, r 1[r > 0] for
deconvolution (Zeiler and Fergus 2014, arXiv:1311.2901), and r 1[z > 0] 1[r > 0] for guided backpropagation
(Springenberg et al. 2015, arXiv:1412.6806). All else is the ordinary gradient; max-pooling sends it to the winners.
Both restore parts of the picture and hardly know the class (Nie et al. 2018, arXiv:1805.07039).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf

from mitolib.saliency.checks import check_class, check_patches, check_some, check_weights, finite, in_batches
from mitolib.saliency.logits import activation_of, anew, head_of, operation_of, tensors_of
from mitolib.saliency.maps import enlarge


@tf.custom_gradient
def guided_relu(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """ReLU whose gradient passes where both z and the signal are positive."""
    return tf.nn.relu(z), lambda above: tf.where(z > 0, tf.nn.relu(above), 0)


@tf.custom_gradient
def deconvolution_relu(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """ReLU whose gradient passes where the signal is positive, whatever z is."""
    return tf.nn.relu(z), tf.nn.relu


RELUS: Mapping[str, Callable[[tf.Tensor], tf.Tensor]] = MappingProxyType(
    {"guided backpropagation": guided_relu, "deconvolution": deconvolution_relu}
)


class ModifiedBackpropagation:
    """One of RELUS by name, on a copy of the network, compiled once; the network itself stays as it is.

    n_relus: how many ReLUs were replaced. Weights of the model may change afterwards; each call copies them.
    Raises ValueError for a name that is not in RELUS, for a network without ReLU, of which all these methods are the
    gradient, for a rectifier that is a function in the graph or another one than ReLU, and what `head_of` raises;
    FloatingPointError for weights that are not finite.
    """

    def __init__(self, model: keras.Model, name: str) -> None:
        if name not in RELUS:
            raise ValueError(f"{name!r} is not one of {', '.join(RELUS)}.")
        head_of(model)
        check_weights(model)
        _check_rectifiers(model)
        self.name, self._source = name, model
        self._copy = keras.models.clone_model(model, clone_function=_with_activation)
        relus = [layer for layer in self._copy.layers if _is_relu(layer)]
        for layer in relus:
            layer.activation = RELUS[name]  # before the first trace: later it has no effect
        self.n_relus = len(relus)
        if not relus:
            raise ValueError(
                f"{model.name} has no layer with ReLU, so that {name} is its gradient; wanted one with. Take saliency."
            )
        head = head_of(self._copy)
        self.input_shape, self.n_classes = model.inputs[0].shape, max(2, head.n_outputs)
        below = keras.Model(self._copy.inputs[0], head.reads)
        shape = tf.TensorSpec(self.input_shape, tf.float32)

        def scores(patches: tf.Tensor) -> tf.Tensor:
            return head.scores(below(patches, training=False))

        def signal(patches: tf.Tensor, class_index: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape(watch_accessed_variables=False) as tape:  # no gradient of any weight
                tape.watch(patches)
                score = tf.gather(scores(patches), class_index, axis=1)
            return tape.gradient(score, patches)

        self._signal = tf.function(signal, input_signature=[shape, tf.TensorSpec((), tf.int32)])
        self._scores = tf.function(scores, input_signature=[shape])

    def __call__(self, patches_nhwc: np.ndarray, class_index: int) -> np.ndarray:
        """(N, H, W, C) float32 signal at the pixels of network input, signed; from the logit of the class.

        Raises ValueError for pictures of another shape, none, or a class that does not exist; FloatingPointError for
        values that are not finite.
        """
        check_patches(patches_nhwc, self.input_shape)
        check_some(patches_nhwc)
        check_class(class_index, self.n_classes)
        self._copy.set_weights(self._source.get_weights())
        batches = in_batches(np.asarray(patches_nhwc, np.float32))
        return finite(np.concatenate([self._signal(batch, class_index).numpy() for batch in batches]), self.name)

    def scores(self, patches_nhwc: np.ndarray) -> np.ndarray:
        """(N, classes) scores of the copy: those of the network, since no ReLU gives another value."""
        check_patches(patches_nhwc, self.input_shape)
        self._copy.set_weights(self._source.get_weights())
        return np.concatenate([self._scores(batch).numpy() for batch in in_batches(patches_nhwc)])


def strongest(signal_nhwc: np.ndarray) -> np.ndarray:
    """(N, H, W) map of a signal: its greatest absolute value over the channels, as for the gradient."""
    return np.abs(signal_nhwc).max(axis=-1)


def guided_grad_cam(guided_nhwc: np.ndarray, grad_cam_nhw: np.ndarray) -> np.ndarray:
    """(N, H, W, C) guided backpropagation, where Grad-CAM is, times it (Selvaraju et al. 2020, section 3.2).

    grad_cam_nhw: (N, h, w), enlarged bilinearly. Zero wherever Grad-CAM is; a map may be all zero.
    """
    if len(guided_nhwc) != len(grad_cam_nhw):
        raise ValueError(f"{len(guided_nhwc)} signals for {len(grad_cam_nhw)} maps; wanted both of the same pictures.")
    return guided_nhwc * enlarge(grad_cam_nhw, guided_nhwc.shape[1])[..., None].astype(np.float32)


def _is_relu(layer: keras.Layer) -> bool:
    return getattr(layer, "activation", None) is not None and activation_of(layer) == "relu"


def _is_plain_relu(layer: keras.Operation) -> bool:
    """Whether it is the layer ReLU without a slope, a threshold or a greatest value."""
    return type(layer) is keras.layers.ReLU and not (layer.max_value or layer.negative_slope or layer.threshold)


def _with_activation(layer: keras.Layer) -> keras.Layer:
    """A layer of the same settings; a ReLU that is a layer becomes an Activation, whose function can be replaced."""
    if _is_plain_relu(layer):
        return keras.layers.Activation("relu", name=layer.name, dtype=layer.dtype_policy)
    return anew(layer)


def _check_rectifiers(model: keras.Model) -> None:
    for operation in map(operation_of, tensors_of(model)):
        name = activation_of(operation) if hasattr(operation, "activation") else type(operation).__name__
        replaced = _is_plain_relu(operation) or (isinstance(operation, keras.Layer) and name == "relu")
        if not replaced and name.lower().endswith(("relu", "relu6", "elu")):
            raise ValueError(
                f"{model.name}: {operation.name} is a rectifier ({name}) that cannot be replaced; wanted ReLU as the "
                'activation of a layer. Build it with activation="relu".'
            )
