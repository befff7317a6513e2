"""The models whose need of people is measured: what each reads of a person, and how it learns.

Every model is fitted to `n` people of a draw, and asked of the people of the outside test and of their twins. One unit
is one model, one n and one draw.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from mitolib import bank, units
from mitolib.own_data import LeftOut
from mitolib.people import bags
from mitolib.people.bags import Bags, FibreBaseline, Fitted, Learner, PapersHead, Quantiles, TopRows
from mitolib.people.budget import SizeBudget
from mitolib.people.evaluation import Evaluation, evaluate, unseen_trial
from mitolib.people.evaluation import ask as ask_trials
from mitolib.people.metrics import by_subject
from mitolib.people.models import Model
from mitolib.people.outside import OnDisk, Outside, refuse_acquaintances
from mitolib.people.protocols import ALL_PAIRS
from mitolib.people.readers import Reader, Readers
from mitolib.settings import LABELS
from mitolib.units import Units

PROTOCOL = 1  # of the units; raise it when one would come out otherwise
CHAPTER = "people"
BASELINE = "fibre baseline, counts"
BEST = "fibre ratios, top fibres"  # run on a reader's own cohort; a test holds it against the published results
AS_PUBLISHED, RULE = "as published", "the laboratory's rule"  # the first and the last step of the ladder
LEFT_OUT = 0.2  # of the rows of each training person, where a random split is asked what it would have said
HEAD_BATCH = 2
OUTSIDE_SEED = 2022  # of the people of the outside test, whatever the run's; training draws have those that follow
LEAST_PEOPLE = 3  # of each class, where pairs are left out


def as_read(array: np.ndarray) -> np.ndarray:
    """The array itself."""
    return array


@dataclass(frozen=True)
class Arm:
    """One model. reader, part: what it reads of a person; rows: what it makes of that array.

    kind: "pictures" or "fibres". step: its place on the ladder of what was tried.
    """

    step: str
    kind: str
    reader: str
    part: str
    learner: Learner
    rows: Callable[[np.ndarray], np.ndarray] = as_read

    def bags(self, people: Outside | OnDisk) -> list[np.ndarray]:
        """Of each person."""
        return [self.rows(array) for array in people.rows(self.reader, self.part)]

    @property
    def is_rule(self) -> bool:
        """Whether it is the laboratory's, which the others are held against."""
        return isinstance(self.learner, FibreBaseline)

    @property
    def depends(self) -> dict[str, Any]:
        """What tells it from others, as plain values."""
        return {"part": self.part, "rows": self.rows.__name__, type(self.learner).__name__: asdict(self.learner)}


def arms(budget: SizeBudget, *, learning_rate: float, seed: int) -> dict[str, Arm]:
    """The models by name, in the order of the ladder. learning_rate, seed: of the paper's head."""
    head = PapersHead(budget.head_steps, HEAD_BATCH, learning_rate, seed)
    mean, top_patches, top_fibres = TopRows(), TopRows(top=0.2, rounds=3), TopRows(top=0.05, rounds=3)
    as_published, pooled = {}, {}
    for reader, name in {"one": "SDHA", "several": "ten proteins"}.items():
        as_published[f"{name}, logistic"] = Arm(AS_PUBLISHED, "pictures", reader, "maps", mean, bags.mean_of_maps)
        as_published[f"{name}, paper's head"] = Arm(AS_PUBLISHED, "pictures", reader, "maps", head)
        top = Arm("top-k pooling", "pictures", reader, "maps", top_patches, bags.mean_of_maps)
        pooled[f"{name}, top patches"] = top
    return {
        **as_published,
        **pooled,
        "ratio pictures, logistic": Arm("ratio channels", "pictures", "ratios", "pooled", mean),
        "ratio pictures, top patches": Arm("ratio channels", "pictures", "ratios", "pooled", top_patches),
        "fibre crops, top fibres": Arm(
            "fibres", "fibres", "fibres", "crops", TopRows(top=0.05, rounds=3, penalty=1e-3)
        ),
        "fibre ratios, top fibres": Arm("fibres", "fibres", "fibres", "counts", top_fibres, bags.ratios),
        "fibre ratios, quantiles": Arm("fibres", "fibres", "fibres", "counts", Quantiles(), bags.ratios),
        BASELINE: Arm(RULE, "fibres", "fibres", "counts", FibreBaseline()),
        "fibre baseline, grey levels": Arm(RULE, "fibres", "fibres", "grey", FibreBaseline()),
    }


