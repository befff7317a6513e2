"""Fibres of a section, one by one: where they are, what they hold, and which are deficient.

What a mitochondrial laboratory does by hand: outline the fibres on the membrane marker, average each protein over a
fibre, and call a fibre deficient where a subunit of the chain is low *for its mitochondrial mass*, measured against
the fibres of controls (Rocha et al. 2015; Warren et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage as ndi
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import block_reduce, regionprops_table
from skimage.morphology import h_minima
from skimage.segmentation import watershed
from sklearn.linear_model import LogisticRegression

from mitolib import cohort, linear
from mitolib.cohort import Section
from mitolib.metrics import class_index
from mitolib.own_data import FIBRES, Data, LeftOut
from mitolib.progress import track

MASS = "VDAC1"
SUBUNITS = ("NDUFB8", "MTCO1")  # complex I, complex IV
OUTLINED = ("Dystrophin", MASS, *SUBUNITS)  # what fibres are outlined on, and what is measured in them
SHRINK = 2  # sections are outlined at half size: a membrane stays several px wide
SMOOTH_PX = 3.0
FIBRE_PX = 48.0  # width of a median fibre
DEPTH = 8.0  # grey levels by which a fibre's inside must lie below the membrane around it
LEAST_AREA_PX = 300  # of a fibre at full size; the median fibre has about 2,400
LEAST_FIBRES = 3  # of a control who may be the only one to set the line: two fix it, the third departs from it
Z_DEFICIENT = -3.0  # of the control fibres' line; the laboratory's z-score rule


def outline(dystrophin_yx: np.ndarray) -> np.ndarray:
    """(H, W) int32 labels of fibres, 0 for none: basins between the bright membranes, by watershed.

    dystrophin_yx: (H, W) grey, at half size. Muscle is where this very protein is, blurred over a fibre's width: it is
    the one that deficient fibres, pale fibres and bright ones hold alike, so the mask does not choose among them. Half
    of Otsu's threshold also lets a picture pass that muscle fills.
    """
    dystrophin_yx = dystrophin_yx.astype(np.float32)
    membrane_yx = gaussian(dystrophin_yx, SMOOTH_PX / SHRINK, preserve_range=True)
    muscle_yx = gaussian(dystrophin_yx, FIBRE_PX / (2 * SHRINK), preserve_range=True)
    cores = ndi.label(h_minima(membrane_yx, DEPTH))[0]
    basins_yx = watershed(membrane_yx, cores, mask=muscle_yx > threshold_otsu(muscle_yx) / 2)
    # By hand, since skimage's remove_small_objects warns where a section has a single fibre.
    sizes = np.bincount(basins_yx.ravel())
    kept = np.where(sizes >= LEAST_AREA_PX / SHRINK**2, np.arange(len(sizes)), 0)
    return kept[basins_yx].astype(np.int32)


def measure(sections: Sequence[Section]) -> pd.DataFrame:
    """One row per outlined fibre: section, subject, y, x (px), area_px and the mean grey of VDAC1, NDUFB8, MTCO1."""
    measured = [outlined(section)[1] for section in track(sections, "fibres", len(sections))]
    return pd.concat(measured, ignore_index=True)


def outlined(section: Section) -> tuple[np.ndarray, pd.DataFrame]:
    """(H/2, W/2) labels of one section's fibres, see `outline`, and their rows, see `measure`, by rising label."""
    dystrophin_yx, *proteins_yx = (
        block_reduce(section.image_yx(protein), SHRINK, np.mean).astype(np.float32) for protein in OUTLINED
    )
    label_yx = outline(dystrophin_yx)
    # In double precision: in single precision a mean over a fibre is rounded on its way.
    stack_yxc = np.stack(proteins_yx, axis=-1).astype(np.float64)
    names = ("centroid", "area", "intensity_mean")
    properties = regionprops_table(label_yx, stack_yxc, properties=names)
    fibres = pd.DataFrame(
        {
            "section": section.section,
            "subject": section.subject,
            "y": properties["centroid-0"] * SHRINK,
            "x": properties["centroid-1"] * SHRINK,
            "area_px": (properties["area"] * SHRINK**2).astype(int),
        }
    )
    for channel, protein in enumerate((MASS, *SUBUNITS)):
        fibres[protein] = properties[f"intensity_mean-{channel}"]
    return label_yx, fibres


def as_counts(fibres: pd.DataFrame, stretch: pd.DataFrame) -> pd.DataFrame:
    """The same fibres with their grey means turned back into counts per pixel.

    stretch: section, protein, low and high, the counts that became 0 and 255 (a phantom's truth/stretch.csv).
    """
    limits = stretch.set_index(["section", "protein"])
    counts = fibres.copy()
    for protein in (MASS, *SUBUNITS):
        low, high = (limits[end].xs(protein, level="protein")[fibres["section"]].to_numpy() for end in ("low", "high"))
        counts[protein] = low + fibres[protein] / 255 * (high - low)
    return counts


