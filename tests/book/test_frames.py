"""What stands around the chapters: made from files, true in every profile, and no link that leads nowhere."""

from __future__ import annotations

import json
import pickle
import subprocess
from pathlib import Path
from types import SimpleNamespace

import frames
import gates
import pytest
import yaml
from test_book import toc_files

from mitolib import __version__
from mitolib.settings import ROOT

BOOK = ROOT / "book"

RECORD = {
    "profile": "quick",
    "provenance": {
        "commit": "abc123",
        "created": "2026-11-25T04:10:29Z",
        "python": "3.11.7",
        "packages": {"numpy": "1.26.4", "unheard-of": "1.0"},
    },
}
VGG16 = {"accuracy": 0.875, "balanced_accuracy": 0.85, "majority_baseline": 0.75}


PUBLISHED = [page.removeprefix("chapters/") for page in toc_files() if frames.runs(BOOK, page)]


def run_at(commit: str | None, **changes: str) -> dict:
    """The record of a run at that commit."""
    return RECORD | {"provenance": RECORD["provenance"] | {"commit": commit}} | changes


@pytest.fixture
def dependencies() -> list[str]:
    """The files that the page which was read last depends on."""
    return []


@pytest.fixture
def framed(monkeypatch, dependencies):
    """docname -> the cells of that chapter of the published edition, with and without its frame."""
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.delenv("MITOLIB_SMOKE", raising=False)
    app = SimpleNamespace(srcdir=str(BOOK), env=SimpleNamespace(note_dependency=dependencies.append))

    def read(docname: str) -> tuple[list[dict], list[dict]]:
        dependencies.clear()
        text = (BOOK / f"{docname}.ipynb").read_text(encoding="utf8")
        content = [text]
        frames.frame(app, docname, content)
        return json.loads(content[0])["cells"], json.loads(text)["cells"]

    return read


@pytest.mark.parametrize("chapter", PUBLISHED)
def test_a_frame_adds_two_cells_and_changes_none(framed, chapter):
    shown, executed = framed(f"chapters/{chapter}")
    assert [shown[0], *shown[2:-1]] == executed
    assert "Key takeaways" in shown[1]["source"]
    assert f"notebooks/{chapter}.ipynb" in shown[-1]["source"]


def test_a_page_that_is_no_chapter_stays_as_it_is():
    content = ["# Glossary\n"]
    frames.frame(SimpleNamespace(), "glossary", content)
    assert content == ["# Glossary\n"]


def test_a_chapter_that_was_only_executed_here_may_have_no_takeaways_yet(framed, monkeypatch):
    published = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.parent.name != "takeaways" and published(path))
    monkeypatch.setattr(frames, "behind", lambda chapter, notebook: "")
    shown, executed = framed(f"chapters/{PUBLISHED[0]}")
    assert shown[:-1] == executed and "## Try it" in shown[-1]["source"]


def test_a_chapter_of_text_and_drawings_ends_as_the_others_do():
    app = SimpleNamespace(srcdir=str(BOOK), env=SimpleNamespace(note_dependency=lambda path: None))
    content = [text := (BOOK / "chapters/overview.md").read_text()]
    frames.frame(app, "chapters/overview", content)
    assert content[0].startswith(text) and "Try it" not in content[0]
    assert "## References used here" in content[0] and "{doc}`/chapters/data_engineering`: " in content[0]


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
    assert "git checkout" not in frames.try_it("exp1", run_at("abc123+"))


def test_a_page_says_what_was_trained_for_it_and_nothing_where_its_results_do_not():
    trained = {"VGG16": {"epochs": 100, "batch_size": 2, "seeds": 2, "epochs run": [71, 32]}}
    text = frames.budget(RECORD | {"budget": trained})
    assert "- VGG16: epochs 100; batch size 2; seeds 2; epochs run 71, 32" in text
    assert frames.budget(RECORD) == "" and frames.budget(RECORD | {"budget": {"steps": 150}}) == ""


# Pages that lag behind their notebooks ---------------------------------------------------------------------------


