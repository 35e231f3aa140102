"""What the sources print, what is right, and why."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dlfs_gpu.chapter4 import experiments
from dlfs_gpu.chapter4.model import Between, Row, Section, Setting, to_host
from dlfs_gpu.chapter4.sections.faults import faults
from dlfs_gpu.chapter4.sections.networks import FIRST_W, SECOND_W, THIRD_W
from dlfs_gpu.chapter4.sections.training import share_seen
from dlfs_gpu.data import load_digits
from dlfs_gpu.functions import (
    binary_cross_entropy_error,
    function_1,
    function_2,
    mean_squared_error,
    sum_squared_error,
)
from dlfs_gpu.gradient import gradient_descent, numerical_diff, numerical_gradient
from dlfs_gpu.models import SimpleNet, TwoLayerNet
from dlfs_gpu.training import Trainer


def errata(setting: Setting) -> Section:
    """Return the mistakes of the notes, of the slide deck, and of the book's code."""
    return Section(
        "Errata",
        "What the sources print, what is right, and why. The last ones are faults of the book's "
        "code that are not repeated here.",
        [
            *_losses(setting),
            *_derivatives(setting),
            *_descent(setting),
            *_slides(setting),
            *faults(setting),
        ],
    )


def _losses(setting: Setting) -> list[Row]:
    array = setting.array
    y1 = array([0.1, 0.05, 0.6, 0, 0.05, 0.1, 0, 0.1, 0, 0])
    t = array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])

    def divided_by_zero() -> Any:
        with np.errstate(divide="raise", over="ignore"):
            return np.log(np.float64(0))

    def without_delta() -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return -setting.backend.xp.sum(t * setting.backend.xp.log(y1))

    return [
        Row(
            "mean squared error of y1",
            0.0195,
            lambda: mean_squared_error(y1, t),
            1e-15,
            "a true mean divides by the 10 elements; half the sum is no mean",
            "0.0975, under the name of mean squared error",
        ),
        Row(
            "y and t of different lengths",
            ValueError,
            lambda: sum_squared_error(y1[:8], t),
            note="the shapes must be the same",
            printed="arrays with 8 or 9 elements beside others with 10",
        ),
        Row(
            "log 0",
            FloatingPointError,
            divided_by_zero,
            note="it divides by zero and gives −∞; overflow is something else",
            printed="“log 0 overflows”",
        ),
        Row(
            "cross entropy of y1 without the 1e-7, over all classes",
            math.nan,
            without_delta,
            note="0·(−∞) is not a number, where y has a 0: that is what the 1e-7 is for",
            printed="a formula without it",
        ),
        Row(
            "binary cross entropy, t = 1, p = 0.6",
            0.5108256237659907,
            lambda: binary_cross_entropy_error(array(0.6), array(1)),
            1e-15,
            "−(t·log p + (1 − t)·log(1 − p)): the minus belongs to the whole sum",
            "brackets that do not match",
        ),
    ]


def _derivatives(setting: Setting) -> list[Row]:
    array = setting.array

    def slopes(f: Any, x: Any, **options: Any) -> Any:
        return numerical_diff(f, array(x), **options)

    def angle_to_minimum() -> float:
        x = np.array([3.0, 4.0])
        weights = array([1.0, 4.0])
        gradient = np.asarray(
            to_host(numerical_gradient(lambda x: setting.backend.xp.sum(weights * x**2), array(x)))
        )
        cosine = gradient @ x / np.linalg.norm(gradient) / np.linalg.norm(x)
        return float(np.degrees(np.arccos(cosine)))

    return [
        Row(
            "10e-50",
            1e-49,
            lambda: 10e-50,
            note="ten times 1e-50; either is lost in rounding",
            printed="h = 10e-50, called 1e-50",
        ),
        Row(
            "central differences at 5 and 10",
            [0.1999999999990898, 0.2999999999986347],
            lambda: slopes(function_1, [5, 10], nominal_step=True),
            setting.digits(1e-10),
            "all sixteen digits",
            "one digit short",
        ),
        Row(
            "slopes of 0.01x² + 0.1x at 5 and 10",
            [0.2, 0.3],
            lambda: slopes(function_1, [5, 10]),
            1e-11,
            "0.02x + 0.1",
            "2.0 and 3.0",
        ),
        Row(
            "slope at 3 of the square of x",
            6.0,
            lambda: slopes(lambda x: x**2, 3),
            1e-9,
            "x*2 doubles, and has the slope 2 everywhere; the square is x**2",
            "y = x*2",
        ),
        Row(
            "angle between −∇f and the way to the minimum, degrees",
            26.25,
            angle_to_minimum,
            0.005,
            "of x0² + 4x1² at (3, 4). −∇f is the direction of steepest descent; only where "
            "the contours are circles does it point at the minimum",
            "“the gradient points at the minimum”",
        ),
    ]


