"""A tail of 6 channels and maps of 4 x 4, in which patients have more of channel 0."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mitolib.weights import Weights
from mitolib.whitening import fitting, resnet, training, trunks, vgg16
from mitolib.whitening.layer import ConceptWhitening

N, C, SIDE = 80, 6, 4
LABELS = np.arange(N) % 2
EVERY = np.arange(N)
ROWS = np.arange(60)  # of training
CLASSES = {name: ROWS[LABELS[ROWS] == i] for i, name in enumerate(("control", "patient"))}
FEW = {"large": np.arange(0, 20), "pale": np.arange(20, 40)}  # two concepts that leave patches over
BUDGET = fitting.Budget(steps=20, batch_size=16, learning_rate=0.05, every=5, concept_batch=8)


def toy_maps() -> Tensor:
    torch.manual_seed(1)
    maps = torch.randn(N, C, SIDE, SIDE)
    maps[:, 0] += 3 * torch.from_numpy(LABELS)[:, None, None]
    return maps


MAPS = toy_maps()


def see(rows: np.ndarray) -> Tensor:
    return MAPS[rows]


def toy_tail() -> nn.Sequential:
    """As of `resnet.divide`: the last block keeps the number that it has in the whole network."""
    torch.manual_seed(0)
    last = nn.Sequential(OrderedDict([("1", resnet.BasicBlock(C, C, 1))]))
    tail = OrderedDict(last=last, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(C, 2))
    return nn.Sequential(tail)


class Tiny(nn.Module):
    """What `resnet.divide` wants of a ResNet-18, with 4 channels: pictures of 16 px give maps of 4 x 4."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.maxpool = nn.Conv2d(3, 4, 3, 2, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(2)
        for name in ("layer1", "layer2", "layer3"):
            setattr(self, name, nn.Sequential(resnet.BasicBlock(4, 4, 1)))
        self.layer4 = nn.Sequential(resnet.BasicBlock(4, 4, 1), resnet.BasicBlock(4, 4, 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        trunk, tail = resnet.divide(self)
        return tail(trunk(x))


def toy_network() -> trunks.Network:
    """Of which no whole network is there, only its tail."""
    return SimpleNamespace(tail=toy_tail(), maps=see, maps_nchw=MAPS)


def toy_trunk(rows: Mapping[str, np.ndarray], *, kind: str = "toys", split: str = "toy") -> trunks.Trunk:
    """What fits ask of a trunk, without a unit of its own."""
    return SimpleNamespace(
        pictures=toy_pictures(kind),
        rows=rows,
        name={"network": "toy", "picture": kind, "split": split, "trunk_seed": 0},
        depends={"trunk": "toy"},
        network=toy_network(),
        units=[],
    )


def toy_pictures(kind: str = "toys") -> trunks.Pictures:
    """Without pictures; eight people, ten patches each."""
    table = pd.DataFrame({"subject": [f"S{i % 2}{i // 20}" for i in range(N)]})
    return SimpleNamespace(labels=LABELS, kind=kind, patches_nhwc=None, table=table, depends={"pictures": kind})


def toy_features(kind: str = "toys", *, views: int = 0) -> vgg16.Features:
    """Whose maps are the toys, and their augmented copies the toys again. Its tail wants `small_vgg16`."""
    weights = Weights("VGG16", "mirror", "ab12", "BSD", None)
    features = vgg16.Features(toy_pictures(kind), weights, views, (0.8, 1.2), 0)
    maps_nhwc = MAPS.permute(0, 2, 3, 1).numpy().astype(np.float16)
    vars(features)["_maps_nhwc"] = np.concatenate([maps_nhwc] * (1 + views))
    return features


def trained(arm: training.Arm | str, concepts=CLASSES, *, budget=BUDGET, seed=0, rows=ROWS, inputs=see, **more):
    arm = training.ARMS[arm] if isinstance(arm, str) else arm
    given = {"budget": budget, "rng": np.random.default_rng(seed), "label": ""} | more
    return training.train(arm, toy_tail(), inputs, LABELS, rows, concepts, **given)


def logits(model: nn.Module) -> Tensor:
    return fitting.outputs(model, see, EVERY)


def eye(layer: ConceptWhitening) -> Tensor:
    return torch.eye(layer.n_channels, dtype=torch.float64)
