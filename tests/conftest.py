"""Shared by the tests: a small cohort on disk, the rendered book, one page of it; figures closed after each test."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
import tifffile
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
matplotlib.use("Agg")

from mitolib.settings import PROTEINS, ROOT

for folder in ("_ext", "_tools"):  # the modules of the book lie beside its pages
    sys.path.append(str(ROOT / "book" / folder))

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest first, so that of two processes none waits for it at the end."""
    items.sort(key=lambda item: item.path.stem != "test_site")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def make_cohort(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Path]:
    """Write {class folder: sections} as TIFFs of random grey, height x width px, and return the root."""

    def make(
        classes: dict[str, list[str]] | None = None,
        proteins: tuple[str, ...] = PROTEINS,
        shape: tuple[int, int] = (600, 700),
    ) -> Path:
        root = tmp_path / "cohort"
        for class_folder, sections in (classes or {"Control": ["C01"], "Patient": ["P01", "P02"]}).items():
            for section in sections:
                folder = root / class_folder / section
                folder.mkdir(parents=True)
                for protein in proteins:
                    tifffile.imwrite(
                        folder / f"{protein}.tif", rng.integers(0, 256, shape, dtype=np.uint8), compression="zlib"
                    )
        return root

    return make


@pytest.fixture
def render(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Text and warnings of one page that uses the extensions of the book, given results files; HTML is in `out`."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    def build(page: str, **results: dict) -> tuple[str, str]:
        (tmp_path / "results").mkdir(exist_ok=True)
        for chapter, record in results.items():
            (tmp_path / f"results/{chapter}.json").write_text(json.dumps(record))
        (tmp_path / "index.md").write_text(f"# Page\n\n{page}\n")
        warnings, out = io.StringIO(), tmp_path / "out"
        with docutils_namespace():
            config = {"extensions": ["myst_parser", "frames"], "numfig": True}
            app = Sphinx(
                tmp_path, None, out, out / "trees", "html", confoverrides=config, status=None, warning=warnings
            )
            app.build()
        return " ".join(app.env.get_doctree("index").astext().split()), warnings.getvalue()

    return build


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The published edition, rendered with warnings as errors; nothing but bytecode is written beside the sources."""
    book, out = ROOT / "book", tmp_path_factory.mktemp("book")
    jupyter_book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]  # of this very Python
    done = subprocess.run(
        [*jupyter_book, "build", str(book), "-W", "-n", "--keep-going", "--path-output", str(out)],
        cwd=out,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    log = done.stdout + done.stderr
    problems = "\n".join(line for line in log.splitlines() if re.search("WARNING|ERROR|Error", line))
    assert done.returncode == 0, problems or log[-3000:]
    assert not (book / "_build").exists() or (book / "_build").stat().st_mtime < out.stat().st_mtime
    return out / "_build" / "html"


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """For tensors so small that threads cost more time than they save."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    matplotlib.pyplot.close("all")
