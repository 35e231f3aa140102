"""Every name that a reader of the book expects, called as the book calls it."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from errors import refused

import dlfs_gpu
from dlfs_gpu.layers import SoftmaxWithLoss

# The book's argument names, in its order; what the project adds comes after, by keyword only
# but for TwoLayerNet's and MultiLayerNet's further defaults.
SIGNATURES = {
    "identity_function": "x",
    "step_function": "x",
    "sigmoid": "x",
    "sigmoid_grad": "x",
    "relu": "x",
    "relu_grad": "x",
    "softmax": "x",
    "sum_squared_error": "y t",
    "mean_squared_error": "y t",
    "cross_entropy_error": "y t",
    "softmax_loss": "X t",
    "numerical_diff": "f x",
    "numerical_gradient": "f x",
    "gradient_descent": "f init_x lr=0.01 step_num=100",
    "function_1": "x",
    "function_2": "x",
    "tangent_line": "f x",
    "Affine": "W b",
    "Sigmoid": "",
    "Relu": "",
    "Dropout": "dropout_ratio=0.5",
    "SoftmaxWithLoss": "",
    "SGD": "lr=0.1",
    "Momentum": "lr=0.01 momentum=0.9",
    "Nesterov": "lr=0.01 momentum=0.9",
    "AdaGrad": "lr=0.01",
    "RMSprop": "lr=0.01 decay_rate=0.99",
    "Adam": "lr=0.001 beta1=0.9 beta2=0.999",
    "TwoLayerNet": "input_size hidden_size output_size weight_init_std=0.01",
    "MultiLayerNet": "input_size hidden_size_list output_size activation='relu' "
    "weight_init_std='relu' weight_decay_lambda=0",
    "Trainer": "network x_train t_train x_test t_test epochs=20 mini_batch_size=100 "
    "optimizer='SGD' optimizer_param",
    "load_mnist": "normalize=True flatten=True one_hot_label=False",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_come_in_the_books_order(name: str) -> None:
    parameters = list(inspect.signature(getattr(dlfs_gpu, name)).parameters.values())
    for parameter, expected in zip(parameters, SIGNATURES[name].split(), strict=False):
        argument, _, default = expected.partition("=")
        assert parameter.name == argument
        if default:
            assert str(parameter.default) in (default, default.strip("'"), f"{default}.0")
    assert len(parameters) >= len(SIGNATURES[name].split())


def test_the_books_name_of_simple_net() -> None:
    assert dlfs_gpu.simpleNet is dlfs_gpu.SimpleNet


def test_the_chapters_network_is_trained_as_the_chapter_trains_it() -> None:
    (x_train, t_train), (x_test, t_test) = dlfs_gpu.load_digits(one_hot_label=True, backend="numpy")
    network = dlfs_gpu.TwoLayerNet(
        input_size=64, hidden_size=50, output_size=10, seed=0, backend="numpy"
    )
    rng = np.random.default_rng(0)
    for _ in range(2000):
        mask = rng.choice(x_train.shape[0], 100)
        grad = network.gradient(x_train[mask], t_train[mask])
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= 0.1 * grad[key]
    assert float(network.loss(x_train, t_train)) < 0.5
    assert network.accuracy(x_test, t_test) > 0.85


def test_simple_net_as_the_chapter_differentiates_it() -> None:
    network = dlfs_gpu.SimpleNet(seed=0, backend="numpy")
    x, t = np.array([0.6, 0.9]), np.array([0, 0, 1])
    assert network.predict(x).shape == (3,)
    dW = dlfs_gpu.numerical_gradient(lambda W: network.loss(x, t), network.W)
    exact = np.outer(x, dlfs_gpu.softmax(network.predict(x)) - t)
    np.testing.assert_allclose(dW, exact, atol=1e-8)


def test_layers_as_the_book_chains_them() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((5, 4)), np.eye(3)[[0, 1, 2, 0, 1]]
    layers: list[Any] = [
        dlfs_gpu.Affine(rng.standard_normal((4, 6)), np.zeros(6)),
        dlfs_gpu.Relu(),
        dlfs_gpu.Affine(rng.standard_normal((6, 3)), np.zeros(3)),
    ]
    last = SoftmaxWithLoss()
    out = x
    for layer in layers:
        out = layer.forward(out)
    loss = last.forward(out, t)
    assert loss == pytest.approx(float(dlfs_gpu.softmax_cross_entropy(out, t)))
    dout = last.backward(1)
    for layer in reversed(layers):
        dout = layer.backward(dout)
    assert dout.shape == x.shape
    assert layers[0].dW.shape == (4, 6)
    assert layers[0].db.shape == (6,)


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"])
def test_optimizers_go_downhill_in_place(name: str) -> None:
    optimizer = getattr(dlfs_gpu, name)(lr=0.05)
    x = np.array([-7.0, 2.0])
    params = {"x": x}
    for _ in range(20):
        optimizer.update(params, {"x": np.array([x[0] / 10, 2 * x[1]])})
    assert params["x"] is x
    assert x[0] ** 2 / 20 + x[1] ** 2 < 7.0**2 / 20 + 2.0**2


def test_optimizers_as_the_book_compares_them() -> None:
    params = {"x": -7.0, "y": 2.0}
    optimizer = dlfs_gpu.AdaGrad(lr=1.5)
    for _ in range(30):
        optimizer.update(params, {"x": params["x"] / 10.0, "y": 2.0 * params["y"]})
    assert params["x"] ** 2 / 20 + params["y"] ** 2 < 0.1


def test_faults_of_the_book_are_not_repeated() -> None:
    gradient = dlfs_gpu.numerical_gradient(dlfs_gpu.function_2, np.array([3, 4]))
    np.testing.assert_allclose(gradient, [6, 8], rtol=1e-9)

    y = np.full((3, 3), 1 / 3)
    soft = np.full((3, 3), 1 / 3)
    assert dlfs_gpu.cross_entropy_error(y, soft) == pytest.approx(np.log(3), rel=1e-6)
    with refused("t"):
        dlfs_gpu.cross_entropy_error(y, np.array([[0], [1], [2]]))

    network = dlfs_gpu.TwoLayerNet(4, 5, 3, seed=0, dtype="float64", backend="numpy")
    x, labels = np.random.default_rng(0).random((3, 4)), np.array([2, 0, 1])
    for key, grad in network.gradient(x, np.eye(3)[labels]).items():
        np.testing.assert_array_equal(network.gradient(x, labels)[key], grad)

    before = np.array([[-1.0, 2.0]])
    dlfs_gpu.Relu().forward(before)
    dout = np.array([[5.0, 5.0]])
    relu = dlfs_gpu.Relu()
    relu.forward(before)
    relu.backward(dout)
    np.testing.assert_array_equal(before, [[-1.0, 2.0]])
    np.testing.assert_array_equal(dout, [[5.0, 5.0]])

    last = dlfs_gpu.SoftmaxWithLoss()
    last.forward(np.array([[1.0, 2.0]]), np.array([0]))
    np.testing.assert_allclose(last.backward(3), 3 * last.backward(1))


def test_what_users_call_of_a_network() -> None:
    methods = "scores predict loss accuracy gradient loss_and_gradient numerical_gradient"
    known = {*methods.split(), "freeze_dropout", "params", "sizes", "dtype"}
    assert {name for name in dir(dlfs_gpu.Network) if not name.startswith("_")} == known


X, T = np.ones((4, 3)), np.array([0, 1, 0, 1])
NET = dlfs_gpu.TwoLayerNet(3, 2, 2, seed=0, dtype="float64", backend="numpy")
COUNTS: dict[str, Any] = {
    "epochs": lambda n: dlfs_gpu.Trainer(NET, X, T, mini_batch_size=2, epochs=n),
    "iterations": lambda n: dlfs_gpu.Trainer(NET, X, T, mini_batch_size=2, iterations=n),
    "mini_batch_size": lambda n: dlfs_gpu.Trainer(NET, X, T, mini_batch_size=n),
    "patience": lambda n: dlfs_gpu.Trainer(
        NET, X, T, mini_batch_size=2, x_val=X, t_val=T, patience=n
    ),
    "evaluate_sample_num_per_epoch": lambda n: dlfs_gpu.Trainer(
        NET, X, T, mini_batch_size=2, evaluate_sample_num_per_epoch=n
    ),
    "input_size": lambda n: dlfs_gpu.TwoLayerNet(n, 2, 2),
    "hidden_size": lambda n: dlfs_gpu.TwoLayerNet(3, n, 2),
    "output_size": lambda n: dlfs_gpu.TwoLayerNet(3, 2, n),
    "hidden_size_list": lambda n: dlfs_gpu.MultiLayerNet(3, [n], 2),
    "num_classes": lambda n: dlfs_gpu.one_hot(np.zeros(1, int), n),
    "size": lambda n: dlfs_gpu.MinibatchSampler(n, 1),
    "count": lambda n: dlfs_gpu.MinibatchSampler(4, 1).draw(n),
    "step_num": lambda n: dlfs_gpu.gradient_descent(dlfs_gpu.function_2, np.ones(2), step_num=n),
    "threads": lambda n: NET.numerical_gradient(X, T, threads=n),
    "max_memory": lambda n: NET.numerical_gradient(X, T, max_memory=n),
}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [True, np.True_, 2.5, 2.0, -1, "3"])
def test_counts_are_checked_alike(name: str, value: Any) -> None:
    with refused(name):
        COUNTS[name](value)
