"""What a page makes of the units: scores beside baselines, whose prototypes they are, and where they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from sklearn.metrics import balanced_accuracy_score

from mitolib.metrics import Estimate, interval
from mitolib.prototypes import checks, measures
from mitolib.prototypes.asking import HEAD, LOGISTIC, MAJORITY, UNSEEN, Asked
from mitolib.prototypes.fits import PLAIN, TREE, Tools
from mitolib.prototypes.network import GREATEST, ROOT
from mitolib.prototypes.push import FIBRE_PX

Record = dict[str, Any]
SCORES = {"balanced_accuracy": "balanced accuracy of patches", "auc_subject": "AUC over people"}
PANELS = {  # heading -> score of `methods`; the arrow points to where a map is better
    "finds fibres \u2192\nAUPRC less chance": "auprc_minus_random",
    "ranks fibres \u2192\nrank correlation": "causal_rank_correlation",
    "\u2190 is missed\nlog odds less random": "deletion_minus_random",
    "\u2190 random weights\nSSIM less other patch": "redrawn_minus_different",
}
HEADINGS = (  # of the tables of maps: score of `methods` -> heading
    {
        "pointing_minus_random": "pointing, less chance",
        "mass_over_area": "mass over area",
        "top5_minus_random": "activation precision, less chance",
        "deletion_minus_random": "log odds after removal, less random",
        "insertion_minus_random": "log odds of what is left, less random",
    },
    {
        "causal_rank_correlation": "rank correlation with curing fibres",
        "randomisation_ssim": "SSIM, all weights redrawn",
        "head_ssim": "SSIM, head redrawn",
        "different_patches_ssim": "SSIM of different patches",
    },
)
LEADING = ("auprc", "pointing", "mass_over_area", "top5")


def predictions(asked: Asked, found: Sequence[Mapping[str, Any]], column: str = "p") -> pd.DataFrame:
    """fold, row, subject, truth and p, a row for each tested patch of each fold."""
    parts = [pd.DataFrame({"fold": one["fold"], "row": one["row"], "p": one[column]}) for one in found]
    table = pd.concat(parts, ignore_index=True)
    subjects = asked.study.table["subject"].to_numpy()[table["row"]]
    return table.assign(subject=subjects, truth=asked.study.labels[table["row"]])


def _majority(asked: Asked, split: str) -> pd.DataFrame:
    parts = []
    for fold in range(len(asked.study.folds[split])):
        trains, tests = asked.study.rows(split, fold)
        common = float(np.bincount(asked.study.labels[trains]).argmax())
        parts.append({"fold": np.full(len(tests), fold), "row": tests, "p": np.full(len(tests), common)})
    return predictions(asked, parts)


def models(asked: Asked, tools: Tools, *, rng: Generator) -> tuple[Record, Record]:
    """The `models` and `differences` entries of the record: model -> split -> scores, and what they are held against.

    Of a prototype network also before_push (balanced accuracy), duplicates (mean of the free pushes over folds) and
    seconds. differences: model -> split -> against -> balanced accuracy of patches, paired.
    """
    scores: Record = {}
    differences: Record = {}
    answers: dict[tuple[str, str], pd.DataFrame] = {}
    for split in asked.study.folds:
        answers[MAJORITY, split] = _majority(asked, split)
        for model, by_split in {**asked.rivals, **asked.of_splits}.items():
            answers[model, split] = predictions(asked, by_split[split])
    for (model, split), table in answers.items():
        scores.setdefault(model, {})[split] = tools.summary(table, rng=rng)
    for model, by_split in asked.of_splits.items():
        for split, found in by_split.items():
            entry, mine = scores[model][split], answers[model, split]
            against = {name: predictions(asked, found, f"p_{name}") for name in ("before", "free")}
            against |= {rival: answers[rival, split] for rival in (LOGISTIC, HEAD)}
            if model != PLAIN:
                against[PLAIN] = answers[PLAIN, split]
            compared = {name: tools.difference(mine, other, rng=rng) for name, other in against.items()}
            gaps = {name: value["balanced_accuracy"] for name, value in compared.items() if value}
            differences.setdefault(model, {})[split] = gaps
            entry["before_push"] = entry["balanced_accuracy"] - gaps["before"]["value"] if "before" in gaps else None
            entry["duplicates"] = float(np.mean([n for one in found for n in one["duplicates"]]))
            entry["seconds"] = sum(unit["made"]["seconds"] for unit in found.record)
    if {asked.study.shown, UNSEEN} <= asked.study.folds.keys():
        for model in (PLAIN, LOGISTIC):
            gap = tools.difference(answers[model, asked.study.shown], answers[model, UNSEEN], rng=rng)
            if gap:
                differences.setdefault(model, {})["seen minus unseen"] = gap["balanced_accuracy"]
    return scores, differences


def by_split(scores: Record, score: str) -> dict[str, dict[str, Estimate]]:
    """Split -> model -> one of SCORES, for a figure."""
    models = sorted(scores, key=_place)
    return {
        split: {
            model: Estimate(scores[model][split][score], scores[model][split]["ci"].get(score))
            for model in models
            if split in scores[model]
        }
        for split in scores[MAJORITY]
    }


def _place(model: str) -> int:
    order = (MAJORITY, LOGISTIC, HEAD)
    return order.index(model) if model in order else len(order)


def score_table(scores: Record) -> pd.DataFrame:
    """For reading, by split and model."""
    rows = {}
    for model, by_split in scores.items():
        for split, entry in by_split.items():
            ci = entry["ci"]
            before = entry.get("before_push")
            rows[split, model] = {
                "balanced accuracy": str(Estimate(entry["balanced_accuracy"], ci["balanced_accuracy"])),
                "AUC over people": str(Estimate(entry["auc_subject"], ci["auc_subject"])),
                "people called rightly": f"{entry['subjects_right']} of {entry['n_subjects']}",
                "before the push": "-" if before is None else f"{before:.2f}",
            }
    splits = list(scores[MAJORITY])
    order = sorted(rows, key=lambda row: (splits.index(row[0]), _place(row[1])))
    return pd.DataFrame(rows).T.loc[order].rename_axis(["split", "model"])


def of_shown(asked: Asked, root: Path, *, rng: Generator) -> Record:
    """prototypes, subjects, self_recognition, purity, stability and how alike "looks like" is, of the shown network.

    prototypes: the rows of the first seed.
    """
    study = asked.study
    patch_px = int(study.table["size"].iloc[0])
    trains, tests = study.rows(study.shown, 0)
    first = asked.shown[0]
    sources = pd.DataFrame(first["sources"])
    weights, found = first["weights_of_classes"], first["activations"]
    predicted = (first["p"] > 0.5).astype(int)
    contribution = measures.contributions(found, weights, predicted)
    rows = measures.prototype_table(
        sources,
        weights,
        contribution,
        pd.DataFrame(first["nearest"]),
        measures.Truth(root),
        classes=TREE[ROOT],
        patch_px=patch_px,
        side=round(len(first["example_maps"]) ** 0.5),
    )
    trained = study.table.assign(trained=np.isin(np.arange(len(study.table)), trains))
    available = trained[trained["trained"]].groupby("label")["subject"].nunique().to_dict()
    recognised = measures.self_recognition(trained, tests, contribution.argmax(axis=1), sources)
    runs = [
        {"activations": one["activations"], "predicted": one["p"] > 0.5, "sources": pd.DataFrame(one["sources"])}
        for one in asked.shown
    ]
    owners = sources["child"].map(list(TREE[ROOT]).index).to_numpy()
    own = np.where(study.labels[tests][:, None] == owners, found, -np.inf).max(axis=1)
    return {
        "prototypes": {PLAIN: rows},
        "subjects": {PLAIN: measures.subjects_of(sources, weights, found, available)},
        "self_recognition": {PLAIN: measures.self_recognition_record(recognised, rng=rng)},
        "purity": vars(_mean([row["purity"] for row in rows])),
        "purity_minus_random": vars(
            _mean([row["purity"] - row["purity_at_random"] for row in rows if row["purity"] is not None])
        ),
        "consistency": vars(_mean([row["consistent"] for row in rows])),
        "consistency_at_random": vars(_mean([row["consistent_at_random"] for row in rows])),
        "purity_of_class": vars(_mean([row["purity_of_class"] for row in rows])),
        "stability": measures.stability(runs, fibre_px=FIBRE_PX * patch_px / 512, rng=rng),
        "pruned": first["pruned"],
        "duplicates": [one["duplicates"] for one in asked.shown],
        "balanced_accuracy_of_seeds": [
            float(balanced_accuracy_score(study.labels[tests], one["p"] > 0.5)) for one in asked.shown
        ],
        "greatest_activation": {
            "training": np.quantile(first["trained_greatest"], [0.25, 0.5, 0.75]).tolist(),
            "test": np.quantile(own, [0.25, 0.5, 0.75]).tolist(),
        },
    }


def push_sentence(found: Record) -> str:
    """What the last push of the shown network would have repeated, and what ProtoPNet would have pruned."""
    n, repeated = len(found["prototypes"][PLAIN]), found["duplicates"]
    return (
        f"A push that may repeat places would put {' or '.join(map(str, sorted(set(repeated))))} of the {n} prototypes "
        "onto a place that is taken already, depending on the seed. ProtoPNet removes a prototype when fewer than 3 of "
        f"its 6 nearest training patches are of its class; that would remove {found['pruned']}. Here all are kept."
        + _consistency_sentence(found)
    )


def _consistency_sentence(found: Record) -> str:
    share, at_random = (Estimate(**found[name]) for name in ("consistency", "consistency_at_random"))
    if share.value is None:
        return ""
    return (
        " By the score of {cite:t}`huang2023evaluation` a prototype is consistent when one kind of fibre lies near at "
        f"least eight of ten places that are most like it. The share of consistent prototypes is {share}; with random "
        f"places of the same patches in their stead it is {at_random}."
    )


def alike_sentence(found: Record) -> str:
    """How similar patches are to the nearest prototype of their own class."""
    low, middle, high = found["greatest_activation"]["training"]
    of_test = found["greatest_activation"]["test"]
    return (
        f'How alike is "looks like"? The similarity to the nearest prototype of the own class has the median '
        f"{middle:.2f} in training patches (quartiles {low:.2f} and {high:.2f}) and {of_test[1]:.2f} in test patches "
        f"({of_test[0]:.2f} and {of_test[2]:.2f}); a place reaches {GREATEST:.2f} with itself."
    )


def _mean(values: Sequence[float | None]) -> Estimate:
    """Over prototypes, which are no sample of anything: without an interval."""
    there = [value for value in values if value is not None]
    return Estimate(float(np.mean(there)) if there else None, None, len(there), len(values) - len(there))


def subjects_of_folds(asked: Asked, split: str) -> dict[str, dict[str, dict[str, float]]]:
    """Model -> class -> mean over the folds of a split of the number of distinct subjects among its prototypes."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for model, by_split in asked.of_splits.items():
        folds = [pd.DataFrame(sources) for one in by_split[split] for sources in one["sources"]]
        per_fold = pd.DataFrame([sources.groupby("child")["subject"].nunique() for sources in folds])
        found[model] = {child: {"distinct": float(per_fold[child].mean()), "folds": len(folds)} for child in per_fold}
    return found


