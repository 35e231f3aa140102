"""Numerical gradients of any function by arrays that carry changes.

The function is evaluated with x moved along many axes side by side. How many at once, and in which
order, is found by counting: trial evaluations show how many bytes of changes one more moved
element costs. With elements that follow each other along one axis of x, say a column of a weight
matrix, changes often stay within one column of all that is computed (see
`dlfs_gpu.differences.windows`); along another axis they may not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import device, is_cupy_array

from dlfs_gpu._validation import (
    ArgumentError,
    Array,
    check_memory,
    first_index,
    is_finite,
    namespace_of,
)
from dlfs_gpu.backend import memory_budget
from dlfs_gpu.differences import rules
from dlfs_gpu.differences.array import Differenced
from dlfs_gpu.differences.ledger import Ledger
from dlfs_gpu.differences.operands import seed
from dlfs_gpu.processes import ALONE, Processes, in_shares

Function = Callable[[Any], Any]

DEFAULT_STEP = 1e-4
"""The chapter's; rounding asks for no larger one here."""
_TRIAL = 16
"""Elements that a trial moves."""
_CALL_BYTES = {"host": 2**15, "device": 2**25}
"""Bytes of changes that are computed in the time that calling a rule takes."""

_HINT = (
    "With method='difference' a function is called with an array that carries changes. It takes "
    "NumPy's functions, Python's operators and the functions of array_namespace(x), but not those "
    "of CuPy or math themselves (cupy.exp, math.exp): write np.exp(x). Where that cannot be, "
    + rules.REMEDY
)


def difference_gradient(
    f: Function,
    x: Array,
    h: float,
    scheme: str,
    max_memory: int | None = None,
    progress: bool = False,
    processes: Processes = ALONE,
) -> Array:
    """Return central or forward differences of `f` at `x` for each element, without rounding.

    Parameters
    ----------
    f : callable
        Maps an array of the shape of `x` to one number, and uses its argument.
    x : array, real floating-point, finite
    h : float, positive
        Step; it is rounded to the type of `x`, and so is the divisor.
    scheme : {"central", "forward"}
        (f(x + h) − f(x − h)) / 2h, or (f(x + h) − f(x)) / h.
    max_memory : int, optional
        Bytes for changes; see `dlfs_gpu.backend.memory_budget`.
    progress : bool
        Show a progress bar.
    processes : Processes
        They share the work.

    Returns
    -------
    array, shape and dtype of `x`

    Raises
    ------
    ArgumentError
        If `x` is empty, `h` so small that changes underflow, or `max_memory` too small for one
        element; if `f` returns no single finite number, one that does not depend on its argument,
        or different ones for the same argument.
    TypeError
        If `f` is not callable, or does something that no rule is known for.
    """
    walk = _Walk(f, x, h, scheme)
    # One decides, because on a GPU free memory does.
    order, chunk = processes.from_root(lambda: walk.plan(memory_budget(x, max_memory)))
    xp = walk.xp
    flat = xp.empty_like(xp.reshape(x, (-1,)))

    def run(start: int, stop: int) -> None:
        # Rows of the order are not mixed unless several are taken whole.
        row = x.shape[order[-1]] if order else 1
        while start < stop:
            end = stop if stop - start > row else min(stop, start - start % row + row)
            flat[start:end] = walk.differences(order, start, end)[0]
            start = end

    flat = in_shares(run, flat, chunk, "gradient" if progress else "", processes)
    moved_shape = tuple(x.shape[axis] for axis in order)
    back = tuple(order.index(axis) for axis in range(x.ndim))
    gradient = xp.permute_dims(xp.reshape(flat, moved_shape), back)
    if not is_finite(gradient):
        where = list(first_index(~xp.isfinite(gradient)))
        raise ArgumentError(
            "f",
            f"gave NaN or infinity at x or where x{where if where else ''} was moved by the step",
        )
    return gradient


