"""What does the device at hand make of the naive loop, of the bank and of the head?

    python benchmarks/bench_gpu.py [FILE]        (KERAS_BACKEND=torch for PyTorch; `make bench` for all benchmarks)

As `bench_training.py` extrapolates, from steps that are timed in turns: minutes of experiments 1 and 2 at the published
protocol, 5 seeds, all 100 epochs, with the loop that the paper describes and with the bank; and how many times as long
the first takes. Heads are trained side by side where Keras runs on PyTorch (`mitolib.stacked`), which is timed as well.
The forward pass is timed in float32, in bfloat16 and, on a GPU, in TF32, which is off otherwise.

All of it is written to FILE; on a GPU, without one, to `book/gpu.json`, from which the page *running* takes its table.
`experiments.py` adds the minutes that the experiments took in one run on the same device.
Random weights are as fast as trained ones. Experiment 2 is taken to make a pass as fast as experiment 1, although its
first convolution reads ten channels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import keras
import numpy as np
from timing import in_turns, load_average, ratio

from mitolib import backend, bank, files, heads, networks, paper, patches, records, settings, stacked

PROTOCOL = settings.PROFILES["paper"]
ROUNDS, STEPS = 5, 32  # alternating rounds; steps of a head in each
OUT = settings.ROOT / "book" / "gpu.json"


def forward(dtype: str) -> bank.Prepare:
    """VGG16's frozen layers in a precision, with random weights."""
    backbone, _ = networks.divide(networks.build("VGG16", arrays=None))
    computing = bank.in_bfloat16(backbone) if dtype == "bfloat16" else backbone
    return backend.compiled(partial(computing, training=False), backbone.input_shape)


def in_tf32(pass_once: Callable[[], object]) -> Callable[[], object]:
    """The same with TF32 for the time of the call."""

    def call() -> None:
        backend.use_tf32(True)
        pass_once()
        backend.use_tf32(False)

    return call


def head_steps(n_heads: int, features_nhwc: np.ndarray, truth: np.ndarray) -> Callable[[], object]:
    """STEPS steps of some heads at once, at the published batch; it returns when the device has made them."""
    models = [networks.head(features_nhwc.shape[1:]) for _ in range(n_heads)]
    batch, classes = backend.tensor(features_nhwc), truth.argmax(axis=1)
    if stacked.suits(models[0]):
        stack = stacked.Stack(models, PROTOCOL.learning_rate, [np.random.default_rng(i) for i in range(n_heads)])
        x, y = batch[None].expand(n_heads, *batch.shape), backend.tensor(np.tile(classes, (n_heads, 1)), "int64")
        return lambda: [stack.step(x, y) for _ in range(STEPS)][-1].cpu()
    (model,) = models
    model.compile(backend.FusedAdam(PROTOCOL.learning_rate), backend.cross_entropy(), metrics=["accuracy"])
    step, labels = backend.step(model), backend.tensor(truth)
    return lambda: backend.numbers([step(batch, labels) for _ in range(STEPS)])


def main() -> None:
    """Time all in turns, print and write."""
    rng, size, n_seeds = np.random.default_rng(0), bank.at_once(), PROTOCOL.n_seeds
    pixels = rng.integers(0, 256, (size, networks.INPUT_PX, networks.INPUT_PX, 3), dtype=np.uint8)
    batch, labels = pixels[: PROTOCOL.batch_size], heads.one_hot(np.arange(PROTOCOL.batch_size) % 2)
    augment = partial(patches.augment, zoom=PROTOCOL.zoom, rng=rng)
    online = networks.build("VGG16", arrays=None)
    online.compile(keras.optimizers.Adam(PROTOCOL.learning_rate), backend.cross_entropy(), metrics=["accuracy"])
    dtypes = ["float32"] + (["bfloat16"] if backend.gpu() or settings.processor_has_bfloat16() else [])
    passes = {dtype: partial(forward(dtype), patches.as_input(pixels)) for dtype in dtypes}
    if backend.gpu():
        passes["TF32"] = in_tf32(passes["float32"])
    used = passes[bank.precision()].func
    features_nhwc = used(patches.as_input(batch))
    steps = {
        "naive step": (lambda: online.train_on_batch(patches.as_input(augment(batch)), labels), 4),
        "bank": (lambda: used(patches.as_input(augment(pixels))), 1),
        "head": (head_steps(1, features_nhwc, labels), 1),
        **{f"pass in {name}": (one, 1) for name, one in passes.items()},
    }
    at_once = n_seeds if backend.NAME == "torch" else 1
    if at_once > 1:
        steps["heads at once"] = head_steps(at_once, features_nhwc, labels), 1
    timed = in_turns(steps, ROUNDS)
    t = {name: median(values) for name, values in timed.items()}
    shared = t["heads at once"] / at_once if at_once > 1 and t["heads at once"] < at_once * t["head"] else t["head"]

    minutes = {}
    for name in ("exp1", "exp2"):
        table = paper.split_table(name)
        n_train, n_others = table.loc["total", "train"], table.loc["total", ["validation", "test"]].sum()
        n_steps = n_seeds * PROTOCOL.epochs * -(-n_train // PROTOCOL.batch_size)
        banked = (PROTOCOL.views * n_train + n_others) / size * t["bank"]
        minutes[name] = {
            "naive": n_steps * t["naive step"] / 60,
            "bank": banked / 60,
            "heads": n_steps * shared / STEPS / 60,
        }
    found = {
        "device": records.machine()["device"],
        "backend": backend.VERSION if backend.NAME == "torch" else f"tensorflow {backend.VERSION}",
        "precision": bank.precision(),
        "commit": records.machine()["commit"],
        "pass_ms": {name: 1e3 * t[f"pass in {name}"] / size for name in passes},
        "minutes": minutes,
        "times": {name: part["naive"] / (part["bank"] + part["heads"]) for name, part in minutes.items()},
        "heads_at_once": at_once * ratio(timed, "head", "heads at once") if at_once > 1 else None,
        "measured_minutes": {},
    }
    print(load_average())
    print(json.dumps(found, indent=1))
    if backend.gpu() or len(sys.argv) > 1:
        with files.whole(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT) as aside:
            aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
