from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.nn import functional
from toy_arms import BUDGET, CLASSES, EVERY, FEW, LABELS, MAPS, ROWS, SIDE, C, N, logits, see, trained

from mitolib.whitening import fitting, measures, surgery, training
from mitolib.whitening.layer import ConceptWhitening

pytestmark = [
    pytest.mark.filterwarnings("ignore:the whitened means"),
    pytest.mark.filterwarnings("ignore:after step .* newton-reference"),
    pytest.mark.usefixtures("one_torch_thread"),
]

# ---- what an arm is like


def test_units_are_the_means_over_the_map_that_the_norm_layer_puts_out():
    one = trained("BatchNorm")
    block = one.model.last[0]
    with torch.no_grad():
        wanted = block.bn1(block.conv1(MAPS)).mean((2, 3))
    assert_allclose(measures.units(one, see, EVERY), wanted, atol=1e-5)
    assert_allclose(measures.units(one, see, np.array([7, 3])), wanted[[7, 3]], atol=1e-5)


def test_the_units_of_a_layer_before_the_head_are_what_the_head_reads():
    one = trained("F")
    with torch.no_grad():
        assert_allclose(one.model.fc(torch.from_numpy(measures.units(one, see, EVERY))), logits(one.model), atol=1e-5)


def test_an_arm_reports_none_for_axes_that_it_has_not_or_never_turned():
    undone = {"gram_cosine", "orthogonality_error", "line_search_failures", "amplification"}
    plain, still, turned, signed, public = (
        measures.report(trained(name), see, LABELS, ROWS) for name in ("BatchNorm", "ZCA", "C", "E", "A")
    )
    assert {key for key, value in plain.items() if value is None} == {*undone, "auc"}
    assert {key for key, value in still.items() if value is None} == undone
    assert {key for key, value in turned.items() if value is None} == {"amplification"}, "exact whitening has none"
    assert {key for key, value in signed.items() if value is None} == {"gram_cosine", "amplification"}
    assert {key for key, value in public.items() if value is None} == set() and public["amplification"] > 0
    assert set(plain) == set(turned) == {*measures.REPORTED, "auc", "amplification", "seconds"}
    assert turned["gram_cosine"] < -0.9 and turned["orthogonality_error"] < 1e-9
    assert turned["line_search_failures"] == 0


def test_whitening_removes_the_correlation_between_channels_that_batch_norm_leaves():
    plain, whitened = (
        measures.report(trained(name), see, LABELS, ROWS)["mean_abs_correlation"] for name in ("BatchNorm", "E2")
    )
    assert whitened < 1e-3 < 0.05 < plain


def test_the_turned_axis_of_the_last_concept_tells_the_last_class():
    longer = replace(BUDGET, steps=40)
    assert measures.report(trained("E", budget=longer), see, LABELS, EVERY)["auc"] > 0.8
    upside_down = dict(reversed(CLASSES.items()))
    assert measures.report(trained("E", upside_down, budget=longer), see, LABELS, EVERY)["auc"] < 0.3


def test_the_last_axis_is_judged_by_the_last_class():
    torch.manual_seed(0)
    maps = torch.randn(12, 4, 3, 3)
    maps[:, 0] = 0
    maps[6:, 1] += 9  # axis 1 tells the class, axis 0 nothing
    labels = np.repeat([0, 1], 6)
    one = training.Trained(nn.Sequential(ConceptWhitening(4, 2, affine=False)).eval(), pd.Series(dtype=float), (), 0.0)
    assert measures.report(one, lambda rows: maps[rows], labels, np.arange(12))["auc"] == 1
    assert measures.report(one, lambda rows: maps[rows], 1 - labels, np.arange(12))["auc"] == 0


def test_an_axis_that_the_head_ignores_has_importance_one_and_the_one_it_needs_more(rng):
    one = trained("E2")
    with torch.no_grad():
        one.model.last[0].conv2.weight[:, [0, *range(2, C)]] = 0
    labels = (fitting.p_patient(one.model, see, EVERY) > 0.5).astype(int)  # as the network says
    before = logits(one.model)
    needed, *ignored = (measures.importance(one, see, labels, EVERY, axis, repeats=3, rng=rng) for axis in (1, 0, 2))
    assert needed["value"] > 1.05 and needed["sd"] > 0
    assert all(found == {"value": pytest.approx(1), "sd": pytest.approx(0, abs=1e-6)} for found in ignored)
    assert torch.equal(logits(one.model), before), "nothing is left behind"


