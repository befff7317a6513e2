"""Out-of-fold predictions: who is asked what, the same in one process and in two, and what comes of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mitolib import splits
from mitolib.people import evaluation, metrics, models, morphometry, protocols

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
        assert entry.pop("p_holm") >= scores["p_permutation"]
        assert entry == {"model": entry["model"], "split": entry["split"]} | scores
    assert list(result.by_model()) == ["VGG16-head-ten", "majority"]
    assert result.by_model()["majority"]["pairs"] is result.entries[3]
    assert set(result.estimates()["AUC over people"]["pairs"]) == set(trials)
    whole = evaluation.evaluate(evaluation.ask(trials), rng=np.random.default_rng(1))
    assert whole.table().index.tolist() == wanted


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
    assert {split: len(folds) for split, folds in tried.folds.items()} == {
        protocols.UNSEEN: 10,
        protocols.ALL_PAIRS: 4 * 10,
    }
    folds = [fold for of_split in tried.folds.values() for fold in of_split]
    assert all(set(fold[len(table) :]) == {""} for fold in folds)
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
    assert [entry["model"] for entry in (one + other).entries] == ["majority"] * 2 + ["other"] * 2
    assert list((one + other).predictions) == ["majority", "other"]


# ---- differences


def told(names: list[str], right: dict[str, float]) -> pd.DataFrame:
    """Ten patches of each person, of which a share is called rightly."""
    rows = []
    for name in names:
        truth = int(name[0] == "P")
        answers = np.where(np.arange(10) < 10 * right[name], truth, 1 - truth)
        rows += [(0, len(rows) + i, name, truth, float(p), "") for i, p in enumerate(answers)]
    return pd.DataFrame(rows, columns=["fold", "row", "subject", "truth", "p", "twin"])


def two_splits() -> evaluation.Evaluation:
    """Everybody is right on 9 of 10 patches under the published split and on 6 of 10 when held out."""
    names = CONTROLS + PATIENTS
    seen, held_out = (told(names, dict.fromkeys(names, share)) for share in (0.9, 0.6))
    by_split = {protocols.SEEN: seen, protocols.UNSEEN: held_out}
    return evaluation.Evaluation([], {"VGG16 head, ten": by_split, "majority": by_split, "one": {protocols.SEEN: seen}})


def test_differences_are_of_all_models_but_the_majority_between_the_splits_that_they_have(rng):
    found = two_splits().between_splits(rng=rng)
    (entry,) = found.entries
    assert (entry["model"], entry["of"], entry["minus"]) == ("VGG16 head, ten", protocols.SEEN, protocols.UNSEEN)
    assert entry["balanced_accuracy"] == {"value": pytest.approx(0.3), "ci": None, "n": 14}, "alike in every draw"
    assert entry["p_holm"] == entry["p_sign_flip"] == pytest.approx(2 / 2**14)
    assert found.by_name()["VGG16-head-ten"]["published-minus-paired-folds"] is entry
    assert found.table().loc[("VGG16 head, ten", "published", "paired-folds"), "people"] == 14


def test_two_models_are_compared_on_people_not_seen(rng):
    names = CONTROLS + PATIENTS
    better, worse = (told(names, {name: share for name in names}) for share in (0.8, 0.3))
    tried = evaluation.Evaluation([], {"A": {protocols.UNSEEN: better}, "B, b": {protocols.UNSEEN: worse}})
    found = tried.between_models([("A", "B, b"), ("B, b", "A")], rng=rng)
    assert [entry["balanced_accuracy"]["value"] for entry in found.entries] == pytest.approx([0.5, -0.5])
    assert found.by_name()["A"]["B-b"]["p_holm"] == pytest.approx(2 * found.entries[0]["p_sign_flip"])
    assert "Left out" in str(evaluation.Differences([]).table())


def test_persons_stand_beside_their_deficient_fibres_and_those_missed_are_compared_with_those_found():
    names = CONTROLS + PATIENTS
    right = dict.fromkeys(names, 0.8) | {"P0": 0.2, "P1": 0.1, "C2": 0.0}
    shares = pd.Series({name: (0.0 if name[0] == "C" else 0.05 + int(name[1:]) / 20) for name in names})
    tried = evaluation.Evaluation([], {"VGG16 head": {protocols.UNSEEN: told(names, right)}})
    persons = tried.persons(morphometry.Fibres({}, "", shares, "as drawn"))
    table = persons.table()
    assert table.index.tolist() == names and table.loc["P0", "VGG16 head"] == "0.20, wrong"
    assert table.loc["P9", "deficient fibres"] == "50.0%" and table.loc["C2", "class"] == "control"
    record = persons.record()["VGG16-head"]
    assert record["wrong"] == ["C2", "P0", "P1"] and list(record["missed"]) == ["P0", "P1"]
    assert record["p_fewer"] == pytest.approx(1 / 45), "of 45 choices of two, the two with the fewest"
    assert record["people"]["P1"] == {"label": "patient", "p": pytest.approx(0.1), "right": False, "share": 0.1}
    unknown = tried.persons(morphometry.Fibres({}, "", pd.Series(dtype=float))).record()["VGG16-head"]
    assert unknown["p_fewer"] is None and unknown["people"]["P1"]["share"] is None
