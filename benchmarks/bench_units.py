"""What does it gain to train side by side, and what does it cost that trainings are units?

    python benchmarks/bench_units.py        (or `make bench`)

Claim 1. Two heads of experiment 1 at batch 2, trained side by side in processes of one thread each, get through at
least 1.5 times as many steps as two trained one after the other on all cores. Both ways are timed in turns.
Claim 2. Experiment 1 in the profile named by MITOLIB_PROFILE (quick where it is unset): a run that finds all its units
against one that makes them, in CPU seconds of the whole notebook.
Claim 3. A share that has nothing to compute costs less than 15 s of CPU: start, imports, data, and the end.
Claim 4. Twelve equal units in 1, 2 and 4 shares: the sum of the units' own seconds against the time for which the
shares ran, starts of processes left out. Less than 10 % is lost.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from timing import load_average

from mitolib.settings import ROOT

STEPS, ROUNDS, BATCH = 150, 3, 2
N_UNITS, UNIT_S = 12, 2.0

HEAD = f"""
import os, sys, time
import numpy as np
import tensorflow as tf
threads = int(sys.argv[1])
if threads:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
from mitolib import backend, heads, networks
head = networks.head((7, 7, 512))
head.compile(backend.FusedAdam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
rng = np.random.default_rng(0)
maps, labels = rng.random(({BATCH}, 7, 7, 512), dtype=np.float32), heads.one_hot(np.array([0, 1]))
for _ in range(10):
    head.train_on_batch(maps, labels)
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range({STEPS}):
        head.train_on_batch(maps, labels)
    print(time.perf_counter() - start, flush=True)
"""

SWEEP = f"""
import sys, time
from types import ModuleType
from mitolib import units
module = ModuleType("toy"); module.PROTOCOL = 1
def fit(number):
    until = time.process_time() + {UNIT_S}
    while time.process_time() < until:
        pass
    return {{"number": number}}
start = time.monotonic()
units.each(fit, [{{"number": number}} for number in range({N_UNITS})], made_by=module, chapter="toy", depends={{}})
print(time.monotonic() - start)
"""


class Trainer:
    """A process that trains a head, in as many steps as it is asked for."""

    def __init__(self, threads: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEAD, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.process.stdout.readline()

    def start(self) -> None:
        """Let it begin with its steps."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def seconds(self) -> float:
        """How long the steps that were started took; waits for their end."""
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """Let it end."""
        self.process.stdin.close()
        self.process.wait()


def steps_per_second(rounds: int = ROUNDS) -> tuple[float, float]:
    """Of a head's training: alone on all cores; and of two together, side by side on one thread each."""
    alone, *pair = trainers = [Trainer(0), Trainer(1), Trainer(1)]
    one_s, two_s = [], []
    for _ in range(rounds):  # in turns: a busy machine slows both alike
        alone.start()
        one_s.append(alone.seconds())
        for trainer in pair:
            trainer.start()
        two_s.append(max(trainer.seconds() for trainer in pair))
    for trainer in trainers:
        trainer.close()
    return STEPS / median(one_s), 2 * STEPS / median(two_s)


def cpu_seconds(arguments: list[str], **variables: str) -> float:
    """CPU seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT, env=os.environ | variables, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def lost(n_shares: int, folder: Path) -> float:
    """Share of the time that is not spent in units, of a sweep in `n_shares` processes side by side."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SWEEP],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=os.environ | {"MITOLIB_UNITS": str(folder), "MITOLIB_SHARE": f"{k}/{n_shares}"},
        )
        for k in range(n_shares)
    ]
    ran_s = sum(float(process.communicate()[0]) for process in started)
    made_s = sum(json.loads(path.read_text())["made"]["seconds"] for path in folder.rglob("*.json"))
    return 1 - made_s / ran_s


def main() -> None:
    """Print each claim with what was measured."""
    print(load_average())
    one, two = steps_per_second()
    print(
        f"claim 1: {one:.1f} steps per second one after the other, {two:.1f} side by side: {two / one:.2f} times "
        "as many (wanted: 1.5)"
    )
    with tempfile.TemporaryDirectory() as folder:
        run = ["-m", "papermill", "notebooks/exp1.ipynb", f"{folder}/out.ipynb", "--no-progress-bar"]
        run += ["-p", "results", f"{folder}/results"]
        kept = {"MITOLIB_UNITS": f"{folder}/units"}
        cpu_seconds(run, MITOLIB_SHARE="2/2", **kept)  # draws the phantom, which both runs read
        made, found = (cpu_seconds(run, **kept) for _ in range(2))
        print(f"claim 2: {made:.0f} s of CPU to make the units, {found:.0f} s to find them, 1/{made / found:.1f}")
        share = cpu_seconds(run, MITOLIB_SHARE="1000/1001", MITOLIB_UNITS=f"{folder}/none")
        print(f"claim 3: a share with nothing to compute takes {share:.1f} s of CPU (wanted: below 15)")
    for n in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            print(f"claim 4: {N_UNITS} units in {n} shares: {lost(n, Path(folder)):.1%} lost (wanted: below 10 %)")


if __name__ == "__main__":
    main()