def methods(asked: Asked, tools: Tools, subjects: Sequence[str], *, rng: Generator) -> Record:
    """Model -> method -> score -> estimate, as in the results of the chapter on maps; without truth only removal.

    subjects: (N,) whose patches were explained. Also <score>_minus_random of LEADING, paired. Of the maps of the
    network itself randomisation_ssim, different_patches_ssim and redrawn_minus_different, the first less the second;
    the same of a network whose head alone is drawn anew (head_ssim, head_minus_different); and
    causal_rank_correlation, where there are twins.
    """
    if asked.explained is None:
        return {}
    found = asked.explained[0]
    subjects = np.asarray(subjects)
    result: Record = {}
    at_random = found["methods"].index("random")

    def estimated(values: np.ndarray) -> dict[str, Any]:
        return vars(interval(values.astype(float), subjects[: len(values)], rng=rng))

    for place, method in enumerate(found["methods"]):
        entry = result.setdefault(method, {})
        if "localisation" in found:
            values = pd.DataFrame(found["localisation"][place].astype(float), columns=found["scores"])
            chance = pd.DataFrame(found["localisation"][at_random].astype(float), columns=found["scores"])
            entry |= {score: estimated(values[score].to_numpy()) for score in values}
            entry |= {f"{s}_minus_random": estimated((values[s] - chance[s]).to_numpy()) for s in LEADING}
        for i, score in enumerate(found.get("removal_scores", ())):
            entry[f"{score}_minus_random"] = estimated(found["removal"][place, :, i])
    for place, method in enumerate(method for method in checks.METHODS if method in result):
        entry = result[method]
        trained, head, anew = (_redrawn(asked, tools, method, drawn) for drawn in (None, checks.HEAD, checks.ALL))
        entry |= {"different_patches_ssim": estimated(trained), "randomisation_ssim": estimated(anew)}
        entry |= {"redrawn_minus_different": estimated(anew - trained), "head_ssim": estimated(head)}
        entry["head_minus_different"] = estimated(head - trained)
        checked = asked.checked[0]
        if "effect" in checked:
            table = pd.DataFrame({name: checked[name] for name in ("patch", "effect")})
            ranks = tools.causal_rank(table.assign(relevance=checked["relevance"][place]), len(subjects))
            entry["causal_rank_correlation"] = estimated(np.asarray(ranks))
    return {PLAIN: result}


