"""Units of work: one fit each, computed once, kept as a small file, found again by every later run::

    fits = units.each(train_one, [{"network": "VGG16", "seed": seed} for seed in (127, 128)], made_by=transfer,
                      chapter="exp1", depends={"pictures": digest, "epochs": 100})
    fits[0]["p_patient"]

`each` reads the units that are there and computes the others, one after the other; a run that was killed goes on where
it was. Units that are published with the book lie in `book/units/<chapter>/`, all others in `data/cache/units/`, or in
the folder that the environment variable MITOLIB_UNITS names. With MITOLIB_PUBLISH=1 new ones are published, as in
`make paper`.

Key. A unit is found again where its result would mean the same: same chapter, same name, same `depends` (pictures,
weights, the budget of the fit) and same protocol. The protocol is a number that the module of the fit declares
(`PROTOCOL = 1`) and raises when its method changes. Neither the code nor the machine, the versions of libraries or the
precision belong to the key: they are written down in the unit (`made`). The backend of Keras does, where it is not
TensorFlow: it is part of the name.

Shares. With the environment variable MITOLIB_SHARE=2/8 a process computes every eighth unit, from the third, and ends
quietly where it needs a result that another share owes. With 8/8 it computes none and prepares what all of them read.
A notebook therefore asks for all its units before it uses the first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mitolib import files, records
from mitolib.progress import say
from mitolib.settings import DATA, ROOT, folder_parameter, keras_backend, share

PUBLISHED = ROOT / "book" / "units"
CACHE = DATA / "cache" / "units"  # unless MITOLIB_UNITS names another folder
WEIGHTS = "weights"  # the entry of a result that is never published: arrays of a trained network
BACKEND = "backend"  # in a unit's name: of Keras, where it is not TensorFlow
WORDS = re.compile(r"[^A-Za-z0-9.+]+")  # whatever else is in a name becomes one underscore

_n_asked = 0  # units that this process has been asked for

Result = Mapping[str, Any]  # name -> plain value (numbers are finite, keys are text) or array
Fit = Callable[..., Result]


class UnitError(ValueError):
    """A unit that cannot be kept or read; the message says which, what was found and what helps."""


@dataclass(frozen=True)
class Unit:
    """One unit in its folder: `<words>-<key>.json`, beside it `.npz` if its result has arrays."""

    chapter: str
    name: Mapping[str, Any]  # what tells it from its siblings
    key: str

    @property
    def stem(self) -> str:
        """File name without ending."""
        words = "-".join(WORDS.sub("_", str(value)) for value in self.name.values() if value is not None)
        return f"{words}-{self.key[:12]}"

    def find(self) -> Path | None:
        """Its JSON file, whole, or None: a published one, else one of the cache."""
        return next((path for path in self._places() if _is_whole(path)), None)

    def find_weights(self) -> Path | None:
        """The file of its trained weights, which is in the cache or nowhere."""
        path = cache() / self.chapter / f"{self.stem}.{WEIGHTS}.npz"
        return path if path.exists() else None

    def _places(self) -> list[Path]:
        return [folder / self.chapter / f"{self.stem}.json" for folder in (PUBLISHED, cache())]


class Units(Sequence[dict[str, Any]]):
    """Results in the order in which the units were asked for, each read when it is used first."""

    def __init__(self, units: Sequence[Unit], compute: Callable[[Unit], None]) -> None:
        self._units, self._compute = units, compute
        self._read: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._units)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """The result, without weights. In a share it ends the process, as if done, where another share owes it."""
        place = range(len(self))[place]
        if place not in self._read:
            if (path := self._units[place].find()) is None:
                if not share():
                    raise UnitError(f"{self._units[place].stem}: removed since this run asked for it. Run it again.")
                say(f"  {self._units[place].stem} belongs to another share: this one is done")
                raise SystemExit(0)  # papermill takes it for an end, not for an error
            self._read[place] = read(path)
        return self._read[place]

    def weights(self, place: int) -> list[np.ndarray]:
        """The trained weights of a unit. The fit is computed once more where they are not on this machine."""
        unit = self._units[place]
        if unit.find_weights() is None:
            say(f"  {unit.stem}: its weights are not on this machine, so it is computed once more")
            self._compute(unit)
        with np.load(unit.find_weights()) as arrays:
            return [arrays[name] for name in arrays.files]

    @property
    def keys(self) -> list[str]:
        """Of the units, computed or not: what depends on a unit's result names it by its key."""
        return [unit.key for unit in self._units]

    @property
    def record(self) -> list[dict[str, Any]]:
        """For the results file: of each unit its name, its key, and how it was made."""
        paths = [unit.find() for unit in self._units]
        return [{name: content[name] for name in ("chapter", "unit", "key", "made")} for content in map(load, paths)]


