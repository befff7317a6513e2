"""Saliency maps: where a patch holds what raises the score of a class, according to the network.

A map is (N, h, w), never negative, in the resolution of the layer it was read from, and raw: not stretched, so that
two maps can be compared. A score is a class's value *before* the softmax: behind it the two classes share one number.
`mitolib.saliency.logits` finds it, also where one output stands for two classes.
Whether maps mean anything is tested in the other modules of this wing.

Grad-CAM here is two compiled passes: the network up to a layer, and the gradient through the few layers above it.
METHODS is the list; a new method is a line in it. Those that are written for TensorFlow alone, tf-keras-vis's
(`mitolib.saliency.library`) among them, are left out by name where Keras runs on PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
from keras import ops

from mitolib import backend
from mitolib.own_data import LeftOut
from mitolib.saliency.cam import CAM
from mitolib.saliency.checks import check_class, check_patches, check_weights, finite, in_batches
from mitolib.saliency.logits import anew, head_of, map_of, maps_of, passed, with_logits
from mitolib.saliency.relevance import PRESETS, LayerwiseRelevance
from mitolib.settings import LABELS

LAYERS = {  # network -> the layer explained: the last map that still has places, 14 x 14 and 7 x 7
    "VGG16": "block5_conv3",
    "ResNet50": "conv5_block3_out",
}


LAST, HEAD = "last layer", "head"  # stages of a `cascade`; others are the blocks of the backbone

Evidence = Callable[[np.ndarray], np.ndarray]  # patches uint8 (N, H, W, C) -> (N,) log odds of "patient"
Explain = Callable[[np.ndarray, int], np.ndarray]  # network input (N, H, W, C), class -> (N, h, w) maps, not negative


def log_odds(model: keras.Model, prepare: Callable[[np.ndarray], np.ndarray]) -> Evidence:
    """A compiled function: patches uint8 (N, H, W, C) -> (N,) score of patient minus score of control.

    Its logistic function is p(patient), which rounds to 0 or 1 where this still tells patches apart. Of a network with
    one output it is that output before the sigmoid. Raises ValueError for a network that knows other classes.
    """
    head = head_of(model)
    if head.n_outputs > 2 or (head.n_outputs, head.activation) == (2, "sigmoid"):
        raise ValueError(
            f"{model.name} has {head.n_outputs} outputs by {head.activation}; wanted {' and '.join(LABELS)}: two by "
            "softmax, or one by sigmoid. Train such a head."
        )
    logits = with_logits(model)
    forward = backend.compiled(partial(logits, training=False), logits.input_shape)

    def evidence(patches_nhwc: np.ndarray) -> np.ndarray:
        scores = np.concatenate([forward(prepare(part)) for part in in_batches(patches_nhwc)])
        patient, control = scores[:, LABELS.index("patient")], scores[:, LABELS.index("control")]
        return patient if head.n_outputs == 1 else patient - control

    return evidence


class GradCAM:
    """Grad-CAM of a flat model at one layer (Selvaraju et al. 2020, doi:10.1007/s11263-019-01228-7, eqs 1 and 2).

    Weights of the model may change afterwards; the maps follow them.
    Raises ValueError for a layer that does not exist or beside which a shortcut passes, and what `head_of` raises;
    FloatingPointError for weights that are not finite.
    """

    def __init__(self, model: keras.Model, layer: str) -> None:
        head, cut = head_of(model), map_of(model, layer)
        check_weights(model)
        if passed(cut, head.reads):
            whole = [name for name, cuts in maps_of(model).items() if not passed(cuts[0], head.reads)]
            raise ValueError(
                f"{model.name}: a shortcut leads to the scores beside {layer}; wanted a layer without one. "
                f"Take the one where the ways meet again, of these: {', '.join(whole)}."
            )
        self.input_shape, self.n_classes = model.inputs[0].shape, max(2, head.n_outputs)
        below, above = keras.Model(model.inputs[0], cut), keras.Model(cut, head.reads)
        self.below = frozenset(each.name for each in below.layers)  # layers that the features depend on

        def weigh(features: backend.Tensor, class_index: backend.Tensor) -> backend.Tensor:
            def score(features: backend.Tensor) -> backend.Tensor:
                return ops.take(head.scores(above(features, training=False)), class_index, axis=1)

            features = ops.cast(features, "float32")
            gradient = backend.gradient(score, features)
            if gradient is None:
                raise ValueError(f"{model.name}: no gradient leads from the scores to {layer}; take a later layer.")
            weights = ops.mean(gradient, axis=(1, 2), keepdims=True)
            return ops.relu(ops.sum(weights * features, axis=-1))

        self._from_features = backend.compiled(weigh, cut.shape, ())
        self._features = backend.compiled(partial(below, training=False), self.input_shape)

    def __call__(self, patches_nhwc: np.ndarray, class_index: int) -> np.ndarray:
        """(N, h, w) maps of network input (N, H, W, C), float32; may be all zero where nothing speaks for the class."""
        check_patches(patches_nhwc, self.input_shape)
        check_class(class_index, self.n_classes)
        return self.from_features(self.features(patches_nhwc), class_index)

    def features(self, patches_nhwc: np.ndarray) -> np.ndarray:
        """(N, h, w, C): what the layer gives; maps of several classes, or heads, need it only once."""
        return np.concatenate([self._features(batch) for batch in in_batches(patches_nhwc)])

    def from_features(self, features_nhwc: np.ndarray, class_index: int) -> np.ndarray:
        """The same from the layer's output, for instance out of a `bank.Bank`: no frozen pass at all."""
        check_class(class_index, self.n_classes)
        batches = in_batches(np.asarray(features_nhwc, np.float32))
        maps_nhw = np.concatenate([self._from_features(batch, class_index) for batch in batches])
        return finite(maps_nhw, "Grad-CAM")


