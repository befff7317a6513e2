"""Axes of real concepts, tried on people whom the network has not seen: who finds a concept, and at what cost.

For each fold of people and each kind of picture (one protein, or a composite of three) two arms on VGG16: without the
layer, and whitened with an axis for each concept that the training patches show. They come from `trials`, as
units; here is what a page makes of them. Rows are row numbers of the patch table; `labels` are class indices (N,).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import metrics
from mitolib.claims import Claim, above, look_up
from mitolib.metrics import Estimate
from mitolib.own_data import LeftOut
from mitolib.paper import INPUT_PX
from mitolib.units import Units
from mitolib.whitening import concepts, detection
from mitolib.whitening.concepts import measure
from mitolib.whitening.detection import Detected
from mitolib.whitening.over_people import balanced
from mitolib.whitening.sentences import too_few_people
from mitolib.whitening.training import ON_VGG16
from mitolib.whitening.trials import PAIR, PLAIN, FoldConcepts, Trial, train_axes, train_own_axes

__all__ = [
    "FoldConcepts",
    "Trial",
    "annotate_folds",
    "auc_table",
    "axis_against_best_unit",
    "claims",
    "concept_contrasts",
    "concept_counts",
    "concept_ranks",
    "cost_table",
    "costs",
    "detector_aucs",
    "entries",
    "gap_table",
    "has_defined_axis",
    "importances",
    "measure",
    "own_axis_aucs",
    "own_table",
    "read_own",
    "train_axes",
    "train_own_axes",
    "used_units",
    "why_left_out",
]


def annotate_folds(measured: pd.DataFrame, folds: Mapping[str, Mapping[str, np.ndarray]]) -> list[FoldConcepts]:
    """measured: of `concepts.measure`. folds: of `training.people_folds`."""
    annotated = []
    for name, rows in folds.items():
        annotation = concepts.annotate(measured, rows["train"])
        annotated.append(FoldConcepts(name, rows, annotation, concepts.rows_for_axes(annotation, rows["train"])))
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


# Who finds a concept in people not seen.


def concept_ranks(trials: Sequence[Trial], subjects: Sequence[str]) -> pd.DataFrame:
    """How the test patches rank by the axis of each concept and by its rivals on VGG16 without the layer.

    subjects: (N,) of all patches. Columns input (the kind of picture), concept, fold, seed, detector, row, shown, rank,
    subject; see `detection.ranks_of_tested`. Empty without trials.
    """
    ranks = {}
    for trial in trials:
        for seed in trial.seeds:
            kept = trial.kept(seed)
            for axis, concept in enumerate(trial.fold.concepts):
                by_detector = dict(zip(kept["detectors"], kept["ranks"][axis], strict=True))
                shown = trial.fold.annotation[concept].to_numpy()
                key = trial.picture, concept, trial.fold.name, seed
                ranks[key] = detection.ranks_of_tested(by_detector, shown, trial.fold.rows["test"])
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


def axis_against_best_unit(ranks: pd.DataFrame, *, seed: int) -> dict[str, list[dict[str, Any]]]:
    """picture -> for each concept its name and `gap`: AUC of its axis less that of the best single unit.

    A paired bootstrap over people. ranks: of `concept_ranks`; those of several seeds are averaged. Concepts without a
    defined AUC are left out.
    """
    gaps: dict[str, list[dict[str, Any]]] = {}
    for (picture, concept), group in ranks.groupby(["input", "concept"], sort=False) if len(ranks) else ():
        patches = group.pivot_table(index=["row", "subject", "shown"], columns="detector", values="rank").reset_index()
        gap = detection.auc_difference(
            patches["axis"].to_numpy(),
            patches["best unit"].to_numpy(),
            patches["shown"].to_numpy(),
            patches["subject"],
            seed=seed,
        )
        if gap.value is not None:
            gaps.setdefault(picture, []).append({"concept": concept, "gap": gap})
    return gaps


def gap_table(gaps: Mapping[str, Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """The same as text, a row for each concept and a column for each kind of picture."""
    columns = {picture: {entry["concept"]: str(entry["gap"]) for entry in found} for picture, found in gaps.items()}
    return pd.DataFrame(columns).fillna("-").rename_axis("axis less best unit, AUC")


def claims(record: Mapping[str, Any]) -> list[Claim]:
    """What the chapter concludes of each kind of picture, as claims over its results file."""
    return [claim for picture in record.get("axis_less_best_unit", {}) for claim in _claims_of_picture(record, picture)]


def _claims_of_picture(record: Mapping[str, Any], picture: str) -> Iterable[Claim]:
    """Counts are over concepts, each by its own 95 % interval over people, without a correction for their number."""
    gaps = record["axis_less_best_unit"][picture]
    places = {f"gap{i}": f"real_concepts axis_less_best_unit.{picture}.{i}.gap" for i in range(len(gaps))}
    verdicts = [above(_estimate(entry["gap"]), 0) for entry in gaps]
    better, worse = verdicts.count(True), verdicts.count(False)
    counted = (
        f"from {picture}, the interval of the difference in AUC on people not seen lies above zero for {better} of "
        f"{len(gaps)} concepts, below for {worse} (each alone, uncorrected)"
    )

    def in_one_direction(**found: Estimate) -> bool | None:
        said = [above(gap, 0) for gap in found.values()]
        return True if True in said and False not in said else False if False in said and True not in said else None

    yield Claim(
        name=f"axis-finds-more-than-best-unit-{picture}",
        reads=places,
        predicate=in_one_direction,
        holds=f"Some axes find their concept better than the best single unit of VGG16 does, none worse: {counted}.",
        fails=f"Some axes find their concept worse than the best single unit of VGG16 does, none better: {counted}.",
        open=f"Whether axes find their concepts better than the best single unit of VGG16 does is open: {counted}.",
    )
    costs = [name for name, cost in record["cost"].items() if name.startswith(f"{picture}, ") and cost_gap(cost)]
    for name in costs:
        yield Claim(
            name=f"axes-cost-{picture}",
            reads={"gap": f"real_concepts cost.{name}.less_without"},
            predicate=lambda gap: above(Estimate(-gap.value, gap.ci and (-gap.ci[1], -gap.ci[0])), 0),
            holds=f"From {picture}, the axes cost balanced accuracy on people not seen: {{gap}}.",
            fails=f"From {picture}, the axes cost no balanced accuracy on people not seen: {{gap}}.",
            open=f"From {picture}, whether the axes cost balanced accuracy on people not seen is open: {{gap}}.",
        )


def cost_gap(cost: Cost | Mapping[str, Any]) -> Any:
    """Its `less_without`, of a cost or of what a results file has of it."""
    return look_up(cost, "less_without", "cost")


def _estimate(entry: Estimate | Mapping[str, Any]) -> Estimate:
    return Estimate(**entry) if isinstance(entry, Mapping) else entry


# Whether the network uses its axes, and what it pays for them.


def importances(trials: Sequence[Trial], *, seed: int) -> pd.DataFrame:
    """`measures.importance` of each axis on the test patches, mean over folds: index (concept, input), value and sd."""
    rows = [
        {"input": trial.picture, "concept": concept} | found
        for trial in trials
        for concept, found in trial.kept(seed)["importance"].items()
    ]
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows).astype({"value": float, "sd": float})
    return table.groupby(["concept", "input"], sort=False).mean()


@dataclass(frozen=True)
class Cost:
    """What an arm is right on in people not seen, and what its units share."""

    accuracy: Estimate  # over subjects
    balanced_accuracy: Estimate  # over subjects
    less_without: Estimate | None  # balanced accuracy less that of the arm without the layer, paired; None of that arm
    majority_baseline: float
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
        for place, arm in enumerate(PAIR):
            for seed in trial.seeds:
                kept = trial.kept(seed)
                right = (kept["p_patient"][place] > 0.5) == labels[test]
                correlation = kept["report"][arm]["mean_abs_correlation"]
                rows.append((trial.picture, arm, seed, right, test, correlation, kept["shared_direction"][arm]))
    table = pd.DataFrame(rows, columns=["input", "arm", "seed", "right", "row", "correlation", "shared"])
    table = table.astype({"correlation": float, "shared": float})  # None, of what is not defined, as NaN
    by_picture: dict[str, dict[str, Cost]] = {}
    plain = np.array([])
    for (picture, arm), group in table.groupby(["input", "arm"], sort=False):
        right = np.concatenate(group["right"].to_numpy()) * 1.0
        plain = right if arm == PLAIN else plain  # which comes first, with the same patches in the same order
        tested_rows = np.concatenate(group["row"].to_numpy())
        tested, truth = np.asarray(subjects)[tested_rows], labels[tested_rows]
        by_seed = [np.concatenate(of_seed.to_numpy()).mean() for _, of_seed in group.groupby("seed")["right"]]
        by_picture.setdefault(picture, {})[ON_VGG16[arm].what] = Cost(
            accuracy=metrics.interval(right, tested, rng=rng),
            balanced_accuracy=balanced(right, truth, tested, rng=rng),
            less_without=None if arm == PLAIN else balanced(right - plain, truth, tested, rng=rng),
            majority_baseline=metrics.majority_baseline(truth),
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
    for name in ("accuracy", "balanced_accuracy", "less_without"):
        table[name] = table[name].map(lambda estimate: str(estimate or "-"))
    titles = {
        "balanced_accuracy": "balanced accuracy",
        "less_without": "less no layer",
        "majority_baseline": "majority-class baseline",
        "sd_over_seeds": "sd over seeds",
        "mean_abs_correlation": "correlation",
    }
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


def entries(
    aucs: Mapping[str, Mapping[str, Mapping[str, Detected]]],
    importance: pd.DataFrame,
    cost: Mapping[str, Mapping[str, Cost]],
    gaps: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """What the results file says of the concepts; nothing where none could be tried."""
    if not aucs:
        return {}
    return {
        "concepts": concept_entries(aucs, importance),
        "mean_auc": mean_aucs(aucs),
        "cost": cost_entries(cost),
        "axis_less_best_unit": gaps,
    }


def concept_contrasts(trials: Sequence[Trial], *, seed: int) -> dict[str, pd.DataFrame]:
    """Arm, in words -> `detection.contrast` of the concepts in the test patches of the first fold that has some.

    On the last kind of picture, the composite where it is there. Empty for fewer than two concepts.
    """
    first = [trial for trial in trials if trial.fold is trials[0].fold][-1:]
    return {
        ON_VGG16[arm].what: pd.DataFrame(contrast, index=list(trial.fold.concepts), columns=list(trial.fold.concepts))
        for trial in first
        if len(trial.fold.concepts) > 1
        for arm, contrast in zip(PAIR, trial.kept(seed)["contrast"], strict=True)
    }


# Concepts that a reader brings.


def read_own(folder: str | Path | None) -> dict[str, np.ndarray]:
    """concept -> pictures (N, 224, 224, 1) uint8, of `concepts.read_folders`; nothing for no folder."""
    return concepts.read_folders(folder, INPUT_PX) if folder else {}


def own_axis_aucs(trained: Units | None) -> dict[str, float]:
    """concept -> AUC of its axis: the pictures that were kept back, against the test patches. Empty without concepts.

    trained: of `train_own_axes`, None without.
    """
    return trained[0]["aucs"] if trained else {}


def own_table(pictures: Mapping[str, np.ndarray], aucs: Mapping[str, float]) -> pd.DataFrame | LeftOut:
    """Number of pictures of each concept and AUC of its axis, or that no folder was given."""
    if not pictures:
        return LeftOut("no folder was given.")
    counts = {name: len(of_concept) for name, of_concept in pictures.items()}
    return pd.DataFrame({"pictures": counts, "AUC against the test patches": aucs})


def used_units(trials: Iterable[Trial], own: Units | None) -> list[dict[str, Any]]:
    """What the results file says of all units that a page is drawn from. own: of `train_own_axes`, None without."""
    return [*(entry for trial in trials for entry in trial.fits.record), *(own.record if own else [])]
