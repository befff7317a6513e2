"""Checking and converting a data folder of one's own."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tifffile

from mitolib import cohort, intake, records
from mitolib.images import intensity
from mitolib.intake import checking
from mitolib.settings import PROFILES, PROTEINS, ROOT

PAPER = PROFILES["paper"]


@pytest.fixture
def counts(tmp_path, rng):
    """A control and a patient with two sections, in counts, SDHA and COX4, one stack per section, and cohort.csv."""
    root = tmp_path / "raw"
    root.mkdir()
    for section in ("Müller", "Zoe-left", "Zoe-right"):
        image_cyx = rng.poisson(20, (2, 520, 530)).astype(np.float32)
        names = {"axes": "CYX", "Channel": {"Name": ["153Eu_SDHA", "168Er_Cox4"]}}
        tifffile.imwrite(root / f"{section}.ome.tiff", image_cyx, metadata=names)
    rows = ["section,subject,label,genotype", "Müller,Müller,control,-", "Zoe-left,Zoe,patient,MT-TG"]
    (root / "cohort.csv").write_text("\n".join([*rows, "Zoe-right,Zoe,patient,MT-TG"]) + "\n", encoding="utf8")
    return root


def run(*words) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mitolib", *map(str, words)], capture_output=True, text=True)


def test_a_sound_folder_is_told_with_its_panel_and_what_a_run_costs(counts):
    text, whole = intake.check(counts, PAPER, ["SDHA", "COX4"])
    assert whole
    assert "sections 3, people 2" in text and "1 control and 1 patient can be read" in text
    assert "168Er_Cox4" in text and "stretched from its 5th to its 95th" in text
    costs = intake.cost(cohort.read_cohort(counts, ["SDHA"]), PAPER)
    assert costs["patches"].tolist() == [3, 3]
    assert costs.loc["exp2", "disk, GB"] == pytest.approx(3 * (1 + 0.8 * PAPER.views) * 7 * 7 * 512 * 2 / 1e9)


@pytest.mark.parametrize("experiment", checking.SECONDS_PER_PATCH)
def test_the_minutes_of_a_run_are_about_those_of_the_published_one(experiment):
    record = records.read(ROOT / "book" / "results", experiment)
    n_patches = sum(sum(counts.values()) for counts in record["split"].values())
    provenance = record["provenance"]
    of_units = sum(unit["made"]["seconds"] for unit in provenance.get("units", []))
    measured = (provenance["seconds"] + of_units) / n_patches
    assert record["profile"] == "paper" and 1 / 3 < measured / checking.SECONDS_PER_PATCH[experiment] < 3


def test_the_features_of_a_patch_are_as_many_as_the_networks_give():
    from mitolib import networks

    sizes = {
        name: np.prod(networks.divide(networks.build(name, arrays=None))[0].output_shape[1:])
        for name in ("VGG16", "ResNet50")
    }
    assert {"exp1": sum(sizes.values()), "exp2": sizes["VGG16"]} == checking.FEATURES


def test_every_problem_is_listed_not_the_first_one_only(counts):
    (counts / "Zoe-left.ome.tiff").write_bytes(b"")
    tifffile.imwrite(counts / "Zoe-right.ome.tiff", np.full((520, 530), np.nan, np.float32))
    shutil.copy(counts / "Müller.ome.tiff", counts / "stranger.ome.tiff")
    text, whole = intake.check(counts, PAPER, ["SDHA"])
    assert not whole
    for name, finding in (
        ("Zoe-left.ome.tiff", "the file is empty"),
        ("Zoe-right.ome.tiff", "no image of SDHA"),
        ("stranger.ome.tiff", "is not in cohort.csv"),
        ("raw", "no patient that can be read"),
    ):
        assert any(name in line and finding in line for line in text.splitlines()), finding
    assert "4 to mend" in text


def test_what_only_the_pixels_show_is_found_too(make_cohort):
    root = make_cohort(proteins=("SDHA",), shape=(520, 520))
    for name, pixels in {"P01": np.full((520, 520), 7, np.uint8), "P02": np.full((520, 520), -1, np.int16)}.items():
        tifffile.imwrite(root / "Patient" / name / "SDHA.tif", pixels)
    text, whole = intake.check(root, PAPER, ["SDHA"])
    assert not whole and "7 at every pixel" in text and "wanted none below 0" in text


def test_a_section_smaller_than_a_patch_is_found_before_the_run(make_cohort):
    text, whole = intake.check(make_cohort(proteins=("SDHA",), shape=(511, 900)), PAPER, ["SDHA"])
    assert not whole and "511 x 900 px" in text


@pytest.mark.parametrize(("folder", "code"), [("raw", 0), ("nowhere", 1)])
def test_the_command_says_it_by_its_exit_status(counts, folder, code):
    done = run("check", counts.parent / folder, "--proteins", "SDHA,COX4")
    assert done.returncode == code, done.stdout + done.stderr
    assert ("Nothing to mend" in done.stdout) == (code == 0) and "Traceback" not in done.stderr


def test_a_converted_cohort_shows_the_same_pictures_in_the_papers_layout(counts, tmp_path):
    intake.convert(counts, tmp_path / "new", proteins=["SDHA", "COX4"])
    before, after = (cohort.read_cohort(root, ["SDHA", "COX4"]) for root in (counts, tmp_path / "new"))
    assert cohort.table(before).equals(cohort.table(after))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.stack_yxc(["SDHA", "COX4"]), other.stack_yxc(["SDHA", "COX4"]))
    path = tmp_path / "new" / "Control" / "Müller" / "SDHA.tif"
    with tifffile.TiffFile(path) as tiff:
        assert not {"Software", "ImageDescription", "DateTime"} & {tag.name for tag in tiff.pages[0].tags}


def test_conversion_filters_and_scales_as_asked(counts, tmp_path):
    intake.convert(counts, tmp_path / "new", proteins=["SDHA"], intensity="arcsinh", hot_pixels=5)
    raw_yx = cohort.read_cohort(counts, ["SDHA"])[0].raw_yx("SDHA")
    wanted = intensity.to_8_bit(intensity.without_hot_pixels(raw_yx, 5), "arcsinh")
    np.testing.assert_array_equal(cohort.read_cohort(tmp_path / "new", ["SDHA"])[0].image_yx("SDHA"), wanted)


def test_pseudonyms_leave_no_name_behind_and_the_key_outside(counts, tmp_path):
    done = run("convert", counts, tmp_path / "new", "--proteins", "SDHA", "--pseudonymise", tmp_path / "key.csv")
    assert done.returncode == 0, done.stderr
    sections = cohort.read_cohort(tmp_path / "new", ["SDHA"])
    assert [(s.section, s.subject) for s in sections] == [("C01", "C01"), ("P01", "P01"), ("P01-2", "P01")]
    for path in (tmp_path / "new").rglob("*"):
        assert not any(name in str(path.relative_to(tmp_path)) for name in ("Zoe", "Müller"))
        assert path.is_dir() or not any(name.encode() in path.read_bytes() for name in ("Zoe", "Müller"))
    key = pd.read_csv(tmp_path / "key.csv").set_index("section")
    assert key.loc["Zoe-right", ["new section", "new subject"]].tolist() == ["P01-2", "P01"]


def test_a_conversion_that_fails_leaves_nothing(counts, tmp_path):
    tifffile.imwrite(counts / "Zoe-right.ome.tiff", np.full((2, 520, 530), -1, np.float32), metadata={"axes": "CYX"})
    (counts / "panel.csv").write_text("channel,name\n1,SDHA\n2,COX4\n")
    with pytest.raises(cohort.CohortError, match="wanted none below 0"):
        intake.convert(counts, tmp_path / "new", proteins=["SDHA"], key=tmp_path / "key.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_nothing_is_overwritten_and_no_key_lies_in_the_folder_it_opens(counts, tmp_path):
    with pytest.raises(FileExistsError, match="is there already"):
        intake.convert(counts, counts, proteins=["SDHA"])
    with pytest.raises(ValueError, match="Keep the key elsewhere"):
        intake.convert(counts, tmp_path / "new", proteins=["SDHA"], key=tmp_path / "new" / "key.csv")


def test_the_proteins_that_are_there_are_taken_unless_others_are_asked_for(make_cohort):
    root = make_cohort({"Control": ["C01", "C02"], "Patient": ["P01", "P02"]}, PROTEINS[:9], (70, 80))
    text, whole = intake.check(root, PAPER, patch_px=64)
    assert whole and "exp2: refuses, because no image of Dystrophin" in text
    text, whole = intake.check(root, PAPER, PROTEINS, patch_px=64)
    assert not whole and text.count("no image of Dystrophin; found ") == 4
