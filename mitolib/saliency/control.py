"""The networks of the chapter: those of the two experiments, and a control that was taught labels without a disease."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mitolib import bank, heads, splits, transfer, units
from mitolib.saliency.network import Network
from mitolib.settings import LABELS, Profile

PROTOCOL = 1  # of the control; raise it when labels are dealt, or a head is trained briefly, in another way
CHAPTER = "gradcam"
LEAST_PEOPLE = 3  # to train on shuffled labels: those of two can only stay or be turned round
PASSES, BATCH_SIZE = 10, 32  # at batch 2 a training now and then ends in a network with one answer for all

Brief = Callable[..., Any]  # `people.Head`: (features, classes, steps, batch_size=, seed=), whose `fit` gives a head


def build_networks(tasks: Mapping[str, transfer.Task], *, profile: Profile, brief: Brief) -> dict[str, Network]:
    """The networks of the chapter by name: read where their units are kept, trained where they are not.

    Two of one protein, of experiment 1; one of several, where tasks has "exp2"; and the control, where three people
    or more train. tasks: by the name of the experiment. brief: how the control is trained.
    """

    def train(network: str, experiment: str) -> transfer.TrainedHead:
        return transfer.train(network, tasks[experiment], profile=profile, n_seeds=1).first

    explained = [Network("VGG16", train("VGG16", "exp1")), Network("ResNet50", train("ResNet50", "exp1"))]
    if "exp2" in tasks:
        explained.append(Network("VGG16-ten", train("VGG16", "exp2")))
    if tasks["exp1"].table.loc[tasks["exp1"].rows("train"), "subject"].nunique() >= LEAST_PEOPLE:
        control = train_control(tasks["exp1"], profile=profile, brief=brief)
        explained.append(Network("VGG16-shuffled", control, is_control=True))
    return {network.name: network for network in explained}


def train_control(task: transfer.Task, *, profile: Profile, brief: Brief, draw: int = 0) -> transfer.TrainedHead:
    """VGG16 taught labels that are dealt out anew among the subjects, in ten passes over the training patches.

    Each batch has as many patches of one class as of the other, and the rate falls to zero. Its unit has the number of
    the deal, `draw`. Raises ValueError where labels cannot be dealt out, see `splits.shuffle_by_subject`.
    """
    profile = replace(profile, views=max(1, profile.views))
    taught = shuffled(task, seed=profile.seed)
    frozen = transfer.Frozen("VGG16", taught, profile=profile)
    steps = math.ceil(PASSES * len(taught.rows("train")) / BATCH_SIZE)
    fits = units.each(
        partial(_fit, frozen, brief, steps),
        [{"network": "VGG16", "labels": "shuffled", "draw": draw, "seed": profile.seed}],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=task.depends
        | {
            "taught": hashlib.sha256(taught.table["label"].to_csv(index=False).encode()).hexdigest(),
            "steps": steps,
            "batch_size": BATCH_SIZE,
            "views": profile.views,
            "zoom": profile.zoom,
            "augmentation_seed": profile.seed,
            "weights": frozen.weights.sha256,
        },
        prepare=lambda: (frozen.train, frozen.test_nhwc),
        precision=bank.precision,
    )
    return transfer.TrainedHead(frozen, fits, 0)


def shuffled(task: transfer.Task, *, seed: int) -> transfer.Task:
    """The same task with the labels that the control is taught."""
    dealt = splits.shuffle_by_subject(
        task.classes, task.table["subject"], rng=np.random.default_rng(seed), taught=task.rows("train")
    )
    return replace(task, table=task.table.assign(label=np.array(LABELS)[dealt]))


def _fit(
    frozen: transfer.Frozen, brief: Brief, steps: int, *, network: str, labels: str, draw: int, seed: int
) -> units.Result:
    """A unit: p_patient (N,) float32 of the test patches, and weights."""
    task, views = frozen.task, frozen.profile.views
    train = task.rows("train")
    features_nhwc = np.concatenate([frozen.train(view, np.arange(len(train))) for view in range(views)])
    classes = np.tile(task.classes[train], views)
    head = brief(features_nhwc, classes, steps, batch_size=BATCH_SIZE, seed=seed).fit(np.arange(len(classes)))
    return {"p_patient": heads.p_patient(head, frozen.test_nhwc), "weights": head.get_weights()}
