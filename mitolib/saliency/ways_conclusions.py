"""What the chapter on ways to ask a network concludes: claims over its results file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mitolib.claims import Claim, above
from mitolib.metrics import Estimate
from mitolib.saliency.baselines import BASELINES
from mitolib.saliency.methods import GAP
from mitolib.saliency.verdicts import MARGIN, at_most, below

Record = Mapping[str, Any]
HALF = 0.5  # rank correlation: a map that keeps more of it hardly sees what was drawn anew
APART = 0.3  # in rank correlation, by which guided backpropagation and deconvolution were seen to differ from gradients
BOTH = 0.9  # rank correlation of the maps for two classes that a network cannot tell apart


def listed(record: Record) -> dict[str, dict[str, str]]:
    """The `listed` entry of the record: what a claim lists -> network -> methods, by their intervals.

    hardly_sees_the_head, sees_the_head: a rank correlation above HALF is kept, or below. follows_the_weights: with all
    weights drawn anew a map is more like the trained one than another patch's map is by at most MARGIN. beats_edges:
    AUPRC above that of brightness and of edges.
    """
    questions: dict[str, Callable[[Record, Record], bool | None]] = {
        "hardly_sees_the_head": lambda scores, _: above(scores["head_redrawn"], HALF),
        "sees_the_head": lambda scores, _: below(scores["head_redrawn"], HALF),
        "follows_the_weights": lambda _, gaps: at_most(gaps["all_redrawn_minus_another_patch"], MARGIN),
    }
    if any("auprc" in scores for by_method in record["methods"].values() for scores in by_method.values()):
        questions["beats_edges"] = lambda _, gaps: _all_above(gaps["auprc_minus_intensity"], gaps["auprc_minus_Sobel"])
    return {
        question: {
            model: ", ".join(
                method
                for method, scores in by_method.items()
                if method not in BASELINES and asked(scores, record["differences"][model][method])
            )
            for model, by_method in record["methods"].items()
        }
        for question, asked in questions.items()
    }


def claims(record: Record) -> list[Claim]:
    """The claims that a results file of this chapter allows: those on parts that its data leave out are not made."""
    found = []
    for model in record["methods"]:
        if model != GAP:
            found += _of_network(record, model)
    if GAP in record["methods"]:
        found += _of_cam(record)
    return found


def _all_above(*scores: Estimate) -> bool | None:
    answers = [above(score, 0) for score in scores]
    return False if False in answers else None if None in answers else True


def _score(model: str, method: str, score: str, kind: str = "methods") -> str:
    return f"explanations {kind}.{model}.{method}.{score}"


def _of_network(record: Record, model: str) -> list[Claim]:
    shown = f"VGG16 on {record['shown'][model]}"
    methods = record["methods"][model]
    found = [_hardly_sees(model, shown), _sees(model, shown), _follows(model, shown)]
    found += [
        _keeps_more(model, shown, method)
        for method in ("guided backpropagation", "deconvolution")
        if {method, "saliency"} <= set(methods)
    ]
    if {"guided Grad-CAM", "guided backpropagation"} <= set(methods):
        found.append(_follows_its_factor(model, shown))
    if "guided backpropagation" in methods:
        found.append(_tells_classes(model, shown))
    if "beats_edges" in record["listed"]:
        found.append(_beats_edges(model, shown))
    return found + [
        _arrives(model, shown, method) for method in ("LRP", "gradient x input") if record["sure"][model].get(method)
    ]


def _names(name: str, question: str, model: str, *, holds: str, fails: str) -> Claim:
    return Claim(
        name=f"{name}-{model}",
        reads={"names": f"explanations listed.{question}.{model}"},
        predicate=lambda names: bool(names),
        holds=holds,
        fails=fails,
        open="",
    )


def _hardly_sees(model: str, shown: str) -> Claim:
    return _names(
        "hardly-sees-the-head",
        "hardly_sees_the_head",
        model,
        holds=f"For {shown}, these maps hardly depend on the head, the only part that was trained: with it drawn anew "
        f"they keep a rank correlation of more than {HALF} with themselves: {{names}}.",
        fails=f"For {shown}, no map is seen to keep a rank correlation of more than {HALF} with itself when the head "
        "is drawn anew.",
    )


def _sees(model: str, shown: str) -> Claim:
    return _names(
        "sees-the-head",
        "sees_the_head",
        model,
        holds=f"For {shown}, these maps depend on the head: with it drawn anew they keep a rank correlation of less "
        f"than {HALF} with themselves: {{names}}.",
        fails=f"For {shown}, no map is seen to keep a rank correlation of less than {HALF} with itself when the head "
        "is drawn anew.",
    )


def _follows(model: str, shown: str) -> Claim:
    return _names(
        "follows-the-weights",
        "follows_the_weights",
        model,
        holds=f"With all weights of {shown} drawn anew, these maps are more like those of the trained network than "
        f"another patch's map is by at most {MARGIN} in rank correlation: {{names}}.",
        fails=f"With all weights of {shown} drawn anew, no map is seen to become as unlike that of the trained "
        "network as another patch's map is.",
    )


def _beats_edges(model: str, shown: str) -> Claim:
    return _names(
        "beats-brightness-and-edges",
        "beats_edges",
        model,
        holds=f"For {shown}, these maps find deficient fibres better than brightness and edges of the picture both do, "
        "in AUPRC, not corrected for the number of methods: {names}.",
        fails=f"For {shown}, no map is seen to find deficient fibres better than brightness and edges of the picture "
        "both do, in AUPRC.",
    )


def _keeps_more(model: str, shown: str, method: str) -> Claim:
    kept = "rank correlation with the trained network's map {kept} and {gradient}, difference {gap}"
    return Claim(
        name=f"{method.replace(' ', '-')}-keeps-more-than-the-gradient-{model}",
        reads={
            "kept": _score(model, method, "head_redrawn"),
            "gradient": _score(model, "saliency", "head_redrawn"),
            "gap": _score(model, method, "head_redrawn_minus_saliency", "differences"),
        },
        predicate=lambda gap, **_: above(gap, APART),
        holds=f"With the head of {shown} drawn anew, {method} keeps more of its map than the gradient does: {kept}.",
        fails=f"With the head of {shown} drawn anew, {method} keeps at most {APART} more of its map than the gradient "
        f"does: {kept}.",
        open=f"Whether {method} keeps over {APART} more of its map than the gradient does, with the head of {shown} "
        f"drawn anew, stays open: {kept}.",
    )


def _follows_its_factor(model: str, shown: str) -> Claim:
    kept = "rank correlation {kept}, of guided backpropagation alone {guided}, difference {gap}"
    return Claim(
        name=f"guided-grad-cam-sees-the-head-{model}",
        reads={
            "kept": _score(model, "guided Grad-CAM", "head_redrawn"),
            "guided": _score(model, "guided backpropagation", "head_redrawn"),
            "gap": _score(model, "guided Grad-CAM", "head_redrawn_minus_guided backpropagation", "differences"),
        },
        predicate=lambda gap, **_: below(gap, -APART),
        holds=f"Guided Grad-CAM of {shown} sees the head by its coarse factor, Grad-CAM: with the head drawn anew it "
        f"keeps {kept}.",
        fails=f"Guided Grad-CAM of {shown} sees hardly more of the head than guided backpropagation does: with the "
        f"head drawn anew it keeps {kept}.",
        open=f"Whether guided Grad-CAM of {shown} sees more of the head than guided backpropagation does stays open: "
        f"with the head drawn anew it keeps {kept}.",
    )


def _tells_classes(model: str, shown: str) -> Claim:
    alike = "under heads that were not trained their rank correlation is {alike}, of the gradient {gradient}"
    return Claim(
        name=f"guided-backpropagation-knows-no-class-{model}",
        reads={
            "alike": _score(model, "guided backpropagation", "classes"),
            "gradient": _score(model, "saliency", "classes"),
        },
        predicate=lambda alike, gradient: above(alike, BOTH),
        holds=f"Guided backpropagation of {shown} draws the same map for control and for patient: {alike}.",
        fails=f"Guided backpropagation of {shown} draws different maps for control and for patient: {alike}.",
        open=f"Whether guided backpropagation of {shown} draws different maps for control and for patient stays open: "
        f"{alike}.",
    )


def _arrives(model: str, shown: str, method: str) -> Claim:
    share = "{share} of the score arrives at the pixels ({share.n} patches that are sure; {share.left_out} others)"
    return Claim(
        name=f"{method.replace(' ', '-')}-is-not-conserved-{model}",
        reads={"share": _score(model, method, "arriving")},
        predicate=lambda share: below(share, 1),
        holds=f"Relevance by {method} is not conserved in {shown}, whose biases take their share: {share}.",
        fails=f"For {shown}, {method} hands the whole score down, or more: {share}.",
        open=f"Whether {method} hands the whole score of {shown} down stays open: {share}.",
    )


def _of_cam(record: Record) -> list[Claim]:
    if "auprc_minus_random" not in record["differences"][GAP].get("CAM", {}):
        return []
    scores = "AUPRC {score}, chance {chance}, difference {gap}"
    return [
        Claim(
            name="cam-finds-fibres",
            reads={
                "score": _score(GAP, "CAM", "auprc"),
                "chance": _score(GAP, "random", "auprc"),
                "gap": _score(GAP, "CAM", "auprc_minus_random", "differences"),
            },
            predicate=lambda gap, **_: above(gap, 0),
            holds=f"CAM, on the network of one Dense, finds deficient fibres better than chance: {scores}.",
            fails=f"CAM, on the network of one Dense, finds deficient fibres no better than chance: {scores}.",
            open="Whether CAM, on the network of one Dense, finds deficient fibres better than chance stays open: "
            f"{scores}.",
        )
    ]
