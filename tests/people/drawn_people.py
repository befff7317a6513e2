"""People who are drawn without a picture, and a reader that reads of a folder's name whose it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class ToyReader:
    """Reads of a folder's name whose it is: maps of four patches, pooled ones, and twenty fibres of which five may be
    deficient."""

    def __init__(self, key: str = "toy") -> None:
        self.depends, self.n_read = [key], 0

    def read(self, root: Path, section: object) -> dict[str, np.ndarray]:
        self.n_read += 1
        twin, name = root.parent.name, root.name
        is_ill = ("P" in name and twin != "cured") or twin == "afflicted"
        rng = np.random.default_rng(int(name.replace("C", "1").replace("P", "2")))
        maps = rng.normal([1.5 * is_ill, 0], 0.3, (4, 7, 7, 2))
        counts = np.exp(rng.normal(0, 0.1, (20, 3)))
        counts[:5, 1] *= 0.1 if is_ill else 1
        return {
            "maps": maps.astype(np.float16),
            "pooled": maps.mean(axis=(1, 2)).astype(np.float16),
            "crops": np.log(counts).astype(np.float16),
            "counts": counts.astype(np.float32),
            "grey": counts.astype(np.float32),
            "deficient": np.array([is_ill] * 5 + [False] * 15, np.int8),
        }


def toy_draw(root: str, people: dict[str, Any], **twin: bool) -> list[Path]:
    """Folders that nobody makes: their names say who and which twin."""
    return [Path(root, next(iter(twin), "itself"), subject["subject"]) for subject in people["subjects"]]


def toy_people(n: int, seed: int) -> dict[str, Any]:
    """n controls and n patients, of whom nothing was drawn but a number."""
    labels = {"C": "control", "P": "patient"}
    subjects = [
        {"subject": f"{seed}{letter}{i:03}", "label": label, "drawn": [seed, letter, i]}
        for letter, label in labels.items()
        for i in range(n)
    ]
    for control in subjects[:n]:
        control["donor"] = {"drawn": [seed, "donor"]}
    return {"source": f"seed {seed}", "subjects": subjects}
