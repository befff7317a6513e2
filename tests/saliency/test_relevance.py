from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch_copy
from captum.attr import LRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from keras import layers

from mitolib.saliency import relevance
from mitolib.saliency.logits import with_logits
from mitolib.saliency.relevance import PRESETS, LayerwiseRelevance, Preset, RelevanceBelow
from mitolib.saliency.rules import Alpha1Beta0, Box, Epsilon, Flat, Gamma, Weighted

PICTURES = np.random.default_rng(7).random((5, 32, 32, 3), dtype=np.float32)
PICTURES[0, :9, :9] = 0  # a corner where nothing is
EPSILON = Preset(Epsilon(1e-9), Epsilon(1e-9), Epsilon(1e-9))
GAMMA = Preset(Box(), Gamma(0.25), Gamma(0.25))
ALPHA = Preset(Box(), Alpha1Beta0(), Alpha1Beta0())


def small(*, biases: bool, n_channels: int = 3, end: str = "softmax", n_outputs: int = 2) -> keras.Model:
    """Like VGG16 with the paper's head: convolutions, Dense on places, Dropout, Flatten, Dense, classes."""
    keras.utils.set_random_seed(11)
    x = pictures = keras.Input((32, 32, n_channels))
    for i, width in enumerate((6, 8, 8), start=1):
        x = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"block{i}_conv")(x)
        x = layers.MaxPooling2D(name=f"block{i}_pool")(x)
    x = layers.Dense(12, activation="relu", name="places")(x)
    x = layers.Flatten(name="flatten")(layers.Dropout(0.5, name="dropout")(x))
    x = layers.Dense(16, activation="relu", name="dense_16")(x)
    model = keras.Model(pictures, layers.Dense(n_outputs, activation=end, name="probabilities")(x), name="small")
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, 0.1 * rng.standard_normal(bias.shape) if biases else 0 * bias])
    return model


@pytest.fixture(scope="module")
def biased() -> keras.Model:
    return small(biases=True)


@pytest.fixture(scope="module")
def unbiased() -> keras.Model:
    return small(biases=False)


