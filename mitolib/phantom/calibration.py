"""The calibration of the phantom, `data/cohort.json`: read, checked, and who of it is what."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from mitolib import settings

DEFICIENT = ("CI", "CIV", "CI+CIV")
MASS_MARKER = "VDAC1"


class PhantomError(ValueError):
    """The phantom cannot be made or reused as asked; the message names what was found and the remedy."""


def donors(calibration: str | os.PathLike[str] = settings.CALIBRATION) -> dict[str, str]:
    """Control -> the patient whose deficiency it has in the afflicted twin."""
    cohort, _ = read_calibration(Path(calibration))
    return {name: donor["subject"] for name, donor in donors_among(cohort["subjects"]).items()}


def donors_among(subjects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Control -> donor: the one that it was drawn with (`new_people`), or else controls take turns through the
    patients with normal fibres, the most deficient first."""
    patients = [s for s in subjects if s["label"] == "patient" and {"none"} < set(s["classes"])]
    patients.sort(key=lambda s: s["classes"]["none"]["fraction"])
    controls = [s for s in subjects if s["label"] == "control"]
    in_turn = {s["subject"]: patients[i % len(patients)] for i, s in enumerate(controls) if patients}
    return in_turn | {s["subject"]: s["donor"] for s in controls if "donor" in s}


def read_calibration(path: Path) -> tuple[dict[str, Any], str]:
    """The checked calibration and the SHA-256 of its file."""
    remedy = "Restore data/cohort.json from the repository, or pass calibration=."
    try:
        raw = path.read_bytes()
        cohort = json.loads(raw)
    except OSError as error:
        raise PhantomError(f"{path}: calibration not readable ({error.strerror}). {remedy}") from error
    except ValueError as error:
        raise PhantomError(f"{path}: calibration is not JSON ({error}). {remedy}") from error
    try:
        fault = _fault(cohort)
    except (KeyError, TypeError, AttributeError) as error:
        fault = f"an entry is missing or of another type ({error!r})"
    if fault:
        raise PhantomError(f"{path}: calibration is malformed: {fault}. {remedy}")
    return cohort, hashlib.sha256(raw).hexdigest()


def _fault(cohort: dict[str, Any]) -> str | None:
    """What is wrong with a calibration, None if it can be drawn; may raise KeyError, TypeError or AttributeError."""
    proteins, subjects = cohort["proteins"], cohort["subjects"]
    if MASS_MARKER not in proteins or not set(proteins) <= set(settings.PROTEINS):
        return f"proteins {proteins} must hold {MASS_MARKER} and be among {list(settings.PROTEINS)}"
    names = [subject["subject"] for subject in subjects]
    if not names or len(set(names)) < len(names) or not all(re.fullmatch(r"[\w-]+", name) for name in names):
        return f"subjects {names} must be different words, at least one: they name folders"
    for name, subject in zip(names, subjects, strict=True):
        if subject["label"] not in settings.LABELS or not isinstance(subject["genotype"], str):
            return f"{name} has label {subject['label']!r}, wanted one of {settings.LABELS}"
        if unknown := set(subject["classes"]) - {"none", *DEFICIENT} or not subject["classes"]:
            return f"{name} has unknown classes or none: {unknown}"
        shapes = {np.shape(group["log_mean"]) for group in subject["classes"].values()}
        if shapes != {(len(proteins),)} or np.shape(subject["log_cov"]) != (len(proteins),) * 2:
            return f"{name} has levels for other than the {len(proteins)} proteins"
        if min(np.diag(subject["log_cov"])) < 0:
            return f"{name} has a negative spread among the variances of log_cov"
        if not all(0 < group["fraction"] <= 1 for group in subject["classes"].values()):
            return f"{name} has a class whose fraction is not in (0, 1]"
        if len(set(map(len, subject["tissue"]))) != 1 or "#" not in "".join(subject["tissue"]):
            return f"{name} has a tissue outline that is ragged or empty"
        sizes = [subject[key] for key in ("width", "height", "tissue_cell_px", "aspect_ratio_median")]
        if not min(*sizes, *subject["fibre_area_px"].values(), subject["fibres_measured"] + 1) > 0:
            return f"{name} has a size that is not positive"
        if not {"log_mean", "log_sd"} <= set(subject["fibre_area_px"]):
            return f"{name} has no log_mean or log_sd of fibre_area_px"
        if np.shape(subject.get("normal_log_mean", subject["log_cov"][0])) != (len(proteins),):
            return f"{name} has normal levels for other than the {len(proteins)} proteins"
        without_normal = "none" not in subject["classes"] and "normal_log_mean" not in subject
        if without_normal and not any(is_measured_control(other) for other in subjects):
            return f"{name} has no normal fibre, and there is no measured control to derive it from"
    return None


def is_measured_control(subject: dict[str, Any]) -> bool:
    """C04 was never measured: its levels come from a model of the others, and say nothing that these do not."""
    return subject["label"] == "control" and subject["fibres_measured"] > 0 and "none" in subject["classes"]
