"""Gates of the published edition: what must hold before anybody sees it. `make lint` runs them, in seconds.

    python book/_tools/gates.py [--release] [folder of the checkout]

A published chapter may lag behind its notebook; its page then says so. A release may hold no such chapter, so
`make release` asks with `--release` for the same code in `notebooks/` and on the pages as well.

Each finding names the file and the place in it, what was found, what is wanted, and the remedy. The first two of
these the reader of a book cannot see for himself: that a chapter ran once, from top to bottom, without an error, and
that a score in the prose was not typed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the package of this checkout, installed or not

from mitolib.files import MARK

REMAKE = "Make the chapter again: make paper PROFILE=... CHAPTER={chapter}."
MOST_BYTES = 13_000_000  # of all chapters, about a megabyte each: they lie in git, and a new run adds its own
NEEDED = ("**Question.**", "**Needs.**", "**Time**")  # the head of a chapter
LEADS_INTO_PAGE = re.compile(r"\{numref\}`fig-|\]\(#")

PRIVATE = re.compile(
    r"(?<![\w.])/(?:home|root|Users|work|tmp|mnt|content)/\w|[A-Z]:\\\\?Users"  # a folder of somebody's machine
    r"|\b(?:localhost|127\.0\.0\.1|10(?:\.\d{1,3}){3}|192\.168(?:\.\d{1,3}){2})\b"  # or its address
)

# Text that is not prose: comments, blocks and spans of code, roles such as {result}`...`, formulas, targets of links.
NOT_PROSE = re.compile(
    r"\A---\n.*?\n---\n|<!--.*?-->|^(`{3,}).*?^\1|\{[\w:]+\}`[^`]*`|`[^`]*`|\$[^$\n]+\$|\]\([^)]*\)|https?://\S+",
    re.S | re.M,
)
METRIC = r"\b(?:accurac(?:y|ies)|balanced|AUC|ROC|precision|recall|sensitivity|specificity|F1|kappa)\b"
NUMBER = r"(?<![\w.])\d*(?:\.\d+|\d\s?%|\d\s?per cent)(?![\w.]*\d)(?!\s?(?:confidence |bootstrap )?intervals?\b)"
NEAR = r"(?:[^\w.;:!?\n]|\n(?!\n)|\w|[.:](?=\S)){1,40}?"  # the same sentence, a few words on
TYPED = re.compile(f"{METRIC}{NEAR}{NUMBER}|{NUMBER}{NEAR}{METRIC}")


def executed(name: str, chapter: Mapping[str, Any]) -> Iterator[str]:
    """A chapter was run once, from top to bottom, without an error."""
    remedy = REMAKE.format(chapter=Path(name).stem)
    code = [cell for cell in chapter["cells"] if cell["cell_type"] == "code"]
    ran = [cell["execution_count"] for cell in code if _text(cell["source"]).strip()]
    if ran != list(range(1, len(ran) + 1)):
        yield f"{name}: cells were executed in the order {ran}; wanted 1 to {len(ran)}. {remedy}"
    for i, cell in enumerate(code):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                yield f"{name}, code cell {i + 1}: ends in {output['ename']}; wanted no error. {remedy}"


def same_code(name: str, chapter: Mapping[str, Any], source: Mapping[str, Any], where: str) -> Iterator[str]:
    """The code of a chapter is that of the notebook `source`, which lies where the message says."""
    shown, written = _code(chapter), _code(source)
    pairs = enumerate(zip_longest(shown, written), start=1)
    changed = [i for i, (on_page, in_source) in pairs if on_page != in_source]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        yield (
            f"{name}, code cell {changed[0]}{more}: other code than in {where} ({len(shown)} code cells, there "
            f"{len(written)}); wanted the same. {REMAKE.format(chapter=Path(name).stem)}"
        )


def figures(name: str, chapter: Mapping[str, Any], names: dict[str, str]) -> Iterator[str]:
    """Every cell that shows a picture shows one, and has a caption, a name of its own in the book, and words for it."""
    for i, cell in enumerate(cell for cell in chapter["cells"] if cell["cell_type"] == "code"):
        where = f"{name}, code cell {i + 1}"
        pictures = [o for o in cell["outputs"] if any(kind.startswith("image/") for kind in o.get("data", {}))]
        if not pictures and "plt.show()" not in _text(cell["source"]):
            continue
        about = cell["metadata"].get("mystnb", {})
        if len(pictures) > 1:
            yield f"{where}: {len(pictures)} pictures; wanted one. Give each its own cell: only the first is numbered."
        texts = {
            "figure.caption": about.get("figure", {}).get("caption", ""),
            "image.alt": about.get("image", {}).get("alt", ""),
        }
        for key, text in texts.items():
            if len(text) <= 40:
                yield f"{where}: {key} is {text!r}; wanted a sentence. Write it into the cell's metadata, mystnb.{key}."
        label = about.get("figure", {}).get("name", "")
        if not label.startswith("fig-") or names.get(label, where) != where:
            other = f", which {names[label]} has too" if label in names else ""
            yield f"{where}: figure.name is {label!r}{other}; wanted fig-... of its own. Write it into mystnb.figure."
        names[label] = where


def typed(name: str, text: str) -> Iterator[str]:
    """No score in the prose but by a role that reads it."""
    # What is cut out leaves its line breaks, so that a line number is that of the file.
    prose = NOT_PROSE.sub(lambda cut: "\u2026" + "\n" * cut[0].count("\n"), text)
    for score in TYPED.finditer(prose):
        line = prose.count("\n", 0, score.start()) + 1
        yield (
            f"{name}, line {line}: {' '.join(score[0].split())!r} has a typed number; wanted one that is read. "
            "Use {result}`chapter key format` or {published}`NAME.key format`."
        )


def private(name: str, text: str) -> Iterator[str]:
    """No folder and no address of the machine that made the edition."""
    for place in PRIVATE.finditer(text):
        line = text.count("\n", 0, place.start()) + 1
        words = text[place.start() : place.end() + 30].split("\n")[0]
        yield f"{name}, line {line}: {words!r} is of a machine; wanted none. Print file names, or run from the folder."


def published(name: str, record: Mapping[str, Any], chapter: Mapping[str, Any]) -> Iterator[str]:
    """No result of the smoke profile, and a page of the very run whose numbers are quoted."""
    remedy = REMAKE.format(chapter=Path(name).stem)
    if record["profile"] == "smoke":
        yield f"{name}: profile smoke, whose numbers mean nothing; wanted quick or paper. {remedy}"
    injected = [c for c in chapter["cells"] if "injected-parameters" in c["metadata"].get("tags", [])]
    shown = re.findall(r'^profile = "(\w+)"', "\n".join(_text(cell["source"]) for cell in injected), re.M)
    if shown != [record["profile"]]:
        yield f"{name}: profile {record['profile']}, its page was executed with {shown}; wanted the same. {remedy}"


def licensed(name: str, record: Mapping[str, Any]) -> Iterator[str]:
    """No picture whose licence is not that of the book: a machine that has such a file must not publish it."""
    if shown := record.get("real_pictures"):
        remedy = REMAKE.format(chapter=Path(name).stem)
        yield f"{name}: its page shows {', '.join(shown)}; wanted none, since that picture is under GPL-3.0. {remedy}"


def headed(name: str, notebook: Mapping[str, Any]) -> Iterator[str]:
    """A notebook says at its top what it asks, needs and takes."""
    first = _text(notebook["cells"][0]["source"])
    for part in NEEDED:
        if part not in first:
            yield f"{name}, first cell: no {part}; wanted {', '.join(NEEDED)}. Add it."


def taken_away(name: str, takeaways: str | None) -> Iterator[str]:
    """The takeaways of a chapter lead into its page."""
    path = f"book/takeaways/{Path(name).stem}.md"
    if takeaways is None:
        yield f"{path}: not found; wanted the takeaways of {name}. Write a few, with links to what shows them."
    elif not LEADS_INTO_PAGE.search(takeaways):
        yield f"{path}: no link into the page; wanted one at least. Add {{numref}}`fig-...` or [](#a-heading)."


def sized(sizes: Mapping[str, int]) -> Iterator[str]:
    """All chapters together are small enough to be kept in git. sizes: name -> bytes."""
    if sum(sizes.values()) > MOST_BYTES:
        greatest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        largest = ", ".join(f"{name} {sizes[name] / 1e6:.1f}" for name in greatest)
        yield (
            f"book/chapters: {sum(sizes.values()) / 1e6:.1f} MB, of which {largest}; wanted {MOST_BYTES / 1e6:.0f} at "
            "most. Draw their figures with fewer points or a lower dpi, and make them again."
        )


def _text(source: str | Sequence[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _code(notebook: Mapping[str, Any]) -> list[str]:
    """Sources of the code cells as their author wrote them: without the parameters that papermill puts in."""
    return [
        _text(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", [])
    ]


def _markdown(notebook: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Place and text of each Markdown cell, caption and alternative text."""
    for i, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            yield f"cell {i + 1}", _text(cell["source"])
        about = cell["metadata"].get("mystnb", {})
        for key, part in (("figure", "caption"), ("image", "alt")):
            if part in about.get(key, {}):
                yield f"cell {i + 1}, its {part}", about[key][part]


