"""Sphinx extension of the book: the package as its sources have it today, in layers.

    {layers}                    a figure of the layers and of what imports what; `:name:`, and the caption as content
    {modules} core              a heading and the docstrings of each module of the core, of a wing, or of the book

Nothing here is a list that has to be kept: modules are what lies in the folders, arrows are what their sources import,
and what a module is for is what the docstring of the package says in a line.
"""

from __future__ import annotations

import mitobook  # noqa: F401 (first: it puts the package of the checkout on the path)

# isort: split
import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import diagrams
from docutils import nodes
from drawings import DrawnFigure, save
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mitolib.settings import ROOT

PACKAGE = ROOT / "mitolib"
BOOK = ROOT / "book"
COMMAND, CHAPTERS, MACHINERY, CORE = "command", "chapters", "machinery", "core"  # boxes of the figure beside the wings
PURPOSE = re.compile(r"(?:^ *|  )(\w+)  +(\S.*?)(?=   *\w+  +\S|$)", re.M)  # of a line of the docstring's map
GROUPS = {"_ext": "Sphinx", "_tools": "the command line"}  # folder of the book -> what calls its modules


# What lies where --------------------------------------------------------------------------------------------------


def core() -> list[str]:
    """Names of the modules of the core."""
    return sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))


def wings() -> dict[str, list[str]]:
    """wing -> names of its modules."""
    folders = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
    return {folder.name: sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__") for folder in folders}


def machinery() -> dict[str, list[str]]:
    """Folder of the book, `_ext` or `_tools` -> names of its modules."""
    return {folder: sorted(path.stem for path in (BOOK / folder).glob("*.py")) for folder in GROUPS}


def purposes() -> dict[str, str]:
    """Module of the core, or wing -> what it is for, from the map in the docstring of the package."""
    text = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf8")))
    return {name: what for name, what in PURPOSE.findall(text) if name in {*core(), *wings()}}


# What imports what ------------------------------------------------------------------------------------------------


def imported(source: str) -> set[str]:
    """Modules of the core, and wings, that a Python source imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mitolib":
            names |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mitolib.")}
    return names & {*core(), *wings()}


def code(notebook: Path) -> str:
    """The code cells of a notebook as one source."""
    cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def arrows() -> set[tuple[str, str]]:
    """Pairs (importer, imported) of the boxes of the figure: COMMAND, CHAPTERS, MACHINERY, each wing, and CORE."""

    def texts(paths: Iterable[Path]) -> Iterator[str]:
        return (path.read_text(encoding="utf8") for path in paths)

    sources = {
        COMMAND: texts([PACKAGE / "__main__.py"]),
        CHAPTERS: map(code, sorted((ROOT / "notebooks").glob("*.ipynb"))),
        MACHINERY: texts(path for folder in GROUPS for path in (BOOK / folder).glob("*.py")),
        CORE: texts(PACKAGE / f"{name}.py" for name in core()),
    } | {wing: texts((PACKAGE / wing).glob("*.py")) for wing in wings()}
    pairs = set()
    for box, its in sources.items():
        names = {name for source in its for name in imported(source)}
        pairs |= {(box, name if name in wings() else CORE) for name in names}
    return {(importer, needed) for importer, needed in pairs if importer != needed}


def readers() -> list[str]:
    """Modules of the core that read through a wing."""
    return [name for name in core() if imported((PACKAGE / f"{name}.py").read_text(encoding="utf8")) & set(wings())]


def in_words(pairs: set[tuple[str, str]]) -> str:
    """The arrows for those who cannot see them."""
    titles = {COMMAND: "the command line", CHAPTERS: "the chapters", MACHINERY: "the making of pages", CORE: "the core"}
    order = [COMMAND, CHAPTERS, MACHINERY, *wings(), CORE]
    ways = []
    for box in order:
        needed = [titles.get(name, name) for name in order if (box, name) in pairs]
        if needed:
            ways.append(f"from {titles.get(box, box)} to {', '.join(needed)}")
    return f"Three rows of boxes: the book, the wings, and the core with its modules. Arrows lead {'; '.join(ways)}."


def draw() -> Figure:
    """The layers and their arrows; `images` first, beside the wings that read through it."""
    pairs, what = arrows(), purposes()
    order = sorted(wings(), key=lambda w: (w != "images", (w, "images") not in pairs, (MACHINERY, w) in pairs, w))
    figure = Figure(figsize=diagrams.SIZES["package"])
    diagrams.package(
        ax=figure.subplots(),
        wings={wing: re.sub(r" \([^()]*\)$", "", what.get(wing, "")) for wing in order},
        core=core(),
        readers=readers(),
        arrows=pairs,
    )
    return figure


# Directives -------------------------------------------------------------------------------------------------------


class Layers(DrawnFigure):
    """The figure of the layers; its words are made from the same arrows."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # a new module changes no file that is known yet
        path = self.drawn("layers")
        save(draw(), path)
        return [self.figure({"diagram": path}, in_words(arrows()))]


def documented(name: str, level: int, title: str, *options: str) -> str:
    """Markdown: a heading, and what autodoc finds in a module, under options such as "members"."""
    lines = [f".. automodule:: {name}", *(f"   :{option}:" for option in options)]
    return "\n".join([f"{'#' * level} {title}", "", "```{eval-rst}", *lines, "```"])


def exported(wing: str) -> str:
    """The names that a wing gives to chapters, as a sentence."""
    tree = ast.parse((PACKAGE / wing / "__init__.py").read_text(encoding="utf8"))
    names = next(
        (ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"), []
    )
    return f"What it gives: {', '.join(f'`{name}`' for name in names)}." if names else ""


def modules(part: str) -> list[str]:
    """Markdown of each module of a part of the package: core, a wing, or book. ValueError for an unknown part."""
    if part == "core":
        titles = {name: f"`{name}`: {what}" for name, what in purposes().items()}
        return [documented(f"mitolib.{name}", 2, titles.get(name, f"`{name}`"), "members") for name in core()]
    if part in wings():
        what = purposes().get(part, f"`{part}`")
        texts = [documented(f"mitolib.{part}", 2, what[0].upper() + what[1:]), exported(part)]
        texts += [documented(f"mitolib.{part}.{name}", 2, f"`{part}.{name}`", "members") for name in wings()[part]]
        return [text for text in texts if text]
    if part == "book":
        texts = []
        for folder, names in machinery().items():
            texts.append(f"## `book/{folder}`: called by {GROUPS[folder]}")
            # Outside the index: these names are not unique in the book, where `errata` is a page, too.
            texts += [documented(name, 3, f"`{name}`", "members", "no-index") for name in names]
        return texts
    raise ValueError(f"{part!r} is not one of core, book, {', '.join(wings())}.")


class Modules(SphinxDirective):
    """Headings and docstrings of the modules of a part of the package."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        try:
            text = "\n\n".join(modules(self.arguments[0]))
        except ValueError as problem:
            raise self.error(str(problem)) from None
        holder = nodes.section()
        self.state.nested_parse(text.splitlines(), self.content_offset, holder, match_titles=True)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    sys.path.append(str(BOOK / "_tools"))  # autodoc imports what it documents
    app.setup_extension("mitobook")
    app.add_directive("layers", Layers)
    app.add_directive("modules", Modules)
    return {"version": "1", "parallel_read_safe": True}
