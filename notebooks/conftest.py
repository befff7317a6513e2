"""Two notebooks tested at once: each process of pytest-xdist has a results folder."""

import os

from mitolib import records

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    common = os.environ.get("MITOLIB_RESULTS") or records.DEFAULT / "smoke"
    os.environ["MITOLIB_RESULTS"] = f"{common}-{worker}"
