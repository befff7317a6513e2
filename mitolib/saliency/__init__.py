"""Saliency maps of a classifier, and whether to believe them."""

from mitolib.saliency.faithfulness import mosaic
from mitolib.saliency.look import class_maps, outlines
from mitolib.saliency.methods import LAYERS, METHODS, GradCAM, cascade, chosen, log_odds, saved_head

__all__ = [
    "LAYERS",
    "METHODS",
    "GradCAM",
    "cascade",
    "chosen",
    "class_maps",
    "log_odds",
    "mosaic",
    "outlines",
    "saved_head",
]
