"""The models of the book, asked of new people: scores, twins, and the scale of three places."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mitolib.people import asked
from mitolib.people.asked import Asked
from mitolib.people.morphometry import GREY_LEVELS
from mitolib.people.outside import Answers

N = 20  # of each class
PEOPLE = pd.DataFrame(
    {"subject": [f"C{i}" for i in range(N)] + [f"P{i}" for i in range(N)], "truth": [0] * N + [1] * N}
)


class Fits(list):
    record = ()


def answers(p: np.ndarray, n_trainings: int = 1, label: int | None = None) -> Answers:
    """p of each person, on two patches; label: of the one class that was asked."""
    people = PEOPLE if label is None else PEOPLE[PEOPLE["truth"] == label]
    fit = {"p_patient": np.repeat(p, 2), "patches": [2] * len(people)}
    return Answers(Fits([fit] * n_trainings), people.reset_index(drop=True))


ALL_ALTERED = Fits([{"altered": np.ones(2 * N, np.uint8)}])
RIGHT = np.where(PEOPLE["truth"] == 1, 0.9, 0.1) + np.linspace(0, 0.05, 2 * N)
HALF = np.where(np.arange(2 * N) % 2, RIGHT, 1 - RIGHT)  # every second person wrong


@pytest.fixture
def found() -> Asked:
    network = {
        "": answers(HALF, 3),
        "cured": answers(np.full(N, 0.1), 3, 1),
        "afflicted": answers(np.full(N, 0.1), 3, 0),
    }
    fibres = {"": answers(RIGHT), "cured": answers(np.full(N, 0.1), 1, 1), "afflicted": answers(np.full(N, 0.9), 1, 0)}
    return Asked({"VGG16, SDHA": network, GREY_LEVELS: fibres}, {"VGG16, SDHA": "exp1"}, ALL_ALTERED, seed=1)


def test_twins_are_turned_among_those_who_were_called_rightly(found):
    twins = found.twins()
    assert twins["VGG16, SDHA"]["cured"]["value"] == 1 and twins["VGG16, SDHA"]["cured"]["n"] == N / 2
    assert twins["VGG16, SDHA"]["afflicted"]["value"] == 0
    assert twins[GREY_LEVELS]["afflicted"]["ci"][0] == pytest.approx(0.8316, abs=1e-4)


def test_nobody_called_rightly_gives_no_share():
    wrong = {"": answers(1 - RIGHT), "cured": answers(np.full(N, 0.1), 1, 1)}
    assert Asked({"wrong": wrong}, {}, ALL_ALTERED, 0).twins()["wrong"]["cured"] == {"value": None, "ci": None, "n": 0}


def test_a_twin_that_is_the_person_itself_is_not_counted(found):
    some = Fits([{"altered": np.array([1] * 5 + [0] * (2 * N - 5), np.uint8)}])
    twins = Asked(found.answers, found.experiments, some, 1).twins()[GREY_LEVELS]
    assert twins["afflicted"]["n"] == 5 and twins["cured"]["n"] == 0


def test_the_fibre_baseline_is_held_against_each_network_on_the_same_people(found):
    gap = found.over_networks()["VGG16, SDHA"]
    assert gap["value"] > 0.3 and gap["ci"][0] > 0 and gap["n"] == 2 * N
    assert list(found.over_networks()) == ["VGG16, SDHA"]


def test_the_record_names_models_without_comma_or_space(found):
    record = found.record()
    assert set(record) == {"VGG16-SDHA", "outlined-fibres-grey-levels"}
    assert record["VGG16-SDHA"]["trainings"] == [0.5] * 3 and record["VGG16-SDHA"]["called"] == "VGG16, SDHA"
    assert "fibres_minus_this" not in record["outlined-fibres-grey-levels"]


def test_the_table_has_a_row_for_each_model_and_the_spread_of_its_trainings(found):
    table = found.table()
    assert table.loc["VGG16, SDHA", "trainings, right"] == "3: 0.50 to 0.50"
    assert table.loc[GREY_LEVELS, "right"].startswith("1.00 (0.91 to 1.00")


def test_three_places_stand_on_one_scale(found):
    trained = {"exp1": SimpleNamespace(seeds=pd.DataFrame({"accuracy": [0.8, 0.9, 0.85]}))}
    scale = asked.on_one_scale(found, trained, {"exp1": 0.95})
    assert [scale[place]["VGG16, SDHA"].value for place in scale] == [0.95, pytest.approx(0.85), 0.5]
    assert scale["as published"]["VGG16, SDHA"].ci is None and scale["ours, same split"]["VGG16, SDHA"].ci[1] <= 1


def test_pixels_are_cut_only_when_they_are_read():
    part = SimpleNamespace(themselves=[0, 1, 2], experiment=SimpleNamespace(proteins=("SDHA",)))
    pixels = asked._Pixels(part)
    assert pixels.shape == (3, 224, 224, 1) and pixels.dtype == np.uint8
    part.pixels_nhwc = {"": np.arange(3)}
    assert pixels[np.array([2])].tolist() == [2]
