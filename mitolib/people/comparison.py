"""The models that the chapter compares: under every split, and on people not seen by fibres and by pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import cohort
from mitolib.metrics import class_index
from mitolib.own_data import FIBRES, LeftOut
from mitolib.people import morphometry
from mitolib.people.controls import ON_FEATURES
from mitolib.people.evaluation import Evaluation, Trial, ask, evaluate, unseen_trial
from mitolib.people.material import Features, Material
from mitolib.people.models import Augmented, Logistic, Majority, Model
from mitolib.people.on_features import head_trial, logistic_kept
from mitolib.people.twins import with_twins

GREY_LEVELS = "outlined fibres, grey levels"


def by_splits(
    material: Material, features: Mapping[str, Features], *, steps: int, batch_size: int, seed: int
) -> dict[str, Trial]:
    """Every model under every split of its patches; twins are tested with their patches.

    features: of `material.features`. steps, batch_size and seed: of the heads.
    """
    one = material["exp1"]
    rows, folds, taught = one.rows, one.folds_with_twins(), one.taught
    vgg16 = features["VGG16"]
    trials = {
        "majority": Trial(lambda: Majority(taught), rows, folds),
        f"mean {one.experiment.proteins[0]}": Trial(lambda: Logistic(one.brightness, taught), rows, folds),
        ON_FEATURES: Trial(lambda: Logistic(vgg16.pooled, taught), rows, folds, logistic_kept(vgg16, twins=True)),
    }
    for of_network in features.values():
        part = of_network.patches
        trials[of_network.head_name] = head_trial(
            of_network,
            part.taught,
            part.rows,
            part.folds_with_twins(),
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            twins=True,
        )
    return trials


def by_fibres(material: Material, *, rng: Generator) -> Evaluation:
    """People not seen, told by their share of deficient fibres; the remark says how many fibres were outlined.

    In grey levels, and on a phantom in the counts behind them and by its true fibres. Empty where fibres cannot be
    outlined, with the reason as its remark.
    """
    people = material.people
    measured, remark = measured_fibres(material)
    subjects, labels = people["subject"].to_numpy(), class_index(people["label"])
    trials = {
        name: unseen_trial(partial(morphometry.DeficientShare, fibres, subjects, labels), people)
        for name, fibres in measured.items()
    }
    return evaluate(ask(trials), rng=rng, remark=remark)


def measured_fibres(material: Material) -> tuple[dict[str, pd.DataFrame], str]:
    """Tables of fibres by how they were measured, and how many were outlined, or why there are none."""
    data = material.data
    if not data.has(FIBRES):
        return {}, str(LeftOut(f"{FIBRES}."))
    outlined = morphometry.measure(data.sections)
    if reason := morphometry.too_few(outlined, material.people):
        return {}, reason
    measured = {GREY_LEVELS: outlined}
    if data.is_phantom:
        stretch = pd.read_csv(data.root / "truth" / "stretch.csv")
        measured["outlined fibres, counts"] = morphometry.as_counts(outlined, stretch)
        true_fibres = cohort.read_fibres(data.root)
        measured["true fibres, counts"] = true_fibres.assign(subject=true_fibres["section"])
    return measured, f"{len(outlined)} fibres were outlined."


def by_pictures(material: Material, features: Mapping[str, Features]) -> dict[str, Trial]:
    """People not seen, told by VGG16's features of as many proteins as there are: five ways to train on the same.

    By patches; these centred and scaled within each section; by sections, one row a person; and, on a phantom, both of
    patches and of sections with the twins of the people who train.
    """
    widest = max(features.values(), key=lambda of_network: len(of_network.patches.experiment.proteins))
    rows = widest.patches.rows
    people = with_twins(material.people, material.twin_kinds)

    def on_patches() -> Logistic:
        return Logistic(widest.pooled, widest.patches.taught)

    def on_centred_patches() -> Logistic:
        return Logistic(centred(widest.pooled, [rows["section"], rows["twin"]]), widest.patches.taught)

    def on_sections() -> Logistic:
        means = pd.DataFrame(widest.pooled).groupby([rows["subject"], rows["twin"]]).mean()
        of_sections = means.loc[list(zip(people["subject"], people["twin"], strict=True))].to_numpy()
        return Logistic(of_sections, people["taught"].to_numpy())

    def trial(trained_on: str, make: Callable[[], Model], tested: pd.DataFrame, *, twins: bool = False) -> Trial:
        return unseen_trial(make, tested, logistic_kept(widest, twins=twins, trained_on=trained_on))

    trials = {
        "patches": trial("patches", on_patches, rows),
        "patches, centred by section": trial("patches, centred by section", on_centred_patches, rows),
        "sections": trial("sections", on_sections, people),
    }
    if material.twin_kinds:
        added = {
            "patches, with twins": (on_patches, rows),
            "sections, with twins": (on_sections, people),
        }
        for name, (make, tested) in added.items():
            trials[name] = trial(name, partial(_augmented, make, tested["origin"].to_numpy()), tested, twins=True)
    return trials


def _augmented(make: Callable[[], Model], origin: np.ndarray) -> Augmented:
    return Augmented(make(), origin)


def centred(features: np.ndarray, groups: Sequence[pd.Series]) -> np.ndarray:
    """(N, F): each row minus the mean of its group, over the group's standard deviation; 0 in a group of one row.

    groups: columns of length N that together name a row's group.
    """
    by_group = pd.DataFrame(features).groupby(list(groups))
    spread = by_group.transform("std").fillna(0) + 1e-6
    return ((features - by_group.transform("mean")) / spread).to_numpy()
