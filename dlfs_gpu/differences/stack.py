"""The gradient of a stack of layers by central differences, through the layers' `difference`.

`dlfs_gpu.differences.tail` follows changes through the layers; here they are dealt out, to blocks
that fit the memory and to threads, and summed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import Array, check_memory, namespace_of
from dlfs_gpu.backend import memory_budget, run_in_chunks
from dlfs_gpu.differences.compiled import sums_by_loops
from dlfs_gpu.differences.tail import COLUMNS, Tail, blocks_of
from dlfs_gpu.machine.threads import cpu_cores, one_blas_thread
from dlfs_gpu.processes import ALONE, Processes
from dlfs_gpu.protocols import is_linear

# Numbers in the widest array of a step on the CPU, where changes stay with one number for each
# output and where they are spread out: few enough for a core's cache, enough to make a NumPy call
# worth its overhead. Fixed, whatever the budget and the threads, because BLAS may round
# differently for another shape.
_NARROW_STEP = 2**16
_SPREAD_STEP = 2**18
# Arrays as wide as that alive at once.
_LIVE_ARRAYS = 6
# Tasks to make at least on the CPU, so that threads share evenly.
_MIN_TASKS = 8

_Places = tuple[np.ndarray, np.ndarray]
"""Where a row is not zero, and which of its distinct values is there."""
_Task = tuple[list[np.ndarray], slice]
"""Groups of samples, and columns."""


def forward_together(processes: Processes, layer: Any, x: Array) -> Array:
    """Return the output of a layer; if it is `Linear`, each process computes some columns of it."""
    if not (is_linear(layer) and has_difference(layer)):
        return layer.forward(x)
    params = dict(layer.params)
    shares = processes.shares(params["W"].shape[1], COLUMNS)
    own = shares[processes.rank]
    parts = []
    try:
        for block in blocks_of(own) or [own]:
            layer.params.update({name: param[..., block] for name, param in params.items()})
            parts.append(layer.forward(x))
    finally:
        layer.params.update(params)
    xp = namespace_of(x)
    out = processes.gather(parts[0] if len(parts) == 1 else xp.concat(parts, axis=1), shares)
    # Row by row in memory, as if it had not been gathered: sums may be rounded by that.
    return xp.reshape(xp.reshape(out, (-1,)), out.shape)


def difference_gradients(
    layers: Sequence[Any],
    loss: Any,
    h: float,
    dtype: Any,
    *,
    max_memory: int | None = None,
    threads: int | None = None,
    processes: Processes = ALONE,
) -> list[dict[str, Array]]:
    """Return central differences of the loss for the parameters of each layer, in order.

    Parameters
    ----------
    layers, loss
        Layers and the loss behind them, just after ``forward`` with the batch in question in
        float64.
    h : float
        Step. It is rounded to `dtype`, and the difference is that for the rounded step: no weight
        is rounded.
    dtype : dtype
        Of the parameters, and of most of the work.
    max_memory : int, optional
        Bytes that may be used for changes in flight; see `dlfs_gpu.backend.memory_budget`.
    threads : int, optional
        Threads on the CPU where changes are spread out; one for each core by default. They do not
        change the result.
    processes : Processes
        Each takes some columns of each layer, and all get all gradients.

    Returns
    -------
    list of dict
        For each layer its gradients by the names of its parameters, in their shapes and in
        `dtype`; sums over samples are taken in float64. Those of layers without, and of those
        that are not `followed`, are empty.

    Raises
    ------
    ArgumentError
        If `max_memory` is too small for one block.
    """
    positions = [k for k, is_followed in enumerate(followed(layers, loss)) if is_followed]
    # All behind the first of them have what `difference` needs.
    saved = {k: layers[k].saved() for k in range(min(positions, default=len(layers)), len(layers))}
    parts = {}
    for position in positions:
        layer = layers[position]
        after = [(layers[k], saved[k]) for k in range(position + 1, len(layers))]
        shares = processes.shares(layer.params["W"].shape[1], COLUMNS)
        own = shares[processes.rank]
        part = _differences(layer, after, loss, h, dtype, own, max_memory, threads)
        parts[position] = part, shares
    gradients: list[dict[str, Array]] = [{} for _ in layers]
    # Gathered last, because processes wait for each other then.
    for position, (part, shares) in parts.items():
        total = processes.gather(part, shares)
        of = {"W": total[:-1, ...], "b": total[-1, ...]}
        gradients[position] = {name: of[name] for name in layers[position].params}
    return gradients


def _differences(
    layer: Any,
    after: list[tuple[Any, tuple[Array, ...]]],
    loss: Any,
    h: float,
    dtype: Any,
    columns: slice,
    max_memory: int | None,
    threads: int | None,
) -> Array:
    """Return central differences for some columns of a layer's weights and biases, (I + 1, K)."""
    xp = namespace_of(layer.x)
    if columns.start == columns.stop:
        rows = layer.params["W"].shape[0] + 1
        return xp.empty((rows, 0), dtype=dtype, device=device(layer.x))
    budget = memory_budget(layer.x, max_memory)
    tail = Tail(layer, after, loss, h, dtype, budget)
    total = tail.by_odd_powers(columns)
    if total is None and isinstance(tail.d, np.ndarray):
        total = _on_host(tail, columns, budget, threads)
    elif total is None:
        total = _on_device(tail, columns, budget)
    return xp.astype(total / (2 * tail.h * tail.d.shape[0]), dtype)


