"""The steps of the chapter, one after the other, on networks small enough to be trained on nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from mitolib import claims, own_data, saliency, transfer, units
from mitolib.saliency import fits, localisation, measurements, methods, perturbation
from mitolib.saliency.budget import Budget
from mitolib.saliency.control import POOLED, Networks
from mitolib.saliency.maps import enlarge, unit
from mitolib.saliency.network import PERMUTED, UNTRAINED, Network
from mitolib.saliency.randomisation import similarity
from mitolib.saliency.truth import HeldOutPatches
from mitolib.study import EXP1, EXP2, Experiment

BUDGET = Budget(
    patches=4,
    altered=2,
    samples=1,
    fibres=4,
    shares=(0.25,),
    cascaded=3,
    redraws=2,
    label_draws=2,
    ways=None,
    followed=("Grad-CAM", "saliency"),
    ways_of_several=True,
)
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


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One folder of units for all tests of this file: what two of them ask for alike is computed once."""
    return tmp_path_factory.mktemp("units")


@pytest.fixture(autouse=True)
def places(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MITOLIB_UNITS", str(store))
    monkeypatch.setattr(units, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(measurements, "INPUT_PX", 32)
    monkeypatch.setitem(methods.LAYERS, "small", "conv")


@pytest.fixture
def networks() -> Networks:
    """One of one protein, one of several, and two kinds of control."""
    keras.utils.set_random_seed(0)
    several = replace(EXP2, proteins=("NDUFB8", "VDAC1", "COX4"))
    return Networks(
        explained={
            "VGG16": Network("VGG16", trained("one", EXP1, 1, LABELS)),
            "VGG16-ten": Network("VGG16-ten", trained("several", several, 3, LABELS)),
        },
        untrained={"ResNet50": Network("ResNet50", trained("never", EXP1, 1, LABELS), control=UNTRAINED)},
        permuted={
            name: Network(name, trained(name, EXP1, 1, LABELS[::-1]), control=PERMUTED) for name in ("draw 1", "draw 2")
        },
    )


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


def concluded(networks, tested) -> dict:
    """The record of the chapter, as far as claims read it."""
    found = measured(networks, tested)
    summary = saliency.summarise(found, rng=np.random.default_rng(0))
    return {"shown": networks.shown, "permuted_labels": networks.record, **summary.record}


def sentences(record: dict) -> list[str]:
    return [claims.answer(claim, {"gradcam": record}).sentence for claim in saliency.claims(record)]


def without_truth(held_out: HeldOutPatches) -> HeldOutPatches:
    nothing = {"fibres_nyx": 0 * held_out.fibres_nyx, "deficient": [np.array([], int)] * len(held_out)}
    nothing["depends"] = {"truth": None}
    return replace(held_out, twins_nhwc=None, ndufb8_vdac1=None, has_truth=False, **nothing)


def keys(found: measurements.Measured, model: str = "VGG16") -> list[str]:
    asked = [*found.found[model].values(), *found.redrawn.get(model, {}).values()]
    return [key for each in asked for key in each.keys]


BLIND = ["random", "centre", "Sobel", "intensity", "marker"]


def test_every_network_gets_every_method_and_a_control_grad_cam_alone(networks, tested):
    found = measured(networks, tested)
    removal = found.perturbed.removal
    assert list(removal) == list(found.redrawn) == ["VGG16", "VGG16-ten"]
    assert all(list(by_method) == ["Grad-CAM", "saliency", *BLIND] for by_method in removal.values())
    assert list(found.found["draw 1"]) == ["Grad-CAM"] and list(found.found["ResNet50"]) == ["examples", "Grad-CAM"]


def test_what_is_kept_of_maps_is_what_the_single_steps_give(networks, tested):
    found = measured(networks, tested)
    held_out, explained = tested["exp1"], networks.explained["VGG16"]
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
    np.testing.assert_allclose(kept[list(effects)].astype(float), effects.astype(float), rtol=1e-4, atol=1e-6)
    assert kept[["patch", "fibre"]].eq(perturbation.fibres_to_restore(two.deficient, most=4)).all(axis=None)


def test_a_network_drawn_anew_is_compared_patch_by_patch_over_all_its_seeds(networks, tested):
    found = measured(networks, tested)
    trained, (one, other) = found.found["VGG16"]["saliency"][0]["maps"], found.redrawn["VGG16"]["saliency"]
    assert not (one["maps"] == other["maps"]).all()
    by_seed = [similarity(trained.astype(float), drawn["maps"].astype(float)) for drawn in (one, other)]
    mean = (by_seed[0] + by_seed[1]) / 2
    pd.testing.assert_frame_equal(found.randomised.alike["VGG16"]["saliency"], mean, check_names=False)
    assert found.randomised.by_seed.index.get_level_values("seed").nunique() == 2


def test_cells_are_means_of_blocks_relative_to_the_greatest_and_an_empty_map_stays_empty():
    maps = np.zeros((2, 28, 28))
    maps[0, :2, :2], maps[0, 4, 4] = 1, 8
    coarse = fits.cells(maps)
    assert coarse.shape == (2, 14, 14) and coarse.dtype == np.float16 and not coarse[1].any()
    assert coarse[0, 0, 0] == 0.5 and coarse[0, 2, 2] == 1
    assert fits.cells(np.ones((1, 7, 7))).shape == (1, 7, 7), "a smaller map is left as it is"


def test_the_random_map_finds_exactly_what_chance_does(networks, tested):
    scores = measured(networks, tested).localised.scores.sort_index().loc["VGG16", "random"]
    shares = tested["exp1"].masks_nyx.mean(axis=(1, 2))
    np.testing.assert_allclose(scores["pointing"], shares, atol=0.01)  # masks at 224 px
    np.testing.assert_allclose(scores["auprc"], scores["pointing"], rtol=1e-5)
    np.testing.assert_allclose(scores["mass_over_area"], 1, rtol=1e-5)


def test_maps_are_scored_altered_and_judged_for_every_network(networks, tested):
    found = measured(networks, tested)
    summary = saliency.summarise(found, rng=np.random.default_rng(0))
    randomised, perturbed = found.randomised, found.perturbed
    assert list(randomised.cascade.index) == ["trained", "last layer", "head"]
    assert set(randomised.alike) == {"VGG16", "VGG16-ten"} and list(randomised.permuted) == ["draw 1", "draw 2"]
    assert set(found.localised.strata["model"]) <= {"VGG16", "VGG16-ten"}
    assert set(found.localised.strata_record) == {"share", "size"}
    assert len(perturbed.removal["VGG16"]["Sobel"]) == BUDGET.altered
    assert (perturbed.removal["VGG16"]["random"].abs() > 0).any(axis=None), "another random map than the yardstick"
    assert all(len(effects) == BUDGET.altered * BUDGET.fibres for effects in perturbed.effects.values())
    scores = summary.methods["VGG16"]["Grad-CAM"]
    assert scores["mass_over_area"].n + scores["mass_over_area"].left_out == 4
    assert scores["deletion_minus_random"].left_out == 2, "of patches that were not altered"
    assert list(summary.methods) == ["VGG16", "VGG16-ten", "ResNet50", POOLED], "the draws as one"
    shown = perturbed.restored_patch("VGG16-ten", tested["exp2"])
    assert shown.effects["fibre"].tolist() == [1, 2, 3, 4] and shown.effects["relevance"].notna().all()


def test_differences_are_taken_patch_by_patch(networks, tested):
    found = measured(networks, tested)
    summary = saliency.summarise(found, rng=np.random.default_rng(0))
    scores = found.localised.scores["auprc"].sort_index()
    gap = (scores["VGG16", "Grad-CAM"] - scores["VGG16", "intensity"]).mean()
    assert summary.differences["VGG16"]["Grad-CAM"]["auprc_minus_intensity"].value == pytest.approx(gap)
    pooled = (scores["draw 1", "Grad-CAM"] + scores["draw 2", "Grad-CAM"]) / 2
    gap = (scores["VGG16", "Grad-CAM"] - pooled).mean()
    assert summary.controls["auprc_minus_permuted"].value == pytest.approx(gap)
    chance = (pooled - scores["VGG16", "random"]).mean()
    assert summary.differences[POOLED]["Grad-CAM"]["auprc_minus_random"].value == pytest.approx(chance)
    alike = pd.concat(found.randomised.permuted.values())["ssim"].mean()
    assert summary.controls["permuted_ssim"].value == pytest.approx(alike)
    removal = found.perturbed.removal["VGG16"]
    gap = (removal["Grad-CAM"] - removal["intensity"])["deletion"].mean()
    assert summary.differences["VGG16"]["Grad-CAM"]["deletion_minus_intensity"].value == pytest.approx(gap)
    assert "intensity" not in summary.score("auprc_minus_intensity")["VGG16"]


def test_tables_have_a_row_for_each_method_and_at_most_six_columns(networks, tested):
    summary = saliency.summarise(measured(networks, tested), rng=np.random.default_rng(0))
    judged = ["Grad-CAM", "saliency", "centre", "Sobel", "intensity", "marker"]
    assert list(summary.verdicts("VGG16").index) == list(summary.corrected("VGG16").index) == judged
    assert summary.verdicts("VGG16").shape[1] == summary.corrected("VGG16").shape[1] == 4
    assert list(summary.scores("VGG16").index) == ["Grad-CAM", "saliency", *BLIND]
    assert list(summary.scores("VGG16"))[:2] == ["AUPRC", "pointing"]
    assert list(summary.scores(POOLED).index) == ["Grad-CAM"]


def test_a_chapter_is_drawn_from_its_units_without_a_network(networks, tested, tmp_path):
    def drawn() -> tuple:
        found = measured(networks, tested)
        record = concluded(networks, tested)
        return record, found.gallery("VGG16-ten"), found.examples("VGG16", tmp_path), found.budget, found.units

    first = drawn()
    for network in networks.all.values():
        del network.trained.model
    again = drawn()
    of_network, of_control = 3 + 2 + 2 * 2, 1  # examples, yardsticks, restoration; methods; methods drawn anew
    assert repr(again) == repr(first) and len(first[-1]) == 2 * of_network + 2 + 3 * of_control + 1


@pytest.mark.parametrize("change", ["head", "shares", "patches", "seed"])
def test_what_the_measurements_depend_on_tells_their_units_apart(networks, tested, change):
    networks = replace(networks, explained={"VGG16": networks.explained["VGG16"]}, untrained={}, permuted={})
    first = keys(measured(networks, tested))
    budget = replace(BUDGET, shares=(0.5,)) if change == "shares" else BUDGET
    if change == "head":
        networks.explained["VGG16"].trained.key = "trained otherwise"
    if change == "patches":
        tested["exp1"] = replace(tested["exp1"], depends={"explained": "others"})
    again = keys(measured(networks, tested, budget, seed=7 if change == "seed" else 0))
    kept = {"head": 0, "patches": 0, "seed": 0, "shares": 2 + 4}[change]  # examples, restoration; drawn anew
    assert len(set(first) & set(again)) == kept


@pytest.mark.parametrize("change", [{"redraws": 3}, {"label_draws": 9}, {"patches": 99}])
def test_more_seeds_draws_or_methods_cost_no_unit_that_is_there(networks, tested, change):
    first = keys(measured(networks, tested))
    assert set(first) <= set(keys(measured(networks, tested, replace(BUDGET, **change))))
    further = GALLERY | methods.methods_named(("SmoothGrad",))
    more = saliency.measure(networks, tested, further, budget=BUDGET, seed=0)
    assert set(first) < set(keys(more)) and len(set(keys(more)) - set(first)) == 1 + BUDGET.redraws


def test_the_budget_says_what_was_run_for_each_network(networks, tested):
    found = measured(networks, tested, replace(BUDGET, altered=100)).budget
    assert found["VGG16"] == {
        **{"explained": 4, "altered": 4, "redraws": 2},
        **{"methods": 2, "samples": 1, "fibres": 4},
    }
    assert found["ResNet50"] == {"explained": 4} and found[POOLED]["draws"] == 2


def test_every_claim_of_the_chapter_has_an_answer(networks, tested):
    record = concluded(networks, tested)
    text = sentences(record)
    names = [claim.name for claim in saliency.claims(record)]
    assert len(set(names)) == len(names) == 5 + 2 * 11 and all(text)
    assert any("VGG16 on SDHA" in sentence for sentence in text)
    assert any("VGG16 on 3 proteins" in sentence for sentence in text)


def test_data_without_truth_people_or_proteins_leave_out_what_needs_them_and_say_so(networks, tested):
    alone = replace(
        networks,
        explained={"VGG16": networks.explained["VGG16"]},
        permuted={},
        left_out=own_data.LeftOut("too few people"),
    )
    bare = {"exp1": without_truth(tested["exp1"])}
    found = measured(alone, bare)
    summary = saliency.summarise(found, rng=np.random.default_rng(0))
    assert "marker" not in found.perturbed.removal["VGG16"] and alone.record == {}
    for sentence in (found.localised.left_out, found.perturbed.restoration_sentence, str(alone.left_out)):
        assert sentence.startswith("Left out: ")
    assert found.localised.strata_record is None and summary.score("mass_over_area") == {}
    assert list(summary.verdicts("VGG16")) == ["follows the weights", "network reacts"]
    assert list(summary.corrected("VGG16")) == ["removal"]
    text = sentences(concluded(alone, bare))
    assert len(text) == 4 and not any("fibres" in sentence or "permuted" in sentence for sentence in text)


def test_the_first_patches_keep_all_that_is_known_of_them(tested):
    two = tested["exp1"].first(2)
    assert len(two) == len(two.patches_nhwc) == len(two.masks_nyx) == len(two.twins_nhwc) == len(two.ndufb8_vdac1) == 2
    assert without_truth(tested["exp1"]).first(1).twins_nhwc is None


def test_a_gallery_is_stretched_for_display_and_shows_no_random_map(networks, tested):
    shown = measured(networks, tested).gallery("VGG16")
    assert "random" not in shown.maps and shown.masks_nyx.shape == (3, 32, 32)
    assert all(stack.shape == (3, 32, 32) and 0 <= stack.min() < stack.max() <= 1 for stack in shown.maps.values())


def test_a_network_says_what_it_was_taught_and_shows_an_example_of_each_call(networks, tested, tmp_path):
    explained = networks.explained["VGG16"]
    assert explained.taught.tolist() == LABELS
    assert networks.taught["draw 1"].to_dict()["A"] == "patient"
    calls, explained.trained.key = explained.trained.calls, "with these answers"
    calls["predicted"] = ["control", "patient", "patient", "patient"] * 2
    assert networks.accuracy["VGG16"] == 0.75
    shown = measured(networks, tested).examples("VGG16", tmp_path)
    assert shown.rows["label"].tolist() == ["control", "control", "patient"]
    assert list(shown.maps) == ["control", "patient"] and shown.maps["patient"].shape == (3, 32, 32)
    i = shown.rows.index[2]
    maps = explained.class_maps(explained.trained.task.patches_nhwc[[i]], 32)
    np.testing.assert_allclose(shown.maps["patient"][2], maps["patient"][0], rtol=1e-4, atol=1e-7)
    assert not shown.masks_nyx.any(), "nothing is known of these fibres"
    recognised = measured(networks, tested).examples("VGG16", tmp_path, recognised_only=True)
    assert recognised.rows.index.tolist() == [shown.rows.index[0], i] and len(recognised.patches_nyx) == 2
    np.testing.assert_array_equal(recognised.maps["patient"], shown.maps["patient"][[0, 2]])


def test_measurements_come_out_as_they_did_when_their_protocol_was_declared(networks, tested):
    """Where they do not, a method has changed: raise `fits.PROTOCOL`, and pin what comes out now.

    Tolerance: 2e-3 of a score, or of a value, room for the rounding of another processor.
    """
    assert fits.PROTOCOL == 3
    found = measured(networks, tested)
    of = {what: each[0] for what, each in found.found["VGG16"].items()}
    drawn, falling = found.redrawn["VGG16"]["Grad-CAM"][0], found.stages[0]
    control = found.found["draw 1"]["Grad-CAM"][0]
    pinned = [
        (of["examples"]["maps"].mean((2, 3))[0] / of["examples"]["maps"].max(), [0.1265, 0.0008]),
        (of["yardsticks"]["at_random"][0, 0], [-1.1933, -0.4169]),
        (of["yardsticks"]["removal"][4, 0], [-1.1634, -0.3518]),  # of the marker
        (of["restoration"]["effect"][:4], [-0.0326, -0.6821, -0.0196, -0.0448]),
        (of["Grad-CAM"]["removal"][0, 0], [-0.7551, -0.6666]),
        (of["Grad-CAM"]["localisation"][0, :, 1], [0.805, 1.0979, 1.0342, 1.3767]),
        (of["Grad-CAM"]["maps"].mean((1, 2)), [0.0128, 0.0256, 0.0261, 0.0129]),
        (of["saliency"]["removal"][0, 0], [-0.2079, -1.5225]),
        (of["saliency"]["relevance"][0, :4], [0.0267, 0.0307, 0.032, 0.027]),
        (of["saliency"]["maps"].mean((1, 2)), [0.5703, 0.5977, 0.5942, 0.5581]),
        (drawn["maps"].mean((1, 2)), [0.2382, 0.2622, 0.222, 0.1982]),
        (falling["similarity"][1, 0], [-0.0004, -0.0729]),
        (falling["classes"][0], [-0.0519, 0.0844]),
        (of["saliency"]["different"][0], [0.1525, 0.1597]),
        (control["localisation"][0, :, 3], [0.651, 0.6255, 0.6649, 0.6731]),
    ]
    for found, expected in pinned:
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_a_network_drawn_anew_shares_no_weight_with_one_that_was_never_trained(networks, tested):
    """Both start from a seed: of the same one they would be the same network, and its maps alike for no reason."""
    keras.utils.set_random_seed(0)  # as of the measurements
    never = replace(networks.explained["VGG16"], trained=trained("from the seed", EXP1, 1, LABELS))
    networks = replace(networks, explained={"VGG16": never}, untrained={})
    assert (measured(networks, tested).randomised.alike["VGG16"]["Grad-CAM"] < 0.9).all(axis=None)
