"""Turned views of training patches, with masks that follow them: IAIA-BL trains on augmented pictures.

A turned map is not the map of a turned picture, so that each view goes through the backbone. Masks are turned by the
call that turns the pictures, with the same generator, as a bank of features has it: one for each chunk of patches.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mitolib import patches
from mitolib.prototypes.annotation import Annotation, irrelevant, turned
from mitolib.prototypes.maps import Maps

if TYPE_CHECKING:
    from mitolib.prototypes.fits import Study

ZOOM = (0.8, 1.2)  # as in the paper's experiments
CHUNK = 64  # patches that share a generator


def with_turned_views(
    study: Study, maps: Maps, annotation: Annotation, rows: np.ndarray, *, seed: int
) -> tuple[Maps, Annotation, np.ndarray]:
    """Maps and annotation of all patches, behind them those of one turned view of each patch in `rows`, and its labels.

    annotation: of all patches; a view is annotated where its patch is. Labels: (N + len(rows),) class indices. Raises
    what `Masks.windows` raises.
    """
    augment = partial(patches.augment, zoom=ZOOM)
    pictures_nhwc = study.features.pixels_nhwc[rows]
    windows_nyx, _ = study.masks.windows(study.table.iloc[rows].reset_index(drop=True), pictures_nhwc.shape[1])
    for start in range(0, len(rows), CHUNK):
        here = slice(start, start + CHUNK)
        pictures_nhwc[here] = augment(pictures_nhwc[here], rng=np.random.default_rng([seed, 0, start]))
        windows_nyx[here] = turned(windows_nyx[here], augment, rng=np.random.default_rng([seed, 0, start]))
    views = study.features.of_pictures(pictures_nhwc, maps.side).values
    table = pd.concat([study.table, study.table.iloc[rows]], ignore_index=True)
    both = Annotation(
        np.concatenate([annotation.irrelevant, irrelevant(windows_nyx, maps.side)]),
        np.concatenate([annotation.annotated, annotation.annotated[rows]]),
        annotation.others,
    )
    return Maps(table, np.concatenate([maps.values, views])), both, np.concatenate([study.labels, study.labels[rows]])
