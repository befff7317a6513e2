"""Notebooks -> chapters: run each with papermill, tidy what it leaves, render the book.

    python book/_tools/execute.py --profile quick --book build/book

draws the phantom, copies `book/` to the folder given, executes the notebooks into its `chapters/` (result files into
its `results/`) and renders it. The terminal shows how far that is; all else stands in the folder's `log.txt`. With
`--book book` the published edition itself is made anew. Parts of this run as jobs of a cluster, see the page On a
cluster of the book::

    --only phantom                                    draw it, and nothing else
    --only execute --chapter exp1 --share 8/8         what all shares read: banks of features
    --only execute --chapter exp1 --share 0/8         the first of eight shares of the fits
    --only execute --chapter exp1                     the chapter, from the fits of all shares
    --only render                                     the book

These say all they have to say where they are run.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
import yaml
from PIL import Image
from traitlets.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the modules beside this one, run as a script or not
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the package of this checkout, installed or not

import side_by_side
from chapters import CHAPTERS, NEEDS
from terminal import Terminal, quiet

from mitolib import files, paper, phantom
from mitolib.metrics import Estimate
from mitolib.progress import clock, say
from mitolib.settings import PROFILES, ROOT, check_parameter, share

NOTEBOOKS = ROOT / "notebooks"
BOOK = ROOT / "book"
README = ROOT / "README.md"
README_MARKS = ("<!-- scores of the published edition, written by `make paper` -->", "<!-- end of scores -->")
README_FIGURE = "fig-proteins"
STAGES = ("phantom", "execute", "render")
LONGEST_SOCKET_FOLDER = 80  # characters; the system allows about 100 for the path of a socket
RANDOM_NOTE = (
    " {name} started from random weights, because its ImageNet weights were out of reach where this was executed."
)


def execute(
    chapter: str,
    *,
    profile: str,
    book: Path,
    further: Mapping[str, Any] | None = None,
    stderr: TextIO | None = None,
    bar: Mapping[str, Any] | bool = False,
) -> Path | None:
    """Run one notebook and put the tidied chapter into `book/chapters`, whole or not at all.

    further: parameters of the notebook, beside profile and results. stderr: where its progress goes. bar: of its
    cells, see `terminal.Terminal.bar`. In a share
    (`settings.share`) the notebook computes its part of the units and no chapter is made: None.
    Raises papermill's PapermillExecutionError if a cell fails; the chapter and results already there stay.
    """
    run = partial(
        papermill.execute_notebook,
        NOTEBOOKS / f"{chapter}.ipynb",
        parameters={
            "profile": profile,
            "results": "results",
            **(further or {}),
        },  # relative: no machine's path on a page
        cwd=book,
        kernel_name="python3",
        progress_bar=bar,
        start_timeout=300,  # seconds: on a busy machine a kernel takes longer than papermill's 60
        stderr_file=stderr or sys.stderr,  # where mitolib.progress speaks
    )
    with _sockets() as config:
        if share():
            run(None, config=config)
            return None
        target = book / "chapters" / f"{chapter}.ipynb"
        with files.whole(target) as partial_page:
            run(partial_page, config=config)
            notebook = nbformat.read(partial_page, 4)
            weights = json.loads((book / "results" / f"{chapter}.json").read_text())["provenance"]["weights"]
            random = [name for name, w in weights.items() if w["source"] == "random"]
            nbformat.write(tidy(notebook, random), partial_page)
        return target


@contextmanager
def _sockets() -> Iterator[Config]:
    """Settings with which a kernel is spoken to through a folder of this user's, and not through ports of the machine.

    Kernels that start side by side race for ports, and whoever is on the machine can try one.
    """
    with tempfile.TemporaryDirectory(prefix="mitolib-") as folder:
        fits = os.name != "nt" and len(folder) <= LONGEST_SOCKET_FOLDER
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}} if fits else {})


def tidy(notebook: nbformat.NotebookNode, random_weights: Sequence[str]) -> nbformat.NotebookNode:
    """A chapter fit to be read and to be kept in git.

    Standard error, empty Markdown and papermill's times go, pictures are packed tightly without loss; the cell with
    default parameters is left out where injected ones follow, which are closed as other code is; a figure whose cell
    metadata names a backbone
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
        if "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, "hide-input"]
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
    """Markdown: published accuracy, ours, and the majority baseline of our test set, for each model of the paper.

    A network that started from random weights reproduces nothing, and has no row.
    """
    lines = ["| | published | here | majority baseline |", "|---|---|---|---|"]
    chapters = (("exp1", "exp1"), ("concept_whitening", "exp1"), ("exp2", "exp2"))
    for chapter, experiment in chapters:
        record = json.loads((results / f"{chapter}.json").read_text())
        for name in (name for name in paper.SCORES[experiment] if name in record["models"]):
            if record["provenance"]["weights"][paper.backbone(name)]["source"] == "random":
                continue
            scores = record["models"][name]
            ours = f"{scores['accuracy']:.2f}, one training"
            if further := scores.get("further_training"):
                accuracy = Estimate(**further["accuracy"])
                ours = f"{accuracy}, trainings: {accuracy.n}" if accuracy.ci else ours
            lines.append(
                f"| Experiment {experiment[-1]}, {name}, profile {record['profile']} "
                f"| {paper.SCORES[experiment][name]['accuracy']:.2f} | {ours} | {scores['majority_baseline']:.2f} |"
            )
    return "\n".join(lines)


