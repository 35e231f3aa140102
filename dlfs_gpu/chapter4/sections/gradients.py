"""Gradients and gradient descent (section 4.4)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import Backend
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.model import Between, Check, Plot, Section, golden_tolerance
from dlfs_gpu.functions import function_2
from dlfs_gpu.gradient import gradient_descent, numerical_gradient

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradients(backend: Backend) -> Section:
    """Return the numbers and figures of section 4.4 but for those of its subsections."""
    array = functools.partial(backend.asarray, dtype="float64")

    def gradient(x: list[float]) -> Array:
        return numerical_gradient(function_2, array(x), nominal_step=True)

    def angle_to_minimum() -> float:
        x, weights = np.array([3.0, 4.0]), array([1.0, 4.0])
        gradient = backend.to_numpy(
            numerical_gradient(lambda x: backend.xp.sum(weights * x**2), array(x))
        )
        cosine = gradient @ x / np.linalg.norm(gradient) / np.linalg.norm(x)
        return float(np.degrees(np.arccos(cosine)))

    def field() -> Figure:
        axis = np.arange(-2, 2.5, 0.25)
        points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        slopes = numerical_gradient(
            lambda x: backend.xp.sum(x**2, axis=(1, 2)), array(points), method="batched"
        )
        return figures.field(points, -backend.to_numpy(slopes))

    def surface() -> Figure:
        axis = np.linspace(-3, 3, 61)
        x0, x1 = np.meshgrid(axis, axis)
        return figures.surface(x0, x1, x0**2 + x1**2)

    return Section(
        "4.4 Gradients",
        "All partial derivatives of f(x) = x0² + x1² at once. The gradient is the direction of "
        "steepest ascent, and against it lies that of steepest descent.",
        [
            Check(
                "gradients at (3, 4), (0, 2) and (3, 0)",
                [
                    [6.00000000000378, 7.999999999999119],
                    [0.0, 4.000000000004],
                    [6.000000000012662, 0.0],
                ],
                lambda: [gradient([3, 4]), gradient([0, 2]), gradient([3, 0])],
                golden_tolerance(backend, 1e-10),
                "the book prints them rounded: (6, 8), (0, 4) and (6, 0)",
            ),
            Check(
                "gradient at the integers (3, 4)",
                [6.0, 8.0],
                lambda: numerical_gradient(function_2, backend.asarray([3, 4])),
                1e-8,
                "integers are promoted first: they cannot hold 3 + 1e-4",
                mistake="the book's code: [25000, 35000]",
            ),
            Check(
                "angle between −∇f and the way to the minimum, degrees",
                26.25,
                angle_to_minimum,
                0.005,
                "of x0² + 4x1² at (3, 4). −∇f is the direction of steepest descent; it points at "
                "the minimum where the contours are circles",
                mistake="the notes: the gradient points at the minimum",
            ),
            Plot("surface", "f(x) = x0² + x1².", surface),
            Plot(
                "gradient-field",
                "−∇f of x0² + x1², by numerical gradients: at every point the direction of "
                "steepest descent, and as long as f is steep.",
                field,
            ),
        ],
    )


def descent(backend: Backend) -> Section:
    """Return the numbers and figures of section 4.4.1."""
    array = functools.partial(backend.asarray, dtype="float64")
    tolerance = golden_tolerance(backend, 1e-9)

    def walk(lr: float, steps: int = 100) -> Array:
        """Return the positions from the start on, (steps + 1, 2)."""
        return gradient_descent(function_2, array([-3, 4]), lr, steps)[1]

    def step_along(sign: float) -> Array:
        x = array([-3, 4])
        return function_2(x + sign * 0.1 * numerical_gradient(function_2, x))

    def rates() -> Figure:
        values = {
            f"lr = {lr:g}": np.sum(backend.to_numpy(walk(lr)) ** 2, axis=1)
            for lr in (10.0, 0.1, 1e-10)
        }
        return figures.lines(np.arange(101), values, xlabel="step", ylabel="f(x)", yscale="log")

    return Section(
        "4.4.1 Gradient descent",
        "x ← x − lr·∇f(x) on x0² + x1², from (−3, 4), with numerical gradients.",
        [
            Check(
                "x0² + x1² after a step along the gradient, and against it",
                [36.0, 16.0],
                lambda: [step_along(1), step_along(-1)],
                1e-9,
                "from 25, with lr = 0.1: downhill is against the gradient",
                mistake="the notes: “update along the gradient”",
            ),
            Check(
                "lr = 0.1, 100 steps",
                [-6.111107928998789e-10, 8.148143905314271e-10],
                lambda: walk(0.1)[-1],
                tolerance,
                printed_in="book 4.4.1, rounded",
            ),
            _too_large_a_rate(backend),
            Check(
                "lr = 1e-10, 100 steps",
                [-2.999999939999995, 3.9999999199999934],
                lambda: walk(1e-10)[-1],
                tolerance,
                "100 steps of 1e-10·6 make 6e-8: hardly a move",
                printed_in="book 4.4.1, rounded",
                mistake="the notes: -2.9999994",
            ),
            Check(
                "lr = 0.1, 20 steps",
                [-0.03458764513817675, 0.04611686018418694],
                lambda: walk(0.1, 20)[-1],
                tolerance,
                "the path below",
            ),
            Check(
                "lr = 0.01, 100 steps",
                [-0.397858667684, 0.530478223578],
                lambda: walk(0.01)[-1],
                5e-13,
            ),
            Plot(
                "descent-path",
                "Twenty steps at learning rate 0.1, among the contours of x0² + x1².",
                lambda: figures.descent_path(backend.to_numpy(walk(0.1, 20))),
            ),
            Plot(
                "learning-rates",
                "The same descent at three learning rates: too large, it leaps ever farther away "
                "until the numerical gradient drowns in rounding; too small, it does not move.",
                rates,
            ),
        ],
    )


def _too_large_a_rate(backend: Backend) -> Check:
    def end() -> Array:
        return gradient_descent(function_2, backend.asarray([-3.0, 4.0]), 10.0)[0]

    # Past 2^44 or so x ± 1e-4 rounds back to x, the differences become 0, and the walk stands
    # still: where, is a matter of the last bit.
    golden = [-2.5898374737328363e13, -1.2952486168965398e12]
    if backend.name == "numpy":
        return Check("lr = 10, 100 steps", golden, end, printed_in="book 4.4.1, rounded")
    return Check(
        "lr = 10, 100 steps: distance from the minimum",
        Between(low=1e10),
        lambda: backend.xp.linalg.vector_norm(end()),
        note=f"the book prints NumPy's {golden}, rounded",
    )
