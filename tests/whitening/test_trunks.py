"""Trunks as units, on a network of 4 channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from toy_arms import BUDGET, LABELS, Tiny

from mitolib import units
from mitolib.study import EXP1
from mitolib.weights import Weights
from mitolib.whitening import arms, fitting, resnet, trunks

pytestmark = pytest.mark.usefixtures("one_torch_thread")
N = 40
ROWS = {"train": np.arange(24), "validation": np.arange(24, 32), "test": np.arange(32, N)}
UNTIL_FLAT = fitting.UntilFlat(half_steps=2, whole_steps=2, every=1, patience=2, batch_size=8)
RECIPE = trunks.Recipe(Weights("ResNet18", "random", None, None, None), UNTIL_FLAT, (0.8, 1.2))


@pytest.fixture(autouse=True)
def small_network(tmp_path, monkeypatch):
    monkeypatch.setenv("MITOLIB_UNITS", str(tmp_path))
    monkeypatch.setattr(resnet, "build", lambda n_classes, arrays: Tiny(n_classes))
    trunks._network.cache_clear()


@pytest.fixture
def shown(rng) -> trunks.Pictures:
    table = pd.DataFrame({"section": "S1", "y": np.arange(N), "x": 0, "label": "control"})
    table.loc[LABELS[:N] == 1, "label"] = "patient"
    patches_nhwc = rng.integers(0, 256, (N, 16, 16, 1), dtype=np.uint8)
    return trunks.Pictures("SDHA", ("SDHA",), table, patches_nhwc, EXP1, "pictures")


def a_trunk(shown, rows=ROWS, *, split="published", recipe=RECIPE, seed=0):
    return trunks.train_trunk(shown, rows, split=split, recipe=recipe, seed=seed)


def test_the_network_that_is_read_is_the_one_that_was_trained(shown):
    trunk = a_trunk(shown)
    network, history = trunks.train_network(
        shown.patches_nhwc,
        shown.labels,
        ROWS,
        arrays=None,
        augment=lambda patches, rng: trunks.patches.augment(patches, zoom=RECIPE.zoom, rng=rng),
        budget=RECIPE.budget,
        seed=0,
        label="",
    )
    pd.testing.assert_frame_equal(trunk.history, history)
    assert_array_equal(trunk.network.maps_nchw, network.maps_nchw)
    assert trunk.network.maps_nchw.stride() == network.maps_nchw.stride()
    assert not trunk.network.whole.training
    every = np.arange(N)
    kept, made = (fitting.outputs(one.tail, one.maps, every) for one in (trunk.network, network))
    assert_array_equal(kept, made)


def test_reading_a_network_leaves_the_generator_where_it_was(shown):
    trunk = a_trunk(shown)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert trunk.network and torch.equal(torch.get_rng_state(), before)


def test_a_trunk_is_trained_once_and_its_name_begins_those_of_its_arms(shown, monkeypatch):
    first = a_trunk(shown)
    monkeypatch.setattr(trunks, "_fit", None)
    assert a_trunk(shown).units == first.units
    assert first.name == {"network": "ResNet18", "picture": "SDHA", "split": "published", "trunk_seed": 0}
    assert first.depends["trunk"] == first.units[0]["key"]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"split": "fold 1 of 4"},
        {"rows": ROWS | {"train": np.arange(23)}},
        {"recipe": replace(RECIPE, zoom=(1.0, 1.0))},
        {"rows": ROWS | {"validation": np.arange(24, 31)}},
        {"recipe": replace(RECIPE, budget=replace(RECIPE.budget, patience=5))},
        {"recipe": replace(RECIPE, weights=Weights("ResNet18", "mirror", "ab12", "BSD", None))},
        {"shown": {"data_sha256": "other pictures"}},
        {"shown": {"kind": "composite"}},
        {"shown": {"experiment": EXP1.adapted(stride_px=99)}},
    ],
)
def test_whatever_the_training_depends_on_is_another_trunk(shown, change):
    first = a_trunk(shown).fits.keys
    other = replace(shown, **change.pop("shown", {}))
    assert a_trunk(other, **change).fits.keys != first


def test_neither_the_tested_patches_nor_the_precision_are_another_trunk(shown):
    first = a_trunk(shown)
    other = a_trunk(shown, ROWS | {"test": np.arange(32, N - 1)})
    assert other.fits.keys == first.fits.keys and other.depends != first.depends, "its arms are others"
    bfloat16 = replace(RECIPE, budget=replace(RECIPE.budget, precision="bfloat16"))
    assert a_trunk(shown, recipe=bfloat16).units == first.units


def test_a_share_trains_a_trunk_that_another_owes_when_an_arm_of_its_own_reads_it(shown, monkeypatch):
    monkeypatch.setenv("MITOLIB_SHARE", "1/1")  # owes nothing
    trunk = a_trunk(shown)
    assert not list(units.cache().rglob("*.json"))
    assert trunk.network.maps_nchw.shape == (N, 4, 4, 4) and len(list(units.cache().rglob("*.json"))) == 1
    monkeypatch.setattr(trunks, "_fit", None)
    assert len(a_trunk(shown).network.maps_nchw) == N, "the other share reads it"


def test_a_trunk_comes_out_as_it_did_when_its_protocol_was_declared(shown):
    """Where it does not, the method has changed: raise `trunks.PROTOCOL`, and pin what comes out now.

    Tolerance: 2e-3 of a loss or a value of a map, ten times what two processors differ by here.
    """
    assert trunks.PROTOCOL == 2
    trunk = a_trunk(shown)
    assert_allclose(trunk.history["loss"], [2.1995, 1.9537, 1.9375, 1.8765], atol=2e-3)
    assert_allclose(trunk.network.maps_nchw[0, :, 0, 0], [0.7395, 0.0, 0.0, 2.9544], atol=2e-3)


@pytest.mark.filterwarnings("ignore:the whitened means")
def test_layers_at_each_depth_come_out_as_they_did_when_their_protocol_was_declared(shown, monkeypatch):
    """Where they do not, the method has changed: raise `arms.PROTOCOL`, and pin what comes out now.

    Tolerance: 1e-2 of a score, ten times what two processors differ by here.
    """
    assert arms.PROTOCOL == 2
    monkeypatch.setattr(arms, "PLACES", ("layer1.0.bn1", "layer3.0.bn2"))
    early, late = arms.place_layers(a_trunk(shown), seed=0, budget=replace(BUDGET, steps=4, batch_size=8))
    assert early["scores"].shape == late["scores"].shape == (8, 2)
    assert_allclose(early["scores"][0], [0.3706, 0.2856], atol=1e-2)
    assert_allclose(late["scores"][0], [0.6827, -0.0488], atol=1e-2)
