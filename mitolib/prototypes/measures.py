"""Are the prototypes what they say? Whose they are, what they explain, and whether they are found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.optimize import linear_sum_assignment

from mitolib import cohort
from mitolib.metrics import Estimate, interval
from mitolib.prototypes.maps import RECEPTIVE_FIELD, Maps
from mitolib.prototypes.push import fibre_width, near

NEAREST = 10  # distinct places
GAP = "gap"  # no fibre under the centre
REACH, CONSISTENT = 36, 0.8  # px of 224 around a place, and share of places: the consistency score of Huang et al. 2023


def contributions(activations: np.ndarray, weights: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(N, P) what each prototype adds to the predicted class, less what it adds to the best other one.

    activations: (N, P); weights: (K, P); predicted: (N,).
    """
    others = np.stack([np.delete(weights, label, axis=0).max(axis=0) for label in range(len(weights))])
    return activations * (weights - others)[predicted]


def self_recognition(table: pd.DataFrame, rows: np.ndarray, top: np.ndarray, sources: pd.DataFrame) -> pd.DataFrame:
    """Of each test patch: same_subject, same_pixels (bool), and chance.

    top: (N,) number of the prototype that contributes most to the answer. same_pixels: the prototype's place lies in
    the patch itself. chance: share of the patch's subject among the patches that its class is trained on, which has
    to be given in `table` as the column `trained` (bool).
    """
    tested, source = table.iloc[rows], sources.iloc[top]
    same_section = tested["section"].to_numpy() == source["section"].to_numpy()
    inside = same_section.copy()
    for axis in "yx":
        offset = source[f"{axis}_px"].to_numpy() - tested[axis].to_numpy()
        inside &= (offset >= 0) & (offset < tested["size"].to_numpy())
    trained = table[table["trained"]]
    of_class = trained["label"].value_counts()
    of_subject = trained["subject"].value_counts()
    chance = tested["subject"].map(of_subject).fillna(0) / tested["label"].map(of_class)
    return pd.DataFrame(
        {
            "subject": tested["subject"].to_numpy(),
            "same_subject": tested["subject"].to_numpy() == source["subject"].to_numpy(),
            "same_pixels": inside,
            "chance": chance.to_numpy(),
        }
    )


def self_recognition_record(found: pd.DataFrame, *, rng: Generator) -> dict[str, Any]:
    """Shares with their intervals over subjects, and the difference from chance."""
    values = {name: found[name].astype(float).to_numpy() for name in ("same_subject", "same_pixels", "chance")}
    values["same_subject_minus_chance"] = values["same_subject"] - values["chance"]
    return {name: vars(interval(value, found["subject"], rng=rng)) for name, value in values.items()}


