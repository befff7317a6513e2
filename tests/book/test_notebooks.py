from __future__ import annotations

import ast
import json
import math
import os
import re
import subprocess
import sys
import time
from functools import partial
from itertools import groupby

import execute
import nbformat
import papermill
import pytest

from mitolib import files, settings

PACKAGE = settings.ROOT / "mitolib"
MOST_CODE_CELLS = 25
NOTEBOOKS = sorted(execute.NOTEBOOKS.glob("*.ipynb"))
LIGHT = execute.NOTEBOOKS / "data_engineering.ipynb"  # loads no framework, so that it starts in a moment
over_notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_every_notebook_is_a_chapter():
    assert sorted(execute.CHAPTERS) == [path.stem for path in NOTEBOOKS]


@over_notebooks
def test_a_notebook_is_thin(path):
    for cell in code_cells(path):
        assert not re.search(r"^\s*(def|class) |sys\.path|^\s*[!%]", cell.source, re.M), cell.source
        assert len(cell.source.splitlines()) <= 30, cell.source


@over_notebooks
def test_a_chapter_is_read_as_prose_with_code_beside_it(path):
    """At most two code cells in a row, few in all, and code behind a click but where a reader is told what to call."""
    cells = nbformat.read(path, 4).cells
    runs = [len(list(run)) for kind, run in groupby(cells, key=lambda cell: cell.cell_type) if kind == "code"]
    assert max(runs) <= 2 and sum(runs) <= MOST_CODE_CELLS
    for cell in code_cells(path):
        to_be_called = path.stem == "your_data" and not re.search(r"plt\.show\(\)|records\.write\(", cell.source)
        if not to_be_called:
            assert {"hide-input", "parameters"} & set(cell.metadata.get("tags", [])), cell.source


@over_notebooks
def test_a_chapter_calls_the_core_and_the_wings_and_nothing_inside_them(path):
    names = {module.stem for module in PACKAGE.glob("*.py")} | {
        wing.parent.name for wing in PACKAGE.glob("*/__init__.py")
    }
    for node in ast.walk(ast.parse("\n".join(cell.source for cell in code_cells(path)))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "mitolib":
            assert node.module == "mitolib" and all(a.name in names and a.asname is None for a in node.names)


@over_notebooks
def test_the_help_of_every_parameter_is_shown(path):
    shown = papermill.inspect_notebook(str(path))
    assert all(not parameter["default"].startswith("(") for parameter in shown.values())
    assert shown["results"]["help"] and shown["data"]["help"]


@over_notebooks
def test_a_source_is_kept_without_outputs(path):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(path))


@over_notebooks
def test_every_notebook_takes_the_common_parameters(path):
    assert {"profile", "data", "results", "seed"} <= papermill.inspect_notebook(str(path)).keys()


def unseeded(source: str) -> list[int]:
    """Lines that build a network with no seed set before, in the same function; a cell counts as one."""
    tree, lines = ast.parse(source), []
    for scope in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)] or [tree]:
        calls = [(node.lineno, ast.unparse(node.func)) for node in ast.walk(scope) if isinstance(node, ast.Call)]
        seeded = min((line for line, name in calls if name.endswith("set_random_seed")), default=math.inf)
        lines += [line for line, name in calls if name in ("networks.build", "models.build") and line < seeded]
    return lines


def test_a_network_that_is_not_seeded_is_noticed():
    assert unseeded("x = 1\nnetwork = networks.build('VGG16')") == [2]
    assert unseeded("keras.utils.set_random_seed(1)\nnetwork = networks.build('VGG16')") == []


@over_notebooks
def test_a_chapter_seeds_a_network_where_it_is_built(path):
    """Without ImageNet weights another network would come of every run."""
    assert [cell.source for cell in code_cells(path) if unseeded(cell.source)] == []


@pytest.mark.parametrize("path", sorted((settings.ROOT / "mitolib").rglob("*.py")), ids=lambda path: path.stem)
def test_the_package_seeds_a_network_where_it_is_built(path):
    assert unseeded(path.read_text()) == []


