"""What is measured of the networks, as units: one network and one method, or one network and what needs no method.

    measured = saliency.measure(networks, tested, methods, budget=run.saliency, seed=run.seed)
    measured.localised, measured.randomised(rng), measured.perturbed

A unit of a method computes the maps of one network by it, and all that is asked of them. Maps of all pixels are not
kept: only what was measured of them, and the few that a figure shows. Beside these a network has units of what its maps
are held against (`YARDSTICKS`) and of Grad-CAM of a few patches for both classes (`EXAMPLES`); VGG16 has one of
Grad-CAM with stage after stage drawn anew (`STAGES`). Each starts from the seed, whatever was computed before it. Units
that are kept need no network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.random import Generator

from mitolib import patches, units
from mitolib.metrics import interval
from mitolib.networks import INPUT_PX
from mitolib.saliency.baselines import without_network
from mitolib.saliency.localisation import SCORES, Localisation, localise, score
from mitolib.saliency.maps import enlarge, unit
from mitolib.saliency.network import PATIENT, Network
from mitolib.saliency.perturbation import (
    Perturbation,
    causal_rank,
    fibres_to_restore,
    mean_over_fibres,
    remove,
    restore,
)
from mitolib.saliency.randomisation import Randomisation, different_patches, similarity, stages
from mitolib.saliency.truth import Gallery, HeldOutPatches, outlines
from mitolib.settings import LABELS, SaliencyBudget

# Of all units here. Raise it when one would come out otherwise: by a method of METHODS, a score of maps, how a patch is
# altered or its twin is shown, which patches are examples, or what is drawn at random and in which order.
PROTOCOL = 1
CHAPTER = "gradcam"
EXAMPLES, YARDSTICKS, STAGES = "examples", "yardsticks", "stages"
SHOWN = 3  # patches in the gallery
REMOVAL, ALIKE = ["deletion", "insertion"], ["ssim", "spearman"]  # columns of `remove` and of `similarity`

Method = Callable[..., np.ndarray]  # of METHODS


@dataclass(frozen=True)
class Examples:
    """Test patches with the maps of both classes, ready to be drawn."""

    patches_nyx: np.ndarray  # (N, H, W) 0-255, the first protein
    maps: Mapping[str, np.ndarray]  # class -> (N, H, W), raw
    masks_nyx: np.ndarray  # (N, H, W) bool: deficient fibres, where they are known
    rows: pd.DataFrame  # subject, label, p_patient, predicted


@dataclass(frozen=True, eq=False)
class Measured:
    """Units of all networks, brought together for the page. A table has a row per patch, model is a network's name."""

    networks: Mapping[str, Network]
    tested: Mapping[str, HeldOutPatches]  # by the name of the experiment
    asked: Mapping[str, Sequence[str]]  # model -> what was measured, in the order of its units
    fits: Mapping[str, units.Units]

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of them, the trainings of the networks first."""
        trained = [record for network in self.networks.values() for record in network.units]
        return trained + [record for fits in self.fits.values() for record in fits.record]

    def examples(self, model: str, root: str | Path) -> Examples:
        """One test patch of each class that was recognised and one that was not, where they occur.

        root: the data folder.
        """
        found, trained = self._unit(model, EXAMPLES), self.networks[model].trained
        rows = trained.calls.loc[found["rows"]]
        maps = {label: enlarge(found["maps"][:, i], INPUT_PX) for i, label in enumerate(LABELS)}
        return Examples(trained.task.patches_nhwc[rows.index, ..., 0], maps, outlines(root, rows), rows)

    def gallery(self, model: str) -> Gallery:
        """The maps of one network on the first patches, and those without a network."""
        held_out = self._held_out(model).first(SHOWN)
        maps = {method: self._unit(model, method)["shown"].astype(np.float32) for method in self._methods(model)}
        rng = np.random.default_rng(0)  # of the map of random numbers, which is not shown
        return held_out.gallery(maps | without_network(held_out.patches_nhwc, held_out.ndufb8_vdac1, rng=rng), n=SHOWN)

    @cached_property
    def localised(self) -> Localisation:
        """Do maps find the deficient fibres?"""
        tables: dict[str, dict[str, pd.DataFrame]] = {}
        for model, method, found, place in self._of_maps():
            table = pd.DataFrame(index=range(len(self._held_out(model))))
            if self._held_out(model).has_truth:
                table = pd.DataFrame(found["localisation"][place], columns=list(SCORES))
            tables.setdefault(model, {})[method] = table
        return localise(tables, self.networks, self.tested)

    def randomised(self, rng: Generator) -> Randomisation:
        """Do maps follow the network? rng: of the interval over subjects."""
        alike: dict[str, dict[str, pd.DataFrame]] = {}
        others: dict[str, dict[str, pd.DataFrame]] = {}
        for model, method, found, _ in self._of_maps():
            for tables, entry in ((alike, "alike"), (others, "others")):
                if entry in found:
                    tables.setdefault(model, {})[method] = pd.DataFrame(found[entry], columns=ALIKE)
        labels = {}
        if "VGG16-shuffled" in self.networks:
            true, shuffled = (self._unit(model, "Grad-CAM")["maps"] for model in ("VGG16", "VGG16-shuffled"))
            by_labels = similarity(true, shuffled)
            labels = {measure: interval(by_labels[measure], self.tested["exp1"].subjects, rng=rng) for measure in ALIKE}
        falling = self._unit("VGG16", STAGES)
        return Randomisation(
            pd.DataFrame(falling["similarity"], falling["stages"], ALIKE),
            others["VGG16"]["Grad-CAM"].mean(),
            alike,
            others,
            labels,
        )

    @cached_property
    def perturbed(self) -> Perturbation:
        """Does the network react to what maps mark?"""
        removal: dict[str, dict[str, pd.DataFrame]] = {}
        effects: dict[str, pd.DataFrame] = {}
        ranks: dict[str, dict[str, pd.Series]] = {}
        for model, method, found, place in self._of_maps():
            at_random = self._unit(model, YARDSTICKS)
            same_px = at_random["at_random_px"].index(found["map_px"][place])
            less_random = found["removal"][place] - at_random["at_random"][same_px]
            removal.setdefault(model, {})[method] = pd.DataFrame(less_random, columns=REMOVAL)
            if "fibres" in at_random:
                restored = pd.DataFrame(at_random["fibres"]).assign(relevance=found["relevance"][place])
                ranks.setdefault(model, {})[method] = pd.Series(causal_rank(restored, len(less_random)))
                if method == "Grad-CAM":
                    effects[model] = restored
        return Perturbation(removal, effects, ranks)

    def _held_out(self, model: str) -> HeldOutPatches:
        return self.tested[self.networks[model].experiment.name]

    def _methods(self, model: str) -> list[str]:
        """Those with a network behind them."""
        return [what for what in self.asked[model] if what not in (EXAMPLES, YARDSTICKS, STAGES)]

    def _unit(self, model: str, what: str) -> dict[str, Any]:
        return self.fits[model][list(self.asked[model]).index(what)]

    def _of_maps(self) -> Iterator[tuple[str, str, dict[str, Any], int]]:
        """Model, method, the unit that has it, and its place there; methods with a network behind them first."""
        for model in self.asked:
            for what in (*self._methods(model), YARDSTICKS):
                found = self._unit(model, what)
                for place, method in enumerate(found["methods"]):
                    yield model, method, found, place


def measure(
    networks: Mapping[str, Network],
    tested: Mapping[str, HeldOutPatches],
    methods: Mapping[str, Method],
    *,
    budget: SaliencyBudget,
    seed: int,
) -> Measured:
    """Ask for all units of the chapter, and compute those that are not kept.

    tested: by the name of the experiment. methods: of METHODS; a control gets Grad-CAM alone. seed: of all that is
    random. Raises what the methods raise, and `units.UnitError`.
    """
    asked, fits = {}, {}
    for name, network in networks.items():
        held_out = tested[network.experiment.name]
        asked[name] = [YARDSTICKS, "Grad-CAM"] if network.is_control else [EXAMPLES, YARDSTICKS, *methods]
        if name == "VGG16":
            asked[name].append(STAGES)
        fits[name] = units.each(
            partial(_fit, network, held_out, methods, budget, seed),
            [{"network": name, "measured": what} for what in asked[name]],
            made_by=sys.modules[__name__],
            chapter=CHAPTER,
            depends={"head": network.trained.key, "budget": vars(budget), "seed": seed} | dict(held_out.depends),
        )
    return Measured(networks, tested, asked, fits)


def _fit(
    explained: Network,
    held_out: HeldOutPatches,
    methods: Mapping[str, Method],
    budget: SaliencyBudget,
    seed: int,
    *,
    network: str,
    measured: str,
) -> units.Result:
    """A unit of the network that the page calls `network`."""
    keras.utils.set_random_seed(seed)  # SmoothGrad draws its noise from numpy's own
    if measured == EXAMPLES:
        return _examples(explained, seed)
    if measured == YARDSTICKS:
        return _yardsticks(explained, held_out, budget, seed)
    if measured == STAGES:
        falling = stages(explained, held_out)
        return {"stages": list(falling.index), "similarity": falling[ALIKE].to_numpy()}
    return _of_method(explained, held_out, measured, methods[measured], budget, seed)


def _examples(explained: Network, seed: int) -> units.Result:
    """rows: labels in the patch table; maps: (N, classes, h, w) float32."""
    mixed = explained.trained.calls.sample(frac=1, random_state=seed)
    rows = mixed.groupby(["label", "predicted"]).head(1).sort_values(["label", "predicted"]).index
    batch_nhwc = patches.as_input(explained.trained.task.patches_nhwc[rows])
    maps = [explained.camera(batch_nhwc, i) for i in range(len(LABELS))]
    return {"rows": rows.to_numpy(), "maps": np.stack(maps, axis=1)}


def _of_method(
    explained: Network, held_out: HeldOutPatches, method: str, compute: Method, budget: SaliencyBudget, seed: int
) -> units.Result:
    """As `_scores`, and shown: (patches, h, w) float16, stretched to 0-1; of Grad-CAM maps: (N, h, w), raw.

    alike: (altered, measures) similarity to the map of a network drawn anew; others: (N, measures) to the next patch's.
    """
    compute = partial(compute, layer=explained.layer, samples=budget.samples)
    batch_nhwc = patches.as_input(held_out.patches_nhwc)
    maps_nhw = compute(explained.model, batch_nhwc, PATIENT)
    result = _scores(explained, held_out, {method: maps_nhw}, budget, seed)
    result["shown"] = unit(maps_nhw[:SHOWN]).astype(np.float16)
    if method == "Grad-CAM":
        result["maps"] = maps_nhw
    if not explained.is_control:
        # Another seed than the network's own, of which layers that were never trained would come out as they were.
        keras.utils.set_random_seed(seed + 1)
        untrained = keras.models.clone_model(explained.model)
        random_nhw = compute(untrained, batch_nhwc[: budget.altered], PATIENT)
        result["alike"] = similarity(maps_nhw[: budget.altered], random_nhw)[ALIKE].to_numpy()
        result["others"] = different_patches(maps_nhw)[ALIKE].to_numpy()
    return result


def _yardsticks(explained: Network, held_out: HeldOutPatches, budget: SaliencyBudget, seed: int) -> units.Result:
    """As `_scores`, of the maps without a network; removal at random; and what each restored fibre is worth.

    at_random: (resolutions, altered, scores), by maps of random numbers of as many px as at_random_px says, since blobs
    and scattered pixels do not take away the same. fibres: columns patch, fibre and effect; absent without twins.
    """
    rng = np.random.default_rng(seed)
    baselines = without_network(held_out.patches_nhwc, held_out.ndufb8_vdac1, rng=rng)
    result = _scores(explained, held_out, baselines, budget, seed)
    altered = held_out.first(budget.altered)
    layer_px = explained.model.get_layer(explained.layer).output.shape[1]
    resolutions = list(dict.fromkeys([layer_px, held_out.patches_nhwc.shape[1]]))
    at_random = {size_px: rng.random((len(altered), size_px, size_px)) for size_px in resolutions}
    result |= {"at_random_px": resolutions, "at_random": _removal(explained, altered, at_random, budget, seed)}
    if held_out.twins_nhwc is not None:
        effects = restore(
            explained.log_odds,
            altered.patches_nhwc,
            altered.twins_nhwc,
            altered.fibres_nyx,
            altered.deficient,
            most=budget.fibres,
        )
        result["fibres"] = effects.astype({"patch": int, "fibre": int, "effect": float}).to_dict("list")
    return result


def _scores(
    explained: Network, held_out: HeldOutPatches, maps: Mapping[str, np.ndarray], budget: SaliencyBudget, seed: int
) -> dict[str, Any]:
    """What any map is asked. methods: names; map_px: side of their maps; and arrays with a row for each method:

    localisation (methods, N, scores), with truth; removal (methods, altered, scores); relevance (methods, fibres), the
    mean over each fibre that is restored, where there are twins.
    """
    altered = held_out.first(budget.altered)
    result = {
        "methods": list(maps),
        "map_px": [stack.shape[1] for stack in maps.values()],
        "removal": _removal(explained, altered, maps, budget, seed),
    }
    if held_out.has_truth:
        result["localisation"] = np.stack([score(stack, held_out.masks_nyx).to_numpy() for stack in maps.values()])
    if altered.twins_nhwc is not None:
        fibres = fibres_to_restore(altered.deficient, most=budget.fibres)
        relevance = [mean_over_fibres(stack, altered.fibres_nyx, fibres) for stack in maps.values()]
        result["relevance"] = np.stack(relevance).astype(float)
    return result


def _removal(
    explained: Network, altered: HeldOutPatches, maps: Mapping[str, np.ndarray], budget: SaliencyBudget, seed: int
) -> np.ndarray:
    """(maps, altered, scores). Each map meets the same noise."""
    return np.stack(
        [
            remove(
                explained.log_odds,
                altered.patches_nhwc,
                stack[: len(altered)],
                shares=budget.shares,
                rng=np.random.default_rng([seed, 1]),
            )[REMOVAL].to_numpy()
            for stack in maps.values()
        ]
    )
