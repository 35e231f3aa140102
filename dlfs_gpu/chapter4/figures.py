"""Figures of curves that several sections draw, by matplotlib without pyplot."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dlfs_gpu.training.curves import new_figure

SQUARE = (5.2, 5.0)


def draw(
    x: ArrayLike,
    panels: Mapping[str, Mapping[str, ArrayLike]],
    *,
    xlabel: str,
    **axes_settings: Any,
) -> Figure:
    """Draw curves over one axis, in panels above each other that are named by their own axis.

    `axes_settings` are those of ``Axes.set``, for every panel.
    """
    figure, rows = new_figure((5.6, 2.4 + 1.3 * len(panels)), rows=len(panels))
    for axes, (ylabel, curves) in zip(np.atleast_1d(rows), panels.items(), strict=True):
        # The first is solid, so that it shows through the gaps of one that lies on it.
        dashes = itertools.cycle(("-", "--", "-.", ":"))
        for (name, y), dash in zip(curves.items(), dashes, strict=False):
            axes.plot(x, y, linestyle=dash, label=name)
        if len(curves) > 1:
            axes.legend()
        axes.set(ylabel=ylabel, **axes_settings)
    axes.set(xlabel=xlabel)
    figure.align_ylabels()
    return figure