@pytest.mark.parametrize("name", ["BatchNorm", "D2"])
def test_importance_is_that_of_a_network_whose_layer_puts_out_the_dealt_maps(name):
    one, some = trained(name), np.random.default_rng(0).permutation(N)[:70]  # two batches
    found = measures.importance(one, see, LABELS, some, 0, repeats=2, rng=np.random.default_rng(3))
    layer, rng, losses = one.model.last[0].bn1, np.random.default_rng(3), []
    maps = measures._maps(layer, one.model, see, some)
    for order in (np.arange(70), rng.permutation(70), rng.permutation(70)):
        dealt = maps.clone()
        dealt[:, 0] = maps[order, 0]
        hook = layer.register_forward_hook(lambda *_, dealt=dealt: dealt)
        with torch.no_grad():
            losses.append(float(functional.cross_entropy(one.model(see(some)), torch.from_numpy(LABELS[some]))))
        hook.remove()
    ratios = np.array(losses[1:]) / losses[0]
    assert found == {"value": pytest.approx(ratios.mean(), 1e-4), "sd": pytest.approx(ratios.std(), 1e-3)}
    assert abs(ratios - 1).min() > 1e-3, "the toy's axis matters"


@pytest.mark.parametrize("name", ["E2", "F", "G", "A"])
def test_answers_with_permuted_axes_are_those_of_a_network_whose_layer_puts_out_the_permuted_maps(name):
    one, some = trained(name), np.random.default_rng(0).permutation(N)[:70]  # two batches
    orders = [np.arange(70), np.random.default_rng(1).permutation(70), np.random.default_rng(2).permutation(70)]
    permuted = [([], orders[1]), ([0, 1], orders[1]), ([2, 4, 5], orders[2])]
    before = logits(one.model)
    found = measures.answers_permuted(one, see, some, permuted)
    layer = training.norm_of(one.model)
    maps = measures._maps(layer, one.model, see, some)
    for log_odds, (axes, order) in zip(found, permuted, strict=True):
        dealt = maps.clone()
        dealt[:, axes] = maps[order][:, axes]
        hook = layer.register_forward_hook(lambda *_, dealt=dealt: dealt)
        with torch.no_grad():
            wanted = one.model(see(some))
        hook.remove()
        assert_allclose(log_odds, wanted[:, 1] - wanted[:, 0], atol=1e-4)
    plain = before[some, 1] - before[some, 0]
    assert_allclose(found[0], plain, atol=1e-4)
    assert np.abs(found[1] - plain.numpy()).max() > 1e-3, "the toy's axes matter"
    assert torch.equal(logits(one.model), before), "nothing is left behind"


# ---- geometry


def test_two_concepts_that_share_all_rows_are_opposite_and_leave_each_axis_half_the_way():
    found = measures.geometry(trained("E2"), see, CLASSES, ROWS)
    assert found["cosine"] == pytest.approx(-1, abs=1e-3)
    assert found["balance"] == pytest.approx(0, abs=1e-3)
    assert found["reachable"] == pytest.approx(np.sqrt(0.5), abs=0.02)
    assert found["reached"] <= found["reachable"] + 1e-3


def test_the_balance_holds_for_shares_that_differ_and_fails_for_rows_that_neither_shows():
    uneven = {"few": ROWS[:10], "many": ROWS[10:]}
    assert measures.geometry(trained("E2", uneven), see, uneven, ROWS)["balance"] == pytest.approx(0, abs=1e-3)
    left_over = {"few": ROWS[:10], "some": ROWS[10:30]}
    assert measures.geometry(trained("E2", left_over), see, left_over, ROWS)["balance"] > 0.01


def test_only_rows_asked_for_count_as_a_concepts():
    one = trained("E2")
    beyond = {name: np.concatenate([rows, EVERY[60:]]) for name, rows in CLASSES.items()}
    assert measures.geometry(one, see, beyond, ROWS) == pytest.approx(measures.geometry(one, see, CLASSES, ROWS))


