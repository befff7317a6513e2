"""The paper's experiment with concept whitening: its sets, its arms and their scores, and the same on people not seen.

The concepts are the two classes. Rows are row numbers of the patch table; `labels` are class indices (N,). Whatever is
trained comes from `arms`, as units; here are the sets that it is trained on, and what a page makes of the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mitolib import metrics, paper, splits
from mitolib.cohort import Section
from mitolib.own_data import LeftOut
from mitolib.settings import LABELS
from mitolib.units import Units
from mitolib.whitening import concepts
from mitolib.whitening.arms import OPPOSITES, PLACES, Evaluated, by_class, place_layers, train_arms, train_pair
from mitolib.whitening.fitting import Budget
from mitolib.whitening.measures import REPORTED
from mitolib.whitening.sentences import numbered, too_few_people
from mitolib.whitening.training import ARMS
from mitolib.whitening.trunks import Trunk

__all__ = [
    "ConceptPair",
    "Evaluated",
    "axis_score_table",
    "best_counts",
    "best_patches",
    "by_class",
    "concept_pair",
    "concept_sets",
    "findings",
    "first_of_each_class",
    "geometries",
    "geometry_table",
    "held_out_scores",
    "held_out_table",
    "ladder",
    "ladder_means",
    "model_entries",
    "pair_positions",
    "paper_comparison",
    "place_layers",
    "ranks_by_layer",
    "reported",
    "seed_values",
    "set_sizes",
    "train_arms",
    "train_held_out",
    "train_pair",
    "used_units",
]

HELD_OUT = ("BatchNorm", "A", "D2")  # arms that are tried on people not seen
MOST_SHOWN = 50  # test patches of a contact sheet
LADDER = (  # what is shown of every arm
    "accuracy",
    "balanced_accuracy",
    "auc",
    "gram_cosine",
    "mean_abs_correlation",
    "amplification",
    "line_search_failures",
    "seconds",
)
TITLES = {
    "balanced_accuracy": "balanced",
    "mean_abs_correlation": "correlation",
    "line_search_failures": "failures",
    "gram_cosine": "gram cosine",
}


def concept_sets(labels: np.ndarray, rows: np.ndarray, *, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """The test patches `rows` of each class in two halves, drawn at random: set -> class -> rows.

    "concept train" turns the axes, "concept test" is looked at.
    """
    rng = np.random.default_rng(seed)
    halves: dict[str, dict[str, np.ndarray]] = {"concept train": {}, "concept test": {}}
    for label, class_rows in by_class(labels, rows).items():
        mixed = rng.permutation(class_rows)
        middle = (len(mixed) + 1) // 2
        halves["concept train"][label], halves["concept test"][label] = mixed[:middle], mixed[middle:]
    return halves


def set_sizes(table: pd.DataFrame, halves: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Patches in each of the five sets, by class."""
    sizes = {part: {label: len(rows) for label, rows in sets.items()} for part, sets in halves.items()}
    return pd.DataFrame(splits.counts(table) | sizes).T.rename_axis("set")


def paper_comparison(evaluated: Mapping[str, Mapping[int, Evaluated]], *, seed: int, published: bool) -> pd.DataFrame:
    """The public code's arm and batch norm below the paper's scores, if these are shown: index (model, source)."""
    models = {"ResNet18+CW": evaluated["A"][seed].scores, "ResNet18": evaluated["BatchNorm"][seed].scores}
    comparison = paper.compare_scores({"models": models}, "exp1", published=published).loc[list(models)]
    return comparison.rename(columns=lambda name: name.replace("_", " "))


def model_entries(evaluated: Mapping[str, Mapping[int, Evaluated]], *, seed: int) -> dict[str, dict[str, object]]:
    """The `models` entry of the results file: scores and report of every arm's first seed, and all seeds' scores."""
    entries = {name: {**by_seed[seed].scores, **by_seed[seed].report} for name, by_seed in evaluated.items()}
    with_seeds = {
        name: entry | {"seeds": {other: of_seed.scores for other, of_seed in evaluated[name].items()}}
        for name, entry in entries.items()
    }
    return {"ResNet18+CW": entries["A"], "ResNet18": entries["BatchNorm"]} | with_seeds


def reported(evaluated: Mapping[str, Mapping[int, Evaluated]], *, seed: int) -> dict[str, object]:
    """What the results file says of the layer of the public code's arm."""
    return {name: evaluated["A"][seed].report[name] for name in REPORTED}


# Which patches an axis holds for its own, and how.


