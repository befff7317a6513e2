"""What the chapter keeps: units that are found again without features, and that come out as when they were declared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mitolib import cohort, people, settings, units
from mitolib.people import comparison, controls, evaluation, material, protocols, training
from mitolib.people.material import Augmentation, Features, Material, Patches
from mitolib.people.twins import with_twins
from mitolib.study import EXP1

SMOKE = settings.PROFILES["smoke"]
BUDGET = replace(people.BUDGETS["smoke"], steps=2, curve=(2,), longest=0.5, n_seeds=2, shuffles=2, head_shuffles=2)
PROFILE = replace(SMOKE, seed=3, epochs=1)
FOLDS = {"published": 1, "no-overlap": 1, "paired-folds": 4}  # of a head, each with each seed a unit


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """An empty one, and pictures whose digest is known without a file."""
    monkeypatch.setenv("MITOLIB_UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(units, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(units, "_n_asked", 0)
    monkeypatch.delenv("MITOLIB_SHARE", raising=False)
    monkeypatch.setattr(cohort, "digest", lambda sections, proteins: f"{sections} {proteins}")


def chapter(twins: str = "twins", names: str = "ABCDEFGH") -> Material:
    """Four people of each class with seven patches each, which allow all splits, and their twins."""
    subjects = np.repeat(list(names), 7)
    table = pd.DataFrame({"section": subjects, "subject": subjects, "y": np.tile(np.arange(7) * 256, 8), "x": 0})
    table = table.assign(size=512, label=np.repeat(["control", "patient"], 28))
    sections = {"": "themselves", "cured": twins, "afflicted": twins}
    patches = Patches(EXP1, with_twins(table), sections, *protocols.available(table, "exp1"))
    patches.__dict__["pixels_nhwc"] = {"": np.arange(112.0).reshape(112, 1, 1, 1)}  # of all rows, in place of pictures
    return Material(None, {"exp1": patches})


class Backbone:
    """Maps of two channels that tell the class, and a count of how often they were computed."""

    def __init__(self, patches: Patches) -> None:
        self.n_computed = 0
        noise = np.random.default_rng(1).standard_normal((len(patches.rows), 7, 7, 2))
        self.maps_nhwc = (patches.taught[:, None, None, None] + 0.3 * noise).astype(np.float16)

    def __call__(self) -> np.ndarray:
        self.n_computed += 1
        return self.maps_nhwc

    def drawn(self, rows: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Augmented: each copy a little brighter than the one before."""
        return self.maps_nhwc[rows] + np.float16(0.1) * before[:, None, None, None].astype(np.float16)


def asked(of: Material | None = None, weights: str = "ab12", **changed: object) -> tuple[training.Trained, Backbone]:
    """All that the chapter trains, on one network. changed: of the profile, of its budget or of the augmentation."""
    of = of or chapter()
    backbone = Backbone(of["exp1"])
    budget = {name: changed.pop(name) for name in list(changed) if hasattr(BUDGET, name)}
    profile = replace(PROFILE, **changed)
    augmentation = Augmentation(views=profile.views, zoom=profile.zoom, seed=profile.seed)
    features = Features("VGG16", of["exp1"], weights, backbone, augmentation, lambda: backbone.drawn)
    return people.train(of, {"VGG16": features}, profile=profile, budget=replace(BUDGET, **budget)), backbone


def scores(trained: training.Trained) -> list:
    rng = np.random.default_rng(0)
    evaluations = [people.evaluate(of, rng=rng) for of in (trained.by_splits, trained.by_pictures)]
    entries = [entry for of in evaluations for entry in of.entries]
    return [
        entries,
        trained.curve(rng=rng).record(),
        trained.shuffled_labels().entries,
        trained.subject_probe().entries,
    ]


@pytest.fixture
def keys(monkeypatch) -> Callable[..., dict[str, str]]:
    """What is asked for, by name and without computing it: name of the unit -> all that its result depends on."""

    def asked_for(of: Material | None = None, weights: str = "ab12", **changed: object) -> dict[str, str]:
        found = {}

        def each(fit: object, names: list[dict], *, depends: dict, made_by: object, **options: object) -> None:
            for name in names:
                found[json.dumps(name)] = json.dumps([made_by.PROTOCOL, depends])

        monkeypatch.setattr(units, "each", each)
        asked(of, weights, **changed)
        return found

    return asked_for


def shared(one: dict[str, str], other: dict[str, str]) -> list[dict]:
    """Names of the units that both would find."""
    return [json.loads(name) for name, key in one.items() if other.get(name) == key]


