"""One channel of one file, and the errors that name the file, what was found in it, and what helps.

`Channel.raw_yx` gives the values that the file defines, or refuses; it never gives stored numbers that mean something
else.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MAX_PX = 64_000_000  # of one channel: 8,000 x 8,000 um, more than a slide's largest ablation in a day
MAX_CHANNELS = 256
OFFSET = 32_768  # 2^15: what software adds to keep signed numbers in unsigned 16 bits
BELOW_OFFSET, SHARE_BELOW = 512, 0.01  # how far below it a few values lie that were below 0, and how many may
LEAST_PX = 1_000  # of a picture whose lowest value says something: in a smaller one it may be high by chance


class CohortError(ValueError):
    """A data folder that cannot be read as a cohort; the message names file, finding, want and remedy."""


class Unfit(ValueError):
    """Finding and remedy of a file that is whole, and of no use here: to copy it again would not help."""


@dataclass(frozen=True)
class Channel:
    """One channel of one file: what it is called there, its size, and how to reach its pixels."""

    path: Path
    label: str | None  # as in the file, or the file's name; None in a stack whose pages have no names
    metal: str | None  # "160Gd", where the file says so
    height_px: int
    width_px: int
    index: int = 0  # among the channels of its file or acquisition
    page: int = 0  # that holds it, in a TIFF
    acquisition: int | None = None  # of an .mcd, counted as in the file
    described: str | None = None  # what a file of one picture calls it inside, beside the file's name
    calibration: tuple[float, float] = (0.0, 1.0)  # value = first + second * stored number, as ImageJ writes it
    is_lossy: bool = False  # compressed so that greys changed, as by JPEG
    reader: Callable[[Channel], np.ndarray] | None = field(default=None, repr=False, compare=False)

    def raw_yx(self) -> np.ndarray:
        """(height_px, width_px), uint8 if the file holds bytes, else float32 counts.

        Raises CohortError for a picture that cannot be decoded, is in colour, has another size than its header
        said, or holds values that are no counts.
        """
        with named(self.path, "cannot be decoded", "Copy the file again from its source."):
            raw_yx = self.reader(self)
        if raw_yx.shape != (self.height_px, self.width_px):
            raise CohortError(
                f"{self.path}: decodes to shape {raw_yx.shape}, its header said {(self.height_px, self.width_px)}. "
                "Copy the file again from its source."
            )
        offset, factor = self.calibration
        if (offset, factor) != (0.0, 1.0):
            raw_yx = offset + factor * raw_yx.astype(np.float64)
        elif raw_yx.dtype == np.uint8:
            return raw_yx
        elif _has_offset(raw_yx):
            raise CohortError(
                f"{self.path}: {self.label or 'it'} is {raw_yx.min():g} at least, and nothing in the file says that "
                f"{OFFSET} was added to all values. Subtract {OFFSET} from each pixel, save it again as 16 bit, and "
                "check once more."
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            counts_yx = raw_yx.astype(np.float32, copy=False)
        lowest, highest = counts_yx.min(), counts_yx.max()  # NaN if there is one
        if not np.isfinite((lowest, highest)).all():
            n = int((~np.isfinite(counts_yx)).sum())
            raise CohortError(
                f"{self.path}: {n} pixels of {self.label or 'it'} are not finite numbers. "
                "Export it again; a count that was not measured is 0."
            )
        if lowest < 0:
            raise CohortError(
                f"{self.path}: {self.label or 'it'} has counts down to {lowest:g}, wanted none below 0. "
                "Export raw counts, without background subtracted or compensation, or clip them at 0."
            )
        return counts_yx


def _has_offset(raw_yx: np.ndarray) -> bool:
    """Whether nearly all values lie where 2^15 would have put small ones, whatever kind of number they became since."""
    if raw_yx.size <= LEAST_PX or not raw_yx.max() < 2 * OFFSET:  # NaN is said elsewhere
        return False
    return bool((raw_yx < OFFSET - BELOW_OFFSET).mean() < SHARE_BELOW and raw_yx.min() > 0)


@dataclass(frozen=True)
class Contents:
    """What a file holds: its channels, and the acquisitions that are left out, each with the reason."""

    channels: tuple[Channel, ...]
    left_out: tuple[str, ...] = ()
    n_acquisitions: int = 1


@contextmanager
def named(path: Path, finding: str, remedy: str) -> Iterator[None]:
    """Whatever a library raises about a file, as one CohortError that names it."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("error", message="Length of header or names")  # pandas leaves cells out
            yield
    except CohortError:
        raise
    except Unfit as unfit:
        raise CohortError(f"{path}: {finding} ({unfit.args[0]}). {unfit.args[1]}") from unfit
    except MemoryError as error:
        raise CohortError(f"{path}: {finding}, it needs more memory than there is. Cut it into sections.") from error
    except Exception as error:
        reason = " ".join(str(error).replace(str(path), path.name).split())[:300] or type(error).__name__
        raise CohortError(f"{path}: {finding} ({reason}). {remedy}") from error


def check_size(height_px: int, width_px: int, n_channels: int = 1, dtype: np.dtype | None = None) -> None:
    """ValueError or Unfit for a picture that is empty or larger than any section, or holds no counts."""
    if not (height_px > 0 and width_px > 0):
        raise ValueError(f"a picture of {height_px} x {width_px} px (height x width)")
    if height_px * width_px > MAX_PX:
        raise Unfit(f"{height_px} x {width_px} px (height x width), more than {MAX_PX:,d} px", "Cut it into sections.")
    if not 0 < n_channels <= MAX_CHANNELS:
        raise Unfit(f"{n_channels} channels, wanted 1 to {MAX_CHANNELS}", "Export only the proteins that were stained.")
    if dtype is not None and (dtype.kind not in "uif" or dtype.itemsize > 8):
        raise Unfit(
            f"it holds {dtype}, wanted counts as integers or floating-point numbers", "Export the picture, not a mask."
        )
