"""The embedded cohort: ten-channel imaging-mass-cytometry sections of muscle, drawn from published measurements.

No public source holds the images of Pilla, Khan & McGough (2022). `make_phantom` writes what a hospital
would hand over for such a cohort (14 subjects x 10 proteins, as TIFF and as JPEG) together with what no
hospital can: the fibre of every pixel, and each fibre's deficiency and protein levels.

Where the numbers come from: `data/cohort.json`, fitted to the per-fibre means of Warren et al. (2020),
doi:10.1038/s41598-020-70885-3. Decisions taken here:

Levels. All 8,994 x 8 tabulated means exceed 1 (least 1.017), and the scatter of log(mean - 1) is alike in
normal and in deficient fibres, that of log(mean) is not: the table holds counts + 1. A level here is a mean
count per pixel, tabulated mean - 1; fibres scatter log-normally in it, with the table's covariance carried
over from log(mean) by the delta method. A quarter of the variance varies slowly over the section (staining).
TOM22 is not in the table: a mass marker, drawn as 0.9 x VDAC1 with a further scatter of 15 %.
Dystrophin is not either: membrane only, the same in every subject, alike in deficient fibres.

Pixels. `geometry` packs the section, `pixels` turns levels into counts. Where a deficient fibre
holds more SDHA than it would without the defect, the excess lies in a thin clumpy rim (ragged-red fibres). As
mitocyto does, each image is stretched from the 5th to the 95th percentile of its counts.

Cured twin. Same geometry, texture, noise and stretch limits, but every deficient fibre has normal levels of its own
subject: the same latent deviate around the mean of class "none". Subjects without a normal fibre (P01, P02)
get as normal their own VDAC1 and, for the other proteins, the controls' mean log-ratio to VDAC1. Pixels outside
the deficient fibres are the same, byte for byte.

Afflicted twin. The reverse, with the controls: geometry, texture, noise, stretch limits and normal levels of the
control, and a patient's deficiency laid over them: the patient's classes in their shares, each fibre's levels
multiplied by the ratio that the patient's deficient fibres bear to its normal ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from numpy.random import Generator, SeedSequence
from PIL import Image
from scipy import ndimage as ndi

from mitolib import files, settings
from mitolib.phantom import geometry
from mitolib.phantom.pixels import GREATEST_RATE, Stain, quantiles
from mitolib.progress import track

RECIPE_VERSION = 2  # raise it whenever the same seed gives other bytes
LEAST_SIDE_PX = 768  # a section keeps a grid of several 512 px patches at any scale
STAINING = 0.25  # share of the fibres' variance that varies slowly over the section
STAINING_PX = 600.0
MEMBRANE = 9.0  # dystrophin counts at the membrane, median fibre
BORDER = 0.11  # by which a cell is wider than its fibre
FILL = (0.65, 0.83)  # share of the tissue that is fibre: torn and intact sections
MOST_WORKERS = 4
DEFICIENT = ("CI", "CIV", "CI+CIV")
MASS_MARKER = "VDAC1"


class PhantomError(ValueError):
    """The phantom cannot be made or reused as asked; the message names what was found and the remedy."""


@dataclass(frozen=True)
class _Task:
    """One section to draw."""

    subject: dict[str, Any]
    calibrated: tuple[str, ...]  # order of the columns of log_mean and log_cov
    normal: list[float]  # log(level + 1) that counts as normal for this subject
    donor: dict[str, Any] | None  # the patient whose deficiency this control is given
    seed: int
    scale: float
    cured: bool
    folder: Path


def section_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """Width and height in px of a section at `scale`; each side stays at least min(side, 768)."""
    small_width, small_height = (max(round(side * scale), min(side, LEAST_SIDE_PX)) for side in (width, height))
    return small_width, small_height


def make_phantom(
    root: str | os.PathLike[str],
    *,
    seed: int = 127,
    scale: float = 1.0,
    cured: bool = False,
    afflicted: bool = False,
    calibration: str | os.PathLike[str] = settings.CALIBRATION,
    workers: int | None = None,
) -> Path:
    """Draw the cohort below `root`, or return at once if it is there already.

    The same seed gives the same bytes (with the same numpy and scipy), however many threads draw.
    scale: linear size of the sections (0 < scale <= 1); fibres keep their size in px, so there are fewer of them.
    cured: draw the twin in which every deficient fibre has normal levels.
    afflicted: draw the twin in which every control has the deficiency of a patient (`donors`).
    workers: threads; by default one per core, at most 4 (each needs about 1 GB at scale 1).

    Writes `<Label>/<subject>/<protein>.tif` and `.jpg` (8 bit), `cohort.csv`, `truth/<section>.tif` (uint16 fibre
    labels), `truth/fibres.csv`, `truth/stretch.csv` and, last, `recipe.json`. All appear at once: a run that is
    killed leaves at most a folder beside `root`, which the next run removes (`files.whole`).

    Raises PhantomError for a bad scale or calibration, a calibration without a patient to afflict controls with, or a
    folder that holds something else.
    """
    root = Path(root).absolute()
    if not 0 < scale <= 1:
        raise PhantomError(f"scale={scale} is not in (0, 1]. Use 1 for the published sizes, 0.1 for a quick look.")
    cohort, digest = _read_calibration(Path(calibration))
    recipe = {
        "version": RECIPE_VERSION,
        "seed": int(seed),
        "scale": float(scale),
        "cured": bool(cured),
        "calibration_sha256": digest,
        "files": 2 * len(settings.PROTEINS) * len(cohort["subjects"]),
    } | ({"afflicted": True} if afflicted else {})  # phantoms drawn before there was this twin have no such entry
    donor_of = _donors(cohort["subjects"]) if afflicted else {}
    if afflicted and not donor_of:
        raise PhantomError(
            f"{calibration}: no patient has both deficient and normal fibres, wanted one to afflict the controls with. "
            "Leave `afflicted` out, or use the calibration in data/cohort.json."
        )
    if _is_there(root, recipe):
        return root
    try:
        with files.whole(root) as draft:
            (draft / "truth").mkdir(parents=True)
            tasks = [
                _task(subject, cohort, donor_of.get(subject["subject"]), seed, scale, cured, draft)
                for subject in cohort["subjects"]
            ]
            drawn = _draw_all(tasks, workers or min(_cores(), MOST_WORKERS))
            _write_tables(draft, cohort["subjects"], drawn)
            (draft / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        if not _is_there(root, recipe):  # else another process was faster, and has drawn the same
            raise PhantomError(
                f"{root}: cannot be written ({error.strerror or error}). Choose a folder that can be written, or free "
                "the disk."
            ) from error
    return root


def donors(calibration: str | os.PathLike[str] = settings.CALIBRATION) -> dict[str, str]:
    """Control -> the patient whose deficiency it has in the afflicted twin."""
    cohort, _ = _read_calibration(Path(calibration))
    return {name: donor["subject"] for name, donor in _donors(cohort["subjects"]).items()}


def _donors(subjects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The controls take turns through the patients that have normal fibres to compare with, most deficient first."""
    patients = [s for s in subjects if s["label"] == "patient" and {"none"} < set(s["classes"])]
    patients.sort(key=lambda s: s["classes"]["none"]["fraction"])
    controls = [s["subject"] for s in subjects if s["label"] == "control"]
    return {name: patients[i % len(patients)] for i, name in enumerate(controls) if patients}


