from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.measure import block_reduce

from mitolib import cohort, settings
from mitolib.people import morphometry
from mitolib.phantom.draw import make_phantom

MARGIN_PX = 24


def wall(n: int, side_px: int, gap_px: int, round_: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """n x n dark cells between bright membranes, in the middle of an empty picture: membranes, cell numbers."""
    cells = np.zeros((n * (side_px + gap_px) + gap_px,) * 2, int)
    y, x = np.indices((side_px, side_px)) - (side_px - 1) / 2
    inside = y**2 + x**2 <= (side_px / 2) ** 2 if round_ else np.ones(y.shape, bool)
    for i in range(n * n):
        top, left = (gap_px + k * (side_px + gap_px) for k in divmod(i, n))
        cells[top : top + side_px, left : left + side_px][inside] = i + 1
    membranes = np.where(cells > 0, 10, 200).astype(np.uint8)
    return np.pad(membranes, MARGIN_PX), np.pad(cells, MARGIN_PX)


def n_labels(labels_yx: np.ndarray, cells_yx: np.ndarray) -> int:
    """How many labels lie on cells; the strip around the wall may be outlined too."""
    return len(np.unique(labels_yx[(labels_yx > 0) & (cells_yx > 0)]))


@pytest.mark.parametrize("round_", [False, True])
@pytest.mark.parametrize(("n", "side_px", "gap_px"), [(4, 24, 6), (3, 30, 4), (5, 20, 4)])
def test_each_cell_between_membranes_is_one_fibre(n, side_px, gap_px, round_):
    membranes, cells = wall(n, side_px, gap_px, round_)
    found = morphometry.outline(membranes)
    assert found.dtype == np.int32 and found.shape == cells.shape and n_labels(found, cells) == n * n
    shared = pd.crosstab(cells[cells > 0], found[cells > 0])
    assert shared.idxmax(axis=1).gt(0).all() and shared.idxmax(axis=1).is_unique
    assert (shared.max(axis=1) > 0.95 * shared.sum(axis=1)).all()


@pytest.mark.parametrize("grey", [0, 100, 255])
def test_a_blank_picture_has_no_fibres(grey):
    blank = np.full((60, 80), grey, np.uint8)
    assert not morphometry.outline(blank).any()


def test_where_there_is_no_membrane_there_is_no_fibre():
    membranes, cells = wall(6, 24, 6)
    edge = MARGIN_PX + 93
    membranes[:, edge:] = 0
    found = morphometry.outline(membranes)
    assert (found[:, :edge][cells[:, :edge] > 0] > 0).all() and n_labels(found[:, :edge], cells[:, :edge]) == 18
    assert not found[:, edge + int(morphometry.FIBRE_PX) :].any()


def test_fibres_that_fill_the_picture_are_found():
    membranes, cells = (picture[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] for picture in wall(4, 24, 6))
    assert n_labels(morphometry.outline(membranes), cells) == 16


@pytest.mark.parametrize(("side_px", "kept"), [(5, 0), (10, 36)])
def test_specks_are_no_fibres(side_px, kept):
    membranes, cells = wall(6, side_px, 2)
    assert n_labels(morphometry.outline(membranes), cells) == kept


@pytest.mark.parametrize(("depth", "kept"), [(5, 15), (60, 16)])
def test_a_shallow_hollow_is_no_fibre_of_its_own(depth, kept):
    membranes, cells = wall(4, 24, 6)
    membranes[cells == 6] = 200 - depth
    assert n_labels(morphometry.outline(membranes), cells) == kept


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A control with large fibres and a patient with small ones, as published but the smallest sections."""
    folder = tmp_path_factory.mktemp("phantom")
    calibration = json.loads(settings.CALIBRATION.read_text())
    calibration["subjects"] = [s for s in calibration["subjects"] if s["subject"] in ("C01", "P05")]
    (folder / "cohort.json").write_text(json.dumps(calibration))
    return make_phantom(folder / "sections", scale=0.1, calibration=folder / "cohort.json", workers=1)


@pytest.fixture(scope="module")
def fibres(phantom: Path) -> pd.DataFrame:
    return morphometry.measure(cohort.read_cohort(phantom))


def test_about_as_many_fibres_are_outlined_as_there_are(phantom, fibres):
    true, found = (table["section"].value_counts() for table in (cohort.read_fibres(phantom), fibres))
    assert set(found.index) == {"C01", "P05"}
    assert (found / true).between(0.85, 1.15).all()


def test_an_outlined_fibre_lies_mainly_in_one_true_fibre_and_most_true_fibres_are_found(phantom):
    for section in cohort.read_cohort(phantom):
        label, _ = cohort.read_truth(phantom, section.section)
        small = block_reduce(section.image_yx("Dystrophin"), 2, np.mean)
        found = morphometry.outline(small).repeat(2, axis=0).repeat(2, axis=1)[: label.shape[0], : label.shape[1]]
        shared = pd.crosstab(found.ravel(), label.ravel()).drop(index=0)
        assert (shared.max(axis=1) / shared.sum(axis=1)).median() > 0.75, "of its pixels, the gaps around it included"
        inner = shared.drop(columns=0)
        purity = inner.max(axis=1) / inner.sum(axis=1)
        assert purity.median() > 0.95 and (purity > 0.8).mean() > 0.85
        covered = inner.max(axis=0) / np.bincount(label.ravel())[inner.columns]
        assert (covered > 0.5).sum() > 0.9 * label.max()


def test_outlining_does_not_choose_among_deficient_and_normal_fibres(phantom):
    label, classes = cohort.read_truth(phantom, "P05")
    section = next(s for s in cohort.read_cohort(phantom) if s.section == "P05")
    found = morphometry.outline(block_reduce(section.image_yx("Dystrophin"), 2, np.mean))
    covered = np.bincount(label[::2, ::2][found > 0], minlength=len(classes) + 1)[1:]
    seen = pd.Series(covered / np.bincount(label[::2, ::2].ravel(), minlength=len(classes) + 1)[1:], classes.index)
    by_class = (seen > 0.5).groupby(classes != "none").mean()
    assert len(by_class) == 2 and by_class.min() > 0.9


def test_a_fibre_is_measured_where_it_lies(phantom, fibres):
    true = cohort.read_fibres(phantom)
    for section, own in fibres.groupby("section"):
        label, _ = cohort.read_truth(phantom, section)
        at = label[own["y"].astype(int), own["x"].astype(int)]
        assert (at > 0).mean() > 0.85, "the centre of an outlined fibre lies in a true one"
        beside = true[true["section"] == section].set_index("fibre").loc[at[at > 0]]
        own = own[at > 0]
        assert (own["area_px"] / beside["area_px"].to_numpy()).median() == pytest.approx(1.15, abs=0.2)
        for protein in ("VDAC1", "NDUFB8", "MTCO1"):
            assert np.corrcoef(own[protein], beside[protein])[0, 1] > 0.7, protein


def test_the_table_of_fibres_names_section_subject_and_what_each_holds(fibres):
    columns = ["section", "subject", "y", "x", "area_px", "VDAC1", "NDUFB8", "MTCO1"]
    assert list(fibres) == columns and fibres.index.equals(pd.RangeIndex(len(fibres)))
    assert fibres["area_px"].min() >= morphometry.LEAST_AREA_PX and (fibres["section"] == fibres["subject"]).all()
    assert fibres[["VDAC1", "NDUFB8", "MTCO1"]].to_numpy().min() >= 0
    assert fibres[["VDAC1", "NDUFB8", "MTCO1"]].to_numpy().max() <= 255


def test_a_blank_section_has_no_fibres(tmp_path, make_cohort, monkeypatch):
    sections = cohort.read_cohort(make_cohort({"Control": ["C"]}))
    monkeypatch.setattr(cohort.Section, "image_yx", lambda self, protein: np.full((600, 700), 7, np.uint8))
    found = morphometry.measure(sections)
    assert found.empty and {"subject", "VDAC1", "NDUFB8", "MTCO1"} <= set(found)


# ---- deficient for its mass


def drawn(rng: np.random.Generator, deficient: dict[str, float], n: int = 60) -> pd.DataFrame:
    """`n` fibres of each subject on a line in the logs, of which a share has a twentieth of the NDUFB8 or MTCO1."""
    parts = []
    for i, (subject, share) in enumerate(deficient.items()):
        mass = np.exp(rng.normal(3, 0.6, n))
        protein = {name: 0.5 * mass**0.9 * np.exp(rng.normal(0, 0.15, n)) for name in ("NDUFB8", "MTCO1")}
        protein[("NDUFB8", "MTCO1")[i % 2]][: round(share * n)] /= 20
        parts.append(pd.DataFrame({"section": subject, "subject": subject, "VDAC1": mass} | protein))
    return pd.concat(parts, ignore_index=True)


def test_z_of_the_control_fibres_has_mean_0_and_deviation_1_and_no_slope(rng):
    fibres = drawn(rng, {"C1": 0, "C2": 0, "P1": 0.5})
    z = morphometry.below_controls(fibres, ["C1", "C2"])
    of_controls = fibres["subject"] != "P1"
    assert list(z) == ["NDUFB8", "MTCO1"] and z.index.equals(fibres.index)
    np.testing.assert_allclose(z[of_controls].mean(), 0, atol=1e-9)
    np.testing.assert_allclose(z[of_controls].std(), 1)
    for protein in z:
        assert np.corrcoef(z[protein][of_controls], np.log(fibres["VDAC1"])[of_controls])[0, 1] == pytest.approx(0)


def test_a_fibre_is_deficient_for_its_mass_and_not_for_being_pale(rng):
    controls = drawn(rng, {"C1": 0, "C2": 0})
    bright, pale = (pd.DataFrame({"VDAC1": [m], "NDUFB8": [0.5 * m**0.9], "MTCO1": [0.5 * m**0.9]}) for m in (60, 4))
    lacking = bright.assign(NDUFB8=pale["NDUFB8"])
    asked = pd.concat([bright, pale, lacking]).assign(subject="P")
    z = morphometry.below_controls(pd.concat([controls, asked], ignore_index=True), ["C1", "C2"]).tail(3)
    assert z["NDUFB8"].iloc[:2].abs().max() < 1 and z["MTCO1"].abs().max() < 1
    assert z["NDUFB8"].iloc[2] < -10


def test_a_fibre_of_nothing_counts_as_of_a_hundredth(rng):
    fibres = drawn(rng, {"C1": 0, "P1": 0})
    fibres.loc[[70, 71], "NDUFB8"] = [0, 0.01]
    fibres.loc[71, "VDAC1"] = fibres.loc[70, "VDAC1"]
    z = morphometry.below_controls(fibres, ["C1"])
    assert np.isfinite(z.to_numpy()).all() and z["NDUFB8"][70] == z["NDUFB8"][71] < -10


def test_only_the_named_controls_set_the_line(rng):
    fibres = drawn(rng, {"C1": 0, "C2": 0, "C3": 0, "P1": 0.5})
    other = fibres.assign(NDUFB8=fibres["NDUFB8"].where(~fibres["subject"].isin(["C3", "P1"]), 99))
    here = fibres["subject"].isin(["C1", "C2"])
    z, again = (morphometry.below_controls(table, ["C1", "C2"])[here] for table in (fibres, other))
    pd.testing.assert_frame_equal(z, again)
    assert not np.allclose(morphometry.below_controls(other, ["C1", "C3"])[here], z)


SHARES = {f"C{i}": 0.0 for i in range(4)} | {f"P{i}": 0.2 + 0.1 * i for i in range(6)}


def deficient_share(rng: np.random.Generator, fibres: pd.DataFrame | None = None) -> morphometry.DeficientShare:
    """Three rows of every subject of SHARES."""
    subjects = np.repeat(list(SHARES), 3)
    labels = np.array([int(name[0] == "P") for name in subjects])
    return morphometry.DeficientShare(drawn(rng, SHARES) if fibres is None else fibres, subjects, labels)


def test_the_share_of_deficient_fibres_is_that_which_was_drawn_whichever_subunit_is_low(rng):
    model = deficient_share(rng)
    np.testing.assert_allclose(model.shares(["C0", "C1", "C2"]), np.repeat(list(SHARES.values()), 3), atol=0.04)


def test_a_patient_is_told_by_its_deficient_fibres(rng):
    model = deficient_share(rng)
    held_out = np.isin(model.subjects, ["C3", "P0", "P5"])
    p = model(np.flatnonzero(~held_out), np.flatnonzero(held_out))
    assert p.shape == (9,) and ((p >= 0) & (p <= 1)).all()
    assert p[:3].max() < 0.5 < p[3:].min(), "P0 too, with fewer than any of the others"


@pytest.mark.parametrize("held_out", ["C3", "P5"])
def test_the_fibres_of_a_subject_that_is_tested_change_no_answer_but_its_own(held_out, rng):
    fibres = drawn(rng, SHARES)
    other = fibres.copy()
    own = other["subject"] == held_out
    other.loc[own, ["VDAC1", "NDUFB8", "MTCO1"]] = rng.uniform(1, 200, (own.sum(), 3))
    first, second = (deficient_share(rng, table) for table in (fibres, other))
    train, test = (np.flatnonzero(np.isin(first.subjects, [held_out, "P4"]) == tested) for tested in (False, True))
    p, again = (model(train, test) for model in (first, second))
    of_own = first.subjects[test] == held_out
    np.testing.assert_array_equal(p[~of_own], again[~of_own])
    assert (p[of_own] != again[of_own]).all()


def test_the_labels_of_tested_rows_change_no_answer(rng):
    model = deficient_share(rng)
    test = np.flatnonzero(np.isin(model.subjects, ["C3", "P5"]))
    train = np.setdiff1d(np.arange(30), test)
    other = model.labels.copy()
    other[test] = 1 - other[test]
    p = model(train, test)
    np.testing.assert_array_equal(morphometry.DeficientShare(model.fibres, model.subjects, other)(train, test), p)


def test_grey_is_turned_back_into_the_counts_of_its_section_and_protein():
    stretch = pd.DataFrame(
        [
            (section, protein, low + 10 * i, high + 20 * i)
            for i, section in enumerate("AB")
            for protein, low, high in (("SDHA", 0, 1), ("VDAC1", 2, 53), ("NDUFB8", 1, 6), ("MTCO1", 0, 255))
        ],
        columns=["section", "protein", "low", "high"],
    )
    counts = pd.DataFrame(
        {
            "section": list("BAB"),
            "y": [1, 2, 3],
            "VDAC1": [40.0, 20, 12],
            "NDUFB8": [12.0, 4, 25],
            "MTCO1": [99.0, 7, 11],
        },
        index=[5, 3, 8],
    )
    limits = stretch.set_index(["section", "protein"])
    grey = counts.copy()
    for row, section in counts["section"].items():
        for protein in ("VDAC1", "NDUFB8", "MTCO1"):
            low, high = limits.loc[(section, protein)]
            grey.loc[row, protein] = (counts.loc[row, protein] - low) / (high - low) * 255
    before = grey.copy()
    pd.testing.assert_frame_equal(morphometry.as_counts(grey, stretch), counts)
    pd.testing.assert_frame_equal(grey, before)


def test_a_subject_without_a_fibre_is_named(rng):
    model = morphometry.DeficientShare(
        drawn(rng, {"C1": 0, "P1": 0.5}), np.array(["C1", "P1", "P2"]), np.array([0, 1, 1])
    )
    with pytest.raises(ValueError, match="no fibre was found in any section of P2"):
        model(np.array([0, 1]), np.array([2]))


@pytest.mark.parametrize(
    ("found", "finding"),
    [
        ({"C1": 3, "C2": 4, "P1": 1}, ""),
        ({"C1": 3, "C2": 3}, "No fibre was found in any section of P1,"),
        ({"C1": 9, "C2": 2, "P1": 9}, "Too few fibres were found in the sections of C2 (2): the line of the controls"),
    ],
)
def test_too_few_fibres_are_a_finding(found, finding):
    fibres = pd.DataFrame({"subject": [subject for subject, n in found.items() for _ in range(n)]})
    people = pd.DataFrame({"subject": ["P1", "C1", "C2"], "label": ["patient", "control", "control"]})
    reason = morphometry.too_few(fibres, people)
    assert reason.startswith(finding) and bool(reason) == bool(finding)
