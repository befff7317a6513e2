"""What experiments 1 and 2 and the chapter on freezing conclude, as claims on their results files.

In brackets stands where one further training would lie, see `metrics.further_training`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mitolib.claims import Claim, above
from mitolib.metrics import COLLAPSED, Estimate


def of_experiment(record: Mapping[str, Any]) -> list[Claim]:
    """Claims of experiment 1 or 2 on each network that it trained, the untrained backbones last."""
    return [
        claim
        for group in ("models", "controls")
        for network in record.get(group, {})
        for claim in _of_network(record["chapter"], group, network)
    ]


def _of_network(chapter: str, group: str, network: str) -> list[Claim]:
    entry, n_trainings = f"{chapter} {group}.{network}.further_training", f"{chapter} budget.{network}.seeds"
    called = f"**{network}**" if group == "models" else f"**{network}** with random weights, an untrained backbone,"
    scored = "Mean balanced accuracy {score}, trainings: {n}; the majority-class baseline has 0.50."
    ranked = "Mean AUC, which needs no threshold, {auc}, trainings: {n}; chance is 0.50."
    collapse = (
        f"A collapsed network gives over {COLLAPSED:.0%} of the test patches the same answer. Collapsed trainings"
    )
    accuracies = "Training accuracy less validation accuracy, last ten epochs: {gap}, trainings: {n}."
    return [
        Claim(
            name=f"{network}-beats-one-answer",
            reads={"score": f"{entry}.balanced_accuracy", "n": n_trainings},
            predicate=lambda score, n: above(score, 0.5),
            holds=f"{called} tells controls from patients on test patches. {scored}",
            fails=f"{called} does not tell controls from patients on test patches. {scored}",
            open=f"It is open whether {called} tells controls from patients on test patches. {scored}",
        ),
        Claim(
            name=f"{network}-ranks-patients-higher",
            reads={"auc": f"{entry}.auc", "n": n_trainings},
            predicate=lambda auc, n: above(auc, 0.5),
            holds=f"{called} gives patients' patches higher probabilities than controls'. {ranked}",
            fails=f"{called} does not give patients' patches higher probabilities than controls'. {ranked}",
            open=f"It is open whether {called} gives patients' patches higher probabilities than controls'. {ranked}",
        ),
        Claim(
            name=f"{network}-never-collapses",
            reads={"n_collapsed": f"{chapter} {group}.{network}.n_collapsed", "n": n_trainings},
            predicate=lambda n_collapsed, n: n_collapsed == 0,
            holds=f"{called} did not collapse. {collapse}: {{n_collapsed}} of {{n}}.",
            fails=f"{called} collapsed in some trainings. {collapse}: {{n_collapsed}} of {{n}}.",
            open="",
        ),
        Claim(
            name=f"{network}-overfits",
            reads={"gap": f"{entry}.generalisation_gap", "n": n_trainings},
            predicate=lambda gap, n: above(gap, 0),
            holds=f"{called} overfits. {accuracies}",
            fails=f"{called} shows no overfitting. {accuracies}",
            open=f"It is open whether {called} overfits. {accuracies}",
        ),
    ]


def of_freezing(record: Mapping[str, Any]) -> list[Claim]:
    """Of the training that validation prefers against the head alone: no comparison was chosen by its result."""
    deeper = "freezing models.{}".format(record["chosen"])

    def better(alone: Estimate, score: float, **_: Any) -> bool | None:
        return None if alone.ci is None else score > alone.ci[1]

    compared = (
        "Of the trainings that reach below the head, validation prefers {trained} at a rate of {rate:g}. Its balanced "
        "accuracy on the test patches is {score:.2f}, in one training. With the head alone it is {alone}, trainings: "
        "{n}."
    )
    return [
        Claim(
            name="training-deeper-pays",
            reads={
                "alone": "freezing models.block5_pool.further_training.balanced_accuracy",
                "n": "freezing budget.head only.seeds",
                "score": f"{deeper}.balanced_accuracy",
                "trained": f"{deeper}.trained",
                "rate": f"{deeper}.learning_rate",
            },
            predicate=better,
            holds=f"Training deeper pays. {compared}",
            fails=f"Training deeper does not pay. {compared}",
            open=f"It is open whether training deeper pays. {compared}",
        )
    ]
