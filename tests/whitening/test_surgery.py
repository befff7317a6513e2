"""What people's networks and loaders are like: each is served or refused by name, and no model is left half changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.utils.data import DataLoader, TensorDataset

from mitolib.whitening import alignment, folding, resnet, surgery
from mitolib.whitening.layer import ConceptWhitening

pytestmark = [
    pytest.mark.usefixtures("one_torch_thread"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated"),
]

PICTURES = torch.randn(16, 3, 10, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def state_of(model: nn.Module) -> dict[str, object]:
    """Whatever of a model, and of torch's generator, a function might leave changed."""
    state = {f"module {name}": id(module) for name, module in model.named_modules(remove_duplicate=False)}
    for name, module in model.named_modules():
        state[f"attributes {name}"] = {
            key: value for key, value in vars(module).items() if isinstance(value, (bool, int, float))
        }
        state[f"hooks {name}"] = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[f"tensor {name}"] = (id(tensor), tensor.dtype, tensor.requires_grad, tensor.detach().numpy().tobytes())
    return state | {"generator": torch.get_rng_state().numpy().tobytes()}


def close(one: object, other: object) -> bool:
    """Whether two results are the same but for rounding, part by part."""
    if isinstance(one, Tensor):
        return torch.allclose(one, other, rtol=1e-4, atol=1e-4)
    if isinstance(one, dict):
        one, other = list(one.values()), list(other.values())
    return all(map(close, one, other)) if isinstance(one, (list, tuple)) else one == other


# Folding, by what is computed.


class Net(nn.Module):
    """3 channels -> 8, then a norm: `order` is the forward pass, on the parts given by name."""

    def __init__(self, order: Callable[[nn.Module, Tensor], object], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in ({"conv": nn.Conv2d(3, 8, 3), "bn": nn.BatchNorm2d(8)} | parts).items():
            setattr(self, name, part)
        self.order = order

    def forward(self, x: Tensor) -> object:
        return self.order(self, x)


def whitened(model: nn.Module, name: str = "bn") -> nn.Module:
    """The model, its norm replaced, with axes, gain and shift that are not those of the start."""
    layer = surgery.replace_norm(model, name, 2, [PICTURES])
    layer.rotation.copy_(torch.linalg.qr(torch.randn(layer.n_channels, layer.n_channels, dtype=torch.float64))[0])
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return model


def same_size(**options: object) -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, padding=1, **options)


