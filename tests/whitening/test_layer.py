"""Properties of the layer, with the tolerances of its specification; each has a case in which it would fail."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import warnings

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from mitolib.whitening import activation, alignment, folding, inverse_root, resnet, surgery
from mitolib.whitening import rotation as turning
from mitolib.whitening.layer import AMPLIFICATION, ConceptWhitening

pytestmark = pytest.mark.usefixtures("one_torch_thread")

EXACT = ("zca", "newton")
MODES = tuple(activation.ACTIVATIONS)
KINDS = [
    *EXACT,
    pytest.param("newton-reference", marks=pytest.mark.filterwarnings("ignore:after step .* newton-reference")),
]
over_whitenings = pytest.mark.parametrize("kind", KINDS)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
over_rotations = pytest.mark.parametrize("kind", tuple(turning.ROTATIONS))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def covariance_of(x: Tensor) -> Tensor:
    """(C, C) over all positions of (N, C, H, W)."""
    return torch.cov(x.detach().transpose(0, 1).flatten(1).double(), correction=0)


def spectrum(d: int, condition: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """A covariance with eigenvalues spaced evenly in the logarithm."""
    vectors = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0]
    return ((vectors * torch.logspace(0, -math.log10(condition), d, dtype=torch.float64)) @ vectors.T).to(dtype)


def correlated(n: int, d: int, side: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Maps with channel means of their own and mildly correlated channels."""
    mixing = torch.eye(d) + torch.randn(d, d) / math.sqrt(4 * d)
    x = torch.einsum("ij,njhw->nihw", mixing, torch.randn(n, d, side, side)) + torch.randn(d, 1, 1)
    return x.to(dtype)


def random_rotation(d: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0]


def objective(rotation: Tensor, gradient: Tensor) -> float:
    return float((rotation[: len(gradient)] * gradient).sum())


def turned(layer: ConceptWhitening) -> ConceptWhitening:
    """The layer with a random rotation, gain and shift."""
    layer.rotation.copy_(random_rotation(layer.n_channels))
    if layer.weight is not None:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return layer


# Whitening.


@pytest.mark.parametrize("kind", EXACT)
def test_training_whitens_the_batch(kind):
    y = ConceptWhitening(64, 2, whitening=kind)(correlated(84, 64, 7)).detach()
    assert y.mean((0, 2, 3)).abs().max() < 1e-5
    assert (covariance_of(y) - torch.eye(64)).abs().max() < 1e-3


def test_the_reference_leaves_each_direction_the_variance_its_recursion_says():
    x = torch.einsum("ij,njhw->nihw", spectrum(16, 100), torch.randn(64, 16, 7, 7, dtype=torch.float64))
    values, vectors = torch.linalg.eigh(covariance_of(x))
    y = ConceptWhitening(16, 2, whitening="newton-reference", eps=0, affine=False)(x)
    p = torch.ones(16, dtype=torch.float64)
    for _ in range(10):
        p = 1.5 * p - 0.5 * p**3 * values / values.sum()
    found = (vectors.T @ covariance_of(y) @ vectors).diagonal()
    torch.testing.assert_close(found, values / values.sum() * p**2, rtol=1e-6, atol=0)
    assert found.min() < 0.5, "not identity: a stable whitening would fail here"


@pytest.mark.parametrize(("d", "condition", "steps"), [(16, 1e2, 12), (64, 1e3, 18), (128, 1e4, 20)])
def test_the_coupled_iteration_falls_monotonically_to_the_exact_inverse_root(d, condition, steps):
    covariance = spectrum(d, condition)
    errors = []
    for n in range(1, steps + 3):
        w = inverse_root.newton(covariance, n)
        errors.append(float(torch.linalg.matrix_norm(w @ covariance @ w.T - torch.eye(d, dtype=w.dtype))))
    assert errors[-1] < 1e-8
    fell = [after < before for before, after in itertools.pairwise(errors) if before > 1e-8]
    assert len(fell) > 5 and all(fell)
    torch.testing.assert_close(w, inverse_root.zca(covariance), rtol=1e-6, atol=1e-6)


