"""Divided differences: the chapter's central differences, but exact at any h and in any type."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import Library

from dlfs_gpu.data import load_mnist
from dlfs_gpu.layers import Affine, Dropout, Identity, Relu, Sigmoid, Tanh
from dlfs_gpu.losses import MeanSquaredError, SigmoidWithLoss, SoftmaxWithLoss, SumSquaredError
from dlfs_gpu.models import MultiLayerNet, SimpleNet, TwoLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.protocols import Layer

pytestmark = pytest.mark.usefixtures("kernels")

LOSSES: list[Any] = [
    (SoftmaxWithLoss, "labels"),
    (SoftmaxWithLoss, "one-hot"),
    (SoftmaxWithLoss, "soft"),
    (SigmoidWithLoss, "unit"),
    (SumSquaredError, "unit"),
    (MeanSquaredError, "unit"),
]
ACTIVATIONS: list[Any] = [Sigmoid, Tanh, Relu, Identity, Dropout]
PRECISE = np.longdouble


def as_type(layers: list[Any], dtype: Any) -> list[Any]:
    """The same layers with parameters of another type; the others are shared, masks included."""
    return [
        Affine(layer.W.astype(dtype), None if layer.b is None else layer.b.astype(dtype))
        if isinstance(layer, Affine)
        else layer
        for layer in layers
    ]


def loop(network: Network, x: np.ndarray, t: np.ndarray, h: float) -> dict[str, np.ndarray]:
    """The chapter's loop, as plain as it can be, in the widest type there is."""
    precise = Network(
        as_type(network.layers, PRECISE), network.loss_layer, network.weight_decay_lambda
    )
    x = x.astype(PRECISE)
    t = t if t.ndim == 1 else t.astype(PRECISE)
    grads = {}
    for key, param in precise.params.items():
        grads[key] = np.empty_like(param)
        for index in np.ndindex(param.shape):
            value = param[index]
            param[index] = value + PRECISE(h)
            upper = precise._loss(x, t, training=True)
            param[index] = value - PRECISE(h)
            lower = precise._loss(x, t, training=True)
            param[index] = value
            grads[key][index] = (upper - lower) / (2 * PRECISE(h))
    return grads


def assert_same(network: Network, x: np.ndarray, t: np.ndarray, h: float) -> None:
    """``"difference"`` equals the loop to 1e-9, and to the rounding of the loop and of kinks."""
    ours = network.numerical_gradient(x, t, h)
    theirs = loop(network, x, t, h)
    # Inputs of Relu of some 30 are rounded, and with them how far off the kink is.
    steepest = 1 + max(float(np.linalg.norm(g)) for g in network.gradient(x, t).values())
    kinks = 100 * float(np.finfo(np.float64).eps) / h * steepest
    size = float(network._loss(*network._check(x, t), training=True)) + 60
    for key, expected in theirs.items():
        rounding = 4 * float(np.finfo(PRECISE).eps) * size / h * math.sqrt(expected.size)
        error = np.linalg.norm((ours[key] - expected).astype(np.float64))
        norm = np.linalg.norm(expected.astype(np.float64))
        assert error <= 1e-9 * norm + rounding + kinks, (key, error, norm, rounding, kinks)


def make_targets(name: str, n: int, c: int, rng: np.random.Generator) -> np.ndarray:
    labels = rng.integers(0, c, n)
    if name == "labels":
        return labels
    if name == "one-hot":
        return np.eye(c)[labels]
    return rng.dirichlet(np.ones(c), n) if name == "soft" else rng.random((n, c))


def make_network(
    sizes: list[int], kinds: list[Any], loss: Any, x: np.ndarray, reach: float, h: float, seed: int
) -> Network:
    """A network whose layers' outputs are up to `reach`, and some within h of 0."""
    rng = np.random.default_rng(seed)
    layers: list[Any] = []
    out = x
    for n, m in itertools.pairwise(sizes):
        if layers:
            kind = kinds[rng.integers(len(kinds))]
            layers.append(kind(0.4, seed=seed) if kind is Dropout else kind())
            if kind is Dropout:
                layers[-1].frozen = True
            out = layers[-1].forward(out)
        W = rng.uniform(-1, 1, (n, m))
        W *= min(8.0, reach / max(np.abs(out @ W).max(), 1e-3))
        b = rng.uniform(-1, 1, m)
        b[0] = rng.uniform(-h, h) - out[0] @ W[:, 0]
        layers.append(Affine(W, b))
        out = layers[-1].forward(out)
    return Network(layers, loss(), weight_decay_lambda=float(rng.choice([0.0, 0.1])))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("loss", "targets"), LOSSES)
