"""Sphinx extension of the book: tables and numbers, read when the book is built.

Published numbers come from `mitolib.paper`, ours from `results/<chapter>.json` beside the pages. A value that
is not there is a warning that names file and key, and the page says so in its place.

    {scores-table} exp1         published scores and ours; `:also: chapter model ...` takes models of another chapter
    {split-table} exp1          published patch counts and ours; `:published-only:` leaves ours out
    {ledger-table}              ledger.py: every claim, our number, the verdict
    {profiles-table}            mitolib.settings.PROFILES
    {gpu-table}                 what benchmarks/bench_gpu.py measured on a GPU, gpu.json, or that nothing was measured
    {result}`exp1 models.VGG16.accuracy .3f`       a number of ours
    {published}`SCORES.exp1.VGG16.accuracy .2f`    a number of the paper
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.ext.autodoc.mock import MockFinder
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

# The package of the checkout that holds these pages, installed or not.
sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents if (folder / "mitolib/__init__.py").exists()]

import ledger  # noqa: E402

from mitolib import paper, settings  # noqa: E402
from mitolib.claims import look_up  # noqa: E402

logger = logging.getLogger(__name__)

# A chapter that was cut in two -> its other half. While the pages of both are not published, prose names the first for
# all: the entries are in its file still, or, where both halves were executed, in that of the other.
OTHER_HALF = {"concept_whitening": "real_concepts"}


def formatted(value: Any, path: str, spec: str, source: str) -> str:
    """`value`, found at `path`, as the page shows it. A score that was undefined in every patch is null in its file."""
    if value is None and path.endswith(".value"):
        return "undefined"
    try:
        return format(value, spec)
    except (TypeError, ValueError):
        raise LookupError(f"{source}: {path!r} is {value!r}, which cannot be shown as {spec!r}") from None


def lags(chapter: str = "*") -> bool:
    """Whether this is a book executed here, as MITOLIB_EXECUTED tells, whose prose speaks of an older run.

    It does where the published page of a chapter, or of any, is older than its notebook, which has other results now.
    """
    if not os.environ.get("MITOLIB_EXECUTED"):
        return False
    import frames  # which needs this module

    pages = (settings.ROOT / "book" / "chapters").glob(f"{chapter}.ipynb")
    return any(frames.behind(page.stem, json.loads(page.read_text(encoding="utf8"))) for page in pages)


def allow_lagging_prose(app: Sphinx, config: Config) -> None:
    """A figure that an older run had is no reason not to build the book of this one."""
    if lags():
        config.suppress_warnings += ["ref.numref", "ref.ref", "myst.xref_missing"]


class Reader:
    """What directives and roles share: reading results, and saying what is missing."""

    def results(self, chapter: str) -> tuple[dict[str, Any], str]:
        """Content and name of `results/<chapter>.json`; of a chapter cut in two, also what only its other half has."""
        name = f"results/{chapter}.json"
        path = Path(self.env.srcdir) / name
        self.env.note_dependency(str(path))
        if not path.exists():
            raise LookupError(f"{name}: not found; the notebook {chapter!r} writes it")
        record = json.loads(path.read_text(encoding="utf8"))
        if chapter in OTHER_HALF:
            other = path.with_name(f"{OTHER_HALF[chapter]}.json")
            self.env.note_dependency(str(other))
            if other.exists():
                record = json.loads(other.read_text(encoding="utf8")) | record
        return record, name

    def missing(self, problem: LookupError) -> nodes.Node:
        named = re.search(r"results/(\w+)\.json", problem.args[0])
        if named and lags(named[1]):
            return nodes.strong("", "[not in this run]")
        logger.warning("mitobook: %s", problem.args[0], location=self.get_location())
        return nodes.strong("", f"[not available: {problem.args[0]}]")


class ResultRole(Reader, SphinxRole):
    """`chapter key format`; the format is optional."""

    def source(self, words: list[str]) -> tuple[Any, str]:
        return self.results(words.pop(0))

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        words, tree = self.text.split(), None
        try:
            tree, source = self.source(words)
            key, spec = words[0], "".join(words[1:])
            return [nodes.Text(formatted(look_up(tree, key, source), key, spec, source))], []
        except LookupError as problem:
            # Sections of the smoke profile are too small for some splits and scores; no published edition holds one.
            if isinstance(tree, Mapping) and tree.get("profile") == "smoke":
                return [nodes.Text("none in smoke")], []
            return [self.missing(problem)], []


class ClaimRole(Reader, SphinxRole):
    """`chapter claim`: the sentence that belongs to what the results of the chapter say of this claim."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        chapter, _, name = self.text.partition(" ")
        try:
            record, source = self.results(chapter)
            sentence = look_up(record, "claims", source).get(name, {}).get("sentence")
            if sentence is None:
                raise LookupError(f"{source}: no claim {name!r} (there are: {', '.join(record['claims'])})")
        except LookupError as problem:
            return [self.missing(problem)], []
        return self.inliner.parse(sentence, self.lineno, self.inliner, self.inliner.parent)


