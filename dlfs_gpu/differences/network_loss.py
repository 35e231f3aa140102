"""Central differences of a network's loss: by following changes, or by evaluating it."""

from __future__ import annotations

import functools
import math
from typing import Any

from dlfs_gpu._validation import ArgumentError, Array, check_memory, namespace_of
from dlfs_gpu.backend import memory_budget
from dlfs_gpu.differences.forward import Unfollowed
from dlfs_gpu.differences.launched import Result, loss_and_differences
from dlfs_gpu.differences.stack import difference_gradients, forward_together
from dlfs_gpu.gradient import numerical_gradient
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
    layers, loss_layer = network.layers, network.loss_layer

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

    result = None
    if processes.comm is None:
        result = loss_and_differences(layers, loss_layer, x, t, h, max_memory, by_arrays)
    return result or by_arrays(x, t)


def evaluated_differences(
    network: Any,
    key: str,
    x: Array,
    t: Array,
    h: float | None,
    method: Any,
    max_memory: int | None,
    progress: bool,
    processes: Processes,
) -> Array:
    """Return differences of the loss, weight decay left out, for the parameter `key`.

    The other arguments, and what is raised, are those of `dlfs_gpu.Network.numerical_gradient`; x
    and t are checked.
    """
    param = network.params[key]
    budget = None
    if method == "batched":
        # A copy of the parameter comes with all the layers' outputs for it.
        own, outputs = math.prod(param.shape), 3 * x.shape[0] * sum(network.sizes[1:])
        # One decides, because free memory may differ.
        budget = processes.from_root(lambda: memory_budget(param, max_memory))
        needed = (own + outputs) * namespace_of(x).finfo(x.dtype).bits // 8
        check_memory(budget, needed, f"one moved copy of {key}")
        budget = budget * own // (own + outputs)

    def loss(moved: Array) -> Array:
        with network.params.replaced({key: moved}):
            return network.loss_layer.forward(network._forward(x, training=True), t)

    options: Any = {"max_memory": budget, "progress": progress, "comm": processes.comm}
    try:
        return numerical_gradient(loss, param, h, method=method, **options)
    except ArgumentError as error:
        # What is x there is the parameter here, and f the network.
        argument = {"x": key, "f": "network"}.get(error.argument, error.argument)
        raise ArgumentError(argument, error.problem.replace("x[", f"{key}[")) from error
