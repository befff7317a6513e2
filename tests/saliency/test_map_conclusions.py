"""What the chapter says: each sentence against intervals that hold it, deny it or leave it open."""

from __future__ import annotations

import copy

import pytest

from mitolib.claims import FAILS, HOLDS, OPEN, conclusions
from mitolib.metrics import Estimate
from mitolib.saliency import claims

HIGH, LOW, WIDE = Estimate(0.3, (0.2, 0.4)), Estimate(-0.3, (-0.4, -0.2)), Estimate(0.05, (-0.2, 0.3))
FLAT = Estimate(0.0, (-0.05, 0.05))
GRAD_CAM = {
    "redrawn_minus_different": FLAT,
    "auprc_minus_random": HIGH,
    "pointing_minus_random": LOW,
    "auprc_minus_intensity": LOW,
    "auprc_minus_marker": LOW,
    "deletion_minus_intensity": HIGH,
}
SCORES = {"auprc": HIGH, "pointing": HIGH, "deletion_minus_random": LOW, "causal_rank_correlation": WIDE}
RECORD = {
    "chapter": "gradcam",
    "shown": {"VGG16": "SDHA"},
    "permuted_labels": {"own": HIGH, "agreement": WIDE, "own_minus_agreement": HIGH, "true": WIDE},
    "controls": {"permuted_minus_different": FLAT, "auprc_minus_permuted": WIDE, "auprc_minus_untrained": WIDE},
    "methods": {
        "VGG16": {"Grad-CAM": SCORES, "intensity": SCORES, "marker": SCORES},
        "ResNet50": {"Grad-CAM": SCORES},
        "VGG16-permuted": {"Grad-CAM": SCORES},
    },
    "differences": {"VGG16": {"Grad-CAM": GRAD_CAM}},
    "p_values": {
        "VGG16": {"auprc_minus_random": {"significant": "", "methods": 6, "people": 6, "least": 0.2, "floor": 0.19}}
    },
    "pointing_below_chance": {"VGG16": "Sobel"},
    "all_yes": {"VGG16": ""},
}


def said(record: dict) -> dict[str, tuple[str, str]]:
    answers = conclusions(claims(record), record)
    return {name: (found.verdict, found.sentence) for name, found in answers.items()}


def test_each_claim_says_what_its_interval_says():
    verdict = {name: found for name, (found, _) in said(RECORD).items()}
    assert verdict == {
        "permuted-labels-hold-no-disease": HOLDS,
        "permuted-labels-teach-a-diagnosis": FAILS,
        "grad-cam-follows-the-labels": HOLDS,
        "true-labels-help-grad-cam": OPEN,
        "imagenet-helps-grad-cam": OPEN,
        "grad-cam-follows-the-weights-VGG16": HOLDS,
        "grad-cam-finds-fibres-VGG16": HOLDS,
        "grad-cam-points-at-fibres-VGG16": FAILS,
        "grad-cam-beats-brightness-VGG16": FAILS,
        "maps-below-chance-VGG16": HOLDS,
        "marker-beats-grad-cam-VGG16": HOLDS,
        "network-reacts-VGG16": HOLDS,
        "brightness-counts-more-VGG16": HOLDS,
        "grad-cam-ranks-fibres-VGG16": OPEN,
        "after-correction-VGG16": OPEN,
        "passes-every-test-VGG16": FAILS,
    }


def test_labels_that_hold_a_disease_are_not_said_to_hold_none():
    """As where most people kept theirs: a perfect diagnosis then scores as well as the network that was taught them."""
    record = copy.deepcopy(RECORD)
    record["permuted_labels"] |= {"agreement": Estimate(0.8, (0.75, 0.85)), "own_minus_agreement": LOW}
    verdict, sentence = said(record)["permuted-labels-hold-no-disease"]
    assert verdict == FAILS and "no disease" not in sentence
    record["permuted_labels"] |= {"own_minus_agreement": WIDE}
    verdict, sentence = said(record)["permuted-labels-hold-no-disease"]
    assert verdict == OPEN and "no disease" not in sentence


@pytest.mark.parametrize(("gap", "verdict"), [(HIGH, FAILS), (WIDE, OPEN), (FLAT, HOLDS), (LOW, HOLDS)])
def test_a_map_that_keeps_its_looks_follows_no_weights(gap, verdict):
    record = copy.deepcopy(RECORD)
    record["differences"]["VGG16"]["Grad-CAM"]["redrawn_minus_different"] = gap
    assert said(record)["grad-cam-follows-the-weights-VGG16"][0] == verdict


def test_maps_below_chance_and_those_that_pass_are_named():
    record = copy.deepcopy(RECORD)
    record["all_yes"]["VGG16"] = "Layer-CAM"
    record["p_values"]["VGG16"]["auprc_minus_random"]["significant"] = "Layer-CAM, marker"
    found = said(record)
    assert found["maps-below-chance-VGG16"][1].endswith("Sobel.")
    assert found["passes-every-test-VGG16"][0] == HOLDS and "Layer-CAM" in found["passes-every-test-VGG16"][1]
    assert found["after-correction-VGG16"][0] == HOLDS and "Layer-CAM, marker" in found["after-correction-VGG16"][1]


def test_no_sentence_is_empty_whatever_the_intervals_say():
    for gap in (HIGH, LOW, WIDE, Estimate(None)):
        record = copy.deepcopy(RECORD)
        for entries in (
            record["permuted_labels"],
            record["controls"],
            record["differences"]["VGG16"]["Grad-CAM"],
            record["methods"]["VGG16"]["Grad-CAM"],
        ):
            entries |= dict.fromkeys(entries, gap)
        assert all(sentence for _, sentence in said(record).values())
