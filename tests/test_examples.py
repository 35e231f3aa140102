"""The worked examples, on each backend, against what theory says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from dlfs_gpu.backend import Backend, BackendError, get_backend
from dlfs_gpu.chapter4 import experiments
from dlfs_gpu.functions import function_2


@pytest.fixture(autouse=True)
def _one_blas_thread() -> Iterator[None]:
    """Keep test workers from fighting for the cores."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(params=["numpy", "cupy"])
def place(request: pytest.FixtureRequest) -> Backend:
    try:
        return get_backend(request.param)
    except BackendError as error:
        pytest.skip(str(error).splitlines()[0])


def test_truncation_error_falls_with_h_and_with_h_squared(place: Backend) -> None:
    result = experiments.forward_against_central([0.02, 0.01], backend=place)
    assert result.forward[0] / result.forward[1] == pytest.approx(2, rel=0.01)
    assert result.central[0] / result.central[1] == pytest.approx(4, rel=0.01)
    # Taylor: e^x has the relative errors h/2 and h²/6.
    assert result.forward[1] == pytest.approx(0.01 / 2, rel=0.01)
    assert result.central[1] == pytest.approx(0.01**2 / 6, rel=0.01)


def test_rounding_rules_small_steps_and_sooner_in_float32(place: Backend) -> None:
    double = experiments.forward_against_central(backend=place)
    assert 1e-7 < double.steps[double.central.argmin()] < 1e-4
    assert double.steps[double.forward.argmin()] < double.steps[double.central.argmin()]
    single = experiments.forward_against_central([1e-4], dtype="float32", backend=place)
    assert single.central[0] > 1000 * double.central[np.isclose(double.steps, 1e-4)][0]


def test_step_of_1e_50_is_lost_and_one_of_a_quarter_is_not(place: Backend) -> None:
    lost = experiments.lost_step(backend=place)
    assert (lost.moved, lost.slopes.tolist(), lost.h_in_float32) == (False, [0.0, 0.0], 0.0)
    kept = experiments.lost_step([5.0], h=0.25, backend=place)
    assert kept.moved
    assert kept.slopes == pytest.approx([0.2 + 0.01 * 0.25])
    assert kept.h_in_float32 == 0.25


@pytest.mark.parametrize("x", [(3.0, 4.0), (-1.0, 0.5), (0.0, -2.0)])
def test_no_direction_is_steeper_than_the_gradient(place: Backend, x: tuple[float, float]) -> None:
    result = experiments.steepest_ascent(x, 720, backend=place)
    length = np.linalg.norm(result.gradient)
    assert result.slopes.max() <= length * (1 + 1e-9)
    assert result.slopes.max() == pytest.approx(length, rel=1e-4)
    turn = result.steepest - result.gradient_angle
    assert abs(math.remainder(turn, math.tau)) <= math.pi / 720 + 1e-9
    # ∇f·u in every direction, and so zero across.
    expected = length * np.cos(result.angles - result.gradient_angle)
    np.testing.assert_allclose(result.slopes, expected, atol=1e-8)


def test_learning_rates_too_large_good_and_too_small(place: Backend) -> None:
    walks = experiments.learning_rates(backend=place)
    assert walks[10.0].values[-1] > 1e20
    assert walks[0.1].values[-1] < 1e-15
    assert walks[1e-10].values[-1] == pytest.approx(25, rel=1e-6)
    for walk in walks.values():
        assert walk.path.shape == (101, 2)
        assert walk.values[3] == pytest.approx(float(function_2(walk.path[3])))


@pytest.mark.parametrize("gradient", ["exact", "numerical"])
def test_linear_regression_finds_the_line(place: Backend, gradient: str) -> None:
    fit = experiments.linear_regression(gradient=gradient, backend=place)  # type: ignore[arg-type]
    assert fit.path[1] == pytest.approx([-0.7, 5.1])
    assert fit.losses[:2] == pytest.approx([2.5, 1.825])
    assert fit.path[-1] == pytest.approx([1.9999989, 1.0000018], abs=5e-8)


def test_linear_regression_agrees_with_least_squares(place: Backend) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 2))
    fit = experiments.linear_regression(points, lr=0.04, steps=500, backend=place)
    assert fit.path[-1] == pytest.approx(np.polyfit(points[:, 0], points[:, 1], 1), abs=1e-8)


@pytest.mark.parametrize(("factor", "converges"), [(0.99, True), (1.01, False)])
def test_linear_regression_is_stable_up_to_its_largest_rate(factor: float, converges: bool) -> None:
    rate = experiments.linear_regression(steps=0, backend="numpy").largest_rate
    assert rate == pytest.approx(0.29180, abs=5e-6)
    fit = experiments.linear_regression(lr=factor * rate, steps=2000, backend="numpy")
    assert (fit.losses[-1] < 1e-9) == converges


