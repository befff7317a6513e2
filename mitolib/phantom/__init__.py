"""The embedded cohort: muscle sections of imaging mass cytometry, drawn from published measurements; their twins."""

from mitolib.phantom.draw import DEFICIENT, MASS_MARKER, PhantomError, donors, make_phantom, section_size
from mitolib.phantom.muscle import compare_with_muscle, cox4_windows, fibre_masks, fibres_per_patch

__all__ = [
    "DEFICIENT",
    "MASS_MARKER",
    "PhantomError",
    "compare_with_muscle",
    "cox4_windows",
    "donors",
    "fibre_masks",
    "fibres_per_patch",
    "make_phantom",
    "section_size",
]
