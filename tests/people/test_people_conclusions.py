"""The claims of the chapter: what holds, what does not, what stays open, and none for what the data do not allow."""

from __future__ import annotations

from typing import Any

import pytest

from mitolib import claims
from mitolib.people import conclusions
from mitolib.people.comparison import PATCHES, THRESHOLDED
from mitolib.people.morphometry import GREY_LEVELS
from mitolib.people.protocols import SEEN, UNSEEN

HEAD, UNTRAINED = "VGG16 head", "ResNet50 head, untrained backbone"
ABOVE, BELOW, ACROSS = (0.3, [0.1, 0.5]), (-0.3, [-0.5, -0.1]), (0.1, [-0.1, 0.3])


def estimate(value: float, ci: list[float] | None) -> dict[str, Any]:
    return {"value": value, "ci": ci, "n": 14}


def difference(of: str, minus: str, gap: tuple, p: float = 0.01, **more: object) -> dict[str, Any]:
    scores = {"balanced_accuracy": estimate(*gap), "auc_subject": estimate(*gap), "p_sign_flip": p, "p_holm": p}
    return {"of": of, "minus": minus} | scores | more


def entry(model: str, **scores: object) -> dict[str, object]:
    means = {"balanced_accuracy": 0.7, "auc_subject": 0.8, "subjects_right": 9, "n_subjects": 14}
    return {"model": model, "split": UNSEEN} | means | scores


def record(gap: tuple = ABOVE, p: float = 0.01) -> dict[str, Any]:
    """Of a phantom, every difference the same."""
    of_draws = estimate(0.5 + gap[0], [0.5 + end for end in gap[1]])
    dealt = {"balanced_accuracy": of_draws, "agreement": estimate(0.5, [0.48, 0.52])}
    missed = {"wrong": ["C02", "P03"], "missed": {"P03": 0.02}, "found": {"P01": 0.9}, "p_fewer": p}
    one = {
        HEAD: {"next-one": difference(HEAD, "next one", gap, p), UNTRAINED: difference(HEAD, UNTRAINED, gap, p)},
        GREY_LEVELS: {HEAD: difference(GREY_LEVELS, HEAD, gap, p)},
        THRESHOLDED: {PATCHES: difference(THRESHOLDED, PATCHES, gap, p)},
    }
    by_key = {
        conclusions.key(of): {conclusions.key(minus): entry for minus, entry in others.items()}
        for of, others in one.items()
    }
    splits = difference(SEEN, UNSEEN, gap, p, model=HEAD)
    share = {"share_of_patches": 0.98, "mean_shared_fraction": 0.83, "subjects_seen": 1.0}
    return {
        "chapter": "patient_level",
        "leak": {"exp1": share},
        "table": [entry(HEAD)],
        "collapsed": {HEAD: {"collapsed": 0, "trainings": 36}},
        "difference": {"VGG16-head": {"published-minus-paired-folds": splits}},
        "curve": {
            "entries": [{"model": HEAD}],
            "gaps": {"VGG16-head": {"150": splits, "12275": splits}},
            "longer": {"VGG16-head": {UNSEEN: difference(12275, 3000, gap)}},
        },
        "controls": {
            "permuted_means": {"VGG16-head": {SEEN: dealt, UNSEEN: dealt}},
            "subject_probe": {"VGG16, published": {"accuracy": estimate(0.91, [0.85, 0.96]), "chance": 0.13}},
            "untrained": [entry(UNTRAINED)],
        },
        "twin_pictures": {"cured": {"pictures": 100, "within": 100}},
        "twins": {HEAD: {}},
        "carried": {HEAD: {UNSEEN: {"fall": estimate(*gap), "turned": 2, "called": 9}}},
        "fall_by_share": {"VGG16-head": {"rank_correlation": estimate(*gap), "p": p}},
        "held_out": {"VGG16-head": missed},
        "honest": [entry(GREY_LEVELS)],
        "ranking": {"best": HEAD, "order": ["next one"], "differences": by_key},
        "by_model": {conclusions.key(name): {UNSEEN: entry(name)} for name in (HEAD, "next one", GREY_LEVELS)},
        "n_controls": 4,
        "controls_needed": 160,
    }


