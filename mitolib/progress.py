"""A line now and then about a long step, with the time that is left.

Whole lines, since they are read in a log: tqdm draws a bar over itself, which a log keeps as one endless line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
EVERY_S = 10.0


def clock(seconds: float) -> str:
    """`75` -> `1:15`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def say(message: str) -> None:
    """To standard error: `make book` passes it on, and no page of the book keeps it."""
    print(message, file=sys.stderr, flush=True)


def track(items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
    """Yield `items`; say how far `label` has come every ten seconds, and at its end if it took that long."""
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last >= EVERY_S:
            last = now
            say(f"  {label}: {done}/{total}, about {clock((now - start) / done * (total - done))} left")
        yield item
    if last > start:
        say(f"  {label}: {total}/{total} in {clock(time.monotonic() - start)}")
