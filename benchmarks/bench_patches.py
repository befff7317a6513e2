"""How fast are patches extracted, and what bounds it?

    python benchmarks/bench_patches.py        (or `make bench`)

Claim 1. `patches.load`, from the files of a section to the network's input, in patches per second against the loop
that a user of patchify would write: one stack of pictures per section, a Python loop over rows, columns and
channels of its windows, Pillow's bilinear `Image.resize` of each, all kept in a list. Both give the same bytes.
One protein as in experiment 1, and ten as in experiment 2; the sections are those of the quick profile.

Claim 2. `patches.cut` alone, in bytes per second against a memory copy of as many bytes, one section at a time.

What bounds `load` is read from a profile of it: the share of its time in decoding, cutting and resizing, and in
Pillow's C code alone.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import pandas as pd
from patchify import patchify
from PIL import Image
from timing import in_turns, load_average, ratio

from mitolib import cohort, networks, patches, settings
from mitolib.phantom import draw

EXPERIMENTS = {"exp1": (["SDHA"], 224), "exp2": (list(settings.PROTEINS), 256)}  # proteins and stride of the paper
PX = networks.INPUT_PX
ROUNDS = 5
PARTS = {"decoding": cohort.Section.image_yx, "cutting": patches.cut, "resizing": patches.resize}  # of `load`
PILLOW = ("~", 0, "<method 'resize' of 'ImagingCore' objects>")  # its C code, as pstats names it


def plain_loop(sections: Sequence[cohort.Section], proteins: Sequence[str], stride_px: int) -> np.ndarray:
    """What `patches.load` does, as a user of patchify and Pillow would write it."""
    resized = []
    for section in sections:
        stack_yxc = np.stack([section.image_yx(protein) for protein in proteins], axis=-1)
        windows = patchify(stack_yxc, (512, 512, len(proteins)), step=stride_px)
        for row in windows[:, :, 0]:
            for patch_yxc in row:
                channels = [Image.fromarray(patch_yxc[..., c]) for c in range(len(proteins))]
                channels = [np.array(image.resize((PX, PX), Image.Resampling.BILINEAR)) for image in channels]
                resized.append(np.stack(channels, axis=-1))
    return np.array(resized)


def shares(load: Callable[[], object]) -> dict[str, float]:
    """Share of the profiled time of `load` in each of PARTS, and in Pillow's C code alone."""
    profile = cProfile.Profile()
    profile.runcall(load)
    stats = pstats.Stats(profile)
    codes = {part: function.__code__ for part, function in PARTS.items()}
    keys = {part: (code.co_filename, code.co_firstlineno, code.co_name) for part, code in codes.items()}
    keys["of it Pillow's C code"] = PILLOW
    return {part: stats.stats[key][3] / stats.total_tt for part, key in keys.items()}  # 3: with what it calls


def measure(name: str, sections: Sequence[cohort.Section], table: pd.DataFrame) -> None:
    """Both claims for one experiment."""
    proteins, stride_px = EXPERIMENTS[name]

    def load() -> np.ndarray:
        return patches.load(table, sections, proteins, stride_px=stride_px)

    def plain() -> np.ndarray:
        return plain_loop(sections, proteins, stride_px)

    np.testing.assert_array_equal(load(), plain())
    timed = in_turns({"load": (load, 1), "plain": (plain, 1)}, ROUNDS)
    rate = {step: len(table) / median(values) for step, values in timed.items()}
    print(
        f"claim 1: {name}, {len(proteins)} of {len(settings.PROTEINS)} proteins: {rate['load']:.0f} patches/s, "
        f"{rate['plain']:.0f} by the plain loop (PIL): {ratio(timed, 'plain', 'load'):.2f} times as fast"
    )
    print("         " + ", ".join(f"{part} {share:.0%}" for part, share in shares(load).items()))

    largest = max(sections, key=lambda section: section.height_px * section.width_px)
    picture_yxc, rows = largest.stack_yxc(proteins), table[table["section"] == largest.section]
    block = patches.cut(picture_yxc, rows, stride_px=stride_px)
    steps = {"cut": lambda: patches.cut(picture_yxc, rows, stride_px=stride_px), "copy": block.copy}
    timed = in_turns({step: (call, 3) for step, call in steps.items()}, 2 * ROUNDS)
    rate = {step: block.nbytes / median(values) / 1e9 for step, values in timed.items()}
    print(
        f"claim 2: {name}, {block.nbytes / 1e6:.0f} MB of patches: {rate['cut']:.1f} GB/s cut, "
        f"{rate['copy']:.1f} GB/s copied: {ratio(timed, 'copy', 'cut'):.0%} of a memory copy"
    )


def main() -> None:
    """Both experiments, on the phantom of the quick profile."""
    quick = settings.PROFILES["quick"]
    sections = cohort.read_cohort(draw.make_phantom(quick.phantom, scale=quick.scale))
    print(load_average())
    for name, (_, stride_px) in EXPERIMENTS.items():
        measure(name, sections, patches.grid(sections, stride_px=stride_px))


if __name__ == "__main__":
    main()
