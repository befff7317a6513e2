from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from toy_maps import toy_maps

from mitolib.prototypes import taxonomy, training
from mitolib.prototypes.costs import HPNET
from mitolib.prototypes.maps import Maps
from mitolib.prototypes.network import Architecture, PrototypeNetwork
from mitolib.prototypes.push import push
from mitolib.prototypes.taxonomy import COLUMNS, tree_of, with_groups
from mitolib.prototypes.training import Schedule, cost, train

pytestmark = pytest.mark.usefixtures("one_torch_thread")
GENOTYPES = ["nuclear-encoded complex I"] * 2 + ["single large-scale mtDNA deletion"] * 2
GENOTYPES += ["MT-TL1"] * 3 + ["MT-TG", "MT-TE", "MT-TW"]


@pytest.fixture
def people() -> pd.DataFrame:
    """As the phantom has them."""
    table = pd.DataFrame({"subject": [f"C0{i}" for i in range(1, 5)] + [f"P{i:02d}" for i in range(1, 11)]})
    table["label"] = ["control"] * 4 + ["patient"] * 10
    table["genotype"] = ["healthy control"] * 4 + GENOTYPES
    return with_groups(table)


def test_the_tree_of_the_phantom_has_three_nodes(people):
    tree = tree_of(people)
    assert tree.children == {
        "root": ("control", "patient"),
        "patient": ("mt-tRNA point mutation", "nuclear complex I", "single deletion"),
        "mt-tRNA point mutation": ("MT-TE", "MT-TG", "MT-TL1", "MT-TW"),
    }
    assert tree.people("mt-tRNA point mutation")["MT-TL1"] == ["P05", "P06", "P07"]


def test_the_targets_of_a_subject_follow_its_path_and_end_where_nothing_is_known(people):
    people.loc[people["subject"] == "P08", ["genotype", "genotype group"]] = ["", ""]
    targets = tree_of(people).targets(["C01", "P05", "P08", "stranger"])
    assert targets["root"].tolist() == [0, 1, 1, -1]
    assert targets["patient"].tolist() == [-1, 0, -1, -1]
    assert targets["mt-tRNA point mutation"].tolist() == [-1, 1, -1, -1]


def test_a_node_whose_people_all_lie_in_one_child_is_dropped_and_said_so(people):
    tree = tree_of(people)
    smaller = tree.among([s for s in people["subject"] if s not in ("P08", "P09", "P10")])
    assert list(smaller.children) == ["root", "patient"] and tree.dropped(smaller) == ["mt-tRNA point mutation"]


def test_a_value_with_two_parents_is_refused_and_both_are_named(people):
    people.loc[people["subject"] == "P01", "genotype"] = "MT-TG"
    with pytest.raises(ValueError, match="'MT-TG' lies below 'nuclear complex I' and below 'mt-tRNA point mutation'"):
        tree_of(people)


def test_a_column_that_differs_within_a_subject_or_is_not_there_is_refused(people):
    twice = pd.concat([people, people.iloc[[4]].assign(label="control")])
    with pytest.raises(ValueError, match="'label' of subject P01 holds control and patient"):
        tree_of(twice)
    with pytest.raises(ValueError, match="no column 'ward'"):
        tree_of(people, ("label", "ward"))


def test_the_order_of_people_changes_nothing(people):
    assert tree_of(people.sample(frac=1, random_state=0)).children == tree_of(people).children
    assert tree_of(people, COLUMNS[:2]).children.keys() == {"root", "patient"}


TREE = {"root": ("control", "patient"), "patient": ("a", "b")}


def of_toy() -> tuple[Maps, dict[str, np.ndarray]]:
    """The toy with two kinds of patients; rows of all kinds follow each other, so that every batch mixes them."""
    maps, labels = toy_maps()
    values = maps.values.copy()
    kind = np.where(labels == 1, (np.arange(len(labels)) // 2) % 2, -1)
    values[kind == 1, 0] = [0, 1.5, 0, 1.5]
    return Maps(maps.table, values), {"root": labels, "patient": kind}


def test_each_node_is_pushed_onto_patches_below_it_in_mixed_batches():
    maps, targets = of_toy()
    schedule = Schedule(cycles=1, epochs=5, batch_size=12, weights=HPNET)
    architecture = Architecture(depth=8, per_child=2, similarity="HPnet")
    found = train(maps, np.arange(24), targets, TREE, architecture=architecture, schedule=schedule, seed=0)
    sources = found.pushed.sources
    assert len(sources) == 8
    for source in sources.itertuples():
        assert TREE[source.node][targets[source.node][source.row]] == source.child
    shuffled = push(copy.deepcopy(found.before), maps, np.arange(24)[::-1], targets)
    assert shuffled.sources.equals(sources)


def test_a_patient_without_a_genotype_changes_the_cost_of_the_root_only():
    maps, targets = of_toy()
    network = PrototypeNetwork(4, TREE, Architecture(depth=3), generator=torch.Generator().manual_seed(0))
    batch, rows = maps.batch(range(6)), {n: torch.from_numpy(t[:6]) for n, t in targets.items()}
    unknown = rows["patient"].clone()
    unknown[1] = -1

    def gradients(labels):
        network.zero_grad()
        cost(network, batch, labels, HPNET).backward()
        return [network.node(n).prototypes.grad.clone() for n in TREE]

    for before, after, changes in zip(
        gradients(rows), gradients({**rows, "patient": unknown}), (False, True), strict=True
    ):
        assert torch.allclose(before, after) != changes


def test_novelty_rises_where_nothing_is_alike():
    activations, scores = np.array([[5.0, 1.0], [0.5, 0.4]]), np.array([[4.0, -4.0], [0.1, 0.0]])
    for values in taxonomy.novelty(activations, scores).values():
        assert values[1] > values[0]


def test_a_tree_without_patches_of_a_child_is_refused():
    maps, targets = of_toy()
    without = {**targets, "patient": np.where(targets["patient"] == 1, -1, targets["patient"])}
    with pytest.raises(ValueError, match="'b' of node 'patient' has no training patches"):
        train(
            maps,
            np.arange(24),
            without,
            TREE,
            architecture=Architecture(depth=3),
            schedule=training.Schedule(cycles=1, epochs=1),
            seed=0,
        )
