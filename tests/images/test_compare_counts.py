from __future__ import annotations

import numpy as np
import tifffile

from mitolib import images


def write(path, counts_cyx):
    names = ["160Gd_NDUFB8", "166Er_VDAC1"]
    tifffile.imwrite(path, counts_cyx.astype(np.float32), metadata={"axes": "CYX", "Channel": {"Name": names}})
    return path


def test_the_difference_is_from_the_first_file_and_what_is_not_at_hand_is_passed_over(tmp_path, rng):
    counts_cyx = rng.poisson(3, (2, 40, 50)).astype(float)
    first = write(tmp_path / "a.ome.tiff", counts_cyx)
    counts_cyx[1, 3, 4] += 0.25
    second = write(tmp_path / "b.ome.tiff", counts_cyx)
    table = images.compare_counts([None, first, second])
    assert list(table.index) == ["a.ome.tiff", "b.ome.tiff"]
    assert table["isotopes"].tolist() == [["160Gd", "166Er"]] * 2 and set(table["size, px"]) == {"40 x 50"}
    assert table["greatest difference"].tolist() == ["0.0000", "0.2500"]


def test_without_a_file_the_table_is_empty():
    assert images.compare_counts([None, None]).empty