def test_the_reference_recursion_agrees_while_it_is_stable():
    covariance = spectrum(16, 20)
    for steps in (5, 10):
        coupled, reference = inverse_root.newton(covariance, steps), inverse_root.newton_reference(covariance, steps)
        torch.testing.assert_close(coupled, reference, rtol=1e-9, atol=1e-9)
    assert (inverse_root.newton_reference(covariance, 5) - inverse_root.zca(covariance)).abs().max() > 0.01


def one_direction(share: float, d: int = 512) -> Tensor:
    """Maps (64, d, 7, 7) in which one direction holds that share of the trace."""
    direction = functional.normalize(torch.randn(d), dim=0)
    amount = torch.randn(64, 1, 7, 7) * math.sqrt(share / (1 - share) * d)
    return torch.randn(64, d, 7, 7) + amount * direction[:, None, None]


def test_the_reference_is_warned_about_where_one_direction_dominates_and_only_there():
    layer = ConceptWhitening(512, 2, whitening="newton-reference", affine=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(one_direction(0.01))
    with pytest.warns(RuntimeWarning, match=r"after step 1: .*rounding errors to \d.*zca"):
        layer(one_direction(0.25))
    assert layer.largest_amplification > 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(one_direction(0.25))  # once is enough
        y = ConceptWhitening(512, 2)(one_direction(0.25))
    assert covariance_of(y).diagonal().mean() == pytest.approx(1, abs=1e-2), "the default bears it"


@pytest.mark.parametrize(("share", "trusted"), [(0.01, True), (0.25, False)])
def test_the_guard_tells_where_rounding_errors_spoil_the_reference(share, trusted):
    covariance = covariance_of(one_direction(share))
    exact, rounded = (inverse_root.newton_reference(c).double() for c in (covariance, covariance.float()))
    assert (inverse_root.amplification(covariance.float()) < AMPLIFICATION) == trusted
    assert (float((rounded - exact).norm() / exact.norm()) < 1e-3) == trusted


def scaled_identity(n: int, d: int, side: int) -> Tensor:
    """Maps whose covariance is a multiple of the identity: all eigenvalues equal."""
    columns = torch.linalg.qr(torch.randn(n * side**2, d + 1, dtype=torch.float64))[0]
    columns = torch.linalg.qr(torch.cat([torch.ones_like(columns[:, :1]), columns[:, 1:]], 1))[0][:, 1:]
    return (3 * columns.T).unflatten(1, (n, side, side)).transpose(0, 1).contiguous()


@over_whitenings
@pytest.mark.parametrize("make", [correlated, scaled_identity])
def test_the_gradient_of_the_layer_is_the_numerical_one(kind, make):
    x = make(3, 4, 3).double().requires_grad_()
    layer = turned(ConceptWhitening(4, 2, whitening=kind).double())
    # The public code's recursion enlarges rounding errors: a wider step drowns them.
    assert torch.autograd.gradcheck(layer, (x,), eps=1e-5)


def test_autograd_of_an_eigendecomposition_would_fail_at_equal_eigenvalues():
    covariance = torch.eye(4, dtype=torch.float64).requires_grad_()
    values, vectors = torch.linalg.eigh(covariance)
    ((vectors / values.sqrt()) @ vectors.T)[0, 1].backward()
    assert not covariance.grad.isfinite().all()
    ours = torch.eye(4, dtype=torch.float64).requires_grad_()
    inverse_root.zca(ours)[0, 1].backward()
    assert ours.grad[0, 1] + ours.grad[1, 0] == pytest.approx(-0.5)


@over_whitenings
def test_without_a_rotation_the_output_is_the_plain_whitening(kind):
    x = correlated(16, 8, 5)
    y = ConceptWhitening(8, 2, whitening=kind, affine=False)(x)
    mean = x.transpose(0, 1).flatten(1).mean(1)
    centred = (x - mean[:, None, None]).transpose(0, 1).flatten(1)
    w = inverse_root.WHITENINGS[kind](centred @ centred.T / centred.shape[1] + 1e-5 * torch.eye(8))
    assert torch.equal(y, (w @ (x - mean[:, None, None]).flatten(2)).view_as(x))
    layer = turned(ConceptWhitening(8, 2, whitening=kind, affine=False))
    assert not torch.equal(y, layer(x))


def test_averaging_the_covariance_keeps_the_variance_in_evaluation_nearer_to_one():
    generator = torch.Generator().manual_seed(1)
    layers = {kind: ConceptWhitening(32, 2, whitening=kind, affine=False) for kind in ("zca", "newton-reference")}
    for _ in range(150):
        x = torch.randn(8, 32, 3, 3, generator=generator)
        for layer in layers.values():
            layer(x)
    x = torch.randn(256, 32, 3, 3, generator=generator)
    stable, reference = (float(covariance_of(layer.eval()(x)).diagonal().mean()) for layer in layers.values())
    assert abs(stable - 1) < 0.1 < abs(reference - 1)


# The direction in which an axis is turned.


def psi(values: Tensor, mode: str) -> Tensor:
    """The activation of (N, H, W) values of an axis, as the article defines it, for autograd."""
    if mode == "mean":
        return values.mean((1, 2))
    if mode == "max":
        return values.amax((1, 2))
    if mode == "pos_mean":
        positive = (values > 0).to(values.dtype)
        return (values * positive).sum((1, 2)) / (positive.sum((1, 2)) + 1e-4)
    return functional.max_pool2d(values[:, None], 3).mean((1, 2, 3))


@pytest.fixture
def measured() -> tuple[Tensor, dict[str, ConceptWhitening]]:
    """Maps in float64, and for each mode a layer that was calibrated with them and turned."""
    x = correlated(8, 6, 7, torch.float64)
    layers = {}
    for mode in MODES:
        layers[mode] = turned(ConceptWhitening(6, 2, activation=mode).double()).eval()
        surgery.calibrate(layers[mode], [x])
        layers[mode].rotation.copy_(layers["mean"].rotation)
    return x, layers


@pytest.mark.parametrize("mode", MODES)
def test_the_derivative_of_a_score_is_autograds(measured, mode):
    x, layers = measured
    layer = layers[mode]
    axes = layer.rotation[:2].clone().requires_grad_()
    values = torch.einsum("kc,nchw->nkhw", axes, layer.whiten(x))
    scores = torch.stack([psi(values[:, j], mode) for j in range(2)], 1)
    torch.testing.assert_close(layer.scores(x), scores.detach(), rtol=0, atol=1e-12)
    scores.mean(0).sum().backward()
    ours = torch.stack([layer.derivative(x, j) for j in range(2)])
    torch.testing.assert_close(ours, axes.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_the_official_mask_takes_each_channels_own_winners_which_only_for_the_mean_is_the_derivative(measured, mode):
    x, layers = measured
    layer = layers[mode]
    exact = layer.derivative(x, 1)
    layer.official_mask = True
    whitened = layer.whiten(x)
    y = torch.einsum("jc,nchw->njhw", layer.rotation, whitened)
    masks = {
        "mean": torch.ones_like(y),
        "max": y == y.amax((2, 3), keepdim=True),
        "pos_mean": y > 0,
        "pool_max": y[..., :6, :6] == functional.max_pool2d(y, 3).repeat_interleave(3, 2).repeat_interleave(3, 3),
    }
    mask = masks[mode].double()
    whitened = whitened[..., : mask.shape[2], : mask.shape[3]]  # windows leave row and column 7 out
    wanted = ((mask * whitened).sum((2, 3)) / mask.sum((2, 3))).mean(0)
    tolerance = 1e-4 if mode == "pos_mean" else 1e-12  # of the 1e-4 in its denominator
    torch.testing.assert_close(layer.derivative(x, 1), wanted, rtol=0, atol=tolerance)
    assert torch.allclose(wanted, exact, atol=tolerance) == (mode == "mean")


def test_ties_share_the_maximum_and_a_window_of_zeros_counts_once():
    values = torch.zeros(1, 1, 3, 3)
    assert activation.ACTIVATIONS["max"](values).flatten().tolist() == pytest.approx([1 / 9] * 9)
    assert sorted(activation.ACTIVATIONS["pool_max"](values).flatten().tolist()) == [0] * 8 + [1]


def test_the_order_of_concepts_within_a_round_does_not_matter(measured):
    x, layers = measured
    rotations = []
    for order in ([0, 1], [1, 0]):
        layer = copy.deepcopy(layers["pool_max"])
        for concept in order:
            layer.collect(concept, layer.derivative(x[4 * concept :][:4], concept))
        layer.update_rotation()
        rotations.append(layer.rotation)
    assert torch.equal(*rotations) and not torch.equal(rotations[0], layers["pool_max"].rotation)


# In a network.


class Net(nn.Module):
    """A small convolutional network for 8 x 8 pictures, with the names of a ResNet's block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, 2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures (1400, 1, 8, 8) and labels to train with, 397 to test with."""
    x, y = load_digits(return_X_y=True)
    x = torch.from_numpy(x).float().view(-1, 1, 8, 8) / 16
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], torch.from_numpy(y)[order]
    return x[:1400], y[:1400], x[1400:], y[1400:]


def train(model: nn.Module, steps: int, *, seed: int = 0, momentum: float = 0.9) -> torch.optim.Optimizer:
    x, y, _, _ = digits()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
    model.train()
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return optimizer


def accuracy(model: nn.Module) -> float:
    _, _, x, y = digits()
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


@pytest.fixture(scope="module")
def digits_net() -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    train(model, 300)
    assert accuracy(model) > 0.9
    return model.eval()


def swapped(model: nn.Module, calibrated: bool = True, **settings: object) -> nn.Module:
    model = copy.deepcopy(model)
    surgery.replace_norm(model, "bn2", 2, [digits()[0]] if calibrated else None, **settings)
    return model


def test_a_calibrated_swap_costs_little_and_training_brings_it_back(digits_net):
    before = accuracy(digits_net)
    model = swapped(digits_net)
    assert accuracy(model) >= before - 0.10
    assert accuracy(swapped(digits_net, calibrated=False, affine=False)) < before - 0.10, "the public code's swap"
    train(model, 100)
    surgery.calibrate(model, [digits()[0]])
    assert accuracy(model) >= before - 0.01


def test_running_statistics_lag_and_calibration_makes_up_for_it(digits_net):
    model = swapped(digits_net, calibrated=False)
    train(model, 19)
    lagging = accuracy(model)
    surgery.calibrate(model, [digits()[0]])
    assert accuracy(model) > lagging + 0.1


def test_before_the_head_swap_and_alignment_leave_the_logits():
    torch.manual_seed(0)
    model = resnet.ResNet18(n_classes=2).eval()
    x = torch.randn(80, 3, 96, 96)
    with torch.no_grad():
        before = model(x)
        layer = surgery.insert_before_head(model, 2, [x])
        after = model(x)
        assert (after - before).abs().max() < 1e-4
        alignment.align(model, [x[:8], x[8:16]], head=model.fc)
        assert (model(x) - before).abs().max() < 1e-4
        assert turning.orthogonality_error(layer.rotation) < 1e-12
        alignment.align(model, [x[16:24], x[24:32]])
        assert (model(x) - before).abs().max() > 1e-3, "a head that is not turned along does not fit any more"


def test_evaluation_does_not_depend_on_the_batch_and_changes_nothing(digits_net):
    model = swapped(digits_net).eval()
    turned(model.bn2)
    state = copy.deepcopy(model.state_dict())
    x = digits()[2]
    with torch.no_grad():
        together = model(x)
        assert torch.equal(model(x), together)
        assert (torch.cat([model(x[i : i + 1]) for i in range(20)]) - together[:20]).abs().max() < 1e-5
    alignment.concept_scores(model, [x])
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    model.train()(x)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, state[key])}
    assert changed == {
        f"{norm}.{name}"
        for norm, names in {
            "bn1": ("running_mean", "running_var", "num_batches_tracked"),
            "bn2": ("running_mean", "running_covariance", "num_batches_tracked"),
        }.items()
        for name in names
    }


