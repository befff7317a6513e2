"""Rules of layer-wise relevance propagation: how a linear layer hands relevance down to what it read.

Of a layer with kernel W and bias b that read a, each output k holds relevance R_k. A rule divides by a denominator z_k
and hands q_k = R_k / z_k down along the kernel, so that the inputs get shares of R_k (Bach et al. 2015,
doi:10.1371/journal.pone.0130140; Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10). What a bias and the
stabiliser contribute to z_k reaches no input: it is absorbed, and counted. Gamma and alpha1beta0 are written for
inputs that are not negative, as behind a ReLU and in pictures in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mitolib.backend import tf

TINY = 1e-9  # keeps denominators from 0


@dataclass(frozen=True)
class Weighted:
    """A linear map of what a layer reads: apply(reads, kernel), to which the bias is added."""

    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    kernel: tf.Tensor
    bias: tf.Tensor | float = 0.0

    def traced(self, reads: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        """W a, and the transposed map: values of the outputs -> values of the inputs."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(reads)
            outputs = self.apply(reads, kernel)
        return outputs, lambda quotients: tape.gradient(outputs, reads, output_gradients=quotients)


class Rule(Protocol):
    """(map, what it read (N, ...), relevance of its outputs (N, ...)) -> relevance below, relevance absorbed (N,)."""

    def __call__(self, weighted: Weighted, reads: tf.Tensor, above: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]: ...


@dataclass(frozen=True)
class Epsilon:
    """z = W a + b + eps sgn(z), sgn(0) = 1; with eps -> 0 in every layer the result is gradient x input.

    eps: absolute, or, where `relative`, in units of the root mean square of z, of each picture by itself.
    """

    eps: float = 1e-6
    relative: bool = False

    def __call__(self, weighted: Weighted, reads: tf.Tensor, above: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        linear, transposed = weighted.traced(reads, weighted.kernel)
        z = linear + weighted.bias
        scale = tf.sqrt(tf.reduce_mean(z**2, axis=range(1, len(z.shape)), keepdims=True)) if self.relative else 1.0
        quotients = above / _stabilised(z, tf.maximum(self.eps * scale, 1e-30))  # z of a black picture may be all 0
        return reads * transposed(quotients), _absorbed(above, quotients, linear)


@dataclass(frozen=True)
class Gamma:
    """z = (W + gamma W+) a + b + gamma b+: positive contributions are favoured."""

    gamma: float = 0.25

    def __call__(self, weighted: Weighted, reads: tf.Tensor, above: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        linear, transposed = weighted.traced(reads, self._favoured(weighted.kernel))
        quotients = above / _stabilised(linear + self._favoured(weighted.bias), TINY)
        return reads * transposed(quotients), _absorbed(above, quotients, linear)

    def _favoured(self, weights: tf.Tensor | float) -> tf.Tensor:
        return weights + self.gamma * tf.nn.relu(weights)


@dataclass(frozen=True)
class Alpha1Beta0:
    """z = W+ a + b+: positive contributions alone. Relevance of an output without any is absorbed."""

    def __call__(self, weighted: Weighted, reads: tf.Tensor, above: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        linear, transposed = weighted.traced(reads, tf.nn.relu(weighted.kernel))
        quotients = tf.math.divide_no_nan(above, linear + tf.nn.relu(weighted.bias))
        return reads * transposed(quotients), _absorbed(above, quotients, linear)


@dataclass(frozen=True)
class Box:
    """z^B, of pixels between `low` and `high`: z = W a - W+ low - W- high, without the bias.

    Where a convolution pads the picture with 0, both bounds are 0 there too, so that the border gets nothing.
    """

    low: float = 0.0
    high: float = 1.0

    def __call__(self, weighted: Weighted, reads: tf.Tensor, above: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        positive = tf.nn.relu(weighted.kernel)
        parts = [  # what is weighed, by which kernel, with which sign
            (reads, weighted.kernel, 1),
            (tf.fill(tf.shape(reads), float(self.low)), positive, -1),
            (tf.fill(tf.shape(reads), float(self.high)), weighted.kernel - positive, -1),
        ]
        traced = [weighted.traced(values, kernel) for values, kernel, _ in parts]
        linear = tf.add_n([sign * outputs for (outputs, _), (*_, sign) in zip(traced, parts, strict=True)])
        quotients = above / _stabilised(linear, TINY)
        below = tf.add_n(
            [
                sign * values * transposed(quotients)
                for (_, transposed), (values, _, sign) in zip(traced, parts, strict=True)
            ]
        )
        return below, _absorbed(above, quotients, linear)


@dataclass(frozen=True)
class Flat:
    """Every input in reach of an output gets the same share of its relevance, whatever weights and values are."""

    def __call__(self, weighted: Weighted, reads: tf.Tensor, above: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        linear, transposed = weighted.traced(tf.ones_like(reads), tf.ones_like(weighted.kernel))
        quotients = above / linear
        return transposed(quotients), _absorbed(above, quotients, linear)


def _stabilised(z: tf.Tensor, eps: tf.Tensor | float) -> tf.Tensor:
    return z + tf.where(z >= 0, eps, -eps)


def _absorbed(above: tf.Tensor, quotients: tf.Tensor, linear: tf.Tensor) -> tf.Tensor:
    """(N,) sum of R_k (z_k - (W a)_k) / z_k."""
    lost = above - quotients * linear
    return tf.reduce_sum(lost, axis=range(1, len(lost.shape)))
