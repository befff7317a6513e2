"""The store of fits: what finds a unit again and what does not, files that are whole, shares, runs that are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from types import ModuleType

import numpy as np
import pytest

from mitolib import __main__ as command
from mitolib import units
from mitolib.__main__ import main
from mitolib.settings import ROOT

NAMES = [{"network": "VGG16", "seed": seed} for seed in (1, 2, 3)]
DEPENDS = {"pictures": "ab12", "epochs": 3, "zoom": (0.8, 1.2)}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "PUBLISHED", tmp_path / "published")
    monkeypatch.setenv("MITOLIB_UNITS", str(tmp_path / "cache"))
    monkeypatch.setattr(units, "_n_asked", 0)
    for name in ("MITOLIB_SHARE", "MITOLIB_PUBLISH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def method() -> ModuleType:
    """A module of fits with protocol 1."""
    module = ModuleType("mitolib.transfer")
    module.PROTOCOL = 1
    return module


class Fit:
    """Counts what it computes."""

    def __init__(self) -> None:
        self.computed: list[int] = []

    def __call__(self, network: str, seed: int) -> dict:
        self.computed.append(seed)
        return {
            "p_patient": np.float32([seed, np.nan, 0.1]),
            "history": {"loss": [0.1 + 0.2, 1e-300]},
            "note": None,
            "weights": [np.full((2, 2), seed, np.float32), np.arange(3)],
        }


def asked(fit, method, names=NAMES, chapter="exp1", depends=DEPENDS, **options):
    return units.each(fit, names, made_by=method, chapter=chapter, depends=depends, **options)


def test_a_unit_is_computed_once_and_comes_back_to_the_last_bit(method):
    fit = Fit()
    first = [dict(result) for result in asked(fit, method)]
    again = asked(fit, method)
    assert fit.computed == [1, 2, 3] and len(again) == 3
    for one, other in zip(first, again, strict=True):
        assert one["history"] == other["history"] == {"loss": [0.1 + 0.2, 1e-300]} and other["note"] is None
        np.testing.assert_array_equal(one["p_patient"], other["p_patient"])
        assert other["p_patient"].dtype == np.float32 and "weights" not in other


@pytest.mark.parametrize(
    "change",
    [
        {"chapter": "exp2"},
        {"depends": DEPENDS | {"epochs": 4}},
        {"depends": DEPENDS | {"pictures": "cd34"}},
        {"depends": DEPENDS | {"cut": None}},
        {"names": [{"network": "ResNet50", "seed": 1}]},
    ],
)
def test_whatever_the_result_depends_on_is_another_unit(method, change):
    asked(Fit(), method)
    fit = Fit()
    asked(fit, method, **change)
    assert fit.computed


def test_a_risen_protocol_meets_no_old_result(method):
    asked(Fit(), method)
    method.PROTOCOL = 2
    fit = Fit()
    asked(fit, method)
    assert fit.computed == [1, 2, 3]


def test_a_further_seed_and_another_order_cost_nothing_that_is_there(method):
    asked(Fit(), method)
    fit = Fit()
    asked(fit, method, names=[{"network": "VGG16", "seed": 4}, *reversed(NAMES)])
    assert fit.computed == [4]


def test_code_machine_versions_and_precision_are_written_down_and_change_no_key(method, monkeypatch):
    asked(Fit(), method, precision=lambda: "bfloat16")
    monkeypatch.setattr(units.records, "machine", lambda: {"device": "another"})
    fit = Fit()
    found = asked(fit, method, precision=lambda: "float32")
    assert fit.computed == []
    made = found.record[0]["made"]
    assert made["precision"] == "bfloat16" and made["device"] != "another"
    assert {"seconds", "cpu_seconds", "commit", "packages", "job", "created"} <= set(made)


def test_the_key_of_a_unit_stays(method):
    """Published units are found by it: whoever changes how it is made loses them all."""
    (unit,) = asked(Fit(), method, names=NAMES[:1]).record
    assert unit["key"] == "743e11fd9e2757903490070fc24b1cd26310d06a503c85f7c862492882db7fa8"


def test_published_units_come_first_and_the_cache_is_not_asked(method, monkeypatch):
    monkeypatch.setenv("MITOLIB_PUBLISH", "1")
    asked(Fit(), method)
    assert sorted(path.suffix for path in units.PUBLISHED.rglob("*.*")) == [".json"] * 3 + [".npz"] * 3
    assert [path.name.endswith(".weights.npz") for path in units.cache().rglob("*.*")] == [True] * 3
    fit = Fit()
    monkeypatch.delenv("MITOLIB_PUBLISH")
    assert len(list(asked(fit, method))) == 3 and fit.computed == []


def test_a_run_that_publishes_takes_what_the_cache_has(method, monkeypatch):
    kept = list(asked(Fit(), method))
    monkeypatch.setenv("MITOLIB_PUBLISH", "1")
    fit = Fit()
    published = asked(fit, method)
    assert fit.computed == [] and len(list(units.PUBLISHED.rglob("*.json"))) == 3
    np.testing.assert_array_equal(published[2]["p_patient"], kept[2]["p_patient"])


@pytest.mark.parametrize(("name", "value"), [("MITOLIB_PUBLISH", "yes"), ("MITOLIB_UNITS", " ")])
def test_a_variable_with_another_value_is_refused(method, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=name):
        asked(Fit(), method)


def test_weights_are_read_and_trained_again_only_where_they_are_absent(method):
    fit = Fit()
    found = asked(fit, method)
    assert [array.tolist() for array in found.weights(1)] == [[[2, 2], [2, 2]], [0, 1, 2]] and fit.computed == [1, 2, 3]
    next(units.cache().rglob("*2-*.weights.npz")).unlink()
    assert found.weights(1)[0][0, 0] == 2 and fit.computed == [1, 2, 3, 2]


def test_what_all_fits_read_is_prepared_once_and_only_if_one_is_missing(method):
    prepared = []
    for _ in range(2):
        asked(Fit(), method, prepare=lambda: prepared.append(1))
    assert prepared == [1]


@pytest.mark.parametrize("value", [{"p": {1, 2}}, {"p": float("nan")}, {"p": np.float32(1)}])
def test_a_result_that_cannot_be_kept_is_refused_by_name(method, value):
    with pytest.raises(units.UnitError, match=r"VGG16-1-.*cannot be kept .*arrays, text, finite numbers"):
        asked(lambda **name: value, method)
    assert not list(units.cache().rglob("*.*"))


def test_a_unit_that_is_damaged_is_named(method):
    asked(Fit(), method)
    path = next(units.cache().rglob("*1-*.json"))
    path.write_text(path.read_text()[:-40])
    with pytest.raises(units.UnitError, match=rf"{path.name}: is no unit .*Delete it"):
        asked(Fit(), method)


def test_a_unit_without_its_arrays_is_computed_again(method):
    asked(Fit(), method)
    next(path for path in units.cache().rglob("*2-*.npz") if not path.name.endswith(".weights.npz")).unlink()
    fit = Fit()
    asked(fit, method)
    assert fit.computed == [2]


def test_of_two_processes_the_first_that_is_done_is_believed_by_both(method):
    def slower(network, seed):
        asked(Fit(), method)  # the other process
        return {"p_patient": np.zeros(3), "weights": []}

    found = asked(slower, method)
    assert found[0]["p_patient"][0] == 1 and len(list(units.cache().rglob("*1-*.json"))) == 1


# Shares.


def test_shares_part_the_units_and_a_run_without_one_finds_them_all(method, monkeypatch):
    computed = []
    for k in range(2):
        monkeypatch.setenv("MITOLIB_SHARE", f"{k}/2")
        monkeypatch.setattr(units, "_n_asked", 0)  # as in a process of its own
        fit = Fit()
        asked(fit, method)
        computed.append(fit.computed)
    assert computed == [[1, 3], [2]]
    monkeypatch.delenv("MITOLIB_SHARE")
    fit = Fit()
    assert len(list(asked(fit, method))) == 3 and fit.computed == []


def test_a_share_ends_quietly_where_it_needs_what_another_owes(method, monkeypatch):
    monkeypatch.setenv("MITOLIB_SHARE", "1/3")
    found = asked(Fit(), method)
    assert found[1]["p_patient"][0] == 2
    with pytest.raises(SystemExit) as ended:
        found[0]
    assert ended.value.code == 0


def test_the_share_that_prepares_computes_none(method, monkeypatch):
    monkeypatch.setenv("MITOLIB_SHARE", "2/2")
    fit, prepared = Fit(), []
    asked(fit, method, prepare=lambda: prepared.append(1))
    assert fit.computed == [] and prepared == [1]


def test_units_of_several_calls_are_shared_out_evenly(method, monkeypatch):
    """Five networks with one unit each must not all fall to the first share."""
    monkeypatch.setenv("MITOLIB_SHARE", "1/2")
    fit = Fit()
    for name in NAMES:
        asked(fit, method, names=[name])
    assert fit.computed == [2]


# A run that is killed.

RUN = """
import sys, time
from pathlib import Path
from types import ModuleType
import numpy as np
from mitolib import units
from mitolib.__main__ import main
units.CACHE, units.PUBLISHED = Path(sys.argv[1]), Path(sys.argv[1]) / "none"
module = ModuleType("toy"); module.PROTOCOL = 1
def fit(seed):
    print(seed, flush=True)
    time.sleep(0.05)
    return {"p": np.random.default_rng(seed).random(50_000), "weights": [np.zeros(200_000)]}
