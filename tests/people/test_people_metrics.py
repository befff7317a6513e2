"""What can be said of a handful of people."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, spearmanr
from sklearn.metrics import roc_auc_score

from mitolib.metrics import Estimate
from mitolib.people import metrics


@pytest.mark.parametrize(
    ("right", "n", "percent"),
    [(14, 14, (76.8, 100)), (10, 10, (69.2, 100)), (4, 4, (39.8, 100)), (3, 4, (19.4, 99.4)), (0, 4, (0, 60.2))],
)
def test_the_exact_interval_of_a_share_is_that_of_the_tables(right, n, percent):
    found = metrics.exact_interval(right, n)
    assert [round(100 * end, 1) for end in found] == list(percent)
    assert all(type(end) is float for end in found), "goes into a results file"


def test_exact_intervals_stand_in_a_table_of_every_share_and_size():
    table = metrics.exact_intervals([1, 0.7], [10, 4])
    assert table[["share", "n"]].to_numpy().tolist() == [[1, 10], [1, 4], [0.7, 10], [0.7, 4]]
    wanted = [metrics.exact_interval(*of) for of in ((10, 10), (4, 4), (7, 10), (3, 4))]
    assert [*zip(table["low"], table["high"], strict=True)] == wanted


@pytest.mark.parametrize("n", [1, 4, 14, 60])
def test_the_exact_interval_is_that_of_the_beta_distribution(n):
    for right in range(n + 1):
        low = beta.ppf(0.025, right, n - right + 1) if right > 0 else 0
        high = beta.ppf(0.975, right + 1, n - right) if right < n else 1
        assert metrics.exact_interval(right, n) == pytest.approx((low, high), abs=1e-9)


def test_the_people_needed_are_the_first_ten_with_so_narrow_an_interval():
    table = metrics.exact_intervals([0.9], range(10, 400, 10)).eval("width = high - low")
    narrow = table[table["width"] <= 0.1]
    assert metrics.people_needed(0.9, width=0.1) == narrow["n"].min() == 10 * ((table["width"] > 0.1).sum() + 1)


def test_precision_is_that_of_each_class_and_of_all_people():
    people = pd.DataFrame({"label": ["control"] * 4 + ["patient"] * 10})
    found = metrics.precision(people)
    rows = found.without_error.iloc[:, 0].to_dict()
    assert rows == {
        "10 of 10 patients": "69.2% to 100.0%",
        "4 of 4 controls": "39.8% to 100.0%",
        "14 of 14 people": "76.8% to 100.0%",
    }
    assert set(found.by_size["share"]) == {0.7, 0.9, 1.0} and found.controls_needed == 160


def predictions(*rows: tuple[int, int, str, int, float]) -> pd.DataFrame:
    """Out-of-fold predictions."""
    return pd.DataFrame(rows, columns=["fold", "row", "subject", "truth", "p"])


def once(p: dict[str, list[float]]) -> pd.DataFrame:
    """One fold that tests everybody, subject: p of its patches; the names of controls begin with C."""
    patches = [(subject, one) for subject, own in p.items() for one in own]
    return predictions(*((0, row, subject, int(subject[0] != "C"), one) for row, (subject, one) in enumerate(patches)))


def test_subjects_have_a_score_and_votes_and_controls_come_first():
    found = metrics.by_subject(once({"A1": [0.9, 0.5, 0.85], "C1": [0.6, 0.2], "B1": [0.1]}))
    assert found.index.tolist() == ["C1", "A1", "B1"]
    assert found["truth"].tolist() == [0, 1, 1] and found["n"].tolist() == [2, 3, 1]
    assert found["score"].tolist() == pytest.approx([0.4, 0.75, 0.1])
    assert found["votes"].tolist() == pytest.approx([1 / 2, 2 / 3, 0]), "at 0.5 a patch is not called patient"


def pair_folds(*pairs: tuple[str, str, float, float]) -> pd.DataFrame:
    """A fold for each pair, with two patches of each subject around its score, the control's farther apart."""
    rows = [
        (fold, 2 * "CDPQ".index(subject) + i, subject, "CDPQ".index(subject) // 2, score + (i - 0.5) * apart)
        for fold, (control, patient, *scores) in enumerate(pairs)
        for subject, score, apart in zip((control, patient), scores, (0.4, 0.1), strict=True)
        for i in (0, 1)
    ]
    return predictions(*rows)


SHIFTED = pair_folds(("C", "P", 0.8, 0.9), ("C", "Q", 0.8, 0.9), ("D", "P", 0.1, 0.2), ("D", "Q", 0.1, 0.2))


def test_a_pair_is_compared_within_its_own_fold():
    pooled = metrics.by_subject(SHIFTED)["score"]
    assert pooled["C"] > pooled["P"] == pooled["Q"] > pooled["D"], "over all folds, half of the pairs are in order"
    assert metrics.pairs(SHIFTED).tolist() == [[1, 1], [1, 1]]
    assert metrics.pairs(SHIFTED.assign(fold=0)).tolist() == [[0, 0], [1, 1]], "one fold that tests all is no pair"


def test_the_matrix_of_pairs_has_a_row_for_each_control_and_ties_are_half():
    found = metrics.pairs(once({"P": [0.3], "C": [0.3, 0.5], "Q": [0.2, 0.6], "C2": [0.1], "R": [0.9]}))
    assert found.tolist() == [[0, 0.5, 1], [1, 1, 1]]
    tied = pair_folds(("C", "P", 0.5, 0.5), ("C", "Q", 0.4, 0.3), ("D", "P", 0.2, 0.6), ("D", "Q", 0.7, 0.7))
    assert metrics.pairs(tied).tolist() == [[0.5, 0], [1, 0.5]]
    assert metrics.summary(tied, rng=np.random.default_rng(0), draws=2)["auc_subject"] == 0.5


def test_a_fold_of_more_than_the_pair_does_not_count_as_its_own():
    beside = SHIFTED.copy()
    beside.loc[len(beside)] = (0, 8, "R", 1, 0.95)
    assert metrics.pairs(beside)[0].tolist() == [0, 1, 1] and metrics.pairs(beside)[1].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("n_control", "n_patient"), [(4, 10), (10, 4)])
