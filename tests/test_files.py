"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from mitolib import files
from mitolib.settings import ROOT


def test_a_file_appears_under_its_name_when_it_is_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "scores.json"
    for text in ("first", "second"):
        with files.whole(path) as aside:
            assert aside.parent == path.parent and aside.suffix == ".json"
            aside.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text and list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_nothing_and_the_old_file_stays(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.whole(path) as aside:
        aside.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("is_there", [False, True], ids=["nothing there", "an empty folder"])
def test_a_folder_appears_whole(tmp_path, is_there):
    path = tmp_path / "scale-0.1"
    if is_there:
        path.mkdir()
    with files.whole(path) as aside:
        aside.mkdir()
        (aside / "a").write_text("a")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["scale-0.1", "scale-0.1/a"]


def test_a_folder_that_holds_something_is_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    with pytest.raises(OSError, match="not empty"), files.whole(tmp_path / "mine") as aside:
        aside.mkdir()
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["mine", "mine/notes"]


def test_two_that_write_the_same_file_at_once_do_not_write_into_each_other(tmp_path):
    path, both_write = tmp_path / "map.npy", threading.Barrier(2)

    def write(text: str) -> None:
        with files.whole(path) as aside, aside.open("w") as file:
            file.write(text)
            both_write.wait(timeout=10)
            file.write(text)

    threads = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 2000, "b" * 2000) and list(tmp_path.iterdir()) == [path]


def test_what_was_left_by_a_kill_goes_at_the_next_call_and_what_others_are_writing_stays(tmp_path):
    path = tmp_path / "scores.json"
    script = f"""
import os, signal
from pathlib import Path
from mitolib import files
with files.whole(Path({str(path)!r})) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    running = tmp_path / f"scores{files.MARK}{files.MACHINE}-{os.getpid()}-0.json"
    elsewhere = tmp_path / f"scores{files.MARK}{'0' * 8}-{2**22 + 1}-0.json"  # a process that this machine never had
    for path_of_others in (running, elsewhere):
        path_of_others.write_text("meanwhile")
    with files.whole(path) as aside:
        aside.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, running, elsewhere])
