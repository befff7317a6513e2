"""Sphinx extension of the book: what stands around the chapters, made from results, notebooks and CITATION.cff.

Each chapter gets its takeaways below the first cell, from `takeaways/<chapter>.md`, and after its last cell how to
run it, its environment, its references, and what comes next. They are added while a page is read; the notebooks
in `chapters/`, which a reader can download, stay as they were executed. A chapter whose notebook has other code by
now, or is gone, says so above its takeaways, with the commit that made it.

    {status-table}              each chapter: profile, date, minutes, machine and commit of the run that is shown
    {citation}                  how to cite, from CITATION.cff and references.bib
    {versus}`exp1 models.VGG16.accuracy models.VGG16.majority_baseline .1%`   "88.5%, more than the 73.0%"

Environment variables, set where the book is published: GITHUB_REPOSITORY (`owner/name`) adds links to Colab and
Binder; MITOLIB_SMOKE names the report of `make smoke` and adds its verdict to each chapter, and badges to the site.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from mitobook import Reader, ResultRole, TableDirective, formatted, lags
from pybtex.database import parse_file
from pybtex.plugin import find_plugin
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mitolib.claims import look_up
from mitolib.settings import ROOT

MOST_LISTED = 3  # networks in an open box

NOTEBOOKS = ROOT / "notebooks"
CHANGED, GONE = "changed", "gone"  # how a page lags behind its notebook
CALLED = ("mitolib", "data/*.json")  # what the code of a chapter calls and reads
CITE = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
QUESTION = re.compile(r"\*\*Question\.\*\*\s*(.+?)(?:\n\s*\n|\Z)", re.S)


# Frames ---------------------------------------------------------------------------------------------------------


def frame(app: Sphinx, docname: str, content: list[str]) -> None:
    """Add the frame to a chapter that Sphinx is about to read; to one that runs nothing, the end of a frame alone."""
    if not docname.startswith("chapters/"):
        return
    source = Path(app.srcdir)
    if not runs(source, docname):
        app.env.note_dependency(str(source / "references.bib"))
        content[0] = "\n\n".join(filter(None, [content[0], references(_cited(content), source), _next(app, docname)]))
        return
    chapter, notebook = docname.removeprefix("chapters/"), json.loads(content[0])
    takeaways = source / f"takeaways/{chapter}.md"
    files = [takeaways, source / f"results/{chapter}.json", source / "references.bib", ROOT / "requirements.lock"]
    for path in [*files, NOTEBOOKS / f"{chapter}.ipynb", *git_log()]:
        app.env.note_dependency(str(path))
    summary = ""
    # They speak of the published page. A gate holds that it has them; a chapter only executed here may not yet.
    if takeaways.exists() and not lags(chapter):
        text = takeaways.read_text(encoding="utf8").strip()
        summary = f":::{{admonition}} Key takeaways\n:class: important\n\n{text}\n:::"
    record = json.loads((source / f"results/{chapter}.json").read_text(encoding="utf8"))
    lag = behind(chapter, notebook)
    head = "\n\n".join(filter(None, [older(chapter, lag, record), summary, budget(record)]))
    cells = [notebook["cells"][0], *([_cell(head, "takeaways")] if head else []), *notebook["cells"][1:]]
    used = _cited([*_markdown(notebook), summary])
    parts = [try_it(chapter, record, lag), environment(record), references(used, source), _next(app, docname)]
    content[0] = json.dumps(notebook | {"cells": [*cells, _cell("\n\n".join(filter(None, parts)), "frame")]})


def runs(source: Path, page: str) -> bool:
    """Whether a page of the book is a chapter with a notebook behind it, and not one of text and drawings."""
    return page.startswith("chapters/") and not (source / f"{page}.md").exists()


def _cell(text: str, name: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def _markdown(notebook: Mapping[str, Any]) -> list[str]:
    """Text of the Markdown cells, and of the outputs that are Markdown."""
    texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", []))
    return texts + ["".join(output["data"].get("text/markdown", "")) for output in outputs if "data" in output]


def _cited(texts: Sequence[str]) -> list[str]:
    """Keys in the order in which they are first cited."""
    return list(dict.fromkeys(key.strip() for text in texts for keys in CITE.findall(text) for key in keys.split(",")))


def behind(chapter: str, page: Mapping[str, Any]) -> str:
    """CHANGED where the notebook of a page has other code by now, GONE where there is none, else nothing."""
    path = NOTEBOOKS / f"{chapter}.ipynb"
    if not path.exists():
        return GONE
    return CHANGED if _code(page) != _code(json.loads(path.read_text(encoding="utf8"))) else ""


def _code(notebook: Mapping[str, Any]) -> list[str]:
    """Sources of the code cells as their author wrote them: without the parameters that papermill puts in."""
    return [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", [])
    ]


def older(chapter: str, lag: str, record: Mapping[str, Any]) -> str:
    """The note at the top of a page that lags: which code it shows, how to get that, how to make the page anew."""
    if not lag:
        return ""
    commit, executed = record["provenance"]["commit"], record["provenance"]["created"][:10]
    if not commit:
        made = f"It was executed on {executed} outside git, so that no commit can be named."
        back = ""
    elif commit.endswith("+"):
        commit = commit.removesuffix("+")
        made = f"It was executed on {executed}, at commit `{commit}` with changes that had not been committed."
        back = f"`git checkout {commit}` comes nearest to its source, without those changes."
    else:
        made = f"It was executed on {executed}, at commit `{commit}`."
        back = f"`git checkout {commit}` brings its source back."
    path = f"`notebooks/{chapter}.ipynb`"
    if lag == GONE:
        title, since, anew = "The notebook of this page is gone", f"{path} has been removed or renamed since.", ""
    else:
        title, since = "This page is older than its notebook", f"The code of {path} has changed since."
        profile = "" if record["profile"] == "paper" else f" PROFILE={record['profile']}"
        anew = f"`make paper CHAPTER={chapter}{profile}` makes the page anew, from the notebook of today."
    text = f"{made} {since} The code on this page, and what it computed, are of that run."
    ways = "\n\n".join(filter(None, [text, " ".join(filter(None, [back, anew]))]))
    return f":::{{admonition}} {title}\n:class: note\n\n{ways}\n:::"


def budget(record: Mapping[str, Any]) -> str:
    """What each network of this very page was trained with, read from its results; "" where these do not say it.

    A list of more than MOST_LISTED is closed: the reader's first screen is for what was found.
    """
    of_networks = record.get("budget", {})
    if not of_networks or not all(isinstance(entries, Mapping) for entries in of_networks.values()):
        return ""

    def listed(entries: Mapping[str, Any]) -> str:
        texts = {
            key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in entries.items()
        }
        return "; ".join(f"{key.replace('_', ' ')} {text}" for key, text in texts.items())

    lines = [f"- {network}: {listed(entries)}" for network, entries in of_networks.items()]
    look = "note" if len(lines) <= MOST_LISTED else "note dropdown"
    return "\n".join([":::{admonition} What was trained for this page", f":class: {look}", "", *lines, ":::"])


def try_it(chapter: str, record: Mapping[str, Any], lag: str = "") -> str:
    """The command that makes this page again; links to hosted machines where the repository has an address."""
    command = f"papermill notebooks/{chapter}.ipynb out.ipynb -p profile {record['profile']}"
    commit = record["provenance"]["commit"]
    before = f"git checkout {commit}" if commit and not commit.endswith("+") else ""
    if lag == GONE and not before:
        return f"## Try it\n\nThere is no command for the run shown here: `notebooks/{chapter}.ipynb` is gone."
    if lag and before:
        command, is_run = f"{before}\n{command}", "That is the run shown here. "
    elif lag:
        is_run = "That runs the notebook of today, whose code is not that of this page. "
    elif before:
        is_run = f"That is the run shown here; after `{before}` it is the very code. {called_since(commit)}"
    else:
        is_run = "That is the run shown here. "
    text = f"## Try it\n\n```bash\n{command}\n```\n\n{is_run}"
    text += "With `-p profile smoke` it only shows that everything runs. [](../running) tells the rest."
    repository = os.environ.get("GITHUB_REPOSITORY")
    if repository and lag != GONE:
        path = f"notebooks/{chapter}.ipynb"
        colab = f"https://colab.research.google.com/github/{repository}/blob/main/{path}"
        binder = f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/{path}"
        name = repository.split("/")[1]
        which = ", the notebook of today" if lag else ""
        text += (
            f" Without installing anything{which}: [Binder]({binder}), or [Colab]({colab}) with this as a new first "
            "cell:\n\n"
            f"```\n!git clone -q https://github.com/{repository}\n!pip install -q -r {name}/requirements.lock\n"
            f"%cd {name}\n```"
        )
    smoke = smoke_runs().get(chapter)
    if smoke:
        text += f"\n\nLast run from the clean source, profile smoke: **{smoke['message']}**."
    return text


def called_since(commit: str) -> str:
    """How many commits since then changed the package or its data; nothing where none did or git cannot tell.

    Such changes get no note at the top: hardly a page would be without one.
    """
    whole = _git("rev-parse", "--is-shallow-repository") == "false"  # of a history cut short the count would be too low
    if not whole or _git("merge-base", "--is-ancestor", commit, "HEAD") is None:
        return ""
    if not _git("diff", "--name-only", commit, "HEAD", "--", *CALLED):
        return ""
    n = int(_git("rev-list", "--count", f"{commit}..HEAD", "--", *CALLED))
    changes = "one commit has changed" if n == 1 else f"{n} commits have changed"
    return (
        f"Since then {changes} the package or its data, so that numbers made today may differ: "
        f"`git log {commit}.. -- {' '.join(CALLED)}`. "
    )


def git_log() -> list[Path]:
    """The file to which git adds a line at every commit and checkout, if there is one: pages tell of commits."""
    log = _git("rev-parse", "--git-path", "logs/HEAD")
    return [ROOT / log] if log and (ROOT / log).exists() else []


def _git(*words: str) -> str | None:
    """What git says in the checkout; None where it cannot say: no git, not in git, no such commit."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def environment(record: Mapping[str, Any]) -> str:
    """The packages of the run beside those of the lock, as a drop-down."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", lock, re.M))
    p = record["provenance"]
    rows = [f"| {name} | {version} | {pins.get(name, 'not locked')} |" for name, version in p["packages"].items()]
    return (
        ":::{admonition} Environment\n:class: tip, dropdown, screen-only\n\n"
        f"| package | this page was executed with | `requirements.lock` |\n|---|---|---|\n"
        f"| Python | {p['python']} | 3.11 or 3.12 |\n" + "\n".join(rows) + "\n\n"
        f"The lock pins {len(pins)} packages; SHA-256 `{hashlib.sha256(lock.encode()).hexdigest()}`. "
        "`make book` installs it into `.venv`; `conda env create -f environment.yml` does the same for conda.\n:::"
    )


def references(keys: Sequence[str], source: Path) -> str:
    """The works that this page cites, in full."""
    if not keys:
        return ""
    style, backend = find_plugin("pybtex.style.formatting", "plain")(), find_plugin("pybtex.backends", "markdown")()
    entries = style.format_bibliography(parse_file(str(source / "references.bib")), list(keys))
    return "## References used here\n\n" + "\n".join(f"- {entry.text.render(backend)}" for entry in entries)


def _pages(source: Path) -> list[str]:
    """The pages after the first, in the order of the table of contents."""
    toc = yaml.safe_load((source / "_toc.yml").read_text(encoding="utf8"))
    return [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]


def _next(app: Sphinx, docname: str) -> str:
    """The next page of the table of contents, with the question it asks."""
    pages = _pages(Path(app.srcdir))
    following = pages[pages.index(docname) + 1]
    path = Path(app.srcdir) / f"{following}.ipynb"
    question = ""
    if path.exists():
        app.env.note_dependency(str(path))
        first = "".join(json.loads(path.read_text(encoding="utf8"))["cells"][0]["source"])
        question = " ".join(QUESTION.search(first)[1].split())
    return f"## What is next\n\n{{doc}}`/{following}`" + (f": {question}" if question else ".")


# Numbers that carry their verdict -------------------------------------------------------------------------------


class VersusRole(ResultRole):
    """`chapter key other-key format`: two numbers side by side. Which of them is greater is for a claim to say."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            chapter, *keys, spec = self.text.split()
            record, source = self.results(chapter)
            numbers = (look_up(record, key, source) for key in keys)
            first, second = (formatted(number, key, spec, source) for number, key in zip(numbers, keys, strict=True))
            return [nodes.Text(f"{first}, beside the {second}")], []
        except LookupError as problem:
            return [self.missing(problem)], []


