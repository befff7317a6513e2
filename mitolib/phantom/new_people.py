"""People who never were: a calibration of any number of controls and patients, none a copy of anybody measured.

A person is drawn from random effects that are fitted, with shrinkage, to the thirteen measured people:

Normal fibres. As `between_people`: the levels of eight proteins differ between people and between the fibres of one.
Those of mosaic patients lie apart from the controls' by the measured difference, shrunk towards none as far as chance
alone would part eight people from three (positive-part estimator of James & Stein 1961).

Deficient fibres. The genotype is that of a measured patient, each as likely as the others. In nuclear-encoded disease
every fibre is deficient in complex I. In the others, mosaics of mutated mitochondrial DNA, the share of deficient
fibres is logit-normal within 0.5 and 99.5 %, their division among CI, CIV and CI+CIV logistic-normal. With eight mosaic
patients no difference between their genotypes is modelled. The log ratio of a deficient fibre's levels to those of a
normal fibre is the mean ratio of its class plus an effect of the person, the same for all classes.

Muscle. Size, spread and elongation of the fibres are normal in their logarithms; the share of the tissue that is fibre
is uniform over the range of torn and intact sections; the outline is a random field above a threshold, and covers a
share of its section as measured ones do.

Every effect has one draw, from a stream of the person's own: the first fifty of two hundred people are those of fifty.
What is assumed and cannot be tested with thirteen people: that the effects are normal and do not depend on each other.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator, SeedSequence
from scipy import ndimage as ndi
from scipy import special, stats

from mitolib import files, settings
from mitolib.phantom import between_people, draw, exact, geometry
from mitolib.phantom.between_people import log_levels, shrunk_correlation
from mitolib.phantom.calibration import DEFICIENT, MASS_MARKER, PhantomError, read_calibration
from mitolib.phantom.draw import make_phantom
from mitolib.progress import track

NUCLEAR = "nuclear-encoded complex I"
OUTLINE_CELL_PX = 64
LEAST_SHARE = 0.005  # that a class without a fibre counts as; one drawn smaller is left out
LEAST_DIGIT = 1e-4  # of a share, as it is kept


@dataclass(frozen=True)
class Effect:
    """Normal distribution of an effect between people: mean (D,) and covariance (D, D)."""

    mean: np.ndarray
    covariance: np.ndarray

    def draw(self, rng: Generator) -> np.ndarray:
        """(D,) of one person."""
        deviate = exact.normal(rng, (1, len(self.mean))).astype(float)
        return self.mean + exact.correlated(deviate, self.covariance)[0]


@dataclass(frozen=True)
class PeopleModel:
    """Everything that `draw_people` draws from; levels in log counts per pixel, P proteins of the calibration.

    proteins: names (P,). levels: of the normal fibres of controls. shift: (P,) by which mosaic patients' differ, and
    the weight that shrinkage left of it. ratio: log ratio of a class's fibres to normal ones, (P,) by class, with
    NUCLEAR as a class of its own. person: effect (P,) on that ratio. share: logit of the deficient share. division:
    log of CI and of CIV over CI+CIV. muscle: log mean area in px, log of the spread of log area, log of (long over
    short axis - 1). tissue: logit of the share that tissue takes of a section. genotypes: of the measured patients.
    """

    proteins: tuple[str, ...]
    levels: between_people.BetweenPeople
    shift: np.ndarray
    shift_weight: float
    ratio: dict[str, np.ndarray]
    person: Effect
    share: Effect
    division: Effect
    muscle: Effect
    tissue: Effect
    genotypes: tuple[str, ...]


def fit(cohort: Mapping[str, Any]) -> PeopleModel:
    """The model, fitted to the measured people of a calibration (content of `data/cohort.json`).

    Raises PhantomError for a calibration with fewer than two measured controls, two mosaic patients or two patients
    with nuclear-encoded disease.
    """
    measured = [subject for subject in cohort["subjects"] if subject["fibres_measured"]]
    controls = [subject for subject in measured if subject["label"] == "control"]
    patients = [subject for subject in measured if subject["label"] == "patient"]
    mosaic = [subject for subject in patients if {"none"} < set(subject["classes"])]
    nuclear = [subject for subject in patients if set(subject["classes"]) == {"CI"}]
    sizes = {"controls": len(controls), "mosaic patients": len(mosaic), "patients without a normal fibre": len(nuclear)}
    if min(sizes.values()) < 2:
        raise PhantomError(
            f"calibration: found {sizes}, wanted two of each at least: the spread between people is fitted to them. "
            "Use data/cohort.json."
        )
    levels = between_people.fit(cohort)
    shift, weight = _shift(levels, controls, mosaic)
    ratio = {name: _of_class(mosaic, name) for name in DEFICIENT}
    of_nuclear = np.array([_nuclear_ratio(subject, levels, tuple(cohort["proteins"])) for subject in nuclear])
    deficient = np.array([1 - subject["classes"]["none"]["fraction"] for subject in mosaic])
    return PeopleModel(
        proteins=tuple(cohort["proteins"]),
        levels=levels,
        shift=shift,
        shift_weight=weight,
        ratio={name: np.mean(list(rows.values()), axis=0) for name, rows in ratio.items()}
        | {NUCLEAR: of_nuclear.mean(axis=0)},
        person=_person_effect([*ratio.values(), dict(enumerate(of_nuclear))]),
        share=_effect(special.logit(deficient)[:, None]),
        division=_effect(np.array([_log_division(subject) for subject in mosaic])),
        muscle=_effect(np.array([_muscle(subject) for subject in measured])),
        tissue=_effect(special.logit([[_tissue_share(subject["tissue"])] for subject in measured])),
        genotypes=tuple(subject["genotype"] for subject in patients),
    )


def draw_people(
    n_controls: int,
    n_patients: int,
    *,
    seed: int,
    side_px: int = 1500,
    calibration: str | os.PathLike[str] = settings.CALIBRATION,
) -> dict[str, Any]:
    """A calibration of new people, for `make_phantom`: controls first.

    Subjects are called `<seed>C001` and so on. Each has one square section of `side_px` px and is the same however many
    others are drawn beside. The afflicted twin of a control takes after the mosaic patient of its number, or the next.

    Raises PhantomError for a negative number of people, nobody at all, a section below 512 px, or a calibration that
    cannot be fitted, see `fit`.
    """
    if min(n_controls, n_patients) < 0 or n_controls + n_patients == 0:
        raise PhantomError(
            f"n_controls={n_controls}, n_patients={n_patients}: wanted whole numbers from 0, not both 0. "
            "Ask for one person at least."
        )
    if side_px < 512:
        raise PhantomError(f"side_px={side_px}: a section must hold one patch of 512 px. Ask for 512 px or more.")
    cohort, _ = read_calibration(Path(calibration))
    model = fit(cohort)
    controls = [_draw(model, "control", number, seed, side_px) for number in range(1, n_controls + 1)]
    patients = [_draw(model, "patient", number, seed, side_px) for number in range(1, n_patients + 1)]
    for number, control in enumerate(controls, 1):
        later = (_draw(model, "patient", other, seed, side_px) for other in count(number))
        control["donor"] = next(patient for patient in later if "none" in patient["classes"])
    return {
        "source": f"Nobody: drawn by {__name__}, seed {seed}, from a model fitted to {cohort['source']}",
        "units": cohort["units"],
        "proteins": cohort["proteins"],
        "subjects": controls + patients,
    }


def make_people(
    root: str | os.PathLike[str],
    people: Mapping[str, Any],
    *,
    cured: bool = False,
    afflicted: bool = False,
    workers: int | None = None,
) -> list[Path]:
    """Draw new people, each into a folder of their own below `root`, and return the folders in the order of `people`.

    people: of `draw_people`. A folder is a phantom of one (`make_phantom`), there whole or not at all: who is drawn
    already is left alone, so that a run that was killed goes on. cured, afflicted: draw the twins, as `make_phantom`
    does, below a `root` of their own; a control is given the deficiency of its own donor. workers: threads; by default
    one per core, at most 4 (each needs about 0.3 GB).

    Raises PhantomError where the disk is full or cannot be written, or where a folder holds somebody else.
    """
    root = Path(root).absolute()
    calibrations = root / "calibrations"

    def make(subject: Mapping[str, Any]) -> Path:
        path = calibrations / f"{subject['subject']}.json"
        text = json.dumps({**people, "subjects": [subject]}, indent=1) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            with files.whole(path) as draft:
                draft.write_text(text, encoding="utf-8")
        return make_phantom(root / subject["subject"], cured=cured, afflicted=afflicted, calibration=path, workers=1)

    subjects = people["subjects"]
    try:
        with ThreadPoolExecutor(workers or min(draw.cores(), draw.MOST_WORKERS)) as pool:
            return list(track(pool.map(make, subjects), "people", len(subjects)))
    except OSError as error:
        raise PhantomError(
            f"{root}: cannot be written ({error.strerror or error}). Choose a folder that can be written, or free the "
            "disk: a person with a section of 1,500 px takes 20 MB."
        ) from error


def _draw(model: PeopleModel, label: str, number: int, seed: int, side_px: int) -> dict[str, Any]:
    """The record of one person, as the calibration has it."""
    rng = np.random.default_rng(SeedSequence(seed, spawn_key=(zlib.crc32(label.encode()), number)))
    effect = Effect(np.zeros(len(model.proteins)), model.levels.between).draw(rng)
    log_area, log_spread, log_elongation = model.muscle.draw(rng)
    tissue = float(special.expit(model.tissue.draw(rng)[0]))
    subject = {
        "subject": f"{seed}{label[0].upper()}{number:03}",
        "label": label,
        "genotype": "healthy control",
        "width": side_px,
        "height": side_px,
        "size_source": "drawn",
        "fibres_measured": 0,
        "fibre_area_px": {"log_mean": round(float(log_area), 3), "log_sd": round(float(np.exp(log_spread)), 3)},
        "aspect_ratio_median": round(1 + float(np.exp(log_elongation)), 3),
        "fill": round(float(rng.uniform(*draw.FILL)), 3),
        "tissue_cell_px": OUTLINE_CELL_PX,
        "tissue": _outline(tissue, side_px, rng),
    }
    normal = model.levels.mean + effect
    classes = {"none": (1.0, normal)}
    if label == "patient":
        subject["genotype"] = model.genotypes[rng.integers(len(model.genotypes))]
        normal, classes = _deficient(model, subject["genotype"], normal, rng)
    subject["normal_log_mean"] = _tabulated(normal)
    subject["classes"] = {
        name: {"fraction": round(share, 4), "log_mean": _tabulated(level)} for name, (share, level) in classes.items()
    }
    pooled = np.average(
        [group["log_mean"] for group in subject["classes"].values()],
        axis=0,
        weights=[group["fraction"] for group in subject["classes"].values()],
    )
    per_level = 1 - np.exp(-pooled)  # d log(level + 1) / d log(level), at which `draw` undoes it
    subject["log_cov"] = (model.levels.within * np.outer(per_level, per_level)).round(4).tolist()
    return subject


def _deficient(
    model: PeopleModel, genotype: str, normal: np.ndarray, rng: Generator
) -> tuple[np.ndarray, dict[str, tuple[float, np.ndarray]]]:
    """A patient's normal levels (P,), and share and levels (P,) of each class of fibres."""
    person, logit_share, division = model.person.draw(rng), model.share.draw(rng)[0], model.division.draw(rng)
    if genotype == NUCLEAR:
        return normal, {"CI": (1.0, normal + model.ratio[NUCLEAR] + person)}
    normal = normal + model.shift
    odds = np.exp([division[0], division[1], 0.0])
    # A mosaic has fibres of both kinds: the logit of a share reaches further than the four digits it is kept with.
    shares = np.clip(special.expit(logit_share), LEAST_SHARE, 1 - LEAST_SHARE) * odds / odds.sum()
    least = max(LEAST_SHARE * sum(shares), LEAST_DIGIT)
    kept = {name: float(share) for name, share in zip(DEFICIENT, shares, strict=True) if share >= least}
    scale = float(sum(shares)) / sum(kept.values())
    classes = {"none": (1 - float(sum(shares)), normal)}
    return normal, classes | {
        name: (share * scale, normal + model.ratio[name] + person) for name, share in kept.items()
    }


