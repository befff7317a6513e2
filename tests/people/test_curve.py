"""What a head scores against the length of its training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mitolib import cohort, patches, people, settings
from mitolib.people import curve, evaluation, protocols, training
from mitolib.people.material import Patches
from mitolib.people.twins import with_twins
from mitolib.study import EXP1

PEOPLE = pd.DataFrame({"subject": np.repeat(list("ABCPQR"), 5)})
TRUTH = (PEOPLE["subject"] > "C").to_numpy(int)
TABLE = PEOPLE.assign(label=np.array(["control", "patient"])[TRUTH])


def right_on(share: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A model that is right on this share of each person's patches."""

    def model(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return np.where(test % 5 < 5 * share, TRUTH[test], 1 - TRUTH[test]).astype(float)

    return model


def asked(seen: float, held_out: float) -> evaluation.Asked:
    whole = pd.Series("test", TABLE.index)
    by_split = {protocols.SEEN: seen, protocols.UNSEEN: held_out}
    predictions = {
        split: evaluation.described(evaluation.answer(right_on(share), [whole]), TABLE)
        for split, share in by_split.items()
    }
    trial = evaluation.Trial(right_on(1), TABLE, {split: [whole] for split in by_split})
    found = evaluation.Asked({"head": trial}, {})
    object.__setattr__(found, "answers", lambda name, split: predictions[split])
    return found


def test_a_curve_has_the_scores_of_each_budget_the_gap_at_each_and_what_longer_training_adds(rng):
    found = curve.curve({"head": {10: asked(0.6, 0.6), 100: asked(1, 0.6), 1000: asked(1, 0.8)}}, 90, rng=rng)
    scores = {split: {n: of.value for n, of in own.items()} for split, own in found.estimates()["head"].items()}
    assert scores == {
        protocols.SEEN: {10: pytest.approx(0.6), 100: 1, 1000: 1},
        protocols.UNSEEN: {10: pytest.approx(0.6), 100: pytest.approx(0.6), 1000: pytest.approx(0.8)},
    }
    gaps = {n: gap["balanced_accuracy"]["value"] for n, gap in found.gaps["head"].items()}
    assert gaps == {10: 0, 100: pytest.approx(0.4), 1000: pytest.approx(0.2)}
    longer = found.longer["head"]
    assert (longer[protocols.UNSEEN]["of"], longer[protocols.UNSEEN]["minus"]) == (1000, 100), "nearest to 90"
    assert longer[protocols.UNSEEN]["balanced_accuracy"]["value"] == pytest.approx(0.2)
    assert longer[protocols.SEEN]["balanced_accuracy"]["value"] == 0
    assert set(found.record()["gaps"]["head"]) == {"10", "100", "1000"}


def test_without_a_longer_training_nothing_is_said_of_it(rng):
    found = curve.curve({"head": {10: asked(1, 0.6), 100: asked(1, 0.6)}}, 100, rng=rng)
    assert found.longer["head"] == {}


def test_the_curve_of_the_paper_s_profile_ends_at_a_quarter_of_the_published_protocol():
    table = patches.grid(cohort.published_sections(), stride_px=EXP1.stride_px)
    part = Patches(EXP1, with_twins(table, []), {"": ()}, *protocols.available(table, "exp1"))
    steps = training.curve_steps(part, people.BUDGETS["paper"], epochs=settings.PROFILES["paper"].epochs)
    assert steps == [150, 500, 1500, 3000, 6000, 25 * 491], "982 training patches in batches of 2"
    brief = training.curve_steps(part, people.BUDGETS["paper"], epochs=1)
    assert brief[-1] == round(491 / 4), "no budget beyond the longest"
