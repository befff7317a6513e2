"""The models that the chapter compares: under every split, and on people not seen by fibres and by pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib.metrics import class_index
from mitolib.people import morphometry
from mitolib.people.controls import ON_FEATURES
from mitolib.people.evaluation import MAJORITY, Evaluation, Trial, ask, evaluate, unseen_trial
from mitolib.people.material import Features, Material
from mitolib.people.models import Augmented, Logistic, Majority, Model, Thresholded
from mitolib.people.on_features import HeadBudget, head_trial, logistic_kept
from mitolib.people.protocols import NO_OVERLAP, SEEN, UNSEEN
from mitolib.people.twins import with_twins

OF_HEADS = (SEEN, NO_OVERLAP, UNSEEN)  # splits whose folds are few enough for what trains for minutes
PATCHES, THRESHOLDED = "patches", "patches, threshold from training people"


def by_splits(material: Material, features: Mapping[str, Features], *, budget: HeadBudget) -> dict[str, Trial]:
    """Every model under every split of its patches, heads under OF_HEADS; twins are tested with their patches.

    features: of `material.features`. Networks without ImageNet weights are controls, see `untrained`.
    """
    one = material["exp1"]
    rows, folds, taught = one.rows, one.folds_with_twins(), one.taught
    trials = {
        MAJORITY: Trial(lambda: Majority(taught), rows, folds),
        f"mean {one.experiment.proteins[0]}": Trial(lambda: Logistic(one.brightness, taught), rows, folds),
    }
    if not (vgg16 := features["VGG16"]).is_untrained:
        kept = logistic_kept(vgg16, twins=True)
        trials[ON_FEATURES] = Trial(lambda: Logistic(vgg16.pooled, taught), rows, folds, kept)
    return trials | _heads(features, budget, untrained=False)


def untrained(features: Mapping[str, Features], *, budget: HeadBudget) -> dict[str, Trial]:
    """Heads on networks without ImageNet weights, under OF_HEADS; none where all networks have theirs."""
    return _heads(features, budget, untrained=True)


def _heads(features: Mapping[str, Features], budget: HeadBudget, *, untrained: bool) -> dict[str, Trial]:
    chosen = [of_network for of_network in features.values() if of_network.is_untrained == untrained]
    return {of_network.head_name: head_under_splits(of_network, OF_HEADS, budget=budget) for of_network in chosen}


def head_under_splits(features: Features, splits: Sequence[str], *, budget: HeadBudget) -> Trial:
    """A head under those of these splits that its patches allow; twins are tested with their patches."""
    part = features.patches
    folds = {split: folds for split, folds in part.folds_with_twins().items() if split in splits}
    return head_trial(features, part.taught, part.rows, folds, budget=budget, twins=True)


def by_fibres(material: Material, *, rng: Generator) -> Evaluation:
    """People not seen, told by their share of deficient fibres; the remark says how many fibres were outlined.

    In grey levels, and on a phantom in the counts behind them and by its true fibres. Empty where fibres cannot be
    outlined, with the reason as its remark.
    """
    people, fibres = material.people, material.fibres
    subjects, labels = people["subject"].to_numpy(), class_index(people["label"])
    trials = {
        name: unseen_trial(partial(morphometry.DeficientShare, table, subjects, labels), people)
        for name, table in fibres.tables.items()
    }
    return evaluate(ask(trials), rng=rng, remark=fibres.remark)


def by_pictures(material: Material, features: Mapping[str, Features]) -> dict[str, Trial]:
    """People not seen, told by VGG16's features of as many proteins as there are: six ways to train on the same.

    By patches; with a line between the classes that training people choose; centred and scaled within each section; by
    sections, one row a person; and, on a phantom, both of patches and of sections with the twins of the people who
    train.
    """
    widest = max(features.values(), key=lambda of_network: len(of_network.patches.experiment.proteins))
    rows = widest.patches.rows
    people = with_twins(material.people, material.twin_kinds)

    def on_patches() -> Logistic:
        return Logistic(widest.pooled, widest.patches.taught)

    def with_threshold() -> Thresholded:
        return Thresholded(on_patches(), rows)

    def on_centred_patches() -> Logistic:
        return Logistic(centred(widest.pooled, [rows["section"], rows["twin"]]), widest.patches.taught)

    def on_sections() -> Logistic:
        means = pd.DataFrame(widest.pooled).groupby([rows["subject"], rows["twin"]]).mean()
        of_sections = means.loc[list(zip(people["subject"], people["twin"], strict=True))].to_numpy()
        return Logistic(of_sections, people["taught"].to_numpy())

    def trial(trained_on: str, make: Callable[[], Model], tested: pd.DataFrame, *, twins: bool = False) -> Trial:
        return unseen_trial(make, tested, logistic_kept(widest, twins=twins, trained_on=trained_on))

    trials = {
        PATCHES: trial(PATCHES, on_patches, rows),
        THRESHOLDED: trial(THRESHOLDED, with_threshold, rows),
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
