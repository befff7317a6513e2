"""Pictures a reader can play with: arrays -> one piece of HTML that needs no file, no server and no network.

The HTML holds every picture, with words for those who cannot see it, and shows them all; `book/_static/site.js`
turns that into a viewer where scripts run. Pictures are WebP in data URIs: a page of eight patches stays under 1 MB.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from mitolib.cohort import Section
from mitolib.patches import resize

QUALITY = 70  # of WebP: at 75 and above the grain of the tissue costs more than it shows
PALETTE = colormaps["viridis"]  # even steps: it invents no borders
MIXTURE = ("NDUFB8", "VDAC1", "Dystrophin")  # complex I against mitochondrial mass, and the outlines of the fibres
TOO_FEW = "Left out: a colour picture takes three proteins."
OUTLINE = (255, 111, 145)  # the pink of `saliency.explained`

Truth = tuple[np.ndarray, pd.Series]  # fibre numbers (H, W), deficiency class by number


def overlays(
    patches_nyx: np.ndarray, maps: Mapping[str, np.ndarray], masks_nyx: np.ndarray | None, rows: pd.DataFrame
) -> str:
    """HTML: for each patch the patch, the map of the predicted class over it, and the deficient fibres outlined.

    patches_nyx: (N, H, W) 0-255. maps: class -> (N, H, W), raw. masks_nyx: (N, H, W) bool, or None where there is no
    truth: that layer is then left out. rows: columns subject, label, p_patient, predicted. A patch's map is coloured
    from 0 to the greatest value of either class's map, as in `saliency.explained`; where it is 0 tissue shows through.
    """
    cases = []
    for i, row in enumerate(rows.itertuples()):
        highest = max(float(maps_nyx[i].max()) for maps_nyx in maps.values()) or 1.0
        map_yx = maps[row.predicted][i] / highest
        verdict = "right" if row.predicted == row.label else "wrong"
        title = f"{row.subject}, a {row.label}: p(patient) {row.p_patient:.2f}, {verdict}"
        empty = "" if map_yx.any() else " (empty)"
        layers = {"patch": patches_nyx[i], f"map for {row.predicted}{empty}": heat(patches_nyx[i], map_yx)}
        if masks_nyx is not None:
            none = "" if masks_nyx[i].any() else " (none here)"
            layers[f"deficient fibres{none}"] = outlined(patches_nyx[i], masks_nyx[i])
        pictures = "".join(_picture(pixels, name, f"{name}; {title}") for name, pixels in layers.items())
        cases.append(f'<div class="mito-case"><p>{escape(title)}</p><div class="mito-layers">{pictures}</div></div>')
    return f'<div class="mito-viewer" data-viewer="overlays">{"".join(cases)}</div>'


def mixer(image_yxc: np.ndarray, proteins: Sequence[str], *, start: Sequence[str], name: str) -> str:
    """HTML: one picture per protein, and three of them mixed as red, green and blue.

    image_yxc: (H, W, C) uint8, channels in the order of `proteins`. start: the three mixed at first. name: what it is
    a picture of, for the alt texts. Of fewer than three proteins it is a sentence that says so.
    """
    if len(proteins) < 3:
        return f"<p>{TOO_FEW}</p>"
    mixed = mix(image_yxc, proteins, start)
    words = ", ".join(f"{protein} {colour}" for protein, colour in zip(start, ("red", "green", "blue"), strict=True))
    singles = "".join(_picture(image_yxc[..., c], p, f"{p} in {name}") for c, p in enumerate(proteins))
    return (
        f'<div class="mito-viewer" data-viewer="mixer" data-start="{escape(" ".join(start))}" data-of="{escape(name)}">'
        f'<div class="mito-mixed">{_picture(mixed, words, f"{words}, in {name}")}</div>'
        f'<div class="mito-channels">{singles}</div></div>'
    )


def still(image_yxc: np.ndarray, proteins: Sequence[str], *, start: Sequence[str], name: str, ax: Axes) -> Axes:
    """The mixture that `mixer` starts with, as a still picture; of fewer than three proteins the sentence."""
    ax.set_axis_off()
    if len(proteins) < 3:
        ax.text(0.5, 0.5, TOO_FEW, ha="center", wrap=True, transform=ax.transAxes)
        return ax
    ax.imshow(mix(image_yxc, proteins, start))
    ax.set_title(f"{name}: {', '.join(start)} in red, green, blue", fontsize=9)
    return ax


def mix(image_yxc: np.ndarray, proteins: Sequence[str], three: Sequence[str]) -> np.ndarray:
    """(H, W, 3) uint8: three of the proteins as red, green and blue. Raises ValueError for one that is not there."""
    if len(three) != 3 or not set(three) <= set(proteins):
        raise ValueError(f"cannot mix {', '.join(three) or 'nothing'}: wanted three of {', '.join(proteins)}.")
    return image_yxc[..., [list(proteins).index(protein) for protein in three]]


def first_mixture(proteins: Sequence[str]) -> tuple[str, ...]:
    """The proteins that are mixed at first: those that tell deficient fibres apart, else the first three."""
    return MIXTURE if set(MIXTURE) <= set(proteins) else tuple(proteins[:3])


def middle(height_px: int, width_px: int, size_px: int) -> tuple[slice, slice]:
    """The square window in the middle of a section, of `size_px` or as large as the section allows."""
    size_px = min(size_px, height_px, width_px)
    top, left = (height_px - size_px) // 2, (width_px - size_px) // 2
    return slice(top, top + size_px), slice(left, left + size_px)


def picture(section: Section, proteins: Sequence[str], window_yx: tuple[slice, slice], size_px: int) -> np.ndarray:
    """(H, W, C) uint8: a square window of a section, at most `size_px` wide, channels in the order of `proteins`.

    Without proteins it has no channels. Raises CohortError for a picture that is not there or cannot be decoded.
    """
    if not proteins:
        return np.zeros((size_px, size_px, 0), np.uint8)
    window_yxc = section.stack_yxc(proteins)[window_yx]
    return resize(window_yxc, min(size_px, len(window_yxc)))


def last_layer(has_truth: bool) -> str:
    """What the last layer of `overlays` shows, or that it is left out."""
    if has_truth:
        return "Outlined in the last layer: fibres that were drawn as deficient."
    return "These data come without truth: the layer of deficient fibres is left out."


def within(truth: Truth | None, window_yx: tuple[slice, slice]) -> Truth | None:
    """The ground truth of a window: fibre numbers (H, W), and the classes of the fibres that are in it.

    truth: of the section, as `cohort.read_truth` gives it; None where there is none.
    """
    if truth is None:
        return None
    labels_yx, classes = truth
    return labels_yx[window_yx], classes[classes.index.isin(np.unique(labels_yx[window_yx]))]


def heat(patch_yx: np.ndarray, map_yx: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the palette over the patch, the more of it the higher the map (0-1); at 0 the bare patch."""
    share = 0.75 * np.sqrt(map_yx)[..., None]
    return np.uint8((1 - share) * patch_yx[..., None] + share * 255 * PALETTE(map_yx)[..., :3])


def outlined(patch_yx: np.ndarray, mask_yx: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the patch with a pink line of 3 px around what the mask covers."""
    rgb = np.repeat(patch_yx[..., None], 3, axis=-1)
    rgb[binary_dilation(mask_yx) & ~binary_erosion(mask_yx, iterations=2, border_value=1)] = OUTLINE
    return rgb


def data_uri(pixels: np.ndarray) -> str:
    """A uint8 picture (H, W) or (H, W, 3) as a WebP that stands inside the page."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "webp", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _picture(pixels: np.ndarray, name: str, alt: str) -> str:
    """One picture with its name below; the size is stated, so that the page does not jump while it is decoded."""
    height, width = pixels.shape[:2]
    size = f'width="{width}" height="{height}" loading="lazy" decoding="async"'
    name, alt = escape(name), escape(alt)
    return f'<div data-name="{name}"><img src="{data_uri(pixels)}" {size} alt="{alt}"><span>{name}</span></div>'
