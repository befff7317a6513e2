"""What is measured of the networks, as units, and brought together for the page.

    measured = saliency.measure(networks, tested, methods, budget=saliency.BUDGETS[run.name], seed=run.seed)
    measured.localised, measured.randomised, measured.perturbed

A network that is explained has a unit for each method; one of what its maps are held against (`YARDSTICKS`); one of
what its fibres are worth to it (`RESTORATION`); and for each method and seed one with all its weights drawn anew. VGG16
also has, for each seed, one of Grad-CAM with stage after stage drawn anew. A control has Grad-CAM alone.
Units that are kept need no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mitolib import units
from mitolib.networks import INPUT_PX
from mitolib.own_data import LeftOut
from mitolib.saliency import fits
from mitolib.saliency.baselines import without_network
from mitolib.saliency.budget import Budget
from mitolib.saliency.control import BATCH_SIZE, PASSES, POOLED, Networks
from mitolib.saliency.fits import CHAPTER, SHADES
from mitolib.saliency.localisation import SCORES, Localisation, localise
from mitolib.saliency.maps import enlarge
from mitolib.saliency.methods import OF_GRAD_CAM_CHAPTER, Method, left_out
from mitolib.saliency.network import UNTRAINED, Network
from mitolib.saliency.perturbation import REMOVAL, Perturbation, causal_rank
from mitolib.saliency.randomisation import ALIKE, Randomisation, different_patches, mean_by_patch, similarity
from mitolib.saliency.truth import Gallery, HeldOutPatches, outlines
from mitolib.settings import LABELS

EXAMPLES, YARDSTICKS, RESTORATION = "examples", "yardsticks", "restoration"


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

    networks: Networks
    tested: Mapping[str, HeldOutPatches]  # by the name of the experiment
    methods: Sequence[str]  # with a network behind them
    asked: Budget
    found: Mapping[str, Mapping[str, units.Units]] = field(default_factory=dict)  # model -> what was measured -> a unit
    redrawn: Mapping[str, Mapping[str, units.Units]] = field(default_factory=dict)  # model -> method -> one per seed
    stages: units.Units | None = None  # of VGG16, one per seed

    @property
    def budget(self) -> dict[str, dict[str, int]]:
        """What was run, for each network: the `budget` entry of the record. The draws of labels are one entry."""
        found = {}
        for model in self.networks.explained:
            n = len(self._held_out(model))
            found[model] = {"explained": n, "altered": min(n, self.asked.altered), "redraws": self.asked.redraws}
            found[model] |= {"methods": len(self.methods), "samples": self.asked.samples, "fibres": self.asked.fibres}
        found |= {model: {"explained": len(self._held_out(model))} for model in self.networks.untrained}
        if draws := len(self.networks.permuted):
            trained = {"draws": draws, "passes": PASSES, "batch_size": BATCH_SIZE}
            found[POOLED] = {"explained": len(self._held_out("VGG16"))} | trained
        return found

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of them, the trainings of the networks first."""
        trained = [record for network in self.networks.all.values() for record in network.units]
        asked = [each for by_what in (*self.found.values(), *self.redrawn.values()) for each in by_what.values()]
        return trained + [record for each in (*asked, self.stages) if each is not None for record in each.record]

    def examples(self, model: str, root: str | Path, *, recognised_only: bool = False) -> Examples:
        """One test patch of each class that was recognised and one that was not, where they occur.

        root: the data folder. recognised_only: without the others, where at least one was recognised.
        """
        found, trained = self._unit(model, EXAMPLES), self.networks.all[model].trained
        rows = trained.calls.loc[found["rows"]]
        recognised = (rows["label"] == rows["predicted"]).to_numpy()
        kept = recognised if recognised_only and recognised.any() else np.full(len(rows), True)
        rows = rows[kept]
        maps = {label: enlarge(found["maps"][kept, i], INPUT_PX) for i, label in enumerate(LABELS)}
        return Examples(trained.task.patches_nhwc[rows.index, ..., 0], maps, outlines(root, rows), rows)

    def gallery(self, model: str, n: int = 3) -> Gallery:
        """The maps of one network on the first n patches, at most SHOWN, and those without a network."""
        held_out = self._held_out(model).first(n)
        maps = {
            method: self._unit(model, method)["shown"] / SHADES
            for method in self.methods
            if method in self.found[model]
        }
        rng = np.random.default_rng(0)  # of the map of random numbers, which is not shown
        return held_out.gallery(maps | without_network(held_out.patches_nhwc, held_out.ndufb8_vdac1, rng=rng), n=n)

    @cached_property
    def localised(self) -> Localisation:
        """Do maps find the deficient fibres?"""
        tables: dict[str, dict[str, pd.DataFrame]] = {}
        for model, method, found, place in self._of_maps(self.networks.all):
            table = pd.DataFrame(index=range(len(self._held_out(model))))
            if self._held_out(model).has_truth:
                table = pd.DataFrame(found["localisation"][place].astype(float), columns=list(SCORES))
            tables.setdefault(model, {})[method] = table
        return localise(tables, self.networks.explained, self.tested)

    @cached_property
    def randomised(self) -> Randomisation:
        """Do maps follow the network?"""
        alike: dict[str, dict[str, pd.DataFrame]] = {}
        others: dict[str, dict[str, pd.DataFrame]] = {}
        for model, by_method in self.redrawn.items():
            for method, drawn in by_method.items():
                trained = self._maps(model, method)
                by_seed = [similarity(trained, found["maps"].astype(float)) for found in drawn]
                alike.setdefault(model, {})[method] = mean_by_patch(by_seed)
                others.setdefault(model, {})[method] = different_patches(trained)
        true = self._maps("VGG16", "Grad-CAM")
        permuted = {model: similarity(true, self._maps(model, "Grad-CAM")) for model in self.networks.permuted}
        by_seed = {
            (seed, stage): pd.DataFrame(stack.astype(float), columns=ALIKE).mean()
            for seed, found in enumerate(self.stages or ())
            for stage, stack in zip(found["stages"], found["similarity"], strict=True)
        }
        return Randomisation(pd.DataFrame(by_seed).T.rename_axis(["seed", "stage"]), alike, others, permuted)

    @cached_property
    def perturbed(self) -> Perturbation:
        """Does the network react to what maps mark?"""
        removal: dict[str, dict[str, pd.DataFrame]] = {}
        effects: dict[str, pd.DataFrame] = {}
        ranks: dict[str, dict[str, pd.Series]] = {}
        for model, method, found, place in self._of_maps(self.networks.explained):
            at_random = self._unit(model, YARDSTICKS)
            same_px = at_random["at_random_px"].index(found["map_px"][place])
            less_random = found["removal"][place].astype(float) - at_random["at_random"][same_px]
            removal.setdefault(model, {})[method] = pd.DataFrame(less_random, columns=REMOVAL)
            if RESTORATION in self.found[model]:
                restored = pd.DataFrame(self._unit(model, RESTORATION)).assign(relevance=found["relevance"][place])
                ranks.setdefault(model, {})[method] = pd.Series(causal_rank(restored, len(less_random)))
                if method == "Grad-CAM":
                    effects[model] = restored
        return Perturbation(removal, effects, ranks)

    @property
    def left_out(self) -> LeftOut | None:
        """Which methods the backend of Keras does without."""
        return left_out(OF_GRAD_CAM_CHAPTER)

    def _held_out(self, model: str) -> HeldOutPatches:
        return self.tested[self.networks.all[model].experiment.name]

    def _unit(self, model: str, what: str) -> dict[str, Any]:
        return self.found[model][what][0]

    def _maps(self, model: str, method: str) -> np.ndarray:
        return self._unit(model, method)["maps"].astype(float)

    def _of_maps(self, models: Mapping[str, Network]) -> Iterator[tuple[str, str, dict[str, Any], int]]:
        """Model, method, the unit that has it, and its place there; methods with a network behind them first."""
        for model in models:
            for what in [what for what in (*self.methods, YARDSTICKS) if what in self.found[model]]:
                found = self._unit(model, what)
                for place, method in enumerate(found["methods"]):
                    yield model, method, found, place


