"""Network: any stack of layers, what it takes, what it refuses, and gradients three ways."""

from __future__ import annotations

import copy
import itertools
import pickle
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from libraries import Library
from threadpoolctl import threadpool_info, threadpool_limits

from dlfs_gpu._validation import ArgumentError
from dlfs_gpu.functions import sigmoid, softmax, softmax_cross_entropy
from dlfs_gpu.gradient_check import check_gradients
from dlfs_gpu.layers import Affine, Dropout, Relu, Sigmoid, Tanh
from dlfs_gpu.losses import MeanSquaredError, SigmoidWithLoss, SoftmaxWithLoss, SumSquaredError
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.protocols import Layer
from dlfs_gpu.training import Trainer

RNG = np.random.default_rng(0)
W1, B1 = RNG.standard_normal((4, 5)), RNG.standard_normal(5)
W2, B2 = RNG.standard_normal((5, 3)), RNG.standard_normal(3)
X, T = RNG.standard_normal((7, 4)), RNG.integers(0, 3, 7)


def make(lib: Library, loss: Any = None, decay: float = 0.0) -> Network:
    first = Affine(lib.asarray(W1), lib.asarray(B1))
    second = Affine(lib.asarray(W2), lib.asarray(B2))
    return Network([first, Sigmoid(), second], loss, decay)


def on_host(loss: Any = None, decay: float = 0.0) -> Network:
    """The same on NumPy in float64, with parameters of its own."""
    layers: list[Layer] = [Affine(W1.copy(), B1.copy()), Sigmoid(), Affine(W2.copy(), B2.copy())]
    return Network(layers, loss, decay)


def expected_scores(x: np.ndarray) -> np.ndarray:
    return np.asarray(sigmoid(x @ W1 + B1) @ W2 + B2)


# What it computes


def test_scores_and_predictions(lib: Library) -> None:
    network, x = make(lib), lib.asarray(X)
    tolerance: dict[str, Any] = {"rtol": 50 * lib.eps, "atol": 20 * lib.eps}
    np.testing.assert_allclose(lib.to_numpy(network.scores(x)), expected_scores(X), **tolerance)
    y = lib.to_numpy(network.predict(x))
    assert y.dtype == lib.dtype
    np.testing.assert_allclose(y, softmax(expected_scores(X)), **tolerance)
    one = network.predict(lib.asarray(X[2]))
    assert one.shape == (3,)
    np.testing.assert_allclose(lib.to_numpy(one), y[2], **tolerance)


def test_loss_of_every_kind_of_target(lib: Library) -> None:
    network, x = make(lib), lib.asarray(X)
    soft = np.random.default_rng(1).dirichlet(np.ones(3), 7)
    for t in (T, T.astype(np.uint8), np.eye(3)[T], np.eye(3, dtype=int)[T], soft):
        loss = network.loss(x, lib.asarray(t))
        assert loss.shape == ()
        expected = softmax_cross_entropy(expected_scores(X), t)
        np.testing.assert_allclose(lib.to_numpy(loss), expected, rtol=50 * lib.eps)
    for t in (T[2], np.eye(3)[T[2]]):
        loss = network.loss(lib.asarray(X[2]), lib.asarray(np.asarray(t)))
        expected = softmax_cross_entropy(expected_scores(X[2]), t)
        np.testing.assert_allclose(lib.to_numpy(loss), expected, rtol=50 * lib.eps)


def test_as_many_samples_as_classes_and_features() -> None:
    # Targets are told apart by dimensions, never by size, whatever sizes coincide.
    network = Network([Affine(W1[:3, :3].copy())])
    x, labels = X[:3, :3], np.array([2, 0, 0])
    expected = on_labels = network.gradient(x, labels)
    np.testing.assert_allclose(on_labels["W1"].sum(axis=1), 0, atol=1e-15)
    by_one_hot = network.gradient(x, np.eye(3)[labels])
    np.testing.assert_array_equal(by_one_hot["W1"], expected["W1"])
    single = network.gradient(x[:1], np.eye(3)[:1])
    np.testing.assert_array_equal(single["W1"], network.gradient(x[0], np.array(0))["W1"])


