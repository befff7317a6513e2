"""Each gate, fed an edition that is broken in one way."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import gates
import pytest

from mitolib import files
from mitolib.settings import ROOT

PICTURE = {"output_type": "display_data", "data": {"image/png": "iVBOR"}, "metadata": {}}
WORDS = "Sections of muscle in grey, one beside the other, with their names."
FIGURE = {"figure": {"caption": WORDS, "name": "fig-some"}, "image": {"alt": WORDS}}
HEAD = "# A chapter\n\n**Question.** Why?\n\n**Needs.** Nothing. **Time**: seconds."


def code(source: str, count: int | None, *outputs: dict, **metadata) -> dict:
    return {
        "cell_type": "code",
        "source": source,
        "execution_count": count,
        "outputs": list(outputs),
        "metadata": metadata,
    }


def markdown(source: str) -> dict:
    return {"cell_type": "markdown", "source": source, "metadata": {}}


@pytest.fixture
def edition() -> dict[str, dict]:
    """Notebook, chapter and record of one chapter that passes every gate."""
    source = [markdown(HEAD), code("profile = None", None, tags=["parameters"]), code("plt.show()", None)]
    source[2]["metadata"] = {"mystnb": FIGURE}
    injected = code('# Parameters\nprofile = "quick"\n', 2, tags=["injected-parameters"])
    ran = copy.deepcopy([source[0], source[1], injected, source[2]])
    ran[1]["execution_count"], ran[3]["execution_count"], ran[3]["outputs"] = 1, 3, [PICTURE]
    return {
        "notebooks/some.ipynb": {"cells": source},
        "book/chapters/some.ipynb": {"cells": ran},
        "book/results/some.json": {"profile": "quick"},
        "book/takeaways/some.md": "- It is so ({numref}`fig-some`).",
        "book/intro.md": "# Page\n\nAccuracy {result}`some models.VGG16.accuracy .2f`.",
        "_toc.yml": "parts:\n- chapters:\n  - file: chapters/some\n  - file: results\n",
    }


def passes(root: Path, files: dict[str, dict | str], *options: str) -> subprocess.CompletedProcess:
    """Write the edition and run the gates on it: as `make lint` does, or with `--release` as `make release` does."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return subprocess.run([sys.executable, gates.__file__, *options, str(root)], capture_output=True, text=True)


@pytest.mark.parametrize("options", [(), ("--release",)])
def test_an_edition_without_fault_passes(tmp_path, edition, options):
    done = passes(tmp_path, edition, *options)
    assert done.returncode == 0, done.stdout


def ran_twice(cells):
    cells[3]["execution_count"] = 5


def never_ran(cells):
    cells[3]["execution_count"] = None


def error(cells):
    cells[3]["outputs"].append({"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []})


def no_caption(cells):
    cells[3]["metadata"] = {"mystnb": {"figure": {"name": "fig-some"}, "image": {"alt": WORDS}}}


def no_alt(cells):
    cells[3]["metadata"] = {"mystnb": {"figure": FIGURE["figure"]}}


def no_name(cells):
    cells[3]["metadata"] = {"mystnb": {"figure": {"caption": WORDS}, "image": {"alt": WORDS}}}


def two_pictures(cells):
    cells[3]["outputs"].append(PICTURE)


def a_path(cells):
    cells[1]["outputs"].append({"output_type": "stream", "name": "stdout", "text": "read /home/" + "me/x.tif\n"})


def a_host(cells):
    cells[1]["outputs"].append({"output_type": "stream", "name": "stdout", "text": "open http://local" + "host:8888\n"})


def smoke(cells):
    cells[2]["source"] = '# Parameters\nprofile = "smoke"\n'


def typed(cells):
    cells[0]["source"] = "# A chapter\n\nThe accuracy is 0.95."


@pytest.mark.parametrize(
    ("breaks", "found"),
    [
        (ran_twice, "executed in the order [1, 2, 5]; wanted 1 to 3"),
        (never_ran, "executed in the order [1, 2, None]"),
        (error, "code cell 3: ends in ValueError"),
        (no_caption, "code cell 3: figure.caption is ''"),
        (no_alt, "code cell 3: image.alt is ''"),
        (no_name, "code cell 3: figure.name is ''"),
        (two_pictures, "code cell 3: 2 pictures; wanted one"),
        (a_path, "is of a machine"),
        (a_host, "is of a machine"),
        (smoke, "profile quick, its page was executed with ['smoke']"),
        (typed, "book/chapters/some.ipynb, cell 1, line 3: 'accuracy is 0.95' has a typed number"),
    ],
)
def test_a_broken_chapter_is_refused_with_its_place_and_the_remedy(tmp_path, edition, breaks, found):
    breaks(edition["book/chapters/some.ipynb"]["cells"])
    done = passes(tmp_path, edition)
    line = next((line for line in done.stdout.splitlines() if found in line), done.stdout)
    assert done.returncode == 1 and found in line
    assert "some." in line and "wanted" in line and line.rstrip().endswith(".")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("book/results/some.json", {"profile": "smoke"}, "profile smoke, whose numbers mean nothing"),
        ("book/results/some.json", {"profile": "quick", "real_pictures": ["real section"]}, "wanted none, since"),
        ("book/takeaways/some.md", "- It is so.", "no link into the page"),
        ("book/intro.md", "# Page\n\nSee\n/root/" + "x.tif.", "book/intro.md, line 4"),
        ("notebooks/some.ipynb", {"cells": [markdown("# A chapter\n\nThe accuracy is 0.95.")]}, "cell 1, line 3"),
        ("notebooks/some.ipynb", {"cells": [markdown("# A chapter\n\nText.")]}, "no **Question.**"),
    ],
)
def test_a_broken_file_beside_the_chapters_is_refused(tmp_path, edition, name, content, found):
    done = passes(tmp_path, edition | {name: content})
    assert done.returncode == 1 and found in done.stdout, done.stdout


