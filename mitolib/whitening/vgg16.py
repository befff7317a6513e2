"""VGG16 with ImageNet weights below a whitening layer: banked features, its last convolution, and what stands above.

    features = vgg16.Features(shown, weights.resolve("VGG16"), views=8, zoom=(0.8, 1.2), seed=127)
    features.maps(rows), features.tail("light", seed=127)

Up to `block5_conv2` the network stays in Keras, whose features `mitolib.bank` keeps on disk. From there on it is
PyTorch: a copy of `block5_conv3`, whose output before the ReLU is the map that the layer reads, as in the networks of
Chen et al. with batch norm; then the layer, ReLU, the pooling of VGG16 and a classifier.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mitolib import patches
from mitolib.progress import track
from mitolib.settings import DATA
from mitolib.units import digest
from mitolib.weights import Weights
from mitolib.whitening.fitting import BATCH
from mitolib.whitening.layer import samples_of
from mitolib.whitening.passes import kept_generators
from mitolib.whitening.trunks import Pictures

CUT = "block5_conv2"  # the last layer in Keras
CONVOLUTION = "block5_conv3"  # copied to PyTorch
N_CHANNELS, SIDE, POOLED = 512, 14, 7  # of the map at the layer, and behind the pooling


@dataclass(frozen=True, eq=False)  # arrays have no single answer to whether they are equal
class Features:
    """Maps of all patches at the layer: of each as it is, then `views` augmented copies of it.

    Row i + v N of the maps is copy v of patch i, of N; with v = 0 the patch as it is. Nothing is computed before maps
    are asked for: a page that is drawn from kept units needs neither features nor TensorFlow.
    """

    pictures: Pictures
    weights: Weights  # of VGG16
    views: int
    zoom: tuple[float, float]  # of augmentation, see `patches.augment`
    seed: int  # of augmentation; and of all weights, where there are none from ImageNet

    @cached_property
    def depends(self) -> dict[str, Any]:
        """What every fit depends on that reads them, as plain values."""
        augmentation = {"zoom": list(self.zoom), "views": self.views, "seed": self.seed}
        without_weights = {} if self.weights.sha256 else {"seed": self.seed}
        return self.pictures.depends | {
            "weights": self.weights.sha256,
            "augmentation": augmentation if self.views else without_weights,
        }

    @cached_property
    def labels(self) -> np.ndarray:
        """(N (1 + views),) class indices of the rows of the maps."""
        return np.tile(self.pictures.labels, 1 + self.views)

    def training_rows(self, rows: np.ndarray) -> np.ndarray:
        """The rows of the maps that a network is trained on: the augmented copies of patches, or the patches."""
        n = len(self.pictures.labels)
        return np.concatenate([rows + view * n for view in range(1, 1 + self.views)]) if self.views else rows

    def maps(self, rows: np.ndarray) -> Tensor:
        """(len(rows), 512, 14, 14) float32."""
        return torch.from_numpy(self._maps_nhwc[rows].astype(np.float32)).permute(0, 3, 1, 2)

    def prepare(self) -> None:
        """Compute all maps, before a fit needs some."""
        _ = self._maps_nhwc

    @cached_property
    def _halves(self) -> tuple[Any, nn.Conv2d]:
        """Keras' network up to the cut, and the convolution above it."""
        import keras

        from mitolib import networks

        keras.utils.set_random_seed(self.seed)
        n_channels = max(3, len(self.pictures.proteins))  # one protein is copied to three
        whole = networks.build("VGG16", n_channels=n_channels, arrays=self.weights.arrays)
        return networks.divide(whole, CUT)[0], convolution(*whole.get_layer(CONVOLUTION).get_weights())

    @cached_property
    def _maps_nhwc(self) -> np.ndarray:
        from mitolib import bank

        backbone, last = self._halves
        kept = partial(bank.Bank, backbone, self.pictures.patches_nhwc, prepare=patches.as_input)
        name = f"VGG16, {self.pictures.kind}"
        banks = [(kept(label=f"{name}, features"), [0])]
        if self.views:
            augment = partial(patches.augment, zoom=self.zoom)
            augmented = kept(augment=augment, views=self.views, seed=self.seed, label=f"{name}, augmented features")
            banks.append((augmented, range(self.views)))
        n = len(self.pictures.labels)
        maps_nhwc = _scratch((n * (1 + self.views), SIDE, SIDE, N_CHANNELS))
        chunks = [(of, view, start) for of, views in banks for view in views for start in range(0, n, BATCH)]
        for place, (of, view, start) in enumerate(track(chunks, f"{name}, {CONVOLUTION}", len(chunks))):
            rows = np.arange(start, min(start + BATCH, n))
            offset = n * (place // -(-n // BATCH))  # chunks of one copy of all patches follow each other
            maps_nhwc[offset + rows] = _convolved(last, of.read(rows, view))
        return maps_nhwc

    def maps_of(self, patches_nhwc: np.ndarray) -> Tensor:
        """(N, 512, 14, 14) float32 of further pictures, uint8 (N, 224, 224, C)."""
        from mitolib import bank

        backbone, last = self._halves
        forward = bank.compiled(backbone)
        parts = [
            _convolved(last, forward(patches.as_input(patches_nhwc[i : i + bank.BATCH])))
            for i in range(0, len(patches_nhwc), bank.BATCH)
        ]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32)).permute(0, 3, 1, 2)

    def statistics(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean (512,) and covariance (512, 512) of the maps of these rows; training changes nothing below the layer."""
        key = digest(rows)
        if key not in self._statistics:
            total, product, n = 0.0, 0.0, 0
            for i in range(0, len(rows), BATCH):
                samples = samples_of(self.maps(rows[i : i + BATCH]))
                # Products of single precision, sums of double: within rounding, in half the time.
                total, product = total + samples.sum(1).double(), product + (samples @ samples.T).double()
                n += samples.shape[1]
            mean = total / n
            self._statistics[key] = mean.float(), (product / n - torch.outer(mean, mean)).float()
        return self._statistics[key]

    @cached_property
    def _statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {}


def _scratch(shape: tuple[int, ...]) -> np.ndarray:
    """float16, in a nameless file that goes when the array goes: two gigabytes at the paper's size."""
    folder = DATA / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float16, "w+", shape=shape)


