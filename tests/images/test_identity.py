"""Who is one person: nobody is trained on under one name and tested under another.

Every remedy that a message names is done, and the folder is clean then. Honest names are left alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import sections
import tifffile
from PIL import Image
from sections import FOUR, check, cohort, counts, declare, look, write

from mitolib.cohort import survey
from mitolib.images import quality, to_8_bit
from mitolib.images.names import identity, slide

ROWS = ("C01,A,control", "C02,B,control", "P01,C,patient", "P02,D,patient")


def people(root: Path) -> dict[str, str]:
    """Section -> subject, as the check understands it."""
    return {section.section: section.subject for section in survey(root, None, patch_px=sections.PATCH_PX).sections}


# Spellings

ONE = [
    *(("P-01", "p01"), ("P 1", "P001"), ("P_01", "P01"), ("p.1", "P1"), ("P01", "Ｐ０１"), ("P01", "P０１")),
    *(("Müller", "Mu\u0308ller"), ("MÜLLER", "müller"), ("Anna Lee", "anna-lee"), ("001", "1"), ("P1a", "P01A")),
    *(("P\u00a001", "P01"), ("Straße", "STRASSE"), ("P–01", "P01"), ("01/2", "1-2")),
]
TWO = [
    *(("P1", "P10"), ("P1", "P11"), ("P1-0", "P10"), ("P01", "C01"), ("Muller", "Müller"), ("P1a", "P1b")),
    *(("1-12", "11-2"), ("Anna", "Ann"), ("P01", "P01b"), ("", "P")),
]


@pytest.mark.parametrize(("one", "other"), ONE)
def test_two_spellings_are_one_person(tmp_path, one, other):
    assert identity(one) == identity(other)
    root = cohort(tmp_path)
    quoted = [f'"{name}"' for name in (one, other)]
    declare(root, *ROWS[:2], f"P01,{quoted[0]},patient", f"P02,{quoted[1]},patient")
    assert look(root).has("differ in spelling alone", "cohort.csv")
    declare(root, *ROWS[:2], f"P01,{quoted[0]},patient", f"P02,{quoted[0]},patient")  # one of the names in all rows
    assert look(root).is_clean and len(set(people(root).values())) == 3


@pytest.mark.parametrize(("one", "other"), TWO)
def test_two_names_are_two_people(one, other):
    assert identity(one) != identity(other)


@pytest.mark.parametrize(("one", "other"), [("P1", "P01"), ("p01", "P01"), ("P-01", "P01"), ("P 1", "P_1")])
def test_sections_that_differ_in_spelling_alone_are_settled_by_a_table(tmp_path, one, other):
    root = cohort(tmp_path, ("Control/C01", "Control/C02", f"Patient/{one}", f"Patient/{other}"))
    assert look(root).has(one, other, "differ in spelling alone")
    declare(root, *ROWS[:2], f"{one},C,patient")
    assert look(root).has(f"section {other} is not in cohort.csv"), "the row of one says nothing of the other"
    declare(root, *ROWS[:2], f"{one},C,patient", f"{other},C,patient")
    assert look(root).is_clean and people(root)[one] == people(root)[other] == "C"
    declare(root, *ROWS[:2], f"{one},C,patient", f"{other},D,patient")
    assert look(root).is_clean and people(root)[other] == "D"


def test_a_row_speaks_for_one_section(tmp_path):
    root = cohort(tmp_path, ("Control/C01", "Control/C02", "Patient/P-1", "Patient/p1"))
    declare(root, *ROWS[:2], "P01,C,patient")
    assert look(root).has("row of section P01", "P-1 and p1", "Give each a row")
    declare(root, *ROWS[:2], "P-1,C,patient", "p1,D,patient")
    assert look(root).is_clean


TABLES = {  # what a spreadsheet makes of the names of sections 01, 02, ... and of a table by other means
    "leading zeros lost": ("1,A,control", "2,B,control", "3,C,patient", "4,D,patient"),
    "names of files": ("01.tif,A,control", "02.ome.tiff,B,control", "03.MCD,C,patient", "04.txt,D,patient"),
    "other capitals and spaces": ("o 1,A,control", "O2,B,control", "O-03,C,patient", "o04,D,patient"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_section_is_found_in_the_table_whatever_a_spreadsheet_made_of_its_name(tmp_path, case):
    letter = "O" if "o" in TABLES[case][0].split(",")[0] else ""
    root = cohort(
        tmp_path, [f"{folder}/{letter}{i:02d}" for i, folder in enumerate(["Control"] * 2 + ["Patient"] * 2, 1)]
    )
    declare(root, *TABLES[case])
    assert look(root).is_clean
    assert list(people(root).values()) == ["A", "B", "C", "D"]


def test_a_row_without_a_section_is_named_and_can_be_removed(tmp_path):
    root = cohort(tmp_path)
    declare(root, *ROWS, "P-01,E,patient")
    assert look(root).has("section P-01 has no folder or file", "remove the row")
    declare(root, *ROWS)
    assert look(root).is_clean


# Tables under another name or in another place

ALIKE = [
    *("cohort (1).csv", "Cohort.xlsx", "cohort.csv.txt", "cohort.tsv", "COHORT.txt", "cohort_final.csv", "cohorts.csv"),
    *("cohort - Copy.csv", "cohort.ods", "panel (2).csv", "Panel.xls", "classes.xlsx", "class.csv", "cohort.json"),
]


@pytest.mark.parametrize("name", ALIKE)
def test_a_table_that_only_looks_like_one_is_a_problem_until_it_is_saved_or_moved(tmp_path, name):
    root = cohort(tmp_path)
    (root / name).write_text("section,subject,label\nP01,C,patient\nP02,C,patient\n")
    wanted = next(table for table in ("cohort.csv", "panel.csv", "classes.csv") if name.lower()[:4] == table[:4])
    assert look(root).has(name, f"looks like {wanted} and is not read", f"Save it as {wanted}")
    (root / name).unlink()
    assert look(root).is_clean


@pytest.mark.parametrize("name", ["Cohort.csv", "COHORT.CSV", "cohort.CSV"])
def test_a_table_is_read_whatever_its_capitals(tmp_path, name):
    root = cohort(tmp_path)
    declare(root, *ROWS[:3], "P02,C,patient", name=name)
    assert look(root).is_clean and len(set(people(root).values())) == 3


def test_two_tables_of_one_name_are_a_problem_and_a_copy_beside_the_table_a_note(tmp_path):
    root = cohort(tmp_path)
    declare(root, *ROWS)
    declare(root, *ROWS, name="cohort (1).csv")
    answer = look(root)
    assert answer.is_clean and any("cohort (1).csv: is not read, cohort.csv is" in note for note in answer.notes)
    declare(root, *ROWS, name="Cohort.csv")
    assert look(root).has("Cohort.csv", "cohort.csv", "differ in capitals alone")


@pytest.mark.parametrize("name", ["cohort.csv", "Cohort.csv", "panel.csv", "cohort.xlsx", "cohort (1).csv"])
@pytest.mark.parametrize("folder", ["Control", "Patient"])
def test_a_table_in_a_class_folder_is_a_problem_until_it_is_moved_up(tmp_path, folder, name):
    root = cohort(tmp_path)
    declare(root / folder, *ROWS, name=name)
    assert look(root).has(f"{folder}/{name}", "not read there", "Move it into")
    wanted = "panel.csv" if "panel" in name else "cohort.csv"
    (root / folder / name).rename(root / wanted)
    if wanted == "panel.csv":
        (root / wanted).write_text("channel,name\nSDHA,SDHA\n")
    assert look(root).is_clean


# Regions of one person

REGIONS = [
    *(["P01_1", "P01_2"], ["P01a", "P01b"], ["P01-left", "P01-right"], ["P01 L", "P01 R"], ["P01", "P01_2"]),
    *(["P01_ROI_001_1", "P01_ROI_002_2"], ["P01ROI1", "P01ROI2"], ["Anna_ROI1", "Anna_ROI2"], ["P01 (1)", "P01 (2)"]),
    *(["Leap001_s0_a3_ac", "Leap001_s0_a4_ac"], ["P01_001", "P01_002"], ["P01.1", "P01.2"], ["P1-A", "p01_b"]),
    *(["P01_II", "P01_III"], ["P01", "P01 - Copy"], ["Anna left", "Anna right"], ["P01_sec1", "P01_sec2"]),
    *(["P01links", "P01rechts"], ["P01_s1", "P01_s2"], ["P01 core 3", "P01 core 4"], ["P01_x", "P01_y"]),
]


@pytest.mark.parametrize("names", REGIONS, ids=" & ".join)
def test_regions_of_one_person_are_told_until_a_table_says_whose_they_are(tmp_path, names):
    root = cohort(tmp_path, FOUR[:3])
    (root / "Patient/P01").rename(root / "Patient/P09")
    for i, name in enumerate(names):
        if REGIONS.index(names) % 2:  # as folders or as files
            sections.pages(root / f"Patient/{name}.ome.tiff", [counts(50 + i)], None, ["SDHA"])
        else:
            write(root / f"Patient/{name}/SDHA.tif", counts(50 + i))
    answer = look(root)
    assert answer.has(*names, "look like regions of one person", "Write a cohort.csv"), answer.problems
    rows = [*ROWS[:2], "P09,C,patient"]
    for whose in (("D", "D"), ("D", "E")):  # of one person, or of two: only the reader can know
        declare(root, *rows, *(f"{name},{subject},patient" for name, subject in zip(names, whose, strict=True)))
        assert look(root).is_clean
        assert [people(root)[name] for name in names] == list(whose)


HONEST = [
    [f"P{i}" for i in range(1, 13)],
    [f"Patient_{i}" for i in range(1, 10)],
    [f"{i:02d}" for i in range(1, 11)],
    ["P-01", "P-02", "P-03"],
    ["H21-1234", "H21-1235"],
    ["22-00413", "22-00414"],
    ["Patient_A", "Patient_B"],
    ["Batch1_P01", "Batch1_P02"],
    ["II-1", "II-2", "III-1"],
    ["P011", "P012", "P01"],
    ["Müller", "Meier", "Møller"],
    ["P01a", "P02b"],
    ["MT-TL1 case A", "POLG case B"],
    ["20230115", "20230116"],
]


@pytest.mark.parametrize("names", HONEST, ids=lambda names: names[0])
def test_honest_names_are_left_alone(tmp_path, names):
    root = cohort(tmp_path, ("Control/C01", "Control/C02", *(f"Patient/{name}" for name in names)))
    answer = look(root)
    assert answer.is_clean and not answer.notes
    assert len(people(root)) == len(set(people(root).values())) == len(names) + 2


def test_names_that_may_be_regions_of_people_who_have_names_are_a_note(tmp_path):
    root = cohort(tmp_path, ("Control/C01", "Control/C02", "Patient/Anna_1", "Patient/Anna_2", "Patient/Bo_1"))
    answer = look(root)
    assert answer.is_clean and any("Anna_1, Anna_2 are taken for 2 people" in note for note in answer.notes)


def test_a_letter_or_number_that_belongs_to_a_name_makes_no_slide():
    assert [slide(name) for name in ("P1", "P12", "Patient_1", "C01", "01", "P011")] == [None] * 6


def test_regions_of_one_mcd_are_one_person_and_the_check_says_so(tmp_path):
    root = cohort(tmp_path, FOUR[:3])
    sections.mcd(root / "Patient/P02.mcd", *(sections.region(seed) for seed in (60, 61, 62)))
    answer = look(root)
    assert answer.is_clean and "sections 6, people 4" in answer.text
    assert any("P02_001, P02_002, P02_003: regions of one slide, taken for one person" in note for note in answer.notes)
    declare(root, *ROWS[:3], "P02_001,D,patient", "P02_002,E,patient", "P02_003,D,patient")  # two people on one slide
    assert look(root).is_clean and people(root)["P02_002"] == "E"


# The same picture under two names


def other_format(root: Path) -> None:
    sections.text_export(root / "Patient/P02.txt", tifffile.imread(root / "Patient/P01/SDHA.tif")[None] + 0.1234567)
    write(root / "Patient/P01/SDHA.tif", tifffile.imread(root / "Patient/P01/SDHA.tif") + np.float32(0.1234567))


def in_eight_bits(root: Path) -> None:
    for name in (*FOUR[:2], FOUR[3]):  # so that the kind of file tells nothing
        write(root / name / "SDHA.tif", to_8_bit(counts(sum(name.encode()))))
    write(root / "Control/C02/SDHA.tif", counts(3))
    write(root / "Patient/P02/SDHA.tif", to_8_bit(tifffile.imread(root / "Patient/P01/SDHA.tif")))


def as_jpeg(root: Path) -> None:
    grey = to_8_bit(tifffile.imread(root / "Patient/P01/SDHA.tif"))
    for name in ("Control/C01", "Patient/P01"):
        write(root / name / "SDHA.tif", grey if "P01" in name else to_8_bit(counts(1)))
    for name in ("Control/C02", "Patient/P02"):
        (root / name / "SDHA.tif").unlink()
        Image.fromarray(grey if "P02" in name else to_8_bit(counts(2))).save(root / name / "SDHA.jpg", quality=90)


def as_region(root: Path) -> None:
    shutil.rmtree(root / "Patient/P02")
    image_yx = tifffile.imread(root / "Patient/P01/SDHA.tif")
    sections.mcd(root / "Patient/P02.mcd", sections.Region(image_yx[None]), sections.region(77))


def copy(source: str, target: str):
    return lambda root: write(root / target, tifffile.imread(root / source))


TWICE = {
    "two sections": (copy("Patient/P01/SDHA.tif", "Patient/P02/SDHA.tif"), ("P01", "P02")),
    "two classes": (copy("Control/C01/SDHA.tif", "Patient/P02/SDHA.tif"), ("C01", "P02")),
    "two proteins": (copy("Patient/P01/SDHA.tif", "Patient/P01/COX4.tif"), ("P01/SDHA.tif", "P01/COX4.tif")),
    "two proteins of two sections": (copy("Patient/P01/SDHA.tif", "Patient/P02/COX4.tif"), ("P01", "P02")),
    "other numbers": (
        lambda root: write(root / "Patient/P02/SDHA.tif", 3 * tifffile.imread(root / "Patient/P01/SDHA.tif")),
        ("P01", "P02"),
    ),
    "other kind of number": (
        lambda root: write(root / "Patient/P02/SDHA.tif", tifffile.imread(root / "Patient/P01/SDHA.tif").astype("u2")),
        ("P01", "P02"),
    ),
    "a text export": (other_format, ("P01", "P02")),
    "a copy in 8 bits": (in_eight_bits, ("P01", "P02")),
    "a copy as JPEG": (as_jpeg, ("P01", "P02")),
    "a region of an .mcd": (as_region, ("P01", "P02_001")),
}


@pytest.mark.parametrize("case", TWICE)
def test_one_picture_under_two_names_is_told(tmp_path, case):
    spoil, names = TWICE[case]
    root = cohort(tmp_path, proteins=("SDHA", "COX4") if "two proteins" in case else ("SDHA",))
    assert check(root).is_clean
    spoil(root)
    if case == "a text export":
        shutil.rmtree(root / "Patient/P02")
    answer = check(root)
    assert answer.has(*names, "the same pixels"), answer.problems


def test_a_section_removed_is_a_remedy_for_one_picture_under_two_names(tmp_path):
    root = cohort(tmp_path)
    copy("Patient/P01/SDHA.tif", "Patient/P02/SDHA.tif")(root)
    shutil.rmtree(root / "Patient/P02")
    assert check(root).is_clean


def test_pictures_that_only_resemble_each_other_are_not_the_same(tmp_path):
    """The same bright frame and the same dead line, as one camera leaves them; other tissue within."""
    root = cohort(tmp_path)
    for seed, name in enumerate(FOUR):
        image_yx = counts(300 + seed)
        image_yx[:, :4] = 500
        image_yx[17] = 0
        image_yx[:8] += 200
        write(root / name / "SDHA.tif", image_yx)
    assert check(root).is_clean


def test_many_pictures_of_one_size_are_not_taken_for_each_other(tmp_path):
    root = cohort(tmp_path, [f"Patient/P{i}" for i in range(25)])
    found = quality.read(survey(root, ["SDHA"]).sections, [], [])
    assert len(found) == 25 and list(quality.same_twice(found)) == []
