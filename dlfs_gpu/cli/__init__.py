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
    # Ctrl-C just ends it until all is imported: nothing is lost, and there is no traceback.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dlfs_gpu.cli.app import app

    signal.signal(signal.SIGINT, handler)
    app(prog_name="dlfs-gpu")
