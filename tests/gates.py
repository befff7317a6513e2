"""Gates of the published edition: what must hold before anybody sees it. `make lint` runs them, in seconds.

    python tests/gates.py [folder of the checkout]

Each finding names the file and the place in it, what was found, what is wanted, and the remedy. The first two of
these the reader of a book cannot see for himself: that a chapter ran once, from top to bottom, without an error, and
that a score in the prose was not typed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REMAKE = "Make the chapter again: make paper PROFILE=... CHAPTER={chapter}."
MOST_BYTES = 12_000_000  # of all chapters: they lie in git, and a new run adds its own
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


def executed(name: str, chapter: Mapping[str, Any], source: Mapping[str, Any]) -> Iterator[str]:
    """A chapter is its notebook, run once from top to bottom without an error."""
    remedy = REMAKE.format(chapter=Path(name).stem)
    code = [cell for cell in chapter["cells"] if cell["cell_type"] == "code"]
    own = [cell for cell in code if "injected-parameters" not in cell["metadata"].get("tags", [])]
    written = [_text(cell["source"]) for cell in source["cells"] if cell["cell_type"] == "code"]
    for i, (ran, wanted) in enumerate(zip(own, written, strict=False)):
        if _text(ran["source"]) != wanted:
            yield f"{name}, code cell {i + 1}: other code than in notebooks/; wanted the same. {remedy}"
    if len(own) != len(written):
        yield f"{name}: {len(own)} code cells, notebooks/ has {len(written)}; wanted the same. {remedy}"
    ran = [cell["execution_count"] for cell in code if _text(cell["source"]).strip()]
    if ran != list(range(1, len(ran) + 1)):
        yield f"{name}: cells were executed in the order {ran}; wanted 1 to {len(ran)}. {remedy}"
    for i, cell in enumerate(code):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                yield f"{name}, code cell {i + 1}: ends in {output['ename']}; wanted no error. {remedy}"


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
        given = {
            "figure.caption": about.get("figure", {}).get("caption", ""),
            "image.alt": about.get("image", {}).get("alt", ""),
        }
        for key, text in given.items():
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
    for found in TYPED.finditer(prose):
        line = prose.count("\n", 0, found.start()) + 1
        yield (
            f"{name}, line {line}: {' '.join(found[0].split())!r} has a typed number; wanted one that is read. "
            "Use {result}`chapter key format` or {published}`NAME.key format`."
        )


def private(name: str, text: str) -> Iterator[str]:
    """No folder and no address of the machine that made the edition."""
    for found in PRIVATE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        shown = text[found.start() : found.end() + 30].split("\n")[0]
        yield f"{name}, line {line}: {shown!r} is of a machine; wanted none. Print file names, or run from the folder."


def published(name: str, record: Mapping[str, Any], chapter: Mapping[str, Any]) -> Iterator[str]:
    """No result of the smoke profile, and a page of the very run whose numbers are quoted."""
    remedy = REMAKE.format(chapter=Path(name).stem)
    if record["profile"] == "smoke":
        yield f"{name}: profile smoke, whose numbers mean nothing; wanted quick or paper. {remedy}"
    injected = [c for c in chapter["cells"] if "injected-parameters" in c["metadata"].get("tags", [])]
    shown = re.findall(r'^profile = "(\w+)"', "\n".join(_text(cell["source"]) for cell in injected), re.M)
    if shown != [record["profile"]]:
        yield f"{name}: profile {record['profile']}, its page was executed with {shown}; wanted the same. {remedy}"


def framed(name: str, notebook: Mapping[str, Any], takeaways: str | None) -> Iterator[str]:
    """A chapter says at its top what it asks, needs and takes; its takeaways lead into the page."""
    first = _text(notebook["cells"][0]["source"])
    for part in NEEDED:
        if part not in first:
            yield f"{name}, first cell: no {part}; wanted {', '.join(NEEDED)}. Add it."
    path = f"book/takeaways/{Path(name).stem}.md"
    if takeaways is None:
        yield f"{path}: not found; wanted the takeaways of {name}. Write a few, with links to what shows them."
    elif not LEADS_INTO_PAGE.search(takeaways):
        yield f"{path}: no link into the page; wanted one at least. Add {{numref}}`fig-...` or [](#a-heading)."


def sized(sizes: Mapping[str, int]) -> Iterator[str]:
    """All chapters together are small enough to be kept in git. sizes: name -> bytes."""
    if sum(sizes.values()) > MOST_BYTES:
        greatest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        told = ", ".join(f"{name} {sizes[name] / 1e6:.1f}" for name in greatest)
        yield (
            f"book/chapters: {sum(sizes.values()) / 1e6:.1f} MB, of which {told}; wanted {MOST_BYTES / 1e6:.0f} at "
            "most. Draw their figures with fewer points or a lower dpi, and make them again."
        )


def _text(source: str | Sequence[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


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


def findings(root: Path) -> list[str]:
    """Of the whole edition, in the order of its files."""
    found: list[str] = []
    names: dict[str, str] = {}
    sources: dict[str, str] = {}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        name, stem = f"notebooks/{path.name}", path.stem
        notebook = json.loads(path.read_text(encoding="utf8"))
        for place, text in _markdown(notebook):
            found += typed(f"{name}, {place}", text)
        takeaways = root / f"book/takeaways/{stem}.md"
        found += framed(name, notebook, takeaways.read_text(encoding="utf8") if takeaways.exists() else None)
        page, result = root / f"book/chapters/{path.name}", root / f"book/results/{stem}.json"
        if not page.exists() or not result.exists():
            found.append(f"{name}: no page or no result in book/; wanted both. {REMAKE.format(chapter=stem)}")
            continue
        chapter = json.loads(page.read_text(encoding="utf8"))
        found += figures(name, notebook, sources)
        found += executed(f"book/chapters/{path.name}", chapter, notebook)
        found += figures(f"book/chapters/{path.name}", chapter, names)
        found += private(f"book/chapters/{path.name}", _shown(chapter))
        text = result.read_text(encoding="utf8")
        found += private(f"book/results/{result.name}", text)
        found += published(f"book/results/{result.name}", json.loads(text), chapter)
    found += sized({path.name: path.stat().st_size for path in (root / "book/chapters").glob("*.ipynb")})
    for path in sorted([*(root / "book").glob("*.md"), *(root / "book/takeaways").glob("*.md")]):
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf8")
        found += [*typed(name, text), *private(name, text)]
    return found


if __name__ == "__main__":
    here = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    problems = findings(here)
    print("\n".join(problems) or "the published edition passes its gates")
    sys.exit(bool(problems))
