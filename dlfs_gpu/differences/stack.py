"""The gradient of a stack of layers by central differences, through the layers' `difference`.

Moving weight W[i, j] of an `Affine` layer by h moves output j of that layer by h·x[n, i] for each
sample n, and no other output: not at all where the input is 0, and alike where inputs are equal.
So all changes that can happen are known from one array. For x of shape (N, I), with J outputs and
C classes behind:

1. d = h·x and a column of h for the bias, (N, I + 1): what any one output may change by.
2. Through the activation these are changes of output j *alone*, (N, J, I + 1), since each output
   has a base of its own.
3. The next `Affine` *spreads* each out over all its outputs, (N, C, J·(I + 1)), and the layers
   behind take them together.
4. The loss makes one number of each, (N, J·(I + 1)): L(+d) − L(−d). Summed over samples and
   divided by 2hN they are dW and db.

Where the loss follows the next `Affine` at once, the scores move along a *line*: by s·W[j, :] for
a number s, the change of output j. A loss that can tell how it changes along lines (`line_base`)
is asked that, and nothing is spread out: J·(I + 1) numbers for each sample and no more.

Steps 2 to 4 are taken for as many samples, columns j and changes at once as memory allows.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.backend import memory_budget, run_in_chunks
from dlfs_gpu.layers import Affine

# Numbers in the widest array of a step on the CPU, along a line and spread out: few enough for a
# core's cache, enough to make a NumPy call worth its overhead. Fixed, whatever the budget and the
# threads, because BLAS may round differently for another shape.
_LINE_STEP = 2**16
_SPREAD_STEP = 2**18
# Arrays as wide as that alive at once.
_LIVE_ARRAYS = 4
# Columns that one task on the CPU takes, and tasks to make at least, so that threads share evenly.
_TASK_COLUMNS = 64
_MIN_TASKS = 8

_Places = tuple[np.ndarray, np.ndarray]
"""Where a row is not zero, and which of its distinct values is there."""
_Task = tuple[list[np.ndarray], slice]
"""Groups of samples, and columns."""


def difference_gradients(
    layers: Sequence[Any],
    loss: Any,
    h: float,
    *,
    max_memory: int | None = None,
    threads: int | None = None,
) -> list[tuple[Array, Array]]:
    """Return central differences of the loss for the parameters of each `Affine` layer, in order.

    Parameters
    ----------
    layers, loss
        Layers and the loss behind them, just after ``forward`` with the batch in question. What
        they keep of it may be of a wider type than the parameters, and is rounded to theirs.
    h : float
        Step; the difference is of exactly 2h, as no weight is rounded.
    max_memory : int, optional
        Bytes that may be used for changes in flight; see `dlfs_gpu.backend.memory_budget`.
    threads : int, optional
        Threads on the CPU where changes are spread out; one for each core by default. They do not
        change the result.

    Returns
    -------
    list of (dW, db)
        Of the shapes and types of the parameters; sums over samples are taken in float64.

    Raises
    ------
    TypeError
        If a layer has no `difference`.
    ValueError
        If `max_memory` is too small for one block, or `threads` is not positive.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; it must be 1 or more")
    for layer in (*layers, loss):
        if not (hasattr(layer, "difference") and hasattr(layer, "base")):
            raise TypeError(
                f"the layer {type(layer).__name__} has no difference and base; "
                "use method='batched', which only needs forward"
            )
    dtype = next(layer.W.dtype for layer in layers if isinstance(layer, Affine))
    bases = [_rounded(layer.base(), dtype) for layer in layers]
    loss_base = _rounded(loss.base(), dtype)
    budget = memory_budget(loss_base[0], max_memory)
    gradients = []
    for position, layer in enumerate(layers):
        if isinstance(layer, Affine):
            after = list(zip(layers[position + 1 :], bases[position + 1 :], strict=True))
            (x,) = _rounded([layer.x], dtype)
            d = layer.weight_difference(x, h)
            tail = _Tail(layer, after, loss, loss_base, d)
            if isinstance(d, np.ndarray):
                total = _on_host(tail, d, budget, threads)
            else:
                total = _on_device(tail, d, budget)
            total = namespace_of(d).astype(total / (2 * h * d.shape[0]), d.dtype)
            gradients.append((total[:-1, ...], total[-1, ...]))
    return gradients


@np.errstate(over="ignore")  # exp(−x) may be infinite in the narrower type, and is meant then
def _rounded(arrays: Sequence[Array], dtype: Any) -> tuple[Array, ...]:
    return tuple(namespace_of(a).astype(a, dtype, copy=False) for a in arrays)


