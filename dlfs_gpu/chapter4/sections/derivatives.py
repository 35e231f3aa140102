"""Derivatives (section 4.3)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.chapter4 import experiments, figures
from dlfs_gpu.chapter4.model import Between, Plot, Row, Section, Setting
from dlfs_gpu.functions import function_1, sigmoid, sigmoid_grad, step_function
from dlfs_gpu.gradient import numerical_diff, tangent_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def derivatives(setting: Setting) -> Section:
    """Return the numbers and figures of section 4.3."""
    array, place = setting.array, setting.backend
    digits = setting.digits(1e-10)
    x = np.arange(0.0, 20.0, 0.1)

    def diff(f: Any, points: Any, h: float = 1e-4, scheme: Any = "central") -> Array:
        return numerical_diff(f, array(points), h, scheme=scheme, nominal_step=True)

    def book_slope(z: float, dtype: str) -> Array:
        s = sigmoid(place.asarray(z, dtype))
        return (1 - s) * s

    @functools.cache
    def errors() -> experiments.DifferenceErrors:
        return experiments.forward_against_central(backend=place)

    def error_ratio(scheme: str) -> float:
        halved = experiments.forward_against_central((0.01, 0.005), backend=place)
        first, second = getattr(halved, scheme)
        return float(first / second)

    return Section(
        "Derivatives",
        "The slope of f(x) = 0.01x² + 0.1x by finite differences. Digits are the chapter's to the "
        "last one where it divides by 2h; they are 0.2 and 0.3 but for rounding.",
        [
            Row(
                "forward difference at 5 and 10, h = 1e-50",
                [0.0, 0.0],
                lambda: experiments.lost_step(backend=place).slopes,
                note="x + h is x: rounding swallows the step",
            ),
            Row("1e-50 in float32", 0.0, lambda: experiments.lost_step(backend=place).h_in_float32),
            Row(
                "central difference at 5 and 10, h = 1e-4",
                [0.1999999999990898, 0.2999999999986347],
                lambda: diff(function_1, [5, 10]),
                digits,
            ),
            Row(
                "forward difference at 5 and 10, h = 1e-4",
                [0.20000099999917254, 0.3000009999976072],
                lambda: diff(function_1, [5, 10], scheme="forward"),
                digits,
            ),
            Row(
                "divided by the step that rounding left",
                [0.2, 0.3],
                lambda: numerical_diff(function_1, array([5, 10])),
                2e-12,
                "what numerical_diff does unless told otherwise",
            ),
            Row(
                "x² at 0, forward, h = 1e-4",
                1e-4,
                lambda: diff(lambda x: x**2, 0, scheme="forward"),
                1e-18,
                "h instead of 0",
            ),
            Row("x² at 0, central, h = 1e-4", 0.0, lambda: diff(lambda x: x**2, 0)),
            Row(
                "tangent at 5: slope, and value at 0",
                [0.2, -0.25],
                lambda: _line(tangent_line(function_1, 5.0)),
                1e-11,
                "y = 0.2x − 0.25",
            ),
            Row(
                "tangent at 10: slope, and value at 0",
                [0.3, -1.0],
                lambda: _line(tangent_line(function_1, 10.0)),
                1e-11,
                "y = 0.3x − 1",
            ),
            Row(
                "∂f/∂x0 of x0² + x1² at (3, 4)",
                6.00000000000378,
                lambda: diff(lambda x0: x0**2 + 4.0**2, 3),
                digits,
            ),
            Row(
                "∂f/∂x1 of x0² + x1² at (3, 4)",
                7.999999999999119,
                lambda: diff(lambda x1: 3.0**2 + x1**2, 4),
                digits,
            ),
            Row(
                "h halved: the forward error falls by a factor of",
                2.0,
                lambda: error_ratio("forward"),
                0.01,
                "e^x at 1: truncation in proportion to h",
            ),
            Row(
                "h halved: the central error falls by a factor of",
                4.0,
                lambda: error_ratio("central"),
                0.01,
                "in proportion to h²",
            ),
            Row(
                "best forward error over all h",
                Between(1e-11, 1e-7),
                lambda: errors().forward.min(),
            ),
            Row(
                "best central error over all h",
                Between(1e-15, 1e-9),
                lambda: errors().central.min(),
            ),
            Row("slope of the sigmoid at 0", 0.25, lambda: sigmoid_grad(array(0.0))),
            Row(
                "(1 − σ)σ at 37, float64",
                0.0,
                lambda: book_slope(37.0, "float64"),
                note="in theory the slope is nowhere 0",
            ),
            Row(
                "(1 − σ)σ at 36, float64",
                Between(1e-17, 1e-15),
                lambda: book_slope(36.0, "float64"),
            ),
            Row("(1 − σ)σ at 17, float32", 0.0, lambda: book_slope(17.0, "float32")),
            Row(
                "(1 − σ)σ at 16, float32", Between(1e-8, 1e-6), lambda: book_slope(16.0, "float32")
            ),
            Row(
                "sigmoid_grad at 37",
                8.533047625744066e-17,
                lambda: sigmoid_grad(array(37.0)),
                1e-31,
                "e^−37: computed without the subtraction",
            ),
            Row(
                "slope of the step function at −1 and 1",
                [0.0, 0.0],
                lambda: diff(step_function, [-1, 1]),
                note="0 everywhere but at 0: why networks use the sigmoid",
            ),
            Plot(
                "tangents",
                "The chapter's function and its tangents at 5 and 10, with numerical slopes.",
                lambda: figures.tangents(
                    x,
                    function_1(x),
                    {at: tangent_line(function_1, at)(x) for at in (5.0, 10.0)},
                    "f(x) = 0.01x² + 0.1x",
                ),
            ),
            Plot(
                "secant",
                "The true tangent at x, and the line through x and x + h whose slope the forward "
                "difference gives. h is large here, to be seen.",
                lambda: figures.secant(
                    x,
                    function_1(x),
                    tangent_line(function_1, 5.0)(x),
                    ((5.0, function_1(5.0)), (13.0, function_1(13.0))),
                ),
            ),
            Plot(
                "difference-errors",
                "Error of forward and central differences of e^x at 1, by the step. Right: "
                "truncation, which falls with h or h². Left: rounding, which grows as h shrinks.",
                lambda: figures.lines(
                    errors().steps,
                    {"forward": errors().forward, "central": errors().central},
                    xlabel="step h",
                    ylabel="relative error",
                    xscale="log",
                    yscale="log",
                ),
            ),
            Plot(
                "step-and-sigmoid",
                "Step function and sigmoid, and their slopes.",
                lambda: _step_and_sigmoid(),
            ),
        ],
    )


def _line(line: Any) -> list[float]:
    """Return slope and intercept of a line."""
    return [float(line(1.0) - line(0.0)), float(line(0.0))]


def _step_and_sigmoid() -> Figure:
    x = np.linspace(-6, 6, 241)
    return figures.stacked(
        x,
        {
            "output": {"sigmoid": sigmoid(x), "step": step_function(x)},
            "slope": {"sigmoid: never 0": sigmoid_grad(x), "step: 0, but at 0": np.zeros_like(x)},
        },
        xlabel="x",
    )
