"""Which file is a picture, which may lie about, and the one reader of what a file holds.

- TIFF of one page, PNG, JPEG: the channel is named by the file, as MCD Viewer, mitocyto and this package write them
  (`160Gd_NDUFB8.ome.tiff`).
- TIFF of several pages or a CYX stack: named by PageName tags (MCD Viewer), OME-XML or ImageJ labels, else by the
  order of `panel.csv` (steinbock).
- .mcd and .txt of the instrument: by their own tables, through readimc; each acquisition of an .mcd is a section.

`contents` reads headers (of a .txt all of it, since its size stands nowhere); pixels are read channel by channel, by
`Channel.raw_yx`. Whatever is wrong with a file ends in a CohortError. Nothing in a file is executed, no file is opened
because another names it, and none takes more memory than a picture of MAX_PX: what a header claims is checked first.

What no check can see: a .txt cut off behind a whole row of pixels, and a .jpg that ends early in good form.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from mitolib.images.channel import Channel, CohortError, Contents, named
from mitolib.images.text import begins_as_export, first_lines, was_export

READERS = {  # suffix -> module and function; imported when met, so that a folder of TIFFs waits for none of the others
    **dict.fromkeys((".tif", ".tiff"), ("tiff", "contents")),
    ".mcd": ("hyperion", "mcd_contents"),
    ".txt": ("hyperion", "text_contents"),
    **dict.fromkeys((".png", ".jpg", ".jpeg"), ("pictures", "contents")),
}
SUFFIXES = tuple(READERS)  # in order of preference
PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")  # of these, what any viewer opens

# What may lie beside pictures without being a section. Anything else that is no picture is named: a list of what is
# refused could never be complete, and the cohort would become smaller without a word.
BESIDE_NAMES = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "license", "licence", "readme", "notes", "changelog"),
    *("version", "authors", "copying", "makefile", "dockerfile", "checksums", "md5sums", "sha256sums", "manifest"),
}
BESIDE_SUFFIXES = {
    *(".md", ".rst", ".log", ".out", ".err", ".csv", ".tsv", ".xls", ".xlsx", ".xlsm", ".xlsb", ".ods", ".xml"),
    *(".json", ".geojson", ".yml", ".yaml", ".toml", ".ini", ".cfg", ".conf", ".html", ".htm", ".css", ".js", ".pdf"),
    *(".doc", ".docx", ".docm", ".odt", ".rtf", ".ppt", ".pptx", ".odp", ".svg", ".ps", ".eps", ".bib", ".tex"),
    *(".py", ".r", ".rmd", ".qmd", ".ijm", ".groovy", ".m", ".ipynb", ".sh", ".bat", ".ps1", ".lnk", ".url", ".webloc"),
    *(".bak", ".old", ".tmp", ".md5", ".sha1", ".sha256", ".sha512", ".roi", ".qpproj", ".qpdata", ".db", ".lut"),
    *(".cppipe", ".cpproj", ".pzf", ".pzfx", ".prism", ".sav", ".dta", ".eml", ".msg"),
}
COPIES = (".bak", ".old", ".tmp")  # behind a picture's own suffix, of a picture that should lie beside them
OF_A_SYSTEM = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
BESIDE_FOLDERS = OF_A_SYSTEM | {
    *("__pycache__", "truth", "masks", "mask", "overviews", "overview", "logs", "tables", "results"),
}
PACKED = (".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar", ".tgz")
FOLDERS_OF_A_FORMAT = (".zarr", ".n5")  # a folder that is one picture


def may_lie_about(path: Path) -> bool:
    """Whether a file or folder is one of those that lie beside pictures and are none."""
    if path.name.startswith((".", "~$")):
        return True
    suffix = path.suffix.casefold()
    if path.is_dir():
        return path.name.casefold() in BESIDE_FOLDERS
    if suffix in COPIES and Path(path.stem).suffix.casefold() in SUFFIXES:
        return path.with_suffix("").exists()
    if suffix in (".csv", ".tsv"):  # as which a spreadsheet saves an export
        return not _was_export(path)
    return (
        path.name.casefold() in BESIDE_NAMES or suffix in BESIDE_SUFFIXES or (suffix == ".txt" and not is_picture(path))
    )


def is_picture(path: Path) -> bool:
    """Whether a file is a picture, good or bad: `contents` says what is wrong with it.

    A .txt is one where it begins as the instrument's does, or has lost its header; a note or a table of measurements
    is none. What is empty, broken off in the first word, or no text at all, is no note: it may have been a section.
    """
    if path.suffix.lower() != ".txt":
        return path.suffix.lower() in SUFFIXES
    if not path.is_file():  # a pipe would be waited for
        return True
    try:
        lines = first_lines(path)
    except OSError:
        return True
    first = lines[0] if lines else b""
    return begins_as_export(first) or b"\0" in first or was_export(lines)


def _was_export(path: Path) -> bool:
    try:
        lines = first_lines(path) if path.is_file() else []
    except OSError:  # said where it is a table that is read
        return False
    return bool(lines) and (was_export(lines) or (begins_as_export(lines[0]) and len(lines[0]) > 5))


def not_read(path: Path) -> CohortError:
    """Why a file or folder that is no picture is none, and what helps."""
    suffix = path.suffix.casefold()
    if suffix in (".csv", ".tsv"):
        finding = f"seems to be the instrument's text export, saved as {suffix}"
        remedy = "Export it again from the instrument's software, as .txt, or move it away."
    elif suffix in PACKED:
        finding, remedy = f"{path.suffix} files are not read", "Unpack it, or move it away."
    elif suffix in COPIES:
        finding = f"is a copy of {path.stem}, which is not there"
        remedy = f"Rename it to {path.stem}, or move it away."
    elif not suffix:
        finding = "a file without a suffix is not read"
        remedy = "Rename it with the suffix of its format, as .tif, or move it away."
    else:
        kind = "folders" if path.is_dir() else "files"
        finding, remedy = f"{path.suffix} {kind} are not read", "Export it as TIFF, or move it away."
    return CohortError(f"{path}: {finding}. {remedy}")


def stem(path: Path) -> str:
    """A file's name without `.tif`, and without the `.ome` before it."""
    return re.sub(r"\.ome$", "", path.stem, flags=re.IGNORECASE)


def contents(path: Path) -> Contents:
    """What a file holds: its channels in its own order, those of an .mcd with the number of their acquisition.

    Raises CohortError for a file that is empty, truncated, of another kind than its name says, or too large.
    """
    with named(path, "cannot be read", "Copy the file again from its source."):
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        module, function = READERS[path.suffix.lower()]
        read = getattr(import_module(f"mitolib.images.{module}"), function)(path)
        if not read.channels:
            raise ValueError("it holds no picture")
        return read


def channels(path: Path) -> tuple[Channel, ...]:
    """The channels alone, see `contents`."""
    return contents(path).channels
