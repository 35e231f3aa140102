"""Charts of results: how fast beside the others, and how time and memory grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.report import digits, duration, megabytes

_COLORS = {
    "the chapter": "#7a7a7a",
    "dlfs_gpu": "#d1495b",
    "PyTorch": "#edae49",
    "torch": "#edae49",
    "JAX": "#2e86ab",
    "jax": "#2e86ab",
    "DeZero": "#66a182",
}
_MARKERS = "osD^v<>PX*h8pd"


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
    rows: list[Any] = [row for row in (top, bottom) if row]
    axes = figure.subplot_mosaic(rows)
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
    ax.set_xlim(left, right * right / left)
    ax.xaxis.set_major_locator(LogLocator(subs=(1,), numticks=5))
    ax.grid(axis="x", alpha=0.3)
    ax.set_title(entry["title"].replace(": ", "\n"))


def _speedups(ax: Axes, entries: list[dict[str, Any]]) -> None:
    """Draw how many times as fast as the chapter each competitor is, a work in each column."""
    points: dict[str, list[tuple[int, float]]] = {}
    for place, entry in enumerate(entries):
        for result in _timed(entry):
            if "speedup" in result and result["name"] != "the chapter's way":
                points.setdefault(result["name"], []).append((place, result["speedup"]))
    for marker, (name, line) in zip(_MARKERS, points.items(), strict=False):
        ax.scatter(
            [place for place, _ in line],
            [speedup for _, speedup in line],
            s=90 if _is_ours(name) else 50,
            marker=marker,
            color=_color(name),
            edgecolor="black",
            linewidth=1.2 if _is_ours(name) else 0.3,
            zorder=3 if _is_ours(name) else 2,
            label=name,
        )
    ax.axhline(1, color=_COLORS["the chapter"], label="the chapter's way")
    speedups = [speedup for line in points.values() for _, speedup in line]
    _log(ax, "y", [1, *speedups], lambda times: f"{times:g}×")
    ax.grid(axis="y", alpha=0.3)
    ax.set_title("How many times as fast as the chapter's way")
    titles = [entry["title"].replace("One update of ", "") for entry in entries]
    ax.set_xticks(range(len(entries)), [t.replace(" ", "\n", 2) for t in titles], fontsize=8)
    ax.set_xlim(-0.5, len(entries) - 0.5)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _scaling(results: dict[str, Any]) -> Figure:
    entries = results["sections"]["scaling"]["entries"]
    series = list({entry["series"]: None for entry in entries})
    names = list({entry["name"]: None for entry in entries})
    figure = Figure(figsize=(3.5 * len(series), 6.5), layout="constrained")
    figure.suptitle(_where_and_when(results))
    axes = figure.subplots(2, len(series), sharex="col", squeeze=False)
    for (above, below), growing in zip(axes.T, series, strict=True):
        chosen = [entry for entry in entries if entry["series"] == growing]
        for name, color in zip(names, ("#d1495b", "#76b900"), strict=False):
            points = [
                (entry["size"], entry["median"], entry["peak_bytes"])
                for entry in sorted(chosen, key=lambda entry: float(entry["size"]))
                if entry["name"] == name
            ]
            size, median, peak = np.transpose(points)
            above.plot(size, median, "o-", color=color, label=name)
            below.plot(size, peak, "o-", color=color, label=name)
        _log(above, "x", [entry["size"] for entry in chosen], lambda x: f"{x:,.0f}", subs=(1,))
        _log(above, "y", [entry["median"] for entry in chosen], duration)
        _log(below, "y", [entry["peak_bytes"] for entry in chosen], megabytes)
        what, _, size_of = growing.partition(": ")
        above.set_title(f"One {what}")
        below.set_xlabel(size_of)
        for ax in (above, below):
            ax.grid(alpha=0.3)
            ax.legend(frameon=False)
    axes[0, 0].set_ylabel("time")
    axes[1, 0].set_ylabel("peak memory")
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


def _timed(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [result for result in entry["results"] if "median" in result]


def _is_ours(name: str) -> bool:
    return name.startswith("dlfs_gpu")


def _color(name: str) -> str:
    return next(color for start, color in _COLORS.items() if name.startswith(start))


def _where_and_when(results: dict[str, Any]) -> str:
    here = results["machine"]
    dates = sorted({section["date"][:10] for section in results["sections"].values()})
    gpu = [here["gpu"]] if here["gpu"] else []
    return " · ".join([f"{here['cpu']}, {here['cores']} cores", *gpu, ", ".join(dates)])
