"""Finite differences in 150 digits, with the magnitudes of their terms.

`Exact` follows a function of arrays as `dlfs_gpu.Differenced` does, by other means: it evaluates
the function at x and at each moved point in multiple precision. Beside that it adds up
magnitudes, in which minus signs become plus: `size` is the sum of the magnitudes of the terms of
a value, and `reach` that of its changes. Where only rounding is wrong with f(x + d) − f(x), the
error is a small multiple of eps·reach: changes pass through f with its slope, and the rounding of
x acts by the change of that slope, |f″|·|d|.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

# 1 − tanh(100) is 1e-87.
mpmath.mp.dps = 150

Slopes = Callable[[np.ndarray], np.ndarray]


def to_mp(x: Any) -> np.ndarray:
    """Turn floating-point numbers into ones of 150 digits."""
    result = np.empty(np.shape(x), dtype=object)
    for index in np.ndindex(result.shape):
        result[index] = mpmath.mpf(float(np.asarray(x)[index]))
    return result


def to_float(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, dtype=object).astype(np.float64)


@dataclass(frozen=True)
class Smooth:
    """A function of one number: itself in many digits, its slopes, and where to use it."""

    exact: Callable[[Any], Any]
    first: Slopes
    second: Slopes
    low: float = -8.0
    high: float = 8.0


def _sech2(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / np.cosh(x) ** 2)


SMOOTH: dict[str, Smooth] = {
    "exp": Smooth(mpmath.exp, np.exp, np.exp),
    "expm1": Smooth(mpmath.expm1, np.exp, np.exp),
    "exp2": Smooth(
        lambda x: mpmath.mpf(2) ** x, lambda x: 0.7 * np.exp2(x), lambda x: 0.5 * np.exp2(x)
    ),
    "log": Smooth(mpmath.log, lambda x: 1 / x, lambda x: -1 / x**2, 0.02, 1e6),
    "log2": Smooth(
        lambda x: mpmath.log(x, 2), lambda x: 1.45 / x, lambda x: -1.45 / x**2, 0.02, 1e6
    ),
    "log10": Smooth(mpmath.log10, lambda x: 0.44 / x, lambda x: -0.44 / x**2, 0.02, 1e6),
    "log1p": Smooth(
        lambda x: mpmath.log(1 + x), lambda x: 1 / (1 + x), lambda x: -1 / (1 + x) ** 2, -0.98, 1e6
    ),
    "sin": Smooth(mpmath.sin, np.cos, np.sin, -1e3, 1e3),
    "cos": Smooth(mpmath.cos, np.sin, np.cos, -1e3, 1e3),
    "tan": Smooth(
        mpmath.tan, lambda x: 1 / np.cos(x) ** 2, lambda x: 2 / np.cos(x) ** 3, -1.5, 1.5
    ),
    "sinh": Smooth(mpmath.sinh, np.cosh, np.sinh),
    "cosh": Smooth(mpmath.cosh, np.sinh, np.cosh),
    "tanh": Smooth(mpmath.tanh, _sech2, lambda x: 2 * np.tanh(x) * _sech2(x), -1e2, 1e2),
    "arcsin": Smooth(
        mpmath.asin, lambda x: (1 - x * x) ** -0.5, lambda x: x * (1 - x * x) ** -1.5, -0.99, 0.99
    ),
    "arccos": Smooth(
        mpmath.acos, lambda x: (1 - x * x) ** -0.5, lambda x: x * (1 - x * x) ** -1.5, -0.99, 0.99
    ),
    "arctan": Smooth(
        mpmath.atan, lambda x: 1 / (1 + x * x), lambda x: 2 * x / (1 + x * x) ** 2, -1e6, 1e6
    ),
    "arcsinh": Smooth(
        mpmath.asinh, lambda x: (1 + x * x) ** -0.5, lambda x: x * (1 + x * x) ** -1.5, -1e6, 1e6
    ),
    "arccosh": Smooth(
        mpmath.acosh, lambda x: (x * x - 1) ** -0.5, lambda x: x * (x * x - 1) ** -1.5, 1.02, 1e6
    ),
    "arctanh": Smooth(
        mpmath.atanh, lambda x: 1 / (1 - x * x), lambda x: 2 * x / (1 - x * x) ** 2, -0.98, 0.98
    ),
    "sqrt": Smooth(mpmath.sqrt, lambda x: 0.5 * x**-0.5, lambda x: 0.25 * x**-1.5, 0.01, 1e6),
    "cbrt": Smooth(
        lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
        lambda x: np.abs(x) ** (-2 / 3) / 3,
        lambda x: np.abs(x) ** (-5 / 3) * 2 / 9,
        0.01,
        1e6,
    ),
    "square": Smooth(lambda x: x * x, lambda x: 2 * x, lambda x: 2 + 0 * x, -1e3, 1e3),
    "reciprocal": Smooth(lambda x: 1 / x, lambda x: x**-2, lambda x: 2 * x**-3, 0.05, 1e6),
}


def power(exponent: float, low: float, high: float) -> Smooth:
    """Return x to a constant power."""
    p = exponent
    exact = mpmath.mpf(p) if p != int(p) else int(p)
    return Smooth(
        lambda x: x**exact,
        lambda x: p * x ** (p - 1),
        lambda x: p * (p - 1) * x ** (p - 2),
        low,
        high,
    )


class Exact:
    """A value and its moved values in 150 digits, with the magnitudes of their terms.

    Attributes
    ----------
    base : array of mpf, shape S
    moved : array of mpf, shape (P, *S)
    size : array of float, shape S
    reach : array of float, shape (P, *S)
    eps : float
        Of the type that is tested: values that near to a kink may be on either side of it.
    """

    def __init__(
        self,
        base: np.ndarray,
        moved: np.ndarray,
        size: np.ndarray,
        reach: np.ndarray,
        eps: float,
    ) -> None:
        self.base, self.moved, self.size, self.reach = base, moved, size, reach
        self.eps = eps

    @classmethod
    def start(cls, x: np.ndarray, d: np.ndarray) -> Exact:
        """Return x moved by each of d, (P, *S)."""
        base = to_mp(x)
        size = np.abs(np.asarray(x, dtype=np.float64))
        reach = np.abs(np.asarray(d, dtype=np.float64))
        return cls(base, base + to_mp(d), size, reach, float(np.finfo(x.dtype).eps))

    @classmethod
    def constant(cls, c: Any, like: Exact) -> Exact:
        """Return what does not move."""
        base = to_mp(c)
        count = like.moved.shape[0]
        size = np.abs(np.asarray(c, dtype=np.float64))
        reach = np.zeros((count, *size.shape))
        return cls(base, np.stack([base] * count), size, reach, like.eps)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def change(self) -> np.ndarray:
        """The exact changes."""
        return np.asarray(self.moved - self.base)

    def range(self) -> tuple[float, float]:
        """Return the least and the largest value at any point."""
        values = np.concatenate([to_float(self.base).reshape(-1), to_float(self.moved).reshape(-1)])
        return float(values.min()), float(values.max())

    def arranged(self, function: Callable[[np.ndarray], np.ndarray]) -> Exact:
        """Apply what only arranges or adds up elements: to the points, one after the other."""
        moved = np.stack([np.asarray(function(m), dtype=object) for m in self.moved])
        reach = np.stack([np.asarray(function(r)) for r in self.reach])
        base = np.asarray(function(self.base), dtype=object)
        return Exact(base, moved, np.asarray(function(self.size)), reach, self.eps)

    def smooth(self, f: Smooth) -> Exact:
        exact = np.frompyfunc(f.exact, 1, 1)
        base, moved = (np.asarray(exact(a), dtype=object) for a in (self.base, self.moved))
        x, d = to_float(self.base), to_float(self.change)
        # The steepest slopes on the way.
        way = [x + d * k / 8 for k in range(9)]
        first = np.max([np.abs(f.first(w)) for w in way], axis=0)
        second = np.max([np.abs(f.second(w)) for w in way], axis=0)
        size = np.abs(to_float(base)) + np.abs(f.first(x)) * self.size
        reach = np.abs(to_float(moved - base)) + first * self.reach + second * np.abs(d) * self.size
        return Exact(base, moved, size, reach, self.eps)

    def __neg__(self) -> Exact:
        return Exact(-self.base, -self.moved, self.size, self.reach, self.eps)

    def __add__(self, other: Exact) -> Exact:
        return Exact(
            self.base + other.base,
            _aligned(self.moved, other.moved, lambda x, y: x + y),
            self.size + other.size,
            _aligned(self.reach, other.reach, lambda x, y: x + y),
            self.eps,
        )

    def __sub__(self, other: Exact) -> Exact:
        return self + -other

    def __mul__(self, other: Exact) -> Exact:
        reach = _aligned(self.reach, other.reach, lambda x, y: x * y)
        reach = reach + _aligned(self.reach, other.size[None], lambda x, y: x * y)
        reach = reach + _aligned(self.size[None], other.reach, lambda x, y: x * y)
        return Exact(
            self.base * other.base,
            _aligned(self.moved, other.moved, lambda x, y: x * y),
            self.size * other.size,
            reach,
            self.eps,
        )

    def maximum(self, other: Exact) -> Exact:
        """Return the larger one; where that is another after the step, both are terms."""
        return self.where(self.base >= other.base, self.moved >= other.moved, other, self - other)

    def where(self, truth: np.ndarray, moved_truth: np.ndarray, other: Exact, gap: Exact) -> Exact:
        """Return this where it is true, and else the other; where gap is 0 is a kink."""
        truth, moved_truth = truth.astype(bool), moved_truth.astype(bool)
        rounding = 32 * self.eps
        near = np.abs(to_float(gap.base)) <= rounding * gap.size
        near = near | (np.abs(to_float(gap.moved)) <= rounding * (gap.size + gap.reach))
        reach = np.where(moved_truth, self.reach, other.reach)
        both = self.size + other.size + np.maximum(self.reach, other.reach)
        return Exact(
            np.where(truth, self.base, other.base),
            np.where(moved_truth, self.moved, other.moved),
            np.where(truth, self.size, other.size),
            np.where(near | (moved_truth != truth), both, reach),
            self.eps,
        )

    def stepped(self, exact: Callable[[Any], Any]) -> Exact:
        """Apply a function whose values are whole numbers."""
        step = np.frompyfunc(exact, 1, 1)
        base, moved = (np.asarray(step(a), dtype=object) for a in (self.base, self.moved))
        reach = np.abs(to_float(moved - base))
        return Exact(base, moved, np.abs(to_float(base)), reach, self.eps)


def _aligned(x: np.ndarray, y: np.ndarray, combine: Callable[[Any, Any], Any]) -> np.ndarray:
    """Combine arrays with points in front, whose other axes broadcast."""
    ndim = max(x.ndim, y.ndim)
    x, y = (a.reshape(a.shape[0], *(1,) * (ndim - a.ndim), *a.shape[1:]) for a in (x, y))
    return np.asarray(combine(x, y))
