"""Figures of the chapter and of a training: what is drawn, labelled, and written."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dlfs_gpu.backend import get_backend
from dlfs_gpu.chapter4 import SECTIONS, figures
from dlfs_gpu.training import History
from dlfs_gpu.training.curves import (
    draw_accuracies,
    draw_losses,
    new_figure,
    plot_curves,
    style,
)

PNG = b"\x89PNG\r\n\x1a\n"
X = np.linspace(0, 1, 20)


@functools.cache
def plots(section: str) -> dict[str, Any]:
    return {plot.name: plot for plot in SECTIONS[section](get_backend("numpy")).plots}


@pytest.mark.parametrize("section", ["losses", "derivatives", "gradients", "descent", "slides"])
def test_figures_have_labelled_axes(section: str) -> None:
    for plot in plots(section).values():
        panels = [axes for axes in plot.draw().axes if axes.get_label() != "<colorbar>"]
        assert panels[0].get_ylabel()
        assert panels[-1].get_xlabel()


def test_style_paints_text_and_paper_and_restores_what_was() -> None:
    before = dict(mpl.rcParams)
    with style(dark=True):
        dark = figures.draw(X, {"y": {"a": X}}, xlabel="x")
    with style():
        light = figures.draw(X, {"y": {"a": X}}, xlabel="x")
    assert dict(mpl.rcParams) == before

    def brightness(figure: Figure) -> tuple[float, float]:
        ink = figure.axes[0].xaxis.label.get_color()
        return sum(to_rgb(figure.get_facecolor())), sum(to_rgb(ink))

    paper, ink = brightness(dark)
    assert paper < 0.5 < 2 < ink
    paper, ink = brightness(light)
    assert ink < 0.5 < 2 < paper


def test_loss_curve_draws_every_loss_and_means_of_blocks() -> None:
    losses = np.arange(1000.0)
    _, axes = new_figure()
    draw_losses(axes, losses)
    every, means = axes.lines
    assert np.asarray(every.get_ydata()).tolist() == losses.tolist()
    assert np.asarray(means.get_xydata())[:2] == pytest.approx(np.array([[5, 4.5], [15, 14.5]]))
    assert means.get_label() == "mean of 10"


@pytest.mark.parametrize("count", [1, 5, 150])
def test_short_loss_curves_are_drawn_whole(count: int) -> None:
    _, axes = new_figure()
    draw_losses(axes, np.ones(count))
    (every,) = axes.lines
    assert len(np.asarray(every.get_xdata())) == count
    assert every.get_marker() == "."


def test_accuracy_is_drawn_as_the_chapter_does() -> None:
    _, axes = new_figure()
    draw_accuracies(axes, [0, 1, 2], [0.1, 0.5, 0.9], [0.1, 0.4, 0.8])
    train, test = axes.lines
    assert (train.get_linestyle(), test.get_linestyle()) == ("-", "--")
    assert (train.get_label(), test.get_label()) == ("training", "test")
    assert axes.get_ylim() == (0, 1.02)
    assert np.asarray(test.get_ydata()).tolist() == [0.1, 0.4, 0.8]


def test_thousands_of_evaluations_are_thinned_and_keep_their_ends() -> None:
    accuracies = np.linspace(0.1, 0.9, 5000)
    _, axes = new_figure()
    draw_accuracies(axes, range(5000), accuracies, accuracies)
    for line in axes.lines:
        points = np.asarray(line.get_xydata())
        assert len(points) == 300
        assert points[[0, -1]].tolist() == [[0, 0.1], [4999, 0.9]]
        assert points[:, 1] == pytest.approx(accuracies[points[:, 0].astype(int)])


def test_a_curve_on_another_lets_it_show_through() -> None:
    below, above = figures.draw(X, {"y": {"a": X, "b": X}}, xlabel="x").axes[0].lines
    assert (below.get_linestyle(), above.get_linestyle()) == ("-", "--")


def test_curves_are_smooth_and_steps_upright() -> None:
    (logarithm,) = plots("losses")["ln-x"].draw().axes[0].lines
    heights = np.asarray(logarithm.get_ydata())
    assert np.abs(np.diff(heights)).max() < 0.01 * np.ptp(heights)
    staircase = plots("losses")["accuracy-against-loss"].draw().axes[0].lines[0].get_xydata()
    assert np.diff(np.asarray(staircase)[:, 0]).max() < 0.005 * np.ptp(staircase[:, 0])


def test_descent_path_has_the_chapters_limits() -> None:
    axes = plots("descent")["descent-path"].draw().axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-3.5, 3.5), (-4.5, 4.5))
    assert len(axes.lines[-1].get_xydata()) == 21


def test_early_stopping_is_marked_where_it_happened() -> None:
    (axes,) = plots("slides")["overfitting"].draw().axes
    marks = {line.get_label(): line.get_xydata() for line in axes.lines}
    ((best, least),) = marks["weights kept"].tolist()
    stopped = marks["training stopped"][0, 0]
    seen = marks["validation"][:, 0] <= stopped
    assert least == marks["validation"][seen, 1].min()
    assert stopped == best + 10


@pytest.mark.parametrize("test_accuracy", [[], [0.1, 0.8]])
def test_plot_curves_replaces_a_file_at_once(tmp_path: Path, test_accuracy: list[float]) -> None:
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    plot_curves(History([0, 3], [0.1, 0.9], test_accuracy, _losses=[np.arange(3.0)]), path)
    assert path.read_bytes().startswith(PNG)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_figures_do_without_pyplot_and_curves_without_matplotlib() -> None:
    code = (
        "import sys; from dlfs_gpu.training import curves; assert 'matplotlib' not in sys.modules; "
        "from dlfs_gpu.chapter4 import figures; "
        "curves.png(figures.draw([1, 2], {'y': {'a': [1, 2]}}, xlabel='x')); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
