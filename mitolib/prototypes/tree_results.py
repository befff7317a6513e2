"""What a page makes of the units of a tree: answers from coarse to fine, and a genotype never seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mitolib.metrics import majority_baseline
from mitolib.prototypes import tree_fits
from mitolib.prototypes.asking import Asked
from mitolib.prototypes.tree_fits import KNOWN, NOVEL, NOVELTY, SEEN

Record = dict[str, Any]
THRESHOLD = ("noticed", "false_positives")  # of `none_of_these`
QUANTILE = 0.95  # of the scores of people left out in turn: the threshold of "none of these"


def tree(asked: Asked) -> Record:
    """node -> {children, subjects, and by split accuracy, balanced_accuracy, path, majority_baseline, people, patches}.

    A node answers for the patches below it; path: share of them that all nodes above it send the right way too. A split
    under which fewer than two of its children are tested is left out.
    """
    if asked.tree_study is None:
        return {}
    found: Record = {}
    subjects = asked.tree_study.study.table["subject"].to_numpy()
    whole = asked.tree_study.tree
    for node, children in whole.children.items():
        found[node] = {"children": list(children), "subjects": whole.people(node), "splits": {}}
    for split, fits in asked.conditional.items():
        table, nodes = tree_fits.summary_of(fits), fits[0]["nodes"]
        right = table["target"] == table["predicted"]
        wrong_above = set(map(tuple, table.loc[(table["target"] >= 0) & ~right, ["fold", "row", "node"]].to_numpy()))
        parents = {child: node for node, of_node in nodes.items() for child in of_node}
        numbers = {node: i for i, node in enumerate(nodes)}
        for node in nodes:
            if node not in found:
                continue
            here = table[(table["node"] == numbers[node]) & (table["target"] >= 0)]
            if here["target"].nunique() < 2:
                continue
            above, at = [], node
            while at in parents:
                at = parents[at]
                above.append(numbers[at])
            path = [
                target == said and not any((fold, row, up) in wrong_above for up in above)
                for fold, row, _, target, said in here.to_numpy()
            ]
            found[node]["splits"][split] = {
                "accuracy": float((here["target"] == here["predicted"]).mean()),
                "balanced_accuracy": float(balanced_accuracy_score(here["target"], here["predicted"])),
                "chance": 1 / here["target"].nunique(),
                "majority_baseline": majority_baseline(here["target"].to_numpy()),
                "path": float(np.mean(path)),
                "people": len(set(subjects[here["row"]])),
                "folds": int(here["fold"].nunique()),
                "patches": len(here),
            }
    return found


def novel(asked: Asked) -> Record:
    """genotype -> {node, score -> {against -> {auroc_patches, auroc_subjects}}, n_subjects, n_known, sent, threshold}.

    against: "unseen person of a known genotype", which is the comparison that counts, and "people trained on"; and the
    unseen person of a known genotype against the people trained on, which shows how much of novelty is a new person.
    threshold: see `none_of_these`, of the first score. sent: share of the novel patches whose path leads to the node.
    """
    if asked.tree_study is None:
        return {}
    subjects, result = asked.tree_study.study.table["subject"].to_numpy(), {}
    for genotype, fits in asked.novel.items():
        one = fits[0]
        kind, whose = one["kind"], subjects[one["row"]]
        entry: Record = {"node": one["node"], "people": one["people"], "n_subjects": len(one["people"])}
        entry["n_known"] = len(one["known"])
        entry["sent"] = float(one["sent"][kind == NOVEL].mean())
        is_first = (kind == NOVEL) & (np.roll(kind, 1) != NOVEL)  # patches lie network by network, the novel ones first
        entry["threshold"] = none_of_these(one["scores"][:, 0], kind, np.cumsum(is_first))
        for i, score in enumerate(NOVELTY):
            values = one["scores"][:, i]
            entry[score] = {
                name: _auroc(values, kind, whose, high, low)
                for name, (high, low) in {
                    "novel against an unseen person of a known genotype": (NOVEL, KNOWN),
                    "novel against people trained on": (NOVEL, SEEN),
                    "unseen person of a known genotype against people trained on": (KNOWN, SEEN),
                }.items()
            }
        result[genotype] = entry
    return result


def none_of_these(scores: np.ndarray, kind: np.ndarray, networks: np.ndarray) -> dict[str, float | int | None]:
    """noticed and false_positives: shares of the patches of the novel genotype, and of the unseen person of a known
    one, whose score lies above a threshold, means over networks; and their number.

    The threshold of a network is the 95th percentile over the patches of people of known genotypes who were left out
    of the *other* networks, and train here: neither a novel patch nor the person who is tested has a say. None with one
    person left out. scores, kind, networks: (n,), of each patch.
    """
    shares: list[tuple[float, float]] = []
    for network in np.unique(networks):
        here, others = networks == network, (networks != network) & (kind == KNOWN)
        if others.any():
            is_above = scores > np.quantile(scores[others], QUANTILE)
            shares.append(tuple(float(is_above[here & (kind == of)].mean()) for of in (NOVEL, KNOWN)))
    noticed, false_positives = np.mean(shares, axis=0).tolist() if shares else (None, None)
    return {"noticed": noticed, "false_positives": false_positives, "networks": len(shares)}


def _auroc(values: np.ndarray, kind: np.ndarray, subjects: np.ndarray, high: int, low: int) -> dict[str, float | None]:
    """By patch, and by the mean of each subject: how often the high kind has the greater score."""
    chosen = np.isin(kind, [high, low])
    is_high = kind[chosen] == high
    if is_high.all() or not is_high.any():
        return {"auroc_patches": None, "auroc_subjects": None}
    means = pd.Series(values[chosen]).groupby([is_high, subjects[chosen]]).mean()
    of_high = means.index.get_level_values(0).to_numpy(bool)
    return {
        "auroc_patches": float(roc_auc_score(is_high, values[chosen])),
        "auroc_subjects": float(roc_auc_score(of_high, means)),
    }


COMPARED = {  # heading -> comparison of `novel`
    "AUC, against an unseen person": "novel against an unseen person of a known genotype",
    "against people trained on": "novel against people trained on",
    "unseen person against people trained on": "unseen person of a known genotype against people trained on",
}


def novel_table(found: Mapping[str, Mapping[str, Any]], score: str = NOVELTY[0]) -> pd.DataFrame:
    """For reading: areas under the curve by patch of one score, what the threshold does, and whom all that rests on."""
    rows = {}
    for genotype, entry in found.items():
        rows[genotype] = {heading: _digits(entry[score][name]["auroc_patches"]) for heading, name in COMPARED.items()}
        if score == NOVELTY[0]:
            rows[genotype] |= {name.replace("_", " "): _digits(entry["threshold"][name]) for name in THRESHOLD}
            rows[genotype]["people"] = f"{entry['n_subjects']} novel, {entry['n_known']} known"
    return pd.DataFrame(rows).T.rename_axis("genotype")


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
