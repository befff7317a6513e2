"""Concept whitening (Chen, Bei and Rudin 2020): a norm layer with named axes, put into any model."""

from mitolib.whitening import experiment, real_concepts, training
from mitolib.whitening.alignment import align, concept_scores, draw
from mitolib.whitening.budget import BUDGETS
from mitolib.whitening.folding import fold
from mitolib.whitening.layer import ConceptWhitening
from mitolib.whitening.surgery import calibrate, insert_before_head, replace_norm

__all__ = [
    "BUDGETS",
    "ConceptWhitening",
    "align",
    "calibrate",
    "concept_scores",
    "draw",
    "experiment",
    "fold",
    "insert_before_head",
    "real_concepts",
    "replace_norm",
    "training",
]
