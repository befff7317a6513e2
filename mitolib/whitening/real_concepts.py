"""Axes of real concepts, tried on people whom the network has not seen: who finds a concept, and at what cost.

For each fold of people and each kind of picture (one protein, or a composite of three) a network, and of it two arms:
with batch norm, and whitened with an axis for each concept that its training patches show. Rows are row numbers of the
patch table; `labels` are class indices (N,).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import metrics
from mitolib.metrics import Estimate
from mitolib.own_data import LeftOut
from mitolib.paper import INPUT_PX
from mitolib.whitening import alignment, concepts, detection, measures
from mitolib.whitening.concepts import measure
from mitolib.whitening.detection import Detected
from mitolib.whitening.fitting import Budget, batches, p_patient
from mitolib.whitening.sentences import numbered, too_few_people
from mitolib.whitening.training import ARMS, Network, Trained, extend, train

__all__ = [
    "FoldConcepts",
    "Trial",
    "annotate_folds",
    "auc_table",
    "concept_contrasts",
    "concept_counts",
    "concept_entries",
    "concept_ranks",
    "cost_entries",
    "cost_table",
    "costs",
    "detector_aucs",
    "findings",
    "has_defined_axis",
    "importances",
    "mean_aucs",
    "measure",
    "own_axis_aucs",
    "own_table",
    "read_own",
    "train_axes",
    "why_left_out",
]

PLAIN, WHITENED = "BatchNorm", "D2"  # arms
HIGH_AUC = 0.7  # counted in the findings
REPEATS = 10  # deals of an axis among the test patches, for its importance


@dataclass(frozen=True)
class FoldConcepts:
    """What the patches of one fold show."""

    number: int  # of the fold, from 0
    rows: Mapping[str, np.ndarray]  # set -> rows
    annotation: pd.DataFrame  # of `concepts.annotate`, by the fold's training patches
    concepts: Mapping[str, np.ndarray]  # concept -> training patches for its axis; empty if there is none

    def tested(self) -> dict[str, np.ndarray]:
        """concept -> positions among the test patches of those that show it."""
        of_tested = self.annotation.iloc[self.rows["test"]]
        return {name: np.flatnonzero(of_tested[name] == 1) for name in self.concepts}


def annotate_folds(measured: pd.DataFrame, folds: Sequence[Mapping[str, np.ndarray]]) -> list[FoldConcepts]:
    """measured: of `concepts.measure`. folds: set -> rows, of each."""
    annotated = []
    for number, rows in enumerate(folds):
        annotation = concepts.annotate(measured, rows["train"])
        annotated.append(FoldConcepts(number, rows, annotation, concepts.rows_for_axes(annotation, rows["train"])))
    return annotated


def why_left_out(folds: Sequence[FoldConcepts], *, people: int) -> LeftOut | None:
    """Why no axis can be tried, or None if it can. people: in the smaller class."""
    if not folds:
        return too_few_people(people)
    if not any(fold.concepts for fold in folds):
        return LeftOut("no concept is shown by four training patches and lacked by another.")
    return None


def concept_counts(folds: Sequence[FoldConcepts]) -> pd.DataFrame:
    """Patches that show each concept and that lack it, in the first fold that has concepts."""
    for fold in (fold for fold in folds if fold.concepts):
        names = fold.annotation.columns
        columns = {
            "with it, of all patches": (fold.annotation == 1).sum(),
            "without it": (fold.annotation == 0).sum(),
            "training patches for its axis": [len(fold.concepts.get(name, ())) for name in names],
        }
        return pd.DataFrame(columns, index=names)
    return pd.DataFrame()


@dataclass(frozen=True)
class Trial:
    """The network of one fold and one kind of picture, and the two arms that were trained on it."""

    fold: FoldConcepts
    picture: str
    network: Network
    arms: Mapping[str, Mapping[int, Trained]]  # arm -> seed -> its last block


def train_axes(
    folds: Sequence[FoldConcepts],
    networks: Sequence[Mapping[str, Network]],
    labels: np.ndarray,
    *,
    budget: Budget,
    seeds: Iterable[int],
) -> list[Trial]:
    """Both arms on the network of every fold that has concepts. networks: picture -> network, of each fold.

    Each axis is turned towards the training patches that show its concept and away from those that lack it.
    """
    trials = []
    for fold, by_picture in ((fold, networks[fold.number]) for fold in folds if fold.concepts):
        rows = fold.rows["train"]
        lacking = {name: rows[fold.annotation[name].iloc[rows] == 0] for name in fold.concepts}
        for picture, network in by_picture.items():
            arms = {
                arm: {
                    seed: train(
                        ARMS[arm],
                        network.tail,
                        network.maps,
                        labels,
                        rows,
                        fold.concepts,
                        without=lacking,
                        budget=budget,
                        rng=np.random.default_rng(seed),
                        label=f"fold {fold.number + 1}, {picture}, {arm}, seed {seed}",
                    )
                    for seed in seeds
                }
                for arm in (PLAIN, WHITENED)
            }
            trials.append(Trial(fold, picture, network, arms))
    return trials


# Who finds a concept in people not seen.


def concept_ranks(trials: Sequence[Trial], subjects: Sequence[str]) -> pd.DataFrame:
    """How the test patches rank by the axis of each concept and by its rivals on the batch-norm network.

    subjects: (N,) of all patches. Columns input (the kind of picture), concept, fold, seed, detector, row, shown, rank,
    subject; see `detection.ranks_of_tested`. Empty without trials.
    """
    every, ranks = np.arange(len(subjects)), {}
    for trial in trials:
        train_rows, validation, test = (trial.fold.rows[part] for part in ("train", "validation", "test"))
        for seed, whitened in trial.arms[WHITENED].items():
            units_nc = measures.units(trial.arms[PLAIN][seed], trial.network.maps, every)
            axes_nk = alignment.concept_scores(whitened.model, batches(trial.network.maps, every))
            for axis, concept in enumerate(trial.fold.concepts):
                shown = trial.fold.annotation[concept].to_numpy()
                rivals = detection.detectors(units_nc, shown, train_rows, validation)
                scores = {"axis": axes_nk[:, axis]} | rivals
                key = trial.picture, concept, trial.fold.number, seed
                ranks[key] = detection.ranks_of_tested(scores, shown, train_rows, test)
    if not ranks:
        return pd.DataFrame()
    table = pd.concat(ranks, names=["input", "concept", "fold", "seed"]).reset_index()
    return table.assign(subject=np.asarray(subjects)[table["row"]])


def detector_aucs(ranks: pd.DataFrame, *, rng: Generator) -> dict[str, dict[str, dict[str, Detected]]]:
    """picture -> concept -> detector -> AUC over the test patches of all folds. ranks: of `concept_ranks`."""
    if ranks.empty:
        return {}
    pictures = ranks["input"].unique()
    return {picture: detection.aucs_by_concept(ranks[ranks["input"] == picture], rng=rng) for picture in pictures}


def auc_table(aucs: Mapping[str, Mapping[str, Mapping[str, Detected]]]) -> pd.DataFrame:
    """The same as text, a row for each picture and concept."""
    rows = {
        (picture, concept): {detector: str(area) for detector, area in by_detector.items()}
        for picture, by_concept in aucs.items()
        for concept, by_detector in by_concept.items()
    }
    return pd.DataFrame(rows).T


def has_defined_axis(aucs: Mapping[str, Mapping[str, Mapping[str, Detected]]]) -> bool:
    """Whether the tested patches of any concept are of both kinds, so that an AUC is defined."""
    return any(
        by_detector["axis"].value is not None for by_concept in aucs.values() for by_detector in by_concept.values()
    )


def _values(by_concept: Mapping[str, Mapping[str, Detected]]) -> pd.DataFrame:
    """AUC, a row for each concept and a column for each detector; NaN where undefined."""
    values = {concept: {name: area.value for name, area in found.items()} for concept, found in by_concept.items()}
    return pd.DataFrame(values).T.astype(float)


def mean_aucs(aucs: Mapping[str, Mapping[str, Mapping[str, Detected]]]) -> dict[str, dict[str, float]]:
    """picture -> detector (with underscores) -> mean AUC over the concepts."""
    means = {picture: _values(by_concept).mean() for picture, by_concept in aucs.items()}
    return {picture: mean.rename(lambda name: name.replace(" ", "_")).to_dict() for picture, mean in means.items()}


def findings(aucs: Mapping[str, Mapping[str, Mapping[str, Detected]]]) -> str:
    """Markdown: what the axes find, a sentence for each kind of picture."""
    sentences = []
    for picture, by_concept in aucs.items():
        values = _values(by_concept)
        high, mean = (values > HIGH_AUC).sum(), values.mean()
        if values["axis"].isna().all():
            continue
        sentences.append(
            f"From {picture}, the axis of a real concept finds it in people not seen before with a mean AUC of "
            f"{mean['axis']:.2f}, above {HIGH_AUC} for {high['axis']} of {len(values)} concepts; the best unit of "
            f"batch norm {mean['best unit']:.2f} ({high['best unit']}), a linear probe {mean['probe']:.2f} "
            f"({high['probe']})."
        )
    return numbered(sentences)


# Whether the network uses its axes, and what it pays for them.


def importances(trials: Sequence[Trial], labels: np.ndarray, *, seed: int, rng: Generator) -> pd.DataFrame:
    """`measures.importance` of each axis on the test patches, mean over folds: index (concept, input), value and sd."""
    rows = []
    for trial in trials:
        for axis, concept in enumerate(trial.fold.concepts):
            importance = measures.importance(
                trial.arms[WHITENED][seed],
                trial.network.maps,
                labels,
                trial.fold.rows["test"],
                axis,
                repeats=REPEATS,
                rng=rng,
            )
            rows.append({"input": trial.picture, "concept": concept} | importance)
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).groupby(["concept", "input"], sort=False).mean()


@dataclass(frozen=True)
class Cost:
    """What an arm is right on in people not seen, and what its units share."""

    accuracy: Estimate  # over subjects
    sd_over_seeds: float | None  # of the accuracy; None for one seed
    mean_abs_correlation: float  # between channels behind the layer
    shared_direction: float  # `detection.separability` of the concepts


def costs(
    trials: Sequence[Trial], labels: np.ndarray, subjects: Sequence[str], *, rng: Generator
) -> dict[str, dict[str, Cost]]:
    """picture -> arm, in words -> its cost over the test patches of all folds and seeds."""
    rows = []
    for trial in trials:
        test = trial.fold.rows["test"]
        for arm, by_seed in trial.arms.items():
            for seed, trained in by_seed.items():
                right = (p_patient(trained.model, trial.network.maps, test) > 0.5) == labels[test]
                report = measures.report(trained, trial.network.maps, labels, test)
                units_nc = measures.units(trained, trial.network.maps, test)
                shared = detection.separability(units_nc, trial.fold.tested())
                correlation = report["mean_abs_correlation"]
                rows.append((trial.picture, arm, seed, right, test, correlation, shared))
    table = pd.DataFrame(rows, columns=["input", "arm", "seed", "right", "row", "correlation", "shared"])
    by_picture: dict[str, dict[str, Cost]] = {}
    for (picture, arm), group in table.groupby(["input", "arm"], sort=False):
        right = np.concatenate(group["right"].to_numpy()) * 1.0
        tested = np.asarray(subjects)[np.concatenate(group["row"].to_numpy())]
        by_seed = [np.concatenate(of_seed.to_numpy()).mean() for _, of_seed in group.groupby("seed")["right"]]
        by_picture.setdefault(picture, {})[ARMS[arm].what] = Cost(
            accuracy=metrics.interval(right, tested, rng=rng),
            sd_over_seeds=float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None,
            mean_abs_correlation=float(group["correlation"].mean()),
            shared_direction=float(group["shared"].mean()),
        )
    return by_picture


def cost_table(cost: Mapping[str, Mapping[str, Cost]]) -> pd.DataFrame:
    """The same for a page, a row for each picture and arm."""
    rows = {(picture, arm): vars(of_arm) for picture, by_arm in cost.items() for arm, of_arm in by_arm.items()}
    table = pd.DataFrame(rows, dtype=object).T
    if table.empty:
        return table
    table["accuracy"] = table["accuracy"].map(str)
    titles = {"sd_over_seeds": "sd over seeds", "mean_abs_correlation": "correlation"}
    return table.rename(columns=titles | {"shared_direction": "shared direction"})


def cost_entries(cost: Mapping[str, Mapping[str, Cost]]) -> dict[str, Cost]:
    """The `cost` entry of the results file: "picture, arm" -> cost."""
    return {f"{picture}, {arm}": of_arm for picture, by_arm in cost.items() for arm, of_arm in by_arm.items()}


def concept_entries(
    aucs: Mapping[str, Mapping[str, Mapping[str, Detected]]], importance: pd.DataFrame
) -> dict[str, dict[str, dict[str, object]]]:
    """The `concepts` entry of the results file: picture -> concept -> AUC of each detector, and importance."""
    return {
        picture: {
            concept: {f"auc_{name.replace(' ', '_')}": area for name, area in by_detector.items()}
            | {"importance": importance.loc[(concept, picture)].to_dict()}
            for concept, by_detector in by_concept.items()
        }
        for picture, by_concept in aucs.items()
    }


def concept_contrasts(trials: Sequence[Trial], *, seed: int) -> dict[str, pd.DataFrame]:
    """Arm, in words -> `detection.contrast` of the concepts in the test patches of the first fold that has some.

    On the last kind of picture, the composite where it is there. Empty for fewer than two concepts.
    """
    first = [trial for trial in trials if trial.fold is trials[0].fold][-1:]
    return {
        ARMS[arm].what: detection.contrast(
            measures.units(trial.arms[arm][seed], trial.network.maps, trial.fold.rows["test"]), trial.fold.tested()
        )
        for trial in first
        if len(trial.fold.concepts) > 1
        for arm in (PLAIN, WHITENED)
    }


# Concepts that a reader brings.


def read_own(folder: str | Path | None) -> dict[str, np.ndarray]:
    """concept -> pictures (N, 224, 224, 1) uint8, of `concepts.read_folders`; nothing for no folder."""
    return concepts.read_folders(folder, INPUT_PX) if folder else {}


def own_axis_aucs(
    network: Network,
    pictures: Mapping[str, np.ndarray],
    labels: np.ndarray,
    rows: Mapping[str, np.ndarray],
    *,
    budget: Budget,
    seed: int,
) -> dict[str, float]:
    """concept -> AUC of its axis: the third of its pictures that was kept back, against the patches rows["test"].

    An axis of the network, which was trained on rows["train"], is turned towards each concept and away from these.
    """
    extended, own_rows = extend(network, pictures)
    n_turning = {name: (2 * len(of_concept) + 2) // 3 for name, of_concept in own_rows.items()}
    turning = {name: of_concept[: n_turning[name]] for name, of_concept in own_rows.items()}
    kept_back = {name: of_concept[n_turning[name] :] for name, of_concept in own_rows.items()}
    trained = train(
        ARMS[WHITENED],
        extended.tail,
        extended.maps,
        labels,
        rows["train"],
        turning,
        without=dict.fromkeys(pictures, rows["train"]),
        budget=budget,
        rng=np.random.default_rng(seed),
        label="your own concepts",
    )
    return measures.axis_aucs(trained, extended.maps, kept_back, rows["test"])


def own_table(pictures: Mapping[str, np.ndarray], aucs: Mapping[str, float]) -> pd.DataFrame | LeftOut:
    """Number of pictures of each concept and AUC of its axis, or that no folder was given."""
    if not pictures:
        return LeftOut("no folder was given.")
    counts = {name: len(of_concept) for name, of_concept in pictures.items()}
    return pd.DataFrame({"pictures": counts, "AUC against the test patches": aucs})