def _outline(share: float, side_px: int, rng: Generator) -> list[str]:
    """Rows of '#' and '.': the largest piece of where a random field, highest in the middle, exceeds a threshold."""
    cells = max(round(side_px / OUTLINE_CELL_PX), 4)
    field = geometry.smooth_noise((cells, cells), cells / 2.5, rng)
    from_middle = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, cells)] * 2))
    height = field - 2 * from_middle**2
    piece, _ = ndi.label(height >= np.quantile(height, 1 - share))
    largest = piece == np.bincount(piece.ravel())[1:].argmax() + 1
    return ["".join("#" if inside else "." for inside in row) for row in largest]


def _tabulated(log_level: np.ndarray) -> list[float]:
    """log(level + 1), as the calibration has it, to a thousandth."""
    return np.log1p(np.exp(log_level)).round(3).tolist()


def _effect(rows_nd: np.ndarray) -> Effect:
    return Effect(rows_nd.mean(axis=0), np.atleast_2d(np.cov(rows_nd.T)))


def _shift(
    levels: between_people.BetweenPeople, controls: Sequence[Mapping], mosaic: Sequence[Mapping]
) -> tuple[np.ndarray, float]:
    """By how much mosaic patients' normal fibres differ from controls' (P,), shrunk, and the weight left of it."""
    difference = np.mean([log_levels(s) for s in mosaic], axis=0) - levels.mean
    by_chance = levels.between * (1 / len(controls) + 1 / len(mosaic))
    distance = float(difference @ np.linalg.solve(by_chance, difference))
    weight = max(0.0, 1 - (len(difference) - 2) / distance)
    return weight * difference, weight