def _read_calibration(path: Path) -> tuple[dict[str, Any], str]:
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
        if not all(0 < group["fraction"] <= 1 for group in subject["classes"].values()):
            return f"{name} has a class whose fraction is not in (0, 1]"
        if len(set(map(len, subject["tissue"]))) != 1 or "#" not in "".join(subject["tissue"]):
            return f"{name} has a tissue outline that is ragged or empty"
        sizes = [subject[key] for key in ("width", "height", "tissue_cell_px", "aspect_ratio_median")]
        if not min(*sizes, *subject["fibre_area_px"].values(), subject["fibres_measured"] + 1) > 0:
            return f"{name} has a size that is not positive"
        if not {"log_mean", "log_sd"} <= set(subject["fibre_area_px"]):
            return f"{name} has no log_mean or log_sd of fibre_area_px"
        if "none" not in subject["classes"] and not any(_is_measured_control(other) for other in subjects):
            return f"{name} has no normal fibre, and there is no measured control to derive it from"
    return None


def _is_measured_control(subject: dict[str, Any]) -> bool:
    """C04's levels are a copy of C03's and would count twice."""
    return subject["label"] == "control" and subject["fibres_measured"] > 0 and "none" in subject["classes"]


def _is_there(root: Path, recipe: dict[str, Any]) -> bool:
    """True if `root` holds this very cohort, False if there is nothing; anything else is refused."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    remedy = "Delete the folder, or choose another."
    try:
        recipe_there = json.loads((root / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PhantomError(f"{root}: exists without a readable recipe.json, so it is no phantom. {remedy}") from error
    if recipe_there != recipe:
        raise PhantomError(f"{root}: holds another phantom: found {recipe_there}, wanted {recipe}. {remedy}")
    n_images = sum(
        path.suffix in {".tif", ".jpg"} for label in settings.LABELS for path in (root / label.title()).rglob("*")
    )
    if n_images != recipe["files"]:
        raise PhantomError(f"{root}: found {n_images} images, wanted {recipe['files']}. {remedy}")
    return True


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _task(
    subject: dict[str, Any],
    cohort: dict[str, Any],
    donor: dict[str, Any] | None,
    seed: int,
    scale: float,
    cured: bool,
    folder: Path,
) -> _Task:
    proteins = cohort["proteins"]
    if "none" in subject["classes"]:
        normal = subject["classes"]["none"]["log_mean"]
    else:  # the controls' ratio to the mass marker, on this subject's own mass
        mass = proteins.index(MASS_MARKER)
        controls = [other for other in cohort["subjects"] if _is_measured_control(other)]
        rates = np.log(_rate([control["classes"]["none"]["log_mean"] for control in controls]))
        ratio = (rates - rates[:, [mass]]).mean(axis=0)
        shares = [group["fraction"] for group in subject["classes"].values()]
        own_mass = np.average([group["log_mean"][mass] for group in subject["classes"].values()], weights=shares)
        normal = np.log1p(_rate(own_mass) * np.exp(ratio)).tolist()
    return _Task(subject, tuple(proteins), normal, donor, seed, scale, cured, folder)


def _rate(log_mean: Any) -> np.ndarray:
    """Mean count of a tabulated log mean; the table holds counts + 1."""
    return np.maximum(np.expm1(np.asarray(log_mean, float)), 0.01)


def _stream(task: _Task, purpose: str) -> Generator:
    """One stream per section and purpose: a new step, or another subject, shifts no other."""
    key = tuple(zlib.crc32(name.encode()) for name in (task.subject["subject"], purpose))
    return np.random.default_rng(SeedSequence(task.seed, spawn_key=key))


def _draw_all(tasks: list[_Task], workers: int) -> dict[str, tuple[pd.DataFrame, list[dict]]]:
    """Draw every section, largest first; results by subject."""
    quantiles()  # once, not once per thread
    tasks = sorted(tasks, key=lambda task: -task.subject["width"] * task.subject["height"])
    # Threads, not processes: numpy, zlib and Pillow release the interpreter lock on whole images. It works from
    # any kernel, script or prompt, beside TensorFlow, and nothing outlives a killed run.
    with ThreadPoolExecutor(workers) as pool:
        futures = {task.subject["subject"]: pool.submit(_draw, task) for task in tasks}
        try:
            return {name: futures[name].result() for name in track(futures, "phantom", len(futures))}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _draw(task: _Task) -> tuple[pd.DataFrame, list[dict]]:
    """Write the images and the label map of one section; return its rows of fibres.csv and stretch.csv."""
    subject, name = task.subject, task.subject["subject"]
    width, height = section_size(subject["width"], subject["height"], task.scale)
    geometry = _geometry(task, (height, width))
    label = geometry.label
    tifffile.imwrite(task.folder / "truth" / f"{name}.tif", label, compression="zlib")

    paint = Stain(geometry, partial(_stream, task))
    number = np.arange(1, len(paint.area_px) + 1)
    centre = np.array(ndi.center_of_mass(label > 0, label, number)).reshape(-1, 2)
    deficiency, level, healthy = _levels(task, centre, (height, width))
    original = healthy if task.donor else level
    drawn = healthy if task.cured and not task.donor else level
    table = pd.DataFrame({"section": name, "fibre": number, "y": centre[:, 0].round(2), "x": centre[:, 1].round(2)})
    table["area_px"], table["deficiency"] = paint.area_px, deficiency

    folder = task.folder / subject["label"].title() / name
    folder.mkdir(parents=True)
    stretch = []
    for column, protein in enumerate(settings.PROTEINS):
        counts, painted = paint.counts(protein, original[:, column], original[:, column], healthy[:, column])
        low, high = _limits(counts)  # a twin keeps its original's
        if drawn is not original:
            counts, painted = paint.counts(protein, drawn[:, column], original[:, column], healthy[:, column])
        table[protein] = painted.round(4)
        grey = np.clip((np.arange(256.0) - low) / (high - low) * 255, 0, 255).astype(np.uint8)[counts]
        tifffile.imwrite(folder / f"{protein}.tif", grey, compression="zlib")
        Image.fromarray(grey).save(folder / f"{protein}.jpg", quality=95)
        stretch.append({"section": name, "protein": protein, "low": low, "high": high})
    return table, stretch


def _geometry(task: _Task, shape: tuple[int, int]) -> geometry.Geometry:
    area, rng = task.subject["fibre_area_px"], _stream(task, "geometry")
    side = float(np.exp(area["log_mean"] / 2))
    step = max(2, int(side / 12))
    pad = 2 * int(side) // step * step
    tissue = geometry.draw_tissue(task.subject["tissue"], shape, step, pad, _stream(task, "tissue"))
    elongation = float(task.subject["aspect_ratio_median"])
    cells = geometry.pack_cells(
        tissue,
        step,
        log_mean=area["log_mean"] + 2 * np.log1p(BORDER),  # a cell is its fibre plus half of each gap
        log_sd=0.79 * area["log_sd"],  # relaxation adds the rest
        aspect=1.5 + 1.2 * max(elongation - 1.31, -0.3),
        turn=float(np.clip(0.6 - 1.2 * (elongation - 1.31), 0.1, 0.7)),
        rng=rng,
    )
    return geometry.grow(cells, tissue, step, pad, shape, fill=_fill(task.subject), rng=rng)


def _fill(subject: dict[str, Any]) -> float:
    """Share of the tissue that fibres cover.

    In P03 and P04, where mask or image show all fibres, it is 1.25 times the share of the measured fibres.
    """
    area, cell = subject["fibre_area_px"], subject["tissue_cell_px"]
    tissue = sum(row.count("#") for row in subject["tissue"]) * cell**2
    measured = subject["fibres_measured"] * np.exp(area["log_mean"] + area["log_sd"] ** 2 / 2) / tissue
    return float(np.clip(1.25 * measured, *FILL)) if measured else float(np.mean(FILL))


def _levels(task: _Task, centre_yx: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deficiency (N,), levels and normal levels (N, 10) of the fibres, in counts per pixel."""
    rng, n = _stream(task, "levels"), len(centre_yx)
    classes = task.subject["classes"]
    share = np.array([group["fraction"] for group in classes.values()])
    # Evenly spaced quantiles in random order: the class sizes differ from their expectation by less than one.
    quantile = rng.permutation((np.arange(n) + rng.random()) / max(n, 1))
    kind = _kind(share, quantile)
    deficiency = np.array(list(classes))[kind]

    deviate = rng.standard_normal((n, len(settings.PROTEINS)))
    for column in range(deviate.shape[1]):
        field = geometry.smooth_noise(shape, STAINING_PX, rng)
        slow = field[tuple(np.minimum(centre_yx.round().astype(int), np.array(shape) - 1).T)]
        slow = (slow - slow.mean()) / (slow.std() + 1e-6)
        deviate[:, column] = np.sqrt(1 - STAINING) * deviate[:, column] + np.sqrt(STAINING) * slow

    log_mean = np.array([group["log_mean"] for group in classes.values()])
    pooled = np.exp(np.average(log_mean, axis=0, weights=share))
    values, vectors = np.linalg.eigh(np.array(task.subject["log_cov"]))
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    scatter = deviate[:, : len(task.calibrated)] @ root * (pooled / (pooled - 1))  # d log(rate) = m / (m - 1) d log(m)

    level, healthy = np.empty((n, len(settings.PROTEINS))), np.empty((n, len(settings.PROTEINS)))
    for table, centre in (
        (level, _rate(log_mean)[kind]),
        (healthy, np.broadcast_to(_rate(task.normal), scatter.shape)),
    ):
        rate = dict(zip(task.calibrated, (centre * np.exp(scatter)).T, strict=True))
        rate["TOM22"] = 0.9 * rate[MASS_MARKER] * np.exp(0.15 * deviate[:, -2])
        rate["Dystrophin"] = MEMBRANE * np.exp(0.2 * deviate[:, -1])
        table[:] = np.clip(np.stack([rate[protein] for protein in settings.PROTEINS], axis=1), 0.01, GREATEST_RATE / 2)
    healthy[deficiency == "none"] = level[deficiency == "none"]
    if task.donor:
        deficiency, level = _afflicted(task, quantile, healthy)
    return deficiency, level, healthy


