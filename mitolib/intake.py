"""A folder of your own: is it whole, what will a run cost, and the paper's 8-bit layout of it.

    python -m mitolib check FOLDER                 reads all that a run would read and lists every problem
    python -m mitolib convert FOLDER NEW_FOLDER    writes 8-bit TIFFs in the paper's layout

`check` never writes. What `convert` writes carries no metadata of the files it was made from.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import tifffile

from mitolib import own_data, patches, pictures, results
from mitolib.cohort import Section, read_cohort, table
from mitolib.images import CohortError, to_8_bit, without_hot_pixels
from mitolib.progress import track
from mitolib.settings import LABELS, ROOT, Profile
from mitolib.splits import counted, plural
from mitolib.study import EXP1, EXP2, Experiment

PUBLISHED = ROOT / "book" / "results"
FEATURES = {"exp1": 7 * 7 * (512 + 2048), "exp2": 7 * 7 * 512}  # of a patch: VGG16 and ResNet-50, VGG16 alone
FEATURE_BYTES = 2  # a bank keeps float16
TRAINED_SHARE = 0.8  # of all patches, about
COUNTS_NOTE = """Counts are shown to the networks as 8 bits, each picture stretched from its 5th to its 95th percentile,
as in the paper. That removes the level between subjects. `python -m mitolib convert` offers other ways."""


def cost(
    sections: Sequence[Section], profile: Profile, experiments: Sequence[Experiment] = (EXP1, EXP2)
) -> pd.DataFrame:
    """Per experiment: patches, GB that the features of the frozen backbones take on disk, minutes of a run.

    Minutes are those of the published run, patch by patch, on the machine that its page names; a profile with fewer
    epochs or augmented copies takes less. CohortError for a section smaller than a patch.
    """
    rows = {}
    for experiment in experiments:
        record = results.read(PUBLISHED, experiment.name)
        n_published = sum(sum(counts.values()) for counts in record["split"].values())
        n_patches = len(patches.grid(sections, size_px=experiment.patch_px, stride_px=experiment.stride_px))
        n_features = n_patches * (1 + TRAINED_SHARE * profile.views)
        rows[experiment.name] = {
            "patches": n_patches,
            "disk, GB": n_features * FEATURES[experiment.name] * FEATURE_BYTES / 1e9,
            f"minutes, profile {record['profile']}": record["provenance"]["seconds"] / 60 * n_patches / n_published,
        }
    return pd.DataFrame(rows).T


def check(
    root: Path,
    profile: Profile,
    proteins: Sequence[str] | None = None,
    *,
    protein: str | None = None,
    patch_px: int | None = None,
    stride_px: int | None = None,
) -> tuple[str, bool]:
    """A report on a data folder, every problem in it, and whether a run can start: see `report`."""
    problems: list[CohortError] = []
    parts = report(root, profile, problems, proteins, protein=protein, patch_px=patch_px, stride_px=stride_px)
    return "\n\n".join(parts), not problems


def report(
    root: Path,
    profile: Profile,
    problems: list[CohortError],
    proteins: Sequence[str] | None = None,
    *,
    protein: str | None = None,
    patch_px: int | None = None,
    stride_px: int | None = None,
) -> Iterator[str]:
    """The parts of a report, as they are known; all that is to mend is in `problems` when the last is given.

    proteins: all of these have to be there, and chapters of several proteins take them; None takes what there is.
    protein: the one of experiment 1; None takes the paper's where it is there.
    """
    grid = {"patch_px": patch_px, "stride_px": stride_px}
    one, several, asked = own_data.experiments(protein=protein, proteins=proteins, **grid)
    found = own_data.surveyed(root, asked, patch_px=one.patch_px)
    problems += found.problems
    sections = found.sections if proteins is None else _with_these(found.sections, asked)
    read: list[pictures.Picture] = []
    notes = list(found.notes)
    if sections:
        yield f"{root}: sections {len(sections)}, people {len({s.subject for s in sections})}"
        yield table(sections).to_string(index=False)
        read = pictures.read(sections, problems, notes)
        problems += pictures.same_twice(read)
        if read:
            yield pictures.as_table(read).to_string(index=False, formatters={"saturated": "{:.2%}".format})
        if any(not picture.kind.startswith("8 bit") for picture in read):
            yield COUNTS_NOTE
        costs = cost(sections, profile, (one, several)).to_string(float_format="{:.2g}".format)
        yield f"A run in profile {profile.name}:\n{costs}"
    known: dict[str, tuple[str, int]] = {}
    verdicts = [own_data.judge(name, found, one, several, splits_known=known) for name in own_data.CHAPTERS]
    # By these; what tells the classes apart, a chapter runs with and warns of.
    stopped = bool(found.problems or own_data.stops(found, one, several, read))
    now = " (now: until the problems below are mended)" if stopped else ""
    yield "\n".join([f"Chapters on this folder{now}:", *_lines(verdicts, may_start=not stopped)])
    problems += pictures.told_by_kind(read)
    for label in (label for label in LABELS if sections and not any(s.label == label for s in sections)):
        problems.append(CohortError(f"{root}: no {label} that can be read. Add one: two classes are to be told apart."))
    yield from (f"Note: {note}." for note in (*notes, *pictures.partly_told(read)))
    yield from (f"Problem {number}: {problem}" for number, problem in enumerate(problems, start=1))
    if sections:
        yield _understood(read, sections, found.classes)
    if problems:
        yield f"{len(problems)} to mend; then check again."
        return
    refused = [verdict.chapter for verdict in verdicts if verdict.refusal]
    last = f" {', '.join(refused)} cannot run on them, for the reasons above." if refused else ""
    yield f"Nothing to mend: {_people(sections)} can be read.{last}"


def _with_these(sections: Sequence[Section], proteins: Sequence[str]) -> list[Section]:
    return [replace(s, channels={name: s.channels[name] for name in proteins if name in s.channels}) for s in sections]


def _lines(verdicts: Sequence[own_data.Verdict], *, may_start: bool) -> Iterator[str]:
    """One line for each chapter; a reason is told once. With problems of the folder no chapter may start."""
    first: dict[str, str] = {}
    for verdict in verdicts:
        same = first.setdefault(verdict.refusal, verdict.chapter)
        known = verdict.refusal and same != verdict.chapter
        outcome = f"refuses, for the reason of {same}" if known else verdict.outcome
        yield f"  {verdict.chapter}: {outcome}" if may_start else f"  {verdict.chapter}: refuses now; then {outcome}"


def _people(sections: Sequence[Section]) -> str:
    return counted({s.subject: s.label for s in sections}.values())


def _understood(read: Sequence[pictures.Picture], sections: Sequence[Section], classes: dict[str, str]) -> str:
    """What the check took the folder for, in words: people, classes, kinds of file and of values."""
    lines = [f"Understood: {len(sections)} section{plural(len(sections))} of {_people(sections)}."]
    lines += [f"  {own} is taken for {label}." for own, label in classes.items()]
    for label in LABELS:
        of_class = [picture for picture in read if picture.section.label == label]
        kinds = Counter(picture.kind for picture in of_class)
        endings = Counter(Path(picture.path).suffix.lower() for picture in of_class)
        if of_class:
            lines.append(
                f"  {label}s: {', '.join(f'{n} pictures {kind}' for kind, n in kinds.items())}, from "
                f"{', '.join(endings)} files."
            )
    return "\n".join(lines)


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
    new.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=new.parent, prefix=f".{new.name}-") as aside:
        whole = Path(aside) / new.name
        worthless: list[str] = []
        before: list[pictures.Picture] = []
        after: list[pictures.Picture] = []
        for section in track(sections, "sections", len(sections)):
            folder = whole / section.label.capitalize() / names[section.section][0]
            folder.mkdir(parents=True)
            for protein in section.channels:
                raw_yx = section.raw_yx(protein)
                raw_yx = raw_yx if hot_pixels is None else without_hot_pixels(raw_yx, hot_pixels)
                picture_yx = to_8_bit(raw_yx, intensity)
                cause = pictures.unfit_for(intensity, raw_yx) or pictures.shows_nothing(picture_yx, raw_yx, intensity)
                if cause:
                    worthless.append(f"{section.channels[protein].path}: {protein}, as it would be written: {cause}")
                before.append(pictures.measured(section, protein, raw_yx))
                after.append(pictures.measured(section, protein, picture_yx))
                tifffile.imwrite(
                    folder / f"{protein}.tif", picture_yx, compression="zlib", metadata=None, software=False
                )
        # What tells the classes apart in the files, no conversion can mend; what does so in the new ones, another may.
        told = list(pictures.told_by_source(before)) or list(pictures.told_by_range(after))
        if worthless or told:
            raise CohortError("\n".join([*worthless, *map(str, told), f"{new}: nothing was written."]))
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
