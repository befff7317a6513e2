"""What stands around the chapters: made from files, true in every profile, and no link that leads nowhere."""

from __future__ import annotations

import json
from types import SimpleNamespace

import frames
import pytest
import yaml

from mitolib import __version__, execute, paper
from mitolib.settings import ROOT

BOOK = ROOT / "book"

RECORD = {
    "profile": "quick",
    "provenance": {"commit": "abc123", "python": "3.11.7", "packages": {"numpy": "1.26.4", "unheard-of": "1.0"}},
}
VGG16 = {"accuracy": 0.875, "balanced_accuracy": 0.85, "majority_baseline": 0.75}
BRIEF = {"patch_accuracy": 0.9, "balanced_accuracy": 0.8, "ci": {"balanced_accuracy": [0.7, 0.9]}}
UNSEEN = {"patch_accuracy": 0.7, "balanced_accuracy": 0.6, "ci": {"balanced_accuracy": None}}
FOUND = {name: {"models": {"VGG16": VGG16}} for name in ("exp1", "exp2")} | {
    "patient_level": {
        "by_model": {head: {"published": BRIEF, frames.UNSEEN: UNSEEN} for _, head in frames.PANELS.values()},
    }
}


@pytest.fixture
def framed(monkeypatch):
    """docname -> the cells of that chapter of the published edition, with and without its frame."""
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.delenv("MITOLIB_SMOKE", raising=False)
    app = SimpleNamespace(srcdir=str(BOOK), env=SimpleNamespace(note_dependency=lambda path: None))

    def read(docname: str) -> tuple[list[dict], list[dict]]:
        text = (BOOK / f"{docname}.ipynb").read_text(encoding="utf8")
        content = [text]
        frames.frame(app, docname, content)
        return json.loads(content[0])["cells"], json.loads(text)["cells"]

    return read


@pytest.mark.parametrize("chapter", execute.CHAPTERS)
def test_a_frame_adds_two_cells_and_changes_none(framed, chapter):
    shown, executed = framed(f"chapters/{chapter}")
    assert [shown[0], *shown[2:-1]] == executed
    assert "Key takeaways" in shown[1]["source"]
    assert f"papermill notebooks/{chapter}.ipynb" in shown[-1]["source"]


def test_a_page_that_is_no_chapter_stays_as_it_is():
    content = ["# Glossary\n"]
    frames.frame(SimpleNamespace(), "glossary", content)
    assert content == ["# Glossary\n"]


def test_a_chapter_without_takeaways_is_an_error_that_names_the_file(tmp_path):
    app = SimpleNamespace(srcdir=str(tmp_path), env=SimpleNamespace(note_dependency=lambda path: None))
    with pytest.raises(FileNotFoundError, match=r"takeaways/exp9.md: not found. Write"):
        frames.frame(app, "chapters/exp9", ['{"cells": []}'])


def test_each_chapter_leads_to_the_next_page_and_to_a_chapter_with_its_question(framed):
    assert "{doc}`/chapters/exp2`: Does a network that sees all ten" in framed("chapters/exp1")[0][-1]["source"]
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    pages = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    before_results = pages[pages.index("results") - 1]
    assert framed(before_results)[0][-1]["source"].endswith("{doc}`/results`.")