def measure(
    networks: Networks,
    tested: Mapping[str, HeldOutPatches],
    methods: Mapping[str, Method],
    *,
    budget: Budget,
    seed: int,
) -> Measured:
    """Ask for all units of the chapter, and compute those that are not kept.

    tested: by the name of the experiment. methods: of METHODS; a control gets Grad-CAM alone. seed: of all that is
    random; weights are drawn anew from the seeds that follow it, since layers that were never trained would come out of
    it as they were. Raises what the methods raise, and `units.UnitError`.
    """
    redraws = redraw_seeds(budget, seed)
    found: dict[str, dict[str, units.Units]] = {}
    redrawn: dict[str, dict[str, units.Units]] = {}
    stages, common = None, {"budget": budget, "seed": seed}
    for model, network in networks.all.items():
        held_out = tested[network.experiment.name]
        ask = partial(_ask, network, held_out, budget, seed)
        found[model] = {}
        if not network.control or network.control == UNTRAINED:
            found[model][EXAMPLES] = ask(EXAMPLES, partial(fits.examples, network, seed=seed), ())
        if network.control:
            of_control = partial(fits.of_control, network, held_out, "Grad-CAM", methods["Grad-CAM"], **common)
            found[model]["Grad-CAM"] = ask("Grad-CAM", of_control, ())
            continue
        found[model] |= ask_of_maps(network, held_out, methods, **common)
        for method, compute in methods.items():
            of_redrawn = partial(fits.redrawn, network, held_out, compute, budget=budget)
            redrawn.setdefault(model, {})[method] = ask(method, of_redrawn, ("samples",), redraws)
        if model == "VGG16":
            stages = ask_falling(network, held_out, "Grad-CAM", methods["Grad-CAM"], **common)
    return Measured(networks, tested, list(methods), budget, found, redrawn, stages)


