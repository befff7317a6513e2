"""Heads of people's networks: each gives the maps that its formula says, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mitolib.saliency import logits, methods

pytestmark = pytest.mark.filterwarnings("ignore:The structure of `inputs`")

LAYER, SIDE, CHANNELS = "conv", 6, 4
PICTURES = np.random.default_rng(0).normal(size=(3, SIDE, SIDE, 3)).astype("float32")
OPTIONS = {"layer": LAYER, "samples": 3}


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    """Compiling takes longer than all else that is done here."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def network(end: Callable[[keras.KerasTensor], keras.KerasTensor], **options: object) -> keras.Model:
    """Pictures -> maps -> what `end` makes of the maps."""
    pictures = keras.Input((SIDE, SIDE, 3))
    maps = layers.Conv2D(CHANNELS, 3, padding="same", activation="relu", name=LAYER, **options)(pictures)
    return keras.Model(pictures, end(maps), name="net")


def mean(maps: keras.KerasTensor) -> keras.KerasTensor:
    return layers.GlobalAveragePooling2D(dtype=maps.dtype)(maps)


def dense(n: int, activation: object = None, **options: object) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    return lambda maps: layers.Dense(n, activation=activation, name="last", **options)(mean(maps))


def then(n: int, *others: keras.Layer) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    """A Dense without activation, and layers of their own behind it."""

    def end(maps: keras.KerasTensor) -> keras.KerasTensor:
        x = dense(n)(maps)
        for one in others:
            x = one(x)
        return x

    return end


def convolution(maps: keras.KerasTensor) -> keras.KerasTensor:
    """Without any Dense, as SqueezeNet ends."""
    return layers.Softmax()(mean(layers.Conv2D(2, 1, name="last")(maps)))


def sequential() -> keras.Model:
    conv = layers.Conv2D(CHANNELS, 3, padding="same", activation="relu", name=LAYER)
    last = layers.Dense(1, activation="sigmoid", name="last")
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), conv, layers.GlobalAveragePooling2D(), last], name="net")


def named_ends() -> keras.Model:
    """Input and output by name, as in a dictionary."""
    flat = network(dense(2, "softmax"))
    return keras.Model({"image": flat.input}, {"class": flat.output}, name="net")


def any_size() -> keras.Model:
    pictures = keras.Input((None, None, 3))
    maps = layers.Conv2D(CHANNELS, 3, padding="same", activation="relu", name=LAYER)(pictures)
    return keras.Model(pictures, dense(1, "sigmoid")(maps), name="net")


def shared_before() -> keras.Model:
    """Its layers were in another model first; a copy has them alone, as the message says."""
    return keras.models.clone_model(built_again())


def built_again() -> keras.Model:
    flat = network(dense(2, "softmax"))
    pictures = x = keras.Input((SIDE, SIDE, 3))
    for one in flat.layers[1:]:
        x = one(x)
    return keras.Model(pictures, x, name="net")


def made(end: Callable, **options: object) -> Callable[[], keras.Model]:
    return lambda: network(end, **options)


# name -> the network; the score of a class is the mean over the maps, times the kernel of "last", plus its bias
SERVED = {
    "two by softmax": made(dense(2, "softmax")),
    "one by sigmoid": made(dense(1, "sigmoid")),
    "one, logits only": made(dense(1)),
    "two, logits only": made(dense(2)),
    "three by softmax": made(dense(3, "softmax")),
    "three labels by sigmoid": made(dense(3, "sigmoid")),
    "no bias": made(dense(2, "softmax", use_bias=False)),
    "one without bias": made(dense(1, "sigmoid", use_bias=False)),
    "logarithm of a softmax": made(dense(2, "log_softmax")),
    "a function of Keras": made(dense(1, keras.activations.sigmoid)),
    "a function of TensorFlow": made(dense(2, tf.nn.softmax)),
    "a layer as the activation": made(dense(2, layers.Softmax())),
    "a layer of its own behind": made(lambda maps: layers.Activation("softmax")(dense(2)(maps))),
    "a softmax layer behind": made(lambda maps: layers.Softmax()(dense(3)(maps))),
    "a sigmoid layer behind": made(lambda maps: layers.Activation("sigmoid")(dense(1)(maps))),
    "a function of keras.ops behind": made(lambda maps: keras.ops.softmax(dense(2)(maps))),
    "nothing but another name behind": made(
        lambda maps: layers.Identity()(layers.Activation("linear")(dense(2)(maps)))
    ),
    "dropout in the head": made(lambda maps: layers.Dense(1, "sigmoid", name="last")(layers.Dropout(0.5)(mean(maps)))),
    "no Dense at all": made(convolution),
    "Sequential": sequential,
    "ends by name": named_ends,
    "pictures of any size": any_size,
    "a copy of layers that were elsewhere": shared_before,
}


