"""Functions that work element by element: how a rule for one element becomes one for arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.differences import rules, windows
from dlfs_gpu.differences.array import Differenced, is_truth
from dlfs_gpu.differences.operands import as_number, check_library, check_together, make, still

Change = Callable[..., Array]
"""``change(xp, out, *values, *changes)`` gives the changes (P, ...) of ``out``, the function of the
values. The changes of a constant are None. Values and changes broadcast against each other."""


def pointwise(
    *names: str, scalars: bool = False, truths: bool = False
) -> Callable[[Change], Change]:
    """Register how a function that works element by element changes.

    Parameters
    ----------
    *names : str
        Its names; of the first that a library has, the values are computed.
    scalars : bool
        Whether the rule takes Python numbers too; else they become arrays.
    truths : bool
        Whether it takes truth values as they are; else as 0 and 1.
    """

    def register(change: Change) -> Change:
        def function(*args: Any, **kwargs: Any) -> Any:
            if kwargs:
                raise TypeError(f"{names[0]} got an unexpected keyword argument {min(kwargs)!r}")
            xp = namespace(args)
            return evaluate(rules.find(xp, names), change, args, scalars=scalars, truths=truths)

        rules.rule(*names)(function)
        return change

    return register


def namespace(args: Any) -> Any:
    """Return the library of the arrays with changes among some arguments."""
    return next(arg.xp for arg in args if isinstance(arg, Differenced))


def evaluate(
    function: Callable[..., Array],
    change: Change,
    args: tuple[Any, ...],
    *,
    scalars: bool = False,
    truths: bool = False,
) -> Differenced:
    """Apply a function that works element by element, and the rule for its changes."""
    args = tuple(_as_array(arg, args) for arg in args)
    if not truths:
        args = _as_numbers(args)
    value = function(*(arg.value if isinstance(arg, Differenced) else arg for arg in args))
    like = check_together([arg for arg in args if isinstance(arg, Differenced)])
    xp, shape = like.xp, tuple(value.shape)
    moving = [
        windows.spread(arg.window, arg.shape, shape)
        for arg in args
        if isinstance(arg, Differenced) and not windows.is_empty(arg.window)
    ]
    if not moving:
        return still(like, value)
    box = windows.union(moving)
    values, changes = [], []
    for arg in args:
        own = arg.value if isinstance(arg, Differenced) else arg
        if not scalars and isinstance(own, int | float):
            own = xp.asarray(own, dtype=_number_type(value, args), device=like.device)
        values.append(windows.cut(own, box, shape))
        changes.append(_changes_in(arg, box, shape))
    with np.errstate(all="ignore"):
        out = windows.cut(value, box, shape)
        part = change(xp, out, *values, *changes)
        if not is_truth(out) and not bool(xp.all(xp.isfinite(out))):
            part = _still(xp, part, changes)
    target = (like.part.shape[0], *windows.shape_of(box))
    if tuple(part.shape) != target:
        part = xp.broadcast_to(part, target)
    return make(like, value, part, box)


def _still(xp: Any, part: Array, changes: list[Array | None]) -> Array:
    """Return changes that are 0 where nothing moved, as of log 0, whose rule gives NaN."""
    moves = [d if is_truth(d) else d != 0 for d in changes if d is not None]
    any_moves = functools.reduce(lambda x, y: x | y, moves)
    return xp.where(any_moves, part, xp.zeros_like(part))


def _as_array(arg: Any, args: tuple[Any, ...]) -> Any:
    """Return lists as NumPy arrays, where NumPy's functions would take them."""
    xp = namespace(args)
    if isinstance(arg, list | tuple) and xp is np:
        return np.asarray(arg)
    check_library(xp, arg)
    return arg


def _as_numbers(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return truth values with changes as numbers of the type that the others have."""
    xp = namespace(args)
    types = [arg.dtype for arg in args if hasattr(arg, "dtype")]
    dtype = next((t for t in types if xp.isdtype(t, "real floating")), xp.float64)
    return tuple(
        as_number(arg, dtype) if isinstance(arg, Differenced) and is_truth(arg) else arg
        for arg in args
    )


def _number_type(value: Array, args: tuple[Any, ...]) -> Any:
    """Return the type for Python numbers: that of the result or, of comparisons, of an operand."""
    if not is_truth(value):
        return value.dtype
    return next(arg.dtype for arg in args if isinstance(arg, Differenced))


def _changes_in(arg: Any, box: windows.Window, shape: tuple[int, ...]) -> Array | None:
    """Return the changes of an argument as they broadcast to a window of the result."""
    if not isinstance(arg, Differenced) or windows.is_empty(arg.window):
        return None
    missing = len(shape) - arg.ndim
    own = tuple(
        (0, 1) if size == 1 else bounds
        for size, bounds in zip(arg.shape, box[missing:], strict=True)
    )
    part = windows.enlarge(arg.xp, arg.part, arg.window, own)
    if missing:
        part = arg.xp.reshape(part, (part.shape[0], *(1,) * missing, *part.shape[1:]))
    return part


def with_difference(function: Callable[..., Any], change: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that works element by element a rule for differences without rounding.

    Parameters
    ----------
    function : callable
        A function of one or more arrays: a ufunc, as those of SciPy, or any other callable.
    change : callable
        ``change(*values, *changes)`` returns f(x + d) − f(x), for all d at once. The values are
        arrays of the shapes of the arguments, or a part of them, the changes have P in front, and
        all broadcast against each other. Of arguments that are constants the changes are 0. For
        small d it must not subtract nearly equal numbers.

    Returns
    -------
    callable
        `function` itself if it is a ufunc, whose rule is now known; else a function that calls it,
        and follows the rule for `Differenced` arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from dlfs_gpu import numerical_gradient, with_difference
    >>> cube = with_difference(lambda x: x**3, lambda x, d: d * (3 * x * x + 3 * x * d + d * d))
    >>> numerical_gradient(lambda x: np.sum(cube(x)), np.array([2.0]), method="difference")
    array([12.00000001])
    """

    def with_zeros(xp: Any, _out: Array, *arrays: Any) -> Array:
        count = len(arrays) // 2
        zero = xp.zeros_like(next(d for d in arrays[count:] if d is not None)[:1, ...])
        changes = [zero if d is None else d for d in arrays[count:]]
        return change(*arrays[:count], *changes)

    def rule(*args: Any) -> Any:
        return evaluate(function, with_zeros, args)

    if isinstance(function, np.ufunc):
        rules.by_function[function] = rule
        return function

    @functools.wraps(function)
    def dispatching(*args: Any) -> Any:
        return (rule if any(isinstance(a, Differenced) for a in args) else function)(*args)

    return dispatching
