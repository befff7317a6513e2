"""What an arm is worth, and whether its answer runs through its axes: estimates with intervals over people.

Every estimate is a mean over patches in which both classes weigh alike, so that a difference of two arms is the mean of
the differences of their patches, and its interval is a paired one. The bootstrap draws people within their class; with
few controls it is a coarse one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.random import Generator

from mitolib import metrics
from mitolib.metrics import LEAST_SUBJECTS, Estimate
from mitolib.whitening import detection
from mitolib.whitening.arms import Evaluated

DRAWS = 2000
BySeed = Mapping[int, Evaluated]


def balanced(values: np.ndarray, labels: np.ndarray, subjects: Sequence[str], *, rng: Generator) -> Estimate:
    """The mean over the classes of the mean of (N,) values over their patches, with its 95 % interval over people.

    Of a share of patches called rightly it is the balanced accuracy. Where all are, no draw differs, and the
    interval is that of `detection.perfect`; where no draw differs otherwise, or people are fewer than three, there is
    none.
    """
    names, owner = np.unique(np.asarray(subjects), return_inverse=True)
    sums, sizes = np.bincount(owner, values), np.bincount(owner)
    of_class = [np.unique(owner[labels == label]) for label in np.unique(labels)]
    value = float(np.mean([sums[people].sum() / sizes[people].sum() for people in of_class]))
    if len(names) < LEAST_SUBJECTS:
        return Estimate(value, n=len(values))
    drawn = [people[rng.integers(len(people), size=(DRAWS, len(people)))] for people in of_class]
    means = np.mean([sums[people].sum(1) / sizes[people].sum(1) for people in drawn], axis=0)
    if np.ptp(means) < 1e-12:
        return Estimate(value, detection.perfect(len(names)) if value == 1 else None, n=len(values))
    return Estimate(value, tuple(np.percentile(means, [2.5, 97.5]).tolist()), n=len(values))


def right(by_seed: BySeed, name: str = "log_odds") -> np.ndarray:
    """(N,) of each tested patch the share of seeds, and of draws of other axes, in which it is called rightly.

    name: of the answers in the unit, see `arms.measured`.
    """
    return _mean(by_seed, name, lambda log_odds, sign: log_odds * sign > 0)


def cross_entropy(by_seed: BySeed, name: str = "log_odds") -> np.ndarray:
    """(N,) of each tested patch, mean over seeds and draws. name: see `right`."""
    return _mean(by_seed, name, lambda log_odds, sign: np.logaddexp(0, -log_odds * sign))


def _mean(by_seed: BySeed, name: str, of_answer: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    of_seeds = []
    for evaluated in by_seed.values():
        answers = np.atleast_2d(evaluated.of_patches(name))
        of_seeds.append(of_answer(answers, 2 * evaluated.labels - 1).mean(axis=0))
    return np.mean(of_seeds, axis=0)


def _estimate(values: np.ndarray, by_seed: BySeed, rng: Generator) -> Estimate:
    first = next(iter(by_seed.values()))
    return balanced(values, first.labels, first.subjects, rng=rng)


def scores(by_seed: BySeed, *, rng: Generator) -> dict[str, object]:
    """The entry of an arm in the results file, of all its seeds together.

    balanced_accuracy and accuracy over people, of the mean over seeds; auc of the mean log-odds; sd_over_seeds of the
    balanced accuracy, None for one seed; majority_baseline; seeds: seed -> `metrics.scores`.
    """
    first = next(iter(by_seed.values()))
    of_seeds = {
        seed: metrics.scores(evaluated.labels, evaluated.called_patient.astype(int))
        for seed, evaluated in by_seed.items()
    }
    log_odds = np.mean([evaluated.of_patches("log_odds") for evaluated in by_seed.values()], axis=0)
    balanced_accuracies = [of_seed["balanced_accuracy"] for of_seed in of_seeds.values()]
    return {
        "balanced_accuracy": _estimate(right(by_seed), by_seed, rng),
        "accuracy": metrics.interval(right(by_seed), first.subjects, rng=rng),
        "auc": detection.auc_interval(log_odds, first.labels, first.subjects, rng=rng),
        "sd_over_seeds": float(np.std(balanced_accuracies, ddof=1)) if len(by_seed) > 1 else None,
        "majority_baseline": metrics.majority_baseline(first.labels),
        "seeds": of_seeds,
    }


def difference(of: BySeed, less: BySeed, *, rng: Generator) -> Estimate:
    """Balanced accuracy of one arm less that of another on the same patches: a paired bootstrap over people."""
    return _estimate(right(of) - right(less), of, rng)


def shift(by_seed: BySeed, name: str) -> np.ndarray:
    """(N,) how far the log-odds of each tested patch move, over their standard deviation; mean over seeds and draws.

    Of a network that gives all patches one answer it is 0. name: of permuted answers, see `arms.measured`.
    """
    of_seeds = []
    for evaluated in by_seed.values():
        log_odds = evaluated.of_patches("log_odds")
        moved, spread = np.abs(evaluated.of_patches(name) - log_odds).mean(axis=0), log_odds.std()
        of_seeds.append(moved / spread if spread > 0 else 0 * moved)
    return np.mean(of_seeds, axis=0)


def difference_of_shifts(of: BySeed, less: BySeed, *, rng: Generator) -> Estimate:
    """How much further permuting the concept axes moves the log-odds of one arm than those of another; paired."""
    return _estimate(shift(of, "permuted_axes") - shift(less, "permuted_axes"), of, rng)


def importance(by_seed: BySeed, *, rng: Generator) -> dict[str, Estimate]:
    """Whether the answer runs through the axes of the concepts; of a whitened arm, over all its seeds.

    Permuted are these axes and, as a control, as many others; `more` is the first less the second. shift, shift_others
    and shift_more: how far the log-odds move, see `shift`. rise, ...: of the cross-entropy. fall, ...: of the balanced
    accuracy. alone: the balanced accuracy with all other axes permuted.
    """
    measured = {
        "shift": lambda name: shift(by_seed, name),
        "rise": lambda name: cross_entropy(by_seed, name) - cross_entropy(by_seed),
        "fall": lambda name: right(by_seed) - right(by_seed, name),
    }
    values = {"alone": right(by_seed, "axes_alone")}
    for name, measure in measured.items():
        axes, others = measure("permuted_axes"), measure("permuted_others")
        values |= {name: axes, f"{name}_others": others, f"{name}_more": axes - others}
    return {name: _estimate(of_patches, by_seed, rng) for name, of_patches in values.items()}
