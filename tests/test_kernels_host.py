"""Compiled loops on the CPU: the array code's numbers, and what happens where they cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

numba = pytest.importorskip("numba")

# ruff: noqa: E402
from dlfs_gpu._validation import ArgumentError
from dlfs_gpu.differences import compiled
from dlfs_gpu.differences.series import sigmoid_series
from dlfs_gpu.kernels import KernelWarning, host, loops, proof, report, use_kernels
from dlfs_gpu.layers import Affine, Relu, Sigmoid, Tanh
from dlfs_gpu.losses import SoftmaxWithLoss
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.network import Network

ACTIVATIONS = ["sigmoid", "tanh", "relu"]
TOLERANCE = {"float32": 5e-7, "float64": 1e-14}
Grads = dict[str, np.ndarray]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the loops that have run, the proof's included."""
    names: list[str] = []
    run = host.run

    def record(name: str, *arguments: Any) -> None:
        names.append(name)
        run(name, *arguments)

    monkeypatch.setattr(host, "run", record)
    return names


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no loop had been compiled or proved in this process, but for finding Numba."""
    assert host._is_installed()  # kept from now on, whatever a test does to the modules
    monkeypatch.setattr(host, "_ready", {})
    monkeypatch.setattr(proof, "_statuses", {})
    monkeypatch.setattr(proof, "_passed", set())


def sparse(n: int, inputs: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    """Inputs like pixels: many zeros, and many that are equal."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 20, (n, inputs)) / 20 * (rng.random((n, inputs)) < 0.4)
    return x.astype(dtype)


def by_arrays(network: Network, x: Any, t: Any, h: float = 1e-4) -> Grads:
    with use_kernels("off"):
        return network.numerical_gradient(x, t, h)


def assert_same(network: Network, x: Any, t: Any, h: float = 1e-4, tolerance: float = 0) -> None:
    ours = network.numerical_gradient(x, t, h)
    for key, expected in by_arrays(network, x, t, h).items():
        norm = np.linalg.norm(expected.astype(np.float64))
        error = np.linalg.norm(ours[key].astype(np.float64) - expected)
        assert error <= (tolerance or TOLERANCE[expected.dtype.name]) * norm, (key, error / norm)


# The same numbers


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("std", [0.01, "xavier"])
@pytest.mark.parametrize("h", [1e-4, 1e-3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[33], [20, 30]])
def test_equals_the_array_code(
    ran: list[str], hidden: list[int], activation: str, dtype: str, h: float, std: Any, dense: bool
) -> None:
    network = MultiLayerNet(50, hidden, 7, activation, std, seed=0, dtype=dtype, backend="numpy")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((12, 50)).astype(dtype) if dense else sparse(12, 50, dtype)
    for b in [key for key in network.params if key[0] == "b"]:
        network.params[b] += rng.standard_normal(network.params[b].shape).astype(dtype) / 2
    t = rng.dirichlet(np.ones(7), 12) if dense else rng.integers(0, 7, 12)
    assert_same(network, x, t, h)
    assert set(ran) == ({"line", "curve"} if len(hidden) == 2 else {"line"})


@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=4),
    n=st.integers(1, 5),
    activations=st.lists(st.sampled_from([Sigmoid, Tanh, Relu]), min_size=2, max_size=2),
    h=st.sampled_from([1e-100, 1e-4, 1e-2, 0.3]),
    zeros=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_sizes(
    sizes: list[int], n: int, activations: list[Any], h: float, zeros: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    layers: list[Any] = []
    for k in range(len(sizes) - 1):
        layers += [activations[k - 1]()] if k else []
        W = rng.uniform(-1, 1, (sizes[k], sizes[k + 1])) * 10.0 ** rng.uniform(-2, 0)
        layers.append(Affine(W, rng.uniform(-1, 1, sizes[k + 1])))
    x = rng.uniform(-1, 1, (n, sizes[0])) * (rng.random((n, sizes[0])) >= zeros)
    assert_same(Network(layers), x, rng.dirichlet(np.ones(sizes[-1]), n), h, tolerance=1e-11)


@pytest.mark.parametrize("h", [1e-4, 3e-3])
def test_units_at_kinks(ran: list[str], h: float) -> None:
    # Inputs of both layers of ReLU within h of 0, on both sides.
    rng = np.random.default_rng(0)
    network = MultiLayerNet(30, [20, 40], 5, "relu", "he", seed=0, dtype="float64", backend="numpy")
    x = sparse(6, 30)
    affine = network.layers
    b1, b2 = affine[0].b, affine[2].b
    b1 -= (x @ affine[0].W)[0] + h * rng.uniform(-1, 1, 20)
    inner = affine[1].forward(affine[0].forward(x))
    b2 -= (inner @ affine[2].W)[1] + h * rng.uniform(-0.1, 0.1, 40)
    assert_same(network, x, rng.integers(0, 5, 6), h, tolerance=1e-12)
    assert "curve" in ran


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [20.0, 90.0, 200.0, 800.0])
def test_saturated_units(activation: str, dtype: str, bias: float) -> None:
    network = MultiLayerNet(9, [6, 5], 3, activation, 0.1, seed=0, dtype=dtype, backend="numpy")
    for key in ("b1", "b2"):
        network.params[key][::3] += bias
        network.params[key][1::3] -= bias
    x, t = sparse(8, 9, dtype), np.arange(8) % 3
    # Of one sample; of several, b1 is a sum that cancels.
    assert_same(network, x[:1], t[:1])
    assert_same(network, x, t, tolerance=1e3 * float(np.finfo(dtype).eps))


