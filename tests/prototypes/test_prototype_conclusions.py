from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mitolib import claims
from mitolib.prototypes import conclusions, results
from mitolib.prototypes.asking import LOGISTIC, MAJORITY, UNSEEN
from mitolib.prototypes.fits import PLAIN, QUOTA
from mitolib.prototypes.tree_fits import KNOWN, NOVEL, SEEN


def estimate(value: float, half_width: float = 0.05) -> dict:
    return {"value": value, "ci": (value - half_width, value + half_width), "n": 10, "left_out": 0}


def record() -> dict:
    scores = {"balanced_accuracy": 0.7, "auc_subject": 0.8, "ci": {"balanced_accuracy": (0.6, 0.8)}}
    against = {"free": estimate(0.0), "before": estimate(-0.1), LOGISTIC: estimate(-0.2)}
    auroc = {"novel against an unseen person of a known genotype": {"auroc_patches": 0.7, "auroc_subjects": 1.0}}
    return {
        "chapter": "prototypes",
        "shown": "published",
        "models": {PLAIN: {UNSEEN: scores, "published": scores}},
        "differences": {
            PLAIN: {UNSEEN: against, "seen minus unseen": estimate(0.3)},
            QUOTA: {UNSEEN: against | {PLAIN: estimate(-0.01)}},
        },
        "self_recognition": {
            PLAIN: {
                "same_subject": estimate(0.3),
                "chance": estimate(0.1),
                "same_subject_minus_chance": estimate(0.2),
                "same_pixels": estimate(0.05),
            }
        },
        "stability": {"found_again": {**estimate(0.03), "ci": None}, "agreement": {**estimate(0.9), "ci": None}},
        "methods": {
            name: {"auprc_minus_random": estimate(0.1), "deletion_minus_random": estimate(-0.3)}
            for name in ("prototypes", "PRP")
        },
        "annotated": {
            f"k=1 share={share}%": {"k": 1, "share": share / 100, "activation_precision": estimate(0.3)}
            | {"chance": estimate(0.2), "minus_chance": estimate(0.1), "minus_none": estimate(0.1)}
            for share in (0, 100)
        },
        "novel": {"MT-TG": {"minus greatest activation": auroc, "n_subjects": 1}},
    }


VERDICTS = {
    "prototypes-tell-patients-from-controls": claims.HOLDS,
    "prototypes-beat-the-plainest-model": claims.FAILS,
    "prototypes-score-higher-on-seen-people": claims.HOLDS,
    "a-quota-of-people-costs-accuracy": claims.OPEN,
    "this-looks-like-that-is-this-is-that": claims.HOLDS,
    "prototypes-are-found-again": claims.FAILS,
    "prototypes-finds-deficient-fibres": claims.HOLDS,
    "prp-finds-deficient-fibres": claims.HOLDS,
    "network-reacts-to-its-prototypes": claims.HOLDS,
    "fine-annotation-turns-prototypes-to-the-disease": claims.HOLDS,
    "annotated-prototypes-find-deficient-fibres": claims.HOLDS,
    "novel-genotypes-are-noticed": claims.OPEN,
}


def test_each_conclusion_follows_from_its_numbers():
    answers = claims.conclusions(conclusions.claims(record()), record())
    assert {name: answer.verdict for name, answer in answers.items()} == VERDICTS
    assert "MT-TG 0.70. It rests on 1 person of 1 genotypes" in answers["novel-genotypes-are-noticed"].sentence


def test_other_numbers_turn_a_conclusion_round():
    other = record()
    other["differences"][PLAIN][UNSEEN][LOGISTIC] = estimate(0.2)
    other["methods"]["prototypes"]["deletion_minus_random"] = estimate(0.3)
    other["stability"]["found_again"] = {"value": None, "ci": None, "n": 0, "left_out": 0}
    answers = claims.conclusions(conclusions.claims(other), other)
    assert answers["prototypes-beat-the-plainest-model"].verdict == claims.HOLDS
    assert answers["network-reacts-to-its-prototypes"].verdict == claims.FAILS
    assert answers["prototypes-are-found-again"].verdict == claims.OPEN


