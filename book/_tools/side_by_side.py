"""Chapters side by side on one machine, each in a process of its own, the lines of each told apart by its name."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "LOKY_MAX_CPU_COUNT")  # variables that say how many
Work = Callable[..., str]  # (chapter, stderr=..., place=...) -> what went wrong, "" if nothing did


class Prefixed:
    """Standard error of one chapter: whole lines, each after the chapter's name."""

    def __init__(self, name: str, out: TextIO) -> None:
        self._name, self._out, self._line = name, out, ""

    def write(self, text: str) -> int:
        """Pass on the lines that are whole by now; the rest waits for its end."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            named = line if line.startswith(f"{self._name}: ") else f"{self._name}: {line}"
            self._out.write(f"{named}\n")
        self._out.flush()
        return len(text)

    def flush(self) -> None:
        """Whole lines have been passed on already."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_jobs() -> int:
    """Two where there are two cores; one with a GPU, whose memory TensorFlow takes whole, or where none can fork."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    has_gpu = not hidden and any(Path("/dev").glob("nvidia[0-9]*"))
    return 2 if cores() >= 2 and not has_gpu and "fork" in multiprocessing.get_all_start_methods() else 1


def each(work: Work, chapters: Sequence[str], *, needs: Mapping[str, Sequence[str]], jobs: int) -> list[str]:
    """Do the work of each chapter, `jobs` of them at once, and return what went wrong.

    A chapter waits for those that it needs, as far as they are among `chapters`. The others go on where one fails. The
    cores are dealt out evenly, unless the environment says how many threads a process has. place: of a chapter among
    those that run with it, from 0.
    """
    if jobs == 1 or len(chapters) == 1:
        return [message for chapter in chapters if (message := work(chapter))]
    for name in THREADS:
        os.environ.setdefault(name, str(max(1, cores() // jobs)))
    waiting, failed, places = list(chapters), [], {}
    running: dict[str, tuple[BaseProcess, Connection]] = {}
    try:
        while waiting or running:
            for chapter in _ready(waiting, running, needs)[: jobs - len(running)]:
                waiting.remove(chapter)
                places[chapter] = min(set(range(jobs)) - set(places.values()))
                running[chapter] = _begin(work, chapter, places[chapter])
            wait([process.sentinel for process, _ in running.values()])
            for chapter in [name for name, (process, _) in running.items() if not process.is_alive()]:
                process, told = running.pop(chapter)
                del places[chapter]
                if message := _told(told, chapter, process.exitcode):
                    failed.append(message)
    finally:  # empty, unless this process was asked to end
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join()
    return failed


def _ready(waiting: Sequence[str], running: Mapping[str, Any], needs: Mapping[str, Sequence[str]]) -> list[str]:
    undone = {*waiting, *running}
    return [chapter for chapter in waiting if not undone & set(needs.get(chapter, ()))]


def _begin(work: Work, chapter: str, place: int) -> tuple[BaseProcess, Connection]:
    """Start a copy of this process, which need not import anything again."""
    context = multiprocessing.get_context("fork")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=_do, args=(work, chapter, place, tell), name=chapter)
    process.start()
    tell.close()
    return process, told


def _do(work: Work, chapter: str, place: int, tell: Connection) -> None:
    """In the copy. Ctrl-C reaches it too; it leaves that to the process that started it, which ends it in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    tell.send(work(chapter, stderr=Prefixed(chapter, sys.stderr), place=place))


def _told(told: Connection, chapter: str, exit_code: int | None) -> str:
    try:
        return told.recv()
    except EOFError:
        return f"{chapter}: its process ended with {exit_code} before the chapter did. Run it again."


def end(number: int, _frame: FrameType | None) -> None:
    """A handler of signals: leave by the way on which kernels are shut down, and listen to no second signal."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)