def _of_class(mosaic: Sequence[Mapping[str, Any]], name: str) -> dict[str, np.ndarray]:
    """Subject -> log ratio (P,) of the levels in fibres of that class to those in the subject's normal ones."""
    return {s["subject"]: log_levels(s, name) - log_levels(s) for s in mosaic if name in s["classes"]}


def _nuclear_ratio(
    subject: Mapping[str, Any], levels: between_people.BetweenPeople, proteins: tuple[str, ...]
) -> np.ndarray:
    """(P,) of a patient without a normal fibre: against controls with as much of the mass marker."""
    apart = log_levels(subject, "CI") - levels.mean
    return apart - apart[proteins.index(MASS_MARKER)]


def _person_effect(by_class: Sequence[Mapping[Any, np.ndarray]]) -> Effect:
    """Between people, about the mean of each class; correlations shrunk as those of normal levels are."""
    residual = np.concatenate(
        [np.array(list(rows.values())) - np.mean(list(rows.values()), axis=0) for rows in by_class]
    )
    freedom = len(residual) - len(by_class)
    deviation = np.sqrt((residual**2).sum(axis=0) / freedom)
    correlation, _ = shrunk_correlation(residual / deviation, freedom)
    return Effect(np.zeros(len(deviation)), correlation * np.outer(deviation, deviation))