@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=3, max_size=4),
    n=st.integers(1, 3),
    h=st.sampled_from([1e-4, 0.1, 0.5]),
    reach=st.sampled_from([1.0, 5.0, 30.0]),
    zeros=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_loop(
    activation: Any,
    loss: Any,
    targets: str,
    sizes: list[int],
    n: int,
    h: float,
    reach: float,
    zeros: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, sizes[0])) * (rng.random((n, sizes[0])) >= zeros)
    kinds = [activation, *ACTIVATIONS] if len(sizes) > 3 else [activation]
    network = make_network(sizes, kinds, loss, x, reach, h, seed)
    assert_same(network, x, make_targets(targets, n, sizes[-1], rng), h)


@pytest.mark.parametrize("h", [1e-4, 0.1, 0.5])
@pytest.mark.parametrize(("loss", "targets"), LOSSES)
def test_one_layer_without_bias(loss: Any, targets: str, h: float) -> None:
    rng = np.random.default_rng(0)
    network = Network([Affine(rng.standard_normal((3, 4)))], loss())
    x = rng.standard_normal((5, 3))
    assert_same(network, x, make_targets(targets, 5, 4, rng), h)


def test_repeated_inputs_and_dead_units() -> None:
    # Equal inputs are moved once; a unit that is off for all samples moves nothing.
    rng = np.random.default_rng(0)
    network = MultiLayerNet(40, [6, 5], 3, seed=0, dtype="float64", backend="numpy")
    x = rng.integers(0, 3, (7, 40)) / 4.0
    for dead in (slice(0, 2), slice(None)):
        network.params["b1"][dead] = -50.0
        assert_same(network, x, rng.integers(0, 3, 7), 0.1)


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh"])
def test_truncation_error_is_the_loops(activation: str) -> None:
    rng = np.random.default_rng(0)
    network = MultiLayerNet(5, [6], 4, activation, seed=0, dtype="float64", backend="numpy")
    x, t = rng.standard_normal((9, 5)), rng.integers(0, 4, 9)
    backprop = network.gradient(x, t)
    ours, theirs = network.numerical_gradient(x, t, 0.5), loop(network, x, t, 0.5)
    small = network.numerical_gradient(x, t, 1e-4)
    for key, exact in backprop.items():
        truncation = (theirs[key] - exact).astype(np.float64)
        norm = float(np.linalg.norm(exact))
        assert np.linalg.norm(truncation) > 1e-3 * norm
        np.testing.assert_allclose(ours[key] - exact, truncation, atol=1e-9 * norm)
        np.testing.assert_allclose(small[key], exact, atol=1e-3 * norm)


def test_truncation_falls_with_the_square_of_h() -> None:
    rng = np.random.default_rng(0)
    network = TwoLayerNet(5, 6, 4, 1.0, seed=0, dtype="float64", backend="numpy")
    x, t = rng.standard_normal((9, 5)), rng.integers(0, 4, 9)
    exact = network.gradient(x, t)
    errors = [
        np.linalg.norm(network.numerical_gradient(x, t, h)["W1"] - exact["W1"])
        for h in (1e-1, 1e-2, 1e-3)
    ]
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 100, rtol=0.05)
    # And, unlike for the loop, no step is too small.
    tiny = network.numerical_gradient(x, t, 1e-100)
    for key, gradient in exact.items():
        np.testing.assert_allclose(tiny[key], gradient, rtol=1e-12, atol=1e-15)


# float32, and MNIST


