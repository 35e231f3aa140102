"""Losses as the last layer of a network: forward, backward, and the difference of each sample.

``forward(x, t)`` gives the mean loss over the samples, and takes scores stacked on a leading axis,
(K, N, C) to (K,). ``difference(d, e, *saved())`` gives by how much the loss of each sample is
larger when the scores change by d than when they change by e, (N, C, P) to (N, P); its mean over N
is the difference of the loss. Parts that are the same for d and for e, such as d² where e = −d,
are taken out before they can be rounded; `dlfs_gpu.protocols` names the methods.
"""

from __future__ import annotations

import math
from typing import Any

from dlfs_gpu._validation import (
    ArgumentError,
    Array,
    array_namespace,
    as_float,
    check_finite,
    check_targets,
    check_unit_targets,
    namespace_of,
)
from dlfs_gpu.differences.series import (
    cumulants,
    curved_log_mean_exp,
    curved_log_mean_exp_of_one,
    is_small,
    log_mean_exp,
    log_mean_exp_of_one,
    sigmoid_series,
)
from dlfs_gpu.functions import label_rows, log_softmax, relu, sigmoid, softmax
from dlfs_gpu.kernels.host import has_loop


class SoftmaxWithLoss:
    """Mean cross entropy of softmax(x), by log-sum-exp (5.6.3).

    Targets `t` are one-hot or soft, (N, C), or integer labels, (N,).
    """

    log_y: Array = None
    t: Array = None

    def check(self, t: Array, shape: tuple[int, ...], like: Array) -> Array:
        """Return targets ready for scores of `shape`; see `dlfs_gpu.cross_entropy_error`."""
        return check_targets(t, shape, like, "the output")

    @has_loop("softmax")
    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, of shape (), for scores `x` of shape (N, C)."""
        xp = namespace_of(x)
        self.t = label_rows(t, x.shape[-1], x.dtype) if t.ndim == 1 else t
        self.log_y = log_softmax(x)
        return -xp.mean(xp.sum(self.log_y * self.t, axis=-1), axis=-1)

    def predict(self, x: Array) -> Array:
        """Return softmax(x)."""
        return softmax(x)

    def backward(self, dout: Any = 1) -> Array:
        """Return dout · (y Σt − t) / N, where no digits are lost however confident y is."""
        *_, slope, _ = self.saved()
        return dout * slope / self.log_y.shape[0]

    def saved(self) -> tuple[Array, ...]:
        """Return y, the likeliest class as one-hot, Σt, t, slope, log y, each (N, C) or (N, 1).

        The slope y Σt − t is taken as y (Σt − t) − t (1 − y). Of the likeliest class, 1 − y is the
        sum of the others, which loses no digits however near 1 its y is.
        """
        xp = namespace_of(self.log_y)
        y = xp.exp(self.log_y)
        likeliest = label_rows(xp.argmax(self.log_y, axis=-1), y.shape[-1], y.dtype)
        others = xp.sum(y * (1 - likeliest), axis=-1, keepdims=True)
        rest = xp.where(likeliest > 0, others, 1 - y)
        total = xp.sum(self.t, axis=-1, keepdims=True)
        slope = y * (total - self.t) - self.t * rest
        return y, likeliest, total, self.t, slope, self.log_y

    @has_loop("softmax")
    def difference(self, d: Array, e: Array, *saved: Array) -> Array:
        """Return (Σt)·(g(d) − g(e)) − Σ t·(d − e), (N, P), where g(d) = log Σ y·e^d.

        Of small changes the linear parts of both, which may nearly cancel, make the slope: Σ
        slope·(d − e) + (Σt)·(c(d) − c(e)), where c(d) = g(d) − Σ y·d is curved.
        """
        xp = namespace_of(d)
        y, likeliest, total, t, slope, log_y = saved
        likeliest = likeliest[:, None, :]
        # A change common to all classes changes nothing; without that of the likeliest class, the
        # sum of y·e^d stays above 1/C.
        d, e = d - xp.matmul(likeliest, d), e - xp.matmul(likeliest, e)
        if is_small(d, e):
            linear = xp.matmul(slope[:, None, :], d - e)[:, 0, :]
            return linear + total * (curved_log_mean_exp(d, y) - curved_log_mean_exp(e, y))
        linear = xp.matmul(t[:, None, :], d - e)[:, 0, :]
        return total * (log_mean_exp(d, y, log_y) - log_mean_exp(e, y, log_y)) - linear

    def column_saved(self) -> tuple[Array, ...]:
        """Return log p, Σt, q, slope and sign, (N, C or 1, 1) each, for `column_difference`."""
        xp = namespace_of(self.log_y)
        _, likeliest, total, t, slope, log_y = self.saved()
        log_rest = xp.where(likeliest > 0, xp.full_like(log_y, -math.inf), log_y)
        if log_y.shape[-1] > 1:
            top = xp.max(log_rest, axis=-1, keepdims=True)
            log_rest = xp.log(xp.sum(xp.exp(log_rest - top), axis=-1, keepdims=True)) + top
        log_p = xp.where(likeliest > 0, log_rest, log_y)
        q = xp.where(likeliest > 0, total - t, t)
        return tuple(a[..., None] for a in (log_p, total, q, slope, 1 - 2 * likeliest))

    def column_difference(
        self, d: Array, e: Array, log_p: Array, total: Array, q: Array, slope: Array, sign: Array
    ) -> Array:
        """Return what `difference` does for changes of one score each, (N, C, P).

        Of score c alone, log(1 + y_c·expm1(d)), and p = y_c, q = t_c. For the likeliest class it
        is d + log(1 + (1 − y_c)·expm1(−d)), which loses no digits where y_c is near 1; there p =
        1 − y_c, q = Σt − t_c and the sign of d is changed.
        """
        return _column_difference(sign * d, sign * e, log_p, total, q, sign * slope)

    def line_saved(
        self, W: Array | None, reach: float, eps: float, budget: int
    ) -> tuple[Array, ...] | None:
        """Return what `line_difference` needs for changes along the rows of W, or None.

        The slope along each row, and Σt·κ_k/k! for k from 2 on, where κ_k are the cumulants of
        W[j, :] under y: log Σ y·e^(s·w) is the power series Σ κ_k·s^k/k! [1]_.

        Parameters
        ----------
        W : array, shape (J, C), or None
            Each row is a direction in which the scores move; None for single scores.
        reach : float
            Largest absolute value of s that will be asked for. Where it makes more than 16 terms
            necessary the answer is None: there `difference` is cheaper. Waits for a GPU.
        eps : float
            Relative error to stay below.
        budget : int
            Bytes that may be used; where they do not suffice the answer is None.

        Returns
        -------
        tuple of array, each of shape (N, J, 1), or None

        References
        ----------
        .. [1] P. McCullagh, "Tensor Methods in Statistics" (1987), chapter 2.
        """
        xp = namespace_of(self.log_y)
        span = 1.0 if W is None else float(xp.max(xp.max(W, axis=1) - xp.min(W, axis=1)))
        bound = reach * span
        # The series converges up to a bound of π. Its terms may be larger than the slope, by 2^16
        # where soft targets are near the predictions.
        if not bound < 2.5:
            return None
        enough = (k for k in range(2, 17) if (bound / 2.5) ** k < eps * 2.0**-16)
        terms = next(enough, None)
        if terms is None:
            return None
        if W is None:
            # Of one score, log(1 + p·expm1(d)) has the slope σ(x + d) with p = σ(x); for the
            # likeliest class as in `column_difference`.
            log_p, total, _, slope, sign = self.column_saved()
            p = xp.exp(log_p)
            curved = sigmoid_series(p * (1 - p), 0.5 - p, terms - 1)
            return slope, *(total * sign**k * c / k for k, c in enumerate(curved, 2))
        if 8 * (3 * math.prod(W.shape) + terms * self.log_y.shape[0] * W.shape[0]) > budget:
            return None
        y, likeliest, total, _, slope, _ = self.saved()
        W = xp.astype(W, y.dtype, copy=False)
        along = xp.matmul(slope, W.T)
        curved = cumulants(y, W, xp.argmax(likeliest, axis=-1), terms)
        return tuple(c[..., None] for c in (along, *(total * c for c in curved)))

    @has_loop("softmax line")
    def line_difference(self, s: Array, r: Array, *coefficients: Array) -> Array:
        """Return what `difference` does for d = s·W[j, :] and e = r·W[j, :], (N, J, P).

        The power series at s less that at r, as (s − r) times its divided difference: by Horner's
        scheme, where q is the divided difference and p the value at r.
        """
        q, p = coefficients[-1], coefficients[-1] * r
        p += coefficients[-2]
        for coefficient in reversed(coefficients[:-2]):
            q = q * s
            q += p
            p *= r
            p += coefficient
        q = q * s
        q += p
        q *= s - r
        return q


class SigmoidWithLoss:
    """Binary cross entropy of sigmoid(x), summed over outputs, averaged over samples.

    Targets `t` of shape (N, C) lie between 0 and 1.
    """

    x: Array = None
    t: Array = None

    def check(self, t: Array, shape: tuple[int, ...], like: Array) -> Array:
        """Return targets of `shape`, all between 0 and 1, in the type of `like`."""
        t = check_values(t, shape, like)
        check_unit_targets(t)
        return t

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, of shape (), for scores `x` of shape (N, C)."""
        xp = namespace_of(x)
        self.x, self.t = x, t
        # −log σ(x) = max(−x, 0) + log(1 + exp(−|x|))
        losses = relu(x) - x * t + xp.log1p(xp.exp(-xp.abs(x)))
        return xp.mean(xp.sum(losses, axis=-1), axis=-1)

    def predict(self, x: Array) -> Array:
        """Return σ(x)."""
        return sigmoid(x)

    def backward(self, dout: Any = 1) -> Array:
        """Return dout · (σ(x) − t) / N, where no digits are lost near 0 and 1."""
        return dout * self._slope() / self.x.shape[0]

    def saved(self) -> tuple[Array, ...]:
        """Return log p, q, slope and sign, each (N, C, 1), for `difference`.

        p is σ(x) and q is t. Where x ≥ 0 they are σ(−x) and 1 − t, and the sign of d is changed:
        log(1 + σ(x)·expm1(d)) = d + log(1 + σ(−x)·expm1(−d)) loses no digits there.
        """
        xp = namespace_of(self.x)
        sign = xp.where(self.x < 0, xp.ones_like(self.x), -xp.ones_like(self.x))
        log_p = -xp.abs(self.x) - xp.log1p(xp.exp(-xp.abs(self.x)))
        q = xp.where(self.x < 0, self.t, 1 - self.t)
        return tuple(a[..., None] for a in (log_p, q, self._slope(), sign))

    column_saved = saved

    def _slope(self) -> Array:
        """Return σ(x) − t as (1 − t) σ(x) − t σ(−x)."""
        return (1 - self.t) * sigmoid(self.x) - self.t * sigmoid(-self.x)

    def difference(self, d: Array, e: Array, *saved: Array) -> Array:
        """Return Σ g(d) − g(e) − t·(d − e), (N, P), where g(d) = log(1 + σ(x)·expm1(d)).

        (1 + e^(x+d)) / (1 + e^x) = 1 + σ(x)·expm1(d).
        """
        return namespace_of(d).sum(self.column_difference(d, e, *saved), axis=-2)

    def column_difference(
        self, d: Array, e: Array, log_p: Array, q: Array, slope: Array, sign: Array
    ) -> Array:
        """Return what `difference` sums, for each score, (N, C, P)."""
        return _column_difference(sign * d, sign * e, log_p, 1, q, sign * slope)


