"""A tree of classes from declared columns, coarse to fine: control or patient, group of genotypes, genotype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mitolib.prototypes.network import ROOT

COLUMNS = ("label", "genotype group", "genotype")  # of the phantom
GROUPS = {  # genotype -> group, where a folder does not bring a column of its own
    "nuclear-encoded complex I": "nuclear complex I",
    "single large-scale mtDNA deletion": "single deletion",
    "MT-TL1": "mt-tRNA point mutation",
    "MT-TG": "mt-tRNA point mutation",
    "MT-TE": "mt-tRNA point mutation",
    "MT-TW": "mt-tRNA point mutation",
    "healthy control": "healthy",
}


@dataclass(frozen=True)
class Tree:
    """Nodes with their children, and the path of each subject.

    children: node -> names of its children, in the order of the alphabet; the first node is the root. A child that is a
    node leads on. paths: subject -> values from coarse to fine, as far as they are known.
    """

    children: Mapping[str, tuple[str, ...]]
    paths: Mapping[str, tuple[str, ...]]

    def targets(self, subjects: Sequence[str]) -> dict[str, np.ndarray]:
        """Node -> (N,) number of the child that a patch of this subject belongs to; -1 where none is known."""
        names = np.asarray(subjects)
        found = {}
        for node, children in self.children.items():
            of_node = np.full(len(names), -1)
            for subject in np.unique(names):
                path = self.paths.get(subject, ())
                if node == ROOT or node in path:
                    below = [children.index(value) for value in path if value in children]
                    of_node[names == subject] = below[0] if below else -1
            found[node] = of_node
        return found

    def among(self, subjects: Sequence[str]) -> Tree:
        """The tree of these subjects alone. A node whose subjects all lie in one child is gone in it."""
        return _tree({subject: self.paths[subject] for subject in subjects})

    def dropped(self, smaller: Tree) -> list[str]:
        """Nodes that a tree of fewer subjects does not have."""
        return [node for node in self.children if node not in smaller.children]

    def people(self, node: str) -> dict[str, list[str]]:
        """Child of a node -> its subjects."""
        of_node = self.targets(list(self.paths))[node]
        subjects = np.array(list(self.paths))
        return {child: subjects[of_node == i].tolist() for i, child in enumerate(self.children[node])}


def with_groups(people: pd.DataFrame) -> pd.DataFrame:
    """The same with a column "genotype group" from GROUPS, if there is a genotype and no such column."""
    if "genotype" not in people or "genotype group" in people:
        return people
    return people.assign(**{"genotype group": people["genotype"].map(GROUPS).fillna("")})


def tree_of(people: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> Tree:
    """The tree that the columns declare, coarse to fine. people: rows with subject and these columns, one or more each.

    An empty value ends the path of a subject. A node with one child is skipped. Raises ValueError for a column that is
    not there, that differs within a subject, or a value with two parents.
    """
    if missing := [name for name in columns if name not in people]:
        raise ValueError(f"no column {missing[0]!r} for the tree; found {', '.join(people)}. Correct `tree`.")
    paths: dict[str, tuple[str, ...]] = {}
    for subject, rows in people.groupby("subject", sort=False):
        path: list[str] = []
        for column in columns:
            values = sorted({"" if pd.isna(value) else str(value) for value in rows[column]})
            if len(values) > 1:
                raise ValueError(
                    f"column {column!r} of subject {subject} holds {' and '.join(values)}; wanted one value for a "
                    "subject. Correct cohort.csv."
                )
            if not values[0]:
                break
            path.append(values[0])
        paths[str(subject)] = tuple(path)
    parents: dict[str, str] = {}
    for path in paths.values():
        for parent, value in zip((ROOT, *path), path, strict=False):
            if parents.setdefault(value, parent) != parent:
                raise ValueError(
                    f"{value!r} lies below {parents[value]!r} and below {parent!r}; wanted one parent for each value. "
                    "Give one of the two another name."
                )
    return _tree(paths)


def _tree(paths: Mapping[str, tuple[str, ...]]) -> Tree:
    children: dict[str, tuple[str, ...]] = {}

    def descend(node: str, below: list[tuple[str, ...]]) -> None:
        """below: paths of the node's subjects, from the node on."""
        while below and len(values := {path[0] for path in below if path}) == 1:
            below = [path[1:] for path in below if path]  # its only child is skipped
        values = sorted({path[0] for path in below if path})
        if len(values) < 2:
            return
        children[node] = tuple(values)
        for value in values:
            descend(value, [path[1:] for path in below if path and path[0] == value])

    descend(ROOT, list(paths.values()))
    return Tree(children, dict(paths))


def novelty(activations: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Of a node, (N,) three scores of how little a patch is like any child, each the greater the less alike.

    activations: (N, P) of its prototypes; scores: (N, children) before the softmax. The first is the one to use: the
    last layer is solved to saturation, so that the other two can point the wrong way.
    """
    stable = scores - scores.max(axis=1, keepdims=True)
    total = np.exp(stable).sum(axis=1)
    return {
        "minus greatest activation": -activations.max(axis=1),
        "one minus greatest softmax": 1 - 1 / total,
        "minus log-sum-exp": -(np.log(total) + scores.max(axis=1)),
    }
