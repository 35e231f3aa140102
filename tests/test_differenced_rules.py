"""Each rule: against 150 digits, against evaluation at both points, on each array library."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import mpmath
import numpy as np
import pytest
from exact import SMOOTH, Exact, power, to_float, to_mp
from libraries import Library

import dlfs_gpu
from dlfs_gpu import Differenced, numerical_gradient

POWERS = {f"x**{p}": power(p, 0.02, 1e3) for p in (2, 3, 5, -1, -4, 0.5, 1.5, -0.7, 2.0)}
VALUES = [0.0, 1e-8, 1e-3, 0.1, 0.5, 0.9, 0.99, 1.0, 1.02, 1.5, 3.0, 7.9, 50.0, 300.0]
STEPS = [1e-30, 1e-12, 1e-4, 1e-2, 0.3, 0.5, 1.0, 2.0, 5.0, 60.0]


def points(low: float, high: float, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Values and steps of either sign that stay within a domain."""
    pairs = [
        (x, d)
        for x, d in product([*VALUES, *(-v for v in VALUES)], [*STEPS, *(-s for s in STEPS)])
        if low < x < high and low < x + d < high
    ]
    x, d = np.array(pairs, dtype=dtype).T
    return x, d


class TestSmooth:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("name", [*SMOOTH, *POWERS])
    def test_against_150_digits(self, name: str, dtype: type) -> None:
        """Right to some units of rounding of the change or, if it is less, of its terms."""
        f = {**SMOOTH, **POWERS}[name]
        x, d = points(f.low, f.high, dtype)
        moved = Differenced(x, d[None])
        if name in POWERS:
            p = float(name[3:])
            result = moved ** (int(p) if "." not in name else p)
        else:
            result = getattr(np, name)(moved)
        exact = Exact.start(x, d[None])
        exact = Exact(exact.base, exact.moved, 0 * exact.size, exact.reach, exact.eps).smooth(f)
        error = np.abs(to_float(to_mp(result.change) - exact.change))
        smallest = np.finfo(dtype).tiny / exact.eps
        assert (error <= 10 * exact.eps * exact.reach + smallest).all()
        assert result.dtype == result.change.dtype == dtype

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_nothing_overflows_that_the_function_does_not(self, dtype: type) -> None:
        large = float(np.finfo(dtype).max) / 4
        log = float(np.log(large))
        cases: list[tuple[Callable[[Any], Any], float, float, float]] = [
            (np.exp, -20 * log, 20 * log, 1.0),
            (np.exp, 20 * log, -20 * log, -1.0) if dtype is None else (np.exp, 0.0, -1e6, -1.0),
            (np.tanh, -20 * log, 40 * log, 2.0),
            (np.tanh, 20 * log, -20 * log, -1.0),
            (np.arctan, large, -2 * large, -np.pi),
            (np.log, 1.0, large, log),
            (lambda x: np.logaddexp(x, 0 * x), -20 * log, 20 * log, np.log(2)),
            (lambda x: 1 / (1 + np.exp(-x)), log, -log, -0.5),
            (dlfs_gpu.sigmoid, -20 * log, 40 * log, 1.0),
            (lambda x: np.hypot(x, x), large / 4, large / 4, large / 4 * 2**0.5),
        ]
        with np.errstate(all="raise", under="ignore"):
            for f, x, d, expected in cases:
                moved = Differenced(np.array([x], dtype=dtype), np.array([[d]], dtype=dtype))
                np.testing.assert_allclose(f(moved).change[0], expected, rtol=1e-6)

    def test_what_does_not_move_has_no_change(self) -> None:
        """Also where the function is infinite or has no slope."""
        x: Any = Differenced(np.zeros(2), np.array([[0.0, 1.0]]))
        with np.errstate(divide="ignore", invalid="ignore"):
            for f in (np.log, np.sqrt, np.cbrt, np.reciprocal, np.arccosh, lambda x: x**-2):
                assert f(x).change[0, 0] == 0
            assert np.hypot(x, 0).change.tolist() == [[0, 1]]
            length: Any = np.linalg.norm(x)
            assert length.change.tolist() == [1]

    def test_where_the_function_has_no_value_there_is_none(self) -> None:
        x: Any = Differenced(np.array([1.0]), np.array([[-2.0], [-1.0], [1.0]]))
        below: Any = Differenced(np.array([-1.0]), np.array([[2.0]]))
        with np.errstate(all="ignore"):
            assert np.isnan(np.log(x).change[0])
            assert np.log(x).change[1] == -np.inf
            assert np.isnan(np.sqrt(x).change[0])
            assert np.sqrt(x).change[1] == -1
            assert np.isnan((x**0.3).change[0])
            assert np.isnan(np.log(below).change).all()

    def test_root_of_what_moves_to_zero(self) -> None:
        """x² − 2xh + h² is rounded to something below 0 for some x = h."""
        for x in np.linspace(0.1, 1, 50):
            moved = Differenced(np.array([x, 1e-9]), np.array([[-x, 0.0]]))
            root = np.sqrt((moved * moved).sum())
            np.testing.assert_allclose(root.change, -x, rtol=1e-7)


