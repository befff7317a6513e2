"""Two controls that expose a leak: labels dealt out anew among the people, and whether features name the person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mitolib import splits
from mitolib.own_data import LeftOut
from mitolib.people import metrics, protocols
from mitolib.people.evaluation import SEEN, UNPUBLISHED, out_of_fold
from mitolib.people.material import Features
from mitolib.people.models import Head, Logistic, Model
from mitolib.settings import LABELS

ON_FEATURES = "VGG16 features, logistic"


@dataclass(frozen=True)
class ShuffledLabels:
    """entries: `metrics.summary` of each model, split and draw of labels, with "model", "split" and "draw"."""

    entries: list[dict[str, Any]]

    def table(self) -> pd.DataFrame:
        """Mean, least and greatest of the draws, by model and split."""
        by_model = pd.DataFrame(self.entries).groupby(["model", "split"], sort=False)
        columns = {"draws": by_model.size()}
        for score, title in metrics.DRAWN.items():
            over_draws = by_model[score].agg(["mean", "min", "max"])
            columns[title] = over_draws.apply(lambda row: "{:.2f} ({:.2f} to {:.2f})".format(*row), axis=1)
        return pd.DataFrame(columns)


def shuffled_labels(features: Features, *, draws: int, steps: int, batch_size: int, seed: int) -> ShuffledLabels:
    """Train and test on labels dealt out anew among the people, `draws` times, under every split that they allow.

    features: of one protein. A logistic regression on them each time, and in the first draw a `Head` on the published
    split, of `steps` batches.
    """
    rng = np.random.default_rng(seed)
    part = features.patches
    dealt = [splits.shuffle_by_subject(part.truth, part.rows["subject"], rng=rng) for _ in range(draws)]
    entries = []
    for draw, labels in enumerate(dealt):
        rows = part.themselves.assign(label=np.array(LABELS)[labels[: len(part.themselves)]])
        available, _ = protocols.available(rows, part.experiment.name)
        folds = {split: available[split] for split in part.folds if split in available}
        tried: list[tuple[str, Model, str]] = [
            (ON_FEATURES, Logistic(features.pooled, labels), split) for split in folds
        ]
        if draw == 0 and SEEN in folds:
            head = Head(features.maps_nhwc, labels, steps=steps, batch_size=batch_size, seed=seed)
            tried.append((features.head_name, head, SEEN))
        for name, model, split in tried:
            scores = metrics.summary(out_of_fold(model, rows, folds[split]), rng=rng, draws=2)
            entries.append({"model": name, "split": split, "draw": draw} | scores)
    return ShuffledLabels(entries)


@dataclass(frozen=True)
class SubjectProbe:
    """entries: "network, split" -> how often a probe names the person, see `named`."""

    entries: dict[str, dict[str, float]]

    def table(self) -> Styler | LeftOut:
        """The entries in percent."""
        return pd.DataFrame(self.entries).T.style.format("{:.1%}") if self.entries else UNPUBLISHED


def subject_probe(features: Mapping[str, Features]) -> SubjectProbe:
    """Do the features name the person? Of each network, under the splits that test people who are trained on."""
    return SubjectProbe(
        {
            f"{name}, {split}": named(
                of_network.pooled, of_network.patches.rows["subject"].to_numpy(), of_network.patches.folds[split][0]
            )
            for name, of_network in features.items()
            for split in (SEEN, "no-overlap")
            if split in of_network.patches.folds
        }
    )


def named(features: np.ndarray, subjects: np.ndarray, split: pd.Series) -> dict[str, float]:
    """{"accuracy", "chance"}: how often a linear probe names the subject of a test patch, and the commonest subject's
    share of the test patches. features: (N, F); subjects: (N,) names; split: 'train' and 'test' for each row."""
    train, test = (np.flatnonzero(split == part) for part in ("train", "test"))
    probe = Logistic(features, subjects).fit(train)
    return {
        "accuracy": float((probe.predict(features[test]) == subjects[test]).mean()),
        "chance": float(pd.Series(subjects[test]).value_counts(normalize=True).iloc[0]),
    }
