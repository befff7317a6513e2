from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch_copy
from captum.attr import Deconvolution, GuidedBackprop
from keras import layers
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.utils.model_modifiers import GuidedBackpropagation
from tf_keras_vis.utils.scores import CategoricalScore

from mitolib.saliency.backpropagation import RELUS, ModifiedBackpropagation, guided_grad_cam, strongest
from mitolib.saliency.logits import with_logits
from mitolib.saliency.maps import enlarge

GUIDED, DECONVOLUTION = RELUS
PICTURES = np.random.default_rng(9).random((5, 16, 16, 3), dtype=np.float32)


def small(activation: str = "relu") -> keras.Model:
    """Convolutions and Dense on places: 4 ReLUs."""
    keras.utils.set_random_seed(5)
    x = pictures = keras.Input((16, 16, 3))
    for i in (1, 2):
        x = layers.Conv2D(6, 3, padding="same", activation=activation, name=f"conv_{i}")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(8, activation=activation, name="places")(x)
    x = layers.Flatten()(layers.Dropout(0.5)(x))
    x = layers.Dense(8, activation=activation, name="dense_8")(x)
    model = keras.Model(pictures, layers.Dense(2, activation="softmax", name="probabilities")(x), name="small")
    rng = np.random.default_rng(3)
    model.set_weights([w if w.ndim > 1 else 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return small()


@pytest.fixture(scope="module")
def explainers(model) -> dict[str, ModifiedBackpropagation]:
    return {name: ModifiedBackpropagation(model, name) for name in RELUS}


def gradient(model: keras.Model, pictures_nhwc: np.ndarray, class_index: int) -> np.ndarray:
    pictures = tf.constant(pictures_nhwc)
    with tf.GradientTape() as tape:
        tape.watch(pictures)
        score = with_logits(model)(pictures)[:, class_index]
    return tape.gradient(score, pictures).numpy()


def agree(ours: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    """Within a share of the greatest value that is wanted."""
    assert np.abs(wanted).max() > 0
    assert np.abs(ours - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize(("name", "wanted"), [(GUIDED, [3, 0, 0, 0]), (DECONVOLUTION, [3, 0, 3, 0])])
def test_a_unit_passes_the_signal_by_the_signs_of_what_it_reads_and_of_the_signal(name, wanted):
    z, above = tf.constant([2.0, 2, -2, -2]), tf.constant([3.0, -3, 3, -3])
    with tf.GradientTape() as tape:
        tape.watch(z)
        outputs = RELUS[name](z)
    assert outputs.numpy().tolist() == [2, 2, 0, 0]
    assert tape.gradient(outputs, z, output_gradients=above).numpy().tolist() == wanted


@pytest.mark.parametrize("name", RELUS)
def test_a_network_of_two_layers_by_hand(name):
    rng = np.random.default_rng(1)
    pictures = keras.Input((6, 6, 1))
    hidden = layers.Dense(7, activation="relu")(layers.Flatten()(pictures))
    model = keras.Model(pictures, layers.Dense(2)(layers.Dense(5, activation="relu")(hidden)))
    one, two, last = (rng.standard_normal(shape).astype(np.float32) for shape in ((36, 7), (7, 5), (5, 2)))
    model.set_weights([one, np.zeros(7), two, np.zeros(5), last, np.zeros(2)])
    picture = rng.standard_normal((6, 6)).astype(np.float32)
    reads = [picture.ravel() @ one]
    reads.append(np.maximum(reads[0], 0) @ two)
    signal = last[:, 1]
    for z, kernel in ((reads[1], two), (reads[0], one)):
        passes = (signal > 0) if name == DECONVOLUTION else (signal > 0) & (z > 0)
        signal = kernel @ np.where(passes, signal, 0)
    agree(ModifiedBackpropagation(model, name)(picture[None, ..., None], 1)[0, ..., 0], signal.reshape(6, 6), 1e-5)


def test_every_relu_is_replaced_and_the_scores_stay(model, explainers):
    wanted = with_logits(model)(PICTURES).numpy()
    for explain in explainers.values():
        assert explain.n_relus == 4
        np.testing.assert_allclose(explain.scores(PICTURES), wanted, rtol=1e-5, atol=1e-6)
    replaced = explainers[GUIDED]._copy(PICTURES).numpy()
    np.testing.assert_array_equal(replaced, model(PICTURES).numpy())


@pytest.mark.parametrize("class_index", [0, 1])
def test_guided_is_that_of_tf_keras_vis(model, explainers, class_index):
    library = Saliency(with_logits(model), GuidedBackpropagation())
    wanted = library(CategoricalScore(class_index), PICTURES, normalize_map=False)
    agree(strongest(explainers[GUIDED](PICTURES, class_index)), np.asarray(wanted), 1e-6)


@pytest.mark.parametrize(("name", "theirs"), [(GUIDED, GuidedBackprop), (DECONVOLUTION, Deconvolution)])
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
def test_both_are_captums_on_a_copy(model, explainers, name, theirs):
    agree(explainers[name](PICTURES, 1), torch_copy.attribution(model, PICTURES, 1, theirs), 1e-5)


@pytest.mark.parametrize("name", RELUS)
def test_signals_follow_the_weights_and_are_scaled_by_the_last_kernel_alone(name):
    model = small()
    explain = ModifiedBackpropagation(model, name)
    before = explain(PICTURES, 1)
    kernel, bias = model.get_layer("probabilities").get_weights()
    model.get_layer("probabilities").set_weights([3 * kernel, bias + 7])
    agree(explain(PICTURES, 1), 3 * before, 1e-6)


def test_where_nothing_is_negative_guided_is_the_gradient():
    model = small()
    model.set_weights([np.abs(w) for w in model.get_weights()])
    agree(ModifiedBackpropagation(model, GUIDED)(PICTURES + 0.1, 1), gradient(model, PICTURES + 0.1, 1), 1e-6)


@pytest.mark.parametrize("name", RELUS)
def test_pictures_in_a_batch_do_not_meet_and_the_network_is_left_alone(model, explainers, name):
    together = explainers[name](np.concatenate([PICTURES, PICTURES]), 1)
    agree(np.concatenate([explainers[name](one[None], 1) for one in PICTURES]), together[5:], 1e-6)
    assert all(layer.activation is keras.activations.relu for layer in model.layers if layer.name.startswith("conv"))


def test_frozen_layers_and_relus_that_are_layers_of_their_own_are_replaced_too(model, explainers):
    apart = keras.Sequential([keras.Input((16, 16, 3))], name="apart")
    for layer in model.layers[1:]:
        config = layer.get_config()
        rectified = config.get("activation") == "relu"
        apart.add(type(layer).from_config(config | ({"activation": "linear"} if rectified else {})))
        if rectified:
            apart.add(layers.ReLU())
    apart.set_weights(model.get_weights())
    apart.trainable = False
    explain = ModifiedBackpropagation(apart, GUIDED)
    assert explain.n_relus == 4
    agree(explain(PICTURES, 1), explainers[GUIDED](PICTURES, 1), 1e-6)


def test_guided_grad_cam_is_the_product_and_zero_where_grad_cam_is():
    rng = np.random.default_rng(2)
    signal, maps = rng.standard_normal((2, 16, 16, 3)).astype(np.float32), rng.random((2, 4, 4)).astype(np.float32)
    maps[0, :, :2], maps[1] = 0, 0
    product = guided_grad_cam(signal, maps)
    large = enlarge(maps, 16)
    agree(product[0], signal[0] * large[0][..., None], 1e-6)
    assert (large[0] == 0).any() and not product[0][large[0] == 0].any() and not product[1].any()
    with pytest.raises(ValueError, match="2 signals for 1 maps"):
        guided_grad_cam(signal, maps[:1])


class TestBadInput:
    def test_networks_without_relu_or_with_another_rectifier_are_refused(self):
        with pytest.raises(ValueError, match="small has no layer with ReLU"):
            ModifiedBackpropagation(small("tanh"), GUIDED)
        with pytest.raises(ValueError, match=r"small: dense_8 is a rectifier \(leaky_relu\)"):
            ModifiedBackpropagation(small("leaky_relu"), GUIDED)
        pictures = keras.Input((16, 16, 3))
        maps = keras.ops.relu(layers.Conv2D(2, 3, activation="relu")(pictures))
        functional = keras.Model(pictures, layers.Dense(2)(layers.Flatten()(maps)), name="net")
        with pytest.raises(ValueError, match=r"net: .* is a rectifier \(Relu\) that cannot be replaced"):
            ModifiedBackpropagation(functional, GUIDED)
        with pytest.raises(ValueError, match="'guided' is not one of guided backpropagation, deconvolution"):
            ModifiedBackpropagation(small(), "guided")

    def test_pictures_classes_and_weights_that_do_not_fit(self, model, explainers):
        explain = explainers[GUIDED]
        with pytest.raises(ValueError, match=r"wanted \(N, 16, 16, 3\)"):
            explain(PICTURES[..., :1], 1)
        with pytest.raises(ValueError, match="0 patches"):
            explain(PICTURES[:0], 1)
        with pytest.raises(ValueError, match="class_index=-1"):
            explain(PICTURES, -1)
        with pytest.raises(FloatingPointError, match="not finite"):
            explain(PICTURES * np.nan, 1)
        broken = small()
        broken.set_weights([w * np.nan for w in broken.get_weights()])
        with pytest.raises(FloatingPointError, match="weights of conv_1"):
            ModifiedBackpropagation(broken, GUIDED)
