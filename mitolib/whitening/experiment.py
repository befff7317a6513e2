"""The chapter's results: what a page makes of the units of `arms`.

Rows are row numbers of the patch table; `labels` are class indices (N,). The concepts are the two classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mitolib import paper
from mitolib.cohort import Section
from mitolib.metrics import Estimate
from mitolib.own_data import LeftOut
from mitolib.settings import LABELS
from mitolib.units import Units
from mitolib.whitening import concepts, over_people
from mitolib.whitening.arms import (
    OPPOSITES,
    PLACES,
    PUBLISHED,
    Arms,
    Evaluated,
    by_class,
    place_layers,
    train_arms,
    train_on_vgg16,
    train_pair,
)
from mitolib.whitening.budget import WhiteningBudget
from mitolib.whitening.conclusions import claims
from mitolib.whitening.fitting import Budget, UntilFlat
from mitolib.whitening.measures import REPORTED
from mitolib.whitening.training import ARMS, ON_VGG16, WITHOUT
from mitolib.whitening.trunks import Trunk

__all__ = [
    "MAIN",
    "OTHERS",
    "PUBLISHED",
    "UNSEEN",
    "WITH_PAPER_HEAD",
    "ConceptPair",
    "Evaluated",
    "best_counts",
    "best_patches",
    "budgets",
    "by_class",
    "by_split",
    "by_trunks",
    "claims",
    "compared",
    "concept_pair",
    "differences",
    "first_of_each_class",
    "geometry_table",
    "importance_table",
    "ladder_table",
    "model_entries",
    "pair_positions",
    "paper_comparison",
    "place_layers",
    "ranks_by_layer",
    "results",
    "score_table",
    "shifts",
    "train_arms",
    "train_on_vgg16",
    "train_pair",
    "trunk_table",
    "used_units",
]

MAIN = (WITHOUT, "ZCA", "A", "D2", "E2")  # arms on VGG16 with every seed, also on people not seen
OTHERS = tuple(name for name in ON_VGG16 if name not in MAIN)  # with one seed, on the published split
WITH_PAPER_HEAD = (WITHOUT, "A", "E2")  # with one seed, on the published split
UNSEEN = "people not seen"  # name of the ten folds
MOST_SHOWN = 50  # test patches of a contact sheet
LEAST_TISSUE = 0.5  # share of a patch on a contact sheet
PAIRS = {"A_less_E2": ("A", "E2"), "E2_less_ZCA": ("E2", "ZCA")}  # of arms whose difference decides a claim
LADDER = {  # what is shown of every arm's layer, mean over seeds and folds -> its title
    "auc": "auc of its axis",
    "gram_cosine": "gram cosine",
    "mean_abs_correlation": "correlation",
    "amplification": "amplification",
    "line_search_failures": "failures",
    "seconds": "seconds",
}

Results = Mapping[str, Mapping[str, Any]]  # arm -> its entry in the results file


def compared(trained: Arms, *, seed: int, against: str = WITHOUT, arms: Mapping[str, Any] = ON_VGG16) -> Results:
    """arm -> `over_people.scores`; less_without, its balanced accuracy less that of `against` with the same seeds (None
    of that arm itself); importance, see `over_people.importance` (None without axes); and `layer`, see `LADDER`.

    seed: of the bootstrap, which draws the same people for every arm.
    """
    entries = {}
    for name, by_seed in trained.items():
        plain = {of: trained[against][of] for of in by_seed} if against in trained else None
        drawn = [np.random.default_rng([seed, i]) for i in range(3)]
        entries[name] = over_people.scores(by_seed, rng=drawn[0]) | {
            "less_without": over_people.difference(by_seed, plain, rng=drawn[1]) if plain and name != against else None,
            "importance": over_people.importance(by_seed, rng=drawn[2]) if arms[name].place else None,
            "layer": _layer(by_seed),
        }
    return entries


def results(published: Arms, unseen: Arms, paper_head: Arms, of_trunks: Sequence[Arms], *, seed: int) -> dict[str, Any]:
    """What the results file says of all arms; claims read it.

    vgg16: by split, and with the paper's head, see `compared`; resnet18: over all trunks; differences: of arms; models:
    see `model_entries`; geometry; and of the public code's layer on the first trunk what REPORTED names.
    published, unseen, paper_head: of `train_on_vgg16`. of_trunks: of `train_arms`, for each trunk. seed: of the
    bootstraps, and the first one of the arms.
    """
    together = by_trunks(of_trunks)
    on_resnet18 = compared(together, seed=seed, against="BatchNorm", arms=ARMS)
    on_vgg16 = {"published": published, "unseen": unseen, "paper_head": paper_head}
    shift = over_people.difference_of_shifts(together["G"], together["E2"], rng=np.random.default_rng(seed))
    first = next(iter(together["A"].values()))
    return {
        "vgg16": {split: compared(trained, seed=seed) for split, trained in on_vgg16.items()},
        "resnet18": on_resnet18,
        "differences": {
            "published": differences(published, seed=seed),
            "unseen": differences(unseen, seed=seed),
            "resnet18": {"G_less_E2_shift": shift},
        },
        "models": model_entries(on_resnet18),
        "geometry": {arm: published[arm][seed].geometry for arm in OPPOSITES},
    } | {name: first.reports[0][name] for name in REPORTED}


def budgets(
    profile: WhiteningBudget, on_features: Budget, whole: UntilFlat, tail: Budget, *, seeds: int, folds: int
) -> dict[str, dict[str, Any]]:
    """The `budget` entry of the results file: network -> how it was trained. seeds, folds: of the arms on VGG16."""
    return {
        "VGG16": vars(on_features) | {"views": profile.views, "seeds": seeds, "folds": folds},
        "ResNet18": vars(whole) | {"seeds": profile.trunks},
        "ResNet18, last block": vars(tail) | {"seeds": profile.trunks},
    }


def _layer(by_seed: Mapping[int, Evaluated]) -> dict[str, float | None]:
    """Means over seeds and folds of what `measures.report` found; None where nothing was."""
    reports = pd.DataFrame([report for evaluated in by_seed.values() for report in evaluated.reports])
    means = reports[list(LADDER)].astype(float).mean()
    return {name: None if np.isnan(value) else float(value) for name, value in means.items()}


def differences(trained: Arms, *, seed: int) -> dict[str, Estimate]:
    """Of balanced accuracy between the PAIRS of arms: a paired bootstrap over people."""
    return {
        name: over_people.difference(trained[of], trained[less], rng=np.random.default_rng(seed))
        for name, (of, less) in PAIRS.items()
        if trained
    }


def by_trunks(trained: Sequence[Arms]) -> Arms:
    """The arms of several trunks together: arm -> seed of the trunk -> what came of it. trained: of each trunk."""
    together: Arms = {}
    for arms in trained:
        for name, by_seed in arms.items():
            together.setdefault(name, {}).update(by_seed)
    return together


def importance_table(by_split: Mapping[str, Results]) -> pd.DataFrame:
    """Whether answers run through the axes, a row for each split and whitened arm: estimates as text."""
    columns = {
        "shift": ("log-odds move by, in their sd", "concept axes"),
        "shift_others": ("log-odds move by, in their sd", "as many others"),
        "rise": ("cross-entropy rises by", "concept axes"),
        "rise_others": ("cross-entropy rises by", "as many others"),
        "fall": ("balanced accuracy falls by", "concept axes"),
        "fall_others": ("balanced accuracy falls by", "as many others"),
        "alone": ("balanced accuracy", "all others"),
    }
    rows = {
        (split, _named(name)): {title: str(entry["importance"][key]) for key, title in columns.items()}
        for split, entries in by_split.items()
        for name, entry in entries.items()
        if entry["importance"]
    }
    return pd.DataFrame(rows).T.rename_axis(["tested on", "arm"])


def shifts(entries: Results) -> dict[str, dict[str, Estimate]]:
    """For `figures.estimates.intervals`: which axes were permuted -> arm -> how far the log-odds move."""
    titles = {"shift": "axes of the concepts", "shift_others": "as many other axes"}
    return {
        title: {_named(name): entry["importance"][key] for name, entry in entries.items() if entry["importance"]}
        for key, title in titles.items()
    }


def score_table(by_split: Mapping[str, Results], *, against: str = "no layer") -> pd.DataFrame:
    """Balanced accuracy, accuracy and AUC of each arm under each split, and its difference from one, as text.

    against: what that one is called.
    """
    rows = {
        (split, _named(name)): {
            "balanced accuracy": str(entry["balanced_accuracy"]),
            f"less {against}": str(entry["less_without"] or "-"),
            "sd over seeds": "-" if entry["sd_over_seeds"] is None else f"{entry['sd_over_seeds']:.3f}",
            "accuracy": str(entry["accuracy"]),
            "majority-class baseline": f"{entry['majority_baseline']:.2f}",
            "AUC": str(entry["auc"]),
        }
        for split, entries in by_split.items()
        for name, entry in entries.items()
    }
    return pd.DataFrame(rows).T.rename_axis(["tested on", "arm"])


def by_split(by_splits: Mapping[str, Results]) -> dict[str, dict[str, Estimate]]:
    """For `figures.estimates.intervals`: split -> arm -> balanced accuracy."""
    return {
        split: {_named(name): entry["balanced_accuracy"] for name, entry in entries.items()}
        for split, entries in by_splits.items()
    }


def ladder_table(entries: Results, arms: Mapping[str, Any] = ON_VGG16) -> pd.DataFrame:
    """What each arm's layer is like, a row for each arm."""
    rows = {name: {"what": arms[name].what} | entry["layer"] for name, entry in entries.items()}
    return pd.DataFrame(rows).T.astype({name: float for name in LADDER}).rename(columns=LADDER).rename_axis("arm")