def test_accuracy(lib: Library) -> None:
    network, x = make(lib), lib.asarray(X)
    best = np.argmax(expected_scores(X), axis=1)
    t = np.where(np.arange(7) < 5, best, (best + 1) % 3)
    assert network.accuracy(x, lib.asarray(t)) == 5 / 7
    assert network.accuracy(x, lib.asarray(np.eye(3)[t])) == 5 / 7
    assert network.accuracy(lib.asarray(X[6]), lib.asarray(np.asarray(t[6]))) == 0


def test_accuracy_of_more_than_a_block_of_samples() -> None:
    network = on_host()
    x = np.random.default_rng(0).standard_normal((20_001, 4))
    t = np.argmax(expected_scores(x), axis=1)
    t[[0, 10_000, 20_000]] += 1
    assert network.accuracy(x, t % 3) == 1 - 3 / 20_001


@pytest.mark.parametrize("loss", [SigmoidWithLoss, SumSquaredError])
def test_one_output(loss: Any) -> None:
    network = Network([Affine(np.ones((1, 1)), np.zeros(1))], loss())
    x = np.array([[-1.0], [0.4], [0.6], [2.0]])
    answers = sigmoid(x) if loss is SigmoidWithLoss else x
    np.testing.assert_allclose(network.predict(x), answers)
    right = np.mean((answers >= 0.5) == 1)
    assert network.accuracy(x, np.ones((4, 1))) == right
    assert network.accuracy(x, np.zeros((4, 1))) == 1 - right


def test_dropout_is_on_for_gradients_only() -> None:
    dropout = Dropout(0.5, seed=0)
    network = Network([Affine(W1.copy(), B1.copy()), dropout, Affine(W2.copy(), B2.copy())])
    np.testing.assert_array_equal(network.scores(X), network.scores(X))
    np.testing.assert_allclose(network.scores(X), (X @ W1 + B1) @ W2 + B2)
    assert not np.array_equal(network.gradient(X, T)["W1"], network.gradient(X, T)["W1"])
    network.freeze_dropout()
    first = network.gradient(X, T)
    network.accuracy(X, T)
    np.testing.assert_array_equal(network.gradient(X, T)["W1"], first["W1"])


# Parameters


def test_params_and_sizes(lib: Library) -> None:
    network = make(lib)
    assert list(network.params) == ["W1", "b1", "W2", "b2"]
    assert network.sizes == [4, 5, 3]
    assert network.dtype == getattr(lib.xp, lib.dtype)
    assert network.backend.name == ("cupy" if lib.name == "cupy" else "numpy")


@pytest.mark.parametrize("method", ["backprop", "difference", "batched", "loop"])
def test_arrays_put_into_params_are_used(method: Any) -> None:
    def gradients(network: Network) -> dict[str, Any]:
        if method == "backprop":
            return network.gradient(X, T)
        return network.numerical_gradient(X, T, method=method)

    changed = on_host()
    gradients(changed)
    changed.params["W1"] *= 2  # in place
    changed.params["b2"] = B2 + 1  # another array
    fresh = Network([Affine(2 * W1, B1), Sigmoid(), Affine(W2, B2 + 1)])
    np.testing.assert_array_equal(changed.scores(X), fresh.scores(X))
    for key, grad in gradients(fresh).items():
        np.testing.assert_array_equal(gradients(changed)[key], grad)


@pytest.mark.parametrize("array", [np.ones(W1.shape, dtype=int), np.ones(W1.shape).tolist()])
def test_params_are_floating_point(array: Any) -> None:
    network = on_host()
    network.params["W1"] = array
    fresh = Network([Affine(np.ones(W1.shape), B1), Sigmoid(), Affine(W2, B2)])
    np.testing.assert_array_equal(network.scores(X), fresh.scores(X))