def by_formula(model: keras.Model, class_index: int) -> np.ndarray:
    """Grad-CAM of a mean and a linear layer: the gradient of the score by a place is kernel / places."""
    maps = keras.Model(model.inputs[0], model.get_layer(LAYER).output)(PICTURES).numpy()
    kernel = model.get_layer("last").get_weights()[0].reshape(CHANNELS, -1)
    weights = kernel[:, class_index] if kernel.shape[1] > 1 else kernel[:, 0] * (2 * class_index - 1)
    return np.maximum(maps @ weights / SIDE**2, 0)


@pytest.mark.parametrize("name", SERVED)
def test_the_maps_are_those_of_the_formula_for_every_class(name):
    model = SERVED[name]()
    before = [weight.copy() for weight in model.get_weights()]
    camera = methods.GradCAM(model, LAYER)
    n_classes = max(2, model.outputs[0].shape[-1])
    maps = keras.Model(model.inputs[0], model.get_layer(LAYER).output)(PICTURES).numpy()
    kernel, *bias = model.get_layer("last").get_weights()
    scores = maps.mean((1, 2)) @ kernel.reshape(CHANNELS, -1) + (bias[0] if bias else 0)
    scores = scores if scores.shape[1] > 1 else np.concatenate([-scores, scores], axis=1)
    np.testing.assert_allclose(logits.with_logits(model)(PICTURES), scores, rtol=1e-4, atol=1e-6)
    for class_index in range(n_classes):
        wanted = by_formula(model, class_index)
        np.testing.assert_allclose(camera(PICTURES, class_index), wanted, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(camera.from_features(maps, class_index), wanted, rtol=1e-4, atol=1e-6)
    assert max(by_formula(model, class_index).max() for class_index in range(n_classes)) > 0.001
    for wrong in (-1, n_classes):
        for call in (camera, camera.from_features):
            with pytest.raises(ValueError, match=f"class_index={wrong} .*0 to {n_classes - 1}[:,]"):
                call(PICTURES if call is camera else maps, wrong)
    assert all((one == other).all() for one, other in zip(model.get_weights(), before, strict=True))


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_network_in_mixed_precision_gives_nearly_the_same_maps(dtype, apart):
    last = layers.Activation("softmax", dtype="float32")
    model = network(lambda maps: last(dense(2, dtype=dtype)(maps)) if apart else dense(2, "softmax")(maps), dtype=dtype)
    for class_index in (0, 1):
        maps = methods.GradCAM(model, LAYER)(PICTURES, class_index)
        wanted = by_formula(model, class_index).astype("float32")
        assert maps.dtype == np.float32
        np.testing.assert_allclose(maps, wanted, atol=0.02 * wanted.max() + 1e-5)


def twin(model: keras.Model, share: float) -> keras.Model:
    """Two outputs by softmax for one: -share and share times its logit."""
    other = network(dense(2, "softmax"))
    conv, (kernel, bias) = model.get_layer(LAYER).get_weights(), model.get_layer("last").get_weights()
    both = [np.concatenate([-share * array, share * array], axis=-1) for array in (kernel, bias)]
    other.set_weights([*conv, *both])
    return other


ONE_OUTPUT = {
    "sigmoid": dense(1, "sigmoid"),
    "logit": dense(1),
    "sigmoid behind": lambda maps: layers.Activation("sigmoid")(dense(1)(maps)),
}


@pytest.mark.parametrize(
    ("name", "end"),
    [
        *((name, "sigmoid") for name in methods.methods_named(None)),
        ("saliency", "logit"),
        ("Grad-CAM++", "sigmoid behind"),
    ],
)
def test_every_method_takes_one_output_for_two_classes(name, end):
    model = network(ONE_OUTPUT[end])
    model.get_layer("last").set_weights([20 * model.get_layer("last").get_weights()[0], np.array([0.3])])
    # Score-CAM weighs channels by probabilities, which a softmax of half the logit, up and down, gives.
    other = twin(model, 0.5 if name == "Score-CAM" else 1)
    for class_index in (0, 1):
        maps = []
        for one in (model, other):
            keras.utils.set_random_seed(1)
            maps.append(methods.METHODS[name](one, PICTURES[:1], class_index, **OPTIONS))
        assert maps[0].max() > 0
        np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-6)


