"""The command line: ``dlfs-gpu info | train | gradcheck | predict | chapter4``."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line."""
    if sys.stderr is None:
        # Where it was closed, progress goes nowhere.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    # Figures are files here, whatever else the user has set or misspelt.
    os.environ["MPLBACKEND"] = "agg"
    try:
        # Imported here because that takes a while, in which Ctrl-C shows no traceback.
        from dlfs_gpu.cli.app import app

        app(prog_name="dlfs-gpu")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