def agree(ours: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    """Within a share of the greatest value that is wanted."""
    assert np.abs(wanted).max() > 0
    assert np.abs(ours - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("n_channels", [3, 10])
def test_lrp_0_is_gradient_times_input_biases_included(n_channels):
    model = small(biases=True, n_channels=n_channels)
    pictures = tf.constant(np.random.default_rng(5).random((3, 32, 32, n_channels), dtype=np.float32))
    with tf.GradientTape() as tape:
        tape.watch(pictures)
        logit = with_logits(model)(pictures)[:, 1]
    found = LayerwiseRelevance(model, PRESETS["gradient x input"])(pictures.numpy(), 1)
    agree(found.pixels_nhwc, (pictures * tape.gradient(logit, pictures)).numpy(), 1e-4)
    np.testing.assert_allclose(found.score, logit, rtol=1e-5, atol=1e-6)


RULES = {
    "epsilon": EPSILON,
    "gamma": GAMMA,
    "alpha1beta0": ALPHA,
    "gamma of 1e6": Preset(Box(), Gamma(1e6), Gamma(1e6)),
    "flat": Preset(Flat(), Gamma(0.25), Epsilon(1e-9)),
    "composite": PRESETS["LRP"],
    "gamma in all": Preset(Gamma(0.25), Gamma(0.25), Gamma(0.25)),
}


@pytest.mark.parametrize("name", RULES)
def test_without_biases_all_of_the_score_arrives_at_the_pixels(unbiased, name):
    found = LayerwiseRelevance(unbiased, RULES[name])(PICTURES, 1)
    positive = found.score > 0  # alpha1beta0 finds no positive contribution to a negative score
    chosen = positive if name in ("alpha1beta0", "gamma of 1e6") else np.abs(found.score) > 0.01
    if not chosen.any():
        found = LayerwiseRelevance(unbiased, RULES[name])(PICTURES, 0)
        chosen = found.score > 0
    assert chosen.any()
    np.testing.assert_allclose(found.arriving[chosen], 1, atol=1e-3)


@pytest.mark.parametrize("name", ["gamma", "alpha1beta0"])
def test_biases_left_out_conserve_what_biases_absorb_otherwise(biased, name):
    class_index = int(LayerwiseRelevance(biased)(PICTURES, 1).score.mean() > 0)
    absorbing = LayerwiseRelevance(biased, RULES[name])(PICTURES, class_index)
    conserving = RelevanceBelow(biased, "places", replace(RULES[name], biases="zero"))
    given = np.random.default_rng(2).random((5, 4, 4, 12), dtype=np.float32)
    outputs = keras.Model(biased.input, biased.get_layer("places").output)(PICTURES).numpy()
    given = given * outputs  # none where the ReLU is silent
    np.testing.assert_allclose(conserving(PICTURES, given).arriving, 1, atol=1e-3)
    assert np.abs(absorbing.arriving - 1).max() > 0.05


@pytest.mark.parametrize("name", RULES)
def test_with_biases_the_account_of_every_layer_closes(biased, name):
    found = LayerwiseRelevance(biased, RULES[name])(PICTURES, 1)
    account = found.account
    assert list(account.index.get_level_values("layer").unique()) == [
        *("probabilities", "dense_16", "places", "block3_conv", "block2_conv", "block1_conv")
    ]
    gap = (account["below"] + account["absorbed"] - account["above"]).abs()
    size = account.abs().max(axis=1)
    assert (gap <= 1e-4 * size + 1e-9).all()
    np.testing.assert_allclose(account.loc["probabilities", "above"], found.score, rtol=1e-5)
    np.testing.assert_allclose(account.loc["block1_conv", "below"], found.maps.sum((1, 2)), rtol=1e-3, atol=1e-5)
    assert account["absorbed"].abs().max() > 0.01 * np.abs(found.score).max(), "biases absorb something"


def test_relevance_is_linear_in_what_is_given(biased):
    logits = with_logits(biased)(PICTURES).numpy()
    below = RelevanceBelow(biased, "probabilities", EPSILON)
    parts = [below(PICTURES, logits * one).pixels_nhwc for one in ([1, 0], [0, 1])]
    agree(sum(parts), below(PICTURES, logits).pixels_nhwc, 1e-5)
    from_logit = LayerwiseRelevance(biased, replace(EPSILON, start="logit"))
    for class_index in (0, 1):
        agree(parts[class_index], from_logit(PICTURES, class_index).pixels_nhwc, 1e-5)


def test_gamma_of_0_is_epsilon_and_a_great_gamma_is_alpha1beta0(biased):
    none, small_eps = (Preset(rule, rule, rule) for rule in (Gamma(0), Epsilon(1e-9)))
    first, second = (LayerwiseRelevance(biased, preset)(PICTURES, 1).pixels_nhwc for preset in (none, small_eps))
    agree(first, second, 1e-6)
    great, alpha = (Preset(rule, rule, rule) for rule in (Gamma(1e6), Alpha1Beta0()))
    class_index = int(LayerwiseRelevance(biased)(PICTURES, 1).score.mean() > 0)
    first, second = (LayerwiseRelevance(biased, preset)(PICTURES, class_index) for preset in (great, alpha))
    positive = second.score > 0
    assert positive.any()
    agree(first.pixels_nhwc[positive], second.pixels_nhwc[positive], 1e-3)


def test_alpha1beta0_and_box_give_nothing_negative_for_a_positive_score(biased):
    for class_index in (0, 1):
        found = LayerwiseRelevance(biased, ALPHA)(PICTURES, class_index)
        pixels = found.pixels_nhwc[found.score > 0]
        assert pixels.size == 0 or pixels.min() >= -1e-6 * pixels.max()
    assert (np.abs(found.score) > 0).all()


def test_a_black_pixel_gets_nothing_from_epsilon_and_may_get_something_from_box(biased):
    black = PICTURES == 0
    assert black.any()
    assert (LayerwiseRelevance(biased, EPSILON)(PICTURES, 1).pixels_nhwc[black] == 0).all()
    assert (LayerwiseRelevance(biased)(PICTURES, 1).pixels_nhwc[black] != 0).any()


def test_bounds_of_the_pixels_matter_and_not_for_the_sum(unbiased):
    one, two = (LayerwiseRelevance(unbiased, replace(GAMMA, first=Box(0, high)))(PICTURES, 1) for high in (1, 2))
    assert np.abs(one.maps - two.maps).max() > 1e-2 * np.abs(one.maps).max()
    np.testing.assert_allclose(one.maps.sum((1, 2)), two.maps.sum((1, 2)), rtol=1e-3)


def test_max_pooling_conserves_ties_and_black_windows_included():
    step = relevance._by_gradient("pool", relevance._max_pooling(layers.MaxPooling2D()))
    reads = np.random.default_rng(1).integers(0, 3, (4, 8, 8, 5)).astype(np.float32)
    reads[0] = 0
    above = np.random.default_rng(2).standard_normal((4, 4, 4, 5)).astype(np.float32)
    below, absorbed = step.down(tf.constant(reads), tf.constant(above))
    sums = [side.sum((1, 2), dtype=np.float64) for side in (below.numpy(), above)]
    np.testing.assert_allclose(*sums, rtol=1e-6, atol=1e-6)
    assert absorbed is None
    tie = step.down(tf.ones((1, 2, 2, 1)), tf.ones((1, 1, 1, 1)))[0].numpy()[0, :, :, 0]
    assert tie.tolist() == [[1, 0], [0, 0]], "the first place of a tie"


@pytest.mark.parametrize("rule", [Epsilon(), Gamma(), Alpha1Beta0()], ids=lambda rule: type(rule).__name__)
def test_a_dense_on_a_map_is_a_convolution_of_one_place(rule):
    rng = np.random.default_rng(4)
    reads, above = rng.random((2, 7, 7, 6), dtype=np.float32), rng.random((2, 7, 7, 4), dtype=np.float32)
    kernel = rng.standard_normal((6, 4)).astype(np.float32)
    bias = np.full(4, 8, np.float32)  # keeps z from 0, where a quotient is rounding
    dense = Weighted(relevance._matrix_product, tf.constant(kernel), tf.constant(bias))
    convolution = Weighted(relevance._convolution(layers.Conv2D(4, 1)), tf.constant(kernel[None, None]), bias)
    first, second = (rule(one, tf.constant(reads), tf.constant(above))[0].numpy() for one in (dense, convolution))
    agree(first, second, 1e-6)


def test_places_before_flatten_may_change_their_order_with_the_next_kernel():
    rng = np.random.default_rng(6)
    pictures = keras.Input((4, 4, 3))
    hidden = layers.Dense(8, activation="relu", name="hidden")(layers.Flatten()(pictures))
    model = keras.Model(pictures, layers.Dense(2, activation="softmax")(hidden))
    hand = LayerwiseRelevance(model)
    batch = rng.random((2, 4, 4, 3), dtype=np.float32)
    straight = hand(batch, 1).pixels_nhwc.reshape(2, 16, 3)
    order = rng.permutation(16)
    kernel, bias = model.get_layer("hidden").get_weights()
    model.get_layer("hidden").set_weights([kernel.reshape(16, 3, 8)[order].reshape(48, 8), bias])
    turned = hand(batch.reshape(2, 16, 3)[:, order].reshape(2, 4, 4, 3), 1).pixels_nhwc.reshape(2, 16, 3)
    agree(turned, straight[:, order], 1e-5)


def test_a_map_does_not_depend_on_its_batch(biased):
    relative = Preset(Epsilon(0.25, relative=True), Epsilon(0.25, relative=True), Epsilon(0.25, relative=True))
    for preset in (relative, PRESETS["LRP"]):
        explain = LayerwiseRelevance(biased, preset)
        together = explain(PICTURES, 1).pixels_nhwc
        agree(np.concatenate([explain(one[None], 1).pixels_nhwc for one in PICTURES]), together, 1e-6)


def test_many_batches_keep_the_order_of_pictures_and_of_the_account(biased):
    many = np.concatenate([PICTURES, PICTURES[::-1]])
    explain = LayerwiseRelevance(biased)
    ten, five = explain(many, 1), explain(PICTURES, 1)
    agree(ten.pixels_nhwc[:5], five.pixels_nhwc, 1e-5)
    agree(ten.pixels_nhwc[5:], five.pixels_nhwc[::-1], 1e-5)
    above = ten.account.loc["block2_conv", "above"].to_numpy()
    np.testing.assert_allclose(above[:5], above[9:4:-1], rtol=1e-4, atol=1e-6)


def test_relevance_follows_the_weights_and_leaves_the_network_alone():
    model = small(biases=True)
    explain = LayerwiseRelevance(model)
    before = explain(PICTURES, 1)
    weights = model.get_weights()
    model.set_weights([2 * array for array in weights])
    assert np.abs(explain(PICTURES, 1).score - before.score).max() > 1
    model.set_weights(weights)
    np.testing.assert_array_equal(explain(PICTURES, 1).pixels_nhwc, before.pixels_nhwc)


def test_one_output_for_two_classes_has_the_log_odds_of_two():
    one, two = small(biases=True, end="sigmoid", n_outputs=1), small(biases=True)
    kernel, bias = one.get_layer("probabilities").get_weights()
    both = [np.concatenate([0 * array, array], axis=-1) for array in (kernel, bias)]
    two.set_weights([*one.get_weights()[:-2], *both])
    for class_index in (0, 1):
        found = [LayerwiseRelevance(model)(PICTURES, class_index).pixels_nhwc for model in (one, two)]
        agree(*found, 1e-6)


def test_relevance_from_a_layer_downwards_is_that_of_the_whole_walk(biased):
    whole = LayerwiseRelevance(biased)(PICTURES, 1)
    backbone = keras.Model(biased.input, biased.get_layer("block3_pool").output, name="backbone")
    reads = backbone(PICTURES).numpy()
    head = keras.Model(biased.get_layer("block3_pool").output, biased.output)
    # no first layer of a head reads pixels: Box would ask for bounds of its features
    at_map = LayerwiseRelevance(head, replace(PRESETS["LRP"], first=PRESETS["LRP"].dense))(reads, 1)
    below = RelevanceBelow(backbone, "block3_pool")(PICTURES, at_map.pixels_nhwc)
    agree(below.pixels_nhwc, whole.pixels_nhwc, 1e-5)
    assert list(below.account.index.get_level_values("layer").unique()) == ["block3_conv", "block2_conv", "block1_conv"]


@pytest.mark.parametrize(
    ("rule", "theirs", "tolerance"),
    [(Epsilon(1e-9), lambda: EpsilonRule(1e-9), 1e-4), (Gamma(0.25), lambda: GammaRule(0.25), 1e-4)],
    ids=["epsilon", "gamma"],
)
def test_rules_are_captums_on_a_copy_without_biases(unbiased, rule, theirs, tolerance):
    wanted = torch_copy.relevance(unbiased, PICTURES, 1, LRP, theirs)
    found = LayerwiseRelevance(unbiased, Preset(rule, rule, rule, start="logit"))(PICTURES, 1).pixels_nhwc
    np.testing.assert_allclose(found.sum((1, 2, 3)), wanted.sum((1, 2, 3)), rtol=1e-3)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9999


def test_alpha1beta0_is_captums_on_a_copy_without_biases(unbiased):
    preset = Preset(Alpha1Beta0(), Alpha1Beta0(), Alpha1Beta0(), start="logit")
    found = LayerwiseRelevance(unbiased, preset)
    scores = [found(PICTURES, i).score for i in (0, 1)]
    class_index = int(scores[1].max() > scores[0].max())
    positive = scores[class_index] > 0
    assert positive.any()
    wanted = torch_copy.relevance(unbiased, PICTURES[positive], class_index, LRP, Alpha1_Beta0_Rule)
    ours = found(PICTURES[positive], class_index).pixels_nhwc
    np.testing.assert_allclose(ours.sum((1, 2, 3)), wanted.sum((1, 2, 3)), rtol=1e-3)
    assert np.corrcoef(ours.ravel(), wanted.ravel())[0, 1] > 0.9999


def test_bfloat16_networks_are_explained_in_float32(biased):
    half = keras.models.clone_model(
        biased, clone_function=lambda layer: type(layer).from_config(layer.get_config() | {"dtype": "mixed_bfloat16"})
    )
    half.set_weights(biased.get_weights())
    found = LayerwiseRelevance(half)(PICTURES, 1)
    assert found.pixels_nhwc.dtype == np.float32
    agree(found.pixels_nhwc, LayerwiseRelevance(biased)(PICTURES, 1).pixels_nhwc, 1e-6)


def with_layer(layer: keras.Layer) -> keras.Model:
    """A network with a layer in its middle that reads a convolution."""
    pictures = keras.Input((32, 32, 3))
    maps = layers.Conv2D(4, 3, activation="relu", name="conv")(pictures)
    return keras.Model(
        pictures, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(layer(maps))), name="net"
    )


def residual() -> keras.Model:
    pictures = keras.Input((32, 32, 3))
    maps = layers.Conv2D(3, 3, padding="same", activation="relu")(pictures)
    meet = layers.Add(name="meet")([pictures, maps])
    return keras.Model(pictures, layers.Dense(2)(layers.GlobalAveragePooling2D()(meet)), name="net")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (residual, r"net: meet \(Add\) reads 2 layers; LRP wants a chain.*Take Grad-CAM"),
        (lambda: with_layer(layers.BatchNormalization(name="norm")), r"no rule for norm \(BatchNormalization"),
        (lambda: with_layer(layers.Conv2D(4, 3, activation="tanh", name="bent")), r"bent \(Conv2D, activation tanh\)"),
        (lambda: with_layer(layers.DepthwiseConv2D(3, name="deep")), r"deep \(DepthwiseConv2D"),
    ],
)
def test_a_network_that_is_no_chain_of_known_layers_is_refused_with_the_layers_name(make, message):
    with pytest.raises(ValueError, match=message):
        LayerwiseRelevance(make())


