"""The chapter's figures. Each function returns a matplotlib `Figure`, and none touches pyplot.

Arrays are NumPy's (`Backend.to_numpy` brings them). Figures take matplotlib's current style;
``with style():`` gives them that of the chapter's report.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlfs_gpu._files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (5.6, 3.7)
_SQUARE = (5.2, 5.0)
_DPI = 180

# Strong enough against white and against black.
_COLOURS = ("#2f7fd1", "#e0762a", "#2f9e6e", "#d6455d", "#8b6fc9", "#8a8d93")
_STYLES = ("-", "--", "-.", ":")
_LIGHT = {"ink": "#1d2127", "paper": "#ffffff", "grid": "#dcdfe4"}
_DARK = {"ink": "#dfe3ea", "paper": "#15181d", "grid": "#383d46"}


@contextlib.contextmanager
def style(*, dark: bool = False) -> Iterator[None]:
    """Draw figures in the style of the chapter's report inside a ``with`` block.

    Parameters
    ----------
    dark : bool
        Light ink on dark paper, instead of dark on light.
    """
    import matplotlib as mpl
    from cycler import cycler

    colours = _DARK if dark else _LIGHT
    ink, paper, grid = colours["ink"], colours["paper"], colours["grid"]
    settings: Any = {
        "axes.axisbelow": True,
        "axes.edgecolor": ink,
        "axes.facecolor": paper,
        "axes.grid": True,
        "axes.labelcolor": ink,
        "axes.prop_cycle": cycler(color=_COLOURS),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": "medium",
        "figure.facecolor": paper,
        "font.size": 11,
        "grid.color": grid,
        "grid.linewidth": 0.7,
        "legend.fontsize": "small",
        "legend.framealpha": 0.85,
        "legend.edgecolor": grid,
        "lines.linewidth": 1.8,
        "savefig.facecolor": paper,
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
    }
    with mpl.rc_context(settings):
        yield


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def plot_curves(
    losses: ArrayLike,
    iterations: Sequence[int],
    train_accuracy: Sequence[float],
    test_accuracy: Sequence[float],
    path: str | os.PathLike[str],
) -> None:
    """Draw loss and accuracies of a training, as the chapter does, and write them as a PNG.

    Parameters
    ----------
    losses : array_like, shape (updates,)
        Loss of each update.
    iterations : sequence of int
        Updates done before each evaluation.
    train_accuracy, test_accuracy : sequence of float
        Accuracies at these; the second may be empty.
    path : path
        Where to; an existing file stays whole until it is replaced.
    """
    with style(), whole_file(path) as part:
        figure, (left, right) = _figure((10, 3.8), columns=2)
        _draw_losses(left, losses)
        _draw_accuracies(right, iterations, train_accuracy, test_accuracy)
        part.write_bytes(png(figure))


def plot_confusion_matrix(
    matrix: ArrayLike, classes: Sequence[Any], path: str | os.PathLike[str]
) -> None:
    """Draw a confusion matrix and write it as a PNG; see `confusion_matrix`."""
    with style(), whole_file(path) as part:
        part.write_bytes(png(confusion_matrix(matrix, classes)))


def loss_curve(losses: ArrayLike) -> Figure:
    """Draw the loss of each update, and its mean over blocks of updates."""
    figure, axes = _figure()
    _draw_losses(axes, losses)
    return figure


def accuracy_curve(
    epochs: ArrayLike, train_accuracy: ArrayLike, test_accuracy: ArrayLike
) -> Figure:
    """Draw accuracy against epoch, training solid and test dashed, from 0 to 1."""
    figure, axes = _figure()
    _draw_accuracies(axes, epochs, train_accuracy, test_accuracy, "epoch")
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
        By the name for the legend, which is left out for a single curve.
    xlabel, ylabel : str
    **axes_settings
        For ``Axes.set``: ``yscale="log"``, ``ylim=(0, 1)``, ``title=...``.
    """
    figure, axes = _figure()
    for (name, y), line in zip(curves.items(), itertools.cycle(_STYLES), strict=False):
        axes.plot(x, y, line, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel, **axes_settings)
    if len(curves) > 1:
        axes.legend()
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
    figure, rows = _figure((5.6, 5.0), rows=len(panels))
    for axes, (ylabel, curves) in zip(rows, panels.items(), strict=True):
        for (name, y), line in zip(curves.items(), itertools.cycle(_STYLES), strict=False):
            axes.plot(x, y, line, label=name)
        axes.set(ylabel=ylabel)
        if len(curves) > 1:
            axes.legend()
    rows[-1].set(xlabel=xlabel)
    return figure


