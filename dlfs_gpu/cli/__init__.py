"""The command line."""

from dlfs_gpu.cli.commands import main

__all__ = ["main"]
