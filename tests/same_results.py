"""Did a change of the code change a number? Every notebook in smoke, before and after, results compared entry by entry.

    python tests/same_results.py COMMIT [CHAPTER ...]     runs the notebooks of COMMIT and those of this checkout
    python tests/same_results.py BEFORE AFTER             compares two folders of results files that are there
    python tests/same_results.py --entries ONE OTHER      asks only that both have the same entries, provenance included

Provenance may differ, and a new run may say more than the old one did. Every other entry has to be equal, numbers
within the relative tolerance (0 by default). Exit status 1 and one line for each difference otherwise. Sums on several
threads come in any order, so both sides run on one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UNCOMPARED = {"provenance", "seconds"}  # of the run, not of its result
CUT = {"concept_whitening": ("real_concepts",)}  # chapter -> those that took over a part of it


def differences(before: Any, after: Any, tolerance: float, where: str = "") -> Iterator[str]:
    """One line for each entry of `before` that `after` lacks or has with another value."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in UNCOMPARED:
                continue
            if key not in after:
                yield f"{where}.{key}: is gone"
            else:
                yield from differences(value, after[key], tolerance, f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, tolerance, f"{where}[{i}]")
    elif isinstance(before, float) and isinstance(after, (int, float)):
        if not math.isclose(before, after, rel_tol=tolerance, abs_tol=tolerance):
            yield f"{where}: {before!r} became {after!r}"
    elif before != after:
        yield f"{where}: {str(before)[:80]!r} became {str(after)[:80]!r}"


def entries(record: Any, where: str = "") -> set[str]:
    """Names of all entries, those of entries within entries with dots; what is in a list has none."""
    if not isinstance(record, dict):
        return {where}
    return {name for key, value in record.items() for name in entries(value, f"{where}.{key}")}


def run(checkout: Path, results: Path, chapters: Sequence[str]) -> None:
    """Execute the notebooks of a checkout with its own package; results files go to the folder `results`."""
    surroundings = os.environ | {
        "PYTHONPATH": str(checkout),
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",
    }
    if mirror := os.environ.get("MITOLIB_MIRROR"):
        surroundings["MITOLIB_MIRROR"] = str((ROOT / mirror).resolve())
    results.mkdir(parents=True, exist_ok=True)
    for path in sorted((checkout / "notebooks").glob("*.ipynb")):
        if not chapters or path.stem in chapters:
            print(f"{path.relative_to(checkout.parent)}: running", flush=True)
            command = [sys.executable, "-m", "papermill", path, results / path.name, "--no-progress-bar"]
            command += ["-p", "profile", "smoke", "-p", "results", results]
            subprocess.run(command, cwd=checkout, env=surroundings, check=True, stdout=subprocess.DEVNULL)


def compare(before: Path, after: Path, tolerance: float | None) -> int:
    """Print what differs between two folders of results files, and return how much does; without tolerance in names."""
    n_different = 0
    paths = sorted(before.glob("*.json"))
    if not paths:
        sys.exit(f"{before}: no results file is there. Run a notebook with `-p results {before}`.")
    for path in paths:
        if not (after / path.name).exists():
            print(f"{path.name}: was not run again")
            continue
        new: dict[str, Any] = {}
        for chapter in (*CUT.get(path.stem, ()), path.stem):
            if (after / f"{chapter}.json").exists():
                new |= json.loads((after / f"{chapter}.json").read_text())
        old = json.loads(path.read_text())
        if tolerance is None:
            lines = [f"{name}: only one of the two has it" for name in sorted(entries(old) ^ entries(new))]
        else:
            lines = list(differences(old, new, tolerance))
        n_different += len(lines)
        print(f"{path.name}: {'equal' if not lines else f'{len(lines)} differences'}", *lines[:20], sep="\n  ")
    return n_different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", help="a commit, or a folder of results files")
    parser.add_argument("after", nargs="*", help="chapters, or the other folder")
    parser.add_argument("--tolerance", type=float, default=0.0)
    parser.add_argument("--entries", dest="tolerance", action="store_const", const=None, help="compare names alone")
    options = parser.parse_args()
    if Path(options.before).is_dir():
        if len(options.after) != 1:
            parser.error("wanted one folder to compare with the first")
        sys.exit(compare(Path(options.before), Path(options.after[0]), options.tolerance) > 0)
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "checkout"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", old, options.before], cwd=ROOT, check=True)
        try:
            both = {name: Path(folder) / name for name in ("before", "after")}
            old_chapters = [c for c in options.after if c not in {part for parts in CUT.values() for part in parts}]
            run(old, both["before"], old_chapters if options.after else ())
            run(ROOT, both["after"], options.after)
            n_different = compare(both["before"], both["after"], options.tolerance)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", old], cwd=ROOT, check=True)
    sys.exit(n_different > 0)


if __name__ == "__main__":
    main()