def each(
    fit: Fit,
    names: Sequence[Mapping[str, Any]],
    *,
    made_by: ModuleType,
    chapter: str,
    depends: Mapping[str, Any],
    prepare: Callable[[], object] | None = None,
    precision: Callable[[], str] | None = None,
    together: Callable[[Sequence[Mapping[str, Any]]], Sequence[Result]] | None = None,
) -> Units:
    """`fit(**name)` for each name: read where it is kept, computed where it is not.

    fit: gives plain values and arrays; under "weights" it may give a list of arrays, which stay on this machine.
    made_by: the module whose method the fit is; its PROTOCOL is part of the key. depends: all else that the result
    depends on, as plain values. prepare: what all fits read and none should have to make, such as a bank of features;
    called before the first fit, and by a share n/n, which computes no fit. precision: of the arithmetic, written down.
    together: the same as fit for several names at once, where that is faster; each then took its part of the time.
    Raises UnitError for a result that cannot be kept, and what the fit raises; units that are done stay.
    """
    protocol = made_by.PROTOCOL
    units = [Unit(chapter, name, _key(chapter, name, depends, protocol)) for name in map(_with_backend, names)]

    def compute(*some: Unit) -> None:
        start, cpu = time.monotonic(), _cpu_seconds()
        called = [{word: value for word, value in unit.name.items() if word != BACKEND} for unit in some]
        results = together(called) if len(some) > 1 else [fit(**called[0])]
        made = {
            "seconds": round((time.monotonic() - start) / len(some), 1),
            "cpu_seconds": round((_cpu_seconds() - cpu) / len(some), 1),
            "precision": precision() if precision else None,
            "job": os.environ.get("SLURM_JOB_ID"),
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        } | records.machine()
        about = {"protocol": [made_by.__name__, protocol], "depends": dict(depends), "made": made}
        for unit, result in zip(some, results, strict=True):
            _keep(unit, result, about)

    missing = [unit for unit in units if unit.find() is None]
    mine = [unit for unit, is_mine in zip(units, _shared_out(len(units)), strict=True) if is_mine and unit in missing]
    if missing and prepare and (mine or _only_prepares()):
        prepare()
    for some in [mine] if together and mine else [[unit] for unit in mine]:
        done, names = mine.index(some[-1]) + 1, " and ".join(unit.stem for unit in some)
        say(f"  {names}: computing unit {done} of {len(mine)}, {len(units) - len(missing)} are kept")
        if some := [unit for unit in some if unit.find() is None]:  # another process may have been faster meanwhile
            compute(*some)
    if publishes():
        for unit in units:
            _publish(unit)
    return Units(units, compute)


def read(path: Path) -> dict[str, Any]:
    """The result in a unit's JSON file and the arrays beside it. UnitError for a file that is no unit."""
    content = load(path)
    result = dict(content["result"])
    if content["arrays"]:
        with np.load(path.with_name(content["arrays"])) as arrays:
            result |= {name: arrays[name] for name in arrays.files}
    return result


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of arrays, their types and shapes: what a unit depends on of row numbers and pictures."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _with_backend(name: Mapping[str, Any]) -> dict[str, Any]:
    """The name of a unit. Two backends round differently, and heads start from other random numbers."""
    return dict(name) | ({} if keras_backend() == "tensorflow" else {BACKEND: keras_backend()})