def test_params_of_another_shape() -> None:
    network = on_host()
    with pytest.raises(ArgumentError, match=r"^W2 has shape \(5, 6\); it must be \(5, 3\)"):
        network.params["W2"] = np.hstack([W2, W2])
    with pytest.raises(KeyError, match="W3"):
        network.params["W3"] = W2
    with pytest.raises(TypeError, match=r"W2 must be an array, not builtins\.str"):
        network.params["W2"] = "text"
    with pytest.raises(TypeError):
        del network.params["W2"]


def test_weight_decay(lib: Library) -> None:
    plain, decayed = make(lib), make(lib, decay=0.3)
    x, t = lib.asarray(X), lib.asarray(T)
    penalty = 0.15 * ((W1**2).sum() + (W2**2).sum())
    np.testing.assert_allclose(
        lib.to_numpy(decayed.loss(x, t)),
        float(plain.loss(x, t)) + penalty,
        rtol=50 * lib.eps,
    )
    for kind in ("gradient", "numerical_gradient"):
        before, after = getattr(plain, kind)(x, t), getattr(decayed, kind)(x, t)
        for key, W in {"W1": W1, "W2": W2, "b1": 0 * B1, "b2": 0 * B2}.items():
            change = lib.to_numpy(after[key]) - lib.to_numpy(before[key])
            np.testing.assert_allclose(change, 0.3 * W, rtol=1e-3, atol=50 * lib.eps)


# Gradients


@pytest.mark.parametrize(
    ("loss", "t"),
    [
        (SoftmaxWithLoss, T),
        (SoftmaxWithLoss, np.eye(3)[T]),
        (SigmoidWithLoss, np.eye(3)[T]),
        (SumSquaredError, np.eye(3)[T]),
        (MeanSquaredError, np.eye(3)[T]),
    ],
)
def test_gradients_agree(loss: Any, t: np.ndarray, lib: Library) -> None:
    network = make(lib, loss(), decay=0.1)
    x, t = lib.asarray(X), lib.asarray(t)
    expected = on_host(loss(), 0.1).gradient(X, lib.to_numpy(t))
    methods: dict[str, tuple[dict[str, Any], float]] = {
        "backprop": (network.gradient(x, t), 100 * lib.eps),
        "difference": (network.numerical_gradient(x, t), 1e-8 + 100 * lib.eps),
    }
    # One loss has too few digits in float32 for more.
    for method in ("batched", "loop"):
        methods[method] = (
            network.numerical_gradient(x, t, method=method),
            1e-7 if lib.dtype == "float64" else 2e-3,
        )
    for method, (grads, tolerance) in methods.items():
        assert list(grads) == list(network.params)
        for key, grad in grads.items():
            assert lib.to_numpy(grad).dtype == lib.dtype
            np.testing.assert_allclose(
                lib.to_numpy(grad), expected[key], atol=tolerance, err_msg=f"{method} {key}"
            )


