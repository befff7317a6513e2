"""How long, and on how many folds of people, the chapters on concept whitening train in each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WhiteningBudget:
    """How long networks with concept whitening are trained, and on how many folds of people."""

    steps: int  # of a layer and a classifier on the features of VGG16
    views: int  # augmented copies of each training patch that VGG16 is shown; 0 trains on the patches as they are
    folds: int  # of one control and one patient, at most; where there are fewer people, fewer
    controls: int  # permutations of the axes of concepts, of others, and of all others, for their importance
    trunk_steps: tuple[int, int]  # of a whole ResNet-18 on pictures of half the side, then on whole ones, at most
    looks: tuple[int, int]  # at its validation loss: steps between two, and how many without a lower one end a stage
    trunks: int  # seeds of the whole ResNet-18
    tail_steps: int  # of a last block of it


SHORT = WhiteningBudget(steps=2, views=0, folds=1, controls=1, trunk_steps=(4, 1), looks=(4, 1), trunks=1, tail_steps=2)
BUDGETS = {  # by profile
    "smoke": SHORT,
    "quick": SHORT,
    "paper": WhiteningBudget(
        steps=240,
        views=8,
        folds=10,
        controls=10,
        trunk_steps=(2400, 480),
        looks=(30, 8),
        trunks=3,
        tail_steps=200,
    ),
}
