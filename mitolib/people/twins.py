"""Twins of a phantom: the same sections, the patients cured and the controls afflicted, and what models say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mitolib.own_data import LeftOut
from mitolib.people.evaluation import SEEN, UNSEEN, Evaluation
from mitolib.settings import LABELS

LEAST_DISTANCE = 0.05  # between the mean p of patients and of controls, of which a share can be taken


@dataclass(frozen=True)
class TwinEffects:
    """What models say of each person before and after the change. effects: model -> split -> `effect_of_twins`."""

    effects: Mapping[str, Mapping[str, pd.DataFrame]]

    def contributions(self) -> dict[str, dict[str, dict[str, float | int | None]]]:
        """Model -> split -> `disease_contribution`."""
        return {
            model: {split: disease_contribution(effect) for split, effect in by_split.items()}
            for model, by_split in self.effects.items()
        }

    def people(self) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
        """Model -> split -> subject -> label, before and after, for a results file."""
        return {
            model: {split: effect.to_dict("index") for split, effect in by_split.items()}
            for model, by_split in self.effects.items()
        }

    def table(self) -> Styler | LeftOut:
        """The contributions, a row for each model and split."""
        rows = {
            (model, split): contribution
            for model, by_split in self.contributions().items()
            for split, contribution in by_split.items()
        }
        if not rows:
            return LeftOut("these data have no twins.")
        table = pd.DataFrame(rows).T.rename_axis(["model", "split"])
        return table.rename(columns=lambda name: name.replace("_", " ")).style.format(precision=2, na_rep="-")


def twin_effects(evaluation: Evaluation) -> TwinEffects:
    """The effect of the change on each model but the majority, which has no opinion on a picture.

    On people that it was trained on, as in the paper, and on people that it has not seen.
    """
    effects: dict[str, dict[str, pd.DataFrame]] = {}
    for model, by_split in evaluation.predictions.items():
        for split in (SEEN, UNSEEN):
            if model != "majority" and split in by_split and (by_split[split]["twin"] != "").any():
                effects.setdefault(model, {})[split] = effect_of_twins(by_split[split])
    return TwinEffects(effects)


def with_twins(table: pd.DataFrame, kinds: Sequence[str] = ("cured", "afflicted")) -> pd.DataFrame:
    """A table of patches or people and, below it, a row for each one's twin: a patient's cured, a control's afflicted.

    Columns twin ("", "cured", "afflicted"), origin (row of the patch itself) and taught (class index that its pixels
    deserve: 0 for a cured patient, 1 for an afflicted control). Indexed from 0. kinds: the twins that there are.
    """
    themselves = table.reset_index(drop=True)
    themselves = themselves.assign(twin="", origin=themselves.index, taught=themselves["label"].map(LABELS.index))
    changed = {
        "cured": themselves[themselves["taught"] == 1].assign(twin="cured", taught=0),
        "afflicted": themselves[themselves["taught"] == 0].assign(twin="afflicted", taught=1),
    }
    return pd.concat([themselves, *(changed[kind] for kind in kinds)], ignore_index=True)


def tested_with_twins(split: pd.Series, rows: pd.DataFrame) -> pd.Series:
    """A split of the patch table for the rows of `with_twins`: the twins of test patches are tested, none trains."""
    of_origin = split.to_numpy()[rows["origin"]]
    kept = (rows["twin"] == "") | (of_origin == "test")
    return pd.Series(np.where(kept, of_origin, ""), rows.index, name="split")


def effect_of_twins(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per tested subject: label, before (mean p of its patches) and after (of their twins), over all folds.

    predictions: of `out_of_fold`, one model under one split. Controls come first.
    """
    when = pd.Series(np.where(predictions["twin"] == "", "before", "after"), predictions.index, name="when")
    means = predictions.groupby(["subject", when])["p"].mean().unstack()[["before", "after"]]
    truth = predictions.groupby("subject")["truth"].first()[means.index]
    means.insert(0, "label", [LABELS[i] for i in truth])
    return means.sort_values("label", kind="stable").rename_axis(columns=None)


def disease_contribution(effects: pd.DataFrame) -> dict[str, float | int | None]:
    """What the disease contributes to a model's answers, from `effect_of_twins`.

    fall: by how much the cure lowers the mean p of the patients. share: the fall over the distance between patients and
    controls before it, 1 if all that tells them apart is the disease, None if they are less than 0.05 apart. turned of
    called: patients called so that the cure turns into controls. rise, afflicted_turned, afflicted_called: the reverse.
    """
    controls, patients = (effects[effects["label"] == label] for label in LABELS)
    distance = float(patients["before"].mean() - controls["before"].mean())
    fall = float((patients["before"] - patients["after"]).mean())
    called_patients = patients[patients["before"] > 0.5]
    called_controls = controls[controls["before"] <= 0.5]
    return {
        "fall": fall,
        "share": fall / distance if distance >= LEAST_DISTANCE else None,
        "turned": int((called_patients["after"] <= 0.5).sum()),
        "called": len(called_patients),
        "rise": float((controls["after"] - controls["before"]).mean()),
        "afflicted_turned": int((called_controls["after"] > 0.5).sum()),
        "afflicted_called": len(called_controls),
    }