def convolution(kernel_hwio: np.ndarray, bias: np.ndarray) -> nn.Conv2d:
    """Keras' 3 x 3 convolution in PyTorch, without its activation."""
    copied = nn.Conv2d(kernel_hwio.shape[2], kernel_hwio.shape[3], 3, padding=1)
    with torch.no_grad():
        copied.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel_hwio.transpose(3, 2, 0, 1))))
        copied.bias.copy_(torch.from_numpy(bias))
    return copied.to(memory_format=torch.channels_last).requires_grad_(False)


def _convolved(last: nn.Conv2d, features_nhwc: np.ndarray) -> np.ndarray:
    """(N, 14, 14, 512) float16."""
    features = torch.from_numpy(features_nhwc.astype(np.float32)).permute(0, 3, 1, 2)
    with torch.no_grad():
        return last(features).permute(0, 2, 3, 1).numpy().astype(np.float16)


def tail(head: str, n_classes: int, *, seed: int) -> nn.Sequential:
    """What stands above `block5_conv3`, untrained: (N, 512, 14, 14) -> (N, n_classes) logits.

    Its first module, `last`, holds the place of the layer (`norm`, a batch norm), ReLU and the pooling of VGG16. head:
    a key of HEADS. seed: of the random weights; torch's generators stay where they are.
    """
    with kept_generators():
        torch.manual_seed(seed)
        last = OrderedDict(norm=nn.BatchNorm2d(N_CHANNELS), relu=nn.ReLU(), pool=nn.MaxPool2d(2))
        model = nn.Sequential(OrderedDict(last=nn.Sequential(last), **HEADS[head](n_classes)))
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):  # as Keras does
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
    return model


def _light(n_classes: int) -> Mapping[str, nn.Module]:
    return {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(N_CHANNELS, n_classes)}


def _paper(n_classes: int) -> Mapping[str, nn.Module]:
    sizes = (N_CHANNELS, 2048, 1024, 512, 256)
    of_position = [layer for n_in, n_out in pairwise(sizes) for layer in (nn.Conv2d(n_in, n_out, 1), nn.ReLU())]
    return {
        "of_position": nn.Sequential(*of_position),
        "dropout": nn.Dropout(0.5),
        "flatten": nn.Flatten(),
        "dense": nn.Linear(sizes[-1] * POOLED**2, 128),
        "relu": nn.ReLU(),
        "fc": nn.Linear(128, n_classes),
    }


# "light": global average and one linear layer. "paper": that of `networks.build`, whose Dense layers on each position
# are 1 x 1 convolutions here.
HEADS: dict[str, Callable[[int], Mapping[str, nn.Module]]] = {"light": _light, "paper": _paper}
