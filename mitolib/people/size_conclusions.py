"""The conclusions of the chapter on new people, as claims on its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from mitolib.claims import Claim, above
from mitolib.metrics import Estimate, holm
from mitolib.people.arms import AS_PUBLISHED, CHAPTER, RULE
from mitolib.people.cohort_size import TURNED

SIGNIFICANT = 0.05  # a p, corrected, below which a difference counts


def claims(record: Mapping[str, Any]) -> list[Claim]:
    """Of the chapter's record, all of whose keys but `claims` are there. What the data do not allow has no claim."""
    return [*_drawn(record), *_outside(record), *_curves(record), *_ladder(record)]


def smallest_p(compared: pd.DataFrame) -> dict[str, Any]:
    """For the record, of `phantom.new_people.compare`: p (the least, by Holm), measures, and most people measured."""
    return {"p": min(holm(compared["p"])), "measures": len(compared), "most": int(compared["measured"].max())}


def _at(*path: str) -> str:
    return f"{CHAPTER} {'.'.join(path)}"


def _drawn(record: Mapping[str, Any]) -> Iterator[Claim]:
    if "drawn" in record:
        number = (
            "Smallest p of {measures} measures, corrected by Holm's method: {p:.2f}; at most {most} people measured."
        )
        yield Claim(
            name="measured-people-lie-among-the-drawn",
            reads={word: _at("drawn", word) for word in ("p", "measures", "most")},
            predicate=lambda p, measures, most: False if p < SIGNIFICANT else None,
            holds=number,
            fails=f"In one measure at least, the measured people are not like the drawn ones. {number}",
            open=f"No measure tells the measured people from the drawn ones; so few could show a gross fault only. "
            f"{number}",
        )


def _outside(record: Mapping[str, Any]) -> Iterator[Claim]:
    """Of each model of the book: better than guessing on new people? As good as published? Worse than fibres?"""
    for model, entry in record.get("outside", {}).items():
        called = f"*{entry['called']}*"
        number = "Share called rightly {right}, people: {n}; guessing has 0.50."
        yield Claim(
            name=f"{model}-beats-guessing-on-new-people",
            reads={"right": _at("outside", model, "accuracy"), "n": _at("outside", model, "accuracy", "n")},
            predicate=lambda right, n: above(right, 0.5),
            holds=f"{called} tells new patients from new controls. {number}",
            fails=f"{called} does not tell new patients from new controls. {number}",
            open=f"Whether {called} tells new patients from new controls stays open. {number}",
        )
        if entry["experiment"] in record["published"]:
            number = "Published: {published:.2f} of the test patches. New people called rightly: {right}."
            yield Claim(
                name=f"{model}-is-worth-what-was-published",
                reads={
                    "right": _at("outside", model, "accuracy"),
                    "published": _at("published", entry["experiment"]),
                },
                predicate=lambda right, published: _reaches(right, published),
                holds=f"On new people {called} is no worse than the published accuracy. {number}",
                fails=f"On new people {called} is worth less than the published accuracy. {number}",
                open=f"Whether {called} is worth the published accuracy on new people stays open. {number}",
            )
        if "fibres_minus_this" in entry:
            number = "AUC over people, fibre baseline minus this: {gap}."
            yield Claim(
                name=f"fibres-beat-{model}-on-new-people",
                reads={"gap": _at("outside", model, "fibres_minus_this")},
                predicate=lambda gap: above(gap, 0),
                holds=f"The fibre baseline ranks new people better than {called}. {number}",
                fails=f"The fibre baseline does not rank new people better than {called}. {number}",
                open=f"Whether the fibre baseline ranks new people better than {called} stays open. {number}",
            )


def _reaches(score: Estimate, level: float) -> bool | None:
    low, high = score.ci
    return False if high < level else True if low >= level else None


