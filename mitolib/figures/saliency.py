"""Figures of saliency maps and of what was tested on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from mitolib.figures.cohort import WIDTH_IN, image
from mitolib.figures.style import LABEL_COLOURS


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
        top = max(float(stack[i].max()) for stack in maps.values()) or 1.0
        axes[i, 1].imshow(maps[row.predicted][i], cmap="jet", alpha=0.45, vmin=0, vmax=top)
        for ax, (name, stack) in zip(axes[i, 2:], maps.items(), strict=True):
            picture = ax.imshow(stack[i], cmap="viridis", vmin=0, vmax=top)
            ax.set_title(f"map for {name}" + ("" if stack[i].any() else ": empty"), fontsize=9)
            ax.set_axis_off()
        axes[i, -1].figure.colorbar(picture, ax=axes[i, -1], shrink=0.85, format="%.2g").ax.tick_params(labelsize=7)
        for ax in (axes[i, 0], *axes[i, 2:]):
            _outline(masks_nyx[i], ax)
    return axes


def _outline(mask_yx: np.ndarray, ax: Axes) -> None:
    """Border of a mask; nothing where it is empty, of which matplotlib would warn."""
    if mask_yx.any() and not mask_yx.all():
        ax.contour(mask_yx, levels=[0.5], colors="#FF6F91", linewidths=0.7)


def map_gallery(
    patches_nyx: np.ndarray, maps: Mapping[str, np.ndarray], masks_nyx: np.ndarray, *, fig: Figure
) -> list[np.ndarray]:
    """One method per row, one patch per column, the patches above; of few patches two such blocks side by side.

    maps: method -> (N, H, W), 0-1 for display. fig: empty, with constrained layout; its size is set here. Returns the
    axes of each block.
    """
    n, names = len(patches_nyx), list(maps)
    n_blocks = 2 if n <= 3 and len(names) > 3 else 1
    n_rows = -(-len(names) // n_blocks)
    side_in = WIDTH_IN / (n_blocks * (n + 1.1))  # of a picture; the names take as much as one
    height_in, of_bar_in = side_in * (n_rows + 1), 0.7
    fig.set_size_inches(WIDTH_IN, height_in + of_bar_in)
    above, below = fig.subfigures(2, 1, height_ratios=[height_in, of_bar_in])
    blocks = []
    for i, block in enumerate(np.atleast_1d(above.subfigures(1, n_blocks))):
        axes = block.subplots(n_rows + 1, n, squeeze=False)
        part = names[i * n_rows : (i + 1) * n_rows]
        _map_rows(patches_nyx, {name: maps[name] for name in part}, masks_nyx, axes=axes)
        blocks.append(axes)
    bar = below.add_axes((0.3, 0.65, 0.4, 0.2))
    label = "each map, 0 to its greatest value"
    below.colorbar(ScalarMappable(cmap="viridis"), cax=bar, orientation="horizontal", label=label)
    return blocks


def _map_rows(
    patches_nyx: np.ndarray, maps: Mapping[str, np.ndarray], masks_nyx: np.ndarray, *, axes: np.ndarray
) -> None:
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    for ax in axes[1 + len(maps) :].flat:
        ax.set_axis_off()
    for ax, patch_yx, mask_yx in zip(axes[0], patches_nyx, masks_nyx, strict=True):
        ax.imshow(patch_yx, cmap="gray", vmin=0, vmax=255)
        _outline(mask_yx, ax)
    for row, (name, stack) in zip(axes[1:], maps.items(), strict=False):
        for ax, map_yx, mask_yx in zip(row, stack, masks_nyx, strict=True):
            ax.imshow(map_yx, cmap="viridis", vmin=0, vmax=1)
            if not map_yx.any():
                ax.text(0.5, 0.5, "empty", color="white", ha="center", va="center", transform=ax.transAxes)
            _outline(mask_yx, ax)
        row[0].set_ylabel(name.replace(" ", "\n", 1), fontsize=9, rotation=0, ha="right", va="center")
    axes[0, 0].set_ylabel("patch", fontsize=9, rotation=0, ha="right", va="center")


def cascade(by_seed: pd.DataFrame, *, others: Mapping[str, float], ax: Axes) -> Axes:
    """How alike maps stay while stage after stage is drawn anew: a thin line for each seed, a thick one for their mean.

    by_seed: index seed and stage, from the top down; columns ssim and spearman. others: the same for maps of different
    patches, dotted: below that line a map has nothing left of what the trained network gave.
    """
    similarity = by_seed.groupby(level="stage", sort=False).mean()
    for name, words, colour in (("ssim", "SSIM", "#0072B2"), ("spearman", "rank correlation", "#CC79A7")):
        for _, of_seed in by_seed[name].groupby(level="seed"):
            ax.plot(range(len(of_seed)), of_seed, color=colour, linewidth=0.6, alpha=0.5)
        defined = np.flatnonzero(similarity[name].notna())  # without a value where all maps are empty
        ax.plot(defined, similarity[name].iloc[defined], "o-", color=colour, label=words)
        ax.axhline(others[name], color=colour, linestyle=":", linewidth=1.2, label=f"{words}, different patches")
    ax.set_xticks(range(len(similarity)), similarity.index, rotation=45, ha="right", fontsize=8)
    ax.set_ylabel("alike to the trained network's map")
    ax.set_xlabel("weights drawn anew down to")
    ax.set_ylim(min(-0.5, float(np.nanmin(by_seed)) - 0.05), 1.05)
    ax.legend(frameon=False, fontsize=8)
    return ax


def falls(likeness: pd.Series, others: Mapping[str, float], *, ax: Axes) -> Axes:
    """How alike the maps of several methods stay while stage after stage is drawn anew, each named at its line's end.

    likeness: index method and stage, from the top down. others: the same of maps of different patches, as a dash at the
    right edge.
    """
    stages = list(likeness.index.unique("stage"))
    for colour, (method, line) in zip(sns.color_palette("colorblind"), likeness.groupby(level="method"), strict=False):
        values = line.droplevel("method").reindex(stages).to_numpy()
        ax.plot(range(len(stages)), values, "o-", color=colour, markersize=4, label=method)
        ax.plot([len(stages) - 0.15, len(stages) + 0.15], [others[method]] * 2, color=colour, linewidth=2.5)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(range(len(stages) + 1), [*stages, "another\npatch"], rotation=45, ha="right", fontsize=8)
    ax.set_ylabel("rank correlation with\nthe trained network's map")
    ax.set_xlabel("weights drawn anew down to")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def handed_down(left: pd.Series, *, ax: Axes) -> Axes:
    """Share of the score that is left below each layer, a line for each method. left: index method and layer."""
    layers = list(left.index.unique("layer"))
    for colour, (method, line) in zip(sns.color_palette("colorblind"), left.groupby(level="method"), strict=False):
        ax.plot(
            range(len(layers)), line.droplevel("method").reindex(layers), "o-", color=colour, markersize=4, label=method
        )
    ax.axhline(1, color="black", linestyle="--", linewidth=0.8)
    ax.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=8)
    ax.set_ylabel("share of the score left")
    ax.set_xlabel("below layer, from the score down to the pixels")
    ax.legend(frameon=False, fontsize=8)
    return ax


def strata(scores: pd.DataFrame, *, ax: Axes) -> Axes:
    """Score of each patch by stratum, a dot each, and the mean as a bar. scores: columns stratum, score, model.

    Strata stand in the order of their categories, or of their first row; models in that of theirs, or of the alphabet.
    Dashed: a score of 0, chance.
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
    ax.axhline(0, color="black", linestyle="--", linewidth=0.8)
    ax.set_xticks(range(len(categories)), categories)
    ax.set_xlim(-0.5, max(len(categories), 1) - 0.5)
    ax.set_ylabel("AUPRC, less chance")
    if len(by_model):
        ax.legend(frameon=False, fontsize=7)
    else:
        ax.text(0.5, 0.5, "no patch with a deficient fibre", ha="center", transform=ax.transAxes)
    return ax


