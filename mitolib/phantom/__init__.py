"""The embedded cohort: muscle sections of imaging mass cytometry, drawn from published measurements; their twins."""

from mitolib.phantom.calibration import PhantomError, donors
from mitolib.phantom.draw import cured_twins, make_phantom, section_size
from mitolib.phantom.muscle import compare_with_muscle, cox4_windows, fibre_masks, fibres_per_patch
from mitolib.phantom.new_people import draw_people, make_people
from mitolib.phantom.twin_pictures import compare_twins

__all__ = [
    "PhantomError",
    "compare_twins",
    "compare_with_muscle",
    "cox4_windows",
    "cured_twins",
    "donors",
    "draw_people",
    "fibre_masks",
    "fibres_per_patch",
    "make_people",
    "make_phantom",
    "section_size",
]
