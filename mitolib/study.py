"""The two experiments of the paper: which proteins, how patches are cut. On other data both can be changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mitolib.settings import PROTEINS

LEAST_CHANNELS = 3  # of experiment 2: the first convolution keeps the kernels learnt for red, green and blue


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Proteins that a network is shown, and the grid that its patches are cut on."""

    name: str
    proteins: tuple[str, ...]
    stride_px: int  # between neighbouring patches; recovered from Tables 1 and 2 of the paper
    patch_px: int = 512

    def adapted(
        self, *, proteins: Sequence[str] = (), patch_px: int | None = None, stride_px: int | None = None
    ) -> Experiment:
        """The same with what is given changed. A patch of another size takes a stride in proportion to it."""
        size_px = patch_px or self.patch_px
        return replace(
            self,
            proteins=tuple(proteins) or self.proteins,
            patch_px=size_px,
            stride_px=stride_px or max(1, round(self.stride_px * size_px / self.patch_px)),
        )


EXP1 = Experiment(name="exp1", proteins=("SDHA",), stride_px=224)
EXP2 = Experiment(name="exp2", proteins=PROTEINS, stride_px=256)
