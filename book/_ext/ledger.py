"""Every quantitative claim of the paper, its counterpart in a run's results, and a verdict.

The verdict follows from the numbers: it is computed, never stored, by the rule of the claim. A count is reproduced if
it is equal; a score, if it differs by no more than chance and rounding allow (see `tolerance`); an epoch by which
something has happened, if it happened by then. A claim is not checked where the edition has nothing to check it with,
and the row says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import pandas as pd

from mitolib import paper

REPRODUCED, NOT_REPRODUCED, NOT_CHECKED = "reproduced", "not reproduced", "cannot be checked"
SETTLED_WITHIN = 0.02  # of its final mean: a validation accuracy that "reaches a point of stability"
SETTLED_EPOCHS = 5  # epochs in a running mean


def near(ours: float, published: float, tolerance: float) -> bool:
    """The rule of counts and scores: no further away than the tolerance, which is 0 for a count."""
    return abs(ours - published) <= tolerance


def at_the_latest(ours: float, published: float, tolerance: float) -> bool:
    """The rule of "after 50 epochs": by then at the latest."""
    return ours <= published


def number(entry: Any) -> float:
    """An entry of a results file as a number; counts by class are added up."""
    return float(sum(entry.values()) if isinstance(entry, Mapping) else entry)


def settled(values: list[float]) -> float:
    """The epoch, from 1, after which the running mean of 5 epochs stays within 0.02 of its last value."""
    means = pd.Series(values).rolling(SETTLED_EPOCHS, min_periods=1).mean()
    away = means.index[(means - means.iloc[-1]).abs() > SETTLED_WITHIN]
    return float(away[-1]) + 2 if len(away) else 1.0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One number of the paper: where it stands, what it says, and which number of ours answers it by which rule."""

    where: str
    what: str
    published: float
    digits: int  # as printed, after the point
    chapter: str  # whose results hold the answer
    keys: tuple[str, ...]  # path to the answer in that file
    made_in: str  # heading of that chapter under which the answer is computed
    tolerance: float = 0.0
    read: Callable[[Any], float] = number  # the entry under `keys` -> our number
    rule: Callable[[float, float, float], bool] = near  # ours, published, tolerance -> whether it is reproduced


def tolerance(score: float, n: int) -> float:
    """How far a repeated score may lie from a published one: two standard errors over n patches, and rounding.

    Taken as if patches were independent, which they are not: the true spread is wider.
    """
    return 2 * sqrt(score * (1 - score) / n) + 0.005


def _counts(experiment: str, where: str) -> list[Claim]:
    return [
        Claim(
            where=where,
            what=f"{part} patches, {label}",
            published=count,
            digits=0,
            chapter=experiment,
            keys=("split", part, label),
            made_in="the-data",
        )
        for part, counts in paper.SPLITS[experiment].items()
        for label, count in counts.items()
    ]


def _score(where: str, experiment: str, model: str, metric: str, published: float, digits: int = 2) -> Claim:
    n_test = sum(paper.SPLITS[experiment]["test"].values())
    chapter, heading = experiment, f"table-{4 if experiment == 'exp1' else 5}-the-scores"
    if model == "ResNet18+CW":
        chapter, heading = "concept_whitening", "the-experiment-of-the-paper"
    return Claim(
        where=where,
        what=f"{metric} of {model}, {'SDHA' if experiment == 'exp1' else 'ten proteins'}",
        published=published,
        digits=digits,
        chapter=chapter,
        keys=("models", model, metric),
        made_in=heading,
        tolerance=tolerance(published, n_test),
    )


def _scores(experiment: str, where: str) -> list[Claim]:
    return [
        _score(where, experiment, model, metric, value)
        for model, metrics in paper.SCORES[experiment].items()
        for metric, value in metrics.items()
    ]


def _total(experiment: str, where: str) -> Claim:
    return Claim(
        where=where,
        what="test patches, printed total",
        published=paper.PRINTED_TOTALS[experiment]["test"],
        digits=0,
        chapter=experiment,
        keys=("split", "test"),
        made_in="the-data",
    )


CLAIMS = (
    *_counts("exp1", "Table 1"),
    _total("exp1", "Table 1"),
    *_counts("exp2", "Table 2"),
    _total("exp2", "Table 2"),
    *(
        Claim(
            where="Table 3",
            what=key.replace("_", " "),
            published=paper.HYPERPARAMETERS[key],
            digits=digits,
            chapter="exp1",
            keys=("provenance", "parameters", key),
            made_in="hyperparameters",
        )
        for key, digits in (("epochs", 0), ("learning_rate", 3))
    ),
    *_scores("exp1", "Table 4"),
    *_scores("exp2", "Table 5"),
    *(_score("Abstract", "exp1", "VGG16", metric, value, 4) for metric, value in paper.ABSTRACT.items()),
    Claim(
        where="Abstract",
        what="a reliable method: accuracy on people not seen, VGG16, SDHA",
        published=paper.ABSTRACT["accuracy"],
        digits=4,
        chapter="patient_level",
        keys=("by_model", "VGG16-head", "leave-one-control-one-patient-out", "patch_accuracy"),
        made_in="the-table",
        tolerance=tolerance(paper.ABSTRACT["accuracy"], sum(paper.SPLITS["exp1"]["test"].values())),
    ),
    _score("Introduction", "exp1", "VGG16", "accuracy", paper.INTRODUCTION["accuracy"], 4),
    *(
        Claim(
            where="Section 4.3",
            what=f"epoch after which VGG16 is stable, {protein}",
            published=50,
            digits=0,
            chapter=experiment,
            keys=("models", "VGG16", "history", "val_accuracy"),
            made_in=heading,
            read=settled,
            rule=at_the_latest,
        )
        for experiment, protein, heading in (
            ("exp1", "SDHA", "vgg16"),
            ("exp2", "ten proteins", "vgg16-with-ten-input-channels"),
        )
    ),
)


def ledger(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per claim: where, what, published, ours, tolerance, verdict, why, chapter, made_in, digits.

    records: result files by chapter. `ours` is NaN where there is none; `why` explains a claim not checked.
    """
    rows = []
    for claim in CLAIMS:
        ours, why = _answer(claim, records)
        rows.append(
            {
                "where": claim.where,
                "what": claim.what,
                "published": claim.published,
                "ours": ours,
                "tolerance": claim.tolerance,
                "verdict": _verdict(claim, ours, why),
                "why": why,
                "chapter": claim.chapter,
                "made_in": claim.made_in,
                "digits": claim.digits,
            }
        )
    return pd.DataFrame(rows)


def _answer(claim: Claim, records: Mapping[str, Mapping[str, Any]]) -> tuple[float, str]:
    """Our number, or NaN; and why it decides nothing, if it does not."""
    if claim.chapter not in records:
        return float("nan"), f"{claim.chapter} was not executed"
    record = records[claim.chapter]
    value: Any = record
    for key in claim.keys:
        value = value[key]
    why = ""
    if (
        claim.keys[0] == "models"
        and record["provenance"]["weights"][paper.backbone(claim.keys[1])]["source"] == "random"
    ):
        why = "the network started from random weights"
    if record["profile"] != "paper":
        why = f"executed in profile {record['profile']}, not as published"
    return claim.read(value), why


def _verdict(claim: Claim, ours: float, why: str) -> str:
    if why:
        return NOT_CHECKED
    return REPRODUCED if claim.rule(ours, claim.published, claim.tolerance) else NOT_REPRODUCED
