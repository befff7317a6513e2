"""Linear models of scikit-learn, fitted on one thread.

Their matrix products are so small that threads wait longer than they compute: benchmarks/bench_linear.py.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from sklearn.base import BaseEstimator
from threadpoolctl import ThreadpoolController


def fitted(model: BaseEstimator, features: np.ndarray, labels: np.ndarray) -> BaseEstimator:
    """The model, fitted. features: (N, F). labels: (N,) classes."""
    with _pools().limit(limits=1, user_api="blas"):
        return model.fit(features, labels)


@lru_cache(maxsize=1)  # looking through the loaded libraries takes as long as a small fit
def _pools() -> ThreadpoolController:
    return ThreadpoolController()
