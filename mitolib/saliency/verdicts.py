"""All scores of all maps with their intervals, and the verdicts and sentences that follow from them.

Intervals resample subjects, not patches: patches of one subject are no independent witnesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from numpy.random import Generator

from mitolib.metrics import Estimate, interval
from mitolib.saliency.baselines import BASELINES
from mitolib.saliency.localisation import Localisation
from mitolib.saliency.network import Network, by_patch
from mitolib.saliency.perturbation import Perturbation
from mitolib.saliency.randomisation import Randomisation
from mitolib.saliency.truth import HeldOutPatches


@dataclass(frozen=True)
class Summary:
    """Every score of every map, with its interval over subjects."""

    methods: Mapping[str, Mapping[str, Mapping[str, Estimate]]]  # model -> method -> score -> estimate

    def score(self, name: str) -> dict[str, dict[str, Estimate]]:
        """model -> method -> that score; empty where nothing has it, as on data without truth."""
        return {
            model: {method: scores[name] for method, scores in by_method.items()}
            for model, by_method in self.methods.items()
            if all(name in scores for scores in by_method.values())
        }

    @property
    def verdicts(self) -> pd.DataFrame:
        """See `verdicts`."""
        return verdicts(self.methods)

    @property
    def verdicts_record(self) -> dict[str, dict[str, dict[str, str]]]:
        """The `verdicts` entry of the record: model -> method -> question -> answer."""
        return {
            model: table.droplevel("model").to_dict("index")
            for model, table in self.verdicts.groupby("model", sort=False)
        }


def summarise(
    localised: Localisation,
    randomised: Randomisation,
    perturbed: Perturbation,
    networks: Mapping[str, Network],
    tested: Mapping[str, HeldOutPatches],
    *,
    rng: Generator,
) -> Summary:
    """Bring the scores of all tests together. tested: by the name of the experiment.

    A score that a map does not have, or that is undefined on a patch, is left out and counted.
    """
    scores = localised.scores.copy()
    removal = by_patch(perturbed.removal)
    scores["deletion_minus_random"] = removal["deletion"]
    scores["insertion_minus_random"] = removal["insertion"]
    scores["randomisation_ssim"] = by_patch(randomised.alike)["ssim"]
    scores["different_patches_ssim"] = by_patch(randomised.others)["ssim"]
    if perturbed.ranks:
        scores["causal_rank_correlation"] = by_patch(perturbed.ranks)
    subjects = {name: tested[network.experiment.name].subjects for name, network in networks.items()}
    return Summary(estimates(scores, subjects, rng=rng))


def estimates(
    scores: pd.DataFrame, subjects: Mapping[str, pd.Series], *, rng: Generator
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """model -> method -> score -> mean of the defined values with its interval.

    scores: indexed by model, method, patch; a column for each score. subjects: of each model's patches, in order.
    """
    summary: dict[str, dict[str, dict[str, Estimate]]] = {}
    for (model, method), table in scores.groupby(level=["model", "method"], sort=False):
        summary.setdefault(model, {})[method] = {
            name: interval(table[name], subjects[model], rng=rng) for name in scores.columns
        }
    return summary


def verdicts(methods: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> pd.DataFrame:
    """One row per model and method, the answer to four questions: yes, no, or "open" where the interval spans both.

    A question whose score nothing has, as on data without truth, has no column.

    follows the weights: no more alike to the map of the randomised network than maps of different patches are.
    finds deficient fibres: mass inside over area above 1 and above what the map of random numbers reached in this
    very sample, and above Sobel and intensity. network reacts: p(patient) falls further than under removal at random.
    ranks fibres: correlation with the causal ranking above 0. The random map is the yardstick and gets no verdict.
    """
    rows = {}
    for model, by_method in methods.items():
        for method, scores in by_method.items():
            if method == "random":
                continue
            answers = {"follows the weights": _follows(scores["randomisation_ssim"], scores["different_patches_ssim"])}
            if "mass_over_area" in scores:
                answers["finds deficient fibres"] = _finds(method, by_method)
            answers["network reacts"] = _above(scores["deletion_minus_random"], 0, sign=-1)
            if "causal_rank_correlation" in scores:
                answers["ranks fibres as they act"] = _above(scores["causal_rank_correlation"], 0)
            rows[model, method] = answers
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["model", "method"])


def _follows(alike: Estimate, others: Estimate) -> str:
    if alike.value is None or others.value is None:
        return "-"
    return "yes" if alike.value <= others.value else "no"


def _finds(method: str, by_method: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Whether a map finds deficient fibres, and not only what edges or brightness find."""
    inside = by_method[method]["mass_over_area"]
    random = by_method.get("random", {}).get("mass_over_area", Estimate(None))
    answer = _above(inside, max([1, *(random.ci or [])]))
    rivals = [by_method[name]["mass_over_area"].value for name in ("Sobel", "intensity") if name in by_method]
    beaten = answer == "yes" and any(rival is not None and rival >= inside.value for rival in rivals)
    return "no more than an edge or brightness map" if beaten and method not in BASELINES else answer