def followed(layers: Sequence[Any], loss: Any) -> list[bool]:
    """Say of each layer whether changes of its parameters can be followed through those behind.

    It must be `Linear`, and all behind it must have a `difference`.
    """
    result = []
    behind = has_difference(loss)
    for layer in reversed(layers):
        own = has_difference(layer)
        result.append(behind and own and is_linear(layer))
        behind &= own
    return result[::-1]


def has_difference(layer: Any) -> bool:
    """Say whether a layer, or loss, has a `difference` that belongs to its own ``forward``.

    One that is inherited does not where ``forward`` is written anew.
    """
    if "forward" in vars(layer) or not (hasattr(layer, "difference") and hasattr(layer, "saved")):
        return False
    owners = type(layer).__mro__
    forward, *others = (
        next((k for k, owner in enumerate(owners) if method in vars(owner)), 0)
        for method in ("forward", "difference", "saved")
    )
    return forward >= max(others)


def _on_device(tail: Tail, columns: slice, budget: int) -> Array:
    """Sum the changes of columns over samples, in blocks as large as the budget allows."""
    d = tail.d
    xp = namespace_of(d)
    n, inputs = d.shape
    one = _LIVE_ARRAYS * tail.width * 2 * inputs * xp.finfo(d.dtype).bits // 8
    check_memory(budget, one, "one step of differences")
    samples_at_once = min(n, budget // one)
    count = columns.stop - columns.start
    columns_at_once = min(COLUMNS, budget // (one * samples_at_once))
    total = xp.zeros((inputs, count), dtype=xp.float64, device=device(d))

    def run_samples(start: int, stop: int) -> None:
        samples = slice(start, stop)
        part = xp.empty_like(total)

        def run_columns(first: int, last: int) -> None:
            moved = slice(columns.start + first, columns.start + last)
            change = tail.change(d[samples, ...], samples, moved, last - first)
            part[:, first:last] = xp.sum(change, axis=0, dtype=xp.float64).T

        run_in_chunks(run_columns, count, columns_at_once)
        total[...] = total + part

    run_in_chunks(run_samples, n, samples_at_once)
    return total


def _on_host(tail: Tail, columns: slice, budget: int, threads: int | None) -> np.ndarray:
    """Sum the changes of columns over samples, on threads, sparing zero and repeated inputs."""
    d = tail.d
    inputs = d.shape[1]
    narrow = tail.one_at_a_time or tail.line is not None
    if narrow:
        check_memory(budget, _LIVE_ARRAYS * d.itemsize * _NARROW_STEP, "one step of differences")
        total = sums_by_loops(tail, columns, None, threads)
        if total is not None:
            return total
    values, counts, places = _distinct(d)
    columns_per_task = min(tail.columns, COLUMNS)
    # Narrow changes of a task's columns are taken together, spread-out ones as many as fit.
    step = (_NARROW_STEP if narrow else _SPREAD_STEP) // (2 * tail.width)
    values_at_once = min(values.shape[1], max(1, step // columns_per_task if narrow else step))
    typical = max(1, min(values_at_once, int(counts.mean())))
    columns_at_once = columns_per_task if narrow else min(columns_per_task, max(1, step // typical))
    groups = _groups(counts, max(1, step // columns_per_task))
    column_tasks = math.ceil(tail.columns / columns_per_task)
    sample_tasks = min(len(groups), math.ceil(_MIN_TASKS / column_tasks))
    tasks = [
        (groups[k::sample_tasks], block)
        for k in range(sample_tasks)
        for block in blocks_of(columns)
    ]
    one = _LIVE_ARRAYS * d.itemsize * 2 * tail.width * max(step, columns_at_once * values_at_once)
    check_memory(budget, one, "one step of differences")
    if not narrow:
        total = sums_by_loops(tail, columns, (values, counts, places), threads)
        if total is not None:
            return total

    def run(task: _Task) -> np.ndarray:
        groups, moved = task
        total = np.zeros((inputs, moved.stop - moved.start))
        for samples in groups:
            used = counts[samples[-1]]
            for first in range(0, used, values_at_once):
                last = min(first + values_at_once, used)
                part = values[samples, first:last]
                change = tail.change(part, samples, moved, columns_at_once)
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

    # Narrow changes make calls so short that threads would wait for each other.
    workers = 1 if narrow else min(threads or cpu_cores(), len(tasks), budget // one)
    total = np.zeros((inputs, columns.stop - columns.start))
    with contextlib.nullcontext() if narrow else one_blas_thread:
        while (parts := _on_threads(run, tasks, workers)) is None:
            workers //= 2
    for (_, moved), part in zip(tasks, parts, strict=True):
        total[:, moved.start - columns.start : moved.stop - columns.start] += part
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
