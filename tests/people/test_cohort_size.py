"""Curves over the number of people: errors, powers, the twin test, and who is best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mitolib.own_data import LeftOut
from mitolib.people import arms
from mitolib.people.arms import BASELINE, BEST
from mitolib.people.budget import SIZE_BUDGETS
from mitolib.people.cohort_size import Answered, Curves, Resampled

TRUTH = np.repeat([0, 1], 50)
MODELS = {
    name: arm
    for name, arm in arms.arms(SIZE_BUDGETS["smoke"], learning_rate=1e-3, seed=0).items()
    if name in (BEST, BASELINE, "SDHA, logistic")
}


def answered(wrong: int, *, twins_turn: float = 1.0, draws: int = 3, seen: float = 1.0) -> Answered:
    """So many people of each class called wrongly; so great a share of the twins of all turned."""
    p = np.where(TRUTH == 1, 0.9, 0.1) + np.linspace(-0.05, 0.05, 100)
    for of_class in (slice(0, wrong), slice(50, 50 + wrong)):
        p[of_class] = 1 - p[of_class]
    turned = np.arange(100) % 50 < 50 * twins_turn
    twin = np.where(turned, 1 - p, p)
    p_seen = np.repeat([[1 - seen, seen]], draws, axis=0).repeat(4, axis=1)
    attention = np.where(TRUTH == 1, 0.9, np.nan)
    return Answered(*(np.tile(of, (draws, 1)) for of in (p, twin)), p_seen, np.tile(attention, (draws, 1)))


def curves(**by_model: dict[int, Answered]) -> Curves:
    of = {"baseline": BASELINE, "best": BEST, "pictures": "SDHA, logistic"}
    made = Curves(MODELS, {}, [{"altered": np.ones(100, np.uint8)}], TRUTH, seed=1)
    made.__dict__["answered"] = {of[name]: by_size for name, by_size in by_model.items()}
    return made


SIZES = (10, 20, 40)
FALLING = {n: answered(80 // n) for n in SIZES}  # 8, 4 and 2 of 50
FLAT = {n: answered(20, twins_turn=0.5) for n in SIZES}
PERFECT = {n: answered(0) for n in SIZES}
ALL = curves(baseline=PERFECT, best=FALLING, pictures=FLAT)


def test_an_error_that_halves_where_people_double_has_a_power_of_one():
    powers = ALL.powers()
    assert powers[BEST].value == pytest.approx(1, abs=0.01)
    low, high = powers[BEST].ci
    assert 0 < low < 1 < high
    assert powers["SDHA, logistic"].value == pytest.approx(0, abs=1e-9)
    assert powers[BASELINE].value == pytest.approx(0, abs=1e-9), "no error counts as half a person's, at every n"


def test_no_power_is_fitted_to_two_sizes():
    two = curves(baseline={n: answered(0) for n in SIZES[:2]}, best={n: answered(5) for n in SIZES[:2]})
    assert two.powers() == {}


def test_the_twin_test_asks_both_turns_and_the_baseline():
    assert ALL.passes(BEST, 40) == (ALL.scores[BEST][40]["over_baseline"].ci[1] >= 0)
    assert ALL.passes(BASELINE, 10) and ALL.passed_from(BASELINE) == 10
    assert not ALL.passes("SDHA, logistic", 40) and ALL.passed_from("SDHA, logistic") is None
    some = {n: answered(0, twins_turn=share) for n, share in zip(SIZES, (0.9, 0.5, 0.9), strict=True)}
    assert curves(baseline=PERFECT, best=some).passed_from(BEST) == 40, "at every size from there on"
    assert curves(baseline=PERFECT, best=some).scores[BEST][20]["cured"].value == pytest.approx(0.5)


def test_the_best_is_never_the_laboratory_s_rule():
    assert ALL.best == BEST


def test_a_share_of_nobody_is_not_defined():
    nobody = replace(answered(0), p=np.full((3, 100), 0.1))
    scores = curves(baseline={4: answered(0)}, best={4: nobody}).scores[BEST][4]
    assert scores["cured"].value is None and scores["afflicted"].value == pytest.approx(1)
    assert not curves(baseline={4: answered(0)}, best={4: nobody}).passes(BEST, 4)


def test_a_twin_that_is_the_person_itself_is_not_counted():
    half = {40: answered(0, twins_turn=0.5)}
    turned = (np.arange(100) % 50 < 25).astype(np.uint8)
    made = curves(baseline={40: answered(0)}, best=half)
    assert made.scores[BEST][40]["cured"].value == pytest.approx(0.5)
    again = replace(made, altered=[{"altered": turned}])
    again.__dict__["answered"] = made.answered
    assert again.scores[BEST][40]["cured"].value == pytest.approx(1)


def test_a_random_split_that_promises_more_leaks():
    assert ALL.scores["SDHA, logistic"][40]["leak"].value > 0.1
    assert ALL.scores[BASELINE][40]["leak"].value == pytest.approx(0)
    single = {4: replace(answered(0), p_seen=np.empty((3, 0)))}
    assert isinstance(curves(baseline=single).leak_table(), LeftOut)


def test_the_area_is_that_of_scikit_learn_and_the_resamples_scatter_about_it(rng):
    p = rng.random((2, 100)) + 0.3 * TRUTH
    drawn = Resampled.of(TRUTH, 2, rng)
    area = drawn.auc(p)
    assert area[0] == pytest.approx(np.mean([roc_auc_score(TRUTH, of_draw) for of_draw in p]))
    assert 0.02 < area[1:].std() < 0.08 and abs(area[1:].mean() - area[0]) < 0.01


def test_tables_and_the_record_have_every_model():
    assert list(ALL.ladder().index.get_level_values("model")) == list(MODELS)
    record = ALL.record()
    assert record["fibre-ratios-top-fibres"]["sizes"]["40"]["error"].value == pytest.approx(0.04)
    assert record["fibre-ratios-top-fibres"]["attention"].value == pytest.approx(0.9)
    assert {name for by_model in ALL.by_step("turned").values() for name in by_model} == set(MODELS)
