from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import execute
import nbformat
import numpy as np
import pytest
import side_by_side
import yaml
from PIL import Image

from mitolib.settings import ROOT


def notebook_with(*cells) -> nbformat.NotebookNode:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=list(cells), metadata={"kernelspec": kernel})


def cell(source: str, **metadata) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def test_default_parameters_are_left_out_where_injected_ones_follow_and_these_are_closed():
    defaults, injected = cell("epochs = 50", tags=["parameters"]), cell("epochs = 1", tags=["injected-parameters"])
    tidied = execute.tidy(notebook_with(defaults, injected), [])
    assert tidied.cells[0].metadata["tags"] == ["parameters", "remove-cell"]
    assert tidied.cells[1].metadata["tags"] == ["injected-parameters", "hide-input"]
    assert (
        "remove-cell" not in execute.tidy(notebook_with(cell("x = 1", tags=["parameters"])), []).cells[0].metadata.tags
    )


def test_standard_error_and_the_times_of_papermill_are_left_out():
    noisy = cell("run()", papermill={"duration": 1}, execution={"iopub.status.idle": "2026-01-01"})
    noisy.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="a line of progress"),
        nbformat.v4.new_output("stream", name="stdout", text="kept"),
    ]
    tidied = execute.tidy(notebook_with(noisy), [])
    assert [output.text for output in tidied.cells[0].outputs] == ["kept"]
    assert not {"papermill", "execution"} & tidied.cells[0].metadata.keys()


def test_a_list_without_a_line_shows_nothing():
    lists = cell("display(Markdown(lines))")
    lists.outputs = [
        nbformat.v4.new_output("display_data", {"text/markdown": text, "text/plain": "<Markdown object>"})
        for text in ("", "- one")
    ]
    tidied = execute.tidy(notebook_with(lists), [])
    assert [output.data["text/markdown"] for output in tidied.cells[0].outputs] == ["- one"]


def png(rgba_hwc: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(rgba_hwc).save(file, "png", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(("alpha", "channels"), [(255, 3), (100, 4)])
def test_pictures_keep_their_pixels_and_lose_an_alpha_channel_that_says_nothing(rng, alpha, channels):
    drawn = rng.integers(256, size=(60, 80, 4), dtype=np.uint8)
    drawn[..., 3] = alpha
    shows = cell("plt.show()")
    shows.outputs = [nbformat.v4.new_output("display_data", {"image/png": png(drawn), "text/plain": "<Figure>"})]
    kept = execute.tidy(notebook_with(shows), []).cells[0].outputs[0].data["image/png"]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(kept))))
    assert (picture == drawn[..., :channels]).all() and picture.shape[2] == channels
    assert len(kept) < len(png(drawn))


def test_a_figure_of_a_network_with_random_weights_says_so_in_its_caption():
    figures = [
        cell("plt.show()", mystnb={"figure": {"caption": "Curves.", "name": "x"}}, mitolib={"weights": name})
        for name in ("VGG16", "ResNet50")
    ]
    captions = [c.metadata.mystnb.figure.caption for c in execute.tidy(notebook_with(*figures), ["ResNet50"]).cells]
    assert captions[0] == "Curves."
    assert captions[1].startswith("Curves. ResNet50 started from random weights, because its ImageNet weights")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """Variables that a run sets are after the test as they were."""
    for name in ("MITOLIB_SHARE", "MITOLIB_PUBLISH", "MITOLIB_CHAPTER", "PYTHONPATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Write the source of chapter exp1 with this code, and return the folder of a book that holds an older run."""

    def write(code: str):
        (tmp_path / "notebooks").mkdir()
        cells = [cell("profile = results = steps = None", tags=["parameters"]), cell(code)]
        nbformat.write(notebook_with(*cells), tmp_path / "notebooks" / "exp1.ipynb")
        monkeypatch.setattr(execute, "NOTEBOOKS", tmp_path / "notebooks")
        book = tmp_path / "book"
        (book / "chapters").mkdir(parents=True)
        (book / "chapters" / "exp1.ipynb").write_text("the last good run")
        return book

    return write


def left_in(book) -> dict[str, str]:
    return {path.relative_to(book).as_posix(): path.read_text() for path in book.rglob("*") if path.is_file()}


def test_a_notebook_that_fails_leaves_the_chapter_that_was_there_and_is_named_with_its_cell(toy, capsys):
    book = toy("1 / 0")
    message = execute.attempt("exp1", profile="smoke", book=book, further={})
    assert message == "notebooks/exp1.ipynb failed in cell 3: ZeroDivisionError: division by zero"
    assert left_in(book) == {"chapters/exp1.ipynb": "the last good run"}
    assert message in capsys.readouterr().err


def test_a_share_runs_the_notebook_and_makes_no_chapter(toy, monkeypatch):
    book = toy(
        "import os; open('ran', 'w').write(f'{os.environ[\"MITOLIB_SHARE\"]} {steps} {profile}'); raise SystemExit(0)"
    )
    monkeypatch.setenv("MITOLIB_SHARE", "1/2")
    assert execute.attempt("exp1", profile="smoke", book=book, further={"steps": 3}) == ""
    assert left_in(book) == {"chapters/exp1.ipynb": "the last good run", "ran": "1/2 3 smoke"}


def test_a_kernel_is_spoken_to_through_a_private_folder_and_ends_with_the_process_that_asked_for_it(toy):
    code = "import os, time; from ipykernel.kernelapp import IPKernelApp as app"
    code += (
        "\nopen('kernel', 'w').write(f'{os.getpid()} {app.instance().transport} {app.instance().ip}'); time.sleep(90)"
    )
    book = toy(code)
    work = partial(execute.attempt, profile="smoke", book=book, further={})
    process, _ = side_by_side._begin(work, "exp1", 0)
    until = time.monotonic() + 60
    while not (book / "kernel").exists() or not (book / "kernel").read_text():
        assert process.is_alive() and time.monotonic() < until
        time.sleep(0.1)
    number, transport, ip = (book / "kernel").read_text().split()
    if os.name != "nt":
        assert transport == "ipc" and Path(ip).parent.stat().st_mode & 0o077 == 0
    process.terminate()
    process.join(30)
    assert process.exitcode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)
    assert not Path(ip).parent.exists() and (book / "chapters" / "exp1.ipynb").read_text() == "the last good run"


