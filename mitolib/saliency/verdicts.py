"""Verdicts on maps, each by intervals over people: of the difference, where a map is compared with another."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from mitolib.claims import above
from mitolib.metrics import Estimate

MARGIN = 0.1  # of SSIM, a tenth of what a map has with itself: more than that is kept of the trained map
LEADING = ("auprc", "pointing")  # scores that decide whether a map finds the deficient fibres
FOLLOWS, FINDS, REACTS, RANKS = (
    "follows the weights",
    "finds deficient fibres",
    "network reacts",
    "ranks fibres as they act",
)


def below(score: Estimate, level: float) -> bool | None:
    """Whether a score lies below a level, see `claims.above`."""
    if score.value is None or score.ci is None:
        return None
    low, high = score.ci
    return above(Estimate(-score.value, (-high, -low)), -level)


def at_most(score: Estimate, level: float) -> bool | None:
    """Whether a score does not exceed a level, see `claims.above`."""
    answer = above(score, level)
    return None if answer is None else not answer


def network_verdicts(
    methods: Mapping[str, Mapping[str, Estimate]], differences: Mapping[str, Mapping[str, Estimate]]
) -> pd.DataFrame:
    """One row per method of a network, the answer to four questions: yes, no, or "open" where an interval spans both.

    methods, differences: method -> score -> estimate. A question whose score nothing has, as on data without truth, has
    no column; a dash where it has no answer for a map. The map of random numbers is the yardstick and gets no verdict.

    follows the weights: more alike to maps of networks drawn anew than to those of other patches by at most MARGIN.
    finds deficient fibres: see `finds`. network reacts: the log odds of "patient" fall further than under removal at
    random. ranks fibres: correlation with the causal ranking above 0.
    """
    rows = {}
    for method, scores in methods.items():
        if method == "random":
            continue
        differs = differences[method]
        kept = differs["redrawn_minus_different"]
        answers = {FOLLOWS: _answer(kept, at_most(kept, MARGIN))}
        if "auprc_minus_random" in differs:
            answers[FINDS] = finds(method, differs)
        answers[REACTS] = _answer(scores["deletion_minus_random"], below(scores["deletion_minus_random"], 0))
        if "causal_rank_correlation" in scores:
            ranks = scores["causal_rank_correlation"]
            answers[RANKS] = _answer(ranks, above(ranks, 0))
        rows[method] = answers
    return pd.DataFrame.from_dict(rows, orient="index")


def finds(method: str, differences: Mapping[str, Estimate]) -> str:
    """Whether a map finds the deficient fibres better than random numbers do, and than brightness does.

    yes: AUPRC and pointing lie above those of both. no: one of them lies below, or at, that of random numbers. "less
    than brightness": above random numbers, and one of them below, or at, that of the picture's brightness.
    """
    by_rival = {
        rival: [differences[f"{score}_minus_{rival}"] for score in LEADING]
        for rival in ("random", "intensity")
        if rival != method
    }
    if any(score.value is None for scores in by_rival.values() for score in scores):
        return "-"
    answers = {rival: [above(score, 0) for score in scores] for rival, scores in by_rival.items()}
    if False in answers["random"]:
        return "no"
    if None in answers["random"]:
        return "open"
    against_brightness = answers.get("intensity", [])
    if False in against_brightness:
        return "less than brightness"
    return "open" if None in against_brightness else "yes"


def _answer(score: Estimate, answer: bool | None) -> str:
    if score.value is None:
        return "-"
    return {True: "yes", False: "no", None: "open"}[answer]
