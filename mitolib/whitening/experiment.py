"""The paper's experiment with concept whitening: its sets, its arms and their scores, and the same on people not seen.

The concepts are the two classes. Rows are row numbers of the patch table; `labels` are class indices (N,).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import metrics, paper, splits
from mitolib.cohort import Section
from mitolib.own_data import LeftOut
from mitolib.settings import LABELS
from mitolib.whitening import alignment, concepts, detection, measures
from mitolib.whitening.fitting import Budget, Inputs, batches, p_patient
from mitolib.whitening.measures import REPORTED
from mitolib.whitening.sentences import numbered, too_few_people
from mitolib.whitening.training import ARMS, Network, Trained, placed, train

PLACES = tuple(f"layer{i}.1.bn1" for i in range(1, 5))  # of a layer, early to late in the network
OPPOSITES = {"E2": "two axes", "E": "one signed axis", "A": "the public code"}  # arms whose geometry is shown
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


def by_class(labels: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """class -> those of the rows that are of it."""
    return {name: rows[labels[rows] == i] for i, name in enumerate(LABELS)}


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


@dataclass(frozen=True)
class Evaluated:
    """A trained arm on the test patches."""

    scores: Mapping[str, object]  # of `metrics.scores`
    report: Mapping[str, object]  # of `measures.report`


def train_arms(
    network: Network,
    labels: np.ndarray,
    rows: np.ndarray,
    concept_rows: Mapping[str, np.ndarray],
    *,
    budget: Budget,
    seeds: Iterable[int],
) -> dict[str, dict[int, Trained]]:
    """arm -> seed -> the last block of the network, trained on the patches `rows` with these concepts."""
    return {
        name: {
            seed: train(
                arm,
                network.tail,
                network.maps,
                labels,
                rows,
                concept_rows,
                budget=budget,
                rng=np.random.default_rng(seed),
                label=f"{name}, seed {seed}",
            )
            for seed in seeds
        }
        for name, arm in ARMS.items()
    }


def evaluate_arms(
    trained: Mapping[str, Mapping[int, Trained]], network: Network, labels: np.ndarray, rows: np.ndarray
) -> dict[str, dict[int, Evaluated]]:
    """arm -> seed -> scores on the test patches `rows`, and what its layer is like there."""

    def evaluated(arm: Trained) -> Evaluated:
        called_patient = p_patient(arm.model, network.maps, rows) > 0.5
        scores = metrics.scores(labels[rows], called_patient.astype(int))
        return Evaluated(scores, measures.report(arm, network.maps, labels, rows))

    return {name: {seed: evaluated(arm) for seed, arm in by_seed.items()} for name, by_seed in trained.items()}


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


def class_cosines(trained: Trained, network: Network, labels: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    """Cosine between the mean vectors of the two classes, over all units of the arm's norm layer."""
    units_nc = measures.units(trained, network.maps, rows)
    means = {label: units_nc[labels[rows] == i].mean(axis=0) for i, label in enumerate(LABELS)}
    return detection.cosines(pd.DataFrame(means).T)


def ranks_by_layer(
    network: Network,
    pictures: Inputs,
    labels: np.ndarray,
    rows: Mapping[str, np.ndarray],
    *,
    budget: Budget,
    rngs: Mapping[str, Generator],
) -> pd.DataFrame:
    """Where a test patch ranks among the test patches on each axis, in per cent, with the layer at each place.

    The layer is put into the trained network and turned on the training patches; nothing is trained. rows: "train" and
    "test". rngs: place -> what draws there; see PLACES. Columns layer, sample (number of the test patch), a class each.
    """
    ranks = {}
    for place, rng in rngs.items():
        model = placed(
            network.whole,
            place,
            pictures,
            rows["train"],
            by_class(labels, rows["train"]),
            budget=budget,
            n_rounds=len(rngs),
            rng=rng,
        )
        scores_nk = alignment.concept_scores(model, batches(pictures, rows["test"]))
        ranks[place] = pd.DataFrame(scores_nk, columns=LABELS).rank(pct=True) * 100
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


def pair_positions(
    pair: ConceptPair,
    network: Network,
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    budget: Budget,
    seed: int,
    rng: Generator,
) -> dict[str, np.ndarray]:
    """`measures.positions` of a layer that is trained with these two concepts; empty without them.

    seed: of the training. rng: draws the positions, 150 of each group.
    """
    if not pair.rows:
        return {}
    trained = train(
        ARMS["E2"],
        network.tail,
        network.maps,
        labels,
        rows,
        pair.rows,
        budget=budget,
        rng=np.random.default_rng(seed),
        label="two concepts",
    )
    return measures.positions(trained, network.maps, pair.rows, rows, n=150, rng=rng)


# Why two opposite concepts cannot both have an axis, and what the arms get right.


def geometries(
    trained: Mapping[str, Mapping[int, Trained]], network: Network, labels: np.ndarray, rows: np.ndarray, *, seed: int
) -> dict[str, dict[str, float]]:
    """arm -> `measures.geometry` of the two classes among the training patches `rows`, for the arms of OPPOSITES."""
    classes = by_class(labels, rows)
    return {arm: measures.geometry(trained[arm][seed], network.maps, classes, rows) for arm in OPPOSITES}


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


def held_out_scores(
    networks: Sequence[Network],
    folds: Sequence[Mapping[str, np.ndarray]],
    labels: np.ndarray,
    subjects: Sequence[str],
    *,
    budget: Budget,
    seed: int,
) -> dict[str, dict[str, object]]:
    """arm -> `metrics.scores` of the test patches of all folds together, and accuracy with its interval over subjects.

    networks: of each fold, trained on its people. The concepts are the classes of its training patches. Empty without
    folds.
    """
    if not folds:
        return {}
    called: dict[str, list[np.ndarray]] = {arm: [] for arm in HELD_OUT}
    for i, (network, fold) in enumerate(zip(networks, folds, strict=True), start=1):
        for arm in HELD_OUT:
            trained = train(
                ARMS[arm],
                network.tail,
                network.maps,
                labels,
                fold["train"],
                by_class(labels, fold["train"]),
                budget=budget,
                rng=np.random.default_rng(seed),
                label=f"fold {i}, {arm}",
            )
            called[arm].append(p_patient(trained.model, network.maps, fold["test"]) > 0.5)
    tested, rng = np.concatenate([fold["test"] for fold in folds]), np.random.default_rng(seed)
    scores = {}
    for arm in HELD_OUT:
        predicted = np.concatenate(called[arm]).astype(int)
        right = predicted == labels[tested]
        over_subjects = metrics.interval(right, np.asarray(subjects)[tested], rng=rng)
        scores[arm] = metrics.scores(labels[tested], predicted) | {"over_subjects": over_subjects}
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
