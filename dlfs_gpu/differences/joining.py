"""Rules of functions that put arrays together and take them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlfs_gpu.differences import rules, windows
from dlfs_gpu.differences.array import Differenced, is_truth
from dlfs_gpu.differences.indexing import rearrange
from dlfs_gpu.differences.namespace import Namespace
from dlfs_gpu.differences.operands import as_number, check_library, check_together, make, still
from dlfs_gpu.differences.pointwise import namespace
from dlfs_gpu.differences.reductions import normalized
from dlfs_gpu.differences.windows import Window


@rules.rule("concat", "concatenate")
def _concat(arrays: Sequence[Any], axis: int | None = 0) -> Differenced:
    arrays = list(arrays)
    xp = _library(arrays)
    if axis is None:
        arrays = [xp.reshape(x, (-1,)) for x in arrays]
        axis = 0
    (axis,) = normalized(axis, len(arrays[0].shape))
    like = check_together([x for x in arrays if isinstance(x, Differenced)])
    values = [x.value if isinstance(x, Differenced) else x for x in arrays]
    value = xp.concat(values, axis=axis)
    if not is_truth(value):
        arrays = [
            as_number(x, value.dtype) if isinstance(x, Differenced) and is_truth(x) else x
            for x in arrays
        ]
    # Where each array begins in the result.
    begins = np.cumsum([0, *(x.shape[axis] for x in arrays)]).tolist()
    moving = [
        (x, begin, _shifted(x.window, axis, begin))
        for x, begin in zip(arrays, begins[:-1], strict=True)
        if isinstance(x, Differenced) and not windows.is_empty(x.window)
    ]
    if not moving:
        return still(like, value)
    box = windows.union([window for _, _, window in moving])
    parts, place = [], box[axis][0]
    for x, _, window in moving:
        # From the end of the array before to the end of this one.
        stop = window[axis][1]
        wide = (*box[:axis], (place, stop), *box[axis + 1 :])
        part = windows.enlarge(xp, x.part, window, wide)
        parts.append(xp.astype(part, value.dtype, copy=False))
        place = stop
    part = parts[0] if len(parts) == 1 else xp.concat(parts, axis=axis + 1)
    return make(like, value, part, box)


def _library(arrays: Sequence[Any]) -> Any:
    """Return the library that all arrays are of, whose functions take changes too."""
    xp = namespace(arrays)
    for x in arrays:
        check_library(xp, x)
    return Namespace.of(xp)


def _shifted(window: Window, axis: int, by: int) -> Window:
    start, stop = window[axis]
    return (*window[:axis], (start + by, stop + by), *window[axis + 1 :])


@rules.rule("stack")
def _stack(arrays: Sequence[Any], axis: int = 0) -> Differenced:
    xp = _library(arrays)
    arrays = [x if hasattr(x, "dtype") else xp.asarray(x) for x in arrays]
    (axis,) = normalized(axis, len(arrays[0].shape) + 1)
    longer = [
        xp.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))  # a new axis
        for x in arrays
    ]
    return _concat(longer, axis)


@rules.rule("vstack")
def _vstack(arrays: Sequence[Any]) -> Differenced:
    xp = _library(arrays)
    return _concat([xp.reshape(x, (1, -1)) if x.ndim < 2 else x for x in arrays], 0)


@rules.rule("hstack")
def _hstack(arrays: Sequence[Any]) -> Differenced:
    xp = _library(arrays)
    arrays = [xp.reshape(x, (1,)) if x.ndim == 0 else x for x in arrays]
    return _concat(arrays, 0 if arrays[0].ndim == 1 else 1)


@rules.rule("column_stack")
def _column_stack(arrays: Sequence[Any]) -> Differenced:
    xp = _library(arrays)
    return _concat([xp.reshape(x, (-1, 1)) if x.ndim < 2 else x for x in arrays], 1)


@rules.rule("split", "array_split")
def _split(x: Differenced, sections: Any, axis: int = 0) -> list[Differenced]:
    (axis,) = normalized(axis, x.ndim)
    size = x.shape[axis]
    split = np.array_split if isinstance(sections, int) else np.split
    if isinstance(sections, int) and size % sections:
        split = np.array_split
    before = (slice(None),) * axis
    parts = split(np.arange(size), sections)
    ends = np.cumsum([0, *map(len, parts)]).tolist()
    return [x[(*before, slice(*ends[k : k + 2]), ...)] for k in range(len(parts))]


@rules.rule("unstack")
def _unstack(x: Differenced, /, *, axis: int = 0) -> tuple[Differenced, ...]:
    (axis,) = normalized(axis, x.ndim)
    before = (slice(None),) * axis
    return tuple(x[(*before, k, ...)] for k in range(x.shape[axis]))


@rules.rule("pad")
def _pad(
    x: Differenced, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0
) -> Differenced:
    if mode in ("edge", "reflect", "symmetric", "wrap"):
        return rearrange(x, lambda numbers: rules.find(x.xp, ("pad",))(numbers, pad_width, mode))
    if mode != "constant":
        raise rules.no_rule(f"pad with mode={mode!r}")
    value = rules.find(x.xp, ("pad",))(x.value, pad_width, constant_values=constant_values)
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    window = tuple(
        (start + before, stop + before)
        for (start, stop), (before, _) in zip(x.window, widths, strict=True)
    )
    return make(x, value, x.part, window)


@rules.rule("diff")
def _diff(x: Differenced, n: int = 1, axis: int = -1) -> Any:
    (axis,) = normalized(axis, x.ndim)
    before = (slice(None),) * axis
    for _ in range(n):
        x = x[(*before, slice(1, None), ...)] - x[(*before, slice(None, -1), ...)]
    return x