BINARY: dict[str, tuple[Any, Any, Any, Any]] = {
    # In NumPy, in 150 digits, and bounds of the slopes by x and y.
    "multiply": (np.multiply, lambda x, y: x * y, lambda x, y: y, lambda x, y: x),
    "divide": (np.divide, lambda x, y: x / y, lambda x, y: 1 / y, lambda x, y: x / y**2),
    "hypot": (np.hypot, mpmath.hypot, lambda x, y: 1 + 0 * x, lambda x, y: 1 + 0 * x),
    "arctan2": (
        np.arctan2,
        mpmath.atan2,
        lambda x, y: 1 / np.hypot(x, y),
        lambda x, y: 1 / np.hypot(x, y),
    ),
    "logaddexp": (
        np.logaddexp,
        lambda x, y: mpmath.log(mpmath.exp(x) + mpmath.exp(y)),
        lambda x, y: 1 / (1 + np.exp(y - x)),
        lambda x, y: 1 / (1 + np.exp(x - y)),
    ),
    "power": (
        lambda x, y: np.abs(x) ** y,
        lambda x, y: abs(x) ** y,
        lambda x, y: y * np.abs(x) ** (y - 1),
        lambda x, y: np.abs(x) ** y * np.log(np.abs(x)),
    ),
}


class TestTwoArguments:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("which", ["both", "first", "second"])
    @pytest.mark.parametrize("name", BINARY)
    @pytest.mark.filterwarnings("ignore:All-NaN")
    def test_against_150_digits(self, name: str, which: str, dtype: type) -> None:
        """Whether one moves or both, and whatever sign they change."""
        function, exact, by_x, by_y = BINARY[name]
        values = [-7.0, -1.5, -0.3, 0.25, 1.1, 3.0]
        steps = [1e-9, -1e-4, 0.5, -0.45, 2.0, -2.1]
        x, y, dx, dy = np.array(list(product(values, values, steps, steps)), dtype=dtype).T
        dx = dx * (which != "second")
        dy = dy * (which != "first")
        first = x if which == "second" else Differenced(x, dx[None])
        second = y if which == "first" else Differenced(y, dy[None])
        many_digits = np.frompyfunc(exact, 2, 1)
        moved = many_digits(to_mp(x) + to_mp(dx), to_mp(y) + to_mp(dy))
        expected = to_float(moved - many_digits(to_mp(x), to_mp(y)))
        # The steepest slopes on the way from one point to the other.
        way = [(x + i * dx / 4, y + j * dy / 4) for i, j in product(range(5), range(5))]
        with np.errstate(all="ignore"):  # infinite on the way across a pole
            slope_x, slope_y = (
                np.nanmax([np.abs(by(*p)) for p in way], axis=0) for by in (by_x, by_y)
            )
            reach = np.abs(expected)
            reach += np.where(dx == 0, 0, slope_x * np.abs(dx))
            reach += np.where(dy == 0, 0, slope_y * np.abs(dy))
        # A moved value near 0 is known to the rounding of its terms only.
        known = (np.abs(x + dx) > 0.04) & (np.abs(y + dy) > 0.04)
        error = np.abs(function(first, second).change[0] - expected)
        eps = float(np.finfo(dtype).eps)
        assert (error <= 24 * eps * reach)[known].all(), (error / reach)[known].max() / eps


def constant(x: Any, numbers: Any) -> Any:
    """Return an array of the kind of x."""
    if isinstance(x, Differenced):
        return x.xp.asarray(np.asarray(numbers), dtype=x.dtype, device=x.device)
    return np.asarray(numbers, dtype=x.dtype)


