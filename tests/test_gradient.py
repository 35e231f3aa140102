"""Numerical differentiation and gradient descent: golden numbers, accuracy, chunks, bad input."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from errors import refused
from libraries import Library
from smooth_functions import KINDS

from dlfs_gpu._validation import ArgumentError, namespace_of
from dlfs_gpu.functions import (
    function_1,
    function_2,
    sigmoid,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from dlfs_gpu.gradient import (
    default_step,
    gradient_descent,
    numerical_diff,
    numerical_gradient,
    tangent_line,
)

Method = Literal["loop", "batched"]
Scheme = Literal["central", "forward"]

each_method = pytest.mark.parametrize("method", ["loop", "batched"])
each_scheme = pytest.mark.parametrize("scheme", ["central", "forward"])


def mixed(x: Any) -> Any:
    """Σ sin x · (1 + x²) over the last two axes: one number, or one for each stacked copy."""
    xp = namespace_of(x)
    return xp.sum(xp.sin(x) * (1 + x * x), axis=(-2, -1))


def mixed_gradient(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    result: np.ndarray = np.cos(x) * (1 + x**2) + 2 * x * np.sin(x)
    return result


def matrix(lib: Library, seed: int = 0) -> Any:
    return lib.asarray(np.random.default_rng(seed).normal(size=(2, 3)))


class TestGolden:
    """The chapter's numbers, digit for digit: in NumPy float64, divided by 2h."""

    def test_central(self) -> None:
        assert numerical_diff(function_1, 5, 1e-4, nominal_step=True) == 0.1999999999990898
        assert numerical_diff(function_1, 10, nominal_step=True) == 0.2999999999986347

    def test_forward(self) -> None:
        for x, expected in ((5, 0.20000099999917254), (10, 0.3000009999976072)):
            slope = numerical_diff(function_1, x, 1e-4, scheme="forward", nominal_step=True)
            assert slope == expected

    @pytest.mark.parametrize("h", [1e-50, 10e-50])
    @pytest.mark.parametrize("x", [5.0, 10.0])
    def test_a_step_lost_in_rounding(self, h: float, x: float) -> None:
        assert np.float32(h) == 0
        assert numerical_diff(function_1, x, h, scheme="forward", nominal_step=True) == 0
        with refused("h"):
            numerical_diff(function_1, x, h, scheme="forward")

    def test_forward_against_central(self, lib: Library) -> None:
        """At the bottom of x² the forward difference is h, the central one 0."""
        x = lib.asarray(0.0)
        forward = numerical_diff(lambda x: x**2, x, 1e-4, scheme="forward")
        assert float(forward) == pytest.approx(1e-4, rel=4 * lib.eps)
        assert float(numerical_diff(lambda x: x**2, x, 1e-4)) == 0

    @pytest.mark.parametrize(("x", "slope", "intercept"), [(5.0, 0.2, -0.25), (10.0, 0.3, -1.0)])
    def test_tangents(self, x: float, slope: float, intercept: float) -> None:
        tangent = tangent_line(function_1, x)
        assert tangent(0) == pytest.approx(intercept, abs=1e-10)
        assert tangent(1) - tangent(0) == pytest.approx(slope, abs=1e-10)

    def test_partial_derivatives(self) -> None:
        for f, x, expected in (
            (lambda x0: x0 * x0 + 4.0**2, 3.0, 6.00000000000378),
            (lambda x1: 3.0**2 + x1 * x1, 4.0, 7.999999999999119),
        ):
            assert numerical_diff(f, x, nominal_step=True) == expected

    @each_method
    @pytest.mark.parametrize(
        ("x", "expected"),
        [
            ([3.0, 4.0], [6.00000000000378, 7.999999999999119]),
            ([0.0, 2.0], [0.0, 4.000000000004]),
            ([3.0, 0.0], [6.000000000012662, 0.0]),
        ],
    )
    def test_gradients(self, method: Method, x: list[float], expected: list[float]) -> None:
        f = function_2 if method == "loop" else squares_of_rows
        result = numerical_gradient(f, np.array(x), method=method, nominal_step=True)
        assert result.tolist() == expected

    @pytest.mark.parametrize(
        ("lr", "step_num", "expected"),
        [
            (0.1, 100, [-6.111107928998789e-10, 8.148143905314271e-10]),
            (10.0, 100, [-2.5898374737328363e13, -1.2952486168965398e12]),
            (1e-10, 100, [-2.999999939999995, 3.9999999199999934]),
            (0.1, 20, [-0.03458764513817675, 0.04611686018418694]),
        ],
    )
    def test_descent(self, lr: float, step_num: int, expected: list[float]) -> None:
        end, _ = gradient_descent(function_2, np.array([-3.0, 4.0]), lr, step_num)
        assert end.tolist() == expected

    def test_squared_error_of_a_saturated_sigmoid_has_no_slope(self) -> None:
        by_squares = numerical_diff(lambda z: (sigmoid(z) - 1) ** 2 / 2, -10)
        by_entropy = numerical_diff(lambda z: sigmoid_cross_entropy(z, 1), -10)
        assert by_squares == pytest.approx(-4.54e-5, abs=5e-8)
        assert by_entropy == pytest.approx(-0.99995, abs=5e-6)

    def test_sigmoid_slope_at_zero(self) -> None:
        assert numerical_diff(sigmoid, 0) == pytest.approx(0.25, abs=1e-8)

    def test_the_negative_gradient_descends_most_steeply(self) -> None:
        """Of all directions; which is not the direction of the minimum."""
        x = np.array([3.0, 1.0])

        def bowl(x: np.ndarray) -> Any:
            return x[0] ** 2 / 20 + x[1] ** 2

        gradient = numerical_gradient(bowl, x)
        angles = np.deg2rad(np.arange(360))
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        changes = [bowl(x + 1e-6 * direction) - bowl(x) for direction in directions]
        steepest = directions[np.argmin(changes)]
        assert steepest @ -gradient / np.linalg.norm(gradient) > np.cos(np.deg2rad(1))
        assert steepest @ -x / np.linalg.norm(x) < np.cos(np.deg2rad(45))


