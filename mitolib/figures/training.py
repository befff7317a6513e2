"""Figures and tables of networks, and of how they were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from pandas.io.formats.style import Styler

from mitolib import metrics, paper
from mitolib.figures.cohort import image
from mitolib.figures.style import FROZEN, LABEL_COLOURS, TRAINED
from mitolib.settings import LABELS, Profile

if TYPE_CHECKING:  # importing these takes TensorFlow
    import keras

    from mitolib.transfer import TrainedHead


def summary(model: keras.Model) -> pd.DataFrame:
    """One row per layer: layer, type, output (shape without the batch), parameters, trained."""
    return pd.DataFrame(
        [
            {
                "layer": layer.name,
                "type": type(layer).__name__,
                "output": " x ".join(str(n) for n in layer.output.shape[1:]),
                "parameters": layer.count_params(),
                "trained": bool(layer.trainable_weights),
            }
            for layer in model.layers
        ]
    )


def layers(summary: pd.DataFrame, *, ax: Axes) -> Axes:
    """A model's layers from input to output: parameters as bars, shape of each stage's output.

    summary: of `summary`. Frozen layers are drawn together by stage
    (`block1`, `conv2`, ...), the head's one by one.
    """
    stage = summary["layer"].where(summary["trained"], summary["layer"].str.split("_").str[0])
    stages = (
        summary.assign(stage=stage)
        .groupby("stage", sort=False)
        .agg(output=("output", "last"), parameters=("parameters", "sum"), trained=("trained", "any"))
        .reset_index()
    )
    positions, longest = np.arange(len(stages)), stages["parameters"].max()
    colours = [TRAINED if trained else FROZEN for trained in stages["trained"]]
    ax.barh(positions, stages["parameters"], color=colours)
    ax.set_xlim(0, 1.7 * longest)  # room for the text beside the longest bar
    for position, row in zip(positions, stages.itertuples(), strict=True):
        text = f"{row.parameters:,}   → {row.output}"
        ax.text(row.parameters + 0.02 * longest, position, text, va="center", fontsize=9)
    ax.set_yticks(positions, stages["stage"])
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M")
    ax.set_xlabel("parameters, and shape of the output")
    trained = stages.loc[stages["trained"], "parameters"].sum()
    ax.set_title(f"{trained:,} of {stages['parameters'].sum():,} parameters are trained", fontsize=10, loc="left")
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in (FROZEN, TRAINED)]
    ax.legend(handles, ["frozen", "trained"], loc="lower right", frameon=False)
    return ax


def curves(histories: Sequence[pd.DataFrame], *, axes: Sequence[Axes], baseline: float) -> Sequence[Axes]:
    """Accuracy on the first axis, loss on the second, training and validation by epoch.

    histories: of trainings to be compared, as `heads.fit` gives them; the first is drawn thick, the others thin.
    baseline: validation accuracy of always answering the more common class.
    """
    for ax, name in zip(axes, ("accuracy", "loss"), strict=True):
        for i, history in reversed(list(enumerate(histories))):
            drawn = {"linewidth": 0.7, "alpha": 0.6} if i else {"linewidth": 1.8}
            ax.plot(history.index, history[name], color="#444444", label=None if i else "training", **drawn)
            ax.plot(history.index, history[f"val_{name}"], color="#CC79A7", label=None if i else "validation", **drawn)
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


def right_and_wrong(calls: pd.DataFrame, n: int, *, seed: int) -> pd.DataFrame:
    """At most n test patches, drawn at random: of each class recognised and missed ones in turn, sorted by both.

    calls: test patches with p_patient and predicted, as `transfer.TrainedHead.calls` gives them.
    """
    mixed = calls.sample(frac=1, random_state=seed)
    turn = mixed.groupby(["label", "predicted"]).cumcount()
    return mixed.iloc[np.argsort(turn, kind="stable")[:n]].sort_values(["label", "predicted"])


def predictions(patches_nyx: np.ndarray, rows: pd.DataFrame, *, axes: np.ndarray) -> np.ndarray:
    """One patch per axis with its truth, the probabilities of both classes and whether the call is right.

    patches_nyx: (N, H, W) 0-255; rows: columns subject, label, p_patient, predicted, in the same order.
    """
    for ax in axes.flat:
        ax.set_axis_off()  # a test set may hold fewer patches than there are axes
    for ax, patch_yx, row in zip(axes.flat, patches_nyx, rows.itertuples(), strict=False):
        image(patch_yx, ax=ax)
        right = row.label == row.predicted
        ax.set_title(f"{row.subject}, a {row.label}", fontsize=9, color=LABEL_COLOURS[row.label])
        p = f"control {1 - row.p_patient:.2f}, patient {row.p_patient:.2f}"
        verdict = f"{p}:\n{'right' if right else 'WRONG'}"
        ax.text(0.5, -0.03, verdict, ha="center", va="top", fontsize=9, transform=ax.transAxes)
    return axes


SPREAD = ("accuracy", "balanced_accuracy", "auc", "generalisation_gap", "most_common_call", "epochs")


def spread(seeds: pd.DataFrame) -> pd.DataFrame:
    """Table of SPREAD for each seed, their mean and standard deviation, and where one further training would lie.

    seeds: one row per seed, columns of scores, epochs and generalisation gap, as `transfer.TrainedNetwork.seeds` gives
    it. One seed has neither deviation nor interval, and the table says so.
    """
    seeds = seeds[[name for name in SPREAD if name in seeds]]
    numbers = {name: "{:.0f}" if name == "epochs" else "{:.2f}" for name in seeds}
    rows = {
        str(seed): {name: numbers[name].format(value) for name, value in row.items()} for seed, row in seeds.iterrows()
    }
    for title, statistic in (("mean", seeds.mean()), ("standard deviation", seeds.std())):
        rows[title] = {name: numbers[name].format(value) for name, value in statistic.items()}
    rows["one further training"] = {
        name: "{:.2f} to {:.2f}".format(*(metrics.further_training(seeds[name], within=within).ci or (nan, nan)))
        for name, within in metrics.RANGES.items()
        if name in seeds
    }
    table = pd.DataFrame(rows).T.rename_axis("seed").replace(["nan", "nan to nan"], "one seed").fillna("")
    return table.rename(columns=lambda name: name.replace("_", " ").replace("auc", "AUC"))


def depths(models: Mapping[str, Mapping[str, Any]]) -> Styler:
    """Table of what is trained at which rate and how it scores. models: as in the results file of freezing."""
    columns = ["trained", "learning_rate", "trainable", "accuracy", "balanced_accuracy", "epochs"]
    table = pd.DataFrame(models).T[columns].set_index(["trained", "learning_rate"])
    table.index.names = ["trained", "learning rate"]
    table.columns = ["trained parameters", "accuracy", "balanced accuracy", "epochs"]
    return table.style.format(precision=2).format("{:,}", subset="trained parameters").format_index("{:g}", level=1)


def finding(trained: TrainedHead) -> str:
    """A sentence of Markdown on one training: how often it is right on the test patches."""
    return (
        "**{network}**, seed {seed}: accuracy on the test patches {accuracy:.1%}, balanced accuracy "
        "{balanced_accuracy:.1%}; majority-class baseline {majority_baseline:.1%}."
    ).format(network=trained.network, seed=trained.frozen.profile.seed, **trained.scores)


def hyperparameters(profile: Profile) -> pd.DataFrame:
    """Table 3 and what the text adds beside what a run takes, as text: one row per hyperparameter."""
    names = ("epochs", "patience", "batch_size", "learning_rate", "views", "zoom", "seed", "n_seeds")
    table = pd.DataFrame({"paper": paper.HYPERPARAMETERS, "this run": {name: getattr(profile, name) for name in names}})
    words = {"n_seeds": "trainings", "views": "augmented views", "rotation_degrees": "rotation in degrees"}
    table.index = [words.get(name, name.replace("_", " ")) for name in table.index]
    return table.fillna({"paper": "not given", "this run": "as in the paper"}).astype(str)


def score_table(models: Mapping[str, Any], experiment: str, *, published: bool = True) -> pd.DataFrame:
    """Published scores above ours, as text. models: the `models` entry of a results file.

    Of several trainings: their mean, and below it where one further training would lie.
    """
    means = {
        model: entry | {name: further.value for name, further in entry.get("further_training", {}).items()}
        for model, entry in models.items()
    }
    rows = {}
    for (model, source), row in paper.compare_scores({"models": means}, experiment, published=published).iterrows():
        further = models[model].get("further_training", {}) if source != "paper" else {}
        intervals = {name: further[name].ci for name in row.index if name in further and further[name].ci}
        ours = f"mean of {len(models[model]['seeds'])} trainings" if intervals else "one training"
        numbers = row.map(lambda value: "not given" if np.isnan(value) else f"{value:.2f}")
        rows[model, "paper" if source == "paper" else ours] = numbers
        if intervals:
            ends = {name: "{:.2f} to {:.2f}".format(*ci) for name, ci in intervals.items()}
            rows[model, "one further training"] = pd.Series(ends, row.index).fillna("")
    table = pd.DataFrame(rows).T.rename_axis(["model", "source"])
    return table.rename(columns=lambda name: name.replace("_", " "))