def test_a_folder_too_long_for_a_socket_is_not_used(monkeypatch, tmp_path):
    (tmp_path / ("x" * 100)).mkdir()
    monkeypatch.setattr(execute.tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    with execute._sockets() as config:
        assert config == {}


@pytest.fixture
def called(monkeypatch, tmp_path):
    """What the command line calls, in its order, in place of doing it."""
    calls = []
    monkeypatch.setattr(execute, "draw_phantom", lambda profile, further: calls.append(f"phantom {profile} {further}"))
    monkeypatch.setattr(execute, "_copy_book", lambda book: calls.append("copy"))
    monkeypatch.setattr(execute, "_render", lambda book, terminal: calls.append("render"))
    monkeypatch.setattr(execute.signal, "signal", lambda number, handler: None)

    def each(work, chapters, *, needs, jobs):
        calls.append(f"{' '.join(chapters)}: {work.keywords['further']}, {jobs} at once")
        return ["exp2 failed"] if "exp2" in chapters else []

    monkeypatch.setattr(execute.side_by_side, "each", each)
    return calls


def test_the_stages_of_a_chapter(called, tmp_path):
    execute.main(["--profile", "smoke", "--book", str(tmp_path), "--chapter", "exp1", "--jobs", "3"])
    assert called == ["phantom smoke {}", "copy", "exp1: {}, 3 at once", "render"]


@pytest.mark.parametrize(
    ("only", "done"),
    [("phantom", ["phantom smoke {}"]), ("render", ["render"]), ("phantom,render", ["phantom smoke {}", "render"])],
)
def test_some_stages_only(called, tmp_path, only, done):
    execute.main(["--profile", "smoke", "--book", str(tmp_path), "--only", only])
    assert called == done


def test_a_share_of_a_chapter_copies_and_renders_nothing(called, tmp_path):
    execute.main(
        ["--book", str(tmp_path), "--chapter", "exp1", "--share", "1/2", "--only", "execute,render", "--jobs", "1"]
    )
    assert called == ["exp1: {}, 1 at once"] and os.environ["MITOLIB_SHARE"] == "1/2"


def test_parameters_are_numbers_where_they_look_like_it(called, tmp_path):
    parameters = [
        word for text in ("steps=3", "learning_rate=1e-4", "protein=COX4", "zoom=[0.8, 1]") for word in ("--set", text)
    ]
    execute.main(["--book", str(tmp_path), "--chapter", "look", "--only", "execute", "--jobs", "1", *parameters])
    assert called[-1] == "look: {'steps': 3, 'learning_rate': 0.0001, 'protein': 'COX4', 'zoom': [0.8, 1]}, 1 at once"


def test_a_run_of_which_a_chapter_failed_renders_nothing_and_says_so(called, tmp_path):
    with pytest.raises(SystemExit, match="exp2 failed"):
        execute.main(["--book", str(tmp_path)])
    assert called[-1].startswith("data_engineering exp1") and "render" not in called


def test_the_terminal_shows_how_far_a_run_is_and_its_log_the_rest_which_an_error_names(toy):
    book = toy("import sys; print('chatter of a framework', file=sys.stderr); 1 / 0")
    script = f"""
import pathlib, execute
execute.NOTEBOOKS = pathlib.Path({str(execute.NOTEBOOKS)!r})
execute.draw_phantom = lambda profile, further: print("chatter of a reader")
execute.main(["--profile", "smoke", "--book", {str(book)!r}, "--chapter", "exp1", "--jobs", "1"])
"""
    folders = os.pathsep.join([str(ROOT / "book" / "_tools"), str(ROOT)])
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": folders})
    failed = "notebooks/exp1.ipynb failed in cell 3: ZeroDivisionError: division by zero"
    lines = ["drawing the phantom, where it is not there yet", f"exp1: {failed}", failed]
    assert done.stderr.splitlines() == [*lines, f"What led to it stands in {book / 'log.txt'}"]
    assert done.returncode == 1 and done.stdout == ""
    log = (book / "log.txt").read_text()
    assert "chatter of a reader" in log and "chatter of a framework" in log


def test_only_a_run_into_the_published_edition_publishes_units_and_no_share_does(called, tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "BOOK", tmp_path)
    execute.main(["--book", str(tmp_path), "--only", "execute", "--chapter", "exp1", "--share", "0/2"])
    assert "MITOLIB_PUBLISH" not in os.environ
    monkeypatch.delenv("MITOLIB_SHARE")
    execute.main(["--book", str(tmp_path), "--only", "execute", "--chapter", "exp1"])
    assert os.environ["MITOLIB_PUBLISH"] == "1" and "copy" not in called


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--share", "3"], "MITOLIB_SHARE is '3'; wanted k/n"),
        (["--only", "draw"], "unknown: draw; known are phantom, execute, render"),
        (["--set", "steps"], "'steps' is no parameter; wanted NAME=VALUE"),
        (["--set", "results=here"], "results follows from --profile and --book"),
        (["--jobs", "0"], "'0' is no number of chapters; wanted 1 or more"),
    ],
)
def test_what_the_command_line_cannot_take_is_named(called, capsys, words, message):
    with pytest.raises(SystemExit):
        execute.main(words)
    assert message in capsys.readouterr().err and not called


