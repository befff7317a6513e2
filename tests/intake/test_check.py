"""What the check promises: it writes nothing, answers soon, ends quietly, and says of a chapter what that does."""

from __future__ import annotations

import functools
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sections
from sections import FOUR, PATCH_PX, check, cohort, counts, declare, write

from mitolib import intake, own_data
from mitolib.__main__ import main
from mitolib.images import CohortError
from mitolib.settings import PROFILES, PROTEINS, ROOT
from mitolib.splits import plural

THREE = ("SDHA", "COX4", "VDAC1")


# What it says of a chapter, and what the chapter does


def names(controls: int, patients: int) -> list[str]:
    return [f"Control/C{i}" for i in range(controls)] + [f"Patient/P{i}" for i in range(patients)]


def one_more(root: Path) -> None:
    write(root / "Patient/P0/COX4.tif", counts(900))


def one_less(root: Path) -> None:
    (root / "Patient/P0/SDHA.tif").unlink()


def two_of_one(root: Path) -> None:
    rows = ("C0,A,control", "C1,A,control", "P0,C,patient", "P1,D,patient")
    declare(root, *rows)


def two_spellings(root: Path) -> None:
    declare(root, "C0,A,control", "C1,B,control", "P0,p-1,patient", "P1,P01,patient")


def small(root: Path) -> None:
    write(root / "Patient/P0/SDHA.tif", counts(1)[:9])


def one_patch_each(root: Path) -> None:
    for path in root.rglob("*.tif"):
        write(path, counts(int.from_bytes(path.parent.name.encode()))[:33, :34])


COHORTS: dict[str, tuple[list[str], tuple[str, ...], Callable[[Path], object]]] = {
    "two of each": (names(2, 2), ("SDHA",), lambda r: None),
    "one of each": (names(1, 1), ("SDHA",), lambda r: None),
    "one control": (names(1, 3), THREE, lambda r: None),
    "one patient": (names(4, 1), THREE, lambda r: None),
    "no control": (names(0, 3), ("SDHA",), lambda r: None),
    "three of each": (names(3, 3), THREE, lambda r: None),
    "the ten": (names(2, 2), PROTEINS, lambda r: None),
    "nine of the ten": (names(2, 2), PROTEINS[:-1], lambda r: None),
    "two proteins": (names(2, 2), ("SDHA", "COX4"), lambda r: None),
    "without SDHA": (names(2, 2), ("COX4", "VDAC1"), lambda r: None),
    "three without SDHA": (names(2, 2), ("COX4", "VDAC1", "NDUFB8"), lambda r: None),
    "none of the ten": (names(2, 2), ("CD3", "CD8"), lambda r: None),
    "a protein in one section": (names(2, 2), ("SDHA",), one_more),
    "a protein missing in one section": (names(2, 2), ("SDHA", "COX4"), one_less),
    "two sections of one person": (names(2, 2), ("SDHA",), two_of_one),
    "two spellings of one person": (names(2, 2), ("SDHA",), two_spellings),
    "a small section": (names(2, 2), ("SDHA",), small),
    "sections of a single patch": (names(2, 2), ("SDHA",), one_patch_each),
    "single patches of three people": (names(3, 3), ("SDHA",), one_patch_each),
    "one picture twice": (names(2, 2), ("SDHA",), lambda r: write(r / "Patient/P0/SDHA.tif", counts(0))),
    "one picture twice, of another protein": (
        names(2, 2),
        THREE[:2],
        lambda r: write(r / "Patient/P0/COX4.tif", counts(1)),
    ),
    "no number": (names(2, 2), ("SDHA",), lambda r: write(r / "Patient/P0/SDHA.tif", counts(0) * np.float32("nan"))),
    "no number in another protein": (
        names(2, 2),
        THREE[:2],
        lambda r: write(r / "Patient/P0/COX4.tif", counts(0) * np.float32("nan")),
    ),
    "a constant": (names(2, 2), ("SDHA",), lambda r: write(r / "Patient/P0/SDHA.tif", 0 * counts(0) + 7)),
    "a kind that tells the class": (
        names(2, 2),
        ("SDHA",),
        lambda r: [write(r / f"Patient/P{i}/SDHA.tif", counts(50 + i).astype("u1")) for i in (0, 1)],
    ),
    "an unknown file": (names(2, 2), ("SDHA",), lambda r: (r / "Patient/P9.czi").touch()),
    "a stray class": (names(2, 2), ("SDHA",), lambda r: (r / "Carrier").mkdir()),
}
ASKED: dict[str, dict[str, object]] = {
    "nothing": {},
    "a protein": {"protein": "COX4"},
    "a protein by another spelling": {"protein": "168Er_Cox4"},
    "three proteins": {"proteins": "SDHA,COX4,VDAC1"},
    "one of several": {"proteins": "SDHA"},
    "both": {"protein": "VDAC1", "proteins": "COX4,VDAC1,NDUFB8"},
    "one that is not there": {"protein": "ATP5"},
    "a large patch": {"patch_px": 40},
    "a small step": {"stride_px": 2},
}


