"""The honest evaluation: any model under any split of people, on twins, and fibre by fibre."""

from mitolib.people.evaluation import Augmented, Head, Logistic, Majority, out_of_fold
from mitolib.people.metrics import summary, worded

__all__ = ["Augmented", "Head", "Logistic", "Majority", "out_of_fold", "summary", "worded"]
