"""A chapter's data: the phantom or a folder of one's own, what the chapter needs of it, and what it leaves out.

`CHAPTERS` says it once, for the chapters themselves and for `python -m mitolib check`, so that the check refuses what a
chapter would refuse later. On data of one's own the split is by person: the published split belongs to the paper's
cohort, and says nothing of other people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mitolib import cohort, images, patches, splits
from mitolib.cohort import Section, Survey
from mitolib.images import CohortError, quality
from mitolib.settings import LABELS, PROTEINS, check_parameter, folder_parameter
from mitolib.study import EXP1, EXP2, LEAST_CHANNELS, Experiment

SEVERAL = "the network of several proteins"
PUBLISHED = "the published split and the published scores, which belong to the paper's cohort"


@dataclass(frozen=True)
class Needs:
    """What a chapter asks of a data folder; a part whose proteins are not all there is left out."""

    one: bool = True  # a network of one protein, the paper's unless another is chosen
    several: str = ""  # what the chapter shows of several proteins; "" for nothing
    needs_several: bool = False  # it has nothing else to show
    people: int = 2  # of each class
    own: tuple[str, ...] = ()  # left out on all data of one's own
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # part -> the proteins it needs
    parts_by_people: Mapping[str, int] = field(default_factory=dict)  # part -> people of each class that it needs
    patches: int = 2  # to train on


FIBRES = "the fibre baseline (mass marker VDAC1; NDUFB8, MTCO1; Dystrophin for the outlines)"
OUTLINES = ("VDAC1", "NDUFB8", "MTCO1", "Dystrophin")
NEW_PEOPLE = "people who are drawn, and all that is learnt from them or asked of them"
LEARNT = "the model that learns from people, tested on pairs that are left out"
MARKER = "the marker map (NDUFB8 against the mass marker VDAC1)"
FIBRE_CONCEPTS = "concepts of fibres"
COMPOSITE = "the composite picture (NDUFB8, MTCO1, VDAC1)"
BY_PEOPLE = "people whom the network has not seen"
CONCEPTS_BY_PEOPLE = "concepts tested on people whom the network has not seen"
N_FOLDS = 4  # of people, in both chapters on concept whitening, unless another number is chosen
WHITENED = 512 // (7 * 7) + 1  # patches: a covariance of 512 channels takes more positions, 7 x 7 of a patch, than that
RESTORED = "scores against the deficient fibres, and what restoring them does"
FINE = "the published split, and fine annotation without a folder of masks"
MAPS = Needs(several=SEVERAL, own=(RESTORED,), parts={MARKER: ("NDUFB8", "VDAC1")})
CHAPTERS = {
    "data_engineering": Needs(one=False, people=1, own=("the comparison with real muscle and the deficient fibres",)),
    "exp1": Needs(own=(PUBLISHED,)),
    "exp2": Needs(one=False, several="its network", needs_several=True, own=(PUBLISHED,)),
    "freezing": Needs(),
    "gradcam": MAPS,
    "explanations": MAPS,
    "concept_whitening": Needs(own=(PUBLISHED, FIBRE_CONCEPTS), parts_by_people={BY_PEOPLE: 3}, patches=WHITENED),
    "real_concepts": Needs(
        own=(FIBRE_CONCEPTS,),
        parts={COMPOSITE: ("NDUFB8", "MTCO1", "VDAC1")},
        parts_by_people={CONCEPTS_BY_PEOPLE: 3},
        patches=WHITENED,
    ),
    "prototypes": Needs(several="the tree of genotypes", own=(FINE,), parts={MARKER: ("NDUFB8", "VDAC1")}),
    "patient_level": Needs(several=SEVERAL, own=("twins, and fibres from the truth",), parts={FIBRES: OUTLINES}),
    "people": Needs(one=False, own=(NEW_PEOPLE,), parts={FIBRES: OUTLINES}, parts_by_people={LEARNT: 3}),
    "look": Needs(several="the colour picture of three proteins", own=("the layer of deficient fibres",)),
}


@dataclass(frozen=True)
class LeftOut:
    """What a page shows in the place of something that its data do not allow."""

    reason: str  # a sentence that goes on after "Left out:"

    def __str__(self) -> str:
        return f"Left out: {self.reason}"

    def _repr_markdown_(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Verdict:
    """Whether a chapter runs on a data folder."""

    chapter: str
    refusal: str = ""  # why not, and what helps
    without: tuple[str, ...] = ()  # what it leaves out, each with the reason

    @property
    def outcome(self) -> str:
        if self.refusal:
            return f"refuses, because {self.refusal}"
        left_out = "; ".join(self.without)
        return f"runs without {left_out}" if left_out else "runs"


@dataclass(frozen=True)
class Data:
    """What a chapter works on."""

    root: Path
    is_phantom: bool
    sections: tuple[Section, ...]
    one: Experiment
    several: Experiment | None  # None where the proteins are not there
    verdict: Verdict
    notes: tuple[str, ...] = ()
    classes: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what else than the disease tells the classes apart

    @property
    def people(self) -> int:
        """In the smaller class."""
        return _people(self.sections)

    @property
    def has_truth(self) -> bool:
        """Whether the deficient fibres are known."""
        return cohort.read_truth(self.root, self.sections[0].section) is not None

    def has(self, part: str) -> bool:
        """Whether a part of the chapter (a key of its `Needs.parts` or `Needs.parts_by_people`) can be shown."""
        return not any(left_out.startswith(part) for left_out in self.verdict.without)

    def table(self, experiment: Experiment) -> pd.DataFrame:
        """The patches of an experiment, one row each, with a column `split`: see `deal`."""
        table = patches.grid(self.sections, size_px=experiment.patch_px, stride_px=experiment.stride_px)
        return table.assign(split=self.deal(table, experiment))

    def deal(self, table: pd.DataFrame, experiment: Experiment) -> pd.Series:
        """As published on the phantom; by person on all other data."""
        return splits.published(table, experiment.name) if self.is_phantom else splits.by_person(table)

    def record(self, proteins: Iterable[str]) -> dict[str, str | int]:
        """For the provenance: name, number of sections, digest of the pictures that were read."""
        return {
            "name": "phantom" if self.is_phantom else self.root.name,
            "sections": len(self.sections),
            "sha256": self.digest(proteins),
        }

    def digest(self, proteins: Iterable[str]) -> str:
        """SHA-256 of the pictures of these proteins, see `cohort.digest`."""
        return cohort.digest(self.sections, list(proteins))

    @property
    def note(self) -> str:
        """Markdown for the top of a chapter on data of one's own: what is read and what is left out; "" otherwise."""
        if self.is_phantom:
            return ""
        counted = splits.counted({s.subject: s.label for s in self.sections}.values())
        lines = [f"Your folder {self.root.name}: {len(self.sections)} sections of {counted}."]
        if self.classes:
            lines.append(f"Classes: {', '.join(f'{name} is {label}' for name, label in self.classes.items())}.")
        for heading, items in (
            ("Left out on it:", self.verdict.without),
            ("Not read:", self.notes),
            ("**A network can tell these classes without looking at the tissue:**", self.warnings),
        ):
            if items:
                lines += [heading, *(f"- {item}" for item in items)]
        body = "\n".join(f"\n{line}" if not line.startswith("- ") else line for line in lines)
        return f":::{{admonition}} Data of your own\n:class: important\n{body}\n:::"


