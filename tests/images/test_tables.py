"""cohort.csv, classes.csv and panel.csv as spreadsheets and people write them."""

from __future__ import annotations

import pytest
from sections import check, cohort, counts, declare, pages

from mitolib.cohort import survey
from mitolib.images import CohortError
from mitolib.images.tables import read_table

PLAIN = "section,subject,label\nC01,Müller,control\nC02,B,control\nP01,C,patient\nP02,C,patient\n"
TABLES = {
    "plain": PLAIN,
    "capitals": PLAIN.replace("section,subject,label", "Section,SUBJECT,Label"),
    "spaces": PLAIN.replace(",", " , ").replace("\n", " \n"),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "sep=;": "sep=;\n" + PLAIN.replace(",", ";"),
    "sep=, in quotes": '"sep=,"\n' + PLAIN,
    "sep= and a tab": "sep=\t\n" + PLAIN.replace(",", "\t"),
    "a byte-order mark": "\ufeff" + PLAIN,
    "a byte-order mark and sep=": "\ufeffsep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
    "Windows line ends": PLAIN.replace("\n", "\r\n"),
    "old Mac line ends": PLAIN.replace("\n", "\r"),
    "no last line end": PLAIN.rstrip("\n"),
    "blank last rows": PLAIN + ",,\n,,\n\n",
    "blank rows between": PLAIN.replace("\n", "\n,,\n"),
    "blank rows above": ",,\n\n" + PLAIN,
    "blank columns": PLAIN.replace("\n", ",,\n"),
    "cells too many, all blank": PLAIN.replace("control\n", "control,,\n"),
    "quoted cells": "\n".join(",".join(f'"{cell}"' for cell in row.split(",")) for row in PLAIN.splitlines()),
    "quotes behind spaces": PLAIN.replace("Müller", ' "Müller"'),
    "a separator in a quoted cell": PLAIN.replace(
        "section,subject,label", 'section,subject,label,"age, years"'
    ).replace("patient\n", 'patient,"4,5"\n'),
    "a comma in a header of semicolons": PLAIN.replace(",", ";").replace("label\n", "label;age, in years\n"),
    "columns in another order": "label,subject,section\n"
    + "\n".join(",".join(reversed(row.split(","))) for row in PLAIN.splitlines()[1:]),
    "what comes with a copied cell": PLAIN.replace("P01", "P01\u200b").replace("section", "\u200bsection"),
    "labels in capitals and plural": PLAIN.replace("control", "Controls").replace("patient", " PATIENT"),
}


LATIN = [case for case, text in TABLES.items() if not {"\ufeff", "\u200b"} & set(text)]


@pytest.mark.parametrize(("case", "encoding"), [(c, "utf-8") for c in TABLES] + [(c, "cp1252") for c in LATIN])
def test_a_table_is_read_however_it_was_saved(tmp_path, case, encoding):
    root = cohort(tmp_path)
    (root / "cohort.csv").write_bytes(TABLES[case].encode(encoding))
    found = survey(root, None)
    assert not found.problems and not found.notes
    assert [section.subject for section in found.sections] == ["Müller", "B", "C", "C"]


