"""How the protein levels of people differ, and the levels of a control who never was.

Random effects: log level of a fibre = mean of the controls + what this person differs by + what this fibre differs by.
The first effect has the covariance *between* people, the second the covariance *within* one; both are normal.

Three controls cannot give a covariance of eight proteins, so that between people is pooled from all eleven with normal
fibres, controls about the mean of controls and patients about that of patients. Its correlations are shrunk towards
their mean, as far as chance alone would let equal correlations scatter (the target of Ledoit & Wolf 2004, "Honey, I
shrunk the sample covariance matrix"): proteins rise and fall together from section to section, and shrinking towards no
correlation would draw people whose normal fibres look deficient. It is assumed that levels are log-normal and that
normal fibres of patients differ between people as those of controls do; the ratios of the three controls lie closer
together than that, so that controls drawn here are rather too unlike than too alike.

A level is a count per pixel; `log_mean` of the calibration is of counts + 1, see `draw`. TOM22 and Dystrophin are in no
table: `draw` derives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mitolib import settings
from mitolib.phantom import exact


@dataclass(frozen=True)
class BetweenPeople:
    """The random-effects model of the levels of normal fibres, in log counts per pixel.

    mean: (P,) of controls. between, within: (P, P) covariances between people and between the fibres of one.
    shrinkage: weight of the mean correlation in `between`, 0 to 1. people: names of those that it was fitted to.
    """

    mean: np.ndarray
    between: np.ndarray
    within: np.ndarray
    shrinkage: float
    people: tuple[str, ...]


def fit(cohort: Mapping[str, Any]) -> BetweenPeople:
    """The model, fitted to whoever of a calibration was measured and has normal fibres.

    cohort: content of `data/cohort.json`. Raises ValueError for fewer than two such controls or two such patients.
    """
    measured = [s for s in cohort["subjects"] if s["fibres_measured"] and "none" in s["classes"]]
    by_label = {label: [s for s in measured if s["label"] == label] for label in settings.LABELS}
    if min(map(len, by_label.values())) < 2:
        raise ValueError(
            f"calibration: found { ({label: len(group) for label, group in by_label.items()}) } measured people with "
            "normal fibres, wanted two controls and two patients at least. Use data/cohort.json."
        )
    levels = {label: np.array([log_levels(s) for s in group]) for label, group in by_label.items()}
    about_mean = np.concatenate([of_label - of_label.mean(axis=0) for of_label in levels.values()])
    freedom = len(about_mean) - len(levels)
    deviation = np.sqrt((about_mean**2).sum(axis=0) / freedom)
    correlation, shrinkage = shrunk_correlation(about_mean / deviation, freedom)
    return BetweenPeople(
        mean=levels["control"].mean(axis=0),
        between=correlation * np.outer(deviation, deviation),
        within=np.mean([within(control) for control in by_label["control"]], axis=0),
        shrinkage=shrinkage,
        people=tuple(s["subject"] for group in by_label.values() for s in group),
    )


def draw_control(model: BetweenPeople, *, seed: int) -> dict[str, list]:
    """The levels of one more control, as the calibration has them: log_mean (P,) and log_cov (P, P).

    Everyone has the covariance `within`; in `log_cov`, which is of counts + 1, it depends on the level all the same.
    """
    deviate = exact.normal(np.random.default_rng(seed), (1, len(model.mean))).astype(float)
    log_level = model.mean + exact.correlated(deviate, model.between)[0]
    log_mean = np.log1p(np.exp(log_level))
    per_level = 1 - np.exp(-log_mean)  # d log(rate + 1) / d log(rate)
    log_cov = model.within * np.outer(per_level, per_level)
    return {"log_mean": log_mean.round(3).tolist(), "log_cov": log_cov.round(4).tolist()}


def log_levels(subject: Mapping[str, Any], of_class: str = "none") -> np.ndarray:
    """(P,) log mean counts per pixel of the fibres of a class; `log_mean` of the calibration is of counts + 1."""
    return np.log(np.expm1(subject["classes"][of_class]["log_mean"]))


def within(control: Mapping[str, Any]) -> np.ndarray:
    """Covariance of the log level of a control's fibres, from that of log(level + 1) by the delta method."""
    per_level = 1 - np.exp(-np.array(control["classes"]["none"]["log_mean"]))
    return np.array(control["log_cov"]) / np.outer(per_level, per_level)


def shrunk_correlation(standard_np: np.ndarray, freedom: int) -> tuple[np.ndarray, float]:
    """Correlations (P, P) of standardised rows (N, P), drawn towards their mean, and the weight of that mean.

    The weight is the summed sampling variance of the correlations, (1 - r^2)^2 / freedom for normal values, over the
    sum of their squared distances from the mean: 1 if they scatter no more than chance lets equal ones scatter.
    """
    raw = standard_np.T @ standard_np / freedom
    pairs = ~np.eye(len(raw), dtype=bool)
    common = raw[pairs].mean()
    by_chance, found = ((1 - raw[pairs] ** 2) ** 2).sum() / freedom, ((raw[pairs] - common) ** 2).sum()
    weight = float(min(by_chance / found, 1)) if found > 0 else 1.0
    return np.where(pairs, weight * common + (1 - weight) * raw, 1.0), weight