def test_rules_for_positive_inputs_are_refused_behind_a_layer_without_relu():
    model = with_layer(layers.Conv2D(4, 3, name="straight"))
    hidden = layers.Dense(4, activation="relu", name="next")(model.layers[-2].output)
    last = keras.Model(model.input, layers.Dense(2)(hidden))
    with pytest.raises(ValueError, match=r"next reads straight, which has no ReLU.*Gamma"):
        LayerwiseRelevance(last, GAMMA)
    assert LayerwiseRelevance(last, EPSILON)(PICTURES, 1).pixels_nhwc.any()


def test_a_network_with_a_global_mean_conserves_too():
    model = with_layer(layers.Activation("relu"))
    assert model.get_layer("conv").get_weights()[1].any() == np.False_
    found = LayerwiseRelevance(model)(PICTURES, 1)
    np.testing.assert_allclose(found.arriving, 1, atol=1e-3)


class TestBadInput:
    def test_pixels_outside_the_bounds_are_named(self, biased):
        with pytest.raises(ValueError, match=r"pixels from 0 to 2\d\d.*, wanted 0 to 1"):
            LayerwiseRelevance(biased)(255 * PICTURES, 1)

    def test_other_channels_no_pictures_and_classes_that_do_not_exist(self, biased):
        explain = LayerwiseRelevance(biased)
        with pytest.raises(ValueError, match=r"\(5, 32, 32, 1\), wanted \(N, 32, 32, 3\)"):
            explain(PICTURES[..., :1], 1)
        with pytest.raises(ValueError, match="0 patches"):
            explain(PICTURES[:0], 1)
        for class_index in (-1, 2):
            with pytest.raises(ValueError, match=f"class_index={class_index}"):
                explain(PICTURES, class_index)

    def test_what_is_not_finite(self, biased):
        broken = keras.models.clone_model(biased)
        broken.get_layer("dense_16").set_weights([w * np.nan for w in broken.get_layer("dense_16").get_weights()])
        for make in (LayerwiseRelevance, lambda model: RelevanceBelow(model, "places")):
            with pytest.raises(FloatingPointError, match="weights of dense_16"):
                make(broken)
        pictures = PICTURES.copy()
        pictures[0, 0, 0, 0] = np.nan
        with pytest.raises(FloatingPointError, match="not finite"):
            LayerwiseRelevance(biased)(pictures, 1)
        with pytest.raises(FloatingPointError, match="relevance at places"):
            RelevanceBelow(biased, "places")(PICTURES, np.full((5, 4, 4, 12), np.inf))

    def test_a_layer_that_does_not_exist_and_relevance_of_another_shape(self, biased):
        with pytest.raises(ValueError, match=r"no layer 'block9'; it has .*block1_conv"):
            RelevanceBelow(biased, "block9")
        with pytest.raises(ValueError, match=r"\(5, 4, 4, 1\) at places, wanted \(5, 4, 4, 12\)"):
            RelevanceBelow(biased, "places")(PICTURES, np.zeros((5, 4, 4, 1)))

    def test_epsilon_without_biases_and_more_than_two_classes_from_the_log_odds(self, biased):
        with pytest.raises(ValueError, match=r"probabilities.*epsilon without biases"):
            LayerwiseRelevance(biased, replace(PRESETS["LRP"], biases="zero"))
        three = small(biases=True, n_outputs=3)
        with pytest.raises(ValueError, match="3 outputs by softmax"):
            LayerwiseRelevance(three)
        assert LayerwiseRelevance(three, PRESETS["gradient x input"])(PICTURES, 2).score.shape == (5,)
