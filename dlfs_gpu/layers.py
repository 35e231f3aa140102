"""Layers: forward, backward, and the exact difference of their output.

``forward`` and ``backward`` are the book's (chapter 5): batches of shape (N, features), and each
layer keeps from ``forward`` what ``backward`` needs.

``difference(d, *base())`` answers by how much the output of the last ``forward`` changes when the
input changes by d, in a form that never subtracts two nearly equal numbers: *computational
divided differencing* [1]_. It is exact for any d, small or large; a derivative it is not.
Samples come first and perturbations last: d has shape (N, features, P), P changes of each
sample's input tried side by side, and the arrays of ``base()`` broadcast against it, so a few
samples can be taken out of both. ``lipschitz`` bounds |difference| by a multiple of |d|.

References
----------
.. [1] T. W. Reps and L. B. Rall, "Computational divided differencing and divided-difference
   arithmetics", Higher-Order and Symbolic Computation 16 (2003), 93-149.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import Array, as_float, namespace_of
from dlfs_gpu.functions import relu, sigmoid, sigmoid_grad

FAR = 40.0
"""Changes above this take the differences of exponentials another way: e^40 is beyond 1/eps."""


class Affine:
    """x @ W + b (5.6.2).

    Parameters
    ----------
    W : array, shape (I, J)
    b : array, shape (J,), optional
        None for a layer without bias.

    Attributes
    ----------
    dW, db : array or None
        Gradients of the parameters, set by `backward`.

    Raises
    ------
    ValueError
        If the shapes are not these.
    """

    def __init__(self, W: Array, b: Array | None = None) -> None:
        self.W = as_float(W, "W")
        self.b = None if b is None else as_float(b, "b")
        if self.W.ndim != 2:
            raise ValueError(f"W has shape {self.W.shape}; it must be (inputs, outputs)")
        if self.b is not None and self.b.shape != self.W.shape[1:]:
            raise ValueError(f"b has shape {self.b.shape}; it must be {self.W.shape[1:]}")
        self.x: Array = None
        self.dW: Array = None
        self.db: Array = None

    def forward(self, x: Array) -> Array:
        """Return x @ W + b, of shape (N, J)."""
        self.x = x
        out = x @ self.W
        return out if self.b is None else out + self.b

    def backward(self, dout: Array) -> Array:
        """Set `dW` and `db`, and return the gradient with respect to the input, (N, I)."""
        self.dW = self.x.T @ dout
        if self.b is not None:
            self.db = namespace_of(dout).sum(dout, axis=0)
        return dout @ self.W.T

    def base(self) -> tuple[Array, ...]:
        """Return nothing: how a change of the input comes through does not depend on the input."""
        return ()

    def difference(self, d: Array) -> Array:
        """Return the change W.T @ d, (N, J, P).

        (x + d) @ W + b − (x @ W + b) = d @ W.
        """
        return namespace_of(d).matmul(self.W.T, d)

    def column_difference(self, d: Array, columns: Any = slice(None)) -> Array:
        """Return the change (N, J, I·P) for each change d[n, i, p] of one input i alone.

        The same with d zero but in column i: the outer product of W[i, :] and d[:, i]. Where d
        holds some of the inputs only, `columns` says which.
        """
        return spread(d, self.W[columns, ...])

    def weight_difference(self, x: Array, h: float) -> Array:
        """Return the change (N, I + 1) of column j when W[i, j], or last b[j], moves by h.

        x @ (W + h·e_ij) + b − (x @ W + b) = h·x[:, i] in column j, the same for every j; and h
        for b[j].
        """
        xp = namespace_of(x)
        ones = xp.ones((x.shape[0], 1), dtype=x.dtype, device=device(x))
        return xp.concat([h * x, h * ones], axis=1)


class Sigmoid:
    """1 / (1 + exp(−x)) (5.5.2)."""

    lipschitz = 0.25

    def __init__(self) -> None:
        self.x: Array = None

    def forward(self, x: Array) -> Array:
        """Return σ(x)."""
        self.x = x
        return sigmoid(x)

    def backward(self, dout: Array) -> Array:
        """Return dout · σ(x) σ(−x), to the last digit also where the unit is saturated."""
        return dout * sigmoid_grad(self.x)

    def base(self) -> tuple[Array, ...]:
        """Return q / (1 + q), q and x, each (N, F, 1), where q = exp(−x)."""
        return _sigmoid_base(self.x[..., None])

    def difference(self, d: Array, a: Array, q: Array, x: Array) -> Array:
        """Return σ(x + d) − σ(x) = s(1−s)E / (1 + sE), with s = σ(x), E = expm1(d).

        From σ(x+d) = s·e^d / (1 − s + s·e^d). Both sides of the fraction divided by s, with
        q = (1−s)/s = exp(−x): E · q/(1+q) / (q + e^d), where neither tail loses digits.
        """
        return _sigmoid_difference(d, a, q, x)


class Tanh:
    """tanh x."""

    lipschitz = 1.0

    def __init__(self) -> None:
        self.x: Array = None

    def forward(self, x: Array) -> Array:
        """Return tanh x."""
        self.x = x
        return namespace_of(x).tanh(x)

    def backward(self, dout: Array) -> Array:
        """Return dout · (1 − tanh² x), to the last digit also where the unit is saturated."""
        return dout * (4 * sigmoid_grad(2 * self.x))

    def base(self) -> tuple[Array, ...]:
        """Return what `Sigmoid.base` does, of 2x."""
        return _sigmoid_base(2 * self.x[..., None])

    def difference(self, d: Array, a: Array, q: Array, x: Array) -> Array:
        """Return tanh(x + d) − tanh x = (1−t²) tanh d / (1 + t·tanh d), where t = tanh x.

        Written as 2 (σ(2x + 2d) − σ(2x)), because tanh x = 2σ(2x) − 1: 1 − t² would lose digits.
        """
        return 2 * _sigmoid_difference(2 * d, a, q, x)


class Relu:
    """max(x, 0) (5.5.1)."""

    lipschitz = 1.0

    def __init__(self) -> None:
        self.x: Array = None

    def forward(self, x: Array) -> Array:
        """Return max(x, 0); `x` itself is left as it is."""
        self.x = x
        return relu(x)

    def backward(self, dout: Array) -> Array:
        """Return dout where the input was positive, and 0 elsewhere."""
        xp = namespace_of(dout)
        return xp.where(self.x > 0, dout, xp.zeros_like(dout))

    def base(self) -> tuple[Array, ...]:
        """Return min(x, 0) and −max(x, 0), each (N, F, 1)."""
        x = self.x[..., None]
        return -relu(-x), -relu(x)

    def difference(self, d: Array, negative: Array, floor: Array) -> Array:
        """Return max(x + d, 0) − max(x, 0): max(d, −x) where x > 0, else max(x + d, 0).

        Both cases are max(d + min(x, 0), −max(x, 0)).
        """
        xp = namespace_of(d)
        return xp.maximum(d + negative, floor)


class Identity:
    """x itself."""

    lipschitz = 1.0

    def forward(self, x: Array) -> Array:
        """Return `x`."""
        return x

    def backward(self, dout: Array) -> Array:
        """Return `dout`."""
        return dout

    def base(self) -> tuple[Array, ...]:
        """Return nothing."""
        return ()

    def difference(self, d: Array) -> Array:
        """Return d: (x + d) − x = d."""
        return d


class Dropout:
    """Inverted dropout: drops inputs while training, scales the others up, does nothing later.

    Parameters
    ----------
    dropout_ratio : float
        Share of the inputs that is dropped, at least 0 and less than 1.
    seed : int, optional
        Masks are drawn on the host, so a CPU and a GPU run of one seed drop the same.

    Attributes
    ----------
    train_flg : bool
        Whether inputs are dropped; True by default, as in the book.
    mask : array or None
        0 or 1/(1 − ratio) for each input. Set `frozen` to use it again and again, as a gradient
        check must.
    frozen : bool

    Notes
    -----
    N. Srivastava et al., "Dropout", JMLR 15 (2014); section 6.4.3 of the book, where the mask is
    not inverted: predictions are scaled down instead.
    """

    def __init__(self, dropout_ratio: float = 0.5, *, seed: int | None = None) -> None:
        if not 0 <= dropout_ratio < 1:
            raise ValueError(f"dropout_ratio is {dropout_ratio}; it must be at least 0, below 1")
        self.dropout_ratio = dropout_ratio
        self.train_flg = True
        self.frozen = False
        self.mask: Array = None
        self._rng = np.random.default_rng(seed)

    @property
    def lipschitz(self) -> float:
        """1/(1 − ratio) while training, else 1."""
        return 1 / (1 - self.dropout_ratio) if self.train_flg else 1.0

    def forward(self, x: Array) -> Array:
        """Return ``x * mask`` while training, else `x`."""
        if not self.train_flg:
            return x
        if not self.frozen or self.mask is None or self.mask.shape != x.shape[-2:]:
            xp = namespace_of(x)
            kept = self._rng.random(x.shape[-2:]) >= self.dropout_ratio
            mask = np.where(kept, 1 / (1 - self.dropout_ratio), 0.0)
            self.mask = xp.asarray(mask, dtype=x.dtype, device=device(x))
        # A frozen mask may have met another type last.
        self.mask = namespace_of(x).astype(self.mask, x.dtype, copy=False)
        return x * self.mask

    def backward(self, dout: Array) -> Array:
        """Return ``dout * mask`` while training, else `dout`."""
        return dout * self.mask if self.train_flg else dout

    def base(self) -> tuple[Array, ...]:
        """Return the mask, (N, F, 1), while training."""
        return (self.mask[..., None],) if self.train_flg else ()

    def difference(self, d: Array, *mask: Array) -> Array:
        """Return mask·d: (x + d)·mask − x·mask with the mask held fixed."""
        return d * mask[0] if mask else d


def spread(d: Array, W: Array) -> Array:
    """Return W[i, j]·d[n, i, p] as an array (N, J, I·P): what one input's change alone does.

    With the identity for W it writes changes of single features out as changes of them all.
    """
    xp = namespace_of(d)
    n, i, p = d.shape
    # Through one dimension, so that the product comes out contiguous and reshapes without a copy.
    weights = xp.reshape(xp.reshape(W.T, (-1,)), (W.shape[1], i, 1))
    return xp.reshape(weights * d[:, None, ...], (n, W.shape[1], i * p))


def _sigmoid_base(x: Array) -> tuple[Array, Array, Array]:
    xp = namespace_of(x)
    q = xp.exp(-xp.maximum(x, xp.full_like(x, -_exp_limit(x))))
    return q / (1 + q), q, x


def _sigmoid_difference(d: Array, a: Array, q: Array, x: Array) -> Array:
    xp = namespace_of(d)
    size = xp.abs(d)
    limit = _exp_limit(x)
    if float(xp.max(size)) <= FAR and float(xp.max(xp.abs(x))) <= limit:
        out = a * xp.expm1(d)
        out /= q + xp.exp(d)
        return out
    # Exponentials of d or x may overflow, but there is nothing left to cancel: of σ(x) and
    # σ(x + d), or of σ(−x) and σ(−x − d) where these are the smaller ones, one is nothing to the
    # other, or both are as small as numbers can be.
    moved = x + d
    far = xp.where(x < 0, sigmoid(moved) - sigmoid(x), sigmoid(-x) - sigmoid(-moved))
    is_near = (size <= FAR) & (xp.abs(x) <= limit)
    d = xp.where(is_near, d, xp.zeros_like(d))
    return xp.where(is_near, a * xp.expm1(d) / (q + xp.exp(d)), far)


def _exp_limit(x: Array) -> int:
    """Return the largest whole number whose exponential does not overflow."""
    return math.floor(math.log(namespace_of(x).finfo(x.dtype).max))