def test_of_all_labellings_only_the_true_one_is_perfect_and_all_are_as_good_as_the_worst(n_control, n_patient):
    truth = np.repeat([0, 1], [n_control, n_patient])
    assert metrics.permutation_p(np.arange(14.0), truth) == 1 / 1001
    assert metrics.permutation_p(-np.arange(14.0), truth) == 1
    assert metrics.permutation_p(np.zeros(14), truth) == 1, "ties"


def test_a_tie_with_the_true_labelling_counts_as_one_as_great():
    assert metrics.permutation_p(np.array([0.1, 0.7, 0.7]), np.array([0, 0, 1])) == 2 / 3


def test_many_subjects_have_a_permutation_test_too(rng):
    truth = np.repeat([0, 1], 40)
    assert metrics.permutation_p(truth + rng.normal(0, 0.1, 80), truth) < 0.001
    assert metrics.permutation_p(rng.normal(0, 1, 80), truth) > 0.01


@pytest.mark.parametrize("n_patient", [1, 3, 4, 6])
def test_the_permutation_test_goes_through_the_areas_under_the_curve(n_patient, rng):
    scores, truth = rng.integers(0, 5, 7).astype(float), rng.permutation(np.arange(7) < n_patient).astype(int)
    labellings = [np.isin(range(7), chosen) for chosen in combinations(range(7), n_patient)]
    areas = np.array([roc_auc_score(labelling, scores) for labelling in labellings])
    wanted = (areas >= roc_auc_score(truth, scores) - 1e-9).mean()
    assert metrics.permutation_p(scores, truth) == pytest.approx(wanted)
    assert metrics.permutation_p(-scores, 1 - truth) == pytest.approx(wanted)


def all_right() -> dict[str, list[float]]:
    return {f"C{i}": [0.2, 0.1, 0.3] for i in range(4)} | {f"P{i}": [0.8, 0.9] for i in range(10)}


def test_perfect_predictions_are_perfect_in_every_draw(rng):
    found = metrics.summary(once(all_right()), rng=rng, draws=50)
    assert (found["patch_accuracy"], found["balanced_accuracy"], found["auc_subject"]) == (1, 1, 1)
    assert found["subjects_right"] == found["n_subjects"] == 14 and found["p_permutation"] == 1 / 1001
    ends = found["ci"].pop("subjects_right")
    assert ends == list(metrics.exact_interval(14, 14))
    assert set(found["ci"].values()) == {None}, "no interval where every draw gives the same"


