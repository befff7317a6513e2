"""What the chapter concludes: claims over its results file, each with the predicate that decides what is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mitolib.claims import Claim, above
from mitolib.metrics import Estimate
from mitolib.prototypes.asking import LOGISTIC, UNSEEN
from mitolib.prototypes.fits import PLAIN, QUOTA

Record = Mapping[str, Any]
MAPS = {  # of the network -> in words
    "prototypes": "the evidence of all prototypes for patient",
    "PRP": "the relevance of the prototype that adds most",
}
MARGIN = 0.1  # of SSIM, as in the chapter on maps: more than that is kept of the trained map
CHANCE = 0.5  # balanced accuracy of any answer that knows nothing
STABLE = 0.5  # share of prototypes that have to be found again to be called so


def claims(record: Record) -> list[Claim]:
    """The claims that a results file of this chapter allows: those on parts that its data leave out are not made."""
    found = []
    differences = record["differences"]
    split = UNSEEN if UNSEEN in record["models"][PLAIN] else record["shown"]
    found.append(_beats_one_answer(split))
    if LOGISTIC in differences[PLAIN].get(split, {}):
        found.append(_against_logistic(split))
    if "seen minus unseen" in differences[PLAIN]:
        found.append(_seen_people())
    if "free" in differences[QUOTA].get(split, {}) and PLAIN in differences[QUOTA][split]:
        found.append(_quota(split))
    if record["self_recognition"][PLAIN]["chance"]["value"] > 0:  # else nobody who is tested was trained on
        found.append(_recognises_people())
    found.append(_found_again())
    by_method = record["methods"].get(PLAIN, {})
    of_maps, shown = by_method.get("prototypes", {}), [method for method in MAPS if method in by_method]
    if "auprc_minus_random" in of_maps:
        found += [_finds(method, "auprc") for method in shown]
    if "deletion_minus_random" in of_maps:
        found.append(_reacts())
    if "redrawn_minus_different" in of_maps:
        found += [_follows(method) for method in shown]
    if "causal_rank_correlation" in by_method.get("PRP", {}):
        found.append(_ranks("PRP"))
    if record["relevance"]:
        found.append(_cell_is_not_what_counts())
    for name, entry in record["annotated"].items():
        if (
            entry["k"] == 1
            and not entry["turned"]
            and entry["share"] == max(e["share"] for e in record["annotated"].values())
        ):
            found += [_fine_helps(name), _fine_above_chance(name)]
    if record["novel"]:
        found.append(_novel(record["novel"]))
    return found


def _score(model: str, split: str) -> str:
    return f"prototypes models.{model}.{split}"


def _difference(model: str, split: str, against: str) -> str:
    return f"prototypes differences.{model}.{split}.{against}"


def _beats_one_answer(split: str) -> Claim:
    who = "on people not seen" if split == UNSEEN else "on the test patches"

    def predicate(score: float, ci: list[float] | None, auc: float) -> bool | None:
        return above(Estimate(score, tuple(ci) if ci else None), CHANCE)

    scores = "balanced accuracy {score:.2f}, area under the curve over people {auc:.2f}"
    return Claim(
        name="prototypes-tell-patients-from-controls",
        reads={
            "score": f"{_score(PLAIN, split)}.balanced_accuracy",
            "ci": f"{_score(PLAIN, split)}.ci.balanced_accuracy",
            "auc": f"{_score(PLAIN, split)}.auc_subject",
        },
        predicate=predicate,
        holds=f"ProtoPNet tells controls from patients {who}: {scores}.",
        fails=f"ProtoPNet does not tell controls from patients {who}: {scores}.",
        open=f"Whether ProtoPNet tells controls from patients {who} stays open: {scores}.",
    )


def _against_logistic(split: str) -> Claim:
    compared = "Balanced accuracy of patches less that of a logistic regression on the same maps: {gap}."
    return Claim(
        name="prototypes-beat-the-plainest-model",
        reads={"gap": _difference(PLAIN, split, LOGISTIC)},
        predicate=lambda gap: above(gap, 0),
        holds=f"ProtoPNet is better than the plainest model. {compared}",
        fails=f"ProtoPNet is no better than the plainest model. {compared}",
        open=f"Whether ProtoPNet is better than the plainest model stays open. {compared}",
    )


def _seen_people() -> Claim:
    compared = "The difference in balanced accuracy is {gap}."
    return Claim(
        name="prototypes-score-higher-on-seen-people",
        reads={"gap": f"prototypes differences.{PLAIN}.seen minus unseen"},
        predicate=lambda gap: above(gap, 0),
        holds=f"ProtoPNet scores higher on people whose other patches it was trained on. {compared}",
        fails=f"ProtoPNet scores no higher on people whose other patches it was trained on. {compared}",
        open=f"Whether ProtoPNet scores higher on people whose other patches it was trained on stays open. {compared}",
    )


def _quota(split: str) -> Claim:
    def predicate(gap: Estimate) -> bool | None:
        answer = above(Estimate(-gap.value, (-gap.ci[1], -gap.ci[0])), 0) if gap.ci else None
        return answer

    compared = "The balanced accuracy with it, less that without, is {gap}."
    return Claim(
        name="a-quota-of-people-costs-accuracy",
        reads={"gap": _difference(QUOTA, split, PLAIN)},
        predicate=predicate,
        holds=f"To share prototypes out among people costs accuracy. {compared}",
        fails=f"To share prototypes out among people costs no accuracy. {compared}",
        open=f"Whether it costs accuracy to share prototypes out among people stays open. {compared}",
    )


def _recognises_people() -> Claim:
    shares = "The share of test patches explained by a prototype of the same person is {same}, by chance {chance}"
    entry = f"prototypes self_recognition.{PLAIN}"
    return Claim(
        name="this-looks-like-that-is-this-is-that",
        reads={
            "same": f"{entry}.same_subject",
            "chance": f"{entry}.chance",
            "gap": f"{entry}.same_subject_minus_chance",
        },
        predicate=lambda gap, **_: above(gap, 0),
        holds=f"Where people are seen, prototypes recognise them. {shares}; the difference is {{gap}}.",
        fails=f"Prototypes do not recognise people by more than chance. {shares}; the difference is {{gap}}.",
        open=f"Whether prototypes recognise people stays open. {shares}; the difference is {{gap}}.",
    )


def _found_again() -> Claim:
    shares = (
        "Of the prototypes of two trainings that differ in their seed, matched by their activations, {again} lie at "
        "the same place of the tissue; the two give the same answer on {agreement} of the test patches."
    )
    return Claim(
        name="prototypes-are-found-again",
        reads={"again": "prototypes stability.found_again", "agreement": "prototypes stability.agreement"},
        predicate=lambda again, agreement: None if again.value is None else again.value > STABLE,
        holds=f"Another training finds the same prototypes. {shares}",
        fails=f"Another training finds other prototypes. {shares}",
        open="Whether another training finds the same prototypes stays open: there was one training.",
    )


def _finds(method: str, score: str) -> Claim:
    entry, words = f"{_method(method)}.{score}_minus_random", MAPS[method]
    compared = "AUPRC less chance in the same patches: {gap}."
    return Claim(
        name=f"{method.replace(' ', '-').lower()}-finds-deficient-fibres",
        reads={"gap": entry},
        predicate=lambda gap: above(gap, 0),
        holds=f"A map finds deficient fibres: {words}. {compared}",
        fails=f"A map does not find deficient fibres: {words}. {compared}",
        open=f"Whether a map finds deficient fibres stays open: {words}. {compared}",
    )


def _reacts() -> Claim:
    compared = "Log odds after removal, minus those after removal at random: {gap}."

    def predicate(gap: Estimate) -> bool | None:
        return above(Estimate(-gap.value, (-gap.ci[1], -gap.ci[0])), 0) if gap.ci else None

    return Claim(
        name="network-reacts-to-its-prototypes",
        reads={"gap": f"{_method('prototypes')}.deletion_minus_random"},
        predicate=predicate,
        holds=f"The network misses what its prototypes mark. {compared}",
        fails=f"The network does not miss what its prototypes mark. {compared}",
        open=f"Whether the network misses what its prototypes mark stays open. {compared}",
    )


def _method(method: str) -> str:
    return f"prototypes methods.{PLAIN}.{method}"


def _follows(method: str) -> Claim:
    """As in the chapter on maps: hardly more alike to maps of networks drawn anew than to those of other patches."""

    def predicate(gap: Estimate) -> bool | None:
        kept = above(gap, MARGIN)
        return None if kept is None else not kept

    words = MAPS[method]
    compared = "SSIM with the map of networks whose weights are all random, less that of two different patches: {gap}."
    return Claim(
        name=f"{method.lower()}-follows-the-weights",
        reads={"gap": f"{_method(method)}.redrawn_minus_different"},
        predicate=predicate,
        holds=f"A map changes when the weights are drawn anew: {words}. {compared}",
        fails=f"A map stays much the same when the weights are drawn anew: {words}. {compared}",
        open=f"Whether a map follows the weights stays open: {words}. {compared}",
    )


def _ranks(method: str) -> Claim:
    words = MAPS[method]
    compared = "Rank correlation over the fibres of a patch with what curing each of them does: {rank}."
    return Claim(
        name=f"{method.lower()}-ranks-fibres-as-they-act",
        reads={"rank": f"{_method(method)}.causal_rank_correlation"},
        predicate=lambda rank: above(rank, 0),
        holds=f"A map ranks fibres as they act on the answer: {words}. {compared}",
        fails=f"A map does not rank fibres as they act on the answer: {words}. {compared}",
        open=f"Whether a map ranks fibres as they act on the answer stays open: {words}. {compared}",
    )


def _cell_is_not_what_counts() -> Claim:
    entry = "prototypes relevance"
    shares = "The cell holds {cell} of a prototype's relevance, the square of 110 px {half}, that of 448 px {field}."
    return Claim(
        name="a-printed-cell-holds-little-of-what-counts",
        reads={name: f"{entry}.{name}.inside" for name in ("cell", "half", "field")},
        predicate=lambda cell, **_: above(Estimate(-cell.value, (-cell.ci[1], -cell.ci[0])), -0.5) if cell.ci else None,
        holds=f"The place that is printed holds less than half of what a prototype depends on. {shares}",
        fails=f"The place that is printed holds half or more of what a prototype depends on. {shares}",
        open=f"Whether the place that is printed holds half of what a prototype depends on stays open. {shares}",
    )


def _fine_helps(name: str) -> Claim:
    compared = "Activation precision on people not seen, less that without masks: {gap}."
    return Claim(
        name="fine-annotation-turns-prototypes-to-the-disease",
        reads={"gap": f"prototypes annotated.{name}.minus_none"},
        predicate=lambda gap: above(gap, 0),
        holds=f"Masks turn prototypes towards the deficient fibres. {compared}",
        fails=f"Masks do not turn prototypes towards the deficient fibres. {compared}",
        open=f"Whether masks turn prototypes towards the deficient fibres stays open. {compared}",
    )


def _fine_above_chance(name: str) -> Claim:
    entry = f"prototypes annotated.{name}"
    compared = "Activation precision {precision}, chance {chance}, difference {gap}."
    return Claim(
        name="annotated-prototypes-find-deficient-fibres",
        reads={
            "gap": f"{entry}.minus_chance",
            "precision": f"{entry}.activation_precision",
            "chance": f"{entry}.chance",
        },
        predicate=lambda gap, **_: above(gap, 0),
        holds=f"On people not seen, prototypes trained with masks find deficient fibres. {compared}",
        fails=f"On people not seen, prototypes trained with masks find no more than chance. {compared}",
        open=f"Whether prototypes trained with masks find deficient fibres of people not seen stays open. {compared}",
    )


def _novel(found: Mapping[str, Any]) -> Claim:
    """One or two people of a genotype give no interval, so that the claim stays open whatever the numbers say."""
    names = {f"genotype_{i}": name for i, name in enumerate(found)}
    path = "minus greatest activation.novel against an unseen person of a known genotype.auroc_patches"
    listed = ", ".join(f"{name} {{{word}:.2f}}" for word, name in names.items() if _has(found[name]))
    people = sum(entry["n_subjects"] for entry in found.values())
    sentence = (
        "Whether the tree notices a genotype that it has never seen stays open. Against an unseen person of a known "
        f"genotype the area under the curve, by patch, is: {listed or 'not defined'}. It rests on {people} "
        f"{'person' if people == 1 else 'people'} of {len(found)} genotypes, which gives no interval."
    )
    reads = {word: f"prototypes novel.{name}.{path}" for word, name in names.items() if _has(found[name])}
    return Claim(
        name="novel-genotypes-are-noticed",
        reads=reads,
        predicate=lambda **_: None,
        holds=sentence,
        fails=sentence,
        open=sentence,
    )


def _has(entry: Mapping[str, Any]) -> bool:
    against = entry["minus greatest activation"]["novel against an unseen person of a known genotype"]
    return against["auroc_patches"] is not None
