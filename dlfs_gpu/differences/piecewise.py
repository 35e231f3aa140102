"""Rules of functions in pieces: comparisons, choices, and rounding.

Names are as in `dlfs_gpu.differences.arithmetic`. Which piece a moved point lies in is decided
exactly, as if x + d were not rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlfs_gpu._validation import Array
from dlfs_gpu.differences import rules
from dlfs_gpu.differences.arithmetic import abs_change, maximum_change, two_sum
from dlfs_gpu.differences.array import Differenced, is_truth
from dlfs_gpu.differences.operands import as_number, make
from dlfs_gpu.differences.pointwise import evaluate, namespace, pointwise


@pointwise("abs", "absolute", "fabs")
def _abs(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    return abs_change(xp, x, d)


def _gap(xp: Any, x: Array, y: Array) -> Array:
    """Return x − y; 0 of equal infinities."""
    return xp.where(x == y, xp.zeros_like(x - y), x - y)


@pointwise("maximum")
def _maximum(xp: Any, _out: Array, x: Array, y: Array, dx: Array, dy: Array) -> Array:
    gap = _gap(xp, x, y)
    zero = xp.zeros_like(gap)
    return maximum_change(xp, gap, zero if dx is None else dx, zero if dy is None else dy)


@pointwise("minimum")
def _minimum(xp: Any, _out: Array, x: Array, y: Array, dx: Array, dy: Array) -> Array:
    """Return the change of −max(−x, −y)."""
    gap = _gap(xp, x, y)
    zero = xp.zeros_like(gap)
    return -maximum_change(xp, -gap, zero if dx is None else -dx, zero if dy is None else -dy)


@rules.rule("clip")
def _clip(
    x: Any,
    a_min: Any = None,
    a_max: Any = None,
    *,
    min: Any = None,
    max: Any = None,
) -> Any:
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    if low is not None:
        x = rules.call("maximum", x, low)
    if high is not None:
        x = rules.call("minimum", x, high)
    return x


def _comparison(name: str, compare: Callable[[Array], Array]) -> None:
    """Register a comparison: at the moved points x − y + dx − dy has to have a certain sign.

    Sums that keep what rounding takes away tell the sign exactly.
    """

    def change(xp: Any, out: Array, x: Array, y: Array, dx: Array, dy: Array) -> Array:
        dtype = xp.result_type(x.dtype, y.dtype)
        gap, rest = two_sum(xp, xp.astype(x, dtype), -xp.astype(y, dtype))
        gap = xp.where(x == y, xp.zeros_like(gap), gap)
        d = -dy if dx is None else dx if dy is None else dx - dy
        moved_gap, more = two_sum(xp, gap, d)
        return compare(moved_gap + (more + rest)) ^ out

    @rules.rule(name)
    def function(x: Any, y: Any) -> Differenced:
        x, y = _as_number(x), _as_number(y)
        return evaluate(getattr(namespace((x, y)), name), change, (x, y), truths=True)


_comparison("less", lambda gap: gap < 0)
_comparison("less_equal", lambda gap: gap <= 0)
_comparison("greater", lambda gap: gap > 0)
_comparison("greater_equal", lambda gap: gap >= 0)
_comparison("equal", lambda gap: gap == 0)
_comparison("not_equal", lambda gap: gap != 0)


def _as_number(x: Any) -> Any:
    return as_number(x, x.xp.float64) if isinstance(x, Differenced) and is_truth(x) else x


def _as_truth(x: Any) -> Any:
    return x if is_truth(x) or isinstance(x, bool) else x != 0


def _connective(names: tuple[str, ...], connect: Callable[[Array, Array], Array]) -> None:
    """Register how two truth values are connected."""

    def change(_xp: Any, out: Array, x: Array, y: Array, fx: Array, fy: Array) -> Array:
        return connect(x if fx is None else x ^ fx, y if fy is None else y ^ fy) ^ out

    @rules.rule(*names)
    def function(x: Any, y: Any) -> Differenced:
        x, y = _as_truth(x), _as_truth(y)
        plain = getattr(namespace((x, y)), names[0])
        return evaluate(plain, change, (x, y), truths=True)


_connective(("logical_and", "bitwise_and"), lambda x, y: x & y)
_connective(("logical_or", "bitwise_or"), lambda x, y: x | y)
_connective(("logical_xor", "bitwise_xor"), lambda x, y: x ^ y)


@rules.rule("logical_not", "bitwise_invert", "invert")
def _not(x: Differenced) -> Differenced:
    x = _as_truth(x)
    return make(x, ~x.value, x.part, x.window)


def _property(name: str) -> None:
    """Register a question that each moved point answers for itself."""

    @pointwise(name, truths=True)
    def change(xp: Any, out: Array, x: Array, d: Array) -> Array:
        return getattr(xp, name)(x + d) ^ out


for _name in ("isfinite", "isinf", "isnan"):
    _property(_name)


@rules.rule("where")
def _where(condition: Any, *choices: Any) -> Differenced:
    if len(choices) != 2:
        raise TypeError("where(condition) has no rule; use where(condition, x, y)")
    x, y = choices
    if is_truth(x) != is_truth(y):
        x, y = _as_number(x), _as_number(y)
    args = (_as_truth(condition), x, y)
    if not hasattr(x, "dtype") and not hasattr(y, "dtype"):
        like = next(arg for arg in args if isinstance(arg, Differenced))
        args = (args[0], like.xp.asarray(x, device=like.device), y)
    return evaluate(namespace(args).where, _choose, args, truths=True)


def _choose(
    xp: Any, out: Array, c: Array, x: Array, y: Array, flips: Array, dx: Array, dy: Array
) -> Array:
    """Return the change of what is chosen; where the choice flips, (y − x) + dy or (x − y) + dx."""
    if is_truth(out):
        moved = xp.where(
            c if flips is None else c ^ flips,
            x if dx is None else x ^ dx,
            y if dy is None else y ^ dy,
        )
        return moved ^ out
    zero = xp.zeros_like(out)
    dx, dy = zero if dx is None else dx, zero if dy is None else dy
    if flips is None or not bool(xp.any(flips)):
        return xp.where(c, dx, dy)
    chooses_x = c ^ flips
    change = xp.where(chooses_x, dx, dy)
    return xp.where(flips, xp.where(chooses_x, x - y, y - x) + change, change)


@pointwise("sign")
def _sign(xp: Any, out: Array, x: Array, d: Array) -> Array:
    return xp.sign(x + d) - out


@pointwise("heaviside")
def _heaviside(xp: Any, out: Array, x: Array, y: Array, dx: Array, dy: Array) -> Array:
    moved = x if dx is None else x + dx
    dy = xp.zeros_like(out) if dy is None else dy
    step = xp.where(moved > 0, xp.ones_like(out), xp.zeros_like(out))
    return xp.where((x == 0) & (moved == 0), dy, xp.where(moved == 0, y + dy, step) - out)


@pointwise("floor")
def _floor(xp: Any, out: Array, x: Array, d: Array) -> Array:
    return _moved_floor(xp, *two_sum(xp, x, d)) - out


@pointwise("ceil")
def _ceil(xp: Any, out: Array, x: Array, d: Array) -> Array:
    return -_moved_floor(xp, *two_sum(xp, -x, -d)) - out


@pointwise("trunc", "fix")
def _trunc(xp: Any, out: Array, x: Array, d: Array) -> Array:
    negative = x + d < 0
    x, d = xp.where(negative, -x, x), xp.where(negative, -d, d)
    moved = _moved_floor(xp, *two_sum(xp, x, d))
    return xp.where(negative, -moved, moved) - out


def _moved_floor(xp: Any, total: Array, rest: Array) -> Array:
    """Return the floor of a sum, of which `total` has been rounded by `rest`."""
    floor = xp.floor(total)
    return xp.where((floor == total) & (rest < 0), floor - 1, floor)


def _rint_change(xp: Any, out: Array, x: Array, d: Array) -> Array:
    """Round to the nearest whole number; halves to even ones, if they are halves exactly."""
    total, rest = two_sum(xp, x, d)
    floor = xp.floor(total)
    above = xp.where(rest > 0, floor + 1, xp.where(rest < 0, floor, xp.round(total)))
    return xp.where(total - floor == 0.5, above, xp.round(total)) - out


@rules.rule("rint")
def _rint(x: Differenced) -> Differenced:
    return evaluate(rules.find(x.xp, ("round", "rint")), _rint_change, (x,))


@rules.rule("round", "around")
def _round(x: Differenced, decimals: int = 0) -> Any:
    # As NumPy does it, which multiplies and divides by whole numbers.
    scale = 10.0 ** abs(decimals)
    if decimals > 0:
        return _rint(x * scale) / scale
    return _rint(x / scale) * scale if decimals else _rint(x)