def tangents(
    x: NDArray[Any], y: NDArray[Any], tangent_lines: Mapping[float, NDArray[Any]], title: str
) -> Figure:
    """Draw a curve with tangents: `tangent_lines` maps each point of contact to a line over `x`."""
    figure, axes = _figure()
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
    figure, axes = _figure()
    (x0, y0), (x1, y1) = points
    slope = (y1 - y0) / (x1 - x0)
    axes.plot(x, y, label="f(x)")
    axes.plot(x, tangent, "--", label="true tangent at x")
    axes.plot(x, y0 + slope * (x - x0), "-.", label="secant through x and x + h")
    axes.plot([x0, x1], [y0, y1], "o", color=_COLOURS[3])
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
    figure, axes = _figure(_SQUARE)
    axes.quiver(*x.T, *directions.T, angles="xy", color=_COLOURS[0])
    axes.set(xlabel="x0", ylabel="x1", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
    return figure


def descent_path(path: NDArray[Any]) -> Figure:
    """Draw a walk (K, 2) down x0² + x1² among the function's contours."""
    figure, axes = _figure(_SQUARE)
    x0, x1 = np.meshgrid(np.linspace(-3.5, 3.5, 141), np.linspace(-4.5, 4.5, 181))
    contours = axes.contour(
        x0, x1, x0**2 + x1**2, levels=[1, 4, 9, 16], colors=_COLOURS[5], linestyles="--"
    )
    axes.clabel(contours, fontsize="small")
    axes.plot(*path.T, "o", markersize=5)
    axes.set(xlabel="x0", ylabel="x1", xlim=(-3.5, 3.5), ylim=(-4.5, 4.5), aspect="equal")
    return figure


def line_fit_path(
    m: NDArray[Any], b: NDArray[Any], values: NDArray[Any], paths: Mapping[str, NDArray[Any]]
) -> Figure:
    """Draw a loss over slope and intercept of a line, (B, M), and walks (K, 2) down it."""
    figure, axes = _figure(_SQUARE)
    levels = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300]
    filled = axes.contourf(m, b, np.clip(values, 0.01, 300), levels, norm="log", cmap="viridis")
    colours = ("#ffffff", _COLOURS[1])
    for (name, path), colour in zip(paths.items(), colours, strict=False):
        axes.plot(*path.T, ".-", color=colour, label=name, linewidth=1.2)
    figure.colorbar(filled, ax=axes, label="½Σ(y − ŷ)²", format="%g", shrink=0.85)
    axes.set(xlabel="slope m", ylabel="intercept b")
    axes.legend(facecolor="#404652", labelcolor="#ffffff")
    return figure


def decision_regions(
    axis: NDArray[Any], probabilities: Mapping[str, NDArray[Any]], points: ArrayLike, t: ArrayLike
) -> Figure:
    """Draw the probability of class 1 over the square `axis` × `axis`, and points of two classes.

    Parameters
    ----------
    axis : array, shape (K,)
    probabilities : mapping of str to array, shape (K, K)
        One panel for each, titled by its key.
    points, t : array_like, shapes (P, 2) and (P,)
    """
    figure, panels = _figure((5.6, 3.3), columns=len(probabilities))
    where, labels = np.asarray(points), np.asarray(t)
    for axes, (title, values) in zip(panels, probabilities.items(), strict=True):
        image = axes.contourf(axis, axis, values, np.linspace(0, 1, 11), cmap="RdBu_r")
        for label, marker in ((0, "o"), (1, "s")):
            axes.plot(
                *where[labels == label].T, marker, color="#ffffff", markeredgecolor="#1d2127",
                markersize=9, label=f"class {label}",
            )  # fmt: skip
        axes.set(xlabel="x0", title=title, aspect="equal", xticks=(0, 1), yticks=(0, 1))
        axes.grid(visible=False)
    panels[0].set_ylabel("x1")
    figure.colorbar(image, ax=panels, label="probability of 1", shrink=0.7, ticks=(0, 0.5, 1))
    return figure


def overfitting_pair(
    train_loss: NDArray[Any], val_loss: NDArray[Any], best_epoch: int, stopped_epoch: int
) -> Figure:
    """Draw training and validation loss drifting apart, and where early stopping stops."""
    figure, axes = _figure()
    axes.plot(train_loss, label="training")
    axes.plot(val_loss, "--", label="validation")
    axes.plot(best_epoch, val_loss[best_epoch], "o", color=_COLOURS[3], label="weights kept")
    axes.axvline(stopped_epoch, color=_COLOURS[5], linestyle=":", label="training stopped")
    axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    axes.legend()
    return figure


def confusion_matrix(matrix: ArrayLike, classes: Sequence[Any]) -> Figure:
    """Draw a confusion matrix.

    Parameters
    ----------
    matrix : array_like of int, shape (C, C)
        How many samples of each class (rows) got which answer (columns).
    classes : sequence, length C
        Their names.
    """
    counts = np.asarray(matrix)
    side = max(4.6, 0.42 * len(classes) + 1)
    figure, axes = _figure((side, side))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "#ffffff" if shares[row, column] > 0.5 else "#1d2127"
            axes.text(
                column, row, str(count), ha="center", va="center", color=colour, fontsize="x-small"
            )
    ticks = np.arange(len(classes))
    axes.set_xticks(ticks, [str(name) for name in classes])
    axes.set_yticks(ticks, [str(name) for name in classes])
    axes.set(xlabel="answer", ylabel="truth")
    axes.grid(visible=False)
    return figure


def _figure(
    size: tuple[float, float] = _SIZE, rows: int = 1, columns: int = 1
) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, sharex=rows > 1)


def _draw_losses(axes: Axes, losses: ArrayLike) -> None:
    values = np.asarray(losses)
    if len(values) < 200:
        axes.plot(values, marker=".", label="each update")
    else:
        # Means over blocks, each drawn at its middle: a hundred of them, the rest cut off.
        block = len(values) // 100
        means = values[: len(values) // block * block].reshape(-1, block).mean(axis=1)
        middles = block * (np.arange(len(means)) + 0.5)
        axes.plot(values, linewidth=0.5, alpha=0.45, label="each update")
        axes.plot(middles, means, color=_COLOURS[1], label=f"mean of {block}")
    axes.set(xlabel="iteration", ylabel="loss", ylim=(0, None))
    axes.legend()


def _draw_accuracies(
    axes: Axes,
    at: ArrayLike,
    train_accuracy: ArrayLike,
    test_accuracy: ArrayLike,
    xlabel: str = "iteration",
) -> None:
    axes.plot(at, train_accuracy, label="training")
    if len(np.asarray(test_accuracy)):
        axes.plot(at, test_accuracy, "--", label="test")
    axes.set(xlabel=xlabel, ylabel="accuracy", ylim=(0, 1))
    axes.locator_params(axis="x", integer=True)
    axes.legend(loc="lower right")
