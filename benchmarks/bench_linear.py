"""Is a logistic regression on features of a few hundred patches faster with one thread of BLAS than with all?

    python benchmarks/bench_linear.py        (or `make bench`)

Claim. From some hundred patches on, `models.Logistic` fits at least twice as fast, with the same answers: a step of
its solver is a few small matrix products, in which threads wait longer than they compute. The features are normal
numbers, as many as VGG16 has channels.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
from timing import in_turns, load_average, ratio

from mitolib import linear
from mitolib.people import models

N_FEATURES, ROUNDS, FITS = 512, 9, 4
ALL_THREADS = SimpleNamespace(limit=lambda **_: nullcontext())


def main() -> None:
    """One line per number of patches: the ratio of times, and the greatest difference between two answers."""
    print(load_average())
    rng = np.random.default_rng(0)
    for n in (80, 300, 1000, 2500):
        features = rng.standard_normal((n, N_FEATURES))
        labels = (features[:, :5].sum(axis=1) + rng.standard_normal(n) > 0).astype(int)
        model, train, test = models.Logistic(features, labels), np.arange(0, n, 2), np.arange(1, n, 2)

        def with_all(model: models.Logistic = model, train: np.ndarray = train) -> object:
            with patch.object(linear, "_pools", return_value=ALL_THREADS):
                return model.fit(train)

        timed = in_turns({"all": (with_all, FITS), "one": (partial(model.fit, train), FITS)}, ROUNDS)
        apart = np.abs(with_all().predict_proba(features[test])[:, -1] - model(train, test)).max()
        print(
            f"{len(train)} patches: all threads take {ratio(timed, 'all', 'one'):.1f} times as long as one "
            f"({1e3 * np.median(timed['one']):.0f} ms); answers differ by {apart:.0e} at most"
        )


if __name__ == "__main__":
    main()
