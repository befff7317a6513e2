"""How people differ, and the control who never was."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mitolib import settings
from mitolib.phantom import between_people

COHORT = json.loads(settings.CALIBRATION.read_text())
CONTROLS = ("C01", "C02", "C03")


def subject(name: str) -> dict:
    return next(s for s in COHORT["subjects"] if s["subject"] == name)


def log_level(name: str) -> np.ndarray:
    return np.log(np.expm1(subject(name)["classes"]["none"]["log_mean"]))


@pytest.fixture(scope="module")
def model() -> between_people.BetweenPeople:
    return between_people.fit(COHORT)


def test_the_levels_of_c04_are_drawn_by_the_seed_that_stands_beside_them(model):
    c04 = subject("C04")
    drawn = between_people.draw_control(model, seed=c04["levels_drawn"]["seed"])
    assert drawn == {"log_mean": c04["classes"]["none"]["log_mean"], "log_cov": c04["log_cov"]}
    assert c04["levels_drawn"]["by"] == f"{between_people.__name__}.{between_people.draw_control.__name__}"
    assert [s["subject"] for s in COHORT["subjects"] if "levels_drawn" in s] == ["C04"]


def test_c04_is_nobody_else_and_no_stranger_among_controls(model):
    c04 = log_level("C04")
    assert all(np.abs(c04 - log_level(name)).max() > 0.1 for name in CONTROLS)
    of_controls = np.array([log_level(name) for name in CONTROLS])
    margin = 0.5 * np.sqrt(np.diag(model.between))
    assert ((of_controls.min(axis=0) - margin < c04) & (c04 < of_controls.max(axis=0) + margin)).all()
    ndufb8, mass = (COHORT["proteins"].index(protein) for protein in ("NDUFB8", "VDAC1"))
    deficient = [
        np.subtract(*np.log(np.expm1(group["log_mean"]))[[ndufb8, mass]])
        for s in COHORT["subjects"]
        for name, group in s["classes"].items()
        if "CI" in name.split("+")
    ]
    assert c04[ndufb8] - c04[mass] > max(deficient) + 0.5, "its normal fibres are no deficient ones"


def test_the_model_is_of_the_measured_people_with_normal_fibres(model):
    assert set(model.people) == {*CONTROLS, *(f"P{i:02}" for i in range(3, 11))}
    np.testing.assert_allclose(model.mean, np.mean([log_level(name) for name in CONTROLS], axis=0))
    without = {**COHORT, "subjects": [s for s in COHORT["subjects"] if s["subject"] not in ("C04", "P01", "P02")]}
    np.testing.assert_array_equal(between_people.fit(without).between, model.between)


def test_variances_are_pooled_within_controls_and_within_patients(model):
    groups = [np.array([log_level(name) for name in model.people if name[0] == letter]) for letter in "CP"]
    squares = sum(((group - group.mean(axis=0)) ** 2).sum(axis=0) for group in groups)
    np.testing.assert_allclose(np.diag(model.between), squares / (3 - 1 + 8 - 1))
    assert (np.linalg.eigvalsh(model.between) > 0).all()


def test_correlations_that_chance_explains_become_one_and_others_stay_apart(rng):
    one = rng.normal(size=(12, 1)) + 0.3 * rng.normal(size=(12, 6))
    correlation, weight = between_people.shrunk_correlation(one / one.std(axis=0), 12)
    assert weight > 0.5
    shrunk = correlation[~np.eye(6, dtype=bool)]
    assert shrunk.std() < np.corrcoef(one.T)[~np.eye(6, dtype=bool)].std()
    two = np.repeat(rng.normal(size=(400, 2)), 3, axis=1) + 0.3 * rng.normal(size=(400, 6))
    two = (two - two.mean(axis=0)) / two.std(axis=0)
    correlation, weight = between_people.shrunk_correlation(two, 400)
    assert weight < 0.05 and correlation[0, 1] > 0.8 and abs(correlation[0, 5]) < 0.2


def test_many_drawn_controls_have_the_mean_and_the_covariance_of_the_model(model):
    drawn = [between_people.draw_control(model, seed=seed)["log_mean"] for seed in range(3000)]
    levels = np.log(np.expm1(drawn))
    np.testing.assert_allclose(levels.mean(axis=0), model.mean, atol=0.04)
    np.testing.assert_allclose(np.cov(levels.T), model.between, atol=0.03)


def test_the_fibres_of_a_drawn_control_scatter_as_those_of_measured_ones(model):
    drawn = between_people.draw_control(model, seed=5)
    slope = 1 - np.exp(-np.array(drawn["log_mean"]))
    np.testing.assert_allclose(drawn["log_cov"] / np.outer(slope, slope), model.within, rtol=0.02, atol=1e-3)
    measured = [between_people.within(subject(name)) for name in CONTROLS]
    assert (model.within >= np.min(measured, axis=0)).all() and (model.within <= np.max(measured, axis=0)).all()


def test_too_few_people_are_refused():
    few = {**COHORT, "subjects": [s for s in COHORT["subjects"] if s["subject"] != "C01"][1:]}
    with pytest.raises(ValueError, match="'control': 1"):
        between_people.fit(few)
