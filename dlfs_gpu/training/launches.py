"""Updates by CUDA kernels, compared with array operations when first used."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import to_numpy
from dlfs_gpu.kernels import cuda
from dlfs_gpu.kernels.host import loop_of
from dlfs_gpu.kernels.layers import Layers
from dlfs_gpu.kernels.proof import UnfitError, attempt, check_near, prove
from dlfs_gpu.network import Network
from dlfs_gpu.training.fused import FusedGradient

# Updates that are compared, and by which share of itself each parameter's change may differ.
_PROOF_UPDATES, _PROOF_LR = 3, 0.1
_TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
# Training can be stopped after so many updates at most that take several launches each, and so many
# operations: tenths of a second.
_MOST_UPDATES, _MOST_OPERATIONS = 100, 1e12

_Result = TypeVar("_Result")


def updates_by_kernels(
    network: Network, x: Array, labels: Array, indices: Array, lr: float
) -> Array | None:
    """Do updates by plain SGD: all in one launch where a kernel does that, or else some.

    Parameters
    ----------
    network : Network
        One that is `dlfs_gpu.training.fused.replaceable`, on CuPy arrays.
    x : array, shape (M, I)
    labels : array of int64, shape (M,)
        Data set, checked.
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
    losses = _attempt("training", network, x, labels, indices, lambda made: made.run(indices, lr))
    if losses is None:
        operations = 6 * indices.shape[1] * sum(param.size for param in network.params.values())
        some = max(1, min(_MOST_UPDATES, int(_MOST_OPERATIONS / operations)))
        rows = indices[:some, ...]
        losses = _attempt("layers", network, x, labels, rows, lambda made: made.run(rows, lr))
    return losses


class LaunchedGradient:
    """What `FusedGradient` does, by kernels; with the same attributes.

    Parameters
    ----------
    network : Network
    kernels : Layers
        Made for its layers and parameters.
    """

    def __init__(self, network: Network, kernels: Layers) -> None:
        self.layers = list(network.layers)
        self.grads = {key: cuda.cupy().empty_like(param) for key, param in network.params.items()}
        self._kernels = kernels
        self._params = list(network.params.values())

    def __call__(self, indices: Array, scale: float = 1.0) -> Array:
        """Return the loss of a minibatch, (), and leave its gradient, times `scale`, in `grads`."""
        return self._kernels.gradient(indices, scale, list(self.grads.values()))

    def suits(self, network: Network) -> bool:
        """Say whether it is of these layers and parameters."""
        params = network.params.values()
        return self.layers == network.layers and all(map(operator.is_, self._params, params))


def launched_gradient(
    network: Network, x: Array, labels: Array, mini_batch_size: int
) -> LaunchedGradient | None:
    """Return the gradient by kernels of a network as `updates_by_kernels` takes, or None."""
    rows = cuda.cupy().arange(mini_batch_size)[None] % x.shape[0]
    return _attempt(
        "layers", network, x, labels, rows, lambda made: LaunchedGradient(network, made)
    )


def _attempt(
    kind: Literal["training", "layers"],
    network: Network,
    x: Array,
    labels: Array,
    indices: Array,
    action: Callable[[Any], _Result],
) -> _Result | None:
    """Return what `action` makes of kernels that were compared with array operations, or None."""
    device = cuda.device_name()
    some = indices[:_PROOF_UPDATES, ...]

    def kernels(network: Network) -> cuda.Training | Layers:
        activations: Any = [loop_of(layer.forward) for layer in network.layers[1::2]]
        params: Any = tuple(network.params.values())
        if kind == "layers":
            return Layers(activations, params, x, labels, indices.shape[1])
        if len(activations) != 1:
            raise UnfitError(f"the network has {len(activations)} hidden layers, not one")
        return cuda.Training(activations[0], params, x, labels, indices.shape[1])

    def compare() -> None:
        moved, desired = copy.deepcopy(network), copy.deepcopy(network)
        losses = kernels(moved).run(some, _PROOF_LR)
        gradient = FusedGradient(desired, x, labels, indices.shape[1])
        expected = []
        for rows in some:
            expected.append(gradient(rows, -_PROOF_LR))
            for key, param in desired.params.items():
                param += gradient.grads[key]
        name = network.dtype.name
        tolerance = _TOLERANCE[name]
        for key, start in network.params.items():
            rounding = 2 * len(some) * float(np.finfo(name).eps * np.linalg.norm(to_numpy(start)))
            change, other = (each.params[key] - start for each in (moved, desired))
            check_near(f"the change of {key}", change, other, tolerance, rounding)
        # Of losses that are nearly 0, no digit need be right.
        check_near("the loss", losses, cuda.cupy().stack(expected), tolerance, tolerance)

    def proven() -> _Result:
        made = kernels(network)
        prove(kind, device, made.key, compare)
        return action(made)

    return attempt(kind, device, proven)[0]
