"""Figures of pictures, sections and the patch grid, and the pictures that the chapter on data puts into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pandas.io.formats.style import Styler

from mitolib import paper, patches
from mitolib.cohort import Section, read_truth
from mitolib.figures.style import DEFICIENCY_COLOURS
from mitolib.study import Experiment

TRUTH_SHOWN = ("P03", "P07", "P08")  # few fibres deficient, complex I, and both complexes
WIDTH_IN = 8  # of the page


def patch_counts(cohorts: Mapping[str, Sequence[Section]], experiments: Sequence[Experiment]) -> pd.DataFrame:
    """Patches of each class: a row for each label, columns (experiment, key of `cohorts`). Raises as `patches.grid`."""
    columns = {
        (experiment.name, name): patches.grid(
            sections, size_px=experiment.patch_px, stride_px=experiment.stride_px
        ).value_counts("label")
        for experiment in experiments
        for name, sections in cohorts.items()
    }
    return pd.DataFrame(columns)


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


def contact_sheet(
    images: Mapping[str, np.ndarray], *, columns: int = 5, row_height: float = 2.0, absent: str = ""
) -> str:
    """Title -> (H, W) picture, in rows of `columns`, on a new figure of pyplot as wide as the page.

    row_height: in inches. Returns "" where it drew, and the sentence `absent` where there are no pictures.
    """
    if not images:
        return absent
    shape = -(-len(images) // columns), min(len(images), columns)
    figsize = WIDTH_IN, row_height * shape[0]
    _, axes = plt.subplots(*shape, figsize=figsize, layout="constrained", squeeze=False)
    gallery(images, axes=axes)
    return ""


def table(rows: pd.DataFrame, *, absent: str, formats: str | None = None) -> pd.DataFrame | Styler | Markdown:
    """The rows as a page shows them, or the sentence `absent` where there are none.

    formats: of the numbers, as of pandas' Styler; None leaves them to pandas.
    """
    if not len(rows):
        return Markdown(absent)
    if formats is None:
        return rows
    return rows.style.format(formats, na_rep="not measured")


def windows(section: Section, proteins: Sequence[str], *, size_px: int = 512) -> dict[str, np.ndarray]:
    """Protein -> (size_px, size_px) uint8: the same window of a section, at half its height and near its left edge."""
    y, x = max(0, section.height_px // 2 - size_px // 2), min(128, section.width_px // 8)
    return {protein: section.image_yx(protein)[y : y + size_px, x : x + size_px] for protein in proteins}


def augmented(
    rows: pd.DataFrame,
    sections: Sequence[Section],
    protein: str,
    *,
    stride_px: int,
    zoom: tuple[float, float],
    rng: np.random.Generator,
    n_copies: int = 4,
) -> dict[str, np.ndarray]:
    """Title -> (224, 224) uint8: a patch at either end of the cohort as the network sees it, and augmented copies.

    rows: patches with a column `tissue`; training patches alone are taken where a column `split` tells them, and those
    full of tissue where there are two.
    """
    if "split" in rows:
        rows = rows.query("split == 'train'")
    full = rows.query("tissue > 0.6")
    examples = (full if len(full) > 1 else rows).sort_index().iloc[[0, -1]]
    patches_nhwc = patches.load(examples, sections, [protein], stride_px=stride_px)
    copies = [patches.augment(patches_nhwc, zoom=zoom, rng=rng) for _ in range(n_copies)]
    return {
        f"{label}, {f'copy {number}' if number else 'patch'}": stack_nhwc[i, ..., 0]
        for i, label in enumerate(examples["label"])
        for number, stack_nhwc in enumerate((patches_nhwc, *copies))
    }


def split_counts(counts: Mapping[str, Mapping[str, Mapping[str, int]]], *, published: bool) -> pd.DataFrame:
    """Experiment -> set -> label -> patches, as one table, below the paper's where `published`; empty without any."""
    tables = {name: compare_splits(of_sets, name, published=published) for name, of_sets in counts.items()}
    return pd.concat(tables) if tables else pd.DataFrame()


def deficiency_maps(root: Path, sections: Sequence[Section]) -> str:
    """`deficiency` of three sections, with its key, on a new figure of pyplot.

    Returns "" where it drew, and the sentence why not for data without truth.
    """
    names = [section.section for section in sections]
    chosen = [name for name in names if name in TRUTH_SHOWN] or names[-3:]
    truths = {name: read_truth(root, name) for name in chosen}
    if any(truth is None for truth in truths.values()):
        return "Left out: nobody knows the deficient fibres of these data."
    fig, axes = plt.subplots(1, len(truths), figsize=(WIDTH_IN, 3.8), layout="constrained", squeeze=False)
    for ax, (name, truth) in zip(axes.flat, truths.items(), strict=True):
        deficiency(truth, ax=ax).set_title(name)
    deficiency_key(fig=fig)
    return ""


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


def patch_tiles(image_yx: np.ndarray, rows: pd.DataFrame, *, ax: Axes, n: int = 3) -> Axes:
    """The patches of the first n rows and columns of a section's grid, moved apart, so that what they share shows."""
    upper, left = (np.unique(rows[axis])[:n] for axis in ("y", "x"))
    size = int(rows["size"].iloc[0])
    step = size + size // 12
    sheet_yx = np.full((len(upper) * step, len(left) * step), 255, image_yx.dtype)  # white between them
    for i, y in enumerate(upper):
        for j, x in enumerate(left):
            patch_yx = image_yx[y : y + size, x : x + size]
            sheet_yx[i * step :, j * step :][: patch_yx.shape[0], : patch_yx.shape[1]] = patch_yx
    return image(sheet_yx, ax=ax)


def compare_splits(counts: Mapping[str, Mapping[str, int]], experiment: str, *, published: bool = True) -> pd.DataFrame:
    """Patch counts of a run, with totals, below those of Table 1 or 2 where they are of the paper's cohort."""
    ours = {"this run": paper.with_totals(counts)}
    return pd.concat(({"published": paper.split_table(experiment)} if published else {}) | ours)
