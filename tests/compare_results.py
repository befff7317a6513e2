"""Did a change of the code change a number? Results files from before and after, compared entry by entry.

    python tests/compare_results.py BEFORE AFTER [--tolerance 1e-6]

Provenance may differ, and a new run may say more than the old one did. Every other entry has to be equal, numbers
within the relative tolerance (0 by default). Exit status 1 and one line for each difference otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

UNCOMPARED = {"provenance", "seconds"}  # of the run, not of its result


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
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, tolerance, f"{where}[{i}]")
    elif isinstance(before, float) and isinstance(after, (int, float)):
        if not math.isclose(before, after, rel_tol=tolerance, abs_tol=tolerance):
            yield f"{where}: {before!r} became {after!r}"
    elif before != after:
        yield f"{where}: {str(before)[:80]!r} became {str(after)[:80]!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.0)
    options = parser.parse_args()
    n_different = 0
    for path in sorted(options.before.glob("*.json")):
        other = options.after / path.name
        if not other.exists():
            print(f"{path.name}: was not run again")
            continue
        lines = list(differences(json.loads(path.read_text()), json.loads(other.read_text()), options.tolerance))
        n_different += len(lines)
        print(f"{path.name}: {'equal' if not lines else f'{len(lines)} differences'}", *lines[:20], sep="\n  ")
    sys.exit(n_different > 0)


if __name__ == "__main__":
    main()
