"""How the logistic function changes: one formula, for layers and for `numpy.tanh`."""

from __future__ import annotations

import math

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.differences.series import FAR
from dlfs_gpu.functions import sigmoid, sigmoid_grad


def logistic_saved(x: Array) -> tuple[Array, Array, Array]:
    """Return what `logistic_difference` needs of σ(x): q / (1 + q), q and x, with q = exp(−x)."""
    xp = namespace_of(x)
    q = xp.exp(-xp.maximum(x, xp.full_like(x, -_exp_limit(x))))
    return q / (1 + q), q, x


def logistic_difference(d: Array, a: Array, q: Array, x: Array) -> Array:
    """Return σ(x + d) − σ(x) = E · q/(1+q) / (q + e^d), where E = expm1(d)."""
    xp = namespace_of(d)
    largest = max(float(xp.max(d)), -float(xp.min(d)))
    limit = _exp_limit(x)
    if largest <= FAR and float(xp.max(xp.abs(x))) <= limit:
        e = xp.expm1(d)
        out = a * e
        # q + exp(d); where d is moderate 1 + e is as exact, and spares an exponential.
        out /= (1 + q) + e if largest <= 1 else q + xp.exp(d)
        return out
    # Exponentials of d or x may overflow, but there is nothing left to cancel: of σ(x) and
    # σ(x + d), or of σ(−x) and σ(−x − d) where these are the smaller ones, one is nothing to the
    # other, or both are as small as numbers can be.
    moved = x + d
    far = xp.where(x < 0, sigmoid(moved) - sigmoid(x), sigmoid(-x) - sigmoid(-moved))
    # What x + d is rounded by is a share of it, and not of what the exponential makes of it.
    rounded = moved - x
    lost = ((d - rounded) - (moved - rounded - x)) * sigmoid_grad(moved)
    far += xp.where(xp.abs(moved) <= limit, lost, xp.zeros_like(lost))
    is_near = (xp.abs(d) <= FAR) & (xp.abs(x) <= limit)
    d = xp.where(is_near, d, xp.zeros_like(d))
    return xp.where(is_near, a * xp.expm1(d) / (q + xp.exp(d)), far)


def _exp_limit(x: Array) -> int:
    """Return the largest whole number whose exponential does not overflow."""
    return math.floor(math.log(namespace_of(x).finfo(x.dtype).max))
