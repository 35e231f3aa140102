"""Updates by the kernel of training.cu, run on the CPU, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlfs_gpu.kernels.cuda import Training
from kernels.fake_cupy import FakeCupy
from kernels.problems import (
    EPS,
    ActivationName,
    Arrays,
    Problem,
    error,
    make_problem,
    make_sure,
    updated,
)

# Inputs, hidden units and classes; samples. Some fill tiles, warps and blocks, most do not.
SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "small": ((20, 7, 3), 5),
    "the chapter's": ((784, 50, 10), 12),
    "many hidden units": ((600, 128, 5), 3),
    "many classes": ((9, 33, 32), 6),
    "least": ((1, 1, 1), 1),
    "whole tiles, many samples": ((31, 64, 16), 70),
}
LR = 0.1


def train(
    cupy: FakeCupy,
    problem: Problem,
    indices: Any,
    *,
    lr: float = LR,
    blocks: int = 3,
    order: int = 0,
) -> tuple[Arrays, Any]:
    cupy.attributes["MultiProcessorCount"] = blocks
    cupy.order = order
    params = problem.uploaded
    x, labels = cupy.asarray(problem.x), cupy.asarray(problem.labels)
    kernel = Training(problem.activation, params, x, labels, indices.shape[1])
    losses = kernel.run(cupy.asarray(indices), lr)
    assert cupy.launches[-1][0][0] <= blocks
    return dict(zip(problem.params, params, strict=True)), losses.host


def minibatches(problem: Problem, size: int, count: int = 2) -> Any:
    return np.random.default_rng(1).integers(len(problem.x), size=(count, size))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_updates(cupy: FakeCupy, shape: str, activation: ActivationName, dtype: str) -> None:
    sizes, batch = SHAPES[shape]
    problem = make_problem(sizes, activation, dtype)
    indices = minibatches(problem, batch)
    params, losses = train(cupy, problem, indices)
    expected, expected_losses = updated(problem, indices, LR)
    np.testing.assert_allclose(losses, expected_losses, rtol=20 * EPS[dtype], atol=EPS[dtype])
    for key, param in params.items():
        assert error(param, expected[key]) < 5 * EPS[dtype]
    for blocks, order in ((1, 1), (7, 5)):
        again, again_losses = train(cupy, problem, indices, blocks=blocks, order=order)
        np.testing.assert_array_equal(again_losses, losses)
        for key, param in params.items():
            np.testing.assert_array_equal(again[key].host, param.host)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_sure_and_saturated_networks_lose_no_digits(
    cupy: FakeCupy, activation: ActivationName
) -> None:
    problem = make_problem(activation=activation, scale=6)
    indices = make_sure(problem)[None, :5]
    lr = 1e11  # which makes changes of what the gradient is, some 1e-11
    expected, expected_losses = updated(problem, indices, lr)
    assert 0 < expected_losses[0] < 1e-7
    params, losses = train(cupy, problem, indices, lr=lr)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for key, param in params.items():
        start = problem.params[key]
        assert error(param.host - start, expected[key] - start) < 1e-4


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("key", ["W1", "W2"])
def test_nan_comes_through(cupy: FakeCupy, key: str, activation: ActivationName) -> None:
    problem = make_problem(activation=activation)
    problem.params[key][1, 1] = np.nan
    problem.x[...] = 1
    _, losses = train(cupy, problem, minibatches(problem, 5))
    assert np.isnan(losses).all()
