"""Numerical differentiation, gradients and gradient descent (sections 4.3 and 4.4)."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

import dlfs_gpu as d
from dlfs_gpu._validation import Array
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.model import Between, Check, Plot, golden_tolerance, section
from dlfs_gpu.gradient import Scheme
from dlfs_gpu.training.curves import COLOURS, new_figure


@section(
    "4.3 Numerical differentiation",
    "The slope of f(x) = 0.01x² + 0.1x by finite differences, and slopes of activations. Where a "
    "difference is divided by 2h, as the chapter does, its digits are the chapter's to the last "
    "one.",
)
def derivatives(backend: d.Backend) -> Iterator[Check | Plot]:
    """Yield the numbers and figures of section 4.3."""
    array = functools.partial(backend.asarray, dtype="float64")
    tolerance = golden_tolerance(backend, 1e-10)

    def diff(f: Any, at: Any, h: float = 1e-4, scheme: Scheme = "central") -> Array:
        return d.numerical_diff(f, array(at), h, scheme=scheme, nominal_step=True)

    def tangent(at: float) -> list[float]:
        line = d.tangent_line(d.function_1, at)
        return [line(1.0) - line(0.0), line(0.0)]

    yield Check(
        "forward difference at 5 and 10, h = 1e-50",
        [0.0, 0.0],
        diff(d.function_1, [5, 10], 1e-50, "forward"),
        note="x + h is x: rounding swallows the step. In float32 1e-50 itself is 0",
        mistake="the notes: h = 10e-50 beside 1e-50 for the same step; 10e-50 is 1e-49",
    )
    yield Check(
        "central and forward difference at 5 and 10, h = 1e-4",
        [[0.1999999999990898, 0.2999999999986347], [0.20000099999917254, 0.3000009999976072]],
        [diff(d.function_1, [5, 10]), diff(d.function_1, [5, 10], scheme="forward")],
        tolerance,
        "the central one is printed",
        printed_in="book 4.3.2",
        mistake="the notes: one digit short",
    )
    yield Check(
        "central difference at 5 and 10, divided by the step that rounding left",
        [0.2, 0.3],
        d.numerical_diff(d.function_1, array([5, 10])),
        2e-12,
        "the true slopes, 0.02x + 0.1",
        printed_in="book 4.3.2",
        mistake="the notes: 2.0 and 3.0",
    )
    yield Check(
        "x² at 0, forward and central, h = 1e-4",
        [1e-4, 0.0],
        [diff(lambda x: x**2, 0, scheme="forward"), diff(lambda x: x**2, 0)],
        1e-18,
        "h against 0",
        mistake="the notes: y = x*2 for x², which is x**2",
    )
    yield Check(
        "tangents at 5 and 10: slope, and value at 0",
        [[0.2, -0.25], [0.3, -1.0]],
        [tangent(5.0), tangent(10.0)],
        1e-11,
        "y = 0.2x − 0.25 and y = 0.3x − 1",
    )
    yield Check(
        "partial derivatives of x0² + x1² at (3, 4)",
        [6.00000000000378, 7.999999999999119],
        [diff(lambda x0: x0**2 + 4.0**2, 3), diff(lambda x1: 3.0**2 + x1**2, 4)],
        tolerance,
        printed_in="book 4.3.3",
    )
    yield Plot(
        "tangents",
        "The chapter's function and its tangents at 5 and 10, with numerical slopes.",
        _tangents,
    )
    yield Plot(
        "secant",
        "The true tangent at x, and the line through x and x + h whose slope the forward "
        "difference gives. h is large here, to be seen.",
        _secant,
    )

    steps = np.logspace(-12, 0, 61)
    x = array(np.linspace(-2, 2, 9))
    exact = (np.sin(2 * x) - 2 * x * np.sin(x) ** 2) * np.exp(-(x**2))
    norm = backend.xp.linalg.vector_norm

    def wave(x: Array) -> Array:
        return np.sum(np.sin(x) ** 2 * np.exp(-(x**2)))

    def errors(method: Literal["loop", "difference"], dtype: str) -> list[float]:
        at = backend.asarray(x, dtype)
        gradients = [
            d.numerical_gradient(wave, at, h, method=method, nominal_step=True)
            for h in steps.tolist()
        ]
        return [float(norm(gradient - exact) / norm(exact)) for gradient in gradients]

    curves = {
        f"{method}, {dtype}": errors(method, dtype)
        for method in ("loop", "difference")
        for dtype in ("float32", "float64")
    }
    yield Plot(
        "errors-against-h",
        "How far central differences of Σ sin²x·exp(−x²) are from its gradient, against h. The "
        "chapter's loop meets truncation on the right and rounding on the left; with "
        "method='difference' no digits are lost, and no step is too small.",
        lambda: figures.draw(
            steps, {"relative error": curves}, xlabel="h", xscale="log", yscale="log"
        ),
    )

    def first_flat(dtype: str) -> int:
        s = d.sigmoid(backend.asarray(range(50), dtype))
        return int(np.argmax(backend.to_numpy((1 - s) * s) == 0))

    yield Check(
        "slope of the sigmoid, sigmoid_grad, at 0 and at 37",
        [0.25, 8.533047625744066e-17],
        d.sigmoid_grad(array([0, 37])),
        1e-31,
        "nowhere 0 in theory; e^−37 at 37, computed without the subtraction in (1 − σ)σ",
    )
    yield Check(
        "first whole z at which (1 − σ)σ is 0, in float64 and in float32",
        [37, 17],
        [first_flat("float64"), first_flat("float32")],
        note="where σ rounds to 1",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ends = d.sigmoid(array([-1000, 1000]))
    yield Check(
        "sigmoid of −1000 and 1000, warnings being errors",
        [0.0, 1.0],
        ends,
        mistake="the book's code: a warning, because exp(1000) overflows",
    )
    yield Check(
        "slope of the step function at −1 and 1",
        [0.0, 0.0],
        d.numerical_diff(d.step_function, array([-1, 1])),
        note="0 everywhere but at 0: why networks use the sigmoid",
    )
    z = np.linspace(-6, 6, 1201)
    panels = {
        "output": {"sigmoid": d.sigmoid(z), "step": d.step_function(z)},
        "slope": {"sigmoid: never 0": d.sigmoid_grad(z), "step: 0 except at 0": np.zeros_like(z)},
    }
    yield Plot(
        "step-and-sigmoid",
        "Step function and sigmoid, and their slopes.",
        lambda: figures.draw(z, panels, xlabel="x"),
    )


def _tangents() -> Figure:
    figure, axes = new_figure()
    x = np.arange(0.0, 20.0, 0.1)
    axes.plot(x, d.function_1(x), label="f(x)")
    for at in (5.0, 10.0):
        line = d.tangent_line(d.function_1, at)
        (drawn,) = axes.plot(x, line(x), "--", label=f"tangent at {at:g}")
        axes.plot([at], [d.function_1(at)], "o", color=drawn.get_color())
    axes.set(xlabel="x", ylabel="f(x)", title="f(x) = 0.01x² + 0.1x", ylim=(-1.2, 6))
    axes.legend()
    return figure


def _secant() -> Figure:
    figure, axes = new_figure()
    x, start, end = np.arange(0.0, 20.0, 0.1), 5.0, 13.0
    y0, y1 = d.function_1(start), d.function_1(end)
    axes.plot(x, d.function_1(x), label="f(x)")
    axes.plot(x, d.tangent_line(d.function_1, start)(x), "--", label="true tangent at x")
    secant = y0 + (y1 - y0) / (end - start) * (x - start)
    axes.plot(x, secant, "-.", label="secant through x and x + h")
    axes.plot([start, end], [y0, y1], "o", color=COLOURS[3])
    for name, at, height in (("x", start, y0), ("x + h", end, y1)):
        axes.annotate(name, (at, height), (-6, 8), textcoords="offset points", ha="right")
    axes.set(xlabel="x", ylabel="f(x)")
    axes.legend()
    return figure


@section(
    "4.4 Gradients",
    "All partial derivatives of f(x) = x0² + x1² at once. The gradient is the direction of "
    "steepest ascent, and against it lies that of steepest descent.",
)
def gradients(backend: d.Backend) -> Iterator[Check | Plot]:
    """Yield the numbers and figures of section 4.4 but for those of its subsections."""
    points = [backend.asarray(point) for point in ([3.0, 4.0], [0.0, 2.0], [3.0, 0.0])]
    yield Check(
        "gradients at (3, 4), (0, 2) and (3, 0)",
        [[6.00000000000378, 7.999999999999119], [0, 4.000000000004], [6.000000000012662, 0]],
        [d.numerical_gradient(d.function_2, point, nominal_step=True) for point in points],
        golden_tolerance(backend, 1e-10),
        "the book prints them rounded: (6, 8), (0, 4) and (6, 0)",
    )
    yield Check(
        "gradient at the integers (3, 4)",
        [6.0, 8.0],
        d.numerical_gradient(d.function_2, backend.asarray([3, 4])),
        1e-8,
        "integers are promoted first: they cannot hold 3 + 1e-4",
        mistake="the book's code: [25000, 35000]",
    )
    weights = backend.asarray([1.0, 4.0])
    slopes = d.numerical_gradient(lambda x: backend.xp.sum(weights * x**2), points[0])
    lengths = [backend.xp.linalg.vector_norm(vector) for vector in (slopes, points[0])]
    yield Check(
        "angle between −∇f and the way to the minimum, degrees",
        26.25,
        math.degrees(math.acos(slopes @ points[0] / math.prod(lengths))),
        0.005,
        "of x0² + 4x1² at (3, 4). −∇f is the direction of steepest descent; it points at the "
        "minimum where the contours are circles",
        mistake="the notes: the gradient points at the minimum",
    )
    yield Plot("surface", "f(x) = x0² + x1².", _surface)
    axis = np.arange(-2, 2.5, 0.25)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    downhill = -d.numerical_gradient(
        lambda x: backend.xp.sum(x**2, axis=(1, 2)), backend.asarray(grid), method="batched"
    )

    def field() -> Figure:
        figure, axes = new_figure(figures.SQUARE)
        axes.quiver(*grid.T, *backend.to_numpy(downhill).T, angles="xy", color=COLOURS[0])
        axes.set(xlabel="x0", ylabel="x1", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
        return figure

    yield Plot(
        "gradient-field",
        "−∇f of x0² + x1², by numerical gradients: at every point the direction of steepest "
        "descent, and as long as f is steep.",
        field,
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


@section(
    "4.4.1 Gradient descent",
    "x ← x − lr·∇f(x) on x0² + x1², from (−3, 4), with numerical gradients.",
)
def descent(backend: d.Backend) -> Iterator[Check | Plot]:
    """Yield the numbers and figures of section 4.4.1."""
    start = backend.asarray([-3.0, 4.0])
    slope = d.numerical_gradient(d.function_2, start)
    # The positions from the start on, (101, 2), by learning rate.
    walks = {
        lr: d.gradient_descent(d.function_2, start, lr, 100)[1] for lr in (10.0, 0.1, 1e-10, 0.01)
    }
    tolerance = golden_tolerance(backend, 1e-9)
    yield Check(
        "x0² + x1² after a step along the gradient, and against it",
        [36.0, 16.0],
        [d.function_2(start + sign * 0.1 * slope) for sign in (1, -1)],
        1e-9,
        "from 25, with lr = 0.1: downhill is against the gradient",
        mistake="the notes: “update along the gradient”",
    )
    yield Check(
        "lr = 0.1, 20 and 100 steps",
        [
            [-0.03458764513817675, 0.04611686018418694],
            [-6.111107928998789e-10, 8.148143905314271e-10],
        ],
        [walks[0.1][20], walks[0.1][100]],
        tolerance,
        "the first 20 are the path below",
        printed_in="book 4.4.1, rounded",
    )
    # At so large a rate x ± 1e-4 rounds back to x past 2^44 or so, the differences become 0, and
    # the walk stands still: where, is a matter of the last bit.
    golden = [-2.5898374737328363e13, -1.2952486168965398e12]
    if backend.name == "numpy":
        yield Check("lr = 10, 100 steps", golden, walks[10.0][-1], printed_in="book 4.4.1, rounded")
    else:
        yield Check(
            "lr = 10, 100 steps: distance from the minimum",
            Between(low=1e10),
            backend.xp.linalg.vector_norm(walks[10.0][-1]),
            note=f"the book prints NumPy's {golden}, rounded",
        )
    yield Check(
        "lr = 1e-10, 100 steps",
        [-2.999999939999995, 3.9999999199999934],
        walks[1e-10][-1],
        tolerance,
        "100 steps of 1e-10·6 make 6e-8: hardly a move",
        printed_in="book 4.4.1, rounded",
        mistake="the notes: -2.9999994",
    )
    yield Check("lr = 0.01, 100 steps", [-0.397858667684, 0.530478223578], walks[0.01][-1], 5e-13)

    def path() -> Figure:
        figure, axes = new_figure(figures.SQUARE)
        x0, x1 = np.meshgrid(np.linspace(-3.5, 3.5, 141), np.linspace(-4.5, 4.5, 181))
        contours = axes.contour(
            x0, x1, x0**2 + x1**2, levels=[1, 4, 9, 16], colors=COLOURS[5], linestyles="--"
        )
        axes.clabel(contours, fontsize="small")
        axes.plot(*backend.to_numpy(walks[0.1][:21]).T, "o-", markersize=5, linewidth=0.8)
        axes.set(xlabel="x0", ylabel="x1", xlim=(-3.5, 3.5), ylim=(-4.5, 4.5), aspect="equal")
        return figure

    yield Plot(
        "descent-path",
        "Twenty steps at learning rate 0.1, among the contours of x0² + x1².",
        path,
    )
    values = {
        f"lr = {lr:g}": np.sum(backend.to_numpy(walks[lr]) ** 2, axis=1)
        for lr in (10.0, 0.1, 1e-10)
    }
    yield Plot(
        "learning-rates",
        "The same descent at three learning rates: too large, it leaps ever farther away until "
        "the numerical gradient drowns in rounding; too small, it does not move.",
        lambda: figures.draw(range(101), {"f(x)": values}, xlabel="step", yscale="log"),
    )
