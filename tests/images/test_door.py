"""What lies in a data folder: nothing that may be a section is passed over, and nothing good is refused for what lies
beside it. What a message advises is done, and the folder is clean then.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sections
import tifffile
from PIL import Image
from sections import check, cohort, counts, declare, greys, look, mcd, region, text_export, write

from mitolib import own_data

ROWS = ("C01,A,control", "C02,B,control", "P01,C,patient", "P02,D,patient")

# Files of a class folder that may be sections

FORMATS = [
    *("P3.btf", "P3.lsm", "P3.oir", "P3.vsi", "P3.ims", "P3.nii", "P3.dcm", "P3.jp2", "P3.czi", "P3.nd2", "P3.svs"),
    *("P3.lif", "P3.ndpi", "P3.scn", "P3.bin", "P3.raw", "P3.npy", "P3.h5", "P3.mat", "P3.gif", "P3.bmp", "P3.heic"),
    *("P3", "P3.tif.gz", "P3.ome.tiff.zip", "P3.TIF~", "P3.tif.part", "P3.tif.bak", "P3.mcd.old", "P3.tiff.crdownload"),
    *("P3.nii.gz", "P3.7z", "P3.rar", "P3.mcdx", "P3.tf8", "P3.qptiff", "P3.001", "P3.webp", "P3.pkl"),
]


@pytest.mark.parametrize("name", FORMATS)
def test_a_section_in_another_format_is_a_problem_until_it_is_moved(tmp_path, name):
    root = cohort(tmp_path)
    (root / "Patient" / name).write_bytes((root / "Patient/P01/SDHA.tif").read_bytes())
    answer = look(root)
    assert len(answer.problems) == 1 and answer.has(f"Patient/{name}", "move it away")
    (root / "Patient" / name).rename(tmp_path.parent / f"{tmp_path.name}-{name}")
    assert look(root).is_clean


@pytest.mark.parametrize("name", ["P3", "P3.tif.bak"])
def test_a_picture_under_an_odd_name_is_read_when_it_is_renamed(tmp_path, name):
    root = cohort(tmp_path)
    write(tmp_path / "stray", counts(9))
    (root / "stray").rename(root / "Patient/P01" / name)
    (root / "Patient/P01/SDHA.tif").unlink()
    assert look(root, ["SDHA"]).has(f"P01/{name}", "Rename it")
    (root / "Patient/P01" / name).rename(root / "Patient/P01/SDHA.tif")
    assert look(root).is_clean


def zarr(root: Path, name: str) -> None:
    (root / "Patient" / name / "0").mkdir(parents=True)
    (root / "Patient" / name / ".zattrs").write_text("{}")
    (root / "Patient" / name / "0" / "0.0.0").write_bytes(b"0")


EXPORTS: dict[str, Callable[[Path], None]] = {  # of a text export, by programs that opened and saved it
    "header lost": lambda r: text_export(r / "Patient/P3.txt", counts(7)[None], header=False),
    "header lost, commas": lambda r: text_export(r / "Patient/P3.txt", counts(7)[None], header=False, sep=","),
    "header lost, semicolons and decimal commas": lambda r: text_export(
        r / "Patient/P3.txt", counts(7)[None], header=False, sep=";", decimal=","
    ),
    "header lost, spaces": lambda r: text_export(r / "Patient/P3.txt", counts(7)[None], header=False, sep=" "),
    "commas": lambda r: text_export(r / "Patient/P3.txt", counts(7)[None], sep=","),
    "semicolons": lambda r: text_export(r / "Patient/P3.txt", counts(7)[None], sep=";"),
    "quotes": lambda r: text_export(r / "Patient/P3.txt", counts(7)[None], quoting=1),
    "a byte-order mark": lambda r: text_export(r / "Patient/P3.txt", counts(7)[None], encoding="utf-8-sig"),
    "UTF-16": lambda r: text_export(r / "Patient/P3.txt", counts(7)[None], encoding="utf-16"),
    "a column of row numbers": lambda r: text_export(r / "Patient/P3.txt", counts(7)[None], index=True),
    "its first column lost": lambda r: text_export(
        r / "Patient/P3.txt", counts(7)[None], columns=["End_push", "Pushes_duration", "X", "Y", "Z", "SDHA(Eu151Di)"]
    ),
    "its pushes lost": lambda r: text_export(
        r / "Patient/P3.txt", counts(7)[None], columns=["X", "Y", "Z", "SDHA(Eu151Di)"]
    ),
    "saved as .csv": lambda r: text_export(r / "Patient/P3.csv", counts(7)[None], sep=","),
    "saved as .csv with semicolons": lambda r: text_export(r / "Patient/P3.csv", counts(7)[None], sep=";", decimal=","),
    "saved as .CSV": lambda r: text_export(r / "Patient/P3.CSV", counts(7)[None], sep=","),
    "saved as .tsv": lambda r: text_export(r / "Patient/P3.tsv", counts(7)[None]),
    "a title above": lambda r: (
        text_export(r / "Patient/P3.txt", counts(7)[None])
        or (r / "Patient/P3.txt").write_bytes(b"P3 of Monday\n" + (r / "Patient/P3.txt").read_bytes())
    ),
}


@pytest.mark.parametrize("case", EXPORTS)
def test_a_text_export_that_was_changed_is_a_problem_until_it_is_exported_again(tmp_path, case):
    root = cohort(tmp_path)
    EXPORTS[case](root)
    answer = look(root)
    assert len(answer.problems) == 1 and answer.has("Patient/P3.", "xport it again"), answer.problems
    for path in (root / "Patient").glob("P3.*"):
        path.unlink()
    text_export(root / "Patient/P3.txt", counts(7)[None])
    assert look(root).is_clean and "sections 5" in look(root).text


NUMBERS = {  # of the same export, as a program with other settings writes them
    "decimal points": ({}, True),
    "decimal commas": ({"decimal": ","}, True),
    "whole": ({"float_format": "%.0f"}, True),
    "thousands": ({"thousands": True}, False),
    "some decimal commas": ({"some": True}, False),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_with_commas_are_understood_where_they_can_mean_one_thing_only(tmp_path, case):
    options, is_understood = NUMBERS[case]
    image_yx = np.round(np.random.default_rng(9).gamma(2, 500, sections.SHAPE), 0 if case == "whole" else 3) + 2
    root = cohort(tmp_path)
    if options.keys() & {"thousands", "some"}:
        text_export(root / "Patient/P3.txt", image_yx[None])
        header, *lines = (root / "Patient/P3.txt").read_text().splitlines()
        for i, line in enumerate(lines):
            *places, value = line.split("\t")
            value = f"{float(value):,.0f}" if case == "thousands" else value.replace(".", ",") if i % 2 else value
            lines[i] = "\t".join([*places, value])
        (root / "Patient/P3.txt").write_text("\n".join([header, *lines, ""]))
    else:
        text_export(root / "Patient/P3.txt", image_yx[None], **options)
    answer = check(root)
    assert answer.has("P3.txt", "have a comma", "Export it again, with decimal points") != is_understood
    if is_understood:
        from mitolib.cohort import survey

        raw_yx = next(s for s in survey(root, ["SDHA"]).sections if s.section == "P3").raw_yx("SDHA")
        np.testing.assert_allclose(raw_yx, image_yx, rtol=1e-6)


# Folders


def move_up(root: Path, *names: str) -> None:
    for name in names:
        for path in (root / name).iterdir():
            path.rename(root / name / ".." / path.name)
        (root / name).rmdir()


FOLDERS: dict[str, tuple[Callable[[Path], object], tuple[str, ...], Callable[[Path], object]]] = {
    # name: what is done, what the problem holds, what is done about it
    "a zarr": (
        lambda r: zarr(r, "P3.zarr"),
        ("P3.zarr", ".zarr folders are not read", "move it away"),
        lambda r: shutil.rmtree(r / "Patient/P3.zarr"),
    ),
    "an OME-Zarr": (
        lambda r: zarr(r, "P3.ome.zarr"),
        ("P3.ome.zarr", "not read"),
        lambda r: shutil.rmtree(r / "Patient/P3.ome.zarr"),
    ),
    "a section one folder too deep": (
        lambda r: write(r / "Patient/P3/images/SDHA.tif", counts(8)),
        ("Patient/P3", "folders (images)", "one level up"),
        lambda r: move_up(r / "Patient", "P3/images"),
    ),
    "sections in batches": (
        lambda r: write(r / "Patient/batch 1/P3/SDHA.tif", counts(8)),
        ("Patient/batch 1", "folders (P3)", "one level up"),
        lambda r: move_up(r / "Patient", "batch 1"),
    ),
    "classes one folder too deep": (
        lambda r: [(r / name).rename(r / "study" / name) for name in ("Control", "Patient") if _made(r / "study")],
        ("study: holds Control and Patient", "move these up"),
        lambda r: move_up(r, "study"),
    ),
    "a section beside the classes": (
        lambda r: write(r / "P3/SDHA.tif", counts(8)),
        ("P3: not a class folder", "move it away"),
        lambda r: (r / "P3").rename(r / "Patient/P3"),
    ),
    "a file beside the classes": (
        lambda r: text_export(r / "P3.txt", counts(8)[None]),
        ("P3.txt: lies beside the class folders",),
        lambda r: (r / "P3.txt").rename(r / "Patient/P3.txt"),
    ),
    "a class of another name": (
        lambda r: write(r / "MELAS/P3/SDHA.tif", counts(8)),
        ("MELAS: not a class folder", "classes.csv"),
        lambda r: (r / "classes.csv").write_text("class,label\nMELAS,patient\n"),
    ),
    "a class that cohort.csv knows": (
        lambda r: write(r / "MELAS/P3/SDHA.tif", counts(8)),
        ("MELAS: not a class folder", "cohort.csv"),
        lambda r: declare(
            r,
            *(f"{row},{row.split(',')[2]}" for row in ROWS),
            "P3,E,patient,MELAS",
            header="section,subject,label,class",
        ),
    ),
    "an empty section": (
        lambda r: (r / "Patient/P3").mkdir(),
        ("Patient/P3: no image of SDHA", "move it away"),
        lambda r: (r / "Patient/P3").rmdir(),
    ),
    "two folders whose names differ in case": (
        lambda r: write(r / "Patient/p01/SDHA.tif", counts(8)),
        ("P01", "p01", "differ in spelling alone"),
        lambda r: (r / "Patient/p01").rename(r / "Patient/P3"),
    ),
    "an overview at the level of sections": (
        lambda r: Image.new("RGB", (50, 40), (200, 9, 9)).save(r / "Patient/overview.png"),
        ("Patient/overview.png", "no image of SDHA", "move it away"),
        lambda r: (r / "Patient/overview.png").unlink(),
    ),
    "an .mcd and its export": (
        lambda r: [
            mcd(r / "Patient/P3.mcd", region(8)),
            text_export(r / "Patient/P3_ROI_001_1.txt", region(8).image_cyx),
        ],
        ("P3_ROI_001_1.txt", "seems exported from P3.mcd", "Move one of them away"),
        lambda r: (r / "Patient/P3.mcd").unlink(),
    ),
}


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("case", FOLDERS)
def test_what_may_be_a_section_elsewhere_is_a_problem_that_can_be_mended(tmp_path, case):
    spoil, words, mend = FOLDERS[case]
    root = cohort(tmp_path / "data")
    spoil(root)
    answer = look(root)
    assert answer.has(*words), answer.problems
    mend(root)
    answer = look(root)
    assert answer.is_clean, answer.problems


NOTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a section in a section's folder": (
        lambda r: write(r / "Patient/P01/P3/SDHA.tif", counts(8)),
        "P01/P3: is not read",
    ),
    "sections in a folder called results": (
        lambda r: write(r / "Patient/results/P3/SDHA.tif", counts(8)),
        "Patient/results: is not read",
    ),
    "a mask's folder with a picture": (
        lambda r: write(r / "Patient/masks/P3.tif", counts(8)),
        "Patient/masks: is not read",
    ),
}


@pytest.mark.parametrize("case", NOTED)
def test_what_is_probably_no_section_is_a_note(tmp_path, case):
    spoil, words = NOTED[case]
    root = cohort(tmp_path)
    spoil(root)
    answer = look(root)
    assert answer.is_clean and any(words in note for note in answer.notes), answer.notes


@pytest.mark.parametrize("folder", ["img", "Img"])
def test_what_lies_beside_steinbocks_pictures_is_named(tmp_path, folder):
    for seed, name in enumerate(("C01", "P01", "P3")):
        place = tmp_path / folder if name != "P3" else tmp_path
        sections.pages(_made(place) / f"{name}.tiff", [counts(seed)], None, ["SDHA"])
    (tmp_path / "masks").mkdir()
    (tmp_path / "raw").mkdir()
    declare(tmp_path, "C01,A,control", "P01,C,patient")
    answer = look(tmp_path)
    assert answer.is_clean and [note for note in answer.notes if "P3.tiff: is not read" in note]
    declare(tmp_path, "C01,A,control", "P01,C,patient", "P3,D,patient")
    assert look(tmp_path).has("section P3 has no folder or file")
    (tmp_path / "P3.tiff").rename(tmp_path / folder / "P3.tiff")
    assert look(tmp_path).is_clean


LIES_ABOUT = [
    *(
        "Thumbs.db",
        "ehthumbs.db",
        ".DS_Store",
        "._SDHA.tif",
        "desktop.ini",
        "README",
        "readme.txt",
        "LICENSE",
        "notes.md",
    ),
    *("run.log", "table.csv", "table.tsv", "measurements.xlsx", "~$measurements.xlsx", "panel_of_antibodies.pdf"),
    *("report.docx", "figure.svg", "macro.ijm", "script.R", "analysis.ipynb", "project.qpproj", "cells.json", "a.xml"),
    *("sha256.sha256", "list.md5", "stats.pzfx", "spss.sav", "CHANGELOG", "Icon\r", "link.lnk", "settings.yml"),
]


@pytest.mark.parametrize("where", [".", "Patient", "Patient/P01"])
def test_what_lies_about_stays_silent(tmp_path, where):
    root = cohort(tmp_path)
    for name in LIES_ABOUT:
        (root / where / name).write_text("Scanned on Monday, twice.\n")
    (root / where / "Results.txt").write_text(" \tArea\tMean\n1\t210\t13.5\n")
    (root / where / "measurements.txt").write_text("Image\tName\tClass\tCentroid X µm\tArea\na.tif\tPath\t\t1.5\t3\n")
    (root / where / "SDHA.tif.md5").write_text("0  SDHA.tif\n")
    (root / where / "cells.csv").write_text("Object,area,centroid-0,centroid-1\n1,5,2.5,3.5\n")
    for name in ("@eaDir", "__MACOSX", ".git", "logs", "overviews", "masks"):
        (root / where / name).mkdir()
        (root / where / name / "log.txt").write_text("Scanned on Monday.\n")
    answer = look(root)
    assert answer.is_clean and not answer.notes


# Neighbours: what lies in a section's folder beside the pictures that are read

NEIGHBOURS: dict[str, Callable[[Path], object]] = {
    "a coloured overview": lambda f: tifffile.imwrite(
        f / "Composite.tif", np.zeros((40, 50, 3), "u1"), photometric="rgb"
    ),
    "an overview as PNG": lambda f: Image.new("RGB", (90, 80), (1, 2, 3)).save(f / "overview.png"),
    "a photograph": lambda f: Image.new("RGB", (90, 80), (1, 2, 3)).save(f / "HE.jpg"),
    "a mask of truth values": lambda f: tifffile.imwrite(f / "fibre_mask.tif", counts(3) > 20),
    "a mask of labels in another size": lambda f: write(f / "fibres.tif", np.arange(600, dtype="u2").reshape(20, 30)),
    "a black and white mask": lambda f: Image.fromarray(greys(1) > 99).save(f / "mask.png"),
    "a stack without names": lambda f: sections.pages(f / "stack.tif", [counts(4), counts(5), counts(6)]),
    "a volume": lambda f: tifffile.imwrite(f / "volume.tif", np.zeros((2, 3, 40, 50), "u1"), imagej=True),
    "ImageJ's results": lambda f: (f / "Results.txt").write_text(" \tArea\tMean\n1\t210\t13.5\n"),
    "many of ImageJ's results": lambda f: (f / "Results.txt").write_text(
        " \tArea\tMean\tStdDev\tMode\tMin\tMax\tX\tY\n1\t210\t13.5\t2\t3\t4\t5\t6\t7\n"
    ),
    "QuPath's measurements": lambda f: (f / "measurements.txt").write_text("Image\tObject ID\tX\tY\na\tb\t1\t2\n"),
    "outlines": lambda f: (f / "RoiSet.zip").write_bytes(b"PK\3\4"),
    "one outline": lambda f: (f / "0001.roi").write_bytes(b"Iout"),
    "a slide scanner's file": lambda f: (f / "HE.svs").write_bytes(b"II*\0"),
    "the microscope's own file": lambda f: (f / "raw.czi").write_bytes(b"ZISRAWFILE"),
    "a broken picture of something else": lambda f: (f / "DAPI.tif").write_bytes(b"II*\0"),
    "an empty file": lambda f: (f / "DAPI.tif").touch(),
    "a video": lambda f: (f / "focus.avi").write_bytes(b"RIFF"),
    "a file without a suffix": lambda f: (f / "acquisition").write_bytes(b"1"),
    "an older export": lambda f: write(f / "SDHA.tif.bak", counts(3)),
    "a preview of the same": lambda f: Image.fromarray(greys(1)).save(f / "SDHA.png"),
}


@pytest.mark.parametrize("case", NEIGHBOURS)
def test_a_section_is_not_refused_for_what_lies_beside_its_pictures(tmp_path, case):
    root = cohort(tmp_path, proteins=("SDHA", "COX4"))
    NEIGHBOURS[case](root / "Patient/P01")
    answer = check(root)
    assert answer.is_clean, answer.problems
    assert "sections 4" in answer.text
    # Where the section lacks a picture, the file may be the one, and is named.
    (root / "Patient/P01/SDHA.tif").unlink()
    answer = check(root)
    assert not answer.is_clean or case in ("a preview of the same", "an older export")


@pytest.mark.parametrize("name", ["SDHA.czi", "stack.tif", "raw.zip"])
def test_a_file_that_may_be_the_missing_picture_is_named(tmp_path, name):
    root = cohort(tmp_path, proteins=("SDHA", "COX4"))
    (root / "Patient/P01/SDHA.tif").unlink()
    if name == "stack.tif":
        sections.pages(root / "Patient/P01/stack.tif", [counts(4), counts(5)])
    else:
        (root / "Patient/P01" / name).write_bytes(b"1")
    assert look(root).has(f"P01/{name}")


@pytest.mark.parametrize("proteins", [None, ["SDHA"]])
def test_where_no_section_can_be_read_each_file_says_why(tmp_path, proteins):
    root = cohort(tmp_path)
    (root / "Control/C01/SDHA.tif").write_bytes(b"II*\0")
    (root / "Control/C02/SDHA.tif").rename(root / "Control/C02/SDHA.czi")
    (root / "Patient/P01/SDHA.tif").write_bytes(b"")
    sections.pages(root / "Patient/P02/SDHA.tif", [counts(1), counts(2)])
    answer = look(root, proteins)
    for words in (("C01/SDHA.tif",), ("C02/SDHA.czi",), ("P01/SDHA.tif", "empty"), ("P02/SDHA.tif", "without names")):
        assert answer.has(*words), answer.problems


# Acquisitions of one .mcd

SLIDES: dict[str, tuple[tuple[sections.Region, ...], list[str], str]] = {  # regions, sections, what a note says
    "one, never acquired": (
        (region(1), region(2, DataStartOffset=0, DataEndOffset=0)),
        ["P3_001"],
        "2 .* never acquired",
    ),
    "one of no size": ((region(1), region(2, MaxX=0, MaxY=0)), ["P3_001"], "2 of 0 x 0 px was never acquired"),
    "one without places": (
        (region(1), sections.Region(counts(2)[None], without=("DataStartOffset", "DataEndOffset"))),
        ["P3_001"],
        "acquisition 2 has no DataStartOffset, DataEndOffset",
    ),
    "one without a size": (
        (region(1), sections.Region(counts(2)[None], without=("MaxX",))),
        ["P3_001"],
        "2 has no MaxX",
    ),
    "places that are no numbers": ((region(1), region(2, DataEndOffset="")), ["P3_001"], "2 has no DataEndOffset"),
    "one broken off": (
        (region(1), region(2, MaxY=90)),
        ["P3_001"],
        "2 holds 2000 of its 4500 pixels: it was broken off",
    ),
    "one that ends behind the file": (
        (region(1), region(2, DataEndOffset=9_000_000)),
        ["P3_001"],
        "ends at byte 9000000",
    ),
    "one of other numbers": ((region(1), region(2, ValueBytes=8)), ["P3_001"], "values of 8 bytes"),
    "one that is too large": (
        (region(1), region(2, MaxX=9_000_000)),
        ["P3_001"],
        "acquisition 2: .*more than 64,000,000",
    ),
    "one of trial": ((region(1), region(2, (9, 8))), ["P3_001"], "P3_002: 9 x 8 px, smaller than a patch of 32 px"),
    "the first of trial": ((region(1, (9, 8)), region(2)), ["P3_002"], "P3_001: 9 x 8 px"),
    "one with other channels": (
        (region(1), region(2, names=("CD3",))),
        ["P3_001"],
        "P3_002: holds CD3 and nothing that",
    ),
    "one without channels": (
        (region(1), sections.Region(np.zeros((0, 40, 50)), ())),
        ["P3_001"],
        "acquisition 2: 0 channels",
    ),
}


@pytest.mark.parametrize("case", SLIDES)
def test_a_bad_acquisition_costs_itself_alone(tmp_path, case):
    regions, names, note = SLIDES[case]
    root = cohort(tmp_path)
    mcd(root / "Patient/P3.mcd", *regions)
    answer = look(root)
    assert answer.is_clean, answer.problems
    assert sum(f"{name} " in answer.text for name in names) == 1 and "sections 5, people 5" in answer.text
    assert any(re.search(note, one) for one in answer.notes), answer.notes


@pytest.mark.parametrize("case", ["one, never acquired", "one of trial", "one with other channels", "one broken off"])
def test_a_bad_acquisition_costs_itself_alone_in_the_folder_of_a_section_too(tmp_path, case):
    root = cohort(tmp_path)
    mcd(root / "Patient/P3/P3.mcd", *SLIDES[case][0])
    if case == "one with other channels":
        assert look(root).has("P3.mcd", "several acquisitions in the folder of one section", "Put the file where P3")
        (root / "Patient/P3/P3.mcd").rename(root / "Patient/P4.mcd")
        (root / "Patient/P3").rmdir()
    answer = look(root)
    assert answer.is_clean and answer.notes and "sections 5" in answer.text, answer.problems


@pytest.mark.parametrize("spoilt", [{"DataStartOffset": 0, "DataEndOffset": 0}, {"MaxX": 0}, {"MaxY": 90}])
def test_a_slide_on_which_nothing_is_whole_is_a_problem_that_cohort_csv_can_leave_out(tmp_path, spoilt):
    root = cohort(tmp_path)
    mcd(root / "Patient/P3.mcd", region(1, **spoilt), region(2, **spoilt))
    assert look(root).has("P3.mcd", "cannot be read", "xport")
    declare(root, *(f"{row},1" for row in ROWS), "P3,,,0", header="section,subject,label,use")
    assert look(root).is_clean


def test_a_region_that_lacks_a_protein_can_be_left_out(tmp_path):
    root = cohort(tmp_path, proteins=("SDHA", "COX4"))
    mcd(root / "Patient/P3.mcd", region(1, names=("SDHA", "COX4")), region(2, names=("SDHA", "CD3")))
    assert look(root).has("P3.mcd", "no image of COX4; found SDHA, CD3 in P3_002", "column use to 0")
    rows = [f"{row},1" for row in ROWS]
    declare(root, *rows, "P3_001,E,patient,1", "P3_002,,,0", header="section,subject,label,use")
    answer = look(root)
    assert answer.is_clean and any("P3_002: left out, as cohort.csv has it" in note for note in answer.notes)


@pytest.mark.parametrize("name", ["P3", "P3_001"])
def test_the_one_region_of_a_slide_may_be_called_as_the_slide_or_by_its_number(tmp_path, name):
    root = cohort(tmp_path)
    mcd(root / "Patient/P3.mcd", region(1))
    declare(root, *ROWS, f"{name},E,patient")
    assert look(root).is_clean


# What cohort.csv leaves out

USE = {  # what is left out: (what is done to the folder, the row, what no longer counts)
    "a section": (lambda r: None, "P02,D,patient,0", "sections 3"),
    "a section without a subject": (lambda r: None, "P02,,,0", "sections 3"),
    "a section, said by a word": (lambda r: None, "P02,,,FALSE", "sections 3"),
    "a section, by another spelling": (lambda r: None, "p-2,,,no", "sections 3"),
    "a section, with a decimal comma": (lambda r: None, 'P02,,,"0,0"', "sections 3"),
    "a section that is too small": (
        lambda r: write(r / "Patient/P02/SDHA.tif", counts(1)[:9]),
        "P02,,,0",
        "sections 3",
    ),
    "a section that cannot be read": (
        lambda r: (r / "Patient/P02/SDHA.tif").write_bytes(b"1"),
        "P02,,,0",
        "sections 3",
    ),
    "a section without its protein": (
        lambda r: (r / "Patient/P02/SDHA.tif").rename(r / "Patient/P02/DAPI.tif"),
        "P02,,,0",
        "sections 3",
    ),
    "a file that cannot be read": (lambda r: (r / "Patient/P3.mcd").write_bytes(b"1"), "P3,,,0", "sections 4"),
    "a whole slide": (lambda r: mcd(r / "Patient/P3.mcd", region(1), region(2)), "P3,,,0", "sections 4"),
    "what is not there": (lambda r: None, "P77,,,0", "sections 4"),
}


@pytest.mark.parametrize("case", USE)
def test_what_cohort_csv_does_not_use_is_left_out(tmp_path, case):
    spoil, row, words = USE[case]
    root = cohort(tmp_path)
    spoil(root)
    others = [f"{one},1" for one in ROWS if words == "sections 4" or not one.startswith("P02")]
    declare(root, *others, row, header="section,subject,label,use")
    answer = look(root)
    assert answer.is_clean and words in answer.text, answer.problems
    assert case == "what is not there" or any("left out, as cohort.csv has it" in note for note in answer.notes)


def test_a_region_in_use_of_a_slide_that_is_left_out_is_read(tmp_path):
    root = cohort(tmp_path)
    mcd(root / "Patient/P3.mcd", region(1), region(2), region(3))
    declare(root, *(f"{row},1" for row in ROWS), "P3,,,0", "P3_002,E,patient,1", header="section,subject,label,use")
    answer = look(root)
    assert answer.is_clean and "sections 5" in answer.text and "P3_002" in answer.text


def test_several_problems_of_all_kinds_are_listed_at_once(tmp_path):
    root = cohort(tmp_path, proteins=("SDHA", "COX4"))
    (root / "Patient/P3.czi").write_bytes(b"1")
    (root / "cohort.xlsx").write_bytes(b"PK")
    write(root / "Patient/small/SDHA.tif", counts(20)[:9])
    write(root / "Patient/small/COX4.tif", counts(21)[:9])
    write(root / "Patient/lacks/SDHA.tif", counts(22))
    for protein in ("SDHA", "COX4"):
        write(root / f"Patient/P01_2/{protein}.tif", tifffile.imread(root / f"Patient/P01/{protein}.tif"))
    write(root / "Patient/P02/SDHA.tif", np.full(sections.SHAPE, 7, np.float32))
    write(root / "Control/C02/COX4.tif", np.where(counts(23) > 20, np.nan, 1).astype("f4"))
    tifffile.imwrite(root / "Control/C01/SDHA.tif", np.zeros((40, 50, 3), "u1"), photometric="rgb")
    answer = check(root)
    for words in (
        ("P3.czi",),
        ("cohort.xlsx", "looks like"),
        ("small", "9 x 50 px"),
        ("lacks", "no image of COX4"),
        ("P01, P01_2", "look like regions"),
        ("P01 and P01_2 hold the same pixels",),
        ("P02/SDHA.tif", "7 at every pixel"),
        ("C02/COX4.tif", "not finite"),
        ("C01/SDHA.tif", "a colour picture"),
    ):
        assert answer.has(*words), words
    assert f"{len(answer.problems)} to mend" in answer.text and "A run in profile" in answer.text


# Small sections


def test_small_sections_are_all_listed_with_one_patch_that_fits_all_and_the_cost_of_the_others(tmp_path):
    root = cohort(tmp_path, ("Control/C01", "Patient/P01"))
    for seed, (height, width) in enumerate([(600, 520), (530, 540), (300, 420), (420, 400), (50, 60), (30, 900)]):
        folder = "Control/C" if seed % 2 else "Patient/P"
        write(root / f"{folder}1{seed}" / "SDHA.tif", counts(seed, shape=(height, width)))
    shutil.rmtree(root / "Control/C01")
    shutil.rmtree(root / "Patient/P01")
    answer = check(root, patch_px=None)
    small = [problem for problem in answer.problems if "wanted at least one patch of 512 px" in problem]
    assert len(small) == len(answer.problems) == 4 and "A run in profile" in answer.text
    # One size for those that a smaller patch can save; the two others have to go, in one of two ways.
    assert [("-p patch_px 288" in problem) for problem in sorted(small, key=lambda p: "300 x 420" not in p)] == [
        True
    ] * 2 + [False] * 2
    shutil.rmtree(root / "Patient/P14")
    declare(
        root,
        *("C11,A,control,1", "C13,B,control,1", "C15,,,0", "P10,C,patient,1", "P12,D,patient,1"),
        header="section,subject,label,use",
    )
    assert check(root, patch_px=288).is_clean
    assert own_data.read("exp1", root, own=True, patch_px=288).one.patch_px == 288
