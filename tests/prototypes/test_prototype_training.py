from __future__ import annotations

import copy
import time

import numpy as np
import pytest
import torch
from toy_maps import PLANTED, SCHEDULE, STRONG_L1, TREE, toy_maps, trained

from mitolib.prototypes import network, training
from mitolib.prototypes.annotation import Annotation
from mitolib.prototypes.maps import Maps
from mitolib.prototypes.network import GREATEST, Architecture, NotFinite
from mitolib.prototypes.push import FIBRE_PX, push
from mitolib.prototypes.training import Diverged, flat_targets

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def toy():
    return toy_maps()


@pytest.fixture(scope="module")
def fitted(toy):
    torch.set_num_threads(1)
    maps, labels = toy
    return trained(maps, labels, np.arange(12))


def test_the_planted_pattern_is_found_and_named_within_seconds(toy):
    maps, labels = toy
    start = time.process_time()
    found = trained(maps, labels, np.arange(12))
    assert time.process_time() - start < 5
    test = np.arange(12, 24)
    scores = training.scores(found.network, training.activations(found.network, maps, test))["root"]
    assert (scores.argmax(1) == labels[test]).all()
    of_patients = found.pushed.sources[found.pushed.sources["child"] == "patient"]
    assert (of_patients["place"] == PLANTED).all()


def test_every_prototype_is_a_place_of_a_training_patch_of_its_class(toy, fitted):
    maps, labels = toy
    net, sources = fitted.network, fitted.pushed.sources
    latent = maps.latent(net, np.arange(12))
    for j, source in sources.iterrows():
        assert labels[source["row"]] == ("control", "patient").index(source["child"]) and source["row"] < 12
        np.testing.assert_allclose(
            net.node().prototypes[j].detach().numpy(), latent[source["row"], source["place"]], atol=1e-6
        )
        found = training.activations(net, maps, np.array([source["row"]]))["root"][0, j]
        assert found == pytest.approx(GREATEST, abs=1e-6)
        assert source["subject"] == maps.table["subject"][source["row"]]


def moved(maps: Maps, rows: np.ndarray) -> Maps:
    values = maps.values.copy()
    values[rows] = 1 - values[rows]
    return Maps(maps.table, values)


def test_training_reads_the_training_patches_alone(toy, fitted):
    maps, labels = toy
    without = trained(moved(maps, np.arange(12, 24)), labels, np.arange(12))
    assert alike(fitted, without)
    changed = trained(moved(maps, np.array([fitted.pushed.sources["row"][0]])), labels, np.arange(12))
    assert not alike(fitted, changed)


def alike(one: training.Trained, other: training.Trained) -> bool:
    states = [found.network.state_dict() for found in (one, other)]
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_same_seed_gives_the_same_prototypes_and_the_same_file(toy, fitted, tmp_path):
    maps, labels = toy
    again = trained(maps, labels, np.arange(12))
    assert again.pushed.sources.equals(fitted.pushed.sources)
    for name, found in (("a", fitted), ("b", again)):
        network.save(found.network, tmp_path / name, backbone="toy")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_push_does_not_depend_on_the_order_of_rows_or_on_batches(toy, fitted, monkeypatch):
    maps, labels = toy
    found = []
    for rows, batch in ((np.arange(12), 64), (np.arange(12)[::-1], 64), (np.arange(12), 5)):
        monkeypatch.setattr("mitolib.prototypes.maps.BATCH", batch)
        net = network_of(fitted)
        found.append(push(net, maps, rows, flat_targets(labels)).sources)
        found[-1]["prototypes"] = [tuple(p.tolist()) for p in net.node().prototypes.detach()]
    assert found[0].equals(found[1]) and found[0].equals(found[2])


def network_of(fitted: training.Trained) -> network.PrototypeNetwork:
    return copy.deepcopy(fitted.before)


@pytest.fixture
def duplicated(toy):
    """All patches of a class are one patch, cut again a few pixels further: the nearest place repeats."""
    maps, labels = toy
    table = maps.table.assign(y=3 * np.arange(len(labels)))
    values = maps.values.copy()
    for label in (0, 1):
        values[labels == label] = values[np.flatnonzero(labels == label)[0]]
    return Maps(table, values), labels


def test_a_free_push_repeats_a_place_and_a_restricted_one_does_not(duplicated, fitted):
    maps, labels = duplicated
    net = network_of(fitted)
    with torch.no_grad():  # prototypes that want the same
        net.node().prototypes[:2] = net.node().prototypes[0]
        net.node().prototypes[2:] = net.node().prototypes[2]
    rows, targets = np.arange(12), flat_targets(labels)
    assert push(copy.deepcopy(net), maps, rows, targets, distinct=False).duplicates == 2
    pushed = push(copy.deepcopy(net), maps, rows, targets)
    assert pushed.duplicates == 0
    of_sections = pushed.sources.groupby("section")[["y_px", "x_px"]]
    for _, centres in of_sections:
        apart = np.hypot(*(centres.to_numpy()[:, None] - centres.to_numpy()).transpose(2, 0, 1))
        assert (apart[np.triu_indices(len(centres), 1)] >= FIBRE_PX).all()


