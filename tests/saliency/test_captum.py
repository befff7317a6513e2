"""Guided backpropagation, deconvolution and relevance, held against captum on a copy of the weights in torch."""

from __future__ import annotations

import captum.attr
import keras
import numpy as np
import pytest
import torch
from captum.attr._utils import lrp_rules
from torch import nn

from mitolib.saliency.backpropagation import Backpropagation
from mitolib.saliency.relevance import Composite, RelevancePropagation, Rule

WIDTHS = (6, 8)


class Copy(nn.Module):
    """The same network in torch, which ends in the log odds of class 1, or in the scores of both classes."""

    def __init__(self, model: keras.Model, *, log_odds: bool) -> None:
        super().__init__()
        weights = [torch.from_numpy(array) for array in model.get_weights()]
        convolutions = [nn.Conv2d(before, after, 3, padding=1) for before, after in zip((3, 6), WIDTHS, strict=True)]
        places = nn.Conv2d(8, 8, 1)
        kernels = [weights[0].permute(3, 2, 0, 1), weights[2].permute(3, 2, 0, 1), weights[4].T[..., None, None]]
        for layer, kernel, bias in zip([*convolutions, places], kernels, weights[1:6:2], strict=True):
            layer.weight.data, layer.bias.data = kernel.contiguous(), bias
        self.below = nn.Sequential(
            convolutions[0], nn.ReLU(), nn.MaxPool2d(2), convolutions[1], nn.ReLU(), nn.MaxPool2d(2), places, nn.ReLU()
        )
        kernel, bias = weights[6:]
        if log_odds:
            kernel, bias = kernel[:, [1]] - kernel[:, [0]], bias[[1]] - bias[[0]]
        self.scores = nn.Linear(*kernel.shape)
        self.scores.weight.data, self.scores.bias.data = kernel.T.contiguous(), bias

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        # Keras flattens height, width, channels; torch would take channels first.
        return self.scores(self.below(pixels).permute(0, 2, 3, 1).reshape(len(pixels), -1))


def network(*, biases: bool) -> keras.Model:
    keras.utils.set_random_seed(7)
    options = {"bias_initializer": keras.initializers.RandomNormal(stddev=0.05) if biases else "zeros"}
    x = inputs = keras.Input((16, 16, 3))
    for width in WIDTHS:
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", **options)(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(keras.layers.Dense(8, activation="relu", **options)(x))
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", **options)(x))


@pytest.fixture
def pixels(rng) -> np.ndarray:
    return rng.random((5, 16, 16, 3), dtype=np.float32)


def channels_first(pixels_nhwc: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels_nhwc.transpose(0, 3, 1, 2).copy())


def channels_last(found: torch.Tensor) -> np.ndarray:
    return found.detach().numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [("guided backpropagation", captum.attr.GuidedBackprop), ("deconvolution", captum.attr.Deconvolution)],
)
@pytest.mark.parametrize("class_index", [0, 1])
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_rules_at_the_relus_are_captums(pixels, rule, theirs, class_index):
    model = network(biases=True)
    wanted = channels_last(theirs(Copy(model, log_odds=False)).attribute(channels_first(pixels), target=class_index))
    found = Backpropagation(model, rule)(pixels, class_index)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("rule", "theirs", "biases"),
    [
        (Rule(), lambda: lrp_rules.EpsilonRule(1e-9), True),
        (Rule(gamma=0.25), lambda: lrp_rules.GammaRule(0.25), False),  # of biases captum has another opinion
        (Rule(gamma=float("inf")), lrp_rules.Alpha1_Beta0_Rule, False),
    ],
    ids=["epsilon", "gamma", "alpha1-beta0"],
)
def test_relevance_is_captums(pixels, rule, theirs, biases):
    model = network(biases=biases)
    copy = Copy(model, log_odds=True)
    for layer in [*copy.below, copy.scores]:
        if not isinstance(layer, nn.ReLU):
            layer.rule = theirs() if not isinstance(layer, nn.MaxPool2d) else lrp_rules.EpsilonRule()
    wanted = channels_last(captum.attr.LRP(copy).attribute(channels_first(pixels), target=0))
    found = RelevancePropagation(model, Composite(first=rule, convolutions=rule, dense=rule))(pixels, 1).pixels_nhwc
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9999
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), wanted.sum(axis=(1, 2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found, wanted, atol=1e-2 * np.abs(wanted).max())
