"""Optimizers against PyTorch's, where they are defined alike, and by hand."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import pytest
from errors import refused
from libraries import Library

from dlfs_gpu.optimizers import (
    EPSILON,
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    Momentum,
    Nesterov,
    Optimizer,
    RMSprop,
    make_optimizer,
)

START = {"W": np.array([[-7.0, 2.0], [3.0, 0.5]]), "b": np.array([1.0, -2.0])}
CURVATURE = {"W": np.array([[0.1, 2.0], [1.0, 0.3]]), "b": np.array([0.5, 3.0])}


def gradients(params: dict[str, Any], step: int) -> dict[str, np.ndarray]:
    """Those of a bowl of unequal sides, with something that changes from step to step."""
    return {key: CURVATURE[key] * params[key] + 0.3 * math.sin(step) for key in ("W", "b")}


def walk(optimizer: Any, steps: int = 100) -> dict[str, np.ndarray]:
    params = {key: value.copy() for key, value in START.items()}
    for step in range(steps):
        optimizer.update(params, gradients(params, step))
    return params


@pytest.mark.parametrize(
    ("ours", "name", "options"),
    [
        (SGD(0.05), "SGD", {}),
        (Momentum(0.05, 0.8), "SGD", {"momentum": 0.8}),
        (Nesterov(0.05, 0.8), "SGD", {"momentum": 0.8, "nesterov": True}),
        (AdaGrad(0.3), "Adagrad", {"eps": EPSILON}),
        (RMSprop(0.02, 0.95), "RMSprop", {"alpha": 0.95, "eps": EPSILON}),
        (Adam(0.1, 0.8, 0.99), "Adam", {"betas": (0.8, 0.99)}),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "update") else None,
)
def test_against_pytorch_for_100_steps(ours: Any, name: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    leaves = {key: torch.tensor(value, requires_grad=True) for key, value in START.items()}
    theirs = getattr(torch.optim, name)(leaves.values(), lr=ours.lr, **options)
    for step in range(100):
        if name == "Adam":
            # It adds eps after the correction of √v for its start, this one before it.
            correction = math.sqrt(1 - ours.beta2 ** (step + 1))
            theirs.param_groups[0]["eps"] = EPSILON / correction
        host = {key: leaf.detach().numpy() for key, leaf in leaves.items()}
        for key, grad in gradients(host, step).items():
            leaves[key].grad = torch.tensor(grad)
        theirs.step()
    for key, value in walk(ours).items():
        np.testing.assert_allclose(value, leaves[key].detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "first", "second"),
    [
        (SGD(0.5), 0.5, 1.0),
        (Momentum(0.5, 0.5), 0.5, 1.25),
        (Nesterov(0.5, 0.5), 0.75, 1.625),
        (AdaGrad(0.5), 0.5, 0.5 + 0.5 / math.sqrt(2)),
        (RMSprop(0.5, 0.75), 1.0, 1.0 + 0.5 / math.sqrt(0.4375)),
        (Adam(0.5), 0.5, 1.0),
    ],
)
def test_two_steps_by_hand(optimizer: Any, first: float, second: float) -> None:
    # The gradient is 1 at both.
    params = {"W": np.array([0.0])}
    for distance in (first, second):
        optimizer.update(params, {"W": np.array([1.0])})
        np.testing.assert_allclose(params["W"], [-distance], rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_params_change_in_place(name: str, lib: Library) -> None:
    optimizer = make_optimizer(name)
    params = {key: lib.asarray(value) for key, value in START.items()}
    arrays = dict(params)
    host = {key: value.copy() for key, value in START.items()}
    reference = make_optimizer(name)
    for step in range(5):
        grads = gradients(host, step)
        reference.update(host, grads)
        given = {key: lib.asarray(grad) for key, grad in grads.items()}
        optimizer.update(params, given)
        for key, grad in grads.items():
            assert params[key] is arrays[key]
            np.testing.assert_array_equal(lib.to_numpy(given[key]), grad.astype(lib.dtype))
    for key, value in host.items():
        result = lib.to_numpy(params[key])
        assert result.dtype == lib.dtype
        np.testing.assert_allclose(result, value, rtol=100 * lib.eps)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_reach_the_bottom(name: str) -> None:
    optimizer = make_optimizer(name, lr=2.0 if name == "adagrad" else 0.05)
    params = {key: value.copy() for key, value in START.items()}
    for _ in range(3000):
        optimizer.update(params, {key: CURVATURE[key] * params[key] for key in params})
    # RMSprop ends in steps of the size of lr around it.
    tolerance = 0.06 if name == "rmsprop" else 1e-3
    for value in params.values():
        np.testing.assert_allclose(value, 0, atol=tolerance)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_plain_numbers_are_replaced(name: str) -> None:
    """The book compares optimizers on x²/20 + y² from (-7, 2), in floats (6.1.3)."""
    optimizer, reference = make_optimizer(name), make_optimizer(name)
    params: dict[str, Any] = {"x": -7, "y": 2.0}
    arrays = {"x": np.array([-7.0]), "y": np.array([2.0])}
    for _ in range(30):
        optimizer.update(params, {"x": params["x"] / 10, "y": 2 * params["y"]})
        reference.update(arrays, {"x": arrays["x"] / 10, "y": 2 * arrays["y"]})
    for key, value in params.items():
        assert isinstance(value, float)
        assert value == pytest.approx(float(arrays[key][0]), rel=1e-14)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.array])
def test_numbers_of_numpy(name: str, kind: Any) -> None:
    optimizer = make_optimizer(name)
    params = {"x": kind(-7.0)}
    for _ in range(3):
        optimizer.update(params, {"x": params["x"] / 10})
    assert -7 < params["x"] < -6


class View(MutableMapping[str, Any]):
    """What a network's params are: no dict, and it lets nobody replace an array."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self.arrays = arrays

    def __getitem__(self, key: str) -> Any:
        return self.arrays[key]

    def __setitem__(self, key: str, value: Any) -> None:
        assert value is self.arrays[key]

    def __delitem__(self, key: str) -> None:
        raise AssertionError

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_mapping(name: str) -> None:
    params = View({key: value.copy() for key, value in START.items()})
    optimizer = make_optimizer(name)
    for step in range(3):
        grads: Mapping[str, Any] = gradients(params.arrays, step)
        optimizer.update(params, grads)
    for key, value in walk(make_optimizer(name), 3).items():
        np.testing.assert_array_equal(params[key], value)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("done", [0, 7])