def _grad_cam(model: keras.Model, *, layer: str, samples: int) -> Explain:
    """Our fast path."""
    return GradCAM(model, layer)


def _by_library(model: keras.Model, *, layer: str, samples: int, name: str) -> Explain:
    """By tf-keras-vis, which takes the network up anew at each call and so needs nothing built before."""
    from mitolib.saliency import library

    return partial(library.METHODS[name], model, layer=layer, samples=samples)


def _modified(model: keras.Model, *, layer: str, samples: int, name: str) -> Explain:
    """Greatest absolute signal over the channels, of one of `backpropagation.RELUS`."""
    from mitolib.saliency.backpropagation import ModifiedBackpropagation, strongest

    explain = ModifiedBackpropagation(model, name)
    return lambda patches_nhwc, class_index: strongest(explain(patches_nhwc, class_index))


def _guided_grad_cam(model: keras.Model, *, layer: str, samples: int) -> Explain:
    """Selvaraju et al. 2020, section 3.2; all zero where Grad-CAM is."""
    from mitolib.saliency.backpropagation import ModifiedBackpropagation, guided_grad_cam, strongest

    camera, explain = GradCAM(model, layer), ModifiedBackpropagation(model, "guided backpropagation")

    def maps(patches_nhwc: np.ndarray, class_index: int) -> np.ndarray:
        return strongest(guided_grad_cam(explain(patches_nhwc, class_index), camera(patches_nhwc, class_index)))

    return maps


@dataclass(frozen=True)
class RelevanceMaps:
    """Maps of layer-wise relevance propagation: the positive part, summed over the channels; may be all zero."""

    propagation: LayerwiseRelevance

    def __call__(self, patches_nhwc: np.ndarray, class_index: int) -> np.ndarray:
        """(N, h, w) float32."""
        return self.propagation(patches_nhwc, class_index).maps.clip(min=0)


def _relevance(model: keras.Model, *, layer: str, samples: int, preset: str) -> Explain:
    """By one of `relevance.PRESETS`."""
    return RelevanceMaps(LayerwiseRelevance(model, PRESETS[preset]))


def _class_activation(model: keras.Model, *, layer: str, samples: int) -> Explain:
    """Positive part of CAM, at the layer below its global mean; may be all zero."""
    explain = CAM(model)
    return lambda patches_nhwc, class_index: explain(patches_nhwc, class_index).clip(min=0)


GAP = "VGG16-GAP"  # VGG16 under the head that CAM needs: `cam.gap_network`
ALL = ("VGG16", "ResNet50", GAP)
CHAINS = ("VGG16", GAP)  # networks without additions and normalisations


@dataclass(frozen=True)
class Method:
    """A method and the networks that it fits.

    explainer: (model, layer=, samples=) -> what explains that model, built once for it: much of the cost is tracing.
    Weights of the model may change afterwards; the maps follow them.
    """

    explainer: Callable[..., Explain]
    networks: tuple[str, ...] = ALL
    of_grad_cam_chapter: bool = False
    on_any_backend: bool = False  # of Keras; others are written for TensorFlow alone

    def __call__(
        self, model: keras.Model, patches_nhwc: np.ndarray, class_index: int, *, layer: str, samples: int
    ) -> np.ndarray:
        """Maps (N, h, w), float32, not negative, of a model that is explained once."""
        return self.explainer(model, layer=layer, samples=samples)(patches_nhwc, class_index)


