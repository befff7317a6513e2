"""The numbers Pilla, Khan and McGough printed in 2022.

Nothing here was computed by this project, apart from sums and shares of the printed numbers. Experiments
are named `exp1` (SDHA alone) and `exp2` (ten proteins stacked). "Section", "Table" and "Figure" below
are those of the paper of 6 September 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

CITATION = (
    "S. Pilla, A. Khan and S. McGough. Interpretable AI for protein expression images and associated clinical "
    "metadata. Newcastle University, 6 September 2022."
)

CONTROLS = 4  # section 3.1
PATIENTS = 10  # section 3.1
IMAGES = 280  # section 3.1: 14 subjects, 10 proteins, each image twice
JPEG_IMAGES = 140  # section 3.1
TIFF_IMAGES = 140  # section 3.1
PATCH_PX = 512  # section 3.1
INPUT_PX = 224  # sections 3.2 and 3.3
CONFUSION_IMAGES = 124  # section 4.3: images behind the confusion matrices

# Table 1 (exp1) and Table 2 (exp2), section 3.1: number of patches.
SPLITS: dict[str, dict[str, dict[str, int]]] = {
    "exp1": {
        "train": {"control": 212, "patient": 770},
        "validation": {"control": 31, "patient": 79},
        "test": {"control": 33, "patient": 89},
    },
    "exp2": {
        "train": {"control": 146, "patient": 461},
        "validation": {"control": 36, "patient": 116},
        "test": {"control": 46, "patient": 144},
    },
}
# The totals as printed in the last row and column of the same tables; one of them is wrong, see the book's errata.
PRINTED_TOTALS: dict[str, dict[str, int]] = {
    "exp1": {"control": 276, "patient": 938, "train": 982, "validation": 110, "test": 112, "total": 1214},
    "exp2": {"control": 228, "patient": 721, "train": 607, "validation": 152, "test": 190, "total": 949},
}

# Table 3 (section 4.2), then section 4.2, section 3.2 and the data augmentation part of the appendix.
HYPERPARAMETERS: dict[str, Any] = {
    "optimizer": "Adam",
    "loss": "categorical cross-entropy",
    "epochs": 100,
    "learning_rate": 0.001,
    "batch_size": 2,
    "patience": 30,
    "dropout": 0.5,
    "dense_units": (2048, 1024, 512, 256, 128, 2),
    "rotation_degrees": (0, 180),
}

# Table 4 (exp1) and Table 5 (exp2), section 4.3. The kind of average is not stated.
SCORES: dict[str, dict[str, dict[str, float]]] = {
    "exp1": {
        "VGG16": {"accuracy": 0.95, "precision": 0.96, "recall": 0.94, "f1": 0.95},
        "ResNet50": {"accuracy": 0.87, "precision": 0.85, "recall": 0.85, "f1": 0.85},
        "ResNet18+CW": {"accuracy": 0.67, "precision": 0.65, "recall": 0.65, "f1": 0.65},
    },
    "exp2": {
        "VGG16": {"accuracy": 0.95, "precision": 0.96, "recall": 0.96, "f1": 0.95},
    },
}
ABSTRACT = {"accuracy": 0.9550, "recall": 0.9450, "f1": 0.9525}  # VGG16, experiment not named
INTRODUCTION = {"accuracy": 0.9525}  # section 1, repeated in section 5

# In the order of a table's columns: the number to beat stands beside the number.
METRICS = ("accuracy", "majority_baseline", "balanced_accuracy", "precision", "recall", "f1")


def _of(table: Mapping[str, Any], experiment: str) -> Any:
    """The entry of one experiment; an unknown name says which ones there are."""
    if experiment not in table:
        raise ValueError(f"experiment={experiment!r} is not one of {', '.join(table)}.")
    return table[experiment]


def with_totals(split: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """Patch counts {set: {label: count}} as rows control, patient, total and columns per set, then total."""
    table = pd.DataFrame({part: dict(counts) for part, counts in split.items()})
    table.loc["total"] = table.sum()
    return table.assign(total=table.sum(axis=1))


def split_table(experiment: str) -> pd.DataFrame:
    """Table 1 or 2. Totals are sums of the table's own cells, not the printed ones."""
    return with_totals(_of(SPLITS, experiment))


def backbone(model: str) -> str:
    """The network whose weights a model of SCORES starts from: "ResNet18+CW" -> "ResNet18"."""
    return model.removesuffix("+CW")


def majority_baseline(experiment: str) -> float:
    """Accuracy of always answering "patient" on the published test set."""
    test = _of(SPLITS, experiment)["test"]
    return max(test.values()) / sum(test.values())


MAJORITY_BASELINE = {experiment: majority_baseline(experiment) for experiment in SPLITS}


def scores(experiment: str) -> pd.DataFrame:
    """Table 4 or 5: one row per model, columns METRICS; what the paper does not give is NaN."""
    table = pd.DataFrame(_of(SCORES, experiment)).T.reindex(columns=list(METRICS))
    return table.assign(majority_baseline=majority_baseline(experiment)).rename_axis("model")


def compare_scores(results: Mapping[str, Any], experiment: str, *, published: bool = True) -> pd.DataFrame:
    """Published scores above those of a results file, index (model, source), columns METRICS.

    `results` is the content of `results/<experiment>.json`. `source` is "paper" or "this run". A model
    that only one side has gets one row. published: whether the paper's scores are shown, which are of its own cohort.
    """
    ours = pd.DataFrame(dict(results["models"])).T.reindex(columns=list(METRICS)).astype(float)
    sides = ({"paper": scores(experiment)} if published else {}) | {"this run": ours}
    both = pd.concat(sides, names=["source", "model"]).swaplevel()
    models = dict.fromkeys([*_of(SCORES, experiment), *results["models"]])  # each once, in this order
    rows = [(model, source) for model in models for source in ("paper", "this run")]
    return both.loc[[row for row in rows if row in both.index]]
