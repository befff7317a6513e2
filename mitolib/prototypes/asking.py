"""All trainings of the chapter, asked for as units before the first result is used."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mitolib import units
from mitolib.own_data import LeftOut
from mitolib.prototypes import checks, fits, tree_fits
from mitolib.prototypes.fits import ARMS, CHAPTER, Study, Tools
from mitolib.prototypes.tree_fits import TreeStudy
from mitolib.prototypes.turned import ZOOM
from mitolib.units import Units

TOGETHER = 10  # folds in a unit: at 7 x 7 places one takes less than a minute
LOGISTIC, HEAD, MAJORITY = "logistic regression", "paper's head", "majority"
UNSEEN = "leave-one-control-one-patient-out"


class Arm(NamedTuple):
    """How networks with fine annotation differ."""

    k: int  # places that are averaged
    annotated: float  # share of the training people whose masks are used
    turned: bool = False  # with turned views of the training patches

    def __str__(self) -> str:
        return f"k={self.k} share={self.annotated:.0%}{' turned' if self.turned else ''}"


@dataclass(frozen=True, eq=False)
class Asked:
    """Units by what they are of. Empty mappings and None: what the data do not allow."""

    study: Study
    of_splits: Mapping[str, Mapping[str, Units]]  # model -> split -> one for each ten folds
    rivals: Mapping[str, Mapping[str, Units]]  # logistic regression and the paper's head -> split
    shown: Units  # one for each seed
    explained: Units | None
    checked: Units | None  # the maps of the trained network
    redrawn: Mapping[str, Units]  # what is drawn anew -> one for each seed
    copies: Units
    fine: Mapping[Arm, Units] = field(default_factory=dict)  # one for each fold
    tree_study: TreeStudy | None = None
    conditional: Mapping[str, Units] = field(default_factory=dict)  # split -> one for each six folds
    novel: Mapping[str, Units] = field(default_factory=dict)  # genotype -> one

    def _all(self) -> Iterator[Units]:
        for by_split in chain(self.of_splits.values(), self.rivals.values()):
            yield from by_split.values()
        yield from (self.shown, self.copies, *self.fine.values(), *self.conditional.values(), *self.novel.values())
        yield from filter(None, (self.explained, self.checked, *self.redrawn.values()))

    @property
    def units(self) -> list[dict[str, Any]]:
        """What the results file says of them."""
        return [record for asked in self._all() for record in asked.record]


def ask(study: Study, tools: Tools, held_out: Any, tree: TreeStudy | LeftOut) -> Asked:
    """Ask for all units of the chapter, and compute those that are not kept.

    held_out: patches on which maps are tested, see `saliency.held_out_patches`. tree: left out without several
    proteins or without columns for it. Raises what the fits raise, and `units.UnitError`.
    """
    budget, seed = study.budget, study.seed
    trained = ("depth", "per_child", "cycles", "epochs")
    each = partial(_each, study, fits)
    of_splits = {
        model: {split: _of_splits(each, study, model, split, trained) for split in study.folds} for model in ARMS
    }
    rivals: dict[str, dict[str, Units]] = {LOGISTIC: {}, HEAD: {}}
    for split, folds in study.folds.items():
        about = {"model": LOGISTIC, "split": split}
        rivals[LOGISTIC][split] = each(lambda split, **_: fits.logistic(study, split), [about], [split], ())
        heads = [{"model": HEAD, "split": split, "fold": fold} for fold in range(len(folds))]

        def one_head(split: str, fold: int, **_: Any) -> units.Result:
            return fits.paper_head(study, split, fold, tools.head, seed=seed)

        rivals[HEAD][split] = each(one_head, heads, [split], ("head_steps",))
    looked_at = (*trained, "side")
    shown = each(
        lambda seed, **_: fits.shown_network(study, seed),
        [{"measured": "shown network", "seed": seed + i} for i in range(budget.seeds)],
        [study.shown],
        looked_at,
    )
    explained = checked = None
    redrawn: dict[str, Units] = {}
    if len(held_out):
        tested = held_out.depends | {"propagation": not isinstance(tools.propagation, LeftOut)}
        without_twins = tested | {"twins": None}
        explained = each(
            lambda **_: fits.explained(study, tools, held_out, seed=seed),
            [{"measured": "maps"}],
            [study.shown],
            (*looked_at, "altered", "shares"),
            without_twins,
        )
        of_checks = partial(_each, study, checks)
        checked = of_checks(
            lambda **_: checks.trained_maps(study, tools, held_out, seed=seed),
            [{"measured": "checked maps"}],
            [study.shown],
            (*looked_at, "restored", "fibres"),
            tested,
        )
        for drawn in (checks.HEAD, checks.ALL):
            redrawn[drawn] = of_checks(
                lambda drawn, redrawn, **_: checks.redrawn_maps(study, tools, held_out, drawn=drawn, seed=redrawn),
                [{"measured": "redrawn maps", "drawn": drawn, "redrawn": seed + 1 + i} for i in range(budget.redraws)],
                [],
                ("depth", "per_child", "side"),
                without_twins,
                seeded=False,
            )
    copies = each(
        lambda **_: fits.copies(study, seed=seed),
        [{"measured": "copies"}],
        [study.shown],
        (*looked_at, "explained", "qualities"),
    )
    fine = _fine(each, study, tools, looked_at) if study.masks is not None and UNSEEN in study.folds else {}
    study.features.release()  # before the maps of several proteins are read
    tree_study = tree if isinstance(tree, TreeStudy) else None
    trees = _trees(tree_study) if tree_study else {}
    return Asked(study, of_splits, rivals, shown, explained, checked, redrawn, copies, fine, tree_study, **trees)


def _of_splits(each: Any, study: Study, model: str, split: str, trained: Sequence[str]) -> Units:
    n = len(study.folds[split])

    def fit(model: str, split: str, folds: str) -> units.Result:
        first, last = map(int, folds.split("-"))
        return fits.of_split(study, model, split, range(first, last + 1), seed=study.seed)

    parts = [f"{start}-{min(start + TOGETHER, n) - 1}" for start in range(0, n, TOGETHER)]
    return each(fit, [{"model": model, "split": split, "folds": part} for part in parts], [split], trained)


def _fine(each: Any, study: Study, tools: Tools, looked_at: Sequence[str]) -> dict[Arm, Units]:
    """Of k = 1 every share of annotated people, and all with turned views; of IAIA-BL's k none and all."""
    budget = study.budget
    none, most = budget.annotated[0], budget.annotated[-1]
    arms = [Arm(1, share) for share in budget.annotated]
    arms += [Arm(1, most, turned=True), Arm(budget.top_k, none), Arm(budget.top_k, most)]
    found = {}
    for arm in arms:

        def fit(k: int, annotated: float, fold: int, turned: bool = arm.turned, **_: Any) -> units.Result:
            about = {"k": k, "annotated": annotated, "fold": fold, "split": UNSEEN, "turned": turned}
            return fits.fine(study, tools, seed=study.seed, **about)

        measured = "fine annotation, turned views" if arm.turned else "fine annotation"
        names = [
            {"measured": measured, "k": arm.k, "annotated": arm.annotated, "fold": fold}
            for fold in spread_folds(study, budget.fine_folds)
        ]
        further = study.depends | ({"turned": budget.turned, "zoom": list(ZOOM)} if arm.turned else {})
        found[arm] = each(fit, names, [UNSEEN], looked_at, further)
    return found


