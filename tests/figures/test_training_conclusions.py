from __future__ import annotations

import pytest

from mitolib import claims, figures
from mitolib.claims import FAILS, HOLDS, OPEN
from mitolib.metrics import Estimate, further_training


def experiment(scores, gaps=(0.1, 0.1, 0.1), n_collapsed=0) -> dict:
    entry = {
        "n_collapsed": n_collapsed,
        "further_training": {
            "balanced_accuracy": further_training(scores),
            "auc": further_training(scores),
            "generalisation_gap": further_training(gaps),
        },
    }
    return {
        "chapter": "exp1",
        "budget": {"VGG16": {"seeds": len(scores)}, "ResNet50": {"seeds": 1}},
        "models": {"VGG16": entry},
        "controls": {"ResNet50": entry},
    }


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [([0.80, 0.82, 0.81], HOLDS), ([0.3, 0.31, 0.32], FAILS), ([0.5, 0.9, 0.6], OPEN), ([0.95], OPEN)],
)
def test_a_network_beats_one_answer_only_if_every_further_training_would(scores, verdict):
    record = experiment(scores)
    answers = claims.conclusions(figures.conclusions.of_experiment(record), record)
    assert answers["VGG16-beats-one-answer"].verdict == verdict
    assert f"{sum(scores) / len(scores):.2f}" in answers["VGG16-beats-one-answer"].sentence


def test_trainings_that_collapsed_are_counted():
    for n_collapsed, verdict in ((0, HOLDS), (2, FAILS)):
        record = experiment([0.5, 0.5, 0.9], n_collapsed=n_collapsed)
        found = claims.conclusions(figures.conclusions.of_experiment(record), record)["VGG16-never-collapses"]
        assert found.verdict == verdict and f"{n_collapsed} of 3" in found.sentence


def test_what_started_from_random_weights_is_called_an_untrained_backbone():
    record = experiment([0.8, 0.8, 0.8])
    sentences = {
        name: said.sentence
        for name, said in claims.conclusions(figures.conclusions.of_experiment(record), record).items()
    }
    assert "untrained backbone" in sentences["ResNet50-beats-one-answer"]
    assert "untrained" not in sentences["VGG16-beats-one-answer"]


@pytest.mark.parametrize(("score", "verdict"), [(0.95, HOLDS), (0.82, FAILS), (0.5, FAILS)])
def test_deeper_training_pays_only_beyond_what_another_seed_of_the_head_would_give(score, verdict):
    alone = further_training([0.78, 0.80, 0.82])
    deeper = {"balanced_accuracy": score, "trained": "head and block 5", "learning_rate": 1e-5}
    record = {
        "chapter": "freezing",
        "budget": {"head only": {"seeds": 3}},
        "models": {"block5_pool": {"further_training": {"balanced_accuracy": alone}}, "block4_pool-1e-05": deeper},
        "chosen": "block4_pool-1e-05",
    }
    (answer,) = claims.conclusions(figures.conclusions.of_freezing(record), record).values()
    assert answer.verdict == verdict and "1e-05" in answer.sentence and f"{score:.2f}" in answer.sentence
    record["models"]["block5_pool"]["further_training"]["balanced_accuracy"] = Estimate(0.8)
    (answer,) = claims.conclusions(figures.conclusions.of_freezing(record), record).values()
    assert answer.verdict == OPEN, "one training of the head has no interval"
