"""Losses as the last layer of a network: forward, backward, and the difference of each sample.

``forward(x, t)`` gives the mean loss over the samples, and takes parameters stacked on a leading
axis, (K, N, C) to (K,). ``difference`` is explained in `dlfs_gpu.layers`; here it gives the change
of each sample's loss, (N, P), whose mean over N is the change of the loss.
"""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import device

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.backend import in_place
from dlfs_gpu.functions import log_softmax, relu, sigmoid, softmax
from dlfs_gpu.layers import FAR


class SoftmaxWithLoss:
    """Mean cross entropy of softmax(x), by log-sum-exp (5.6.3).

    Targets `t` are one-hot or soft, (N, C), or integer labels, (N,), already checked by
    `dlfs_gpu.functions.check_targets`.
    """

    def __init__(self) -> None:
        self.log_y: Array = None
        self.t: Array = None

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, of shape (), for scores `x` of shape (N, C)."""
        xp = namespace_of(x)
        self.t = as_one_hot(t, x.shape[-1], x.dtype)
        self.log_y = log_softmax(x)
        return -xp.mean(xp.sum(self.t * self.log_y, axis=-1), axis=-1)

    def predict(self, x: Array) -> Array:
        """Return softmax(x)."""
        return softmax(x)

    def backward(self, dout: Any = 1) -> Array:
        """Return dout · (y Σt − t) / N, as y (Σt − t) − t (1 − y).

        Of the likeliest class, 1 − y is taken as the sum of the others, which loses no digits
        however near 1 its y is.
        """
        xp = namespace_of(self.log_y)
        y, likeliest = self._probabilities()
        others = xp.sum(y * (1 - likeliest), axis=-1, keepdims=True)
        rest = xp.where(likeliest > 0, others, 1 - y)
        total = xp.sum(self.t, axis=-1, keepdims=True)
        return dout * (y * (total - self.t) - self.t * rest) / y.shape[0]

    def base(self) -> tuple[Array, ...]:
        """Return y, the likeliest class as one-hot, targets, and log y, each (N, 1, C)."""
        arrays = (*self._probabilities(), self.t, self.log_y)
        return tuple(array[:, None, :] for array in arrays)

    def _probabilities(self) -> tuple[Array, Array]:
        """Return y and the likeliest class as one-hot, each (N, C)."""
        xp = namespace_of(self.log_y)
        likeliest = xp.argmax(self.log_y, axis=-1)
        return xp.exp(self.log_y), as_one_hot(likeliest, self.log_y.shape[-1], self.log_y.dtype)

    def difference(self, d: Array, y: Array, likeliest: Array, t: Array, log_y: Array) -> Array:
        """Return (Σt)·log1p(Σ y·expm1(d)) − Σ t·d, (N, P), of each sample's loss; overwrites d.

        Σ exp(x + d) / Σ exp(x) = Σ y·e^d = 1 + Σ y·expm1(d). All d are taken relative to that of
        the likeliest class, which changes nothing and keeps the sum above 1/C, so that log1p
        loses no digits however large d is.
        """
        xp = namespace_of(d)
        d -= xp.matmul(likeliest, d)
        linear = xp.matmul(t, d)
        if float(xp.max(d)) > FAR:
            change = self._far_change(d, y, log_y)
        else:
            change = xp.log1p(xp.matmul(y, in_place(xp.expm1, d)))
        return (xp.sum(t, axis=-1, keepdims=True) * change - linear)[:, 0, :]

    @staticmethod
    def _far_change(d: Array, y: Array, log_y: Array) -> Array:
        """Return log(Σ y·e^d) where some e^d may overflow, and some y be too small to be held."""
        xp = namespace_of(d)
        log_y = xp.matrix_transpose(log_y)
        exponents = log_y + d
        largest = xp.max(exponents, axis=1, keepdims=True)
        far = xp.log(xp.sum(xp.exp(exponents - largest), axis=1, keepdims=True)) + largest
        # Where even the largest exponent is moderate, the same sum as for small d.
        limit = xp.full_like(d, FAR)
        change = xp.matrix_transpose(y) * xp.expm1(xp.minimum(d, limit))
        change = xp.where(d > FAR, xp.exp(xp.minimum(exponents, limit)), change)
        near = xp.log1p(xp.sum(change, axis=1, keepdims=True))
        return xp.where(largest > FAR / 2, far, near)

    def line_base(self, W: Array, reach: float) -> tuple[Array, ...] | None:
        """Return what `line_difference` needs for changes along the rows of W, or None.

        Parameters
        ----------
        W : array, shape (J, C)
            Each row is a direction in which the scores move.
        reach : float
            Largest absolute value of s that will be asked for. Where it makes more than 16 terms
            necessary the answer is None: there `difference` is cheaper. Waits for a GPU.
        """
        xp = namespace_of(W)
        y, likeliest, t, _ = self.base()
        along = W.T - xp.matmul(likeliest, W.T)
        bound = reach * float(xp.max(xp.abs(along)))
        eps = float(xp.finfo(W.dtype).eps)
        # The first term left out, relative to the first: bound^k / (k + 1)!.
        enough = (k for k in range(1, 17) if bound**k < eps / 4 * math.factorial(k + 1))
        terms = next(enough, None) if bound < 1 else None
        if terms is None:
            return None
        base = [xp.sum(t, axis=-1)[..., None], xp.matmul(t, along)[:, 0, :, None]]
        power = along
        for k in range(1, terms + 1):
            base.append(xp.matmul(y, power)[:, 0, :, None] / math.factorial(k))
            if k < terms:
                power = power * along
        return tuple(base)

    def line_difference(self, s: Array, total: Array, linear: Array, *moments: Array) -> Array:
        """Return what `difference` does for d = s·W[j, :], (N, J, P), from s of that shape.

        Σ_c y_c·expm1(s·w_c) = Σ_k s^k/k! · Σ_c y_c·w_c^k: the power series of the exponential,
        taken to the last digit, asks for sums over classes once and not for every s.
        """
        series = s * moments[-1]
        for moment in reversed(moments[:-1]):
            series += moment
            series *= s
        change = in_place(namespace_of(s).log1p, series)
        change *= total
        s = linear * s
        change -= s
        return change


class SigmoidWithLoss:
    """Binary cross entropy of sigmoid(x), summed over outputs, averaged over samples.

    Targets `t` of shape (N, C) lie between 0 and 1.
    """

    def __init__(self) -> None:
        self.x: Array = None
        self.t: Array = None

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, of shape (), for scores `x` of shape (N, C)."""
        xp = namespace_of(x)
        self.x, self.t = x, t
        # −log σ(x) = max(−x, 0) + log(1 + exp(−|x|))
        losses = relu(x) - t * x + xp.log1p(xp.exp(-xp.abs(x)))
        return xp.mean(xp.sum(losses, axis=-1), axis=-1)

    def predict(self, x: Array) -> Array:
        """Return σ(x)."""
        return sigmoid(x)

    def backward(self, dout: Any = 1) -> Array:
        """Return dout · (σ(x) − t) / N, as (1 − t) σ(x) − t σ(−x), where no digits are lost."""
        slope = (1 - self.t) * sigmoid(self.x) - self.t * sigmoid(-self.x)
        return dout * slope / self.x.shape[0]

    def base(self) -> tuple[Array, ...]:
        """Return x and t, each (N, C, 1)."""
        return self.x[..., None], self.t[..., None]

    def difference(self, d: Array, x: Array, t: Array) -> Array:
        """Return Σ log1p(p·expm1(d)) − t·d, (N, P), of each sample's loss, where p = σ(x).

        (1 + e^(x+d)) / (1 + e^x) = 1 + p·expm1(d). Where x ≥ 0 the mirrored form
        log1p(σ(−x)·expm1(−d)) + (1−t)·d is used, which keeps the argument of the logarithm above
        ½, so that log1p loses no digits however large d is.
        """
        xp = namespace_of(d)
        positive = x >= 0
        d = xp.where(positive, -d, d)
        t = xp.where(positive, 1 - t, t)
        x = -xp.abs(x)
        change = xp.log1p(sigmoid(x) * xp.expm1(xp.minimum(d, xp.full_like(d, FAR))))
        if float(xp.max(d)) > FAR:
            # log(1 + e^x) is nothing to log(1 + e^(x+d)), which thus loses no digits to it.
            moved = xp.logaddexp(x + d, xp.zeros_like(d)) - xp.log1p(xp.exp(x))
            change = xp.where(d > FAR, moved, change)
        return xp.sum(change - t * d, axis=-2)


