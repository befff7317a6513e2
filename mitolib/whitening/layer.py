"""Concept whitening: a norm layer whose first axes are turned onto named concepts.

After Chen, Bei and Rudin 2020, arXiv:2002.01650. The layer decorrelates the channels of a map, as batch normalisation
with a full covariance would, and rotates the result; axis j of the output then stands for concept j. The network
learns by its own loss with the rotation fixed; now and then `align` turns the rotation towards batches of concept
images. `REFERENCE` sets the layer to what the authors' public code computes; the defaults are what its formulas say.

Pictures and maps are torch tensors (N, C, H, W); k is the number of concepts, d = C the number of channels. In the
mathematics, every position of every map is one sample of d numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mitolib.whitening.activation import ACTIVATIONS
from mitolib.whitening.inverse_root import WHITENINGS, amplification
from mitolib.whitening.rotation import ROTATIONS

AMPLIFICATION = 1e-2  # of rounding errors; beyond it the reference recursion is not to be trusted
LEAST = {"rotation": torch.float64, "gradient": torch.float64}  # precision of a buffer; float32 for any other

# Of the public code but for its line search, which starts at a step that fits no scale and can hang.
REFERENCE = {"whitening": "newton-reference", "activation": "pool_max", "official_mask": True, "affine": False}


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
    given. `rotation`, R, is a buffer in float64 and changes in `alignment.align` only. `line_search_failures` and
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

    def _load_from_state_dict(self, *arguments: object) -> None:
        super()._load_from_state_dict(*arguments)
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
