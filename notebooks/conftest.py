"""Two notebooks tested at once: each process of pytest-xdist has its results folder."""

import os

from mitolib import records

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["MITOLIB_RESULTS"] = str(records.DEFAULT / f"smoke-{worker}")
