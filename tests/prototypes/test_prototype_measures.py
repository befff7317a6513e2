from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from toy_maps import TREE, toy_maps

from mitolib.prototypes import evidence, measures
from mitolib.prototypes.network import Architecture, PrototypeNetwork
from mitolib.prototypes.relevance import relevance, shared_out, through_linear

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def sources() -> pd.DataFrame:
    table = {"child": ["control", "control", "patient", "patient"], "subject": ["C0", "C0", "P0", "P1"]}
    table |= {"section": ["C0", "C0", "P0", "P1"], "y_px": [100.0, 400, 100, 700], "x_px": [100.0, 100, 100, 100]}
    return pd.DataFrame(table)


WEIGHTS = np.array([[2.0, 1, -1, 0], [-1.0, 0, 3, 1]])


def test_contributions_are_the_lead_of_the_answer_and_add_up_to_it(rng):
    activations = rng.uniform(0, 3, (5, 4))
    scores = activations @ WEIGHTS.T
    found = measures.contributions(activations, WEIGHTS, np.array([0, 1, 0, 1, 1]))
    lead = (scores[:, 1] - scores[:, 0]) * np.array([-1, 1, -1, 1, 1])
    np.testing.assert_allclose(found.sum(axis=1), lead)


def test_self_recognition_knows_the_same_person_the_same_pixels_and_chance(sources):
    table = pd.DataFrame({"section": ["P0", "P0", "P1", "P2"], "subject": ["P0", "P0", "P1", "P2"], "label": "patient"})
    table = table.assign(y=[0, 600, 600, 0], x=0, size=512, trained=[True, True, True, False])
    found = measures.self_recognition(table, np.arange(4), np.array([2, 2, 3, 2]), sources)
    assert found["same_subject"].tolist() == [True, True, True, False]
    assert found["same_pixels"].tolist() == [True, False, True, False]
    assert found["chance"].tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 0])


def test_the_effective_number_of_people_is_that_of_equal_shares(sources):
    activations = np.ones((3, 4))
    found = measures.subjects_of(sources, np.ones((2, 4)), activations, {"control": 3, "patient": 5})
    assert found["control"] == {"distinct": 1, "effective": pytest.approx(1), "available": 3}
    assert found["patient"] == {"distinct": 2, "effective": pytest.approx(2), "available": 5}


def test_nearest_places_are_a_fibre_apart():
    maps, _ = toy_maps()
    similar = np.zeros((2, 9, 1))
    similar[0, [0, 1]], similar[1, 5] = 5, 4
    close = type(maps)(maps.table[:2].assign(size=90, y=[0, 30], x=0, section="one"), maps.values[:2])
    first = measures.nearest_places(similar, close, np.arange(2), n=3)[0]
    centres = close.centres_px(np.arange(2)).reshape(-1, 2)[first]
    apart = np.hypot(*(centres[:, None] - centres).transpose(2, 0, 1))
    assert first[0] == 0 and (apart[np.triu_indices(len(first), 1)] >= 49 * 90 / 512).all()


def test_prototypes_are_matched_whatever_their_order(rng):
    one = rng.random((30, 4))
    partners, correlations = measures.matched(one, one[:, [2, 0, 3, 1]])
    assert partners.tolist() == [1, 3, 0, 2] and correlations == pytest.approx(1)


def test_a_training_repeated_is_found_again_and_one_has_nothing_to_compare(sources, rng):
    run = {"activations": rng.random((30, 4)), "predicted": np.ones(30, bool), "sources": sources}
    found = measures.stability([run, run], fibre_px=49, rng=rng)
    assert found["found_again"]["value"] == 1 and found["agreement"]["value"] == 1
    assert found["shuffled"]["value"] < found["matched"]["value"]
    assert measures.stability([run], fibre_px=49, rng=rng)["matched"]["value"] is None


def test_without_truth_what_needs_it_stays_empty(sources, tmp_path):
    weights = np.ones((2, 4))
    near = pd.DataFrame({"prototype": [0], "subject": ["P0"], "label": ["control"], "section": ["P0"]})
    rows = measures.prototype_table(
        sources.assign(node="root", prototype=range(4), distance=0.1, patch_y=0, patch_x=0),
        weights,
        np.eye(4),
        near.assign(y_px=1.0, x_px=1.0, random_y_px=1.0, random_x_px=1.0),
        measures.Truth(tmp_path),
        classes=("control", "patient"),
        patch_px=512,
        side=14,
    )
    assert [row["fibre"] for row in rows] == [None] * 4 and rows[0]["purity"] is None
    assert rows[0]["consistent"] is None
    assert rows[0]["purity_of_class"] == 1 and [row["share_top"] for row in rows] == [0.25] * 4


