"""What Keras computes on the backend of this process, from weights and batches that numpy draws.

    KERAS_BACKEND=torch python tests/on_backend.py FOLDER              # writes FOLDER/torch.npz and .weights.h5
    KERAS_BACKEND=torch python tests/on_backend.py FOLDER OTHER.npz    # and ends with 1 where the two differ

`test_backend.py` compares both backends on one machine, `benchmarks/on_device.sh` a GPU with a processor.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

os.environ["MITOLIB_PRECISION"] = "float32"
if os.environ.get("KERAS_BACKEND") == "torch":
    sys.modules["tensorflow"] = sys.modules["tf_keras_vis"] = None  # as where they are not installed

import keras
import numpy as np
import pandas as pd

from mitolib import backend, bank, heads, networks, people, settings, study, transfer, weights
from mitolib.saliency import logits, methods

LAYER = "block5_conv3"
RATE = 1e-5  # of ten steps: where rounding opens a ReLU on one backend alone, weights part by about as much as this
LIMITS = {  # result -> greatest difference allowed, and of what it is a part
    "logits": (1e-4, 1.0),
    "features": (1e-4, None),  # of its own greatest value
    "grad_cam": (1e-4, None),
    "steps": (1e-3, 1.0),
    "after_steps": (1e-3, 1.0),
    "history": (1e-3, 1.0),
}


def with_drawn_weights(model: keras.Model, seed: int) -> keras.Model:
    """The model with weights of numpy's, of a size that keeps activations alike from layer to layer."""
    rng = np.random.default_rng(seed)
    arrays = []
    for array in model.get_weights():
        scale = np.sqrt(2 / np.prod(array.shape[:-1])) if array.ndim > 1 else 0.01
        arrays.append((scale * rng.standard_normal(array.shape)).astype(np.float32))
    model.set_weights(arrays)
    return model


def head() -> keras.Model:
    """The paper's head on 16 channels; without dropout, whose random numbers are each backend's own."""
    model = with_drawn_weights(networks.head((7, 7, 16)), seed=2)
    model.get_layer("dropout").rate = 0.0
    return model


def material() -> tuple[np.ndarray, np.ndarray]:
    """(20, 7, 7, 16) features of two classes, and (20,) classes."""
    rng = np.random.default_rng(3)
    classes = np.arange(20) % 2
    return (rng.random((20, 7, 7, 16)) + 0.2 * classes[:, None, None, None]).astype(np.float32), classes


def computed() -> dict[str, np.ndarray]:
    """Name of LIMITS -> values."""
    model = with_drawn_weights(networks.build("VGG16", arrays=None), seed=5)
    patches_nhwc = np.random.default_rng(0).random((1, 224, 224, 3), dtype=np.float32)
    backbone, _ = networks.divide(model)
    camera = methods.GradCAM(model, LAYER)
    scores = backend.compiled(logits.with_logits(model), model.input_shape)
    explained = camera.features(patches_nhwc)
    found = {
        "logits": scores(patches_nhwc),
        "features": bank.compiled(backbone)(patches_nhwc),
        "grad_cam": np.stack([camera.from_features(explained, class_index) for class_index in (0, 1)]),
    }
    features_nhwc, classes = material()
    trained, truth = head(), heads.one_hot(classes)
    trained.compile(backend.FusedAdam(RATE), backend.cross_entropy(), metrics=["accuracy"])
    step, taken = backend.step(trained), []
    for start in range(0, 20, 2):
        rows = slice(start, start + 2)
        taken.append(step(backend.tensor(features_nhwc[rows]), backend.tensor(truth[rows])))
    found["steps"] = backend.numbers(taken)[["loss", "accuracy"]].to_numpy()
    found["after_steps"] = heads.p_patient(trained, features_nhwc)
    history = heads.fit(
        head(),
        lambda epoch, rows: features_nhwc[rows],
        classes,
        features_nhwc[:6],
        classes[:6],
        profile=replace(settings.PROFILES["smoke"], batch_size=4, learning_rate=RATE),
        rng=np.random.default_rng(4),
        label="head",
    )
    found["history"] = history.to_numpy()
    return found


def light_backbone(*, include_top: bool, weights: None, input_shape: tuple[int, int, int]) -> keras.Model:
    """A map of 7 x 7 that costs nothing, built as `keras.applications` builds its networks."""
    x = keras.Input(input_shape)
    return keras.Model(x, keras.layers.AveragePooling2D(32, name="last")(x))


