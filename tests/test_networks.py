from __future__ import annotations

import keras
import numpy as np
import pytest

from mitolib import figures, networks


@pytest.fixture(scope="module")
def vgg16() -> keras.Model:
    return networks.build("VGG16", arrays=None)


def test_vgg16_has_the_papers_parameter_counts(vgg16):
    assert networks.parameter_counts(vgg16) == {"total": 20_125_634, "trainable": 5_410_946}


def test_the_first_kernel_is_widened_by_the_mean_of_its_rgb_kernels(rng):
    kernel_hwio = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    wide = networks.inflate(kernel_hwio, 10)
    np.testing.assert_array_equal(wide[:, :, :3], kernel_hwio)
    for channel in range(3, 10):
        np.testing.assert_array_equal(wide[:, :, channel], kernel_hwio.mean(axis=2))


def test_a_ten_channel_model_carries_the_widened_kernel_and_all_other_weights(vgg16):
    arrays = vgg16.get_weights()[:26]
    stack = networks.build("VGG16", n_channels=10, arrays=arrays)
    ours = stack.get_weights()
    np.testing.assert_array_equal(ours[0], networks.inflate(arrays[0], 10))
    assert all((a == b).all() for a, b in zip(ours[1:26], arrays[1:], strict=True))
    assert networks.parameter_counts(stack)["total"] == 20_125_634 + 7 * 3 * 3 * 64


def test_a_kernel_that_cannot_be_widened_is_refused():
    with pytest.raises(ValueError, match="wanted 3 to 3 or more"):
        networks.inflate(np.zeros((3, 3, 1, 4)), 10)


def test_frozen_layers_do_not_move_in_training_and_the_head_does(rng):
    model = networks.build("ResNet50", arrays=None)  # has batch normalisation, whose statistics must stand still too
    _, head = networks.divide(model)
    n_head = len(head.get_weights())
    before = model.get_weights()
    model.compile("adam", "categorical_crossentropy")
    model.fit(rng.random((2, 224, 224, 3), np.float32), np.eye(2), epochs=1, verbose=0)
    after = model.get_weights()
    assert all((a == b).all() for a, b in zip(before[:-n_head], after[:-n_head], strict=True))
    assert all((a != b).any() for a, b in zip(before[-n_head::2], after[-n_head::2], strict=True)), "every kernel"


def test_head_of_backbone_is_the_model(vgg16, rng):
    backbone, head = networks.divide(vgg16)
    x = rng.random((2, 224, 224, 3), np.float32)
    assert backbone.output_shape == (None, 7, 7, 512)
    np.testing.assert_allclose(head(backbone(x)), vgg16(x), atol=1e-6)


def test_the_head_alone_is_the_head_of_the_model(vgg16):
    alone = networks.head((7, 7, 512))
    assert networks.parameter_counts(alone) == {"total": 5_410_946, "trainable": 5_410_946}
    _, head = networks.divide(vgg16)
    assert [layer.name for layer in alone.layers[1:]] == [layer.name for layer in head.layers[1:]]
    assert [w.shape for w in alone.get_weights()] == [w.shape for w in head.get_weights()]
    assert alone.input_shape == (None, 7, 7, 512) and alone.output_shape == (None, 2)


def test_the_model_is_flat_so_that_layers_are_found_by_name(vgg16):
    assert not any(isinstance(layer, keras.Model) for layer in vgg16.layers)
    assert vgg16.get_layer("block5_conv3").output.shape == (None, 14, 14, 512)


def test_the_summary_adds_up(vgg16):
    table = figures.training.summary(vgg16)
    assert table["parameters"].sum() == 20_125_634
    assert table.loc[table["trained"], "parameters"].sum() == 5_410_946


def test_an_unknown_backbone_lists_the_known_ones():
    with pytest.raises(ValueError, match="VGG16, ResNet50"):
        networks.build("VGG19", arrays=None)


def test_a_lower_cut_trains_what_is_above_it(rng):
    model = networks.build("VGG16", arrays=None, frozen_to="block5_conv2")
    backbone, head = networks.divide(model)
    assert backbone.output_shape == (None, 14, 14, 512) and not backbone.trainable_weights
    assert head.layers[1].name == "block5_conv3" and len(head.trainable_weights) == 2 + 12
    x = rng.random((1, 224, 224, 3), np.float32)
    np.testing.assert_allclose(head(backbone(x)), model(x), atol=1e-6)


def test_a_model_divides_at_any_layer_that_all_above_it_read():
    model = networks.build("ResNet50", arrays=None)
    assert networks.divide(model, "conv5_block2_out")[1].input_shape == (None, 7, 7, 2048)
    with pytest.raises(ValueError, match="'conv5_block3_1_conv': conv5_block3_add"):
        networks.divide(model, "conv5_block3_1_conv")


def test_a_layer_that_does_not_exist_lists_those_that_do(vgg16):
    with pytest.raises(ValueError, match=r"no layer 'conv5'; it has .*block5_conv3"):
        networks.divide(vgg16, "conv5")
