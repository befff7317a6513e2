"""What is computed and kept of flat networks: each public function here is the fit of a unit (`mitolib.units`).

Each trains what it needs from a seed of its own, so that units can be computed in any order, on any machine.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mitolib import linear, patches
from mitolib.cohort import Section
from mitolib.own_data import LeftOut
from mitolib.prototypes import evidence, measures
from mitolib.prototypes.annotation import Annotation, Masks, drawn_subjects
from mitolib.prototypes.budget import Budget
from mitolib.prototypes.maps import Features, Maps
from mitolib.prototypes.network import ROOT, Architecture, PrototypeNetwork
from mitolib.prototypes.relevance import Propagation
from mitolib.prototypes.training import Schedule, Trained, activations, flat_targets, scores, train
from mitolib.prototypes.turned import with_turned_views
from mitolib.settings import LABELS
from mitolib.units import Result

# Of all units here. Raise it when one would come out otherwise: by architecture, cost, schedule, push or what is kept.
PROTOCOL = 1
CHAPTER = "prototypes"
TOP_SHARE = 0.046  # of the places of a map, that IAIA-BL averages over: 9 of 196
TREE = {ROOT: LABELS}
PLAIN, TOP_K, QUOTA = "ProtoPNet", "top-k", "quota"
ARMS = (PLAIN, TOP_K, QUOTA)  # at 7 x 7 places, under every split
NOISE = 5.0  # standard deviation, in grey levels
SHOWN_MAPS = 3  # prototypes of the example


@dataclass(frozen=True)
class Tools:
    """What other wings measure with, passed in by the chapter: `mitolib.saliency` of maps, `mitolib.people` of answers.

    cells: makes maps coarse. alike: SSIM and rank correlation of the i-th maps of two stacks. restore, over_fibres and
    causal_rank: what curing single fibres does, the mean of maps over them, and the rank correlation of the two. head:
    the paper's, see `people.Head`. propagation: makes a walk of relevance from a layer down to the pixels, see
    `saliency.relevance.from_layer`; left out, there are no maps of relevance.
    """

    score: Callable[..., pd.DataFrame]
    remove: Callable[..., pd.DataFrame]
    baselines: Callable[..., Mapping[str, np.ndarray]]
    cells: Callable[..., np.ndarray]
    alike: Callable[..., pd.DataFrame]
    restore: Callable[..., pd.DataFrame]
    over_fibres: Callable[..., np.ndarray]
    causal_rank: Callable[..., np.ndarray]
    summary: Callable[..., dict[str, Any]]
    difference: Callable[..., dict[str, Any]]
    head: Callable[..., Any]
    propagation: Propagation | LeftOut


@dataclass(frozen=True, eq=False)
class Study:
    """Patches of one experiment, their splits, and how networks are trained on them.

    folds: split -> 'train', 'test' or '' for each patch, fold by fold. shown: the split whose network is looked at.
    """

    features: Features
    folds: Mapping[str, Sequence[pd.Series]]
    shown: str
    sections: Sequence[Section]
    masks: Masks | None
    budget: Budget
    seed: int
    depends: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) class indices."""
        return np.array([LABELS.index(label) for label in self.features.table["label"]])

    @cached_property
    def annotation(self) -> Annotation:
        """Of all patches, at the maps of the network whose pictures are shown. Read once: sections are large."""
        return self.masks.annotation(self.table, self.budget.side)

    @property
    def table(self) -> pd.DataFrame:
        """A row for each patch."""
        return self.features.table

    def rows(self, split: str, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Training and test rows of a fold."""
        of_fold = self.folds[split][fold].to_numpy()
        return np.flatnonzero(of_fold == "train"), np.flatnonzero(of_fold == "test")

    def schedule(self, **changes: Any) -> Schedule:
        """The one of this profile."""
        return Schedule(cycles=self.budget.cycles, epochs=self.budget.epochs, **changes)

    def architecture(self, k: int = 1) -> Architecture:
        """The one of this profile."""
        return Architecture(depth=self.budget.depth, per_child=self.budget.per_child, k=k)

    def train(
        self,
        maps: Maps,
        rows: np.ndarray,
        *,
        seed: int,
        k: int = 1,
        annotation: Annotation | None = None,
        labels: np.ndarray | None = None,
        shown: np.ndarray | None = None,
        **changes: Any,
    ) -> Trained:
        """A flat network. labels: of the maps, where there are more than the study's. changes: of the schedule."""
        return train(
            maps,
            rows,
            flat_targets(self.labels if labels is None else labels),
            TREE,
            architecture=self.architecture(k),
            schedule=self.schedule(**changes),
            seed=seed,
            annotation=annotation,
            shown=shown,
        )

    def train_shown(self, seed: int) -> tuple[Maps, Trained]:
        """The network whose pictures are shown, and its maps."""
        maps = self.features.at(self.budget.side)
        return maps, self.train(maps, self.rows(self.shown, 0)[0], seed=seed)


def p_patient(network: PrototypeNetwork, found: np.ndarray) -> np.ndarray:
    """(N,) float32 probability of "patient", from (N, P) activations."""
    return softmax(scores(network, {ROOT: found})[ROOT], axis=1)[:, 1].astype(np.float32)


def of_split(study: Study, model: str, split: str, folds: Sequence[int], *, seed: int) -> Result:
    """A model in several folds. Arrays with an entry for each tested patch of a fold: fold, row, p; p_before, before
    the last push; p_free, after a push that may repeat places; top, the prototype that contributes most.

    sources: of each fold, a row for each prototype; duplicates: of the free push.
    """
    maps = study.features.pooled
    k = max(1, round(TOP_SHARE * maps.n_places)) if model == TOP_K else 1
    parts, sources, duplicates = [], [], []
    for fold in folds:
        trains, tests = study.rows(split, fold)
        found = study.train(maps, trains, seed=seed, k=k, quota=model == QUOTA)
        of_tests = activations(found.network, maps, tests)[ROOT]
        p = p_patient(found.network, of_tests)
        weights = found.network.node().weights.numpy()
        top = measures.contributions(of_tests, weights, (p > 0.5).astype(int)).argmax(axis=1)
        others = {
            name: p_patient(network, activations(network, maps, tests)[ROOT])
            for name, network in (("p_before", found.before), ("p_free", found.free))
        }
        parts.append(pd.DataFrame({"fold": fold, "row": tests, "p": p, "top": top} | others))
        sources.append(described(found.pushed.sources, maps).to_dict("records"))
        duplicates.append(found.pushed_freely.duplicates)
    kinds = {"fold": np.int16, "row": np.int32, "top": np.int16}
    table = pd.concat(parts, ignore_index=True).astype(kinds)
    return {name: table[name].to_numpy() for name in table} | {"sources": sources, "duplicates": duplicates}


def described(sources: pd.DataFrame, maps: Maps) -> pd.DataFrame:
    """With the corner of the patch that each prototype comes from."""
    patch = maps.table.iloc[sources["row"]]
    return sources.assign(patch_y=patch["y"].to_numpy(), patch_x=patch["x"].to_numpy())


def logistic(study: Study, split: str) -> Result:
    """Logistic regression on the mean of each channel, as plain as it gets: fold, row and p as of `of_split`."""
    pooled = study.features.pooled.values.astype(np.float32).mean(axis=1)
    parts = []
    for fold in range(len(study.folds[split])):
        trains, tests = study.rows(split, fold)
        p = _regression(pooled[trains], study.labels[trains]).predict_proba(pooled[tests])[:, 1]
        parts.append(pd.DataFrame({"fold": np.int16(fold), "row": tests.astype(np.int32), "p": p.astype(np.float32)}))
    table = pd.concat(parts, ignore_index=True)
    return {name: table[name].to_numpy() for name in table}


def _regression(features: np.ndarray, labels: np.ndarray) -> Pipeline:
    regression = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
    return linear.fitted(make_pipeline(StandardScaler(), regression), features, labels)


def paper_head(study: Study, split: str, fold: int, head: Callable[..., Any], *, seed: int) -> Result:
    """The paper's head on the same maps. head: makes a model of maps (N, 7, 7, C) and labels, see `people.Head`."""
    maps = study.features.pooled
    trains, tests = study.rows(split, fold)
    model = head(
        maps.values.reshape(len(study.labels), maps.side, maps.side, -1),
        study.labels,
        steps=study.budget.head_steps,
        seed=seed,
    )
    p = np.asarray(model(trains, tests), np.float32)
    return {"fold": np.full(len(tests), fold, np.int16), "row": tests.astype(np.int32), "p": p}


def shown_network(study: Study, seed: int) -> Result:
    """The network whose pictures are shown: what it makes of the test patches, and where its prototypes come from.

    activations: (tests, P); weights: (classes, P); p, p_before, p_free: (tests,); nearest: a row for each of the ten
    nearest distinct places of a prototype; example: a test patch of a patient, drawn, with its similarity maps.
    trained_greatest: of each training patch the greatest activation of its own class. pruned: see `measures.pruned`.
    """
    maps, found = study.train_shown(seed)
    trains, tests = study.rows(study.shown, 0)
    network, node = found.network, found.network.node()
    of_tests = activations(network, maps, tests)[ROOT]
    of_trains = activations(network, maps, trains)[ROOT]
    owners = node.owners.numpy()
    own = np.where(study.labels[trains][:, None] == owners, of_trains, -np.inf).max(axis=1)
    similar = evidence.similarity_maps(network, maps, tests)
    rng = np.random.default_rng(study.seed)
    patients = np.flatnonzero(study.labels[tests] == 1)
    example = int(rng.permutation(patients)[0])
    order = np.argsort(-of_trains, axis=0).T
    before, free = (p_patient(other, activations(other, maps, tests)[ROOT]) for other in (found.before, found.free))
    return {
        "activations": of_tests.astype(np.float32),
        "weights_of_classes": node.weights.numpy().copy(),
        "p": p_patient(network, of_tests),
        "p_before": before,
        "p_free": free,
        "sources": described(found.pushed.sources, maps).to_dict("records"),
        "duplicates": found.pushed_freely.duplicates,
        "pruned": measures.pruned(order, study.labels[trains], owners),
        "nearest": _nearest(similar, maps, tests, rng),
        "example": example,
        "example_maps": similar[example].astype(np.float16),
        "trained_greatest": own.astype(np.float32),
        "loss": [float(value) for value in found.loss],
    }


def _nearest(similar: np.ndarray, maps: Maps, rows: np.ndarray, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Of each prototype its nearest distinct places, each beside a place of the same patch that is drawn at random."""
    centres = maps.centres_px(rows).reshape(-1, 2)
    found = []
    for prototype, places in enumerate(measures.nearest_places(similar, maps, rows)):
        for place in places:
            patch = maps.table.iloc[rows[place // maps.n_places]]
            y_px, x_px = (float(value) for value in centres[place])
            at_random = place - place % maps.n_places + rng.integers(maps.n_places)
            random_y_px, random_x_px = (float(value) for value in centres[at_random])
            names = {name: str(patch[name]) for name in ("subject", "label", "section")}
            found.append(
                {"prototype": prototype, **names, "y_px": y_px, "x_px": x_px}
                | {"random_y_px": random_y_px, "random_x_px": random_x_px}
            )
    return found


def explained(study: Study, tools: Tools, held_out: Any, *, seed: int) -> Result:
    """Maps for "patient" of the shown network on held-out patches, held against truth and against the network.

    held_out: see `saliency.held_out_patches`. methods: names; localisation: (methods, N, scores), where there is truth;
    removal: (methods, altered, scores), less that of random numbers of the same resolution; none where none is altered.
    """
    maps, found = study.train_shown(seed)
    network, rows = found.network, held_out.rows.index.to_numpy()
    rng = np.random.default_rng(study.seed)
    similar = evidence.similarity_maps(network, maps, rows)
    stacks = evidence.of_prototypes(network, similar)
    arrived = []
    if walk := study.features.walk(tools.propagation):
        stacks["PRP"], arrived = evidence.relevance_maps(network, maps, rows, similar, held_out.patches_nhwc, walk)
    stacks["Grad-CAM"] = evidence.grad_cam(network, maps, rows)
    stacks["logistic CAM"] = _logistic_cam(study, maps, rows)
    stacks |= tools.baselines(held_out.patches_nhwc, held_out.ndufb8_vdac1, rng=rng)
    result: dict[str, Any] = {"methods": list(stacks), "prp_arrived": [float(share) for share in arrived]}
    if held_out.has_truth:
        # Drawn once, whether the greatest random number lies inside would itself be chance: a constant map scores that.
        scored = {name: np.ones_like(stack) if name == "random" else stack for name, stack in stacks.items()}
        tables = [tools.score(stack, held_out.masks_nyx) for stack in scored.values()]
        result["scores"] = list(tables[0].columns)
        result["localisation"] = np.stack([table.to_numpy(np.float32) for table in tables])
    if study.budget.altered:
        result |= _removal(study, tools, network, held_out, stacks, rng)
    return result


def _removal(
    study: Study,
    tools: Tools,
    network: PrototypeNetwork,
    held_out: Any,
    stacks: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """removal and removal_scores, their names: what the network says when the highest cells of each map are removed."""
    altered = held_out.first(study.budget.altered)
    log_odds = evidence.log_odds(network, study.features, study.budget.side)

    def removed(stack: np.ndarray) -> pd.DataFrame:
        noise = np.random.default_rng([study.seed, 1])  # each map meets the same
        chosen = stack[: len(altered)]
        return tools.remove(log_odds, altered.patches_nhwc, chosen, shares=study.budget.shares, rng=noise)

    sizes_px = sorted({stack.shape[1] for stack in stacks.values()})
    at_random = {size_px: removed(rng.random((len(altered), size_px, size_px))) for size_px in sizes_px}
    less_random = [(removed(stack) - at_random[stack.shape[1]]).to_numpy(np.float32) for stack in stacks.values()]
    return {"removal": np.stack(less_random), "removal_scores": list(at_random[sizes_px[0]].columns)}


def _logistic_cam(study: Study, maps: Maps, rows: np.ndarray) -> np.ndarray:
    """(N, side, side) class activation map of a logistic regression on the mean of each channel of the same maps."""
    trains = study.rows(study.shown, 0)[0]
    pooled = np.concatenate([maps.batch([row]).numpy().mean(axis=1) for row in trains])
    model = _regression(pooled, study.labels[trains])
    weights = model[-1].coef_[0] / model[0].scale_
    return (maps.batch(rows).numpy() @ weights).clip(min=0).reshape(len(rows), maps.side, maps.side)


def fine(
    study: Study, tools: Tools, *, k: int, annotated: float, fold: int, split: str, seed: int, turned: bool = False
) -> Result:
    """A network trained with the masks of a share of the training people, tested on people not seen.

    turned: it trains on turned views too, of as many patches as the budget says, see `turned.with_turned_views`.

    fold, row, p: of the tested patches. Of those with something to point at (mask_row): precision, of the prototypes of
    "patient", their mean; of_map, of the map of all evidence; chance, the share of the patch that is marked.
    annotated_subjects: names.
    """
    maps = study.features.at(study.budget.side)
    trains, tests = study.rows(split, fold)
    chosen = drawn_subjects(study.table.iloc[trains], annotated, seed=seed)
    annotation = study.annotation.among(study.table["subject"], chosen)
    if turned:
        some = trains if study.budget.turned is None else trains[:: max(1, len(trains) // study.budget.turned)]
        both, annotation, labels = with_turned_views(study, maps, annotation, some, seed=seed)
        rows = np.concatenate([trains, np.arange(len(maps.table), len(labels))])
        found = study.train(both, rows, seed=seed, k=k, annotation=annotation, labels=labels, shown=trains)
    else:
        found = study.train(maps, trains, seed=seed, k=k, annotation=annotation if chosen else None)
    of_tests = activations(found.network, maps, tests)[ROOT]
    masks = evidence.masks_of(study.masks, study.table, tests)
    marked = np.flatnonzero(masks.any(axis=(1, 2)) & (study.labels[tests] == 1))
    result: dict[str, Any] = {
        "fold": np.full(len(tests), fold, np.int16),
        "row": tests.astype(np.int32),
        "p": p_patient(found.network, of_tests),
        "annotated_subjects": chosen,
        "mask_row": tests[marked].astype(np.int32),
    }
    if len(marked):
        similar = evidence.similarity_maps(found.network, maps, tests[marked])
        of_patient = found.network.node().owners.numpy() == 1
        precise = evidence.activation_precision(similar[..., of_patient], masks[marked], tools.score)
        of_map = tools.score(evidence.of_prototypes(found.network, similar)["prototypes"], masks[marked])["top5"]
        result |= {
            "precision": precise.mean(axis=1).astype(np.float32),
            "of_map": of_map.to_numpy(np.float32),
            "chance": masks[marked].mean(axis=(1, 2)).astype(np.float32),
        }
    return result


def copies(study: Study, *, seed: int) -> Result:
    """What JPEG copies and noise do to the shown network on its test patches, `rows`; names: of the copies.

    change: (copies, P) mean absolute change of an activation over its standard deviation between patches; flips:
    (copies,) share of answers that change; stays: (copies, P) share of best places that stay.
    """
    maps, found = study.train_shown(seed)
    network, tests = found.network, study.rows(study.shown, 0)[1]
    if study.budget.explained is not None:
        tests = tests[: study.budget.explained]
    rng = np.random.default_rng(study.seed)
    pixels = np.asarray(study.features.pixels_nhwc[tests])
    altered = {f"JPEG {quality}": jpeg_copies(study, tests, quality) for quality in (95, *study.budget.qualities)}
    altered["noise"] = (pixels + rng.normal(0, NOISE, pixels.shape)).clip(0, 255).astype(np.uint8)
    plain = evidence.similarity_maps(network, study.features.of_pictures(pixels, maps.side), np.arange(len(tests)))
    greatest = plain.max(axis=1)
    spread = np.maximum(greatest.std(axis=0), 1e-6)
    changes, flips, stays = [], [], []
    for copies_nhwc in altered.values():
        of_copy = study.features.of_pictures(copies_nhwc, maps.side)
        similar = evidence.similarity_maps(network, of_copy, np.arange(len(tests)))
        changes.append(np.abs(similar.max(axis=1) - greatest).mean(axis=0) / spread)
        flips.append(((p_patient(network, similar.max(axis=1)) > 0.5) != (p_patient(network, greatest) > 0.5)).mean())
        stays.append((similar.argmax(axis=1) == plain.argmax(axis=1)).mean(axis=0))
    return {
        "names": list(altered),
        "change": np.array(changes, np.float32),
        "flips": np.array(flips, np.float32),
        "stays": np.array(stays, np.float32),
        "rows": tests.astype(np.int32),
    }


def jpeg_copies(study: Study, rows: np.ndarray, quality: int) -> np.ndarray:
    """(len(rows), 224, 224, C) uint8: the patches cut at the size of the section, through a JPEG, and made small."""
    table, experiment = study.table, study.features.experiment
    size_px = study.features.pixels_nhwc.shape[1]
    found = np.empty((len(rows), size_px, size_px, len(experiment.proteins)), np.uint8)
    for section in study.sections:
        here = np.flatnonzero(table["section"].iloc[rows] == section.section)
        for channel, protein in enumerate(experiment.proteins if len(here) else ()):
            cut = patches.cut(section.stack_yxc([protein]), table.iloc[rows[here]], stride_px=experiment.stride_px)
            for i, patch_yxc in zip(here, cut, strict=True):
                file = io.BytesIO()
                Image.fromarray(patch_yxc[..., 0]).save(file, "jpeg", quality=quality)
                copy_yx = np.asarray(Image.open(file))
                found[i, ..., channel] = patches.resize(copy_yx[..., None], size_px)[..., 0]
    return found


def masks_digest(root: Path) -> str:
    """SHA-256 of the files that masks are read from: truth or a reader's folder."""
    import hashlib

    total = hashlib.sha256()
    for path in sorted(path for path in root.iterdir() if path.is_file()):
        total.update(path.name.encode())
        total.update(path.read_bytes())
    return total.hexdigest()