def test_a_round_in_training_touches_no_statistic_and_leaves_every_module_in_its_mode(digits_net):
    model = swapped(digits_net).train()
    model.bn1.eval()
    state = copy.deepcopy(model.state_dict())
    x, y, _, _ = digits()
    augmented = [x[y == label].flip(3) + 0.1 for label in (0, 1)]
    alignment.align(model, augmented)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, state[key])}
    assert changed == {"bn2.gradient", "bn2.rotation"}
    assert model.training and model.bn2.training and not model.bn1.training


def test_evaluation_follows_every_change_of_the_covariance():
    layer, x = ConceptWhitening(4, 2, affine=False).eval(), torch.randn(8, 4, 3, 3)
    layer(x)
    layer.running_covariance.copy_(torch.diag(torch.tensor([1.0, 4, 9, 16])))
    torch.testing.assert_close(layer(x)[:, 3], x[:, 3] / 4, rtol=1e-4, atol=1e-4)
    before = layer(x)
    layer.train()(x)
    assert not torch.equal(layer.eval()(x), before)


@over_whitenings
def test_a_saved_layer_gives_the_same_outputs_bit_for_bit(digits_net, kind):
    model = swapped(digits_net, whitening=kind)
    turned(model.bn2)
    train(model, 3)
    again = copy.deepcopy(digits_net)
    surgery.replace_norm(again, "bn2", 2, None, whitening=kind)
    x = digits()[2]
    stale = again.eval()(x)
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again.eval()(x), model.eval()(x)) and not torch.equal(again(x), stale)


