"""The conclusions of the chapter, as claims on its record: each a sentence with the predicate that decides it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mitolib.claims import Claim, above
from mitolib.metrics import COLLAPSED, Estimate
from mitolib.people.comparison import PATCHES, THRESHOLDED
from mitolib.people.controls import HEAD, ON_FEATURES
from mitolib.people.leak import SPELT
from mitolib.people.metrics import exact_interval, key
from mitolib.people.morphometry import GREY_LEVELS
from mitolib.people.protocols import NO_OVERLAP, SEEN, UNSEEN

CHAPTER = "patient_level"
SIGNIFICANT = 0.05  # a p, corrected where there are several, below which a difference counts


def claims(record: Mapping[str, Any]) -> list[Claim]:
    """Of the chapter's record, all of whose keys but `claims` are there. What the data do not allow has no claim."""
    return [
        *_leaking(record),
        *_between_splits(record),
        *_by_budget(record),
        *_collapsed(record),
        *_dealt_anew(record),
        *_named(record),
        *_twin_pictures(record),
        *_cured(record),
        *_by_share(record),
        *_missed(record),
        *_untrained(record),
        *_ranking(record),
        *_threshold(record),
        *_fibres(record),
        _precision(record),
    ]


def _at(*path: str) -> str:
    return f"{CHAPTER} {'.'.join(path)}"


def _surely_above(score: Estimate, p: float | None) -> bool | None:
    """`above` 0, and open where the interval says so but the corrected test does not."""
    is_above = above(score, 0)
    return None if is_above and (p is None or p >= SIGNIFICANT) else is_above


def _leaking(record: Mapping[str, Any]) -> Iterator[Claim]:
    for experiment in record["leak"]:
        text = (
            f"Of the test patches of {SPELT[experiment]} under the published split, {{share:.0%}} share pixels with a "
            "training patch, on average {pixels:.0%} of their own. Of the people tested, {people:.0%} were trained on."
        )
        yield Claim(
            name=f"{experiment}-most-test-patches-overlap",
            reads={
                "share": _at("leak", experiment, "share_of_patches"),
                "pixels": _at("leak", experiment, "mean_shared_fraction"),
                "people": _at("leak", experiment, "subjects_seen"),
            },
            predicate=lambda share, pixels, people: share > 0.5,
            holds=f"Most test patches were seen in training. {text}",
            fails=f"Most test patches were not seen in training. {text}",
            open=text,
        )


BETWEEN = {  # (of, minus) -> what a difference above 0 means, and what it is
    (SEEN, UNSEEN): ("scores higher on people it was trained on than on held-out people", "people seen minus held out"),
    (SEEN, NO_OVERLAP): (
        "scores higher on patches that overlap with training patches than on pixels not seen of the same people",
        "overlapping patches minus new pixels of the same people",
    ),
    (NO_OVERLAP, UNSEEN): (
        "scores higher on new pixels of people it was trained on than on held-out people",
        "new pixels of people seen minus people held out",
    ),
}


def _between_splits(record: Mapping[str, Any]) -> Iterator[Claim]:
    """For each model on VGG16; where pixels are not shared, for the heads alone."""
    for entries in record["difference"].values():
        for name, entry in entries.items():
            model, splits = entry["model"], (entry["of"], entry["minus"])
            if not model.startswith("VGG16") or (NO_OVERLAP in splits and " head" not in model):
                continue
            says, what = BETWEEN[splits]
            number = f"Balanced accuracy, {what}: {{gap}}, p (Holm) {{p:.3f}}."
            yield Claim(
                name=f"{key(model)}-{name}",
                reads={
                    "gap": _at("difference", key(model), name, "balanced_accuracy"),
                    "p": _at("difference", key(model), name, "p_holm"),
                },
                predicate=_gap,
                holds=f"*{model}* {says}. {number}",
                fails=f"*{model}* scores no higher there. {number}",
                open=f"Whether *{model}* {says} stays open. {number}",
            )


def _gap(gap: Estimate, p: float, **_: Any) -> bool | None:
    """Of a paired difference with its corrected p; what else a sentence reads does not decide."""
    return _surely_above(gap, p)