class NormFirst(nn.Module):
    """The norm is registered before the convolution that it follows, which lies in a part of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({"a": nn.BatchNorm2d(8)})
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 8, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.norms["a"](self.stem(x))


def residual(m: nn.Module, x: Tensor) -> Tensor:
    y = functional.relu(m.conv(x))
    return functional.relu(m.bn(m.second(y)) + y)


FOLDED = {
    "as registered": (lambda: Net(lambda m, x: m.bn(m.conv(x))), "bn"),
    "registered the other way round, in other parts": (NormFirst, "norms.a"),
    "padding that goes round": (
        lambda: Net(lambda m, x: m.bn(m.conv(x)), conv=nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")),
        "bn",
    ),
    "stride, dilation, reflection, no bias": (
        lambda: Net(
            lambda m, x: m.bn(m.conv(x)),
            conv=nn.Conv2d(3, 8, 3, 2, padding=2, dilation=2, padding_mode="reflect", bias=False),
        ),
        "bn",
    ),
    "shortcut beside it": (lambda: Net(residual, second=same_size()), "bn"),
    "a branch of several": (
        lambda: Net(lambda m, x: torch.cat([m.bn(m.conv(x)), m.second(x)], 1), second=nn.Conv2d(3, 8, 3)),
        "bn",
    ),
    "pointwise after depthwise": (
        lambda: Net(
            lambda m, x: m.bn(m.point(m.depth(m.conv(x)))), depth=same_size(groups=8), point=nn.Conv2d(8, 8, 1)
        ),
        "bn",
    ),
    "in a block of ResNet-18": (
        lambda: nn.Sequential(resnet.BasicBlock(3, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
        "0.downsample.1",
    ),
    "several outputs": (lambda: Net(lambda m, x: {"maps": [m.bn(m.conv(x))], "raw": (x, 3)}), "bn"),
    "an output that is zero": (lambda: Net(lambda m, x: (m.bn(m.conv(x)), 0 * x)), "bn"),
    "dropout that never stops": (lambda: Net(lambda m, x: functional.dropout(m.bn(m.conv(x)))), "bn"),
    "a conv of its name, but not the one before": (
        lambda: Net(lambda m, x: m.bn(m.second(functional.relu(m.conv(x)))), second=same_size()),
        "bn",
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_what_follows_a_convolution_alone_is_folded_and_the_model_stays(name):
    make, place = FOLDED[name]
    model = whitened(make(), place).train()
    next(model.children()).eval()
    next(module for module in model.modules() if isinstance(module, nn.Conv2d)).requires_grad_(False)
    before = state_of(model)
    folded = folding.fold(model)
    assert state_of(model) == before
    assert not any(module.training or isinstance(module, ConceptWhitening) for module in folded.modules())
    frozen = [key for key, parameter in model.named_parameters() if not parameter.requires_grad]
    assert [key for key, parameter in folded.named_parameters() if not parameter.requires_grad][: len(frozen)] == frozen
    outputs = []
    for one in (copy.deepcopy(model).eval(), folded):
        torch.manual_seed(5)
        with torch.no_grad():
            outputs.append(one(PICTURES))
    assert close(*outputs)


class Standardised(nn.Conv2d):
    """A convolution whose kernel is standardised whenever it is used."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, kernel, self.bias)


def depends_on_pictures(m: nn.Module, x: Tensor) -> Tensor:
    return m.bn(m.conv(x)) if x.mean() < 9 else m.conv(x)


