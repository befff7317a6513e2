"""All scores of all maps with their intervals, the differences that verdicts rest on, and tests corrected for many.

Intervals resample people, not patches: patches of one person are no independent witnesses. Two maps are compared patch
by patch, and the interval is that of the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from numpy.random import Generator

from mitolib import metrics
from mitolib.metrics import Estimate, interval
from mitolib.saliency.baselines import BASELINES
from mitolib.saliency.control import POOLED
from mitolib.saliency.measurements import Measured
from mitolib.saliency.network import by_patch
from mitolib.saliency.statistics import sign_flips
from mitolib.saliency.verdicts import FINDS, below, network_verdicts

Scores = Mapping[str, Mapping[str, Mapping[str, Estimate]]]  # model -> method -> score -> estimate

RIVALS = {  # score -> maps without a network that it is compared with
    "auprc": ("random", "intensity", "Sobel", "marker"),
    "pointing": ("random", "intensity", "Sobel"),
    "mass_over_area": ("intensity",),
    "deletion_minus_random": ("intensity",),
}
TESTED = ("auprc_minus_random", "pointing_minus_random", "deletion_minus_random", "causal_rank_correlation")
SIGNIFICANT = 0.05
NOTHING = Estimate(None)


@dataclass(frozen=True)
class Summary:
    """Every score of every map, with its interval over people."""

    methods: Scores
    differences: Scores  # names are `<score>_minus_<rival>`
    controls: Mapping[str, Estimate]  # of Grad-CAM, VGG16 against its controls
    p_values: Mapping[str, Mapping[str, Mapping[str, Any]]]  # model -> tested score -> see `corrected`

    def score(self, name: str) -> dict[str, dict[str, Estimate]]:
        """model -> method -> that score or difference, where it is defined; empty on data without it.

        A rival is not compared with itself.
        """
        found = {
            model: {
                method: scores[name]
                for method, scores in by_method.items()
                if name in scores and not name.endswith(f"_minus_{method}")
            }
            for model, by_method in [*self.differences.items(), *self.methods.items()]
            if any(scores.get(name, NOTHING).value is not None for scores in by_method.values())
        }
        return {model: found[model] for model in self.methods if model in found}

    def verdicts(self, model: str) -> pd.DataFrame:
        """See `verdicts.network_verdicts`."""
        return network_verdicts(self.methods[model], self.differences[model])

    def scores(self, model: str) -> pd.DataFrame:
        """Means of what says whether maps find the deficient fibres: a row for each method."""
        names = {"auprc": "AUPRC", "pointing": "pointing", "mass_over_area": "mass over area"}
        names |= {"rank": "rank", "top5": "top 5 %"}
        rows = {m: {word: s[name].value for name, word in names.items()} for m, s in self.methods[model].items()}
        return pd.DataFrame.from_dict(rows, orient="index").astype(float).rename_axis(model)

    def corrected(self, model: str) -> pd.DataFrame:
        """p-values after Holm's correction: a row for each method, a column for each tested score."""
        words = dict(zip(TESTED, ("AUPRC", "pointing", "removal", "ranking of fibres"), strict=True))
        columns = {words[name]: found["holm"] for name, found in self.p_values[model].items()}
        return pd.DataFrame(columns).astype(float).rename_axis(model)

    @property
    def record(self) -> dict[str, Any]:
        """What the results file says."""
        tables = {model: self.verdicts(model) for model in self.p_values}
        below_chance = {
            model: [m for m in table.index if below(self.differences[model][m]["pointing_minus_random"], 0)]
            for model, table in tables.items()
            if FINDS in table
        }
        all_yes = {
            model: [m for m in table.index[table.eq("yes").all(axis=1)] if m not in BASELINES]
            for model, table in tables.items()
        }
        return {
            "methods": self.methods,
            "differences": self.differences,
            "controls": self.controls,
            "p_values": self.p_values,
            "verdicts": {model: table.to_dict("index") for model, table in tables.items()},
            "pointing_below_chance": {model: ", ".join(names) for model, names in below_chance.items()},
            "all_yes": {model: ", ".join(names) for model, names in all_yes.items()},
        }


def summarise(measured: Measured, *, rng: Generator) -> Summary:
    """Bring the scores of all tests together.

    A score that a map does not have, or that is undefined on a patch, is left out and counted.
    """
    networks, randomised, perturbed = measured.networks, measured.randomised, measured.perturbed
    scores = pooled(measured.localised.scores, list(networks.permuted))
    removal = by_patch(perturbed.removal)
    scores["deletion_minus_random"] = removal["deletion"]
    scores["insertion_minus_random"] = removal["insertion"]
    alike, others = by_patch(randomised.alike), by_patch(randomised.others)
    scores["randomisation_ssim"], scores["different_patches_ssim"] = alike["ssim"], others["ssim"]
    if perturbed.ranks:
        scores["causal_rank_correlation"] = by_patch(perturbed.ranks)
    subjects = {name: measured.tested[network.experiment.name].subjects for name, network in networks.all.items()}
    subjects[POOLED] = subjects["VGG16"]
    compared = differences(scores, dict.fromkeys([POOLED, *networks.untrained], "VGG16"))
    tested = scores.join(compared)[[name for name in TESTED if name in scores or name in compared]]
    return Summary(
        estimates(scores, subjects, rng=rng),
        estimates(compared, subjects, rng=rng),
        against_controls(scores, randomised.permuted, others, subjects["VGG16"], rng=rng),
        {
            model: {name: corrected(table[name], subjects[model], rng=rng) for name in tested}
            for model, table in tested.groupby(level="model", sort=False)
            if model in networks.explained
        },
    )


