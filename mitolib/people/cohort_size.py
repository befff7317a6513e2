"""What models score on new people against the number of people they learnt from, and whether they learn the disease.

Intervals are 95 % of a bootstrap that draws people of the outside test within each class, and draws of training people;
the same people for all models and sizes, so that differences and slopes are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import metrics
from mitolib.metrics import Estimate
from mitolib.own_data import LeftOut
from mitolib.people.arms import BASELINE, Arm
from mitolib.people.metrics import key, percentiles
from mitolib.settings import LABELS
from mitolib.units import Units

RESAMPLED = 1000
TURNED = 0.8  # of those called rightly that a model must turn, both ways, to pass the twin test
TWIN_TEST = {"cured": "cured patients turned", "afflicted": "afflicted controls turned"}


@dataclass(frozen=True, eq=False)
class Answered:
    """What a model says after training on n people: p, p_twin (D, N) for D draws and the N people of the test.

    p_seen: (D, n) see `arms._fit`, empty where rows cannot be split; attention: (D, N) or empty.
    """

    p: np.ndarray
    p_twin: np.ndarray
    p_seen: np.ndarray
    attention: np.ndarray


@dataclass(frozen=True, eq=False)
class Curves:
    """models: by name. fits: their units, of `arms.ask`. altered: of `arms.altered`; others are not in the twin test.

    truth: (N,) of the outside test. seed: of the bootstrap.
    """

    models: Mapping[str, Arm]
    fits: Mapping[str, Units]
    altered: Sequence[Mapping[str, Any]]
    truth: np.ndarray
    seed: int

    @cached_property
    def answered(self) -> dict[str, dict[int, Answered]]:
        """Model -> n -> what it says; read when it is used."""
        found: dict[str, dict[int, Answered]] = {}
        for name, of_model in self.fits.items():
            answers = list(of_model)  # in a share that lacks one this is where it ends
            by_size: dict[int, list[Mapping[str, np.ndarray]]] = {}
            for unit, fit in zip(of_model.record, answers, strict=True):
                by_size.setdefault(unit["unit"]["n"], []).append(fit)
            parts = [field.name for field in fields(Answered)]
            found[name] = {
                n: Answered(*(np.stack([fit[part] for fit in of_size]) for part in parts))
                for n, of_size in by_size.items()
            }
        return found

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of the units."""
        return [unit for of_model in self.fits.values() for unit in of_model.record]

    @property
    def sizes(self) -> list[int]:
        """People to train on, rising."""
        return sorted(next(iter(self.answered.values())))

    @cached_property
    def _drawn(self) -> Resampled:
        n_draws = len(next(iter(next(iter(self.answered.values())).values())).p)
        return Resampled.of(self.truth, n_draws, np.random.default_rng(self.seed))

    @cached_property
    def scores(self) -> dict[str, dict[int, dict[str, Estimate]]]:
        """Model -> n -> error, auc, over_baseline, cured, afflicted; leak where rows can be split."""
        found: dict[str, dict[int, dict[str, Estimate]]] = {}
        for model, by_size in self.answered.items():
            for n in by_size:
                found.setdefault(model, {})[n] = {
                    name: self._estimate(of_score) for name, of_score in self._resampled[model][n].items()
                }
        return found

    @cached_property
    def _resampled(self) -> dict[str, dict[int, dict[str, np.ndarray]]]:
        """Model -> n -> score -> (1 + RESAMPLED,): as measured, then each resample."""
        baseline = {n: self._drawn.auc(of.p) for n, of in self.answered[BASELINE].items()}
        return {
            model: {n: self._of_one(of, baseline[n]) for n, of in by_size.items()}
            for model, by_size in self.answered.items()
        }

    def _of_one(self, of: Answered, baseline: np.ndarray) -> dict[str, np.ndarray]:
        called, twin_called = of.p > 0.5, of.p_twin > 0.5
        is_patient, altered = self.truth == 1, self.altered[0]["altered"] == 1
        area = self._drawn.auc(of.p)
        turned = {
            "cured": (called & ~twin_called & is_patient & altered, called & is_patient & altered),
            "afflicted": (~called & twin_called & ~is_patient & altered, ~called & ~is_patient & altered),
        }
        scores = {"error": self._drawn.balanced(called != is_patient), "auc": area, "over_baseline": area - baseline}
        scores |= {name: self._drawn.share(*counted) for name, counted in turned.items()}
        if of.p_seen.size:
            n_half = of.p_seen.shape[1] // 2  # controls first, as many as patients
            seen = [metrics.auc(np.repeat([0, 1], n_half), of_draw) for of_draw in of.p_seen]
            scores["leak"] = self._drawn.of_draws(np.array(seen)) - area
        return scores

    def _estimate(self, of_score: np.ndarray) -> Estimate:
        measured, resampled = of_score[0], of_score[1:]
        if not np.isfinite(measured):
            return Estimate(None, None, 0)
        defined = resampled[np.isfinite(resampled)]
        ends = percentiles(defined) if len(defined) else None
        return Estimate(float(measured), tuple(ends) if ends else None, len(self.truth))

    def powers(self) -> dict[str, Estimate]:
        """Model -> b where the share called wrongly is fitted by a n^-b: a line through the logarithms.

        A score without an error counts as half a person's. Empty where there are fewer than three sizes.
        """
        if len(self.sizes) < 3:
            return {}
        least = 0.5 / len(self.truth)
        log_n = np.log(self.sizes)
        found = {}
        for model, by_size in self._resampled.items():
            errors = np.log(np.stack([by_size[n]["error"] for n in self.sizes]).clip(min=least))
            found[model] = self._estimate(-np.polyfit(log_n, errors, 1)[0])
        return found

    def passes(self, model: str, n: int) -> bool:
        """Whether the twin test is passed: both shares at least TURNED, and the AUC not below the fibre baseline's."""
        scores = self.scores[model][n]
        shares = [scores[name].value for name in TWIN_TEST]
        ahead = scores["over_baseline"]
        not_below = ahead.ci[1] >= 0 if ahead.ci else ahead.value >= 0
        return all(share is not None and share >= TURNED for share in shares) and not_below

    def passed_from(self, model: str) -> int | None:
        """The least n from which on the twin test is passed at every size; None where it is not at the greatest."""
        passed = None
        for n in reversed(self.sizes):
            if not self.passes(model, n):
                break
            passed = n
        return passed

    @property
    def best(self) -> str:
        """At the greatest n, of all but the laboratory's rule: who passes first, then the greatest AUC."""
        n = self.sizes[-1]
        tried = [model for model, arm in self.models.items() if not arm.is_rule]
        return max(tried, key=lambda model: (self.passes(model, n), self.scores[model][n]["auc"].value))

    def attention(self, model: str) -> Estimate:
        """AUROC over fibres of what a model attends to, at the greatest n: mean over patients with both kinds."""
        of_people = self.answered[model][self.sizes[-1]].attention
        if not of_people.size or not np.isfinite(of_people).any():
            return Estimate(None, None, 0)
        means = np.nanmean(of_people[:, np.isfinite(of_people).any(axis=0)], axis=0)
        people = [str(place) for place in range(len(means))]
        return metrics.interval(means, people, rng=np.random.default_rng(self.seed))

    def by_step(self, score: str) -> dict[str, dict[str, dict[int, Estimate]]]:
        """Step of the ladder -> model -> n -> a score, for a figure; "turned" is the smaller share of both twins."""
        found: dict[str, dict[str, dict[int, Estimate]]] = {}
        for model, arm in self.models.items():
            found.setdefault(arm.step, {})[model] = {
                n: _turned(of_size) if score == "turned" else of_size[score]
                for n, of_size in self.scores[model].items()
            }
        return found

    def table(self) -> pd.DataFrame:
        """For reading: a row for each model, people called wrongly at each n, and the power of the fit."""
        powers = self.powers()
        rows = {
            model: {f"n = {n}": str(of_size["error"]) for n, of_size in by_size.items()}
            | ({"power": str(powers[model])} if powers else {})
            for model, by_size in self.scores.items()
        }
        return pd.DataFrame(rows).T.rename_axis("people called wrongly")

    def leak_table(self) -> pd.DataFrame | LeftOut:
        """For reading: by how much a random split of patches or fibres says more than new people do."""
        rows = {
            model: {f"n = {n}": str(of_size["leak"]) for n, of_size in by_size.items() if "leak" in of_size}
            for model, by_size in self.scores.items()
        }
        rows = {model: row for model, row in rows.items() if row}
        if not rows:
            return LeftOut("sections so small hold a single patch, which cannot be dealt out.")
        return pd.DataFrame(rows).T.fillna("").rename_axis("AUC, random split minus new people")

    def ladder(self) -> pd.DataFrame:
        """For reading: what was tried, at the greatest n, failures included."""
        n = self.sizes[-1]
        rows = {}
        for model, arm in self.models.items():
            scores, passed = self.scores[model][n], self.passed_from(model)
            rows[arm.step, model] = {
                "AUC": str(scores["auc"]),
                "less the fibre baseline": str(scores["over_baseline"]) if model != BASELINE else "",
                **{title: str(scores[name]) for name, title in TWIN_TEST.items()},
                "AUROC over fibres": str(self.attention(model)) if self.attention(model).value is not None else "",
                "passes": "yes" if self.passes(model, n) else "no",
                "from n": "" if passed is None else str(passed),
            }
        return pd.DataFrame(rows).T.rename_axis(["step", "model"])

    def record(self) -> dict[str, Any]:
        """For a results file; models by `metrics.key`."""
        powers = self.powers()
        return {
            key(model): {
                "called": model,
                "step": self.models[model].step,
                "sizes": {str(n): of_size for n, of_size in by_size.items()},
                "power": powers.get(model),
                "passed_from": self.passed_from(model),
                "attention": self.attention(model),
            }
            for model, by_size in self.scores.items()
        }


