"""Layer-wise relevance propagation: its conservation, its rules, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from mitolib.saliency import logits, relevance
from mitolib.saliency.relevance import COMPOSITES, Composite, RelevancePropagation, Rule

PLAIN = Composite(first=Rule(), convolutions=Rule(), dense=Rule())


def network(*, biases: bool = True, n_outputs: int = 2, n_channels: int = 3) -> keras.Model:
    """Like the paper's, small: convolutions with pooling, Dense on places, Dropout, Flatten, Dense."""
    keras.utils.set_random_seed(5)
    options = {"bias_initializer": keras.initializers.RandomNormal(stddev=0.05) if biases else "zeros"}
    x = inputs = keras.Input((16, 16, n_channels))
    for width in (6, 8, 8):
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv_{x.shape[1]}", **options)(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Dense(8, activation="relu", name="places", **options)(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(16, activation="relu", name="wide", **options)(x)
    activation = "softmax" if n_outputs > 1 else "sigmoid"
    return keras.Model(inputs, keras.layers.Dense(n_outputs, activation=activation, **options)(x), name="small")


@pytest.fixture
def pixels(rng) -> np.ndarray:
    return rng.random((5, 16, 16, 3), dtype=np.float32)


def log_odds(model: keras.Model, pixels: np.ndarray, class_index: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) score less the other's, and its gradient (N, H, W, C)."""
    scores, batch = logits.with_logits(model), tf.constant(pixels)
    with tf.GradientTape() as tape:
        tape.watch(batch)
        both = scores(batch, training=False)
        contrast = both[:, class_index] - both[:, 1 - class_index]
    return contrast.numpy(), tape.gradient(contrast, batch).numpy()


