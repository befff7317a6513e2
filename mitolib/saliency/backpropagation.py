"""Backpropagation with other rules at the ReLUs: deconvolution, guided backpropagation, guided Grad-CAM.

All three are one backward pass from the score of a class. With z what a ReLU was given and r the signal from above,
what goes on below it is

    gradient        r where z > 0                 Simonyan et al. 2013, arXiv:1312.6034
    deconvolution   r where r > 0                 Zeiler & Fergus 2014, arXiv:1311.2901
    guided          r where z > 0 and r > 0       Springenberg et al. 2015, arXiv:1412.6806

Elsewhere they are the gradient: transposed kernels without bias, and at a max-pool the place that won. The network is
cloned, so that the one explained keeps its activations. `mitolib.saliency.methods` has the plain gradient ("saliency").
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from mitolib.saliency.logits import with_logits
from mitolib.saliency.maps import enlarge
from mitolib.saliency.methods import GradCAM, check_patches, check_weights, in_batches

Rectifier = Callable[[tf.Tensor], tf.Tensor]


@tf.custom_gradient
def _deconvolution(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    return tf.nn.relu(z), tf.nn.relu


@tf.custom_gradient
def _guided(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    return tf.nn.relu(z), lambda from_above: tf.nn.relu(from_above) * tf.cast(z > 0, z.dtype)


RECTIFIERS: dict[str, Rectifier] = {"deconvolution": _deconvolution, "guided backpropagation": _guided}


class Backpropagation:
    """One backward pass with a rule of RECTIFIERS at every ReLU; built and traced once for a network.

    The weights are those of now: after a change call `follow`. n_rectified: ReLUs with the rule.
    Raises ValueError for a network without a ReLU in its layers, where the rules are the plain gradient, or with one
    between them, as a function, which no rule would reach; and what `head_of` and `check_weights` raise.
    """

    def __init__(self, model: keras.Model, rule: str) -> None:
        rectifier = RECTIFIERS[rule]
        logits = with_logits(model)
        check_weights(model)
        if loose := [each.name for each in logits.operations if _is_function(each) and "relu" in each.name]:
            raise ValueError(
                f"{model.name} rectifies outside its layers, in {', '.join(loose)}; wanted ReLU as a layer or an "
                "activation. Build it with keras.layers.ReLU, or ask for another method."
            )
        self.n_rectified = 0

        def cloned(layer: keras.Layer) -> keras.Layer:
            copy = type(layer).from_config(layer.get_config())
            if isinstance(layer, keras.layers.ReLU):
                self.n_rectified += 1
                return keras.layers.Activation(rectifier, name=layer.name)
            if getattr(layer, "activation", None) is keras.activations.relu:
                self.n_rectified += 1
                copy.activation = rectifier
            return copy

        self.explained = model
        self._clone = keras.models.clone_model(logits, clone_function=cloned)
        if not self.n_rectified:
            raise ValueError(
                f"{model.name} has no ReLU, so that {rule} is the plain gradient there; wanted one at least. Ask for "
                '"saliency".'
            )
        self.follow()

        def backward(batch: tf.Tensor, class_index: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(batch)
                score = tf.gather(self._clone(batch, training=False), class_index, axis=1)
            return tape.gradient(score, batch)

        signature = [tf.TensorSpec(logits.input_shape, tf.float32), tf.TensorSpec((), tf.int32)]
        self._backward = tf.function(backward, input_signature=signature)

    def follow(self) -> None:
        """Take over the weights that the network has now."""
        self._clone.set_weights(with_logits(self.explained).get_weights())

    def __call__(self, patches_nhwc: np.ndarray, class_index: int) -> np.ndarray:
        """(N, H, W, C) signed, of network input (N, H, W, C), float32."""
        check_patches(patches_nhwc, self._clone.input_shape, class_index, self._clone.output_shape[-1])
        return np.concatenate([self._backward(batch, class_index).numpy() for batch in in_batches(patches_nhwc)])


def deconvolution(
    model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, layer: str, samples: int
) -> np.ndarray:
    """(N, H, W), as METHODS has it: greatest absolute value over the channels."""
    return _greatest(Backpropagation(model, "deconvolution")(patches_nhwc, class_index))


def guided_backpropagation(
    model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, layer: str, samples: int
) -> np.ndarray:
    """(N, H, W), as METHODS has it: greatest absolute value over the channels."""
    return _greatest(Backpropagation(model, "guided backpropagation")(patches_nhwc, class_index))


def guided_grad_cam(
    model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, layer: str, samples: int
) -> np.ndarray:
    """(N, H, W), as METHODS has it: guided backpropagation times Grad-CAM, enlarged bilinearly (Selvaraju et al. 2020).

    Zero wherever Grad-CAM is, and so all zero where Grad-CAM is empty.
    """
    coarse_nhw = GradCAM(model, layer)(patches_nhwc, class_index)
    fine_nhwc = Backpropagation(model, "guided backpropagation")(patches_nhwc, class_index)
    return _greatest(fine_nhwc * enlarge(coarse_nhw, fine_nhwc.shape[1])[..., None])


def _greatest(signed_nhwc: np.ndarray) -> np.ndarray:
    return np.abs(signed_nhwc).max(axis=-1)


def _is_function(operation: keras.Operation) -> bool:
    return not isinstance(operation, keras.Layer)
