"""What the report trains and measures, on each backend, against what theory says of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from dlfs_gpu.backend import Backend, BackendError, get_backend
from dlfs_gpu.chapter4.experiments.descent import compare_optimizers, fit_line
from dlfs_gpu.chapter4.experiments.differences import difference_errors, gradient_errors
from dlfs_gpu.chapter4.experiments.learning import (
    XOR_POINTS,
    accuracy_against_loss,
    collapse_linear_layers,
    learn_xor,
    saturated_gradients,
)
from dlfs_gpu.chapter4.experiments.overfitting import overfitting


@pytest.fixture(autouse=True)
def _one_blas_thread() -> Iterator[None]:
    """Keep test workers from fighting for the cores."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(params=["numpy", "cupy"])
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return get_backend(request.param)
    except BackendError as error:
        pytest.skip(str(error).splitlines()[0])


def test_truncation_falls_with_h_and_with_h_squared_until_rounding_rules(backend: Backend) -> None:
    steps, forward, central = difference_errors(backend)
    at = np.isclose(steps, 0.01).nonzero()[0][0]
    # Taylor: e^x has the relative errors h/2 and h²/6.
    assert forward[at] == pytest.approx(0.01 / 2, rel=0.01)
    assert central[at] == pytest.approx(0.01**2 / 6, rel=0.01)
    assert 1e-7 < steps[central.argmin()] < 1e-4
    assert steps[forward.argmin()] < steps[central.argmin()]


def test_differences_keep_the_digits_that_two_losses_lose(backend: Backend) -> None:
    single = gradient_errors([1e-4, 0.3], "float32", backend)
    assert single.difference[0] < 1e-6
    assert single.batched[0] > 0.05
    # At a large step both have the truncation error of the same finite difference.
    double = gradient_errors([0.3], "float64", backend)
    assert double.difference[0] == pytest.approx(double.batched[0], rel=1e-6)
    assert single.difference[1] == pytest.approx(double.difference[0], rel=1e-3)


def test_line_is_fitted_step_by_step(backend: Backend) -> None:
    fit = fit_line(backend)
    assert fit.path.shape == (1001, 2)
    assert fit.first_gradient == pytest.approx([-3, -1])
    assert fit.path[1] == pytest.approx([-0.7, 5.1])
    assert (fit.first_loss, fit_line(backend, steps=1).last_loss) == pytest.approx((2.5, 1.825))


def test_line_agrees_with_least_squares(backend: Backend) -> None:
    points = np.random.default_rng(0).normal(size=(20, 2))
    fit = fit_line(backend, points=points, lr=0.04, steps=500)
    assert fit.path[-1] == pytest.approx(np.polyfit(points[:, 0], points[:, 1], 1), abs=1e-8)


def test_optimizers_start_alike_and_leave_sgd_behind(backend: Backend) -> None:
    losses = compare_optimizers(backend)
    assert set(losses) == {"SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"}
    assert {loss.shape for loss in losses.values()} == {(500,)}
    first = [loss[0] for loss in losses.values()]
    assert first == pytest.approx([first[0]] * len(first), rel=1e-5)
    sgd = losses.pop("SGD")[-50:].mean()
    assert max(loss[-50:].mean() for loss in losses.values()) < sgd / 2


def test_xor_needs_a_hidden_layer(backend: Backend) -> None:
    network, accuracy, loss = learn_xor(0, backend)
    assert accuracy <= 0.75
    assert loss == pytest.approx(math.log(2), abs=1e-6)
    network, accuracy, loss = learn_xor(4, backend)
    assert accuracy == 1
    probabilities = backend.to_numpy(network.predict(backend.asarray(XOR_POINTS)))[:, 1]
    assert probabilities == pytest.approx([0, 1, 1, 0], abs=0.02)


def test_stacked_linear_layers_are_one(backend: Backend) -> None:
    assert collapse_linear_layers(backend) < 1e-12


def test_squared_error_teaches_a_saturated_sigmoid_nothing(backend: Backend) -> None:
    p = 1 / (1 + math.exp(10))
    assert saturated_gradients(backend) == pytest.approx(((p - 1) * p * (1 - p), p - 1))


def test_accuracy_is_a_staircase_and_loss_is_not(backend: Backend) -> None:
    result = accuracy_against_loss(backend)
    steps = np.diff(result.accuracies)
    assert np.count_nonzero(steps)
    assert np.count_nonzero(steps == 0) > 0.8 * len(steps)
    assert steps * 100 == pytest.approx(np.round(steps * 100))
    assert np.count_nonzero(np.diff(result.losses) == 0) == 0
    assert result.accuracy_slope == 0
    around = np.gradient(result.losses, result.changes)[len(result.changes) // 2]
    assert result.loss_slope == pytest.approx(around, rel=0.05)


def test_overfitting_and_what_helps(backend: Backend) -> None:
    result = overfitting(backend)
    plain = result.plain
    assert plain.train_accuracy > 0.98
    assert plain.train_loss[-1] < 0.1
    assert plain.kept_epoch == len(plain.val_loss) == 100
    assert plain.val_loss[-1] > 1.3 * plain.val_loss.min()
    for helped in (result.dropout, result.weight_decay):
        assert helped.val_loss[-1] < plain.val_loss[-1] - 0.2
        assert helped.val_accuracy[-1] > plain.val_accuracy[-1] + 0.03
        assert helped.train_loss[-1] > plain.train_loss[-1]
    stopped = result.early_stop
    assert len(stopped.val_loss) == stopped.kept_epoch + 10
    assert stopped.val_loss.argmin() == stopped.kept_epoch - 1
    assert stopped.val_loss == pytest.approx(plain.val_loss[: len(stopped.val_loss)], rel=1e-4)
