"""One update of a network: minibatch, loss, gradient, optimizer.

`Update` drives the layers. For backpropagation through affine and activation layers to a softmax
it does the same arithmetic in buffers made once (`_BufferedUpdate`): at 784-50-10 what NumPy
spends on making arrays would cost as much as the matrix products.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from array_api_compat import is_cupy_array, is_numpy_array

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.layers import Affine, Relu, Sigmoid, Tanh
from dlfs_gpu.losses import SoftmaxWithLoss, as_one_hot
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import SGD, Optimizer

GradientKind = Literal["backprop", "numerical", "batched", "loop"]


class Update:
    """Updates of a network by minibatches gathered from a data set.

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
    x, t : array
        Data set and targets, as `Network.check` returns them.
    batch_size : int
        Samples in each minibatch.
    gradient : {"backprop", "numerical", "batched", "loop"}
        Backpropagation, or numerical differences: by the layers' `difference` ("numerical"), or
        by evaluating the loss.

    Raises
    ------
    ValueError
        If `gradient` is none of these, or dropout makes the losses of one minibatch differ.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        x: Array,
        t: Array,
        batch_size: int,
        gradient: GradientKind = "backprop",
    ) -> None:
        if gradient not in get_args(GradientKind):
            raise ValueError(
                f"gradient is {gradient!r}; it must be one of {', '.join(get_args(GradientKind))}"
            )
        self.network = network
        self.optimizer = optimizer
        self.x = x
        self.t = t
        self.gradient = gradient
        if gradient in ("batched", "loop"):
            network.refuse_random_dropout()
        self._buffered: _BufferedUpdate | None = None
        if gradient == "backprop" and _BufferedUpdate.can_run(network, t):
            self._buffered = _BufferedUpdate(network, optimizer, x, t, batch_size)

    def __call__(self, indices: Array) -> Array:
        """Update the network on one minibatch; by backpropagation without waiting for the device.

        Parameters
        ----------
        indices : array of int64, shape (batch_size,)
            Rows of the data set, on its device.

        Returns
        -------
        array, shape ()
            Loss of the minibatch before the update.
        """
        if self._buffered is not None and self.network.weight_decay_lambda == 0:
            return self._buffered(indices)
        xp = namespace_of(self.x)
        x, t = xp.take(self.x, indices, axis=0), xp.take(self.t, indices, axis=0)
        loss, grads = self._loss_and_gradient(x, t)
        self.optimizer.update(self.network.params, grads)
        return loss

    def _loss_and_gradient(self, x: Array, t: Array) -> tuple[Array, dict[str, Array]]:
        if self.gradient == "backprop":
            return self.network.loss_and_gradient(x, t)
        if self.gradient == "numerical":
            return self.network.loss_and_differences(x, t)
        grads = self.network.numerical_gradient(x, t, method=self.gradient)
        return self.network.mean_loss(x, t, training=True), grads


