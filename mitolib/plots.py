"""Figures: each function takes finished data and axes, draws, and returns the axes.

Nothing here computes, saves or shows. Controls are blue and patients orange throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mitolib.settings import LABELS

LABEL_COLOURS = {"control": "#0072B2", "patient": "#D55E00"}  # Okabe and Ito: told apart by the colour-blind
DEFICIENCY_COLOURS = {"none": "#d9d9d9", "CI": "#56B4E9", "CIV": "#E69F00", "CI+CIV": "#CC3311"}
FROZEN, TRAINED = "#9aa5b1", "#009E73"


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


def layers(summary: pd.DataFrame, *, ax: Axes) -> Axes:
    """A model's layers from input to output: parameters as bars (log scale), shape of each stage's output.

    summary: columns layer, type, output, parameters, trained. Frozen layers are drawn together by stage
    (`block1`, `conv2`, ...), the head's one by one.
    """
    stage = summary["layer"].where(summary["trained"], summary["layer"].str.split("_").str[0])
    stages = (
        summary.assign(stage=stage)
        .groupby("stage", sort=False)
        .agg(output=("output", "last"), parameters=("parameters", "sum"), trained=("trained", "any"))
        .reset_index()
    )
    positions = np.arange(len(stages))
    colours = [TRAINED if trained else FROZEN for trained in stages["trained"]]
    ax.barh(positions, stages["parameters"].clip(lower=1), color=colours)
    ax.set_xscale("log")
    ax.set_xlim(1, stages["parameters"].max() * 300)  # room for the text beside the longest bar
    for position, row in zip(positions, stages.itertuples(), strict=True):
        ax.text(max(row.parameters, 1) * 1.4, position, f"{row.parameters:,}   → {row.output}", va="center", fontsize=8)
    ax.set_yticks(positions, stages["stage"])
    ax.invert_yaxis()
    ax.set_xlabel("parameters, and shape of the output")
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in (FROZEN, TRAINED)]
    ax.legend(handles, ["frozen", "trained"], loc="lower right", frameon=False)
    return ax


def curves(history: pd.DataFrame, *, axes: Sequence[Axes], baseline: float) -> Sequence[Axes]:
    """Accuracy on the first axis, loss on the second, training and validation by epoch.

    baseline: validation accuracy of always answering the more common class.
    """
    for ax, name in zip(axes, ("accuracy", "loss"), strict=True):
        ax.plot(history.index, history[name], color="#444444", label="training")
        ax.plot(history.index, history[f"val_{name}"], color="#CC79A7", label="validation")
        ax.set_xlabel("epoch")
        ax.set_ylabel(name)
    axes[0].axhline(baseline, color="black", linewidth=0.8, linestyle=":", label="majority class")
    axes[0].set_ylim(None, 1.01)
    axes[0].legend(frameon=False, fontsize=8)
    return axes


def confusion(counts: Sequence[Sequence[int]], *, ax: Axes, title: str = "") -> Axes:
    """Confusion matrix, rows are the truth; shade is the share of the row, text the count."""
    counts = np.asarray(counts)
    sns.heatmap(
        counts / counts.sum(axis=1, keepdims=True),
        annot=counts,
        fmt="d",
        cmap="Blues",
        vmin=0,
        vmax=1,
        cbar=False,
        square=True,
        xticklabels=LABELS,
        yticklabels=LABELS,
        ax=ax,
    )
    ax.set_xlabel("predicted")
    ax.set_ylabel("truth")
    ax.set_title(title, fontsize=10)
    return ax


def predictions(patches_nyx: np.ndarray, rows: pd.DataFrame, *, axes: np.ndarray) -> np.ndarray:
    """One patch per axis with its truth, the probability of "patient" and whether the call is right.

    patches_nyx: (N, H, W) 0-255; rows: columns subject, label, p_patient, predicted, in the same order.
    """
    for ax in axes.flat:
        ax.set_axis_off()  # a test set may hold fewer patches than there are axes
    for ax, patch_yx, row in zip(axes.flat, patches_nyx, rows.itertuples(), strict=False):
        image(patch_yx, ax=ax)
        right = row.label == row.predicted
        ax.set_title(f"{row.subject}, a {row.label}", fontsize=9, color=LABEL_COLOURS[row.label])
        verdict = f"p(patient) {row.p_patient:.2f}: {'right' if right else 'WRONG'}"
        ax.text(0.5, -0.03, verdict, ha="center", va="top", fontsize=9, transform=ax.transAxes)
    return axes
