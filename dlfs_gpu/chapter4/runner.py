"""Computes the report, and writes it to a folder."""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlfs_gpu._validation import ArgumentError, check_choice
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.chapter4.model import Check, Plot, Report, Section
from dlfs_gpu.chapter4.page import render
from dlfs_gpu.chapter4.sections.errata import errata
from dlfs_gpu.chapter4.sections.gradients import derivatives, descent, gradients
from dlfs_gpu.chapter4.sections.losses import losses
from dlfs_gpu.chapter4.sections.networks import networks, training
from dlfs_gpu.chapter4.sections.slides import slides
from dlfs_gpu.files import output_folder, whole_results

SECTIONS: dict[str, Callable[..., Section]] = {
    "losses": losses,
    "derivatives": derivatives,
    "gradients": gradients,
    "descent": descent,
    "networks": networks,
    "training": training,
    "slides": slides,
    "errata": errata,
}
"""The sections by name, in the order of the page. Each takes a backend, "training" data too."""


def run_chapter4(
    out: Path,
    *,
    backend: str | Backend | None = None,
    data_dir: Path | None = None,
    only: str | None = None,
) -> Report:
    """Recompute every number and draw every figure of the chapter.

    Writes ``index.html``, a page that holds everything, the figures as PNG, and ``report.json``;
    they replace those of an earlier run. Shows a progress bar where standard error is a terminal.

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

    Raises
    ------
    ArgumentError
        If there is no such section, or it needs no data and `data_dir` is given.
    OSError
        If `out` cannot be written, or a folder that is named for data lacks files; before
        anything is computed.
    """
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    names = list(SECTIONS) if only is None else [check_choice("only", only, SECTIONS)]
    if data_dir is not None and "training" not in names:
        raise ArgumentError("data_dir", f"is {data_dir}, but the section {only} needs no data")
    chosen = get_backend(backend)
    sections = {
        name: SECTIONS[name](chosen, data_dir) if name == "training" else SECTIONS[name](chosen)
        for name in names
    }
    folder = output_folder(Path(out), ("index.html", "report.json"))
    start = time.perf_counter()
    # Products as small as these gain little from threads, and lose much on a busy machine.
    with (
        threadpool_limits(1, user_api="blas"),
        tqdm(names, unit="section", disable=None, leave=False) as bar,
    ):
        for name in bar:
            bar.set_description(name)
            sections[name] = replace(sections[name], entries=_computed(sections[name].entries))
    today = datetime.date.today().isoformat()
    report = Report(chosen, sections, time.perf_counter() - start, today)
    _write(report, folder)
    return report


def _computed(entries: Iterable[Check | Plot]) -> list[Check | Plot]:
    """Return them computed; an error ends them, and fails a check in their place."""
    result: list[Check | Plot] = []
    try:
        result.extend(entries)  # This keeps what came before an error.
    except Exception as error:
        last = result[-1].name if result else "the title"
        result.append(Check(f"what follows “{last}”", "no error", error))
    return result


def _write(report: Report, folder: Path) -> None:
    """Write the files as one set: the page stands there when all of it do."""
    document = {
        "ok": report.ok,
        "backend": report.backend.name,
        "device": report.backend.device,
        "date": report.date,
        "seconds": report.seconds,
        "checks": [
            {
                "section": section,
                **vars(check),
                "expected": _as_json(check.expectation),
                "computed": _as_json(check.computed),
            }
            for section, check in report.checks
        ],
    }
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    plots = [plot for section in report.sections.values() for plot in section.plots]
    files = {f"{plot.name}.png": plot.light for plot in plots}
    files["report.json"] = f"{text}\n".encode()
    files["index.html"] = render(report).encode()
    with whole_results(folder, tuple(files)) as part:
        for name, content in files.items():
            (part / name).write_bytes(content)


def _as_json(value: Any) -> Any:
    """Return the value with NaN and infinities, which JSON lacks, as text."""
    if isinstance(value, list):
        return [_as_json(element) for element in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
