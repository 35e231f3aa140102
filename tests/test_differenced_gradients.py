"""Numerical gradients of any function: accuracy, memory, chunks, namespaces, own rules."""

from __future__ import annotations

import importlib
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import array_api_compat
import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from libraries import Library

import dlfs_gpu
from dlfs_gpu import Differenced, numerical_diff, numerical_gradient, with_difference
from dlfs_gpu._validation import array_namespace, namespace_of
from dlfs_gpu.differences import windows


def softmax(a: Any) -> Any:
    """The chapter's, as the book writes it."""
    e = np.exp(a - np.max(a, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


class Network:
    """The chapter's two-layer network in plain NumPy, as the book writes it."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dtype: type) -> None:
        rng = np.random.default_rng(0)
        self.params: dict[str, Any] = {
            "W1": (rng.normal(size=(inputs, hidden)) / 8).astype(dtype),
            "b1": (rng.normal(size=hidden) / 8).astype(dtype),
            "W2": (rng.normal(size=(hidden, outputs)) / 8).astype(dtype),
            "b2": (rng.normal(size=outputs) / 8).astype(dtype),
        }

    def predict(self, x: Any) -> Any:
        p = self.params
        z1 = 1 / (1 + np.exp(-(np.dot(x, p["W1"]) + p["b1"])))
        return softmax(np.dot(z1, p["W2"]) + p["b2"])

    def loss(self, x: Any, t: Any) -> Any:
        return -np.sum(t * np.log(self.predict(x) + x.dtype.type(1e-7))) / x.shape[0]

    def loss_of(self, key: str, x: Any, t: Any) -> Callable[[Any], Any]:
        """Return the loss as a function of one parameter."""

        def f(param: Any) -> Any:
            kept = self.params
            self.params = {**kept, key: param}
            try:
                return self.loss(x, t)
            finally:
                self.params = kept

        return f


def batch(inputs: int, outputs: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Images of which most pixels are 0, and one-hot targets."""
    rng = np.random.default_rng(1)
    x = rng.random((20, inputs)) * (rng.random((20, inputs)) < 0.3)
    return x.astype(dtype), np.eye(outputs, dtype=dtype)[rng.integers(outputs, size=20)]


class TestPlainNumPy:
    @pytest.mark.parametrize("key", ["W1", "b1", "W2", "b2"])
    def test_float32_error_is_below_1e_6(self, key: str) -> None:
        """Where the loop has an error of 1e-2 and more."""
        network = Network(30, 12, 5, np.float32)
        x, t = batch(30, 5, np.float32)
        f, param = network.loss_of(key, x, t), network.params[key]
        result = numerical_gradient(f, param, method="difference")
        loop = numerical_gradient(f, param.copy(), 1e-4)
        network.params = {k: v.astype(np.float64) for k, v in network.params.items()}
        f = network.loss_of(key, x.astype(np.float64), t.astype(np.float64))
        exact = numerical_gradient(f, network.params[key], method="difference")
        assert result.dtype == np.float32
        assert np.linalg.norm(result - exact) < 1e-6 * np.linalg.norm(exact)
        assert np.linalg.norm(loop - exact) > 1e-3 * np.linalg.norm(exact)

    @pytest.mark.parametrize("scheme", ["central", "forward"])
    @pytest.mark.parametrize("h", [0.5, 1e-2])
    def test_the_finite_difference_and_no_derivative(self, h: float, scheme: Any) -> None:
        """Truncation error and all, it is the loop's."""
        network = Network(6, 5, 4, np.float64)
        x, t = batch(6, 4, np.float64)
        for key, param in network.params.items():
            f = network.loss_of(key, x, t)
            loop = numerical_gradient(f, param.copy(), h, scheme=scheme)
            result = numerical_gradient(f, param, h, method="difference", scheme=scheme)
            np.testing.assert_allclose(result, loop, rtol=1e-9, atol=1e-12)

    def test_any_h(self) -> None:
        """From 1 down to 1e-300 it tends to the derivative."""
        x = np.array([0.3, -1.7])
        for h in (1e-4, 1e-8, 1e-16, 1e-100, 1e-290):
            result = numerical_gradient(
                lambda x: np.sum(np.sin(x) * np.exp(x)), x, h, method="difference"
            )
            exact = np.exp(x) * (np.sin(x) + np.cos(x))
            np.testing.assert_allclose(result, exact, rtol=2e-15 + h**2)

    def test_the_step_is_the_one_that_the_type_holds(self) -> None:
        """0.1 in float32 is not 0.1; the divisor is what x moved by."""
        x = np.array([1.0], dtype=np.float32)
        for scheme in ("central", "forward"):
            result = numerical_gradient(
                lambda x: 3 * x[0], x, 0.1, method="difference", scheme=scheme
            )
            assert result == 3

    def test_kinks_and_jumps_within_the_step(self) -> None:
        def f(x: Any) -> Any:
            return np.sum(np.maximum(x, 0) + np.where(x > 0.25, 1.0, 0.0) + np.abs(x - 0.5))

        x = np.array([-0.25, 0.0, 0.125, 0.25, 0.5, 1.0])
        for h in (0.125, 0.25, 0.5):
            np.testing.assert_array_equal(
                numerical_gradient(f, x, h, method="difference"), numerical_gradient(f, x, h)
            )

    def test_error_estimate(self) -> None:
        x = np.linspace(-1, 1, 9)
        for h in (1e-1, 1e-3, 1e-12):
            result, error = numerical_gradient(
                lambda x: np.sum(np.sin(3 * x)), x, h, method="difference", return_error=True
            )
            actual = np.abs(result - 3 * np.cos(3 * x))
            assert (actual <= error).all()
            assert (error <= 5 * h * h * 27 + 1e-13).all()


FUNCTIONS: list[tuple[Callable[..., Any], str]] = [
    (dlfs_gpu.identity_function, "scores"),
    (dlfs_gpu.step_function, "scores"),
    (dlfs_gpu.sigmoid, "scores"),
    (dlfs_gpu.sigmoid_grad, "scores"),
    (dlfs_gpu.relu, "scores"),
    (dlfs_gpu.relu_grad, "scores"),
    (dlfs_gpu.softmax, "scores"),
    (dlfs_gpu.log_softmax, "scores"),
    (dlfs_gpu.function_1, "scores"),
    (dlfs_gpu.function_2, "scores"),
    (dlfs_gpu.sum_squared_error, "one-hot"),
    (dlfs_gpu.mean_squared_error, "one-hot"),
    (dlfs_gpu.cross_entropy_error, "one-hot"),
    (dlfs_gpu.cross_entropy_error, "labels"),
    (dlfs_gpu.softmax_cross_entropy, "one-hot"),
    (dlfs_gpu.softmax_cross_entropy, "labels"),
    (dlfs_gpu.softmax_loss, "one-hot"),
    (dlfs_gpu.binary_cross_entropy_error, "one-hot"),
    (dlfs_gpu.sigmoid_cross_entropy, "one-hot"),
]


class TestLibraryFunctions:
    @pytest.mark.parametrize(("function", "kind"), FUNCTIONS)
    @pytest.mark.parametrize("h", [0.25, 1e-3])
    def test_as_they_are(self, lib: Library, function: Any, kind: str, h: float) -> None:
        """With kinks inside the step, against the loop in float64."""
        z = np.array([[0.0, 2.0, -1.0], [0.125, -30.0, 40.0], [0.5, -0.25, 3.0]])
        z = z.astype(lib.dtype).astype(np.float64)
        labels = np.array([1, 2, 0])
        if function in (
            dlfs_gpu.cross_entropy_error,
            dlfs_gpu.binary_cross_entropy_error,
            dlfs_gpu.sum_squared_error,
        ):
            z = (0.5 + 0.2 * np.tanh(z)).astype(lib.dtype).astype(np.float64)
        weights = np.array([[1.0, -2.0, 0.5], [0.25, 1.0, -1.0], [1.0, 3.0, 2.0]])
        targets = labels if kind == "labels" else np.eye(3)[labels]

        def loss(x: Any, t: Any, w: Any) -> Any:
            if kind != "scores":
                return function(x, t)
            result = function(x)
            return namespace_of(x).sum(result * w) if result.ndim else result

        expected = numerical_gradient(lambda x: loss(x, targets, weights), z.copy(), h)
        t, w = lib.asarray(targets), lib.asarray(weights)
        result = numerical_gradient(lambda x: loss(x, t, w), lib.asarray(z), h, method="difference")
        scale = np.abs(expected).max()
        noise = 1e-12 / h
        np.testing.assert_allclose(
            lib.to_numpy(result), expected, rtol=0, atol=scale * (16 * lib.eps + noise)
        )

    def test_no_target_is_mistaken(self) -> None:
        """Checks of shapes and labels see what they are meant for."""
        z = np.zeros((2, 3))
        for t in ([0, 3], [[0, 1], [1, 0]], np.array([0.5, 1.0])):
            with pytest.raises((ValueError, TypeError)):
                numerical_gradient(
                    partial(dlfs_gpu.softmax_cross_entropy, t=t), z, method="difference"
                )


LAYERS: dict[str, Callable[[Library], Any]] = {
    "Affine": lambda lib: dlfs_gpu.Affine(
        lib.asarray(np.arange(12.0).reshape(4, 3) / 8 - 0.5), lib.asarray([0.5, 0.0, -1.0])
    ),
    "Sigmoid": lambda lib: dlfs_gpu.Sigmoid(),
    "Tanh": lambda lib: dlfs_gpu.Tanh(),
    "Relu": lambda lib: dlfs_gpu.Relu(),
    "Identity": lambda lib: dlfs_gpu.Identity(),
    "Dropout": lambda lib: dlfs_gpu.Dropout(0.5, seed=0),
}


class TestLayers:
    """Two ways to one result: a layer's own rule, and its forward on arrays with changes."""

    X = np.array([[0.0, 2.0, -1.0, 0.125], [-30.0, 40.0, 0.5, -0.25]])
    D = np.array([1.0, -1.0, 0.125, 1e-3, -30.0, 1e-30]) * np.array([[[1.0], [0.5]] * 2] * 2)

    @pytest.mark.parametrize("name", LAYERS)
    def test_layers(self, lib: Library, name: str) -> None:
        layer = LAYERS[name](lib)
        if name == "Dropout":
            layer.frozen = True
        x, d = lib.asarray(self.X), lib.asarray(self.D)
        out = layer.forward(x)
        own = lib.to_numpy(layer.difference(lib.asarray(self.D), *layer.saved()))
        moved = Differenced(x, lib.xp.permute_dims(d, (2, 0, 1)))
        result = layer.forward(moved)
        np.testing.assert_array_equal(lib.to_numpy(result.value), lib.to_numpy(out))
        change = np.moveaxis(lib.to_numpy(result.change), 0, -1)
        scale = np.max(np.abs(own), axis=(0, 1))
        assert (np.abs(change - own) <= 16 * lib.eps * scale).all()

    @pytest.mark.parametrize(
        "name", ["SoftmaxWithLoss", "SigmoidWithLoss", "SumSquaredError", "MeanSquaredError"]
    )
    def test_losses(self, lib: Library, name: str) -> None:
        loss = getattr(dlfs_gpu, name)()
        t = lib.asarray(np.array([[0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]]))
        x, d = lib.asarray(self.X), lib.asarray(self.D)
        value = loss.forward(x, t)
        own = loss.difference(lib.asarray(self.D), lib.xp.zeros_like(d), *loss.saved())
        expected = lib.to_numpy(own).astype(np.float64).mean(axis=0)
        result = loss.forward(Differenced(x, lib.xp.permute_dims(d, (2, 0, 1))), t)
        np.testing.assert_array_equal(lib.to_numpy(result.value), lib.to_numpy(value))
        terms = np.abs(self.D).sum(axis=(0, 1)) * 64
        error = np.abs(lib.to_numpy(result.change) - expected)
        assert (error <= 4 * lib.eps * terms).all()


class TestChunks:
    def test_any_shape(self, lib: Library) -> None:
        """Whatever the axes, elements come back at their place."""
        rng = np.random.default_rng(0)
        for shape in [(), (1,), (1, 1), (7,), (40, 3), (3, 40), (2, 3, 4), (5, 1, 6, 1), (300,)]:
            weights = rng.normal(size=shape)
            x = lib.asarray(rng.normal(size=shape))
            w = lib.asarray(weights)

            def f(x: Any, w: Any = w) -> Any:
                return namespace_of(x).sum(x * w)

            for budget in (None, 4000):
                result = numerical_gradient(f, x, method="difference", max_memory=budget)
                assert result.shape == shape
                assert str(result.dtype).endswith(lib.dtype)
                np.testing.assert_allclose(lib.to_numpy(result), weights, rtol=4 * lib.eps)

    @pytest.mark.parametrize("layout", ["x @ W", "W @ x", "packed"])
    def test_within_the_memory_asked_for(self, layout: str) -> None:
        """Changes, and what rules need on the way, take no more."""
        rng = np.random.default_rng(0)
        data = rng.normal(size=(50, 60))
        shape = {"x @ W": (60, 30), "W @ x": (30, 50), "packed": (1800,)}[layout]
        W = rng.normal(size=shape) / 8

        def f(W: Any) -> Any:
            W = W.reshape(60, 30) if layout == "packed" else W
            scores = np.tanh(W @ data if layout == "W @ x" else data @ W)
            shifted = scores - np.max(scores, axis=1, keepdims=True)
            return np.mean(np.log(np.sum(np.exp(shifted), axis=1)))

        whole = numerical_gradient(f, W, method="difference")
        for budget in (4 * 2**20, 2**20):
            tracemalloc.start()
            try:
                result = numerical_gradient(f, W, method="difference", max_memory=budget)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            # The values themselves, and Python, are not counted.
            assert peak < budget + 300_000
            np.testing.assert_allclose(result, whole, rtol=1e-12)

    def test_half_as_many_where_memory_runs_out(self) -> None:
        seen = []

        def f(x: Any) -> Any:
            seen.append(x.part.shape[0])
            if x.part.shape[0] > 64:
                raise MemoryError
            return np.sum(x * x)

        x = np.arange(500.0)
        np.testing.assert_allclose(
            numerical_gradient(f, x, method="difference"), 2 * x, rtol=1e-12, atol=1e-12
        )
        assert max(seen) > 64

    def test_progress(self, capsys: pytest.CaptureFixture[str]) -> None:
        numerical_gradient(np.sum, np.ones(3), method="difference", progress=True)
        assert "gradient" in capsys.readouterr().err

    def test_x_is_left_alone(self) -> None:
        x = np.arange(6.0).reshape(2, 3)
        x.flags.writeable = False
        numerical_gradient(np.sum, x.T, method="difference")
        np.testing.assert_array_equal(x, np.arange(6.0).reshape(2, 3))


class TestDerivative:
    @pytest.mark.parametrize("scheme", ["central", "forward"])
    def test_of_one_variable(self, lib: Library, scheme: Any) -> None:
        """All elements at once, each the derivative there."""
        x = np.array([[0.5, 1.5], [2.0, -3.0]])
        h = 0.25

        def f(x: Any) -> Any:
            return namespace_of(x).sin(x) * x

        lower = x - h if scheme == "central" else x
        expected = (np.sin(x + h) * (x + h) - np.sin(lower) * lower) / (x + h - lower)
        result = numerical_diff(f, lib.asarray(x), h, method="difference", scheme=scheme)
        np.testing.assert_allclose(lib.to_numpy(result), expected, rtol=0, atol=8 * lib.eps)

    def test_the_chapters_example(self) -> None:
        assert numerical_diff(dlfs_gpu.function_1, 5, method="difference") == pytest.approx(
            0.2, rel=1e-15
        )


class TestOwnRules:
    def test_ufunc(self) -> None:
        """SciPy's expit, whose rule is one line."""
        # The ufunc itself: where SCIPY_ARRAY_API is set, scipy.special has functions around them.
        special = importlib.import_module("scipy.special._ufuncs")
        x = np.array([-2.0, 0.5])
        with pytest.raises(TypeError, match="expit has no rule"):
            numerical_gradient(lambda x: special.expit(x).sum(), x, method="difference")
        expit = with_difference(
            special.expit, lambda x, d: special.expit(x) * np.expm1(d) / (np.exp(x + d) + 1)
        )
        assert expit is special.expit
        result = numerical_gradient(lambda x: special.expit(x).sum(), x, 1e-9, method="difference")
        np.testing.assert_allclose(result, dlfs_gpu.sigmoid_grad(x), rtol=1e-14)

    def test_any_function(self) -> None:
        """One of two arguments, of which one may be a constant."""

        def area(width: Any, height: Any) -> Any:
            return np.asarray([float(w) for w in np.ravel(width)]) * height

        rule = with_difference(area, lambda w, h, dw, dh: w * dh + dw * (h + dh))
        w, h = np.array([1.0, 2.0]), np.array([3.0, 5.0])
        np.testing.assert_array_equal(rule(w, h), [3, 10])
        cases: list[tuple[Callable[[Any], Any], Any, Any]] = [
            (lambda x: rule(x, h).sum(), w, h),
            (lambda x: rule(w, x).sum(), h, w),
            (lambda x: rule(x, x).sum(), w, 2 * w),
        ]
        for f, x, expected in cases:
            result = numerical_gradient(f, x, method="difference")
            np.testing.assert_allclose(result, expected, rtol=1e-12)
        assert rule.__name__ == "area"


class TestNamespace:
    def test_one_for_each_library(self) -> None:
        x = Differenced(np.ones(2), np.ones((1, 2)))
        y = Differenced(np.ones(3), np.ones((4, 3)))
        xp: Any = x.__array_namespace__()
        assert xp is y.__array_namespace__()
        assert array_api_compat.array_namespace(x) is xp
        assert xp.library is np
        assert "numpy" in repr(xp)

    def test_together_with_the_librarys_own_arrays(self, lib: Library) -> None:
        plain = lib.asarray([1.0, 2.0])
        x = Differenced(plain, lib.asarray([[1.0, 2.0]]))
        xp = array_namespace(x=x, t=plain)
        assert xp is array_namespace(t=plain, x=x) is array_namespace(x=x, y=x)
        with pytest.raises(TypeError, match=r"x is a .* and t is a"):
            array_namespace(x=x, t=array_api_strict.ones(2) if lib.name != "strict" else np.ones(2))

    def test_functions_of_the_library(self, lib: Library) -> None:
        """Those that make arrays give plain ones; those with a rule take plain ones."""
        plain = lib.asarray([1.0, 2.0])
        x = Differenced(plain, lib.asarray([[1.0, 2.0]]))
        xp = namespace_of(x)
        assert not isinstance(xp.zeros(3), Differenced)
        assert not isinstance(xp.exp(plain), Differenced)
        assert not isinstance(xp.zeros_like(x), Differenced)
        assert xp.asarray(x) is x
        assert xp.asarray(x, dtype=xp.float64).dtype == xp.float64
        assert xp.astype(x, xp.float32).change.dtype == xp.float32
        assert xp.isdtype(x.dtype, "real floating")
        assert xp.result_type(x, plain) == plain.dtype
        assert xp.finfo(x.dtype).bits in (32, 64)
        assert x.device == array_api_compat.device(plain)
        np.testing.assert_array_equal(lib.to_numpy(xp.linalg.vector_norm(x, ord=1).change), [3.0])
        np.testing.assert_array_equal(
            lib.to_numpy(xp.linalg.outer(x, plain).change), [[[1, 2], [2, 4]]]
        )
        matrix = xp.expand_dims(x, axis=0)
        for name in ("matrix_norm", "trace", "diagonal", "matrix_transpose"):
            assert isinstance(getattr(xp.linalg, name)(matrix), Differenced)
        first = xp.cumulative_sum(x, include_initial=True)
        np.testing.assert_array_equal(lib.to_numpy(first.change), [[0, 1, 3]])
        with pytest.raises(TypeError, match="sort"):
            xp.sort(x)
        with pytest.raises(AttributeError):
            _ = xp.no_such_function


@st.composite
def reshapes(draw: Any) -> tuple[Any, Any, Any]:
    """Draw a shape, a window of it, and another shape of as many elements."""
    factors = draw(st.lists(st.sampled_from([1, 2, 2, 3, 4]), min_size=1, max_size=5))

    def grouped() -> tuple[int, ...]:
        shape, size = [], 1
        for factor in factors:
            size *= factor
            if draw(st.booleans()):
                shape.append(size)
                size = 1
        return (*shape, size)

    shape = grouped()
    window = []
    for size in shape:
        start = draw(st.integers(0, size))
        window.append((start, draw(st.integers(start, size))))
    return shape, tuple(window), grouped()


class TestWindows:
    @given(reshapes())
    def test_reshape(self, case: tuple[Any, Any, Any]) -> None:
        """What is reshaped as a window is what the whole would be."""
        shape, window, target = case
        rng = np.random.default_rng(0)
        part = rng.normal(size=(2, *windows.shape_of(window)))
        dense = windows.enlarge(np, part, window, windows.whole(shape))
        reshaped, new = windows.reshape(np, part, window, shape, target)
        assert reshaped.shape[1:] == windows.shape_of(new)
        np.testing.assert_array_equal(
            windows.enlarge(np, reshaped, new, windows.whole(target)), dense.reshape(2, *target)
        )

    def test_a_column_stays_a_column(self) -> None:
        """What makes differences of a weight matrix fast: only its own column moves."""
        x: Any = Differenced(np.ones((6, 4)), np.zeros((2, 6, 4)))
        x.part, x.window = np.ones((2, 6, 1)), ((0, 6), (2, 3))
        hidden = np.tanh(np.ones((5, 6)) @ x + np.ones(4)) ** 2
        assert hidden.window == ((0, 5), (2, 3))
        assert hidden.reshape(1, 5, 4).transpose(2, 0, 1).window == ((2, 3), (0, 1), (0, 5))
        assert (hidden @ np.ones((4, 3))).window == ((0, 5), (0, 3))
        assert windows.is_empty((hidden[:, :2] > 0).window)
        flat = Differenced(np.ones(24), np.zeros((2, 24)))
        flat.part, flat.window = np.ones((2, 3)), ((5, 8),)
        assert flat.reshape(6, 4).window == ((1, 2), (1, 4))
        assert flat.reshape(8, 3).window == ((1, 3), (0, 3))
