"""What differences of any function refuse, with the reason and the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest

from dlfs_gpu import ArgumentError, Differenced, numerical_diff, numerical_gradient

X = np.array([0.5, 1.5, -2.0])


def gradient(f: Any, x: Any = X, **options: Any) -> Any:
    return numerical_gradient(f, x, method="difference", **options)


def writes_into_it(x: Any) -> Any:
    x[0] = 1.0
    return x.sum()


def writes_into_another(x: Any) -> Any:
    y = np.zeros(3)
    y[:2] = x[:2]
    return y.sum()


def adds_in_place(x: Any) -> Any:
    x += 1
    return x.sum()


def adds_into_another(x: Any) -> Any:
    y = np.zeros(3)
    y += x
    return y.sum()


def branches(x: Any) -> Any:
    return x.sum() if x[0] > 0.5 else -x.sum()


class TestFunctions:
    """Each is a TypeError that names what was done, and what to do instead."""

    @pytest.mark.parametrize(
        ("f", "named", "remedy"),
        [
            (lambda x: np.sort(x)[0], "sort", "method='batched'"),
            (lambda x: np.linalg.det(np.outer(x, x)), "det", "method='loop'"),
            (lambda x: x[np.argmax(x)], "argmax", "method='loop'"),
            (lambda x: x.argsort().sum(), "argsort", "method='loop'"),
            (lambda x: np.add.outer(x, x).sum(), "add.outer", "with_difference"),
            (lambda x: np.linalg.norm(np.outer(x, x), 2), "norm", "method='loop'"),
            (lambda x: np.pad(x, 1, mode="linear_ramp").sum(), "pad", "method='loop'"),
            (lambda x: x.__array_namespace__().argsort(x)[0], "argsort", "method='loop'"),
            (lambda x: math.exp(x[0]), "float()", "NumPy's functions"),
            (lambda x: int(x[0]) * x[0], "int()", "floor"),
            (lambda x: [1.0, 2.0][x.sum()] * x[0], "index", "where"),
            (lambda x: np.asarray(x).sum(), "asarray", "stack"),
            (lambda x: np.array([x[0], x[1]]).sum(), "np.array", "stack"),
            (lambda x: x.sum() if x[0] else 0.0, "bool()", "x != 0"),
            (branches, "branch", "where"),
            (lambda x: x[x > 0.5].sum(), "mask", "where"),
            (lambda x: max(x), "branch", "maximum"),
            (writes_into_it, "written into", "where"),
            (writes_into_another, "plain array", "concatenate"),
            (adds_in_place, "write into", "x = x + y"),
            (adds_into_another, "out=", "returns"),
            (lambda x: np.exp(x, out=np.zeros(3)).sum(), "out=", "returns"),
            (lambda x: np.sum(x, where=[True, False, True]), "where=", "where("),
            (lambda x: x.astype(int).sum(), "astype", "floor"),
            (lambda x: np.sum(x, initial=1.0), "initial", "method='loop'"),
            (lambda x: np.exp(x, dtype=np.float64).sum(), "dtype", "exp"),
            (lambda x: x.reshape(3, 1, order="F").sum(), "order", "'C'"),
        ],
    )
    def test_refused(self, f: Callable[[Any], Any], named: str, remedy: str) -> None:
        x = np.array([0.5, 0.5 + 1e-5, -2.0])
        with pytest.raises(TypeError) as error:
            gradient(f, x)
        assert named in str(error.value)
        assert remedy in str(error.value)

    def test_a_branch_that_all_points_take_is_taken(self) -> None:
        def f(x: Any) -> Any:
            assert np.all(np.isfinite(x))
            assert 3.5 not in x
            return (x**2).sum() if (x[0] > 0.4 and not x.sum() > 1) else x.sum()

        np.testing.assert_allclose(gradient(f), 2 * X, rtol=1e-12)

    def test_a_mask_that_all_points_share_chooses(self) -> None:
        np.testing.assert_array_equal(gradient(lambda x: x[x > 0].sum()), [1, 1, 0])

    def test_another_librarys_own_function_gets_a_hint(self) -> None:
        x = array_api_strict.asarray([1.0, 2.0])
        with pytest.raises(TypeError) as error:
            gradient(array_api_strict.exp, x)
        assert "np.exp" in error.value.__notes__[0]

    def test_another_librarys_array(self) -> None:
        other = array_api_strict.asarray([1.0, 2.0, 3.0])
        for f in (np.multiply, np.matmul, lambda x, y: y * x, lambda x, y: np.stack([x, y])):
            with pytest.raises(TypeError):
                gradient(lambda x, f=f: np.sum(f(x, other)))


class TestResults:
    @pytest.mark.parametrize(
        ("result", "error"),
        [
            ("text", TypeError),
            (None, TypeError),
            (lambda x: x, ArgumentError),
            (lambda x: x[:1], ArgumentError),
            (lambda x: (x[0], x[1]), TypeError),
            (lambda x: x.sum() * 1j, TypeError),
            (lambda x: x.sum() > 0, TypeError),
            (lambda x: np.log(x - 10).sum(), ArgumentError),
            (lambda x: 1 / (x[0] - 0.5), ArgumentError),
        ],
    )
    @pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
    def test_refused(self, result: Any, error: type[Exception]) -> None:
        with pytest.raises(error) as caught:
            gradient(result if callable(result) else lambda x: result)
        if error is ArgumentError:
            assert isinstance(caught.value, ArgumentError)
            assert caught.value.argument == "f"

    def test_a_function_that_ignores_its_argument(self) -> None:
        """The book's ``f = lambda W: network.loss(x, t)`` reads ``network.W``."""
        W = X.copy()
        with pytest.raises(ArgumentError, match="method='loop'") as caught:
            gradient(lambda _: (W**2).sum(), W)
        assert caught.value.argument == "f"

    def test_a_function_that_draws_random_numbers(self) -> None:
        rng = np.random.default_rng(0)
        with pytest.raises(ArgumentError, match="different values"):
            gradient(lambda x: (x * rng.random(3)).sum())

    def test_an_array_kept_from_an_earlier_evaluation(self) -> None:
        kept: list[Any] = []

        def f(x: Any) -> Any:
            kept.append(x)
            return (kept[0] * x).sum()

        with pytest.raises(TypeError, match="earlier evaluation"):
            gradient(f)

    def test_a_result_kept_from_an_earlier_evaluation(self) -> None:
        kept: list[Any] = []

        def f(x: Any) -> Any:
            kept.append(x.sum())
            return kept[0]

        with pytest.raises(TypeError, match="earlier call"):
            gradient(f)

    def test_not_callable(self) -> None:
        for call in (numerical_gradient, numerical_diff):
            with pytest.raises(TypeError, match="f is 3"):
                call(3, X, method="difference")  # type: ignore[arg-type]

    def test_derivative_of_another_shape(self) -> None:
        with pytest.raises(ArgumentError) as caught:
            numerical_diff(np.sum, X, method="difference")
        assert caught.value.argument == "f"


