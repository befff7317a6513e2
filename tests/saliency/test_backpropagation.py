"""Deconvolution, guided backpropagation and guided Grad-CAM."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.utils.model_modifiers import GuidedBackpropagation, ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

from mitolib.saliency import backpropagation, logits, methods
from mitolib.saliency.backpropagation import RECTIFIERS, Backpropagation
from mitolib.saliency.maps import enlarge

GUIDED = "guided backpropagation"


def network(activation: str = "relu") -> keras.Model:
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", activation=activation, name="block1_conv")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(8, 3, padding="same", activation=activation, name="block2_conv")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Dense(8, activation=activation)(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="answer")(x), name="small")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network()


@pytest.fixture
def pixels(rng) -> np.ndarray:
    return rng.random((5, 16, 16, 3), dtype=np.float32)


def gradient(model: keras.Model, pixels: np.ndarray, class_index: int) -> np.ndarray:
    scores, batch = logits.with_logits(model), tf.constant(pixels)
    with tf.GradientTape() as tape:
        tape.watch(batch)
        score = scores(batch, training=False)[:, class_index]
    return tape.gradient(score, batch).numpy()


@pytest.mark.parametrize(
    ("rule", "handed_down"),
    [("deconvolution", [[3.0, 0.0], [3.0, 0.0]]), (GUIDED, [[3.0, 0.0], [0.0, 0.0]])],
)
def test_the_rules_by_hand(rule, handed_down):
    z, above = tf.constant([[2.0, 2.0], [-2.0, -2.0]]), tf.constant([[3.0, -3.0], [3.0, -3.0]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        result = RECTIFIERS[rule](z)
    assert result.numpy().tolist() == [[2, 2], [0, 0]]
    assert tape.gradient(result, z, output_gradients=above).numpy().tolist() == handed_down


def test_guided_is_the_librarys(model, pixels):
    theirs = Saliency(model, [ReplaceToLinear(), GuidedBackpropagation()])
    wanted = theirs(CategoricalScore(1), pixels, normalize_map=False, keepdims=True)
    found = Backpropagation(model, GUIDED)(pixels, 1)
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-6 * np.abs(wanted).max())
    maps = backpropagation.guided_backpropagation(model, pixels, 1, layer="block2_conv", samples=1)
    np.testing.assert_allclose(maps, np.abs(found).max(axis=-1), rtol=1e-6)


@pytest.mark.parametrize("rule", RECTIFIERS)
def test_every_relu_has_the_rule_and_the_scores_are_as_they_were(model, pixels, rule):
    explained = Backpropagation(model, rule)
    assert explained.n_rectified == 3
    np.testing.assert_array_equal(explained._clone(pixels), logits.with_logits(model)(pixels))
    assert all(layer.activation is keras.activations.relu for layer in model.layers if "conv" in layer.name)


@pytest.mark.parametrize("rule", RECTIFIERS)
def test_it_is_the_loop_of_its_definition(rule, rng):
    keras.utils.set_random_seed(4)
    x = inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(3, 3, activation="relu", name="conv")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(5, activation="relu", name="wide")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="answer")(x))
    picture = rng.normal(size=(1, 6, 6, 1)).astype(np.float32)
    kernel, bias = model.get_layer("conv").get_weights()
    z = np.zeros((4, 4, 3))
    for y in range(4):
        for x in range(4):
            z[y, x] = (picture[0, y : y + 3, x : x + 3, 0, None] * kernel[:, :, 0]).sum(axis=(0, 1)) + bias
    wide, wide_bias = model.get_layer("wide").get_weights()
    z_wide = z.clip(min=0).ravel() @ wide + wide_bias

    def below(r: np.ndarray, z: np.ndarray) -> np.ndarray:
        return r.clip(min=0) * (1 if rule == "deconvolution" else z > 0)

    r = below(model.get_layer("answer").get_weights()[0][:, 1], z_wide)
    r = below((wide @ r).reshape(z.shape), z)
    wanted = np.zeros((6, 6))
    for y in range(4):
        for x in range(4):
            wanted[y : y + 3, x : x + 3] += (kernel[:, :, 0] * r[y, x]).sum(axis=-1)
    np.testing.assert_allclose(Backpropagation(model, rule)(picture, 1)[0, ..., 0], wanted, atol=1e-5)


def test_with_positive_kernels_guided_is_the_gradient(pixels):
    model = network()
    model.set_weights([np.abs(array) for array in model.get_weights()])
    wanted = gradient(model, pixels, 1)
    np.testing.assert_allclose(Backpropagation(model, GUIDED)(pixels, 1), wanted, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("rule", RECTIFIERS)
def test_a_score_three_times_as_steep_gives_maps_three_times_as_high(pixels, rule):
    model = network()
    explained = Backpropagation(model, rule)
    before = explained(pixels, 1)
    kernel, bias = model.get_layer("answer").get_weights()
    model.get_layer("answer").set_weights([3 * kernel, bias + 7])
    np.testing.assert_array_equal(explained(pixels, 1), before, "it keeps the weights that it was given")
    explained.follow()
    np.testing.assert_allclose(explained(pixels, 1), 3 * before, rtol=1e-5, atol=1e-6 * np.abs(before).max())


def test_a_batch_is_its_patches_one_by_one_and_frozen_layers_do_not_matter(pixels):
    model = network()
    model.trainable = False
    explained = Backpropagation(model, GUIDED)
    alone = np.concatenate([explained(pixels[i : i + 1], 0) for i in range(len(pixels))])
    np.testing.assert_allclose(explained(pixels, 0), alone, atol=1e-6 * np.abs(alone).max())


def test_guided_grad_cam_is_the_product_of_its_factors_and_zero_where_grad_cam_is(model, pixels):
    found = backpropagation.guided_grad_cam(model, pixels, 1, layer="block2_conv", samples=1)
    coarse = enlarge(methods.GradCAM(model, "block2_conv")(pixels, 1), 16)
    fine = np.abs(Backpropagation(model, GUIDED)(pixels, 1)).max(axis=-1)
    np.testing.assert_allclose(found, fine * coarse, rtol=1e-5, atol=1e-8)
    assert found.max() > 0 and (found[coarse == 0] == 0).all()


def test_a_network_without_a_relu_and_one_that_rectifies_between_its_layers_are_refused():
    with pytest.raises(ValueError, match="no ReLU"):
        Backpropagation(network("tanh"), GUIDED)
    x = inputs = keras.Input((16, 16, 3))
    x = keras.ops.relu(keras.layers.Conv2D(4, 3)(x))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x)))
    with pytest.raises(ValueError, match="outside its layers, in relu"):
        Backpropagation(model, GUIDED)


@pytest.mark.parametrize("rule", RECTIFIERS)
def test_what_cannot_be_asked_is_refused(model, pixels, rule):
    explained = Backpropagation(model, rule)
    with pytest.raises(ValueError, match="class_index=2"):
        explained(pixels, 2)
    with pytest.raises(ValueError, match="no patch to explain"):
        explained(pixels[:0], 1)
    with pytest.raises(FloatingPointError, match="not finite"):
        explained(np.full_like(pixels, np.inf), 1)
    with pytest.raises(ValueError, match="wanted \\(N, 16, 16, 3\\)"):
        explained(pixels[:, :8], 1)