@dataclass(frozen=True, eq=False)
class OutsideTest:
    """The people of the outside test, their cured and afflicted twins. Patients are cured, controls afflicted."""

    people: Outside
    twins: tuple[Outside, Outside]  # afflicted controls, then cured patients: in the order of `people`

    @classmethod
    def of(
        cls,
        drawn: Mapping[str, Any],
        readers: Readers | Mapping[str, Reader],
        draw: Callable[..., list[Path]],
        recipe: int,
    ) -> OutsideTest:
        """drawn: of `phantom.draw_people`, controls first. readers, draw, recipe: see `Outside`.

        Raises LearnerError below two people of a class.
        """
        controls, patients = ([s for s in drawn["subjects"] if s["label"] == label] for label in LABELS)
        if min(len(controls), len(patients)) < 2:
            raise bags.LearnerError(
                f"{len(controls)} controls and {len(patients)} patients in the outside test; wanted two of each at "
                "least. Draw more people."
            )
        people = Outside({**drawn, "subjects": [*controls, *patients]}, readers, draw, recipe)
        return cls(people, (people.some(controls, "afflicted"), people.some(patients, "cured")))

    def prepare(self) -> None:
        """Draw and read whoever is not kept."""
        for of in (self.people, *self.twins):
            of.prepare()

    @property
    def depends(self) -> dict[str, Any]:
        """What tells them from others, their donors too."""
        return {"people": self.people.depends, "twins": [of.depends for of in self.twins]}


def training_draws(draw_people: Callable[..., dict[str, Any]], *, budget: SizeBudget) -> list[dict[str, Any]]:
    """The people of each draw, as many controls as patients. draw_people: of the phantom."""
    half = max(budget.sizes) // 2
    seeds = range(OUTSIDE_SEED + 1, OUTSIDE_SEED + 1 + budget.draws)
    return [draw_people(half, half, seed=seed, side_px=budget.side_px) for seed in seeds]


