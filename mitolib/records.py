"""Result files: one JSON per chapter, with the provenance of every number in it.

Pages, tables and tests read only these files; a number on a page is never typed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

try:
    import fcntl
except ImportError:  # not on Windows; two runs in one folder are then not kept apart
    fcntl = None

from mitolib import __version__, files
from mitolib.progress import say
from mitolib.settings import CPUINFO, ROOT, Profile, folder_parameter, keras_backend, share

STARTED = time.monotonic()
DEFAULT = ROOT / "build" / "results"
WAIT_S = 30  # for a run that is about to end
PACKAGES = ("numpy", "pandas", "scikit-learn", "patchify", "tifffile", "tensorflow", "keras", "torch")

_started_at: str | None = None  # the commit when the run began: by its end the checkout may have moved on
_held: dict[Path, list[int]] = {}  # results folders of this process: path -> file descriptors that hold its locks


class ResultsError(OSError):
    """A results folder or file that cannot be written or read; the message says which and what to do."""


def folder(results: str | Path | None, profile: Profile, chapter: str | None = None) -> Path:
    """The folder for result files, made if missing and tried for writing now, not after hours of training.

    A relative path counts from the working folder; None is the folder that the environment variable MITOLIB_RESULTS
    names, else `build/results/<profile>` of the checkout. chapter: whose results; None is the one that MITOLIB_CHAPTER
    names, as `make book` does. They are this process's until it has written them or ends, those of all chapters where
    none is named; ResultsError if another run keeps them for half a minute, or if the folder cannot be written. A share
    (`settings.share`) writes no results and keeps none.
    """
    global _started_at
    _started_at = _commit()
    chosen = folder_parameter("results", results) or os.environ.get("MITOLIB_RESULTS")
    path = Path(chosen).resolve() if chosen else DEFAULT / profile.name
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ResultsError(
            f"{path}: results cannot be written there ({error.strerror}). "
            "Give a folder of your own with `-p results <folder>`, or free the place."
        ) from error
    if fcntl is not None and path not in _held and share() is None:
        _held[path] = _hold(path, chapter or os.environ.get("MITOLIB_CHAPTER"))
    return path


def _hold(path: Path, chapter: str | None) -> list[int]:
    """File descriptors that hold the locks on a chapter's results; the system lets go of them when the process ends.

    The folder itself is locked too: shared by runs that name their chapter, alone by one that does not.
    """
    locks = [(path, os.O_RDONLY, fcntl.LOCK_SH if chapter else fcntl.LOCK_EX)]
    if chapter:
        locks.append((path / f".{chapter}.lock", os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX))
    held: list[int] = []
    until = time.monotonic() + WAIT_S
    for locked, flags, kind in locks:
        held.append(os.open(locked, flags, 0o666))
        while not _is_locked(held[-1], kind, path):
            if time.monotonic() >= until:
                for descriptor in held:
                    os.close(descriptor)
                raise ResultsError(
                    f"{path}: another run writes {f'the results of {chapter}' if chapter else 'its results'} there. "
                    "Wait for it, shut down its kernel, or give this one another folder with `-p results <folder>`."
                )
            time.sleep(0.2)
    return held


def _is_locked(descriptor: int, kind: int, path: Path) -> bool:
    """Try once. Where the file system has no locks, go on as if there were one, and say so."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        say(f"  {path}: has no locks ({error.strerror}). See to it that no other run writes the same chapter there.")
    return True


def _release(path: Path) -> None:
    for descriptor in _held.pop(path, []):
        os.close(descriptor)


def provenance(
    profile: Profile,
    *,
    data: Mapping[str, Any],
    weights: Iterable[Any] = (),
    precision: str | None = None,
    units: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The `provenance` entry: commit, versions, time, machine, seed, and the digests of data and weights.

    data: name and sha256 of the pictures read. weights: `Weights` objects of mitolib.weights that were used.
    precision: of the frozen backbones' arithmetic; None where there are none. units: see `units.Units.record`.
    `seconds` counts from the import of this module, which a notebook does at its top.
    """
    return machine() | {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(time.monotonic() - STARTED, 1),
        "parameters": profile.parameters,
        "precision": precision,
        "seed": profile.seed,
        "data": dict(data),
        "weights": {w.name: w.record for w in weights},
        "units": list(units),
    }


def machine() -> dict[str, Any]:
    """Commit and versions of the software, and the device that it runs on; never the machine's name."""
    return {
        "commit": _started_at or _commit(),
        "mitolib": __version__,
        "device": _device(),
        "backend": keras_backend(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _commit() -> str | None:
    """Commit of the checkout, with '+' when code, data or notebooks differ from it; None outside git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "mitolib", "notebooks", "data")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(name: str) -> str | None:
    """Of an installed package: Keras runs with one of its two backends alone."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> str:
    """The GPU that Keras computes on, else the processor's name; never the machine's name."""
    if (backend := sys.modules.get("mitolib.backend")) and (gpu := backend.gpu()):
        return gpu
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write(results: Path, record: Mapping[str, Any]) -> Path:
    """Write `<results>/<chapter>.json` whole or not at all, let go of the folder, and return the file's path.

    In a share (`settings.share`) nothing is written and the process ends as if done: the run without a share writes.
    """
    if share():
        say(f"  the results of {record['chapter']} are written by the run without a share: this one is done")
        raise SystemExit(0)  # papermill takes it for an end, not for an error
    path = results / f"{record['chapter']}.json"
    text = json.dumps(_plain(record), indent=1, allow_nan=False) + "\n"
    try:
        with files.whole(path) as aside, aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ResultsError(
            f"{path}: cannot be written ({error.strerror}). The results so far are unchanged."
        ) from error
    _release(results)
    return path


def _plain(tree: Any) -> Any:
    """The same as mappings and lists, numpy's numbers as Python's, and what is not finite as None: fit for JSON."""
    if is_dataclass(tree):
        tree = vars(tree)
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_plain(value) for value in tree]
    if isinstance(tree, np.generic):
        tree = tree.item()
    return None if isinstance(tree, float) and not np.isfinite(tree) else tree


def read(results: Path, chapter: str) -> dict[str, Any]:
    """The record of one chapter. Raises ResultsError naming the file if it is absent or no JSON."""
    path = results / f"{chapter}.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ResultsError(f"{path}: not found. Run notebooks/{chapter}.ipynb first.") from error
    except ValueError as error:
        raise ResultsError(f"{path}: is no whole JSON file ({error}). Run notebooks/{chapter}.ipynb again.") from error
