"""Figures of concept whitening: axes, concepts, and what the layer does to features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, FancyArrowPatch
from matplotlib.patheffects import withStroke

from mitolib.figures import estimates
from mitolib.figures.style import LABEL_COLOURS, LARGE, NORMAL, SMALL
from mitolib.metrics import Estimate
from mitolib.settings import LABELS

PER_ROW = 10  # thumbnails of a contact sheet
DETECTORS = ("axis", "best unit", "LDA", "probe")
CONCEPTS = ("concept 1", "concept 2")
OTHER = "other pictures"  # without them the two concepts would share all points between them, and be opposites
GROUP_STYLES = {  # colour and marker: neither has to carry the meaning alone
    CONCEPTS[0]: ("#CC79A7", "o"),
    CONCEPTS[1]: ("#0072B2", "^"),
    OTHER: ("#b0b0b0", "."),
}


def contact_sheet(patches_nyx: np.ndarray, rows: pd.DataFrame, *, fig: Figure) -> Figure:
    """Thumbnails in reading order, ten in a row, framed in the colour of their class, the subject above.

    patches_nyx: grey values 0 to 255. rows: subject and label of each. The figure takes the height that they need.
    """
    n_rows = math.ceil(len(rows) / PER_ROW)
    fig.set_size_inches(8, 0.92 * n_rows)
    axes = fig.subplots(n_rows, PER_ROW, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, patch_yx, row in zip(axes.flat, patches_nyx, rows.itertuples(), strict=False):
        ax.imshow(patch_yx, cmap="gray", vmin=0, vmax=255)
        ax.set_axis_on()
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set(color=LABEL_COLOURS[row.label], linewidth=2.5)
        ax.set_title(row.subject, fontsize=7, pad=2, color=LABEL_COLOURS[row.label])
    return fig


def cosines(matrix: pd.DataFrame, *, ax: Axes, title: str = "") -> Axes:
    """A square table of cosines, or correlations, between -1 and 1, with its numbers."""
    sns.heatmap(
        matrix, vmin=-1, vmax=1, cmap="RdBu_r", annot=True, fmt=".2f", annot_kws={"size": 7}, square=True, ax=ax,
        cbar=False,
    )  # fmt: skip
    ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=8)
    return ax


def trajectories(ranks: pd.DataFrame, *, axes: Sequence[Axes]) -> Sequence[Axes]:
    """The way of each sample through the layers, one panel per label, on the two axes of that label's concept and the
    other's: percentile rank among the patches; from an open circle to the head of an arrow.

    ranks: columns label, sample, layer (two at least), and one per concept (two).
    """
    first, second = LABELS
    for ax, (label, rows) in zip(axes, ranks.groupby("label", sort=False), strict=True):
        samples = rows.groupby("sample", sort=False)
        for colour, (_, way) in zip(sns.color_palette("colorblind"), samples, strict=False):
            points = way[[first, second]].to_numpy()
            ax.plot(*points.T, "-o", color=colour, markersize=3, linewidth=1, alpha=0.8)
            ax.plot(*points[0], "o", color=colour, markersize=7, markerfacecolor="white")
            arrow = {"arrowstyle": "-|>", "color": colour, "mutation_scale": 14, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", points[-1], points[-2], arrowprops=arrow)
        ax.plot([0, 100], [0, 100], color="#bbbbbb", linewidth=0.8, zorder=0)
        ax.set_xlim(-4, 104)
        ax.set_ylim(-4, 104)
        ax.set_aspect("equal")
        ax.set_title(f"patches of {label}s", fontsize=9, color=LABEL_COLOURS[label])
        ax.set_xlabel(f"rank on the axis of {first}, %", fontsize=8)
        ax.set_ylabel(f"rank on the axis of {second}, %", fontsize=8)
        ax.tick_params(labelsize=8)
    return axes


def detectors(aucs: Mapping[str, Mapping[str, Mapping[str, Estimate]]], *, fig: Figure) -> Figure:
    """How well each concept is found, a panel for each kind of picture: AUC with its interval; dashed: chance.

    aucs: picture -> concept -> detector (DETECTORS) -> AUC.
    """
    fig.set_size_inches(4.2 * len(aucs), 4.4)
    panels = fig.subplots(1, len(aucs), sharey=True, squeeze=False)[0]
    for ax, (picture, by_concept) in zip(panels, aucs.items(), strict=True):
        by_detector = {
            detector: {concept: found[detector] for concept, found in by_concept.items()} for detector in DETECTORS
        }
        estimates.intervals(by_detector, level=0.5, ax=ax)
        ax.set_xlabel(f"AUC on held-out subjects, {picture}")
        ax.set_xlim(-0.03, 1.03)
    return fig


def latent(stages: Mapping[str, np.ndarray], group: np.ndarray, *, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Points of two neurons, one stage on each axis: an ellipse for the spread, arrows in the directions of the means.

    stages: title -> (N, 2) points; group: (N,) names, keys of GROUP_STYLES.
    """
    for ax, (title, points) in zip(axes, stages.items(), strict=True):
        _cloud(ax, points, group)
        ax.set_title(title, fontsize=LARGE)
        correlation = signed_number(np.corrcoef(points.T)[0, 1])
        note = f"correlation {correlation}\nangle of the concepts {angle(points, group):.0f}°"
        ax.text(0.5, -0.2, note, ha="center", va="top", fontsize=NORMAL, transform=ax.transAxes)
        ax.set_xlabel("neuron 1", fontsize=SMALL, labelpad=1)
        ax.set_ylabel("neuron 2", fontsize=SMALL, labelpad=1)
    return axes


