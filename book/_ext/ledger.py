"""Every number that the paper prints, its counterpart in a run's results, and a verdict.

The verdict follows from the numbers: it is computed, never stored. There are two kinds.

*Inputs*, counts and settings, match if they are equal. They show that the same thing was done; some were fitted to the
printed counts.

*Measured* numbers are scores of trainings. A published one is reproduced if it lies in the 95 % prediction interval of
one further training of ours (`mitolib.metrics.further_training`), widened by what printing has rounded. One training
has no interval, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mitolib import paper
from mitolib.metrics import Estimate, further_training

MATCHES, DIFFERS = "matches", "differs"  # of inputs
REPRODUCED, NOT_REPRODUCED, NOT_CHECKED = "reproduced", "not reproduced", "cannot be checked"
INPUT, MEASURED = "inputs", "measured"
SETTLED_WITHIN = 0.02  # of its final mean: a validation accuracy that "reaches a point of stability"
SETTLED_EPOCHS = 5  # epochs in a running mean


def number(entry: Any) -> Estimate:
    """A count or a setting of a results file; counts by class are added up."""
    return Estimate(float(sum(entry.values()) if isinstance(entry, Mapping) else entry))


def estimate(entry: Mapping[str, Any]) -> Estimate:
    """A score of a results file with its interval."""
    return Estimate(**entry)


def settled(values: list[float]) -> float:
    """The epoch, from 1, after which the running mean of 5 epochs stays within 0.02 of its last value."""
    means = pd.Series(values).rolling(SETTLED_EPOCHS, min_periods=1).mean()
    away = means.index[(means - means.iloc[-1]).abs() > SETTLED_WITHIN]
    return float(away[-1]) + 2 if len(away) else 1.0


def settled_by_seed(curves: Mapping[str, list[float]]) -> Estimate:
    """`settled` over the trainings of a network. curves: seed -> validation accuracy by epoch."""
    return further_training([settled(curve) for curve in curves.values()])


@dataclass(frozen=True, kw_only=True)
class Printed:
    """One number of the paper: where it stands, what it says, and which number of ours answers it."""

    where: str
    what: str
    published: float
    digits: int  # as printed, after the point
    chapter: str  # whose results hold the answer
    keys: tuple[str, ...]  # path to the answer in that file
    made_in: str  # heading of that chapter under which the answer is computed
    kind: str = INPUT
    read: Callable[[Any], Estimate] = number  # the entry under `keys` -> our number
    at_the_latest: bool = False  # an epoch by which something has happened: it may be earlier

    @property
    def rounding(self) -> float:
        """How far the number may lie from what was printed."""
        return 0.5 * 10**-self.digits if self.kind == MEASURED else 0.0


def _counts(experiment: str, where: str) -> list[Printed]:
    return [
        Printed(
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


def _score(where: str, experiment: str, model: str, metric: str, published: float, digits: int = 2) -> Printed:
    chapter, heading = experiment, f"table-{4 if experiment == 'exp1' else 5}-the-scores"
    if model == "ResNet18+CW":
        chapter, heading = "concept_whitening", "the-experiment-of-the-paper"
    return Printed(
        where=where,
        what=f"{metric} of {model}, {'SDHA' if experiment == 'exp1' else 'ten proteins'}",
        published=published,
        digits=digits,
        chapter=chapter,
        keys=("models", model, "further_training", metric),
        made_in=heading,
        kind=MEASURED,
        read=estimate,
    )


def _scores(experiment: str, where: str) -> list[Printed]:
    return [
        _score(where, experiment, model, metric, value)
        for model, metrics in paper.SCORES[experiment].items()
        for metric, value in metrics.items()
    ]


def _total(experiment: str, where: str) -> Printed:
    return Printed(
        where=where,
        what="test patches, printed total",
        published=paper.PRINTED_TOTALS[experiment]["test"],
        digits=0,
        chapter=experiment,
        keys=("split", "test"),
        made_in="the-data",
    )


PRINTED = (
    *_counts("exp1", "Table 1"),
    _total("exp1", "Table 1"),
    *_counts("exp2", "Table 2"),
    _total("exp2", "Table 2"),
    *(
        Printed(
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
    _score("Introduction", "exp1", "VGG16", "accuracy", paper.INTRODUCTION["accuracy"], 4),
    *(
        Printed(
            where="Section 4.3",
            what=f"epoch after which VGG16 is stable, {protein}",
            published=50,
            digits=0,
            chapter=experiment,
            keys=("models", "VGG16", "val_accuracy"),
            made_in=heading,
            kind=MEASURED,
            read=settled_by_seed,
            at_the_latest=True,
        )
        for experiment, protein, heading in (
            ("exp1", "SDHA", "vgg16"),
            ("exp2", "ten proteins", "vgg16-with-ten-input-channels"),
        )
    ),
)


def ledger(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per number: kind, where, what, published, ours, low, high, verdict, why, chapter, made_in, digits.

    records: result files by chapter. `ours` is NaN where there is none, `low` and `high` where there is no interval;
    `why` explains a number that was not checked.
    """
    rows = []
    for printed in PRINTED:
        ours, why = _answer(printed, records)
        low, high = ours.ci or (float("nan"), float("nan"))
        rows.append(
            {
                "kind": printed.kind,
                "where": printed.where,
                "what": printed.what,
                "published": printed.published,
                "ours": float("nan") if ours.value is None else ours.value,
                "low": low,
                "high": high,
                "verdict": NOT_CHECKED if why else _verdict(printed, ours),
                "why": why,
                "chapter": printed.chapter,
                "made_in": printed.made_in,
                "digits": printed.digits,
            }
        )
    return pd.DataFrame(rows)


def _answer(printed: Printed, records: Mapping[str, Mapping[str, Any]]) -> tuple[Estimate, str]:
    """Our number; and why it decides nothing, if it does not."""
    if printed.chapter not in records:
        return Estimate(None), f"{printed.chapter} was not executed"
    record = records[printed.chapter]
    if printed.kind == MEASURED:
        model = printed.keys[1]
        if record["provenance"]["weights"][paper.backbone(model)]["source"] == "random":
            return Estimate(None), "without ImageNet weights it is a control"
        if len(record["models"][model].get("seeds", {})) < 2:
            only = record["models"][model].get(printed.keys[-1])
            return Estimate(only if isinstance(only, float) else None), "one training has no interval"
    value: Any = record
    for key in printed.keys:
        value = value[key]
    why = f"executed in profile {record['profile']}, not as published" if record["profile"] != "paper" else ""
    return printed.read(value), why


def _verdict(printed: Printed, ours: Estimate) -> str:
    low, high = ours.ci or (ours.value, ours.value)
    is_near = low - printed.rounding <= printed.published
    if not printed.at_the_latest:
        is_near = is_near and printed.published <= high + printed.rounding
    yes, no = (MATCHES, DIFFERS) if printed.kind == INPUT else (REPRODUCED, NOT_REPRODUCED)
    return yes if is_near else no
