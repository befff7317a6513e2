"""The same network in torch, for which captum has oracles: a copy of a flat Keras chain, up to its scores."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import torch
from torch import Tensor, nn


class Copy(nn.Module):
    """Convolutions, Dense on places and on vectors, ReLU and max-pooling; pictures (N, C, H, W) -> (N, classes).

    captum sees modules only, has no rule for nn.Flatten, and wants each ReLU to be a module of its own.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.below, self.above = nn.Sequential(), nn.Sequential()
        layers = [
            layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer | keras.layers.Dropout)
        ]
        flat = next(i for i, layer in enumerate(layers) if isinstance(layer, keras.layers.Flatten))
        for layer in layers[:flat]:
            self.below.extend(_modules(layer))
        for layer in layers[flat + 1 :]:
            self.above.extend(_modules(layer, on_places=False))

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.below(pictures)
        return self.above(maps.permute(0, 2, 3, 1).reshape(len(maps), -1))  # Keras flattens H, W, C


def _modules(layer: keras.Layer, *, on_places: bool = True) -> list[nn.Module]:
    if isinstance(layer, keras.layers.MaxPooling2D):
        return [nn.MaxPool2d(2)]
    kernel, bias = map(torch.tensor, layer.get_weights())
    if not on_places:
        module, kernel = nn.Linear(*kernel.shape), kernel.T
    else:  # a Dense on a map is a convolution of one place
        kernel = kernel if kernel.ndim == 4 else kernel[None, None]
        kernel = kernel.permute(3, 2, 0, 1)
        module = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[-1], padding="same")
    module.weight.data, module.bias.data = kernel.contiguous(), bias
    return [module, nn.ReLU()] if layer.activation is keras.activations.relu else [module]


def pictures_of(patches_nhwc: np.ndarray) -> Tensor:
    """(N, C, H, W), with a gradient."""
    return torch.tensor(patches_nhwc.transpose(0, 3, 1, 2).copy(), requires_grad=True)


def attribution(model: keras.Model, patches_nhwc: np.ndarray, class_index: int, method: Callable) -> np.ndarray:
    """(N, H, W, C) of one of captum's methods, made anew: what one leaves behind in a module changes the next."""
    found = method(Copy(model)).attribute(pictures_of(patches_nhwc), target=class_index)
    return found.detach().numpy().transpose(0, 2, 3, 1)


def relevance(
    model: keras.Model, patches_nhwc: np.ndarray, class_index: int, method: Callable, rule: Callable
) -> np.ndarray:
    """(N, H, W, C) of captum's LRP with one rule in all layers with weights."""
    copy = Copy(model)
    for module in copy.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.rule = rule()
    found = method(copy).attribute(pictures_of(patches_nhwc), target=class_index)
    return found.detach().numpy().transpose(0, 2, 3, 1)
