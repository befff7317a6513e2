"""The sentences of the chapter: one for each finding of its record, none for what the data do not allow."""

from __future__ import annotations

import json
import re

import pytest

from mitolib.people import conclusions
from mitolib.settings import ROOT

PAIRS = "leave-one-control-one-patient-out"


def entry(model: str, split: str, **scores: object) -> dict[str, object]:
    means = {"balanced_accuracy": 0.51, "auc_subject": 0.62}
    ci = {"balanced_accuracy": [0.41, 0.61], "auc_subject": [0.52, 0.72]}
    rest = {"subjects_right": 9, "n_subjects": 14}
    return {"model": model, "split": split, "ci": ci} | means | rest | scores


def record(*, whole: bool) -> dict:
    """Of a phantom, or of data of one's own that allow neither the published split, nor twins, nor fibres."""
    split_names = ["published", PAIRS] if whole else [PAIRS]
    shuffled = [
        {"model": "VGG16 features, logistic", "split": split, "draw": draw, "balanced_accuracy": 0.7 + draw / 10}
        for draw in range(2)
        for split in split_names
    ]
    share = {"share_of_patches": 0.98, "mean_shared_fraction": 0.83, "subjects_seen": 1.0}
    fibres = [entry("outlined fibres, grey levels", PAIRS, subjects_right=13, auc_subject=0.97)]
    pictures = [entry("patches", PAIRS), entry("sections", PAIRS, auc_subject=0.66, subjects_right=11)]
    return {
        "leak": {"exp1": share} if whole else {},
        "table": [entry(model, split) for model in ("majority", "VGG16 head") for split in split_names],
        "controls": {
            "permuted_labels": shuffled,
            "subject_probe": {"VGG16, published": {"accuracy": 0.91, "chance": 0.13}} if whole else {},
        },
        "carried": {"VGG16 head": {"published": {"turned": 2, "called": 10}}} if whole else {},
        "honest": fibres * whole + pictures,
        "controls_needed": 160,
    }


def test_every_finding_has_its_numbers():
    lines = conclusions.findings(record(whole=True)).splitlines()
    numbers = [set(re.findall(r"\d+(?:\.\d+)?%?", line.partition(". ")[2])) for line in lines]
    assert [line.partition(".")[0] for line in lines] == [str(i) for i in range(1, 10)]
    wanted = [
        {"98%", "83%", "100%"},
        {"0.51", "0.62"},
        {"0.75"},
        {"91%", "13%"},
        {"2", "10"},
        {"13", "14", "0.97"},
        {"11", "14", "0.66"},
        {"14", "77%", "160"},
    ]
    assert all(here <= there for here, there in zip(wanted, numbers[:8], strict=True))
    assert "*sections*" in lines[6], "the best of those that see pictures, not the fibres"


def test_what_the_data_do_not_allow_has_no_sentence():
    text = conclusions.findings(record(whole=False))
    assert len(text.splitlines()) == 4 and "published" not in text and "curing" not in text and "grey" not in text


@pytest.mark.parametrize("path", [ROOT / "book" / "results" / "patient_level.json"])
def test_the_published_record_can_be_concluded_from(path):
    text = conclusions.findings(json.loads(path.read_text()))
    assert len(text.splitlines()) >= 9 and not re.search(r"\bnan\b|None", text)