def cell(kind: str, source: str | list[str], *tags: str) -> dict:
    return {"cell_type": kind, "source": source, "metadata": {"tags": list(tags)}}


WRITTEN = [cell("markdown", "# Title"), cell("code", "profile = None", "parameters"), cell("code", "x = 1\nprint(x)")]
RAN = [*WRITTEN[:2], cell("code", 'profile = "quick"', "injected-parameters"), cell("code", ["x = 1\n", "print(x)"])]


@pytest.mark.parametrize(
    ("written", "lag"),
    [
        (WRITTEN, ""),
        ([cell("markdown", "# Another title"), *WRITTEN[1:]], ""),  # the text can be mended without a run
        ([*WRITTEN[:2], cell("code", "x = 2\nprint(x)")], frames.CHANGED),
        ([WRITTEN[0], cell("code", "profile = seed = None", "parameters"), WRITTEN[2]], frames.CHANGED),
        (WRITTEN[:2], frames.CHANGED),
        ([*WRITTEN, cell("code", "print(2)")], frames.CHANGED),
        (None, frames.GONE),
    ],
    ids=["the same", "other text", "other code", "another parameter", "a cell less", "a cell more", "removed"],
)
def test_a_page_lags_exactly_where_a_release_is_refused(tmp_path, monkeypatch, written, lag):
    monkeypatch.setattr(frames, "NOTEBOOKS", tmp_path / "notebooks")
    for folder, cells in (("notebooks", written), ("book/chapters", RAN)):
        (tmp_path / folder).mkdir(parents=True)
        if cells:
            (tmp_path / folder / "some.ipynb").write_text(json.dumps({"cells": cells}))
    assert frames.behind("some", {"cells": RAN}) == lag
    assert bool(gates.lagging(tmp_path)) == bool(lag)


@pytest.mark.parametrize(
    ("commit", "says", "never"),
    [
        ("abc123", ["at commit `abc123`.", "`git checkout abc123` brings its source back."], ["not been committed"]),
        ("abc123+", ["at commit `abc123` with changes that had not been committed.", "nearest"], ["abc123+", "back"]),
        (None, ["outside git", "no commit can be named"], ["None", "git checkout"]),
    ],
)
def test_the_note_tells_which_code_is_shown_and_how_to_make_the_page_anew(commit, says, never):
    changed, gone = (frames.older("exp1", lag, run_at(commit)) for lag in (frames.CHANGED, frames.GONE))
    for note in (changed, gone):
        assert "on 2026-11-25" in note and all(words in note for words in says)
        assert not any(words in note for words in never)
    assert "`notebooks/exp1.ipynb` has changed since" in changed
    assert "`make paper CHAPTER=exp1 PROFILE=quick` makes the page anew" in changed
    assert "`make paper CHAPTER=exp1` " in frames.older("exp1", frames.CHANGED, run_at(commit, profile="paper"))
    assert "removed or renamed" in gone and "make paper" not in gone
    assert frames.older("exp1", "", run_at(commit)) == ""


@pytest.mark.parametrize("state", ["the same", "changed", "gone"])
def test_the_note_stands_above_the_takeaways_of_a_chapter_that_lags_and_of_no_other(
    framed, dependencies, tmp_path, monkeypatch, state
):
    docname = f"chapters/{PUBLISHED[0]}"
    path = tmp_path / f"{PUBLISHED[0]}.ipynb"
    monkeypatch.setattr(frames, "NOTEBOOKS", tmp_path)
    cells = json.loads((BOOK / f"{docname}.ipynb").read_text())["cells"]
    if state == "changed":
        next(one for one in cells if one["cell_type"] == "code")["source"] = "profile = 0"
    if state != "gone":
        path.write_text(json.dumps({"cells": cells}))
    shown, executed = framed(docname)
    assert [shown[0], *shown[2:-1]] == executed
    head = shown[1]["source"]
    titles = {"the same": "Key takeaways", "changed": "This page is older", "gone": "The notebook of this page is gone"}
    assert head.startswith(f":::{{admonition}} {titles[state]}")
    assert head.count("{admonition}") == (1 if state == "the same" else 2) and "Key takeaways" in head
    assert str(path) in dependencies, "read again when its notebook changes"


