"""What do guided backpropagation, deconvolution and relevance cost, beside a plain gradient and beside captum?

    python benchmarks/bench_relevance.py        (or `make bench`)

VGG16 with the paper's head, weights drawn at random, which changes no time; a batch of patches. Each explainer is built
once and called once before it is timed: tracing is shown by itself.

Claim 1. Guided backpropagation and deconvolution take at most 1.4 times a gradient.
Claim 2. Relevance, by the composite and by alpha1-beta0, takes at most 2.5 times a gradient.

Beside them captum's composite on a copy in torch. The timed calls alternate, so that a busy machine slows them alike;
medians are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import captum.attr
import keras
import numpy as np
import tensorflow as tf
import torch
from captum.attr._utils import lrp_rules
from timing import in_turns, load_average
from torch import nn

from mitolib import networks
from mitolib.saliency import backpropagation, logits, methods, relevance

ROUNDS = 5


class Copy(nn.Module):
    """VGG16 with the paper's head in torch, which ends in the log odds of the second class."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        below, above = [], []
        for layer in model.layers:
            if isinstance(layer, keras.layers.Conv2D):
                kernel, bias = map(torch.from_numpy, layer.get_weights())
                below += [_filled(nn.Conv2d(*kernel.shape[2:], 3, padding=1), kernel.permute(3, 2, 0, 1), bias)]
                below += [nn.ReLU()]
            elif isinstance(layer, keras.layers.MaxPooling2D):
                below += [nn.MaxPool2d(2)]
            elif isinstance(layer, keras.layers.Dense):
                kernel, bias = map(torch.from_numpy, layer.get_weights())
                if len(layer.output.shape) == 4:  # on places: a convolution of one pixel
                    below += [_filled(nn.Conv2d(*kernel.shape, 1), kernel.T[..., None, None], bias), nn.ReLU()]
                elif layer is model.layers[-1]:
                    contrast = kernel[:, [1]] - kernel[:, [0]]
                    above += [_filled(nn.Linear(*contrast.shape), contrast.T, bias[[1]] - bias[[0]])]
                else:
                    above += [_filled(nn.Linear(*kernel.shape), kernel.T, bias), nn.ReLU()]
        self.below, self.above = nn.Sequential(*below), nn.Sequential(*above)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 1) of (N, C, H, W); Keras flattens height, width, channels."""
        return self.above(self.below(pixels).permute(0, 2, 3, 1).reshape(len(pixels), -1))

    def relevance(self, pixels: torch.Tensor) -> torch.Tensor:
        """By captum's rules, which it drops after every call."""
        for layer in self.below:
            if isinstance(layer, nn.Conv2d):
                layer.rule = lrp_rules.GammaRule(0.25) if layer.kernel_size == (3, 3) else lrp_rules.EpsilonRule(1e-6)
        for layer in self.above:
            if isinstance(layer, nn.Linear):
                layer.rule = lrp_rules.EpsilonRule(1e-6)
        return captum.attr.LRP(self).attribute(pixels, target=0)


def _filled(layer: nn.Module, kernel: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    layer.weight.data, layer.bias.data = kernel.contiguous(), bias
    return layer


def main() -> None:
    """Print what tracing took, then each explainer's time in gradients."""
    keras.utils.set_random_seed(1)
    model = networks.build("VGG16", n_channels=3, arrays=None)
    batch = np.random.default_rng(1).random((methods.BATCH, *model.input_shape[1:]), dtype=np.float32)
    pixels = torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())
    copy = Copy(model)
    explainers: dict[str, Callable[[], object]] = {"gradient": _gradient(model, batch)}
    for rule in backpropagation.RECTIFIERS:
        explained = backpropagation.Backpropagation(model, rule)
        explainers[rule] = lambda explained=explained: explained(batch, 1)
    for name, composite in relevance.COMPOSITES.items():
        walk = relevance.RelevancePropagation(model, composite)
        explainers[name] = lambda walk=walk: walk(batch, 1)
    explainers["captum, LRP"] = lambda: copy.relevance(pixels)
    for name, explain in explainers.items():
        start = time.process_time()
        explain()
        print(f"{name:24s} first call, tracing included: {time.process_time() - start:5.1f} CPU s")
    print(load_average())
    timed = in_turns({name: (explain, 1) for name, explain in explainers.items()}, ROUNDS)
    seconds = {name: median(values) for name, values in timed.items()}
    for name, value in seconds.items():
        print(f"{name:24s} {1e3 * value / len(batch):8.1f} ms per patch, {value / seconds['gradient']:5.2f} gradients")
    rules = max(seconds[rule] for rule in backpropagation.RECTIFIERS) / seconds["gradient"]
    walks = max(seconds[name] for name in ("LRP", "LRP alpha1beta0")) / seconds["gradient"]
    print(f"claim 1: {rules:.2f} times a gradient (wanted: at most 1.4)")
    print(f"claim 2: {walks:.2f} times a gradient (wanted: at most 2.5)")


def _gradient(model: keras.Model, batch: np.ndarray) -> Callable[[], np.ndarray]:
    scores = logits.with_logits(model)

    def backward(pixels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pixels)
            score = scores(pixels, training=False)[:, 1]
        return tape.gradient(score, pixels)

    traced = tf.function(backward, input_signature=[tf.TensorSpec(model.input_shape, tf.float32)])
    return lambda: traced(batch).numpy()


if __name__ == "__main__":
    main()
