"""Profiles: everything that may differ between two runs, and the folders of this checkout."""

from __future__ import annotations

import difflib
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
CALIBRATION = DATA / "cohort.json"
CPUINFO = Path("/proc/cpuinfo")

# Spelling and order of the paper, section 3.1; `channel 0` everywhere is SDHA.
PROTEINS = (
    "SDHA",
    "TOM22",
    "NDUFB8",
    "OSCP",
    "GRIM19",
    "VDAC1",
    "COX4",
    "MTCO1",
    "UQCRC2",
    "Dystrophin",
)
LABELS = ("control", "patient")  # class index = position


@dataclass(frozen=True, kw_only=True)
class FreezingBudget:
    """How a network is trained whose last convolutions learn too."""

    rates: tuple[float, ...]  # learning rates, each tried at each depth
    epochs: int
    patience: int


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One way of running every notebook: how much data, how many epochs, how literal."""

    name: str
    scale: float  # linear size of the phantom's sections; fibres keep their size
    epochs: int
    patience: int  # epochs without a better validation accuracy before training stops
    batch_size: int
    views: int  # augmented copies of each training patch; 0 draws a new one at every epoch
    n_seeds: int  # trainings of the same network with seeds one apart, of which the first is `seed`
    freezing: FreezingBudget
    learning_rate: float = 1e-3
    zoom: tuple[float, float] = (0.8, 1.2)  # the paper names zoom but prints no range
    seed: int = 127

    @property
    def parameters(self) -> dict[str, Any]:
        """What a notebook can set by the name of a field: all but the name and the budgets of single chapters."""
        return {field.name: getattr(self, field.name) for field in _parameters()}

    @property
    def phantom(self) -> Path:
        """Where the phantom of this profile's scale lies."""
        return DATA / "phantom" / f"scale-{self.scale:g}"


def _parameters() -> list[Field]:
    return [field for field in fields(Profile) if field.name != "name" and not field.type.endswith("Budget")]


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            scale=0.1,
            epochs=2,
            patience=2,
            batch_size=8,
            views=1,
            n_seeds=1,
            freezing=FreezingBudget(rates=(1e-4,), epochs=1, patience=1),
        ),
        Profile(
            name="quick",
            scale=0.33,
            epochs=10,
            patience=5,
            batch_size=4,
            views=1,
            n_seeds=1,
            freezing=FreezingBudget(rates=(1e-4,), epochs=2, patience=2),
        ),
        Profile(
            name="paper",
            scale=1.0,
            epochs=100,
            patience=30,
            batch_size=2,
            views=8,
            n_seeds=5,
            freezing=FreezingBudget(rates=(1e-3, 1e-4, 1e-5), epochs=30, patience=8),
        ),
    )
}


def processor_has_bfloat16() -> bool:
    """Whether the processor lists instructions for it; True where it does not say what it has."""
    return not CPUINFO.exists() or "bf16" in CPUINFO.read_text()


def faster_in_bfloat16(passes: Mapping[str, Callable[[], object]], rounds: int = 5, *, on_gpu: bool = False) -> bool:
    """Whether a pass takes at least 1.3 times as long in float32 as in bfloat16: the one rule of both frameworks.

    passes: "float32" and "bfloat16" -> the same small pass in it, which returns when its result is there. The shortest
    of `rounds` times counts; the first round may compile. That a processor lists the instructions says little: seen
    were a gain of seven with AMX and a loss of half with AVX-512 BF16 alone. One that lists none is not measured,
    unless the pass runs on a GPU: other work on the machine could make the clock choose what it cannot have, and with
    it other numbers.

    Where the environment variable MITOLIB_PRECISION is `float32` or `bfloat16` that is taken and nothing measured: the
    nodes of a cluster need not be alike, and their features and fits would not be either. ValueError if it is neither.
    """
    fixed = os.environ.get("MITOLIB_PRECISION")
    if fixed is not None:
        if fixed not in passes:
            raise ValueError(
                f"MITOLIB_PRECISION is {fixed!r}; wanted float32 or bfloat16. Correct the environment variable, or "
                "unset it to let each process measure which of the two suits its device."
            )
        return fixed == "bfloat16"
    if not on_gpu and not processor_has_bfloat16():
        return False
    shortest = {"float32": math.inf, "bfloat16": math.inf}
    for dtype in [*shortest] * rounds:  # in turns: a machine busy with other work slows both
        start = time.perf_counter()
        passes[dtype]()
        shortest[dtype] = min(shortest[dtype], time.perf_counter() - start)
    return shortest["float32"] > 1.3 * shortest["bfloat16"]