def test_linear_regression_refuses_another_gradient() -> None:
    with pytest.raises(ValueError, match="gradient is 'best'; it must be 'exact' or 'numerical'"):
        experiments.linear_regression(gradient="best")  # type: ignore[arg-type]


def test_optimizers_start_alike_and_leave_sgd_behind(place: Backend) -> None:
    losses = experiments.compare_optimizers(backend=place)
    assert set(losses) == {"SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"}
    assert {loss.shape for loss in losses.values()} == {(500,)}
    first = [loss[0] for loss in losses.values()]
    assert first == pytest.approx([first[0]] * len(first), rel=1e-5)
    sgd = losses.pop("SGD")[-50:].mean()
    assert max(loss[-50:].mean() for loss in losses.values()) < sgd / 2


def test_xor_needs_a_hidden_layer(place: Backend) -> None:
    line = experiments.xor(0, backend=place)
    assert line.accuracy <= 0.75
    assert line.losses[-1] == pytest.approx(math.log(2), abs=1e-6)
    assert line.probabilities == pytest.approx([0.5] * 4, abs=1e-3)
    hidden = experiments.xor(4, backend=place)
    assert hidden.accuracy == 1
    assert hidden.probabilities == pytest.approx([0, 1, 1, 0], abs=0.02)


def test_stacked_linear_layers_are_one(place: Backend) -> None:
    result = experiments.collapse_linear_layers((4, 6, 5, 3), 8, backend=place)
    assert (result.W.shape, result.b.shape) == ((4, 3), (3,))
    assert result.stacked.shape == (8, 3)
    np.testing.assert_allclose(result.single, result.stacked, rtol=1e-12, atol=1e-12)
    assert np.ptp(result.stacked) > 1


def test_squared_error_teaches_a_saturated_sigmoid_nothing(place: Backend) -> None:
    result = experiments.saturated_sigmoid(backend=place)
    assert result.squared_error == pytest.approx(-4.54e-5, abs=5e-8)
    assert result.cross_entropy == pytest.approx(-0.99995, abs=5e-6)
    z = np.array([[-2.0, 0.0], [1.0, 3.0]])
    p = 1 / (1 + np.exp(-z))
    several = experiments.saturated_sigmoid(z, t=0.0, backend=place)
    assert several.squared_error == pytest.approx(p * p * (1 - p))
    assert several.cross_entropy == pytest.approx(p)


def test_accuracy_is_a_staircase_and_loss_is_not(place: Backend) -> None:
    result = experiments.accuracy_against_loss(50, backend=place)
    steps = np.diff(result.accuracies)
    assert np.count_nonzero(steps)
    assert np.count_nonzero(steps == 0) > 0.9 * len(steps)
    assert steps * 50 == pytest.approx(np.round(steps * 50))
    assert np.count_nonzero(np.diff(result.losses) == 0) == 0
    assert result.accuracy_slope == 0
    around = np.gradient(result.losses, result.changes)[len(result.changes) // 2]
    assert result.loss_slope == pytest.approx(around, rel=0.05)


def test_differences_keep_the_digits_that_two_losses_lose(place: Backend) -> None:
    single = experiments.gradient_errors([1e-4, 0.3], backend=place)
    assert single.difference[0] < 1e-6
    assert single.evaluated[0] > 0.05
    # At a large step both have the truncation error of the same finite difference.
    double = experiments.gradient_errors([0.3], dtype="float64", backend=place)
    assert double.difference[0] == pytest.approx(double.evaluated[0], rel=1e-6)
    assert single.difference[1] == pytest.approx(double.difference[0], rel=1e-3)


def test_overfitting_and_what_helps(place: Backend) -> None:
    result = experiments.overfitting(backend=place)
    plain = result.plain
    assert plain.train_accuracy[-1] > 0.98
    assert plain.train_loss[-1] < 0.1
    assert plain.val_loss[-1] > 1.3 * plain.val_loss.min()
    for helped in (result.dropout, result.weight_decay):
        assert helped.val_loss[-1] < plain.val_loss[-1] - 0.2
        assert helped.val_accuracy[-1] > plain.val_accuracy[-1] + 0.03
        assert helped.train_loss[-1] > plain.train_loss[-1]


def test_early_stopping_keeps_the_best_weights_it_saw() -> None:
    result = experiments.overfitting(epochs=60, patience=5, backend="numpy")
    stop = result.early_stop
    assert stop.stopped_epoch == stop.best_epoch + 5
    seen = result.plain.val_loss[: stop.stopped_epoch + 1]
    assert seen.argmin() == stop.best_epoch
    assert stop.val_loss == pytest.approx(seen.min(), rel=1e-4)
    assert stop.val_accuracy > result.plain.val_accuracy[-1]


def test_same_seed_same_result() -> None:
    first, again, other = (experiments.xor(seed=seed, backend="numpy") for seed in (1, 1, 2))
    assert first.losses.tolist() == again.losses.tolist()
    assert first.losses.tolist() != other.losses.tolist()
