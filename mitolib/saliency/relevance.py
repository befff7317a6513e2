"""Layer-wise relevance propagation (Bach et al. 2015; Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10).

The score of a class is handed down, layer by layer, to what each neuron was given, in proportion to what that
contributed; the relevance of a pixel is signed, and speaks for the class where it is positive. A layer with kernel W,
bias b and input a >= 0 hands R, the relevance of its outputs, down as

    R_below = a * W'^T (R / z),   z = W' a + b' + eps sgn(W' a + b'),   sgn(0) = +1

    epsilon        W' = W                  b' = b
    gamma          W' = W + g max(W, 0)    b' = b + g max(b, 0)
    alpha1-beta0   W' = max(W, 0)          b' = max(b, 0)
    box (z^B)      of pixels between 0 and 1, no bias: z = W a - min(W, 0) 1, and R_below = a * W^T q - min(W, 0)^T q,
                   q = R / z; the border that padding adds counts as 0 in both

A max-pool hands all to the place that won, an average in proportion; dropout, flattening and ReLU pass relevance on.

What biases do. Their share of z goes nowhere, so that less than the score arrives. `Relevance.lost` accounts for it,
layer by layer. The networks here read pixels between 0 and 1, ImageNet's biases were learnt for a range 255 times as
wide: they take much. With biases="zero" the denominators leave them out and all of the score arrives, which is no use
with the epsilon rule, whose denominators then pass through 0.

The walk takes a chain of layers; a network with additions or normalisations is refused. Written from the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mitolib.saliency.logits import Head, activation_of, head_of, inputs_of, operation_of
from mitolib.saliency.methods import check_patches, check_weights, in_batches

TINY = 1e-9  # epsilon of rules that need none, so that nothing is divided by 0
PASSING = (keras.layers.Dropout, keras.layers.Identity, keras.layers.InputLayer, keras.layers.ReLU)
RESHAPING = (keras.layers.Flatten, keras.layers.Reshape)
AVERAGING = (keras.layers.AveragePooling2D, keras.layers.GlobalAveragePooling2D)
LINEAR = (keras.layers.Conv2D, keras.layers.Dense)
KNOWN = (*PASSING, *RESHAPING, *AVERAGING, *LINEAR, keras.layers.Activation, keras.layers.MaxPooling2D)
BIASES = ("absorb", "zero")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a convolution or Dense hands relevance down.

    gamma: weight of the positive part, 0 for epsilon; infinite for alpha1-beta0. epsilon: of the denominator, absolute;
    of_rms: in root mean squares of z, each picture's own. box: whether it reads pixels between 0 and 1, as the first
    layer does.
    """

    gamma: float = 0.0
    epsilon: float = TINY
    of_rms: float = 0.0
    box: bool = False

    def weigh(self, weights: tf.Tensor) -> tf.Tensor:
        """W' of W, or b' of b."""
        positive = tf.nn.relu(weights)
        return positive if np.isinf(self.gamma) else weights + self.gamma * positive


@dataclass(frozen=True, kw_only=True)
class Composite:
    """The rules of a network: of its first convolution, of the other convolutions, of its Dense layers."""

    first: Rule
    convolutions: Rule
    dense: Rule


EPSILON = Rule(epsilon=1e-6)
BOX = Rule(box=True)
COMPOSITES = {
    "LRP": Composite(first=BOX, convolutions=Rule(gamma=0.25), dense=EPSILON),
    "LRP alpha1beta0": Composite(first=BOX, convolutions=Rule(gamma=float("inf")), dense=EPSILON),
    "gradient x input": Composite(first=Rule(), convolutions=Rule(), dense=Rule()),  # LRP-0
    "conserving": Composite(  # with biases="zero": prototypes hand their activation down whole
        first=BOX, convolutions=Rule(gamma=float("inf")), dense=Rule(gamma=float("inf"))
    ),
}


