"""Gradients and gradient descent (section 4.4)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.chapter4 import experiments, figures
from dlfs_gpu.chapter4.model import Between, Plot, Row, Section, Setting, to_host
from dlfs_gpu.functions import function_2
from dlfs_gpu.gradient import gradient_descent, numerical_gradient

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradients(setting: Setting) -> Section:
    """Return the numbers and figures of section 4.4."""
    array, place = setting.array, setting.backend
    digits = setting.digits(1e-10)

    def gradient(x: Any) -> Array:
        return numerical_gradient(function_2, array(x), nominal_step=True)

    @functools.cache
    def around() -> experiments.SteepestAscent:
        return experiments.steepest_ascent(backend=place)

    def single_precision(h: float | None) -> float:
        x = place.asarray([3.0, 4.0], "float32")
        found = np.asarray(to_host(numerical_gradient(function_2, x, h)))
        return float(np.linalg.norm(found - [6, 8]) / 10)

    def field() -> Figure:
        axis = np.arange(-2, 2.5, 0.25)
        points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        stacked = numerical_gradient(
            lambda x: place.xp.sum(x**2, axis=(1, 2)), array(points), method="batched"
        )
        return figures.field(points, -place.to_numpy(stacked))

    def surface() -> Figure:
        axis = np.linspace(-3, 3, 61)
        x0, x1 = np.meshgrid(axis, axis)
        return figures.surface(x0, x1, x0**2 + x1**2)

    return Section(
        "Gradients",
        "All partial derivatives of f(x) = x0² + x1² at once. The gradient is the direction of "
        "steepest ascent, and against it lies that of steepest descent.",
        [
            Row(
                "gradient at (3, 4)",
                [6.00000000000378, 7.999999999999119],
                lambda: gradient([3, 4]),
                digits,
            ),
            Row("gradient at (0, 2)", [0.0, 4.000000000004], lambda: gradient([0, 2]), digits),
            Row("gradient at (3, 0)", [6.000000000012662, 0.0], lambda: gradient([3, 0]), digits),
            Row(
                "the same at (3, 4), all points at once",
                [6.0, 8.0],
                lambda: numerical_gradient(
                    lambda x: place.xp.sum(x**2, axis=1), array([3, 4]), method="batched"
                ),
                1e-10,
                'method="batched": f sees all moved copies stacked',
            ),
            Row(
                "greatest slope in any direction at (3, 4)",
                10.0,
                lambda: around().slopes.max(),
                1e-3,
                "the length of the gradient (6, 8); 360 directions",
            ),
            Row("least slope there", -10.0, lambda: around().slopes.min(), 1e-3),
            Row(
                "angle between gradient and steepest direction, degrees",
                0.0,
                lambda: np.degrees(around().steepest - around().gradient_angle),
                0.5,
                "to half the spacing of the directions",
            ),
            Row(
                "error in float32 with h = 1e-4",
                Between(low=1e-4),
                lambda: single_precision(1e-4),
                note="the chapter's h is too small for float32",
            ),
            Row(
                "error in float32 with the step for it",
                Between(high=1e-6),
                lambda: single_precision(None),
                note="2⁻⁷",
            ),
            Plot("surface", "f(x) = x0² + x1².", surface),
            Plot(
                "gradient-field",
                "−∇f of x0² + x1², by numerical gradients: at every point the direction of "
                "steepest descent, and as long as f is steep.",
                field,
            ),
            Plot(
                "slopes-by-direction",
                "Slope of x0² + x1² at (3, 4) in every direction. It is greatest in that of the "
                "gradient, at 53°, and zero across it.",
                lambda: figures.lines(
                    np.degrees(around().angles),
                    {"slope": around().slopes},
                    xlabel="direction, degrees",
                    ylabel="slope",
                    xticks=range(-180, 181, 60),
                ),
            ),
        ],
    )


def descent(setting: Setting) -> Section:
    """Return the numbers and figures of section 4.4.1."""
    array, place = setting.array, setting.backend
    digits = setting.digits(1e-9)

    def end(lr: float, steps: int = 100) -> Array:
        return gradient_descent(function_2, array([-3, 4]), lr, steps)[0]

    # Past 2^44 or so x ± 1e-4 rounds back to x, the differences become 0, and the walk stands
    # still: where, is a matter of the last bit.
    golden = [-2.5898374737328363e13, -1.2952486168965398e12]
    if place.name == "numpy":
        diverged = Row("lr = 10, 100 steps", golden, lambda: end(10.0))
    else:
        diverged = Row(
            "lr = 10, 100 steps: distance from the minimum",
            Between(low=1e10),
            lambda: place.xp.linalg.vector_norm(end(10.0)),
            note=f"{golden} is golden for NumPy in float64 only",
        )

    def rates() -> Figure:
        walks = experiments.learning_rates(backend=place)
        return figures.lines(
            np.arange(101),
            {f"lr = {lr:g}": walk.values for lr, walk in walks.items()},
            xlabel="step",
            ylabel="f(x)",
            yscale="log",
        )

    return Section(
        "Gradient descent",
        "x ← x − lr·∇f(x) on x0² + x1², from (−3, 4), with numerical gradients.",
        [
            Row(
                "lr = 0.1, 100 steps",
                [-6.111107928998789e-10, 8.148143905314271e-10],
                lambda: end(0.1),
                digits,
            ),
            Row(
                "the same, exactly",
                [-3 * 0.8**100, 4 * 0.8**100],
                lambda: end(0.1),
                1e-12,
                "each step multiplies by 1 − 2·lr = 0.8",
            ),
            diverged,
            Row(
                "lr = 1e-10, 100 steps",
                [-2.999999939999995, 3.9999999199999934],
                lambda: end(1e-10),
                digits,
                "too small a rate: hardly a move",
            ),
            Row(
                "lr = 0.1, 20 steps",
                [-0.03458764513817675, 0.04611686018418694],
                lambda: end(0.1, 20),
                digits,
                "the path below",
            ),
            Row(
                "lr = 0.01, 100 steps", [-0.397858667684, 0.530478223578], lambda: end(0.01), 5e-13
            ),
            Plot(
                "descent-path",
                "Twenty steps at learning rate 0.1, among the contours of x0² + x1².",
                lambda: figures.descent_path(
                    experiments.learning_rates([0.1], steps=20, backend=place)[0.1].path
                ),
            ),
            Plot(
                "learning-rates",
                "The same descent at three learning rates: too large, it leaps ever farther away "
                "until the numerical gradient drowns in rounding; too small, it does not move.",
                rates,
            ),
        ],
    )
