"""The two boxes of every chapter: how it was made, at its top, and the provenance of its numbers, at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mitolib.progress import clock
from mitolib.settings import Profile


def banner(profile: Profile, data_name: str) -> str:
    """Markdown for the top of a chapter: which kind of run the reader is looking at, on which data.

    data_name: as `own_data.name` has it; the published protocol and the size of the phantom say nothing of "your own".
    """
    kind = {
        "paper": "This page was executed with the published protocol.",
        "quick": "This page was executed in the quick profile: smaller sections and fewer epochs than published. "
        "Its numbers show that the pipeline runs; they are not the reproduction.",
        "smoke": "This page was executed in the smoke profile, a test of the machinery. Its numbers mean nothing.",
    }[profile.name]
    text = f"{kind} {profile.summary} Data: {data_name}."
    if data_name.startswith("your own"):
        worth = {"quick": " Its numbers show that the pipeline runs.", "smoke": " Its numbers mean nothing."}
        text = (
            f"This page was executed on data of its reader: {data_name}. Profile {profile.name}: {profile.budget}."
            f"{worth.get(profile.name, '')}"
        )
    return f":::{{admonition}} How this page was made\n:class: note\n{text}\n:::"


def provenance(record: Mapping[str, Any]) -> str:
    """Markdown of the provenance box at the end of a chapter."""
    p = record["provenance"]
    rows = {
        "commit": p["commit"] or "outside git",
        "mitolib": p["mitolib"],
        "executed": f"{p['created']}, {p['seconds'] / 60:.1f} minutes",
        "profile": record["profile"],
        "parameters": ", ".join(f"{key} {value}" for key, value in p["parameters"].items()),
        "device": f"{p['device']}, {p['cores']} cores"
        + (f"; frozen backbones in {p['precision']}" if p["precision"] else ""),
        "software": ", ".join([f"Python {p['python']}", *(f"{k} {v}" for k, v in p["packages"].items())]),
        "data": ", ".join(f"{key} {value}" for key, value in p["data"].items()),
    } | {
        f"weights of {name}": "random initialisation: the ImageNet weights were out of reach"
        if w["source"] == "random"
        else f"ImageNet, from {w['source']}; SHA-256 {w['sha256']}; {w['licence']}"
        for name, w in p["weights"].items()
    }
    lines = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    box = f":::{{admonition}} Provenance\n:class: tip, dropdown\n\n| | |\n|---|---|\n{lines}\n:::"
    return f"{box}\n\n{_units(p['units'])}" if p["units"] else box


def _units(units: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of a closed box: each unit that the chapter was drawn from, and how it was made."""
    header = ["unit", "of", "computed", "time", "device", "commit", "key"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for unit in units:
        made = unit["made"]
        name = ", ".join(f"{key} {value}" for key, value in unit["unit"].items() if value is not None)
        precision = f", {made['precision']}" if made["precision"] else ""
        device = f"{made['device']}, {made['cores']} cores{precision}"
        cells = [
            name,
            unit["chapter"],
            made["created"],
            clock(made["seconds"]),
            device,
            made["commit"] or "outside git",
            unit["key"][:12],
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    table = "\n".join(lines)
    return f":::{{admonition}} Units: {len(units)}, {_minutes(units)}\n:class: tip, dropdown\n\n{table}\n:::"


def cost(units: Sequence[Mapping[str, Any]]) -> str:
    """What trainings cost together: "3 trainings, 83.4 minutes of computing"."""
    return f"{len(units)} training{'' if len(units) == 1 else 's'}, {_minutes(units)}"


def _minutes(units: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(unit['made']['seconds'] for unit in units) / 60:.1f} minutes of computing"
