"""Files: those that can be read, and results that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Collection, Iterator, Sequence
from io import BufferedReader
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PREFIX = ".part-"


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file to read bytes; not a device or a pipe, which may have no end.

    Raises
    ------
    OSError
        If there is no file, it cannot be read, or it is not a regular one.
    """
    mode = os.stat(path).st_mode
    # A folder is refused by open itself.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    return open(path, "rb")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to, which becomes `path` at the end of a ``with`` block.

    An existing file stays as it is until then, and for good if the block ends with an error. The
    path yielded is new each time: of several writers, the last one's file stays, whole.

    Raises
    ------
    OSError
        If it cannot be written; its ``filename`` is `path`.
    """
    path = Path(path)
    part = path.parent / (_PREFIX + uuid.uuid4().hex)
    try:
        yield part
        _write_through(part)
        part.replace(path)
    except OSError as error:
        # A full disk comes without a name.
        if error.filename in (None, str(part)):
            raise _under_name(error, path) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def whole_results(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a folder to write files to, which replace those in `folder` together.

    Nothing is replaced if the ``with`` block ends with an error. A file among `names` that is not
    written is removed from `folder`: it would be one of other results. The last of `names` is
    removed first and put in place last: where it is, all are of the same results, even if a run
    was killed in between. What such a run left behind is removed by the next one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder), tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as part:
        try:
            yield Path(part)
        except OSError as error:
            name = str(error.filename or part).replace(part, str(folder))
            raise _under_name(error, name) from error
        written = [name for name in names if Path(part, name).exists()]
        for name in written:
            _write_through(Path(part, name))
        (folder / names[-1]).unlink(missing_ok=True)
        for name in names:
            if name in written:
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
        refusal = type(error)(f"out is {path}, where nothing can be written: {error}")
        refusal.errno = error.errno
        raise refusal from error
    for name in names:
        if (path / name).is_dir():
            raise IsADirectoryError(f"out is {path}, where {name} is a folder; it must be a file")
    return path


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other run publishes results in a folder, and remove what dead runs left.

    A lock ends with the process that holds it: once it is ours, whatever lies there is of the
    dead. Where folders cannot be locked (Windows, some network drives), nothing is removed.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for left in folder.glob(_PREFIX + "*"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


def _write_through(path: Path) -> None:
    """Have the system put a file on the disk, so that a power cut leaves it or the one before."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _under_name(error: OSError, path: str | Path) -> OSError:
    """Return an error again, with the name of the file that the user knows."""
    return OSError(error.errno or errno.EIO, error.strerror or str(error), str(path))
