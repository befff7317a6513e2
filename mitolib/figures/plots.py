"""Figures: each function takes finished data and axes, draws, and returns the axes.

Nothing here computes, saves or shows. Controls are blue and patients orange throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mitolib.metrics import Estimate
from mitolib.settings import LABELS

LABEL_COLOURS = {"control": "#0072B2", "patient": "#D55E00"}  # Okabe and Ito: told apart by the colour-blind
DEFICIENCY_COLOURS = {"none": "#d9d9d9", "CI": "#56B4E9", "CIV": "#E69F00", "CI+CIV": "#CC3311"}
COVERED = {"training patches": "#56B4E9", "test patches": "#F0E442", "both": "#CC3311"}
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
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
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


def explained(
    patches_nyx: np.ndarray,
    maps: Mapping[str, np.ndarray],
    masks_nyx: np.ndarray,
    rows: pd.DataFrame,
    *,
    axes: np.ndarray,
) -> np.ndarray:
    """One patch per row: the patch, the paper's jet overlay, then the map of each class in an even palette.

    patches_nyx: (N, H, W) 0-255. maps: class -> (N, H, W), raw, the size of the patch. masks_nyx: (N, H, W) bool, drawn
    as outline. rows: columns subject, label, p_patient, predicted. Each row of maps shares one scale, from 0 to its
    greatest value; the overlay shows the class predicted.
    """
    for i, row in enumerate(rows.itertuples()):
        image(patches_nyx[i], ax=axes[i, 0])
        right = "right" if row.predicted == row.label else "WRONG"
        axes[i, 0].set_title(f"{row.subject}, a {row.label}", fontsize=9, color=LABEL_COLOURS[row.label])
        verdict = f"p(patient) {row.p_patient:.2f}: {right}"
        axes[i, 0].text(0.5, -0.03, verdict, ha="center", va="top", fontsize=8, transform=axes[i, 0].transAxes)
        image(patches_nyx[i], ax=axes[i, 1], title=f"overlay, {row.predicted}")
        top = max(float(one[i].max()) for one in maps.values()) or 1.0
        axes[i, 1].imshow(maps[row.predicted][i], cmap="jet", alpha=0.45, vmin=0, vmax=top)
        for ax, (name, one) in zip(axes[i, 2:], maps.items(), strict=True):
            shown = ax.imshow(one[i], cmap="viridis", vmin=0, vmax=top)
            ax.set_title(f"map for {name}" + ("" if one[i].any() else ": empty"), fontsize=9)
            ax.set_axis_off()
        axes[i, -1].figure.colorbar(shown, ax=axes[i, -1], shrink=0.85, format="%.2g").ax.tick_params(labelsize=7)
        for ax in (axes[i, 0], *axes[i, 2:]):
            _outline(masks_nyx[i], ax)
    return axes


def _outline(mask_yx: np.ndarray, ax: Axes) -> None:
    """Border of a mask; nothing where it is empty, of which matplotlib would warn."""
    if mask_yx.any() and not mask_yx.all():
        ax.contour(mask_yx, levels=[0.5], colors="#FF6F91", linewidths=0.7)


def map_gallery(
    patches_nyx: np.ndarray, maps: Mapping[str, np.ndarray], masks_nyx: np.ndarray, *, axes: np.ndarray
) -> np.ndarray:
    """One method per row, one patch per column, the patches above. maps: method -> (N, H, W), 0-1 for display."""
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    for ax, patch_yx, mask_yx in zip(axes[0], patches_nyx, masks_nyx, strict=True):
        ax.imshow(patch_yx, cmap="gray", vmin=0, vmax=255)
        _outline(mask_yx, ax)
    for row, (name, stack) in zip(axes[1:], maps.items(), strict=True):
        for ax, map_yx, mask_yx in zip(row, stack, masks_nyx, strict=True):
            ax.imshow(map_yx, cmap="viridis", vmin=0, vmax=1)
            _outline(mask_yx, ax)
        row[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    axes[0, 0].set_ylabel("patch", fontsize=8, rotation=0, ha="right", va="center")
    return axes


def cascade(similarity: pd.DataFrame, *, others: Mapping[str, float], ax: Axes) -> Axes:
    """How alike maps stay while stage after stage is drawn anew.

    similarity: index stage, from the top down; columns ssim and spearman. others: the same for maps of different
    patches, dotted: below that line a map has nothing left of what the trained network gave.
    """
    for name, words, colour in (("ssim", "SSIM", "#0072B2"), ("spearman", "rank correlation", "#CC79A7")):
        defined = np.flatnonzero(similarity[name].notna())  # without a value where all maps are empty
        ax.plot(defined, similarity[name].iloc[defined], "o-", color=colour, label=words)
        ax.axhline(others[name], color=colour, linestyle=":", linewidth=1.2, label=f"{words}, different patches")
    ax.set_xticks(range(len(similarity)), similarity.index, rotation=45, ha="right", fontsize=8)
    ax.set_ylabel("alike to the trained network's map")
    ax.set_xlabel("weights drawn anew down to")
    ax.set_ylim(min(-0.5, float(np.nanmin(similarity)) - 0.05), 1.05)
    ax.legend(frameon=False, fontsize=8)
    return ax


def intervals(scores: Mapping[str, Mapping[str, Estimate]], *, level: float, ax: Axes) -> Axes:
    """Value and interval of each method, one colour per model; dashed: the level of chance.

    scores: model -> method -> estimate; a value of None is left out, an interval of None is not drawn.
    """
    methods = list(dict.fromkeys(method for by_method in scores.values() for method in by_method))
    colours = sns.color_palette("colorblind", len(scores))
    markers = "osD^vPX"
    for m, (model, by_method) in enumerate(scores.items()):
        shown = {method: score for method, score in by_method.items() if score.value is not None}
        offset = (m - (len(scores) - 1) / 2) * 0.17
        y = [methods.index(method) + offset for method in shown]
        values = [score.value for score in shown.values()]
        ends = [score.ci or (score.value,) * 2 for score in shown.values()]
        ax.hlines(y, [end[0] for end in ends], [end[1] for end in ends], color=colours[m], linewidth=1.3)
        ax.plot(values, y, markers[m % len(markers)], color=colours[m], markersize=4, label=model)
    ax.axvline(level, color="black", linestyle="--", linewidth=0.8)
    ax.set_yticks(range(len(methods)), methods)
    ax.set_ylim(len(methods) - 0.4, -0.6)
    ax.grid(axis="y", color="#eeeeee")
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=8, ncols=len(scores), loc="lower center", bbox_to_anchor=(0.5, 1))
    return ax


def strata(scores: pd.DataFrame, *, ax: Axes) -> Axes:
    """Score of each patch by stratum, a dot each, and the mean as a bar. scores: columns stratum, score, model.

    Strata stand in the order of their categories, or of their first row; models in that of theirs, or of the alphabet.
    Dashed: a score of 1, chance.
    """
    column = scores["stratum"]
    categories = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column.unique()
    by_model = scores.groupby("model", observed=True)
    for m, (model, rows) in enumerate(by_model):
        colour, offset = sns.color_palette("colorblind")[m], 0.22 * (m - (len(by_model) - 1) / 2)
        place = np.array([list(categories).index(stratum) for stratum in rows["stratum"]]) + offset
        ax.plot(place, rows["score"], "o", color=colour, markersize=4, alpha=0.6, label=model)
        for x in np.unique(place):
            ax.hlines(rows["score"][place == x].mean(), x - 0.09, x + 0.09, color=colour, linewidth=2.5)
    ax.axhline(1, color="black", linestyle="--", linewidth=0.8)
    ax.set_xticks(range(len(categories)), categories)
    ax.set_xlim(-0.5, max(len(categories), 1) - 0.5)
    ax.set_ylabel("mass inside over area")
    if len(by_model):
        ax.legend(frameon=False, fontsize=7)
    else:
        ax.text(0.5, 0.5, "no patch with a deficient fibre", ha="center", transform=ax.transAxes)
    return ax


def restored(
    patch_yx: np.ndarray, labels_yx: np.ndarray, fibres: pd.DataFrame, *, axes: Sequence[Axes], name: str
) -> Sequence[Axes]:
    """A patch; its deficient fibres coloured by what restoring each does; the same against the map.

    patch_yx: 0-255; labels_yx: fibre numbers at the section's resolution; fibres: columns fibre, effect, relevance.
    """
    image(patch_yx, ax=axes[0], title="patch")
    effect_yx = np.full(labels_yx.shape, np.nan)
    for row in fibres.itertuples():
        effect_yx[labels_yx == row.fibre] = row.effect
    bound = float(fibres["effect"].abs().max()) if len(fibres) else 0.0
    shown = axes[1].imshow(effect_yx, cmap="RdBu_r", vmin=-(bound or 1), vmax=bound or 1, interpolation="nearest")
    axes[1].set_title('fall of the log odds of "patient"', fontsize=9)
    axes[1].set_xticks([])
    axes[1].set_yticks([])
    axes[1].figure.colorbar(shown, ax=axes[1], shrink=0.8).ax.tick_params(labelsize=7)
    axes[2].plot(fibres["relevance"], fibres["effect"], "o", color="#444444", markersize=4)
    axes[2].axhline(0, color="black", linewidth=0.6)
    axes[2].set_xlabel(f"mean of {name} over the fibre", fontsize=8)
    axes[2].set_ylabel("fall of the log odds", fontsize=8)
    axes[2].tick_params(labelsize=7)
    axes[2].locator_params(axis="x", nbins=4)
    return axes


def contact_sheet(patches_nyx: np.ndarray, rows: pd.DataFrame, *, axes: np.ndarray) -> np.ndarray:
    """Thumbnails in reading order, framed in the colour of their class, the subject above; rows: subject, label."""
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, patch_yx, row in zip(axes.flat, patches_nyx, rows.itertuples(), strict=False):
        ax.imshow(patch_yx, cmap="gray", vmin=0, vmax=255)
        ax.set_axis_on()
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set(color=LABEL_COLOURS[row.label], linewidth=2.5)
        ax.set_title(row.subject, fontsize=7, pad=2, color=LABEL_COLOURS[row.label])
    return axes


def cosines(matrix: pd.DataFrame, *, ax: Axes, title: str = "") -> Axes:
    """A square table of cosines, or correlations, between -1 and 1, with its numbers."""
    sns.heatmap(
        matrix, vmin=-1, vmax=1, cmap="RdBu_r", annot=True, fmt=".2f", annot_kws={"size": 7}, square=True, ax=ax,
        cbar=False,
    )  # fmt: skip
    ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=8)
    return ax


def concept_scores(scores: pd.DataFrame, *, ax: Axes) -> Axes:
    """The score of every patch on each axis, by class. scores: columns axis, label, score."""
    sns.stripplot(
        scores, x="axis", y="score", hue="label", palette=LABEL_COLOURS, hue_order=list(LABELS), dodge=True,
        size=3, alpha=0.6, ax=ax,
    )  # fmt: skip
    ax.set_xlabel("axis of")
    ax.set_ylabel("score of the patch")
    ax.legend(frameon=False, fontsize=8, title=None, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return ax


def trajectories(ranks: pd.DataFrame, *, axes: Sequence[Axes]) -> Sequence[Axes]:
    """The way of each sample through the layers, one panel per label, on the two axes of that label's concept and the
    other's: percentile rank among the patches. ranks: columns label, sample, layer, and one per concept (two)."""
    first, second = LABELS
    for ax, (label, rows) in zip(axes, ranks.groupby("label", sort=False), strict=True):
        for s, (_, way) in enumerate(rows.groupby("sample", sort=False)):
            colour = sns.color_palette("colorblind")[s]
            ax.plot(way[first], way[second], "-o", color=colour, markersize=4, linewidth=1, alpha=0.8)
            for n, point in enumerate(way.itertuples(), start=1):
                ax.annotate(str(n), (getattr(point, first), getattr(point, second)), fontsize=8, color=colour,
                            xytext=(3, 3), textcoords="offset points")  # fmt: skip
        ax.plot([0, 100], [0, 100], color="#bbbbbb", linewidth=0.8, zorder=0)
        ax.set_xlim(-4, 104)
        ax.set_ylim(-4, 104)
        ax.set_aspect("equal")
        ax.set_title(f"patches of {label}s", fontsize=9, color=LABEL_COLOURS[label])
        ax.set_xlabel(f"rank on the axis of {first}, %", fontsize=8)
        ax.set_ylabel(f"rank on the axis of {second}, %", fontsize=8)
        ax.tick_params(labelsize=8)
    return axes


def by_arm(values: pd.DataFrame, *, level: float, ax: Axes) -> Axes:
    """A dot for each seed, a row for each arm. values: columns arm, value; dashed: `level`."""
    sns.stripplot(values, x="value", y="arm", color="#0072B2", size=5, alpha=0.7, jitter=0, ax=ax)
    ax.axvline(level, color="black", linestyle="--", linewidth=0.8)
    ax.set_ylabel("")
    ax.grid(axis="y", color="#eeeeee")
    ax.set_axisbelow(True)
    return ax


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