def squares_of_rows(x: Any) -> Any:
    return namespace_of(x).sum(x * x, axis=-1)


class TestNumericalDiff:
    @each_scheme
    def test_arrays_element_by_element(self, lib: Library, scheme: Scheme) -> None:
        x = lib.asarray([[0.0, 0.5], [1.0, 2.0]])
        result = numerical_diff(lib.xp.sin, x, scheme=scheme)
        assert result.dtype == x.dtype
        h = default_step(x.dtype, scheme, xp=lib.xp)
        truncation = h**2 / 6 if scheme == "central" else h / 2
        np.testing.assert_allclose(
            lib.to_numpy(result), np.cos(lib.to_numpy(x)), rtol=0, atol=truncation + 2 * lib.eps / h
        )

    def test_integers_and_numpy_scalars(self) -> None:
        assert numerical_diff(lambda x: x**2, 3) == pytest.approx(6)
        assert numerical_diff(lambda x: x**2, np.array([3, 4])) == pytest.approx(np.array([6, 8]))
        assert numerical_diff(lambda x: x**2, np.float32(3)).dtype == np.float32

    def test_sums_are_refused(self) -> None:
        with refused("f"):
            numerical_diff(np.sum, np.ones(3))
        with pytest.raises(TypeError, match="f returned None"):
            numerical_diff(lambda x: None, 1.0)


