"""Statistics of the chapter: intervals over a handful of draws, exact tests over people, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy import stats

from mitolib.metrics import LEAST_SUBJECTS, Estimate

RESAMPLES = 9999  # sign flips; with fewer than 14 people there are fewer, and the test is exact


def over_draws(values: Sequence[float]) -> Estimate:
    """Mean over independent draws with its 95 % interval by Student's t; what is not defined is left out and counted.

    No interval below three draws, nor where all are alike.
    """
    values = np.asarray(values, float)
    drawn = values[np.isfinite(values)]
    if not len(drawn):
        return Estimate(None, None, 0, len(values))
    ci = None
    if len(drawn) >= LEAST_SUBJECTS and np.ptp(drawn) > 0:
        ci = tuple(float(end) for end in stats.ttest_1samp(drawn, 0).confidence_interval())
    return Estimate(float(drawn.mean()), ci, len(drawn), len(values) - len(drawn))


def sign_flips(values: np.ndarray, subjects: Sequence[str], *, rng: Generator) -> float | None:
    """Two-sided p-value that the subjects' means have no preferred sign; None below three subjects.

    A permutation test by flipping the sign of each subject's mean (`scipy.stats.permutation_test`). With n subjects it
    cannot be less than 2 / 2**n.
    """
    means = pd.Series(np.asarray(values, float)).groupby(np.asarray(subjects)).mean().dropna().to_numpy()
    if len(means) < LEAST_SUBJECTS:
        return None
    test = stats.permutation_test((means,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=rng)
    return float(test.pvalue)


def holm(p_values: pd.Series) -> pd.Series:
    """The same after Holm's correction (1979, Scandinavian Journal of Statistics 6, 65-70) for as many tests."""
    ordered = p_values.sort_values()
    corrected = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1.0)
    return corrected.reindex(p_values.index)