def best_patches(axis_scores_nk: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """class -> the rows with the highest scores on its axis, best first, half of all at most.

    axis_scores_nk: (len(rows), 2).
    """
    n = min(MOST_SHOWN, len(rows) // 2)
    return {label: rows[np.argsort(-axis_scores_nk[:, axis], kind="stable")[:n]] for axis, label in enumerate(LABELS)}


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


def axis_score_table(axis_scores_nk: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """A row per patch and axis: label, axis, score. classes: (N,) names of the patches' classes."""
    scores = pd.DataFrame(axis_scores_nk, columns=LABELS).assign(label=np.asarray(classes))
    return scores.melt("label", var_name="axis", value_name="score")


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


# Why two opposite concepts cannot both have an axis, and what the arms get right.


def geometries(evaluated: Mapping[str, Mapping[int, Evaluated]], *, seed: int) -> dict[str, dict[str, float]]:
    """arm -> `measures.geometry` of the two classes among the training patches, for the arms of OPPOSITES."""
    return {arm: evaluated[arm][seed].geometry for arm in OPPOSITES}


def geometry_table(geometry: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """The same, with the words of a page."""
    words = {
        "cosine": "cosine of the classes",
        "balance": "p0 m0 + p1 m1, of their length",
        "reachable": "best for two axes",
        "reached": "least cosine with an axis",
    }
    return pd.DataFrame(geometry).T.rename(index=OPPOSITES, columns=words)


def ladder(evaluated: Mapping[str, Mapping[int, Evaluated]]) -> pd.DataFrame:
    """Scores and report of every arm and seed: index (arm, seed), columns LADDER."""
    columns = {
        (name, seed): {**of_seed.scores, **of_seed.report}
        for name, by_seed in evaluated.items()
        for seed, of_seed in by_seed.items()
    }
    return pd.DataFrame(columns).T[list(LADDER)].astype(float).rename_axis(["arm", "seed"])


def ladder_means(by_seed: pd.DataFrame) -> pd.DataFrame:
    """The mean over the seeds of a `ladder`, and what each arm is."""
    means = by_seed.groupby("arm", sort=False).mean().rename(columns=TITLES)
    means.insert(0, "what", [ARMS[name].what for name in means.index])
    return means


def seed_values(by_seed: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One column of a `ladder`, a row for each arm and seed: arm (with what it is), value."""
    arms = [f"{name}: {ARMS[name].what}" for name in by_seed.index.get_level_values("arm")]
    return pd.DataFrame({"arm": arms, "value": by_seed[measure].to_numpy()})


# The same on people whom the network has not seen.


def train_held_out(trunks: Sequence[Trunk], *, seed: int, budget: Budget) -> list[dict[str, dict[int, Evaluated]]]:
    """The arms of HELD_OUT for each fold: see `train_arms`. The concepts are the classes of its training patches."""
    return [
        train_arms(
            trunk,
            by_class(trunk.pictures.labels, trunk.rows["train"]),
            names=HELD_OUT,
            seeds=[seed],
            budget=budget,
        )
        for trunk in trunks
    ]


def held_out_scores(
    folds: Sequence[Mapping[str, Mapping[int, Evaluated]]], subjects: Sequence[str], *, seed: int
) -> dict[str, dict[str, object]]:
    """arm -> `metrics.scores` of the test patches of all folds together, and accuracy with its interval over subjects.

    folds: of `train_held_out`. subjects: (N,) of all patches. Empty without folds.
    """
    if not folds:
        return {}
    rng, scores = np.random.default_rng(seed), {}
    for arm in HELD_OUT:
        of_arm = [by_arm[arm][seed] for by_arm in folds]
        tested = np.concatenate([evaluated.trunk.rows["test"] for evaluated in of_arm])
        truth = of_arm[0].trunk.pictures.labels[tested]
        predicted = np.concatenate([evaluated.called_patient for evaluated in of_arm]).astype(int)
        over_subjects = metrics.interval(predicted == truth, np.asarray(subjects)[tested], rng=rng)
        scores[arm] = metrics.scores(truth, predicted) | {"over_subjects": over_subjects}
    return scores


def held_out_table(scores: Mapping[str, Mapping[str, object]], *, people: int) -> pd.DataFrame | LeftOut:
    """The same for a page, or why there is nothing. people: in the smaller class."""
    if not scores:
        return too_few_people(people)
    columns = ("accuracy", "balanced_accuracy", "majority_baseline")
    rows = {
        ARMS[arm].what: {name.replace("_", " "): round(of_arm[name], 3) for name in columns}
        | {"accuracy over subjects": str(of_arm["over_subjects"])}
        for arm, of_arm in scores.items()
    }
    return pd.DataFrame(rows).T


def findings(
    evaluated: Mapping[str, Mapping[int, Evaluated]],
    geometry: Mapping[str, Mapping[str, float]],
    held_out: Mapping[str, Mapping[str, object]],
    *,
    seed: int,
) -> str:
    """Markdown: what the chapter found, in sentences."""
    public, plain = evaluated["A"][seed].scores, evaluated["BatchNorm"][seed].scores
    sentences = [
        f"Concept whitening as by the public code is right on {public['accuracy']:.1%} of the test patches, the same "
        f"network with batch norm on {plain['accuracy']:.1%}, always the more common answer on "
        f"{plain['majority_baseline']:.1%}.",
        f"The two classes' mean vectors have cosine {geometry['E2']['cosine']:.2f}: of two axes each can reach "
        f"{geometry['E2']['reachable']:.2f} at best with its class.",
    ]
    if held_out:
        shares = {arm: str(scores["over_subjects"]) for arm, scores in held_out.items()}
        sentences.append(
            f"On people not seen before, batch norm is right on a share of {shares['BatchNorm']} of the patches, the "
            f"public code on {shares['A']}."
        )
    return numbered(sentences)


def used_units(
    trunks: Iterable[Trunk], by_arm: Iterable[Mapping[str, Mapping[int, Evaluated]]], more: Iterable[Units]
) -> list[dict[str, Any]]:
    """What the results file says of all units that a page is drawn from. by_arm: of `train_arms`, several times."""
    of_arms = [evaluated.unit for arms in by_arm for by_seed in arms.values() for evaluated in by_seed.values()]
    of_trunks = [entry for trunk in trunks for entry in trunk.units]
    return [*of_trunks, *of_arms, *(entry for fits in more for entry in fits.record)]