def test_a_quota_shares_the_prototypes_among_the_subjects(toy, fitted):
    maps, labels = toy
    architecture = Architecture(depth=3, per_child=3)
    found = trained(maps, labels, architecture=architecture, cycles=1, epochs=1, quota=True)
    assert (found.pushed.sources.groupby("child")["subject"].nunique() == 3).all()


def test_more_prototypes_than_places_are_refused(toy):
    maps, labels = toy
    table = maps.table.assign(y=0, section="one")
    with pytest.raises(ValueError, match="no free place is left"):
        trained(Maps(table, maps.values), labels, architecture=Architecture(depth=3, per_child=6), cycles=1, epochs=1)


def test_a_class_without_training_patches_is_refused(toy):
    maps, labels = toy
    with pytest.raises(ValueError, match="'patient' of node 'root' has no training patches"):
        trained(maps, labels, np.flatnonzero(labels == 0))


def test_weights_to_other_classes_vanish_under_a_strong_penalty(toy):
    maps, labels = toy
    found = trained(maps, labels, weights=STRONG_L1)
    node = found.network.node()
    assert (node.weights[torch.arange(2)[:, None] != node.owners] == 0).all()


def test_maps_that_are_not_finite_name_the_patch(toy):
    maps, labels = toy
    values = maps.values.copy()
    values[7, 2, 1] = np.nan
    with pytest.raises(NotFinite, match=r"patch 7 \(section"):
        trained(Maps(maps.table, values), labels)


def test_latent_vectors_that_are_not_finite_name_the_patch(toy, fitted):
    net = network_of(fitted)
    with torch.no_grad():
        net.add_on[2].bias[0] = torch.nan
    with pytest.raises(NotFinite, match=r"patch 3 .* latent"):
        toy[0].latent(net, np.array([3, 4]))


def test_a_loss_that_is_not_finite_ends_training_with_the_last_good_network(toy):
    maps, labels = toy
    with pytest.raises(Diverged, match="learning rate below") as stopped:
        trained(maps, labels, learning_rate=1e30)
    assert all(torch.isfinite(tensor).all() for tensor in stopped.value.last_good.state_dict().values())


def test_maps_of_another_table_are_refused(toy):
    maps, _ = toy
    with pytest.raises(ValueError, match="for a table of 23 patches"):
        Maps(maps.table[:23], maps.values)


def test_the_fine_cost_turns_prototypes_of_the_own_class_to_the_annotated_place(toy):
    """Two places tell the class; only one of them is annotated."""
    maps, labels = toy
    values = maps.values.copy()
    values[labels == 1, 0] = [0, 1.5, 0, 1.5]
    both = Maps(maps.table, values)
    mask = np.zeros((len(labels), 9), np.float32)
    mask[labels == 1] = 1
    mask[labels == 1, PLANTED] = 0
    annotation = Annotation(mask, np.ones(len(labels), bool), others=0.0)
    outside = {}
    for name, given in (("without", None), ("with", annotation)):
        found = trained(both, labels, annotation=given)
        net = found.network
        with torch.no_grad():
            latent = net.latent(both.batch(np.flatnonzero(labels == 1)))
            similar = net.similarities(net.distances(latent))[..., net.node().owners == 1]
        outside[name] = float(similar[:, [place for place in range(9) if place != PLANTED]].mean())
        scores = training.scores(net, training.activations(net, both, np.arange(24)))["root"]
        assert (scores.argmax(1) == labels).all()
    assert outside["with"] < outside["without"]


def test_the_last_layer_gets_no_gradient():
    net = network.PrototypeNetwork(4, TREE, Architecture(depth=3), generator=torch.Generator().manual_seed(0))
    assert not net.node().weights.requires_grad and "nodes.0.weights" not in dict(net.named_parameters())


def test_shuffled_labels_of_subjects_are_not_recognised_on_people_not_seen():
    """Over twenty draws of maps without any pattern, on one subject of each class not trained on."""
    right = []
    for seed in range(20):
        maps, labels = toy_maps(seed=seed)
        values = np.random.default_rng(seed).uniform(0, 1, maps.values.shape).astype(np.float32)
        maps = Maps(maps.table, values)
        unseen = maps.table["subject"].isin(["C0", "P0"]).to_numpy()
        found = trained(maps, labels, np.flatnonzero(~unseen), seed=seed, cycles=1, epochs=3)
        scores = training.scores(found.network, training.activations(found.network, maps, np.flatnonzero(unseen)))
        right.append((scores["root"].argmax(1) == labels[unseen]).mean())
    assert np.mean(right) == pytest.approx(0.5, abs=0.1)


def test_the_toy_schedule_is_that_of_the_chapter_in_small():
    assert SCHEDULE.weights == training.Schedule().weights
