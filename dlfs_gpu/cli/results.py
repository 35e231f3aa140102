"""Files of results: each for itself, so that one that cannot be written loses no other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dlfs_gpu._validation import ArgumentError
from dlfs_gpu.cli.errors import describe
from dlfs_gpu.files import output_folder, whole_results


def check_folder(folder: Path, names: Iterable[str], inputs: Iterable[Path]) -> None:
    """Make a folder for files of these names, and see that they can be written.

    Raises
    ------
    ArgumentError
        If one of them would replace an input.
    OSError
        If nothing can be written there, or a folder is in the way.
    """
    names = tuple(names)
    for path in inputs:
        for name in names:
            if (folder / name).exists() and os.path.samefile(folder / name, path):
                raise ArgumentError("out", f"is {folder}, where {name} would replace your input")
    output_folder(folder, names)


def write_results(folder: Path, writers: Mapping[str, Callable[[Path], object]]) -> list[str]:
    """Write files that replace those in a folder, and return what went wrong, for people to read.

    Parameters
    ----------
    folder : Path
        Made again if it is gone.
    writers : mapping of str to callable
        The files' names, in the order in which they are written, and what writes each to a path.
    """
    failures = []
    try:
        with whole_results(folder, tuple(writers)) as part:
            for name, write in writers.items():
                try:
                    write(part / name)
                # A plot may fail in any way that matplotlib, its settings, or LaTeX can.
                except Exception as error:
                    (part / name).unlink(missing_ok=True)
                    failures.append(f"{folder / name} is not written: {cause_of(error)}")
    except OSError as error:
        failures.append(f"{folder} cannot be written: {cause_of(error)}")
    return failures


def cause_of(error: Exception) -> str:
    """Return why a file could not be written, for people to read."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, ArgumentError | MemoryError):
        return describe(error)
    return f"{type(error).__name__}: {error}"
