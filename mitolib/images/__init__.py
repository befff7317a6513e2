"""Image files and data folders of a laboratory -> named channels with the counts that were measured, or a refusal.

`cohort` and `own_data` of the core read through this wing; nothing else of the core imports any. Beside the names
below, `quality` reads pictures whole: what shows nothing, what is there twice, what tells the classes apart.
"""

from mitolib.images.channel import Channel, CohortError
from mitolib.images.comparison import compare_counts
from mitolib.images.folder import read_folder
from mitolib.images.formats import PICTURES
from mitolib.images.intensity import INTENSITIES, STRETCHED, to_8_bit, without_hot_pixels
from mitolib.images.names import protein
from mitolib.images.summary import understood

__all__ = [
    "INTENSITIES",
    "PICTURES",
    "STRETCHED",
    "Channel",
    "CohortError",
    "compare_counts",
    "protein",
    "read_folder",
    "to_8_bit",
    "understood",
    "without_hot_pixels",
]
