"""Concept whitening: a norm layer whose first axes are turned onto named concepts.

After Chen, Bei and Rudin 2020, arXiv:2002.01650. The layer decorrelates the channels of a map, as batch normalisation
with a full covariance would, and rotates the result; axis j of the output then stands for concept j. The network
learns by its own loss with the rotation fixed; now and then `align` turns the rotation towards batches of concept
images. `REFERENCE` sets the layer to what the authors' public code computes; the defaults are what its formulas say.

Pictures and maps are torch tensors (N, C, H, W); k is the number of concepts, d = C the number of channels. In the
mathematics, every position of every map is one sample of d numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

NEWTON_STEPS, REFERENCE_STEPS = 15, 10
AMPLIFICATION = 1e-2  # of rounding errors; beyond it the reference recursion is not to be trusted
LEAST = {"rotation": torch.float64, "gradient": torch.float64}  # precision of a buffer; float32 for any other

# Of the public code but for its line search, which starts at a step that fits no scale and can hang.
REFERENCE = {"whitening": "newton-reference", "activation": "pool_max", "official_mask": True, "affine": False}


# Whitening: W with W S W^T = I for a covariance S (d, d), positive definite.


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


# Activation of an axis: a weighted sum of its values over the positions of one map. The weights depend on the values
# only by which positions win, so they are the derivative as well. Each function: (N, k, H, W) -> weights of that shape.


def _mean(values: Tensor) -> Tensor:
    return torch.full_like(values, 1 / values[0, 0].numel())


def _max(values: Tensor) -> Tensor:
    winners = (values == values.amax((2, 3), keepdim=True)).to(values.dtype)
    return winners / winners.sum((2, 3), keepdim=True)


def _pos_mean(values: Tensor) -> Tensor:
    positive = (values > 0).to(values.dtype)
    return positive / (positive.sum((2, 3), keepdim=True) + 1e-4)


def _pool_max(values: Tensor) -> Tensor:
    if min(values.shape[2:]) < 3:
        raise ValueError(
            f"pool_max over a map of {values.shape[2]} x {values.shape[3]} positions; wanted 3 x 3 or more. "
            'Take larger pictures, an earlier layer, or activation="max".'
        )
    winners = functional.max_pool2d(values, 3, return_indices=True)[1].flatten(2)
    weights = torch.zeros_like(values).flatten(2)
    return weights.scatter_(2, winners, 1 / winners.shape[2]).view_as(values)


ACTIVATIONS = {"mean": _mean, "max": _max, "pos_mean": _pos_mean, "pool_max": _pool_max}


# Rotation: an orthogonal R (d, d) whose first k rows should descend <G, R[:k]>, G (k, d) being minus the derivative of
# the activations. Each function: (R, G) in float64 -> the new R, and how many line searches failed on the way.


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


class ConceptWhitening(nn.Module):
    """A norm layer for (N, C, H, W) maps, C = n_channels, whose channel j < n_concepts stands for concept j.

    Training, with the statistics of the batch: y = gain * R W (x - mean) + shift; evaluation, with running ones.
    whitening: "zca" (exact), "newton" (coupled iteration) or "newton-reference" (the public code's, which averages W
    where the others average the covariance). rotation: "cayley" or "procrustes". activation: what of a map counts as
    its score on an axis: its "mean", its "max", the mean of what is positive ("pos_mean"), or the mean over the
    maxima of 3 x 3 windows ("pool_max", all of the article's experiments). official_mask: take for the derivative what
    the public code takes, the winners of each channel on its own instead of those of the concept's axis. affine: a
    gain and a shift per channel, as batch normalisation has; the public code has none.

    Computes in float32 at least, also under autocast and in a model cast to half precision, and returns the type it was
    given. `rotation`, R, is a buffer in float64 and changes in `surgery.align` only. `line_search_failures` and
    `num_batches_tracked` count from the start of training. All channels form one group.
    Raises ValueError for settings or maps that do not fit, TypeError for maps of integers, FloatingPointError for NaN
    or infinity in a training batch.
    """

    def __init__(
        self,
        n_channels: int,
        n_concepts: int,
        *,
        whitening: str = "zca",
        rotation: str = "cayley",
        activation: str = "mean",
        official_mask: bool = False,
        affine: bool = True,
        momentum: float = 0.05,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        for name, table in ((whitening, WHITENINGS), (rotation, ROTATIONS), (activation, ACTIVATIONS)):
            if name not in table:
                raise ValueError(f"{name!r} is not one of {', '.join(table)}.")
        if not 1 <= n_concepts <= n_channels:
            raise ValueError(
                f"{n_concepts} concepts for {n_channels} channels; wanted 1 to {n_channels}, an axis for each. "
                "Leave concepts out, or take a wider layer."
            )
        self.n_channels, self.n_concepts = n_channels, n_concepts
        self.whitening, self.turn, self.activation = whitening, rotation, activation
        self.official_mask, self.momentum, self.eps = official_mask, momentum, eps
        self.weight = nn.Parameter(torch.ones(n_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(n_channels)) if affine else None
        reference, wide = whitening == "newton-reference", at_least_float32(torch.get_default_dtype())
        self.register_buffer("running_mean", torch.zeros(n_channels, dtype=wide))
        self.register_buffer("running_covariance", None if reference else torch.eye(n_channels, dtype=wide))
        self.register_buffer("running_whitener", torch.eye(n_channels, dtype=wide) if reference else None)
        self.register_buffer("rotation", torch.eye(n_channels, dtype=torch.float64))
        self.register_buffer("gradient", torch.zeros(n_concepts, n_channels, dtype=torch.float64))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.register_buffer("line_search_failures", torch.tensor(0))
        self.largest_amplification = 0.0  # of "newton-reference" so far
        self._known: tuple[Tensor, int, Tensor] | None = None  # a covariance, its version, its whitener

    def extra_repr(self) -> str:
        settings = ("whitening", "turn", "activation", "official_mask")
        return f"{self.n_channels}, {self.n_concepts}, " + ", ".join(f"{s}={getattr(self, s)}" for s in settings)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConceptWhitening:
        """What `to`, `half`, `bfloat16` and `cuda` of any model around call: a buffer moves, but keeps its precision.

        In half precision no eigenvalue could be computed, and the rotation would not be orthogonal any more.
        """
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        self._widen(before)
        return self

    def _load_from_state_dict(self, *given: object) -> None:
        super()._load_from_state_dict(*given)
        self._widen(self._buffers)  # with assign=True the tensors of a checkpoint are taken as they are

    def _widen(self, values: Mapping[str, Tensor | None]) -> None:
        """Put `values` in the place of buffers that are too narrow."""
        for name, buffer in self._buffers.items():
            bits = torch.finfo(least := LEAST.get(name, torch.float32)).bits
            if buffer is not None and buffer.is_floating_point() and torch.finfo(buffer.dtype).bits < bits:
                self._buffers[name] = values[name].to(buffer.device, least)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        if self.training:
            self._check_positions(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(at_least_float32(x.dtype))
            mean, whitener = self._batch_statistics(wide) if self.training else self._running_statistics(wide.dtype)
            y = at_each_position(self.rotation.to(wide.dtype) @ whitener, wide - mean[:, None, None])
            if self.weight is not None:
                gain, shift = self.weight.to(y.dtype), self.bias.to(y.dtype)
                y = torch.addcmul(shift[:, None, None], gain[:, None, None], y)
            return y.to(x.dtype)

    def whiten(self, x: Tensor) -> Tensor:
        """(N, C, H, W), with the running statistics, before rotation, gain and shift."""
        self.check(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(at_least_float32(x.dtype))
            mean, whitener = self._running_statistics(wide.dtype)
            return at_each_position(whitener, wide - mean[:, None, None])

    def scores(self, x: Tensor) -> Tensor:
        """(N, k): the activation of each concept's axis by each map, with the running statistics."""
        values = self._turned(self.whiten(x), slice(self.n_concepts))
        return (ACTIVATIONS[self.activation](values) * values).sum((2, 3))

    def derivative(self, x: Tensor, concept: int) -> Tensor:
        """(C,) float64: of the mean score on an axis over the maps of a batch, with respect to that axis."""
        whitened = self.whiten(x)
        rows = slice(None) if self.official_mask else slice(concept, concept + 1)
        weights = ACTIVATIONS[self.activation](self._turned(whitened, rows))  # (N, C or 1, H, W)
        return (weights * whitened).sum((2, 3)).mean(0).double()

    def _turned(self, whitened: Tensor, rows: slice) -> Tensor:
        with torch.autocast(whitened.device.type, enabled=False):
            return at_each_position(self.rotation[rows].to(whitened.dtype), whitened)

    def collect(self, concept: int, ascent: Tensor) -> None:
        """Take up a direction (C,) in which a concept's axis should turn, by a running mean over rounds."""
        self.gradient[concept].lerp_(-ascent, self.momentum)

    def update_rotation(self) -> int:
        """Turn the axes as collected; returns how many line searches failed, and adds them to the layer's count."""
        rotation, failures = ROTATIONS[self.turn](self.rotation, self.gradient)
        self.rotation.copy_(rotation)
        self.line_search_failures += failures
        return failures

    def set_statistics(self, mean: Tensor, covariance: Tensor) -> None:
        """Put mean (C,) and covariance (C, C) in place of the running ones."""
        running, latest = (
            (self.running_covariance, covariance)
            if self.running_whitener is None
            else (self.running_whitener, self._whitener(covariance))
        )
        self.running_mean.copy_(mean)
        running.copy_(latest)

    def matrix(self) -> tuple[Tensor, Tensor]:
        """((C, C), (C,)) float64: evaluation as y = matrix x + offset at every position, gain and shift included."""
        mean, whitener = self._running_statistics(torch.float64)
        matrix = self.rotation @ whitener
        offset = -matrix @ mean
        if self.weight is not None:
            gain = self.weight.detach().double()
            matrix, offset = gain[:, None] * matrix, gain * offset + self.bias.detach().double()
        return matrix, offset

    def check(self, x: Tensor) -> None:
        """Raise ValueError for a map that is not (N, n_channels, H, W), TypeError for one of integers."""
        if x.ndim != 4 or x.shape[1] != self.n_channels:
            raise ValueError(f"a map of shape {tuple(x.shape)}; wanted (N, {self.n_channels}, H, W).")
        if not x.is_floating_point():
            raise TypeError(f"a map of {x.dtype}; wanted floating point. Convert it first: x.float() / 255 for bytes.")

    def _check_positions(self, x: Tensor) -> None:
        n_positions = x.numel() // self.n_channels
        if n_positions <= self.n_channels:
            raise ValueError(
                f"a training batch with {n_positions} positions ({x.shape[0]} maps of {x.shape[2]} x {x.shape[3]}) for "
                f"{self.n_channels} channels has no covariance to whiten; wanted more positions than channels. "
                "Take larger batches (and drop the last, short one) or larger pictures."
            )

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, covariance = _moments(samples_of(x))
        if not covariance.diagonal().sum().isfinite():
            raise FloatingPointError(
                f"NaN or infinity in the training batch after {self._step()}. The running statistics were left as they "
                "were. Look at the batch's pictures, and at the loss; a smaller learning rate may help."
            )
        whitener = self._whitener(covariance)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            running, latest = (
                (self.running_covariance, covariance)
                if self.running_whitener is None
                else (self.running_whitener, whitener)
            )
            running.lerp_(latest.to(running.dtype), self.momentum)
            self.num_batches_tracked += 1
        return mean, whitener

    def _running_statistics(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if self.running_whitener is not None:
            return self.running_mean.to(dtype), self.running_whitener.to(dtype)
        # The whitener of the same covariance is not computed twice; a change in place raises the tensor's version.
        source = self.running_covariance
        if self._known is None or self._known[0] is not source or self._known[1] != source._version:
            with torch.inference_mode(False), torch.no_grad():  # fit for a later call that needs gradients
                self._known = source, source._version, self._whitener(source)
        return self.running_mean.to(dtype), self._known[2].to(dtype)

    def _whitener(self, covariance: Tensor) -> Tensor:
        regular = covariance + self.eps * torch.eye(self.n_channels, dtype=covariance.dtype, device=covariance.device)
        if self.whitening == "newton-reference":
            self._guard(regular.detach())
        return WHITENINGS[self.whitening](regular)

    def _guard(self, covariance: Tensor) -> None:
        before, now = self.largest_amplification, amplification(covariance)
        self.largest_amplification = max(before, now)
        if before <= AMPLIFICATION < now:
            warnings.warn(
                f"after {self._step()}: newton-reference amplifies rounding errors to {now:.2g}; wanted "
                f'{AMPLIFICATION} at most. One direction dominates the features. Take whitening="newton" or "zca".',
                RuntimeWarning,
                stacklevel=2,
            )

    def _step(self) -> str:
        return f"step {int(self.num_batches_tracked)}"


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def samples_of(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (C, N H W)."""
    return x.transpose(0, 1).flatten(1)


def _moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and biased covariance (C, C) of (C, m) samples."""
    mean = samples.mean(1)
    centred = samples - mean[:, None]
    return mean, centred @ centred.T / samples.shape[1]


def at_each_position(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix (c, C) at every position: (N, C, H, W) -> (N, c, H, W)."""
    return (matrix @ x.flatten(2)).unflatten(2, x.shape[2:])