def test_gradient_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    layers: list[Layer] = [
        Affine(W1, B1),
        Tanh(),
        Affine(W2, B2),
        Relu(),
        Affine(W1[:3].copy(), B1.copy()),
    ]
    t = np.array([4, 0, 1, 2, 3, 3, 1])
    leaves = [torch.tensor(a, requires_grad=True) for a in (W1, B1, W2, B2, W1[:3], B1)]
    out = torch.tanh(torch.tensor(X) @ leaves[0] + leaves[1])
    out = torch.relu(out @ leaves[2] + leaves[3]) @ leaves[4] + leaves[5]
    torch.nn.functional.cross_entropy(out, torch.tensor(t)).backward()
    grads = Network(layers).gradient(X, t)
    assert list(grads) == ["W1", "b1", "W2", "b2", "W3", "b3"]
    for grad, leaf in zip(grads.values(), leaves, strict=True):
        np.testing.assert_allclose(grad, leaf.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_batched_leaves_the_layers_as_they_were() -> None:
    network = Network([Affine(W1.copy())])
    before = network.loss(X, T)
    network.numerical_gradient(X, T, method="batched")
    assert network.layers[0].W is network.params["W1"]
    assert network.sizes == [4, 5]
    assert network.loss(X, T) == before


def test_batched_takes_a_budget() -> None:
    network = on_host()
    expected = network.numerical_gradient(X, T, method="batched")
    # The largest parameter, 20 numbers, with three times the outputs of 7 samples.
    least = (20 + 3 * 7 * 8) * 8
    small = network.numerical_gradient(X, T, method="batched", max_memory=least)
    for key, grad in expected.items():
        np.testing.assert_allclose(small[key], grad, atol=1e-10)
    message = rf"max_memory is {least - 1} bytes; one moved copy of W1 takes {least}"
    with pytest.raises(ValueError, match=message):
        network.numerical_gradient(X, T, method="batched", max_memory=least - 1)


def test_loop_reads_parameters_that_cannot_be_written() -> None:
    network = on_host()
    expected = network.numerical_gradient(X, T, method="loop")
    network.params["W1"].flags.writeable = False
    np.testing.assert_array_equal(
        network.numerical_gradient(X, T, method="loop")["W1"], expected["W1"]
    )


def test_random_dropout_is_refused_by_evaluation_only() -> None:
    network = Network([Affine(W1.copy()), Dropout(0.5, seed=0), Affine(W2.copy())])
    for method in ("batched", "loop"):
        with pytest.raises(ValueError, match=r"^network has .*freeze_dropout"):
            network.numerical_gradient(X, T, method=method)
    assert network.numerical_gradient(X, T)["W1"].shape == (4, 5)


# What it refuses


@pytest.mark.parametrize(
    ("x", "t", "error", "message"),
    [
        (X[:, :3], T, ValueError, r"x has shape \(7, 3\); it must be \(N, 4\) or \(4,\)"),
        (X[None], T, ValueError, r"x has shape \(1, 7, 4\); it must be"),
        (X[0, 0], T, ValueError, r"x has shape \(\); it must be"),
        (X[:0], T[:0], ValueError, "the batch is empty"),
        (X, T[:6], ValueError, r"t has shape \(6,\); .* must have the shape \(7,\)"),
        (X, np.eye(4)[T], ValueError, r"t has shape \(7, 4\)"),
        (X, T[:, None], ValueError, r"t has shape \(7, 1\)"),
        (X[0], T, ValueError, r"t has shape \(7,\)"),
        (X, T + 1, ValueError, "t holds the label 3; labels of 3 classes are 0 to 2"),
        (X, T - 1, ValueError, "t holds the label -1; labels of 3 classes are 0 to 2"),
        (X, T.astype(float), TypeError, "labels of the type float64; labels must be integers"),
        (X + 0j, T, TypeError, "complex128; it must hold real numbers"),
        (X * np.nan, T, ValueError, "x holds NaN or infinity in float64; every number must be"),
        (X, np.full((7, 3), np.inf), ValueError, "t holds NaN or infinity"),
        (X, np.eye(3)[T].astype(str), TypeError, "t has the type <U32; it must hold real numbers"),
        (X, np.eye(3)[T] + 0j, TypeError, "t has the type complex128; it must hold real numbers"),
        (np.ma.MaskedArray(X), T, TypeError, r"x is a masked array; fill it first: x.filled"),
        ("x", T, TypeError, "x must be an array, not builtins.str"),
        (X, "t", TypeError, "t must be an array, not builtins.str"),
    ],
)
@pytest.mark.parametrize("call", ["loss", "accuracy", "gradient", "numerical_gradient"])
def test_bad_batches(call: str, x: Any, t: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        getattr(on_host(), call)(x, t)


def test_bad_targets_of_other_losses() -> None:
    network = on_host(SumSquaredError())
    with pytest.raises(ValueError, match=r"t has shape \(7,\); it must be \(7, 3\)"):
        network.loss(X, T)

    with pytest.raises(ValueError, match="t holds NaN or infinity in float64; every number"):
        network.loss(X, np.full((7, 3), np.nan))
    network = on_host(SigmoidWithLoss())
    for value in (2.0, -0.5, np.nan):
        with pytest.raises(ArgumentError, match=r"^t holds"):
            network.loss(X, np.full((7, 3), value))


def test_numbers_too_large_for_the_network() -> None:
    network = Network([Affine(W1.astype(np.float32))])
    with (
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match="x holds NaN or infinity in float32"),
    ):
        network.predict(X * 1e300)


def test_lists_are_taken() -> None:
    network = on_host()
    assert network.loss(X.tolist(), T.tolist()) == network.loss(X, T)
    np.testing.assert_array_equal(network.predict(X[0].tolist()), network.predict(X[0]))


def test_arrays_of_another_library() -> None:
    strict = pytest.importorskip("array_api_strict")
    network = on_host()
    message = r"x is a array_api_strict array.*backend 'numpy': pass network.backend.asarray\(x\)"
    with pytest.raises(TypeError, match=message):
        network.predict(strict.asarray(X))
    with pytest.raises(TypeError, match=r"is a numpy.ndarray and t is a array_api_strict"):
        network.loss(X, strict.asarray(T))


@pytest.mark.parametrize("h", [0, -1e-4, np.inf, np.nan])
@pytest.mark.parametrize("method", ["difference", "batched", "loop"])
def test_bad_step(h: float, method: Any) -> None:
    with pytest.raises(ValueError, match=f"h is {h}"):
        on_host().numerical_gradient(X, T, h, method)


def test_step_lost_in_rounding() -> None:
    for method in ("batched", "loop"):
        with pytest.raises(ValueError, match=r"h is 1e-30, so small that W1\[0, 0\] \+ h == W1"):
            on_host().numerical_gradient(X, T, 1e-30, method)
    # Differences lose nothing to 1e-30, but underflow would make zeros of 1e-200.
    on_host().numerical_gradient(X, T, 1e-30)
    with pytest.raises(ValueError, match=r"h is 1e-200; below 1.5e-154 changes are lost to under"):
        on_host().numerical_gradient(X, T, 1e-200)


def test_bad_method() -> None:
    with pytest.raises(ValueError, match="method is 'magic'"):
        on_host().numerical_gradient(X, T, method="magic")  # type: ignore[arg-type]


def test_answers_that_are_no_numbers_are_not_right() -> None:
    network = on_host()
    network.params["b2"] = np.full_like(network.params["b2"], np.nan)
    assert network.accuracy(X, np.zeros(7, int)) == 0
    one = Network([Affine(np.full((4, 1), np.nan))], SigmoidWithLoss())
    assert one.accuracy(X, np.zeros((7, 1))) == 0


def test_differences_that_overflow_are_no_answer() -> None:
    network = Network(
        [Affine(np.full((4, 3), 1e300)), Relu(), Affine(np.eye(3))], SumSquaredError()
    )
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match=r"^network overflows"),
    ):
        network.numerical_gradient(np.abs(X), np.zeros((7, 3)))


