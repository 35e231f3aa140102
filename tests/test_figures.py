"""Figures of the chapter and of a training: what is drawn, labelled, and written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dlfs_gpu.chapter4 import figures
from dlfs_gpu.training import History
from dlfs_gpu.training.curves import plot_curves, png, style

PNG = b"\x89PNG\r\n\x1a\n"
X = np.linspace(0, 1, 20)
GRID = np.meshgrid(X, X)

FIGURES: dict[str, Callable[[], Figure]] = {
    "loss_curve": lambda: figures.loss_curve(X[::-1]),
    "accuracy_curve": lambda: figures.accuracy_curve([0, 1], [0.1, 0.9], [0.1, 0.8]),
    "lines": lambda: figures.lines(X, {"a": X, "b": X**2}, xlabel="x", ylabel="y"),
    "stacked": lambda: figures.stacked(X, {"y": {"a": X}, "z": {"b": X, "c": -X}}, xlabel="x"),
    "tangents": lambda: figures.tangents(X, X**2, {0.5: X - 0.25}, "a parabola"),
    "secant": lambda: figures.secant(X, X**2, X - 0.25, ((0.5, 0.25), (1.0, 1.0))),
    "surface": lambda: figures.surface(*GRID, GRID[0] ** 2),
    "field": lambda: figures.field(np.eye(2), -np.eye(2)),
    "descent_path": lambda: figures.descent_path(np.eye(2)),
    "line_fit_path": lambda: figures.line_fit_path(
        X, X, GRID[0] + 0.1, {"a": np.eye(2), "b": np.eye(2)}
    ),
    "decision_regions": lambda: figures.decision_regions(
        X, {"a": GRID[0], "b": GRID[1]}, [[0, 0], [1, 1]], [0, 1]
    ),
    "overfitting_pair": lambda: figures.overfitting_pair(X[::-1], X, 2, 5),
}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_labelled_axes_and_draw_without_warnings(name: str, dark: bool) -> None:
    with style(dark=dark):
        figure = FIGURES[name]()
        image = png(figure)
    assert image.startswith(PNG)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert panels
    assert panels[0].get_ylabel()
    assert panels[-1].get_xlabel()


def test_style_paints_text_and_paper_and_restores_what_was() -> None:
    before = dict(mpl.rcParams)
    with style(dark=True):
        dark = FIGURES["lines"]()
    with style():
        light = FIGURES["lines"]()
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
    every, means = figures.loss_curve(losses).axes[0].lines
    assert np.asarray(every.get_ydata()).tolist() == losses.tolist()
    assert np.asarray(means.get_xydata())[:2] == pytest.approx(np.array([[5, 4.5], [15, 14.5]]))
    assert means.get_label() == "mean of 10"


@pytest.mark.parametrize("count", [1, 5, 150])
def test_short_loss_curves_are_drawn_whole(count: int) -> None:
    (every,) = figures.loss_curve(np.ones(count)).axes[0].lines
    assert len(np.asarray(every.get_xdata())) == count
    assert every.get_marker() == "."


def test_accuracy_is_drawn_as_the_chapter_does() -> None:
    axes = figures.accuracy_curve([0, 1, 2], [0.1, 0.5, 0.9], [0.1, 0.4, 0.8]).axes[0]
    train, test = axes.lines
    assert (train.get_linestyle(), test.get_linestyle()) == ("-", "--")
    assert (train.get_label(), test.get_label()) == ("training", "test")
    assert axes.get_ylim() == (0, 1.02)
    assert np.asarray(test.get_ydata()).tolist() == [0.1, 0.4, 0.8]


def test_thousands_of_evaluations_are_thinned_and_keep_their_ends() -> None:
    accuracies = np.linspace(0.1, 0.9, 5000)
    train, test = figures.accuracy_curve(range(5000), accuracies, accuracies).axes[0].lines
    for line in (train, test):
        points = np.asarray(line.get_xydata())
        assert len(points) == 300
        assert points[[0, -1]].tolist() == [[0, 0.1], [4999, 0.9]]
        assert points[:, 1] == pytest.approx(accuracies[points[:, 0].astype(int)])


def test_xor_says_which_marker_is_which_answer() -> None:
    figure = FIGURES["decision_regions"]()
    (legend,) = figure.legends
    named = {line.get_label(): line.get_marker() for line in legend.get_lines()}
    assert named == {"right answer 0": "o", "right answer 1": "s"}
    marks = {line.get_marker(): np.asarray(line.get_xydata()) for line in figure.axes[0].lines}
    assert {key: points.tolist() for key, points in marks.items()} == {"o": [[0, 0]], "s": [[1, 1]]}


def test_a_curve_on_another_lets_it_show_through() -> None:
    below, above = figures.lines(X, {"a": X, "b": X}, xlabel="x", ylabel="y").axes[0].lines
    assert (below.get_linestyle(), above.get_linestyle()) == ("-", "--")


def test_descent_path_has_the_chapters_limits() -> None:
    axes = figures.descent_path(np.array([[-3.0, 4.0], [0.0, 0.0]])).axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-3.5, 3.5), (-4.5, 4.5))


def test_early_stopping_is_marked_where_it_happened() -> None:
    axes = figures.overfitting_pair(X[::-1], X + 1, best_epoch=3, stopped_epoch=8).axes[0]
    marks = {line.get_label(): np.asarray(line.get_xydata()) for line in axes.lines}
    assert marks["weights kept"].tolist() == [[3, X[2] + 1]]
    assert marks["training stopped"][:, 0].tolist() == [8, 8]


@pytest.mark.parametrize("test_accuracy", [[], [0.1, 0.8]])
def test_plot_curves_replaces_a_file_at_once(tmp_path: Path, test_accuracy: list[float]) -> None:
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    plot_curves(History([0, 3], [0.1, 0.9], test_accuracy, _losses=[np.arange(3.0)]), path)
    assert path.read_bytes().startswith(PNG)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_figures_do_without_pyplot_and_the_module_without_matplotlib() -> None:
    code = (
        "import sys; from dlfs_gpu.chapter4 import figures; from dlfs_gpu.training import curves; "
        "assert 'matplotlib' not in sys.modules; "
        "curves.png(figures.loss_curve([1.0, 2.0])); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
