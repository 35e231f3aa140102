"""Many updates in one launch of a CUDA kernel, compared with another way when first used."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.backend import to_numpy
from dlfs_gpu.kernels import cuda
from dlfs_gpu.kernels.host import loop_of
from dlfs_gpu.kernels.proof import UnfitError, attempt, check_near, prove
from dlfs_gpu.network import Network

# Updates that are compared, and by which share of itself each parameter's change may differ.
_PROOF_UPDATES = 3
_TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


def updates_by_kernel(
    network: Network,
    x: Array,
    labels: Array,
    indices: Array,
    lr: float,
    update: Callable[[Network, Array], Array],
) -> Array | None:
    """Do an update by plain SGD for each row of `indices` (kernels/training.cu).

    Parameters
    ----------
    network : Network
        One that is `dlfs_gpu.training.fused.replaceable`, on CuPy arrays.
    x : array, shape (M, I)
    labels : array of int64, shape (M,)
        Data set, checked.
    indices : array of int64, shape (U, mini_batch_size)
        Rows of the data set.
    lr : float
        Learning rate.
    update : callable
        Another way to update a network on one minibatch, (mini_batch_size,), which returns the
        loss.

    Returns
    -------
    array, shape (U,), or None
        The mean loss before each update. None where the other way has to do them: then nothing
        has been changed.
    """
    device = cuda.device_name()

    def kernel(network: Network) -> cuda.Training:
        if len(network.layers) != 3:
            hidden = len(network.layers) // 2
            raise UnfitError(f"the network has {hidden} hidden layers; the kernel takes one")
        activation: Any = loop_of(network.layers[1].forward)
        params: Any = tuple(network.params.values())
        return cuda.Training(activation, params, x, labels, indices.shape[1])

    def compare() -> None:
        some = indices[:_PROOF_UPDATES, ...]
        moved, desired = copy.deepcopy(network), copy.deepcopy(network)
        losses = kernel(moved).run(some, lr)
        expected = namespace_of(losses).stack([update(desired, rows) for rows in some])
        name = network.dtype.name
        tolerance = _TOLERANCE[name]
        for key, start in network.params.items():
            rounding = 2 * len(some) * float(np.finfo(name).eps * np.linalg.norm(to_numpy(start)))
            change, other = (each.params[key] - start for each in (moved, desired))
            check_near(f"the change of {key}", change, other, tolerance, rounding)
        # Of losses that are nearly 0, no digit need be right.
        check_near("the loss", losses, expected, tolerance, tolerance)

    def action() -> Array:
        made = kernel(network)
        prove("training", device, made.key, compare)
        return made.run(indices, lr)

    return attempt("training", device, action)[0]