@pytest.mark.parametrize("method", ["batched", "loop"])
def test_errors_name_what_the_user_knows(method: Any) -> None:
    network = on_host()
    network.params["W1"][1, 1] = np.nan
    with pytest.raises(ArgumentError, match="W1 holds NaN") as error:
        network.numerical_gradient(X, T, method=method)
    assert error.value.argument == "W1"
    network = Network([Affine(np.ones((4, 3)))], SumSquaredError())
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ArgumentError, match=r"when W1\[0, 0\] was moved") as error,
    ):
        network.numerical_gradient(1e200 * X, np.zeros((7, 3)), method=method)
    assert error.value.argument == "network"


def test_huge_inputs_have_differences() -> None:
    # By how much e^d overflows must not matter.
    x, t = np.array([[1e6, 1.0], [2e6, 0.0], [-1e3, 1.0]]), np.array([0, 1, 1])
    for activation, h in itertools.product((Sigmoid, Tanh, Relu), (1e-4, 0.5)):
        last = Affine(W1[:3, :2].copy())
        layers: list[Any] = [Affine(W1[:2], B1), activation(), Affine(W2, B2), activation(), last]
        network = Network(layers)
        expected = network.numerical_gradient(x, t, h, "loop")
        for key, grad in network.numerical_gradient(x, t, h).items():
            np.testing.assert_allclose(grad, expected[key], rtol=1e-6, atol=1e-9)


