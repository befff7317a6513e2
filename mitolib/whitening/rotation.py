"""Turning axes onto concepts: an orthogonal R (d, d) whose first k rows should descend <G, R[:k]>.

G (k, d) is minus the derivative of the activations. Each function: (R, G) in float64 -> the new R, and how many line
searches failed on the way.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cayley(rotation: Tensor, gradient: Tensor) -> tuple[Tensor, int]:
    """Two steps of descent along the orthogonal matrices (Wen and Yin 2013, doi:10.1007/s10107-012-0584-1).

    Y(t) = (I + t/2 A)^-1 (I - t/2 A) R with A = G R^T - R G^T. Only k rows of G are not zero, so A = U V^T has rank 2k,
    and the search for t happens on matrices of size 2k.
    """
    failures = 0
    for _ in range(2):
        rotation, failed = _cayley_step(rotation, gradient)
        failures += failed
    return rotation, failures


def _cayley_step(rotation: Tensor, gradient: Tensor) -> tuple[Tensor, bool]:
    k, d = gradient.shape
    first = torch.eye(d, k, dtype=rotation.dtype, device=rotation.device)
    turned = rotation @ gradient.T
    u, v = torch.cat([first, turned], 1), torch.cat([turned, -first], 1)
    inner, descent = v.T @ u, v.T @ turned @ u[:k]
    norm = math.sqrt(max(0.0, 2 * float(descent.trace())))  # of A: F'(0) = -|A|^2 / 2 = -trace(descent)
    if norm <= 1e-6 * float(gradient.norm()):
        return rotation, False  # stationary: nothing to search
    step, failed = _line_search(inner.cpu(), descent.cpu(), 2 / norm)
    system = torch.eye(2 * k, dtype=inner.dtype, device=inner.device) + step / 2 * inner
    # As a product with R^T and in one pass over R, since these two are all that is as large as d x d.
    return torch.addmm(rotation, u, torch.linalg.solve(system, (rotation.T @ v).T), alpha=-step), failed


def _line_search(inner: Tensor, descent: Tensor, step: float) -> tuple[float, bool]:
    """A step that descends enough and far enough (weak Wolfe conditions), by doubling and bisection.

    With M = I + t/2 V^T U: F(t) - F(0) = -t trace(M^-1 descent), F'(t) = -trace(M^-2 descent). After 50 tries the
    search has failed; the step is then the longest that was seen to descend enough, or 0.
    """
    identity, slope = torch.eye(len(inner), dtype=inner.dtype, device=inner.device), float(descent.trace())
    low, high = 0.0, math.inf
    for _ in range(50):
        system = identity + step / 2 * inner
        once = torch.linalg.solve(system, descent)
        if float(once.trace()) < 1e-4 * slope:
            high = step
        elif float(torch.linalg.solve(system, once).trace()) > 0.9 * slope:
            low = step
        else:
            return step, False
        step = 2 * step if high == math.inf else (low + high) / 2
    return low, True


def procrustes(rotation: Tensor, gradient: Tensor) -> tuple[Tensor, int]:
    """The minimum in one step, by a thin SVD of G; the other rows turn as little as they must.

    Exact for a fixed G, so the best answer for "mean", whose G does not depend on R.
    """
    size = gradient.norm()
    if size == 0:
        return rotation, 0
    old = rotation[: len(gradient)]
    # The share of the old axes decides where G leaves a choice: opposite concepts make it singular.
    left, _, right = torch.linalg.svd(old * 1e-6 - gradient / size, full_matrices=False)
    new = left @ right
    # The planes between old and new axes: p turns onto q, and r, its partner among the other rows, follows.
    left, cosines, right = torch.linalg.svd(new @ old.T)
    p, q, cosines = right @ old, left.T @ new, cosines[:, None]
    r = q - cosines * p
    sines = r.norm(dim=1, keepdim=True)
    r = r / sines.clamp_min(1e-12)
    rest = rotation[len(gradient) :]
    turned = torch.cat([new, rest + rest @ r.T @ ((cosines - 1) * r - sines * p)])
    # A small turn leaves r with few true digits, which would add up over updates: one Newton step back to a rotation.
    return 1.5 * turned - 0.5 * (turned @ turned.T) @ turned, 0


ROTATIONS = {"cayley": cayley, "procrustes": procrustes}


def orthogonality_error(rotation: Tensor) -> float:
    """The largest entry of `|R R^T - I|`."""
    identity = torch.eye(len(rotation), dtype=rotation.dtype, device=rotation.device)
    return float((rotation @ rotation.T - identity).abs().max())
