"""Models that learn by the label of a person alone."""

from __future__ import annotations

import numpy as np
import pytest

from mitolib.people import bags
from mitolib.people.bags import FibreBaseline, LearnerError, PapersHead, Quantiles, TopRows

LABELS = np.repeat([0, 1], 8)


def mosaic(rng: np.random.Generator, share: float, n: int = 60) -> np.ndarray:
    """(n, 3) levels of VDAC1, NDUFB8, MTCO1 of fibres, of which a share lacks NDUFB8."""
    counts = np.exp(rng.normal(0, 0.15, (n, 3)) + rng.normal(0, 0.2, (1, 1)))
    counts[: round(share * n), 1] *= 0.1
    return counts


@pytest.fixture
def people(rng) -> list[np.ndarray]:
    """Eight controls, then eight patients with a tenth of their fibres deficient."""
    return [mosaic(rng, 0.1 * label) for label in LABELS]


def half(values: list) -> tuple[list, list]:
    return [*values[:4], *values[8:12]], [*values[4:8], *values[12:]]


@pytest.mark.parametrize(
    "learner", [TopRows(top=0.05, rounds=3), Quantiles(), FibreBaseline()], ids=lambda learner: type(learner).__name__
)
def test_a_mosaic_is_recognised_in_people_who_were_not_trained_on(learner, people):
    of_trained, asked = half([bags.ratios(bag) if type(learner) is not FibreBaseline else bag for bag in people])
    p = learner.fit(of_trained, np.repeat([0, 1], 4)).p(asked)
    assert p[:4].max() < p[4:].min() and p[:4].mean() < 0.5 < p[4:].mean()


def test_an_average_hides_the_mosaic_that_the_highest_rows_show(people):
    of_trained, asked = half(
        [bags.ratios(bag) + np.random.default_rng(i).normal(0, 0.7) for i, bag in enumerate(people)]
    )
    labels = np.repeat([0, 1], 4)
    apart = {}
    for top in (1.0, 0.05):
        p = TopRows(top=top, rounds=3).fit(of_trained, labels).p(asked)
        apart[top] = p[4:].mean() - p[:4].mean()
    assert apart[0.05] > apart[1.0] + 0.1


def test_the_highest_rows_are_the_deficient_fibres(people):
    fitted = TopRows(top=0.05, rounds=3).fit([bags.ratios(bag) for bag in people], LABELS)
    of_patient = fitted.rows(bags.ratios(people[-1]))
    assert of_patient[:6].min() > of_patient[6:].max()


def test_the_line_moves_with_the_evidence_of_training_people(people):
    """Where evidence is shifted for everybody, as a stain does, the classes are told apart all the same."""
    shifted = [bags.ratios(bag) + 3 for bag in people]
    p = TopRows(top=0.05, rounds=3).fit(shifted, LABELS).p(shifted)
    assert p[:8].max() < 0.5 < p[8:].min()


def test_without_anything_to_learn_no_line_turns_the_answers_round(rng):
    noise = [rng.normal(size=(5, 2)) for _ in LABELS]
    fitted = TopRows().fit(noise, LABELS)
    order = np.argsort([fitted.rows(bag).mean() for bag in noise])
    assert (np.diff(fitted.p(noise)[order]) >= 0).all()


def test_a_ratio_is_what_is_left_when_all_levels_double(people):
    one, twice = bags.ratios(people[0]), bags.ratios(2 * people[0])
    np.testing.assert_allclose(one[:, :3], twice[:, :3])
    np.testing.assert_allclose(twice[:, 3] - one[:, 3], np.log(2))
    np.testing.assert_allclose(one[:, 2], one[:, :2].min(axis=1))


def test_the_paper_s_head_is_asked_for_the_mean_over_patches(light_head, rng):
    maps = [(rng.normal(0, 0.1, (4, 7, 7, 2)) + label).astype(np.float16) for label in LABELS]
    p = PapersHead(steps=60, batch_size=2, learning_rate=1e-2, seed=1).fit(maps, LABELS).p(maps)
    assert p.shape == (16,) and p[:8].max() < p[8:].min()


@pytest.mark.parametrize("learner", [TopRows(), Quantiles(), FibreBaseline(), PapersHead(1, 2, 1e-3, 0)])
def test_fewer_than_two_of_a_class_are_refused(learner, people):
    with pytest.raises(LearnerError, match="3 controls and 1 patients"):
        learner.fit(people[:4], np.array([0, 0, 0, 1]))


def test_somebody_without_a_fibre_is_named(people):
    with pytest.raises(LearnerError, match="of number 2;"):
        Quantiles().fit([people[0], people[1][:0], *people[2:]], LABELS)
