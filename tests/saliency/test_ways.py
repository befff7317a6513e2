"""The chapter on all methods, on networks small enough to be trained on nothing."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from test_steps import BUDGET, LABELS, networks, places, store, tested, trained  # noqa: F401

from mitolib import bank, claims, settings, transfer, weights
from mitolib import networks as architectures
from mitolib.saliency import methods, ways, ways_conclusions
from mitolib.saliency.control import Networks
from mitolib.saliency.methods import GAP
from mitolib.saliency.network import Network
from mitolib.saliency.randomisation import similarity
from mitolib.study import EXP1

ASKED = methods.methods_named(("saliency", "guided backpropagation", "gradient x input", "CAM"))


def one_dense() -> keras.Model:
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="probabilities")(x), name="small")


@pytest.fixture
def several(networks) -> Networks:  # noqa: F811
    """Two networks that all methods explain, and one for CAM."""
    keras.utils.set_random_seed(1)
    mean = trained("mean", EXP1, 1, LABELS)
    mean.model = one_dense()
    explained = {**networks.explained, GAP: Network(GAP, mean)}
    for network in explained.values():
        network.trained.scores = {"balanced_accuracy": 0.5}
    return Networks(explained, {}, {})


@pytest.fixture
def found(several, tested) -> ways.Ways:  # noqa: F811
    return ways.measure(several, tested, ASKED, budget=BUDGET, seed=0)


def recorded(found: ways.Ways) -> dict:
    record = found.record(rng=np.random.default_rng(0)) | {"chapter": "explanations"}
    record["listed"] = ways_conclusions.listed(record)
    return record


def test_each_network_is_explained_by_the_methods_that_fit_it(found):
    assert {model: list(by_method) for model, by_method in found.falls.items()} == {
        "VGG16": ["Grad-CAM", "saliency", "guided backpropagation", "gradient x input"],
        "VGG16-ten": ["Grad-CAM", "saliency", "guided backpropagation", "gradient x input"],
        GAP: ["Grad-CAM", "CAM"],
    }
    handed_down = {model: list(by_method) for model, by_method in found.handed_down.items()}
    assert handed_down == {"VGG16": ["gradient x input"], "VGG16-ten": ["gradient x input"], GAP: []}


def test_a_map_under_a_redrawn_head_is_compared_with_that_of_the_trained_network(found, tested):  # noqa: F811
    network = found.measured.networks.explained["VGG16"]
    shown_nhwc = np.repeat(tested["exp1"].patches_nhwc[: BUDGET.cascaded] / 255, 3, -1)
    options = {"layer": "conv", "samples": 1}
    trained_map = ASKED["saliency"](network.model, shown_nhwc, 1, **options)
    by_seed = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        fresh = keras.models.clone_model(network.model)
        by_seed.append(similarity(trained_map, ASKED["saliency"](fresh, shown_nhwc, 1, **options))["spearman"])
    scores = found.scores.sort_index().loc["VGG16", "saliency"]
    np.testing.assert_allclose(scores["head_redrawn"][: BUDGET.cascaded], sum(by_seed) / 2, atol=1e-4)
    assert scores["head_redrawn"][BUDGET.cascaded :].isna().all(), "of patches that were not followed"
    every = ASKED["saliency"](network.model, np.repeat(tested["exp1"].patches_nhwc / 255, 3, -1), 1, **options)
    other = similarity(every, np.roll(every, 1, axis=0))["spearman"]
    np.testing.assert_allclose(scores["another_patch"], other, atol=1e-4)


def test_what_explains_a_network_is_built_once_and_leaves_it_alone_under_other_weights(several):
    network, method = several.explained["VGG16"], ASKED["guided backpropagation"]
    picture, before = np.random.default_rng(2).random((1, 32, 32, 3)), network.model.get_weights()
    explain = network.explainer(method, samples=1)
    own = explain(picture, 1)
    other = network.explainer(method, samples=1, weights=[weight / 2 for weight in before])
    assert other is explain and not np.allclose(other(picture, 1), own)
    assert all((a == b).all() for a, b in zip(before, network.model.get_weights(), strict=True))
    np.testing.assert_array_equal(network.explainer(method, samples=1)(picture, 1), own)


def test_of_a_score_near_nothing_no_share_arrives_and_the_account_ends_at_the_pixels(found, monkeypatch):
    scores = found.scores.sort_index().loc["VGG16", "gradient x input"]
    handed = found.handed_down["VGG16"]["gradient x input"]
    sure = np.abs(handed["score"]) >= ways.LEAST_SCORE
    assert (scores["arriving"].notna() == sure).all()
    monkeypatch.setattr(ways, "LEAST_SCORE", 0.0)
    at_pixels = found.account.loc["VGG16", "gradient x input"].iloc[-1]
    assert at_pixels["left"] == pytest.approx(np.median(handed["left"][-1])) and at_pixels["n"] == 4
    assert list(found.account.loc["VGG16", "gradient x input"].index) == ["probabilities", "conv"]


def test_maps_are_followed_stage_by_stage_or_at_head_and_end_alone(found):
    assert list(found.likeness.loc["VGG16", "saliency"].index) == ["trained", "last layer", "head"]
    trained_maps = found.likeness.xs("trained", level="stage").dropna()  # where not all are empty
    assert len(trained_maps) >= 8
    np.testing.assert_allclose(trained_maps, 1)
    assert list(found.likeness.loc[GAP, "CAM"].index) == ["trained", "head"], "of the toy, whose head is all of it"


def test_a_chapter_is_drawn_from_its_units_without_a_network(several, tested, found):  # noqa: F811
    first = repr(recorded(found))
    n_units = len(found.units)
    for network in several.explained.values():
        del network.trained.model
    again = ways.measure(several, tested, ASKED, budget=BUDGET, seed=0)
    assert repr(recorded(again)) == first and len(again.units) == n_units
    assert n_units == 2 * (2 + 4 + 4 * BUDGET.redraws) + (2 + 2 + 2 * BUDGET.redraws)


def test_tables_have_a_row_for_each_map_and_at_most_seven_columns(found):
    table = ways.table(recorded(found), "VGG16")
    assert list(table.index[:4]) == ["Grad-CAM", "saliency", "guided backpropagation", "gradient x input"]
    assert list(table) == list(ways.TABLE) and table.loc["Sobel", "redrawn":].isna().all()


def test_methods_are_listed_by_their_whole_interval(found):
    record = recorded(found)
    of_network = record["methods"]["VGG16"]
    for method, interval in {"saliency": (0.51, 0.9), "guided backpropagation": (0.4, 0.9)}.items():
        of_network[method]["head_redrawn"] = replace(of_network[method]["head_redrawn"], value=0.6, ci=interval)
    listed = ways_conclusions.listed(record)["hardly_sees_the_head"]["VGG16"]
    assert "saliency" in listed and "guided" not in listed


def test_every_claim_of_the_chapter_has_an_answer(found):
    record = recorded(found)
    made = ways_conclusions.claims(record)
    answers = [claims.answer(claim, {"explanations": record}) for claim in made]
    names = [claim.name for claim in made]
    assert len(set(names)) == len(names) == 2 * (3 + 1 + 1 + 1 + 1) + 1
    assert all(answer.sentence for answer in answers)


def test_data_without_truth_leave_out_what_needs_it(several, tested):  # noqa: F811
    nothing = {"twins_nhwc": None, "ndufb8_vdac1": None, "has_truth": False, "depends": {"truth": None}}
    bare = {
        name: replace(
            held_out, fibres_nyx=0 * held_out.fibres_nyx, deficient=[np.array([], int)] * len(held_out), **nothing
        )
        for name, held_out in tested.items()
    }
    record = recorded(ways.measure(several, bare, ASKED, budget=BUDGET, seed=0))
    assert list(ways.table(record, "VGG16")) == ["removal", "redrawn", "other", "arrives"]
    blunt = ways.measure(several, bare, methods.methods_named(("saliency",)), budget=BUDGET, seed=0)
    assert blunt.account.empty and list(ways.table(recorded(blunt), GAP)) == ["removal", "redrawn", "other"]
    text = [claims.answer(each, {"explanations": record}).sentence for each in ways_conclusions.claims(record)]
    assert text and not any("fibres" in sentence for sentence in text)


def test_of_a_network_whose_biases_are_zero_the_whole_score_arrives(found):
    handed = found.handed_down["VGG16"]["gradient x input"]
    assert handed["layers"] == ["probabilities", "conv"] and handed["left"].shape == (2, 4)
    np.testing.assert_allclose(handed["left"], 1, rtol=1e-3)


def test_the_network_of_one_dense_is_a_unit_and_the_regression_on_the_means(rng, tmp_path, monkeypatch):
    def backbone(*, include_top: bool, weights: None, input_shape: tuple[int, int, int]) -> keras.Model:
        x = keras.Input(input_shape)
        pooled = keras.layers.AveragePooling2D(32, name="pool")(x)
        return keras.Model(x, keras.layers.Conv2D(4, 1, activation="relu", name="last")(pooled))

    monkeypatch.setattr(bank, "FOLDER", tmp_path)
    monkeypatch.setitem(architectures.BACKBONES, "VGG16", (backbone, "last"))
    monkeypatch.setitem(methods.LAYERS, "VGG16", "last")
    monkeypatch.setattr(weights, "resolve", lambda name: weights.Weights(name, "random", None, None, None))
    table = pd.DataFrame({"label": ["control", "patient"] * 8, "subject": list("ABCDEFGH") * 2, "y": 0, "x": 0})
    table["split"], table["section"] = ["train"] * 10 + ["test"] * 6, table["subject"]
    patches_nhwc = rng.integers(0, 256, (16, 224, 224, 1), np.uint8)
    task, profile = transfer.Task(table, patches_nhwc, EXP1, "pictures"), settings.PROFILES["smoke"]
    head = ways.train_mean_head(task, profile=profile)
    p_patient = head.model(np.repeat(patches_nhwc[10:] / 255, 3, -1))[:, 1]
    np.testing.assert_allclose(head.p_patient, p_patient, atol=1e-3)  # the bank holds half precision
    again = ways.train_mean_head(task, profile=profile)
    assert again.key == head.key and 0 <= again.scores["balanced_accuracy"] <= 1