def test_the_bootstrap_draws_within_the_classes(rng):
    always = {name: [0.9] * 3 for name in all_right()}
    found = metrics.summary(once(always), rng=rng, draws=50)
    assert found["patch_accuracy"] == pytest.approx(10 / 14) and found["balanced_accuracy"] == 0.5
    assert found["ci"]["patch_accuracy"] is None, "every draw has four controls"
    assert found["ci"]["auc_subject"] is None and found["subjects_right"] == 10


def test_an_interval_of_the_summary_is_wide_where_subjects_differ_and_holds_its_value():
    p = all_right() | {"C0": [0.9, 0.9, 0.1], "P0": [0.1, 0.2], "P1": [0.1, 0.9]}
    found, again = (metrics.summary(once(p), rng=np.random.default_rng(1), draws=200) for _ in range(2))
    assert found == again
    for name in ("patch_accuracy", "balanced_accuracy", "auc_subject"):
        low, high = found["ci"][name]
        assert low < found[name] < high <= 1
    assert found["ci"]["subjects_right"] == list(metrics.exact_interval(11, 14)), "P1 has half the votes: no patient"


def test_balanced_accuracy_is_the_mean_of_the_classes_and_accuracy_is_of_the_patches(rng):
    found = metrics.summary(once({"C": [0.1, 0.9], "P": [0.9] * 3, "Q": [0.9] * 5}), rng=rng, draws=2)
    assert found["patch_accuracy"] == pytest.approx(9 / 10) and found["balanced_accuracy"] == pytest.approx(3 / 4)


def test_a_patch_that_several_folds_test_counts_once(rng):
    often = [(fold, 0, "C", 0, 0.1) for fold in range(6)] + [(0, 1, "C", 0, 0.9)]
    half = [(0, 2, "P", 1, 0.9), (1, 2, "P", 1, 0.2), (0, 3, "P", 1, 0.9)]
    found = metrics.summary(predictions(*often, *half), rng=rng, draws=2)
    assert found["patch_accuracy"] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert found["n_subjects"] == 2 and found["subjects_right"] == 2


def entries() -> list[dict]:
    means = {name: 0.5 + i / 10 for i, name in enumerate(metrics.MEANS)}
    rest = {"subjects_right": 12, "n_subjects": 14, "p_permutation": 0.0123, "p_holm": 0.0246}
    ci = {name: [mean - 0.1, mean + 0.1] for name, mean in means.items()} | {"subjects_right": [0.572, 0.982]}
    of = [("VGG16", "published"), ("VGG16", "pairs"), ("majority", "pairs")]
    return [{"model": model, "split": split, "ci": ci} | means | rest for model, split in of]


def test_summaries_stand_in_a_table_with_every_interval():
    table, to = metrics.summary_table(entries()), "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}"
    assert table.index.names == ["model", "split"]
    assert table.index.tolist() == [("VGG16", "published"), ("VGG16", "pairs"), ("majority", "pairs")]
    assert table.loc[("majority", "pairs")].to_dict() == {
        "patch accuracy": f"0.50 (0.40{to}0.60)",
        "balanced accuracy": f"0.60 (0.50{to}0.70)",
        "auc subject": f"0.70 (0.60{to}0.80)",
        "people called rightly": f"12 of 14 (57%{to}98%)",
        "p (Holm)": "0.025",
    }


def test_one_score_of_summaries_is_sorted_by_split_and_model():
    found = metrics.by_split(entries(), "balanced_accuracy")
    assert {split: list(own) for split, own in found.items()} == {
        "published": ["VGG16"],
        "pairs": ["VGG16", "majority"],
    }
    assert found["pairs"]["majority"] == Estimate(0.6, pytest.approx([0.5, 0.7]))


# ---- seeds, differences, corrections


def of_seeds(*by_seed: dict[str, list[float]]) -> pd.DataFrame:
    return pd.concat([once(p).assign(seed=5 + i) for i, p in enumerate(by_seed)], ignore_index=True)


