"""Profiles: everything that may differ between two runs, and the folders of this checkout."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
CALIBRATION = DATA / "cohort.json"

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
class Profile:
    """One way of running every notebook: how much data, how many epochs, how literal."""

    name: str
    scale: float  # linear size of the phantom's sections; fibres keep their size
    epochs: int
    patience: int  # epochs without a better validation accuracy before training stops
    batch_size: int
    views: int  # augmented copies of each training patch; 0 draws a new one at every epoch
    n_seeds: int  # trainings of the same network with seeds one apart, of which the first is `seed`
    learning_rate: float = 1e-3
    zoom: tuple[float, float] = (0.8, 1.2)  # the paper names zoom but prints no range
    seed: int = 127

    @property
    def phantom(self) -> Path:
        """Where the phantom of this profile's scale lies."""
        return DATA / "phantom" / f"scale-{self.scale:g}"

    @property
    def summary(self) -> str:
        """One sentence for the top of a page."""
        augmented = (
            f"augmented copies per training patch: {self.views}" if self.views else "augmented anew at every epoch"
        )
        return (
            f"Profile {self.name}: sections at {self.scale:g} of the published length and width; at most {self.epochs} "
            f"epochs, patience {self.patience}; batches of {self.batch_size}; {augmented}."
        )


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="smoke", scale=0.1, epochs=2, patience=2, batch_size=8, views=1, n_seeds=1),
        Profile(name="quick", scale=0.33, epochs=10, patience=5, batch_size=4, views=1, n_seeds=1),
        Profile(name="paper", scale=1.0, epochs=100, patience=30, batch_size=2, views=4, n_seeds=3),
    )
}


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


def read_parameters(namespace: Mapping[str, Any], known: tuple[str, ...] = ()) -> Profile:
    """The profile of a notebook run, from the notebook's own variables.

    Call it right below the parameters cell, with `globals()`. Every variable there must be `profile`,
    `data`, `results`, a field of `Profile`, or one of `known`: papermill only warns about a misspelt
    `-p` and then runs the default. A field left at None keeps the profile's value; with `profile` None
    the environment variable MITOLIB_PROFILE decides, else "quick".
    """
    overridable = {field.name for field in fields(Profile)} - {"name"}
    allowed = overridable | {"profile", "data", "results", *known}
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in {"In", "Out"}
        and (value is None or isinstance(value, (bool, int, float, str, list, tuple, dict)))
    }
    again = any(isinstance(value, Profile) for value in namespace.values())  # by hand, with later variables there
    if (unknown := sorted(set(given) - allowed)) and not again:
        near = difflib.get_close_matches(unknown[0], allowed, n=1)
        raise ValueError(
            f"unknown parameter {', '.join(unknown)}; known are {', '.join(sorted(allowed))}. "
            + (f"Did you mean {near[0]}?" if near else "Leave it out.")
        )
    name = given.get("profile") or os.environ.get("MITOLIB_PROFILE") or "quick"
    if name not in PROFILES:
        raise ValueError(f"profile={name!r} is not one of {', '.join(PROFILES)}.")
    changed = {key: value for key, value in given.items() if key in overridable and value is not None}
    return replace(PROFILES[name], **changed)
