"""Notebooks -> chapters: run each with papermill, tidy what it leaves, render the book.

    python book/_tools/execute.py --profile quick --book build/book

copies `book/` to the folder given, executes the notebooks into its `chapters/` (result files into its
`results/`) and renders it. With `--book book` the published edition itself is made anew.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import nbformat
import papermill
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the package of this checkout, installed or not

from mitolib import files, paper
from mitolib.progress import clock, say
from mitolib.settings import PROFILES, ROOT

NOTEBOOKS = ROOT / "notebooks"
BOOK = ROOT / "book"
README = ROOT / "README.md"
README_MARKS = ("<!-- scores of the published edition, written by `make paper` -->", "<!-- end of scores -->")
README_FIGURE = "fig-proteins"
CHAPTERS = (  # in the order in which a book lists them
    "data_engineering",
    "exp1",
    "exp2",
    "freezing",
    "gradcam",
    "concept_whitening",
    "real_concepts",
    "patient_level",
    "look",
    "your_data",
)
RANDOM_NOTE = (
    " {name} started from random weights, because its ImageNet weights were out of reach where this was executed."
)


def execute(chapter: str, *, profile: str, book: Path) -> Path:
    """Run one notebook and put the tidied chapter into `book/chapters`, whole or not at all.

    Raises papermill's PapermillExecutionError if a cell fails; the chapter and results already there stay.
    """
    target = book / "chapters" / f"{chapter}.ipynb"
    with files.whole(target) as partial:
        papermill.execute_notebook(
            NOTEBOOKS / f"{chapter}.ipynb",
            partial,
            parameters={"profile": profile, "results": "results"},  # relative: no path of a machine on a page
            cwd=book,
            kernel_name="python3",
            progress_bar=False,
            stderr_file=sys.stderr,  # where mitolib.progress speaks
        )
        notebook = nbformat.read(partial, 4)
        weights = json.loads((book / "results" / f"{chapter}.json").read_text())["provenance"]["weights"]
        nbformat.write(tidy(notebook, [name for name, w in weights.items() if w["source"] == "random"]), partial)
    return target


def tidy(notebook: nbformat.NotebookNode, random_weights: Sequence[str]) -> nbformat.NotebookNode:
    """A chapter fit to be read and to be kept in git.

    Standard error, empty Markdown and papermill's times go, pictures are packed tightly without loss; the cell with
    default parameters is hidden where injected ones follow; a figure whose cell metadata names a backbone
    (`"mitolib": {"weights": "ResNet50"}`) that started from random weights says so in its caption.
    """
    injected = any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        tags = cell.metadata.get("tags", [])
        if injected and "parameters" in tags:
            cell.metadata["tags"] = [*tags, "remove-cell"]
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("name") != "stderr" and output.get("data", {}).get("text/markdown") != ""
            ]
            for output in cell.outputs:
                if png := output.get("data", {}).get("image/png"):
                    output.data["image/png"] = _packed(png)
        backbone = cell.metadata.get("mitolib", {}).get("weights")
        if backbone in random_weights:
            cell.metadata["mystnb"]["figure"]["caption"] += RANDOM_NOTE.format(name=backbone)
    return notebook


def _packed(png: str) -> str:
    """The same pixels in base64, without an opaque alpha channel, packed by whichever strategy of zlib gives less."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    opaque = picture.mode == "RGBA" and picture.getchannel("A").getextrema()[0] == 255
    tries = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED):
        packed = io.BytesIO()
        (picture.convert("RGB") if opaque else picture).save(packed, "png", compress_level=9, compress_type=strategy)
        tries.append(packed.getvalue())
    return base64.b64encode(min(tries, key=len)).decode()


def refresh_readme() -> None:
    """Put the published edition's scores and one of its figures where README.md shows them."""
    text = README.read_text()
    head, tail = text.split(README_MARKS[0])[0], text.split(README_MARKS[1])[1]
    README.write_text(f"{head}{README_MARKS[0]}\n{scores_table(BOOK / 'results')}\n{README_MARKS[1]}{tail}")
    chapter = nbformat.read(BOOK / "chapters" / "data_engineering.ipynb", 4)
    cells = (c for c in chapter.cells if c.metadata.get("mystnb", {}).get("figure", {}).get("name") == README_FIGURE)
    png = next(o.data["image/png"] for o in next(cells).outputs if "image/png" in o.get("data", {}))
    (BOOK / "_static" / f"{README_FIGURE}.png").write_bytes(base64.b64decode(png))


