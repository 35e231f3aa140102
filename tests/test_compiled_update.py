"""What compiled loops do of updates: the array code's numbers, and what they must not hide."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")

from dlfs_gpu.gradient_check import check_gradients
from dlfs_gpu.kernels import KernelWarning, host, proof, report, training_loops, use_kernels
from dlfs_gpu.layers import Dropout
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import OPTIMIZERS, SGD, make_optimizer
from dlfs_gpu.training import Trainer, compiled
from dlfs_gpu.training.fused import DenseRows, FusedGradient
from dlfs_gpu.training.update import Update

ACTIVATIONS = ["sigmoid", "tanh", "relu"]
SAMPLES, FEATURES, HIDDEN, CLASSES, BATCH = 60, 300, 45, 7, 40


def eps(dtype: str) -> float:
    return float(np.finfo(dtype).eps)


def make(
    activation: str = "sigmoid", hidden: list[int] | None = None, dtype: str = "float64"
) -> MultiLayerNet:
    hidden = [HIDDEN] if hidden is None else hidden
    return MultiLayerNet(
        FEATURES, hidden, CLASSES, activation, 0.3, seed=0, dtype=dtype, backend="numpy"
    )


def data(dtype: str = "float64", share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Samples most of whose numbers are 0, the last feature's all, and labels."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((SAMPLES, FEATURES)) * (rng.random((SAMPLES, FEATURES)) < share)
    x[:, -1] = 0
    return x.astype(dtype), rng.integers(CLASSES, size=SAMPLES)


def minibatches(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(SAMPLES, size=(count, BATCH))


def train(network: Network, indices: np.ndarray, optimizer: Any = None, **options: Any) -> Any:
    """Return the losses of updates, and how they were done."""
    x, t = data(network.dtype.name, **options)
    update = Update(network, optimizer or SGD(0.3), x, t, BATCH)
    return np.concatenate(list(update.run(indices))), update


def by_arrays(network: Network, indices: np.ndarray, optimizer: Any = None) -> np.ndarray:
    with use_kernels("off"):
        losses: np.ndarray = train(network, indices, optimizer)[0]
    return losses


def assert_close(actual: Network, desired: Network, rtol: float) -> None:
    for key, param in desired.params.items():
        atol = rtol * float(np.abs(param).max())
        np.testing.assert_allclose(actual.params[key], param, rtol, atol, err_msg=key, strict=True)


def assert_same(actual: Network, desired: Network) -> None:
    for key, param in desired.params.items():
        np.testing.assert_array_equal(actual.params[key], param, err_msg=key, strict=True)


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no loop had been compiled or proved in this process, but for finding Numba."""
    assert host._is_installed()
    monkeypatch.setattr(host, "_ready", {})
    monkeypatch.setattr(proof, "_statuses", {})
    monkeypatch.setattr(proof, "_passed", set())


# The same numbers


