"""Sphinx extension of the book: where the paper of Pilla, Khan and McGough contradicts itself, as data and as a table.

    {errata-table}              ERRATA; `:name:` and `:caption:` as of every table

Sections, tables and figures are those of the paper of 6 September 2022; numbers are read from `mitolib.paper`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mitobook import TableDirective
from sphinx.application import Sphinx

from mitolib import paper


@dataclass(frozen=True, kw_only=True)
class Erratum:
    """One place where the paper contradicts itself or its sources. The texts are inline Markdown."""

    claim: str
    where: str
    problem: str


_TEST1 = paper.SPLITS["exp1"]["test"]  # patches of each class
_N_TEST1 = sum(_TEST1.values())
_TOTAL2 = paper.PRINTED_TOTALS["exp2"]["total"]
_SHARES2 = [round(100 * sum(counts.values()) / _TOTAL2) for counts in paper.SPLITS["exp2"].values()]
_TABLE_4 = paper.SCORES["exp1"]

ERRATA = (
    Erratum(
        claim=f"Experiment 1 has {paper.PRINTED_TOTALS['exp1']['test']} test images",
        where="Table 1; section 4.3",
        problem=f"The two classes of that column, {_TEST1['control']} and {_TEST1['patient']}, add up to {_N_TEST1}. "
        f"Section 4.3 gives a third number, {paper.CONFUSION_IMAGES}, for the confusion matrices.",
    ),
    Erratum(
        claim="The data are split 80:10:10 in both experiments",
        where="Sections 3.1 and 4.2; Table 2",
        problem=f"Table 2 is a {':'.join(map(str, _SHARES2))} split "
        "(training, validation, test). Only Table 1 is close to 80:10:10.",
    ),
    Erratum(
        claim="The accuracy of VGG16",
        where="Abstract; sections 1 and 5; Tables 4 and 5",
        problem=f"One model, three values: {paper.ABSTRACT['accuracy']:.2%} in the abstract, "
        f"{paper.INTRODUCTION['accuracy']:.2%} in sections 1 and 5, {_TABLE_4['VGG16']['accuracy']:.2f} in the tables.",
    ),
    Erratum(
        claim="Equation (1), accuracy",
        where="Appendix, evaluation metrics",
        problem="The denominator holds FP twice and FN not at all. It should be TP + TN + FP + FN.",
    ),
    Erratum(
        claim="Precision is a share of all images",
        where="Appendix, evaluation metrics",
        problem="The sentence disagrees with equation (2), which divides by the images *called* positive, TP + FP.",
    ),
    Erratum(
        claim=f"ResNet18+CW reaches {_TABLE_4['ResNet18+CW']['accuracy']:.0%} accuracy",
        where="Abstract; Table 4; section 5",
        problem=f'A rule that answers "patient" for every patch is right for {_TEST1["patient"]} of {_N_TEST1} test '
        f"patches, {paper.MAJORITY_BASELINE['exp1']:.1%}. The model does worse, and the paper prints no baseline.",
    ),
    Erratum(
        claim='"ResNet50+CW" misclassified test images',
        where="Section 4.3, Prediction",
        problem="No such model was trained. Everywhere else the concept-whitening model is a ResNet-18.",
    ),
    Erratum(
        claim="Test images serve as the concept images",
        where="Section 3.5",
        problem="Concept images take part in training, so the model has seen images on which it is then tested.",
    ),
    Erratum(
        claim="The concept-whitening objective is a maximum over `q_1, q_2, q_3, q_4, ..., q_k`",
        where="Appendix, how CW works",
        problem="Written like this it has at least five axes. There is one axis per concept, 1 to *k*, "
        "and the paper has two concepts.",
    ),
    Erratum(
        claim="Grad-CAM takes the gradient of the layer output with respect to the loss",
        where="Section 3.4 with Figure 6",
        problem="It is the other way round, and not the loss: Grad-CAM takes the gradient of the class score "
        "with respect to the layer output.",
    ),
)


class ErrataTable(TableDirective):
    """Each erratum: what the paper says, where, and the problem."""

    caption = "Where the paper contradicts itself"
    style = "prose"

    def content_rows(self) -> tuple[list[str], list[list[str]]]:
        self.env.note_dependency(__file__)
        return ["The paper says", "Where", "The problem"], [[e.claim, e.where, e.problem] for e in ERRATA]


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("mitobook")
    app.add_directive("errata-table", ErrataTable)
    return {"version": "1", "parallel_read_safe": True}
