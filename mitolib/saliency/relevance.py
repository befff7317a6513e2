"""Layer-wise relevance propagation (LRP): the score of a class, shared out layer by layer down to the pixels.

For networks that are one chain of convolutions, Dense, ReLU and pooling, such as VGG16 with the paper's head; one with
additions or normalisations is refused by name. The relevance of a layer's outputs is shared out among its inputs by a
rule of `mitolib.saliency.rules`; a PRESET says which rule serves which layer. Max-pooling hands relevance to the winner
of each window, the ordinary gradient, where Montavon et al. 2019 put average pooling.

Conservation, by which the relevance of the pixels sums to the score, holds but for what biases absorb. VGG16 learnt
its biases from pixels up to 255 and is shown pixels up to 1 here, so they absorb much; `Relevance.account` says where.
Everything is computed in float32, whatever the precision of the network: LRP divides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import keras
import numpy as np
import pandas as pd

from mitolib import backend
from mitolib.backend import tf
from mitolib.own_data import LeftOut
from mitolib.saliency.checks import check_class, check_patches, check_some, check_weights, finite, in_batches
from mitolib.saliency.logits import activation_of, head_of, inputs_of, operation_of, tensors_of
from mitolib.saliency.rules import TINY, Alpha1Beta0, Box, Epsilon, Gamma, Rule, Weighted

SIDES = ["above", "below", "absorbed"]  # columns of an account
WITHOUT_WEIGHTS = (keras.layers.MaxPooling2D, keras.layers.GlobalAveragePooling2D, keras.layers.Flatten)
IDENTITY = (keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.Identity)  # in inference


@dataclass(frozen=True)
class Preset:
    """Which rule serves which layer, where relevance starts, and what becomes of biases.

    first: the layer that reads the pixels. start: the log odds of the class, by which a network of two classes decides,
    or its logit. biases: "absorb" leaves them in the denominators, so that they take their share; "zero" leaves them
    out, which conserves relevance but is legal for gamma, alpha1beta0 and Box only: with epsilon z - b may be 0 where
    z is not, and relevance explodes.
    """

    first: Rule
    convolutions: Rule
    dense: Rule
    start: Literal["log odds", "logit"] = "log odds"
    biases: Literal["absorb", "zero"] = "absorb"


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "LRP": Preset(Box(), Gamma(0.25), Epsilon(1e-6)),  # the composite
        "LRP alpha1beta0": Preset(Box(), Alpha1Beta0(), Epsilon(1e-6)),
        "gradient x input": Preset(Epsilon(TINY), Epsilon(TINY), Epsilon(TINY), start="logit"),  # LRP-0
        # down the backbone of a prototype network: Gautam et al. 2021, arXiv:2108.12204
        "PRP": Preset(Box(), Alpha1Beta0(), Alpha1Beta0(), biases="zero"),
    }
)


@dataclass(frozen=True, eq=False)
class Relevance:
    """Relevance of the pixels of N pictures, and what became of it on the way down.

    pixels_nhwc: (N, H, W, C) float32, signed: positive speaks for the class. score: (N,) float32, what was shared out.
    account: index layer (from the top down), patch; columns above, below and absorbed, sums over the layer's outputs,
    its inputs, and what its biases and stabilisers took; above = below + absorbed.
    """

    pixels_nhwc: np.ndarray
    score: np.ndarray
    account: pd.DataFrame

    @property
    def maps(self) -> np.ndarray:
        """(N, H, W) signed: relevance adds up over the channels of a pixel."""
        return self.pixels_nhwc.sum(axis=-1)

    @property
    def arriving(self) -> np.ndarray:
        """(N,) share of the score that arrives at the pixels; it means little where the score is near 0."""
        return self.maps.sum(axis=(1, 2), dtype=np.float64) / self.score


class LayerwiseRelevance:
    """LRP of the score of a class, compiled once. Weights of the model may change afterwards; relevance follows them.

    Raises ValueError for a network that is no chain, with the name of the layer, for what `head_of` raises, for a
    preset that starts at the log odds where there are more than two classes, and for one that cannot do without biases;
    FloatingPointError for weights that are not finite.
    """

    def __init__(self, model: keras.Model, preset: Preset = PRESETS["LRP"]) -> None:
        head = head_of(model)
        check_weights(model)
        dense, reads = head.dense, head.reads
        if dense is None and type(operation_of(reads)) is keras.layers.Dense:  # its softmax is a layer of its own
            dense, reads = operation_of(reads), inputs_of(reads)[0]
        if dense is None:
            end = operation_of(reads)
            raise ValueError(
                f"{model.name} takes its scores from {end.name} ({type(end).__name__}); wanted them from a Dense. "
                "Take Grad-CAM, which explains it too."
            )
        if preset.start == "log odds" and (head.n_outputs > 2 or (head.n_outputs, head.activation) == (2, "sigmoid")):
            raise ValueError(
                f"{model.name} has {head.n_outputs} outputs by {head.activation}, which have no log odds of one class "
                "against the other; wanted two by softmax, or one by sigmoid. Start at the logit: "
                'dataclasses.replace(preset, start="logit").'
            )
        self.n_classes = max(2, head.n_outputs)
        self._chain = _Chain(model, reads, preset, above=dense)
        self.model = model

        def walk(patches: tf.Tensor, class_index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            reads = self._chain.forward(patches)
            kernel, bias = _row(dense, head.n_outputs, class_index, preset.start)
            score = tf.tensordot(reads[-1], kernel, 1) + bias
            top = Weighted(lambda values, weights: tf.tensordot(values, weights, 1), kernel, self._chain.bias(bias))
            below, absorbed = preset.dense(top, reads[-1], score)
            pixels, account = self._chain.down(reads, below)
            return pixels, score[:, 0], tf.concat([[_line(score, below, absorbed)], account], axis=0)

        index = tf.TensorSpec((), tf.int32)
        self._walk = tf.function(walk, input_signature=[tf.TensorSpec(self._chain.input_shape, tf.float32), index])
        self._layers = [dense.name, *self._chain.accounted]

    def __call__(self, patches_nhwc: np.ndarray, class_index: int) -> Relevance:
        """Relevance for a class of network input (N, H, W, C).

        Raises ValueError for pictures of another shape, none, pixels outside the bounds of Box, or a class that does
        not exist; FloatingPointError for values that are not finite.
        """
        self._chain.check(patches_nhwc)
        check_class(class_index, self.n_classes)
        parts = [self._walk(batch, class_index) for batch in in_batches(np.asarray(patches_nhwc, np.float32))]
        return _joined(parts, self._layers)


class RelevanceBelow:
    """LRP downwards from a layer, with relevance that is given, compiled once.

    For networks whose head is elsewhere: a model may be a backbone alone. With the preset "PRP" this is the way down
    of prototype networks.
    Raises ValueError for a layer that does not exist, and as `LayerwiseRelevance`.
    """

    def __init__(self, model: keras.Model, at: str, preset: Preset = PRESETS["LRP"]) -> None:
        outputs = {operation_of(tensor).name: tensor for tensor in tensors_of(model)}
        if at not in outputs:
            raise ValueError(f"{model.name} has no layer {at!r}; it has {', '.join(reversed(outputs))}.")
        check_weights(model)
        self.at, self.shape = at, outputs[at].shape
        self._chain = _Chain(model, outputs[at], preset)

        def walk(patches: tf.Tensor, given: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            pixels, account = self._chain.down(self._chain.forward(patches), given)
            return pixels, tf.reduce_sum(given, axis=range(1, len(self.shape))), account

        shapes = [tf.TensorSpec(shape, tf.float32) for shape in (self._chain.input_shape, self.shape)]
        # Loops and branches here are over layers, not tensors: to have them translated would take seconds.
        self._walk = tf.function(walk, input_signature=shapes, autograph=False)

    def __call__(self, patches_nhwc: np.ndarray, relevance: np.ndarray) -> Relevance:
        """Relevance of the pixels of network input (N, H, W, C); relevance: of what the layer gives, (N, ...).

        Of a Dense with softmax it is relevance of the scores before it.
        """
        self._chain.check(patches_nhwc)
        wanted = (len(patches_nhwc), *self.shape[1:])
        if np.shape(relevance) != wanted:
            raise ValueError(f"relevance of shape {np.shape(relevance)} at {self.at}, wanted {wanted}: of its outputs.")
        if not np.isfinite(relevance).all():
            raise FloatingPointError(f"relevance at {self.at} holds values that are not finite. Check its source.")
        both = (in_batches(np.asarray(array, np.float32)) for array in (patches_nhwc, relevance))
        return _joined([self._walk(*pair) for pair in zip(*both, strict=True)], self._chain.accounted)


def from_layer(preset: str) -> Callable[[keras.Model, str], RelevanceBelow] | LeftOut:
    """What makes the way down from a layer of a network, by one of PRESETS; left out where Keras runs on PyTorch."""
    if backend.NAME != "tensorflow":
        return LeftOut(f"relevance at the pixels. Written for TensorFlow, and Keras runs on {backend.NAME} here.")
    return partial(RelevanceBelow, preset=PRESETS[preset])


@dataclass(frozen=True)
class _Step:
    """A layer of the chain: its output, relevance below, and, where it has weights, what it absorbed."""

    name: str
    forward: Callable[[tf.Tensor], tf.Tensor]
    down: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor | None]]


class _Chain:
    """The layers from the pictures up to a tensor, and relevance down through them."""

    def __init__(
        self, model: keras.Model, end: keras.KerasTensor, preset: Preset, above: keras.layers.Dense | None = None
    ) -> None:
        if backend.NAME != "tensorflow":
            raise NotImplementedError(
                f"layer-wise relevance propagation: written for TensorFlow, and Keras runs on {backend.NAME}. "
                "Run it with KERAS_BACKEND=tensorflow."
            )
        self.preset, self.input_shape, self.name = preset, model.inputs[0].shape, model.name
        if preset.biases not in ("absorb", "zero"):
            raise ValueError(f'biases={preset.biases!r}, wanted "absorb" or "zero".')
        layers = _layers_to(model, end, any_end=above is None)
        weighted = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
        self.box = preset.first if weighted and isinstance(preset.first, Box) else None
        rules = {layer.name: self._rule(layer, first=layer is weighted[0]) for layer in weighted}
        if above is not None:
            rules[above.name] = preset.dense
        if preset.biases == "zero" and (bad := [name for name, rule in rules.items() if isinstance(rule, Epsilon)]):
            raise ValueError(
                f"{', '.join(bad)}: epsilon without biases divides by what may be 0; wanted gamma or alpha1beta0. "
                'Take another rule, or biases="absorb".'
            )
        self._check_signs([*layers, *([above] if above is not None else [])], rules)
        self.steps = [self._step(layer, rules.get(layer.name)) for layer in layers]
        self.accounted = [
            layer.name
            for layer in reversed(layers)
            if layer.name in rules or isinstance(layer, keras.layers.GlobalAveragePooling2D)
        ]

    def bias(self, bias: tf.Tensor) -> tf.Tensor | float:
        """What stands in the denominators for it."""
        return bias if self.preset.biases == "absorb" else 0.0

    def forward(self, patches: tf.Tensor) -> list[tf.Tensor]:
        """What each layer reads, from the bottom up; last, what the chain gives."""
        values = [patches]
        for step in self.steps:
            values.append(step.forward(values[-1]))
        return values

    def down(self, values: list[tf.Tensor], relevance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Relevance of the pixels, and the account (layers with weights, N, 3) from the top down."""
        lines = []
        for step, reads in zip(reversed(self.steps), reversed(values[:-1]), strict=True):
            below, absorbed = step.down(reads, relevance)
            if absorbed is not None:
                lines.append(_line(relevance, below, absorbed))
            relevance = below
        return relevance, tf.stack(lines) if lines else tf.zeros((0, tf.shape(relevance)[0], len(SIDES)))

    def check(self, patches_nhwc: np.ndarray) -> None:
        """As the callers document."""
        check_patches(patches_nhwc, self.input_shape)
        check_some(patches_nhwc)
        if self.box is not None:
            low, high = np.min(patches_nhwc), np.max(patches_nhwc)
            if low < self.box.low or high > self.box.high:
                raise ValueError(
                    f"pixels from {low:.4g} to {high:.4g}, wanted {self.box.low:g} to {self.box.high:g}, the bounds of "
                    "the rule for the first layer. Prepare them as for training (patches.as_input)."
                )

    def _rule(self, layer: keras.Layer, *, first: bool) -> Rule:
        if first:
            return self.preset.first
        return self.preset.convolutions if isinstance(layer, keras.layers.Conv2D) else self.preset.dense

    def _check_signs(self, layers: list[keras.Layer], rules: Mapping[str, Rule]) -> None:
        """Gamma and alpha1beta0 are written for inputs that are not negative: pictures, and what a ReLU gives."""
        source = None  # the layer that may have given a negative value to this one
        for layer in layers:
            if source and isinstance(rules.get(layer.name), Gamma | Alpha1Beta0):
                raise ValueError(
                    f"{self.name}: {layer.name} reads {source}, which has no ReLU; wanted inputs that are not negative "
                    f"for {type(rules[layer.name]).__name__}. Take Epsilon there, or build the layer with a ReLU."
                )
            if layer.name in rules:
                source = None if activation_of(layer) == "relu" else layer.name
            elif _is_relu(layer):
                source = None

    def _step(self, layer: keras.Layer, rule: Rule | None) -> _Step:
        if rule is not None:
            return self._weighted(layer, rule)
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            mean = Weighted(lambda reads, kernel: kernel * tf.reduce_mean(reads, axis=(1, 2)), tf.ones(1))
            return _Step(
                layer.name,
                lambda reads: tf.reduce_mean(reads, axis=(1, 2)),
                lambda reads, above: Epsilon(TINY)(mean, reads, above),
            )
        if _is_relu(layer):
            return _Step(layer.name, tf.nn.relu, lambda reads, above: (above, None))
        if isinstance(layer, keras.layers.MaxPooling2D):
            return _by_gradient(layer.name, _max_pooling(layer))
        if isinstance(layer, keras.layers.Flatten):
            return _by_gradient(layer.name, lambda reads: tf.reshape(reads, [-1, math.prod(reads.shape[1:])]))
        return _Step(layer.name, tf.identity, lambda reads, above: (above, None))

    def _weighted(self, layer: keras.layers.Dense | keras.layers.Conv2D, rule: Rule) -> _Step:
        apply = _convolution(layer) if isinstance(layer, keras.layers.Conv2D) else _matrix_product

        def now() -> tuple[tf.Tensor, tf.Tensor | float]:  # weights are read in each call: they may change
            bias = tf.cast(layer.bias, tf.float32) if layer.use_bias else 0.0
            return tf.cast(layer.kernel, tf.float32), bias

        def forward(reads: tf.Tensor) -> tf.Tensor:
            kernel, bias = now()
            outputs = apply(reads, kernel) + bias
            return tf.nn.relu(outputs) if activation_of(layer) == "relu" else outputs

        def down(reads: tf.Tensor, above: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            kernel, bias = now()
            return rule(Weighted(apply, kernel, self.bias(bias)), reads, above)

        return _Step(layer.name, forward, down)


def _layers_to(model: keras.Model, end: keras.KerasTensor, *, any_end: bool) -> list[keras.Layer]:
    """The layers from the pictures up to `end`, each of a kind that LRP has a way through; else ValueError.

    any_end: the last one may have any activation, since relevance is given there.
    """
    layers, tensor = [], end
    while not isinstance(operation_of(tensor), keras.layers.InputLayer):
        layer, reads = operation_of(tensor), inputs_of(tensor)
        kind = type(layer).__name__
        if len(reads) != 1:
            raise ValueError(
                f"{model.name}: {layer.name} ({kind}) reads {len(reads)} layers; LRP wants a chain of layers, such as "
                "VGG16. Take Grad-CAM, which explains this network too."
            )
        if not _has_a_way(layer, any_activation=any_end and not layers):
            raise ValueError(
                f"{model.name}: LRP has no rule for {layer.name} ({kind}, activation {activation_of(layer)}); wanted "
                "convolutions, Dense, ReLU, max-pooling, a global mean, Flatten and Dropout. Take Grad-CAM, which "
                "explains this network too."
            )
        layers.append(layer)
        tensor = reads[0]
    return layers[::-1]


def _has_a_way(layer: keras.Operation, *, any_activation: bool) -> bool:
    if getattr(layer, "data_format", None) == "channels_first":
        return False
    if type(layer) in (keras.layers.Conv2D, keras.layers.Dense):
        return any_activation or activation_of(layer) in ("relu", "linear")
    return _is_relu(layer) or type(layer) in (*IDENTITY, *WITHOUT_WEIGHTS)


def _is_relu(layer: keras.Operation) -> bool:
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return type(layer) is keras.layers.Activation and activation_of(layer) == "relu"


def _row(
    dense: keras.layers.Dense, n_outputs: int, class_index: tf.Tensor, start: str
) -> tuple[tf.Tensor, tf.Tensor | float]:
    """Kernel (F, 1) and bias (1,) of the neuron whose value is the class's log odds, or its logit."""
    kernel = tf.cast(dense.kernel, tf.float32)
    bias = tf.cast(dense.bias, tf.float32) if dense.use_bias else tf.zeros(n_outputs)
    if n_outputs == 1:  # one output: the score of class 1, and its negative that of class 0
        sign = tf.cast(2 * class_index - 1, tf.float32)
        return sign * kernel, sign * bias
    row = tf.gather(kernel, [class_index], axis=1), tf.gather(bias, [class_index])
    if start == "logit":
        return row
    other = [1 - class_index]
    return row[0] - tf.gather(kernel, other, axis=1), row[1] - tf.gather(bias, other)


def _matrix_product(reads: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Of the last axis: a Dense on a map works on every place by itself."""
    return tf.tensordot(reads, kernel, 1)


def _convolution(layer: keras.layers.Conv2D) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    options = {"strides": layer.strides, "padding": layer.padding.upper(), "dilations": layer.dilation_rate}
    return lambda reads, kernel: tf.nn.conv2d(reads, kernel, **options)


def _max_pooling(layer: keras.layers.MaxPooling2D) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda reads: tf.nn.max_pool2d(reads, layer.pool_size, layer.strides, layer.padding.upper())


def _by_gradient(name: str, forward: Callable[[tf.Tensor], tf.Tensor]) -> _Step:
    """A layer without weights that hands each relevance to the one input that it took the value from."""

    def down(reads: tf.Tensor, above: tf.Tensor) -> tuple[tf.Tensor, None]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(reads)
            outputs = forward(reads)
        return tape.gradient(outputs, reads, output_gradients=above), None

    return _Step(name, forward, down)


def _line(above: tf.Tensor, below: tf.Tensor, absorbed: tf.Tensor) -> tf.Tensor:
    """(N, 3) a layer's line of the account."""
    sums = [tf.reduce_sum(side, axis=range(1, len(side.shape))) for side in (above, below)]
    return tf.stack([*sums, absorbed], axis=1)


def _joined(parts: list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]], layers: list[str]) -> Relevance:
    """Of all batches."""
    pixels, score, account = zip(*parts, strict=True)
    table = np.concatenate(account, axis=1)
    index = pd.MultiIndex.from_product([layers, range(table.shape[1])], names=["layer", "patch"])
    frame = pd.DataFrame(table.reshape(-1, len(SIDES)), index=index, columns=SIDES)
    return Relevance(finite(np.concatenate(pixels), "LRP"), np.concatenate(score), frame)
