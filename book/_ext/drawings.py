"""Sphinx extension of the book: figures that are drawn while a page is read.

{diagram} study             one of DIAGRAMS; `:name:` and `:alt:`, and the caption as its content
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import mitobook  # noqa: F401 (first: it puts the package of the checkout on the path)

# isort: split
import diagrams
import numpy as np
import toy
from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib import rc_context
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mitolib import paper, settings
from mitolib.figures import whitening

PICTURE_DPI = 200  # of the thumbnails inside an SVG


def save(figure: Figure, path: Path) -> None:
    """Write the figure as SVG; the same figure gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None}, dpi=PICTURE_DPI)


class DrawnFigure(SphinxDirective):
    """A numbered figure of pictures that are drawn here, with `:name:` and `:alt:`; the content is the caption."""

    option_spec: ClassVar[dict] = {"name": directives.unchanged, "alt": directives.unchanged_required}
    has_content = True

    def drawn(self, name: str) -> Path:
        """Where a picture of that name is to be written: outside the sources, kept from one build to the next."""
        return Path(self.env.doctreedir).resolve().parent / "drawn" / f"{name}.svg"

    def figure(self, pictures: Mapping[str, Path], alt: str) -> nodes.figure:
        """class of the image -> its file; more than one where a style sheet chooses."""
        figure = nodes.figure(classes=["drawn"])
        for kind, path in pictures.items():
            uri = os.path.relpath(path, Path(self.env.doc2path(self.env.docname)).parent)
            figure += nodes.image(uri=uri, alt=alt, width="100%", classes=[kind])
        parsed, messages = self.state.inline_text(" ".join(self.content), self.lineno)
        figure += nodes.caption("", "", *parsed, *messages)
        self.add_name(figure)
        return figure


# The five diagrams of the overview --------------------------------------------------------------------------------


def _seeded() -> np.random.Generator:
    return np.random.default_rng(settings.PROFILES["paper"].seed)


def _example() -> toy.GradCAM:
    """Grad-CAM on a drawing, in the sizes of VGG16: four poolings precede its last convolution."""
    return toy.gradcam(input_px=paper.INPUT_PX, map_px=paper.INPUT_PX // 2**4, rng=_seeded())


def study() -> Figure:
    example = _example()
    figure = Figure(figsize=diagrams.SIZES["study"])
    diagrams.study(
        ax=figure.subplots(),
        people={"control": paper.CONTROLS, "patient": paper.PATIENTS},
        proteins=settings.PROTEINS,
        patch_px=paper.PATCH_PX,
        input_px=paper.INPUT_PX,
        splits=paper.SPLITS,
        picture_yx=example.picture_yx,
        heat_yx=example.heat_yx,
    )
    return figure


def gradcam() -> Figure:
    figure = Figure(figsize=diagrams.SIZES["gradcam"])
    diagrams.gradcam(_example(), ax=figure.subplots())
    return figure


def whitened_network() -> Figure:
    figure = Figure(figsize=diagrams.SIZES["whitened_network"])
    diagrams.whitened_network(ax=figure.subplots(), input_px=paper.INPUT_PX)
    return figure


def latent() -> Figure:
    points, group = toy.latent_points(rng=_seeded())
    stages = {
        "raw": points,
        "standardised (batch norm)": toy.standardise(points),
        "whitened": toy.whiten(points),
    }
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    whitening.latent(stages, group, axes=figure.subplots(1, 3))
    return whitening.groups_key(fig=figure)


def rotation() -> Figure:
    points, group = toy.latent_points(rng=_seeded())
    whitened = toy.whiten(points)
    figure = Figure(figsize=(8, 3.7), layout="constrained")
    whitening.rotation(whitened, toy.rotate(whitened, group), group, axes=figure.subplots(1, 3))
    return whitening.groups_key(fig=figure)


DIAGRAMS: dict[str, Callable[[], Figure]] = {
    draw.__name__: draw for draw in (study, gradcam, whitened_network, latent, rotation)
}


class Diagram(DrawnFigure):
    """One of DIAGRAMS, by its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (name,) = self.arguments
        if name not in DIAGRAMS:
            raise self.error(f"diagram {name!r} is not one of {', '.join(DIAGRAMS)}.")
        for module in (diagrams, toy, whitening, paper, settings):
            self.env.note_dependency(module.__file__)
        path = self.drawn(name)
        save(DIAGRAMS[name](), path)
        return [self.figure({"diagram": path}, self.options["alt"])]


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("mitobook")
    app.add_directive("diagram", Diagram)
    return {"version": "1", "parallel_read_safe": True}
