"""Toy maps: four channels, three by three places, three subjects a class; class 1 shows a pattern in one place."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mitolib.prototypes.costs import Weights
from mitolib.prototypes.maps import Maps
from mitolib.prototypes.network import ROOT, Architecture
from mitolib.prototypes.training import Schedule, Trained, flat_targets, train

CHANNELS, SIDE, PLANTED = 4, 3, 4  # the planted place is the middle one
TREE = {ROOT: ("control", "patient")}
ARCHITECTURE = Architecture(depth=8, per_child=2)
SCHEDULE = Schedule(cycles=2, epochs=40, batch_size=12, learning_rate=0.03)


def toy_maps(n: int = 24, *, seed: int = 0) -> tuple[Maps, np.ndarray]:
    """Maps whose patches do not overlap, and their classes. Half are of class 1, two patches of one subject in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    values = rng.uniform(0.4, 0.6, (n, SIDE * SIDE, CHANNELS)).astype(np.float32)
    values[labels == 1, PLANTED] = [1.5, 0, 1.5, 0]
    subject = [f"{'CP'[label]}{(i // 2) % 3}" for i, label in enumerate(labels)]
    table = pd.DataFrame({"section": subject, "subject": subject, "y": 600 * np.arange(n), "x": 0, "size": 512})
    table["label"] = np.where(labels == 1, "patient", "control")
    return Maps(table, values), labels


def trained(
    maps: Maps, labels: np.ndarray, rows: np.ndarray | None = None, *, seed: int = 1, **changes: object
) -> Trained:
    """A small ProtoPNet; changes: of the schedule, or annotation and architecture."""
    annotation = changes.pop("annotation", None)
    architecture = changes.pop("architecture", ARCHITECTURE)
    schedule = Schedule(**{**vars(SCHEDULE), **changes})
    rows = np.arange(len(labels)) if rows is None else rows
    return train(
        maps,
        rows,
        flat_targets(labels),
        TREE,
        architecture=architecture,
        schedule=schedule,
        seed=seed,
        annotation=annotation,
    )


STRONG_L1 = Weights(l1=1.0)