def scores_table(results: Path) -> str:
    """Markdown: published accuracy, ours, and the majority baseline of our test set, for each model of the paper."""
    lines = ["| | published | here | always the more common answer | profile |", "|---|---|---|---|---|"]
    chapters = (("exp1", "exp1"), ("concept_whitening", "exp1"), ("exp2", "exp2"))
    for chapter, experiment in chapters:
        record = json.loads((results / f"{chapter}.json").read_text())
        for name in (name for name in paper.SCORES[experiment] if name in record["models"]):
            scores = record["models"][name]
            random = record["provenance"]["weights"][paper.backbone(name)]["source"] == "random"
            lines.append(
                f"| Experiment {experiment[-1]}, {name}{' (random weights here)' if random else ''} "
                f"| {paper.SCORES[experiment][name]['accuracy']:.2f} | {scores['accuracy']:.2f} "
                f"| {scores['majority_baseline']:.2f} | {record['profile']} |"
            )
    return "\n".join(lines)


def render(book: Path) -> Path:
    """Build the HTML of `book`, warnings as errors, and return its first page."""
    jupyter_book = Path(sys.executable).with_name("jupyter-book")  # it has no `python -m` form
    subprocess.run([jupyter_book, "build", book, "-W", "-n", "--keep-going", "-q"], check=True)
    return book / "_build" / "html" / "index.html"


def _copy_book(book: Path) -> None:
    """A fresh copy of the prose; chapters and results of an earlier run stay until new ones replace them.

    A published chapter whose notebook is gone cannot be executed here: it is copied as it is.
    """
    unlike = shutil.ignore_patterns("*.ipynb", f"*{files.MARK}*", "results", "_build")
    shutil.copytree(BOOK, book, dirs_exist_ok=True, ignore=unlike)
    for page in (BOOK / "chapters").glob("*.ipynb"):
        if not (NOTEBOOKS / page.name).exists():
            for name in (f"chapters/{page.name}", f"results/{page.stem}.json"):
                (book / name).parent.mkdir(exist_ok=True)
                shutil.copy2(BOOK / name, book / name)


def list_executed(book: Path) -> None:
    """Let the table of contents of a copy list each chapter that lies in it, also one without a published page.

    Such a chapter stands after the one that precedes it in CHAPTERS.
    """
    path = book / "_toc.yml"
    toc = yaml.safe_load(path.read_text(encoding="utf8"))
    pages = [part["chapters"] for part in toc["parts"]]
    entries = [{"file": f"chapters/{chapter}"} for chapter in CHAPTERS]
    for preceding, entry in zip([None, *entries], entries, strict=False):
        executed = (book / f"{entry['file']}.ipynb").exists()
        if executed and not any(entry in part for part in pages):
            part = next((part for part in pages if preceding in part), pages[0])
            part.insert(part.index(preceding) + 1 if preceding in part else 0, entry)
    path.write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf8")


def _expected_seconds(chapter: str, profile: str) -> float | None:
    """What the published run of this chapter took, if it was of the same profile."""
    path = BOOK / "results" / f"{chapter}.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    return record["provenance"]["seconds"] if record.get("profile") == profile else None


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exits with 1 and a message when a notebook or the rendering fails."""
    parser = argparse.ArgumentParser(prog="python book/_tools/execute.py", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", choices=list(PROFILES))
    parser.add_argument("--book", type=Path, default=ROOT / "build" / "book", help="folder of the book to fill")
    parser.add_argument("--chapter", choices=CHAPTERS, help="this one only")
    options = parser.parse_args(arguments)
    book = options.book.resolve()
    book.mkdir(parents=True, exist_ok=True)
    if book != BOOK:
        _copy_book(book)
    # Kernels are processes of their own, and look for the package by themselves.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up chatter hides the progress lines
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # its default on some processors; quicker on the others
    chapters = [options.chapter] if options.chapter else CHAPTERS
    expected = {chapter: _expected_seconds(chapter, options.profile) for chapter in chapters}
    for i, chapter in enumerate(chapters):
        left = [expected[c] for c in chapters[i:]]
        hint = "" if None in left else f", about {clock(sum(left))} left for all on the machine that published them"
        say(f"[{i + 1}/{len(chapters)}] {chapter}: executing in profile {options.profile}{hint}")
        start = time.monotonic()
        try:
            execute(chapter, profile=options.profile, book=book)
        except papermill.PapermillExecutionError as error:
            sys.exit(
                f"{NOTEBOOKS.name}/{chapter}.ipynb failed in cell {error.exec_count}: {error.ename}: {error.evalue}"
            )
        say(f"[{i + 1}/{len(chapters)}] {chapter}: done in {clock(time.monotonic() - start)}")
    if book == BOOK:
        refresh_readme()
    else:
        list_executed(book)
    say("rendering the book")
    try:
        print(render(book))
    except subprocess.CalledProcessError:
        sys.exit("the book was executed but not rendered: see the warnings above")


if __name__ == "__main__":
    main()