def difference_derivative(f: Function, x: Array, h: float, scheme: str) -> Array:
    """Return differences of a function that works element by element, at all elements at once.

    Parameters, result and errors are those of `difference_gradient`, but that `f` must return
    an array of the shape of `x`.
    """
    walk = _Walk(f, x, h, scheme)
    xp = walk.xp
    steps = xp.asarray(walk.signs, dtype=x.dtype, device=device(x)) * walk.step
    steps = xp.reshape(steps, (-1,) + (1,) * x.ndim)
    moved = Differenced(x, xp.broadcast_to(steps, (len(walk.signs), *x.shape)))
    demand = f"it must return one number for each element of x, {tuple(x.shape)}"
    change = walk.result(f(moved), tuple(x.shape), demand).change
    derivative = walk.quotient(change)[0, ...]
    if not is_finite(derivative):
        raise ArgumentError("f", "gave NaN or infinity at x or within the step from it")
    return derivative


def _step_of(x: Array, h: float) -> float:
    """Return the step as it is in the type of x, and refuse what cannot be differenced."""
    if math.prod(x.shape) == 0:
        raise ArgumentError("x", f"has shape {tuple(x.shape)}: it is empty")
    xp = namespace_of(x)
    info = xp.finfo(x.dtype)
    least, most = float(info.smallest_normal) / float(info.eps), float(info.max) / 4
    if not least <= h <= most:
        problem = "small that changes underflow" if h < 1 else "large that changes overflow"
        raise ArgumentError("h", f"is {h}, so {problem} in {x.dtype}")
    return float(xp.asarray(h, dtype=x.dtype))


@dataclass
class _Cost:
    """What evaluations take: a·P + b·P² bytes for P elements, and a fixed part.

    Attributes
    ----------
    order : tuple of int
        Axes of x, the last one fastest.
    row : int
        Length of the last one.
    fixed : float
        Bytes that could be computed in the time that calls take.
    computed, peak : tuple of float
        a and b of the bytes computed, and of those alive at once.
    """

    order: tuple[int, ...]
    row: int
    fixed: float
    computed: tuple[float, float]
    peak: tuple[float, float]

    def chunk(self, size: int, budget: int) -> int:
        """Return how many elements to move at once."""
        square = self.computed[1]
        best = math.isqrt(int(self.fixed / square)) if square > 0 else size
        largest = min(best, _largest(*self.peak, budget))
        if largest < self.row:
            # In rows of equal parts.
            return max(1, math.ceil(self.row / math.ceil(self.row / max(1, largest))))
        # Several rows side by side may cost their square.
        row, peak = (a * self.row + b * self.row**2 for a, b in (self.computed, self.peak))
        rows = math.isqrt(max(1, int(min(self.fixed / row, budget / peak))))
        return min(size, rows * self.row)

    def of_each(self, size: int, budget: int) -> float:
        """Return what an element takes, in such chunks."""
        count = self.chunk(size, budget)
        linear, square = self.computed
        return self.fixed / count + linear + square * min(count, self.row)


def _largest(linear: float, square: float, budget: int) -> int:
    """Return the largest P with a·P + b·P² ≤ budget."""
    if square == 0:
        return int(budget / linear) if linear else 2**62
    return int((math.sqrt(linear**2 + 4 * square * budget) - linear) / (2 * square))


def _fit(one: float, many: float, count: int) -> tuple[float, float]:
    """Return a and b of a·P + b·P² that is `one` for P = 1 and `many` for P = count."""
    if count == 1:  # Nothing is known, and the square is the worst.
        return 0.0, one
    square = max(0.0, (many - count * one) / (count * count - count))
    return (many / count if square == 0 else one - square), square