def test_purity_is_the_share_of_the_commonest_kind_of_fibre(tmp_path):
    fibres = np.array([[1, 1, 2, 0]], np.uint16)
    (tmp_path / "truth").mkdir()
    tifffile.imwrite(tmp_path / "truth" / "P0.tif", fibres)
    classes = pd.DataFrame({"section": ["P0", "P0"], "fibre": [1, 2], "deficiency": ["CI", "none"]})
    classes.to_csv(tmp_path / "truth" / "fibres.csv", index=False)
    truth = measures.Truth(tmp_path)
    assert [truth.fibre_class("P0", 0.5, x) for x in (0.5, 2.5, 3.5)] == ["CI", "none", "gap"]
    assert truth.deficient_share("P0", 0.5, 1.0, 2) == 1
    sections, ys_px = pd.Series(["P0"] * 4), pd.Series([0.5] * 4)
    assert measures._purity(truth, sections, ys_px, pd.Series([0.5, 1.5, 0.5, 3.5])) == 0.75
    assert truth.kinds_near("P0", 0.5, 2.0, 1) == {"CI", "none"} and truth.kinds_near("P0", 0.5, 3.5, 0.6) == {"gap"}
    for reach_px, consistent in ((1.0, True), (0.5, False)):  # CI near four of five; under three of five
        xs_px = pd.Series([0.5, 0.5, 0.5, 2.0, 3.5])
        found = measures._consistent(truth, pd.Series(["P0"] * 5), pd.Series([0.5] * 5), xs_px, reach_px)
        assert found is consistent
    assert measures._consistent(truth, sections, ys_px, pd.Series([3.5] * 4), 0.5) is False, "gaps are near all places"


def test_a_prototype_among_strangers_would_be_pruned():
    nearest, labels = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]], np.array([0, 0, 0, 0, 1, 1])
    assert measures.pruned(nearest, labels, np.array([0, 1])) == 1


def network(k: int = 1) -> PrototypeNetwork:
    made = PrototypeNetwork(4, TREE, Architecture(depth=8, k=k), generator=torch.Generator().manual_seed(0))
    return made.eval()


def test_relevance_is_shared_out_among_channels_and_uniform_at_the_prototype():
    vector, activation = torch.rand(8), torch.tensor(9.21)
    at_itself = shared_out(vector, vector, activation)
    torch.testing.assert_close(at_itself, torch.full((8,), 9.21 / 8), atol=1e-5, rtol=0)
    elsewhere = shared_out(vector + torch.linspace(0.1, 0.5, 8), vector, activation)
    assert float(elsewhere.sum()) == pytest.approx(9.21, abs=1e-5) and (elsewhere.diff() < 0).all()


def test_no_relevance_is_lost_in_a_layer_without_positive_contributions():
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[0], layer.weight[1] = torch.tensor([1.0, -1, 2]), -1
    found = through_linear(layer, torch.tensor([1.0, 5, 1]), torch.tensor([3.0, 6.0]))
    torch.testing.assert_close(found, torch.tensor([1.0 + 2, 0 + 2, 2 + 2]))


@pytest.mark.parametrize("k", [1, 3])
def test_relevance_at_the_map_sums_to_the_activation_and_lies_in_the_winning_places(k):
    net, (maps, _) = network(k), toy_maps()
    batch = maps.batch([0, 1])
    with torch.no_grad():
        latent = net.latent(batch)
        similar = net.similarities(net.distances(latent))[..., 2]
        activations = net.activations(latent)[:, 2]
    found = relevance(net, batch, 2)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), activations.numpy(), atol=1e-5)
    for n in range(2):
        places = set(np.flatnonzero(found[n].sum(-1)))
        assert places == set(similar[n].topk(k).indices.tolist())


def test_evidence_is_zero_where_a_patch_is_least_alike_and_never_below(rng):
    net = network()
    maps = evidence.of_prototypes(net, rng.uniform(0.1, 3, (4, 9, 10)))
    assert all(stack.min() >= 0 and (stack.reshape(4, -1).min(axis=1) == 0).all() for stack in maps.values())


def test_activation_precision_of_a_patch_without_mask_is_left_out(rng):
    def score(maps_nhw, masks_nyx):
        return pd.DataFrame({"top5": np.where(masks_nyx.any(axis=(1, 2)), 0.5, np.nan)})

    masks = np.zeros((2, 8, 8), bool)
    masks[1, 0] = True
    found = evidence.activation_precision(rng.random((2, 9, 3)), masks, score)
    assert np.isnan(found[0]).all() and (found[1] == 0.5).all()