def test_bad_networks() -> None:
    shared: Any = Sigmoid()
    with pytest.raises(ArgumentError, match=r"^layers holds the layer 3 twice"):
        Network([Affine(W1), shared, Affine(W2), shared])
    square = np.eye(4)
    for other in (square, square.T, square[::-1]):
        with pytest.raises(ArgumentError, match=r"^W2 shares memory with W1"):
            Network([Affine(square), Sigmoid(), Affine(other)])
    network = Network([Affine(square), Sigmoid(), Affine(square.copy())])
    with pytest.raises(ArgumentError, match=r"^W1 shares memory with W2"):
        network.params["W1"] = network.params["W2"].T
    with pytest.raises(TypeError, match="W1 has the type float32 and b1 float64; all must"):
        Network([Affine(W1.astype(np.float32), B1)])
    with pytest.raises(ValueError, match=r"^layers holds no layer with parameters"):
        Network([Sigmoid()])
    for decay in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"weight_decay_lambda is {decay}"):
            Network([Affine(W1)], weight_decay_lambda=decay)


# Layers of one's own


class Scale:
    """y = gamma·x + beta, one of each for every feature."""

    def __init__(self, features: int) -> None:
        rng = np.random.default_rng(5)
        self.params: dict[str, Any] = {
            "gamma": rng.standard_normal(features),
            "beta": rng.standard_normal(features),
        }
        self.grads: dict[str, Any] = {}

    def forward(self, x: Any) -> Any:
        self.x = x
        gamma, beta = self.params["gamma"], self.params["beta"]
        # K copies of a parameter belong to K batches.
        gamma, beta = (a if a.ndim == 1 else a[:, None, :] for a in (gamma, beta))
        return gamma * x + beta

    def backward(self, dout: Any) -> Any:
        self.grads = {"gamma": (dout * self.x).sum(axis=0), "beta": dout.sum(axis=0)}
        return dout * self.params["gamma"]


def with_scales() -> Network:
    layers: list[Layer] = [
        Affine(W1.copy(), B1.copy()),
        Scale(5),
        Sigmoid(),
        Affine(W2.copy(), B2.copy()),
    ]
    return Network([*layers, Scale(3)], weight_decay_lambda=0.1)


def test_any_layer_may_have_parameters() -> None:
    network = with_scales()
    names = ["W1", "b1", "gamma1", "beta1", "W2", "b2", "gamma2", "beta2"]
    assert list(network.params) == names
    assert network.params["gamma2"] is network.layers[4].params["gamma"]
    report = check_gradients(network, X, T, method="batched")
    assert list(report.checks) == names
    assert report.ok, str(report)
    before = float(network.loss(X, T))
    trainer = Trainer(network, X, T, mini_batch_size=7, iterations=50, verbose=False, seed=0)
    assert trainer.train().stopped == "finished"
    assert network.loss(X, T) < 0.8 * before


def test_a_backward_that_forgets_a_gradient() -> None:
    class Forgetful(Scale):
        def backward(self, dout: Any) -> Any:
            super().backward(dout)
            del self.grads["beta"]
            return dout

    network = Network([Affine(W1.copy()), Forgetful(5)])
    with pytest.raises(TypeError, match=r"Forgetful.backward has set no grads\['beta'\]"):
        network.gradient(X, T)


