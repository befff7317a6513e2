"""The published numbers: they add up as they should, but for the totals that the paper misprints."""

import math

import pytest

from mitolib import figures, metrics, paper, settings


@pytest.mark.parametrize(
    ("experiment", "controls", "patients", "total"), [("exp1", 276, 938, 1214), ("exp2", 228, 721, 949)]
)
def test_class_totals_are_the_printed_ones(experiment, controls, patients, total):
    table = paper.split_table(experiment)
    assert table["total"].to_dict() == {"control": controls, "patient": patients, "total": total}
    assert list(table.columns) == ["train", "validation", "test", "total"]


def test_one_printed_total_is_wrong_and_only_one():
    wrong = {
        (experiment, part)
        for experiment, printed in paper.PRINTED_TOTALS.items()
        for part in ("train", "validation", "test", "total")
        if paper.split_table(experiment).loc["total", part] != printed[part]
    }
    assert wrong == {("exp1", "test")}
    assert paper.split_table("exp1").loc["total", "test"] == 122


def test_images_are_subjects_times_proteins_times_formats():
    assert paper.IMAGES == (paper.CONTROLS + paper.PATIENTS) * 10 * 2 == paper.JPEG_IMAGES + paper.TIFF_IMAGES


def test_majority_baseline_comes_from_the_test_counts():
    assert paper.majority_baseline("exp1") == 89 / 122
    assert paper.majority_baseline("exp2") == 144 / 190
    assert paper.MAJORITY_BASELINE == {"exp1": 89 / 122, "exp2": 144 / 190}


def test_concept_whitening_is_below_the_baseline_and_the_others_are_not():
    table = paper.scores("exp1")
    below = table.index[table["accuracy"] < table["majority_baseline"]]
    assert list(below) == ["ResNet18+CW"]
    assert table["balanced_accuracy"].isna().all(), "the paper gives none"


def test_experiment_2_is_split_64_16_20():
    counts = paper.split_table("exp2").loc["total"]
    assert [round(100 * counts[part] / counts["total"]) for part in ("train", "validation", "test")] == [64, 16, 20]


def test_comparison_puts_each_published_row_above_ours():
    ours = dict.fromkeys(paper.METRICS, 0.5) | {"epochs": 3, "history": {"loss": [1.0]}, "confusion": [[1, 0], [0, 1]]}
    table = paper.compare_scores({"models": {"ResNet50": ours, "ResNet18": ours}}, "exp1")
    assert list(table.index) == [
        ("VGG16", "paper"),
        ("ResNet50", "paper"),
        ("ResNet50", "this run"),
        ("ResNet18+CW", "paper"),
        ("ResNet18", "this run"),
    ]
    assert list(table.columns) == list(paper.METRICS)
    assert table.loc[("ResNet50", "paper"), "accuracy"] == 0.87
    assert (table.loc[("ResNet50", "this run")] == 0.5).all()
    assert math.isnan(table.loc[("ResNet50", "paper"), "balanced_accuracy"])


def test_hyperparameters_stand_beside_those_of_the_run():
    table = figures.training.hyperparameters(settings.PROFILES["smoke"])
    assert table.loc["epochs"].tolist() == ["100", "2"]
    assert (
        table.loc["augmented views", "paper"] == "not given" and table.loc["dropout", "this run"] == "as in the paper"
    )


def test_the_table_of_scores_says_what_the_paper_does_not_give():
    table = figures.training.score_table({"VGG16": dict.fromkeys(paper.METRICS, 0.5)}, "exp1")
    assert table.loc[("VGG16", "paper"), ["accuracy", "balanced accuracy"]].tolist() == ["0.95", "not given"]
    assert set(table.loc[("VGG16", "one training")]) == {"0.50"}
    assert len(figures.training.score_table({"VGG16": {"accuracy": 0.5}}, "exp1", published=False)) == 1


def test_the_table_of_scores_has_the_mean_of_several_trainings_and_not_the_first():
    first = dict.fromkeys(paper.METRICS, 0.5) | {"seeds": {"1": {}, "2": {}, "3": {}}}
    several = first | {"further_training": {"accuracy": metrics.further_training([0.5, 0.7, 0.9])}}
    ours = figures.training.score_table({"VGG16": several}, "exp1").loc["VGG16"]
    assert ours.loc["mean of 3 trainings", "accuracy"] == "0.70"
    assert ours.loc["one further training", ["accuracy", "f1"]].tolist() == ["-0.29 to 1.69", ""]


def test_unknown_experiment_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"exp3.*exp1, exp2"):
        paper.split_table("exp3")