def strata_panels(scores: pd.DataFrame, *, axes: Sequence[Axes]) -> Sequence[Axes]:
    """`strata` by the deficient share of the patch, and by the size of its deficient fibres.

    scores: a row per patch, columns model, score, "by share" and "by size".
    """
    titles = {"by share": "deficient share of the patch", "by size": "size of its deficient fibres"}
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        strata(scores.rename(columns={column: "stratum"}), ax=ax)
        ax.set_title(title, fontsize=9)
    return axes


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
    picture = axes[1].imshow(effect_yx, cmap="RdBu_r", vmin=-(bound or 1), vmax=bound or 1, interpolation="nearest")
    axes[1].set_title('fall of the log odds of "patient"', fontsize=9)
    axes[1].set_xticks([])
    axes[1].set_yticks([])
    axes[1].figure.colorbar(picture, ax=axes[1], shrink=0.8).ax.tick_params(labelsize=7)
    axes[2].plot(fibres["relevance"], fibres["effect"], "o", color="#444444", markersize=4)
    axes[2].axhline(0, color="black", linewidth=0.6)
    axes[2].set_xlabel(f"mean of {name} over the fibre", fontsize=8)
    axes[2].set_ylabel("fall of the log odds", fontsize=8)
    axes[2].tick_params(labelsize=7)
    axes[2].locator_params(axis="x", nbins=4)
    return axes
