"""Charts of results: how fast beside the others, and how time and memory grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.report import digits, duration

_COLORS = {
    "the chapter": "#7a7a7a",
    "dlfs_gpu": "#d1495b",
    "PyTorch": "#edae49",
    "torch": "#edae49",
    "JAX": "#2e86ab",
    "jax": "#2e86ab",
    "DeZero": "#66a182",
}
_MARKERS = "osD^v<>PX*h8p"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the charts of the sections that there are, beside the file of results at `path`."""
    sections = results["sections"]
    if sections.keys() & {"training", "gradients", "functions"}:
        _comparison(results).savefig(path.with_suffix(".png"), dpi=150)
    if "scaling" in sections:
        _scaling(results).savefig(path.with_name(f"{path.stem}-scaling.png"), dpi=150)


def _comparison(results: dict[str, Any]) -> Figure:
    sections = results["sections"]
    top = [name for name in ("training", "gradients", "functions") if name in sections]
    bottom = ["sizes"] * len(top) if "training" in sections else []
    figure = Figure(figsize=(5.5 * max(len(top), 2), 9), layout="constrained")
    figure.suptitle(_where_and_when(results))
    axes = figure.subplot_mosaic([row for row in (top, bottom) if row])
    for name in top:
        _times(axes[name], sections[name]["entries"][0])
    if bottom:
        _speedups(axes["sizes"], sections["training"]["entries"])
    return figure


def _times(ax: Axes, entry: dict[str, Any]) -> None:
    """Draw the times of one work, with their quartiles, a competitor in each line."""
    results = _timed(entry)
    for place, result in enumerate(results):
        median = result["median"]
        quartiles = np.reshape(np.abs(np.subtract(result["quartiles"], median)), (2, 1))
        color = _color(result["name"])
        ax.errorbar(median, place, xerr=quartiles, fmt="o", markersize=11, color=color)
        text = duration(median)
        if "speedup" in result:
            text += f", {digits(result['speedup'])}×"
        for title, error in result["errors"].items():
            if title.startswith("error"):
                text += f"\n{title}: {error:.0e}"
        offset: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points"}
        ax.annotate(text, (result["quartiles"][1], place), **offset, va="center", fontsize=8)
    ax.set_yticks(range(len(results)), [result["name"] for result in results])
    ax.set_ylim(len(results) - 0.4, -0.6)
    for tick, result in zip(ax.get_yticklabels(), results, strict=True):
        tick.set_fontweight("bold" if _is_ours(result["name"]) else "normal")
    _log(ax, "x", [result["median"] for result in results], duration)
    left, right = ax.get_xlim()
    # Room for the words on the right.
    ax.set_xlim(left, right * (right / left) ** 0.7)
    ax.xaxis.set_major_locator(LogLocator(subs=(1,)))
    ax.grid(axis="x", alpha=0.3)
    ax.set_title(entry["title"].replace(": ", "\n"))


def _speedups(ax: Axes, entries: list[dict[str, Any]]) -> None:
    """Draw how many times as fast as the chapter each competitor is, a work in each column."""
    names = list({result["name"]: None for entry in entries for result in _timed(entry)[1:]})
    times: list[float] = [1.0]
    for number, name in enumerate(names):
        points = [
            (place, result["speedup"])
            for place, entry in enumerate(entries)
            for result in _timed(entry)
            if result["name"] == name and "speedup" in result
        ]
        times += [speedup for _, speedup in points]
        ax.scatter(
            *np.transpose(points),
            s=90 if _is_ours(name) else 50,
            marker=_MARKERS[number % len(_MARKERS)],
            color=_color(name),
            edgecolor="black",
            linewidth=1.2 if _is_ours(name) else 0.3,
            zorder=3 if _is_ours(name) else 2,
            label=name,
        )
    ax.axhline(1, color=_COLORS["the chapter"], label="the chapter's way")
    _log(ax, "y", times, lambda times: f"{times:g}×")
    ax.grid(axis="y", alpha=0.3)
    ax.set_title("How many times as fast as the chapter's way")
    titles = [entry["title"].replace("One update of ", "") for entry in entries]
    ax.set_xticks(range(len(entries)), [t.replace(" ", "\n", 2) for t in titles], fontsize=8)
    ax.set_xlim(-0.5, len(entries) - 0.5)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _scaling(results: dict[str, Any]) -> Figure:
    entries = results["sections"]["scaling"]["entries"]
    all_series = list({entry["series"]: None for entry in entries})
    figure = Figure(figsize=(3.5 * len(all_series), 6.5), layout="constrained")
    figure.suptitle(_where_and_when(results))
    columns = figure.subplots(2, len(all_series), sharex="col", squeeze=False).T
    for (above, below), series in zip(columns, all_series, strict=True):
        chosen = sorted(
            (entry for entry in entries if entry["series"] == series), key=lambda e: e["size"]
        )
        for name, color in zip(
            sorted({entry["name"] for entry in chosen}), ("#76b900", "#d1495b")
        ):
            pass
    return figure


def _log(
    ax: Axes,
    which: Literal["x", "y"],
    values: Iterable[float],
    text: Callable[[float], str],
    subs: Sequence[float] = (1, 2, 5),
) -> None:
    """Make an axis logarithmic, a decade long at least, so that noise does not look like much."""
    low, high = np.min(list(values)), np.max(list(values))
    middle, half = np.sqrt(low * high), max(np.sqrt(10), 2 * np.sqrt(high / low))
    ax.set(**{f"{which}scale": "log", f"{which}lim": (middle / half, middle * half)})
    axis = getattr(ax, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: text(value))
