"""Diagrams of the study and its methods: each function draws one figure from the numbers it is given.

Nothing here saves or shows. Each fills a whole figure of the size that SIZES gives, so that one unit of its axes is one
inch. The clouds of points beside them on the page are drawn by `mitolib.figures.whitening`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.text import Text
from toy import GradCAM

from mitolib.figures.style import FROZEN, LABEL_COLOURS, LARGE, NORMAL, SMALL, TRAINED
from mitolib.figures.whitening import signed_number
from mitolib.settings import LABELS

SIZES = {
    "study": (8, 5.4),
    "gradcam": (8, 5.1),
    "whitened_network": (8, 5.3),
    "package": (8, 5),
}  # inches: width, height
RESNET18 = (  # stage, residual blocks, map size as a part of the picture's, channels (He 2016, table 1)
    ("stem", 0, 4, 64),
    ("stage 1", 2, 4, 64),
    ("stage 2", 2, 8, 128),
    ("stage 3", 2, 16, 256),
    ("stage 4", 2, 32, 512),
)
WHITENING, WINDOW = "#CC79A7", "#F0E442"
READER = "#cfe3f5"  # what reads pictures
PLAIN, BAND, TINT, INK, PALE = "#ffffff", "#f1f3f5", "#f8eaf1", "#333333", "#666666"


def study(
    *,
    ax: Axes,
    people: Mapping[str, int],
    proteins: Sequence[str],
    patch_px: int,
    input_px: int,
    splits: Mapping[str, Mapping[str, Mapping[str, int]]],
    picture_yx: np.ndarray,
    heat_yx: np.ndarray,
) -> Axes:
    """From pictures to explanation in five columns, a band for each experiment.

    people: subjects of each class. splits: {experiment: {set: {label: patches}}}, first the experiment on `proteins[0]`
    alone, then the one on all. picture_yx, heat_yx: a drawing of fibres and a heat map of it, as thumbnails.
    """
    width, height = _sheet(ax, "study")
    headings = {0.1: "1  Pictures", 1.72: "2  Patches", 3.2: "3  Split", 5.2: "4  Networks", 6.8: "5  Explanation"}
    for x, text in headings.items():
        _heading(ax, x, height - 0.22, text)
    bands = ((2.32, 2.72), (0.4, 1.8))  # bottom, height
    titles = (f"Experiment 1: {proteins[0]} alone", f"Experiment 2: all {len(proteins)} proteins, stacked")
    for (bottom, tall), title in zip(bands, titles, strict=True):
        ax.add_patch(Rectangle((1.62, bottom), width - 1.67, tall, color=BAND, zorder=0))
        _say(ax, 1.72, bottom + tall - 0.07, title, size=NORMAL, weight="bold")
        _arrow(ax, (1.36, bottom + tall / 2), (1.6, bottom + tall / 2))

    _deck(ax, picture_yx, 0.1, 3.85, 0.9, len(proteins))
    for y, (label, count) in zip((3.75, 3.57), people.items(), strict=True):
        _say(ax, 0.1, y, f"{count} {label}s", color=LABEL_COLOURS[label], size=NORMAL, weight="bold")
    subjects = sum(people.values())
    _say(ax, 0.1, 3.31, f"each in {len(proteins)} proteins,\n{subjects * len(proteins)} pictures:")
    _say(ax, 0.1, 2.95, "\n".join(proteins), color=PALE)

    most = max(sum(part.values()) for counts in splits.values() for part in counts.values())
    shrunk = f"shrunk to {input_px} x {input_px}"
    for middle, counts, depth in zip((3.66, 1.32), splits.values(), (1, len(proteins)), strict=True):
        _deck(ax, picture_yx, 1.75, middle - 0.36, 0.72, depth)
        for shift in (0.05, 0.21):
            _window(ax, 1.75 + shift, middle - 0.28, 0.36)
        total = sum(sum(part.values()) for part in counts.values())
        _say(ax, 1.72, middle - 0.44, f"{total:,} patches,\n{patch_px} x {patch_px} px,\n{shrunk}")
        _arrow(ax, (2.86, middle), (3.14, middle))
        _split_bars(ax, counts, 3.2, middle, most=most)
        _arrow(ax, (4.86, middle), (5.14, middle))

    networks = {4.36: "VGG16", 3.66: "ResNet-50", 2.96: "ResNet-18", 1.32: f"VGG16, {len(proteins)} ch."}
    for y, name in networks.items():
        _network(ax, 5.2, y - 0.17, name, whitened=name == "ResNet-18")
        _arrow(ax, (6.53, y), (6.77, y))
    _say(ax, 5.2, 2.6, "each answers: control or patient?", color=PALE)
    _say(ax, 5.2, 0.96, "answers: control or patient?", color=PALE)
    _thumbnail(ax, picture_yx, 6.8, 4.1, 0.52)
    _thumbnail(ax, heat_yx, 6.8, 4.1, 0.52, cmap="inferno", alpha=0.6)
    _say(ax, 7.37, 4.36, "where?\nGrad-CAM", va="center")
    _say(ax, 6.8, 3.66, "not explained", va="center", color=PALE)
    _axes_icon(ax, 6.85, 2.74, 0.44)
    _say(ax, 7.37, 2.96, "what?\nconcept\naxes", va="center")
    _say(ax, 6.8, 1.32, "not explained", va="center", color=PALE)
    _key(ax, 1.62, 0.15, {"frozen, from ImageNet": FROZEN, "trained": TRAINED, "concept whitening (CW)": WHITENING})
    return ax


def gradcam(example: GradCAM, *, ax: Axes, score: str = "patient") -> Axes:
    """Grad-CAM in seven steps, each shown on the made-up example: forward, backward, weights, sum, ReLU, overlay."""
    _, height = _sheet(ax, "gradcam")
    input_px, map_px = len(example.picture_yx), example.maps_kyx.shape[-1]
    _heading(ax, 0.1, height - 0.22, "1  Forward: the picture gives maps, the maps give a score")
    _thumbnail(ax, example.picture_yx, 0.1, 3.78, 0.9)
    _say(ax, 0.1, 3.72, f"{input_px} x {input_px} px")
    _box(ax, 1.3, 3.98, 1.1, 0.5, "convolutions\nof VGG16", FROZEN)
    _arrow(ax, (1.05, 4.23), (1.28, 4.23))
    _arrow(ax, (2.42, 4.23), (2.65, 4.23))

    limit = np.abs(example.gradients_kyx).max()
    signed = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    for k, x in enumerate((2.7, 3.8, 4.9)):
        _thumbnail(ax, example.maps_kyx[k], x, 3.78, 0.9, cmap="viridis", vmin=0, vmax=1)
        _say(ax, x + 0.45, 3.72, f"map {k + 1}:\n{example.names[k]}", ha="center")
        _thumbnail(ax, example.gradients_kyx[k], x, 2.28, 0.9, **signed)
        _say(ax, x + 0.45, 2.22, f"weight {k + 1}:\n{signed_number(example.weights[k])}", ha="center", weight="bold")
    _box(ax, 6.1, 3.98, 0.75, 0.5, "dense\nlayers", TRAINED)
    _box(ax, 7.13, 3.98, 0.8, 0.5, f"score of\n“{score}”", PLAIN)
    _arrow(ax, (5.85, 4.23), (6.08, 4.23))
    _arrow(ax, (6.87, 4.23), (7.11, 4.23))
    _arrow(ax, (7.53, 3.95), (5.85, 2.73), bend="down")
    _heading(ax, 0.1, 3.06, "2  Backward: gradients")
    _say(ax, 5.95, 2.63, "gradient: would the score rise\n(orange) or fall (purple) if the\nmap rose at that place?")
    _heading(ax, 0.1, 2.72, "3  Their mean: weights")
    verdict = f"does it speak\nfor (+) or against (−) “{score}”?"
    _say(ax, 0.1, 2.64, f"One number for each map of\n{map_px} x {map_px} places: {verdict}")
    _arrow(ax, (2.62, 2.02), (0.55, 1.84), bend="across")

    for x, title in ((0.1, "4  Weighted sum"), (2.2, "5  ReLU"), (4.3, "6  Enlarge"), (6.4, "7  Overlay")):
        _heading(ax, x, 1.65, title)
        _arrow(ax, (x - 0.95, 1.1), (x - 0.2, 1.1)) if x > 1 else None
    _thumbnail(ax, example.sum_yx, 0.1, 0.65, 0.9, **signed)
    _say(ax, 0.1, 0.58, "weight 1 x map 1\n+ weight 2 x map 2\n+ weight 3 x map 3")
    heat = {"cmap": "inferno", "vmin": 0, "vmax": example.heat_yx.max()}
    _thumbnail(ax, example.positive_yx, 2.2, 0.65, 0.9, **heat)
    _say(ax, 2.2, 0.58, f"what speaks against\n“{score}” becomes 0")
    _thumbnail(ax, example.heat_yx, 4.3, 0.65, 0.9, **heat)
    _say(ax, 4.3, 0.58, f"from {map_px} x {map_px}\nto {input_px} x {input_px}")
    _thumbnail(ax, example.picture_yx, 6.4, 0.65, 0.9)
    _thumbnail(ax, example.heat_yx, 6.4, 0.65, 0.9, alpha=0.6, **heat)
    _say(ax, 6.4, 0.58, f"bright: what counted\nfor “{score}”")
    return ax


def whitened_network(
    *, ax: Axes, input_px: int, stages: Sequence[tuple[str, int, int, int]] = RESNET18, concepts: Sequence[str] = LABELS
) -> Axes:
    """ResNet-18 with concept whitening: the whole network, its last block opened, and what whitening does inside.

    stages: name, residual blocks, how many times smaller than the picture the map is, channels.
    """
    width, height = _sheet(ax, "whitened_network")
    _heading(ax, 0.1, height - 0.22, "The network: a ResNet-18")
    _key(ax, 4.1, height - 0.22, {"trained": TRAINED, "concept whitening": WHITENING, "nothing to learn": PLAIN})
    y = 4.1
    _box(ax, 0.1, y, 0.68, 0.6, "patch", PLAIN)
    _say(ax, 0.44, y + 0.64, f"{input_px} x {input_px}", ha="center", va="bottom")
    x = 0.93
    for name, blocks, shrink, channels in stages:
        wide = 0.98 if blocks else 0.68
        side = input_px // shrink
        _arrow(ax, (x - 0.14, y + 0.3), (x - 0.01, y + 0.3))
        _box(ax, x, y, wide, 0.6, name, BAND if blocks else TRAINED, lift=0.17 if blocks else 0)
        for k in range(blocks):
            last = name == stages[-1][0] and k == blocks - 1
            _box(ax, x + 0.07 + 0.43 * k, y + 0.06, 0.41, 0.26, "block", WHITENING if last else TRAINED)
        _say(ax, x + wide / 2, y + 0.64, f"{side} x {side},\n{channels} maps", ha="center", va="bottom")
        x += wide + 0.15
    _arrow(ax, (x - 0.14, y + 0.3), (x - 0.01, y + 0.3))
    _box(ax, x, y, 0.68, 0.6, "average,\ndense", TRAINED)
    _arrow(ax, (x + 0.69, y + 0.3), (x + 0.81, y + 0.3))
    _box(ax, x + 0.82, y, width - x - 0.92, 0.6, " or\n".join(concepts) + "?", PLAIN)

    ax.add_patch(Rectangle((0.1, 2.28), width - 0.2, 1.42, color=BAND, zorder=0))
    _zoom(ax, (x - 0.63, x - 0.22), y + 0.06, (0.1, width - 0.1), 3.7)
    _heading(ax, 0.2, 3.5, "Its last block, opened")
    parts = (
        ("convolution", 0.95, TRAINED),
        ("concept\nwhitening", 1.1, WHITENING),
        ("ReLU", 0.55, PLAIN),
        ("convolution", 0.95, TRAINED),
        ("batch\nnorm", 0.65, TRAINED),
        ("+", 0.3, PLAIN),
        ("ReLU", 0.55, PLAIN),
    )
    y, x = 2.5, 0.75
    left = {}
    _arrow(ax, (0.2, y + 0.2), (x - 0.01, y + 0.2))
    for name, wide, colour in parts:
        _box(ax, x, y, wide, 0.4, name, colour)
        left[name] = x
        x += wide + 0.3
        _arrow(ax, (x - 0.29, y + 0.2), (x - 0.01, y + 0.2))
    plus_x = left["+"] + 0.15
    ax.plot([0.45, 0.45, plus_x], [y + 0.2, y + 0.76, y + 0.76], color=INK, linewidth=1, zorder=1)
    _arrow(ax, (plus_x, y + 0.76), (plus_x, y + 0.41))
    _say(ax, 5.2, y + 0.72, "shortcut: the input passes by", ha="center")
    _say(ax, left["concept\nwhitening"] + 0.55, y + 0.44, "replaces batch norm", ha="center", va="bottom")

    ax.add_patch(Rectangle((0.1, 0.1), width - 0.2, 1.9, color=TINT, zorder=0))
    _zoom(ax, (left["concept\nwhitening"], left["concept\nwhitening"] + 1.1), y, (0.1, width - 0.1), 2.0)
    _heading(ax, 0.2, 1.78, "Concept whitening, opened")
    y, side = 0.78, input_px // stages[-1][2]
    _arrow(ax, (0.2, y + 0.38), (0.5, y + 0.38))
    _box(
        ax,
        0.51,
        y,
        2.15,
        0.76,
        "1  whitening\ncentre every map, remove the\ncorrelation between maps,\nmake every variance 1",
        WHITENING,
    )
    _arrow(ax, (2.67, y + 0.38), (2.97, y + 0.38))
    _box(
        ax,
        2.98,
        y,
        2.15,
        0.76,
        "2  rotation\nturn the axes until each\nconcept lies along one\naxis of its own",
        WHITENING,
    )
    _arrow(ax, (5.14, y + 0.38), (5.44, y + 0.38))
    named = "\n".join(f"map {k}: “{name}”" for k, name in enumerate(concepts, 1))
    _box(ax, 5.45, y, 1.9, 0.76, f"{side} x {side}, {stages[-1][3]} maps\n{named}\nthe others: no name", PLAIN)
    _arrow(ax, (7.36, y + 0.38), (7.75, y + 0.38))
    for x, source in (
        (1.58, "learned from every\ntraining patch"),
        (4.05, "learned from patches chosen\nto show a concept"),
    ):
        _arrow(ax, (x, y - 0.22), (x, y - 0.02))
        _say(ax, x, y - 0.26, source, ha="center")
    _say(ax, 6.4, y - 0.26, "score of a concept: its map,\npooled to one number", ha="center")
    return ax


def package(
    *,
    ax: Axes,
    wings: Mapping[str, str],
    core: Sequence[str],
    readers: Sequence[str],
    arrows: Collection[tuple[str, str]],
) -> Axes:
    """The layers of the package: the book above, the wings in the middle, the core below, and who calls whom.

    wings: name -> what it is for, "images" first. core: its modules; readers: those that read through "images".
    arrows: pairs (caller, called) of "command", "chapters", "machinery", wings and "core"; between wings only those to
    "images" are drawn.
    """
    width, _ = _sheet(ax, "package")
    margin, gap = 0.7, 0.12  # room for the names of the layers; between two wings
    top, middle, bottom = 4.1, 2.2, 1.35  # lower edges of book and wings, upper edge of the core
    tops = {
        "command": (margin, 1.7, "python -m mitolib\nfor a folder of your own"),
        "chapters": (2.5, 3.3, "chapters\nnotebooks/"),
        "machinery": (5.9, 2.0, "pages, and their making\nbook/_ext, book/_tools"),
    }
    for y, layer in ((top + 0.25, "book"), (middle + 0.65, "wings"), (bottom / 2 + 0.05, "core")):
        _say(ax, 0.1, y, layer, size=LARGE, va="center", weight="bold")
    for x, wide, text in tops.values():
        _box(ax, x, top, wide, 0.5, text, PLAIN)

    wide = (width - 0.1 - margin - gap * (len(wings) - 1)) / len(wings)
    left = {wing: margin + i * (wide + gap) for i, wing in enumerate(wings)}
    for wing, purpose in wings.items():
        lines = textwrap.wrap(purpose, width=int(wide * 14.5), break_on_hyphens=False)
        text = "\n".join([rf"$\bf{{{wing}}}$", *lines])
        _box(ax, left[wing], middle, wide, 1.3, text, READER if wing == "images" else TINT)

    ax.add_patch(Rectangle((margin, 0.1), width - 0.1 - margin, bottom - 0.1, color=BAND, zorder=0))
    n_columns = -(-len(core) // 3)
    step = (width - 0.2 - margin) / n_columns
    for i, name in enumerate(core):
        row, column = divmod(i, n_columns)
        colour = READER if name in readers else PLAIN
        _box(ax, margin + 0.09 + column * step, 0.96 - 0.38 * row, step - 0.08, 0.29, name, colour)

    for caller, (x, box_wide, _) in tops.items():
        for wing in (wing for wing in wings if (caller, wing) in arrows):
            centre = left[wing] + wide / 2
            _arrow(ax, (min(max(centre, x + 0.1), x + box_wide - 0.1), top), (centre, middle + 1.31))
        if (caller, "core") in arrows:  # through the gap between two wings
            gaps = [left[wing] - gap / 2 for wing in wings if x < left[wing] < x + box_wide]
            _arrow(ax, (gaps[-1], top), (gaps[-1], bottom + 0.01))
    for wing, x in left.items():
        if (wing, "core") in arrows:
            _arrow(ax, (x + wide / 2, middle), (x + wide / 2, bottom + 0.01))
    bus = (middle + bottom) / 2
    entry = left["images"] + 0.8 * wide
    for wing in (wing for wing in wings if (wing, "images") in arrows):
        start = left[wing] + 0.25 * wide
        ax.plot([start, start, entry], [middle, bus, bus], color=INK, linewidth=1, linestyle="--", zorder=1)
        _arrow(ax, (entry, bus), (entry, middle - 0.01))
    if ("core", "images") in arrows:
        _arrow(ax, (left["images"] + 0.2 * wide, bottom), (left["images"] + 0.2 * wide, middle - 0.01))
    return ax


def _sheet(ax: Axes, name: str) -> tuple[float, float]:
    """Make the axes the whole figure, one unit an inch; return width and height."""
    width, height = SIZES[name]
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.autoscale(False)
    ax.set_axis_off()
    return width, height


def _say(ax: Axes, x: float, y: float, text: str, *, size: float = SMALL, va: str = "top", **style) -> Text:
    return ax.text(x, y, text, fontsize=size, va=va, linespacing=1.15, **({"color": INK} | style))


def _heading(ax: Axes, x: float, y: float, text: str) -> Text:
    return _say(ax, x, y, text, size=LARGE, va="baseline", weight="bold")


def _box(ax: Axes, x: float, y: float, wide: float, tall: float, text: str, colour: str, *, lift: float = 0) -> None:
    """A box with its text in the middle, or `lift` above it; gid "inside" and "box" pair them for the tests."""
    shape = FancyBboxPatch((x, y), wide, tall, boxstyle="round,pad=0,rounding_size=0.05", facecolor=colour)
    shape.set(edgecolor=INK, linewidth=0.8, zorder=2, gid=f"box {text}")
    ax.add_patch(shape)
    label = _say(ax, x + wide / 2, y + tall / 2 + lift, text, ha="center", va="center", color="black", zorder=3)
    label.set_gid(f"box {text}")


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], *, bend: str = "") -> None:
    """A straight arrow, or one that goes "down" or "across" first and then turns."""
    style = {"": "arc3", "down": "angle,angleA=90,angleB=0", "across": "angle,angleA=0,angleB=90"}[bend]
    look = {"arrowstyle": "-|>", "mutation_scale": 8, "color": INK, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle=style, zorder=1, **look))


def _thumbnail(ax: Axes, image_yx: np.ndarray, x: float, y: float, side: float, cmap: str = "gray", **style) -> None:
    ax.imshow(image_yx, extent=(x, x + side, y, y + side), cmap=cmap, zorder=2, interpolation="nearest", **style)
    ax.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=INK, linewidth=0.8, zorder=2.5))


def _deck(ax: Axes, image_yx: np.ndarray, x: float, y: float, side: float, depth: int) -> None:
    """A picture with `depth` - 1 others showing behind it."""
    for k in range(depth - 1, 0, -1):
        corner = (x + 0.025 * k, y + 0.025 * k)
        ax.add_patch(Rectangle(corner, side, side, facecolor="#8a8a8a", edgecolor=PLAIN, linewidth=0.7))
    _thumbnail(ax, image_yx, x, y, side)


def _zoom(ax: Axes, small: tuple[float, float], y: float, large: tuple[float, float], y_large: float) -> None:
    """Dotted lines from the lower corners of a small thing to the upper ones of its enlargement."""
    for xs in zip(small, large, strict=True):
        ax.plot(xs, (y, y_large), color=PALE, linewidth=0.9, linestyle=":", zorder=2.2)


def _window(ax: Axes, x: float, y: float, side: float) -> None:
    """The place of a patch in a picture, as in `figures.cohort.patch_grid`."""
    ax.add_patch(Rectangle((x, y), side, side, facecolor=WINDOW, alpha=0.4, zorder=4))
    ax.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=WINDOW, linewidth=1.8, zorder=4))


def _split_bars(ax: Axes, counts: Mapping[str, Mapping[str, int]], x: float, y: float, *, most: int) -> None:
    """Three rows around height y: set, bar of controls and patients (`most` patches fill it), the two counts."""
    for k, (name, count) in enumerate(counts.items()):
        row = y + 0.3 * (1 - k)
        _say(ax, x, row, "training" if name == "train" else name, va="center")
        start = x + 0.66
        for label in LABELS:
            wide = 0.42 * count[label] / most
            ax.add_patch(Rectangle((start, row - 0.08), wide, 0.16, color=LABEL_COLOURS[label], linewidth=0, zorder=2))
            start += wide
        _say(ax, x + 1.34, row, f"{count[LABELS[0]]}", va="center", ha="right", color=LABEL_COLOURS[LABELS[0]])
        _say(ax, x + 1.62, row, f"{count[LABELS[1]]}", va="center", ha="right", color=LABEL_COLOURS[LABELS[1]])


def _network(ax: Axes, x: float, y: float, name: str, *, whitened: bool) -> None:
    """Body and head: frozen and trained, or trained throughout with concept whitening at its end."""
    _box(ax, x, y, 0.96, 0.34, name, TRAINED if whitened else FROZEN)
    _box(ax, x + 0.96, y, 0.36, 0.34, "CW" if whitened else "head", WHITENING if whitened else TRAINED)


def _axes_icon(ax: Axes, x: float, y: float, side: float) -> None:
    """Two axes with a few points along each."""
    _arrow(ax, (x, y), (x + side, y))
    _arrow(ax, (x, y), (x, y + side))
    for label, (dx, dy) in zip(LABELS, ((1, 0.12), (0.12, 1)), strict=True):
        along = side * np.array([0.35, 0.55, 0.75])
        ax.plot(x + dx * along, y + dy * along, "o", color=LABEL_COLOURS[label], markersize=3)


def _key(ax: Axes, x: float, y: float, colours: Mapping[str, str]) -> None:
    """Named colours in a row from x on."""
    for name, colour in colours.items():
        ax.add_patch(Rectangle((x, y), 0.16, 0.13, facecolor=colour, edgecolor=INK, linewidth=0.8))
        _say(ax, x + 0.22, y + 0.065, name, va="center")
        x += 0.5 + 0.068 * len(name)
