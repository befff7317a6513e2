"""Small sections of every kind that a laboratory hands over, written for the tests of the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from mitolib import intake
from mitolib.cohort import survey
from mitolib.settings import PROFILES

SHAPE = (40, 50)  # height and width, px
PATCH_PX = 32
FOUR = ("Control/C01", "Control/C02", "Patient/P01", "Patient/P02")


def counts(seed: int, level: float = 20, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Counts as an imaging mass cytometer has them, float32."""
    return np.random.default_rng(seed).poisson(level, shape).astype(np.float32)


def greys(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Bytes that use their whole range."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, image: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"metadata": None, "photometric": "minisblack"} | options
    tifffile.imwrite(path, image, **options)


def cohort(root: Path, sections: Sequence[str] = FOUR, proteins: Sequence[str] = ("SDHA",)) -> Path:
    """A sound folder: sections as folders with a TIFF of counts for each protein. Returns the root."""
    for i, section in enumerate(sections):
        for j, protein in enumerate(proteins):
            write(root / section / f"{protein}.tif", counts(100 * i + j))
    return root


def declare(root: Path, *rows: str, header: str = "section,subject,label", name: str = "cohort.csv") -> None:
    (root / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Region:
    """One acquisition of an .mcd: what it is, and what its tables say of it where that differs."""

    image_cyx: np.ndarray
    names: tuple[str, ...] = ("SDHA",)
    tables: Mapping[str, object] | None = None  # entries of its Acquisition element, in place of the right ones
    without: tuple[str, ...] = ()  # entries that are not there


def region(seed: int, shape: tuple[int, int] = SHAPE, names: tuple[str, ...] = ("SDHA",), **tables: object) -> Region:
    return Region(np.stack([counts(5000 + seed + 1000 * i, shape=shape) for i in range(len(names))]), names, tables)


def mcd(path: Path, *regions: Region, end: bytes = b"") -> None:
    """An .mcd of these regions, numbered from 1."""

    def element(name: str, entries: Mapping[str, object]) -> str:
        return f"<{name}>" + "".join(f"<{key}>{value}</{key}>" for key, value in entries.items()) + f"</{name}>"

    data, text = bytes(64), ""
    for number, one in enumerate(regions, start=1):
        n, height_px, width_px = one.image_cyx.shape
        y, x = (places.ravel() for places in np.mgrid[:height_px, :width_px])
        values = np.column_stack([x, y, 0 * x, *(image_yx.ravel() for image_yx in one.image_cyx)]).astype("<f4")
        places = {"ID": number, "AcquisitionROIID": number, "MaxX": width_px, "MaxY": height_px, "ValueBytes": 4}
        places |= {"DataStartOffset": len(data), "DataEndOffset": len(data) + values.nbytes} | dict(one.tables or {})
        data += values.tobytes()
        text += element("AcquisitionROI", {"ID": number, "PanoramaID": 1})
        text += element("Acquisition", {key: value for key, value in places.items() if key not in one.without})
        channels = [("X", "X"), ("Y", "Y"), ("Z", "Z"), *((f"Eu({151 + i})", one.names[i]) for i in range(n))]
        for i, (name, label) in enumerate(channels):
            entries = {"AcquisitionID": number, "OrderNumber": i, "ChannelName": name, "ChannelLabel": label}
            text += element("AcquisitionChannel", entries)
    slide = element("Slide", {"ID": 0}) + element("Panorama", {"ID": 1, "SlideID": 0, "Type": "Default"})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data + f"<MCDSchema>{slide}{text}</MCDSchema>".encode("utf-16-le") + end)


def text_export(path: Path, image_cyx: np.ndarray, names: Sequence[str] = ("SDHA",), **options: object) -> None:
    """The instrument's text export. `options` are those of pandas, for what a spreadsheet makes of it."""
    _, height_px, width_px = image_cyx.shape
    y, x = (places.ravel() for places in np.mgrid[:height_px, :width_px])
    table = pd.DataFrame({"Start_push": 0, "End_push": 2, "Pushes_duration": 3, "X": x, "Y": y, "Z": 0})
    for i, (name, image_yx) in enumerate(zip(names, image_cyx, strict=True)):
        table[f"{name}(Eu{151 + i}Di)"] = image_yx.ravel()
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, **({"sep": "\t", "index": False, "float_format": "%.3f"} | options))


def ome_xml(
    names: Sequence[str | None],
    planes: str = "",
    *,
    shape: tuple[int, int] = SHAPE,
    kind: str = "float",
    order: str = "XYCZT",
    sizes: Mapping[str, int] | None = None,
    more: str = "",
) -> str:
    """OME-XML of one picture; `planes` are its TiffData elements, `more` follows the picture."""
    size = {"X": shape[1], "Y": shape[0], "C": len(names), "Z": 1, "T": 1} | dict(sizes or {})
    attributes = "".join(f' Size{axis}="{n}"' for axis, n in size.items())
    channels = "".join(
        f'<Channel ID="Channel:0:{i}"' + (f' Name="{name}"/>' if name else "/>") for i, name in enumerate(names)
    )
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="{order}" Type="{kind}"{attributes}>{channels}{planes}</Pixels></Image>'
        f"{more}</OME>"
    )


def plane(page: int, c: int = 0, z: int = 0, t: int = 0, file_name: str = "") -> str:
    """A TiffData element as Bio-Formats writes it, one for each plane."""
    uuid = f'<UUID FileName="{file_name}">urn:uuid:1</UUID>' if file_name else ""
    return f'<TiffData FirstC="{c}" FirstT="{t}" FirstZ="{z}" IFD="{page}" PlaneCount="1">{uuid}</TiffData>'


def pages(path: Path, images: Sequence[np.ndarray], description: str | None = None, names: Sequence[str] = ()) -> None:
    """A TIFF of one page for each image; `names` become PageName tags, as MCD Viewer writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for i, image_yx in enumerate(images):
            tags = [(285, "s", 0, names[i], True)] if names else []
            text = description if i == 0 else None
            tiff.write(image_yx, description=text, metadata=None, extratags=tags, photometric="minisblack")


@dataclass(frozen=True)
class Answer:
    """What `check` says of a folder."""

    text: str
    problems: list[str]
    notes: list[str]

    @property
    def is_clean(self) -> bool:
        return not self.problems

    def has(self, *words: str) -> bool:
        """Whether one problem holds all these words."""
        return any(all(word in problem for word in words) for problem in self.problems)


def look(root: Path, proteins: Sequence[str] | None = None, patch_px: int = PATCH_PX) -> Answer:
    """What `check` knows before it reads a pixel; in a tenth of the time."""
    found = survey(root, proteins, patch_px=patch_px)
    people = {section.section: section.subject for section in found.sections}
    text = f"sections {len(people)}, people {len(set(people.values()))}: {', '.join(f'{name} ' for name in people)}"
    return Answer(text, [str(problem) for problem in found.problems], [f"Note: {note}." for note in found.notes])


def check(root: Path, proteins: Sequence[str] | None = None, **options: object) -> Answer:
    """`python -m mitolib check`, with patches that fit the sections here."""
    problems: list[Exception] = []
    options = {"patch_px": PATCH_PX} | options
    parts = list(intake.report(root, PROFILES["paper"], problems, proteins, **options))
    notes = [part for part in parts if part.startswith("Note: ")]
    return Answer("\n\n".join(parts), [str(problem) for problem in problems], notes)
