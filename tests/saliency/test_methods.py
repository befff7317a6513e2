from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

from mitolib.saliency import logits, methods

LAYER = "block2_conv"
OF_CHAPTER = methods.methods_named(None)  # the others have files of tests of their own


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Flat, with Dropout in the head, like the networks of the paper."""
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="block1_conv")(x)
    x = keras.layers.MaxPooling2D(name="block1_pool")(x)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name=LAYER)(x)
    x = keras.layers.MaxPooling2D(name="block2_pool")(x)
    x = keras.layers.Dense(8, activation="relu", name="dense_8")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="probabilities")(x), name="small")


@pytest.fixture
def patches_nhwc(rng) -> np.ndarray:
    return rng.random((11, 32, 32, 3), dtype=np.float32)


def test_grad_cam_is_its_definition_on_a_network_whose_gradient_is_known_by_heart():
    x = inputs = keras.Input((2, 2, 2))
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="same")(x)  # identity: the map is the picture
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    kernel = np.array([[0, 4], [0, -2], [0, 0], [0, -2], [0, 0], [0, 0], [0, 0], [0, 0]], np.float32)
    model.set_weights([np.eye(2, dtype=np.float32)[None, None], kernel, np.zeros(2, np.float32)])
    picture = np.array([[[[1, 0], [2, 1]], [[0, 3], [1, 1]]]], np.float32)
    # Mean gradients of class 1: channel 0 has (4 + 0 + 0 + 0) / 4 = 1, channel 1 (-2 - 2 + 0 + 0) / 4 = -1.
    assert methods.GradCAM(model, "same")(picture, 1).tolist() == [[[1, 1], [0, 0]]]
    assert methods.GradCAM(model, "same")(picture, 0).tolist() == [[[0, 0], [0, 0]]], "an empty map is legal"


@pytest.mark.parametrize("class_index", [0, 1])
def test_grad_cam_is_the_librarys_on_every_patch_and_both_ways_in_agree(model, patches_nhwc, class_index):
    theirs = Gradcam(model, ReplaceToLinear())
    wanted = theirs(
        CategoricalScore(class_index), patches_nhwc, penultimate_layer=LAYER, expand_cam=False, normalize_cam=False
    )
    camera = methods.GradCAM(model, LAYER)
    maps = camera(patches_nhwc, class_index)
    assert maps.shape == (11, 16, 16) and maps.max() > 0
    for ours, one in zip(maps, np.asarray(wanted), strict=True):
        assert np.abs(ours - one).max() <= 1e-4 * max(np.abs(one).max(), 1e-6)
    features = keras.Model(model.input, model.get_layer(LAYER).output)(patches_nhwc)
    np.testing.assert_allclose(camera.from_features(features, class_index), maps, rtol=1e-4, atol=1e-6)


def test_saliency_is_the_librarys_with_its_own_way_around_the_softmax(model, patches_nhwc):
    wanted = Saliency(model, ReplaceToLinear())(CategoricalScore(1), patches_nhwc, normalize_map=False)
    ours = methods.METHODS["saliency"](model, patches_nhwc, 1, layer=LAYER, samples=1)
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OF_CHAPTER)
def test_every_method_gives_raw_maps_of_every_patch_and_prints_nothing(model, patches_nhwc, name, capsys):
    side = 32 if name in {"saliency", "SmoothGrad"} else 16
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maps = methods.METHODS[name](model, patches_nhwc[:3], 1, layer=LAYER, samples=2)
    assert maps.shape == (3, side, side) and maps.min() >= 0 and maps.max() > 0
    assert len({float(one.max()) for one in maps}) == 3, "not stretched to one range"
    assert capsys.readouterr().out == "" and not any("structure of `inputs`" in str(w.message) for w in caught)


def test_grad_cam_plus_plus_survives_a_score_whose_exponential_does_not_fit(model, patches_nhwc):
    loud = keras.models.clone_model(model)
    *rest, bias = model.get_weights()
    loud.set_weights([*rest, bias + np.float32(200)])
    options = {"layer": LAYER, "samples": 1}
    maps = [methods.METHODS["Grad-CAM++"](one, patches_nhwc[:2], 1, **options) for one in (loud, model)]
    np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-6)


def test_the_logits_are_those_of_the_network_and_the_network_stays_as_it_was(model, patches_nhwc):
    before = model(patches_nhwc, training=False).numpy()
    scores = logits.with_logits(model)(patches_nhwc, training=False).numpy()
    np.testing.assert_allclose(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), before, rtol=1e-4)
    assert model.layers[-1].activation is keras.activations.softmax
    evidence = methods.log_odds(model, lambda patches: patches)(patches_nhwc)
    np.testing.assert_allclose(1 / (1 + np.exp(-evidence)), before[:, 1], rtol=1e-4)


def test_maps_follow_weights_that_change_afterwards(model, patches_nhwc):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    camera = methods.GradCAM(copy, LAYER)
    before = camera(patches_nhwc, 1)
    copy.get_layer("probabilities").set_weights([-w for w in copy.get_layer("probabilities").get_weights()])
    np.testing.assert_allclose(camera(patches_nhwc, 0) > 0, methods.GradCAM(copy, LAYER)(patches_nhwc, 0) > 0)
    assert not np.allclose(camera(patches_nhwc, 1), before)


def test_the_cascade_starts_trained_goes_from_the_top_down_and_leaves_the_network_alone(model, patches_nhwc):
    weights = model.get_weights()
    steps = {}
    for stage, drawn in methods.cascade(model):
        copy = keras.models.clone_model(model)
        copy.set_weights(drawn)
        steps[stage] = methods.GradCAM(copy, LAYER)(patches_nhwc, 1)
    assert list(steps) == ["trained", "last layer", "head", "block2", "block1"]
    np.testing.assert_allclose(steps["trained"], methods.GradCAM(model, LAYER)(patches_nhwc, 1), rtol=1e-5)
    for one, above in zip(list(steps)[1:], steps, strict=False):
        assert not np.allclose(steps[one], steps[above]), f"{one} changed nothing"
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))


def test_a_cascade_can_be_cut_to_the_whole_head_and_the_end(model):
    keras.utils.set_random_seed(77)
    steps = dict(methods.cascade(model, every=False))
    assert list(steps) == ["trained", "head", "block1"]
    keras.utils.set_random_seed(77)
    every = dict(methods.cascade(model))
    for stage, drawn in steps.items():
        assert all((a == b).all() for a, b in zip(drawn, every[stage], strict=True))
    kept = {
        weight.path: (a == b).all()
        for weight, a, b in zip(model.weights, steps["head"], steps["trained"], strict=True)
        if weight.path.endswith("kernel")
    }
    assert {path for path, same in kept.items() if same} == {path for path in kept if "block" in path}


def test_the_gallery_can_be_cut_to_methods_by_name():
    assert list(OF_CHAPTER) == ["Grad-CAM", "Grad-CAM++", "Layer-CAM", "Score-CAM", "saliency", "SmoothGrad"]
    assert list(methods.methods_named(("saliency",))) == ["Grad-CAM", "saliency"]
    with pytest.raises(ValueError, match=r"method Grad CAM is not one of Grad-CAM, "):
        methods.methods_named(("Grad CAM",))


def test_a_method_that_does_not_fit_a_network_is_refused_by_name():
    assert list(methods.methods_named("LRP, deconvolution", "VGG16")) == ["Grad-CAM", "deconvolution", "LRP"]
    with pytest.raises(ValueError, match=r"LRP, CAM does not explain ResNet50; wanted some of Grad-CAM, "):
        methods.methods_named("LRP, CAM, deconvolution", "ResNet50")


PIXELS = ["guided backpropagation", "deconvolution", "guided Grad-CAM", "gradient x input", "LRP", "LRP alpha1beta0"]


@pytest.mark.parametrize("name", PIXELS)
def test_further_methods_give_maps_of_pixels_that_are_not_negative(model, patches_nhwc, name):
    maps = methods.METHODS[name](model, patches_nhwc[:3], 1, layer=LAYER, samples=1)
    assert maps.shape == (3, 32, 32) and maps.min() >= 0 and maps.max() > 0


METHODS_AND_CLASS = [*OF_CHAPTER.items(), ("GradCAM", None)]


@pytest.mark.parametrize(("name", "method"), METHODS_AND_CLASS, ids=[name for name, _ in METHODS_AND_CLASS])
class TestBadInput:
    def call(self, method, model, patches_nhwc, class_index=1, layer=LAYER):
        if method is None:
            return methods.GradCAM(model, layer)(patches_nhwc, class_index)
        return method(model, patches_nhwc, class_index, layer=layer, samples=1)

    def test_a_layer_that_does_not_exist_is_an_error_that_lists_those_that_do(self, model, patches_nhwc, name, method):
        if name in {"saliency", "SmoothGrad"}:
            pytest.skip("reads no layer")
        with pytest.raises(ValueError, match=r"'block9'; .*block1_conv, block1_pool, block2_conv"):
            self.call(method, model, patches_nhwc, layer="block9")

    def test_another_number_of_channels(self, model, patches_nhwc, name, method):
        with pytest.raises(ValueError, match=r"\(11, 32, 32, 1\), wanted \(N, 32, 32, 3\)"):
            self.call(method, model, patches_nhwc[..., :1])

    @pytest.mark.parametrize("class_index", [-1, 2])
    def test_a_class_out_of_range(self, model, patches_nhwc, class_index, name, method):
        with pytest.raises(ValueError, match=f"class_index={class_index} .*0 to 1: control, patient"):
            self.call(method, model, patches_nhwc, class_index)

    def test_weights_that_are_not_finite_are_named(self, model, patches_nhwc, name, method):
        broken = keras.models.clone_model(model)
        broken.get_layer("dense_8").set_weights([w * np.nan for w in broken.get_layer("dense_8").get_weights()])
        with pytest.raises(FloatingPointError, match="weights of dense_8 are not finite"):
            self.call(method, broken, patches_nhwc)


def test_pixels_that_are_not_finite_are_an_error_and_no_empty_map(model, patches_nhwc):
    patches_nhwc[0, 0, 0, 0] = np.inf
    with pytest.raises(FloatingPointError, match="not finite"):
        methods.METHODS["saliency"](model, patches_nhwc, 1, layer=LAYER, samples=1)
