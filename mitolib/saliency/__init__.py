"""Saliency maps of a classifier, and whether to believe them."""

from mitolib.saliency import relevance, ways
from mitolib.saliency.budget import BUDGETS
from mitolib.saliency.conclusions import claims
from mitolib.saliency.control import build_networks
from mitolib.saliency.measurements import measure
from mitolib.saliency.methods import methods_named
from mitolib.saliency.network import Network
from mitolib.saliency.summary import summarise
from mitolib.saliency.truth import held_out_patches, mosaic, outlines

__all__ = [
    "BUDGETS",
    "Network",
    "build_networks",
    "claims",
    "held_out_patches",
    "measure",
    "methods_named",
    "mosaic",
    "outlines",
    "relevance",
    "summarise",
    "ways",
]