def test_what_data_leave_out_is_not_claimed():
    bare = copy.deepcopy(record()) | {"methods": {}, "annotated": {}, "novel": {}}
    bare["models"] = {PLAIN: {"published": bare["models"][PLAIN]["published"]}}
    bare["differences"] = {PLAIN: {"published": {}}, QUOTA: {"published": {}}}
    bare["self_recognition"][PLAIN]["chance"]["value"] = 0.0  # by person: nobody tested was trained on
    names = [claim.name for claim in conclusions.claims(bare)]
    assert names == [name for name in VERDICTS if name in names] and len(names) == 2
    assert claims.conclusions(conclusions.claims(bare), bare)


def test_novelty_is_held_against_persons_not_seen_and_against_those_seen():
    rows = np.arange(6)
    table = pd.DataFrame({"subject": ["N", "N", "K", "K", "S", "S"]})
    fit = {"kind": np.repeat([NOVEL, KNOWN, SEEN], 2), "row": rows, "sent": np.ones(6, int), "node": "patient"}
    fit |= {
        "people": ["N"],
        "known": ["K"],
        "scores": np.array([[3, 1, 1], [1, 1, 1], [2, 1, 1], [0, 1, 1]] + [[-1] * 3] * 2),
    }
    asked = SimpleNamespace(tree_study=SimpleNamespace(study=SimpleNamespace(table=table)), novel={"MT-TG": [fit]})
    found = results.novel(asked)["MT-TG"]
    by_patch = [pair["auroc_patches"] for pair in found["minus greatest activation"].values()]
    assert by_patch == [0.75, 1, 1] and found["n_subjects"] == 1
    assert results.novel_table({"MT-TG": found}).shape == (3, 5)


def test_a_node_is_scored_on_the_patches_below_it_and_its_path_asks_the_nodes_above():
    study = SimpleNamespace(table=pd.DataFrame({"subject": list("CPQR")}))
    children = {"root": ("control", "patient"), "patient": ("a", "b")}
    tree = SimpleNamespace(children=children, people=lambda node: {})
    fit = {"fold": np.zeros(8, int), "row": np.tile(np.arange(4), 2), "node": np.repeat([0, 1], 4)}
    fit |= {"target": np.array([0, 1, 1, 1, -1, 0, 1, 1]), "predicted": np.array([0, 1, 0, 1, 0, 0, 1, 0])}
    fit["nodes"] = {node: list(of_node) for node, of_node in children.items()}
    asked = SimpleNamespace(
        study=study, tree_study=SimpleNamespace(study=study, tree=tree), conditional={"published": [fit]}
    )
    found = results.tree(asked)
    assert found["root"]["splits"]["published"]["accuracy"] == 0.75
    below = found["patient"]["splits"]["published"]
    assert below["accuracy"] == pytest.approx(2 / 3) and below["path"] == pytest.approx(1 / 3)
    assert below["balanced_accuracy"] == 0.75 and below["patches"] == 3


def test_precision_with_masks_is_compared_on_the_same_patches():
    rows = np.array([0, 1, 2])
    study = SimpleNamespace(
        table=pd.DataFrame({"subject": list("PQR")}), labels=np.array([1, 1, 1]), folds={"published": []}
    )

    def fit(precision: float) -> dict:
        values = {name: np.full(3, value) for name, value in {"of_map": 0.1, "chance": 0.2}.items()}
        return values | {
            "fold": rows * 0,
            "row": rows,
            "p": rows / 3,
            "mask_row": rows,
            "precision": np.full(3, precision),
        }

    asked = SimpleNamespace(study=study, fine={(1, 0.0): [fit(0.3)], (1, 1.0): [fit(0.5)]})
    tools = SimpleNamespace(summary=lambda table, rng: {"balanced_accuracy": 0.6})
    found = results.annotated(asked, tools, rng=np.random.default_rng(0))
    assert found["k=1 share=100%"]["minus_none"]["value"] == pytest.approx(0.2)
    assert found["k=1 share=0%"]["minus_chance"]["value"] == pytest.approx(0.1)
    assert results.table_of(found, {"minus_none": "less"}).loc["k=1 share=0%", "less"].startswith("0.00")
    assert MAJORITY not in found