@pytest.fixture(scope="module")
def images(mnist_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first 2,000 images of MNIST, and their labels."""
    (x, t), _ = load_mnist(data_dir=mnist_dir, backend="numpy")
    return x[:2000], t[:2000]


def train(network: Network, x: np.ndarray, t: np.ndarray, lr: float) -> None:
    """Update with each minibatch of 50 once."""
    for rows in np.split(np.random.default_rng(0).permutation(len(x)), len(x) // 50):
        for key, grad in network.gradient(x[rows], t[rows]).items():
            network.params[key] -= lr * grad


def in_float64(network: Network, x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
    return Network(as_type(network.layers, np.float64)).numerical_gradient(x, t)


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def error_of_the_loop(
    network: Network, x: np.ndarray, t: np.ndarray, exact: dict[str, np.ndarray]
) -> float:
    """Relative error of the chapter's loop in float32 over a sample of elements, the largest."""
    rng = np.random.default_rng(0)
    h = 1e-4
    errors = []
    for key, param in network.params.items():
        picked = rng.choice(param.size, min(param.size, 10), replace=False)
        where = [tuple(map(int, np.unravel_index(flat, param.shape))) for flat in picked]
        values = []
        for index in where:
            before = param[index]
            param[index] = before + np.float32(h)
            upper = network.loss(x, t)
            param[index] = before - np.float32(h)
            values.append((upper - network.loss(x, t)) / (2 * h))
            param[index] = before
        errors.append(relative_error(np.array(values), np.array([exact[key][i] for i in where])))
    return max(errors)


@pytest.mark.parametrize(
    ("hidden", "activation", "std", "samples", "lr"),
    [([50], "sigmoid", 0.01, 100, 1.0), ([512, 512], "relu", "relu", 10, 0.1)],
)
def test_exact_in_float32(
    images: tuple[np.ndarray, np.ndarray],
    hidden: list[int],
    activation: str,
    std: Any,
    samples: int,
    lr: float,
) -> None:
    x, t = images
    network = MultiLayerNet(784, hidden, 10, activation, std, seed=0, backend="numpy")
    batch = x[:samples], t[:samples]
    for state in ("new", "trained"):
        if state == "trained":
            start = float(network.loss(x, t))
            train(network, x, t, lr)
            assert network.loss(x, t) < 0.8 * start
        exact = in_float64(network, *batch)
        grads = network.numerical_gradient(*batch)
        for key, grad in grads.items():
            assert grad.dtype == np.float32
            assert relative_error(grad, exact[key]) <= 1e-6
        assert error_of_the_loop(network, *batch, exact) > 0.05


@pytest.mark.parametrize("hidden", [[20], [20, 20]])
def test_changes_and_divisor_are_of_the_same_step(hidden: list[int]) -> None:
    """Of that in float32, from which this h is half a unit away: so would slopes be."""
    h = 2.0**-13 * (1 + 0.49 * 2.0**-23)
    rng = np.random.default_rng(0)
    x, t = rng.random((50, 30)), rng.integers(0, 5, 50)
    network = MultiLayerNet(30, hidden, 5, "tanh", "xavier", seed=0, backend="numpy")
    rounded = network.numerical_gradient(x, t, float(np.float32(h)))
    for key, gradient in network.numerical_gradient(x, t, h).items():
        np.testing.assert_array_equal(gradient, rounded[key])


# Threads and memory


def smallest_budget(network: Network, x: Any, t: Any) -> int:
    with pytest.raises(ValueError, match="max_memory is 1 bytes") as error:
        network.numerical_gradient(x, t, max_memory=1)
    needed = re.search(r"takes (\d+)", str(error.value))
    assert needed
    return int(needed[1])


@pytest.mark.parametrize(
    ("sizes", "sparse"), [((30, 70, 4), True), ((30, 70, 4), False), ((20, 70, 80, 3), True)]
)
def test_bits_do_not_depend_on_threads_or_memory(sizes: tuple[int, ...], sparse: bool) -> None:
    rng = np.random.default_rng(0)
    network = MultiLayerNet(
        sizes[0], list(sizes[1:-1]), sizes[-1], "tanh", "xavier", seed=0, backend="numpy"
    )
    x = rng.integers(0, 4, (25, sizes[0])) / 3 if sparse else rng.random((25, sizes[0]))
    t = rng.integers(0, sizes[-1], 25)
    least = smallest_budget(network, x, t)
    expected = network.numerical_gradient(x, t, threads=1)
    for threads in (None, 1, 2, 3):
        for max_memory in (None, least, least + 1000, 5 * least):
            grads = network.numerical_gradient(x, t, threads=threads, max_memory=max_memory)
            for key, grad in expected.items():
                np.testing.assert_array_equal(grads[key], grad)


def test_on_a_device(lib: Library) -> None:
    rng = np.random.default_rng(0)
    host = MultiLayerNet(5, [7, 6], 3, "sigmoid", 1.0, seed=0, dtype="float64", backend="numpy")
    layers: list[Layer] = [
        Affine(lib.asarray(layer.W), lib.asarray(layer.b)) if isinstance(layer, Affine) else layer
        for layer in host.layers
    ]
    network = Network(layers, weight_decay_lambda=0.1)
    reference = Network(host.layers, weight_decay_lambda=0.1)
    x, t = rng.standard_normal((8, 5)), rng.integers(0, 3, 8)
    expected = reference.numerical_gradient(x, t, 0.1)
    x_lib, t_lib = lib.asarray(x), lib.asarray(t)
    least = smallest_budget(network, x_lib, t_lib)
    for max_memory in (None, least, 3 * least, 50 * least):
        grads = network.numerical_gradient(x_lib, t_lib, 0.1, max_memory=max_memory)
        for key, grad in expected.items():
            host_grad = lib.to_numpy(grads[key])
            assert host_grad.dtype == lib.dtype
            np.testing.assert_allclose(host_grad, grad, rtol=200 * lib.eps, atol=50 * lib.eps)


def test_memory_error_is_mended_on_a_device(lib: Library) -> None:
    if lib.name == "numpy":
        pytest.skip("the CPU takes steps of a fixed size")

    class Cramped(Sigmoid):
        """Has room for few changes at once."""

        largest = 0

        def difference(self, d: Any, *base: Any) -> Any:
            if math.prod(d.shape) > 60:
                raise MemoryError
            self.largest = max(self.largest, math.prod(d.shape))
            return super().difference(d, *base)

    rng = np.random.default_rng(0)
    W1, W2 = rng.standard_normal((4, 6)), rng.standard_normal((6, 3))
    x, t = lib.asarray(rng.standard_normal((8, 4))), lib.asarray(rng.integers(0, 3, 8))
    cramped = Cramped()
    results = [
        Network([Affine(lib.asarray(W1)), activation, Affine(lib.asarray(W2))]).numerical_gradient(
            x, t
        )
        for activation in (cramped, Sigmoid())
    ]
    assert 0 < cramped.largest <= 60
    for key in results[0]:
        ours, theirs = (lib.to_numpy(grads[key]) for grads in results)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=lib.eps)


