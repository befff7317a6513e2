"""Chapters side by side: what waits for what, whose line is whose, and what is left when one fails or all are ended."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import side_by_side
from chapters import CHAPTERS, NEEDS, SHARES

from mitolib.settings import ROOT

CAN_FORK = "fork" in side_by_side.multiprocessing.get_all_start_methods()
needs_fork = pytest.mark.skipif(not CAN_FORK, reason="chapters run side by side only where a process can fork")


@pytest.fixture
def threads_as_they_were(monkeypatch):
    for name in side_by_side.THREADS:
        monkeypatch.setenv(name, "1")


class Toy:
    """Work that takes a moment and writes down when it began and ended."""

    def __init__(self, folder: Path, failing: str = "") -> None:
        self.folder, self.failing = folder, failing

    def __call__(self, chapter: str, stderr=None, place=0) -> str:
        self.note(chapter, f"begins at {place}")
        time.sleep(0.3)
        self.note(chapter, "ends")
        return f"{chapter} failed in cell 7" if chapter == self.failing else ""

    def note(self, chapter: str, what: str) -> None:
        with (self.folder / "order").open("a") as file:
            file.write(f"{chapter} {what}\n")

    @property
    def order(self) -> list[str]:
        return (self.folder / "order").read_text().splitlines()


@needs_fork
def test_two_chapters_run_at_once_and_one_waits_for_what_it_needs(tmp_path, threads_as_they_were):
    toy = Toy(tmp_path)
    assert side_by_side.each(toy, ["a", "b", "reads a"], needs={"reads a": ("a", "not asked for")}, jobs=3) == []
    assert set(toy.order[:2]) == {"a begins at 0", "b begins at 1"}
    (begins,) = (i for i, line in enumerate(toy.order) if line.startswith("reads a begins"))
    assert begins > toy.order.index("a ends")


@needs_fork
@pytest.mark.parametrize("jobs", [1, 2])
def test_where_a_chapter_fails_the_others_go_on(tmp_path, threads_as_they_were, jobs):
    toy = Toy(tmp_path, failing="a")
    assert side_by_side.each(toy, ["a", "b", "c"], needs={"c": ("a",)}, jobs=jobs) == ["a failed in cell 7"]
    assert {"b ends", "c ends"} <= set(toy.order)


@needs_fork
def test_a_process_that_dies_is_named(threads_as_they_were):
    def die(chapter: str, stderr=None, place=0) -> str:
        if chapter == "a":
            os._exit(9)
        return ""

    (message,) = side_by_side.each(die, ["a", "b"], needs={}, jobs=2)
    assert message.startswith("a: its process ended with 9 before the chapter did.")


@needs_fork
def test_what_runs_ends_in_order_when_all_is_ended(tmp_path, threads_as_they_were):
    def interrupt_then_wait(chapter: str, stderr=None, place=0) -> str:
        try:
            if chapter == "b":
                time.sleep(0.3)
                os.kill(os.getppid(), signal.SIGINT)  # Ctrl-C
            time.sleep(60)
        finally:
            (tmp_path / chapter).touch()
        return ""

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side.each(interrupt_then_wait, ["a", "b", "never begun"], needs={}, jobs=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_lines_are_whole_and_begin_with_the_name_of_their_chapter():
    out = io.StringIO()
    one, other = side_by_side.Prefixed("exp1", out), side_by_side.Prefixed("exp2", out)
    one.write("epoch 1")
    other.write("exp2: executing\nbank ")
    one.write("/2\n")
    assert out.getvalue() == "exp2: executing\nexp1: epoch 1/2\n"


@needs_fork
def test_the_cores_are_dealt_out_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.setattr(side_by_side, "cores", lambda: 6)
    for name in side_by_side.THREADS:
        monkeypatch.setenv(name, "")  # so that it is as it was after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    told = "{OMP_NUM_THREADS} {TF_NUM_INTRAOP_THREADS}".format
    assert side_by_side.each(lambda name, **_: told(**os.environ), ["a", "b"], needs={}, jobs=2) == ["5 3"] * 2


@pytest.mark.parametrize(
    ("cores", "gpus", "hidden", "jobs"), [(1, [], None, 1), (2, [], None, 2), (8, ["x"], None, 1), (8, ["x"], "-1", 2)]
)
def test_two_chapters_at_once_where_there_are_cores_for_both_and_no_gpu(monkeypatch, cores, gpus, hidden, jobs):
    monkeypatch.setattr(side_by_side, "cores", lambda: cores)
    monkeypatch.setattr(side_by_side.Path, "glob", lambda self, pattern: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert side_by_side.usual_jobs() == (jobs if CAN_FORK else 1)


def test_the_tables_name_chapters_and_a_chapter_comes_after_what_it_needs():
    assert {*NEEDS, *SHARES} <= set(CHAPTERS)
    for chapter, needed in NEEDS.items():
        assert all(CHAPTERS.index(one) < CHAPTERS.index(chapter) for one in needed)
    assert set(CHAPTERS) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("chapter", SHARES)
def test_only_a_chapter_with_units_is_shared_out(chapter):
    """Any other would compute everything in every share."""
    assert "units=" in (ROOT / "notebooks" / f"{chapter}.ipynb").read_text()


def test_the_handler_of_an_end_listens_to_no_second_signal(monkeypatch):
    heard = {}
    monkeypatch.setattr(side_by_side.signal, "signal", heard.__setitem__)
    with pytest.raises(SystemExit) as ended:
        side_by_side.end(signal.SIGTERM, sys._getframe())
    assert ended.value.code == 128 + signal.SIGTERM and heard == {signal.SIGTERM: signal.SIG_IGN}