PAIRS = [(case, "nothing") for case in COHORTS] + [
    (case, asked)
    for asked in ASKED
    for case in (
        "two proteins",
        "three without SDHA",
        "a protein missing in one section",
        "single patches of three people",
    )
]


PAIRS += [
    ("no number in another protein", "a protein"),
    ("no number in another protein", "one of several"),
    ("one picture twice, of another protein", "a protein"),
    ("one picture twice, of another protein", "one of several"),
]


@pytest.mark.parametrize(("case", "asked"), dict.fromkeys(PAIRS))
def test_what_is_said_of_a_chapter_is_what_it_does(tmp_path, monkeypatch, case, asked):
    monkeypatch.setattr(own_data, "surveyed", functools.cache(own_data.surveyed))  # one pass over the folder for all
    folders, proteins, spoil = COHORTS[case]
    root = cohort(tmp_path, folders, proteins)
    spoil(root)
    options = {"patch_px": PATCH_PX} | ASKED[asked]
    several = options.pop("proteins", None)
    text = check(root, several, **options).text
    for chapter in own_data.CHAPTERS:
        (line,) = re.findall(rf"^  {chapter}: .*$", text, re.MULTILINE)
        try:
            own_data.read(chapter, root, own=True, proteins=several, **options)
            refused = ""
        except CohortError as problem:
            refused = str(problem)
        assert line.startswith(f"  {chapter}: refuses") == bool(refused), (line, refused)
        # The reason is said where the chapter's own is not that of the folder as a whole.
        if " cannot run, because " in refused and "for the reason of" not in line:
            assert refused.partition(" cannot run, because ")[2] in line


