"""What a run says on the terminal, and what it keeps in its log.

A reader who makes the book wants to see how far it is. Frameworks, kernels and readers of pictures say a great deal
more, of which one line matters when a chapter fails: all of it goes to the log, which an error then names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

BAR = "{desc:<20} {bar:24} {percentage:3.0f} %  {elapsed} gone, {remaining} left by its cells"


@dataclass(frozen=True)
class Terminal:
    """Where a run speaks to its reader. log: where all else goes; None where nothing is kept from the terminal."""

    out: TextIO
    log: Path | None = None

    def say(self, line: str) -> None:
        """A line above the bars, which come back below it when they next move: they are of other processes."""
        clear = "\r\x1b[J" if self.log and self.out.isatty() else ""  # from here to the end of the screen
        self.out.write(f"{clear}{line}\n")
        self.out.flush()

    def bar(self, chapter: str, place: int) -> dict[str, Any] | bool:
        """Settings with which papermill draws the bar of a chapter at this place, from 0; False where none is wanted.

        In a log a bar would be one endless line: there is none where the terminal is a file.
        """
        if self.log is None:
            return False
        own = {"file": self.out, "desc": chapter, "position": place, "bar_format": BAR}
        return own | {"leave": False, "disable": None, "dynamic_ncols": True}

    def failed(self, message: str) -> str:
        """The message of an error, and where the lines are that led to it."""
        return message if self.log is None else f"{message}\nWhat led to it stands in {self.log}"


@contextmanager
def quiet(log: Path) -> Iterator[Terminal]:
    """Keep in `log` all that this process and its children write to standard output and error, but for the terminal's.

    The file is begun anew.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    as_they_were = os.dup(1), os.dup(2)
    with log.open("w", encoding="utf8") as file, os.fdopen(os.dup(2), "w", encoding="utf8") as out:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield Terminal(out, log)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, before in zip((1, 2), as_they_were, strict=True):
                os.dup2(before, number)
                os.close(before)
