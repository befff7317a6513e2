"""Keras on TensorFlow, in this process, and on PyTorch, in another: the same from the same weights."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys

import keras
import numpy as np
import on_backend
import pytest

from mitolib import backend, networks, settings, transfer, units
from mitolib.__main__ import main

HERE = settings.ROOT / "tests"


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[str, dict[str, np.ndarray]]:
    """Results of both backends; each has read the weights that the other wrote."""
    folder = tmp_path_factory.mktemp("backends")
    ours = on_backend.computed() | {"keys": on_backend.keys_of_a_record(folder)}
    on_backend.head().save_weights(folder / "tensorflow.weights.h5")
    subprocess.run(
        [sys.executable, HERE / "on_backend.py", folder],
        env=os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": str(settings.ROOT)},
        check=True,
        capture_output=True,
    )
    fresh = on_backend.with_drawn_weights(on_backend.networks.head((7, 7, 16)), seed=9)
    fresh.load_weights(folder / "torch.weights.h5")
    for read, drawn in zip(fresh.get_weights(), on_backend.head().get_weights(), strict=True):
        np.testing.assert_array_equal(read, drawn)
    with np.load(folder / "torch.npz") as theirs:
        return {"tensorflow": ours, "torch": dict(theirs)}


@pytest.mark.parametrize("name", on_backend.LIMITS)
def test_both_backends_compute_the_same_from_the_same_weights(both, name):
    ours, theirs = both["tensorflow"][name], both["torch"][name]
    assert ours.shape == theirs.shape and np.isfinite(ours).all()
    assert np.ptp(ours) > 0, "something was computed at all"
    assert name not in on_backend.differing(both["torch"], both["tensorflow"])


def test_what_an_experiment_writes_down_has_the_same_entries(both):
    ours, theirs = both["tensorflow"]["keys"].tolist(), both["torch"]["keys"].tolist()
    assert ours == theirs and {"models.accuracy", "models.history.val_loss", "budget.epochs run"} <= set(ours)


def test_a_difference_is_seen(both):
    ours = both["tensorflow"]
    for name, (allowed, unit) in on_backend.LIMITS.items():
        scale = np.abs(ours[name]).max() if unit is None else unit
        moved = ours | {name: ours[name] + 1.5 * allowed * scale}
        assert on_backend.differing(moved, ours).keys() == {name}
        assert on_backend.differing(ours | {name: np.full_like(ours[name], np.nan)}, ours).keys() == {name}


PUBLISHED = {path.parent.name: path for path in sorted(units.PUBLISHED.glob("*/*.json"))}


@pytest.mark.parametrize("chapter", PUBLISHED)
def test_a_published_unit_keeps_its_key_and_another_backend_makes_another(chapter, monkeypatch):
    content = json.loads(PUBLISHED[chapter].read_text())
    kept = content["chapter"], units._with_backend(content["unit"]), content["depends"], content["protocol"][1]
    assert units._key(*kept) == content["key"] and units.Unit(*kept[:2], content["key"]).stem == PUBLISHED[chapter].stem
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    named = units._with_backend(content["unit"])
    assert named == content["unit"] | {"backend": "torch"}
    assert units._key(kept[0], named, *kept[2:]) != content["key"]


def test_a_fit_is_not_told_of_the_backend_that_its_unit_is_named_by(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("MITOLIB_UNITS", str(tmp_path))
    asked = units.each(lambda seed: {"value": seed}, [{"seed": 5}], made_by=transfer, chapter="exp1", depends={})
    (about,) = asked.record
    assert asked[0] == {"value": 5} and about["unit"] == {"seed": 5, "backend": "torch"}
    assert about["made"]["backend"] == "torch"


def test_fits_that_are_faster_together_are_asked_for_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MITOLIB_UNITS", str(tmp_path))
    asked: list[list[int]] = []

    def fit(seed: int) -> dict[str, int]:
        asked.append([seed])
        return {"value": seed}

    def together(names: list[dict[str, int]]) -> list[dict[str, int]]:
        asked.append([name["seed"] for name in names])
        return [{"value": name["seed"]} for name in names]

    common = {"made_by": transfer, "chapter": "exp1", "depends": {}, "together": together}
    units.each(fit, [{"seed": seed} for seed in (5, 6, 7)], **common)
    found = units.each(fit, [{"seed": seed} for seed in (5, 6, 7, 8)], **common)
    assert asked == [[5, 6, 7], [8]] and [each["value"] for each in found] == [5, 6, 7, 8]


def test_the_command_line_says_what_computes_here_and_how_fast(monkeypatch, capsys):
    monkeypatch.setitem(networks.BACKBONES, "VGG16", (on_backend.light_backbone, "last"))
    flatten, answer = keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")
    monkeypatch.setattr(networks, "_head", lambda x: answer(flatten(x)))
    main(["device"])
    out = capsys.readouterr().out
    assert f"backend    tensorflow ({backend.VERSION})" in out
    assert "precision  " in out and "TF32 is off" in out and ("no GPU is used" in out) == (backend.gpu() is None)
    taken = [float(line.split()[0]) for line in out.splitlines() if " ms " in line]
    assert len(taken) == 2 and all(milliseconds >= 0 for milliseconds in taken)


def test_a_backend_that_is_none_of_the_two_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND is 'jax'; wanted tensorflow or torch"):
        settings.keras_backend()


def test_what_keras_was_told_elsewhere_does_not_decide(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(ValueError, match="Keras runs on tensorflow, wanted torch"):
        runpy.run_path(backend.__file__)


def test_what_is_written_for_tensorflow_alone_says_so_on_another(monkeypatch):
    from mitolib.saliency import BUDGETS, methods, relevance, ways

    assert methods.left_out(methods.METHODS) is None and callable(relevance.from_layer("PRP"))
    monkeypatch.setattr(backend, "NAME", "torch")
    assert list(methods.methods_named(None)) == ["Grad-CAM"]
    assert (
        str(methods.left_out(["CAM", "LRP"])) == "Left out: LRP. Written for TensorFlow, and Keras runs on torch here."
    )
    assert list(ways.methods_named(None, BUDGETS["paper"])) == ["Grad-CAM", "CAM"]
    assert str(relevance.from_layer("PRP")).startswith("Left out: relevance at the pixels. Written for TensorFlow, ")
    with pytest.raises(ValueError, match=r"LRP: written for TensorFlow, and Keras runs on torch .*Grad-CAM, CAM"):
        methods.methods_named("LRP, CAM")
    with pytest.raises(NotImplementedError, match="KERAS_BACKEND=tensorflow"):
        relevance.RelevanceBelow(
            on_backend.light_backbone(include_top=False, weights=None, input_shape=(64, 64, 3)), "last"
        )