def test_a_chapter_without_takeaways_or_page_is_refused(tmp_path, edition):
    left = {name: content for name, content in edition.items() if "takeaways" not in name and "chapters" not in name}
    done = passes(tmp_path, left)
    assert "takeaways/some.md: not found" in done.stdout and "no page or no result" in done.stdout


def other_code(edition):
    edition["notebooks/some.ipynb"]["cells"][2]["source"] = "plt.show()  # drawn anew"


def cell_added(edition):
    edition["notebooks/some.ipynb"]["cells"].insert(2, code("print(1)", None))


def cell_removed(edition):
    del edition["notebooks/some.ipynb"]["cells"][2]


def notebook_removed(edition):
    del edition["notebooks/some.ipynb"]


def notebook_without_page(edition):
    edition["notebooks/fresh.ipynb"] = {"cells": [markdown(HEAD), code("1", None)]}


LAGS = [
    (other_code, "book/chapters/some.ipynb, code cell 2: other code than in notebooks/", "CHAPTER=some"),
    (cell_added, "book/chapters/some.ipynb, code cell 2 and 1 more: other code than in notebooks/", "CHAPTER=some"),
    (cell_removed, "some.ipynb, code cell 2: other code than in notebooks/ (2 code cells, there 1)", "CHAPTER=some"),
    (notebook_removed, "book/chapters/some.ipynb: no notebooks/some.ipynb", "Take the chapter out of _toc.yml"),
    (notebook_without_page, "notebooks/fresh.ipynb: no page in book/chapters", "CHAPTER=fresh"),
]


@pytest.mark.parametrize(("change", "found", "remedy"), LAGS)
def test_a_chapter_that_lags_passes_until_there_is_a_release(tmp_path, edition, change, found, remedy):
    change(edition)
    lint = passes(tmp_path, edition)
    assert lint.returncode == 0, lint.stdout
    release = passes(tmp_path, edition, "--release")
    (line,) = release.stdout.splitlines()
    assert release.returncode == 1 and found in line and "wanted" in line and remedy in line


def test_make_asks_for_a_release_before_it_builds_one_and_at_no_other_time():
    def would_run(target: str) -> str:
        command = ["make", "--no-print-directory", "-n", target]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    before, _, after = would_run("release").partition("book/_tools/gates.py --release")
    assert "build/site" in after and "build" not in before.replace(".venv", "")
    assert "book/_tools/gates.py" in would_run("lint") and "--release" not in would_run("lint")
    assert "--release" not in would_run("site")


def test_parameters_that_papermill_put_in_are_no_other_code(edition):
    cells = edition["book/chapters/some.ipynb"]["cells"]
    assert gates._code({"cells": cells}) == gates._code(edition["notebooks/some.ipynb"])
    cells[3]["source"] = ["plt.", "show()"]  # as a file keeps it, in lines
    assert gates._code({"cells": cells}) == gates._code(edition["notebooks/some.ipynb"])


