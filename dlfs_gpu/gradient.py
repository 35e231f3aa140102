"""Numerical differentiation and gradient descent (sections 4.3 and 4.4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import Array, as_float, is_finite, namespace_of
from dlfs_gpu.backend import memory_budget, run_in_chunks

Function = Callable[[Any], Any]
Method = Literal["loop", "batched"]
Scheme = Literal["central", "forward"]

# Near eps^(1/3) for central and eps^(1/2) for forward differences, where truncation and rounding
# balance; powers of two, which most x take without rounding. 1e-4 is the chapter's.
_STEPS = {
    ("central", 64): 1e-4,
    ("central", 32): 2.0**-7,
    ("forward", 64): 2.0**-26,
    ("forward", 32): 2.0**-11,
}


def default_step(dtype: Any, scheme: Scheme = "central", *, xp: Any = np) -> float:
    """Return the step h used for arrays of `dtype` where none is given.

    Central differences: 1e-4 in float64 as in the chapter, 2⁻⁷ in float32, where 1e-4 would make
    gradients 40 % wrong and worse. Forward differences: 2⁻²⁶ and 2⁻¹¹.

    Raises
    ------
    TypeError
        If `dtype` is neither float32 nor float64.
    ValueError
        If `scheme` is neither "central" nor "forward".
    """
    if scheme not in ("central", "forward"):
        raise ValueError(f"scheme is {scheme!r}; it must be 'central' or 'forward'")
    try:
        bits = xp.finfo(dtype).bits
    except (TypeError, ValueError):
        bits = 0
    if bits not in (32, 64):
        raise TypeError(f"x has the type {dtype}; differences need float32 or float64")
    return _STEPS[scheme, bits]


def numerical_diff(
    f: Function,
    x: Any,
    h: float | None = None,
    *,
    scheme: Scheme = "central",
    nominal_step: bool = False,
) -> Any:
    """Differentiate a function of one variable by a finite difference (4.3.1).

    Parameters
    ----------
    f : callable
        Function of one number, or one that works element by element.
    x : float or array
        Where; an array gives the derivative at each of its elements.
    h : float, optional
        Step; `default_step` by default.
    scheme : {"central", "forward"}
        (f(x+h) − f(x−h)) / 2h, or (f(x+h) − f(x)) / h, the chapter's bad example.
    nominal_step : bool
        Divide by 2h (or h), as the chapter does: its numbers come out to the last digit, and a
        step lost in rounding gives 0. By default the divisor is the step that rounding left,
        (x+h) − (x−h).

    Raises
    ------
    ValueError
        If h is not positive and finite, or so small that x + h == x; if `x` is not finite, or
        `f` returns another shape than that of `x`.
    """
    x = as_float(x)
    upper, lower, step = _points(x, h, scheme, nominal_step)

    def value(point: Any) -> Any:
        demand = f"it must return one number for each element of x, {tuple(x.shape)}"
        return _checked("f", f(point), x.shape, demand)

    return (value(upper) - value(lower)) / step


def numerical_gradient(
    f: Function,
    x: Array,
    h: float | None = None,
    *,
    method: Method = "loop",
    scheme: Scheme = "central",
    nominal_step: bool = False,
    return_error: bool = False,
    max_memory: int | None = None,
    progress: bool = False,
) -> Any:
    """Differentiate a function of an array with respect to each element (4.4).

    Parameters
    ----------
    f : callable
        With ``method="loop"`` it maps an array of the shape of `x` to one number, and may read
        `x` itself instead of its argument, as the book's closures do. With ``"batched"`` it maps
        K such arrays stacked, (K, *x.shape), to K numbers, (K,).
    x : array, any shape
        Where. The loop writes to `x` and always restores it, also when `f` raises. Integers and
        read-only arrays are copied first, the integers to float64, and a closure over `x` cannot
        see the copy.
    h : float, optional
        Step; `default_step` by default.
    method : {"loop", "batched"}
        How `f` is evaluated; it is never guessed.
    scheme, nominal_step
        As in `numerical_diff`.
    return_error : bool
        Also return an estimate of the error of each element, by evaluating a second time with
        h/2 and comparing (Richardson [1]_). It covers truncation, and rounding roughly.
    max_memory : int, optional
        Bytes that ``"batched"`` may use for its stacked copies; 256 MiB by default, half of the
        free memory on a GPU. Halved and tried again when memory runs out.
    progress : bool
        Show a progress bar.

    Returns
    -------
    gradient : array, shape and dtype of `x`
    error : array, same
        Only with ``return_error=True``.

    Raises
    ------
    ValueError
        If h is not positive and finite, or so small that x + h == x somewhere; if `x` is not
        finite; if `f` returns another shape, or NaN or infinity, or changes its argument (which is
        then restored); if `max_memory` is less than one copy takes.
    TypeError
        If `x` is neither float32 nor float64 nor integer, or `f` returns no number or array.

    References
    ----------
    .. [1] L. F. Richardson, "The approximate arithmetical solution by finite differences of
       physical problems", Phil. Trans. R. Soc. A 210 (1911), 307-357.

    Examples
    --------
    >>> import numpy as np
    >>> from dlfs_gpu import function_2, numerical_gradient
    >>> numerical_gradient(function_2, np.array([3.0, 4.0])).round(6)
    array([6., 8.])
    """
    if method not in ("loop", "batched"):
        raise ValueError(f"method is {method!r}; it must be 'loop' or 'batched'")
    x = as_float(x)
    xp = namespace_of(x)

    def evaluate(h: float | None) -> Array:
        upper, lower, step = _points(x, h, scheme, nominal_step)
        if method == "loop":
            difference = _loop(f, x, upper, None if scheme == "forward" else lower, progress)
        else:
            difference = _batched(f, x, upper, lower, max_memory, progress)
        if not is_finite(difference):
            where = _first_index(~xp.isfinite(difference))
            raise ValueError(f"f gave NaN or infinity when x{where} was moved by the step")
        return difference / step

    gradient = evaluate(h)
    if not return_error:
        return gradient
    h = default_step(x.dtype, scheme, xp=xp) if h is None else h
    # Truncation falls with h² (central) or h (forward): the two results differ by 3/4 or 1/2 of it.
    factor = 4 / 3 if scheme == "central" else 2
    return gradient, factor * xp.abs(gradient - evaluate(h / 2))


def gradient_descent(
    f: Function,
    init_x: Array,
    lr: float = 0.01,
    step_num: int = 100,
    *,
    gradient: Function | None = None,
) -> tuple[Array, Array]:
    """Walk downhill: x ← x − lr·∇f(x), `step_num` times (4.4.1).

    Parameters
    ----------
    f : callable
        Function of an array of the shape of `init_x`, giving one number. It must use its argument:
        a closure that reads `init_x` itself, as the book's do, would not see the walk.
    init_x : array
        Start; it is not changed.
    lr : float
        Learning rate, positive.
    step_num : int
        Number of steps.
    gradient : callable, optional
        Gradient of `f`. By default central differences divided by 2h, as in the chapter, whose
        numbers come out to the last digit: also those of a rate so large that the walk diverges
        until h is lost in rounding.

    Returns
    -------
    x : array
        Where the walk ends.
    history : array, shape (step_num + 1, *init_x.shape)
        Every position, the start and the end included.

    Raises
    ------
    ValueError
        If `lr` is not positive and finite, or `step_num` is negative; if `init_x` is not finite,
        or `gradient` returns another shape, NaN or infinity.
    TypeError
        If `gradient` returns no array of real numbers.
    """
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"lr is {lr}; it must be positive and finite")
    if step_num < 0:
        raise ValueError(f"step_num is {step_num}; it must be 0 or more")
    x = as_float(init_x)
    xp = namespace_of(x)
    history = [x]
    if not is_finite(x):
        raise ValueError("init_x holds NaN or infinity; every number must be finite")
    for _ in range(step_num):
        # numerical_gradient writes to what it is given.
        here = xp.asarray(x, copy=True)
        if gradient is None:
            slope = numerical_gradient(f, here, nominal_step=True)
        else:
            slope = _checked("gradient", gradient(here), x.shape, "it must return one like x")
            if not is_finite(slope):
                raise ValueError(f"gradient returned NaN or infinity at step {len(history)}")
        x = x - float(lr) * xp.astype(slope, x.dtype, copy=False)
        history.append(x)
    return xp.asarray(x, copy=True), xp.stack(history)


def tangent_line(f: Function, x: float) -> Function:
    """Return the tangent of `f` at `x` as a function: t ↦ f′(x)·t + f(x) − f′(x)·x (4.3.2)."""
    slope = numerical_diff(f, x)
    intercept = f(x) - slope * x
    return lambda t: slope * t + intercept


def _points(
    x: Array, h: float | None, scheme: Scheme, nominal_step: bool
) -> tuple[Array, Array, Array | float]:
    """Return the two points on each axis that a difference is taken between, and its divisor."""
    xp = namespace_of(x)
    default = default_step(x.dtype, scheme, xp=xp)
    h = default if h is None else check_step(h)
    if not is_finite(x):
        raise ValueError(f"x{_first_index(~xp.isfinite(x))} is NaN or infinite; x must be finite")
    upper = x + h
    lower = x - h if scheme == "central" else x
    if nominal_step:
        return upper, lower, 2 * h if scheme == "central" else h
    lost = upper == x if scheme == "forward" else (upper == x) | (lower == x)
    if bool(xp.any(lost)):
        where = _first_index(lost)
        raise ValueError(
            f"h is {h}, so small that x{where} + h == x{where} or x{where} - h == x{where} in "
            f"{x.dtype}; it must be larger"
        )
    return upper, lower, upper - lower


def check_step(h: float) -> float:
    """Return `h` as a Python number, which promotes no array, if it is positive and finite."""
    if not (math.isfinite(h) and h > 0):
        raise ValueError(f"h is {h}; it must be positive and finite")
    return float(h)


def _loop(f: Function, x: Array, upper: Array, lower: Array | None, progress: bool) -> Array:
    """Difference f along each axis, one element at a time; `lower` None stands for x itself."""
    xp = namespace_of(x)
    flags = getattr(x, "flags", None)
    if not getattr(flags, "writeable", True):
        x = xp.asarray(x, copy=True)
    original = xp.asarray(x, copy=True)
    difference = xp.empty_like(x)
    indices = list(np.ndindex(*x.shape))
    middle = _number(f(x)) if lower is None else None

    def run(start: int, stop: int) -> None:
        for index in indices[start:stop]:
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
            difference[index] = value

    run_in_chunks(run, len(indices), max(1, len(indices) // 1000), "gradient" * progress)
    if not bool(xp.all(x == original)):
        x[...] = original
        raise ValueError("f changed its argument; it must leave it as it is, or change a copy")
    return difference


def _number(value: Any) -> Any:
    # A copy: f may have returned a view of x, which is about to change.
    return _checked("f", value, (), "with method='loop' it must return a single number") + 0.0


def _checked(name: str, value: Any, shape: tuple[int, ...], demand: str) -> Any:
    """Return what a function returned, in floating point, if it is what it must be."""
    found = () if isinstance(value, int | float) else getattr(value, "shape", None)
    if found is None:
        raise TypeError(f"{name} returned {value!r}; {demand}")
    if found != shape:
        raise ValueError(f"{name} returned an array of shape {tuple(found)}; {demand}")
    # Unsigned integers would wrap around when subtracted.
    return as_float(value, f"what {name} returned")


def _batched(
    f: Function, x: Array, upper: Array, lower: Array, max_memory: int | None, progress: bool
) -> Array:
    """Difference f along each axis, many perturbed copies at a time."""
    xp = namespace_of(x)
    size = math.prod(x.shape)
    copy_bytes = size * xp.finfo(x.dtype).bits // 8
    budget = memory_budget(x, max_memory)
    if budget < copy_bytes:
        raise ValueError(f"max_memory is {budget} bytes; one copy of x takes {copy_bytes}")
    flat = xp.reshape(x, (1, size))
    difference = xp.empty_like(flat)

    def values(points: Array, start: int, stop: int) -> Array:
        count = stop - start
        moved = xp.eye(count, size, k=start, dtype=xp.bool, device=device(x))
        copies = xp.where(moved, xp.reshape(points, (1, size)), flat)
        return _checked(
            "f",
            f(xp.reshape(copies, (count, *x.shape))),
            (count,),
            f"with method='batched' it must map {count} stacked copies of x to ({count},)",
        )

    def run(start: int, stop: int) -> None:
        difference[0, start:stop] = values(upper, start, stop) - values(lower, start, stop)

    if size > 1:
        # An f that sums along the stack would pass for right with as many copies as elements.
        values(x, 0, 1)
    run_in_chunks(run, size, max(1, budget // (copy_bytes or 1)), "gradient" * progress)
    return xp.reshape(difference, x.shape)


def _first_index(mask: Array) -> str:
    """Return the index of the first true element as it would be written: ``[2, 3]``."""
    xp = namespace_of(mask)
    flat = int(xp.argmax(xp.astype(xp.reshape(mask, (-1,)), xp.int8)))
    return str([int(i) for i in np.unravel_index(flat, mask.shape)]) if mask.ndim else ""
