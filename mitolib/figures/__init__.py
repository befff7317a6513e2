"""Figures of the chapters, `(data, *, ax) -> ax`, and pictures that a reader can play with."""

from mitolib.figures.viewers import mixer, overlays

__all__ = ["mixer", "overlays"]
