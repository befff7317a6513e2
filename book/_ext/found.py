"""Sphinx extension of the book: the picture on its first page, drawn from the result files.

{found-figure}              the score as published, ours, and of people not seen; `:name:`, and the caption as content
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docutils import nodes
from drawings import DrawnFigure, save
from matplotlib.figure import Figure
from mitobook import Reader
from sphinx.application import Sphinx

from mitolib import paper
from mitolib.claims import look_up

UNSEEN = "leave-one-control-one-patient-out"
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
        rows.append(
            ("here, same split, trained long", further.get("value", ours["balanced_accuracy"]), further.get("ci"), 0.5)
        )
        for what, scores in (
            ("here, same split, trained briefly", brief),
            ("people not seen, trained briefly", unseen),
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
    return {"version": "1", "parallel_read_safe": True}