def _named(name: str) -> str:
    return f"{name}: {(ARMS | ON_VGG16)[name].what}"


# The paper's own network.


def trunk_table(trunks: Sequence[Trunk]) -> pd.DataFrame:
    """How long each whole network was trained, and to which validation loss, a row for each and stage."""
    rows = {}
    for trunk in trunks:
        for half, stage in trunk.history.groupby("half_size", sort=False):
            lowest = stage.loc[stage["validation_loss"].idxmin()]
            rows[trunk.name["trunk_seed"], "half the side" if half else "whole"] = {
                "steps": int(stage["step"].max()),
                "lowest validation loss": lowest["validation_loss"],
                "at step": int(lowest["step"]),
                "last training loss": stage["loss"].iloc[-1],
            }
    return pd.DataFrame(rows, dtype=object).T.rename_axis(["seed", "pictures"])


def paper_comparison(entries: Results, *, published: bool) -> pd.DataFrame:
    """The public code's arm and batch norm below the paper's scores, if these are shown: index (model, source)."""
    models = {name: entry for name, entry in model_entries(entries).items() if name.startswith("ResNet18")}
    comparison = paper.compare_scores({"models": models}, "exp1", published=published).loc[list(models)]
    return comparison.rename(columns=lambda name: name.replace("_", " "))


