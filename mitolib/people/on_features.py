"""Models on the features of a frozen network, as trials whose answers are kept.

Features of the paper's sections are gigabytes and take half an hour; what a model answers takes kilobytes. So all that
reads features is a unit, also the logistic regressions, which train in seconds: a page is then drawn without features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mitolib.people.evaluation import Kept, Trial
from mitolib.people.material import Features
from mitolib.people.models import Head, Logistic

LOGISTIC = "features, logistic"


@dataclass(frozen=True, kw_only=True)
class HeadBudget:
    """What the trainings of a head may take."""

    steps: int
    batch_size: int
    learning_rate: float
    seeds: Sequence[int]

    def record(self, features: Features) -> dict[str, int]:
        """For a results file, with what the features say of augmentation."""
        return {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "views": features.augmentation.views,
            "seeds": len(self.seeds),
        }


def head_trial(
    features: Features,
    labels: np.ndarray,
    rows: pd.DataFrame,
    folds: Mapping[str, Sequence[pd.Series]],
    *,
    budget: HeadBudget,
    twins: bool,
    **name: Any,
) -> Trial:
    """A `Head` on the features, taught `labels`, (N,) class indices.

    rows, folds: see `Trial`. twins: whether rows of twins are tested; none trains. name: what else tells its units from
    others.
    """
    settings = {"batch_size": budget.batch_size, "learning_rate": budget.learning_rate}
    kept_as = kept(
        features,
        "head",
        {"steps": budget.steps} | name,
        settings | {"augmentation": asdict(features.augmentation)},
        twins=twins,
    )

    def make(seed: int) -> Head:
        return Head(features.maps_nhwc, labels, steps=budget.steps, seed=seed, augmented=features.augmented, **settings)

    return Trial(make, rows, folds, replace(kept_as, prepare=features.prepare_augmented), seeds=budget.seeds)


def logistic_kept(features: Features, *, twins: bool, **name: Any) -> Kept:
    """Of a `Logistic` on the features. twins, name: see `head_trial`."""
    return kept(features, LOGISTIC, name, {"penalty": Logistic.penalty}, twins=twins)


def kept(features: Features, model: str, name: Mapping[str, Any], settings: Mapping[str, Any], *, twins: bool) -> Kept:
    """Of any model on the features. name, settings: what tells it from others, and all else that it depends on."""
    return Kept(
        {"model": f"{features.network} {model}", "proteins": features.proteins, **name},
        features.depends(twins=twins) | settings,
        features.prepare,
    )