def ask_of_maps(
    network: Network, held_out: HeldOutPatches, methods: Mapping[str, Method], *, budget: Budget, seed: int
) -> dict[str, units.Units]:
    """What is asked of all maps: a unit for each method, YARDSTICKS, and RESTORATION where there are twins."""
    common, altered = {"budget": budget, "seed": seed}, ("altered", "shares", "fibres")
    ask = partial(_ask, network, held_out, budget, seed)
    found = {YARDSTICKS: ask(YARDSTICKS, partial(fits.yardsticks, network, held_out, **common), altered)}
    if held_out.twins_nhwc is not None:
        restoration = partial(fits.restoration, network, held_out, **common)
        found[RESTORATION] = ask(RESTORATION, restoration, ("altered", "fibres"))
    for method, compute in methods.items():
        of_method = partial(fits.of_method, network, held_out, method, compute, **common)
        found[method] = ask(method, of_method, (*altered, "samples"))
    return found


def ask_falling(
    network: Network,
    held_out: HeldOutPatches,
    method: str,
    compute: Method,
    *,
    budget: Budget,
    seed: int,
    every: bool = True,
) -> units.Units:
    """Maps of a method while weights are drawn anew from the top down: a unit for each seed; see `fits.falling`."""
    fit = partial(fits.falling, network, held_out, compute, budget=budget, every=every)
    what = f"{method}, " + ("stage by stage" if every else "head and all")
    return _ask(network, held_out, budget, seed, what, fit, ("samples", "cascaded"), redraw_seeds(budget, seed))


def redraw_seeds(budget: Budget, seed: int) -> range:
    """Of weights that are drawn anew: those that follow `seed`, of which layers come out that were never trained."""
    return range(seed + 1, seed + 1 + budget.redraws)


def _ask(
    network: Network,
    held_out: HeldOutPatches,
    budget: Budget,
    seed: int,
    what: str,
    fit: Callable[..., units.Result],
    entries: Sequence[str],
    redraws: Sequence[int] = (),
) -> units.Units:
    """The unit of one thing that is measured, or one for each seed of weights that are drawn anew.

    entries: of the budget, that it depends on. What does not depend on an entry is not computed again when it grows.
    """
    of_network = {"network": network.name, "measured": what}
    depends = {"head": network.trained.key, **held_out.depends, **{name: getattr(budget, name) for name in entries}}

    def one(network: str, measured: str, redrawn: int | None = None) -> units.Result:
        return fit() if redrawn is None else fit(seed=redrawn)

    asked = [of_network | {"redrawn": drawn} for drawn in redraws] or [of_network]
    depends |= {} if redraws else {"seed": seed}
    return units.each(one, asked, made_by=fits, chapter=CHAPTER, depends=depends)
