"""Whether files that hold the same acquisition give the same counts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from mitolib.images.formats import channels


def compare_counts(paths: Iterable[Path | None]) -> pd.DataFrame:
    """One row for each file, by its name: isotopes, size, greatest count, greatest difference from the first file.

    Of a file with several acquisitions the first is read. paths: None for a file that is not at hand; without any the
    table is empty. Raises CohortError for a file that cannot be read, ValueError for pictures of different size.
    """
    rows, first_cyx = {}, None
    for path in (path for path in paths if path is not None):
        of_first = [channel for channel in channels(path) if channel.acquisition in (None, 1)]
        counts_cyx = np.stack([channel.raw_yx() for channel in of_first])
        first_cyx = counts_cyx if first_cyx is None else first_cyx
        rows[path.name] = {
            "isotopes": [channel.metal for channel in of_first],
            "size, px": f"{of_first[0].height_px} x {of_first[0].width_px}",
            "greatest count": f"{counts_cyx.max():.3f}",
            "greatest difference": f"{np.abs(counts_cyx - first_cyx).max():.4f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")