def _kind(share: np.ndarray, quantile: np.ndarray) -> np.ndarray:
    """Index of the class that each quantile falls into."""
    return np.minimum(np.searchsorted(np.cumsum(share / share.sum()), quantile), len(share) - 1)


def _afflicted(task: _Task, quantile: np.ndarray, healthy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deficiency (N,) and levels (N, 10) of a control's fibres under the classes of its donor."""
    classes = task.donor["classes"]
    kind = _kind(np.array([group["fraction"] for group in classes.values()]), quantile)
    rate = _rate([group["log_mean"] for group in classes.values()])
    ratio = pd.DataFrame(rate / _rate(classes["none"]["log_mean"]), columns=task.calibrated)
    ratio["TOM22"], ratio["Dystrophin"] = ratio[MASS_MARKER], 1.0
    level = healthy * ratio[list(settings.PROTEINS)].to_numpy()[kind]
    return np.array(list(classes))[kind], np.clip(level, 0.01, GREATEST_RATE / 2)


def _limits(counts: np.ndarray) -> tuple[int, int]:
    """5th and 95th percentile of the counts, at least one apart."""
    cumulative = np.bincount(counts.ravel(), minlength=256).cumsum() / counts.size
    low, high = (int(np.searchsorted(cumulative, q)) for q in (0.05, 0.95))
    return low, max(high, low + 1)


def _write_tables(folder: Path, subjects: list[dict], drawn: dict[str, tuple[pd.DataFrame, list[dict]]]) -> None:
    names = [subject["subject"] for subject in subjects]
    cohort = pd.DataFrame(subjects)[["subject", "label", "genotype"]]
    cohort.insert(0, "section", names)
    cohort.to_csv(folder / "cohort.csv", index=False)
    pd.concat([drawn[name][0] for name in names]).to_csv(folder / "truth" / "fibres.csv", index=False)
    stretch = [row for name in names for row in drawn[name][1]]
    pd.DataFrame(stretch).to_csv(folder / "truth" / "stretch.csv", index=False)
