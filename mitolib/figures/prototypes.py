"""Figures of prototype networks: a patch explained by examples, and all prototypes as a table with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw

from mitolib.figures.style import SMALL
from mitolib.figures.viewers import data_uri, outlined
from mitolib.metrics import Estimate

SQUARES = (("#FFD400", 1.6), ("#56B4E9", 1.1), ("#FFFFFF", 0.9))  # colour and width: cell, half of relevance, field
SHEET_PX = 96  # side of a picture in the table of prototypes
VALUE = "#0072B2"  # of a value and its interval
PER_ROW = 5  # pictures of the contact sheet
COLUMNS = {  # of the table of prototypes: heading -> entries of a prototype's row; the second one in brackets
    "class": ("child",),
    "person (section)": ("subject", "section"),
    "weight to patient": ("weight",),
    "fibre under the centre": ("fibre",),
    "purity (at random)": ("purity", "purity_at_random"),
    "share of test patches led": ("share_top",),
}


class Picture(Protocol):
    """A patch, its deficient fibres, and a place in it; see `prototypes.shown.Shown`."""

    picture_yx: np.ndarray  # (H, W) uint8
    deficient_yx: np.ndarray  # (H, W) bool
    place_yx: tuple[float, float]
    squares_px: tuple[float, float, float]
    title: str


def place(shown: Picture, *, ax: Axes) -> Axes:
    """A patch with the three squares around its place, deficient fibres outlined in pink."""
    ax.imshow(outlined(shown.picture_yx, shown.deficient_yx))
    height, width = shown.picture_yx.shape
    _squares(shown, ax=ax)
    ax.set_xlim(0, width - 1)
    ax.set_ylim(height - 1, 0)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(shown.title, fontsize=SMALL)
    return ax


def _squares(shown: Picture, *, ax: Axes) -> None:
    y, x = shown.place_yx
    for side, (colour, line) in zip(shown.squares_px, SQUARES, strict=True):
        ax.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, fill=False, edgecolor=colour, linewidth=line))


def explained(
    pairs: Sequence[tuple[Picture, Picture]], maps: np.ndarray, *, highest: float, axes: np.ndarray
) -> np.ndarray:
    """A row for each prototype: the place in the patch, its similarity map, and the prototype.

    maps: (n, side, side), all on one scale from 0 to `highest`.
    axes: (n, 3).
    """
    for (this, that), map_yx, row in zip(pairs, maps, axes, strict=True):
        place(this, ax=row[0])
        row[1].imshow(map_yx, cmap="viridis", vmin=0, vmax=highest, interpolation="nearest")
        row[1].set_xticks([])
        row[1].set_yticks([])
        row[1].set_title(f"similarity, 0 (dark) to {highest:.1f}", fontsize=SMALL)
        place(that, ax=row[2])
    return axes


def contact_sheet(pictures: Sequence[Picture], *, axes: np.ndarray) -> np.ndarray:
    """All prototypes in rows of PER_ROW, each in the training patch that it comes from. axes: (rows, PER_ROW)."""
    for ax in axes.ravel():
        ax.axis("off")
    for shown, ax in zip(pictures, axes.ravel(), strict=False):
        place(shown, ax=ax)
        ax.axis("on")
    return axes


def sheet_rows(n: int) -> int:
    """Rows of a contact sheet of n prototypes."""
    return -(-n // PER_ROW)


def looked_at(found: Sequence[Any], *, highest: float, axes: np.ndarray) -> np.ndarray:
    """A row for each patch: its place, the similarity map with the box that ProtoPNet draws, and relevance.

    found: see `prototypes.shown.Looked`. axes: (n, 3). Relevance is shown as its square root, so that faint parts are
    seen too.
    """
    for patch, (first, second, third) in zip(found, axes, strict=True):
        height, width = patch.shown.picture_yx.shape
        place(patch.shown, ax=first)
        extent = (0, width, height, 0)
        second.imshow(patch.similarity, cmap="viridis", vmin=0, vmax=highest, interpolation="bicubic", extent=extent)
        top, bottom, left, right = (end * height for end in patch.box)
        box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="#D55E00", linewidth=1.6)
        second.add_patch(box)
        second.set_title(f"similarity, 0 to {highest:.1f}, and box", fontsize=SMALL)
        third.imshow(patch.relevance**0.5, cmap="magma", vmin=0, vmax=1, extent=extent)
        _squares(patch.shown, ax=third)
        third.set_title("relevance at the pixels (PRP)", fontsize=SMALL)
        for ax in (second, third):
            ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    return axes


def panels(
    scores: Mapping[str, Mapping[str, Estimate]], levels: Mapping[str, float], *, axes: Sequence[Axes]
) -> Sequence[Axes]:
    """One panel for each score, all with the same rows. scores: heading -> map -> estimate; dashed: levels, if any."""
    names = list(dict.fromkeys(name for of_score in scores.values() for name in of_score))
    if not names:
        axes[0].axis("off")
        axes[0].set_title(next(iter(scores)), fontsize=SMALL)
        return axes
    for (heading, of_score), ax in zip(scores.items(), axes, strict=True):
        for y, name in enumerate(names):
            score = of_score.get(name)
            if score is not None and score.value is not None:
                low, high = score.ci or (score.value,) * 2
                ax.plot([low, high], [y, y], color=VALUE, linewidth=1.4)
                ax.plot(score.value, y, "o", color=VALUE, markersize=4)
        if heading in levels:
            ax.axvline(levels[heading], color="black", linestyle="--", linewidth=0.8)
        ax.set_yticks(range(len(names)), names if ax is axes[0] else [])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_title(heading, fontsize=SMALL)
        ax.tick_params(labelsize=SMALL)
        ax.locator_params(axis="x", nbins=4)
        ax.grid(axis="y", color="#eeeeee")
    return axes


def prototype_table(rows: Sequence[Mapping[str, Any]], pictures: Sequence[Picture]) -> str:
    """HTML: a closed box with a row and a picture for each prototype; `book/_static/site.js` sorts it by any column.

    rows: of a prototype table. The picture holds everything inside the page; without scripts the table is static.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("picture", *COLUMNS))
    body = []
    for row, shown in zip(rows, pictures, strict=True):
        entry = {**row, "weight": row["weights"]["patient"]}
        cells = "".join(_cell(*(entry[key] for key in keys)) for keys in COLUMNS.values())
        alt = f"Patch of {row['subject']}, with squares around the place of prototype {row['prototype']}"
        size = f'width="{SHEET_PX}" height="{SHEET_PX}" loading="lazy" decoding="async"'
        image = f'<img src="{data_uri(_thumbnail(shown))}" {size} alt="{escape(alt)}">'
        body.append(f'<tr><td data-sort="{row["prototype"]}">{image}<br>{row["prototype"]}</td>{cells}</tr>')
    table = f'<table class="mito-sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    title = "Every prototype with its numbers (press a heading to sort)"
    return f'<details class="mito-sheet"><summary>{title}</summary><div tabindex="0">{table}</div></details>'


def _cell(value: object, *beside: object) -> str:
    if value is None:
        return '<td data-sort="">-</td>'
    text = " ".join([_text(value), *(f"({_text(other)})" for other in beside if other is not None)])
    return f'<td data-sort="{escape(str(value))}">{escape(text)}</td>'


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _thumbnail(shown: Picture) -> np.ndarray:
    """(SHEET_PX, SHEET_PX, 3) uint8."""
    whole = Image.fromarray(outlined(shown.picture_yx, shown.deficient_yx))
    scale = SHEET_PX / whole.width
    small = whole.resize((SHEET_PX, SHEET_PX), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(small)
    y, x = (scale * value for value in shown.place_yx)
    for side, (colour, _) in zip(shown.squares_px, SQUARES, strict=True):
        half = scale * side / 2
        draw.rectangle((x - half, y - half, x + half, y + half), outline=colour)
    return np.asarray(small)
