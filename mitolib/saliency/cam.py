"""Class activation maps (CAM; Zhou et al. 2016, arXiv:1512.04150), and the network that they explain.

CAM needs a head of one Dense on the global mean of a map, which the paper's head is not: so it explains another
network, whose scores belong beside its maps. Here that is the frozen backbone up to a layer, the global mean of its map
and a logistic regression on it, which needs no epochs and no seed; nothing below it is trained, and there is no
convolution before the mean, where Zhou et al. put one and trained all.
"""

from __future__ import annotations

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mitolib import linear
from mitolib.saliency.checks import check_class, check_patches, check_some, check_weights, finite, in_batches
from mitolib.saliency.logits import head_of, inputs_of, operation_of
from mitolib.settings import LABELS

PENALTY = 0.1  # C of scikit-learn, for the 512 standardised means of VGG16


def fitted_on_means(maps_nhwc: np.ndarray, labels: np.ndarray) -> Pipeline:
    """A logistic regression, classes balanced, on the standardised means over the places of maps (N, h, w, C).

    labels: (N,) positions in LABELS, both present.
    """
    regression = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=2000)
    return linear.fitted(make_pipeline(StandardScaler(), regression), _means(maps_nhwc), labels)


def _means(maps_nhwc: np.ndarray) -> np.ndarray:
    return np.asarray(maps_nhwc).mean(axis=(1, 2), dtype=np.float64)  # banks hold float16


def p_patient(pipeline: Pipeline, maps_nhwc: np.ndarray) -> np.ndarray:
    """(N,) probability of "patient" of maps (N, h, w, C)."""
    return pipeline.predict_proba(_means(maps_nhwc))[:, LABELS.index("patient")]


def folded(pipeline: Pipeline) -> tuple[np.ndarray, float]:
    """Weights (C,) and bias of the log odds of class 1 in unscaled means: w / s, and b - sum of w m / s."""
    scaler, regression = pipeline[0], pipeline[-1]
    weights = regression.coef_[0] / scaler.scale_
    return weights, float(regression.intercept_[0] - weights @ scaler.mean_)


def gap_network(backbone: keras.Model, weights: np.ndarray, bias: float) -> keras.Model:
    """(N, H, W, C) -> (N, 2) probabilities of control and patient: backbone, global mean, and the regression.

    backbone: flat, up to the map whose means the regression was fitted on; its layers are shared. weights (C,) and
    bias: of `folded`. The log odds are split evenly between the two outputs.
    Raises ValueError for a backbone that gives no map or another number of channels.
    """
    features = backbone.outputs[0]
    if len(features.shape) != 4 or features.shape[-1] != len(weights):
        raise ValueError(
            f"{backbone.name} gives {tuple(features.shape)} for a regression on {len(weights)} means; wanted "
            f"(None, h, w, {len(weights)}). Divide the network at the layer whose maps were banked."
        )
    dense = keras.layers.Dense(len(LABELS), activation="softmax", name="probabilities")
    mean = keras.layers.GlobalAveragePooling2D(name="global_mean")(features)
    model = keras.Model(backbone.inputs[0], dense(mean), name=f"{backbone.name}-GAP")
    halves = np.array([-0.5, 0.5])
    dense.set_weights([weights[:, None] * halves, bias * halves])
    return model


class CAM:
    """Class activation maps of a network whose head is a global mean and one Dense: sum_k w_ck f_k(y, x).

    Their mean over the places, plus the bias, is the logit of the class; Grad-CAM at that layer is relu(CAM) / (h w).
    Weights of the model may change afterwards; the maps follow them.
    Raises ValueError for another head, and what `head_of` raises; FloatingPointError for weights that are not finite.
    """

    def __init__(self, model: keras.Model) -> None:
        head = head_of(model)
        check_weights(model)
        pooling = operation_of(head.reads)
        if head.dense is None or type(pooling) is not keras.layers.GlobalAveragePooling2D:
            raise ValueError(
                f"{model.name} takes its scores from {pooling.name} ({type(pooling).__name__}); CAM wants one Dense on "
                "a GlobalAveragePooling2D. Take Grad-CAM, or build such a head: cam.gap_network."
            )
        self.input_shape, self.n_classes = model.inputs[0].shape, max(2, head.n_outputs)
        self._dense = head.dense
        self._features = keras.Model(model.inputs[0], inputs_of(head.reads)[0])

    def __call__(self, patches_nhwc: np.ndarray, class_index: int, *, centre: np.ndarray | None = None) -> np.ndarray:
        """(N, h, w) float32 signed maps of network input (N, H, W, C); see `from_features`.

        Raises ValueError for pictures of another shape, none, or a class that does not exist; FloatingPointError for
        values that are not finite.
        """
        check_patches(patches_nhwc, self.input_shape)
        check_some(patches_nhwc)
        batches = in_batches(np.asarray(patches_nhwc, np.float32))
        features = np.concatenate(
            [keras.ops.convert_to_numpy(self._features(batch, training=False)) for batch in batches]
        )
        return self.from_features(features, class_index, centre=centre)

    def from_features(
        self, features_nhwc: np.ndarray, class_index: int, *, centre: np.ndarray | None = None
    ) -> np.ndarray:
        """The same from what the layer below the mean gives, for instance out of a bank.

        centre: (C,) means of the training patches, for "CAM, centred": sum_k w_ck (f_k - m_k), whose zero is the mean
        training patch. Without, as published, zero is no activation.
        """
        check_class(class_index, self.n_classes)
        kernel = np.asarray(self._dense.kernel, np.float32)
        single = kernel.shape[1] == 1
        weights = kernel[:, 0] * (2 * class_index - 1) if single else kernel[:, class_index]
        features_nhwc = np.asarray(features_nhwc, np.float32)
        if features_nhwc.shape[-1] != len(weights) or (centre is not None and np.shape(centre) != weights.shape):
            raise ValueError(
                f"features {features_nhwc.shape}, centre {np.shape(centre) if centre is not None else None}; wanted "
                f"(N, h, w, {len(weights)}) and ({len(weights)},)."
            )
        shift = 0.0 if centre is None else np.asarray(centre, np.float32) @ weights
        return finite(features_nhwc @ weights - shift, "CAM")
