"""Units of the toys lie in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mitolib import units


@pytest.fixture(scope="module", autouse=True)
def unit_folders(tmp_path_factory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "PUBLISHED"):
            patch.setattr(units, name, tmp_path_factory.mktemp(name.lower()))
        patch.delenv("MITOLIB_SHARE", raising=False)
        patch.delenv("MITOLIB_UNITS", raising=False)
        yield
