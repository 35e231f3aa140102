"""Files: whether they can be read, and results that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path


def check_readable(what: str, path: Path) -> None:
    """Raise an OSError that begins with `what` if there is no file that can be read."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{what} is {path}: there is no such file")
    if path.is_dir():
        raise IsADirectoryError(f"{what} is {path}: that is a folder; it must be a file")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{what} is {path}: it may not be read")


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
    except OSError as error:
        # A full disk comes without the name of the file.
        raise type(error)(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_results(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """Yield a folder to write files to, which replace those in `folder` together.

    Nothing is replaced if the ``with`` block ends with an error. A file among `names` that is not
    written is removed from `folder`: it would be one of other results.
    """
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
        try:
            yield Path(part)
        except OSError as error:
            raise type(error)(str(error).replace(part, str(folder))) from error
        for name in names:
            if Path(part, name).exists():
                os.replace(Path(part, name), folder / name)
            else:
                (folder / name).unlink(missing_ok=True)


def output_folder(path: Path, names: Collection[str] = ()) -> Path:
    """Make a folder for results, and see that it can be written before anything is computed.

    Raises
    ------
    OSError
        If it cannot, or has folders where files with `names` are to be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"out is {path}, where nothing can be written: {error}") from error
    for name in names:
        if (path / name).is_dir():
            raise IsADirectoryError(f"out is {path}, where {name} is a folder; it must be a file")
    return path
