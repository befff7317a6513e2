"""Sphinx extension of the book: pages that need no network, and pictures that wait until they are scrolled to.

And a name for the arrows of the list of pages, which the theme leaves without one.

Formulas are set by the MathJax in `_vendor/mathjax`, which `html_extra_path` copies beside the pages; Sphinx loads it
on pages that have one. thebe, which Jupyter Book adds to every page, starts kernels on a server: nothing here offers
that, so its script and the address it would load from are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image
from sphinx.application import Sphinx

IMAGE = re.compile(r'<img (?![^>]*\bloading=)([^>]*?\bsrc="([^"]+)"[^>]*?)\s*/?>')


def without_thebe(files: list) -> list:
    """The scripts or style sheets of a page but thebe's; a script that stands in the page itself has no file name."""
    return [f for f in files if "thebe" not in f"{getattr(f, 'filename', f)} {getattr(f, 'attributes', '')}".lower()]


def lighten(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Drop thebe; state the size of each picture of the page and let it load when it is needed."""
    for kind in ("script_files", "css_files"):
        context[kind] = without_thebe(context[kind])
    sources = {name: path for path, name in getattr(app.builder, "images", {}).items()}

    def sized(match: re.Match) -> str:
        attributes, src = match.groups()
        path = Path(app.srcdir, sources.get(Path(src).name, ""))
        size = ""
        if path.is_file() and "width=" not in attributes:
            width, height = picture_size(path)
            size = f' width="{width}" height="{height}"'
        return f'<img loading="lazy"{size} {attributes} />'

    if listed := context.get("generate_toctree_html"):
        context["generate_toctree_html"] = partial(with_named_toggles, listed)
    if "body" in context:
        body = IMAGE.sub(sized, context["body"])
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')  # what a role="list" has to hold


def with_named_toggles(listed: Callable[..., Any], kind: str, **options: Any) -> Any:
    """The theme's list of pages; what opens the pages below one is an arrow there, without a word for it."""
    found = listed(kind, **options)
    return found if kind == "raw" else str(found).replace("<summary>", '<summary aria-label="Pages below this one">')


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in px of a picture; those of an SVG are in its viewBox."""
    if path.suffix == ".svg":
        box = ElementTree.parse(path).getroot().get("viewBox").split()
        return round(float(box[2])), round(float(box[3]))
    with Image.open(path) as image:
        return image.size


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", lighten, priority=900)  # after those that add to the page
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