def _shown(notebook: Mapping[str, Any]) -> str:
    """All text of a notebook: sources, and outputs but for their pictures."""
    texts = [_text(cell["source"]) for cell in notebook["cells"]]
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        texts += [_text(output.get("text", "")), *output.get("traceback", [])]
        texts += [str(data) for kind, data in output.get("data", {}).items() if not kind.startswith("image/")]
    return re.sub(r"base64,[\w+/=]+", "base64", "\n".join(texts))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf8"))


def _listed(root: Path) -> set[str]:
    """The chapters in the table of contents, without those of text and drawings, behind which there is no notebook."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
    pages = (page["file"] for part in toc["parts"] for page in part["chapters"])
    written = {path.stem for path in (root / "book/chapters").glob("*.md")}
    return {page.removeprefix("chapters/") for page in pages if page.startswith("chapters/")} - written


def _stems(folder: Path) -> set[str]:
    """Names of the notebooks there, but for those that are being executed right now."""
    return {path.stem for path in folder.glob("*.ipynb") if MARK not in path.stem}


def _committed(root: Path, commit: str | None, name: str) -> dict[str, Any] | None:
    """The notebook as it was at a commit; None where git cannot tell, as for a run with uncommitted changes."""
    if not commit or commit.endswith("+"):
        return None
    try:
        # ./ counts from `root`, wherever the repository begins.
        shown = subprocess.run(["git", "show", f"{commit}:./{name}"], cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, a shallow clone, or a notebook that had another name then
    return json.loads(shown.stdout)


def findings(root: Path) -> list[str]:
    """Of the whole edition, whether its chapters lag or not: first the notebooks, then the pages."""
    problems: list[str] = []
    names: dict[str, str] = {}
    sources: dict[str, str] = {}
    for stem in sorted(_stems(root / "notebooks")):
        name = f"notebooks/{stem}.ipynb"
        notebook = _read(root / name)
        for place, text in _markdown(notebook):
            problems += typed(f"{name}, {place}", text)
        problems += [*headed(name, notebook), *figures(name, notebook, sources)]
    listed, pages = _listed(root), _stems(root / "book/chapters")
    for stem in sorted(listed | pages):
        name = f"book/chapters/{stem}.ipynb"
        takeaways = root / f"book/takeaways/{stem}.md"
        problems += taken_away(name, takeaways.read_text(encoding="utf8") if takeaways.exists() else None)
        result = root / f"book/results/{stem}.json"
        if stem not in pages or not result.exists():
            remedy = f"{REMAKE.format(chapter=stem)} Or take it out of _toc.yml, which lists what is published."
            problems.append(f"{name}: no page or no result in book/; wanted both. {remedy}")
            continue
        if stem not in listed:
            problems.append(
                f"{name}: not in _toc.yml, which lists what is published. List it there, or remove the page."
            )
        chapter, text = _read(root / name), result.read_text(encoding="utf8")
        record = json.loads(text)
        problems += executed(name, chapter)
        # A page says that its code is that of a commit: nobody may have changed it by hand since.
        commit = record.get("provenance", {}).get("commit")
        if then := _committed(root, commit, f"notebooks/{stem}.ipynb"):
            problems += same_code(name, chapter, then, f"notebooks/ at commit {commit}, which its result names")
        for place, shown in _markdown(chapter):
            problems += typed(f"{name}, {place}", shown)
        problems += figures(name, chapter, names)
        problems += private(name, _shown(chapter))
        problems += private(f"book/results/{result.name}", text)
        problems += published(f"book/results/{result.name}", record, chapter)
        problems += licensed(f"book/results/{result.name}", record)
    problems += sized({f"{stem}.ipynb": (root / f"book/chapters/{stem}.ipynb").stat().st_size for stem in pages})
    texts = (path for folder in ("book", "book/chapters", "book/takeaways") for path in (root / folder).glob("*.md"))
    for path in sorted(texts):
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf8")
        problems += [*typed(name, text), *private(name, text)]
    return problems


def lagging(root: Path) -> list[str]:
    """What keeps the edition from a release: each notebook has its page, each page its notebook, with the same code."""
    problems: list[str] = []
    sources, pages = _stems(root / "notebooks"), _stems(root / "book/chapters")
    for stem in sorted(sources | pages):
        source, page = f"notebooks/{stem}.ipynb", f"book/chapters/{stem}.ipynb"
        if stem not in pages:
            problems.append(
                f"{source}: no page in book/chapters; wanted one. Make it, make paper PROFILE=... CHAPTER={stem}, and "
                "list it in _toc.yml."
            )
        elif stem not in sources:
            problems.append(
                f"{page}: no {source}; wanted the notebook that it shows. Take the chapter out of _toc.yml and book/, "
                "or bring its notebook back."
            )
        else:
            problems += same_code(page, _read(root / page), _read(root / source), "notebooks/")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: prints what was found, and returns 1 if that is anything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--release", action="store_true", help="also that no chapter lags behind its notebook")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[2], help="the checkout")
    options = parser.parse_args(arguments)
    problems = findings(options.root)
    if options.release:
        problems += lagging(options.root)
    print("\n".join(problems) or "the published edition passes its gates")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
