"""What is computed and kept of trees: each public function here is the fit of a unit (`mitolib.units`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from mitolib.prototypes import costs
from mitolib.prototypes.fits import Study
from mitolib.prototypes.maps import Maps
from mitolib.prototypes.network import ROOT, Architecture
from mitolib.prototypes.taxonomy import Tree, novelty
from mitolib.prototypes.training import Schedule, Trained, activations, scores, train
from mitolib.units import Result

PROTOCOL = 1  # of all units here; raise it when one would come out otherwise
NOVEL, KNOWN, SEEN = 0, 1, 2  # kinds of patches: of the novel genotype, of a person left out, of people trained on
NOVELTY = ("minus greatest activation", "one minus greatest softmax", "minus log-sum-exp")


@dataclass(frozen=True, eq=False)
class TreeStudy:
    """A tree of classes on the patches of a study; `coarse` is the tree of its two upper levels."""

    study: Study
    tree: Tree
    coarse: Tree

    def train(self, maps: Maps, rows: np.ndarray, tree: Tree, *, seed: int) -> Trained:
        """An HPnet: its similarity, and its costs; schedule, push and solution are those of all networks here."""
        budget = self.study.budget
        architecture = Architecture(depth=budget.tree_depth, per_child=max(1, budget.per_child - 1), similarity="HPnet")
        schedule = Schedule(cycles=budget.cycles, epochs=budget.epochs, weights=costs.HPNET)
        targets = tree.targets(self.study.table["subject"])
        return train(maps, rows, targets, tree.children, architecture=architecture, schedule=schedule, seed=seed)

    @property
    def inner(self) -> str | None:
        """The node below the root of the coarse tree, such as "patient"; None where there is none."""
        return next((node for node in self.coarse.children if node != ROOT), None)

    def unseen_folds(self) -> list[list[str]]:
        """Subjects left out together: one of each child of the inner node that has two, and a control in turn."""
        if self.inner is None:
            return []
        by_child = [people for people in self.coarse.people(self.inner).values() if len(people) > 1]
        others = [
            subject for child, people in self.coarse.people(ROOT).items() if child != self.inner for subject in people
        ]
        if len(by_child) < 2 or len(others) < 2:
            return []
        return [[*left_out, others[i % len(others)]] for i, left_out in enumerate(product(*by_child))]

    def novel(self) -> dict[str, tuple[str, list[str]]]:
        """Genotype or group -> (node that should not know it, people of known children left out beside it in turn).

        Such whose node keeps two children without it, and a known child with a person to spare.
        """
        found = {}
        for node, children in self.tree.children.items():
            if node == ROOT or len(children) < 3:
                continue
            people = self.tree.people(node)
            for child in children:
                if len(people[child]) > 2 or child in self.tree.children:
                    continue
                known = [s for other in children if other != child and len(people[other]) > 1 for s in people[other]]
                if known:
                    found[child] = node, known[: self.study.budget.novel_known]
        return found


def conditional(tree_study: TreeStudy, split: str, folds: Sequence[int], *, seed: int) -> Result:
    """What every node says of every tested patch: arrays fold, row, node, target and predicted (numbers; -1 for none).

    split: a split of the study, whose tree is the whole one, or "unseen", with the coarse one. nodes: names of the
    nodes and of their children. dropped: nodes that a fold's training people do not allow.
    """
    study, parts, dropped = tree_study.study, [], []
    whole = tree_study.coarse if split == "unseen" else tree_study.tree
    subjects = study.table["subject"].to_numpy()
    targets = whole.targets(subjects)
    maps = study.features.pooled
    for fold in folds:
        if split == "unseen":
            is_test = np.isin(subjects, tree_study.unseen_folds()[fold])
            trains, tests = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        else:
            trains, tests = study.rows(split, fold)
        tree = whole.among(sorted(set(subjects[trains])))
        dropped += whole.dropped(tree)
        found = tree_study.train(maps, trains, tree, seed=seed)
        by_node = scores(found.network, activations(found.network, maps, tests))
        for number, (node, children) in enumerate(whole.children.items()):
            if node in by_node:
                names = np.array(tree.children[node])[by_node[node].argmax(axis=1)]
                predicted = np.array([children.index(name) for name in names])
                entry = {"fold": fold, "row": tests, "node": number, "target": targets[node][tests]}
                parts.append(pd.DataFrame(entry | {"predicted": predicted}))
    table = pd.concat(parts, ignore_index=True).astype(np.int32)
    nodes = {node: list(children) for node, children in whole.children.items()}
    return {name: table[name].to_numpy() for name in table} | {"nodes": nodes, "dropped": sorted(set(dropped))}


def novel_genotype(tree_study: TreeStudy, genotype: str, *, seed: int) -> Result:
    """A genotype that no network has seen, beside a person of a known one whom it has not seen either.

    Arrays with an entry for each patch and each known person left out: kind (NOVEL, KNOWN or SEEN), row, sent (whether
    the path of most probable children leads to the node); and scores: (n, 3) of NOVELTY at the node. SEEN are patches
    of people who train, that are in the test set of the shown split. node, people: names.
    """
    study = tree_study.study
    node, known = tree_study.novel()[genotype]
    people = tree_study.tree.people(node)[genotype]
    subjects = study.table["subject"].to_numpy()
    held_out = np.zeros(len(subjects), bool)
    held_out[study.rows(study.shown, 0)[1]] = True
    maps, parts, values = study.features.pooled, [], []
    for person in known:
        of_kind = {NOVEL: np.isin(subjects, people), KNOWN: subjects == person}
        is_seen = ~of_kind[NOVEL] & ~of_kind[KNOWN]
        of_kind[SEEN] = is_seen & held_out & (tree_study.tree.targets(subjects)[node] >= 0)
        trains = np.flatnonzero(is_seen & ~held_out)
        tree = tree_study.tree.among(sorted(set(subjects[trains])))
        found = tree_study.train(maps, trains, tree, seed=seed)
        for kind, chosen in of_kind.items():
            rows = np.flatnonzero(chosen)
            if not len(rows):
                continue
            by_node = activations(found.network, maps, rows)
            of_scores = scores(found.network, by_node)
            parts.append(pd.DataFrame({"kind": kind, "row": rows, "sent": _sent(of_scores, tree, node)}))
            values.append(np.stack(list(novelty(by_node[node], of_scores[node]).values()), axis=1))
    table = pd.concat(parts, ignore_index=True).astype(np.int32)
    arrays = {name: table[name].to_numpy() for name in table}
    return arrays | {
        "scores": np.concatenate(values).astype(np.float32),
        "node": node,
        "people": people,
        "known": known,
    }


def _sent(of_scores: Mapping[str, np.ndarray], tree: Tree, node: str) -> np.ndarray:
    """(N,) bool: whether the most probable children lead from the root to the node."""
    sent = np.ones(len(of_scores[ROOT]), bool)
    here = node
    while here != ROOT:
        parent = next(name for name, children in tree.children.items() if here in children)
        sent &= of_scores[parent].argmax(axis=1) == tree.children[parent].index(here)
        here = parent
    return sent


def summary_of(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The tables of several units of `conditional`, one below the other."""
    names = ("fold", "row", "node", "target", "predicted")
    return pd.concat([pd.DataFrame({name: one[name] for name in names}) for one in found], ignore_index=True)
