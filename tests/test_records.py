from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mitolib import figures, records, settings
from mitolib.records import ResultsError
from mitolib.weights import Weights

SMOKE = settings.PROFILES["smoke"]


def record(accuracy: float = 0.5) -> dict:
    provenance = records.provenance(
        SMOKE,
        data={"name": "phantom", "sha256": "0" * 64},
        weights=[Weights("VGG16", "wheel", "1" * 64, "CC BY 4.0", ()), Weights("ResNet50", "random", None, None, None)],
    )
    return {
        "chapter": "exp1",
        "profile": "smoke",
        "provenance": provenance,
        "models": {"VGG16": {"accuracy": accuracy}},
    }


def test_what_is_written_is_what_is_read(tmp_path):
    written = record()
    assert records.write(tmp_path, written) == tmp_path / "exp1.json"
    assert records.read(tmp_path, "exp1") == json.loads(json.dumps(written))


def test_provenance_has_the_contracts_keys_and_no_name_of_the_machine():
    provenance = record()["provenance"]
    assert {"commit", "mitolib", "created", "seconds", "device", "cores", "packages", "seed", "data", "weights"} <= set(
        provenance
    )
    assert provenance["weights"]["VGG16"]["sha256"] == "1" * 64
    text = json.dumps(provenance)
    assert socket.gethostname() not in text and str(Path.home()) not in text


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match=r"file/results: .*cannot be written .*-p results"):
        records.folder(tmp_path / "file" / "results", SMOKE)


def test_without_a_folder_the_environment_names_it_else_the_profile(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "DEFAULT", tmp_path / "build")
    monkeypatch.delenv("MITOLIB_RESULTS", raising=False)
    assert records.folder(None, SMOKE) == tmp_path / "build" / "smoke"
    monkeypatch.setenv("MITOLIB_RESULTS", str(tmp_path / "own"))
    assert records.folder(None, SMOKE) == tmp_path / "own"
    assert records.folder(tmp_path / "given", SMOKE) == tmp_path / "given"


def test_a_failed_write_leaves_the_last_results_as_they_were(tmp_path, monkeypatch):
    records.write(tmp_path, record(0.5))

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(ResultsError, match=r"exp1\.json: cannot be written \(No space left"):
        records.write(tmp_path, record(0.9))
    assert records.read(tmp_path, "exp1")["models"]["VGG16"]["accuracy"] == 0.5