class TestStep:
    def test_default(self, lib: Library) -> None:
        single = lib.dtype == "float32"
        dtype = lib.asarray([1.0]).dtype
        assert default_step(dtype, xp=lib.xp) == (2**-7 if single else 1e-4)
        assert default_step(dtype, "forward", xp=lib.xp) == (2**-11 if single else 2**-26)

    @each_method
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_default_is_sound(self, method: Method, dtype: str) -> None:
        """In float32 the chapter's 1e-4 is wrong by percents where the default is right."""
        z = np.random.default_rng(0).normal(size=(20, 10)).astype(dtype)
        t = np.arange(20) % 10
        p = np.exp(z.astype(np.float64))
        p /= p.sum(axis=-1, keepdims=True)
        exact = (p - np.eye(10)[t]) / 20

        def f(z: Any) -> Any:
            if z.ndim == 2:
                return softmax_cross_entropy(z, t)
            return np.array([softmax_cross_entropy(one, t) for one in z])

        def error(h: float | None) -> float:
            result = numerical_gradient(f, z, h, method=method)
            return float(np.linalg.norm(result - exact) / np.linalg.norm(exact))

        if dtype == "float64":
            assert error(None) < 1e-8
        else:
            assert error(None) < 1e-3
            assert error(1e-4) > 0.02

    def test_division_by_the_step_that_rounding_left(self, lib: Library) -> None:
        """At 1000 numbers are so far apart that x + h misses its mark; the slope is 1 still."""
        h = 0.001 if lib.dtype == "float32" else 1e-12
        x = lib.asarray([1000.3, 3.7])
        right, wrong = (
            numerical_gradient(lambda x: x[0], x, h, nominal_step=nominal)
            for nominal in (False, True)
        )
        np.testing.assert_array_equal(lib.to_numpy(right), [1, 0])
        assert abs(float(wrong[0]) - 1) > 0.01

    def test_a_numpy_step_promotes_nothing(self) -> None:
        x = np.array([1000.3], dtype=np.float32)
        result = numerical_gradient(lambda x: x[0], x, np.float64(0.001))
        np.testing.assert_array_equal(result, np.ones(1, dtype=np.float32), strict=True)

    @each_method
    def test_it_is_a_finite_difference(self, method: Method) -> None:
        """Truncation included: of x³ at h = 0.5 it is 3x² + h²."""
        x = np.array([[1.0, -2.0]])
        result = numerical_gradient(lambda x: (x**3).sum(axis=(-2, -1)), x, 0.5, method=method)
        np.testing.assert_allclose(result, 3 * x**2 + 0.25, rtol=1e-14)