def _by_budget(record: Mapping[str, Any]) -> Iterator[Claim]:
    """Of each head: does longer training raise its score, and does a gap remain at the longest?"""
    heads = dict.fromkeys(entry["model"] for entry in record["curve"]["entries"])
    for head in heads:
        for split, entry in record["curve"]["longer"][key(head)].items():
            if "balanced_accuracy" not in entry:
                continue
            where = "held-out people" if split == UNSEEN else "the published split"
            number = "Balanced accuracy, {longest} steps minus {shorter}: {gap}."
            yield Claim(
                name=f"{key(head)}-longer-training-pays-{split}",
                reads={
                    word: _at("curve", "longer", key(head), split, name)
                    for word, name in {"gap": "balanced_accuracy", "longest": "of", "shorter": "minus"}.items()
                },
                predicate=lambda gap, longest, shorter: above(gap, 0),
                holds=f"Longer training raises the score of *{head}* on {where}. {number}",
                fails=f"Longer training does not raise the score of *{head}* on {where}. {number}",
                open=f"Whether longer training raises the score of *{head}* on {where} stays open. {number}",
            )
        if gaps := record["curve"]["gaps"].get(key(head)):
            longest = max(gaps, key=int)
            if "balanced_accuracy" not in gaps[longest]:
                continue
            number = f"Balanced accuracy, people seen minus held out, at {longest} steps: {{gap}}, p {{p:.3f}}."
            yield Claim(
                name=f"{key(head)}-gap-at-the-longest",
                reads={
                    "gap": _at("curve", "gaps", key(head), longest, "balanced_accuracy"),
                    "p": _at("curve", "gaps", key(head), longest, "p_sign_flip"),
                },
                predicate=_gap,
                holds=f"The gap of *{head}* between people seen and held out remains at the longest training. {number}",
                fails=f"At the longest training *{head}* scores no higher on people seen. {number}",
                open=f"Whether the gap of *{head}* remains at the longest training stays open. {number}",
            )


def _collapsed(record: Mapping[str, Any]) -> Iterator[Claim]:
    """Of each head of the table: did trainings end at one answer for all, under any split?"""
    for head in record["collapsed"]:
        number = f"The same answer for over {COLLAPSED:.0%} of the test patches: {{collapsed}} of {{trainings}}."
        yield Claim(
            name=f"{key(head)}-never-collapses",
            reads={count: _at("collapsed", head, count) for count in ("collapsed", "trainings")},
            predicate=lambda collapsed, trainings: collapsed == 0,
            holds=f"No training of *{head}* collapsed to one answer. {number}",
            fails=f"Some trainings of *{head}* collapsed to one answer. {number}",
            open=number,
        )


def _dealt_anew(record: Mapping[str, Any]) -> Iterator[Claim]:
    for model, by_split in record["controls"]["permuted_means"].items():
        called = {key(name): name for name in (ON_FEATURES, HEAD)}[model]
        number = (
            "Balanced accuracy {score}, draws of labels: {n}; agreement of these labels with the true ones {agreement}."
        )
        reads = {
            word: _at("controls", "permuted_means", model, "{}", name)
            for word, name in {
                "score": "balanced_accuracy",
                "n": "balanced_accuracy.n",
                "agreement": "agreement",
            }.items()
        }
        if SEEN in by_split:
            yield Claim(
                name=f"{model}-learns-labels-without-disease",
                reads={word: place.format(SEEN) for word, place in reads.items()},
                predicate=lambda score, n, agreement: above(score, 0.5),
                holds=f"The published split is passed without any disease: *{called}* predicts labels dealt out anew "
                f"among the people. A score under this split cannot tell who knows the disease from who knows the "
                f"biopsies. {number}",
                fails=f"*{called}* does not predict labels dealt out anew among the people, even under the published "
                f"split. {number}",
                open=f"Whether *{called}* predicts labels dealt out anew under the published split stays open. "
                f"{number}",
            )
        if UNSEEN in by_split:
            yield Claim(
                name=f"{model}-predicts-labels-without-disease-of-held-out-people",
                reads={word: place.format(UNSEEN) for word, place in reads.items()},
                predicate=lambda score, n, agreement: above(score, 0.5),
                holds=f"On held-out people *{called}* predicts labels without disease better than by chance, which "
                f"should not be. {number}",
                fails=f"On held-out people *{called}* predicts labels without disease no better than by chance. "
                f"{number}",
                open=f"On held-out people what *{called}* scores with labels without disease is not told from chance. "
                f"{number}",
            )


def _named(record: Mapping[str, Any]) -> Iterator[Claim]:
    name = f"VGG16, {SEEN}"
    if name in record["controls"]["subject_probe"]:
        number = "Share of the test patches {accuracy}; guessing names at most {chance:.2f}."
        yield Claim(
            name="features-name-the-person",
            reads={
                "accuracy": _at("controls", "subject_probe", name, "accuracy"),
                "chance": _at("controls", "subject_probe", name, "chance"),
            },
            predicate=lambda accuracy, chance: above(accuracy, chance),
            holds=f"From VGG16's features a linear probe names the person. {number}",
            fails=f"From VGG16's features a linear probe does not name the person. {number}",
            open=f"Whether VGG16's features name the person stays open. {number}",
        )


