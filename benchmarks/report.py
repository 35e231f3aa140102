"""Results as tables on the terminal and as a JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def duration(seconds: float) -> str:
    """Return a time in three digits: ``"251 µs"``."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= factor or unit == "µs":
            return f"{digits(seconds / factor)} {unit}"
    raise AssertionError


def digits(x: float) -> str:
    """Return a number in three digits, or all of a larger one before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def label(row: dict[str, Any]) -> str:
    """Return a row's name, with the device where it is not in the name."""
    return row["row"] if row["device"] == "CPU" else f"{row['row']} (GPU)"


def tables(name: str, section: dict[str, Any]) -> str:
    """Return the tables of a section."""
    works = section["works"]
    if name == "gradients":
        pairs = zip(works[::2], works[1::2], strict=True)
        return "\n".join(_gradient_table(*pair) for pair in pairs)
    if name == "scaling":
        return _scaling_table(works)
    return "\n".join(_training_table(work) for work in works)


def load(path: Path) -> dict[str, Any]:
    """Return the results that a file holds; none if there is no file."""
    if not path.exists():
        return {"machine": {}, "sections": {}}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def save(path: Path, results: dict[str, Any]) -> None:
    """Write results to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    # One line for each list of numbers, such as a row's seconds.
    text = re.sub(r"\[[^][{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    path.write_text(text + "\n", encoding="utf-8")


def _training_table(work: dict[str, Any]) -> str:
    title = f"{work['work']['name']}: one update, gather and loss included"
    header = ("", "median", "quartiles", "× the chapter", "losses off by")
    lines: list[tuple[str, ...]] = []
    for row in work["rows"]:
        if row["status"] != "ok":
            lines.append((label(row), row["status"]))
            continue
        off = f"{row['deviation']:.0e}" + ("" if row["agrees"] else "  NOT THE SAME TRAINING")
        lines.append((label(row), *_timing(row), off))
    return _table(title, header, lines)


def _gradient_table(fine: dict[str, Any], coarse: dict[str, Any]) -> str:
    work = fine["work"]
    title = f"{work['name']}: numerical gradient, {work['parameters']:,} parameters"
    header = (
        "",
        "median",
        "quartiles",
        "× the chapter",
        f"error at h={work['h']:g}",
        f"at h={coarse['work']['h']:.3g}",
        "",
    )
    lines: list[tuple[str, ...]] = []
    for row, other in zip(fine["rows"], coarse["rows"], strict=True):
        if row["status"] != "ok":
            lines.append((label(row), row["status"]))
            continue
        share = row["units_per_block"]
        note = f"extrapolated from {share * work['parameters']:.0f} parameters" if share < 1 else ""
        errors = (f"{r['deviation']:.1e}" if "deviation" in r else "" for r in (row, other))
        lines.append((label(row), *_timing(row), *errors, note))
    return _table(title, header, lines)


def _scaling_table(works: list[dict[str, Any]]) -> str:
    header = ("", "work", "median", "peak memory")
    lines: list[tuple[str, ...]] = []
    for work in works:
        name = f"{work['work']['name']}, {work['work']['samples']:,} images"
        if work["series"] == "gradient":
            name = f"{work['work']['name']}, numerical gradient"
        for row in work["rows"]:
            if row["status"] != "ok":
                lines.append((label(row), name, row["status"]))
            else:
                memory = f"{digits(row['peak_bytes'] / 1e6)} MB"
                lines.append((label(row), name, duration(row["median"]), memory))
    return _table("time and memory as sizes grow", header, lines)


def _timing(row: dict[str, Any]) -> tuple[str, str, str]:
    low, high = row["quartiles"]
    speedup = digits(row["speedup"]) if "speedup" in row else ""
    return duration(row["median"]), f"{duration(low)} to {duration(high)}", speedup


def _table(title: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    lines = [header, *lines]
    # A row that failed has its reason in the second column, which need not be as wide as that.
    widths = [
        max(len(line[column]) for line in lines if len(line) == len(header))
        for column in range(len(header))
    ]
    widths[0] = max(len(line[0]) for line in lines)
    text = (
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=False)).rstrip()
        for line in lines
    )
    return "\n".join((title, *(f"  {line}" for line in text), ""))
