"""Curves of a training as a figure, and the style of all figures.

Figures are matplotlib's `Figure`, and nothing here touches pyplot.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dlfs_gpu.files import whole_file
from dlfs_gpu.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Strong enough against white and against black.
COLOURS = ("#2f7fd1", "#e0762a", "#2f9e6e", "#d6455d", "#8b6fc9", "#8a8d93")
# Ink, paper and grid.
_LIGHT = ("#1d2127", "#ffffff", "#dcdfe4")
_DARK = ("#dfe3ea", "#15181d", "#383d46")
# More points than this cannot be told apart.
_POINTS = 300


@contextlib.contextmanager
def style(*, dark: bool = False) -> Iterator[None]:
    """Draw figures in the project's style inside a ``with`` block, on light paper or dark.

    The user's settings, such as LaTeX for all text, are put aside.
    """
    import matplotlib.style
    from cycler import cycler

    ink, paper, grid = _DARK if dark else _LIGHT
    settings: Any = {
        "axes.axisbelow": True,
        "axes.edgecolor": ink,
        "axes.facecolor": paper,
        "axes.grid": True,
        "axes.labelcolor": ink,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.facecolor": paper,
        "font.size": 11,
        "grid.color": grid,
        "legend.fontsize": "small",
        "lines.linewidth": 1.8,
        "savefig.facecolor": paper,
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
    }
    with matplotlib.style.context(["default", settings]):
        yield


def new_figure(
    size: tuple[float, float] = (5.6, 3.7), rows: int = 1, columns: int = 1
) -> tuple[Figure, Any]:
    """Return a figure of a size in inches, and its axes as `Figure.subplots` gives them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, sharex=rows > 1)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=180)
    return buffer.getvalue()


def plot_curves(history: History, path: str | os.PathLike[str]) -> None:
    """Draw loss and accuracies of a training, as the chapter does, and write them as a PNG.

    An existing file stays whole until it is replaced.
    """
    with style(), whole_file(path) as part:
        figure, (left, right) = new_figure((10, 3.8), columns=2)
        draw_losses(left, history.losses)
        draw_accuracies(right, history.iterations, history.train_accuracy, history.test_accuracy)
        part.write_bytes(png(figure))


def draw_losses(axes: Axes, losses: ArrayLike) -> None:
    """Draw the loss of each update, and of 200 or more its mean over a hundred blocks."""
    values = np.asarray(losses)
    if len(values) < 200:
        axes.plot(values, marker=".", label="each update")
    else:
        # Each mean is drawn at the middle of its block; what is left over has none.
        block = len(values) // 100
        means = values[: len(values) // block * block].reshape(-1, block).mean(axis=1)
        middles = block * (np.arange(len(means)) + 0.5)
        axes.plot(values, linewidth=0.5, alpha=0.45, label="each update")
        axes.plot(middles, means, color=COLOURS[1], label=f"mean of {block}")
    axes.set(xlabel="iteration", ylabel="loss", ylim=(0, None))
    for line in axes.legend().get_lines():
        line.set(linewidth=1.8, alpha=1)


def draw_accuracies(
    axes: Axes,
    at: ArrayLike,
    train_accuracy: ArrayLike,
    test_accuracy: ArrayLike,
    *,
    xlabel: str = "iteration",
) -> None:
    """Draw accuracies, training solid and test dashed; of very many, some 300 evenly spread."""
    x = np.asarray(at)
    drawn = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).round().astype(int))
    axes.plot(x[drawn], np.asarray(train_accuracy)[drawn], label="training")
    test = np.asarray(test_accuracy)
    if len(test):
        axes.plot(x[drawn], test[drawn], "--", label="test")
    # A little above 1, where the line would else be cut in half.
    axes.set(xlabel=xlabel, ylabel="accuracy", ylim=(0, 1.02))
    axes.locator_params(axis="x", integer=True)
    axes.legend(loc="lower right")