def _log_division(subject: Mapping[str, Any]) -> list[float]:
    """log of CI over CI+CIV, and of CIV over CI+CIV, among a mosaic patient's deficient fibres."""
    classes = subject["classes"]
    deficient = 1 - classes["none"]["fraction"]
    share = {n: max(classes[n]["fraction"] / deficient if n in classes else 0.0, LEAST_SHARE) for n in DEFICIENT}
    return [float(np.log(share[name] / share["CI+CIV"])) for name in ("CI", "CIV")]


def _muscle(subject: Mapping[str, Any]) -> list[float]:
    area = subject["fibre_area_px"]
    return [area["log_mean"], float(np.log(area["log_sd"])), float(np.log(subject["aspect_ratio_median"] - 1))]


def _tissue_share(outline: Sequence[str]) -> float:
    return "".join(outline).count("#") / len("".join(outline))


def compare(drawn: Mapping[str, Any], cohort: Mapping[str, Any]) -> pd.DataFrame:
    """The measured people among drawn ones, one row for each measure and label.

    drawn: of `draw_people`; cohort: the calibration they were fitted to. Measures: log level of each protein in normal
    fibres, deficient share of mosaic patients, log area of fibres. Columns: label, measure, measured (number of
    people), least and greatest (share of drawn people below the least and the greatest measured one), ks and p: the
    Kolmogorov-Smirnov distance and its p, which with a handful of people finds gross faults only.
    """
    rows = []
    for label in settings.LABELS:
        values_drawn, values_measured = _measures(drawn, label), _measures(cohort, label)
        for measure, known in values_measured.items():
            new = np.array(values_drawn[measure])
            test = stats.ks_2samp(known, new)
            rows.append(
                {
                    "label": label,
                    "measure": measure,
                    "measured": len(known),
                    "least": float((new < min(known)).mean()),
                    "greatest": float((new < max(known)).mean()),
                    "ks": float(test.statistic),
                    "p": float(test.pvalue),
                }
            )
    return pd.DataFrame(rows)