# Status and citation ---------------------------------------------------------------------------------------------


def smoke_runs() -> dict[str, dict[str, Any]]:
    """chapter -> its badge, in the format of shields' endpoint, from the report of `make smoke`; empty without one."""
    report = os.environ.get("MITOLIB_SMOKE")
    if not report:
        return {}
    suite = ET.parse(ROOT / report).getroot().find("testsuite")
    cells: dict[str, list[bool]] = {}
    for case in suite.iter("testcase"):
        chapter = case.get("classname", "").removeprefix("notebooks.").removesuffix(".ipynb")
        cells.setdefault(chapter, []).append(case.find("failure") is None and case.find("error") is None)
    day = suite.get("timestamp", "")[:10]
    return {
        chapter: {
            "schemaVersion": 1,
            "label": chapter,
            "message": f"passing, {day}" if all(ran) else f"failing in {ran.count(False)} of {len(ran)} cells, {day}",
            "color": "brightgreen" if all(ran) else "red",
        }
        for chapter, ran in cells.items()
    }


def write_badges(app: Sphinx, problem: Exception | None) -> None:
    """`status/<chapter>.json` in the site, where a badge can read it."""
    badges = smoke_runs() if problem is None and app.builder.name == "html" else {}
    for chapter, badge in badges.items():
        path = Path(app.outdir) / "status" / f"{chapter}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(badge), encoding="utf8")


