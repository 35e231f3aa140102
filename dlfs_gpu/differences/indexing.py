"""Rules of functions that choose and arrange elements."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.differences import rules, windows
from dlfs_gpu.differences.array import Differenced, is_truth
from dlfs_gpu.differences.operands import make, still
from dlfs_gpu.differences.windows import Window


@rules.rule("getitem")
def _getitem(x: Differenced, index: Any) -> Differenced:
    """Return a part of the array; what the window showed of it before, it shows of it still."""
    keys = index if isinstance(index, tuple) else (index,)
    if any(isinstance(key, Differenced) for key in keys):
        index = keys = tuple(map(_without_changes, keys))
    if not all(map(_is_simple, keys)):
        return rearrange(x, lambda numbers: numbers[index])
    if Ellipsis not in keys:
        keys = (*keys, Ellipsis)
    fill = keys.index(Ellipsis)
    used = sum(key is not None and key is not Ellipsis for key in keys)
    keys = (*keys[:fill], *(slice(None),) * (x.ndim - used), *keys[fill + 1 :])
    value = x.value[keys]

    inside: list[Any] = []  # the index of the changes
    window: list[tuple[int, int]] = []
    is_outside = windows.is_empty(x.window)
    axes = iter(zip(x.shape, x.window, strict=True))
    for key in keys:
        if key is None:
            inside.append(None)
            window.append((0, 1))
            continue
        size, (start, stop) = next(axes)
        if isinstance(key, slice):
            first, last, _ = key.indices(size)
            low = max(first, start)
            high = max(low, min(last, stop))
            inside.append(slice(low - start, high - start))
            window.append((low - first, high - first))
            is_outside |= high == low
        else:
            place = int(key) % size
            inside.append(place - start)
            is_outside |= not start <= place < stop
    if is_outside:
        return still(x, value)
    return make(x, value, x.part[(slice(None), *inside)], tuple(window))


def _is_simple(key: Any) -> bool:
    """Say whether an index is a whole number, a slice by steps of 1, None or an ellipsis."""
    if isinstance(key, slice):
        return key.step in (None, 1)
    is_number = isinstance(key, int | np.integer) and not isinstance(key, bool)
    return is_number or key is None or key is Ellipsis


def _without_changes(key: Any) -> Any:
    """Return an index that is the same at all points, and refuse others."""
    if not isinstance(key, Differenced):
        return key
    if not is_truth(key):
        key.__index__()
    key.check_same_truth("choosing elements by a mask")
    return key.value


def rearrange(x: Differenced, function: Callable[[Array], Array]) -> Differenced:
    """Apply a function that only arranges elements, found out from where it puts their numbers."""
    xp = x.xp
    numbers = _numbers(x, x.shape)
    places = function(numbers)
    shape = tuple(places.shape)
    places = xp.reshape(places, (-1,))

    def arranged(array: Array) -> Array:
        return xp.reshape(xp.take(xp.reshape(array, (x.size,)), places, axis=0), shape)

    value = arranged(x.value)
    seen = windows.shape_of(x.window)
    # Which change each element has; those outside of the window have the 0 behind all changes.
    zero = math.prod(seen)
    which = xp.full_like(numbers, zero)
    if zero:
        which[windows.slices(x.window)] = _numbers(x, seen)
    which = arranged(which)
    window = _box_around(xp, which != zero)
    if windows.is_empty(window):
        return still(x, value)
    count = x.part.shape[0]
    part = xp.reshape(x.part, (count, zero))
    part = xp.concat([part, xp.zeros_like(part[:, :1])], axis=1)
    part = xp.take(part, xp.reshape(which[windows.slices(window)], (-1,)), axis=1)
    return make(x, value, xp.reshape(part, (count, *windows.shape_of(window))), window)


def _numbers(x: Differenced, shape: tuple[int, ...]) -> Array:
    """Return 0, 1, 2 … in an array of this shape."""
    return x.xp.reshape(x.xp.arange(math.prod(shape), device=x.device), shape)


def _box_around(xp: Any, mask: Array) -> Window:
    """Return the smallest window around all true elements."""
    if mask.ndim == 0:
        return ()
    found = xp.nonzero(mask)
    if found[0].shape[0] == 0:
        return windows.nothing(mask.ndim)
    return tuple((int(xp.min(places)), int(xp.max(places)) + 1) for places in found)


def _arranging(*names: str) -> None:
    """Register a function that only arranges the elements of its first argument."""

    @rules.rule(*names)
    def function(x: Any, *args: Any, **kwargs: Any) -> Differenced:
        others = (*args, *kwargs.values())
        if not isinstance(x, Differenced) or any(isinstance(y, Differenced) for y in others):
            raise rules.no_rule(f"{names[0]} by an array with changes")
        plain = rules.find(x.xp, names)
        return rearrange(x, lambda numbers: plain(numbers, *args, **kwargs))


for _name in ("flip", "fliplr", "flipud", "repeat", "roll", "rot90", "take", "take_along_axis"):
    _arranging(_name)
_arranging("tile")
_arranging("lib.stride_tricks.sliding_window_view")


@rules.rule("diagonal")
def _diagonal(x: Differenced, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Differenced:
    return _last_diagonal(rules.call("moveaxis", x, (axis1, axis2), (-2, -1)), offset=offset)


@rules.rule("linalg.diagonal")
def _last_diagonal(x: Differenced, *, offset: int = 0) -> Differenced:
    return rearrange(x, lambda numbers: x.xp.linalg.diagonal(numbers, offset=offset))


@rules.rule("trace")
def _trace(x: Differenced, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return rules.call("sum", _diagonal(x, offset, axis1, axis2), axis=-1)


@rules.rule("linalg.trace")
def _last_trace(x: Differenced, *, offset: int = 0, dtype: Any = None) -> Any:
    return rules.call("sum", _last_diagonal(x, offset=offset), axis=-1, dtype=dtype)


@rules.rule("diag")
def _diag(x: Differenced, k: int = 0) -> Any:
    if x.ndim == 2:
        return _diagonal(x, k)
    rest = x.xp.zeros((abs(k),), dtype=x.dtype, device=x.device)
    longer = rules.call("concat", [x, rest])
    places = x.xp.eye(longer.size, k=k, dtype=x.dtype, device=x.device)
    return (longer[:, None] if k >= 0 else longer[None, :]) * places


def _triangle(x: Differenced, k: int = 0, *, name: str) -> Differenced:
    keep = getattr(x.xp, name)
    value = keep(x.value, k=k)
    (top, _), (left, _) = x.window[-2:]
    # The diagonal as it is seen from the window's corner.
    return make(x, value, keep(x.part, k=k + top - left), x.window)


rules.rule("tril")(functools.partial(_triangle, name="tril"))
rules.rule("triu")(functools.partial(_triangle, name="triu"))
