"""Prototype networks: ProtoPNet, IAIA-BL and HPnet, which explain an answer by examples."""

from mitolib.prototypes import chapter, results, shown, tree_results
from mitolib.prototypes.annotation import MaskError
from mitolib.prototypes.asking import ask
from mitolib.prototypes.budget import BUDGETS
from mitolib.prototypes.conclusions import claims
from mitolib.prototypes.fits import Tools
from mitolib.prototypes.network import PrototypeNetwork
from mitolib.prototypes.taxonomy import COLUMNS
from mitolib.prototypes.training import train

__all__ = [
    "BUDGETS",
    "COLUMNS",
    "MaskError",
    "PrototypeNetwork",
    "Tools",
    "ask",
    "chapter",
    "claims",
    "results",
    "shown",
    "train",
    "tree_results",
]
