"""The steps of the chapter, one after the other, on networks small enough to be trained on nothing."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from mitolib import saliency
from mitolib.saliency import methods
from mitolib.saliency.network import Network
from mitolib.saliency.truth import HeldOutPatches
from mitolib.settings import SaliencyBudget
from mitolib.study import EXP1, EXP2

BUDGET = SaliencyBudget(patches=4, altered=2, samples=1, fibres=4, shares=(0.25,))
GALLERY = methods.methods_named(("saliency",))
SUBJECTS = list("ABCA")


def small(n_channels: int) -> keras.Model:
    x = inputs = keras.Input((32, 32, n_channels))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    x = keras.layers.MaxPooling2D(name="pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="probabilities")(x), name="small")


@pytest.fixture
def networks(monkeypatch) -> dict[str, Network]:
    """One of one protein, one of several, and a control."""
    monkeypatch.setitem(methods.LAYERS, "small", "conv")
    keras.utils.set_random_seed(0)
    labels = np.array([0, 0, 1, 1])
    several = replace(EXP2, proteins=("NDUFB8", "VDAC1", "COX4"))
    return {
        "VGG16": Network("VGG16", EXP1, "small", small(3), labels),
        "VGG16-ten": Network("VGG16-ten", several, "small", small(3), labels),
        "VGG16-shuffled": Network("VGG16-shuffled", EXP1, "small", small(3), 1 - labels, is_control=True),
    }


@pytest.fixture
def tested(rng) -> dict[str, HeldOutPatches]:
    """Four patches of three people for each experiment; each has a healthy fibre and four deficient ones."""
    fibres = np.kron(np.array([[1, 2, 5], [3, 4, 5]], np.uint16), np.ones((32, 21), np.uint16))
    fibres_nyx = np.stack([np.pad(fibres, ((0, 0), (0, 1)))] * 4)

    def patches(n_channels: int) -> HeldOutPatches:
        return HeldOutPatches(
            rows=pd.DataFrame({"subject": SUBJECTS}),
            patches_nhwc=rng.integers(0, 256, (4, 32, 32, n_channels), np.uint8),
            ndufb8_vdac1=rng.integers(0, 256, (4, 32, 32, 2), np.uint8),
            twins_nhwc=rng.integers(0, 256, (4, 32, 32, n_channels), np.uint8),
            fibres_nyx=fibres_nyx,
            deficient=[np.array([1, 2, 3, 4])] * 4,
            has_truth=True,
        )

    return {"exp1": patches(1), "exp2": patches(3)}


def explained(networks, tested) -> dict[str, dict[str, np.ndarray]]:
    return saliency.explain(networks, tested, GALLERY, samples=1, seed=0, rng=np.random.default_rng(0))


def chapter(networks, tested) -> tuple:
    """maps, and what the five tests of the chapter gave."""
    rng = np.random.default_rng(0)
    maps = explained(networks, tested)
    randomised = saliency.randomise(networks, maps, tested, GALLERY, budget=BUDGET, seed=0, rng=rng)
    localised = saliency.localise(maps, networks, tested)
    perturbed = saliency.perturb(networks, maps, tested, budget=BUDGET, rng=rng)
    summary = saliency.summarise(localised, randomised, perturbed, networks, tested, rng=rng)
    return maps, randomised, localised, perturbed, summary


def without_truth(held_out: HeldOutPatches) -> HeldOutPatches:
    nothing = {"fibres_nyx": 0 * held_out.fibres_nyx, "deficient": [np.array([], int)] * len(held_out)}
    return replace(held_out, twins_nhwc=None, ndufb8_vdac1=None, has_truth=False, **nothing)


def test_every_network_gets_every_method_and_the_control_grad_cam_alone(networks, tested):
    maps = explained(networks, tested)
    blind = ["random", "centre", "Sobel", "intensity", "marker"]
    assert list(maps["VGG16"]) == list(maps["VGG16-ten"]) == ["Grad-CAM", "saliency", *blind]
    assert list(maps["VGG16-shuffled"]) == ["Grad-CAM", *blind]
    assert all(len(stack) == 4 for by_method in maps.values() for stack in by_method.values())
    np.testing.assert_allclose(
        maps["VGG16"]["Grad-CAM"],
        networks["VGG16"].camera(np.repeat(tested["exp1"].patches_nhwc / 255, 3, -1), 1),
        1e-5,
    )


def test_maps_are_scored_altered_and_judged_for_every_network(networks, tested):
    maps, randomised, localised, perturbed, summary = chapter(networks, tested)
    assert list(randomised.cascade.index) == ["trained", "probabilities", "conv"]
    assert set(randomised.alike) == {"VGG16", "VGG16-ten"} and set(randomised.labels) == {"ssim", "spearman"}
    assert len(localised.scores) == sum(len(by_method) for by_method in maps.values()) * 4
    assert set(localised.strata["model"]) <= {"VGG16", "VGG16-ten"} and set(localised.strata_record) == {
        "share",
        "size",
    }
    assert len(perturbed.removal["VGG16"]["Sobel"]) == BUDGET.altered
    assert (perturbed.removal["VGG16"]["random"].abs() > 0).any(axis=None), "another random map than the yardstick"
    assert all(len(effects) == BUDGET.altered * BUDGET.fibres for effects in perturbed.effects.values())
    scores = summary.methods["VGG16"]["Grad-CAM"]
    assert scores["mass_over_area"].n + scores["mass_over_area"].left_out == 4
    assert scores["deletion_minus_random"].left_out == 2, "of patches that were not altered"
    shown = perturbed.restored_patch(networks["VGG16-ten"], maps, tested["exp2"])
    assert shown.effects["fibre"].tolist() == [1, 2, 3, 4] and shown.effects["relevance"].notna().all()


def test_findings_have_a_sentence_for_each_test(networks, tested):
    _, randomised, *_, summary = chapter(networks, tested)
    networks["ResNet50"] = networks["VGG16"]
    summary.methods["ResNet50"] = summary.methods["VGG16"]
    text = saliency.findings(summary, randomised, networks, {"VGG16": 0.9, "VGG16-shuffled": 0.8})
    assert len(text.splitlines()) == 10 and text.startswith("1. VGG16 taught shuffled labels") and "80.0%" in text
    assert "on 3 proteins" in text and "on SDHA" in text and "pass all 4 tests" in text


def test_data_without_truth_people_or_proteins_leave_out_what_needs_them_and_say_so(networks, tested):
    alone = {"VGG16": networks["VGG16"]}
    bare = {"exp1": without_truth(tested["exp1"])}
    maps, randomised, localised, perturbed, summary = chapter(alone, bare)
    assert "marker" not in maps["VGG16"] and randomised.labels == {}
    for sentence in (randomised.labels_sentence, localised.left_out, perturbed.restoration_sentence):
        assert sentence.startswith("Left out: ")
    assert localised.strata_record is None and summary.score("mass_over_area") == {}
    assert list(summary.verdicts) == ["follows the weights", "network reacts"]
    text = saliency.findings(summary, randomised, alone, {"VGG16": 0.9})
    assert len(text.splitlines()) == 3 and "fibres" not in text and "shuffled" not in text


def test_the_first_patches_keep_all_that_is_known_of_them(tested):
    two = tested["exp1"].first(2)
    assert len(two) == len(two.patches_nhwc) == len(two.masks_nyx) == len(two.twins_nhwc) == len(two.ndufb8_vdac1) == 2
    assert without_truth(tested["exp1"]).first(1).twins_nhwc is None


def test_a_gallery_is_stretched_for_display_and_shows_no_random_map(networks, tested):
    shown = tested["exp1"].gallery(explained(networks, tested)["VGG16"], n=3)
    assert "random" not in shown.maps and shown.masks_nyx.shape == (3, 32, 32)
    assert all(stack.shape == (3, 32, 32) and 0 <= stack.min() < stack.max() <= 1 for stack in shown.maps.values())


def test_a_network_says_what_it_was_taught_and_shows_an_example_of_each_call(networks, tmp_path):
    labels = ["control", "control", "patient", "patient"]
    table = pd.DataFrame(
        {"section": list("ABCD"), "subject": list("ABCD"), "label": labels, "y": 0, "x": 0, "size": 64}
    )
    assert networks["VGG16"].taught(table).tolist() == labels
    assert networks["VGG16-shuffled"].taught(table).to_dict()["A"] == "patient"
    calls = table.assign(predicted=["control", "patient", "patient", "patient"], p_patient=0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8)
    shown = networks["VGG16"].examples(calls, pixels, tmp_path, seed=0)
    assert shown.rows["label"].tolist() == ["control", "control", "patient"]
    assert list(shown.maps) == ["control", "patient"] and shown.maps["patient"].shape == (3, 224, 224)
    assert not shown.masks_nyx.any(), "nothing is known of these fibres"
    assert networks["VGG16-shuffled"].saved_head(tmp_path, None, (), table) is None, "a control is always trained"
