"""The copy of VGG16's last convolution and of the paper's head in PyTorch, against Keras; features and their rows."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from toy_arms import EVERY, MAPS, toy_features

from mitolib import bank, networks, patches
from mitolib.study import EXP1
from mitolib.weights import Weights
from mitolib.whitening import vgg16
from mitolib.whitening.layer import samples_of
from mitolib.whitening.trunks import Pictures

pytestmark = pytest.mark.usefixtures("one_torch_thread")
RANDOM = Weights("VGG16", "random", None, None, None)


@pytest.fixture(scope="module")
def whole() -> keras.Model:
    keras.utils.set_random_seed(3)
    return networks.build("VGG16", arrays=None)


def pictures(n: int) -> Pictures:
    table = pd.DataFrame({"section": "S", "y": np.arange(n), "x": 0, "label": ["control", "patient"] * (n // 2)})
    patches_nhwc = np.random.default_rng(0).integers(0, 256, (n, 224, 224, 1), dtype=np.uint8)
    return Pictures("SDHA", ("SDHA",), table, patches_nhwc, EXP1, "pictures")


def test_features_layer_and_head_in_pytorch_are_those_of_keras(whole, tmp_path, monkeypatch):
    """From pictures to logits. What the bank keeps is rounded to half precision, which the copy itself is not."""
    monkeypatch.setattr(bank, "FOLDER", tmp_path)
    shown = pictures(2)
    inner = [whole.get_layer(name).output for name in (vgg16.CUT, vgg16.CONVOLUTION, "block5_pool")]
    *wanted, p_wanted = keras.Model(whole.input, [*inner, whole.output])(patches.as_input(shown.patches_nhwc))
    below, convolved, pooled = (torch.from_numpy(np.array(maps)).permute(0, 3, 1, 2) for maps in wanted)
    copied = vgg16.convolution(*whole.get_layer(vgg16.CONVOLUTION).get_weights())
    scale = convolved.abs().max()
    assert scale > 0
    assert_allclose(torch.relu(copied(below)) / scale, convolved / scale, atol=1e-4)
    tail = vgg16.tail("paper", 2, seed=0)
    tail.last.norm = torch.nn.Identity()
    assert_allclose(tail.last(copied(below)) / scale, pooled / scale, atol=1e-4)
    _copy_head(whole, tail)
    with torch.no_grad():
        assert_allclose(tail.eval()(copied(below)).softmax(1), p_wanted, atol=1e-4)

    features = vgg16.Features(shown, RANDOM, 0, (0.8, 1.2), 3)
    halves = networks.divide(whole, vgg16.CUT)[0], copied
    vars(features)["_halves"] = halves
    assert_allclose(torch.relu(features.maps(np.array([1, 0]))) / scale, convolved.flip(0) / scale, atol=2e-3)
    assert_allclose(torch.relu(features.maps_of(shown.patches_nhwc)) / scale, convolved / scale, atol=2e-3)


def _copy_head(whole: keras.Model, tail: torch.nn.Module) -> None:
    dense = [module for module in tail.of_position if isinstance(module, torch.nn.Conv2d)]
    with torch.no_grad():
        for layer, module in zip((2048, 1024, 512, 256), dense, strict=True):
            kernel, bias = whole.get_layer(f"dense_{layer}").get_weights()
            module.weight.copy_(torch.from_numpy(kernel.T[..., None, None].copy()))
            module.bias.copy_(torch.from_numpy(bias))
        kernel, bias = whole.get_layer("dense_128").get_weights()  # Keras flattens y, x, channel
        by_channel = kernel.reshape(7, 7, 256, 128).transpose(3, 2, 0, 1).reshape(128, -1)
        tail.dense.weight.copy_(torch.from_numpy(by_channel.copy()))
        tail.dense.bias.copy_(torch.from_numpy(bias))
        kernel, bias = whole.get_layer("probabilities").get_weights()
        tail.fc.weight.copy_(torch.from_numpy(kernel.T.copy()))
        tail.fc.bias.copy_(torch.from_numpy(bias))


def test_rows_of_the_maps_are_the_patches_and_then_their_augmented_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(bank, "FOLDER", tmp_path)
    monkeypatch.setattr(vgg16, "N_CHANNELS", 2)
    shown = pictures(70)  # more than a batch, and than a chunk of the bank
    features = vgg16.Features(shown, RANDOM, 2, (1.0, 1.0), 3)
    x = keras.Input((224, 224, 3))
    backbone = keras.Model(x, keras.layers.Conv2D(2, 16, 16, kernel_initializer="ones")(x))
    same = torch.nn.Conv2d(2, 2, 1, bias=False)
    torch.nn.init.dirac_(same.weight)
    vars(features)["_halves"] = backbone, same.requires_grad_(False)
    maps = features.maps(np.arange(210))
    sums = patches.as_input(shown.patches_nhwc)[..., 0].reshape(70, 14, 16, 14, 16).sum((2, 4)) * 3
    assert_allclose(maps[:70, 0], sums, rtol=2e-3)
    for copy in (maps[70:140], maps[140:]):
        means = copy[:, 0].mean((1, 2))
        assert_allclose(means, sums.mean((1, 2)), rtol=0.05)
        assert np.abs(copy[:, 0].numpy() - sums).max() > 1, "turned or flipped"
    assert not torch.equal(maps[70:140], maps[140:])
    assert_array_equal(features.training_rows(np.array([3, 69])), [73, 139, 143, 209])
    assert_array_equal(features.labels, np.tile(shown.labels, 3))


def test_without_augmented_copies_the_patches_are_trained_on():
    assert_array_equal(toy_features().training_rows(np.array([5, 2])), [5, 2])


def test_statistics_are_the_mean_and_covariance_over_all_positions():
    rows = EVERY[::-1][:70]
    mean, covariance = toy_features().statistics(rows)
    samples = samples_of(MAPS[rows.copy()]).numpy()
    assert_allclose(mean, samples.mean(1), atol=1e-3)
    assert_allclose(covariance, np.cov(samples, bias=True), atol=2e-3)


@pytest.mark.parametrize(
    "change",
    [{"views": 2}, {"weights": replace(RANDOM, sha256="cd")}, {"pictures": replace(pictures(2), data_sha256="y")}],
)
def test_whatever_the_maps_depend_on_is_named(change):
    first = vgg16.Features(pictures(2), replace(RANDOM, sha256="ab"), 1, (0.8, 1.2), 3)
    assert replace(first, **change).depends != first.depends
    plain = replace(first, views=0)
    assert replace(plain, zoom=(1.0, 1.0), seed=9).depends == plain.depends, "nothing is augmented"
    drawn = replace(plain, weights=RANDOM)
    assert replace(drawn, seed=9).depends != drawn.depends, "the weights are of this seed"


def test_a_tail_follows_from_its_seed_and_leaves_the_generator_where_it_was():
    before = torch.get_rng_state()
    first, again, other = (vgg16.tail("light", 2, seed=seed).fc.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
