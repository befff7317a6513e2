"""Is a brief training a matter of luck?

    python benchmarks/bench_brief_heads.py        (or `make bench`; the first time it draws the phantom at full size)

Claim. Where a head is trained briefly, as at the start of the curve in `patient_level`, batches of equal parts of both
classes give it much the same score with every seed. Batches drawn as they come, three patches of a patient to one of a
control, leave some seeds at one answer for all: balanced accuracy 0.5. Published split of experiment 1, VGG16 on SDHA;
then also batches as they come that are eight times as large, half as many, at half the rate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from timing import load_average

from mitolib import bank, cohort, metrics, networks, patches, people, settings, splits, weights
from mitolib.phantom import draw

PROTEIN, STRIDE_PX = "SDHA", 224
SEEDS = range(127, 132)
STEPS = 150  # the shortest training of the curve in patient_level


@dataclass(frozen=True)
class AsTheyCome(people.Head):
    """The same head, on shuffled batches of whatever classes."""

    def batches(self, train: np.ndarray) -> np.ndarray:
        """(steps, batch_size) rows of `train`."""
        rng, passes = np.random.default_rng(self.seed), -(-self.steps * self.batch_size // len(train))
        order = np.concatenate([rng.permutation(train) for _ in range(passes)])
        return np.resize(order, (self.steps, self.batch_size))


def main() -> None:
    """One line per way of drawing batches: balanced accuracy of each seed, seconds for one head."""
    print(load_average())
    full = settings.PROFILES["paper"]
    sections = cohort.read_cohort(draw.make_phantom(full.phantom, scale=full.scale), [PROTEIN])
    table = patches.grid(sections, stride_px=STRIDE_PX)
    pixels_nhwc = patches.load(table, sections, [PROTEIN], stride_px=STRIDE_PX)
    truth, split = metrics.class_index(table["label"]), splits.published(table, "exp1")
    train, test = (np.flatnonzero(split == part) for part in ("train", "test"))
    backbone, _ = networks.divide(networks.build("VGG16", arrays=weights.resolve("VGG16").arrays))
    maps_nhwc = bank.Bank(backbone, pixels_nhwc, prepare=patches.as_input, label="plain").all()

    for name, kind, changed in (
        ("equal parts", people.Head, {}),
        ("as they come", AsTheyCome, {}),
        ("as they come, large", AsTheyCome, {"steps": STEPS // 2, "batch_size": 32, "learning_rate": 1e-3}),
    ):
        start, found = time.perf_counter(), []
        for seed in SEEDS:
            model = kind(maps_nhwc, truth, **{"steps": STEPS, "seed": seed} | changed)
            found.append(metrics.scores(truth[test], (model(train, test) > 0.5).astype(int))["balanced_accuracy"])
        seconds = (time.perf_counter() - start) / len(found)
        told = " ".join(f"{score:.2f}" for score in found)
        print(f"{name}: balanced accuracy {told} (seeds {SEEDS[0]} to {SEEDS[-1]}), {seconds:.0f} s a head", flush=True)


if __name__ == "__main__":
    main()