class _Walk:
    """A function, and the points around x that it is evaluated at."""

    def __init__(self, f: Function, x: Array, h: float, scheme: str) -> None:
        if not callable(f):
            raise TypeError(f"f is {f!r}; it must be a function")
        self.f = f
        self.x = x
        self.xp = namespace_of(x)
        self.step = _step_of(x, h)
        self.signs = (1.0, -1.0) if scheme == "central" else (1.0,)
        self.value: Any = None

    def plan(self, budget: int) -> tuple[tuple[int, ...], int]:
        """Return the order of axes, the last one fastest, and how many elements to move at once."""
        x = self.x
        size = math.prod(x.shape)
        axes = [axis for axis in range(x.ndim) if x.shape[axis] > 1] or list(range(x.ndim))[-1:]
        rest = tuple(range(x.ndim))
        _, one = self.differences(rest, 0, 1)
        check_memory(budget, one.peak, "one moved element")
        fixed = one.operations * _CALL_BYTES["device" if is_cupy_array(x) else "host"]
        if size == 1:
            return rest, 1
        costs = []
        for axis in axes:
            order = (*(k for k in rest if k != axis), axis)
            # At worst changes grow with the square.
            count = min(_TRIAL, x.shape[axis], math.isqrt(budget // one.peak))
            _, many = self.differences(order, 0, count)
            costs.append(
                _Cost(
                    order,
                    x.shape[axis],
                    fixed,
                    _fit(one.total, many.total, count),
                    _fit(one.peak, many.peak, count),
                )
            )
        best = min(costs, key=lambda cost: cost.of_each(size, budget))
        return best.order, best.chunk(size, budget)

    def differences(self, order: tuple[int, ...], start: int, stop: int) -> tuple[Array, Ledger]:
        """Return differences for elements start to stop of x with its axes in this order."""
        ledger = Ledger()
        moved = self._moved(order, start, stop, ledger)
        try:
            returned = self.f(moved)
        except TypeError as error:
            error.add_note(_HINT)
            raise
        demand = "with method='difference' it must return a single number"
        result = self.result(returned, (), demand)
        if result.ledger is not ledger:
            raise TypeError("f returned an array that it kept from an earlier call")
        if self.value is None:
            self.value = result.value
        elif bool(result.value != self.value) and bool(self.value == self.value):
            raise ArgumentError("f", "gave different values for the same argument")
        return self.quotient(result.part), ledger

    def _moved(self, order: tuple[int, ...], start: int, stop: int, ledger: Ledger) -> Differenced:
        """Return x with one element after the other moved by +h and by −h."""
        xp, x = self.xp, self.x
        count = stop - start
        eye = xp.eye(count, dtype=x.dtype, device=device(x)) * self.step
        part = xp.concat([eye * sign for sign in self.signs], axis=0)
        in_order = xp.permute_dims(x, order)
        flat = seed(xp, xp.reshape(in_order, (-1,)), part, ((start, stop),), ledger)
        moved = rules.call("reshape", flat, tuple(in_order.shape))
        back = tuple(order.index(axis) for axis in range(x.ndim))
        moved = rules.call("permute_dims", moved, back)
        # As it lies in memory, so that sums over it are rounded alike in each order.
        moved.value = x
        return moved  # type: ignore[no-any-return]

    def result(self, returned: Any, shape: tuple[int, ...], demand: str) -> Differenced:
        """Return what the function returned, if it is what it must be."""
        if isinstance(returned, Differenced):
            if returned.shape != shape:
                raise ArgumentError("f", f"returned an array of shape {returned.shape}; {demand}")
            if not self.xp.isdtype(returned.dtype, "real floating"):
                raise TypeError(f"f returned {returned.dtype}; {demand}")
            return returned
        if isinstance(returned, int | float) or hasattr(returned, "dtype"):
            raise ArgumentError(
                "f",
                "returned a value that does not depend on its argument; a function that reads "
                "other variables, as the book's read network.W, needs method='loop'",
            )
        raise TypeError(f"f returned {returned!r}; {demand}")

    def quotient(self, change: Array) -> Array:
        """Return changes by ±h, those by +h first, as differences divided by the step."""
        if len(self.signs) == 1:
            return change / self.step
        half = change.shape[0] // 2
        return (change[:half, ...] - change[half:, ...]) / (2 * self.step)
