"""Sphinx extension of the book: the pictures on its first page.

{tissue-strip}              tissue in three proteins; a patch, its Grad-CAM, its deficient fibres; from chapter `look`
{found-figure}              the score as published, ours, and of people not seen; `:name:`, and the caption as content
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from docutils import nodes
from drawings import DrawnFigure, save
from matplotlib.figure import Figure
from mitobook import Reader
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mitolib import paper
from mitolib.claims import look_up

UNSEEN = "leave-one-control-one-patient-out"
LOOK = "chapters/look.ipynb"
MIXED = re.compile(r"(?P<proteins>.+ red, .+ green, .+ blue), in section (?P<section>.+)")
CALLED = re.compile(r"patch; (?P<who>(?P<subject>.+), a patient: p\(patient\) (?P<p>[\d.]+), right)")
PANELS = {"one protein": ("exp1", "VGG16-head"), "ten proteins": ("exp2", "VGG16-head-ten-proteins")}


def compared(records: Mapping[str, Mapping[str, Any]], published: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """panel -> rows: the paper's accuracy, then our balanced accuracies, down to that of people not seen.

    Each row: `what`, `value`, `interval` (None where there is none) and `baseline`, what always giving one answer
    scores by the same measure. The paper prints no balanced accuracy, and its accuracy does not yield one.
    """
    panels = {}
    for panel, (experiment, head) in PANELS.items():
        ours = look_up(records[experiment], "models.VGG16", f"results/{experiment}.json")
        brief, unseen = (
            look_up(records["patient_level"], f"by_model.{head}.{split}", "results/patient_level.json")
            for split in ("published", UNSEEN)
        )
        printed, always = (published[table][experiment] for table in ("SCORES", "MAJORITY_BASELINE"))
        rows = [("published (accuracy)", printed["VGG16"]["accuracy"], None, always)]
        further = ours.get("further_training", {}).get("balanced_accuracy", {})
        rows.append(("here, same split, long", further.get("value", ours["balanced_accuracy"]), further.get("ci"), 0.5))
        for what, scores in (
            ("here, same split, briefly", brief),
            ("people not seen, briefly", unseen),
        ):
            rows.append((what, scores["balanced_accuracy"], scores["ci"]["balanced_accuracy"], 0.5))
        panels[panel] = [dict(zip(("what", "value", "interval", "baseline"), row, strict=True)) for row in rows]
    return panels


def draw(panels: Mapping[str, list[dict[str, Any]]], *, stacked: bool) -> Figure:
    """The panels of `compared`: side by side, or one above the other for a phone."""
    shape, size = ((len(panels), 1), (4.9, 4.4)) if stacked else ((1, len(panels)), (8.6, 2.35))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(*shape, sharex=True, sharey=True)
    for ax, (panel, rows) in zip(axes, panels.items(), strict=True):
        for y, row in enumerate(rows):
            ax.plot([row["baseline"]] * 2, [y - 0.38, y + 0.38], color="0.45", lw=1.6, ls=(0, (3, 1.5)))
            if row["interval"]:
                ax.plot(row["interval"], [y, y], color="#0b5fa5", lw=2, solid_capstyle="butt")
            colours = dict(color="#0b5fa5") if y else dict(color="white", mec="black", mew=1.4)
            ax.plot(row["value"], y, "o", ms=7, **colours)
            ax.annotate(f"{row['value']:.2f}", (row["value"], y), (0, 6), textcoords="offset points", ha="center")
        ax.set_title(f"VGG16, {panel}", fontsize=10.5)
        ax.set_yticks(range(len(rows)), [row["what"] for row in rows])
        ax.set_ylim(len(rows) - 0.45, -0.72)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_xlim(None, 1)
    figure.get_layout_engine().set(hspace=0.08)
    label = "balanced accuracy of test patches (dashes: always the same answer)"
    figure.supxlabel(label.replace(" (", "\n(") if stacked else label, fontsize=10)
    return figure


def in_words(panels: Mapping[str, list[dict[str, Any]]]) -> str:
    """The same picture for those who cannot see it."""
    sentences = []
    for panel, rows in panels.items():
        clauses = []
        for row in rows:
            interval = " ({:.2f} to {:.2f})".format(*row["interval"]) if row["interval"] else ""
            clauses.append(f"{row['what']} {row['value']:.2f}{interval} beside {row['baseline']:.2f}")
        sentences.append(f"VGG16, {panel}: {'; '.join(clauses)}.")
    return (
        "Dots with intervals: the balanced accuracy of test patches, beside what always giving the same answer scores. "
        f"{' '.join(sentences)}"
    )


class _Images(HTMLParser):
    """Pictures within a piece of HTML, by their texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, bytes] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img" and given.get("alt") and (given.get("src") or "").startswith("data:image/webp;base64,"):
            self.found[given["alt"]] = base64.b64decode(given["src"].partition(",")[2])


