"""The steps of the chapter, one after the other, on networks small enough to be trained on nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from mitolib import saliency, transfer, units
from mitolib.saliency import localisation, measurements, methods, perturbation
from mitolib.saliency.maps import enlarge, unit
from mitolib.saliency.network import Network
from mitolib.saliency.truth import HeldOutPatches
from mitolib.settings import SaliencyBudget
from mitolib.study import EXP1, EXP2, Experiment

BUDGET = SaliencyBudget(patches=4, altered=2, samples=1, fibres=4, shares=(0.25,))
GALLERY = methods.methods_named(("saliency",))
SUBJECTS = list("ABCA")


def small(n_channels: int) -> keras.Model:
    x = inputs = keras.Input((32, 32, n_channels))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    x = keras.layers.MaxPooling2D(name="pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="probabilities")(x), name="small")


def trained(key: str, experiment: Experiment, n_channels: int, labels: list[str]) -> SimpleNamespace:
    """What a network is explained by: a head that answers at random, on eight patches of four people."""
    rng = np.random.default_rng(n_channels)
    table = pd.DataFrame(
        {"subject": list("ABCD") * 2, "label": labels * 2, "split": "test", "size": 64, "y": 0, "x": 0}
    )
    table["section"] = table["subject"]
    pixels_nhwc = rng.integers(0, 256, (len(table), 32, 32, n_channels), np.uint8)
    p_patient = rng.random(len(table))
    predicted = np.where(p_patient > 0.5, "patient", "control")
    return SimpleNamespace(
        network="small",
        key=key,
        model=small(3),
        task=transfer.Task(table, pixels_nhwc, experiment, "pictures"),
        calls=table.assign(p_patient=p_patient, predicted=predicted),
        fits=SimpleNamespace(record=[]),
    )


LABELS = ["control", "control", "patient", "patient"]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("MITOLIB_UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(units, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(measurements, "INPUT_PX", 32)
    monkeypatch.setitem(methods.LAYERS, "small", "conv")


@pytest.fixture
def networks() -> dict[str, Network]:
    """One of one protein, one of several, and a control."""
    keras.utils.set_random_seed(0)
    several = replace(EXP2, proteins=("NDUFB8", "VDAC1", "COX4"))
    return {
        "VGG16": Network("VGG16", trained("one", EXP1, 1, LABELS)),
        "VGG16-ten": Network("VGG16-ten", trained("several", several, 3, LABELS)),
        "VGG16-shuffled": Network("VGG16-shuffled", trained("control", EXP1, 1, LABELS[::-1]), is_control=True),
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


def measured(networks, tested, budget=BUDGET, seed=0) -> measurements.Measured:
    return saliency.measure(networks, tested, GALLERY, budget=budget, seed=seed)


def chapter(networks, tested) -> tuple:
    """What the tests of the chapter gave."""
    rng, found = np.random.default_rng(0), measured(networks, tested)
    randomised = found.randomised(rng)
    summary = saliency.summarise(found.localised, randomised, found.perturbed, networks, tested, rng=rng)
    return randomised, found.localised, found.perturbed, summary


def without_truth(held_out: HeldOutPatches) -> HeldOutPatches:
    nothing = {"fibres_nyx": 0 * held_out.fibres_nyx, "deficient": [np.array([], int)] * len(held_out)}
    return replace(held_out, twins_nhwc=None, ndufb8_vdac1=None, has_truth=False, **nothing)


def test_every_network_gets_every_method_and_the_control_grad_cam_alone(networks, tested):
    removal = measured(networks, tested).perturbed.removal
    blind = ["random", "centre", "Sobel", "intensity", "marker"]
    assert list(removal["VGG16"]) == list(removal["VGG16-ten"]) == ["Grad-CAM", "saliency", *blind]
    assert list(removal["VGG16-shuffled"]) == ["Grad-CAM", *blind]


def test_what_is_kept_of_maps_is_what_the_single_steps_give(networks, tested):
    found = measured(networks, tested)
    held_out, explained = tested["exp1"], networks["VGG16"]
    maps = explained.camera(np.repeat(held_out.patches_nhwc / 255, 3, -1), 1)
    scores = localisation.score(maps, held_out.masks_nyx).to_numpy()
    np.testing.assert_allclose(found.localised.scores.sort_index().loc["VGG16", "Grad-CAM"], scores, rtol=1e-4)
    shown = found.gallery("VGG16")
    np.testing.assert_allclose(shown.maps["Grad-CAM"], enlarge(unit(maps[:3]), 32), atol=2e-3)
    two = held_out.first(2)
    effects = perturbation.restore(
        explained.log_odds, two.patches_nhwc, two.twins_nhwc, two.fibres_nyx, two.deficient, most=4
    )
    effects["relevance"] = perturbation.mean_over_fibres(maps[:2], two.fibres_nyx, effects)
    kept = found.perturbed.effects["VGG16"]
    np.testing.assert_allclose(kept[list(effects)].astype(float), effects.astype(float), rtol=1e-4)
    assert perturbation.fibres_to_restore(two.deficient, most=4).equals(kept[["patch", "fibre"]])


def test_maps_are_scored_altered_and_judged_for_every_network(networks, tested):
    randomised, localised, perturbed, summary = chapter(networks, tested)
    assert list(randomised.cascade.index) == ["trained", "probabilities", "conv"]
    assert set(randomised.alike) == {"VGG16", "VGG16-ten"} and set(randomised.labels) == {"ssim", "spearman"}
    assert len(localised.scores) == sum(len(by_method) for by_method in perturbed.removal.values()) * 4
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
    shown = perturbed.restored_patch("VGG16-ten", tested["exp2"])
    assert shown.effects["fibre"].tolist() == [1, 2, 3, 4] and shown.effects["relevance"].notna().all()


def test_a_chapter_is_drawn_from_its_units_without_a_network(networks, tested, tmp_path):
    def drawn() -> tuple:
        found = measured(networks, tested)
        return *chapter(networks, tested), found.gallery("VGG16-ten"), found.examples("VGG16", tmp_path), found.units

    first = drawn()
    for network in networks.values():
        del network.trained.model
    again = drawn()
    assert repr(again) == repr(first) and len(first[-1]) == 5 + 4 + 2


@pytest.mark.parametrize("change", ["head", "budget", "seed", "patches"])
def test_what_the_measurements_depend_on_tells_their_units_apart(networks, tested, change):
    first = measured(networks, tested).fits["VGG16"].keys
    seed = 1 if change == "seed" else 0
    budget = replace(BUDGET, shares=(0.5,)) if change == "budget" else BUDGET
    if change == "head":
        networks["VGG16"].trained.key = "trained otherwise"
    if change == "patches":
        tested["exp1"] = replace(tested["exp1"], depends={"explained": "others"})
    assert not set(first) & set(measured(networks, tested, budget, seed).fits["VGG16"].keys)


def test_a_further_method_costs_no_unit_that_is_there(networks, tested):
    first = measured(networks, tested).fits["VGG16"].keys
    more = saliency.measure(networks, tested, GALLERY | methods.methods_named(("SmoothGrad",)), budget=BUDGET, seed=0)
    assert len(set(more.fits["VGG16"].keys) - set(first)) == 1 and set(first) < set(more.fits["VGG16"].keys)


def test_findings_have_a_sentence_for_each_test(networks, tested):
    randomised, *_, summary = chapter(networks, tested)
    networks["ResNet50"] = networks["VGG16"]
    summary.methods["ResNet50"] = summary.methods["VGG16"]
    text = saliency.findings(summary, randomised, networks, {"VGG16": 0.9, "VGG16-shuffled": 0.8})
    assert len(text.splitlines()) == 10 and text.startswith("1. VGG16 taught shuffled labels") and "80.0%" in text
    assert "on 3 proteins" in text and "on SDHA" in text and "pass all 4 tests" in text


def test_data_without_truth_people_or_proteins_leave_out_what_needs_them_and_say_so(networks, tested):
    alone = {"VGG16": networks["VGG16"]}
    bare = {"exp1": without_truth(tested["exp1"])}
    randomised, localised, perturbed, summary = chapter(alone, bare)
    assert "marker" not in perturbed.removal["VGG16"] and randomised.labels == {}
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
    shown = measured(networks, tested).gallery("VGG16")
    assert "random" not in shown.maps and shown.masks_nyx.shape == (3, 32, 32)
    assert all(stack.shape == (3, 32, 32) and 0 <= stack.min() < stack.max() <= 1 for stack in shown.maps.values())


def test_a_network_says_what_it_was_taught_and_shows_an_example_of_each_call(networks, tested, tmp_path):
    assert networks["VGG16"].taught.tolist() == LABELS
    assert networks["VGG16-shuffled"].taught.to_dict()["A"] == "patient"
    calls = networks["VGG16"].trained.calls
    calls["predicted"] = ["control", "patient", "patient", "patient"] * 2
    assert networks["VGG16"].accuracy == 0.75
    shown = measured(networks, tested).examples("VGG16", tmp_path)
    assert shown.rows["label"].tolist() == ["control", "control", "patient"]
    assert list(shown.maps) == ["control", "patient"] and shown.maps["patient"].shape == (3, 32, 32)
    i = shown.rows.index[2]
    maps = networks["VGG16"].class_maps(networks["VGG16"].trained.task.patches_nhwc[[i]], 32)
    np.testing.assert_allclose(shown.maps["patient"][2], maps["patient"][0], rtol=1e-4, atol=1e-7)
    assert not shown.masks_nyx.any(), "nothing is known of these fibres"


def test_measurements_come_out_as_they_did_when_their_protocol_was_declared(networks, tested):
    """Where they do not, a method has changed: raise `measurements.PROTOCOL`, and pin what comes out now.

    Tolerance: 2e-3 of a score, or of a value, room for the rounding of another processor.
    """
    assert measurements.PROTOCOL == 1
    examples, yardsticks, grad_cam, saliency_map, falling = measured(networks, tested).fits["VGG16"]
    pinned = [
        (examples["maps"].mean((2, 3))[0] / examples["maps"].max(), [0.1265, 0.0008]),
        (yardsticks["at_random"][0, 0], [0.2327, 0.3972]),
        (yardsticks["removal"][4, 0], [0.2381, 0.4129]),  # of the marker
        (yardsticks["fibres"]["effect"][:4], [-0.0326, -0.6821, -0.0196, -0.0448]),
        (grad_cam["removal"][0, 0], [0.3197, 0.3393]),
        (grad_cam["localisation"][0, :, 1], [0.8050, 1.0979, 1.0342, 1.3767]),
        (grad_cam["alike"][0], [0.0046, 0.0858]),
        (grad_cam["others"][:, 0], [0.7265, 0.5690, 0.4054, 0.5501]),
        (saliency_map["removal"][0, 0], [0.4482, 0.1791]),
        (saliency_map["relevance"][0, :4], [0.0267, 0.0307, 0.0320, 0.0270]),
        (falling["similarity"][1], [-0.0005, -0.0668]),
    ]
    for found, expected in pinned:
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_a_network_drawn_anew_shares_no_weight_with_one_that_was_never_trained(networks, tested):
    """Both start from a seed: of the same one they would be the same network, and its maps alike for no reason."""
    keras.utils.set_random_seed(0)  # as of the measurements
    networks["VGG16"].trained.model = small(3)
    (*_, grad_cam, _, _) = measured(networks, tested).fits["VGG16"]
    assert (grad_cam["alike"] < 0.9).all()