def test_the_line_to_try_of_a_page_that_lags_begins_at_its_commit_or_does_not_claim_to_be_its_run(monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/muscle")
    for lag in (frames.CHANGED, frames.GONE):
        text = frames.try_it("exp1", run_at("abc123"), lag)
        assert "```bash\ngit checkout abc123\npapermill notebooks/exp1.ipynb" in text and "the run shown here" in text
    for commit in ("abc123+", None):
        text = frames.try_it("exp1", run_at(commit), frames.CHANGED)
        assert "the run shown here" not in text and "whose code is not that of this page" in text
        text = frames.try_it("exp1", run_at(commit), frames.GONE)
        assert "papermill" not in text and "git checkout" not in text and "is gone" in text
    assert "the notebook of today: [Binder]" in frames.try_it("exp1", run_at("abc123"), frames.CHANGED)
    assert "http" not in frames.try_it("exp1", run_at("abc123"), frames.GONE), "a link would lead nowhere"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of its own in place of ours: `write(text)` commits a file of the package and returns the commit."""
    root = tmp_path / "checkout"
    (root / "mitolib").mkdir(parents=True)
    monkeypatch.setattr(frames, "ROOT", root)

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()

    def write(text: str, name: str = "mitolib/heads.py") -> str:
        (root / name).write_text(text)
        git("add", name)
        git("commit", "-q", "-m", "a change")
        return git("rev-parse", "--short=12", "HEAD")

    git("init", "-q")
    return SimpleNamespace(root=root, git=git, write=write)


def test_a_page_whose_package_has_changed_says_so_in_one_line_at_its_end(checkout):
    commit = checkout.write("steps = 1")
    checkout.write("a page", name="README.md")
    assert frames.called_since(commit) == ""
    checkout.write("steps = 2")
    assert "one commit has changed the package or its data" in frames.called_since(commit)
    checkout.write("steps = 3")
    assert f"may differ: `git log {commit}.. -- mitolib data/*.json`" in frames.called_since(commit)
    assert "2 commits have changed" in frames.try_it("exp1", run_at(commit))
    assert "commits have changed" not in frames.try_it("exp1", run_at(commit), frames.CHANGED), "its note says more"
    assert "have changed" not in frames.try_it("exp1", run_at(f"{commit}+")), "what had been changed is not known"
    checkout.write("steps = 1")
    assert frames.called_since(commit) == "", "changed back"


def test_where_git_cannot_tell_nothing_is_said_of_the_package(checkout, tmp_path, monkeypatch):
    commit = checkout.write("steps = 1")
    known = checkout.write("steps = 2")
    checkout.write("steps = 3")
    assert frames.called_since(commit) and frames.called_since("0" * 12) == ""
    aside = checkout.git("commit-tree", "-m", "on no branch", f"{commit}^{{tree}}")
    assert frames.called_since(aside) == ""
    subprocess.run(["git", "clone", "-q", "--depth=2", checkout.root.as_uri(), "shallow"], cwd=tmp_path, check=True)
    monkeypatch.setattr(frames, "ROOT", tmp_path / "shallow")
    assert frames.called_since(commit) == "" and frames.called_since(known) == ""
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr(frames, "ROOT", tmp_path / "unpacked")
    assert frames.called_since(commit) == "" and frames.git_log() == []
    monkeypatch.setenv("PATH", "")  # no git at all
    monkeypatch.setattr(frames, "ROOT", checkout.root)
    assert frames.called_since(commit) == "" and frames.git_log() == []


def test_a_chapter_is_read_again_after_a_commit(framed, dependencies, checkout):
    checkout.write("steps = 1")
    (log,) = frames.git_log()
    before = log.read_text()
    checkout.write("steps = 2")
    assert log.read_text().startswith(before) and log.read_text() != before
    (checkout.root / "requirements.lock").write_text("")
    framed(f"chapters/{PUBLISHED[0]}")
    assert str(log) in dependencies


def test_the_table_of_runs_marks_the_chapters_that_lag(render, tmp_path, monkeypatch):
    monkeypatch.delenv("MITOLIB_SMOKE", raising=False)
    monkeypatch.setattr(frames, "NOTEBOOKS", tmp_path / "notebooks")
    names = ("same", "other", "gone")
    pages = [*(f"chapters/{name}" for name in (*names, "written")), "results"]
    toc = {"parts": [{"chapters": [{"file": page} for page in pages]}]}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    for folder, of in (("notebooks", {"same": WRITTEN, "other": WRITTEN[:2]}), ("chapters", dict.fromkeys(names, RAN))):
        (tmp_path / folder).mkdir()
        for name, cells in of.items():
            (tmp_path / folder / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "chapters/written.md").write_text("# Text and drawings")
    about = RECORD["provenance"] | {"seconds": 90, "device": "a processor", "cores": 2}
    runs = {name: RECORD | {"provenance": about | {"commit": f"commit-of-{name}"}} for name in names}
    text, _ = render("```{status-table}\n```", **runs)
    assert "commit-of-other; its notebook has changed since" in text and "commit-of-gone; its notebook is gone" in text
    assert text.count("commit-of-") == 3 and text.count("; its notebook") == 2
    environment = pickle.loads((tmp_path / "out/trees/environment.pickle").read_bytes())
    read = {str(tmp_path / folder / f"{name}.ipynb") for folder in ("notebooks", "chapters") for name in names}
    assert read <= environment.dependencies["index"], "made anew when a notebook or a chapter changes"
    (tmp_path / "chapters/gone.ipynb").unlink()
    _, warnings = render("```{status-table}\n```", **runs)
    assert "chapters/gone.ipynb: not found" in warnings


# What stands around every page -----------------------------------------------------------------------------------


def test_the_environment_shows_what_was_used_beside_what_is_locked():
    text = frames.environment(RECORD)
    assert "| numpy | 1.26.4 | 1.26.4 |" in text and "| unheard-of | 1.0 | not locked |" in text


def test_references_are_those_that_the_page_cites_each_once():
    keys = frames._cited(["{cite:t}`chen2020concept` and {cite:p}`he2016deep,chen2020concept`."])
    assert keys == ["chen2020concept", "he2016deep"]
    listed = frames.references(keys, BOOK)
    assert listed.count("\n- ") == 2 and "Concept whitening" in listed and "doi.org" in listed
    assert frames.references([], BOOK) == ""


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
    [(0.75, "0.88, beside the 0.75"), (0.95, "0.88, beside the 0.95")],
)
def test_two_numbers_stand_side_by_side_without_a_verdict(render, other, words):
    record = {"models": {"VGG16": VGG16 | {"majority_baseline": other}}}
    page = "{versus}`exp1 models.VGG16.accuracy models.VGG16.majority_baseline .2f`"
    text, warnings = render(page, exp1=record)
    assert words in text and not warnings


def test_an_undefined_score_is_called_so_beside_another(render):
    record = {"map": {"value": None}, "edges": {"value": 1.234}}
    text, warnings = render("{versus}`exp1 map.value edges.value .2f`", exp1=record)
    assert "undefined, beside the 1.23" in text and not warnings


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("{versus}`exp1 models.VGG16.accuracy models.VGG16.nonsense .2f`", ("results/exp1.json", "nonsense")),
        ("{versus}`exp1 models.VGG16.accuracy models.VGG16 .2f`", ("results/exp1.json", ".2f")),
    ],
)
def test_a_missing_value_is_a_warning_that_names_it_and_no_blank(render, page, names):
    text, warnings = render(page, exp1={"models": {"VGG16": VGG16}})
    assert warnings.count("WARNING") == 1 and all(name in warnings for name in names), warnings
    assert "[not available:" in text
