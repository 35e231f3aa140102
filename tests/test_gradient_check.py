"""Right networks pass; planted faults are found, and found where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from libraries import Library

from dlfs_gpu._validation import ArgumentError, namespace_of
from dlfs_gpu.functions import sigmoid
from dlfs_gpu.gradient_check import check_gradient, check_gradients
from dlfs_gpu.layers import Affine, Dropout, Identity, Relu, Sigmoid, Tanh
from dlfs_gpu.losses import MeanSquaredError, SigmoidWithLoss, SoftmaxWithLoss, SumSquaredError
from dlfs_gpu.models import MultiLayerNet, TwoLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.protocols import Layer

pytestmark = pytest.mark.usefixtures("kernels")

ACTIVATIONS = [Sigmoid, Relu, Tanh, Identity]
DTYPES = ["float32", "float64"]
SIZES = (6, 5, 3)
N = 8


def make(
    *,
    first: type[Affine] = Affine,
    activation: Any = Sigmoid,
    loss: Any = None,
    dtype: str = "float64",
    decay: float = 0.0,
    network: type[Network] = Network,
) -> Network:
    """A network 6-5-3 whose first layer and activation may be faulty."""
    rng = np.random.default_rng(0)
    inputs, hidden, outputs = SIZES
    W1, b1 = rng.standard_normal((inputs, hidden)), rng.standard_normal(hidden)
    W2, b2 = rng.standard_normal((hidden, outputs)), rng.standard_normal(outputs)
    layers: list[Layer] = [
        first(W1.astype(dtype), b1.astype(dtype)),
        activation(),
        Affine(W2.astype(dtype), b2.astype(dtype)),
    ]
    return network(layers, loss, decay)


def batch(targets: str = "labels") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((N, SIZES[0]))
    t = {
        "labels": rng.integers(0, SIZES[-1], N),
        "one-hot": np.eye(SIZES[-1])[rng.integers(0, SIZES[-1], N)],
        "soft": rng.dirichlet(np.ones(SIZES[-1]), N),
        "unit": rng.random((N, SIZES[-1])),
    }
    return x, t[targets]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (SoftmaxWithLoss, "labels"),
        (SoftmaxWithLoss, "one-hot"),
        (SoftmaxWithLoss, "soft"),
        (SigmoidWithLoss, "unit"),
        (SumSquaredError, "unit"),
        (MeanSquaredError, "unit"),
    ],
)
def test_right_networks_pass(activation: Any, loss: Any, targets: str, dtype: str) -> None:
    network = make(activation=activation, loss=loss(), dtype=dtype, decay=0.1)
    report = check_gradients(network, *batch(targets))
    assert report.ok, str(report)
    assert list(report.checks) == ["W1", "b1", "W2", "b2"]
    assert report.checks["W1"].shape == (6, 5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["loop", "batched"])
def test_right_networks_pass_by_evaluation(method: Any, dtype: str) -> None:
    report = check_gradients(make(dtype=dtype, decay=0.1), *batch(), method=method)
    assert report.ok, str(report)
    assert (report.method, report.h) == (method, 1e-5)


def test_any_library(lib: Library) -> None:
    host = make()
    layers = [Affine(lib.asarray(layer.W), lib.asarray(layer.b)) for layer in host.layers[::2]]
    x, t = map(lib.asarray, batch("one-hot"))
    for method in ("difference", "batched"):
        report = check_gradients(Network([layers[0], Relu(), layers[1]]), x, t, method=method)
        assert report.ok, str(report)
    layers[0].backward = lambda dout: None  # type: ignore[method-assign]
    layers[0].dW, layers[0].db = layers[0].W * 0, layers[0].b
    report = check_gradients(Network([layers[0], Relu(), layers[1]]), x, t)
    assert [check.ok for check in report.checks.values()] == [False, False, True, True]


def test_one_sample_and_deep_network() -> None:
    x, t = batch("soft")
    network = MultiLayerNet(6, [7, 5], 3, weight_decay_lambda=0.01, seed=0, backend="numpy")
    report = check_gradients(network, x[0], t[0])
    assert report.ok, str(report)


def test_frozen_dropout_passes() -> None:
    network = MultiLayerNet(6, [20], 3, dropout_ratio=0.5, seed=0, backend="numpy")
    with pytest.raises(ValueError, match=r"^network has .*freeze_dropout"):
        check_gradients(network, *batch())
    network.freeze_dropout()
    for method in ("difference", "batched"):
        report = check_gradients(network, *batch(), method=method)
        assert report.ok, str(report)
    dropout = network.layers[2]
    assert isinstance(dropout, Dropout)
    # Half the units were dropped: the check was of a network with dropout on.
    assert 0 < np.count_nonzero(dropout.mask) < dropout.mask.size


def test_network_is_left_as_it_was() -> None:
    network = MultiLayerNet(6, [4], 3, seed=0, backend="numpy")
    before = {key: (param, param.copy()) for key, param in network.params.items()}
    for method in ("difference", "batched", "loop"):
        report = check_gradients(network, np.zeros((2, 6)), np.array([0, 1]), method=method)
        assert report.kinks
        for key, (param, values) in before.items():
            assert network.params[key] is param
            np.testing.assert_array_equal(param, values)
        assert network.layers[0].W is network.params["W1"]
        assert network.layers[0].b is network.params["b1"]


# Faults


class Negated(Affine):
    def backward(self, dout: Any) -> Any:
        dx = super().backward(dout)
        self.dW = -self.dW
        return dx


class Scaled(Affine):
    factor = 1.01

    def backward(self, dout: Any) -> Any:
        dx = super().backward(dout)
        self.dW = self.dW * self.factor
        return dx


class Doubled(Scaled):
    factor = 2


class WithoutBias(Affine):
    def backward(self, dout: Any) -> Any:
        dx = super().backward(dout)
        self.db = np.zeros_like(self.db)
        return dx


class OneWrong(Affine):
    index = (4, 2)
    value: float | None = None

    def backward(self, dout: Any) -> Any:
        dx = super().backward(dout)
        wrong = 1.01 * self.dW[self.index] if self.value is None else self.value
        self.dW[self.index] = wrong
        return dx


class OneNan(OneWrong):
    value = np.nan


class OneInfinite(OneWrong):
    value = -np.inf


@pytest.mark.parametrize("method", ["difference", "batched"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("fault", "where"),
    [(Negated, "W1"), (Scaled, "W1"), (Doubled, "W1"), (WithoutBias, "b1"), (OneWrong, "W1")],
)
def test_fault_in_one_parameter(fault: Any, where: str, dtype: str, method: Any) -> None:
    report = check_gradients(make(first=fault, dtype=dtype), *batch(), method=method)
    assert not report.ok
    assert [key for key, check in report.checks.items() if not check.ok] == [where]
    check = report.checks[where]
    right = make(dtype=dtype).gradient(*batch())[where]
    np.testing.assert_allclose(check.numerical, right[check.index], rtol=1e-4)
    np.testing.assert_allclose(check.max_absolute_error, abs(check.backprop - check.numerical))
    share = {Negated: 1, Scaled: 0.01 / 1.01, Doubled: 1 / 2, WithoutBias: 1}
    if fault in share:
        # These are wrong everywhere, so most wrong at the largest element of some row.
        row = right[check.index[0]] if right.ndim > 1 else right
        assert check.index[-1] == np.argmax(np.abs(row))
        slack = 2 if fault is Negated else 1
        assert 0.1 * share[fault] < check.max_relative_error < slack * 1.01 * share[fault]
    else:
        assert check.index == OneWrong.index


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", [OneNan, OneInfinite])
def test_gradient_that_is_not_finite(fault: Any, dtype: str) -> None:
    report = check_gradients(make(first=fault, dtype=dtype), *batch())
    check = report.checks["W1"]
    assert [key for key, check in report.checks.items() if not check.ok] == ["W1"]
    assert check.index == OneWrong.index
    np.testing.assert_equal(check.backprop, fault.value)
    assert np.isfinite(check.numerical)
    assert check.max_absolute_error == check.max_relative_error == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_wrong_element_among_39200(dtype: str) -> None:
    rng = np.random.default_rng(0)
    network = TwoLayerNet(784, 50, 10, seed=0, dtype=dtype, backend="numpy")
    layer = OneWrong(network.params["W1"], network.params["b1"])
    layer.index = (611, 23)
    faulty = Network([layer, *network.layers[1:]])
    x = rng.random((20, 784)) * (rng.random((20, 784)) < 0.2)
    x[:, 611] = rng.random(20)
    report = check_gradients(faulty, x, rng.integers(0, 10, 20))
    assert [key for key, check in report.checks.items() if not check.ok] == ["W1"]
    check = report.checks["W1"]
    assert check.index == (611, 23)
    np.testing.assert_allclose(check.backprop, 1.01 * check.numerical, rtol=1e-4)


def test_fault_behind_reaches_what_lies_before() -> None:
    class WrongSlope(Sigmoid):
        def backward(self, dout: Any) -> Any:
            return dout * sigmoid(self.x)

    class WrongLoss(SoftmaxWithLoss):
        def backward(self, dout: Any = 1) -> Any:
            return super().backward(dout) * self.t.shape[0]

    report = check_gradients(make(activation=WrongSlope), *batch())
    assert [key for key, check in report.checks.items() if not check.ok] == ["W1", "b1"]
    report = check_gradients(make(loss=WrongLoss()), *batch())
    assert not any(check.ok for check in report.checks.values())


def test_forgotten_weight_decay() -> None:
    class Forgetful(Network):
        def _backward(self, dout: Any) -> Any:
            decay, self.weight_decay_lambda = self.weight_decay_lambda, 0.0
            grads = super()._backward(dout)
            self.weight_decay_lambda = decay
            return grads

    report = check_gradients(make(decay=0.1, network=Forgetful), *batch())
    assert [key for key, check in report.checks.items() if not check.ok] == ["W1", "W2"]


def test_gradient_of_another_shape() -> None:
    class Row(Affine):
        def backward(self, dout: Any) -> Any:
            dx = super().backward(dout)
            self.db = self.db[None]
            return dx

    with pytest.raises(ValueError, match=r"b1 a gradient of shape \(1, 5\).*, \(5,\)"):
        check_gradients(make(first=Row), *batch())


# Where right code looks wrong


@pytest.mark.parametrize("method", ["difference", "batched"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_that_are_zero_pass(dtype: str, method: Any) -> None:
    x, t = batch()
    # No input: the gradient of W1 is 0 in both.
    report = check_gradients(make(dtype=dtype), x * 0, t, method=method)
    assert report.ok, str(report)
    assert report.checks["W1"].max_relative_error == 0
    # Equal weights: the slopes of the scores, whose sum is 0, cancel in what reaches W1.
    network = make(dtype=dtype)
    for param in network.params.values():
        param[...] = 0.1
    report = check_gradients(network, x, t, method=method)
    assert report.ok, str(report)
    assert abs(report.checks["W1"].numerical) < 1e-7
    # Equal probabilities and as many samples of every class: no gradient for b2.
    network.params["W2"][...] = 0
    report = check_gradients(network, x[:6], np.arange(6) % 3, method=method)
    assert report.ok, str(report)
    assert abs(report.checks["b2"].numerical) < 1e-7


@pytest.mark.parametrize("dtype", DTYPES)
def test_minimum_passes(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = np.hstack([255 * rng.random((50, 3)), np.ones((50, 1))]).astype(dtype)
    t = rng.standard_normal((50, 2)).astype(dtype)
    W = np.linalg.lstsq(x, t)[0]
    network = Network([Affine(W.astype(dtype))], SumSquaredError())
    report = check_gradients(network, x, t)
    assert report.ok, str(report)
    # Nothing but rounding is left of the gradient.
    assert abs(report.checks["W1"].numerical) < 1e4 * np.finfo(dtype).eps


@pytest.mark.parametrize("method", ["difference", "batched"])
def test_small_gradients_pass(method: Any) -> None:
    # Evaluated, the loss has hardly a digit to tell such changes by.
    x, t = batch()
    report = check_gradients(make(), 1e-9 * x, t, method=method)
    assert report.ok, str(report)
    assert 0 < abs(report.checks["W1"].backprop) < 1e-9


@pytest.mark.parametrize("method", ["difference", "batched"])
def test_relu_at_its_kink(method: Any) -> None:
    x = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    network = MultiLayerNet(2, [8], 2, seed=0, dtype="float64", backend="numpy")
    report = check_gradients(network, x, np.array([0, 1, 1, 0]), method=method)
    assert report.ok, str(report)
    assert report.kinks == 8
    assert "8 inputs were at a kink" in str(report)


def test_relu_near_its_kink() -> None:
    x, t = batch()
    network = make(activation=Relu)
    network.params["b1"][...] = 1e-6 - x[0] @ network.params["W1"]
    report = check_gradients(network, x, t)
    assert report.ok, str(report)
    assert report.kinks == 0
    assert "kink" not in str(report)
    # A larger step crosses it.
    report = check_gradients(network, x, t, h=1e-4)
    assert report.ok, str(report)
    assert report.kinks >= 5


@pytest.mark.parametrize("seed", range(5))
def test_deep_networks_of_tiny_weights(seed: int) -> None:
    # Whatever comes out of eight layers like these is below any step, and below rounding.
    network = MultiLayerNet(64, [100] * 8, 10, "relu", 0.01, seed=seed, backend="numpy")
    rng = np.random.default_rng(seed)
    report = check_gradients(network, rng.random((3, 64)), rng.integers(0, 10, 3))
    assert report.ok, str(report)


def test_zeros_that_rounding_hides() -> None:
    W = np.ones((3, 2))
    network = Network([Affine(W, np.zeros(2)), Relu(), Affine(np.eye(2), np.zeros(2))])
    report = check_gradients(network, np.array([[0.1, 0.2, -0.3]]), np.array([0]))
    assert report.kinks == 2
    assert report.ok, str(report)


@pytest.mark.parametrize("seed", range(20))
def test_units_that_cancel(seed: int) -> None:
    # Two units are the same, and the next layer takes one from the other.
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((5, 4)), rng.standard_normal((8, 3))
    second[4:] = -second[:4]
    layers: list[Layer] = [
        Affine(np.hstack([first, first]), np.full(8, 0.5)),
        Relu(),
        Affine(second, np.zeros(3)),
        Relu(),
        Affine(rng.standard_normal((3, 3)), np.zeros(3)),
    ]
    report = check_gradients(Network(layers), rng.standard_normal((6, 5)), np.arange(6) % 3)
    assert report.ok, str(report)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_large_inputs(activation: Any) -> None:
    x, t = batch()
    network = make(activation=activation)
    network.params["W1"][...] /= 1e8
    report = check_gradients(network, 1e8 * x, t)
    assert report.ok, str(report)


def test_a_small_feature_beside_a_large_one() -> None:
    class Flipped(Affine):
        def backward(self, dout: Any) -> Any:
            dx = super().backward(dout)
            self.dW[1] *= -1
            return dx

    x, t = batch()
    scale = np.array([1e6, 0.01, 1, 1, 1, 1])
    for first in (Affine, Flipped):
        network = make(first=first)
        network.params["W1"][...] /= scale[:, None]
        report = check_gradients(network, x * scale, t)
        assert report.ok == (first is Affine), str(report)
    assert report.checks["W1"].index[0] == 1


@pytest.mark.parametrize("activation", [Sigmoid, Relu, Tanh])
def test_the_gradient_that_trainer_computes_in_buffers(activation: Any) -> None:
    network, (x, t) = make(activation=activation), batch()
    # Into saturation, where slopes taken from outputs alone are 0.
    for factor in (1, 40):
        network.params["W1"][...] *= factor
        network.params["W2"][...] *= factor
        for decay in (0.0, 0.1):
            network.weight_decay_lambda = decay
            report = check_gradients(network, x, t, fused=True)
            assert report.ok, str(report)
    with pytest.raises(ArgumentError, match=r"^fused is True"):
        check_gradients(make(activation=Identity), x, t, fused=True)


def test_truncation_error_of_a_large_step() -> None:
    network, (x, t) = make(), batch()
    assert not check_gradients(network, x, t, h=0.5).ok
    assert check_gradients(network, x, t, h=0.5, tolerance=0.5).ok


# Use


def test_layer_without_difference() -> None:
    class Square:
        def forward(self, x: Any) -> Any:
            self.x = x
            return x * x

        def backward(self, dout: Any) -> Any:
            return 2 * self.x * dout

    network = make(activation=Square)
    for method in ("difference", "batched"):
        report = check_gradients(network, *batch(), method=method)
        assert report.ok, str(report)


def test_report_reads_as_a_table() -> None:
    lines = str(check_gradients(make(first=OneWrong), *batch())).splitlines()
    assert lines[0].split() == ["shape", "max", "error", "relative", "at", "backprop", "numerical"]
    assert lines[1].startswith("W1  6 × 5")
    assert "[4, 2]" in lines[1]
    assert lines[1].endswith("FAULT")
    assert [line.split()[-1] for line in lines[2:5]] == ["ok"] * 3
    assert lines[5] == "gradients differ in W1 (method 'difference', h = 3.7e-11, tolerance 1e-07)"
    text = str(check_gradients(make(), *batch(), method="batched"))
    assert text.endswith("gradients agree (method 'batched', h = 1e-05, tolerance 0.0001)")


@pytest.mark.parametrize("tolerance", [0, -1, np.nan, np.inf])
def test_bad_tolerance(tolerance: float) -> None:
    with pytest.raises(ValueError, match=f"tolerance is {tolerance}"):
        check_gradients(make(), *batch(), tolerance=tolerance)


def test_names_of_methods_in_upper_case() -> None:
    loud: Any = "Difference"
    report = check_gradients(make(), *batch(), method=loud)
    assert (report.method, report.tolerance) == ("difference", 1e-7)
    loud = "LOOP"
    x = np.array([1.0, 2.0])
    assert check_gradient(lambda x: np.sum(x**3), lambda x: 3 * x**2, x, method=loud).h == 1e-5


def test_bad_method_and_step() -> None:
    with pytest.raises(ValueError, match="method is 'magic'; it must be one of"):
        check_gradients(make(), *batch(), method="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="h is -1"):
        check_gradients(make(), *batch(), h=-1)


@pytest.mark.parametrize("loss", [MeanSquaredError, SumSquaredError])
@pytest.mark.parametrize("seed", range(3))
def test_a_regression_that_fits_exactly(loss: Any, seed: int) -> None:
    network, (x, _) = make(loss=loss()), batch()
    assert check_gradients(network, x, network.predict(x)).ok


def test_confident_answers() -> None:
    # Of y − t no digit is left here.
    for size in (9.0, 16.0, 40.0):
        network = Network([Affine(size * np.eye(3), np.zeros(3))])
        assert check_gradients(network, np.eye(3), np.array([0, 1, 2])).ok, size


def test_saturated_units() -> None:
    rng = np.random.default_rng(0)
    for activation in (Sigmoid, Tanh):
        layers = [Affine(20 * rng.standard_normal((4, 5))), activation(), Affine(np.eye(5, 3))]
        report = check_gradients(Network(layers), rng.standard_normal((6, 4)), np.arange(6) % 3)
        assert report.ok, report


@pytest.mark.parametrize("method", ["loop", "batched"])
@pytest.mark.parametrize("h", [1e-12, 1e-15])
def test_steps_that_leave_only_rounding(method: Any, h: float) -> None:
    with pytest.raises(ValueError, match=f"h is {h}: rounding of the loss alone .* must be larger"):
        check_gradients(make(), *batch(), method=method, h=h)


def test_kinks_that_no_bias_can_move() -> None:
    W = np.array([[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]])
    network = Network([Affine(W), Relu(), Affine(np.ones((2, 3)))])
    report = check_gradients(network, np.array([[0.0, 1.0, 0.0]]), np.array([0]))
    assert "gradients may differ there, as no layer has a bias that could be moved" in str(report)


def rosenbrock(x: Any) -> Any:
    return ((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2).sum()


def rosenbrock_gradient(x: Any) -> Any:
    result = np.zeros_like(x)
    curve = x[1:] - x[:-1] ** 2
    result[:-1] += 2 * (x[:-1] - 1) - 400 * x[:-1] * curve
    result[1:] += 200 * curve
    return result


class TestFunctionsOfOnesOwn:
    X = np.array([1.2, -0.7, 0.3, 2.0])

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("method", [None, "difference", "loop"])
    def test_right_and_wrong(self, method: Any, dtype: Any) -> None:
        x = self.X.astype(dtype)
        report = check_gradient(rosenbrock, rosenbrock_gradient, x, method=method)
        assert report.ok
        assert report.method == (method or "difference")
        assert list(report.checks) == ["x"]
        wrong = rosenbrock_gradient(x)
        wrong[2] *= 1.1
        report = check_gradient(rosenbrock, wrong, x, method=method)
        assert not report.ok
        assert report.checks["x"].index == (2,)
        assert "gradients differ in x" in str(report)

    def test_differences_see_faults_that_evaluation_cannot(self) -> None:
        """One in the seventh digit."""
        wrong = rosenbrock_gradient(self.X) * (1 + 1e-6)
        assert check_gradient(rosenbrock, wrong, self.X, method="loop").ok
        assert not check_gradient(rosenbrock, wrong, self.X).ok

    def test_by_evaluation_where_there_is_no_rule(self) -> None:
        def determinant(x: Any) -> Any:
            return np.linalg.det(x)

        A = np.array([[2.0, 1.0], [0.5, 3.0]])
        report = check_gradient(determinant, lambda A: np.linalg.det(A) * np.linalg.inv(A).T, A)
        assert report.ok
        assert report.method == "loop"
        with pytest.raises(TypeError, match="det"):
            check_gradient(determinant, A, A, method="difference")

    def test_a_closure_as_in_the_book(self) -> None:
        W = np.array([1.0, 2.0])
        report = check_gradient(lambda _: (W**2).sum(), lambda W: 2 * W, W)
        assert report.ok
        assert report.method == "loop"
        np.testing.assert_array_equal(W, [1, 2])

    def test_any_library(self, lib: Library) -> None:
        x = lib.asarray([0.5, -1.5])

        def f(x: Any) -> Any:
            return namespace_of(x).sum(namespace_of(x).tanh(x))

        report = check_gradient(f, lambda x: 1 - namespace_of(x).tanh(x) ** 2, x)
        assert report.ok
        assert report.method == "difference"

    def test_minimum(self) -> None:
        """Where all is 0 but for rounding."""
        rng = np.random.default_rng(0)
        A, x = rng.normal(size=(20, 5)), rng.normal(size=5)
        b = A @ x
        methods: list[Any] = [None, "loop"]
        for method in methods:
            assert check_gradient(
                lambda x: ((A @ x - b) ** 2).sum(), lambda x: 2 * (A @ x - b) @ A, x, method=method
            ).ok

    def test_a_function_that_is_not_a_number(self) -> None:
        with (
            np.errstate(invalid="ignore"),
            pytest.raises(ArgumentError, match="NaN or infinity") as error,
        ):
            check_gradient(lambda x: np.nan * x.sum(), np.ones(4), self.X)
        assert error.value.argument == "f"

    def test_types_that_have_no_step(self) -> None:
        x = np.array([1.0, 2.0], np.float16)
        with pytest.raises(TypeError, match="float16"):
            check_gradient(lambda x: np.sum(x**2), 2 * x, x)

    def test_functions_that_are_none(self) -> None:
        rng = np.random.default_rng(0)
        cases: list[tuple[Any, Any, str]] = [
            (lambda x: (x * rng.random(4)).sum(), np.ones(4), "f"),
            (lambda x: x, np.ones(4), "f"),
            (np.sum, np.ones(3), "gradient"),
            (np.sum, lambda x: x.sum(), "gradient"),
        ]
        for f, gradient, argument in cases:
            with pytest.raises(ArgumentError) as error:
                check_gradient(f, gradient, self.X)
            assert error.value.argument == argument
        with pytest.raises(TypeError):
            check_gradient(lambda x: "text", np.ones(4), self.X)
        with pytest.raises(TypeError):
            check_gradient(np.sum, "text", self.X)
        for options in ({"h": 0}, {"tolerance": -1}, {"method": "batched"}):
            with pytest.raises(ArgumentError) as error:
                check_gradient(np.sum, np.ones(4), self.X, **options)
            assert error.value.argument == next(iter(options))