CHOICES = {  # what a chapter's refusal or the check advises, done
    "another protein": (("COX4", "VDAC1"), "exp1", {}, r"-p protein one of (\w+)", "protein"),
    "other proteins": (("COX4", "VDAC1", "NDUFB8"), "exp2", {}, r"-p proteins out of ([\w, ]+)\.", "proteins"),
    "more proteins": (THREE, "exp2", {"proteins": "SDHA,COX4"}, r"-p proteins out of ([\w, ]+)\.", "proteins"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_a_choice_of_proteins_that_is_advised_can_be_made(tmp_path, case):
    proteins, chapter, asked, advice, parameter = CHOICES[case]
    root = cohort(tmp_path, names(2, 2), proteins)
    with pytest.raises(CohortError, match=advice) as caught:
        own_data.read(chapter, root, own=True, patch_px=PATCH_PX, **asked)
    chosen = re.search(advice, str(caught.value))[1].replace(" ", "")
    used = own_data.read(chapter, root, own=True, patch_px=PATCH_PX, **{parameter: chosen})
    assert used.verdict.refusal == "" and check(root, patch_px=PATCH_PX, **({parameter: chosen})).is_clean


@pytest.mark.parametrize("case", ["a protein in one section", "a protein missing in one section"])
def test_what_all_sections_have_can_be_asked_for_though_one_lacks_another(tmp_path, case):
    folders, proteins, spoil = COHORTS[case]
    root = cohort(tmp_path, folders, proteins)
    spoil(root)
    answer = check(root)
    chosen = re.search(r"all sections have (\w+)\)", "".join(answer.problems))[1]
    assert check(root, chosen).is_clean and check(root, protein=chosen).is_clean
    assert own_data.read("exp1", root, own=True, patch_px=PATCH_PX, protein=chosen).one.proteins == (chosen,)


def test_too_few_patches_are_mended_by_a_smaller_patch_or_step(tmp_path):
    root = cohort(tmp_path, names(2, 2))
    one_patch_each(root)
    for label in ("Control/C", "Patient/P"):
        for i in (0, 1):
            write(root / f"{label}{i}/SDHA.tif", counts(ord(label[0]) + i, shape=(130, 130)))
    with pytest.raises(CohortError, match="-p patch_px, -p stride_px"):
        own_data.read("exp1", root, own=True, patch_px=128)
    assert own_data.read("exp1", root, own=True, patch_px=64)
    assert own_data.read("exp1", root, own=True, patch_px=128, stride_px=1)


def test_people_are_counted_as_people(tmp_path):
    root = cohort(tmp_path, names(2, 2))
    two_of_one(root)
    assert "1 control and 2 patients; wanted two of each" in check(root).text
    assert plural(1) == "" and plural(2) == plural(0) == "s"


def test_every_chapter_takes_the_parameters_that_remedies_name():
    """`-p patch_px` is advised for every chapter, `-p protein` and `-p proteins` where it takes one or several."""
    lacking = []
    for chapter, needs in own_data.CHAPTERS.items():
        source = (ROOT / "notebooks" / f"{chapter}.ipynb").read_text()
        wanted = ["patch_px", *(["protein"] if needs.one else []), *(["proteins"] if needs.several else [])]
        lacking += [f"{chapter}: {name}" for name in wanted if not re.search(rf'"{name} = ', source)]
    assert lacking == []


# Parameters that are empty, or not what was written

PARAMETERS = {
    **{
        f"protein {value!r}": {"protein": value}
        for value in ("", "  ", "SDHA,COX4", ["SDHA", "COX4"], 0, False, 7, ",")
    },
    **{
        f"proteins {value!r}": {"proteins": value}
        for value in ("", " ", [], (), "SDHA,,COX4", "SDHA,sdha", 0, [7], ",")
    },
    **{f"patch_px {value!r}": {"patch_px": value} for value in (0, -1, 1.5, "512", True, False, "", float("nan"))},
    **{f"stride_px {value!r}": {"stride_px": value} for value in (0, -224, "", False, 2.0)},
}


@pytest.mark.parametrize("own", [True, False], ids=["own", "phantom"])
@pytest.mark.parametrize("case", PARAMETERS)
def test_a_parameter_that_is_empty_or_odd_is_refused_by_name(tmp_path, case, own):
    (parameter, _), *_ = PARAMETERS[case].items()
    with pytest.raises(ValueError, match=rf"^{parameter} is .*wanted .*(Write|Correct) "):
        own_data.read("exp1", cohort(tmp_path), own=own, **PARAMETERS[case])


def test_no_network_of_several_proteins_is_made_of_two(tmp_path):
    root = cohort(tmp_path, names(2, 2), PROTEINS)
    for own in (True, False):
        with pytest.raises(ValueError, match=r"exp2 .*2 proteins, wanted 3"):
            own_data.read("exp2", root, own=own, proteins="SDHA,COX4", patch_px=PATCH_PX)


@pytest.mark.parametrize("value", ["", "   ", 0, 2024, 1e3, 7, False, True, float("nan"), [], ["a"], {"a": 1}, b"a"])
def test_data_that_is_empty_or_no_text_is_never_the_phantom(value):
    with pytest.raises(ValueError, match=r"^data is .*(Give a folder|-[pr] data FOLDER)"):
        own_data.folder(value)


def test_data_that_is_no_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").touch()
    for value, finding in (("nowhere", "no such folder"), ("a.csv", "is a file"), ("None", "no such folder")):
        with pytest.raises(ValueError, match=rf"data is '{value}': {finding}.*Control/"):
            own_data.folder(value)
    assert own_data.folder(None) is None


@pytest.mark.parametrize("name", ["2024", "0", "007", "1e3", "True", "None"])
def test_a_folder_called_by_a_number_is_read_when_it_is_written_as_advised(tmp_path, monkeypatch, name):
    """`-r data 2024` and `-p data ./2024` both come as text."""
    cohort(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for value in (name, f"./{name}"):
        folder = own_data.folder(value)
        assert len(own_data.read("exp1", folder, own=True, patch_px=PATCH_PX).sections) == 4
        assert own_data.name(folder) == f"your own, from the folder {name}"


# The command


def run(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mitolib", *map(str, words)], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize(
    "words",
    [
        ("check", ""),
        ("check", "  "),
        ("convert", "", "new"),
        ("convert", "here", ""),
        ("convert", "here", "new", "--pseudonymise", ""),
        ("check", "here", "--proteins", ""),
        ("check", "here", "--protein", ""),
        ("check", "here", "--patch-px", "0"),
        ("check", "here", "--stride-px", ""),
        ("check", "here", "--profile", ""),
        ("convert", "here", "new", "--intensity", ""),
        ("convert", "here", "new", "--hot-pixels", "nan"),
        ("convert", "here", "new", "--proteins", " , "),
    ],
    ids=" ".join,
)
def test_an_empty_argument_is_refused(tmp_path, monkeypatch, capsys, words):
    """Above all FOLDER, which a shell makes empty of a variable that is not set: it is not the folder one is in."""
    cohort(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(words)
    said = f"{caught.value}{capsys.readouterr().err}"
    assert caught.value.code and re.search(r"empty|wanted|invalid", said), said
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


# What the process opens for writing, makes, moves or removes, but for what Python compiles and the device of nothing.
WATCHED = """
import atexit, os, sys
written = []
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in (mode or "") for letter in "wax+")
        writes = writes or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and "__pycache__" not in str(path) and path != os.devnull and not isinstance(path, int):
            written.append(str(path))
    elif event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.move"}:
        if "__pycache__" not in str(arguments[0]):
            written.append(str(arguments[0]))
sys.addaudithook(watch)
atexit.register(lambda: print("written:", written, file=sys.stderr))
from mitolib.__main__ import main
main(sys.argv[1:])
"""


def seconds_of_cpu(*command: object) -> tuple[subprocess.CompletedProcess, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    return done, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def test_the_check_writes_nothing_and_its_libraries_take_most_of_its_time(tmp_path):
    root = cohort(tmp_path / "data", proteins=THREE)
    sections.mcd(root / "Patient/P3.mcd", sections.region(3, names=THREE))
    (root / "Patient/P4.czi").touch()
    done, checking = seconds_of_cpu("-c", WATCHED, "check", root, "--patch-px", PATCH_PX)
    assert done.returncode == 1 and "1 to mend" in done.stdout
    assert done.stderr.strip() == "written: []"
    # Machines differ, so against what any program waits for that reads pictures and tables.
    _, importing = seconds_of_cpu("-c", "import pandas, tifffile, readimc")
    assert checking < 2.5 * importing


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs a shell")
def test_a_reader_who_has_seen_enough_ends_the_check_quietly(tmp_path):
    root = cohort(tmp_path / "data", [f"Patient/P{i}" for i in range(40)])  # more text than a pipe holds
    command = f"'{sys.executable}' -m mitolib check '{root}' --patch-px 32 | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "" and done.stdout == f"{root}: sections 40, people 40\n"


def test_the_first_part_is_given_before_a_pixel_is_read(tmp_path, monkeypatch):
    root = cohort(tmp_path, FOUR)
    parts = intake.report(root, PROFILES["paper"], [], patch_px=PATCH_PX)
    monkeypatch.setattr("mitolib.images.quality.read", lambda *_: pytest.fail("a pixel was read"))
    assert "sections 4, people 4" in next(parts)


@pytest.mark.parametrize("target", ["data/new", "data/Patient/new", "data", "data/../data/new"])
def test_no_folder_is_converted_into_itself(tmp_path, target):
    root = cohort(tmp_path / "data")
    with pytest.raises((ValueError, FileExistsError), match=r"every section twice|is there already"):
        intake.convert(root, tmp_path / target)
    assert check(root).is_clean and len(list(root.rglob("*.tif"))) == 4


def test_a_conversion_that_is_refused_says_how_many_more_problems_there_are(tmp_path):
    root = cohort(tmp_path / "data")
    for name in FOUR[:3]:
        (root / name / "SDHA.tif").write_bytes(b"")
    with pytest.raises(SystemExit, match="2 more: `python -m mitolib check` lists them"):
        main(["convert", str(root), str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_chapters_are_told_of_also_where_nothing_can_be_read(tmp_path):
    answer = check(tmp_path / "nowhere")
    assert answer.has("no such folder")
    assert all(re.search(rf"^  {chapter}: refuses", answer.text, re.MULTILINE) for chapter in own_data.CHAPTERS)
