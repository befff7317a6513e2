"""Pictures of a data folder, read whole: what each holds, and what else than the disease a network could learn.

A network takes the easiest way. If the controls were exported as bytes and the patients as counts, it will learn that.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, groupby, islice

import numpy as np
import pandas as pd

from mitolib.cohort import Section
from mitolib.images import INTENSITIES, STRETCHED, CohortError, to_8_bit
from mitolib.progress import track
from mitolib.settings import LABELS

TWO_VALUED = 0.99  # share of the pixels in the two most common greys from which a picture shows nothing else
SATURATED = 0.5  # share of white pixels from which a picture shows little else
NARROW = 3  # greys between the darkest and the brightest hundredth of the pixels, up to which all looks alike
RANGE_FACTOR, SATURATED_POINTS = 10, 0.05  # by which the classes may differ before it counts as another kind of export
TELLS = 0.5  # difference of the shares of a kind in the two classes above which it tells them apart, 1 being always
SAMPLE = 4  # every fourth pixel along each axis tells whether a picture is worth counting through
TEXTURE_PX = 32, 257  # rows and columns of the steps between neighbours by which two pictures are compared
SAME, LEAST_STEPS = 0.7, 200  # correlation of these steps from which a picture is another one in other numbers
# Shares of white, and of black, that a stretch leaves: it cuts off 5 % at both ends, or 1 % at the upper one.
CUT_5, CUT_1 = (0.045, 0.09), (0.009, 0.025)  # more where many pixels have the same count
ARCSINH_GREYS = np.unique(to_8_bit(np.arange(1001, dtype=np.float32)[None], "arcsinh"))  # of whole counts
LEAST_GREYS = 5  # that a picture must have before they say how it was made


@dataclass(frozen=True)
class Picture:
    """One protein of one section."""

    section: Section
    protein: str
    kind: str  # "8 bit", "8 bit, JPEG", "whole counts", "counts with fractions", "0 to 1"
    lowest: float
    highest: float
    upper: float  # that few pixels exceed, so that a hot one does not count; 0 for a sparse channel
    saturated: float  # share of its pixels at the greatest value of 8 or 16 bits
    is_cut: bool  # black and white at 5 % or more each, as a stretch from percentile to percentile leaves it
    made_by: str  # of 8 bits: the way of --intensity that its greys show, "" if none
    poverty: str  # why a network would see next to nothing of it, and a remedy; "" if it would
    digest: bytes = field(repr=False)  # of its pixels, whatever the file they lie in
    texture: np.ndarray = field(repr=False)  # whether each pixel of a sample is brighter or darker than its neighbour

    @property
    def path(self) -> str:
        return str(self.section.channels[self.protein].path)


def read(sections: Sequence[Section], problems: list[CohortError], notes: list[str]) -> list[Picture]:
    """All pictures of these sections. What cannot be decoded, or is one value, goes to `problems`.

    What its stretch leaves black and white goes to `notes`: the weaker proteins of the paper's panel are no more than a
    few counts, and so are such pictures there too.
    """
    pictures = []
    for section in track(sections, "pictures", len(sections)):
        for protein in section.channels:
            try:
                raw_yx = section.raw_yx(protein)
            except CohortError as problem:
                problems.append(problem)
                continue
            picture = measured(section, protein, raw_yx)
            pictures.append(picture)
            if picture.lowest == picture.highest:
                problems.append(
                    CohortError(
                        f"{picture.path}: {protein} is {picture.highest:g} at every pixel. Export it again, or leave "
                        "the section out."
                    )
                )
            elif picture.poverty:
                notes.append(f"{picture.path}: {protein}, as the networks would see it, {picture.poverty.rstrip('.')}")
    return pictures


def measured(section: Section, protein: str, raw_yx: np.ndarray) -> Picture:
    """What `check` looks at in one picture."""
    if raw_yx.dtype == np.uint8:
        return _measured_8_bit(section, protein, raw_yx)
    low, high = float(raw_yx.min()), float(raw_yx.max())
    sample_yx = raw_yx[::SAMPLE, ::SAMPLE]
    if _has_fractions(sample_yx if np.count_nonzero(sample_yx) > 50 else raw_yx):
        kind = "0 to 1" if high <= 1.001 else "counts with fractions"
    else:
        kind = "whole counts"
    is_constant = low == high
    return Picture(
        section,
        protein,
        kind,
        low,
        high,
        upper=float(np.percentile(sample_yx, 99.5)),
        saturated=float((raw_yx == high).mean()) if high == 65535 else 0.0,
        is_cut=False,
        made_by="",
        poverty="" if is_constant else shows_nothing(to_8_bit(raw_yx, section.intensity), raw_yx, section.intensity),
        digest=_digest(raw_yx.astype(np.uint8) if kind == "whole counts" and high <= 255 else raw_yx),
        texture=_texture(raw_yx),
    )


def _measured_8_bit(section: Section, protein: str, raw_yx: np.ndarray) -> Picture:
    """All of it from one count of the greys: a cohort has hundreds of such pictures."""
    shares = _histogram(raw_yx)
    greys = np.flatnonzero(shares)
    low, high = float(greys[0]), float(greys[-1])
    poverty = ""
    if low < high and _is_poor(shares):
        poverty = shows_nothing(to_8_bit(raw_yx, section.intensity), raw_yx, section.intensity)
    return Picture(
        section,
        protein,
        "8 bit, JPEG" if section.channels[protein].is_lossy else "8 bit",
        low,
        high,
        upper=float(np.searchsorted(np.cumsum(shares), 0.995)),
        saturated=float(shares[255]),
        is_cut=min(shares[255], shares[0]) >= CUT_5[0],
        made_by=_made_by(shares),
        poverty=poverty,
        digest=_digest(raw_yx),
        texture=_texture(raw_yx),
    )


def _digest(values_yx: np.ndarray) -> bytes:
    return hashlib.sha1(np.ascontiguousarray(values_yx), usedforsecurity=False).digest()


def _has_fractions(raw_yx: np.ndarray) -> bool:
    return bool((raw_yx % 1).any())


def _made_by(shares: np.ndarray) -> str:
    """How counts seem to have become bytes with these shares of the 256 greys; "" if they do not show it."""
    black, white = shares[0], shares[255]
    greys = np.flatnonzero(shares)
    if len(greys) >= LEAST_GREYS and np.isin(greys, ARCSINH_GREYS).all():
        return "arcsinh"
    if CUT_5[0] <= white <= CUT_5[1] and black >= CUT_5[0]:
        return "percentiles"
    return "top-percentile" if CUT_1[0] <= white <= CUT_1[1] else ""


def _texture(raw_yx: np.ndarray) -> np.ndarray:
    """-1, 0 or 1 for each step between neighbours in a few rows. A sign, so that neither scale nor hot pixels count."""
    n_rows, n_columns = TEXTURE_PX
    rows_yx = raw_yx[:: max(1, raw_yx.shape[0] // n_rows)][:n_rows, :n_columns]
    return np.sign(np.diff(rows_yx.astype(np.float32), axis=1)).astype(np.int8).ravel()


def shows_nothing(picture_yx: np.ndarray, raw_yx: np.ndarray, intensity: str | None) -> str:
    """Why an 8-bit picture of these counts is worth nothing to a network, with a remedy; "" if it is not so."""
    if not _is_poor(_histogram(picture_yx[::SAMPLE, ::SAMPLE]), margin=0.02):  # near enough to look at all pixels
        return ""
    counts = _histogram(picture_yx)
    if not _is_poor(counts):
        return ""
    common = np.sort(np.argsort(counts)[-2:])
    share = float(counts[common].sum())
    low, high = _darkest_and_brightest(counts)
    if share >= TWO_VALUED:
        greys = [str(grey) for grey in common if counts[grey]]
        finding = f"is {' or '.join(greys)} at {share:.1%} of its pixels"
    elif counts[255] >= SATURATED:
        finding = f"is 255 at {counts[255]:.1%} of its pixels"
    else:
        finding = f"has greys from {low} to {high} of 255 alone, but for a hundredth at either end"
    now = intensity or ("none" if raw_yx.dtype == np.uint8 else "percentiles")
    # No way of making greys makes two values more than two.
    others = [] if raw_yx.dtype == np.uint8 and share >= TWO_VALUED else INTENSITIES
    better = [
        name
        for name in others
        if name != now and not unfit_for(name, raw_yx) and not _is_poor(_histogram(to_8_bit(raw_yx, name)))
    ]
    if better:
        return f"{finding}. Convert it with --intensity {' or '.join(better)}, or leave the protein out (--proteins)."
    return f"{finding}. Export the picture again, not a mask, or leave the protein out (--proteins)."


def _histogram(picture_yx: np.ndarray) -> np.ndarray:
    """Share of each of the 256 greys."""
    return np.bincount(picture_yx.ravel(), minlength=256) / picture_yx.size


def _is_poor(shares: np.ndarray, margin: float = 0.0) -> bool:
    """Whether a picture with these greys shows nothing; with a margin, whether it may."""
    low, high = _darkest_and_brightest(shares)
    return bool(
        np.sort(shares)[-2:].sum() >= TWO_VALUED - margin
        or shares[255] >= SATURATED - margin
        or high - low <= NARROW * (1 + 50 * margin)
    )


def _darkest_and_brightest(shares: np.ndarray) -> tuple[int, int]:
    """The greys below and above which a hundredth of the pixels lie."""
    up_to = np.cumsum(shares)
    return int(np.searchsorted(up_to, 0.01)), int(np.searchsorted(up_to, 0.99))


def unfit_for(intensity: str | None, raw_yx: np.ndarray) -> str:
    """Why a way of making 8 bits does not fit these values, with a remedy; "" if it does."""
    if raw_yx.dtype == np.uint8 or intensity in (None, *STRETCHED) or raw_yx.max() > 1.001:
        return ""
    return (
        f"its values end at {float(raw_yx.max()):g}: they are no counts, which --intensity {intensity} takes them for. "
        "Convert it with --intensity percentiles, or export counts."
    )


def as_table(pictures: Sequence[Picture]) -> pd.DataFrame:
    """One row per picture: section, file, channel, isotope, taken for, kind, lowest, highest, saturated."""
    rows = []
    for picture in pictures:
        channel = picture.section.channels[picture.protein]
        rows.append(
            {
                "section": picture.section.section,
                "file": channel.path.name,
                "channel": channel.label or f"number {channel.index + 1}",
                "isotope": channel.metal or "",
                "taken for": picture.protein,
                "kind": picture.kind,
                "lowest": picture.lowest,
                "highest": picture.highest,
                "saturated": picture.saturated,
            }
        )
    return pd.DataFrame(rows)


def same_twice(pictures: Sequence[Picture]) -> Iterator[CohortError]:
    """Pictures that are the same under two names, one finding for each set of sections.

    Within a section they are the same if they are equal; in two sections also if one is the other in other numbers: a
    text export with its few decimals, a copy in 8 bits or as JPEG.
    """
    usable = [picture for picture in pictures if picture.lowest < picture.highest]
    found: dict[tuple[str, ...], list[Picture]] = {}
    for _, group in groupby(sorted(usable, key=_shape), key=_shape):
        for same in _alike(list(group)):
            found.setdefault(tuple(dict.fromkeys(p.section.section for p in same)), []).extend(same)
    for sections, same in found.items():
        paths = " and ".join(list(dict.fromkeys(picture.path for picture in same))[:3])
        proteins = ", ".join(dict.fromkeys(picture.protein for picture in same))
        if len(sections) == 1:
            yield CohortError(f"{paths}: the same pixels are taken for {proteins}. Export each protein again.")
        else:
            yield CohortError(
                f"{paths}: sections {' and '.join(sections)} hold the same pixels ({proteins}). Remove one of them; in "
                "training and test they would be one picture under two names."
            )


def _shape(picture: Picture) -> tuple[int, int]:
    return picture.section.height_px, picture.section.width_px


def _alike(pictures: Sequence[Picture]) -> Iterator[list[Picture]]:
    """Sets of the same picture among pictures of one shape, in their order."""
    steps = np.stack([picture.texture for picture in pictures]).astype(np.float32)
    n_steps = (steps**2).sum(axis=1)
    likeness = steps @ steps.T / np.sqrt(np.maximum(np.outer(n_steps, n_steps), 1))
    first = list(range(len(pictures)))  # of its set
    for i, j in combinations(range(len(pictures)), 2):
        first_picture, other = pictures[i], pictures[j]
        is_copy = first_picture.section.section != other.section.section and min(n_steps[i], n_steps[j]) >= LEAST_STEPS
        if first_picture.digest == other.digest or (is_copy and likeness[i, j] >= SAME):
            first[j] = min(first[j], first[i])
    for number in sorted(set(first)):
        same = [picture for picture, of_set in zip(pictures, first, strict=True) if of_set == number]
        if len(same) > 1:
            yield same


def warnings(sections: Sequence[Section], proteins: Sequence[str]) -> tuple[str, ...]:
    """What tells the classes of these pictures apart by their kind of file. All pixels are read, as by the check.

    Raises CohortError for a picture that cannot be decoded or is one value, and for the same pixels under two names.
    """
    problems: list[CohortError] = []
    as_shown = [replace(section, channels={name: section.channels[name] for name in proteins}) for section in sections]
    pictures = read(as_shown, problems, [])
    problems += same_twice(pictures)
    if problems:
        raise problems[0]
    return tuple(str(finding) for finding in told_by_kind(pictures))


def told_by_kind(pictures: Sequence[Picture]) -> Iterator[CohortError]:
    """What tells the classes apart by the kind of file, one finding for each difference.

    A network learns it first, and nothing on its page would show it.
    """
    yield from told_by_source(pictures)
    yield from told_by_range(pictures)
    for protein, of_class in _by_class(pictures):
        yield from islice(_told_by_greys(protein, of_class), 1)


def told_by_source(pictures: Sequence[Picture]) -> Iterator[CohortError]:
    """What no conversion can mend: files of one kind in one class, of another kind in the other."""
    proteins: dict[str, list[str]] = {}  # that the same is said of
    for protein, of_class in _by_class(pictures):
        if _told(of_class, lambda picture: picture.kind) > TELLS:
            proteins.setdefault(_who(of_class), []).append(protein)
    for who, named in proteins.items():
        yield CohortError(
            f"{', '.join(named)}: pictures are of different kinds in the two classes ({who}), so a network can tell "
            "the class by the kind of file. Export all of them alike."
        )


def _told_by_greys(protein: str, of_class: dict[str, list[Picture]]) -> Iterator[CohortError]:
    for low, high in (LABELS, LABELS[::-1]):
        these, others = of_class[high], of_class[low]
        least, most = min(p.saturated for p in these), max(p.saturated for p in others)
        # Of low counts a stretch leaves more white: that is no other kind of export.
        if least - most > SATURATED_POINTS and not all(p.is_cut for p in (*these, *others)):
            yield CohortError(
                f"{protein}: in every picture of a {high} {least:.0%} of the pixels or more are saturated, in none of "
                f"a {low} more than {most:.0%}. Export all with the same limits."
            )
        elif way := _made_otherwise(these, others):
            yield CohortError(
                f"{protein}: every picture of a {high} has the greys that --intensity {way} leaves, none of a {low} "
                "has them. Convert all from their counts in one way."
            )


def told_by_range(pictures: Sequence[Picture]) -> Iterator[CohortError]:
    """Classes whose pictures, though of one kind, have numbers of another size; a stretch mends it."""
    for protein, of_class in _by_class(pictures):
        for low, high in (LABELS, LABELS[::-1]):
            least, most = min(map(_reaches, of_class[high])), max(map(_reaches, of_class[low]))
            is_one_kind = _told(of_class, lambda picture: picture.kind) <= TELLS
            if is_one_kind and least >= RANGE_FACTOR * most > 0:
                yield CohortError(
                    f"{protein}: every picture of a {high} reaches {least:g} at least, none of a {low} more than "
                    f"{most:g}. Export all with the same scale, or convert them (python -m mitolib convert), which "
                    "stretches each to the same range."
                )


def partly_told(pictures: Sequence[Picture]) -> Iterator[str]:
    """A note on kinds that are mixed, though not so that they tell the class."""
    proteins: dict[str, list[str]] = {}
    for protein, of_class in _by_class(pictures):
        if 0 < _told(of_class, lambda picture: picture.kind) <= TELLS:
            proteins.setdefault(_who(of_class), []).append(protein)
    for who, named in proteins.items():
        yield f"{', '.join(named)}: pictures are of different kinds ({who}), not in the same shares in both classes"


def _by_class(pictures: Sequence[Picture]) -> Iterator[tuple[str, dict[str, list[Picture]]]]:
    """Each protein with its pictures by class, where both have some."""
    by_protein = sorted(pictures, key=lambda picture: picture.protein)
    for protein, group in groupby(by_protein, key=lambda picture: picture.protein):
        of_protein = list(group)
        of_class = {label: [p for p in of_protein if p.section.label == label] for label in LABELS}
        if all(of_class.values()):
            yield protein, of_class


def _told(of_class: dict[str, list[Picture]], of: Callable[[Picture], str]) -> float:
    """0 where what `of` says is as frequent in one class as in the other, 1 where it always tells them apart."""
    controls, patients = (Counter(map(of, of_class[label])) for label in LABELS)
    shares = [(controls[key] / controls.total(), patients[key] / patients.total()) for key in controls | patients]
    return sum(abs(control - patient) for control, patient in shares) / 2


def _who(of_class: dict[str, list[Picture]]) -> str:
    """Which sections hold pictures of which kind."""
    all_of_it = [picture for label in LABELS for picture in of_class[label]]
    kinds = sorted({picture.kind for picture in all_of_it})
    return "; ".join(f"{kind}: {', '.join(p.section.section for p in all_of_it if p.kind == kind)}" for kind in kinds)


def _reaches(picture: Picture) -> float:
    return picture.upper or picture.highest


def _made_otherwise(these: Sequence[Picture], others: Sequence[Picture]) -> str:
    """The way in which all these pictures were made 8 bit and clearly none of the others; "" if there is none."""
    ways = {picture.made_by for picture in these}
    way = ways.pop() if len(ways) == 1 else ""
    clearly_not = {
        "": lambda picture: False,
        "arcsinh": lambda picture: picture.made_by != "arcsinh",
        "percentiles": lambda picture: picture.saturated < 1.5 * CUT_1[1],
        "top-percentile": lambda picture: picture.saturated < CUT_1[0] / 10,
    }[way]
    return way if all(map(clearly_not, others)) else ""
