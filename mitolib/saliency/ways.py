"""Ways to ask a network why: every method of `methods.METHODS`, on the same patches, put to the same tests.

    networks = ways.build_networks(tasks, profile=run)
    ways.measure(networks, tested, methods, budget=budget, seed=run.seed).record(rng=rng)

To what the Grad-CAM chapter asks of its methods two questions are added. What is left of a map when the layers of the
head are drawn anew, and the backbone is kept? What share of the score arrives at the pixels? Units of maps are those of
the Grad-CAM chapter: what was computed for one of the two is found by the other.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import bank, patches, transfer, units
from mitolib.own_data import LeftOut
from mitolib.saliency import cam, methods
from mitolib.saliency.budget import Budget
from mitolib.saliency.control import Networks, of_experiments
from mitolib.saliency.measurements import Measured, ask_falling, ask_of_maps
from mitolib.saliency.methods import GAP, LAYERS, METHODS, Method, left_out, runs
from mitolib.saliency.network import Network, by_patch
from mitolib.saliency.randomisation import ALIKE, mean_by_patch
from mitolib.saliency.summary import differences, estimates
from mitolib.saliency.truth import Gallery, HeldOutPatches
from mitolib.saliency.ways_conclusions import claims, listed
from mitolib.settings import Profile

__all__ = ["Ways", "build_networks", "claims", "listed", "measure", "methods_named", "table"]

CHAPTER = "explanations"
PROTOCOL = 1  # of the network that CAM explains; raise it when it would come out otherwise
OF_ONE_DENSE = ("Grad-CAM", "CAM")  # what explains the network of one Dense
LEAST_SCORE = 1.0  # log odds nearer to 0 have no share that could arrive
TABLE = {  # column -> score
    "AUPRC": "auprc",
    "pointing": "pointing",
    "removal": "deletion_minus_random",
    "fibres": "causal_rank_correlation",
    "redrawn": "head_redrawn",
    "other": "another_patch",
    "arrives": "arriving",
}


_RANK = ALIKE.index("spearman")


@dataclass(frozen=True, eq=False)
class MeanHead(transfer.TrainedHead):
    """A logistic regression on the means of a layer's maps: the head of the network that CAM explains."""

    @cached_property
    def model(self) -> keras.Model:
        """The whole network, see `cam.gap_network`."""
        fit = self.fits[self.place]
        return cam.gap_network(self.frozen.backbone, fit["kernel"], fit["bias"])


def build_networks(tasks: Mapping[str, transfer.Task], *, profile: Profile) -> Networks:
    """The networks of the experiments, by whose names tasks are, and one of the first with a single Dense, for CAM."""
    of_one_dense = Network(GAP, train_mean_head(tasks["exp1"], profile=profile))
    return Networks({**of_experiments(tasks, profile), GAP: of_one_dense}, {}, {})


def train_mean_head(task: transfer.Task, *, profile: Profile) -> MeanHead:
    """The regression on VGG16's last convolution, of the training patches as they are, as a unit."""
    frozen = transfer.Frozen("VGG16", task, profile=profile, cut=LAYERS["VGG16"])

    def maps_of(part: str) -> np.ndarray:
        rows = task.rows(part)
        label = f"{GAP}, {part} features"
        return bank.Bank(frozen.backbone, task.patches_nhwc, rows=rows, prepare=patches.as_input, label=label).all()

    def fit(network: str) -> units.Result:
        pipeline = cam.fitted_on_means(maps_of("train"), task.classes[task.rows("train")])
        kernel, bias = cam.folded(pipeline)
        p_patient = cam.p_patient(pipeline, maps_of("test"))
        return {"p_patient": p_patient.astype(np.float32), "kernel": kernel, "bias": bias}

    fits = units.each(
        fit,
        [{"network": GAP}],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends=task.depends | {"cut": frozen.cut, "weights": frozen.weights.sha256, "penalty": cam.PENALTY},
        prepare=lambda: (maps_of("train"), maps_of("test")),
        precision=bank.precision,
    )
    return MeanHead(frozen, fits, 0)


