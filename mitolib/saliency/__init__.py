"""Saliency maps of a classifier, and whether to believe them."""

from mitolib.saliency.methods import LAYERS, METHODS, GradCAM, cascade, chosen, log_odds, saved_head

__all__ = ["LAYERS", "METHODS", "GradCAM", "cascade", "chosen", "log_odds", "saved_head"]