class _BufferedUpdate:
    """Backpropagation through affine layers, activations and softmax, in buffers made once."""

    def __init__(
        self, network: Network, optimizer: Optimizer, x: Array, t: Array, batch_size: int
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.x = x
        self.t = as_one_hot(t, network.sizes[-1], network.dtype)
        # The library itself: its functions take `out`, which the array API standard lacks.
        self.lib: Any = importlib.import_module("cupy") if is_cupy_array(x) else np
        # Without a mode NumPy gathers into a copy first, to leave `out` whole on a bad index.
        self.take_options = {} if is_cupy_array(x) else {"mode": "clip"}
        empty = self.lib.empty
        sizes, dtype = network.sizes, network.dtype
        self.x_batch = empty((batch_size, sizes[0]), dtype)
        self.t_batch = empty((batch_size, sizes[-1]), dtype)
        self.outputs = [empty((batch_size, size), dtype) for size in sizes[1:]]
        self.deltas = [empty((batch_size, size), dtype) for size in sizes[1:-1]]
        self.ones = self.lib.ones(batch_size, dtype)
        self.grads = {key: self.lib.empty_like(param) for key, param in network.params.items()}
        self.row = empty((batch_size, 1), dtype)
        # Plain SGD only adds what is here: the factor −lr then comes with the mean's 1/N.
        self.is_sgd = type(optimizer) is SGD

    @staticmethod
    def can_run(network: Network, t: Array) -> bool:
        """Say whether this class computes the updates of such a network, with such targets."""
        kinds = [type(layer) for layer in network.layers]
        return (
            kinds[::2] == [Affine] * len(kinds[::2])
            and len(kinds) % 2 == 1
            and all(kind in _ACTIVATIONS for kind in kinds[1::2])
            and all(layer.b is not None for layer in network.layers[::2])
            and type(network.loss_layer) is SoftmaxWithLoss
            and (is_numpy_array(t) or is_cupy_array(t))
            and _sums_to_one(t)
        )

    @np.errstate(over="ignore")  # σ is 0 where exp overflows
    def __call__(self, indices: Array) -> Array:
        lib, params, layers = self.lib, self.network.params, self.network.layers
        n = len(indices)
        lib.take(self.x, indices, axis=0, out=self.x_batch, **self.take_options)
        lib.take(self.t, indices, axis=0, out=self.t_batch, **self.take_options)
        out = self.x_batch
        for k, z in enumerate(self.outputs):
            lib.matmul(out, params[f"W{k + 1}"], out=z)
            z += params[f"b{k + 1}"]
            if z is not self.outputs[-1]:
                _ACTIVATIONS[type(layers[2 * k + 1])][0](lib, z)
            out = z

        out -= lib.max(out, axis=1, keepdims=True, out=self.row)
        score = lib.vdot(self.t_batch, out)
        lib.exp(out, out=out)
        total = lib.sum(out, axis=1, keepdims=True, out=self.row)
        out /= total
        loss = (lib.log(total, out=total).sum() - score) / n

        delta = out
        delta -= self.t_batch
        delta *= (-self.optimizer.lr if self.is_sgd else 1) / n
        for k in reversed(range(len(self.outputs))):
            before = self.outputs[k - 1] if k else self.x_batch
            lib.matmul(before.T, delta, out=self.grads[f"W{k + 1}"])
            lib.matmul(self.ones, delta, out=self.grads[f"b{k + 1}"])
            if k:
                delta = lib.matmul(delta, params[f"W{k + 1}"].T, out=self.deltas[k - 1])
                _ACTIVATIONS[type(layers[2 * k - 1])][1](lib, before, delta)
        if self.is_sgd:
            for key, step in self.grads.items():
                params[key] += step
        else:
            self.optimizer.update(params, self.grads)
        return loss


def _sums_to_one(t: Array) -> bool:
    """Say whether the targets of each sample sum to 1, as labels do by themselves."""
    if t.ndim == 1:
        return True
    xp = namespace_of(t)
    error = xp.abs(xp.sum(t, axis=-1) - 1)
    return bool(xp.all(error <= t.shape[-1] * xp.finfo(t.dtype).eps))


def _sigmoid(lib: Any, z: Array) -> None:
    lib.negative(z, out=z)
    lib.exp(z, out=z)
    z += 1
    lib.divide(1, z, out=z)


def _sigmoid_slope(lib: Any, out: Array, delta: Array) -> None:
    delta *= out
    lib.subtract(1, out, out=out)
    delta *= out


def _relu(lib: Any, z: Array) -> None:
    lib.maximum(z, 0, out=z)


def _relu_slope(lib: Any, out: Array, delta: Array) -> None:
    delta *= out > 0


def _tanh(lib: Any, z: Array) -> None:
    lib.tanh(z, out=z)


def _tanh_slope(lib: Any, out: Array, delta: Array) -> None:
    out *= out
    lib.subtract(1, out, out=out)
    delta *= out


_InPlace = Callable[..., None]
_ACTIVATIONS: dict[type, tuple[_InPlace, _InPlace]] = {
    Sigmoid: (_sigmoid, _sigmoid_slope),
    Relu: (_relu, _relu_slope),
    Tanh: (_tanh, _tanh_slope),
}
"""Each activation, and its slope times delta, written over their last argument."""
