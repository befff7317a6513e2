"""Claims: sentences that compare, rank or conclude, each with the predicate over results that decides what is said.

For example::

    gap = Claim(
        name="seen-people-score-higher",
        reads={"gap": "patient_level difference.VGG16-head.balanced_accuracy"},
        predicate=lambda gap: above(gap, 0),
        holds="On people not seen the score is lower, by {gap}.",
        fails="On people not seen the score is not lower: the difference is {gap}.",
        open="Whether the score is lower on people not seen stays open: the difference is {gap}.",
    )

A predicate on a score asks its interval, of the difference where two are compared. It says True, False, or None where
the interval spans both; the sentence that belongs to the answer is the one that a page shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mitolib.metrics import Estimate

HOLDS, FAILS, OPEN = "holds", "does not hold", "open"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """reads: word in predicate and sentences -> "chapter key.key.0" in a results file. The sentences are formats."""

    name: str
    reads: Mapping[str, str]
    predicate: Callable[..., bool | None]
    holds: str
    fails: str
    open: str


@dataclass(frozen=True)
class Answer:
    """What the results say of a claim: HOLDS, FAILS or OPEN, and the sentence for it."""

    verdict: str
    sentence: str


def answer(claim: Claim, records: Mapping[str, Mapping[str, Any]]) -> Answer:
    """Ask the results. records: results files by chapter. Raises LookupError naming chapter and key if one is absent.

    A mapping with `value` and `ci`, as results files hold an `Estimate`, is one to the predicate and in the sentence.
    """
    found = {}
    for word, place in claim.reads.items():
        chapter, _, path = place.partition(" ")
        if chapter not in records:
            raise LookupError(f"claim {claim.name!r}: there are no results of {chapter!r}")
        value = look_up(records[chapter], path, f"claim {claim.name!r}: {chapter}.json")
        is_estimate = isinstance(value, Mapping) and {"value", "ci"} <= value.keys()
        found[word] = Estimate(**value) if is_estimate else value
    verdict = {True: HOLDS, False: FAILS, None: OPEN}[claim.predicate(**found)]
    sentence = {HOLDS: claim.holds, FAILS: claim.fails, OPEN: claim.open}[verdict]
    return Answer(verdict, sentence.format(**found))


def conclusions(claims: Iterable[Claim], record: Mapping[str, Any]) -> dict[str, Answer]:
    """What one chapter's results say of its claims, by name: the `claims` entry of its results file."""
    return {claim.name: answer(claim, {record["chapter"]: record}) for claim in claims}


def above(score: Estimate, level: float) -> bool | None:
    """Whether a score lies above a level: by its whole interval, None where that spans it or there is none."""
    if score.value is None or score.ci is None:
        return None
    low, high = score.ci
    return True if low > level else False if high <= level else None


def look_up(tree: Any, path: str, source: str) -> Any:
    """The entry at `a.b.0.c` of nested mappings, sequences and attributes. LookupError names source, path and step."""
    for step in path.split("."):
        try:
            if isinstance(tree, Mapping):
                tree = tree[step]
            elif isinstance(tree, Sequence) and not isinstance(tree, str):
                tree = tree[int(step)]
            else:
                tree = getattr(tree, step)
        except (LookupError, AttributeError, ValueError):
            raise LookupError(f"{source}: no key {path!r} (not found at {step!r})") from None
    return tree