class TestNumericalGradient:
    @each_method
    @each_scheme
    def test_against_calculus(self, lib: Library, method: Method, scheme: Scheme) -> None:
        x = matrix(lib)
        before = lib.to_numpy(x).copy()
        result = numerical_gradient(mixed, x, method=method, scheme=scheme)
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(lib.to_numpy(x), before)
        tolerance = {
            ("float64", "central"): 1e-7,
            ("float64", "forward"): 1e-6,
            ("float32", "central"): 1e-3,
            ("float32", "forward"): 1e-2,
        }[lib.dtype, scheme]
        np.testing.assert_allclose(lib.to_numpy(result), mixed_gradient(before), atol=tolerance)

    def test_closures_that_ignore_their_argument(self, lib: Library) -> None:
        W = matrix(lib)
        expected = numerical_gradient(mixed, W)
        np.testing.assert_array_equal(
            lib.to_numpy(numerical_gradient(lambda _: mixed(W), W)), lib.to_numpy(expected)
        )

    @pytest.mark.parametrize("call", range(1, 13))
    def test_x_is_restored_when_f_raises(self, lib: Library, call: int) -> None:
        x = matrix(lib)
        before = lib.to_numpy(x).copy()
        calls = 0

        def f(x: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise ZeroDivisionError
            return mixed(x)

        with pytest.raises(ZeroDivisionError):
            numerical_gradient(f, x)
        np.testing.assert_array_equal(lib.to_numpy(x), before)

    def test_f_may_return_a_view_of_x(self, lib: Library) -> None:
        x = lib.asarray([1.0, 2.0, 3.0])
        result = numerical_gradient(lambda x: x[1, ...], x)
        np.testing.assert_array_equal(lib.to_numpy(result), [0, 1, 0])

    @pytest.mark.parametrize("shape", [(2, 2), (4,), (1,), (1, 4), (4, 1)])
    def test_the_chapters_function_on_any_shape(self, lib: Library, shape: tuple[int, ...]) -> None:
        x = lib.asarray(np.reshape([3.0, 4.0, 0.5, -2.0][: np.prod(shape)], shape))
        result = lib.to_numpy(numerical_gradient(function_2, x))
        np.testing.assert_allclose(result, 2 * lib.to_numpy(x), rtol=1e-4)

    @pytest.mark.parametrize(
        ("shape", "axis"), [((2, 2), None), ((4,), None), ((4,), 0), ((2, 2), -1), ((2, 2), 0)]
    )
    def test_batched_is_not_fooled_by_shapes(
        self, shape: tuple[int, ...], axis: int | None
    ) -> None:
        """Summing along the stack gives as many numbers as copies, where those are as many."""
        with refused("f"):
            numerical_gradient(lambda x: (x**2).sum(axis=axis), np.ones(shape), method="batched")

    @each_method
    def test_an_element_of_a_batch_of_losses(self, lib: Library, method: Method) -> None:
        """As many samples as elements."""
        x = lib.asarray([1.0, 2.0, 3.0])
        data = lib.asarray(np.random.default_rng(0).normal(size=(3, 3)))

        def f(x: Any) -> Any:
            return lib.xp.sum(lib.xp.matmul(x, data) ** 2, axis=-1)

        host = lib.to_numpy(data).astype(np.float64)
        np.testing.assert_allclose(
            lib.to_numpy(numerical_gradient(f, x, method=method)),
            2 * host @ (host.T @ lib.to_numpy(x)),
            rtol=1e-6 if lib.dtype == "float64" else 1e-2,
        )

    @each_method
    def test_integers_are_promoted(self, lib: Library, method: Method) -> None:
        """The book's loop gives [25000, 35000]."""
        x = lib.asarray(np.array([3, 4]))
        result = numerical_gradient(squares_of_rows, x, method=method)
        np.testing.assert_allclose(lib.to_numpy(result), [6, 8], rtol=1e-9)
        np.testing.assert_array_equal(lib.to_numpy(x), [3, 4])
        np.testing.assert_allclose(
            numerical_gradient(squares_of_rows, [3, 4], method=method), [6, 8], rtol=1e-9
        )

    @each_method
    def test_read_only(self, method: Method) -> None:
        x = np.array([3.0, 4.0])
        x.flags.writeable = False
        np.testing.assert_allclose(
            numerical_gradient(squares_of_rows, x, method=method), [6, 8], rtol=1e-9
        )

    @each_method
    @each_scheme
    def test_no_dimension(self, lib: Library, method: Method, scheme: Scheme) -> None:
        result = numerical_gradient(lambda x: x**2, lib.asarray(3.0), method=method, scheme=scheme)
        assert result.shape == ()
        assert float(result) == pytest.approx(6, rel=1e-3)

    @each_method
    @each_scheme
    @pytest.mark.parametrize("shape", [(0,), (2, 0)])
    def test_empty(
        self, lib: Library, method: Method, scheme: Scheme, shape: tuple[int, ...]
    ) -> None:
        x = lib.asarray(np.ones(shape))
        for result in numerical_gradient(
            lambda x: 0.0, x, method=method, scheme=scheme, return_error=True
        ):
            assert result.shape == shape
            assert result.dtype == x.dtype

    @each_method
    def test_a_python_number_or_a_wider_type_from_f(self, method: Method) -> None:
        x = np.array([[0.5, 1.0, 1.5]], dtype=np.float32)

        def wide(x: np.ndarray) -> Any:
            value = mixed(x.astype(np.float64))
            return float(value) if value.ndim == 0 else value

        result = numerical_gradient(wide, x, 1e-4, method=method)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, mixed_gradient(x), rtol=1e-6)

    @each_method
    def test_torch(self, method: Method) -> None:
        torch = pytest.importorskip("torch")
        x = torch.asarray([[0.5, -1.0, 1.5]])
        result = numerical_gradient(mixed, x, method=method)
        assert result.dtype == torch.float32
        np.testing.assert_allclose(result.numpy(), mixed_gradient(x.numpy()), atol=1e-3)

    @each_method
    def test_progress(self, method: Method, capsys: pytest.CaptureFixture[str]) -> None:
        numerical_gradient(squares_of_rows, np.ones(3), method=method)
        assert capsys.readouterr().err == ""
        numerical_gradient(squares_of_rows, np.ones(3), method=method, progress=True)
        assert "gradient" in capsys.readouterr().err


