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
from mitolib.figures.estimates import intervals
from mitolib.figures.style import COVERED, LABEL_COLOURS
from mitolib.metrics import Estimate

LEFT_OUT = "Left out: these patches cannot be dealt out as in the paper."


def covered(image_yx: np.ndarray, covered_yx: np.ndarray, cell_px: int, *, ax: Axes, title: str = "") -> Axes:
    """A section, coloured where its pixels lie under training patches, test patches or both (`protocols.coverage`)."""
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


def coverage(
    image_yx: np.ndarray, by_split: Mapping[str, tuple[np.ndarray, int]], *, fig: Figure, name: str = ""
) -> Figure:
    """A section under each split, see `covered`, with the key of the colours.

    image_yx: (H, W) grey. by_split: split -> what `protocols.coverage` gives; a sentence where it is empty.
    name: of the section.
    """
    if not by_split:
        sentence(LEFT_OUT, ax=fig.subplots())
        return fig
    axes = fig.subplots(1, len(by_split), squeeze=False)[0]
    for ax, (split, (covered_yx, cell_px)) in zip(axes, by_split.items(), strict=True):
        covered(image_yx, covered_yx, cell_px, ax=ax, title=f"{name}, {split}")
    return covered_key(fig=fig)


def sentence(text: str, *, ax: Axes) -> Axes:
    """A sentence in the place of a figure that the data do not allow."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, transform=ax.transAxes)
    return ax


def shared(shares: Mapping[str, pd.Series], *, ax: Axes) -> Axes:
    """Histogram over test patches of the share of pixels that training has seen.

    shares: name -> 0 to 1 for each test patch; a sentence where it is empty.
    """
    if not shares:
        return sentence(LEFT_OUT, ax=ax)
    for colour, (name, values) in zip(sns.color_palette("colorblind"), shares.items(), strict=False):
        sns.histplot(
            x=values, stat="proportion", binwidth=0.05, binrange=(0, 1), color=colour, alpha=0.5, label=name, ax=ax
        )
    ax.set_xlabel("share of a test patch's pixels that lie in a training patch")
    ax.set_ylabel("share of the test patches")
    ax.set_xlim(0, 1)
    ax.legend(frameon=False, loc="upper left")
    return ax


def scores_by_split(estimates: Mapping[str, Mapping[str, Mapping[str, Estimate]]], *, fig: Figure) -> Figure:
    """A panel for each score, with a row for each model and a mark for each split; dashed: one half, which is chance.

    estimates: name of the score -> split -> model -> value and interval.
    """
    axes = fig.subplots(1, len(estimates), sharey=True, squeeze=False)[0]
    for ax, (name, by_split) in zip(axes, estimates.items(), strict=True):
        intervals(by_split, level=0.5, ax=ax)
        ax.get_legend().remove()
        ax.set_xlabel(name)
        ax.set_xlim(-0.03, 1.03)
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return fig


def twin_panels(effects: Mapping[str, Mapping[str, pd.DataFrame]], rows: Mapping[str, str], *, fig: Figure) -> Figure:
    """A column for each model and a row for each split, see `twins`.

    effects: model -> split -> one row per subject, columns label, before, after; a sentence where it is empty.
    rows: split -> what its row is called.
    """
    if not effects:
        sentence("Left out: these data have no twins.", ax=fig.subplots())
        return fig
    axes = fig.subplots(len(rows), len(effects), sharey=True, squeeze=False)
    for (model, by_split), of_model in zip(effects.items(), axes.T, strict=True):
        for split, ax in zip(rows, of_model, strict=True):
            if split in by_split:
                twins(by_split[split], ax=ax)
        of_model[0].set_title(model, fontsize=9)
    for ax, name in zip(axes[:, 0], rows.values(), strict=True):
        ax.set_ylabel(f"p(patient), {name}", fontsize=9)
    return fig


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