def test_one_signed_axis_comes_nearer_to_its_mean_than_two_axes_can():
    longer = replace(BUDGET, steps=60, every=3)
    signed = measures.geometry(trained(replace(training.ARMS["E2"], signed=True), budget=longer), see, CLASSES, ROWS)
    assert signed["reached"] > 0.9 > 0.75 > signed["reachable"]


def all_positions(one: training.Trained) -> dict[str, np.ndarray]:
    """Of the training rows; each group has fewer than a batch, so that none is left out."""
    return measures.positions(one, see, FEW, ROWS, n=10**6, rng=np.random.default_rng(0))


def test_positions_are_as_many_of_each_group_as_asked_for():
    found = measures.positions(trained("E2", FEW), see, FEW, ROWS, n=30, rng=np.random.default_rng(0))
    assert found["group"].tolist() == ["concept 1"] * 30 + ["concept 2"] * 30 + ["other pictures"] * 30
    assert {name: found[name].shape for name in found if name != "group"} == dict.fromkeys(
        ("raw", "standardised", "whitened", "rotated"), (90, 2)
    )


def test_over_the_calibration_set_positions_are_standardised_whitened_and_turned():
    one = trained("E2", FEW)
    found = all_positions(one)
    assert len(found["group"]) == len(ROWS) * SIDE**2
    assert_allclose(found["standardised"].mean(axis=0), 0, atol=1e-4)
    assert_allclose(found["standardised"].std(axis=0), 1, atol=1e-3)
    assert abs(np.corrcoef(found["standardised"].T)[0, 1]) == pytest.approx(abs(np.corrcoef(found["raw"].T)[0, 1]))
    for name in ("whitened", "rotated"):
        assert_allclose(np.cov(found[name].T, bias=True), np.eye(2), atol=2e-3)


def test_positions_are_on_the_two_most_correlated_channels_and_on_the_first_two_axes():
    one = trained("E2", FEW)
    found, layer = all_positions(one), surgery.layer_of(one.model)
    maps = surgery.layer_input(one.model, see(ROWS))
    raw = maps.transpose(0, 1).flatten(1).numpy()
    correlation = np.triu(np.abs(np.corrcoef(raw)), 1)
    pair = np.unravel_index(correlation.argmax(), correlation.shape)
    assert_allclose(np.sort(found["raw"], axis=0), np.sort(raw[list(pair)].T, axis=0), atol=1e-5)
    turned = layer.rotation[:2].float() @ layer.whiten(maps).transpose(0, 1).flatten(1)
    assert_allclose(np.sort(found["rotated"], axis=0), np.sort(turned.numpy().T, axis=0), atol=1e-4)


def test_a_picture_is_of_its_group_at_every_position():
    shown = {"large": CLASSES["patient"][:10], "pale": CLASSES["control"][:10]}
    one = trained("E2", shown)
    found = measures.positions(one, see, shown, ROWS, n=10**6, rng=np.random.default_rng(0))
    maps = surgery.layer_input(one.model, see(shown["large"])).transpose(0, 1).flatten(1).numpy()
    own = found["raw"][found["group"] == "concept 1"]
    assert len(own) == 10 * SIDE**2
    assert all(any(np.allclose(np.sort(column), np.sort(channel), atol=1e-5) for channel in maps) for column in own.T)


def test_each_axis_is_judged_by_its_own_pictures_against_the_others():
    model = nn.Sequential(ConceptWhitening(4, 2, affine=False)).eval()
    maps = torch.zeros(12, 4, 3, 3)
    maps[:4, 0], maps[4:8, 1] = 1, 1  # axis 0 and axis 1, and four of neither
    one = training.Trained(model, pd.Series(dtype=float), (), 0.0)
    rows = {"large": np.arange(4), "pale": np.arange(4, 8)}
    assert measures.axis_aucs(one, lambda few: maps[few], rows, np.arange(8, 12)) == {"large": 1, "pale": 1}
    swapped = {"pale": rows["pale"], "large": rows["large"]}
    assert measures.axis_aucs(one, lambda few: maps[few], swapped, np.arange(8, 12)) == {"pale": 0.5, "large": 0.5}
