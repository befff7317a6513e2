"""How long heads are trained, and how often, in each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How the heads of the honest evaluation are trained, and how often labels are dealt out anew."""

    steps: int  # of every head in every split: chosen on the plateau of the curve
    curve: tuple[int, ...]  # steps of the heads of the curve, before its longest
    longest: float  # of the curve: share of the published protocol's epochs
    batch_size: int
    n_seeds: int
    shuffles: int  # draws of labels, for the regression
    head_shuffles: int  # the same, for the paper's head


BUDGETS = {  # by profile
    "smoke": Budget(steps=1, curve=(1,), longest=0.05, batch_size=2, n_seeds=1, shuffles=2, head_shuffles=1),
    "quick": Budget(steps=5, curve=(2, 5), longest=0.05, batch_size=4, n_seeds=1, shuffles=2, head_shuffles=1),
    "paper": Budget(
        steps=3000,
        curve=(150, 500, 1500, 3000, 6000),
        longest=0.25,
        batch_size=2,
        n_seeds=3,
        shuffles=20,
        head_shuffles=5,
    ),
}


@dataclass(frozen=True, kw_only=True)
class SizeBudget:
    """How many new people are drawn, and how large; how heads are trained on them."""

    outside: int  # of each class, in the outside test
    sizes: tuple[int, ...]  # people to train on, half of them patients
    draws: int  # cohorts of the greatest size, of which the smaller are parts
    paired: int  # the size of which pairs are left out
    side_px: int  # of a section
    head_steps: int  # of the paper's head on plain views: 600, until the plateau of `BUDGETS` is measured


SIZE_BUDGETS = {  # by profile
    "smoke": SizeBudget(outside=2, sizes=(4,), draws=1, paired=4, side_px=512, head_steps=1),
    "quick": SizeBudget(outside=3, sizes=(4, 8), draws=1, paired=8, side_px=512, head_steps=5),
    "paper": SizeBudget(outside=100, sizes=(14, 28, 56, 112, 224), draws=3, paired=14, side_px=1500, head_steps=600),
}
