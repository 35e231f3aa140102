"""Minibatches of a data set, and the products of the first layer with them.

Where most of the data are 0, compiled loops over the rest take less time than to gather whole rows
and multiply them.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from array_api_compat import is_cupy_array

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import serves_one_thread
from dlfs_gpu.kernels import host
from dlfs_gpu.kernels.proof import UnfitError, attempt, check_near, prove

# Multiplications of a matrix product on one thread that take as long as: to gather a number; all
# that loops do for a number that is not 0, and in it for each output; and calling them. Measured
# for 10 to 512 outputs, and 64 and 784 inputs of which a twentieth to two fifths were not 0.
_GATHERING = 15
_LOOPS, _LOOPS_OUTPUT = 205, 1.75
_CALLS = 270_000
# Bytes that the numbers which are not 0 may take.
_LARGEST_COPY = 2**28
_PROOF_OUTPUTS = 21
_TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


class DenseRows:
    """Minibatches gathered into a buffer, and multiplied by BLAS.

    Parameters
    ----------
    x : array, shape (M, I)
        Data set, in NumPy or CuPy.
    mini_batch_size : int
        N of the minibatches.
    """

    def __init__(self, x: Array, mini_batch_size: int) -> None:
        self.lib: Any = importlib.import_module("cupy") if is_cupy_array(x) else np
        self.x = x
        self.batch = self.lib.empty((mini_batch_size, x.shape[1]), x.dtype)

    def gather(self, indices: Array) -> None:
        """Take the rows of a minibatch, whose indices are in range: NumPy wraps others round."""
        # Without a mode NumPy gathers into a copy first, to leave `out` whole on a bad index.
        mode = {"mode": "wrap"} if self.lib is np else {}
        self.lib.take(self.x, indices, axis=0, out=self.batch, **mode)

    def times(self, W: Array, out: Array) -> None:
        """Write the product of the minibatch, (N, I), with W, (I, J), to `out`."""
        self.lib.matmul(self.batch, W, out=out)

    def transposed_times(self, delta: Array, out: Array) -> None:
        """Write the product of the minibatch, transposed, with `delta`, (N, J), to `out`."""
        self.lib.matmul(self.batch.T, delta, out=out)


class SparseRows:
    """Minibatches of the numbers that are not 0, multiplied by compiled loops.

    They are one thread's, and always come to the same bits.

    Parameters
    ----------
    x : array, shape (M, I)
        Data set, in NumPy.
    mini_batch_size : int
        N of the minibatches.
    outputs : int
        J of the layer.

    Raises
    ------
    UnfitError
        Where there is nothing to gain.
    """

    def __init__(self, x: np.ndarray, mini_batch_size: int, outputs: int) -> None:
        features = x.shape[1]
        if not serves_one_thread((features, outputs), mini_batch_size):
            raise UnfitError("the products are large enough for several threads")
        if max(features, mini_batch_size) > np.iinfo(np.uint16).max:
            raise UnfitError("the columns or rows are too many for 16 bits")
        count, numbers = np.count_nonzero(x), mini_batch_size * features
        by_loops = count / x.size * numbers * (_LOOPS + _LOOPS_OUTPUT * outputs) + _CALLS
        if by_loops > numbers * (_GATHERING + outputs):
            raise UnfitError("too many numbers are not 0")
        if count * (x.itemsize + 2) > _LARGEST_COPY:
            raise UnfitError("the numbers that are not 0 take too much memory")
        self._starts = np.empty(len(x) + 1, np.int64)
        self._columns = np.empty(count + 1, np.uint16)
        self._values = np.empty(count + 1, x.dtype)
        self._call("compress", x, self._starts, self._columns, self._values)
        longest = int(np.max(np.diff(self._starts)))
        self._column_firsts, self._column_lasts = np.empty((2, features), np.int64)
        self._rows = np.empty(mini_batch_size * longest + 1, np.uint16)
        self._sorted_values = np.empty(mini_batch_size * longest + 1, x.dtype)

    def gather(self, indices: np.ndarray) -> None:
        """Find the rows of a minibatch."""
        self._firsts = self._starts[:-1].take(indices)
        self._lasts = self._starts[1:].take(indices)
        self._call(
            "by_columns",
            self._values,
            self._columns,
            self._firsts,
            self._lasts,
            self._column_firsts,
            self._column_lasts,
            self._rows,
            self._sorted_values,
        )

    def times(self, W: np.ndarray, out: np.ndarray) -> None:
        """Write the product of the minibatch, (N, I), with W, (I, J), to `out`."""
        self._call("combine", self._values, self._columns, self._firsts, self._lasts, W, out)

    def transposed_times(self, delta: np.ndarray, out: np.ndarray) -> None:
        """Write the product of the minibatch, transposed, with `delta`, (N, J), to `out`."""
        columns = self._column_firsts, self._column_lasts
        self._call("combine", self._sorted_values, self._rows, *columns, delta, out)

    def _call(self, name: str, *arguments: Any) -> None:
        host.loop(name, arguments)(*arguments)


def sparse_rows(x: Array, mini_batch_size: int, outputs: int) -> SparseRows | None:
    """Return minibatches for compiled loops, which were compared with `DenseRows` at first use.

    Parameters
    ----------
    x, mini_batch_size, outputs
        As for `SparseRows`.

    Returns
    -------
    SparseRows or None
        None where `DenseRows` have to do it.
    """
    if is_cupy_array(x) or not host.is_usable():
        return None

    def action() -> SparseRows:
        rows = SparseRows(x, mini_batch_size, outputs)
        prove("training", "cpu", (x.dtype.name,), lambda: _compare(rows, x, mini_batch_size))
        return rows

    return attempt("training", "cpu", action)[0]


def _compare(rows: SparseRows, x: np.ndarray, mini_batch_size: int) -> None:
    """Raise an error if the products of some minibatch are not those of `DenseRows`."""
    rng = np.random.default_rng(0)
    indices = rng.integers(len(x), size=mini_batch_size)
    factors = [
        rng.standard_normal((n, _PROOF_OUTPUTS)).astype(x.dtype)
        for n in (x.shape[1], mini_batch_size)
    ]
    products = []
    for way in (rows, DenseRows(x, mini_batch_size)):
        W, delta = map(np.empty_like, factors)
        way.gather(indices)
        way.times(factors[0], out=delta)
        way.transposed_times(factors[1], out=W)
        products.append((W, delta))
    for actual, desired in zip(*products, strict=True):
        check_near("a product of the first layer", actual, desired, _TOLERANCE[x.dtype.name], 0)
