"""How the instrument's text export begins, also after some program has saved it anew."""

from __future__ import annotations

import re
from pathlib import Path

TEXT_START = b"Start_push\t"
MARKS = b"\xef\xbb\xbf\xff\xfe\"' "  # byte-order marks, quotes
SEPARATORS = rb"[\t;, ]+"
LEAST_NUMBERS = 7  # of a row: three pushes, three coordinates, one channel
COLUMNS = {b"start_push", b"end_push", b"pushes_duration"}
CHANNEL = re.compile(rb"\((?:\d{2,3}[a-z]{1,2}|[a-z]{1,2}\d{2,3})(?:di)?\)")  # behind a name: (Eu153Di), (153Eu)


def first_lines(path: Path) -> list[bytes]:
    """The first five lines of a file, or what a few kilobytes hold of them."""
    with path.open("rb") as file:
        return file.read(20_000).splitlines(keepends=True)[:5]


def begins_as_export(first: bytes) -> bool:
    """Whether a first line is that of the instrument, whatever a program has put before it or between its cells.

    True for less than its first word, and for nothing: such a file was broken off.
    """
    readable = first.replace(b"\0", b"").lstrip(MARKS).lower()
    return TEXT_START.lower().startswith(readable) or readable.startswith(TEXT_START.strip().lower())


def was_export(lines: list[bytes]) -> bool:
    """Whether the first lines of a file show that it was an export once: without its header, or with one changed."""
    if not lines:
        return False
    cells = re.split(SEPARATORS, lines[0].strip())
    if len(cells) >= LEAST_NUMBERS and all(re.fullmatch(rb"-?[\d.,]+(?:e[+-]?\d+)?", cell, re.I) for cell in cells):
        return True
    for line in lines:
        words = {cell.strip(MARKS) for cell in re.split(rb"[\t;,]", line.replace(b"\0", b"").strip().lower())}
        if len(words & COLUMNS) > 1 or ({b"x", b"y", b"z"} <= words and any(CHANNEL.search(word) for word in words)):
            return True
    return False


def what_was_changed(lines: list[bytes]) -> str | None:
    """What a program did to the beginning of an export; None for what was never one, or ends in its first word."""
    first = lines[0] if lines else b""
    if not begins_as_export(first):
        return "its first line is not that of the instrument, which names the columns" if was_export(lines) else None
    if len(first) < len(TEXT_START):
        return None
    if b"\0" in first:
        return "it was saved again as UTF-16"
    if first.startswith(b"\xef\xbb\xbf"):
        return "it begins with a byte-order mark"
    if first[:1] in (b'"', b"'"):
        return "its column names stand in quotes"
    return f"its columns are not separated by tabs: {first[:20].decode('latin-1')!r}"
