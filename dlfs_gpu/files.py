"""Where results are written: folders that can be, files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to, which becomes `path` at the end of a ``with`` block.

    An existing file stays as it is until then, and for good if the block ends with an error.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def output_folder(path: Path) -> Path:
    """Make a folder for results, and see that it can be written before anything is computed.

    Raises
    ------
    OSError
        If it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"out is {path}, where nothing can be written: {error}") from error
    return path
