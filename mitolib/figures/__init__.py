"""Figures of the chapters, `(data, *, ax) -> ax`, one module per family, and pictures that a reader can play with."""

from mitolib.figures import (
    cohort,
    conclusions,
    estimates,
    pages,
    people,
    prototypes,
    saliency,
    training,
    viewers,
    whitening,
)

__all__ = [
    "cohort",
    "conclusions",
    "estimates",
    "pages",
    "people",
    "prototypes",
    "saliency",
    "training",
    "viewers",
    "whitening",
]
