"""The phantom beside real muscle, as the chapter on data shows it: pictures, measures, fibres in a patch.

Real files are public and not ours to publish: a reader has them (`mitolib.downloads`), or sees the phantom alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from mitolib import downloads, patches, units
from mitolib.cohort import Section
from mitolib.study import EXP1, EXP2

REAL = "real section"
WINDOW_PX = 512
OF_THE_REAL_ONE = "P04"  # the subject whose fibres the real COX4 picture shows
Truth = tuple[np.ndarray, pd.Series]  # as `cohort.read_truth` gives it
COLUMNS = ["of", "measure", "real", "phantom", "ratio", "within_20_percent"]


def cox4_windows(sections: Sequence[Section]) -> dict[str, np.ndarray]:
    """Title -> (512, 512) uint8: a window of the phantom's P04 in COX4, and of the real section where a reader has it.

    sections: of the phantom; none, for data that are no phantom, gives no window. The real picture is under GPL-3.0
    and no part of the published edition: a run into that does not show it.
    """
    if not sections:
        return {}
    whole_yx = _cox4_yx(sections)
    top, left = ((side_px - WINDOW_PX) // 2 for side_px in whole_yx.shape)  # the middle, where there is tissue
    windows = {"this cohort, COX4": whole_yx[max(0, top) :, max(0, left) :][:WINDOW_PX, :WINDOW_PX]}
    if (path := downloads.local("COX4 picture")) and not units.publishes():
        windows[f"{REAL}, COX4"] = np.asarray(Image.open(path).convert("L"))[900:1412, 1000:1512]
    return windows


def compare_with_muscle(sections: Sequence[Section], truth: Truth | None) -> pd.DataFrame:
    """The phantom's P04 in COX4, and a mask of its fibres, measured against the real ones (`realism`).

    sections: of the phantom; none gives an empty table. truth: of one section; None for the picture alone. Columns of
    `realism.compare` after a first one `of`, which is "image" or "mask".
    """
    from mitolib.phantom import realism  # half a second, which who only draws a phantom need not wait for

    if not sections:
        return pd.DataFrame(columns=COLUMNS)
    reference = realism.read_reference()
    tables = {"image": realism.compare(reference["image"], realism.measure_image(_cox4_yx(sections)))}
    if truth is not None:
        tables["mask"] = realism.compare(reference["mask"], realism.measure_mask(truth[0]))
    return pd.concat(tables, names=["of", None]).reset_index("of")


def agreement(comparison: pd.DataFrame) -> str:
    """A sentence of Markdown on `compare_with_muscle`; "" for an empty table."""
    if comparison.empty:
        return ""
    within, ratios = comparison["within_20_percent"].astype(bool), comparison["ratio"].dropna()
    farthest = ratios.iloc[np.abs(np.log(ratios.to_numpy(float))).argmax()]
    return (
        f"Of {len(comparison)} measures {within.sum()} lie within 20 % of the real value. Where they differ most, the "
        f"ratio of phantom to real is {farthest:.2f}."
    )


def _cox4_yx(sections: Sequence[Section]) -> np.ndarray:
    """(H, W) uint8 of P04, or of the last section where there is none."""
    by_name = {section.section: section for section in sections}
    return by_name.get(OF_THE_REAL_ONE, sections[-1]).image_yx("COX4")


def fibre_masks(truth: Truth | None) -> dict[str, np.ndarray]:
    """Title -> (H, W) fibre numbers, 0 for no fibre: of this cohort's P03, and the hand-drawn ones of a real section.

    Each only where it is at hand; truth: of P03, None on data without.
    """
    masks = {} if truth is None else {"this cohort, P03": truth[0]}
    path = downloads.local("P03 mask")
    return masks | ({} if path is None else {REAL: tifffile.imread(path)})


def fibres_per_patch(masks: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Masks of fibres cut into patches as pictures are, and counted: one column for each mask.

    Rows: size in px, patches at the steps of both experiments, fibres, and the median number of fibres that a patch of
    experiment 1 touches.
    """
    columns = {}
    for title, label_yx in masks.items():
        section = Section(title, title, "patient", *label_yx.shape, {})
        grids = {step: patches.grid([section], stride_px=step) for step in (EXP1.stride_px, EXP2.stride_px)}
        cut_nyxc = patches.cut(label_yx[..., None], grids[EXP1.stride_px], stride_px=EXP1.stride_px)
        touched = [np.unique(patch_yxc).size - 1 for patch_yxc in cut_nyxc]  # 0 is no fibre
        columns[title] = {
            "height, px": section.height_px,
            "width, px": section.width_px,
            **{f"patches, step {step} px": len(rows) for step, rows in grids.items()},
            "fibres": np.unique(label_yx).size - 1,
            "fibres touched by a patch, median": np.median(touched),
        }
    return pd.DataFrame(columns, dtype=object)
