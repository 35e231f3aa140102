"""Results as Markdown tables and as a JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def duration(seconds: float) -> str:
    """Return a time in three digits: ``"251 µs"``."""
    if seconds >= 1:
        return f"{digits(seconds)} s"
    if seconds >= 1e-3:
        return f"{digits(seconds * 1e3)} ms"
    return f"{digits(seconds * 1e6)} µs"


def digits(x: float) -> str:
    """Return a number in three digits, or all of a larger one before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def megabytes(size: float) -> str:
    """Return a number of bytes in three digits: ``"3.4 MB"``."""
    return f"{digits(size / 1e6)} MB"


def tables(section: dict[str, Any]) -> str:
    """Return the tables of a section, or one of a section whose entries are sizes."""
    entries = section["entries"]
    if "series" not in entries[0]:
        return "\n".join(_comparison(entry) for entry in entries)
    lines = [
        (
            each["name"],
            each["series"],
            f"{each['size']:,}",
            duration(each["median"]),
            megabytes(each["peak_bytes"]),
        )
        for each in entries
    ]
    header = ("", "growing", "to", "median", "peak memory")
    return _table("Time, and memory beside the data, as sizes grow", header, lines)


def document(results: dict[str, Any]) -> str:
    """Return all tables, with what they were measured on."""
    parts = ["# Benchmarks\n"]
    parts += [f"- {key}: {value}" for key, value in results["machine"].items() if value]
    for name, section in results["sections"].items():
        versions = ", ".join(f"{package} {v}" for package, v in section["versions"].items())
        parts.append(f"\n## {name.capitalize()}\n")
        parts.append(f"{section['date'][:10]}, data: {section['data']}; {versions}\n")
        parts.append(tables(section))
    return "\n".join(parts)


def load(path: Path) -> dict[str, Any]:
    """Return the results that a file holds; none if there is no file."""
    if not path.exists():
        return {"machine": {}, "sections": {}}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def save(path: Path, results: dict[str, Any]) -> None:
    """Write results to a file, and their tables beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    # One line for each list of numbers, such as a competitor's seconds.
    text = re.sub(r"\[[^][{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    path.write_text(text + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(document(results), encoding="utf-8")


def _comparison(entry: dict[str, Any]) -> str:
    results = entry["results"]
    errors = list({title: None for result in results for title in result["errors"]})
    header = ("", "median", "quartiles", f"× {results[0]['name']}", *errors, "")
    lines = []
    for result in results:
        off = (f"{result['errors'][e]:.1e}" if e in result["errors"] else "" for e in errors)
        note = "" if result["status"] == "ok" else result["status"]
        timing = ("", "", "")
        if "median" in result:
            low, high = result["quartiles"]
            speedup = digits(result["speedup"]) if "speedup" in result else ""
            timing = (duration(result["median"]), f"{duration(low)} to {duration(high)}", speedup)
            if result["units"] < 1:
                elements = round(result["units"] * entry["work"]["parameters"])
                note = f"extrapolated from {elements} elements"
        lines.append((result["name"], *timing, *off, note))
    return _table(entry["title"], header, lines)


def _table(title: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, aligned to be read as it is too."""
    lines = [header, *lines]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    rows = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join((f"### {title}\n", rows[0], rule, *rows[1:], ""))
