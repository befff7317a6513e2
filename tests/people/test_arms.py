"""The units of the learning curves, on people who are drawn without a picture."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from drawn_people import toy_people

from mitolib import units
from mitolib.own_data import LeftOut
from mitolib.people import arms
from mitolib.people.arms import BASELINE, BEST, OutsideTest, training_people
from mitolib.people.bags import LearnerError
from mitolib.people.budget import SIZE_BUDGETS
from mitolib.people.cohort_size import Curves
from mitolib.people.outside import OutsideError
from mitolib.settings import ROOT

BUDGET = replace(SIZE_BUDGETS["smoke"], sizes=(4, 8), draws=1, head_steps=2)
MODELS = arms.arms(BUDGET, learning_rate=1e-3, seed=3)
LIGHT = {name: MODELS[name] for name in (BEST, "fibre ratios, quantiles", BASELINE)}


def asked(toy, **changed: object) -> dict[str, units.Units]:
    return arms.ask(changed.pop("models", LIGHT), toy.test, [toy.draw], budget=replace(BUDGET, **changed))


def test_a_model_answers_for_each_n_of_everybody_and_every_twin(toy):
    fits = asked(toy)
    assert list(fits) == list(LIGHT) and all(len(of_model) == 2 for of_model in fits.values())
    for name, of_model in fits.items():
        for n, fit in zip((4, 8), of_model, strict=True):
            assert fit["p"].shape == fit["p_twin"].shape == (6,) and fit["p_seen"].shape == (n,)
            assert np.isfinite(fit["p"]).all(), name


# p of the first and the last person of the outside test, p of the last one's twin, at n = 8.
PINNED = {
    "SDHA, logistic": [0.1525, 0.8716, 0.1636],
    "SDHA, paper's head": [0.4671, 0.9228, 0.5176],
    "SDHA, top patches": [0.1509, 0.9439, 0.311],
    "ten proteins, logistic": [0.1525, 0.8716, 0.1636],
    "ten proteins, paper's head": [0.4671, 0.9228, 0.5176],
    "ten proteins, top patches": [0.1509, 0.9439, 0.311],
    "ratio pictures, logistic": [0.1525, 0.8716, 0.1636],
    "ratio pictures, top patches": [0.1509, 0.9438, 0.3111],
    "fibre crops, top fibres": [0.1128, 0.8196, 0.1096],
    "fibre ratios, top fibres": [0.1535, 0.8107, 0.1536],
    "fibre ratios, quantiles": [0.535, 0.8859, 0.2413],
    "fibre baseline, counts": [0.0487, 0.9514, 0.0487],
    "fibre baseline, grey levels": [0.0487, 0.9514, 0.0487],
}


def test_units_come_out_as_when_this_protocol_was_declared(toy, light_head):
    assert arms.PROTOCOL == 1, "raise the protocol, and pin what comes out now"
    fits = asked(toy, models=MODELS, sizes=(8,))
    found = {name: [*of_model[0]["p"][[0, -1]], of_model[0]["p_twin"][-1]] for name, of_model in fits.items()}
    assert found.keys() == PINNED.keys()
    for name, values in found.items():
        assert values == pytest.approx(PINNED[name], abs=2e-3), name


def test_a_run_that_finds_all_units_reads_nobody_and_fits_nothing(toy, monkeypatch):
    first = asked(toy)
    n_read = toy.reader.n_read
    monkeypatch.setattr(arms, "_fit", None)
    again = asked(toy)
    assert toy.reader.n_read == n_read
    assert [of_model.keys for of_model in again.values()] == [of_model.keys for of_model in first.values()]


def test_a_draw_or_a_size_more_changes_no_other_unit(toy):
    models = {BASELINE: MODELS[BASELINE]}
    one = asked(toy, models=models)[BASELINE]
    more = arms.ask(models, toy.test, [toy.draw, toy_people(4, 9)], budget=replace(BUDGET, draws=2, sizes=(4, 6, 8)))
    assert set(one.keys) < set(more[BASELINE].keys) and len(set(more[BASELINE].keys)) == 6


def test_another_outside_test_or_setting_is_another_unit(toy):
    keys = asked(toy, models={BEST: MODELS[BEST]})[BEST].keys
    other = replace(MODELS[BEST], learner=replace(MODELS[BEST].learner, top=0.2))
    assert not set(keys) & set(asked(toy, models={BEST: other})[BEST].keys)
    toy.test = OutsideTest.of(toy_people(2, 7), toy.readers, toy.test.people.draw, 1)
    assert not set(keys) & set(asked(toy, models={BEST: MODELS[BEST]})[BEST].keys)


def test_smaller_groups_are_part_of_greater_ones(toy):
    small, large = (training_people(toy.test, toy.draw, n) for n in (4, 8))
    assert set(small.table["subject"]) < set(large.table["subject"])
    assert small.truth.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("n", "found"), [(2, "n=2"), (5, "n=5"), (10, "from 4 to 8")])
def test_sizes_that_cannot_be_had_are_refused(toy, n, found):
    with pytest.raises(LearnerError, match=found):
        training_people(toy.test, toy.draw, n)


def test_one_person_of_a_class_is_no_outside_test(toy):
    with pytest.raises(LearnerError, match="1 controls and 1 patients in the outside test"):
        OutsideTest.of(toy_people(1, 7), toy.readers, toy.test.people.draw, 1)


def test_somebody_of_the_outside_test_does_not_train(toy):
    same = toy_people(4, 7)
    with pytest.raises(OutsideError, match="6 of 6 people of the outside test were trained on"):
        training_people(toy.test, same, 8)


def test_the_split_that_is_published_is_asked_where_rows_can_be_dealt_out(toy):
    (fit, _) = asked(toy, models={BEST: MODELS[BEST]})[BEST]
    assert fit["p_seen"].shape == (4,)
    single = replace(MODELS["ratio pictures, logistic"], rows=lambda pooled: pooled[:1])
    (fit, _) = asked(toy, models={"single": single})["single"]
    assert fit["p_seen"].size == 0


def test_what_a_model_of_fibres_attends_to_is_held_against_the_truth(toy):
    fit = asked(toy, models={BEST: MODELS[BEST]})[BEST][1]
    assert np.isnan(fit["attention"][:3]).all(), "a control has no deficient fibre"
    assert (fit["attention"][3:] == 1).all()
    assert asked(toy, models={BASELINE: MODELS[BASELINE]})[BASELINE][1]["attention"].size == 0


def test_curves_are_drawn_from_the_units(toy):
    curves = Curves(LIGHT, asked(toy), arms.altered(toy.test), toy.test.people.truth, seed=1)
    assert curves.sizes == [4, 8] and curves.passes(BEST, 8) and curves.best in LIGHT
    assert set(curves.table().columns) == {"n = 4", "n = 8"} and len(curves.ladder()) == len(LIGHT)
    json.dumps([unit["key"] for unit in curves.units])


def test_whose_twin_differs_is_a_unit_of_its_own(toy, monkeypatch):
    (found,) = arms.altered(toy.test)
    assert found["altered"].tolist() == [1] * 6
    rows = type(toy.test.people).rows

    def without_deficiency_in_the_first(people, reader, part):
        return [np.zeros(20, np.int8), *rows(people, reader, part)[1:]]

    monkeypatch.setattr(type(toy.test.people), "rows", without_deficiency_in_the_first)
    monkeypatch.setenv("MITOLIB_UNITS", str(arms.units.cache() / "others"))
    assert arms.altered(toy.test)[0]["altered"].tolist() == [0, 1, 1, 1, 1, 1]


def test_pairs_are_left_out_of_people_and_too_few_are_not(toy):
    chosen = {name: MODELS[name] for name in (BEST, BASELINE)}
    pairs = arms.leave_pair_out(chosen, training_people(toy.test, toy.draw, 6), seed=1)
    by_pairs = [entry for entry in pairs.entries if entry["split"] == "leave-one-control-one-patient-out"]
    assert {entry["model"]: entry["auc_subject"] for entry in by_pairs} == {BEST: 1.0, BASELINE: 1.0}
    table = arms.by_person(pairs)
    assert table["class"].tolist() == ["control"] * 3 + ["patient"] * 3
    assert table[BEST].astype(float)[:3].max() < table[BEST].astype(float)[3:].min()
    few = arms.leave_pair_out(chosen, training_people(toy.test, toy.draw, 4), seed=1)
    assert isinstance(few, LeftOut) and "2 people in the smaller class" in few.reason


def test_what_is_run_on_data_of_ones_own_is_the_best_of_the_published_results():
    assert BEST in MODELS and BASELINE in MODELS
    path = ROOT / "book" / "results" / "people.json"
    if not path.exists():
        pytest.skip("the chapter is not published yet")
    record = json.loads(path.read_text())
    assert record["models"][record["best"]]["called"] == BEST