class PublishedRole(ResultRole):
    """`NAME.key format`, NAME being an attribute of mitolib.paper."""

    def source(self, words: list[str]) -> tuple[Any, str]:
        self.env.note_dependency(paper.__file__)
        return paper, "mitolib.paper"


class TableDirective(Reader, SphinxDirective):
    """A numbered table with caption (`:caption:`) and label (`:name:`)."""

    option_spec: ClassVar[dict] = {"caption": directives.unchanged_required, "name": directives.unchanged}
    caption = ""
    style = "counts"  # a class of _static/mito.css

    def run(self) -> list[nodes.Node]:
        for module in (paper, settings):
            self.env.note_dependency(module.__file__)
        self.notes: list[str] = []
        try:
            header, rows = self.content_rows()
        except LookupError as problem:
            return [nodes.paragraph("", "", self.missing(problem))]
        caption = self.options.get("caption", self.caption.format(*self.arguments))
        group = nodes.tgroup("", *(nodes.colspec(colwidth=100 // len(header)) for _ in header), cols=len(header))
        group += [nodes.thead("", self.row(header)), nodes.tbody("", *map(self.row, rows))]
        table = nodes.table("", nodes.title("", "", *self.inline(caption)), group, classes=["mito-table", self.style])
        self.add_name(table)
        return [table, *(nodes.paragraph("", "", *self.inline(note)) for note in self.notes)]

    def row(self, cells: Sequence[str]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *self.inline(cell))) for cell in cells))

    def inline(self, text: str) -> list[nodes.Node]:
        parsed, messages = self.state.inline_text(text, self.lineno)
        return [*parsed, *messages]


