"""The workflows cannot run here: hold that they parse, and that all they call is there."""

from __future__ import annotations

import re

import pytest
import yaml

from mitolib.settings import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_that_exist_and_actions_by_their_major_tag(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow[True] and workflow["permissions"], "`on` reads as True in YAML 1.1"
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for step in steps:
        assert ("run" in step) != ("uses" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])
    called = [words.split() for step in steps for words in re.findall(r"\bmake ([\w -]+)", step.get("run", ""))]
    assert called and {target for words in called for target in words if target[0] != "-"} <= TARGETS
    waited = {job["needs"] for job in workflow["jobs"].values() if "needs" in job}
    assert waited <= workflow["jobs"].keys()


def test_every_target_is_listed_by_make_help():
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", text, re.M)[1].split()
    assert set(phony) == set(re.findall(r"^([a-z-]+):.*##", text, re.M)) == TARGETS - {"READY"}
