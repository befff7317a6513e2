from __future__ import annotations

import base64
import io
import os
import subprocess
import sys

import execute
import nbformat
import numpy as np
import papermill
import pytest
import yaml
from PIL import Image

from mitolib.settings import ROOT


def notebook_with(*cells) -> nbformat.NotebookNode:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=list(cells), metadata={"kernelspec": kernel})


def cell(source: str, **metadata) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def test_default_parameters_are_hidden_where_injected_ones_follow():
    defaults, injected = cell("epochs = 50", tags=["parameters"]), cell("epochs = 1", tags=["injected-parameters"])
    tidied = execute.tidy(notebook_with(defaults, injected), [])
    assert tidied.cells[0].metadata["tags"] == ["parameters", "remove-cell"]
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


def test_a_notebook_that_fails_leaves_the_chapter_that_was_there(tmp_path, monkeypatch):
    sources, book = tmp_path / "notebooks", tmp_path / "book"
    sources.mkdir()
    nbformat.write(
        notebook_with(cell("profile = results = None", tags=["parameters"]), cell("1 / 0")), sources / "exp1.ipynb"
    )
    monkeypatch.setattr(execute, "NOTEBOOKS", sources)
    (book / "chapters").mkdir(parents=True)
    (book / "chapters" / "exp1.ipynb").write_text("the last good run")
    with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError"):
        execute.execute("exp1", profile="smoke", book=book)
    assert [p.name for p in (book / "chapters").iterdir()] == ["exp1.ipynb"]
    assert (book / "chapters" / "exp1.ipynb").read_text() == "the last good run"


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
