from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest

from mitolib import settings


def test_without_a_profile_it_is_quick(monkeypatch):
    monkeypatch.delenv("MITOLIB_PROFILE", raising=False)
    assert settings.read_parameters({"profile": None}) == settings.PROFILES["quick"]


def test_the_environment_names_the_profile_only_where_the_parameter_does_not(monkeypatch):
    monkeypatch.setenv("MITOLIB_PROFILE", "smoke")
    assert settings.read_parameters({"profile": None}).name == "smoke"
    assert settings.read_parameters({"profile": "paper"}).name == "paper"


def test_a_parameter_left_at_none_takes_the_profiles_value():
    run = settings.read_parameters({"profile": "paper", "epochs": None, "views": 3})
    assert run == dataclasses.replace(settings.PROFILES["paper"], views=3)


def test_a_misspelt_parameter_is_an_error_that_names_the_right_one():
    with pytest.raises(ValueError, match=r"epoch;.*Did you mean epochs"):
        settings.read_parameters({"profile": "smoke", "epoch": 3})


def test_a_cell_run_again_by_hand_does_not_take_later_variables_for_parameters():
    first = settings.read_parameters({"profile": "smoke"})
    assert settings.read_parameters({"profile": "smoke", "run": first, "later": 3}) == first


def test_an_unknown_profile_is_an_error_that_lists_the_profiles():
    with pytest.raises(ValueError, match="smoke, quick, paper"):
        settings.read_parameters({"profile": "fast"})


def test_a_notebooks_own_names_are_no_parameters():
    namespace = {"In": [""], "Out": {}, "_i": "x", "get_ipython": print, "settings": settings, "stride_px": 224}
    assert settings.read_parameters({**namespace, "profile": "smoke"}, known=("stride_px",)).name == "smoke"


BAD_VALUES = {  # what papermill may pass on, and what no bound would refuse
    "epochs": ["", "10", 0, -3, 1.5, True, False, float("nan"), [3]],
    "n_seeds": [0, -1, 2.0, "3", True],
    "batch_size": [0, -8, "8", 8.0, float("inf")],
    "seed": ["", "127", "text", -1, 1.5, True],
    "views": [-1, "0", 0.5, False],
    "learning_rate": ["", "1e-3", 0, -1e-3, True, float("nan"), float("inf")],
    "scale": [0, -1, "", "big", False, float("nan"), float("inf"), float("-inf")],
    "zoom": [
        "",
        "(0.8, 1.2)",
        [],
        [1],
        [1, 2, 3],
        [1.2, 0.8],
        [0, 1],
        [float("nan"), 1],
        [1, float("inf")],
        [True, True],
    ],
    "profile": ["", "  ", 0, 2024, False, ["quick"], "nosuch"],
    "data": ["", "  ", 0, 2024, 1e3, 7, False, True, float("nan"), [], ["a"], {}],
    "results": ["", " ", 0, 7, True, [], 1.5],
    "concepts": ["", " ", 0, False, 2024, ["a"]],
    "protein": ["", "  ", 0, True, ["SDHA"]],
    "proteins": ["", "  ", [], 0, [1, 2], ["SDHA", ""], False, {}],
    "patch_px": [0, -1, "512", 1.5, True, float("nan")],
    "stride_px": [0, "", False],
    "steps": [0, "many", 2.5],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_VALUES.items() for value in values])
def test_a_parameter_that_is_empty_or_odd_is_an_error_that_names_it(monkeypatch, name, value):
    monkeypatch.delenv("MITOLIB_PROFILE", raising=False)
    known = tuple(settings.PARAMETERS.keys() - {"profile", "data", "results"})
    with pytest.raises(ValueError, match=rf"^{name}\b.*(wanted|empty|papermill|not one of)"):
        settings.read_parameters({name: value}, known=known)


GOOD_VALUES = {
    "epochs": [1, 100],
    "seed": [0, 7],
    "views": [0],
    "learning_rate": [1, 1e-4],
    "scale": [1, 0.5],
    "zoom": [[0.8, 1.2], (1, 1)],
    "data": ["2024", "./007", "a folder"],
    "results": ["there"],
    "proteins": ["SDHA,COX4", ["SDHA", "COX4"]],
    "protein": ["SDHA"],
    "patch_px": [256],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD_VALUES.items() for value in values])
def test_a_parameter_that_says_something_is_taken(name, value):
    run = settings.read_parameters({"profile": "smoke", name: value}, known=("proteins", "protein", "patch_px"))
    if hasattr(run, name):
        assert getattr(run, name) == (tuple(value) if name == "zoom" else value)


@pytest.mark.parametrize("name", ["2024", "007", "0", "True", "None", "1e3"])
def test_a_folder_called_by_a_number_is_text_when_it_is_passed_on_as_advised(name):
    """papermill's `-r data 2024` and `-p data ./2024`."""
    for value in (name, f"./{name}"):
        assert settings.folder_parameter("data", value) == Path(name)


