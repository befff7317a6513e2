"""How far the phantom is from a real section: the same measurements on both, side by side.

The reference (`data/realism.json`) holds numbers measured on two public files of the Newcastle group, no pixels.
With the files at hand, `python -m mitolib.phantom.realism <their folder> > data/realism.json` makes it anew.

Two things can be measured. `measure_mask` takes an instance mask: sizes, shapes and gaps of the fibres.
`measure_image` takes an 8-bit pseudo-image of a mitochondrial protein, without a mask: `segment` finds fibres in
real and phantom by the same steps, so that its faults are the same on both sides; texture and grey levels follow.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage as ndi
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from mitolib import settings

REFERENCE = settings.DATA / "realism.json"
FILES = {
    "image": {
        "file": "mitocyto_COX4.png",
        "what": "COX4 of one section (its fibres are those of P04), 8-bit pseudo-image",
        "origin": "github.com/CnrLwlss/mitocyto, images/channel.png, GPL-3.0",
    },
    "mask": {
        "file": "P03_instance_mask.tiff",
        "what": "manual instance mask of one section",
        "origin": "github.com/CnrLwlss/singlefibre_Atif, P03_instance_mask.tiff, MIT",
    },
}
QUANTILES = (5, 25, 50, 75, 95)
TOLERANCE = 0.2
GREY_BINS = 16
BANDS = 8  # of the power spectrum, evenly spaced in log frequency from 1/128 to 1/2 cycles per px
TILE_PX = 256
SMALLEST_PX, LARGEST_PX = 500, 17_500  # areas that mitocyto accepts as a fibre
WIDEST_GAP_PX = 30.0  # anything wider is a tear or the outside, not a gap between neighbours

Measures = dict[str, Any]


def measure_mask(label_yx: np.ndarray) -> Measures:
    """Sizes, shapes and gaps of the fibres of an instance mask.

    label_yx: (H, W) integers, 0 = no fibre. Returns areas in px at the 5/25/50/75/95 % quantile, the share of
    the image covered, the median elongation of the bounding box, the median distance in px between facing
    borders of neighbours (at most 30 px), and the share of gaps wider than 8 px.
    """
    _check(label_yx, "label_yx")
    if not label_yx.any():
        raise ValueError("label_yx holds no fibre: every pixel is 0. Pass an instance mask.")
    area = np.bincount(label_yx.ravel())[1:]
    boxes = [box for box in ndi.find_objects(label_yx) if box is not None]
    aspect = np.array([(box[0].stop - box[0].start) / (box[1].stop - box[1].start) for box in boxes])
    distance, nearest = ndi.distance_transform_edt(label_yx == 0, return_indices=True)
    owner = label_yx[tuple(nearest)]
    gaps = []
    for axis in (0, 1):  # a pair of pixels with different owners straddles the middle of a gap
        first, second = (np.delete(np.arange(label_yx.shape[axis]), at) for at in (-1, 0))
        parted = np.take(owner, first, axis) != np.take(owner, second, axis)
        width = np.take(distance, first, axis)[parted] + np.take(distance, second, axis)[parted]
        gaps.append(width)  # k background pixels in a row give k
    gap = np.concatenate(gaps)
    gap = gap[gap <= WIDEST_GAP_PX]
    return {
        **_quantiles("area_px", area[area > 0]),
        "cover": float((label_yx > 0).mean()),
        "elongation": float(np.median(np.maximum(aspect, 1 / aspect))),
        "gap_px": float(np.median(gap)) if gap.size else float("nan"),
        "wide_gaps": float((gap > 8).mean()) if gap.size else float("nan"),
    }


def segment(image_yx: np.ndarray) -> np.ndarray:
    """Fibres of an 8-bit pseudo-image, (H, W) int32, 0 = none; no training, no membrane channel.

    Pixels brighter than their wide surroundings are fibre, the distance to the nearest other pixel is flooded from
    its maxima, and areas outside mitocyto's limits are dropped. Dim fibres are lost, in real and phantom alike.
    """
    _check(image_yx, "image_yx")
    image = image_yx.astype(np.float32)
    tissue = ndi.gaussian_filter(image, 8) > 0.25 * np.percentile(image, 90)
    bright = tissue & (ndi.gaussian_filter(image, 1.5) > 0.6 * ndi.gaussian_filter(image, 10))
    depth = ndi.gaussian_filter(ndi.distance_transform_edt(bright).astype(np.float32), 5)
    peaks = peak_local_max(depth, min_distance=20, threshold_abs=6, exclude_border=False)
    seeds = np.zeros(image.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    label = watershed(-depth, seeds, mask=bright)
    area = np.bincount(label.ravel(), minlength=len(peaks) + 1)
    keep = (area >= SMALLEST_PX) & (area <= LARGEST_PX)
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0)[label].astype(np.int32)


def measure_image(image_yx: np.ndarray) -> Measures:
    """Fibres (by `segment`), texture and grey levels of an 8-bit pseudo-image of a mitochondrial protein.

    Beside areas and cover: `fibre_cv`, the median coefficient of variation within a fibre; `rim`, the brightness
    2 to 5 px below the border over that beyond 12 px, median fibre; `correlation_px`, the sum of the autocorrelation
    within fibres over lags of 1 to 10 px; `grey_histogram`, shares of 16 equal classes of grey; `spectrum`, amplitude
    in grey levels of 8 bands, coarse to fine, over tiles full of tissue.
    """
    label = segment(image_yx)
    if not label.any():
        raise ValueError("no fibre found in image_yx. Pass a stretched 8-bit image of a mitochondrial protein.")
    image = image_yx.astype(np.float32)
    number = np.arange(1, label.max() + 1)
    depth = ndi.distance_transform_edt(label > 0)
    core = np.where(depth > 3, label, 0)
    mean, deviation = ndi.mean(image, core, number), ndi.standard_deviation(image, core, number)
    wide = number[ndi.maximum(depth, label, number) > 13]  # a fibre without a core has no rim to compare
    centre = ndi.mean(image, np.where(depth > 12, label, 0), wide)
    rim = ndi.mean(image, np.where((depth > 2) & (depth <= 5), label, 0), wide)
    return {
        **_quantiles("area_px", np.bincount(label.ravel())[1:]),
        "cover": float((label > 0).mean()),
        "fibre_cv": float(np.median(deviation / mean)),
        "rim": float(np.median(rim / centre)) if wide.size else float("nan"),
        "correlation_px": _correlation_length(image, core > 0),
        "grey_histogram": grey_histogram(image_yx).round(5).tolist(),
        "spectrum": spectrum(image_yx).round(4).tolist(),
    }


def grey_histogram(image_yx: np.ndarray) -> np.ndarray:
    """Shares (16,) of equal classes of grey in an 8-bit image.

    A stretched picture of counts has few grey levels (28 in the real one). Each level is spread over the range that it
    stands for, since the classes would otherwise catch one or two levels by chance.
    """
    level, count = np.unique(image_yx, return_counts=True)
    between = (level[1:].astype(float) + level[:-1]) / 2
    cumulative = np.concatenate([[0], np.cumsum(count) / count.sum()])
    edges = np.concatenate([[0], between, [255]])
    return np.diff(np.interp(np.linspace(0, 255, GREY_BINS + 1), edges, cumulative))


def spectrum(image_yx: np.ndarray) -> np.ndarray:
    """Amplitude (8,) in grey levels of bands from 1/128 to 1/2 cycles per px, averaged over tiles full of tissue.

    The square of all bands adds up to about the variance of a tile. NaN if no tile of 256 px is full of tissue.
    """
    _check(image_yx, "image_yx")
    image = image_yx.astype(np.float32)
    window = np.hanning(TILE_PX)[:, None] * np.hanning(TILE_PX)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(TILE_PX), np.fft.fftfreq(TILE_PX)))
    band = np.digitize(frequency, np.geomspace(1 / 128, 1 / 2, BANDS + 1)[1:-1])
    wanted = (frequency >= 1 / 128) & (frequency <= 1 / 2)
    powers = []
    tissue = ndi.uniform_filter((image > 0).astype(np.float32), 31) > 0.5
    for y in range(0, image.shape[0] - TILE_PX + 1, TILE_PX):
        for x in range(0, image.shape[1] - TILE_PX + 1, TILE_PX):
            at = slice(y, y + TILE_PX), slice(x, x + TILE_PX)
            if tissue[at].mean() > 0.98:
                power = np.abs(np.fft.fft2((image[at] - image[at].mean()) * window)) ** 2
                powers.append(power / (window**2).sum() / TILE_PX**2)
    if not powers:
        return np.full(BANDS, np.nan)
    return np.sqrt(np.bincount(band[wanted], np.mean(powers, axis=0)[wanted], minlength=BANDS))


def compare(real: Mapping[str, Any], phantom: Mapping[str, Any]) -> pd.DataFrame:
    """Two results of the same measuring function side by side.

    Columns measure, real, phantom, ratio, within_20_percent. A plain number is within if the ratio is 0.8 to 1.2; so is
    each band of the spectrum, in amplitude. For grey levels the row gives the share of pixels that would have to change
    class for the histograms to agree (real 0 by definition, no ratio): within if it is at most 0.2. None: not measured.
    """
    if differing := set(real) ^ set(phantom):
        raise ValueError(f"measures {sorted(differing)} are on one side only. Measure both with the same function.")
    rows = []
    for name, value in real.items():
        if name == "grey_histogram":
            moved = 0.5 * float(np.abs(np.subtract(value, phantom[name])).sum())
            rows.append(("grey levels to move", 0.0, moved, np.nan, moved <= TOLERANCE))
            continue
        pairs = zip(np.atleast_1d(value), np.atleast_1d(phantom[name]), strict=True)
        for i, (of_real, of_phantom) in enumerate(pairs):
            ratio = float(of_phantom / of_real) if of_real else float("nan")
            title = f"{name} {i + 1}" if np.ndim(value) else name
            within = abs(ratio - 1) <= TOLERANCE if np.isfinite(ratio) else None
            rows.append((title, float(of_real), float(of_phantom), ratio, within))
    return pd.DataFrame(rows, columns=["measure", "real", "phantom", "ratio", "within_20_percent"])


def read_reference(path: Path = REFERENCE) -> dict[str, Measures]:
    """The measures of the real files, by "image" and "mask"."""
    try:
        reference = json.loads(Path(path).read_text(encoding="utf-8"))
        return {kind: reference[kind]["measures"] for kind in FILES}
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: no reference there ({error!r}). Restore it from the repository.") from error


def measure_files(folder: Path) -> dict[str, Any]:
    """The content of `data/realism.json`, from the folder that holds the two real files."""
    reference: dict[str, Any] = {
        "made_by": "python -m mitolib.phantom.realism <folder of the real files> > data/realism.json"
    }
    for kind, about in FILES.items():
        path = Path(folder) / about["file"]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: not found. It comes from {about['origin']}.")
        with Image.open(path) as image:
            pixels = np.asarray(image if kind == "mask" else image.convert("L"))
        measures = measure_mask(pixels) if kind == "mask" else measure_image(pixels)
        reference[kind] = {
            **about,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "function": f"mitolib.phantom.realism.measure_{kind}",
            "measures": {
                name: value if isinstance(value, list) else round(value, 5) for name, value in measures.items()
            },
        }
    return reference


def _check(array_yx: np.ndarray, name: str) -> None:
    if array_yx.ndim != 2 or not np.issubdtype(array_yx.dtype, np.integer):
        raise ValueError(
            f"{name} is {array_yx.ndim}-dimensional {array_yx.dtype}; wanted a 2-dimensional integer array."
        )


def _quantiles(name: str, values: np.ndarray) -> Measures:
    return {f"{name}_{q}": float(np.percentile(values, q)) for q in QUANTILES}


def _correlation_length(image: np.ndarray, inside: np.ndarray) -> float:
    """Sum of the autocorrelation over lags 1..10 px, mean of both axes, of grey about its local mean (20 px)."""
    weight = inside.astype(np.float32)
    local = ndi.gaussian_filter(image * weight, 10) / np.maximum(ndi.gaussian_filter(weight, 10), 1e-3)
    residual = (image / np.maximum(local, 1) - 1) * weight
    variance = float((residual**2).sum() / max(weight.sum(), 1))
    if variance == 0:
        return 0.0
    total = 0.0
    for lag in range(1, 11):
        for ahead, behind in (
            ((slice(lag, None),), (slice(-lag),)),
            ((slice(None), slice(lag, None)), (slice(None), slice(-lag))),
        ):
            pairs = weight[ahead] * weight[behind]
            total += float((residual[ahead] * residual[behind]).sum() / max(pairs.sum(), 1)) / variance / 2
    return total


if __name__ == "__main__":
    json.dump(measure_files(Path(sys.argv[1])), sys.stdout, indent=1)
    print()