def test_change_common_to_all_scores() -> None:
    network = MultiLayerNet(9, [6, 5], 3, "relu", "he", seed=0, backend="numpy")
    network.params["W3"] += 100  # the same for all classes, so it does nothing
    assert_same(network, sparse(8, 9, "float32"), np.arange(8) % 3)


def test_confident_predictions() -> None:
    # Nearly no loss, and slopes of 1e-30, to the last digit.
    network = MultiLayerNet(9, [6], 3, "tanh", 1.0, seed=0, dtype="float64", backend="numpy")
    network.params["b2"][...] = [70.0, 0, 0]
    assert_same(network, sparse(8, 9), np.zeros(8, dtype=int))


@pytest.mark.parametrize("hidden", [[6], [6, 5]])
def test_overflow_is_found_as_by_the_array_code(hidden: list[int]) -> None:
    network = MultiLayerNet(9, hidden, 3, "relu", seed=0, backend="numpy")
    network.params["W1"][...] = 3e38
    for mode in ("auto", "off"):
        with use_kernels(mode), np.errstate(all="ignore"):
            with pytest.raises(ArgumentError) as error:
                network.numerical_gradient(np.ones((2, 9), np.float32), np.array([0, 1]))
            assert error.value.argument == "network"


@pytest.mark.parametrize("name", ["b", "c", "d"])
def test_nan_and_infinity_come_through(name: str) -> None:
    arrays = {"d": np.ones((2, 3)) / 8, "b": np.ones((2, 4)) / 4, "c": np.ones((3, 2, 4))}
    g = np.zeros((2, 4))
    for value in (np.nan, np.inf):
        arrays[name][..., 0] = value
        totals = [np.zeros((3, 4)), np.zeros((3, 4))]
        arguments = (arrays["d"], loops.SIGMOID, 1.0, 3, arrays["b"], g, arrays["c"])
        host.run("line", arguments, totals[0], 3, 1)
        with np.errstate(all="ignore"):
            loops.line(*arguments, 0, 3, totals[1])
        assert not np.all(np.isfinite(totals[0]))
        np.testing.assert_array_equal(np.isfinite(totals[0]), np.isfinite(totals[1]))
        np.testing.assert_array_equal(np.isnan(totals[0]), np.isnan(totals[1]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_error_of_a_change(dtype: str) -> None:
    """σ(x + d) − σ(x − d) is right to 4 eps for any x and |d| up to 1."""
    d = np.array([[1.0, -1.0, 0.5, 1e-2, 1e-4, 1e-9]], dtype=dtype)
    x = np.linspace(-60, 60, 961).astype(np.longdouble)
    s = 1 / (1 + np.exp(-x))
    b = (s / (1 + np.exp(x))).astype(dtype)[None, :]
    g = (0.5 - s).astype(dtype)[None, :]
    c = np.zeros((3, *b.shape), dtype=dtype)
    c[0] = 1
    total = np.zeros((d.shape[1], b.shape[1]))
    host.run("line", (d, loops.SIGMOID, 1.0, 10, b, g, c), total, 2, 1)
    wide = d.astype(np.longdouble).T
    m = 4 * np.sinh(wide / 2) ** 2
    exact = 2 * np.sinh(wide) * b / (1 + b * m)
    np.testing.assert_allclose(total, exact.astype(float), rtol=4 * float(np.finfo(dtype).eps))
    # And the formula is the difference: with b and g to all digits.
    wide_b = s / (1 + np.exp(x))
    formula = 2 * np.sinh(wide) * wide_b / (1 + wide_b * m)
    difference = 1 / (1 + np.exp(-x - wide)) - 1 / (1 + np.exp(-x + wide))
    near = np.abs(x) < 10
    np.testing.assert_allclose(
        formula[:2, near].astype(float), difference[:2, near].astype(float), rtol=1e-13
    )


def test_sigmoid_series() -> None:
    x = np.linspace(-40, 40, 81).astype(np.longdouble)
    s = 1 / (1 + np.exp(-x))
    series = sigmoid_series(s / (1 + np.exp(x)), 0.5 - s, 12)
    for d in (0.5, -0.3, 1e-3):
        change = sum(a * np.longdouble(d) ** k for k, a in enumerate(series, 1))
        b = s / (1 + np.exp(x))
        exact = b * np.expm1(d) / (1 + s * np.expm1(np.longdouble(d)))
        np.testing.assert_allclose(change.astype(float), exact.astype(float), rtol=1e-9)


# The same bits


@pytest.mark.parametrize("hidden", [[70], [70, 80]])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_bits_do_not_depend_on_threads(
    monkeypatch: pytest.MonkeyPatch, hidden: list[int], activation: str
) -> None:
    network = MultiLayerNet(150, hidden, 10, activation, "xavier", seed=0, backend="numpy")
    x, t = sparse(9, 150, "float32"), np.arange(9)
    expected = network.numerical_gradient(x, t)  # little work: one thread takes all
    monkeypatch.setattr(compiled, "_LARGE_WORK", 1)
    for threads in (None, 1, 2, 5):
        grads = network.numerical_gradient(x, t, threads=threads)
        for key, grad in expected.items():
            np.testing.assert_array_equal(grads[key], grad)


# Where loops do not apply


def no_loop(network: Network, ran: list[str], loop: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((4, network.sizes[0]))
    network.numerical_gradient(x, rng.integers(0, network.sizes[-1], 4))
    assert loop not in ran


def make(activation: Any, loss: Any = None) -> Network:
    rng = np.random.default_rng(0)
    return Network(
        [Affine(rng.random((3, 4))), activation, Affine(rng.random((4, 2)))],
        loss or SoftmaxWithLoss(),
    )


def test_what_is_overridden_has_no_loop(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Sigmoid):
        def difference(self, d: Any, *saved: Any) -> Any:
            return super().difference(d, *saved)

    class Inherited(Sigmoid):
        pass

    class OwnLoss(SoftmaxWithLoss):
        def line_difference(self, s: Any, r: Any, *coefficients: Any) -> Any:
            return super().line_difference(s, r, *coefficients)

    no_loop(make(Own()), ran, "line")
    no_loop(make(Sigmoid(), OwnLoss()), ran, "line")
    own = Sigmoid()
    own.difference = lambda d, *saved: Sigmoid.difference(own, d, *saved)  # type: ignore[method-assign]
    no_loop(make(own), ran, "line")
    make(Inherited()).numerical_gradient(np.ones((4, 3)), np.array([0, 1, 0, 1]))
    assert "line" in ran
    ran.clear()
    replaced = Sigmoid.difference
    monkeypatch.setattr(Sigmoid, "difference", lambda *arguments: replaced(*arguments))
    no_loop(make(Sigmoid()), ran, "line")


def test_far_changes_take_the_array_code(ran: list[str]) -> None:
    network = MultiLayerNet(9, [6], 3, "sigmoid", 1.0, seed=0, backend="numpy")
    assert_same(network, 100 * sparse(8, 9, "float32"), np.arange(8) % 3, h=0.5)
    assert not ran
    assert not any(status.failure for status in report())


def test_off(monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    network = make(Tanh())
    with use_kernels("off"):
        no_loop(network, ran, "line")
    monkeypatch.setenv("DLFS_GPU_KERNELS", "off")
    no_loop(network, ran, "line")
    monkeypatch.setenv("DLFS_GPU_KERNELS", "on")
    with pytest.raises(ArgumentError) as error:
        network.numerical_gradient(np.ones((1, 3)), np.array([0]))
    assert error.value.argument == "DLFS_GPU_KERNELS"


# Where they cannot run


@pytest.fixture
def problem() -> tuple[Network, np.ndarray, np.ndarray, Grads]:
    network = MultiLayerNet(9, [6, 5], 3, seed=0, backend="numpy")
    x, t = sparse(8, 9, "float32"), np.arange(8) % 3
    return network, x, t, by_arrays(network, x, t)


def assert_array_code(problem: Any, match: str) -> None:
    """One warning, then none; and the array code's bits."""
    network, x, t, expected = problem
    with pytest.warns(KernelWarning, match=match) as caught:
        first = network.numerical_gradient(x, t)
    assert len(caught) == 1
    for grads in (first, network.numerical_gradient(x, t)):
        for key, grad in expected.items():
            np.testing.assert_array_equal(grads[key], grad)
    (status,) = report()
    assert status.failure


@pytest.mark.usefixtures("unproved")
def test_broken_numba(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert_array_code(problem, "numba")


@pytest.mark.usefixtures("unproved")
@pytest.mark.parametrize("loop", ["line", "curve"])
def test_loop_that_cannot_be_compiled(
    problem: Any, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    njit = numba.njit

    def unable(*functions: Any, **options: Any) -> Any:
        if functions:  # Numba's own, of modules that it imports when they are needed
            return njit(*functions, **options)

        def decorate(function: Any) -> Any:
            if function is getattr(loops, loop):
                raise numba.TypingError("unknown instruction")
            return njit(**options)(function)

        return decorate

    monkeypatch.setattr(numba, "njit", unable)
    network, x, t, expected = problem
    with pytest.warns(KernelWarning, match="unknown") as caught:
        grads = network.numerical_gradient(x, t)
    assert len(caught) == 1
    for key, grad in expected.items():
        np.testing.assert_allclose(grads[key], grad, rtol=1e-5, atol=1e-7)
    assert report()[0].failure
    network.numerical_gradient(x, t)


@pytest.mark.usefixtures("unproved")
def test_loop_that_comes_to_other_numbers(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, arguments: Any, total: np.ndarray, *others: Any) -> None:
        total += 1

    monkeypatch.setattr(host, "run", run)
    assert_array_code(problem, "differs")


@pytest.mark.usefixtures("unproved")
def test_not_installed(problem: Any, monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    monkeypatch.setattr(host, "_is_installed", lambda: False)
    network, x, t, expected = problem
    for key, grad in network.numerical_gradient(x, t).items():
        np.testing.assert_array_equal(grad, expected[key])
    assert not ran
    assert not report()


@pytest.mark.usefixtures("unproved")
def test_no_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    njit = numba.njit

    def without_cache(**options: Any) -> Any:
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available for file")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_cache)
    network = MultiLayerNet(9, [6], 3, seed=0, backend="numpy")
    assert_same(network, sparse(8, 9, "float32"), np.arange(8) % 3)
    assert "line" in ran
    assert not report()[0].failure


@pytest.mark.usefixtures("unproved")
@pytest.mark.parametrize("slow", [False, True])
def test_says_once_that_it_compiles(
    problem: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], slow: bool
) -> None:
    class Timer:
        """One whose time is over as soon as it starts, or is never over."""

        def __init__(self, seconds: float, function: Any) -> None:
            self.function = function

        def start(self) -> None:
            if slow:
                self.function()

        def cancel(self) -> None:
            pass

    monkeypatch.setattr("threading.Timer", Timer)
    host._announce.cache_clear()
    network, x, t, _ = problem
    network.numerical_gradient(x, t)  # by two loops
    assert capsys.readouterr().err.count("compiling") == slow


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_numba_is_imported_when_needed(mode: str, tmp_path: Path) -> None:
    code = """
import json, sys
import numpy as np
import dlfs_gpu
before = "numba" in sys.modules
network = dlfs_gpu.TwoLayerNet(4, 3, 2, seed=0, backend="numpy")
network.numerical_gradient(np.ones((2, 4)), np.array([0, 1]))
print(json.dumps([before, "numba" in sys.modules]))
"""
    env = os.environ | {"DLFS_GPU_KERNELS": mode}
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, env=env, cwd=tmp_path
    )
    assert json.loads(result.stdout) == [False, mode == "auto"]