def render(book: Path) -> Path:
    """Build the HTML of `book`, warnings as errors, and return its first page.

    Prose speaks of the published edition. What it names and a book executed here no longer has, since a notebook has
    changed, is shown as not in this run (`mitobook.lags`).
    """
    jupyter_book = Path(sys.executable).with_name("jupyter-book")  # it has no `python -m` form
    surroundings = os.environ | ({} if book == BOOK else {"MITOLIB_EXECUTED": "1"})
    subprocess.run([jupyter_book, "build", book, "-W", "-n", "--keep-going", "-q"], check=True, env=surroundings)
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


def draw_phantom(profile: str, further: Mapping[str, Any]) -> None:
    """Draw the phantom that the chapters read, before two of them would; nothing where they read data of one's own."""
    if further.get("data") is None:
        run = PROFILES[profile]
        scale = check_parameter("scale", further.get("scale", run.scale), "float")
        say(f"phantom: {phantom.make_phantom(replace(run, scale=scale).phantom, scale=scale).relative_to(ROOT)}")


def _expected_seconds(chapter: str, profile: str) -> float | None:
    """What the published run of this chapter took, if it was of the same profile."""
    path = BOOK / "results" / f"{chapter}.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    return record["provenance"]["seconds"] if record.get("profile") == profile else None


def attempt(
    chapter: str,
    *,
    profile: str,
    book: Path,
    further: Mapping[str, Any],
    terminal: Terminal | None = None,
    stderr: TextIO | None = None,
    place: int = 0,
) -> str:
    """Execute a chapter, say when it begins and ends, and return what went wrong, "" if nothing did.

    place: of its bar among those of the chapters that run with it.
    """
    stderr = stderr or sys.stderr
    terminal = terminal or Terminal(stderr)
    expected = _expected_seconds(chapter, profile)
    hint = f", {clock(expected)} on the machine that published it" if expected and not share() else ""
    print(f"{chapter}: executing in profile {profile}{hint}", file=stderr, flush=True)
    os.environ["MITOLIB_CHAPTER"] = chapter  # whose results its kernel keeps from others, see records.folder
    start = time.monotonic()
    failed = ""
    try:
        bar = terminal.bar(chapter, place)
        execute(chapter, profile=profile, book=book, further=further, stderr=stderr, bar=bar)
    except papermill.PapermillExecutionError as error:
        failed = f"{NOTEBOOKS.name}/{chapter}.ipynb failed in cell {error.exec_count}: {error.ename}: {error.evalue}"
    except (RuntimeError, OSError) as error:  # of a kernel that died, or of a folder that cannot be written
        failed = f"{NOTEBOOKS.name}/{chapter}.ipynb failed: {type(error).__name__}: {error}"
    terminal.say(f"{chapter}: {failed or f'done in {clock(time.monotonic() - start)}'}")
    return failed


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exits with 1 and a message when a notebook or the rendering fails."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, side_by_side.end)  # as Ctrl-C: what was begun is cleared away, kernels above all
    book, further = options.book.resolve(), dict(options.set)
    book.mkdir(parents=True, exist_ok=True)
    # Kernels are processes of their own, and look for the package by themselves.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up chatter hides the progress lines
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # its default on some processors; quicker on the others
    if share() is None and book == BOOK:
        os.environ.setdefault("MITOLIB_PUBLISH", "1")  # the units too, see mitolib.units
    if options.only != STAGES or share() is not None:  # a part, whose lines are those of a job
        page = _run(options, book, further, Terminal(sys.stderr))
    else:
        with quiet((ROOT / "build" if book == BOOK else book) / "log.txt") as terminal:
            page = _run(options, book, further, terminal)
    if page:
        print(page)