def rotation(whitened: np.ndarray, rotated: np.ndarray, group: np.ndarray, *, axes: Sequence[Axes]) -> Sequence[Axes]:
    """The second half of concept whitening: points before and after the turn, and how well one axis then tells.

    whitened, rotated: (N, 2), the same points; group: (N,) names, keys of GROUP_STYLES. Three axes.
    """
    for ax, points, title, names in (
        (axes[0], whitened, "whitened", ("neuron 1", "neuron 2")),
        (axes[1], rotated, "whitened and rotated", tuple(f"axis of {name}" for name in CONCEPTS)),
    ):
        _cloud(ax, points, group)
        ax.set_title(title, fontsize=LARGE)
        ax.set_xlabel(names[0], fontsize=SMALL, labelpad=1)
        ax.set_ylabel(names[1], fontsize=SMALL, labelpad=1)
    ax = axes[2]
    rows = [("neuron 1", whitened), (f"axis of {CONCEPTS[0]}", rotated)]
    names = list(GROUP_STYLES)
    for block, (_, points) in enumerate(rows):
        for place, name in enumerate(names):
            colour = GROUP_STYLES[name][0]
            ax.boxplot(
                points[group == name, 0],
                positions=[-(4 * block + place)],
                orientation="horizontal",
                widths=0.7,
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": colour, "alpha": 0.7},
                medianprops={"color": "black"},
            )
    places = [-(4 * block + place) for block in range(2) for place in range(3)]
    ax.set_yticks(places, names * 2, fontsize=SMALL)
    for block, (title, _) in enumerate(rows):
        ax.text(0.02, 0.75 - 4 * block, title, fontsize=SMALL, weight="bold", transform=ax.get_yaxis_transform())
    ax.set_ylim(-6.7, 1.4)
    ax.set_xlabel("value", fontsize=SMALL, labelpad=1)
    ax.set_title("one axis read alone", fontsize=LARGE)
    ax.tick_params(axis="x", labelsize=SMALL)
    return axes


def groups_key(*, fig: Figure) -> Figure:
    """Colour and marker of each group, once for a figure of several clouds."""
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
        for name, (colour, marker) in GROUP_STYLES.items()
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=NORMAL, frameon=False)
    return fig


def _cloud(ax: Axes, points: np.ndarray, group: np.ndarray) -> None:
    for name in reversed(GROUP_STYLES):  # the two concepts above the rest
        colour, marker = GROUP_STYLES[name]
        ax.plot(*points[group == name].T, marker, color=colour, markersize=3, alpha=0.6, markeredgewidth=0)
    values, vectors = np.linalg.eigh(np.cov(points.T, bias=True))
    turn = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    minor, major = 4 * np.sqrt(values)  # two standard deviations to each side
    ax.add_patch(Ellipse(points.mean(axis=0), major, minor, angle=turn, fill=False, linewidth=1.5))
    ax.axhline(0, color="#333333", linewidth=0.6, zorder=0)
    ax.axvline(0, color="#333333", linewidth=0.6, zorder=0)
    for name in CONCEPTS:
        mean = points[group == name].mean(axis=0)
        end = mean / max(np.linalg.norm(mean), 1e-12) * major / 2  # as long as the ellipse: means can be short
        arrow = FancyArrowPatch((0, 0), end, arrowstyle="-|>", mutation_scale=14, linewidth=2, shrinkA=0, shrinkB=0)
        arrow.set(color=GROUP_STYLES[name][0], path_effects=[withStroke(linewidth=4, foreground="black")], zorder=3)
        ax.add_patch(arrow)
    ax.set_aspect("equal", adjustable="datalim")
    ax.tick_params(labelsize=SMALL)


def angle(points: np.ndarray, group: np.ndarray) -> float:
    """Angle in degrees between the mean vectors of the two concepts, seen from the origin."""
    first, second = (points[group == name].mean(axis=0) for name in CONCEPTS)
    return float(np.degrees(np.arccos(first @ second / np.linalg.norm(first) / np.linalg.norm(second))))


def signed_number(value: float) -> str:
    """+0.62, −0.31 and, whatever the rounding error, +0.00."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")
