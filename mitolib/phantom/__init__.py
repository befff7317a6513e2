"""The embedded cohort: muscle sections of imaging mass cytometry, drawn from published measurements; their twins."""

from mitolib.phantom.draw import DEFICIENT, MASS_MARKER, PhantomError, donors, make_phantom, section_size
from mitolib.phantom.geometry import Geometry
from mitolib.phantom.pixels import Stain

__all__ = ["DEFICIENT", "MASS_MARKER", "Geometry", "PhantomError", "Stain", "donors", "make_phantom", "section_size"]
