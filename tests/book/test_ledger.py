from __future__ import annotations

import copy
import json

import execute
import ledger
import nbformat
import numpy as np
import pytest

from mitolib import paper
from mitolib.settings import ROOT

CHAPTERS = {"exp1": ("exp1", ("VGG16", "ResNet50")), "exp2": ("exp2", ("VGG16",))}  # experiment and its models
CHAPTERS["concept_whitening"] = ("exp1", ("ResNet18+CW",))


def measured(score: float, half_width: float = 0.02) -> dict[str, object]:
    return {"value": score, "ci": [score - half_width, score + half_width], "n": 5, "left_out": None}


@pytest.fixture
def published() -> dict[str, dict]:
    """Result files that agree with the paper in everything it prints without contradicting itself."""
    return {
        chapter: {
            "profile": "paper",
            "provenance": {
                "weights": {paper.backbone(model): {"source": "mirror"} for model in models},
                "parameters": {"epochs": 100, "learning_rate": 0.001},
            },
            "split": copy.deepcopy(paper.SPLITS[experiment]),
            "models": {
                model: {
                    "seeds": {"127": {}, "128": {}},
                    "further_training": {
                        metric: measured(score) for metric, score in paper.SCORES[experiment][model].items()
                    },
                    "val_accuracy": {seed: [0.5] * n + [0.9] * 60 for seed, n in (("127", 20), ("128", 22))},
                }
                for model in models
            },
        }
        for chapter, (experiment, models) in CHAPTERS.items()
    }


def verdicts(records) -> dict[tuple[str, str], str]:
    return {(row.where, row.what): row.verdict for row in ledger.ledger(records).itertuples()}


def test_a_run_that_agrees_is_reproduced_but_for_the_misprinted_total(published):
    found = verdicts(published)
    wrong = {claim for claim, verdict in found.items() if verdict in (ledger.DIFFERS, ledger.NOT_REPRODUCED)}
    assert wrong == {("Table 1", "test patches, printed total")}, "33 + 89 is not 112"
    assert ledger.NOT_CHECKED not in found.values()


def test_every_cell_of_the_papers_tables_is_a_claim():
    cells = {
        where: sum(claim.where == where for claim in ledger.PRINTED) for where in ("Table 1", "Table 4", "Table 5")
    }
    assert cells == {"Table 1": 7, "Table 4": 12, "Table 5": 4}


def test_a_score_is_reproduced_where_one_further_training_would_lie_give_or_take_rounding(published):
    for low, high, verdict in (
        (0.954, 0.99, ledger.REPRODUCED),
        (0.956, 0.99, ledger.NOT_REPRODUCED),
        (0.80, 0.946, ledger.REPRODUCED),
        (0.80, 0.944, ledger.NOT_REPRODUCED),
    ):
        ours = {"value": (low + high) / 2, "ci": [low, high], "n": 5, "left_out": None}
        published["exp1"]["models"]["VGG16"]["further_training"]["accuracy"] = ours
        assert verdicts(published)["Table 4", "accuracy of VGG16, SDHA"] == verdict, (low, high)
    row = ledger.ledger(published).query("where == 'Table 4' and what == 'accuracy of VGG16, SDHA'").iloc[0]
    assert (row["low"], row["high"]) == (0.80, 0.944), "the interval stands in the row"


def test_one_training_decides_nothing(published):
    published["exp1"]["models"]["VGG16"] |= {"seeds": {"127": {}}, "accuracy": 0.9}
    table = ledger.ledger(published).query("where == 'Table 4' and what.str.contains('VGG16')")
    assert set(table["verdict"]) == {ledger.NOT_CHECKED} and set(table["why"]) == {"one training has no interval"}
    assert table.set_index("what")["ours"]["accuracy of VGG16, SDHA"] == 0.9, "the number itself is shown"
    settled = ledger.ledger(published).query("where == 'Section 4.3' and chapter == 'exp1'")
    assert settled["ours"].isna().all() and set(settled["verdict"]) == {ledger.NOT_CHECKED}


def test_inputs_that_match_and_results_that_were_measured_are_kept_apart(published):
    table = ledger.ledger(published)
    assert set(table["where"][table["kind"] == ledger.INPUT]) == {"Table 1", "Table 2", "Table 3"}
    assert not set(table["where"][table["kind"] == ledger.MEASURED]) & {"Table 1", "Table 2", "Table 3"}


def test_a_patch_too_many_is_not_reproduced(published):
    published["exp2"]["split"]["train"]["control"] += 1
    assert verdicts(published)["Table 2", "train patches, control"] == ledger.DIFFERS


@pytest.mark.parametrize(("chapter", "model"), [("exp1", "ResNet50"), ("concept_whitening", "ResNet18+CW")])
def test_random_weights_decide_nothing(published, chapter, model):
    published[chapter]["provenance"]["weights"][paper.backbone(model)]["source"] = "random"
    assert verdicts(published)["Table 4", f"accuracy of {model}, SDHA"] == ledger.NOT_CHECKED


def test_a_chapter_that_was_not_executed_is_named(published):
    del published["concept_whitening"]
    table = ledger.ledger(published)
    assert set(table["why"][table["verdict"] == ledger.NOT_CHECKED]) == {"concept_whitening was not executed"}


def test_a_smaller_profile_decides_nothing(published):
    published["exp2"]["profile"] = "quick"
    assert {v for (w, _), v in verdicts(published).items() if w in ("Table 2", "Table 5")} == {ledger.NOT_CHECKED}


@pytest.mark.parametrize(
    ("values", "epoch"), [([0.9] * 30, 1), ([0.5] * 10 + [0.9] * 30, 15), (list(np.linspace(0, 1, 50)), 50)]
)
def test_a_curve_settles_when_its_running_mean_stops_moving(values, epoch):
    assert ledger.settled(values) == epoch


def test_an_epoch_by_which_something_has_happened_may_be_earlier_and_not_later(published):
    claim = "Section 4.3", "epoch after which VGG16 is stable, SDHA"
    for n_before, verdict in ((5, ledger.REPRODUCED), (60, ledger.NOT_REPRODUCED)):
        curves = {seed: [0.5] * n_before + [0.9] * 60 for seed in ("127", "128")}
        published["exp1"]["models"]["VGG16"]["val_accuracy"] = curves
        assert verdicts(published)[claim] == verdict


def test_in_the_published_edition_each_verdict_agrees_with_its_numbers():
    records = {name: json.loads((ROOT / "book" / "results" / f"{name}.json").read_text()) for name in CHAPTERS}
    for row in ledger.ledger(records).itertuples():
        if row.verdict == ledger.NOT_CHECKED:
            assert row.why
        elif row.kind == ledger.INPUT:
            assert (row.verdict == ledger.MATCHES) == (row.ours == row.published), row


def test_our_number_links_to_the_heading_under_which_it_was_made():
    for claim in ledger.PRINTED:
        cells = nbformat.read(execute.NOTEBOOKS / f"{claim.chapter}.ipynb", 4).cells
        headings = {line.lstrip("# ") for c in cells if c.cell_type == "markdown" for line in c.source.splitlines()}
        assert claim.made_in in {heading.lower().replace(":", "").replace(" ", "-") for heading in headings}, claim