def verdicts(of: dict[str, Any]) -> dict[str, str]:
    return {name: found.verdict for name, found in claims.conclusions(conclusions.claims(of), of).items()}


COUNTED = {"exp1-most-test-patches-overlap", "features-name-the-person", "cured-pictures-pass-for-people"}
COUNTED |= {"the-people-are-too-few", "VGG16-head-misses-who-has-few-deficient-fibres"}
COUNTED |= {"VGG16-head-never-collapses"}


@pytest.mark.parametrize(("gap", "verdict"), [(ABOVE, "holds"), (BELOW, "does not hold"), (ACROSS, "open")])
def test_a_claim_that_compares_is_decided_by_the_interval_of_the_difference(gap, verdict):
    found = {name: of for name, of in verdicts(record(gap)).items() if name not in COUNTED}
    assert len(found) == 11 and set(found.values()) == {verdict}, found


def test_a_difference_that_does_not_survive_the_correction_stays_open():
    found = verdicts(record(ABOVE, p=0.2))
    corrected = {"VGG16-head-published-minus-paired-folds", "VGG16-head-gap-at-the-longest", "fibres-beat-pictures"}
    corrected |= {"VGG16-head-falls-with-the-share", "a-threshold-from-training-people-pays"}
    assert {name for name, verdict in found.items() if verdict == "open"} == corrected | {
        "VGG16-head-misses-who-has-few-deficient-fibres"
    }


def test_a_score_without_an_interval_decides_nothing():
    found = verdicts(with_no_interval())
    assert found["one-model-of-pictures-is-best"] == found["VGG16-head-published-minus-paired-folds"] == "open"


def with_no_interval() -> dict[str, Any]:
    """A perfect AUC against another: every draw of the bootstrap gave the same."""
    of = record()
    between_splits = of["difference"]["VGG16-head"]["published-minus-paired-folds"]
    for found in (between_splits, of["ranking"]["differences"]["VGG16-head"]["next-one"]):
        found["balanced_accuracy"]["ci"] = found["auc_subject"]["ci"] = None
    return of


def test_a_sentence_names_its_numbers_and_the_people():
    of = record()
    found = {name: said.sentence for name, said in claims.conclusions(conclusions.claims(of), of).items()}
    assert "0.30 (0.10 to 0.50), p (Holm) 0.010" in found["VGG16-head-published-minus-paired-folds"]
    missed = found["VGG16-head-misses-who-has-few-deficient-fibres"]
    assert "P03 (2%)" in missed and "Controls called patients: C02" in missed
    assert "98%" in found["exp1-most-test-patches-overlap"] and "83%" in found["exp1-most-test-patches-overlap"]
    precision = found["the-people-are-too-few"]
    assert "total width" in precision and "160 controls; there are 4" in precision
    assert "12275 steps minus 3000" in found["VGG16-head-longer-training-pays-paired-folds"]


def test_what_is_counted_is_decided_by_the_count():
    other = record()
    other["leak"]["exp1"]["share_of_patches"] = 0.2
    other["twin_pictures"]["cured"]["within"] = 80
    other["controls"]["subject_probe"]["VGG16, published"]["accuracy"] = estimate(0.1, [0.05, 0.13])
    other["n_controls"] = 200
    other["collapsed"][HEAD]["collapsed"] = 2
    other["held_out"]["VGG16-head"]["p_fewer"] = 0.99
    found = verdicts(other)
    assert {found[name] for name in COUNTED} == {"does not hold"}


def test_what_the_data_do_not_allow_has_no_claim():
    other = record()
    for name in ("leak", "collapsed", "twin_pictures", "twins", "carried", "fall_by_share", "difference"):
        other[name] = {}
    other["controls"] |= {"subject_probe": {}, "untrained": [], "permuted_means": {}}
    other["held_out"]["VGG16-head"]["p_fewer"] = None
    other["ranking"]["differences"] = {}
    other["curve"] = {"entries": [{"model": HEAD}], "gaps": {}, "longer": {"VGG16-head": {}}}
    assert set(verdicts(other)) == {"the-people-are-too-few"}


def test_names_of_claims_are_told_apart():
    names = [claim.name for claim in conclusions.claims(record())]
    assert len(set(names)) == len(names) == 17
