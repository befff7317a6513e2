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

SQUARES = (("#FFD400", 1.6), ("#56B4E9", 1.1), ("#FFFFFF", 0.9))  # colour and width: cell, half of relevance, field
SHEET_PX = 192  # side of a picture in the contact sheet
COLUMNS = {  # of the contact sheet: heading -> entry of a prototype's row
    "number": "prototype",
    "class": "child",
    "person": "subject",
    "section": "section",
    "weight to patient": "weight",
    "fibre under the centre": "fibre",
    "deficient share of the cell": "deficient_in_cell",
    "deficient share of the field": "deficient_in_field",
    "purity": "purity",
    "at random": "purity_at_random",
    "share of test patches led": "share_top",
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
    y, x = shown.place_yx
    for side, (colour, line) in zip(shown.squares_px, SQUARES, strict=True):
        ax.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, fill=False, edgecolor=colour, linewidth=line))
    ax.set_xlim(0, width - 1)
    ax.set_ylim(height - 1, 0)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(shown.title, fontsize=SMALL)
    return ax


def explained(
    pairs: Sequence[tuple[Picture, Picture]], maps: np.ndarray, *, highest: float, axes: np.ndarray
) -> np.ndarray:
    """A row for each prototype: the place in the patch, its similarity map, and the prototype.

    maps: (n, side, side), all on one scale from 0 to `highest`, the similarity of a place with itself.
    axes: (n, 3).
    """
    for (this, that), map_yx, row in zip(pairs, maps, axes, strict=True):
        place(this, ax=row[0])
        row[1].imshow(map_yx, cmap="viridis", vmin=0, vmax=highest, interpolation="nearest")
        row[1].set_xticks([])
        row[1].set_yticks([])
        row[1].set_title(f"similarity, 0 to {highest:.1f}", fontsize=SMALL)
        place(that, ax=row[2])
    return axes


def contact_sheet(rows: Sequence[Mapping[str, Any]], pictures: Sequence[Picture]) -> str:
    """HTML: a table with a picture for each prototype; `book/_static/site.js` sorts it by any column.

    rows: of a prototype table. The picture holds everything inside the page; without scripts the table is static.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("picture", *COLUMNS))
    body = []
    for row, shown in zip(rows, pictures, strict=True):
        entry = {**row, "weight": row["weights"]["patient"]}
        cells = "".join(_cell(entry[key]) for key in COLUMNS.values())
        alt = f"Patch of {row['subject']}, with squares around the place of prototype {row['prototype']}"
        size = f'width="{SHEET_PX}" height="{SHEET_PX}" loading="lazy" decoding="async"'
        image = f'<img src="{data_uri(_thumbnail(shown))}" {size} alt="{escape(alt)}">'
        body.append(f"<tr><td>{image}</td>{cells}</tr>")
    table = f'<table class="mito-sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'<div class="mito-sheet" tabindex="0">{table}</div>'


def _cell(value: object) -> str:
    if value is None:
        return '<td data-sort="">-</td>'
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return f'<td data-sort="{escape(str(value))}">{escape(text)}</td>'


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
