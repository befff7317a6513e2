"""What the page shows of one network: a test patch explained by its prototypes, and a contact sheet of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mitolib import cohort
from mitolib.cohort import Section
from mitolib.prototypes import measures
from mitolib.prototypes.asking import Asked
from mitolib.prototypes.fits import SHOWN_MAPS, TREE
from mitolib.prototypes.maps import RECEPTIVE_FIELD
from mitolib.prototypes.network import GREATEST, ROOT


@dataclass(frozen=True)
class Shown:
    """A patch at the size of its section, and the place in it that counts.

    picture_yx: (H, W) uint8. deficient_yx: (H, W) bool, nothing without truth. place_yx: centre of the place, px of the
    patch. squares_px: sides of the squares around it: the printed cell, half of the relevance, the receptive field.
    """

    picture_yx: np.ndarray
    deficient_yx: np.ndarray
    place_yx: tuple[float, float]
    squares_px: tuple[float, float, float]
    title: str


@dataclass(frozen=True)
class Example:
    """A test patch with its strongest prototypes: each place in the patch, its prototype, and how alike they are.

    pairs: (the patch with the place most like the prototype, the prototype). maps: (n, side, side) similarity.
    highest: end of the scale of all maps, the similarity that one training patch in four exceeds.
    table: a row for each prototype of the network, those that contribute most first.
    """

    pairs: Sequence[tuple[Shown, Shown]]
    maps: np.ndarray
    highest: float
    table: pd.DataFrame
    sentence: str


HALF_OF_RELEVANCE_PX = 110  # of a patch of 512: the square that holds about half of a prototype's relevance


def squares_px(patch_px: int, side: int) -> tuple[float, float, float]:
    """Sides of the three squares around a place: its cell, half of its relevance, its receptive field."""
    return patch_px / side, patch_px * HALF_OF_RELEVANCE_PX / 512, patch_px * RECEPTIVE_FIELD / 224


class Pictures:
    """Patches cut out of sections, for display. One section is in memory at a time."""

    def __init__(self, root: Path, sections: Sequence[Section], protein: str) -> None:
        self.root, self.protein = root, protein
        self.sections = {section.section: section for section in sections}
        self._name, self._image, self._deficient = "", np.zeros((0, 0), np.uint8), np.zeros((0, 0), bool)

    def patch(self, section: str, y: int, x: int, size_px: int) -> tuple[np.ndarray, np.ndarray]:
        """(size_px, size_px) uint8, and bool where a fibre is deficient."""
        if section != self._name:
            self._name, self._image = section, self.sections[section].image_yx(self.protein)
            truth = cohort.read_truth(self.root, section)
            self._deficient = np.zeros(self._image.shape, bool)
            if truth is not None:
                self._deficient = np.isin(truth[0], truth[1].index[truth[1] != "none"])
        window = slice(y, y + size_px), slice(x, x + size_px)
        return self._image[window], self._deficient[window]


def example(asked: Asked, pictures: Pictures) -> Example:
    """The patch that the first network was asked about, and the three prototypes that contribute most."""
    study, found = asked.study, asked.shown[0]
    tests = study.rows(study.shown, 0)[1]
    patch = study.table.iloc[tests[found["example"]]]
    sources = pd.DataFrame(found["sources"])
    activation, p = found["activations"][found["example"]], float(found["p"][found["example"]])
    predicted = int(p > 0.5)
    weights = found["weights_of_classes"]
    contribution = measures.contributions(activation[None], weights, np.array([predicted]))[0]
    order = np.argsort(-contribution)
    similar = found["example_maps"].astype(float)
    side, size_px = round(len(similar) ** 0.5), int(patch["size"])
    squares = squares_px(size_px, side)
    pairs = []
    for j in order[:SHOWN_MAPS]:
        place, source = int(similar[:, j].argmax()), sources.iloc[j]
        at = (place // side + 0.5) * size_px / side, (place % side + 0.5) * size_px / side
        here = pictures.patch(patch["section"], int(patch["y"]), int(patch["x"]), size_px)
        there = pictures.patch(source["section"], int(source["patch_y"]), int(source["patch_x"]), size_px)
        of_source = float(source["y_px"] - source["patch_y"]), float(source["x_px"] - source["patch_x"])
        pairs.append(
            (
                Shown(*here, at, squares, f"this: {patch['subject']}, similarity {activation[j]:.2f}"),
                Shown(*there, of_source, squares, f"that: prototype {j}, {source['subject']} ({source['child']})"),
            )
        )
    table = pd.DataFrame(
        {
            "prototype": order,
            "class": sources["child"].to_numpy()[order],
            "person": sources["subject"].to_numpy()[order],
            "similarity": activation[order],
            **{f"weight to {name}": weights[i, order] for i, name in enumerate(TREE[ROOT])},
            "adds to the log odds of patient": ((weights[1] - weights[0]) * activation)[order],
        }
    ).set_index("prototype")
    totals = weights @ activation
    usual = float(np.median(found["trained_greatest"]))
    sentence = (
        f"This patch comes from {patch['subject']}, a {patch['label']}. Over all prototypes, similarity times weight "
        f"adds up to {totals[0]:.2f} for control and {totals[1]:.2f} for patient, so p(patient) is {p:.2f}. Its "
        f"greatest similarity is {activation.max():.2f}. A place reaches {GREATEST:.2f} with itself; the median "
        f"training patch reaches {usual:.2f} with the nearest prototype of its class."
    )
    maps = similar[:, order[:SHOWN_MAPS]].T.reshape(-1, side, side)
    highest = float(np.quantile(found["trained_greatest"], 0.75))
    return Example(pairs, maps, highest, table, sentence)


@dataclass(frozen=True)
class Looked:
    """A held-out patch, and three answers to where its loudest prototype is seen in it.

    shown: the patch, with the place. similarity: (side, side). box: top, bottom, left and right of ProtoPNet's box,
    from 0 to 1. relevance: (h, w), from 0 to 1.
    """

    shown: Shown
    similarity: np.ndarray
    box: tuple[float, float, float, float]
    relevance: np.ndarray


def looked_at(asked: Asked, pictures: Pictures, rows: pd.DataFrame) -> list[Looked]:
    """Of the first held-out patches; none where relevance was not propagated.

    rows: of the patch table, as `saliency.held_out_patches` gives them.
    """
    if asked.checked is None or "shown_similarity" not in asked.checked[0]:
        return []
    found, result = asked.checked[0], []
    for i, similar in enumerate(found["shown_similarity"].astype(float)):
        patch, side = rows.iloc[i], len(similar)
        size_px = int(patch["size"])
        y, x = ((place + 0.5) * size_px / side for place in divmod(int(similar.argmax()), side))
        picture = pictures.patch(patch["section"], int(patch["y"]), int(patch["x"]), size_px)
        title = f"{patch['subject']}, prototype {int(found['shown_prototypes'][i])}"
        shown = Shown(*picture, (y, x), squares_px(size_px, side), title)
        result.append(Looked(shown, similar, tuple(found["shown_box"][i].tolist()), found["shown_relevance"][i] / 255))
    return result


def contact_sheet(rows: Sequence[dict[str, Any]], pictures: Pictures, *, patch_px: int, side: int) -> list[Shown]:
    """A picture for each row of a prototype table, with its number, person and weight to patient."""
    squares, found = squares_px(patch_px, side), []
    for row in rows:
        picture = pictures.patch(row["section"], row["patch_y"], row["patch_x"], patch_px)
        at = row["y_px"] - row["patch_y"], row["x_px"] - row["patch_x"]
        title = f"{row['prototype']}: {row['subject']}, {row['weights']['patient']:+.1f}"
        found.append(Shown(*picture, at, squares, title))
    return found
