"""One update: the buffered path against the layers, and numerical gradients against both."""

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from libraries import Library

from dlfs_gpu._validation import namespace_of
from dlfs_gpu.layers import Affine, Dropout, Relu, Sigmoid, Tanh
from dlfs_gpu.losses import SumSquaredError
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import OPTIMIZERS, SGD, Optimizer, make_optimizer
from dlfs_gpu.training.update import Update

ACTIVATIONS = {"sigmoid": Sigmoid, "relu": Relu, "tanh": Tanh}
N, FEATURES, CLASSES, BATCH = 40, 6, 4, 8
NUMPY64 = Library("numpy", "float64", np)


class OtherSGD(SGD):
    """SGD that `Update` does not know."""


def by_layers(network: Network, optimizer: Optimizer, x: Any, t: Any) -> Callable[[Any], Any]:
    """Return what `Update` does, by the layers and the optimizer as they stand."""
    xp = namespace_of(x)

    def update(rows: Any) -> Any:
        batch = xp.take(x, rows, axis=0), xp.take(t, rows, axis=0)
        loss, grads = network._loss_and_gradient(*batch)
        optimizer.update(network.params, grads)
        return loss

    return update


def stack(
    lib: Library, hidden: tuple[int, ...] = (7,), activation: str = "sigmoid", **options: Any
) -> Network:
    """A network of the library's arrays, the same at every call."""
    rng = np.random.default_rng(1)
    sizes = (FEATURES, *hidden, CLASSES)
    layers: list[Any] = []
    for n, m in itertools.pairwise(sizes):
        if layers:
            layers.append(ACTIVATIONS[activation]())
        W, b = rng.standard_normal((n, m)), rng.standard_normal(m)
        layers.append(Affine(lib.asarray(W), lib.asarray(b)))
    return Network(layers, **options)


def samples(lib: Library, targets: str = "labels") -> tuple[Any, Any]:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((N, FEATURES))
    labels = rng.integers(CLASSES, size=N)
    t = {
        "labels": labels,
        "one-hot": np.eye(CLASSES)[labels],
        "soft": rng.dirichlet(np.ones(CLASSES), N),
        "weights": rng.random((N, CLASSES)),
    }[targets]
    return lib.asarray(x), lib.asarray(t)


def minibatches(lib: Library, count: int) -> list[Any]:
    return [lib.asarray(rows) for rows in np.random.default_rng(3).integers(N, size=(count, BATCH))]


def assert_close(lib: Library, actual: Any, desired: Any, rtol: float) -> None:
    actual, desired = lib.to_numpy(actual), lib.to_numpy(desired)
    np.testing.assert_allclose(actual, desired, rtol, rtol * np.abs(desired).max(), strict=True)


