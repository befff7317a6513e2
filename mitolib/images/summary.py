"""What the reader understands and what it refuses, as a table made of the very constants that it reads by."""

from __future__ import annotations

import pandas as pd

from mitolib.images import channel, declared, formats, intensity, layout, names, panel, tables, tiff


def understood() -> pd.DataFrame:
    """One row per subject: columns `understood` and `refused, or named as left out`."""
    compressions = ", ".join(sorted(scheme.name.lower().replace("adobe_", "") for scheme in tiff.COMPRESSIONS))
    spellings = ", ".join(
        f"{alias} ({protein})" for alias, protein in names.ALIASES.items() if alias != protein.lower()
    )
    columns = "; ".join(" or ".join(words) for words in panel.Panel.COLUMNS)
    classes = ", ".join(declared.CLASSES)
    rows = {
        "kind of file": (
            ", ".join(formats.READERS),
            "any other file that does not usually lie beside pictures, by its name",
        ),
        "what may lie beside pictures": (
            f"files {', '.join(sorted(formats.BESIDE_SUFFIXES))}; folders {', '.join(sorted(formats.BESIDE_FOLDERS))}",
            "",
        ),
        "compression of a TIFF": (compressions, "what loses counts, as JPEG does"),
        "numbers in a picture": (
            "bytes, counts as integers or floating-point numbers, ImageJ's straight-line calibration",
            f"negative or not finite numbers, black and white, {channel.OFFSET} added without a word, ImageJ's curves",
        ),
        "colours of a picture": (
            "grey, black being 0; a grey palette; three equal channels",
            "colour, other palettes, transparency, inverted greys, pictures marked as turned",
        ),
        "names of channels in a stack": (
            "page names, OME-XML with its order of planes, ImageJ labels, the rows of panel.csv",
            "descriptions that contradict the file or one another, planes in Z or time, sets of files",
        ),
        "size of a picture": (
            f"up to {channel.MAX_PX:,d} px and {channel.MAX_CHANNELS} channels",
            "larger ones; sections smaller than a patch",
        ),
        "acquisitions of an .mcd": (
            "each is a section; those of one file are one person",
            "one never acquired, broken off, small or without a protein that is read is named and left out",
        ),
        "spellings of proteins": (f"case, isotopes and punctuation do not count; {spellings}", ""),
        "names of sections and people": (
            "case, Unicode form, spaces, hyphens and leading zeros do not count",
            "two spellings of one person; P01_1 and P01_2 without cohort.csv; equal pixels under two names",
        ),
        "classes": (f"{classes}; others by classes.csv (class, label)", "folders that nobody declares"),
        "columns of cohort.csv": (
            f"{', '.join(declared.COLUMNS)}; use (0 leaves a section out), class, and any others",
            "a section without a row",
        ),
        "columns of panel.csv": (columns, "two rows for one channel"),
        "cells of a table": (
            f"between {', '.join('tabs' if c == chr(9) else c for c in tables.SEPARATORS)}; a line sep=; before them; "
            "UTF-8, Latin-1, a byte-order mark",
            "UTF-16; a table under a name that only looks like it",
        ),
        "counts as 8 bits": (
            ", ".join(intensity.INTENSITIES),
            "what would show one or two greys alone; counts of one class and bytes of the other",
        ),
        "layout": (f"class folders; cohort.csv alone; a folder {layout.STEINBOCK_IMAGES}, as steinbock has it", ""),
    }
    return pd.DataFrame(rows, index=["understood", "refused, or named as left out"]).T
