"""What test patches have in common with training patches."""

from __future__ import annotations

import pandas as pd
import pytest

from mitolib.people.leak import Leakage, in_common


def test_a_leak_is_counted_in_patches_pixels_and_people():
    table = pd.DataFrame({"subject": list("AABBC")})
    split = pd.Series(["train", "test", "test", "validation", "test"])
    found = in_common(table, split, pd.Series([1.0, 0.5, 0.0], index=[1, 2, 4]))
    assert found == {
        "share_of_patches": pytest.approx(2 / 3),
        "mean_shared_fraction": 0.5,
        "wholly_seen": pytest.approx(1 / 3),
        "subjects_seen": pytest.approx(1 / 3),
    }


def test_without_a_published_split_the_leak_is_left_out():
    assert "Left out" in Leakage({}, {}).table()._repr_markdown_()