def test_scores_of_several_seeds_are_means_of_the_scores_of_each(rng):
    right, wrong = {"C": [0.1, 0.2], "P": [0.9, 0.8]}, {"C": [0.9, 0.2], "P": [0.1, 0.3]}
    found = metrics.summary(of_seeds(right, wrong), rng=rng, draws=2)
    alone = [metrics.summary(once(p), rng=rng, draws=2) for p in (right, wrong)]
    for name in metrics.MEANS:
        assert found[name] == pytest.approx(np.mean([scores[name] for scores in alone]))
        assert found["seeds"]["6"][name] == alone[1][name]
    assert list(found["seeds"]) == ["5", "6"] and alone[0]["seeds"] == {}
    assert (found["trainings"], found["collapsed"]) == (2, 0) and alone[0]["trainings"] == 0


def test_a_training_that_gives_one_answer_to_all_has_collapsed(rng):
    right, one_answer = {"C": [0.1, 0.2], "P": [0.9, 0.8]}, {"C": [0.9, 0.7], "P": [0.9, 0.8]}
    found = metrics.summary(of_seeds(right, one_answer, one_answer), rng=rng, draws=2)
    assert (found["trainings"], found["collapsed"]) == (3, 2)


def test_a_paired_difference_draws_the_same_people_for_both():
    """A model that is as much better on everybody: the difference is sure, however different the people are."""
    p = {f"C{i}": [0.1] * (i + 1) + [0.9] * (9 - i) for i in range(4)}
    p |= {f"P{i}": [0.9] * (i % 5) + [0.1] * (10 - i % 5) for i in range(10)}
    better = {name: [0.1 if name[0] == "C" else 0.9] * 2 + own[:-2] for name, own in sorted(p.items())}
    better = {name: sorted(own, reverse=name[0] == "P") for name, own in better.items()}
    worse = {name: sorted(own, reverse=name[0] == "P") for name, own in p.items()}
    found = metrics.difference(once(better), once(worse), rng=np.random.default_rng(0))
    gap, alone = found["balanced_accuracy"], metrics.summary(once(worse), rng=np.random.default_rng(0))
    low, high = alone["ci"]["balanced_accuracy"]
    assert gap["value"] == pytest.approx(0.2, abs=0.05) and gap["n"] == 14
    width = 0 if gap["ci"] is None else gap["ci"][1] - gap["ci"][0]
    assert width < (high - low) / 3
    assert found["p_sign_flip"] < 0.001
    back = metrics.difference(once(worse), once(better), rng=np.random.default_rng(0))
    assert back["auc_subject"]["value"] == -found["auc_subject"]["value"]


def test_a_difference_is_of_the_people_whom_both_tested(rng):
    one, other = once({"C": [0.1], "P": [0.9], "Q": [0.1]}), once({"D": [0.1], "C": [0.9], "P": [0.1]})
    found = metrics.difference(one, other, rng=rng, draws=5)
    assert found["balanced_accuracy"] == {"value": 1, "ci": None, "n": 2}
    assert metrics.difference(one, once({"D": [0.1], "P": [0.9]}), rng=rng) == {}


def test_nothing_differs_from_itself(rng):
    p = once(all_right())
    found = metrics.difference(p, p, rng=rng, draws=20)
    assert found["balanced_accuracy"]["value"] == 0 and found["p_sign_flip"] == 1


def test_p_are_corrected_among_models_under_the_same_split():
    given = [("A", "x", 0.01), ("B", "x", 0.04), ("A", "y", 0.04)]
    entries = [{"model": model, "split": split, "p_permutation": p} for model, split, p in given]
    assert [entry["p_holm"] for entry in metrics.corrected(entries)] == pytest.approx([0.02, 0.04, 0.04])


def test_a_rank_correlation_is_spearman_s_and_needs_four_people_that_differ(rng):
    one = rng.standard_normal(10)
    noisy = one + 0.3 * rng.standard_normal(10)
    found = metrics.rank_correlation(one, noisy)
    correlation = found["rank_correlation"]
    assert correlation["value"] == pytest.approx(spearmanr(one, noisy).statistic)
    assert correlation["ci"][0] < correlation["value"] <= correlation["ci"][1] <= 1 and found["p"] < 0.01
    unrelated = metrics.rank_correlation(np.arange(10), np.array([4, 7, 2, 9, 0, 5, 8, 1, 6, 3]))
    assert unrelated["p"] > 0.05 and unrelated["rank_correlation"]["ci"][0] < 0 < unrelated["rank_correlation"]["ci"][1]
    assert metrics.rank_correlation(one[:3], noisy[:3])["p"] is None
    assert metrics.rank_correlation(one, np.ones(10))["rank_correlation"] == {"value": None, "ci": None, "n": 10}
