"""Twins of a phantom: the same sections, the patients cured and the controls afflicted, and what models say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mitolib.metrics import Estimate, interval
from mitolib.own_data import LeftOut
from mitolib.people import metrics
from mitolib.people.evaluation import MAJORITY, Evaluation
from mitolib.people.protocols import SEEN, UNSEEN
from mitolib.settings import LABELS

LEAST_DISTANCE = 0.05  # between the mean p of patients and of controls, of which a share can be taken


@dataclass(frozen=True)
class TwinEffects:
    """What models say of each person before and after the change. effects: model -> split -> `effect_of_twins`."""

    effects: Mapping[str, Mapping[str, pd.DataFrame]]

    def contributions(self) -> dict[str, dict[str, dict[str, Any]]]:
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

    def by_share(self, shares: pd.Series) -> dict[str, pd.DataFrame]:
        """Model -> a row for each patient not seen: share (of its fibres that are deficient) and fall of p by the cure.

        shares: by subject, 0 to 1; empty where they are not known.
        """
        found = {}
        for model, by_split in self.effects.items():
            if UNSEEN in by_split and not shares.empty:
                patients = by_split[UNSEEN].query("label == 'patient'")
                fall = patients["before"] - patients["after"]
                found[model] = pd.DataFrame({"share": shares.reindex(patients.index), "fall": fall})
        return found

    def correlations(self, shares: pd.Series) -> dict[str, dict[str, Any]]:
        """Model, as `metrics.key` has it, -> `metrics.rank_correlation` of share and fall. shares: see `by_share`."""
        return {
            metrics.key(model): metrics.rank_correlation(table["share"].to_numpy(), table["fall"].to_numpy())
            for model, table in self.by_share(shares).items()
        }

    def correlation_table(self, shares: pd.Series) -> pd.DataFrame | LeftOut:
        """The correlations, for reading."""
        correlations = self.correlations(shares)
        rows = {}
        for model in self.by_share(shares):
            found = correlations[metrics.key(model)]
            p = "" if found["p"] is None else f"{found['p']:.3f}"
            of_model = Estimate(**found["rank_correlation"])
            rows[model] = {"rank correlation": str(of_model), "patients": of_model.n, "p": p}
        return pd.DataFrame(rows).T if rows else LeftOut("these data have no twins, or no known share.")

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
        table["fall"] = [str(Estimate(**row["fall"])) for row in rows.values()]
        return table.rename(columns=lambda name: name.replace("_", " ")).style.format(precision=2, na_rep="-")


def twin_effects(evaluation: Evaluation) -> TwinEffects:
    """The effect of the change on each model but the majority, which has no opinion on a picture.

    On people that it was trained on, as in the paper, and on people that it has not seen.
    """
    effects: dict[str, dict[str, pd.DataFrame]] = {}
    for model, by_split in evaluation.predictions.items():
        for split in (SEEN, UNSEEN):
            if model != MAJORITY and split in by_split and (by_split[split]["twin"] != "").any():
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


def disease_contribution(effects: pd.DataFrame) -> dict[str, Any]:
    """What the disease contributes to a model's answers, from `effect_of_twins`.

    fall: by how much the cure lowers the mean p of the patients, {"value", "ci", "n"}, the interval from a bootstrap
    over patients. share: the fall over the distance between patients and
    controls before it, 1 if all that tells them apart is the disease, None if they are less than 0.05 apart. turned of
    called: patients called so that the cure turns into controls. rise, afflicted_turned, afflicted_called: the reverse.
    """
    controls, patients = (effects[effects["label"] == label] for label in LABELS)
    distance = float(patients["before"].mean() - controls["before"].mean())
    fall = float((patients["before"] - patients["after"]).mean())
    called_patients = patients[patients["before"] > 0.5]
    called_controls = controls[controls["before"] <= 0.5]
    return {
        "fall": {"value": fall, "ci": _interval(patients["before"] - patients["after"]), "n": len(patients)},
        "share": fall / distance if distance >= LEAST_DISTANCE else None,
        "turned": int((called_patients["after"] <= 0.5).sum()),
        "called": len(called_patients),
        "rise": float((controls["after"] - controls["before"]).mean()),
        "afflicted_turned": int((called_controls["after"] > 0.5).sum()),
        "afflicted_called": len(called_controls),
    }


def _interval(falls: pd.Series) -> list[float] | None:
    """The 95 % interval of the mean over people, a bootstrap, always the same."""
    found = interval(falls.to_numpy(), list(falls.index), rng=np.random.default_rng(0))
    return list(found.ci) if found.ci and found.ci[0] < found.ci[1] else None