class _Tail:
    """The layers behind one `Affine` layer, and how a change of its output becomes one of the loss.

    Parameters
    ----------
    moved : Affine
        The layer whose weights move.
    after : list of (layer, base)
        The layers behind, with what `difference` needs of them.
    loss, loss_base
        The same for the loss.
    d : array
        All changes of the moved layer's output that will be asked for.
    """

    def __init__(
        self, moved: Affine, after: list[tuple[Any, Any]], loss: Any, loss_base: Any, d: Array
    ):
        xp = namespace_of(d)
        split = 0
        while split < len(after) and not isinstance(after[split][0], Affine):
            split += 1
        self.columns = moved.W.shape[1]
        self.alone = after[:split]
        if split < len(after):
            self.joint = after[split][0]
        else:  # The identity writes a column out for the loss.
            self.joint = Affine(xp.eye(self.columns, dtype=d.dtype, device=device(d)))
        self.together = after[split + 1 :]
        self.loss = loss
        self.loss_base = loss_base
        self.line_base: tuple[Array, ...] | None = None
        if not self.together and hasattr(loss, "line_base"):
            slopes = [getattr(layer, "lipschitz", math.inf) for layer, _ in self.alone]
            reach = float(xp.max(xp.abs(d))) * math.prod(slopes)
            line_base = loss.line_base(self.joint.W, reach)
            self.line_base = None if line_base is None else _rounded(line_base, d.dtype)
        widths = [layer.W.shape[1] for layer, _ in self.together if isinstance(layer, Affine)]
        self.width = max(self.joint.W.shape[1], *widths, 1) if self.line_base is None else 1

    def change(self, d: Array, samples: Any, columns: slice, at_once: int) -> Array:
        """Return L(+d) − L(−d) for each of the given samples and columns, moved alone.

        Parameters
        ----------
        d : array, shape (R, U)
            Changes of any one column of the moved layer's output in R samples.
        samples : slice or array of int
            Which samples.
        columns : slice
            Which columns.
        at_once : int
            How many columns to follow side by side once they are spread out.

        Returns
        -------
        array, shape (R, columns, U)
        """
        xp = namespace_of(d)
        r, u = d.shape
        count = len(range(self.columns)[columns])
        d = xp.concat([d, -d], axis=1)[:, None, :]
        for layer, base in self.alone:
            d = layer.difference(d, *(b[samples, ...][:, columns, ...] for b in base))
        if self.line_base is not None:
            change = self.loss.line_difference(d, *(b[samples, ...] for b in self._line(columns)))
            return change[..., :u] - change[..., u:]
        d = xp.broadcast_to(d, (r, count, 2 * u))
        if isinstance(d, np.ndarray) and not (moving := d.any(axis=(0, 2))).all():
            # A dead unit moves nothing behind it. Not asked of a GPU, which would have to wait.
            result = np.zeros((r, count, u), dtype=d.dtype)
            if moving.any():
                which = np.arange(self.columns)[columns][moving]
                result[:, moving] = self._spread(d[:, moving], samples, which, at_once)
            return result
        return self._spread(d, samples, columns, at_once)

    def _line(self, columns: slice) -> list[Array]:
        """Return the loss's base for lines, of the given columns where it has any."""
        return [b if b.shape[1] == 1 else b[:, columns, ...] for b in self.line_base or ()]

    def _spread(self, d: Array, samples: Any, columns: Any, at_once: int) -> Array:
        """Return what `change` does for changes that the joint layer spreads out."""
        xp = namespace_of(d)
        r, count, p = d.shape
        if count > at_once:
            which = np.arange(self.columns)[columns]
            return xp.concat(
                [
                    self._spread(d[:, k : k + at_once], samples, which[k : k + at_once], at_once)
                    for k in range(0, count, at_once)
                ],
                axis=1,
            )
        d = self.joint.column_difference(d, columns)
        for layer, base in self.together:
            d = layer.difference(d, *(b[samples, ...] for b in base))
        d = self.loss.difference(d, *(b[samples, ...] for b in self.loss_base))
        d = xp.reshape(d, (r, count, 2, p // 2))
        return d[:, :, 0, :] - d[:, :, 1, :]


def _on_device(tail: _Tail, d: Array, budget: int) -> Array:
    """Sum the changes over samples, (I + 1, J), in blocks as large as the budget allows."""
    xp = namespace_of(d)
    n, inputs = d.shape
    one = _LIVE_ARRAYS * tail.width * 2 * inputs * xp.finfo(d.dtype).bits // 8
    _check_budget(budget, one)
    samples_at_once = min(n, budget // one)
    columns_at_once = min(tail.columns, budget // (one * samples_at_once))
    total = xp.zeros((inputs, tail.columns), dtype=xp.float64, device=device(d))

    def run_samples(start: int, stop: int) -> None:
        samples = slice(start, stop)
        part = xp.empty_like(total)

        def run_columns(first: int, last: int) -> None:
            change = tail.change(d[samples, ...], samples, slice(first, last), last - first)
            part[:, first:last] = xp.sum(change, axis=0, dtype=xp.float64).T

        run_in_chunks(run_columns, tail.columns, columns_at_once)
        total[...] = total + part

    run_in_chunks(run_samples, n, samples_at_once)
    return total


def _on_host(tail: _Tail, d: np.ndarray, budget: int, threads: int | None) -> np.ndarray:
    """Sum the changes over samples, (I + 1, J), on threads, sparing zero and repeated inputs."""
    inputs = d.shape[1]
    values, counts, places = _distinct(d)
    columns_per_task = min(tail.columns, _TASK_COLUMNS)
    # Along a line a task's columns are taken together, spread out as many as fit.
    line = tail.line_base is not None
    step = (_LINE_STEP if line else _SPREAD_STEP) // (2 * tail.width)
    values_at_once = min(values.shape[1], max(1, step // columns_per_task if line else step))
    typical = max(1, min(values_at_once, int(counts.mean())))
    columns_at_once = columns_per_task if line else min(columns_per_task, max(1, step // typical))
    groups = _groups(counts, max(1, step // columns_per_task))
    column_tasks = math.ceil(tail.columns / columns_per_task)
    sample_tasks = min(len(groups), math.ceil(_MIN_TASKS / column_tasks))
    tasks = [
        (groups[k::sample_tasks], slice(first, first + columns_per_task))
        for k in range(sample_tasks)
        for first in range(0, tail.columns, columns_per_task)
    ]
    one = _LIVE_ARRAYS * d.itemsize * 2 * tail.width * max(step, columns_at_once * values_at_once)
    _check_budget(budget, one)

    def run(task: _Task) -> np.ndarray:
        groups, columns = task
        total = np.zeros((inputs, len(range(tail.columns)[columns])))
        for samples in groups:
            used = counts[samples[-1]]
            for first in range(0, used, values_at_once):
                last = min(first + values_at_once, used)
                part = values[samples, first:last]
                change = tail.change(part, samples, columns, columns_at_once)
                if not places:
                    total[first:last] += change.sum(axis=0, dtype=np.float64).T
                    continue
                for sample, changes in zip(samples, change, strict=True):
                    where, which = places[sample]
                    if used > values_at_once:
                        here = (which >= first) & (which < last)
                        where, which = where[here], which[here] - first
                    # In float64 first: adding by index is slow where it also has to convert.
                    rows = changes.T.astype(np.float64, order="C").take(which, axis=0)
                    rows += total.take(where, axis=0)
                    total[where] = rows
        return total

    # Along a line NumPy's calls are so short that threads would wait for each other.
    workers = 1 if line else min(threads or _cores(), len(tasks), budget // one)
    total = np.zeros((inputs, tail.columns))
    with contextlib.nullcontext() if line else _one_blas_thread():
        while (parts := _on_threads(run, tasks, workers)) is None:
            workers //= 2
    for (_, columns), part in zip(tasks, parts, strict=True):
        total[:, columns] += part
    return total


def _on_threads(
    run: Callable[[_Task], np.ndarray], tasks: list[_Task], workers: int
) -> list[np.ndarray] | None:
    """Return all results in order, or None if memory did not suffice for several threads."""
    if workers == 1:
        return list(map(run, tasks))
    with contextlib.suppress(MemoryError), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(run, tasks))
    return None


def _distinct(d: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[_Places]]:
    """Find equal values in each row.

    Returns
    -------
    values : ndarray, shape (N, U)
        The distinct values of each row in ascending order, padded with the largest; or `d` itself
        where that would not spare a quarter of the work.
    counts : ndarray, shape (N,)
        How many there are.
    places : list
        For each row where its non-zero elements are, and which value each has; empty for `d`.
    """
    ascending = np.sort(d, axis=1)
    new = np.empty(d.shape, dtype=bool)
    new[:, 0] = True
    np.not_equal(ascending[:, 1:], ascending[:, :-1], out=new[:, 1:])
    counts = np.count_nonzero(new, axis=1)
    if 4 * counts.sum() > 3 * d.size:
        return d, np.full(len(d), d.shape[1]), []
    values = np.repeat(ascending[:, -1:], counts.max(), axis=1)
    places = []
    for row, distinct, source, keep, count in zip(d, values, ascending, new, counts, strict=True):
        distinct[:count] = source[keep]
        where = row.nonzero()[0]
        places.append((where, distinct.searchsorted(row[where])))
    return values, counts, places


def _groups(counts: np.ndarray, largest: int) -> list[np.ndarray]:
    """Return samples in groups of similar counts; a group times its largest count is bounded."""
    order = np.argsort(counts, kind="stable")
    groups = []
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * counts[order[stop]] <= largest:
            stop += 1
        groups.append(order[start:stop])
        start = stop
    return groups


def _check_budget(budget: int, needed: int) -> None:
    if budget < needed:
        raise ValueError(f"max_memory is {budget} bytes; one step of differences takes {needed}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _one_blas_thread() -> Any:
    """Return a context in which BLAS keeps to the thread it is called on."""
    return _blas_controller().limit(limits=1, user_api="blas")


@functools.cache
def _blas_controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
