"""People who never were: like the measured ones, and nobody's copy."""

from __future__ import annotations

import errno
import json

import numpy as np
import pandas as pd
import pytest

from mitolib import cohort, settings
from mitolib.phantom import PhantomError, draw, draw_people, make_people, new_people
from mitolib.phantom.calibration import read_calibration

COHORT = json.loads(settings.CALIBRATION.read_text())


@pytest.fixture(scope="module")
def hundred() -> dict:
    return draw_people(100, 100, seed=1)


@pytest.fixture(scope="module")
def model() -> new_people.PeopleModel:
    return new_people.fit(COHORT)


def by_label(people: dict, label: str) -> list[dict]:
    return [subject for subject in people["subjects"] if subject["label"] == label]


def test_who_is_drawn_does_not_depend_on_how_many_are(hundred):
    two = draw_people(1, 1, seed=1)
    assert two["subjects"] == [by_label(hundred, label)[0] for label in settings.LABELS]
    assert draw_people(1, 1, seed=2)["subjects"][0] != two["subjects"][0]


def test_nobody_is_a_copy(hundred):
    levels = [tuple(s["normal_log_mean"]) for s in hundred["subjects"]]
    outlines = [tuple(s["tissue"]) for s in hundred["subjects"]]
    assert len(set(levels)) == len(set(outlines)) == 200
    measured = np.array([s["classes"]["none"]["log_mean"] for s in COHORT["subjects"] if "none" in s["classes"]])
    assert min(np.abs(measured - level).max(axis=1).min() for level in np.array(levels)) > 0.01


def test_the_measured_people_lie_among_the_drawn(hundred):
    table = new_people.compare(hundred, COHORT)
    assert (table["p"] > 0.05).all() and len(table) == 9 + 10
    assert set(table["measured"]) == {3, 8, 10}
    spread = table.query("measured == 8")
    assert (spread["least"] < 0.3).all() and (spread["greatest"] > 0.7).all()


def test_people_drawn_with_other_levels_would_be_found(hundred):
    shifted = json.loads(json.dumps(hundred))
    for subject in shifted["subjects"]:
        for group in subject["classes"].values():
            group["log_mean"] = [level + 2 for level in group["log_mean"]]
    table = new_people.compare(shifted, COHORT)
    assert (table[table["measure"] == "NDUFB8"]["p"] < 0.05).all()


def test_the_effects_have_the_mean_and_spread_of_the_model(model):
    people = draw_people(400, 400, seed=3)
    log_level = np.log(np.expm1([s["normal_log_mean"] for s in by_label(people, "control")]))
    np.testing.assert_allclose(log_level.mean(axis=0), model.levels.mean, atol=0.1)
    np.testing.assert_allclose(np.cov(log_level.T), model.levels.between, atol=0.08)
    mosaic = [s for s in by_label(people, "patient") if "none" in s["classes"]]
    share = np.array([1 - s["classes"]["none"]["fraction"] for s in mosaic])
    logit = np.log(share / (1 - share))
    assert abs(logit.mean() - model.share.mean[0]) < 0.3
    assert abs(logit.std() - np.sqrt(model.share.covariance[0, 0])) < 0.3
    of_patients = np.log(np.expm1([s["normal_log_mean"] for s in mosaic]))
    np.testing.assert_allclose(of_patients.mean(axis=0) - model.levels.mean, model.shift, atol=0.12)


def test_the_difference_between_patients_and_controls_is_shrunk(model):
    assert 0 < model.shift_weight < 1
    same = {**COHORT, "subjects": [dict(s) for s in COHORT["subjects"]]}
    controls = np.mean(
        [s["classes"]["none"]["log_mean"] for s in same["subjects"] if s["subject"] in ("C01", "C02", "C03")], axis=0
    )
    patients = [s for s in same["subjects"] if s["label"] == "patient" and "none" in s["classes"]]
    mean = np.mean([s["classes"]["none"]["log_mean"] for s in patients], axis=0)
    for subject in patients:  # patients moved onto the controls: what is left is chance, and goes
        moved = (np.array(subject["classes"]["none"]["log_mean"]) - mean + controls).clip(0.05).tolist()
        subject["classes"] = subject["classes"] | {"none": subject["classes"]["none"] | {"log_mean": moved}}
    assert new_people.fit(same).shift_weight == 0.0


def test_nuclear_disease_leaves_no_normal_fibre_and_mosaics_leave_some(hundred):
    patients = by_label(hundred, "patient")
    assert {s["genotype"] for s in patients} == {s["genotype"] for s in by_label(COHORT, "patient")}
    for subject in patients:
        is_nuclear = subject["genotype"] == new_people.NUCLEAR
        assert (set(subject["classes"]) == {"CI"}) == is_nuclear
        assert sum(group["fraction"] for group in subject["classes"].values()) == pytest.approx(1, abs=1e-3)


def test_each_person_has_a_folder_and_a_killed_run_goes_on(tmp_path, monkeypatch):
    people = draw_people(1, 2, seed=5, side_px=512)
    drawn = []
    make_phantom = new_people.make_phantom

    def fails_at_the_third(root, **options):
        if len(drawn) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        drawn.append(root)
        return make_phantom(root, **options)

    monkeypatch.setattr(new_people, "make_phantom", fails_at_the_third)
    with pytest.raises(PhantomError, match="No space left"):
        make_people(tmp_path, people, workers=1)
    monkeypatch.setattr(new_people, "make_phantom", make_phantom)
    before = (drawn[0] / "recipe.json").stat().st_mtime_ns
    folders = make_people(tmp_path, people, workers=2)
    assert [folder.name for folder in folders] == ["5C001", "5P001", "5P002"]
    assert (folders[0] / "recipe.json").stat().st_mtime_ns == before
    sections = [section for folder in folders for section in cohort.read_cohort(folder)]
    assert [section.label for section in sections] == ["control", "patient", "patient"]
    assert sections[0].image_yx("SDHA").shape == (512, 512)


