"""What rules do with arrays that carry changes: checks, kinds, windows, and making results."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlfs_gpu._validation import ArgumentError, Array, namespace_of
from dlfs_gpu.differences import windows
from dlfs_gpu.differences.array import Differenced, is_truth
from dlfs_gpu.differences.ledger import Ledger
from dlfs_gpu.differences.windows import Window


def make(like: Differenced, value: Array, part: Array, window: Window) -> Differenced:
    """Return an array that belongs to the evaluation of another."""
    result = Differenced.__new__(Differenced)
    result.xp = like.xp
    result.value = value
    if part.dtype != value.dtype:
        part = like.xp.astype(part, value.dtype)
    result.part = part
    result.window = window
    result.ledger = like.ledger
    if like.ledger is not None:
        like.ledger.open(part)
    return result


def still(x: Differenced, value: Array) -> Differenced:
    """Return an array that belongs to the evaluation of `x` and does not move in it."""
    window = windows.nothing(value.ndim)
    shape = (x.part.shape[0], *windows.shape_of(window))
    return make(x, value, x.xp.zeros(shape, dtype=value.dtype, device=x.device), window)


def seed(xp: Any, value: Array, part: Array, window: Window, ledger: Ledger) -> Differenced:
    """Return the array that an evaluation starts from."""
    result = Differenced.__new__(Differenced)
    result.xp, result.value, result.part, result.window = xp, value, part, window
    result.ledger = ledger
    ledger.open(part)
    return result


def as_number(x: Differenced, dtype: Any) -> Differenced:
    """Return truth values as 0 and 1, with their changes -1, 0 and 1."""
    xp = x.xp
    value = xp.astype(x.value, dtype)
    local = value[windows.slices(x.window)]
    part = xp.where(x.part, 1 - 2 * local, xp.zeros_like(local))
    return make(x, value, part, x.window)


def as_float_array(x: Differenced) -> Differenced:
    """Return truth values as float64, and numbers as they are."""
    return as_number(x, x.xp.float64) if is_truth(x) else x


def check_together(arrays: list[Differenced]) -> Differenced:
    """Return one of several arrays, if their changes belong to the same points."""
    first, *others = arrays
    for other in others:
        if other.ledger is not first.ledger:
            raise TypeError(
                "an array was kept from an earlier evaluation of the function, which moved other "
                "elements: a function must depend on its argument alone"
            )
        if other.part.shape[0] != first.part.shape[0]:
            raise ArgumentError(
                "change",
                f"has {other.part.shape[0]} changes of one array and {first.part.shape[0]} of "
                "another; they must be as many",
            )
    return first


def check_library(xp: Any, other: Any) -> None:
    """Refuse an array of another library, which NumPy might convert in silence."""
    if isinstance(other, np.ndarray | np.generic):
        other_library = np if isinstance(other, np.ndarray) else xp
    elif isinstance(other, Differenced):
        other_library = other.xp
    else:
        other_library = namespace_of(other) if hasattr(other, "dtype") else xp
    if other_library is not xp:
        raise TypeError(
            f"arrays of {xp.__name__} and {other_library.__name__} meet: arrays are not moved by "
            "themselves; put both on one backend with get_backend().asarray(...)"
        )


def widen(x: Differenced, axes: tuple[int, ...]) -> tuple[Array, Window]:
    """Return the changes with a window that is as wide as the array along the given axes."""
    if windows.is_empty(x.window):
        window = windows.whole(x.shape)
    else:
        window = tuple(
            (0, x.shape[axis]) if axis in axes else x.window[axis] for axis in range(x.ndim)
        )
    return windows.enlarge(x.xp, x.part, x.window, window), window