def test_the_paper_profile_is_the_published_protocol():
    paper = settings.PROFILES["paper"]
    assert (paper.scale, paper.epochs, paper.patience, paper.batch_size, paper.learning_rate) == (1, 100, 30, 2, 1e-3)
    assert paper.views > 1, "0 is the literal loop, -p views 0; one view would be no augmentation between epochs"


def test_a_mirrored_file_is_found_in_a_subfolder_and_the_first_name_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("MITOLIB_MIRROR", str(tmp_path))
    (tmp_path / "sub").mkdir()
    for name in ("a.h5", "b.h5"):
        (tmp_path / "sub" / name).touch()
    assert settings.mirrored("b.h5", "a.h5") == tmp_path / "sub" / "b.h5"
    assert settings.mirrored("c.h5") is None
    monkeypatch.delenv("MITOLIB_MIRROR")
    assert settings.mirrored("a.h5") is None


def test_a_mirror_that_is_no_folder_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("MITOLIB_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"nowhere: no such folder\. Correct or unset"):
        settings.mirrored("a.h5")


@pytest.mark.parametrize(
    ("text", "share"),
    [(None, None), ("0/8", (0, 8)), ("7/8", (7, 8)), ("8/8", (8, 8)), ("0/1", (0, 1)), ("1/1", (1, 1))],
)
def test_the_environment_says_which_share_of_the_units_this_process_computes(monkeypatch, text, share):
    monkeypatch.delenv("MITOLIB_SHARE", raising=False)
    if text is not None:
        monkeypatch.setenv("MITOLIB_SHARE", text)
    assert settings.share() == share


@pytest.mark.parametrize(
    "text", ["", " ", "0", "1/", "/8", "9/8", "0/0", "-1/8", "1/8/9", "1.0/8", "1/8\n", "a/b", "¹/2"]
)
def test_a_share_that_is_none_is_an_error_that_shows_one(monkeypatch, text):
    monkeypatch.setenv("MITOLIB_SHARE", text)
    with pytest.raises(ValueError, match=r"MITOLIB_SHARE is .*wanted k/n, such as 0/8 .*unset it"):
        settings.share()


@pytest.mark.parametrize(("seconds", "faster"), [(0.5, True), (0.9, False), (2.0, False)])
def test_bfloat16_is_taken_where_it_is_clearly_faster_and_the_processor_has_it(monkeypatch, tmp_path, seconds, faster):
    clock, order = [0.0], []

    def convolve(dtype, duration):
        order.append(dtype)
        clock[0] += duration + (len(order) <= 2)  # the first round compiles

    passes = {"bfloat16": lambda: convolve("bfloat16", seconds), "float32": lambda: convolve("float32", 1.0)}
    monkeypatch.delenv("MITOLIB_PRECISION", raising=False)
    monkeypatch.setattr(settings.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(settings, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags : amx_bf16\n")
    assert settings.faster_in_bfloat16(passes) == faster
    assert order == ["float32", "bfloat16"] * 5
    (tmp_path / "cpuinfo").write_text("flags : avx2\n")
    assert not settings.faster_in_bfloat16(passes) and len(order) == 10, "not measured"
    assert settings.faster_in_bfloat16(passes, on_gpu=True) == faster, "the GPU has it, whatever the processor lists"


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize(("fixed", "faster"), [("float32", False), ("bfloat16", True)])
def test_a_precision_that_the_environment_fixes_is_not_measured(monkeypatch, tmp_path, fixed, faster, on_gpu):
    monkeypatch.setenv("MITOLIB_PRECISION", fixed)
    monkeypatch.setattr(settings, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags : avx2\n")
    passes = dict.fromkeys(("float32", "bfloat16"), lambda: pytest.fail("measured"))
    assert settings.faster_in_bfloat16(passes, on_gpu=on_gpu) == faster


@pytest.mark.parametrize("text", ["", "float16", "BFLOAT16", "mixed_bfloat16"])
def test_a_precision_that_is_neither_is_an_error_that_names_both(monkeypatch, text):
    monkeypatch.setenv("MITOLIB_PRECISION", text)
    with pytest.raises(ValueError, match=r"MITOLIB_PRECISION is .*wanted float32 or bfloat16\..*unset it"):
        settings.faster_in_bfloat16(dict.fromkeys(("float32", "bfloat16"), lambda: None))


@pytest.mark.parametrize("measured", ["mitolib.bank", "mitolib.whitening.fitting"])
def test_both_frameworks_take_the_precision_that_the_environment_fixes(monkeypatch, measured):
    precision = importlib.import_module(measured).precision.__wrapped__  # each process asks once
    for fixed in ("bfloat16", "float32"):
        monkeypatch.setenv("MITOLIB_PRECISION", fixed)
        assert precision() == fixed