@dataclass(frozen=True, eq=False)
class Ways:
    """Units of all networks and methods, brought together for the page."""

    measured: Measured
    falls: Mapping[str, Mapping[str, units.Units]] = field(default_factory=dict)  # model -> method -> one for each seed

    @property
    def models(self) -> list[str]:
        """The networks by name."""
        return list(self.measured.networks.explained)

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of them, the trainings of the networks first."""
        drawn = [each for by_method in self.falls.values() for each in by_method.values()]
        return self.measured.units + [record for each in drawn for record in each.record]

    @property
    def handed_down(self) -> dict[str, dict[str, dict[str, Any]]]:
        """model -> method of relevance propagation -> its unit, with what is left of the score on the way down."""
        return {
            model: {
                method: found[0]
                for method, found in by_what.items()
                if method in self.falls[model] and "left" in found[0]
            }
            for model, by_what in self.measured.found.items()
        }

    @property
    def budget(self) -> dict[str, dict[str, Any]]:
        """What was run, for each network: the `budget` entry of the record."""
        return {
            model: entry | {"methods": len(self.falls[model]), "cascaded": self.measured.asked.cascaded}
            for model, entry in self.measured.budget.items()
        }

    @property
    def left_out(self) -> LeftOut | None:
        """Which methods the backend of Keras does without."""
        return left_out(self.measured.asked.ways or METHODS)

    def gallery(self, model: str, n: int) -> Gallery:
        """See `Measured.gallery`."""
        return self.measured.gallery(model, n)

    @cached_property
    def likeness(self) -> pd.DataFrame:
        """Index model, method, stage; columns of ALIKE, to the trained network's map: means over patches and seeds."""
        rows = {
            (model, method, stage): np.nanmean(stacks, axis=(0, 1)) if np.isfinite(stacks).any() else (np.nan, np.nan)
            for model, by_method in self.falls.items()
            for method, drawn in by_method.items()
            for stage, stacks in self._by_stage(drawn).items()
        }
        return pd.DataFrame(rows, index=ALIKE).T.rename_axis(["model", "method", "stage"])

    @staticmethod
    def _by_stage(drawn: units.Units) -> dict[str, np.ndarray]:
        """Stage -> (seeds, N, measures)."""
        names = drawn[0]["stages"]
        return dict(zip(names, np.stack([found["similarity"] for found in drawn], axis=1).astype(float), strict=True))

    @cached_property
    def account(self) -> pd.DataFrame:
        """Share of the score that is left below each layer: the median over patches that are at least LEAST_SCORE sure.

        Index model, method, layer (from the top down); columns left and n.
        """
        rows = {}
        for model, by_method in self.handed_down.items():
            for method, found in by_method.items():
                sure = np.abs(found["score"]) >= LEAST_SCORE
                for layer, left in zip(found["layers"], found["left"], strict=True):
                    share = float(np.median(left[sure])) if sure.any() else np.nan
                    rows[model, method, layer] = {"left": share, "n": int(sure.sum())}
        index = pd.MultiIndex.from_frame(pd.DataFrame(list(rows), columns=["model", "method", "layer"]))
        return pd.DataFrame(list(rows.values()), index=index, columns=["left", "n"])

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Index model, method, patch; a column for each score, NaN where it is undefined or was not asked.

        head_redrawn, all_redrawn: rank correlation with the trained network's map, mean over the seeds; another_patch:
        of different patches' maps; classes: of the maps for the two classes under a redrawn head; arriving: share of
        the score that reaches the pixels.
        """
        scores = self.measured.localised.scores.copy()
        scores["deletion_minus_random"] = by_patch(self.measured.perturbed.removal)["deletion"]
        if self.measured.perturbed.ranks:
            scores["causal_rank_correlation"] = by_patch(self.measured.perturbed.ranks)
        found: dict[str, dict[str, pd.DataFrame]] = {}
        handed_down = self.handed_down
        for model, by_method in self.falls.items():
            for method, drawn in by_method.items():
                table = self._randomised(drawn)
                different = self.measured.found[model][method][0]["different"]
                table = table.reindex(range(len(different))).assign(another_patch=different[:, _RANK].astype(float))
                if method in handed_down[model]:
                    handed = handed_down[model][method]
                    sure = np.abs(handed["score"]) >= LEAST_SCORE
                    table["arriving"] = np.where(sure, handed["left"][-1], np.nan)
                found.setdefault(model, {})[method] = table
        return scores.join(by_patch(found))

    @staticmethod
    def _randomised(drawn: units.Units) -> pd.DataFrame:
        """One row for each patch that is followed."""
        by_seed = []
        for found in drawn:
            alike = found["similarity"][..., _RANK]
            columns = {"head_redrawn": alike[found["stages"].index(found["whole_head"])], "all_redrawn": alike[-1]}
            by_seed.append(pd.DataFrame({**columns, "classes": found["classes"][:, _RANK]}).astype(float))
        return mean_by_patch(by_seed)

    def record(self, *, rng: Generator) -> dict[str, Any]:
        """What the results file says: every score with its interval over people, and the names that claims list."""
        subjects = {
            model: self.measured.tested[network.experiment.name].subjects
            for model, network in self.measured.networks.explained.items()
        }
        scores = self.scores
        compared = differences(scores, {}).join(_differences(scores))
        methods, gaps = estimates(scores, subjects, rng=rng), estimates(compared, subjects, rng=rng)
        trained = {model: network.trained for model, network in self.measured.networks.explained.items()}
        return {
            "scores": {model: head.scores for model, head in trained.items()},
            "methods": methods,
            "differences": gaps,
            "redrawn_from_the_top": {
                model: {method: of.droplevel([0, 1]).T.to_dict() for method, of in table.groupby(level="method")}
                for model, table in self.likeness.groupby(level="model")
            },
            "account": {
                model: {m: rows.droplevel([0, 1]).T.to_dict() for m, rows in table.groupby(level="method")}
                for model, table in self.account.groupby(level="model")
            },
            "followed": self.measured.asked.cascaded,
            "sure": {  # patches whose score has a share that could arrive
                model: {
                    method: int((np.abs(found["score"]) >= LEAST_SCORE).sum()) for method, found in by_method.items()
                }
                for model, by_method in self.handed_down.items()
            },
            "shown": self.measured.networks.shown,
        }


def _differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Each map against others, patch by patch, in rank correlation: the same index."""
    columns = {
        "head_redrawn_minus_another_patch": scores["head_redrawn"] - scores["another_patch"],
        "all_redrawn_minus_another_patch": scores["all_redrawn"] - scores["another_patch"],
    }
    by_method = scores["head_redrawn"].unstack("method")
    for rival in [name for name in ("saliency", "guided backpropagation") if name in by_method]:
        of_rival = by_method[rival].reindex(scores.index.droplevel("method")).to_numpy()
        columns[f"head_redrawn_minus_{rival}"] = scores["head_redrawn"] - of_rival
    return pd.DataFrame(columns)


