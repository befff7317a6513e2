"""Whitening: W with W S W^T = I for a covariance S (d, d), positive definite.

`zca` is exact; `newton` and `newton_reference` are iterations, of which the second is that of the public code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NEWTON_STEPS, REFERENCE_STEPS = 15, 10


def zca(covariance: Tensor) -> Tensor:
    """The symmetric inverse root S^(-1/2), exactly."""
    return _InverseRoot.apply(covariance)


def newton(covariance: Tensor, steps: int = NEWTON_STEPS) -> Tensor:
    """S^(-1/2) by the coupled Newton-Schulz iteration (Higham 2008, eq. 6.35), which keeps rounding errors small."""
    trace = covariance.diagonal().sum()
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    root, inverse_root = covariance / trace, identity
    for _ in range(steps):
        update = (3 * identity - inverse_root @ root) / 2
        root, inverse_root = root @ update, update @ inverse_root
    return inverse_root / trace.sqrt()


def newton_reference(covariance: Tensor, steps: int = REFERENCE_STEPS) -> Tensor:
    """The recursion of the public code (IterNorm; Huang et al. 2019, arXiv:1904.03441).

    After 10 steps a direction that holds the share s of the trace has variance s p(s)^2, well below 1 for small s; and
    rounding errors grow where one direction dominates, see `amplification`.
    """
    trace = covariance.diagonal().sum()
    share = covariance / trace
    p = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    for _ in range(steps):
        p = 1.5 * p - 0.5 * p @ p @ p @ share
    return p / trace.sqrt()


def amplification(covariance: Tensor, steps: int = REFERENCE_STEPS) -> float:
    """How large `newton_reference` lets rounding errors grow, relative to its result; beyond 0.01 do not trust it.

    In the eigenbasis an error in entry (i, j) is multiplied in each step by 1.5 - (p_i^2 + p_i p_j + p_j^2) s_j / 2, s
    being the eigenvalues' shares of the trace: far above 1 where a small s_i, with its large p_i, meets a large s_j.
    """
    shares = torch.linalg.eigvalsh(covariance).clamp_min(0) / covariance.diagonal().sum()
    p = torch.ones_like(shares)
    growth = torch.ones_like(covariance)
    for _ in range(steps):
        factor = 1.5 - 0.5 * ((p[:, None] + p) ** 2 - torch.outer(p, p)) * shares
        growth = (growth * factor.abs()).clamp_min(1)  # at least that of the error made in this step
        p = 1.5 * p - 0.5 * p**3 * shares
    return torch.finfo(covariance.dtype).eps / 2 * float(growth.max())


class _InverseRoot(torch.autograd.Function):
    """Its derivative holds sums of roots where autograd's for `eigh` has differences of eigenvalues, which may be 0."""

    @staticmethod
    def forward(ctx, covariance: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(covariance)
        smallest = torch.finfo(values.dtype).eps * values[-1]  # below it a value is rounding error
        roots = values.clamp_min(smallest).sqrt()
        ctx.save_for_backward(roots, vectors)
        return (vectors / roots) @ vectors.T

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        roots, vectors = ctx.saved_tensors
        inner = vectors.T @ (gradient + gradient.T) @ vectors / 2
        inner /= -torch.outer(roots, roots) * (roots[:, None] + roots)
        return vectors @ inner @ vectors.T


WHITENINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "zca": zca,
    "newton": newton,
    "newton-reference": newton_reference,
}
