"""All that the chapter trains on features, asked for at once: what is kept is read, what is missing is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mitolib.people import comparison, controls
from mitolib.people.controls import AskedShuffled
from mitolib.people.evaluation import Asked, ask
from mitolib.people.material import Features, Material
from mitolib.units import Units


@dataclass(frozen=True, eq=False)
class Trained:
    """What was asked for; `evaluate`, `shuffled_labels` and `subject_probe` read it.

    by_splits: every model under every split. by_pictures: ways to train for people not seen. shuffled: models on labels
    dealt out anew. probes: by network and split.
    """

    by_splits: Asked
    by_pictures: Asked
    shuffled: AskedShuffled
    probes: Mapping[str, Units]

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of all units."""
        of_probes = [unit for fits in self.probes.values() for unit in fits.record]
        return [*self.by_splits.units, *self.by_pictures.units, *self.shuffled.units, *of_probes]


def train(
    material: Material,
    features: Mapping[str, Features],
    *,
    steps: int,
    batch_size: int,
    shuffles: int,
    workers: int,
    seed: int,
) -> Trained:
    """Ask for the units of the chapter, and compute those that are missing; without one, features are not computed.

    features: of `material.features`. steps, batch_size: of the heads. shuffles: draws of labels. workers: processes
    that share the folds of a head, -1 for one per core; the answers are the same whatever their number. seed: of heads
    and draws. Raises what `units.each` and the models raise; units that are done stay.
    """
    budget = {"steps": steps, "batch_size": batch_size, "seed": seed}
    return Trained(
        by_splits=ask(comparison.by_splits(material, features, **budget), workers=workers),
        by_pictures=ask(comparison.by_pictures(material, features)),
        shuffled=controls.ask_shuffled(features["VGG16"], draws=shuffles, **budget),
        probes=controls.ask_probes(features),
    )
