"""What is concluded from results that say one thing or another."""

from __future__ import annotations

import copy

import pytest

from mitolib import claims
from mitolib.claims import FAILS, HOLDS, OPEN, Answer, Claim
from mitolib.metrics import Estimate
from mitolib.whitening import conclusions

NOTHING, MUCH, LESS = Estimate(0.0, (-0.1, 0.1)), Estimate(0.3, (0.2, 0.4)), Estimate(-0.3, (-0.4, -0.2))


def record(*, method=NOTHING, concepts=NOTHING, code=NOTHING, more=NOTHING, unseen=True):
    importance = dict.fromkeys(("shift", "shift_others", "shift_more", "fall", "fall_others", "fall_more"), more)
    arm = {"balanced_accuracy": MUCH, "less_without": NOTHING, "importance": importance}
    of_split = {"none": arm, "ZCA": arm | {"less_without": method}, "A": arm, "D2": arm, "E2": arm}
    gaps = {"E2_less_ZCA": concepts, "A_less_E2": code}
    found = {
        "vgg16": {"published": of_split, "unseen": of_split if unseen else {}},
        "differences": {"published": gaps, "unseen": gaps if unseen else {}, "resnet18": {"G_less_E2_shift": more}},
        "resnet18": {name: arm | {"accuracy": Estimate(0.8, (0.7, 0.9)), "majority_baseline": 0.73} for name in "AG"},
        "geometry": {"E2": {"cosine": -0.99, "reachable": 0.71}},
    }
    found["resnet18"]["E2"] = found["resnet18"]["A"]
    return copy.deepcopy(found)


def answered(results: dict) -> dict[str, Answer]:
    return claims.conclusions(conclusions.claims(results), {"chapter": "concept_whitening"} | results)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({"code": LESS}, HOLDS),
        ({"code": LESS, "method": LESS}, FAILS),
        ({"code": LESS, "concepts": LESS}, FAILS),
        ({"code": MUCH}, FAILS),
        ({}, OPEN),
        ({"method": LESS}, FAILS),
    ],
)
def test_the_question_is_answered_by_the_intervals_of_three_differences(found, verdict):
    answers = answered(record(**found))
    for split in ("published", "unseen"):
        answer = answers[f"method-code-or-concepts-{split}"]
        assert answer.verdict == verdict and str(found.get("code", NOTHING)) in answer.sentence


@pytest.mark.parametrize(("more", "verdict"), [(MUCH, HOLDS), (LESS, FAILS), (NOTHING, OPEN)])
def test_whether_answers_run_through_the_axes_is_said_of_people_not_seen_first(more, verdict):
    answers = answered(record(more=more))
    asked = [name for name in answers if name.startswith("answer-")]
    assert len(asked) == 6
    for name in asked:
        assert answers[name].verdict == verdict
        assert "people not seen" in answers[name].sentence or "ResNet-18" in answers[name].sentence


def test_without_enough_people_the_published_split_alone_is_spoken_of():
    answers = answered(record(unseen=False))
    assert not any("unseen" in name for name in answers)
    assert not any("people not seen" in answer.sentence for answer in answers.values())


def test_a_planted_false_conclusion_is_not_said():
    said = answered(record(more=NOTHING))["resnet18-above-majority"]
    assert said.verdict == OPEN, "0.70 to 0.90 spans 0.73"
    assert answered(record())["classes-are-opposite"].verdict == HOLDS
    mild = record()
    mild["geometry"]["E2"]["cosine"] = -0.5
    assert answered(mild)["classes-are-opposite"].verdict == FAILS


def test_claims_are_answered_from_a_results_file_as_from_estimates():
    kept = record(code=LESS)
    plain = _plain(kept)
    assert answered(plain) == answered(kept)
    assert all(isinstance(claim, Claim) for claim in conclusions.claims(plain))


def _plain(tree):
    if isinstance(tree, Estimate):
        return {"value": tree.value, "ci": list(tree.ci), "n": tree.n, "left_out": tree.left_out}
    return {key: _plain(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def test_the_other_way_round_the_ends_of_an_interval_change_places():
    assert conclusions.negative(Estimate(0.25, (-0.5, 1.0))) == Estimate(-0.25, (-1.0, 0.5))
    assert conclusions.negative(Estimate(None)) == Estimate(None)
