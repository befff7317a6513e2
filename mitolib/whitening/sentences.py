"""Sentences that both chapters on concept whitening show."""

from __future__ import annotations

from mitolib.own_data import LeftOut


def too_few_people(people: int) -> LeftOut:
    """people: in the smaller class; where they are three, each has too few patches."""
    if people < 3:
        return LeftOut(f"the smaller class has {people} people, wanted three.")
    return LeftOut("there are too few patches to train on without the people who are tested.")
