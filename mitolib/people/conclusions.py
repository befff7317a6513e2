"""The conclusions of the chapter, as sentences made of its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from mitolib.metrics import Estimate
from mitolib.people.comparison import GREY_LEVELS
from mitolib.people.controls import ON_FEATURES
from mitolib.people.evaluation import SEEN, UNSEEN
from mitolib.people.leak import SPELT
from mitolib.people.metrics import exact_interval

Entry = Mapping[str, Any]


def findings(record: Mapping[str, Any]) -> str:
    """Markdown, a numbered list. record: of the chapter, with leak, table, honest, controls, carried, controls_needed.

    What the data do not allow has no sentence.
    """
    sentences = [
        *_leaking(record["leak"]),
        *_published_and_unseen(record["table"]),
        *_shuffled(record["controls"]["permuted_labels"]),
        *_named(record["controls"]["subject_probe"]),
        *_cured(record["carried"]),
        *_honest(record["honest"]),
        _precision(record["honest"][0]["n_subjects"], record["controls_needed"]),
    ]
    if record["leak"]:
        sentences.append(
            "What is shown is a property of the protocol: dealing out overlapping patches of the same people cannot "
            "tell a network that knows the disease from one that knows the biopsies."
        )
    return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1))


def _score(entry: Entry, name: str) -> str:
    return str(Estimate(entry[name], entry["ci"][name]))


def _leaking(leak: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for experiment, shares in leak.items():
        yield (
            f"Of the test patches of {SPELT[experiment]} under the published split, "
            f"{shares['share_of_patches']:.0%} share pixels with a training patch, on average "
            f"{shares['mean_shared_fraction']:.0%} of their own. Of the people tested, "
            f"{shares['subjects_seen']:.0%} were trained on."
        )


def _published_and_unseen(table: list[Entry]) -> Iterator[str]:
    """A sentence for each head on VGG16."""
    by_split: dict[str, dict[str, Entry]] = {}
    for entry in table:
        if entry["model"].startswith("VGG16 head"):
            by_split.setdefault(entry["model"], {})[entry["split"]] = entry
    for model, entries in by_split.items():
        published = ""
        if SEEN in entries:
            published = f"of {_score(entries[SEEN], 'balanced_accuracy')} on patches of the published split and "
        yield (
            f"*{model}* has a balanced accuracy {published}of {_score(entries[UNSEEN], 'balanced_accuracy')} on "
            f"patches of people not seen. In {_score(entries[UNSEEN], 'auc_subject')} of the pairs of a patient "
            "and a control not seen the patient has the higher score."
        )


def _shuffled(entries: list[Entry]) -> Iterator[str]:
    by_split = pd.DataFrame(entries).groupby(["model", "split"])["balanced_accuracy"].mean()[ON_FEATURES]
    published = f"{by_split[SEEN]:.2f} under the published split and of " if SEEN in by_split else ""
    yield (
        "With labels dealt out anew among the people, VGG16's features keep a balanced accuracy of "
        f"{published}{by_split[UNSEEN]:.2f} on people not seen."
    )


def _named(probe: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    if shares := probe.get(f"VGG16, {SEEN}"):
        yield (
            f"From the same features a linear probe names the person of {shares['accuracy']:.0%} of the test patches; "
            f"guessing would name {shares['chance']:.0%} at most."
        )


def _cured(contributions: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """A sentence for each head on VGG16 that was trained on the published split."""
    for model, by_split in contributions.items():
        if model.startswith("VGG16 head") and SEEN in by_split:
            yield (
                f"Of the patients that *{model}* of the published split had recognised, curing every deficient fibre "
                f"turns {by_split[SEEN]['turned']} of {by_split[SEEN]['called']} into controls."
            )


def _honest(entries: list[Entry]) -> Iterator[str]:
    by_model = {entry["model"]: entry for entry in entries}
    if fibres := by_model.get(GREY_LEVELS):
        yield (
            f"Fibre by fibre, from the pictures' grey levels, {fibres['subjects_right']} of {fibres['n_subjects']} "
            f"people not seen are called rightly, area {_score(fibres, 'auc_subject')}."
        )
    pictures = pd.DataFrame([entry for entry in entries if entry["model"].startswith(("patches", "sections"))])
    best = by_model[pictures.sort_values(["auc_subject", "subjects_right"])["model"].iloc[-1]]
    yield (
        f"Of the models that see pictures, *{best['model']}* does best on people not seen: "
        f"{best['subjects_right']} of {best['n_subjects']} called rightly, an area of {_score(best, 'auc_subject')}."
    )


def _precision(n_people: int, controls_needed: int) -> str:
    lowest, _ = exact_interval(n_people, n_people)
    return (
        f"{n_people} people settle little: without any error the interval would still begin at {lowest:.0%}. To know "
        f"a specificity near 90 % to within ten points takes {controls_needed} controls."
    )
