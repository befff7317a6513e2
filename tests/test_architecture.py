from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from collections import Counter
from graphlib import TopologicalSorter

import pytest
import yaml

from mitolib.settings import ROOT

PACKAGE = ROOT / "mitolib"
CORE = sorted(path for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "__main__"))
WINGS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))
READERS = {"cohort", "own_data"}  # of the core, which read through the wing `images`
MOST_EXPORTED = 12  # names of a wing
MOST_LINES, MOST_CORE_LINES = 460, 3720  # of a module; of the core


def imported(path) -> set[str]:
    """What a source imports from mitolib: modules of the core, and wings."""
    nodes = ast.walk(ast.parse(path.read_text()))
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mitolib":
            found |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mitolib.")}
    return found - {"__version__"}


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


def named(path) -> str:
    return str(path.relative_to(PACKAGE).with_suffix(""))


CORE_NAMES, WING_NAMES = {path.stem for path in CORE}, {path.name for path in WINGS}


@pytest.mark.parametrize("path", CORE, ids=named)
def test_the_core_imports_no_wing_but_the_reader_of_images(path):
    assert imported(path) <= CORE_NAMES | ({"images"} if path.stem in READERS else set())


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent in WINGS], ids=named)
def test_a_wing_imports_itself_the_core_and_the_reader_of_images(path):
    assert imported(path) <= {path.parent.name, "images"} | CORE_NAMES


def test_no_module_of_the_core_needs_itself():
    needs = {path.stem: imported(path) & CORE_NAMES for path in CORE}
    assert list(TopologicalSorter(needs).static_order())


@pytest.mark.parametrize("folder", WINGS, ids=named)
def test_a_wing_says_what_it_is_for_and_which_twelve_names_it_gives(folder):
    tree = ast.parse((folder / "__init__.py").read_text())
    exported = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    brought = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert ast.get_docstring(tree) and set(exported) == brought and 0 < len(exported) <= MOST_EXPORTED


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_can_be_read_at_one_sitting(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_no_two_files_of_tests_share_a_name():
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    # pytest imports a file of tests by its bare name, and refuses the second of two
    assert [name for name, times in names.items() if times > 1] == []


def test_the_core_stays_small():
    assert sum(len(path.read_text().splitlines()) for path in CORE) <= MOST_CORE_LINES


def test_importing_the_package_its_data_and_its_figures_loads_neither_framework():
    heavy = {
        "backend",
        "bank",
        "heads",
        "networks",
        "people",
        "prototypes",
        "saliency",
        "stacked",
        "transfer",
        "whitening",
    }
    light = ", ".join(sorted((CORE_NAMES | WING_NAMES) - heavy))
    script = f"import sys; from mitolib import {light}; print({{'tensorflow', 'keras', 'torch'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "set()"


def test_the_package_docstring_is_a_map_of_core_and_wings():
    text = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text()))
    assert [name for name in CORE_NAMES | WING_NAMES if name not in text] == []


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


@pytest.mark.parametrize("path", MODULES, ids=named)
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
