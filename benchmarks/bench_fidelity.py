"""Does the bank cost accuracy?

    python benchmarks/bench_fidelity.py        (or `make bench`)

Claim 1. A head trained on a bank of as many views as the paper profile has, each read again and again, is as good on
the test patches as one that sees a new augmentation at every epoch. A reduced set: patches of a phantom of half the
published length and width. Five seeds of initial weights, dropout and batches; both ways with each seed, so the
difference is paired. Its 95 % interval is Student's t. If the whole interval lies below zero, the bank costs accuracy,
and more views are tried.

A new augmentation at every epoch is a bank with as many views as there are epochs: the same draws as `views=0`, which
does not keep them and so needs five times the forward passes for five seeds (ONLINE = 0 does that). Fewer views
are the first of these, so the augmentation itself is drawn once, and the interval is over seeds of training.

Claim 2. Keeping features as float16 costs nothing: heads trained and tested on plain features from the bank against
float32 features kept in memory, same seeds.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
from scipy import stats
from timing import load_average

from mitolib import bank, cohort, heads, metrics, networks, patches, settings, splits, weights
from mitolib.phantom import draw

PROTEIN, STRIDE_PX, SCALE = "SDHA", 224, 0.5
TRAIN, VALIDATION = 120, 24  # of the 229 patches; the rest is for testing
EPOCHS, BATCH = 24, 8  # more epochs than views, or no view would be read twice
SEEDS, VIEWS = range(5), settings.PROFILES["paper"].views
ONLINE = EPOCHS  # or 0
OTHER_VIEWS = (2 * VIEWS, 4 * VIEWS)  # tried only if these cost accuracy


@dataclass(frozen=True)
class Trial:
    """What all heads have in common: patches, classes, split, network."""

    pixels_nhwc: np.ndarray
    truth: np.ndarray
    rows: dict[str, np.ndarray]  # train, validation, test -> row numbers
    arrays: tuple[np.ndarray, ...] | None
    backbone: keras.Model

    def accuracy(self, train: bank.Source, features_nhwc: np.ndarray, seed: int) -> float:
        """On the test patches, of a head trained on `train`; features_nhwc: of all patches, not augmented."""
        keras.utils.set_random_seed(seed)
        _, head = networks.divide(networks.build("VGG16", arrays=self.arrays))
        heads.fit(
            head,
            train,
            self.truth[self.rows["train"]],
            features_nhwc[self.rows["validation"]],
            self.truth[self.rows["validation"]],
            profile=replace(settings.PROFILES["quick"], epochs=EPOCHS, patience=EPOCHS, batch_size=BATCH),
            rng=np.random.default_rng(seed),
            label=f"seed {seed}",
        )
        p_patient = heads.p_patient(head, features_nhwc[self.rows["test"]])
        return metrics.scores(self.truth[self.rows["test"]], (p_patient > 0.5).astype(int))["accuracy"]

    def augmented(self, views: int, plain_nhwc: np.ndarray) -> np.ndarray:
        """(seeds,) accuracies with so many views of each training patch, or with a new one at each call (0)."""
        quick = settings.PROFILES["quick"]
        train = bank.source(
            self.backbone,
            self.pixels_nhwc,
            rows=self.rows["train"],
            augment=partial(patches.augment, zoom=quick.zoom),
            prepare=patches.as_input,
            views=views,
            seed=quick.seed,
            label=f"{views} views",
        )
        return np.array([self.accuracy(train, plain_nhwc, seed) for seed in SEEDS])

    def plain(self, features_nhwc: np.ndarray) -> np.ndarray:
        """(seeds,) accuracies of heads trained without augmentation on an array in memory."""
        train_nhwc = features_nhwc[self.rows["train"]]
        return np.array([self.accuracy(lambda epoch, few: train_nhwc[few], features_nhwc, seed) for seed in SEEDS])


def prepare(folder: Path) -> Trial:
    """The patches of a phantom drawn into `folder`, a random split of them, and VGG16."""
    sections = cohort.read_cohort(draw.make_phantom(folder, scale=SCALE), [PROTEIN])
    table = patches.grid(sections, stride_px=STRIDE_PX)
    shuffled = np.random.default_rng(settings.PROFILES["quick"].seed).permutation(len(table))
    rows = dict(zip(splits.SETS, np.split(shuffled, [TRAIN, TRAIN + VALIDATION]), strict=True))
    arrays = weights.resolve("VGG16").arrays
    backbone, _ = networks.divide(networks.build("VGG16", arrays=arrays))
    pixels_nhwc = patches.load(table, sections, [PROTEIN], stride_px=STRIDE_PX)
    return Trial(pixels_nhwc, metrics.class_index(table["label"]), rows, arrays, backbone)


def in_float32(trial: Trial) -> np.ndarray:
    """(N, h, w, c) float32 of all patches, computed as the bank computes them and never rounded."""
    forward = bank.compiled(trial.backbone)
    starts = range(0, len(trial.pixels_nhwc), bank.BATCH)
    batches = [np.asarray(trial.pixels_nhwc[start : start + bank.BATCH]) for start in starts]
    return np.concatenate([forward(patches.as_input(batch)) for batch in batches])


def compare(claim: str, ours: np.ndarray, reference: np.ndarray) -> bool:
    """Print the paired difference with its 95 % interval; True if all of that lies below zero."""
    difference = ours - reference
    half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
    low, high = difference.mean() - half, difference.mean() + half
    print(
        f"{claim}: accuracy {ours.mean():.3f} (SD {ours.std(ddof=1):.3f}) against {reference.mean():.3f} "
        f"(SD {reference.std(ddof=1):.3f}), difference {difference.mean():+.3f}, 95 % {low:+.3f} to {high:+.3f}",
        flush=True,
    )
    return high < 0


def main() -> None:
    """Both claims, in a folder of banks that goes at the end."""
    print(load_average())
    with tempfile.TemporaryDirectory() as folder:
        bank.FOLDER = Path(folder) / "cache"
        trial = prepare(Path(folder) / "phantom")
        sizes = ", ".join(f"{len(rows)} {name}" for name, rows in trial.rows.items())
        baseline = metrics.majority_baseline(trial.truth[trial.rows["test"]])
        print(f"patches: {sizes}; always the commoner class is right on {baseline:.3f} of the test patches")

        float16 = bank.Bank(trial.backbone, trial.pixels_nhwc, prepare=patches.as_input, label="plain").all()
        compare("claim 2: float16 against float32", trial.plain(float16), trial.plain(in_float32(trial)))

        online = trial.augmented(ONLINE, float16)
        if compare(f"claim 1: {VIEWS} views against online", trial.augmented(VIEWS, float16), online):
            for views in OTHER_VIEWS:
                compare(f"         {views} views against online", trial.augmented(views, float16), online)


if __name__ == "__main__":
    main()
