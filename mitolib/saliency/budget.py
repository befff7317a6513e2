"""How much is explained and altered in each profile."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is explained, and altered, for each network."""

    patches: int | None  # explained, at most; None explains all
    altered: int  # of these; each is shown to the network again and again
    samples: int  # noise draws of SmoothGrad, channels of Score-CAM
    fibres: int  # restored in each altered patch, at most
    shares: tuple[float, ...]  # of a patch, removed
    cascaded: int  # of these, whose maps are followed while weights are drawn anew from the top down
    redraws: int  # of all weights, each with a seed of its own
    label_draws: int  # that networks are taught, one each
    ways: tuple[str, ...] | None  # that the chapter on all methods shows; None are all
    followed: tuple[str, ...]  # of these, the methods whose maps are compared at every stage of weights drawn anew
    ways_of_several: bool  # whether that chapter explains the network of several proteins too


_SHORT = Budget(  # a page in minutes; what it shows of the code, not of the networks
    patches=2,
    altered=1,
    samples=1,
    fibres=7,
    shares=(0.1,),
    cascaded=1,
    redraws=1,
    label_draws=1,
    ways=None,
    followed=("Grad-CAM", "guided backpropagation"),
    ways_of_several=False,
)
BUDGETS = {  # by profile
    "smoke": replace(_SHORT, fibres=4, ways=("LRP", "CAM")),
    "quick": _SHORT,
    "paper": Budget(
        patches=None,
        altered=100,
        samples=8,
        fibres=20,
        shares=(0.1, 0.3, 0.5),
        cascaded=24,
        redraws=5,
        label_draws=5,
        ways=None,
        followed=("Grad-CAM", "saliency", "guided backpropagation", "deconvolution", "LRP"),
        ways_of_several=True,
    ),
}
