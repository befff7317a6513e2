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

C04 was never measured: its levels were drawn once, as `between_people` says. It is no measured control.

Cured twin. Same geometry, texture and noise, but every deficient fibre has normal levels of its own subject: the same
latent deviate around the mean of class "none". Subjects without a normal fibre (P01, P02) get as normal their own VDAC1
and, for the other proteins, the measured controls' mean log-ratio to VDAC1. Counts outside the deficient fibres are the
same. The pictures are not, since a laboratory stretches what it sees: each is stretched by its own percentiles.

Afflicted twin. The reverse, with the controls: geometry, texture, noise and normal levels of the control, and a
patient's deficiency laid over them: the patient's classes in their shares, each fibre's levels multiplied by the ratio
that the patient's deficient fibres bear to its normal ones.

A twin's altered sections are also written in the stretch of their originals (`in_original_stretch`). There pixels
outside the deficient fibres are the same, byte for byte, so that single fibres can be pasted into the original.

The same bytes on every processor: the arithmetic is that of `exact`.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
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
from mitolib.cohort import Section, read_cohort
from mitolib.phantom import exact, geometry
from mitolib.phantom.calibration import MASS_MARKER, PhantomError, donors_among, is_measured_control, read_calibration
from mitolib.phantom.pixels import GREATEST_RATE, Stain, quantiles
from mitolib.progress import track

RECIPE_VERSION = 3  # raise it whenever the same seed gives other bytes
LEAST_SIDE_PX = 768  # a section keeps a grid of several 512 px patches at any scale
STAINING = 0.25  # share of the fibres' variance that varies slowly over the section
STAINING_PX = 600.0
MEMBRANE = 9.0  # dystrophin counts at the membrane, median fibre
BORDER = 0.11  # by which a cell is wider than its fibre
FILL = (0.65, 0.83)  # share of the tissue that is fibre: torn and intact sections
MOST_WORKERS = 4
ORIGINAL_STRETCH = Path("truth", "original-stretch")  # below a twin


