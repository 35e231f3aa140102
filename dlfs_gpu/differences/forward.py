"""Gradients of parameters whose changes the layers' `difference` cannot follow.

A layer without a `difference`, such as one of the user's own, has its ``forward``: called with an
array that carries changes (`dlfs_gpu.differences.array`) it gives those of its output.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.differences.perturbation import difference_gradient
from dlfs_gpu.differences.stack import followed
from dlfs_gpu.processes import ALONE, Processes


class Unfollowed:
    """The layers of a network that are not `followed`, as they are before a pass of training.

    They are copied for each evaluation, so that what a forward pass keeps or draws at random it
    does as that pass does it, and leaves nothing behind.

    Parameters
    ----------
    layers, loss
        All layers, and the loss behind them.
    """

    def __init__(self, layers: Sequence[Any], loss: Any) -> None:
        self._positions = [
            position
            for position, is_followed in enumerate(followed(layers, loss))
            if getattr(layers[position], "params", None) and not is_followed
        ]
        if self._positions:
            self._layers, self._loss = _copied(layers, loss)
            for layer in self._layers:
                if hasattr(layer, "train_flg"):
                    layer.train_flg = True

    def add_gradients(
        self,
        gradients: list[dict[str, Array]],
        x: Array,
        t: Array,
        h: float,
        dtype: Any,
        max_memory: int | None = None,
        processes: Processes = ALONE,
    ) -> None:
        """Put central differences of the loss for their parameters into a list with one dict each.

        Parameters
        ----------
        gradients : list of dict
            One for each layer of the network.
        x, t : array
            Batch and targets.
        h : float
            Step, rounded to the type of the parameters.
        dtype : dtype
            Type of the gradients.
        max_memory : int, optional
            Bytes for changes; see `dlfs_gpu.backend.memory_budget`.
        processes : Processes
            They share the work.

        Raises
        ------
        ArgumentError, TypeError
            As `dlfs_gpu.differences.perturbation.difference_gradient`, with a note that names the
            layer.
        """
        for position in self._positions:
            layers, loss = _copied(self._layers, self._loss)
            out = x
            for layer in layers[:position]:
                out = layer.forward(out)
            for name, param in layers[position].params.items():
                value = functools.partial(_loss_of, layers, loss, position, name, out, t)
                gradient = difference_gradient(
                    value, param, h, "central", max_memory, processes=processes
                )
                gradients[position][name] = namespace_of(param).astype(gradient, dtype)


def _loss_of(
    layers: list[Any], loss: Any, position: int, name: str, x: Array, t: Array, param: Array
) -> Array:
    """Return the loss for another array as a layer's parameter, given what reaches the layer."""
    layers, loss = _copied(layers, loss)
    layers[position].params[name] = param
    for layer in layers[position:]:
        x = _forward(layer, x)
    return _forward(loss, x, t)


def _copied(layers: Sequence[Any], loss: Any) -> tuple[list[Any], Any]:
    """Return copies of layers and loss, together because they may share a generator."""
    params = [param for layer in layers for param in getattr(layer, "params", {}).values()]
    # Parameters are not written into: the copies have the same.
    return copy.deepcopy((list(layers), loss), {id(param): param for param in params})


def _forward(layer: Any, *args: Array) -> Array:
    try:
        return layer.forward(*args)
    except TypeError as error:
        error.add_note(f"This was in {type(layer).__name__}.forward.")
        raise
