"""Windows: the part of an array that changes.

Most perturbations reach only a part of most arrays: moving one column of a weight matrix changes
one column of what is computed with it. So changes are kept for a box only, the *window*, given as
(start, stop) for each axis of the array; outside of it they are 0. A window may be empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from array_api_compat import device

from dlfs_gpu._validation import Array

Window = tuple[tuple[int, int], ...]
Shape = tuple[int, ...]


def whole(shape: Sequence[int]) -> Window:
    """Return the window that is all of an array."""
    return tuple((0, size) for size in shape)


def nothing(ndim: int) -> Window:
    """Return an empty window; a single number, which has no axes, cannot have one."""
    return ((0, 0),) * ndim


def shape_of(window: Window) -> Shape:
    """Return the shape of what a window shows."""
    return tuple(stop - start for start, stop in window)


def is_empty(window: Window) -> bool:
    """Say whether a window shows nothing."""
    return any(stop == start for start, stop in window)


def union(windows: Iterable[Window]) -> Window:
    """Return the smallest window around several, of which none is empty."""
    first, *others = windows
    for other in others:
        if other != first:
            first = tuple(
                (min(a, c), max(b, d)) for (a, b), (c, d) in zip(first, other, strict=True)
            )
    return first


def slices(window: Window, inside: Window | None = None) -> tuple[slice, ...]:
    """Return the index of a window in its array, or in the part that a larger window shows."""
    if inside is None:
        return tuple(slice(start, stop) for start, stop in window)
    return tuple(
        slice(start - first, stop - first)
        for (start, stop), (first, _) in zip(window, inside, strict=True)
    )


def spread(window: Window, shape: Shape, target: Shape) -> Window:
    """Return the window of an array of `shape` once it is broadcast to `target`."""
    missing = len(target) - len(shape)
    return whole(target[:missing]) + tuple(
        (0, size) if own == 1 != size and stop > start else (start, stop)
        for (start, stop), own, size in zip(window, shape, target[missing:], strict=True)
    )


def cut(array: Array, box: Window, target: Shape) -> Array:
    """Return what a window of `target` shows of an array that is broadcast to `target`."""
    shape = getattr(array, "shape", ())
    if not shape or box == whole(target):
        return array
    missing = len(target) - len(shape)
    index = tuple(
        slice(None) if size == 1 else slice(start, stop)
        for size, (start, stop) in zip(shape, box[missing:], strict=True)
    )
    return array[index]


def enlarge(xp: Any, part: Array, window: Window, box: Window) -> Array:
    """Return changes (P, *window) with zeros around them, (P, *box)."""
    if window == box:
        return part
    result = _zeros(xp, part, box)
    if not is_empty(window):
        result[(slice(None), *slices(window, box))] = part
    return result


def reshape(
    xp: Any, part: Array, window: Window, shape: Shape, target: Shape
) -> tuple[Array, Window]:
    """Return changes and their window as they are once their array is reshaped.

    Axes are matched in groups of equal size: (A·B, C) to (A, B, C) keeps the window of C. Within
    a group, changes of one axis fill the smallest box of several axes that holds them, and
    changes of several axes are filled up with zeros first.
    """
    if is_empty(window):
        window = nothing(len(target))
        return _zeros(xp, part, window), window
    box = list(window)
    new: list[tuple[int, int]] = []
    for old_axes, new_axes in _groups(shape, target):
        sizes = tuple(target[axis] for axis in new_axes)
        if tuple(shape[axis] for axis in old_axes) == sizes:
            new += [window[axis] for axis in old_axes]
        elif len(old_axes) == 1:
            inner = _box_around(*window[old_axes[0]], sizes)
            box[old_axes[0]] = _range_of(inner, sizes)
            new += inner
        else:
            for axis in old_axes:
                box[axis] = (0, shape[axis])
            new += whole(sizes)
    part = enlarge(xp, part, window, tuple(box))
    longer = iter(new)
    result = tuple((0, 1) if size == 1 else next(longer) for size in target)
    return xp.reshape(part, (part.shape[0], *shape_of(result))), result


def _zeros(xp: Any, part: Array, window: Window) -> Array:
    shape = (part.shape[0], *shape_of(window))
    return xp.zeros(shape, dtype=part.dtype, device=device(part))


def _groups(shape: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """Return axes of both shapes, from the left, that hold equally many elements, but not one."""
    old = [axis for axis, size in enumerate(shape) if size != 1]
    new = [axis for axis, size in enumerate(target) if size != 1]
    groups = []
    while old:
        group = [old.pop(0)], [new.pop(0)]
        while (size := math.prod(shape[axis] for axis in group[0])) != (
            goal := math.prod(target[axis] for axis in group[1])
        ):
            if size < goal:
                group[0].append(old.pop(0))
            else:
                group[1].append(new.pop(0))
        groups.append(group)
    return groups


def _box_around(start: int, stop: int, sizes: Shape) -> Window:
    """Return the smallest box of leading axes that holds a run of elements in C order."""
    box: list[tuple[int, int]] = []
    for axis in range(len(sizes)):
        row = math.prod(sizes[axis + 1 :])
        first, last = start // row, (stop - 1) // row
        box.append((first, last + 1))
        start, stop = start - first * row, stop - first * row
        if last > first:
            return (*box, *whole(sizes[axis + 1 :]))
    return tuple(box)


def _range_of(box: Window, sizes: Shape) -> tuple[int, int]:
    """Return the run of elements that a box made by `_box_around` holds."""
    first = last = 0
    for (start, stop), size in zip(box, sizes, strict=True):
        first = first * size + start
        last = last * size + stop - 1
    return first, last + 1
