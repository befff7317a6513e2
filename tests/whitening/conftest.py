"""Units of the toys lie in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mitolib import units
from mitolib.whitening import vgg16


@pytest.fixture(scope="module", autouse=True)
def unit_folders(tmp_path_factory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "PUBLISHED"):
            patch.setattr(units, name, tmp_path_factory.mktemp(name.lower()))
        patch.delenv("MITOLIB_SHARE", raising=False)
        patch.delenv("MITOLIB_UNITS", raising=False)
        yield


@pytest.fixture(scope="module")
def small_vgg16() -> Iterator[None]:
    """What stands above the last convolution of VGG16, for maps of 6 channels and 4 x 4 positions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg16, "N_CHANNELS", 6)
        patch.setattr(vgg16, "POOLED", 2)
        yield