def indices(x: Any, numbers: Any) -> Any:
    if isinstance(x, Differenced):
        return x.xp.asarray(np.asarray(numbers), device=x.device)
    return np.asarray(numbers)


W = np.arange(8).reshape(4, 2) / 4 - 1
SQUARE = np.arange(9).reshape(3, 3) / 8 - 0.5

# Functions of a (3, 4) array that are exact for small multiples of 1/8.
EXACT: dict[str, Callable[[Any], Any]] = {
    "add": lambda x: x + constant(x, W[:, 0]),
    "subtract": lambda x: 1 - x,
    "both": lambda x: x[0] - x[1] * 2,
    "multiply": lambda x: x * x[:1],
    "divide": lambda x: x / 4,
    "negative": lambda x: -x,
    "positive": lambda x: +x,
    "power 0": lambda x: x**0,
    "power 1": lambda x: x**1,
    "power 2": lambda x: x**2,
    "power 3": lambda x: np.power(x, 3),
    "square": np.square,
    "abs": abs,
    "fabs": np.fabs,
    "maximum": lambda x: np.maximum(x, 0.25),
    "maximum of two": lambda x: np.maximum(x[0], x[1]),
    "minimum": lambda x: np.minimum(x, x[:1]),
    "clip": lambda x: np.clip(x, -0.5, 0.5),
    "clip below": lambda x: x.clip(min=0.0),
    "clip by arrays": lambda x: np.clip(x, x[:1], x[1:2] + 1),
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "rint": lambda x: np.rint(x * 2),
    "round": lambda x: x.round(),
    "where": lambda x: np.where(x > 0, x * x, -3 * x),
    "where constants": lambda x: np.where(x >= 0.125, 1.0, 0.25),
    "where plain": lambda x: np.where(indices(x, SQUARE[:, :1] > -0.3), x, 2 * x),
    "where of truths": lambda x: np.where(np.where(x > 0, x < 1, x > -1), x, 0.0),
    "less": lambda x: (x < 0.125) * x,
    "less equal": lambda x: np.where(x <= x[:1], 1.0, 0.0),
    "equal": lambda x: np.where(x == 0.25, 1.0, x),
    "not equal": lambda x: np.where(x != 0.25, 1.0, x),
    "and": lambda x: np.where((x > 0) & (x < 0.5), x, 1.0),
    "or": lambda x: np.where(np.logical_or(x < 0, x > 0.5), x, 1.0),
    "xor": lambda x: np.where((x > 0) ^ (x > 0.5), x, 1.0),
    "not": lambda x: np.where(~(x > 0), x, 1.0),
    "product of truths": lambda x: ((x > 0) * (x < 0.5)) * x,
    "truths as numbers": lambda x: np.sum(x > 0, axis=0) * 1.0,
    "share of truths": lambda x: np.mean(x > 0, axis=1),
    "astype of truths": lambda x: (x > 0).astype(x.dtype) * 3,
    "isfinite": lambda x: np.where(np.isfinite(x), x, 0.0),
    "isnan": lambda x: np.where(np.isnan(x) | np.isinf(x), 0.0, x),
    "all": lambda x: np.where(np.all(x > -1, axis=0), 1.0, 2.0),
    "any": lambda x: np.where(np.any(x > 1, axis=1, keepdims=True), 1.0, x),
    "count_nonzero": lambda x: 1.0 * np.count_nonzero(x > 0, axis=0),
    "sum": np.sum,
    "sum over an axis": lambda x: x.sum(axis=0),
    "sum keeping axes": lambda x: np.sum(x, axis=(0, 1), keepdims=True),
    "sum in another type": lambda x: np.sum(x, dtype=x.dtype, axis=-1),
    "reduce": lambda x: np.add.reduce(x),
    "mean": lambda x: x.mean(axis=1),
    "var": lambda x: np.var(x, axis=1),
    "prod": lambda x: np.prod(x, axis=0),
    "prod of all": lambda x: np.prod(x[:2, :2]),
    "cumsum": np.cumsum,
    "cumsum over an axis": lambda x: np.cumsum(x, axis=0),
    "max": np.max,
    "max over an axis": lambda x: x.max(axis=1),
    "min keeping axes": lambda x: np.min(x, axis=0, keepdims=True),
    "norm 1": lambda x: np.linalg.norm(x, 1),
    "norm inf": lambda x: np.linalg.norm(x, np.inf),
    "vector norms": lambda x: np.linalg.norm(x, ord=1, axis=1),
    "largest element": lambda x: np.linalg.norm(x, ord=np.inf, axis=0, keepdims=True),
    "matmul": lambda x: x @ constant(x, W),
    "matmul from the left": lambda x: np.matmul(constant(x, SQUARE), x),
    "matmul of both": lambda x: x @ x.T,
    "matmul with a vector": lambda x: np.matmul(x, constant(x, W[:, 0])),
    "vector matmul": lambda x: np.matmul(constant(x, SQUARE[0]), x),
    "matmul of vectors": lambda x: x[0] @ x[1],
    "stacked matmul": lambda x: np.matmul(x[None, ...], np.stack([x.T, 2 * x.T])),
    "stacked constant": lambda x: np.matmul(constant(x, np.stack([SQUARE, -SQUARE])), x),
    "dot": lambda x: np.dot(x, constant(x, W)),
    "dot of a number": lambda x: np.dot(x, 2.0),
    "dot of many axes": lambda x: np.dot(x[None, ...], constant(x, np.stack([W, W]))),
    "vdot": lambda x: np.vdot(x, x),
    "inner": lambda x: np.inner(x, x),
    "outer": lambda x: np.outer(x[0], x[1]),
    "tensordot": lambda x: np.tensordot(x, x, axes=([0], [0])),
    "tensordot of two axes": lambda x: np.tensordot(x, x, axes=2),
    "vecdot": lambda x: np.vecdot(x, x),
    "einsum": lambda x: np.einsum("ij,jk->ki", x, constant(x, W)),
    "einsum of both": lambda x: np.einsum("ij,kj", x, x),
    "einsum of one": lambda x: np.einsum("ij->j", x),
    "einsum of three": lambda x: np.einsum("ij,ij,j->i", x, x, constant(x, W[:, 1])),
    "einsum ellipsis": lambda x: np.einsum("...j,jk", x, constant(x, W)),
    "T": lambda x: x.T,
    "mT": lambda x: x.__array_namespace__().matrix_transpose(x),
    "transpose": lambda x: np.transpose(x, (1, 0)),
    "transpose method": lambda x: x.transpose(1, 0),
    "swapaxes": lambda x: x.swapaxes(0, -1),
    "moveaxis": lambda x: np.moveaxis(x[None, ...], 0, 2),
    "reshape": lambda x: x.reshape(2, 6),
    "reshape to many axes": lambda x: np.reshape(x, (3, 2, 1, 2)),
    "reshape of many axes": lambda x: x.reshape(3, 2, 2).reshape((6, -1)),
    "reshape across": lambda x: x.reshape((4, 3)),
    "ravel": np.ravel,
    "flatten": lambda x: x.flatten(),
    "expand_dims": lambda x: np.expand_dims(x, (0, 2)),
    "squeeze": lambda x: np.squeeze(x[:, :1]),
    "atleast_2d": lambda x: np.atleast_2d(np.atleast_1d(x[0, 0])),
    "broadcast_to": lambda x: np.broadcast_to(x[:, :1], (2, 3, 5)),
    "broadcast_arrays": lambda x: np.broadcast_arrays(x[0], x)[0],
    "item": lambda x: x[1, 2],
    "row": lambda x: x[-1, ...],
    "slices": lambda x: x[1:, :2],
    "strides": lambda x: x[::-1, 1::2],
    "new axis": lambda x: x[:, None, 1:],
    "rows": lambda x: np.take(x, indices(x, [2, 0, 0]), axis=0),
    "take_along_axis": lambda x: np.take_along_axis(x, indices(x, [[0], [3], [1]]), axis=1),
    "elements": lambda x: x[indices(x, [0, 2]), indices(x, [1, 1])],
    "mask": lambda x: x[indices(x, W @ SQUARE[:2, :] > 0).T],
    "iteration": lambda x: sum(row * 2 for row in x),
    "concatenate": lambda x: np.concatenate([x, constant(x, SQUARE[:, :2]), 2 * x], axis=1),
    "concatenate flat": lambda x: np.concatenate([x, x[0]], axis=None),
    "stack": lambda x: np.stack([x[0], constant(x, W[:, 0]), x[1]], axis=1),
    "vstack": lambda x: np.vstack([x, x[0]]),
    "hstack": lambda x: np.hstack([x[0], x[1]]),
    "column_stack": lambda x: np.column_stack([x[:, 0], x]),
    "split": lambda x: np.split(x, 2, axis=1)[1],
    "split at": lambda x: np.split(x, [1, 3], axis=1)[1],
    "array_split": lambda x: np.array_split(x, 3, axis=1)[0],
    "unstack": lambda x: x.__array_namespace__().unstack(x, axis=1)[2],
    "flip": lambda x: np.flip(x, axis=1),
    "roll": lambda x: np.roll(x, 2, axis=1),
    "repeat": lambda x: np.repeat(x, 2, axis=0),
    "tile": lambda x: np.tile(x, (1, 2)),
    "diagonal": lambda x: np.diagonal(x, 1),
    "trace": lambda x: np.trace(x),
    "tril": lambda x: np.tril(x, 1),
    "triu": lambda x: np.triu(x[:, 1:3]),
    "diff": lambda x: np.diff(x, axis=0),
    "copy": lambda x: np.copy(x) + x.copy() + np.real(x) + x.conj(),
    "like": lambda x: x + np.zeros_like(x) + np.ones_like(x) * np.full_like(x, 2.0),
    # Not in the array API standard:
    "heaviside": lambda x: np.heaviside(x, 0.25),
    "fliplr": np.fliplr,
    "rot90": np.rot90,
    "pad": lambda x: np.pad(x, ((1, 0), (2, 1))),
    "pad with a constant": lambda x: np.pad(x, 1, constant_values=0.5),
    "pad by edges": lambda x: np.pad(x, 1, mode="edge"),
    "diag of a row": lambda x: np.diag(x[0], -1),
    "diag of a matrix": lambda x: np.diag(x, 1),
    "windows": lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 2)),
}
if np.lib.NumpyVersion(np.__version__) < "2.5.0":  # deprecated since
    EXACT["fix"] = np.fix
