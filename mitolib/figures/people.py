"""Figures of the honest evaluation: what patches share, what twins do, what few people can show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mitolib.figures.cohort import image
from mitolib.figures.style import COVERED, LABEL_COLOURS


def covered(image_yx: np.ndarray, covered_yx: np.ndarray, cell_px: int, *, ax: Axes, title: str = "") -> Axes:
    """A section, coloured where its pixels lie under training patches, test patches or both (`splits.coverage`)."""
    image(image_yx, ax=ax, title=title)
    colours = [to_rgba(colour, 0.45) for colour in ("none", *COVERED.values())]
    height, width = np.array(covered_yx.shape) * cell_px
    ax.imshow(
        covered_yx, cmap=ListedColormap(colours), vmin=0, vmax=3, extent=(0, width, height, 0), interpolation="nearest"
    )
    ax.set_xlim(0, image_yx.shape[1])
    ax.set_ylim(image_yx.shape[0], 0)
    return ax


def covered_key(*, fig: Figure) -> Figure:
    """The colours of `covered`."""
    handles = [Rectangle((0, 0), 1, 1, color=colour, alpha=0.6) for colour in COVERED.values()]
    fig.legend(handles, list(COVERED), loc="outside lower center", ncols=len(COVERED), fontsize=9, frameon=False)
    return fig


def shared(shares: Mapping[str, pd.Series], *, ax: Axes) -> Axes:
    """Histogram over test patches of the share of pixels that training has seen. shares: name -> 0 to 1."""
    for colour, (name, values) in zip(sns.color_palette("colorblind"), shares.items(), strict=False):
        sns.histplot(
            x=values, stat="proportion", binwidth=0.05, binrange=(0, 1), color=colour, alpha=0.5, label=name, ax=ax
        )
    ax.set_xlabel("share of a test patch's pixels that lie in a training patch")
    ax.set_ylabel("share of the test patches")
    ax.set_xlim(0, 1)
    ax.legend(frameon=False, loc="upper left")
    return ax


def twins(effects: pd.DataFrame, *, ax: Axes, title: str = "") -> Axes:
    """p(patient) of each subject and of its twin, joined. effects: columns label, before, after, by subject."""
    for row in effects[::-1].itertuples():  # the few controls on top
        ax.plot([0, 1], [row.before, row.after], "o-", color=LABEL_COLOURS[row.label], markersize=4, linewidth=1)
    ax.axhline(0.5, color="black", linestyle="--", linewidth=0.8)
    ax.set_xticks([0, 1], ["itself", "its twin"])
    ax.set_xlim(-0.25, 1.25)
    ax.set_ylim(-0.03, 1.03)
    ax.set_title(title, fontsize=9)
    return ax


def precision_by_size(intervals: pd.DataFrame, *, ax: Axes) -> Axes:
    """95 % interval against the number of subjects, a band for each true share. Columns share, n, low, high."""
    for colour, (share, rows) in zip(sns.color_palette("colorblind"), intervals.groupby("share"), strict=False):
        ax.fill_between(rows["n"], rows["low"], rows["high"], color=colour, alpha=0.25, label=f"{share:.0%} right")
        ax.plot(rows["n"], rows["low"], color=colour, linewidth=1)
    ax.set_xscale("log")
    ticks = [n for n in (4, 10, 20, 50, 100, 200, 500) if intervals["n"].min() <= n <= intervals["n"].max()]
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.minorticks_off()
    ax.set_xlabel("controls")
    ax.set_ylabel("share called rightly, 95 % interval")
    ax.legend(frameon=False, loc="lower right")
    return ax