def assert_alike(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("class_index", [0, 1])
def test_lrp_0_is_gradient_times_input_biases_or_not(pixels, n_outputs, class_index):
    model = network(n_outputs=n_outputs)
    score, gradient = log_odds(model, pixels, class_index)
    if n_outputs == 1:  # the score of a class is then the output or its negative, and no difference
        score, gradient = score / 2, gradient / 2
    found = RelevancePropagation(model, COMPOSITES["gradient x input"])(pixels, class_index)
    assert_alike(found.score, score, 1e-5)
    assert_alike(found.pixels_nhwc, gradient * pixels, 1e-4)


@pytest.mark.parametrize(
    "rule",
    [Rule(), Rule(gamma=0.25), Rule(gamma=float("inf")), Rule(gamma=1e6)],
    ids=["epsilon", "gamma", "alpha1-beta0", "great"],
)
@pytest.mark.parametrize("box", [True, False])
def test_without_biases_all_of_the_score_arrives(pixels, rule, box):
    first = Rule(box=True) if box else rule
    composite = Composite(first=first, convolutions=rule, dense=Rule())
    found = RelevancePropagation(network(biases=False), composite)(pixels, 1)
    np.testing.assert_allclose(found.arrived, 1, atol=1e-3)


@pytest.mark.parametrize("composite", COMPOSITES.values(), ids=COMPOSITES)
def test_what_is_lost_to_biases_is_accounted_for_layer_by_layer(pixels, composite):
    found = RelevancePropagation(network(), composite)(pixels, 1)
    assert len(found.lost) == 6 and max(np.abs(lost).max() for lost in found.lost.values()) > 1e-3
    account = found.pixels_nhwc.sum(axis=(1, 2, 3)) + sum(found.lost.values())
    assert_alike(account, found.score, 1e-4)


def test_biases_left_out_of_the_denominators_lose_nothing(pixels):
    found = RelevancePropagation(network(), COMPOSITES["conserving"], biases="zero")(pixels, 1)
    np.testing.assert_allclose(found.arrived, 1, atol=1e-3)
    kept = RelevancePropagation(network(), COMPOSITES["conserving"])(pixels, 1)
    assert np.abs(kept.arrived - 1).max() > 0.01


def test_gamma_lies_between_epsilon_and_alpha1_beta0(pixels):
    model = network()

    def of(rule: Rule) -> np.ndarray:
        return RelevancePropagation(model, replace(PLAIN, first=rule, convolutions=rule))(pixels, 1).pixels_nhwc

    assert_alike(of(Rule(gamma=1e6)), of(Rule(gamma=float("inf"))), 1e-3)
    assert_alike(of(Rule(gamma=1e-7)), of(Rule()), 1e-4)
    assert np.abs(of(Rule(gamma=0.25)) - of(Rule())).max() > 0.1 * np.abs(of(Rule())).max()


def test_alpha1_beta0_of_a_positive_score_is_nowhere_negative(pixels):
    model = network()
    found = [RelevancePropagation(model, COMPOSITES["conserving"])(pixels, i) for i in (0, 1)]
    for each in found:
        assert (each.pixels_nhwc[each.score > 0] >= -1e-6).all()
        assert (each.pixels_nhwc[each.score < 0] <= 1e-6).all(), "an empty positive part is legal"
    assert any((each.score > 0).any() for each in found)


def test_relevance_is_linear_in_what_is_handed_down(pixels, rng):
    walk = RelevancePropagation(network(), COMPOSITES["LRP"])
    one, other = rng.normal(size=(2, 5, 2, 2, 8)).astype(np.float32)
    parts = [walk.below("places", pixels, given).pixels_nhwc for given in (one, other, one + other)]
    assert_alike(parts[0] + parts[1], parts[2], 1e-4)


def test_from_a_layer_downwards_goes_on_where_the_whole_walk_was(pixels):
    model, composite = network(), COMPOSITES["LRP"]
    whole = RelevancePropagation(model, composite)(pixels, 1)
    features = keras.Model(model.input, model.get_layer("flatten").output)(pixels).numpy()
    # The head's own walk, by hand: two Dense layers by the epsilon rule.
    wide = keras.Model(model.input, model.get_layer("wide").output)(pixels).numpy()
    kernel, bias = model.layers[-1].get_weights()
    handed = _epsilon(wide, kernel[:, [1]] - kernel[:, [0]], bias[1] - bias[0], whole.score[:, None])
    handed = _epsilon(features, *model.get_layer("wide").get_weights(), handed)
    below = RelevancePropagation(model, composite).below("flatten", pixels, handed.astype(np.float32))
    assert_alike(below.pixels_nhwc, whole.pixels_nhwc, 1e-4)


def _epsilon(given: np.ndarray, kernel: np.ndarray, bias: np.ndarray, relevance_above: np.ndarray) -> np.ndarray:
    z = given @ kernel + bias
    z += 1e-6 * np.where(z >= 0, 1, -1)
    return given * ((relevance_above / z) @ kernel.T)


def test_a_black_pixel_has_relevance_by_the_box_alone(pixels):
    pixels[:, 4:8, 4:8] = 0
    model = network()
    of_box = RelevancePropagation(model, COMPOSITES["LRP"])(pixels, 1).pixels_nhwc[:, 4:8, 4:8]
    others = replace(COMPOSITES["LRP"], first=Rule(gamma=0.25))
    assert (RelevancePropagation(model, others)(pixels, 1).pixels_nhwc[:, 4:8, 4:8] == 0).all()
    assert np.abs(of_box).max() > 0


def test_a_map_depends_on_no_other_patch_of_its_batch(pixels):
    rule = Rule(of_rms=0.25)
    walk = RelevancePropagation(network(), Composite(first=rule, convolutions=rule, dense=rule))
    whole = walk(pixels, 1).pixels_nhwc
    alone = np.concatenate([walk(pixels[i : i + 1], 1).pixels_nhwc for i in range(len(pixels))])
    assert_alike(alone, whole, 1e-5)


def test_max_pooling_conserves_with_ties_and_empty_windows():
    layer, given = keras.layers.MaxPooling2D(), tf.constant([[1.0, 1, 0, 0], [1, 0, 0, 0]] * 2)[None, :, :, None]
    above = tf.constant([[[[1.0], [2]], [[3], [4]]]])
    below = relevance._gradient(layer, given, above).numpy()
    assert below.sum() == 10
    assert below[0, :2, :2, 0].tolist() == [[1, 0], [0, 0]], "of a tie, the first"


def test_a_dense_layer_on_places_is_a_convolution_of_one_pixel(rng):
    kernel = rng.normal(size=(3, 4)).astype(np.float32)
    bias = rng.normal(size=4).astype(np.float32)
    pixels = rng.random((2, 6, 6, 3), dtype=np.float32)

    def built(as_convolution: bool) -> keras.Model:
        x = inputs = keras.Input((6, 6, 3))
        x = keras.layers.Conv2D(3, 1, name="first")(x)
        layer = keras.layers.Conv2D(4, 1, activation="relu") if as_convolution else keras.layers.Dense(4, "relu")
        x = keras.layers.Flatten()(layer(x))
        keras.utils.set_random_seed(1)
        model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
        layer.set_weights([kernel[None, None] if as_convolution else kernel, bias])
        return model

    one, other = (built(as_convolution) for as_convolution in (True, False))
    other.layers[1].set_weights(one.layers[1].get_weights())
    other.layers[-1].set_weights(one.layers[-1].get_weights())
    found = [RelevancePropagation(model, PLAIN)(pixels, 1).pixels_nhwc for model in (one, other)]
    assert_alike(found[0], found[1], 1e-5)


def test_an_average_over_places_is_handed_down_whole(pixels):
    keras.utils.set_random_seed(2)
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", use_bias=False)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", use_bias=False)(x))
    np.testing.assert_allclose(RelevancePropagation(model, COMPOSITES["LRP"])(pixels, 1).arrived, 1, atol=1e-3)


