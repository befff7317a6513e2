"""Is a data folder whole, which chapters can run on it, and what will they cost? Nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from mitolib import own_data, patches
from mitolib.cohort import Section, Survey, table
from mitolib.images import CohortError, quality
from mitolib.settings import LABELS, Profile
from mitolib.splits import counted, plural
from mitolib.study import EXP1, EXP2, Experiment

SECONDS_PER_PATCH = {"exp1": 15377.1 / 1214, "exp2": 5498.6 / 949}  # of the published pages and their units, two cores
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
        n_patches = len(patches.grid(sections, size_px=experiment.patch_px, stride_px=experiment.stride_px))
        n_features = n_patches * (1 + TRAINED_SHARE * profile.views)
        rows[experiment.name] = {
            "patches": n_patches,
            "disk, GB": n_features * FEATURES[experiment.name] * FEATURE_BYTES / 1e9,
            "minutes, profile paper": SECONDS_PER_PATCH[experiment.name] / 60 * n_patches,
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
    survey = own_data.surveyed(root, asked, patch_px=one.patch_px)
    problems += survey.problems
    sections = survey.sections if proteins is None else _with_these(survey.sections, asked)
    read: list[quality.Picture] = []
    notes = list(survey.notes)
    if sections:
        yield f"{root}: sections {len(sections)}, people {len({s.subject for s in sections})}"
        yield table(sections).to_string(index=False)
        read = quality.read(sections, problems, notes)
        problems += quality.same_twice(read)
        if read:
            yield quality.as_table(read).to_string(index=False, formatters={"saturated": "{:.2%}".format})
        if any(not picture.kind.startswith("8 bit") for picture in read):
            yield COUNTS_NOTE
        costs = cost(sections, profile, (one, several)).to_string(float_format="{:.2g}".format)
        yield f"A run in profile {profile.name}:\n{costs}"
    known: dict[str, tuple[str, int]] = {}
    verdicts = [own_data.judge(name, survey, one, several, splits_known=known) for name in own_data.CHAPTERS]
    # By these; what tells the classes apart, a chapter runs with and warns of.
    stopped = bool(survey.problems or _stops(survey, one, several, read))
    now = " (now: until the problems below are mended)" if stopped else ""
    yield "\n".join([f"Chapters on this folder{now}:", *_lines(verdicts, may_start=not stopped)])
    problems += quality.told_by_kind(read)
    for label in (label for label in LABELS if sections and not any(s.label == label for s in sections)):
        problems.append(CohortError(f"{root}: no {label} that can be read. Add one: two classes are to be told apart."))
    yield from (f"Note: {note}." for note in (*notes, *quality.partly_told(read)))
    yield from (f"Problem {number}: {problem}" for number, problem in enumerate(problems, start=1))
    if sections:
        yield _understood(read, sections, survey.classes)
    if problems:
        yield f"{len(problems)} to mend; then check again."
        return
    refused = [verdict.chapter for verdict in verdicts if verdict.refusal]
    last = f" {', '.join(refused)} cannot run on them, for the reasons above." if refused else ""
    yield f"Nothing to mend: {_people(sections)} can be read.{last}"


def _stops(survey: Survey, one: Experiment, several: Experiment, read: Sequence[quality.Picture]) -> list[CohortError]:
    """What keeps every chapter from starting and only pixels show, in the pictures that chapters read.

    read: pictures that are known already; the others are read.
    """
    known = {(picture.section.section, picture.protein): picture for picture in read}
    problems: list[CohortError] = []
    pictures: list[quality.Picture] = []
    proteins = own_data.shown(*own_data.fitted(survey, one, several))
    for section in survey.sections:
        for protein in (name for name in proteins if name in section.channels):
            picture = known.get((section.section, protein))
            if picture is None or picture.lowest == picture.highest:
                alone = replace(section, channels={protein: section.channels[protein]})
                pictures += quality.read([alone], problems, [])
            else:
                pictures.append(picture)
    return [*problems, *quality.same_twice(pictures)]


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


def _understood(read: Sequence[quality.Picture], sections: Sequence[Section], classes: dict[str, str]) -> str:
    """What the check took the folder for, in words: people, classes, kinds of file and of values."""
    lines = [f"Understood: {len(sections)} section{plural(len(sections))} of {_people(sections)}."]
    lines += [f"  {folder_name} is taken for {label}." for folder_name, label in classes.items()]
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
