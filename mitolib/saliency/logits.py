"""Where in a Keras network the scores of its classes are, and how its layers are connected.

A score is a class's value before the softmax or sigmoid. Of a network with one output, p(patient) by a sigmoid, that
value is the score of class 1, its negative that of class 0. A network of which it is not known where its scores are is
refused: an activation, or a layer, that came in between unseen would make every explanation of it wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import keras
from keras import ops

from mitolib.backend import Tensor

# How an activation is called, be it a function or a layer -> what it is.
ACTIVATIONS = {
    "linear": "linear",
    "sigmoid": "sigmoid",
    "softmax": "softmax",
    "softmax_v2": "softmax",  # tf.nn.softmax
    "log_softmax": "log_softmax",
    "log_softmax_v2": "log_softmax",
    "logsoftmax": "log_softmax",
}
SCORING = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.BatchNormalization)  # their results may be scores,
PASSIVE = (  # and still are behind these
    keras.layers.AveragePooling2D,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Identity,
    keras.layers.Reshape,
)


@dataclass(frozen=True)
class Head:
    """Where the scores of a network are: what its last Dense makes of `reads` before the activation, or `reads`."""

    reads: keras.KerasTensor
    dense: keras.layers.Dense | None
    activation: str  # behind the scores; a value of ACTIVATIONS
    n_outputs: int

    def scores(self, read: Tensor) -> Tensor:
        """(N, classes) of values of `reads`; two classes, as said above, for one output."""
        if self.dense is not None:
            read = ops.matmul(ops.cast(read, self.dense.kernel.dtype), self.dense.kernel)
            read = read + self.dense.bias if self.dense.use_bias else read
        return ops.concatenate([-read, read], axis=1) if self.n_outputs == 1 else read


def head_of(model: keras.Model) -> Head:
    """Find the scores of a network in the graph of its layers.

    Raises ValueError for a model without a graph or with another model inside, with several inputs or outputs, and for
    an end that is no Dense, no convolution with pooling behind it, or has another activation than those above.
    """
    if not getattr(model, "outputs", None):
        raise ValueError(
            f"{model.name} is a {type(model).__name__} without a graph of layers; wanted one. Build the model as "
            "keras.Model(inputs, outputs)."
        )
    if inner := [layer.name for layer in model.layers if isinstance(layer, keras.Model)]:
        raise ValueError(
            f"{model.name} has a model inside, {', '.join(inner)}; wanted a flat one. Build the head on the output of "
            "the inner one: keras.Model(inner.input, head(inner.output)), where it is head(inner(inputs)) now."
        )
    tensor, last = model.outputs[0], operation_of(model.outputs[0])
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(tensor.shape) != 2:
        shapes = ", ".join(str(tuple(output.shape)) for output in model.outputs)
        raise ValueError(
            f"{model.name} has {len(model.inputs)} inputs, and outputs {shapes}; wanted one input and one output "
            "(None, classes). Take one of several: keras.Model(model.input, model.outputs[0])."
        )
    if other := [layer.name for layer in model.layers if getattr(layer, "data_format", None) == "channels_first"]:
        raise ValueError(
            f"{model.name} has channels first in {', '.join(other)}; wanted maps (N, h, w, C). Build it with "
            'data_format="channels_last".'
        )
    activation, n_outputs = activation_of(last), tensor.shape[-1]
    if n_outputs == 1 and "softmax" in activation:
        raise ValueError(
            f"{model.name} has a softmax over one output, which is always 1; wanted a sigmoid there, or two outputs. "
            "Train it again with one of them."
        )
    if _is_plain(last, keras.layers.Dense) and activation in ACTIVATIONS.values():
        return Head(inputs_of(tensor)[0], last, activation, n_outputs)
    alone = isinstance(last, keras.layers.Activation) or not hasattr(last, "activation")
    if alone and activation in ACTIVATIONS.values() and activation != "linear":
        tensor = inputs_of(tensor)[0]
    else:
        activation = "linear"
    source = tensor
    while isinstance(operation_of(source), PASSIVE) or _is_nothing(operation_of(source)):
        source = inputs_of(source)[0]
    end = operation_of(source)
    at_end = activation_of(end)
    known = any(_is_plain(end, kind) for kind in SCORING) and (at_end == "linear" or source is not tensor)
    if at_end in ("sigmoid", "softmax", "log_softmax") or (activation == "linear" and not known):
        raise ValueError(
            f"{model.name} takes its scores from {end.name} ({type(end).__name__}, activation {at_end}); wanted them "
            "from a Dense or convolution, and softmax, sigmoid or nothing as the very last step. Cut off what comes "
            "later, keras.Model(model.input, scores), or build and train it so."
        )
    return Head(tensor, None, activation, n_outputs)


def with_logits(model: keras.Model) -> keras.Model:
    """The same network without its softmax or sigmoid: (N, H, W, C) -> (N, classes) scores, two for one output.

    A last Dense is copied, all other layers are shared.
    """
    head = head_of(model)
    scores = head.reads
    if head.dense is not None:
        linear = type(head.dense).from_config(head.dense.get_config() | {"activation": "linear"})
        scores = linear(head.reads)
        linear.set_weights(head.dense.get_weights())
    if head.n_outputs == 1:
        scores = keras.ops.concatenate([-scores, scores], axis=1)
    return keras.Model(model.inputs[0], scores, name=model.name)


def maps_of(model: keras.Model) -> dict[str, list[keras.KerasTensor]]:
    """Layer -> its maps (N, h, w, C) on the way to the output, one for each time that it is used there; in order."""
    results: dict[str, list[keras.KerasTensor]] = {layer.name: [] for layer in model.layers}
    for tensor in tensors_of(model):
        results.setdefault(operation_of(tensor).name, []).append(tensor)
    return {name: maps for name, maps in results.items() if maps and len(maps[0].shape) == 4}


def tensors_of(model: keras.Model) -> Iterator[keras.KerasTensor]:
    """All results of layers and functions on the way to the outputs, each once, from the top down."""
    todo, seen = list(model.outputs), set()
    while todo:
        tensor = todo.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor
            todo += inputs_of(tensor)


def map_of(model: keras.Model, name: str) -> keras.KerasTensor:
    """The map (N, h, w, C) that a layer gives; ValueError if it gives none, or several."""
    maps = maps_of(model)
    if name not in maps:
        raise ValueError(f"{model.name} has no map {name!r}; layers with maps are {', '.join(maps)}.")
    if len(maps[name]) > 1 or maps[name][0] is not getattr(model.get_layer(name), "output", None):
        raise ValueError(
            f"{name} is used {len(maps[name])} times in {model.name}, or before that in another model; wanted one map. "
            "Take a layer that is used once, or a copy of the model: keras.models.clone_model, then set_weights."
        )
    return maps[name][0]


def passed(cut: keras.KerasTensor, end: keras.KerasTensor) -> bool:
    """Whether another way than through `cut` leads from the pictures to `end`."""
    todo, seen = [end], {id(cut)}
    while todo:
        tensor = todo.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            if not (before := inputs_of(tensor)):
                return True
            todo += before
    return False


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """The layer, or function of keras.ops, whose result it is."""
    return tensor._keras_history[0]


def inputs_of(tensor: keras.KerasTensor) -> list[keras.KerasTensor]:
    """What that operation read for this result; a layer may serve in several places, and in several models."""
    operation, i, _ = tensor._keras_history
    return operation._inbound_nodes[i].input_tensors


def activation_of(operation: keras.Operation) -> str:
    """What it applies at its end, or is itself: a value of ACTIVATIONS, or the name of another function."""
    function = getattr(operation, "activation", None)
    if function is None:
        return ACTIVATIONS.get(type(operation).__name__.lower(), "linear")
    name = getattr(function, "__name__", type(function).__name__)
    return ACTIVATIONS.get(name.lower(), name)


def anew(layer: keras.Layer) -> keras.Layer:
    """A layer of the same settings; Keras could not find tf.nn.softmax again by the name that it notes."""
    config = layer.get_config()
    if config.get("activation") is not None and activation_of(layer) in ACTIVATIONS.values():
        config["activation"] = activation_of(layer)
    return type(layer).from_config(config)


def _is_nothing(operation: keras.Operation) -> bool:
    return isinstance(operation, keras.layers.Activation) and activation_of(operation) == "linear"


def _is_plain(operation: keras.Operation, kind: type[keras.Layer]) -> bool:
    """Whether it computes what layers of that kind do; a subclass, or one made of bytes, computes something else."""
    return type(operation).call is kind.call and not getattr(operation, "quantization_mode", None)