def model_entries(entries: Results) -> dict[str, dict[str, Any]]:
    """The `models` entry of the results file: scores of the first trunk's arms, and of all seeds.

    entries: of `compared`.
    """
    models = {name: next(iter(entry["seeds"].values())) | {"seeds": entry["seeds"]} for name, entry in entries.items()}
    return {"ResNet18+CW": models["A"], "ResNet18": models["BatchNorm"]} | models


# Which patches an axis holds for its own, and how.


def best_patches(evaluated: Evaluated) -> dict[str, np.ndarray]:
    """class -> the tested patches with the highest scores on its axis, best first, half of all at most.

    Of those that are tissue by half at least, where the patch table says so: glass shows no concept.
    """
    rows, scores_kn = evaluated.rows, evaluated.of_patches("axis_scores")
    if "tissue" in (table := evaluated.pictures.table):
        enough = table["tissue"].to_numpy()[rows] >= LEAST_TISSUE
        rows, scores_kn = rows[enough], scores_kn[:, enough]
    n = min(MOST_SHOWN, (len(rows) + 1) // 2)
    return {label: rows[np.argsort(-scores_kn[axis], kind="stable")[:n]] for axis, label in enumerate(LABELS)}


def best_counts(table: pd.DataFrame, best: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """How many of the patches with the highest scores on an axis are of its class, and of how many people they are."""
    counts = {
        label: {
            "highest scores": len(rows),
            "of its class": int((table["label"].iloc[rows] == label).sum()),
            "subjects": table["subject"].iloc[rows].nunique(),
        }
        for label, rows in best.items()
    }
    return pd.DataFrame(counts).T.rename_axis("axis of")


def ranks_by_layer(placed: Units) -> pd.DataFrame:
    """Where a test patch ranks among the test patches on each axis, in per cent, with the layer at each of PLACES.

    placed: of `place_layers`. Columns layer, sample (number of the test patch), a class each.
    """
    ranks = {
        place: pd.DataFrame(of_place["scores"], columns=LABELS).rank(pct=True) * 100
        for place, of_place in zip(PLACES, placed, strict=True)
    }
    return pd.concat(ranks, names=["layer", "sample"]).reset_index()


def first_of_each_class(ranks: pd.DataFrame, classes: Sequence[str], n: int = 3) -> pd.DataFrame:
    """The first n test patches of each class, in the order in which they pass the layers, with a column label."""
    classes = np.asarray(classes)
    samples = np.concatenate([np.flatnonzero(classes == label)[:n] for label in LABELS])
    ways = ranks[ranks["sample"].isin(samples)]
    return ways.assign(label=classes[ways["sample"]]).sort_values(["label", "sample", "layer"])


# What the layer does to features.


@dataclass(frozen=True)
class ConceptPair:
    """Two concepts that leave training patches which show neither; on a page, their names, or why there are none."""

    rows: Mapping[str, np.ndarray]  # concept -> training patches that show it; empty if there are no two
    there: tuple[str, ...]  # all concepts of the training patches

    def _repr_markdown_(self) -> str:
        if not self.rows:
            needed = "it takes two concepts, and patches that show neither; there are here: "
            return str(LeftOut(f"{needed}{', '.join(self.there) or 'none'}."))
        return "; ".join(f"concept {i}: *{name}*" for i, name in enumerate(self.rows, start=1))


def concept_pair(root: str | Path, table: pd.DataFrame, sections: Sequence[Section], rows: np.ndarray) -> ConceptPair:
    """The first two concepts of `concepts.measure` that the training patches `rows` show apart."""
    annotation = concepts.annotate(concepts.measure(root, table, sections), rows)
    there = concepts.rows_for_axes(annotation, rows)
    return ConceptPair(concepts.first_two(there, rows), tuple(there))


def pair_positions(trained: Units) -> dict[str, np.ndarray]:
    """`measures.positions` of the layer that was trained with two concepts; empty without it. trained: `train_pair`."""
    return trained[0] if trained else {}


# Why two opposite concepts cannot both have an axis.


def geometry_table(geometry: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """The same, with the words of a page."""
    words = {
        "cosine": "cosine of the classes",
        "balance": "p0 m0 + p1 m1, of their length",
        "reachable": "best for two axes",
        "reached": "least cosine with an axis",
    }
    return pd.DataFrame(geometry).T.rename(index=OPPOSITES, columns=words)


def used_units(trunks: Iterable[Trunk], trained: Iterable[Arms], more: Iterable[Units]) -> list[dict[str, Any]]:
    """What the results file says of all units that a page is drawn from."""
    of_arms = [evaluated.unit for arms in trained for by_seed in arms.values() for evaluated in by_seed.values()]
    of_trunks = [entry for trunk in trunks for entry in trunk.units]
    return [*of_trunks, *of_arms, *(entry for fits in more for entry in fits.record)]