def _twin_pictures(record: Mapping[str, Any]) -> Iterator[Claim]:
    whose = {"cured": "cured patients", "afflicted": "afflicted controls"}
    for kind in record["twin_pictures"]:
        number = (
            f"Pictures of {whose[kind]} whose level, saturated and black pixels all lie within the range of people: "
            "{within} of {pictures}."
        )
        yield Claim(
            name=f"{kind}-pictures-pass-for-people",
            reads={word: _at("twin_pictures", kind, word) for word in ("within", "pictures")},
            predicate=lambda within, pictures: within == pictures,
            holds=f"In grey levels {whose[kind]} pass for people. {number}",
            fails=f"In grey levels not all {whose[kind]} pass for people. {number}",
            open=number,
        )


def _cured(record: Mapping[str, Any]) -> Iterator[Claim]:
    """For each head on VGG16, on people seen and held out."""
    whom = {SEEN: "patients it was trained on", UNSEEN: "held-out patients"}
    for model, by_split in record["carried"].items():
        for split in by_split if model.startswith("VGG16 head") else ():
            number = "Mean fall of p {fall}; of {called} patients recognised, {turned} are called controls once cured."
            yield Claim(
                name=f"{key(model)}-answers-the-cure-{split}",
                reads={word: _at("carried", model, split, word) for word in ("fall", "called", "turned")},
                predicate=lambda fall, called, turned: above(fall, 0),
                holds=f"*{model}* answers the cure of all deficient fibres, in {whom[split]}. {number}",
                fails=f"*{model}* does not answer the cure of all deficient fibres, in {whom[split]}. {number}",
                open=f"Whether *{model}* answers the cure, in {whom[split]}, stays open. {number}",
            )


def _by_share(record: Mapping[str, Any]) -> Iterator[Claim]:
    for model in (entry for entry in record["fall_by_share"] if entry.startswith("VGG16")):
        if record["fall_by_share"][model]["p"] is None:
            continue
        called = _called(model, record)
        number = "Rank correlation {correlation}, p {p:.3f}, patients: {n}."
        yield Claim(
            name=f"{model}-falls-with-the-share",
            reads={
                "correlation": _at("fall_by_share", model, "rank_correlation"),
                "n": _at("fall_by_share", model, "rank_correlation", "n"),
                "p": _at("fall_by_share", model, "p"),
            },
            predicate=lambda correlation, n, p: _surely_above(correlation, p),
            holds=f"The more deficient fibres a held-out patient has, the more the cure lowers what *{called}* says. "
            f"{number}",
            fails=f"What *{called}* says does not fall more for patients with more deficient fibres. {number}",
            open=f"Whether what *{called}* says falls with the share of deficient fibres stays open. {number}",
        )


def _called(model: str, record: Mapping[str, Any]) -> str:
    """The name of a model, from its key."""
    return next(name for name in record["twins"] if key(name) == model)


def _missed(record: Mapping[str, Any]) -> Iterator[Claim]:
    """Of each model on VGG16 that misses held-out patients and finds others."""
    for entry in record["table"]:
        model = entry["model"]
        if entry["split"] != UNSEEN or not model.startswith("VGG16"):
            continue
        of_model = record["held_out"][key(model)]
        if of_model["p_fewer"] is None:
            continue
        named = ", ".join(f"{name} ({share:.0%})" for name, share in of_model["missed"].items())
        wrong_controls = [name for name in of_model["wrong"] if name not in of_model["missed"]]
        also = f" Controls called patients: {', '.join(wrong_controls)}." if wrong_controls else ""
        number = f"Missed, with their share of deficient fibres: {named}; p {{p:.3f}}.{also}"
        yield Claim(
            name=f"{key(model)}-misses-who-has-few-deficient-fibres",
            reads={"p": _at("held_out", key(model), "p_fewer")},
            predicate=lambda p: True if p < SIGNIFICANT else False if p > 1 - SIGNIFICANT else None,
            holds=f"The held-out patients that *{model}* misses have fewer deficient fibres than those it finds. "
            f"{number}",
            fails=f"The held-out patients that *{model}* misses have more deficient fibres than those it finds. "
            f"{number}",
            open=f"Whether the held-out patients that *{model}* misses have fewer deficient fibres stays open. "
            f"{number}",
        )


def _compared(of: str, minus: str, score: str) -> dict[str, str]:
    place = ("ranking", "differences", key(of), key(minus))
    return {"gap": _at(*place, score), "p": _at(*place, "p_holm")}