def keras_backend() -> str:
    """What Keras runs on: `tensorflow`, or what the environment variable KERAS_BACKEND says, which may be `torch`."""
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name not in ("tensorflow", "torch"):
        raise ValueError(f"KERAS_BACKEND is {name!r}; wanted tensorflow or torch. Correct or unset it.")
    return name


def share() -> tuple[int, int] | None:
    """(k, n) where this process computes only every n-th unit, counted from the k-th; None where it computes all.

    The environment variable MITOLIB_SHARE says so, as `k/n` with k from 0. With k = n none of the units belongs to this
    process: it makes what comes before them, such as the phantom and banks of features. ValueError for any other text.
    """
    text = os.environ.get("MITOLIB_SHARE")
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    k, n = map(int, found.groups()) if found else (1, 0)
    if n == 0 or k > n:
        raise ValueError(
            f"MITOLIB_SHARE is {text!r}; wanted k/n, such as 0/8 for the first of eight shares, 7/8 for the last, 8/8 "
            "for what comes before all of them. Correct the environment variable, or unset it to compute all."
        )
    return k, n


def mirrored(*file_names: str) -> Path | None:
    """The first of these files below the folder that the environment variable MITOLIB_MIRROR names, or None.

    Subfolders are searched too; a relative folder counts from the checkout, wherever a notebook runs.
    Raises ValueError if the variable names no folder.
    """
    mirror = os.environ.get("MITOLIB_MIRROR")
    if not mirror:
        return None
    folder = ROOT / mirror
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder. Correct or unset the environment variable MITOLIB_MIRROR.")
    return next((path for name in file_names for path in sorted(folder.rglob(name))), None)


def folder_parameter(name: str, value: object) -> Path | None:
    """A notebook's parameter that names a folder, as a path; None, the default, stays None.

    An empty one is refused, not taken for None: it is what a shell makes of a variable that is not set. So is what
    papermill makes of a folder called 2024, 007 or True, which is another word than was written.
    Raises ValueError with the name of the parameter.
    """
    if value is None or isinstance(value, Path):
        return value
    if isinstance(value, (bool, int, float)):
        raise ValueError(
            f"{name} is {value!r}, a {'truth value' if isinstance(value, bool) else 'number'} to papermill. Write "
            f"`-r {name} FOLDER`, which keeps it text, or put ./ before the folder."
        )
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; wanted the path of a folder. Write `-p {name} FOLDER`.")
    if not value.strip():
        raise ValueError(
            f"{name} is empty. Give a folder, or leave it out for the default; a shell variable that is not set is "
            "empty."
        )
    return Path(value).expanduser()


PARAMETERS = {  # of chapters, beside the fields of a profile: what each has to be
    **{"profile": "str", "data": "folder", "results": "folder", "concepts": "folder", "masks": "folder"},
    **{"protein": "str", "proteins": "names", "patch_px": "int", "stride_px": "int"},
    **{
        "steps": "int",
        "trunk_steps": "int",
        "tail_steps": "int",
        "n_folds": "int",
        "methods": "names",
        "tree": "names",
    },
}
# Lowest value allowed of what is counted or measured; a learning rate or scale of 0 is none.
LOWEST = {"seed": 0, "views": 0}
KINDS: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "str": str, "bool": bool}


