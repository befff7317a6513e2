from __future__ import annotations

import numpy as np
import pandas as pd

from mitolib.metrics import Estimate
from mitolib.saliency import verdicts


def test_the_summary_has_every_score_of_every_model_and_method_as_json(rng):
    index = pd.MultiIndex.from_product([["VGG16"], ["Sobel", "saliency"], [0, 1]], names=["model", "method", "patch"])
    scores = pd.DataFrame({"auprc": [1.0, 0, 1, 1], "rank": np.nan}, index=index)
    summary = verdicts.estimates(scores, {"VGG16": pd.Series(list("AB"))}, rng=rng)
    assert summary["VGG16"]["Sobel"]["auprc"].value == 0.5 and summary["VGG16"]["saliency"]["auprc"].value == 1
    assert summary["VGG16"]["Sobel"]["rank"] == Estimate(None, None, 0, 2)


def score(value: float | None, *ci: float) -> Estimate:
    return Estimate(value, ci or None)


def test_verdicts_follow_the_intervals_and_a_map_must_beat_edges():
    empty = {"randomisation_ssim": score(None), "different_patches_ssim": score(None)}
    empty |= {"deletion_minus_random": score(0, -1, 1), "causal_rank_correlation": score(0.3)}
    sees = {"randomisation_ssim": score(0.1), "different_patches_ssim": score(0.2)}
    sees |= {"deletion_minus_random": score(-0.2, -0.3, -0.1), "causal_rank_correlation": score(0.5, 0.4, 0.6)}
    by_method = {
        "Sobel": empty | {"mass_over_area": score(1.3, 1.2, 1.4)},
        "good": sees | {"mass_over_area": score(2, 1.5, 3)},
        "edgy": sees | {"mass_over_area": score(1.2, 1.1, 1.3), "randomisation_ssim": score(0.9)},
        "blind": sees | {"mass_over_area": score(0.8, 0.7, 0.9), "deletion_minus_random": score(0.1, 0.0, 0.2)},
    }
    answers = verdicts.verdicts({"VGG16": by_method}).loc["VGG16"]
    assert answers.loc["good"].tolist() == ["yes"] * 4
    assert answers.loc["edgy"].tolist() == ["no", "no more than an edge or brightness map", "yes", "yes"]
    assert answers.loc["blind"].tolist() == ["yes", "no", "no", "yes"]
    assert answers.loc["Sobel"].tolist() == ["-", "yes", "open", "open"]
    lucky = {"random": empty | {"mass_over_area": score(1.2, 1.0, 1.3)}}
    answers = verdicts.verdicts({"VGG16": by_method | lucky}).loc["VGG16"]
    assert answers.loc["Sobel", "finds deficient fibres"] == "open", "random numbers did as well in this sample"
    assert "random" not in answers.index


def test_without_truth_the_questions_about_it_are_not_asked():
    scores = {"randomisation_ssim": score(0.1), "different_patches_ssim": score(0.2)}
    scores |= {"deletion_minus_random": score(-0.2, -0.3, -0.1)}
    answers = verdicts.verdicts({"VGG16": {"Grad-CAM": scores, "random": scores}})
    assert answers.loc["VGG16"].to_dict("index") == {
        "Grad-CAM": {"follows the weights": "yes", "network reacts": "yes"}
    }


def test_one_score_is_taken_out_of_all_and_one_that_is_not_there_is_empty():
    methods = {"VGG16": {"Sobel": {"auprc": score(1), "rank": score(2)}}, "ResNet50": {"Sobel": {"auprc": score(3)}}}
    summary = verdicts.Summary(methods)
    assert summary.score("auprc") == {"VGG16": {"Sobel": score(1)}, "ResNet50": {"Sobel": score(3)}}
    assert summary.score("mass_over_area") == {}


def test_the_verdicts_are_recorded_by_model_and_method():
    scores = {"randomisation_ssim": score(0.1), "different_patches_ssim": score(0.2)}
    scores |= {"deletion_minus_random": score(-0.2, -0.3, -0.1)}
    summary = verdicts.Summary({name: {"Grad-CAM": scores} for name in ("VGG16", "ResNet50")})
    answers = {"Grad-CAM": {"follows the weights": "yes", "network reacts": "yes"}}
    assert summary.verdicts_record == {"VGG16": answers, "ResNet50": answers}