def _run(options: argparse.Namespace, book: Path, further: Mapping[str, Any], terminal: Terminal) -> Path | None:
    """The stages that are asked for; the first page of the book, where it is rendered."""
    chapters = [options.chapter] if options.chapter else list(CHAPTERS)
    if "phantom" in options.only:
        terminal.say("drawing the phantom, where it is not there yet")
        draw_phantom(options.profile, further)
    if "execute" in options.only:
        if share() is None and book != BOOK:
            _copy_book(book)
        work = partial(attempt, profile=options.profile, book=book, further=further, terminal=terminal)
        try:
            failed = side_by_side.each(work, chapters, needs=NEEDS, jobs=options.jobs)
        except KeyboardInterrupt:
            sys.exit("stopped. Chapters and fits that were done are kept; run the same command again to go on.")
        if failed:
            sys.exit(terminal.failed("\n".join(failed)))
    return _render(book, terminal) if "render" in options.only and share() is None else None


def _render(book: Path, terminal: Terminal) -> Path:
    if book == BOOK:
        refresh_readme()
    else:
        list_executed(book)
    terminal.say("rendering the book")
    try:
        return render(book)
    except subprocess.CalledProcessError:
        sys.exit(terminal.failed("the book was executed but not rendered, see the warnings."))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python book/_tools/execute.py", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", choices=list(PROFILES))
    parser.add_argument("--book", type=Path, default=ROOT / "build" / "book", help="folder of the book to fill")
    parser.add_argument("--chapter", choices=CHAPTERS, help="this one only")
    parser.add_argument("--jobs", type=_count, default=side_by_side.usual_jobs(), help="chapters at once")
    parser.add_argument("--share", metavar="K/N", help="compute part K of N, from 0, of the units; N/N prepares them")
    parser.add_argument(
        "--only", type=_stages, default=STAGES, help=f"of {','.join(STAGES)}; all unless told otherwise"
    )
    parser.add_argument(
        "--set", type=_parameter, action="append", default=[], metavar="NAME=VALUE", help="parameter of the notebooks"
    )
    options = parser.parse_args(arguments)
    if options.share:
        os.environ["MITOLIB_SHARE"] = options.share
    try:
        share()
    except ValueError as error:
        parser.error(str(error))
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of chapters; wanted 1 or more")
    return int(text)


def _stages(text: str) -> tuple[str, ...]:
    stages = tuple(text.split(","))
    if unknown := set(stages) - set(STAGES):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(STAGES)}")
    return stages


def _parameter(text: str) -> tuple[str, Any]:
    """`epochs=3` -> ("epochs", 3). What is no number, truth value or list in JSON is text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no parameter; wanted NAME=VALUE, such as epochs=3")
    if name in ("profile", "results"):
        raise argparse.ArgumentTypeError(f"{name} follows from --profile and --book; set these")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    main()
