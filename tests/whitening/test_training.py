"""The arms on the tail and maps of `toy_arms`."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn import functional
from toy_arms import BUDGET, CLASSES, EVERY, FEW, LABELS, MAPS, ROWS, C, Tiny, eye, logits, see, toy_tail, trained

from mitolib.whitening import BUDGETS, alignment, fitting, resnet, surgery, training, trunks
from mitolib.whitening.layer import ConceptWhitening

pytestmark = [  # two classes that are all the data, and few channels, make the layer warn; its own tests hold that
    pytest.mark.filterwarnings("ignore:the whitened means"),
    pytest.mark.filterwarnings("ignore:after step .* newton-reference"),
    pytest.mark.usefixtures("one_torch_thread"),
]

over_arms = pytest.mark.parametrize("name", training.ARMS)
whitened_arms = [name for name, arm in training.ARMS.items() if arm.place is not None]
turned_arms = [name for name in whitened_arms if training.ARMS[name].turned]


# ---- batches


@given(n=st.integers(1, 30), size=st.integers(1, 12), epochs=st.integers(1, 4), seed=st.integers(0, 99))
def test_no_row_comes_again_before_the_batches_of_an_epoch_are_through(n, size, epochs, seed):
    rows = 100 + np.arange(n)
    per_epoch = max(1, n // size)
    drawn = list(fitting.shuffled(rows, size, epochs * per_epoch, rng=np.random.default_rng(seed)))
    assert len(drawn) == epochs * per_epoch and {len(few) for few in drawn} == {min(size, n)}
    for e in range(epochs):
        seen = np.concatenate(drawn[e * per_epoch : (e + 1) * per_epoch])
        assert len(set(seen)) == len(seen) and set(seen) <= set(rows)
        if n % size == 0 or n < size:
            assert set(seen) == set(rows)


def test_the_order_of_rows_is_drawn_anew_for_each_epoch(rng):
    first, second = fitting.shuffled(np.arange(50), 99, 2, rng=rng)
    assert (first != second).any() and (first != np.arange(50)).any() and set(first) == set(second)


def test_batches_of_equal_parts_hold_as_many_of_each_class():
    seen = []
    labels, rows = np.repeat([0, 1, 1, 1, 1], 16), np.arange(75)
    budget = replace(BUDGET, equal_parts=True)

    def inputs(few: np.ndarray) -> Tensor:
        seen.append(few)
        return see(few)

    fitting.fit(toy_tail(), inputs, labels, rows, budget=budget, rng=np.random.default_rng(0), label="")
    assert [labels[few].mean() for few in seen] == [0.5] * budget.steps
    assert set(np.concatenate(seen)) == set(rows), "20 steps are enough for every patch to have had a turn"


def test_batches_keep_the_order_and_the_outputs_do_not_depend_on_them():
    assert [len(batch) for batch in fitting.batches(see, EVERY, 32)] == [32, 32, 16]
    tail = toy_tail()
    found = fitting.outputs(tail, see, EVERY)  # two batches
    assert not tail.training
    with torch.no_grad():
        assert_allclose(found, tail(MAPS), atol=1e-6)
    some = np.array([70, 3, 41])
    assert_allclose(fitting.outputs(tail, see, some), found[some], atol=1e-6)
    assert_allclose(fitting.p_patient(tail, see, some), functional.softmax(found[some], 1)[:, 1], atol=1e-6)


def test_pictures_are_normalised_and_augmented_anew_at_each_call(rng):
    patches = rng.integers(0, 256, (4, 5, 5, 1), dtype=np.uint8)
    rows, calls = np.array([2, 0]), []

    def augment(few: np.ndarray) -> np.ndarray:
        calls.append(few.copy())
        return few + len(calls)

    assert torch.equal(fitting.pictures(patches)(rows), resnet.as_input(patches[rows]))
    inputs = fitting.pictures(patches, augment)
    first, second = inputs(rows), inputs(rows)
    assert (calls[0] == patches[rows]).all() and (calls[1] == patches[rows]).all()
    assert torch.equal(first, resnet.as_input(patches[rows] + 1)) and not torch.equal(first, second)


# ---- training


def fitted(budget: fitting.Budget, turn=None, *, labels=LABELS, rows=ROWS, inputs=see):
    tail = toy_tail()
    rng = np.random.default_rng(0)
    return tail, fitting.fit(tail, inputs, labels, rows, budget=budget, rng=rng, label="", turn=turn)


@pytest.mark.parametrize(
    ("steps", "every", "turns"), [(20, 5, [5, 10, 15]), (30, 3, [3, 6, 9, 12, 15, 18, 21, 24, 27]), (12, 20, [])]
)
def test_axes_are_turned_in_the_first_nine_tenths_only(steps, every, turns):
    done, turned = [], []

    def counted(rows: np.ndarray) -> Tensor:
        done.append(len(rows))
        return MAPS[rows]

    budget = replace(BUDGET, steps=steps, every=every)
    _, loss = fitted(budget, lambda: turned.append(len(done)), inputs=counted)
    assert turned == turns
    assert len(done) == steps and list(loss.index) == list(range(1, steps + 1))


def test_training_lowers_the_loss_and_ends_in_evaluation():
    tail, loss = fitted(replace(BUDGET, steps=40))
    assert loss[-5:].mean() < loss[:5].mean() / 2
    assert not any(module.training for module in tail.modules())
    _, still = fitted(replace(BUDGET, steps=40, learning_rate=0.0))
    assert still[-5:].mean() > still[:5].mean() / 2


UNTIL_FLAT = fitting.UntilFlat(half_steps=9, whole_steps=6, every=2, patience=2, batch_size=16)
SETS = {"train": ROWS, "validation": EVERY[60:]}


def until_flat(budget: fitting.UntilFlat, tail: nn.Module | None = None, rows=SETS) -> pd.DataFrame:
    given = {"budget": budget, "rng": np.random.default_rng(0), "label": ""}
    return fitting.fit_until_flat(tail or toy_tail(), see, see, LABELS, rows, **given)


def test_the_first_stage_sees_pictures_of_half_the_side(monkeypatch):
    sides = []
    tail = toy_tail()
    tail.register_forward_pre_hook(lambda module, given: sides.append((module.training, given[0].shape[2])))
    falling = iter(range(99, 0, -1))
    monkeypatch.setattr(fitting, "balanced_loss", lambda *_: float(next(falling)))
    looks = until_flat(UNTIL_FLAT, tail)
    assert [side for training_, side in sides if training_] == [2] * 9 + [4] * 6
    assert looks["half_size"].tolist() == [True] * 5 + [False] * 3
    assert looks["step"].tolist() == [2, 4, 6, 8, 9, 2, 4, 6], "and a look at the last step"


def test_a_stage_ends_when_the_loss_is_flat_with_the_weights_of_the_lowest(monkeypatch):
    found = iter([3.0, 1.0, 2.0, 1.0, 5.0, 4.0, 3.0])  # equal is not lower
    kept, tail = [], toy_tail()

    def loss(model: nn.Module, *_: object) -> float:
        kept.append(copy.deepcopy(model.state_dict()))
        return next(found)

    monkeypatch.setattr(fitting, "balanced_loss", loss)
    looks = until_flat(replace(UNTIL_FLAT, half_steps=99), tail)
    assert looks["validation_loss"].tolist() == [3, 1, 2, 1, 5, 4, 3]
    assert looks["half_size"].sum() == 4, "two looks without a lower one"
    assert all(torch.equal(value, kept[-1][key]) for key, value in tail.state_dict().items())
    flat = iter([2.0, 1.0, 3.0, 3.0, 1.0, 2.0, 2.0])
    found, tail = flat, toy_tail()
    kept.clear()
    until_flat(replace(UNTIL_FLAT, half_steps=99), tail)
    assert all(torch.equal(value, kept[4][key]) for key, value in tail.state_dict().items())
    assert not any(module.training for module in tail.modules())


def test_both_classes_weigh_alike_in_the_validation_loss():
    tail, rows = toy_tail(), np.array([0, 2, 4, 6, 1])
    losses = functional.cross_entropy(fitting.outputs(tail, see, rows), torch.tensor(LABELS[rows]), reduction="none")
    wanted = (losses[:4].mean() + losses[4]) / 2
    assert fitting.balanced_loss(tail, see, LABELS, rows) == pytest.approx(float(wanted))


def test_without_validation_patches_of_a_class_nothing_is_trained():
    with pytest.raises(ValueError, match="no validation patch of class 1"):
        until_flat(UNTIL_FLAT, rows=SETS | {"validation": np.array([60, 62])})


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_convolutions_of_training_are_of_the_budgets_precision_and_weights_of_float32(precision, dtype):
    found = []
    tail = toy_tail()
    tail.last[0].conv1.register_forward_hook(lambda module, *given: found.append((module.training, given[-1].dtype)))
    until_flat(replace(UNTIL_FLAT, half_steps=1, whole_steps=1, precision=precision), tail)
    assert {kind for training_, kind in found if training_} == {dtype} and tail.fc.weight.dtype == torch.float32


@pytest.mark.parametrize("steps", [2, 3, 9, 200])
def test_there_is_a_round_in_the_shortest_training(steps):
    budget, _, tail_budget = fitting.budgets(BUDGETS["smoke"], steps=steps, tail_steps=steps)
    assert budget.every == tail_budget.every <= 0.9 * steps
    assert fitting.budgets(BUDGETS["paper"])[0].every == fitting.Budget.every


def test_the_precision_is_one_of_two():
    assert fitting.precision() in {"float32", "bfloat16"}


@pytest.mark.parametrize("optimizer", fitting.OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(optimizer):
    _, loss = fitted(replace(BUDGET, steps=60, optimizer=optimizer, learning_rate=0.02))
    assert loss[-5:].mean() < loss[:5].mean() / 2


def test_rows_outside_training_are_not_looked_at():
    hidden = LABELS.copy()
    hidden[60:] = 99  # no class of the network
    fitted(BUDGET, labels=hidden)
    with pytest.raises(IndexError, match="Target 99 is out of bounds"):
        fitted(BUDGET, labels=hidden, rows=EVERY)


@over_arms
def test_every_arm_trains_a_copy_and_leaves_the_tail(name):
    tail = toy_tail()
    before = copy.deepcopy(tail.state_dict())
    rng = np.random.default_rng(0)
    one = training.train(training.ARMS[name], tail, see, LABELS, ROWS, CLASSES, budget=BUDGET, rng=rng, label="")
    after = tail.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    assert not torch.equal(one.model.fc.weight, tail.fc.weight) and not one.model.training and one.seconds > 0
    assert one.loss.index.tolist() == list(range(1, BUDGET.steps + 1))


@over_arms
def test_every_arm_has_the_axes_and_rounds_that_it_is_named_for(name):
    arm, one = training.ARMS[name], trained(name)
    layers = [module for module in one.model.modules() if isinstance(module, ConceptWhitening)]
    assert len(layers) == (0 if name == "BatchNorm" else 1)
    assert len(one.rounds) == (3 if name in turned_arms else 0)
    assert isinstance(one.model.last.get_submodule("1"), resnet.BasicBlock), "the last block stays"
    if layers:
        assert layers[0].n_concepts == (1 if arm.signed else 2)
        assert torch.equal(layers[0].rotation, eye(layers[0])) == (name == "ZCA")
        place = one.model.last[-1] if arm.place == training.BEFORE_HEAD else one.model.get_submodule(arm.place)
        assert place is layers[0] is training.norm_of(one.model)


def test_where_no_shortcut_passes_all_that_is_answered_goes_through_the_layer():
    one = trained("G")
    assert [type(module) for module in one.model.last] == [resnet.BasicBlock, ConceptWhitening, nn.ReLU]
    layer = training.norm_of(one.model)
    with torch.no_grad():
        layer.weight.zero_()
    assert torch.equal(logits(one.model)[0], logits(one.model)[1]), "without the layer all patches are alike"
    inside = trained("E2")
    with torch.no_grad():
        training.norm_of(inside.model).weight.zero_()
    assert not torch.equal(logits(inside.model)[0], logits(inside.model)[1]), "the shortcut passes it"


def vgg16_tail() -> nn.Sequential:
    torch.manual_seed(0)
    last = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(C), relu=nn.ReLU(), pool=nn.MaxPool2d(2)))
    return nn.Sequential(
        OrderedDict(last=last, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(C, 2))
    )


def on_vgg16(name: str, **more: object) -> training.Trained:
    given = {"budget": BUDGET, "rng": np.random.default_rng(0), "label": ""} | more
    return training.train(training.ON_VGG16[name], vgg16_tail(), see, LABELS, ROWS, CLASSES, **given)


def test_on_vgg16_every_arm_has_its_layer_and_the_first_has_none():
    kinds = {name: type(on_vgg16(name).model.last.norm) for name in training.ON_VGG16}
    assert kinds.pop("none") is nn.Identity and kinds.pop("BatchNorm") is nn.BatchNorm2d
    assert kinds.pop("F") is nn.Identity and set(kinds.values()) == {ConceptWhitening}
    assert "G" not in kinds, "nothing passes the layer in any arm"
    assert isinstance(on_vgg16("F").model.last[-1], ConceptWhitening)


def test_statistics_that_are_known_are_those_that_would_be_computed():
    samples = MAPS[ROWS].transpose(0, 1).flatten(1)
    known = samples.mean(1), torch.cov(samples, correction=0)
    for name in ("E2", "D2"):
        one, same = on_vgg16(name, statistics=known), on_vgg16(name)
        layer = training.norm_of(one.model)
        assert torch.equal(layer.running_mean, known[0]) and torch.equal(layer.running_covariance, known[1])
        assert_allclose(layer.running_covariance, training.norm_of(same.model).running_covariance, atol=1e-4)
    lagging = training.norm_of(on_vgg16("A", statistics=known).model)
    assert not torch.equal(lagging.running_mean, known[0]), "the public code starts from nothing"


def test_batches_are_drawn_from_what_is_to_be_learnt():
    hidden = LABELS.copy()
    hidden[ROWS[:30]] = 99  # no class of the network
    training.train(
        training.ON_VGG16["none"],
        vgg16_tail(),
        see,
        hidden,
        ROWS,
        CLASSES,
        learnt=ROWS[30:],
        budget=BUDGET,
        rng=np.random.default_rng(0),
        label="",
    )


@pytest.mark.parametrize("name", ["BatchNorm", "C", "F"])
def test_the_same_seed_gives_the_same_model_and_another_one_another(name):
    first, again, other = (logits(trained(name, seed=seed).model) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def whitened_covariance(one: training.Trained) -> np.ndarray:
    maps = surgery.layer_input(one.model, see(ROWS))
    return np.cov(surgery.layer_of(one.model).whiten(maps).transpose(0, 1).flatten(1).numpy(), bias=True)


def test_a_calibrated_arm_ends_with_the_moments_of_all_training_maps_and_another_lags():
    assert_allclose(whitened_covariance(trained("C")), np.eye(C), atol=1e-3)
    lagging = whitened_covariance(trained(replace(training.ARMS["C"], calibrated=False)))
    assert np.abs(lagging - np.eye(C)).max() > 0.05


def test_the_layer_before_the_head_stands_behind_the_last_block_and_keeps_the_logits():
    tail = toy_tail().eval()
    before = logits(tail)
    surgery.insert_before_head(tail, 2, [MAPS], stage="last")
    assert [type(module) for module in tail.last] == [resnet.BasicBlock, ConceptWhitening]
    assert_allclose(logits(tail), before, atol=1e-5)


@pytest.mark.parametrize("head_follows", [True, False])
def test_before_the_head_turning_leaves_the_logits_if_the_head_follows(monkeypatch, head_follows):
    tail = toy_tail()
    tail(MAPS)  # running statistics that are not those of a new network, and then stay
    for module in tail.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    align = alignment.align
    if not head_follows:
        monkeypatch.setattr(alignment, "align", lambda *given, head: align(*given))
    still = replace(BUDGET, learning_rate=0.0)
    rng = np.random.default_rng(0)
    one = training.train(training.ARMS["F"], tail, see, LABELS, ROWS, CLASSES, budget=still, rng=rng, label="")
    layer = surgery.layer_of(one.model)
    assert len(one.rounds) == 3 and (layer.rotation - eye(layer)).abs().max() > 0.1
    change = (logits(one.model) - logits(tail)).abs().max()
    assert change < 1e-5 if head_follows else change > 0.01


# The pictures that turn the axes. Each map carries its row number in a corner.


def numbered(rows: np.ndarray) -> Tensor:
    maps = MAPS[rows].clone()
    maps[:, 5, 0, 0] = torch.from_numpy(np.asarray(rows)) / 1000
    return maps


def rows_in(batch: Tensor) -> list[int]:
    return (batch[:, 5, 0, 0] * 1000).round().int().tolist()


@pytest.fixture
def rounds(monkeypatch) -> list[tuple[list[list[int]], list[list[int]] | None]]:
    """What each round of turning is given: row numbers per concept, and against them."""
    caught, align = [], alignment.align

    def spy(model, shown, against=None, **more):
        caught.append(([rows_in(b) for b in shown], against and [rows_in(b) for b in against]))
        return align(model, shown, against, **more)

    monkeypatch.setattr(alignment, "align", spy)
    return caught


@pytest.mark.parametrize("name", ["C", "D"])
def test_each_axis_is_turned_to_pictures_of_its_concept_and_in_some_arms_away_from_the_others(rounds, name):
    trained(name, FEW, inputs=numbered)
    assert len(rounds) == 3
    for shown, against in rounds:
        for rows, own in zip(shown, FEW.values(), strict=True):
            assert len(set(rows)) == len(rows) == BUDGET.concept_batch and set(rows) <= set(own)
        if name == "C":
            assert against is None
        else:
            for rows, other in zip(against, reversed(FEW.values()), strict=True):
                assert len(set(rows)) == len(rows) == BUDGET.concept_batch and set(rows) <= set(other)


def test_an_axis_is_turned_away_from_what_the_caller_names(rounds):
    without = {"large": np.arange(50, 60), "pale": np.array([41, 42, 43])}
    trained("D", FEW, inputs=numbered, without=without)
    for _, (first, second) in rounds:
        assert set(first) <= set(without["large"]) and set(second) == {41, 42, 43}
        assert len(first) == 3, "as many for every axis as there are for the one with the fewest"


def test_a_lone_concept_is_turned_away_from_patches_of_all_kinds(rounds):
    trained("D", {"large": FEW["large"]}, inputs=numbered)
    against = {row for _, (batch,) in rounds for row in batch}
    assert against <= set(ROWS) and not against <= set(FEW["large"])


def test_the_axis_of_a_signed_arm_is_that_of_the_last_concept(rounds):
    trained("E", inputs=numbered)
    assert all(len(shown) == 1 and set(shown[0]) <= set(CLASSES["patient"]) for shown, _ in rounds)


def test_a_concept_with_few_pictures_makes_all_batches_smaller(rounds):
    trained("C", FEW | {"pale": np.array([20, 21, 22])}, inputs=numbered)
    assert all([len(rows) for rows in shown] == [3, 3] for shown, _ in rounds)


@pytest.mark.parametrize("name", turned_arms)
def test_a_concept_without_pictures_is_named(name):
    with pytest.raises(ValueError, match="concept 'pale' has 0 pictures"):
        trained(name, FEW | {"pale": np.array([], int)})


def test_a_picture_in_two_concepts_is_named():
    with pytest.raises(ValueError, match="picture 19 in 'large' and 'pale'"):
        trained("C", FEW | {"pale": np.arange(19, 30)})


# ---- the whole network


@pytest.fixture
def patches(monkeypatch, rng) -> np.ndarray:
    monkeypatch.setattr(resnet, "build", lambda n_classes, arrays: Tiny(n_classes))
    return rng.integers(0, 256, (70, 16, 16, 1), dtype=np.uint8)


def a_network(patches: np.ndarray, *, seed: int = 0, rows: np.ndarray = ROWS, augment=lambda few, rng: few):
    budget = fitting.UntilFlat(half_steps=2, whole_steps=2, every=2, patience=1, batch_size=16)
    labels, sets = LABELS[: len(patches)], {"train": rows, "validation": np.arange(60, 70)}
    return trunks.train_network(
        patches, labels, sets, arrays=None, augment=augment, budget=budget, seed=seed, label=""
    )[0]


def test_the_tail_makes_of_the_maps_what_the_network_makes_of_the_pictures(patches):
    known = a_network(patches)
    assert known.maps_nchw.shape == (70, 4, 4, 4)
    whole = fitting.outputs(known.whole, fitting.pictures(patches), np.arange(70))
    assert_allclose(fitting.outputs(known.tail, known.maps, np.arange(70)), whole, atol=1e-5)


def test_training_augments_its_own_rows_and_the_maps_are_of_the_pictures_as_they_are(patches):
    seen = []

    def augment(few: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        seen.extend(few.reshape(len(few), -1).tolist())
        return np.zeros_like(few)

    known = a_network(patches, rows=np.arange(20), augment=augment)
    own = patches[:20].reshape(20, -1).tolist()
    assert len(seen) == 4 * 16 and all(patch in own for patch in seen)
    trunk = resnet.divide(known.whole)[0].eval()
    with torch.no_grad():
        assert_allclose(known.maps_nchw[:5], trunk(resnet.as_input(patches[:5])), atol=1e-5)
    assert not torch.equal(known.maps_nchw[0], known.maps_nchw[1]), "black pictures would give one map"


def test_batch_norms_take_their_statistics_from_the_training_patches_as_they_are(patches):
    rows = np.arange(20)  # one batch
    known = a_network(patches, rows=rows, augment=lambda few, rng: np.zeros_like(few)).whole
    with torch.no_grad():
        maps = known.conv1(resnet.as_input(patches[rows]))
    assert_allclose(known.bn1.running_mean, maps.mean((0, 2, 3)), atol=1e-5)
    assert_allclose(known.bn1.running_var, maps.var((0, 2, 3)), rtol=1e-4)


def test_a_network_depends_on_its_seed_alone(patches):
    def augment(few: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return few[:, ::-1].copy() if rng.random() < 0.5 else few

    first = a_network(patches, augment=augment).maps_nchw
    torch.rand(3)
    assert torch.equal(a_network(patches, augment=augment).maps_nchw, first)
    assert not torch.equal(a_network(patches, seed=1, augment=augment).maps_nchw, first)


@pytest.mark.parametrize("n_rounds", [0, 3])
def test_a_layer_is_placed_and_turned_in_a_copy_that_is_not_trained(patches, n_rounds):
    known = a_network(patches).whole
    before = copy.deepcopy(known.state_dict())
    given = {"budget": BUDGET, "n_rounds": n_rounds, "rng": np.random.default_rng(0)}
    model = training.placed(known, "layer2.0.bn2", fitting.pictures(patches), ROWS, FEW, **given)
    layer = surgery.layer_of(model)
    assert layer is model.layer2[0].bn2 and layer.n_concepts == 2 and not model.training
    assert torch.equal(layer.rotation, eye(layer)) == (n_rounds == 0)
    after = known.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items() if "conv" in key)


def test_a_layer_is_not_placed_for_a_concept_without_pictures(patches):
    given = {"budget": BUDGET, "n_rounds": 1, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match="concept 'pale' has 0 pictures"):
        concepts = FEW | {"pale": np.array([], int)}
        training.placed(Tiny(2), "layer2.0.bn2", fitting.pictures(patches), ROWS, concepts, **given)
