"""Rules of exponentials, logarithms, and trigonometric and hyperbolic functions.

In all rules x and y are the values, dx and dy (or d) their changes, X = x + dx and Y = y + dy the
moved values, and ``out`` is the result at x and y. Most functions have one form for changes that
are small, where differences cancel, and one for large ones, where exponentials may overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.differences.arithmetic import (
    log_ratio,
    maximum_change,
    not_below_zero,
    over,
    two_sum,
    where_far,
)
from dlfs_gpu.differences.logistic import logistic_difference, logistic_saved
from dlfs_gpu.differences.pointwise import pointwise


def _exponential(xp: Any, x: Array, d: Array, scale: float, exp: Callable[[Array], Array]) -> Array:
    """Return the change of exp(scale·x): e^x·expm1(d), or e^X − e^x where d is large."""
    base = exp(x)

    def far() -> Array:
        moved, rest = two_sum(xp, x, d)
        return exp(moved) * (1 + scale * rest) - base

    return where_far(xp, scale * d > 1, lambda: base * xp.expm1(scale * d), far)


@pointwise("exp")
def _exp(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    return _exponential(xp, x, d, 1.0, xp.exp)


@pointwise("expm1")
def _expm1(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    return _exponential(xp, x, d, 1.0, xp.exp)


@pointwise("exp2")
def _exp2(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    return _exponential(xp, x, d, math.log(2), xp.exp2)


@pointwise("log")
def _log(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    return log_ratio(xp, x, d)


@pointwise("log2")
def _log2(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    return log_ratio(xp, x, d) / math.log(2)


@pointwise("log10")
def _log10(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    return log_ratio(xp, x, d) / math.log(10)


@pointwise("log1p")
def _log1p(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    total, rest = two_sum(xp, x, d)
    return log_ratio(xp, 1 + x, d, (1 + total) + rest)


@pointwise("logaddexp")
def _logaddexp(xp: Any, out: Array, x: Array, y: Array, dx: Array, dy: Array) -> Array:
    """Return log(p·e^dx + q·e^dy), where p and q are the shares of e^x and e^y.

    Where changes are large, the change of max(x, y) and that of log1p(e^−|x − y|).
    """
    zero = xp.zeros_like(out)
    dx, dy = zero if dx is None else dx, zero if dy is None else dy
    gap = xp.where(x == y, zero, x - y)
    small = xp.exp(-xp.abs(gap))
    first = xp.where(gap < 0, small, xp.ones_like(small)) / (1 + small)
    second = xp.where(gap < 0, xp.ones_like(small), small) / (1 + small)

    def near() -> Array:
        return xp.log1p(first * xp.expm1(dx) + second * xp.expm1(dy))

    def far() -> Array:
        moved = xp.log1p(xp.exp(-xp.abs(gap + (dx - dy))))
        return maximum_change(xp, gap, dx, dy) + (moved - xp.log1p(small))

    return where_far(xp, (xp.abs(dx) > 1) | (xp.abs(dy) > 1), near, far)


@pointwise("sin")
def _sin(xp: Any, out: Array, x: Array, d: Array) -> Array:
    """Return 2 sin(d/2) cos(x + d/2), the cosine written out so that x isn't rounded."""
    s, c = xp.sin(d / 2), xp.cos(d / 2)
    return 2 * s * (xp.cos(x) * c - out * s)


@pointwise("cos")
def _cos(xp: Any, out: Array, x: Array, d: Array) -> Array:
    """Return −2 sin(d/2) sin(x + d/2)."""
    s, c = xp.sin(d / 2), xp.cos(d / 2)
    return -2 * s * (xp.sin(x) * c + out * s)