def test_a_run_that_finds_all_units_computes_no_features_and_says_the_same(light_head):
    first, computed = asked()
    said = scores(first)
    again, not_asked = asked()
    assert computed.n_computed == 1 and not_asked.n_computed == 0
    assert scores(again) == said and again.units == first.units
    names = [tuple(unit["unit"].items()) for unit in first.units]
    assert len(set(names)) == len(names) == len(list(units.cache().rglob("*.json")))


def test_answers_that_are_read_are_those_that_were_computed_to_the_last_bit(light_head):
    trained, _ = asked()
    for of in (trained.by_splits, trained.by_pictures):
        for name, trial in of.trials.items():
            for split, folds in trial.folds.items():
                if trial.seeds:
                    of_seeds = [
                        evaluation.out_of_fold(trial.make(seed=seed), trial.rows, folds).assign(seed=seed)
                        for seed in trial.seeds
                    ]
                    computed = pd.concat(of_seeds, ignore_index=True)
                else:
                    computed = evaluation.out_of_fold(trial.make(), trial.rows, folds)
                computed = computed[list(of.answers(name, split))]
                pd.testing.assert_frame_equal(of.answers(name, split), computed, check_dtype=False, rtol=0, atol=0)


def test_a_run_that_breaks_off_goes_on_with_what_it_lacks(light_head, monkeypatch):
    whole, _ = asked()
    wanted = scores(whole)
    for path in units.cache().rglob("*.*"):
        path.unlink()
    computed, compute = [], evaluation.answer

    def breaks(*given: object, **options: object) -> pd.DataFrame:
        if len(computed) == 7:
            raise KeyboardInterrupt
        computed.append(options.get("label"))
        return compute(*given, **options)

    monkeypatch.setattr(evaluation, "answer", breaks)
    with pytest.raises(KeyboardInterrupt):
        asked()
    kept = {path: path.stat().st_mtime_ns for path in units.cache().rglob("*.json")}
    assert len(kept) == 7
    monkeypatch.setattr(evaluation, "answer", compute)
    resumed, _ = asked()
    assert scores(resumed) == wanted
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_shares_part_the_units_and_end_before_the_first_is_used(light_head, monkeypatch):
    whole, _ = asked()
    n_units, wanted = len(whole.units), scores(whole)
    for path in units.cache().rglob("*.*"):
        path.unlink()
    n_kept = []
    for k in range(2):
        monkeypatch.setenv("MITOLIB_SHARE", f"{k}/2")
        monkeypatch.setattr(units, "_n_asked", 0)  # as in a process of its own
        trained, _ = asked()
        n_kept.append(len(list(units.cache().rglob("*.json"))))
        if k == 0:
            with pytest.raises(SystemExit):
                scores(trained)
    # The curve and the table ask for some units twice, which either share may then have.
    assert n_units / 3 < n_kept[0] < n_units and n_kept[1] == n_units
    monkeypatch.delenv("MITOLIB_SHARE")
    assert scores(asked()[0]) == wanted


def test_the_share_that_prepares_computes_features_and_no_unit(monkeypatch):
    monkeypatch.setenv("MITOLIB_SHARE", "2/2")
    _, backbone = asked()
    assert backbone.n_computed == 1 and not list(units.cache().rglob("*.*"))


def other_patches(patches: Patches, **changed: object) -> Patches:
    other = replace(patches, **changed)
    other.__dict__["pixels_nhwc"] = patches.pixels_nhwc
    return other


OTHER: dict[str, Callable[[], Material]] = {
    "grid": lambda: Material(None, {"exp1": other_patches(chapter()["exp1"], experiment=EXP1.adapted(patch_px=256))}),
    "protein": lambda: Material(
        None, {"exp1": other_patches(chapter()["exp1"], experiment=EXP1.adapted(proteins=["COX4"]))}
    ),
    "people": lambda: chapter(names="EFGHABCD"),
}


@pytest.mark.parametrize("change", OTHER)
def test_other_patches_are_other_units(change, keys):
    assert shared(keys(), keys(OTHER[change]())) == []


def test_other_weights_are_other_units(keys):
    assert shared(keys(), keys(weights="random, seed 3")) == []