def _redrawn(asked: Asked, tools: Tools, method: str, drawn: str | None) -> np.ndarray:
    """(N,) SSIM of each map with that of networks drawn anew, mean over the draws; None: with the next patch's."""
    trained = asked.checked[0][f"map of {method}"].astype(float)
    if drawn is None:
        alike = tools.alike(trained, np.roll(trained, 1, axis=0))["ssim"].to_numpy(float)
        return alike if len(trained) > 1 else np.full(1, np.nan)
    of_draws = [tools.alike(trained, one[f"map of {method}"].astype(float))["ssim"] for one in asked.redrawn[drawn]]
    return pd.concat(of_draws, axis=1).mean(axis=1).to_numpy(float)


def relevance(asked: Asked, subjects: Sequence[str], *, rng: Generator) -> Record:
    """Where the relevance of a patch's loudest prototype lies, estimates over people.

    square -> {inside, area}: share of it in the square, and of the patch that the square covers. own_rank and
    other_rank: rank correlation with the similarity map of that prototype, and of the one that comes second. arrived:
    share of the relevance that reaches the pixels. Nothing where relevance was not propagated.
    """
    if asked.checked is None or "inside" not in asked.checked[0]:
        return {}
    found, subjects = asked.checked[0], np.asarray(subjects)

    def estimated(values: np.ndarray) -> dict[str, Any]:
        return vars(interval(values.astype(float), subjects, rng=rng))

    squares = {
        square: {name: estimated(found[name][:, i]) for name in ("inside", "area")}
        for i, square in enumerate(checks.SQUARES)
    }
    ranks = {name: estimated(found[name]) for name in ("own_rank", "other_rank")}
    return squares | ranks | {"arrived": estimated(np.asarray(asked.explained[0]["prp_arrived"]))}


