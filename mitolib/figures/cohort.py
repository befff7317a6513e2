"""Figures of pictures, sections and the patch grid."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mitolib.figures.style import DEFICIENCY_COLOURS


def image(image_yx: np.ndarray, *, ax: Axes, title: str = "", cmap: str = "gray") -> Axes:
    """One greyscale picture, (H, W) 0-255, without axes."""
    ax.imshow(image_yx, cmap=cmap, vmin=0, vmax=255)
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()
    return ax


def gallery(images: Mapping[str, np.ndarray], *, axes: np.ndarray, cmap: str = "gray") -> np.ndarray:
    """title -> (H, W) picture, one per axis; axes left over are blanked."""
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, image_yx) in zip(axes.flat, images.items(), strict=False):
        image(image_yx, ax=ax, title=title, cmap=cmap)
    return axes


def deficiency(truth: tuple[np.ndarray, pd.Series] | None, *, ax: Axes) -> Axes:
    """Ground truth of one section as `cohort.read_truth` gives it: (H, W) fibre numbers, deficiency class by number."""
    ax.set_axis_off()
    if truth is None:
        ax.text(0.5, 0.5, "these data come without ground truth", ha="center", transform=ax.transAxes)
        return ax
    labels_yx, classes = truth
    names = list(DEFICIENCY_COLOURS)
    lookup = np.zeros(labels_yx.max() + 1, np.uint8)
    lookup[classes.index] = [names.index(name) + 1 for name in classes]
    ax.imshow(
        lookup[labels_yx],
        cmap=ListedColormap(["white", *DEFICIENCY_COLOURS.values()]),
        vmin=0,
        vmax=len(names),
        interpolation="nearest",
    )
    share = classes.value_counts(normalize=True).drop("none", errors="ignore")
    listed = ", ".join(f"{name} {share[name]:.0%}" for name in names if name in share) or "none deficient"
    ax.text(0.5, -0.03, listed, ha="center", va="top", fontsize=8, transform=ax.transAxes)
    return ax


def deficiency_key(*, fig: Figure) -> Figure:
    """The colours of `deficiency`, once for a figure of several sections."""
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in DEFICIENCY_COLOURS.values()]
    names = ["no deficiency" if name == "none" else name for name in DEFICIENCY_COLOURS]
    fig.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=9, frameon=False)
    return fig


def patch_grid(image_yx: np.ndarray, rows: pd.DataFrame, *, ax: Axes) -> Axes:
    """A section with the outline of its patches; the first one and the next are drawn strong, to show the overlap."""
    image(image_yx, ax=ax)
    for i, row in enumerate(rows.itertuples()):
        strong = i < 2
        ax.add_patch(
            Rectangle(
                (row.x, row.y),
                row.size,
                row.size,
                fill=strong,
                alpha=0.35 if strong else 1,
                facecolor="#F0E442",
                edgecolor="#F0E442",
                linewidth=2 if strong else 0.5,
            )
        )
    return ax
