from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_maps import ARCHITECTURE, TREE

from mitolib.prototypes import costs, network
from mitolib.prototypes.network import Architecture, PrototypeNetwork

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def make(architecture: Architecture = ARCHITECTURE, tree=TREE, seed: int = 0, channels: int = 4) -> PrototypeNetwork:
    return PrototypeNetwork(channels, tree, architecture, generator=torch.Generator().manual_seed(seed))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("exact", [True, False])
def test_distances_are_those_of_a_loop_over_places(exact):
    latent, prototypes = drawn(5, 9, 3), drawn(4, 3, seed=1)
    found = network.squared_distances(latent, prototypes, exact=exact)
    for n, s, p in np.ndindex(5, 9, 4):
        assert float(found[n, s, p]) == pytest.approx(float(((latent[n, s] - prototypes[p]) ** 2).sum()), abs=1e-5)
    assert (found >= 0).all()


def test_a_place_has_distance_zero_from_itself():
    latent = drawn(2, 9, 128)
    found = network.squared_distances(latent, latent[0, :3], exact=True)
    assert found[0, [0, 1, 2], [0, 1, 2]].tolist() == [0, 0, 0]


def test_similarity_falls_with_distance_from_the_logarithm_of_the_inverse_of_epsilon():
    distances = torch.tensor([0, 1e-3, 0.1, 1, 10, 1000], dtype=torch.float64)
    similar = network.log_ratio(distances)
    assert float(similar[0]) == pytest.approx(9.2103, abs=1e-4) == pytest.approx(network.GREATEST, abs=1e-4)
    assert (similar.diff() < 0).all() and (similar > 0).all()


def test_hpnet_has_another_similarity():
    d, eps = torch.linspace(0, 5, 20, dtype=torch.float64), network.EPSILON
    torch.testing.assert_close(network.log_inverse(d), torch.log((d + eps + 1) / (d + eps)), atol=1e-6, rtol=0)


def test_mean_of_greatest_lies_between_the_maximum_and_the_mean_and_falls_with_k():
    values = drawn(6, 9, 4)
    torch.testing.assert_close(network.mean_of_greatest(values, 1), values.amax(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(network.mean_of_greatest(values, 9), values.mean(1), atol=1e-6, rtol=0)
    by_k = torch.stack([network.mean_of_greatest(values, k) for k in range(1, 10)])
    assert (by_k.diff(dim=0) <= 1e-6).all()
    torch.testing.assert_close(network.mean_of_least(values, 2), values.sort(1).values[:, :2].mean(1))


LABELS, OWNERS = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1, 1])


def test_cluster_and_separation_are_those_of_loops():
    distances = drawn(3, 9, 4)
    own, other = [], []
    for n in range(3):
        own.append(min(distances[n, s, p] for s in range(9) for p in range(4) if OWNERS[p] == LABELS[n]))
        other.append(min(distances[n, s, p] for s in range(9) for p in range(4) if OWNERS[p] != LABELS[n]))
    assert float(costs.cluster_cost(distances, LABELS, OWNERS)) == pytest.approx(np.mean(own), abs=1e-6)
    assert float(costs.separation_cost(distances, LABELS, OWNERS)) == pytest.approx(np.mean(other), abs=1e-6)
    sep_star = costs.hpnet_separation_cost(distances, LABELS, OWNERS, depth=3)
    assert float(sep_star) == pytest.approx(3 - np.mean(other), abs=1e-6)


def test_cluster_has_a_gradient_however_far_the_prototypes_are():
    """The masked maximum of the published codes has none beyond a distance of D."""
    distances = (100 + drawn(3, 9, 4)).requires_grad_()
    costs.cluster_cost(distances, LABELS, OWNERS).backward()
    assert torch.isfinite(distances.grad).all() and float(distances.grad.sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "sign", "moves"),
    [("cluster_cost", 1, "down"), ("separation_cost", -1, "up"), ("hpnet_separation_cost", 1, "up")],
)
def test_a_gradient_step_moves_a_cost_the_right_way(name, sign, moves):
    of_prototypes, latent = drawn(4, 3, seed=1).requires_grad_(), drawn(3, 9, 3)

    def value(name: str) -> torch.Tensor:
        distances = network.squared_distances(latent, of_prototypes, exact=True)
        further = (3,) if name == "hpnet_separation_cost" else ()
        return getattr(costs, name)(distances, LABELS, OWNERS, *further)

    watched = "cluster_cost" if name == "cluster_cost" else "separation_cost"
    before = float(value(watched).detach())
    (sign * value(name)).backward()
    with torch.no_grad():
        of_prototypes -= 0.01 * of_prototypes.grad
    after = float(value(watched).detach())
    assert after < before if moves == "down" else after > before


