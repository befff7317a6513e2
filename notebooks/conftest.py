"""Two notebooks tested at once: each process of pytest-xdist has its results folder, named after the common one."""

import os

from mitolib import records

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    common = os.environ.get("MITOLIB_RESULTS") or records.DEFAULT / "smoke"
    os.environ["MITOLIB_RESULTS"] = f"{common}-{worker}"
