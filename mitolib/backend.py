"""What Keras' two backends do each in its own way: one function for each need, one branch for each backend.

Keras runs on TensorFlow unless the environment variable KERAS_BACKEND is `torch`. All other modules call Keras, or what
is here. In float32 a product is one of float32 on both: the shorter TF32 of NVIDIA's GPUs is switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import keras
import numpy as np
import pandas as pd

from mitolib.settings import keras_backend

NAME, _running = keras_backend(), keras.backend.backend()
if isinstance(_running, str) and _running != NAME:  # no text: a stand-in for Keras, as when these pages are made
    raise ValueError(
        f"Keras runs on {_running}, wanted {NAME}. Set the environment variable KERAS_BACKEND to tensorflow or torch "
        "before Python starts; it goes before keras.json."
    )
if NAME == "tensorflow":
    import tensorflow as tf

    torch = None
    VERSION = tf.__version__
    OUT_OF_MEMORY: type[Exception] = tf.errors.ResourceExhaustedError
    for _gpu in tf.config.list_physical_devices("GPU"):  # TensorFlow takes all of its memory unless told not to
        tf.config.experimental.set_memory_growth(_gpu, True)
else:
    import torch

    tf = None  # what needs it is left out, or says so
    VERSION = f"torch {torch.__version__}"
    OUT_OF_MEMORY = torch.OutOfMemoryError

Tensor = Any  # of the backend


def use_tf32(allowed: bool) -> None:
    """Whether a GPU may round the factors of a product of float32 to TF32; not, unless somebody asks."""
    if NAME == "tensorflow":
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
    else:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


use_tf32(False)


def gpu() -> str | None:
    """The name of the GPU that computes; None where the processor does."""
    if NAME == "tensorflow":
        gpus = tf.config.list_physical_devices("GPU")
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else None
    kind = _device().type
    return torch.cuda.get_device_name() if kind == "cuda" else None if kind == "cpu" else kind


def free_bytes() -> int | None:
    """Memory of an NVIDIA GPU that is free; None without one, and on TensorFlow, which does not say."""
    return torch.cuda.mem_get_info()[0] if NAME == "torch" and _device().type == "cuda" else None


@cache
def _device() -> Tensor:
    """Where Keras on PyTorch keeps its tensors."""
    return keras.ops.zeros(()).device


def tensor(array: np.ndarray | Tensor, dtype: str = "float32") -> np.ndarray | Tensor:
    """What a network is fed: on PyTorch in the memory of its device, copied there while the device computes on."""
    if NAME == "tensorflow":
        return array.astype(dtype)
    if not isinstance(array, torch.Tensor):
        array = torch.from_numpy(np.array(array))
        array = array.pin_memory() if _device().type == "cuda" else array
    return array.to(_device(), non_blocking=True).to(getattr(torch, dtype))


def compiled(function: Callable[..., Tensor], *shapes: Sequence[int | None]) -> Callable[..., np.ndarray]:
    """A function of tensors as one of arrays, without gradients: float32 arrays of these shapes; () is a whole number.

    On TensorFlow one graph for batches of any length; PyTorch takes its operations one by one.
    """
    if NAME == "tensorflow":
        specs = [tf.TensorSpec(shape, tf.float32 if shape else tf.int32) for shape in shapes]
        graph = tf.function(function, input_signature=specs)
        return lambda *arguments: graph(*arguments).numpy().astype(np.float32, copy=False)

    def call(*arguments: np.ndarray | int) -> np.ndarray:
        with torch.no_grad():
            fed = [tensor(each) if shape else each for each, shape in zip(arguments, shapes, strict=True)]
            return function(*fed).float().cpu().numpy()

    return call


def gradient(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | None:
    """Of the sum of score(x) with respect to x alone, no weights; None where the score does not depend on x."""
    if NAME == "tensorflow":
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            value = score(x)
        return tape.gradient(value, x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = score(x).sum()
        return torch.autograd.grad(value, x, allow_unused=True)[0] if value.requires_grad else None


if NAME == "tensorflow":

    class FusedAdam(keras.optimizers.Adam):
        """Keras' Adam with its update in TensorFlow's one-pass kernel.

        Keras writes the update as a dozen array operations, each a walk through memory over all parameters and
        their two moments; at batch 2 that walk, not the matrix products, bounds a training step. The formula is the
        same, and so are the numbers up to rounding. It reads private attributes of Keras' Adam, which is why
        pyproject.toml lets no other version of Keras in.
        """

        def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
            """One step of one variable, in place; called by Keras."""
            i = self._get_variable_index(variable)
            step = tf.cast(self.iterations.value + 1, variable.dtype)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[i].value.handle,
                v=self._velocities[i].value.handle,
                beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
                beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
                lr=tf.cast(learning_rate, variable.dtype),
                beta1=tf.cast(self.beta_1, variable.dtype),
                beta2=tf.cast(self.beta_2, variable.dtype),
                epsilon=tf.cast(self.epsilon, variable.dtype),
                grad=tf.cast(gradient, variable.dtype),
            )

else:
    FusedAdam = keras.optimizers.Adam  # on PyTorch it updates all variables in each of its operations


def seed_dropout(seed: int) -> None:
    """Start the one stream anew that layers of PyTorch draw from; on TensorFlow each layer has a state of its own."""
    if NAME == "torch":
        torch.manual_seed(seed)


def cross_entropy() -> str | Callable[[Tensor, Tensor], Tensor]:
    """Keras' categorical cross-entropy of one-hot labels and probabilities, from the scores before the softmax.

    On TensorFlow Keras finds these scores itself. On PyTorch it takes the logarithm of rounded probabilities, and a
    patch that is called wrong for certain would teach nothing.
    """
    if NAME == "tensorflow":
        return "categorical_crossentropy"

    def of_scores(truth: Tensor, probabilities: Tensor) -> Tensor:
        scores = getattr(probabilities, "_keras_logits", None)
        if scores is None:
            return keras.losses.categorical_crossentropy(truth, probabilities)
        return keras.losses.categorical_crossentropy(truth, scores, from_logits=True)

    return of_scores


def step(model: keras.Model) -> Callable[[np.ndarray | Tensor, np.ndarray | Tensor], Mapping[str, Any]]:
    """A training step of a compiled model: (batch, labels) -> its scores, for `numbers`: on PyTorch not waited for."""
    if NAME == "tensorflow":
        return lambda batch, labels: model.train_on_batch(batch, labels, return_dict=True)

    def one(batch: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        model.reset_metrics()
        return model.train_step((batch, labels, None))

    return one


def numbers(scores: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The scores of many steps, one row each, brought here at once."""
    if NAME == "tensorflow":
        return pd.DataFrame(scores)
    rows = torch.stack([torch.stack([torch.as_tensor(value) for value in each.values()]) for each in scores])
    return pd.DataFrame(rows.detach().cpu().numpy(), columns=list(scores[0]))
