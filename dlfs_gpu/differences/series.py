"""Logarithms and exponentials of changes, without the terms that would cancel.

The loss of a softmax changes by a linear part, which the slope of the loss holds exactly, and a
curved one. Power series give the curved part alone, where the function less its linear part would
lose the digits that both share.
"""

from __future__ import annotations

import math

from dlfs_gpu._validation import Array, namespace_of

FAR = 40.0
"""Changes above this take the differences of exponentials another way: e^40 is beyond 1/eps."""

SMALL = 2.0**-5
"""Up to this change the curved part is taken from power series, which lose no digits.

Beyond, where linear parts nearly cancel, the curved one is so large a share of the whole that
subtracting them loses no more than five bits.
"""


def cumulants(y: Array, W: Array, origin: Array, terms: int) -> list[Array]:
    """Return the cumulants of W[j, :] under y divided by k!, each (N, J), for k = 2, 3, ...

    Moments are taken about one class for each sample, `origin`, (N,): about the likeliest, none of
    them is a small difference of large numbers.
    """
    xp = namespace_of(y)
    order = xp.argsort(origin, stable=True)
    y = xp.take(y, order, axis=0)
    pairs = zip(*xp.unique_counts(origin), strict=True)
    by_label = sorted((int(label), int(count)) for label, count in pairs)
    parts: list[list[Array]] = [[] for _ in range(terms)]
    start = 0
    for label, count in by_label:
        rows = y[start : start + count, ...]
        start += count
        along = (W - W[:, label : label + 1]).T
        power = along
        for part in parts:
            part.append(rows @ power)
            power = power * along
    back = xp.argsort(order)
    moments = [xp.take(xp.concat(part, axis=0), back, axis=0) for part in parts]
    result: list[Array] = []
    for n, moment in enumerate(moments):
        products = (math.comb(n, k) * c * moments[n - k - 1] for k, c in enumerate(result))
        result.append(moment - sum(products))
    return [c / math.factorial(k) for k, c in enumerate(result[1:], 2)]


def sigmoid_series(b: Array, g: Array, terms: int) -> list[Array]:
    """Return the coefficients of d, d², ... in σ(x + d) − σ(x).

    They are b·R_k(g), where b = σ(x)·σ(−x) and g = ½ − σ(x), with the slopes 2·b·g and −b: so
    (k + 1)·R_(k+1) = 2·g·R_k − (¼ − g²)·R_k'. No digit of b is lost in the tails.
    """
    coefficients = [1.0]
    result = [b]
    for k in range(2, terms + 1):
        following = [0.0] * (k + 1)
        for i, c in enumerate(coefficients):
            following[i + 1] += (i + 2) * c / k
            if i:
                following[i - 1] -= i * c / (4 * k)
        coefficients = following[:k]
        value = coefficients[-1] * g
        for c in reversed(coefficients[1:-1]):
            value = (value + c) * g
        result.append(b * (value + coefficients[0]))
    return result


def is_small(*changes: Array) -> bool:
    """Say whether no change is so large that the curved part must not be taken alone."""
    xp = namespace_of(changes[0])
    return all(float(xp.max(d)) <= SMALL and -float(xp.min(d)) <= SMALL for d in changes)


def log_mean_exp(d: Array, y: Array, log_y: Array) -> Array:
    """Return log Σ y·e^d over the classes, (N, P), for d of shape (N, C, P) of any size."""
    xp = namespace_of(d)
    y = y[:, None, :]
    if float(xp.max(d)) <= FAR:
        return xp.log1p(xp.matmul(y, xp.expm1(d)))[:, 0, :]
    # Some e^d may overflow, and some y be too small to be held.
    log_y = log_y[..., None]
    exponents = log_y + d
    top = xp.max(exponents, axis=1, keepdims=True)
    far = xp.log(xp.sum(xp.exp(exponents - top), axis=1, keepdims=True)) + top
    # Where even the largest exponent is moderate, the same sum as for small d.
    limit = xp.full_like(d, FAR)
    change = xp.matrix_transpose(y) * xp.expm1(xp.minimum(d, limit))
    change = xp.where(d > FAR, xp.exp(xp.minimum(exponents, limit)), change)
    near = xp.log1p(xp.sum(change, axis=1, keepdims=True))
    return xp.where(top > FAR / 2, far, near)[:, 0, :]


def curved_log_mean_exp(d: Array, y: Array) -> Array:
    """Return log Σ y·e^d − Σ y·d over the classes, (N, P), for small d of shape (N, C, P)."""
    xp = namespace_of(d)
    y = y[:, None, :]
    curved = xp.matmul(y, _expm1_minus(d))
    return (curved + _log1p_minus(xp.matmul(y, d) + curved))[:, 0, :]


def log_mean_exp_of_one(d: Array, log_p: Array) -> Array:
    """Return log(1 + p·expm1(d)) for each element, d of any size."""
    xp = namespace_of(d)
    near = xp.log1p(xp.exp(log_p) * xp.expm1(xp.minimum(d, xp.full_like(d, FAR))))
    if float(xp.max(d)) <= FAR:
        return near
    # 1 − p is nothing to p·e^d, or p·e^d to 1.
    return xp.where(d > FAR, xp.logaddexp(log_p + d, xp.zeros_like(d)), near)


def curved_log_mean_exp_of_one(d: Array, log_p: Array) -> Array:
    """Return log(1 + p·expm1(d)) − p·d for each element of small d."""
    p = namespace_of(d).exp(log_p)
    curved = p * _expm1_minus(d)
    return curved + _log1p_minus(p * d + curved)


def exp_terms(size: float, eps: float) -> int:
    """Return the highest power in the series of e^d that matters up to |d| = `size`, small."""
    return next(k for k in range(2, 40) if 2 * size ** (k - 1) / math.factorial(k + 1) < eps / 4)


def log_terms(size: float, eps: float) -> int:
    """Return the same for log(1 + u), where u = Σ y·expm1(d)."""
    # |expm1(d)| may be a little larger than |d|.
    return next(k for k in range(2, 60) if 2 * (1.02 * size) ** (k - 1) / (k + 1) < eps / 4)


def _expm1_minus(d: Array) -> Array:
    """Return expm1(d) − d = d²/2 + d³/6 + ... for small d."""
    eps = float(namespace_of(d).finfo(d.dtype).eps)
    last = exp_terms(SMALL, eps)
    series = d / math.factorial(last)
    for k in range(last - 1, 1, -1):
        series += 1 / math.factorial(k)
        series *= d
    series *= d
    return series


def _log1p_minus(u: Array) -> Array:
    """Return log1p(u) − u = −u²/2 + u³/3 − ... for u = Σ y·expm1(d) of small d."""
    eps = float(namespace_of(u).finfo(u.dtype).eps)
    last = log_terms(SMALL, eps)
    series = u * ((-1) ** (last + 1) / last)
    for k in range(last - 1, 1, -1):
        series += (-1) ** (k + 1) / k
        series *= u
    series *= u
    return series
