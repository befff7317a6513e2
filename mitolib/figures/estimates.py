"""Values with their intervals, as several chapters draw them."""

from __future__ import annotations

from collections.abc import Mapping

import seaborn as sns
from matplotlib.axes import Axes

from mitolib.metrics import Estimate


def intervals(scores: Mapping[str, Mapping[str, Estimate]], *, level: float, ax: Axes) -> Axes:
    """Value and interval of each method, one colour per model; dashed: the level of chance.

    scores: model -> method -> estimate; a value of None is left out, an interval of None is not drawn.
    """
    methods = list(dict.fromkeys(method for by_method in scores.values() for method in by_method))
    colours = sns.color_palette("colorblind", len(scores))
    markers = "osD^vPX"
    for m, (model, by_method) in enumerate(scores.items()):
        defined = {method: score for method, score in by_method.items() if score.value is not None}
        offset = (m - (len(scores) - 1) / 2) * 0.17
        y = [methods.index(method) + offset for method in defined]
        values = [score.value for score in defined.values()]
        ends = [score.ci or (score.value,) * 2 for score in defined.values()]
        ax.hlines(y, [end[0] for end in ends], [end[1] for end in ends], color=colours[m], linewidth=1.3)
        ax.plot(values, y, markers[m % len(markers)], color=colours[m], markersize=4, label=model)
    ax.axvline(level, color="black", linestyle="--", linewidth=0.8)
    ax.set_yticks(range(len(methods)), methods)
    ax.set_ylim(len(methods) - 0.4, -0.6)
    ax.grid(axis="y", color="#eeeeee")
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=8, ncols=len(scores), loc="lower center", bbox_to_anchor=(0.5, 1))
    return ax
