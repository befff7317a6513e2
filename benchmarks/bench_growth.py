"""How do time and memory grow with the cohort?

    python benchmarks/bench_growth.py        (or `make bench`)

Claim. Drawing the cohort, cutting its patches and banking their features take time in proportion to the number of
sections, and no more memory for more of them. What grows is the number of sections, not their size: a cohort of
size 1 is four copies of one control and one patient, drawn with the quick profile's scale, which is about as many
pixels and patches as that profile's cohort has.

Each size runs in a process of its own, so that its peak memory is its own. Wall time is what a reader waits for;
processor time counts the work, whoever else uses the machine. The exponent is the slope of log(time) over log(size):
of the whole process as it is, and of the three steps alone, without what every process spends once whatever its
size (imports, weights, network). Only the second can be 1: a constant flattens the first.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from timing import load_average

from mitolib import bank, cohort, networks, patches, settings, weights
from mitolib.phantom import draw

SIZES = (0.25, 0.5, 1, 2)
UNIT = ("C02", "P03")  # drawn 4 times in a cohort of size 1
STRIDE_PX = 224
STEPS = ("phantom", "patches", "bank")


def enlarge(size: float, path: Path) -> Path:
    """Write the calibration of a cohort of `size`: copies of UNIT under names of their own."""
    published = json.loads(settings.CALIBRATION.read_text())
    unit = [subject for subject in published["subjects"] if subject["subject"] in UNIT]
    copies = [s | {"subject": f"{s['subject']}-{copy}"} for copy in range(round(4 * size)) for s in unit]
    path.write_text(json.dumps(published | {"subjects": copies}))
    return path


def measure(size: float, folder: Path) -> dict[str, float]:
    """Number of patches, wall and processor seconds of each step, and peak memory, of this process."""
    bank.FOLDER = folder / "bank"
    quick = settings.PROFILES["quick"]
    backbone, _ = networks.divide(networks.build("VGG16", arrays=weights.resolve("VGG16").arrays))
    bank.precision()  # measured once per process, so no part of the growth
    laps = [(time.perf_counter(), time.process_time())]

    def lap() -> None:
        laps.append((time.perf_counter(), time.process_time()))

    root = draw.make_phantom(folder / "phantom", scale=quick.scale, calibration=enlarge(size, folder / "cohort.json"))
    lap()
    sections = cohort.read_cohort(root)
    table = patches.grid(sections, stride_px=STRIDE_PX)
    pixels = patches.load(table, sections, ["SDHA"], stride_px=STRIDE_PX)
    lap()
    bank.source(
        backbone,
        pixels,
        rows=np.arange(len(table)),
        augment=partial(patches.augment, zoom=quick.zoom),
        prepare=patches.as_input,
        views=quick.views,
        seed=quick.seed,
        label="bank",
    )
    lap()
    wall, processor = np.diff(laps, axis=0).T
    return {
        "n": len(table),
        **dict(zip(STEPS, wall, strict=True)),
        **{f"{step} CPU": spent for step, spent in zip(STEPS, processor, strict=True)},
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def measure_apart(size: float) -> dict[str, float]:
    """`measure` in a process of its own, with its whole wall time from the outside."""
    start = time.perf_counter()
    child = subprocess.run([sys.executable, __file__, str(size)], stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(child.stdout.splitlines()[-1])
    return {"size": size, **measured, "whole": time.perf_counter() - start}


def main() -> None:
    """Print the table and the exponents."""
    print(load_average())
    table = pd.DataFrame([measure_apart(size) for size in SIZES]).set_index("size")
    table["steps"] = table[list(STEPS)].sum(axis=1)
    table["steps CPU"] = table[[f"{step} CPU" for step in STEPS]].sum(axis=1)
    table["start-up"] = table["whole"] - table["steps"]
    print(table.round(1).T.to_string())
    exponents = {column: np.polyfit(np.log(table.index), np.log(table[column]), 1)[0] for column in table}
    print("claim: cost grows with size to the power")
    print(f"  {exponents['whole']:.2f}  whole process")
    print(f"  {exponents['steps']:.2f}  the steps, without start-up; in processor time {exponents['steps CPU']:.2f}")
    for step in STEPS:
        print(f"  {exponents[step]:.2f}  of them {step}; in processor time {exponents[f'{step} CPU']:.2f}")
    print(f"  {exponents['peak MB']:.2f}  peak memory")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as temporary:
            print(json.dumps(measure(float(sys.argv[1]), Path(temporary))))
    else:
        main()
