"""Figures of the chapters, `(data, *, ax) -> ax`, one module per family, and pictures that a reader can play with."""

from mitolib.figures import cohort, estimates, people, saliency, training, viewers, whitening

__all__ = ["cohort", "estimates", "people", "saliency", "training", "viewers", "whitening"]