class TestMemory:
    def test_chunks_fit_the_budget(self, lib: Library) -> None:
        x = matrix(lib)
        copies: list[int] = []

        def f(x: Any) -> Any:
            copies.append(x.shape[0])
            return mixed(x)

        one_copy = 6 * np.dtype(lib.dtype).itemsize
        result = numerical_gradient(f, x, method="batched", max_memory=4 * one_copy)
        assert max(copies) == 4
        whole = numerical_gradient(mixed, x, method="batched")
        np.testing.assert_allclose(
            lib.to_numpy(result), lib.to_numpy(whole), atol=16 * lib.eps / default_step(lib.dtype)
        )

    def test_halved_when_f_lacks_memory(self, lib: Library) -> None:
        x = matrix(lib)
        copies: list[int] = []

        def f(x: Any) -> Any:
            copies.append(x.shape[0])
            if x.shape[0] > 2:
                raise MemoryError
            return mixed(x)

        result = numerical_gradient(f, x, method="batched")
        assert copies == [1, 6, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
        np.testing.assert_allclose(
            lib.to_numpy(result),
            lib.to_numpy(numerical_gradient(mixed, x, method="batched")),
            atol=16 * lib.eps / default_step(lib.dtype),
        )

    @each_method
    def test_no_memory_at_all(self, method: Method) -> None:
        def f(x: Any) -> Any:
            raise MemoryError("not a byte")

        with pytest.raises(MemoryError, match="not a byte"):
            numerical_gradient(f, np.ones(5), method=method)

    def test_too_small(self) -> None:
        for budget in (47, 0):
            with refused("max_memory"):
                numerical_gradient(mixed, np.ones((2, 3)), method="batched", max_memory=budget)
        numerical_gradient(mixed, np.ones((2, 3)), method="batched", max_memory=48)


class TestErrorEstimate:
    @each_method
    @each_scheme
    @pytest.mark.parametrize(
        ("f", "slope"),
        [
            (np.exp, np.exp),
            (np.sin, np.cos),
            (lambda x: x**5, lambda x: 5 * x**4),
            (lambda x: 1 / x, lambda x: -1 / x**2),
        ],
    )
    def test_truncation(
        self, f: Callable[..., Any], slope: Callable[..., Any], method: Method, scheme: Scheme
    ) -> None:
        x = np.array([0.7, 1.1, 2.0])
        gradient, error = numerical_gradient(
            lambda x: f(x).sum(axis=-1), x, 0.05, method=method, scheme=scheme, return_error=True
        )
        # One eighth is added for the terms of higher order.
        ratio = error / np.abs(gradient - slope(x))
        assert ratio.min() > 0.9
        assert ratio.max() < 1.4

    @each_method
    @each_scheme
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_too_small_for_few_elements(self, method: Method, scheme: Scheme, dtype: str) -> None:
        shares, sizes = [], []
        for kind in KINDS:
            too_small: list[np.ndarray] = []
            for seed in range(12):
                rng = np.random.default_rng(seed)
                f, exact = kind(rng, n := int(rng.integers(1, 50)))
                x = rng.normal(size=n).astype(dtype)
                gradient, error = numerical_gradient(
                    f, x, method=method, scheme=scheme, return_error=True
                )
                too_small.append(np.abs(gradient - exact(x.astype(np.float64))) > error)
            shares.append(np.concatenate(too_small).mean())
            sizes.append(np.concatenate(too_small).size)
            assert shares[-1] < 0.03, kind
        assert np.average(shares, weights=sizes) < 0.01

    def test_rounding(self) -> None:
        """Far below the best step rounding decides, and the estimate still sees its size."""
        x = np.random.default_rng(0).normal(size=(2, 300))
        gradient, error = numerical_gradient(mixed, x, 1e-9, return_error=True)
        true = np.abs(gradient - mixed_gradient(x))
        assert 1 < error.mean() / true.mean() < 30
        assert error.min() > 0

    @each_method
    @each_scheme
    def test_rounding_that_cannot_be_told_from_the_value(
        self, method: Method, scheme: Scheme
    ) -> None:
        """f is small, and what it is computed from is large."""
        x = np.random.default_rng(0).normal(size=100).astype(np.float32)
        gradient, error = numerical_gradient(
            lambda x: (0.3 * x.sum(-1) + 1000) - 1000,
            x,
            method=method,
            scheme=scheme,
            return_error=True,
        )
        assert np.abs(gradient - 0.3).max() > 5e-4
        assert np.mean(np.abs(gradient - 0.3) > error) < 0.05

    def test_values_of_a_wider_type_have_its_rounding(self) -> None:
        x = np.array([0.3, 0.6], dtype=np.float32)
        _, narrow = numerical_gradient(lambda x: np.sum(x**2), x, return_error=True)
        _, wide = numerical_gradient(
            lambda x: float(np.sum(x.astype(np.float64) ** 2)), x, return_error=True
        )
        assert wide.max() < narrow.min() / 5
        assert wide.min() > 0

    def test_nominal_step(self) -> None:
        """At 1000.3, x + h misses its mark by a hundredth of this h."""
        x = np.array([1000.3, 3.7])
        gradient, error = numerical_gradient(
            lambda x: x[0] - 1000, x, 1e-11, nominal_step=True, return_error=True
        )
        assert 1e-4 < abs(gradient[0] - 1) < error[0] < 1

    def test_closures_that_ignore_their_argument(self, lib: Library) -> None:
        W = matrix(lib)
        for seen, expected in zip(
            numerical_gradient(lambda _: mixed(W), W, return_error=True),
            numerical_gradient(mixed, W, return_error=True),
            strict=True,
        ):
            np.testing.assert_array_equal(lib.to_numpy(seen), lib.to_numpy(expected))

    @pytest.mark.parametrize("call", [13, 24, 25, 33])
    def test_x_is_restored_when_f_raises(self, lib: Library, call: int) -> None:
        """Of 6 elements, moved up and down, twice, and 9 points of a line."""
        x = matrix(lib)
        before = lib.to_numpy(x).copy()
        calls = 0

        def f(x: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise ZeroDivisionError
            return mixed(x)

        with pytest.raises(ZeroDivisionError):
            numerical_gradient(f, x, return_error=True)
        np.testing.assert_array_equal(lib.to_numpy(x), before)

    def test_form(self, lib: Library) -> None:
        x = matrix(lib)
        gradient, error = numerical_gradient(mixed, x, return_error=True)
        assert error.shape == x.shape
        assert error.dtype == x.dtype
        np.testing.assert_array_equal(
            lib.to_numpy(gradient), lib.to_numpy(numerical_gradient(mixed, x))
        )


class TestRefused:
    @each_method
    @pytest.mark.parametrize("h", [0, 0.0, -1e-4, np.nan, np.inf])
    def test_step(self, method: Method, h: float) -> None:
        with refused("h"):
            numerical_gradient(squares_of_rows, np.ones(2), h, method=method)
        with refused("h"):
            numerical_diff(function_1, 5.0, h)

    @each_method
    @each_scheme
    def test_step_lost_in_rounding(self, lib: Library, method: Method, scheme: Scheme) -> None:
        x = lib.asarray([[1.0, 2.0], [3.0, 1e14]])
        h = 1e-4 if lib.dtype == "float64" else 2.0**-7
        with pytest.raises(ArgumentError, match=rf"^h is {h}, .*x\[1, 1\] \+ h == x\[1, 1\]"):
            numerical_gradient(mixed, x, h, method=method, scheme=scheme)

    def test_step_lost_on_one_side(self) -> None:
        """Below 1 numbers are twice as dense: 1 − h is there, and 1 + h is 1."""
        h = 2.0**-53
        assert 1 - h != 1
        with refused("h"):
            numerical_gradient(function_2, np.array([1.0]), h)

    def test_half_a_step_lost(self) -> None:
        """The message names the h that was passed, and f is not called in vain."""

        def f(x: Any) -> Any:
            raise AssertionError

        x, h = np.array([1.0]), 2.0**-52
        numerical_gradient(function_2, x, h)
        with pytest.raises(ArgumentError, match=rf"^h is {h}, .*x\[0\] \+ h/2 == x\[0\]"):
            numerical_gradient(f, x, h, return_error=True)

    @each_method
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_x_not_finite(self, lib: Library, method: Method, bad: float) -> None:
        x = lib.asarray([[1.0, 2.0], [bad, 3.0]])
        with refused("x"):
            numerical_gradient(mixed, x, method=method)

    @each_method
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_f_not_finite(self, lib: Library, method: Method, bad: float) -> None:
        x = lib.asarray([[1.0, 2.0], [3.0, 4.0]])

        def f(x: Any) -> Any:
            spoilt = lib.xp.where(x[..., 1, 0] > 3, lib.asarray(bad), lib.asarray(0.0))
            return mixed(x) + spoilt

        with pytest.raises(ArgumentError, match=r"^f .*x\[1, 0\]"):
            numerical_gradient(f, x, method=method)
        np.testing.assert_array_equal(lib.to_numpy(x), [[1, 2], [3, 4]])

    def test_f_not_finite_at_half_the_step(self) -> None:
        def f(x: np.ndarray) -> float:
            return np.nan if x[0] == 1.25 else float(x[0])

        assert numerical_gradient(f, np.array([1.0]), 0.5) == [1]
        with refused("f"):
            numerical_gradient(f, np.array([1.0]), 0.5, return_error=True)

    @pytest.mark.parametrize(
        ("method", "value"),
        [
            ("loop", np.ones(2)),
            ("loop", np.ones((1, 1))),
            ("batched", np.float64(1)),
            ("batched", 1.0),
            ("batched", np.ones((1, 2))),
        ],
    )
    def test_shape_that_f_returned(self, method: Method, value: Any) -> None:
        with refused("f"):
            numerical_gradient(lambda x: value, np.ones(2), method=method)

    @each_method
    @pytest.mark.parametrize("value", [None, [1.0]])
    def test_f_returned_no_array(self, method: Method, value: Any) -> None:
        with pytest.raises(TypeError, match="f returned"):
            numerical_gradient(lambda x: value, np.ones(2), method=method)

    def test_names(self) -> None:
        with refused("method"):
            numerical_gradient(function_2, np.ones(2), method="fast")  # type: ignore[arg-type]
        for call in (
            lambda scheme: numerical_gradient(function_2, np.ones(2), scheme=scheme),
            lambda scheme: numerical_diff(function_1, 1.0, scheme=scheme),
            lambda scheme: default_step("float64", scheme),
        ):
            with refused("scheme"):
                call("backward")

    def test_names_in_any_case(self) -> None:
        x = np.array([3.0, 4.0])
        method: Any = "Batched"
        scheme: Any = "Forward"
        np.testing.assert_array_equal(
            numerical_gradient(squares_of_rows, x, method=method, scheme=scheme),
            numerical_gradient(squares_of_rows, x, method="batched", scheme="forward"),
        )

    def test_types(self) -> None:
        with pytest.raises(TypeError, match="x has the type float16"):
            numerical_gradient(function_2, np.ones(2, dtype=np.float16))
        with pytest.raises(TypeError, match="x has the type complex128"):
            numerical_gradient(function_2, np.ones(2, dtype=complex))
        with pytest.raises(TypeError, match="x must be an array"):
            numerical_gradient(function_2, "text")


class TestGradientDescent:
    @pytest.mark.parametrize("dtype", [None, "float64"])
    def test_every_library(self, lib: Library, dtype: str | None) -> None:
        start = lib.asarray([-3.0, 4.0], dtype)
        tolerance = 1e-10 if start.dtype == lib.xp.float64 else 1e-3
        for lr, step_num, expected in (
            (0.1, 100, [-6.1111e-10, 8.1481e-10]),
            (0.1, 20, [-0.03458764513817675, 0.04611686018418694]),
            (0.01, 100, [-0.397858667684, 0.530478223578]),
        ):
            end, history = gradient_descent(function_2, start, lr, step_num)
            assert end.dtype == start.dtype
            np.testing.assert_allclose(lib.to_numpy(end), expected, rtol=0, atol=tolerance)
            assert history.shape == (step_num + 1, 2)
            np.testing.assert_array_equal(lib.to_numpy(history[0, :]), [-3, 4])
            np.testing.assert_array_equal(lib.to_numpy(history[-1, :]), lib.to_numpy(end))
        np.testing.assert_array_equal(lib.to_numpy(start), [-3, 4])

    def test_too_large_a_rate_diverges(self, lib: Library) -> None:
        end, _ = gradient_descent(function_2, lib.asarray([-3.0, 4.0]), 10.0)
        assert float(lib.xp.max(lib.xp.abs(end))) > (1e12 if lib.dtype == "float64" else 1e4)

    def test_history_is_the_whole_path(self) -> None:
        _, history = gradient_descent(function_2, np.array([-3.0, 4.0]), 0.25, 3)
        path = [[-3.0, 4.0], [-1.5, 2.0], [-0.75, 1.0], [-0.375, 0.5]]
        np.testing.assert_allclose(history, path, rtol=1e-9)

    def test_the_books_defaults(self) -> None:
        end, history = gradient_descent(function_2, np.array([-3.0, 4.0]))
        assert len(history) == 101
        np.testing.assert_allclose(end, [-0.397858667684, 0.530478223578], rtol=1e-10)

    def test_exact_gradient(self) -> None:
        start = np.array([-3.0, 4.0])
        end, _ = gradient_descent(function_2, start, 0.1, 20, gradient=lambda x: 2 * x)
        np.testing.assert_allclose(end, start * 0.8**20, rtol=1e-14)

    def test_no_step(self) -> None:
        start = np.array([1.0, 2.0])
        end, history = gradient_descent(function_2, start, 0.1, 0)
        np.testing.assert_array_equal(history, [[1.0, 2.0]], strict=True)
        end[0] = 7
        assert history[0, 0] == 1
        assert start[0] == 1

    def test_a_numpy_rate_promotes_nothing(self) -> None:
        end, history = gradient_descent(function_2, np.ones(2, dtype=np.float32), np.float64(0.1))
        assert end.dtype == history.dtype == np.float32

    @pytest.mark.parametrize("lr", [0, -0.1, np.nan, np.inf, "0.1", None, True])
    def test_rate_refused(self, lr: Any) -> None:
        with refused("lr"):
            gradient_descent(function_2, np.ones(2), lr)

    @pytest.mark.parametrize("step_num", [-1, 2.5, True, "3"])
    def test_number_of_steps_refused(self, step_num: Any) -> None:
        with refused("step_num"):
            gradient_descent(function_2, np.ones(2), 0.1, step_num)

    def test_rate_so_large_that_the_walk_overflows(self, lib: Library) -> None:
        for gradient in (None, lambda x: 2 * x):
            with refused("lr"), np.errstate(over="ignore"):
                gradient_descent(function_2, lib.asarray([3.0, 4.0]), 1e308, gradient=gradient)

    def test_start_refused(self) -> None:
        with refused("init_x"):
            gradient_descent(function_2, np.array([np.nan]))
        with pytest.raises(TypeError, match="init_x"):
            gradient_descent(function_2, "text")


class TestWhatFunctionsReturn:
    def test_unsigned_integers_do_not_wrap_around(self) -> None:
        x = np.array([5.0, 5.0])
        slope = numerical_diff(lambda p: (p < 5).astype(np.uint8), x)
        np.testing.assert_allclose(slope, [-5000, -5000])
        steps = numerical_gradient(lambda p: (p < 5).sum(1).astype(np.uint8), x, method="batched")
        np.testing.assert_allclose(steps, [-5000, -5000])
        np.testing.assert_allclose(numerical_diff(lambda p: p < 5, x), [-5000, -5000])

    @pytest.mark.parametrize("method", ["loop", "batched"])
    def test_complex_numbers_are_refused(self, method: Any) -> None:
        with pytest.raises(TypeError, match="what f returned has the type complex128"):
            numerical_gradient(lambda p: (1j * p).sum(-1), np.ones(2), method=method)

    def test_an_argument_that_is_changed(self) -> None:
        x = np.array([3.0, 4.0, 7.0])

        def shift(point: Any) -> Any:
            point -= point.max()
            return np.sum(point**2)

        with refused("f"):
            numerical_gradient(shift, x)
        np.testing.assert_array_equal(x, [3, 4, 7])

    @pytest.mark.parametrize("gradient", [lambda x: 1.0, lambda x: x[:1], lambda x: x * np.nan])
    def test_gradients_of_a_descent(self, gradient: Any) -> None:
        with refused("gradient"):
            gradient_descent(function_2, np.array([3.0, 4.0]), gradient=gradient)

    @pytest.mark.parametrize("gradient", [lambda x: [1.0, 2.0], lambda x: 1j * x])
    def test_gradients_of_a_descent_that_are_no_real_arrays(self, gradient: Any) -> None:
        with pytest.raises(TypeError, match="gradient returned"):
            gradient_descent(function_2, np.array([3.0, 4.0]), gradient=gradient)

    def test_a_descent_keeps_its_type(self) -> None:
        x, history = gradient_descent(
            function_2,
            np.array([3.0, 4.0], np.float32),
            gradient=lambda x: 2 * x.astype(np.float64),
        )
        assert x.dtype == history.dtype == np.float32
