"""The chapter's networks: its numbers, their parameters, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from errors import refused
from libraries import Library

from dlfs_gpu.backend import get_backend, use_backend
from dlfs_gpu.functions import relu, sigmoid, softmax
from dlfs_gpu.layers import Affine, Dropout, Relu, Sigmoid, Tanh
from dlfs_gpu.models import MultiLayerNet, SimpleNet, TwoLayerNet, simpleNet, weight_scale

# SimpleNet: the numbers of section 4.4.2, whose losses and gradients are without the 1e-7.

X = np.array([0.6, 0.9])
FIRST = [[0.94205491, 2.00218723, -0.44365259], [0.11622554, -0.59436786, 0.83999679]]
SECOND = [[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]]
THIRD = [[-0.18257682, -0.8677132, -1.10735323], [-0.27386523, -1.30156981, -1.66102984]]


def test_simple_net_scores() -> None:
    network = SimpleNet(FIRST, backend="numpy")
    np.testing.assert_allclose(network.predict(X), [0.669835932, 0.666381264, 0.489805557])
    assert np.argmax(network.predict(X)) == 0
    np.testing.assert_allclose(
        softmax(network.predict(X)), [0.35313277, 0.35191491, 0.29495232], atol=5e-9
    )
    np.testing.assert_array_equal(network.W, FIRST)
    second = SimpleNet(SECOND, backend="numpy").predict(X)
    np.testing.assert_allclose(second, [1.054148091, 0.630716529, 1.132807401])


@pytest.mark.parametrize(
    ("W", "t", "loss"),
    [
        (FIRST, [0, 0, 1], 1.220941561292),
        (FIRST, [1, 0, 0], 1.040911186292),
        (SECOND, [0, 0, 1], 0.92806854),
    ],
)
def test_simple_net_loss(W: Any, t: list[int], loss: float) -> None:
    network = SimpleNet(W, backend="numpy")
    np.testing.assert_allclose(network.loss(X, np.array(t)), loss, atol=5e-9)
    np.testing.assert_allclose(network.loss(X, np.array(np.argmax(t))), loss, atol=5e-9)


@pytest.mark.parametrize("method", ["backprop", "difference", "batched", "loop"])
@pytest.mark.parametrize(
    ("W", "t", "dW"),
    [
        (
            FIRST,
            [1, 0, 0],
            [[-0.38812034, 0.21114895, 0.17697139], [-0.58218051, 0.31672342, 0.26545709]],
        ),
        (
            THIRD,
            [0, 0, 1],
            [[0.42027315, 0.11048601, -0.53075916], [0.63040973, 0.16572901, -0.79613874]],
        ),
    ],
)
def test_simple_net_gradient(W: Any, t: list[int], dW: Any, method: Any) -> None:
    network, target = SimpleNet(W, backend="numpy"), np.array(t)
    if method == "backprop":
        grads = network.gradient(X, target)
    else:
        grads = network.numerical_gradient(X, target, method=method)
    assert list(grads) == ["W1"]
    np.testing.assert_allclose(grads["W1"], dW, atol=1e-8)


def test_simple_net_gradient_of_the_second() -> None:
    dW = SimpleNet(SECOND, backend="numpy").gradient(X, np.array(2))["W1"]
    np.testing.assert_allclose([dW[0, 0], dW[1, 2]], [0.219248, -0.544215], atol=5e-7)


def test_simple_net_is_drawn_from_a_normal_distribution() -> None:
    drawn = np.stack([SimpleNet(seed=seed, backend="numpy").W for seed in range(300)])
    assert drawn.shape == (300, 2, 3)
    assert drawn.dtype == np.float64
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [0, 1], atol=0.1)


# TwoLayerNet


def make_two_layer(lib: Library, **options: Any) -> TwoLayerNet:
    if lib.name == "strict":
        pytest.skip("networks are made on NumPy or CuPy")
    options.setdefault("seed", 0)
    return TwoLayerNet(4, 5, 3, dtype=lib.dtype, backend=lib.name, **options)


def test_two_layer_net_parameters(lib: Library) -> None:
    network = make_two_layer(lib)
    shapes = {key: param.shape for key, param in network.params.items()}
    assert shapes == {"W1": (4, 5), "b1": (5,), "W2": (5, 3), "b2": (3,)}
    for param in network.params.values():
        assert lib.to_numpy(param).dtype == lib.dtype
    assert not np.any(lib.to_numpy(network.params["b1"]))
    assert not np.any(lib.to_numpy(network.params["b2"]))
    assert [type(layer) for layer in network.layers] == [Affine, Sigmoid, Affine]


def test_two_layer_net_predicts(lib: Library) -> None:
    network = make_two_layer(lib, weight_init_std=1.0)
    x = np.random.default_rng(0).standard_normal((7, 4))
    p = {key: lib.to_numpy(param) for key, param in network.params.items()}
    expected = softmax(sigmoid(x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"])
    actual = lib.to_numpy(network.predict(lib.asarray(x)))
    assert actual.dtype == lib.dtype
    np.testing.assert_allclose(actual, expected, rtol=50 * lib.eps)


def test_weights_have_the_chapters_spread() -> None:
    network = TwoLayerNet(784, 50, 10, seed=0, backend="numpy")
    assert network.dtype == np.float32
    for key, tolerance in {"W1": 0.02, "W2": 0.1}.items():
        np.testing.assert_allclose(network.params[key].std(), 0.01, rtol=tolerance)
        assert abs(network.params[key].mean()) < 0.002
    assert TwoLayerNet(784, 50, 10, 0.5, seed=0, backend="numpy").params["W1"].std() > 0.4


def test_parameter_counts() -> None:
    small = TwoLayerNet(784, 50, 10, seed=0, backend="numpy")
    large = MultiLayerNet(784, [512, 512], 10, seed=0, backend="numpy")
    assert sum(param.size for param in small.params.values()) == 39_760
    counts = [param.size for param in large.params.values()]
    assert [sum(counts[k : k + 2]) for k in (0, 2, 4)] == [401_920, 262_656, 5_130]
    assert sum(counts) == 669_706


def test_same_seed_same_weights(lib: Library) -> None:
    network = make_two_layer(lib)
    reference = TwoLayerNet(4, 5, 3, seed=0, dtype="float64", backend="numpy")
    for key, param in reference.params.items():
        np.testing.assert_array_equal(
            lib.to_numpy(network.params[key]), param.astype(lib.dtype), err_msg=key
        )
    other = make_two_layer(lib, seed=1)
    assert not np.array_equal(lib.to_numpy(other.params["W1"]), lib.to_numpy(network.params["W1"]))


def test_backend_is_the_scoped_one() -> None:
    with use_backend("numpy") as backend:
        assert TwoLayerNet(2, 2, 2).backend is backend
        assert SimpleNet().backend is backend
    assert SimpleNet(backend=get_backend("numpy")).backend.name == "numpy"


# MultiLayerNet


@pytest.mark.parametrize(
    ("activation", "kind", "function"),
    [("relu", Relu, relu), ("sigmoid", Sigmoid, sigmoid), ("tanh", Tanh, np.tanh)],
)
def test_multi_layer_net(activation: str, kind: type, function: Any) -> None:
    network = MultiLayerNet(4, [6, 5], 3, activation, seed=0, dtype="float64", backend="numpy")
    assert [type(layer) for layer in network.layers] == [Affine, kind, Affine, kind, Affine]
    assert (network.sizes, network.activation) == ([4, 6, 5, 3], activation)
    x = np.random.default_rng(0).standard_normal((7, 4))
    p = network.params
    hidden = function(function(x @ p["W1"]) @ p["W2"])
    np.testing.assert_allclose(network.predict(x), softmax(hidden @ p["W3"]), rtol=1e-12)


def test_no_hidden_layer() -> None:
    network = MultiLayerNet(4, [], 3, seed=0, backend="numpy")
    assert list(network.params) == ["W1", "b1"]
    assert network.predict(np.ones((2, 4))).shape == (2, 3)


@pytest.mark.parametrize(
    ("weight_init_std", "scale"),
    [
        ("relu", math.sqrt(2)),
        ("he", math.sqrt(2)),
        ("sigmoid", 1),
        ("xavier", 1),
        ("He", math.sqrt(2)),
        ("Xavier", 1),
        ("ReLU", math.sqrt(2)),
    ],
)
def test_weight_scales(weight_init_std: str, scale: float) -> None:
    assert weight_scale(weight_init_std, 100) == pytest.approx(scale / 10)
    network = MultiLayerNet(
        400, [900], 50, weight_init_std=weight_init_std, seed=0, backend="numpy"
    )
    for key, inputs in {"W1": 400, "W2": 900}.items():
        np.testing.assert_allclose(network.params[key].std(), scale / math.sqrt(inputs), rtol=0.02)


def test_dropout_layers() -> None:
    def masks(seed: int) -> list[np.ndarray]:
        network = MultiLayerNet(4, [50, 50], 3, dropout_ratio=0.3, seed=seed, backend="numpy")
        network.gradient(np.ones((2, 4)), np.array([0, 1]))
        return [layer.mask for layer in network.layers if isinstance(layer, Dropout)]

    first, second = masks(0)
    assert not np.array_equal(first, second)
    for mask, same in zip((first, second), masks(0), strict=True):
        np.testing.assert_array_equal(mask, same)
    assert not np.array_equal(first, masks(1)[0])
    # The masks' seeds leave the weights as they are without dropout.
    dropped = MultiLayerNet(4, [50], 3, dropout_ratio=0.3, seed=0, backend="numpy")
    plain = MultiLayerNet(4, [50], 3, seed=0, backend="numpy")
    np.testing.assert_array_equal(dropped.params["W2"], plain.params["W2"])


# What they refuse


@pytest.mark.parametrize(
    ("sizes", "argument"),
    [
        ((0, 5, 3), "input_size"),
        (("4", 5, 3), "input_size"),
        ((4, -1, 3), "hidden_size"),
        ((4, True, 3), "hidden_size"),
        ((4, 5, 2.5), "output_size"),
        ((4, 5, 2.0), "output_size"),
    ],
)
def test_bad_sizes(sizes: Any, argument: str) -> None:
    with refused(argument):
        TwoLayerNet(*sizes, backend="numpy")


@pytest.mark.parametrize("hidden", [[5, 0], [True], [2.5], 5, ["5"]])
def test_bad_hidden_sizes(hidden: Any) -> None:
    with refused("hidden_size_list"):
        MultiLayerNet(4, hidden, 3, backend="numpy")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("activation", "swish"),
        ("activation", None),
        ("weight_init_std", "big"),
        ("weight_init_std", -0.1),
        ("weight_init_std", math.nan),
        ("weight_init_std", None),
        ("dtype", "float16"),
        ("dtype", np.int64),
        ("dtype", None),
        ("dropout_ratio", 1.0),
        ("dropout_ratio", -0.1),
        ("dropout_ratio", True),
        ("weight_decay_lambda", -1),
        ("backend", "tpu"),
    ],
)
def test_bad_options(argument: str, value: Any) -> None:
    with refused(argument):
        MultiLayerNet(4, [5], 3, **{"backend": "numpy", argument: value})


def test_bad_weights() -> None:
    with refused("x"):
        SimpleNet(backend="numpy").predict(np.ones(3))
    with refused("W"):
        SimpleNet(np.ones(6), backend="numpy")
    with refused("dtype"):
        SimpleNet(dtype="int32", backend="numpy")


# As the book, and NumPy, write it


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), "Float32"])
def test_types_by_name_and_as_types(dtype: Any) -> None:
    for network in (
        SimpleNet(dtype=dtype, backend="numpy"),
        TwoLayerNet(2, 3, 2, dtype=dtype, backend="numpy"),
        MultiLayerNet(2, [3], 2, dtype=dtype, backend="numpy"),
    ):
        assert network.dtype == np.float32
    assert TwoLayerNet(2, 3, 2, dtype=float, backend="numpy").dtype == np.float64


def test_sizes_of_any_integer_type() -> None:
    network = MultiLayerNet(np.int64(2), np.array([3, 4]), np.int32(2), backend="numpy")  # type: ignore[arg-type]
    assert network.sizes == [2, 3, 4, 2]


def test_the_books_arguments() -> None:
    network = MultiLayerNet(
        input_size=784,
        hidden_size_list=[100, 100, 100, 100],
        output_size=10,
        activation="relu",
        weight_init_std="relu",
        weight_decay_lambda=0,
    )
    assert network.sizes == [784, 100, 100, 100, 100, 10]
    small = TwoLayerNet(input_size=784, hidden_size=50, output_size=10, weight_init_std=0.01)
    assert small.sizes == [784, 50, 10]
    assert simpleNet is SimpleNet


def test_activations_in_any_case() -> None:
    network = MultiLayerNet(4, [5], 3, "ReLU", backend="numpy")
    assert network.activation == "relu"
    assert type(network.layers[1]) is Relu


def test_weights_of_0_are_allowed() -> None:
    network = MultiLayerNet(4, [5], 3, weight_init_std=0, backend="numpy")
    assert not np.any(network.params["W1"])
