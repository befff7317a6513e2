"""Person by person: who of those not seen is called wrongly, beside the share of their fibres that is deficient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from mitolib.people import metrics
from mitolib.people.morphometry import Fibres
from mitolib.settings import LABELS


@dataclass(frozen=True)
class Persons:
    """of_model: a row for each person: label, p (mean over patches, folds, seeds), right (by majority of them), share.

    share: of the person's fibres that are deficient, 0 to 1, nan where it is not known. shares_from: what it rests on.
    """

    of_model: Mapping[str, pd.DataFrame]
    shares_from: str

    @classmethod
    def of(cls, predictions: Mapping[str, pd.DataFrame], fibres: Fibres) -> Persons:
        """predictions: by model, of people not seen."""
        tables = {}
        for model, of in predictions.items():
            people = metrics.by_subject(of)
            tables[model] = pd.DataFrame(
                {
                    "label": [LABELS[truth] for truth in people["truth"]],
                    "p": people["score"],
                    "right": (people["votes"] > 0.5) == (people["truth"] == 1),
                    "share": fibres.shares.reindex(people.index),
                }
            )
        return cls(tables, fibres.shares_from)

    def table(self) -> pd.DataFrame:
        """A row for each person, patients by their share: mean p of each model, and whether it is wrong."""
        first = next(iter(self.of_model.values()))
        order = first.assign(place=first["label"].map(LABELS.index)).sort_values(["place", "share"]).index
        columns: dict[str, pd.Series] = {"class": first["label"]}
        if first["share"].notna().all():
            columns["deficient fibres"] = first["share"].map("{:.1%}".format)
        for model, people in self.of_model.items():
            wrong = np.where(people["right"], "", ", wrong")
            columns[model] = people["p"].map("{:.2f}".format) + wrong
        return pd.DataFrame(columns).loc[order].rename_axis("person")

    def record(self) -> dict[str, dict[str, Any]]:
        """Model, as `metrics.key` has it, -> people by subject; wrong, their names; and what `_few_fibres` says."""
        found = {}
        for model, people in self.of_model.items():
            of_people = people.astype({"right": bool}).replace({np.nan: None})
            found[metrics.key(model)] = {
                "people": of_people.to_dict("index"),
                "wrong": people.index[~people["right"]].tolist(),
            } | _few_fibres(people)
        return found


def _few_fibres(people: pd.DataFrame) -> dict[str, Any]:
    """missed, found: patients called controls and patients called so, each with the share; p_fewer of the comparison.

    p_fewer: one-sided, of the exact test of Mann and Whitney: have those missed fewer deficient fibres? None where
    nobody is missed or found, or shares are not known.
    """
    patients = people[people["label"] == LABELS[1]].sort_values("share")
    if patients["share"].isna().any():
        return {"missed": {}, "found": {}, "p_fewer": None}
    missed, found = (patients.loc[patients["right"] == right, "share"] for right in (False, True))
    p = None
    if len(missed) and len(found):
        tied = patients["share"].duplicated().any()
        method = "asymptotic" if tied else "exact"
        p = float(mannwhitneyu(missed, found, alternative="less", method=method).pvalue)
    return {"missed": missed.to_dict(), "found": found.to_dict(), "p_fewer": p}
