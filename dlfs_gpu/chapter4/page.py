"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Iterable
from html import escape
from typing import Any

from dlfs_gpu.chapter4.model import Check, Plot, Report, Section

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5c6470; --paper: #ffffff;
  --line: #dcdfe4; --good: #1f7a4d; --bad: #c22f45; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe3ea; --soft: #9aa3b0;
  --paper: #15181d; --line: #383d46; --good: #5cc08f; --bad: #f07a8b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1rem 4rem; max-width: 52rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h2 { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
table { width: 100%; margin: 1.5rem 0; border-collapse: collapse; }
table, li, figcaption { font-size: .9rem; }
th, .small, figcaption { color: var(--soft); font-weight: normal; }
th, td { padding: .45rem .6rem .45rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; overflow-wrap: anywhere; }
.number { font-family: ui-monospace, monospace; font-size: .8rem; }
.small { display: block; font: .8rem/1.4 system-ui, sans-serif; }
.good { color: var(--good); } .bad, .mistake { color: var(--bad); } .bad { font-weight: bold; }
figure { margin: 2.5rem auto; max-width: 36rem; }
figure img { display: block; width: 100%; height: auto; }
@media (min-width: 40.01rem) { td:first-child { width: 44%; } .number { width: 26%; } }
@media (max-width: 40rem) {
  thead { display: none; }
  tr { display: block; position: relative; padding: .6rem 1.5rem .6rem 0;
    border-bottom: 1px solid var(--line); }
  td { display: flex; gap: .75rem; padding: .1rem 0; border: 0; }
  td:first-child { display: block; font-weight: 600; }
  td:last-child { position: absolute; top: .6rem; right: 0; }
  td[data-label]::before { content: attr(data-label); flex: 0 0 5rem;
    color: var(--soft); font: .8rem/1.6 system-ui, sans-serif; }
}
"""


def render(report: Report) -> str:
    """Return the page."""
    count, wrong = len(report.checks), sum(not check.ok for _, check in report.checks)
    verdict = (
        f'<span class="bad">{wrong} of {count} checks come out wrong</span>'
        if wrong
        else f'<span class="good">all {count} checks come out right</span>'
    )
    sections = "".join(_section(name, part) for name, part in report.sections.items())
    titles = {name: part.title for name, part in report.sections.items()}
    if any(check.mistake for _, check in report.checks):
        sections += _index_of_errata(report)
        titles["index-of-errata"] = "Index of errata"
    links = "\n".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in titles.items())
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
<p>The numbers and figures of chapter 4 of <cite>Deep Learning from Scratch</cite>, “Neural
network training”, of study notes on it, and of a slide deck on training methods, computed by
dlfs_gpu: {verdict}.</p>
<p>Under each expected value stands the source that prints it, or “derived” where it follows by
mathematics, or was computed in float64, from what the sources give; and how far off the computed
value may be, if it may. In red stands what a source gets wrong.</p>
<p>{report.date}, in {report.seconds:.0f} s, on {escape(report.backend.name)}:
{escape(report.backend.device)}.</p>
<nav>
{links}
</nav>
{sections}
</body>
</html>
"""


def _section(name: str, section: Section) -> str:
    warning = f'\n<p class="bad">{escape(section.warning)}.</p>' if section.warning else ""
    groups: Iterable[tuple[type, Iterable[Any]]] = itertools.groupby(section.entries, key=type)
    body = "\n".join(
        "\n".join(map(_figure, group)) if kind is Plot else _table(group) for kind, group in groups
    )
    return f"""
<section id="{name}">
<h2>{escape(section.title)}</h2>
<p>{escape(section.introduction)}</p>{warning}
{body}
</section>"""


def _table(checks: Iterable[Check]) -> str:
    return (
        "<table>\n<thead><tr><th></th><th>expected</th><th>computed</th><th></th></tr></thead>\n"
        "<tbody>\n" + "\n".join(map(_row, checks)) + "\n</tbody>\n</table>"
    )


def _row(check: Check) -> str:
    name = escape(check.name)
    if check.note:
        name += f'<span class="small">{escape(check.note)}</span>'
    if check.mistake:
        name += f'<span class="small mistake">mistake in {escape(check.mistake)}</span>'
    origin = f"printed: {check.printed_in}" if check.printed_in else "derived"
    if check.tolerance:
        origin += f", ± {check.tolerance:g}"
    # What a source prints is shown as it prints it.
    expected = _text(check.expectation, 0 if check.printed_in else check.tolerance)
    # An expectation with room asks for no digits.
    roomy = isinstance(check.expectation, str) and isinstance(check.computed, float)
    computed = f"{check.computed:.3g}" if roomy else _text(check.computed, check.tolerance)
    mark = '<span class="good">✓</span>' if check.ok else '<span class="bad">✗ wrong</span>'
    return (
        f"<tr><td>{name}</td>"
        f'<td class="number" data-label="expected"><span>{expected}'
        f'<span class="small">{origin}</span></span></td>'
        f'<td class="number" data-label="computed"><span>{computed}</span></td>'
        f"<td>{mark}</td></tr>"
    )


def _figure(plot: Plot) -> str:
    light, dark = (
        f"data:image/png;base64,{base64.b64encode(data).decode()}"
        for data in (plot.light, plot.dark)
    )
    caption = escape(plot.caption)
    return f"""<figure id="{plot.name}">
<picture>
<source media="(prefers-color-scheme: dark)" srcset="{dark}">
<img src="{light}" alt="{caption}">
</picture>
<figcaption>{caption}</figcaption>
</figure>"""


def _index_of_errata(report: Report) -> str:
    items = "\n".join(
        f'<li><a href="#{name}">{escape(check.name)}</a>: '
        f'<span class="mistake">{escape(check.mistake)}</span></li>'
        for name, check in report.checks
        if check.mistake
    )
    return f"""
<section id="index-of-errata">
<h2>Index of errata</h2>
<p>The mistakes of the sources that stand above beside what is right.</p>
<ul>
{items}
</ul>
</section>"""


def _text(value: Any, tolerance: float) -> str:
    """Return a value for people to read: digits that the tolerance makes idle are left out."""
    if isinstance(value, list):
        return "[" + ", ".join(_text(element, tolerance) for element in value) + "]"
    if isinstance(value, float) and math.isfinite(value):
        if tolerance:
            value = round(value, 2 - math.floor(math.log10(tolerance)))
        return repr(value + 0.0)  # without the sign of −0
    return escape(str(value))
