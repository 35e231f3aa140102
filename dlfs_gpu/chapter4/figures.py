"""Figures of curves that several sections draw, by matplotlib without pyplot."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dlfs_gpu.training.curves import new_figure

SQUARE = (5.2, 5.0)


def lines(
    x: ArrayLike, curves: Mapping[str, ArrayLike], *, xlabel: str, ylabel: str, **axes_settings: Any
) -> Figure:
    """Draw curves over one axis; `axes_settings` are those of ``Axes.set``."""
    figure, axes = new_figure()
    _draw_lines(axes, x, curves)
    axes.set(xlabel=xlabel, ylabel=ylabel, **axes_settings)
    return figure


def stacked(x: ArrayLike, panels: Mapping[str, Mapping[str, ArrayLike]], *, xlabel: str) -> Figure:
    """Draw panels above each other over one axis, each curves by the label of its own axis."""
    figure, rows = new_figure((5.6, 5.0), rows=len(panels))
    for axes, (ylabel, curves) in zip(rows, panels.items(), strict=True):
        _draw_lines(axes, x, curves)
        axes.set(ylabel=ylabel)
    rows[-1].set(xlabel=xlabel)
    figure.align_ylabels()
    return figure


def _draw_lines(axes: Axes, x: ArrayLike, curves: Mapping[str, ArrayLike]) -> None:
    # The first is solid, so that it shows through the gaps of one that lies on it.
    dashes = itertools.cycle(("-", "--", "-.", ":"))
    for (name, y), dash in zip(curves.items(), dashes, strict=False):
        axes.plot(x, y, linestyle=dash, label=name)
    if len(curves) > 1:
        axes.legend()