def test_a_checkpoint_with_batch_normalisation_names_what_is_missing(digits_net):
    model = swapped(digits_net)
    missing = model.load_state_dict(digits_net.state_dict(), strict=False).missing_keys
    assert set(missing) == {
        f"bn2.{name}" for name in ("running_covariance", "rotation", "gradient", "line_search_failures")
    }
    with pytest.raises(RuntimeError, match=r"bn2\.rotation"):
        model.load_state_dict(digits_net.state_dict())


def test_a_resumed_training_is_the_uninterrupted_one(digits_net):
    def go_on(model: nn.Module) -> Tensor:
        x, y, test, _ = digits()
        alignment.align(model, [x[y == label][:16] for label in (0, 1)])
        train(model, 5, seed=1)
        return model.eval()(test)

    model = swapped(digits_net)
    x, y, _, _ = digits()
    train(model, 5)
    alignment.align(model, [x[y == label][:16] for label in (2, 3)])
    resumed = swapped(digits_net, calibrated=False)
    resumed.load_state_dict(model.state_dict())
    forgetful = copy.deepcopy(resumed)
    forgetful.bn2.gradient.zero_()
    wanted = go_on(model)
    assert torch.equal(go_on(resumed), wanted)
    assert not torch.equal(go_on(forgetful), wanted)


