"""Which model does best on people not seen: by differences with intervals, not by who has the greatest number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

from mitolib.people.comparison import PATCHES, THRESHOLDED
from mitolib.people.evaluation import MAJORITY, Differences, Evaluation
from mitolib.people.morphometry import GREY_LEVELS
from mitolib.people.protocols import UNSEEN


@dataclass(frozen=True)
class Ranking:
    """best: of the models that see pictures, by area under the curve over people, then by balanced accuracy.

    order: the others, in that order. differences: of the best and each other; of fibres and the best; of each head and
    each untrained control; and of a line that training people choose and one half.
    """

    best: str
    order: list[str]
    differences: Differences

    def record(self) -> dict[str, Any]:
        """For a results file."""
        return {"best": self.best, "order": self.order, "differences": self.differences.by_name()}


def ranked(pictures: Evaluation, fibres: Evaluation, untrained: Evaluation, *, rng: Generator) -> Ranking:
    """pictures: all models that see pictures. fibres: models by fibres. untrained: heads on untrained networks."""
    scores = {
        entry["model"]: (entry["auc_subject"], entry["balanced_accuracy"])
        for entry in pictures.entries
        if entry["split"] == UNSEEN and entry["model"] != MAJORITY
    }
    best, *order = sorted(scores, key=scores.get, reverse=True)
    pairs = [(best, other) for other in order]
    pairs += [(GREY_LEVELS, best)] if GREY_LEVELS in fibres.predictions else []
    heads = [model for model in scores if " head" in model]
    pairs += [(head, control) for control in untrained.predictions for head in heads]
    pairs += [(THRESHOLDED, PATCHES)] if {THRESHOLDED, PATCHES} <= scores.keys() else []
    everyone = pictures + fibres + untrained
    pairs = list(dict.fromkeys(pairs))  # the best may be one of the last two
    return Ranking(best, order, everyone.between_models(pairs, rng=rng))
