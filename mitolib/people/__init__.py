"""The honest evaluation: the same models under every split of people, on twins, and fibre by fibre.

The chapter on new people calls the modules `outside`, `readers`, `asked`, `arms`, `cohort_size` and `size_conclusions`
by name: the twelve names of the wing are the older chapter's.
"""

import mitolib.people.asked
import mitolib.people.size_conclusions  # noqa: F401 (with all that it imports)
from mitolib.people.budget import BUDGETS
from mitolib.people.comparison import by_fibres
from mitolib.people.conclusions import claims
from mitolib.people.evaluation import evaluate
from mitolib.people.leak import leakage
from mitolib.people.material import features, prepare
from mitolib.people.metrics import precision
from mitolib.people.models import Head
from mitolib.people.ranking import ranked
from mitolib.people.training import train
from mitolib.people.twins import twin_effects

__all__ = [
    "BUDGETS",
    "Head",
    "by_fibres",
    "claims",
    "evaluate",
    "features",
    "leakage",
    "precision",
    "prepare",
    "ranked",
    "train",
    "twin_effects",
]
