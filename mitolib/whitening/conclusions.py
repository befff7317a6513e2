"""What the chapter concludes, as claims over its results file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mitolib.claims import Claim, above
from mitolib.metrics import Estimate
from mitolib.whitening.training import ON_VGG16

CHAPTER = "concept_whitening"
TURNED = ("E2", "D2", "A")  # arms whose axes are asked about, the exact ones first
PEOPLE = {"published": "the test patches of experiment 1", "unseen": "patches of people not seen"}
OPPOSITE = -0.9  # cosine of two concepts below which two axes at a right angle cannot both follow


def claims(record: Mapping[str, Any]) -> list[Claim]:
    """The claims that a results file can answer: on people not seen only where there were enough people."""
    asked = [split for split in ("published", "unseen") if record["vgg16"].get(split)]
    honest = asked[-1]
    return [
        *(_method_code_or_concepts(split) for split in asked),
        *(_runs_through_axes(arm, honest) for arm in TURNED),
        *(_needs_axes(arm, honest) for arm in TURNED[:2]),
        *(_whitening_costs(split) for split in asked),
        _opposite(),
        _no_shortcut(),
        _above_majority(),
    ]


def _place(split: str, arm: str, *keys: str) -> str:
    return " ".join([CHAPTER, ".".join(["vgg16", split, arm, *keys])])


def _named(arm: str) -> str:
    return f"{arm} ({ON_VGG16[arm].what})"


def _runs_through_axes(arm: str, split: str) -> Claim:
    """Permutation importance, whatever the answer is worth: do the log-odds move more than with other axes?"""
    subject = f"the answer of {_named(arm)} runs through the axes of its concepts more than through others"
    moves = (
        f"on {PEOPLE[split]}, permuting them moves the log-odds by {{shift}} of their standard deviation, permuting as "
        "many others by {others}"
    )
    return Claim(
        name=f"answer-runs-through-axes-{arm}",
        reads={
            "shift": _place(split, arm, "importance", "shift"),
            "others": _place(split, arm, "importance", "shift_others"),
            "more": _place(split, arm, "importance", "shift_more"),
        },
        predicate=lambda shift, others, more: above(more, 0),
        holds=f"{_capital(subject)}: {moves}.",
        fails=f"{_capital(subject.replace('runs', 'does not run'))}: {moves}.",
        open=f"Whether {subject} is open: {moves}.",
    )


def _needs_axes(arm: str, split: str) -> Claim:
    subject = f"{_named(arm)} needs the axes of its concepts to call {PEOPLE[split]} rightly"
    falls = "permuting them lowers its balanced accuracy by {fall}, permuting as many others by {others}"
    return Claim(
        name=f"answer-needs-axes-{arm}",
        reads={
            "fall": _place(split, arm, "importance", "fall"),
            "others": _place(split, arm, "importance", "fall_others"),
            "more": _place(split, arm, "importance", "fall_more"),
        },
        predicate=lambda fall, others, more: above(more, 0),
        holds=f"{subject}: {falls}.",
        fails=f"{subject.replace('needs', 'does not need')}: {falls}.",
        open=f"Whether {subject} is open: {falls}.",
    )


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _method_code_or_concepts(split: str) -> Claim:
    """Was it the method, its code, or the concepts? One layer, the same features; differences of balanced accuracy."""
    numbers = (
        f"on {PEOPLE[split]}, behind the same features of VGG16, exact whitening without axes differs from no layer by "
        "{method}, turning two axes to the classes changes it by {concepts}, and computing both as the public code "
        "does by {code}"
    )

    def code_alone(method: Estimate, concepts: Estimate, code: Estimate) -> bool | None:
        code_costs, method_costs, concepts_cost = (above(negative(one), 0) for one in (code, method, concepts))
        if code_costs and not method_costs and not concepts_cost:
            return True
        return None if code_costs is None and not method_costs and not concepts_cost else False

    return Claim(
        name=f"method-code-or-concepts-{split}",
        reads={
            "method": _place(split, "ZCA", "less_without"),
            "concepts": f"{CHAPTER} differences.{split}.E2_less_ZCA",
            "code": f"{CHAPTER} differences.{split}.A_less_E2",
        },
        predicate=code_alone,
        holds=f"It was the code: {numbers} (balanced accuracy).",
        fails=f"It was not the code alone: {numbers} (balanced accuracy).",
        open=f"Whether it was the code stays open: {numbers} (balanced accuracy).",
    )


def _whitening_costs(split: str) -> Claim:
    return Claim(
        name=f"exact-whitening-costs-{split}",
        reads={"less": _place(split, "E2", "less_without"), "plain": _place(split, "none", "balanced_accuracy")},
        predicate=lambda less, plain: above(negative(less), 0),
        holds=f"Exact concept whitening (E2) costs balanced accuracy on {PEOPLE[split]}: the difference from {{plain}} "
        "without a layer is {less}.",
        fails=f"Exact concept whitening (E2) costs no balanced accuracy on {PEOPLE[split]}: the difference from "
        "{plain} without a layer is {less}.",
        open=f"Whether exact concept whitening (E2) costs balanced accuracy on {PEOPLE[split]} is open: the difference "
        "from {plain} without a layer is {less}.",
    )


def _opposite() -> Claim:
    found = (
        "their mean vectors behind the whitening have cosine {cosine:.2f}, and of two axes at a right angle each can "
    )
    found += "reach {reachable:.2f} at best with its class"
    return Claim(
        name="classes-are-opposite",
        reads={
            "cosine": f"{CHAPTER} geometry.E2.cosine",
            "reachable": f"{CHAPTER} geometry.E2.reachable",
        },
        predicate=lambda cosine, reachable: cosine < OPPOSITE,
        holds=f"The two classes cannot both have an axis: {found}.",
        fails=f"The two classes are not opposite: {found}.",
        open=f"Whether the two classes are opposite stays open: {found}.",
    )


def _no_shortcut() -> Claim:
    subject = "the answer of the ResNet-18 depends more on the axes of the concepts where no shortcut passes the layer"
    moves = (
        "permuting them moves the log-odds by {open_shift} of their standard deviation there, by {shift} in the block"
    )
    return Claim(
        name="answer-depends-more-on-axes-without-shortcut",
        reads={
            "shift": f"{CHAPTER} resnet18.E2.importance.shift",
            "open_shift": f"{CHAPTER} resnet18.G.importance.shift",
            "more": f"{CHAPTER} differences.resnet18.G_less_E2_shift",
        },
        predicate=lambda shift, open_shift, more: above(more, 0),
        holds=f"{_capital(subject)}: {moves}.",
        fails=f"{_capital(subject.replace('depends more', 'does not depend more'))}: {moves}.",
        open=f"Whether {subject} is open: {moves}.",
    )


def _above_majority() -> Claim:
    found = "a share of {accuracy} of the test patches, always giving the more common answer on {baseline:.2f}"
    return Claim(
        name="resnet18-above-majority",
        reads={
            "accuracy": f"{CHAPTER} resnet18.A.accuracy",
            "baseline": f"{CHAPTER} resnet18.A.majority_baseline",
        },
        predicate=lambda accuracy, baseline: above(accuracy, baseline),
        holds="A ResNet-18 with the public code's layer is right more often than the majority-class baseline: on "
        f"{found}.",
        fails="A ResNet-18 with the public code's layer is not right more often than the majority-class baseline: on "
        f"{found}.",
        open="Whether a ResNet-18 with the public code's layer is right more often than the majority-class baseline is "
        f"open: it is right on {found}.",
    )


def negative(estimate: Estimate) -> Estimate:
    """The estimate of the same difference the other way round."""
    if estimate.value is None or estimate.ci is None:
        return estimate
    low, high = estimate.ci
    return Estimate(-estimate.value, (-high, -low), estimate.n, estimate.left_out)