@pytest.mark.parametrize("targets", ["labels", "one-hot", "soft"])
@pytest.mark.parametrize("hidden", [(), (7,), (9, 5)], ids=["flat", "two", "three"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_buffers_compute_what_layers_do(
    lib: Library, activation: str, hidden: tuple[int, ...], targets: str
) -> None:
    x, t = samples(lib, targets)
    fast_network, network = stack(lib, hidden, activation), stack(lib, hidden, activation)
    fast = Update(fast_network, SGD(0.3), x, t, BATCH)
    assert (fast._labels is not None) == (lib.name != "strict" and targets != "soft")
    layered = by_layers(network, SGD(0.3), x, t)
    for rows in minibatches(lib, 50):
        assert_close(lib, fast(rows), layered(rows), 500 * lib.eps)
    for key, param in network.params.items():
        assert_close(lib, fast_network.params[key], param, 500 * lib.eps)


@pytest.mark.parametrize("optimizer", [SGD(0.3), OtherSGD(0.3)], ids=["known", "other"])
def test_a_step_against_numerical_gradients(optimizer: Optimizer) -> None:
    x, t = samples(NUMPY64)
    network = stack(NUMPY64)
    (rows,) = minibatches(NUMPY64, 1)
    loss = network.loss(x[rows], t[rows])
    grads = network.numerical_gradient(x[rows], t[rows], method="loop")
    before = {key: param.copy() for key, param in network.params.items()}
    np.testing.assert_allclose(Update(network, optimizer, x, t, BATCH)(rows), loss, 1e-14)
    for key, param in network.params.items():
        np.testing.assert_allclose((before[key] - param) / 0.3, grads[key], 1e-6, 1e-8)


@pytest.mark.parametrize("optimizer", [SGD(0.3), OtherSGD(0.3)], ids=["known", "other"])
def test_parameters_change_in_place(lib: Library, optimizer: Optimizer) -> None:
    network = stack(lib)
    params = dict(network.params)
    before = {key: lib.to_numpy(param).copy() for key, param in params.items()}
    update = Update(network, optimizer, *samples(lib), BATCH)
    for rows in minibatches(lib, 2):
        update(rows)
    for key, param in params.items():
        assert network.params[key] is param
        assert (lib.to_numpy(param) != before[key]).all()


def test_learning_rate_and_parameters_may_be_replaced() -> None:
    network, expected = stack(NUMPY64), stack(NUMPY64)
    data = samples(NUMPY64)
    fast, layered = SGD(0.3), SGD(0.3)
    update = Update(network, fast, *data, BATCH)
    reference = by_layers(expected, layered, *data)
    first, second = minibatches(NUMPY64, 2)
    update(first), reference(first)
    old = network.params["W1"]
    for net in (network, expected):
        net.params["W1"] = net.params["W1"] / 2
    fast.lr = layered.lr = 0.01
    kept = old.copy()
    update(second), reference(second)
    np.testing.assert_array_equal(old, kept)
    np.testing.assert_allclose(network.params["W1"], expected.params["W1"], 1e-12)


def no_bias() -> Network:
    W = np.random.default_rng(0).standard_normal((FEATURES, CLASSES))
    return Network([Affine(W)])


@pytest.mark.parametrize(
    ("network", "targets"),
    [
        (stack(NUMPY64), "weights"),
        (no_bias(), "labels"),
        (stack(NUMPY64, loss=SumSquaredError()), "one-hot"),
        (
            MultiLayerNet(
                FEATURES, [9], CLASSES, dropout_ratio=0.5, dtype="float64", backend="numpy", seed=0
            ),
            "labels",
        ),
    ],
    ids=["targets that sum to anything", "no bias", "another loss", "dropout"],
)
def test_what_has_no_buffers_goes_by_the_layers(network: Network, targets: str) -> None:
    network.freeze_dropout()
    x, t = samples(NUMPY64, targets)
    (rows,) = minibatches(NUMPY64, 1)
    loss, grads = network.loss_and_gradient(x[rows], t[rows])
    expected = {key: param - 0.3 * grads[key] for key, param in network.params.items()}
    np.testing.assert_array_equal(Update(network, SGD(0.3), x, t, BATCH)(rows), loss)
    for key, param in network.params.items():
        np.testing.assert_array_equal(param, expected[key])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(lib: Library, name: str) -> None:
    network, expected = stack(lib), stack(lib)
    x, t = samples(lib)
    update = Update(network, make_optimizer(name), x, t, BATCH)
    reference = by_layers(expected, make_optimizer(name), x, t)
    for rows in minibatches(lib, 20):
        assert_close(lib, update(rows), reference(rows), 2000 * lib.eps)
    for key, param in network.params.items():
        assert_close(lib, param, expected.params[key], 2000 * lib.eps)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_weight_decay_may_come_and_go(lib: Library, optimizer: str) -> None:
    network, expected = stack(lib), stack(lib)
    data = samples(lib)
    update = Update(network, make_optimizer(optimizer), *data, BATCH)
    reference = by_layers(expected, make_optimizer(optimizer), *data)
    for decay, rows in zip((0.0, 0.1, 0.3, 0.0), minibatches(lib, 4), strict=True):
        network.weight_decay_lambda = expected.weight_decay_lambda = decay
        assert_close(lib, update(rows), reference(rows), 100 * lib.eps)
    for key, param in network.params.items():
        assert_close(lib, param, expected.params[key], 1000 * lib.eps)


@pytest.mark.parametrize("gradient", ["difference", "batched", "loop"])
def test_numerical_gradients_train_alike(lib: Library, gradient: Any) -> None:
    network, expected = stack(lib, (5,), "tanh"), stack(lib, (5,), "tanh")
    x, t = samples(lib)
    update = Update(network, SGD(0.3), x, t, BATCH, gradient)
    reference = Update(expected, SGD(0.3), x, t, BATCH)
    # Evaluated in float32, the default steps leave some three digits.
    rtol = 1e-2 if lib.dtype == "float32" and gradient != "difference" else 1e-5
    for rows in minibatches(lib, 5):
        assert_close(lib, update(rows), reference(rows), rtol)
    for key, param in expected.params.items():
        assert_close(lib, network.params[key], param, rtol)


def test_bad_input() -> None:
    x, t = samples(NUMPY64)
    network = MultiLayerNet(
        FEATURES, [5], CLASSES, dropout_ratio=0.5, dtype="float64", backend="numpy"
    )
    with pytest.raises(ValueError, match="gradient is 'exact'"):
        Update(network, SGD(), x, t, BATCH, "exact")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Dropout layer that draws anew"):
        Update(network, SGD(), x, t, BATCH, "batched")
    Update(network, SGD(), x, t, BATCH, "difference")(np.arange(BATCH))


# Whatever is not the library's own is trained as it is


class Doubled(Network):
    def loss_and_gradient(self, x: Any, t: Any) -> Any:
        loss, grads = super().loss_and_gradient(x, t)
        return loss, {key: 2 * grad for key, grad in grads.items()}


class DoubledToo(Network):
    def gradient(self, x: Any, t: Any) -> Any:
        return {key: 2 * grad for key, grad in super().gradient(x, t).items()}


def step(network: Network, gradient: Any = "backprop") -> dict[str, np.ndarray]:
    """What one update by SGD of rate 1 takes from each parameter."""
    x, t = samples(NUMPY64)
    (rows,) = minibatches(NUMPY64, 1)
    before = {key: param.copy() for key, param in network.params.items()}
    Update(network, SGD(1.0), x, t, BATCH, gradient)(rows)
    return {key: before[key] - param for key, param in network.params.items()}


@pytest.mark.parametrize("kind", [Doubled, DoubledToo])
def test_networks_with_gradients_of_their_own(kind: Any) -> None:
    expected = step(stack(NUMPY64))
    for key, change in step(kind(stack(NUMPY64).layers)).items():
        np.testing.assert_allclose(change, 2 * expected[key], 1e-12)


def test_a_numerical_gradient_of_ones_own() -> None:
    class Own(Network):
        def numerical_gradient(self, *arguments: Any, **options: Any) -> Any:
            grads = super().numerical_gradient(*arguments, **options)
            return {key: 2 * grad for key, grad in grads.items()}

    expected = step(stack(NUMPY64), "difference")
    for key, change in step(Own(stack(NUMPY64).layers), "difference").items():
        np.testing.assert_allclose(change, 2 * expected[key], 1e-12)


def test_layers_that_are_changed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    x, t = samples(NUMPY64)
    (rows,) = minibatches(NUMPY64, 1)

    def no_step(network: Network) -> bool:
        before = network.params["W1"].copy()
        update(rows)
        return bool((network.params["W1"] == before).all())

    # A backward that is replaced in the object, or in the class.
    network = stack(NUMPY64)
    update = Update(network, SGD(0.3), x, t, BATCH)
    assert not no_step(network)
    network.layers[1].backward = lambda dout: 0 * dout
    assert no_step(network)
    del network.layers[1].backward
    assert not no_step(network)
    with monkeypatch.context() as patch:
        patch.setattr(Sigmoid, "backward", lambda self, dout: 0 * dout)
        assert no_step(network)
    # A layer that is inserted.
    dropout = Dropout(0.999, seed=0)
    network.layers.insert(2, dropout)
    update(rows)
    assert dropout.mask is not None


def test_indices_out_of_range() -> None:
    x, t = samples(NUMPY64)
    for gradient in ("backprop", "difference"):
        update = Update(stack(NUMPY64), SGD(0.3), x, t, BATCH, gradient)
        with pytest.raises(IndexError):
            update(np.full(BATCH, N))
    # Negative ones count from the end, as everywhere.
    results = [
        Update(stack(NUMPY64), SGD(0.3), x, t, BATCH)(rows)
        for rows in (np.arange(-BATCH, 0), np.arange(N - BATCH, N))
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [1.0, 12.0, 18.0, 60.0, 200.0])
def test_saturated_units_and_certain_answers(activation: str, size: float) -> None:
    lib = Library("numpy", "float32", np)
    x, t = samples(lib)
    expected, network = stack(NUMPY64, (7,), activation), stack(lib, (7,), activation)
    for net in (network, expected):
        for key in net.params:
            net.params[key][...] *= size if key != "W2" else np.sqrt(size)
    layers = {key: param.copy() for key, param in expected.params.items()}
    grads = expected.gradient(x.astype(np.float64), t)
    rows = np.arange(BATCH)
    wide = x[rows].astype(np.float64)
    loss, grads = expected.loss_and_gradient(wide, t[rows])
    before = {key: param.copy() for key, param in network.params.items()}
    update = Update(network, OtherSGD(1.0), x, t, BATCH)
    ours = update(rows)
    assert update._fused is not None
    np.testing.assert_allclose(ours, loss, 2e-6)
    narrow = stack(lib, (7,), activation)
    for key in narrow.params:
        narrow.params[key][...] = before[key]
    plain = narrow.gradient(x[rows], t[rows])
    for key, grad in grads.items():
        error = np.abs(update._fused.grads[key] - grad).max()
        # Pre-activations are rounded, by the layers as here.
        allowed = np.abs(plain[key] - grad).max() + 2e-6 * np.abs(grad).max()
        assert error <= 2 * allowed, key
    assert layers.keys() == grads.keys()


def test_labels_are_not_written_out() -> None:
    classes, count = 1000, 20_000
    network = MultiLayerNet(2, [3], classes, seed=0, backend="numpy")
    x, t = np.zeros((count, 2), np.float32), np.arange(count) % classes
    tracemalloc.start()
    try:
        update = Update(network, SGD(0.1), x, t, BATCH)
        update(np.arange(BATCH))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20  # one-hot they would take 76 MiB
