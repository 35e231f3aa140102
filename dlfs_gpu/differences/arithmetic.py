"""Rules of arithmetic: sums, products, quotients, powers and roots, element by element.

In all rules x and y are the values, dx and dy their changes (None for a constant), X = x + dx and
Y = y + dy the moved values, and ``out`` is the result at x and y.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.differences import rules
from dlfs_gpu.differences.array import Differenced, is_truth
from dlfs_gpu.differences.pointwise import evaluate, namespace, pointwise


@pointwise("add", scalars=True)
def _add(_xp: Any, _out: Array, _x: Array, _y: Array, dx: Array, dy: Array) -> Array:
    if dx is None:
        return dy
    return dx if dy is None else dx + dy


@pointwise("subtract", scalars=True)
def _subtract(_xp: Any, _out: Array, _x: Array, _y: Array, dx: Array, dy: Array) -> Array:
    if dx is None:
        return -dy
    return dx if dy is None else dx - dy


def _multiply(_xp: Any, _out: Array, x: Array, y: Array, dx: Array, dy: Array) -> Array:
    """Return XY − xy = x·dy + dx·Y."""
    if dx is None:
        return x * dy
    return dx * y if dy is None else x * dy + dx * (y + dy)


@rules.rule("multiply")
def _product(x: Any, y: Any) -> Differenced:
    if is_truth(x) and is_truth(y):
        return rules.call("logical_and", x, y)  # type: ignore[no-any-return]
    return evaluate(namespace((x, y)).multiply, _multiply, (x, y), scalars=True)


@pointwise("divide", "true_divide", scalars=True)
def _divide(_xp: Any, out: Array, _x: Array, y: Array, dx: Array, dy: Array) -> Array:
    """Return X/Y − x/y = (dx − out·dy) / Y."""
    if dy is None:
        return dx / y
    return (-out * dy if dx is None else dx - out * dy) / (y + dy)


@pointwise("negative")
def _negative(_xp: Any, _out: Array, _x: Array, d: Array) -> Array:
    return -d


@pointwise("positive")
def _positive(_xp: Any, _out: Array, _x: Array, d: Array) -> Array:
    return d


@pointwise("deg2rad", "radians")
def _to_radians(_xp: Any, _out: Array, _x: Array, d: Array) -> Array:
    return d * (np.pi / 180)


@pointwise("rad2deg", "degrees")
def _to_degrees(_xp: Any, _out: Array, _x: Array, d: Array) -> Array:
    return d * (180 / np.pi)


@pointwise("square")
def _square(_xp: Any, _out: Array, x: Array, d: Array) -> Array:
    return d * (2 * x + d)


@pointwise("reciprocal")
def _reciprocal(_xp: Any, out: Array, x: Array, d: Array) -> Array:
    return -d * out / (x + d)


@pointwise("sqrt")
def _sqrt(xp: Any, out: Array, x: Array, d: Array) -> Array:
    """Return d / (√X + √x)."""
    return over(xp, d, xp.sqrt(_moved_to_zero(xp, x, d)) + out)


@pointwise("cbrt")
def _cbrt(xp: Any, out: Array, x: Array, d: Array) -> Array:
    """Return d / (R² + R·r + r²), where R and r are the roots."""
    root = xp.cbrt(x + d)
    return over(xp, d, root * root + root * out + out * out)


@pointwise("hypot")
def _hypot(xp: Any, out: Array, x: Array, y: Array, dx: Array, dy: Array) -> Array:
    """Return (dx(x + X) + dy(y + Y)) / (R + r), where R and r are the lengths."""
    zero = xp.zeros_like(out)
    dx, dy = zero if dx is None else dx, zero if dy is None else dy
    both = xp.hypot(x + dx, y + dy) + out
    # Each quotient is at most 1 in size, so that nothing overflows.
    return dx * over(xp, 2 * x + dx, both) + dy * over(xp, 2 * y + dy, both)


def over(xp: Any, numerator: Array, denominator: Array) -> Array:
    """Return the quotient; where both are 0, nothing has moved, and it is 0."""
    return numerator / xp.where(denominator == 0, xp.ones_like(denominator), denominator)


def _moved_to_zero(xp: Any, x: Array, d: Array) -> Array:
    """Return x + d, or 0 where that is less than 0 by no more than rounding."""
    return not_below_zero(xp, x + d, xp.abs(x) + xp.abs(d))


def not_below_zero(xp: Any, x: Array, scale: Array) -> Array:
    """Return x, or 0 where it is less than 0 by no more than the rounding of terms of a scale."""
    rounding = 4 * xp.finfo(x.dtype).eps * scale
    return xp.where((x < 0) & (x >= -rounding), xp.zeros_like(x), x)


@rules.rule("pow", "power", "float_power")
def _power(x: Any, y: Any) -> Any:
    xp = namespace((x, y))
    power = getattr(xp, "pow", None) or xp.power
    if isinstance(x, Differenced) and isinstance(y, int | float | np.number):
        if y == 0.5:
            return rules.call("sqrt", x)
        if float(y).is_integer() and -(2**31) < y < 2**31:
            return evaluate(power, _whole_power, (x, y), scalars=True)
    return evaluate(power, _any_power, (x, y))


def _whole_power(xp: Any, out: Array, x: Array, n: Any, d: Array, _dn: None) -> Array:
    """Return Xⁿ − xⁿ by repeated squaring.

    X²ᵏ − x²ᵏ = (Xᵏ − xᵏ)(Xᵏ + xᵏ) and Xᵏ⁺¹ − xᵏ⁺¹ = (Xᵏ − xᵏ)X + xᵏ·d.
    """
    n = int(n)
    if n == 0:
        return d * 0
    moved = x + d
    if n < 0:
        d = -d / (x * moved)
        x, moved = 1 / x, 1 / moved
    power, moved_power, change = x, moved, d
    for digit in bin(abs(n))[3:]:
        change = change * (power + moved_power)
        power, moved_power = power * power, moved_power * moved_power
        if digit == "1":
            change = change * moved + power * d
            power, moved_power = power * x, moved_power * moved
    return change


def _any_power(xp: Any, out: Array, x: Array, y: Array, dx: Array, dy: Array) -> Array:
    """Return Xʸ − xʸ as xʸ·expm1(Y·log(|X|/|x|) + dy·log|x|).

    Where that exponent is large, or the sign changes, the powers are far enough apart to be
    subtracted.
    """
    size = xp.abs(x)
    moved_x, moved_y = (x if dx is None else x + dx), (y if dy is None else y + dy)
    exponent = xp.zeros_like(out)
    if dx is not None:
        exponent = moved_y * log_ratio(xp, size, abs_change(xp, x, dx))
    if dy is not None:
        exponent = exponent + dy * xp.log(size)
    moved = (getattr(xp, "pow", None) or xp.power)(moved_x, moved_y)
    near = (xp.abs(exponent) <= 1) & (xp.sign(moved) * xp.sign(out) > 0)
    return xp.where(near, out * xp.expm1(exponent), moved - out)


def abs_change(xp: Any, x: Array, d: Array) -> Array:
    """Return |x + d| − |x|, as max(s·d, −s·d − 2|x|) with s the sign of x."""
    d = xp.where(x < 0, -d, d)
    return xp.maximum(d, -(d + 2 * xp.abs(x)))


def maximum_change(xp: Any, gap: Array, dx: Array, dy: Array) -> Array:
    """Return max(X, Y) − max(x, y), where gap = x − y.

    Seen from the larger one, the other has to make up for the gap first.
    """
    zero = xp.zeros_like(gap)
    return xp.maximum(dx + xp.minimum(gap, zero), dy - xp.maximum(gap, zero))


def log_ratio(xp: Any, x: Array, d: Array, moved: Array | None = None) -> Array:
    """Return log((x + d) / x) for x ≥ 0; of x < 0 NaN. `moved` is x + d if it is known better."""
    ratio = d / xp.where(x < 0, xp.full_like(x, xp.nan), x)
    # Where x + d is less than half of x, 1 + d/x would lose digits that x + d has.
    return where_far(
        xp,
        ratio < -0.5,
        lambda: xp.log1p(ratio),
        lambda: xp.log((x + d if moved is None else moved) / x),
    )


def two_sum(xp: Any, x: Array, y: Array) -> tuple[Array, Array]:
    """Return x + y rounded, and what rounding took away [1]_; 0 of infinite sums.

    References
    ----------
    .. [1] D. E. Knuth, The Art of Computer Programming, vol. 2, 4.2.2.
    """
    total = x + y
    second = total - x
    rest = (x - (total - second)) + (y - second)
    return total, xp.where(rest == rest, rest, xp.zeros_like(rest))


def where_far(
    xp: Any, far: Array, near_form: Callable[[], Array], far_form: Callable[[], Array]
) -> Array:
    """Return one form or, where `far` is true, another, which is computed if it is needed."""
    near = near_form()
    return xp.where(far, far_form(), near) if bool(xp.any(far)) else near
