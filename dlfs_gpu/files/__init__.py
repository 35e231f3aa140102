"""Files: those that can be read, and results that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from io import BufferedReader
from pathlib import Path


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file to read bytes; OSError if it is a device or a pipe, which may have no end."""
    mode = os.stat(path).st_mode
    # A folder is refused by open itself.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    return open(path, "rb")


_PREFIX = ".dlfs_gpu-"  # of unfinished files, and of folders of them
_ABANDONED = 3600  # seconds after which nobody still writes to a file


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to, which becomes `path` at the end of a ``with`` block.

    An existing file stays as it is until then, and for good if the block ends with an error. The
    path yielded is new each time: of several writers, the last one's file stays, whole. What cannot
    be written is an OSError that names `path`.
    """
    path = Path(path)
    part = path.parent / (_PREFIX + uuid.uuid4().hex)
    try:
        with _named(part, path):
            yield part
            _write_through(part)
            part.replace(path)
            _write_names_through(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def whole_results(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a folder to write files to, which replace those in `folder` together.

    Nothing is replaced if the ``with`` block ends with an error. A file among `names` that is not
    written is removed from `folder`: it would be one of other results. Of several, the last is
    removed first and put in place last: where it is, all are of the same results, even if a run
    was killed in between. What cannot be written is an OSError that names `folder`, or the file in
    it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder)
    with temporary as part, _named(Path(part), folder):
        yield Path(part)
        written = [name for name in names if Path(part, name).exists()]
        for name in written:
            _write_through(Path(part, name))
        if len(names) > 1:
            (folder / names[-1]).unlink(missing_ok=True)
        for name in names:
            if name in written:
                os.replace(Path(part, name), folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        _write_names_through(folder)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed runs have left in a folder where no other run is at work."""
    for left in folder.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            if left.is_dir():
                shutil.rmtree(left)
            # A file may be another command's.
            elif time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()


def output_folder(path: Path, names: Collection[str] = ()) -> Path:
    """Make a folder for files with `names`; OSError if they could not be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        refusal = type(error)(f"out is {path}, where nothing can be written: {error}")
        refusal.errno = error.errno
        raise refusal from error
    for name in names:
        if (path / name).is_dir():
            raise IsADirectoryError(f"out is {path}, where {name} is a folder; it must be a file")
    return path


@contextlib.contextmanager
def _named(part: Path, path: Path) -> Iterator[None]:
    """Have errors that name `part`, or a file in it, name `path`, or the file there instead."""
    try:
        yield
    except OSError as error:
        # A full disk comes without a name.
        failed = part if error.filename is None else Path(os.fsdecode(error.filename))
        if part not in (failed, failed.parent):
            raise
        text = error.strerror or str(error)
        name = path / failed.relative_to(part)
        raise OSError(error.errno or errno.EIO, text, str(name)) from error


def _write_through(path: Path) -> None:
    """Have the system put a file on the disk, so that a power cut leaves it or the one before."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _write_names_through(folder: Path) -> None:
    """Have the system put the names in a folder on the disk, where it knows such a thing."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
