"""The parameters of a stack of layers, under the book's names: W1, b1, W2, ..."""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from array_api_compat import is_cupy_array, is_numpy_array

from dlfs_gpu._validation import ArgumentError, Array, array_namespace, as_float


class Parameters(MutableMapping[str, Array]):
    """A view of the parameters that layers own.

    A layer's parameters get its number: of the layers that have a W the first has W1, the next W2.
    What is put here is put into the layer; keys cannot be added or deleted.

    Parameters
    ----------
    layers : sequence
        Those without ``params`` are passed over.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = layers
        self._places: dict[str, tuple[int, str]] = {}
        used: defaultdict[str, int] = defaultdict(int)
        for position, layer in enumerate(layers):
            if getattr(layer, "params", None):
                number = 1 + max(used[name] for name in layer.params)
                for name in layer.params:
                    used[name] = number
                    self._places[f"{name}{number}"] = position, name

    def __getitem__(self, key: str) -> Array:
        position, name = self._places[key]
        return self._layers[position].params[name]

    def __setitem__(self, key: str, array: Array) -> None:
        if key not in self._places:
            raise KeyError(f"{key!r} is none of the parameters {', '.join(self)}")
        if array is self[key]:
            return  # as params[key] -= step ends
        array = as_float(array, key)
        array_namespace(**{key: array, "the parameter that it replaces": self[key]})
        if tuple(array.shape) != tuple(self[key].shape):
            raise ArgumentError(
                key, f"has shape {tuple(array.shape)}; it must be {tuple(self[key].shape)}"
            )
        others = {name: param for name, param in self.items() if name != key}
        refuse_shared_memory(others | {key: array})
        self._put({key: array})

    def __delitem__(self, key: str) -> None:
        raise TypeError("parameters cannot be deleted: their layers need them")

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        arrays = (f"{key}: {x.dtype} {tuple(x.shape)}" for key, x in self.items())
        return f"Parameters({', '.join(arrays)})"

    def in_float64(self) -> dict[str, Array]:
        """Return the arrays in float64; those that are so already, themselves."""
        xp = array_namespace(**self)
        return {key: xp.astype(param, xp.float64, copy=False) for key, param in self.items()}

    def collect(self, gradients: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        """Return the gradients of each layer, in order, under the keys that parameters have here.

        Raises
        ------
        TypeError
            If one is missing, as where a layer's ``backward`` has not set it.
        """
        result = {}
        for key, (position, name) in self._places.items():
            if name not in gradients[position]:
                layer = type(self._layers[position]).__name__
                raise TypeError(f"{layer}.backward has set no grads[{name!r}]")
            result[key] = gradients[position][name]
        return result

    @contextlib.contextmanager
    def replaced(self, arrays: Mapping[str, Array]) -> Iterator[None]:
        """Give the layers other arrays, of any shape and type, inside a ``with`` block."""
        own = {key: self[key] for key in arrays}
        try:
            self._put(arrays)
            yield
        finally:
            self._put(own)

    def _put(self, arrays: Mapping[str, Array]) -> None:
        for key, array in arrays.items():
            position, name = self._places[key]
            self._layers[position].params[name] = array


def lasting(layers: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what each layer keeps from one pass to the next beside parameters.

    Raises
    ------
    ArgumentError
        If a layer draws at random, and does not say from what.
    """
    for layer in layers:
        if not getattr(layer, "frozen", True) and not hasattr(layer, "lasting"):
            raise ArgumentError(
                "network",
                f"has {type(layer).__name__}, which draws at random; its attribute `lasting` must "
                "name the generator, so that other processes, and resumed trainings, draw the same",
            )
    return [
        {name: getattr(layer, name) for name in getattr(layer, "lasting", ())} for layer in layers
    ]


def refuse_shared_memory(arrays: Mapping[str, Array]) -> None:
    """Raise ArgumentError if two of the arrays hold the same memory.

    Moving one would move the other.
    """
    for (first, a), (second, b) in itertools.combinations(arrays.items(), 2):
        if _share_memory(a, b):
            raise ArgumentError(second, f"shares memory with {first}; each must have its own")


def _share_memory(a: Array, b: Array) -> bool:
    if is_numpy_array(a) and is_numpy_array(b):
        return bool(np.shares_memory(a, b))
    if is_cupy_array(a) and is_cupy_array(b):
        return bool(importlib.import_module("cupy").shares_memory(a, b))
    return a is b


def check_together(params: Mapping[str, Array]) -> None:
    """Raise ArgumentError if two parameters share memory, TypeError if their types differ."""
    refuse_shared_memory(params)
    (first, like), *others = params.items()
    for key, param in others:
        if param.dtype != like.dtype:
            raise TypeError(
                f"{first} has the type {like.dtype} and {key} {param.dtype}; all must have the same"
            )


def has_weights(layer: Any) -> bool:
    """Say whether a layer has a matrix W."""
    return getattr(getattr(layer, "params", {}).get("W"), "ndim", 0) == 2
