"""Saliency maps of a classifier, and whether to believe them."""

from mitolib.saliency.explanation import explain
from mitolib.saliency.localisation import localise
from mitolib.saliency.methods import methods_named
from mitolib.saliency.network import Network, build_networks
from mitolib.saliency.perturbation import perturb
from mitolib.saliency.randomisation import randomise
from mitolib.saliency.truth import held_out_patches, mosaic, outlines
from mitolib.saliency.verdicts import findings, summarise

__all__ = [
    "Network",
    "build_networks",
    "explain",
    "findings",
    "held_out_patches",
    "localise",
    "methods_named",
    "mosaic",
    "outlines",
    "perturb",
    "randomise",
    "summarise",
]
