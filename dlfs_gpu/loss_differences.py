"""Central differences of a network's loss by evaluating it: one moved copy at a time, or many."""

from __future__ import annotations

import math
from typing import Any

from dlfs_gpu._validation import ArgumentError, Array, namespace_of
from dlfs_gpu.backend import memory_budget
from dlfs_gpu.gradient import numerical_gradient
from dlfs_gpu.processes import Processes


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
        budget = memory_budget(param, max_memory)
        needed = (own + outputs) * namespace_of(x).finfo(x.dtype).bits // 8
        if budget < needed:
            raise ArgumentError(
                "max_memory", f"is {budget} bytes; one moved copy of {key} takes {needed}"
            )
        budget = budget * own // (own + outputs)

    def loss(moved: Array) -> Array:
        with network.params.replaced({key: moved}):
            return network.loss_layer.forward(network._forward(x, training=True), t)

    return numerical_gradient(
        loss,
        param,
        h,
        method=method,
        max_memory=budget,
        progress=progress,
        comm=processes.comm,
    )
