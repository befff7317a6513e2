"""Figures that are drawn while a page is read."""

from __future__ import annotations

import re

import drawings
import pytest

from mitolib.settings import ROOT


@pytest.mark.parametrize("name", drawings.DIAGRAMS)
def test_a_diagram_drawn_twice_is_the_same_file(tmp_path, name):
    path, files = tmp_path / f"{name}.svg", []
    for _ in range(2):
        drawings.save(drawings.DIAGRAMS[name](), path)
        files.append(path.read_bytes())
    assert files[0] == files[1] and len(files[0]) < 1_000_000


def test_a_diagram_has_its_caption_its_words_and_its_number(render, tmp_path):
    figure = "```{diagram} latent\n:name: fig-cloud\n:alt: A cloud: round.\n\nA *caption*.\n```"
    _, warnings = render(f"See {{numref}}`fig-cloud`.\n\n{figure}")
    html = (tmp_path / "out/index.html").read_text()
    assert not warnings and html.count("Fig. 1") == 2, "in the text and in the caption"
    assert 'alt="A cloud: round."' in html and "A <em>caption</em>." in html and 'id="fig-cloud"' in html
    assert [path.name for path in (tmp_path / "out/_images").iterdir()] == ["latent.svg"]


def test_an_unknown_diagram_is_an_error_that_lists_the_known_ones(render):
    _, warnings = render("```{diagram} nonsense\n:alt: Nothing.\n```")
    assert "nonsense" in warnings and all(name in warnings for name in drawings.DIAGRAMS)


def test_the_overview_shows_every_diagram_with_words_for_it():
    text = (ROOT / "book/chapters/overview.md").read_text()
    shown = re.findall(r"^```\{diagram\} (\w+)\n:name: (fig-[\w-]+)\n:alt: (.+)\n\n\w.+", text, re.M)
    assert [name for name, _, _ in shown] == list(drawings.DIAGRAMS)
    assert all(len(alt) > 40 for _, _, alt in shown) and len({label for _, label, _ in shown}) == len(shown)