class StatusTable(TableDirective):
    """The run behind each chapter; the last run from the clean source, where a report of it is given."""

    caption = "The run behind each chapter"
    style = "scores"

    def content_rows(self) -> tuple[list[str], list[list[str]]]:
        smoke, rows = smoke_runs(), []
        source = Path(self.env.srcdir)
        for page in (page for page in _pages(source) if runs(source, page)):
            chapter = page.removeprefix("chapters/")
            record, _ = self.results(chapter)
            p = record["provenance"]
            row = [f"[](/{page})", record["profile"], p["created"][:10], f"{p['seconds'] / 60:.1f}"]
            row += [f"{p['device']}, {p['cores']} cores", (p["commit"] or "outside git") + self.lag(page)]
            rows.append(row + ([smoke.get(chapter, {}).get("message", "not run")] if smoke else []))
        header = ["Chapter", "Profile", "Executed", "Minutes", "Machine", "Commit"]
        return header + (["Smoke run, clean source"] if smoke else []), rows

    def lag(self, page: str) -> str:
        """In words whether a page lags behind its notebook."""
        path, chapter = Path(self.env.srcdir) / f"{page}.ipynb", page.removeprefix("chapters/")
        for file in (path, NOTEBOOKS / f"{chapter}.ipynb"):
            self.env.note_dependency(str(file))
        if not path.exists():
            raise LookupError(f"{page}.ipynb: not found; `make paper CHAPTER={chapter}` makes it")
        words = {CHANGED: "; **its notebook has changed since**", GONE: "; **its notebook is gone**"}
        return words.get(behind(chapter, json.loads(path.read_text(encoding="utf8"))), "")


