"""Is our Grad-CAM the library's, and how much faster?

    python benchmarks/bench_gradcam.py        (or `make bench`)

VGG16 of experiment 1 at block5_conv3, its head read where it is kept, else trained, and the test patches of experiment
1, all in the profile named by MITOLIB_PROFILE (quick where it is unset).

Claim 1. Equal to tf-keras-vis (softmax replaced, its map before the resize, not stretched) within 1e-4 of the
map's greatest value, on every test patch and for both classes. A map is a sum over 512 channels, of either sign;
where they all but cancel, what is left is of the size of float32's rounding, in the library's map too. So the
strength of the map that differs most is printed, as a share of the strongest map's.
Claim 2. From pixels, a batch of maps takes at most 1.1 times the compiled forward pass of the same batch.
Claim 3. From features cut at the layer, at least 20 times as many maps per second as tf-keras-vis from pixels.

All in float32. The timed calls alternate, so that a busy machine slows them alike; medians are compared.
"""

from __future__ import annotations

from functools import partial
from statistics import median

import numpy as np
import tensorflow as tf
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore
from timing import in_turns, load_average

from mitolib import networks, own_data, patches, settings, transfer
from mitolib.phantom import draw
from mitolib.saliency import methods

ROUNDS, TOLERANCE = 7, 1e-4
LAYER = methods.LAYERS["VGG16"]


def main() -> None:
    """Print the error over all test patches, then the two ratios."""
    run = settings.read_parameters({})
    root = draw.make_phantom(run.phantom, scale=run.scale)
    used = own_data.read("exp1", root, own=False)
    task = transfer.Task.of(used, used.one)
    model = transfer.train("VGG16", task, profile=run, n_seeds=1).first.model
    pixels = patches.as_input(task.patches_nhwc[task.rows("test")])
    camera, library = methods.GradCAM(model, LAYER), Gradcam(model, ReplaceToLinear())
    raw = {"penultimate_layer": LAYER, "expand_cam": False, "normalize_cam": False}

    errors, tops = [], []
    for class_index in range(len(settings.LABELS)):
        score = CategoricalScore(class_index)
        for i in range(0, len(pixels), methods.BATCH):
            batch = pixels[i : i + methods.BATCH]
            theirs = np.asarray(library(score, batch, **raw))
            errors.extend(np.abs(camera(batch, class_index) - theirs).max(axis=(1, 2)))
            tops.extend(theirs.max(axis=(1, 2)))
    top = np.array(tops)
    relative = np.array(errors) / np.where(top > 0, top, 1)
    worst = relative.argmax()
    print(
        f"claim 1: {len(pixels)} test patches, 2 classes, {(top == 0).sum()} empty maps: within {TOLERANCE:.0e} in "
        f"{(relative <= TOLERANCE).sum()} of {len(relative)} maps; greatest relative error {relative[worst]:.1e}, in a "
        f"map {top[worst] / top.max():.1e} times as strong as the strongest"
    )

    batch = pixels[: methods.BATCH]
    signature = [tf.TensorSpec(model.input_shape, tf.float32)]
    forward = tf.function(partial(model, training=False), input_signature=signature)
    features = networks.divide(model, LAYER)[0](batch, training=False).numpy()
    steps = {
        "forward pass": lambda: forward(batch).numpy(),
        "Grad-CAM from pixels": lambda: camera(batch, 1),
        "Grad-CAM from features": lambda: camera.from_features(features, 1),
        "tf-keras-vis": lambda: library(CategoricalScore(1), batch, **raw),
    }
    print(load_average())
    timed = in_turns({name: (step, 1) for name, step in steps.items()}, ROUNDS)
    t = {name: median(values) / len(batch) for name, values in timed.items()}
    for name, value in t.items():
        print(f"{name:24s} {1e3 * value:8.1f} ms per patch")
    print(f"claim 2: {t['Grad-CAM from pixels'] / t['forward pass']:.2f} times the forward pass (wanted: at most 1.1)")
    print(f"claim 3: {t['tf-keras-vis'] / t['Grad-CAM from features']:.0f} times as many maps per second (wanted: 20)")


if __name__ == "__main__":
    main()