fits = units.each(fit, [{"seed": seed} for seed in range(8)], made_by=module, chapter="toy", depends={})
print("sum", sum(float(fit["p"].sum()) for fit in fits))
"""


def test_a_run_killed_at_any_moment_loses_the_unit_in_hand_at_most(tmp_path):
    def run(folder, kill_after: float | None) -> list[str]:
        with subprocess.Popen(
            [sys.executable, "-c", RUN, folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "MITOLIB_UNITS"},
        ) as process:
            lines = [process.stdout.readline().strip()]  # the imports are over
            if kill_after is not None:
                time.sleep(kill_after)
                os.kill(process.pid, signal.SIGKILL)
            return [line for line in lines + process.stdout.read().split("\n") if line]

    unbroken = run(tmp_path / "unbroken", None)
    moments = np.random.default_rng(0).uniform(0, 0.3, 3)
    started = [run(tmp_path / "broken", moment) for moment in moments]
    last = run(tmp_path / "broken", None)
    assert last[-1] == unbroken[-1] and last[-1].startswith("sum")
    n_started = sum(map(len, started)) + len(last) - 1
    assert n_started <= 8 + len(moments), "each kill costs one unit at most"
    kept = {path.relative_to(tmp_path / "broken") for path in (tmp_path / "broken").rglob("*.*")}
    assert kept == {path.relative_to(tmp_path / "unbroken") for path in (tmp_path / "unbroken").rglob("*.*")}


# The list of them, and what is old.


def declared() -> int:
    """The protocol of mitolib.transfer, without an import of TensorFlow."""
    return int(re.search(r"^PROTOCOL = (\d+)", (ROOT / "mitolib" / "transfer.py").read_text(), re.MULTILINE)[1])


def test_units_of_an_old_protocol_are_told_apart_and_pruned(method):
    method.PROTOCOL = declared()
    asked(Fit(), method)
    method.PROTOCOL = declared() - 1
    asked(Fit(), method)
    verdicts = [command.is_current(content) for _, content in command.every()]
    assert sorted(verdicts) == [False] * 3 + [True] * 3
    (units.cache() / "exp1" / "left-behind.npz").touch()
    removed = command.prune()
    assert len(removed) == 3 * 3 + 1 and all(command.is_current(content) for _, content in command.every())
    assert len(list(units.cache().rglob("*.npz"))) == 6 and command.prune() == []


def test_weights_of_a_published_unit_are_not_pruned(method, monkeypatch):
    method.PROTOCOL = declared()
    monkeypatch.setenv("MITOLIB_PUBLISH", "1")
    asked(Fit(), method)
    assert command.prune() == []


def test_a_module_may_assign_several_names_at_once():
    """As `PASSES, BATCH_SIZE = ...`, beside its protocol."""
    source = (ROOT / "mitolib" / "saliency" / "control.py").read_text()
    number = int(re.search(r"^PROTOCOL = (\d+)", source, re.MULTILINE)[1])
    assert re.search(r"^\w+, \w+ = ", source, re.MULTILINE)
    assert command.is_current({"protocol": ["mitolib.saliency.control", number]})


def test_a_unit_whose_module_is_gone_is_old():
    assert not command.is_current({"protocol": ["mitolib.nowhere", 1]})


def test_the_protocol_is_found_in_a_module_that_assigns_several_names_at_once(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text("FIRST, LAST = 1, 2\nPROTOCOL = 3\n")
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert command.is_current({"protocol": ["toy", 3]}) and not command.is_current({"protocol": ["toy", 2]})


def test_what_reads_the_weights_of_a_unit_can_depend_on_its_key(method, monkeypatch):
    """In a share too, to which neither the unit nor its result belongs."""
    keys = [unit["key"] for unit in asked(Fit(), method).record]
    next(units.cache().rglob("*1-*.json")).unlink()
    monkeypatch.setenv("MITOLIB_SHARE", "1/1")
    assert asked(Fit(), method).keys == keys


def test_a_unit_is_read_by_people_too(method):
    asked(Fit(), method)
    content = json.loads(next(units.cache().rglob("*3-*.json")).read_text())
    assert content["unit"] == {"network": "VGG16", "seed": 3} and content["depends"]["pictures"] == "ab12"
    assert content["protocol"] == ["mitolib.transfer", 1]


def test_the_command_line_lists_and_prunes_them(method, capsys):
    main(["units"])
    assert "None is kept" in capsys.readouterr().out
    method.PROTOCOL = declared()
    asked(Fit(), method)
    method.PROTOCOL = declared() + 1
    asked(Fit(), method, chapter="exp2")
    main(["units"])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["chapter", "unit", "made", "minutes", "device", "commit", "protocol", "kept"]
    assert [row.split()[0] for row in rows] == ["exp1"] * 3 + ["exp2"] * 3
    assert ["old" in row for row in rows] == [False] * 3 + [True] * 3
    main(["units", "--prune"])
    assert capsys.readouterr().out.splitlines()[-1] == "9 files removed"


def test_the_command_line_names_a_damaged_unit_without_a_traceback(method):
    asked(Fit(), method)
    next(units.cache().rglob("*1-*.json")).write_text("{")
    with pytest.raises(SystemExit, match=r"is no unit .*Delete it"):
        main(["units"])


def test_published_units_stay_small_and_whole():
    """Of this checkout: 20 MB in git is what may be cloned in a moment."""
    published = ROOT / "book" / "units"
    paths = [path for path in published.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) <= 20e6
    for path in published.glob("*/*.json"):
        assert units.read(path)
    assert not [path for path in paths if path.name.endswith(f".{units.WEIGHTS}.npz")]
