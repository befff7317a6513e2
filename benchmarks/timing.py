"""Clocks that the benchmarks share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

Step = Callable[[], object]


def seconds(step: Step, n: int = 1) -> float:
    """Mean wall time of one call of `step`."""
    start = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - start) / n


def in_turns(steps: dict[str, tuple[Step, int]], rounds: int) -> dict[str, list[float]]:
    """`seconds` of each step in each round. The steps take turns, so that a busy machine slows all alike.

    steps: name -> (step, calls in a round). Each is called once before, outside the clock, to compile and to warm up.
    """
    for step, _ in steps.values():
        step()
    timed = [{name: seconds(step, n) for name, (step, n) in steps.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in timed] for name in steps}


def ratio(timed: dict[str, list[float]], slow: str, fast: str) -> float:
    """How many times as long `slow` takes: the median over the rounds of `in_turns`, each a pair of neighbours."""
    return median(a / b for a, b in zip(timed[slow], timed[fast], strict=True))


def load_average() -> str:
    """How busy the machine is: figures taken on a busy one scatter."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
