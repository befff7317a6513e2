"""ResNet-18 in PyTorch, with the parameter names and shapes of the official checkpoint.

After He, Zhang, Ren, Sun 2016, arXiv:1512.03385; the stride sits in the first convolution of a block. `load_state_dict`
takes the official resnet18-f37072fd.pth as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """(N, n_in, H, W) -> (N, n_out, H / stride, W / stride): two 3 x 3 convolutions and a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet18(nn.Module):
    """(N, 3, H, W) pictures, normalised as for ImageNet -> (N, n_classes) logits; 224 px give 7 x 7 at `layer4`."""

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures in [0, 1], as the checkpoint wants


def as_input(patches_nhwc: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 1 or 3) -> float32 (N, 3, H, W), normalised; one channel is copied to three."""
    scaled_nhwc = torch.from_numpy(np.array(patches_nhwc)).float().div_(255).expand(-1, -1, -1, 3)
    return ((scaled_nhwc - torch.tensor(MEAN)) / torch.tensor(SD)).permute(0, 3, 1, 2)


def build(n_classes: int, *, arrays: Sequence[np.ndarray] | None) -> ResNet18:
    """A ResNet-18 with a new `fc` for n_classes.

    arrays: the 102 tensors of the official checkpoint in the alphabetical order of their names
    (`weights.resolve("ResNet18").arrays`), or None for random ones. Torch's generator draws what is random.
    Raises ValueError for another number of arrays.
    """
    model = ResNet18()
    if arrays is not None:
        names = sorted(name for name in model.state_dict() if not name.endswith("num_batches_tracked"))
        if len(arrays) != len(names):
            raise ValueError(f"{len(arrays)} arrays for ResNet-18; wanted the {len(names)} of resnet18-f37072fd.pth.")
        model.load_state_dict({name: torch.tensor(array) for name, array in zip(names, arrays, strict=True)})
    model.fc = nn.Linear(model.fc.in_features, n_classes)
    return model.to(memory_format=torch.channels_last)  # as `as_input` gives it: convolutions take half the time


def divide(model: ResNet18) -> tuple[nn.Sequential, nn.Sequential]:
    """(trunk, tail) sharing the layers of `model`: tail(trunk(x)) is model(x), cut below the last block.

    The trunk ends with `layer4.0`, (N, 512, H / 32, W / 32): where it is frozen, its output can be computed once. The
    tail's first module, `last`, holds `layer4.1` and whatever follows it before the pooling, so a norm layer that
    `surgery.replace_norm` has put into the model is in the tail as well.
    """
    trunk = nn.Sequential(OrderedDict(conv1=model.conv1, bn1=model.bn1, relu=nn.ReLU(), maxpool=model.maxpool))
    for name in ("layer1", "layer2", "layer3"):
        trunk.add_module(name, getattr(model, name))
    trunk.add_module("layer4", model.layer4[:1])
    tail = OrderedDict(last=model.layer4[1:], avgpool=model.avgpool, flatten=nn.Flatten(), fc=model.fc)
    return trunk, nn.Sequential(tail)