class SumSquaredError:
    """½ Σ (x − t)² of each sample, averaged over samples; `t` has the shape (N, C) of `x`."""

    def __init__(self) -> None:
        self.error: Array = None

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, of shape ()."""
        xp = namespace_of(x)
        self.error = x - t
        return xp.mean(xp.sum(self.error * self.error, axis=-1), axis=-1) / 2

    def predict(self, x: Array) -> Array:
        """Return x."""
        return x

    def backward(self, dout: Any = 1) -> Array:
        """Return dout · (x − t) / N."""
        return dout * self.error / self.error.shape[0]

    def base(self) -> tuple[Array, ...]:
        """Return x − t, (N, C, 1)."""
        return (self.error[..., None],)

    def difference(self, d: Array, error: Array) -> Array:
        """Return Σ d·(x − t + d/2), (N, P), of each sample's loss.

        ½(x + d − t)² − ½(x − t)² = d·(x − t) + d²/2.
        """
        return namespace_of(d).sum(d * (error + d / 2), axis=-2)


class MeanSquaredError:
    """Mean of (x − t)² over outputs and samples; `t` has the shape (N, C) of `x`."""

    def __init__(self) -> None:
        self._half_sum = SumSquaredError()
        self._scale = 1.0

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, of shape ()."""
        self._scale = 2 / x.shape[-1]
        return self._scale * self._half_sum.forward(x, t)

    def predict(self, x: Array) -> Array:
        """Return x."""
        return x

    def backward(self, dout: Any = 1) -> Array:
        """Return dout · 2(x − t) / (N·C)."""
        return self._scale * self._half_sum.backward(dout)

    def base(self) -> tuple[Array, ...]:
        """Return x − t, (N, C, 1)."""
        return self._half_sum.base()

    def difference(self, d: Array, error: Array) -> Array:
        """Return (2/C) Σ d·(x − t + d/2), (N, P): that of `SumSquaredError`, scaled alike."""
        return self._scale * self._half_sum.difference(d, error)


def as_one_hot(t: Array, num_classes: int, dtype: Any) -> Array:
    """Return labels (N,) as one-hot rows (N, num_classes); other targets as they are."""
    if t.ndim > 1:
        return t
    xp = namespace_of(t)
    classes = xp.arange(num_classes, dtype=t.dtype, device=device(t))
    return xp.astype(t[:, None] == classes, dtype)
