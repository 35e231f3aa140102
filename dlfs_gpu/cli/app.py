"""The commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from dlfs_gpu.cli.chapter4 import chapter4
from dlfs_gpu.cli.errors import Command
from dlfs_gpu.cli.gradcheck import gradcheck
from dlfs_gpu.cli.info import info
from dlfs_gpu.cli.predict import predict
from dlfs_gpu.cli.train import train
from dlfs_gpu.machine.versions import versions

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _command in (info, train, gradcheck, predict, chapter4):
    app.command(cls=Command)(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dlfs-gpu {versions()['dlfs-gpu']}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Chapter 4 of Deep Learning from Scratch on NumPy or an NVIDIA GPU."""