def training_people(test: OutsideTest, everybody: Mapping[str, Any], n: int) -> Outside:
    """The first n of a draw, half of them patients, read by the readers of the outside test.

    everybody: of `phantom.draw_people`. Raises LearnerError for n below 4 or odd or above the draw, OutsideError for
    somebody of the outside test.
    """
    by_label = [[s for s in everybody["subjects"] if s["label"] == label] for label in LABELS]
    if n < 4 or n % 2 or n // 2 > min(map(len, by_label)):
        raise bags.LearnerError(
            f"n={n} people to train on; wanted an even number from 4 to {2 * min(map(len, by_label))}, two of each "
            "class at least. Choose another, or draw more people."
        )
    chosen = test.people.some([s for of_label in by_label for s in of_label[: n // 2]])
    refuse_acquaintances(chosen.people, test.people.people)
    return chosen


def ask(
    models: Mapping[str, Arm], test: OutsideTest, draws: Sequence[Mapping[str, Any]], *, budget: SizeBudget
) -> dict[str, Units]:
    """The units of every model, for each n and, within it, each draw: see `_fit`."""
    cohorts = {
        (n, number): training_people(test, everybody, n)
        for n, (number, everybody) in product(budget.sizes, enumerate(draws))
    }

    def prepare() -> None:
        test.prepare()
        for (n, _), cohort in cohorts.items():
            if n == max(budget.sizes):
                cohort.prepare()

    return {
        name: units.each(
            lambda model, n, draw, trained_on, arm=arm: _fit(arm, cohorts[n, draw], test),
            [
                {"model": name, "n": n, "draw": number, "trained_on": _key(cohort)}
                for (n, number), cohort in cohorts.items()
            ],
            made_by=sys.modules[__name__],
            chapter=CHAPTER,
            depends=arm.depends | {"read": test.people.readers[arm.reader].depends, "outside": test.depends},
            prepare=prepare,
            precision=bank.precision,
        )
        for name, arm in models.items()
    }


def altered(test: OutsideTest) -> Units:
    """One unit, {"altered": (N,) uint8}: whether the twin of each person of the test differs from the person at all.

    A patient with a deficient fibre in the section can be cured, a control can be afflicted by a donor who has one in
    so small a section. Whoever is not altered is the same picture twice, which no model can turn.
    """

    def fit(of: str) -> dict[str, np.ndarray]:
        afflicted, _ = test.twins
        of_controls = afflicted.rows("fibres", "deficient")
        of_patients = test.people.rows("fibres", "deficient")[len(of_controls) :]
        return {"altered": np.array([(deficient == 1).any() for deficient in [*of_controls, *of_patients]], np.uint8)}

    return units.each(
        fit,
        [{"of": "twins that differ"}],
        made_by=sys.modules[__name__],
        chapter=CHAPTER,
        depends={"read": test.people.readers["fibres"].depends, "outside": test.depends},
        prepare=test.prepare,
        precision=bank.precision,
    )


def _key(cohort: Outside) -> str:
    """Of who is trained on: a draw more changes no other unit."""
    return hashlib.sha256(json.dumps(cohort.depends).encode()).hexdigest()[:12]


def _fit(arm: Arm, trained_on: Outside, test: OutsideTest) -> dict[str, np.ndarray]:
    """A unit.

    p, p_twin: (people of the outside test,) float32 of themselves and of their twins. p_seen: (n,) of rows that a model
    fitted to the other rows of the same people has not seen; empty where somebody has a single row. attention: for each
    person of the test the area under the ROC curve of what the model makes of fibres against whether they are
    deficient; nan where it is not defined; empty for models that see no fibre.
    """
    of_trained, labels = arm.bags(trained_on), trained_on.truth
    fitted = arm.learner.fit(of_trained, labels)
    of_test = arm.bags(test.people)
    found = {
        "p": fitted.p(of_test),
        "p_twin": np.concatenate([fitted.p(arm.bags(twins)) for twins in test.twins]),
        "attention": _attention(fitted, arm, test, of_test),
        "p_seen": _seen(arm.learner, of_trained, labels),
    }
    return {name: np.asarray(values, np.float32) for name, values in found.items()}


def _seen(learner: Learner, of_trained: Bags, labels: np.ndarray) -> np.ndarray:
    """See `_fit`: the published way to split, on these people."""
    if min(len(bag) for bag in of_trained) < 2:
        return np.empty(0)
    rng = np.random.default_rng(0)
    seen, left_out = [], []
    for bag in of_trained:
        order = rng.permutation(len(bag))
        n_out = max(1, round(LEFT_OUT * len(bag)))
        seen.append(bag[np.sort(order[n_out:])])
        left_out.append(bag[np.sort(order[:n_out])])
    return learner.fit(seen, labels).p(left_out)


def _attention(fitted: Fitted, arm: Arm, test: OutsideTest, of_test: Bags) -> np.ndarray:
    """See `_fit`."""
    if arm.kind != "fibres" or fitted.rows is None:
        return np.empty(0)
    areas = []
    for bag, deficient in zip(of_test, test.people.rows(arm.reader, "deficient"), strict=True):
        known = deficient >= 0
        both = set(deficient[known]) == {0, 1}
        areas.append(roc_auc_score(deficient[known], fitted.rows(bag)[known]) if both else np.nan)
    return np.array(areas)


def leave_pair_out(models: Mapping[str, Arm], people: Outside | OnDisk, *, seed: int) -> Evaluation | LeftOut:
    """Models trained on people anew for each pair of a control and a patient who are left out, and asked of these two.

    seed: of the bootstrap. LeftOut for fewer than three people of a class: two have to train while one is left out.
    """
    least = min(np.bincount(people.truth, minlength=len(LABELS)))
    if least < LEAST_PEOPLE:
        return LeftOut(f"{least} people in the smaller class, wanted {LEAST_PEOPLE}: two train while one is left out.")
    trials = {name: unseen_trial(partial(_on_people, arm, people), people.table) for name, arm in models.items()}
    return evaluate(ask_trials(trials), rng=np.random.default_rng(seed))


def by_person(pairs: Evaluation) -> pd.DataFrame:
    """For reading, of `leave_pair_out`: each person's class, and the mean probability over the pairs."""
    people = {model: by_subject(by_split[ALL_PAIRS]) for model, by_split in pairs.predictions.items()}
    first = next(iter(people.values()))
    columns = {"class": first["truth"].map(dict(enumerate(LABELS)))}
    return pd.DataFrame(columns | {model: of["score"].map("{:.2f}".format) for model, of in people.items()})


def _on_people(arm: Arm, people: Outside | OnDisk) -> Model:
    """A model whose rows are people."""
    of_people, labels = arm.bags(people), people.truth

    def model(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        fitted = arm.learner.fit([of_people[place] for place in train], labels[train])
        return fitted.p([of_people[place] for place in test])

    return model