@pointwise("tan")
def _tan(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    """Return sin d / (cos x · cos X)."""
    cosine, s = xp.cos(x), xp.sin(d)
    return s / (cosine * (cosine * xp.cos(d) - xp.sin(x) * s))


@pointwise("sinh")
def _sinh(xp: Any, out: Array, x: Array, d: Array) -> Array:
    """Return 2 sinh(d/2) cosh(x + d/2), the cosine written out if d is small."""

    def near() -> Array:
        s, c = xp.sinh(d / 2), xp.cosh(d / 2)
        return 2 * s * (xp.cosh(x) * c + out * s)

    return where_far(xp, xp.abs(d) > 1, near, lambda: 2 * xp.sinh(d / 2) * xp.cosh(x + d / 2))


@pointwise("cosh")
def _cosh(xp: Any, out: Array, x: Array, d: Array) -> Array:
    """Return 2 sinh(d/2) sinh(x + d/2), the second sine written out if d is small."""

    def near() -> Array:
        s, c = xp.sinh(d / 2), xp.cosh(d / 2)
        return 2 * s * (xp.sinh(x) * c + out * s)

    return where_far(xp, xp.abs(d) > 1, near, lambda: 2 * xp.sinh(d / 2) * xp.sinh(x + d / 2))


@pointwise("tanh")
def _tanh(_xp: Any, _out: Array, x: Array, d: Array) -> Array:
    """Return 2 (σ(2X) − σ(2x)), because tanh x = 2σ(2x) − 1."""
    return 2 * logistic_difference(2 * d, *logistic_saved(2 * x))


@pointwise("acos", "arccos")
def _acos(xp: Any, out: Array, x: Array, d: Array) -> Array:
    return -_asin(xp, out, x, d)


@pointwise("asin", "arcsin")
def _asin(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    """Return the angle between two points of a circle: 2 atan(d / (C + c)).

    d is the difference of their sines, C and c = √(1 − x²) are their cosines.
    """
    total, rest = two_sum(xp, x, d)
    square = ((1 - total) - rest) * ((1 + total) + rest)
    moved = xp.sqrt(not_below_zero(xp, square, xp.ones_like(square)))
    return 2 * xp.atan2(d, moved + xp.sqrt((1 - x) * (1 + x)))


@pointwise("atan", "arctan")
def _atan(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    """Return the angle whose tangent is d / (1 + xX)."""
    scale = 1 / xp.maximum(xp.abs(x), xp.ones_like(x))
    return xp.atan2(d * scale, scale + (x * scale) * (x + d))


@pointwise("atan2", "arctan2")
def _atan2(xp: Any, out: Array, y: Array, x: Array, dy: Array, dx: Array) -> Array:
    """Return the angle between (x, y) and (X, Y), and a full turn where the result jumps."""
    zero = xp.zeros_like(out)
    dx, dy = zero if dx is None else dx, zero if dy is None else dy
    length = xp.hypot(x, y)
    at_origin = length == 0
    scale = xp.where(at_origin, xp.ones_like(length), length)
    x_unit, y_unit = x / scale, y / scale
    angle = xp.atan2(x_unit * dy - y_unit * dx, length + x_unit * dx + y_unit * dy)
    difference = xp.atan2(y + dy, x + dx) - out
    turns = xp.round((difference - angle) / (2 * np.pi))
    return xp.where(at_origin, difference, angle + 2 * np.pi * turns)


@pointwise("asinh", "arcsinh")
def _asinh(xp: Any, out: Array, x: Array, d: Array) -> Array:
    """Return 2 atanh(d / (C + c)); d is the difference of sines, C and c are the cosines."""
    moved, one = x + d, xp.ones_like(x)
    quotient = d / (xp.hypot(one, moved) + xp.hypot(one, x))
    return _hyperbolic_arc(xp, quotient, lambda: xp.asinh(moved) - out)


@pointwise("acosh", "arccosh")
def _acosh(xp: Any, out: Array, x: Array, d: Array) -> Array:
    """Return 2 atanh(d / (S + s)); d is the difference of cosines, S and s are the sines."""
    moved, rest = x + d, (x - 1) + d
    sines = xp.sqrt(rest) * xp.sqrt(moved + 1) + xp.sqrt(x - 1) * xp.sqrt(x + 1)
    return _hyperbolic_arc(xp, over(xp, d, sines), lambda: xp.acosh(moved) - out)


def _hyperbolic_arc(xp: Any, quotient: Array, far_form: Callable[[], Array]) -> Array:
    """Return 2 atanh(quotient), or another form where that is 1.1 and more."""
    return where_far(xp, xp.abs(quotient) > 0.5, lambda: 2 * xp.atanh(quotient), far_form)


@pointwise("atanh", "arctanh")
def _atanh(xp: Any, _out: Array, x: Array, d: Array) -> Array:
    """Return the change of (log(1 + x) − log(1 − x)) / 2: both terms have the sign of d."""
    total, rest = two_sum(xp, x, d)
    upper = log_ratio(xp, 1 + x, d, (1 + total) + rest)
    return (upper - log_ratio(xp, 1 - x, -d, (1 - total) - rest)) / 2
