"""Shared by the tests: a small cohort on disk, and figures closed after each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
import tifffile
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
matplotlib.use("Agg")

from mitolib.settings import PROTEINS

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def make_cohort(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Path]:
    """Write {class folder: sections} as TIFFs of random grey, height x width px, and return the root."""

    def make(
        classes: dict[str, list[str]] | None = None,
        proteins: tuple[str, ...] = PROTEINS,
        shape: tuple[int, int] = (600, 700),
    ) -> Path:
        root = tmp_path / "cohort"
        for class_folder, sections in (classes or {"Control": ["C01"], "Patient": ["P01", "P02"]}).items():
            for section in sections:
                folder = root / class_folder / section
                folder.mkdir(parents=True)
                for protein in proteins:
                    tifffile.imwrite(
                        folder / f"{protein}.tif", rng.integers(0, 256, shape, dtype=np.uint8), compression="zlib"
                    )
        return root

    return make


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    matplotlib.pyplot.close("all")
