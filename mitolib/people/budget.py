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
