"""The chapter's figures. Each function returns a matplotlib `Figure`, and none touches pyplot.

Arrays are NumPy's. Figures take matplotlib's current style; that of the report is
`dlfs_gpu.training.curves.style`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlfs_gpu.training.curves import COLOURS, draw_accuracies, draw_losses, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SQUARE = (5.2, 5.0)


def loss_curve(losses: ArrayLike) -> Figure:
    """Draw the loss of each update, and its mean over blocks of updates."""
    figure, axes = new_figure()
    draw_losses(axes, losses)
    return figure


def accuracy_curve(
    epochs: ArrayLike, train_accuracy: ArrayLike, test_accuracy: ArrayLike
) -> Figure:
    """Draw accuracy against epoch, training solid and test dashed."""
    figure, axes = new_figure()
    draw_accuracies(axes, epochs, train_accuracy, test_accuracy, xlabel="epoch")
    return figure


def lines(
    x: ArrayLike,
    curves: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    **axes_settings: Any,
) -> Figure:
    """Draw curves over one axis.

    Parameters
    ----------
    x : array_like, shape (K,)
    curves : mapping of str to array_like, shape (K,)
        By the name for the legend, which is left out for a single curve. The first is solid, so
        that it shows through the gaps of one that lies on it.
    xlabel, ylabel : str
    **axes_settings
        For ``Axes.set``: ``yscale="log"``, ``ylim=(0, 1)``, ``title=...``.
    """
    figure, axes = new_figure()
    _draw_lines(axes, x, curves)
    axes.set(xlabel=xlabel, ylabel=ylabel, **axes_settings)
    return figure


def stacked(x: ArrayLike, panels: Mapping[str, Mapping[str, ArrayLike]], *, xlabel: str) -> Figure:
    """Draw panels above each other over one axis.

    Parameters
    ----------
    x : array_like, shape (K,)
    panels : mapping of str to mapping of str to array_like, shape (K,)
        The label of each panel's axis, and its curves by their names.
    xlabel : str
    """
    figure, rows = new_figure((5.6, 5.0), rows=len(panels))
    for axes, (ylabel, curves) in zip(rows, panels.items(), strict=True):
        _draw_lines(axes, x, curves)
        axes.set(ylabel=ylabel)
    rows[-1].set(xlabel=xlabel)
    figure.align_ylabels()
    return figure


def tangents(
    x: NDArray[Any], y: NDArray[Any], tangent_lines: Mapping[float, NDArray[Any]], title: str
) -> Figure:
    """Draw a curve with tangents: `tangent_lines` maps each point of contact to a line over `x`."""
    figure, axes = new_figure()
    axes.plot(x, y, label="f(x)")
    for at, line in tangent_lines.items():
        (drawn,) = axes.plot(x, line, "--", label=f"tangent at {at:g}")
        axes.plot([at], [np.interp(at, x, y)], "o", color=drawn.get_color())
    axes.set(xlabel="x", ylabel="f(x)", title=title, ylim=(min(-1.2, y.min()), y.max()))
    axes.legend()
    return figure


def secant(
    x: NDArray[Any],
    y: NDArray[Any],
    tangent: NDArray[Any],
    points: tuple[tuple[float, float], tuple[float, float]],
) -> Figure:
    """Draw a curve, its tangent at the first of two points, and the secant through both."""
    figure, axes = new_figure()
    (x0, y0), (x1, y1) = points
    slope = (y1 - y0) / (x1 - x0)
    axes.plot(x, y, label="f(x)")
    axes.plot(x, tangent, "--", label="true tangent at x")
    axes.plot(x, y0 + slope * (x - x0), "-.", label="secant through x and x + h")
    axes.plot([x0, x1], [y0, y1], "o", color=COLOURS[3])
    for name, at, height in (("x", x0, y0), ("x + h", x1, y1)):
        axes.annotate(name, (at, height), (-6, 8), textcoords="offset points", ha="right")
    axes.set(xlabel="x", ylabel="f(x)")
    axes.legend()
    return figure


def surface(x0: NDArray[Any], x1: NDArray[Any], values: NDArray[Any]) -> Figure:
    """Draw a function of two variables over a grid, each array (M, N)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axes: Any = figure.add_subplot(projection="3d")
    axes.plot_surface(x0, x1, values, cmap="viridis", alpha=0.9)
    axes.set(xlabel="x0", ylabel="x1")
    axes.set_zlabel("f(x)", labelpad=8)
    axes.set_box_aspect(None, zoom=0.9)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((0.5, 0.5, 0.5, 0.08))
    return figure


