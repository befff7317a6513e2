"""What the chapter concludes: claims over its results file, each with the predicate that decides what is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mitolib.claims import Claim, above
from mitolib.saliency.control import POOLED
from mitolib.saliency.verdicts import MARGIN, at_most, below

Record = Mapping[str, Any]
CHANCE = 0.5  # balanced accuracy of any answer that knows nothing


def claims(record: Record) -> list[Claim]:
    """The claims that a results file of this chapter allows: those on parts that its data leave out are not made."""
    controls = record["controls"]
    found = _of_permuted_labels() if record["permuted_labels"] else []
    if "permuted_minus_different" in controls:
        found.append(_follows_the_labels())
    if "auprc_minus_permuted" in controls:
        found.append(_against_permuted())
    if "auprc_minus_untrained" in controls:
        found.append(_against_untrained())
    for model in record["p_values"]:
        network = f"VGG16 on {record['shown'][model]}" if model.startswith("VGG16") else model
        of_grad_cam = record["differences"][model]["Grad-CAM"]
        found.append(_follows_the_weights(model, network))
        if "auprc_minus_random" in of_grad_cam:
            found += _of_localisation(model, network)
        if "auprc_minus_marker" in of_grad_cam:
            found.append(_against_marker(model, network))
        found += _of_removal(model, network)
        if "causal_rank_correlation" in record["methods"][model]["Grad-CAM"]:
            found.append(_ranks(model, network))
        if record["p_values"][model].get("auprc_minus_random", {}).get("methods"):
            found.append(_corrected(model, network))
        found.append(_all_yes(model, network))
    return found


def _grad_cam(model: str, score: str, kind: str = "differences") -> str:
    return f"gradcam {kind}.{model}.Grad-CAM.{score}"


def _of_permuted_labels() -> list[Claim]:
    entries = {name: f"gradcam permuted_labels.{name}" for name in ("own", "agreement", "own_minus_agreement", "true")}
    learnt = "By permuted labels, networks that were taught them score {own} in balanced accuracy"
    diagnosis = "a perfect diagnosis would score {agreement}"
    return [
        Claim(
            name="permuted-labels-hold-no-disease",
            reads=entries,
            predicate=lambda own_minus_agreement, **_: above(own_minus_agreement, 0),
            holds=f"{learnt}; {diagnosis}. They were taught labels in which there is no disease, and learnt something "
            "else: the difference is {own_minus_agreement}.",
            fails=f"{learnt}; {diagnosis}. They learnt nothing that a diagnosis would not give: the difference is "
            "{own_minus_agreement}.",
            open=f"{learnt}; {diagnosis}. Whether they learnt anything but the disease stays open: the difference is "
            "{own_minus_agreement}.",
        ),
        Claim(
            name="permuted-labels-teach-a-diagnosis",
            reads={"true": entries["true"]},
            predicate=lambda true: above(true, CHANCE),
            holds="Networks of permuted labels tell patients from controls all the same: by the true labels their "
            "balanced accuracy is {true}.",
            fails="Networks of permuted labels do not tell patients from controls: by the true labels their balanced "
            "accuracy is {true}.",
            open="Whether networks of permuted labels tell patients from controls better than chance stays open: by "
            "the true labels their balanced accuracy is {true}.",
        ),
    ]


def _follows_the_labels() -> Claim:
    alike = f"more alike than those of different patches by at most {MARGIN} of SSIM"
    return Claim(
        name="grad-cam-follows-the-labels",
        reads={"gap": "gradcam controls.permuted_minus_different"},
        predicate=lambda gap: at_most(gap, MARGIN),
        holds="Grad-CAM follows the labels that VGG16 was taught: its maps after true and permuted ones are "
        f"{alike}. The difference is {{gap}}.",
        fails="Grad-CAM does not follow the labels that VGG16 was taught: its maps after true and permuted ones are "
        "more alike than those of different patches. The difference in SSIM is {gap}.",
        open="Whether Grad-CAM follows the labels that VGG16 was taught stays open. The likeness of its maps after "
        "true and permuted ones, less that of different patches, is in SSIM {gap}.",
    )


def _against_permuted() -> Claim:
    scores = "AUPRC {true} after true labels, {permuted} after permuted ones"
    return Claim(
        name="true-labels-help-grad-cam",
        reads={
            "gap": "gradcam controls.auprc_minus_permuted",
            "true": _grad_cam("VGG16", "auprc", "methods"),
            "permuted": _grad_cam(POOLED, "auprc", "methods"),
        },
        predicate=lambda gap, **_: above(gap, 0),
        holds=f"Grad-CAM finds deficient fibres better where VGG16 was taught the disease: {scores}, difference "
        "{gap}.",
        fails=f"Grad-CAM finds deficient fibres no better where VGG16 was taught the disease: {scores}, difference "
        "{gap}.",
        open="Whether Grad-CAM finds deficient fibres better where VGG16 was taught the disease stays open: "
        f"{scores}, difference {{gap}}.",
    )


def _against_untrained() -> Claim:
    scores = "AUPRC {true} and {untrained}"
    return Claim(
        name="imagenet-helps-grad-cam",
        reads={
            "gap": "gradcam controls.auprc_minus_untrained",
            "true": _grad_cam("VGG16", "auprc", "methods"),
            "untrained": _grad_cam("ResNet50", "auprc", "methods"),
        },
        predicate=lambda gap, **_: above(gap, 0),
        holds="Grad-CAM of VGG16 finds deficient fibres better than that of a ResNet-50 whose backbone was never "
        f"trained: {scores}, difference {{gap}}.",
        fails="Grad-CAM of VGG16 finds deficient fibres no better than that of a ResNet-50 whose backbone was never "
        f"trained: {scores}, difference {{gap}}.",
        open="Whether Grad-CAM of VGG16 finds deficient fibres better than that of a ResNet-50 whose backbone was "
        f"never trained stays open: {scores}, difference {{gap}}.",
    )


def _follows_the_weights(model: str, network: str) -> Claim:
    return Claim(
        name=f"grad-cam-follows-the-weights-{model}",
        reads={"gap": _grad_cam(model, "redrawn_minus_different")},
        predicate=lambda gap: at_most(gap, MARGIN),
        holds=f"Grad-CAM of {network} follows the weights: after all are drawn anew it is more like the trained map "
        f"than another patch's map is by at most {MARGIN} of SSIM. The difference is {{gap}}.",
        fails=f"Grad-CAM of {network} does not follow the weights: after all are drawn anew it is more like the "
        "trained map than another patch's map is. The difference in SSIM is {gap}.",
        open=f"Whether Grad-CAM of {network} follows the weights stays open. Its likeness to the trained map after all "
        "are drawn anew, less that of another patch's map, is in SSIM {gap}.",
    )


def _of_localisation(model: str, network: str) -> list[Claim]:
    scores = f"Grad-CAM of {network} has AUPRC {{score}}"
    pointing = (
        "its greatest value lies inside one in a share of {score} of the patches, the difference from chance is {gap}"
    )
    return [
        Claim(
            name=f"grad-cam-finds-fibres-{model}",
            reads={
                "score": _grad_cam(model, "auprc", "methods"),
                "gap": _grad_cam(model, "auprc_minus_random"),
            },
            predicate=lambda gap, **_: above(gap, 0),
            holds=f"{scores} for deficient fibres, more than chance by {{gap}}.",
            fails=f"{scores} for deficient fibres, no more than chance: the difference is {{gap}}.",
            open=f"{scores} for deficient fibres; whether that is more than chance stays open, the difference is "
            "{gap}.",
        ),
        Claim(
            name=f"grad-cam-points-at-fibres-{model}",
            reads={
                "score": _grad_cam(model, "pointing", "methods"),
                "gap": _grad_cam(model, "pointing_minus_random"),
            },
            predicate=lambda gap, **_: above(gap, 0),
            holds=f"Grad-CAM of {network} points at deficient fibres: {pointing}.",
            fails=f"Grad-CAM of {network} points at deficient fibres no more often than a random map does: {pointing}.",
            open=f"Whether Grad-CAM of {network} points at deficient fibres stays open: {pointing}.",
        ),
        Claim(
            name=f"grad-cam-beats-brightness-{model}",
            reads={
                "score": _grad_cam(model, "auprc", "methods"),
                "brightness": f"gradcam methods.{model}.intensity.auprc",
                "gap": _grad_cam(model, "auprc_minus_intensity"),
            },
            predicate=lambda gap, **_: above(gap, 0),
            holds=f"{scores}, brightness of the same pictures {{brightness}}: the network adds {{gap}}.",
            fails=f"{scores}, brightness of the same pictures, without a network, {{brightness}}: the network adds "
            "nothing, the difference is {gap}.",
            open=f"{scores}, brightness of the same pictures {{brightness}}; which is better stays open, the "
            "difference is {gap}.",
        ),
        Claim(
            name=f"maps-below-chance-{model}",
            reads={"names": f"gradcam pointing_below_chance.{model}"},
            predicate=lambda names: bool(names),
            holds=f"Of the maps for {network}, these point at deficient fibres less often than a random map does: "
            "{names}.",
            fails=f"No map for {network} is seen to point at deficient fibres less often than a random map does.",
            open="",
        ),
    ]


def _against_marker(model: str, network: str) -> Claim:
    scores = "AUPRC {marker} and {score}"
    return Claim(
        name=f"marker-beats-grad-cam-{model}",
        reads={
            "score": _grad_cam(model, "auprc", "methods"),
            "marker": f"gradcam methods.{model}.marker.auprc",
            "gap": _grad_cam(model, "auprc_minus_marker"),
        },
        predicate=lambda gap, **_: below(gap, 0),
        holds="The marker, little NDUFB8 for much VDAC1, finds deficient fibres better without a network than "
        f"Grad-CAM of {network}: {scores}.",
        fails="The marker, little NDUFB8 for much VDAC1, finds deficient fibres no better than Grad-CAM of "
        f"{network}: {scores}.",
        open="Whether the marker, little NDUFB8 for much VDAC1, finds deficient fibres better than Grad-CAM of "
        f"{network} stays open: {scores}.",
    )


def _of_removal(model: str, network: str) -> list[Claim]:
    removed = f'Removing what Grad-CAM of {network} marks changes the log odds of "patient", less removal at random, by'
    return [
        Claim(
            name=f"network-reacts-{model}",
            reads={"gap": _grad_cam(model, "deletion_minus_random", "methods")},
            predicate=lambda gap: below(gap, 0),
            holds=f"{removed} {{gap}}: the network misses it.",
            fails=f"{removed} {{gap}}: the network does not miss it.",
            open=f"{removed} {{gap}}: whether the network misses it stays open.",
        ),
        Claim(
            name=f"brightness-counts-more-{model}",
            reads={"gap": _grad_cam(model, "deletion_minus_intensity")},
            predicate=lambda gap: above(gap, 0),
            holds=f"Removing bright areas lowers the log odds more than removing what Grad-CAM of {network} marks: the "
            "difference is {gap}.",
            fails=f"Removing bright areas lowers the log odds no more than removing what Grad-CAM of {network} marks: "
            "the difference is {gap}.",
            open="Whether removing bright areas lowers the log odds more than removing what Grad-CAM of "
            f"{network} marks stays open: the difference is {{gap}}.",
        ),
    ]


def _ranks(model: str, network: str) -> Claim:
    rank = "the rank correlation is {rank}"
    return Claim(
        name=f"grad-cam-ranks-fibres-{model}",
        reads={"rank": _grad_cam(model, "causal_rank_correlation", "methods")},
        predicate=lambda rank: above(rank, 0),
        holds=f"Grad-CAM of {network} ranks fibres as restoring them acts on the network: {rank}.",
        fails=f"Grad-CAM of {network} does not rank fibres as restoring them acts on the network: {rank}.",
        open=f"Whether Grad-CAM of {network} ranks fibres as restoring them acts on the network stays open: {rank}.",
    )


def _corrected(model: str, network: str) -> Claim:
    place = f"gradcam p_values.{model}.auprc_minus_random"
    names = ("significant", "methods", "people", "least", "floor")
    return Claim(
        name=f"after-correction-{model}",
        reads={name: f"{place}.{name}" for name in names},
        predicate=lambda significant, **_: bool(significant) or None,
        holds=f"Corrected for {{methods}} methods (Holm), AUPRC of these maps for {network} differs from chance: "
        "{significant}.",
        fails="",
        open=f"Corrected for {{methods}} methods (Holm), AUPRC of no map for {network} is seen to differ from chance: "
        "with {people} people the smallest corrected p-value that the test can give is {floor:.2f}.",
    )


def _all_yes(model: str, network: str) -> Claim:
    return Claim(
        name=f"passes-every-test-{model}",
        reads={"names": f"gradcam all_yes.{model}"},
        predicate=lambda names: bool(names),
        holds=f"Of the methods that explain {network}, these pass every test: {{names}}.",
        fails=f"No method that explains {network} is seen to pass every test.",
        open="",
    )
