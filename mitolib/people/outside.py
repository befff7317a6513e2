"""The outside test: people who never were (`phantom.draw_people`), asked once of every network, never trained on.

A person is drawn, cut into patches, passed through the frozen layers and forgotten; what is kept are the feature maps,
one file for each person in `data/cache/outside`, so that a run that was killed goes on where it was and hundreds of
people take the disk of a few. What a head says of the maps is a unit.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from scipy.stats import bootstrap, mannwhitneyu
from sklearn.metrics import brier_score_loss

from mitolib import bank, cohort, files, heads, metrics, patches, units
from mitolib.people.metrics import by_subject, exact_interval
from mitolib.progress import track
from mitolib.settings import DATA, LABELS
from mitolib.study import Experiment
from mitolib.transfer import TrainedNetwork

PROTOCOL = 1  # of the units; raise it when an answer would come out otherwise
FOLDER = DATA / "cache" / "outside"
AT_ONCE = 8  # people whose pictures lie on the disk together: 20 MB each
BINS = 5  # of a calibration curve


class OutsideError(ValueError):
    """New people who cannot be asked; the message says who, what was found and what helps."""


@dataclass(frozen=True, eq=False)
class Reader:
    """Frozen layers, and the patches that they read. weights: digest of theirs."""

    experiment: Experiment
    backbone: keras.Model
    weights: str

    @property
    def key(self) -> str:
        """Of everything but the person that its maps depend on."""
        about = [vars(self.experiment), self.weights, self.backbone.output_shape[1:], bank.precision()]
        return hashlib.sha256(json.dumps(about, default=list).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Outside:
    """New people and what frozen networks make of them. Nothing is drawn until an answer is asked for that is not kept.

    people: of `phantom.draw_people`. readers: by the name of a network, called once. draw: `phantom.make_people`.
    twin: "", "cured" or "afflicted".
    """

    people: Mapping[str, Any]
    readers: Mapping[str, Callable[[], Reader]]
    draw: Callable[..., list[Path]]
    twin: str = ""

    @property
    def subjects(self) -> list[Mapping[str, Any]]:
        """Their records."""
        return self.people["subjects"]

    @cached_property
    def maps(self) -> dict[str, list[np.ndarray]]:
        """Network -> for each person (n, h, w, c) float16 of their patches; who is not kept yet is drawn once for all.

        Raises PhantomError where the disk is full.
        """
        readers = {name: reader() for name, reader in self.readers.items()}
        missing = [s for s in self.subjects if not all(self._path(reader, s).exists() for reader in readers.values())]
        batches = [missing[start : start + AT_ONCE] for start in range(0, len(missing), AT_ONCE)]
        for batch in track(batches, f"new people {self.twin}".strip(), len(batches)):
            with tempfile.TemporaryDirectory(prefix="new-people-") as scratch:
                twin = {self.twin: True} if self.twin else {}
                folders = self.draw(scratch, {**self.people, "subjects": batch}, **twin)
                for subject, folder in zip(batch, folders, strict=True):
                    for reader in readers.values():
                        _keep(reader, folder, self._path(reader, subject))
        return {
            name: [np.load(self._path(reader, subject)) for subject in self.subjects]
            for name, reader in readers.items()
        }

    def _path(self, reader: Reader, subject: Mapping[str, Any]) -> Path:
        name = "-".join(filter(None, (subject["subject"], self.twin, digest(subject)[:12])))
        return FOLDER / reader.key / f"{name}.npy"


def refuse_acquaintances(trained_on: Mapping[str, Any], tested: Mapping[str, Any]) -> None:
    """Raise OutsideError if somebody is in both calibrations, by what was drawn of them and not by name."""
    known = {digest(subject): subject["subject"] for subject in trained_on["subjects"]}
    found = {s["subject"]: known[digest(s)] for s in tested["subjects"] if digest(s) in known}
    if found:
        name, other = next(iter(found.items()))
        raise OutsideError(
            f"{len(found)} of {len(tested['subjects'])} people of the outside test were trained on, {name} as {other} "
            "the first; wanted nobody. Draw one of the two groups with another seed."
        )


def ask(trained: TrainedNetwork, name: str, outside: Outside, *, chapter: str) -> pd.DataFrame:
    """What a network says of new people: rows subject, truth (0 or 1), p (of "patient") and seed.

    name: of the network among the readers of `outside`. The answers to each seed's training are a unit.
    """

    def answer(network: str, seed: int, trained_as: str, twin: str | None) -> dict[str, Any]:
        of_people = outside.maps[network]
        return {
            "p_patient": heads.p_patient(trained.by_seed[seed].head, np.concatenate(of_people)),
            "patches": [len(maps_nhwc) for maps_nhwc in of_people],
        }

    asked = units.each(
        answer,
        [
            {"network": name, "seed": seed, "trained_as": head.key[:12], "twin": outside.twin or None}
            for seed, head in trained.by_seed.items()
        ],
        made_by=sys.modules[__name__],
        chapter=chapter,
        depends={"people": [digest(subject) for subject in outside.subjects]},
        prepare=lambda: outside.maps,
        precision=bank.precision,
    )
    table = pd.DataFrame(
        {
            "subject": [subject["subject"] for subject in outside.subjects],
            "truth": [LABELS.index(subject["label"]) for subject in outside.subjects],
        }
    )
    of_seeds = []
    for seed, answers in zip(trained.by_seed, asked, strict=True):
        of_patches = table.loc[table.index.repeat(answers["patches"])]
        of_seeds.append(of_patches.assign(p=answers["p_patient"], seed=seed))
    return pd.concat(of_seeds, ignore_index=True)


def scores(predictions: pd.DataFrame) -> dict[str, Any]:
    """What the answers are worth, patch by patch and person by person.

    predictions: columns subject, truth, p; of one training. A person is called a patient by the majority of their
    patches. {"accuracy", "sensitivity", "specificity": {"value", "ci", "n"} over people, with exact intervals; "auc":
    the same over people, by mean p, the interval from a bootstrap over the people of each class; "balanced_accuracy" of
    patches; "brier" of people; "calibration": in five bins of equal size, mean p, share of patients and n}.
    """
    seen = by_subject(predictions)
    truth, score = seen["truth"].to_numpy(), seen["score"].to_numpy()
    right = (seen["votes"] > 0.5).to_numpy() == (truth == 1)
    groups = {"accuracy": right, "sensitivity": right[truth == 1], "specificity": right[truth == 0]}
    shares = {
        name: {"value": float(group.mean()), "ci": list(exact_interval(int(group.sum()), len(group))), "n": len(group)}
        for name, group in groups.items()
    }
    called = (predictions["p"] > 0.5).to_numpy() == (predictions["truth"] == 1).to_numpy()
    return shares | {
        "auc": {"value": metrics.auc(truth, score), "ci": _auc_interval(truth, score), "n": len(seen)},
        "balanced_accuracy": float(np.mean([called[predictions["truth"] == label].mean() for label in (0, 1)])),
        "brier": float(brier_score_loss(truth, score)),
        "calibration": _calibration(truth, score),
    }


def _auc_interval(truth: np.ndarray, score: np.ndarray) -> list[float] | None:
    """95 % interval of an AUC, from a bootstrap over the people of each class; None where all draws are alike."""

    def auc(patients: np.ndarray, controls: np.ndarray, axis: int) -> np.ndarray:
        wins = mannwhitneyu(patients, controls, axis=axis, method="asymptotic").statistic
        return wins / (patients.shape[axis] * controls.shape[axis])

    groups = (score[truth == 1], score[truth == 0])
    if auc(*groups, axis=0) in (0, 1):
        return None
    drawn = bootstrap(groups, auc, vectorized=True, n_resamples=2000, method="percentile", rng=0)
    return [float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)]


def _calibration(truth: np.ndarray, score: np.ndarray) -> list[dict[str, float]]:
    order = np.argsort(score, kind="stable")
    return [
        {"p": float(score[rows].mean()), "patients": float(truth[rows].mean()), "n": len(rows)}
        for rows in np.array_split(order, BINS)
        if len(rows)
    ]


def _keep(reader: Reader, folder: Path, path: Path) -> None:
    """Write the maps of the person in a folder."""
    sections, experiment = cohort.read_cohort(folder), reader.experiment
    grid = patches.grid(sections, size_px=experiment.patch_px, stride_px=experiment.stride_px)
    pixels_nhwc = patches.load(grid, sections, experiment.proteins, stride_px=experiment.stride_px)
    forward = bank.compiled(reader.backbone)
    parts = [
        forward(patches.as_input(pixels_nhwc[start : start + bank.BATCH]))
        for start in range(0, len(pixels_nhwc), bank.BATCH)
    ]
    maps_nhwc = np.concatenate(parts).astype(np.float16)
    if not np.isfinite(maps_nhwc).all():
        raise FloatingPointError(f"{path.stem}: features beyond the range of float16. Are the weights a trained net's?")
    with files.whole(path) as aside, aside.open("wb") as file:
        np.save(file, maps_nhwc)


def digest(subject: Mapping[str, Any]) -> str:
    """Of what was drawn of a person, without the name."""
    drawn = {key: value for key, value in subject.items() if key not in ("subject", "donor")}
    return hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()