def _measures(cohort: Mapping[str, Any], label: str) -> dict[str, list[float]]:
    """Measure -> one value for each person of that label who was measured or drawn."""
    people = [
        s for s in cohort["subjects"] if s["label"] == label and (s["fibres_measured"] or s["size_source"] == "drawn")
    ]
    normal = [s for s in people if "none" in s["classes"]]
    found = {
        protein: [float(log_levels(s)[column]) for s in normal] for column, protein in enumerate(cohort["proteins"])
    }
    if label == "patient":
        found["deficient share"] = [1 - s["classes"]["none"]["fraction"] for s in normal]
    return found | {"log area": [s["fibre_area_px"]["log_mean"] for s in people]}


def in_words(compared: pd.DataFrame, n_drawn: Mapping[str, int]) -> pd.DataFrame:
    """What `compare` found, for reading: a row for each measure and label. n_drawn: people drawn, by label."""
    rows = {
        (row.label, row.measure): {
            "measured": row.measured,
            "drawn": n_drawn[row.label],
            "drawn below the least measured": f"{row.least:.0%}",
            "drawn above the greatest measured": f"{1 - row.greatest:.0%}",
            "Kolmogorov-Smirnov": f"{row.ks:.2f}",
            "p": f"{row.p:.2f}",
        }
        for row in compared.itertuples()
    }
    return pd.DataFrame(rows).T.rename_axis(["label", "measure"])


def spread(drawn: Mapping[str, Any], cohort: Mapping[str, Any]) -> pd.DataFrame:
    """Standard deviation of the log level of each protein in normal fibres, of measured people beside drawn ones.

    A row for each protein; columns (between people or within one, measured or drawn). Between: about the mean of
    controls and of patients. Within: the fibres of one person, the root of the mean variance over people; as measured
    in controls, since every drawn person has it.
    """
    columns: dict[tuple[str, str], np.ndarray] = {}
    for name, calibration in (("measured", cohort), ("drawn", drawn)):
        people = [s for s in calibration["subjects"] if "none" in s["classes"]]
        people = [s for s in people if s["fibres_measured"] or s["size_source"] == "drawn"]
        groups = [np.array([log_levels(s) for s in people if s["label"] == label]) for label in settings.LABELS]
        residual = np.concatenate([of_label - of_label.mean(axis=0) for of_label in groups])
        columns["between people", name] = np.sqrt((residual**2).sum(axis=0) / (len(residual) - len(groups)))
        controls = [s for s in people if s["label"] == "control"]
        variances = [np.diag(between_people.within(control)) for control in controls]
        columns["within a person", name] = np.sqrt(np.mean(variances, axis=0))
    table = pd.DataFrame(columns, index=pd.Index(cohort["proteins"], name="protein"))
    return table[["between people", "within a person"]]