def folder(data: object) -> Path | None:
    """The parameter `data` of a chapter: None, the default, is the phantom.

    Raises ValueError that names the parameter for what is given and empty, a number, or no folder.
    """
    path = folder_parameter("data", data)
    if path is not None and not path.is_dir():
        finding = "is a file, not a folder" if path.exists() else "no such folder"
        raise ValueError(
            f"data is {str(data)!r}: {finding}. Give the folder that holds Control/ and Patient/, or leave data out "
            "for the phantom."
        )
    return path


def name(own: Path | None) -> str:
    """What a page calls its data."""
    return "the phantom" if own is None else f"your own, from the folder {own.name}"


def experiments(
    *,
    protein: str | None = None,
    proteins: str | Sequence[str] | None = None,
    patch_px: int | None = None,
    stride_px: int | None = None,
) -> tuple[Experiment, Experiment, tuple[str, ...]]:
    """Both experiments as the parameters of a chapter or of the check have them, and the proteins that these name.

    None is the paper's. Raises ValueError that names the parameter for what is empty or of another kind.
    """
    grid = {"patch_px": patch_px, "stride_px": stride_px}
    for parameter, value in grid.items():
        if value is not None:
            check_parameter(parameter, value, "int")
    one, several = (names(p, value) for p, value in {"protein": protein, "proteins": proteins}.items())
    return (
        EXP1.adapted(proteins=one, **grid),
        EXP2.adapted(proteins=several, **grid),
        tuple(dict.fromkeys([*one, *several])),
    )


