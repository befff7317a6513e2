"""The example cohort: each format is read back as it was written, and the broken one is refused for three reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mitolib import intake
from mitolib.intake.examples import PROTEINS, WITH_COUNTS, WRITERS, Example, damage, draw_examples, write_examples
from mitolib.settings import PROFILES


@pytest.fixture
def examples(monkeypatch, tmp_path, rng) -> tuple[Example, ...]:
    """In an empty working folder, large enough for a patch."""
    monkeypatch.chdir(tmp_path)
    people = {"C01": "control", "P03": "patient", "P08": "patient"}
    return tuple(
        Example(name, label, rng.poisson(20, (len(PROTEINS), 520, 530)).astype(np.float32))
        for name, label in people.items()
    )


def test_each_format_gives_the_counts_that_were_written(examples):
    for kind in WITH_COUNTS:
        write_examples(kind, examples)
    read = intake.examples.read_back(examples)
    assert read == {kind: {"sections": 3, "greatest difference": 0.0} for kind in WITH_COUNTS}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_is_listed_as_it_is_written_and_a_second_time_refused(kind, examples):
    names = [Path(line) for line in write_examples(kind, examples).splitlines()]
    assert names and all(path.is_file() and path.parts[0] == kind for path in names)
    with pytest.raises(FileExistsError):
        write_examples(kind, examples)


def test_an_unknown_format_lists_the_known_ones(examples):
    with pytest.raises(ValueError, match="steinbock"):
        write_examples("czi", examples)


def test_the_broken_folder_has_three_faults(examples):
    write_examples("steinbock", examples)
    _, is_whole = intake.check(Path("steinbock"), PROFILES["paper"], PROTEINS)
    damage(Path("steinbock"), examples)
    report, is_broken_whole = intake.check(Path("steinbock"), PROFILES["paper"], PROTEINS)
    assert is_whole and not is_broken_whole
    assert all(name in report for name in ("P08.tiff", "P99", "C01.tiff"))


def test_patients_have_twice_the_counts_of_the_same_greys(make_cohort, rng):
    root = make_cohort({"Control": ["C01"], "Patient": ["P03", "P07"]}, PROTEINS, (600, 620))
    control, patient = draw_examples(root, rng=rng)
    assert (control.name, patient.name) == ("C01", "P03") and control.counts_cyx.shape == (3, 600, 600)
    assert patient.counts_cyx.mean() / control.counts_cyx.mean() == pytest.approx(2, rel=0.02)


def test_the_mean_grey_level_has_a_row_for_each_section_and_a_column_for_each_way(examples):
    levels = intake.examples.mean_grey(examples, ["percentiles", "none"])
    assert levels.shape == (3, 2) and levels.loc["C01", "none"] == pytest.approx(20, rel=0.01)
