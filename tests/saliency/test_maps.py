from __future__ import annotations

import numpy as np

from mitolib.saliency import maps


def test_maps_are_enlarged_within_their_range_and_stretched_without_dividing_by_zero():
    stacks = np.array([[[0.0, 4], [2, 2]], [[3, 3], [3, 3]]])
    large = maps.enlarge(stacks, 8)
    assert large.shape == (2, 8, 8) and large.min() == 0 and large.max() == 4 and (large[1] == 3).all()
    assert maps.unit(stacks).tolist() == [[[0, 1], [0.5, 0.5]], [[0, 0], [0, 0]]]
