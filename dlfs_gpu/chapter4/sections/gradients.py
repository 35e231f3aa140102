"""Gradients and gradient descent (section 4.4)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import dlfs_gpu as d
from dlfs_gpu._validation import Array
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.model import Between, Check, Plot, Section, golden_tolerance
from dlfs_gpu.training.curves import COLOURS, new_figure


def gradients(backend: d.Backend) -> Section:
    """Return the numbers and figures of section 4.4 but for those of its subsections."""
    array = functools.partial(backend.asarray, dtype="float64")

    def gradient(x: list[float]) -> Array:
        return d.numerical_gradient(d.function_2, array(x), nominal_step=True)

    def angle_to_minimum() -> float:
        x, weights = np.array([3.0, 4.0]), array([1.0, 4.0])
        slopes = d.numerical_gradient(lambda x: backend.xp.sum(weights * x**2), array(x))
        gradient = backend.to_numpy(slopes)
        cosine = gradient @ x / np.linalg.norm(gradient) / np.linalg.norm(x)
        return float(np.degrees(np.arccos(cosine)))

    def field() -> Figure:
        axis = np.arange(-2, 2.5, 0.25)
        points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        slopes = d.numerical_gradient(
            lambda x: backend.xp.sum(x**2, axis=(1, 2)), array(points), method="batched"
        )
        figure, axes = new_figure(figures.SQUARE)
        axes.quiver(*points.T, *-backend.to_numpy(slopes).T, angles="xy", color=COLOURS[0])
        axes.set(xlabel="x0", ylabel="x1", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
        return figure

    return Section(
        "4.4 Gradients",
        "All partial derivatives of f(x) = x0² + x1² at once. The gradient is the direction of "
        "steepest ascent, and against it lies that of steepest descent.",
        [
            Check(
                "gradients at (3, 4), (0, 2) and (3, 0)",
                [
                    [6.00000000000378, 7.999999999999119],
                    [0, 4.000000000004],
                    [6.000000000012662, 0],
                ],
                lambda: [gradient([3, 4]), gradient([0, 2]), gradient([3, 0])],
                golden_tolerance(backend, 1e-10),
                "the book prints them rounded: (6, 8), (0, 4) and (6, 0)",
            ),
            Check(
                "gradient at the integers (3, 4)",
                [6.0, 8.0],
                lambda: d.numerical_gradient(d.function_2, backend.asarray([3, 4])),
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
            Plot("surface", "f(x) = x0² + x1².", _surface),
            Plot(
                "gradient-field",
                "−∇f of x0² + x1², by numerical gradients: at every point the direction of "
                "steepest descent, and as long as f is steep.",
                field,
            ),
        ],
    )


def _surface() -> Figure:
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axes: Any = figure.add_subplot(projection="3d")
    x0, x1 = np.meshgrid(np.linspace(-3, 3, 61), np.linspace(-3, 3, 61))
    axes.plot_surface(x0, x1, x0**2 + x1**2, cmap="viridis", alpha=0.9)
    axes.set(xlabel="x0", ylabel="x1")
    axes.set_zlabel("f(x)", labelpad=8)
    axes.set_box_aspect(None, zoom=0.9)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((0.5, 0.5, 0.5, 0.08))
    return figure


def descent(backend: d.Backend) -> Section:
    """Return the numbers and figures of section 4.4.1."""
    start = backend.asarray([-3.0, 4.0])
    tolerance = golden_tolerance(backend, 1e-9)

    def walk(lr: float) -> Array:
        """Return the positions from the start on, (101, 2)."""
        return d.gradient_descent(d.function_2, start, lr, 100)[1]

    def step_along(sign: float) -> Array:
        return d.function_2(start + sign * 0.1 * d.numerical_gradient(d.function_2, start))

    def path() -> Figure:
        figure, axes = new_figure(figures.SQUARE)
        x0, x1 = np.meshgrid(np.linspace(-3.5, 3.5, 141), np.linspace(-4.5, 4.5, 181))
        contours = axes.contour(
            x0, x1, x0**2 + x1**2, levels=[1, 4, 9, 16], colors=COLOURS[5], linestyles="--"
        )
        axes.clabel(contours, fontsize="small")
        axes.plot(*backend.to_numpy(walk(0.1)[:21]).T, "o-", markersize=5, linewidth=0.8)
        axes.set(xlabel="x0", ylabel="x1", xlim=(-3.5, 3.5), ylim=(-4.5, 4.5), aspect="equal")
        return figure

    def rates() -> Figure:
        values = {
            f"lr = {lr:g}": np.sum(backend.to_numpy(walk(lr)) ** 2, axis=1)
            for lr in (10.0, 0.1, 1e-10)
        }
        return figures.draw(np.arange(101), {"f(x)": values}, xlabel="step", yscale="log")

    # At so large a rate x ± 1e-4 rounds back to x past 2^44 or so, the differences become 0, and
    # the walk stands still: where, is a matter of the last bit.
    golden = [-2.5898374737328363e13, -1.2952486168965398e12]
    if backend.name == "numpy":
        too_large = Check(
            "lr = 10, 100 steps", golden, lambda: walk(10.0)[-1], printed_in="book 4.4.1, rounded"
        )
    else:
        too_large = Check(
            "lr = 10, 100 steps: distance from the minimum",
            Between(low=1e10),
            lambda: backend.xp.linalg.vector_norm(walk(10.0)[-1]),
            note=f"the book prints NumPy's {golden}, rounded",
        )
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
                "lr = 0.1, 20 and 100 steps",
                [
                    [-0.03458764513817675, 0.04611686018418694],
                    [-6.111107928998789e-10, 8.148143905314271e-10],
                ],
                lambda: [walk(0.1)[20], walk(0.1)[100]],
                tolerance,
                "the first 20 are the path below",
                printed_in="book 4.4.1, rounded",
            ),
            too_large,
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
                "lr = 0.01, 100 steps",
                [-0.397858667684, 0.530478223578],
                lambda: walk(0.01)[-1],
                5e-13,
            ),
            Plot(
                "descent-path",
                "Twenty steps at learning rate 0.1, among the contours of x0² + x1².",
                path,
            ),
            Plot(
                "learning-rates",
                "The same descent at three learning rates: too large, it leaps ever farther away "
                "until the numerical gradient drowns in rounding; too small, it does not move.",
                rates,
            ),
        ],
    )
