"""Differences of any function by evaluating it: at one point at a time, or at many stacked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import ArgumentError, Array, as_float, check_memory, namespace_of
from dlfs_gpu.backend import memory_budget
from dlfs_gpu.processes import ALONE, Processes, in_shares

Function = Callable[[Any], Any]


def loop_differences(
    f: Function,
    x: Array,
    upper: Array,
    lower: Array | None,
    progress: bool,
    processes: Processes = ALONE,
) -> Array:
    """Return f at each element's `upper` point less f at its `lower`, one at a time.

    Writes to `x`, and restores it. `lower` None stands for `x` itself.
    """
    xp = namespace_of(x)
    original = xp.asarray(x, copy=True)
    difference = xp.empty_like(xp.reshape(x, (-1,)))
    indices = list(np.ndindex(*x.shape))
    middle = _number(f(x)) if lower is None else None

    def run(start: int, stop: int) -> None:
        for k in range(start, stop):
            index = indices[k]
            try:
                x[index] = upper[index]
                value = _number(f(x))
                if lower is not None:
                    x[index] = lower[index]
                    value = value - _number(f(x))
                else:
                    value = value - middle
            finally:
                x[index] = original[index]
            difference[k] = value

    chunk = max(1, len(indices) // 1000)
    difference = in_shares(run, difference, chunk, "gradient" if progress else "", processes)
    if not bool(xp.all(x == original)):
        x[...] = original
        raise ArgumentError("f", "changed its argument; it must leave it as it is, or copy it")
    return xp.reshape(difference, x.shape)


def batched_differences(
    f: Function,
    x: Array,
    upper: Array,
    lower: Array,
    max_memory: int | None,
    progress: bool,
    processes: Processes = ALONE,
) -> Array:
    """Return f at each element's `upper` point less f at its `lower`, many stacked at a time."""
    xp = namespace_of(x)
    size = math.prod(x.shape)
    copy_bytes = size * xp.finfo(x.dtype).bits // 8
    budget = memory_budget(x, max_memory)
    check_memory(budget, copy_bytes, "one copy of x")
    flat = xp.reshape(x, (1, size))
    difference = xp.empty_like(flat[0, :])

    def values(points: Array, start: int, stop: int) -> Array:
        count = stop - start
        moved = xp.eye(count, size, k=start, dtype=xp.bool, device=device(x))
        copies = xp.where(moved, xp.reshape(points, (1, size)), flat)
        return _numbers(f, xp.reshape(copies, (count, *x.shape)))

    def run(start: int, stop: int) -> None:
        difference[start:stop] = values(upper, start, stop) - values(lower, start, stop)

    if size > 1:
        # An f that sums along the stack would pass for right with as many copies as elements.
        values(x, 0, 1)
    # One decides, because on a GPU free memory does.
    chunk = processes.from_root(lambda: max(1, budget // (copy_bytes or 1)))
    difference = in_shares(run, difference, chunk, "gradient" if progress else "", processes)
    return xp.reshape(difference, x.shape)


def rounding(f: Function, x: Array, h: float, method: str) -> float:
    """Return by how much rounding may change the values of `f` near `x`, eps·|f(x)| or more.

    Measured on a line from `x`, no further away than `h`: there a smooth function is a cubic but
    for rounding, and the fourth differences of a cubic are 0. They are sums of five values times
    1, −4, 6, −4, 1, whose squares add up to 70, which makes their spread √70 times the values'.
    """
    size = math.prod(x.shape)
    if size == 0:
        return 0.0
    xp = namespace_of(x)
    # All elements move, up or down by chance, lest what they do to f adds up.
    signs = np.random.default_rng(0).choice([-1.0, 1.0], x.shape)
    step = xp.asarray(signs * (h / 8 / math.sqrt(size)), dtype=x.dtype, device=device(x))
    # Rounded to what x takes exactly, so that the points lie evenly.
    step = (x + step) - x
    original = xp.asarray(x, copy=True)
    values = []
    try:
        for k in range(9):
            point = original + k * step
            if method == "loop":
                x[...] = point
                value = _number(f(x))
            else:
                value = _numbers(f, point[None, ...])[0, ...]
            values.append(float(value))
    finally:
        if method == "loop":
            x[...] = original
    noise = math.sqrt(np.mean(np.diff(values, 4) ** 2) / 70)
    eps = float(namespace_of(value).finfo(value.dtype).eps)
    return max(2 * noise, eps * abs(values[0]))


def checked_result(name: str, value: Any, shape: tuple[int, ...], demand: str) -> Any:
    """Return what a function returned, in floating point, if it is what it must be."""
    found = () if isinstance(value, int | float) else getattr(value, "shape", None)
    if found is None:
        raise TypeError(f"{name} returned {value!r}; {demand}")
    if found != shape:
        raise ArgumentError(name, f"returned an array of shape {tuple(found)}; {demand}")
    # Unsigned integers would wrap around when subtracted.
    return as_float(value, f"what {name} returned")


def _number(value: Any) -> Any:
    # A copy: f may have returned a view of x, which is about to change.
    return checked_result("f", value, (), "with method='loop' it must return a single number") + 0.0


def _numbers(f: Function, copies: Array) -> Array:
    count = copies.shape[0]
    demand = f"with method='batched' it must map {count} stacked copies of x to ({count},)"
    return checked_result("f", f(copies), (count,), demand)