def spread_folds(study: Study, n: int) -> list[int]:
    """At most n folds of people not seen, in which every patient is tested before one is tested again."""
    of_folds = study.folds[UNSEEN]
    pairs = [tuple(study.table.loc[fold == "test", "subject"].unique()) for fold in of_folds]
    chosen: list[int] = []
    times: dict[str, int] = {}
    while len(chosen) < min(n, len(of_folds)):
        free = [i for i in range(len(of_folds)) if i not in chosen]
        best = min(free, key=lambda i: (times.get(pairs[i][-1], 0), times.get(pairs[i][0], 0), i))
        chosen.append(best)
        for subject in pairs[best]:
            times[subject] = times.get(subject, 0) + 1
    return sorted(chosen)


def _trees(tree_study: TreeStudy) -> dict[str, Any]:
    study, budget = tree_study.study, tree_study.study.budget
    each = partial(_each, study, tree_fits)
    trained = ("tree_depth", "per_child", "cycles", "epochs")
    tree = {"paths": {subject: list(path) for subject, path in tree_study.tree.paths.items()}}

    def conditional(split: str, folds: str, **_: Any) -> units.Result:
        first, last = map(int, folds.split("-"))
        return tree_fits.conditional(tree_study, split, range(first, last + 1), seed=study.seed)

    n_unseen = len(tree_study.unseen_folds())
    n_unseen = min(n_unseen, budget.tree_folds or n_unseen)
    parts = {study.shown: ["0-0"], "unseen": [f"{i}-{min(i + 6, n_unseen) - 1}" for i in range(0, n_unseen, 6)]}
    found = {
        split: each(
            conditional,
            [{"measured": "tree", "split": split, "folds": part} for part in of_split],
            [study.shown],
            trained,
            tree,
        )
        for split, of_split in parts.items()
        if of_split
    }
    novel = {
        genotype: each(
            lambda genotype, **_: tree_fits.novel_genotype(tree_study, genotype, seed=study.seed),
            [{"measured": "novel genotype", "genotype": genotype}],
            [study.shown],
            (*trained, "novel_known"),
            tree,
        )
        for genotype in list(tree_study.novel())[: budget.novel_genotypes]
    }
    return {"conditional": found, "novel": novel}


def _each(
    study: Study,
    made_by: Any,
    fit: Any,
    names: Sequence[Mapping[str, Any]],
    splits: Sequence[str],
    entries: Sequence[str],
    further: Mapping[str, Any] | None = None,
    *,
    seeded: bool = True,
) -> Units:
    """entries: of the budget, that the units depend on. splits: whose folds they depend on.

    seeded: whether the seed of the study counts too, as where a name has no seed of its own.
    """
    depends = study.features.depends | {name: _plain(getattr(study.budget, name)) for name in entries}
    depends |= {"folds": {split: _digest(study.folds[split]) for split in splits}}
    depends |= {"seed": study.seed} if seeded else {}
    return units.each(
        fit,
        names,
        made_by=sys.modules[made_by.__name__],
        chapter=CHAPTER,
        depends=depends | dict(further or {}),
        prepare=study.features.prepare,
        precision=_precision,
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _precision() -> str:
    from mitolib import bank

    return bank.precision()


def _digest(folds: Sequence[pd.Series]) -> str:
    return units.digest(np.array([fold.to_numpy().astype("U5") for fold in folds]))
