"""Augmented patches that heads train on: which copy, of which patch, from the bank of the experiments."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from mitolib import bank, cohort, patches, settings, splits, transfer
from mitolib.people import material, protocols
from mitolib.people.material import Augmentation, Patches
from mitolib.people.twins import with_twins
from mitolib.study import EXP1

AUGMENTATION = Augmentation(views=2, zoom=(0.8, 1.2), seed=5)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(bank, "FOLDER", tmp_path / "banks")
    return tmp_path / "banks"


@pytest.fixture
def backbone() -> keras.Model:
    x = keras.Input((224, 224, 3))
    return keras.Model(x, keras.layers.AveragePooling2D(32)(x))


@pytest.fixture
def part(make_cohort, rng) -> Patches:
    """Nine patches of each of four people, which allow the published split."""
    classes = {"Control": ["A", "B"], "Patient": ["C", "D"]}
    sections = cohort.read_cohort(make_cohort(classes, ("SDHA",), (96, 544)), ["SDHA"])
    table = patches.grid(sections, size_px=96, stride_px=56)
    experiment = EXP1.adapted(patch_px=96, stride_px=56)
    return Patches(experiment, with_twins(table, []), {"": sections}, *protocols.available(table, "exp1"))


def test_the_copy_of_a_patch_is_that_of_its_turn_whichever_bank_holds_it(part, backbone, folder):
    draw = material._augmented(lambda: backbone, part, "toy", AUGMENTATION)
    n = len(part.rows)
    first, second, third = (draw(np.arange(n), np.full(n, time)) for time in range(3))
    assert first.shape == (n, 7, 7, 3) and len(list(folder.iterdir())) == 2
    assert all(np.abs(one - other).max() > 0 for one, other in zip(first, second, strict=True))
    np.testing.assert_array_equal(first, third, err_msg="the third time of two copies is the first again")
    pixels = part.pixels_nhwc[""].astype(np.float32).mean(axis=(1, 2, 3)) / 255
    assert np.corrcoef(first.mean(axis=(1, 2, 3)), pixels)[0, 1] > 0.5, "of the patch itself"
    rows = np.array([n - 1, 0, 7, 3])
    mixed = draw(rows, np.array([1, 0, 1, 0]))
    np.testing.assert_array_equal(mixed, np.stack([second[n - 1], first[0], second[7], first[3]]))


def test_the_bank_of_patches_that_train_in_the_published_split_is_that_of_the_experiment(part, backbone, folder):
    profile = settings.Profile(**vars(settings.PROFILES["smoke"]) | {"views": 2, "seed": 5})
    table = part.themselves.assign(split=splits.published(part.themselves, "exp1"))
    task = transfer.Task(table, part.pixels_nhwc[""], part.experiment, "digest")
    frozen = transfer.Frozen.__new__(transfer.Frozen)  # without weights, which no toy needs
    frozen.network, frozen.task, frozen.profile, frozen.backbone = "toy", task, profile, backbone
    of_experiment = frozen.train(0, np.arange(3))
    (kept,) = folder.iterdir()
    draw = material._augmented(lambda: backbone, part, "toy", AUGMENTATION)
    assert len(list(folder.iterdir())) == 2 and kept.exists(), "one more, of the patches that do not train there"
    np.testing.assert_array_equal(draw(task.rows("train")[:3], np.zeros(3, int)), of_experiment)


def test_without_a_published_split_one_bank_holds_all(part, backbone, folder):
    other = Patches(part.experiment, part.rows, part.sections, {}, {})
    draw = material._augmented(lambda: backbone, other, "toy", AUGMENTATION)
    assert draw(np.array([2, 0]), np.array([0, 1])).shape == (2, 7, 7, 3) and len(list(folder.iterdir())) == 1
