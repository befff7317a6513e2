from __future__ import annotations

import numpy as np

from mitolib.saliency import baselines


def test_without_its_two_proteins_the_marker_alone_is_left_out(rng):
    patches = rng.integers(0, 255, (2, 32, 32, 1), np.uint8)
    both = rng.integers(0, 255, (2, 32, 32, 2), np.uint8)
    maps = baselines.without_network(patches, both, rng=np.random.default_rng(0))
    assert list(maps) == list(baselines.BASELINES)
    fewer = baselines.without_network(patches, None, rng=np.random.default_rng(0))
    assert maps.keys() - fewer.keys() == {"marker"}
    assert all((fewer[name] == maps[name]).all() for name in fewer)


def test_every_baseline_is_a_map_of_each_patch_that_knows_what_it_should(rng):
    patches = np.zeros((2, 32, 32, 1), np.uint8)
    patches[:, :, 16:] = 200
    ratio = np.zeros((2, 32, 32, 2), np.uint8)
    ratio[..., 1], ratio[:, :16, :, 0] = 200, 200  # VDAC1 everywhere, NDUFB8 above only
    maps = {name: draw(patches, ratio, rng) for name, draw in baselines.BASELINES.items()}
    assert all(stack.shape == (2, 32, 32) and stack.min() >= 0 for stack in maps.values())
    assert set(np.argwhere(maps["Sobel"][0] > 1e-6)[:, 1]) == {15, 16}, "the edge only"
    assert maps["intensity"][0, 0].tolist() == [0] * 16 + [200 / 255] * 16
    assert maps["centre"][0].max() == maps["centre"][0, 15:17, 15:17].max() > 4 * maps["centre"][0, 0, 0]
    assert maps["marker"][0, 24:].min() > maps["marker"][0, :8].max()
    assert len(np.unique(maps["random"])) == maps["random"].size
