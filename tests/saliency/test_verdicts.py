from __future__ import annotations

import pytest

from mitolib.metrics import Estimate
from mitolib.saliency import verdicts


def score(value: float | None, *ci: float) -> Estimate:
    return Estimate(value, ci or None)


UP, DOWN, WIDE = score(0.2, 0.1, 0.3), score(-0.2, -0.3, -0.1), score(0.0, -0.1, 0.1)
FINDS = ("auprc_minus_random", "pointing_minus_random", "auprc_minus_intensity", "pointing_minus_intensity")


def differences(*found: Estimate) -> dict[str, Estimate]:
    return dict(zip(FINDS, found, strict=True))


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ((UP, UP, UP, UP), "yes"),
        ((UP, DOWN, UP, UP), "no"),  # a map that never points inside finds nothing, whatever its AUPRC
        ((DOWN, UP, UP, UP), "no"),
        ((UP, WIDE, UP, UP), "open"),
        ((UP, UP, DOWN, UP), "less than brightness"),
        ((UP, UP, UP, DOWN), "less than brightness"),
        ((UP, UP, WIDE, UP), "open"),
        ((UP, UP, score(0.2), UP), "open"),  # too few people for an interval
        ((UP, score(None), UP, UP), "-"),
    ],
)
def test_a_map_finds_fibres_if_both_scores_lie_above_chance_and_brightness(found, answer):
    assert verdicts.finds("Grad-CAM", differences(*found)) == answer


def test_edges_that_never_point_inside_find_nothing():
    assert verdicts.finds("Sobel", differences(UP, score(-0.4, -0.5, -0.3), UP, DOWN)) == "no"


def test_brightness_is_held_against_chance_alone():
    assert verdicts.finds("intensity", differences(UP, UP, score(0, 0, 0), score(0, 0, 0))) == "yes"


def test_below_is_above_turned_round():
    assert verdicts.below(DOWN, 0) is True and verdicts.below(UP, 0) is False
    assert verdicts.below(WIDE, 0) is None and verdicts.below(score(-1), 0) is None


def of(kept: Estimate, removal: Estimate, rank: Estimate) -> tuple[dict, dict]:
    scores = {"deletion_minus_random": removal, "causal_rank_correlation": rank}
    return scores, {"redrawn_minus_different": kept} | differences(UP, UP, UP, UP)


def test_verdicts_follow_the_intervals_of_differences():
    maps = {
        "good": of(WIDE, DOWN, UP),  # as alike to another network's map as patches are, give or take
        "stubborn": of(score(0.9, 0.8, 1.0), UP, DOWN),
        "open": of(score(0.1, 0.05, 0.2), WIDE, WIDE),
        "blind": of(score(None), score(None), score(None)),
        "random": of(score(None), WIDE, WIDE),
    }
    methods, compared = ({name: pair[i] for name, pair in maps.items()} for i in (0, 1))
    answers = verdicts.network_verdicts(methods, compared)
    assert answers.loc["good"].tolist() == ["yes"] * 4
    assert answers.loc["stubborn"].tolist() == ["no", "yes", "no", "no"]
    assert answers.loc["open"].tolist() == ["open", "yes", "open", "open"]
    assert answers.loc["blind"].tolist() == ["-", "yes", "-", "-"]
    assert "random" not in answers.index


def test_without_truth_the_questions_about_it_are_not_asked():
    scores = {"Grad-CAM": {"deletion_minus_random": DOWN}}
    answers = verdicts.network_verdicts(scores, {"Grad-CAM": {"redrawn_minus_different": WIDE}})
    assert answers.to_dict("index") == {"Grad-CAM": {"follows the weights": "yes", "network reacts": "yes"}}