BAD = {  # (table, what is found, what helps)
    "no header": ("\n".join(PLAIN.splitlines()[1:]), "no column section, subject, label; found c01", "Add the column"),
    "a title above": ("Our cohort\n" + PLAIN, "row 2 has 3 cells, the header 1", "Remove what is too much"),
    "a column missing": (PLAIN.replace("subject", "person"), "no column subject; found section, person", "Add the col"),
    "a column twice": (PLAIN.replace("label", "subject"), "column subject stands twice", "Keep one"),
    "a cell too many": (PLAIN.replace("B,control", "B,x,control"), "row 3 has 4 cells, the header 3", "Remove what is"),
    "an open quote": (PLAIN.replace("Müller", '"Müller'), "cannot be read as a table", "Save it as comma-separated"),
    "another label": (
        PLAIN.replace("patient", "MELAS"),
        "label MELAS; wanted control or patient",
        "Correct the column",
    ),
    "no label": (PLAIN.replace("C,patient", "C,"), "label empty", "Correct the column"),
    "no subject": (PLAIN.replace("B,control", ",control"), "a row without subject", "Fill it in"),
    "no section": (PLAIN.replace("C02", ""), "a row without section", "Fill it in"),
    "a section twice": (PLAIN + "C02,B,control\n", "section C02 stands twice", "Keep one row"),
    "one subject in two classes": (
        PLAIN.replace("B,control", "c,control"),
        "C, c is control and patient",
        "Correct sub",
    ),
    "use by a word": (PLAIN.replace("\n", ",maybe\n").replace("label,maybe", "label,use"), "use is maybe", "Write 1"),
    "nothing": ("", "it is empty", "Save it again"),
    "blank cells": (",,,\n,,,\n", "it is empty", "Save it again"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_cannot_be_read_is_one_problem_that_names_the_place(tmp_path, case):
    text, finding, remedy = BAD[case]
    root = cohort(tmp_path)
    (root / "cohort.csv").write_text(text, encoding="utf-8")
    answer = check(root)
    assert answer.has("cohort.csv", finding, remedy), answer.problems


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_table_in_utf_16_is_refused_and_can_be_saved_again(tmp_path, encoding):
    root = cohort(tmp_path)
    (root / "cohort.csv").write_bytes(PLAIN.encode(encoding))
    assert check(root).has("cohort.csv", "UTF-16", "Save it as comma-separated text, in UTF-8")
    (root / "cohort.csv").write_text(PLAIN, encoding="utf-8")
    assert check(root).is_clean


def test_further_columns_are_kept_and_unnamed_ones_that_hold_something(tmp_path):
    (tmp_path / "cohort.csv").write_text("section,Genotype,,\nC01,m.3243A>G,,x\n")
    table = read_table(tmp_path / "cohort.csv")
    assert table.to_dict("records") == [{"section": "C01", "genotype": "m.3243A>G", "column 4": "x"}]


CLASSES = {
    "classes.csv": "class,label\nHC,control\nMELAS,patient\n",
    "with semicolons and capitals": "Class;Label\nhc;Control\nMelas;Patient\n;;\n",
    "of several classes": "class,label\nHC,control\nMELAS,patient\nCPEO,patient\n",
}


@pytest.mark.parametrize("case", CLASSES)
def test_classes_of_other_names_are_understood_and_said(tmp_path, case):
    root = cohort(tmp_path, ("HC/C01", "HC/C02", "MELAS/P01", "MELAS/P02"))
    assert check(root).has("HC: not a class folder", "classes.csv")
    (root / "classes.csv").write_text(CLASSES[case])
    answer = check(root)
    assert answer.is_clean and "HC is taken for control" in answer.text and "MELAS is taken for patient" in answer.text


BAD_CLASSES = {
    "no label": ("class,name\nHC,control\n", "no column label", "Add the column"),
    "another label": ("class,label\nHC,healthy\n", "label healthy; wanted control or patient", "Correct the column"),
    "both": ("class,label\nHC,control\nhc,patient\n", "class hc is control and patient", "Keep one label"),
    "the usual names swapped": (
        "class,label\nControl,patient\nPatient,control\n",
        "Control is labelled patient",
        "Corr",
    ),
}


@pytest.mark.parametrize("case", BAD_CLASSES)
def test_bad_classes_are_a_problem(tmp_path, case):
    text, finding, remedy = BAD_CLASSES[case]
    root = cohort(tmp_path)
    (root / "classes.csv").write_text(text)
    assert check(root).has("classes.csv", finding, remedy)


def test_a_class_column_leaves_out_what_is_not_used(tmp_path):
    root = cohort(tmp_path, ("HC/C01", "HC/C02", "MELAS/P01", "MELAS/P02"))
    rows = ("C01,A,control,HC,1", "C02,B,control,HC,1", "P01,C,patient,MELAS,1", "P02,,,,0")
    declare(root, *rows, header="section,subject,label,class,use")
    answer = check(root)
    assert answer.is_clean and "sections 3" in answer.text


PANEL = "channel,name,keep\nEu151,SDHA,1\nEu152,COX4,1\n"
PANELS = {
    "plain": PANEL,
    "capitals and semicolons": PANEL.replace(",", ";").replace("channel", "Channel").replace("keep", "KEEP"),
    "sep=;": "sep=;\n" + PANEL.replace(",", ";"),
    "blank last rows": PANEL + ",,\n,,\n",
    "blank columns": PANEL.replace("\n", ",\n"),
    "decimal commas": PANEL.replace(",", ";").replace(";1", ";1,0"),
    "quoted": PANEL.replace("SDHA", '"SDHA"'),
    "a byte-order mark": "\ufeff" + PANEL,
}


@pytest.mark.parametrize("case", PANELS)
def test_a_panel_names_the_channels_of_a_stack_however_it_was_saved(tmp_path, case):
    for i, name in enumerate(("Control/C01", "Patient/P01")):
        pages(tmp_path / f"{name}.tiff", [counts(i), counts(i + 10)])
    assert check(tmp_path).has("2 channels without names", "Add a panel.csv")
    (tmp_path / "panel.csv").write_bytes(PANELS[case].encode())
    assert check(tmp_path).is_clean


def test_a_panel_of_another_number_is_a_problem_of_each_stack_and_no_crash(tmp_path):
    for i, name in enumerate(("Control/C01", "Patient/P01")):
        pages(tmp_path / f"{name}.tiff", [counts(i), counts(i + 10)])
    (tmp_path / "panel.csv").write_text("channel,name\n1,SDHA\n2,COX4\n3,VDAC1\n")
    for proteins in (None, ["SDHA"]):
        answer = check(tmp_path, proteins)
        for name in ("C01.tiff", "P01.tiff"):
            assert answer.has(f"{name}: 2 channels without names, but panel.csv keeps 3", "Keep one row")


def test_pictures_of_no_common_name_are_one_problem_that_says_what_they_are_called(tmp_path):
    root = cohort(tmp_path)
    for name in ("Control/C01", "Control/C02", "Patient/P01", "Patient/P02"):
        (root / name / "SDHA.tif").rename(root / name / f"{name[-3:]}.tif")
    assert check(root).has("no protein that all sections have; found C01, C02, P01", "Rename files")
    (root / "panel.csv").write_text("channel,name\nC01,SDHA\nC02,SDHA\nP01,SDHA\nP02,SDHA\n")
    assert check(root).is_clean


def test_a_table_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "cohort.csv").write_bytes(bytes(range(256)))
    with pytest.raises(CohortError, match=r"cohort\.csv: cannot be read as a table"):
        read_table(tmp_path / "cohort.csv")
