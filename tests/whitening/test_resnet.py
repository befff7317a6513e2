from __future__ import annotations

import numpy as np
import pytest
import torch

from mitolib.whitening import alignment, resnet, surgery

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_resnet18_has_the_names_and_shapes_of_the_official_checkpoint():
    state = resnet.ResNet18().state_dict()
    assert len(state) == 122
    assert sum(value.numel() for value in resnet.ResNet18().parameters()) == 11_689_512
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.1.bn2.running_var": (64,),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer4.0.downsample.1.weight": (512,),
        "layer4.1.conv2.weight": (512, 512, 3, 3),
        "fc.weight": (1000, 512),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(old) == 102
    resnet.ResNet18().load_state_dict(dict(old), strict=True)  # as in the official file, older than that counter


def test_weights_come_in_the_alphabetical_order_of_their_names_and_the_head_is_new():
    source = resnet.ResNet18()
    names = sorted(name for name in source.state_dict() if not name.endswith("num_batches_tracked"))
    arrays = [source.state_dict()[name].numpy() for name in names]
    state = resnet.build(2, arrays=arrays).state_dict()
    assert state["fc.weight"].shape == (2, 512)
    assert all(torch.equal(state[name], source.state_dict()[name]) for name in names if name[:2] != "fc")
    other = resnet.build(2, arrays=None).state_dict()
    assert not torch.equal(other["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    with pytest.raises(ValueError, match="101 arrays for ResNet-18; wanted the 102"):
        resnet.build(2, arrays=arrays[1:])


def test_pictures_are_normalised_as_for_imagenet_and_one_channel_is_copied_to_three():
    grey = np.zeros((2, 4, 5, 1), np.uint8)
    grey[1], grey[0, 3, 1] = 255, 51
    x = resnet.as_input(grey)
    assert x.shape == (2, 3, 4, 5) and x.dtype == torch.float32
    for c, (mean, sd) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        assert x[1, c, 0, 0] == pytest.approx((1 - mean) / sd) and x[0, c, 0, 0] == pytest.approx(-mean / sd)
        assert x[0, c, 3, 1] == pytest.approx((0.2 - mean) / sd)
    colour = np.repeat(grey, 3, axis=3)
    assert torch.equal(resnet.as_input(colour), x)
    colour[..., 2] = 0
    assert torch.equal(resnet.as_input(colour)[:, :2], x[:, :2]) and not torch.equal(resnet.as_input(colour), x)


def test_pictures_are_left_as_they_are_and_may_be_turned_views_or_read_only():
    grey = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
    grey.flags.writeable = False
    turned = resnet.as_input(grey[:, ::-1])
    assert torch.equal(turned, resnet.as_input(grey).flip(2)) and grey[0, 0].ravel().tolist() == [0, 1, 2, 3]


def test_the_published_place_is_reached_at_7_by_7_and_the_tail_is_the_rest_of_the_model():
    model = resnet.ResNet18(n_classes=2).eval()
    x = torch.randn(11, 3, 224, 224)
    surgery.replace_norm(model, "layer4.1.bn1", 2, [x], activation="pool_max")
    assert surgery.layer_input(model, x).shape == (11, 512, 7, 7)
    trunk, tail = resnet.divide(model)
    with torch.no_grad():
        features = trunk(x)
        assert features.shape == (11, 512, 7, 7)
        assert torch.equal(tail.eval()(features), model(x))
    alignment.align(tail, [features[:4], features[4:8]])
    assert not torch.equal(model.layer4[1].bn1.rotation, torch.eye(512, dtype=torch.float64)), "one layer, two views"
