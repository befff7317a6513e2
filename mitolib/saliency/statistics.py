"""An exact test over people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy import stats

from mitolib.metrics import LEAST_SUBJECTS

RESAMPLES = 9999  # sign flips; with fewer than 14 people there are fewer, and the test is exact


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
