"""How much faster is the bank than the paper's loop? And what bounds a training step?

    python benchmarks/bench_training.py        (or `make bench`)

Claim 1. Experiment 1 with VGG16, 982 training patches, batch 2, 100 epochs: the loop the paper describes, as a Keras
user would write it (`ImageDataGenerator`, which the paper names; one model with a frozen backbone; Keras' Adam; 110
patches to validate after every epoch, by which it stops), against the bank (features of the paper profile's views
computed once, then the head alone). Both are timed step by step in turns, so that a busy machine slows both alike, and
extrapolated to 100 epochs; building the bank is counted. What the bank can gain is limited by its views, since the
naive loop makes a forward pass for each of its 100 epochs and the bank one for each view, unless the processor is
quicker in bfloat16. The bound is printed: what a head that costs nothing would gain. Five seeds share one bank, and two
heads are trained side by side, by which `bench_units.py` measures how much is gained: five such trainings against five
naive ones, wanted at least 20 times. What bounds that is printed too: the same with heads at the peak of this machine.

Claim 2. The head's training step in floating-point operations per second, as a share of what a large matrix
product reaches on this machine in the same run, with Keras' Adam and with ours; and the same for the forward pass.
The peak is the best of TensorFlow's and PyTorch's products, since either may lack a kernel for a processor.
"""

from __future__ import annotations

from functools import partial
from statistics import median

import keras
import numpy as np
import tensorflow as tf
import torch
from bench_units import steps_per_second
from timing import in_turns, load_average, seconds

from mitolib import backend, bank, heads, networks, patches, settings, weights

TRAIN, VALIDATION, EPOCHS, BATCH = 982, 110, 100, 2
VIEWS = settings.PROFILES["paper"].views
SEEDS = settings.PROFILES["paper"].n_seeds
ROUNDS, STEPS = 5, 6  # alternating rounds, and steps timed in each


def peak(dtype: str) -> float:
    """Floating-point operations per second of a matrix product, the best over libraries, sizes and tries."""
    best = 0.0
    for n in (1024, 2048, 4096):
        a, b = tf.cast(tf.random.normal((n, n)), dtype), torch.randn(n, n).to(getattr(torch, dtype))
        for product in (lambda a=a: tf.matmul(a, a).numpy(), lambda b=b: b @ b):
            product()
            best = max(best, *(2 * n**3 / seconds(product) for _ in range(5)))
    return best


