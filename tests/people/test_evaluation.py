"""Out-of-fold predictions: who is asked what, the same in one process and in two, and what comes of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mitolib import splits
from mitolib.people import evaluation, metrics, models, protocols

CONTROLS, PATIENTS = [f"C{i}" for i in range(4)], [f"P{i}" for i in range(10)]


def people(each: int = 20) -> tuple[pd.DataFrame, np.ndarray]:
    """`each` patches of each of 14 subjects, and their class indices."""
    table = pd.DataFrame({"subject": np.repeat(CONTROLS + PATIENTS, each)})
    truth = (table["subject"].str[0] == "P").to_numpy(int)
    return table.assign(label=np.array(["control", "patient"])[truth]), truth


def recording(asked: list[tuple[list[int], list[int]]]) -> models.Model:
    """A model that notes what it was given; its p is a hundredth of the row."""

    def model(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        asked.append((train.tolist(), test.tolist()))
        return test / 100

    return model


def test_every_tested_patch_of_every_fold_is_answered_in_order():
    table = pd.DataFrame({"subject": list("ABCD"), "label": ["control", "patient"] * 2, "twin": ["", "", "", "cured"]})
    folds = [pd.Series(fold) for fold in (["test", "train", "validation", "test"], ["train", "test", "", "train"])]
    asked = []
    answers = evaluation.out_of_fold(recording(asked), table, folds)
    assert asked == [([1], [0, 3]), ([0, 3], [1])], "what is neither train nor test is not touched"
    columns = ["fold", "row", "subject", "truth", "p", "twin"]
    assert set(answers) == set(columns)
    wanted = [[0, 0, "A", 0, 0.0, ""], [0, 3, "D", 1, 0.03, "cured"], [1, 1, "B", 1, 0.01, ""]]
    assert answers[columns].to_numpy().tolist() == wanted


@pytest.mark.parametrize("kind", ["logistic", "head"])
def test_two_processes_answer_as_one(kind, rng):
    table, truth = people(each=3)
    folds = protocols.leave_one_subject_out(table)[::3]
    if kind == "head":
        maps_nhwc = (truth[:, None, None, None] + rng.standard_normal((len(table), 7, 7, 2))).astype(np.float16)
        model = models.Head(maps_nhwc, truth, steps=3, batch_size=4, seed=5)
    else:
        model = models.Logistic(rng.standard_normal((len(table), 4)), truth)
    one, two = (evaluation.out_of_fold(model, table, folds, workers=workers) for workers in (1, 2))
    assert one["p"].nunique() > len(folds)
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-6)


def auc_of_pairs(answers: pd.DataFrame) -> float:
    """Share of the folds, each of a control and a patient, in which the patient has the greater mean p."""
    means = answers.groupby(["fold", "truth"])["p"].mean().unstack()
    return (means[1] > means[0]).mean()


def test_subjects_without_a_disease_are_told_apart_by_the_published_split_and_not_by_pairs():
    table, truth = people()
    accuracies, aucs = [], []
    for draw in range(8):
        rng = np.random.default_rng(draw)
        of_subject = rng.standard_normal((14, 50)).repeat(20, axis=0)
        model = models.Logistic(of_subject + 0.1 * rng.standard_normal(of_subject.shape), truth)
        answers = evaluation.out_of_fold(model, table, [splits.published(table, "exp2")])
        accuracies.append(((answers["p"] > 0.5) == (answers["truth"] == 1)).mean())
        pairs = protocols.leave_one_control_one_patient_out(table)
        aucs.append(auc_of_pairs(evaluation.out_of_fold(model, table, pairs)))
    assert min(accuracies) > 0.95 and abs(np.mean(aucs) - 0.5) < 0.2


def test_a_disease_is_found_by_both_splits(rng):
    table, truth = people()
    model = models.Logistic(2 * truth[:, None] + rng.standard_normal((len(table), 20)), truth)
    answers = evaluation.out_of_fold(model, table, [splits.published(table, "exp2")])
    assert ((answers["p"] > 0.5) == (answers["truth"] == 1)).mean() > 0.95
    pairs = protocols.leave_one_control_one_patient_out(table)
    assert auc_of_pairs(evaluation.out_of_fold(model, table, pairs)) == 1


# ---- trials


def trial(table: pd.DataFrame, model: models.Model) -> evaluation.Trial:
    pairs = protocols.leave_one_control_one_patient_out(table)
    return evaluation.Trial(lambda: model, table, {"published": [splits.published(table, "exp2")], "pairs": pairs})


def test_every_model_has_an_entry_and_predictions_under_every_split_in_order(rng):
    table, truth = people(each=6)
    trials = {
        "VGG16 head, ten": trial(table, models.Logistic(rng.standard_normal((len(table), 3)), truth)),
        "majority": trial(table, models.Majority(truth)),
    }
    result = evaluation.evaluate(evaluation.ask(trials), rng=np.random.default_rng(1))
    wanted = [(model, split) for model in trials for split in ("published", "pairs")]
    assert [(entry["model"], entry["split"]) for entry in result.entries] == wanted
    assert [(model, split) for model, by_split in result.predictions.items() for split in by_split] == wanted
    rng_again = np.random.default_rng(1)
    for entry in result.entries:
        scores = metrics.summary(result.predictions[entry["model"]][entry["split"]], rng=rng_again)
        assert entry == {"model": entry["model"], "split": entry["split"]} | scores
    assert list(result.by_model()) == ["VGG16-head-ten", "majority"]
    assert result.by_model()["majority"]["pairs"] is result.entries[3]
    assert set(result.estimates()["AUC over people"]["pairs"]) == set(trials)
    assert result.table().index.tolist() == wanted


def test_twins_are_answered_and_do_not_count(rng):
    table, truth = people(each=2)
    twinned = pd.concat([table.assign(twin=""), table.assign(twin="cured")], ignore_index=True)
    fold = pd.Series("test", twinned.index)

    def model(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return np.where(test < len(table), truth[test % len(table)], 0.0)

    asked = evaluation.ask({"model": evaluation.Trial(lambda: model, twinned, {"all": [fold]})})
    result = evaluation.evaluate(asked, rng=rng)
    assert result.entries[0]["balanced_accuracy"] == 1 and len(result.predictions["model"]["all"]) == len(twinned)


def test_a_trial_on_people_not_seen_neither_tests_twins_nor_trains_on_them():
    table, _ = people(each=1)
    twinned = pd.concat([table.assign(twin=""), table.assign(twin="cured")], ignore_index=True)
    tried = evaluation.unseen_trial(lambda: recording([]), twinned)
    (folds,) = tried.folds.values()
    assert len(folds) == 4 * 10 and all(set(fold[len(table) :]) == {""} for fold in folds)
    assert all((fold == "test").sum() == 2 and (fold == "train").sum() == 12 for fold in folds)


def test_evaluations_are_added_one_below_the_other_and_an_empty_one_adds_nothing(rng):
    table, truth = people(each=6)
    one, other = (
        evaluation.evaluate(evaluation.ask({name: trial(table, models.Majority(truth))}), rng=rng)
        for name in ("majority", "other")
    )
    nothing = evaluation.evaluate(evaluation.ask({}), rng=rng, remark="Left out: fibres.")
    assert nothing.remark == "Left out: fibres." and nothing.entries == []
    assert (nothing + one).entries == one.entries and (nothing + one).predictions == one.predictions
    assert (one + other).entries == one.entries + other.entries
    assert list((one + other).predictions) == ["majority", "other"]