def test_the_phantom_is_that_of_the_profile_or_of_the_scale_that_is_set(monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(execute.phantom, "make_phantom", lambda root, scale: drawn.append((root.name, scale)) or root)
    for further in ({}, {"scale": 0.2}, {"data": "own"}):
        execute.draw_phantom("smoke", further)
    assert drawn == [("scale-0.1", 0.1), ("scale-0.2", 0.2)]


def test_a_published_chapter_whose_notebook_is_gone_stays_in_the_book_that_is_made_here(tmp_path, monkeypatch):
    published, sources = tmp_path / "published", tmp_path / "notebooks"
    names = ["chapters/kept.ipynb", "chapters/gone.ipynb", "results/kept.json", "results/gone.json", "intro.md"]
    names += ["chapters/written.md"]
    for name in names:
        (published / name).parent.mkdir(parents=True, exist_ok=True)
        (published / name).write_text(name)
    sources.mkdir()
    (sources / "kept.ipynb").write_text("executed here")
    monkeypatch.setattr(execute, "BOOK", published)
    monkeypatch.setattr(execute, "NOTEBOOKS", sources)
    execute._copy_book(tmp_path / "book")
    copied = {path.relative_to(tmp_path / "book").as_posix() for path in (tmp_path / "book").rglob("*.*")}
    assert copied == {"chapters/gone.ipynb", "chapters/written.md", "results/gone.json", "intro.md"}


def test_the_book_that_is_made_here_lists_what_was_executed_here(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "CHAPTERS", ("first", "half", "other_half", "last"))
    published = {"parts": [{"chapters": [{"file": "chapters/half"}, {"file": "results"}]}, {"chapters": []}]}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(published))
    (tmp_path / "chapters").mkdir()
    for chapter in ("first", "half", "other_half"):
        (tmp_path / f"chapters/{chapter}.ipynb").write_text("executed")
    for _ in range(2):  # and a second run changes nothing
        execute.list_executed(tmp_path)
        listed = [
            [page["file"] for page in part["chapters"]]
            for part in yaml.safe_load((tmp_path / "_toc.yml").read_text())["parts"]
        ]
        assert listed == [["chapters/first", "chapters/half", "chapters/other_half", "results"], []]


def test_the_command_finds_the_package_where_it_is_not_installed(tmp_path):
    script = f"import runpy, sys; sys.path = [p for p in sys.path if p != {str(ROOT)!r}]; "
    script += f"print(runpy.run_path({execute.__file__!r}, run_name='loaded')['ROOT'])"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.stdout.strip() == str(ROOT), done.stderr


def test_the_readme_shows_the_scores_of_the_published_edition():
    begin, end = execute.README_MARKS
    shown = execute.README.read_text().split(begin)[1].split(end)[0]
    assert shown.strip() == execute.scores_table(execute.BOOK / "results")
    assert (execute.BOOK / "_static" / f"{execute.README_FIGURE}.png").read_bytes()[:4] == b"\x89PNG"
