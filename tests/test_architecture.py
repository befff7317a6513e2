from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
import tomllib

import pytest
import yaml

from mitolib.settings import ROOT

MODULES = sorted((ROOT / "mitolib").glob("*.py"))
IMAGES = sorted((ROOT / "mitolib" / "images").glob("*.py"))
SHARED = {"settings", "progress", "cohort", "registry", "linear", "images"}  # what any module may import
PARTS = {  # a module, and what it is made of
    "own_data": {"patches", "pictures", "splits", "study"},
    "explain": {"heads", "study"},
    "intake": {"own_data", "patches", "pictures", "results", "splits", "study"},
    "__main__": {"intake", "study"},
    "phantom": {"fibres", "staining"},
    "staining": {"fibres"},
    "results": {"__version__"},
    "diagrams": {"plots", "toy"},
    "execute": {"paper"},
    "ledger": {"paper"},
    "faithfulness": {"metrics"},
    "surgery": {"passes", "whitening"},
    "whitening": {"surgery"},  # by name alone, when it is asked for
    "arms": {"whitening", "surgery", "passes", "resnet", "splits"},
    "evaluation": {"models", "splits", "training"},
}


def imported(path) -> set[str]:
    """Names imported from mitolib by a module."""
    nodes = ast.walk(ast.parse(path.read_text()))
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mitolib":
            found |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mitolib.")}
    return found


UNSAFE_NAMES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "eval", "exec", "compile"}
UNSAFE_CALLS = {
    "joblib.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pd.read_pickle",
    "pandas.read_pickle",
}
UNSAFE_OPTIONS = {("allow_pickle", True), ("weights_only", False), ("safe_mode", False)}


def running_data(source: str) -> list[str]:
    """What in a source would run code that lies in a file of data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_NAMES]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{a.name}" for a in node.names if f"{node.module}.{a.name}" in UNSAFE_CALLS]
            found += [node.module] if (node.module or "").split(".")[0] in UNSAFE_NAMES else []
        elif isinstance(node, ast.Name) and node.id in UNSAFE_NAMES:
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in UNSAFE_CALLS:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            option = node.arg, node.value.value
            found += ["{}={}".format(*option)] if option in UNSAFE_OPTIONS else []
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_meet_in_the_notebook_and_do_not_import_each_other(path):
    assert imported(path) <= SHARED | PARTS.get(path.stem, set())


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_the_reader_of_images_imports_nothing_else_of_the_package(path):
    assert imported(path) <= {"images", "settings"}


def test_importing_the_package_and_its_plain_modules_loads_neither_framework():
    torch_modules = {"whitening", "surgery", "passes", "resnet", "arms"}
    heavy = {"models", "features", "training", "explain", "heads", "execute", "evaluation"} | torch_modules
    light = ", ".join(path.stem for path in MODULES if path.stem not in heavy | {"__init__"})
    script = f"import sys; from mitolib import {light}; print({{'tensorflow', 'keras', 'torch'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "set()"


def test_the_package_docstring_is_a_map_of_every_module():
    text = ast.get_docstring(ast.parse((ROOT / "mitolib" / "__init__.py").read_text()))
    assert [p.stem for p in MODULES if p.stem != "__init__" and p.stem not in text] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pickle", ["pickle"]),
        ("eval(text)", ["eval"]),
        ("np.load(path, allow_pickle=True)", ["allow_pickle=True"]),
        ("torch.load(path, weights_only=False)", ["weights_only=False"]),
        ("joblib.load(path)", ["joblib.load"]),
        ("yaml.safe_load(path); model.eval(); 'eval(x)'", []),
    ],
)
def test_what_would_run_code_in_data_is_recognised(text, found):
    assert running_data(text) == found


@pytest.mark.parametrize("path", [*MODULES, *IMAGES], ids=lambda path: path.stem)
def test_no_module_runs_what_a_file_holds(path):
    assert running_data(path.read_text()) == []


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("bench_*.py")), ids=lambda path: path.stem)
def test_every_benchmark_still_finds_what_it_measures(path, monkeypatch):
    """Without running it: it loads, and whatever it asks of a module of mitolib is there."""
    monkeypatch.syspath_prepend(path.parent)
    names = runpy.run_path(str(path), run_name="loaded")
    modules = {name: names[name] for name in imported(path) if name in names and hasattr(names[name], "__file__")}
    asked = [
        (node.value.id, node.attr)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
    ]
    assert [pair for pair in asked if not hasattr(modules[pair[0]], pair[1])] == []
    assert "main" in names


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(re.fullmatch(r"([\w.-]+)==([\w.!]+)", line).groups() for line in lines if line and line[0] != "#")


def test_the_lock_pins_every_dependency_without_local_labels():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["book"], *extras["test"]]
    pins = {name.lower().replace("_", "-"): version for name, version in locked().items()}
    names = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in wanted}
    assert names - set(pins) == set()
    assert pins["torch"] == "2.13.0"
    assert all(pins[re.match(r"[\w-]+", line)[0]] == line.split("==")[1] for line in wanted if "==" in line)


def test_conda_users_get_the_same_environment():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.lock", "-e ."]}
    python = next(line.split("=")[1] for line in environment["dependencies"] if str(line).startswith("python="))
    assert tuple(map(int, python.split("."))) in {(3, 11), (3, 12)} and project["requires-python"] == ">=3.11,<3.13"
