from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from mitolib.saliency import randomisation


def test_a_map_is_like_itself_and_unlike_its_negative_and_an_empty_map_is_like_nothing(rng):
    maps = rng.random((3, 14, 14))
    others = np.stack([maps[0] * 7, 1 - maps[1], np.zeros((14, 14))])
    alike = randomisation.similarity(maps, others)
    assert_allclose(alike.iloc[0], 1)
    assert_allclose(alike["spearman"][1], -1) and alike["ssim"][1] < 0
    assert alike.iloc[2].isna().all()


def test_over_seeds_the_mean_is_of_what_is_defined_patch_by_patch():
    seeds = [pd.DataFrame({"ssim": values}) for values in ([0.2, np.nan, np.nan], [0.4, 0.6, np.nan])]
    mean = randomisation.mean_by_patch(seeds)["ssim"].tolist()
    assert mean[:2] == [pytest.approx(0.3), 0.6] and np.isnan(mean[2])


def test_maps_of_different_patches_need_two(rng):
    maps = rng.random((3, 14, 14))
    pd.testing.assert_frame_equal(
        randomisation.different_patches(maps), randomisation.similarity(maps, maps[[2, 0, 1]])
    )
    assert randomisation.different_patches(maps[:1]).isna().all(axis=None), "not one, as of a map and itself"