class ScoresTable(TableDirective):
    """Published scores above ours: the mean over seeds, and where one further training would lie.

    A network that started from random weights is a control, and has no row here.
    """

    required_arguments = 1
    option_spec = TableDirective.option_spec | {"also": directives.unchanged_required}
    caption = "Test scores of {0}, published and in this edition"
    style = "scores"

    def content_rows(self) -> tuple[list[str], list[list[str]]]:
        experiment, (chapter, *further) = self.arguments[0], self.options.get("also", " ").split() or [""]
        record, source = self.results(experiment)
        origins = {model: (record, source) for model in look_up(record, "models", source)}
        if further:
            origins |= dict.fromkeys(further, self.results(chapter))
        ours, controls = {}, []
        for model, (run, name) in origins.items():
            if self.weights(model, run, name) == "random":
                controls.append(model)
                continue
            for metric in sorted(paper.METRICS):
                look_up(run, f"models.{model}.{metric}", name)
            ours[model] = run["models"][model]
        controls += record.get("controls", {})
        rows = []
        for (model, side), scores in paper.compare_scores({"models": ours}, experiment).iterrows():
            if side == "paper":
                printed = paper.SCORES[experiment].get(model, {})  # two decimals there
                numbers = [f"{x:.{2 if metric in printed else 3}f}" for metric, x in scores.items()]
                rows.append([model, "published", *("not given" if number == "nan" else number for number in numbers)])
            else:
                rows += self.trained(model, ours[model], look_up(origins[model][0], "profile", source))
        self.notes.append(
            f"Ours: {look_up(record, 'provenance.data.name', source)} data; precision, recall and "
            "F1 are macro averages. The paper does not say which average it prints. "
            "The majority baseline is the accuracy of giving every test patch the more frequent label."
        )
        for model in sorted({model for model in controls if model in paper.SCORES[experiment]}):
            self.notes.append(
                f"**{model}: no ImageNet weights could be had, so it has no row of ours.** What an untrained backbone "
                "scores is shown as a control in its chapter."
            )
        return ["Model", "Source", *(metric.replace("_", " ").capitalize() for metric in paper.METRICS)], rows

    def trained(self, model: str, entry: Mapping[str, Any], profile: str) -> list[list[str]]:
        """Our rows of a model: the mean over its seeds and where one more would lie, or its only training."""
        seeds, further = entry.get("seeds", {}), entry.get("further_training", {})
        if len(seeds) < 2:
            numbers = [f"{entry[metric]:.3f}" for metric in paper.METRICS]
            return [[model, f"ours, one training, profile {profile}", *numbers]]
        each = [f"{scores['accuracy']:.3f} after {scores['epochs']:.0f} epochs" for scores in seeds.values()]
        self.notes.append(f"{model}, seed by seed: accuracy {', '.join(each)}.")
        means = [f"{further[m]['value']:.3f}" if m in further else f"{entry[m]:.3f}" for m in paper.METRICS]
        intervals = ["{:.2f} to {:.2f}".format(*further[m]["ci"]) if m in further else "" for m in paper.METRICS]
        return [
            [model, f"ours, mean of {len(seeds)} trainings, profile {profile}", *means],
            [model, "one further training of ours (95 % prediction interval)", *intervals],
        ]

    @staticmethod
    def weights(model: str, record: Mapping[str, Any], source: str) -> str:
        """Where the weights came from that a model started with."""
        return look_up(record, f"provenance.weights.{paper.backbone(model)}.source", source)


class SplitTable(TableDirective):
    """Patches per class and set, as published and in this run."""

    required_arguments = 1
    option_spec = TableDirective.option_spec | {"published-only": directives.flag}
    caption = "Patches of {0} per class and set"

    def content_rows(self) -> tuple[list[str], list[list[str]]]:
        published = paper.split_table(self.arguments[0])
        tables = {"published": published}
        if "published-only" not in self.options:
            results, source = self.results(self.arguments[0])
            split = {
                part: {label: look_up(results, f"split.{part}.{label}", source) for label in settings.LABELS}
                for part in published.columns[:-1]
            }
            tables[f"ours, profile {look_up(results, 'profile', source)}"] = paper.with_totals(split)
        printed = paper.PRINTED_TOTALS[self.arguments[0]]
        for part in (part for part in published.columns if printed[part] != published.loc["total", part]):
            self.notes.append(f"The {part} total is the sum of its column; the paper prints {printed[part]}.")
        rows = [
            [label, name, *(f"{count:,d}" for count in table.loc[label])]
            for label in published.index
            for name, table in tables.items()
        ]
        return ["Class", "Source", *(part.capitalize() for part in published.columns)], rows


class LedgerTable(TableDirective):
    """The numbers of the paper of one kind, `inputs` or `measured`, ours, and the verdict or why there is none."""

    required_arguments = 1
    caption = "The numbers of the paper ({0}), and what this edition makes of them"
    style = "scores ledger"  # _static/site.js makes a table of this class one that can be filtered

    def content_rows(self) -> tuple[list[str], list[list[str]]]:
        self.env.note_dependency(ledger.__file__)
        records = {chapter: self.results(chapter)[0] for chapter in sorted({p.chapter for p in ledger.PRINTED})}
        table = ledger.ledger(records)
        is_measured = self.arguments[0] == ledger.MEASURED
        rows = []
        for row in table[table["kind"] == self.arguments[0]].itertuples():
            printed = f".{row.digits}f"
            shown = ".2f" if is_measured and row.digits else printed
            ours = "none"
            if not math.isnan(row.ours):
                ours = f"[{row.ours:{shown}}](chapters/{row.chapter}.ipynb#{row.made_in})"
            interval = "" if math.isnan(row.low) else f"{row.low:{shown}} to {row.high:{shown}}"
            verdict = row.verdict if row.verdict in (ledger.MATCHES, ledger.REPRODUCED) else f"**{row.verdict}**"
            why = f": {row.why}" if row.why else ""
            between = [interval] if is_measured else []
            rows.append([row.where, row.what, format(row.published, printed), ours, *between, verdict + why])
        return [
            "Where",
            "What",
            "Published",
            "Ours",
            *(["One further training"] if is_measured else []),
            "Verdict",
        ], rows


