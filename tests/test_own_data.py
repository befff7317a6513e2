"""A new user's evening: sections in several formats, the check, experiment 1 in the smoke profile, a page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from mitolib import execute, results


def run(*words, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-m", *map(str, words)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def folder(tmp_path, rng) -> Path:
    """Four sections in SDHA and VDAC1, each in another format, with the spellings of the files of a laboratory."""
    root, names = tmp_path / "from the freezer", ["153Eu_SDHA", "166Er_VDAC1"]
    image_cyx = {name: rng.poisson(30, (2, 1000, 1000)).astype(np.float32) for name in ("Anna", "Bo", "Carl", "Dora")}
    for name in ("Control/Carl", "Patient/Dora"):
        (root / name).mkdir(parents=True)
    stack = root / "Control" / "Anna.ome.tiff"
    tifffile.imwrite(stack, image_cyx["Anna"], metadata={"axes": "CYX", "Channel": {"Name": names}})
    with tifffile.TiffWriter(root / "Patient" / "Bo.ome.tiff") as tiff:  # as MCD Viewer
        for name, image_yx in zip(names, image_cyx["Bo"], strict=True):
            tiff.write(image_yx, metadata=None, extratags=[(285, "s", 0, name, True)])
    for name, image_yx in zip(names, image_cyx["Carl"], strict=True):
        tifffile.imwrite(root / "Control" / "Carl" / f"{name[:5]}_{name[:5]} {name[6:]}.tiff", image_yx)
    y, x = np.indices((1000, 1000))
    columns = {"Start_push": 0, "End_push": 0, "Pushes_duration": 0, "X": x.ravel(), "Y": y.ravel(), "Z": 0}
    columns |= {"SDHA(Eu153Di)": image_cyx["Dora"][0].ravel(), "VDAC1(Er166Di)": image_cyx["Dora"][1].ravel()}
    pd.DataFrame(columns).to_csv(root / "Patient" / "Dora" / "Dora_ROI_001_1.txt", sep="\t", index=False)
    return root


def test_own_sections_are_checked_then_classified_and_become_a_page(folder, tmp_path):
    assert "Nothing to mend: 2 controls and 2 patients" in run(
        "mitolib", "check", folder, "--proteins", "SDHA", cwd=tmp_path
    )
    notebook = execute.NOTEBOOKS / "exp1.ipynb"
    parameters = ["-p", "profile", "smoke", "-p", "data", folder, "-p", "results", "results", "--no-progress-bar"]
    run("papermill", notebook, "out.ipynb", *parameters, cwd=tmp_path)
    record = results.read(tmp_path / "results", "exp1")
    assert record["provenance"]["data"] | {"sha256": ""} == {"name": folder.name, "sections": 4, "sha256": ""}
    assert sum(sum(counts.values()) for counts in record["split"].values()) == 4 * 9
    run("nbconvert", "--to", "html", "--no-input", "out.ipynb", cwd=tmp_path)
    page = (tmp_path / "out.html").read_text()
    assert "right on" in page and "<img" in page and str(tmp_path) not in page
