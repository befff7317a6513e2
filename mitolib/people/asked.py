"""The models of the book, trained on the fourteen people of the paper's cohort, and what they say of new people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mitolib import metrics as core_metrics
from mitolib import transfer
from mitolib.metrics import Estimate
from mitolib.people import outside
from mitolib.people.arms import CHAPTER, OutsideTest, altered
from mitolib.people.bags import FibreBaseline, mean_of_maps
from mitolib.people.cohort_size import Resampled
from mitolib.people.material import Features, Material, Patches
from mitolib.people.metrics import by_subject, exact_interval, key, percentiles
from mitolib.people.models import Logistic
from mitolib.people.morphometry import GREY_LEVELS, OUTLINED
from mitolib.people.outside import Answers, Outside
from mitolib.people.readers import FIBRE_COLUMNS
from mitolib.settings import Profile
from mitolib.transfer import TrainedNetwork

COUNTS = "outlined fibres, counts"
PARTS = {GREY_LEVELS: "grey", COUNTS: "counts"}  # of what is read of new people
READERS = {"exp1": "one", "exp2": "several"}
SHOWN = {"accuracy": "right", "sensitivity": "sensitivity", "specificity": "specificity", "auc": "AUC"}


class _Pixels:
    """(N, 224, 224, C) uint8 of patches, cut when they are first read: a training that is kept needs none."""

    dtype = np.dtype(np.uint8)

    def __init__(self, patches: Patches) -> None:
        self._patches = patches
        self.shape = (len(patches.themselves), 224, 224, len(patches.experiment.proteins))

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self._patches.pixels_nhwc[""][rows]


def train_networks(material: Material, *, profile: Profile) -> dict[str, TrainedNetwork]:
    """VGG16 of experiments 1 and 2 by experiment, with all seeds, as their chapters train it and keep it."""
    trained = {}
    for name, part in material.experiments.items():
        table = material.data.table(part.experiment)
        digest = material.data.digest(part.experiment.proteins)
        task = transfer.Task(table, _Pixels(part), part.experiment, digest)
        trained[name] = transfer.train("VGG16", task, profile=profile)
    return trained


@dataclass(frozen=True, eq=False)
class Asked:
    """answers: model -> twin ("" for the people themselves) -> what it says. experiments: of heads, by model.

    altered: of `arms.altered`; whoever is not is not in the twin test. seed: of the bootstrap.
    """

    answers: Mapping[str, Mapping[str, Answers]]
    experiments: Mapping[str, str]
    altered: Sequence[Mapping[str, Any]]
    seed: int

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of the units."""
        found = [unit for by_twin in self.answers.values() for of in by_twin.values() for unit in of.fits.record]
        return [*found, *self.altered.record]

    def predictions(self, model: str, twin: str = "") -> pd.DataFrame:
        """Rows subject, truth and p, of all trainings."""
        return pd.concat(self.answers[model][twin].tables, ignore_index=True)

    def scores(self) -> dict[str, dict[str, Any]]:
        """Model -> `outside.scores`, the votes of all trainings pooled; trainings: the share called rightly by each."""
        found = {}
        for model in self.answers:
            each = [outside.scores(of)["accuracy"]["value"] for of in self.answers[model][""].tables]
            found[model] = outside.scores(self.predictions(model)) | {"trainings": each}
        return found

    def twins(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Model -> cured and afflicted -> of those called rightly, the share that the twin turns: exact intervals."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for model, by_twin in self.answers.items():
            altered = pd.Series(self.altered[0]["altered"] == 1, by_twin[""].people["subject"])
            people = by_subject(self.predictions(model))
            for twin, label in (("cured", 1), ("afflicted", 0)):
                if twin not in by_twin:
                    continue
                votes = by_subject(self.predictions(model, twin))["votes"] > 0.5
                before = people.loc[votes.index, "votes"] > 0.5
                right = (before == (label == 1)) & altered[votes.index]
                turned = int((right & (votes != before)).sum())
                n = int(right.sum())
                share = (
                    {"value": turned / n, "ci": list(exact_interval(turned, n))} if n else {"value": None, "ci": None}
                )
                found.setdefault(model, {})[twin] = share | {"n": n}
        return found

    def over_networks(self) -> dict[str, dict[str, Any]]:
        """Model that sees pictures -> by how much the AUC of the fibres' grey levels exceeds its own, people paired."""
        people = {model: by_subject(self.predictions(model)) for model in self.answers}
        baseline = people[GREY_LEVELS]
        drawn = Resampled.of(baseline["truth"].to_numpy(), 1, np.random.default_rng(self.seed))
        areas = {model: drawn.auc(of.loc[baseline.index, "score"].to_numpy()[None]) for model, of in people.items()}
        return {
            model: {
                "value": float((areas[GREY_LEVELS] - areas[model])[0]),
                "ci": percentiles((areas[GREY_LEVELS] - areas[model])[1:]),
                "n": len(baseline),
            }
            for model in self.answers
            if model not in PARTS
        }

    def table(self) -> pd.DataFrame:
        """For reading, a row for each model."""
        twins = self.twins()
        rows = {}
        for model, scores in self.scores().items():
            rows[model] = {title: str(Estimate(**scores[name])) for name, title in SHOWN.items()}
            rows[model] |= {f"{twin} turned": str(Estimate(**share)) for twin, share in twins.get(model, {}).items()}
            least, most = min(scores["trainings"]), max(scores["trainings"])
            rows[model]["trainings, right"] = (
                f"{len(scores['trainings'])}: {least:.2f} to {most:.2f}" if len(scores["trainings"]) > 1 else "1"
            )
        return pd.DataFrame(rows).T.rename_axis("model")

    def record(self) -> dict[str, Any]:
        """For a results file; models by `metrics.key`."""
        twins, over = self.twins(), self.over_networks()
        return {
            key(model): scores
            | {"called": model, "experiment": self.experiments.get(model), "twins": twins.get(model, {})}
            | ({"fibres_minus_this": over[model]} if model in over else {})
            for model, scores in self.scores().items()
        }


def on_one_scale(
    asked: Asked, trained: Mapping[str, TrainedNetwork], published: Mapping[str, float]
) -> dict[str, dict[str, Estimate]]:
    """Where it was scored -> model -> accuracy: of heads as published and ours on patches, of all over new people.

    published: accuracy by experiment. Ours in the mean over the trainings, in brackets where one more would lie.
    """
    new = {model: Estimate(**of["accuracy"]) for model, of in asked.scores().items()}
    ours = {
        model: core_metrics.further_training(trained[experiment].seeds["accuracy"], within=(0, 1))
        for model, experiment in asked.experiments.items()
    }
    printed = {model: Estimate(published[experiment]) for model, experiment in asked.experiments.items()}
    return {"as published": printed, "ours, same split": ours, "new people": new}


def commoner_class(trained: Mapping[str, TrainedNetwork], test: OutsideTest) -> dict[str, float]:
    """Where it was scored, see `on_one_scale` -> accuracy of always giving the commoner class, of the first network."""
    published = next(iter(trained.values())).first.task.baseline("test")
    new = core_metrics.majority_baseline(test.people.truth)
    return {"as published": published, "ours, same split": published, "new people": new}


def ask(
    material: Material,
    features: Mapping[str, Features],
    trained: Mapping[str, TrainedNetwork],
    test: OutsideTest,
    *,
    seed: int,
) -> Asked:
    """Ask every model of the book of the people of the outside test and of their twins.

    features: of `material.features`, of which VGG16's are read. trained: of `train_networks`. seed: of the bootstrap.
    """
    afflicted, cured = test.twins
    groups = {"": test.people, "cured": cured, "afflicted": afflicted}
    answers: dict[str, dict[str, Answers]] = {}
    experiments: dict[str, str] = {}
    by_experiment = {of.patches.experiment.name: of for of in features.values() if of.network == "VGG16"}
    for experiment, network in trained.items():
        proteins = by_experiment[experiment].proteins
        proteins = f"{proteins} proteins" if len(network.first.task.experiment.proteins) > 1 else proteins
        reader = READERS[experiment]
        name, logistic = f"VGG16, {proteins}", f"logistic regression, {proteins}"
        experiments[name] = experiment
        for twin, group in groups.items():
            head = outside.ask_network(network, reader, group, chapter=CHAPTER)
            answers.setdefault(name, {})[twin] = head
            of_features = _ask_logistic(logistic, by_experiment[experiment], reader, group)
            answers.setdefault(logistic, {})[twin] = of_features
    for name in PARTS:
        answers[name] = {twin: _ask_fibres(name, material, group) for twin, group in groups.items()}
    return Asked(answers, experiments, altered(test), seed)


def _ask_logistic(name: str, features: Features, reader: str, group: Outside) -> Answers:
    """Of a logistic regression on the frozen features of all patches of the fourteen."""

    def answer(**_: Any) -> Sequence[np.ndarray]:
        rows = features.patches.rows
        train = np.flatnonzero(rows["twin"] == "")
        pipeline = Logistic(features.pooled, features.patches.taught).fit(train)
        return [pipeline.predict_proba(mean_of_maps(maps))[:, 1] for maps in group.rows(reader, "maps")]

    depends = features.depends(twins=False) | {"read": group.readers[reader].depends, "penalty": Logistic.penalty}
    return outside.ask(answer, [{"network": name}], group, chapter=CHAPTER, depends=depends)


def _ask_fibres(name: str, material: Material, group: Outside) -> Answers:
    """Of the fibre baseline, fitted to the fibres of the fourteen: one answer for each person."""

    def answer(**_: Any) -> Sequence[np.ndarray]:
        people = material.people
        fibres = material.fibres.tables[name]
        of_trained = [
            fibres.loc[fibres["subject"] == subject, list(FIBRE_COLUMNS)].to_numpy() for subject in people["subject"]
        ]
        fitted = FibreBaseline().fit(of_trained, core_metrics.class_index(people["label"]))
        return fitted.p(group.rows("fibres", PARTS[name]))[:, None]

    depends = {"pictures": material.data.digest(OUTLINED), "read": group.readers["fibres"].depends}
    return outside.ask(answer, [{"network": name}], group, chapter=CHAPTER, depends=depends)