def relevance_sentence(lies: Record) -> str:
    """How much relevance arrived, and how like the map of relevance is to maps of similarity."""
    if not lies:
        return ""
    arrived, own, other = (Estimate(**lies[name]) for name in ("arrived", "own_rank", "other_rank"))
    return (
        f"Share of the relevance that arrives at the pixels: {arrived.value:.3f}. Its rank correlation, place by "
        f"place, is {own} with the similarity map of the same prototype and {other} with that of the prototype that "
        "comes second."
    )


def annotated(asked: Asked, tools: Tools, *, rng: Generator) -> Record:
    """ "k=1 share=20%" -> {k, share, turned, activation_precision, of_map, chance, minus_chance, accuracy, minus_none}.

    On people not seen; minus_none: precision less that of the same network without masks on the same patches.
    """
    subjects = asked.study.table["subject"].to_numpy()
    found: Record = {}
    by_arm = {arm: _precision(list(fits)) for arm, fits in asked.fine.items()}
    for arm, fits in asked.fine.items():
        table = by_arm[arm]
        entry: Record = {"k": arm.k, "share": arm.annotated, "turned": arm.turned, "folds": len(fits)}
        entry["accuracy"] = tools.summary(predictions(asked, fits), rng=rng)["balanced_accuracy"]
        without = by_arm[min((other for other in by_arm if other.k == arm.k), key=lambda other: other.annotated)]
        for name, values in {
            "activation_precision": table["precision"],
            "of_map": table["of_map"],
            "chance": table["chance"],
            "minus_chance": table["precision"] - table["chance"],
            "minus_none": table["precision"] - without["precision"],
        }.items():
            of_patches = values.groupby(level="row").mean()
            entry[name] = vars(interval(of_patches.to_numpy(), subjects[of_patches.index], rng=rng))
        found[str(arm)] = entry
    return found


