"""The networks of the chapter: those of the two experiments, and controls, of which a map should say nothing.

A control is a network whose backbone has never been trained, or one that was taught permuted labels: labels dealt out
anew among the people, in draws that say nothing of the true ones (`splits.permuted_labels`).
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mitolib import bank, heads, metrics, splits, transfer, units
from mitolib.own_data import LeftOut
from mitolib.saliency.budget import Budget
from mitolib.saliency.network import PERMUTED, UNTRAINED, Network
from mitolib.settings import LABELS, Profile

PROTOCOL = 2  # of the control; raise it when labels are dealt, or a head is trained briefly, in another way
CHAPTER = "gradcam"
PASSES, BATCH_SIZE = 10, 32  # at batch 2 a training now and then ends in a network with one answer for all
POOLED = "VGG16-permuted"  # on the page: the networks of all draws of labels as one
AGREEMENT, OWN, TRUE = "agreement of the labels", "score by the taught labels", "score by the true labels"

Brief = Callable[..., Any]  # `people.Head`: (features, classes, steps, batch_size=, seed=), whose `fit` gives a head


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks of the chapter by name, and what the controls say of each other."""

    explained: Mapping[str, Network]  # every question is asked of their maps
    untrained: Mapping[str, Network]
    permuted: Mapping[str, Network]  # one for each draw of labels
    left_out: LeftOut | None = None  # why there are none of these

    @property
    def all(self) -> dict[str, Network]:
        """Those that are explained first."""
        return {**self.explained, **self.untrained, **self.permuted}

    @property
    def taught(self) -> pd.DataFrame:
        """The label that was taught of each subject: a row for each, a column for the true labels and each draw."""
        truth = self.explained["VGG16"].taught.rename("true labels")
        return pd.concat([truth, *(network.taught for network in self.permuted.values())], axis=1)

    @property
    def accuracy(self) -> dict[str, float]:
        """Of each network on the test patches, by the labels that it was taught."""
        calls = {name: network.trained.calls for name, network in self.all.items()}
        return {name: float((rows["predicted"] == rows["label"]).mean()) for name, rows in calls.items()}

    @property
    def shown(self) -> dict[str, str]:
        """What each network is shown, in words."""
        proteins = {name: network.experiment.proteins for name, network in self.all.items()}
        return {name: each[0] if len(each) == 1 else f"{len(each)} proteins" for name, each in proteins.items()}

    @property
    def draws(self) -> pd.DataFrame:
        """One row for each draw of labels, all columns balanced over the two classes of the test patches.

        How often the labels that were taught agree with the true ones, which is what a perfect diagnosis would score by
        them; how often the network's answers agree with the labels that it was taught; and how often with the true
        ones. NaN where the patches have one of the two labels only.
        """
        true = self.explained["VGG16"].trained.task.table["label"]
        rows = {}
        for name, network in self.permuted.items():
            calls = network.trained.calls
            truth = true.loc[calls.index]
            rows[name] = {
                AGREEMENT: balanced(truth, calls["label"]),
                OWN: balanced(calls["label"], calls["predicted"]),
                TRUE: balanced(truth, calls["predicted"]),
            }
        return pd.DataFrame.from_dict(rows, orient="index", columns=[AGREEMENT, OWN, TRUE])

    @property
    def record(self) -> dict[str, Any]:
        """The `permuted_labels` entry of the record: the draws, and estimates over them; empty without draws."""
        if not self.permuted:
            return {}
        table = self.draws
        estimates = {
            "agreement": table[AGREEMENT],
            "own": table[OWN],
            "true": table[TRUE],
            "own_minus_agreement": table[OWN] - table[AGREEMENT],
        }
        finite = table.astype(object).where(table.notna(), None)
        return {"draws": finite.to_dict("index")} | {name: metrics.over_draws(each) for name, each in estimates.items()}


def balanced(truth: pd.Series, answers: pd.Series) -> float:
    """Mean over both classes of the share of their patches that is answered so; NaN without patches of one of them."""
    right = (truth == answers).groupby(truth).mean()
    return float(right.reindex(LABELS).mean(skipna=False))


