"""The page on the package: every module of every layer, and arrows that are those of the sources."""

from __future__ import annotations

import re

import diagrams
import layers
import pytest

from mitolib.settings import ROOT


def test_every_module_is_documented_and_every_part_has_a_page():
    package = ROOT / "mitolib"
    paths = [path.relative_to(ROOT).with_suffix("") for path in package.rglob("*.py")]
    names = {".".join(path.parts).removesuffix(".__init__") for path in paths} - {"mitolib", "mitolib.__main__"}
    names |= {path.stem for folder in ("_ext", "_tools") for path in (ROOT / "book" / folder).glob("*.py")}
    parts = {"core", "book", *layers.wings()}
    text = "\n".join("\n".join(layers.modules(part)) for part in parts)
    documented = re.findall(r"automodule:: ([\w.]+)", text)
    assert set(documented) == names and len(documented) == len(names)
    pages = {path.stem: path.read_text(encoding="utf8") for path in (ROOT / "book/api").glob("*.md")}
    assert pages.keys() == parts and all(f"\n```{{modules}} {part}\n" in page for part, page in pages.items())
    overview = (ROOT / "book/api.md").read_text(encoding="utf8")
    assert "```{layers}" in overview and all(f"](api/{part})" in overview for part in parts)


def test_what_a_module_is_for_is_read_from_the_docstring_of_the_package():
    purposes = layers.purposes()
    assert purposes.keys() == {*layers.core(), *layers.wings()}
    assert all(len(what) > 8 and "  " not in what for what in purposes.values())


def test_the_arrows_are_the_imports():
    pairs = layers.arrows()
    assert {("chapters", "core"), ("chapters", "people"), ("people", "core"), ("machinery", "core")} <= pairs
    assert all(importer != needed and needed in {*layers.wings(), "core"} for importer, needed in pairs)
    assert {needed for importer, needed in pairs if importer == "core"} == {"images"}
    words = layers.in_words(pairs)
    assert "from people to" in words and "from the core to images" in words


def test_a_source_that_imports_in_a_function_or_a_module_of_a_wing_imports_it():
    source = "from mitolib.people import folds\ndef f():\n    from mitolib import metrics, __version__\nimport numpy"
    assert layers.imported(source) == {"people", "metrics"}


def test_the_texts_of_the_figure_have_room():
    figure = layers.draw()
    figure.canvas.draw()
    (ax,) = figure.axes
    boxes = [patch for patch in ax.patches if patch.get_gid()]
    for box, text in zip(boxes, (text for text in ax.texts if text.get_gid()), strict=True):
        room, place = box.get_window_extent(), text.get_window_extent()
        assert room.x0 < place.x0 and place.x1 < room.x1 and room.y0 < place.y0 and place.y1 < room.y1, text.get_text()
    assert tuple(figure.get_size_inches()) == pytest.approx(diagrams.SIZES["package"])


def test_a_part_becomes_headings_below_that_of_its_page(render, monkeypatch):
    monkeypatch.setattr(layers, "core", lambda: ["files"])  # to import all takes long
    text, warnings = render("# The core\n\n```{modules} core\n```")
    assert not warnings
    assert "files: files that are there whole or not at all" in text and "Where to write the file or folder" in text


def test_an_unknown_part_is_an_error_that_lists_the_known_ones(render):
    _, warnings = render("```{modules} cellar\n```")
    assert "cellar" in warnings and "core, book, figures" in warnings