def test_hosted_machines_are_offered_only_where_the_repository_has_an_address(monkeypatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    assert "http" not in frames.try_it("exp1", RECORD)
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/muscle")
    text = frames.try_it("exp1", RECORD)
    assert "colab.research.google.com/github/someone/muscle/blob/main/notebooks/exp1.ipynb" in text
    assert "mybinder.org/v2/gh/someone/muscle/main?urlpath=lab/tree/notebooks/exp1.ipynb" in text


def test_the_line_to_try_is_the_run_that_is_shown_and_its_code_only_where_it_was_committed():
    assert "-p profile quick\n" in frames.try_it("exp1", RECORD)
    assert "git checkout abc123" in frames.try_it("exp1", RECORD)
    changed = RECORD | {"provenance": RECORD["provenance"] | {"commit": "abc123+"}}
    assert "git checkout" not in frames.try_it("exp1", changed)


def test_the_environment_shows_what_was_used_beside_what_is_locked():
    text = frames.environment(RECORD)
    assert "| numpy | 1.26.4 | 1.26.4 |" in text and "| unheard-of | 1.0 | not locked |" in text


def test_references_are_those_that_the_page_cites_each_once():
    keys = frames._cited(["{cite:t}`chen2020concept` and {cite:p}`he2016deep,chen2020concept`."])
    assert keys == ["chen2020concept", "he2016deep"]
    listed = frames.references(keys, BOOK)
    assert listed.count("\n- ") == 2 and "Concept whitening" in listed and "doi.org" in listed
    assert frames.references([], BOOK) == ""


def test_the_first_picture_holds_the_numbers_of_the_result_files(tmp_path):
    panels = frames.found(FOUND, vars(paper))
    one = panels["one protein"]
    assert [row["value"] for row in one] == [paper.SCORES["exp1"]["VGG16"]["accuracy"], 0.85, 0.8, 0.6]
    assert [row["interval"] for row in one] == [None, None, [0.7, 0.9], None]
    assert [row["baseline"] for row in one] == [paper.MAJORITY_BASELINE["exp1"], 0.5, 0.5, 0.5]
    words = frames.in_words(panels)
    assert words.count("0.80 (0.70 to 0.90) beside 0.50") == 2 and words.count("0.60 beside 0.50") == 2
    for stacked in (True, False):
        frames.draw_found(panels, tmp_path / "found.svg", stacked=stacked)
        first = (tmp_path / "found.svg").read_bytes()
        frames.draw_found(panels, tmp_path / "found.svg", stacked=stacked)
        assert (tmp_path / "found.svg").read_bytes() == first, "the same numbers give the same file"


REPORT = """<testsuites><testsuite timestamp="2026-11-25T03:23:52">
<testcase classname="notebooks.exp1.ipynb" name="Cell 0" /><testcase classname="notebooks.exp2.ipynb" name="Cell 0" />
<testcase classname="notebooks.exp2.ipynb" name="Cell 1"><failure message="x" /></testcase>
</testsuite></testsuites>"""


def test_a_smoke_run_becomes_a_badge_for_each_notebook(tmp_path, monkeypatch):
    monkeypatch.delenv("MITOLIB_SMOKE", raising=False)
    assert frames.smoke_runs() == {}
    (tmp_path / "smoke.xml").write_text(REPORT)
    monkeypatch.setenv("MITOLIB_SMOKE", str(tmp_path / "smoke.xml"))
    badges = frames.smoke_runs()
    assert badges["exp1"]["message"] == "passing, 2026-11-25" and badges["exp1"]["color"] == "brightgreen"
    assert badges["exp2"]["message"] == "failing in 1 of 2 cells, 2026-11-25" and badges["exp2"]["color"] == "red"
    assert "**passing, 2026-11-25**" in frames.try_it("exp1", RECORD)
    app = SimpleNamespace(outdir=str(tmp_path), builder=SimpleNamespace(name="html"))
    frames.write_badges(app, None)
    assert json.loads((tmp_path / "status/exp2.json").read_text()) == badges["exp2"]


def test_the_way_to_cite_is_that_of_the_citation_file():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    text = frames.cite_this(cff, (BOOK / "references.bib").read_text())
    assert all(str(cff[key]) in text for key in ("title", "version", "date-released", "license", "message"))
    assert str(cff["version"]) == __version__ and f"## {__version__}" in (BOOK / "changelog.md").read_text()
    assert cff["references"][0]["title"].split()[0] in text and "@techreport{pilla2022interpretable" in text


@pytest.mark.parametrize(
    ("other", "words"),
    [(0.75, "0.88, more than the 0.75"), (0.95, "0.88, less than the 0.95"), (0.876, "0.88, as much as the 0.88")],
)
def test_a_comparison_takes_its_verdict_from_the_numbers(render, other, words):
    record = {"models": {"VGG16": VGG16 | {"majority_baseline": other}}}
    page = "{versus}`exp1 models.VGG16.accuracy models.VGG16.majority_baseline .2f`"
    text, warnings = render(page, exp1=record)
    assert words in text and not warnings


def test_a_comparison_with_an_undefined_score_gives_no_verdict(render):
    record = {"map": {"value": None}, "edges": {"value": 1.234}}
    text, warnings = render("{versus}`exp1 map.value edges.value .2f`", exp1=record)
    assert "undefined, beside the 1.23" in text and not warnings


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("{versus}`exp1 models.VGG16.accuracy models.VGG16.nonsense .2f`", ("results/exp1.json", "nonsense")),
        ("{versus}`exp1 models.VGG16.accuracy models.VGG16 .2f`", ("results/exp1.json", ".2f")),
        ("```{found-figure}\nCaption.\n```", ("results/exp2.json",)),
    ],
)
def test_a_missing_value_is_a_warning_that_names_it_and_no_blank(render, page, names):
    text, warnings = render(page, exp1=FOUND["exp1"])
    assert warnings.count("WARNING") == 1 and all(name in warnings for name in names), warnings
    assert "[not available:" in text


def test_the_first_picture_is_in_the_site_in_both_shapes_with_its_words(render, tmp_path):
    page = "```{found-figure}\n:name: fig-found\n\nA caption.\n```"
    _, warnings = render(page, **FOUND)
    out = tmp_path / "out"
    html = (out / "index.html").read_text()
    assert not warnings and html.count('alt="Dots with intervals') == 2
    assert {path.name for path in (out / "_images").iterdir()} == {"found-wide.svg", "found-narrow.svg"}
