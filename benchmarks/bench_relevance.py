"""What do guided backpropagation, deconvolution and LRP cost, and are they captum's on VGG16?

    python benchmarks/bench_relevance.py        (or `make bench`)

VGG16 with the weights of ImageNet, where they are kept, under a head that is not trained, and patches of experiment 1
of a small phantom. captum explains a copy of the network in torch.

Claim 1. Guided backpropagation and deconvolution take at most 1.4 times as long as the gradient of the score by the
pixels, LRP at most 2.5 times. captum's methods on the copy are timed beside them.
Claim 2. On two patches guided backpropagation and deconvolution correlate with captum's by more than 0.9999, and fewer
than 2 % of the values differ by more than 1e-3 of the greatest. Rounding flips single ReLUs and winners of pools.
Claim 3. LRP of one rule in all layers, of the same network without biases (captum's rules treat biases in another way),
correlates with captum's by more than 0.9999, differs by less than 1e-2 of the greatest value, and its sums by 1e-3.

All in float32. The timed calls alternate, so that a busy machine slows them alike; medians of ratios are compared.
"""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf
from captum.attr import LRP, Deconvolution, GuidedBackprop
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from timing import in_turns, load_average, ratio

from mitolib import networks, own_data, patches, settings, weights
from mitolib.phantom import draw
from mitolib.saliency.backpropagation import ModifiedBackpropagation
from mitolib.saliency.logits import with_logits
from mitolib.saliency.relevance import PRESETS, LayerwiseRelevance, Preset
from mitolib.saliency.rules import Alpha1Beta0, Epsilon, Gamma

sys.path.append(str(settings.ROOT / "tests" / "saliency"))
import torch_copy

ROUNDS, COMPARED = 5, 2  # turns of the clock; patches, as many as one call explains
CLASS = 1
OF_CAPTUM = {"guided backpropagation": GuidedBackprop, "deconvolution": Deconvolution}
RULES = {
    "epsilon": (Epsilon(1e-9), lambda: EpsilonRule(1e-9)),
    "gamma": (Gamma(0.25), lambda: GammaRule(0.25)),
    "alpha1beta0": (Alpha1Beta0(), Alpha1_Beta0_Rule),
}


def pictures() -> np.ndarray:
    """(COMPARED, 224, 224, 3) network input of experiment 1."""
    run = settings.read_parameters({})
    used = own_data.read("exp1", draw.make_phantom(run.phantom, scale=run.scale), own=False)
    table = used.table(used.one)
    patches_nhwc = patches.load(table, used.sections, used.one.proteins, stride_px=used.one.stride_px)
    rows = np.linspace(0, len(table) - 1, COMPARED).astype(int)
    return patches.as_input(patches_nhwc[rows])


def gradient(model: keras.Model) -> tf.types.experimental.PolymorphicFunction:
    """Compiled gradient of the score by the pixels: what costs are measured in."""
    logits = with_logits(model)

    def of_score(batch: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(batch)
            score = logits(batch, training=False)[:, CLASS]
        return tape.gradient(score, batch)

    return tf.function(of_score, input_signature=[tf.TensorSpec(model.input_shape, tf.float32)])


def without_biases(model: keras.Model) -> keras.Model:
    """A copy in which all biases are 0."""
    copy = keras.models.clone_model(model)
    copy.set_weights([w if w.ndim > 1 else 0 * w for w in model.get_weights()])
    return copy


def compared(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Correlation, greatest difference, share of values that differ, and ratio of the sums."""
    difference, top = np.abs(ours - theirs), np.abs(theirs).max()
    correlation = np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]
    sums = ours.sum(axis=(1, 2, 3)) / theirs.sum(axis=(1, 2, 3))
    return (
        f"correlation {correlation:.7f}, greatest difference {difference.max() / top:.1e}, "
        f"{(difference > 1e-3 * top).mean():.2%} of values differ by more than 1e-3, "
        f"ratios of sums {sums.min():.4f} to {sums.max():.4f}"
    )


def main() -> None:
    """Print the costs, then the differences from captum."""
    keras.utils.set_random_seed(1)
    model = networks.build("VGG16", arrays=weights.resolve("VGG16").arrays)
    batch = pictures()
    of_score = gradient(model)
    steps = {"gradient": lambda: of_score(batch).numpy()}
    modified = {name: ModifiedBackpropagation(model, name) for name in OF_CAPTUM}
    for name, explain in modified.items():
        steps[name] = lambda explain=explain: explain(batch, CLASS)
    for name, preset in PRESETS.items():
        if preset.biases == "absorb":
            relevance = LayerwiseRelevance(model, preset)
            steps[name] = lambda explain=relevance: explain(batch, CLASS)
    for name, method in OF_CAPTUM.items():
        steps[f"captum, {name}"] = lambda method=method: torch_copy.attribution(model, batch, CLASS, method)
    steps["captum, LRP epsilon"] = lambda: torch_copy.relevance(model, batch, CLASS, LRP, RULES["epsilon"][1])
    print(load_average())
    timed = in_turns({name: (step, 1) for name, step in steps.items()}, ROUNDS)
    for name in steps:
        wanted = 2.5 if name in PRESETS else 1.4
        limit = f" (wanted: at most {wanted})" if name in modified or name in PRESETS else ""
        print(f"claim 1: {name:32s} {ratio(timed, name, 'gradient'):5.2f} times a gradient{limit}")

    for name, explain in modified.items():
        theirs = torch_copy.attribution(model, batch, CLASS, OF_CAPTUM[name])
        print(f"claim 2: {name}: {compared(explain(batch, CLASS), theirs)}")

    bare = without_biases(model)
    for name, (rule, theirs) in RULES.items():
        found = LayerwiseRelevance(bare, Preset(rule, rule, rule, start="logit"))(batch, CLASS)
        wanted = torch_copy.relevance(bare, batch, CLASS, LRP, theirs)
        print(f"claim 3: {name}: {compared(found.pixels_nhwc, wanted)}")


if __name__ == "__main__":
    main()
