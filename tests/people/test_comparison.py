"""The steps of the chapter, one after the other, on a small cohort of one's own and features that tell the classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mitolib import claims, own_data, people, settings
from mitolib.people import comparison, evaluation, material, protocols, twins

PATCH = {"patch_px": 96, "stride_px": 64}
N_PEOPLE = 6


@pytest.fixture(autouse=True)
def no_units(tmp_path, monkeypatch):
    monkeypatch.setenv("MITOLIB_UNITS", str(tmp_path / "units"))


@pytest.fixture
def cohort_of_ones_own(make_cohort) -> own_data.Data:
    """Three people of each class and three patches of each, of two proteins; nothing that fibres are outlined on."""
    classes = {"Control": ["A", "B", "C"], "Patient": ["D", "E", "F"]}
    root: Path = make_cohort(classes, ("COX4", "VDAC1"), (96, 224))
    return own_data.read("patient_level", root, own=True, protein="COX4", **PATCH)


def features_of(chapter: material.Material, rng: np.random.Generator) -> dict[str, material.Features]:
    """Maps of two channels that hold a patch's class."""
    patches = chapter["exp1"]
    maps_nhwc = patches.taught[:, None, None, None] + 0.3 * rng.standard_normal((len(patches.rows), 7, 7, 2))
    maps_nhwc = maps_nhwc.astype(np.float16)
    augmentation = material.Augmentation(views=1, zoom=(0.8, 1.2), seed=0)
    return {
        name: material.Features(
            name,
            patches,
            "weights",
            lambda: maps_nhwc,
            augmentation,
            lambda: lambda rows, before: maps_nhwc[rows],
            is_untrained=name == "ResNet50",
        )
        for name in ("VGG16", "ResNet50")
    }


def train(chapter: material.Material, features: dict[str, material.Features]) -> people.training.Trained:
    smoke = settings.PROFILES["smoke"]
    budget = replace(people.BUDGETS["smoke"], steps=2, curve=(2,), longest=0.3, n_seeds=2, shuffles=3, head_shuffles=1)
    return people.train(chapter, features, profile=smoke, budget=budget)


def test_patches_of_ones_own_have_no_twins_and_say_so(cohort_of_ones_own):
    chapter = people.prepare(cohort_of_ones_own, {})
    patches = chapter["exp1"]
    assert list(chapter.experiments) == ["exp1"] and chapter.proteins == ["COX4"] and chapter.twin_kinds == []
    assert len(patches.rows) == len(patches.themselves) == 3 * N_PEOPLE
    assert patches.pixels_nhwc[""].shape == (3 * N_PEOPLE, 224, 224, 1) and patches.brightness.shape == (18, 1)
    assert chapter.people["subject"].tolist() == list("ABCDEF")
    assert "Left out" in chapter.twins()._repr_markdown_()
    assert set(patches.folds) | set(patches.refused) == set(protocols.SPLITS)
    assert all(split in chapter.refusals() for split in patches.refused)
    assert chapter.counts().loc["exp1", "patches"] == 18
    table = chapter.splits().data
    assert table.loc[("exp1", protocols.UNSEEN), "folds"] == 3
    assert table.loc[("exp1", protocols.ALL_PAIRS), "folds"] == 9


def test_a_twin_s_pixels_are_read_from_its_own_section_and_only_deficient_classes_differ(cohort_of_ones_own):
    inverted = {
        kind: [
            replace(section, channels={"COX4": section.channels["VDAC1"]}) for section in cohort_of_ones_own.sections
        ]
        for kind in ("cured", "afflicted")
    }
    patches = people.prepare(cohort_of_ones_own, inverted)["exp1"]
    assert [len(pixels) for pixels in patches.pixels_nhwc.values()] == [18, 9, 9]
    assert patches.taught.tolist() == [0] * 9 + [1] * 9 + [0] * 9 + [1] * 9
    assert patches.truth.tolist() == [0] * 9 + [1] * 9 + [1] * 9 + [0] * 9
    assert (patches.pixels_nhwc["cured"] != patches.pixels_nhwc[""][9:]).any()
    assert all(len(fold) == 36 for folds in patches.folds_with_twins().values() for fold in folds)


