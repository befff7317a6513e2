"""The graph of jobs, whole and interrupted, on a SLURM of one node; `make cluster-test` runs it, `make test` does not.

A stand-in for Python writes down what each job asks of the executor. That the executor does it is tested elsewhere.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mitolib.settings import ROOT

sys.path.append(str(ROOT / "book" / "_tools"))
from chapters import CHAPTERS, NEEDS, SHARES

SNAKEMAKE = ROOT / ".venv-cluster" / "bin" / "snakemake"
SLURM_HERE = ROOT / "tests" / "slurm-here"
SYSTEM_CONF = Path("/etc/slurm/slurm.conf")  # where SLURM looks by itself: the plug-in drops the variable SLURM_CONF
N_JOBS = 2 + len(CHAPTERS) + len(SHARES) + sum(SHARES.values())
WAIT_S = 600  # on a busy machine each of its jobs may take a minute
ON_SLURM = """
executor: slurm
jobs: 8
default-resources: {mem_mb: 200, runtime: 5}
rerun-incomplete: true
keep-going: true
rerun-triggers: [mtime, input, params]
latency-wait: 10
slurm-jobname-prefix: mitolib
slurm-status-command: squeue
slurm-init-seconds-before-status-checks: 2
seconds-between-status-checks: 2
"""

pytestmark = pytest.mark.skipif(not SNAKEMAKE.exists(), reason="no .venv-cluster here: make cluster")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the graph reads, in a folder of its own: its markers and what the stand-in writes stay there."""
    for name in ("workflow", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "book").mkdir()
    shutil.copytree(ROOT / "book/_tools", tmp_path / "book/_tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/cluster/stand-in", tmp_path / "stand-in")
    return tmp_path


@pytest.fixture
def slurm(checkout: Path) -> Iterator[None]:
    """A SLURM of one node, configured where the plug-in finds it."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing or SYSTEM_CONF.exists():
        pytest.skip(f"wants root, SLURM ({', '.join(missing) or 'installed'}) and no {SYSTEM_CONF} of a cluster")
    subprocess.run([SLURM_HERE, "start", checkout / "slurm"], check=True)
    SYSTEM_CONF.symlink_to(checkout / "slurm" / "slurm.conf")
    profile = checkout / "workflow" / "here"
    profile.mkdir()
    (profile / "config.yaml").write_text(ON_SLURM)
    yield
    SYSTEM_CONF.unlink()
    subprocess.run([SLURM_HERE, "stop", checkout / "slurm"], check=True)


def snakemake(*words: str) -> list[str]:
    """The command, with the stand-in for Python."""
    return [str(SNAKEMAKE), *words, "--config", "profile=smoke", "python=./stand-in"]


def asked(checkout: Path) -> list[str]:
    """What jobs asked of the executor, without what they have in common."""
    lines = (checkout / "asked").read_text().splitlines()
    return [line.removeprefix("--profile smoke --book book --only ") for line in lines]


def until(true: Callable[[], bool], seconds: float = WAIT_S) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.2)


def test_the_graph_runs_every_job_once_and_what_is_needed_first(checkout):
    done = subprocess.run(snakemake("--cores", "2"), cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    ran = asked(checkout)
    assert len(ran) == len(set(ran)) == N_JOBS
    assert ran[0] == "phantom" and ran[-1] == "render"
    for chapter, needed in NEEDS.items():
        begins = min(i for i, line in enumerate(ran) if f"--chapter {chapter}" in line)
        assert all(ran.index(f"execute --chapter {one}") < begins for one in needed)
    for chapter, n in SHARES.items():
        shares = [ran.index(f"execute --chapter {chapter} --share {k}/{n}") for k in range(n)]
        prepared, drawn = (
            ran.index(f"execute --chapter {chapter} --share {n}/{n}"),
            ran.index(f"execute --chapter {chapter}"),
        )
        assert prepared < min(shares) and max(shares) < drawn


@pytest.mark.parametrize("profile", ["slurm", "workstation"])
def test_the_profiles_of_the_repository_are_read(checkout, profile):
    words = snakemake("-n", "--profile", f"workflow/{profile}", "--config", "set={exp2: n_seeds=10 seed=3}", "-p")
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"total {N_JOBS}" in " ".join((done.stdout + done.stderr).split())


def test_a_job_that_fails_leaves_the_others_and_a_second_run_does_the_rest(checkout, slurm):
    (checkout / "fail").touch()
    target = "build/jobs/smoke/exp1/done"
    words = snakemake(target, "--profile", "workflow/here")
    assert subprocess.run(words, cwd=checkout, capture_output=True).returncode != 0
    first = asked(checkout)
    assert "execute --chapter exp1" not in first and len(first) == 2 + SHARES["exp1"]
    (checkout / "fail").unlink()
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert Counter(asked(checkout)[len(first) :]) == Counter(
        [f"execute --chapter exp1 --share 1/{SHARES['exp1']}", "execute --chapter exp1"]
    )


@pytest.mark.parametrize("ended", ["the command is killed", "a job is cancelled"])
def test_what_was_interrupted_goes_on(checkout, slurm, ended):
    (checkout / "wait").touch()
    words = snakemake("build/jobs/smoke/exp2/done", "--profile", "workflow/here")
    run = subprocess.Popen(words, cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until((checkout / "waiting").exists)
        if ended == "the command is killed":
            run.send_signal(signal.SIGKILL)
            run.wait()
        subprocess.run("squeue -h -t running -o %A | xargs -r scancel", shell=True, check=True)
        assert run.wait(WAIT_S) != 0
    finally:
        run.kill()
    until(lambda: not subprocess.run(["squeue", "-h", "-t", "pending,running"], capture_output=True).stdout)
    (checkout / "wait").unlink()
    subprocess.run(snakemake("--unlock", "--profile", "workflow/here"), cwd=checkout, check=True, capture_output=True)
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (checkout / "build/jobs/smoke/exp2/done").exists()
    assert asked(checkout).count("phantom") == 1 and asked(checkout)[-1] == "execute --chapter exp2"
