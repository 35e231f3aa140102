"""A network's loss and its central differences: by CUDA kernels, or by array operations."""

from __future__ import annotations

import functools
from typing import Any

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.differences.forward import Unfollowed
from dlfs_gpu.differences.launched import Result, loss_and_differences
from dlfs_gpu.differences.stack import difference_gradients, forward_together
from dlfs_gpu.machine.threads import blas_threads
from dlfs_gpu.processes import Processes


def network_differences(
    network: Any,
    x: Array,
    t: Array,
    h: float,
    max_memory: int | None,
    threads: int | None,
    processes: Processes,
) -> Result:
    """Return the loss, weight decay left out, and its differences for each layer's parameters.

    The arguments are those of `dlfs_gpu.Network.numerical_gradient`; x and t are checked. CUDA
    kernels do it for the networks that they take, in a process alone.
    """

    def by_arrays(x: Array, t: Array) -> Result:
        # The pass before is in float64. Rounded, an input of `Relu` that a change takes across the
        # kink would be wrong by a share of the change itself, not of the input; and the slopes of
        # the loss would lose digits where targets are near the predictions.
        xp = namespace_of(x)
        x64 = xp.astype(x, xp.float64, copy=False)
        wide = network.params.replaced(network.params.in_float64())
        with blas_threads(network.sizes, x.shape[0]), wide:
            others = Unfollowed(layers, loss_layer)
            out = network._forward(x64, True, functools.partial(forward_together, processes))
            loss = loss_layer.forward(out, t)
            gradients = difference_gradients(
                layers,
                loss_layer,
                h,
                x.dtype,
                max_memory=max_memory,
                threads=processes.cores if threads is None else threads,
                processes=processes,
            )
            others.add_gradients(gradients, x64, t, h, x.dtype, max_memory, processes)
        return xp.astype(loss, x.dtype, copy=False), gradients

    layers, loss_layer, result = network.layers, network.loss_layer, None
    if processes.comm is None:
        result = loss_and_differences(layers, loss_layer, x, t, h, max_memory, by_arrays)
    return result or by_arrays(x, t)