def test_memory_error_that_cannot_be_mended(lib: Library) -> None:
    class Full(Sigmoid):
        def difference(self, d: Any, *base: Any) -> Any:
            raise MemoryError("full")

    x, t = lib.asarray(np.ones((2, 3))), lib.asarray(np.array([0, 1]))
    network = Network([Affine(x.T), Full(), Affine(lib.asarray(np.ones((2, 2))))])
    with pytest.raises(MemoryError, match="full"):
        network.numerical_gradient(x, t)


def test_layer_without_difference() -> None:
    class Shift:
        def forward(self, x: Any) -> Any:
            return x + 1

        def backward(self, dout: Any) -> Any:
            return dout

    network = Network([Affine(np.eye(3)), Shift()])
    x, t = np.ones((2, 3)), np.array([0, 1])
    for method in ("difference", "batched"):
        gradient = network.numerical_gradient(x, t, method=method)["W1"]
        np.testing.assert_allclose(gradient, x.T @ (1 / 3 - np.eye(3)[t]) / 2, atol=1e-8)


@pytest.mark.parametrize("threads", [0, -1])
def test_bad_threads(threads: int) -> None:
    network = SimpleNet(np.ones((2, 3)), backend="numpy")
    with pytest.raises(ValueError, match=f"threads is {threads}"):
        network.numerical_gradient(np.ones(2), np.array(1), threads=threads)


@pytest.mark.parametrize("method", ["difference", "batched"])
@pytest.mark.parametrize("max_memory", [0, -1, 2.5])
def test_bad_budget(max_memory: Any, method: Any) -> None:
    network = SimpleNet(np.ones((2, 3)), backend="numpy")
    with pytest.raises(ValueError, match=rf"max_memory is {max_memory}"):
        network.numerical_gradient(np.ones(2), np.array(1), method=method, max_memory=max_memory)