def names(parameter: str, value: str | Sequence[str] | None) -> tuple[str, ...]:
    """The proteins that a parameter names, in the paper's spelling; none for None. ValueError for one named twice."""
    if value is None:
        return ()
    words = value.split(",") if isinstance(value, str) else value
    is_text = isinstance(words, Sequence) and all(isinstance(word, str) and word.strip() for word in words)
    asked = [images.protein(word.strip()) for word in words] if is_text else []
    if not asked or len(set(map(str.casefold, asked))) < len(asked) or (parameter == "protein" and len(asked) > 1):
        wanted = "the name of one protein" if parameter == "protein" else "names with a comma between them, each once"
        example = "SDHA" if parameter == "protein" else "NDUFB8,MTCO1,VDAC1"
        raise ValueError(f"{parameter} is {value!r}; wanted {wanted}. Write {example}, or leave it out.")
    return tuple(asked)


def surveyed(root: Path, asked: Sequence[str], *, patch_px: int) -> Survey:
    """What a folder holds. Where that is not whole, and proteins were asked for, those alone: what is wrong with
    others stops nothing."""
    survey = cohort.survey(root, None, patch_px=patch_px)
    if not survey.problems and (more := [name for name in asked if name not in survey.proteins]):
        survey = cohort.survey(root, [*survey.proteins, *more], patch_px=patch_px)
    return cohort.survey(root, asked, patch_px=patch_px) if asked and survey.problems else survey


def read(
    chapter: str,
    root: Path,
    *,
    own: bool,
    protein: str | None = None,
    proteins: str | Sequence[str] | None = None,
    patch_px: int | None = None,
    stride_px: int | None = None,
) -> Data:
    """The sections that a chapter reads, and its experiments fitted to them.

    root: the phantom, or with `own` a folder of one's own. The other parameters are those of the chapter, None for the
    paper's. Raises CohortError for the first problem of the folder, and for what the chapter cannot do without.
    """
    one, several, asked = experiments(protein=protein, proteins=proteins, patch_px=patch_px, stride_px=stride_px)
    if not own:
        sections = cohort.read_cohort(root, list(dict.fromkeys([*one.proteins, *PROTEINS, *several.proteins])))
        if CHAPTERS[chapter].needs_several and (reason := _no_several(several, PROTEINS)):
            raise ValueError(f"{chapter} cannot run, because {reason}")
        return Data(root, True, sections, one, several, Verdict(chapter))
    survey = cohort.whole(surveyed(root, asked, patch_px=one.patch_px))
    verdict = judge(chapter, survey, one, several)
    if verdict.refusal:
        raise CohortError(f"{root}: {chapter} cannot run, because {verdict.refusal}")
    one, fitting = fitted(survey, one, several)
    warnings = quality.warnings(survey.sections, shown(one, fitting))
    return Data(root, False, survey.sections, one, fitting, verdict, survey.notes, survey.classes, warnings)


def fitted(survey: Survey, one: Experiment, several: Experiment) -> tuple[Experiment, Experiment | None]:
    """Both experiments with the proteins that are there: that of one with any, that of several only as it is."""
    there = set(several.proteins) <= set(survey.proteins) and len(several.proteins) >= LEAST_CHANNELS
    if survey.proteins and not set(one.proteins) <= set(survey.proteins):  # a chapter that shows what there is
        one = one.adapted(proteins=survey.proteins[:1])
    return one, several if there else None


def shown(one: Experiment, several: Experiment | None) -> list[str]:
    """The proteins whose pictures a chapter reads."""
    return list(dict.fromkeys([*one.proteins, *(several.proteins if several else ())]))