def below_controls(fibres: pd.DataFrame, controls: Sequence[str]) -> pd.DataFrame:
    """z of each fibre for NDUFB8 and MTCO1: residuals of log protein on log VDAC1, by the line of the control fibres.

    The line and the standard deviation of its residuals come from all fibres of `controls` pooled, as in the
    laboratory's own code (2Dmito). Values below 0.01 count as 0.01.
    """
    logs = np.log(fibres[[MASS, *SUBUNITS]].clip(lower=0.01))
    of_controls = fibres["subject"].isin(controls).to_numpy()
    z = {}
    for protein in SUBUNITS:
        slope, level = np.polyfit(logs.loc[of_controls, MASS], logs.loc[of_controls, protein], 1)
        residual = logs[protein] - level - slope * logs[MASS]
        z[protein] = residual / residual[of_controls].std()
    return pd.DataFrame(z)


def too_few(fibres: pd.DataFrame, people: pd.DataFrame) -> str:
    """Why the share of deficient fibres cannot be had of these people, for a page; "" if it can.

    fibres: as of `measure`. people: columns subject and label, a row each.
    """
    n_fibres = fibres["subject"].value_counts().reindex(people["subject"], fill_value=0)
    if without := list(n_fibres.index[n_fibres == 0]):
        return (
            f"No fibre was found in any section of {', '.join(without)}, so there is no fibre baseline. Look at the "
            "dystrophin pictures: a fibre is what lies between membranes that are brighter than its inside."
        )
    of_controls = n_fibres[(people["label"] == "control").to_numpy()]
    if short := [f"{subject} ({n})" for subject, n in of_controls.items() if n < LEAST_FIBRES]:
        return (
            f"Too few fibres were found in the sections of {', '.join(short)}: the line of the controls takes "
            f"{LEAST_FIBRES} of each, so there is no fibre baseline."
        )
    return ""


GREY_LEVELS = "outlined fibres, grey levels"


@dataclass(frozen=True)
class Fibres:
    """Fibres of a cohort, and how many of each person's are deficient.

    tables: by how they were measured. remark: how many were outlined, or why none were. shares: (people,) by subject,
    0 to 1; empty where they are not known. shares_from: what they rest on, as a clause.
    """

    tables: Mapping[str, pd.DataFrame]
    remark: str
    shares: pd.Series
    shares_from: str = ""


def fibres_of(data: Data, people: pd.DataFrame) -> Fibres:
    """Of a phantom its true fibres too, and shares from its truth; on other data shares by the line of all controls.

    people: columns subject and label, a row each.
    """
    truth = cohort.read_fibres(data.root) if data.is_phantom else None
    shares, shares_from = pd.Series(dtype=float), ""
    if truth is not None:
        whose = truth["section"].map({section.section: section.subject for section in data.sections})
        truth = truth.assign(subject=whose)
        shares = (truth["deficiency"] != "none").groupby(truth["subject"]).mean()
        shares_from = "as the phantom was drawn"
    if not data.has(FIBRES):
        return Fibres({}, str(LeftOut(f"{FIBRES}.")), shares, shares_from)
    outlined = measure(data.sections)
    if reason := too_few(outlined, people):
        return Fibres({}, reason, shares, shares_from)
    tables = {GREY_LEVELS: outlined}
    if truth is not None:
        stretch = pd.read_csv(data.root / "truth" / "stretch.csv")
        tables["outlined fibres, counts"] = as_counts(outlined, stretch)
        tables["true fibres, counts"] = truth
    else:
        subjects, labels = people["subject"].to_numpy(), class_index(people["label"])
        in_grey = DeficientShare(outlined, subjects, labels).shares(subjects[labels == 0])
        shares, shares_from = pd.Series(in_grey, index=subjects), "outlined in the pictures, against all controls"
    return Fibres(tables, f"{len(outlined)} fibres were outlined.", shares, shares_from)


@dataclass(frozen=True)
class DeficientShare:
    """Is this subject a patient? From the share of its fibres that are deficient, fitted on the training subjects.

    fibres: one row per fibre, with subject, VDAC1, NDUFB8 and MTCO1. subjects: (N,) names, and labels: (N,) class
    indices, of the rows that training and test are given by, one for each subject.
    """

    fibres: pd.DataFrame
    subjects: np.ndarray
    labels: np.ndarray

    def shares(self, controls: Sequence[str]) -> np.ndarray:
        """(N,) share of each subject's fibres with a z below -3 in either subunit, the line from `controls`."""
        if missing := sorted(set(self.subjects) - set(self.fibres["subject"])):
            raise ValueError(
                f"no fibre was found in any section of {', '.join(missing)}; wanted one at least. "
                "Look at the dystrophin pictures, and leave the subject out if no membrane can be seen."
            )
        deficient = (below_controls(self.fibres, controls) < Z_DEFICIENT).any(axis=1)
        return deficient.groupby(self.fibres["subject"]).mean()[self.subjects].to_numpy()

    def __call__(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """(len(test),) probability of "patient"."""
        evidence = np.log(self.shares(self.subjects[train][self.labels[train] == 0]) + 1e-3)[:, None]
        regression = linear.fitted(LogisticRegression(class_weight="balanced"), evidence[train], self.labels[train])
        return regression.predict_proba(evidence[test])[:, 1]