@pytest.mark.parametrize("hidden", [[HIDDEN], [HIDDEN, 6], [12], []], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_the_array_code(activation: str, dtype: str, hidden: list[int]) -> None:
    network, expected = make(activation, hidden, dtype), make(activation, hidden, dtype)
    indices = minibatches(40)
    losses, update = train(network, indices)
    assert (update._compiled.rows is not None) == (hidden[:1] == [HIDDEN])
    assert update._compiled.softmax is not None
    np.testing.assert_allclose(losses, by_arrays(expected, indices), 1000 * eps(dtype))
    assert_close(network, expected, 1000 * eps(dtype))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_every_optimizer(name: str, decay: float) -> None:
    network, expected = make(), make()
    network.weight_decay_lambda = expected.weight_decay_lambda = decay
    losses, _ = train(network, minibatches(20), make_optimizer(name))
    desired = by_arrays(expected, minibatches(20), make_optimizer(name))
    np.testing.assert_allclose(losses, desired, 1e-10)
    assert_close(network, expected, 1e-9)


@pytest.mark.parametrize("factor", [1.0, 40.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_against_numerical_gradients(activation: str, factor: float) -> None:
    network = make(activation)
    for key in ("W1", "W2"):
        network.params[key] *= factor
    x, t = data()
    report = check_gradients(network, x[:BATCH], t[:BATCH], fused=True)
    assert report.ok, str(report)


@given(
    dtype=st.sampled_from(["float32", "float64"]),
    samples=st.integers(1, 9),
    features=st.integers(1, 70),
    outputs=st.integers(1, 300),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    fortran=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_products_of_any_shape(
    dtype: str,
    samples: int,
    features: int,
    outputs: int,
    share: float,
    fortran: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    shape = samples, features
    x = (rng.standard_normal(shape) * (rng.random(shape) < share)).astype(dtype)
    indices = rng.integers(-samples, samples, size=rng.integers(1, 20))
    W = rng.standard_normal((features, outputs)).astype(dtype)
    delta = rng.standard_normal((len(indices), outputs)).astype(dtype)
    out, grad = np.empty_like(delta), np.empty_like(W)
    if fortran:
        W, grad = np.asfortranarray(W), np.asfortranarray(grad)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_LOOPS", "_WIDE_LOOPS", "_OUTPUT", "_CALLS"):
            patch.setattr(compiled, name, 0)
        rows = compiled.SparseRows(x, len(indices), outputs)
    rows.gather(indices)
    rows.times(W, out)
    rows.transposed_times(delta, grad)
    batch = x[indices].astype(np.float64)
    for actual, left, right in ((out, batch, W), (grad, batch.T, delta)):
        bound = np.abs(left) @ np.abs(right)
        assert np.all(np.abs(actual - left @ right) <= 20 * eps(dtype) * bound)


@given(
    dtype=st.sampled_from(["float32", "float64"]),
    n=st.integers(1, 6),
    classes=st.integers(1, 12),
    size=st.sampled_from([1e-6, 1.0, 30.0, 60.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_softmax_of_any_scores(dtype: str, n: int, classes: int, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = (size * rng.standard_normal((n, classes))).astype(dtype)
    labels = rng.integers(classes, size=n)
    grad = scores.copy()
    loss = compiled._softmax(grad, labels, -0.5)
    assert loss.shape == ()

    exact = scores.astype(np.longdouble)
    exact -= exact[range(n), labels][:, None]
    powers = np.exp(exact)
    powers[range(n), labels] = 0
    others = powers.sum(axis=1)
    slope = -0.5 / n * powers / (1 + others)[:, None]
    slope[range(n), labels] = 0.5 / n * others / (1 + others)
    # A difference d of two scores is rounded, and with it exp(d), by d as many parts as itself.
    rtol = (8 + 4 * size) * eps(dtype)
    np.testing.assert_allclose(loss, np.log1p(others).mean(), rtol)
    np.testing.assert_allclose(grad, slope, rtol, float(np.finfo(dtype).tiny))


# The same bits


def test_blocks_and_resuming_make_no_difference() -> None:
    indices = minibatches(30)
    whole, parted = make(), make()
    losses, _ = train(whole, indices)
    parts = [train(parted, part)[0] for part in (indices[:1], indices[1:12], indices[12:])]
    np.testing.assert_array_equal(np.concatenate(parts), losses)
    assert_same(parted, whole)


# Nothing hidden, nothing ignored


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_softmax_hides_nothing(value: float) -> None:
    for place in range(3):
        scores = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
        scores[0, place] = value
        grad, expected = scores.copy(), scores.copy()
        labels = np.array([0, 0])
        network = MultiLayerNet(1, [], 3, dtype="float64", backend="numpy")
        arrays = FusedGradient(network, np.zeros((2, 1)), labels, 2)
        with np.errstate(all="ignore"):
            losses = (
                compiled._softmax(grad, labels, 1.0),
                arrays._softmax(expected, labels, 1.0),
            )
        np.testing.assert_allclose(*losses, 1e-14)
        np.testing.assert_allclose(grad, expected, 1e-14)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("feature", [0, FEATURES - 1], ids=["seen", "of zeros alone"])
def test_divergence_is_noticed(value: float, feature: int) -> None:
    network = make("relu")
    network.params["W1"][feature, 3] = value
    x, t = data()
    trainer = Trainer(network, x, t, mini_batch_size=BATCH, iterations=3, verbose=False)
    assert trainer.train().stopped == "diverged"
    assert trainer._updates.update._compiled.rows is not None


def test_indices_out_of_range() -> None:
    network, (x, t) = make(), data()
    update = Update(network, SGD(0.3), x, t, BATCH)
    before = {key: param.copy() for key, param in network.params.items()}
    for index in (SAMPLES, -SAMPLES - 1):
        with pytest.raises(IndexError):
            update(np.full(BATCH, index))
    for key, param in network.params.items():
        np.testing.assert_array_equal(param, before[key])
    assert update(np.arange(-BATCH, 0)) == Update(make(), SGD(0.3), x, t, BATCH)(
        np.arange(SAMPLES - BATCH, SAMPLES)
    )


def test_kernels_can_be_turned_off_between_updates() -> None:
    network, expected = make(), make()
    update = train(network, minibatches(1))[1]
    for key, param in network.params.items():
        expected.params[key][...] = param
    with use_kernels("off"):
        list(update.run(minibatches(3)))
    by_arrays(expected, minibatches(3))
    assert_same(network, expected)


def test_layers_that_are_changed_after_a_while() -> None:
    network, (x, t) = make(), data()
    update = Update(network, SGD(0.3), x, t, BATCH)
    rows = minibatches(1)[0]
    update(rows)
    network.layers[1].backward = lambda dout: 0 * dout
    before = network.params["W1"].copy()
    update(rows)
    np.testing.assert_array_equal(network.params["W1"], before)
    del network.layers[1].backward
    dropout = Dropout(0.5, seed=0)
    network.layers.insert(2, dropout)
    update(rows)
    assert dropout.mask is not None


def test_data_are_not_changed() -> None:
    x, t = data()
    x.flags.writeable = False
    before = x.copy()
    update = Update(make(), SGD(0.3), x, t, BATCH)
    update(minibatches(1)[0])
    assert update._compiled.rows is not None
    np.testing.assert_array_equal(x, before)


# Where there is nothing to gain


def test_what_goes_by_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(x: np.ndarray, batch: int, outputs: int = HIDDEN) -> str:
        with pytest.raises(proof.UnfitError) as caught:
            compiled.SparseRows(x, batch, outputs)
        return str(caught.value)

    x = data()[0]
    assert "too many numbers" in reason(data(share=0.5)[0], BATCH)
    assert "too many numbers" in reason(x, 1)
    assert "several threads" in reason(x, 2**24 // x.shape[1])
    assert "16 bits" in reason(np.zeros((2, 2**16)), 1, 1)
    monkeypatch.setattr(compiled, "_LARGEST_COPY", 100)
    assert "memory" in reason(x, BATCH)
    assert compiled.compiled_parts(x, 1000, [FEATURES, 3, 10]).softmax is None


# Broken loops


def assert_arrays_instead(match: str) -> None:
    """Training by loops warns once, and comes to what it comes to without them."""
    network, expected = make(), make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            train(network, minibatches(2))
    (warning,) = caught
    assert issubclass(warning.category, KernelWarning)
    assert match in str(warning.message)
    for _ in range(2):
        by_arrays(expected, minibatches(2))
    assert_same(network, expected)
    (status,) = report()
    assert (status.kind, status.device) == ("training", "cpu")
    assert status.failure is not None


@pytest.mark.parametrize("name", ["combine", "by_columns", "softmax"])
def test_wrong_loops(name: str, unproved: None, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = getattr(training_loops, name)

    def wrong(*arguments: Any) -> None:
        loop(*arguments)
        arguments[-1][...] *= 1.001

    monkeypatch.setattr(training_loops, name, wrong)
    monkeypatch.setattr(compiled, "_NARROWEST", 2**20)  # whose loop cannot do without Numba
    monkeypatch.setattr(host, "_compile", lambda function, arguments: function)
    assert_arrays_instead("differs from the array code's")


def test_wrong_sums_in_registers(unproved: None, monkeypatch: pytest.MonkeyPatch) -> None:
    find = host.loop

    def wrong(function: Any, arguments: Any) -> Any:
        def call(*arguments: Any) -> None:
            find(function, arguments)(*arguments)
            arguments[-1][..., -1] *= 1.001

        return call if function.__name__ == "combine_narrow" else find(function, arguments)

    monkeypatch.setattr(host, "loop", wrong)
    assert_arrays_instead("differs from the array code's")


def test_loops_that_cannot_be_compiled(unproved: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(function: Any, arguments: Any) -> Any:
        raise OSError("no compiler")

    monkeypatch.setattr(host, "_compile", fail)
    assert_arrays_instead("OSError: no compiler")


def test_numba_that_cannot_be_imported(unproved: None, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.import_module

    def broken(name: str, *rest: Any) -> Any:
        if name == "numba":
            raise ImportError("numba is broken")
        return find(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    assert_arrays_instead("ImportError: numba is broken")


def test_dense_rows_wrap_indices_round() -> None:
    x = data()[0]
    rows = DenseRows(x, 2)
    rows.gather(np.array([-1, 0]))
    np.testing.assert_array_equal(rows.batch, x[[-1, 0]])
