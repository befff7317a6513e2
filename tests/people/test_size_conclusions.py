"""The claims of the chapter on new people: what holds, what does not, what stays open."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from mitolib import claims
from mitolib.people import size_conclusions
from mitolib.people.arms import AS_PUBLISHED, RULE


def estimate(value: float | None, ci: list[float] | None = None) -> dict[str, Any]:
    return {"value": value, "ci": ci, "n": 200}


HIGH, LOW, ACROSS = estimate(0.95, [0.9, 0.99]), estimate(0.2, [0.1, 0.3]), estimate(0.6, [0.4, 0.85])
AHEAD, BEHIND, EVEN = estimate(0.2, [0.1, 0.3]), estimate(-0.2, [-0.3, -0.1]), estimate(0.0, [-0.1, 0.1])


def model(step: str, **changed: Any) -> dict[str, Any]:
    size = {"error": LOW, "cured": HIGH, "afflicted": HIGH, "over_baseline": EVEN, "leak": EVEN}
    known = {"called": step, "step": step, "power": AHEAD, "passed_from": 28, "attention": HIGH}
    of_size = size | {name: value for name, value in changed.items() if name in size}
    return known | {name: changed[name] for name in changed if name in known} | {"sizes": {"28": of_size}}


def said(**changed: Any) -> dict[str, str]:
    network = {"called": "VGG16, SDHA", "experiment": "exp1", "accuracy": LOW, "fibres_minus_this": AHEAD}
    record = {
        "chapter": "people",
        "drawn": {"p": 0.5, "measures": 19, "most": 10},
        "published": {"exp1": 0.95},
        "outside": {"VGG16-SDHA": network},
        "models": {"head": model(AS_PUBLISHED), "fibres": model("fibres"), "rule": model(RULE)},
        "best": "fibres",
    } | changed
    found = claims.conclusions(size_conclusions.claims(record), record)
    return {name: answer.verdict for name, answer in found.items()}


def test_what_few_people_cannot_show_stays_open_and_what_they_deny_does_not_hold():
    assert said()["measured-people-lie-among-the-drawn"] == claims.OPEN
    assert said(drawn={"p": 0.01, "measures": 19, "most": 10})["measured-people-lie-among-the-drawn"] == claims.FAILS


@pytest.mark.parametrize(
    ("accuracy", "guessing", "published"),
    [
        (LOW, claims.FAILS, claims.FAILS),
        (HIGH, claims.HOLDS, claims.OPEN),
        (ACROSS, claims.OPEN, claims.FAILS),
        (estimate(0.99, [0.96, 1.0]), claims.HOLDS, claims.HOLDS),
    ],
)
def test_an_accuracy_is_held_against_guessing_and_the_published_one(accuracy, guessing, published):
    network = {"called": "VGG16, SDHA", "experiment": "exp1", "accuracy": accuracy, "fibres_minus_this": BEHIND}
    verdicts = said(outside={"VGG16-SDHA": network})
    assert verdicts["VGG16-SDHA-beats-guessing-on-new-people"] == guessing
    assert verdicts["VGG16-SDHA-is-worth-what-was-published"] == published
    assert verdicts["fibres-beat-VGG16-SDHA-on-new-people"] == claims.FAILS


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, claims.HOLDS),
        ({"cured": LOW}, claims.FAILS),
        ({"afflicted": LOW}, claims.FAILS),
        ({"over_baseline": BEHIND}, claims.FAILS),
        ({"cured": ACROSS}, claims.OPEN),
        ({"cured": estimate(None)}, claims.OPEN),
        ({"afflicted": estimate(1.0)}, claims.OPEN),
    ],
)
def test_a_model_learns_the_disease_by_the_intervals_of_both_turns_and_of_its_area(changed, verdict):
    models = {"fibres": model("fibres", **changed)}
    assert said(models=models)["fibres-learns-the-disease"] == verdict


def test_the_laboratory_s_rule_is_no_model_that_learns_and_curves_are_told_of_few():
    names = said()
    assert "rule-learns-the-disease" not in names and "rule-gains-by-people" not in names
    assert names["head-gains-by-people"] == names["fibres-gains-by-people"] == claims.HOLDS
    assert names["head-leaks-at-the-most-people"] == claims.OPEN


def test_none_passes_where_the_best_does_not():
    assert said()["the-best-passes-the-twin-test"] == claims.HOLDS
    models = {"fibres": model("fibres", passed_from=None)}
    assert said(models=models)["the-best-passes-the-twin-test"] == claims.FAILS


def test_attention_is_told_where_it_is_defined():
    assert said()["the-best-attends-to-deficient-fibres"] == claims.HOLDS
    models = {"fibres": model("fibres", attention=estimate(None))}
    assert "the-best-attends-to-deficient-fibres" not in said(models=models)


def test_without_new_people_there_is_no_claim():
    record = {"chapter": "people", "published": {}, "pairs": []}
    assert size_conclusions.claims(record) == []


def test_the_least_p_is_corrected_for_the_number_of_measures():
    compared = pd.DataFrame({"p": [0.01, 0.5, 0.9], "measured": [3, 8, 10]})
    assert size_conclusions.smallest_p(compared) == {"p": pytest.approx(0.03), "measures": 3, "most": 10}
