"""Central differences by the kernels of differences.cu, run on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from dlfs_gpu.kernels.cuda import Differences
from kernels.fake_cupy import FakeCupy
from kernels.problems import (
    EPS,
    ActivationName,
    Arrays,
    Problem,
    activated,
    error,
    make_problem,
    make_sure,
)

# Inputs, hidden units and classes; samples; step.
CASES: dict[str, tuple[tuple[int, int, int], int, float]] = {
    "small": ((20, 7, 3), 8, 1e-4),
    "the chapter's": ((784, 50, 10), 6, 1e-4),
    "many samples, large step": ((9, 33, 3), 130, 0.5),
    "many classes": ((5, 40, 32), 33, 1e-4),
}


def differences(cupy: FakeCupy, problem: Problem, h: float) -> tuple[float, Arrays]:
    data = cupy.asarray(problem.x), cupy.asarray(problem.labels)
    loss, parts = Differences(problem.activation, problem.uploaded, *data).gradient(h)
    grads = {f"{name}{k}": grad for k, part in enumerate(parts, 1) for name, grad in part.items()}
    for array in (loss, *grads.values()):
        assert array.dtype == problem.x.dtype
    return float(loss), {key: grad.host for key, grad in grads.items()}


def by_array_code(problem: Problem, h: float) -> tuple[float, Arrays]:
    """Return loss and differences in float64, of the same parameters and data."""
    network = problem.network("numpy", "float64")
    x = problem.x.astype(np.float64)
    grads = network.numerical_gradient(x, problem.labels, float(problem.x.dtype.type(h)))
    return float(network.loss(x, problem.labels)), grads


def check(problem: Problem, loss: float, grads: Arrays, h: float, tolerance: float) -> None:
    expected_loss, expected = by_array_code(problem, h)
    assert abs(loss - expected_loss) <= tolerance * expected_loss
    for key, grad in grads.items():
        assert error(grad, expected[key]) < tolerance, key


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("case", CASES)
def test_against_float64(cupy: FakeCupy, case: str, activation: ActivationName, dtype: str) -> None:
    sizes, samples, h = CASES[case]
    problem = make_problem(sizes, activation, dtype, samples=samples)
    loss, grads = differences(cupy, problem, h)
    check(problem, loss, grads, h, (3 if dtype == "float32" else 20) * EPS[dtype])
    cupy.order = 5
    again_loss, again = differences(cupy, problem, h)
    assert again_loss == loss
    for key, grad in grads.items():
        np.testing.assert_array_equal(again[key], grad)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_against_the_chapters_loop(cupy: FakeCupy, activation: ActivationName) -> None:
    h = 2.0**-6
    problem = make_problem((20, 7, 3), activation, "float64", samples=6)
    _, grads = differences(cupy, problem, h)
    for key, param in problem.params.items():
        for index in np.ndindex(param.shape):
            kept = param[index]
            losses = []
            for moved in (kept + h, kept - h):
                param[index] = moved
                out, _ = activated(
                    problem.x @ problem.params["W1"] + problem.params["b1"], activation
                )
                scores = out @ problem.params["W2"] + problem.params["b2"]
                totals = np.log(np.exp(scores).sum(axis=1))
                losses.append(np.mean(totals - scores[np.arange(6), problem.labels]))
            param[index] = kept
            assert grads[key][index] == pytest.approx((losses[0] - losses[1]) / (2 * h), abs=1e-13)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("right", [True, False])
def test_sure_and_saturated_networks_lose_no_digits(
    cupy: FakeCupy, right: bool, activation: ActivationName
) -> None:
    problem = make_problem(activation=activation, scale=6)
    make_sure(problem)
    if not right:
        problem.labels[...] = (problem.labels + 1) % 3
    loss, grads = differences(cupy, problem, 1e-4)
    check(problem, loss, grads, 1e-4, 10 * EPS["float32"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_changes_so_large_that_exponentials_overflow(
    cupy: FakeCupy, activation: ActivationName, dtype: str
) -> None:
    problem = make_problem((20, 7, 3), activation, dtype, samples=8)
    problem.x[::2] *= 1e4
    loss, grads = differences(cupy, problem, 0.5)
    check(problem, loss, grads, 0.5, 50 * EPS[dtype])


def test_nan_comes_through(cupy: FakeCupy) -> None:
    problem = make_problem(samples=8)
    problem.params["b1"][2] = np.nan
    loss, grads = differences(cupy, problem, 1e-4)
    assert np.isnan(loss)
    assert all(np.isnan(grad).all() for grad in (grads["b1"], grads["W2"]))
