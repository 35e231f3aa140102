"""The command ``chapter4``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlfs_gpu.cli.settings import BackendOption, path_option


def chapter4(
    out: Annotated[
        Path,
        path_option("Folder for index.html, figures and report.json, which replace those there."),
    ],
    backend: BackendOption = None,
    data_dir: Annotated[
        Path | None,
        path_option(
            "Folder of the files of MNIST, for the section training.  [default: DLFS_GPU_DATA, or "
            "where they were downloaded; where they are not, the digits are used]"
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="SECTION",
            help="Recompute one alone: losses, derivatives, gradients, descent, networks, "
            "training, slides or errata.",
        ),
    ] = None,
) -> None:
    """Recompute the chapter's numbers and figures.

    Exits with 1 if a number comes out wrong.
    """
    from dlfs_gpu.chapter4 import run_chapter4

    report = run_chapter4(out, backend=backend, data_dir=data_dir, only=only)
    typer.echo(report)
    if not report.ok:
        raise typer.Exit(1)
