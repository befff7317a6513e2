"""What a page makes of the units: scores beside baselines, whose prototypes they are, and where they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mitolib.metrics import Estimate, interval, majority_baseline
from mitolib.prototypes import measures, tree_fits
from mitolib.prototypes.asking import HEAD, LOGISTIC, MAJORITY, UNSEEN, Asked
from mitolib.prototypes.fits import PLAIN, TREE, Tools
from mitolib.prototypes.network import ROOT
from mitolib.prototypes.push import FIBRE_PX
from mitolib.prototypes.tree_fits import KNOWN, NOVEL, NOVELTY, SEEN

Record = dict[str, Any]
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
    order = {MAJORITY: 0, LOGISTIC: 1, HEAD: 2}
    table = pd.DataFrame(rows).T.rename_axis(["split", "model"])
    return table.iloc[
        sorted(
            range(len(table)),
            key=lambda i: (list(_splits(scores)).index(table.index[i][0]), order.get(table.index[i][1], 3)),
        )
    ]


def _splits(scores: Record) -> Mapping[str, Any]:
    return scores[MAJORITY]


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
        f"Of {n} prototypes, a push that may repeat places would put {', '.join(map(str, repeated))} onto a place that "
        f"is taken, by seed. ProtoPNet prunes a prototype if fewer than 3 of its 6 nearest training patches are of its "
        f"class: that is so of {found['pruned']}. None was removed here."
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


def methods(asked: Asked, subjects: Sequence[str], *, rng: Generator) -> Record:
    """method -> score -> estimate, as in the results of the chapter on maps; without truth only removal.

    subjects: (N,) whose patches were explained. Also <score>_minus_random of LEADING, paired.
    """
    if asked.explained is None:
        return {}
    found = asked.explained[0]
    subjects = np.asarray(subjects)
    result: Record = {}
    at_random = found["methods"].index("random")
    for place, method in enumerate(found["methods"]):
        entry = result.setdefault(method, {})
        if "localisation" in found:
            values = pd.DataFrame(found["localisation"][place].astype(float), columns=found["scores"])
            chance = pd.DataFrame(found["localisation"][at_random].astype(float), columns=found["scores"])
            for score in values:
                entry[score] = vars(interval(values[score].to_numpy(), subjects, rng=rng))
            for score in LEADING:
                entry[f"{score}_minus_random"] = vars(
                    interval((values[score] - chance[score]).to_numpy(), subjects, rng=rng)
                )
        for i, score in enumerate(found.get("removal_scores", ())):
            removal = found["removal"][place, :, i].astype(float)
            entry[f"{score}_minus_random"] = vars(interval(removal, subjects[: len(removal)], rng=rng))
    return result


def annotated(asked: Asked, tools: Tools, *, rng: Generator) -> Record:
    """ "k=1 share=20%" -> {k, share, activation_precision, of_map, chance, minus_chance, accuracy, minus_none}.

    On people not seen; minus_none: precision less that of the same network without masks on the same patches.
    """
    subjects = asked.study.table["subject"].to_numpy()
    found: Record = {}
    by_arm = {arm: _precision(list(fits)) for arm, fits in asked.fine.items()}
    for (k, share), fits in asked.fine.items():
        table = by_arm[k, share]
        entry: Record = {"k": k, "share": share, "folds": len(fits)}
        entry["accuracy"] = tools.summary(predictions(asked, fits), rng=rng)["balanced_accuracy"]
        without = by_arm[k, min(s for other, s in by_arm if other == k)]
        for name, values in {
            "activation_precision": table["precision"],
            "of_map": table["of_map"],
            "chance": table["chance"],
            "minus_chance": table["precision"] - table["chance"],
            "minus_none": table["precision"] - without["precision"],
        }.items():
            of_patches = values.groupby(level="row").mean()
            entry[name] = vars(interval(of_patches.to_numpy(), subjects[of_patches.index], rng=rng))
        found[f"k={k} share={share:.0%}"] = entry
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


def tree(asked: Asked) -> Record:
    """node -> {children, subjects, and by split accuracy, balanced_accuracy, path, majority_baseline, people, patches}.

    A node answers for the patches below it; path: share of them that all nodes above it send the right way too. A split
    under which fewer than two of its children are tested is left out.
    """
    if asked.tree_study is None:
        return {}
    study, found = asked.study, {}
    subjects = asked.tree_study.study.table["subject"].to_numpy()
    whole = asked.tree_study.tree
    for node, children in whole.children.items():
        found[node] = {"children": list(children), "subjects": whole.people(node), "splits": {}}
    for split, fits in asked.conditional.items():
        table, nodes = tree_fits.summary_of(fits), fits[0]["nodes"]
        right = table["target"] == table["predicted"]
        wrong_above = set(map(tuple, table.loc[(table["target"] >= 0) & ~right, ["fold", "row", "node"]].to_numpy()))
        parents = {child: node for node, of_node in nodes.items() for child in of_node}
        numbers = {node: i for i, node in enumerate(nodes)}
        for node in nodes:
            if node not in found:
                continue
            here = table[(table["node"] == numbers[node]) & (table["target"] >= 0)]
            if here["target"].nunique() < 2:
                continue
            above, at = [], node
            while at in parents:
                at = parents[at]
                above.append(numbers[at])
            path = [
                target == said and not any((fold, row, up) in wrong_above for up in above)
                for fold, row, _, target, said in here.to_numpy()
            ]
            found[node]["splits"][split] = {
                "accuracy": float((here["target"] == here["predicted"]).mean()),
                "balanced_accuracy": float(balanced_accuracy_score(here["target"], here["predicted"])),
                "chance": 1 / here["target"].nunique(),
                "majority_baseline": majority_baseline(here["target"].to_numpy()),
                "path": float(np.mean(path)),
                "people": len(set(subjects[here["row"]])),
                "folds": int(here["fold"].nunique()),
                "patches": len(here),
            }
    return found if study else {}


def novel(asked: Asked) -> Record:
    """genotype -> {node, score -> {against -> {auroc_patches, auroc_subjects}}, n_subjects, n_known, sent}.

    against: "unseen person of a known genotype", which is the comparison that counts, and "people trained on"; and the
    unseen person of a known genotype against the people trained on, which shows how much of novelty is a new person.
    """
    if asked.tree_study is None:
        return {}
    subjects, result = asked.tree_study.study.table["subject"].to_numpy(), {}
    for genotype, fits in asked.novel.items():
        one = fits[0]
        kind, whose = one["kind"], subjects[one["row"]]
        entry: Record = {"node": one["node"], "people": one["people"], "n_subjects": len(one["people"])}
        entry["n_known"] = len(one["known"])
        entry["sent"] = float(one["sent"][kind == NOVEL].mean())
        for i, score in enumerate(NOVELTY):
            values = one["scores"][:, i]
            entry[score] = {
                name: _auroc(values, kind, whose, high, low)
                for name, (high, low) in {
                    "novel against an unseen person of a known genotype": (NOVEL, KNOWN),
                    "novel against people trained on": (NOVEL, SEEN),
                    "unseen person of a known genotype against people trained on": (KNOWN, SEEN),
                }.items()
            }
        result[genotype] = entry
    return result


def _auroc(values: np.ndarray, kind: np.ndarray, subjects: np.ndarray, high: int, low: int) -> dict[str, float | None]:
    """By patch, and by the mean of each subject: how often the high kind has the greater score."""
    chosen = np.isin(kind, [high, low])
    is_high = kind[chosen] == high
    if is_high.all() or not is_high.any():
        return {"auroc_patches": None, "auroc_subjects": None}
    means = pd.Series(values[chosen]).groupby([is_high, subjects[chosen]]).mean()
    of_high = means.index.get_level_values(0).to_numpy(bool)
    return {
        "auroc_patches": float(roc_auc_score(is_high, values[chosen])),
        "auroc_subjects": float(roc_auc_score(of_high, means)),
    }


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


def novel_table(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """For reading: areas under the curve by patch, of each score and comparison, and the people they rest on."""
    rows = {}
    for genotype, entry in found.items():
        for score in NOVELTY:
            of_score = {name: _digits(of_pair["auroc_patches"]) for name, of_pair in entry[score].items()}
            people = f"{entry['n_subjects']} novel, {entry['n_known']} known"
            rows[genotype, score] = of_score | {"people": people, "sent to the node": f"{entry['sent']:.2f}"}
    return pd.DataFrame(rows).T.rename_axis(["genotype", "score"])


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
