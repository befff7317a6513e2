"""The push: each prototype becomes the latent vector of a place of a training patch.

Neighbouring patches overlap, so that one fibre lies in many of them. Places are therefore told apart in pixels of the
section: two of one section that are closer than a fibre is wide are one place, and only one prototype may take it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd
import torch

from mitolib.prototypes.maps import Maps
from mitolib.prototypes.network import PrototypeNetwork

FIBRE_PX = 49  # the median width of a fibre, in patches of 512 px; in those of another size in proportion
DIGITS = 6  # of a distance: what differs by less is a tie, taken by the first row, however batches were cut


@dataclass(frozen=True)
class Pushed:
    """Where the prototypes of a network come from.

    sources: a row for each prototype: node, child, prototype (its number in the node), row (of the patch table), place,
    subject, section, y_px and x_px (centre of the place in the section), distance (squared, before the push).
    fibre_px: places of one section that are closer are one place.
    """

    sources: pd.DataFrame
    fibre_px: float

    @property
    def duplicates(self) -> int:
        """Prototypes at a place that an earlier one of the network has taken."""
        centres = self.sources[["y_px", "x_px"]].to_numpy()
        sections = self.sources["section"].to_numpy()
        earlier = (near(centres[:i], sections[:i], centres[i], sections[i], self.fibre_px) for i in range(len(centres)))
        return sum(bool(of_one.any()) for of_one in earlier)


def push(
    network: PrototypeNetwork,
    maps: Maps,
    rows: np.ndarray,
    targets: Mapping[str, np.ndarray],
    *,
    distinct: bool = True,
    quota: bool = False,
) -> Pushed:
    """Move every prototype, in place, onto the nearest free place of the training patches that belong to it.

    rows: training rows of the maps; no other is read. targets: node -> (patches of the maps,) number of the child that
    a patch belongs to, below 0 for a patch that is not below the node. Within a node prototypes choose in the order of
    their least distance. distinct: a place closer than a fibre to that of another prototype is taken. quota: of the
    prototypes of a child no subject gives more than its share, rounded up. Raises ValueError for a child without
    training patches, and where there are fewer free places than prototypes.
    """
    network.eval()
    rows = np.sort(rows)
    latent = maps.latent(network, rows)
    sections = np.repeat(maps.table["section"].to_numpy()[rows], maps.n_places)
    subjects = np.repeat(maps.table["subject"].to_numpy()[rows], maps.n_places)
    centres = maps.centres_px(rows).reshape(-1, 2)
    fibre_px = fibre_width(maps)
    taken = np.zeros(len(centres), bool)
    chosen = []
    for name, children in network.tree.items():
        node, of_node = network.node(name), targets[name][rows]
        owners = node.owners.numpy()
        distances = _distances(network, latent, name)
        allowed = np.repeat(of_node[:, None] == owners, maps.n_places, axis=0)  # (places, P)
        _check_children(of_node, children, name)
        limits = _limits(of_node, maps.table["subject"].to_numpy()[rows], network) if quota else {}
        given: dict[tuple[int, str], int] = {}
        distances[~allowed] = np.inf
        for j in np.argsort(distances.min(axis=0), kind="stable"):
            free = np.where(taken, np.inf, distances[:, j]) if distinct else distances[:, j]
            place = int(free.argmin())
            if not np.isfinite(free[place]):
                raise ValueError(
                    f"no free place is left for prototype {j} of {children[owners[j]]!r}: the training patches have "
                    f"fewer places {fibre_px:.0f} px apart than prototypes. Ask for fewer prototypes, or train on more."
                )
            chosen.append((name, int(owners[j]), int(j), place, float(distances[place, j])))
            if distinct:
                taken |= near(centres, sections, centres[place], sections[place], fibre_px)
            if quota:
                key = int(owners[j]), subjects[place]
                given[key] = given.get(key, 0) + 1
                if given[key] == limits[key[0]]:
                    distances[np.ix_(subjects == key[1], owners == key[0])] = np.inf
    with torch.no_grad():
        for name, _, j, place, _ in chosen:
            row = rows[place // maps.n_places]
            # The patch alone: its latent vector is then the same bits, whatever batch it was searched in.
            network.node(name).prototypes[j] = network.latent(maps.batch([row]))[0, place % maps.n_places]
    return Pushed(_sources(chosen, rows, maps, sections, subjects, centres, network), fibre_px)


def _distances(network: PrototypeNetwork, latent: np.ndarray, node: str) -> np.ndarray:
    """(places, P) float64, rounded: of all places of the training patches."""
    with torch.no_grad():
        parts = [
            network.distances(torch.from_numpy(latent[start : start + 64]), node).numpy()
            for start in range(0, len(latent), 64)
        ]
    found = np.concatenate(parts).astype(float)
    return found.reshape(-1, found.shape[-1]).round(DIGITS)


def fibre_width(maps: Maps) -> float:
    """Of these patches, in px of their sections."""
    return FIBRE_PX * float(maps.table["size"].iloc[0]) / 512


def near(centres: np.ndarray, sections: np.ndarray, centre: np.ndarray, section: str, fibre_px: float) -> np.ndarray:
    """(n,) bool: places of this section that are closer than a fibre is wide. centres: (n, 2) y and x, px."""
    return (sections == section) & (np.hypot(*(centres - centre).T) < fibre_px)


def _check_children(of_node: np.ndarray, children: tuple[str, ...], node: str) -> None:
    for i, child in enumerate(children):
        if not (of_node == i).any():
            raise ValueError(
                f"{child!r} of node {node!r} has no training patches in this fold; wanted one at least. Leave the "
                "class out, or choose a split in which it trains."
            )


def _limits(of_node: np.ndarray, subjects: np.ndarray, network: PrototypeNetwork) -> dict[int, int]:
    """Child -> prototypes that one subject may give."""
    per_child = network.architecture.per_child
    children = np.unique(of_node[of_node >= 0])
    return {int(child): ceil(per_child / len(set(subjects[of_node == child]))) for child in children}


def _sources(
    chosen: list[tuple[str, int, int, int, float]],
    rows: np.ndarray,
    maps: Maps,
    sections: np.ndarray,
    subjects: np.ndarray,
    centres: np.ndarray,
    network: PrototypeNetwork,
) -> pd.DataFrame:
    table = [
        {
            "node": name,
            "child": network.tree[name][owner],
            "prototype": j,
            "row": int(rows[place // maps.n_places]),
            "place": place % maps.n_places,
            "subject": subjects[place],
            "section": sections[place],
            "y_px": float(centres[place, 0]),
            "x_px": float(centres[place, 1]),
            "distance": distance,
        }
        for name, owner, j, place, distance in sorted(chosen, key=lambda c: (list(network.tree).index(c[0]), c[2]))
    ]
    return pd.DataFrame(table)