def test_a_cured_twin_of_a_patient_without_a_normal_fibre_can_be_drawn(tmp_path):
    patients = draw_people(0, 40, seed=5, side_px=512)
    nuclear = next(s for s in patients["subjects"] if s["genotype"] == new_people.NUCLEAR)
    one = patients | {"subjects": [nuclear]}
    (sick,) = make_people(tmp_path / "sick", one)
    (cured,) = make_people(tmp_path / "cured", one, cured=True)
    sick_ndufb8, cured_ndufb8 = (
        pd.read_csv(folder / "truth" / "fibres.csv")["NDUFB8"].mean() for folder in (sick, cured)
    )
    assert cured_ndufb8 > 3 * sick_ndufb8


def test_an_afflicted_twin_of_a_control_has_the_deficiency_of_its_donor(tmp_path):
    people = draw_people(3, 0, seed=5, side_px=512)
    donors = [control["donor"] for control in people["subjects"]]
    assert all("none" in donor["classes"] for donor in donors)
    assert donors == [control["donor"] for control in draw_people(3, 5, seed=5, side_px=512)["subjects"][:3]]
    (folder, *_) = make_people(tmp_path, people | {"subjects": people["subjects"][:1]}, afflicted=True)
    fibres = pd.read_csv(folder / "truth" / "fibres.csv")["deficiency"]
    share = 1 - donors[0]["classes"]["none"]["fraction"]
    assert (fibres != "none").sum() == pytest.approx(share * len(fibres), abs=2)


def test_another_person_in_the_folder_is_refused(tmp_path):
    make_people(tmp_path, draw_people(1, 0, seed=5, side_px=512))
    with pytest.raises(PhantomError, match="holds another phantom"):
        make_people(tmp_path, draw_people(1, 0, seed=5, side_px=544))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"n_controls": 0, "n_patients": 0}, "n_controls=0, n_patients=0"),
        ({"n_controls": -1, "n_patients": 2}, "n_controls=-1"),
        ({"n_controls": 1, "n_patients": 1, "side_px": 400}, "side_px=400"),
    ],
)
def test_impossible_wishes_are_refused(options, found):
    with pytest.raises(PhantomError, match=found):
        draw_people(**options, seed=1)


@pytest.mark.parametrize("without", [("C01", "C02"), ("P01",), tuple(f"P{i:02}" for i in range(4, 11))])
def test_a_calibration_with_one_person_of_a_kind_has_no_spread_between_people(without):
    rest = {**COHORT, "subjects": [s for s in COHORT["subjects"] if s["subject"] not in without]}
    with pytest.raises(PhantomError, match="wanted two of each"):
        new_people.fit(rest)


def test_new_people_bring_the_share_of_fibre_and_the_normal_levels_that_they_were_drawn_with(hundred):
    subject = hundred["subjects"][0]
    assert draw._fill(subject) == subject["fill"]
    assert draw.FILL[0] <= min(s["fill"] for s in hundred["subjects"])


def test_a_negative_spread_is_refused(tmp_path):
    people = draw_people(1, 0, seed=5, side_px=512)
    people["subjects"][0]["log_cov"][2][2] = -0.1
    with pytest.raises(PhantomError, match="5C001 has a negative spread"):
        make_people(tmp_path, people)


def test_a_folder_of_another_recipe_is_refused(tmp_path, monkeypatch):
    people = draw_people(1, 0, seed=5, side_px=512)
    make_people(tmp_path, people)
    monkeypatch.setattr(draw, "RECIPE_VERSION", draw.RECIPE_VERSION + 1)
    with pytest.raises(PhantomError, match="holds another phantom"):
        make_people(tmp_path, people)


def test_the_comparison_is_told_in_words_with_both_tails(hundred):
    compared = new_people.compare(hundred, COHORT)
    table = new_people.in_words(compared, {"control": 100, "patient": 100})
    row, of = table.loc[("patient", "deficient share")], compared.query("measure == 'deficient share'").iloc[0]
    assert row["drawn below the least measured"] == f"{of['least']:.0%}"
    assert row["drawn above the greatest measured"] == f"{1 - of['greatest']:.0%}"
    assert row["measured"] == 8 and row["drawn"] == 100


def test_people_differ_as_the_measured_do_and_their_fibres_exactly(hundred, model):
    table = new_people.spread(hundred, COHORT)
    between = table["between people"]
    np.testing.assert_allclose(between["measured"], np.sqrt(np.diag(model.levels.between)))
    np.testing.assert_allclose(between["drawn"], between["measured"], rtol=0.2)
    np.testing.assert_allclose(table["within a person"]["drawn"], np.sqrt(np.diag(model.levels.within)), rtol=0.01)


def test_whoever_is_drawn_can_be_read_back(tmp_path):
    """Also a mosaic whose share of deficient fibres comes out as nearly none or nearly all."""
    people = draw_people(0, 400, seed=2023)
    path = tmp_path / "people.json"
    path.write_text(json.dumps(people))
    read_calibration(path)
    shares = [s["classes"]["none"]["fraction"] for s in people["subjects"] if "none" in s["classes"]]
    assert min(shares) == pytest.approx(new_people.LEAST_SHARE) and max(shares) <= 1 - new_people.LEAST_SHARE
