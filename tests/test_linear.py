from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from mitolib import linear


class Watching(BaseEstimator):
    """Notes how many threads the products of its fit may use."""

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Watching:
        self.threads = threads()
        return self


def threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_a_fit_has_one_thread_and_all_others_have_theirs_back(rng):
    before = threads()
    during = linear.fitted(Watching(), rng.standard_normal((4, 2)), np.arange(4) % 2).threads
    assert during == [1] * len(before) and len(before) > 0
    assert threads() == before


def test_threads_are_given_back_after_a_fit_that_fails(rng):
    before = threads()
    with pytest.raises(ValueError, match="one class"):
        linear.fitted(LogisticRegression(), rng.standard_normal((4, 2)), np.zeros(4))
    assert threads() == before


def test_the_answers_are_those_of_scikit_learn(rng):
    features, labels = rng.standard_normal((200, 20)), np.arange(200) % 2
    features[:, 0] += labels
    ours, plain = linear.fitted(LogisticRegression(), features, labels), LogisticRegression().fit(features, labels)
    np.testing.assert_allclose(ours.predict_proba(features), plain.predict_proba(features), rtol=1e-9)
