"""Backpropagation by launches on a GPU that follow each other: no limits of depth or width."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.kernels.cuda import CTYPES, NULL, check_arrays, cupy, current_device, load

# As in layers.cu.
_COLUMNS, _COLUMN_GROUPS = 8, 64
_LANES = 32
# Threads that share the numbers of a sample.
_ROW_THREADS = 256


class Layers:
    """Backpropagation through any number of layers: products by cuBLAS, the rest by layers.cu.

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
        What the kernels were compiled for.

    Raises
    ------
    UnfitError
        If it does not take these arrays.
    """

    def __init__(
        self,
        activations: Sequence[str],
        params: Sequence[Array],
        x: Array,
        labels: Array,
        mini_batch_size: int,
    ) -> None:
        dtype = check_arrays(params, x, labels)
        ctype, empty = CTYPES[dtype.name], cupy().empty
        self.key = ("layers", ctype, *activations)
        kernels = ["gather"], ["softmax"], ["columns"], *(["activation", a] for a in activations)
        self._gather, self._softmax, self._columns, *self._activations = (
            load("layers.cu", (name, ctype, *map(str.upper, rest)), current_device().id)
            for name, *rest in kernels
        )
        self._params, self._x, self._labels = params, x, labels
        n, widths = mini_batch_size, [b.size for b in params[1::2]]
        self._outputs = [empty((n, width), dtype) for width in (x.shape[1], *widths)]
        self._slopes, deltas = (
            [empty((n, width), dtype) for width in widths[:-1]] for _ in range(2)
        )
        # The scores become the gradient by them.
        self._deltas = [*deltas, self._outputs[-1]]
        self._batch_labels, self._batch_losses = empty(n, np.int64), empty(n, dtype)
        # cuBLAS reads the factors of a product in the host's memory.
        self._factors = np.array([0, 1], dtype)

    def run(self, indices: Array, lr: float) -> Array:
        """Do one update in place for each row of `indices`, (U, B); return the losses before, (U,).

        All that can fail for want of memory or because of the arguments does so before the first.
        """
        return self._run(indices, -lr, self._params, add=True)

    def gradient(self, indices: Array, scale: float, grads: Sequence[Array]) -> Array:
        """Leave the gradient times `scale` in `grads`, one for each parameter; return the loss, ().

        Parameters
        ----------
        indices : array of int64, shape (B,)
        """
        return self._run(indices[None], scale, grads, add=False)[0]

    def _run(self, indices: Array, scale: float, targets: Sequence[Array], *, add: bool) -> Array:
        indices = cupy().ascontiguousarray(indices, np.int64)
        losses = cupy().empty(len(indices), self._x.dtype)
        launches = self._launches(indices, losses, scale, targets, add=add)
        for _ in range(len(indices)):
            for launch in launches:
                launch()
        return losses

    def _launches(
        self, indices: Array, losses: Array, scale: float, targets: Sequence[Array], *, add: bool
    ) -> list[Callable[[], None]]:
        """Return what does the next minibatch: the device counts those that are done."""
        outputs, deltas, number = self._outputs, self._deltas, self._x.dtype.type
        weights, biases = self._params[::2], self._params[1::2]
        n, last, done = len(self._batch_losses), len(weights) - 1, cupy().zeros(1, np.int32)
        launches: list[Callable[[], None]] = []

        def by_sample(kernel: Any, threads: int, *arguments: Any) -> None:
            launches.append(functools.partial(kernel, (n,), (threads,), arguments))

        def by_column(k: int, slopes: Any, *of_losses: Any) -> None:
            b = targets[2 * k + 1]
            grid, block = (math.ceil(b.size / _COLUMNS),), (_COLUMNS, _COLUMN_GROUPS)
            sizes = (number(add), np.int32(n), np.int32(b.size))
            arguments = (deltas[k], slopes, b, *of_losses, *sizes)
            launches.append(functools.partial(self._columns, grid, block, arguments))

        batch = (outputs[0], self._batch_labels, done, np.int32(self._x.shape[1]))
        by_sample(self._gather, _ROW_THREADS, self._x, self._labels, indices, *batch)
        for k, (W, b) in enumerate(zip(weights, biases, strict=True)):
            launches.append(self._product(outputs[k], W, outputs[k + 1]))
            z, width = (outputs[k + 1], b), np.int32(b.size)
            if k < last:
                by_sample(self._activations[k], _ROW_THREADS, *z, self._slopes[k], width)
            else:
                truth = (self._batch_labels, self._batch_losses)
                by_sample(self._softmax, _LANES, *z, *truth, number(scale), width)
        for k in range(last, -1, -1):
            if k:
                launches.append(self._product(deltas[k], weights[k].T, deltas[k - 1]))
            launches.append(self._product(outputs[k].T, deltas[k], targets[2 * k], add=add))
            if k:
                by_column(k - 1, self._slopes[k - 1], NULL, NULL, NULL)
        by_column(last, NULL, self._batch_losses, losses, done)
        return launches

    def _product(
        self, left: Array, right: Array, out: Array, *, add: bool = False
    ) -> Callable[[], None]:
        """Return what makes ``out = left @ right``, or adds it to what is there.

        Factors are arrays or transposes of such. cuBLAS goes by columns, so to it an array is its
        own transpose: it makes ``out.T = right.T @ left.T``.
        """
        blas = cupy().cuda.cublas
        rows = [factor.flags.c_contiguous for factor in (right, left)]
        zero, one = (self._factors[k:].ctypes.data for k in (0, 1))
        (m, n), k = out.shape, left.shape[1]
        return functools.partial(
            blas.sgemm if out.dtype == np.float32 else blas.dgemm,
            current_device().cublas_handle,
            *(blas.CUBLAS_OP_N if by_row else blas.CUBLAS_OP_T for by_row in rows),
            *(n, m, k, one),
            *(right.data.ptr, n if rows[0] else k),
            *(left.data.ptr, k if rows[1] else m),
            *(one if add else zero, out.data.ptr, n),
        )