def check_parameter(name: str, value: object, kind: str) -> Any:
    """The value, if it is of the kind that a field has. ValueError with name, finding and want otherwise."""
    if kind.startswith("tuple"):
        pair = value if isinstance(value, (list, tuple)) else ()
        if len(pair) != 2 or not all(map(_is_number, pair)) or not 0 < pair[0] <= pair[1]:
            raise ValueError(f"{name} is {value!r}; wanted two numbers, the smaller first, both above 0.")
        return tuple(pair)
    wanted = {"int": "a whole number", "float": "a number", "str": "text", "bool": "True or False"}[kind]
    is_number = kind not in ("int", "float") or _is_number(value)
    if isinstance(value, bool) != (kind == "bool") or not isinstance(value, KINDS[kind]) or not is_number:
        raise ValueError(f"{name} is {value!r}; wanted {wanted}. Correct it, or leave it out.")
    if kind == "str" and not value.strip():
        raise ValueError(f"{name} is empty; wanted {wanted}. Correct it, or leave it out.")
    lowest = LOWEST.get(name, 1 if kind == "int" else 0)
    if kind in ("int", "float") and (value < lowest or (kind == "float" and value <= 0)):
        least = "above 0" if kind == "float" else f"{lowest} or more"
        raise ValueError(f"{name} is {value!r}; wanted {wanted}, {least}. Correct it, or leave it out.")
    return value


def _is_number(value: object) -> bool:
    """A finite one: nothing is greater or less than what is none, so that no bound would refuse it."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_parameters(namespace: Mapping[str, Any], known: Sequence[str] = ()) -> Profile:
    """The profile of a notebook run, from the notebook's own variables.

    Call it right below the parameters cell, with `globals()`. Every variable there must be `profile`,
    `data`, `results`, a field of `Profile`, or one of `known`: papermill only warns about a misspelt
    `-p` and then runs the default. A field left at None keeps the profile's value; with `profile` None
    the environment variable MITOLIB_PROFILE decides, else "quick".

    known: further names, out of PARAMETERS. Raises ValueError that names the parameter for what is unknown, empty, of
    another kind or out of range.
    """
    fields_of_profile = {field.name: str(field.type) for field in _parameters()}
    allowed = fields_of_profile | {name: PARAMETERS[name] for name in ("profile", "data", "results", *known)}
    variables = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in {"In", "Out"}
        and (value is None or isinstance(value, (bool, int, float, str, list, tuple, dict)))
    }
    again = any(isinstance(value, Profile) for value in namespace.values())  # by hand, with later variables there
    if (unknown := sorted(set(variables) - set(allowed))) and not again:
        near = difflib.get_close_matches(unknown[0], allowed, n=1)
        raise ValueError(
            f"unknown parameter {', '.join(unknown)}; known are {', '.join(sorted(allowed))}. "
            + (f"Did you mean {near[0]}?" if near else "Leave it out.")
        )
    checked = {}
    for name in (name for name, value in variables.items() if name in allowed and value is not None):
        kind = allowed[name]
        if kind == "folder":
            folder_parameter(name, variables[name])
        elif kind == "names" and not isinstance(variables[name], str):
            words = variables[name] if isinstance(variables[name], (list, tuple)) else ()
            if not words or not all(isinstance(word, str) and word.strip() for word in words):
                raise ValueError(f"{name} is {variables[name]!r}; wanted names with a comma between them.")
        else:
            checked[name] = check_parameter(name, variables[name], "str" if kind == "names" else kind)
    name = checked.get("profile") or os.environ.get("MITOLIB_PROFILE") or "quick"
    if name not in PROFILES:
        raise ValueError(f"profile={name!r} is not one of {', '.join(PROFILES)}.")
    return replace(PROFILES[name], **{key: checked[key] for key in checked.keys() & fields_of_profile.keys()})
