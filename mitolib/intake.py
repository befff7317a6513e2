"""A folder of your own: is it whole, what will a run cost, and the paper's 8-bit layout of it.

    python -m mitolib check FOLDER                 reads all that a run would read and lists every problem
    python -m mitolib convert FOLDER NEW_FOLDER    writes 8-bit TIFFs in the paper's layout

What `convert` writes carries no metadata of the files it was made from.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from mitolib import patches, results
from mitolib.cohort import CohortError, Section, read_cohort, survey, table
from mitolib.intensity import to_8_bit, without_hot_pixels
from mitolib.progress import track
from mitolib.settings import LABELS, PROTEINS, ROOT, Profile

PUBLISHED = ROOT / "book" / "results"
STRIDES = {"exp1": 224, "exp2": 256}  # px, as in the notebooks
FEATURES = {"exp1": 7 * 7 * (512 + 2048), "exp2": 7 * 7 * 512}  # of a patch: VGG16 and ResNet-50, VGG16 alone
FEATURE_BYTES = 2  # a bank keeps float16
TRAINED_SHARE = 0.8  # of all patches, about
COUNTS_NOTE = """Counts are shown to the networks as 8 bits, each picture stretched from its 5th to its 95th percentile,
as in the paper. That removes the level between subjects. `python -m mitolib convert` offers other ways."""


def panel(sections: Sequence[Section], problems: list[CohortError]) -> pd.DataFrame:
    """One row per picture, read whole: section, file, channel, isotope, protein, kind, range, share saturated.

    A picture that cannot be decoded, or shows one value only, goes to `problems`. A pixel is saturated at the greatest
    value of 8 or 16 bits, where the picture reaches it.
    """
    rows = []
    for section in track(sections, "pictures", len(sections)):
        for protein, channel in section.channels.items():
            try:
                raw_yx = channel.raw_yx()
            except CohortError as problem:
                problems.append(problem)
                continue
            low, high = float(raw_yx.min()), float(raw_yx.max())
            if low == high:
                remedy = "Export it again, or leave the section out."
                problems.append(CohortError(f"{channel.path}: {protein} is {high:g} at every pixel. {remedy}"))
            is_8_bit = raw_yx.dtype == np.uint8
            rows.append(
                {
                    "section": section.section,
                    "file": channel.path.name,
                    "channel": channel.label or f"number {channel.index + 1}",
                    "isotope": channel.metal or "",
                    "taken for": protein,
                    "kind": "8 bit" if is_8_bit else "counts",
                    "lowest": low,
                    "highest": high,
                    "saturated": float((raw_yx == high).mean()) if high == (255 if is_8_bit else 65535) else 0.0,
                }
            )
    return pd.DataFrame(rows)


def cost(sections: Sequence[Section], profile: Profile) -> pd.DataFrame:
    """Per experiment: patches, GB that the features of the frozen backbones take on disk, minutes of a run.

    Minutes are those of the published run, patch by patch, on the machine that its page names; a profile with fewer
    epochs or augmented copies takes less. CohortError for a section smaller than a patch.
    """
    rows = {}
    for chapter, stride_px in STRIDES.items():
        record = results.read(PUBLISHED, chapter)
        n_published = sum(sum(counts.values()) for counts in record["split"].values())
        n_patches = len(patches.grid(sections, stride_px=stride_px))
        n_features = n_patches * (1 + TRAINED_SHARE * profile.views)
        rows[chapter] = {
            "patches": n_patches,
            "disk, GB": n_features * FEATURES[chapter] * FEATURE_BYTES / 1e9,
            f"minutes, profile {record['profile']}": record["provenance"]["seconds"] / 60 * n_patches / n_published,
        }
    return pd.DataFrame(rows).T


def check(root: Path, profile: Profile, proteins: Sequence[str] = PROTEINS) -> tuple[str, bool]:
    """A report on a data folder, every problem in it, and whether a run can start."""
    sections, problems = survey(root, proteins)
    parts = []
    if sections:
        found = panel(sections, problems)
        parts += [f"{root}: sections {len(sections)}, subjects {len({s.subject for s in sections})}"]
        parts += [table(sections).to_string(index=False)]
        parts += [found.to_string(index=False, formatters={"saturated": "{:.2%}".format})] if len(found) else []
        if "counts" in set(found.get("kind", ())):
            parts += [COUNTS_NOTE]
        try:
            parts += [
                f"A run in profile {profile.name}:\n{cost(sections, profile).to_string(float_format='{:.2g}'.format)}"
            ]
        except CohortError as problem:
            problems.append(problem)
    people = Counter({s.subject: s.label for s in sections}.values())
    for label in (label for label in LABELS if sections and not people[label]):
        problems.append(CohortError(f"{root}: no {label} that can be read. Add one: two classes are to be told apart."))
    parts += [f"Problem {number}: {problem}" for number, problem in enumerate(problems, start=1)]
    who = " and ".join(f"{people[label]} {label}{'s' if people[label] != 1 else ''}" for label in LABELS)
    parts += [f"{len(problems)} to mend; then check again." if problems else f"Nothing to mend: {who} can be read."]
    return "\n\n".join(parts), not problems


def convert(
    root: Path,
    new: Path,
    *,
    proteins: Sequence[str] = PROTEINS,
    intensity: str | None = None,
    hot_pixels: float | None = None,
    key: Path | None = None,
) -> None:
    """Write the cohort to the folder `new` in the paper's layout, 8-bit TIFFs and cohort.csv, whole or not at all.

    intensity: see `mitolib.intensity.to_8_bit`. hot_pixels: counts by which a pixel may exceed its neighbours, None for
    any. key: a file outside `new` for the names that C01, P01, ... replace; None keeps the names.
    Raises CohortError for what cannot be read, FileExistsError if `new` or `key` is there, ValueError for a key inside.
    """
    for path in filter(None, (new, key)):
        if path.exists():
            raise FileExistsError(f"{path}: is there already. Give another name, or move it away.")
    if key and key.resolve().is_relative_to(new.resolve()):
        raise ValueError(f"{key}: lies in the folder that is to name nobody. Keep the key elsewhere.")
    sections = read_cohort(root, proteins)
    names = pseudonyms(sections) if key else {s.section: (s.section, s.subject) for s in sections}
    new.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=new.parent, prefix=f".{new.name}-") as aside:
        whole = Path(aside) / new.name
        for section in track(sections, "sections", len(sections)):
            folder = whole / section.label.capitalize() / names[section.section][0]
            folder.mkdir(parents=True)
            for protein in proteins:
                raw_yx = section.raw_yx(protein)
                raw_yx = raw_yx if hot_pixels is None else without_hot_pixels(raw_yx, hot_pixels)
                picture_yx = to_8_bit(raw_yx, intensity)
                tifffile.imwrite(
                    folder / f"{protein}.tif", picture_yx, compression="zlib", metadata=None, software=False
                )
        rows = table(sections).drop(columns=["width_px", "height_px"])
        rows[["section", "subject"]] = [names[name] for name in rows["section"]]
        rows.to_csv(whole / "cohort.csv", index=False)
        if key:
            columns = ["section", "subject", "new section", "new subject"]
            pairs = [(s.section, s.subject, *names[s.section]) for s in sections]
            pd.DataFrame(pairs, columns=columns).to_csv(key, index=False)
        whole.replace(new)


def pseudonyms(sections: Sequence[Section]) -> dict[str, tuple[str, str]]:
    """Section -> a new name of section and subject: C01, P01, ...; the second section of C01 is C01-2."""
    subjects: dict[str, str] = {}
    counts: Counter[str] = Counter()
    names = {}
    for section in sections:
        if section.subject not in subjects:
            counts[section.label] += 1
            subjects[section.subject] = f"{section.label[0].upper()}{counts[section.label]:02d}"
        subject = subjects[section.subject]
        counts[subject] += 1
        names[section.section] = (subject if counts[subject] == 1 else f"{subject}-{counts[subject]}", subject)
    return names
