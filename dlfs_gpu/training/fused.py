"""Backpropagation through affine layers, activations and softmax, in buffers made once.

The arithmetic is that of the layers, as exact as theirs; what is spared are the arrays that they
make, which at 784-50-10 would cost as much as the matrix products. It stands in for the layers
only where that can be known: where every method that training uses is the library's own.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol, TypeAlias

import numpy as np
from array_api_compat import is_cupy_array

from dlfs_gpu._validation import Array
from dlfs_gpu.layers import Affine, Relu, Sigmoid, Tanh
from dlfs_gpu.losses import SoftmaxWithLoss
from dlfs_gpu.models import MultiLayerNet, SimpleNet, TwoLayerNet
from dlfs_gpu.network import Network


def replaceable(network: Network) -> bool:
    """Say whether a network trains by nothing but the arithmetic that `FusedGradient` does.

    So it is for networks of `Affine` layers with biases, `Sigmoid`, `Tanh` or `Relu` between them,
    and `SoftmaxWithLoss`, if none of their classes is a subclass, and no method that takes part has
    been replaced in a class or in an object.
    """
    layers: list[Any] = network.layers
    affine, activations = layers[::2], layers[1::2]
    return (
        len(layers) % 2 == 1
        and type(network) in _NETWORKS
        and all(type(layer) is Affine and "b" in layer.params for layer in affine)
        and all(type(layer) in _ACTIVATIONS for layer in activations)
        and type(network.loss_layer) is SoftmaxWithLoss
        and all(map(_is_original, (network, network.loss_layer, *layers)))
    )


class DenseRows:
    """Minibatches gathered into a buffer, and multiplied by BLAS.

    Parameters
    ----------
    x : array, shape (M, I)
        Data set, in NumPy or CuPy.
    mini_batch_size : int
        N of the minibatches.
    """

    def __init__(self, x: Array, mini_batch_size: int) -> None:
        self.lib: Any = importlib.import_module("cupy") if is_cupy_array(x) else np
        self.x = x
        self.batch = self.lib.empty((mini_batch_size, x.shape[1]), x.dtype)

    def gather(self, indices: Array) -> None:
        """Take the rows of a minibatch, whose indices are in range: NumPy wraps others round."""
        # Without a mode NumPy gathers into a copy first, to leave `out` whole on a bad index.
        mode = {"mode": "wrap"} if self.lib is np else {}
        self.lib.take(self.x, indices, axis=0, out=self.batch, **mode)

    def times(self, W: Array, out: Array) -> None:
        """Write the product of the minibatch, (N, I), with W, (I, J), to `out`."""
        self.lib.matmul(self.batch, W, out=out)

    def transposed_times(self, delta: Array, out: Array) -> None:
        """Write the product of the minibatch, transposed, with `delta`, (N, J), to `out`."""
        self.lib.matmul(self.batch.T, delta, out=out)


class Rows(Protocol):
    """Minibatches of a data set, and the products of the first layer with them."""

    def gather(self, indices: Array, /) -> None:
        """Take the rows of a minibatch, whose indices are in range."""

    def times(self, W: Array, out: Array, /) -> None:
        """Write the product of the minibatch, (N, I), with W, (I, J), to `out`."""

    def transposed_times(self, delta: Array, out: Array, /) -> None:
        """Write the product of the minibatch, transposed, with `delta`, (N, J), to `out`."""


Softmax: TypeAlias = Callable[[Array, Array, float], Array]


@dataclass(frozen=True)
class Parts:
    """Parts of the work that may be done in another way than by array operations.

    Attributes
    ----------
    rows : Rows, optional
        Minibatches of the data set.
    softmax : callable, optional
        Called with scores, labels and `scale`, returns the mean loss, and leaves in the scores the
        loss's gradient by them times `scale`.
    """

    rows: Rows | None = None
    softmax: Softmax | None = None


class FusedGradient:
    """Losses and gradients of minibatches gathered from a data set.

    Parameters
    ----------
    network : Network
        One that is `replaceable`, as long as it is called.
    x : array, shape (M, I)
    labels : array of int64, shape (M,)
        Data set, checked, in NumPy or CuPy arrays, in the network's type.
    mini_batch_size : int
    parts : Parts, optional
        Other ways for parts of the work.

    Attributes
    ----------
    grads : dict of str to array
        What the last call left, by the keys of the network's ``params``.
    """

    def __init__(
        self,
        network: Network,
        x: Array,
        labels: Array,
        mini_batch_size: int,
        parts: Parts = Parts(),
    ) -> None:
        lib: Any = importlib.import_module("cupy") if is_cupy_array(x) else np
        self.lib = lib
        self.parts = parts
        self.rows = parts.rows or DenseRows(x, mini_batch_size)
        self.labels = labels
        self.network = network
        self.layers: list[Any] = list(network.layers)
        self.activations = [_ACTIVATIONS[type(layer)] for layer in network.layers[1::2]]
        self.grads = {key: lib.empty_like(param) for key, param in network.params.items()}
        n, sizes, dtype = mini_batch_size, network.sizes, network.dtype
        self.outputs = [lib.empty((n, size), dtype) for size in sizes[1:]]
        self.kept = [lib.empty((n, size), dtype) for size in sizes[1:-1]]
        self.deltas = [lib.empty((n, size), dtype) for size in sizes[1:-1]]
        self.ones = lib.ones(n, dtype)
        self.row_starts = lib.arange(n) * sizes[-1]
        self.limit = math.floor(math.log(np.finfo(dtype).max))

    def __call__(self, indices: Array, scale: float = 1.0) -> Array:
        """Return the loss of a minibatch, (), and leave its gradient, times `scale`, in `grads`.

        Both with the network's weight decay.

        Raises
        ------
        IndexError
            If one of the `indices`, (mini_batch_size,), is out of range; CuPy wraps them round.
        """
        lib, rows = self.lib, self.rows
        labels = lib.take(self.labels, indices)
        rows.gather(indices)
        for k, (layer, out) in enumerate(zip(self.layers[::2], self.outputs, strict=True)):
            if not k:
                rows.times(layer.params["W"], out)
            else:
                lib.matmul(self.outputs[k - 1], layer.params["W"], out=out)
            out += layer.params["b"]
            if k < len(self.activations):
                self.activations[k][0](lib, out, self.kept[k], self.limit)

        loss = (self.parts.softmax or self._softmax)(out, labels, scale)
        delta = out
        for k in reversed(range(len(self.outputs))):
            lib.matmul(self.ones, delta, out=self.grads[f"b{k + 1}"])
            if not k:
                rows.transposed_times(delta, self.grads["W1"])
            else:
                before = self.outputs[k - 1]
                lib.matmul(before.T, delta, out=self.grads[f"W{k + 1}"])
                delta = lib.matmul(delta, self.layers[2 * k].params["W"].T, out=self.deltas[k - 1])
                self.activations[k - 1][1](lib, before, self.kept[k - 1], delta)
        decay = self.network.weight_decay_lambda
        if decay:
            for k, layer in enumerate(self.layers[::2], 1):
                W = layer.params["W"]
                loss = loss + 0.5 * decay * lib.vdot(W, W)
                self.grads[f"W{k}"] += scale * decay * W
        return loss

    def _softmax(self, out: Array, labels: Array, scale: float) -> Array:
        """Return the mean loss of scores, and leave in them their gradient times `scale`."""
        lib, n = self.lib, len(self.ones)
        # Cross entropy as log(1 + what the other classes add), which loses no digits where the
        # label's class is nearly certain; nor does its slope, the share of the others.
        out -= lib.max(out, axis=1, keepdims=True)
        flat, at_label = out.reshape(-1), self.row_starts + labels
        score = flat[at_label]
        lib.exp(out, out=out)
        share = flat[at_label]
        flat[at_label] = 0
        others = lib.matmul(out, lib.ones(out.shape[1], out.dtype))
        loss = (lib.log1p(others + lib.expm1(score)) - score).sum() / n
        share += others
        lib.divide(scale / n, share, out=share)
        out *= share[:, None]
        others *= share
        flat[at_label] = -others
        return loss


def _sigmoid(lib: Any, z: Array, q: Array, limit: int) -> None:
    lib.negative(z, out=z)
    lib.minimum(z, limit, out=z)  # whose exponential is finite
    lib.exp(z, out=q)
    lib.add(q, 1, out=z)
    lib.divide(1, z, out=z)


def _sigmoid_slope(lib: Any, out: Array, q: Array, delta: Array) -> None:
    # σ(z) σ(−z), and σ(−z) = q σ(z); σ(z)² might underflow
    delta *= out
    delta *= q
    delta *= out


def _tanh(lib: Any, z: Array, q: Array, limit: int) -> None:
    lib.abs(z, out=q)
    q *= -2
    lib.exp(q, out=q)
    lib.tanh(z, out=z)


def _tanh_slope(lib: Any, out: Array, q: Array, delta: Array) -> None:
    # 1 − tanh² z = 4q / (1 + q)², where q = exp(−2|z|)
    delta *= q
    delta *= 4
    q += 1
    delta /= q
    delta /= q


def _relu(lib: Any, z: Array, kept: Array, limit: int) -> None:
    lib.maximum(z, 0, out=z)


def _relu_slope(lib: Any, out: Array, kept: Array, delta: Array) -> None:
    delta *= out > 0


_ACTIVATIONS: dict[type, tuple[Callable[..., None], Callable[..., None]]] = {
    Sigmoid: (_sigmoid, _sigmoid_slope),
    Tanh: (_tanh, _tanh_slope),
    Relu: (_relu, _relu_slope),
}
"""Each activation, and its slope times delta, in place; what the first keeps the second gets."""
_NETWORKS = (Network, MultiLayerNet, TwoLayerNet, SimpleNet)
_METHODS = frozenset(
    {
        "forward",
        "backward",
        "loss",
        "gradient",
        "loss_and_gradient",
        "_loss",
        "_forward",
        "_backward",
        "_loss_and_gradient",
        "_loss_with_decay",
        "_with_decay",
    }
)
_METHODS_OF = {
    cls: attrgetter(*_METHODS.intersection(dir(cls)))
    for cls in (*_NETWORKS, Affine, SoftmaxWithLoss, *_ACTIVATIONS)
}
_ORIGINALS = {cls: methods_of(cls) for cls, methods_of in _METHODS_OF.items()}


def _is_original(thing: Any) -> bool:
    """Say whether no method that takes part in training was replaced in an object or its class."""
    cls = type(thing)
    return _METHODS_OF[cls](cls) == _ORIGINALS[cls] and _METHODS.isdisjoint(vars(thing))
