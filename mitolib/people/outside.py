"""People who never were (`phantom.draw_people`): read once, asked of networks that were never trained on them.

A person is drawn, cut into patches and fibres, read (`readers`) and forgotten; what was read is kept, one file for each
person and reader in `data/cache/outside`, so that a run that was killed goes on where it was and hundreds of people
take the disk of a few. What a model says of them is a unit.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, mannwhitneyu
from sklearn.metrics import brier_score_loss

from mitolib import bank, cohort, files, heads, metrics, units
from mitolib.cohort import Section
from mitolib.people.metrics import by_subject, exact_interval
from mitolib.people.readers import Reader, Readers, key
from mitolib.progress import say
from mitolib.settings import DATA, share
from mitolib.transfer import TrainedNetwork
from mitolib.units import Units

PROTOCOL = 2  # of the units; raise it when an answer would come out otherwise
FOLDER = DATA / "cache" / "outside"
AT_ONCE = 8  # people whose pictures lie on the disk together: 20 MB each
BINS = 5  # of a calibration curve


class OutsideError(ValueError):
    """New people who cannot be asked; the message says who, what was found and what helps."""


@dataclass(frozen=True, eq=False)
class Outside:
    """New people and what readers make of them. Nobody is drawn until something is asked for that is not kept.

    people: of `phantom.draw_people`. readers: by name; whoever is drawn is read by all. draw: `phantom.make_people`.
    recipe: the version of what it draws; another is another person. twin: "", "cured" or "afflicted".
    """

    people: Mapping[str, Any]
    readers: Readers | Mapping[str, Reader]
    draw: Callable[..., list[Path]]
    recipe: int
    twin: str = ""

    @property
    def subjects(self) -> list[Mapping[str, Any]]:
        """Their records."""
        return self.people["subjects"]

    @property
    def table(self) -> pd.DataFrame:
        """A row each: subject, and label of the person, also of a twin."""
        return pd.DataFrame(self.subjects)[["subject", "label"]]

    @property
    def truth(self) -> np.ndarray:
        """(N,) class index of each person."""
        return metrics.class_index(self.table["label"])

    @property
    def depends(self) -> dict[str, Any]:
        """What tells them from others, as plain values."""
        everybody = " ".join(map(self._who, self.subjects))
        people = hashlib.sha256(everybody.encode()).hexdigest()
        return {"people": people, "recipe": self.recipe, "twin": self.twin}

    def some(self, subjects: Sequence[Mapping[str, Any]], twin: str = "") -> Outside:
        """The same readers and drawing, of these subjects or their twins."""
        people = {**self.people, "subjects": list(subjects)}
        return Outside(people, self.readers, self.draw, self.recipe, twin)

    def prepare(self) -> None:
        """Draw and read whoever is not kept. Raises PhantomError or OutsideError where the disk is full.

        Shares that run side by side begin with their own people, and go on with those that nobody has read yet.
        """
        k, n = share() or (0, 1)
        left = sorted(range(len(self.subjects)), key=lambda place: place % n != k % n)
        while left := [place for place in left if self._missing(self.subjects[place])]:
            batch = [self.subjects[place] for place in left[:AT_ONCE]]
            say(f"  new people {self.twin}".rstrip() + f": {len(left)} to draw and read")
            with tempfile.TemporaryDirectory(prefix="new-people-") as scratch:
                twin = {self.twin: True} if self.twin else {}
                folders = self.draw(scratch, {**self.people, "subjects": batch}, **twin)
                for subject, folder in zip(batch, folders, strict=True):
                    sections = cohort.read_cohort(folder)
                    for name in self._missing(subject):
                        keep(self.readers[name], folder, sections[0], self._path(name, subject))

    def rows(self, reader: str, part: str) -> list[np.ndarray]:
        """For each person the array that a reader gives by this name."""
        self.prepare()
        arrays = []
        for subject in self.subjects:
            with np.load(self._path(reader, subject)) as kept:
                arrays.append(kept[part])
        return arrays

    def _who(self, subject: Mapping[str, Any]) -> str:
        """Digest of a person, and of the donor where the deficiency is a donor's."""
        return digest(subject) + (digest(subject["donor"]) if self.twin == "afflicted" else "")

    def _missing(self, subject: Mapping[str, Any]) -> list[str]:
        return [name for name in self.readers if not self._path(name, subject).exists()]

    def _path(self, reader: str, subject: Mapping[str, Any]) -> Path:
        about = [self._who(subject), self.recipe, self.twin]
        who = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
        name = "-".join(filter(None, (subject["subject"], self.twin, who)))
        return FOLDER / key(self.readers[reader]) / f"{name}.npz"


