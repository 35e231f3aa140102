"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from dlfs_gpu.chapter4.model import Image, Outcome, Part

if TYPE_CHECKING:
    from dlfs_gpu.chapter4.runner import Report

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5c6470; --paper: #ffffff;
  --line: #dcdfe4; --good: #1f7a4d; --bad: #c22f45; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe3ea; --soft: #9aa3b0;
  --paper: #15181d; --line: #383d46; --good: #5cc08f; --bad: #f07a8b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1rem 4rem; max-width: 52rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { line-height: 1.2; margin: 1rem 0; }
h2 { margin: 3rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
a { color: inherit; }
table { width: 100%; margin: 1.5rem 0; border-collapse: collapse; font-size: .9rem; }
th { text-align: left; color: var(--soft); font-weight: normal; }
th, td { padding: .45rem .6rem .45rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td { overflow-wrap: anywhere; }
td:first-child { width: 38%; }
.errata td:first-child { width: 28%; }
.errata td:nth-child(2) { width: 18%; }
.errata td:nth-child(3) { width: 22%; }
td:last-child { padding-right: 0; white-space: nowrap; }
.number { font-family: ui-monospace, monospace; font-size: .8rem; }
.tolerance, .note { display: block; color: var(--soft); font: .8rem/1.4 system-ui, sans-serif; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: bold; }
figure { margin: 2.5rem auto; max-width: 36rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .9rem; }
@media (max-width: 40rem) {
  thead { display: none; }
  tr { display: block; position: relative; padding: .6rem 1.5rem .6rem 0;
    border-bottom: 1px solid var(--line); }
  td { display: flex; gap: .75rem; padding: .1rem 0; border: 0; }
  td:first-child { display: block; font-weight: 600; }
  td, .errata td:nth-child(n) { width: auto; }
  td:first-child .note { font-weight: normal; }
  td:last-child { position: absolute; top: .6rem; right: 0; }
  td[data-label]:not(:empty)::before { content: attr(data-label); flex: 0 0 5rem;
    color: var(--soft); font: .8rem/1.6 system-ui, sans-serif; }
}
"""


def render(report: Report) -> str:
    """Return the page."""
    rows = report.rows
    right = sum(row.ok for row in rows)
    verdict = (
        f'<span class="good">all {len(rows)} numbers come out right</span>'
        if report.ok
        else f'<span class="bad">{len(rows) - right} of {len(rows)} numbers come out wrong</span>'
    )
    links = "\n".join(f'<a href="#{part.name}">{escape(part.title)}</a>' for part in report.parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Deep Learning from Scratch, chapter 4, recomputed</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<h1>Chapter 4, recomputed</h1>
<p>The numbers and figures of chapter 4 of <cite>Deep Learning from Scratch</cite>, “Training
neural networks”, and of the slide deck that goes with it, computed by dlfs_gpu:
{verdict}. Each stands beside what must come out, and how far off it may be.</p>
<p>{report.date}, in {report.seconds:.0f} s, on {escape(report.backend.name)}:
{escape(report.backend.device)}.</p>
<nav>
{links}
</nav>
{"".join(_part(part) for part in report.parts)}
</body>
</html>
"""


def _part(part: Part) -> str:
    groups = itertools.groupby(part.entries, key=lambda entry: isinstance(entry, Image))
    body = "\n".join(
        "\n".join(map(_figure, group)) if images else _table(group)  # type: ignore[arg-type]
        for images, group in groups
    )
    return f"""
<section id="{part.name}">
<h2>{escape(part.title)}</h2>
<p>{escape(part.introduction)}</p>
{body}
</section>"""


def _table(rows: Iterable[Outcome]) -> str:
    outcomes = list(rows)
    printed = any(row.printed for row in outcomes)
    heads = ["", *(["printed"] if printed else []), "expected", "computed", ""]
    return (
        f"<table{' class=errata' * printed}>\n<thead><tr>"
        + "".join(f"<th>{head}</th>" for head in heads)
        + "</tr></thead>\n<tbody>\n"
        + "\n".join(_row(row, printed) for row in outcomes)
        + "\n</tbody>\n</table>"
    )


def _row(row: Outcome, printed: bool) -> str:
    note = f'<span class="note">{escape(row.note)}</span>' if row.note else ""
    tolerance = f'<span class="tolerance">± {row.tolerance:g}</span>' if row.tolerance else ""
    mark = '<span class="good">✓</span>' if row.ok else '<span class="bad">✗ wrong</span>'
    source = f'<td data-label="printed">{escape(row.printed)}</td>' if printed else ""
    bounded = isinstance(row.expected, str) and isinstance(row.computed, float)
    computed = f"{row.computed:.3g}" if bounded else _text(row.computed, row.tolerance)
    return (
        f"<tr><td>{escape(row.name)}{note}</td>{source}"
        f'<td class="number" data-label="expected"><span>{_text(row.expected, row.tolerance)}'
        f"{tolerance}</span></td>"
        f'<td class="number" data-label="computed">{computed}</td>'
        f"<td>{mark}</td></tr>"
    )


def _figure(image: Image) -> str:
    light, dark = (
        f"data:image/png;base64,{base64.b64encode(data).decode()}"
        for data in (image.light, image.dark)
    )
    return f"""<figure id="{image.name}">
<picture>
<source media="(prefers-color-scheme: dark)" srcset="{dark}">
<img src="{light}" alt="{escape(image.caption)}">
</picture>
<figcaption>{escape(image.caption)}</figcaption>
</figure>"""


def _text(value: Any, tolerance: float) -> str:
    """Return a value for people to read: digits that the tolerance makes idle are left out."""
    if isinstance(value, list):
        return "[" + ", ".join(_text(element, tolerance) for element in value) + "]"
    if isinstance(value, float) and math.isfinite(value):
        if tolerance:
            value = round(value, 2 - math.floor(math.log10(tolerance)))
        return repr(value + 0.0)  # without the sign of −0
    return escape(str(value))