def recurrent(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.bn(m.second(functional.relu(m.second(y))))


def half_unseen(m: nn.Module, x: Tensor) -> Tensor:
    """Also reads the kernel in a way that no tracing sees."""
    return m.bn(m.conv(x)) * float(next(m.conv.parameters()).detach().norm())


def hooked() -> nn.Module:
    conv = nn.Conv2d(3, 8, 3)
    conv.register_forward_hook(lambda *_: None)
    return conv


def block(order: Callable[[nn.Module, Tensor], object], **parts: nn.Module) -> Callable[[], nn.Module]:
    """Parts are taken as copies, so that no test changes those of another."""
    return lambda: Net(order, **copy.deepcopy(parts))


plain = lambda m, x: m.bn(m.conv(x))  # noqa: E731

REFUSED = {
    "ReLU as a function": (
        block(lambda m, x: m.bn(functional.relu(m.conv(x)))),
        "bn follows the function relu",
    ),
    "ReLU as a method": (block(lambda m, x: m.bn(m.conv(x).relu())), "bn follows the function relu"),
    "ReLU as a module": (
        block(lambda m, x: m.bn(m.act(m.conv(x))), act=nn.ReLU()),
        "follows ReLU 'act'; .*Conv2d of 8",
    ),
    "dropout": (block(lambda m, x: m.bn(m.drop(m.conv(x))), drop=nn.Dropout2d()), "follows Dropout2d 'drop'"),
    "pooling": (block(lambda m, x: m.bn(m.pool(m.conv(x))), pool=nn.MaxPool2d(2)), "follows MaxPool2d 'pool'"),
    "shortcut added before": (
        block(lambda m, x: m.bn(m.second(y := m.conv(x)) + y), second=same_size()),
        "follows the function add",
    ),
    "maps put side by side": (
        block(
            lambda m, x: m.bn(torch.cat([m.conv(x), m.second(x)], 1)),
            conv=nn.Conv2d(3, 4, 3),
            second=nn.Conv2d(3, 4, 3),
        ),
        "follows the function cat",
    ),
    "pre-activation": (
        block(lambda m, x: m.second(functional.relu(m.bn(y := m.conv(x)))) + y, second=same_size()),
        "conv serves .*bn, .*the function add",
    ),
    "a convolution used twice": (
        block(recurrent, second=same_size()),
        "second serves .*bn, .*Conv2d 'second'",
    ),
    "its kernel used elsewhere": (
        block(lambda m, x: m.bn(m.conv(x)) + functional.conv2d(x, m.conv.weight)),
        "conv serves .*bn, .*the function conv2d",
    ),
    "convolution as a function": (
        block(lambda m, x: m.bn(functional.conv2d(x, m.conv.weight))),
        "follows the function conv2d",
    ),
    "another kind of convolution": (block(plain, conv=nn.ConvTranspose2d(3, 8, 3)), "follows ConvTranspose2d 'conv'"),
    "groups, as in ResNeXt": (
        block(lambda m, x: m.bn(m.second(m.conv(x))), second=same_size(groups=4)),
        "second is a convolution in 4 groups; wanted one",
    ),
    "depthwise, as in MobileNet": (
        block(lambda m, x: m.bn(m.second(m.conv(x))), second=same_size(groups=8)),
        "second is a convolution in 8 groups",
    ),
    "weight_norm": (
        block(plain, conv=parametrizations.weight_norm(nn.Conv2d(3, 8, 3))),
        "conv computes its weight anew .*remove_param",
    ),
    "spectral_norm": (
        block(plain, conv=parametrizations.spectral_norm(nn.Conv2d(3, 8, 3))),
        "conv computes its weight anew",
    ),
    "standardised kernel": (
        block(plain, conv=Standardised(3, 8, 3)),
        "conv is a Standardised .*forward",
    ),
    "a hook": (block(plain, conv=hooked()), r"conv has hooks \(<lambda>\)"),
    "a norm used twice": (None, "bn is used 2 times"),
    "a way that depends on the pictures": (
        block(depends_on_pictures),
        "Net cannot be traced .TraceError.*same for all",
    ),
    "what no tracing sees": (block(half_unseen), "bn folded into conv the outputs change"),
    "a wrapper": (
        lambda: nn.DataParallel(Net(plain)),
        "DataParallel cannot be traced .*model.module",
    ),
    "the input itself": (lambda: nn.Sequential(nn.BatchNorm2d(3)), "0 follows the input of the model"),
}


def used_twice() -> nn.Module:
    return Net(lambda m, x: m.bn(m.second(m.bn(m.conv(x)))), second=same_size(), bn=ConceptWhitening(8, 2))


@pytest.mark.parametrize("name", REFUSED)
def test_whatever_stands_in_the_way_of_folding_is_named_and_the_model_stays(name):
    make, message = REFUSED[name]
    if make is None:
        model = used_twice()
    else:
        model = make()
        norm = next(key for key, module in model.named_modules() if isinstance(module, nn.BatchNorm2d))
        whitened(model, norm)
    before = state_of(model)
    with pytest.raises(ValueError, match=message) as caught:
        folding.fold(model)
    assert str(caught.value).endswith("Leave this model unfolded.")
    assert state_of(model) == before


def baked(model: nn.Module) -> nn.Module:
    parametrize.remove_parametrizations(model.conv, "weight")
    return model


def without_hooks(model: nn.Module) -> nn.Module:
    nn.utils.remove_weight_norm(model.conv)
    return model


def dense(model: nn.Module) -> nn.Module:
    """The second convolution without groups: zeros stand where they were."""
    grouped, model.second = model.second, same_size()
    with torch.no_grad():
        model.second.bias.copy_(grouped.bias)
        model.second.weight.zero_()
        for i, kernel in enumerate(grouped.weight):  # two channels of each of four groups
            model.second.weight[i, i // 2 * 2 : i // 2 * 2 + 2] = kernel
    return model


def made_plain(model: nn.Module) -> nn.Module:
    conv, model.conv = model.conv, nn.Conv2d(3, 8, 3)
    kernel = conv.weight - conv.weight.mean((1, 2, 3), keepdim=True)
    model.conv.load_state_dict({"weight": kernel.detach(), "bias": conv.bias})
    return model


def by_hooks() -> nn.Module:
    return Net(plain, conv=nn.utils.weight_norm(nn.Conv2d(3, 8, 3)))


REMEDIES = {
    "weight_norm": (REFUSED["weight_norm"][0], "bn", baked),
    "spectral_norm": (REFUSED["spectral_norm"][0], "bn", baked),
    "weight_norm by hooks": (by_hooks, "bn", without_hooks),
    "groups": (REFUSED["groups, as in ResNeXt"][0], "bn", dense),
    "standardised kernel": (REFUSED["standardised kernel"][0], "bn", made_plain),
    "a wrapper": (REFUSED["a wrapper"][0], "module.bn", lambda model: model.module),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_the_remedies_that_the_messages_name_make_a_model_that_folds(name):
    make, place, remedy = REMEDIES[name]
    model = whitened(make(), place).eval()
    with torch.no_grad():
        wanted = model(PICTURES)
        with pytest.raises(ValueError, match=r"Leave this model unfolded\.$"):
            folding.fold(model)
        assert close(folding.fold(remedy(model))(PICTURES), wanted)


@pytest.mark.parametrize(("side_px", "guessed"), [(28, True), (10, False)])
def test_a_model_for_one_size_of_pictures_is_compared_on_noise_of_that_size_or_on_an_example(side_px, guessed):
    head = nn.Linear(8 * (side_px - 2) ** 2, 2)
    model = whitened(Net(lambda m, x: m.bn(m.conv(x))))
    model = nn.Sequential(model, nn.Flatten(), head)
    if not guessed:
        with pytest.raises(ValueError, match=r"no noise of 3 channels and 32, .*example=pictures"):
            folding.fold(model)
    example = None if guessed else (PICTURES, torch.zeros(16))
    pictures = torch.randn(2, 3, side_px, side_px)
    with torch.no_grad():
        assert close(folding.fold(model, example)(pictures), model.eval()(pictures))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_in_another_precision_is_folded_in_it(dtype):
    model = whitened(Net(lambda m, x: m.bn(m.conv(x)))).to(dtype).eval()
    folded = folding.fold(model)
    assert folded.conv.weight.dtype == folded.conv.bias.dtype == dtype
    with torch.no_grad():
        change = (folded(PICTURES.to(dtype)) - model(PICTURES.to(dtype))).abs().max()
    assert change < 8 * torch.finfo(dtype).eps * model(PICTURES.to(dtype)).abs().max()


# What is no batch, and what ends a function early.


class Restless(nn.Module):
    """Counts its passes, draws numbers in evaluation, and has parts in either mode: much to be put back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.layer4 = nn.Sequential(nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU())
        self.idle, self.fc = nn.BatchNorm2d(8), nn.Linear(12, 2)
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("total", torch.zeros(()))
        self.calls = 0
        self.bn1.eval()
        self.conv1.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.passes += 1
        self.total = self.total + 1
        x = functional.relu(self.bn1(functional.dropout(self.conv1(x), 1e-3)))
        if self.training:
            x = self.idle(x)
        return self.fc(self.layer4(x).mean((2, 3)))


def interrupted() -> Iterator[Tensor]:
    yield PICTURES
    raise KeyboardInterrupt


def exhausted() -> Iterator[Tensor]:
    batches = iter([PICTURES])
    next(batches)
    return batches


WANTED = r".*a tensor of floats \(N, C, H, W\)"
BAD_BATCHES = {  # name -> (batches, error, message, remedied batches or None)
    "a dictionary": ([{"image": PICTURES}], TypeError, f"a batch is dict; {WANTED}", lambda b: [b[0]["image"]]),
    "an array": ([PICTURES.numpy()], TypeError, f"a batch is ndarray; {WANTED}", lambda b: [torch.from_numpy(b[0])]),
    "names": (["a.tif"], TypeError, f"a batch is str; {WANTED}", None),
    "two views of each": ([((PICTURES, PICTURES), 0)], TypeError, "is tuple that begins with tuple", None),
    "views side by side": (
        [(PICTURES, PICTURES)],
        ValueError,
        r"several tensors of shape",
        lambda b: [torch.cat(b[0])],
    ),
    "labels first": ([(torch.zeros(16), PICTURES)], ValueError, r"the shape \(16,\)", None),
    "single pictures": ([list(PICTURES)], ValueError, r"the shape \(3, 10, 10\)", lambda b: [torch.stack(b[0])]),
    "a batch for batches": (PICTURES, ValueError, r"the shape \(3, 10, 10\).*\[pictures\]", lambda b: [b]),
    "bytes": ([PICTURES.to(torch.uint8)], TypeError, "is torch.uint8; .*float.. / 255", lambda b: [b[0].float() / 255]),
    "whole numbers": ([PICTURES.long()], TypeError, "is torch.int64", lambda b: [b[0].float()]),
    "none": ([], ValueError, "no batch came; wanted one at least", lambda _: [PICTURES]),
    "an exhausted generator": (exhausted, ValueError, "no batch came.*pass a list", lambda _: [PICTURES]),
    "an interrupt": (interrupted, KeyboardInterrupt, "", None),
    "another number of channels": ([PICTURES[:, :1]], RuntimeError, "channels", None),
    "a later batch that does not fit": ([PICTURES, PICTURES[:, :1]], RuntimeError, "channels", None),
    "NaN": ([PICTURES * float("nan")], FloatingPointError, "NaN or infinity", None),
    "hardly a picture": ([PICTURES[:1, :, :5, :5]], ValueError, "1 positions to calibrate", None),
}


def replaced() -> nn.Module:
    model = Restless()
    surgery.replace_norm(model, "layer4.1", 2, [PICTURES])
    return model


def concepts(batches: object) -> list[object]:
    """As many batches as there are concepts: the first is right, the other one is not."""
    return [PICTURES, *batches]


CALLS = {  # name -> (a model, what is done to it with batches)
    "replace_norm": (Restless, lambda model, batches: surgery.replace_norm(model, "layer4.1", 2, batches)),
    "insert_before_head": (Restless, lambda model, batches: surgery.insert_before_head(model, 2, batches)),
    "calibrate": (replaced, surgery.calibrate),
    "concept_scores": (replaced, alignment.concept_scores),
    "align": (replaced, lambda model, batches: alignment.align(model, concepts(batches), head=model.fc)),
}
SERVED = {  # what one of them takes though the others do not
    ("concept_scores", "NaN"),
    ("concept_scores", "hardly a picture"),
    ("align", "hardly a picture"),
    ("align", "a later batch that does not fit"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", BAD_BATCHES)
def test_what_is_no_batch_is_named_and_the_model_is_as_it_was(name, call):
    if (call, name) in SERVED:
        pytest.skip("not wrong here")
    make, do = CALLS[call]
    batches, error, message, remedy = BAD_BATCHES[name]
    if call == "align":  # has its own words for a concept without a batch
        message = "batches of 16(, 16)? pictures for 2 concepts|" + message if error is ValueError else message
    model = make()
    before = state_of(model)
    with pytest.raises(error, match=message or None):
        do(model, batches() if callable(batches) else batches)
    assert state_of(model) == before
    if remedy is not None:
        do(model, remedy(batches))


NARROW = nn.Linear(5, 2)


def failing_head(model: nn.Module) -> None:
    """An error in the midst of writing: the head cannot be turned along."""
    alignment.align(model, [PICTURES, PICTURES.flip(0)[:4]], head=NARROW)


def unreached(model: nn.Module) -> None:
    surgery.replace_norm(model, "idle", 2, [PICTURES])


EARLY_ENDS = {  # name -> (a model, what is done to it, error, message)
    "too many concepts": (
        Restless,
        lambda m: surgery.replace_norm(m, "bn1", 9, [PICTURES]),
        ValueError,
        "9 concepts for 8",
    ),
    "an unknown setting": (
        Restless,
        lambda m: surgery.replace_norm(m, "bn1", 2, [PICTURES], activation="x"),
        ValueError,
        "'x' is",
    ),
    "a layer that no pass reaches": (
        Restless,
        unreached,
        ValueError,
        "idle is used 0 times .*evaluation",
    ),
    "a second layer": (
        replaced,
        lambda m: surgery.replace_norm(m, "bn1", 2, [PICTURES]),
        ValueError,
        "has 2 whitening layers",
    ),
    "a second one before the head": (
        replaced,
        lambda m: surgery.insert_before_head(m, 2, [PICTURES]),
        ValueError,
        "2 whitening",
    ),
    "an unknown stage": (
        Restless,
        lambda m: surgery.insert_before_head(m, 2, [PICTURES], stage="x"),
        ValueError,
        "these are: conv1, bn1, layer4",
    ),
    "another stage": (
        Restless,
        lambda m: surgery.insert_before_head(m, 2, [PICTURES], stage="bn1"),
        ValueError,
        "bn1 gives 8 channels, model.fc reads 12",
    ),
    "a head of another size": (replaced, failing_head, RuntimeError, ""),
    "no head": (
        replaced,
        lambda m: alignment.align(m, [PICTURES] * 2, head=m.conv1),
        ValueError,
        "head is Conv2d.*wanted a plain Linear",
    ),
    "pictures without floats for `against`": (
        replaced,
        lambda m: alignment.align(m, [PICTURES] * 2, against=[PICTURES, PICTURES.byte()]),
        TypeError,
        "uint8",
    ),
    "layer_input of a dictionary": (
        replaced,
        lambda m: surgery.layer_input(m, {"x": PICTURES}),
        TypeError,
        "a batch is dict",
    ),
    "layer_input of bytes": (replaced, lambda m: surgery.layer_input(m, PICTURES.byte()), TypeError, "uint8"),
}


@pytest.mark.parametrize("name", EARLY_ENDS)
def test_whatever_ends_a_function_early_leaves_the_model_as_it_was(name):
    make, do, error, message = EARLY_ENDS[name]
    model = make()
    before = state_of(model)
    with pytest.raises(error, match=message or None):
        do(model)
    assert state_of(model) == before


@pytest.mark.filterwarnings("error")
def test_a_warning_that_was_made_an_error_comes_before_any_axis_is_turned():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), ConceptWhitening(8, 2))
    surgery.calibrate(model, [PICTURES])
    opposite = [PICTURES * 0 + 1, PICTURES * 0 - 1]
    mean = surgery.layer_input(model, torch.cat(opposite)).mean((0, 2, 3))
    model[1].running_mean.copy_(mean)
    before = state_of(model)
    with pytest.raises(RuntimeWarning, match="nearly opposite"):
        alignment.align(model, opposite)
    assert state_of(model) == before


@pytest.mark.parametrize("step", ["set_statistics", "collect", "update_rotation"])
def test_an_interrupt_between_two_writes_undoes_the_first(step, monkeypatch):
    model = replaced()
    before, do = state_of(model), getattr(ConceptWhitening, step)

    def interrupt(*given: object) -> None:
        do(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(ConceptWhitening, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        if step == "set_statistics":
            surgery.calibrate(model, [PICTURES + 1])
        else:
            alignment.align(model, [PICTURES, -PICTURES], head=model.fc)
    assert state_of(model) == before


@pytest.mark.parametrize("shape", [tuple, list, lambda pair: (pair[0],), lambda pair: [pair[0], {"age": 70}]])
def test_pictures_are_taken_out_of_what_loaders_give(shape):
    models = [Net(lambda m, x: m.bn(m.conv(x))).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    labels = torch.zeros(4)
    for model, batches in zip(
        models, (PICTURES.split(4), [shape((p, labels)) for p in PICTURES.split(4)]), strict=True
    ):
        surgery.replace_norm(model, "bn", 2, batches)
        alignment.align(model, batches[:2])
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(one, other)
    np.testing.assert_array_equal(
        alignment.concept_scores(models[0], [PICTURES]),
        alignment.concept_scores(models[1], [shape((PICTURES, labels))]),
    )


def test_a_loader_may_serve_and_a_call_that_failed_may_be_made_again():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    loader = DataLoader(TensorDataset(PICTURES, torch.zeros(16)), batch_size=8)
    with pytest.raises(TypeError, match="a batch is str"):
        surgery.replace_norm(model, "1", 2, "a folder")
    layer = surgery.replace_norm(model, "1", 2, loader)
    assert model[1] is layer and alignment.concept_scores(model, loader).shape == (16, 2)


# Norm layers and heads that are more than they seem.


class WithActivation(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(super().forward(x))


def watched() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.register_forward_hook(lambda *_: None)
    return norm


def one_norm_twice() -> nn.Module:
    model = Net(lambda m, x: m.bn(m.conv(x)) + m.alias(m.conv(x)))
    model.alias = model.bn
    return model


UNFIT_NORMS = {
    "with an activation in it": (
        block(plain, bn=WithActivation(8)),
        "bn is a WithActivation .*forward",
    ),
    "with a hook": (block(plain, bn=watched()), r"bn has hooks \(<lambda>\)"),
    "under two names": (one_norm_twice, "bn and alias are one layer"),
    "used twice": (block(lambda m, x: m.bn(m.bn(m.conv(x)))), "bn is used 2 times"),
    "the model itself": (lambda: nn.BatchNorm2d(3), "'bn' is no BatchNorm2d of BatchNorm2d; .*none"),
}


@pytest.mark.parametrize("name", UNFIT_NORMS)
def test_a_norm_whose_place_the_layer_cannot_take_is_named(name):
    make, message = UNFIT_NORMS[name]
    model = make()
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        surgery.replace_norm(model, "bn", 2, [PICTURES])
    assert state_of(model) == before


class Headed(nn.Module):
    def __init__(self, between: nn.Module | None = None, head: nn.Module | None = None) -> None:
        super().__init__()
        self.layer4 = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.between = between or nn.Identity()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = head or nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.between(self.layer4(x))))


UNFIT_HEADS = {
    "ReLU before the pooling": (
        lambda: Headed(nn.ReLU()),
        "after layer4 changes .*replace_norm",
    ),
    "a norm before the pooling": (lambda: Headed(nn.GroupNorm(2, 8)), "changes what the model gives"),
    "no bias": (lambda: Headed(head=nn.Linear(8, 2, bias=False)), "model.fc is Linear, maybe without a bias"),
    "weight_norm": (lambda: Headed(head=parametrizations.weight_norm(nn.Linear(8, 2))), "wanted a plain Linear layer"),
    "two layers": (lambda: Headed(head=nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))), "model.fc is Sequential"),
    "no fc": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3)), "model.fc is NoneType"),
    "another width": (lambda: Headed(nn.Conv2d(8, 9, 1), nn.Linear(9, 2)), "8 channels, model.fc reads 9 features"),
}


@pytest.mark.parametrize("name", UNFIT_HEADS)
def test_a_head_that_cannot_absorb_the_layer_is_named_and_the_model_stays(name):
    make, message = UNFIT_HEADS[name]
    model = make()
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        surgery.insert_before_head(model, 2, [PICTURES])
    assert state_of(model) == before


def test_a_head_whose_bias_is_zeros_absorbs_the_layer():
    model = Headed(head=nn.Linear(8, 2, bias=False)).eval()
    with torch.no_grad():
        wanted = model(PICTURES)
        model.fc.bias = nn.Parameter(torch.zeros(2))
        surgery.insert_before_head(model, 2, [PICTURES])
        assert close(model(PICTURES), wanted)
