"""Tests compute what they test: units that an earlier run has kept are out of their sight."""

import os
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """One folder for the units of a session; of several processes the one that starts the others makes it."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="mitolib-units-")
        config.add_cleanup(folder.cleanup)
        os.environ["MITOLIB_UNITS"] = folder.name