def test_a_run_killed_in_mid_write_leaves_the_last_results_whole(tmp_path):
    records.write(tmp_path, record(0.5))
    script = textwrap.dedent(
        f"""
        import json, os, signal
        from pathlib import Path
        from mitolib import records
        os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        records.write(Path({str(tmp_path)!r}), {{"chapter": "exp1", "models": {{}}}})
        """
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert records.read(tmp_path, "exp1")["models"]["VGG16"]["accuracy"] == 0.5


@contextlib.contextmanager
def another_run(results: Path, chapter: str | None = None) -> Iterator[None]:
    """A process of its own that keeps a results folder."""
    hold = "from mitolib import records, settings; "
    hold += (
        f"records.folder({str(results)!r}, settings.PROFILES['smoke'], {chapter!r}); print('held', flush=True); input()"
    )
    run = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout.readline() == "held\n"
        yield
    finally:
        run.kill()
        run.wait()


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_has_written_or_died(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "WAIT_S", 0.1)
    with another_run(tmp_path), pytest.raises(ResultsError, match=r"another run .*-p results"):
        records.folder(tmp_path, SMOKE)
    assert records.folder(tmp_path, SMOKE) == records.folder(tmp_path, SMOKE) == tmp_path, "one's own is no other's"
    records.write(tmp_path, record())
    with another_run(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["exp1.json"]


def test_two_chapters_share_a_folder_and_two_runs_of_one_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "WAIT_S", 0.1)
    with another_run(tmp_path, "exp1"):
        with pytest.raises(ResultsError, match=r"another run writes the results of exp1 there.*-p results"):
            records.folder(tmp_path, SMOKE, "exp1")
        with pytest.raises(ResultsError, match="another run writes its results there"):
            records.folder(tmp_path, SMOKE)  # of which chapter is not known: it may be the same
        monkeypatch.setenv("MITOLIB_CHAPTER", "exp2")
        assert records.folder(tmp_path, SMOKE) == tmp_path
        records.write(tmp_path, record())


def test_a_file_system_without_locks_is_named_and_used(tmp_path, monkeypatch, capsys):
    def no_locks(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(records.fcntl, "flock", no_locks)
    records.folder(tmp_path, SMOKE, "exp1")
    assert records.write(tmp_path, record()).exists()
    assert f"{tmp_path}: has no locks (No locks available)" in capsys.readouterr().err


def test_a_share_neither_keeps_a_folder_nor_writes_results(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "WAIT_S", 0.1)
    monkeypatch.setenv("MITOLIB_SHARE", "0/2")
    with another_run(tmp_path, "exp1"):  # another share has the same variable
        records.folder(tmp_path, SMOKE, "exp1")
    with pytest.raises(SystemExit) as ended:
        records.write(tmp_path, record())
    assert ended.value.code == 0 and not list(tmp_path.iterdir())


def test_numpys_numbers_are_written_as_numbers_and_what_is_not_finite_as_null(tmp_path):
    numbers = {"a": [np.float32(0.5), np.nan, (np.int64(1), "x")], "b": {2: np.bool_(True), "c": -np.inf}, "d": None}
    path = records.write(tmp_path, record(float("nan")) | numbers)
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    found = records.read(tmp_path, "exp1")
    assert found["models"]["VGG16"]["accuracy"] is None
    assert {key: found[key] for key in numbers} == {"a": [0.5, None, [1, "x"]], "b": {"2": True, "c": None}, "d": None}
    assert type(found["a"][2][0]) is int and found["b"]["2"] is True


def test_a_record_keeps_its_numbers_when_it_is_written(tmp_path):
    written = record() | {"a": [np.float64(0.5), np.nan]}
    records.write(tmp_path, written)
    assert np.isnan(written["a"][1]) and type(written["a"][0]) is np.float64


def test_what_no_json_can_hold_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(TypeError, match="set is not JSON serializable"):
        records.write(tmp_path, record() | {"a": [{1, 2}]})
    assert list(tmp_path.iterdir()) == []


def test_absent_and_broken_files_are_named(tmp_path):
    with pytest.raises(ResultsError, match=r"exp1\.json: not found.*notebooks/exp1\.ipynb"):
        records.read(tmp_path, "exp1")
    (tmp_path / "exp1.json").write_text('{"chapter": ')
    with pytest.raises(ResultsError, match=r"exp1\.json: is no whole JSON"):
        records.read(tmp_path, "exp1")


def test_the_box_says_where_weights_came_from_and_when_they_are_random():
    box = figures.pages.provenance(record())
    assert "ImageNet, from wheel" in box and "1" * 64 in box
    assert "| weights of ResNet50 | random initialisation" in box


def test_the_box_names_the_backend_of_keras_where_it_is_not_tensorflow():
    written = record()
    assert written["provenance"]["backend"] == "tensorflow" and "Keras on" not in figures.pages.provenance(written)
    written["provenance"]["backend"] = "torch"
    assert "; Keras on torch |" in figures.pages.provenance(written)


def test_units_stand_in_one_table_for_each_way_they_were_made():
    made = {"created": "2026-11-28T05:11:42Z", "seconds": 60.0, "device": "EPYC", "cores": 2, "precision": "float32"}
    units = [
        {"unit": {"seed": 127, "fold": None}, "chapter": "exp1", "key": "a" * 64, "made": made | {"commit": "c1"}},
        {"unit": {"seed": 128, "fold": None}, "chapter": "exp1", "key": "b" * 64, "made": made | {"commit": None}},
        {"unit": {"seed": 129, "fold": None}, "chapter": "exp2", "key": "c" * 64, "made": made | {"commit": "c1"}},
    ]
    filled = record()
    filled["provenance"]["units"] = units
    box = figures.pages.provenance(filled)
    first, second = box.split("EPYC, 2 cores, float32, ")[1:]
    assert first.startswith("commit c1\n") and "| seed 127 | 2026-11-28 |" in first and "| exp2: seed 129 |" in first
    assert second.startswith("outside git\n") and "| seed 128 |" in second
    assert "Units: 3, 3.0 minutes of computing" in box


@pytest.mark.parametrize("name", settings.PROFILES)
def test_the_banner_names_the_profile(name):
    assert f"Profile *{name}*" in figures.pages.banner(settings.PROFILES[name], "the phantom")


@pytest.mark.parametrize("name", settings.PROFILES)
def test_a_page_of_ones_own_data_claims_neither_the_published_protocol_nor_the_phantoms_size(name):
    banner = figures.pages.banner(settings.PROFILES[name], "your own, from the folder sections")
    assert "your own, from the folder sections" in banner
    assert "published" not in banner and "reproduction" not in banner


def test_the_commit_is_that_of_the_beginning_of_a_run(tmp_path, monkeypatch):
    commits = iter(["first", "later"])
    monkeypatch.setattr(records, "_commit", lambda: next(commits))
    monkeypatch.setattr(records, "_started_at", None)
    records.folder(tmp_path, settings.PROFILES["smoke"])
    records._release(tmp_path)
    assert records.provenance(settings.PROFILES["smoke"], data={})["commit"] == "first"
