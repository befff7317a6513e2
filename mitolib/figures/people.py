"""Figures of the honest evaluation: what patches share, what twins do, what few people can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mitolib.cohort import Section
from mitolib.figures.cohort import image
from mitolib.figures.estimates import intervals
from mitolib.figures.style import COVERED, LABEL_COLOURS, NORMAL, SMALL
from mitolib.metrics import Estimate

ERRORS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)  # ticks of a logarithmic axis
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
    handles = [Line2D([], [], color=colour, marker="o", markersize=4) for colour in LABEL_COLOURS.values()]
    names = ["control, then afflicted", "patient, then cured"]
    fig.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL)
    return fig


def twins(effects: pd.DataFrame, *, ax: Axes, title: str = "") -> Axes:
    """p(patient) of each subject and of its twin, joined. effects: columns label, before, after, by subject."""
    for row in effects[::-1].itertuples():  # the few controls on top
        ax.plot([0, 1], [row.before, row.after], "o-", color=LABEL_COLOURS[row.label], markersize=4, linewidth=1)
        ax.annotate(
            row.Index, (0, row.before), (-4, 0), textcoords="offset points", ha="right", va="center", fontsize=6
        )
    ax.axhline(0.5, color="black", linestyle="--", linewidth=0.8)
    ax.set_xticks([0, 1], ["itself", "its twin"])
    ax.set_xlim(-0.35, 1.25)
    ax.set_ylim(-0.03, 1.03)
    ax.set_title(title, fontsize=9)
    return ax


def curves(
    estimates: Mapping[str, Mapping[str, Mapping[int, Estimate]]], *, steps: int, names: Mapping[str, str], fig: Figure
) -> Figure:
    """Balanced accuracy against the steps of training: a panel for each head, a line with intervals for each split.

    estimates: head -> split -> steps -> value and interval. steps: the budget of the chapter, a dotted line. names:
    split -> what it is called. Dashed: one half, which is chance.
    """
    axes = fig.subplots(1, len(estimates), sharey=True, squeeze=False)[0]
    for ax, (head, by_split) in zip(axes, estimates.items(), strict=True):
        for number, (split, by_steps) in enumerate(by_split.items()):
            colour = sns.color_palette("colorblind")[number]
            points = list(by_steps)
            ends = [of.ci or (of.value, of.value) for of in by_steps.values()]
            ax.fill_between(points, *zip(*ends, strict=True), color=colour, alpha=0.15, linewidth=0)
            values = [of.value for of in by_steps.values()]
            ax.plot(points, values, "os"[number % 2] + "-", color=colour, markersize=4, label=names.get(split, split))
        ax.axhline(0.5, color="black", linestyle="--", linewidth=0.8)
        ax.axvline(steps, color="0.4", linestyle=":", linewidth=1)
        ax.set_xscale("log")
        ax.set_ylim(0.2, 1.03)
        ax.set_xlabel("steps of training")
        ax.set_title(head, fontsize=9)
    axes[0].set_ylabel("balanced accuracy of patches")
    axes[0].legend(frameon=False, loc="lower right", fontsize=8)
    return fig


def grey_levels(by_protein: Mapping[str, Mapping[str, np.ndarray]], *, fig: Figure) -> Figure:
    """Histograms of grey levels, a panel for each protein, a line for each group of people or twins.

    by_protein: protein -> group -> (256,) share of the pixels; a sentence where it is empty.
    """
    if not by_protein:
        sentence("Left out: these data have no twins.", ax=fig.subplots())
        return fig
    axes = fig.subplots(1, len(by_protein), sharey=True, squeeze=False)[0]
    styles = {
        "controls": (LABEL_COLOURS["control"], "-"),
        "patients": (LABEL_COLOURS["patient"], "-"),
        "cured": (LABEL_COLOURS["patient"], ":"),
        "afflicted": (LABEL_COLOURS["control"], ":"),
    }
    for ax, (protein, by_group) in zip(axes, by_protein.items(), strict=True):
        for group, shares in by_group.items():
            colour, line = styles[group]
            ax.plot(np.cumsum(shares), line, color=colour, label=group, linewidth=1.4)
        ax.set_title(protein, fontsize=9)
        ax.set_xlabel("grey level")
    axes[0].set_ylabel("share of the pixels up to it")
    axes[0].legend(frameon=False, fontsize=8)
    return fig


def fall_by_share(by_model: Mapping[str, pd.DataFrame], *, fig: Figure) -> Figure:
    """By how much the cure lowers p against the share of deficient fibres: a panel for each model, named points.

    by_model: model -> a row for each patient, by name, with share (0 to 1) and fall; a sentence where it is empty.
    """
    if not by_model:
        sentence("Left out: these data have no twins.", ax=fig.subplots())
        return fig
    axes = fig.subplots(1, len(by_model), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (model, patients) in zip(axes, by_model.items(), strict=True):
        ax.plot(100 * patients["share"], patients["fall"], "o", color=LABEL_COLOURS["patient"], markersize=4)
        for name, row in patients.iterrows():
            at = (100 * row["share"], row["fall"])
            ax.annotate(name, at, (3, 3), textcoords="offset points", fontsize=SMALL)
        ax.axhline(0, color="black", linestyle="--", linewidth=0.8)
        ax.set_xlabel("deficient fibres, %")
        ax.set_title(model, fontsize=9)
    axes[0].set_ylabel("fall of p(patient) by the cure")
    return fig


def precision_by_size(intervals: pd.DataFrame, *, ax: Axes) -> Axes:
    """Exact 95 % interval against the number of subjects, a band for each true share. Columns share, n, low, high."""
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


def side_by_side(
    groups: Mapping[str, Sequence[Section]], proteins: Sequence[str], *, size_px: int = 384
) -> dict[str, np.ndarray]:
    """Title -> (size_px, size_px) window in the middle of a section: of each group a control and a patient, in turn.

    groups: name -> sections, the controls among them first.
    """
    found = {}
    for group, sections in groups.items():
        for section in (sections[0], sections[-1]):
            y, x = (max(0, side - size_px) // 2 for side in (section.height_px, section.width_px))
            for protein in proteins:
                title = f"{group}: {section.subject}, {protein}"
                found[title] = section.image_yx(protein)[y : y + size_px, x : x + size_px]
    return found


def on_one_scale(scores: Mapping[str, Mapping[str, Estimate]], baselines: Mapping[str, float], *, ax: Axes) -> Axes:
    """Accuracy of each network where it was scored, a colour for each place; grey: the majority class of that place.

    scores: place -> network -> value and interval. baselines: place -> accuracy of always giving the commoner class.
    """
    intervals(scores, level=0.5, ax=ax)
    for colour, level in zip(sns.color_palette("colorblind", len(scores)), baselines.values(), strict=True):
        ax.axvline(level, color=colour, linestyle=":", linewidth=1)
    ax.set_xlim(-0.03, 1.03)
    ax.set_xlabel("accuracy; dotted: always the commoner class")
    return ax


def calibration(by_model: Mapping[str, list[Mapping[str, float]]], *, fig: Figure) -> Figure:
    """Share of patients against the mean probability, a panel for each model; dashed: where both are equal.

    by_model: model -> bins with p, patients (0 to 1) and n.
    """
    columns = min(4, len(by_model))
    axes = fig.subplots(-(-len(by_model) // columns), columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(by_model) :]:
        ax.set_axis_off()
    for ax, (model, bins) in zip(axes.flat, by_model.items(), strict=False):
        ax.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=0.8)
        ax.plot([row["p"] for row in bins], [row["patients"] for row in bins], "o-", color="#0072B2", markersize=4)
        ax.set_title(model, fontsize=SMALL)
        ax.set_xlim(-0.03, 1.03)
        ax.set_ylim(-0.03, 1.03)
    fig.supxlabel("mean p(patient) of a fifth of the people", fontsize=NORMAL)
    fig.supylabel("share of patients among them", fontsize=NORMAL)
    return fig


def by_cohort_size(
    groups: Mapping[str, Mapping[str, Mapping[int, Estimate]]],
    *,
    ylabel: str,
    fig: Figure,
    least: float | None = None,
    level: float | None = None,
) -> Figure:
    """A score against the number of people trained on, a panel for each group, a line with intervals for each model.

    groups: group -> model -> n -> value and interval. least: of a logarithmic axis, values below it are drawn there;
    None for a linear one from 0 to 1. level: a dashed line.
    """
    columns = min(3, len(groups))
    axes = fig.subplots(-(-len(groups) // columns), columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(groups) :]:
        ax.set_axis_off()
    for ax, (group, by_model) in zip(axes.flat, groups.items(), strict=False):
        for number, (model, by_size) in enumerate(by_model.items()):
            defined = {n: score for n, score in by_size.items() if score.value is not None}
            ends = [score.ci or (score.value, score.value) for score in defined.values()]
            colour = sns.color_palette("colorblind")[number]
            lows, highs = np.array(ends).reshape(-1, 2).clip(min=least or 0).T
            ax.fill_between(list(defined), lows, highs, color=colour, alpha=0.12, linewidth=0)
            values = [max(score.value, least or 0) for score in defined.values()]
            ax.plot(list(defined), values, "osD^vPX"[number % 7] + "-", color=colour, markersize=4, label=model)
        if level is not None:
            ax.axhline(level, color="black", linestyle="--", linewidth=0.8)
        ax.set_xscale("log")
        ticks = sorted({n for by_size in by_model.values() for n in by_size})
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.minorticks_off()
        if least is not None:
            ax.set_yscale("log")
            ax.set_yticks(shown := [tick for tick in ERRORS if tick >= least], [f"{tick:g}" for tick in shown])
            ax.minorticks_off()
            ax.set_ylim(least * 0.9, 1)
        else:
            ax.set_ylim(-0.03, 1.03)
        ax.set_title(group, fontsize=NORMAL)
        ax.legend(frameon=False, fontsize=SMALL, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    fig.supxlabel("people trained on", fontsize=NORMAL)
    fig.supylabel(ylabel, fontsize=NORMAL)
    return fig
