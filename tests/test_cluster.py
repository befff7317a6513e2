"""A SLURM of one node, started here, shares out the units of a toy chapter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitolib.settings import ROOT

HERE = ROOT / "tests" / "slurm-here"
WAIT_S = 120  # for a job; one that never ends fails the test, and no more
DAEMONS = ("slurmctld", "slurmd", "munged", "sbatch")
MISSING = [name for name in DAEMONS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can start a SLURM here"),
    pytest.mark.skipif(bool(MISSING), reason=f"no SLURM to start here: {', '.join(MISSING)} not installed"),
]
CHAPTER = textwrap.dedent("""
    import json, types
    from pathlib import Path
    from mitolib import units

    def fit(fold, seed):
        if (fold, seed) == (1, 2) and not Path("mended").exists():
            raise RuntimeError("this unit fails until it is mended")
        with open(f"computed-{fold}-{seed}", "a") as file:
            file.write("once ")
        return {"score": fold + seed / 10}

    asked = [{"fold": fold, "seed": seed} for fold in range(2) for seed in range(3)]
    method = types.ModuleType("toy")
    method.PROTOCOL = 1
    prepare = Path("bank").touch
    fits = units.each(fit, asked, made_by=method, chapter="toy", depends={}, prepare=prepare)
    Path("page").write_text(json.dumps([one["score"] for one in fits]))
""")


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a cluster that has one node, this machine."""
    try:
        start = [HERE, "start", tmp_path / "slurm"]
        subprocess.run(start, check=True, capture_output=True, text=True, timeout=WAIT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no SLURM could be started here: {str(error.stderr)[-300:]}")
    variables = {
        "SLURM_CONF": tmp_path / "slurm" / "slurm.conf",
        "PYTHONPATH": ROOT,
        "MITOLIB_UNITS": tmp_path / "kept",
    }
    yield os.environ | {name: str(value) for name, value in variables.items()}
    subprocess.run([HERE, "stop", tmp_path / "slurm"], check=True, timeout=WAIT_S)


def test_shares_of_a_slurm_array_make_the_units_of_one_page(slurm, tmp_path):
    (tmp_path / "chapter.py").write_text(CHAPTER)

    def submit(share: str, *options: str) -> int:
        run = f"MITOLIB_SHARE={share} {sys.executable} chapter.py"
        job = ["sbatch", "-W", "-n1", "-c1", "--mem=500", "-o", "log-%a", *options, "--wrap", run]
        return subprocess.run(job, env=slurm, cwd=tmp_path, capture_output=True, timeout=WAIT_S).returncode

    def computed() -> dict[str, str]:
        return {path.name: path.read_text() for path in tmp_path.glob("computed-*")}

    assert submit("2/2") == 0
    assert (tmp_path / "bank").exists() and not computed(), "n/n makes what comes before the units, and none of them"
    assert submit("$SLURM_ARRAY_TASK_ID/2", "--array=0-1") != 0, "the job of the unit that fails says so"
    assert len(computed()) == 5 and not (tmp_path / "page").exists(), "the others are kept, and no share draws the page"
    (tmp_path / "mended").touch()
    assert submit("$SLURM_ARRAY_TASK_ID/2", "--array=0-1") == 0
    subprocess.run([sys.executable, "chapter.py"], env=slurm, cwd=tmp_path, check=True, timeout=WAIT_S)
    assert json.loads((tmp_path / "page").read_text()) == [0.0, 0.1, 0.2, 1.0, 1.1, 1.2]
    assert len(computed()) == 6 and set(computed().values()) == {"once "}, "what was kept is not computed again"
    jobs = [json.loads(path.read_text())["made"]["job"] for path in (tmp_path / "kept").rglob("*.json")]
    assert len(jobs) == 6 and all(jobs), "each unit says in which job it was computed"