def test_the_fine_cost_is_that_of_a_loop_and_scales_with_similarity():
    similar, mask, others = drawn(3, 9, 4), drawn(3, 9, seed=2), torch.tensor([1.0, 0.0, 0.5])
    found = costs.fine_annotation(similar, LABELS, OWNERS, mask, others)
    total = 0.0
    for n, p in np.ndindex(3, 4):
        m = mask[n] if OWNERS[p] == LABELS[n] else others[n]
        total += 224 / 3 * float(((m * similar[n, :, p]) ** 2).sum()) ** 0.5 / 3
    assert float(found) == pytest.approx(total, rel=1e-6)
    assert float(costs.fine_annotation(2 * similar, LABELS, OWNERS, mask, others)) == pytest.approx(2 * total, rel=1e-6)
    nothing = torch.zeros(3, 9), torch.zeros(3)
    assert float(costs.fine_annotation(similar, LABELS, OWNERS, *nothing)) == 0


def test_the_fine_cost_has_a_gradient_where_it_is_zero_and_needs_masks_of_the_maps_size():
    similar = drawn(3, 9, 4).requires_grad_()
    costs.fine_annotation(similar, LABELS, OWNERS, torch.zeros(3, 9), torch.zeros(3)).backward()
    assert torch.isfinite(similar.grad).all()
    with pytest.raises(ValueError, match="masks of shape"):
        costs.fine_annotation(similar, LABELS, OWNERS, torch.zeros(3, 4), torch.zeros(3))


def test_the_last_layer_starts_at_one_for_the_own_class_and_has_no_bias():
    net = make()
    assert net.node().weights.tolist() == [[1, 1, -0.5, -0.5], [-0.5, -0.5, 1, 1]]
    assert net.node().scores(torch.zeros(2, 4)).abs().max() == 0


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"per_child": 0}, {"k": 0}, {"similarity": "cosine"}])
def test_an_architecture_that_cannot_be_built_is_refused(wrong):
    with pytest.raises(ValueError, match=r"wanted|not one of"):
        Architecture(**wrong)


def test_more_places_than_a_map_has_and_other_maps_are_refused():
    with pytest.raises(ValueError, match="k is 10, and a map has 9 places"):
        make(Architecture(depth=3, k=10))(drawn(2, 9, 4))
    with pytest.raises(ValueError, match=r"maps of shape \(2, 9, 5\)"):
        make()(drawn(2, 9, 5))


DEEP = {"root": ("control", "patient"), "patient": ("nuclear", "deletion", "tRNA"), "tRNA": ("MT-TL1", "MT-TG")}


def test_the_probabilities_of_leaves_are_products_of_conditionals_and_sum_to_one():
    scores = {k: v.detach() for k, v in make(tree=DEEP).eval()(drawn(5, 9, 4)).items()}
    leaves = network.leaf_probabilities(scores, DEEP)
    assert sorted(leaves) == sorted(["control", "nuclear", "deletion", "MT-TL1", "MT-TG"])
    torch.testing.assert_close(sum(leaves.values()), torch.ones(5), atol=1e-6, rtol=0)
    conditional = {node: of_node.softmax(1) for node, of_node in scores.items()}
    product = conditional["root"][:, 1] * conditional["patient"][:, 2] * conditional["tRNA"][:, 0]
    torch.testing.assert_close(leaves["MT-TL1"], product, atol=1e-6, rtol=0)


def test_a_tree_with_one_node_is_the_flat_network_and_other_names_change_nothing():
    maps = drawn(5, 9, 4)
    renamed = make(tree={"root": ("zebra", "ape")})
    torch.testing.assert_close(make()(maps)["root"], renamed(maps)["root"], atol=0, rtol=0)
    leaves = network.leaf_probabilities(renamed(maps), renamed.tree)
    torch.testing.assert_close(leaves["ape"], make()(maps)["root"].softmax(1)[:, 1], atol=1e-6, rtol=0)


def test_a_saved_network_is_the_same_bytes_and_the_same_network_again(tmp_path):
    for name in ("a.npz", "b.npz"):
        network.save(make(seed=3), tmp_path / name, backbone="d1")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded, maps = network.load(tmp_path / "a.npz", backbone="d1"), drawn(2, 9, 4)
    torch.testing.assert_close(loaded(maps)["root"], make(seed=3).eval()(maps)["root"], atol=0, rtol=0)


def test_a_network_of_another_backbone_is_refused(tmp_path):
    network.save(make(), tmp_path / "a.npz", backbone="one channel")
    with pytest.raises(ValueError, match="trained on the maps of a backbone"):
        network.load(tmp_path / "a.npz", backbone="ten channels")
