"""The models that the chapter compares: under every split, and on people not seen by fibres and by pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import cohort
from mitolib.metrics import class_index
from mitolib.own_data import FIBRES, LeftOut
from mitolib.people import morphometry
from mitolib.people.controls import ON_FEATURES
from mitolib.people.evaluation import Evaluation, Trial, run_trials, unseen_trial
from mitolib.people.material import Features, Material
from mitolib.people.models import Augmented, Head, Logistic, Majority, Model
from mitolib.people.twins import with_twins

GREY_LEVELS = "outlined fibres, grey levels"


def evaluate(
    material: Material, features: Mapping[str, Features], *, steps: int, batch_size: int, workers: int, seed: int
) -> Evaluation:
    """Every model under every split of its patches; twins are tested with their patches, scores are without them.

    features: of `material.features`. steps, batch_size: of the heads. workers: processes that share the folds of a
    head, -1 for one per core; the answers are the same whatever their number. seed: of heads and bootstrap.
    """
    one = material["exp1"]
    models: dict[str, Model] = {
        "majority": Majority(one.taught),
        f"mean {one.experiment.proteins[0]}": Logistic(one.brightness, one.taught),
        ON_FEATURES: Logistic(features["VGG16"].pooled, one.taught),
    }
    trials = {name: Trial(model, one.rows, one.folds_with_twins()) for name, model in models.items()}
    for of_network in features.values():
        part = of_network.patches
        head = Head(of_network.maps_nhwc, part.taught, steps=steps, batch_size=batch_size, seed=seed)
        trials[of_network.head_name] = Trial(head, part.rows, part.folds_with_twins())
    return run_trials(trials, rng=np.random.default_rng(seed), workers=workers)


def by_fibres(material: Material, *, rng: Generator) -> Evaluation:
    """People not seen, told by their share of deficient fibres; the remark says how many fibres were outlined.

    In grey levels, and on a phantom in the counts behind them and by its true fibres. Empty where fibres cannot be
    outlined, with the reason as its remark.
    """
    people = material.people
    measured, remark = measured_fibres(material)
    subjects, labels = people["subject"].to_numpy(), class_index(people["label"])
    trials = {
        name: unseen_trial(morphometry.DeficientShare(fibres, subjects, labels), people)
        for name, fibres in measured.items()
    }
    return run_trials(trials, rng=rng, remark=remark)


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


def by_pictures(material: Material, features: Mapping[str, Features], *, rng: Generator) -> Evaluation:
    """People not seen, told by VGG16's features of as many proteins as there are: five ways to train on the same.

    By patches; these centred and scaled within each section; by sections, one row a person; and, on a phantom, both of
    patches and of sections with the twins of the people who train.
    """
    widest = max(features.values(), key=lambda of_network: len(of_network.patches.experiment.proteins))
    rows = widest.patches.rows
    people = with_twins(material.people, material.twin_kinds)
    means = pd.DataFrame(widest.pooled).groupby([rows["subject"], rows["twin"]]).mean()
    of_sections = means.loc[list(zip(people["subject"], people["twin"], strict=True))].to_numpy()

    on_patches = Logistic(widest.pooled, widest.patches.taught)
    centred_patches = Logistic(centred(widest.pooled, [rows["section"], rows["twin"]]), widest.patches.taught)
    on_sections = Logistic(of_sections, people["taught"].to_numpy())
    trials = {
        "patches": unseen_trial(on_patches, rows),
        "patches, centred by section": unseen_trial(centred_patches, rows),
        "sections": unseen_trial(on_sections, people),
    }
    if material.twin_kinds:
        patches_with_twins = Augmented(on_patches, rows["origin"].to_numpy())
        sections_with_twins = Augmented(on_sections, people["origin"].to_numpy())
        trials["patches, with twins"] = unseen_trial(patches_with_twins, rows)
        trials["sections, with twins"] = unseen_trial(sections_with_twins, people)
    return run_trials(trials, rng=rng)


def centred(features: np.ndarray, groups: Sequence[pd.Series]) -> np.ndarray:
    """(N, F): each row minus the mean of its group, over the group's standard deviation; 0 in a group of one row.

    groups: columns of length N that together name a row's group.
    """
    by_group = pd.DataFrame(features).groupby(list(groups))
    spread = by_group.transform("std").fillna(0) + 1e-6
    return ((features - by_group.transform("mean")) / spread).to_numpy()