class SumSquaredError:
    """½ Σ (x − t)² of each sample, averaged over samples; `t` has the shape (N, C) of `x`."""

    error: Array = None

    def check(self, t: Array, shape: tuple[int, ...], like: Array) -> Array:
        """Return targets of `shape`, in the type of `like`."""
        return check_values(t, shape, like)

    def _weight(self) -> float:
        """Return what half the sum of squares is multiplied by."""
        return 1.0

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, of shape ()."""
        xp = namespace_of(x)
        self.error = x - t
        return self._weight() / 2 * xp.mean(xp.sum(self.error * self.error, axis=-1), axis=-1)

    def predict(self, x: Array) -> Array:
        """Return x."""
        return x

    def backward(self, dout: Any = 1) -> Array:
        """Return dout · weight · (x − t) / N."""
        return dout * self._weight() * self.error / self.error.shape[0]

    def saved(self) -> tuple[Array, ...]:
        """Return x − t, (N, C, 1), for `difference`."""
        return (self.error[..., None],)

    column_saved = saved

    def difference(self, d: Array, e: Array, error: Array) -> Array:
        """Return Σ weight · (d − e)·(x − t + (d + e)/2), (N, P).

        ½(x + d − t)² − ½(x + e − t)²; where e is about −d, d + e is small.
        """
        return namespace_of(d).sum(self.column_difference(d, e, error), axis=-2)

    def column_difference(self, d: Array, e: Array, error: Array) -> Array:
        """Return what `difference` sums, for each output, (N, C, P)."""
        return self._weight() * (d - e) * (error + (d + e) / 2)


class MeanSquaredError(SumSquaredError):
    """Mean of (x − t)² over outputs and samples; `t` has the shape (N, C) of `x`."""

    def _weight(self) -> float:
        return 2 / int(self.error.shape[-1])


def check_values(t: Array, shape: tuple[int, ...], like: Array) -> Array:
    """Return targets that are numbers of any size, of `shape` and in the type of `like`.

    Raises
    ------
    ArgumentError
        If the shape is another, or one is not finite.
    TypeError
        If they are not real numbers, or of another array library than `like`.
    """
    t = as_float(t, "t")
    xp = array_namespace(x=like, t=t)
    if tuple(t.shape) != tuple(shape):
        raise ArgumentError("t", f"has shape {tuple(t.shape)}; it must be {tuple(shape)}")
    t = xp.astype(t, like.dtype, copy=False)
    check_finite("t", t)
    return t


def _column_difference(
    d: Array, e: Array, log_p: Array, total: Any, q: Array, slope: Array
) -> Array:
    """Return total·(g(d) − g(e)) − q·(d − e), where g(d) = log(1 + p·expm1(d)).

    Of small changes the linear parts of both make the slope, p·total − q.
    """
    if is_small(d, e):
        curved = curved_log_mean_exp_of_one(d, log_p) - curved_log_mean_exp_of_one(e, log_p)
        return slope * (d - e) + total * curved
    change = log_mean_exp_of_one(d, log_p) - log_mean_exp_of_one(e, log_p)
    return total * change - q * (d - e)