@pytest.mark.parametrize("part", ["book/chapters/some.ipynb", "book/results/some.json"])
def test_what_the_toc_lists_has_a_page_and_a_result_even_without_its_notebook(tmp_path, edition, part):
    for name in ("notebooks/some.ipynb", part):
        del edition[name]
    done = passes(tmp_path, edition)
    assert done.returncode == 1 and "book/chapters/some.ipynb: no page or no result in book/" in done.stdout


def test_a_page_that_the_toc_does_not_list_is_refused(tmp_path, edition):
    done = passes(tmp_path, edition | {"_toc.yml": "parts:\n- chapters:\n  - file: results\n"})
    assert done.returncode == 1 and "book/chapters/some.ipynb: not in _toc.yml" in done.stdout


def test_a_chapter_that_is_being_executed_is_not_looked_at(tmp_path, edition):
    with files.whole(tmp_path / "book/chapters/some.ipynb") as aside:
        done = passes(tmp_path, edition | {aside.relative_to(tmp_path).as_posix(): {"cells": []}}, "--release")
    assert done.returncode == 0, done.stdout


def test_a_page_that_lags_has_the_code_of_the_commit_it_names(tmp_path, edition):
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    passes(tmp_path, edition)
    git("init", "-q")
    git("add", "notebooks")
    git("commit", "-q", "-m", "the notebook that was executed")
    commit = git("rev-parse", "--short=12", "HEAD")
    edition["book/results/some.json"]["provenance"] = {"commit": commit}
    other_code(edition)
    assert passes(tmp_path, edition).returncode == 0
    edition["book/chapters/some.ipynb"]["cells"][3]["source"] = "plt.show()  # changed by hand"
    refused = passes(tmp_path, edition)
    assert refused.returncode == 1
    assert f"some.ipynb, code cell 2: other code than in notebooks/ at commit {commit}" in refused.stdout
    edition["book/results/some.json"]["provenance"] = {"commit": f"{commit}+"}
    assert passes(tmp_path, edition).returncode == 0, "with uncommitted changes nobody can tell"


def test_chapters_that_are_too_large_for_git_are_refused(tmp_path, edition):
    edition["book/chapters/some.ipynb"]["cells"][3]["outputs"][0]["data"]["image/png"] = "i" * gates.MOST_BYTES
    refused = passes(tmp_path, edition)
    assert refused.returncode == 1 and "13.0 MB, of which some.ipynb 13.0; wanted 13 at most" in refused.stdout


def test_a_name_that_two_figures_share_is_refused(tmp_path, edition):
    for folder in ("notebooks", "book/chapters"):
        edition[f"{folder}/twin.ipynb"] = edition[f"{folder}/some.ipynb"]
    edition["book/results/twin.json"], edition["book/takeaways/twin.md"] = (
        edition[f"book/{kind}"] for kind in ("results/some.json", "takeaways/some.md")
    )
    edition["_toc.yml"] += "  - file: chapters/twin\n"
    assert "'fig-some', which book/chapters/some.ipynb, code cell 3 has too" in passes(tmp_path, edition).stdout


@pytest.mark.parametrize(
    "text",
    [
        "VGG16 reaches an accuracy of 0.95.",
        "It is right, with 95 % accuracy, on patches.",
        "A balanced accuracy near\n88.5% was found.",
        "The AUC (over people) is .93.",
        "an F1 of 95 per cent",
        "| precision | 0.96 |",
    ],
)
def test_a_typed_score_is_found(text):
    assert len(list(gates.typed("page.md", text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Accuracy {result}`exp1 models.VGG16.accuracy .2f`.",
        "Accuracy, with 95 % intervals over people.",
        "Balanced accuracy. A split of 10 % is drawn twice.",
        "```bash\nmake paper  # accuracy 0.95\n```",
        "The metric `accuracy=0.95` is a made-up one.",
        "Precision follows [the definition](https://doi.org/10.1000/0.95).",
        "VGG16 sees F1 to F5 of figure 2.",
    ],
)
def test_a_number_that_is_no_typed_score_passes(text):
    assert list(gates.typed("page.md", text)) == []


def test_the_line_of_a_typed_score_is_that_of_the_file():
    text = "---\ntitle: x\n---\n\n```bash\nmake\nbook\n```\n\nAn accuracy of 0.9.\n"
    assert "page.md, line 10:" in next(gates.typed("page.md", text))