def head_operations(head: keras.Model) -> float:
    """Of one training step: forward, and backward to weights and (but for the first layer) to inputs; two per
    multiply-add."""
    dense = [layer for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    operations = [2.0 * BATCH * np.prod(layer.output.shape[1:-1]) * np.prod(layer.kernel.shape) for layer in dense]
    return 3 * sum(operations) - operations[0]


def forward_operations(backbone: keras.Model) -> float:
    """Of one picture, two per multiply-add."""
    return sum(
        2.0 * np.prod(layer.output.shape[1:3]) * np.prod(layer.kernel.shape)
        for layer in backbone.layers
        if isinstance(layer, keras.layers.Conv2D)
    )


def compiled_head(arrays: tuple[np.ndarray, ...] | None, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """A fresh head of VGG16, ready to train."""
    _, head = networks.divide(networks.build("VGG16", arrays=arrays))
    head.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    return head


def main() -> None:
    """Time both loops in turns and print the ratios."""
    rng = np.random.default_rng(0)
    arrays = weights.resolve("VGG16").arrays
    pixels = rng.integers(0, 256, (64, networks.INPUT_PX, networks.INPUT_PX, 1), dtype=np.uint8)
    labels = heads.one_hot(rng.integers(0, 2, BATCH))
    augment = partial(patches.augment, zoom=(0.8, 1.2), rng=rng)
    generator = tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=180, zoom_range=0.2, horizontal_flip=True, vertical_flip=True, rescale=1 / 255
    )
    colour = np.repeat(pixels, 3, axis=-1)
    flow = generator.flow(colour, heads.one_hot(rng.integers(0, 2, len(pixels))), batch_size=BATCH)

    online = networks.build("VGG16", arrays=arrays)
    online.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    backbone, _ = networks.divide(networks.build("VGG16", arrays=arrays))
    forward = bank.compiled(backbone)
    plain, fused = (compiled_head(arrays, o) for o in (keras.optimizers.Adam(1e-3), backend.FusedAdam(1e-3)))
    row = forward(patches.as_input(pixels[:BATCH]))

    plain_input = patches.as_input(pixels[: bank.BATCH])
    plain_labels = heads.one_hot(rng.integers(0, 2, bank.BATCH))
    plain_features = forward(plain_input)

    def naive() -> None:
        online.train_on_batch(*next(flow))

    def build() -> None:
        forward(patches.as_input(augment(pixels[: bank.BATCH])))

    steps = {
        "naive step": (naive, STEPS),
        "bank, 16 patches": (build, 2),
        "forward, 16 patches": (lambda: forward(plain_input), 2),
        "naive validation, 16": (lambda: online.test_on_batch(plain_input, plain_labels), 2),
        "head validation, 16": (lambda: fused.test_on_batch(plain_features, plain_labels), STEPS),
        "head step, Keras' Adam": (lambda: plain.train_on_batch(row, labels), STEPS),
        "head step, fused Adam": (lambda: fused.train_on_batch(row, labels), STEPS),
    }
    print(load_average())
    timed = in_turns(steps, ROUNDS)
    t = {name: median(values) for name, values in timed.items()}
    for name, value in t.items():
        print(f"{name:24s} {1e3 * value:8.1f} ms")

    n_steps = EPOCHS * -(-TRAIN // BATCH)
    validations = VALIDATION / bank.BATCH
    naive_s = n_steps * t["naive step"] + EPOCHS * validations * t["naive validation, 16"]
    bank_s = VIEWS * TRAIN / bank.BATCH * t["bank, 16 patches"] + validations * t["forward, 16 patches"]
    head_s = n_steps * t["head step, fused Adam"] + EPOCHS * validations * t["head validation, 16"]
    print(
        f"{EPOCHS} epochs of {TRAIN} patches: {naive_s / 3600:.1f} h naive; "
        f"{bank_s / 60:.0f} min to build the bank, {head_s / 60:.0f} min to train the head"
    )
    print(
        f"claim 1: the bank is {naive_s / (bank_s + head_s):.1f} times as fast for one seed (with a head that costs "
        f"nothing {naive_s / bank_s:.1f})"
    )
    one, two = steps_per_second()
    seeds_s = bank_s + SEEDS * head_s * one / two
    print(
        f"claim 1: {SEEDS} seeds, two side by side, {SEEDS * naive_s / seeds_s:.1f} times (wanted: 20; with heads that "
        f"cost nothing {SEEDS * naive_s / bank_s:.1f}, with banks that cost nothing {naive_s / head_s * two / one:.1f})"
    )

    used = bank.precision()
    rates = {dtype: peak(dtype) for dtype in sorted({"float32", used})}
    # On all cores at once, so that nothing is gained side by side: no head can be quicker than its matrix products.
    floor_s = bank_s + SEEDS * n_steps * head_operations(fused) / rates["float32"]
    print(
        f"claim 1: with heads whose every operation ran at the float32 peak, {SEEDS} seeds would be "
        f"{SEEDS * naive_s / floor_s:.1f} times as fast"
    )
    for dtype, rate in rates.items():
        print(f"peak of a matrix product: {rate / 1e9:.0f} GFLOP/s in {dtype}")
    for name in ("head step, Keras' Adam", "head step, fused Adam"):
        print(f"claim 2: {name} at {head_operations(fused) / t[name] / rates['float32']:.0%} of the float32 peak")
    share = bank.BATCH * forward_operations(backbone) / t["forward, 16 patches"] / rates[used]
    print(f"claim 2: forward pass in {used} at {share:.0%} of its peak (wanted: 80 %)")


if __name__ == "__main__":
    main()