def subjects_of(
    sources: pd.DataFrame, weights: np.ndarray, activations: np.ndarray, available: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Class -> distinct and effective number of subjects among its prototypes, and how many trained.

    effective: the exponential of the entropy of subjects, a prototype weighing its absolute weight
    times its mean activation.
    """
    found = {}
    strength = np.abs(weights).max(axis=0) * activations.mean(axis=0)
    for child, of_child in sources.groupby("child"):
        shares = pd.Series(strength[of_child.index], index=of_child["subject"]).groupby(level=0).sum()
        shares = shares[shares > 0] / shares.sum()
        found[child] = {
            "distinct": int(of_child["subject"].nunique()),
            "effective": float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0,
            "available": int(available[child]),
        }
    return found


def nearest_places(similarities: np.ndarray, maps: Maps, rows: np.ndarray, n: int = NEAREST) -> list[list[int]]:
    """Of each prototype at most n distinct places of these patches, the most similar first, as flat numbers.

    similarities: (N, S, P). Place i is place i % S of patch rows[i // S]. Two closer than a fibre are one.
    """
    centres = maps.centres_px(rows).reshape(-1, 2)
    sections = np.repeat(maps.table["section"].to_numpy()[rows], maps.n_places)
    found = []
    for of_prototype in similarities.reshape(-1, similarities.shape[-1]).T:
        free, chosen = of_prototype.copy(), []
        while len(chosen) < n and np.isfinite(free).any():
            place = int(free.argmax())
            chosen.append(place)
            free[near(centres, sections, centres[place], sections[place], fibre_width(maps))] = -np.inf
        found.append(chosen)
    return found


class Truth:
    """What is known of the fibres at a place of a section. Without truth nothing is: None."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[str, tuple[np.ndarray, pd.Series] | None] = {}

    def _of(self, section: str) -> tuple[np.ndarray, pd.Series] | None:
        if section not in self._read:
            self._read = {section: cohort.read_truth(self.root, section)}  # one at a time: a section is tens of MB
        return self._read[section]

    def fibre_class(self, section: str, y_px: float, x_px: float) -> str | None:
        """Deficiency class of the fibre under a point: none, CI, CIV, CI+CIV, or gap."""
        if (truth := self._of(section)) is None:
            return None
        fibre = int(truth[0][int(y_px), int(x_px)])
        return str(truth[1][fibre]) if fibre else GAP

    def kinds_near(self, section: str, y_px: float, x_px: float, reach_px: float) -> set[str] | None:
        """What `fibre_class` says of the points less than `reach_px` up, down, left and right of a point, or nearer."""
        if (truth := self._of(section)) is None:
            return None
        window = truth[0][
            max(0, round(y_px - reach_px)) : round(y_px + reach_px),
            max(0, round(x_px - reach_px)) : round(x_px + reach_px),
        ]
        return {str(truth[1][fibre]) if fibre else GAP for fibre in np.unique(window).tolist()}

    def deficient_share(self, section: str, y_px: float, x_px: float, side_px: float) -> float | None:
        """Share of a square around a point that is deficient fibre, cut off at the section's edge."""
        if (truth := self._of(section)) is None:
            return None
        half = side_px / 2
        window = truth[0][
            max(0, round(y_px - half)) : round(y_px + half), max(0, round(x_px - half)) : round(x_px + half)
        ]
        return float(np.isin(window, truth[1].index[truth[1] != "none"]).mean())


def prototype_table(
    sources: pd.DataFrame,
    weights: np.ndarray,
    contribution: np.ndarray,
    nearest: pd.DataFrame,
    truth: Truth,
    *,
    classes: Sequence[str],
    patch_px: int,
    side: int,
) -> list[dict[str, Any]]:
    """A row for each prototype, as plain values; what needs truth is None without it.

    contribution: (N, P) on the test patches. nearest: a row for each of a prototype's nearest distinct places, with
    prototype, subject, label, section, y_px, x_px, and random_y_px, random_x_px of a place of the same patch. side:
    places along a side of the map.
    """
    top = np.bincount(contribution.argmax(axis=1), minlength=len(sources)) / max(1, len(contribution))
    cell_px, field_px = patch_px / side, patch_px * RECEPTIVE_FIELD / 224
    reach_px = patch_px * REACH / 224
    rows = []
    for j, source in enumerate(sources.to_dict("records")):
        place = source["section"], source["y_px"], source["x_px"]
        near = nearest[nearest["prototype"] == j]
        near = near.sort_values("section", kind="stable")  # a section's truth is then read once
        rows.append(
            {name: source[name] for name in ("node", "child", "prototype", "subject", "section")}
            | {"patch_y": source["patch_y"], "patch_x": source["patch_x"]}
            | {"y_px": source["y_px"], "x_px": source["x_px"], "distance": source["distance"]}
            | {"weights": {name: float(weights[i, j]) for i, name in enumerate(classes)}}
            | {
                "deficient_in_cell": truth.deficient_share(*place, cell_px),
                "deficient_in_field": truth.deficient_share(*place, field_px),
                "fibre": truth.fibre_class(*place),
                "purity": _purity(truth, near["section"], near["y_px"], near["x_px"]),
                "purity_at_random": _purity(truth, near["section"], near["random_y_px"], near["random_x_px"]),
                "consistent": _consistent(truth, near["section"], near["y_px"], near["x_px"], reach_px),
                "consistent_at_random": _consistent(
                    truth, near["section"], near["random_y_px"], near["random_x_px"], reach_px
                ),
                "purity_of_class": float((near["label"] == source["child"]).mean()) if len(near) else None,
                "share_top": float(top[j]),
                "nearest_subjects": near["subject"].tolist(),
            }
        )
    return rows


def _purity(truth: Truth, sections: pd.Series, ys_px: pd.Series, xs_px: pd.Series) -> float | None:
    """Share of places whose fibre is of the commonest kind among them; None without truth."""
    kinds = [truth.fibre_class(*place) for place in zip(sections, ys_px, xs_px, strict=True)]
    known = [kind for kind in kinds if kind is not None]
    return max(known.count(kind) for kind in set(known)) / len(known) if known else None


def _consistent(truth: Truth, sections: pd.Series, ys_px: pd.Series, xs_px: pd.Series, reach_px: float) -> bool | None:
    """Whether one kind of fibre lies near most of the places, as Huang et al. (2023) ask; None without truth.

    A gap between fibres, which is near every place, is no kind here.
    """
    kinds = [truth.kinds_near(*place, reach_px) for place in zip(sections, ys_px, xs_px, strict=True)]
    known = [near - {GAP} for near in kinds if near is not None]
    if not known:
        return None
    often = max((sum(kind in near for near in known) for kind in set().union(*known)), default=0)
    return often >= CONSISTENT * len(known)


def matched(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prototypes of two networks matched by the correlation of their activations on the same patches.

    one, other: (N, P). (P,) number of the partner of each, and the correlations; Hungarian assignment.
    """
    n = one.shape[1]
    correlation = np.nan_to_num(np.corrcoef(one.T, other.T)[:n, n:])
    partners = linear_sum_assignment(-correlation)[1]
    return partners, correlation[np.arange(n), partners]


def stability(runs: Sequence[Mapping[str, Any]], *, fibre_px: float, rng: Generator) -> dict[str, dict[str, Any]]:
    """How alike networks are that differ by their seed, a value for each pair of them.

    runs: activations (N, P), predicted (N,), sources. matched and shuffled: mean correlation of matched prototypes,
    and after the patches of one are dealt out anew; found_again: share whose partner lies within a fibre's width;
    agreement: share of patches with the same answer. Pairs share networks, so that there is no interval.
    """
    values: dict[str, list[float]] = {"matched": [], "shuffled": [], "found_again": [], "agreement": []}
    for i, one in enumerate(runs):
        for other in runs[:i]:
            partners, correlations = matched(one["activations"], other["activations"])
            values["matched"].append(float(correlations.mean()))
            mixed = rng.permutation(other["activations"], axis=0)
            values["shuffled"].append(float(matched(one["activations"], mixed)[1].mean()))
            here, there = one["sources"], other["sources"].iloc[partners].reset_index(drop=True)
            apart = np.hypot(here["y_px"] - there["y_px"], here["x_px"] - there["x_px"])
            values["found_again"].append(float(((here["section"] == there["section"]) & (apart < fibre_px)).mean()))
            values["agreement"].append(float((one["predicted"] == other["predicted"]).mean()))
    return {
        name: vars(Estimate(float(np.mean(found)) if found else None, None, len(found), 0))
        for name, found in values.items()
    }


def pruned(nearest: Sequence[Sequence[int]], labels: np.ndarray, owners: np.ndarray, *, k: int = 6) -> int:
    """Prototypes that ProtoPNet would remove: fewer than 3 of the k nearest training patches are of their class.

    nearest: of each prototype, training patches by similarity; labels: their classes; owners: class of each prototype.
    """
    return sum(
        int((labels[np.asarray(rows[:k], int)] == owner).sum() < 3) for rows, owner in zip(nearest, owners, strict=True)
    )
