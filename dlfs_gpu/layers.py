"""Layers: forward, backward, and the exact difference of their output.

``forward`` and ``backward`` are the book's (chapter 5): batches of shape (N, features), and each
layer keeps from ``forward`` what ``backward`` needs. `dlfs_gpu.protocols` says what a network asks
of layers, these or others.

``difference(d, *saved())`` answers by how much the output of the last ``forward`` changes when the
input changes by d, in a form that never subtracts two nearly equal numbers: *computational
divided differencing* [1]_. It is exact for any d, small or large; a derivative it is not.
Samples come first and perturbations last: d has shape (N, features, P), P changes of each
sample's input tried side by side, and the arrays of ``saved()`` broadcast against it, so a few
samples can be taken out of both.

References
----------
.. [1] T. W. Reps and L. B. Rall, "Computational divided differencing and divided-difference
   arithmetics", Higher-Order and Symbolic Computation 16 (2003), 93-149.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import ArgumentError, Array, as_float, check_fraction, namespace_of
from dlfs_gpu.differences.logistic import logistic_difference, logistic_saved
from dlfs_gpu.functions import relu, sigmoid, sigmoid_grad
from dlfs_gpu.kernels.host import has_loop
from dlfs_gpu.losses import SoftmaxWithLoss as SoftmaxWithLoss  # where the book has it


def _entry(owner: str, name: str) -> Any:
    """Return a property of a layer that stands for an entry of its ``params`` or ``grads``."""

    def read(layer: Any) -> Array:
        return getattr(layer, owner).get(name)

    def write(layer: Any, array: Array) -> None:
        getattr(layer, owner)[name] = array

    return property(read, write)


class Affine:
    """x @ W + b (5.6.2).

    Parameters
    ----------
    W : array, shape (I, J)
    b : array, shape (J,), optional
        None for a layer without bias.

    Attributes
    ----------
    W, b, dW, db : array or None
        The parameters, and their gradients once `backward` has set them; the same arrays as in
        ``params`` and ``grads``.

    Raises
    ------
    ArgumentError
        If the shapes are not these.
    """

    def __init__(self, W: Array, b: Array | None = None) -> None:
        W = as_float(W, "W")
        if W.ndim != 2:
            raise ArgumentError("W", f"has shape {W.shape}; it must be (inputs, outputs)")
        self.params: dict[str, Array] = {"W": W}
        if b is not None:
            b = as_float(b, "b")
            if b.shape != W.shape[1:]:
                raise ArgumentError("b", f"has shape {b.shape}; it must be {W.shape[1:]}")
            self.params["b"] = b
        self.grads: dict[str, Array] = {}
        self.x: Array = None

    W = _entry("params", "W")
    b = _entry("params", "b")
    dW = _entry("grads", "W")  # noqa: N815 - the book's name
    db = _entry("grads", "b")

    @has_loop("affine")
    def forward(self, x: Array) -> Array:
        """Return x @ W + b, of shape (N, J)."""
        self.x = x
        out = x @ self.W
        if self.b is None:
            return out
        # Stacked biases, (K, J), belong to K batches.
        return out + (self.b if self.b.ndim == 1 else self.b[:, None, :])

    def backward(self, dout: Array) -> Array:
        """Set `dW` and `db`, and return the gradient with respect to the input, (N, I)."""
        self.grads = {"W": self.x.T @ dout}
        if self.b is not None:
            self.grads["b"] = namespace_of(dout).sum(dout, axis=0)
        return dout @ self.W.T

    def saved(self) -> tuple[Array, ...]:
        """Return nothing: how a change of the input comes through does not depend on the input."""
        return ()

    @has_loop("affine")
    def difference(self, d: Array) -> Array:
        """Return the change W.T @ d, (N, J, P).

        (x + d) @ W + b − (x @ W + b) = d @ W.
        """
        return namespace_of(d).matmul(self.W.T, d)

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
    x: Array = None

    @has_loop("sigmoid")
    def forward(self, x: Array) -> Array:
        """Return σ(x)."""
        self.x = x
        return sigmoid(x)

    def backward(self, dout: Array) -> Array:
        """Return dout · σ(x) σ(−x), to the last digit also where the unit is saturated."""
        return dout * sigmoid_grad(self.x)

    def saved(self) -> tuple[Array, ...]:
        """Return q / (1 + q), q and x, each (N, F, 1), where q = exp(−x)."""
        return logistic_saved(self.x[..., None])

    @has_loop("sigmoid")
    def difference(self, d: Array, a: Array, q: Array, x: Array) -> Array:
        """Return σ(x + d) − σ(x) = s(1−s)E / (1 + sE), with s = σ(x), E = expm1(d).

        From σ(x+d) = s·e^d / (1 − s + s·e^d). Both sides of the fraction divided by s, with
        q = (1−s)/s = exp(−x): E · q/(1+q) / (q + e^d), where neither tail loses digits.
        """
        return logistic_difference(d, a, q, x)


class Tanh:
    """tanh x."""

    lipschitz = 1.0
    x: Array = None

    @has_loop("tanh")
    def forward(self, x: Array) -> Array:
        """Return tanh x."""
        self.x = x
        return namespace_of(x).tanh(x)

    def backward(self, dout: Array) -> Array:
        """Return dout · (1 − tanh² x), to the last digit also where the unit is saturated."""
        return dout * (4 * sigmoid_grad(2 * self.x))

    def saved(self) -> tuple[Array, ...]:
        """Return what `Sigmoid.saved` does, of 2x."""
        return logistic_saved(2 * self.x[..., None])

    @has_loop("tanh")
    def difference(self, d: Array, a: Array, q: Array, x: Array) -> Array:
        """Return tanh(x + d) − tanh x = (1−t²) tanh d / (1 + t·tanh d), where t = tanh x.

        Written as 2 (σ(2x + 2d) − σ(2x)), because tanh x = 2σ(2x) − 1: 1 − t² would lose digits.
        """
        return 2 * logistic_difference(2 * d, a, q, x)


class Relu:
    """max(x, 0) (5.5.1)."""

    lipschitz = 1.0
    x: Array = None

    @has_loop("relu")
    def forward(self, x: Array) -> Array:
        """Return max(x, 0); `x` itself is left as it is."""
        self.x = x
        return relu(x)

    def backward(self, dout: Array) -> Array:
        """Return dout where the input was positive, and 0 elsewhere."""
        xp = namespace_of(dout)
        return xp.where(self.x > 0, dout, xp.zeros_like(dout))

    def saved(self) -> tuple[Array, ...]:
        """Return min(x, 0) and −max(x, 0), each (N, F, 1)."""
        x = self.x[..., None]
        return -relu(-x), -relu(x)

    @has_loop("relu")
    def difference(self, d: Array, negative: Array, floor: Array) -> Array:
        """Return max(x + d, 0) − max(x, 0): max(d, −x) where x > 0, else max(x + d, 0).

        Both cases are max(d + min(x, 0), −max(x, 0)).
        """
        xp = namespace_of(d)
        return xp.maximum(d + negative, floor)

    def kinks(self, reach: Array | float) -> int:
        """Return how many inputs of the last `forward` are no further than `reach` from 0."""
        xp = namespace_of(self.x)
        return int(xp.count_nonzero(xp.abs(self.x) <= reach))


class Identity:
    """x itself."""

    lipschitz = 1.0

    def forward(self, x: Array) -> Array:
        """Return `x`."""
        return x

    def backward(self, dout: Array) -> Array:
        """Return `dout`."""
        return dout

    def saved(self) -> tuple[Array, ...]:
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
        0 or 1/(1 − ratio) for each input.
    frozen : bool
        Whether the mask is used again and again, as a gradient check must; a batch of another
        shape is refused then.

    Raises
    ------
    ArgumentError
        If `dropout_ratio` is out of range.

    Notes
    -----
    N. Srivastava et al., "Dropout", JMLR 15 (2014); section 6.4.3 of the book, where the mask is
    not inverted: predictions are scaled down instead.
    """

    def __init__(self, dropout_ratio: float = 0.5, *, seed: int | None = None) -> None:
        self.dropout_ratio = check_fraction("dropout_ratio", dropout_ratio)
        self.train_flg = True
        self.frozen = False
        self.mask: Array = None
        self._rng = np.random.default_rng(seed)

    @property
    def lipschitz(self) -> float:
        """1/(1 − ratio) while training, else 1."""
        return 1 / (1 - self.dropout_ratio) if self.train_flg else 1.0

    @property
    def lasting(self) -> tuple[str, ...]:
        """The attributes on which later passes depend."""
        return ("dropout_ratio", "frozen", "_rng", *(["mask"] if self.frozen else []))

    def forward(self, x: Array) -> Array:
        """Return ``x * mask`` while training, else `x`."""
        if not self.train_flg:
            return x
        xp = namespace_of(x)
        if not self.frozen or self.mask is None:
            kept = self._rng.random(x.shape[-2:]) >= self.dropout_ratio
            mask = np.where(kept, 1 / (1 - self.dropout_ratio), 0.0)
            self.mask = xp.asarray(mask, dtype=x.dtype, device=device(x))
        elif self.mask.shape != x.shape[-2:]:
            raise ArgumentError(
                "x",
                f"makes a batch of shape {tuple(x.shape[-2:])}, but the mask of dropout is frozen "
                f"for {tuple(self.mask.shape)}",
            )
        # A frozen mask may have met another type last.
        self.mask = xp.astype(self.mask, x.dtype, copy=False)
        return x * self.mask

    def pass_over(self, samples: int, features: int) -> None:
        """Draw nothing for so many samples: what comes next is as if their masks had been drawn."""
        self._rng.bit_generator.advance(samples * features)  # type: ignore[attr-defined]

    def backward(self, dout: Array) -> Array:
        """Return ``dout * mask`` while training, else `dout`."""
        return dout * self.mask if self.train_flg else dout

    def saved(self) -> tuple[Array, ...]:
        """Return the mask, (N, F, 1), while training."""
        return (self.mask[..., None],) if self.train_flg else ()

    def difference(self, d: Array, *mask: Array) -> Array:
        """Return mask·d: (x + d)·mask − x·mask with the mask held fixed."""
        return d * mask[0] if mask else d