CHANGES = [
    {"steps": 3, "curve": (), "longest": 1.0},
    {"batch_size": 4},
    {"learning_rate": 0.1},
    {"views": 2},
    {"zoom": (0.9, 1.1)},
    {"seed": 40},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_budget_of_a_head_is_no_matter_to_a_regression(change, keys):
    found = shared(keys(), keys(**change))
    assert {"VGG16 features, logistic"} == {name["model"] for name in found}
    assert "patches" in {name.get("trained_on") for name in found}


def of_heads(found: list[dict]) -> list[dict]:
    return [name for name in found if name["model"] == "VGG16 head"]


def test_each_fold_and_seed_of_a_head_is_a_unit_and_the_curve_shares_those_of_its_budget(keys):
    found = of_heads([json.loads(name) for name in keys()])
    dealt_anew = [name for name in found if "classes" in name]
    assert {(name["seed"], name["draw"]) for name in dealt_anew} == {(3, 0), (3, 1)}
    longest = max(name["steps"] for name in found)
    of_budget = [name for name in found if name["steps"] == 2 and "classes" not in name]
    assert len(of_budget) == 2 * sum(FOLDS.values()) and len({json.dumps(name) for name in of_budget}) == len(of_budget)
    assert sum(name["steps"] == longest for name in found) == 1 + 4 and longest > 2


def test_a_further_seed_recomputes_nothing(keys):
    one, other = keys(), keys(n_seeds=3)
    assert shared(one, other) == [json.loads(name) for name in one] and len(other) == len(one) + sum(FOLDS.values())


def test_a_further_draw_of_labels_is_no_matter_to_heads(keys):
    one = keys()
    assert len(of_heads(shared(one, keys(shuffles=3)))) == len(of_heads([json.loads(name) for name in one]))


def test_other_twins_are_of_matter_only_where_twins_are_tested_or_trained_on(keys):
    found = shared(keys(), keys(chapter(twins="twins drawn anew")))
    without = {None, "patches", comparison.THRESHOLDED, "patches, centred by section", "sections"}
    assert {name.get("trained_on") for name in found} == without
    assert all("trained_on" in name or name["classes"] in (controls.DEALT_ANEW, "the person") for name in found)


def test_features_and_pictures_are_not_read_for_their_names(monkeypatch):
    monkeypatch.setattr(material.bank, "Bank", None)
    monkeypatch.setattr(material.patches, "load", None)
    one = chapter()["exp1"]
    lazy = Patches(one.experiment, one.rows, one.sections, one.folds, one.refused)
    weights = {name: material.Weights(name, "random", None, None, None) for name in ("VGG16", "ResNet50")}
    features = people.features(Material(None, {"exp1": lazy}), weights, profile=replace(SMOKE, seed=5))
    assert list(features) == ["VGG16", "ResNet50"]
    assert features["VGG16"].depends(twins=True)["weights"] == "random, seed 5" and features["VGG16"].is_untrained


def test_every_kind_of_unit_comes_out_as_when_its_protocol_was_declared():
    """Where one does not, the method has changed: raise the PROTOCOL of its module, and pin what comes out now.

    The first and the last answer. Tolerance: 2e-3 of a probability, well above what processors differ by here.
    """
    assert evaluation.PROTOCOL == controls.PROTOCOL == 2
    trained, _ = asked(n_seeds=1, head_shuffles=1)
    kept = {
        "head": trained.by_splits.fits["VGG16 head"],
        "logistic": trained.by_splits.fits["VGG16 features, logistic"],
        "dealt anew": trained.shuffled.fits,
        "dealt anew, head": trained.shuffled.heads.fits["draw 0"],
    } | trained.by_pictures.fits
    ends = {name: [fits[0]["p"][[0, -1]] for fits in by_split.values()] for name, by_split in kept.items()}
    pinned = {
        "head": [[0.5464, 0.7782], [0.5506, 0.8087], [0.5422, 0.7939]],
        "logistic": [[0.1792, 0.8329], [0.1761, 0.8170], [0.1547, 0.1841], [0.1673, 0.8317], [0.1717, 0.8199]],
        "dealt anew": [[0.2937, 0.5022], [0.5058, 0.4962], [0.5801, 0.4313], [0.4963, 0.5078], [0.5079, 0.4946]],
        "dealt anew, head": [[0.5528, 0.8064]],
        "patches": [[0.1673, 0.8340], [0.1717, 0.8015]],
        comparison.THRESHOLDED: [[0.1720, 0.8395], [0.1760, 0.8013]],
        "patches, centred by section": [[0.5, 0.5], [0.5, 0.5]],
        "sections": [[0.3902, 0.6119], [0.3829, 0.6101]],
        "patches, with twins": [[0.1047, 0.8957], [0.1122, 0.8640]],
        "sections, with twins": [[0.3222, 0.6804], [0.3141, 0.6767]],
    }
    assert ends.keys() == pinned.keys()
    for name, wanted in pinned.items():
        np.testing.assert_allclose(ends[name], wanted, atol=2e-3, err_msg=name)
    probed = trained.subject_probe().entries
    assert probed["VGG16, published"]["accuracy"]["value"] == pytest.approx(1 / 6)
    assert probed["VGG16, no-overlap"]["accuracy"]["value"] == 0.25
