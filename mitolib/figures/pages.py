"""The two boxes of every chapter: how it was made, at its top, and the provenance of its numbers, at its end."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from mitolib.claims import OPEN, Answer
from mitolib.own_data import LeftOut
from mitolib.progress import clock
from mitolib.settings import Profile

MOST_CONCLUSIONS = 12  # sentences of a list that is shown whole


def banner(profile: Profile, data_name: str) -> str:
    """Markdown for the top of a chapter: which kind of run the reader is looking at, on which data.

    data_name: as `own_data.name` has it. What was trained, and for how long, differs between chapters: the results
    file has it under `budget`, and the provenance at the chapter's end shows it.
    """
    text = f"Profile *{profile.name}*. Data: {data_name}"
    if not data_name.startswith("your own"):
        text += f", in sections of {profile.scale:g} times the published length and width"
    worth = {
        "paper": "",
        "quick": " Its numbers show that the pipeline runs, and no more.",
        "smoke": " A test of the machinery: its numbers mean nothing.",
    }[profile.name]
    return f":::{{admonition}} How this page was made\n:class: note\n{text}.{worth}\n:::"


def conclusions(claims: Mapping[str, Answer]) -> str:
    """Markdown, a numbered list: what the results say of each claim, see `claims.conclusions`.

    Of more than MOST_CONCLUSIONS the questions that stay open stand in a closed box below it.
    """
    sentences = [answer.sentence for answer in claims.values()]
    if len(sentences) <= MOST_CONCLUSIONS:
        return _numbered(sentences)
    decided = [answer.sentence for answer in claims.values() if answer.verdict != OPEN]
    undecided = [answer.sentence for answer in claims.values() if answer.verdict == OPEN]
    box = f":::{{admonition}} Questions that stay open: {len(undecided)}\n:class: tip, dropdown\n\n"
    return "\n\n".join(filter(None, [_numbered(decided), box + _numbered(undecided) + "\n:::" if undecided else ""]))


def _numbered(sentences: Sequence[str]) -> str:
    return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1))


def provenance(record: Mapping[str, Any]) -> str:
    """Markdown of the provenance box at the end of a chapter."""
    p = record["provenance"]
    rows = {
        "commit": p["commit"] or "outside git",
        "mitolib": p["mitolib"],
        "executed": f"{p['created']}, {p['seconds'] / 60:.1f} minutes",
        "profile": record["profile"],
        **{f"budget of {name}": _listed(budget) for name, budget in record.get("budget", {}).items()},
        "parameters": _listed(p["parameters"]),
        "device": f"{p['device']}, {p['cores']} cores"
        + (f"; frozen backbones in {p['precision']}" if p["precision"] else "")
        + (f"; Keras on {p['backend']}" if p.get("backend", "tensorflow") != "tensorflow" else ""),
        "software": ", ".join([f"Python {p['python']}", *(f"{k} {v}" for k, v in p["packages"].items())]),
        "data": _listed(p["data"]),
    } | {
        f"weights of {name}": "random initialisation: the ImageNet weights were out of reach"
        if w["source"] == "random"
        else f"ImageNet, from {w['source']}; SHA-256 {w['sha256']}; {w['licence']}"
        for name, w in p["weights"].items()
    }
    lines = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    box = f":::{{admonition}} Provenance\n:class: tip, dropdown\n\n| | |\n|---|---|\n{lines}\n:::"
    return f"{box}\n\n{_units(p['units'], record['chapter'])}" if p["units"] else box


def _listed(entries: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in entries.items())


def _units(units: Sequence[Mapping[str, Any]], chapter: str) -> str:
    """Markdown of a closed box: the units that a chapter was drawn from, in one table for each way they were made."""
    makers: dict[str, list[str]] = {}
    for unit in units:
        made = unit["made"]
        precision = f", {made['precision']}" if made["precision"] else ""
        commit = f"commit {made['commit']}" if made["commit"] else "outside git"
        name = ", ".join(f"{key} {value}" for key, value in unit["unit"].items() if value is not None)
        name = name if unit["chapter"] == chapter else f"{unit['chapter']}: {name}"
        day = made["created"].partition("T")[0]
        row = f"| {name} | {day} | {clock(made['seconds'])} | {unit['key'][:12]} |"
        makers.setdefault(f"{made['device']}, {made['cores']} cores{precision}, {commit}", []).append(row)
    header = "| unit | computed | time | key |\n|---|---|---|---|\n"
    tables = "\n\n".join(f"{maker}\n\n{header}" + "\n".join(rows) for maker, rows in makers.items())
    return f":::{{admonition}} Units: {len(units)}, {_minutes(units)}\n:class: tip, dropdown\n\n{tables}\n:::"


def folded(title: str, *tables: pd.DataFrame | Styler | LeftOut) -> str:
    """Markdown of a closed box with tables, for what few readers need. Numbers are shown to two decimals.

    A styled table keeps its own format. What is left out says so; where all is, there is no box.
    """
    texts = [_markdown(table) for table in tables]
    if all(isinstance(table, LeftOut) for table in tables):
        return "\n\n".join(texts)
    return f":::{{admonition}} {title}\n:class: tip, dropdown\n\n" + "\n\n".join(texts) + "\n:::"


def _markdown(table: pd.DataFrame | Styler | LeftOut) -> str:
    """A table as Markdown, index first; a pipe in a cell would end it. A styled one as HTML, without an empty line."""
    if isinstance(table, LeftOut):
        return str(table)
    if isinstance(table, Styler):
        return re.sub(r"\n\s*\n", "\n", table.to_html())
    if table.index.nlevels > 1 or table.columns.nlevels > 1:
        return _markdown(table.style.format(precision=2, na_rep="-"))
    plain = table.reset_index(names=[name or "" for name in table.index.names])

    def text(value: Any) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "-"
        if isinstance(value, float):
            return f"{value:.2f}"
        return str(value).replace("|", "\\|")

    lines = [[text(str(name)) for name in plain.columns], ["---"] * plain.shape[1]]
    lines += [[text(value) for value in row] for row in plain.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cost(units: Sequence[Mapping[str, Any]]) -> str:
    """What trainings cost together: "3 trainings, 83.4 minutes of computing"."""
    return f"{len(units)} training{'' if len(units) == 1 else 's'}, {_minutes(units)}"


def _minutes(units: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(unit['made']['seconds'] for unit in units) / 60:.1f} minutes of computing"
