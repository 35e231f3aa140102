"""Rules of functions that give an array another shape, or its elements another type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlfs_gpu.differences import rules, windows
from dlfs_gpu.differences.array import Differenced, is_truth
from dlfs_gpu.differences.operands import as_number, make
from dlfs_gpu.differences.pointwise import namespace
from dlfs_gpu.differences.reductions import normalized


@rules.rule("reshape")
def _reshape(
    x: Differenced, shape: Any = None, order: str = "C", *, newshape: Any = None, copy: Any = None
) -> Differenced:
    if order != "C":
        raise TypeError("reshape has a rule for order='C' only")
    target = newshape if shape is None else shape
    target = (target,) if isinstance(target, int | np.integer) else tuple(target)
    value = x.xp.reshape(x.value, target)
    part, window = windows.reshape(x.xp, x.part, x.window, x.shape, tuple(value.shape))
    return make(x, value, part, window)


@rules.rule("ravel")
def _ravel(x: Differenced, order: str = "C") -> Differenced:
    return _reshape(x, (-1,), order)


@rules.rule("expand_dims")
def _expand_dims(x: Differenced, axis: Any = 0) -> Differenced:
    axes = axis if isinstance(axis, tuple) else (axis,)
    axes = normalized(axes, x.ndim + len(axes))
    sizes = iter(x.shape)
    return _reshape(x, [1 if k in axes else next(sizes) for k in range(x.ndim + len(axes))])


@rules.rule("squeeze")
def _squeeze(x: Differenced, axis: Any = None) -> Differenced:
    if axis is None:
        axis = tuple(k for k, size in enumerate(x.shape) if size == 1)
    value = x.xp.squeeze(x.value, axis=axis)
    return _reshape(x, tuple(value.shape))


@rules.rule("atleast_1d")
def _atleast_1d(x: Differenced) -> Differenced:
    return x if x.ndim else _reshape(x, (1,))


@rules.rule("atleast_2d")
def _atleast_2d(x: Differenced) -> Differenced:
    return x if x.ndim >= 2 else _reshape(x, (1, -1))


@rules.rule("permute_dims", "transpose")
def _transpose(x: Differenced, axes: Sequence[int] | None = None) -> Differenced:
    order = tuple(range(x.ndim))[::-1] if axes is None else normalized(tuple(axes), x.ndim)
    value = x.xp.permute_dims(x.value, order)
    part = x.xp.permute_dims(x.part, (0, *(k + 1 for k in order)))
    return make(x, value, part, tuple(x.window[k] for k in order))


@rules.rule("matrix_transpose", "linalg.matrix_transpose")
def _matrix_transpose(x: Differenced) -> Differenced:
    return _swapaxes(x, -1, -2)


@rules.rule("swapaxes")
def _swapaxes(x: Differenced, axis1: int, axis2: int) -> Differenced:
    order = list(range(x.ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return _transpose(x, order)


@rules.rule("moveaxis")
def _moveaxis(x: Differenced, source: Any, destination: Any) -> Differenced:
    sources, places = (
        normalized(tuple(axis) if isinstance(axis, tuple | list) else axis, x.ndim)
        for axis in (source, destination)
    )
    order = [k for k in range(x.ndim) if k not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return _transpose(x, order)


@rules.rule("broadcast_to")
def _broadcast_to(x: Differenced, shape: Any) -> Differenced:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    value = x.xp.broadcast_to(x.value, shape)
    window = windows.spread(x.window, x.shape, shape)
    missing = len(shape) - x.ndim
    part = x.xp.reshape(x.part, (x.part.shape[0], *(1,) * missing, *x.part.shape[1:]))
    part = x.xp.broadcast_to(part, (x.part.shape[0], *windows.shape_of(window)))
    return make(x, value, part, window)


@rules.rule("broadcast_arrays")
def _broadcast_arrays(*arrays: Any) -> list[Any]:
    xp = namespace(arrays)
    shape = np.broadcast_shapes(*(tuple(x.shape) for x in arrays))
    return [
        _broadcast_to(x, shape) if isinstance(x, Differenced) else xp.broadcast_to(x, shape)
        for x in arrays
    ]


@rules.rule("astype")
def _astype(
    x: Differenced,
    dtype: Any,
    /,
    *,
    copy: bool = True,
    device: Any = None,
) -> Differenced:
    xp = x.xp
    if device is not None and device != x.device:
        raise TypeError("astype has no rule for moving an array to another device")
    target = xp.result_type(dtype) if xp is np else dtype
    if xp.isdtype(target, "bool"):
        return x if is_truth(x) else x != 0
    if not xp.isdtype(target, "real floating"):
        raise TypeError(
            f"astype to {dtype} has no rule: changes are real numbers; use floor or trunc, or "
            + rules.REMEDY
        )
    if is_truth(x):
        return as_number(x, target)
    return make(x, xp.astype(x.value, target), xp.astype(x.part, target), x.window)


@rules.rule("asarray")
def _asarray(x: Any, /, *, dtype: Any = None, device: Any = None, copy: Any = None) -> Any:
    if not isinstance(x, Differenced):
        raise TypeError("asarray takes no list of arrays with changes: use stack or concat")
    return x if dtype is None else _astype(x, dtype, device=device)


@rules.rule("copy", "conj", "conjugate", "real", "ascontiguousarray")
def _same(x: Differenced, *_args: Any, **_kwargs: Any) -> Differenced:
    # Arrays with changes cannot be written into, so that a copy is as good as the original.
    return x


def _about(name: str) -> None:
    """Register a function that only asks what an array looks like, or makes one like it."""

    @rules.rule(name)
    def function(*args: Any, **kwargs: Any) -> Any:
        xp = namespace(args)
        plain = getattr(xp, name, None) or getattr(np, name)
        return plain(*(x.value if isinstance(x, Differenced) else x for x in args), **kwargs)


for _name in (
    "can_cast",
    "empty_like",
    "full_like",
    "iscomplexobj",
    "isrealobj",
    "ndim",
    "ones_like",
    "result_type",
    "shape",
    "size",
    "zeros_like",
):
    _about(_name)
