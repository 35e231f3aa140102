"""What compiled loops do of `dlfs_gpu.training.fused`'s work.

Where most of the data are 0, the products of the first layer: to go through the rest takes less
time than to gather whole rows and multiply them. Where the scores of a minibatch are few, softmax
and loss, which are many array operations.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from array_api_compat import is_cupy_array

from dlfs_gpu._validation import Array
from dlfs_gpu.kernels import host, training_loops
from dlfs_gpu.kernels.proof import UnfitError, attempt, check_near, prove
from dlfs_gpu.losses import SoftmaxWithLoss
from dlfs_gpu.machine.threads import serves_one_thread
from dlfs_gpu.training.fused import DenseRows, Parts, Softmax

# In the time of one multiplication of a matrix product on one thread: to gather a number; all that
# loops do for a number that is not 0, at least, and for wide layers; and to call them. Measured for
# 10 to 512 outputs of 64 and 784 inputs, of which a twentieth to two fifths were not 0.
_GATHERING = 15
_LOOPS, _WIDE_LOOPS, _OUTPUT = 215, 120, 2.1
_CALLS = 150_000
_SOME_ROWS = 1000  # that stand for all when their zeros are counted
# Bytes that the numbers which are not 0 may take.
_LARGEST_COPY = 2**28
# Scores of a minibatch above which array operations, whose exponentials are vectorised, gain.
_MOST_SCORES = 4096
# Bytes of the vectors that `dlfs_gpu.kernels.vectors` adds faster.
_NARROWEST, _WIDEST = 128, 1024
_TOLERANCE = {"float32": 1e-5, "float64": 1e-13}

_Part = TypeVar("_Part")


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
        some = x[:: max(1, len(x) // _SOME_ROWS)]
        share, numbers = np.count_nonzero(some) / some.size, mini_batch_size * features
        each = max(_LOOPS, _WIDE_LOOPS + _OUTPUT * outputs)
        if share * numbers * each + _CALLS > numbers * (_GATHERING + outputs):
            raise UnfitError("too many numbers are not 0")
        count = np.count_nonzero(x)
        if count * (x.itemsize + 2) > _LARGEST_COPY:
            raise UnfitError("the numbers that are not 0 take too much memory")
        self._starts = np.empty(len(x) + 1, np.int64)
        self._columns = np.empty(count + 1, np.uint16)
        self._values = np.empty(count + 1, x.dtype)
        _call(training_loops.compress, x, self._starts, self._columns, self._values)
        longest = int(np.max(np.diff(self._starts)))
        self._column_firsts, self._column_lasts = np.empty((2, features), np.int64)
        self._rows = np.empty(mini_batch_size * longest + 1, np.uint16)
        self._sorted_values = np.empty(mini_batch_size * longest + 1, x.dtype)

    def gather(self, indices: np.ndarray) -> None:
        """Find the rows of a minibatch."""
        self._firsts = self._starts[:-1].take(indices)
        self._lasts = self._starts[1:].take(indices)
        _call(
            training_loops.by_columns,
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
        _combine(self._values, self._columns, self._firsts, self._lasts, W, out)

    def transposed_times(self, delta: np.ndarray, out: np.ndarray) -> None:
        """Write the product of the minibatch, transposed, with `delta`, (N, J), to `out`."""
        columns = self._column_firsts, self._column_lasts
        _combine(self._sorted_values, self._rows, *columns, delta, out)


def compiled_parts(x: Array, mini_batch_size: int, sizes: Sequence[int]) -> Parts:
    """Return what loops do of an update; they were compared with array code at their first use.

    Parameters
    ----------
    x : array, shape (M, I)
        Data set.
    mini_batch_size : int
    sizes : sequence of int
        Of the network, which is `dlfs_gpu.training.fused.replaceable`.
    """
    if is_cupy_array(x) or not host.is_usable():
        return Parts()
    dtype, outputs = x.dtype, sizes[1]

    def rows() -> SparseRows:
        made = SparseRows(x, mini_batch_size, outputs)
        key = "rows", dtype.name, outputs
        prove("training", "cpu", key, lambda: _compare_rows(made, x, mini_batch_size, outputs))
        return made

    def softmax() -> Softmax:
        if mini_batch_size * sizes[-1] > _MOST_SCORES:
            raise UnfitError("the scores are many")
        prove("training", "cpu", ("softmax", dtype.name), lambda: _compare_softmax(dtype))
        return _softmax

    parts, _ = attempt("training", "cpu", lambda: Parts(_if_fit(rows), _if_fit(softmax)))
    return parts or Parts()


def _if_fit(make: Callable[[], _Part]) -> _Part | None:
    try:
        return make()
    except UnfitError:
        return None


def _softmax(scores: np.ndarray, labels: np.ndarray, scale: float) -> np.ndarray:
    loss = np.empty((), scores.dtype)
    _call(training_loops.softmax, scores, labels, float(scale), loss)
    return loss


def _combine(*arguments: np.ndarray) -> None:
    """Call the faster of two loops for vectors of such a length."""
    *_, vectors, out = arguments
    combine = training_loops.combine
    contiguous = vectors.flags.c_contiguous and out.flags.c_contiguous
    if contiguous and _NARROWEST <= vectors[0].nbytes <= _WIDEST:
        combine = importlib.import_module("dlfs_gpu.kernels.vectors").combine_narrow
    _call(combine, *arguments)


def _call(function: Callable[..., None], *arguments: Any) -> None:
    host.loop(function, arguments)(*arguments)


def _compare_rows(rows: SparseRows, x: np.ndarray, mini_batch_size: int, outputs: int) -> None:
    """Raise an error if the products of some minibatch are not those of `DenseRows`."""
    rng = np.random.default_rng(0)
    indices = rng.integers(len(x), size=mini_batch_size)
    shapes = [(n, outputs) for n in (x.shape[1], mini_batch_size)]
    W, delta = (rng.standard_normal(shape).astype(x.dtype) for shape in shapes)
    products = []
    for way in (rows, DenseRows(x, mini_batch_size)):
        out, grad = np.empty_like(delta), np.empty_like(W)
        way.gather(indices)
        way.times(W, out)
        way.transposed_times(delta, grad)
        products.append((out, grad))
    for actual, desired in zip(*products, strict=True):
        check_near("a product of the first layer", actual, desired, _TOLERANCE[x.dtype.name], 0)


def _compare_softmax(dtype: np.dtype) -> None:
    """Raise an error if loss or gradient of some scores are not those of the loss layer."""
    rng = np.random.default_rng(0)
    scores = (4 * rng.standard_normal((8, 5))).astype(dtype)
    labels = rng.integers(5, size=8)
    layer = SoftmaxWithLoss()
    loss = layer.forward(scores, labels)
    ours = _softmax(scores, labels, 1.0)
    check_near("the loss", ours, loss, _TOLERANCE[dtype.name], 0)
    check_near("the loss's gradient", scores, layer.backward(), _TOLERANCE[dtype.name], 0)