def _above(score: Estimate, level: float, sign: int = 1) -> str:
    if score.value is None:
        return "-"
    if score.ci is None:
        return "open"
    low, high = sorted(sign * (end - level) for end in score.ci)
    return "yes" if low > 0 else "no" if high <= 0 else "open"


def findings(
    summary: Summary, randomised: Randomisation, networks: Mapping[str, Network], accuracy: Mapping[str, float]
) -> str:
    """Markdown: what was found, one numbered sentence each; what these data do not allow is not mentioned.

    accuracy: of each network on its test patches, by the labels that it was taught.
    """
    sentences = [
        *_of_labels(accuracy),
        *_of_randomisation(summary, randomised),
        *_of_localisation(summary, networks),
        *_of_perturbation(summary, networks),
        _of_verdicts(summary),
    ]
    return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1))


def _of_labels(accuracy: Mapping[str, float]) -> list[str]:
    if "VGG16-shuffled" not in accuracy:
        return []
    return [
        f"VGG16 taught shuffled labels is right, by its own labels, on {accuracy['VGG16-shuffled']:.1%} of the test "
        f"patches; taught the true ones, on {accuracy['VGG16']:.1%}; the shuffled labels hold no disease, only "
        "subjects."
    ]


def _of_randomisation(summary: Summary, randomised: Randomisation) -> list[str]:
    grad_cam = summary.methods["VGG16"]["Grad-CAM"]
    sentences = [
        f"With all weights drawn anew, Grad-CAM of VGG16 is alike to the trained map with SSIM "
        f"{grad_cam['randomisation_ssim']}; maps of different patches are with {grad_cam['different_patches_ssim']}."
    ]
    if randomised.labels:
        sentences.append(
            f"Grad-CAM maps of the network with true and of that with shuffled labels are alike with SSIM "
            f"{randomised.labels['ssim']}."
        )
    return sentences


def _of_localisation(summary: Summary, networks: Mapping[str, Network]) -> list[str]:
    inside = summary.score("mass_over_area")
    if not inside:
        return []
    protein = networks["VGG16"].experiment.proteins[0]
    shuffled = ""
    if "VGG16-shuffled" in inside:
        shuffled = f", taught shuffled labels {inside['VGG16-shuffled']['Grad-CAM']}"
    sentences = [
        f"Grad-CAM of VGG16 on {protein} puts {inside['VGG16']['Grad-CAM']} times chance into the deficient "
        f"fibres{shuffled}.",
        f"Sobel edges of the same pictures put {inside['VGG16']['Sobel']} times chance there, brightness "
        f"{inside['VGG16']['intensity']}.",
    ]
    if "VGG16-ten" in inside:
        sentences.append(
            f"Grad-CAM of VGG16 on {len(networks['VGG16-ten'].experiment.proteins)} proteins puts "
            f"{inside['VGG16-ten']['Grad-CAM']} times chance there, ResNet-50 on {protein} "
            f"{inside['ResNet50']['Grad-CAM']}."
        )
    if "marker" in inside["VGG16"]:
        by_marker = inside["VGG16"]["marker"]
        sentences.append(f"The marker, NDUFB8 against VDAC1 without any network, puts {by_marker} times chance there.")
    return sentences


def _of_perturbation(summary: Summary, networks: Mapping[str, Network]) -> list[str]:
    protein = networks["VGG16"].experiment.proteins[0]
    by_network = {name: by_method["Grad-CAM"] for name, by_method in summary.methods.items()}
    fall = {name: scores["deletion_minus_random"] for name, scores in by_network.items()}
    several = ""
    if "VGG16-ten" in networks:
        n_proteins = len(networks["VGG16-ten"].experiment.proteins)
        several = f" and {fall['VGG16-ten']} on {n_proteins} proteins"
    sentences = [
        f"Removing what Grad-CAM marks changes p(patient), against random removal, by {fall['VGG16']} on "
        f"{protein}{several}."
    ]
    if several and "causal_rank_correlation" in by_network["VGG16"]:
        rank = {name: scores["causal_rank_correlation"] for name, scores in by_network.items()}
        sentences.append(
            f"Grad-CAM's ranking of the fibres and what restoring them does correlate with {rank['VGG16']} on "
            f"{protein} and {rank['VGG16-ten']} on {n_proteins} proteins."
        )
    return sentences


def _of_verdicts(summary: Summary) -> str:
    answers = summary.verdicts
    of_networks = answers[~answers.index.isin(BASELINES, level="method")]
    passed = of_networks.eq("yes").all(axis=1)
    return f"Of {len(passed)} pairs of network and method, {passed.sum()} pass all {answers.shape[1]} tests."