def _precision(fits: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """precision, of_map and chance, indexed by fold and row."""
    parts = [
        pd.DataFrame({name: one[name] for name in ("precision", "of_map", "chance")}).set_index(
            pd.MultiIndex.from_arrays([np.full(len(one["mask_row"]), i), one["mask_row"]], names=["fold", "row"])
        )
        for i, one in enumerate(fits)
        if len(one["mask_row"])
    ]
    if parts:
        return pd.concat(parts).astype(float)
    empty = pd.MultiIndex.from_arrays([[], []], names=["fold", "row"])
    return pd.DataFrame(columns=["precision", "of_map", "chance"], index=empty, dtype=float)


def copies(asked: Asked, *, rng: Generator) -> Record:
    """copy -> {change, stays: estimates over prototypes, flips: over people}."""
    found = asked.copies[0]
    return {
        name: {
            "change": vars(_mean(found["change"][i].tolist())),
            "stays": vars(_mean(found["stays"][i].tolist())),
            "flips": float(found["flips"][i]),
            "patches": len(found["rows"]),
        }
        for i, name in enumerate(found["names"])
    }


def for_panels(by_model: Record) -> dict[str, dict[str, Estimate]]:
    """Heading -> method -> estimate, for a figure: those of PANELS that some map has; one empty panel without any."""
    entries = by_model.get(PLAIN, {})
    found = {heading: estimates(entries, score) for heading, score in PANELS.items()}
    return {heading: values for heading, values in found.items() if values} or {"no held-out patches of patients": {}}


def squares_table(lies: Record) -> pd.DataFrame:
    """For reading: what the squares hold of the relevance, beside what they cover of the patch."""
    words = {
        "cell": "the cell that is printed",
        "half": "the blue square, 110 of 512 px",
        "field": "the white square, all that it can depend on",
        "box": "ProtoPNet's box",
    }
    entries = {words[square]: lies[square] for square in words if square in lies}
    return table_of(entries, {"inside": "share of the relevance", "area": "share of the patch"})


def estimates(entries: Mapping[str, Mapping[str, Any]], score: str) -> dict[str, Estimate]:
    """name -> one of its scores, for a figure; what has none is left out."""
    return {
        name: Estimate(**entry[score])
        for name, entry in entries.items()
        if entry.get(score, {}).get("value") is not None
    }


def table_of(entries: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """For reading: a row for each entry; columns: score -> heading. Estimates as text, numbers to two digits."""

    def text(value: Any) -> str:
        if isinstance(value, Mapping) and "value" in value:
            return str(Estimate(**value)) if value["value"] is not None else "-"
        return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    return pd.DataFrame(
        {
            name: {heading: text(entry.get(score)) for score, heading in columns.items()}
            for name, entry in entries.items()
        }
    ).T
