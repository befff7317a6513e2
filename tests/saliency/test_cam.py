"""Class activation mapping: what it is on its own network, and that it is refused on others."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mitolib.saliency import cam, logits, methods


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="block1_conv")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="block2_conv")(x)
    return keras.Model(inputs, x, name="small")


@pytest.fixture
def pixels(rng) -> np.ndarray:
    return rng.random((20, 16, 16, 3), dtype=np.float32)


@pytest.fixture
def pipeline(backbone, pixels):
    means = backbone(pixels).numpy().mean(axis=(1, 2))
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(means, np.arange(20) % 2), means


@pytest.fixture
def model(backbone, pipeline) -> keras.Model:
    return cam.averaging_network(backbone, *cam.folded(pipeline[0]))


def test_the_network_answers_what_the_regression_answers(model, pipeline, pixels):
    regression, means = pipeline
    np.testing.assert_allclose(model(pixels).numpy()[:, 1], regression.predict_proba(means)[:, 1], atol=1e-5)


@pytest.mark.parametrize("class_index", [0, 1])
def test_the_mean_of_a_map_plus_the_bias_is_the_score(model, pixels, class_index):
    maps = cam.class_activation(model, pixels, class_index)
    bias = model.get_layer("classes").get_weights()[1][class_index]
    wanted = logits.with_logits(model)(pixels).numpy()[:, class_index]
    np.testing.assert_allclose(maps.mean(axis=(1, 2)) + bias, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("class_index", [0, 1])
def test_grad_cam_is_its_positive_part_over_the_number_of_places(model, pixels, class_index):
    wanted = cam.cam(model, pixels, class_index, layer="block2_conv", samples=1) / 64
    found = methods.GradCAM(model, "block2_conv")(pixels, class_index)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * wanted.max())
    assert wanted.max() > 0


def test_one_output_by_a_sigmoid_speaks_for_the_second_class(backbone, model, pixels):
    means = keras.layers.GlobalAveragePooling2D()(backbone.output)
    dense = keras.layers.Dense(1, activation="sigmoid")
    single = keras.Model(backbone.input, dense(means))
    kernel, bias = model.get_layer("classes").get_weights()
    dense.set_weights([kernel[:, 1:], bias[1:]])
    for class_index in (0, 1):
        np.testing.assert_allclose(
            cam.class_activation(single, pixels, class_index),
            cam.class_activation(model, pixels, class_index),
            rtol=1e-5,
            atol=1e-7,
        )


def test_another_head_and_another_pipeline_are_refused(backbone, pixels):
    flat = keras.layers.Flatten(name="flat")(backbone.output)
    other = keras.Model(backbone.input, keras.layers.Dense(2, activation="softmax")(flat))
    with pytest.raises(ValueError, match=r"has flat \(Flatten\).*wanted GlobalAveragePooling2D"):
        cam.class_activation(other, pixels, 1)
    with pytest.raises(ValueError, match="a pipeline of PCA, LogisticRegression"):
        cam.folded(make_pipeline(PCA(), LogisticRegression()))


def test_what_cannot_be_asked_is_refused(model, pixels):
    with pytest.raises(ValueError, match="class_index=2"):
        cam.class_activation(model, pixels, 2)
    with pytest.raises(ValueError, match="no patch to explain"):
        cam.class_activation(model, pixels[:0], 1)