METHODS: dict[str, Method] = {
    "Grad-CAM": Method(_grad_cam, of_grad_cam_chapter=True, on_any_backend=True),
    "Grad-CAM++": Method(partial(_by_library, name="Grad-CAM++"), of_grad_cam_chapter=True),
    "Layer-CAM": Method(partial(_by_library, name="Layer-CAM"), of_grad_cam_chapter=True),
    "Score-CAM": Method(partial(_by_library, name="Score-CAM"), of_grad_cam_chapter=True),
    "saliency": Method(partial(_by_library, name="saliency"), of_grad_cam_chapter=True),
    "SmoothGrad": Method(partial(_by_library, name="SmoothGrad"), of_grad_cam_chapter=True),
    "guided backpropagation": Method(partial(_modified, name="guided backpropagation")),
    "deconvolution": Method(partial(_modified, name="deconvolution")),
    "guided Grad-CAM": Method(_guided_grad_cam),
    "gradient x input": Method(partial(_relevance, preset="gradient x input"), CHAINS),
    "LRP": Method(partial(_relevance, preset="LRP"), CHAINS),
    "LRP alpha1beta0": Method(partial(_relevance, preset="LRP alpha1beta0"), CHAINS),
    "CAM": Method(_class_activation, (GAP,), on_any_backend=True),
}


OF_GRAD_CAM_CHAPTER = tuple(name for name, method in METHODS.items() if method.of_grad_cam_chapter)


def runs(method: Method) -> bool:
    """Whether it runs on the backend of this process."""
    return method.on_any_backend or backend.NAME == "tensorflow"


def left_out(names: Iterable[str]) -> LeftOut | None:
    """Which of these methods this backend does without, and why; None where it has all."""
    foreign = [name for name in names if not runs(METHODS[name])]
    reason = f"{', '.join(foreign)}. Written for TensorFlow, and Keras runs on {backend.NAME} here."
    return LeftOut(reason) if foreign else None


def methods_named(text: str | Sequence[str] | None, network: str | None = None) -> dict[str, Method]:
    """Grad-CAM and those named, in the order of METHODS; for None those of the Grad-CAM chapter that run here.

    text: names with a comma between them, or a list of names. network: one that all have to fit.
    Raises ValueError for a name that is none, and for a method that does not fit the network or the backend of Keras.
    """
    if text is None:
        names = [name for name in OF_GRAD_CAM_CHAPTER if runs(METHODS[name])]
    else:
        names = [name.strip() for name in (text.split(",") if isinstance(text, str) else text)]
    if unknown := [name for name in names if name not in METHODS]:
        raise ValueError(f"method {', '.join(unknown)} is not one of {', '.join(METHODS)}.")
    if foreign := [name for name in names if not runs(METHODS[name])]:
        raise ValueError(
            f"{', '.join(foreign)}: written for TensorFlow, and Keras runs on {backend.NAME} here. Run it with "
            f"KERAS_BACKEND=tensorflow, or take some of {', '.join(name for name in METHODS if runs(METHODS[name]))}."
        )
    chosen = {name: method for name, method in METHODS.items() if name in ("Grad-CAM", *names)}
    if network is not None and (unfit := [name for name, method in chosen.items() if network not in method.networks]):
        fit = ", ".join(name for name, method in METHODS.items() if network in method.networks)
        raise ValueError(f"{', '.join(unfit)} does not explain {network}; wanted some of {fit}.")
    return chosen


def stages(model: keras.Model) -> dict[str, list[str]]:
    """From the top down, what is drawn anew together: stage -> names of its layers.

    The last layer with weights, the rest of the head, then block by block; after the last stage nothing is as it was.
    """
    found: dict[str, list[str]] = {}
    for name in reversed([layer.name for layer in model.layers if layer.weights]):
        block = re.match(r"(block|conv)\d", name)
        found.setdefault(block[0] if block else HEAD if found else LAST, []).append(name)
    return found


def whole_head(model: keras.Model) -> str:
    """The stage after which no layer of the head is as it was."""
    return HEAD if HEAD in stages(model) else LAST


def cascade(model: keras.Model, *, every: bool = True) -> Iterator[tuple[str, list[np.ndarray]]]:
    """All weights of the model, drawn anew from the top down, one of `stages` more at each step, after its name.

    The test of Adebayo et al. 2018, arXiv:1810.03292: a map that explains the model has to change with them. Yields
    first "trained", the weights as they are. every: False yields what comes after the whole head and at the end alone.
    """
    head_of(model)
    drawn = keras.models.clone_model(model, clone_function=anew)
    fresh = {layer.name: layer.get_weights() for layer in drawn.layers}
    drawn.set_weights(model.get_weights())
    yield "trained", drawn.get_weights()
    falling = stages(model)
    for stage, layer_names in falling.items():
        for name in layer_names:
            drawn.get_layer(name).set_weights(fresh[name])
        if every or stage in (whole_head(model), list(falling)[-1]):
            yield stage, drawn.get_weights()