def test_a_difference_that_belongs_to_another_forward() -> None:
    class LeakyRelu(Relu):
        def forward(self, x: Any) -> Any:
            self.x = x
            return np.where(x > 0, x, 0.1 * x)

    class HalfLoss(SoftmaxWithLoss):
        def forward(self, x: Any, t: Any) -> Any:
            return super().forward(x, t) / 2

    patched = Relu()
    patched.forward = lambda x: 2 * x  # type: ignore[method-assign]
    cases: list[tuple[list[Layer], Any]] = [
        ([Affine(W1.copy()), LeakyRelu()], None),
        ([Affine(W1.copy())], HalfLoss()),
        ([Affine(W1.copy()), patched], None),
    ]
    for layers, loss in cases:
        network = Network(layers, loss)
        expected = network.numerical_gradient(X, T, 1e-4, "loop")["W1"]
        result = network.numerical_gradient(X, T, 1e-4)["W1"]
        np.testing.assert_allclose(result, expected, rtol=1e-8, atol=1e-10)


# Copies, threads, memory


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_copies(copied: Any) -> None:
    network = on_host()
    other = copied(network)
    np.testing.assert_array_equal(other.scores(X), network.scores(X))
    other.params["W1"][...] = 0
    assert (network.params["W1"] == W1).all()
    assert copied(network.backend) == network.backend
    trainers = [Trainer(on_host(), X, T, mini_batch_size=2, iterations=9, seed=1, verbose=False)]
    trainers.append(copied(trainers[0]))
    histories = [trainer.train() for trainer in trainers]
    np.testing.assert_array_equal(histories[0].losses, histories[1].losses)
    np.testing.assert_array_equal(copied(histories[0]).losses, histories[0].losses)


def test_threads_take_turns() -> None:
    network = on_host()
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((n, 4)), rng.integers(0, 3, n)) for n in range(1, 9)]
    calls = [network.gradient, network.numerical_gradient]
    expected = [call(*batch)["W1"] for batch in batches for call in calls]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            found = pool.map(
                lambda job: job[1](*job[0])["W1"], [(b, call) for b in batches for call in calls]
            )
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_no_call_sees_the_parameters_of_another_at_work() -> None:
    """Differences put others in float64 in their place for a while."""
    network = MultiLayerNet(4, [5], 3, "sigmoid", seed=0, backend="numpy")
    x = X.astype(np.float32)
    calls: list[Callable[[], Any]] = [lambda: network.scores(x), lambda: network.predict(x)]
    calls += [lambda: network.loss(x, T), lambda: network.accuracy(x, T)]
    expected = [call() for call in calls]
    entered = threading.Event()

    def differ() -> None:
        wrong = {key: np.zeros(param.shape) for key, param in network.params.items()}
        with network._lock, network.params.replaced(wrong):
            entered.set()
            time.sleep(0.2)

    with ThreadPoolExecutor(5) as pool:
        at_work = pool.submit(differ)
        assert entered.wait(10)
        for found, right in zip(pool.map(lambda call: call(), calls), expected, strict=True):
            np.testing.assert_array_equal(found, right, strict=True)
        at_work.result()


def test_blas_has_its_threads_back_after_overlapping_differences() -> None:
    network = MultiLayerNet(20, [30, 30], 3, seed=0, backend="numpy")
    x, t = np.ones((5, 20)), np.zeros(5, int)
    networks = [copy.deepcopy(network) for _ in range(6)]
    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(6) as pool:
        before = [library["num_threads"] for library in threadpool_info()]
        assert 2 in before
        for _ in range(5):
            list(pool.map(lambda net: net.numerical_gradient(x, t), networks))
        assert [library["num_threads"] for library in threadpool_info()] == before


@pytest.mark.parametrize("sizes", [(4, 6000), (10, 20, 1500)])
def test_many_classes_within_the_budget(sizes: tuple[int, ...]) -> None:
    network = MultiLayerNet(sizes[0], sizes[1:-1], sizes[-1], "tanh", seed=0, backend="numpy")
    rng = np.random.default_rng(0)
    x, t = rng.random((20, sizes[0])), rng.integers(0, sizes[-1], 20)
    budget = 2**25
    tracemalloc.start()
    try:
        network.numerical_gradient(x, t, max_memory=budget)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Beside the changes there are the scores of the batch, some ten times.
    assert peak < budget + 12 * 8 * 20 * sizes[-1]
