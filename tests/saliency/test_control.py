"""The control: what it is taught, and that it is a unit like every other training."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest

from mitolib import bank, networks, patches, people, settings, splits, transfer, weights
from mitolib.heads import p_patient
from mitolib.people import models
from mitolib.saliency import control
from mitolib.study import EXP1

PROFILE = replace(settings.PROFILES["smoke"], epochs=1, seed=5, n_seeds=1)


def small_backbone(*, include_top: bool, weights: None, input_shape: tuple[int, int, int]) -> keras.Model:
    x = keras.Input(input_shape)
    pooled = keras.layers.AveragePooling2D(32, name="pool")(x)
    return keras.Model(x, keras.layers.Conv2D(4, 1, activation="relu", name="last")(pooled))


def small_head(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x))


@pytest.fixture(autouse=True)
def small_networks(tmp_path, monkeypatch):
    """Networks that take milliseconds, and whose ImageNet weights cannot be had."""
    monkeypatch.setattr(bank, "FOLDER", tmp_path / "features")
    monkeypatch.setenv("MITOLIB_UNITS", str(tmp_path / "units"))
    for name in ("VGG16", "ResNet50"):
        monkeypatch.setitem(networks.BACKBONES, name, (small_backbone, "last"))
    monkeypatch.setattr(networks, "_head", small_head)
    monkeypatch.setattr(weights, "resolve", lambda name: weights.Weights(name, "random", None, None, None))
    models._fresh.cache_clear()  # it keeps a head by the shape that it reads
    yield
    models._fresh.cache_clear()


@pytest.fixture
def task(rng) -> transfer.Task:
    """Sixteen patches of four people, each of whom trains, validates and is tested."""
    table = pd.DataFrame({"label": ["control", "patient"] * 8, "subject": list("ABCD") * 4})
    table["split"] = ["train"] * 8 + ["validation"] * 4 + ["test"] * 4
    table["section"], table["y"], table["x"] = table["subject"], 0, 0
    return transfer.Task(table, rng.integers(0, 256, (16, 224, 224, 1), dtype=np.uint8), EXP1, "pictures")


train_control = partial(control.train_control, profile=PROFILE, brief=people.Head)


def test_the_control_is_taught_one_label_of_each_subject_and_not_all_true_ones(task):
    network = control.Network("VGG16-shuffled", train_control(task), is_control=True)
    taught = network.taught
    true = task.table.groupby("subject")["label"].first()
    assert taught.index.tolist() == list("ABCD") and 0 < (taught != true).sum() < 4
    calls = network.trained.calls
    assert calls["label"].tolist() == taught[task.table["subject"][12:]].tolist()
    assert network.accuracy == (calls["predicted"] == calls["label"]).mean()


def test_the_control_is_read_without_features_and_gives_the_answers_it_gave(task, monkeypatch):
    first = train_control(task)
    expected = first.p_patient
    monkeypatch.setattr(bank, "Bank", None)
    again = train_control(task)
    np.testing.assert_array_equal(again.p_patient, expected)
    shown = patches.as_input(task.patches_nhwc[task.rows("test")])
    np.testing.assert_allclose(p_patient(again.model, shown), expected, atol=1e-3)  # features: float16


@pytest.mark.parametrize(
    "change", [{"draw": 1}, {"profile": replace(PROFILE, views=2)}, {"profile": replace(PROFILE, zoom=(0.9, 1.1))}]
)
def test_another_deal_or_another_augmentation_is_another_unit(task, change):
    assert train_control(task).key != train_control(task, **change).key


def test_whom_labels_were_dealt_to_is_in_the_key(task, monkeypatch):
    key = train_control(task).key
    monkeypatch.setattr(splits, "shuffle_by_subject", lambda labels, *_, **__: 1 - labels)
    assert train_control(task).key != key


def test_two_people_are_no_control_and_three_proteins_a_further_network(task):
    assert list(control.build_networks({"exp1": task}, profile=PROFILE, brief=people.Head)) == [
        "VGG16",
        "ResNet50",
        "VGG16-shuffled",
    ]
    two = replace(task, table=task.table.assign(subject=["A", "B"] * 8))
    tasks = {"exp1": two, "exp2": two}
    assert list(control.build_networks(tasks, profile=PROFILE, brief=people.Head)) == ["VGG16", "ResNet50", "VGG16-ten"]


def test_the_control_comes_out_as_it_did_when_its_protocol_was_declared(task):
    """Where it does not, the method has changed: raise `control.PROTOCOL`, and pin what comes out now.

    Tolerance: 2e-3 of a probability, room for the rounding of another processor or precision.
    """
    assert control.PROTOCOL == 1
    np.testing.assert_allclose(train_control(task).p_patient, [0.4797, 0.4789, 0.4820, 0.4808], atol=2e-3)