def test_score_cam_weighs_one_of_several_labels_by_its_own_probability():
    model, one = network(dense(3, "sigmoid")), network(dense(1, "sigmoid"))
    kernel, bias = model.get_layer("last").get_weights()
    one.set_weights([*model.get_layer(LAYER).get_weights(), kernel[:, 2:], bias[2:]])
    compute = methods.METHODS["Score-CAM"]
    maps = [compute(*given, **OPTIONS) for given in ((model, PICTURES[:1], 2), (one, PICTURES[:1], 1))]
    np.testing.assert_allclose(*maps, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "end", [dense(1, "sigmoid"), dense(2, "softmax"), lambda maps: keras.ops.sigmoid(dense(1)(maps))]
)
def test_log_odds_are_those_of_the_probability_of_patient(end):
    model = network(end)
    p_patient = model(PICTURES).numpy()[:, -1]
    evidence = methods.log_odds(model, lambda patches: patches)(PICTURES)
    np.testing.assert_allclose(evidence, np.log(p_patient / (1 - p_patient)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("n", "activation"), [(3, "softmax"), (2, "sigmoid"), (4, None)])
def test_log_odds_of_other_classes_than_control_and_patient_are_refused(n, activation):
    model = network(dense(n, activation))
    with pytest.raises(ValueError, match=f"net has {n} outputs by .*control and patient"):
        methods.log_odds(model, lambda patches: patches)


@pytest.mark.parametrize(
    "end", [dense(1, "sigmoid"), dense(2, tf.nn.softmax), lambda maps: layers.Softmax()(dense(2)(maps))]
)
def test_the_cascade_takes_these_heads_too(end):
    model = network(end)
    steps = {}
    for stage, drawn in methods.cascade(model):
        copy = keras.models.clone_model(model, clone_function=logits.anew)
        copy.set_weights(drawn)
        steps[stage] = methods.GradCAM(copy, LAYER)(PICTURES, 1)
    assert list(steps) == ["trained", "last layer", "head"]
    np.testing.assert_allclose(steps["trained"], by_formula(model, 1), rtol=1e-4, atol=1e-6)
    assert not np.allclose(steps["last layer"], steps["trained"])


# What is refused.


class Tempered(layers.Dense):
    """A Dense that computes something else."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return super().call(inputs) * 7


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="net")
        self.last = layers.Dense(2)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.last(inputs)


def nested() -> keras.Model:
    inner = network(lambda maps: maps)
    inner.name = "inner"
    pictures = keras.Input((SIDE, SIDE, 3))
    return keras.Model(pictures, dense(2, "softmax")(inner(pictures)), name="net")


def two_outputs() -> keras.Model:
    flat = network(dense(2, "softmax"))
    return keras.Model(flat.input, [flat.output, flat.get_layer(LAYER).output], name="net")


def two_inputs() -> keras.Model:
    age, flat = keras.Input((4,)), network(mean)
    return keras.Model([flat.input, age], layers.Dense(2, "softmax")(flat.output + age), name="net")


def channels_first() -> keras.Model:
    pictures = keras.Input((3, SIDE, SIDE))
    maps = layers.Conv2D(CHANNELS, 3, name=LAYER, data_format="channels_first")(pictures)
    return keras.Model(pictures, layers.Dense(2)(layers.Flatten()(maps)), name="net")


def of_two(maps: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Average()([layers.Dense(2, "softmax")(mean(maps)) for _ in range(2)])


def averaged(maps: keras.KerasTensor) -> keras.KerasTensor:
    return mean(layers.Conv2D(2, 1, activation="softmax", name="early")(maps))


def without_last(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.layers[-1].input)


def flat(model: keras.Model) -> keras.Model:
    inner = model.get_layer("inner")
    return keras.Model(inner.input, dense(2, "softmax")(inner.output))


UNFIT = {  # name -> (the network, the message, a remedy that it names or None)
    "a function that nobody knows": (
        made(dense(2, lambda x: x * x)),
        r"from last \(Dense, activation <lambda>\)",
        None,
    ),
    "tanh": (made(dense(1, "tanh")), r"from last \(Dense, activation tanh\)", None),
    "ReLU": (made(dense(2, "relu")), r"from last \(Dense, activation relu\)", None),
    "an unknown layer behind": (
        made(lambda maps: layers.Lambda(lambda x: x / 2, name="half")(dense(2)(maps))),
        r"from half \(Lambda, activation linear\); .*Cut off",
        without_last,
    ),
    "an average of two softmaxes": (made(of_two), r"net takes its scores from average \(Average", None),
    "softmax twice": (
        made(lambda maps: layers.Softmax()(dense(2, "softmax")(maps))),
        r"from last \(Dense, activation softmax\); .*very last",
        without_last,
    ),
    "softmax before the pooling": (
        made(averaged),
        r"from early \(Conv2D, activation softmax\)",
        lambda model: network(convolution),
    ),
    "a Dense of its own kind": (
        made(lambda maps: Tempered(2, activation="softmax", name="last")(mean(maps))),
        r"from last \(Tempered, activation softmax\)",
        None,
    ),
    "softmax over one output": (
        made(dense(1, "softmax")),
        "softmax over one output, .*sigmoid",
        lambda model: network(dense(1, "sigmoid")),
    ),
    "a softmax layer over one output": (
        made(lambda maps: layers.Softmax()(dense(1)(maps))),
        "softmax over one output",
        None,
    ),
    "a map as the output": (
        made(lambda maps: maps),
        r"1 inputs, and outputs \(None, 6, 6, 4\)",
        None,
    ),
    "two outputs": (
        two_outputs,
        r"outputs \(None, 2\), \(None, 6, 6, 4\)",
        lambda model: keras.Model(model.input, model.outputs[0]),
    ),
    "two inputs": (two_inputs, "net has 2 inputs", None),
    "a model in it": (nested, "net has a model inside, inner; .*flat", flat),
    "Sequential in Sequential": (
        lambda: keras.Sequential([keras.Input((SIDE, SIDE, 3)), network(mean), layers.Dense(1, "sigmoid")], name="net"),
        "net has a model inside, net",
        None,
    ),
    "a class of its own": (Subclassed, "net is a Subclassed without a graph of layers", None),
    "not built yet": (
        lambda: keras.Sequential([layers.Dense(2)], name="net"),
        "net is a Sequential without a graph",
        None,
    ),
    "channels first": (channels_first, f"net has channels first in {LAYER}", None),
}
EVERY = {
    "GradCAM": lambda model: methods.GradCAM(model, LAYER)(PICTURES, 1),
    "log_odds": lambda model: methods.log_odds(model, lambda patches: patches),
    "cascade": lambda model: next(methods.cascade(model)),
} | {
    name: lambda model, method=method: method(model, PICTURES, 1, **OPTIONS)
    for name, method in methods.methods_named(None).items()
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_network_whose_scores_are_not_known_is_refused_by_all(name):
    make, message, remedy = UNFIT[name]
    model = make()
    for call in EVERY.values():
        with pytest.raises(ValueError, match=message):
            call(model)
    if remedy is not None:
        mended = remedy(model)
        assert methods.GradCAM(mended, LAYER)(PICTURES, 1).shape == (3, SIDE, SIDE)


def with_shortcut(*, block: bool) -> keras.Model:
    pictures = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(CHANNELS, 3, padding="same", name="stem")(pictures)
    inside = layers.Conv2D(CHANNELS, 3, padding="same", name=LAYER if block else "inside")
    y = layers.Add(name="meet" if block else LAYER)([inside(x), x])
    return keras.Model(pictures, dense(1, "sigmoid")(y), name="net")


def test_a_layer_beside_which_a_shortcut_passes_is_refused_where_only_it_would_be_looked_at():
    model = with_shortcut(block=True)
    with pytest.raises(ValueError, match=f"net: a shortcut .*beside {LAYER}; .*stem, meet"):
        methods.GradCAM(model, LAYER)
    for name in ("stem", "meet"):
        assert methods.GradCAM(model, name)(PICTURES, 1).shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(
        methods.GradCAM(with_shortcut(block=False), LAYER)(PICTURES, 1).shape, (3, SIDE, SIDE), err_msg="the sum itself"
    )
    assert methods.METHODS["Layer-CAM"](model, PICTURES, 1, **OPTIONS).shape == (3, SIDE, SIDE), "looks at all of it"


def used_twice() -> keras.Model:
    conv = layers.Conv2D(3, 3, padding="same", name=LAYER)
    pictures = keras.Input((SIDE, SIDE, 3))
    return keras.Model(pictures, dense(2)(conv(conv(pictures))), name="net")


@pytest.mark.parametrize(("make", "n"), [(used_twice, 2), (built_again, 1)])
def test_a_layer_that_gives_several_maps_is_refused(make, n):
    for call in (EVERY["GradCAM"], EVERY["Grad-CAM++"]):
        with pytest.raises(ValueError, match=f"{LAYER} is used {n} times in net.*clone_model.*set_w"):
            call(make())


def test_a_layer_through_which_no_gradient_flows_is_refused():
    stop = layers.Lambda(tf.stop_gradient, name="stop")
    with pytest.raises(ValueError, match=f"net: no gradient .*to {LAYER};.* later layer"):
        methods.GradCAM(network(lambda maps: dense(2)(stop(maps))), LAYER)(PICTURES, 1)