@dataclass(frozen=True, eq=False)
class OnDisk:
    """People whose pictures lie on this disk, read in the same way. root: their data folder."""

    root: Path
    sections: Sequence[Section]
    readers: Readers | Mapping[str, Reader]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each person: subject and label."""
        people = cohort.table(self.sections).drop_duplicates("subject")
        return people[["subject", "label"]].reset_index(drop=True)

    @property
    def truth(self) -> np.ndarray:
        """(N,) class index of each person."""
        return metrics.class_index(self.table["label"])

    def rows(self, reader: str, part: str) -> list[np.ndarray]:
        """For each person, of all their sections, the array that a reader gives by this name."""
        found: dict[str, list[np.ndarray]] = {subject: [] for subject in self.table["subject"]}
        for section in self.sections:
            pictures = cohort.digest([section], list(section.channels))[:12]
            path = FOLDER / key(self.readers[reader]) / f"{section.section}-{pictures}.npz"
            if not path.exists():
                keep(self.readers[reader], self.root, section, path)
            with np.load(path) as kept:
                found[section.subject].append(kept[part])
        return [np.concatenate(arrays) for arrays in found.values()]


def keep(reader: Reader, root: Path, section: Section, path: Path) -> None:
    """Write what a reader reads of a section. Raises OutsideError where the disk is full."""
    arrays = reader.read(root, section)
    try:
        with files.whole(path) as aside, aside.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise OutsideError(
            f"{path}: cannot be written ({error.strerror or error}). Free the disk and run again: who was read stays."
        ) from error


def digest(subject: Mapping[str, Any]) -> str:
    """Of what was drawn of a person, without the name."""
    drawn = {key: value for key, value in subject.items() if key not in ("subject", "donor")}
    return hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()


def folder_of_pictures(people: Mapping[str, Any]) -> Path:
    """Where the pictures of a few people who are shown can lie: others, or other donors, have another folder."""
    about = hashlib.sha256(json.dumps(people, sort_keys=True).encode()).hexdigest()[:12]
    return FOLDER / f"pictures-{about}"


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


@dataclass(frozen=True, eq=False)
class Answers:
    """fits: a unit for each name that was asked for. people: rows subject and truth (0 or 1)."""

    fits: Units
    people: pd.DataFrame

    @cached_property
    def tables(self) -> list[pd.DataFrame]:
        """For each name, rows subject, truth and p (of "patient"), one for each patch or for each person."""
        return [
            self.people.loc[self.people.index.repeat(answers["patches"])]
            .reset_index(drop=True)
            .assign(p=answers["p_patient"])
            for answers in self.fits
        ]


def ask(
    answer: Callable[..., Sequence[np.ndarray]],
    names: Sequence[Mapping[str, Any]],
    outside: Outside,
    *,
    chapter: str,
    depends: Mapping[str, Any],
) -> Answers:
    """What models say of new people; it is read when it is used.

    answer: gives, for a name, for each person (n,) p of their patches, or one p. names: each is a unit. depends:
    what else the answers depend on beside the people.
    """

    def fit(twin: str | None, **name: Any) -> dict[str, Any]:
        of_people = answer(**name)
        p_patient = np.concatenate(of_people).astype(np.float32)
        return {"p_patient": p_patient, "patches": [len(of_person) for of_person in of_people]}

    asked = units.each(
        fit,
        [{**name, "twin": outside.twin or None} for name in names],
        made_by=sys.modules[__name__],
        chapter=chapter,
        depends=outside.depends | depends,
        prepare=outside.prepare,
        precision=bank.precision,
    )
    return Answers(asked, pd.DataFrame({"subject": outside.table["subject"], "truth": outside.truth}))


def ask_network(trained: TrainedNetwork, reader: str, outside: Outside, *, chapter: str) -> Answers:
    """What a network says of the patches of new people; each seed's training is a unit.

    reader: the name of the one that gives the network's maps.
    """

    def answer(seed: int, **name: Any) -> list[np.ndarray]:
        head = trained.by_seed[seed].head
        return [heads.p_patient(head, maps_nhwc) for maps_nhwc in outside.rows(reader, "maps")]

    names = [
        {"network": trained.network, "reader": reader, "seed": seed, "trained_as": head.key[:12]}
        for seed, head in trained.by_seed.items()
    ]
    return ask(answer, names, outside, chapter=chapter, depends={"read": outside.readers[reader].depends})


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
