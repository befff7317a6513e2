"""The outside test: people who never were, asked once."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from mitolib import phantom
from mitolib.people import outside
from mitolib.study import EXP1

PEOPLE = phantom.draw_people(1, 2, seed=5, side_px=544)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MITOLIB_UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(outside, "FOLDER", tmp_path / "outside")
    return tmp_path


def reader() -> outside.Reader:
    keras.utils.set_random_seed(1)
    layers = [keras.Input((224, 224, 3)), keras.layers.AveragePooling2D(32), keras.layers.Conv2D(4, 1)]
    return outside.Reader(EXP1.adapted(stride_px=32), keras.Sequential(layers), "digest")


def trained(*seeds: int) -> SimpleNamespace:
    by_seed = {}
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        head = keras.Sequential([keras.Input((7, 7, 4)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
        by_seed[seed] = SimpleNamespace(key=f"{seed:064}", head=head)
    return SimpleNamespace(by_seed=by_seed)


def new_people(draw=phantom.make_people, reading=reader, **options) -> outside.Outside:
    return outside.Outside(PEOPLE | options.pop("people", {}), {"toy": reading}, draw, **options)


def nobody_is_drawn(*_, **__):
    raise AssertionError("somebody was drawn")


def test_every_patch_of_every_person_is_answered_with_the_truth_beside(folders):
    answers = outside.ask(trained(1, 2), "toy", new_people(), chapter="people")
    assert len(answers) == 2 * 3 * 4, "seeds, people, and two by two patches of 512 px"
    assert answers.groupby("subject")["truth"].first().to_dict() == {"5C001": 0, "5P001": 1, "5P002": 1}
    assert answers["p"].between(0, 1).all() and not np.allclose(*answers.groupby("seed")["p"].mean())


def test_who_was_read_is_not_drawn_again_and_what_was_answered_needs_no_maps(folders, monkeypatch):
    first = outside.ask(trained(1), "toy", new_people(), chapter="people")
    more = outside.ask(trained(1, 2), "toy", new_people(nobody_is_drawn), chapter="people")
    pd.testing.assert_frame_equal(more[more["seed"] == 1], first)
    monkeypatch.setattr(outside, "FOLDER", folders / "empty")
    again = outside.ask(trained(1, 2), "toy", new_people(nobody_is_drawn, nobody_is_drawn), chapter="people")
    pd.testing.assert_frame_equal(again, more)


def test_a_killed_run_keeps_the_people_that_were_read(folders, monkeypatch):
    monkeypatch.setattr(outside, "AT_ONCE", 1)
    drawn = []

    def is_killed_at_the_third(root, people, **options):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(people["subjects"][0]["subject"])
        return phantom.make_people(root, people, **options)

    with pytest.raises(KeyboardInterrupt):
        _ = new_people(is_killed_at_the_third).maps
    assert drawn == ["5C001", "5P001"] and len(list(outside.FOLDER.rglob("*.npy"))) == 2
    assert len(new_people().maps["toy"]) == len(list(outside.FOLDER.rglob("*.npy"))) == 3


def test_a_cured_twin_is_another_picture_of_a_patient(folders):
    patient = {"subjects": PEOPLE["subjects"][1:2]}
    (sick,), (cured,) = (new_people(people=patient, twin=twin).maps["toy"] for twin in ("", "cured"))
    assert sick.shape == cured.shape and not np.array_equal(sick, cured)


def test_who_was_trained_on_is_refused_under_any_name():
    renamed = {**PEOPLE, "subjects": [{**PEOPLE["subjects"][1], "subject": "stranger"}]}
    with pytest.raises(outside.OutsideError, match="stranger as 5P001"):
        outside.refuse_acquaintances(PEOPLE, renamed)
    outside.refuse_acquaintances(PEOPLE, phantom.draw_people(1, 2, seed=6, side_px=544))


def predictions(p_by_person: dict[str, list[float]], n_patches: int = 4) -> pd.DataFrame:
    rows = [
        (f"{label}{i}", int(label == "P"), value)
        for label, values in p_by_person.items()
        for i, value in enumerate(values)
        for _ in range(n_patches)
    ]
    return pd.DataFrame(rows, columns=["subject", "truth", "p"])


def test_scores_are_of_people():
    found = outside.scores(predictions({"C": [0.1, 0.2, 0.7, 0.3], "P": [0.9, 0.8, 0.6, 0.4, 0.95]}))
    assert found["sensitivity"]["value"] == 0.8 and found["sensitivity"]["n"] == 5
    assert found["specificity"]["value"] == 0.75 and found["accuracy"]["value"] == pytest.approx(7 / 9)
    low, high = found["accuracy"]["ci"]
    assert low < 0.5 < 7 / 9 < high
    assert found["auc"]["value"] == pytest.approx(18 / 20)
    low, high = found["auc"]["ci"]
    assert low < 0.9 < high <= 1
    assert sum(row["n"] for row in found["calibration"]) == 9
    assert found["brier"] == pytest.approx(np.mean(np.square([0.1, 0.2, 0.7, 0.3, 0.1, 0.2, 0.4, 0.6, 0.05])), abs=1e-9)


def test_an_auc_without_an_error_has_no_bootstrap_interval():
    assert outside.scores(predictions({"C": [0.1, 0.2], "P": [0.9, 0.8]}))["auc"]["ci"] is None