def pooled(scores: pd.DataFrame, draws: Sequence[str]) -> pd.DataFrame:
    """The same with the models `draws` as one, POOLED: mean over the draws. Index model, method, patch."""
    is_draw = scores.index.get_level_values("model").isin(draws)
    if not is_draw.any():
        return scores.copy()
    means = scores[is_draw].groupby(level=["method", "patch"]).mean()
    return pd.concat([scores[~is_draw], pd.concat({POOLED: means}, names=["model"])])


def differences(scores: pd.DataFrame, yardsticks: Mapping[str, str]) -> pd.DataFrame:
    """Each map against its rivals, patch by patch: the same index, columns `<score>_minus_<rival>`.

    redrawn_minus_different, where weights were drawn anew: by how much a map is more alike to that of networks drawn
    anew than to that of another patch, in SSIM. yardsticks: a model without maps that know no network -> the model
    whose these are, of the same patches.
    """
    parts = []
    for model, table in scores.groupby(level="model", sort=False):
        without_network = scores.loc[yardsticks.get(model, model)]
        patch = table.index.get_level_values("patch")
        columns = {}
        if "randomisation_ssim" in table:
            columns["redrawn_minus_different"] = table["randomisation_ssim"] - table["different_patches_ssim"]
        for score, rivals in RIVALS.items():
            for rival in rivals:
                if score in table and rival in without_network.index.get_level_values("method"):
                    of_rival = without_network.loc[rival, score].reindex(patch).to_numpy()
                    columns[f"{score.removesuffix('_minus_random')}_minus_{rival}"] = table[score] - of_rival
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts)


def estimates(scores: pd.DataFrame, subjects: Mapping[str, pd.Series], *, rng: Generator) -> Scores:
    """model -> method -> score -> mean of the defined values with its interval.

    scores: indexed by model, method, patch; a column for each score. subjects: of each model's patches, in order.
    """
    summary: dict[str, dict[str, dict[str, Estimate]]] = {}
    for (model, method), table in scores.groupby(level=["model", "method"], sort=False):
        of_model = subjects[model].iloc[: len(table)]
        summary.setdefault(model, {})[method] = {
            name: interval(table[name], of_model, rng=rng) for name in scores.columns
        }
    return summary


def against_controls(
    scores: pd.DataFrame,
    permuted: Mapping[str, pd.DataFrame],
    others: pd.DataFrame,
    subjects: pd.Series,
    *,
    rng: Generator,
) -> dict[str, Estimate]:
    """Grad-CAM of VGG16 on one protein against the controls, patch by patch.

    permuted_ssim and permuted_spearman: likeness to the maps of the networks of permuted labels, mean over the draws;
    permuted_minus_different: the first, less that of different patches. With truth, auprc_minus_permuted and
    auprc_minus_untrained.
    """
    found: dict[str, pd.Series] = {}
    if permuted:
        alike = pd.concat(permuted.values()).groupby(level=0).mean()
        found |= {"permuted_ssim": alike["ssim"], "permuted_spearman": alike["spearman"]}
        found["permuted_minus_different"] = alike["ssim"] - others.loc[("VGG16", "Grad-CAM"), "ssim"]
    if "auprc" in scores:
        auprc = scores["auprc"].unstack("patch")
        for name, model in {"permuted": POOLED, "untrained": "ResNet50"}.items():
            if (model, "Grad-CAM") in auprc.index and (model, "random") not in auprc.index:
                found[f"auprc_minus_{name}"] = auprc.loc[("VGG16", "Grad-CAM")] - auprc.loc[(model, "Grad-CAM")]
    return {name: interval(values.iloc[: len(subjects)], subjects, rng=rng) for name, values in found.items()}


def corrected(values: pd.Series, subjects: pd.Series, *, rng: Generator) -> dict[str, Any]:
    """Which methods differ from zero after Holm's correction for as many methods.

    values: indexed by model, method, patch, of one model. p and holm: method -> value before and after correction,
    None below three people; least: the smallest of holm, None if there is none; floor: the smallest it could be with so
    many people and methods; significant: methods below 0.05, as text.
    """
    by_method = {
        method: sign_flips(of_method.to_numpy(), subjects.iloc[: len(of_method)], rng=rng)
        for method, of_method in values.groupby(level="method", sort=False)
        if method != "random"
    }
    p_values = pd.Series({m: p for m, p in by_method.items() if p is not None}, dtype=float)
    after = pd.Series(metrics.holm(p_values), p_values.index, dtype=float)
    n_people = int(subjects.nunique())
    return {
        "p": by_method,
        "holm": {method: float(after[method]) if method in after else None for method in by_method},
        "methods": len(p_values),
        "people": n_people,
        "least": float(after.min()) if len(after) else None,
        "floor": min(1.0, 2 * max(len(p_values), 1) / 2**n_people),
        "significant": ", ".join(after.index[after < SIGNIFICANT]),
    }
