"""Updates by CUDA kernels, compared with array operations when first used."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import to_numpy
from dlfs_gpu.kernels import cuda
from dlfs_gpu.kernels.host import loop_of
from dlfs_gpu.kernels.layers import Layers
from dlfs_gpu.kernels.products import Products
from dlfs_gpu.kernels.proof import UnfitError, attempt, check_near, prove
from dlfs_gpu.network import Network
from dlfs_gpu.training.fused import FusedGradient

# Updates that are compared, and by which share of itself each parameter's change may differ.
_PROOF_UPDATES, _PROOF_LR = 3, 0.1
_TOLERANCE = {"float32": 1e-3, "float64": 1e-9}

_Result = TypeVar("_Result")


class Launcher:
    """Kernels for the updates of a network, made and compared when they are first asked for.

    Parameters
    ----------
    network : Network
        One that is `dlfs_gpu.training.fused.replaceable`, on CuPy arrays.
    x : array, shape (M, I)
    labels : array of int64, shape (M,)
        Data set, checked.
    mini_batch_size : int
    """

    def __init__(self, network: Network, x: Array, labels: Array, mini_batch_size: int) -> None:
        self._network = network
        self._layers, self._params = list(network.layers), list(network.params.values())
        self._data = (x, labels, mini_batch_size)
        self._made: dict[str, Any] = {}

    def suits(self, network: Network) -> bool:
        """Say whether these are still a network's layers and parameters."""
        params = network.params.values()
        return self._layers == network.layers and all(map(operator.is_, self._params, params))

    def update(self, indices: Array, lr: float) -> Array | None:
        """Do updates by plain SGD.

        Parameters
        ----------
        indices : array of int64, shape (U, mini_batch_size)
            Rows of the data set, for each update.
        lr : float
            Learning rate.

        Returns
        -------
        array, shape (K,), or None
            The mean losses before the first K updates, which have been done. None where array
            operations have to do them: then nothing has been changed.
        """
        return self._first(
            ("training", "products", "layers"), lambda kernels: kernels.run(indices, lr)
        )

    def gradient(self, indices: Array) -> tuple[Array, dict[str, Array]] | None:
        """Return the loss of a minibatch, (), and its gradient by each parameter, or None."""

        def action(kernels: Layers) -> tuple[Array, dict[str, Array]]:
            loss = kernels.gradient(indices)
            return loss, dict(zip(self._network.params, kernels.grads, strict=True))

        return self._first(("products", "layers"), action)

    def _first(self, kinds: Iterable[str], action: Callable[[Any], _Result]) -> _Result | None:
        """Return what `action` makes of the first kernels that take the network."""
        for kind in kinds:
            do = functools.partial(self._do, kind, action)
            result = attempt(kind, cuda.device_name(), do)[0]
            if result is not None:
                return result
        return None

    def _do(self, kind: str, action: Callable[[Any], _Result]) -> _Result:
        """Return what `action` makes of kernels, which are compared first if they are new."""
        if kind not in self._made:
            self._made[kind] = None
            kernels = _make(kind, self._network, *self._data)
            compare = functools.partial(_compare, kind, self._network, *self._data)
            prove(kind, cuda.device_name(), kernels.key, compare)
            self._made[kind] = kernels
        if self._made[kind] is None:
            raise UnfitError("it did not take the network before")
        return action(self._made[kind])


def _make(kind: str, network: Network, x: Array, labels: Array, mini_batch_size: int) -> Any:
    activations: Any = [loop_of(layer.forward) for layer in network.layers[1::2]]
    params: Any = tuple(network.params.values())
    data = (x, labels, mini_batch_size)
    if kind != "training":
        return (Products if kind == "products" else Layers)(activations, params, *data)
    if len(activations) != 1:
        raise UnfitError(f"the network has {len(activations)} hidden layers; the kernel takes one")
    return cuda.Training(activations[0], params, *data)


def _compare(kind: str, network: Network, x: Array, labels: Array, mini_batch_size: int) -> None:
    """Raise an error that says what differs between kernels and array operations."""
    data = (x, labels, mini_batch_size)
    numbers = cuda.cupy().arange(_PROOF_UPDATES * mini_batch_size) % len(x)
    rows = numbers.reshape(_PROOF_UPDATES, mini_batch_size)
    moved, desired = copy.deepcopy(network), copy.deepcopy(network)
    kernels, fused = _make(kind, moved, *data), FusedGradient(desired, *data)
    name = network.dtype.name
    tolerance, eps = _TOLERANCE[name], float(np.finfo(name).eps)
    if isinstance(kernels, Layers):
        kernels.gradient(rows[0])
        fused(rows[0])
        for grad, (key, expected) in zip(kernels.grads, fused.grads.items(), strict=True):
            check_near(f"the gradient by {key}", grad, expected, tolerance, eps)
    losses, expected_losses = kernels.run(rows, _PROOF_LR), []
    for k in range(len(losses)):
        expected_losses.append(fused(rows[k], -_PROOF_LR))
        for key, param in desired.params.items():
            param += fused.grads[key]
    for key, start in network.params.items():
        rounding = 2 * len(losses) * eps * float(np.linalg.norm(to_numpy(start)))
        change, expected = (each.params[key] - start for each in (moved, desired))
        check_near(f"the change of {key}", change, expected, tolerance, rounding)
    # Of losses that are nearly 0, no digit need be right.
    check_near("the loss", losses, cuda.cupy().stack(expected_losses), tolerance, tolerance)