class TestArguments:
    @pytest.mark.parametrize("h", [0, -1e-4, math.nan, math.inf, 1e-40, "small", True, 1e60])
    def test_step(self, h: Any) -> None:
        x = X.astype(np.float32)
        for call in (numerical_gradient, numerical_diff):
            with pytest.raises(ArgumentError) as caught:
                call(lambda x: x * 1, x, h, method="difference")
            assert caught.value.argument == "h"

    @pytest.mark.parametrize("x", [[np.nan, 1.0], [np.inf], np.zeros((0, 3))])
    def test_numbers(self, x: Any) -> None:
        with pytest.raises(ArgumentError) as caught:
            gradient(np.sum, np.asarray(x))
        assert caught.value.argument == "x"

    @pytest.mark.parametrize(
        "x", [np.array([object()]), np.array(["a"]), np.ones(2, complex), np.ones(2, np.float16)]
    )
    def test_types(self, x: Any) -> None:
        with pytest.raises(TypeError, match="x"):
            gradient(np.sum, x)

    def test_integers_become_float64(self) -> None:
        result = gradient(lambda x: (x**2).sum(), np.array([3, 4]))
        assert result.dtype == np.float64
        np.testing.assert_allclose(result, [6, 8], rtol=1e-12)

    def test_memory(self) -> None:
        with pytest.raises(ArgumentError) as caught:
            gradient(np.sum, max_memory=8)
        assert caught.value.argument == "max_memory"

    def test_method(self) -> None:
        with pytest.raises(ArgumentError) as caught:
            numerical_diff(np.sin, 1.0, method="batched")  # type: ignore[arg-type]
        assert caught.value.argument == "method"


class TestDifferenced:
    """Arrays that people make themselves."""

    @pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 1, 3), ()])
    def test_shape_of_the_change(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ArgumentError) as caught:
            Differenced(X, np.zeros(shape))
        assert caught.value.argument == "change"

    def test_kinds(self) -> None:
        with pytest.raises(TypeError):
            Differenced(X, np.zeros((2, 3), dtype=bool))
        with pytest.raises(TypeError):
            Differenced(X > 0, np.zeros((2, 3)))
        with pytest.raises(TypeError):
            Differenced(X, array_api_strict.zeros((2, 3)))
        with pytest.raises(TypeError):
            Differenced(np.array(["a"]), np.zeros((2, 1)))

    def test_different_numbers_of_changes(self) -> None:
        with pytest.raises(ArgumentError) as caught:
            Differenced(X, np.zeros((2, 3))) + Differenced(X, np.zeros((3, 3)))
        assert caught.value.argument == "change"

    def test_mean_of_nothing(self) -> None:
        x = Differenced(np.zeros((0, 2)), np.zeros((1, 0, 2)))
        for reduce in (np.mean, np.var, np.std):
            with pytest.raises(ArgumentError):
                reduce(x, axis=0)

    def test_single_numbers_have_no_length(self) -> None:
        x = Differenced(np.asarray(1.0), np.zeros(2))
        with pytest.raises(TypeError):
            len(x)
        with pytest.raises(TypeError):
            iter(x)
        with pytest.raises(TypeError):
            bool(Differenced(X > 0, np.zeros((1, 3), dtype=bool)))

    def test_unknown_attributes(self) -> None:
        x = Differenced(X, np.zeros((1, 3)))
        assert not hasattr(x, "flat")
        assert not hasattr(x, "__cuda_array_interface__")
        with pytest.raises(TypeError, match="searchsorted"):
            x.searchsorted(1)
