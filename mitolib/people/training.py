"""All that the chapter trains on features, asked for at once: what is kept is read, what is missing is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from numpy.random import Generator

from mitolib.people import comparison, controls
from mitolib.people.budget import Budget
from mitolib.people.controls import AskedShuffled, ShuffledLabels, SubjectProbe, shuffled_labels, subject_probe
from mitolib.people.curve import Curve, curve
from mitolib.people.evaluation import Asked, ask
from mitolib.people.material import Features, Material, Patches
from mitolib.people.on_features import HeadBudget
from mitolib.people.protocols import SEEN, UNSEEN
from mitolib.settings import Profile
from mitolib.units import Units


@dataclass(frozen=True, eq=False)
class Trained:
    """What was asked for; `evaluate` reads the models under splits.

    curves: by head and its steps. by_splits: every model under every split. untrained: heads on networks without
    ImageNet weights. by_pictures: ways to train for people not seen. shuffled: models on labels dealt out anew. probes:
    by network and split. budget: of each network's heads, for the results file.
    """

    by_splits: Asked
    untrained: Asked
    by_pictures: Asked
    shuffled: AskedShuffled
    probes: Mapping[str, Units]
    curves: Mapping[str, Mapping[int, Asked]]
    steps: int
    budget: Mapping[str, Mapping[str, int]]

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of all units, each once."""
        of_probes = [unit for fits in self.probes.values() for unit in fits.record]
        of_curves = [unit for by_steps in self.curves.values() for asked in by_steps.values() for unit in asked.units]
        of_splits = [*self.by_splits.units, *self.untrained.units, *self.by_pictures.units]
        found = [*of_splits, *self.shuffled.units, *of_probes, *of_curves]
        return list({unit["key"]: unit for unit in found}.values())

    def shuffled_labels(self) -> ShuffledLabels:
        """What models score on labels dealt out anew."""
        return shuffled_labels(self.shuffled)

    def subject_probe(self) -> SubjectProbe:
        """How often features name the person."""
        return subject_probe(self.probes)

    def curve(self, *, rng: Generator) -> Curve:
        """What the paper's head scores against its steps. rng: of the bootstrap."""
        return curve(self.curves, self.steps, rng=rng)


def train(
    material: Material,
    features: Mapping[str, Features],
    *,
    profile: Profile,
    budget: Budget,
    steps: int | None = None,
) -> Trained:
    """Ask for the units of the chapter, and compute those that are missing; without one, features are not computed.

    features: of `material.features`. profile: the seeds of the heads are one apart, from its seed on. budget: of heads
    and draws. steps: of a head, in place of the budget's. Raises what `units.each` and the
    models raise; units that are done stay.
    """
    of_heads = HeadBudget(
        steps=steps or budget.steps,
        batch_size=budget.batch_size,
        learning_rate=profile.learning_rate,
        seeds=range(profile.seed, profile.seed + budget.n_seeds),
    )
    of_control = replace(of_heads, seeds=[profile.seed])
    return Trained(
        # First, since it says which budget the others should have.
        curves={
            of_network.head_name: {
                n_steps: _on_curve(of_network, replace(of_control, steps=n_steps))
                for n_steps in curve_steps(of_network.patches, budget, epochs=profile.epochs)
            }
            for of_network in features.values()
            if of_network.network == "VGG16"
        },
        by_splits=ask(comparison.by_splits(material, features, budget=of_heads)),
        untrained=ask(comparison.untrained(features, budget=of_control)),
        by_pictures=ask(comparison.by_pictures(material, features)),
        shuffled=controls.ask_shuffled(
            features["VGG16"], draws=budget.shuffles, head_draws=budget.head_shuffles, budget=of_heads
        ),
        probes=controls.ask_probes(features),
        steps=of_heads.steps,
        budget={
            of_network.name: (of_control if of_network.is_untrained else of_heads).record(of_network)
            for of_network in features.values()
        },
    )


def curve_steps(part: Patches, budget: Budget, *, epochs: int) -> list[int]:
    """Steps of the heads of the curve, rising; the longest is the budget's share of the published protocol's epochs.

    The published protocol shows each training patch once an epoch; where the patches do not allow the published split,
    those of the first fold of people are taken.
    """
    (fold, *_) = part.folds.get(SEEN) or part.folds[UNSEEN]
    batches = ceil(int((fold == "train").sum()) / budget.batch_size)  # of an epoch
    longest = max(1, round(budget.longest * epochs * batches))
    return sorted({*(steps for steps in budget.curve if steps < longest), longest})


def _on_curve(features: Features, budget: HeadBudget) -> Asked:
    trial = comparison.head_under_splits(features, (SEEN, UNSEEN), budget=budget)
    return ask({features.head_name: trial})