def test_ten_proteins_and_the_positive_part_for_a_gallery(rng):
    model = network(n_channels=10)
    maps = relevance.lrp(model, rng.random((9, 16, 16, 10), dtype=np.float32), 1)
    assert maps.shape == (9, 16, 16) and maps.min() >= 0 and maps.max() > 0


def test_a_network_with_an_addition_or_a_normalisation_is_refused_by_name(pixels):
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    added = keras.layers.Add(name="shortcut")([x, keras.layers.Conv2D(4, 1)(x)])
    normed = keras.layers.BatchNormalization(name="norm")(x)
    bent = keras.layers.Activation("tanh", name="bent")(x)
    for tensor, name in ((added, "shortcut"), (normed, "norm"), (bent, "bent")):
        flat = keras.layers.Flatten()(tensor)
        model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(flat))
        with pytest.raises(ValueError, match=f"no chain.*{name}"):
            RelevancePropagation(model, COMPOSITES["LRP"])


def test_pixels_outside_the_box_are_refused_with_their_range(pixels):
    walk = RelevancePropagation(network(), COMPOSITES["LRP"])
    with pytest.raises(ValueError, match=r"pixels from 0\.\d+ to \d\d"):
        walk(pixels * 255, 1)


def test_what_cannot_be_asked_is_refused(pixels):
    walk = RelevancePropagation(network(), COMPOSITES["LRP"])
    with pytest.raises(ValueError, match="no layer 'absent'"):
        walk.below("absent", pixels, pixels)
    with pytest.raises(ValueError, match=r"shape .* at places; wanted \(5, 2, 2, 8\)"):
        walk.below("places", pixels, np.zeros((5, 2, 2, 7), np.float32))
    with pytest.raises(ValueError, match="biases='none'"):
        RelevancePropagation(network(), COMPOSITES["LRP"], biases="none")
    with pytest.raises(ValueError, match="class_index=2"):
        walk(pixels, 2)
    with pytest.raises(ValueError, match="no patch to explain"):
        walk(pixels[:0], 1)
    with pytest.raises(FloatingPointError, match="not finite"):
        walk(np.full_like(pixels, np.nan), 1)
    with pytest.raises(ValueError, match="wanted \\(N, 16, 16, 3\\)"):
        walk(pixels[..., :2], 1)