@dataclass(frozen=True)
class Relevance:
    """pixels_nhwc: signed (N, H, W, C). score: (N,) that was handed down. lost: layer -> (N,), from the top.

    At each layer, what arrives below is what came from above less what was lost: score = sum of pixels + all of lost.
    """

    pixels_nhwc: np.ndarray
    score: np.ndarray
    lost: dict[str, np.ndarray] = field(repr=False)

    @property
    def arrived(self) -> np.ndarray:
        """(N,) share of the score at the pixels; it means nothing where the score is near 0."""
        return self.pixels_nhwc.sum(axis=(1, 2, 3)) / self.score


class RelevancePropagation:
    """A walk down one network by one composite of rules, traced once. The weights are those of now.

    biases: "absorb" or "zero", see above. It starts at the log odds: of two classes, the score less the other's.
    Raises ValueError for a network that is no chain of convolutions, pooling and Dense layers with ReLU between them,
    and what `head_of` and `check_weights` raise.
    """

    def __init__(self, model: keras.Model, composite: Composite, *, biases: str = "absorb") -> None:
        if biases not in BIASES:
            raise ValueError(f"biases={biases!r} is not one of {', '.join(BIASES)}.")
        self.explained, self.composite, self.keeps_biases = model, composite, biases == "absorb"
        self._head = head_of(model)
        check_weights(model)
        self.n_classes = max(2, self._head.n_outputs)
        self._chain = _chain(model, self._head)
        self._walks: dict[str, Callable[..., Any]] = {}

    def __call__(self, patches_nhwc: np.ndarray, class_index: int) -> Relevance:
        """Of network input (N, H, W, C), float32. ValueError for pixels that a box from 0 to 1 does not hold."""
        self._check(patches_nhwc, class_index)
        shape = self.explained.input_shape

        def walk(batch: tf.Tensor, class_index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            read = self._forward(batch, self._chain)
            kernel, bias = self._neuron(class_index)
            score = tf.tensordot(read[-1], kernel, 1) + bias
            start, lost = _hand_down(_dense, read[-1], kernel, bias, score, self.composite.dense, self.keeps_biases)
            pixels, of_layers = self._down(start, read, self._chain)
            return pixels, score[:, 0], [lost, *of_layers]

        signature = [tf.TensorSpec(shape, tf.float32), tf.TensorSpec((), tf.int32)]
        traced = self._walks.setdefault("", tf.function(walk, input_signature=signature))
        names = ["scores", *self._names(self._chain)]
        return _together([traced(batch, class_index) for batch in in_batches(patches_nhwc)], names)

    def below(self, layer: str, patches_nhwc: np.ndarray, relevance_nhwc: np.ndarray) -> Relevance:
        """From the output of a layer downwards, with the relevance (N, h, w, C) that somebody else computed there.

        ValueError for a layer that is not in the chain, or relevance of another shape than its output.
        """
        self._check(patches_nhwc, 0)
        names = [each.name for each in self._chain]
        if layer not in names:
            raise ValueError(f"{self.explained.name} has no layer {layer!r} on its way; there are {', '.join(names)}.")
        chain = self._chain[: names.index(layer) + 1]
        wanted = (len(patches_nhwc), *chain[-1].output.shape[1:])
        if np.shape(relevance_nhwc) != wanted:
            raise ValueError(f"relevance of shape {np.shape(relevance_nhwc)} at {layer}; wanted {wanted}.")

        def walk(batch: tf.Tensor, relevance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            pixels, lost = self._down(relevance, self._forward(batch, chain), chain)
            return pixels, _per_patch(relevance), lost

        shapes = (self.explained.input_shape, chain[-1].output.shape)
        traced = self._walks.setdefault(
            layer, tf.function(walk, input_signature=[tf.TensorSpec(shape, tf.float32) for shape in shapes])
        )
        batches = zip(in_batches(patches_nhwc), in_batches(np.asarray(relevance_nhwc, np.float32)), strict=True)
        return _together([traced(batch, relevance) for batch, relevance in batches], self._names(chain))

    def _check(self, patches_nhwc: np.ndarray, class_index: int) -> None:
        check_patches(patches_nhwc, self.explained.input_shape, class_index, self.n_classes)
        low, high = float(np.min(patches_nhwc)), float(np.max(patches_nhwc))
        if self.composite.first.box and not (low >= 0 and high <= 1):
            raise ValueError(
                f"pixels from {low:g} to {high:g}; the first layer's rule wants them between 0 and 1. Prepare them as "
                "for training, patches.as_input."
            )

    def _neuron(self, class_index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Kernel (C, 1) and bias (1,) of the score that is handed down."""
        dense = self._head.dense
        kernel = tf.cast(dense.kernel, tf.float32)
        bias = tf.cast(dense.bias, tf.float32) if dense.use_bias else tf.zeros(kernel.shape[1])
        if self._head.n_outputs == 1:
            sign = tf.cast(2 * class_index - 1, tf.float32)
            return sign * kernel, sign * bias
        chosen = tf.one_hot(class_index, self._head.n_outputs)
        contrast = chosen - (1 - chosen) if self._head.n_outputs == 2 else chosen
        return tf.tensordot(kernel, contrast, 1)[:, None], tf.reduce_sum(bias * contrast, keepdims=True)

    def _forward(self, batch: tf.Tensor, chain: list[keras.Layer]) -> list[tf.Tensor]:
        """What each layer reads, and at the end what the last one gives; float32, whatever the network computes in."""
        read = [batch]
        for layer in chain:
            read.append(tf.cast(layer(read[-1], training=False), tf.float32))
        return read

    def _down(
        self, relevance: tf.Tensor, read: list[tf.Tensor], chain: list[keras.Layer]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        lost = []
        for layer, given in zip(reversed(chain), reversed(read[: len(chain)]), strict=True):
            if isinstance(layer, LINEAR):
                relevance, of_layer = self._linear(layer, given, relevance)
                lost.append(of_layer)
            elif isinstance(layer, AVERAGING):
                relevance, of_layer = _average(layer, given, relevance)
                lost.append(of_layer)
            elif isinstance(layer, keras.layers.MaxPooling2D):
                relevance = _gradient(layer, given, relevance)
            elif isinstance(layer, RESHAPING):
                relevance = tf.reshape(relevance, tf.shape(given))
        return relevance, lost

    def _linear(self, layer: keras.Layer, given: tf.Tensor, relevance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        kernel = tf.cast(layer.kernel, tf.float32)
        bias = tf.cast(layer.bias, tf.float32) if layer.use_bias else tf.zeros(kernel.shape[-1])
        if not isinstance(layer, keras.layers.Conv2D):
            return _hand_down(_dense, given, kernel, bias, relevance, self.composite.dense, self.keeps_biases)
        apply = _convolution(layer)
        if layer is not _first_convolution(self._chain):
            rule = self.composite.convolutions
            return _hand_down(apply, given, kernel, bias, relevance, rule, self.keeps_biases)
        if not self.composite.first.box:
            return _hand_down(apply, given, kernel, bias, relevance, self.composite.first, self.keeps_biases)
        return _box(apply, given, kernel, relevance)

    @staticmethod
    def _names(chain: list[keras.Layer]) -> list[str]:
        return [layer.name for layer in reversed(chain) if isinstance(layer, (*LINEAR, *AVERAGING))]


Linear = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # (input, kernel) -> output without bias


def _dense(given: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.tensordot(given, kernel, 1)


def _convolution(layer: keras.layers.Conv2D) -> Linear:
    def apply(given: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.convolution(given, kernel, layer.strides, layer.padding.upper(), dilations=layer.dilation_rate)

    return apply


def _hand_down(
    apply: Linear,
    given: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    relevance: tf.Tensor,
    rule: Rule,
    keeps_biases: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Relevance of what a layer was given, and (N,) what was lost to its bias and to epsilon."""
    weights = rule.weigh(kernel)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(given)
        contributed = apply(given, weights)
    z = contributed + rule.weigh(bias) if keeps_biases else contributed
    z = _stabilised(z, rule)
    shares = relevance / z
    below = given * tape.gradient(contributed, given, output_gradients=shares)
    return below, _per_patch(shares * (z - contributed))


def _box(apply: Linear, pixels: tf.Tensor, kernel: tf.Tensor, relevance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The rule of the first layer, for pixels between 0 and 1."""
    negative, highest = tf.minimum(kernel, 0), tf.ones_like(pixels)
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
        tape.watch([pixels, highest])
        of_pixels, of_highest = apply(pixels, kernel), apply(highest, negative)
    contributed = of_pixels - of_highest
    z = _stabilised(contributed, Rule())
    shares = relevance / z
    below = pixels * tape.gradient(of_pixels, pixels, output_gradients=shares)
    below -= highest * tape.gradient(of_highest, highest, output_gradients=shares)
    return below, _per_patch(shares * (z - contributed))


def _average(layer: keras.Layer, given: tf.Tensor, relevance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """In proportion to what each place contributed to the mean."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(given)
        mean = layer(given)
    z = _stabilised(mean, Rule())
    shares = relevance / z
    return given * tape.gradient(mean, given, output_gradients=shares), _per_patch(shares * (z - mean))


def _gradient(layer: keras.Layer, given: tf.Tensor, relevance: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(given)
        result = layer(given)
    return tape.gradient(result, given, output_gradients=relevance)


def _stabilised(z: tf.Tensor, rule: Rule) -> tf.Tensor:
    """z, moved away from 0; in units of its own picture where the rule says so, whatever else is in the batch."""
    places = list(range(1, len(z.shape)))
    epsilon = rule.epsilon + rule.of_rms * tf.sqrt(tf.reduce_mean(tf.square(z), axis=places, keepdims=True))
    return z + epsilon * tf.where(z >= 0, 1.0, -1.0)


def _per_patch(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values, axis=list(range(1, len(values.shape))))


def _together(parts: list[tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]], names: list[str]) -> Relevance:
    pixels, scores, lost = zip(*parts, strict=True)
    of_layers = (np.concatenate([of_batch.numpy() for of_batch in batches]) for batches in zip(*lost, strict=True))
    return Relevance(
        np.concatenate([batch.numpy() for batch in pixels]),
        np.concatenate([batch.numpy() for batch in scores]),
        dict(zip(names, of_layers, strict=True)),
    )


def _first_convolution(chain: list[keras.Layer]) -> keras.Layer:
    return next(layer for layer in chain if isinstance(layer, keras.layers.Conv2D))


def _chain(model: keras.Model, head: Head) -> list[keras.Layer]:
    """Layers from the pictures to what the last Dense reads; ValueError for the first one that the walk cannot pass."""
    if head.dense is None:
        raise ValueError(
            f"{model.name} takes its scores from no Dense layer; wanted one as its last. Ask for Grad-CAM."
        )
    chain, tensor = [], head.reads
    while True:
        layer, before = operation_of(tensor), inputs_of(tensor)
        activation = activation_of(layer)
        rectifies = activation in ("linear", "relu") and not getattr(layer, "negative_slope", 0)
        if len(before) > 1 or not isinstance(layer, KNOWN) or not rectifies or getattr(layer, "groups", 1) > 1:
            raise ValueError(
                f"{model.name} is no chain of convolutions, pooling and Dense layers with ReLU: found {layer.name} "
                f"({type(layer).__name__}, activation {activation}). Relevance is not defined there; ask for Grad-CAM."
            )
        if not before:
            break
        chain.append(layer)
        tensor = before[0]
    chain.reverse()
    if not any(isinstance(layer, keras.layers.Conv2D) for layer in chain):
        raise ValueError(f"{model.name} has no convolution; wanted one at least, which reads the pixels.")
    return chain


def lrp(model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, composite: str = "LRP") -> np.ndarray:
    """(N, H, W) the positive part of the relevance of the pixels, summed over channels. composite: of COMPOSITES."""
    walk = RelevancePropagation(model, COMPOSITES[composite])
    return walk(patches_nhwc, class_index).pixels_nhwc.sum(axis=-1).clip(min=0)