@pytest.mark.parametrize("bias", [False, True])
@over_whitenings
def test_folding_into_the_convolution_changes_nothing(digits_net, kind, bias):
    model = swapped(digits_net, whitening=kind)
    turned(model.bn2)
    if bias:
        model.conv2.bias = nn.Parameter(torch.randn(32))
    folded = folding.fold(model)
    x = digits()[2]
    with torch.no_grad():
        assert (folded(x) - model.eval()(x)).abs().max() < 1e-5 * float(model(x).abs().max())
    assert not any(isinstance(module, ConceptWhitening) for module in folded.modules())
    assert isinstance(model.bn2, ConceptWhitening), "the model itself is left as it is"


@over_whitenings
def test_under_autocast_the_layer_computes_in_float32(kind):
    x = correlated(8, 16, 7).bfloat16()
    layer = turned(ConceptWhitening(16, 2, whitening=kind))
    wanted = copy.deepcopy(layer)(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
        conv = nn.Conv2d(16, 16, 1)(x.float())
        scores, direction = layer.scores(x), layer.derivative(x, 0)
    assert conv.dtype == torch.bfloat16, "autocast was on"
    assert torch.equal(found, wanted.bfloat16()) and layer.running_mean.dtype == torch.float32
    assert torch.equal(scores, layer.scores(x.float())) and torch.equal(direction, layer.derivative(x.float(), 0))


def narrow_state(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """As a checkpoint in half precision does it: its tensors take the places of the model's, buffers and all."""
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return model


CASTS = {  # name -> (how a model comes into a precision, whether the layer's buffers keep all digits)
    "half or bfloat16": (lambda model, dtype: model.half() if dtype == torch.float16 else model.bfloat16(), True),
    "to(dtype)": (lambda model, dtype: model.to(dtype), True),
    "to(device, dtype)": (lambda model, dtype: model.to("cpu", dtype), True),
    "type": (lambda model, dtype: model.type(dtype), True),
    "there and back and there": (lambda model, dtype: model.to(dtype).float().to(dtype), True),
    "by way of float64": (lambda model, dtype: model.double().to(dtype), True),
    "to(picture)": (lambda model, dtype: model.to(torch.zeros((), dtype=dtype)), True),
    "as a function does it": (lambda model, dtype: model._apply(lambda tensor: tensor.to(dtype)), True),
    "part by part": (lambda model, dtype: model.apply(lambda part: part.to(dtype)), True),
    "a copy, pickled": (lambda model, dtype: pickle.loads(pickle.dumps(copy.deepcopy(model.to(dtype)))), True),
    "a narrow state": (narrow_state, False),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASTS)
def test_a_model_cast_to_half_precision_gives_nearly_what_it_gave(name, dtype):
    cast, exact = CASTS[name]
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()).eval()
    x = torch.randn(16, 3, 10, 10)
    turned(surgery.replace_norm(model, "1", 2, [x]))
    with torch.no_grad():
        wanted = model(x)
        model = cast(model, dtype)
        y = model(x.to(dtype))
        assert model[0].weight.dtype == model[1].weight.dtype == y.dtype == dtype
        assert (y - wanted).abs().max() < 8 * torch.finfo(dtype).eps * wanted.abs().max()
        assert model[1].scores(model[0](x.to(dtype))).dtype == torch.float32
    precision = {
        key: getattr(model[1], key).dtype for key in ("running_mean", "running_covariance", "rotation", "gradient")
    }
    assert list(precision.values()) == [torch.float32, torch.float32, torch.float64, torch.float64]
    error = alignment.align(model, [x[:4].to(dtype), x[4:8].to(dtype)]).orthogonality_error
    assert error < (1e-12 if exact else torch.finfo(dtype).eps)
    surgery.calibrate(model, [x.to(dtype)])
    model.train()(x.to(dtype)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@over_whitenings
def test_a_cast_to_half_precision_and_back_changes_no_statistic(kind):
    layer = turned(ConceptWhitening(8, 2, whitening=kind))
    layer(correlated(16, 8, 5))
    before = copy.deepcopy(dict(layer.named_buffers()))
    layer.half().bfloat16().float()
    assert all(
        torch.equal(value, before[key]) and value.dtype == before[key].dtype for key, value in layer.named_buffers()
    )
    other = ConceptWhitening(8, 2, whitening=kind).half()
    other.load_state_dict(layer.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in other.named_buffers())
    assert all(value.dtype == torch.float64 for value in layer.double().buffers() if value.is_floating_point())


def test_a_layer_made_while_half_precision_is_the_default_keeps_its_statistics_in_float32():
    torch.set_default_dtype(torch.bfloat16)
    try:
        layer = ConceptWhitening(4, 2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert layer.running_mean.dtype == layer.running_covariance.dtype == torch.float32
    assert layer.weight.dtype == torch.bfloat16 and layer(torch.randn(8, 4, 3, 3).bfloat16()).dtype == torch.bfloat16


@gpu
def test_a_layer_moves_to_another_device_whatever_it_is_cast_to():
    layer = turned(ConceptWhitening(4, 2))
    rotation = layer.rotation.clone()
    layer.to("cuda", torch.float16)
    assert {value.device.type for value in layer.state_dict().values()} == {"cuda"}
    assert torch.equal(layer.rotation.cpu(), rotation) and layer.weight.dtype == torch.float16
    assert layer(torch.randn(8, 4, 3, 3, device="cuda").half()).dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_maps_of_whole_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match=f"{dtype}; .*floating point.*float.. / 255"):
        ConceptWhitening(4, 2)(torch.ones(8, 4, 3, 3, dtype=dtype))


@gpu
@over_whitenings
def test_a_gpu_gives_the_same(kind):
    # In float32 the order in which a device adds moves the public code's result by more than the bound.
    dtype = torch.float32 if kind in EXACT else torch.float64
    x = correlated(32, 16, 7, dtype)
    layer = turned(ConceptWhitening(16, 2, whitening=kind)).to(dtype)
    there = copy.deepcopy(layer).cuda()
    assert (there(x.cuda()).cpu() - layer(x)).abs().max() < 1e-4
    alignment.align(layer.eval(), [x[:8], x[8:16]])
    alignment.align(there.eval(), [x[:8].cuda(), x[8:16].cuda()])
    assert (there(x.cuda()).cpu() - layer(x)).abs().max() < 1e-4


@gpu
@over_rotations
def test_a_gpu_that_is_the_default_device_turns_the_axes(kind):
    x = correlated(32, 16, 7).cuda()
    with torch.device("cuda"):
        layer = turned(ConceptWhitening(16, 2, rotation=kind))
        layer(x)
        found = alignment.align(layer.eval(), [x[:8], x[8:16]])
    assert found.line_search_failures == 0 and found.orthogonality_error < 1e-10


@over_whitenings
def test_a_second_backward_pass_gives_the_same_gradient(kind):
    x = correlated(8, 6, 5).requires_grad_()
    loss = ConceptWhitening(6, 2, whitening=kind)(x).pow(3).sum()
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(loss, x)
    assert torch.equal(first, second) and first.abs().max() > 0


def test_what_reaches_the_layer_is_found_without_computing_what_lies_behind(digits_net):
    model, x, passed = copy.deepcopy(digits_net), digits()[0][:64], []
    surgery.replace_norm(model, "bn1", 2, [x])
    with torch.no_grad():
        expected = model.conv1(x)
    model.train()
    model.bn2.register_forward_hook(lambda *_: passed.append(1))
    assert torch.equal(surgery.layer_input(model, x), expected)
    assert not passed and model.bn2.training and not surgery.layer_of(model)._forward_pre_hooks
    model(x)
    assert passed, "the model itself still runs to its end"


# Bad input.


def test_a_name_that_is_no_batch_normalisation_lists_those_that_are(digits_net):
    for name in ("conv1", "layer9.bn1", ""):
        with pytest.raises(ValueError, match=r"no BatchNorm2d of Net; .*bn1, bn2\."):
            surgery.replace_norm(copy.deepcopy(digits_net), name, 2, None)


def test_more_concepts_than_channels_or_none_are_refused():
    for n in (0, 5):
        with pytest.raises(ValueError, match=f"{n} concepts for 4 channels; wanted 1 to 4"):
            ConceptWhitening(4, n)


@pytest.mark.parametrize("setting", ["whitening", "rotation", "activation"])
def test_an_unknown_setting_lists_the_known_ones(setting):
    with pytest.raises(ValueError, match=r"'pca' is not one of \w+"):
        ConceptWhitening(4, 2, **{setting: "pca"})


def test_a_map_of_another_shape_is_refused():
    for shape in ((2, 4), (2, 5, 7, 7)):
        with pytest.raises(ValueError, match=r"wanted \(N, 4, H, W\)"):
            ConceptWhitening(4, 2)(torch.zeros(shape))


def test_no_more_positions_than_channels_is_refused_in_training_and_calibration_but_not_in_evaluation():
    layer = ConceptWhitening(64, 2)
    one = torch.randn(1, 64, 7, 7)  # a batch of one
    with pytest.raises(ValueError, match=r"49 positions \(1 maps of 7 x 7\) .*64 channels"):
        layer(one)
    with pytest.raises(ValueError, match=r"49 positions to calibrate 64 channels"):
        surgery.calibrate(layer, [one])
    assert layer.eval()(one).isfinite().all()
    assert layer.train()(torch.randn(2, 64, 7, 7)).isfinite().all()


@over_whitenings
def test_a_constant_channel_and_a_black_batch_stay_finite_with_their_gradients(kind):
    x = correlated(16, 8, 5)
    x[:, 3] = 7
    for batch in (x, torch.zeros_like(x)):
        batch = batch.clone().requires_grad_()
        layer = ConceptWhitening(8, 2, whitening=kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few channels: the reference's guard has its own test
            y = layer(batch)
        y.pow(2).sum().backward()
        assert y.isfinite().all() and batch.grad.isfinite().all()
        assert layer.eval()(batch).isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_in_a_training_batch_is_refused_with_its_step_and_leaves_the_statistics(value):
    layer = ConceptWhitening(4, 2)
    for _ in range(3):
        layer(torch.randn(8, 4, 3, 3))
    state = copy.deepcopy(layer.state_dict())
    bad = torch.randn(8, 4, 3, 3)
    bad[5, 2, 1, 1] = value
    with pytest.raises(FloatingPointError, match="in the training batch after step 3"):
        layer(bad)
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())


def test_nan_in_a_concept_batch_or_in_calibration_is_refused():
    layer = ConceptWhitening(4, 2)
    good, bad = torch.randn(8, 4, 3, 3), torch.full((8, 4, 3, 3), math.nan)
    rotation = layer.rotation.clone()
    with pytest.raises(FloatingPointError, match="batch of concept 1 after step 0"):
        alignment.align(layer, [good, bad])
    with pytest.raises(FloatingPointError, match="to calibrate with"):
        surgery.calibrate(layer, [good, bad])
    assert torch.equal(layer.rotation, rotation) and not layer.gradient.any() and layer.running_mean.isfinite().all()


def test_a_map_too_small_for_pool_max_is_refused_and_the_other_activations_take_it():
    for mode in MODES:
        layer = ConceptWhitening(4, 2, activation=mode).eval()
        batches = [torch.randn(8, 4, 2, 5)] * 2
        if mode == "pool_max":
            with pytest.raises(ValueError, match="a map of 2 x 5 positions; wanted 3 x 3"):
                alignment.align(layer, batches)
        else:
            alignment.align(layer, batches)


def test_a_round_wants_a_batch_for_each_concept():
    layer = ConceptWhitening(4, 2)
    maps = torch.randn(8, 4, 3, 3)
    with pytest.raises(ValueError, match="batches of 8 pictures for 2 concepts"):
        alignment.align(layer, [maps])
    with pytest.raises(ValueError, match="batches of 8, 0 pictures for 2 concepts"):
        alignment.align(layer, [maps, maps[:0]])
    with pytest.raises(ValueError, match="batches of 8, 8, 8 pictures"):
        alignment.align(layer, [maps, maps], against=[maps] * 3)


def test_a_model_with_no_whitening_layer_or_several_is_refused(digits_net):
    with pytest.raises(ValueError, match=r"has 0 whitening layers \(none\).*replace_norm"):
        surgery.layer_of(digits_net)
    model = swapped(digits_net)
    surgery.replace_norm(model, "bn1", 2, None)
    with pytest.raises(ValueError, match=r"has 2 whitening layers \(bn1, bn2\)"):
        surgery.layer_of(model)
