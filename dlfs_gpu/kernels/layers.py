"""Backpropagation by launches that follow each other, for networks of any depth and width.

The matrix products are cuBLAS's; what is between them is in layers.cu. `dlfs_gpu.kernels.products`
is faster where they are small.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.kernels.cuda import CTYPES, NULL, check_arrays, cupy, current_device, load

Launch = Callable[[], None]

# Updates that are done at once, and their multiplications: so many tenths of a second.
_MOST_UPDATES, _MOST_PRODUCTS = 100, 2e11
# As in layers.cu.
_COLUMNS, _COLUMN_GROUPS = 8, 64
_LANES = 32
# Threads that share the numbers of a sample.
_ROW_THREADS = 256


class Layers:
    """Backpropagation through layers, with softmax cross entropy behind.

    Parameters
    ----------
    activations : sequence of {"sigmoid", "tanh", "relu"}
        Those behind all layers but the last.
    params : sequence of array
        W and b of each layer.
    x : array, shape (M, I)
    labels : array of int64, shape (M,)
        The data set, already checked.
    mini_batch_size : int

    Attributes
    ----------
    key : tuple
        What the kernels are compiled for.

    Raises
    ------
    UnfitError
        If it does not take these arrays.
    """

    source = "layers.cu"

    def __init__(
        self,
        activations: Sequence[str],
        params: Sequence[Array],
        x: Array,
        labels: Array,
        mini_batch_size: int,
    ) -> None:
        dtype = check_arrays(params, x, labels)
        self._check_sizes(params, mini_batch_size)
        self._ctype, self._activations = CTYPES[dtype.name], activations
        self.key = (self.source, self._ctype, *activations)
        self._params, self._x, self._labels = params, x, labels
        n, empty, widths = mini_batch_size, cupy().empty, [b.size for b in params[1::2]]
        self._outputs = [empty((n, width), dtype) for width in widths]
        self._slopes, deltas = (
            [empty((n, width), dtype) for width in widths[:-1]] for _ in range(2)
        )
        # The scores become the gradient by them.
        self._deltas = [*deltas, self._outputs[-1]]
        self._batch_losses = empty(n, dtype)
        products = 3 * n * sum(W.size for W in params[::2])
        most = max(1, min(_MOST_UPDATES, int(_MOST_PRODUCTS / products)))
        self._rows, self._losses = empty((most, n), np.int64), empty(most, dtype)
        self._counts = empty(2, np.int32)

    def _check_sizes(self, params: Sequence[Array], mini_batch_size: int) -> None:
        """Raise UnfitError if a subclass does not take a network of such sizes."""

    def run(self, indices: Array, lr: float) -> Array:
        """Do the first updates of `indices`, (U, B), in place; return the losses before, (K,).

        How many, depends on how long they take. All that can fail for want of memory or because of
        the arguments does so before the first.
        """
        return self._run(indices, -lr, self._params, add=True)

    def gradient(self, indices: Array) -> Array:
        """Leave the gradient for the samples `indices`, (B,), in `grads`; return the loss, ()."""
        return self._run(indices[None], 1, self.grads, add=False)[0]

    def run_with(self, step: Launch, indices: Array) -> Array:
        """Do what `run` does, but have `step` do the updates by what is in `grads`."""
        return self._run(indices, 1, self.grads, add=False, then=step)

    def _run(
        self,
        indices: Array,
        scale: float,
        targets: Sequence[Array],
        *,
        add: bool,
        then: Launch | None = None,
    ) -> Array:
        count = min(len(indices), len(self._rows))
        self._rows[:count] = indices[:count]
        self._counts.fill(0)
        self._repeat(count, scale, targets, add, then)
        return self._losses[:count].copy()

    def _repeat(
        self, count: int, scale: float, targets: Sequence[Array], add: bool, then: Launch | None
    ) -> None:
        launches = self._launches(scale, targets, add=add)
        if then is not None:
            launches.append(then)
        for _ in range(count):
            for launch in launches:
                launch()

    @functools.cached_property
    def grads(self) -> list[Array]:
        """What `gradient` leaves, as `params`."""
        return list(map(cupy().empty_like, self._params))

    @functools.cached_property
    def _batch(self) -> tuple[Array, Array]:
        """Samples of a minibatch, (N, I), and their labels, (N,)."""
        n = len(self._batch_losses)
        shape = (n, self._x.shape[1])
        return cupy().empty(shape, self._x.dtype), cupy().empty(n, np.int64)

    @functools.cached_property
    def _factors(self) -> np.ndarray:
        """What cuBLAS multiplies a product by: it reads that in the host's memory."""
        return np.array([0, 1], self._x.dtype)

    def _kernel(self, name: str, *template: str) -> Any:
        return load(self.source, (name, self._ctype, *template), current_device().id)

    def _launches(self, scale: float, targets: Sequence[Array], *, add: bool) -> list[Launch]:
        """Return what puts a minibatch's gradient times `scale` into `targets`, or adds it there.

        Which minibatch is next, the device counts itself.
        """
        (batch, labels), deltas, number = self._batch, self._deltas, self._x.dtype.type
        befores = [batch, *self._outputs]
        weights, biases = self._params[::2], self._params[1::2]
        n, last = len(self._batch_losses), len(weights) - 1
        launches: list[Launch] = []

        def by_sample(kernel: Any, threads: int, *arguments: Any) -> None:
            launches.append(functools.partial(kernel, (n,), (threads,), arguments))

        def by_column(k: int, slopes: Any, *of_losses: Any) -> None:
            b = targets[2 * k + 1]
            grid, block = (math.ceil(b.size / _COLUMNS),), (_COLUMNS, _COLUMN_GROUPS)
            sizes = (number(add), np.int32(n), np.int32(b.size))
            arguments = (deltas[k], slopes, b, *of_losses, *sizes)
            launches.append(functools.partial(self._kernel("columns"), grid, block, arguments))

        data = (self._x, self._labels, self._rows)
        fetched = (batch, labels, self._counts, np.int32(batch.shape[1]))
        by_sample(self._kernel("gather"), _ROW_THREADS, *data, *fetched)
        for k, (W, b) in enumerate(zip(weights, biases, strict=True)):
            launches.append(self._product(befores[k], W, self._outputs[k]))
            z, width = (self._outputs[k], b), np.int32(b.size)
            if k < last:
                kernel = self._kernel("activation", self._activations[k].upper())
                by_sample(kernel, _ROW_THREADS, *z, self._slopes[k], width)
            else:
                truth = (labels, self._batch_losses)
                by_sample(self._kernel("softmax"), _LANES, *z, *truth, number(scale), width)
        for k in range(last, -1, -1):
            if k:
                launches.append(self._product(deltas[k], weights[k].T, deltas[k - 1]))
            launches.append(self._product(befores[k].T, deltas[k], targets[2 * k], add=add))
            if k:
                by_column(k - 1, self._slopes[k - 1], NULL, NULL, NULL)
        by_column(last, NULL, self._batch_losses, self._losses, self._counts)
        return launches

    def _product(self, left: Array, right: Array, out: Array, *, add: bool = False) -> Launch:
        """Return what makes ``out = left @ right``, or adds it to what is there.

        Factors are arrays or transposes of such. cuBLAS goes by columns, so to it an array is its
        own transpose: it makes ``out.T = right.T @ left.T``.
        """
        blas = cupy().cuda.cublas
        by_row = [factor.flags.c_contiguous for factor in (right, left)]
        zero, one = (self._factors[k:].ctypes.data for k in (0, 1))
        (m, n), k = out.shape, left.shape[1]
        return functools.partial(
            blas.sgemm if out.dtype == np.float32 else blas.dgemm,
            current_device().cublas_handle,
            *(blas.CUBLAS_OP_N if it_is else blas.CUBLAS_OP_T for it_is in by_row),
            *(n, m, k, one),
            *(right.data.ptr, n if by_row[0] else k),
            *(left.data.ptr, k if by_row[1] else m),
            *(one if add else zero, out.data.ptr, n),
        )