def _curves(record: Mapping[str, Any]) -> Iterator[Claim]:
    """Of the published models and the best: do more people help? What does a random split promise at the greatest n?"""
    chosen = {m: of for m, of in record.get("models", {}).items() if of["step"] == AS_PUBLISHED or m == record["best"]}
    for model, entry in chosen.items():
        called, sizes = f"*{entry['called']}*", entry["sizes"]
        if entry["power"] is not None:
            number = "The share called wrongly falls as n to the power of minus {power}."
            yield Claim(
                name=f"{model}-gains-by-people",
                reads={"power": _at("models", model, "power")},
                predicate=lambda power: above(power, 0),
                holds=f"Trained on more people, {called} errs less. {number}",
                fails=f"Trained on more people, {called} does not err less. {number}",
                open=f"Whether {called}, trained on more people, errs less stays open. {number}",
            )
        most = max(sizes, key=int)
        if "leak" in sizes[most]:
            number = f"AUC, {most} people: random split minus new people {{leak}}."
            yield Claim(
                name=f"{model}-leaks-at-the-most-people",
                reads={"leak": _at("models", model, "sizes", most, "leak")},
                predicate=lambda leak: above(leak, 0),
                holds=f"A random split still promises too much of {called}. {number}",
                fails=f"A random split does not promise too much of {called}. {number}",
                open=f"Whether a random split promises too much of {called} stays open. {number}",
            )


def _ladder(record: Mapping[str, Any]) -> Iterator[Claim]:
    """Of each model but the laboratory's rule: has it learnt the disease? And what does the best attend to?"""
    for model, entry in record.get("models", {}).items():
        if entry["step"] == RULE:
            continue
        called, most = f"*{entry['called']}*", max(entry["sizes"], key=int)
        number = (
            f"Trained on {most} people: of the patients called so the cure turns {{cured}}, of the controls called so "
            "the affliction turns {afflicted}; AUC minus that of the fibre baseline {over}."
        )
        yield Claim(
            name=f"{model}-learns-the-disease",
            reads={
                word: _at("models", model, "sizes", most, name)
                for word, name in {"cured": "cured", "afflicted": "afflicted", "over": "over_baseline"}.items()
            },
            predicate=_learns,
            holds=f"{called} learns the disease. {number}",
            fails=f"{called} does not learn the disease. {number}",
            open=f"Whether {called} learns the disease stays open. {number}",
        )
    if best := record.get("best"):
        called = f"*{record['models'][best]['called']}*"
        yield Claim(
            name="the-best-passes-the-twin-test",
            reads={"n": _at("models", best, "passed_from")},
            predicate=lambda n: n is not None,
            holds=f"By its shares alone, without their intervals, {called} passes the twin test from {{n}} people on.",
            fails=f"No model passes the twin test at the most people that were tried; the best is {called}.",
            open=called,
        )
        number = "AUROC over the fibres of new patients: {attention}; chance has 0.50."
        attends = record["models"][best]["attention"]
        if _value(attends) is not None:
            yield Claim(
                name="the-best-attends-to-deficient-fibres",
                reads={"attention": _at("models", best, "attention")},
                predicate=lambda attention: above(attention, 0.5),
                holds=f"What {called} attends to are deficient fibres. {number}",
                fails=f"What {called} attends to are not deficient fibres. {number}",
                open=f"Whether {called} attends to deficient fibres stays open. {number}",
            )


def _value(estimate: Any) -> float | None:
    return estimate["value"] if isinstance(estimate, Mapping) else estimate.value


def _learns(cured: Estimate, afflicted: Estimate, over: Estimate) -> bool | None:
    """By intervals: both shares at least TURNED, and an AUC that does not surely lie below the fibre baseline's."""
    shares = (cured, afflicted)
    if any(share.ci is not None and share.ci[1] < TURNED for share in shares) or (over.ci and over.ci[1] < 0):
        return False
    if any(share.value is None or share.ci is None for share in shares):
        return None
    return True if all(share.ci[0] >= TURNED for share in shares) else None
