"""Rules of sums, products, extremes, norms and the like, along axes."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from dlfs_gpu._validation import ArgumentError, Array
from dlfs_gpu.differences import rules, windows
from dlfs_gpu.differences.array import Differenced, is_truth
from dlfs_gpu.differences.operands import as_float_array, make, widen
from dlfs_gpu.differences.windows import Window

Axis = int | tuple[int, ...] | None


@rules.rule("sum")
def _sum(x: Differenced, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    x = as_float_array(x)
    if dtype is not None:
        x = rules.call("astype", x, dtype)
    axes = normalized(axis, x.ndim)
    value = x.xp.sum(x.value, axis=axes, keepdims=keepdims)
    part = x.xp.sum(x.part, axis=_behind(axes), keepdims=keepdims)
    return make(x, value, part, _reduced(x.window, axes, keepdims))


@rules.rule("mean")
def _mean(x: Differenced, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    count = math.prod(x.shape[k] for k in normalized(axis, x.ndim))
    _check_not_empty("mean", count)
    return _sum(x, axis, dtype, keepdims) / count


@rules.rule("var")
def _var(
    x: Differenced,
    axis: Axis = None,
    dtype: Any = None,
    ddof: float = 0,
    keepdims: bool = False,
    *,
    correction: float | None = None,
) -> Any:
    count = math.prod(x.shape[k] for k in normalized(axis, x.ndim))
    _check_not_empty("var", count)
    deviation = x - _mean(x, axis, dtype, keepdims=True)
    rest = count - (ddof if correction is None else correction)
    return _sum(rules.call("square", deviation), axis, keepdims=keepdims) / rest


@rules.rule("std")
def _std(x: Differenced, *args: Any, **kwargs: Any) -> Any:
    return rules.call("sqrt", _var(x, *args, **kwargs))


@rules.rule("prod")
def _prod(x: Differenced, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """Return the product, by halves: X·Y − x·y = (X − x)Y + x(Y − y)."""
    x = as_float_array(x)
    if dtype is not None:
        x = rules.call("astype", x, dtype)
    xp, axes = x.xp, normalized(axis, x.ndim)
    value = xp.prod(x.value, axis=axes, keepdims=keepdims)
    change, window = widen(x, axes)
    base = x.value[windows.slices(window)][None, ...]
    base, change = (_flattened(xp, a, axes) for a in (base, change))
    moved = base + change
    while (count := change.shape[-1]) > 1:
        half, rest = count // 2, count % 2
        first, second = slice(0, half), slice(half, 2 * half)
        tail = slice(2 * half, 2 * half + rest)
        b, m, c = base, moved, change
        change = c[..., first] * m[..., second] + b[..., first] * c[..., second]
        base = b[..., first] * b[..., second]
        moved = m[..., first] * m[..., second]
        if rest:
            base = xp.concat([base, b[..., tail]], axis=-1)
            moved = xp.concat([moved, m[..., tail]], axis=-1)
            change = xp.concat([change, c[..., tail]], axis=-1)
    window = _reduced(window, axes, keepdims)
    part = xp.reshape(xp.sum(change, axis=-1), (change.shape[0], *windows.shape_of(window)))
    return make(x, value, part, window)


def _flattened(xp: Any, x: Array, axes: tuple[int, ...]) -> Array:
    """Return changes, or an array behind one more axis, with the given axes made one, the last."""
    moved = _behind(axes)
    kept = [k for k in range(x.ndim) if k not in moved]
    shape = [x.shape[k] for k in kept]
    count = math.prod(x.shape[k] for k in moved)
    return xp.reshape(xp.permute_dims(x, (*kept, *moved)), (*shape, count))


@rules.rule("cumsum", "cumulative_sum")
def _cumsum(
    x: Differenced, axis: int | None = None, dtype: Any = None, *, include_initial: bool = False
) -> Any:
    x = as_float_array(x)
    if dtype is not None:
        x = rules.call("astype", x, dtype)
    if axis is None:
        x, axis = rules.call("ravel", x), 0
    (axis,) = normalized(axis, x.ndim)
    value = x.xp.cumulative_sum(x.value, axis=axis)
    part, window = widen(x, (axis,))
    result = make(x, value, x.xp.cumulative_sum(part, axis=axis + 1), window)
    if include_initial:
        first = x.xp.zeros_like(value[(slice(None),) * axis + (slice(0, 1), ...)])
        return rules.call("concat", [first, result], axis=axis)
    return result


def _extreme(
    x: Differenced, axis: Axis = None, keepdims: bool = False, *, name: str
) -> Differenced:
    """Return the maximum, whose change is the largest (x − max x) + d, or the minimum."""
    x = as_float_array(x)
    xp, axes = x.xp, normalized(axis, x.ndim)
    take = getattr(xp, name)
    value = take(x.value, axis=axes, keepdims=True)
    part, window = widen(x, axes)
    with np.errstate(invalid="ignore"):
        gap = x.value - value
    # Of an infinite extreme 0, not NaN.
    gap = xp.where(x.value == value, xp.zeros_like(gap), gap)[windows.slices(window)]
    part = take(gap + part, axis=_behind(axes), keepdims=keepdims)
    if not keepdims:
        value = take(x.value, axis=axes)
    return make(x, value, part, _reduced(window, axes, keepdims))


rules.rule("max", "amax")(functools.partial(_extreme, name="max"))
rules.rule("min", "amin")(functools.partial(_extreme, name="min"))


def _quantified(
    x: Differenced, axis: Axis = None, keepdims: bool = False, *, name: str
) -> Differenced:
    x = x if is_truth(x) else x != 0
    axes = normalized(axis, x.ndim)
    ask = getattr(x.xp, name)
    value = ask(x.value, axis=axes, keepdims=keepdims)
    part, window = widen(x, axes)
    moved = ask(x.value[windows.slices(window)] ^ part, axis=_behind(axes), keepdims=keepdims)
    window = _reduced(window, axes, keepdims)
    return make(x, value, moved ^ value[windows.slices(window)], window)


rules.rule("all")(functools.partial(_quantified, name="all"))
rules.rule("any")(functools.partial(_quantified, name="any"))


@rules.rule("count_nonzero")
def _count_nonzero(x: Differenced, axis: Axis = None, keepdims: bool = False) -> Any:
    return _sum(x if is_truth(x) else x != 0, axis, keepdims=keepdims)


@rules.rule("linalg.norm")
def _norm(x: Differenced, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    axes = normalized(axis, x.ndim)
    if ord in (None, "fro") or (ord == 2 and len(axes) == 1):
        return _euclidean(x, axes, keepdims)
    if len(axes) == 1:
        return _vector_norm(x, axis=axes, keepdims=keepdims, ord=ord)
    if len(axes) == 2 and ord in (1, -1, math.inf, -math.inf):
        summed, other = axes if abs(ord) == 1 else axes[::-1]
        sums = _sum(abs(x), summed, keepdims=True)
        return _extreme(sums, (summed, other), keepdims, name="max" if ord > 0 else "min")
    raise rules.no_rule(f"linalg.norm with ord={ord!r}")


@rules.rule("linalg.vector_norm")
def _vector_norm(
    x: Differenced,
    *,
    axis: Axis = None,
    keepdims: bool = False,
    ord: float = 2,
) -> Any:
    axes = normalized(axis, x.ndim)
    if ord == 2:
        return _euclidean(x, axes, keepdims)
    if abs(ord) == math.inf:
        return _extreme(abs(x), axes, keepdims, name="max" if ord > 0 else "min")
    if ord == 0:
        return _count_nonzero(x, axes, keepdims)
    sums = _sum(abs(x) ** ord, axes, keepdims=keepdims)
    return sums if ord == 1 else sums ** (1 / ord)


@rules.rule("linalg.matrix_norm")
def _matrix_norm(x: Differenced, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    return _norm(x, ord, (-2, -1), keepdims)


def _euclidean(x: Differenced, axes: tuple[int, ...], keepdims: bool) -> Differenced:
    """Return the square root of the sum of squares, with the change Σ d(x + X) / (R + r)."""
    xp = x.xp
    value = xp.sqrt(xp.sum(x.value * x.value, axis=axes, keepdims=keepdims))
    part, window = widen(x, axes)
    local = x.value[windows.slices(window)]
    behind = _behind(axes)
    window = _reduced(window, axes, keepdims)
    squares = xp.sum(part * (2 * local + part), axis=behind, keepdims=keepdims)
    moved = xp.sqrt(xp.sum((local + part) ** 2, axis=behind, keepdims=keepdims))
    both = moved + value[windows.slices(window)]
    part = squares / xp.where(both == 0, xp.ones_like(both), both)
    return make(x, value, part, window)


def normalized(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return axes as numbers from 0; None is all of them."""
    if axis is None:
        return tuple(range(ndim))
    return np.lib.array_utils.normalize_axis_tuple(axis, ndim)


def _behind(axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return where the axes of an array are among those of its changes."""
    return tuple(axis + 1 for axis in axes)


def _reduced(window: Window, axes: tuple[int, ...], keepdims: bool) -> Window:
    if keepdims:
        return tuple((0, 1) if k in axes else bounds for k, bounds in enumerate(window))
    return tuple(bounds for k, bounds in enumerate(window) if k not in axes)


def _check_not_empty(name: str, count: int) -> None:
    if count == 0:
        raise ArgumentError("x", f"is empty; {name} needs at least one element")
