"""The honest evaluation: the same models under every split of people, on twins, and fibre by fibre."""

from mitolib.people.comparison import by_fibres
from mitolib.people.conclusions import findings
from mitolib.people.controls import shuffled_labels, subject_probe
from mitolib.people.evaluation import evaluate
from mitolib.people.leak import leakage
from mitolib.people.material import features, prepare
from mitolib.people.metrics import precision
from mitolib.people.models import Head
from mitolib.people.training import train
from mitolib.people.twins import twin_effects

__all__ = [
    "Head",
    "by_fibres",
    "evaluate",
    "features",
    "findings",
    "leakage",
    "precision",
    "prepare",
    "shuffled_labels",
    "subject_probe",
    "train",
    "twin_effects",
]