def _turned(scores: Mapping[str, Estimate]) -> Estimate:
    """The smaller of both shares; nobody turned where nobody was called so."""
    shares = [scores[name] if scores[name].value is not None else Estimate(0.0) for name in TWIN_TEST]
    return min(shares, key=lambda share: share.value)


@dataclass(frozen=True, eq=False)
class Resampled:
    """The weight of each person and of each draw of training people: in the first row all alike, then resampled."""

    people: tuple[np.ndarray, np.ndarray]  # (B, N) of controls, 0 for patients, and the reverse; a row adds up to 1
    draws: np.ndarray  # (B, D)

    @classmethod
    def of(cls, truth: np.ndarray, n_draws: int, rng: Generator) -> Resampled:
        """truth: (N,) class indices."""
        classes = (truth == label for label in range(len(LABELS)))
        people = tuple(_weights(of_class.astype(float), rng) for of_class in classes)
        return cls(people, _weights(np.ones(n_draws), rng))

    def balanced(self, wrong: np.ndarray) -> np.ndarray:
        """(B,): mean of both classes' shares of a (D, N) truth value."""
        return np.mean([self._mean(wrong, weights) for weights in self.people], axis=0)

    def share(self, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """(B,): of (D, N) truth values, how many of `whole` are in `part`; nan where nobody is."""
        parts, wholes = (self._mean(of, sum(self.people)) for of in (part, whole))
        return np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)

    def of_draws(self, values: np.ndarray) -> np.ndarray:
        """(B,): mean of (D,) values."""
        return self.draws @ values

    def auc(self, p: np.ndarray) -> np.ndarray:
        """(B,): area under the ROC curve over people, mean over draws; p: (D, N)."""
        controls, patients = self.people
        areas = [
            ((controls @ ((np.sign(of_draw[None] - of_draw[:, None]) + 1) / 2)) * patients).sum(axis=1) for of_draw in p
        ]
        return (self.draws * np.transpose(areas)).sum(axis=1)

    def _mean(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(B,): of (D, N) values."""
        return (self.draws * (weights @ values.T.astype(float))).sum(axis=1)


def _weights(allowed: np.ndarray, rng: Generator) -> np.ndarray:
    """(1 + RESAMPLED, N): the mean of the allowed, then bootstrap draws among them."""
    even = allowed / allowed.sum()
    n = int(allowed.sum())
    return np.concatenate([even[None], rng.multinomial(n, even, size=RESAMPLED) / n])
