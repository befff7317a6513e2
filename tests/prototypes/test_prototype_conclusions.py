from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mitolib import claims
from mitolib.prototypes import checks, conclusions, results, tree_results
from mitolib.prototypes.asking import LOGISTIC, MAJORITY, UNSEEN, Arm
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
            PLAIN: {
                name: {"auprc_minus_random": estimate(0.1), "deletion_minus_random": estimate(-0.3)}
                | {"redrawn_minus_different": estimate(0.0), "causal_rank_correlation": estimate(-0.2)}
                for name in ("prototypes", "PRP")
            }
        },
        "relevance": {
            name: {"inside": estimate(share)} for name, share in (("cell", 0.1), ("half", 0.5), ("field", 1))
        },
        "annotated": {
            f"k=1 share={share}%": {
                "k": 1,
                "share": share / 100,
                "turned": False,
                "activation_precision": estimate(0.3),
            }
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
    "prototypes-follows-the-weights": claims.HOLDS,
    "prp-follows-the-weights": claims.HOLDS,
    "prp-ranks-fibres-as-they-act": claims.FAILS,
    "a-printed-cell-holds-little-of-what-counts": claims.HOLDS,
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
    of_maps = other["methods"][PLAIN]
    of_maps["prototypes"]["deletion_minus_random"] = estimate(0.3)
    of_maps["PRP"] |= {"redrawn_minus_different": estimate(0.3), "causal_rank_correlation": estimate(0.0)}
    other["relevance"]["cell"]["inside"] = estimate(0.7)
    other["stability"]["found_again"] = {"value": None, "ci": None, "n": 0, "left_out": 0}
    answers = claims.conclusions(conclusions.claims(other), other)
    assert answers["prototypes-beat-the-plainest-model"].verdict == claims.HOLDS
    assert answers["network-reacts-to-its-prototypes"].verdict == claims.FAILS
    assert answers["prp-follows-the-weights"].verdict == claims.FAILS
    assert answers["prp-ranks-fibres-as-they-act"].verdict == claims.OPEN
    assert answers["a-printed-cell-holds-little-of-what-counts"].verdict == claims.FAILS
    assert answers["prototypes-are-found-again"].verdict == claims.OPEN


def test_what_data_leave_out_is_not_claimed():
    bare = copy.deepcopy(record()) | {"methods": {}, "relevance": {}, "annotated": {}, "novel": {}}
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
    found = tree_results.novel(asked)["MT-TG"]
    by_patch = [pair["auroc_patches"] for pair in found["minus greatest activation"].values()]
    assert by_patch == [0.75, 1, 1] and found["n_subjects"] == 1
    assert tree_results.novel_table({"MT-TG": found}).shape == (1, 6)
    assert found["threshold"] == {"noticed": None, "false_positives": None, "networks": 0}, "one person left out"


def test_the_threshold_of_none_of_these_is_set_by_other_people_of_known_genotypes():
    """Two networks: of each two novel patches, and two of the person left out beside them."""
    kind = np.array([NOVEL, NOVEL, KNOWN, KNOWN, SEEN] * 2)
    scores = np.array([5.0, 1.0, 0.0, 4.0, -9.0, 5.0, 3.0, 2.0, 2.0, 9.0])
    found = tree_results.none_of_these(scores, kind, np.repeat([1, 2], 5))
    # The first has the threshold 2, of the second's person; the second 3.8, of the first's.
    assert found == {"noticed": 0.5, "false_positives": 0.25, "networks": 2}
    louder = np.where(kind == NOVEL, scores + 100, scores)
    assert tree_results.none_of_these(louder, kind, np.repeat([1, 2], 5))["false_positives"] == 0.25


def test_maps_are_held_against_those_of_networks_drawn_anew():
    rng = np.random.default_rng(0)
    trained = {f"map of {method}": rng.integers(0, 255, (3, 8, 8)).astype(np.uint8) for method in checks.METHODS}
    checked = trained | {"patch": np.repeat([0, 1, 2], 4), "effect": np.tile(np.arange(4.0), 3)}
    checked["relevance"] = np.tile(np.arange(12.0), (4, 1))
    checked |= {name: np.full((3, 4), 0.5) for name in ("inside", "area")}
    checked |= {name: np.ones(3) for name in ("own_rank", "other_rank")}
    anew = {name: 255 - maps_nhw for name, maps_nhw in trained.items()}
    names = [*checks.METHODS, "random"]
    asked = SimpleNamespace(explained=[{"methods": names, "prp_arrived": [1.0] * 3}], checked=[checked])
    asked.redrawn = {checks.HEAD: [trained], checks.ALL: [anew]}

    def alike(a_nhw, b_nhw):
        pairs = zip(a_nhw, b_nhw, strict=True)
        return pd.DataFrame({"ssim": [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]})

    def causal_rank(effects, n):
        return [group["relevance"].corr(group["effect"]) for _, group in effects.groupby("patch")]

    tools = SimpleNamespace(alike=alike, causal_rank=causal_rank)
    found = results.methods(asked, tools, list("PQR"), rng=rng)[PLAIN]
    assert found["PRP"]["head_ssim"]["value"] == pytest.approx(1)
    assert found["PRP"]["randomisation_ssim"]["value"] == pytest.approx(-1)
    assert found["PRP"]["causal_rank_correlation"]["value"] == pytest.approx(1) and found["random"] == {}
    assert list(results.for_panels({PLAIN: found})) == [name for name in results.PANELS if "chance" not in name][::2]
    lies = results.relevance(asked, list("PQR"), rng=rng)
    assert lies["box"]["inside"]["value"] == 0.5 and results.squares_table(lies).shape == (4, 2)
    assert "pixels: 1.000" in results.relevance_sentence(lies)


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
    found = tree_results.tree(asked)
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

    asked = SimpleNamespace(
        study=study, fine={Arm(1, 0.0): [fit(0.3)], Arm(1, 1.0): [fit(0.5)], Arm(1, 1.0, True): [fit(0.6)]}
    )
    tools = SimpleNamespace(summary=lambda table, rng: {"balanced_accuracy": 0.6})
    found = results.annotated(asked, tools, rng=np.random.default_rng(0))
    assert found["k=1 share=100%"]["minus_none"]["value"] == pytest.approx(0.2)
    assert found["k=1 share=0%"]["minus_chance"]["value"] == pytest.approx(0.1)
    assert results.table_of(found, {"minus_none": "less"}).loc["k=1 share=0%", "less"].startswith("0.00")
    assert found["k=1 share=100% turned"]["minus_none"]["value"] == pytest.approx(0.3)
    assert MAJORITY not in found
