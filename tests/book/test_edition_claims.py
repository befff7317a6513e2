"""Does a published page say what its results deny?"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from mitolib import claims, figures, people, prototypes, saliency, whitening
from mitolib.claims import Claim
from mitolib.metrics import further_training
from mitolib.settings import ROOT

CLAIMS: dict[str, Callable[[Mapping[str, Any]], list[Claim]]] = {
    "exp1": figures.conclusions.of_experiment,
    "exp2": figures.conclusions.of_experiment,
    "freezing": figures.conclusions.of_freezing,
    "concept_whitening": whitening.experiment.claims,
    "real_concepts": whitening.real_concepts.claims,
    "gradcam": saliency.claims,
    "explanations": saliency.ways.claims,
    "patient_level": people.claims,
    "prototypes": prototypes.claims,
}
RESULTS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "book" / "results").glob("*.json"))}


def denied(record: Mapping[str, Any], page: str) -> Iterator[str]:
    """What a results file or its page says that the predicates of its claims do not, one line each."""
    answers = claims.conclusions(CLAIMS[record["chapter"]](record), record)
    if set(answers) != set(record["claims"]):
        yield f"claims {sorted(record['claims'])}; wanted {sorted(answers)}"
    for name, told in record["claims"].items():
        if name in answers and told != vars(answers[name]):
            yield f"{name}: says {told['sentence']!r}; its numbers say {answers[name].sentence!r}"
        if told["sentence"] not in page:
            yield f"{name}: {told['sentence']!r} is not on the page"


def outputs(chapter: str) -> str:
    """Markdown that the cells of an executed chapter show."""
    cells = json.loads((ROOT / "book" / "chapters" / f"{chapter}.ipynb").read_text())["cells"]
    shown = (output["data"] for cell in cells for output in cell.get("outputs", []) if "data" in output)
    return "\n".join("".join(data.get("text/markdown", "")) for data in shown)


@pytest.mark.parametrize("chapter", [name for name, record in RESULTS.items() if "claims" in record])
def test_a_published_page_says_what_its_predicates_say(chapter):
    assert list(denied(RESULTS[chapter], outputs(chapter))) == []


def test_a_planted_false_claim_is_found():
    entry = {
        "n_collapsed": 0,
        "further_training": {
            "balanced_accuracy": vars(further_training([0.80, 0.82, 0.81])),
            "auc": vars(further_training([0.9, 0.9, 0.91])),
            "generalisation_gap": vars(further_training([0.1, 0.1, 0.1])),
        },
    }
    record = {"chapter": "exp1", "budget": {"VGG16": {"seeds": 3}}, "models": {"VGG16": entry}}
    answers = claims.conclusions(figures.conclusions.of_experiment(record), record)
    record["claims"] = {name: dict(vars(answer)) for name, answer in answers.items()}
    page = figures.pages.conclusions(answers)
    assert list(denied(record, page)) == []

    planted = copy.deepcopy(record)
    planted["models"]["VGG16"]["further_training"]["balanced_accuracy"] = vars(further_training([0.4, 0.5, 0.6]))
    (found,) = denied(planted, page)
    assert "VGG16-beats-one-answer" in found and "It is open" in found
    edited = copy.deepcopy(record)
    edited["claims"]["VGG16-overfits"]["sentence"] = "VGG16 does not overfit."
    assert len(list(denied(edited, page))) == 2, "neither its numbers nor its page say so"
