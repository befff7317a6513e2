"""What a head scores against the length of its training, on people it was trained on and on people it was not.

It says at which budget models can be compared: where longer training changes neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from numpy.random import Generator

from mitolib.metrics import Estimate
from mitolib.people import metrics
from mitolib.people.evaluation import Asked, Evaluation, evaluate
from mitolib.people.protocols import SEEN, UNSEEN


@dataclass(frozen=True)
class Curve:
    """entries: `metrics.summary` of every head, split and budget, with "model", "split" and "steps".

    gaps: head -> steps -> `metrics.difference` between the published split and people not seen. longer: head -> split
    -> the same between the longest training and that nearest to the budget of the chapter.
    """

    entries: list[dict[str, Any]]
    gaps: Mapping[str, Mapping[int, Mapping[str, Any]]]
    longer: Mapping[str, Mapping[str, Mapping[str, Any]]]
    steps: int  # the budget of the chapter

    def table(self) -> pd.DataFrame:
        """Balanced accuracy with its interval: a row for each head and budget, a column for each split."""
        rows: dict[tuple[str, int], dict[str, str]] = {}
        for entry in self.entries:
            row = rows.setdefault((entry["model"], entry["steps"]), {})
            row[entry["split"]] = str(Estimate(entry["balanced_accuracy"], entry["ci"]["balanced_accuracy"]))
            if gap := self.gaps.get(entry["model"], {}).get(entry["steps"]):
                row["difference"] = str(Estimate(**gap["balanced_accuracy"]))
        return pd.DataFrame(rows).T.rename_axis(["head", "steps"]).fillna("")

    def estimates(self) -> dict[str, dict[str, dict[int, Estimate]]]:
        """Head -> split -> steps -> balanced accuracy, for a figure."""
        found: dict[str, dict[str, dict[int, Estimate]]] = {}
        for entry in self.entries:
            by_steps = found.setdefault(entry["model"], {}).setdefault(entry["split"], {})
            by_steps[entry["steps"]] = Estimate(entry["balanced_accuracy"], entry["ci"]["balanced_accuracy"])
        return found

    def record(self) -> dict[str, Any]:
        """For a results file; heads by `metrics.key`."""
        gaps = {metrics.key(head): {str(steps): gap for steps, gap in of.items()} for head, of in self.gaps.items()}
        longer = {metrics.key(head): dict(of) for head, of in self.longer.items()}
        return {"entries": self.entries, "gaps": gaps, "longer": longer}


def curve(asked: Mapping[str, Mapping[int, Asked]], steps: int, *, rng: Generator) -> Curve:
    """asked: by head and its steps. steps: the budget of the chapter. rng: of the bootstrap."""
    entries: list[dict[str, Any]] = []
    gaps: dict[str, dict[int, dict[str, Any]]] = {}
    longer: dict[str, dict[str, dict[str, Any]]] = {}
    for head, by_steps in asked.items():
        evaluations = {n_steps: evaluate(of_steps, rng=rng) for n_steps, of_steps in by_steps.items()}
        for n_steps, evaluation in evaluations.items():
            entries += [entry | {"steps": n_steps} for entry in evaluation.entries]
            if {SEEN, UNSEEN} <= evaluation.predictions[head].keys():
                gap = metrics.difference(*(evaluation.themselves(head, split) for split in (SEEN, UNSEEN)), rng=rng)
                gaps.setdefault(head, {})[n_steps] = gap
        longer[head] = _longer(evaluations, head, steps, rng)
    return Curve(entries, gaps, longer, steps)


def _longer(evaluations: Mapping[int, Evaluation], head: str, steps: int, rng: Generator) -> dict[str, dict[str, Any]]:
    """By split, the difference between the longest training and the one nearest to `steps`; none where it is that."""
    longest, nearest = max(evaluations), min(evaluations, key=lambda n_steps: abs(n_steps - steps))
    if longest == nearest:
        return {}
    return {
        split: metrics.difference(
            *(evaluations[n_steps].themselves(head, split) for n_steps in (longest, nearest)), rng=rng
        )
        | {"of": longest, "minus": nearest}
        for split in evaluations[longest].predictions[head]
    }
