"""The paper's layout of a data folder: 8-bit TIFFs without any metadata of the files that they were made from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import tifffile

from mitolib import files, own_data
from mitolib.cohort import Section, read_cohort, table
from mitolib.images import CohortError, quality, to_8_bit, without_hot_pixels
from mitolib.progress import track


def convert(
    root: Path,
    new: Path,
    *,
    proteins: Sequence[str] | None = None,
    intensity: str | None = None,
    hot_pixels: float | None = None,
    key: Path | None = None,
) -> None:
    """Write the cohort to the folder `new` in the paper's layout, 8-bit TIFFs and cohort.csv, whole or not at all.

    proteins: None takes those that there are. intensity: see `mitolib.images.intensity.to_8_bit`. hot_pixels: counts by
    which a pixel may exceed its neighbours, None for any. key: a file outside `new` for the names that C01, P01, ...
    replace; None keeps the names.
    Raises CohortError for what cannot be read, and, with all of them, for pictures that would show nothing;
    FileExistsError if `new` or `key` is there, ValueError for a key inside `new`, or `new` inside `root`.
    """
    for path in filter(None, (new, key)):
        if path.exists():
            raise FileExistsError(f"{path}: is there already. Give another name, or move it away.")
    if key and key.resolve().is_relative_to(new.resolve()):
        raise ValueError(f"{key}: lies in the folder that is to name nobody. Keep the key elsewhere.")
    if new.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{new}: lies in {root}, which would then hold every section twice. Give a folder beside it.")
    if hot_pixels is not None and not 0 < hot_pixels < math.inf:
        raise ValueError(f"--hot-pixels {hot_pixels:g}: wanted counts above 0. Write 50, or leave it out.")
    sections = read_cohort(root, own_data.experiments(proteins=proteins)[2] or None)
    names = pseudonyms(sections) if key else {s.section: (s.section, s.subject) for s in sections}
    with files.whole(new) as whole:
        worthless: list[str] = []
        before: list[quality.Picture] = []
        after: list[quality.Picture] = []
        for section in track(sections, "sections", len(sections)):
            folder = whole / section.label.capitalize() / names[section.section][0]
            folder.mkdir(parents=True)
            for protein in section.channels:
                raw_yx = section.raw_yx(protein)
                raw_yx = raw_yx if hot_pixels is None else without_hot_pixels(raw_yx, hot_pixels)
                picture_yx = to_8_bit(raw_yx, intensity)
                cause = quality.unfit_for(intensity, raw_yx) or quality.shows_nothing(picture_yx, raw_yx, intensity)
                if cause:
                    worthless.append(f"{section.channels[protein].path}: {protein}, as it would be written: {cause}")
                before.append(quality.measured(section, protein, raw_yx))
                after.append(quality.measured(section, protein, picture_yx))
                tifffile.imwrite(
                    folder / f"{protein}.tif", picture_yx, compression="zlib", metadata=None, software=False
                )
        # What tells the classes apart in the files, no conversion can mend; what does so in the new ones, another may.
        giveaways = list(quality.told_by_source(before)) or list(quality.told_by_range(after))
        if worthless or giveaways:
            raise CohortError("\n".join([*worthless, *map(str, giveaways), f"{new}: nothing was written."]))
        rows = table(sections).drop(columns=["width_px", "height_px"])
        rows[["section", "subject"]] = [names[name] for name in rows["section"]]
        rows.to_csv(whole / "cohort.csv", index=False)
        if key:
            columns = ["section", "subject", "new section", "new subject"]
            pairs = [(s.section, s.subject, *names[s.section]) for s in sections]
            pd.DataFrame(pairs, columns=columns).to_csv(key, index=False)


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