def test_state_can_be_saved_and_restored(name: str, done: int) -> None:
    optimizer = make_optimizer(name)
    params = {key: value.copy() for key, value in START.items()}

    def go_on(optimizer: Optimizer, params: dict[str, Any]) -> dict[str, Any]:
        for step in range(5):
            optimizer.update(params, gradients(params, step))
        return params

    for step in range(done):
        optimizer.update(params, gradients(params, step))
    state = copy.deepcopy(vars(optimizer))
    copied, pickled = copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))
    start = copy.deepcopy(params)
    expected = go_on(optimizer, params)
    vars(optimizer).update(state)
    for again in (optimizer, copied, pickled):
        for key, value in go_on(again, copy.deepcopy(start)).items():
            np.testing.assert_array_equal(value, expected[key])


def test_defaults() -> None:
    """The book's, but for SGD, which has chapter 4's learning rate."""
    rates = {name: cls().lr for name, cls in OPTIMIZERS.items()}
    assert (rates.pop("sgd"), rates.pop("adam")) == (0.1, 0.001)
    assert set(rates.values()) == {0.01}
    adam, rmsprop, momentum = Adam(), RMSprop(), Momentum()
    assert (adam.beta1, adam.beta2) == (0.9, 0.999)
    assert rmsprop.decay_rate == 0.99
    assert momentum.momentum == Nesterov().momentum == 0.9


def test_made_by_name() -> None:
    assert list(OPTIMIZERS) == ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"]
    for name in ("Momentum", "momentum", "MOMENTUM"):
        optimizer = make_optimizer(name, lr=0.5, momentum=0.1)
        assert type(optimizer) is Momentum
        assert (optimizer.lr, optimizer.momentum) == (0.5, 0.1)
    for wrong in ("lbfgs", None, 3, SGD):
        with refused("optimizer"):
            make_optimizer(wrong)  # type: ignore[arg-type]


class Signs:
    """An optimizer of one's own."""

    def update(self, params: Any, grads: Any) -> None:
        for key in params:
            params[key] -= 0.1 * np.sign(grads[key])


@pytest.mark.parametrize("optimizer", [SGD(0.5), Signs()])
def test_objects_are_returned_as_they_are(optimizer: Any) -> None:
    assert make_optimizer(optimizer) is optimizer
    assert isinstance(optimizer, Optimizer)
    with refused("optimizer_param"):
        make_optimizer(optimizer, lr=0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("lr", [0, -0.1, math.inf, math.nan, "0.1", None])
def test_bad_learning_rate(name: str, lr: Any) -> None:
    with refused("lr"):
        make_optimizer(name, lr=lr)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("momentum", "momentum"),
        ("nesterov", "momentum"),
        ("rmsprop", "decay_rate"),
        ("adam", "beta1"),
        ("adam", "beta2"),
    ],
)
@pytest.mark.parametrize("value", [-0.1, 1, math.nan, None])
def test_bad_fractions(name: str, argument: str, value: Any) -> None:
    with refused(argument):
        make_optimizer(name, **{argument: value})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_that_do_not_fit(name: str) -> None:
    params = {key: value.copy() for key, value in START.items()}
    optimizer, whole = make_optimizer(name), gradients(params, 0)
    for grads in (
        {"W": whole["W"]},
        {**whole, "c": whole["b"]},
        {**whole, "W": whole["b"]},
        {**whole, "W": 1.0},
    ):
        with refused("grads"):
            optimizer.update(params, grads)
    for key, value in START.items():
        np.testing.assert_array_equal(params[key], value)


@pytest.mark.parametrize("other", [{"W": np.ones((2, 9))}, {"c": np.ones(3)}])
def test_an_optimizer_keeps_state_for_one_set_of_parameters(other: dict[str, np.ndarray]) -> None:
    optimizer = make_optimizer("momentum")
    params = {key: value.copy() for key, value in START.items()}
    optimizer.update(params, gradients(params, 0))
    with refused("params"):
        optimizer.update(other, {key: np.ones_like(value) for key, value in other.items()})