def field(x: NDArray[Any], directions: NDArray[Any]) -> Figure:
    """Draw the arrows `directions` (K, 2) at the points `x` (K, 2)."""
    figure, axes = new_figure(SQUARE)
    axes.quiver(*x.T, *directions.T, angles="xy", color=COLOURS[0])
    axes.set(xlabel="x0", ylabel="x1", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
    return figure


def descent_path(path: NDArray[Any]) -> Figure:
    """Draw a walk (K, 2) down x0² + x1² among the function's contours."""
    figure, axes = new_figure(SQUARE)
    x0, x1 = np.meshgrid(np.linspace(-3.5, 3.5, 141), np.linspace(-4.5, 4.5, 181))
    contours = axes.contour(
        x0, x1, x0**2 + x1**2, levels=[1, 4, 9, 16], colors=COLOURS[5], linestyles="--"
    )
    axes.clabel(contours, fontsize="small")
    axes.plot(*path.T, "o-", markersize=5, linewidth=0.8)
    axes.set(xlabel="x0", ylabel="x1", xlim=(-3.5, 3.5), ylim=(-4.5, 4.5), aspect="equal")
    return figure


def line_fit_path(
    m: NDArray[Any], b: NDArray[Any], values: NDArray[Any], paths: Mapping[str, NDArray[Any]]
) -> Figure:
    """Draw a loss over slope and intercept of a line, (B, M), and two walks (K, 2) down it."""
    figure, axes = new_figure(SQUARE)
    levels = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300]
    filled = axes.contourf(m, b, np.clip(values, 0.01, 300), levels, norm="log", cmap="viridis")
    for (name, path), colour in zip(paths.items(), ("#ffffff", COLOURS[1]), strict=True):
        axes.plot(*path.T, ".-", color=colour, label=name, linewidth=1.2)
    figure.colorbar(filled, ax=axes, label="½Σ(y − ŷ)²", format="%g", shrink=0.85)
    axes.set(xlabel="slope m", ylabel="intercept b")
    axes.legend(facecolor="#404652", labelcolor="#ffffff")
    return figure


def decision_regions(
    axis: NDArray[Any], probabilities: Mapping[str, NDArray[Any]], points: ArrayLike, t: ArrayLike
) -> Figure:
    """Draw the probability of the answer 1 over a square, and points whose answers are known.

    Parameters
    ----------
    axis : array, shape (K,)
        Both sides of the square.
    probabilities : mapping of str to array, shape (K, K)
        One panel for each, titled by its key.
    points, t : array_like, shapes (P, 2) and (P,)
        The points, and the right answers, 0 or 1.
    """
    figure, panels = new_figure((5.6, 3.2), columns=len(probabilities))
    where, labels = np.asarray(points), np.asarray(t)
    for axes, (title, values) in zip(panels, probabilities.items(), strict=True):
        image = axes.contourf(axis, axis, values, np.linspace(0, 1, 11), cmap="RdBu_r")
        marks = [
            axes.plot(
                *where[labels == label].T, marker, color="#ffffff", markeredgecolor="#1d2127",
                markersize=9, label=f"right answer {label}",
            )[0]
            for label, marker in ((0, "o"), (1, "s"))
        ]  # fmt: skip
        axes.set(xlabel="x0", title=title, aspect="equal", xticks=(0, 1), yticks=(0, 1))
        axes.grid(visible=False)
    panels[0].set_ylabel("x1")
    figure.colorbar(image, ax=panels, label="probability of 1", shrink=0.7, ticks=(0, 0.5, 1))
    figure.legend(handles=marks, loc="outside lower center", ncols=2)
    return figure


def overfitting_pair(
    train_loss: NDArray[Any], val_loss: NDArray[Any], best_epoch: int, stopped_epoch: int
) -> Figure:
    """Draw training and validation loss drifting apart, and where early stopping stops.

    Parameters
    ----------
    train_loss, val_loss : array, shape (epochs,)
        Of the epochs 1, 2, ...
    best_epoch, stopped_epoch : int
        The epoch whose weights were kept, and the last before training stopped.
    """
    figure, axes = new_figure()
    epochs = np.arange(1, len(train_loss) + 1)
    axes.plot(epochs, train_loss, label="training")
    axes.plot(epochs, val_loss, "--", label="validation")
    axes.plot(best_epoch, val_loss[best_epoch - 1], "o", color=COLOURS[3], label="weights kept")
    axes.axvline(stopped_epoch, color=COLOURS[5], linestyle=":", label="training stopped")
    axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    axes.legend()
    return figure


def _draw_lines(axes: Axes, x: ArrayLike, curves: Mapping[str, ArrayLike]) -> None:
    dashes = itertools.cycle(("-", "--", "-.", ":"))
    for (name, y), dash in zip(curves.items(), dashes, strict=False):
        axes.plot(x, y, linestyle=dash, label=name)
    if len(curves) > 1:
        axes.legend()
