"""Models on the features of a frozen network, as trials whose answers are kept.

Features of the paper's sections are gigabytes and take half an hour; what a model answers takes kilobytes. So all that
reads features is a unit, also the logistic regressions, which train in seconds: a page is then drawn without features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mitolib.people.evaluation import Kept, Trial
from mitolib.people.material import Features
from mitolib.people.models import Head, Logistic

LOGISTIC = "features, logistic"


def head_trial(
    features: Features,
    labels: np.ndarray,
    rows: pd.DataFrame,
    folds: Mapping[str, Sequence[pd.Series]],
    *,
    steps: int,
    batch_size: int,
    seed: int,
    twins: bool,
    **name: Any,
) -> Trial:
    """A `Head` on the features, taught `labels`, (N,) class indices.

    rows, folds: see `Trial`. twins: whether rows of twins are trained on or tested. name: what else tells its units
    from others.
    """
    budget = {"steps": steps, "seed": seed}
    settings = {"batch_size": batch_size, "learning_rate": Head.learning_rate}
    return Trial(
        lambda: Head(features.maps_nhwc, labels, **budget, **settings),
        rows,
        folds,
        kept(features, "head", budget | name, settings, twins=twins),
    )


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