@dataclass(frozen=True)
class _Task:
    """One section to draw."""

    subject: dict[str, Any]
    calibrated: tuple[str, ...]  # order of the columns of log_mean and log_cov
    normal: np.ndarray  # levels, in counts per pixel, that are normal for this subject
    donor: dict[str, Any] | None  # the patient whose deficiency this control is given
    seed: int
    scale: float
    cured: bool
    folder: Path

    @property
    def is_twin(self) -> bool:
        """Whether this section has another deficiency than its original."""
        return self.donor is not None or (self.cured and self.subject["label"] == "patient")

    @property
    def place(self) -> Path:
        """Where the pictures lie, below the phantom's folder."""
        return Path(self.subject["label"].title(), self.subject["subject"])


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

    The same seed gives the same bytes (with the same packages), on every processor, however many threads draw.
    scale: linear size of the sections (0 < scale <= 1); fibres keep their size in px, so there are fewer of them.
    cured: draw the twin in which every deficient fibre has normal levels.
    afflicted: draw the twin in which every control has the deficiency of a patient (`donors`).
    workers: threads; by default one per core, at most 4 (each needs about 1 GB at scale 1).

    Writes `<Label>/<subject>/<protein>.tif` and `.jpg` (8 bit), `cohort.csv`, `truth/<section>.tif` (uint16 fibre
    labels), `truth/fibres.csv`, `truth/stretch.csv`, of a twin the pictures of `in_original_stretch` and, last,
    `recipe.json`. All appear at once: a run that is killed leaves at most a folder beside `root`, which the next run
    removes (`files.whole`).

    Raises PhantomError for a bad scale or calibration, a calibration without a patient to afflict controls with, or a
    folder that holds something else.
    """
    root = Path(root).absolute()
    if not 0 < scale <= 1:
        raise PhantomError(f"scale={scale} is not in (0, 1]. Use 1 for the published sizes, 0.1 for a quick look.")
    cohort, digest = read_calibration(Path(calibration))
    recipe = {
        "version": RECIPE_VERSION,
        "seed": int(seed),
        "scale": float(scale),
        "cured": bool(cured),
        "calibration_sha256": digest,
        "files": 2 * len(settings.PROTEINS) * len(cohort["subjects"]),
    } | ({"afflicted": True} if afflicted else {})  # phantoms drawn before there was this twin have no such entry
    donor_of = donors_among(cohort["subjects"]) if afflicted else {}
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
            drawn = _draw_all(tasks, workers or min(cores(), MOST_WORKERS))
            _write_tables(draft, tasks, drawn)
            (draft / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        if not _is_there(root, recipe):  # else another process was faster, and has drawn the same
            raise PhantomError(
                f"{root}: cannot be written ({error.strerror or error}). Choose a folder that can be written, or free "
                "the disk."
            ) from error
    return root


def in_original_stretch(twin: str | os.PathLike[str]) -> Path:
    """Folder of a twin's altered sections in the stretch of their originals: a cohort of TIFFs, without JPEGs.

    A pixel outside the deficient fibres is there what it is in the original, so that single fibres can be compared and
    pasted. No laboratory would stretch the twin like that: classify the twin's own pictures.
    twin: folder of a twin that `make_phantom` has drawn. Raises PhantomError where there are no such pictures.
    """
    folder = Path(twin) / ORIGINAL_STRETCH
    if not folder.is_dir():
        raise PhantomError(
            f"{folder}: not found, wanted pictures of a twin. Draw one with make_phantom(..., cured=True), and "
            "give the folder that it returns."
        )
    return folder


def cured_twins(root: Path, *, scale: float, proteins: Sequence[str]) -> list[Section]:
    """The sections of patients with every deficient fibre cured, in the stretch of the sick ones.

    root: of the phantom, of this scale; the twin lies beside it, and is drawn where it is not there yet.
    """
    twin = root.with_name(f"{root.name}-cured")
    return read_cohort(in_original_stretch(make_phantom(twin, scale=scale, cured=True)), proteins)


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


def cores() -> int:
    """Processor cores that this process may use."""
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
    if "normal_log_mean" in subject:
        normal = _rate(subject["normal_log_mean"])
    elif "none" in subject["classes"]:
        normal = _rate(subject["classes"]["none"]["log_mean"])
    else:  # the controls' ratio to the mass marker, on this subject's own mass
        mass = proteins.index(MASS_MARKER)
        controls = [other for other in cohort["subjects"] if is_measured_control(other)]
        rates = exact.log(_rate([control["classes"]["none"]["log_mean"] for control in controls]))
        ratio = (rates - rates[:, [mass]]).mean(axis=0)
        shares = [group["fraction"] for group in subject["classes"].values()]
        own_mass = np.average([group["log_mean"][mass] for group in subject["classes"].values()], weights=shares)
        normal = _rate(own_mass) * exact.exp(ratio).astype(float)
    return _Task(subject, tuple(proteins), normal, donor, seed, scale, cured, folder)


def _rate(log_mean: Any) -> np.ndarray:
    """Mean count of a tabulated log mean; the table holds counts + 1."""
    return np.maximum(exact.exp(np.asarray(log_mean, float)).astype(float) - 1, 0.01)


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
            names = track(futures, "phantom", len(futures)) if len(futures) > 1 else futures
            return {name: futures[name].result() for name in names}
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

    folder, beside = task.folder / task.place, task.folder / ORIGINAL_STRETCH / task.place
    for pictures in (folder, beside) if task.is_twin else (folder,):
        pictures.mkdir(parents=True)
    stretch = []
    for column, protein in enumerate(settings.PROTEINS):
        uncured, normal = original[:, column], healthy[:, column]
        counts, painted = paint.counts(protein, drawn[:, column], uncured, normal)
        low, high = _limits(counts)
        grey = _stretched(counts, low, high)
        tifffile.imwrite(folder / f"{protein}.tif", grey, compression="zlib")
        Image.fromarray(grey).save(folder / f"{protein}.jpg", quality=95)
        if task.is_twin:
            limits = _limits(paint.counts(protein, uncured, uncured, normal)[0])
            tifffile.imwrite(beside / f"{protein}.tif", _stretched(counts, *limits), compression="zlib")
        table[protein] = painted.round(4)
        stretch.append({"section": name, "protein": protein, "low": low, "high": high})
    return table, stretch


def _geometry(task: _Task, shape: tuple[int, int]) -> geometry.Geometry:
    area, rng = task.subject["fibre_area_px"], _stream(task, "geometry")
    side = float(exact.exp(area["log_mean"] / 2))
    step = max(2, int(side / 12))
    pad = 2 * int(side) // step * step
    tissue = geometry.draw_tissue(task.subject["tissue"], shape, step, pad, _stream(task, "tissue"))
    elongation = float(task.subject["aspect_ratio_median"])
    cells = geometry.pack_cells(
        tissue,
        step,
        log_mean=area["log_mean"] + 2 * float(exact.log(1 + BORDER)),  # a cell is its fibre plus half of each gap
        log_sd=0.79 * area["log_sd"],  # relaxation adds the rest
        aspect=1.5 + 1.2 * max(elongation - 1.31, -0.3),
        turn=float(np.clip(0.6 - 1.2 * (elongation - 1.31), 0.1, 0.7)),
        rng=rng,
    )
    return geometry.grow(cells, tissue, step, pad, shape, fill=_fill(task.subject), rng=rng)


def _fill(subject: dict[str, Any]) -> float:
    """Share of the tissue that fibres cover.

    Of new people it was drawn with them (`new_people`). In P03 and P04, where mask or image show all fibres, it is 1.25
    times the share of the measured fibres.
    """
    if "fill" in subject:
        return float(subject["fill"])
    area, cell = subject["fibre_area_px"], subject["tissue_cell_px"]
    tissue = sum(row.count("#") for row in subject["tissue"]) * cell**2
    measured = subject["fibres_measured"] * float(exact.exp(area["log_mean"] + area["log_sd"] ** 2 / 2)) / tissue
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

    deviate = exact.normal(rng, (n, len(settings.PROTEINS))).astype(float)
    for column in range(deviate.shape[1]):
        field = geometry.smooth_noise(shape, STAINING_PX, rng)
        slow = field[tuple(np.minimum(centre_yx.round().astype(int), np.array(shape) - 1).T)].astype(float)
        staining = np.sqrt(STAINING) * exact.standardised(slow)
        deviate[:, column] = np.sqrt(1 - STAINING) * deviate[:, column] + staining

    log_mean = np.array([group["log_mean"] for group in classes.values()])
    pooled = exact.exp(np.average(log_mean, axis=0, weights=share)).astype(float)
    scatter = exact.correlated(deviate[:, : len(task.calibrated)], task.subject["log_cov"])
    scatter *= pooled / (pooled - 1)  # d log(rate) = m / (m - 1) d log(m)

    level, healthy = np.empty((n, len(settings.PROTEINS))), np.empty((n, len(settings.PROTEINS)))
    for table, centre in (
        (level, _rate(log_mean)[kind]),
        (healthy, np.broadcast_to(task.normal, scatter.shape)),
    ):
        rate = dict(zip(task.calibrated, (centre * exact.exp(scatter)).T, strict=True))
        rate["TOM22"] = 0.9 * rate[MASS_MARKER] * exact.exp(0.15 * deviate[:, -2])
        rate["Dystrophin"] = MEMBRANE * exact.exp(0.2 * deviate[:, -1])
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


def _stretched(counts: np.ndarray, low: int, high: int) -> np.ndarray:
    """uint8: counts from `low` to `high` as grey from 0 to 255."""
    return np.clip((np.arange(256.0) - low) / (high - low) * 255, 0, 255).astype(np.uint8)[counts]


def _write_tables(folder: Path, tasks: list[_Task], drawn: dict[str, tuple[pd.DataFrame, list[dict]]]) -> None:
    cohort = pd.DataFrame([task.subject for task in tasks])[["subject", "label", "genotype"]]
    cohort.insert(0, "section", cohort["subject"])
    cohort.to_csv(folder / "cohort.csv", index=False)
    twins = cohort[[task.is_twin for task in tasks]]
    if len(twins):
        twins.to_csv(folder / ORIGINAL_STRETCH / "cohort.csv", index=False)
    pd.concat([drawn[name][0] for name in cohort["section"]]).to_csv(folder / "truth" / "fibres.csv", index=False)
    stretch = [row for name in cohort["section"] for row in drawn[name][1]]
    pd.DataFrame(stretch).to_csv(folder / "truth" / "stretch.csv", index=False)
