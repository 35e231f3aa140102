"""Charts of results: how fast beside the others, and how time and memory grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.report import digits, duration, label

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
    if sections.keys() & {"training", "sizes", "gradients"}:
        _comparison(results).savefig(path.with_suffix(".png"), dpi=150)
    if "scaling" in sections:
        _scaling(results).savefig(path.with_name(f"{path.stem}-scaling.png"), dpi=150)


def _comparison(results: dict[str, Any]) -> Figure:
    sections = results["sections"]
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    figure.suptitle(_place(results))
    top = [name for name in ("training", "gradients") if name in sections]
    bottom = ["sizes"] * max(len(top), 1) if "sizes" in sections else []
    mosaic: list[Any] = [row for row in (top, bottom) if row]
    for name, ax in figure.subplot_mosaic(mosaic).items():
        panel = {"training": _training_bars, "gradients": _gradient_dots, "sizes": _size_dots}[name]
        panel(ax, sections[name]["works"])
    return figure


def _training_bars(ax: Axes, works: list[dict[str, Any]]) -> None:
    rows = _finished(works[0])
    medians, spread = _medians(rows)
    colors = [_color(row["row"]) for row in rows]
    ax.barh(range(len(rows)), medians, color=colors, xerr=spread, ecolor="#333333", capsize=3)
    _name_rows(ax, rows, [f"{duration(row['median'])}{_times(row)}" for row in rows])
    ax.set_xlim(0, 1.5 * max(medians, default=1))
    ax.xaxis.set_visible(False)
    ax.spines["bottom"].set_visible(False)
    ax.set_title(f"One update, {works[0]['work']['name']}")


def _gradient_dots(ax: Axes, works: list[dict[str, Any]]) -> None:
    rows = _finished(works[0])
    medians, spread = _medians(rows)
    for place, row in enumerate(rows):
        ax.errorbar(
            row["median"],
            place,
            xerr=spread[:, place : place + 1],
            fmt="o",
            markersize=11,
            color=_color(row["row"]),
        )
    texts = [
        f"{duration(row['median'])}{_times(row)}\nerror {row['deviation']:.0e}" for row in rows
    ]
    _name_rows(ax, rows, texts)
    _log(ax, "x", medians, duration, subs=(1,))
    ax.set_xlim(right=ax.get_xlim()[1] * 30)
    ax.grid(axis="x", alpha=0.3)
    ax.set_title(f"Numerical gradient of {works[0]['work']['parameters']:,} parameters")


def _size_dots(ax: Axes, works: list[dict[str, Any]]) -> None:
    names: list[str] = []
    times: list[float] = []
    for place, work in enumerate(works):
        for row in _finished(work):
            name = label(row)
            if "speedup" not in row or name.startswith("the chapter"):
                continue
            new = name not in names
            if new:
                names.append(name)
            ours = name.startswith("dlfs_gpu")
            times.append(row["speedup"])
            ax.scatter(
                place,
                row["speedup"],
                s=90 if ours else 50,
                marker=_MARKERS[names.index(name) % len(_MARKERS)],
                color=_color(name),
                edgecolor="black",
                linewidth=1.2 if ours else 0.3,
                zorder=3 if ours else 2,
                label=name if new else None,
            )
    ax.axhline(1, color=_COLORS["the chapter"], label="the chapter's way")
    _log(ax, "y", [1, *times], lambda times: f"{times:g}×")
    ax.grid(axis="y", alpha=0.3)
    ax.set_title("One update at other sizes: how many times as fast as the chapter's way")
    labels = [work["work"]["name"].replace(", ", "\n").replace(" ", "\n", 1) for work in works]
    ax.set_xticks(range(len(works)), labels, fontsize=7)
    ax.set_xlim(-0.5, len(works) - 0.5)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _scaling(results: dict[str, Any]) -> Figure:
    works = results["sections"]["scaling"]["works"]
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    figure.suptitle(_place(results))
    axes = figure.subplots(2, 4, sharex="col")
    panels: list[tuple[str, str, str, Callable[[Any], float]]] = [
        ("batch", "784-50-10", "batch", lambda work: work["work"]["batch"]),
        ("hidden", "batch 100", "hidden units", lambda work: work["work"]["sizes"][1]),
        ("data", "batch 100", "images to draw from", lambda work: work["work"]["samples"]),
        ("gradient", "", "non-zero pixels × hidden × classes", _gradient_size),
    ]
    for column, (series, title, name, size) in zip(axes.T, panels, strict=True):
        chosen = [work for work in works if work["series"] == series]
        _growth(column, chosen, size, scattered=series == "gradient")
        column[0].set_title(f"One update, {title}" if title else "Numerical gradient")
        column[1].set_xlabel(name)
    axes[0, 0].set_ylabel("time")
    axes[1, 0].set_ylabel("peak memory")
    return figure


def _gradient_size(work: dict[str, Any]) -> float:
    _, hidden, classes = work["work"]["sizes"]
    return float(work["nonzeros"] * hidden * classes)


def _growth(
    axes: Sequence[Axes],
    works: list[dict[str, Any]],
    size: Callable[[Any], float],
    *,
    scattered: bool,
) -> None:
    """Draw time and memory against the size of a work, for each row."""
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for work in works:
        images = work["data_bytes"]
        for row in _finished(work):
            point = size(work), row["median"], row["peak_bytes"] - images, images
            lines.setdefault(label(row), []).append(point)
    points = np.concatenate([np.array(points) for points in lines.values()])
    for color, (name, line) in zip(("#d1495b", "#76b900"), lines.items(), strict=False):
        x, seconds, memory, images = np.array(sorted(line)).T
        style: dict[str, Any] = {
            "color": color,
            "marker": "o",
            "linestyle": "none" if scattered else "-",
        }
        axes[0].plot(x, seconds, **style, label=name)
        axes[1].plot(x, memory, **style, label="without the data")
        if scattered:
            axes[0].plot(x, seconds[-1] * x / x[-1], ":", color=color, label="in proportion")
        else:
            axes[1].plot(x, memory + images, ":", color=color, label="with the data")
    _log(axes[0], "x", points[:, 0], lambda x: f"{x:,.0f}", subs=(1,))
    _log(axes[0], "y", points[:, 1], duration)
    _log(axes[1], "y", [*points[:, 2], *points[:, 2:].sum(axis=1)], _size)
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)


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


def _size(size: float) -> str:
    return f"{digits(size / 1e6)} MB"


def _name_rows(ax: Axes, rows: list[dict[str, Any]], texts: list[str]) -> None:
    """Write each row's name on the left and its text behind its bar or dot."""
    ax.set_yticks(range(len(rows)), [label(row) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.spines[["top", "right"]].set_visible(False)
    for tick, row in zip(ax.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row["row"].startswith("dlfs_gpu") else "normal")
    for place, (row, text) in enumerate(zip(rows, texts, strict=True)):
        end = (row["quartiles"][1], place)
        offset: dict[str, Any] = {"xytext": (8, 0), "textcoords": "offset points"}
        ax.annotate(text, end, **offset, va="center", fontsize=8)


def _medians(rows: list[dict[str, Any]]) -> tuple[list[float], Any]:
    """Return the medians, and how far the quartiles are from them, (2, rows)."""
    medians = [row["median"] for row in rows]
    return medians, np.abs(np.reshape([row["quartiles"] for row in rows], (-1, 2)).T - medians)


def _times(row: dict[str, Any]) -> str:
    return f", {digits(row['speedup'])}×" if "speedup" in row else ""


def _finished(work: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in work["rows"] if row["status"] == "ok" and row["agrees"]]


def _color(name: str) -> str:
    return next(color for start, color in _COLORS.items() if name.startswith(start))


def _place(results: dict[str, Any]) -> str:
    here = results["machine"]
    dates = sorted({section["date"][:10] for section in results["sections"].values()})
    gpu = [here["gpu"]] if here["gpu"] else []
    return " · ".join([f"{here['cpu']}, {here['cores']} cores", *gpu, ", ".join(dates)])
