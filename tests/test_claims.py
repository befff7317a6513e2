from __future__ import annotations

import pytest

from mitolib.claims import FAILS, HOLDS, OPEN, Answer, Claim, above, answer, conclusions, look_up
from mitolib.metrics import Estimate

LOWER = Claim(
    name="lower-on-people-not-seen",
    reads={"gap": "people gap", "n": "people splits.0.n"},
    predicate=lambda gap, n: above(gap, 0) if n > 1 else None,
    holds="Lower on {n} people, by {gap}.",
    fails="Not lower on {n} people: {gap}.",
    open="Open on {n} people: {gap}.",
)


def record(value, ci, n=14) -> dict:
    return {"people": {"gap": {"value": value, "ci": ci, "n": 14, "left_out": 0}, "splits": [{"n": n}]}}


@pytest.mark.parametrize(
    ("value", "ci", "verdict", "sentence"),
    [
        (0.2, [0.1, 0.3], HOLDS, "Lower on 14 people, by 0.20 (0.10 to 0.30)."),
        (0.2, [-0.1, 0.3], OPEN, "Open on 14 people: 0.20 (-0.10 to 0.30)."),
        (-0.2, [-0.3, 0.0], FAILS, "Not lower on 14 people: -0.20 (-0.30 to 0.00)."),
        (0.2, None, OPEN, "Open on 14 people: 0.20."),
    ],
)
def test_the_interval_decides_which_sentence_is_said(value, ci, verdict, sentence):
    said = answer(LOWER, record(value, ci))
    assert (said.verdict, said.sentence) == (verdict, sentence)


def test_a_predicate_may_leave_open_what_an_interval_would_decide():
    assert answer(LOWER, record(0.2, [0.1, 0.3], n=1)).verdict == OPEN


def test_what_a_claim_reads_and_does_not_find_is_named():
    with pytest.raises(LookupError, match=r"lower-on-people-not-seen.*no results of 'people'"):
        answer(LOWER, {})
    with pytest.raises(LookupError, match=r"people\.json: no key 'splits\.0\.n' \(not found at 'splits'\)"):
        answer(LOWER, {"people": {"gap": 1}})


def test_a_level_at_the_end_of_an_interval_is_not_exceeded():
    assert above(Estimate(0.2, (0.1, 0.3)), 0.1) is None
    assert above(Estimate(0.2, (0.1, 0.3)), 0.3) is False
    assert above(Estimate(None), 0) is None


def test_entries_are_found_through_mappings_sequences_and_attributes():
    tree = {"a": [Estimate(0.5)]}
    assert look_up(tree, "a.0.value", "here") == 0.5
    with pytest.raises(LookupError, match=r"here: no key 'a\.1' \(not found at '1'\)"):
        look_up(tree, "a.1", "here")


def test_a_chapter_has_one_answer_for_each_of_its_claims():
    results = {"chapter": "people"} | record(0.2, [0.1, 0.3])["people"]
    assert conclusions([LOWER], results) == {
        "lower-on-people-not-seen": Answer(HOLDS, "Lower on 14 people, by 0.20 (0.10 to 0.30).")
    }