def judge(
    chapter: str,
    survey: Survey,
    one: Experiment,
    several: Experiment,
    *,
    splits_known: dict[str, tuple[str, int]] | None = None,
) -> Verdict:
    """Whether a chapter runs on a data folder that could be read, and what it leaves out.

    splits_known: by experiment, why no split can be had, and patches to train on; filled, for who asks about several
    chapters.
    """
    needs, there = CHAPTERS[chapter], survey.proteins
    people = _people(survey.sections)
    if people < needs.people:
        counted = splits.counted({s.subject: s.label for s in survey.sections}.values())
        wanted = "one of each" if needs.people == 1 else "two of each at least, one to train on and one to be tested"
        return Verdict(chapter, f"there are {counted}; wanted {wanted}. Add people.")
    if needs.one and not set(one.proteins) <= set(there):
        return Verdict(chapter, f"no image of {one.proteins[0]}. Choose with -p protein one of {', '.join(there)}.")
    without = list(needs.own)
    if needs.several and (reason := _no_several(several, there)):
        if needs.needs_several:
            return Verdict(chapter, reason)
        without.append(f"{needs.several} ({reason.rstrip('.')})")
    for part, proteins in needs.parts.items():
        if missing := [name for name in proteins if name not in there]:
            without.append(f"{part}: no image of {', '.join(missing)}")
    for part, least in needs.parts_by_people.items():
        if people < least:
            without.append(f"{part}: {people} people in the smaller class, wanted {least}")
        elif (n := _least_trained(survey.sections, one)) < needs.patches:
            without.append(f"{part}: {n} patches to train on in a fold, wanted {needs.patches}")
    trained = [one] if needs.one else []
    if needs.several and not _no_several(several, there):
        trained.append(several)
    known = {} if splits_known is None else splits_known
    for experiment in trained if needs.people > 1 else ():
        if experiment.name not in known:
            known[experiment.name] = _split(survey.sections, experiment)
        reason, n_trained = known[experiment.name]
        if not reason and n_trained < needs.patches:
            reason = (
                f"{n_trained} patches to train on, wanted {needs.patches} at least. Take smaller patches or a smaller "
                "stride (-p patch_px, -p stride_px), or add people."
            )
        if reason:
            return Verdict(chapter, reason)
    return Verdict(chapter, without=tuple(without))


def _split(sections: Sequence[Section], experiment: Experiment) -> tuple[str, int]:
    """Why the patches of an experiment cannot be shared out by person, "" if they can, and how many then train."""
    table = patches.grid(sections, size_px=experiment.patch_px, stride_px=experiment.stride_px)
    try:
        return "", int((splits.by_person(table) == "train").sum())
    except ValueError as reason:
        return str(reason), 0


def _least_trained(sections: Sequence[Section], experiment: Experiment) -> int:
    """Patches that train in the smallest of the folds by people, of which there are as many as people of a class."""
    table = patches.grid(sections, size_px=experiment.patch_px, stride_px=experiment.stride_px)
    per_person = table.groupby(["label", "subject"]).size()
    n_folds = min(N_FOLDS, _people(sections))
    # In a fold everybody trains but two of n_folds parts of each class; at worst these are the largest.
    left_out = sum(
        int(sizes.nlargest(2 * -(-len(sizes) // n_folds)).sum()) for _, sizes in per_person.groupby(level="label")
    )
    return len(table) - left_out


def _no_several(several: Experiment, there: Sequence[str]) -> str:
    """Why a network of several proteins cannot be had; "" if it can."""
    choice = f"Choose with -p proteins out of {', '.join(there)}." if len(there) >= LEAST_CHANNELS else "Add proteins."
    if missing := [name for name in several.proteins if name not in there]:
        return f"no image of {', '.join(missing)}. {choice}"
    if len(several.proteins) < LEAST_CHANNELS:
        return f"{len(several.proteins)} proteins, wanted {LEAST_CHANNELS} at least. {choice}"
    return ""


def _people(sections: Iterable[Section]) -> int:
    """People in the smaller class."""
    labels = list({s.subject: s.label for s in sections}.values())
    return min(labels.count(label) for label in LABELS)