def table(record: Mapping[str, Any], model: str) -> pd.DataFrame:
    """A row for each method and map without a network, a column for each question of TABLE that was asked: means."""
    by_method = record["methods"][model]
    rows = {
        method: {column: scores[name].value for column, name in TABLE.items() if name in scores}
        for method, scores in by_method.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype(float).dropna(axis=1, how="all").rename_axis(model)


def measure(
    networks: Networks,
    tested: Mapping[str, HeldOutPatches],
    asked: Mapping[str, Method],
    *,
    budget: Budget,
    seed: int,
) -> Ways:
    """Ask for all units of the chapter, and compute those that are not kept.

    tested: by the name of the experiment. asked: of METHODS; each explains the networks that it fits, and the one of
    a single Dense is explained by OF_ONE_DENSE alone. seed: as of `measurements.measure`.
    Raises what the methods raise, and `units.UnitError`.
    """
    found: dict[str, dict[str, units.Units]] = {}
    falls: dict[str, dict[str, units.Units]] = {}
    for model, network in networks.explained.items():
        held_out = tested[network.experiment.name]
        fitting = methods_of(model, asked)
        found[model] = ask_of_maps(network, held_out, fitting, budget=budget, seed=seed)
        for method, compute in fitting.items():
            every = model == "VGG16" and method in budget.followed
            drawn = ask_falling(network, held_out, method, compute, budget=budget, seed=seed, every=every)
            falls.setdefault(model, {})[method] = drawn
    names = list(dict.fromkeys(method for by_method in falls.values() for method in by_method))
    return Ways(Measured(networks, tested, names, budget, found), falls)


def methods_named(text: str | None, budget: Budget) -> dict[str, Method]:
    """Grad-CAM and those named, names with a comma between them; for None those of the budget that run here.

    A budget that names none means all. See `methods.methods_named` for what is refused.
    """
    of_budget = [name for name in budget.ways or METHODS if runs(METHODS[name])]
    return methods.methods_named(of_budget if text is None else text)


def methods_of(model: str, asked: Mapping[str, Method]) -> dict[str, Method]:
    """Those that explain a network of this chapter."""
    if model == GAP:
        return {name: method for name, method in asked.items() if name in OF_ONE_DENSE}
    return {name: method for name, method in asked.items() if "VGG16" in method.networks}
