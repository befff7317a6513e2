"""The fits of the units on toys, pinned: a change of one of these numbers asks for another PROTOCOL of its module."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from toy_maps import toy_maps

from mitolib.cohort import Section
from mitolib.own_data import LeftOut
from mitolib.prototypes import asking, chapter, checks, fits, taxonomy, tree_fits
from mitolib.prototypes.annotation import Masks
from mitolib.prototypes.asking import UNSEEN
from mitolib.prototypes.budget import BUDGETS
from mitolib.prototypes.fits import PLAIN, QUOTA, TOP_K, Study
from mitolib.prototypes.tree_fits import KNOWN, NOVEL, SEEN, TreeStudy
from mitolib.prototypes.turned import with_turned_views

pytestmark = pytest.mark.usefixtures("one_torch_thread")
PINNED = {  # of few epochs where a value would be another on another processor, once rounding has grown
    "p": [0.81, 0.575, 0.305, 0.935],
    "p_before": [0.535, 0.436, 0.304, 0.764],
    "loss": [1.889, 1.520, 0.503],
    "map": [121, 255, 217, 123, 0, 210],
}
BUDGET = replace(BUDGETS["smoke"], side=3, epochs=15, cycles=2, depth=8, per_child=2)


def down_to_the_map(picture_nhwc, relevance):
    """A way down that ends where it starts."""
    return SimpleNamespace(pixels_nhwc=relevance)


def walk(propagation):
    """As `prototypes.maps.Features.walk` has it."""
    return None if isinstance(propagation, LeftOut) else propagation


def fold(table: pd.DataFrame, *tested: str) -> pd.Series:
    return table["subject"].isin(tested).map({True: "test", False: "train"})


@pytest.fixture(scope="module")
def study() -> Study:
    maps, _ = toy_maps()
    features = SimpleNamespace(table=maps.table, pooled=maps, at=lambda side: maps, walk=walk)
    published = pd.Series(np.where(np.arange(24) < 16, "train", "test"))
    unseen = [fold(maps.table, "C0", "P1"), fold(maps.table, "C1", "P0")]
    mask = np.zeros((600 * 24, 512), bool)
    mask[:, 180:330] = True
    masks = Masks(lambda section: mask, lambda section: mask)
    return Study(features, {"published": [published], UNSEEN: unseen}, "published", [], masks, BUDGET, 3)


def test_a_model_answers_in_every_fold_with_prototypes_of_those_who_train(study):
    found = {model: fits.of_split(study, model, UNSEEN, [0, 1], seed=3) for model in (PLAIN, TOP_K, QUOTA)}
    tested = {(0, subject) for subject in ("C0", "P1")} | {(1, subject) for subject in ("C1", "P0")}
    for of_model in found.values():
        whose = study.table["subject"].to_numpy()[of_model["row"]]
        assert set(zip(of_model["fold"].tolist(), whose, strict=True)) == tested
        for number, sources in enumerate(of_model["sources"]):
            assert not {(number, source["subject"]) for source in sources} & tested
        assert all(of_model[name].dtype == np.float32 for name in ("p", "p_before", "p_free"))


def test_a_short_training_answers_as_it_did(study):
    short = replace(study, budget=replace(BUDGET, epochs=4))
    found = fits.of_split(short, PLAIN, UNSEEN, [0], seed=3)
    np.testing.assert_allclose(found["p_before"][:4], PINNED["p_before"], atol=0.04)
    np.testing.assert_allclose(found["p"][:4], PINNED["p"], atol=0.05)


def test_the_shown_network_is_described_by_what_the_page_needs(study):
    found = fits.shown_network(study, 3)
    assert found["activations"].shape == (8, 4) and found["weights_of_classes"].shape == (2, 4)
    assert found["example_maps"].shape == (9, 4) and study.labels[16 + found["example"]] == 1
    near = pd.DataFrame(found["nearest"])
    assert (near.groupby("prototype").size() == 10).all() and set(near["subject"]) <= set(study.table["subject"][16:])
    np.testing.assert_allclose([found["loss"][epoch] for epoch in (0, 14, 29)], PINNED["loss"], atol=0.05)


def test_masks_are_those_of_the_people_drawn_and_precision_is_of_people_not_seen(study):
    def score(maps_nhw, masks_nyx):
        return pd.DataFrame({"top5": [float(map_yx[1].mean()) for map_yx in maps_nhw]})

    tools = SimpleNamespace(score=score)
    arms = {share: fits.fine(study, tools, k=1, annotated=share, fold=0, split=UNSEEN, seed=3) for share in (0.0, 1.0)}
    assert arms[0.0]["annotated_subjects"] == [] and arms[1.0]["annotated_subjects"] == ["C1", "C2", "P0", "P2"]
    assert set(study.table["subject"][arms[1.0]["mask_row"]]) == {"P1"}, "controls have no deficient fibre to point at"
    assert len(arms[1.0]["precision"]) == len(arms[1.0]["chance"]) == 4
    assert arms[1.0]["chance"] == pytest.approx(150 / 512, abs=0.01)
    assert not np.array_equal(arms[0.0]["p"], arms[1.0]["p"])


def test_turned_views_train_with_masks_that_follow_and_give_no_prototypes(study):
    """The toy's pictures are its masks: a view is then relevant where its picture is bright."""
    maps = study.features.at(3)
    pixels = np.zeros((24, 48, 48, 1), np.uint8)
    pixels[study.labels == 1, :, 17:31] = 255
    seen = []

    def of_pictures(pictures_nhwc, side):
        seen.append(pictures_nhwc)
        return type(maps)(maps.table.iloc[: len(pictures_nhwc)], maps.values[: len(pictures_nhwc)])

    def windows(table, size_px):
        return pixels[table["y"] // 600, ..., 0], np.ones(len(table), bool)

    features = SimpleNamespace(**vars(study.features), pixels_nhwc=pixels, of_pictures=of_pictures)
    masks = SimpleNamespace(windows=windows, annotation=study.masks.annotation)
    with_pixels = replace(study, features=features, masks=masks)
    rows = np.arange(1, 24, 2)
    both, annotation, labels = with_turned_views(with_pixels, maps, study.annotation, rows, seed=3)
    assert len(both.table) == 36 and labels.tolist() == [*study.labels, *[1] * 12]
    views = seen[0][..., 0]
    assert not np.array_equal(views, pixels[rows, ..., 0]) and np.array_equal(pixels[rows, 0, 20, 0], [255] * 12)
    bright = 1 - views.reshape(12, 3, 16, 3, 16).mean(axis=(2, 4)).reshape(12, -1) / 255
    np.testing.assert_allclose(annotation.irrelevant[24:], bright, atol=0.05)
    found = study.train(both, np.arange(36), seed=3, annotation=annotation, labels=labels, shown=np.arange(16))
    assert (found.pushed.sources["row"] < 16).all()


def test_maps_of_the_network_stand_beside_maps_that_know_none(study):
    def score(maps_nhw, masks_nyx):
        return pd.DataFrame({"auprc": maps_nhw.max(axis=(1, 2))})

    def baselines(patches_nhwc, markers, *, rng):
        return {"random": rng.random((2, 6, 6)), "brightness": np.ones((2, 6, 6))}

    tools = SimpleNamespace(score=score, baselines=baselines, propagation=down_to_the_map)
    held_out = SimpleNamespace(rows=study.table.iloc[[17, 19]], patches_nhwc=np.zeros((2, 1)), ndufb8_vdac1=None)
    held_out.has_truth, held_out.masks_nyx = True, np.ones((2, 8, 8), bool)
    found = fits.explained(study, tools, held_out, seed=3)
    of_network = ["prototypes", "best prototype", "PRP", "Grad-CAM", "logistic CAM"]
    assert found["methods"] == [*of_network, "random", "brightness"] and found["prp_arrived"] == pytest.approx([1, 1])
    scores = found["localisation"][..., 0]
    assert scores.shape == (7, 2) and (scores[5] == 1).all(), "random numbers are scored as a constant map"
    assert (scores >= 0).all() and np.isfinite(scores).all()
    assert "removal" not in found, "where no patch is altered nothing is removed"
    tools.propagation = LeftOut("relevance, in this test.")
    without = fits.explained(study, tools, held_out, seed=3)
    assert without["methods"] == [method for method in found["methods"] if method != "PRP"]
    assert without["prp_arrived"] == []


@pytest.fixture(scope="module")
def trees(study) -> TreeStudy:
    people = pd.DataFrame({"subject": ["C0", "C1", "C2", "P0", "P1", "P2", "P3", "P4", "P5"]})
    people["label"] = ["control"] * 3 + ["patient"] * 6
    people["group"] = [""] * 3 + ["a"] * 3 + ["b"] * 2 + ["c"]
    maps, _ = toy_maps(36)
    table = maps.table.assign(subject=people["subject"].to_numpy()[np.arange(36) % 9], y=600 * np.arange(36))
    table = table.assign(section=table["subject"], label=table["subject"].str[0].map({"C": "control", "P": "patient"}))
    features = SimpleNamespace(table=table, pooled=type(maps)(table, maps.values))
    split = pd.Series(np.where(np.arange(36) < 27, "train", "test"))
    tree = taxonomy.tree_of(people, ("label", "group"))
    return TreeStudy(replace(study, features=features, folds={"published": [split]}), tree, tree)


def test_a_tree_is_asked_at_every_node_about_every_tested_patch(trees):
    found = fits_of(tree_fits.conditional(trees, "published", [0], seed=3))
    assert set(found["row"]) == set(range(27, 36)) and found.groupby("node").size().tolist() == [9, 9]
    below = found[found["node"] == 1]
    assert (below["target"] >= 0).sum() == 6 and below["predicted"].between(0, 2).all()


def fits_of(found) -> pd.DataFrame:
    return tree_fits.summary_of([found])


def test_people_left_out_together_are_of_every_child_that_has_one_to_spare(trees):
    folds = trees.unseen_folds()
    assert len(folds) == 6 and all({s[0] for s in fold} == {"C", "P"} and len(fold) == 3 for fold in folds)
    assert not any("P5" in fold for fold in folds), "the only person of its group always trains"
    found = fits_of(tree_fits.conditional(trees, "unseen", [1], seed=3))
    assert set(trees.study.table["subject"][found["row"]]) == set(folds[1])


def test_a_novel_genotype_is_held_against_a_person_not_seen_of_a_known_one(trees):
    assert trees.novel() == {"b": ("patient", ["P0"]), "c": ("patient", ["P0"])}
    with_third = TreeStudy(trees.study, trees.tree, trees.coarse)
    found = tree_fits.novel_genotype(with_third, "c", seed=3)
    whose = trees.study.table["subject"].to_numpy()[found["row"]]
    by_kind = {kind: set(whose[found["kind"] == kind]) for kind in (NOVEL, KNOWN, SEEN)}
    assert by_kind[NOVEL] == {"P5"} and by_kind[KNOWN] == {"P0"} and by_kind[SEEN] <= {"P1", "P2", "P3", "P4"}
    assert found["scores"].shape == (len(whose), 3) and np.isfinite(found["scores"]).all()


def test_folds_of_people_not_seen_test_every_patient_before_one_again(study):
    table = pd.DataFrame({"subject": ["C0", "C1", "P0", "P1", "P2"]})
    folds = [fold(table, c, p) for c in ("C0", "C1") for p in ("P0", "P1", "P2")]
    many = SimpleNamespace(table=table, folds={UNSEEN: folds})
    chosen = asking.spread_folds(many, 3)
    tested = [set(table["subject"][folds[i] == "test"]) for i in chosen]
    assert {s for pair in tested for s in pair} == {"C0", "C1", "P0", "P1", "P2"}


def test_the_splits_of_data_of_ones_own_are_by_person(study):
    data = SimpleNamespace(is_phantom=False)
    table = study.table.assign(split=study.folds["published"][0])
    found = chapter.splits_of(data, table, {UNSEEN: study.folds[UNSEEN]}, replace(BUDGET, folds=1))
    assert list(found) == ["by person", UNSEEN] and len(found[UNSEEN]) == 1


def test_a_tree_without_columns_is_left_out_with_the_reason(study):
    sections = [Section(name, name, label, 600, 600, {}) for name, label in (("C0", "control"), ("P0", "patient"))]
    found = chapter.tree_of(SimpleNamespace(sections=sections), study, taxonomy.COLUMNS)
    assert isinstance(found, LeftOut) and "cohort.csv" in str(found)


def test_annotated_sections_are_counted_by_class_and_without_masks_it_is_said_so(study):
    counted = chapter.masked_sentence(study.masks, study.table)
    assert counted == "Annotated are 3 of 3 sections of controls and 3 of 3 sections of patients."
    assert "no folder of masks" in chapter.masked_sentence(None, study.table)


def cells(maps_nhw: np.ndarray) -> np.ndarray:
    return maps_nhw / np.maximum(maps_nhw.max(axis=(1, 2), keepdims=True), 1e-9)


def test_what_is_checked_of_maps_needs_neither_truth_nor_pixels(study):
    maps = study.features.at(3)
    held_out = SimpleNamespace(rows=study.table.iloc[[17, 19]], twins_nhwc=None, patches_nhwc=np.zeros((2, 1)))
    tools = SimpleNamespace(cells=cells)
    tools.propagation = down_to_the_map
    found = checks.trained_maps(study, tools, held_out, seed=3)
    assert all(found[f"map of {method}"].max(axis=(1, 2)).tolist() == [255, 255] for method in checks.METHODS[:3])
    np.testing.assert_allclose(found["map of prototypes"][0][:2].ravel(), PINNED["map"], atol=8)
    assert found["inside"][:, 0] == pytest.approx(1), "at the last map all relevance lies in the winning cell"
    assert found["area"][:, 0] == pytest.approx(1 / 9) and "effect" not in found
    tools.propagation = LeftOut("relevance, in this test.")
    without = checks.trained_maps(study, tools, held_out, seed=3)
    assert without.keys() == {f"map of {method}" for method in checks.METHODS if method != "PRP"}
    tools.propagation = down_to_the_map
    of_pictures = type(maps)(maps.table.iloc[:2], maps.values[[17, 19]])
    features = SimpleNamespace(**vars(study.features), of_pictures=lambda pictures_nhwc, side: of_pictures)
    again = replace(study, features=features)
    heads = [checks.redrawn_maps(again, tools, held_out, drawn=checks.HEAD, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(heads[0]["map of PRP"], heads[1]["map of PRP"])
    assert not np.array_equal(heads[0]["map of prototypes"], heads[2]["map of prototypes"])


def test_fibres_cured_are_held_against_every_map_of_the_network(study):
    held_out = SimpleNamespace(rows=study.table.iloc[[17, 19]], patches_nhwc=np.zeros((2, 1)), fibres_nyx=None)
    held_out.twins_nhwc, held_out.deficient, held_out.first = np.ones((2, 1)), None, lambda n: Altered(held_out, n)

    def restore(evidence, patches_nhwc, twins_nhwc, fibres_nyx, deficient, *, most):
        return pd.DataFrame({"patch": [0] * most, "fibre": range(most), "effect": 0.5})

    tools = SimpleNamespace(cells=cells)
    tools.restore, tools.propagation = restore, down_to_the_map
    tools.over_fibres = lambda maps_nhw, fibres_nyx, fibres: np.full(len(fibres), len(maps_nhw))
    found = checks.trained_maps(study, tools, held_out, seed=3)
    assert found["effect"].tolist() == [0.5] * BUDGET.fibres
    assert found["relevance"].shape == (4, BUDGET.fibres) and (found["relevance"] == BUDGET.restored).all()


class Altered(SimpleNamespace):
    """The first patches, as `saliency.truth.HeldOutPatches.first` gives them."""

    def __init__(self, held_out, n: int) -> None:
        super().__init__(**vars(held_out), n=n)

    def __len__(self) -> int:
        return self.n


def test_shares_of_relevance_are_those_of_the_pixels_in_a_square():
    similar = np.zeros((1, 49, 1))
    similar[0, 24] = 1  # the middle of 7 x 7
    relevance = np.ones((1, 224, 224))
    found = checks.shares_in_squares(relevance, similar, np.array([0]))
    assert found["inside"] == pytest.approx(found["area"], abs=1e-6), "evenly spread: as much as the square covers"
    assert found["area"][0, :3] == pytest.approx([1 / 49, (110 / 512) ** 2, (196 / 224) ** 2], abs=1e-6)
    relevance[:] = 0
    relevance[0, 100:112, 100:112] = 1
    assert checks.shares_in_squares(relevance, similar, np.array([0]))["inside"][0, 0] == pytest.approx(1)
    similar[0, 24], similar[0, 0] = 0, 1
    at_corner = checks.shares_in_squares(relevance, similar, np.array([0]))
    assert at_corner["inside"][0, 0] == 0 and at_corner["area"][0, 2] == pytest.approx((16 + 98) ** 2 / 224**2)
