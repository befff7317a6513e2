from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from mitolib.saliency.cam import CAM, fitted_on_means, folded, gap_network
from mitolib.saliency.logits import with_logits
from mitolib.saliency.methods import METHODS, GradCAM

RNG = np.random.default_rng(8)
PICTURES = RNG.random((12, 16, 16, 3), dtype=np.float32)
LABEL = np.arange(12) % 2


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    keras.utils.set_random_seed(4)
    pictures = keras.Input((16, 16, 3))
    x = layers.MaxPooling2D()(layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(pictures))
    return keras.Model(pictures, layers.Conv2D(8, 3, padding="same", activation="relu", name="last")(x), name="net")


@pytest.fixture(scope="module")
def features(backbone) -> np.ndarray:
    return backbone(PICTURES).numpy()


@pytest.fixture(scope="module")
def pipeline(features):
    return fitted_on_means(features, LABEL)


@pytest.fixture(scope="module")
def network(backbone, pipeline) -> keras.Model:
    return gap_network(backbone, *folded(pipeline))


def test_the_network_gives_the_probabilities_of_the_regression(network, pipeline, features):
    wanted = pipeline.predict_proba(features.mean(axis=(1, 2)))
    assert np.ptp(wanted[:, 1]) > 0.01
    np.testing.assert_allclose(network(PICTURES), wanted, atol=1e-5)


@pytest.mark.parametrize("class_index", [0, 1])
def test_the_mean_of_a_map_and_the_bias_are_the_logit_and_grad_cam_is_its_positive_part(network, class_index):
    maps = CAM(network)(PICTURES, class_index)
    logit = with_logits(network)(PICTURES).numpy()[:, class_index]
    bias = network.get_layer("probabilities").get_weights()[1][class_index]
    assert np.abs(maps.mean(axis=(1, 2)) + bias - logit).max() <= 1e-5 * np.abs(logit).max()
    grad_cam = GradCAM(network, "last")(PICTURES, class_index)
    assert np.abs(grad_cam - np.maximum(maps, 0) / 64).max() <= 1e-5 * grad_cam.max()
    np.testing.assert_array_equal(METHODS["CAM"](network, PICTURES, class_index, layer="last", samples=1), maps.clip(0))


def test_maps_come_from_features_too_and_centred_ones_are_zero_at_the_mean_patch(network, features, pipeline):
    camera, centre = CAM(network), pipeline[0].mean_
    np.testing.assert_allclose(camera.from_features(features, 1), camera(PICTURES, 1), rtol=1e-5, atol=1e-7)
    mean_patch = np.broadcast_to(centre.astype(np.float32), (1, 8, 8, 8))
    centred = camera.from_features(mean_patch, 1, centre=centre)
    assert np.abs(centred).max() <= 1e-5 * np.abs(camera.from_features(features, 1)).max()
    difference = camera.from_features(features, 1) - camera.from_features(features, 1, centre=centre)
    np.testing.assert_allclose(difference, folded(pipeline)[0] @ centre / 2, rtol=1e-3, atol=1e-6)


def test_one_output_has_the_maps_of_both_classes(backbone, network, pipeline):
    weights, bias = folded(pipeline)
    dense = layers.Dense(1, activation="sigmoid")
    one = keras.Model(backbone.input, dense(layers.GlobalAveragePooling2D()(backbone.output)))
    dense.set_weights([weights[:, None], np.array([bias])])
    for class_index in (0, 1):
        halves = CAM(network)(PICTURES, class_index)
        np.testing.assert_allclose(CAM(one)(PICTURES, class_index), 2 * halves, rtol=1e-4, atol=1e-6)


class TestBadInput:
    def test_a_head_that_is_no_mean_and_dense_is_refused(self, backbone):
        flat = keras.Model(backbone.input, layers.Dense(2)(layers.Flatten(name="flat")(backbone.output)), name="other")
        with pytest.raises(ValueError, match=r"other takes its scores from flat \(Flatten\).*GlobalAveragePooling2D"):
            CAM(flat)

    def test_a_regression_on_other_means_is_refused(self, backbone, pipeline):
        with pytest.raises(ValueError, match=r"\(None, 16, 16, 6\) for a regression on 8 means"):
            gap_network(keras.Model(backbone.input, backbone.get_layer("first").output), *folded(pipeline))

    def test_pictures_classes_and_features_that_do_not_fit(self, network, features):
        camera = CAM(network)
        with pytest.raises(ValueError, match=r"wanted \(N, 16, 16, 3\)"):
            camera(PICTURES[..., :1], 1)
        with pytest.raises(ValueError, match="0 patches"):
            camera(PICTURES[:0], 1)
        with pytest.raises(ValueError, match="class_index=2"):
            camera(PICTURES, 2)
        with pytest.raises(FloatingPointError, match="not finite"):
            camera(PICTURES * np.nan, 1)
        with pytest.raises(ValueError, match=r"centre \(3,\); wanted \(N, h, w, 8\) and \(8,\)"):
            camera.from_features(features, 1, centre=np.zeros(3))