def _is_compared(record: Mapping[str, Any], of: str, minus: str) -> bool:
    return key(minus) in record["ranking"]["differences"].get(key(of), {})


def _untrained(record: Mapping[str, Any]) -> Iterator[Claim]:
    """Do ImageNet weights help with held-out people? Of each VGG16 head of the table and each control."""
    heads = dict.fromkeys(entry["model"] for entry in record["table"] if entry["model"].startswith("VGG16 head"))
    for control in dict.fromkeys(entry["model"] for entry in record["controls"]["untrained"]):
        for head in (head for head in heads if _is_compared(record, head, control)):
            number = "AUC over held-out people, difference: {gap}."
            yield Claim(
                name=f"{key(head)}-beats-{key(control)}",
                reads={"gap": _compared(head, control, "auc_subject")["gap"]},
                predicate=lambda gap: above(gap, 0),
                holds=f"*{head}* ranks held-out people better than *{control}*. {number}",
                fails=f"*{head}* ranks held-out people no better than *{control}*. {number}",
                open=f"Whether *{head}* ranks held-out people better than *{control}* stays open. {number}",
            )


def _ranking(record: Mapping[str, Any]) -> Iterator[Claim]:
    """Is the best of the models that see pictures better than the next?"""
    best, order = record["ranking"]["best"], record["ranking"]["order"]
    if not order or not _is_compared(record, best, order[0]):
        return
    scores = {"best": _at("by_model", key(best), UNSEEN), "next": _at("by_model", key(order[0]), UNSEEN)}
    reads = {f"{word}_auc": f"{place}.auc_subject" for word, place in scores.items()}
    number = (
        f"AUC over held-out people {{best_auc:.2f}} for *{best}* and {{next_auc:.2f}} for the next, *{order[0]}*; "
        "difference {gap}."
    )
    yield Claim(
        name="one-model-of-pictures-is-best",
        reads=reads | {"gap": _compared(best, order[0], "auc_subject")["gap"]},
        predicate=lambda gap, best_auc, next_auc: above(gap, 0),
        holds=f"Of the models that see pictures one ranks held-out people best. {number}",
        fails=f"Of the models that see pictures none ranks held-out people best. {number}",
        open=f"Which of the models that see pictures ranks held-out people best stays open. {number}",
    )


def _threshold(record: Mapping[str, Any]) -> Iterator[Claim]:
    if _is_compared(record, THRESHOLDED, PATCHES):
        number = "Balanced accuracy, this threshold minus one half: {gap}, p (Holm) {p:.3f}."
        yield Claim(
            name="a-threshold-from-training-people-pays",
            reads=_compared(THRESHOLDED, PATCHES, "balanced_accuracy"),
            predicate=_gap,
            holds=f"A threshold chosen on training people raises the score on held-out people. {number}",
            fails=f"A threshold chosen on training people does not raise the score on held-out people. {number}",
            open=f"Whether a threshold chosen on training people raises the score stays open. {number}",
        )


def _fibres(record: Mapping[str, Any]) -> Iterator[Claim]:
    best = record["ranking"]["best"]
    if _is_compared(record, GREY_LEVELS, best):
        place = _at("by_model", key(GREY_LEVELS), UNSEEN)
        number = (
            "Fibre by fibre, from the grey levels of the pictures, {right} of {n} held-out people are called rightly; "
            f"balanced accuracy minus that of *{best}*: {{gap}}, p (Holm) {{p:.3f}}."
        )
        yield Claim(
            name="fibres-beat-pictures",
            reads=_compared(GREY_LEVELS, best, "balanced_accuracy")
            | {"right": f"{place}.subjects_right", "n": f"{place}.n_subjects"},
            predicate=_gap,
            holds=f"The share of deficient fibres beats the best model that sees pictures. {number}",
            fails=f"The share of deficient fibres does not beat the best model that sees pictures. {number}",
            open=f"Whether the share of deficient fibres beats the best model that sees pictures stays open. {number}",
        )


def _precision(record: Mapping[str, Any]) -> Claim:
    n_people = record["honest"][0]["n_subjects"]
    lowest, _ = exact_interval(n_people, n_people)
    number = (
        f"Even without any error the exact interval of {n_people} people would begin at {lowest:.0%}. To know a "
        "specificity near 90 % within an interval of ten points in total width takes {needed} controls; there are {n}."
    )
    return Claim(
        name="the-people-are-too-few",
        reads={"needed": _at("controls_needed"), "n": _at("n_controls")},
        predicate=lambda needed, n: n < needed,
        holds=f"These people are too few for a specificity. {number}",
        fails=f"There are controls enough for a specificity. {number}",
        open=number,
    )