ONLY_NUMPY = {"heaviside", "fliplr", "rot90", "windows"}
ONLY_NUMPY |= {name for name in EXACT if "pad" in name or "einsum" in name}


def eighths(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (3, 4) multiples of 1/8, with ties and zeros, and 5 changes of them."""
    rng = np.random.default_rng(seed)
    return rng.integers(-8, 9, (3, 4)) / 8, rng.integers(-6, 7, (5, 3, 4)) / 8


def allowed(lib: Library, name: str) -> bool:
    return lib.name != "strict" or name not in ONLY_NUMPY


@pytest.mark.filterwarnings("ignore:numpy.fix is deprecated")
@pytest.mark.parametrize("name", EXACT)
class TestExactRules:
    def test_equal_to_the_difference_of_values(self, lib: Library, name: str) -> None:
        """Digit for digit, where evaluation rounds nothing."""
        f = EXACT[name]
        for seed in range(3):
            x, d = eighths(seed)
            moved = Differenced(lib.asarray(x), lib.asarray(d))
            if not allowed(lib, name):
                with pytest.raises(TypeError, match="has no function"):
                    f(moved)
                return
            result = f(moved)
            value = np.asarray(f(x))
            # CuPy's power rounds.
            rounding = 2 * lib.eps if lib.name == "cupy" and name.startswith("power") else 0
            np.testing.assert_allclose(lib.to_numpy(result.value), value, rtol=rounding)
            expected = np.stack([np.asarray(f(x + e)) for e in d]) - value
            np.testing.assert_allclose(
                lib.to_numpy(result.change), expected, rtol=rounding, atol=rounding
            )
            assert result.shape == value.shape
            assert result.ndim == value.ndim
            assert result.size == value.size

    def test_elements_moved_one_after_the_other(self, lib: Library, name: str) -> None:
        """In chunks, each of which shows a part of the array only."""
        if not allowed(lib, name):
            return
        f = EXACT[name]
        x, _ = eighths(7)
        weights = np.random.default_rng(1).integers(-4, 5, np.shape(f(x))) / 4

        def weighted(x: Any) -> Any:
            return np.sum(f(x) * constant(x, weights))

        expected = numerical_gradient(weighted, x, 0.25)
        for budget in (None, 20_000):
            result = numerical_gradient(
                weighted, lib.asarray(x), 0.25, method="difference", max_memory=budget
            )
            np.testing.assert_array_equal(lib.to_numpy(result), expected)