class Parsed(Reader, SphinxDirective):
    """A directive that makes Markdown and lets the page's parser read it."""

    def markdown(self, text: str) -> list[nodes.Node]:
        holder = nodes.container()
        self.state.nested_parse(text.splitlines(), self.content_offset, holder)
        return holder.children

    def inline(self, text: str) -> list[nodes.Node]:
        parsed, messages = self.state.inline_text(text, self.lineno)
        return [*parsed, *messages]


class Citation(Parsed):
    """How to cite the book, from CITATION.cff, and the paper, from references.bib."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(ROOT / "CITATION.cff"))
        cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
        return self.markdown(cite_this(cff, (Path(self.env.srcdir) / "references.bib").read_text(encoding="utf8")))


def cite_this(cff: Mapping[str, Any], bibliography: str) -> str:
    """Markdown: this book in words and as BibTeX, then the paper as BibTeX."""
    authors = [a.get("name") or f"{a['given-names']} {a['family-names']}" for a in cff["authors"]]
    version, released, title = str(cff["version"]), str(cff["date-released"]), cff["title"]
    entry = {
        "author": " and ".join(f"{{{author}}}" for author in authors),
        "title": f"{{{title}}}",
        "version": version,
        "year": released[:4],
        "note": f"Released {released}, licence {cff['license']}",
    }
    fields = "".join(f"  {key} = {{{value}}},\n" for key, value in entry.items())
    of_the_paper = re.search(r"@techreport\{pilla2022interpretable,.*?\n\}", bibliography, re.S)[0]
    return (
        f"{cff['message']}\n\n## This book\n\n> {', '.join(authors)}. *{title}*. Version {version}, {released}.\n\n"
        f"```bibtex\n@software{{mitolib,\n{fields}}}\n```\n\n"
        f"## The paper\n\n{{cite:t}}`pilla2022interpretable`:\n\n```bibtex\n{of_the_paper}\n```\n"
    )


# Head of a page ---------------------------------------------------------------------------------------------------


def describe(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document) -> None:
    """Open Graph tags; and for a chapter its question as the description."""
    if doctree is None:
        return
    described = re.search(
        r'name="description" content="([^"]*)"|content="([^"]*)" name="description"', context["metatags"]
    )
    text = described and (described[1] or described[2])
    if not text:
        question = QUESTION.search(doctree.astext()) or re.search(r"Question\.\s+(.+?)\n\n", doctree.astext(), re.S)
        if not question:
            return
        text = escape(textwrap.shorten(" ".join(question[1].split()), 300))
        context["metatags"] += f'<meta name="description" content="{text}" />\n'
    title = escape(re.sub("<[^>]+>", "", context["title"]))
    for key, value in (("title", title), ("description", text), ("type", "article"), ("site_name", app.config.project)):
        context["metatags"] += f'<meta property="og:{key}" content="{value}" />\n'


def setup(app: Sphinx) -> dict[str, Any]:
    for extension in ("mitobook", "errata", "drawings", "found", "layers"):
        app.setup_extension(extension)
    app.add_directive("status-table", StatusTable)
    app.add_directive("citation", Citation)
    app.add_role("versus", VersusRole())
    app.connect("source-read", frame)
    app.connect("build-finished", write_badges)
    app.connect("html-page-context", describe)
    return {"version": "1", "parallel_read_safe": True}