class ProfilesTable(TableDirective):
    caption = "The profiles"
    style = "scores"

    def content_rows(self) -> tuple[list[str], list[list[str]]]:
        columns = [dict(_entries(profile)) for profile in settings.PROFILES.values()]
        rows = [[f"`{name}`", *(str(column[name]) for column in columns)] for name in columns[0] if name != "name"]
        return ["Parameter", *settings.PROFILES], rows


class GpuTable(TableDirective):
    caption = "The two experiments at the published protocol on a GPU, five trainings of VGG16"
    style = "scores"

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "gpu.json"
        self.env.note_dependency(str(path))
        if path.exists():
            self.measured = json.loads(path.read_text(encoding="utf-8"))
            return super().run()
        return [
            nodes.paragraph("", "", *self.inline("**Not measured yet.** No GPU has run `benchmarks/bench_gpu.py`."))
        ]

    def content_rows(self) -> tuple[list[str], list[list[str]]]:
        found = self.measured
        rows = []
        for name, minutes in found["minutes"].items():
            run = found["measured_minutes"].get(name)
            rows.append(
                [
                    name,
                    f"{minutes['naive']:.0f} min",
                    f"{minutes['bank']:.1f} min",
                    f"{minutes['heads']:.1f} min",
                    f"{found['times'][name]:.0f}",
                    "not run" if run is None else f"{run:.1f} min",
                ]
            )
        passes = ", ".join(f"{milliseconds:.2f} ms in {name}" for name, milliseconds in found["pass_ms"].items())
        self.notes.append(
            f"{found['device']}, {found['backend']}, frozen layers in {found['precision']}, heads in float32. A "
            f"picture takes {passes} in the frozen layers. Timed step by step in one run, at commit "
            f"{found['commit']}, and extrapolated to all 100 epochs, but for the last column, where a training stops "
            "when the paper's does."
        )
        if found["heads_at_once"]:
            self.notes.append(
                f"Five heads at once take {found['heads_at_once']:.1f} times less than one after another."
            )
        return ["Experiment", "The paper's loop", "Bank", "Heads", "Times as fast", "One run of the chapter"], rows


def _entries(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of each field of a dataclass, those of a dataclass in it as `budget.field`."""
    for field in fields(values):
        value = getattr(values, field.name)
        if is_dataclass(value):
            yield from _entries(value, f"{field.name}.")
        else:
            yield prefix + field.name, value


def code_in_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Our docstrings write code between single backticks, as in Markdown; reStructuredText wants two."""
    lines[:] = [re.sub(r"(?<![`:])`([^`]+)`(?![`_])", r"``\1``", line) for line in lines]


def mock_for_good(app: Sphinx) -> None:
    """autodoc mocks only while it imports; a class with a Keras base would have it import the real Keras later."""
    sys.meta_path.insert(0, MockFinder(app.config.autodoc_mock_imports))


def setup(app: Sphinx) -> dict[str, Any]:
    for directive in (ScoresTable, SplitTable, LedgerTable, ProfilesTable, GpuTable):
        app.add_directive(directive.__name__.removesuffix("Table").lower() + "-table", directive)
    app.setup_extension("sphinx.ext.autodoc")
    app.add_role("result", ResultRole())
    app.add_role("claim", ClaimRole())
    app.add_role("published", PublishedRole())
    app.connect("config-inited", allow_lagging_prose)
    app.connect("builder-inited", mock_for_good)
    app.connect("autodoc-process-docstring", code_in_docstring)
    return {"version": "1", "parallel_read_safe": True}
