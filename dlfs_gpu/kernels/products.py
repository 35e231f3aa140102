"""Backpropagation through layers whose products are small, by as few launches as can be."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.kernels.cuda import NULL, check_at_most, cupy
from dlfs_gpu.kernels.layers import Launch, Layers

# Multiplications of a product up to which an H100 is faster by this than by cuBLAS.
_MOST_MULTIPLICATIONS = {"float32": 120_000_000, "float64": 50_000_000}
# Tiles of a result that keep a device busy with few warps each.
_MANY_TILES = 256
# As in products.cu.
_ROWS, _COLUMNS = 16, 32
# Updates that CUDA replays at once.
_GRAPH = 10


class Products(Layers):
    """Backpropagation by products.cu, which CUDA replays from graphs, as launching takes longer.

    Parameters and attributes are those of `Layers`.

    Raises
    ------
    UnfitError
        If it does not take these arrays, or a product is too large, or classes are too many.
    """

    source = "products.cu"

    _graph: tuple[Any, Any] = (None, None)

    def _check_sizes(self, params: Sequence[Array], mini_batch_size: int) -> None:
        check_at_most(_COLUMNS, params[-1].size, "classes")
        largest = mini_batch_size * max(W.size for W in params[::2])
        most = _MOST_MULTIPLICATIONS[params[0].dtype.name]
        check_at_most(most, largest, "multiplications in a product")

    def _repeat(
        self, count: int, scale: float, targets: Sequence[Array], add: bool, then: Launch | None
    ) -> None:
        updates = _GRAPH if add else 1
        graphs, rest = divmod(count, updates)
        if graphs:
            key = (scale, add)
            if self._graph[0] != key:
                self._graph = (key, _record(self._launches(scale, targets, add=add) * updates))
            for _ in range(graphs):
                self._graph[1].launch()
                if then is not None:
                    then()
        if rest:
            for launch in self._launches(scale, targets, add=add) * rest:
                launch()

    def _launches(self, scale: float, targets: Sequence[Array], *, add: bool) -> list[Launch]:
        deltas, rows, counts = self._deltas, self._rows, self._counts
        befores, slopes = [self._x, *self._outputs[:-1]], self._slopes
        samples, last = len(self._batch_losses), len(deltas) - 1
        launches: list[Launch] = []

        def launch(
            k: int, rows: int, columns: int, depth: int, kernel: str, *arguments: Any
        ) -> None:
            """Add a launch for layer k, with a block for each tile of a result."""
            grid = (math.ceil(columns / _COLUMNS), math.ceil(rows / _ROWS))
            warps = _warps(self._ctype, grid[0] * grid[1], depth)
            name, *activation = kernel.split()
            made = self._kernel(name, str(warps), *activation)
            sizes = map(np.int32, (samples, *self._params[2 * k].shape))
            launches.append(functools.partial(made, grid, (32 * warps,), (*arguments, *sizes)))

        for k in range(last):
            W, b = self._params[2 * k : 2 * k + 2]
            activation = f"forward {self._activations[k].upper()}"
            lookup = NULL if k else rows
            out = (self._outputs[k], slopes[k])
            launch(k, samples, b.size, len(W), activation, befores[k], lookup, counts, W, b, *out)
        W, b = self._params[-2:]
        data = (befores[last], np.int32(last == 0), rows, counts, self._labels)
        losses = (self._batch_losses, self._x.dtype.type(scale))
        launch(last, samples, b.size, len(W), "last", *data, W, b, deltas[last], *losses)
        for k in range(last, -1, -1):
            if k:
                W, slope, delta = self._params[2 * k], slopes[k - 1], deltas[k - 1]
                launch(k, samples, len(W), W.shape[1], "back", deltas[k], W, slope, delta)
            W, b = targets[2 * k : 2 * k + 2]
            lookup = NULL if k else rows
            kept = (self._batch_losses, self._losses, np.int32(add))
            pair = (befores[k], lookup, counts, deltas[k])
            launch(k, len(W) + 1, b.size, samples, "weights", *pair, W, b, *kept)
        return launches


def _warps(ctype: str, tiles: int, depth: int) -> int:
    """Return how many warps share the depth of a tile: more where they have a device to fill."""
    most = (16 if tiles <= _MANY_TILES else 8) // (1 if ctype == "float" else 2)
    return most if depth > 16 else 4


def _record(launches: Sequence[Launch]) -> Any:
    """Return a graph of launches, which are not carried out yet."""
    stream = cupy().cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            for launch in launches:
                launch()
        finally:
            graph = stream.end_capture()
    return graph
