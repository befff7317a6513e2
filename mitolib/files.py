"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import platform
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = ".partial-"  # then machine, process and a number of its own
MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"  # that of a process: several may share one disk


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write the file or folder `path` meanwhile: it appears under its name when the block has ended well.

    The place lies beside it, has the same ending, and belongs to this call alone, so that two runs at once write the
    same file twice and not into each other. A file replaces an older one; a folder needs a free or empty place. If the
    block raises, nothing is left; what a process killed on this machine left behind goes at the next call for the same
    path. OSError where the place cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    start = f"{path.stem}{MARK}{MACHINE}-"
    for left in path.parent.glob(f"{start}*"):
        if not _is_running(left.name.removeprefix(start).partition("-")[0]):
            _remove(left)
    aside = path.with_name(f"{start}{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield aside
        if aside.is_dir() and path.is_dir():
            path.rmdir()  # if it is empty; Windows renames to no folder that is there
        aside.replace(path)
    finally:
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_running(process: str) -> bool:
    try:
        if os.name != "nt":  # there, signal 0 would end the process
            os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass  # it runs, and is somebody else's
    return True
