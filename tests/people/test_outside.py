"""People who never were: read once, asked once, never trained on."""

from __future__ import annotations

import errno
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from drawn_people import ToyReader, toy_draw

from mitolib import cohort, phantom
from mitolib.people import outside, readers
from mitolib.people.readers import MapReader
from mitolib.study import EXP1


def trained(*seeds: int) -> SimpleNamespace:
    by_seed = {}
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        head = keras.Sequential([keras.Input((7, 7, 2)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
        by_seed[seed] = SimpleNamespace(key=f"{seed:064}", head=head)
    return SimpleNamespace(by_seed=by_seed, network="VGG16")


def nobody_is_drawn(*_, **__):
    raise AssertionError("somebody was drawn")


def test_every_patch_of_every_person_is_answered_with_the_truth_beside(toy):
    answers = outside.ask_network(trained(1, 2), "one", toy.test.people, chapter="people")
    for of in answers.tables:
        assert len(of) == 6 * 4 and of["p"].between(0, 1).all()
        assert of.groupby("subject")["truth"].first().tolist() == [0, 0, 0, 1, 1, 1]
    assert not np.allclose(*(of["p"].mean() for of in answers.tables))


def test_the_answers_come_out_as_when_this_protocol_was_declared(toy):
    (of,) = outside.ask_network(trained(1), "one", toy.test.people, chapter="people").tables
    assert outside.PROTOCOL == 2, "raise the protocol, and pin what comes out now"
    assert of["p"].iloc[[0, 23]].tolist() == pytest.approx(PINNED, abs=1e-4)


PINNED = [0.39889, 0.36242]  # of the first and the last patch


def test_who_was_read_is_not_drawn_again_and_what_was_answered_needs_no_maps(toy, tmp_path, monkeypatch):
    first = outside.ask_network(trained(1), "one", toy.test.people, chapter="people")
    again = replace(toy.test.people, draw=nobody_is_drawn)
    more = outside.ask_network(trained(1, 2), "one", again, chapter="people")
    pd.testing.assert_frame_equal(more.tables[0], first.tables[0])
    assert more.fits.keys[0] == first.fits.keys[0], "a seed more changes no other unit"
    monkeypatch.setattr(outside, "FOLDER", tmp_path / "empty")
    pd.testing.assert_frame_equal(
        outside.ask_network(trained(1, 2), "one", again, chapter="people").tables[1], more.tables[1]
    )


def test_a_killed_run_keeps_the_people_that_were_read(toy, monkeypatch):
    monkeypatch.setattr(outside, "AT_ONCE", 1)
    drawn = []

    def is_killed_at_the_third(root, people, **twin):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(people["subjects"][0]["subject"])
        return toy_draw(root, people, **twin)

    with pytest.raises(KeyboardInterrupt):
        replace(toy.test.people, draw=is_killed_at_the_third).prepare()
    assert drawn == ["7C000", "7C001"] and len(list(outside.FOLDER.rglob("*.npz"))) == 2
    toy.test.people.prepare()
    assert len(list(outside.FOLDER.rglob("*.npz"))) == 6 and toy.reader.n_read == 6 * len(toy.readers)


def test_shares_begin_with_their_own_people_and_finish_those_of_others(toy, monkeypatch):
    monkeypatch.setattr(outside, "AT_ONCE", 1)
    monkeypatch.setenv("MITOLIB_SHARE", "1/2")
    order = []

    def noted(root, people, **twin):
        order.append(people["subjects"][0]["subject"])
        return toy_draw(root, people, **twin)

    replace(toy.test.people, draw=noted).prepare()
    assert order == ["7C001", "7P000", "7P002", "7C000", "7C002", "7P001"]


def test_a_share_asks_for_all_before_it_ends_at_the_first_answer_of_another(toy, monkeypatch):
    monkeypatch.setenv("MITOLIB_SHARE", "1/2")
    one, other = (outside.ask_network(trained(seed), "one", toy.test.people, chapter="people") for seed in (1, 2))
    assert [len(of.fits) for of in (one, other)] == [1, 1]
    with pytest.raises(SystemExit):
        _ = one.tables
    assert len(other.tables[0]) == 6 * 4


def test_another_recipe_or_reader_is_another_reading(toy):
    toy.test.people.prepare()
    other = {name: ToyReader("other") for name in toy.readers}
    for changed in (replace(toy.test.people, recipe=2), replace(toy.test.people, readers=other)):
        with pytest.raises(AssertionError, match="somebody was drawn"):
            replace(changed, draw=nobody_is_drawn).prepare()


def test_another_donor_is_another_affliction_and_the_same_person(toy):
    controls = [dict(subject, donor={"drawn": "another"}) for subject in toy.test.people.subjects[:3]]
    (afflicted, _), people = toy.test.twins, toy.test.people
    assert people.some(controls).depends == people.some(people.subjects[:3]).depends
    assert people.some(controls, "afflicted").depends != afflicted.depends
    one, other = ({"subjects": of} for of in (people.subjects, controls))
    assert outside.folder_of_pictures(one) != outside.folder_of_pictures(other)


def test_a_full_disk_is_named_and_who_was_read_stays(toy, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(outside.OutsideError, match=r"7C000.*No space left.*Free the disk"):
        toy.test.people.prepare()


def test_a_cured_twin_is_another_reading_of_a_patient(toy):
    afflicted, cured = toy.test.twins
    assert cured.table["label"].tolist() == ["patient"] * 3 and afflicted.truth.tolist() == [0, 0, 0]
    sick = toy.test.people.rows("fibres", "counts")[3:]
    assert all(not np.array_equal(*pair) for pair in zip(sick, cured.rows("fibres", "counts"), strict=True))


def test_who_was_trained_on_is_refused_under_any_name():
    people = phantom.draw_people(1, 2, seed=5, side_px=544)
    renamed = {**people, "subjects": [{**people["subjects"][1], "subject": "stranger"}]}
    with pytest.raises(outside.OutsideError, match="stranger as 5P001"):
        outside.refuse_acquaintances(people, renamed)
    outside.refuse_acquaintances(people, phantom.draw_people(1, 2, seed=6, side_px=544))


def test_people_on_a_disk_are_read_section_by_section_and_kept(make_cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(outside, "FOLDER", tmp_path / "outside")
    root = make_cohort({"Control": ["A", "B"], "Patient": ["C"]}, ("SDHA",), (64, 96))
    sections = cohort.read_cohort(root, ["SDHA"])
    layers = [keras.Input((224, 224, 3)), keras.layers.AveragePooling2D(32), keras.layers.Conv2D(4, 1)]
    keras.utils.set_random_seed(1)
    reader = MapReader(EXP1.adapted(patch_px=64, stride_px=32), keras.Sequential(layers), "digest")
    people = outside.OnDisk(root, sections, {"one": reader})
    (first, *_) = people.rows("one", "maps")
    assert first.shape == (2, 7, 7, 4) and first.dtype == np.float16
    assert people.table["subject"].tolist() == ["A", "B", "C"] and people.truth.tolist() == [0, 0, 1]
    (kept,) = {path.parent for path in outside.FOLDER.rglob("*.npz")}
    assert kept.name == readers.key(reader) and len(list(kept.iterdir())) == 3


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