def tissue(page: Mapping[str, Any]) -> Iterator[tuple[str, str, bytes]]:
    """Caption, text for those who cannot see it, and WebP file of each picture that the strip takes out of a chapter.

    page: the executed chapter `look`. Of the patients' patches that were recognised and have a map and deficient fibres
    it is the one of which the network is surest; without one, as without truth, only the tissue is shown.
    """
    outputs = (output for cell in page["cells"] for output in cell.get("outputs", []))
    html = "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)
    images = _Images(html).found
    mixed = next(filter(None, map(MIXED.fullmatch, images)), None)
    if mixed:
        yield (
            "Three proteins in colour",
            f"Muscle fibres of section {mixed['section']}: {mixed['proteins']}",
            images[mixed[0]],
        )
    called = sorted(filter(None, map(CALLED.fullmatch, images)), key=lambda call: -float(call["p"]))
    for call in called:
        needed = [call[0], f"map for patient; {call['who']}", f"deficient fibres; {call['who']}"]
        if all(alt in images for alt in needed):
            captions = ("A patient's patch", "Where VGG16 looks", "Where fibres are deficient")
            for caption, alt in zip(captions, needed, strict=True):
                yield caption, f"{caption}; {call['subject']}, called a patient with p = {call['p']}", images[alt]
            return


class TissueStrip(SphinxDirective):
    """What the book is about, in one row of pictures; nothing where the chapter that has them is not there."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / LOOK
        self.env.note_dependency(str(path))
        if not path.exists():
            return []
        strip = nodes.container(classes=["mito-strip"])
        folder = Path(self.env.doctreedir).resolve().parent / "drawn"
        folder.mkdir(parents=True, exist_ok=True)
        for i, (caption, alt, picture) in enumerate(tissue(json.loads(path.read_text(encoding="utf8")))):
            file = folder / f"tissue-{i}.webp"
            file.write_bytes(picture)
            uri = os.path.relpath(file, Path(self.env.doc2path(self.env.docname)).parent)
            strip += nodes.container("", nodes.image(uri=uri, alt=alt), nodes.paragraph("", caption))
        return [strip] if strip.children else []


class FoundFigure(Reader, DrawnFigure):
    """What was found, drawn from the result files; the content is the caption."""

    def run(self) -> list[nodes.Node]:
        try:
            records = {name: self.results(name)[0] for name in ("exp1", "exp2", "patient_level")}
            panels = compared(records, vars(paper))
        except LookupError as problem:
            return [nodes.paragraph("", "", self.missing(problem))]
        self.env.note_dependency(paper.__file__)
        pictures = {}
        for shape in ("wide", "narrow"):  # _static/frames.css shows one of them
            pictures[shape] = self.drawn(f"found-{shape}")
            save(draw(panels, stacked=shape == "narrow"), pictures[shape])
        return [self.figure(pictures, in_words(panels))]


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("mitobook")
    app.add_directive("found-figure", FoundFigure)
    app.add_directive("tissue-strip", TissueStrip)
    return {"version": "1", "parallel_read_safe": True}
