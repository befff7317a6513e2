from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from scipy import ndimage as ndi
from skimage.measure import regionprops_table
from skimage.segmentation import clear_border

from mitolib import cohort, settings
from mitolib.phantom import draw
from mitolib.phantom.calibration import PhantomError, donors
from mitolib.phantom.draw import in_original_stretch, make_phantom, section_size
from mitolib.phantom.geometry import Geometry
from mitolib.phantom.pixels import Stain

SIDE_PX = 900
PUBLISHED_ORDER = json.loads(settings.CALIBRATION.read_text())["proteins"]


def write_calibration(path: Path, subjects: tuple[str, ...], side_px: int = SIDE_PX) -> Path:
    """The real calibration with only some subjects, on small square sections full of tissue."""
    cohort = json.loads(settings.CALIBRATION.read_text())
    cohort["subjects"] = [
        {**subject, "width": side_px, "height": side_px, "tissue": ["." + "#" * 13] * 14}
        if subject["label"] == "patient"
        else {**subject, "width": side_px, "height": side_px}
        for subject in cohort["subjects"]
        if subject["subject"] in subjects
    ]
    path.write_text(json.dumps(cohort))
    return path


def digests(root: Path, below: str = "") -> dict[str, str]:
    files = sorted(path for path in (root / below).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def grey(root: Path, subject: str, protein: str) -> np.ndarray:
    return tifffile.imread(next(root.glob(f"*/{subject}/{protein}.tif")))


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_calibration(tmp_path_factory.mktemp("calibration") / "cohort.json", ("C01", "P02", "P05"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, calibration: Path) -> Path:
    return make_phantom(tmp_path_factory.mktemp("phantom") / "sick", calibration=calibration)


@pytest.fixture(scope="module")
def cured(tmp_path_factory: pytest.TempPathFactory, calibration: Path) -> Path:
    return make_phantom(tmp_path_factory.mktemp("phantom") / "cured", calibration=calibration, cured=True, workers=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A control, and the patient that it gets its deficiency from in the afflicted twin."""
    return write_calibration(tmp_path_factory.mktemp("calibration") / "pair.json", ("C01", "P05"))


@pytest.fixture(scope="module")
def afflicted(tmp_path_factory: pytest.TempPathFactory, pair: Path) -> Path:
    return make_phantom(tmp_path_factory.mktemp("phantom") / "afflicted", calibration=pair, afflicted=True)


@pytest.fixture(scope="module")
def fibres(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "truth" / "fibres.csv")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """One subject, the quickest to draw."""
    return write_calibration(tmp_path / "cohort.json", ("C01",), side_px=300)


def published(subject: str) -> dict:
    return next(s for s in json.loads(settings.CALIBRATION.read_text())["subjects"] if s["subject"] == subject)


def test_every_subject_has_ten_proteins_as_tiff_and_as_jpeg(root):
    assert len([*root.glob("Control/*/*"), *root.glob("Patient/*/*")]) == 60
    for subject in ("C01", "P02", "P05"):
        for protein in settings.PROTEINS:
            image = grey(root, subject, protein)
            assert image.shape == (SIDE_PX, SIDE_PX) and image.dtype == np.uint8
            with Image.open(next(root.glob(f"*/{subject}/{protein}.jpg"))) as jpeg:
                assert jpeg.mode == "L" and jpeg.size == (SIDE_PX, SIDE_PX)


def test_cohort_table_declares_sections_subjects_and_labels(root):
    table = pd.read_csv(root / "cohort.csv")
    assert table.columns.tolist() == ["section", "subject", "label", "genotype"]
    assert table[["section", "label"]].to_numpy().tolist() == [
        ["C01", "control"],
        ["P02", "patient"],
        ["P05", "patient"],
    ]


def test_the_same_seed_gives_the_same_bytes_however_many_threads_draw(root, calibration, tmp_path):
    assert digests(make_phantom(tmp_path / "again", calibration=calibration, workers=1)) == digests(root)


def test_another_seed_gives_another_section(tmp_path, tiny):
    one, other = (
        digests(make_phantom(tmp_path / str(seed), seed=seed, calibration=tiny), "Control") for seed in (1, 2)
    )
    assert one.keys() == other.keys() and not set(one.values()) & set(other.values())


def test_leaving_out_a_subject_changes_no_other(root, tmp_path):
    alone = write_calibration(tmp_path / "alone.json", ("P05",))
    assert digests(make_phantom(tmp_path / "alone", calibration=alone), "Patient") == digests(root, "Patient/P05")


def test_label_map_and_fibre_table_agree(root, fibres):
    for section, table in fibres.groupby("section"):
        label = tifffile.imread(root / "truth" / f"{section}.tif")
        assert label.dtype == np.uint16 and label.shape == (SIDE_PX, SIDE_PX)
        assert table["fibre"].tolist() == list(range(1, label.max() + 1))
        assert table["area_px"].tolist() == np.bincount(label.ravel())[1:].tolist()
        centre = label[table["y"].round().astype(int), table["x"].round().astype(int)]
        assert (centre == table["fibre"]).mean() > 0.97  # a bent fibre may not hold its own centre


def test_areas_and_elongation_are_near_the_published_ones(root, fibres):
    for section in ("C01", "P02", "P05"):
        label, wanted = tifffile.imread(root / "truth" / f"{section}.tif"), published(section)
        label = clear_border(label)  # fibres cut by the border are no measure of size
        whole = regionprops_table(label, properties=("area", "bbox"))
        area, spans = np.log(whole["area"]), (whole["bbox-2"] - whole["bbox-0"]) / (whole["bbox-3"] - whole["bbox-1"])
        assert area.mean() == pytest.approx(wanted["fibre_area_px"]["log_mean"], abs=0.12)
        assert area.std() == pytest.approx(wanted["fibre_area_px"]["log_sd"], abs=0.17)  # of about a hundred fibres
        assert np.median(np.maximum(spans, 1 / spans)) == pytest.approx(wanted["aspect_ratio_median"], rel=0.12)


def test_shares_of_deficient_fibres_are_the_published_ones_to_within_one_fibre(fibres):
    table = fibres[fibres["section"] == "P05"]
    found = table["deficiency"].value_counts()
    for name, group in published("P05")["classes"].items():
        assert abs(found[name] - group["fraction"] * len(table)) <= 1


def test_levels_of_each_class_are_near_the_published_means(fibres):
    for name, group in published("P05")["classes"].items():
        table = fibres[(fibres["section"] == "P05") & (fibres["deficiency"] == name)]
        found = np.log1p(table[PUBLISHED_ORDER]).mean().to_numpy()  # the published table holds counts + 1
        np.testing.assert_allclose(found, group["log_mean"], atol=0.17)


def test_a_brighter_fibre_has_a_higher_level(root, fibres):
    label = tifffile.imread(root / "truth" / "P05.tif")
    table = fibres[fibres["section"] == "P05"]
    for protein in ("SDHA", "COX4", "VDAC1"):
        total = np.bincount(label.ravel(), grey(root, "P05", protein).ravel())[1:]
        assert np.corrcoef(total / table["area_px"], table[protein])[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["root", "cured", "afflicted"])
def test_grey_runs_from_the_5th_to_the_95th_percentile_of_the_counts(kind, request):
    folder = request.getfixturevalue(kind)
    stretch = pd.read_csv(folder / "truth" / "stretch.csv")
    assert len(stretch) == (20 if kind == "afflicted" else 30) and (stretch["high"] > stretch["low"]).all()
    for row in stretch[stretch["high"] - stretch["low"] > 10].itertuples():
        image = grey(folder, row.section, row.protein)
        assert len(np.unique(image)) == row.high - row.low + 1
        assert 0.05 <= (image == 255).mean() < 0.10


def test_dystrophin_is_on_the_border_of_a_fibre_and_mitochondria_are_within(root):
    label = tifffile.imread(root / "truth" / "P05.tif")
    depth = ndi.distance_transform_edt(label > 0)
    border, core = (depth > 0) & (depth <= 2), depth > 5
    dystrophin, vdac = grey(root, "P05", "Dystrophin"), grey(root, "P05", "VDAC1")
    assert dystrophin[border].mean() > 5 * dystrophin[core].mean()
    assert vdac[label > 0].mean() > 3 * vdac[label == 0].mean()


def test_in_the_stretch_of_the_original_twins_agree_in_every_pixel_outside_deficient_fibres(root, cured, fibres):
    for section in ("P02", "P05"):
        label = tifffile.imread(root / "truth" / f"{section}.tif")
        np.testing.assert_array_equal(label, tifffile.imread(cured / "truth" / f"{section}.tif"))
        deficient = fibres.loc[fibres["section"] == section, "deficiency"] != "none"
        elsewhere = ~np.append(False, deficient)[label]
        for protein in settings.PROTEINS:
            sick, healthy = (grey(folder, section, protein) for folder in (root, in_original_stretch(cured)))
            np.testing.assert_array_equal(sick[elsewhere], healthy[elsewhere])


def test_a_control_is_the_same_in_the_cured_twin_byte_for_byte(root, cured):
    assert digests(cured, "Control") == digests(root, "Control")


@pytest.mark.parametrize(("kind", "section"), [("cured", "P02"), ("cured", "P05"), ("afflicted", "C01")])
def test_a_twins_picture_shows_its_counts_between_its_own_percentiles(root, request, kind, section):
    """Where the original's stretch does not cut them off, the counts can be read back from it."""
    twin = request.getfixturevalue(kind)
    limits = [
        pd.read_csv(folder / "truth" / "stretch.csv").set_index(["section", "protein"]).loc[section]
        for folder in (root, twin)
    ]
    for protein in settings.PROTEINS:
        (low, high), (own_low, own_high) = (table.loc[protein] for table in limits)
        before, after = grey(in_original_stretch(twin), section, protein), grey(twin, section, protein)
        seen = (before > 0) & (before < 255)
        counts = low + np.ceil(before[seen] * (high - low) / 255)
        wanted = np.clip((counts - own_low) / (own_high - own_low) * 255, 0, 255).astype(np.uint8)
        assert seen.any()
        np.testing.assert_array_equal(after[seen], wanted)
    assert (limits[0].loc["NDUFB8", "high"] != limits[1].loc["NDUFB8", "high"]) or section == "P05"
    assert limits[0].loc["Dystrophin"].equals(limits[1].loc["Dystrophin"]), "membranes do not change"


def test_a_twin_in_the_stretch_of_the_original_is_a_cohort_of_the_altered_sections(root, cured, afflicted):
    assert [s.section for s in cohort.read_cohort(in_original_stretch(cured))] == ["P02", "P05"]
    assert [s.section for s in cohort.read_cohort(in_original_stretch(afflicted))] == ["C01"]
    with pytest.raises(PhantomError, match="wanted pictures of a twin"):
        in_original_stretch(root)


def test_curing_raises_ndufb8_in_deficient_fibres_pixel_by_pixel(root, cured, fibres):
    normal = pd.read_csv(cured / "truth" / "fibres.csv")
    for section in ("P02", "P05"):
        here = fibres["section"] == section
        deficient = here & (fibres["deficiency"] != "none")
        raised = normal["NDUFB8"] > fibres["NDUFB8"]
        assert raised[deficient].mean() > 0.98
        assert not raised[here & ~deficient].any()
        label = tifffile.imread(root / "truth" / f"{section}.tif")
        pixels = np.append(False, (deficient & raised)[here])[label]
        sick, healthy = (grey(folder, section, "NDUFB8").astype(int) for folder in (root, in_original_stretch(cured)))
        assert (healthy >= sick)[pixels].all()
        assert healthy[pixels].mean() > 1.5 * sick[pixels].mean()


def test_a_subject_without_normal_fibres_is_cured_on_its_own_mass(root, cured, fibres):
    sick = fibres[fibres["section"] == "P02"]
    normal = pd.read_csv(cured / "truth" / "fibres.csv").query("section == 'P02'")
    np.testing.assert_allclose(normal["VDAC1"], sick["VDAC1"], rtol=1e-3)
    control = dict(zip(PUBLISHED_ORDER, published("C01")["classes"]["none"]["log_mean"], strict=True))
    ratio = np.expm1(control["NDUFB8"]) / np.expm1(control["VDAC1"])
    assert np.median(normal["NDUFB8"] / normal["VDAC1"]) == pytest.approx(ratio, rel=0.2)


def test_in_its_original_stretch_an_afflicted_control_is_the_same_in_every_pixel_outside_its_deficient_fibres(
    root, afflicted
):
    twin = pd.read_csv(afflicted / "truth" / "fibres.csv", keep_default_na=False).query("section == 'C01'")
    label = tifffile.imread(root / "truth" / "C01.tif")
    np.testing.assert_array_equal(label, tifffile.imread(afflicted / "truth" / "C01.tif"))
    deficient = np.append(False, twin["deficiency"] != "none")[label]
    changed = np.zeros_like(deficient)
    for protein in settings.PROTEINS:
        healthy, sick = (grey(folder, "C01", protein) for folder in (root, in_original_stretch(afflicted)))
        np.testing.assert_array_equal(healthy[~deficient], sick[~deficient])
        changed |= healthy != sick
    assert changed[deficient].mean() > 0.5


def test_patients_are_the_same_in_the_afflicted_twin_byte_for_byte(root, afflicted):
    assert digests(afflicted, "Patient") == digests(root, "Patient/P05")
    tables = (pd.read_csv(folder / "truth" / "fibres.csv").query("section == 'P05'") for folder in (root, afflicted))
    pd.testing.assert_frame_equal(*(table.reset_index(drop=True) for table in tables))


def test_an_afflicted_control_has_its_donors_shares_of_deficient_fibres(afflicted, fibres):
    twin = pd.read_csv(afflicted / "truth" / "fibres.csv", keep_default_na=False).query("section == 'C01'")
    assert set(fibres.loc[fibres["section"] == "C01", "deficiency"]) == {"none"}
    for name, group in published("P05")["classes"].items():
        assert abs((twin["deficiency"] == name).sum() - group["fraction"] * len(twin)) <= 1


def test_an_afflicted_fibre_has_its_own_level_times_the_ratio_of_the_donors_deficient_to_its_normal_fibres(
    afflicted, fibres
):
    twin = pd.read_csv(afflicted / "truth" / "fibres.csv", keep_default_na=False).query("section == 'C01'")
    own = fibres[fibres["section"] == "C01"].reset_index(drop=True)
    classes = {
        name: dict(zip(PUBLISHED_ORDER, np.expm1(group["log_mean"]), strict=True))
        for name, group in published("P05")["classes"].items()
    }
    for name in ("CI", "CI+CIV"):
        here = (twin["deficiency"] == name).to_numpy()
        for protein in ("NDUFB8", "MTCO1", "VDAC1", "SDHA"):
            ratio = (twin[protein].to_numpy() / own[protein])[here]
            assert ratio.median() == pytest.approx(classes[name][protein] / classes["none"][protein], rel=0.1), protein


def test_curing_the_afflicted_twin_cures_the_patients_and_leaves_the_controls_afflicted(
    tmp_path, pair, cured, afflicted
):
    both = make_phantom(tmp_path / "both", calibration=pair, cured=True, afflicted=True)
    assert digests(both, "Control") == digests(afflicted, "Control")
    assert digests(both, "Patient") == digests(cured, "Patient/P05") != digests(afflicted, "Patient")


def test_controls_cannot_be_afflicted_where_no_patient_has_normal_fibres(tmp_path):
    calibration = write_calibration(tmp_path / "cohort.json", ("C01", "P02"))
    with pytest.raises(PhantomError, match=r"no patient .*deficient and normal"):
        make_phantom(tmp_path / "twin", scale=0.1, afflicted=True, calibration=calibration)
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.json"]


def test_each_control_gets_another_patient_that_has_normal_fibres_the_most_deficient_first():
    given = donors()
    assert list(given) == ["C01", "C02", "C03", "C04"] and len(set(given.values())) == 4
    normal = [published(patient)["classes"]["none"]["fraction"] for patient in given.values()]
    assert normal == sorted(normal) and normal[-1] < 1
    others = {f"P{i:02}" for i in range(1, 11)} - {"P01", "P02", *given.values()}
    assert normal[-1] <= min(published(patient)["classes"]["none"]["fraction"] for patient in others)


@pytest.mark.parametrize(
    ("subjects", "given"),
    [
        (("C01", "C02", "C03", "P01", "P04", "P05"), {"C01": "P05", "C02": "P04", "C03": "P05"}),
        (("C01", "P01", "P02"), {}),
        (("P04", "P05"), {}),
    ],
)
def test_controls_take_turns_through_the_patients_with_normal_fibres(tmp_path, subjects, given):
    assert donors(write_calibration(tmp_path / "cohort.json", subjects)) == given


def test_a_patient_without_deficient_fibres_has_nothing_to_give(tmp_path):
    calibration = write_calibration(tmp_path / "cohort.json", ("C01", "P04", "P05"))
    assert donors(calibration) == {"C01": "P05"}
    cohort = json.loads(calibration.read_text())
    for patient in cohort["subjects"][1:]:
        patient["classes"] = {"none": patient["classes"]["none"] | {"fraction": 1.0}}
    calibration.write_text(json.dumps(cohort))
    assert donors(calibration) == {}


def test_only_the_afflicted_twin_says_so_in_its_recipe_and_neither_passes_for_the_other(tmp_path):
    calibration = write_calibration(tmp_path / "cohort.json", ("C01", "P05"), side_px=200)
    plain = make_phantom(tmp_path / "plain", calibration=calibration)
    twin = make_phantom(tmp_path / "twin", calibration=calibration, afflicted=True)
    recipes = [json.loads((folder / "recipe.json").read_text()) for folder in (plain, twin)]
    assert set(recipes[0]) == {"version", "seed", "scale", "cured", "calibration_sha256", "files"}
    assert recipes[1] == recipes[0] | {"afflicted": True}
    assert make_phantom(twin, calibration=calibration, afflicted=True) == twin
    for folder, wanted in ((plain, True), (twin, False)):
        with pytest.raises(PhantomError, match="holds another phantom"):
            make_phantom(folder, calibration=calibration, afflicted=wanted)


def test_an_excess_of_sdha_lies_below_the_membrane():
    cell = np.repeat(np.uint16([[1, 2]]), 60, axis=1).repeat(60, axis=0)
    square = np.pad(np.ones((54, 54), bool), 3)
    depth = np.tile(ndi.distance_transform_edt(square) - ndi.distance_transform_edt(~square), (1, 2))
    stain = Stain(Geometry(cell, depth.astype(np.float32)), lambda purpose: np.random.default_rng(len(purpose)))
    level, healthy = np.array([20.0, 20.0]), np.array([20.0, 5.0])  # the second fibre has four times what is normal
    counts, mean = stain.counts("SDHA", level, level, healthy)
    rim = [counts[(cell == i) & (depth > 0) & (depth < 4)].mean() for i in (1, 2)]
    core = [counts[(cell == i) & (depth > 12)].mean() for i in (1, 2)]
    assert rim[1] / core[1] > 1.25 * rim[0] / core[0]
    np.testing.assert_allclose([counts[(cell == i) & (depth > 0)].mean() for i in (1, 2)], mean, rtol=0.03)


def test_a_finished_cohort_is_reused_untouched(tmp_path, tiny):
    root = make_phantom(tmp_path / "phantom", calibration=tiny)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert make_phantom(str(root), calibration=tiny) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_another_recipe_is_refused_and_both_are_named(tmp_path, tiny):
    root = make_phantom(tmp_path / "phantom", calibration=tiny)
    with pytest.raises(PhantomError, match=r"phantom: .*found .*'seed': 127.*wanted .*'seed': 128"):
        make_phantom(root, seed=128, calibration=tiny)


def test_a_cohort_that_lost_a_file_is_refused(tmp_path, tiny):
    root = make_phantom(tmp_path / "phantom", calibration=tiny)
    (root / "Control" / "C01" / "SDHA.jpg").unlink()
    with pytest.raises(PhantomError, match="found 19 images, wanted 20"):
        make_phantom(root, calibration=tiny)


def test_a_folder_with_other_content_is_refused_and_left_alone(tmp_path, tiny):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(PhantomError, match=r"recipe\.json.*choose another"):
        make_phantom(tmp_path / "mine", calibration=tiny)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_is_filled(tmp_path, tiny):
    (tmp_path / "empty").mkdir()
    assert (make_phantom(tmp_path / "empty", calibration=tiny) / "recipe.json").exists()


def test_a_parent_that_cannot_hold_a_folder_is_an_error_with_a_remedy(tmp_path, tiny):
    (tmp_path / "file").write_text("")
    with pytest.raises(PhantomError, match="Choose a folder that can be written"):
        make_phantom(tmp_path / "file" / "phantom", calibration=tiny)


@pytest.mark.parametrize("scale", [0, -1, 1.5, float("nan")])
def test_a_scale_outside_0_to_1_is_refused(tmp_path, scale):
    with pytest.raises(PhantomError, match="scale="):
        make_phantom(tmp_path / "phantom", scale=scale)
    assert not list(tmp_path.iterdir())


def drop(key: str) -> Callable[[dict], object]:
    return lambda cohort: cohort["subjects"][0].pop(key)


@pytest.mark.parametrize(
    "spoil",
    [
        *map(
            drop,
            (
                "classes",
                "log_cov",
                "tissue",
                "label",
                "width",
                "fibre_area_px",
                "genotype",
                "subject",
                "fibres_measured",
            ),
        ),
        lambda cohort: cohort.pop("proteins"),
        lambda cohort: cohort["proteins"].append("Titin"),
        lambda cohort: cohort["subjects"].clear(),
        lambda cohort: cohort["subjects"].append(cohort["subjects"][0]),
        lambda cohort: cohort["subjects"][0].update(subject="../C01"),
        lambda cohort: cohort["subjects"][0]["classes"]["none"]["log_mean"].pop(),
        lambda cohort: cohort["subjects"][0]["classes"].update(CX=cohort["subjects"][0]["classes"]["none"]),
        lambda cohort: cohort["subjects"][0]["tissue"].append("#"),
        lambda cohort: cohort["subjects"][0].update(tissue=["...", "..."]),
        lambda cohort: cohort["subjects"][0].update(width="wide"),
        lambda cohort: cohort["subjects"][0].update(height=0),
        lambda cohort: cohort["subjects"][0].update(classes={}),
        lambda cohort: cohort["subjects"][0].update(classes={"CI": cohort["subjects"][0]["classes"]["none"]}),
    ],
)
def test_a_malformed_calibration_is_named_and_nothing_is_written(tmp_path, tiny, spoil):
    cohort = json.loads(tiny.read_text())
    spoil(cohort)
    tiny.write_text(json.dumps(cohort))
    with pytest.raises(PhantomError, match=r"cohort\.json: .*Restore"):
        make_phantom(tmp_path / "phantom", calibration=tiny)
    assert not (tmp_path / "phantom").exists()


@pytest.mark.parametrize("content", [None, "{", "[]", "3"])
def test_a_missing_or_unreadable_calibration_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "odd.json").write_text(content)
    with pytest.raises(PhantomError, match=r"odd\.json"):
        make_phantom(tmp_path / "phantom", calibration=tmp_path / "odd.json")


def test_a_failed_run_leaves_nothing_behind(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(PhantomError, match=r"phantom: .*\(disk full\)"):
        make_phantom(tmp_path / "phantom", calibration=tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.json"]


def test_after_a_kill_nothing_half_is_taken_for_whole(tmp_path, calibration):
    script = (
        "import sys; from mitolib.phantom.draw import make_phantom; make_phantom(sys.argv[1], calibration=sys.argv[2])"
    )
    root = tmp_path / "phantom"
    run = subprocess.Popen([sys.executable, "-c", script, str(root), str(calibration)], cwd=settings.ROOT)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.tif")) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not root.exists() and list(tmp_path.glob("phantom.partial-*"))

    make_phantom(root, calibration=calibration)
    assert len(list(root.rglob("*.jpg"))) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["phantom"]


@pytest.mark.parametrize("empty", [False, True], ids=["no folder", "an empty folder"])
def test_of_two_runs_at_once_the_slower_takes_what_the_faster_drew(tmp_path, root, calibration, monkeypatch, empty):
    """The faster one appears, whole, while the slower still writes its last tables."""
    late = tmp_path / "phantom"
    if empty:
        late.mkdir()
    write_tables = draw._write_tables

    def overtaken(*arguments: object) -> None:
        write_tables(*arguments)
        shutil.copytree(root, late, dirs_exist_ok=True)

    monkeypatch.setattr(draw, "_write_tables", overtaken)
    assert make_phantom(late, calibration=calibration) == late
    assert digests(late) == digests(root)
    assert [path.name for path in tmp_path.iterdir()] == ["phantom"]


def test_a_folder_that_something_else_fills_meanwhile_is_kept(tmp_path, calibration, monkeypatch):
    monkeypatch.setattr(draw, "_write_tables", lambda *_: (tmp_path / "phantom/notes.txt").write_text("mine"))
    (tmp_path / "phantom").mkdir()
    with pytest.raises(PhantomError, match="no phantom"):
        make_phantom(tmp_path / "phantom", calibration=calibration)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["phantom", "phantom/notes.txt"]


def test_sections_shrink_but_keep_room_for_a_grid_of_patches():
    assert section_size(3561, 2600, 1) == (3561, 2600)
    assert section_size(3561, 2600, 0.5) == (1780, 1300)
    assert section_size(7800, 860, 0.1) == (780, 768)
    assert section_size(600, 500, 0.1) == (600, 500)