def build_networks(tasks: Mapping[str, transfer.Task], *, profile: Profile, budget: Budget, brief: Brief) -> Networks:
    """The networks of the chapter: read where their units are kept, trained where they are not.

    Two of one protein, of experiment 1; one of several, where tasks has "exp2"; and as many that are taught permuted
    labels as the budget says, where these can be dealt out. A ResNet-50 without ImageNet weights is a control. tasks:
    by the name of the experiment. brief: how those of permuted labels are trained.
    """

    explained = of_experiments(tasks, profile)
    untrained, resnet = {}, transfer.train("ResNet50", tasks["exp1"], profile=profile, n_seeds=1).first
    if resnet.frozen.weights.arrays is None:
        untrained["ResNet50"] = Network("ResNet50", resnet, control=UNTRAINED)
    else:
        explained["ResNet50"] = Network("ResNet50", resnet)
    try:
        dealt = permuted(tasks["exp1"], n=budget.label_draws, seed=profile.seed)
    except ValueError as reason:
        left_out = LeftOut(f"networks that are taught permuted labels, because {reason}")
        return Networks(explained, untrained, {}, left_out)
    heads_of_draws = {
        f"draw {draw}": train_permuted(tasks["exp1"], labels, draw=draw, profile=profile, brief=brief)
        for draw, labels in enumerate(dealt, 1)
    }
    controls = {name: Network(name, head, control=PERMUTED) for name, head in heads_of_draws.items()}
    return Networks(explained, untrained, controls)


def of_experiments(tasks: Mapping[str, transfer.Task], profile: Profile) -> dict[str, Network]:
    """VGG16 of one protein, and of several where tasks has "exp2": of each the training that validates best."""
    names = {"VGG16": "exp1", "VGG16-ten": "exp2"}
    return {
        name: Network(name, transfer.train("VGG16", tasks[experiment], profile=profile).best)
        for name, experiment in names.items()
        if experiment in tasks
    }


def permuted(task: transfer.Task, *, n: int, seed: int) -> np.ndarray:
    """(n, N) class indices, see `splits.permuted_labels`; a further draw changes none of those before it."""
    return splits.permuted_labels(
        task.classes,
        task.table["subject"],
        n=n,
        rng=np.random.default_rng(seed),
        taught=task.rows("train"),
        scored=task.rows("test"),
    )


def train_permuted(
    task: transfer.Task, labels: np.ndarray, *, draw: int, profile: Profile, brief: Brief
) -> transfer.TrainedHead:
    """VGG16 taught other labels, in ten passes over the training patches, as a unit with the number of the draw.

    labels: (N,) class indices. Each batch has as many patches of one class as of the other, and the rate falls to zero.
    """
    profile = replace(profile, views=max(1, profile.views))
    taught = replace(task, table=task.table.assign(label=np.array(LABELS)[labels]))
    frozen = transfer.Frozen("VGG16", taught, profile=profile)
    steps = math.ceil(PASSES * len(taught.rows("train")) / BATCH_SIZE)
    fits = units.each(
        partial(_fit, frozen, brief, steps),
        [{"network": "VGG16", "labels": "permuted", "draw": draw}],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=task.depends
        | {
            "taught": hashlib.sha256(taught.table["label"].to_csv(index=False).encode()).hexdigest(),
            "steps": steps,
            "batch_size": BATCH_SIZE,
            "seed": profile.seed,
            "views": profile.views,
            "zoom": profile.zoom,
            "augmentation_seed": profile.seed,
            "weights": frozen.weights.sha256,
        },
        prepare=lambda: (frozen.train, frozen.test_nhwc),
        precision=bank.precision,
    )
    return transfer.TrainedHead(frozen, fits, 0)


def _fit(frozen: transfer.Frozen, brief: Brief, steps: int, *, network: str, labels: str, draw: int) -> units.Result:
    """A unit: p_patient (N,) float32 of the test patches, and weights."""
    task, views = frozen.task, frozen.profile.views
    train = task.rows("train")
    features_nhwc = np.concatenate([frozen.train(view, np.arange(len(train))) for view in range(views)])
    classes = np.tile(task.classes[train], views)
    head = brief(features_nhwc, classes, steps, batch_size=BATCH_SIZE, seed=frozen.profile.seed)
    trained = head.fit(np.arange(len(classes)))
    return {"p_patient": heads.p_patient(trained, frozen.test_nhwc), "weights": trained.get_weights()}