def keys_of_a_record(folder: Path) -> np.ndarray:
    """Names of all entries of what an experiment writes down of a network, from table to bank to heads to scores."""
    rng, n = np.random.default_rng(0), 16
    table = pd.DataFrame(
        {"label": ["control", "patient"] * 8, "section": range(n), "subject": range(n), "y": 0, "x": 0}
    )
    table["split"] = ["train"] * 8 + ["validation"] * 4 + ["test"] * 4
    task = transfer.Task(table, rng.integers(0, 256, (n, 224, 224, 1), dtype=np.uint8), study.EXP1, "pictures")
    random = weights.Weights("Small", "random", None, None, None)
    with (
        mock.patch.dict(networks.BACKBONES, Small=(light_backbone, "last")),
        mock.patch.object(weights, "resolve", lambda name: random),
        mock.patch.object(bank, "FOLDER", folder / "features"),
        mock.patch.dict(os.environ, MITOLIB_UNITS=str(folder / "units")),
        mock.patch.object(backend, "gpu", lambda: "a GPU"),  # so that PyTorch trains both seeds at once
        mock.patch.object(heads, "fit_several", wraps=heads.fit_several) as several,
    ):
        trained = transfer.train("Small", task, profile=settings.PROFILES["smoke"], n_seeds=2)
        record = pd.json_normalize({"models": trained.record, "budget": trained.budget, "units": trained.units[0]})
    assert [len(call.args[0]) for call in several.call_args_list] == ([2] if backend.NAME == "torch" else [])
    return np.array(sorted(set(record.columns) - {"units.unit.backend"}))  # which one of the two does not write


def light_head(seed: int) -> keras.Model:
    """With dropout, which of several heads each has its own."""
    x = keras.Input((7, 7, 16))
    hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(8, activation="relu")(x))
    answer = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(hidden))
    return with_drawn_weights(keras.Model(x, answer), seed)


def check_several() -> list[int]:
    """Several heads trained at once are those that are trained alone; returns after how many epochs each stopped."""
    features_nhwc, classes = material()
    unseen = np.arange(9)
    data = (lambda epoch, rows: features_nhwc[rows]), classes, 0.9 * features_nhwc[unseen], classes[unseen]
    common = {"profile": replace(settings.PROFILES["smoke"], epochs=15, patience=3, batch_size=4), "label": "heads"}
    seeds = range(4)
    together, alone = ([light_head(seed) for seed in seeds] for _ in range(2))
    rngs = [np.random.default_rng(seed) for seed in seeds]
    histories = heads.fit_several(together, *data, rngs=rngs, **common)
    for seed, history in zip(seeds, histories, strict=True):
        one = heads.fit(alone[seed], *data, rng=np.random.default_rng(seed), **common)
        np.testing.assert_allclose(history.to_numpy(), one.to_numpy(), atol=1e-4)
        for ours, theirs in zip(together[seed].get_weights(), alone[seed].get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    lengths = [len(history) for history in histories]
    assert len(set(lengths)) > 1, "they stop at different times"
    return lengths


def check_repeats() -> None:
    """A head that is trained again in the same model starts where the first one did, dropout included."""
    features_nhwc, classes = material()
    model = people.Head(features_nhwc[:, :1, :1], classes, steps=3)
    rows = np.arange(len(classes))
    first, again = model(rows, rows), model(rows, rows)
    np.testing.assert_allclose(again, first, atol=1e-6)


def differing(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """Results that differ by more than is allowed, and by how many times as much."""
    excess = {}
    for name, (allowed, unit) in LIMITS.items():
        scale = np.abs(theirs[name]).max() if unit is None else unit
        excess[name] = float(np.abs(ours[name] - theirs[name]).max() / (allowed * scale))
    return {name: times for name, times in excess.items() if not times <= 1}


def main() -> None:
    """Compute, write, and compare where there is something to compare with."""
    folder = Path(sys.argv[1])
    found = computed()
    np.savez(folder / f"{backend.NAME}.npz", **found, keys=keys_of_a_record(folder))
    head().save_weights(folder / f"{backend.NAME}.weights.h5")
    for written in folder.glob("*.weights.h5"):  # of the other backend too
        loaded = with_drawn_weights(networks.head((7, 7, 16)), seed=9)
        loaded.load_weights(written)
        assert all((a == b).all() for a, b in zip(loaded.get_weights(), head().get_weights(), strict=True)), written
    if backend.NAME == "torch":
        check_repeats()
        print("several heads stopped after", *check_several(), "epochs, as alone")
    print(f"{backend.NAME} on {backend.gpu() or 'the processor'}: {', '.join(found)}")
    if len(sys.argv) > 2:
        with np.load(sys.argv[2]) as other:
            excess = differing(found, dict(other))
        sys.exit(f"differs from {sys.argv[2]}, in parts of what is allowed: {excess}" if excess else 0)


if __name__ == "__main__":
    main()