def _descent(setting: Setting) -> list[Row]:
    array = setting.array

    def value_after_step(sign: float) -> Any:
        x = array([-3, 4])
        return function_2(x + sign * 0.1 * numerical_gradient(function_2, x))

    def nearest_scores() -> float:
        printed = np.array([-0.26373067, -0.61762066, -0.97157332])
        x = array([0.6, 0.9])
        scores = [
            np.asarray(to_host(SimpleNet(W, backend=setting.backend).predict(x)))
            for W in (FIRST_W, SECOND_W, THIRD_W)
        ]
        return float(min(np.abs(found - printed).max() for found in scores))

    return [
        Row(
            "x0² + x1² after a step along the gradient, and against it",
            [36.0, 16.0],
            lambda: [value_after_step(1), value_after_step(-1)],
            1e-9,
            "from 25 at (−3, 4), lr 0.1: downhill is against the gradient",
            "“update along the gradient”",
        ),
        Row(
            "descent with lr = 1e-10: x0 after 100 steps",
            -2.999999939999995,
            lambda: gradient_descent(function_2, array([-3, 4]), 1e-10)[0][0],
            setting.digits(1e-9),
            "100 steps of 1e-10·6 make 6e-8",
            "-2.9999994",
        ),
        Row(
            "scores beside the first W: distance from those of any W given",
            Between(low=0.5),
            nearest_scores,
            note="they come from another run: no W printed there gives them",
            printed="[-0.26373067, -0.61762066, -0.97157332]",
        ),
        Row(
            "share of the data that an epoch sees",
            1 - math.exp(-1),
            share_seen,
            0.005,
            "batches are drawn with replacement: 1 − 1/e",
            "“an epoch sees all data once”",
        ),
    ]


def _slides(setting: Setting) -> list[Row]:
    def fit(**options: Any) -> experiments.LinearRegression:
        return experiments.linear_regression(backend=setting.backend, **options)

    def stop_on_test_data() -> Any:
        (x, t), test = load_digits(backend=setting.backend)
        network = TwoLayerNet(64, 10, 10, backend=setting.backend)
        return Trainer(network, x, t, *test, patience=5, verbose=False)

    return [
        Row(
            "regression: gradient at m = −1, b = 5",
            [-3, -1],
            lambda: fit(steps=0).first_gradient,
            1e-12,
            "each point counts once",
            "(−7, −3)",
        ),
        Row(
            "regression: where the slide's gradient comes from",
            [-7, -3],
            lambda: fit(points=((1, 3), (2, 5), (2, 5)), steps=0).first_gradient,
            1e-12,
            "the point (2, 5) counted twice",
            "(−7, −3)",
        ),
        Row(
            "regression: first step",
            [-0.7, 5.1],
            lambda: fit(steps=1).path[1],
            1e-12,
            "the step subtracts λ times the gradient; for m the slide adds it, uphill",
            "(−1.7, 5.3)",
        ),
        Row(
            "regression: ½Σ(y − ŷ)² after it",
            1.825,
            lambda: fit(steps=1).losses[1],
            1e-12,
            "down from 2.5",
            "(−1.7, 5.3), where it is 4.985",
        ),
        Row(
            "regression: ½Σ(y − ŷ)² at the slide's point",
            4.985,
            lambda: fit(start=(-1.7, 5.3), steps=0).losses[0],
            1e-12,
            "uphill from 2.5",
            "(−1.7, 5.3), as a step down",
        ),
        Row(
            "early stopping without validation data",
            ValueError,
            stop_on_test_data,
            note="data that decided when to stop cannot test any more: hold some training data out",
            printed="early stopping on the test data",
        ),
    ]
