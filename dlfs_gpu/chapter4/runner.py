"""Computes the report, and writes it to a folder."""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlfs_gpu._files import output_folder, whole_file
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.model import Image, Outcome, Part, Plot, Row, Section, Setting, evaluate
from dlfs_gpu.chapter4.page import render
from dlfs_gpu.chapter4.sections.derivatives import derivatives
from dlfs_gpu.chapter4.sections.descent import descent, gradients
from dlfs_gpu.chapter4.sections.errata import errata
from dlfs_gpu.chapter4.sections.losses import losses
from dlfs_gpu.chapter4.sections.networks import networks
from dlfs_gpu.chapter4.sections.slides import slides
from dlfs_gpu.chapter4.sections.training import MNIST, training, training_data

SECTIONS: dict[str, Callable[[Setting], Section]] = {
    "losses": losses,
    "derivatives": derivatives,
    "gradients": gradients,
    "descent": descent,
    "networks": networks,
    "training": training,
    "slides": slides,
    "errata": errata,
}
"""The sections by name, in the order of the page. Their rows are defined in their modules."""


@dataclass(frozen=True)
class Report:
    """What was computed.

    Attributes
    ----------
    backend : Backend
    parts : list of Part
        The sections, with their outcomes and images.
    seconds : float
    data_name : str or None
        What the section on training was trained on, if it is among the parts.
    date : str
    """

    backend: Backend
    parts: list[Part]
    seconds: float
    data_name: str | None = None
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())

    @property
    def rows(self) -> list[Outcome]:
        """Outcomes of all rows, in order."""
        return [
            entry for part in self.parts for entry in part.entries if isinstance(entry, Outcome)
        ]

    @property
    def figures(self) -> list[Image]:
        """All figures, in order."""
        return [entry for part in self.parts for entry in part.entries if isinstance(entry, Image)]

    @property
    def ok(self) -> bool:
        """Whether every row came out as it must."""
        return all(row.ok for row in self.rows)

    def __str__(self) -> str:
        lines = [f"{'section':14}{'rows':>6}{'right':>7}{'figures':>9}"]
        for part in self.parts:
            rows = [entry for entry in part.entries if isinstance(entry, Outcome)]
            right, figures = sum(row.ok for row in rows), len(part.entries) - len(rows)
            lines.append(f"{part.name:14}{len(rows):6}{right:7}{figures:9}")
        right = sum(row.ok for row in self.rows)
        lines.append(f"{'all':14}{len(self.rows):6}{right:7}{len(self.figures):9}")
        lines += [
            f"WRONG in {row.section}: {row.name}: {row.computed}, expected {row.expected}"
            for row in self.rows
            if not row.ok
        ]
        if self.data_name not in (None, MNIST):
            lines.append(f"trained on {self.data_name}, because MNIST is not at hand")
        lines.append(f"{self.seconds:.0f} s on {self.backend.name}, {self.backend.device}")
        return "\n".join(lines)


def run_chapter4(
    out: Path,
    *,
    backend: str | Backend | None = None,
    data_dir: Path | None = None,
    only: str | None = None,
    progress: bool = True,
) -> Report:
    """Recompute every number and draw every figure of the chapter.

    Writes ``index.html``, a page that holds everything, the figures as PNG, and ``report.json``;
    they replace those of an earlier run.

    Parameters
    ----------
    out : path
        Folder to write to; made if it is not there.
    backend : str or Backend, optional
        Where to compute, as for `dlfs_gpu.get_backend`.
    data_dir : path, optional
        Folder of the MNIST files, which the section on training needs. Without it, that is the
        folder named by ``DLFS_GPU_DATA``, or else those downloaded earlier are used, or where
        there are none the embedded digits.
    only : str, optional
        Name of the one section of `SECTIONS` to compute.
    progress : bool
        Show a progress bar where standard error is a terminal.

    Raises
    ------
    ValueError
        If there is no such section, or it needs no data and `data_dir` is given.
    OSError
        If `out` cannot be written, or a folder that is named for data lacks files; before
        anything is computed.
    """
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    if only is not None and only not in SECTIONS:
        raise ValueError(f"only is {only!r}; it must be one of {', '.join(SECTIONS)}")
    names = list(SECTIONS) if only is None else [only]
    if data_dir is not None and "training" not in names:
        raise ValueError(f"data_dir is {data_dir}, but the section {only} needs no data")
    place = get_backend(backend)
    setting = Setting(place, training_data(place, data_dir) if "training" in names else None)
    folder = output_folder(Path(out), ("index.html", "report.json"))
    start = time.perf_counter()
    parts = []
    # Products as small as these gain little from threads, and lose much on a busy machine.
    with (
        threadpool_limits(1, user_api="blas"),
        tqdm(names, unit="section", disable=None if progress else True, leave=False) as bar,
    ):
        for name in bar:
            bar.set_description(name)
            section = SECTIONS[name](setting)
            entries = [_settle(entry, name) for entry in section.entries]
            parts.append(Part(name, section.title, section.introduction, entries))
    data_name = None if setting.data is None else setting.data[0]
    report = Report(place, parts, time.perf_counter() - start, data_name)
    _write(report, folder)
    return report


def _settle(entry: Row | Plot, section: str) -> Outcome | Image:
    if isinstance(entry, Row):
        return evaluate(entry, section)
    with figures.style():
        light = figures.png(entry.draw())
    with figures.style(dark=True):
        return Image(entry.name, entry.caption, light, figures.png(entry.draw()))


def _write(report: Report, folder: Path) -> None:
    """Write the files, each under its final name only when it is whole."""
    content = {f"{image.name}.png": image.light for image in report.figures}
    document = {
        "ok": report.ok,
        "backend": report.backend.name,
        "device": report.backend.device,
        "date": report.date,
        "seconds": report.seconds,
        "rows": [asdict(row) for row in report.rows],
    }
    content["report.json"] = (
        json.dumps(_named(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()
    content["index.html"] = render(report).encode()
    for name, data in content.items():
        with whole_file(folder / name) as part:
            part.write_bytes(data)


def _named(value: Any) -> Any:
    """Return the value with NaN and infinities, which JSON lacks, as text."""
    if isinstance(value, dict):
        return {key: _named(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_named(element) for element in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