def test_a_killed_run_goes_on_and_writes_the_results_of_an_unbroken_one(make_cohort, tmp_path):
    """Of experiment 2, on a few patches of one's own, from another folder than the checkout."""
    root = make_cohort({"Control": ["A", "B"], "Patient": ["C", "D"]}, ("COX4", "VDAC1", "MTCO1"), (96, 160))
    parameters = {"profile": "smoke", "results": "out", "data": str(root), "patch_px": 96, "stride_px": 64}
    parameters |= {"proteins": "COX4,VDAC1,MTCO1"}
    script = "from pathlib import Path\nfrom mitolib import bank\nbank.FOLDER = Path('banks').resolve()\n"
    for cell in code_cells(execute.NOTEBOOKS / "exp2.ipynb"):
        script += cell.source + "\n"
        if "parameters" in cell.metadata.get("tags", []):
            script += "".join(f"{name} = {value!r}\n" for name, value in parameters.items())
    quiet = os.environ | {"MPLBACKEND": "agg"}
    start = partial(subprocess.Popen, [sys.executable, "-c", script], env=quiet)
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    for folder in (broken, unbroken):
        folder.mkdir()
    with start(cwd=broken) as killed:
        while not (chunks := [p for p in broken.glob("banks/*/*.npy") if files.MARK not in p.name]):
            assert killed.poll() is None, "ended without writing a feature"
            time.sleep(0.05)
        killed.kill()
    assert not (broken / "out" / "exp2.json").exists()
    written = {path: path.stat().st_mtime_ns for path in chunks}
    records = []
    for folder in (broken, unbroken):
        with start(cwd=folder) as whole:
            assert whole.wait() == 0
        record = json.loads((folder / "out" / "exp2.json").read_text())
        del record["provenance"]["created"], record["provenance"]["seconds"]
        for found in record["provenance"]["weights"].values():
            del found["source"]  # one run fetches what the next finds in the cache
        records.append(record)
    assert written == {path: path.stat().st_mtime_ns for path in chunks}, "what was there was computed again"
    assert records[0] == records[1]
    assert not list(unbroken.glob(f"out/*{files.MARK}*"))
    record = records[0]  # and the contract of a results file
    assert record["chapter"] == "exp2" and record["profile"] == "smoke"
    assert {"commit", "device", "data", "weights"} <= record["provenance"].keys()
    assert sum(sum(counts.values()) for counts in record["split"].values()) == 4 * 2
    scores = record["models"]["VGG16"]
    assert sum(map(sum, scores["confusion"])) == sum(record["split"]["test"].values())
    assert scores["epochs"] == len(scores["history"]["val_accuracy"]) <= settings.PROFILES["smoke"].epochs


def test_the_published_maps_have_a_score_of_each_kind_for_each_method():
    record = json.loads((execute.BOOK / "results" / "gradcam.json").read_text())
    kinds = {"pointing", "mass_over_area", "rank", "auprc", "top5"}
    kinds |= {"deletion_minus_random", "randomisation_ssim", "causal_rank_correlation"}
    explained = [model for model, methods in record["methods"].items() if "saliency" in methods]
    assert {"VGG16", "VGG16-ten"} <= set(explained), "a control has Grad-CAM alone"
    for model in explained:
        methods = record["methods"][model]
        assert {"Grad-CAM", "saliency", "random", "centre", "Sobel", "intensity", "marker"} <= methods.keys()
        for scores in methods.values():
            assert kinds <= scores.keys()
            for score in (score for score in scores.values() if score["ci"]):
                assert score["ci"][0] <= score["value"] <= score["ci"][1]
        random = methods["random"]["mass_over_area"]["value"]
        assert abs(random - 1) < 0.05, "a map of random numbers finds what chance finds"


def test_a_misspelt_parameter_ends_the_run_with_an_error(tmp_path):
    command = [sys.executable, "-m", "papermill", str(LIGHT), "out.ipynb"]
    done = subprocess.run(
        [*command, "-p", "profle", "smoke", "--no-progress-bar"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "unknown parameter profle" in done.stderr and "Did you mean profile?" in done.stderr


def test_bad_data_end_the_run_with_the_reason_and_write_nothing(tmp_path):
    command = [sys.executable, "-m", "papermill", str(LIGHT), "out.ipynb"]
    command += ["-p", "profile", "smoke", "-p", "data", "nowhere", "-p", "results", "out", "--no-progress-bar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "data is 'nowhere': no such folder" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
