"""How much is explained and altered in each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is explained, and altered, for each network."""

    patches: int | None  # explained, at most; None explains all
    altered: int  # of these; each is shown to the network again and again
    samples: int  # noise draws of SmoothGrad, channels of Score-CAM
    fibres: int  # restored in each altered patch, at most
    shares: tuple[float, ...]  # of a patch, removed
    redraws: int  # of all weights, each with a seed of its own
    label_draws: int  # that networks are taught, one each


BUDGETS = {  # by profile
    "smoke": Budget(patches=2, altered=1, samples=1, fibres=4, shares=(0.1,), redraws=1, label_draws=1),
    "quick": Budget(patches=3, altered=1, samples=1, fibres=7, shares=(0.1,), redraws=1, label_draws=1),
    "paper": Budget(patches=None, altered=100, samples=8, fibres=20, shares=(0.1, 0.3, 0.5), redraws=5, label_draws=5),
}