def test_every_step_of_the_chapter_runs_on_data_of_ones_own(cohort_of_ones_own, rng, light_head):
    chapter = people.prepare(cohort_of_ones_own, {})
    trained = train(chapter, features_of(chapter, rng))
    result = people.evaluate(trained.by_splits, rng=rng)
    models = ["majority", "mean COX4", "VGG16 features, logistic", "VGG16 head"]
    assert list(dict.fromkeys(entry["model"] for entry in result.entries)) == models
    by_model = result.by_model()
    assert by_model["VGG16-features-logistic"][evaluation.UNSEEN]["balanced_accuracy"] == 1, "the features tell"
    assert by_model["majority"][evaluation.UNSEEN]["balanced_accuracy"] == 0.5
    effects = people.twin_effects(result)
    assert effects.effects == {}
    heads = {entry["split"]: entry for entry in result.entries if entry["model"] == "VGG16 head"}
    assert set(heads) == set(comparison.OF_HEADS) & set(chapter["exp1"].folds), "not in every pair of people"
    assert set(heads[protocols.UNSEEN]["seeds"]) == {"127", "128"} and heads[protocols.UNSEEN]["trainings"] == 2 * 3

    untrained = people.evaluate(trained.untrained, rng=rng)
    assert {entry["model"] for entry in untrained.entries} == {"ResNet50 head, untrained backbone"}
    assert all(entry["seeds"] == {} for entry in untrained.entries), "one seed"
    curve = trained.curve(rng=rng)
    assert {(entry["split"], entry["steps"]) for entry in curve.entries} >= {(protocols.UNSEEN, 2)}
    assert trained.budget["VGG16"] == {"steps": 2, "batch_size": 2, "views": 1, "seeds": 2}

    shuffled = trained.shuffled_labels()
    assert {entry["split"] for entry in shuffled.entries} | set(shuffled.refused) == set(chapter["exp1"].folds)
    assert all(0.45 <= entry["agreement"] <= 0.55 for entry in shuffled.entries)
    assert trained.shuffled_labels() == shuffled, "asked again it says the same"
    probe = trained.subject_probe()
    assert set(probe.entries) <= {
        f"{network}, {split}" for network in ("VGG16", "ResNet50") for split in (protocols.SEEN, protocols.NO_OVERLAP)
    }

    bootstrap = np.random.default_rng(0)
    fibres = people.by_fibres(chapter, rng=bootstrap)
    assert fibres.entries == [] and own_data.FIBRES in fibres.remark
    pictures = people.evaluate(trained.by_pictures, rng=bootstrap)
    names = ["patches", comparison.THRESHOLDED, "patches, centred by section", "sections"]
    assert list(dict.fromkeys(entry["model"] for entry in pictures.entries)) == names
    assert pictures.by_model()["sections"][evaluation.UNSEEN]["subjects_right"] == N_PEOPLE
    honest = fibres + pictures
    assert honest.entries == pictures.entries

    ranking = people.ranked(result + pictures, fibres, untrained, rng=bootstrap)
    assert {ranking.best, *ranking.order} == {*models[1:], *names}
    persons, differences = result.persons(chapter.fibres), result.between_splits(rng=bootstrap)
    assert chapter.fibres.shares.empty and persons.table()["class"].tolist() == ["control"] * 3 + ["patient"] * 3
    shares = chapter.fibres.shares
    outcome = {
        "chapter": "patient_level",
        "collapsed": result.collapsed(),
        "leak": people.leakage(chapter).entries,
        "curve": curve.record(),
        "table": result.entries,
        "difference": differences.by_name(),
        "honest": honest.entries,
        "ranking": ranking.record(),
        "controls": {
            "permuted_means": shuffled.means(),
            "subject_probe": probe.entries,
            "untrained": untrained.entries,
        },
        "twin_pictures": chapter.twin_pictures(None).record(),
        "twins": effects.people(),
        "carried": effects.contributions(),
        "fall_by_share": effects.correlations(shares),
        "held_out": persons.record(),
        "n_controls": 3,
        "controls_needed": 160,
        "by_model": (result + honest).by_model(),
    }
    outcome = json.loads(json.dumps(outcome))  # as a results file holds it
    found = claims.conclusions(people.claims(outcome), outcome)
    assert {"VGG16-head-longer-training-pays-paired-folds", "the-people-are-too-few"} <= set(found)
    assert not any("cure" in name or "twin" in name for name in found), "what the data do not allow"
    assert all(claim.verdict in ("holds", "does not hold", "open") for claim in found.values())


def test_twins_of_those_who_train_are_added_where_there_are_twins(cohort_of_ones_own, rng):
    sections = cohort_of_ones_own.sections
    chapter = people.prepare(cohort_of_ones_own, {"cured": sections, "afflicted": sections})
    asked = evaluation.ask(comparison.by_pictures(chapter, features_of(chapter, rng)))
    pictures = people.evaluate(asked, rng=rng)
    names = [entry["model"] for entry in pictures.entries]
    assert list(dict.fromkeys(names))[4:] == ["patches, with twins", "sections, with twins"]
    assert set(pictures.predictions) == set(names)
    assert all((by_split[evaluation.UNSEEN]["twin"] == "").all() for by_split in pictures.predictions.values())
    people_twice = twins.with_twins(chapter.people, chapter.twin_kinds)
    assert len(people_twice) == 2 * N_PEOPLE


def test_features_are_centred_and_scaled_within_their_group_and_a_lone_row_is_zero(rng):
    features = rng.normal(5, 3, (9, 2))
    sections, twins = pd.Series(list("AAAABBBBC")), pd.Series([""] * 8 + ["cured"])
    found = comparison.centred(features, [sections, twins])
    for group in (slice(0, 4), slice(4, 8)):
        np.testing.assert_allclose(found[group].mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(found[group].std(axis=0, ddof=1), 1, rtol=1e-5)
    assert (found[8] == 0).all()