def _key(chapter: str, name: Mapping[str, Any], depends: Mapping[str, Any], protocol: int) -> str:
    text = json.dumps([chapter, dict(name), dict(depends), protocol], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _shared_out(n_units: int) -> list[bool]:
    """Whether each of the next units is this share's. Units are counted through all calls of a process."""
    global _n_asked
    k, n = share() or (0, 1)
    _n_asked += n_units
    return [place % n == k for place in range(_n_asked - n_units, _n_asked)]


def _only_prepares() -> bool:
    k, n = share() or (0, 1)
    return k == n


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def cache() -> Path:
    """Where units lie that are not published. A relative MITOLIB_UNITS counts from the checkout."""
    return ROOT / (folder_parameter("MITOLIB_UNITS", os.environ.get("MITOLIB_UNITS")) or CACHE)


def publishes() -> bool:
    """Whether this run is one into the published edition. ValueError for a value of MITOLIB_PUBLISH that is neither."""
    chosen = os.environ.get("MITOLIB_PUBLISH", "0")
    if chosen not in ("0", "1"):
        raise ValueError(f"MITOLIB_PUBLISH is {chosen!r}; wanted 1, or 0 as if it were not set. Correct or unset it.")
    return chosen == "1"


def _keep(unit: Unit, result: Result, about: Mapping[str, Any]) -> None:
    """Write weights, arrays and, last, the JSON file that says that all is there. What another process kept stays."""
    arrays = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in result.items() if name not in arrays and name != WEIGHTS}
    folder = (PUBLISHED if publishes() else cache()) / unit.chapter
    path = folder / f"{unit.stem}.json"
    # Named by its content: of two processes each JSON file refers to its own arrays.
    beside = f"{unit.stem}-{digest(*arrays.values())[:8]}.npz" if arrays else None
    content = {"chapter": unit.chapter, "unit": dict(unit.name), "key": unit.key, **about}
    try:
        text = json.dumps({**content, "arrays": beside, "result": plain}, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UnitError(
            f"{unit.stem}: its result cannot be kept ({error}). A fit gives arrays, text, finite numbers, None, and "
            "lists and mappings of these."
        ) from error
    try:
        if WEIGHTS in result:
            numbered = {f"{place:03d}": array for place, array in enumerate(result[WEIGHTS])}
            _save(cache() / unit.chapter / f"{unit.stem}.{WEIGHTS}.npz", numbered, np.savez)
        if unit.find() is None:
            if arrays:
                _save(folder / beside, arrays, np.savez_compressed)
            with files.whole(path) as aside:
                aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnitError(f"{path}: cannot be written ({error.strerror or error}). Free the disk, run again.") from error


def _save(path: Path, arrays: Mapping[str, np.ndarray], write: Callable[..., None]) -> None:
    with files.whole(path) as aside, aside.open("wb") as file:
        write(file, **arrays)


def _publish(unit: Unit) -> None:
    """Copy a unit of the cache into the book, if it is in the cache alone; those of other shares come by themselves."""
    path = unit.find()
    if path is None or PUBLISHED in path.parents:
        return
    folder = PUBLISHED / unit.chapter
    for source in filter(None, [load(path)["arrays"], path.name]):
        with files.whole(folder / source) as aside:
            aside.write_bytes(path.with_name(source).read_bytes())


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return False
    arrays = load(path)["arrays"]
    return not arrays or path.with_name(arrays).exists()


def load(path: Path) -> dict[str, Any]:
    """What stands in a unit's JSON file, without the arrays. UnitError for a file that is no unit."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not {"arrays", "made", "protocol", "result"} <= content.keys():
            raise ValueError("it lacks an entry")
        return content
    except (ValueError, AttributeError) as error:
        raise UnitError(f"{path}: is no unit ({error!r}). Delete it: it is computed again.") from error
